//! Texts for messages: what was probably meant, what a value is, how it is written.

use std::fmt;

use toml::de::DeValue;

use super::Sink;
use crate::config::report::Place;

/// Joins the lines of a documentation comment.
pub fn paragraph(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// The known word most like `name`, if any is like it at all.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    if name.is_empty() || name.len() > 64 {
        return None;
    }
    let folded = name.to_ascii_lowercase().replace('-', "_");
    known
        .iter()
        .map(|word| (strsim::normalized_damerau_levenshtein(&folded, word), *word))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// `a`, `b` and `c`.
pub fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// A text from the file as it may appear in a message: not too long.
pub fn short(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// What a value is, in words.
pub(super) fn type_with_article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a floating-point number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The text of a string value, or a report that it is none.
pub fn text<'a>(
    value: &'a DeValue<'_>,
    place: Place,
    sink: &mut Sink,
    expected: &str,
    fix: &str,
) -> Option<&'a str> {
    let text = value.as_str();
    if text.is_none() {
        sink.wrong_type(value, place, expected, fix);
    }
    text
}

/// A TOML basic string.
pub fn quoted(text: &str) -> String {
    DeQuoted(text).to_string()
}

struct DeQuoted<'a>(&'a str);

impl fmt::Display for DeQuoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        toml::Value::String(self.0.to_owned()).fmt(f)
    }
}

/// Parts of names of secrets.
const SECRET_PARTS: [&str; 9] = [
    "secret",
    "passw",
    "passphrase",
    "token",
    "credential",
    "authorization",
    "apikey",
    "api_key",
    "api-key",
];

/// Whether a key of this name, which no section has, may have been meant for a secret.
pub fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    matches!(&*key, "key" | "keys" | "pass") || SECRET_PARTS.iter().any(|part| key.contains(part))
}
