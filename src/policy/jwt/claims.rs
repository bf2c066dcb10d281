//! Claims of a token (RFC 7519 §4): times, audience, those that a section asks for.

use std::rc::Rc;

use serde_json::Value;

use super::Rule;
use crate::policy::identity::{Claims, Identity, Shown};

/// A NumericDate, in seconds since 1970. `Err`: it is something else.
pub(super) fn time(claims: &Claims, name: &str) -> Result<Option<f64>, ()> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().filter(|time| time.is_finite()).map(Some).ok_or(()),
    }
}

/// Whether `aud`, a text or several, has one of these.
pub(super) fn is_for(claims: &Claims, audiences: &[String]) -> bool {
    let is_one = |value: &Value| {
        value.as_str().is_some_and(|aud| audiences.iter().any(|known| known == aud))
    };
    match claims.get("aud") {
        // In a list of anything but texts, nothing counts.
        Some(Value::Array(list)) => list.iter().all(Value::is_string) && list.iter().any(is_one),
        Some(value) => is_one(value),
        None => false,
    }
}

/// Whether a claim is there, with one of `values`; of an array, one element must be.
pub(super) fn has(identity: &Identity, path: &str, values: &[Value]) -> bool {
    match identity.claim(path) {
        None | Some(Value::Null) => false,
        Some(_) if values.is_empty() => true,
        Some(Value::Array(list)) => list.iter().any(|element| values.contains(element)),
        Some(value) => values.contains(value),
    }
}

/// Whom a token is for.
pub(super) fn identity(rule: &Rule, claims: Claims, by: &Rc<str>) -> Identity {
    let mut identity = Identity::plain(Shown::Token, by.clone(), Rc::from(""));
    identity.claims = Rc::new(claims);
    identity.subject = match identity.claim(&rule.subject) {
        Some(Value::String(text)) => Rc::from(text.as_str()),
        Some(Value::Number(number)) => Rc::from(number.to_string()),
        _ => Rc::from(""),
    };
    identity.groups = texts(identity.claim(&rule.groups), false);
    identity.scopes = texts(identity.claim(&rule.scopes), true);
    identity
}

/// The texts of an array, or one text; that of scopes is several, with blanks between them
/// (RFC 8693 §4.2).
fn texts(claim: Option<&Value>, is_split: bool) -> Rc<[Box<str>]> {
    match claim {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(Box::from).collect(),
        Some(Value::String(text)) if is_split => text.split_whitespace().map(Box::from).collect(),
        Some(Value::String(text)) => [Box::from(text.as_str())].into(),
        _ => Rc::default(),
    }
}
