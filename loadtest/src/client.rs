//! The client of the hand-made engine: keeps requests in flight on its connections, cleartext
//! HTTP/1.1, and hands every response to [`Load`] to be judged.
//!
//! A request is *lost* when it was sent on an accepted connection and no complete right response
//! came; a refused connection and a kept connection that ends while idle are counted apart.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, SockRef, Socket, Type};

use crate::http1::Malformed;
use crate::load::{Flight, Load};
use crate::response::Response;
use crate::ring::{Completion, Key, Op, Ring, Side};
use crate::tally::Failure;

/// Connection attempts started per tick, so that thousands do not overflow a backlog.
const OPENED_PER_TICK_MAX: usize = 128;

const SWEEP_NS: u64 = 100_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No socket.
    Down,
    /// Connecting, with a request to send or without.
    Connecting,
    /// Connected, nothing in flight.
    Idle,
    /// Request sent, response not complete.
    Busy,
    /// Response complete, waiting for the end of the connection.
    Closing,
}

struct Connection {
    socket: Option<Socket>,
    generation: u32,
    phase: Phase,
    flight: Option<Flight>,
    /// When its request was sent or its closing began, nanoseconds.
    since_ns: u64,
    response: Response,
}

/// The requesting half of a thread.
pub struct Client {
    /// This thread's share of the run.
    pub load: Load,
    connections: Vec<Connection>,
    /// Open loop: connected and idle, most recently used last.
    idle: Vec<u32>,
    /// Without a socket.
    down: Vec<u32>,
    /// Closed loop: connections that think, by when they go on.
    thinking: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Open loop: since when there is a free connection; `u64::MAX` while there is none.
    free_since_ns: u64,
    swept_ns: u64,
}

impl Client {
    /// Prepares `connections` connections; none is opened before the first tick.
    pub fn new(load: Load, connections: usize) -> Self {
        let connection = || Connection {
            socket: None,
            generation: 0,
            phase: Phase::Down,
            flight: None,
            since_ns: 0,
            response: Response::new(),
        };
        Self {
            connections: (0..connections).map(|_| connection()).collect(),
            idle: Vec::new(),
            down: (0..connections as u32).rev().collect(),
            thinking: BinaryHeap::new(),
            free_since_ns: 0,
            swept_ns: 0,
            load,
        }
    }

    /// Opens connections and gives up on requests that took too long.
    pub fn tick(&mut self, ring: &mut Ring, now_ns: u64) -> io::Result<()> {
        if now_ns - self.swept_ns > SWEEP_NS {
            self.swept_ns = now_ns;
            self.sweep(now_ns);
        }
        if !self.load.is_open() {
            for _ in 0..OPENED_PER_TICK_MAX.min(self.down.len()) {
                if self.load.is_over() {
                    break;
                }
                let flight =
                    if self.load.plan.new_connections { self.load.take(now_ns) } else { None };
                self.open(ring, flight, now_ns)?;
            }
        }
        self.load.open = self.connections.len() - self.down.len();
        Ok(())
    }

    /// When something is to be done though nothing completes, nanoseconds; `u64::MAX` for never.
    pub fn wake_ns(&self) -> u64 {
        let thought = self.thinking.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
        let free = !self.idle.is_empty() || !self.down.is_empty();
        if free { thought.min(self.load.next_due_ns()) } else { thought }
    }

    /// Sends what is due: requests of the open loop, and those of connections that have thought.
    pub fn start_due(&mut self, ring: &mut Ring, now_ns: u64) -> io::Result<()> {
        while let Some(Reverse((at, index, generation))) = self.thinking.peek().copied()
            && at <= now_ns
        {
            self.thinking.pop();
            let connection = &self.connections[index as usize];
            if connection.generation == generation && connection.phase == Phase::Idle {
                self.next(ring, index, now_ns)?;
            }
        }
        while self.load.next_due_ns() <= now_ns {
            let index = self.idle.pop();
            if index.is_none() && self.down.is_empty() {
                self.free_since_ns = u64::MAX;
                return Ok(());
            }
            if self.free_since_ns == u64::MAX {
                self.free_since_ns = now_ns;
            }
            let Some(flight) = self.load.take_due(now_ns) else { return Ok(()) };
            if flight.started_ns >= self.free_since_ns {
                self.load.note_lag(&flight, now_ns);
            }
            match index {
                Some(index) => self.send(ring, index, flight, now_ns)?,
                None => self.open(ring, Some(flight), now_ns)?,
            }
        }
        Ok(())
    }

