//! A connection that switched protocols (WebSocket, any 101): bytes both ways until one side ends.
//!
//! A side that finishes writing has its FIN passed on and may still read. Silence in both
//! directions for `idle_ms` ends the tunnel.

use std::{io, pin::pin, task::Poll};

use super::{
    Worker,
    buffers::Buffer,
    clock::{NEVER_MS, now_ms},
    net::{Stream, Wait},
};

pub struct Tunnel<'a> {
    pub worker: &'a Worker,
    pub client: &'a Stream,
    pub upstream: &'a Stream,
    /// Longest silence, in milliseconds.
    pub idle_ms: u64,
}

impl Tunnel<'_> {
    /// Relays until both sides are done, one fails, or nothing happens for too long. The given
    /// bytes came behind the request and behind the 101.
    pub async fn run(&self, from_client: &[u8], from_upstream: &[u8]) {
        let mut up = pin!(self.pump(self.client, self.upstream, from_client));
        let mut down = pin!(self.pump(self.upstream, self.client, from_upstream));
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
    }

    async fn pump(&self, from: &Stream, to: &Stream, early: &[u8]) -> io::Result<()> {
        let mut buf = self.worker.buffers.at_least(early.len());
        buf.append(early);
        let result = self.relay(from, to, &mut buf).await;
        self.worker.buffers.give(buf);
        result
    }

    async fn relay(&self, from: &Stream, to: &Stream, slot: &mut Buffer) -> io::Result<()> {
        let wait = Wait { idle_ms: self.idle_ms, until_ms: NEVER_MS };
        loop {
            if !slot.is_empty() {
                let buf = std::mem::replace(slot, Buffer::with_capacity(0));
                let (sent, back) = to.write_all(buf, wait).await;
                *slot = back;
                sent.map_err(|failed| failed.error)?;
                // Traffic one way keeps the other way open.
                to.deadline().read_by(now_ms() + self.idle_ms);
            }
            if slot.room() == 0 {
                let larger = self.worker.buffers.relay(None);
                self.worker.buffers.give(std::mem::replace(slot, larger));
            }
            slot.reset(0);
            let buf = std::mem::replace(slot, Buffer::with_capacity(0));
            let (received, back) = from.read(buf, wait).await;
            *slot = back;
            if received? == 0 {
                to.finish_writing();
                return Ok(());
            }
        }
    }
}
