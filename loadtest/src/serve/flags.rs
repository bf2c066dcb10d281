//! The flags of `loadtest origin`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use clap::Args;
use socket2::SockAddr;

use super::ways::{Stall, Ways, parse_duration, parse_per_second, parse_share, parse_stall};
use super::{Service, listen, run};
use crate::engine::Engine;
use crate::flags::address;
use crate::origin::Origin;
use crate::tls;

/// Shown below the flags.
pub const EXAMPLES: &str = "\
It says `listening on ADDRESS` when it does; port 0 takes a free one.

Examples:
  # 1 KiB, the cheapest way
  loadtest origin --listen 127.0.0.1:9000
  # 20 ms more or less 5 for every tenth request, one answer of a thousand a 503
  loadtest origin --listen 127.0.0.1:9000 --delay 20ms --jitter 5ms --delay-for 10% --errors 0.1%
  # Silent for a second in every ten
  loadtest origin --listen 127.0.0.1:9000 --stall 1s/10s
  # TLS with HTTP/2 and HTTP/1.1, sizes by path: /bytes/65536
  loadtest origin --listen 127.0.0.1:9443 --tls cert.pem key.pem --http2 --body-by-path
  # WebSocket echo and event streams
  loadtest origin --listen 127.0.0.1:9000 --websocket --sse 10/s";

/// Flags of `loadtest origin`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    /// Where to listen: IP:PORT or unix:PATH
    #[arg(long, value_parser = address)]
    listen: SockAddr,
    /// Bytes of response body
    #[arg(long, default_value_t = 1024)]
    body: u64,
    /// Answer /bytes/N with N bytes
    #[arg(long)]
    body_by_path: bool,
    /// Chunked bodies, without Content-Length
    #[arg(long)]
    chunked: bool,
    /// Wait before answering, such as 5ms; in whole milliseconds
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    delay: u64,
    /// Wait up to this much more or less
    #[arg(long, value_parser = parse_duration, default_value = "0s", requires = "delay")]
    jitter: u64,
    /// Share of the requests that wait
    #[arg(long, value_parser = parse_share, default_value = "100%", requires = "delay")]
    delay_for: f64,
    /// Share of the requests answered with --status
    #[arg(long, value_parser = parse_share, default_value = "0%")]
    errors: f64,
    /// Status of errors
    #[arg(long, default_value_t = 503, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
    /// Answer nothing for the last LENGTH of every PERIOD
    #[arg(long, value_name = "LENGTH/PERIOD", value_parser = parse_stall)]
    stall: Option<Stall>,
    /// End each connection after this many requests
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    close_after: Option<u64>,
    /// Accept WebSockets and echo what they send
    #[arg(long, conflicts_with = "http2")]
    websocket: bool,
    /// Answer `Accept: text/event-stream` with this many events a second, such as 10/s
    #[arg(long, value_parser = parse_per_second)]
    sse: Option<u64>,
    /// Speak TLS with this chain and key, both PEM
    #[arg(long, num_args = 2, value_names = ["CERT", "KEY"])]
    tls: Vec<PathBuf>,
    /// Speak HTTP/2: beside HTTP/1.1 with --tls, instead of it without
    #[arg(long)]
    http2: bool,
    /// Threads, each with a listener of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
}

impl Flags {
    /// Answers until the process is killed.
    pub fn run(self) -> io::Result<()> {
        if self.is_plain() {
            let mut origin = Origin::listen(&self.listen, self.body)?;
            say(&origin.address()?)?;
            return Engine::new(false, Instant::now())?.serve(&mut origin);
        }
        let tls = match &self.tls[..] {
            [chain, key] => {
                let config = tls::server(chain, key, self.http2);
                Some(config.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?)
            }
            _ => None,
        };
        if self.threads > 1 && self.listen.is_unix() {
            let message = "a Unix socket is served by one thread: leave out --threads";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let first = listen(&self.listen)?;
        let bound = first.local_addr()?;
        let epoch = Instant::now();
        let service = || Service { ways: self.ways(), tls: tls.clone(), http2: self.http2, epoch };
        for _ in 1..self.threads {
            let (listener, service) = (listen(&bound)?, service());
            thread::Builder::new().spawn(move || run(listener, service))?;
        }
        say(&bound)?;
        run(first, service())
    }

    /// Whether the hand-made origin can do it.
    fn is_plain(&self) -> bool {
        let ways = self.ways();
        let plain =
            Ways { body: self.body, delay_for: 1.0, status: self.status, ..Ways::default() };
        ways == plain && self.tls.is_empty() && !self.http2 && self.threads == 1
    }

    fn ways(&self) -> Ways {
        Ways {
            body: self.body,
            body_by_path: self.body_by_path,
            chunked: self.chunked,
            delay_ns: self.delay,
            jitter_ns: self.jitter,
            delay_for: self.delay_for,
            errors: self.errors,
            status: self.status,
            stall: self.stall,
            close_after: self.close_after,
            websocket: self.websocket,
            sse_every_ns: self.sse,
        }
    }
}

fn say(address: &SockAddr) -> io::Result<()> {
    let mut out = io::stdout();
    match address.as_socket() {
        Some(address) => writeln!(out, "listening on {}", SocketAddr::to_string(&address))?,
        None => writeln!(out, "listening on {:?}", address.as_pathname())?,
    }
    out.flush()
}
