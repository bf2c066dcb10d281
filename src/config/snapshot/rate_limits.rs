//! What rate limits are.

use std::sync::Arc;

use ipnet::IpNet;

use super::SharedLimit;
use crate::policy::limit::{KeyPart, Window, fields::Names};

/// Index of a limit in `Snapshot::rate_limits`.
pub type LimitId = u32;

/// One limit.
#[derive(Clone, Debug)]
pub struct RateLimit {
    pub name: String,
    /// At least one.
    pub windows: Vec<Window>,
    pub key: Box<[KeyPart]>,
    /// Tokens for one request; no more than a window holds.
    pub cost: u32,
    /// The response field, in lower case, that says what a request cost in the end.
    pub cost_from: Option<Box<str>>,
    /// All processes of a fleet count together.
    pub shared: Option<Arc<SharedLimit>>,
    pub exempt_networks: Vec<IpNet>,
    pub exempt_values: Vec<Box<[u8]>>,
    /// What it would refuse passes.
    pub shadow: bool,
    /// Of the whole process.
    pub keys_max: usize,
    pub names: Names,
    /// Responses that pass tell what is left.
    pub tells: bool,
    /// And so do X-RateLimit fields.
    pub tells_old: bool,
}

impl RateLimit {
    /// Those of the buckets in this process: of a limit that is shared, for while it has to do
    /// without.
    pub fn own_windows(&self) -> &[Window] {
        self.shared.as_ref().map_or(&self.windows, |shared| &shared.alone)
    }

    /// Nobody is known before authentication.
    pub fn needs_identity(&self) -> bool {
        self.key.iter().any(KeyPart::needs_identity)
    }
}

/// The limits of one route, in the order in which they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteLimits {
    /// Before authentication.
    pub early: Box<[LimitId]>,
    /// After authorisation.
    pub late: Box<[LimitId]>,
    /// Responses of the upstream may say what a request cost.
    pub charges: bool,
}
