//! Values of the tracing section: a collector's URL, who decides.

use super::{Bad, FromText, bad};
use crate::{
    choice,
    config::snapshot::{Parent, ServerTiming},
};

choice!(Parent: Parent::Follow = "follow", Parent::Ignore = "ignore");
choice!(ServerTiming:
    ServerTiming::Off = "off",
    ServerTiming::Always = "always",
    ServerTiming::Sampled = "sampled",
);

/// Where a collector takes traces by OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl(pub String);

const COLLECTOR: &str = "http://127.0.0.1:4318/v1/traces";

impl FromText for CollectorUrl {
    const WHAT: &'static str = "an http:// URL of a collector";
    const EXAMPLE: &'static str = COLLECTOR;

    fn read(text: &str) -> Result<Self, Bad> {
        let example = || format!("write \"{COLLECTOR}\"");
        let Some((scheme, rest)) = text.split_once("://") else {
            let is_host = !text.is_empty() && !text.contains(['/', ' ']);
            let fix = if is_host && text.contains(':') {
                format!("write \"http://{text}/v1/traces\"")
            } else {
                example()
            };
            return bad("no scheme", fix);
        };
        if scheme.eq_ignore_ascii_case("https") {
            let fix = "send to a collector on this host or network by \"http://\", and let that \
                       one speak TLS: this version of Ringway has no TLS of its own";
            return bad("TLS is not there yet", fix);
        }
        if scheme != "http" {
            return bad("another scheme", example());
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !rest.bytes().all(|b| b.is_ascii_graphic()) || rest.contains('#') {
            return bad("has a character that no URL has", example());
        }
        if authority.contains('@') {
            let fix = "write headers = { Authorization = \"Basic ...\" } for it";
            return bad("has a user or password", fix);
        }
        if !is_authority(authority) {
            return bad("no host, or a port that is none", example());
        }
        if path.is_empty() || path == "/" {
            let fix =
                format!("write \"http://{authority}/v1/traces\", where collectors take traces");
            return bad("no path", fix);
        }
        Ok(CollectorUrl(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// `host` or `host:port`.
fn is_authority(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    super::addresses::is_host_name(host)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors() {
        for (text, expected) in [
            ("http://127.0.0.1:4318/v1/traces", ""),
            ("http://collector/v1/traces", ""),
            ("http://[::1]:4318/v1/traces", ""),
            ("http://[::1]/x?y", ""),
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://c/", "http://c/v1/traces"),
            ("127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://c/v1/traces", "no TLS"),
            ("HTTPS://c/v1/traces", "no TLS"),
            ("grpc://c:4317", COLLECTOR),
            ("http://user:pw@c/v1/traces", "Authorization"),
            ("http:///v1/traces", COLLECTOR),
            ("http://c:0/v1/traces", COLLECTOR),
            ("http://c:x/v1/traces", COLLECTOR),
            ("http://c/v1 /traces", COLLECTOR),
            ("http://c/v1\r\nx", COLLECTOR),
            ("", COLLECTOR),
        ] {
            match CollectorUrl::read(text) {
                Ok(url) => assert!(expected.is_empty() && url.show() == text, "{text}"),
                Err(bad) => assert!(!expected.is_empty() && bad.fix.contains(expected), "{text}"),
            }
        }
    }
}
