//! Messages between HTTP/1.1 as this gateway writes and reads it, and HTTP/2.
//!
//! Invariant: what an endpoint sends over HTTP/2 is judged by the parsers of HTTP/1.1: it is
//! written down as HTTP/1.1 has it, and what could not be written so is refused here.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::wire::{FieldId, HeadLimits, Parsed, chunked::Trailers, emit};

/// Fields that concern one connection (RFC 9113 §8.2.2).
fn is_of_connection(name: &[u8]) -> bool {
    matches!(
        FieldId::recognise(name),
        FieldId::Connection
            | FieldId::KeepAlive
            | FieldId::ProxyConnection
            | FieldId::TransferEncoding
            | FieldId::Upgrade
            | FieldId::Http2Settings
    )
}

/// The request whose head, complete and of this gateway's making, is `head`. `None` when its method
/// or target cannot be said over HTTP/2.
pub fn request(head: &[u8], scheme: Scheme) -> Option<Request<()>> {
    let mut lines = lines(head);
    let mut start = lines.next()?.splitn(3, |b| *b == b' ');
    let (method, target) = (start.next()?, start.next()?);
    let mut headers = HeaderMap::with_capacity(24);
    let mut host: &[u8] = b"";
    for (name, value) in lines.filter_map(field) {
        match FieldId::recognise(name) {
            FieldId::Host => host = value,
            FieldId::Te if !value.eq_ignore_ascii_case(b"trailers") => {}
            _ if is_of_connection(name) => {}
            _ => {
                let value = HeaderValue::from_bytes(value).ok()?;
                headers.append(HeaderName::from_bytes(name).ok()?, value);
            }
        }
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.headers_mut() = headers;
    *request.version_mut() = Version::HTTP_2;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path(target)?);
    parts.scheme = Some(scheme);
    parts.authority = Some(Authority::try_from(host).ok()?);
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(request)
}

fn path(target: &[u8]) -> Option<PathAndQuery> {
    if let Ok(path) = PathAndQuery::try_from(target) {
        return Some(path);
    }
    // What is let through from HTTP/1.1 beyond RFC 3986 has its escaped form in HTTP/2.
    let mut escaped = Vec::with_capacity(target.len() + 16);
    for b in target {
        match b {
            b'`' | b'\\' | b'^' | b'{' | b'|' | b'}' => {
                escaped.push(b'%');
                escaped.extend_from_slice(format!("{b:02X}").as_bytes());
            }
            b => escaped.push(*b),
        }
    }
    PathAndQuery::try_from(escaped.as_slice()).ok()
}

