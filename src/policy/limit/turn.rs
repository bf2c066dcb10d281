//! The period that somebody takes a quota to be in, by a clock that may be set and by what others
//! say.
//!
//! Invariant: it goes back by more than one period or not at all, so that a clock that is put right
//! by a little begins no period twice.

use super::{Calendar, Moment, Now, Period};

const SECOND_NS: u64 = 1_000_000_000;

/// Where one worker is in the calendar of a quota.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    calendar: Calendar,
    begin_ns: Moment,
    now: Now,
}

impl Turn {
    /// `unix_ns`: nanoseconds since 1970, here and below.
    pub fn new(calendar: Calendar, unix_ns: Moment) -> Turn {
        let mut turn = Turn { calendar, begin_ns: 0, now: Now::default() };
        turn.set(calendar.period(unix_ns / SECOND_NS));
        turn.now.unix_ns = unix_ns;
        turn
    }

    /// It is so late now. Answers whether that is in another period than before.
    #[inline]
    pub fn go(&mut self, unix_ns: Moment) -> bool {
        self.now.unix_ns = unix_ns;
        (unix_ns >= self.now.end_ns || unix_ns < self.begin_ns) && self.look(unix_ns)
    }

    #[cold]
    fn look(&mut self, unix_ns: Moment) -> bool {
        let (own, next) = (self.now.period, self.calendar.period(unix_ns / SECOND_NS));
        let is_other = next > own || next + 1 < own;
        if is_other {
            self.set(next);
        }
        is_other
    }

    /// Somebody else is in this period. Answers whether it is later than the one that was thought
    /// to be.
    pub fn hear(&mut self, period: Period) -> bool {
        let is_later = period > self.now.period;
        if is_later {
            self.set(period);
        }
        is_later
    }

    pub fn now(&self) -> Now {
        self.now
    }

    /// The period of what was taken a moment ago, to put it back. In the first second of a period
    /// it is the one before: what is put back then is lost, rather than put into the new one.
    pub fn before(&self) -> Period {
        let is_young = self.now.unix_ns < self.begin_ns.saturating_add(SECOND_NS);
        if is_young { self.now.period.saturating_sub(1) } else { self.now.period }
    }

    fn set(&mut self, period: Period) {
        let ns = |seconds: u64| seconds.saturating_mul(SECOND_NS);
        self.begin_ns = ns(self.calendar.begin(period));
        self.now.end_ns = ns(self.calendar.end(period));
        self.now.period = period;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::Per;

    #[test]
    fn a_clock_may_be_set() {
        let hour = 3600 * SECOND_NS;
        let mut turn = Turn::new(Calendar { per: Per::Hour, offset_s: 0 }, 10 * hour);
        // The clock, whether another period begins by it, which it is, and that of what was taken
        // a moment ago.
        for (now_ns, is_other, period, before) in [
            (10 * hour + 1, false, 10, 9),
            (10 * hour + SECOND_NS, false, 10, 10),
            (11 * hour - 1, false, 10, 10),
            (11 * hour, true, 11, 10),
            (11 * hour - 1, false, 11, 10),
            (11 * hour + SECOND_NS, false, 11, 11),
            (5 * hour, true, 5, 4),
            (90 * hour + SECOND_NS, true, 90, 90),
        ] {
            assert_eq!(turn.go(now_ns), is_other, "{now_ns}");
            assert_eq!((turn.now().period, turn.before()), (period, before), "{now_ns}");
            assert_eq!(
                (turn.now().unix_ns, turn.now().end_ns),
                (now_ns, u64::from(period + 1) * hour)
            );
        }
        assert!(!turn.hear(89) && !turn.hear(90) && turn.hear(91));
        assert!(!turn.go(90 * hour + 2), "others know better, for a moment");
        assert_eq!(turn.now().period, 91);
    }
}
