//! Header and trailer fields, and what the connection-level ones mean.

use super::Span;

/// HTTP version of a message on the wire. Anything else is refused before it gets here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

/// How a message body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// Exactly this many bytes follow the head (may be 0).
    Length(u64),
    Chunked,
    /// Responses only: the body ends when the connection does.
    UntilClose,
}

/// Fields the gateway itself reads or writes, recognised once while parsing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FieldId {
    #[default]
    Other,
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    KeepAlive,
    ProxyConnection,
    ProxyAuthenticate,
    ProxyAuthorization,
    Te,
    Trailer,
    Upgrade,
    Http2Settings,
    Expect,
    Via,
    Date,
    Server,
    MaxForwards,
    Forwarded,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XForwardedPort,
    XRealIp,
    XRequestId,
}

/// One field line of a head or trailer section.
#[derive(Clone, Copy, Debug, Default)]
pub struct Field {
    pub name: Span,
    /// Without surrounding whitespace.
    pub value: Span,
    /// The whole line, from the name's first byte to and including its CRLF.
    pub line: Span,
    pub id: FieldId,
    /// Belongs to this connection only (RFC 9110 §7.6.1): listed as hop-by-hop, or named by a
    /// Connection field. Never forwarded.
    pub hop_by_hop: bool,
}

/// What the Connection field (and the version) say about the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// The connection may serve another message after this one: HTTP/1.1 without `close`, or
    /// HTTP/1.0 with `keep-alive`.
    pub persistent: bool,
    /// `Connection: upgrade` with an Upgrade field beside it.
    pub upgrade: bool,
    /// `TE: trailers` was sent (and named by Connection).
    pub te_trailers: bool,
}
