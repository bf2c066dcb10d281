//! Idle connections to one endpoint, kept by one worker.
//!
//! Last used, first taken: a few connections stay warm and the rest age out. Bounds: `idle_max`
//! connections, each at most `idle_timeout_ms` idle and `lifetime_ms` old.

use std::{
    cell::RefCell,
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{clock::now_ms, net::Stream};
use crate::config::snapshot::Upstream;

/// A connection to an endpoint.
pub struct Connection {
    pub stream: Stream,
    /// When it was connected.
    pub born_ms: u64,
    /// It served a request before: it may turn out to have died while idle.
    pub reused: bool,
}

struct Idle {
    connection: Connection,
    since_ms: u64,
    /// The same on the precise clock.
    since: Instant,
}

/// How long a connection given back is used again without looking at it.
const TRUSTED_FOR: Duration = Duration::from_micros(50);

#[derive(Default)]
pub struct Pool {
    idle: RefCell<VecDeque<Idle>>,
}

impl Pool {
    /// The connection used last, if one is still good. Bytes that came while it was idle would be
    /// taken for the next response, so it is looked at first. Only one given back this very moment
    /// ([`TRUSTED_FOR`]) is not: under load that saves a system call for most requests.
    pub fn take(&self, rule: &Upstream) -> Option<Connection> {
        let now_ms = now_ms();
        loop {
            let Idle { mut connection, since_ms, since } = self.idle.borrow_mut().pop_back()?;
            let usable = !over_age(rule, &connection, now_ms)
                && now_ms.saturating_sub(since_ms) <= rule.pool_idle_timeout_ms
                && (since.elapsed() <= TRUSTED_FOR || !connection.stream.is_stale());
            if usable {
                connection.reused = true;
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose last response ended cleanly; closes the oldest when full.
    pub fn give(&self, connection: Connection, rule: &Upstream) {
        let now_ms = now_ms();
        if rule.pool_idle_max == 0 || over_age(rule, &connection, now_ms) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= rule.pool_idle_max as usize {
            idle.pop_front();
        }
        idle.push_back(Idle { connection, since_ms: now_ms, since: Instant::now() });
    }

    /// Closes what has idled too long or was closed by the endpoint. Called every second or so.
    pub fn sweep(&self, rule: &Upstream) {
        let now_ms = now_ms();
        self.idle.borrow_mut().retain(|idle| {
            now_ms.saturating_sub(idle.since_ms) <= rule.pool_idle_timeout_ms
                && !over_age(rule, &idle.connection, now_ms)
                && !idle.connection.stream.is_stale()
        });
    }

    /// Number of idle connections.
    pub fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn over_age(rule: &Upstream, connection: &Connection, now_ms: u64) -> bool {
    now_ms.saturating_sub(connection.born_ms) > rule.pool_lifetime_ms
}
