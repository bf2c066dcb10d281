//! What is asked of the provider's token endpoint, what it answers, and whether its ID token is one
//! of this login.

use std::rc::Rc;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Rule, session::Session};
use crate::policy::{
    Refusal,
    identity::{Identity, Shown},
    refusal,
};

/// What tokens are asked for with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    Code { code: String, verifier: String, redirect_uri: String },
    Refresh { token: String },
}

/// What the provider gives (RFC 6749 §5.1; OpenID Connect Core §3.1.3.3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Tokens {
    pub access_token: String,
    token_type: String,
    #[serde(rename = "expires_in", default, deserialize_with = "seconds")]
    pub expires_in_s: Option<u64>,
    #[serde(default)]
    pub refresh_token: Option<String>,
    #[serde(default)]
    pub id_token: Option<String>,
    #[serde(default)]
    pub scope: Option<String>,
}

/// Of all tokens of one answer: no session has room for more, and answers are remembered.
const TOKENS_BYTES_MAX: usize = 64 << 10;

impl Tokens {
    fn bytes(&self) -> usize {
        let more = [&self.refresh_token, &self.id_token, &self.scope];
        self.access_token.len() + more.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

/// Why it gives none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoTokens {
    /// The code or the refresh token is not, or no longer, good (`invalid_grant`).
    Refused,
    /// It refuses for another reason, or says what nobody understands.
    Wrong(String),
    /// There was no answer, or none that says anything.
    Unavailable(String),
}

/// A number; some providers write it as a text.
fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(value)? {
        Value::Number(number) => number.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64),
        Value::String(text) => text.parse().ok(),
        _ => None,
    })
}

impl Grant {
    /// The parameters of the request (RFC 6749 §4.1.3 and §6).
    pub fn parameters(&self) -> Vec<(&'static str, &str)> {
        match self {
            Grant::Code { code, verifier, redirect_uri } => vec![
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", redirect_uri),
                ("code_verifier", verifier),
            ],
            Grant::Refresh { token } => {
                vec![("grant_type", "refresh_token"), ("refresh_token", token)]
            }
        }
    }
}

/// Reads the answer of the token endpoint.
pub fn read(status: u16, body: &[u8]) -> Result<Tokens, NoTokens> {
    #[derive(Deserialize)]
    struct Told {
        error: String,
        #[serde(default)]
        error_description: Option<String>,
    }
    match status {
        200 => {
            let tokens: Tokens = serde_json::from_slice(body)
                .map_err(|why| NoTokens::Wrong(format!("its answer cannot be read: {why}")))?;
            if !tokens.token_type.eq_ignore_ascii_case("bearer") {
                return Err(NoTokens::Wrong("its token is of no known type".to_owned()));
            }
            if tokens.bytes() > TOKENS_BYTES_MAX {
                return Err(NoTokens::Wrong("its tokens are larger than 64 KiB".to_owned()));
            }
            // It may become a field of requests.
            if tokens.access_token.bytes().any(|byte| !(0x21..=0x7e).contains(&byte)) {
                return Err(NoTokens::Wrong("its access token is malformed".to_owned()));
            }
            Ok(tokens)
        }
        400..=499 if status != 429 => match serde_json::from_slice::<Told>(body) {
            Ok(told) if told.error == "invalid_grant" => Err(NoTokens::Refused),
            Ok(told) => {
                let more = told.error_description.unwrap_or_default();
                Err(NoTokens::Wrong(format!("{} {more}", told.error)))
            }
            Err(_) => Err(NoTokens::Wrong(format!("it answers with {status}"))),
        },
        _ => Err(NoTokens::Unavailable(format!("it answers with {status}"))),
    }
}

/// What is asked of the ID token of a login beside what is asked of every token
/// (OpenID Connect Core §3.1.3.7).
pub fn check_login(rule: &Rule, identity: &Identity, nonce: &str) -> Result<(), Refusal> {
    if text(identity, "nonce") != Some(nonce) {
        return Err(refusal::LOGIN_NONCE.into());
    }
    check(rule, identity)
}

fn check(rule: &Rule, identity: &Identity) -> Result<(), Refusal> {
    let party = identity.claims.get("azp");
    let is_party = party.is_none_or(|party| party.as_str() == Some(&rule.client_id));
    let has_subject = text(identity, "sub").is_some_and(|subject| !subject.is_empty());
    if !is_party || !has_subject || !identity.claims.contains_key("iat") {
        return Err(refusal::LOGIN_ID_TOKEN.into());
    }
    Ok(())
}

/// What is asked of another ID token of a session (§12.2): it must be of the same user.
pub fn check_refreshed(rule: &Rule, identity: &Identity, before: &Identity) -> Result<(), Refusal> {
    if text(identity, "sub") != text(before, "sub") {
        return Err(refusal::LOGIN_ID_TOKEN.into());
    }
    check(rule, identity)
}

fn text<'i>(identity: &'i Identity, claim: &str) -> Option<&'i str> {
    identity.claims.get(claim).and_then(Value::as_str)
}

/// Who a session is of. Its ID token was verified when it was sealed; claims that are asked for may
/// be others since then.
pub fn identity(rule: &Rule, session: &Session, by: &Rc<str>) -> Result<Identity, Refusal> {
    let identity = rule.id_token.identity_of_verified(session.id_token.as_bytes(), by);
    let identity = identity.ok_or(refusal::AUTH_INVALID)?;
    if !rule.id_token.has_claims(&identity) {
        return Err(refusal::AUTH_CLAIM.into());
    }
    let scopes = session.scopes.split_ascii_whitespace().map(Box::from).collect();
    Ok(Identity { shown: Shown::Session, scopes, ..identity })
}
