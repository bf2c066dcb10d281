//! Figures of consumers and their credentials.

use std::borrow::Cow;

use super::Scrape;
use crate::telemetry::metrics::{
    families as f,
    registry::Registry,
    shards::{INTROSPECTIONS, NONCE_OUTCOMES},
};

impl Scrape {
    pub(super) fn consumers(&mut self, registry: &Registry) {
        let families = [f::CONSUMER_REQUESTS, f::CONSUMER_RECEIVED, f::CONSUMER_SENT];
        self.traffic(families, &registry.consumers, |consumer| &consumer.traffic, false);
        let outcomes = ["right", "wrong", "busy"].into_iter().enumerate().map(|(at, outcome)| {
            (vec![Cow::Borrowed(outcome)], registry.sum(|w| w.passwords[at].get()))
        });
        self.counts(f::PASSWORDS, outcomes.filter(|(_, count)| *count > 0).collect());
        let outcomes = INTROSPECTIONS.into_iter().enumerate().map(|(at, outcome)| {
            (vec![Cow::Borrowed(outcome)], registry.sum(|w| w.introspections[at].get()))
        });
        self.counts(f::INTROSPECTIONS, outcomes.filter(|(_, count)| *count > 0).collect());
        let outcomes = NONCE_OUTCOMES.into_iter().enumerate().map(|(at, outcome)| {
            (vec![Cow::Borrowed(outcome)], registry.sum(|w| w.nonces[at].get()))
        });
        let outcomes: Vec<_> = outcomes.filter(|(_, count)| *count > 0).collect();
        if !outcomes.is_empty() {
            let kept = registry.sum(|w| w.nonces_kept.get());
            self.counts(f::NONCES_KEPT, vec![(Vec::new(), kept)]);
        }
        self.counts(f::NONCES, outcomes);
    }
}
