//! Sections `[oidc.NAME]`: logins of browsers, and the secrets of their sessions.

use std::{path::Path, sync::Arc};

use super::{TOP, auth, jwt, policies::Of, secrets, tickets};
use crate::{
    config::{
        decode::{At, Sink, quoted, short},
        file::{File, Oidc},
        report::{Place, Problem},
        snapshot::{Authenticate, LoginWay, Origin, Provider, Way, WayKind, jwks, oidc},
        values::{Name, PathText, SecretSource, WayNames, is_token},
    },
    policy::{
        auth::{Asked, WayId},
        jwt::Rule as TokenRule,
        oidc::{
            Rule,
            cookies::{self, Names},
            session::Sealer,
        },
        seal::Seals,
    },
};

/// Sets what is derived from the secrets of sessions apart from anything else.
const LABEL: &[u8] = b"ringway oidc cookies 1";
/// Largest ID token: more would not fit into cookies.
const TOKEN_BYTES_MAX: usize = 16 << 10;
const WHAT: &str = "the secrets of sessions";
const FIX: &str = "put a secret on each line, as `openssl rand -hex 32` makes them, the one that \
                   encrypts first";

/// The ways, in the order of the file; one that is wrong has its place all the same.
pub(super) fn ways(file: &File, folder: &Path, sink: &mut Sink) -> Vec<Way> {
    let all = file.oidc.value.0.iter();
    all.map(|(name, written)| {
        let way = written.as_ref().and_then(|written| login(file, name, written, folder, sink));
        let forward = written.as_ref().map(|w| auth::claim_fields(&w.forward.value.0, sink));
        Way {
            name: name.value.clone(),
            kind: way.map_or(WayKind::Certificate, |way| WayKind::Login(Box::new(way))),
            sources: Vec::new(),
            forward_credential: true,
            forward: forward.unwrap_or_default(),
        }
    })
    .collect()
}

/// `None` after a report.
fn login(
    file: &File,
    name: &At<String>,
    written: &Oidc,
    folder: &Path,
    sink: &mut Sink,
) -> Option<LoginWay> {
    check_places(file, name, written, sink);
    check_times(written, sink);
    check_algorithms(written, sink);
    for (parameter, _) in &written.parameters.value.0 {
        check_parameter(parameter, sink);
    }
    let seals = seals(&written.session_secrets, folder, sink);
    let secret = match written.client_secret.some() {
        Some(source) => {
            let what = ("the client's secret", "can pass for this gateway at the provider");
            Some(secrets::read(&source, what, folder, sink)?)
        }
        None => None,
    };
    auth::refuse_client_auth_alone(&written.client_auth, &written.client_secret, sink);
    let place = written.issuer.place().or(name.place()).unwrap_or(TOP);
    let provider = provider(&name.value, written, place, folder, sink)?;
    let (issuer, client_id) = (&written.issuer.0, &written.client_id.0);
    let counter = oidc::counter(&format!("{}\n{issuer}\n{client_id}", name.value));
    let rule = rule(&name.value, written);
    Some(LoginWay {
        sealer: Arc::new(Sealer::new(&rule, seals?)),
        rule,
        names: [true, false].map(|is_secure| Names::of(&name.value, is_secure)),
        provider: Arc::new(provider),
        client_auth: *written.client_auth,
        client_secret: secret,
        timeout_ms: written.timeout.0,
        cache_bytes: written.cache.0,
        counter,
    })
}

