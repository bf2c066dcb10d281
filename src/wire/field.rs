//! Header and trailer fields, and what the connection-level ones mean.

use super::Span;

/// HTTP version of a message on the wire. Anything else is refused before it gets here. What comes
/// in over HTTP/2 is written down as HTTP/1.1 has it, parsed by the same rules, and then marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Version {
    /// By their number as `usize`.
    pub const ALL: [Version; 3] = [Version::Http10, Version::Http11, Version::Http2];

    /// As the field Via has it (RFC 9110 §7.6.3).
    pub fn number(self) -> &'static str {
        match self {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
            Version::Http2 => "2",
        }
    }
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
    Traceparent,
    Tracestate,
    XRequestId,
    ClientCert,
    ClientCertChain,
}

impl FieldId {
    /// Nothing in the gateway depends on it.
    pub fn is_free(self) -> bool {
        self == FieldId::Other
    }

    /// The number of the field called `name`, a token, in any letter case.
    #[inline]
    pub fn recognise(name: &[u8]) -> FieldId {
        use FieldId::*;
        match name.len() {
            2 => among(name, [(Te, b"te")]),
            3 => among(name, [(Via, b"via")]),
            4 => among(name, [(Host, b"host"), (Date, b"date")]),
            6 => among(name, [(Server, b"server"), (Expect, b"expect")]),
            7 => among(name, [(Upgrade, b"upgrade"), (Trailer, b"trailer")]),
            9 => among(name, [(Forwarded, b"forwarded"), (XRealIp, b"x-real-ip")]),
            10 => among(
                name,
                [
                    (Connection, b"connection"),
                    (KeepAlive, b"keep-alive"),
                    (Tracestate, b"tracestate"),
                ],
            ),
            11 => among(name, [(Traceparent, b"traceparent"), (ClientCert, b"client-cert")]),
            12 => among(name, [(XRequestId, b"x-request-id"), (MaxForwards, b"max-forwards")]),
            14 => among(
                name,
                [(ContentLength, b"content-length"), (Http2Settings, b"http2-settings")],
            ),
            15 => among(name, [(XForwardedFor, b"x-forwarded-for")]),
            16 => among(
                name,
                [
                    (XForwardedHost, b"x-forwarded-host"),
                    (XForwardedPort, b"x-forwarded-port"),
                    (ProxyConnection, b"proxy-connection"),
                ],
            ),
            17 => among(
                name,
                [
                    (TransferEncoding, b"transfer-encoding"),
                    (XForwardedProto, b"x-forwarded-proto"),
                    (ClientCertChain, b"client-cert-chain"),
                ],
            ),
            18 => among(name, [(ProxyAuthenticate, b"proxy-authenticate")]),
            19 => among(name, [(ProxyAuthorization, b"proxy-authorization")]),
            _ => Other,
        }
    }
}

/// Which of `known` `name` is, their letters being lower-case.
#[inline(always)]
fn among<const N: usize, const K: usize>(name: &[u8], known: [(FieldId, &[u8; N]); K]) -> FieldId {
    let Some(name) = name.first_chunk::<N>() else { return FieldId::Other };
    let folded = fold(name);
    for (id, text) in known {
        if folded == fold(text) {
            return id;
        }
    }
    FieldId::Other
}

/// Whether `text`, of value bytes, is `word` in any letter case.
#[inline]
pub(super) fn is_word<const N: usize>(text: &[u8], word: &[u8; N]) -> bool {
    <&[u8; N]>::try_from(text).is_ok_and(|text| fold(text) == fold(word))
}

/// The bytes of a name in up to three words that overlap where they must, letters in lower case.
/// Texts that differ from a name in more than case differ here: the bit set on every byte makes
/// only letters and control characters like a name's bytes, and there are none of the latter.
#[inline(always)]
fn fold<const N: usize>(name: &[u8; N]) -> (u64, u64, u64) {
    const LOWER: u64 = u64::from_le_bytes([0x20; 8]);
    if N < 4 {
        let packed = name.iter().fold(0, |packed, &b| packed << 8 | u64::from(b));
        return (packed | LOWER, 0, 0);
    }
    if N < 8 {
        let word = |at| name[at..].first_chunk().map_or(0, |&bytes| u32::from_le_bytes(bytes));
        let packed = u64::from(word(0)) << 32 | u64::from(word(N - 4));
        return (packed | LOWER, 0, 0);
    }
    let word = |at| name[at..].first_chunk().map_or(0, |&bytes| u64::from_le_bytes(bytes)) | LOWER;
    (word(0), word((N - 8).min(8)), word(N - 8))
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

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [(&str, FieldId); 28] = [
        ("Host", FieldId::Host),
        ("Connection", FieldId::Connection),
        ("Content-Length", FieldId::ContentLength),
        ("Transfer-Encoding", FieldId::TransferEncoding),
        ("Keep-Alive", FieldId::KeepAlive),
        ("Proxy-Connection", FieldId::ProxyConnection),
        ("Proxy-Authenticate", FieldId::ProxyAuthenticate),
        ("Proxy-Authorization", FieldId::ProxyAuthorization),
        ("TE", FieldId::Te),
        ("Trailer", FieldId::Trailer),
        ("Upgrade", FieldId::Upgrade),
        ("HTTP2-Settings", FieldId::Http2Settings),
        ("Expect", FieldId::Expect),
        ("Via", FieldId::Via),
        ("Date", FieldId::Date),
        ("Server", FieldId::Server),
        ("Max-Forwards", FieldId::MaxForwards),
        ("Forwarded", FieldId::Forwarded),
        ("X-Forwarded-For", FieldId::XForwardedFor),
        ("X-Forwarded-Proto", FieldId::XForwardedProto),
        ("X-Forwarded-Host", FieldId::XForwardedHost),
        ("X-Forwarded-Port", FieldId::XForwardedPort),
        ("X-Real-IP", FieldId::XRealIp),
        ("traceparent", FieldId::Traceparent),
        ("tracestate", FieldId::Tracestate),
        ("X-Request-Id", FieldId::XRequestId),
        ("Client-Cert", FieldId::ClientCert),
        ("Client-Cert-Chain", FieldId::ClientCertChain),
    ];

    #[test]
    fn recognises_every_field_in_any_case() {
        for (name, id) in NAMES {
            for text in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(FieldId::recognise(text.as_bytes()), id, "{text}");
            }
            let longer = format!("{name}x");
            assert_eq!(FieldId::recognise(longer.as_bytes()), FieldId::Other, "{longer}");
            let shorter = &name[..name.len() - 1];
            assert_eq!(FieldId::recognise(shorter.as_bytes()), FieldId::Other, "{shorter}");
            let underscore = name.replace('-', "_");
            if underscore != name {
                assert_eq!(FieldId::recognise(underscore.as_bytes()), FieldId::Other);
            }
        }
        // The last variant's number: each of the others is in the table above.
        assert_eq!(FieldId::ClientCertChain as usize, NAMES.len());
    }
}
