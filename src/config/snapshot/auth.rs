//! Ways by which clients show who they are, and which of them a route asks for.

use super::{BasicRule, KeyRule, ServiceRule};
use crate::policy::auth::{Asked, Source};

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
    Service(ServiceRule),
}

impl WayKind {
    /// In words.
    pub fn words(&self) -> &'static str {
        match self {
            WayKind::Certificate => "the client's certificate",
            WayKind::ApiKey(_) => "an API key",
            WayKind::Password(_) => "a name and password",
            WayKind::Service(_) => "a service says who it is",
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
}
