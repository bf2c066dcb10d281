//! The configuration in force in one worker, and how the next one takes over.
//!
//! An exchange holds the generation it began with, so that a reload never changes the rules under
//! it. What the worker knows of an upstream (idle connections, requests in flight, endpoints to
//! avoid) is carried over by name; what the new configuration has no place for is closed, even
//! while an old generation lives on in a long exchange.

use std::{ops::Deref, rc::Rc, sync::Arc};

use http::HeaderValue;

use super::{
    auth::States,
    concurrency,
    forward::UpstreamState,
    home::Homes,
    logs::{Logs, Outlet},
    rate_limits::Limits,
};
use crate::{
    config::{
        Snapshot,
        snapshot::{ListenerRule, Upstream, UpstreamId},
    },
    telemetry::{
        metrics::shards::{ListenerShard, Series},
        trace::queue::SpanQueue,
    },
    wire::Version,
};

/// A snapshot and the worker's state of its upstreams.
pub struct Generation {
    /// Control holds it too and outlives every worker's interest, so that freeing a large
    /// configuration never takes a worker's time. Counted once per generation, not per request.
    snapshot: Arc<Snapshot>,
    /// By [`UpstreamId`].
    states: Vec<Rc<UpstreamState>>,
    /// Where this worker counts, by the ids of the snapshot.
    pub series: Arc<Series>,
    /// Where this worker leaves spans, when there is tracing.
    pub spans: Option<Arc<SpanQueue>>,
    pub logs: Logs,
    pub rate_limits: Limits,
    /// Requests in progress.
    pub concurrency: concurrency::Limits,
    /// What is written into the Via field of responses over HTTP/2, by the version they were
    /// received in. Made once, and each worker its own: the copies count references.
    vias: [Option<HeaderValue>; Version::ALL.len()],
    /// What is kept of ways to authenticate.
    pub auth: States,
}

impl Deref for Generation {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Generation {
    pub fn first(
        snapshot: Arc<Snapshot>,
        series: Arc<Series>,
        outlets: Vec<Outlet>,
        spans: Option<Arc<SpanQueue>>,
        rate_limits: Limits,
        homes: &Homes,
    ) -> Generation {
        let states = snapshot.upstreams.iter().map(|rule| Rc::new(UpstreamState::new(rule)));
        let logs = Logs::first(outlets);
        let (states, vias) = (states.collect(), vias(snapshot.forwarding.via.name()));
        let auth = States::first(&snapshot);
        let concurrency = concurrency::Limits::of(&snapshot, homes, None);
        Generation { states, snapshot, series, logs, spans, rate_limits, concurrency, vias, auth }
    }

    /// The generation after this one.
    pub fn next(
        &self,
        snapshot: Arc<Snapshot>,
        series: Arc<Series>,
        outlets: Vec<Outlet>,
        spans: Option<Arc<SpanQueue>>,
        rate_limits: Limits,
        homes: &Homes,
    ) -> Generation {
        let states = snapshot.upstreams.iter().map(|rule| match self.named(&rule.name) {
            Some((before, state)) if is_same_choice(before, rule) => state.clone(),
            Some((before, state)) => Rc::new(UpstreamState::after(state, before, rule)),
            None => Rc::new(UpstreamState::new(rule)),
        });
        let logs = self.logs.next(outlets);
        let (states, vias) = (states.collect(), vias(snapshot.forwarding.via.name()));
        let auth = self.auth.next(&self.snapshot, &snapshot);
        let concurrency = concurrency::Limits::of(&snapshot, homes, Some(&self.concurrency));
        let next = Generation {
            states,
            snapshot,
            series,
            logs,
            spans,
            rate_limits,
            concurrency,
            vias,
            auth,
        };
        for (rule, state) in self.upstreams() {
            let kept = next.named(&rule.name).map(|(_, state)| &**state);
            state.close_all_but(kept);
        }
        next
    }

    /// Where connections of a listener of this generation are counted.
    pub fn listener_shard(&self, rule: &ListenerRule) -> Arc<ListenerShard> {
        let at = self.listeners.iter().position(|other| other.name == rule.name);
        at.map(|at| self.series.listeners[at].clone()).unwrap_or_default()
    }

    /// What this hop adds to the Via field of a response that was received in `version`.
    #[inline]
    pub fn via(&self, version: Version) -> Option<&HeaderValue> {
        self.vias[version as usize].as_ref()
    }

    /// What the worker knows of an upstream.
    #[inline]
    pub fn state(&self, id: UpstreamId) -> &UpstreamState {
        &self.states[id as usize]
    }

    /// Every upstream with what is known of it.
    pub fn upstreams(&self) -> impl Iterator<Item = (&Upstream, &UpstreamState)> {
        self.snapshot.upstreams.iter().zip(self.states.iter().map(|state| &**state))
    }

    /// Closes connections that idled too long, and notes how upstreams stand. Called every second
    /// or so.
    pub fn sweep(&self, now_ms: u64) {
        for ((rule, state), series) in self.upstreams().zip(&self.series.upstreams) {
            let balancer = state.balancer.borrow();
            // Added up, because endpoints beyond the maximum share a shard.
            for shard in &series.endpoints {
                shard.idle.set(0);
                shard.avoided.set(0);
            }
            for (at, (pool, shard)) in state.pools.iter().zip(&series.endpoints).enumerate() {
                pool.sweep(rule);
                shard.idle.add(pool.idle() as u64);
                shard.avoided.add(u64::from(balancer.is_cooling(at, now_ms)));
            }
        }
    }

    /// Closes all idle connections to upstreams, and from now on those that become idle.
    pub fn close_idle(&self) {
        self.states.iter().for_each(|state| state.close_all_but(None));
    }

    fn named(&self, name: &str) -> Option<(&Upstream, &Rc<UpstreamState>)> {
        let at = self.snapshot.upstreams.iter().position(|rule| rule.name == name)?;
        Some((&self.snapshot.upstreams[at], &self.states[at]))
    }
}

fn vias(name: &str) -> [Option<HeaderValue>; Version::ALL.len()] {
    let of = |version: Version| HeaderValue::from_str(&format!("{} {name}", version.number())).ok();
    Version::ALL.map(|version| of(version).filter(|_| !name.is_empty()))
}

/// Requests are shared among the same endpoints in the same way.
fn is_same_choice(before: &Upstream, now: &Upstream) -> bool {
    before.balance == now.balance
        && before.endpoints == now.endpoints
        && before.tls == now.tls
        && before.protocol == now.protocol
}
