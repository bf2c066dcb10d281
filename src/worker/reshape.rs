//! What policies do to the fields of a final response that somebody else makes: an upstream, or the
//! configuration (`respond`).
//!
//! Fields that are added in any case are not here: `ResponseSink::add_fields`. What is added is
//! never left out.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{policy::validate::Fault, wire::emit};

/// Changes to a response's fields.
#[derive(Debug, Default)]
pub struct Reshape {
    /// Fields of the response that are left out.
    pub dropped: Vec<Dropped>,
    /// Whole lines, each of which is added unless the response has a field of its name.
    pub unless_named: Vec<u8>,
    /// A name, and whole lines that are added unless the response has a field of that name.
    pub unless: Option<(&'static [u8], Vec<u8>)>,
    /// Of a refusal: what is wrong with the request.
    pub fault: Option<Fault>,
}

/// Fields that are left out, by their name in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dropped {
    Name(Box<[u8]>),
    /// All whose name begins so.
    Prefix(&'static [u8]),
}

impl Reshape {
    /// Whether a field of the response is left out.
    pub fn drops(&self, name: &[u8]) -> bool {
        self.dropped.iter().any(|dropped| match dropped {
            Dropped::Name(whole) => whole.eq_ignore_ascii_case(name),
            Dropped::Prefix(prefix) => {
                name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            }
        })
    }

    /// Appends what is added to a response; `has`: whether it has a field, of those that stay.
    pub fn write(&self, out: &mut Vec<u8>, has: impl Fn(&[u8]) -> bool) {
        if let Some((_, lines)) = self.unless.as_ref().filter(|(name, _)| !has(name)) {
            out.extend_from_slice(lines);
        }
        for (name, value) in lines(&self.unless_named) {
            if !has(name) {
                emit::field(out, name, value);
            }
        }
    }

    /// All of it, to an upstream's response over HTTP/2.
    pub fn apply(&self, fields: &mut HeaderMap) {
        let is_out = |name: &&HeaderName| self.drops(name.as_str().as_bytes());
        let out: Vec<HeaderName> = fields.keys().filter(is_out).cloned().collect();
        for name in out {
            fields.remove(name);
        }
        self.add(fields);
    }

    /// As [`Reshape::write`], over HTTP/2.
    pub fn add(&self, fields: &mut HeaderMap) {
        let mut added = Vec::new();
        self.write(&mut added, |name| {
            HeaderName::from_bytes(name).is_ok_and(|name| fields.contains_key(name))
        });
        for (name, value) in lines(&added) {
            // They were made of a checked configuration.
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                fields.append(name, value);
            }
        }
    }
}

/// Names and values of whole lines.
fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|b| *b == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reshape() -> Reshape {
        Reshape {
            dropped: vec![Dropped::Name((*b"server").into()), Dropped::Prefix(b"access-control-")],
            unless_named: b"X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n".to_vec(),
            unless: Some((b"etag", b"A: 1\r\nB: 2\r\n".to_vec())),
            fault: None,
        }
    }

    #[test]
    fn fields_are_left_out_by_name_or_beginning() {
        for (name, is_out) in [
            ("Server", true),
            ("server-timing", false),
            ("Access-Control-Allow-Origin", true),
            ("access-control", false),
            ("", false),
        ] {
            assert_eq!(reshape().drops(name.as_bytes()), is_out, "{name}");
        }
    }

    #[test]
    fn both_versions_get_the_same() {
        for (had, expected) in [
            (&["server"][..], "A: 1|B: 2|X-Frame-Options: DENY|Referrer-Policy: no-referrer"),
            (&["etag"], "X-Frame-Options: DENY|Referrer-Policy: no-referrer"),
            (
                &["x-frame-options", "access-control-max-age"],
                "A: 1|B: 2|Referrer-Policy: no-referrer",
            ),
        ] {
            let mut out = Vec::new();
            reshape().write(&mut out, |name| {
                had.iter().any(|had| had.as_bytes().eq_ignore_ascii_case(name))
            });
            let text = String::from_utf8(out).expect("text").replace("\r\n", "|");
            assert_eq!(text.trim_end_matches('|'), expected);
            let mut fields = HeaderMap::new();
            for name in had {
                fields.append(HeaderName::from_static(name), HeaderValue::from_static("x"));
            }
            reshape().apply(&mut fields);
            let dropped = had.iter().filter(|name| reshape().drops(name.as_bytes())).count();
            assert_eq!(fields.len(), had.len() - dropped + expected.split('|').count());
        }
    }
}
