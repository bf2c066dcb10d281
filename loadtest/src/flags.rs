//! The flags of `loadtest load`, and the plan they make.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use http::Method;
use socket2::SockAddr;

use crate::collect::INTERVALS_MAX;
use crate::crew::{self, Driver, Orders};
use crate::load::{Course, Pace, Plan};
use crate::mix::{self, duration_ns};
use crate::report;
use crate::request::{Expect, Frame, Requests, Template};
use crate::schedule::{self, Ramp, Schedule, Step};
use crate::tls::{TlsPlan, Trust, Wanted};

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # As fast as 64 connections go, for 10 s
  loadtest load --target 127.0.0.1:8080
  # 5,000 requests a second whatever the target does, two threads on cores 2 and 3
  loadtest load --target 127.0.0.1:8080 --rate 5000 --threads 2 --pin 2,3
  # Where does latency rise?
  loadtest load --target 127.0.0.1:8080 --steps 1000x10,2000x10,4000x10 --hdr-log run.hlog
  # HTTP/2 over TLS, 8 connections with 32 requests each in flight
  loadtest load --target 127.0.0.1:8443 --tls --ca ca.pem --sni localhost --http2 --streams 32 \\
    --connections 8
  # TLS handshakes resumed
  loadtest load --target 127.0.0.1:8443 --tls --insecure --new-connections --resume on
  # A mix of requests from a file, as JSON
  loadtest load --target 127.0.0.1:8080 --mix mix.toml --json -";

/// Reads IP:PORT or unix:PATH.
pub fn address(text: &str) -> Result<SockAddr, String> {
    match text.strip_prefix("unix:") {
        Some(path) => SockAddr::unix(path).map_err(|e| e.to_string()),
        None => text
            .parse::<SocketAddr>()
            .map(SockAddr::from)
            .map_err(|_| "write IP:PORT, such as 127.0.0.1:8080, or unix:PATH".to_owned()),
    }
}

/// Reads a positive number of seconds, at most a week.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=604_800.0).contains(&seconds) => Ok(seconds),
        _ => Err("write seconds, such as 10 or 0.5".to_owned()),
    }
}

/// What is loaded, over how many connections, and how TLS is spoken: also the flags of `hold`.
#[derive(Args)]
pub struct Target {
    /// What to load: IP:PORT or unix:PATH
    #[arg(long, value_parser = address)]
    pub target: SockAddr,
    /// Host field, :authority, and the server name unless --sni is given
    #[arg(long, default_value = "bench.test")]
    pub host: String,
    /// Speak TLS
    #[arg(long)]
    pub tls: bool,
    /// Believe certificates issued by those in this PEM file
    #[arg(long, requires = "tls", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Believe every certificate
    #[arg(long, requires = "tls")]
    pub insecure: bool,
    /// Server name to ask for
    #[arg(long, requires = "tls")]
    pub sni: Option<String>,
    /// Whether a connection resumes the TLS session of its predecessor: on or off
    #[arg(long, requires = "tls", default_value = "on", value_parser = ["on", "off"])]
    pub resume: String,
    /// Only this TLS version: 1.2 or 1.3
    #[arg(long, requires = "tls", value_parser = ["1.2", "1.3"])]
    pub tls_version: Option<String>,
    /// Only this key exchange, such as x25519
    #[arg(long, requires = "tls")]
    pub tls_group: Option<String>,
    /// Only cipher suites with this cipher, such as aes-128-gcm
    #[arg(long, requires = "tls")]
    pub tls_cipher: Option<String>,
}

impl Target {
    /// The TLS of these flags.
    pub fn tls_plan(&self, http2: bool) -> Result<Option<TlsPlan>, String> {
        if !self.tls {
            return Ok(None);
        }
        let trust = match (&self.ca, self.insecure) {
            (Some(path), _) => Trust::Authority(path),
            (None, true) => Trust::Anyone,
            (None, false) => return Err("--tls needs --ca FILE, or --insecure".to_owned()),
        };
        let wanted = Wanted {
            trust,
            name: self.sni.as_deref().unwrap_or(&self.host),
            resume: self.resume == "on",
            version: self.tls_version.as_deref(),
            group: self.tls_group.as_deref(),
            cipher: self.tls_cipher.as_deref(),
            http2,
        };
        TlsPlan::new(&wanted).map(Some)
    }
}

