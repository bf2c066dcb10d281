//! Figures of rate limits.

use std::borrow::Cow;

use super::{Figure, Samples, Scrape, text_of};
use crate::telemetry::metrics::{
    families as f,
    registry::{Registry, sum},
    shards::LimitShard,
};

/// A server in which limits are shared.
#[derive(Clone, Debug, Default)]
pub struct RedisFigures {
    pub name: String,
    pub is_up: bool,
    pub answered: u64,
    pub refused: u64,
    pub crowded: u64,
    pub batches: u64,
    /// How long answers took, in all.
    pub answers_s: f64,
    pub failures: u64,
}

impl Scrape {
    pub(super) fn redis(&mut self, servers: &[RedisFigures]) {
        let name = |of: &RedisFigures| vec![text_of(&of.name)];
        let up = servers.iter().map(|of| (name(of), u64::from(of.is_up)));
        self.counts(f::REDIS_UP, up.collect());
        let orders = servers.iter().flat_map(|of| {
            let counts =
                [("answered", of.answered), ("refused", of.refused), ("crowded", of.crowded)];
            counts.map(|(outcome, count)| (vec![text_of(&of.name), outcome.into()], count))
        });
        self.counts(f::REDIS_ORDERS, orders.collect());
        let batches = servers.iter().map(|of| (name(of), of.batches));
        self.counts(f::REDIS_BATCHES, batches.collect());
        let answers = servers.iter().map(|of| (name(of), of.answers_s));
        self.0.push((f::REDIS_ANSWERS, Samples::Numbers(answers.collect())));
        let failures = servers.iter().map(|of| (name(of), of.failures));
        self.counts(f::REDIS_FAILURES, failures.collect());
    }

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
        let figures: [(_, Figure<LimitShard>); 7] = [
            (f::LIMIT_WAITS, |l| l.waits.get()),
            (f::LIMIT_ALONE, |l| l.alone.get()),
            (f::LIMIT_FALLBACK, |l| l.fallback.get()),
            (f::LIMIT_FORGOTTEN, |l| l.forgotten.get()),
            (f::LIMIT_KEYS, |l| l.keys.get()),
            (f::LIMIT_LEASES, |l| l.leases.get()),
            (f::LIMIT_MEMORY, |l| l.bytes.get()),
        ];
        for (family, figure) in figures {
            let limits = registry.limits.iter();
            let samples = limits.map(|(name, shards)| (vec![text_of(name)], sum(shards, figure)));
            self.counts(family, samples.collect());
        }
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
    }
}
