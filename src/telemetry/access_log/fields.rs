//! What can be logged of an exchange: the one list of fields, which formats, their check and
//! `docs/access-log.md` follow from. A released name never changes its meaning.

use std::fmt::Write;

use super::{Line, pen::Pen, side};

/// What a value is, in JSON's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    Integer,
    Boolean,
}

/// Whether a JSON line has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InJson {
    Always,
    /// Left out where there is no value.
    Known,
    /// For templates only.
    Never,
}

/// One field of the list.
#[derive(Debug)]
pub struct Rule {
    pub field: Field,
    /// In JSON, and in templates between `${` and `}`.
    pub name: &'static str,
    pub kind: Kind,
    pub in_json: InJson,
    pub meaning: &'static str,
}

macro_rules! fields {
    ($( $field:ident = $name:literal, $kind:ident, $in_json:ident, $meaning:literal; )+) => {
        /// Something that can be logged of an exchange.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $( #[doc = $meaning] $field, )+ }

        /// Every field, in the order of a JSON line.
        pub const FIELDS: &[Rule] = &[ $( Rule {
            field: Field::$field,
            name: $name,
            kind: Kind::$kind,
            in_json: InJson::$in_json,
            meaning: $meaning,
        } ),+ ];

        /// Writes the members of a JSON line. Written out field by field, so that the compiler
        /// knows lengths and kinds: a loop over the list takes twice the instructions.
        #[inline]
        pub(super) fn json_members(line: &Line<'_>, pen: &mut Pen<'_>) {
            $( if const { !matches!(InJson::$in_json, InJson::Never) } {
                let keys = [concat!(",\"", $name, "\":"), concat!(",\"", $name, "\":\"")];
                // The first of the list, which is always there, has no comma before it.
                let keys = match Field::$field {
                    Field::Time => [keys[0].split_at(1).1, keys[1].split_at(1).1],
                    _ => keys,
                };
                Field::$field.json_value(line).member(keys, pen);
            } )+
        }
    };
}

fields! {
    Time = "time", String, Always, "When the exchange ended: RFC 3339, UTC, with milliseconds.";
    Listener = "listener", String, Always, "Name of the listener the client came in by.";
    Client = "client", String, Known, "IP address of the client, as far as `forwarding.trusted_proxies` vouch for it. None on a Unix socket.";
    Peer = "peer", String, Known, "IP address of the other end of the connection. In JSON only where it is not the client's.";
    RequestId = "request_id", String, Known, "The exchange's X-Request-Id.";
    TraceId = "trace_id", String, Known, "Trace of the exchange (W3C Trace Context), where there is tracing, recorded or not.";
    SpanId = "span_id", String, Known, "The gateway's own span in that trace.";
    ClientCertSubject = "client_cert_subject", String, Known, "Subject of the client's verified certificate (RFC 4514): `CN=alice,O=Example`.";
    ClientCertFingerprint = "client_cert_fingerprint", String, Known, "SHA-256 of that certificate, in lower-case hexadecimal.";
    AuthBy = "auth", String, Known, "Way by which the request showed who it is from: a section's name, or `certificate`.";
    Subject = "subject", String, Known, "Who it is from, as that way verified it: `sub` of a token, subject of a certificate.";
    Consumer = "consumer", String, Known, "The consumer whose credentials it showed (docs/consumers.md).";
    Method = "method", String, Known, "Request method.";
    Host = "host", String, Known, "Host asked for, with its port if one was given; where TLS passes through, the name (SNI).";
    Target = "target", String, Known, "Path and query as received, or the whole request target where that is no path.";
    Protocol = "protocol", String, Known, "`HTTP/1.1` or `HTTP/1.0`; `TLS` where TLS passes through.";
    Referer = "referer", String, Known, "Field Referer of the request.";
    UserAgent = "user_agent", String, Known, "Field User-Agent of the request.";
    FirstLine = "first_line", String, Known, "First line of a request whose head was refused or did not arrive in time, as received, at most 1024 bytes. Such a line has no method, host, target and protocol.";
    Status = "status", Integer, Always, "Status of the response; 499 when the client left before it got one.";
    Route = "route", String, Known, "Name of the route.";
    Upstream = "upstream", String, Known, "Name of the upstream.";
    Endpoint = "endpoint", String, Known, "Endpoint of the last try.";
    Tries = "tries", Integer, Known, "Connections the request was sent on, where there is an upstream; 0 when none could be made.";
    Reused = "reused", Boolean, Known, "The last try went over a kept connection.";
    Duration = "duration_us", Integer, Always, "Microseconds from the request's complete head to the end of the exchange.";
    Overhead = "overhead_us", Integer, Known, "Microseconds of the gateway's own until the response began: the upstream's time and connecting left out.";
    Connect = "connect_us", Integer, Known, "Microseconds spent connecting to endpoints. None over a kept connection.";
    FirstByte = "first_byte_us", Integer, Known, "Microseconds from sending the request to the head of the upstream's response, of the last try.";
    Transfer = "transfer_us", Integer, Known, "Microseconds from the first bytes of the response sent to the end of the exchange.";
    RequestBytes = "request_bytes", Integer, Always, "Bytes of the request's body, without framing; of a tunnel, bytes from the client.";
    ResponseBytes = "response_bytes", Integer, Always, "Bytes of the response's body, without framing; of a tunnel, bytes to the client.";
    SentBytes = "sent_bytes", Integer, Always, "All bytes sent to the client: heads, framing, body.";
    Side = "side", String, Known, "Who is behind `reason`: `client`, `upstream` or `gateway`.";
    Reason = "reason", String, Known, "Why the gateway refused the exchange or cut it off: a token of docs/reasons.md. None when a complete response was relayed or configured.";
    Shadow = "shadow", String, Known, "Why a policy in shadow mode would have refused the exchange: a token of docs/reasons.md. The first one, where there are several.";
    TimeClf = "time_clf", String, Never, "As `time`, in the Common Log Format: `21/Nov/2026:16:23:47 +0000`.";
    TimeMs = "time_unix_ms", Integer, Never, "As `time`, in milliseconds since 1970.";
    RequestLine = "request_line", String, Never, "Method, target and protocol as in a request line; the `first_line` where there are none.";
    Worker = "worker", Integer, Never, "Number of the worker, from 0.";
    Generation = "generation", Integer, Never, "Number of the configuration that was in force, from 1.";
}

