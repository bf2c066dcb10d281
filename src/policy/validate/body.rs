//! Bodies: which media types a route takes, and what is in them.

use std::{borrow::Cow, fmt};

use serde_json::{Map, Value};

use super::{
    Refused,
    fault::Fault,
    parameter::{Shape, item},
    schema::Schema,
    strict_json::{self, Bad},
    types::Types,
};
use crate::policy::{
    compress::MediaRange,
    pairs::{decoded, parameters},
    refusal,
};

/// What is asked of bodies.
#[derive(Clone, Debug)]
pub struct Body {
    /// Media types that are taken; the first that fits counts. Empty: there is no body.
    pub contents: Box<[Content]>,
    pub need: Need,
    /// Bytes of one that is checked.
    pub bytes_max: usize,
    /// Arrays and objects that may be in one another.
    pub depth_max: u8,
}

/// Which requests have to have a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    None,
    /// Those whose method says that they bring something: POST, PUT, PATCH.
    Usual,
    All,
}

/// A media type, and what bodies of it are like.
#[derive(Clone, Debug)]
pub struct Content {
    pub range: Range,
    pub kind: Kind,
}

/// Media types that are taken alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Range {
    Any,
    /// JSON, and what is built on it (RFC 6839 §3.1).
    Json,
    Of(MediaRange),
}

impl Range {
    /// Whether a media type without parameters is in it.
    pub fn takes(&self, media: &[u8]) -> bool {
        match self {
            Range::Any => true,
            Range::Json => is_json(media),
            Range::Of(range) => range.takes(media),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Any => f.write_str("any"),
            Range::Json => f.write_str("application/json"),
            Range::Of(range) => range.fmt(f),
        }
    }
}

/// Whether a media type without parameters is JSON, or built on it.
pub fn is_json(media: &[u8]) -> bool {
    let suffix = media.len().checked_sub(5).map_or(&b""[..], |at| &media[at..]);
    media.eq_ignore_ascii_case(b"application/json") || suffix.eq_ignore_ascii_case(b"+json")
}

/// Whether a parameter of a media type leaves a body in UTF-8, in which it is read. In another
/// charset, such as UTF-7, an upstream would read something else in the same bytes.
fn is_utf8(parameter: &[u8]) -> bool {
    let mut parts = parameter.splitn(2, |b| *b == b'=').map(<[u8]>::trim_ascii);
    let name = parts.next().unwrap_or_default();
    let value = parts.next().unwrap_or_default();
    let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
    let is_charset = name.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"charset"));
    let known = [&b"utf-8"[..], b"utf8", b"us-ascii"];
    !is_charset || name.len() == 7 && known.iter().any(|own| value.eq_ignore_ascii_case(own))
}

/// What is done with a body.
#[derive(Clone, Debug)]
pub enum Kind {
    /// It passes as it comes.
    Opaque,
    /// It is JSON, and perhaps as a schema says.
    Json(Option<Schema>),
    /// It is a form, read as an object.
    Form(Schema, Shape),
    /// It is text, read as a string.
    Text(Schema),
}

/// The head of a request, as far as it speaks of a body.
#[derive(Clone, Copy, Debug)]
pub struct Looked<'a> {
    pub method: &'a [u8],
    pub has_body: bool,
    pub length: Option<u64>,
    /// All its Content-Type fields.
    pub media: &'a [&'a [u8]],
    /// It has a content coding.
    pub is_encoded: bool,
}

