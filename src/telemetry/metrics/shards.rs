//! What is counted where: one shard for each worker and thing observed.
//!
//! A shard belongs to one worker, which alone writes it; control adds the shards of all workers up
//! when somebody asks. Shards are aligned so that two of them never share a cache line.

use std::sync::Arc;

use super::{
    cell::{Cell, Durations},
    tunnels::{TunnelEnd, WebSocketCounts, WebSocketShard},
};
use crate::{
    policy::refusal::{self, POLICY_REASONS},
    wire::{Reason, reason::WIRE_REASONS},
};

/// Every reason, by its number.
pub fn reasons() -> impl Iterator<Item = &'static Reason> {
    WIRE_REASONS.iter().chain(POLICY_REASONS).copied()
}

pub const REASONS: usize = WIRE_REASONS.len() + POLICY_REASONS.len();

/// Ways in which forwarding to an upstream fails; each has its own count per upstream.
pub const FAILURES: [&Reason; 9] = [
    refusal::UPSTREAM_CONNECT,
    refusal::UPSTREAM_CONNECT_TIMEOUT,
    refusal::UPSTREAM_BUSY,
    refusal::UPSTREAM_TLS,
    refusal::UPSTREAM_TIMEOUT,
    refusal::UPSTREAM_IDLE,
    refusal::UPSTREAM_CLOSED,
    refusal::UPSTREAM_INVALID,
    refusal::UPSTREAM_UPGRADE,
];

/// The lowest and the number of status codes counted one by one.
pub const STATUS_FIRST: u16 = 100;
pub const STATUSES: usize = 500;

/// Why a TLS handshake came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// It took too long.
    Timeout,
    /// The peer closed or reset the connection.
    Closed,
    /// The peer spoke HTTP.
    PlainHttp,
    /// No version, cipher suite, group or signature that both have.
    Incompatible,
    /// None of the certificates can be used for what the client asks for, such as a name whose
    /// certificate has not been issued yet.
    NoCertificate,
    /// The peer refused, by an alert: it does not trust the certificate, or found something wrong.
    Alert,
    /// The peer wants a certificate, and this side has none to show.
    CertificateRequired,
    /// The peer shows no certificate, and must.
    CertificateMissing,
    /// Its certificate is out of its time.
    CertificateExpired,
    /// It is revoked, or nobody says that it is not.
    CertificateRevoked,
    /// Nobody who is trusted issued it.
    CertificateUnknown,
    /// It is for another name.
    CertificateName,
    /// It is not accepted for another reason.
    Certificate,
    /// What the peer sent is not TLS, or breaks its rules.
    Invalid,
    /// Its address began too many.
    Rate,
    /// A defect on this side.
    Internal,
}

impl TlsFailure {
    pub const ALL: [TlsFailure; 16] = [
        TlsFailure::Timeout,
        TlsFailure::Closed,
        TlsFailure::PlainHttp,
        TlsFailure::Incompatible,
        TlsFailure::NoCertificate,
        TlsFailure::Alert,
        TlsFailure::CertificateRequired,
        TlsFailure::CertificateMissing,
        TlsFailure::CertificateExpired,
        TlsFailure::CertificateRevoked,
        TlsFailure::CertificateUnknown,
        TlsFailure::CertificateName,
        TlsFailure::Certificate,
        TlsFailure::Invalid,
        TlsFailure::Rate,
        TlsFailure::Internal,
    ];

    /// The value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            TlsFailure::Timeout => "timeout",
            TlsFailure::Closed => "closed",
            TlsFailure::PlainHttp => "plain_http",
            TlsFailure::Incompatible => "incompatible",
            TlsFailure::NoCertificate => "no_certificate",
            TlsFailure::Alert => "alert",
            TlsFailure::CertificateRequired => "certificate_required",
            TlsFailure::CertificateMissing => "certificate_missing",
            TlsFailure::CertificateExpired => "certificate_expired",
            TlsFailure::CertificateRevoked => "certificate_revoked",
            TlsFailure::CertificateUnknown => "certificate_unknown",
            TlsFailure::CertificateName => "certificate_name",
            TlsFailure::Certificate => "certificate",
            TlsFailure::Invalid => "invalid",
            TlsFailure::Rate => "rate",
            TlsFailure::Internal => "internal",
        }
    }
}

