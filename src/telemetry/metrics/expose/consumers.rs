//! Figures of consumers and their credentials.

use std::borrow::Cow;

use super::Scrape;
use crate::telemetry::metrics::{families as f, registry::Registry};

impl Scrape {
    pub(super) fn consumers(&mut self, registry: &Registry) {
        let families = [f::CONSUMER_REQUESTS, f::CONSUMER_RECEIVED, f::CONSUMER_SENT];
        self.traffic(families, &registry.consumers, |consumer| &consumer.traffic, false);
        let outcomes = ["right", "wrong", "busy"].into_iter().enumerate().map(|(at, outcome)| {
            (vec![Cow::Borrowed(outcome)], registry.sum(|w| w.passwords[at].get()))
        });
        self.counts(f::PASSWORDS, outcomes.filter(|(_, count)| *count > 0).collect());
    }
}
