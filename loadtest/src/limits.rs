//! `loadtest limits`: asks more than a rate limit allows, and compares what passes with one bucket
//! that sees every request when it is sent.
//!
//! One thread, so that there is one order of all requests: a task for each connection, which writes
//! so many requests at once, reads their responses, and counts those that passed (2xx) and those
//! that were refused (429). Anything else, and a connection that ends, is an error.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

/// What an example line looks like.
pub const EXAMPLES: &str = "loadtest limits --target 127.0.0.1:8080 --rate 1000 --burst 100";

#[derive(Args, Clone)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    /// Where to connect: IP:PORT; several with commas between them, for connections in turn
    #[arg(long, value_delimiter = ',', required = true)]
    target: Vec<SocketAddr>,
    /// What the limit allows each key in `--period` seconds
    #[arg(long)]
    rate: u64,
    /// Seconds
    #[arg(long, default_value_t = 1)]
    period: u64,
    /// What the limit allows a key at once
    #[arg(long)]
    burst: u64,
    /// Connections
    #[arg(long, default_value_t = 200)]
    connections: usize,
    /// Requests in flight on each
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Keys, taken in turn, as `/?key=N`
    #[arg(long, default_value_t = 1)]
    keys: u64,
    /// Seconds
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// All requests of a tenth of a second at its beginning, and none in the rest
    #[arg(long)]
    bursty: bool,
    /// Requests in a second, of all connections together; 0: as many as can be made
    #[arg(long, default_value_t = 0)]
    offered: u64,
}

/// One bucket for each key, as the limit would be if there were one worker without a way to it.
struct Seen {
    begun: Instant,
    /// Nanoseconds between two tokens.
    interval: f64,
    depth: f64,
    full: Vec<f64>,
    next_key: u64,
    sent: u64,
    ideal: u64,
    passed: u64,
    refused: u64,
    other: BTreeMap<String, u64>,
    last: Duration,
}

impl Seen {
    /// The key of a request that is sent now.
    fn send(&mut self) -> u64 {
        let key = self.next_key;
        self.next_key = (key + 1) % self.full.len() as u64;
        self.sent += 1;
        let now = self.begun.elapsed().as_nanos() as f64;
        let full = &mut self.full[key as usize];
        let next = full.max(now) + self.interval;
        if next <= now + self.depth {
            *full = next;
            self.ideal += 1;
        }
        key
    }

    fn answered(&mut self, status: &[u8]) {
        match status {
            [b'2', ..] => self.passed += 1,
            b"429" => self.refused += 1,
            status => self.fails(&format!("status {}", String::from_utf8_lossy(status))),
        }
        self.last = self.begun.elapsed();
    }

    fn fails(&mut self, why: &str) {
        *self.other.entry(why.to_owned()).or_default() += 1;
    }
}

impl Flags {
    pub fn run(self) -> io::Result<()> {
        let interval = self.period as f64 * 1e9 / self.rate as f64;
        let seen = Rc::new(RefCell::new(Seen {
            begun: Instant::now(),
            interval,
            depth: interval * self.burst as f64,
            full: vec![0.0; self.keys.max(1) as usize],
            next_key: 0,
            sent: 0,
            ideal: 0,
            passed: 0,
            refused: 0,
            other: BTreeMap::new(),
            last: Duration::ZERO,
        }));
        let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .with_entries(4096)
            .enable_timer()
            .build()?;
        let until = Duration::from_secs_f64(self.seconds);
        runtime.block_on(all(&self, &seen, until))?;
        let seen = seen.borrow();
        let each = self.rate as f64 / self.period as f64;
        let most = self.keys as f64 * (self.burst as f64 + each * seen.last.as_secs_f64());
        let report = serde_json::json!({
            "sent": seen.sent, "passed": seen.passed, "refused": seen.refused,
            "ideal": seen.ideal, "most": most, "seconds": seen.last.as_secs_f64(),
            "other": seen.other,
        });
        println!("{report}");
        Ok(())
    }
}

