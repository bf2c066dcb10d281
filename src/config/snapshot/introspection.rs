//! Providers that are asked about tokens.

use super::UpstreamId;
use crate::{config::values::Secret, policy::jwt::Rule};

/// `[introspection.NAME]`.
#[derive(Clone, Debug)]
pub struct IntrospectionRule {
    /// What is asked of a token that is active.
    pub rule: Rule,
    pub upstream: UpstreamId,
    pub question: AskedProvider,
    pub timeout_ms: u64,
    pub remember_ms: u64,
    pub remember_refused_ms: u64,
    pub stale_ms: u64,
    /// Of one worker.
    pub at_once_max: u32,
    /// For what active tokens come to, in each worker.
    pub cache_bytes: u64,
}

/// Whom tokens are asked of, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedProvider {
    pub upstream_name: String,
    pub path: String,
    pub host: String,
    /// The field Authorization, where that shows who asks.
    pub authorization: Option<Secret<String>>,
    /// The beginning of the body: who asks, where that shows it.
    pub form: Secret<String>,
}

impl IntrospectionRule {
    /// What one of them was told counts for the other.
    pub fn is_same(&self, other: &IntrospectionRule) -> bool {
        self.rule == other.rule && self.question == other.question
    }
}