/// A value of a line.
pub(super) enum Value<'a> {
    None,
    /// Somebody else's words.
    Text(&'a [u8]),
    /// The gateway's own, which need no escaping.
    Own(&'a [u8]),
    Number(u64),
    Flag(bool),
    /// Put together from several.
    RequestLine,
}

impl Field {
    /// The field called `name`.
    pub fn named(name: &str) -> Option<Field> {
        FIELDS.iter().find(|rule| rule.name == name).map(|rule| rule.field)
    }

    pub(super) fn kind(self) -> Kind {
        FIELDS.iter().find(|rule| rule.field == self).map_or(Kind::String, |rule| rule.kind)
    }

    /// The value in a JSON line.
    #[inline(always)]
    fn json_value<'a>(self, line: &Line<'a>) -> Value<'a> {
        match self {
            Field::Peer if line.peer == line.client => Value::None,
            _ => self.value(line),
        }
    }

    #[inline(always)]
    pub(super) fn value<'a>(self, line: &Line<'a>) -> Value<'a> {
        let micros = |ns: u64| Value::Number(ns / 1000);
        let known_micros = |ns: Option<u64>| ns.map_or(Value::None, micros);
        let is_forwarded = !line.upstream.is_empty();
        let of_forwarded = |value| if is_forwarded { value } else { Value::None };
        let request = line.request.as_ref();
        let of_request = |text: fn(&super::Request<'a>) -> &'a [u8]| {
            request.map_or(Value::None, |request| known(text(request)))
        };
        match self {
            Field::Time => Value::Own(line.time.rfc3339()),
            Field::Listener => known(line.listener.as_bytes()),
            Field::Client => own(line.client),
            Field::Peer => own(line.peer),
            // Made here, or of harmless characters (`request_id::may_keep`).
            Field::RequestId => own(line.request_id),
            Field::TraceId => own(line.trace_id),
            Field::SpanId => own(line.span_id),
            Field::ClientCertSubject => known(line.client_cert_subject.as_bytes()),
            Field::AuthBy => known(line.auth_by.as_bytes()),
            Field::Consumer => known(line.consumer.as_bytes()),
            Field::Subject => known(line.subject.as_bytes()),
            Field::ClientCertFingerprint => own(line.client_cert_fingerprint.as_bytes()),
            // A token, RFC 9110 §5.6.2: it has no character that is special here.
            Field::Method => request.map_or(Value::None, |request| own(request.method)),
            Field::Host => of_request(|request| request.host),
            Field::Target => of_request(|request| request.target),
            Field::Protocol => request.map_or(Value::None, |r| own(r.protocol.as_bytes())),
            Field::Referer => of_request(|request| request.referer),
            Field::UserAgent => of_request(|request| request.user_agent),
            Field::FirstLine if request.is_some() => Value::None,
            Field::FirstLine => known(line.first_line),
            Field::Status => Value::Number(u64::from(line.status)),
            Field::Route => known(line.route.as_bytes()),
            Field::Upstream => known(line.upstream.as_bytes()),
            Field::Endpoint => known(line.endpoint.as_bytes()),
            Field::Tries => of_forwarded(Value::Number(u64::from(line.tries))),
            Field::Reused if line.tries == 0 => Value::None,
            Field::Reused => Value::Flag(line.reused),
            Field::Duration => micros(line.duration_ns),
            Field::Overhead => known_micros(line.overhead_ns),
            Field::Connect if line.connect_ns == 0 => Value::None,
            Field::Connect => micros(line.connect_ns),
            Field::FirstByte => known_micros(line.first_byte_ns),
            Field::Transfer => known_micros(line.transfer_ns),
            Field::RequestBytes => Value::Number(line.request_bytes),
            Field::ResponseBytes => Value::Number(line.response_bytes),
            Field::SentBytes => Value::Number(line.sent_bytes),
            Field::Side => line.reason.map_or(Value::None, |r| Value::Own(side(r).as_bytes())),
            Field::Reason => line.reason.map_or(Value::None, |r| Value::Own(r.token.as_bytes())),
            Field::Shadow => line.shadow.map_or(Value::None, |r| Value::Own(r.token.as_bytes())),
            Field::TimeClf => Value::Own(line.time.clf()),
            Field::TimeMs => Value::Number(line.time.unix_ms()),
            Field::RequestLine if request.is_some_and(|request| !request.method.is_empty()) => {
                Value::RequestLine
            }
            Field::RequestLine => known(line.first_line),
            Field::Worker => Value::Number(line.worker as u64),
            Field::Generation => Value::Number(line.generation),
        }
    }
}