/// Why an HTTP/2 connection of a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Failure {
    /// It gave up too many requests.
    Resets,
    /// Too many frames that bring nothing.
    Control,
    /// Over another bound of the codec's.
    Calm,
    /// Against the protocol.
    Protocol,
    /// It took nothing for too long.
    Stalled,
    /// The client says that this gateway is at fault.
    Client,
    /// It closed or reset the connection while requests were open.
    Closed,
}

impl Http2Failure {
    pub const ALL: [Http2Failure; 7] = [
        Http2Failure::Resets,
        Http2Failure::Control,
        Http2Failure::Calm,
        Http2Failure::Protocol,
        Http2Failure::Stalled,
        Http2Failure::Client,
        Http2Failure::Closed,
    ];

    /// The value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            Http2Failure::Resets => "resets",
            Http2Failure::Control => "control_frames",
            Http2Failure::Calm => "excessive",
            Http2Failure::Protocol => "protocol",
            Http2Failure::Stalled => "stalled",
            Http2Failure::Client => "client",
            Http2Failure::Closed => "closed",
        }
    }
}

/// What ended a TLS session after its handshake, other than a goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsBreak {
    /// What the peer sent is not TLS, or was damaged.
    Invalid,
    /// The peer found something wrong, and said so.
    Alert,
    /// The peer wants a certificate, and this side has none to show: in TLS 1.3 the handshake is
    /// over before a client hears of it.
    CertificateRequired,
    /// The peer ended the connection without saying that it would.
    Cut,
}

impl TlsBreak {
    pub const ALL: [TlsBreak; 4] =
        [TlsBreak::Invalid, TlsBreak::Alert, TlsBreak::CertificateRequired, TlsBreak::Cut];

    /// The value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            TlsBreak::Invalid => "invalid",
            TlsBreak::Alert => "alert",
            TlsBreak::CertificateRequired => "certificate_required",
            TlsBreak::Cut => "cut",
        }
    }
}

/// Who a TLS session is with, as the label `side` says it.
pub const TLS_SIDES: [&str; 2] = ["client", "upstream"];

/// What is said of nonces of signatures (`[signatures.NAME]`).
pub const NONCE_OUTCOMES: [&str; 3] = ["new", "used", "unknown"];

/// What became of questions about tokens (`[introspection.NAME]`).
pub const INTROSPECTIONS: [&str; 4] = ["active", "inactive", "failed", "busy"];

/// Why a connection that was to begin with a PROXY protocol header was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFailure {
    /// The peer is no trusted proxy.
    Untrusted,
    Missing,
    Malformed,
    Timeout,
    /// The peer closed the connection.
    Closed,
}

impl ProxyFailure {
    pub const ALL: [ProxyFailure; 5] = [
        ProxyFailure::Untrusted,
        ProxyFailure::Missing,
        ProxyFailure::Malformed,
        ProxyFailure::Timeout,
        ProxyFailure::Closed,
    ];

    /// The value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            ProxyFailure::Untrusted => "untrusted",
            ProxyFailure::Missing => "missing",
            ProxyFailure::Malformed => "malformed",
            ProxyFailure::Timeout => "timeout",
            ProxyFailure::Closed => "closed",
        }
    }
}

/// Responses by the first digit of their status; 0 is those that never began.
pub type Classes = [Cell; 6];

