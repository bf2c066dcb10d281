//! Why something was refused or failed: one stable token per cause.
//!
//! A token appears unchanged in the problem+json body, the access log, the metrics and the
//! documentation. Tokens are `area.cause`; once released they never change meaning.

/// A cause, with the status a client gets for it. Compared by token.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason {
    /// Its place among all reasons, for counting. Not stable.
    pub number: u16,
    /// Stable token, `area.cause`.
    pub token: &'static str,
    /// Status code sent to the client.
    pub status: u16,
    /// One sentence for a person, naming what to do where that helps.
    pub meaning: &'static str,
    /// Where the rule comes from, for example `RFC 9112 §6.3`; empty for the gateway's own limits.
    pub source: &'static str,
}

/// Declares reasons as constants, numbered from `$first` on, and lists them, so that none can be
/// forgotten in the reference.
#[macro_export]
macro_rules! reasons {
    ($all:ident from $first:expr; $( $name:ident = $token:literal, $status:literal, $meaning:literal, $source:literal; )*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Place { $($name),* }
        $( #[doc = $meaning] pub const $name: &$crate::wire::Reason = &$crate::wire::Reason {
            number: $first as u16 + Place::$name as u16,
            token: $token, status: $status, meaning: $meaning, source: $source,
        }; )*
        /// Every reason declared here.
        pub const $all: &[&$crate::wire::Reason] = &[$($name),*];
    };
}

reasons! { WIRE_REASONS from 0;
    MALFORMED_HEAD = "head.malformed", 400, "The message head is not well-formed HTTP/1.1.", "RFC 9112 §2.2";
    BARE_LINE_END = "head.bare_line_end", 400, "A line ends with a bare LF or contains a bare CR.", "RFC 9112 §2.2";
    OBS_FOLD = "head.obs_fold", 400, "A field line is folded over several lines.", "RFC 9112 §5.2";
    BAD_FIELD_NAME = "head.bad_field_name", 400, "A field name is empty or has characters that are not allowed, or a space before the colon.", "RFC 9112 §5.1";
    BAD_FIELD_VALUE = "head.bad_field_value", 400, "A field value contains NUL or another control byte.", "RFC 9110 §5.5";
    BAD_METHOD = "head.bad_method", 400, "The method is not a token.", "RFC 9110 §9.1";
    BAD_TARGET = "head.bad_target", 400, "The request target is not well-formed.", "RFC 9112 §3.2";
    BAD_VERSION = "head.bad_version", 400, "The HTTP version is not well-formed.", "RFC 9112 §2.3";
    UNKNOWN_VERSION = "head.unknown_version", 505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.", "RFC 9110 §15.6.6";
    HEAD_TOO_LARGE = "limit.head_bytes", 431, "The message head is larger than the limit.", "RFC 6585 §5";
    TOO_MANY_FIELDS = "limit.fields", 431, "The message head has more field lines than the limit.", "RFC 6585 §5";
    TARGET_TOO_LONG = "limit.target_bytes", 414, "The request target is longer than the limit.", "RFC 9110 §15.5.15";
    HOST_MISSING = "host.missing", 400, "An HTTP/1.1 request needs a Host field.", "RFC 9112 §3.2";
    HOST_DUPLICATE = "host.duplicate", 400, "The request has more than one Host field.", "RFC 9112 §3.2";
    HOST_INVALID = "host.invalid", 400, "The Host field is not a valid host with optional port, or contradicts the request target.", "RFC 9112 §3.2";
    FRAMING_BOTH = "framing.length_and_chunked", 400, "The message has both Content-Length and Transfer-Encoding.", "RFC 9112 §6.1";
    LENGTH_INVALID = "framing.bad_length", 400, "Content-Length is not one decimal number, or is given more than once.", "RFC 9112 §6.3";
    CODING_UNSUPPORTED = "framing.bad_coding", 400, "Transfer-Encoding is anything other than a single final chunked.", "RFC 9112 §6.1";
    CODING_HTTP10 = "framing.coding_http10", 400, "An HTTP/1.0 message has Transfer-Encoding.", "RFC 9112 §6.1";
    CHUNK_INVALID = "framing.bad_chunk", 400, "The chunked body is not well-formed.", "RFC 9112 §7.1";
    TRAILER_INVALID = "framing.bad_trailer", 400, "The trailer section is not well-formed, too large, or has a field that may not be a trailer.", "RFC 9112 §7.1.2";
    CONNECTION_INVALID = "head.bad_connection", 400, "The Connection field is not a list of tokens, or names a field that must be forwarded.", "RFC 9110 §7.6.1";
    EXPECT_UNKNOWN = "head.unknown_expectation", 417, "The only expectation understood is 100-continue.", "RFC 9110 §10.1.1";
    PATH_ENCODING = "path.bad_encoding", 400, "The path has a bad percent-encoding or an encoded control character.", "RFC 3986 §2.1";
    PATH_AMBIGUOUS = "path.ambiguous", 400, "The path can be read in more than one way (encoded slash, backslash, or parameters on a dot segment).", "RFC 3986 §3.3";
    PATH_ESCAPES = "path.escapes_root", 400, "The path climbs above its root.", "RFC 3986 §5.2.4";
    STATUS_INVALID = "response.bad_status", 502, "The upstream's status line is not well-formed.", "RFC 9112 §4";
}
