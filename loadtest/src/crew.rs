//! The threads of a run: each with a driver of its own, nothing shared but the plan, and the
//! results of all merged at the end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Instant;

use serde_json::Value;
use socket2::SockAddr;

use crate::client::Client;
use crate::collect::{self, Wanted};
use crate::cpu;
use crate::engine::Engine;
use crate::load::{Load, Plan, Share, Used};
use crate::origin::Origin;
use crate::report::{self, Outcome};
use crate::tally::{Interval, Tally};
use crate::task;

/// What sends the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Driver {
    /// The hand-made engine on io_uring: cleartext HTTP/1.1.
    Ring,
    /// Tasks on monoio: TLS, HTTP/2, and HTTP/1.1 too.
    Task,
}

impl Driver {
    fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Task => "task",
        }
    }
}

/// How a plan is carried out.
#[derive(Default)]
pub struct Orders {
    /// At least 1.
    pub threads: usize,
    /// Cores, taken in turn by the threads.
    pub pin: Vec<usize>,
    /// Poll the ring instead of sleeping.
    pub spin: bool,
    /// `None` takes the cheapest that can.
    pub driver: Option<Driver>,
    /// Also answer: one listener per thread.
    pub origins: Vec<Origin>,
    /// Where to write the HDR log.
    pub hdr_log: Option<PathBuf>,
    /// A line per interval to standard error.
    pub progress: Option<bool>,
}

/// What one thread brings back.
struct Work {
    tally: Tally,
    used: Used,
    open: usize,
    served: Option<u64>,
}

/// Listens for an embedded origin on each of `threads` threads.
pub fn listen(address: &SockAddr, body_bytes: u64, threads: usize) -> io::Result<Vec<Origin>> {
    let first = Origin::listen(address, body_bytes)?;
    let bound = first.address()?;
    let mut origins = vec![first];
    // A Unix socket has one listener, which one thread serves.
    while !bound.is_unix() && origins.len() < threads {
        origins.push(Origin::listen(&bound, body_bytes)?);
    }
    Ok(origins)
}

/// Runs the plan; returns the report.
pub fn run(plan: &'static Plan, mut orders: Orders) -> io::Result<Value> {
    let driver = choose(plan, &orders)?;
    let (sender, receiver) = mpsc::channel();
    let epoch = Instant::now();
    let mut origins = std::mem::take(&mut orders.origins).into_iter();
    let mut threads = Vec::new();
    let running = Arc::new(AtomicUsize::new(orders.threads));
    for thread in 0..orders.threads {
        let share = Share { thread, threads: orders.threads };
        let core = orders.pin.get(thread % orders.pin.len().max(1)).copied();
        let (spin, origin, sender) = (orders.spin, origins.next(), sender.clone());
        let running = running.clone();
        let work = move || {
            if let Some(core) = core {
                cpu::pin(core)?;
            }
            match driver {
                Driver::Ring => ring(plan, share, origin, &Ways { spin, epoch, running }, sender),
                Driver::Task => {
                    let (tally, used, open) = task::run(plan, share, sender, epoch)?;
                    Ok(Work { tally, used, open, served: None })
                }
            }
        };
        threads.push(thread::Builder::new().name(format!("load-{thread}")).spawn(work)?);
    }
    drop(sender);
    let wanted = Wanted {
        hdr_log: orders.hdr_log,
        progress: orders.progress,
        threads: orders.threads,
        interval_ns: plan.course.interval_ns,
        warmup_ns: plan.course.warmup_ns,
        pace: &plan.pace,
    };
    let collected = collect::collect(&receiver, &wanted);
    let mut works = Vec::new();
    for thread in threads {
        works.push(thread.join().map_err(|_| io::Error::other("a load thread panicked"))??);
    }
    let mut outcome = Outcome {
        tally: Tally::new(0, mpsc::channel().0),
        collected: collected?,
        used: Vec::new(),
        open: 0,
        served: None,
        driver: driver.name(),
    };
    for work in works {
        outcome.tally.add(&work.tally);
        outcome.used.push(work.used);
        outcome.open += work.open;
        outcome.served = work.served.map(|n| n + outcome.served.unwrap_or(0)).or(outcome.served);
    }
    Ok(report::json(plan, &outcome))
}

fn choose(plan: &Plan, orders: &Orders) -> io::Result<Driver> {
    let needed = plan.tls.is_some() || plan.streams.is_some();
    let fault = match orders.driver {
        Some(Driver::Ring) if needed => {
            "--driver ring speaks cleartext HTTP/1.1 only: leave it out"
        }
        Some(Driver::Task) if !orders.origins.is_empty() => {
            "--origin needs --driver ring: start `loadtest origin` instead"
        }
        None if needed && !orders.origins.is_empty() => {
            "--origin goes with cleartext HTTP/1.1 only: start `loadtest origin` instead"
        }
        Some(Driver::Task) if orders.spin => "--spin needs --driver ring: leave one of them out",
        None if needed && orders.spin => "--spin goes with cleartext HTTP/1.1 only: leave it out",
        Some(driver) => return Ok(driver),
        None if needed => return Ok(Driver::Task),
        None => return Ok(Driver::Ring),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, fault))
}

/// How the engine of a thread runs.
struct Ways {
    spin: bool,
    epoch: Instant,
    /// Threads whose load is not over.
    running: Arc<AtomicUsize>,
}