/// What is counted for a worker as a whole.
#[repr(align(128))]
#[derive(Debug)]
pub struct WorkerShard {
    /// Thread id, once the worker runs.
    pub tid: Cell,
    /// The generation it serves with.
    pub generation: Cell,
    /// Client connections accepted.
    pub connections: Cell,
    /// Client connections open.
    pub connections_open: Cell,
    /// Client connections answered 503 because there were too many.
    pub connections_shed: Cell,
    /// Client connections accepted and given to a worker with fewer.
    pub connections_given: Cell,
    /// Connections closed for their PROXY protocol header, by [`ProxyFailure`].
    pub proxy_failures: [Cell; ProxyFailure::ALL.len()],
    /// TLS handshakes of clients: full ones, and those that resumed a session.
    pub tls_handshakes: [Cell; 2],
    /// Those that came to nothing, by [`TlsFailure`].
    pub tls_failures: [Cell; TlsFailure::ALL.len()],
    /// The same of handshakes with endpoints.
    pub tls_upstream_failures: [Cell; TlsFailure::ALL.len()],
    /// Sessions that ended badly after their handshake, by [`TLS_SIDES`] and [`TlsBreak`].
    pub tls_breaks: [[Cell; TlsBreak::ALL.len()]; TLS_SIDES.len()],
    /// Client connections that speak HTTP/2, and their requests.
    pub http2_connections: Cell,
    pub http2_streams: Cell,
    /// Those connections that did not end well, by [`Http2Failure`].
    pub http2_failures: [Cell; Http2Failure::ALL.len()],
    /// Addresses whose rate of handshakes was forgotten.
    pub tls_addresses_forgotten: Cell,
    /// Handshakes that waited for the home of their client's address, and those that were decided
    /// without it.
    pub tls_waits: Cell,
    /// Sessions whose records the kernel seals and opens.
    pub tls_in_kernel: Cell,
    pub tls_alone: Cell,
    /// Connections that switched protocols, and those of them still open.
    pub tunnels: Cell,
    pub tunnels_open: Cell,
    /// Those that ended, by [`TunnelEnd`].
    pub tunnel_ends: [Cell; TunnelEnd::ALL.len()],
    pub websockets: WebSocketShard,
    /// Passwords verified: right ones, wrong ones, and those nobody had time for.
    pub passwords: [Cell; 3],
    /// What became of questions about tokens, by [`INTROSPECTIONS`].
    pub introspections: [Cell; INTROSPECTIONS.len()],
    /// Signatures whose nonce was looked at, by [`NONCE_OUTCOMES`], and nonces that are kept.
    pub nonces: [Cell; NONCE_OUTCOMES.len()],
    pub nonces_kept: Cell,
    /// Requests answered, refused or cut off.
    pub requests: Cell,
    /// Exchanges the gateway answered or cut off itself, by reason, see [`reasons`].
    pub reasons: [Cell; REASONS],
    /// Exchanges that a policy in shadow mode would have refused, likewise.
    pub shadowed: [Cell; REASONS],
    /// Final responses by status code, from [`STATUS_FIRST`] on.
    pub statuses: [Cell; STATUSES],
    /// Bytes of requests: heads as received, bodies without their framing.
    pub received_bytes: Cell,
    /// Bytes sent to clients in answer to requests.
    pub sent_bytes: Cell,
    /// Those of them that the kernel moved from socket to socket.
    pub spliced_bytes: Cell,
    /// Connections to endpoints opened, successfully or not.
    pub upstream_connects: Cell,
    /// Tries beyond the first.
    pub retries: Cell,
    /// Connection tasks that panicked.
    pub panics: Cell,
    /// From the request's head to the response's last byte.
    pub duration: Durations,
    /// The gateway's own share of that, see [`super::super::record::Record::overhead_ns`].
    pub overhead: Durations,
}

impl Default for WorkerShard {
    fn default() -> WorkerShard {
        WorkerShard {
            tid: Cell::default(),
            generation: Cell::default(),
            connections: Cell::default(),
            connections_open: Cell::default(),
            connections_shed: Cell::default(),
            connections_given: Cell::default(),
            proxy_failures: Default::default(),
            tls_handshakes: Default::default(),
            tls_failures: Default::default(),
            tls_upstream_failures: Default::default(),
            tls_breaks: Default::default(),
            http2_connections: Cell::default(),
            http2_streams: Cell::default(),
            http2_failures: Default::default(),
            tls_addresses_forgotten: Cell::default(),
            tls_waits: Cell::default(),
            tls_in_kernel: Cell::default(),
            tls_alone: Cell::default(),
            tunnels: Cell::default(),
            tunnels_open: Cell::default(),
            tunnel_ends: Default::default(),
            websockets: WebSocketShard::default(),
            passwords: Default::default(),
            introspections: Default::default(),
            nonces: Default::default(),
            nonces_kept: Cell::default(),
            requests: Cell::default(),
            reasons: std::array::from_fn(|_| Cell::default()),
            shadowed: std::array::from_fn(|_| Cell::default()),
            statuses: std::array::from_fn(|_| Cell::default()),
            received_bytes: Cell::default(),
            sent_bytes: Cell::default(),
            spliced_bytes: Cell::default(),
            upstream_connects: Cell::default(),
            retries: Cell::default(),
            panics: Cell::default(),
            duration: Durations::default(),
            overhead: Durations::default(),
        }
    }
}

