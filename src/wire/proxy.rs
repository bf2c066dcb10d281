//! The PROXY protocol (HAProxy's specification of 2020, versions 1 and 2): whom a proxy in front
//! speaks for, said once at the beginning of a connection.
//!
//! Only what can be read in one way is accepted: one space between words, numbers without sign or
//! leading zero, both addresses of the family that was announced. What follows the addresses in
//! version 2 (TLVs) is skipped. What is written here is what is read here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Parsed;

/// Longest header that is read: version 2 may carry as much behind its addresses.
pub const HEADER_BYTES_MAX: usize = 4096;
/// Longest line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;
const WORD: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of it.
    pub len: usize,
    /// The client; `None` when the proxy speaks for itself, or does not say for whom.
    pub source: Option<SocketAddr>,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// The connection begins with something else.
    Missing,
    /// It begins as a header does, and is none.
    Malformed,
}

/// Reads a header from the front of what has arrived.
pub fn parse(bytes: &[u8]) -> Result<Parsed<Header>, NoHeader> {
    if begins(bytes, SIGNATURE) {
        return if bytes.len() < FIXED_BYTES { Ok(Parsed::Partial) } else { binary(bytes) };
    }
    if !begins(bytes, WORD) {
        return Err(NoHeader::Missing);
    }
    match bytes.iter().take(LINE_BYTES_MAX).position(|b| *b == b'\n') {
        None if bytes.len() >= LINE_BYTES_MAX => Err(NoHeader::Malformed),
        None => Ok(Parsed::Partial),
        Some(end) => {
            let line = bytes[..end].strip_suffix(b"\r").ok_or(NoHeader::Malformed)?;
            let line = std::str::from_utf8(line).map_err(|_| NoHeader::Malformed)?;
            let source = line_source(line).ok_or(NoHeader::Malformed)?;
            Ok(Parsed::Complete(Header { len: end + 1, source }))
        }
    }
}

/// Whether the two are the same as far as both go, and there is something.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let n = bytes.len().min(with.len());
    n > 0 && bytes[..n] == with[..n]
}

/// Of `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`. The outer `None`: malformed.
fn line_source(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Some(None);
    }
    let mut address = || -> Option<IpAddr> {
        let ip: IpAddr = words.next()?.parse().ok()?;
        match (family, ip) {
            ("TCP4", IpAddr::V4(_)) | ("TCP6", IpAddr::V6(_)) => Some(ip),
            _ => None,
        }
    };
    let (source, _destination) = (address()?, address()?);
    let (port, _) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then_some(Some(SocketAddr::new(source, port)))
}

fn port(text: &str) -> Option<u16> {
    let is_plain =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Version 2; the fixed part is there.
fn binary(bytes: &[u8]) -> Result<Parsed<Header>, NoHeader> {
    let [command, family] = [bytes[12], bytes[13]];
    let body_len = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let len = FIXED_BYTES + body_len;
    if command >> 4 != 2 || len > HEADER_BYTES_MAX {
        return Err(NoHeader::Malformed);
    }
    let Some(body) = bytes.get(FIXED_BYTES..len) else { return Ok(Parsed::Partial) };
    let source = match (command & 0xf, family) {
        // LOCAL: the proxy itself, such as its health checks.
        (0, _) => None,
        (1, 0x11) => Some(v4(body).ok_or(NoHeader::Malformed)?),
        (1, 0x21) => Some(v6(body).ok_or(NoHeader::Malformed)?),
        // Not said, or a Unix socket.
        (1, 0x00 | 0x31) => None,
        _ => return Err(NoHeader::Malformed),
    };
    Ok(Parsed::Complete(Header { len, source }))
}

/// Source and destination addresses, source and destination ports.
fn v4(body: &[u8]) -> Option<SocketAddr> {
    let body: &[u8; 12] = body.first_chunk()?;
    let ip: [u8; 4] = *body.first_chunk()?;
    Some(SocketAddr::new(Ipv4Addr::from(ip).into(), u16::from_be_bytes([body[8], body[9]])))
}

fn v6(body: &[u8]) -> Option<SocketAddr> {
    let body: &[u8; 36] = body.first_chunk()?;
    let ip: [u8; 16] = *body.first_chunk()?;
    Some(SocketAddr::new(Ipv6Addr::from(ip).into(), u16::from_be_bytes([body[32], body[33]])))
}

/// What an upstream is told about a client's connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told<'a> {
    /// The client and where it connected; `None` when there is no address, as on a Unix socket.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The name that the client asked for by TLS; empty when it asked for none.
    pub authority: &'a [u8],
    /// The protocol that was agreed on by ALPN; empty when none was.
    pub alpn: &'a [u8],
    pub tls: Option<Secured<'a>>,
}

