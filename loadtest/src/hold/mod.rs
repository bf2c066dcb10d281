//! `loadtest hold`: keeps many WebSockets and event streams open and says how they fare.
//!
//! Each held connection is a task. An echo's latency counts from when its message was due, so a
//! target that stalls is seen by every socket that had something to say meanwhile. What is held is
//! bounded by the flags; failed connections are counted and not opened again.

mod events;
mod websocket;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use socket2::SockAddr;

use crate::flags::{Target, seconds};
use crate::mix::duration_ns;
use crate::report::{hdr_base64, percentiles_us};
use crate::ring::thread_cpu_ns;
use crate::tally::{Failure, histogram};
use crate::task;
use crate::task::connect::{Connector, Refused};
use crate::tls::TlsPlan;

/// Longest wait for held connections to end.
const END: Duration = Duration::from_secs(2);

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # A thousand WebSockets, each with an echo a second
  loadtest hold --target 127.0.0.1:8080 --websocket 1000 --echo-every 1s
  # The same, silent, with five hundred event streams beside them
  loadtest hold --target 127.0.0.1:8080 --websocket 1000 --sse 500 --duration 60 --json -";

/// Flags of `loadtest hold`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    #[command(flatten)]
    target: Target,
    /// WebSockets to hold
    #[arg(long, default_value_t = 0)]
    websocket: usize,
    /// Send a message on each WebSocket this often, and expect it back; without it they are silent
    #[arg(long, value_parser = duration_ns, value_name = "DURATION")]
    echo_every: Option<u64>,
    /// Bytes of each message
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1_048_576))]
    message: u32,
    /// Event streams to hold
    #[arg(long, default_value_t = 0)]
    sse: usize,
    /// Path to ask for
    #[arg(long, default_value = "/")]
    path: String,
    /// Connections opened per second
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    open_rate: u32,
    /// Seconds to hold, counted from when the last is to be opened
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    duration: f64,
    /// Seconds until a connection that does not open, or a message that does not come back, fails
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    timeout: f64,
    /// Write the report as JSON to this file, "-" for standard output
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What is counted of one kind of connection.
struct Held {
    opened: u64,
    /// Tasks not yet done.
    running: u64,
    /// Ended by the target before the end.
    closed: u64,
    sent: u64,
    /// Messages or events received.
    received: u64,
    wrong: u64,
    /// Echo latency, or the gap between events.
    time_ns: Histogram<u64>,
    failures: BTreeMap<&'static str, u64>,
    first_failures: BTreeMap<&'static str, String>,
}

impl Held {
    fn new() -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            opened: 0,
            running: 0,
            closed: 0,
            sent: 0,
            received: 0,
            wrong: 0,
            time_ns: histogram(),
            failures: BTreeMap::new(),
            first_failures: BTreeMap::new(),
        }))
    }

    fn fail(&mut self, (failure, note): Refused) {
        *self.failures.entry(failure.name()).or_default() += 1;
        self.first_failures.entry(failure.name()).or_insert(note);
    }

    /// One was ended by the target.
    fn end_early(&mut self, refused: Refused) {
        self.closed += 1;
        self.fail(refused);
    }

    fn json(&self, wanted: usize) -> Value {
        json!({
            "wanted": wanted,
            "opened": self.opened,
            "open_at_end": self.opened - self.closed,
            "closed_early": self.closed,
            "sent": self.sent,
            "received": self.received,
            "wrong": self.wrong,
            "failures": self.failures,
            "first_failures": self.first_failures,
            "time_us": percentiles_us(&self.time_ns),
            "time_hdr_v2_base64": hdr_base64(&self.time_ns),
        })
    }
}

/// What every held connection knows.
struct Plan {
    target: SockAddr,
    tls: Option<TlsPlan>,
    host: String,
    path: String,
    message: usize,
    echo_every: Option<Duration>,
    timeout: Duration,
    /// When all of them end.
    end: Instant,
}

impl Plan {
    fn connector(&'static self) -> Connector {
        Connector::new(&self.target, self.tls.as_ref(), false)
    }
}

