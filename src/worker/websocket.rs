//! A WebSocket in a tunnel: its frames counted as they pass, and its ends asked by pings whether
//! they are still there (`timeouts.websocket_ping`).
//!
//! Nothing is changed or held back. A ping is written only where one frame has ended and the next
//! has not begun, by whoever has the turn to write to that end; its pong passes to the other end
//! like any frame, which RFC 6455 §5.5.3 lets it ignore. Once a sender breaks the framing nobody is
//! asked any more, and that sender is no longer counted.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use super::{
    clock::{NEVER_MS, completed, now_ms},
    tunnel::{Broke, Tunnel},
};
use crate::{
    telemetry::metrics::{
        shards::{RouteShard, WorkerShard},
        tunnels::End,
    },
    wire::websocket::{Follower, Sender, ping},
};

pub struct WebSocket<'a> {
    worker: &'a WorkerShard,
    /// `None`: only the worker as a whole is counted.
    route: Option<&'a RouteShard>,
    /// An end that has been silent for so long is asked.
    ping_ms: Option<u64>,
    /// What each end sends.
    followers: [RefCell<Follower>; 2],
    /// Since when nothing has come from an end, while somebody waits for it.
    silent_since_ms: [Cell<u64>; 2],
    /// When an end was asked, if nothing has come from it since.
    asked_ms: [Cell<Option<u64>>; 2],
}

impl<'a> WebSocket<'a> {
    pub fn new(
        worker: &'a WorkerShard,
        route: Option<&'a RouteShard>,
        ping_ms: Option<u64>,
    ) -> WebSocket<'a> {
        let followers = [Sender::Client, Sender::Server].map(|from| Follower::new(from).into());
        let silent_since_ms = [Cell::new(NEVER_MS), Cell::new(NEVER_MS)];
        let asked_ms = Default::default();
        WebSocket { worker, route, ping_ms, followers, silent_since_ms, asked_ms }
    }

    /// These bytes of `from` are about to pass.
    pub fn passes(&self, from: End, bytes: &[u8]) {
        self.asked_ms[from as usize].set(None);
        let follower = &mut *self.followers[from as usize].borrow_mut();
        if follower.is_broken() || follower.close().is_some() {
            return;
        }
        let seen = follower.follow(bytes);
        if let Some(route) = self.route {
            route.websockets.passed(from, seen);
        }
        if follower.is_broken() {
            self.worker.websockets.broken[from as usize].count();
        }
        if let Some(close) = follower.close() {
            self.worker.websockets.closed(from, close);
        }
    }

    /// Somebody waits for `from` from now on, or no longer.
    pub fn waits(&self, from: End, waits: bool) {
        self.silent_since_ms[from as usize].set(if waits { now_ms() } else { NEVER_MS });
    }

    /// The Close of `from` has passed.
    pub fn has_closed(&self, from: End) -> bool {
        self.followers[from as usize].borrow().close().is_some()
    }

    /// Both have said Close: nothing more is to come.
    pub fn is_closed(&self) -> bool {
        End::ALL.into_iter().all(|end| self.has_closed(end))
    }

    /// A ping may stand before what `to` is sent next.
    fn may_ping(&self, to: End) -> bool {
        let is_broken = |end: End| self.followers[end as usize].borrow().is_broken();
        self.followers[to.other() as usize].borrow().is_between()
            && !self.has_closed(to)
            && !is_broken(to)
    }

    /// Asks `to` whenever it has been silent for long enough, until it does not answer for as long.
    pub async fn keep_alive(&self, tunnel: &Tunnel<'_>, to: End) -> Broke {
        let Some(ping_ms) = self.ping_ms else { return std::future::pending().await };
        let (silent_since_ms, asked_ms) =
            (&self.silent_since_ms[to as usize], &self.asked_ms[to as usize]);
        let mut wait_ms = ping_ms;
        loop {
            monoio::time::sleep(Duration::from_millis(wait_ms)).await;
            completed();
            let now_ms = now_ms();
            let since_ms = match (asked_ms.get(), silent_since_ms.get()) {
                (Some(asked_ms), _) => asked_ms,
                // While what it sent is still on its way to the other end, nobody can tell.
                (None, NEVER_MS) => now_ms,
                (None, since_ms) => since_ms,
            };
            wait_ms = (since_ms + ping_ms).saturating_sub(now_ms);
            if wait_ms > 0 {
                continue;
            }
            if asked_ms.get().is_some() {
                return Broke::silent(to);
            }
            wait_ms = ping_ms;
            if self.may_ping(to) && tunnel.is_free(to) {
                asked_ms.set(Some(now_ms));
                if let Err(broke) = self.ask(tunnel, to).await {
                    return broke;
                }
            }
        }
    }

    async fn ask(&self, tunnel: &Tunnel<'_>, to: End) -> Result<(), Broke> {
        let mut frame = Vec::with_capacity(16);
        // The gateway stands there for the other end.
        let from = match to {
            End::Client => Sender::Server,
            End::Upstream => Sender::Client,
        };
        let key = tunnel.worker.random.next().to_be_bytes();
        ping(from, [key[0], key[1], key[2], key[3]], &mut frame);
        let mut buf = tunnel.worker.buffers.at_least(frame.len());
        buf.append(&frame);
        let result = tunnel.write(to, &mut buf).await;
        tunnel.worker.buffers.give(buf);
        result?;
        self.worker.websockets.pings[to as usize].count();
        Ok(())
    }
}
