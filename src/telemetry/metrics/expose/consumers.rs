//! Figures of consumers and their credentials.

use std::borrow::Cow;

use super::{Scrape, text_of};
use crate::telemetry::metrics::{
    families as f,
    registry::{Registry, sum},
    shards::ConsumerShard,
};

impl Scrape {
    pub(super) fn consumer_quotas(&mut self, quotas: &[(String, String, u32, u32)]) {
        let of = |figure: fn(&(String, String, u32, u32)) -> u32| {
            let one = |quota: &(String, String, u32, u32)| {
                (vec![text_of(&quota.0), text_of(&quota.1)], u64::from(figure(quota)))
            };
            quotas.iter().map(one).collect()
        };
        self.counts(f::CONSUMER_QUOTA_USED, of(|quota| quota.2));
        self.counts(f::CONSUMER_QUOTA_LEFT, of(|quota| quota.3));
    }

    pub(super) fn consumers(&mut self, registry: &Registry) {
        let families = [f::CONSUMER_REQUESTS, f::CONSUMER_RECEIVED, f::CONSUMER_SENT];
        self.traffic(families, &registry.consumers, |consumer| &consumer.traffic, false);
        let refusals = registry.consumers.iter().flat_map(|(name, shards)| {
            ConsumerShard::refusal_names().map(|(at, reason)| {
                let count = sum(shards, |consumer: &ConsumerShard| consumer.refusals[at].get());
                (vec![text_of(name), Cow::Borrowed(reason)], count)
            })
        });
        self.counts(f::CONSUMER_REFUSALS, refusals.filter(|(_, count)| *count > 0).collect());
        let outcomes = ["right", "wrong", "busy"].into_iter().enumerate().map(|(at, outcome)| {
            (vec![Cow::Borrowed(outcome)], registry.sum(|w| w.passwords[at].get()))
        });
        self.counts(f::PASSWORDS, outcomes.filter(|(_, count)| *count > 0).collect());
    }
}
