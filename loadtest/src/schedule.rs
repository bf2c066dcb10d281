//! When requests are due in the open loop: at a constant rate, on a ramp, or in steps.
//!
//! A schedule numbers the requests of a whole run: request `k` has one due time, whatever the
//! target does and however many threads share the work (thread `i` of `n` sends the requests whose
//! number leaves the remainder `i`). Invariants: due times never decrease, and
//! `due_by(due_ns(k)) >= k + 1`. Times are nanoseconds since the start of the run.

use std::fmt;

const NS: f64 = 1e9;

/// A stretch in which the rate is constant or changes evenly.
#[derive(Clone, Debug, PartialEq)]
struct Segment {
    start_s: f64,
    /// Requests due before this segment.
    before: f64,
    /// Requests per second at its start and end.
    from: f64,
    to: f64,
    /// Seconds; the last segment goes on for ever at its last rate.
    len_s: f64,
}

impl Segment {
    /// Requests due from its start to `t` seconds into it.
    fn count(&self, t: f64) -> f64 {
        if t <= self.len_s {
            self.from * t + (self.to - self.from) * t * t / (2.0 * self.len_s)
        } else {
            self.count(self.len_s) + self.to * (t - self.len_s)
        }
    }

    /// Seconds into it at which `n` requests have been due.
    fn when(&self, n: f64) -> f64 {
        let all = self.count(self.len_s);
        if n > all {
            return self.len_s + (n - all) / self.to;
        }
        let slope = (self.to - self.from) / self.len_s;
        if slope.abs() < 1e-9 {
            return n / self.from;
        }
        // The root of `slope/2 t² + from t = n` in the form that loses no digits near zero.
        2.0 * n / (self.from + (self.from * self.from + 2.0 * slope * n).max(0.0).sqrt())
    }
}

/// Due times of all requests of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    segments: Vec<Segment>,
    text: String,
    /// Segments at the end that are steps.
    steps: usize,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Schedule {
    /// `rate` requests per second, from the start and for ever.
    pub fn constant(rate: f64) -> Self {
        Self::build(format!("{rate} requests/s"), 0.0, &[(rate, rate, 1.0)])
    }

    /// An even change of rate over `seconds`, after `warmup` seconds at the first rate.
    pub fn ramp(ramp: Ramp, warmup_s: f64) -> Self {
        let text = format!("{} to {} requests/s in {} s", ramp.from, ramp.to, ramp.seconds);
        Self::build(text, warmup_s, &[(ramp.from, ramp.to, ramp.seconds)])
    }

    /// One rate after the other, after `warmup` seconds at the first.
    pub fn steps(steps: &[Step], warmup_s: f64) -> Self {
        let named: Vec<_> = steps.iter().map(|s| format!("{}x{}", s.rate, s.seconds)).collect();
        let rates: Vec<_> = steps.iter().map(|s| (s.rate, s.rate, s.seconds)).collect();
        let built = Self::build(format!("steps {}", named.join(",")), warmup_s, &rates);
        Self { steps: steps.len(), ..built }
    }

    fn build(text: String, warmup_s: f64, rates: &[(f64, f64, f64)]) -> Self {
        let warmup = (warmup_s > 0.0).then(|| (rates[0].0, rates[0].0, warmup_s));
        let (mut start_s, mut before) = (0.0, 0.0);
        let mut segments = Vec::new();
        for (from, to, len_s) in warmup.into_iter().chain(rates.iter().copied()) {
            let segment = Segment { start_s, before, from, to, len_s };
            before += segment.count(len_s);
            start_s += len_s;
            segments.push(segment);
        }
        Self { segments, text, steps: 0 }
    }

    fn segment(&self, is_after: impl Fn(&Segment) -> bool) -> &Segment {
        let after = self.segments.iter().position(is_after).unwrap_or(self.segments.len());
        &self.segments[after.max(1) - 1]
    }

    /// When request `k` (counted from 0) is due.
    pub fn due_ns(&self, k: u64) -> u64 {
        let segment = self.segment(|s| s.before > k as f64);
        ((segment.start_s + segment.when(k as f64 - segment.before)) * NS) as u64
    }

    /// How many requests are due at or before `now_ns`.
    pub fn due_by(&self, now_ns: u64) -> u64 {
        let now_s = now_ns as f64 / NS;
        let segment = self.segment(|s| s.start_s > now_s);
        // Request 0 is due at once. The millionth of a request absorbs rounding, the comparison
        // what it adds.
        let due = (segment.before + segment.count(now_s - segment.start_s) + 1e-6) as u64 + 1;
        if self.due_ns(due - 1) > now_ns { due - 1 } else { due }
    }

    /// Rate and end (seconds since the start of the run) of each step; nothing for other profiles.
    pub fn step_ends(&self) -> Vec<(f64, f64)> {
        let steps = &self.segments[self.segments.len() - self.steps..];
        steps.iter().map(|s| (s.to, s.start_s + s.len_s)).collect()
    }

    /// Requests per second that are due at `now_ns`.
    pub fn rate_at(&self, now_ns: u64) -> f64 {
        let now_s = now_ns as f64 / NS;
        let segment = self.segment(|s| s.start_s > now_s);
        let share = ((now_s - segment.start_s) / segment.len_s).min(1.0);
        segment.from + (segment.to - segment.from) * share
    }
}