#[inline]
fn known(text: &[u8]) -> Value<'_> {
    if text.is_empty() { Value::None } else { Value::Text(text) }
}

#[inline]
fn own(text: &[u8]) -> Value<'_> {
    if text.is_empty() { Value::None } else { Value::Own(text) }
}

const PAGE_HEAD: &str = "\
# Access log

<!-- Made from src/telemetry/access_log/; `RINGWAY_BLESS=1 cargo test --test config` writes it
anew. -->

Every `[[access_logs]]` of the configuration ([its keys](configuration.md)) is one stream of lines,
one line for each exchange, written when the exchange has ended: a WebSocket's when it closes. What
is refused is logged too, also what is no well-formed request. A connection whose TLS passes through
(`listeners.passthrough`) is one line, with status 200 when an endpoint was connected. Not logged: connections on which no
byte of a request came, and those turned away because there were too many.

A worker never waits for a log. Its lines wait in memory, at most `buffer` of them for each worker
and log; what finds no room is dropped and counted, and `dropped` is logged with the reason. Lines
written and lines dropped together are the exchanges that were to be logged.

- `format = \"json\"`: one JSON object on each line (RFC 8259) with the fields below, in this order.
  Fields may be added; none is renamed, and none changes its type, unit or meaning.
- `format = \"combined\"`: the combined format of NGINX and Apache, in UTC:
  `${client} - - [${time_clf}] \"${request_line}\" ${status} ${response_bytes} \"${referer}\"
  \"${user_agent}\"`.
- `format = { template = \"...\" }`: text with `${name}` for any field below; `$$` is a dollar sign.

In combined lines and templates a field without value is `-`, and quotation marks, backslashes,
control characters and all that is not ASCII in a value are `\\xHH`. With
`format = { template = \"...\", escape = \"json\" }` values are written for use between the
quotation marks of a JSON string; a field without value is then nothing, or `null` when it is a
number or true or false. A value longer than 8192 bytes is cut and ends in `...`.

SIGUSR1 makes Ringway open its log files anew, for rotation: rename the file, then send the signal.
A file that Ringway makes has mode 0640. A FIFO may be named as a file too: it needs no reader.

On a full disk the lines that are not written whole are dropped; the part of a line that was written
is taken away again. Ringway goes on writing as soon as there is room. Lines wait for a reader of
standard output, a FIFO or a Unix socket that does not read, and are dropped while there is none. A
line that a Unix socket or UDP does not take because it is too long is dropped. UDP does not tell
whether a line arrived: it counts as written when it was sent.

A Unix socket of syslog gets what syslog(3) sends, `<190>ringway[PID]: LINE`, since the daemons that
listen there expect that; the time is theirs. `syslog:udp://` sends RFC 5424 with facility local7 and
severity informational.

| field | type | in JSON | meaning |
|---|---|---|---|
";

/// `docs/access-log.md`.
pub fn reference() -> String {
    let mut page = PAGE_HEAD.to_owned();
    for Rule { name, kind, in_json, meaning, .. } in FIELDS {
        let kind = match kind {
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Boolean => "boolean",
        };
        let in_json = match in_json {
            InJson::Always => "always",
            InJson::Known => "where known",
            InJson::Never => "no, only in templates",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{name}` | {kind} | {in_json} | {meaning} |");
    }
    page
}
