//! Merges what the threads count, interval by interval: totals, the rows of the report, the HDR log
//! and the live line. Runs on a thread of its own, so that none of it delays a request.
//!
//! Memory is bounded by [`INTERVALS_MAX`] rows of a few numbers; histograms are merged and dropped,
//! except one per step of a schedule.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde_json::{Value, json};

use crate::load::Pace;
use crate::report::percentiles_us;
use crate::tally::{Interval, TAIL, histogram};

/// Intervals of a run at most.
pub const INTERVALS_MAX: u64 = 100_000;

/// What is wanted beside the totals.
pub struct Wanted {
    /// Where to write the HDR log.
    pub hdr_log: Option<PathBuf>,
    /// A line to standard error per interval; `None` decides by whether that is a terminal.
    pub progress: Option<bool>,
    /// Threads that count.
    pub threads: usize,
    /// Length of an interval, nanoseconds.
    pub interval_ns: u64,
    /// Load before the window, nanoseconds.
    pub warmup_ns: u64,
    /// When requests are due.
    pub pace: &'static Pace,
}

/// Everything merged.
pub struct Collected {
    /// All latencies, nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// One object per interval.
    pub intervals: Vec<Value>,
    /// Most requests due and not sent, summed over threads.
    pub backlog_max: u64,
    /// One object per step of the schedule.
    pub steps: Vec<Value>,
}

/// One interval of all threads.
struct Row {
    latency_ns: Histogram<u64>,
    failed: u64,
    backlog_max: u64,
}

struct Step {
    rate: f64,
    until_s: f64,
    row: Row,
}

impl Row {
    fn new() -> Self {
        Self { latency_ns: histogram(), failed: 0, backlog_max: 0 }
    }

    fn add(&mut self, latency_ns: &Histogram<u64>, failed: u64, backlog_max: u64) {
        self.latency_ns.add(latency_ns).expect("invariant: equal bounds");
        self.failed += failed;
        self.backlog_max += backlog_max;
    }

    fn json(&self) -> Value {
        json!({
            "succeeded": self.latency_ns.len(),
            "failed": self.failed,
            "backlog_max": self.backlog_max,
            "latency_us": percentiles_us(&self.latency_ns),
        })
    }
}

/// Merges until every thread has hung up.
pub fn collect(intervals: &Receiver<Interval>, wanted: &Wanted) -> io::Result<Collected> {
    let mut log_text: Box<dyn Write> = match &wanted.hdr_log {
        Some(path) => {
            let file = File::create(path).map_err(|e| {
                io::Error::other(format!("{}: cannot be written: {e}", path.display()))
            })?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(io::sink()),
    };
    let mut serializer = V2DeflateSerializer::new();
    let begin = SystemTime::now() + Duration::from_nanos(wanted.warmup_ns);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("loadtest; values in nanoseconds, maxima in milliseconds")
        .with_start_time(begin)
        .with_base_time(begin)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut log_text, &mut serializer)?;
    let mut merger = Merger::new(wanted);
    while let Ok(interval) = intervals.recv() {
        for (index, row) in merger.take(&interval) {
            if index == TAIL && row.latency_ns.is_empty() && row.failed == 0 {
                continue;
            }
            let number = if index == TAIL { merger.rows.len() as u64 } else { index };
            let start = Duration::from_nanos(number * wanted.interval_ns);
            let length = Duration::from_nanos(wanted.interval_ns);
            log.write_histogram(&row.latency_ns, start, length, None)
                .map_err(|e| io::Error::other(format!("the HDR log cannot be written: {e:?}")))?;
            merger.keep(index, &row);
        }
    }
    drop(log);
    log_text.flush()?;
    Ok(Collected {
        steps: merger.steps.iter().map(Step::json).collect(),
        latency_ns: merger.total,
        intervals: merger.rows,
        backlog_max: merger.backlog_max,
    })
}

impl Step {
    fn json(&self) -> Value {
        let mut json = self.row.json();
        json["rate"] = json!(self.rate);
        json["until_s"] = json!(self.until_s);
        json
    }
}

struct Merger<'a> {
    wanted: &'a Wanted,
    progress: bool,
    waiting: BTreeMap<u64, Row>,
    /// Per thread, how many intervals are complete.
    complete: Vec<u64>,
    total: Histogram<u64>,
    rows: Vec<Value>,
    steps: Vec<Step>,
    backlog_max: u64,
}

impl<'a> Merger<'a> {
    fn new(wanted: &'a Wanted) -> Self {
        let warmup_s = wanted.warmup_ns as f64 / 1e9;
        let steps = match wanted.pace {
            Pace::Closed => Vec::new(),
            Pace::Open(schedule) => schedule.step_ends(),
        };
        let step = |(rate, until_s): (f64, f64)| Step {
            rate,
            until_s: until_s - warmup_s,
            row: Row::new(),
        };
        Self {
            wanted,
            progress: wanted.progress.unwrap_or_else(|| io::stderr().is_terminal()),
            waiting: BTreeMap::new(),
            complete: vec![0; wanted.threads],
            total: histogram(),
            rows: Vec::new(),
            steps: steps.into_iter().map(step).collect(),
            backlog_max: 0,
        }
    }