    /// Takes one completion; `bytes` is what it received.
    pub fn handle(
        &mut self,
        ring: &mut Ring,
        done: Completion,
        bytes: &[u8],
        now_ns: u64,
    ) -> io::Result<()> {
        if self.connections[done.key.index as usize].generation != done.key.generation {
            return Ok(());
        }
        match done.op {
            Op::Connect => self.connected(ring, done, now_ns),
            Op::Receive => self.received(ring, done, bytes, now_ns),
            // The receive that is always armed reports the same death with its reason.
            Op::Send | Op::Accept | Op::Tick => Ok(()),
        }
    }

    /// Opens the next connection that is down, with or without a request to send on it.
    fn open(&mut self, ring: &mut Ring, flight: Option<Flight>, now_ns: u64) -> io::Result<()> {
        let Some(index) = self.down.pop() else { return Ok(()) };
        let target = &self.load.plan.target;
        let socket = Socket::new(Domain::from(i32::from(target.family())), Type::STREAM, None)?;
        if !target.is_unix() {
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_congestion(b"reno")?;
        }
        let fd = socket.as_raw_fd();
        let connection = &mut self.connections[index as usize];
        connection.socket = Some(socket);
        connection.generation = (connection.generation + 1) & 0x00ff_ffff;
        connection.phase = Phase::Connecting;
        connection.flight = flight;
        connection.since_ns = now_ns;
        let key = Key { side: Side::Client, index, generation: connection.generation };
        ring.connect(fd, target, key)
    }

    fn send(&mut self, ring: &mut Ring, index: u32, flight: Flight, now_ns: u64) -> io::Result<()> {
        let request = self.load.request(&flight);
        let connection = &mut self.connections[index as usize];
        connection.phase = Phase::Busy;
        connection.flight = Some(flight);
        connection.since_ns = now_ns;
        connection.response.expect(request.bodiless, request.expect.checksum.is_some());
        let Some(socket) = &connection.socket else { return Ok(()) };
        let key = Key { side: Side::Client, index, generation: connection.generation };
        ring.send(socket.as_raw_fd(), request.wire, false, key)
    }

    fn connected(&mut self, ring: &mut Ring, done: Completion, now_ns: u64) -> io::Result<()> {
        let index = done.key.index;
        if done.result < 0 {
            let refused = done.result == -libc::ECONNREFUSED;
            let failure = if refused { Failure::Refused } else { Failure::Connect };
            self.fail(index, failure, || error_text(done.result));
            self.put_down(index);
            return Ok(());
        }
        let connection = &mut self.connections[index as usize];
        if let Some(socket) = &connection.socket {
            ring.receive(socket.as_raw_fd(), done.key)?;
        }
        match connection.flight {
            Some(flight) => self.send(ring, index, flight, now_ns),
            None => self.next(ring, index, now_ns),
        }
    }

    /// Gives a connection without a request its next one, or parks it.
    fn next(&mut self, ring: &mut Ring, index: u32, now_ns: u64) -> io::Result<()> {
        if !self.load.is_open()
            && let Some(flight) = self.load.take(now_ns)
        {
            return self.send(ring, index, flight, now_ns);
        }
        self.connections[index as usize].phase = Phase::Idle;
        self.idle.push(index);
        Ok(())
    }

