//! The loop: one thread, one ring, both halves.
//!
//! A run goes through warm-up, the measured window, and a tail in which requests in flight may
//! still finish. CPU time, of this thread and of watched processes, is read at the window's ends.

use std::io;
use std::time::Instant;

use io_uring::types::Timespec;
use serde_json::{Value, json};

use crate::client::Client;
use crate::origin::Origin;
use crate::report::ProcessCpu;
use crate::ring::{Buffers, Completion, Key, Op, Ring, Side, thread_cpu_ns};

/// Few enough to stay in the cache, large enough that a bulk body takes few turns.
const BUFFER_COUNT: u16 = 512;
const BUFFER_BYTES: u32 = 16 * 1024;

/// Longest wait for requests in flight after the window, besides their own timeout.
const TAIL_NS: u64 = 60_000_000_000;

/// How long a run lasts and what is read beside it.
pub struct Course {
    /// Load before the measurement, nanoseconds.
    pub warmup_ns: u64,
    /// Length of the measured window; with `requests`, its upper bound.
    pub window_ns: u64,
    /// Ends the window after exactly this many requests.
    pub requests: Option<u64>,
    /// Processes whose CPU time is read.
    pub watch: Vec<u32>,
}

/// CPU time at one moment.
struct Reading {
    at_ns: u64,
    own: (u64, u64),
    idle_ns: u64,
    watched: Vec<ProcessCpu>,
}

/// Where a run is.
enum Stage {
    Warmup,
    Window(Reading),
    Tail,
}

/// The thread's ring, its buffers and its clock.
pub struct Engine {
    // Before the buffers: the kernel must let go of them first.
    ring: Ring,
    buffers: Buffers,
    epoch: Instant,
    done: Vec<Completion>,
    spin: bool,
    /// Time in turns that brought nothing (only when spinning).
    idle_ns: u64,
}

impl Engine {
    /// Builds the ring; `paced` runs tick every millisecond, others less often.
    pub fn new(spin: bool, paced: bool) -> io::Result<Self> {
        let mut ring = Ring::new()?;
        let buffers = Buffers::register(&ring, BUFFER_COUNT, BUFFER_BYTES)?;
        let period = Timespec::new().nsec(if paced { 1_000_000 } else { 5_000_000 });
        let key = Key { side: Side::Client, index: u32::MAX, generation: 0 };
        ring.tick(Box::leak(Box::new(period)), key)?;
        let done = Vec::with_capacity(16 * 1024);
        Ok(Self { ring, buffers, epoch: Instant::now(), done, spin, idle_ns: 0 })
    }

    /// Nanoseconds since the engine was built.
    pub fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Answers requests until the process is killed.
    pub fn serve(&mut self, origin: &mut Origin) -> io::Result<()> {
        origin.start(&mut self.ring)?;
        loop {
            self.turn(None, Some(origin))?;
        }
    }

    /// Runs a whole course and returns its report.
    pub fn run(
        &mut self,
        client: &mut Client,
        mut origin: Option<&mut Origin>,
        course: &Course,
    ) -> io::Result<Value> {
        if let Some(origin) = &origin {
            origin.start(&mut self.ring)?;
        }
        let warmup_end_ns = self.now_ns() + course.warmup_ns;
        let mut stage = Stage::Warmup;
        let mut report = Value::Null;
        let mut tail_end_ns = u64::MAX;
        loop {
            let now_ns = self.turn(Some(&mut *client), origin.as_deref_mut())?;
            match stage {
                Stage::Warmup if now_ns >= warmup_end_ns => {
                    let reading = self.read(course)?;
                    if !client.counting {
                        client.counting = true;
                        client.budget = course.requests;
                    }
                    if course.requests.is_none() {
                        client.tally.window_end_ns = reading.at_ns + course.window_ns;
                    }
                    stage = Stage::Window(reading);
                }
                Stage::Window(ref start)
                    if now_ns >= start.at_ns + course.window_ns
                        || client.budget == Some(0) && client.in_flight == 0 =>
                {
                    let end = self.read(course)?;
                    client.budget = Some(0);
                    report = between(start, &end, client.tally.succeeded);
                    client.tally.window_end_ns = end.at_ns;
                    tail_end_ns = end.at_ns + TAIL_NS;
                    stage = Stage::Tail;
                }
                Stage::Tail if client.in_flight == 0 || now_ns > tail_end_ns => break,
                _ => {}
            }
        }
        let window_ns = report["window_ns"].as_u64().unwrap_or(0);
        report["load"] = client.tally.json(window_ns);
        report["connections_open"] = json!(client.open());
        report["origin_served"] = json!(origin.map(|o| o.served));
        Ok(report)
    }

    /// One turn of the loop; returns the time it began.
    fn turn(
        &mut self,
        mut client: Option<&mut Client>,
        mut origin: Option<&mut Origin>,
    ) -> io::Result<u64> {
        let before_ns = if self.spin { self.now_ns() } else { 0 };
        self.ring.turn(self.spin, &mut self.done)?;
        let now_ns = self.now_ns();
        if self.done.is_empty() {
            self.idle_ns += now_ns - before_ns;
        }
        for done in self.done.drain(..) {
            let bytes = match done.buffer {
                Some(id) if done.result > 0 => self.buffers.bytes(id, done.result as usize),
                _ => &[],
            };
            match (done.op, done.key.side, &mut client, &mut origin) {
                (Op::Tick, _, Some(client), _) => client.tick(&mut self.ring, now_ns)?,
                (Op::Tick, ..) => {}
                (_, Side::Client, Some(client), _) => {
                    client.handle(&mut self.ring, done, bytes, now_ns)?;
                }
                (_, Side::Origin, _, Some(origin)) => {
                    origin.handle(&mut self.ring, done, bytes)?;
                }
                _ => {}
            }
            if let Some(id) = done.buffer {
                self.buffers.give_back(id);
            }
        }
        Ok(now_ns)
    }

    fn read(&self, course: &Course) -> io::Result<Reading> {
        let watched =
            course.watch.iter().map(|pid| ProcessCpu::read(*pid)).collect::<Result<_, _>>()?;
        Ok(Reading { at_ns: self.now_ns(), own: thread_cpu_ns(), idle_ns: self.idle_ns, watched })
    }
}

/// CPU use between two readings, in total and per request.
fn between(start: &Reading, end: &Reading, requests: u64) -> Value {
    let window_ns = end.at_ns - start.at_ns;
    let (user, system) = (end.own.0 - start.own.0, end.own.1 - start.own.1);
    let idle = end.idle_ns - start.idle_ns;
    let busy = (user + system).saturating_sub(idle);
    let per_request = |ns: u64| ns as f64 / 1e3 / requests.max(1) as f64;
    json!({
        "window_ns": window_ns,
        "own_cpu_us_per_request": per_request(busy),
        "own_busy_share": busy as f64 / window_ns.max(1) as f64,
        "watched": end.watched.iter().zip(&start.watched).map(|(e, s)| e.since(*s))
            .collect::<Vec<_>>(),
    })
}