/// Flags of `loadtest load`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    #[command(flatten)]
    target: Target,
    /// Also be the origin, listening here
    #[arg(long, value_parser = address)]
    origin: Option<SockAddr>,
    /// Bytes of body of that origin's responses
    #[arg(long, default_value_t = 1024)]
    origin_body: u64,
    /// Connections kept, or in the open loop at most open; over all threads
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// One request per connection
    #[arg(long)]
    new_connections: bool,
    /// HTTP/2; without TLS by prior knowledge
    #[arg(long)]
    http2: bool,
    /// Requests in flight per HTTP/2 connection
    #[arg(long, requires = "http2", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    streams: u32,
    /// Open loop: requests per second, whatever the target does; without it each connection sends
    /// its next request as soon as it has its response
    #[arg(long, value_parser = schedule::parse_rate)]
    rate: Option<f64>,
    /// Open loop: from one rate to another in some seconds
    #[arg(long, value_name = "FROM:TO:SECONDS", value_parser = schedule::parse_ramp,
        conflicts_with_all = ["rate", "duration", "requests"])]
    ramp: Option<Ramp>,
    /// Open loop: one rate after the other
    #[arg(long, value_name = "RATExSECONDS,...", value_delimiter = ',',
        value_parser = schedule::parse_step, conflicts_with_all = ["rate", "ramp", "duration", "requests"])]
    steps: Vec<Step>,
    /// Seconds to measure [default: 10]
    #[arg(long, value_parser = seconds)]
    duration: Option<f64>,
    /// Requests to measure, instead of --duration
    #[arg(long, conflicts_with = "duration")]
    requests: Option<u64>,
    /// Seconds of load before measuring
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warmup: f64,
    /// Read the requests from this file instead of the flags below
    #[arg(long, value_name = "FILE", conflicts_with_all =
        ["path", "spread", "header", "method", "post", "status", "body", "checksum", "think"])]
    mix: Option<PathBuf>,
    /// Method [default: GET, or POST with --post]
    #[arg(long)]
    method: Option<Method>,
    /// Path, taken in turn when given more than once
    #[arg(long, default_value = "/")]
    path: Vec<String>,
    /// Replaces `{n}` in each path by 0 to N-1, in scrambled order
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    spread: u64,
    /// Further request field, "Name: value"
    #[arg(long)]
    header: Vec<String>,
    /// Send this many bytes of body
    #[arg(long)]
    post: Option<usize>,
    /// The only right status
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// The only right response length in bytes
    #[arg(long)]
    body: Option<u64>,
    /// The only right CRC-32 of a response body in hexadecimal, or `origin` for that of the body
    /// which `loadtest origin` sends
    #[arg(long)]
    checksum: Option<String>,
    /// Closed loop: pause of a connection after each response, such as 50ms
    #[arg(long)]
    think: Option<String>,
    /// Seconds until a request is lost
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    timeout: f64,
    /// Threads, each with its share of connections and rate
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Cores for the threads, taken in turn
    #[arg(long, value_delimiter = ',')]
    pin: Vec<usize>,
    /// Never sleep: poll the ring, so that the target never pays for waking this process
    #[arg(long)]
    spin: bool,
    /// What sends [default: ring, the cheapest, where it can; task for TLS and HTTP/2]
    #[arg(long, value_enum)]
    driver: Option<Driver>,
    /// Process whose CPU time to read over the measured window
    #[arg(long)]
    watch: Vec<u32>,
    /// Seconds per interval of the report, the HDR log and the progress
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    interval: f64,
    /// Say every interval how it goes, on standard error [default: when that is a terminal]
    #[arg(long)]
    progress: bool,
    /// Write one histogram per interval to this file, in the HDR log format
    #[arg(long, value_name = "FILE")]
    hdr_log: Option<PathBuf>,
    /// Write the report as JSON to this file, "-" for standard output
    #[arg(long)]
    json: Option<PathBuf>,
}

fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

impl Flags {
    /// Runs the load and prints its report.
    pub fn run(self) -> io::Result<()> {
        let threads = usize::from(self.threads);
        let wrong = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
        let plan: &'static Plan = Box::leak(Box::new(self.plan().map_err(wrong)?));
        let origins = match &self.origin {
            Some(address) => crew::listen(address, self.origin_body, threads)?,
            None => Vec::new(),
        };
        let orders = Orders {
            threads,
            pin: self.pin,
            spin: self.spin,
            driver: self.driver,
            origins,
            hdr_log: self.hdr_log,
            progress: self.progress.then_some(true),
        };
        let report = crew::run(plan, orders)?;
        match self.json {
            Some(path) if path.as_os_str() == "-" => println!("{report}"),
            Some(path) => fs::write(path, report.to_string())?,
            None => println!("{}", report::text(&report)),
        }
        Ok(())
    }