fn rule(name: &str, written: &Oidc) -> Rule {
    let mut scopes = vec!["openid"];
    scopes.extend(written.scopes.iter().map(|scope| &*scope.value.0).filter(|s| *s != "openid"));
    let parameters = written.parameters.value.0.iter();
    Rule {
        name: name.to_owned(),
        client_id: written.client_id.0.clone(),
        scopes: scopes.join(" "),
        parameters: parameters
            .filter_map(|(name, value)| Some((name.value.clone(), value.clone()?.0)))
            .collect(),
        callback: written.callback.0.clone(),
        login: written.login.0.clone(),
        logout: written.logout.0.clone(),
        after_logout: written.after_logout.0.clone(),
        logs_out_at_provider: *written.logout_at_provider,
        origin: written.origin.value.as_ref().map(|origin| origin.0.clone()),
        idle_s: written.idle.0 / 1000,
        lifetime_s: written.lifetime.0 / 1000,
        login_s: written.login_timeout.0 / 1000,
        refresh_before_s: written.refresh_before.0 / 1000,
        forwards_access_token: *written.forward_access_token,
        session_bytes_max: usize::try_from(written.max_session.0).unwrap_or(usize::MAX),
        id_token: token_rule(written),
    }
}

fn token_rule(written: &Oidc) -> TokenRule {
    TokenRule {
        algorithms: written.algorithms.iter().map(|algorithm| algorithm.value).collect(),
        issuer: written.issuer.0.clone(),
        audiences: vec![written.client_id.0.clone()],
        claims: auth::claims(&written.claims),
        types: Vec::new(),
        skew_s: written.skew.0 as f64 / 1000.0,
        needs_exp: true,
        bytes_max: TOKEN_BYTES_MAX,
        subject: written.subject.0.clone(),
        groups: written.groups.0.clone(),
        // Those that were granted with the access token count.
        scopes: "scope".to_owned(),
    }
}

fn provider(
    name: &str,
    written: &Oidc,
    place: Place,
    folder: &Path,
    sink: &mut Sink,
) -> Option<Provider> {
    let issuer = &written.issuer.0;
    let from = Origin::Issuer(issuer.clone());
    let client = jwt::client(&written.ca, &from, place, folder, sink)?;
    let (cell, _) = jwks::cell(&format!("{name}\nlogin\n{issuer}\n{:?}", written.ca.value));
    Some(Provider {
        name: name.to_owned(),
        from,
        for_logins: true,
        client,
        refresh_ms: written.refresh.0,
        refetch_after_ms: written.refetch_after.0,
        wait_ms: written.timeout.0,
        timeout_ms: written.timeout.0,
        file: None,
        cell,
    })
}

/// What seals cookies; `None` after a report.
fn seals(written: &At<Option<SecretSource>>, folder: &Path, sink: &mut Sink) -> Option<Seals> {
    let Some(source) = &written.some() else {
        return Seals::new(&[oidc::own_secret()?], LABEL);
    };
    let what = (WHAT, "can make sessions of anybody");
    let text = secrets::read(source, what, folder, sink)?;
    match tickets::parsed(&text.0) {
        Ok(secrets) => Seals::new(&secrets, LABEL),
        Err(why) => {
            let title = format!("{WHAT} cannot be used: {why}");
            sink.push(Problem::error(source.place().unwrap_or(TOP), title).fix(FIX));
            None
        }
    }
}

fn check_algorithms(written: &Oidc, sink: &mut Sink) {
    let place = written.algorithms.place().unwrap_or(TOP);
    if written.algorithms.iter().any(|one| jwt::is_of_secret(one.value)) {
        let title = "ID tokens that are signed with a secret (HS) are not taken: only keys that \
                     the provider publishes count";
        sink.push(Problem::error(place, title).fix("write algorithms = [\"RS256\"]"));
    } else if written.algorithms.is_empty() && !written.algorithms.is_wrong() {
        let title = "`algorithms` names none, so no ID token could be accepted";
        sink.push(Problem::error(place, title).fix("write algorithms = [\"RS256\"]"));
    }
}

fn check_times(written: &Oidc, sink: &mut Sink) {
    let (idle, lifetime) = (&written.idle, &written.lifetime);
    if let Some(place) = idle.place().filter(|_| idle.value > lifetime.value) {
        let title = format!(
            "`idle` ({}) is over `lifetime` ({}), so it has no effect",
            idle.value, lifetime.value
        );
        let fix = format!("write at most {}, or raise `lifetime`", lifetime.value);
        sink.push(Problem::error(place, title).fix(fix));
    }
}

