//! JSON Web Tokens (RFC 7519): whether one is accepted, and who it is for.
//!
//! ```text
//! size → three parts, header, algorithm → claims can be read → issuer
//!      → key → signature → exp, nbf → typ, audience, claims → Identity
//! ```
//!
//! Only the issuer is looked at before the signature: it says whose token it is, where a route
//! knows several, and spares the search for keys. Everything follows RFC 8725 (best current
//! practices).

mod algorithm;
mod claims;
pub mod jws;
pub mod key;

pub use algorithm::{Algorithm, Family};
pub use key::KeySet;

use std::rc::Rc;

use serde_json::Value;

use super::{
    Refusal,
    identity::{Claims, Identity},
    refusal,
};
use jws::{Bad, Token};

/// What is asked of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// None of another is accepted, whatever the token says.
    pub algorithms: Vec<Algorithm>,
    /// Empty: whoever has the keys.
    pub issuer: String,
    /// One of them must be in `aud`; empty: whatever is there, or nothing.
    pub audiences: Vec<String>,
    /// Claims that must be there, by path, with one of these values; empty: with any.
    pub claims: Vec<(String, Vec<Value>)>,
    /// In lower case, without `application/`; empty: any.
    pub types: Vec<String>,
    /// By how much clocks may differ.
    pub skew_s: f64,
    pub needs_exp: bool,
    pub bytes_max: usize,
    /// Paths of claims.
    pub subject: String,
    pub groups: String,
    pub scopes: String,
}

/// A token that is accepted, until its time is over.
#[derive(Clone, Debug)]
pub struct Verified {
    pub identity: Rc<Identity>,
    /// Seconds since 1970, without skew; infinite where the token has no end.
    not_after: f64,
    not_before: f64,
}

/// What a token comes to.
#[derive(Debug)]
pub enum Judged {
    Accepted(Verified),
    Refused(Refusal),
    /// No key has the name it gives.
    KeyUnknown,
}

impl From<&'static crate::wire::Reason> for Judged {
    fn from(reason: &'static crate::wire::Reason) -> Judged {
        Judged::Refused(reason.into())
    }
}

impl Rule {
    /// Judges a token at `now_s` (seconds since 1970); `by` is the section's name.
    pub fn judge(&self, token: &[u8], keys: Option<&KeySet>, by: &Rc<str>, now_s: f64) -> Judged {
        if token.len() > self.bytes_max {
            return refusal::AUTH_INVALID.into();
        }
        let Some(read) = Token::read(token, &self.algorithms) else {
            return refusal::AUTH_INVALID.into();
        };
        let Ok(claims) = serde_json::from_slice::<Claims>(&read.payload) else {
            return refusal::AUTH_INVALID.into();
        };
        let issuer = claims.get("iss").and_then(Value::as_str);
        if !self.issuer.is_empty() && issuer != Some(&*self.issuer) {
            return refusal::AUTH_ISSUER.into();
        }
        let Some(keys) = keys else { return Judged::KeyUnknown };
        match read.verify(keys) {
            Ok(()) => {}
            Err(Bad::Invalid) => return refusal::AUTH_INVALID.into(),
            Err(Bad::KeyUnknown) => return Judged::KeyUnknown,
        }
        let is_type = self.types.is_empty() || self.is_type(read.header.typ.as_deref());
        match self.accept(is_type, claims, by, now_s) {
            Ok(verified) => Judged::Accepted(verified),
            Err(refusal) => Judged::Refused(refusal),
        }
    }

    /// Whom a token is for that was verified before, and kept where nobody could change it.
    pub fn identity_of_verified(&self, token: &[u8], by: &Rc<str>) -> Option<Identity> {
        let claims = serde_json::from_slice(&jws::payload(token)?).ok()?;
        Some(claims::identity(self, claims, by))
    }

    /// Whether the claims of a token are accepted whose signature is good, or that whoever issued
    /// it vouches for.
    pub fn accept(
        &self,
        is_type: bool,
        claims: Claims,
        by: &Rc<str>,
        now_s: f64,
    ) -> Result<Verified, Refusal> {
        let invalid = || Refusal::from(refusal::AUTH_INVALID);
        let exp = claims::time(&claims, "exp").map_err(|()| invalid())?;
        let nbf = claims::time(&claims, "nbf").map_err(|()| invalid())?;
        if exp.is_none() && self.needs_exp {
            return Err(refusal::AUTH_CLAIM.into());
        }
        if !is_type {
            return Err(invalid());
        }
        if !self.audiences.is_empty() && !claims::is_for(&claims, &self.audiences) {
            return Err(refusal::AUTH_AUDIENCE.into());
        }
        let identity = claims::identity(self, claims, by);
        if !self.has_claims(&identity) {
            return Err(refusal::AUTH_CLAIM.into());
        }
        let verified = Verified {
            identity: Rc::new(identity),
            not_after: exp.unwrap_or(f64::INFINITY),
            not_before: nbf.unwrap_or(f64::NEG_INFINITY),
        };
        verified.is_in_time(self, now_s)?;
        Ok(verified)
    }

    /// Whether it has all claims that are asked for.
    pub fn has_claims(&self, identity: &Identity) -> bool {
        self.claims.iter().all(|(path, values)| claims::has(identity, path, values))
    }

    /// RFC 7515 §4.1.9: `application/` may be left out.
    fn is_type(&self, typ: Option<&str>) -> bool {
        let typ = typ.unwrap_or_default().to_ascii_lowercase();
        let short = typ.strip_prefix("application/").unwrap_or(&typ);
        self.types.iter().any(|known| known == short)
    }
}

impl Verified {
    /// An identity that nothing ends, for tests of what keeps it.
    #[cfg(test)]
    pub fn without_end(identity: Rc<Identity>) -> Verified {
        Verified { identity, not_after: f64::INFINITY, not_before: f64::NEG_INFINITY }
    }

    /// RFC 7519 §4.1.4 and §4.1.5.
    pub fn is_in_time(&self, rule: &Rule, now_s: f64) -> Result<(), Refusal> {
        if now_s >= self.not_after + rule.skew_s {
            return Err(refusal::AUTH_EXPIRED.into());
        }
        if now_s < self.not_before - rule.skew_s {
            return Err(refusal::AUTH_NOT_YET.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wycheproof;
