//! Ways by which clients show who they are, and which of them a route asks for.

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
}

impl WayKind {
    /// In words.
    pub fn words(&self) -> &'static str {
        match self {
            WayKind::Certificate => "the client's certificate",
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

/// Key `authenticate` of a route.
#[derive(Clone, Debug)]
pub struct Authenticate {
    pub asked: Asked,
    /// Credentials that the upstream does not get.
    pub removed: Vec<Source>,
}