/// `FROM:TO:SECONDS`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// Requests per second at the start.
    pub from: f64,
    /// Requests per second at the end.
    pub to: f64,
    /// Length.
    pub seconds: f64,
}

/// `RATExSECONDS`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Requests per second.
    pub rate: f64,
    /// Length.
    pub seconds: f64,
}

fn positive(text: &str, what: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err(format!("`{text}` is no {what}: write a number above 0")),
    }
}

/// Reads requests per second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    positive(text, "rate")
}

/// Reads `FROM:TO:SECONDS`.
pub fn parse_ramp(text: &str) -> Result<Ramp, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [from, to, seconds] = parts[..] else {
        return Err("write FROM:TO:SECONDS, such as 1000:20000:30".into());
    };
    let (from, to) = (positive(from, "rate")?, positive(to, "rate")?);
    Ok(Ramp { from, to, seconds: positive(seconds, "number of seconds")? })
}

/// Reads `RATExSECONDS`.
pub fn parse_step(text: &str) -> Result<Step, String> {
    let Some((rate, seconds)) = text.split_once('x') else {
        return Err("write RATExSECONDS, such as 1000x10".into());
    };
    Ok(Step { rate: positive(rate, "rate")?, seconds: positive(seconds, "number of seconds")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(schedule: &Schedule, requests: &[u64]) -> Vec<f64> {
        requests.iter().map(|k| (schedule.due_ns(*k) as f64 / 1e3).round() / 1e3).collect()
    }

    #[test]
    fn due_times() {
        let constant = Schedule::constant(1000.0);
        assert_eq!(ms(&constant, &[0, 1, 1500, 100_000]), [0.0, 1.0, 1500.0, 100_000.0]);

        // 10 a second for 1 s of warm-up, then 100 a second for 2 s, then 50 for ever.
        let steps = [Step { rate: 10.0, seconds: 1.0 }, Step { rate: 50.0, seconds: 2.0 }];
        let steps = Schedule::steps(&steps, 1.0);
        assert_eq!(ms(&steps, &[0, 9, 10, 20, 21, 121]), [0., 900., 1000., 2000., 2020., 4020.]);

        // From 0.001 to 100 a second in 10 s: 500 in all, a quarter of them in the first half.
        let ramp = Ramp { from: 0.001, to: 100.0, seconds: 10.0 };
        let ramp = Schedule::ramp(ramp, 0.0);
        assert_eq!(ramp.due_by(5_000_000_000), 126);
        assert_eq!(ramp.due_by(10_000_000_000), 501);
        assert_eq!(ramp.due_by(11_000_000_000), 601);
        assert!((ramp.rate_at(5_000_000_000) - 50.0).abs() < 0.01);
        assert!((ramp.rate_at(20_000_000_000) - 100.0).abs() < 0.01);
    }

    #[test]
    fn a_ramp_may_go_down() {
        let ramp = Schedule::ramp(Ramp { from: 100.0, to: 1.0, seconds: 2.0 }, 0.0);
        assert_eq!(ramp.due_by(2_000_000_000), 102);
        assert_eq!(ms(&ramp, &[101, 102]), [2000.0, 3000.0]);
    }

    proptest::proptest! {
        #[test]
        fn counts_and_times_agree(
            from in 1.0..1e5f64, to in 1.0..1e5f64, seconds in 0.1..100.0f64,
            warmup in 0.0..3.0f64, k in 0u64..10_000_000,
        ) {
            for schedule in [
                Schedule::constant(from),
                Schedule::ramp(Ramp { from, to, seconds }, warmup),
                Schedule::steps(&[Step { rate: from, seconds }, Step { rate: to, seconds }], warmup),
            ] {
                let due_ns = schedule.due_ns(k);
                proptest::prop_assert!(schedule.due_ns(k + 1) >= due_ns);
                // A microsecond of slack for rounding.
                proptest::prop_assert!(schedule.due_by(due_ns + 1000) > k);
                if due_ns > 1000 {
                    let earlier = schedule.due_by(due_ns - 1000);
                    let most = k + (schedule.rate_at(due_ns) / 1e6) as u64 + 1;
                    proptest::prop_assert!(earlier <= most, "{earlier} {most}");
                }
            }
        }
    }

    #[test]
    fn profiles_are_read_or_refused() {
        assert_eq!(parse_ramp("1:20:3.5"), Ok(Ramp { from: 1.0, to: 20.0, seconds: 3.5 }));
        assert_eq!(parse_step("1000x10"), Ok(Step { rate: 1000.0, seconds: 10.0 }));
        for bad in ["1:2", "0:2:3", "1:2:x", "1:2:3:4", "inf:1:1", ""] {
            assert!(parse_ramp(bad).is_err(), "{bad}");
        }
        for bad in ["1000", "x", "0x1", "1x0", "-1x1", "NaNx1"] {
            assert!(parse_step(bad).is_err(), "{bad}");
        }
        assert!(parse_rate("0").is_err());
    }
}
