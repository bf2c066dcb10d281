//! The checked configuration as the data path uses it: flat, indexed by id, nothing left to parse.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use rustls::pki_types::ServerName;

use crate::{
    policy::{
        auth::WayId,
        balance::{Balance, State},
        frames::FrameRates,
        passthrough::Names,
        permit::Gate,
        rewrite::Rewrite,
        route::{RouteId, RouteMatch, Router},
    },
    telemetry::trace::Sampling,
    wire::{HeadLimits, Reason, emit::Via, path::PathRules},
};

pub use crate::policy::client::ForwardedFields;
pub use access_log::{AccessLog, Destination, Statuses};
pub use acme::{ACME_TLS, AcmeIssuer, AcmeName, Ahead, Issued, Token};
pub use auth::{
    Authenticate, CONSUMER_FIELDS, ClaimField, ClientAuth, JwtWay, KeySource, Way, WayKind,
    basic_credential, form_coded,
};
pub use concurrency::{Concurrency, ConcurrencyId};
pub use consumers::{Accepted, BasicRule, CertificateNames, Consumers, KeyRule, Plan, User, Users};
pub use forward_auth::ServiceRule;
pub use introspection::{AskedProvider, IntrospectionRule};
pub use jwks::{Endpoints, Origin, Provider};
pub use oidc::LoginWay;
pub use policies::{ErrorFormat, Maintenance, Policies};
pub use rate_limits::{LimitId, QuotaStore, RateLimit, RouteLimits};
pub use redis::{FleetOrder, Redis, SharedLimit};
pub use signatures::{SecretEncoding, SignatureRule};
pub use tickets::SharedTickets;
pub use tls::{Certificates, Staple, TlsRule, UpstreamTls, dns_names, tickets};
pub use trace::{Export, Parent, ServerTiming, Tracing};

mod access_log;
pub mod acme;
mod auth;
mod concurrency;
mod consumers;
mod forward_auth;
mod introspection;
pub mod jwks;
pub mod oidc;
mod policies;
mod rate_limits;
pub mod redis;
mod signatures;
mod tickets;
mod tls;
mod trace;

/// The route of requests that the gateway makes itself.
pub const ASIDE: RouteId = RouteId::MAX;

/// Index of an upstream in `Snapshot::upstreams`.
pub type UpstreamId = u32;

/// One worker's copy of everything configured.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts loads of the configuration, from 1.
    pub generation: u64,
    pub runtime: Runtime,
    pub listeners: Vec<ListenerRule>,
    pub access_logs: Vec<AccessLog>,
    pub router: Router,
    /// By [`RouteId`].
    pub routes: Vec<Route>,
    /// How requests are forwarded that the gateway makes itself ([`ASIDE`]).
    pub aside: Box<Route>,
    /// By [`UpstreamId`].
    pub upstreams: Vec<Upstream>,
    /// Ways by which clients show who they are, by [`crate::policy::auth::WayId`].
    pub ways: Vec<Way>,
    pub consumers: Consumers,
    /// By [`LimitId`]; the quotas last.
    pub rate_limits: Vec<RateLimit>,
    /// Where they are shared.
    pub redis: Vec<Redis>,
    /// By [`ConcurrencyId`].
    pub concurrency: Vec<Concurrency>,
    /// Fixed at start.
    pub quota_store: QuotaStore,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub http2: Http2,
    pub forwarding: Forwarding,
    pub paths: PathRules,
    /// How errors are told where the route does not say it.
    pub errors: Option<ErrorFormat>,
    pub metrics: Metrics,
    /// `None`: nothing is traced.
    pub tracing: Option<Tracing>,
    pub server_timing: ServerTiming,
    pub admin: Admin,
    /// Names that certificates are got for, each once.
    pub acme: Vec<AcmeName>,
    /// Reload when the file changes, or one of `files`.
    pub reload_watch: bool,
    /// Files whose content is a part of this, and that others renew: certificates and keys.
    pub files: Vec<PathBuf>,
    /// What it was made from, for [`super::effective`]; nothing on the data path reads it.
    pub text: Arc<str>,
}

