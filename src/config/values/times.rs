//! Times of the week: days, times of day, time zones.

use super::{Bad, FromText, bad};
use crate::config::decode::nearest;

/// Names of days, in their order.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A day, or a range of days. Bit 0 is Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(pub u8);

impl FromText for Days {
    const WHAT: &'static str = "a day or a range of days";
    const EXAMPLE: &'static str = "mon-fri";

    fn read(text: &str) -> Result<Self, Bad> {
        let day = |name: &str| match DAYS.iter().position(|day| *day == name) {
            Some(at) => Ok(at),
            None => {
                let lower = name.to_ascii_lowercase();
                let near = DAYS.iter().find(|day| lower.starts_with(**day));
                let near = near.copied().or_else(|| nearest(&lower, &DAYS)).unwrap_or("mon");
                bad("no day", format!("write \"{near}\", or a range such as \"mon-fri\""))
            }
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (day(first)?, day(last)?);
        // A range may go over the week's end.
        let length = (last + 7 - first) % 7;
        Ok(Days((0..=length).fold(0, |days, n| days | 1 << ((first + n) % 7))))
    }

    fn show(&self) -> String {
        let is_in = |day: usize| self.0 & (1 << (day % 7)) != 0;
        // A range begins after a day that is out; all days have none.
        let first = (0..7).find(|day| is_in(*day) && !is_in(day + 6)).unwrap_or(0);
        let length = (0..7).take_while(|n| is_in(first + n)).count().max(1);
        match length {
            1 => DAYS[first].to_owned(),
            _ => format!("{}-{}", DAYS[first], DAYS[(first + length - 1) % 7]),
        }
    }
}

/// Minutes since midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockTime(pub u16);

impl FromText for ClockTime {
    const WHAT: &'static str = "a time of day";
    const EXAMPLE: &'static str = "08:00";

    fn read(text: &str) -> Result<Self, Bad> {
        let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.len() == 2);
        let parts = text.split_once(':').map(|(hour, minute)| (number(hour), number(minute)));
        match parts {
            Some((Some(hour @ 0..=23), Some(minute @ 0..=59))) => Ok(ClockTime(hour * 60 + minute)),
            Some((Some(24), Some(0))) => Ok(ClockTime(0)),
            _ => bad("not a time", "write hours and minutes, such as \"08:00\" or \"17:30\""),
        }
    }

    fn show(&self) -> String {
        format!("{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// A time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneName(pub chrono_tz::Tz);

impl FromText for ZoneName {
    const WHAT: &'static str = "the name of a time zone";
    const EXAMPLE: &'static str = "Europe/Berlin";

    fn read(text: &str) -> Result<Self, Bad> {
        if let Ok(zone) = text.parse() {
            return Ok(ZoneName(zone));
        }
        let names: Vec<&str> = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
        let near = nearest(text, &names).unwrap_or("Europe/Berlin");
        bad("no time zone of the IANA database", format!("write \"{near}\""))
    }

    fn show(&self) -> String {
        self.0.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_shown() {
        for (text, bits, shown) in [
            ("mon", 0b000_0001, "mon"),
            ("mon-fri", 0b001_1111, "mon-fri"),
            ("sat-mon", 0b110_0001, "sat-mon"),
            ("mon-sun", 0b111_1111, "mon-sun"),
            ("wed-tue", 0b111_1111, "mon-sun"),
        ] {
            let days = Days::read(text).map_err(|bad| bad.fix).expect(text);
            assert_eq!((days.0, &*days.show()), (bits, shown));
        }
        let fix = Days::read("Monday").map_err(|bad| bad.fix).expect_err("no day");
        assert!(fix.starts_with("write \"mon\""), "{fix}");
    }
}
