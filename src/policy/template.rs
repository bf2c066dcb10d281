//! Texts with values of the exchange in them: `Bearer ${claim.sub}`.
//!
//! `${name}` stands for a value, `${name|text}` for `text` where there is none, `$$` for a dollar
//! sign. What a value may contain is the concern of whoever puts the text somewhere ([`Place`]).

use std::fmt::Write as _;

/// A compiled text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Box<[Piece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Value(Variable, Option<Box<str>>),
}

/// A value of the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The client's address.
    Client,
    Method,
    /// The path as received, without query.
    Path,
    /// The query, without `?`.
    QueryText,
    Host,
    Scheme,
    /// The request's id.
    Id,
    /// The route's name.
    Route,
    /// When the request came, in RFC 3339.
    Time,
    /// The same in seconds since 1970.
    UnixTime,
    /// Who it is from.
    Subject,
    Consumer,
    Claim(Box<str>),
    /// A parameter of the route's path: its place in `RouteMatch::params`.
    Param(u8),
    /// A field of the request, in lower case.
    Field(Box<str>),
    /// A parameter of the query.
    Query(Box<str>),
    Cookie(Box<str>),
    /// Of the response.
    Status,
    /// A field of the response, in lower case.
    ResponseField(Box<str>),
    /// Why the gateway answers itself.
    Reason,
    /// That in words.
    Detail,
    /// What the status is called.
    Title,
}

/// What is known where the text is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Request,
    /// And the response to it.
    Response,
    /// And why there is no other response.
    Refusal,
}

/// Where the text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A field's value: control characters are left out.
    Field,
    /// A path: what would not be one segment is escaped.
    Path,
    /// A part of a query.
    Query,
    /// Between the quotation marks of a JSON string.
    Json,
    /// A text or an attribute of HTML or XML.
    Html,
    /// Anything else: as it is.
    Plain,
}

/// Where values come from.
pub trait Values {
    /// Appends the value; `false` when there is none.
    fn value(&self, variable: &Variable, out: &mut Vec<u8>) -> bool;
}

/// Names without a part after a dot.
const PLAIN: &[(&str, Variable, Known)] = &[
    ("client", Variable::Client, Known::Request),
    ("method", Variable::Method, Known::Request),
    ("path", Variable::Path, Known::Request),
    ("query", Variable::QueryText, Known::Request),
    ("host", Variable::Host, Known::Request),
    ("scheme", Variable::Scheme, Known::Request),
    ("id", Variable::Id, Known::Request),
    ("route", Variable::Route, Known::Request),
    ("time", Variable::Time, Known::Request),
    ("unix_time", Variable::UnixTime, Known::Request),
    ("subject", Variable::Subject, Known::Request),
    ("consumer", Variable::Consumer, Known::Request),
    ("status", Variable::Status, Known::Response),
    ("reason", Variable::Reason, Known::Refusal),
    ("detail", Variable::Detail, Known::Refusal),
    ("title", Variable::Title, Known::Refusal),
];

/// Longest text of a template, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

