//! Figures of consumers and their credentials.

use std::borrow::Cow;

use super::{Figure, Scrape, classes, text_of};
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
        let refusals = consumers.iter().flat_map(|(name, shards)| {
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
