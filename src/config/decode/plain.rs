//! Types that any section may use: numbers, texts, lists, quantities with units.

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{At, Decode, ENTRY, Shape, Sink, quoted, text};
use crate::config::{
    report::Place,
    units::{BadQuantity, Micros, Millis, MillisOrOff, Size},
};

/// The number of an integer value; `None` when it does not fit.
pub fn integer(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

macro_rules! decode_integer {
    ($($ty:ty),+) => { $(
        impl Decode for $ty {
            const EXPECTED: &'static str = "a whole number";

            fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
                if value.as_integer().is_none() {
                    let inner = value.as_str().filter(|text| text.parse::<$ty>().is_ok());
                    let fix = inner.map_or("write a number without quotation marks or unit".to_owned(), |text| {
                        format!("write {text}, without quotation marks")
                    });
                    sink.wrong_type(value, place, Self::EXPECTED, &fix);
                    return None;
                }
                let number = integer(value).and_then(|n| <$ty>::try_from(n).ok());
                if number.is_none() {
                    let widest = || format!("between 0 and {}", <$ty>::MAX);
                    let expected = sink.bounds.clone().unwrap_or_else(widest);
                    sink.bad_value(place, &expected, "out of range", "write a number in that range");
                }
                number
            }

            fn written(&self) -> Option<String> {
                Some(self.to_string())
            }

            fn schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "integer", "minimum": 0, "maximum": <$ty>::MAX })
            }

            fn amount(&self) -> Option<u64> {
                Some(u64::from(*self))
            }
        }
    )+ };
}

decode_integer!(u8, u16, u32);

impl Decode for bool {
    const EXPECTED: &'static str = "true or false";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        let decoded = value.as_bool();
        if decoded.is_none() {
            let fix = match value.as_str() {
                Some("true" | "yes" | "on") => "write true, without quotation marks",
                Some("false" | "no" | "off") => "write false, without quotation marks",
                _ => "write true or false",
            };
            sink.wrong_type(value, place, Self::EXPECTED, fix);
        }
        decoded
    }

    fn written(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

impl Decode for String {
    const EXPECTED: &'static str = "a string";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        text(value, place, sink, Self::EXPECTED, "write it in quotation marks").map(str::to_owned)
    }

    fn written(&self) -> Option<String> {
        Some(quoted(self))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl<T: Decode> Decode for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        T::decode(value, place, sink).map(Some)
    }

    fn written(&self) -> Option<String> {
        self.as_ref().and_then(T::written)
    }

    fn effective(&self) -> Option<toml::Value> {
        self.as_ref().and_then(T::effective)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }

    fn amount(&self) -> Option<u64> {
        self.as_ref().and_then(T::amount)
    }

    fn shape() -> Shape {
        T::shape()
    }
}

impl<T: Decode> Decode for Vec<At<T>> {
    const EXPECTED: &'static str = "an array";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        let Some(array) = value.as_array() else {
            let name = sink.path.last().map_or("", String::as_str);
            let fix = match (T::shape(), value) {
                (Shape::Section(_), DeValue::Table(_)) => {
                    format!("write [[{name}]], with two brackets: there can be several")
                }
                (Shape::Section(_), _) => format!("write [[{name}]] and the keys of one below it"),
                (_, DeValue::String(text)) => format!("write {name} = [{}]", quoted(text)),
                _ => format!("write {name} = [...]"),
            };
            sink.wrong_type(value, place, Self::EXPECTED, &fix);
            return None;
        };
        let is_section = matches!(T::shape(), Shape::Section(_));
        let mut values = Vec::with_capacity(array.len());
        for element in array.iter() {
            let place = Place::from(element.span());
            let decoded = if is_section {
                T::decode(element.get_ref(), place, sink)
            } else {
                sink.within(ENTRY, |sink| T::decode(element.get_ref(), place, sink))
            };
            values.extend(decoded.map(|value| At::written(value, place)));
        }
        // A list of values with one missing is not what was meant; sections stand each alone.
        (is_section || values.len() == array.len()).then_some(values)
    }

    fn written(&self) -> Option<String> {
        let values: Option<Vec<String>> = self.iter().map(|value| value.written()).collect();
        match T::shape() {
            Shape::Value => values.map(|values| format!("[{}]", values.join(", "))),
            _ => None,
        }
    }

    fn effective(&self) -> Option<toml::Value> {
        Some(toml::Value::Array(self.iter().filter_map(|value| value.effective()).collect()))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": T::schema(generator) })
    }

    fn shape() -> Shape {
        match T::shape() {
            Shape::Section(section) => Shape::Sections(section),
            _ => Shape::Value,
        }
    }
}