/// What the gateway says itself is not said otherwise.
fn check_parameter(name: &At<String>, sink: &mut Sink) {
    const OWN: [&str; 11] = [
        "response_type",
        "response_mode",
        "client_id",
        "client_secret",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "request",
    ];
    let place = name.place().unwrap_or(TOP);
    if OWN.contains(&name.value.as_str()) {
        let title = format!("the parameter `{}` is the gateway's own", name.value);
        let fix = if name.value == "scope" { "write `scopes`" } else { "remove it" };
        sink.push(Problem::error(place, title).fix(fix));
    } else if !is_token(&name.value) {
        let title = format!("`{}` cannot be the name of a parameter", short(&name.value));
        sink.push(Problem::error(place, title).fix("write a name such as \"prompt\""));
    }
}

/// The paths that are answered for it have to be those of routes that ask for it.
fn check_places(file: &File, name: &At<String>, written: &Oidc, sink: &mut Sink) {
    let paths =
        [("callback", &written.callback), ("login", &written.login), ("logout", &written.logout)];
    for (at, (key, path)) in paths.iter().enumerate() {
        if let Some((other, _)) = paths[..at].iter().find(|(_, other)| other.value == path.value) {
            let title = format!("`{key}` and `{other}` are the same path");
            sink.push(Problem::error(path.place().unwrap_or(TOP), title).fix("write another"));
        }
    }
    if let Some((key, _)) =
        paths.iter().find(|(key, path)| *key != "login" && path.value.0 == written.after_logout.0)
    {
        let title = format!("`after_logout` is the path of `{key}`, which is no page");
        let place = written.after_logout.place().or(name.place()).unwrap_or(TOP);
        let fix = "write the path of a page that asks for no login";
        sink.push(Problem::error(place, title).fix(fix));
    }
    if file.routes.is_wrong() || file.policies.is_wrong() {
        return;
    }
    let own = asking(file, name);
    if own.is_empty() {
        return;
    }
    for (key, path) in paths {
        if path.is_wrong() || own.iter().any(|paths| paths.has(&path.value.0)) {
            continue;
        }
        let title = format!(
            "no route that asks for `{}` has the path {}, which is its `{key}`",
            short(&name.value),
            quoted(&path.value.0)
        );
        let below = own.iter().find_map(|paths| paths.prefix);
        let fix = match below {
            Some(prefix) => {
                let own = format!("{}/oidc/{key}", prefix.trim_end_matches('/'));
                format!("write {key} = {}, or give the path to one of these routes", quoted(&own))
            }
            None => format!(
                "add a route with path = {} and authenticate = [{}]",
                quoted("/oidc"),
                quoted(&name.value)
            ),
        };
        let place = path.place().or(name.place()).unwrap_or(TOP);
        sink.push(Problem::error(place, title).fix(fix));
    }
}

/// Paths that a route may have, as far as that is easily said.
struct Paths<'f> {
    prefix: Option<&'f str>,
    exact: Option<&'f str>,
}

impl Paths<'_> {
    fn has(&self, path: &str) -> bool {
        let is_below = |prefix: &str| {
            let rest = path.strip_prefix(prefix.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.prefix.is_none_or(is_below) && self.exact.is_none_or(|exact| exact == path)
    }
}

/// Those of the routes that ask for a way, and of the documents that do.
fn asking<'f>(file: &'f File, name: &At<String>) -> Vec<Paths<'f>> {
    let text = |path: &'f At<Option<PathText>>| path.value.as_ref().map(|path| &*path.0);
    let routes = file.routes.iter().map(|route| &route.value);
    let routes = routes.filter(|route| asks(file, (&route.authenticate, &route.policies), name));
    let routes =
        routes.map(|route| Paths { prefix: text(&route.path), exact: text(&route.path_exact) });
    let documents = file.openapi.value.0.iter().filter_map(|(_, own)| own.as_ref());
    let documents = documents.filter(|own| asks(file, (&own.authenticate, &own.policies), name));
    // What a document has below its path is known when it was read.
    let documents = documents.map(|own| Paths { prefix: text(&own.path), exact: None });
    routes.chain(documents).collect()
}

