//! What is wrong with a request, as its client is told: where it is and what it should be. Values
//! that came with the request are never in it, and it has a bound.

use std::fmt::Write;

/// Longest text of one part, in characters.
const TEXT_MAX: usize = 200;

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    /// Follows the name of the place: `must be of type integer`.
    pub what: String,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The body, at this JSON pointer.
    Body(String),
    /// A parameter, at this JSON pointer of its value.
    Parameter { from: Location, name: String, pointer: String },
}

/// Where a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    Path,
    Query,
    Header,
    Cookie,
}

impl Location {
    pub fn word(self) -> &'static str {
        match self {
            Location::Path => "path",
            Location::Query => "query",
            Location::Header => "header",
            Location::Cookie => "cookie",
        }
    }
}

/// No more of a text than a message may have.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}...", &text[..at]),
    }
}

impl Fault {
    pub fn in_body(pointer: &str, what: &str) -> Fault {
        Fault { place: Place::Body(cut(pointer)), what: cut(what) }
    }

    pub fn in_parameter(from: Location, name: &str, pointer: &str, what: &str) -> Fault {
        let place = Place::Parameter { from, name: cut(name), pointer: cut(pointer) };
        Fault { place, what: cut(what) }
    }

    /// As a sentence.
    pub fn sentence(&self) -> String {
        let mut text = String::with_capacity(128);
        let pointer = match &self.place {
            Place::Body(pointer) => {
                text.push_str("the body");
                pointer
            }
            Place::Parameter { from, name, pointer } => {
                let _ = write!(text, "the {} parameter `{name}`", from.word());
                pointer
            }
        };
        if !pointer.is_empty() {
            let _ = write!(text, " at `{pointer}`");
        }
        let _ = write!(text, " {}", self.what);
        text
    }

    /// As members of a problem (RFC 9457 §3): what begins with a comma.
    pub fn members(&self) -> String {
        let mut error = serde_json::Map::new();
        let pointer = match &self.place {
            Place::Body(pointer) => {
                error.insert("in".to_owned(), "body".into());
                pointer
            }
            Place::Parameter { from, name, pointer } => {
                error.insert("in".to_owned(), from.word().into());
                error.insert("parameter".to_owned(), name.as_str().into());
                pointer
            }
        };
        let is_whole_parameter =
            matches!(self.place, Place::Parameter { .. }) && pointer.is_empty();
        if !is_whole_parameter {
            error.insert("pointer".to_owned(), format!("#{pointer}").into());
        }
        error.insert("detail".to_owned(), self.what.as_str().into());
        format!(",\"errors\":[{}]", serde_json::Value::Object(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_on_characters() {
        let long = "ä".repeat(5000);
        let fault = Fault::in_parameter(Location::Query, &long, &long, &long);
        assert!(fault.sentence().chars().count() < 1000);
        let members = fault.members();
        assert!(members.chars().count() < 1000);
        let whole = format!("{{\"a\":1{members}}}");
        let value: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
        assert_eq!(value["errors"][0]["in"], "query");
    }

    #[test]
    fn a_fault_says_where_it_is() {
        for (fault, sentence, member) in [
            (
                Fault::in_body("/a/0", "must be of type integer"),
                "the body at `/a/0` must be of type integer",
                r##","errors":[{"in":"body","pointer":"#/a/0","detail":"must be of type integer"}]"##,
            ),
            (
                Fault::in_body("", "is missing"),
                "the body is missing",
                r##","errors":[{"in":"body","pointer":"#","detail":"is missing"}]"##,
            ),
            (
                Fault::in_parameter(Location::Header, "X-\"Q\"", "", "is missing"),
                "the header parameter `X-\"Q\"` is missing",
                r##","errors":[{"in":"header","parameter":"X-\"Q\"","detail":"is missing"}]"##,
            ),
        ] {
            assert_eq!(fault.sentence(), sentence);
            assert_eq!(fault.members(), member);
        }
    }
}