fn ring(
    plan: &'static Plan,
    share: Share,
    mut origin: Option<Origin>,
    ways: &Ways,
    intervals: Sender<Interval>,
) -> io::Result<Work> {
    let mut engine = Engine::new(ways.spin, ways.epoch)?;
    let load = Load::new(plan, share, intervals);
    let mut client = Client::new(load, share.of(plan.connections));
    engine.run(&mut client, origin.as_mut(), &ways.running)?;
    let load = client.load;
    let served = origin.map(|origin| origin.served);
    Ok(Work { tally: load.tally, used: load.used, open: load.open, served })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::load::{Course, Pace};
    use crate::request::{Expect, Frame, Requests, Template};
    use crate::schedule::Schedule;

    const BODY_BYTES: u64 = 3 * 1024 * 1024 + 17;

    /// What a test changes of the usual.
    struct Case {
        template: Template,
        body_bytes: u64,
        new_connections: bool,
        pace: Pace,
        orders: Orders,
        nobody_listens: bool,
        think_ns: u64,
    }

    /// 100 requests over 8 connections to an origin in the same process.
    fn load(change: impl FnOnce(&mut Case)) -> Value {
        let mut case = Case {
            template: Template::get("/"),
            body_bytes: BODY_BYTES,
            new_connections: false,
            pace: Pace::Closed,
            orders: Orders { threads: 1, progress: Some(false), ..Orders::default() },
            nobody_listens: false,
            think_ns: 0,
        };
        change(&mut case);
        let address = SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        case.orders.origins = listen(&address, case.body_bytes, case.orders.threads).unwrap();
        let mut target = case.orders.origins[0].address().unwrap();
        if case.nobody_listens {
            // Bound and not listening: nobody else can take the port meanwhile.
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            socket.bind(&address).unwrap();
            target = socket.local_addr().unwrap();
            std::mem::forget(socket);
        }
        case.template.think_ns = case.think_ns;
        let frame = Frame { host: "a", tls: false, close: case.new_connections };
        let plan = Plan {
            target,
            requests: Requests::prepare(&[case.template], &frame).unwrap(),
            connections: 8,
            new_connections: case.new_connections,
            pace: case.pace,
            timeout_ns: 5_000_000_000,
            tls: None,
            streams: None,
            course: Course {
                warmup_ns: 0,
                window_ns: 20_000_000_000,
                requests: Some(100),
                interval_ns: 1_000_000_000,
                watch: vec![std::process::id()],
            },
        };
        run(Box::leak(Box::new(plan)), case.orders).unwrap()
    }

    #[track_caller]
    fn assert_all_right(report: &Value) {
        let load = &report["load"];
        assert_eq!((&load["succeeded"], &load["lost"]), (&json!(100), &json!(0)), "{report}");
        assert_eq!(report["origin_served"], 100);
        assert!(load["latency_us"]["p9999"].as_f64() > Some(0.0), "{report}");
        assert_eq!(report["watched"].as_array().map(Vec::len), Some(1));
    }

    fn origin_checksum(case: &mut Case) {
        case.template.expect.length = Some(BODY_BYTES);
        case.template.expect.checksum = Some(crate::body::checksum(BODY_BYTES));
    }

    #[test]
    fn kept_connections_with_a_body_of_many_sends() {
        let report = load(origin_checksum);
        assert_all_right(&report);
        assert_eq!(
            (&report["driver"], &report["loop"], &report["connections_open"]),
            (&json!("ring"), &json!("closed"), &json!(8))
        );
    }

    #[test]
    fn new_connections() {
        assert_all_right(&load(|case| case.new_connections = true));
    }

    #[test]
    fn several_threads_share_connections_and_requests() {
        let report = load(|case| {
            origin_checksum(case);
            case.orders.threads = 3;
            case.orders.pin = vec![0];
        });
        assert_all_right(&report);
        assert_eq!((&report["threads"], &report["connections_open"]), (&json!(3), &json!(8)));
    }

    #[test]
    fn paced_posts() {
        let begun = Instant::now();
        let report = load(|case| {
            case.template.method = http::Method::POST;
            case.template.body = Some((300_000, 300_000));
            case.body_bytes = 0;
            case.pace = Pace::Open(Schedule::constant(1000.0));
            case.orders.threads = 2;
        });
        assert_all_right(&report);
        assert_eq!(report["loop"], "open");
        // The last of a hundred at a thousand a second is due after 99 ms.
        assert!(begun.elapsed().as_millis() >= 99, "{report}");
    }

    /// The closed loop pauses after each response: 100 requests over 8 connections, 12 or 13 each.
    #[test]
    fn thinking_takes_time() {
        let report = load(|case| {
            case.body_bytes = 10;
            case.think_ns = 10_000_000;
        });
        assert_all_right(&report);
        assert!(report["window_ns"].as_u64() >= Some(110_000_000), "{report}");
        assert!(report["load"]["latency_us"]["p50"].as_f64() < Some(9000.0), "{report}");
    }

    #[test]
    fn wrong_lengths_statuses_and_checksums_are_lost() {
        for (kind, expect) in [
            ("length", Expect { status: 200, length: Some(6), checksum: None }),
            ("status", Expect { status: 201, length: None, checksum: None }),
            ("checksum", Expect { status: 200, length: Some(5), checksum: Some(1) }),
        ] {
            let report = load(|case| {
                case.body_bytes = 5;
                case.template.expect = expect;
            });
            assert_eq!(report["load"]["failures"][kind], 100, "{report}");
            assert_eq!(report["load"]["lost"], 100);
        }
    }

    #[test]
    fn a_missing_listener_refuses() {
        for driver in [None, Some(Driver::Ring)] {
            let report = load(|case| {
                case.nobody_listens = true;
                case.pace = Pace::Open(Schedule::constant(10_000.0));
                case.orders.driver = driver;
            });
            assert_eq!(report["load"]["failures"]["refused"], 100, "{report}");
            assert_eq!(report["load"]["lost"], 0);
        }
    }
}