impl Template {
    /// `params` are the names of the parameters of the route's path. The message of an error says
    /// what to write instead.
    pub fn compile(text: &str, params: &[String], known: Known) -> Result<Template, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("longer than {TEXT_BYTES_MAX} bytes; make it shorter"));
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            plain.push_str(&rest[..at]);
            let tail = &rest[at + 1..];
            if let Some(after) = tail.strip_prefix('$') {
                plain.push('$');
                rest = after;
                continue;
            }
            let inner = tail.strip_prefix('{').and_then(|tail| tail.split_once('}'));
            let Some((name, after)) = inner else {
                return Err("a `$` without `{name}`; write `$$` for a dollar sign".to_owned());
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            let (name, fallback) = match name.split_once('|') {
                Some((name, fallback)) => (name, Some(fallback.into())),
                None => (name, None),
            };
            pieces.push(Piece::Value(variable(name, params, known)?, fallback));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Template { pieces: pieces.into() })
    }

    /// Appends the text. Answers whether every value was there, or its substitute.
    pub fn fill(&self, values: &impl Values, place: Place, out: &mut Vec<u8>) -> bool {
        let mut is_whole = true;
        let mut value = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Value(variable, fallback) => {
                    value.clear();
                    if values.value(variable, &mut value) {
                        place.write(&value, out);
                    } else if let Some(fallback) = fallback {
                        place.write(fallback.as_bytes(), out);
                    } else {
                        is_whole = false;
                    }
                }
            }
        }
        is_whole
    }

    /// Whether it has a value of an identity, with nothing in its place where there is none.
    pub fn needs_identity(&self) -> bool {
        self.pieces.iter().any(|piece| match piece {
            Piece::Value(variable, None) => {
                matches!(variable, Variable::Subject | Variable::Consumer | Variable::Claim(_))
            }
            _ => false,
        })
    }

    /// The text, when there are no values in it.
    pub fn as_text(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

fn variable(name: &str, params: &[String], known: Known) -> Result<Variable, String> {
    if let Some((_, variable, needs)) = PLAIN.iter().find(|(plain, ..)| *plain == name) {
        return match (*needs, known) {
            (Known::Response, Known::Request) => {
                Err(format!("`{name}` is known of responses only; take it out"))
            }
            (Known::Refusal, Known::Request | Known::Response) => {
                Err(format!("`{name}` is known of the gateway's own errors only; take it out"))
            }
            _ => Ok(variable.clone()),
        };
    }
    let lower = |name: &str| name.to_ascii_lowercase().into_boxed_str();
    match name.split_once('.') {
        Some(("header", name)) if !name.is_empty() => Ok(Variable::Field(lower(name))),
        Some(("query", name)) if !name.is_empty() => Ok(Variable::Query(name.into())),
        Some(("cookie", name)) if !name.is_empty() => Ok(Variable::Cookie(name.into())),
        Some(("claim", path)) if !path.is_empty() => Ok(Variable::Claim(path.into())),
        Some(("response", name)) if !name.is_empty() => match known {
            Known::Request => Err("the response is not known yet; take it out".to_owned()),
            _ => Ok(Variable::ResponseField(lower(name))),
        },
        Some(("param", name)) => match params.iter().position(|param| param == name) {
            Some(at) => Ok(Variable::Param(at as u8)),
            None if params.is_empty() => {
                Err(format!("the route's path has no parameter `{name}`; write `path_template`"))
            }
            None => Err(format!(
                "the route's path has no parameter `{name}`; it has {}",
                params.iter().map(|param| format!("`{param}`")).collect::<Vec<_>>().join(", ")
            )),
        },
        _ => Err(format!("there is no value `{name}`; {}", all_names())),
    }
}

fn all_names() -> String {
    let mut names = String::from("there are ");
    for (name, ..) in PLAIN {
        // Writing to a String cannot fail.
        let _ = write!(names, "`{name}`, ");
    }
    names.push_str(
        "`header.NAME`, `query.NAME`, `cookie.NAME`, `param.NAME`, `claim.NAME` and \
         `response.NAME`",
    );
    names
}

impl Place {
    /// Appends `value` as this place can have it.
    pub fn write(self, value: &[u8], out: &mut Vec<u8>) {
        match self {
            Place::Plain => out.extend_from_slice(value),
            Place::Field => {
                out.extend(value.iter().filter(|b| **b == b'\t' || !b.is_ascii_control()));
            }
            Place::Path | Place::Query => value.iter().for_each(|byte| escape(*byte, out)),
            Place::Json => json(value, out),
            Place::Html => value.iter().for_each(|byte| html(*byte, out)),
        }
    }
}

/// Unreserved characters stay (RFC 3986 §2.3).
fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
        _ => out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
    }
}

