//! A connection that switched protocols (WebSocket, any 101): bytes both ways until one side ends.
//!
//! A side that finishes writing has its FIN passed on and may still read. Silence in both
//! directions for `idle_ms` ends the tunnel.

use std::{cell::Cell, io, pin::pin, task::Poll};

use super::{
    Worker,
    buffers::Buffer,
    clock::{NEVER_MS, now_ms},
    net::{Stream, Wait},
};
use crate::telemetry::metrics::shards::WorkerShard;

pub struct Tunnel<'a> {
    pub worker: &'a Worker,
    pub client: &'a Stream,
    pub upstream: &'a Stream,
    /// Longest silence, in milliseconds.
    pub idle_ms: u64,
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

impl Tunnel<'_> {
    /// Relays until both sides are done, one fails, or nothing happens for too long. The given
    /// bytes came behind the request and behind the 101. Answers how many bytes passed from the
    /// client and to it.
    pub async fn run(&self, from_client: &[u8], from_upstream: &[u8]) -> (u64, u64) {
        let _open = Open::begin(&self.worker.metrics);
        let (received, sent) = (Cell::new(0), Cell::new(0));
        let mut up = pin!(self.pump(self.client, self.upstream, from_client, &received));
        let mut down = pin!(self.pump(self.upstream, self.client, from_upstream, &sent));
        let (mut up_done, mut down_done) = (false, false);
        let result = std::future::poll_fn(|cx| {
            for (pump, done) in
                [(up.as_mut() as _, &mut up_done), (down.as_mut() as _, &mut down_done)]
            {
                let pump: std::pin::Pin<&mut dyn Future<Output = io::Result<()>>> = pump;
                if !*done && let Poll::Ready(result) = pump.poll(cx) {
                    result?;
                    *done = true;
                }
            }
            if up_done && down_done { Poll::Ready(Ok(())) } else { Poll::Pending }
        });
        let result: io::Result<()> = result.await;
        if let Err(e) = result {
            tracing::debug!(error = %e, "tunnel ended");
        }
        (received.get(), sent.get())
    }

    async fn pump(
        &self,
        from: &Stream,
        to: &Stream,
        early: &[u8],
        bytes: &Cell<u64>,
    ) -> io::Result<()> {
        let mut buf = self.worker.buffers.at_least(early.len());
        buf.append(early);
        let result = self.relay(from, to, &mut buf, bytes).await;
        self.worker.buffers.give(buf);
        result
    }

    async fn relay(
        &self,
        from: &Stream,
        to: &Stream,
        buf: &mut Buffer,
        bytes: &Cell<u64>,
    ) -> io::Result<()> {
        let wait = Wait { idle_ms: self.idle_ms, until_ms: NEVER_MS };
        loop {
            if !buf.is_empty() {
                to.write_all(buf, wait).await.map_err(|failed| failed.error)?;
                bytes.set(bytes.get() + buf.len() as u64);
                // Traffic one way keeps the other way open.
                to.deadline().read_by(now_ms() + self.idle_ms);
            }
            if buf.room() == 0 {
                let larger = self.worker.buffers.relay(None);
                self.worker.buffers.give(std::mem::replace(buf, larger));
            }
            buf.reset(0);
            if from.read(buf, wait).await? == 0 {
                to.finish_writing();
                return Ok(());
            }
        }
    }
}
