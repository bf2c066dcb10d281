//! What the keys of `[oidc.NAME]` may hold.

use super::{Bad, FromText, bad, trusted_url};
use crate::{choice, config::decode::quoted, config::snapshot::ClientAuth};

choice!(ClientAuth: ClientAuth::Basic = "basic", ClientAuth::Post = "post");

/// The name of a provider: over TLS, or on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerUrl(pub String);

impl FromText for IssuerUrl {
    const WHAT: &'static str = "an https:// URL";
    const EXAMPLE: &'static str = "https://id.example.com/realms/main";

    fn read(text: &str) -> Result<Self, Bad> {
        match trusted_url(text) {
            Ok(()) => Ok(IssuerUrl(text.to_owned())),
            Err(why) => {
                bad(why, format!("write the issuer as the provider does: \"{}\"", Self::EXAMPLE))
            }
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Scheme and authority of URLs that browsers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicOrigin(pub String);

impl FromText for PublicOrigin {
    const WHAT: &'static str = "a scheme and a host";
    const EXAMPLE: &'static str = "https://shop.example.com";

    fn read(text: &str) -> Result<Self, Bad> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let uri: http::Uri = match text.parse() {
            Ok(uri) => uri,
            Err(_) => return bad("no URL", format!("write \"{}\"", Self::EXAMPLE)),
        };
        let (scheme, authority) = (uri.scheme_str(), uri.authority());
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (scheme, authority) else {
            return bad("without scheme or host", format!("write \"{}\"", Self::EXAMPLE));
        };
        let origin = format!("{scheme}://{}", authority.as_str().to_ascii_lowercase());
        if authority.as_str().contains('@') || origin.len() != text.len() {
            return bad("more than scheme and host", format!("write {}", quoted(&origin)));
        }
        Ok(PublicOrigin(origin))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A path of the same origin, or a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnUrl(pub String);

impl FromText for ReturnUrl {
    const WHAT: &'static str = "a path, or an http:// or https:// URL";
    const EXAMPLE: &'static str = "/goodbye";

    fn read(text: &str) -> Result<Self, Bad> {
        let is_path = crate::policy::oidc::flow::return_path(text.as_bytes()) == text;
        let is_url = || {
            let uri = text.parse::<http::Uri>().ok();
            uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")))
        };
        match is_path || is_url() {
            true => Ok(ReturnUrl(text.to_owned())),
            false => bad("neither", format!("write \"{}\"", Self::EXAMPLE)),
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
    fn origins() {
        for (text, wanted) in [
            ("https://shop.example.com", Some("https://shop.example.com")),
            ("https://Shop.example.com:8443/", Some("https://shop.example.com:8443")),
            ("http://localhost:8080", Some("http://localhost:8080")),
            ("shop.example.com", None),
            ("https://shop.example.com/app", None),
            ("https://shop.example.com?x", None),
            ("https://user@shop.example.com", None),
            ("ftp://shop.example.com", None),
            ("", None),
        ] {
            let read = PublicOrigin::read(text).ok().map(|origin| origin.0);
            assert_eq!(read.as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn where_to_go_after_a_logout() {
        for (text, is_good) in [
            ("/", true),
            ("/bye?x=1", true),
            ("https://www.example.com/", true),
            ("//www.example.com/", false),
            ("/\\www.example.com/", false),
            ("javascript:alert(1)", false),
            ("bye", false),
        ] {
            assert_eq!(ReturnUrl::read(text).is_ok(), is_good, "{text}");
        }
    }
}
