//! A login under way and a session, as they are in cookies; and how long a session is good.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Purpose, Rule, tokens::Tokens};
use crate::policy::seal::{RANDOM_BYTES, Seals};

/// What the browser keeps while it is at the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    #[serde(rename = "s")]
    pub state: String,
    #[serde(rename = "n")]
    pub nonce: String,
    /// Of PKCE.
    #[serde(rename = "v")]
    pub verifier: String,
    /// Where to go afterwards, on this origin.
    #[serde(rename = "p")]
    pub path: String,
    #[serde(rename = "b")]
    pub begun_s: u64,
}

/// A session. Another one is written only when its tokens change, so that a response that comes
/// late brings no old tokens back; when it was used is a cookie of its own ([`Seen`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Says which session it is, to nobody but us.
    #[serde(rename = "i")]
    pub id: String,
    #[serde(rename = "b")]
    pub begun_s: u64,
    /// As it came; its claims are who it is.
    #[serde(rename = "t")]
    pub id_token: String,
    /// Only where upstreams get it.
    #[serde(rename = "a", default, skip_serializing_if = "String::is_empty")]
    pub access_token: String,
    /// When the access token ends, and when another one should be got; 0: that is not known.
    #[serde(rename = "e", default)]
    pub ends_s: u64,
    #[serde(rename = "d", default)]
    pub due_s: u64,
    #[serde(rename = "r", default, skip_serializing_if = "String::is_empty")]
    pub refresh_token: String,
    /// What was granted, with blanks between.
    #[serde(rename = "g", default)]
    pub scopes: String,
}

/// When a session was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    #[serde(rename = "i")]
    pub id: String,
    #[serde(rename = "s")]
    pub at_s: u64,
}

/// What a session is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// Other tokens should be got; `is_over`: it is good for nothing before.
    Due {
        is_over: bool,
    },
    Over,
}

impl Session {
    /// The session that a login begins.
    pub fn begun(rule: &Rule, id: String, tokens: Tokens, now_s: u64) -> Session {
        let first = Session {
            id,
            begun_s: now_s,
            id_token: String::new(),
            access_token: String::new(),
            ends_s: 0,
            due_s: 0,
            refresh_token: String::new(),
            scopes: rule.scopes.clone(),
        };
        first.renewed(rule, tokens, now_s)
    }

    /// The same session with other tokens. What the provider does not give anew stays
    /// (RFC 6749 §6; OpenID Connect Core §12.2).
    pub fn renewed(&self, rule: &Rule, tokens: Tokens, now_s: u64) -> Session {
        let (mut ends_s, mut due_s) = (0, 0);
        if let Some(lives_s) = tokens.expires_in_s {
            ends_s = now_s.saturating_add(lives_s);
            // Of a token that lives shortly, not at once again.
            due_s = ends_s.saturating_sub(rule.refresh_before_s.min(lives_s / 4));
        }
        let keeps = rule.forwards_access_token;
        Session {
            id: self.id.clone(),
            begun_s: self.begun_s,
            id_token: tokens.id_token.unwrap_or_else(|| self.id_token.clone()),
            access_token: if keeps { tokens.access_token } else { String::new() },
            ends_s,
            due_s,
            refresh_token: tokens.refresh_token.unwrap_or_else(|| self.refresh_token.clone()),
            scopes: tokens.scope.unwrap_or_else(|| self.scopes.clone()),
        }
    }

    /// What it is good for; `seen_s`: when it was used before.
    pub fn standing(&self, rule: &Rule, seen_s: u64, now_s: u64) -> Standing {
        let is_past = |since_s: u64, lasts_s| now_s >= since_s.saturating_add(lasts_s);
        if is_past(self.begun_s, rule.lifetime_s) || is_past(seen_s, rule.idle_s) {
            return Standing::Over;
        }
        if self.ends_s == 0 || now_s < self.due_s {
            return Standing::Good;
        }
        let is_over = now_s >= self.ends_s;
        match self.refresh_token.is_empty() {
            false => Standing::Due { is_over },
            // Upstreams would get one that is over.
            true if is_over && rule.forwards_access_token => Standing::Over,
            true => Standing::Good,
        }
    }

    /// For so long a browser keeps its cookies.
    pub fn left_s(&self, rule: &Rule, now_s: u64) -> u64 {
        self.begun_s.saturating_add(rule.lifetime_s).saturating_sub(now_s)
    }
}

/// Whether the cookie that says when a session was used is written anew: with each request would
/// be too often.
pub fn is_told_anew(rule: &Rule, seen_s: u64, now_s: u64) -> bool {
    rule.idle_s < rule.lifetime_s && now_s >= seen_s.saturating_add(rule.idle_s.div_ceil(10))
}

/// Seals what one section keeps in cookies, and opens it.
#[derive(Debug)]
pub struct Sealer {
    seals: Seals,
    /// Texts that bind to a purpose, by [`Purpose`].
    purposes: [Box<[u8]>; 3],
}

impl Sealer {
    pub fn new(rule: &Rule, seals: Seals) -> Sealer {
        let all = [Purpose::Session, Purpose::Seen, Purpose::Login];
        Sealer { seals, purposes: all.map(|purpose| rule.purpose(purpose)) }
    }

    pub fn seal<T: Serialize>(
        &self,
        purpose: Purpose,
        value: &T,
        random: &[u8; RANDOM_BYTES],
    ) -> Option<Vec<u8>> {
        let plain = serde_json::to_vec(value).ok()?;
        self.seals.seal(&plain, &self.purposes[purpose as usize], random)
    }

    pub fn open<T: DeserializeOwned>(&self, purpose: Purpose, sealed: &[u8]) -> Option<T> {
        let plain = self.seals.open(sealed, &self.purposes[purpose as usize])?;
        serde_json::from_slice(&plain).ok()
    }
}
