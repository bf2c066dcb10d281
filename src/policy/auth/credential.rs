//! Where in a request a credential is, and how the request looks without it.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    policy::pairs::{cookies, decoded, parameters},
    wire::{Field, FieldId, RequestHead},
};

/// One place where a credential may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Behind this scheme in the field Authorization (RFC 9110 §11.6.2).
    Authorization(Cow<'static, str>),
    /// The whole value of a field; its name in lower case.
    Header(Box<[u8]>),
    /// A cookie (RFC 6265 §5.4).
    Cookie(Box<[u8]>),
    /// A parameter of the query.
    Query(Box<[u8]>),
}

/// What is in one of those places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Nothing,
    One(Cow<'a, [u8]>),
    /// More than one: nobody can tell which counts.
    Several,
}

impl<'a> Found<'a> {
    fn and(self, value: Cow<'a, [u8]>) -> Found<'a> {
        match self {
            Found::Nothing => Found::One(value),
            _ => Found::Several,
        }
    }
}

/// Looks at one place of a request.
pub fn find<'a>(source: &'a Source, head: &'a RequestHead, bytes: &'a [u8]) -> Found<'a> {
    match source {
        Source::Authorization(scheme) => authorization(scheme, head, bytes),
        Source::Header(name) => {
            let id = FieldId::recognise(name);
            fields(head, bytes, id, name)
                .fold(Found::Nothing, |found, value| found.and(value.into()))
        }
        Source::Cookie(name) => {
            let pairs = fields(head, bytes, FieldId::Other, b"cookie").flat_map(cookies);
            let own = pairs.filter(|(own, _)| *own == &**name);
            own.fold(Found::Nothing, |found, (_, value)| found.and(unquoted(value).into()))
        }
        Source::Query(name) => {
            let query = head.query.map_or(&b""[..], |query| query.of(bytes));
            let own = parameters(query).filter(|(own, _)| decoded(own) == &**name);
            own.fold(Found::Nothing, |found, (_, value)| found.and(decoded(value)))
        }
    }
}

fn fields<'a>(
    head: &'a RequestHead,
    bytes: &'a [u8],
    id: FieldId,
    name: &'a [u8],
) -> impl Iterator<Item = &'a [u8]> {
    let is_it =
        move |field: &&Field| field.id == id && field.name.of(bytes).eq_ignore_ascii_case(name);
    head.fields.iter().filter(is_it).map(move |field| field.value.of(bytes))
}

/// The field may be there once (RFC 9110 §11.6.2): with several, an upstream may read another one.
fn authorization<'a>(scheme: &'a str, head: &'a RequestHead, bytes: &'a [u8]) -> Found<'a> {
    let mut all = fields(head, bytes, FieldId::Other, b"authorization");
    let Some(value) = all.next() else { return Found::Nothing };
    if all.next().is_some() {
        return Found::Several;
    }
    match value.split_at_checked(scheme.len()) {
        Some((own, rest)) if own.eq_ignore_ascii_case(scheme.as_bytes()) => match rest {
            [] => Found::One(rest.into()),
            [b' ' | b'\t', rest @ ..] => Found::One(rest.trim_ascii().into()),
            _ => Found::Nothing,
        },
        _ => Found::Nothing,
    }
}

/// Name and password of HTTP Basic (RFC 7617 §2).
pub fn name_and_password(credential: &[u8]) -> Option<(String, Vec<u8>)> {
    let decoded = STANDARD.decode(credential).ok()?;
    let at = decoded.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&decoded[..at]).ok()?;
    (!name.is_empty()).then(|| (name.to_owned(), decoded[at + 1..].to_vec()))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// The value of a Cookie field without cookies of these names; empty when nothing is left.
pub fn without_cookies(field: &[u8], is_out: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    for pair in field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        if pair.is_empty() || is_out(pair[..end].trim_ascii()) {
            continue;
        }
        if !out.is_empty() {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(pair);
    }
    out
}

