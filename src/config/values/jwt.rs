//! What the keys of `[jwt.NAME]` may hold.

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{Bad, FromText, bad};
use crate::{
    choice,
    config::{
        decode::{Decode, Sink, integer, quoted},
        report::Place,
    },
    policy::jwt::Algorithm,
};

choice!(Algorithm:
    Algorithm::Hs256 = "HS256",
    Algorithm::Hs384 = "HS384",
    Algorithm::Hs512 = "HS512",
    Algorithm::Rs256 = "RS256",
    Algorithm::Rs384 = "RS384",
    Algorithm::Rs512 = "RS512",
    Algorithm::Ps256 = "PS256",
    Algorithm::Ps384 = "PS384",
    Algorithm::Ps512 = "PS512",
    Algorithm::Es256 = "ES256",
    Algorithm::Es384 = "ES384",
    Algorithm::Es512 = "ES512",
    Algorithm::EdDsa = "EdDSA",
);

/// Values of a claim, one of which it must have; none: any.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimValues(pub Vec<serde_json::Value>);

impl Decode for ClaimValues {
    const EXPECTED: &'static str = "a value, several in an array, or \"*\" for any";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        if value.as_str() == Some("*") {
            return Some(ClaimValues(Vec::new()));
        }
        let values = match value.as_array() {
            Some(list) if list.is_empty() => None,
            Some(list) => list.iter().map(|value| json(value.get_ref())).collect(),
            None => json(value).map(|value| vec![value]),
        };
        if values.is_none() {
            let fix = "write texts, whole numbers, true or false: \"web\", or [\"web\", \"cli\"]";
            sink.wrong_type(value, place, Self::EXPECTED, fix);
        }
        values.map(ClaimValues)
    }

    fn written(&self) -> Option<String> {
        let values: Vec<String> = self.0.iter().map(shown).collect();
        Some(match values.as_slice() {
            [] => "\"*\"".to_owned(),
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        let one = ["string", "integer", "boolean"];
        json_schema!({ "oneOf": [
            { "type": one }, { "type": "array", "items": { "type": one }, "minItems": 1 },
        ] })
    }
}

fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    match value {
        DeValue::String(text) => Some(text.to_string().into()),
        DeValue::Boolean(flag) => Some((*flag).into()),
        DeValue::Integer(_) => integer(value).and_then(|n| i64::try_from(n).ok()).map(Into::into),
        _ => None,
    }
}

fn shown(value: &serde_json::Value) -> String {
    match value.as_str() {
        Some(text) => quoted(text),
        None => value.to_string(),
    }
}

/// A URL that keys are fetched from: over TLS, or from this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysUrl(pub String);

const EXAMPLE: &str = "https://id.example.com/.well-known/jwks.json";

impl FromText for KeysUrl {
    const WHAT: &'static str = "an https:// URL";
    const EXAMPLE: &'static str = EXAMPLE;

    fn read(text: &str) -> Result<Self, Bad> {
        match trusted_url(text) {
            Ok(()) => Ok(KeysUrl(text.to_owned())),
            Err(why) => bad(why, format!("write a URL such as \"{EXAMPLE}\"")),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Whether what is fetched from there can be believed: over TLS from anywhere, without it only from
/// this machine.
pub fn trusted_url(text: &str) -> Result<(), &'static str> {
    let uri: http::Uri = text.parse().map_err(|_| "no URL")?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or("a URL without a host")?;
    if text.contains('#') || uri.authority().is_some_and(|name| name.as_str().contains('@')) {
        return Err("has a user, a password or a fragment");
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if matches!(host, "localhost" | "127.0.0.1" | "[::1]") => Ok(()),
        Some("http") => Err("without TLS anybody on the way could put other keys there"),
        Some(_) => Err("another scheme"),
        None => Err("no URL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_keys_are_fetched_from() {
        for (url, is_good) in [
            ("https://id.example/keys", true),
            ("https://id.example:8443", true),
            ("http://127.0.0.1:8080/keys", true),
            ("http://localhost/keys", true),
            ("http://[::1]:1/keys", true),
            ("http://id.example/keys", false),
            ("http://127.0.0.1.evil.example/keys", false),
            ("http://localhost@evil.example/keys", false),
            ("https://user@id.example/keys", false),
            ("https://id.example/keys#x", false),
            ("file:///etc/keys", false),
            ("ftp://id.example/", false),
            ("id.example/keys", false),
            ("https://", false),
            ("", false),
        ] {
            assert_eq!(trusted_url(url).is_ok(), is_good, "{url}");
        }
    }
}