impl Body {
    /// Which of `contents` a body is checked as, if it is; or why it is not taken.
    pub fn content(&self, looked: &Looked<'_>) -> Result<Option<usize>, Refused> {
        if !looked.has_body {
            let is_needed = match self.need {
                Need::None => false,
                Need::Usual => matches!(looked.method, b"POST" | b"PUT" | b"PATCH"),
                Need::All => true,
            };
            let missing = || (refusal::VALIDATE_MISSING, Fault::in_body("", "is missing"));
            return if is_needed { Err(missing()) } else { Ok(None) };
        }
        let media = match looked.media {
            [] => &b""[..],
            [one] => one,
            _ => return Err(self.not_taken("must have one media type")),
        };
        let name = media.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let Some(at) = self.contents.iter().position(|content| content.range.takes(name)) else {
            return Err(self.not_taken("is of a media type that is not taken"));
        };
        if matches!(self.contents[at].kind, Kind::Opaque) {
            return Ok(None);
        }
        if !media.split(|b| *b == b';').skip(1).all(is_utf8) {
            return Err(self.not_taken("must be in UTF-8"));
        }
        if looked.is_encoded {
            let fault = Fault::in_body("", "must have no content coding");
            return Err((refusal::VALIDATE_ENCODED, fault));
        }
        if looked.length.is_some_and(|length| length > self.bytes_max as u64) {
            return Err(self.too_large());
        }
        Ok(Some(at))
    }

    fn not_taken(&self, what: &str) -> Refused {
        let ranges = self.contents.iter().map(|content| content.range.to_string());
        let ranges: Vec<String> = ranges.collect();
        let what = match ranges.is_empty() {
            true => "must not be there".to_owned(),
            false => format!("{what}; taken are: {}", ranges.join(", ")),
        };
        (refusal::VALIDATE_MEDIA, Fault::in_body("", &what))
    }

    pub fn too_large(&self) -> Refused {
        let what = format!("must have at most {} bytes", self.bytes_max);
        (refusal::VALIDATE_TOO_LARGE, Fault::in_body("", &what))
    }
}

impl Kind {
    /// As [`Schema::is_slow`].
    pub fn is_slow(&self) -> bool {
        match self {
            Kind::Opaque | Kind::Json(None) => false,
            Kind::Json(Some(schema)) | Kind::Form(schema, _) | Kind::Text(schema) => {
                schema.is_slow()
            }
        }
    }

    /// Whether a whole body is as it has to be.
    pub fn check(&self, body: &[u8], depth_max: u8) -> Result<(), Refused> {
        let malformed = |what: &str| (refusal::VALIDATE_MALFORMED, Fault::in_body("", what));
        let (value, schema) = match self {
            Kind::Opaque => return Ok(()),
            Kind::Json(schema) => {
                let value = strict_json::read(body, depth_max).map_err(|bad| match bad {
                    Bad::Deep => {
                        let what = format!("must have at most {depth_max} levels");
                        (refusal::VALIDATE_DEPTH, Fault::in_body("", &what))
                    }
                    Bad::Malformed(why) => malformed(&format!("must be JSON: {why}")),
                })?;
                match schema {
                    Some(schema) => (value, schema),
                    None => return Ok(()),
                }
            }
            Kind::Form(schema, shape) => (form(body, shape).map_err(malformed)?, schema),
            Kind::Text(schema) => {
                let text = std::str::from_utf8(body).map_err(|_| malformed("must be UTF-8"))?;
                (Value::String(text.to_owned()), schema)
            }
        };
        schema.check(&value).map_err(|fault| (refusal::VALIDATE_BODY, fault))
    }
}

/// A form as an object: values that are there several times are an array.
fn form(body: &[u8], shape: &Shape) -> Result<Value, &'static str> {
    let text = |text| match decoded(text) {
        Cow::Borrowed(text) => std::str::from_utf8(text).map(str::to_owned),
        Cow::Owned(text) => String::from_utf8(text).map_err(|error| error.utf8_error()),
    };
    let text = |raw| text(raw).map_err(|_| "must be UTF-8");
    let mut object = Map::new();
    for (name, value) in parameters(body) {
        let (name, value) = (text(name)?, text(value)?);
        let known = shape.member(&name);
        if let Some(known) = known.filter(|known| known.types.has(Types::ARRAY)) {
            let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(items) = list {
                items.push(item(&value, known.items));
            }
            continue;
        }
        let value = item(&value, known.map_or(shape.others, |member| member.types));
        if object.insert(name, value).is_some() {
            return Err("must have no name twice");
        }
    }
    Ok(Value::Object(object))
}
