//! What was measured, and how it is printed.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Why a request did not get its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No listener: the connection was refused, nothing was sent.
    Refused,
    /// The connection could not be made for another reason.
    Connect,
    /// The connection ended in order before any byte of the response.
    Unanswered,
    /// The connection was reset.
    Reset,
    /// The connection ended inside the response.
    Short,
    /// No complete response in time.
    Timeout,
    /// The response could not be understood, or bytes came that nobody asked for.
    Malformed,
    /// A complete response with another status than expected.
    Status,
    /// A complete response of another length than expected.
    Length,
}

impl Failure {
    const ALL: [Self; 9] = [
        Self::Refused,
        Self::Connect,
        Self::Unanswered,
        Self::Reset,
        Self::Short,
        Self::Timeout,
        Self::Malformed,
        Self::Status,
        Self::Length,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Connect => "connect",
            Self::Unanswered => "unanswered",
            Self::Reset => "reset",
            Self::Short => "short",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::Status => "status",
            Self::Length => "length",
        }
    }
}

/// Counts of one run.
pub struct Tally {
    /// Requests started while measuring.
    pub started: u64,
    /// Requests completed rightly inside the measured window.
    pub succeeded: u64,
    /// Requests completed rightly after the window's end.
    pub late: u64,
    /// Kept connections that the proxy ended while nothing was in flight.
    pub idle_closed: u64,
    /// End of the measured window; completions after it are late.
    pub window_end_ns: u64,
    latency_ns: Histogram<u64>,
    failures: [u64; Failure::ALL.len()],
    statuses: BTreeMap<u16, u64>,
}

impl Tally {
    /// All zero, with an unbounded window.
    pub fn new() -> Self {
        Self {
            started: 0,
            succeeded: 0,
            late: 0,
            idle_closed: 0,
            window_end_ns: u64::MAX,
            latency_ns: Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
                .expect("invariant: constant bounds are valid"),
            failures: [0; Failure::ALL.len()],
            statuses: BTreeMap::new(),
        }
    }

    /// Counts a right response.
    pub fn succeed(&mut self, now_ns: u64, latency_ns: u64) {
        if now_ns > self.window_end_ns {
            self.late += 1;
            return;
        }
        self.succeeded += 1;
        self.latency_ns.saturating_record(latency_ns);
    }

    /// Counts a failure if it belongs to the measurement.
    pub fn fail(&mut self, failure: Failure, counted: bool) {
        self.failures[failure as usize] += u64::from(counted);
    }

    /// Remembers which wrong statuses came.
    pub fn note_status(&mut self, status: u16) {
        *self.statuses.entry(status).or_default() += 1;
    }

    /// Requests sent on an accepted connection that got no right response.
    pub fn lost(&self) -> u64 {
        let apart = [Failure::Refused, Failure::Connect];
        Failure::ALL.iter().filter(|f| !apart.contains(f)).map(|f| self.failures[*f as usize]).sum()
    }

    /// The run as JSON: counts, failures by kind, latency in microseconds.
    pub fn json(&self, window_ns: u64) -> Value {
        let us = |q: f64| self.latency_ns.value_at_quantile(q) as f64 / 1e3;
        let failures: BTreeMap<&str, u64> =
            Failure::ALL.iter().map(|f| (f.name(), self.failures[*f as usize])).collect();
        json!({
            "window_s": window_ns as f64 / 1e9,
            "started": self.started,
            "succeeded": self.succeeded,
            "late": self.late,
            "lost": self.lost(),
            "idle_closed": self.idle_closed,
            "failures": failures,
            "wrong_statuses": self.statuses.iter().map(|(s, n)| (s.to_string(), *n))
                .collect::<BTreeMap<String, u64>>(),
            "requests_per_s": self.succeeded as f64 * 1e9 / window_ns.max(1) as f64,
            "latency_us": {
                "p50": us(0.5), "p90": us(0.9), "p99": us(0.99), "p999": us(0.999),
                "max": self.latency_ns.max() as f64 / 1e3, "mean": self.latency_ns.mean() / 1e3,
            },
        })
    }
}

/// CPU time of a process as the kernel keeps it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessCpu {
    /// On a CPU, summed over the living threads, nanoseconds.
    pub total_ns: u64,
    /// User part, clock ticks (10 ms each).
    pub user_ticks: u64,
    /// System part, clock ticks (10 ms each).
    pub system_ticks: u64,
}

impl ProcessCpu {
    /// Reads `/proc/PID/task/*/schedstat` and `/proc/PID/stat`.
    pub fn read(pid: u32) -> io::Result<Self> {
        let mut cpu = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            cpu.total_ns += number(&text, 0);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command name may hold spaces; fields are counted after its closing parenthesis.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        cpu.user_ticks = number(fields, 11);
        cpu.system_ticks = number(fields, 12);
        Ok(cpu)
    }

    /// What was used between two readings, as JSON. A thread that ended in between takes its
    /// share of `cpu_ns` with it, which can leave less than before.
    pub fn since(self, earlier: Self) -> Value {
        json!({
            "cpu_ns": self.total_ns.saturating_sub(earlier.total_ns),
            "user_ticks": self.user_ticks - earlier.user_ticks,
            "system_ticks": self.system_ticks - earlier.system_ticks,
        })
    }
}

fn number(text: &str, field: usize) -> u64 {
    text.split_ascii_whitespace().nth(field).and_then(|f| f.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_not_losses() {
        let mut tally = Tally::new();
        tally.fail(Failure::Refused, true);
        tally.fail(Failure::Short, true);
        tally.fail(Failure::Short, false);
        assert_eq!(tally.lost(), 1);
        assert_eq!(tally.json(1)["failures"]["refused"], 1);
    }

    #[test]
    fn late_responses_do_not_count_towards_the_rate() {
        let mut tally = Tally::new();
        tally.window_end_ns = 100;
        tally.succeed(100, 5);
        tally.succeed(101, 5);
        assert_eq!((tally.succeeded, tally.late), (1, 1));
    }

    #[test]
    fn reads_this_process() {
        let cpu = ProcessCpu::read(std::process::id()).expect("proc is mounted");
        assert!(cpu.total_ns > 0);
    }
}
