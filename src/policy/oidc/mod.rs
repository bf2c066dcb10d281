//! Login of browsers by OpenID Connect (Core 1.0): the authorization code flow with PKCE
//! (RFC 7636), and the session that it begins.
//!
//! ```text
//! request without session → /authorize?state,nonce,code_challenge   (cookie: Login)
//! callback?code,state     → Login opened, state the same → tokens → ID token verified, nonce
//!                           the same → (cookie: Session)
//! request with session    → opened → in time → Identity
//! ```
//!
//! Nothing is kept here: login and session are cookies, sealed with secrets that workers and
//! processes share ([`super::seal`]). Invariants: only what this gateway sealed for this section,
//! issuer and client is opened; a login ends in the browser that began it, by its `state`; the
//! browser is sent to the provider, to paths of its own origin, and nowhere else.

pub mod cookies;
pub mod flow;
pub mod session;
pub mod tokens;

use super::jwt;
use crate::wire::path::{NormalPath, PathRules};

/// A section `[oidc.NAME]`, as far as decisions need it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The section's name.
    pub name: String,
    pub client_id: String,
    /// With blanks between them.
    pub scopes: String,
    /// Further parameters of the authorization request.
    pub parameters: Vec<(String, String)>,
    /// Paths that are answered here.
    pub callback: String,
    pub login: String,
    pub logout: String,
    /// A path, or a URL of the operator's.
    pub after_logout: String,
    /// The provider is told of a logout, where it wants to know.
    pub logs_out_at_provider: bool,
    /// Scheme and authority that browsers use, where those of a request do not say it.
    pub origin: Option<String>,
    pub idle_s: u64,
    pub lifetime_s: u64,
    /// How long a login may take.
    pub login_s: u64,
    /// So long before an access token ends another one is got.
    pub refresh_before_s: u64,
    /// Upstreams get the access token.
    pub forwards_access_token: bool,
    /// Of a session's cookies, together.
    pub session_bytes_max: usize,
    /// What is asked of ID tokens.
    pub id_token: jwt::Rule,
}

/// What a cookie is sealed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Session,
    Seen,
    Login,
}

impl Rule {
    /// Binds what is sealed to its use here: in another section, or after another issuer or client
    /// was configured, it is not opened.
    fn purpose(&self, purpose: Purpose) -> Box<[u8]> {
        let what = match purpose {
            Purpose::Session => "session",
            Purpose::Seen => "seen",
            Purpose::Login => "login",
        };
        let parts = [what, &self.name, &self.id_token.issuer, &self.client_id];
        let mut text = Vec::with_capacity(128);
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        text.into()
    }

    /// A path of this origin to go to after a login, with its query, or `/` in place of anything
    /// else: also of its own paths, which would begin another login, or end this one.
    pub fn return_path<'t>(&self, target: &'t [u8]) -> &'t str {
        let end = memchr::memchr2(b'?', b'#', target).unwrap_or(target.len());
        let (path, mut normal) = (&target[..end], NormalPath::default());
        let is_own = match normal.normalise(path, PathRules { encoded_slash_keep: true }) {
            Ok(()) => self.place(normal.matched_of(path)).is_some(),
            Err(_) => true,
        };
        if is_own { "/" } else { flow::return_path(target) }
    }

    /// What is done at a path of its own.
    pub fn place(&self, path: &[u8]) -> Option<Place> {
        match path {
            path if path == self.callback.as_bytes() => Some(Place::Callback),
            path if path == self.login.as_bytes() => Some(Place::Login),
            path if path == self.logout.as_bytes() => Some(Place::Logout),
            _ => None,
        }
    }
}

/// Paths that the gateway answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Callback,
    Login,
    Logout,
}

#[cfg(test)]
pub(crate) mod tests;
