//! What the origin decides about a request: how long to wait, which status, how many bytes. Pure:
//! time and chance are arguments.

use std::cell::Cell;
use std::time::Duration;

use crate::mix::duration_ns;

/// Bytes that `/bytes/N` gives at most.
const BODY_BYTES_MAX: u64 = 1 << 40;

/// How an origin answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ways {
    /// Bytes of body.
    pub body: u64,
    /// `/bytes/N` has N bytes.
    pub body_by_path: bool,
    /// Without `Content-Length`.
    pub chunked: bool,
    /// Nanoseconds before an answer, and by how much more or less.
    pub delay_ns: u64,
    /// See `delay_ns`.
    pub jitter_ns: u64,
    /// Share of the requests that are delayed.
    pub delay_for: f64,
    /// Share of the requests answered with `status`.
    pub errors: f64,
    /// See `errors`.
    pub status: u16,
    /// Answers nothing in the last part of each period.
    pub stall: Option<Stall>,
    /// Ends a connection after this many requests.
    pub close_after: Option<u64>,
    /// Upgrades to WebSocket and echoes.
    pub websocket: bool,
    /// Nanoseconds between events of a stream.
    pub sse_every_ns: Option<u64>,
}

/// In each `period_ns`, the last `length_ns` are silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Silence, nanoseconds.
    pub length_ns: u64,
    /// From the begin of one silence to the next, nanoseconds.
    pub period_ns: u64,
}

/// What is decided about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Wait before answering.
    pub wait: Duration,
    /// `None` answers rightly.
    pub error: Option<u16>,
}

impl Ways {
    /// Decides about a request that arrives `now_ns` after the start.
    pub fn decide(&self, now_ns: u64, dice: &Dice) -> Decision {
        let mut wait_ns = 0;
        if self.delay_ns > 0 && dice.hit(self.delay_for) {
            let jitter = (dice.next() * 2.0 - 1.0) * self.jitter_ns as f64;
            wait_ns = (self.delay_ns as f64 + jitter).max(0.0) as u64;
        }
        if let Some(stall) = self.stall {
            wait_ns += stall.left_ns(now_ns + wait_ns);
        }
        let error = dice.hit(self.errors).then_some(self.status);
        Decision { wait: Duration::from_nanos(wait_ns), error }
    }

    /// Bytes of body for a path; `None` when it asks for a number that is none.
    pub fn body_bytes(&self, path: &str) -> Option<u64> {
        match path.strip_prefix("/bytes/") {
            Some(number) if self.body_by_path => {
                number.parse().ok().filter(|n| *n <= BODY_BYTES_MAX)
            }
            _ => Some(self.body),
        }
    }
}

impl Stall {
    /// Nanoseconds until it answers again.
    fn left_ns(self, now_ns: u64) -> u64 {
        let at = now_ns % self.period_ns;
        if at >= self.period_ns - self.length_ns { self.period_ns - at } else { 0 }
    }
}

/// Chance that repeats itself in every run (SplitMix64).
pub struct Dice(Cell<u64>);

impl Dice {
    /// One series per seed.
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// From 0 to below 1.
    pub fn next(&self) -> f64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn hit(&self, share: f64) -> bool {
        share > 0.0 && self.next() < share
    }
}

/// Reads `0.1%` or a number from 0 to 1.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>().map(|n| n / scale) {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("`{text}` is no share: write 0.1%, or a number from 0 to 1")),
    }
}

/// Reads `1s/10s`.
pub fn parse_stall(text: &str) -> Result<Stall, String> {
    let (length, period) =
        text.split_once('/').ok_or("write LENGTH/PERIOD, such as 1s/10s".to_owned())?;
    let stall = Stall { length_ns: duration_ns(length)?, period_ns: duration_ns(period)? };
    if stall.length_ns == 0 || stall.length_ns >= stall.period_ns {
        return Err(format!("`{text}`: the stall is longer than 0 and shorter than its period"));
    }
    Ok(stall)
}

/// Reads `10/s` or `10`; nanoseconds between two.
pub fn parse_per_second(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1000.0 => Ok((1e9 / rate) as u64),
        _ => Err(format!("`{text}` is no rate: write 10/s; at most 1000/s")),
    }
}

/// Reads a duration such as `5ms`; nanoseconds.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    duration_ns(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_with_its_period() {
        let stall = parse_stall("1s/10s").unwrap();
        let ms = 1_000_000;
        for (now_ms, left_ms) in [(0, 0), (8999, 0), (9000, 1000), (9999, 1), (10_000, 0)] {
            assert_eq!(stall.left_ns(now_ms * ms), left_ms * ms, "{now_ms}");
        }
        for bad in ["1s", "1s/1s", "0s/1s", "x/1s"] {
            assert!(parse_stall(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_are_kept() {
        let ways = Ways {
            delay_ns: 5_000_000,
            jitter_ns: 2_000_000,
            delay_for: parse_share("10%").unwrap(),
            errors: parse_share("0.01").unwrap(),
            status: 503,
            ..Ways::default()
        };
        let dice = Dice::new(1);
        let all: Vec<_> = (0..100_000).map(|_| ways.decide(0, &dice)).collect();
        let delayed: Vec<_> = all.iter().filter(|d| !d.wait.is_zero()).collect();
        assert!((9_500..10_500).contains(&delayed.len()), "{}", delayed.len());
        assert!(delayed.iter().all(|d| (3..=7).contains(&d.wait.as_millis())));
        let wrong = all.iter().filter(|d| d.error == Some(503)).count();
        assert!((900..1_100).contains(&wrong), "{wrong}");
        assert!(parse_share("101%").is_err() && parse_share("-1").is_err());
    }

    #[test]
    fn sizes_come_from_the_path_when_asked() {
        let ways = Ways { body: 7, body_by_path: true, ..Ways::default() };
        for (path, bytes) in
            [("/", Some(7)), ("/bytes/12", Some(12)), ("/bytes/x", None), ("/bytes/", None)]
        {
            assert_eq!(ways.body_bytes(path), bytes, "{path}");
        }
        assert_eq!(Ways { body: 7, ..Ways::default() }.body_bytes("/bytes/12"), Some(7));
        assert_eq!(parse_per_second("10/s"), Ok(100_000_000));
    }
}
