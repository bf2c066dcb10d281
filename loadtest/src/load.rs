//! One thread's share of a run, for either driver: which request is next and when, what counts, and
//! where the run is.
//!
//! *Closed loop*: a connection takes its next request when its last response is complete. *Open
//! loop*: request `k` is due when the schedule says; it waits for a free connection if need be, and
//! its latency counts from when it was due, so that a stalled target cannot hide what it delayed.
//! Nothing is queued for that: the backlog is the number of due requests less those begun.
//!
//! A run goes through warm-up, the measured window, and a tail in which requests in flight finish
//! and, in the open loop, those that were due inside the window are still sent, for as long as a
//! request may take. What is unsent then is counted.

use std::io;
use std::sync::mpsc::Sender;

use socket2::SockAddr;

use crate::cpu::ProcessCpu;
use crate::request::{Request, Requests};
use crate::ring::thread_cpu_ns;
use crate::schedule::Schedule;
use crate::tally::{Failure, Interval, TAIL, Tally};
use crate::tls::TlsPlan;

/// Longest wait for requests in flight after the window, besides their own timeout.
const TAIL_NS: u64 = 60_000_000_000;

/// When the next request is sent.
pub enum Pace {
    /// As soon as the connection has its response.
    Closed,
    /// When it is due.
    Open(Schedule),
}

/// What to send, how fast, and to whom.
pub struct Plan {
    /// Where the target listens.
    pub target: SockAddr,
    /// What is sent.
    pub requests: Requests,
    /// Connections kept (closed loop) or at most open (open loop), over all threads.
    pub connections: usize,
    /// One request per connection.
    pub new_connections: bool,
    /// Closed or open loop.
    pub pace: Pace,
    /// A request older than this is lost.
    pub timeout_ns: u64,
    /// TLS, and how.
    pub tls: Option<TlsPlan>,
    /// HTTP/2, with at most this many requests in flight per connection.
    pub streams: Option<usize>,
    /// How long a run lasts and what is read beside it.
    pub course: Course,
}

/// How long a run lasts and what is read beside it.
#[derive(Clone)]
pub struct Course {
    /// Load before the measurement, nanoseconds.
    pub warmup_ns: u64,
    /// Length of the measured window; with `requests`, its upper bound.
    pub window_ns: u64,
    /// Ends the window after exactly this many requests.
    pub requests: Option<u64>,
    /// Length of the intervals of the report, nanoseconds.
    pub interval_ns: u64,
    /// Processes whose CPU time is read.
    pub watch: Vec<u32>,
}

/// Which of how many threads.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Counted from 0.
    pub thread: usize,
    /// At least 1.
    pub threads: usize,
}

impl Share {
    /// This thread's part of `total`.
    pub fn of(self, total: usize) -> usize {
        total / self.threads + usize::from(self.thread < total % self.threads)
    }
}

/// A request begun and not yet judged.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    /// Which of the prepared requests.
    pub request: u32,
    /// When it was due (open loop) or taken, nanoseconds.
    pub started_ns: u64,
    /// It belongs to the measurement.
    pub counted: bool,
}

/// CPU time at one moment.
struct Reading {
    at_ns: u64,
    own: (u64, u64),
    idle_ns: u64,
    watched: Vec<ProcessCpu>,
}

enum Stage {
    Warmup,
    Window(Reading),
    Tail,
}

/// What a thread used over the window.
#[derive(Clone, Default)]
pub struct Used {
    /// Length of the window, nanoseconds.
    pub window_ns: u64,
    /// CPU time of this thread without idle polling, nanoseconds.
    pub busy_ns: u64,
    /// Per watched process.
    pub watched: Vec<serde_json::Value>,
}

/// One thread's share of a run.
pub struct Load {
    /// What is asked of all threads.
    pub plan: &'static Plan,
    /// What was counted.
    pub tally: Tally,
    /// CPU use over the window, once it is over.
    pub used: Used,
    /// Requests begun and not yet judged.
    pub in_flight: usize,
    /// Connections that are open.
    pub open: usize,
    share: Share,
    stage: Stage,
    /// Whether requests begun now belong to the measurement.
    counting: bool,
    /// Requests that may still be started; `None` without bound.
    budget: Option<u64>,
    /// Position in the order of requests.
    next: usize,
    /// Open loop: how many of this thread's requests were begun, and when the next is due.
    begun: u64,
    next_due_ns: u64,
    /// Open loop: requests due before the first belong to the warm-up; none are from the second on.
    window_start_ns: u64,
    due_end_ns: u64,
    tail_end_ns: u64,
    drain_end_ns: u64,
}

