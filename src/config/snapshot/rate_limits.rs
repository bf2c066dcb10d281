//! What rate limits are.

use std::{path::PathBuf, sync::Arc};

use ipnet::IpNet;

use super::SharedLimit;
use crate::policy::limit::{Calendar, Key, KeyPart, Parts, Seeds, Window, fields::Names};

/// Index of a limit in `Snapshot::rate_limits`.
pub type LimitId = u32;

/// One limit: a rate, or a quota.
#[derive(Clone, Debug)]
pub struct RateLimit {
    pub name: String,
    /// At least one. Of a quota: its amount in its period, as far as clients are told.
    pub windows: Vec<Window>,
    /// A quota, and its periods; `None`: a rate.
    pub quota: Option<Calendar>,
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

    /// The number of a quota, the same in every process with these seeds: of its name, and of what
    /// it counts by and in which periods, since other counts mean something else.
    pub fn quota_number(&self, seeds: Seeds) -> u64 {
        let mut key = Key::lasting(seeds, 0);
        key.value(Some(self.name.as_bytes()));
        let what = format!("{:?} {:?}", self.quota, self.key);
        key.value(Some(what.as_bytes()));
        key.finish()
    }

    /// What there is in each period, of a quota.
    pub fn amount(&self) -> u32 {
        self.windows.first().map_or(0, |window| window.count)
    }

    /// Each consumer counts by itself, and nothing else matters.
    pub fn is_by_consumer(&self) -> bool {
        matches!(*self.key, [KeyPart::Consumer])
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

/// Where it is kept what was used of quotas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaStore {
    /// `None`: nowhere.
    pub folder: Option<PathBuf>,
    pub save_every_ms: u64,
}
