//! The browser's way to the provider and back: which requests are sent there, with what, and what
//! the provider's answer must look like.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{Rule, session::Login};
use crate::{
    policy::{Refusal, cors::preflight::single, pairs, refusal, route::RequestView},
    wire::Method,
};

/// Of a path to go back to: it is kept in a cookie.
const PATH_BYTES_MAX: usize = 1500;
/// Of a code, and of `state`.
const PARAMETER_BYTES_MAX: usize = 4096;

/// Whether a person waits for a page: a redirect would help nobody else.
pub fn is_navigation(request: &RequestView<'_>) -> bool {
    let field = |name| single(request.head, request.buf, name);
    matches!(request.method, Method::Get | Method::Head)
        && field(b"sec-fetch-mode").is_none_or(|mode| mode == b"navigate")
        && field(b"x-requested-with").is_none()
        // A browser that guesses where its user goes next.
        && field(b"sec-purpose").is_none()
        && field(b"accept").is_some_and(takes_pages)
}

/// Whether an Accept field names HTML.
fn takes_pages(accept: &[u8]) -> bool {
    let ranges = accept.split(|byte| *byte == b',');
    ranges.map(|range| range.split(|byte| *byte == b';').next().unwrap_or_default()).any(|media| {
        let media = media.trim_ascii();
        media.eq_ignore_ascii_case(b"text/html")
            || media.eq_ignore_ascii_case(b"application/xhtml+xml")
    })
}

/// A path of this origin to go to, with its query, or `/` in place of anything else.
pub fn return_path(target: &[u8]) -> &str {
    let is_ours = |target: &&[u8]| {
        target.len() <= PATH_BYTES_MAX
            && target.first() == Some(&b'/')
            // Browsers take these for another host.
            && !matches!(target.get(1), Some(b'/' | b'\\'))
            && target.iter().all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b'\\')
    };
    Some(target).filter(is_ours).and_then(|target| str::from_utf8(target).ok()).unwrap_or("/")
}

/// The challenge of a verifier (RFC 7636 §4.2, S256).
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

/// Where the browser is sent to log in (OpenID Connect Core §3.1.2.1).
pub fn authorization_url(rule: &Rule, endpoint: &str, login: &Login, redirect_uri: &str) -> String {
    let challenge = challenge(&login.verifier);
    let own = [
        ("response_type", "code"),
        ("client_id", &rule.client_id),
        ("redirect_uri", redirect_uri),
        ("scope", &rule.scopes),
        ("state", &login.state),
        ("nonce", &login.nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    let more = rule.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    with_parameters(endpoint, own.into_iter().chain(more))
}

/// Where the browser is sent to log out (OpenID Connect RP-Initiated Logout 1.0 §2).
pub fn logout_url(rule: &Rule, endpoint: &str, id_token: Option<&str>, after: &str) -> String {
    let own = [("client_id", &*rule.client_id), ("post_logout_redirect_uri", after)];
    let hint = id_token.map(|id_token| ("id_token_hint", id_token));
    with_parameters(endpoint, hint.into_iter().chain(own))
}

fn with_parameters<'p>(
    endpoint: &str,
    parameters: impl Iterator<Item = (&'p str, &'p str)>,
) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    let begin = match endpoint.split_once('?') {
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    format!("{endpoint}{begin}{}", query.finish())
}

/// What the provider tells by way of the browser (RFC 6749 §4.1.2; RFC 9207).
#[derive(Debug, PartialEq, Eq)]
pub struct Callback {
    pub state: String,
    pub issuer: Option<String>,
    /// The code, or the error (RFC 6749 §4.1.2.1).
    pub outcome: Result<String, String>,
}

impl Callback {
    /// Reads a query: each parameter may be there once.
    pub fn read(query: &[u8]) -> Result<Callback, Refusal> {
        let invalid = || Refusal::from(refusal::LOGIN_CALLBACK);
        let one = |name: &str| -> Result<Option<String>, Refusal> {
            let is_it = |(own, _): &(&[u8], &[u8])| pairs::decoded(own) == name.as_bytes();
            let mut all = pairs::parameters(query).filter(is_it);
            let Some((_, value)) = all.next() else { return Ok(None) };
            if all.next().is_some() || value.len() > PARAMETER_BYTES_MAX {
                return Err(invalid());
            }
            String::from_utf8(pairs::decoded(value).into_owned()).map(Some).map_err(|_| invalid())
        };
        let (code, error) = (one("code")?, one("error")?);
        let outcome = match (code, error) {
            (Some(code), None) if !code.is_empty() => Ok(code),
            (None, Some(error)) => Err(error),
            _ => return Err(invalid()),
        };
        let state = one("state")?.ok_or_else(invalid)?;
        Ok(Callback { state, issuer: one("iss")?, outcome })
    }

    /// Its code, if it belongs to the login that was begun with its `state`. `names_issuer`: the
    /// provider says that it always gives its name.
    pub fn code(
        self,
        rule: &Rule,
        login: &Login,
        names_issuer: bool,
        now_s: u64,
    ) -> Result<String, Refusal> {
        if now_s >= login.begun_s.saturating_add(rule.login_s) {
            return Err(refusal::LOGIN_EXPIRED.into());
        }
        let is_issuer = match &self.issuer {
            Some(issuer) => *issuer == rule.id_token.issuer,
            None => !names_issuer,
        };
        if !is_issuer {
            return Err(refusal::LOGIN_ISSUER.into());
        }
        self.outcome.map_err(|error| match &*error {
            "access_denied" => refusal::LOGIN_DENIED.into(),
            _ => refusal::LOGIN_PROVIDER.into(),
        })
    }
}
