//! What limits on requests in progress are.

use super::RateLimit;
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
