//! Routes: exactly one action each, settings that fit it, and a router compiled from all of them.

use std::{collections::HashSet, path::Path, sync::Arc};

use super::{
    Once, TOP, check_ping, openapi,
    policies::{self, Shared},
    rules::{self, PathCondition},
    trace,
};
use crate::{
    config::{
        bounded,
        decode::{At, Sink, nearest, quoted, short},
        file::{File, Listener, Redirect, Respond, Route},
        report::{Place, Problem, Severity},
        snapshot::{self, Action},
        values::{ClientCertificate, MatchValue, Matches, Name, PathText, Scheme, is_token},
    },
    policy::{
        rewrite::{PathRewrite, Rewrite},
        route::{ConflictKind, RouteConflict, RouteRule, Router, ValueMatch, ValuePattern},
        validate::Validation,
    },
};

/// Routes by id, and the router; no router when routes are wrong or contradict each other.
pub(super) fn routes(
    file: &File,
    shared: &Shared<'_>,
    sink: &mut Sink,
) -> (Vec<snapshot::Route>, Option<Router>) {
    let listeners = &file.listeners;
    // Those with mistakes are not here, and are taken for listeners that serve requests.
    let serves_requests =
        listeners.is_empty() || listeners.iter().any(|listener| listener.passthrough.is_empty());
    let has_none = file.routes.is_empty() && file.openapi.value.0.is_empty();
    if has_none && !file.routes.is_wrong() && serves_requests {
        let problem = Problem::whole("no route: every request gets 404");
        let problem = Problem { severity: Severity::Warning, ..problem };
        sink.push(problem.fix("add [[routes]] with path = \"/\" and an upstream"));
    }
    let mut names = Names::default();
    let (mut rules, mut routes, mut places) = (Vec::new(), Vec::new(), Vec::new());
    let made = openapi::routes(file, shared, sink);
    let written = file.routes.iter().map(|route| (route, &None));
    for (route, described) in written.chain(made.iter().map(|(route, own)| (route, own))) {
        let place = route.place().unwrap_or(TOP);
        let condition = rules::path_condition(route, sink);
        let name = names.of(route, &condition, sink);
        let of = (route, described);
        routes.push(checked(file, shared, of, place, &condition, &name, sink));
        if field_names_are_sound(route, sink) && conditions_are_sound(route, &condition) {
            places.push(condition.place.unwrap_or(place));
            let policies = routes.last().and_then(|route| route.policies.policies());
            let preflights = policies.is_some_and(|policies| policies.cors.is_some());
            rules.push(RouteRule { preflights, ..rule(route, condition, name) });
        }
    }
    match Router::compile(&rules) {
        // With a route left out, the ids would be others; it was reported, so none is needed.
        Ok(router) => (routes, Some(router)),
        Err(conflicts) => {
            for conflict in conflicts {
                sink.push(conflicting(&conflict, &rules, &places));
            }
            (routes, None)
        }
    }
}

/// Reports names of header conditions that no field can have.
fn field_names_are_sound(route: &Route, sink: &mut Sink) -> bool {
    let names = route.headers.0.iter().map(|(name, _)| name);
    let wrong: Vec<_> = names.filter(|name| !is_token(&name.value)).collect();
    for name in &wrong {
        sink.push(bad_field_name(name));
    }
    wrong.is_empty()
}

pub(super) fn bad_field_name(name: &At<String>) -> Problem {
    let title = format!("`{}` is no valid field name", short(&name.value));
    Problem::error(name.place().unwrap_or(TOP), title).fix("write a name such as X-Tenant")
}

/// Whether the route's conditions are as their author meant them, so that they may be compared
/// with others'.
fn conditions_are_sound(route: &Route, condition: &PathCondition) -> bool {
    condition.is_sound
        && !route.hosts.is_wrong()
        && !route.methods.is_wrong()
        && !route.headers.is_wrong()
        && !route.query.is_wrong()
}

