//! `loadtest limits`: asks more than a rate limit allows, and compares what passes with one bucket
//! that sees every request when it is sent.
//!
//! One thread, so that there is one order of all requests: a task for each connection, which writes
//! so many requests at once, reads their responses, and counts those that passed (2xx) and those
//! that were refused (429). Anything else, and a connection that ends, is an error.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
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
    /// Path
    #[arg(long, default_value = "/")]
    path: String,
    /// Keys, taken in turn, as `?key=N`
    #[arg(long, default_value_t = 1)]
    keys: u64,
    /// So many of the keys get three quarters of the requests; 0: all get as many
    #[arg(long, default_value_t = 0)]
    hot: u64,
    /// Tokens that a request takes
    #[arg(long, default_value_t = 1)]
    cost: u64,
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

/// A key's bucket, and what became of its requests.
#[derive(Clone, Default)]
struct Key {
    full: f64,
    ideal: u64,
    passed: u64,
    refused: u64,
}

/// One bucket for each key, as the limit would be if there were one worker without a way to it.
struct Seen {
    begun: Instant,
    /// Nanoseconds in which it fills.
    depth: f64,
    keys: Vec<Key>,
    /// Of one request.
    span: f64,
    hot: u64,
    sent: u64,
    other: BTreeMap<String, u64>,
    last: Duration,
}

impl Seen {
    /// The key of a request that is sent now.
    fn send(&mut self) -> u64 {
        let key = key(self.sent, self.keys.len() as u64, self.hot);
        self.sent += 1;
        let now = self.begun.elapsed().as_nanos() as f64;
        let seen = &mut self.keys[key as usize];
        let next = seen.full.max(now) + self.span;
        if next <= now + self.depth {
            seen.full = next;
            seen.ideal += 1;
        }
        key
    }

    fn answered(&mut self, key: u64, status: &[u8]) {
        let seen = &mut self.keys[key as usize];
        match status {
            [b'2', ..] => seen.passed += 1,
            b"429" => seen.refused += 1,
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
            span: interval * self.cost as f64,
            depth: interval * self.burst as f64,
            keys: vec![Key::default(); self.keys.max(1) as usize],
            hot: self.hot,
            sent: 0,
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
        println!("{}", report(&self, &seen));
        Ok(())
    }
}

/// Sums, and what the key is like that is worst.
fn report(flags: &Flags, seen: &Seen) -> serde_json::Value {
    let seconds = seen.last.as_secs_f64();
    let tokens = flags.burst as f64 + flags.rate as f64 / flags.period as f64 * seconds;
    let most = tokens / flags.cost as f64;
    let sum = |of: fn(&Key) -> u64| seen.keys.iter().map(of).sum::<u64>();
    let worst = |of: &dyn Fn(&Key) -> f64| seen.keys.iter().map(of).fold(f64::MIN, f64::max);
    let off = |key: &Key| key.passed.abs_diff(key.ideal) as f64;
    serde_json::json!({
        "sent": seen.sent, "seconds": seconds, "other": seen.other, "most_of_a_key": most,
        "passed": sum(|key| key.passed), "refused": sum(|key| key.refused),
        "ideal": sum(|key| key.ideal),
        "keys_refused": sum(|key| u64::from(key.refused > 0)),
        // Above 0: more than may.
        "over": worst(&|key| key.passed as f64 - most.floor()),
        // Above 0: by more than a request and than a hundredth.
        "off": worst(&|key| off(key) - (key.ideal as f64 / 100.0).max(1.0)),
    })
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
    let mut keys = VecDeque::with_capacity(flags.pipeline);
    loop {
        if !pause(flags, seen).await || seen.borrow().begun.elapsed() >= until {
            return Ok(());
        }
        let mut requests = Vec::with_capacity(64 * flags.pipeline);
        for _ in 0..flags.pipeline {
            let key = seen.borrow_mut().send();
            keys.push_back(key);
            let path = &flags.path;
            let text = format!("GET {path}?key={key} HTTP/1.1\r\nHost: bench.test\r\n\r\n");
            requests.extend_from_slice(text.as_bytes());
        }
        let (result, _) = stream.write_all(requests).await;
        result?;
        while !keys.is_empty() {
            let (result, buf) = stream.read(received).await;
            received = buf;
            match result? {
                0 => return Err(io::Error::other("the connection was closed")),
                n => rest.extend_from_slice(&received[..n]),
            }
            let mut at = 0;
            while let Some((status, len)) = response(&rest[at..]) {
                let key =
                    keys.pop_front().ok_or_else(|| io::Error::other("one answer too many"))?;
                seen.borrow_mut().answered(key, status);
                at += len;
            }
            rest.drain(..at);
        }
    }
}

/// The key of a request of that number.
fn key(number: u64, keys: u64, hot: u64) -> u64 {
    let cold = keys.saturating_sub(hot);
    match (hot, number % 4) {
        (0, _) => number % keys,
        (_, 0) if cold > 0 => hot + number / 4 % cold,
        _ => (number - number / 4) % hot,
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
    fn hot_keys_get_three_quarters_and_all_get_some() {
        let count = |keys, hot| {
            let mut counts = vec![0; keys as usize];
            (0..8000).for_each(|n| counts[key(n, keys, hot) as usize] += 1);
            counts
        };
        assert_eq!(count(4, 0), [2000; 4]);
        assert_eq!(count(2, 2), [4000; 2]);
        let counts = count(1002, 2);
        assert_eq!((counts[0], counts[1]), (3000, 3000));
        assert!(counts[2..].iter().all(|n| *n == 2));
    }

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
