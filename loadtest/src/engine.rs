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

#[cfg(test)]
mod tests {
    use socket2::SockAddr;

    use super::*;
    use crate::client::Plan;

    const BODY_BYTES: u64 = 3 * 1024 * 1024 + 17;

    /// Loads an origin in the same process; `change` makes the plan differ from the usual.
    fn load(port: u16, body_bytes: u64, change: impl FnOnce(&mut Plan)) -> Value {
        let address = SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        let mut engine = Engine::new(false, false).expect("io_uring works here");
        let mut origin = Origin::listen(&address, body_bytes).expect("the port is free");
        let mut plan = Plan {
            target: Box::leak(Box::new(address)),
            requests: vec![b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"],
            connections: 8,
            new_connections: false,
            rate: None,
            status: 200,
            body_bytes: Some(body_bytes),
            timeout_ns: 5_000_000_000,
        };
        change(&mut plan);
        let course = Course {
            warmup_ns: 0,
            window_ns: 20_000_000_000,
            requests: Some(100),
            watch: vec![std::process::id()],
        };
        let mut client = Client::new(plan, engine.now_ns(), true, course.requests);
        engine.run(&mut client, Some(&mut origin), &course).expect("the ring works")
    }

    fn assert_all_right(report: &Value) {
        let load = &report["load"];
        assert_eq!((&load["succeeded"], &load["lost"]), (&json!(100), &json!(0)), "{report}");
        assert_eq!(report["origin_served"], 100);
    }

    #[test]
    fn kept_connections_with_a_body_of_many_sends() {
        assert_all_right(&load(17_101, BODY_BYTES, |_| {}));
    }

    #[test]
    fn new_connections() {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_all_right(&load(17_102, BODY_BYTES, |plan| {
            plan.requests = vec![request];
            plan.new_connections = true;
        }));
    }

    #[test]
    fn paced_posts() {
        let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n".to_vec();
        request.resize(request.len() + 300_000, b'x');
        assert_all_right(&load(17_103, 0, |plan| {
            plan.requests = vec![request.leak()];
            plan.rate = Some(1000.0);
        }));
    }

    #[test]
    fn wrong_lengths_and_statuses_are_lost() {
        let short = load(17_104, 5, |plan| plan.body_bytes = Some(6));
        assert_eq!(short["load"]["failures"]["length"], 100);
        let status = load(17_105, 5, |plan| plan.status = 201);
        assert_eq!(status["load"]["failures"]["status"], 100);
        assert_eq!(status["load"]["lost"], 100);
    }

    #[test]
    fn a_missing_listener_refuses() {
        let nobody = SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 17_107)));
        let report = load(17_106, 5, |plan| {
            plan.target = Box::leak(Box::new(nobody));
            plan.rate = Some(10_000.0);
        });
        assert_eq!(report["load"]["failures"]["refused"], 100);
        assert_eq!(report["load"]["lost"], 0);
    }
}
