//! What limits on requests in progress are.

use super::{RateLimit, Snapshot};
use crate::policy::limit::KeyPart;

/// Index of a limit in `Snapshot::concurrency`.
pub type ConcurrencyId = u32;

/// One limit on requests in progress.
#[derive(Clone, Debug)]
pub struct Concurrency {
    /// Name, key, exemptions and whether it is a shadow, as of a rate limit.
    pub what: RateLimit,
    pub limit: u32,
    /// Requests of a key that may wait.
    pub queue: u32,
    pub queue_ms: u64,
}

impl Concurrency {
    /// It counts what all clients do together: whoever is refused has not done too much.
    pub fn counts_everybody(&self) -> bool {
        self.what.key.iter().all(|part| matches!(part, KeyPart::Route | KeyPart::Host))
    }
}

impl Snapshot {
    pub fn concurrency_limit(&self, id: ConcurrencyId) -> &Concurrency {
        &self.concurrency[id as usize]
    }

    /// How many rates and quotas there are.
    pub fn rates(&self) -> usize {
        self.rate_limits.len()
    }

    /// In the order of their ids.
    pub fn concurrency_limits(&self) -> impl Iterator<Item = &Concurrency> {
        self.concurrency.iter()
    }

    /// Names of all limits that are counted, by which figures tell them apart: rates, quotas, then
    /// those on requests in progress.
    pub fn limit_names(&self) -> Vec<String> {
        let rates = self.rate_limits.iter().map(|limit| limit.name.clone());
        rates.chain(self.concurrency.iter().map(|limit| limit.what.name.clone())).collect()
    }
}
