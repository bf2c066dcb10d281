//! `ringway explain`: what would be done with a request, and why.
//!
//! Uses the parser, path rules and router that serve requests, so it cannot disagree with them.

mod credentials;
mod limits;
mod policies;

use std::fmt::Write;

use crate::{
    config::{
        Snapshot,
        snapshot::{
            Action, Authenticate, Bind, ForwardedFields, Forwarding, Redirect, RedirectedRequest,
            RequestId, Respond, Route, Upstream, split_port,
        },
        units::{Millis, Size},
    },
    policy::{
        Refusal,
        admit::{self, Admitted},
        refusal,
        route::{HostKind, Outcome, PathKind, RequestView, RouteMatch},
    },
    wire::{Framing, Parsed, RequestHead, path::NormalPath},
};

pub use policies::Asker;

/// A request as given on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub method: &'a str,
    /// A path with optional query, or an absolute `http` or `https` URL.
    pub url: &'a str,
    /// `Name: value`
    pub fields: &'a [String],
    /// Who asks.
    pub asker: &'a Asker,
}

/// What would be done with the request.
#[derive(Clone, Debug)]
pub struct Answer {
    pub text: String,
    /// The gateway would refuse it.
    pub is_refused: bool,
}

/// Answers the question; an error means that the question is no request.
pub fn explain(snapshot: &Snapshot, question: &Question<'_>) -> Result<Answer, String> {
    let message = Message::of(question)?;
    let mut text = format!("{} {}\n\n", question.method, question.url);
    let refusal = message.told(snapshot, &mut text).err();
    if let Some(refusal) = &refusal {
        refused(refusal, &mut text);
    }
    Ok(Answer { text, is_refused: refusal.is_some() })
}

/// One line of the answer.
fn line(text: &mut String, what: &str, value: &str) {
    let _ = writeln!(text, "{what:<12} {value}");
}

fn refused(refusal: &Refusal, text: &mut String) {
    let reason = refusal.reason;
    line(text, "refused", &format!("{} {}", reason.status, reason.token));
    line(text, "", reason.meaning);
    if !reason.source.is_empty() {
        line(text, "", &format!("({})", reason.source));
    }
    if !refusal.allow.is_empty() {
        let names: Vec<&str> = refusal.allow.names().collect();
        line(text, "Allow", &names.join(", "));
    }
}

/// The bytes a client would send.
struct Message<'q> {
    asker: &'q Asker,
    bytes: Vec<u8>,
    scheme: &'static str,
    /// Host was made up, since none was given.
    host_assumed: bool,
}

