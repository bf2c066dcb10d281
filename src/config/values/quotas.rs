//! What `[quotas]` is made of: how much in which period, and where that begins.

use super::{Bad, FromText, bad};
use crate::policy::limit::Per;

/// So much in each period, written `"100000/month"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    pub count: u32,
    pub per: Per,
}

/// Largest number before the slash.
const COUNT_MAX: u32 = 4_000_000_000;

impl FromText for Amount {
    const WHAT: &'static str = "a number and a period of the calendar";
    const EXAMPLE: &'static str = "100000/month";

    fn read(text: &str) -> Result<Self, Bad> {
        const FIX: &str = "write a number, a slash and a period, such as \"1000/hour\", \
                           \"10000/day\", \"50000/week\" or \"100000/month\"";
        let Some((count, period)) = text.split_once('/') else {
            if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
                return bad("without a period", format!("write \"{text}/day\""));
            }
            return bad("not such an amount", FIX);
        };
        let Ok(number) = count.parse::<u64>() else { return bad("not such an amount", FIX) };
        let per = match period {
            "hour" => Per::Hour,
            "day" => Per::Day,
            "week" => Per::Week,
            "month" => Per::Month,
            "h" | "d" | "w" => {
                let word = [("h", "hour"), ("d", "day"), ("w", "week")];
                let word = word.iter().find(|(short, _)| *short == period).map_or("", |(_, w)| w);
                return bad("no period of the calendar", format!("write \"{count}/{word}\""));
            }
            "s" | "m" | "second" | "minute" => {
                let fix =
                    "write a rate limit ([rate_limits.NAME]) for what is shorter than an hour";
                return bad("too short for a quota", fix);
            }
            "year" => {
                return bad("too long for a quota", format!("write \"{}/month\"", number / 12));
            }
            _ => return bad("no period of the calendar", FIX),
        };
        match u32::try_from(number).ok().filter(|n| (1..=COUNT_MAX).contains(n)) {
            Some(count) => Ok(Amount { count, per }),
            None => bad("the number is out of range", "write a number between 1 and 4000000000"),
        }
    }

    fn show(&self) -> String {
        format!("{}/{}", self.count, self.per.word())
    }
}

/// How far a clock is ahead of UTC, written `"+01:00"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UtcOffset {
    pub seconds: i32,
}

impl FromText for UtcOffset {
    const WHAT: &'static str = "a distance from UTC";
    const EXAMPLE: &'static str = "+01:00";

    fn read(text: &str) -> Result<Self, Bad> {
        const FIX: &str = "write \"+00:00\", \"+01:00\" or \"-05:30\"";
        let read = || {
            let sign = match text.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = text[1..].split_once(':')?;
            let two = |text: &str| {
                let is_two = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
                is_two.then(|| text.parse::<i32>().ok()).flatten()
            };
            let (hours, minutes) = (two(hours)?, two(minutes).filter(|minutes| *minutes < 60)?);
            Some(sign * (hours * 3600 + minutes * 60))
        };
        match read() {
            Some(seconds) if (-12 * 3600..=14 * 3600).contains(&seconds) => {
                Ok(UtcOffset { seconds })
            }
            Some(_) => bad("no clock is so far from UTC", FIX),
            None if text.contains('/') => bad(
                "the name of a zone, whose distance changes in the course of a year",
                "write the distance itself, \"+01:00\"",
            ),
            None => bad("not such a distance", FIX),
        }
    }

    fn show(&self) -> String {
        let (sign, minutes) = (if self.seconds < 0 { '-' } else { '+' }, self.seconds.abs() / 60);
        format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for text in ["1/hour", "10000/day", "7/week", "4000000000/month"] {
            assert_eq!(Amount::read(text).map(|amount| amount.show()).ok().as_deref(), Some(text));
        }
        for (text, part_of_fix) in [
            ("100", "write \"100/day\""),
            ("100/d", "write \"100/day\""),
            ("100/m", "rate limit"),
            ("1200/year", "write \"100/month\""),
            ("0/day", "between 1 and"),
            ("4000000001/day", "between 1 and"),
            ("many/day", "write a number"),
            ("1/fortnight", "write a number"),
        ] {
            let fix = Amount::read(text).map_err(|bad| bad.fix).unwrap_err();
            assert!(fix.contains(part_of_fix), "{text}: {fix}");
        }
    }

    #[test]
    fn distances_from_utc() {
        for (text, seconds) in
            [("+00:00", 0), ("+01:00", 3600), ("-05:30", -19_800), ("+14:00", 50_400)]
        {
            let read = UtcOffset::read(text).map_err(|bad| bad.fix);
            assert_eq!(read, Ok(UtcOffset { seconds }), "{text}");
            assert_eq!(read.map(|read| read.show()).as_deref(), Ok(text));
        }
        for text in ["", "01:00", "+1:00", "+15:00", "-13:00", "+01:60", "Europe/Berlin", "+é:00"]
        {
            assert!(UtcOffset::read(text).is_err(), "{text}");
        }
    }
}
