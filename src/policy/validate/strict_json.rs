//! JSON that can be read in one way only: no name is there twice in an object, which readers take
//! differently, and nothing is nested deeper than allowed.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::fault::cut;

/// Deepest nesting that can be allowed: what reads JSON goes no deeper.
pub const DEPTH_MAX: u8 = 100;

/// Why a text is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It is not well-formed, or has a name twice.
    Malformed(String),
    /// It is nested too deeply.
    Deep,
}

/// Starts the message of what is too deep.
const DEEP: &str = "nested too deeply";

/// Reads a text; arrays and objects may be in one another `depth_max` times.
pub fn read(text: &[u8], depth_max: u8) -> Result<Value, Bad> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Nested(depth_max.min(DEPTH_MAX)).deserialize(&mut reader);
    let whole = read.and_then(|value| reader.end().map(|()| value));
    whole.map_err(|error| match error.to_string() {
        message if message.starts_with(DEEP) => Bad::Deep,
        message => Bad::Malformed(cut(&message)),
    })
}

/// Reads one value, in which so many levels may begin.
#[derive(Clone, Copy)]
struct Nested(u8);

impl Nested {
    fn inner<E: de::Error>(self) -> Result<Nested, E> {
        self.0.checked_sub(1).map(Nested).ok_or_else(|| E::custom(DEEP))
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut all = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if all.contains_key(&name) {
                return Err(de::Error::custom("an object has a name twice"));
            }
            let value = members.next_value_seed(inner)?;
            all.insert(name, value);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_can_be_read_in_two_ways_is_not_taken() {
        for (text, expected) in [
            (r#"{"a":1,"a":2}"#, "an object has a name twice"),
            (r#"[{"a":{"b":1,"\u0062":2}}]"#, "an object has a name twice"),
            ("1 2", "trailing characters"),
            ("", "EOF while parsing"),
            ("{\"a\":1,}", "trailing comma"),
            ("1e999", "number out of range"),
            ("\u{feff}1", "expected value"),
            ("NaN", "expected value"),
            ("\"\u{1}\"", "control character"),
        ] {
            match read(text.as_bytes(), 8) {
                Err(Bad::Malformed(message)) => assert!(message.contains(expected), "{message}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(matches!(read(b"\"\xff\"", 8), Err(Bad::Malformed(_))));
    }

    #[test]
    fn nesting_has_a_bound() {
        for depth in 1..=DEPTH_MAX {
            let text = format!("{}1{}", "[".repeat(depth.into()), "]".repeat(depth.into()));
            assert!(read(text.as_bytes(), depth).is_ok(), "{depth}");
            assert_eq!(read(text.as_bytes(), depth - 1), Err(Bad::Deep), "{depth}");
        }
        let bomb = "[".repeat(1_000_000);
        assert_eq!(read(bomb.as_bytes(), 255), Err(Bad::Deep));
        assert_eq!(read(r#"{"a":{"b":[]}}"#.as_bytes(), 2), Err(Bad::Deep));
        assert_eq!(read(b"1", 0), Ok(1.into()));
    }

    proptest! {
        #[test]
        fn what_has_no_name_twice_is_read_as_usual(text in "[\\[\\]{}\",:0-9a-b .eE+-]{0,24}") {
            let usual = serde_json::from_str::<Value>(&text).ok();
            match read(text.as_bytes(), DEPTH_MAX) {
                Ok(value) => prop_assert_eq!(Some(value), usual),
                Err(Bad::Malformed(message)) if message.contains("twice") => {}
                Err(_) => prop_assert_eq!(usual, None),
            }
        }
    }
}
