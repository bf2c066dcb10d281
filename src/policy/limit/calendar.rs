//! Periods of quotas: hours, days, weeks and months of the calendar, at a fixed distance from UTC.
//!
//! Periods of one kind are numbered, so that a later one has a larger number. Daylight saving time
//! does not exist here: a day has 24 hours.

use chrono::{DateTime, Datelike, NaiveDate};

const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
/// The first Monday of weeks counted from 0 comes three days before 1970.
const MONDAY_DAYS: i64 = 3;

/// The number of a period.
pub type Period = u32;

/// The largest one, which no clock shows.
pub const PERIOD_MAX: Period = (1 << 31) - 1;

/// How long a period is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Per {
    Hour,
    #[default]
    Day,
    /// From Monday, as ISO 8601 has it.
    Week,
    Month,
}

impl Per {
    pub fn word(self) -> &'static str {
        match self {
            Per::Hour => "hour",
            Per::Day => "day",
            Per::Week => "week",
            Per::Month => "month",
        }
    }

    /// Seconds, where all are as long.
    pub fn seconds(self) -> Option<u64> {
        let seconds = match self {
            Per::Hour => HOUR_S,
            Per::Day => DAY_S,
            Per::Week => 7 * DAY_S,
            Per::Month => return None,
        };
        Some(seconds.unsigned_abs())
    }
}

/// When periods begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Calendar {
    pub per: Per,
    /// Seconds that the clock of the calendar is ahead of UTC; less than a day.
    pub offset_s: i32,
}

impl Calendar {
    /// The period of a moment in seconds since 1970.
    pub fn period(&self, unix_s: u64) -> Period {
        let local = i64::try_from(unix_s).unwrap_or(0).saturating_add(self.offset_s.into()).max(0);
        let days = local / DAY_S;
        let number = match self.per {
            Per::Hour => local / HOUR_S,
            Per::Day => days,
            Per::Week => (days + MONDAY_DAYS) / 7,
            Per::Month => {
                let date = DateTime::from_timestamp(local, 0).unwrap_or_default();
                i64::from(date.year()) * 12 + i64::from(date.month0())
            }
        };
        Period::try_from(number).map_or(PERIOD_MAX, |number| number.min(PERIOD_MAX))
    }

    /// When a period begins, in seconds since 1970; the first one begins there.
    pub fn begin(&self, period: Period) -> u64 {
        let number = i64::from(period);
        let local = match self.per {
            Per::Hour => number * HOUR_S,
            Per::Day => number * DAY_S,
            Per::Week => (number * 7 - MONDAY_DAYS) * DAY_S,
            Per::Month => {
                let (year, month) = (i32::try_from(number / 12), number % 12 + 1);
                let date = year.ok().and_then(|year| {
                    NaiveDate::from_ymd_opt(year, u32::try_from(month).ok()?, 1)?
                        .and_hms_opt(0, 0, 0)
                });
                date.map_or(i64::MAX / 2, |date| date.and_utc().timestamp())
            }
        };
        u64::try_from(local - i64::from(self.offset_s)).unwrap_or(0)
    }

    /// When it is over.
    pub fn end(&self, period: Period) -> u64 {
        self.begin(period.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> u64 {
        u64::try_from(DateTime::parse_from_rfc3339(text).expect(text).timestamp()).expect(text)
    }

    #[test]
    fn periods_as_a_calendar_on_the_wall_has_them() {
        // Kind, distance from UTC in hours, a moment, when its period begins and ends.
        for (per, hours, now, begin, end) in [
            (Per::Hour, 0, "2026-11-28T22:59:59Z", "2026-11-28T22:00:00Z", "2026-11-28T23:00:00Z"),
            (Per::Day, 0, "2024-02-29T12:00:00Z", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
            (Per::Day, 2, "2026-11-28T22:00:00Z", "2026-11-28T22:00:00Z", "2026-11-29T22:00:00Z"),
            (Per::Day, -5, "2026-11-29T04:59:59Z", "2026-11-28T05:00:00Z", "2026-11-29T05:00:00Z"),
            // 2026-11-30 is a Monday.
            (Per::Week, 0, "2026-11-29T23:59:59Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
            (Per::Week, 0, "2026-11-30T00:00:00Z", "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"),
            // Leap years and those that are none, months of 30 and 31 days, the turn of a year.
            (Per::Month, 0, "2024-02-29T23:59:59Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            (Per::Month, 0, "2026-02-28T23:59:59Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
            (Per::Month, 0, "2100-02-28T23:59:59Z", "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z"),
            (Per::Month, 0, "2000-02-29T00:00:00Z", "2000-02-01T00:00:00Z", "2000-03-01T00:00:00Z"),
            (Per::Month, 0, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (
                Per::Month,
                14,
                "2026-12-31T10:00:00Z",
                "2026-12-31T10:00:00Z",
                "2027-01-31T10:00:00Z",
            ),
            (
                Per::Month,
                -12,
                "2027-01-01T11:59:59Z",
                "2026-12-01T12:00:00Z",
                "2027-01-01T12:00:00Z",
            ),
            // Europe sets its clocks back in this night: a day has 24 hours all the same.
            (Per::Day, 1, "2026-10-25T00:30:00Z", "2026-10-24T23:00:00Z", "2026-10-25T23:00:00Z"),
        ] {
            let calendar = Calendar { per, offset_s: hours * 3600 };
            let period = calendar.period(at(now));
            assert_eq!(calendar.begin(period), at(begin), "{per:?} {hours} {now}");
            assert_eq!(calendar.end(period), at(end), "{per:?} {hours} {now}");
            assert_eq!(calendar.period(at(end)), period + 1, "{per:?} {hours} {now}");
            assert_eq!(calendar.period(at(end) - 1), period, "{per:?} {hours} {now}");
        }
    }

    #[test]
    fn no_clock_is_too_wrong() {
        for per in [Per::Hour, Per::Day, Per::Week, Per::Month] {
            for unix_s in [0, 1, u64::MAX, i64::MAX.unsigned_abs()] {
                let calendar = Calendar { per, offset_s: -43_200 };
                let period = calendar.period(unix_s);
                let _ = (calendar.begin(period), calendar.end(period));
                assert!(period <= PERIOD_MAX);
            }
        }
    }

    proptest! {
        #[test]
        fn every_moment_is_in_one_period(
            unix_s in 2 * 86_400..16_000_000_000u64,
            offset_s in -43_200..50_400i32,
            per in prop::sample::select(vec![Per::Hour, Per::Day, Per::Week, Per::Month]),
        ) {
            let calendar = Calendar { per, offset_s };
            let period = calendar.period(unix_s);
            let (begin, end) = (calendar.begin(period), calendar.end(period));
            prop_assert!(begin <= unix_s && unix_s < end, "{begin} {unix_s} {end}");
            prop_assert_eq!(calendar.period(begin), period);
            prop_assert_eq!(calendar.period(end), period + 1);
            if let Some(seconds) = per.seconds() {
                prop_assert_eq!(end - begin, seconds);
            } else {
                prop_assert!((28..=31).contains(&((end - begin) / 86_400)));
            }
        }
    }
}