/// A table whose keys are names given by the operator, in the order of the file. A value that is
/// wrong is `None`, so that its name is still known.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<(At<String>, Option<T>)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<T: Decode> Decode for Named<T> {
    const EXPECTED: &'static str = "a table";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        let name = sink.path.last().cloned().unwrap_or_default();
        let table =
            sink.table(value, place, &format!("write [{name}.NAME], with a name of your own"))?;
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let decoded = entries.into_iter().map(|(key, value)| {
            let name: &str = key.get_ref();
            let inner =
                sink.within(name, |sink| T::decode(value.get_ref(), value.span().into(), sink));
            (At::written(name.to_owned(), key.span().into()), inner)
        });
        Some(Named(decoded.collect()))
    }

    fn written(&self) -> Option<String> {
        self.0.is_empty().then(|| "{}".to_owned()).filter(|_| matches!(T::shape(), Shape::Value))
    }

    fn effective(&self) -> Option<toml::Value> {
        let entries = self.0.iter().filter_map(|(name, value)| {
            Some((name.value.clone(), value.as_ref().and_then(T::effective)?))
        });
        Some(toml::Value::Table(entries.collect()))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": T::schema(generator) })
    }

    fn shape() -> Shape {
        match T::shape() {
            Shape::Section(section) => Shape::Named(section),
            _ => Shape::Value,
        }
    }
}

/// A quantity from text, or a report of why not.
fn quantity<T>(
    value: &DeValue<'_>,
    place: Place,
    sink: &mut Sink,
    (expected, unit): (&str, &str),
    parse: impl Fn(&str) -> Result<T, BadQuantity>,
) -> Option<T> {
    let parsed = match value {
        DeValue::String(text) => parse(text),
        DeValue::Integer(number) if number.radix() == 10 => Err(BadQuantity {
            what: "a number without its unit",
            fix: format!("write \"{number}{unit}\""),
        }),
        _ => parse(""),
    };
    match parsed {
        Ok(value) => Some(value),
        Err(bad) => {
            sink.bad_value(place, expected, bad.what, &bad.fix);
            None
        }
    }
}

const DURATION_PATTERN: &str = "^[0-9]+(ms|s|m|h|d)$";

impl Decode for Millis {
    const EXPECTED: &'static str = "a duration";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        quantity(value, place, sink, (Self::EXPECTED, "s"), Millis::parse)
    }

    fn written(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration-with-unit", "pattern": DURATION_PATTERN })
    }

    fn amount(&self) -> Option<u64> {
        Some(self.0)
    }
}

impl Decode for Micros {
    const EXPECTED: &'static str = "a short duration";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        quantity(value, place, sink, (Self::EXPECTED, "us"), Micros::parse)
    }

    fn written(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration-with-unit", "pattern": "^[0-9]+(us|ms)$" })
    }

    fn amount(&self) -> Option<u64> {
        Some(self.0)
    }
}

impl Decode for MillisOrOff {
    const EXPECTED: &'static str = "a duration, or \"0\" for none";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        quantity(value, place, sink, (Self::EXPECTED, "s"), |text| match text {
            "0" => Ok(MillisOrOff(None)),
            _ => Millis::parse(text).map(|ms| MillisOrOff(Some(ms).filter(|ms| ms.0 > 0))),
        })
    }

    fn written(&self) -> Option<String> {
        self.0.map_or(Some("\"0\"".to_owned()), |ms| ms.written())
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "format": "duration-with-unit", "pattern": "^(0|[0-9]+(ms|s|m|h|d))$",
        })
    }

    fn amount(&self) -> Option<u64> {
        self.0.map(|ms| ms.0)
    }
}

impl Decode for Size {
    const EXPECTED: &'static str = "a size";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        quantity(value, place, sink, (Self::EXPECTED, "B"), Size::parse)
    }

    fn written(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "format": "size-with-unit", "pattern": "^[0-9]+(B|[KMGT]i?B)$",
        })
    }

    fn amount(&self) -> Option<u64> {
        Some(self.0)
    }
}
