//! Figures of rate limits.

use std::borrow::Cow;

use super::{Figure, Scrape, text_of};
use crate::telemetry::metrics::{
    families as f,
    registry::{Registry, sum},
    shards::LimitShard,
};

impl Scrape {
    pub(super) fn limits(&mut self, registry: &Registry) {
        let outcomes: [(_, Figure<LimitShard>); 4] = [
            ("passed", |l| l.passed.get()),
            ("refused", |l| l.refused.get()),
            ("shadow", |l| l.shadow.get()),
            ("exempt", |l| l.exempt.get()),
        ];
        let requests = registry.limits.iter().flat_map(|(name, shards)| {
            outcomes.map(|(outcome, figure)| {
                (vec![text_of(name), Cow::Borrowed(outcome)], sum(shards, figure))
            })
        });
        self.counts(f::LIMIT_REQUESTS, requests.collect());
        let figures: [(_, Figure<LimitShard>); 6] = [
            (f::LIMIT_WAITS, |l| l.waits.get()),
            (f::LIMIT_ALONE, |l| l.alone.get()),
            (f::LIMIT_FORGOTTEN, |l| l.forgotten.get()),
            (f::LIMIT_KEYS, |l| l.keys.get()),
            (f::LIMIT_LEASES, |l| l.leases.get()),
            (f::LIMIT_MEMORY, |l| l.bytes.get()),
        ];
        let gauges: [(_, Figure<LimitShard>); 2] =
            [(f::CONCURRENCY_HELD, |l| l.held.get()), (f::CONCURRENCY_QUEUED, |l| l.queued.get())];
        for (family, figure) in gauges {
            let of_progress = registry
                .limits
                .iter()
                .filter(|(_, shards)| sum(shards, |limit| limit.is_of_progress.get()) > 0);
            let samples =
                of_progress.map(|(name, shards)| (vec![text_of(name)], sum(shards, figure)));
            self.counts(family, samples.collect());
        }
        for (family, figure) in figures {
            let limits = registry.limits.iter();
            let samples = limits.map(|(name, shards)| (vec![text_of(name)], sum(shards, figure)));
            self.counts(family, samples.collect());
        }
    }
}
