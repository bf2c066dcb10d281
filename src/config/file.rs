//! The configuration as written: every section, key, default, minimum and maximum.
//!
//! This is the only place where they are defined; the decoder, the JSON Schema,
//! `docs/configuration.md` and `config/reference.toml` follow from it. The comments here are what
//! operators read.

use super::{
    decode::Named,
    snapshot::{
        AdminBind, ForwardedFields, HalfClose, Http2Use, Io, ListenerBalance, Parent,
        ProxyProtocol, RequestId, ServerTiming, Workers,
    },
    units::{
        Micros, Millis, MillisOrOff, Size, bytes, gib, hours, kib, mib, micros, millis, minutes,
        seconds,
    },
    values::{
        BindAddress, ClientCertificate, CollectorUrl, EncodedSlash, FieldValue, FileMode,
        HostPattern, LogFormat, LogTarget, Name, Network, Pseudonym, Ratio, Secret, StatusHost,
        StatusRange, TcpAddress, TlsKernel, TlsVersion,
    },
};
use crate::{config::decode::At, section};

pub use acme::{Acme, ExternalAccount};
pub use addresses::{AddressList, Addresses};
pub use authorization::{AuthorizationRule, AuthorizeEntry, AuthorizeKey, RuleSet, Times};
pub use compress::{Compress, Decompress};
pub use concurrency::Concurrency;
pub use consumers::{ApiKeys, Basic, Consumer, Plan};
pub use forward_auth::ForwardAuth;
pub use introspection::Introspection;
pub use jwt::Jwt;
pub use oidc::Oidc;
pub use openapi::{OpenApi, Undescribed};
pub use policies::{Errors, Maintenance, MaintenancePage, PolicyKeys, PolicySet};
pub use quotas::{Quota, QuotaStore};
pub use rate_limits::{RateLimit, RateWindow};
pub use redis::{Redis, RedisTls};
pub use route::{Redirect, Respond, Route};
pub use signatures::{NONCES, SignatureKey, Signatures};
pub use transform::{
    CookieChanges, HeaderChanges, JsonStep, QueryChanges, TransformRequest, TransformResponse,
};
pub use upstream::{Pool, Upstream, UpstreamHttp2, UpstreamTls};
pub use validate::{Validate, ValidateParameter};
pub use web::{Cors, Csrf, Frames, SecurityHeaders, UpstreamCors, UserAgents};

mod acme;
mod addresses;
mod authorization;
mod compress;
mod concurrency;
mod consumers;
mod forward_auth;
mod introspection;
mod jwt;
mod oidc;
mod openapi;
mod policies;
mod quotas;
mod rate_limits;
mod redis;
mod route;
mod signatures;
mod transform;
mod upstream;
mod validate;
mod web;

/// Of a Unix socket whose listener gives no `mode`.
pub const UNIX_MODE_DEFAULT: u32 = 0o660;

/// Of a client address, where its rate is bounded.
pub const HANDSHAKE_BURST_DEFAULT: u32 = 50;

/// Largest request body that can be allowed, 16 TiB.
const BODY_MAX: Size = gib(16 << 10);

