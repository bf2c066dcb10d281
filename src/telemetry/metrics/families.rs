//! Every metric's name, kind, labels and meaning, once. `docs/metrics.md` is made from this list.

/// What a figure does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the process's start.
    Counter,
    Gauge,
    /// Durations by upper bound, with their sum and number.
    Histogram,
}

/// What a figure is measured in. Most are plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    One,
    Seconds,
    Bytes,
}

/// One metric, with all its labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Without unit and `_total`; see [`Family::full_name`].
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    pub meaning: &'static str,
}

impl Family {
    /// As it is scraped: with its unit, and a counter with `_total`.
    pub fn full_name(&self) -> String {
        let unit = match self.unit {
            Unit::One => "",
            Unit::Seconds => "_seconds",
            Unit::Bytes => "_bytes",
        };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.name)
    }
}

macro_rules! families {
    ($( $constant:ident = $kind:ident $unit:ident $name:literal [$($label:literal),*] $meaning:literal; )*) => {
        $( #[doc = $meaning] pub const $constant: &Family = &Family {
            name: $name, kind: Kind::$kind, unit: Unit::$unit,
            labels: &[$($label),*], meaning: $meaning,
        }; )*
        /// Every metric there is, in the order of a scrape.
        pub const ALL: &[&Family] = &[$($constant),*];
    };
}