    fn plan(&self) -> Result<Plan, String> {
        let pace = self.pace();
        let tls = self.target.tls_plan(self.http2)?;
        let frame =
            Frame { host: &self.target.host, tls: tls.is_some(), close: self.new_connections };
        let templates = match &self.mix {
            Some(path) => mix::read(path)?,
            None => self.templates()?,
        };
        if matches!(pace, Pace::Open(_)) && templates.iter().any(|t| t.think_ns > 0) {
            return Err(
                "think times belong to the closed loop: in the open loop the schedule says \
                        when requests are sent; leave out think, or --rate, --ramp and --steps"
                    .to_owned(),
            );
        }
        if self.connections < u32::from(self.threads) {
            return Err(format!(
                "{} threads need as many connections at least: raise --connections",
                self.threads
            ));
        }
        Ok(Plan {
            target: self.target.target.clone(),
            requests: Requests::prepare(&templates, &frame)?,
            connections: self.connections as usize,
            new_connections: self.new_connections,
            pace,
            timeout_ns: ns(self.timeout),
            tls,
            streams: self.http2.then_some(self.streams as usize),
            course: self.course()?,
        })
    }

    fn pace(&self) -> Pace {
        let schedule = if let Some(rate) = self.rate {
            Schedule::constant(rate)
        } else if let Some(ramp) = self.ramp {
            Schedule::ramp(ramp, self.warmup)
        } else if !self.steps.is_empty() {
            Schedule::steps(&self.steps, self.warmup)
        } else {
            return Pace::Closed;
        };
        Pace::Open(schedule)
    }

    fn course(&self) -> Result<Course, String> {
        let profile_s = match self.ramp {
            Some(ramp) => ramp.seconds,
            None => self.steps.iter().map(|s| s.seconds).sum(),
        };
        let seconds = if profile_s > 0.0 { profile_s } else { self.duration.unwrap_or(10.0) };
        let interval_ns = ns(self.interval).max(1);
        let course = Course {
            warmup_ns: ns(self.warmup),
            window_ns: if self.requests.is_some() { u64::MAX / 4 } else { ns(seconds).max(1) },
            requests: self.requests,
            interval_ns,
            watch: self.watch.clone(),
        };
        if self.requests.is_none() && course.window_ns / interval_ns > INTERVALS_MAX {
            return Err(format!(
                "more than {INTERVALS_MAX} intervals: raise --interval for a run this long"
            ));
        }
        Ok(course)
    }

    fn templates(&self) -> Result<Vec<Template>, String> {
        let mut fields = Vec::new();
        for header in &self.header {
            let wrong = || format!("--header `{header}`: write it as \"Name: value\"");
            let (name, value) = header.split_once(':').ok_or_else(wrong)?;
            fields
                .push(mix::field(name.trim(), value.trim()).map_err(|e| format!("--header: {e}"))?);
        }
        let usual = if self.post.is_some() { Method::POST } else { Method::GET };
        let think_ns = self.think.as_deref().map(duration_ns).transpose()?.unwrap_or(0);
        // Stepping by a prime visits every number once (unless it divides the count).
        let numbers = (0..self.spread).map(|i| i * 7919 % self.spread);
        let paths =
            numbers.flat_map(|n| self.path.iter().map(move |p| p.replace("{n}", &n.to_string())));
        paths
            .map(|path| {
                if !path.starts_with('/') {
                    return Err(format!("--path `{path}`: begin it with `/`"));
                }
                let expect = match &self.checksum {
                    None => Expect { status: self.status, length: self.body, checksum: None },
                    Some(sum) => mix::expect_checksum(self.status, self.body, sum, &path)
                        .map_err(|e| format!("--checksum: {e}"))?,
                };
                Ok(Template {
                    weight: 1,
                    method: self.method.clone().unwrap_or_else(|| usual.clone()),
                    path,
                    fields: fields.clone(),
                    body: self.post.map(|n| (n, n)),
                    think_ns,
                    expect,
                })
            })
            .collect()
    }
}
