//! How long requests took lately: durations are summed from the process's start, so those of the
//! last seconds are what came since an earlier sum. Such sums are taken every few seconds, whether
//! or not somebody asks, so that the first answer is right too.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::Desk;
use crate::telemetry::metrics::{
    cell::{Kept, Summed},
    registry::{Registry, summed},
};

/// How far back an answer looks, at least; and at most this and the time between two sums.
const SPAN: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(2);
/// Sums that are kept: enough to look back [`SPAN`] from just before the next.
const SUMS_MAX: usize = 7;

/// Sums of the last seconds.
#[derive(Default)]
pub struct Recent(Mutex<VecDeque<Arc<Sums>>>);

/// Every duration's sum at one moment.
pub struct Sums {
    pub at: Instant,
    pub duration: Kept,
    pub overhead: Kept,
    pub routes: HashMap<String, Kept>,
    /// By upstream and endpoint.
    pub endpoints: HashMap<(String, String), Kept>,
}

impl Sums {
    fn of(registry: &Registry) -> Sums {
        let workers = &registry.workers;
        let routes = registry.routes.iter().filter_map(|(name, shards)| {
            let sum = summed(shards, |route| &route.duration);
            (sum.count() > 0).then(|| (name.clone(), sum.kept()))
        });
        let endpoints = registry.upstreams.iter().flat_map(|(upstream, _, endpoints)| {
            endpoints.iter().filter_map(move |(name, shards)| {
                let sum = summed(shards, |endpoint| &endpoint.duration);
                (sum.count() > 0).then(|| ((upstream.clone(), name.clone()), sum.kept()))
            })
        });
        Sums {
            at: Instant::now(),
            duration: summed(workers, |worker| &worker.duration).kept(),
            overhead: summed(workers, |worker| &worker.overhead).kept(),
            routes: routes.collect(),
            endpoints: endpoints.collect(),
        }
    }
}

impl Recent {
    /// The sums to compare with: those of [`SPAN`] ago, or the first there are.
    pub fn before(&self) -> Option<Arc<Sums>> {
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = sums.iter().rev().find(|sums| sums.at.elapsed() >= SPAN);
        old.or(sums.front()).cloned()
    }

    fn add(&self, now: Sums) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.len() == SUMS_MAX {
            sums.pop_front();
        }
        sums.push_back(Arc::new(now));
    }
}

/// Takes the sums, for ever.
pub async fn sample(desk: Arc<Desk>) {
    loop {
        let sums = Sums::of(&desk.registry());
        desk.recent.add(sums);
        tokio::time::sleep(EVERY).await;
    }
}

/// What came since an earlier sum, which may have had none.
pub fn since(now: &Summed, before: Option<&Kept>) -> Summed {
    before.map_or_else(|| now.clone(), |before| now.since_kept(before))
}
