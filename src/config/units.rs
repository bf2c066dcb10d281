//! Quantities with units, as written in a configuration: `"250ms"`, `"64KiB"`.
//!
//! A plain number is never accepted where a unit is needed, so no reader has to know the default
//! unit. Reading and writing are inverse: `parse(written(x)) == x`.

use std::fmt;

/// A span of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

/// A span of time, or no bound at all, written `"0"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MillisOrOff(pub Option<Millis>);

/// A span of time in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

pub const fn millis(n: u64) -> Millis {
    Millis(n)
}

pub const fn micros(n: u64) -> Micros {
    Micros(n)
}

pub const fn seconds(n: u64) -> Millis {
    Millis(n * 1000)
}

pub const fn minutes(n: u64) -> Millis {
    Millis(n * 60_000)
}

pub const fn hours(n: u64) -> Millis {
    Millis(n * 3_600_000)
}

pub const fn bytes(n: u64) -> Size {
    Size(n)
}

pub const fn kib(n: u64) -> Size {
    Size(n << 10)
}

pub const fn mib(n: u64) -> Size {
    Size(n << 20)
}

pub const fn gib(n: u64) -> Size {
    Size(n << 30)
}

const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

const SHORT_TIME_UNITS: [(&str, u64); 2] = [("ms", 1000), ("us", 1)];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("B", 1),
];

/// Spellings other programs use, and ours.
const TIME_ALIASES: [(&str, &str); 12] = [
    ("msec", "ms"),
    ("millis", "ms"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("hour", "h"),
    ("hours", "h"),
];

const SHORT_TIME_ALIASES: [(&str, &str); 6] = [
    ("µs", "us"),
    ("usec", "us"),
    ("micros", "us"),
    ("microseconds", "us"),
    ("msec", "ms"),
    ("millis", "ms"),
];

const SIZE_ALIASES: [(&str, &str); 10] = [
    ("b", "B"),
    ("bytes", "B"),
    ("k", "KiB"),
    ("kb", "KB"),
    ("kib", "KiB"),
    ("m", "MiB"),
    ("mb", "MB"),
    ("mib", "MiB"),
    ("g", "GiB"),
    ("gib", "GiB"),
];

/// Why a quantity cannot be read; its text says what to write.
#[derive(Debug, PartialEq, Eq)]
pub struct BadQuantity {
    pub what: &'static str,
    pub fix: String,
}

struct Kind {
    units: &'static [(&'static str, u64)],
    aliases: &'static [(&'static str, &'static str)],
    /// Added to a bare number in the fix.
    usual_unit: &'static str,
    examples: &'static str,
}

const TIME: Kind = Kind {
    units: &TIME_UNITS,
    aliases: &TIME_ALIASES,
    usual_unit: "s",
    examples: r#"write a whole number with one of the units ms, s, m, h or d, such as "250ms" or "30s""#,
};

const SHORT_TIME: Kind = Kind {
    units: &SHORT_TIME_UNITS,
    aliases: &SHORT_TIME_ALIASES,
    usual_unit: "us",
    examples: r#"write a whole number with one of the units us or ms, such as "50us""#,
};

const SIZE: Kind = Kind {
    units: &SIZE_UNITS,
    aliases: &SIZE_ALIASES,
    usual_unit: "B",
    examples: r#"write a whole number with one of the units B, KiB, MiB, GiB, KB, MB or GB, such as "64KiB" or "10MB""#,
};