/// TLS that was ended here.
#[derive(Clone, Copy, Debug)]
pub struct Secured<'a> {
    /// As in `TLSv1.3`.
    pub version: &'a str,
    /// The client has shown a certificate, and it was verified.
    pub is_verified: bool,
}

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
/// Flags of `SSL`: there is TLS; a certificate was shown in this connection, and in its session.
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERTIFICATE: u8 = 0x02 | 0x04;

/// Appends a header of version 1, which has room for the addresses only.
pub fn write_line(out: &mut Vec<u8>, told: &Told<'_>) {
    let line = match told.addresses.map(|(source, to)| same_family(source, to)) {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some((source, to)) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (ip, port) = (source.ip(), source.port());
            format!("PROXY {family} {ip} {} {port} {}\r\n", to.ip(), to.port())
        }
    };
    out.extend_from_slice(line.as_bytes());
}

/// Appends a header of version 2.
pub fn write_binary(out: &mut Vec<u8>, told: &Told<'_>) {
    let begin = out.len();
    out.extend_from_slice(SIGNATURE);
    let addresses = told.addresses.map(|(source, to)| same_family(source, to));
    let family = match addresses {
        None => 0x00,
        Some((source, _)) if source.is_ipv4() => 0x11,
        Some(_) => 0x21,
    };
    out.extend([0x21, family, 0, 0]);
    if let Some((source, to)) = addresses {
        for ip in [source.ip(), to.ip()] {
            match ip {
                IpAddr::V4(ip) => out.extend(ip.octets()),
                IpAddr::V6(ip) => out.extend(ip.octets()),
            }
        }
        out.extend(source.port().to_be_bytes());
        out.extend(to.port().to_be_bytes());
    }
    for (kind, value) in [(ALPN, told.alpn), (AUTHORITY, told.authority)] {
        if !value.is_empty() {
            tlv(out, kind, &[value]);
        }
    }
    if let Some(tls) = &told.tls {
        let (flags, verify) = match tls.is_verified {
            true => (CLIENT_SSL | CLIENT_CERTIFICATE, 0u32),
            false => (CLIENT_SSL, 1),
        };
        let mut version = Vec::new();
        tlv(&mut version, SSL_VERSION, &[tls.version.as_bytes()]);
        tlv(out, SSL, &[&[flags], &verify.to_be_bytes(), &version]);
    }
    let length = (out.len() - begin - FIXED_BYTES) as u16;
    out[begin + FIXED_BYTES - 2..begin + FIXED_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// A type, a length, a value. Names and protocols have at most 255 bytes.
fn tlv(out: &mut Vec<u8>, kind: u8, value: &[&[u8]]) {
    let length: usize = value.iter().map(|part| part.len()).sum();
    out.push(kind);
    out.extend((length as u16).to_be_bytes());
    value.iter().for_each(|part| out.extend_from_slice(part));
}

/// Both as IPv4, or both as IPv6: a header has one family.
fn same_family(source: SocketAddr, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    let both = [source, to].map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()));
    let [source, to] = match both {
        [SocketAddr::V4(_), SocketAddr::V4(_)] | [SocketAddr::V6(_), SocketAddr::V6(_)] => both,
        _ => both.map(|at| match at.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), at.port()),
            IpAddr::V6(_) => at,
        }),
    };
    (source, to)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

    fn six() -> [u8; 36] {
        let mut body = [0; 36];
        body[..16]
            .copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().expect("an address").octets());
        body[32..34].copy_from_slice(&4242u16.to_be_bytes());
        body
    }

    fn at(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    fn good() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        let mut with_tlv = FOUR.to_vec();
        with_tlv.extend([0x02, 0, 3, b'a', b'b', b'c']);
        vec![
            (line("TCP4 192.0.2.1 198.51.100.1 56324 443"), at("192.0.2.1:56324")),
            (line("TCP6 2001:db8::7 2001:db8::1 4242 443"), at("[2001:db8::7]:4242")),
            (line("TCP4 0.0.0.0 255.255.255.255 0 65535"), at("0.0.0.0:0")),
            (line("UNKNOWN"), None),
            (line("UNKNOWN whatever 1 2 3"), None),
            (v2(0x21, 0x11, &FOUR), at("192.0.2.1:56324")),
            (v2(0x21, 0x11, &with_tlv), at("192.0.2.1:56324")),
            (v2(0x21, 0x21, &six()), at("[2001:db8::7]:4242")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &FOUR), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ]
    }

    #[test]
    fn headers_are_read_wherever_they_are_cut() {
        for (bytes, source) in good() {
            for cut in 1..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(Parsed::Partial), "{bytes:?} at {cut}");
            }
            let more = [&*bytes, b"GET / HTTP/1.1\r\n"].concat();
            let header = Header { len: bytes.len(), source };
            assert_eq!(parse(&more), Ok(Parsed::Complete(header)), "{bytes:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let lines = [
            "TCP4 192.0.2.1 198.51.100.1 56324",
            "TCP4 192.0.2.1 198.51.100.1 56324 443 1",
            "TCP4 192.0.2.1  198.51.100.1 56324 443",
            "TCP4 192.0.2.01 198.51.100.1 56324 443",
            "TCP4 2001:db8::7 2001:db8::1 1 2",
            "TCP6 192.0.2.1 198.51.100.1 1 2",
            "TCP4 192.0.2.1 198.51.100.1 +1 443",
            "TCP4 192.0.2.1 198.51.100.1 01 443",
            "TCP4 192.0.2.1 198.51.100.1 65536 443",
            "TCP4 192.0.2.1 198.51.100.1 1 443 ",
            "tcp4 192.0.2.1 198.51.100.1 1 443",
            "UDP4 192.0.2.1 198.51.100.1 1 443",
            "",
        ];
        for line in lines {
            let bytes = format!("PROXY {line}\r\n");
            assert_eq!(parse(bytes.as_bytes()), Err(NoHeader::Malformed), "{line}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        let bare = b"PROXY UNKNOWN\n".to_vec();
        let binary = [
            v2(0x11, 0x11, &FOUR),
            v2(0x22, 0x11, &FOUR),
            v2(0x21, 0x12, &FOUR),
            v2(0x21, 0x11, &FOUR[..11]),
            v2(0x21, 0x21, &FOUR),
            v2(0x21, 0x11, &[0; 5000]),
        ];
        for bytes in [long.into_bytes(), bare].into_iter().chain(binary) {
            assert_eq!(parse(&bytes), Err(NoHeader::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn other_beginnings_are_told_apart_at_once() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROPFIND / HTTP/1.1\r\n",
            b"PROXY\r\n",
            b"\x16\x03\x01",
            b"\r\n\r\nX",
        ] {
            assert_eq!(parse(bytes), Err(NoHeader::Missing), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_told_has_the_form_that_others_read() {
        let (source, to) = (at("192.0.2.1:56324").zip(at("198.51.100.1:443"))).expect("both");
        let tls = Some(Secured { version: "TLSv1.3", is_verified: true });
        let told =
            Told { addresses: Some((source, to)), authority: b"a.example", alpn: b"h2", tls };
        let mut bytes = Vec::new();
        write_binary(&mut bytes, &told);
        let mut body = FOUR.to_vec();
        body.extend(b"\x01\0\x02h2\x02\0\x09a.example");
        body.extend(b"\x20\0\x0f\x07\0\0\0\0\x21\0\x07TLSv1.3");
        assert_eq!(bytes, v2(0x21, 0x11, &body));
        let mut line = Vec::new();
        write_line(&mut line, &told);
        assert_eq!(line, b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n");
        let nobody = Told::default();
        bytes.clear();
        line.clear();
        write_binary(&mut bytes, &nobody);
        write_line(&mut line, &nobody);
        assert_eq!((bytes, &*line), (v2(0x21, 0, &[]), &b"PROXY UNKNOWN\r\n"[..]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            addresses in prop::option::of(any::<(SocketAddr, SocketAddr)>()),
            authority in prop::collection::vec(any::<u8>(), 0..254),
            alpn in prop::collection::vec(any::<u8>(), 0..256),
            tls in prop::option::of(any::<bool>()),
        ) {
            let tls = tls.map(|is_verified| Secured { version: "TLSv1.2", is_verified });
            let told = Told { addresses, authority: &authority, alpn: &alpn, tls };
            let writers: [fn(&mut Vec<u8>, &Told<'_>); 2] = [write_line, write_binary];
            for write in writers {
                let mut bytes = b"before".to_vec();
                write(&mut bytes, &told);
                let header = &bytes[6..];
                let Ok(Parsed::Complete(read)) = parse(header) else {
                    panic!("not read: {header:?}");
                };
                prop_assert_eq!(read.len, header.len());
                let canonical = |at: SocketAddr| (at.ip().to_canonical(), at.port());
                prop_assert_eq!(
                    read.source.map(canonical),
                    addresses.map(|(source, _)| canonical(source))
                );
            }
        }

        #[test]
        fn nothing_makes_it_panic_and_no_header_is_longer_than_what_came(
            bytes in prop::collection::vec(any::<u8>(), 1..200),
            which in 0usize..3,
        ) {
            let start: [&[u8]; 3] = [b"", WORD, SIGNATURE];
            let bytes = [start[which], &bytes].concat();
            if let Ok(Parsed::Complete(header)) = parse(&bytes) {
                prop_assert!(header.len <= bytes.len());
                prop_assert_eq!(parse(&bytes[..header.len]), Ok(Parsed::Complete(header)));
            }
        }
    }
}
