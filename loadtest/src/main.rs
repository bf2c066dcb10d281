//! Load generator and origin for measuring Ringway beside other proxies.
//!
//! `loadtest load` sends requests, `loadtest origin` answers them, and `loadtest forward` stands
//! between them and does nothing, as the floor of what any proxy costs. `load --origin ADDRESS`
//! sends and answers on one thread and one io_uring, cheaply enough that the core it runs on can
//! saturate a proxy on another. HTTP/1.1 with `Content-Length` bodies only.

mod client;
mod engine;
mod forward;
mod http;
mod origin;
mod plot;
mod report;
mod ring;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use socket2::SockAddr;

use crate::client::{Client, Plan};
use crate::engine::{Course, Engine};
use crate::origin::Origin;

#[derive(Parser)]
#[command(about = "Loads a proxy and answers for it", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send requests and report rate, latency, failures and CPU time
    Load(Box<Load>),
    /// Only answer requests, until killed
    Origin {
        /// Where to listen: IP:PORT or unix:PATH
        #[arg(long, value_parser = address)]
        listen: SockAddr,
        /// Bytes of response body
        #[arg(long, default_value_t = 1024)]
        body: u64,
    },
    /// Only pass bytes on, until killed: the least that a proxy can cost
    Forward {
        /// Where to listen: IP:PORT
        #[arg(long)]
        listen: SocketAddr,
        /// Where to connect: IP:PORT
        #[arg(long)]
        to: SocketAddr,
    },
    /// Turn the raw data of scripts/compare into tables and plots
    Report(plot::Report),
}

#[derive(Args)]
struct Load {
    /// The proxy: IP:PORT or unix:PATH
    #[arg(long, value_parser = address)]
    target: SockAddr,
    /// Also be the origin, listening here
    #[arg(long, value_parser = address)]
    origin: Option<SockAddr>,
    /// Bytes of body of that origin's responses
    #[arg(long, default_value_t = 1024)]
    origin_body: u64,
    /// Connections kept, or with --rate at most open
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// One request per connection
    #[arg(long)]
    new_connections: bool,
    /// Requests per second, whatever the proxy does; without it each connection sends its next
    /// request as soon as it has its response
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Requests to measure, instead of --duration
    #[arg(long)]
    requests: Option<u64>,
    /// Seconds of load before measuring
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Host field
    #[arg(long, default_value = "bench.test")]
    host: String,
    /// Path, taken in turn when given more than once
    #[arg(long, default_value = "/")]
    path: Vec<String>,
    /// Replaces `{n}` in each path by 0 to N-1, in scrambled order
    #[arg(long, default_value_t = 1)]
    spread: u64,
    /// Further request field, "Name: value"
    #[arg(long)]
    header: Vec<String>,
    /// POST this many bytes instead of GET
    #[arg(long)]
    post: Option<usize>,
    /// The only right status
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// The only right response length in bytes
    #[arg(long)]
    body: Option<u64>,
    /// Seconds until a request is lost
    #[arg(long, default_value_t = 10.0)]
    timeout: f64,
    /// Never sleep: poll the ring, so that the proxy never pays for waking this process
    #[arg(long)]
    spin: bool,
    /// Process whose CPU time to read over the measured window
    #[arg(long)]
    watch: Vec<u32>,
    /// Write the report as JSON to this file, "-" for standard output
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    match Arguments::parse().command {
        Command::Load(load) => load.run(),
        Command::Origin { listen, body } => {
            Engine::new(false, false)?.serve(&mut Origin::listen(&listen, body)?)
        }
        Command::Forward { listen, to } => forward::run(listen, to),
        Command::Report(report) => report.run(),
    }
}

impl Load {
    fn run(mut self) -> io::Result<()> {
        let mut engine = Engine::new(self.spin, self.rate.is_some())?;
        let mut origin =
            self.origin.as_ref().map(|a| Origin::listen(a, self.origin_body)).transpose()?;
        let ns = |s: f64| (s * 1e9) as u64;
        let course = Course {
            warmup_ns: ns(self.warmup),
            window_ns: if self.requests.is_some() { u64::MAX / 4 } else { ns(self.duration) },
            requests: self.requests,
            watch: std::mem::take(&mut self.watch),
        };
        let plan = Plan {
            requests: self.requests_text().into_iter().map(|r| &*r.into_bytes().leak()).collect(),
            target: Box::leak(Box::new(self.target)),
            connections: self.connections,
            new_connections: self.new_connections,
            rate: self.rate,
            status: self.status,
            body_bytes: self.body,
            timeout_ns: ns(self.timeout),
        };
        let mut client = Client::new(plan, engine.now_ns(), course.warmup_ns == 0, course.requests);
        let report = engine.run(&mut client, origin.as_mut(), &course)?;
        match self.json {
            Some(path) if path.as_os_str() == "-" => println!("{report}"),
            Some(path) => fs::write(path, report.to_string())?,
            None => println!("{}", line(&report)),
        }
        Ok(())
    }

    /// Every distinct request, as text.
    fn requests_text(&self) -> Vec<String> {
        let connection = if self.new_connections { "Connection: close\r\n" } else { "" };
        let fields: String = self.header.iter().map(|h| format!("{h}\r\n")).collect();
        let (method, length, body) = match self.post {
            Some(n) => ("POST", format!("Content-Length: {n}\r\n"), "x".repeat(n)),
            None => ("GET", String::new(), String::new()),
        };
        // Stepping by a prime visits every number once (unless it divides the count).
        let numbers = (0..self.spread).map(|i| i * 7919 % self.spread);
        numbers
            .flat_map(|n| self.path.iter().map(move |p| p.replace("{n}", &n.to_string())))
            .map(|path| {
                let host = &self.host;
                format!(
                    "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{fields}{connection}\r\n{body}"
                )
            })
            .collect()
    }
}

/// The report in one line for people.
fn line(report: &Value) -> String {
    let load = &report["load"];
    let latency = &load["latency_us"];
    let f = |v: &Value| v.as_f64().unwrap_or(0.0);
    let failures: Vec<String> = load["failures"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, n)| n.as_u64() != Some(0))
        .map(|(kind, n)| format!("{kind} {n}"))
        .collect();
    format!(
        "{:.0} requests/s, p50 {:.0} p90 {:.0} p99 {:.0} p99.9 {:.0} us, {} right, {} lost ({}), \
         own CPU {:.2} us/request ({:.0} % busy)",
        f(&load["requests_per_s"]),
        f(&latency["p50"]),
        f(&latency["p90"]),
        f(&latency["p99"]),
        f(&latency["p999"]),
        load["succeeded"],
        load["lost"],
        if failures.is_empty() { "no failures".to_owned() } else { failures.join(", ") },
        f(&report["own_cpu_us_per_request"]),
        f(&report["own_busy_share"]) * 100.0,
    )
}

/// Reads IP:PORT or unix:PATH.
fn address(text: &str) -> Result<SockAddr, String> {
    match text.strip_prefix("unix:") {
        Some(path) => SockAddr::unix(path).map_err(|e| e.to_string()),
        None => text.parse::<SocketAddr>().map(SockAddr::from).map_err(|e| e.to_string()),
    }
}