fn conflicting(conflict: &RouteConflict, rules: &[RouteRule], places: &[Place]) -> Problem {
    let place_of = |id: u32| places.get(id as usize).copied().unwrap_or(TOP);
    let name_of = |id: u32| rules.get(id as usize).map_or("", |rule| rule.name.as_str());
    let (place, name) = (place_of(conflict.route), name_of(conflict.route));
    match &conflict.kind {
        ConflictKind::Duplicate { of } => {
            let title = format!("the route `{name}` has the same conditions as an earlier one");
            Problem::error(place, title)
                .label("never taken")
                .related(place_of(*of), "this one takes its requests")
                .fix("remove one of the two, or add a condition (hosts, methods, headers, query)")
        }
        ConflictKind::Unreachable { because_of } => {
            let title = format!("the route `{name}` can never be taken");
            let other = format!("`{}` takes every request it could", name_of(*because_of));
            Problem::error(place, title)
                .label("unreachable")
                .related(place_of(*because_of), other)
                .fix("remove it, put it before the other one, or make it more specific")
        }
        ConflictKind::BadPattern { message } => rules::from_policy(message, place),
    }
}

/// Gives every route a name of its own.
#[derive(Default)]
struct Names {
    given: Once,
    made: HashSet<String>,
}

impl Names {
    fn of(&mut self, route: &Route, condition: &PathCondition, sink: &mut Sink) -> String {
        if let Some(name) = route.name.some() {
            let fix = "give each route a name of its own, or leave `name` out";
            let place = name.place().unwrap_or(TOP);
            self.given.check(&name.value.0, place, "the route name", fix, sink);
            return name.value.0;
        }
        let plain = default_name(route, condition);
        let mut name = plain.clone();
        let mut count = 1;
        while !self.made.insert(name.clone()) {
            count += 1;
            name = format!("{plain} ({count})");
        }
        name
    }
}

/// From the conditions: `GET example.com/api/orders`.
fn default_name(route: &Route, condition: &PathCondition) -> String {
    use crate::policy::route::PathPattern;
    let mut name = String::new();
    for method in route.methods.iter() {
        let gap = if name.is_empty() { "" } else { "," };
        name = format!("{name}{gap}{}", method.0);
    }
    if !name.is_empty() {
        name.push(' ');
    }
    if let Some(host) = route.hosts.first() {
        name.push_str(&host.0);
    }
    match &condition.pattern {
        PathPattern::Any if name.is_empty() => name.push_str("any"),
        PathPattern::Any => {}
        PathPattern::Exact(path) | PathPattern::Prefix(path) | PathPattern::Template(path) => {
            name.push_str(path);
        }
        PathPattern::Regex(_) => {
            if let Some(regex) = &route.path_regex.value {
                name.push_str(&regex.text);
            }
        }
    }
    name.trim_end().to_owned()
}

fn rule(route: &Route, condition: PathCondition, name: String) -> RouteRule {
    RouteRule {
        name,
        hosts: route.hosts.iter().map(|host| host.0.clone()).collect(),
        path: condition.pattern,
        methods: route.methods.iter().map(|method| method.0.clone()).collect(),
        preflights: false,
        headers: matches(&route.headers, str::to_ascii_lowercase),
        query: matches(&route.query, str::to_owned),
    }
}

pub(super) fn matches(matches: &Matches, name_of: impl Fn(&str) -> String) -> Vec<ValueMatch> {
    let one = |(name, value): &(At<String>, MatchValue)| ValueMatch {
        name: name_of(&name.value),
        value: match value {
            MatchValue::Present => ValuePattern::Present,
            MatchValue::Absent => ValuePattern::Absent,
            MatchValue::Exact(text) => ValuePattern::Exact(text.clone()),
            MatchValue::Regex(regex) => ValuePattern::Regex(regex.clone()),
        },
    };
    matches.0.iter().map(one).collect()
}

fn checked(
    file: &File,
    shared: &Shared<'_>,
    (route, described): (&At<Route>, &Option<Arc<Validation>>),
    place: Place,
    condition: &PathCondition,
    name: &str,
    sink: &mut Sink,
) -> snapshot::Route {
    let action = action(file, route, place, condition, shared.folder, sink);
    if !matches!(action, Action::Forward(_)) {
        refuse_forwarding_keys(route, sink);
    }
    snapshot::Route {
        name: name.to_owned(),
        action,
        rewrite: rewrite(route, condition, sink),
        body_bytes_max: route.max_body.value.unwrap_or(file.limits.body.value).0,
        timeout_ms: route.timeout.0.map(|timeout| timeout.0),
        upgrade: *route.upgrade,
        websocket_ping_ms: websocket_ping(file, route, sink),
        grpc_web: *route.grpc_web,
        tries_max: *route.tries,
        pattern: rules::pattern_text(route),
        trace_sampling: trace::sampling(&route.trace_sample),
        needs_certificate: needs_certificate(file, route, sink),
        policies: policies::policies(file, shared, (route, described), condition, sink),
        access_log: *route.access_log,
    }
}