type Ways = At<Vec<At<WayNames>>>;

/// Whether a route asks for a way, by itself or by a set.
fn asks(file: &File, (own, sets): (&Ways, &At<Vec<At<Name>>>), name: &At<String>) -> bool {
    let known = file.policies.value.0.iter();
    let named = known.filter(|(set, _)| sets.iter().any(|own| own.value.0 == set.value));
    let written = match own.place() {
        Some(_) => vec![own],
        None => named.filter_map(|(_, set)| Some(&set.as_ref()?.authenticate)).collect(),
    };
    let mut ways = written.into_iter().flat_map(|keys| keys.iter());
    ways.any(|ways| ways.value.0.contains(&name.value))
}

/// Those of a route's ways that are logins.
pub(super) fn logins(asked: &Asked, ways: &[Way]) -> Vec<WayId> {
    let mut logins: Vec<WayId> = Vec::new();
    for id in asked.alternatives.iter().flatten() {
        let is_login = |way: &Way| matches!(way.kind, WayKind::Login(_));
        if ways.get(usize::from(*id)).is_some_and(is_login) && !logins.contains(id) {
            logins.push(*id);
        }
    }
    logins
}

/// The field that only the gateway writes where upstreams get access tokens.
pub(super) fn own_field(authenticate: &Authenticate, ways: &[Way]) -> Option<Box<[u8]>> {
    let forwards = |id: &WayId| match ways.get(usize::from(*id)).map(|way| &way.kind) {
        Some(WayKind::Login(way)) => way.rule.forwards_access_token,
        _ => false,
    };
    // Where a client may show a token of its own, that one is for another way.
    let is_alone = authenticate.asked.alternatives.iter().all(|ways| ways.iter().all(forwards));
    is_alone.then(|| b"authorization".as_slice().into())
}

/// What the cookies of all sections begin with, where requests are forwarded: no upstream gets
/// them, whether its route asks for them or not, because browsers send them with every request.
pub(super) fn own_cookies(file: &File, of: Of<'_>) -> Vec<Box<[u8]>> {
    match of {
        Of::Route { route, .. } if route.upstream.value.is_some() => {
            let names = file.oidc.value.0.iter().map(|(name, _)| &name.value);
            names.flat_map(|name| cookies::prefixes(name)).collect()
        }
        _ => Vec::new(),
    }
}

/// Files of all sections, which are read again when they change.
pub(super) fn files(file: &File) -> Vec<String> {
    let sections = file.oidc.value.0.iter().filter_map(|(_, written)| written.as_ref());
    let of = |written: &Oidc| {
        let sources = [&written.session_secrets.value, &written.client_secret.value];
        let files = sources.into_iter().flatten().filter_map(SecretSource::file);
        let secrets = files.map(str::to_owned);
        secrets.chain(written.ca.value.clone()).collect::<Vec<_>>()
    };
    sections.flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    /// What a configuration with a document at this path is told.
    fn told(path: &str) -> String {
        let toml = format!(
            r#"
            [[listeners]]
            bind = "127.0.0.1:8080"
            [[routes]]
            path = "/shop"
            respond = {{ status = 200 }}
            authenticate = ["main"]
            [openapi.books]
            document = "config/openapi/bookshop.yaml"
            upstream = "books"
            path = "{path}"
            undescribed = "pass"
            policies = ["own"]
            [policies.own]
            authenticate = ["main"]
            [oidc.main]
            issuer = "http://localhost:9400"
            client_id = "shop"
            [upstreams.books]
            endpoints = ["127.0.0.1:8000"]
            "#
        );
        let told = crate::config::from_text("t.toml", &toml).map(drop);
        told.err().map_or_else(String::new, |report| report.to_string())
    }

    #[test]
    fn routes_of_documents_have_paths_too() {
        assert_eq!(told("/oidc"), "");
        assert!(told("/books").contains("no route that asks for `main` has the path"));
    }
}