/// The trailers whose lines, checked before, are `section`.
pub fn trailers(section: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines(section).filter_map(field) {
        let name = HeaderName::from_bytes(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// Lines without their CRLF, up to the empty one.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

/// What of a response cannot be written as HTTP/1.1 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritable;

/// Writes a response's head as HTTP/1.1 has it. `is_empty`: it has no body, and it may have one.
pub fn response_head(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    is_empty: bool,
) -> Result<(), Unwritable> {
    let status = status.as_u16();
    // There is no switching of protocols (RFC 9113 §8.6).
    if status == 101 || status > 599 {
        return Err(Unwritable);
    }
    emit::status_line(out, status, emit::phrase(status).as_bytes());
    fields(out, headers)?;
    if is_empty && !headers.contains_key(http::header::CONTENT_LENGTH) {
        emit::number_field(out, b"Content-Length", 0);
    }
    emit::end(out);
    Ok(())
}

fn fields(out: &mut Vec<u8>, headers: &HeaderMap) -> Result<(), Unwritable> {
    for (name, value) in headers {
        let value = value.as_bytes();
        // RFC 9113 §8.2.1.
        let is_padded = value.trim_ascii().len() != value.len();
        if is_padded || is_of_connection(name.as_ref()) {
            return Err(Unwritable);
        }
        emit::field(out, name.as_ref(), value);
    }
    Ok(())
}

/// Trailers as lines to be forwarded, judged as those of HTTP/1.1.
pub fn trailer_lines(headers: &HeaderMap, limits: &HeadLimits) -> Result<Vec<u8>, Unwritable> {
    let mut section = Vec::new();
    fields(&mut section, headers)?;
    emit::end(&mut section);
    let mut trailers = Trailers::default();
    match trailers.parse(&section, limits) {
        Ok(Parsed::Complete(())) => {}
        _ => return Err(Unwritable),
    }
    let kept = trailers.fields.iter().filter(|field| !field.hop_by_hop);
    Ok(kept.flat_map(|field| field.line.of(&section)).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &str) -> Request<()> {
        request(head.as_bytes(), Scheme::HTTPS).expect("a request")
    }

    #[test]
    fn a_request_leaves_its_connection_behind() {
        let request = of("POST /a%20b/c?q=1&r={x} HTTP/1.1\r\nHost: App.test:8443\r\n\
             Accept: */*\r\nX-Two: 1\r\nX-Two: 2\r\nTransfer-Encoding: chunked\r\n\
             Connection: TE, Upgrade\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n");
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "https://App.test:8443/a%20b/c?q=1&r={x}");
        let headers = request.headers();
        let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["accept", "x-two", "te"]);
        assert_eq!(headers.get_all("x-two").iter().count(), 2);
    }

    #[test]
    fn every_target_and_host_of_http1_can_be_said() {
        let odd: String =
            (0x21..0x7fu8).map(char::from).filter(|c| !"\"<>#?".contains(*c)).collect();
        for target in [format!("/{odd}?{odd}"), "*".to_owned(), "/".to_owned()] {
            let request = of(&format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let path = request.uri().path_and_query().expect("a path").as_str();
            assert!(path == target || path.contains("%60"), "{path}");
        }
        for host in ["a", "a.b:80", "a_b~c.d", "127.0.0.1:1", "[::1]:80", "[fd00::1]", "a:"] {
            let request = of(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(request.uri().authority().map(Authority::as_str), Some(host));
        }
    }

    #[test]
    fn responses_that_http1_could_not_carry_are_refused() {
        let written = |status: u16, name: &str, value: &[u8]| {
            let mut headers = HeaderMap::new();
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.insert(name, HeaderValue::from_bytes(value).expect("a value"));
            let mut out = Vec::new();
            let status = StatusCode::from_u16(status).expect("a status");
            response_head(&mut out, status, &headers, false).map(|()| out)
        };
        assert_eq!(
            written(200, "a", b"b \xff"),
            Ok(b"HTTP/1.1 200 OK\r\na: b \xff\r\n\r\n".into())
        );
        for (status, name, value) in [
            (101, "a", "b"),
            (600, "a", "b"),
            (200, "a", " b"),
            (200, "a", "b\t"),
            (200, "connection", "close"),
            (200, "transfer-encoding", "chunked"),
            (200, "upgrade", "h2c"),
            (200, "keep-alive", "1"),
            (200, "proxy-connection", "close"),
        ] {
            assert_eq!(written(status, name, value.as_bytes()), Err(Unwritable), "{name} {value}");
        }
    }

    #[test]
    fn trailers_pass_both_ways_but_not_what_may_not_be_one() {
        let limits = HeadLimits { head_bytes_max: 4096, target_bytes_max: 0, fields_max: 8 };
        let headers = trailers(b"Grpc-Status: 0\r\ngrpc-message: all is well\r\n");
        let lines = trailer_lines(&headers, &limits).expect("they may be trailers");
        assert_eq!(lines, b"grpc-status: 0\r\ngrpc-message: all is well\r\n");
        assert_eq!(trailer_lines(&trailers(b"content-length: 1\r\n"), &limits), Err(Unwritable));
        let many: String = (0..9).map(|i| format!("x-{i}: y\r\n")).collect();
        assert_eq!(trailer_lines(&trailers(many.as_bytes()), &limits), Err(Unwritable));
    }
}
