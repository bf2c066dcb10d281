//! A refusal: the gateway answers instead of the upstream.

use crate::{
    reasons,
    wire::{Reason, reason::WIRE_REASONS},
};

reasons! { POLICY_REASONS from WIRE_REASONS.len();
    METHOD_REFUSED = "method.refused", 405, "CONNECT and TRACE are not served by this gateway.", "RFC 9110 §9.3";
    ROUTE_NOT_FOUND = "route.not_found", 404, "No route matches the request.", "";
    ROUTE_METHOD = "route.method", 405, "A route matches the path, but not with this method.", "RFC 9110 §15.5.6";
    ROUTE_HOST = "route.host", 421, "No route serves this host here.", "RFC 9110 §15.5.20";
    BODY_TOO_LARGE = "limit.body_bytes", 413, "The request body is larger than the route allows.", "RFC 9110 §15.5.14";
    HEAD_TIMEOUT = "client.head_timeout", 408, "The request head did not arrive in time.", "RFC 9110 §15.5.9";
    BODY_TIMEOUT = "client.body_timeout", 408, "The request body did not arrive in time.", "RFC 9110 §15.5.9";
    CLIENT_ABORTED = "client.aborted", 499, "The client closed the connection before the exchange was complete.", "";
    CLIENT_STALLED = "client.stalled", 499, "The client did not read the response in time.", "";
    OVERLOADED = "gateway.overloaded", 503, "The gateway has as many connections as it may have.", "RFC 9110 §15.6.4";
    GATEWAY_ENDED = "gateway.ended", 503, "The gateway (after `shutdown.drain_timeout`) or the worker ended before the exchange was complete. The client is not told: it got nothing, or part of a response.", "";
    CLIENT_CERTIFICATE = "client.certificate", 403, "The route is for clients that show a certificate, and this one showed none.", "RFC 9110 §15.5.4";
    CLIENT_ADDRESS = "client.address", 403, "The route does not serve clients of this address.", "RFC 9110 §15.5.4";
    CORS_ORIGIN = "cors.origin", 403, "A CORS preflight is for a page of an origin that the route does not allow.", "Fetch §3.3.5";
    CORS_METHOD = "cors.method", 403, "A CORS preflight asks for a method that the route does not allow to pages of other origins.", "Fetch §3.3.5";
    CORS_HEADERS = "cors.headers", 403, "A CORS preflight asks for a request field that the route does not allow to pages of other origins.", "Fetch §3.3.5";
    CSRF_ORIGIN = "csrf.origin", 403, "A request that may change something was made by a page of another site.", "RFC 9110 §15.5.4";
    USER_AGENT = "client.user_agent", 403, "The route does not serve clients with this User-Agent, or without one.", "RFC 9110 §15.5.4";
    AUTHZ_IDENTITY = "authz.unauthenticated", 401, "The rules of the route need to know who asks, and the request does not show it.", "RFC 9110 §15.5.2";
    AUTHZ_DENIED = "authz.denied", 403, "The rules of the route do not allow the request.", "RFC 9110 §15.5.4";
    TLS_PLAIN_HTTP = "tls.plain_http", 400, "HTTP was sent to a port that speaks TLS; use https.", "";
    GRPC_WEB_INVALID = "grpc.web_text", 400, "The base64 of a gRPC-Web request is malformed.", "";
    PASSTHROUGH_HELLO = "passthrough.no_hello", 400, "A connection that is passed through did not begin with a TLS ClientHello, or with one that is malformed.", "RFC 8446 §4.1.2";
    PASSTHROUGH_TIMEOUT = "passthrough.timeout", 408, "The ClientHello of a connection that is passed through did not arrive in time (`timeouts.head`).", "";
    PASSTHROUGH_NO_NAME = "passthrough.no_name", 421, "The client asked for no name (SNI), and no entry of `passthrough` is for that.", "RFC 6066 §3";
    PASSTHROUGH_NAME = "passthrough.unknown_name", 421, "No entry of `passthrough` has the name (SNI) that the client asked for.", "RFC 6066 §3";
    MAINTENANCE = "route.maintenance", 503, "The route is closed for maintenance.", "RFC 9110 §15.6.4";
    AUTH_MISSING = "auth.missing", 401, "The route asks who the request is from, and it does not show enough of that.", "RFC 9110 §15.5.2";
    AUTH_INVALID = "auth.invalid", 401, "What the request shows of who it is from is malformed, forged or unknown.", "RFC 9110 §15.5.2";
    AUTH_EXPIRED = "auth.expired", 401, "What the request shows of who it is from has expired.", "RFC 6750 §3.1";
    AUTH_CONSUMER = "auth.consumer", 403, "What the request shows of who it is from is good, but not of a consumer that the way takes.", "RFC 9110 §15.5.4";
    AUTH_DENIED = "auth.denied", 403, "The service that decides for the route denies the request.", "RFC 9110 §15.5.4";
    AUTH_NOT_YET = "auth.not_yet", 401, "What the request shows of who it is from is not valid yet.", "RFC 7519 §4.1.5";
    AUTH_ISSUER = "auth.issuer", 401, "The token is of an issuer that the route does not know.", "RFC 7519 §4.1.1";
    AUTH_AUDIENCE = "auth.audience", 401, "The token is for another audience.", "RFC 7519 §4.1.3";
    AUTH_CLAIM = "auth.claim", 401, "The token lacks a claim that the route asks for, or has it with another value.", "RFC 7519 §4";
    AUTH_KEY_UNKNOWN = "auth.key_unknown", 401, "The token or signature names a key that is not known.", "RFC 7515 §4.1.4";
    AUTH_INACTIVE = "auth.inactive", 401, "The token is not active: its provider does not know it, has revoked it, or it has expired.", "RFC 7662 §2.2";
    AUTH_UNCOVERED = "auth.uncovered", 401, "The signature does not cover all that the route asks for, or lacks a parameter.", "RFC 9421 §3.2";
    AUTH_REPLAYED = "auth.replayed", 401, "The nonce of the signature was used before.", "RFC 9421 §7.2.2";
    AUTH_DIGEST = "auth.digest", 400, "The request body is not what its signed digest (Content-Digest) says.", "RFC 9530 §2";
    AUTH_UNAVAILABLE = "auth.unavailable", 503, "Who the request is from cannot be verified now.", "RFC 9110 §15.6.4";
    LOGIN_CALLBACK = "login.callback", 400, "The answer of the provider, as the browser brings it, is malformed: `code` and `state`, or `error`, are missing or there twice.", "RFC 6749 §4.1.2";
    LOGIN_STATE = "login.state", 400, "The answer of the provider is to no login that was begun in this browser, or that login is over.", "RFC 6749 §10.12";
    LOGIN_EXPIRED = "login.expired", 400, "The login took longer than it may.", "";
    LOGIN_ISSUER = "login.issuer", 400, "The answer is not of the provider that the login was begun at.", "RFC 9207 §2.4";
    LOGIN_DENIED = "login.denied", 403, "The provider says that the user, or it itself, denied the login.", "RFC 6749 §4.1.2.1";
    LOGIN_PROVIDER = "login.provider", 502, "The provider answers the login with an error.", "RFC 6749 §4.1.2.1";
    LOGIN_CODE = "login.code", 400, "The code that the browser brings from the provider is not, or no longer, good.", "RFC 6749 §5.2";
    LOGIN_TOKENS = "login.tokens", 502, "The provider gives no tokens for the code, or none that are good.", "RFC 6749 §5.2";
    LOGIN_NONCE = "login.nonce", 400, "The ID token is of another login.", "OpenID Connect Core §3.1.3.7";
    LOGIN_ID_TOKEN = "login.id_token", 502, "The ID token of the provider is not accepted: missing, forged, expired, of another issuer, or for another client.", "OpenID Connect Core §3.1.3.7";
    LOGIN_CLAIM = "login.claim", 403, "The user lacks a claim that a login needs, or has it with another value.", "RFC 9110 §15.5.4";
    LOGIN_TOO_LARGE = "login.session_bytes", 502, "What the provider gives is more than fits into the cookies of a session (`max_session`).", "";
    LOGIN_CROSS_SITE = "login.cross_site", 403, "A page of another site asks for a logout.", "RFC 9110 §15.5.4";
    RATE_LIMITED = "limit.exhausted", 429, "The client has used up what its rate limit allows.", "RFC 6585 §4";
    QUOTA = "limit.quota", 429, "The client has used up its quota, which comes back when its next period begins.", "RFC 6585 §4";
    CONCURRENCY = "limit.concurrency", 429, "The client has as many requests in progress as it may have.", "RFC 6585 §4";
    BUSY = "limit.busy", 503, "As many requests are in progress here as there may be, of all clients together.", "RFC 9110 §15.6.4";
    VALIDATE_PARAMETER = "validate.parameter", 400, "A parameter of the request (path, query, header or cookie) is missing or not as the route describes it.", "RFC 9110 §15.5.1";
    VALIDATE_MISSING = "validate.body_missing", 400, "The request has no body, and the route asks for one.", "RFC 9110 §15.5.1";
    VALIDATE_MALFORMED = "validate.malformed", 400, "The request body is not well-formed, or has a name twice in an object.", "RFC 8259 §4";
    VALIDATE_DEPTH = "validate.depth", 400, "The request body is nested deeper than the route allows.", "RFC 8259 §9";
    VALIDATE_TOO_LARGE = "validate.body_bytes", 413, "The request body is larger than one that the route checks may be.", "RFC 9110 §15.5.14";
    VALIDATE_MEDIA = "validate.media_type", 415, "The request body is of a media type that the route does not take, of more than one, or not to be there.", "RFC 9110 §15.5.16";
    VALIDATE_ENCODED = "validate.encoded", 415, "The request body is compressed, and the route checks it.", "RFC 9110 §15.5.16";
    VALIDATE_BODY = "validate.body", 422, "The request body is not as the route describes it.", "RFC 9110 §15.5.21";
    VALIDATE_BUSY = "validate.busy", 503, "So much is being checked that this request could not be in time.", "RFC 9110 §15.6.4";
    TRANSFORM_VALUE = "transform.value", 400, "A value that the path for the upstream is made of is missing in the request.", "";
    TRANSFORM_JSON = "transform.json", 400, "The request body is not well-formed JSON, and the route changes it.", "RFC 8259";
    TRANSFORM_FORM = "transform.form", 400, "The request body has more than names and plain values, and the route makes a form of it.", "";
    TRANSFORM_ENCODED = "transform.encoded", 415, "The request body is compressed, and the route changes it.", "RFC 9110 §15.5.16";
    TRANSFORM_TOO_LARGE = "transform.response_bytes", 502, "The upstream's response is larger than one that the route changes may be.", "";
    TRANSFORM_RESPONSE = "transform.response", 502, "The upstream's response cannot be changed as the route says: it is not well-formed JSON, or it is compressed.", "";
    DECOMPRESS_CODING = "decompress.coding", 415, "The request body has a content coding that is not spoken here, or more than one.", "RFC 9110 §15.5.16";
    DECOMPRESS_MALFORMED = "decompress.malformed", 400, "The request body is not what its content coding says, or ends too early.", "RFC 9110 §8.4";
    DECOMPRESS_TOO_MUCH = "decompress.bytes", 413, "The request body becomes larger than the route allows when it is decompressed.", "RFC 9110 §15.5.14";
    REQUEST_TIMEOUT = "route.timeout", 504, "The exchange took longer than the route allows.", "RFC 9110 §15.6.5";
    REWRITE_UNSAFE = "route.unsafe_rewrite", 400, "Part of the path would become a dot segment in the path the route rewrites it to.", "RFC 3986 §5.2.4";
    UPSTREAM_CONNECT = "upstream.connect", 503, "No endpoint of the upstream could be connected.", "RFC 9110 §15.6.4";
    UPSTREAM_DOWN = "upstream.down", 503, "Every endpoint of the upstream has been taken down.", "RFC 9110 §15.6.4";
    UPSTREAM_CONNECT_TIMEOUT = "upstream.connect_timeout", 504, "Connecting to the upstream took too long.", "RFC 9110 §15.6.5";
    UPSTREAM_BUSY = "upstream.busy", 503, "Every HTTP/2 connection to the upstream has as many requests on it as it may have.", "RFC 9110 §15.6.4";
    UPSTREAM_TLS = "upstream.tls", 502, "No TLS with any endpoint of the upstream: its certificate is not accepted, or the handshake failed.", "RFC 9110 §15.6.3";
    UPSTREAM_TIMEOUT = "upstream.first_byte_timeout", 504, "The upstream did not begin its response in time.", "RFC 9110 §15.6.5";
    UPSTREAM_IDLE = "upstream.idle_timeout", 504, "The upstream stopped in the middle of its response.", "RFC 9110 §15.6.5";
    UPSTREAM_CLOSED = "upstream.closed", 502, "The upstream closed or reset the connection before its response was complete.", "RFC 9110 §15.6.3";
    UPSTREAM_INVALID = "upstream.invalid_response", 502, "The upstream's response is not valid HTTP.", "RFC 9110 §15.6.3";
    RESPONSE_TOO_LARGE = "upstream.response_bytes", 502, "The upstream's response body is larger than the route allows (`max_response_body`). When its length was not announced, it was cut off.", "RFC 9110 §15.6.3";
    UPSTREAM_UPGRADE = "upstream.unasked_upgrade", 502, "The upstream switched protocols without being asked to.", "RFC 9110 §7.8";
}

/// Why and how a request is answered by the gateway itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static Reason,
    /// For 405: the methods that would have been served, as a [`MethodSet`]'s bits.
    pub allow: MethodSet,
    /// For 503 and 429: seconds after which to try again; 0 means the field is not sent.
    pub retry_after_s: u32,
    /// The client has its response already, complete.
    pub is_told: bool,
}

impl From<&'static Reason> for Refusal {
    fn from(reason: &'static Reason) -> Refusal {
        Refusal { reason, allow: MethodSet::default(), retry_after_s: 0, is_told: false }
    }
}

/// A set of the known methods; methods outside the standard ones are not listed in Allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MethodSet(pub u16);

impl MethodSet {
    pub fn insert(&mut self, method: crate::wire::Method) {
        self.0 |= 1 << method as u16;
    }

    pub fn contains(self, method: crate::wire::Method) -> bool {
        self.0 & (1 << method as u16) != 0
    }

    pub fn union(self, other: MethodSet) -> MethodSet {
        MethodSet(self.0 | other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names, in a fixed order, for an Allow field.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        crate::wire::Method::KNOWN
            .into_iter()
            .filter(move |(m, _)| self.contains(*m))
            .map(|(_, n)| n)
    }
}
