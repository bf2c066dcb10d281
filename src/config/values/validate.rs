//! Values of validation: where a parameter is, how it is written, its schema.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;
use toml::de::DeValue;

use super::AnyValue;
use crate::{
    choice,
    config::{
        decode::{Decode, Sink, quoted},
        report::Place,
    },
    policy::validate::{fault::Location, parameter::Style},
};

choice!(Location:
    Location::Query = "query",
    Location::Path = "path",
    Location::Header = "header",
    Location::Cookie = "cookie",
);

choice!(Style:
    Style::Form = "form",
    Style::Simple = "simple",
    Style::Label = "label",
    Style::Matrix = "matrix",
    Style::Space = "space_delimited",
    Style::Pipe = "pipe_delimited",
    Style::Deep = "deep_object",
);

/// A JSON Schema: written here, or in a file.
#[derive(Clone, Debug, PartialEq)]
pub enum SchemaText {
    Here(Value),
    /// Perhaps with a part of it, behind `#`.
    File(String),
}

impl Decode for SchemaText {
    const EXPECTED: &'static str = "a JSON Schema: a table, or the name of a file";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        match (value.as_str(), value.is_table()) {
            (Some(name), _) => Some(SchemaText::File(name.to_owned())),
            (None, true) => AnyValue::decode(value, place, sink).map(|any| SchemaText::Here(any.0)),
            (None, false) => {
                let fix = "write { type = \"integer\" }, or \"schemas/order.json\"";
                sink.wrong_type(value, place, Self::EXPECTED, fix);
                None
            }
        }
    }

    fn written(&self) -> Option<String> {
        match self {
            SchemaText::Here(value) => AnyValue(value.clone()).written(),
            SchemaText::File(name) => Some(quoted(name)),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "object"] })
    }
}