impl Flags {
    /// Holds, then prints the report.
    pub fn run(self) -> io::Result<()> {
        let wrong = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
        if self.websocket + self.sse == 0 {
            return Err(wrong("nothing to hold: say --websocket N, --sse N, or both".to_owned()));
        }
        let report = self.hold().map_err(wrong)??;
        match &self.json {
            Some(path) if path.as_os_str() == "-" => println!("{report}"),
            Some(path) => fs::write(path, report.to_string())?,
            None => println!("{}", text(&report)),
        }
        Ok(())
    }

    fn hold(&self) -> Result<io::Result<Value>, String> {
        let opening = Duration::from_secs(1) / self.open_rate;
        let all = self.websocket + self.sse;
        let begun = Instant::now();
        let end = begun + opening * all as u32 + Duration::from_secs_f64(self.duration);
        let plan: &'static Plan = Box::leak(Box::new(Plan {
            target: self.target.target.clone(),
            tls: self.target.tls_plan(false)?,
            host: self.target.host.clone(),
            path: self.path.clone(),
            message: self.message as usize,
            echo_every: self.echo_every.map(Duration::from_nanos),
            timeout: Duration::from_secs_f64(self.timeout),
            end,
        }));
        let (sockets, streams) = (Held::new(), Held::new());
        Ok(task::runtime().map(|mut runtime| {
            runtime.block_on(async {
                for index in 0..all {
                    let at = begun + opening * index as u32;
                    if index < self.websocket {
                        run(&sockets, websocket::hold(plan, at, sockets.clone()));
                    } else {
                        run(&streams, events::hold(plan, at, streams.clone()));
                    }
                }
                monoio::time::sleep(end.saturating_duration_since(Instant::now())).await;
                let late = Instant::now() + END;
                // Messages on their way still count.
                while Instant::now() < late
                    && sockets.borrow().running + streams.borrow().running > 0
                {
                    monoio::time::sleep(Duration::from_millis(5)).await;
                }
                let cpu = thread_cpu_ns();
                json!({
                    "seconds": begun.elapsed().as_secs_f64(),
                    "own_cpu_s": (cpu.0 + cpu.1) as f64 / 1e9,
                    "websocket": sockets.borrow().json(self.websocket),
                    "sse": streams.borrow().json(self.sse),
                })
            })
        }))
    }
}

/// Starts a task that `held` counts while it runs.
fn run(held: &Rc<RefCell<Held>>, task: impl Future<Output = ()> + 'static) {
    held.borrow_mut().running += 1;
    let held = held.clone();
    drop(monoio::spawn(async move {
        task.await;
        held.borrow_mut().running -= 1;
    }));
}

fn text(report: &Value) -> String {
    let mut lines = Vec::new();
    for (name, key, what, time) in [
        ("WebSockets", "websocket", "echoes", "echo latency"),
        ("event streams", "sse", "events", "time between events"),
    ] {
        let held = &report[key];
        if held["wanted"] == 0 {
            continue;
        }
        lines.push(format!(
            "{name}: {} of {} opened, {} open at the end, {} ended early; {} {what}, {} wrong",
            held["opened"],
            held["wanted"],
            held["open_at_end"],
            held["closed_early"],
            held["received"],
            held["wrong"],
        ));
        let ms = |q: &str| held["time_us"][q].as_f64().unwrap_or(0.0) / 1e3;
        lines.push(format!(
            "  {time}, ms: p50 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3}",
            ms("p50"),
            ms("p99"),
            ms("p999"),
            ms("max")
        ));
        for (kind, count) in held["failures"].as_object().into_iter().flatten() {
            let first = held["first_failures"][kind].as_str().unwrap_or("");
            lines.push(format!("  failed: {kind} {count} (first: {first})"));
        }
    }
    lines.join("\n")
}

/// Runs `future` for at most the plan's timeout.
async fn in_time<T>(
    plan: &Plan,
    what: &str,
    future: impl Future<Output = Result<T, Refused>>,
) -> Result<T, Refused> {
    let late = || Err((Failure::Timeout, format!("{what} in {:?}", plan.timeout)));
    monoio::time::timeout(plan.timeout, future).await.unwrap_or_else(|_| late())
}