    /// Takes one interval of one thread; returns those that all threads have completed.
    fn take(&mut self, interval: &Interval) -> Vec<(u64, Row)> {
        let row = self.waiting.entry(interval.index).or_insert_with(Row::new);
        row.add(&interval.latency_ns, interval.failed, interval.backlog_max);
        self.complete[interval.thread] = interval.index + 1;
        let complete = self.complete.iter().min().copied().unwrap_or(0);
        let rest = self.waiting.split_off(&complete);
        std::mem::replace(&mut self.waiting, rest).into_iter().collect()
    }

    fn keep(&mut self, index: u64, row: &Row) {
        self.total.add(&row.latency_ns).expect("invariant: equal bounds");
        self.backlog_max = self.backlog_max.max(row.backlog_max);
        if index == TAIL {
            // What the window's last requests waited for.
            if let Some(step) = self.steps.last_mut() {
                step.row.add(&row.latency_ns, row.failed, 0);
            }
            let mut json = row.json();
            json["tail"] = json!(true);
            self.rows.push(json);
            return;
        }
        let start_s = (index * self.wanted.interval_ns) as f64 / 1e9;
        let middle_s = start_s + self.wanted.interval_ns as f64 / 2e9;
        if let Some(step) = self.steps.iter_mut().find(|s| middle_s < s.until_s) {
            let backlog = row.backlog_max.max(step.row.backlog_max) - step.row.backlog_max;
            step.row.add(&row.latency_ns, row.failed, backlog);
        }
        let mut json = row.json();
        json["start_s"] = json!(start_s);
        let due = match self.wanted.pace {
            Pace::Closed => None,
            Pace::Open(schedule) => {
                let at_ns = (middle_s * 1e9) as u64 + self.wanted.warmup_ns;
                Some(schedule.rate_at(at_ns))
            }
        };
        json["rate"] = json!(due);
        if self.progress {
            // A closed standard error ends no run.
            let _ = writeln!(io::stderr(), "{}", self.line(start_s, row, due));
        }
        self.rows.push(json);
    }

    fn line(&self, start_s: f64, row: &Row, due: Option<f64>) -> String {
        let interval_s = self.wanted.interval_ns as f64 / 1e9;
        let ms = |q: f64| row.latency_ns.value_at_quantile(q) as f64 / 1e6;
        let asked = due.map_or(String::new(), |due| {
            format!(" of {due:.0}/s due, backlog {}", row.backlog_max)
        });
        format!(
            "{:6.1} s  {:9.0}/s{asked}  p50 {:.3} p99 {:.3} max {:.3} ms  failed {}",
            start_s + interval_s,
            row.latency_ns.len() as f64 / interval_s,
            ms(0.5),
            ms(0.99),
            row.latency_ns.max() as f64 / 1e6,
            row.failed,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::schedule::{Schedule, Step};

    fn interval(thread: usize, index: u64, latency_ns: u64) -> Interval {
        let mut interval =
            Interval { thread, index, latency_ns: histogram(), failed: 1, backlog_max: 2 };
        interval.latency_ns.record(latency_ns).unwrap();
        interval
    }

    #[test]
    fn threads_are_merged_and_logged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.hlog");
        let steps = [Step { rate: 10.0, seconds: 2.0 }, Step { rate: 20.0, seconds: 1.0 }];
        let pace = Box::leak(Box::new(Pace::Open(Schedule::steps(&steps, 1.0))));
        let wanted = Wanted {
            hdr_log: Some(path.clone()),
            progress: Some(false),
            threads: 2,
            interval_ns: 1_000_000_000,
            warmup_ns: 1_000_000_000,
            pace,
        };
        let (sender, receiver) = mpsc::channel();
        // Thread 1 missed interval 1.
        for (thread, index) in [(0, 0), (0, 1), (1, 0), (1, 2), (0, 2), (0, TAIL), (1, TAIL)] {
            sender.send(interval(thread, index, 1000)).unwrap();
        }
        drop(sender);
        let found = collect(&receiver, &wanted).unwrap();
        assert_eq!((found.latency_ns.len(), found.backlog_max), (7, 4));
        let counts: Vec<_> = found.intervals.iter().map(|i| i["succeeded"].as_u64()).collect();
        assert_eq!(counts, [Some(2), Some(1), Some(2), Some(2)]);
        assert_eq!(found.intervals[3]["tail"], true);
        let steps: Vec<_> = found.steps.iter().map(|s| (&s["rate"], &s["succeeded"])).collect();
        assert_eq!(steps, [(&json!(10.0), &json!(3)), (&json!(20.0), &json!(4))]);

        let text = std::fs::read(path).unwrap();
        let mut logged = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            if let LogEntry::Interval(line) = entry.unwrap() {
                let bytes = base64::Engine::decode(
                    &base64::engine::general_purpose::STANDARD,
                    line.encoded_histogram(),
                );
                let latency: Histogram<u64> =
                    Deserializer::new().deserialize(&mut &bytes.unwrap()[..]).unwrap();
                logged.push((line.start_timestamp().as_secs(), latency.len()));
            }
        }
        assert_eq!(logged, [(0, 2), (1, 1), (2, 2), (3, 2)]);
    }
}
