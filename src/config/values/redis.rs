//! What `[redis]` is made of: addresses, and what keys begin with.

use super::{Bad, EndpointName, FromText, bad};

/// Where a Redis server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAddress(pub EndpointName);

impl FromText for RedisAddress {
    const WHAT: &'static str = "an address or name with port, or \"unix:\" and a path";
    const EXAMPLE: &'static str = "127.0.0.1:6379";

    fn read(text: &str) -> Result<Self, Bad> {
        if let Some((scheme, rest)) = text.split_once("://") {
            let host = rest.split(['/', '?']).next().unwrap_or_default();
            let host = host.rsplit('@').next().unwrap_or_default();
            let host = with_port(host);
            let tls = if scheme == "rediss" { ", and tls = {}" } else { "" };
            return bad("a URL", format!("write \"{host}\"{tls}; the rest has keys of its own"));
        }
        if !text.starts_with("unix:") && with_port(text) != text {
            return bad("no port", format!("write \"{}\"", with_port(text)));
        }
        EndpointName::read(text).map(RedisAddress)
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

/// A host with its port, or the usual one.
fn with_port(host: &str) -> String {
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => std::net::SocketAddr::new(address, 6379).to_string(),
        Err(_) if host.ends_with(']') || !host.contains(':') => format!("{host}:6379"),
        Err(_) => host.to_owned(),
    }
}

/// What the names of keys begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPrefix(pub String);

/// Bytes of a prefix, at most.
const PREFIX_MAX: usize = 64;

impl FromText for KeyPrefix {
    const WHAT: &'static str = "what the names of keys begin with";
    const EXAMPLE: &'static str = "ringway:";

    fn read(text: &str) -> Result<Self, Bad> {
        if text.len() > PREFIX_MAX {
            return bad("longer than 64 bytes", "write a short one, such as \"ringway:\"");
        }
        // Braces would say which slot of a cluster a key belongs to.
        let is_plain = |b: u8| b.is_ascii_graphic() && !b"{}\"\\".contains(&b);
        match text.bytes().all(is_plain) {
            true => Ok(KeyPrefix(text.to_owned())),
            false => bad(
                "has a character that does not belong there",
                "write letters, digits, `-`, `_`, `.` and `:`, such as \"ringway:\"",
            ),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers() {
        for text in ["127.0.0.1:6379", "redis.internal:6380", "[::1]:6379", "unix:/run/redis.sock"]
        {
            let read = RedisAddress::read(text).map_err(|bad| bad.fix);
            assert_eq!(read.map(|address| address.show()), Ok(text.to_owned()));
        }
        for (text, fix) in [
            ("redis.internal", "write \"redis.internal:6379\""),
            ("::1", "write \"[::1]:6379\""),
            ("10.0.0.1", "write \"10.0.0.1:6379\""),
            ("redis://u:p@h/0", "write \"h:6379\"; the rest has keys of its own"),
            ("rediss://h:1", "write \"h:1\", and tls = {}; the rest has keys of its own"),
            ("h:0", "write a port between"),
        ] {
            let got = RedisAddress::read(text).err().map(|bad| bad.fix).unwrap_or_default();
            assert!(got.starts_with(fix), "{text}: {got}");
        }
        assert!(KeyPrefix::read("").is_ok(), "none at all");
        for text in ["a b", "a{b}", "\u{e4}", &"x".repeat(65)] {
            assert!(KeyPrefix::read(text).is_err(), "{text}");
        }
    }
}