async fn all(flags: &Flags, seen: &Rc<RefCell<Seen>>, until: Duration) -> io::Result<()> {
    let mut streams = Vec::new();
    for target in flags.target.iter().cycle().take(flags.connections) {
        let stream = TcpStream::connect_addr(*target).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    seen.borrow_mut().begun = Instant::now();
    let tasks: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            let (flags, seen) = (flags.clone(), seen.clone());
            monoio::spawn(async move {
                if let Err(e) = one(stream, &flags, &seen, until).await {
                    seen.borrow_mut().fails(&e.to_string());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    Ok(())
}

/// A tenth of a second.
const BEAT_NS: u64 = 100_000_000;

/// One connection, until the time is over.
async fn one(
    mut stream: TcpStream,
    flags: &Flags,
    seen: &Rc<RefCell<Seen>>,
    until: Duration,
) -> io::Result<()> {
    let (mut received, mut rest) = (vec![0u8; 64 * 1024], Vec::new());
    loop {
        if !pause(flags, seen).await || seen.borrow().begun.elapsed() >= until {
            return Ok(());
        }
        let mut requests = Vec::with_capacity(64 * flags.pipeline);
        for _ in 0..flags.pipeline {
            let key = seen.borrow_mut().send();
            let text = format!("GET /?key={key} HTTP/1.1\r\nHost: bench.test\r\n\r\n");
            requests.extend_from_slice(text.as_bytes());
        }
        let (result, _) = stream.write_all(requests).await;
        result?;
        let mut answers = 0;
        while answers < flags.pipeline {
            let (result, buf) = stream.read(received).await;
            received = buf;
            match result? {
                0 => return Err(io::Error::other("the connection was closed")),
                n => rest.extend_from_slice(&received[..n]),
            }
            let mut at = 0;
            while let Some((status, len)) = response(&rest[at..]) {
                seen.borrow_mut().answered(status);
                at += len;
                answers += 1;
            }
            rest.drain(..at);
        }
    }
}

/// Waits while no request is to be made.
async fn pause(flags: &Flags, seen: &Rc<RefCell<Seen>>) -> bool {
    let until = Duration::from_secs_f64(flags.seconds);
    loop {
        let (now, sent) = {
            let seen = seen.borrow();
            (seen.begun.elapsed(), seen.sent)
        };
        if now >= until {
            return false;
        }
        let at = now.as_nanos() as u64;
        // In bursts, a fifth of each beat is for sending; paced, what is due by now.
        let is_break = flags.bursty && at % BEAT_NS > BEAT_NS / 5;
        let is_early = flags.offered > 0
            && sent as u128 > u128::from(flags.offered) * u128::from(at) / 1_000_000_000;
        if !is_break && !is_early {
            return true;
        }
        let left = if is_break { BEAT_NS - at % BEAT_NS } else { 500_000 };
        monoio::time::sleep(Duration::from_nanos(left)).await;
    }
}

/// Status and length of the response at the front, when all of it is there.
fn response(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let head = &bytes[..end];
    let lower = head.to_ascii_lowercase();
    let name = b"\r\ncontent-length: ";
    let length = memchr::memmem::find(&lower, name).map_or(0, |at| {
        let digits = lower[at + name.len()..].iter().take_while(|b| b.is_ascii_digit());
        digits.fold(0usize, |n, b| n * 10 + usize::from(b - b'0'))
    });
    (bytes.len() >= end + length).then(|| (&bytes[9..12], end + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_cut_where_they_end() {
        let text =
            b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 3\r\n\r\nnoHTTP/1.1 204 -\r\n\r\n";
        assert_eq!(response(&text[..40]), None);
        let text = [&text[..], b"x"].concat();
        let (status, len) = response(&text).unwrap();
        assert_eq!((status, len), (&b"429"[..], 56));
        assert_eq!(response(b"HTTP/1.1 204 -\r\n\r\nHTT"), Some((&b"204"[..], 18)));
    }
}
