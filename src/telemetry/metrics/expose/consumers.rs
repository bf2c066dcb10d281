//! Figures of consumers and their credentials.

use std::borrow::Cow;

use super::{Figure, Scrape, classes, text_of};
use crate::telemetry::metrics::{
    families as f,
    registry::{Registry, sum},
    shards::{ConsumerShard, INTROSPECTIONS, NONCE_OUTCOMES},
};

impl Scrape {
    pub(super) fn consumers(&mut self, registry: &Registry) {
        let consumers = &registry.consumers;
        let requests = consumers.iter().flat_map(|(name, shards)| {
            classes(shards, |c| &c.responses)
                .map(|(class, count)| (vec![text_of(name), Cow::Borrowed(class)], count))
        });
        self.counts(f::CONSUMER_REQUESTS, requests.filter(|(_, count)| *count > 0).collect());
        let by_consumer = |figure: Figure<ConsumerShard>| {
            let one = |(name, shards): &(String, _)| (vec![text_of(name)], sum(shards, figure));
            consumers.iter().map(one).filter(|(_, count)| *count > 0).collect()
        };
        self.counts(f::CONSUMER_RECEIVED, by_consumer(|c| c.request_bytes.get()));
        self.counts(f::CONSUMER_SENT, by_consumer(|c| c.response_bytes.get()));
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