impl WorkerShard {
    /// An exchange is over. `status` is 0 when no response began.
    #[inline]
    pub fn answered(&self, status: u16, received_bytes: u64, sent_bytes: u64) {
        self.requests.count();
        if let Some(cell) = self.statuses.get(usize::from(status.wrapping_sub(STATUS_FIRST))) {
            cell.count();
        }
        self.received_bytes.add(received_bytes);
        self.sent_bytes.add(sent_bytes);
    }

    /// Exchanges the gateway answered or cut off itself, for whatever reason.
    pub fn refusals(&self) -> u64 {
        self.reasons.iter().map(Cell::get).sum()
    }

    /// An exchange the gateway answers or cuts off itself.
    pub fn refused(&self, reason: &Reason) {
        self.reasons[usize::from(reason.number)].count();
    }

    /// An exchange that a policy in shadow mode would refuse.
    pub fn shadow(&self, reason: &Reason) {
        self.shadowed[usize::from(reason.number)].count();
    }
}

/// What is counted for a listener.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct ListenerShard {
    pub connections: Cell,
    /// Connections that wait to be accepted, as of the last second.
    pub accept_queue: Cell,
}

/// What is counted of the exchanges of one thing: of a route, or of a consumer.
#[derive(Debug, Default)]
pub struct Traffic {
    pub responses: Classes,
    /// Of bodies.
    pub request_bytes: Cell,
    pub response_bytes: Cell,
}

impl Traffic {
    /// An exchange is over; its response has this status, 0 where none began.
    #[inline]
    pub fn count(&self, status: u16, request_bytes: u64, response_bytes: u64) {
        self.responses[usize::from(status / 100)].count();
        self.request_bytes.add(request_bytes);
        self.response_bytes.add(response_bytes);
    }
}

/// What is counted for a route, or for requests that match none.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct RouteShard {
    pub traffic: Traffic,
    pub websockets: WebSocketCounts,
    pub duration: Durations,
}

/// Why requests of a consumer are refused, of what has a count of its own for each; the rest is
/// counted together.
pub const CONSUMER_REFUSALS: [&Reason; 7] = [
    refusal::RATE_LIMITED,
    refusal::QUOTA,
    refusal::CONCURRENCY,
    refusal::BUSY,
    refusal::AUTHZ_DENIED,
    refusal::AUTH_CONSUMER,
    refusal::BODY_TOO_LARGE,
];

/// What is counted for a consumer.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct ConsumerShard {
    pub traffic: Traffic,
    /// By [`CONSUMER_REFUSALS`], and for any other reason.
    pub refusals: [Cell; CONSUMER_REFUSALS.len() + 1],
}

impl ConsumerShard {
    /// The gateway answers a request of its, or cuts it off.
    pub fn refused(&self, reason: &Reason) {
        let own = CONSUMER_REFUSALS.iter().position(|known| known.number == reason.number);
        self.refusals[own.unwrap_or(CONSUMER_REFUSALS.len())].count();
    }

    /// Each reason that has occurred, as metrics name it, with its count.
    pub fn refusal_names() -> impl Iterator<Item = (usize, &'static str)> {
        let names = CONSUMER_REFUSALS.iter().map(|reason| reason.token);
        names.chain(["other"]).enumerate()
    }
}

