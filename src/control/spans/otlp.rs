//! Spans as OTLP has them, with the attributes of OpenTelemetry's semantic conventions for HTTP.
//!
//! Left out on purpose: queries (they hold tokens and personal data), header fields, and bodies.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource as OtlpResource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use prost::Message;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    config::snapshot::split_port,
    telemetry::trace::spans::{ExchangeSpans, Try},
    wire::Method,
};

/// The version of the conventions whose names are used.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.27.0";
/// Bits of a span's flags: it is known whether the parent is another process's, and it is.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Who sends.
#[derive(Clone, Debug, Default)]
pub struct Resource(Vec<KeyValue>);

impl Resource {
    pub fn of(service_name: &str) -> Resource {
        let host = rustix::system::uname();
        let pid = i64::from(std::process::id());
        Resource(vec![
            text("service.name", service_name),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("host.name", &host.nodename().to_string_lossy()),
            number("process.pid", pid),
        ])
    }
}

/// The request that exports `exchanges`.
pub fn request(exchanges: &[ExchangeSpans], resource: &Resource) -> Vec<u8> {
    let wall = wall_clock();
    let spans = exchanges.iter().flat_map(|exchange| of_exchange(exchange, wall)).collect();
    let scope = InstrumentationScope {
        name: "ringway".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    let scope_spans = ScopeSpans { scope: Some(scope), spans, schema_url: SCHEMA_URL.to_owned() };
    let resource = OtlpResource { attributes: resource.0.clone(), ..Default::default() };
    let resource_spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        schema_url: SCHEMA_URL.to_owned(),
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// What turns the workers' monotonic nanoseconds into Unix time, as of now.
#[derive(Clone, Copy)]
struct WallClock {
    ahead_ns: u64,
}

fn wall_clock() -> WallClock {
    let monotonic = clock_gettime(ClockId::Monotonic);
    let monotonic_ns = monotonic.tv_sec as u64 * 1_000_000_000 + monotonic.tv_nsec as u64;
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallClock { ahead_ns: (unix.as_nanos() as u64).wrapping_sub(monotonic_ns) }
}

impl WallClock {
    fn unix_ns(self, monotonic_ns: u64) -> u64 {
        self.ahead_ns.wrapping_add(monotonic_ns)
    }
}

fn of_exchange(exchange: &ExchangeSpans, wall: WallClock) -> Vec<Span> {
    let mut spans = Vec::with_capacity(exchange.count());
    spans.push(server_span(exchange, wall));
    spans.extend(exchange.tries.iter().map(|one| client_span(exchange, one, wall)));
    spans
}

fn server_span(exchange: &ExchangeSpans, wall: WallClock) -> Span {
    let method = method_name(exchange);
    let has_parent = exchange.parent_id != 0;
    let parent = if has_parent { exchange.parent_id.to_be_bytes().to_vec() } else { Vec::new() };
    let is_error = exchange.status >= 500 || exchange.reason.is_some_and(|r| r.status >= 500);
    Span {
        name: match exchange.pattern.as_str() {
            "" => method.to_owned(),
            pattern => format!("{method} {pattern}"),
        },
        span_id: exchange.span_id.to_be_bytes().to_vec(),
        parent_span_id: parent,
        flags: u32::from(exchange.flags) | KNOWS_REMOTE | if has_parent { IS_REMOTE } else { 0 },
        kind: SpanKind::Server.into(),
        start_time_unix_nano: wall.unix_ns(exchange.started_ns),
        end_time_unix_nano: wall.unix_ns(exchange.ended_ns.max(exchange.started_ns)),
        attributes: server_attributes(exchange),
        status: is_error.then(|| status(exchange.reason.map_or("", |reason| reason.meaning))),
        ..of_trace(exchange)
    }
}

fn server_attributes(exchange: &ExchangeSpans) -> Vec<KeyValue> {
    let (host, port) = split_port(exchange.authority.as_bytes());
    let host = String::from_utf8_lossy(host);
    let port = port.and_then(|port| std::str::from_utf8(port).ok()?.parse::<u16>().ok());
    let path = if exchange.path.is_empty() { "/" } else { &exchange.path };
    let mut attributes = method_attributes(exchange);
    attributes.extend([
        text("url.path", path),
        text("url.scheme", exchange.scheme),
        text("network.protocol.version", exchange.version.number()),
        number("http.request.body.size", exchange.received_bytes as i64),
        number("http.response.body.size", exchange.sent_bytes as i64),
        number("ringway.worker", exchange.worker as i64),
    ]);
    attributes.extend(some("server.address", host.trim_matches(['[', ']'])));
    attributes.extend(port.map(|port| number("server.port", i64::from(port))));
    let client = exchange.client.map(|ip| ip.to_string()).unwrap_or_default();
    attributes.extend(some("client.address", &client));
    let peer = exchange.peer.map(|ip| ip.to_string()).unwrap_or_default();
    attributes.extend(some("network.peer.address", &peer));
    attributes.extend(some("user_agent.original", &exchange.user_agent));
    attributes.extend(some("http.route", &exchange.pattern));
    attributes.extend(some("ringway.route", &exchange.route));
    attributes.extend(some("ringway.request_id", &exchange.request_id));
    attributes.extend(exchange.overhead_ns.map(|ns| seconds("ringway.overhead", ns)));
    attributes.extend(status_code(exchange.status));
    let token = exchange.reason.map_or("", |reason| reason.token);
    attributes.extend(error_type(token, exchange.status, 500));
    attributes
}

fn client_span(exchange: &ExchangeSpans, one: &Try, wall: WallClock) -> Span {
    let is_error = one.status >= 400 || one.reason.is_some();
    Span {
        name: method_name(exchange).to_owned(),
        span_id: one.span_id.to_be_bytes().to_vec(),
        parent_span_id: exchange.span_id.to_be_bytes().to_vec(),
        flags: u32::from(exchange.flags) | KNOWS_REMOTE,
        kind: SpanKind::Client.into(),
        start_time_unix_nano: wall.unix_ns(one.started_ns),
        end_time_unix_nano: wall.unix_ns(one.ended_ns.max(one.started_ns)),
        attributes: client_attributes(exchange, one),
        status: is_error.then(|| status(one.reason.map_or("", |reason| reason.meaning))),
        ..of_trace(exchange)
    }
}

fn client_attributes(exchange: &ExchangeSpans, one: &Try) -> Vec<KeyValue> {
    let mut attributes = method_attributes(exchange);
    match one.endpoint.strip_prefix("unix:") {
        Some(path) => {
            attributes.push(text("server.address", path));
            attributes.push(text("network.transport", "unix"));
        }
        None => {
            let (host, port) = one.endpoint.rsplit_once(':').unwrap_or((&one.endpoint, ""));
            attributes.push(text("server.address", host.trim_matches(['[', ']'])));
            attributes.extend(port.parse().ok().map(|port| number("server.port", port)));
            let url = format!("http://{}{}", one.endpoint, exchange.forwarded_path);
            attributes.push(text("url.full", &url));
        }
    }
    attributes.extend([
        text("network.protocol.version", "1.1"),
        text("ringway.upstream", &exchange.upstream),
        boolean("ringway.connection_reused", one.reused),
    ]);
    if one.resent > 0 {
        attributes.push(number("http.request.resend_count", i64::from(one.resent)));
    }
    attributes.extend(status_code(one.status));
    attributes.extend(error_type(one.reason.map_or("", |r| r.token), one.status, 400));
    attributes
}

/// What all spans of an exchange have in common.
fn of_trace(exchange: &ExchangeSpans) -> Span {
    Span {
        trace_id: exchange.trace_id.to_be_bytes().to_vec(),
        trace_state: exchange.state.clone(),
        ..Default::default()
    }
}

/// For a span's name: a method of which there are not many.
fn method_name(exchange: &ExchangeSpans) -> &str {
    match exchange.method {
        Method::Other => "HTTP",
        _ => &exchange.method_text,
    }
}

fn method_attributes(exchange: &ExchangeSpans) -> Vec<KeyValue> {
    match exchange.method {
        Method::Other => vec![
            text("http.request.method", "_OTHER"),
            text("http.request.method_original", &exchange.method_text),
        ],
        _ => vec![text("http.request.method", &exchange.method_text)],
    }
}

fn status(message: &str) -> Status {
    Status { message: message.to_owned(), code: StatusCode::Error.into() }
}

fn status_code(status: u16) -> Option<KeyValue> {
    (status > 0).then(|| number("http.response.status_code", i64::from(status)))
}

/// The reason's token, else a status that is an error on this side.
fn error_type(token: &str, status: u16, errors_from: u16) -> Option<KeyValue> {
    match token {
        "" if status >= errors_from => Some(text("error.type", &status.to_string())),
        token => some("error.type", token),
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn some(key: &str, value: &str) -> Option<KeyValue> {
    (!value.is_empty()).then(|| text(key, value))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn boolean(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

fn seconds(key: &str, ns: u64) -> KeyValue {
    attribute(key, Value::DoubleValue(ns as f64 / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_times_become_unix_times() {
        let now = clock_gettime(ClockId::Monotonic);
        let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let found = u128::from(wall_clock().unix_ns(now_ns));
        // The three clocks were read within this.
        assert!(found.abs_diff(unix) < 1_000_000_000, "{found} for {unix}");
    }
}
