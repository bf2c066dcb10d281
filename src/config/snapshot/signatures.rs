//! Signatures over requests.

use std::sync::Arc;

use super::Accepted;
use crate::policy::signature::{Keys, Rule};

/// `[signatures.NAME]`.
#[derive(Clone, Debug)]
pub struct SignatureRule {
    pub rule: Rule,
    /// Of all consumers. Workers share them and never write.
    pub keys: Arc<Keys>,
    pub accepted: Accepted,
    /// That are remembered of one key.
    pub nonces_max: u32,
    /// Bytes of a body that is held to be compared with its digest.
    pub body_bytes_max: usize,
    /// What clients are told of it, in a field Accept-Signature.
    pub wanted: String,
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretEncoding {
    Text,
    Base64,
}
