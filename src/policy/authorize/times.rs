//! Times of the week, in the time of a place.

use chrono::{DateTime, Datelike, Offset, TimeDelta, TimeZone, Timelike};
use chrono_tz::Tz;

/// Days, and part of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub zone: Tz,
    /// Bit 0 is Monday.
    pub days: u8,
    /// Minutes since midnight: the first one that is in.
    pub from: u16,
    /// The first one that is not. Not after `from`: of the next day. Equal: the whole day.
    pub to: u16,
}

/// Every day of the week.
pub const ALL_DAYS: u8 = 0x7f;

impl Times {
    /// Whether a moment is in, in seconds since 1970. After midnight the day that began counts, not
    /// the one before.
    pub fn have(&self, now_s: i64) -> bool {
        // Beyond the years that can be told: never.
        let Some(utc) = DateTime::from_timestamp(now_s, 0).map(|now| now.naive_utc()) else {
            return false;
        };
        let offset = self.zone.offset_from_utc_datetime(&utc).fix().local_minus_utc();
        let local = utc + TimeDelta::seconds(i64::from(offset));
        let day = local.weekday().num_days_from_monday();
        let minute = (local.hour() * 60 + local.minute()) as u16;
        let is_in = match self.from.cmp(&self.to) {
            std::cmp::Ordering::Less => (self.from..self.to).contains(&minute),
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Greater => minute >= self.from || minute < self.to,
        };
        is_in && self.days & (1 << day) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let office = Times { zone: Tz::Europe__Berlin, days: 0b1_1111, from: 8 * 60, to: 18 * 60 };
        let night = Times { zone: Tz::UTC, days: ALL_DAYS, from: 22 * 60, to: 6 * 60 };
        let sunday = Times { zone: Tz::Asia__Kolkata, days: 0b100_0000, from: 0, to: 0 };
        for (times, now, is_in) in [
            // In summer Berlin is two hours ahead, in winter one.
            (office, "2026-07-01T05:59:59Z", false),
            (office, "2026-07-01T06:00:00Z", true),
            (office, "2026-07-01T15:59:59Z", true),
            (office, "2026-07-01T16:00:00Z", false),
            (office, "2026-12-01T06:59:59Z", false),
            (office, "2026-12-01T07:00:00Z", true),
            // A Saturday.
            (office, "2026-12-05T10:00:00Z", false),
            (night, "2026-12-05T21:59:59Z", false),
            (night, "2026-12-05T22:00:00Z", true),
            (night, "2026-12-06T05:59:59Z", true),
            (night, "2026-12-06T06:00:00Z", false),
            // Half past five in the morning there.
            (sunday, "2026-12-06T00:00:00Z", true),
            (sunday, "2026-12-05T18:29:59Z", false),
            (sunday, "2026-12-05T18:30:00Z", true),
            (sunday, "2026-12-06T18:30:00Z", false),
        ] {
            let moment = DateTime::parse_from_rfc3339(now).expect("a time");
            assert_eq!(times.have(moment.timestamp()), is_in, "{times:?} {now}");
        }
        assert!(!office.have(i64::MAX));
    }
}