/// What is counted for an upstream.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct UpstreamShard {
    /// Tries beyond the first.
    pub retries: Cell,
    /// Tries that came to nothing, by [`FAILURES`].
    pub failures: [Cell; FAILURES.len()],
    /// Connections whose TLS was passed through, and what passed, by who sent it (`tunnels::End`).
    pub passed: Cell,
    pub passed_bytes: [Cell; 2],
}

impl UpstreamShard {
    /// A try came to nothing. Reasons that are not the upstream's are not counted.
    pub fn failed(&self, reason: &Reason) {
        if let Some(at) = FAILURES.iter().position(|failure| failure.number == reason.number) {
            self.failures[at].count();
        }
    }
}

/// What is counted for an endpoint.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct EndpointShard {
    /// Responses of the endpoint; at 0 the tries that brought none.
    pub responses: Classes,
    /// Connections opened, and attempts that failed.
    pub connects: Cell,
    pub connect_failures: Cell,
    /// Requests sent over a kept connection.
    pub reused: Cell,
    /// Requests in flight.
    pub in_flight: Cell,
    /// Idle connections kept, as of the last second.
    pub idle: Cell,
    /// 1 while it is avoided because it could not be connected, as of the last second.
    pub avoided: Cell,
    /// From the request sent to the response's head.
    pub duration: Durations,
}

/// What is counted for a rate limit.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct LimitShard {
    pub passed: Cell,
    pub refused: Cell,
    /// Would have been refused.
    pub shadow: Cell,
    /// It does not apply to them.
    pub exempt: Cell,
    /// Waited for the home of their key.
    pub waits: Cell,
    /// Were decided without it.
    pub alone: Cell,
    /// Were decided without the server in which the limit is shared.
    pub fallback: Cell,
    /// Keys of this worker that had to go although they counted.
    pub forgotten: Cell,
    /// As of the last second: keys whose home it is, bytes of their table, and keys of others'.
    pub keys: Cell,
    pub bytes: Cell,
    pub leases: Cell,
    /// Of a limit on requests in progress: 1; and how many are, and how many wait.
    pub is_of_progress: Cell,
    pub held: Cell,
    pub queued: Cell,
}

/// One worker's shards for one configuration, by the ids of its snapshot.
#[derive(Debug)]
pub struct Series {
    pub worker: Arc<WorkerShard>,
    /// In the order of the configuration.
    pub listeners: Vec<Arc<ListenerShard>>,
    /// By `RouteId`.
    pub routes: Vec<Arc<RouteShard>>,
    /// Requests that match no route.
    pub unrouted: Arc<RouteShard>,
    /// The first consumers, by their number; then one for all others.
    pub consumers: Vec<Arc<ConsumerShard>>,
    /// By `UpstreamId`.
    pub upstreams: Vec<UpstreamSeries>,
    /// By `LimitId`; then those on requests in progress, by `ConcurrencyId`.
    pub limits: Vec<Arc<LimitShard>>,
    /// Only the worker as a whole is counted.
    pub is_off: bool,
}

#[derive(Debug)]
pub struct UpstreamSeries {
    pub upstream: Arc<UpstreamShard>,
    /// By the endpoint's index.
    pub endpoints: Vec<Arc<EndpointShard>>,
}

impl Series {
    pub fn route(&self, id: Option<u32>) -> &RouteShard {
        match id {
            Some(id) => &self.routes[id as usize],
            None => &self.unrouted,
        }
    }

    /// `None` only when there is no consumer at all.
    pub fn consumer(&self, consumer: u32) -> Option<&ConsumerShard> {
        let own = self.consumers.get(consumer as usize).or(self.consumers.last());
        own.map(|shard| &**shard)
    }

    pub fn endpoint(&self, upstream: u32, endpoint: usize) -> &EndpointShard {
        &self.upstreams[upstream as usize].endpoints[endpoint]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_by_their_place() {
        for (place, reason) in reasons().enumerate() {
            assert_eq!(usize::from(reason.number), place, "{}", reason.token);
        }
        let shard = WorkerShard::default();
        shard.refused(refusal::ROUTE_NOT_FOUND);
        let place = usize::from(refusal::ROUTE_NOT_FOUND.number);
        assert_eq!((shard.refusals(), shard.reasons[place].get()), (1, 1));
    }
}