/// When ends of WebSockets are asked whether they are still there.
fn websocket_ping(file: &File, route: &Route, sink: &mut Sink) -> Option<u64> {
    let (place, own) = (route.websocket_ping.place(), route.websocket_ping.value);
    if let (Some(place), false, Some(_)) = (place, *route.upgrade, &route.upstream.value) {
        let title = "`websocket_ping` has no effect where no `Upgrade` passes";
        let problem = Problem::error(place, title).fix("remove it, or `upgrade = false`");
        let at = route.upgrade.place().unwrap_or(place);
        sink.push(problem.related(at, "none passes here"));
    } else if let Some(own) = own {
        check_ping("websocket_ping", place, own.0, &file.timeouts, sink);
    }
    own.unwrap_or(*file.timeouts.websocket_ping).0.map(|silence| silence.0)
}

fn action(
    file: &File,
    route: &Route,
    place: Place,
    condition: &PathCondition,
    folder: &Path,
    sink: &mut Sink,
) -> Action {
    let actions = [
        ("upstream", route.upstream.place()),
        ("respond", route.respond.place()),
        ("redirect", route.redirect.place()),
    ];
    let mut written = actions.iter().filter_map(|(name, place)| place.map(|place| (*name, place)));
    let Some((first, first_place)) = written.next() else {
        let title = "the route has no action";
        let fix = "add upstream = \"NAME\", respond = { status = 403 } or redirect = { scheme = \"https\" }";
        sink.push(Problem::error(place, title).fix(fix));
        return Action::Forward(0);
    };
    for (second, second_place) in written {
        let title = format!("a route has one action, not both `{first}` and `{second}`");
        let problem = Problem::error(second_place, title).related(first_place, "the first one");
        sink.push(problem.fix("keep one of them, or make two routes"));
    }
    if let Some(name) = route.upstream.some() {
        return Action::Forward(upstream_id(file, &name, sink));
    }
    if let Some(written) = &route.respond.value {
        return Action::Respond(respond(written, place, folder, sink));
    }
    match &route.redirect.value {
        Some(written) => Action::Redirect(redirect(written, first_place, condition, sink)),
        None => Action::Forward(0),
    }
}

pub(super) fn upstream_id(file: &File, name: &At<Name>, sink: &mut Sink) -> u32 {
    let known = &file.upstreams.value.0;
    if let Some(id) = known.iter().position(|(upstream, _)| upstream.value == name.value.0) {
        return id as u32;
    }
    if file.upstreams.is_wrong() {
        return 0;
    }
    let names: Vec<&str> = known.iter().map(|(upstream, _)| upstream.value.as_str()).collect();
    let fix = match nearest(&name.value.0, &names) {
        Some(near) => format!("write upstream = {}", quoted(near)),
        None => format!(
            "add [upstreams.{}] and below it endpoints = [\"127.0.0.1:8000\"]",
            rules::toml_key(&name.value.0)
        ),
    };
    let title = format!("there is no upstream `{}`", name.value.0);
    sink.push(Problem::error(name.place().unwrap_or(TOP), title).fix(fix));
    0
}

/// Settings of forwarding on a route that does not forward.
fn refuse_forwarding_keys(route: &Route, sink: &mut Sink) {
    let keys = [
        ("strip_prefix", route.strip_prefix.place()),
        ("replace_prefix", route.replace_prefix.place()),
        ("rewrite_path", route.rewrite_path.place()),
        ("rewrite_host", route.rewrite_host.place()),
        ("timeout", route.timeout.place()),
        ("upgrade", route.upgrade.place()),
        ("websocket_ping", route.websocket_ping.place()),
        ("grpc_web", route.grpc_web.place()),
        ("tries", route.tries.place()),
        ("max_response_body", route.max_response_body.place()),
    ];
    for (name, place) in keys {
        if let Some(place) = place {
            let title = format!("`{name}` has no effect on a route without `upstream`");
            let fix = match name {
                "replace_prefix" | "rewrite_path" | "rewrite_host" => {
                    "remove it; a redirect has its own `path`, `replace_prefix` and `host`"
                }
                _ => "remove it",
            };
            sink.push(Problem::error(place, title).fix(fix));
        }
    }
}

