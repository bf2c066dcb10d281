//! The client: keeps requests in flight on its connections and judges every response.
//!
//! Two ways to load. *Closed loop*: each connection sends its next request when the last response
//! is complete. *Paced*: request `k` is due at `k / rate` seconds, is sent on an idle connection
//! (or a new one, up to the maximum), and its latency counts from when it was due, so that a
//! stalled proxy cannot hide the requests it delayed.
//!
//! A request is *lost* when it was sent on an accepted connection and no complete valid response
//! came; a refused connection and a kept connection that ends while idle are counted apart.

use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::http::{self, Head};
use crate::report::{Failure, Tally};
use crate::ring::{Completion, Key, Op, Ring, Side};

/// Connection attempts started per tick, so that thousands do not overflow a backlog.
const OPENED_PER_TICK_MAX: usize = 128;

/// What to send, how fast, and what counts as right.
pub struct Plan {
    /// Where the proxy listens.
    pub target: &'static SockAddr,
    /// Prepared requests, sent in turn.
    pub requests: Vec<&'static [u8]>,
    /// Connections kept (closed loop) or at most open (paced).
    pub connections: usize,
    /// One request per connection.
    pub new_connections: bool,
    /// Requests per second; `None` for the closed loop.
    pub rate: Option<f64>,
    /// The only right status.
    pub status: u16,
    /// The only right length of a response body, if it matters.
    pub body_bytes: Option<u64>,
    /// A request older than this is lost.
    pub timeout_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No socket.
    Down,
    /// Connecting; a request is assigned when `Connection::counted` is set.
    Connecting,
    /// Connected, nothing in flight.
    Idle,
    /// Request sent, response head not complete.
    Head,
    /// Response body not complete: this many bytes are missing.
    Body(u64),
    /// Response complete, waiting for the end of the connection.
    Closing,
}

struct Connection {
    socket: Option<Socket>,
    generation: u32,
    phase: Phase,
    /// When the request in flight was due, nanoseconds.
    started_ns: u64,
    /// A request is assigned to this connection and not yet judged.
    busy: bool,
    /// The request in flight belongs to the measurement.
    counted: bool,
    /// The request in flight has received something.
    answered: bool,
    /// A response head received in part.
    partial: Vec<u8>,
    head: Head,
}

/// The requesting half of the process.
pub struct Client {
    plan: Plan,
    connections: Vec<Connection>,
    /// Paced: connected and idle, most recently used last.
    idle: Vec<u32>,
    /// Without a socket.
    down: Vec<u32>,
    next_request: usize,
    /// Paced: when request 0 was due, and how many were started.
    epoch_ns: u64,
    paced: u64,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests that may still be started; `None` without bound.
    pub budget: Option<u64>,
    /// Whether requests now started belong to the measurement.
    pub counting: bool,
    /// What was measured.
    pub tally: Tally,
    swept_ns: u64,
}

impl Client {
    /// Prepares the connections; none is opened before the first tick.
    ///
    /// `counting` says that there is no warm-up, `budget` how many requests there may be then.
    pub fn new(plan: Plan, now_ns: u64, counting: bool, budget: Option<u64>) -> Self {
        let connection = || Connection {
            socket: None,
            generation: 0,
            phase: Phase::Down,
            started_ns: 0,
            busy: false,
            counted: false,
            answered: false,
            partial: Vec::new(),
            head: Head { len: 0, status: 0, body: 0, close: false },
        };
        Self {
            connections: (0..plan.connections).map(|_| connection()).collect(),
            idle: Vec::new(),
            down: (0..plan.connections as u32).rev().collect(),
            next_request: 0,
            epoch_ns: now_ns,
            paced: 0,
            in_flight: 0,
            budget: budget.filter(|_| counting),
            counting,
            tally: Tally::new(),
            swept_ns: now_ns,
            plan,
        }
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.connections.len() - self.down.len()
    }

    /// Opens connections, starts due requests, gives up on those that took too long.
    pub fn tick(&mut self, ring: &mut Ring, now_ns: u64) -> io::Result<()> {
        if now_ns - self.swept_ns > 100_000_000 {
            self.swept_ns = now_ns;
            self.sweep(now_ns);
        }
        match self.plan.rate {
            Some(rate) => self.start_due(ring, rate, now_ns),
            None => self.reopen(ring, now_ns),
        }
    }

    /// Takes one completion; `bytes` is what it received.
    pub fn handle(
        &mut self,
        ring: &mut Ring,
        done: Completion,
        bytes: &[u8],
        now_ns: u64,
    ) -> io::Result<()> {
        let index = done.key.index;
        if self.connections[index as usize].generation != done.key.generation {
            return Ok(());
        }
        match done.op {
            Op::Connect => self.connected(ring, done, now_ns),
            Op::Receive => self.received(ring, done, bytes, now_ns),
            // The receive that is always armed reports the same death with its reason.
            Op::Send | Op::Accept | Op::Tick => Ok(()),
        }
    }

