//! What `[rate_limits]` is made of: rates, and what a limit counts by.

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{Bad, FromText, bad, is_token};
use crate::{
    config::{
        decode::{Decode, Sink, quoted},
        report::Place,
        units::Millis,
    },
    policy::limit::KeyPart,
};

/// So many in so much time, written `"100/s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub period_ms: u64,
}

/// Largest number before the slash.
const COUNT_MAX: u32 = 10_000_000;
/// Longest period: 31 days.
const PERIOD_MS_MAX: u64 = 31 * 86_400_000;

impl FromText for Rate {
    const WHAT: &'static str = "a rate";
    const EXAMPLE: &'static str = "100/s";

    fn read(text: &str) -> Result<Self, Bad> {
        const FIX: &str = "write a number, a slash and a unit of time, such as \"100/s\", \"1000/m\", \
                           \"50/10s\", \"10000/h\" or \"100000/d\"";
        let Some((count, period)) = text.split_once('/') else {
            if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
                return bad("without a unit of time", format!("write \"{text}/s\""));
            }
            return bad("not such a rate", FIX);
        };
        let Ok(number) = count.parse::<u64>() else { return bad("not such a rate", FIX) };
        let Some(number) = u32::try_from(number).ok().filter(|n| (1..=COUNT_MAX).contains(n))
        else {
            return bad("the number is out of range", "write a number between 1 and 10000000");
        };
        let digits = period.bytes().take_while(u8::is_ascii_digit).count();
        let period = if digits == 0 { format!("1{period}") } else { period.to_owned() };
        match Millis::parse(&period) {
            Ok(Millis(period_ms)) if (1..=PERIOD_MS_MAX).contains(&period_ms) => {
                Ok(Rate { count: number, period_ms })
            }
            Ok(_) => bad("the time is out of range", "write a time between 1ms and 31d"),
            Err(wrong) => {
                // What durations want to have written, with the number before it.
                let unit =
                    wrong.fix.strip_prefix("write \"1").and_then(|rest| rest.split_once('"'));
                match unit {
                    Some((unit, "")) => bad(wrong.what, format!("write \"{count}/{unit}\"")),
                    _ => bad("an unknown unit of time", FIX),
                }
            }
        }
    }

    fn show(&self) -> String {
        let period = Millis(self.period_ms).to_string();
        let unit = period.strip_prefix('1').filter(|rest| rest.starts_with(char::is_alphabetic));
        format!("{}/{}", self.count, unit.unwrap_or(&period))
    }
}

/// What a limit counts by: one thing, or several together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitKey(pub Vec<KeyPart>);

/// Parts of one key, at most.
const PARTS_MAX: usize = 8;

const KEY_FIX: &str = "write \"client\", \"consumer\", \"subject\", \"claim:NAME\", \"header:NAME\", \
                       \"query:NAME\", \"cookie:NAME\", \"route\" or \"host\", or several of them \
                       in [ ]";

fn part(text: &str) -> Result<KeyPart, Bad> {
    let (kind, name) = text.split_once(':').map_or((text, None), |(kind, name)| (kind, Some(name)));
    let named = match (kind, name) {
        ("client" | "address" | "ip", None) if kind != "client" => {
            return bad("not known by that name", "write \"client\"");
        }
        ("client", None) => return Ok(KeyPart::Client),
        ("consumer", None) => return Ok(KeyPart::Consumer),
        ("subject", None) => return Ok(KeyPart::Subject),
        ("route", None) => return Ok(KeyPart::Route),
        ("host", None) => return Ok(KeyPart::Host),
        ("claim" | "header" | "query" | "cookie", Some(name)) if !name.is_empty() => name,
        ("claim" | "header" | "query" | "cookie", _) => {
            return bad("without a name", format!("write \"{kind}:NAME\""));
        }
        _ => return bad("not one of them", KEY_FIX),
    };
    match kind {
        "header" | "cookie" if !is_token(named) => {
            bad("has a character that no such name has", format!("write \"{kind}:X-Tenant\""))
        }
        "header" => Ok(KeyPart::Header(named.to_ascii_lowercase().into())),
        "cookie" => Ok(KeyPart::Cookie(named.into())),
        "query" => Ok(KeyPart::Query(named.into())),
        _ => Ok(KeyPart::Claim(named.into())),
    }
}

impl Decode for LimitKey {
    const EXPECTED: &'static str = "what a limit counts by";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        let one = |value: &DeValue<'_>, place: Place, sink: &mut Sink| {
            let Some(text) = value.as_str() else {
                sink.wrong_type(value, place, Self::EXPECTED, KEY_FIX);
                return None;
            };
            let read = part(text);
            read.map_err(|bad| sink.bad_value(place, Self::EXPECTED, &bad.label, &bad.fix)).ok()
        };
        let Some(array) = value.as_array() else {
            return Some(LimitKey(vec![one(value, place, sink)?]));
        };
        if array.is_empty() || array.len() > PARTS_MAX {
            let label = if array.is_empty() { "empty" } else { "more than eight" };
            sink.bad_value(place, Self::EXPECTED, label, KEY_FIX);
            return None;
        }
        let parts: Vec<_> =
            array.iter().map(|item| one(item.get_ref(), item.span().into(), sink)).collect();
        parts.into_iter().collect::<Option<Vec<_>>>().map(LimitKey)
    }

    fn written(&self) -> Option<String> {
        let parts: Vec<String> = self.0.iter().map(|part| quoted(&part.to_string())).collect();
        match &parts[..] {
            [one] => Some(one.clone()),
            several => Some(format!("[{}]", several.join(", "))),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        let part = json_schema!({ "type": "string" });
        json_schema!({ "oneOf": [
            part,
            { "type": "array", "items": part, "minItems": 1, "maxItems": PARTS_MAX },
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, count, period_ms) in [
            ("100/s", 100, 1000),
            ("5/500ms", 5, 500),
            ("1000/m", 1000, 60_000),
            ("50/10s", 50, 10_000),
            ("10/h", 10, 3_600_000),
            ("1/31d", 1, 31 * 86_400_000),
        ] {
            let rate = Rate::read(text).map_err(|bad| bad.fix);
            assert_eq!(rate, Ok(Rate { count, period_ms }), "{text}");
            assert_eq!(rate.map(|rate| rate.show()), Ok(text.to_owned()));
        }
        assert_eq!(Rate { count: 1, period_ms: 86_400_000 }.show(), "1/d");
        for (text, part_of_fix) in [
            ("100", "write \"100/s\""),
            ("100 per second", "write a number, a slash"),
            ("100/min", "write \"100/m\""),
            ("100/second", "write \"100/s\""),
            ("100/fortnight", "write a number, a slash"),
            ("0/s", "between 1 and"),
            ("1/32d", "between 1ms"),
            ("", "write a number, a slash"),
        ] {
            let fix = Rate::read(text).err().map(|bad| bad.fix).unwrap_or_default();
            assert!(fix.contains(part_of_fix), "{text}: {fix}");
        }
    }
}