fn html(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'&' => out.extend_from_slice(b"&amp;"),
        b'<' => out.extend_from_slice(b"&lt;"),
        b'>' => out.extend_from_slice(b"&gt;"),
        b'"' => out.extend_from_slice(b"&#34;"),
        b'\'' => out.extend_from_slice(b"&#39;"),
        _ => out.push(byte),
    }
}

fn json(value: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(value);
    // A string can always be written.
    let quoted = serde_json::to_string(&text).unwrap_or_default();
    let inner = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    out.extend_from_slice(inner.unwrap_or_default().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Values for Fixed {
        fn value(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
            let value: &[u8] = match variable {
                Variable::Client => b"192.0.2.1",
                Variable::Field(name) if &**name == "x-a" => b"a\r\nb\"\\",
                Variable::Query(name) if &**name == "q" => b"x y/..?",
                Variable::Param(1) => b"seven",
                Variable::Cookie(_) => b"\"quoted",
                _ => return false,
            };
            out.extend_from_slice(value);
            true
        }
    }

    fn filled(text: &str, place: Place) -> Result<(String, bool), String> {
        let params = ["a".to_owned(), "b".to_owned()];
        let template = Template::compile(text, &params, Known::Request)?;
        let mut out = Vec::new();
        let is_whole = template.fill(&Fixed, place, &mut out);
        Ok((String::from_utf8(out).expect("UTF-8"), is_whole))
    }

    #[test]
    fn texts_are_filled() {
        for (text, place, expected) in [
            ("", Place::Plain, ("", true)),
            ("x", Place::Plain, ("x", true)),
            ("$$5", Place::Plain, ("$5", true)),
            ("from ${client}!", Place::Plain, ("from 192.0.2.1!", true)),
            ("${client}${client}", Place::Plain, ("192.0.2.1192.0.2.1", true)),
            ("${header.X-A}", Place::Field, ("ab\"\\", true)),
            ("${header.X-A}", Place::Json, ("a\\r\\nb\\\"\\\\", true)),
            ("<b>${cookie.c}</b>", Place::Html, ("<b>&#34;quoted</b>", true)),
            ("${cookie.c}", Place::Json, ("\\\"quoted", true)),
            ("/${query.q}", Place::Path, ("/x%20y%2F..%3F", true)),
            ("x${header.none|}", Place::Json, ("x", true)),
            ("${param.b}", Place::Plain, ("seven", true)),
            ("${param.a}", Place::Plain, ("", false)),
            ("${header.none}", Place::Plain, ("", false)),
            ("${header.none|no}", Place::Plain, ("no", true)),
            ("${header.none|}", Place::Plain, ("", true)),
            ("${claim.a.b|-}", Place::Plain, ("-", true)),
        ] {
            let (out, is_whole) = filled(text, place).expect(text);
            assert_eq!((&*out, is_whole), expected, "{text}");
        }
    }

    #[test]
    fn wrong_texts_say_what_to_write() {
        for (text, expected) in [
            ("$", "write `$$`"),
            ("${client", "write `$$`"),
            ("$client", "write `$$`"),
            ("${}", "there is no value ``"),
            ("${clint}", "there are `client`, `method`"),
            ("${header.}", "`header.NAME`"),
            ("${param.c}", "it has `a`, `b`"),
            ("${status}", "of responses only"),
            ("${response.x}", "not known yet"),
            ("${reason}", "own errors only"),
        ] {
            let message = filled(text, Place::Plain).expect_err(text);
            assert!(message.contains(expected), "{text}: {message}");
        }
        let message = Template::compile("${param.x}", &[], Known::Request).expect_err("no params");
        assert!(message.contains("write `path_template`"), "{message}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}|[${}|a-z.]{0,40}") {
            if let Ok((out, _)) = filled(&text, Place::Json) {
                let json: Result<String, _> = serde_json::from_str(&format!("\"{out}\""));
                // What is written in the template itself is the author's.
                proptest::prop_assert!(json.is_ok() || text.contains(['"', '\\']));
            }
        }
    }
}
