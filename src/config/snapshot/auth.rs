//! Ways by which clients show who they are, and which of them a route asks for.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    BasicRule, IntrospectionRule, KeyRule, LoginWay, ServiceRule, SignatureRule, jwks::Provider,
};
use crate::{
    config::values::Secret,
    policy::{
        auth::{Asked, Source, WayId},
        jwt::{KeySet, Rule},
    },
};

/// One way, by [`crate::policy::auth::WayId`].
#[derive(Clone, Debug)]
pub struct Way {
    /// Of its section, or `certificate`.
    pub name: String,
    pub kind: WayKind,
    /// Where its credential is looked for.
    pub sources: Vec<Source>,
    /// Upstreams get the credential as it came.
    pub forward_credential: bool,
    /// Fields that tell the upstream of the identity.
    pub forward: Vec<ClaimField>,
}

/// What a way looks at.
#[derive(Clone, Debug)]
pub enum WayKind {
    /// The client's verified certificate.
    Certificate,
    ApiKey(KeyRule),
    Password(BasicRule),
    /// A signature over the request.
    Signature(Box<SignatureRule>),
    Service(ServiceRule),
    /// JSON Web Tokens.
    Jwt(Box<JwtWay>),
    /// Tokens that a provider is asked about.
    Introspection(Box<IntrospectionRule>),
    /// A session that a login began (OpenID Connect).
    Login(Box<LoginWay>),
}

/// A section `[jwt.NAME]`.
#[derive(Clone, Debug)]
pub struct JwtWay {
    pub rule: Rule,
    pub keys: KeySource,
    /// For verified tokens, in each worker.
    pub cache_bytes: u64,
}

/// Where keys come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    Fixed(Arc<KeySet>),
    Remote(Arc<Provider>),
}

impl JwtWay {
    /// A token that one of them accepts is accepted by the other.
    pub fn is_same(&self, other: &JwtWay) -> bool {
        self.rule == other.rule
            && match (&self.keys, &other.keys) {
                (KeySource::Fixed(own), KeySource::Fixed(its)) => own == its,
                (KeySource::Remote(own), KeySource::Remote(its)) => {
                    Arc::ptr_eq(&own.cell, &its.cell)
                }
                _ => false,
            }
    }
}

impl WayKind {
    /// In words.
    pub fn words(&self) -> &'static str {
        match self {
            WayKind::Certificate => "the client's certificate",
            WayKind::ApiKey(_) => "an API key",
            WayKind::Password(_) => "a name and password",
            WayKind::Signature(_) => "a signature over the request",
            WayKind::Service(_) => "a service says who it is",
            WayKind::Jwt(_) => "JSON Web Token",
            WayKind::Introspection(_) => "a token that its provider is asked about",
            WayKind::Login(_) => "the session of a login",
        }
    }
}

/// A field that carries a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimField {
    /// In lower case.
    pub name: Box<[u8]>,
    /// [`crate::policy::identity::Identity::claim`].
    pub path: String,
}

/// Fields that only the gateway writes where it asks who a request is from, in lower case: the
/// consumer's name, and its groups.
pub const CONSUMER_FIELDS: [&[u8]; 2] = [b"x-consumer-name", b"x-consumer-groups"];

/// Key `authenticate` of a route.
#[derive(Clone, Debug)]
pub struct Authenticate {
    pub asked: Asked,
    /// Upstreams are told of the consumer ([`CONSUMER_FIELDS`]).
    pub tells_consumer: bool,
    /// Credentials that the upstream does not get.
    pub removed: Vec<Source>,
    /// Those of its ways that are logins, in order.
    pub logins: Vec<WayId>,
    /// By alternative: a body is compared with its signed digest, and held up to so many bytes.
    pub digested: Vec<Option<usize>>,
}

impl Authenticate {
    /// Some requests have bodies that are held and compared with their digests.
    pub fn holds_bodies(&self) -> bool {
        self.digested.iter().any(Option::is_some)
    }
}

/// How a client shows who it is to a provider (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    Basic,
    Post,
}

/// A text as forms have it (`application/x-www-form-urlencoded`).
pub fn form_coded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// What [`ClientAuth::Basic`] shows (RFC 6749 §2.3.1): both are coded as in forms before they are
/// put together.
pub fn basic_credential(client_id: &str, secret: &Secret<String>) -> Secret<String> {
    let pair = format!("{}:{}", form_coded(client_id), form_coded(&secret.0));
    Secret(format!("Basic {}", STANDARD.encode(pair)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_coded_before_it_is_shown() {
        let shown = basic_credential("a:b", &Secret("s+c r%t".to_owned())).0;
        let pair = STANDARD.decode(shown.strip_prefix("Basic ").expect("Basic")).expect("base64");
        assert_eq!(String::from_utf8(pair).expect("text"), "a%3Ab:s%2Bc+r%25t");
    }
}