impl Kind {
    fn parse(&self, text: &str) -> Result<u64, BadQuantity> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(self.bad("not a number with a unit"));
        }
        if unit.is_empty() {
            let fix = format!("write \"{number}{}\"", self.usual_unit);
            return Err(BadQuantity { what: "a number without its unit", fix });
        }
        let Some(&(_, factor)) = self.units.iter().find(|(name, _)| *name == unit) else {
            return Err(self.bad_unit(number, unit));
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(factor))
            .ok_or_else(|| self.bad("far too large"))
    }

    fn bad(&self, what: &'static str) -> BadQuantity {
        BadQuantity { what, fix: self.examples.to_owned() }
    }

    fn bad_unit(&self, number: &str, unit: &str) -> BadQuantity {
        let word = unit.trim();
        let known = self
            .units
            .iter()
            .map(|(name, _)| (*name, *name))
            .chain(self.aliases.iter().copied())
            .find(|(name, _)| *name == word || name.eq_ignore_ascii_case(word));
        match known {
            Some((_, right)) => {
                let what =
                    if word == right { "written with a space" } else { "a unit spelt wrong" };
                BadQuantity { what, fix: format!("write \"{number}{right}\"") }
            }
            None if unit.starts_with(['.', ',']) => self.bad("not a whole number"),
            None => self.bad("a number with an unknown unit"),
        }
    }

    /// The largest unit that divides it.
    fn written(&self, value: u64) -> String {
        self.units
            .iter()
            .filter(|(name, factor)| {
                value != 0 && value.is_multiple_of(*factor) && !name.starts_with("TB")
            })
            .map(|(name, factor)| format!("{}{name}", value / factor))
            .min_by_key(String::len)
            .unwrap_or_else(|| format!("{value}{}", self.usual_unit))
    }
}

impl Millis {
    pub fn parse(text: &str) -> Result<Millis, BadQuantity> {
        TIME.parse(text).map(Millis)
    }
}

impl Micros {
    pub fn parse(text: &str) -> Result<Micros, BadQuantity> {
        SHORT_TIME.parse(text).map(Micros)
    }
}

impl Size {
    pub fn parse(text: &str) -> Result<Size, BadQuantity> {
        SIZE.parse(text).map(Size)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&TIME.written(self.0))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&SHORT_TIME.written(self.0))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&SIZE.written(self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("0ms", 0),
            ("250ms", 250),
            ("2s", 2000),
            ("1m", 60_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("007s", 7000),
        ] {
            assert_eq!(Millis::parse(text), Ok(Millis(want)), "{text}");
        }
    }

    #[test]
    fn short_durations() {
        for (text, want) in [("0us", 0), ("50us", 50), ("1ms", 1000)] {
            assert_eq!(Micros::parse(text), Ok(Micros(want)), "{text}");
        }
        let spelt_wrong = BadQuantity { what: "a unit spelt wrong", fix: "write \"5us\"".into() };
        assert_eq!(Micros::parse("5µs"), Err(spelt_wrong));
    }

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0B", 0),
            ("240B", 240),
            ("64KiB", 65_536),
            ("64KB", 64_000),
            ("1MiB", 1_048_576),
            ("10MB", 10_000_000),
            ("1GiB", 1 << 30),
            ("2GB", 2_000_000_000),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(Size::parse(text), Ok(Size(want)), "{text}");
        }
    }

    #[test]
    fn what_to_write_instead() {
        for (text, what, fix) in [
            ("30", "a number without its unit", "write \"30s\""),
            ("30 s", "written with a space", "write \"30s\""),
            ("30sec", "a unit spelt wrong", "write \"30s\""),
            ("5MIN", "a unit spelt wrong", "write \"5m\""),
            ("1.5s", "not a whole number", TIME.examples),
            ("-1s", "not a number with a unit", TIME.examples),
            ("", "not a number with a unit", TIME.examples),
            ("5 lightyears", "a number with an unknown unit", TIME.examples),
            ("99999999999999999999s", "far too large", TIME.examples),
        ] {
            assert_eq!(Millis::parse(text), Err(BadQuantity { what, fix: fix.into() }), "{text}");
        }
        for (text, what, fix) in [
            ("65536", "a number without its unit", "write \"65536B\""),
            ("64k", "a unit spelt wrong", "write \"64KiB\""),
            ("64kb", "a unit spelt wrong", "write \"64KB\""),
            ("64 KiB", "written with a space", "write \"64KiB\""),
            ("64furlongs", "a number with an unknown unit", SIZE.examples),
            ("99999999TiB", "far too large", SIZE.examples),
        ] {
            assert_eq!(Size::parse(text), Err(BadQuantity { what, fix: fix.into() }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn written_and_read_again(n in any::<u64>()) {
            prop_assert_eq!(Millis::parse(&Millis(n).to_string()), Ok(Millis(n)));
            prop_assert_eq!(Micros::parse(&Micros(n).to_string()), Ok(Micros(n)));
            prop_assert_eq!(Size::parse(&Size(n).to_string()), Ok(Size(n)));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Millis::parse(&text);
            let _ = Micros::parse(&text);
            let _ = Size::parse(&text);
        }
    }
}
