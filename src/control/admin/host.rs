//! Which Host fields the read-only address answers to.
//!
//! A page from anywhere can have its own name resolve to this address and then read, as its own,
//! what a browser here may reach (DNS rebinding); what it cannot choose is the Host field, which
//! has its name. So only names are answered that no foreign page can have: IP addresses,
//! `localhost`, and what `admin.status_hosts` lists. A request without Host comes from no browser.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::{
    extract::{Request, State as Extract},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Problem, State};
use crate::wire::authority::Authority;

/// Why such a request is refused. A released token never changes its meaning.
const REASON: &str = "admin.host";
/// Stands for every name in `admin.status_hosts`.
const ANY: &str = "*";

/// Lets a request pass to its resource, or refuses it with 421.
pub async fn check(Extract(desk): State, request: Request, next: Next) -> Response {
    let view = desk.view();
    match refused(&request, &view.snapshot.admin.status_hosts) {
        None => next.run(request).await,
        Some(host) => problem(host).into_response(),
    }
}

/// The first name of a request that is none of ours, if it has one.
fn refused<'r>(request: &'r Request, known: &[String]) -> Option<&'r [u8]> {
    let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let fields = request.headers().get_all(header::HOST).iter().map(|value| value.as_bytes());
    target.into_iter().chain(fields).find(|host| !is_ours(host, known))
}

fn is_ours(host: &[u8], known: &[String]) -> bool {
    if known.iter().any(|name| name == ANY) {
        return true;
    }
    let Some(Authority { host, .. }) = Authority::parse(host) else { return false };
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if inner.map_or(host.parse::<Ipv4Addr>().is_ok(), |v6| v6.parse::<Ipv6Addr>().is_ok()) {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || known.iter().any(|n| n.eq_ignore_ascii_case(host))
}

fn problem(host: &[u8]) -> Problem {
    let host = String::from_utf8_lossy(host);
    let detail = format!(
        "the name `{host}` is not known here: a page of that name could read what is shown; ask by \
         IP address or as localhost, or list the name in admin.status_hosts"
    );
    Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).with("reason", REASON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_listed_names_are_ours_with_any_port() {
        let known = ["gw.internal".to_owned()];
        for (host, ours) in [
            ("127.0.0.1:9180", true),
            ("192.0.2.7", true),
            ("[::1]:9180", true),
            ("[::ffff:10.0.0.1]", true),
            ("localhost:1", true),
            ("LocalHost.", true),
            ("gw.internal", true),
            ("GW.Internal.:9180", true),
            ("evil.example", false),
            ("a.gw.internal", false),
            ("gw.internal.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("2130706433", false),
            ("127.1", false),
            ("localhost@evil.example", false),
            ("localhost, evil.example", false),
            ("", false),
            ("*", false),
        ] {
            assert_eq!(is_ours(host.as_bytes(), &known), ours, "{host:?}");
        }
        assert!(is_ours(b"evil.example", &["*".to_owned()]));
    }
}