fn rewrite(route: &Route, condition: &PathCondition, sink: &mut Sink) -> Rewrite {
    let strip = route.strip_prefix.place().filter(|_| *route.strip_prefix);
    let keys = [
        ("strip_prefix", strip),
        ("replace_prefix", route.replace_prefix.place()),
        ("rewrite_path", route.rewrite_path.place()),
    ];
    let mut written = keys.iter().filter_map(|(name, place)| place.map(|place| (*name, place)));
    let first = written.next();
    if let (Some((first, first_place)), Some((second, second_place))) = (first, written.next()) {
        let title = format!("a route changes the path once, not by both `{first}` and `{second}`");
        let problem = Problem::error(second_place, title).related(first_place, "the first one");
        sink.push(problem.fix("keep one of them"));
    }
    if let Some((name @ ("strip_prefix" | "replace_prefix"), place)) = first {
        needs_prefix(name, place, condition, sink);
    }
    let path = if strip.is_some() {
        PathRewrite::StripPrefix
    } else if let Some(prefix) = route.replace_prefix.some() {
        replace_prefix(&prefix, sink)
    } else if let Some(text) = route.rewrite_path.some() {
        rules::template(&text, condition, sink)
    } else {
        PathRewrite::Keep
    };
    Rewrite { path, host: route.rewrite_host.value.as_ref().map(|host| host.0.clone()) }
}

fn replace_prefix(prefix: &At<PathText>, sink: &mut Sink) -> PathRewrite {
    PathRewrite::replace_prefix(&prefix.value.0).unwrap_or_else(|message| {
        sink.push(rules::from_policy(&message, prefix.place().unwrap_or(TOP)));
        PathRewrite::Keep
    })
}

fn needs_prefix(name: &str, place: Place, condition: &PathCondition, sink: &mut Sink) {
    if condition.is_prefix() || !condition.is_sound {
        return;
    }
    let title = format!("`{name}` needs a prefix, so the route needs `path`");
    let mut problem = Problem::error(place, title);
    if let Some(at) = condition.place {
        problem = problem.related(at, "this is no prefix");
    }
    sink.push(problem.fix("write path = \"/prefix\", or use `rewrite_path`"));
}

fn needs_certificate(file: &File, route: &Route, sink: &mut Sink) -> bool {
    let is_needed = *route.client_certificate == ClientCertificate::Required;
    let asks = |listener: &At<Listener>| {
        listener.tls.value.as_ref().is_some_and(|tls| tls.client_ca.place().is_some())
    };
    if let Some(place) = route.client_certificate.place().filter(|_| is_needed)
        && !file.listeners.iter().any(asks)
        && !file.listeners.is_wrong()
    {
        let title = "no listener asks clients for a certificate, so every request would get 403";
        let fix = "add client_ca = \"authorities.pem\" and client_certificate = \"optional\" to \
                   the `tls` of a listener";
        sink.push(Problem::error(place, title).fix(fix));
    }
    is_needed
}

/// Largest `body_file`.
const BODY_FILE_BYTES_MAX: u64 = 16 << 20;

fn respond(respond: &Respond, place: Place, folder: &Path, sink: &mut Sink) -> snapshot::Respond {
    let body = body(&respond.body, &respond.body_file, folder, sink);
    let status = *respond.status;
    bodiless(status, &body, respond.status.place().unwrap_or(place), sink);
    snapshot::Respond {
        status,
        content_type: respond.content_type.0.clone(),
        body,
        headers: response_fields(respond, sink),
    }
}

/// The body of a response of the operator's, from the configuration or a file.
pub(super) fn body(
    text: &At<Option<String>>,
    file: &At<Option<String>>,
    folder: &Path,
    sink: &mut Sink,
) -> Vec<u8> {
    if let (Some(body), Some(file)) = (text.place(), file.place()) {
        let title = "a response has one body, not both `body` and `body_file`";
        sink.push(
            Problem::error(file, title).related(body, "the first one").fix("keep one of them"),
        );
    }
    match (&text.value, file.some()) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(name)) => body_file(&name, folder, sink),
        (None, None) => Vec::new(),
    }
}

