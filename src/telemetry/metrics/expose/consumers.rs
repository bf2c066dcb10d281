//! Figures of consumers and their credentials.

use std::borrow::Cow;

use super::{Scrape, text_of};
use crate::telemetry::metrics::{
    families::{self as f, Family},
    registry::{Registry, sum},
    shards::{ConsumerShard, INTROSPECTIONS, NONCE_OUTCOMES},
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