/// What is counted beyond the workers' own figures.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub enabled: bool,
    /// Routes, and endpoints, counted one by one.
    pub series_max: u32,
}

impl Snapshot {
    pub fn route(&self, id: RouteId) -> &Route {
        self.routes.get(id as usize).unwrap_or(&self.aside)
    }

    pub fn way(&self, id: WayId) -> &Way {
        &self.ways[usize::from(id)]
    }

    pub fn rate_limit(&self, id: LimitId) -> &RateLimit {
        &self.rate_limits[id as usize]
    }

    /// How errors of a route are told; `None`: as problems (RFC 9457).
    pub fn error_format(&self, route: Option<RouteId>) -> Option<&ErrorFormat> {
        let policies = route.and_then(|id| self.route(id).policies.policies());
        policies.and_then(|policies| policies.errors.as_ref()).or(self.errors.as_ref())
    }

    pub fn upstream(&self, id: UpstreamId) -> &Upstream {
        &self.upstreams[id as usize]
    }
}

/// Settings of the process, fixed at start.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub workers: Workers,
    pub io: Io,
    /// Submission queue entries of each worker's ring.
    pub ring_entries: u32,
    /// How long a worker looks for completions before it sleeps.
    pub spin: Duration,
    /// How long a drain may take before connections are cut.
    pub drain_timeout_ms: u64,
    /// How long an idle kept connection is left open while draining, so that a request already on
    /// its way is answered with `Connection: close`.
    pub drain_idle_ms: u64,
    /// How long the process is not ready before a drain begins.
    pub ready_delay_ms: u64,
    /// How long a new process may take to be ready in an upgrade.
    pub upgrade_timeout_ms: u64,
    /// A worker that makes no progress for this long is stuck.
    pub stuck_after_ms: u64,
}

/// Where the admin interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub bind: AdminBind,
    /// Of the Unix socket.
    pub mode: u32,
    /// What may only be read, over TCP.
    pub status_bind: Option<SocketAddr>,
    /// Names that it answers to, other than IP addresses and `localhost`; `*` is any.
    pub status_hosts: Vec<String>,
}

/// Configuration key `admin.bind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBind {
    /// Where it is usual for the process and its user; without it, if it cannot be had there.
    Auto,
    Off,
    Unix(PathBuf),
}

/// Configuration key `runtime.workers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One per core this process may use (affinity and cgroup quota).
    Auto,
    Count(u32),
    /// One on each of these cores.
    Cores(Vec<u32>),
}

/// Configuration key `runtime.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// io_uring, or epoll where the kernel or the container refuses it.
    Auto,
    IoUring,
    Epoll,
}

#[derive(Clone, Debug)]
pub struct ListenerRule {
    pub name: String,
    pub bind: Bind,
    pub backlog: u32,
    pub half_close: HalfClose,
    pub balance: ListenerBalance,
    /// Its exchanges are in the access logs.
    pub access_log: bool,
    pub proxy_protocol: ProxyProtocol,
    pub http2: Http2Use,
    /// What is answered before anything is routed: redirects to https, and what an authority asks
    /// for.
    pub ahead: Option<Arc<Ahead>>,
    /// Clients speak TLS.
    pub tls: Option<TlsRule>,
    /// TLS is not ended here: each connection goes to the upstream of the name it asks for.
    pub passthrough: Option<Names>,
}

impl ListenerRule {
    /// Clients speak HTTP without TLS.
    pub fn speaks_plainly(&self) -> bool {
        self.tls.is_none() && self.passthrough.is_none()
    }

    /// Nothing comes before the first request, and that is of HTTP/1.1, or says itself that it is
    /// of HTTP/2.
    pub fn begins_with_http1(&self) -> bool {
        self.speaks_plainly() && self.http2 != Http2Use::Only
    }

