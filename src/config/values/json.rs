//! Values of any type.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;
use toml::de::DeValue;

use crate::{
    choice,
    config::{
        decode::{Decode, Sink, integer},
        report::Place,
    },
    policy::transform::Form,
};

/// Key `form` of a transformation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormUse {
    ToJson,
    FromJson,
}
choice!(FormUse: FormUse::ToJson = "to_json", FormUse::FromJson = "from_json");

impl From<FormUse> for Form {
    fn from(written: FormUse) -> Form {
        match written {
            FormUse::ToJson => Form::ToJson,
            FormUse::FromJson => Form::FromJson,
        }
    }
}

/// Any value, as JSON has it.
#[derive(Clone, Debug, PartialEq)]
pub struct AnyValue(pub Value);

impl Decode for AnyValue {
    const EXPECTED: &'static str = "any value";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        let json = json(value);
        if json.is_none() {
            let fix = "write a string, a number of 64 bits, true, false, an array or a table; \
                       dates in quotation marks";
            sink.bad_value(place, "a value that JSON has", "JSON has none such", fix);
        }
        json.map(AnyValue)
    }

    fn written(&self) -> Option<String> {
        let value = toml::Value::try_from(&self.0).ok()?;
        Some(value.to_string())
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean", "array", "object"] })
    }
}

fn json(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::String(text.to_string())),
        DeValue::Integer(_) => integer(value).and_then(|n| i64::try_from(n).ok()).map(Value::from),
        DeValue::Float(text) => {
            let number: f64 = text.as_str().replace('_', "").parse().ok()?;
            serde_json::Number::from_f64(number).map(Value::Number)
        }
        DeValue::Boolean(is) => Some(Value::Bool(*is)),
        DeValue::Array(items) => {
            items.iter().map(|item| json(item.get_ref())).collect::<Option<_>>().map(Value::Array)
        }
        DeValue::Table(members) => {
            let members = members
                .iter()
                .map(|(name, value)| Some((name.get_ref().to_string(), json(value.get_ref())?)));
            members.collect::<Option<_>>().map(Value::Object)
        }
        DeValue::Datetime(_) => None,
    }
}
