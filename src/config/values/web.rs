//! Origins, names of fields, what clients call themselves.

use regex::bytes::Regex;
use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{Bad, FromText, PathRegex, addresses::is_host_name, bad, is_token};
use crate::{
    config::{
        decode::{Decode, Sink, quoted},
        report::Place,
    },
    section,
};

/// An origin (RFC 6454), as browsers write it: in lower case, without the scheme's usual port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(pub String);

impl FromText for Origin {
    const WHAT: &'static str = "an origin: scheme and host, perhaps with a port";
    const EXAMPLE: &'static str = "https://app.example.com";

    fn read(text: &str) -> Result<Self, Bad> {
        origin(text, is_host_name).map(|text| Origin(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The text, if it is an origin whose host is accepted.
fn origin(text: &str, is_host: impl Fn(&str) -> bool) -> Result<&str, Bad> {
    let Some((scheme, rest)) = text.split_once("://") else {
        if text.contains('*') {
            return bad("no origin", "name each one, such as \"https://app.example.com\"");
        }
        return bad("no scheme", format!("write \"https://{}\"", text.trim_start_matches('/')));
    };
    if let Some((authority, _)) = rest.split_once(['/', '?', '#']) {
        return bad("more than an origin", format!("write \"{scheme}://{authority}\""));
    }
    let lower = text.to_ascii_lowercase();
    if lower != text {
        return bad("browsers write it in lower case", format!("write \"{lower}\""));
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_usual = matches!((scheme, port), ("http", Some("80")) | ("https", Some("443")));
    if is_usual {
        let fix = format!("write \"{scheme}://{host}\"");
        return bad("browsers leave the scheme's usual port out", fix);
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) || !is_host(host) {
        let fix = "write \"https://app.example.com\", or \"https://app.example.com:8443\"";
        return bad("the host or port is none", fix);
    }
    Ok(text)
}

section! {
    /// Origins by a pattern.
    pub struct OriginPattern {
        /// A regular expression that the whole origin must match.
        regex: super::ValueRegex, eg "'https://pr-[0-9]+[.]example[.]com'";
    }
}

/// Origins whose pages may read a response.
#[derive(Clone, Debug)]
pub enum CorsOrigin {
    Any,
    Exact(String),
    /// Scheme with `://`, and the rest behind the star.
    Below(String, String),
    Regex(Regex),
}

impl Decode for CorsOrigin {
    const EXPECTED: &'static str = "an origin, a pattern of origins, or \"*\"";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        if value.is_table() {
            let pattern = OriginPattern::decode(value, place, sink)?;
            let regex = pattern.regex.value.0.regex;
            // The parts were checked; together they are no larger.
            let whole = Regex::new(&format!("^(?:{})$", regex.as_str()));
            return Some(CorsOrigin::Regex(whole.unwrap_or(regex)));
        }
        let Some(text) = value.as_str() else {
            let fix = "write \"https://app.example.com\", or { regex = \"...\" }";
            sink.wrong_type(value, place, Self::EXPECTED, fix);
            return None;
        };
        match cors_origin(text) {
            Ok(origin) => Some(origin),
            Err(bad) => {
                sink.bad_value(place, Self::EXPECTED, &bad.label, &bad.fix);
                None
            }
        }
    }

    fn written(&self) -> Option<String> {
        Some(match self {
            CorsOrigin::Any => quoted("*"),
            CorsOrigin::Exact(text) => quoted(text),
            CorsOrigin::Below(before, behind) => quoted(&format!("{before}*{behind}")),
            CorsOrigin::Regex(regex) => {
                let text = regex.as_str();
                let inner = text.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$"));
                format!("{{ regex = {} }}", quoted(inner.unwrap_or(text)))
            }
        })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<OriginPattern>();
        json_schema!({ "oneOf": [{ "type": "string" }, table] })
    }
}

fn cors_origin(text: &str) -> Result<CorsOrigin, Bad> {
    match text {
        "*" => return Ok(CorsOrigin::Any),
        // Sandboxed frames, files, and whoever wants to look like them.
        "null" => return Ok(CorsOrigin::Exact(text.to_owned())),
        _ => {}
    }
    if !text.contains('*') {
        return origin(text, is_host_name).map(|text| CorsOrigin::Exact(text.to_owned()));
    }
    let whole = origin(text, |host| is_host_name(&host.replace('*', "x")))?;
    let parts = whole.split_once('*').filter(|(before, behind)| {
        before.ends_with("://") && behind.starts_with('.') && !behind.contains('*')
    });
    match parts {
        Some((before, behind)) => Ok(CorsOrigin::Below(before.to_owned(), behind.to_owned())),
        None => bad(
            "a star stands for names below a host",
            "write \"https://*.example.com\", or { regex = \"...\" }",
        ),
    }
}

/// Name of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName(pub String);

impl FromText for FieldName {
    const WHAT: &'static str = "the name of a field";
    const EXAMPLE: &'static str = "X-Tenant";

    fn read(text: &str) -> Result<Self, Bad> {
        match is_token(text) {
            true if text == "*" => bad("any field", "name the fields"),
            true => Ok(FieldName(text.to_owned())),
            false => bad("no name that a field can have", "write a name such as \"X-Tenant\""),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Name of a field, or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldNameOrAny(pub String);

impl FromText for FieldNameOrAny {
    const WHAT: &'static str = "the name of a field, or \"*\"";
    const EXAMPLE: &'static str = "X-Tenant";

    fn read(text: &str) -> Result<Self, Bad> {
        match text {
            "*" => Ok(FieldNameOrAny(text.to_owned())),
            _ => FieldName::read(text).map(|name| FieldNameOrAny(name.0)),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A pattern that is looked for in User-Agent.
#[derive(Clone, Debug)]
pub struct UserAgent(pub PathRegex);

impl FromText for UserAgent {
    const WHAT: &'static str = "a regular expression";
    const EXAMPLE: &'static str = "(?i)badbot";

    fn read(text: &str) -> Result<Self, Bad> {
        if text.is_empty() {
            return bad("matches everybody", "write a part of the name, such as \"(?i)badbot\"");
        }
        PathRegex::read(text).map(UserAgent)
    }

    fn show(&self) -> String {
        self.0.show()
    }
}