    fn received(
        &mut self,
        ring: &mut Ring,
        done: Completion,
        bytes: &[u8],
        now_ns: u64,
    ) -> io::Result<()> {
        let index = done.key.index;
        if done.result <= 0 && done.result != -libc::ENOBUFS {
            let in_order = self.ended(index, done.result, now_ns);
            // A failure waits for the next tick, so that a dead target is not hammered.
            if !in_order || self.load.is_open() || self.load.is_over() {
                return Ok(());
            }
            let flight = if self.load.plan.new_connections { self.load.take(now_ns) } else { None };
            return self.open(ring, flight, now_ns);
        }
        let connection = &mut self.connections[index as usize];
        if !done.more
            && let Some(socket) = &connection.socket
        {
            ring.receive(socket.as_raw_fd(), done.key)?;
        }
        if connection.phase == Phase::Closing {
            // What follows a failure that is already judged.
            return Ok(());
        }
        match connection.response.take(bytes) {
            Ok(false) => Ok(()),
            Ok(true) => self.complete(ring, index, now_ns),
            Err(Malformed) => {
                self.fail(index, Failure::Malformed, || {
                    let start = &bytes[..bytes.len().min(60)];
                    format!("received {:?}", String::from_utf8_lossy(start))
                });
                self.hang_up(index, now_ns);
                Ok(())
            }
        }
    }

    /// A whole response is here: have it judged and go on.
    fn complete(&mut self, ring: &mut Ring, index: u32, now_ns: u64) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        let Some(flight) = connection.flight.take() else { return Ok(()) };
        let response = &connection.response;
        let close = response.close;
        let facts = (response.status, response.length, response.checksum());
        self.load.finish(&flight, now_ns, facts);
        let connection = &mut self.connections[index as usize];
        if close || self.load.plan.new_connections {
            connection.phase = Phase::Closing;
            connection.since_ns = now_ns;
            return Ok(());
        }
        match self.load.request(&flight).think_ns {
            0 => self.next(ring, index, now_ns),
            think_ns => {
                connection.phase = Phase::Idle;
                let generation = connection.generation;
                self.thinking.push(Reverse((now_ns + think_ns, index, generation)));
                Ok(())
            }
        }
    }

    /// The connection is gone: with `result` 0 in order, else with an errno. True when the end
    /// was expected, after a complete response.
    fn ended(&mut self, index: u32, result: i32, now_ns: u64) -> bool {
        let connection = &mut self.connections[index as usize];
        let mut in_order = connection.phase == Phase::Closing && result == 0;
        if result == 0 && connection.phase == Phase::Busy && connection.response.end() {
            let response = &connection.response;
            let facts = (response.status, response.length, response.checksum());
            if let Some(flight) = connection.flight.take() {
                self.load.finish(&flight, now_ns, facts);
            }
            in_order = true;
        } else if connection.flight.is_some() {
            let failure = match (result, connection.response.begun) {
                (0, true) => Failure::Short,
                (0, false) => Failure::Unanswered,
                _ => Failure::Reset,
            };
            self.fail(index, failure, || error_text(result));
        } else if connection.phase == Phase::Idle {
            self.load.note_idle_closed();
        }
        self.put_down(index);
        in_order
    }

    fn fail(&mut self, index: u32, failure: Failure, note: impl FnOnce() -> String) {
        match self.connections[index as usize].flight.take() {
            Some(flight) => self.load.fail(&flight, failure, note),
            None => self.load.fail_idle(failure, note),
        }
    }

    /// Drops the socket; the position can be opened again.
    fn put_down(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        connection.socket = None;
        if connection.phase == Phase::Idle {
            self.idle.retain(|i| *i != index);
        }
        connection.phase = Phase::Down;
        self.down.push(index);
    }

    /// Ends a connection from this side; the armed receive then reports it.
    fn hang_up(&mut self, index: u32, now_ns: u64) {
        let connection = &mut self.connections[index as usize];
        connection.phase = Phase::Closing;
        connection.since_ns = now_ns;
        if let Some(socket) = &connection.socket {
            // A peer that is already gone makes this fail, which is the state wanted.
            let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
        }
    }

    fn sweep(&mut self, now_ns: u64) {
        let timeout_ns = self.load.plan.timeout_ns;
        for index in 0..self.connections.len() as u32 {
            let connection = &self.connections[index as usize];
            let waiting = connection.flight.is_some() || connection.phase == Phase::Closing;
            if waiting && now_ns.saturating_sub(connection.since_ns) > timeout_ns {
                self.fail(index, Failure::Timeout, || {
                    format!("no response in {} s", timeout_ns as f64 / 1e9)
                });
                self.hang_up(index, now_ns);
            }
        }
    }
}

fn error_text(result: i32) -> String {
    match result {
        0 => "the connection ended".to_owned(),
        errno => io::Error::from_raw_os_error(-errno).to_string(),
    }
}
