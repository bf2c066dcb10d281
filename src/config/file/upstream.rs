//! The sections of an upstream as written, see [`super`].

use crate::{
    config::{
        decode::At,
        snapshot::ProxyHeader,
        units::{Millis, Size, hours, kib, mib, millis, minutes, seconds},
        values::{BareHost, EndpointText, Protocol},
    },
    policy::balance::Balance,
    section,
};

use super::Certificate;

section! {
    /// Where requests are forwarded to.
    pub struct Upstream {
        /// Addresses: `"10.0.0.1:80"`, `"[fd00::1]:80"`, `"app.internal:80"` (looked up when the
        /// configuration is loaded), `"unix:/run/app.sock"`, or
        /// `{ address = "10.0.0.1:80", weight = 3 }`.
        endpoints: Vec<At<EndpointText>>, eg "[\"127.0.0.1:8000\"]";
        /// How an endpoint is chosen. `"round_robin"`: in turn, by weight. `"least_request"`: of
        /// two taken at random, the one with fewer requests in flight for its weight. `"random"`:
        /// at random, by weight.
        balance: Balance = Balance::RoundRobin;
        /// For one connection to be made.
        connect_timeout: Millis = seconds(2) => millis(1)..=minutes(10);
        /// From the request sent to the first byte of the response.
        first_byte_timeout: Millis = seconds(60) => millis(1)..=hours(24);
        /// Between two reads or writes of a body.
        idle_timeout: Millis = seconds(60) => millis(1)..=hours(24);
        /// How long an endpoint that could not be connected is avoided while others are left.
        connect_cooldown: Millis = seconds(1) => millis(0)..=hours(1);
        /// Connections kept open between requests.
        pool: Pool = Pool::default();
        /// Speak TLS to the endpoints; their certificates are verified. `{}` is the usual: the
        /// system's authorities, the endpoint's own name. Default: plain HTTP.
        tls: Option<UpstreamTls> = None, eg "{}";
        /// What is spoken to the endpoints. `"http1"`: HTTP/1.1. `"h2"`: HTTP/2 over TLS, and
        /// nothing else; needs `tls`. `"h2c"`: HTTP/2 without TLS, known beforehand. `"auto"`: with
        /// `tls` what the endpoint prefers of both (by ALPN), without `tls` HTTP/1.1. Upgrades
        /// (WebSocket) are forwarded over HTTP/1.1 only.
        protocol: Protocol = Protocol::Http1;
        /// Begin each connection with a PROXY protocol header, which tells the endpoint whose
        /// connection it is: `"v2"`, also with the name the client asked for, what was agreed on by
        /// ALPN, and TLS; or `"v1"`, with addresses only. A connection then serves one client's
        /// connection only.
        proxy_protocol: ProxyHeader = ProxyHeader::Off;
        /// HTTP/2 to the endpoints.
        http2: UpstreamHttp2 = UpstreamHttp2::default();
    }

    /// HTTP/2 to the endpoints of an upstream: few connections, each with many requests at once.
    pub struct UpstreamHttp2 {
        /// Requests at once on one connection; fewer where the endpoint says so.
        streams: u32 = 100 => 1..=10_000;
        /// Connections that take new requests, for each worker and endpoint. When all are full,
        /// a request waits as long as connecting may take, then it is refused with 503.
        connections: u32 = 8 => 1..=1024;
        /// Bytes of one response that the endpoint may send before the client takes them.
        stream_window: Size = kib(256) => kib(64)..=mib(16);
        /// A connection with requests on it that brings nothing for this long is asked for a sign
        /// of life (PING). `"0"` is never. Some servers take frequent questions amiss.
        ping_interval: Millis = millis(0) => millis(0)..=hours(1);
        /// Without an answer for this long the connection is given up.
        ping_timeout: Millis = seconds(10) => millis(100)..=minutes(10);
    }

    /// TLS to the endpoints of an upstream, versions 1.2 and 1.3. The handshake is part of
    /// `connect_timeout`. An endpoint whose certificate is not accepted gets no request.
    pub struct UpstreamTls {
        /// PEM file with the certificates of the authorities to trust, relative to this
        /// configuration. Default: those of the system.
        ca: Option<String> = None, eg "\"tls/localhost.pem\"";
        /// Files (PEM or DER) with lists of revoked certificates (CRL), one for every authority in
        /// an endpoint's chain. A list that is out of its time refuses everybody it is for, until
        /// a reload reads a new one. Sessions are then not resumed, so that every connection is
        /// judged anew.
        crls: Vec<At<String>> = Vec::new();
        /// Name that is asked for (SNI) and must be in the certificate. Default: the host of each
        /// endpoint's address. A Unix socket needs it.
        name: Option<BareHost> = None, eg "\"app.internal\"";
        /// Certificate and key that this gateway shows when it is asked for one.
        certificate: Option<Certificate> = None,
            eg "{ file = \"tls/localhost.pem\", key = \"tls/localhost.key\" }";
    }

    /// Connections to an upstream that are kept open between requests.
    pub struct Pool {
        /// Idle connections kept, for each worker and endpoint; 0 keeps none.
        idle_max: u32 = 256 => 0..=65536;
        /// An idle connection is closed after this long. Keep it below the upstream's own
        /// keep-alive timeout.
        idle_timeout: Millis = seconds(60) => millis(1)..=hours(24);
        /// A connection older than this serves no further request.
        lifetime: Millis = hours(1) => seconds(1)..=hours(24 * 30);
    }
}
