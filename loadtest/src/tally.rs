//! What one thread counts. Latencies go into the histogram of the current interval only, which is
//! handed to [`crate::collect`] when the interval is over: recording is one store, and merging
//! costs another thread.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use hdrhistogram::Histogram;

/// Declares the kinds of failure, in the order and with the names of the report.
macro_rules! failures {
    ($($(#[doc = $doc:literal])* $kind:ident = $name:literal,)*) => {
        /// Why a request did not get its right response.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Failure {
            $($(#[doc = $doc])* $kind,)*
        }

        impl Failure {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

failures! {
    /// No listener: the connection was refused, nothing was sent.
    Refused = "refused",
    /// The connection could not be made for another reason; nothing was sent.
    Connect = "connect",
    /// The TLS handshake failed; nothing was sent.
    Tls = "tls",
    /// The connection ended in order before any byte of the response.
    Unanswered = "unanswered",
    /// The connection or the stream was reset.
    Reset = "reset",
    /// The connection ended inside the response.
    Short = "short",
    /// No complete response in time.
    Timeout = "timeout",
    /// The response could not be understood, or bytes came that nobody asked for.
    Malformed = "malformed",
    /// A complete response with another status than expected.
    Status = "status",
    /// A complete response of another length than expected.
    Length = "length",
    /// A complete response with another checksum than expected.
    Checksum = "checksum",
}

impl Failure {
    /// Nothing was sent, so no request was lost by the target.
    pub fn before_sending(self) -> bool {
        matches!(self, Self::Refused | Self::Connect | Self::Tls)
    }
}

/// Latencies from a nanosecond to an hour at three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
        .expect("invariant: constant bounds are valid")
}

/// The number of the interval after the window, in which what was begun inside it ends.
pub const TAIL: u64 = u64::MAX - 1;

/// What happened in one interval of the measured window, or after it, on one thread.
pub struct Interval {
    /// Which thread.
    pub thread: usize,
    /// Its number; interval `i` begins `i` interval lengths after the window begins.
    pub index: u64,
    /// Latencies of right responses, nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// Failed requests.
    pub failed: u64,
    /// Open loop: most requests that were due and not sent.
    pub backlog_max: u64,
}

impl Interval {
    fn new(thread: usize, index: u64) -> Self {
        Self { thread, index, latency_ns: histogram(), failed: 0, backlog_max: 0 }
    }
}

/// Counts of one thread.
pub struct Tally {
    /// Requests started that belong to the measurement.
    pub started: u64,
    /// Requests completed rightly inside the measured window.
    pub succeeded: u64,
    /// Requests completed rightly after the window's end; their latencies count.
    pub late: u64,
    /// Kept connections that the target ended while nothing was in flight.
    pub idle_closed: u64,
    /// Bytes of right response bodies.
    pub body_bytes: u64,
    /// End of the measured window; completions after it are late.
    pub window_end_ns: u64,
    /// Open loop: how long after it was due a request was sent though a connection was free.
    pub lag_ns: Histogram<u64>,
    /// Open loop: requests due in the window and never sent.
    pub unsent: u64,
    /// TLS handshakes that proved the server's identity anew.
    pub tls_full: u64,
    /// TLS handshakes that went on with an earlier session.
    pub tls_resumed: u64,
    /// Failures, indexed by kind.
    pub failures: Vec<u64>,
    /// Wrong statuses that came.
    pub statuses: BTreeMap<u16, u64>,
    /// What the first failure of a kind was, for people.
    pub notes: BTreeMap<&'static str, String>,
    interval: Interval,
    /// `None` once the run is over.
    intervals: Option<Sender<Interval>>,
}

impl Tally {
    /// All zero, with an unbounded window; intervals go to `intervals`.
    pub fn new(thread: usize, intervals: Sender<Interval>) -> Self {
        Self {
            started: 0,
            succeeded: 0,
            late: 0,
            idle_closed: 0,
            body_bytes: 0,
            window_end_ns: u64::MAX,
            lag_ns: histogram(),
            unsent: 0,
            tls_full: 0,
            tls_resumed: 0,
            failures: vec![0; Failure::ALL.len()],
            statuses: BTreeMap::new(),
            notes: BTreeMap::new(),
            interval: Interval::new(thread, 0),
            intervals: Some(intervals),
        }
    }

    /// Counts a right response.
    pub fn succeed(&mut self, now_ns: u64, latency_ns: u64, body_bytes: u64) {
        if now_ns > self.window_end_ns {
            self.late += 1;
        } else {
            self.succeeded += 1;
            self.body_bytes += body_bytes;
        }
        self.interval.latency_ns.saturating_record(latency_ns);
    }

    /// Counts a failure; `note` says what happened and is asked for the first of a kind only.
    pub fn fail(&mut self, failure: Failure, note: impl FnOnce() -> String) {
        self.failures[failure as usize] += 1;
        self.interval.failed += 1;
        self.notes.entry(failure.name()).or_insert_with(note);
    }

    /// Remembers how many requests were due and not sent.
    pub fn note_backlog(&mut self, backlog: u64) {
        self.interval.backlog_max = self.interval.backlog_max.max(backlog);
    }

    /// The interval `index` has begun: hands over the one before.
    pub fn roll(&mut self, index: u64) {
        if index > self.interval.index {
            let next = Interval::new(self.interval.thread, index);
            let done = std::mem::replace(&mut self.interval, next);
            if let Some(intervals) = &self.intervals {
                // Nobody listens any more only when the run was given up.
                let _ = intervals.send(done);
            }
        }
    }

    /// The run is over: hands over the last interval, and hangs up.
    pub fn close(&mut self) {
        self.roll(u64::MAX);
        self.intervals = None;
    }

    /// Adds what another thread counted; latencies come by their intervals.
    pub fn add(&mut self, other: &Self) {
        self.started += other.started;
        self.succeeded += other.succeeded;
        self.late += other.late;
        self.idle_closed += other.idle_closed;
        self.body_bytes += other.body_bytes;
        self.lag_ns.add(&other.lag_ns).expect("invariant: equal bounds");
        self.unsent += other.unsent;
        self.tls_full += other.tls_full;
        self.tls_resumed += other.tls_resumed;
        self.failures.iter_mut().zip(&other.failures).for_each(|(mine, n)| *mine += n);
        for (status, n) in &other.statuses {
            *self.statuses.entry(*status).or_default() += n;
        }
        for (kind, note) in &other.notes {
            self.notes.entry(kind).or_insert_with(|| note.clone());
        }
    }

    /// Requests sent on an accepted connection that got no right response.
    pub fn lost(&self) -> u64 {
        let sent = Failure::ALL.iter().filter(|f| !f.before_sending());
        sent.map(|f| self.failures[*f as usize]).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn refusals_are_not_losses() {
        let mut tally = Tally::new(0, mpsc::channel().0);
        tally.fail(Failure::Refused, || "first".into());
        tally.fail(Failure::Refused, || "second".into());
        tally.fail(Failure::Short, String::new);
        assert_eq!(tally.lost(), 1);
        assert_eq!(tally.failures[Failure::Refused as usize], 2);
        assert_eq!(tally.notes["refused"], "first");
    }

    #[test]
    fn late_responses_count_towards_latency_and_not_the_rate() {
        let (sender, receiver) = mpsc::channel();
        let mut tally = Tally::new(0, sender);
        tally.window_end_ns = 100;
        tally.succeed(100, 5, 1);
        tally.roll(0);
        tally.succeed(101, 7, 1);
        assert_eq!((tally.succeeded, tally.late, tally.body_bytes), (1, 1, 1));
        tally.roll(3);
        tally.close();
        let intervals: Vec<_> = receiver.try_iter().collect();
        let found: Vec<_> = intervals.iter().map(|i| (i.index, i.latency_ns.len())).collect();
        assert_eq!(found, [(0, 2), (3, 0)]);
    }
}
