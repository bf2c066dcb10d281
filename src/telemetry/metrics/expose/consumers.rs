//! Figures of consumers and their credentials.

use std::borrow::Cow;

use super::Scrape;
use crate::telemetry::metrics::{
    families::{self as f, Family},
    registry::Registry,
    shards::{INTROSPECTIONS, NONCE_OUTCOMES},
};

impl Scrape {
    pub(super) fn consumers(&mut self, registry: &Registry) {
        let families = [f::CONSUMER_REQUESTS, f::CONSUMER_RECEIVED, f::CONSUMER_SENT];
        self.traffic(families, &registry.consumers, |consumer| &consumer.traffic, false);
        let passwords = ["right", "wrong", "busy"];
        self.outcomes(f::PASSWORDS, &passwords, |at| registry.sum(|w| w.passwords[at].get()));
        let asked = |at: usize| registry.sum(|w| w.introspections[at].get());
        self.outcomes(f::INTROSPECTIONS, &INTROSPECTIONS, asked);
        let looked_at = |at: usize| registry.sum(|w| w.nonces[at].get());
        self.outcomes(f::NONCES, &NONCE_OUTCOMES, looked_at);
        let kept = registry.sum(|w| w.nonces_kept.get());
        let has_any = (0..NONCE_OUTCOMES.len()).any(|at| looked_at(at) > 0);
        self.counts(f::NONCES_KEPT, has_any.then(|| (Vec::new(), kept)).into_iter().collect());
    }

    /// How often each thing came of something; nothing is said of what never did.
    fn outcomes(
        &mut self,
        family: &'static Family,
        names: &[&'static str],
        count: impl Fn(usize) -> u64,
    ) {
        let all = names.iter().enumerate();
        let all = all.map(|(at, name)| (vec![Cow::Borrowed(*name)], count(at)));
        self.counts(family, all.filter(|(_, count)| *count > 0).collect());
    }
}
