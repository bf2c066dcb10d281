//! `GET /status/history`: what happened in each second of the last 15 minutes, so that a plot is
//! full as soon as somebody looks. One sample is taken after every second, whether or not anybody
//! asks; it adds up what the workers count for themselves and disturbs none of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Json,
    extract::{Query, State as Extract, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};

use super::{Desk, Problem, State};
use crate::{
    control::{history::unix_now, process},
    telemetry::metrics::{
        cell::Summed,
        registry::{Registry, summed},
        shards::{STATUS_FIRST, WorkerShard},
    },
};

/// Seconds that are remembered; the oldest goes first. With 64 workers they take 300 KB.
const SECONDS_MAX: usize = 900;
/// How many of a shard's statuses come before 500, the last hundred.
const BEFORE_5XX: usize = 500 - STATUS_FIRST as usize;

/// The last seconds, oldest first.
#[derive(Default)]
pub struct Seconds(Mutex<VecDeque<Second>>);

/// One second.
#[derive(Clone, Debug, PartialEq)]
struct Second {
    /// Unix time of its begin.
    at: u64,
    requests: f64,
    errors: f64,
    /// `None` when no request ended in it.
    latency: Option<Latency>,
    overhead_p99: Option<f64>,
    /// Open at its end.
    connections: u64,
    /// Each worker's processor time, as a share of the second.
    cpu: Vec<f64>,
}

/// In seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
}

/// What is counted since the start, at one moment.
struct Counts {
    taken: Instant,
    requests: u64,
    errors: u64,
    connections: u64,
    duration: Summed,
    overhead: Summed,
    cpu_seconds: Vec<f64>,
}

impl Counts {
    fn of(registry: &Registry) -> Counts {
        let workers = &registry.workers;
        let errors = |worker: &WorkerShard| {
            worker.statuses[BEFORE_5XX..].iter().map(|cell| cell.get()).sum()
        };
        Counts {
            taken: Instant::now(),
            requests: registry.sum(|worker| worker.requests.get()),
            errors: registry.sum(errors),
            connections: registry.sum(|worker| worker.connections_open.get()),
            duration: summed(workers, |worker| &worker.duration),
            overhead: summed(workers, |worker| &worker.overhead),
            cpu_seconds: workers.iter().map(|w| process::cpu_seconds(w.tid.get())).collect(),
        }
    }

    /// What came since `before`, as the second that began at `at`.
    fn since(&self, before: &Counts, at: u64) -> Second {
        let elapsed = self.taken.saturating_duration_since(before.taken).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| rounded(now.saturating_sub(before) as f64 / elapsed);
        let share = |(now, before): (&f64, &f64)| rounded((now - before).max(0.0) / elapsed);
        let duration = self.duration.since(&before.duration);
        let overhead = self.overhead.since(&before.overhead);
        Second {
            at,
            requests: rate(self.requests, before.requests),
            errors: rate(self.errors, before.errors),
            latency: (duration.count() > 0).then(|| Latency {
                p50: quantile(&duration, 0.5),
                p90: quantile(&duration, 0.9),
                p99: quantile(&duration, 0.99),
                p999: quantile(&duration, 0.999),
            }),
            overhead_p99: (overhead.count() > 0).then(|| quantile(&overhead, 0.99)),
            connections: self.connections,
            cpu: self.cpu_seconds.iter().zip(&before.cpu_seconds).map(share).collect(),
        }
    }
}

fn quantile(durations: &Summed, share: f64) -> f64 {
    durations.at_quantile_ns(share) as f64 / 1e9
}

/// To thousandths: more digits would say nothing and be most of an answer.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Seconds {
    fn add(&self, second: Second) {
        let mut seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back: time goes on from where it is now.
        while seconds.back().is_some_and(|last| last.at >= second.at) {
            seconds.pop_back();
        }
        if seconds.len() == SECONDS_MAX {
            seconds.pop_front();
        }
        seconds.push_back(second);
    }

    /// The last `wanted` seconds, those without sample among them; fewer when there were not as
    /// many yet.
    fn last(&self, wanted: u64) -> History {
        let seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (seconds.front(), seconds.back()) else {
            return History { step: 1, from: unix_now(), ..History::default() };
        };
        let from = first.at.max((last.at + 1).saturating_sub(wanted));
        let mut history = History { step: 1, from, ..History::default() };
        let mut at = from;
        for second in seconds.iter().filter(|second| second.at >= from) {
            for _ in at..second.at {
                history.push(None);
            }
            history.push(Some(second));
            at = second.at + 1;
        }
        history
    }
}

/// A series per figure; one value per second, `null` where there is none.
#[derive(Debug, Default, Serialize)]
pub struct History {
    /// Seconds between two values.
    step: u32,
    /// Unix time of the first value.
    from: u64,
    requests: Vec<Option<f64>>,
    errors: Vec<Option<f64>>,
    p50: Vec<Option<f64>>,
    p90: Vec<Option<f64>>,
    p99: Vec<Option<f64>>,
    p999: Vec<Option<f64>>,
    overhead_p99: Vec<Option<f64>>,
    connections: Vec<Option<u64>>,
    /// Of each worker, from 0 to 1; empty where there is none.
    cpu: Vec<Vec<f64>>,
}