    /// A socket bound for one of them serves the other.
    pub fn is_same_socket(&self, other: &ListenerRule) -> bool {
        match (&self.bind, &other.bind) {
            // Two listeners on a port of the system's choice are different sockets.
            (Bind::Tcp(a), Bind::Tcp(b)) => a == b && (a.port() != 0 || self.name == other.name),
            (Bind::Unix { path: a, .. }, Bind::Unix { path: b, .. }) => a == b,
            _ => false,
        }
    }
}

/// Whether connections begin with a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    Off,
    /// Those of trusted proxies may.
    Optional,
    /// All do, and only trusted proxies connect.
    Required,
}

/// Whether clients may speak HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Use {
    /// Beside HTTP/1.1.
    On,
    Off,
    /// And nothing else.
    Only,
}

/// What connections to an upstream begin with (PROXY protocol).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    #[default]
    Off,
    V1,
    V2,
}

/// Which worker serves a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerBalance {
    /// The one that the kernel gives it to.
    Kernel,
    /// The one with the fewest.
    Even,
}

/// What a client's FIN while its response is pending means. A half-closed connection and one that
/// was closed for good look alike until something is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClose {
    /// The client only stopped sending: it gets its answer.
    Answer,
    /// The client is gone: the exchange ends and its upstream connection is freed.
    Abort,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    Tcp(SocketAddr),
    Unix { path: PathBuf, mode: u32 },
}

#[derive(Clone, Debug)]
pub struct Route {
    pub name: String,
    pub action: Action,
    pub rewrite: Rewrite,
    /// Bytes of a request body; a larger one is refused before the upstream is touched.
    pub body_bytes_max: u64,
    /// From the request's head to the last byte of the response; `None` is no bound.
    pub timeout_ms: Option<u64>,
    /// Whether `Upgrade` (WebSocket and others) may pass.
    pub upgrade: bool,
    /// An end of a WebSocket that has been silent for so long is asked; `None`: nobody is.
    pub websocket_ping_ms: Option<u64>,
    /// Calls of gRPC-Web are forwarded as gRPC.
    pub grpc_web: bool,
    /// Tries in all, the first included.
    pub tries_max: u8,
    /// The path it is for, as configured; `/` when any.
    pub pattern: String,
    /// Clients that showed no certificate are refused.
    pub needs_certificate: bool,
    /// Share of its exchanges that are recorded, where it is not the usual one.
    pub trace_sampling: Option<Sampling>,
    /// What is asked of its requests beside.
    pub policies: Gate<Policies>,
    /// Its exchanges are in the access logs, where the listener's are.
    pub access_log: bool,
}

