//! Who forwarded a request: X-Forwarded-For and Forwarded (RFC 7239), read from the right.
//!
//! Each proxy appends to the right, so only the rightmost elements come from proxies one may trust,
//! and what is left of them was written by anybody. Reading therefore goes from right to left and
//! stops at the first malformed element, without looking at what is left of it.

use std::net::{IpAddr, Ipv6Addr};

use super::authority::Authority;
use super::grammar::{is_token, is_value_byte, trim};
use super::{Field, FieldId};

/// One party in the chain (RFC 7239 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    /// The address as written: an IPv4-mapped IPv6 address stays one.
    Ip(IpAddr, Option<u16>),
    Unknown,
    /// With its leading underscore.
    Obfuscated(&'a [u8]),
}

/// An element that is not well-formed. Nothing further left can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// One element of a Forwarded field. Parameters other than these are checked and ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Element<'a> {
    pub for_node: Option<Node<'a>>,
    pub by_node: Option<Node<'a>>,
    /// A scheme; compare it ignoring case.
    pub proto: Option<&'a [u8]>,
    /// A valid `host[:port]`.
    pub host: Option<&'a [u8]>,
}

/// The non-empty list elements of all fields with one id, rightmost of the last field first.
struct FromRight<'a> {
    buf: &'a [u8],
    fields: &'a [Field],
    id: FieldId,
    /// Commas inside quoted strings do not separate.
    quoted_strings: bool,
    /// What is still to be read of the current field's value.
    rest: Option<&'a [u8]>,
    stopped: bool,
}

impl<'a> FromRight<'a> {
    fn new(buf: &'a [u8], fields: &'a [Field], id: FieldId) -> FromRight<'a> {
        let quoted_strings = id == FieldId::Forwarded;
        FromRight { buf, fields, id, quoted_strings, rest: None, stopped: false }
    }

    /// The next non-empty element; `Malformed` when a quoted string has no beginning.
    fn element(&mut self) -> Option<Result<&'a [u8], Malformed>> {
        if self.stopped {
            return None;
        }
        loop {
            let Some(rest) = self.rest.take() else {
                let (last, before) = self.fields.split_last()?;
                self.fields = before;
                self.rest = (last.id == self.id).then(|| last.value.of(self.buf));
                continue;
            };
            let comma = if self.quoted_strings {
                match unquoted_comma_from_right(rest) {
                    Ok(comma) => comma,
                    Err(malformed) => return Some(Err(malformed)),
                }
            } else {
                memchr::memrchr(b',', rest)
            };
            let element = match comma {
                Some(at) => {
                    self.rest = Some(&rest[..at]);
                    trim(&rest[at + 1..])
                }
                None => trim(rest),
            };
            if !element.is_empty() {
                return Some(Ok(element));
            }
        }
    }

    /// The next element as `parse` reads it; nothing after the first malformed one.
    fn parsed<T>(
        &mut self,
        parse: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Option<Result<T, Malformed>> {
        let parsed = self.element()?.and_then(|element| parse(element).ok_or(Malformed));
        self.stopped = parsed.is_err();
        Some(parsed)
    }
}

/// Position of the last comma outside quoted strings. Outside of them a backslash cannot occur, so
/// a quote with an odd number of backslashes before it is content, whichever way one reads.
fn unquoted_comma_from_right(text: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut quoted = false;
    let mut at = text.len();
    while at > 0 {
        at -= 1;
        match text[at] {
            b',' if !quoted => return Ok(Some(at)),
            b'"' if quoted => {
                let backslashes = text[..at].iter().rev().take_while(|&&b| b == b'\\').count();
                at -= backslashes;
                quoted = backslashes % 2 == 1;
            }
            b'"' => quoted = true,
            _ => {}
        }
    }
    if quoted { Err(Malformed) } else { Ok(None) }
}

/// The nodes of all X-Forwarded-For lines among `fields`, from right to left.
pub struct ForwardedFor<'a>(FromRight<'a>);

impl<'a> ForwardedFor<'a> {
    /// `fields` were parsed from `buf`.
    pub fn new(buf: &'a [u8], fields: &'a [Field]) -> ForwardedFor<'a> {
        ForwardedFor(FromRight::new(buf, fields, FieldId::XForwardedFor))
    }
}

impl<'a> Iterator for ForwardedFor<'a> {
    type Item = Result<Node<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.parsed(Node::parse_lax)
    }
}

/// The elements of all Forwarded lines among `fields`, from right to left.
pub struct Forwarded<'a>(FromRight<'a>);

impl<'a> Forwarded<'a> {
    /// `fields` were parsed from `buf`.
    pub fn new(buf: &'a [u8], fields: &'a [Field]) -> Forwarded<'a> {
        Forwarded(FromRight::new(buf, fields, FieldId::Forwarded))
    }
}

impl<'a> Iterator for Forwarded<'a> {
    type Item = Result<Element<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.parsed(Element::parse)
    }
}

