//! Tokens in compact form (RFC 7515 §7.1): their three parts, their header, and their signature.
//!
//! Everything is read strictly: base64url without padding, unused bits zero, nothing between the
//! parts. Invariant: the algorithm is one of those given, and one that the key is for; the token
//! only says which.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{algorithm::Algorithm, key::KeySet};

/// Keys tried for a token that names none.
const TRIES_MAX: usize = 16;

/// A token whose signature nobody has verified.
#[derive(Debug)]
pub struct Token<'t> {
    pub header: Header,
    pub algorithm: Algorithm,
    pub payload: Vec<u8>,
    message: &'t [u8],
    signature: Vec<u8>,
}

/// What of a header counts (RFC 7515 §4.1). Keys and certificates that it brings are not looked
/// at.
#[derive(Debug, Deserialize)]
pub struct Header {
    alg: String,
    #[serde(default)]
    pub kid: Option<String>,
    #[serde(default)]
    pub typ: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
    #[serde(default, deserialize_with = "is_there")]
    b64: bool,
}

/// A member that is there, whatever it is.
fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Malformed, of another algorithm, or not signed by that key.
    Invalid,
    /// No key has its name.
    KeyUnknown,
}

impl<'t> Token<'t> {
    /// Reads a token. `None`: it is malformed, of no algorithm of `algorithms`, or has something
    /// in its header that must be understood and is not.
    pub fn read(token: &'t [u8], algorithms: &[Algorithm]) -> Option<Token<'t>> {
        let mut parts = token.split(|byte| *byte == b'.');
        let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let decoded: Header = serde_json::from_slice(&decode(header)?).ok()?;
        // No extension is known (RFC 7515 §4.1.11), `b64` of RFC 7797 among them.
        if decoded.crit || decoded.b64 {
            return None;
        }
        let algorithm = Algorithm::named(&decoded.alg)?;
        if !algorithms.contains(&algorithm) {
            return None;
        }
        Some(Token {
            header: decoded,
            algorithm,
            message: &token[..header.len() + 1 + payload.len()],
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    /// Whether one of `keys` has signed it.
    pub fn verify(&self, keys: &KeySet) -> Result<(), Bad> {
        let mut bad = Bad::KeyUnknown;
        let mut tries = 0;
        for key in keys.candidates(self.header.kid.as_deref()) {
            match key.verifies(self.algorithm, self.message, &self.signature) {
                Some(true) => return Ok(()),
                Some(false) => {
                    bad = Bad::Invalid;
                    tries += 1;
                    if tries == TRIES_MAX {
                        break;
                    }
                }
                // A key of that name, but not for that.
                None if self.header.kid.is_some() && key.kid().is_some() => bad = Bad::Invalid,
                None => {}
            }
        }
        Err(bad)
    }
}

/// What a token says, whoever signed it.
pub(super) fn payload(token: &[u8]) -> Option<Vec<u8>> {
    decode(token.split(|byte| *byte == b'.').nth(1)?)
}

fn decode(part: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}
