//! Services that decide who a request is from.

use super::UpstreamId;

/// `[forward_auth.NAME]`. What upstreams get of its answer is the way's `forward`.
#[derive(Clone, Debug)]
pub struct ServiceRule {
    pub upstream: UpstreamId,
    pub path: String,
    /// Of the request; in lower case.
    pub fields: Vec<Box<[u8]>>,
    /// Of the answer, in lower case.
    pub subject: Option<String>,
    pub groups: Option<String>,
    pub timeout_ms: u64,
    /// 0: nothing is remembered.
    pub remember_s: u64,
}