    fn reopen(&mut self, ring: &mut Ring, now_ns: u64) -> io::Result<()> {
        for _ in 0..OPENED_PER_TICK_MAX.min(self.down.len()) {
            if self.budget == Some(0) {
                break;
            }
            self.open_one(ring, now_ns)?;
        }
        Ok(())
    }

    /// Opens the next connection that is down, with a request assigned where that is the plan.
    fn open_one(&mut self, ring: &mut Ring, started_ns: u64) -> io::Result<()> {
        let Some(index) = self.down.pop() else { return Ok(()) };
        let domain = Domain::from(i32::from(self.plan.target.family()));
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if !self.plan.target.is_unix() {
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_congestion(b"reno")?;
        }
        let fd = socket.as_raw_fd();
        let connection = &mut self.connections[index as usize];
        connection.socket = Some(socket);
        connection.generation = (connection.generation + 1) & 0x00ff_ffff;
        connection.phase = Phase::Connecting;
        connection.partial.clear();
        connection.busy = false;
        let key = Key { side: Side::Client, index, generation: connection.generation };
        if self.plan.new_connections || self.plan.rate.is_some() {
            self.assign(index, started_ns);
        }
        ring.connect(fd, self.plan.target, key)
    }

    /// Marks a request as in flight on a connection; false when no more may be started.
    fn assign(&mut self, index: u32, started_ns: u64) -> bool {
        match &mut self.budget {
            Some(0) => return false,
            Some(left) => *left -= 1,
            None => {}
        }
        let connection = &mut self.connections[index as usize];
        connection.busy = true;
        connection.counted = self.counting;
        connection.answered = false;
        connection.started_ns = started_ns;
        self.in_flight += 1;
        self.tally.started += u64::from(self.counting);
        true
    }

    fn send(&mut self, ring: &mut Ring, index: u32) -> io::Result<()> {
        let bytes = self.plan.requests[self.next_request];
        self.next_request += 1;
        if self.next_request == self.plan.requests.len() {
            self.next_request = 0;
        }
        let connection = &mut self.connections[index as usize];
        connection.phase = Phase::Head;
        let Some(socket) = &connection.socket else { return Ok(()) };
        let key = Key { side: Side::Client, index, generation: connection.generation };
        ring.send(socket.as_raw_fd(), bytes, false, key)
    }

    fn connected(&mut self, ring: &mut Ring, done: Completion, now_ns: u64) -> io::Result<()> {
        let index = done.key.index;
        if done.result < 0 {
            let refused = done.result == -libc::ECONNREFUSED;
            self.fail(index, if refused { Failure::Refused } else { Failure::Connect });
            self.put_down(index);
            return Ok(());
        }
        let connection = &mut self.connections[index as usize];
        if let Some(socket) = &connection.socket {
            ring.receive(socket.as_raw_fd(), done.key)?;
        }
        if connection.busy { self.send(ring, index) } else { self.next(ring, index, now_ns) }
    }

    /// Gives a connection without a request its next one, or parks it.
    fn next(&mut self, ring: &mut Ring, index: u32, now_ns: u64) -> io::Result<()> {
        if self.plan.rate.is_none() && self.assign(index, now_ns) {
            return self.send(ring, index);
        }
        self.connections[index as usize].phase = Phase::Idle;
        self.idle.push(index);
        Ok(())
    }