impl Route {
    /// Of requests that the gateway makes itself: they go as they are, where whoever makes them
    /// says.
    pub fn aside(policies: Gate<Policies>) -> Route {
        Route {
            name: String::new(),
            action: Action::Forward(0),
            rewrite: Rewrite::default(),
            body_bytes_max: 0,
            timeout_ms: None,
            upgrade: false,
            grpc_web: false,
            tries_max: 2,
            pattern: String::new(),
            needs_certificate: false,
            trace_sampling: None,
            policies,
            websocket_ping_ms: None,
            access_log: false,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Action {
    Forward(UpstreamId),
    Respond(Respond),
    Redirect(Redirect),
}

/// A fixed response.
#[derive(Clone, Debug)]
pub struct Respond {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

/// A redirect; parts left `None` are the request's own.
#[derive(Clone, Debug)]
pub struct Redirect {
    pub status: u16,
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// Path: kept, prefix replaced, or a template, exactly as for forwarding.
    pub path: crate::policy::rewrite::PathRewrite,
    pub keep_query: bool,
}

#[derive(Clone, Debug)]
pub struct Upstream {
    pub name: String,
    pub endpoints: Vec<Endpoint>,
    pub balance: Balance,
    pub connect_timeout_ms: u64,
    /// From the request sent to the first byte of the response.
    pub first_byte_timeout_ms: u64,
    /// Between two reads or writes of a body.
    pub idle_timeout_ms: u64,
    /// Idle connections kept per worker and endpoint.
    pub pool_idle_max: u32,
    pub pool_idle_timeout_ms: u64,
    /// A connection older than this serves no further request.
    pub pool_lifetime_ms: u64,
    /// How long an endpoint that refused a connection is avoided while others are left.
    pub connect_cooldown_ms: u64,
    /// Its endpoints speak TLS.
    pub tls: Option<UpstreamTls>,
    pub protocol: Protocol,
    /// Each connection begins with this header, and serves one client's connection only.
    pub proxy_header: ProxyHeader,
    pub http2: UpstreamHttp2,
}

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2, over TLS where there is TLS.
    Http2,
    /// Over TLS: what the endpoint chooses.
    Either,
}

/// HTTP/2 to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamHttp2 {
    /// Of one connection.
    pub streams_max: u32,
    /// For each worker and endpoint, not counting those that take no new streams.
    pub connections_max: u32,
    /// Receive window of one stream.
    pub window_bytes: u32,
    /// 0: no pings.
    pub ping_interval_ms: u64,
    pub ping_timeout_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As written: `10.0.0.1:80`, `app.internal:80`, `unix:/run/app.sock`.
    pub name: String,
    pub address: EndpointAddress,
    /// What its certificate must be for, where TLS is spoken to it.
    pub server_name: Option<ServerName<'static>>,
    /// At least 1. The operator's, where `ringway endpoint` gave another than the file.
    pub weight: u32,
    /// The file's.
    pub weight_configured: u32,
    /// Up, unless `ringway endpoint` said otherwise; no file says so.
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointAddress {
    /// Addresses of one name, tried in order.
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub head: HeadLimits,
    /// Open client connections of one worker.
    pub connections_per_worker_max: u32,
    /// Open client connections of the process.
    pub connections_max: u32,
    /// Requests one client connection may make before it is closed.
    pub requests_per_connection_max: u32,
    /// Interim (1xx) responses accepted before a final one.
    pub interim_responses_max: u32,
    /// Bytes of one relay buffer of a body.
    pub relay_buffer_bytes: u32,
    /// Bytes of one relay buffer of a body over 1 MiB.
    pub relay_buffer_large_bytes: u32,
    /// Bytes of a pipe for response bodies that are spliced; 0: none are.
    pub splice_bytes: u32,
    /// Bytes that may wait unsent in the kernel, for each connection.
    pub unsent_bytes: u32,
    /// Slowest a client may send or read a body, in bytes per second, after a grace; 0 is off.
    pub client_rate_min: u32,
}

/// Bounds on an HTTP/2 connection of a client.
#[derive(Clone, Copy, Debug)]
pub struct Http2 {
    pub streams_max: u32,
    pub stream_window_bytes: u32,
    pub connection_window_bytes: u32,
    /// For each worker.
    pub stalled_bytes: u64,
    pub rates: FrameRates,
}

/// Waits for the client, in milliseconds.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From a request's first byte (or the connection's start) to the end of its head.
    pub head_ms: u64,
    /// Between two reads of a request body.
    pub body_ms: u64,
    /// Between two writes of a response to a client that does not read.
    pub write_ms: u64,
    /// Between a response and the next request.
    pub keep_alive_ms: u64,
    /// After this much idle time a kept connection gives its buffer back.
    pub park_ms: u64,
    /// How long the rest of a refused request body is read and discarded before closing.
    pub linger_ms: u64,
    /// Silence on a tunnel (WebSocket, any 101).
    pub tunnel_idle_ms: u64,
    /// From a tunnel's beginning to its end; `None` is no bound.
    pub tunnel_lifetime_ms: Option<u64>,
}

/// Which fields tell the upstream about the client.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// Peers whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    pub fields: ForwardedFields,
    pub via: Via,
    pub request_id: RequestId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestId {
    /// Keep a valid X-Request-Id of the client, else make one.
    Keep,
    /// Always make one.
    Make,
    Off,
}

/// The request as a [`Redirect`] sees it.
#[derive(Clone, Copy, Debug)]
pub struct RedirectedRequest<'a> {
    pub scheme: &'a str,
    /// `host[:port]`; empty when the request has none, and then the location is relative.
    pub authority: &'a [u8],
    pub forward_path: &'a [u8],
    pub query: Option<&'a [u8]>,
    pub matched: &'a RouteMatch,
    pub matched_path: &'a [u8],
}

impl Redirect {
    /// Appends the value of the Location field (RFC 9110 §10.2.2): relative unless scheme, host or
    /// port are to change. Another scheme or host does not keep the port this request came to.
    /// Refused when the path cannot be made safely; `out` is then of no use.
    pub fn location(
        &self,
        request: &RedirectedRequest<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), &'static Reason> {
        self.origin(request, out);
        self.path.apply(request.forward_path, request.matched, request.matched_path, out)?;
        if let Some(query) = request.query.filter(|_| self.keep_query) {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        Ok(())
    }