/// Reports a body where the status has none.
pub(super) fn bodiless(status: u16, body: &[u8], place: Place, sink: &mut Sink) {
    if matches!(status, 204 | 304) && !body.is_empty() {
        let title = format!("a response with status {status} has no body (RFC 9110 §6.4.1)");
        sink.push(Problem::error(place, title).fix("remove the body, or write another status"));
    }
}

/// Fields that the gateway itself writes.
const OWN_FIELDS: [(&str, &str); 7] = [
    ("content-length", "remove it: the gateway counts the body"),
    ("content-type", "write content_type = \"...\" instead"),
    ("transfer-encoding", "remove it: the gateway frames the body"),
    ("connection", "remove it: the gateway manages its connections"),
    ("keep-alive", "remove it: the gateway manages its connections"),
    ("upgrade", "remove it: a fixed response cannot switch protocols"),
    ("date", "remove it: the gateway dates its responses"),
];

fn response_fields(respond: &Respond, sink: &mut Sink) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    for (name, value) in &respond.headers.value.0 {
        let place = name.place().unwrap_or(TOP);
        if !is_token(&name.value) {
            sink.push(bad_field_name(name));
            continue;
        }
        let own = OWN_FIELDS.iter().find(|(own, _)| name.value.eq_ignore_ascii_case(own));
        if let Some((_, fix)) = own {
            let title = format!("the gateway writes the field `{}` itself", name.value);
            sink.push(Problem::error(place, title).fix(*fix));
        }
        if let Some(value) = value {
            fields.push((name.value.clone(), value.0.clone()));
        }
    }
    fields
}

fn body_file(name: &At<String>, folder: &Path, sink: &mut Sink) -> Vec<u8> {
    let path = folder.join(&name.value);
    bounded::read(&path, BODY_FILE_BYTES_MAX).unwrap_or_else(|error| {
        let title = format!("cannot read the body file `{}`: {error}", path.display());
        let fix = "write a path relative to this configuration, or an absolute one";
        sink.push(Problem::error(name.place().unwrap_or(TOP), title).fix(fix));
        Vec::new()
    })
}

fn redirect(
    redirect: &Redirect,
    place: Place,
    condition: &PathCondition,
    sink: &mut Sink,
) -> snapshot::Redirect {
    if let Some(at) = redirect.status.place().filter(|_| matches!(*redirect.status, 304..=306)) {
        let title = format!("{} is no redirect", *redirect.status);
        sink.push(
            Problem::error(at, title).fix(
                "write 308 (or 301) for good, 307 (or 302) for now, 303 to GET another resource",
            ),
        );
    }
    if let (Some(path), Some(prefix)) = (redirect.path.place(), redirect.replace_prefix.place()) {
        let title = "a redirect has one path, not both `path` and `replace_prefix`";
        sink.push(
            Problem::error(prefix, title).related(path, "the first one").fix("keep one of them"),
        );
    }
    let to = [
        redirect.scheme.place(),
        redirect.host.place(),
        redirect.port.place(),
        redirect.path.place(),
        redirect.replace_prefix.place(),
    ];
    if to.iter().all(Option::is_none) {
        let title = "the redirect leads back to the same place";
        sink.push(
            Problem::error(place, title).fix("add scheme, host, port, path or replace_prefix"),
        );
    }
    let path = match (redirect.path.some(), redirect.replace_prefix.some()) {
        (Some(path), _) => rules::template(&path, condition, sink),
        (None, Some(prefix)) => {
            needs_prefix("replace_prefix", prefix.place().unwrap_or(place), condition, sink);
            replace_prefix(&prefix, sink)
        }
        (None, None) => PathRewrite::Keep,
    };
    let scheme = redirect.scheme.value.map(|scheme| match scheme {
        Scheme::Http => "http".to_owned(),
        Scheme::Https => "https".to_owned(),
    });
    snapshot::Redirect {
        status: *redirect.status,
        scheme,
        host: redirect.host.value.as_ref().map(|host| host.0.clone()),
        port: redirect.port.value,
        path,
        keep_query: *redirect.keep_query,
    }
}