section! {
    /// A configuration file. Every section but `listeners` may be left out.
    pub struct File {
        /// Settings of the process, fixed at start.
        runtime: Runtime = Runtime::default();
        /// How the process ends.
        shutdown: Shutdown = Shutdown::default();
        /// Where clients connect.
        listeners: Vec<At<Listener>> = Vec::new();
        /// What is done with which request. The order matters only between routes whose conditions
        /// are equally specific: the first one wins.
        routes: Vec<At<Route>> = Vec::new();
        /// Documents that make routes and say what requests have to be like, by name. See
        /// docs/openapi.md.
        openapi: Named<OpenApi> = Named::default();
        /// Policies that several routes share, by name. See docs/policies.md.
        policies: Named<PolicySet> = Named::default();
        /// Lists of addresses that policies name.
        address_lists: Named<AddressList> = Named::default();
        /// Rules of authorisation that routes share, by name. See docs/authorization.md.
        authorization: Named<RuleSet> = Named::default();
        /// Who uses what is served here, by name. See docs/consumers.md.
        consumers: Named<Consumer> = Named::default();
        /// What consumers may use, by name. See docs/consumers.md.
        plans: Named<Plan> = Named::default();
        /// Ways to authenticate by an API key, by name. See docs/api-keys.md.
        api_keys: Named<ApiKeys> = Named::default();
        /// Ways to authenticate by a name and a password (HTTP Basic), by name. See
        /// docs/basic-auth.md.
        basic: Named<Basic> = Named::default();
        /// Ways to authenticate by signatures over requests, by name. See docs/signatures.md.
        signatures: Named<Signatures> = Named::default();
        /// Ways to authenticate by asking a service, by name. See docs/forward-auth.md.
        forward_auth: Named<ForwardAuth> = Named::default();
        /// Ways to authenticate by tokens that their provider is asked about, by name. See
        /// docs/introspection.md.
        introspection: Named<Introspection> = Named::default();
        /// How many requests may pass, by name. See docs/rate-limits.md.
        rate_limits: Named<RateLimit> = Named::default();
        /// Servers in which gateways share limits, by name. See docs/fleet-limits.md.
        redis: Named<Redis> = Named::default();
        /// How many requests may be in progress, by name. See docs/concurrency.md.
        concurrency: Named<Concurrency> = Named::default();
        /// How much may be used in a day or a month, by name. See docs/quotas.md.
        quotas: Named<Quota> = Named::default();
        /// Where it is kept what was used of quotas.
        quota_store: QuotaStore = QuotaStore::default();
        /// Ways to authenticate by JSON Web Tokens, by name. See docs/jwt.md.
        jwt: Named<Jwt> = Named::default();
        /// Ways to authenticate by a login at an OpenID provider, by name. See docs/oidc.md.
        oidc: Named<Oidc> = Named::default();
        /// Where requests are forwarded to, by name.
        upstreams: Named<Upstream> = Named::default();
        /// Bounds on what one client, or all of them, may use.
        limits: Limits = Limits::default();
        /// How long a client may take.
        timeouts: Timeouts = Timeouts::default();
        /// What upstreams are told about the client, and whom to believe about it.
        forwarding: Forwarding = Forwarding::default();
        /// Bounds on HTTP/2 connections of clients. See docs/http2.md.
        http2: Http2 = Http2::default();
        /// How request paths are read.
        paths: Paths = Paths::default();
        /// How clients are told errors of the gateway, where a route does not say it. Default: as
        /// problems (RFC 9457).
        errors: Option<Errors> = None, eg "{ body = '{\"code\": ${status}}' }";
        /// Where a line is written for each exchange; none when there are none. See
        /// docs/access-log.md.
        access_logs: Vec<At<AccessLog>> = Vec::new();
        /// What is measured.
        metrics: Metrics = Metrics::default();
        /// Distributed tracing. See docs/tracing.md.
        tracing: Tracing = Tracing::default();
        /// The admin interface, for `ringway status`, `reload` and the other commands.
        admin: Admin = Admin::default();
        /// When the configuration is read again.
        reload: Reload = Reload::default();
    }

    /// Settings of the process, fixed at start.
    pub struct Runtime {
        /// Worker threads: `"auto"` is one per core that this process may use (its CPU affinity
        /// and cgroup quota count), a number is that many, and `"0-7,16-23"` is one on each of
        /// these cores.
        workers: Workers = Workers::Auto;
        /// How sockets are driven. `"auto"` takes io_uring, or epoll where the kernel or the
        /// container refuses io_uring; the choice is logged.
        io: Io = Io::Auto;
        /// Submission queue entries of each worker's ring; a power of two.
        ring_entries: u32 = 4096 => 256..=32768;
        /// Before a worker sleeps, it looks for this long whether something comes: waking a core
        /// takes time. Latency falls, and a worker with some traffic takes its whole core. `"0us"`:
        /// it sleeps at once. Only on io_uring. See docs/performance.md.
        spin: Micros = micros(0) => micros(0)..=micros(1000);
        /// A worker that makes no progress for this long is reported as stuck, with what it was
        /// doing; meanwhile the process is not ready, and systemd's watchdog is not fed. A reload
        /// waits five times as long for a worker that does not answer.
        stuck_after: Millis = seconds(2) => millis(500)..=minutes(10);
    }

    /// How the process ends, or gives way to its successor: on SIGTERM or SIGINT it stops accepting
    /// and finishes what runs; on SIGUSR2 it starts the program again, hands its listening sockets
    /// over, and does the same when the new process serves.
    pub struct Shutdown {
        /// Before it stops accepting on SIGTERM or SIGINT, the process is not ready for this long,
        /// so that load balancers that ask can send clients elsewhere. A second signal ends the
        /// wait.
        ready_delay: Millis = seconds(0) => millis(0)..=minutes(10);
        /// After this long, connections still open are cut.
        drain_timeout: Millis = seconds(30) => millis(0)..=hours(24);
        /// How long an idle kept connection stays open meanwhile, so that a request already on its
        /// way is answered (with `Connection: close`). The same holds for the connections of a
        /// listener that a reload removes.
        drain_idle: Millis = seconds(1) => millis(0)..=minutes(10);
        /// How long a new process may take to be ready in an upgrade. Then it is killed, and this
        /// one serves on.
        upgrade_timeout: Millis = minutes(1) => millis(100)..=hours(1);
    }

    /// Where clients connect.
    pub struct Listener {
        /// For logs and metrics. Default: the text of `bind`.
        name: Option<Name> = None, eg "\"public\"";
        /// The address and port: `"0.0.0.0:8080"` for IPv4, `"[::]:8080"` for IPv6,
        /// `"unix:/run/ringway.sock"` for a Unix socket.
        bind: BindAddress, eg "\"0.0.0.0:8080\"";
        /// Permissions of a Unix socket, in octal. Default: `0660`, owner and group.
        mode: Option<FileMode> = None, eg "\"0660\"";
        /// Connections the kernel holds until a worker accepts them.
        backlog: u32 = 4096 => 1..=65535;
        /// What it means when a client shuts down its sending side while its response is pending:
        /// `"answer"` sends the response, `"abort"` takes the client for gone and frees the
        /// upstream.
        half_close: HalfClose = HalfClose::Answer;
        /// Which worker serves a connection: `"kernel"` leaves it to the kernel, which spreads
        /// them by a hash of the addresses; with `"even"` a worker that has more connections than
        /// another gives it the next one. For few, long-lived, busy connections, of which one
        /// worker may otherwise get most; short ones cost more by it. See docs/performance.md.
        balance: ListenerBalance = ListenerBalance::Kernel;
        /// Log its exchanges in every access log.
        access_log: bool = true;
        /// Whether connections begin with a PROXY protocol header (version 1 or 2), which says whom
        /// the proxy in front speaks for. `"required"`: all do, and whoever is not in
        /// `forwarding.trusted_proxies` is not served. `"optional"`: those of trusted proxies may.
        /// A peer on a Unix socket is trusted.
        proxy_protocol: ProxyProtocol = ProxyProtocol::Off;
        /// HTTP/2. `"on"`: over TLS it is offered first (ALPN), over plain TCP understood from
        /// clients that begin with it; HTTP/1.1 is served beside it. `"only"`: nothing else is.
        http2: Http2Use = Http2Use::On;
        /// Send every request to https at this port of the same host (308), whatever the routes
        /// say: for a plain listener beside one with `tls`.
        redirect_https: Option<u16> = None => Some(1)..=Some(65535), eg "443";
        /// Clients speak TLS here. Default: plain HTTP.
        tls: Option<ListenerTls> = None,
            eg "{ certificates = [{ file = \"tls/localhost.pem\", key = \"tls/localhost.key\" }] }";
        /// Do not end TLS here: pass each connection on as it is, to the upstream of the name that
        /// its client asks for (SNI). No route is looked at. See docs/tls.md.
        passthrough: Vec<At<Passthrough>> = Vec::new(),
            eg "[{ sni = [\"app.example.com\"], upstream = \"orders\" }]";
    }

    /// Where TLS connections go that are passed through.
    pub struct Passthrough {
        /// Names, exact (`"app.example.com"`) or with one leading wildcard (`"*.example.com"`); an
        /// exact one counts first, then the longest wildcard. Default: clients that ask for none of
        /// the listener's names, or for no name.
        sni: Vec<At<HostPattern>> = Vec::new();
        /// The upstream that gets them.
        upstream: Name, eg "\"orders\"";
    }

    /// TLS of a listener: versions 1.2 and 1.3. Its files are read when the configuration is
    /// loaded, and again by every reload; with `reload.watch` also when they change. Connections
    /// that are open keep what they have.
    pub struct ListenerTls {
        /// Certificates. The DNS names in them (`*.` stands for one label) say which one a client
        /// gets; one that asks for no name, or for one that none has, gets the first. A name may
        /// have two, with an ECDSA and an RSA key: the first that the client can verify is used.
        certificates: Vec<At<Certificate>> = Vec::new(),
            eg "[{ file = \"tls/localhost.pem\", key = \"tls/localhost.key\" }]";
        /// Get certificates for these names from an authority, such as Let's Encrypt, and renew
        /// them (ACME). See docs/acme.md.
        acme: Option<Acme> = None, eg "{ domains = [\"example.com\"], agree_tos = true }";
        /// Oldest version that clients may speak.
        min_version: TlsVersion = TlsVersion::V12;
        /// Have the kernel seal and open the records of connections, so that large bodies pass as
        /// they do without TLS. `"auto"`: where it offers all of that (Linux 6.14, module `tls`);
        /// elsewhere nothing changes, and the log and `ringway status` say what is missing. See
        /// docs/tls.md.
        kernel: TlsKernel = TlsKernel::Off;
        /// From the connection to the end of its handshake; then it is closed.
        handshake_timeout: Millis = seconds(10) => millis(10)..=minutes(10);
        /// Handshakes that one client address (IPv6: one /64) may begin in a second, in all workers
        /// together; more are closed before anything is computed. Default: any number.
        handshake_rate: Option<u32> = None => Some(1)..=Some(1_000_000), eg "20";
        /// With `handshake_rate`: so many at once.
        handshake_burst: u32 = HANDSHAKE_BURST_DEFAULT => 1..=1_000_000;
        /// Ask clients for a certificate of these authorities: a PEM file. Without it nobody is
        /// asked. Sessions are then not resumed, so that every connection is judged anew.
        client_ca: Option<String> = None, eg "\"tls/localhost.pem\"";
        /// With `client_ca`: `"required"` refuses clients that show none, `"optional"` serves them
        /// too. A certificate that is shown and not accepted is refused in any case.
        client_certificate: ClientCertificate = ClientCertificate::Required;
        /// With `client_ca`: files (PEM or DER) with lists of revoked certificates (CRL), one for
        /// every authority in a client's chain. A list that is out of its time refuses everybody it
        /// is for, until a reload reads a new one.
        client_crls: Vec<At<String>> = Vec::new();
        /// With `client_ca`: tell upstreams the client's certificate in the field Client-Cert
        /// (RFC 9440). What clients write into that field is removed in any case.
        client_cert_field: bool = true;
        /// Session tickets that a fleet shares: a file with one secret on each line, 32 bytes or
        /// more in hex or base64 (`openssl rand -hex 32`). The first seals new tickets, all of them
        /// are taken back. Default: secrets of the process's own, which end with it.
        ticket_secrets: Option<String> = None, eg "\"tls/tickets.secret\"";
        /// Tell browsers to come back over TLS only, for this long (Strict-Transport-Security),
        /// unless the upstream says it itself.
        hsts: Option<Millis> = None => Some(seconds(0))..=Some(hours(24 * 3650)), eg "\"365d\"";
        /// With `hsts`: also to every name below this one.
        hsts_subdomains: bool = false;
    }

    /// A certificate and its key.
    pub struct Certificate {
        /// PEM file with the certificate first and then those that issued it, without the root.
        /// Relative to this configuration.
        file: String, eg "\"tls/localhost.pem\"";
        /// PEM file with its private key: PKCS#8, SEC1 or PKCS#1, not encrypted.
        key: String, eg "\"tls/localhost.key\"";
        /// What its authority says of it (OCSP): a file in DER that clients who ask are shown with
        /// the certificate. Read again as the certificate is, and shown no longer than it is valid.
        ocsp: Option<String> = None;
    }

    /// Bounds on what one client, or all of them, may use.
    pub struct Limits {
        /// A request's head: request line and fields. Larger is refused with 431.
        head: Size = kib(32) => kib(1)..=mib(1);
        /// The request target (path and query). Longer is refused with 414.
        target: Size = kib(8) => bytes(64)..=mib(1);
        /// Field lines of a request. More are refused with 431.
        fields: u16 = 100 => 8..=256;
        /// A request's body, where the route does not say otherwise. Larger is refused with 413.
        body: Size = gib(1) => bytes(0)..=BODY_MAX;
        /// Open client connections of the process. Further ones get 503.
        connections: u32 = 20_000 => 1..=10_000_000;
        /// Open client connections of one worker. Further ones get 503.
        connections_per_worker: u32 = 10_000 => 1..=10_000_000;
        /// Requests on one client connection before it is closed.
        requests_per_connection: u32 = 100_000 => 1..=4_294_967_295;
        /// Interim responses (1xx) an upstream may send before the final one.
        interim_responses: u32 = 16 => 0..=1000;
        /// Buffer for relaying a body, one for each direction in use.
        relay_buffer: Size = kib(64) => kib(4)..=mib(16);
        /// The same for a body over 256 KiB.
        relay_buffer_large: Size = kib(256) => kib(4)..=mib(16);
        /// The kernel moves response bodies of known length, of which 32 KiB or more are still to
        /// come, from socket to socket through a pipe of this size (splice), instead of copying
        /// them through a relay buffer. A worker has at most 64 pipes; what gets none is copied,
        /// also where the system refuses one (/proc/sys/fs/pipe-user-pages-soft). `"0B"`: never.
        splice: Size = mib(1) => bytes(0)..=mib(16);
        /// Bytes that may wait unsent in the kernel, for each connection: a peer that reads slowly
        /// has no more read for it from the other side.
        unsent: Size = kib(256) => kib(16)..=mib(64);
        /// Slowest a client may send or read a body, each second, after a grace. `"0B"` is no
        /// bound.
        client_rate_min: Size = bytes(240) => bytes(0)..=mib(100);
    }

    /// How long a client may take.
    pub struct Timeouts {
        /// From a request's first byte (or the connection's start) to the end of its head; then
        /// 408.
        head: Millis = seconds(10) => millis(1)..=hours(1);
        /// Between two reads of a request's body; then 408.
        body: Millis = seconds(30) => millis(1)..=hours(24);
        /// Between two writes of a response to a client that does not read.
        write: Millis = seconds(30) => millis(1)..=hours(24);
        /// Between a response and the next request.
        keep_alive: Millis = seconds(75) => millis(0)..=hours(24);
        /// After this much idle time a kept connection gives its buffer back.
        park: Millis = seconds(2) => millis(1)..=hours(1);
        /// How long the rest of a refused body is read and thrown away before closing, so that the
        /// client sees the response.
        linger: Millis = seconds(2) => millis(0)..=minutes(10);
        /// Silence on a tunnel (WebSocket, any 101), both ways, and in a call of gRPC.
        tunnel_idle: Millis = minutes(5) => millis(1)..=hours(24 * 30);
        /// From the beginning of a tunnel to its end, whatever passes. `"0"` is no bound.
        tunnel_lifetime: MillisOrOff = MillisOrOff(None)
            => MillisOrOff(Some(millis(1)))..=MillisOrOff(Some(hours(24 * 30)));
        /// An end of a WebSocket that has sent nothing for this long gets a Ping frame; one that
        /// then sends nothing for as long again is gone, and the tunnel ends. `"0"`: nobody is
        /// asked.
        websocket_ping: MillisOrOff = MillisOrOff(None)
            => MillisOrOff(Some(millis(100)))..=MillisOrOff(Some(hours(24)));
    }

    /// Bounds on an HTTP/2 connection of a client. What goes beyond the last two ends it, with
    /// ENHANCE_YOUR_CALM.
    pub struct Http2 {
        /// Requests that may be open at once.
        streams: u32 = 128 => 1..=10_000;
        /// Bytes of a request's body that the client may send before the upstream has taken them.
        stream_window: Size = kib(256) => bytes(65_535)..=mib(16);
        /// The same for all requests of the connection together.
        connection_window: Size = mib(1) => bytes(65_535)..=mib(256);
        /// Bytes that one worker may hold for clients that do not take their responses. Beyond it,
        /// connections that have taken nothing for 5 seconds are ended, the longest ones first.
        stalled: Size = mib(16) => kib(64)..=mib(65_536);
        /// Requests that the client may give up (RST_STREAM), each second, beside every second one
        /// that it makes; at once, as many as in two seconds.
        resets_per_second: u32 = 200 => 1..=1_000_000;
        /// Frames that bring nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, data of less than 5
        /// bytes), each second, beside those that come with requests and data; at once, as many as
        /// in two seconds.
        control_frames_per_second: u32 = 1000 => 10..=1_000_000;
    }

    /// What upstreams are told about the client, and whom to believe about it.
    pub struct Forwarding {
        /// Networks of proxies in front of this one, whose forwarding fields are believed. From
        /// anybody else those fields are removed.
        trusted_proxies: Vec<At<Network>> = Vec::new();
        /// Which fields are sent: `"x-forwarded"` (X-Forwarded-For, -Proto, -Host), `"forwarded"`
        /// (RFC 7239) or `"off"`.
        fields: ForwardedFields = ForwardedFields::XForwarded;
        /// This gateway's name in the Via field; `""` sends none.
        via: Pseudonym = Pseudonym("ringway".to_owned());
        /// X-Request-Id: `"keep"` the client's when valid, else make one; always `"make"` one; or
        /// `"off"`.
        request_id: RequestId = RequestId::Keep;
    }

    /// An access log. At most 8. A reload keeps one whose `name` and `to` stay.
    pub struct AccessLog {
        /// For logs and metrics. Default: the text of `to`.
        name: Option<Name> = None, eg "\"main\"";
        /// Where lines go: `"stdout"`; `"file:/var/log/access.log"` (opened anew on SIGUSR1);
        /// `"unix:/run/log.sock"`, a datagram for each line; `"syslog:/dev/log"`, the syslog of
        /// this machine; or `"syslog:udp://192.0.2.1:514"` (RFC 5424).
        to: LogTarget, eg "\"stdout\"";
        /// How lines look: `"json"`, `"combined"` (as NGINX and Apache write it), or
        /// `{ template = "${client} ${status} ${target}" }`.
        format: LogFormat = LogFormat::Json;
        /// Share of the exchanges that are logged, taken at random, of those that pass the filters:
        /// 0.01 is one in a hundred.
        sample: Ratio = Ratio(1.0);
        /// Filter: only exchanges with one of these statuses, such as `["4xx", "503"]`. With
        /// `slower_than` too, one of both suffices. Default: any.
        status: Vec<At<StatusRange>> = Vec::new();
        /// Filter: only exchanges that took longer than this.
        slower_than: Option<Millis> = None => Some(millis(0))..=Some(hours(24)), eg "\"1s\"";
        /// Lines that may wait in memory, for each worker. What finds no room is dropped, and how
        /// much that was is logged.
        buffer: Size = mib(1) => kib(64)..=gib(1);
    }

    /// How request paths are read.
    pub struct Paths {
        /// `%2F` and `%5C` in a path: `"refuse"` with 400, since upstreams read them differently,
        /// or `"keep"` as ordinary text.
        encoded_slash: EncodedSlash = EncodedSlash::Refuse;
    }

    /// What is measured. Every worker counts for itself and shares nothing; see docs/metrics.md.
    pub struct Metrics {
        /// Durations, and figures by route, upstream and endpoint. Off, only each worker's
        /// requests, connections, bytes and refusals are counted.
        enabled: bool = true;
        /// Routes, and endpoints, that have figures of their own; those beyond are counted together
        /// as `(other)`.
        series: u32 = 1000 => 1..=100_000;
    }

    /// Distributed tracing: W3C Trace Context with clients and upstreams, spans sent to a
    /// collector by OTLP (HTTP with protobuf).
    pub struct Tracing {
        /// URL of the collector, an OpenTelemetry Collector, Jaeger or Tempo. Without it nothing is
        /// traced, and `traceparent` and `tracestate` pass unchanged.
        endpoint: Option<CollectorUrl> = None, eg "\"http://127.0.0.1:4318/v1/traces\"";
        /// Share of the exchanges that are recorded: 0.01 is one in a hundred, which shows what is
        /// slow at a cost nobody notices. By trace id, so that gateways agree.
        sample: Ratio = Ratio(0.01);
        /// Who decides about a trace that a caller began. `"follow"`: its sampled flag, if it comes
        /// from one of `forwarding.trusted_proxies`; anybody else could have everything recorded,
        /// so theirs counts for nothing. `"ignore"`: always `sample`. The trace is continued in any
        /// case.
        parent: Parent = Parent::Follow;
        /// The gateway's name in traces.
        service_name: Name = Name("ringway".to_owned());
        /// Fields for the collector, such as `{ Authorization = "Bearer ..." }`. Their values are
        /// secrets: where the configuration in force is shown, they are not.
        headers: Named<Secret<FieldValue>> = Named::default();
        /// Recorded exchanges that may wait to be sent, for each worker; one takes about 1 KiB.
        /// Further ones are dropped and counted; no request waits.
        queue: u32 = 2048 => 16..=65536;
        /// For one request to the collector.
        timeout: Millis = seconds(10) => millis(10)..=minutes(1);
        /// Tell clients in the field Server-Timing how long the gateway (`gw`), opening a
        /// connection (`con`) and the upstream (`up`) took: `"off"`, `"always"`, or `"sampled"`
        /// when the exchange is recorded.
        server_timing: ServerTiming = ServerTiming::Off;
    }

    /// The admin interface, for `ringway status`, `reload` and the other commands. See
    /// docs/admin.md.
    pub struct Admin {
        /// A Unix socket, `"unix:/run/ringway/admin.sock"`, or `"off"`. `"auto"` is `admin.sock` in
        /// the first of these folders: `$RUNTIME_DIRECTORY` (systemd sets it), `/run/ringway` where
        /// this process may write, `$XDG_RUNTIME_DIR/ringway`, `/tmp/ringway-UID`. With `"auto"`
        /// the gateway also runs without it, and warns, when another one has that socket.
        bind: AdminBind = AdminBind::Auto;
        /// Permissions of the socket, in octal. Whoever may write to it may change the gateway.
        mode: FileMode = FileMode(0o600);
        /// An IP address and port for what may only be read: the status page (`/`), `/livez`,
        /// `/readyz`, `/metrics` and `/status`. Anybody who reaches it may read; give it no public
        /// address.
        status_bind: Option<TcpAddress> = None, eg "\"127.0.0.1:9180\"";
        /// Names under which it may be asked there, with any port. IP addresses and `localhost`
        /// always may; other names are refused with 421, because a web page can have a name of its
        /// own lead here and read what the browser that shows it can reach. `"*"` is every name.
        status_hosts: Vec<At<StatusHost>> = Vec::new();
    }

    /// When the configuration is read again: always on SIGHUP and on `ringway reload`.
    pub struct Reload {
        /// Also when the file changes, or a certificate, key or list of a listener or upstream. A
        /// file with errors changes nothing, as always.
        watch: bool = false;
    }
}

/// Default of a section whose keys all have defaults.
macro_rules! all_defaults {
    ($($section:ident),+) => { $(
        impl Default for $section {
            fn default() -> Self {
                super::decode::section_default()
            }
        }
    )+ };
}

all_defaults!(
    File,
    QuotaStore,
    Runtime,
    Shutdown,
    UpstreamHttp2,
    Pool,
    Limits,
    Timeouts,
    Http2,
    Forwarding,
    Paths,
    Metrics,
    Tracing,
    Admin,
    Reload,
    HeaderChanges,
    QueryChanges,
    CookieChanges
);
