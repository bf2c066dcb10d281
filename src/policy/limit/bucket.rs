//! One bucket: the moment at which it is full again (GCRA), and what that says about its tokens.

/// A point in time, in 64ths of a nanosecond since boot. Good for nine years.
pub type Moment = u64;

/// Units of a [`Moment`] in a nanosecond.
const PER_NS: u64 = 64;

/// The moment of a clock in nanoseconds.
#[inline]
pub fn moment(now_ns: u64) -> Moment {
    now_ns.saturating_mul(PER_NS)
}

/// Nanoseconds of a span between two moments, rounded up.
pub fn nanos(span: u64) -> u64 {
    span.div_ceil(PER_NS)
}

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Tokens in a period, as configured.
    pub count: u32,
    pub period_ns: u64,
    /// Tokens that it holds.
    pub burst: u32,
    /// Between two tokens.
    interval: u64,
    /// To fill it when it is empty.
    depth: u64,
}

/// What is left in a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    pub tokens: u32,
    /// Until it is full.
    pub full_in_ns: u64,
    /// Which window of its limit has the least.
    pub window: u8,
    /// The request passed, and nothing was taken for it where it would be put back.
    pub is_free: bool,
}

impl Left {
    /// The same, of a request for which nothing was taken.
    pub fn free(self) -> Left {
        Left { is_free: true, ..self }
    }
}

impl Window {
    /// `count` and `burst` are at least 1; filling it takes no longer than a year, which the
    /// configuration ensures.
    pub fn new(count: u32, period_ns: u64, burst: u32) -> Window {
        let (count, burst) = (count.max(1), burst.max(1));
        let interval = period_ns.saturating_mul(PER_NS).div_ceil(u64::from(count)).max(1);
        let depth = interval.saturating_mul(u64::from(burst));
        Window { count, period_ns, burst, interval, depth }
    }

    /// Microseconds in which it fills when it is empty.
    pub fn fills_us(&self) -> u64 {
        let fills_ns = u128::from(self.period_ns) * u128::from(self.burst);
        (fills_ns / u128::from(self.count)).div_ceil(1000) as u64
    }

    /// From empty to full.
    pub(super) fn depth(&self) -> u64 {
        self.depth
    }

    /// Tokens there are now, of a bucket that is full at `full`.
    #[inline]
    pub(super) fn tokens(&self, full: Moment, now: Moment) -> u32 {
        let missing = full.saturating_sub(now);
        // At most the burst.
        (self.depth.saturating_sub(missing) / self.interval) as u32
    }

    /// When it is full if `tokens` are taken now; `None` when it does not have them.
    #[inline]
    pub(super) fn take(&self, full: Moment, tokens: u32, now: Moment) -> Option<Moment> {
        let next = full.max(now).saturating_add(self.span(tokens));
        (next <= now.saturating_add(self.depth)).then_some(next)
    }

    /// As [`Window::take`], of a bucket that never holds more than one such portion.
    pub(super) fn take_one(&self, full: Moment, tokens: u32, now: Moment) -> Option<Moment> {
        let end = now.saturating_add(self.depth);
        self.take(full.max(end.saturating_sub(self.span(tokens))), tokens, now)
    }

    /// When it has `tokens`. Whoever asks for more than it can ever hold waits for it to be full.
    pub(super) fn has_at(&self, full: Moment, tokens: u32) -> Moment {
        full.saturating_add(self.span(tokens)).saturating_sub(self.depth)
    }

    /// When it is full if `tokens` are put back.
    pub(super) fn give(&self, full: Moment, tokens: u32) -> Moment {
        full.saturating_sub(self.span(tokens))
    }

    /// When it is full if `tokens` are taken whether it has them or not: what is missing counts
    /// against what comes, but no more than a whole bucket.
    pub(super) fn charge(&self, full: Moment, tokens: u32, now: Moment) -> Moment {
        let next = full.max(now).saturating_add(self.span(tokens));
        next.min(now.saturating_add(2 * self.depth)).max(full)
    }

    #[inline]
    fn span(&self, tokens: u32) -> u64 {
        self.interval.saturating_mul(u64::from(tokens))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn taken(window: &Window, full: &mut Moment, tries: u32, now_ns: u64) -> u32 {
        let mut taken = 0;
        for _ in 0..tries {
            if let Some(next) = window.take(*full, 1, moment(now_ns)) {
                *full = next;
                taken += 1;
            }
        }
        taken
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        // Count, period, burst; then moments and how many pass.
        let table = [
            (10, SECOND_NS, 20, &[(0, 20), (SECOND_NS / 20, 0), (SECOND_NS / 10, 1)][..]),
            (10, SECOND_NS, 1, &[(0, 1), (SECOND_NS / 10 - 1, 0), (SECOND_NS / 10, 1)]),
            (3, SECOND_NS, 3, &[(0, 3), (333_333_333, 0), (333_333_334, 1), (SECOND_NS + 1, 2)]),
            (1_000_000, SECOND_NS, 50, &[(0, 50), (999, 0), (1000, 1), (SECOND_NS, 50)]),
            (1, 86_400 * SECOND_NS, 1, &[(5, 1), (86_399 * SECOND_NS, 0), (86_401 * SECOND_NS, 1)]),
        ];
        for (count, period_ns, burst, steps) in table {
            let window = Window::new(count, period_ns, burst);
            let mut full = 0;
            for (now_ns, expected) in steps {
                assert_eq!(
                    taken(&window, &mut full, 100, *now_ns),
                    *expected,
                    "{window:?} {now_ns}"
                );
            }
        }
    }

    #[test]
    fn the_interval_does_not_drift() {
        for count in [1, 3, 7, 10, 999, 1000, 50_000, 333_333, 1_000_000] {
            let window = Window::new(count, SECOND_NS, 1);
            // Tokens of an hour.
            let exact = 3600 * u64::from(count);
            let have = moment(3600 * SECOND_NS) / window.interval;
            assert!(have <= exact && exact - have <= exact / 50_000 + 1, "{count}: {have} {exact}");
        }
    }

    proptest! {
        #[test]
        fn what_is_said_of_a_bucket_holds(
            count in 1..100_000u32,
            burst in 1..10_000u32,
            full_ns in 0..100 * SECOND_NS,
            now_ns in 0..100 * SECOND_NS,
            tokens in 1..10_000u32,
        ) {
            let window = Window::new(count, SECOND_NS, burst);
            let now = moment(now_ns);
            let full = moment(full_ns).min(now + window.depth());
            let have = window.tokens(full, now);
            prop_assert!(have <= burst);
            prop_assert_eq!(window.take(full, tokens, now).is_some(), tokens <= have);
            if tokens <= burst {
                let at = window.has_at(full, tokens).max(now);
                prop_assert!(window.take(full, tokens, at).is_some());
                prop_assert!(at == now || window.take(full, tokens, at - 1).is_none());
            }
            let back = window.take(full, have.min(tokens).max(1), now);
            if let Some(less) = back {
                let given = window.give(less, have.min(tokens).max(1));
                prop_assert_eq!(window.tokens(given, now), have);
            }
            let owing = window.charge(full, tokens, now);
            prop_assert!(owing >= full && owing <= now + 2 * window.depth());
        }
    }
}