families! {
    CONNECTIONS = Counter One "ringway_connections" ["worker"] "Client connections accepted";
    CONNECTIONS_OPEN = Gauge One "ringway_connections_open" ["worker"] "Client connections open";
    CONNECTIONS_SHED = Counter One "ringway_connections_shed" ["worker"] "Client connections answered 503 because there were too many";
    CONNECTIONS_GIVEN = Counter One "ringway_connections_given" ["worker"] "Client connections that a worker accepted and gave to one with fewer (`listeners.balance`); the one that serves them counts them as accepted";
    PROXY_FAILURES = Counter One "ringway_proxy_protocol_failures" ["reason"] "Connections closed because of their PROXY protocol header (`listeners.proxy_protocol`): the peer is `untrusted`, the header is `missing` or `malformed`, did not come in time (`timeout`, as `timeouts.head`), or the peer `closed`";
    TLS_HANDSHAKES = Counter One "ringway_tls_handshakes" ["kind"] "TLS handshakes of clients: `full`, or `resumed` from a session ticket";
    TLS_FAILURES = Counter One "ringway_tls_handshake_failures" ["reason"] "TLS handshakes of clients that came to nothing: `timeout` (`listeners.tls.handshake_timeout`), `closed` by the client, `plain_http`, `incompatible` (no version, cipher suite or group that both have), `no_certificate` (none for what the client asks for, such as a name that waits for its first one from an authority), `alert` (the client refused, such as one that does not trust the certificate), the client's certificate is `certificate_missing`, `certificate_expired`, `certificate_revoked` (or no list says that it is not), `certificate_unknown` (no trusted issuer), or not accepted for another reason (`certificate`), `invalid` (not TLS, or against its rules), `rate` (the client's address began too many, `listeners.tls.handshake_rate`), `internal`";
    TLS_UPSTREAM_FAILURES = Counter One "ringway_tls_upstream_handshake_failures" ["reason"] "TLS handshakes with endpoints that came to nothing, by the reasons of `ringway_tls_handshake_failures_total`: here it is the endpoint's certificate that is not accepted (`certificate_name`: it is for another name), the endpoint that closes or refuses (`alert`; `certificate_required`: it wants a certificate, and there is no `upstreams.tls.certificate`), and `upstreams.connect_timeout` that ends (`timeout`)";
    TLS_BREAKS = Counter One "ringway_tls_broken" ["side", "reason"] "TLS sessions with a `client` or an `upstream` that ended badly after their handshake: `invalid` (what the peer sent is not TLS, or damaged), `alert` (the peer found something wrong), `certificate_required` (the endpoint wants a certificate, and there is no `upstreams.tls.certificate`; an endpoint that speaks TLS 1.3 says so after the handshake), `cut` (the peer ended the connection without close_notify, as many clients do when nothing is in flight)";
    TLS_FORGOTTEN = Counter One "ringway_tls_handshake_addresses_forgotten" [] "Client addresses whose rate of handshakes (`listeners.tls.handshake_rate`) was forgotten while it counted, because more addresses came than a worker remembers";
    TLS_IN_KERNEL = Counter One "ringway_tls_kernel_sessions" [] "Sessions with clients whose records the kernel seals and opens (`listeners.tls.kernel`)";
    TLS_WAITS = Counter One "ringway_tls_handshake_waits" [] "Handshakes that waited for the worker that counts those of their client's address (`listeners.tls.handshake_rate`)";
    TLS_ALONE = Counter One "ringway_tls_handshake_alone" [] "Handshakes that a worker decided about by its own share of the rate, because the one that counts those of the client's address did not answer";
    HTTP2_CONNECTIONS = Counter One "ringway_http2_connections" [] "Client connections that spoke HTTP/2";
    HTTP2_STREAMS = Counter One "ringway_http2_requests" [] "Requests that came in over HTTP/2";
    HTTP2_FAILURES = Counter One "ringway_http2_failures" ["reason"] "HTTP/2 connections of clients that did not end well: too many requests given up (`resets`, `http2.resets_per_second`), too many frames that bring nothing (`control_frames`, `http2.control_frames_per_second`), over another bound of the protocol's (`excessive`, such as endless CONTINUATION), against the protocol (`protocol`), a client that took nothing for `timeouts.write`, or for some seconds while too much is held (`stalled`), one that said that this gateway is at fault (`client`), or one that `closed` it while requests were open";
    TUNNELS = Counter One "ringway_tunnels" [] "Connections that switched protocols (WebSocket and others)";
    TUNNELS_OPEN = Gauge One "ringway_tunnels_open" [] "Connections that switched protocols and are open";
    TUNNEL_ENDS = Counter One "ringway_tunnel_ends" ["reason"] "Tunnels that ended: both ends had finished (`closed`), the `client` or the `upstream` broke off, nothing passed for `timeouts.tunnel_idle` (`idle`), `timeouts.tunnel_lifetime` was over (`lifetime`), an end did not answer a ping (`unanswered`), or the gateway ended (`cut`)";
    WEBSOCKET_FRAMES = Counter One "ringway_websocket_frames" ["route", "from"] "WebSocket frames that passed, by route and sender (`client` or `upstream`)";
    WEBSOCKET_MESSAGES = Counter One "ringway_websocket_messages" ["route", "from"] "WebSocket messages (text and binary) that passed, by route and sender";
    WEBSOCKET_PAYLOAD = Counter Bytes "ringway_websocket_payload" ["route", "from"] "Payload of WebSocket frames that passed, as it is on the wire, by route and sender";
    WEBSOCKET_CLOSES = Counter One "ringway_websocket_closes" ["from", "code"] "WebSocket Close frames by sender and status code; `none` has no code, `other` none that may be sent";
    WEBSOCKET_PINGS = Counter One "ringway_websocket_pings" ["to"] "WebSocket Ping frames that the gateway sent (`timeouts.websocket_ping`)";
    WEBSOCKET_BROKEN = Counter One "ringway_websocket_broken" ["from"] "WebSockets on which a sender broke the framing (RFC 6455 §5.2): what it sends still passes, and is no longer counted";
    LISTENER_CONNECTIONS = Counter One "ringway_listener_connections" ["listener"] "Client connections accepted, by listener";
    LISTENER_QUEUE = Gauge One "ringway_listener_accept_queue" ["listener"] "Connections that the kernel holds until a worker accepts them, as of the last second";
    REQUESTS = Counter One "ringway_requests" ["worker"] "Requests answered, refused or cut off";
    RESPONSES = Counter One "ringway_responses" ["status"] "Final responses begun, by status code";
    REFUSALS = Counter One "ringway_refusals" ["reason"] "Requests that the gateway answered or cut off itself, by reason (docs/reasons.md)";
    SHADOWED = Counter One "ringway_shadow_refusals" ["reason"] "Requests that a policy in shadow mode would have refused, by reason (docs/reasons.md)";
    RECEIVED = Counter Bytes "ringway_received" [] "Requests as received: heads, and bodies without their framing";
    SENT = Counter Bytes "ringway_sent" [] "Responses as sent, with heads and framing";
    SPLICED = Counter Bytes "ringway_spliced" [] "Bytes of response bodies that the kernel moved from socket to socket (`limits.splice`)";
    DURATION = Histogram Seconds "ringway_request_duration" [] "From a request's head to the last byte of its response";
    OVERHEAD = Histogram Seconds "ringway_overhead" [] "The gateway's own share: from the request's head to the first bytes sent to the upstream (without connecting), and from the response's head to the first bytes sent to the client; on a core without time left, also the wait until the worker came to look";
    ROUTE_REQUESTS = Counter One "ringway_route_requests" ["route", "class"] "Requests by route and first digit of the response's status (`none`: no response began); requests without route have an empty route";
    ROUTE_RECEIVED = Counter Bytes "ringway_route_received" ["route"] "Request bodies received, by route";
    ROUTE_SENT = Counter Bytes "ringway_route_sent" ["route"] "Response bodies sent, by route";
    ROUTE_DURATION = Histogram Seconds "ringway_route_duration" ["route"] "From a request's head to the last byte of its response, by route";
    CONSUMER_REQUESTS = Counter One "ringway_consumer_requests" ["consumer", "class"] "Requests of a consumer ([consumers.md](consumers.md)) by first digit of the response's status (`none`: no response began); consumers beyond the first `metrics.series` are counted together as `(other)`";
    CONSUMER_RECEIVED = Counter Bytes "ringway_consumer_received" ["consumer"] "Request bodies received, by consumer";
    CONSUMER_SENT = Counter Bytes "ringway_consumer_sent" ["consumer"] "Response bodies sent, by consumer";
    CONSUMER_REFUSALS = Counter One "ringway_consumer_refusals" ["consumer", "reason"] "Requests of a consumer that the gateway answered or cut off itself, by the reasons that limits and rules have ([reasons.md](reasons.md)), or `other`";
    PASSWORDS = Counter One "ringway_passwords_verified" ["outcome"] "Passwords of HTTP Basic that were verified: `right` or `wrong`; `busy`: those that nobody had time for. What a worker remembers (`basic.remember`) is not verified again";
    INTROSPECTIONS = Counter One "ringway_introspections" ["outcome"] "Tokens that a provider was to be asked about ([introspection.md](introspection.md)): `active`, `inactive`, `failed` (no answer, or none that says so), `busy` (`introspection.questions_at_once`). What a worker remembers is not asked again";
    NONCES = Counter One "ringway_signature_nonces" ["outcome"] "Signatures that were good and whose nonce was looked at ([signatures.md](signatures.md)): `new`; `used` before; `unknown` (the key has as many as `signatures.nonces`, or the worker that knows them did not answer)";
    NONCES_KEPT = Gauge One "ringway_signature_nonces_kept" [] "Nonces that are remembered, as of the last second";
    LIMIT_REQUESTS = Counter One "ringway_rate_limit_requests" ["limit", "outcome"] "Requests that a rate limit was asked about: `passed`, `refused`, `shadow` (would have been refused, `rate_limits.shadow`), or `exempt`";
    LIMIT_WAITS = Counter One "ringway_rate_limit_waits" ["limit"] "Requests that waited for the worker that holds the bucket of their key";
    LIMIT_ALONE = Counter One "ringway_rate_limit_alone" ["limit"] "Requests that a worker decided about by its own share of the rate, because the one that holds the bucket did not answer";
    LIMIT_FALLBACK = Counter One "ringway_rate_limit_fallback" ["limit"] "Requests that were decided by the `fallback` of a shared limit, because its server did not answer in time or at all";
    LIMIT_FORGOTTEN = Counter One "ringway_rate_limit_keys_forgotten" ["limit"] "Keys that were forgotten while they counted, because there were more than `rate_limits.keys_max`";
    LIMIT_KEYS = Gauge One "ringway_rate_limit_keys" ["limit"] "Keys that are remembered, as of the last second; idle ones are forgotten when room is needed";
    LIMIT_LEASES = Gauge One "ringway_rate_limit_leases" ["limit"] "Keys of which workers other than the one that holds the bucket know something, as of the last second";
    LIMIT_MEMORY = Gauge Bytes "ringway_rate_limit_memory" ["limit"] "Memory of the tables of keys, as of the last second";
    CONCURRENCY_HELD = Gauge One "ringway_concurrency_requests" ["limit"] "Requests in progress that a limit counts ([concurrency.md](concurrency.md)), as of the last second";
    CONCURRENCY_QUEUED = Gauge One "ringway_concurrency_waiting" ["limit"] "Requests that wait until others are over, as of the last second";
    PASSED = Counter One "ringway_passthrough_connections" ["upstream"] "Connections whose TLS was passed through (`listeners.passthrough`), by upstream";
    PASSED_BYTES = Counter Bytes "ringway_passthrough" ["upstream", "from"] "Bytes of those connections, by upstream and sender (`client` or `upstream`)";
    RETRIES = Counter One "ringway_upstream_retries" ["upstream"] "Tries beyond a request's first";
    FAILURES = Counter One "ringway_upstream_failures" ["upstream", "reason"] "Tries that came to nothing, by reason (docs/reasons.md)";
    ENDPOINT_REQUESTS = Counter One "ringway_endpoint_requests" ["upstream", "endpoint", "class"] "Tries by endpoint and first digit of its response's status (`none`: it did not answer)";
    ENDPOINT_RESPONSE = Histogram Seconds "ringway_endpoint_response" ["upstream", "endpoint"] "From a request sent to the head of its response, as the worker came to see them";
    ENDPOINT_CONNECTS = Counter One "ringway_endpoint_connects" ["upstream", "endpoint"] "Connections opened";
    ENDPOINT_CONNECT_FAILURES = Counter One "ringway_endpoint_connect_failures" ["upstream", "endpoint"] "Connections that could not be opened";
    ENDPOINT_REUSED = Counter One "ringway_endpoint_reused" ["upstream", "endpoint"] "Requests sent on a kept connection";
    ENDPOINT_IN_FLIGHT = Gauge One "ringway_endpoint_in_flight" ["upstream", "endpoint"] "Requests in flight";
    ENDPOINT_IDLE = Gauge One "ringway_endpoint_idle_connections" ["upstream", "endpoint"] "Kept connections without request, as of the last second";
    ENDPOINT_AVOIDED = Gauge One "ringway_endpoint_avoided" ["upstream", "endpoint"] "Workers that avoid the endpoint because it could not be connected, as of the last second";
    PANICS = Counter One "ringway_panics" [] "Connections ended by a defect of the gateway; please report it";
    ACCESS_LOG = Counter One "ringway_access_log_lines" ["log", "outcome"] "Lines of access logs: `written`, or `dropped` because nobody took them in time";
    SPANS = Counter One "ringway_spans" ["outcome"] "Spans of recorded exchanges: `exported`, or `dropped` because the collector did not take them in time or at all";
    JWKS_FETCHES = Counter One "ringway_jwks_fetches" ["way", "outcome"] "Fetches of the keys that tokens of a section `[jwt.NAME]` or `[oidc.NAME]` are verified with: `fetched`, or `failed`";
    JWKS_FETCHED = Gauge Seconds "ringway_jwks_fetched_time" ["way"] "When those keys were last fetched, as Unix time; missing until they have been";
    REDIS_UP = Gauge One "ringway_redis_up" ["redis"] "1 while a server in which limits are shared (`[redis.NAME]`) answers";
    REDIS_ORDERS = Counter One "ringway_redis_orders" ["redis", "outcome"] "What that server was asked about buckets: `answered`, `refused` by it, or `crowded` out because too much waited";
    REDIS_BATCHES = Counter One "ringway_redis_batches" ["redis"] "Batches in which that was sent";
    REDIS_ANSWERS = Counter Seconds "ringway_redis_answers" ["redis"] "How long the answers to batches took, in all";
    REDIS_FAILURES = Counter One "ringway_redis_connection_failures" ["redis"] "Connections to that server that failed or ended";
    OIDC_TOKENS = Counter One "ringway_oidc_token_requests" ["way", "grant", "outcome"] "Requests for tokens to the provider of a section `[oidc.NAME]`, by grant (`code`: a login; `refresh_token`): `granted`, `refused` (the code or token is not good) or `failed`";
    ACME_EXPIRY = Gauge Seconds "ringway_acme_certificate_expiry_time" ["name", "authority"] "When the certificate of a name expires (`listeners.tls.acme`), as Unix time; missing until there is one";
    ACME_ORDERS = Counter One "ringway_acme_orders" ["name", "authority", "outcome"] "Certificates ordered from an authority: `issued`, or `failed`";
    CONSUMER_QUOTA_USED = Gauge One "ringway_consumer_quota_used" ["consumer", "quota"] "What a consumer has used of a quota that counts by `consumer` alone, in the period that goes on ([quotas.md](quotas.md))";
    CONSUMER_QUOTA_LEFT = Gauge One "ringway_consumer_quota_left" ["consumer", "quota"] "What is left of it";
    WORKER_CPU = Counter Seconds "ringway_worker_cpu" ["worker", "core"] "Processor time of a worker; its rate is how busy its core is";
    WORKER_GENERATION = Gauge One "ringway_worker_generation" ["worker"] "Generation of the configuration that a worker serves with";
    WORKER_MAILBOX = Gauge One "ringway_worker_mailbox" ["worker"] "Messages from control that a worker has not read";
    RING_SUBMITTED = Counter One "ringway_ring_submissions" ["worker"] "Operations handed to the kernel by a worker's io_uring";
    RING_COMPLETED = Counter One "ringway_ring_completions" ["worker"] "Completions the kernel put on a worker's io_uring";
    RING_OVERFLOWED = Counter One "ringway_ring_overflows" ["worker"] "Completions for which a worker's io_uring had no room at once";
    GENERATION = Gauge One "ringway_generation" [] "Generation of the configuration in force, counted from 1 at start";
    RELOADS = Counter One "ringway_reloads" ["outcome"] "Reloads: `reloaded`, or `refused` because the configuration has errors";
    LOADED = Gauge Seconds "ringway_configuration_loaded_time" [] "When the configuration in force was loaded, as Unix time";
    CERTIFICATE_EXPIRY = Gauge Seconds "ringway_listener_certificate_expiry_time" ["listener"] "When the first of a listener's certificates expires, those included that an authority has issued, as Unix time";
    READY = Gauge One "ringway_ready" [] "1 while new requests are welcome, as /readyz says";
    BUILD = Gauge One "ringway_build_info" ["version"] "1, with the version that runs";
    MEMORY = Gauge Bytes "process_resident_memory" [] "Resident memory of the process";
    DESCRIPTORS = Gauge One "process_open_fds" [] "Open descriptors of the process";
    DESCRIPTORS_MAX = Gauge One "process_max_fds" [] "Descriptors the process may open";
    STARTED = Gauge Seconds "process_start_time" [] "When the process started, as Unix time";
}
