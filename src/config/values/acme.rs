//! What the keys of `listeners.tls.acme` may hold.

use super::{Bad, FromText, addresses::is_host_name, bad};
use crate::choice;

/// Key `acme.challenge`: how it is proved that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// By a handshake (RFC 8737).
    TlsAlpn01,
    /// By a request without TLS (RFC 8555 §8.3).
    Http01,
}

impl AcmeChallenge {
    /// As it is written, here and in the protocol.
    pub fn word(self) -> &'static str {
        match self {
            AcmeChallenge::TlsAlpn01 => "tls-alpn-01",
            AcmeChallenge::Http01 => "http-01",
        }
    }
}

choice!(AcmeChallenge:
    AcmeChallenge::TlsAlpn01 = "tls-alpn-01",
    AcmeChallenge::Http01 = "http-01",
);

/// A DNS name that a certificate can be had for, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainName(pub String);

impl FromText for DomainName {
    const WHAT: &'static str = "a DNS name";
    const EXAMPLE: &'static str = "example.com";

    fn read(text: &str) -> Result<Self, Bad> {
        if text.starts_with("*.") {
            let fix = "write the names one by one; for all of them at once get a certificate by \
                       another tool and name its files in `certificates`";
            return bad("a wildcard, which only an entry in DNS can prove", fix);
        }
        let is_address = text.parse::<std::net::IpAddr>().is_ok() || text.starts_with('[');
        if is_address {
            return bad("an IP address", "write the DNS name that clients use");
        }
        if !text.is_ascii() {
            return bad("not ASCII", "write it as DNS has it: \"xn--...\" (Punycode)");
        }
        if !is_host_name(text) || text.contains('_') {
            return bad("no DNS name", "write a name such as \"example.com\"");
        }
        Ok(DomainName(text.to_ascii_lowercase()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Where an authority says what it offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryUrl(pub String);

impl FromText for DirectoryUrl {
    const WHAT: &'static str = "an https:// URL of an ACME directory";
    const EXAMPLE: &'static str = "https://acme-v02.api.letsencrypt.org/directory";

    fn read(text: &str) -> Result<Self, Bad> {
        let example = format!("write \"{}\"", Self::EXAMPLE);
        let is_uri = text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains('#');
        match text.strip_prefix("https://") {
            None => bad("does not begin with https://", example),
            Some(rest) if !is_uri || rest.starts_with('/') || rest.is_empty() => {
                bad("no URL", example)
            }
            Some(rest) if rest.contains('@') => bad("has a user or password", example),
            Some(_) => Ok(DirectoryUrl(text.to_owned())),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// An address of mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(pub String);

impl FromText for Email {
    const WHAT: &'static str = "an e-mail address";
    const EXAMPLE: &'static str = "you@example.com";

    fn read(text: &str) -> Result<Self, Bad> {
        let example = format!("write it without name or mailto:, such as \"{}\"", Self::EXAMPLE);
        let is_plain = |b: u8| b.is_ascii_graphic() && !b",;<>:?\"\\".contains(&b);
        match text.split_once('@') {
            Some((user, host))
                if !user.is_empty()
                    && user.len() <= 64
                    && user.bytes().all(is_plain)
                    && is_host_name(host) =>
            {
                Ok(Email(text.to_owned()))
            }
            _ => bad("no address", example),
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
    fn names_that_can_be_proved() {
        let table = [
            ("example.com", Ok("example.com")),
            ("WWW.Example.com", Ok("www.example.com")),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            ("*.example.com", Err("wildcard")),
            ("192.0.2.1", Err("IP address")),
            ("[::1]", Err("IP address")),
            ("bücher.example", Err("ASCII")),
            ("a_b.example", Err("no DNS name")),
            ("https://example.com", Err("no DNS name")),
            ("example.com:443", Err("no DNS name")),
            ("", Err("no DNS name")),
        ];
        for (text, wanted) in table {
            match (DomainName::read(text), wanted) {
                (Ok(name), Ok(wanted)) => assert_eq!(name.0, wanted),
                (Err(bad), Err(wanted)) => assert!(bad.label.contains(wanted), "{}", bad.label),
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => panic!("{text}"),
            }
        }
    }

    #[test]
    fn directories_and_addresses() {
        for (text, is_good) in [
            ("https://acme.example/dir?x=y", true),
            ("https://[::1]:14000/dir", true),
            ("http://acme.example/dir", false),
            ("https://", false),
            ("https:///dir", false),
            ("https://a b/", false),
            ("https://u@acme.example/", false),
        ] {
            assert_eq!(DirectoryUrl::read(text).is_ok(), is_good, "{text}");
        }
        for (text, is_good) in [
            ("a.b+c@example.com", true),
            ("mailto:a@example.com", false),
            ("A <a@example.com>", false),
            ("a,b@example.com", false),
            ("a@", false),
            ("@b.example", false),
            ("a b@c.example", false),
        ] {
            assert_eq!(Email::read(text).is_ok(), is_good, "{text}");
        }
    }
}