impl History {
    fn push(&mut self, second: Option<&Second>) {
        let latency = second.and_then(|second| second.latency);
        self.requests.push(second.map(|second| second.requests));
        self.errors.push(second.map(|second| second.errors));
        self.p50.push(latency.map(|latency| latency.p50));
        self.p90.push(latency.map(|latency| latency.p90));
        self.p99.push(latency.map(|latency| latency.p99));
        self.p999.push(latency.map(|latency| latency.p999));
        self.overhead_p99.push(second.and_then(|second| second.overhead_p99));
        self.connections.push(second.map(|second| second.connections));
        self.cpu.push(second.map_or_else(Vec::new, |second| second.cpu.clone()));
    }
}

/// Takes a sample after every second, for ever.
pub async fn sample(desk: Arc<Desk>) {
    let mut before = Counts::of(&desk.registry());
    loop {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let into_second = since_1970.map_or(0, |since| since.subsec_millis());
        // A little late, so that a timer that is early does not sample a second twice.
        tokio::time::sleep(Duration::from_millis(1005 - u64::from(into_second))).await;
        let now = Counts::of(&desk.registry());
        desk.seconds.add(now.since(&before, unix_now().saturating_sub(1)));
        before = now;
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    seconds: Option<u64>,
}

/// `?seconds=` limits how far back; all that is remembered without it.
pub async fn get(
    Extract(desk): State,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<History>, Problem> {
    let Query(wanted) = wanted.map_err(|e| Problem::bad(format!("{e}; write ?seconds=60")))?;
    let wanted = wanted.seconds.unwrap_or(SECONDS_MAX as u64);
    if !(1..=SECONDS_MAX as u64).contains(&wanted) {
        let detail = format!("seconds is not between 1 and {SECONDS_MAX}; write ?seconds=60");
        return Err(Problem::bad(detail));
    }
    Ok(Json(desk.seconds.last(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at: u64) -> Second {
        let latency = Some(Latency { p50: 0.1, p90: 0.2, p99: 0.3, p999: 0.4 });
        let (requests, errors, connections) = (at as f64, 0.0, 5);
        Second { at, requests, errors, latency, overhead_p99: None, connections, cpu: vec![0.5] }
    }

    fn requests(seconds: &Seconds, wanted: u64) -> (u64, Vec<Option<f64>>) {
        let history = seconds.last(wanted);
        assert_eq!(history.cpu.len(), history.requests.len());
        (history.from, history.requests)
    }

    #[test]
    fn the_last_seconds_are_remembered() {
        let seconds = Seconds::default();
        assert_eq!(requests(&seconds, 900).1, []);
        for at in 1..=2000 {
            seconds.add(second(at));
        }
        let (from, all) = requests(&seconds, 900);
        assert_eq!((from, all.len(), all[0], all[899]), (1101, 900, Some(1101.0), Some(2000.0)));
        assert_eq!(requests(&seconds, 2), (1999, vec![Some(1999.0), Some(2000.0)]));
    }

    #[test]
    fn seconds_without_sample_are_gaps() {
        let seconds = Seconds::default();
        for at in [10, 11, 14] {
            seconds.add(second(at));
        }
        let values = [Some(10.0), Some(11.0), None, None, Some(14.0)];
        assert_eq!(requests(&seconds, 900), (10, values.to_vec()));
        assert_eq!(requests(&seconds, 2), (13, values[3..].to_vec()));
    }

    #[test]
    fn a_clock_that_jumps_leaves_the_answer_bounded() {
        let seconds = Seconds::default();
        for at in [100, 101, 102, 101] {
            seconds.add(second(at));
        }
        assert_eq!(requests(&seconds, 900), (100, vec![Some(100.0), Some(101.0)]));
        seconds.add(second(1 << 40));
        let (from, all) = requests(&seconds, 900);
        assert_eq!((from, all.len()), ((1 << 40) - 899, 900));
        assert_eq!(all.iter().flatten().count(), 1);
    }

    #[test]
    fn a_second_is_the_difference_of_two_counts() {
        let registry = Registry::new(2);
        let before = Counts::of(&registry);
        registry.workers[0].answered(200, 0, 0);
        registry.workers[0].duration.record(2_000_000);
        registry.workers[1].answered(503, 0, 0);
        registry.workers[1].duration.record(4_000_000);
        registry.workers[1].answered(499, 0, 0);
        registry.workers[1].connections_open.set(7);
        let mut now = Counts::of(&registry);
        now.taken = before.taken + Duration::from_secs(2);
        now.cpu_seconds = vec![before.cpu_seconds[0] + 1.0, before.cpu_seconds[1]];
        let second = now.since(&before, 9);
        assert_eq!((second.at, second.requests, second.errors), (9, 1.5, 0.5));
        assert_eq!((second.connections, &second.cpu[..]), (7, &[0.5, 0.0][..]));
        let latency = second.latency.expect("requests ended");
        assert!((0.0019..0.0021).contains(&latency.p50), "{latency:?}");
        assert!((0.0039..0.0041).contains(&latency.p99), "{latency:?}");
        assert_eq!(second.overhead_p99, None);
        assert_eq!(now.since(&now, 10).latency, None, "no request ended");
    }
}
