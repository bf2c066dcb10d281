//! The configuration in force in one worker, and how the next one takes over.
//!
//! An exchange holds the generation it began with, so that a reload never changes the rules under
//! it. What the worker knows of an upstream (idle connections, requests in flight, endpoints to
//! avoid) is carried over by name; what the new configuration has no place for is closed, even
//! while an old generation lives on in a long exchange.

use std::{ops::Deref, rc::Rc, sync::Arc};

use super::forward::UpstreamState;
use crate::config::{
    Snapshot,
    snapshot::{Upstream, UpstreamId},
};

/// A snapshot and the worker's state of its upstreams.
pub struct Generation {
    /// Control holds it too and outlives every worker's interest, so that freeing a large
    /// configuration never takes a worker's time. Counted once per generation, not per request.
    snapshot: Arc<Snapshot>,
    /// By [`UpstreamId`].
    states: Vec<Rc<UpstreamState>>,
}

impl Deref for Generation {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Generation {
    pub fn first(snapshot: Arc<Snapshot>) -> Generation {
        let states = snapshot.upstreams.iter().map(|rule| Rc::new(UpstreamState::new(rule)));
        Generation { states: states.collect(), snapshot }
    }

    /// The generation after this one.
    pub fn next(&self, snapshot: Arc<Snapshot>) -> Generation {
        let states = snapshot.upstreams.iter().map(|rule| match self.named(&rule.name) {
            Some((before, state)) if is_same_choice(before, rule) => state.clone(),
            Some((before, state)) => Rc::new(UpstreamState::after(state, before, rule)),
            None => Rc::new(UpstreamState::new(rule)),
        });
        let next = Generation { states: states.collect(), snapshot };
        for (rule, state) in self.upstreams() {
            let kept = next.named(&rule.name).map(|(_, state)| &**state);
            state.close_all_but(kept);
        }
        next
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

    fn named(&self, name: &str) -> Option<(&Upstream, &Rc<UpstreamState>)> {
        let at = self.snapshot.upstreams.iter().position(|rule| rule.name == name)?;
        Some((&self.snapshot.upstreams[at], &self.states[at]))
    }
}

/// Requests are shared among the same endpoints in the same way.
fn is_same_choice(before: &Upstream, now: &Upstream) -> bool {
    before.balance == now.balance && before.endpoints == now.endpoints
}