    fn start_due(&mut self, ring: &mut Ring, rate: f64, now_ns: u64) -> io::Result<()> {
        let due = ((now_ns - self.epoch_ns) as f64 * rate / 1e9) as u64;
        while self.paced < due && self.budget != Some(0) {
            let started_ns = self.epoch_ns + (self.paced as f64 * 1e9 / rate) as u64;
            if let Some(index) = self.idle.pop() {
                if self.connections[index as usize].phase != Phase::Idle {
                    continue;
                }
                self.assign(index, started_ns);
                self.send(ring, index)?;
            } else if !self.down.is_empty() {
                self.open_one(ring, started_ns)?;
            } else {
                break;
            }
            self.paced += 1;
        }
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
            let in_order = self.ended(index, done.result);
            // A failure waits for the next tick, so that a dead proxy is not hammered.
            let again = in_order && self.plan.rate.is_none() && self.budget != Some(0);
            return if again { self.open_one(ring, now_ns) } else { Ok(()) };
        }
        let connection = &mut self.connections[index as usize];
        if !done.more
            && let Some(socket) = &connection.socket
        {
            ring.receive(socket.as_raw_fd(), done.key)?;
        }
        match connection.read(bytes) {
            Ok(false) => Ok(()),
            Ok(true) => self.complete(ring, index, now_ns),
            Err(http::Malformed) => {
                self.fail(index, Failure::Malformed);
                self.hang_up(index);
                Ok(())
            }
        }
    }

    /// A whole response is here: judge it and go on.
    fn complete(&mut self, ring: &mut Ring, index: u32, now_ns: u64) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        let head = connection.head;
        let right_length = self.plan.body_bytes.is_none_or(|bytes| bytes == head.body);
        if head.status != self.plan.status {
            self.tally.note_status(head.status);
            self.fail(index, Failure::Status);
        } else if !right_length {
            self.fail(index, Failure::Length);
        } else {
            connection.busy = false;
            self.in_flight -= 1;
            if connection.counted {
                self.tally.succeed(now_ns, now_ns.saturating_sub(connection.started_ns));
            }
        }
        let connection = &mut self.connections[index as usize];
        if head.close || self.plan.new_connections {
            connection.phase = Phase::Closing;
            connection.started_ns = now_ns;
            return Ok(());
        }
        self.next(ring, index, now_ns)
    }

    /// The connection is gone: with `result` 0 in order, else with an errno. True when the end
    /// was expected, after a complete response.
    fn ended(&mut self, index: u32, result: i32) -> bool {
        let connection = &self.connections[index as usize];
        let in_order = connection.phase == Phase::Closing && result == 0;
        if connection.busy {
            let failure = match (result, connection.answered) {
                (0, true) => Failure::Short,
                (0, false) => Failure::Unanswered,
                _ => Failure::Reset,
            };
            self.fail(index, failure);
        } else if connection.phase == Phase::Idle {
            self.tally.idle_closed += u64::from(self.counting);
        }
        self.put_down(index);
        in_order
    }

    fn fail(&mut self, index: u32, failure: Failure) {
        let connection = &mut self.connections[index as usize];
        if !connection.busy {
            // An attempt without a request: only its refusal is worth counting.
            self.tally.fail(failure, self.counting && failure == Failure::Refused);
            return;
        }
        connection.busy = false;
        self.in_flight -= 1;
        self.tally.fail(failure, connection.counted);
    }

    /// Drops the socket; the position can be opened again.
    fn put_down(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        connection.socket = None;
        connection.phase = Phase::Down;
        self.down.push(index);
        if self.plan.rate.is_some() {
            self.idle.retain(|i| *i != index);
        }
    }

    /// Ends a connection from this side; the armed receive then reports it.
    fn hang_up(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        connection.phase = Phase::Closing;
        if let Some(socket) = &connection.socket {
            // A peer that is already gone makes this fail, which is the state wanted.
            let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
        }
    }

    fn sweep(&mut self, now_ns: u64) {
        for index in 0..self.connections.len() as u32 {
            let connection = &self.connections[index as usize];
            let waiting = connection.busy || connection.phase == Phase::Closing;
            if waiting && now_ns.saturating_sub(connection.started_ns) > self.plan.timeout_ns {
                if connection.busy {
                    self.fail(index, Failure::Timeout);
                }
                self.hang_up(index);
            }
        }
    }
}

impl Connection {
    /// Counts received bytes off; true when they complete the response.
    fn read(&mut self, bytes: &[u8]) -> Result<bool, http::Malformed> {
        self.answered = true;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(bytes);
            let joined = std::mem::take(&mut self.partial);
            return self.advance(&joined);
        }
        self.advance(bytes)
    }

    fn advance(&mut self, mut bytes: &[u8]) -> Result<bool, http::Malformed> {
        loop {
            match self.phase {
                Phase::Head => match http::response(bytes)? {
                    None => {
                        self.partial = bytes.to_vec();
                        return Ok(false);
                    }
                    Some(head) => {
                        bytes = &bytes[head.len..];
                        // An interim response is not the answer.
                        if head.status >= 200 {
                            self.head = head;
                            self.phase = Phase::Body(head.body);
                        }
                    }
                },
                Phase::Body(left) => {
                    let taken = left.min(bytes.len() as u64);
                    self.phase = Phase::Body(left - taken);
                    // More than the response is as wrong as less.
                    return match (left - taken, bytes.len() as u64 - taken) {
                        (0, 0) => Ok(true),
                        (0, _) => Err(http::Malformed),
                        _ => Ok(false),
                    };
                }
                // Closing: bytes after a failure already judged. Otherwise bytes nobody asked for.
                Phase::Closing => return Ok(false),
                Phase::Down | Phase::Connecting | Phase::Idle => return Err(http::Malformed),
            }
        }
    }
}
