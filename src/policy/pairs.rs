//! Names of fields, and names and values in queries and in Cookie fields, as routes and policies
//! read them: one way for all, which is that of browsers and of what is behind the gateway (forms,
//! where `+` is a space).

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Names and values of a query, as they are written. What has no `=` has an empty value.
pub fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|b| *b == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        }
    })
}

/// A name or value of a query as forms have it: `+` is a space, and an escape that is none stands
/// for itself.
pub fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr2(b'+', b'%', text) {
        None => Cow::Borrowed(text),
        Some(_) => Cow::Owned(bytes(text).collect()),
    }
}

/// Whether `encoded`, decoded, is `text`. Allocates nothing.
pub fn decodes_to(encoded: &[u8], text: &[u8]) -> bool {
    encoded.len() >= text.len() && bytes(encoded).eq(text.iter().copied())
}

/// As [`decoded`], byte by byte.
fn bytes(text: &[u8]) -> impl Iterator<Item = u8> {
    text.split(|b| *b == b'+').enumerate().flat_map(|(at, part)| {
        let space = (at > 0).then_some(b' ');
        space.into_iter().chain(percent_decode(part))
    })
}

/// The decoded value of a parameter, the first one of its name.
pub fn parameter<'q>(query: &'q [u8], name: &str) -> Option<Cow<'q, [u8]>> {
    let mut all = parameters(query);
    all.find(|(own, _)| decodes_to(own, name.as_bytes())).map(|(_, value)| decoded(value))
}

/// Whether an upstream may take one field for the other: gateways to programs (CGI, WSGI) write
/// dashes as underscores.
pub fn is_same_field(a: &[u8], b: &[u8]) -> bool {
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| folded(*a) == folded(*b))
}

/// Names and values of a Cookie field (RFC 6265 §4.2.1), without blanks around them.
pub fn cookies(field: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    field.split(|b| *b == b';').filter_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        Some((pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_their_decoded_names() {
        for (query, expected) in [
            ("key=a", Some("a")),
            ("x=1&key=a&key=b", Some("a")),
            ("k%65y=%61%2", Some("a%2")),
            ("key=x%20y+z%2B", Some("x y z+")),
            ("key=%zz%", Some("%zz%")),
            ("&&key", Some("")),
            ("key=a=b", Some("a=b")),
            ("keys=a", None),
            ("", None),
        ] {
            let found = parameter(query.as_bytes(), "key");
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{query}");
        }
    }

    #[test]
    fn what_is_compared_is_what_is_decoded() {
        for text in ["", "+", "a+b", "%2B", "%", "%4", "%41+%zz", "a%20b", "++%2", "caf%C3%A9"] {
            let decoded = decoded(text.as_bytes());
            assert!(decodes_to(text.as_bytes(), &decoded), "{text}");
            assert!(!decodes_to(text.as_bytes(), b"something else"), "{text}");
        }
    }

    #[test]
    fn cookies_are_read() {
        let found: Vec<_> = cookies(b"a=1; b=x=y ;c;; d=; e = 2").collect();
        let wanted: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b", b"x=y"), (b"d", b""), (b"e", b"2")];
        assert_eq!(found, wanted);
    }
}