impl<'a> Node<'a> {
    /// A node as X-Forwarded-For has it: IPv6 addresses mostly without brackets.
    fn parse_lax(text: &'a [u8]) -> Option<Node<'a>> {
        match ip::<Ipv6Addr>(text) {
            Some(address) => Some(Node::Ip(address.into(), None)),
            None => Node::parse(text),
        }
    }

    /// `nodename [ ":" node-port ]` (RFC 7239 §6). An obfuscated port is no port.
    fn parse(text: &'a [u8]) -> Option<Node<'a>> {
        let (name, port) = match text {
            [b'[', ..] => {
                let close = memchr::memchr(b']', text)?;
                let port = match &text[close + 1..] {
                    [] => None,
                    [b':', port @ ..] => Some(port),
                    _ => return None,
                };
                (&text[..close + 1], port)
            }
            _ => match memchr::memchr(b':', text) {
                Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
                None => (text, None),
            },
        };
        let port = match port {
            None => None,
            Some(port) if is_obfuscated(port) => None,
            Some(port) if port.len() <= 5 => {
                Some(u16::try_from(super::grammar::number(port)?).ok()?)
            }
            Some(_) => return None,
        };
        match name {
            [b'[', inside @ .., b']'] => Some(Node::Ip(ip::<Ipv6Addr>(inside)?.into(), port)),
            _ if name.eq_ignore_ascii_case(b"unknown") => Some(Node::Unknown),
            _ if is_obfuscated(name) => Some(Node::Obfuscated(name)),
            _ => Some(Node::Ip(ip::<std::net::Ipv4Addr>(name)?.into(), port)),
        }
    }
}

fn ip<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `"_" 1*( ALPHA / DIGIT / "." / "_" / "-" )`.
fn is_obfuscated(text: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    matches!(text, [b'_', rest @ ..] if !rest.is_empty() && rest.iter().all(allowed))
}

impl<'a> Element<'a> {
    /// `[ pair ] *( ";" [ pair ] )`, each known parameter at most once (RFC 7239 §4). Whitespace
    /// around the semicolon is accepted, as many proxies write it.
    fn parse(text: &'a [u8]) -> Option<Element<'a>> {
        let mut element = Element::default();
        let mut rest = text;
        while !rest.is_empty() {
            if let [b';', after @ ..] = rest {
                rest = trim(after);
                continue;
            }
            let equals = memchr::memchr(b'=', rest)?;
            let (name, value) = (&rest[..equals], &rest[equals + 1..]);
            if !is_token(name) {
                return None;
            }
            let (value, after) = parameter_value(value)?;
            element.set(name, value)?;
            rest = trim(after);
            if !matches!(rest, [] | [b';', ..]) {
                return None;
            }
        }
        Some(element)
    }

    fn set(&mut self, name: &[u8], value: &'a [u8]) -> Option<()> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let repeated = if is(b"for") {
            self.for_node.replace(Node::parse(value)?).is_some()
        } else if is(b"by") {
            self.by_node.replace(Node::parse(value)?).is_some()
        } else if is(b"proto") {
            self.proto.replace(Some(value).filter(|value| is_scheme(value))?).is_some()
        } else if is(b"host") {
            Authority::parse(value)?;
            self.host.replace(value).is_some()
        } else {
            false
        };
        (!repeated).then_some(())
    }
}

/// RFC 3986 §3.1.
fn is_scheme(text: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    matches!(text, [first, rest @ ..] if first.is_ascii_alphabetic() && rest.iter().all(allowed))
}

/// The token or quoted string at the start of `text`, without its quotes but with its escapes, and
/// what follows. No value that means something here needs an escape, so one that has it is
/// not valid where a node, scheme or host is expected.
fn parameter_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let [b'"', inside @ ..] = text else {
        let end = text.iter().position(|&b| matches!(b, b';' | b' ' | b'\t'));
        let (value, after) = text.split_at(end.unwrap_or(text.len()));
        return is_token(value).then_some((value, after));
    };
    let mut at = 0;
    loop {
        match inside.get(at)? {
            b'"' => return Some((&inside[..at], &inside[at + 1..])),
            b'\\' if is_value_byte(*inside.get(at + 1)?) => at += 2,
            b if is_value_byte(*b) && *b != b'\\' => at += 1,
            _ => return None,
        }
    }
}

/// Appends one Forwarded element: who sent the request, by which scheme and to which host, and
/// optionally which of our addresses took it. `host` may be any bytes of a field value; whatever is
/// not a token is quoted (RFC 7239 §4). An empty `host` is left out.
pub fn write_forwarded_element(
    out: &mut Vec<u8>,
    for_ip: IpAddr,
    proto: &str,
    host: &[u8],
    by: Option<IpAddr>,
) {
    out.extend_from_slice(b"for=");
    write_address(out, for_ip);
    if let Some(by) = by {
        out.extend_from_slice(b";by=");
        write_address(out, by);
    }
    if !host.is_empty() {
        out.extend_from_slice(b";host=");
        write_value(out, host);
    }
    out.extend_from_slice(b";proto=");
    write_value(out, proto.as_bytes());
}

fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    use std::io::Write as _;
    // Writing to a Vec cannot fail.
    let _ = match address {
        IpAddr::V4(address) => write!(out, "{address}"),
        IpAddr::V6(address) => write!(out, "\"[{address}]\""),
    };
}

fn write_value(out: &mut Vec<u8>, value: &[u8]) {
    if is_token(value) {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for &b in value {
        if b == b'"' || b == b'\\' {
            out.push(b'\\');
        }
        out.push(b);
    }
    out.push(b'"');
}

#[cfg(test)]
#[path = "tests/forwarded.rs"]
mod tests;