impl Load {
    /// The share of one thread; its clock starts now, at 0.
    pub fn new(plan: &'static Plan, share: Share, intervals: Sender<Interval>) -> Self {
        let no_warmup = plan.course.warmup_ns == 0;
        let order = plan.requests.order.len();
        let mut load = Self {
            plan,
            tally: Tally::new(share.thread, intervals),
            used: Used::default(),
            in_flight: 0,
            open: 0,
            share,
            stage: Stage::Warmup,
            counting: no_warmup,
            budget: None,
            next: order * share.thread / share.threads,
            begun: 0,
            next_due_ns: u64::MAX,
            window_start_ns: 0,
            due_end_ns: u64::MAX,
            tail_end_ns: u64::MAX,
            drain_end_ns: u64::MAX,
        };
        if no_warmup {
            load.budget = load.own_budget();
        }
        load.find_next_due();
        load
    }

    fn own_budget(&self) -> Option<u64> {
        self.plan.course.requests.map(|all| self.share.of(all as usize) as u64)
    }

    /// A prepared request.
    pub fn request(&self, flight: &Flight) -> &'static Request {
        &self.plan.requests.all[flight.request as usize]
    }

    /// Whether the open loop is asked for.
    pub fn is_open(&self) -> bool {
        matches!(self.plan.pace, Pace::Open(_))
    }

    /// Nothing more will be begun.
    pub fn is_over(&self) -> bool {
        self.budget == Some(0) || (self.is_open() && self.next_due_ns >= self.due_end_ns)
    }

    /// Open loop: when the next request is due; `u64::MAX` when there is none.
    pub fn next_due_ns(&self) -> u64 {
        if self.is_over() { u64::MAX } else { self.next_due_ns }
    }

    fn find_next_due(&mut self) {
        if let Pace::Open(schedule) = &self.plan.pace {
            let k = self.begun * self.share.threads as u64 + self.share.thread as u64;
            self.next_due_ns = schedule.due_ns(k);
        }
    }

    /// Open loop: requests of this thread that are due at `now_ns` and not begun.
    pub fn backlog(&self, now_ns: u64) -> u64 {
        let Pace::Open(schedule) = &self.plan.pace else { return 0 };
        let now_ns = now_ns.min(self.due_end_ns.saturating_sub(1));
        let (thread, threads) = (self.share.thread as u64, self.share.threads as u64);
        let due = (schedule.due_by(now_ns) + threads - 1).saturating_sub(thread) / threads;
        due.saturating_sub(self.begun)
    }

    /// Closed loop: begins the next request; `None` when no more may be begun.
    pub fn take(&mut self, now_ns: u64) -> Option<Flight> {
        self.begin(now_ns, self.counting)
    }

    /// Open loop: begins the next request if it is due.
    pub fn take_due(&mut self, now_ns: u64) -> Option<Flight> {
        let due_ns = self.next_due_ns;
        if due_ns > now_ns || self.is_over() {
            return None;
        }
        let flight = self.begin(due_ns, self.counting && due_ns >= self.window_start_ns)?;
        self.begun += 1;
        self.find_next_due();
        Some(flight)
    }

    /// Open loop: a connection was waiting for this request, which is sent at `now_ns`.
    pub fn note_lag(&mut self, flight: &Flight, now_ns: u64) {
        if flight.counted {
            self.tally.lag_ns.saturating_record(now_ns.saturating_sub(flight.started_ns));
        }
    }

    fn begin(&mut self, started_ns: u64, counted: bool) -> Option<Flight> {
        match &mut self.budget {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None => {}
        }
        let request = self.plan.requests.order[self.next];
        self.next += 1;
        if self.next == self.plan.requests.order.len() {
            self.next = 0;
        }
        self.in_flight += 1;
        self.tally.started += u64::from(counted);
        Some(Flight { request, started_ns, counted })
    }

    /// A complete response came: judges and counts it.
    pub fn finish(
        &mut self,
        flight: &Flight,
        now_ns: u64,
        (status, length, checksum): (u16, u64, Option<u32>),
    ) {
        let expect = &self.request(flight).expect;
        match expect.judge(status, length, checksum) {
            Ok(()) => {
                self.in_flight -= 1;
                if flight.counted {
                    let latency_ns = now_ns.saturating_sub(flight.started_ns);
                    self.tally.succeed(now_ns, latency_ns, length);
                }
            }
            Err(failure) => {
                if failure == Failure::Status && flight.counted {
                    *self.tally.statuses.entry(status).or_default() += 1;
                }
                self.fail(flight, failure, || {
                    format!("status {status}, {length} bytes, CRC-32 {checksum:x?}")
                });
            }
        }
    }

    /// No right response will come.
    pub fn fail(&mut self, flight: &Flight, failure: Failure, note: impl FnOnce() -> String) {
        self.in_flight -= 1;
        if flight.counted {
            self.tally.fail(failure, note);
        }
    }

    /// A connection without a request could not be made.
    pub fn fail_idle(&mut self, failure: Failure, note: impl FnOnce() -> String) {
        if self.counting && failure.before_sending() {
            self.tally.fail(failure, note);
        }
    }

    /// The target ended a connection on which nothing was in flight.
    pub fn note_idle_closed(&mut self) {
        self.tally.idle_closed += u64::from(self.counting);
    }

    /// Counts a TLS handshake.
    pub fn note_handshake(&mut self, resumed: bool) {
        if self.counting {
            self.tally.tls_full += u64::from(!resumed);
            self.tally.tls_resumed += u64::from(resumed);
        }
    }

    /// Moves the run on; call it every few milliseconds. `idle_ns` is the time this thread has
    /// polled for nothing so far. True when the run is over.
    pub fn step(&mut self, now_ns: u64, idle_ns: u64) -> io::Result<bool> {
        let course = &self.plan.course;
        let backlog = self.backlog(now_ns);
        match &self.stage {
            Stage::Warmup if now_ns >= course.warmup_ns => {
                let reading = self.read(now_ns, idle_ns)?;
                if !self.counting {
                    self.counting = true;
                    self.budget = self.own_budget();
                    self.window_start_ns = now_ns;
                }
                if course.requests.is_none() {
                    self.tally.window_end_ns = now_ns + course.window_ns;
                    self.due_end_ns = self.tally.window_end_ns;
                }
                self.stage = Stage::Window(reading);
            }
            Stage::Warmup => {}
            Stage::Window(start) => {
                self.tally.note_backlog(backlog);
                let at = now_ns.min(start.at_ns + course.window_ns - 1);
                self.tally.roll((at - start.at_ns) / course.interval_ns);
                let spent = self.budget == Some(0) && self.in_flight == 0;
                if spent || now_ns >= start.at_ns + course.window_ns {
                    self.end_window(now_ns, idle_ns)?;
                }
            }
            Stage::Tail => return Ok(self.tail_is_over(now_ns, backlog)),
        }
        Ok(false)
    }

    fn end_window(&mut self, now_ns: u64, idle_ns: u64) -> io::Result<()> {
        let end = self.read(now_ns, idle_ns)?;
        if let Stage::Window(start) = &self.stage {
            self.used = start.until(&end);
        }
        self.tally.window_end_ns = now_ns;
        self.tally.roll(TAIL);
        self.tail_end_ns = now_ns + TAIL_NS + self.plan.timeout_ns;
        self.drain_end_ns = now_ns + self.plan.timeout_ns;
        if !self.is_open() || self.plan.course.requests.is_some() {
            self.budget = Some(0);
        }
        self.stage = Stage::Tail;
        Ok(())
    }

    fn tail_is_over(&mut self, now_ns: u64, backlog: u64) -> bool {
        if now_ns > self.drain_end_ns && !self.is_over() {
            self.tally.unsent = backlog;
            self.budget = Some(0);
        }
        let over = self.is_over() && self.in_flight == 0 || now_ns > self.tail_end_ns;
        if over {
            self.tally.close();
        }
        over
    }

    fn read(&self, at_ns: u64, idle_ns: u64) -> io::Result<Reading> {
        let watch = if self.share.thread == 0 { &self.plan.course.watch[..] } else { &[] };
        let watched = watch.iter().map(|pid| {
            ProcessCpu::read(*pid)
                .map_err(|e| io::Error::other(format!("cannot watch process {pid}: {e}")))
        });
        let watched = watched.collect::<Result<_, _>>()?;
        Ok(Reading { at_ns, own: thread_cpu_ns(), idle_ns, watched })
    }
}

