//! Values written as a string or as a table: endpoints, conditions on fields and parameters.

use regex::bytes::Regex;
use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{EndpointName, FromText, ValueRegex};
use crate::{
    config::{
        decode::{At, Decode, Named, Sink, quoted},
        report::{Place, Problem},
    },
    section,
};

section! {
    /// An endpoint with its weight.
    pub struct WeightedEndpoint {
        /// The address, written as an endpoint without weight.
        address: EndpointName, eg "\"127.0.0.1:8000\"";
        /// Share of the requests, relative to the other endpoints of the upstream.
        weight: u32 = 1 => 1..=1000;
    }

    /// How the value of a field or parameter must look. Exactly one key.
    pub struct Match {
        /// Exactly this.
        exact: Option<String> = None, eg "\"blue\"";
        /// A regular expression that the whole value must match.
        regex: Option<ValueRegex> = None, eg "\"blue|green\"";
        /// Whether it is there at all.
        present: Option<bool> = None, eg "true";
    }
}

/// An endpoint, written as a string or as a table with weight.
#[derive(Clone, Debug)]
pub struct EndpointText {
    pub address: At<EndpointName>,
    pub weight: u32,
}

impl Decode for EndpointText {
    const EXPECTED: &'static str = EndpointName::WHAT;

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        if value.is_table() {
            let endpoint = WeightedEndpoint::decode(value, place, sink)?;
            return Some(EndpointText { address: endpoint.address, weight: endpoint.weight.value });
        }
        let address = At::written(EndpointName::decode(value, place, sink)?, place);
        Some(EndpointText { address, weight: 1 })
    }

    fn written(&self) -> Option<String> {
        let address = self.address.written()?;
        match self.weight {
            1 => Some(address),
            weight => Some(format!("{{ address = {address}, weight = {weight} }}")),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let weighted = generator.subschema_for::<WeightedEndpoint>();
        json_schema!({ "oneOf": [{ "type": "string" }, weighted] })
    }
}

/// Conditions on fields or parameters, by name.
#[derive(Clone, Debug, Default)]
pub struct Matches(pub Vec<(At<String>, MatchValue)>);

#[derive(Clone, Debug)]
pub enum MatchValue {
    Present,
    Absent,
    Exact(String),
    Regex(Regex),
}

impl Decode for Matches {
    const EXPECTED: &'static str = "a table of names and values";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        sink.table(value, place, "write { \"Name\" = \"value\" }")?;
        let named = Named::<MatchValue>::decode(value, place, sink)?;
        let good = named.0.into_iter().map(|(name, value)| Some((name, value?)));
        good.collect::<Option<Vec<_>>>().map(Matches)
    }

    fn written(&self) -> Option<String> {
        self.0.is_empty().then(|| "{}".to_owned())
    }

    fn effective(&self) -> Option<toml::Value> {
        let entries = self.0.iter();
        let entries = entries.filter_map(|(name, v)| Some((name.value.clone(), v.effective()?)));
        Some(toml::Value::Table(entries.collect()))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        Named::<MatchValue>::schema(generator)
    }
}

impl Decode for MatchValue {
    const EXPECTED: &'static str = "a value or a table";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        if let Some(text) = value.as_str() {
            return Some(MatchValue::Exact(text.to_owned()));
        }
        if !value.is_table() {
            let fix =
                "write the value in quotation marks, or { regex = \"...\" }, or { present = true }";
            sink.wrong_type(value, place, Self::EXPECTED, fix);
            return None;
        }
        let written = Match::decode(value, place, sink)?;
        let broken =
            written.exact.is_wrong() || written.regex.is_wrong() || written.present.is_wrong();
        match (written.exact.value, written.regex.value, written.present.value) {
            _ if broken => None,
            (Some(text), None, None) => Some(MatchValue::Exact(text)),
            (None, Some(regex), None) => Some(MatchValue::Regex(regex.0.regex)),
            (None, None, Some(true)) => Some(MatchValue::Present),
            (None, None, Some(false)) => Some(MatchValue::Absent),
            _ => {
                let title =
                    format!("{} needs exactly one of `exact`, `regex` and `present`", sink.name());
                let fix = "write one of them; { present = true } accepts any value";
                sink.push(Problem::error(place, title).fix(fix));
                None
            }
        }
    }

    fn written(&self) -> Option<String> {
        Some(match self {
            MatchValue::Present => "{ present = true }".to_owned(),
            MatchValue::Absent => "{ present = false }".to_owned(),
            MatchValue::Exact(text) => quoted(text),
            MatchValue::Regex(regex) => format!("{{ regex = {} }}", quoted(regex.as_str())),
        })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<Match>();
        json_schema!({ "oneOf": [{ "type": "string" }, table] })
    }
}
