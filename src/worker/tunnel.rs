//! A connection that carries bytes both ways until its ends are done: one that switched protocols
//! (WebSocket, any 101), or one whose TLS passes through.
//!
//! An end that finishes writing has its FIN passed on and may still read. One that breaks off has
//! that passed on as a reset, unless all it had to say had been said. Silence in both directions,
//! and the tunnel's lifetime, are bounded.
//!
//! Invariant: one write at a time to either end; whoever writes has taken its turn
//! ([`Tunnel::write`]).

use std::{cell::Cell, future::poll_fn, io, pin::pin, task::Poll};

use super::{
    Worker,
    buffers::Buffer,
    clock::{NEVER_MS, now_ms},
    net::{Stream, Wait},
    websocket::WebSocket,
};
use crate::{
    config::snapshot::Timeouts,
    telemetry::metrics::{
        cell::Cell as Count,
        shards::WorkerShard,
        tunnels::{End, TunnelEnd},
    },
};

pub struct Tunnel<'a> {
    pub worker: &'a Worker,
    /// The streams, by [`End`].
    streams: [&'a Stream; 2],
    bounds: Bounds,
    ways: [Way; 2],
    /// Where bytes are counted as they pass, by the end that sent them.
    counts: Option<[&'a Count; 2]>,
    websocket: Option<WebSocket<'a>>,
}

/// How long a tunnel may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest silence, in milliseconds.
    pub idle_ms: u64,
    /// Its end, as a point of the coarse clock.
    pub until_ms: u64,
    /// Longest silence after both ends of a WebSocket have said Close.
    pub closed_idle_ms: u64,
}

impl Bounds {
    /// Of a tunnel that begins now.
    pub fn of(timeouts: &Timeouts) -> Bounds {
        let lifetime_ms = timeouts.tunnel_lifetime_ms.unwrap_or(NEVER_MS);
        Bounds {
            idle_ms: timeouts.tunnel_idle_ms,
            until_ms: now_ms().saturating_add(lifetime_ms),
            closed_idle_ms: timeouts.linger_ms,
        }
    }
}

/// What one end sends.
#[derive(Default)]
struct Way {
    /// Bytes that passed to the other end.
    bytes: Cell<u64>,
    /// Its FIN has been passed on.
    is_finished: Cell<bool>,
    /// Somebody is writing to this end.
    is_written: Cell<bool>,
}

/// An end that will not go on.
#[derive(Debug)]
pub struct Broke {
    end: End,
    /// `None`: it does not answer.
    error: Option<io::Error>,
}

impl Broke {
    pub fn silent(end: End) -> Broke {
        Broke { end, error: None }
    }
}

/// Counts a tunnel as open while it lasts.
struct Open<'a>(&'a WorkerShard);

impl<'a> Open<'a> {
    fn begin(shard: &'a WorkerShard) -> Open<'a> {
        shard.tunnels.count();
        shard.tunnels_open.count();
        Open(shard)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.tunnels_open.uncount();
    }
}

impl<'a> Tunnel<'a> {
    pub fn new(
        worker: &'a Worker,
        client: &'a Stream,
        upstream: &'a Stream,
        bounds: Bounds,
    ) -> Tunnel<'a> {
        let streams = [client, upstream];
        Tunnel { worker, streams, bounds, ways: Default::default(), counts: None, websocket: None }
    }

