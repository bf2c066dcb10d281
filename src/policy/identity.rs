//! Who a request is from, as far as that was verified. Authentication makes it; authorisation,
//! limits, transformations and upstreams read it.

use std::rc::Rc;

use serde_json::{Map, Value};

/// Claims that a verified identity comes with; empty for those that have none.
pub type Claims = Map<String, Value>;

/// How an identity was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A signed token (JWT).
    Token,
    /// An API key.
    Key,
    /// A name and a password (HTTP Basic).
    Password,
    /// A certificate, in the TLS handshake.
    Certificate,
    /// A signature over the request (RFC 9421).
    Signature,
    /// Another service vouches for it: forward-auth or introspection.
    Service,
    /// A session that a login began (OpenID Connect).
    Session,
}

/// A verified identity. One worker's own: what is remembered between requests is shared by `Rc`.
#[derive(Clone, Debug)]
pub struct Identity {
    pub shown: Shown,
    /// The section that verified it, as named in the configuration.
    pub by: Rc<str>,
    /// Who it is: `sub` of a token, name of a consumer, subject of a certificate.
    pub subject: Rc<str>,
    /// The consumer it belongs to, as an index of the snapshot's, when it belongs to one.
    pub consumer: Option<u32>,
    pub groups: Rc<[Box<str>]>,
    pub scopes: Rc<[Box<str>]>,
    pub claims: Rc<Claims>,
}

impl Identity {
    /// One that has nothing but a subject.
    pub fn plain(shown: Shown, by: Rc<str>, subject: Rc<str>) -> Identity {
        Identity {
            shown,
            by,
            subject,
            consumer: None,
            groups: Rc::default(),
            scopes: Rc::default(),
            claims: Rc::default(),
        }
    }

    /// The claim at `path`: names of objects' members, separated by dots.
    pub fn claim(&self, path: &str) -> Option<&Value> {
        // A name with dots in it, such as a URL, comes first.
        if let Some(value) = self.claims.get(path) {
            return Some(value);
        }
        let (first, rest) = path.split_once('.')?;
        rest.split('.').try_fold(self.claims.get(first)?, |value, name| value.get(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_path() {
        let claims = json!({
            "sub": "a", "realm": { "roles": ["x"], "deep": { "er": 1 } }, "https://e.com/r": true,
        });
        let mut identity = Identity::plain(Shown::Token, "main".into(), "a".into());
        identity.claims = Rc::new(claims.as_object().cloned().unwrap_or_default());
        for (path, expected) in [
            ("sub", Some(json!("a"))),
            ("realm.roles", Some(json!(["x"]))),
            ("realm.deep.er", Some(json!(1))),
            ("https://e.com/r", Some(json!(true))),
            ("realm.none", None),
            ("sub.x", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(identity.claim(path), expected.as_ref(), "{path}");
        }
    }
}