    fn origin(&self, request: &RedirectedRequest<'_>, out: &mut Vec<u8>) {
        let (own_host, _) = split_port(request.authority);
        let host = self.host.as_ref().map_or(own_host, |host| host.as_bytes());
        let is_same = self.scheme.is_none() && self.host.is_none() && self.port.is_none();
        if is_same || host.is_empty() {
            return;
        }
        out.extend_from_slice(self.scheme.as_deref().unwrap_or(request.scheme).as_bytes());
        out.extend_from_slice(b"://");
        out.extend_from_slice(host);
        // The port received belongs to the old scheme and host.
        if let Some(port) = self.port {
            out.extend_from_slice(format!(":{port}").as_bytes());
        }
    }
}

/// Host and port of `host[:port]`; the brackets of an IPv6 address stay.
pub fn split_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    match authority.iter().rposition(|b| *b == b':') {
        Some(colon) if !authority[colon..].contains(&b']') => {
            (&authority[..colon], Some(&authority[colon + 1..]))
        }
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::route::PARAMS_MAX, wire::Span};

    #[test]
    fn locations() {
        let to = |scheme: &str, host: &str, port: Option<u16>, keep_query| Redirect {
            status: 308,
            scheme: Some(scheme.to_owned()).filter(|text| !text.is_empty()),
            host: Some(host.to_owned()).filter(|text| !text.is_empty()),
            port,
            path: crate::policy::rewrite::PathRewrite::Keep,
            keep_query,
        };
        let matched = RouteMatch {
            route: 0,
            params: [Span::EMPTY; PARAMS_MAX],
            params_len: 0,
            prefix_len: 0,
        };
        for (rule, authority, expected) in [
            (to("", "", None, true), "a:8080", "/x?q"),
            (to("", "", None, false), "a:8080", "/x"),
            (to("https", "", None, true), "a:8080", "https://a/x?q"),
            (to("https", "", Some(8443), true), "a:8080", "https://a:8443/x?q"),
            (to("", "b", None, true), "a:8080", "http://b/x?q"),
            (to("", "", Some(81), true), "[::1]:8080", "http://[::1]:81/x?q"),
            (to("https", "", None, true), "[::1]", "https://[::1]/x?q"),
            (to("https", "", None, true), "", "/x?q"),
            (to("https", "b", None, true), "", "https://b/x?q"),
        ] {
            let request = RedirectedRequest {
                scheme: "http",
                authority: authority.as_bytes(),
                forward_path: b"/x",
                query: Some(b"q"),
                matched: &matched,
                matched_path: b"/x",
            };
            let mut location = Vec::new();
            assert_eq!(rule.location(&request, &mut location), Ok(()));
            assert_eq!(String::from_utf8_lossy(&location), expected, "{rule:?} {authority}");
        }
    }
}