    /// What passes are WebSocket frames.
    pub fn with_websocket(self, websocket: WebSocket<'a>) -> Tunnel<'a> {
        Tunnel { websocket: Some(websocket), ..self }
    }

    /// Bytes are counted there too, by the end that sent them.
    pub fn counted(self, counts: [&'a Count; 2]) -> Tunnel<'a> {
        Tunnel { counts: Some(counts), ..self }
    }

    /// Relays until both ends are done, one breaks off, or a bound is reached. The given bytes came
    /// before, from the client and from the upstream. Answers how many passed from the client and
    /// to it.
    pub async fn run(&self, from_client: &[u8], from_upstream: &[u8]) -> (u64, u64) {
        let shard = &self.worker.metrics;
        let _open = Open::begin(shard);
        let ended = match self.relay_both(from_client, from_upstream).await {
            Ok(()) => TunnelEnd::Closed,
            Err(broke) => self.break_off(&broke),
        };
        shard.tunnel_ends[ended as usize].count();
        let [from_client, from_upstream] = &self.ways;
        (from_client.bytes.get(), from_upstream.bytes.get())
    }

    async fn relay_both(&self, from_client: &[u8], from_upstream: &[u8]) -> Result<(), Broke> {
        let mut asks = End::ALL.map(|end| Box::pin(self.keep_alive(end)));
        let mut up = pin!(self.pump(End::Client, from_client));
        let mut down = pin!(self.pump(End::Upstream, from_upstream));
        let (mut up_done, mut down_done) = (false, false);
        poll_fn(|cx| {
            // First, so that whoever waits for the end of a ping's write sees it.
            for ask in &mut asks {
                if let Poll::Ready(broke) = ask.as_mut().poll(cx) {
                    return Poll::Ready(Err(broke));
                }
            }
            for (pump, done) in
                [(up.as_mut() as _, &mut up_done), (down.as_mut() as _, &mut down_done)]
            {
                let pump: std::pin::Pin<&mut dyn Future<Output = Result<(), Broke>>> = pump;
                if !*done && let Poll::Ready(result) = pump.poll(cx) {
                    result?;
                    *done = true;
                }
            }
            if up_done && down_done { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    async fn keep_alive(&self, end: End) -> Broke {
        match &self.websocket {
            Some(websocket) => websocket.keep_alive(self, end).await,
            None => std::future::pending().await,
        }
    }

    /// Why the tunnel ends; passes a reset on to the other end.
    fn break_off(&self, broke: &Broke) -> TunnelEnd {
        tracing::debug!(end = broke.end.name(), error = ?broke.error, "tunnel ended");
        let Some(error) = &broke.error else { return TunnelEnd::Unanswered };
        let websocket = self.websocket.as_ref();
        match error.kind() {
            _ if self.worker.is_cut.get() => TunnelEnd::Cut,
            io::ErrorKind::TimedOut if websocket.is_some_and(|w| w.is_closed()) => {
                TunnelEnd::Closed
            }
            io::ErrorKind::TimedOut if now_ms() >= self.bounds.until_ms => TunnelEnd::Lifetime,
            io::ErrorKind::TimedOut => TunnelEnd::Idle,
            _ if self.way(broke.end).is_finished.get()
                || websocket.is_some_and(|w| w.has_closed(broke.end)) =>
            {
                TunnelEnd::Closed
            }
            _ => {
                self.stream(broke.end.other()).reset();
                match broke.end {
                    End::Client => TunnelEnd::Client,
                    End::Upstream => TunnelEnd::Upstream,
                }
            }
        }
    }

    fn stream(&self, end: End) -> &'a Stream {
        self.streams[end as usize]
    }

    fn way(&self, from: End) -> &Way {
        &self.ways[from as usize]
    }

    fn wait(&self) -> Wait {
        let is_closed = self.websocket.as_ref().is_some_and(WebSocket::is_closed);
        let idle_ms = match is_closed {
            true => self.bounds.closed_idle_ms.min(self.bounds.idle_ms),
            false => self.bounds.idle_ms,
        };
        Wait { idle_ms, until_ms: self.bounds.until_ms }
    }

    /// Nobody writes to `to`, and somebody may.
    pub fn is_free(&self, to: End) -> bool {
        !self.way(to).is_written.get() && !self.way(to.other()).is_finished.get()
    }

    /// Writes to `to` when it is its turn.
    pub async fn write(&self, to: End, buf: &mut Buffer) -> Result<(), Broke> {
        let is_written = &self.way(to).is_written;
        // Whoever has the turn is polled by the same task, and before those that wait for it.
        poll_fn(|_| if is_written.get() { Poll::Pending } else { Poll::Ready(()) }).await;
        is_written.set(true);
        let result = self.stream(to).write_all(buf, self.wait()).await;
        is_written.set(false);
        result.map_err(|failed| Broke { end: to, error: Some(failed.error) })?;
        Ok(())
    }

    async fn pump(&self, from: End, early: &[u8]) -> Result<(), Broke> {
        let mut buf = self.worker.buffers.at_least(early.len());
        buf.append(early);
        let result = self.relay(from, &mut buf).await;
        self.worker.buffers.give(buf);
        result
    }

    async fn relay(&self, from: End, buf: &mut Buffer) -> Result<(), Broke> {
        let (source, to) = (self.stream(from), from.other());
        loop {
            if !buf.is_empty() {
                self.pass(from, buf).await?;
            }
            if buf.room() == 0 {
                let larger = self.worker.buffers.relay(None);
                self.worker.buffers.give(std::mem::replace(buf, larger));
            }
            buf.reset(0);
            self.tell_waits(from, true);
            let read = source.read(buf, self.wait()).await;
            self.tell_waits(from, false);
            if read.map_err(|error| Broke { end: from, error: Some(error) })? == 0 {
                self.way(from).is_finished.set(true);
                self.stream(to).finish_writing();
                self.go_on_waiting(to);
                return Ok(());
            }
        }
    }

    async fn pass(&self, from: End, buf: &mut Buffer) -> Result<(), Broke> {
        if let Some(websocket) = &self.websocket {
            websocket.passes(from, buf.bytes());
        }
        self.write(from.other(), buf).await?;
        let (bytes, passed) = (&self.way(from).bytes, buf.len() as u64);
        bytes.set(bytes.get() + passed);
        if let Some(counts) = self.counts {
            counts[from as usize].add(passed);
        }
        self.go_on_waiting(from.other());
        Ok(())
    }

    /// Traffic one way keeps the other way open.
    fn go_on_waiting(&self, end: End) {
        if !self.way(end).is_finished.get() {
            self.stream(end).deadline().read_by(self.wait().at());
        }
    }

    fn tell_waits(&self, from: End, waits: bool) {
        if let Some(websocket) = &self.websocket {
            websocket.waits(from, waits);
        }
    }
}