/// A query without one parameter.
pub fn without_parameter(query: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(query.len());
    for pair in query.split(|byte| *byte == b'&') {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        if decoded(&pair[..end]) == name {
            continue;
        }
        if !out.is_empty() {
            out.push(b'&');
        }
        out.extend_from_slice(pair);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_at_the_first_colon() {
        for (text, expected) in [
            ("alice:secret", Some(("alice", "secret"))),
            ("alice:a:b", Some(("alice", "a:b"))),
            ("alice:", Some(("alice", ""))),
            (":secret", None),
            ("alice", None),
            ("é:ü", Some(("é", "ü"))),
        ] {
            let read = name_and_password(STANDARD.encode(text).as_bytes());
            let expected = expected.map(|(a, b)| (a.to_owned(), b.as_bytes().to_vec()));
            assert_eq!(read, expected, "{text}");
        }
        assert_eq!(name_and_password(b"!!!"), None);
        assert_eq!(name_and_password(STANDARD.encode(b"\xff:x").as_bytes()), None);
    }
    use crate::wire::{HeadLimits, Parsed};

    fn found(source: &Source, target: &str, fields: &str) -> Option<Option<String>> {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        let limits = HeadLimits { head_bytes_max: 4096, target_bytes_max: 1024, fields_max: 32 };
        assert_eq!(head.parse(&bytes, &limits), Ok(Parsed::Complete(())));
        match find(source, &head, &bytes) {
            Found::Nothing => None,
            Found::One(value) => Some(Some(String::from_utf8_lossy(&value).into_owned())),
            Found::Several => Some(None),
        }
    }

    #[test]
    fn credentials_are_found_where_they_are() {
        let bearer = || Source::Authorization("Bearer".into());
        let header = || Source::Header(b"x-token".as_slice().into());
        let cookie = || Source::Cookie(b"token".as_slice().into());
        let query = || Source::Query(b"token".as_slice().into());
        let one = |text: &str| Some(Some(text.to_owned()));
        for (source, target, fields, wanted) in [
            (bearer(), "/", "", None),
            (bearer(), "/", "Authorization: Bearer abc\r\n", one("abc")),
            (bearer(), "/", "authorization: bEARER \t abc \r\n", one("abc")),
            (bearer(), "/", "Authorization: Bearer\r\n", one("")),
            (bearer(), "/", "Authorization: Bearerabc\r\n", None),
            (bearer(), "/", "Authorization: Basic abc\r\n", None),
            (bearer(), "/", "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", Some(None)),
            (bearer(), "/", "Authorization: Basic a\r\nAuthorization: Bearer b\r\n", Some(None)),
            (header(), "/", "X-Token: abc\r\n", one("abc")),
            (header(), "/", "X-Token: a\r\nx-token: a\r\n", Some(None)),
            (header(), "/", "X-Tokens: a\r\n", None),
            (cookie(), "/", "Cookie: a=b; token=abc; c=d\r\n", one("abc")),
            (cookie(), "/", "Cookie: token=\"abc\"\r\n", one("abc")),
            (cookie(), "/", "Cookie: token=a=b\r\n", one("a=b")),
            (cookie(), "/", "Cookie: xtoken=abc; Token=abc; token\r\n", None),
            (cookie(), "/", "Cookie: token=a; token=b\r\n", Some(None)),
            (cookie(), "/", "Cookie: token=a\r\nCookie: token=b\r\n", Some(None)),
            (query(), "/?token=abc", "", one("abc")),
            (query(), "/?a=b&t%6fken=a%2Bb+c", "", one("a+b c")),
            (query(), "/?token", "", one("")),
            (query(), "/?token=a%2", "", one("a%2")),
            (query(), "/?xtoken=a&Token=b", "", None),
            (query(), "/?token=a&token=b", "", Some(None)),
        ] {
            assert_eq!(found(&source, target, fields), wanted, "{source:?} {target} {fields}");
        }
    }

    #[test]
    fn requests_without_their_credential() {
        for (field, wanted) in [
            ("token=a", ""),
            ("a=b; token=a; c=d", "a=b; c=d"),
            ("token=a; token=b;a=b", "a=b"),
            ("xtoken=a; token", "xtoken=a"),
        ] {
            let left = without_cookies(field.as_bytes(), |name| name == b"token");
            assert_eq!(left, wanted.as_bytes(), "{field}");
        }
        for (query, wanted) in [
            ("token=a", ""),
            ("a=b&token=a&c", "a=b&c"),
            ("tok%65n=a&a", "a"),
            ("token&tokens=1", "tokens=1"),
        ] {
            assert_eq!(without_parameter(query.as_bytes(), b"token"), wanted.as_bytes(), "{query}");
        }
    }
}