impl Reading {
    fn until(&self, end: &Self) -> Used {
        let own = (end.own.0 - self.own.0) + (end.own.1 - self.own.1);
        Used {
            window_ns: end.at_ns - self.at_ns,
            busy_ns: own.saturating_sub(end.idle_ns - self.idle_ns),
            watched: end.watched.iter().zip(&self.watched).map(|(e, s)| e.since(*s)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::request::{Frame, Template};

    fn plan(pace: Pace, course: Course) -> &'static Plan {
        let template = Template::get("/");
        let frame = Frame { host: "a", tls: false, close: false };
        Box::leak(Box::new(Plan {
            target: SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1))),
            requests: Requests::prepare(&[template], &frame).unwrap(),
            connections: 1,
            new_connections: false,
            pace,
            timeout_ns: 2_000_000_000,
            tls: None,
            streams: None,
            course,
        }))
    }

    fn course(warmup_s: u64, window_s: u64, requests: Option<u64>) -> Course {
        let ns = 1_000_000_000;
        let (warmup_ns, window_ns) = (warmup_s * ns, window_s * ns);
        Course { warmup_ns, window_ns, requests, interval_ns: ns, watch: Vec::new() }
    }

    /// Threads together begin every request of the schedule once, at its time.
    #[test]
    fn threads_share_the_schedule() {
        let plan = plan(Pace::Open(Schedule::constant(1000.0)), course(0, 10, None));
        let mut due: Vec<u64> = Vec::new();
        for thread in 0..3 {
            let mut load = Load::new(plan, Share { thread, threads: 3 }, mpsc::channel().0);
            load.step(0, 0).unwrap();
            assert!(load.take_due(0).is_some() == (thread == 0));
            due.extend((thread == 0).then_some(0));
            assert!([33, 34].contains(&(load.backlog(100_000_000) + u64::from(thread == 0))));
            while let Some(flight) = load.take_due(100_000_000) {
                due.push(flight.started_ns / 1000);
            }
            assert_eq!(load.backlog(100_000_000), 0);
        }
        due.sort_unstable();
        assert_eq!(due, (0..=100).map(|k| k * 1000).collect::<Vec<u64>>());
    }

    /// What was due in the window is sent after it, for as long as a request may take.
    #[test]
    fn the_backlog_is_sent_or_counted() {
        let s = 1_000_000_000;
        let plan = plan(Pace::Open(Schedule::constant(10.0)), course(1, 1, None));
        let (sender, receiver) = mpsc::channel();
        let mut load = Load::new(plan, Share { thread: 0, threads: 1 }, sender);
        for now_ns in [0, s, 2 * s] {
            assert!(!load.step(now_ns, 0).unwrap());
        }
        // Due from 0 to 1.9 s; the first ten belong to the warm-up.
        for k in 0..15 {
            let flight = load.take_due(3 * s).unwrap();
            assert_eq!((flight.started_ns, flight.counted), (k * s / 10, k >= 10));
            load.finish(&flight, 3 * s, (200, 0, None));
        }
        assert!(!load.step(3 * s, 0).unwrap());
        assert!(load.step(4 * s + 1, 0).unwrap());
        assert_eq!((load.tally.unsent, load.tally.late, load.tally.started), (5, 5, 5));
        assert!(load.take_due(5 * s).is_none());
        let latencies: u64 = receiver.try_iter().map(|i| i.latency_ns.len()).sum();
        assert_eq!(latencies, 5);
    }

    #[test]
    fn a_budget_ends_the_window() {
        let plan = plan(Pace::Closed, course(0, 100, Some(3)));
        let mut loads: Vec<_> = (0..2)
            .map(|thread| Load::new(plan, Share { thread, threads: 2 }, mpsc::channel().0))
            .collect();
        for (load, budget) in loads.iter_mut().zip([2, 1]) {
            load.step(0, 0).unwrap();
            for _ in 0..budget {
                let flight = load.take(1).unwrap();
                assert!(!load.step(5, 0).unwrap());
                load.finish(&flight, 10, (200, 0, None));
            }
            assert!(load.take(11).is_none());
            assert!(!load.step(20, 0).unwrap());
            assert!(load.step(20, 0).unwrap());
            assert_eq!((load.tally.succeeded, load.used.window_ns), (budget, 20));
        }
    }
}
