//! `host[:port]`, as it appears in Host, in an absolute-form target and in CONNECT.

use std::net::Ipv6Addr;

use super::grammar::is_host_byte;

/// A checked `host[:port]` (RFC 3986 §3.2, without userinfo).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// As received; an IPv6 literal keeps its brackets.
    pub host: &'a [u8],
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// `None` when `text` is anything but a host with optional port: empty, userinfo, escapes,
    /// empty labels (one final dot is allowed), an unbracketed or invalid IPv6 address, a port that
    /// is empty, 0 or over 65535.
    #[inline]
    pub fn parse(text: &'a [u8]) -> Option<Authority<'a>> {
        let host_len = match text.first()? {
            b'[' => bracketed_len(text)?,
            _ => name_len(text)?,
        };
        let (host, rest) = text.split_at(host_len);
        let port = match rest {
            [] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return None,
        };
        Some(Authority { host, port })
    }

    /// Same host, ignoring case, and same port once `default_port` stands for a missing one.
    pub fn names_same(self, other: Authority<'_>, default_port: Option<u16>) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.or(default_port) == other.port.or(default_port)
    }
}

/// Length of the registered name or IPv4 address at the start of `text`.
#[inline]
fn name_len(text: &[u8]) -> Option<usize> {
    // An empty first label is refused like one between two dots.
    let mut before = b'.';
    let mut len = 0;
    for &b in text {
        if !is_host_byte(b) {
            break;
        }
        if b == b'.' && before == b'.' {
            return None;
        }
        before = b;
        len += 1;
    }
    // What follows, if anything, must be the colon; the caller checks that.
    (len > 0).then_some(len)
}

fn bracketed_len(text: &[u8]) -> Option<usize> {
    let close = memchr::memchr(b']', text)?;
    let inside = std::str::from_utf8(&text[1..close]).ok()?;
    inside.parse::<Ipv6Addr>().ok()?;
    Some(close + 1)
}

fn port(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 {
        return None;
    }
    let mut value = 0u32;
    for &b in digits {
        if !b.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u32::from(b - b'0');
    }
    u16::try_from(value).ok().filter(|&port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_hosts_with_and_without_port() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("example.com.", "example.com.", None),
            ("EXAMPLE.com:8080", "EXAMPLE.com", Some(8080)),
            ("a_b-c~d", "a_b-c~d", None),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("h:65535", "h", Some(65535)),
            ("h:00080", "h", Some(80)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:443", "[2001:db8::1]", Some(443)),
            ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", None),
        ] {
            let want = Authority { host: host.as_bytes(), port };
            assert_eq!(Authority::parse(text.as_bytes()), Some(want), "{text:?}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            ":",
            ":80",
            ".",
            ".a",
            "a..b",
            "a:",
            "a:0",
            "a:65536",
            "a:99999",
            "a:080808",
            "a:+80",
            "a:8o",
            "a:80:80",
            "u@a",
            "u:p@a",
            "a b",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a%20b",
            "a;b",
            "a=b",
            "a!b",
            "a\tb",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[1.2.3.4]",
            "[::1]80",
            "[::1]:",
            "[::1%eth0]",
            "[::g]",
            "[v1.a]",
            "[[::1]]",
            "a[::1]",
            "\u{e9}",
            "*",
            "a\0",
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn compares_with_default_port() {
        let same = |a: &str, b: &str, default| {
            let a = Authority::parse(a.as_bytes()).unwrap();
            a.names_same(Authority::parse(b.as_bytes()).unwrap(), default)
        };
        assert!(same("A.example", "a.EXAMPLE:80", Some(80)));
        assert!(same("a:443", "a", Some(443)));
        assert!(!same("a:443", "a", Some(80)));
        assert!(!same("a:443", "a", None));
        assert!(!same("a", "b", Some(80)));
    }
}