impl<'q> Message<'q> {
    fn of(question: &Question<'q>) -> Result<Message<'q>, String> {
        let scheme = if question.url.starts_with("https://") { "https" } else { "http" };
        let mut authority = None;
        let mut target = question.url.to_owned();
        if let Some((given, rest)) =
            question.url.split_once("://").filter(|_| !question.url.starts_with('/'))
        {
            if !matches!(given, "http" | "https") {
                return Err(format!(
                    "`{given}` is not served; write a URL with http, or only a path"
                ));
            }
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            authority = Some(rest[..end].to_owned());
            target = match &rest[end..] {
                query if query.starts_with('?') => format!("/{query}"),
                "" => "/".to_owned(),
                path => path.to_owned(),
            };
        }
        let mut bytes = format!("{} {target} HTTP/1.1\r\n", question.method).into_bytes();
        let mut has_host = false;
        for field in question.fields {
            if !field.contains(':') {
                return Err(format!("`{field}` is no field; write -H 'Name: value'"));
            }
            has_host |=
                field.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case("host"));
            bytes.extend_from_slice(field.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        let host_assumed = authority.is_none() && !has_host;
        if !has_host {
            let host = authority.unwrap_or_else(|| "localhost".to_owned());
            bytes.extend_from_slice(format!("Host: {host}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        Ok(Message { asker: question.asker, bytes, scheme, host_assumed })
    }

    /// Follows the request through the phases, in the pipeline's order.
    fn told(&self, snapshot: &Snapshot, text: &mut String) -> Result<(), Refusal> {
        let mut head = RequestHead::default();
        if head.parse(&self.bytes, &snapshot.limits.head)? == Parsed::Partial {
            return Err(crate::wire::reason::MALFORMED_HEAD.into());
        }
        let mut path = NormalPath::default();
        if admit::admit(&head, &self.bytes, snapshot.paths, &mut path)? == Admitted::Options {
            line(text, "answers", "204 with Allow: an OPTIONS request for the gateway itself");
            return Ok(());
        }
        let raw = admit::raw_path(&head, &self.bytes);
        let request = Told {
            message: self,
            head: &head,
            forward: path.forward_of(raw),
            matched: path.matched_of(raw),
        };
        request.paths(raw, text);
        let found = request.route(snapshot, text)?;
        request.action(snapshot, &found, text)
    }
}

/// A request that was understood.
struct Told<'a> {
    message: &'a Message<'a>,
    head: &'a RequestHead,
    forward: &'a [u8],
    matched: &'a [u8],
}

impl Told<'_> {
    fn bytes(&self) -> &[u8] {
        &self.message.bytes
    }

    fn authority(&self) -> &[u8] {
        self.head.authority.of(self.bytes())
    }

    fn query(&self) -> Option<&[u8]> {
        self.head.query.map(|query| query.of(self.bytes()))
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            method: self.head.method,
            method_text: self.head.method_text.of(self.bytes()),
            host: split_port(self.authority()).0,
            path: self.matched,
            query: self.query(),
            head: self.head,
            buf: self.bytes(),
        }
    }

    fn paths(&self, raw: &[u8], text: &mut String) {
        let assumed =
            if self.message.host_assumed { " (assumed; name another with -H)" } else { "" };
        line(text, "host", &format!("{}{assumed}", shown(self.authority())));
        if self.matched == raw {
            line(text, "path", &shown(raw));
        } else {
            line(
                text,
                "path",
                &format!("{} (normalised from {})", shown(self.matched), shown(raw)),
            );
        }
        if self.forward != self.matched {
            line(text, "", &format!("{} when forwarded: parameters are kept", shown(self.forward)));
        }
    }

    fn route(&self, snapshot: &Snapshot, text: &mut String) -> Result<RouteMatch, Refusal> {
        let view = self.view();
        let considered = snapshot.router.explain(&view);
        for (at, candidate) in considered.iter().enumerate() {
            let title = if at == 0 { "considered" } else { "" };
            let outcome = match &candidate.outcome {
                Outcome::Taken => "taken".to_owned(),
                Outcome::Method => "not with this method".to_owned(),
                Outcome::Header(name) => format!("the field {name} does not match"),
                Outcome::Query(name) => format!("the parameter {name} does not match"),
            };
            let name = &snapshot.route(candidate.route).name;
            let why = format!("{}, {}", host_words(candidate.host), path_words(candidate.path));
            line(text, title, &format!("{name} ({why}): {outcome}"));
        }
        if considered.is_empty() {
            line(text, "considered", "no route has this host and path");
        }
        let found = snapshot.router.find(&view)?;
        line(text, "route", &snapshot.route(found.route).name);
        let names = snapshot.router.param_names(found.route);
        for (name, value) in names.iter().zip(&found.params[..usize::from(found.params_len)]) {
            line(text, "", &format!("{{{name}}} = {}", shown(value.of(self.matched))));
        }
        Ok(found)
    }

    fn action(
        &self,
        snapshot: &Snapshot,
        found: &RouteMatch,
        text: &mut String,
    ) -> Result<(), Refusal> {
        let route = snapshot.route(found.route);
        if matches!(self.head.framing, Framing::Length(length) if length > route.body_bytes_max) {
            return Err(refusal::BODY_TOO_LARGE.into());
        }
        if let Some(asked) = route.policies.policies().and_then(|own| own.authenticate.as_ref()) {
            authenticates(snapshot, asked, text);
        }
        if self.policies(snapshot, route, found, text)? {
            return Ok(());
        }
        match &route.action {
            Action::Forward(id) => {
                let upstream = snapshot.upstream(*id);
                self.forwarded(route, upstream, found, text)?;
                line(text, "adds", &added(&snapshot.forwarding).join(", "));
                bounds(snapshot, route, upstream, text);
            }
            Action::Respond(fixed) => responded(fixed, text),
            Action::Redirect(to) => self.redirected(to, found, text)?,
        }
        Ok(())
    }

    fn forwarded(
        &self,
        route: &Route,
        upstream: &Upstream,
        found: &RouteMatch,
        text: &mut String,
    ) -> Result<(), Refusal> {
        let mut target = Vec::new();
        route.rewrite.path.apply(self.forward, found, self.matched, &mut target)?;
        if let Some(query) = self.query() {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        let method = self.head.method_text.of(self.bytes());
        line(text, "sends", &format!("{} {} HTTP/1.1", shown(method), shown(&target)));
        let host = route.rewrite.host.as_ref().map_or(self.authority(), |host| host.as_bytes());
        line(text, "", &format!("Host: {}", shown(host)));
        let how = format!("{:?}", upstream.balance);
        line(text, "upstream", &format!("{}, by {}", upstream.name, words(&how)));
        for endpoint in &upstream.endpoints {
            let weight = match endpoint.weight {
                1 => String::new(),
                weight => format!(" (weight {weight})"),
            };
            line(text, "", &format!("{}{weight}", endpoint.name));
        }
        Ok(())
    }

    fn redirected(
        &self,
        to: &Redirect,
        found: &RouteMatch,
        text: &mut String,
    ) -> Result<(), Refusal> {
        let request = RedirectedRequest {
            scheme: self.message.scheme,
            authority: self.authority(),
            forward_path: self.forward,
            query: self.query(),
            matched: found,
            matched_path: self.matched,
        };
        let mut location = Vec::new();
        to.location(&request, &mut location)?;
        line(text, "redirects", &format!("{} to {}", to.status, shown(&location)));
        Ok(())
    }
}

/// The ways that a route asks for, one alternative on each line.
fn authenticates(snapshot: &Snapshot, rule: &Authenticate, text: &mut String) {
    for (at, ways) in rule.asked.alternatives.iter().enumerate() {
        let names = ways.iter().map(|id| {
            let way = snapshot.way(*id);
            format!("{} ({})", way.name, way.kind.words())
        });
        let title = if at == 0 { "asks for" } else { "or" };
        line(text, title, &names.collect::<Vec<_>>().join(" and "));
    }
    if rule.asked.anonymous {
        line(text, "or", "nothing: anonymous requests pass");
    }
}

fn responded(fixed: &Respond, text: &mut String) {
    line(text, "answers", &format!("{}, {}", fixed.status, fixed.content_type));
    for (name, value) in &fixed.headers {
        line(text, "", &format!("{name}: {value}"));
    }
    line(text, "", &format!("{} bytes of body", fixed.body.len()));
}

/// Fields that tell the upstream about the client.
fn added(forwarding: &Forwarding) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    match forwarding.fields {
        ForwardedFields::XForwarded => fields.push("X-Forwarded-For, -Proto and -Host".to_owned()),
        ForwardedFields::Forwarded => fields.push("Forwarded".to_owned()),
        ForwardedFields::Off => {}
    }
    let via = forwarding.via.name();
    if !via.is_empty() {
        fields.push(format!("Via: 1.1 {via}"));
    }
    match forwarding.request_id {
        RequestId::Keep => fields.push("X-Request-Id (a valid one is kept)".to_owned()),
        RequestId::Make => fields.push("X-Request-Id".to_owned()),
        RequestId::Off => {}
    }
    if fields.is_empty() {
        fields.push("nothing".to_owned());
    }
    fields
}

fn bounds(snapshot: &Snapshot, route: &Route, upstream: &Upstream, text: &mut String) {
    let ms = |ms: u64| Millis(ms).to_string();
    let head = &snapshot.limits.head;
    line(
        text,
        "limits",
        &format!(
            "head {}, {} fields, target {}, body {}",
            Size(u64::from(head.head_bytes_max)),
            head.fields_max,
            Size(u64::from(head.target_bytes_max)),
            Size(route.body_bytes_max)
        ),
    );
    line(
        text,
        "timeouts",
        &format!(
            "connect {}, first byte {}, idle {}, whole exchange {}",
            ms(upstream.connect_timeout_ms),
            ms(upstream.first_byte_timeout_ms),
            ms(upstream.idle_timeout_ms),
            route.timeout_ms.map_or("unbounded".to_owned(), ms)
        ),
    );
    let upgrade = if route.upgrade { "may pass" } else { "does not pass" };
    line(text, "tries", &format!("{} at most", route.tries_max));
    line(text, "upgrade", upgrade);
    let places: Vec<String> = snapshot.listeners.iter().map(|rule| place(&rule.bind)).collect();
    line(text, "listeners", &places.join(", "));
}

fn place(bind: &Bind) -> String {
    match bind {
        Bind::Tcp(address) => address.to_string(),
        Bind::Unix { path, .. } => format!("unix:{}", path.display()),
    }
}

fn host_words(host: HostKind) -> &'static str {
    match host {
        HostKind::Exact => "exact host",
        HostKind::Wildcard => "wildcard host",
        HostKind::Any => "any host",
    }
}

fn path_words(path: PathKind) -> &'static str {
    match path {
        PathKind::Exact => "exact path",
        PathKind::Template => "path template",
        PathKind::Regex => "path regex",
        PathKind::Prefix => "path prefix",
        PathKind::Any => "any path",
    }
}

/// `RoundRobin` as `round robin`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

/// Bytes of a message as they may be printed on a terminal.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
