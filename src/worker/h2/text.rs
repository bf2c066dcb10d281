//! A request of HTTP/2 written down as HTTP/1.1 has it (RFC 9113 §8.3.1, §8.2).
//!
//! So there is one codec: what is written here is parsed by [`crate::wire::RequestHead`], under
//! the same limits and with the same strictness as what comes over HTTP/1.1, and nothing can reach
//! an HTTP/1.1 upstream that it would not have let pass. The `h2` crate has refused what HTTP/2
//! itself forbids: fields about connections, upper-case names, lengths that the data contradicts.

use http::{HeaderName, HeaderValue, header, request::Parts};

use crate::{
    wire::{Reason, emit, reason},
    worker::buffers::{Buffer, TAILROOM},
};

/// How the body that follows is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    /// All of it is there.
    Whole(usize),
    /// Its length, if the client has told it, is among the fields.
    Streamed,
}

/// Bytes around the fields: version, framing, line ends.
const AROUND_BYTES: usize = 96;

/// A buffer with the head of `parts` and room for `more` bytes behind it. `websocket_key`: the
/// request is the beginning of a WebSocket (RFC 8441 §5), which HTTP/1.1 asks for with that key.
pub fn head(
    parts: &Parts,
    body: Body,
    more: usize,
    websocket_key: Option<&str>,
) -> Result<Buffer, &'static Reason> {
    let mut out = Vec::with_capacity(estimate(parts));
    request_line(&mut out, parts, websocket_key.is_some());
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    if let Some(authority) = authority {
        emit::field(&mut out, b"Host", authority.as_bytes());
    }
    fields(&mut out, parts, authority)?;
    let has_length = parts.headers.contains_key(header::CONTENT_LENGTH);
    match body {
        Body::Whole(bytes) if !has_length => {
            emit::number_field(&mut out, b"Content-Length", bytes as u64);
        }
        Body::Streamed if !has_length => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        _ => {}
    }
    if let Some(key) = websocket_key {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        emit::field(&mut out, b"Sec-WebSocket-Key", key.as_bytes());
    } else if parts.headers.contains_key(header::TE) {
        out.extend_from_slice(b"Connection: TE\r\n");
    }
    emit::end(&mut out);
    let mut buf = Buffer::with_capacity(out.len() + more + TAILROOM);
    buf.append(&out);
    Ok(buf)
}

fn estimate(parts: &Parts) -> usize {
    let line = |name: &HeaderName, value: &HeaderValue| name.as_str().len() + value.len() + 4;
    let fields: usize = parts.headers.iter().map(|(name, value)| line(name, value)).sum();
    let path = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    AROUND_BYTES + parts.method.as_str().len() + path + 2 * authority + fields
}

fn request_line(out: &mut Vec<u8>, parts: &Parts, is_websocket: bool) {
    let path = parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    // CONNECT has an authority alone.
    let authority = || parts.uri.authority().map_or("/", http::uri::Authority::as_str);
    let target = match path {
        Some(path) if is_websocket || parts.method != http::Method::CONNECT => path,
        _ => authority(),
    };
    let method = if is_websocket { "GET" } else { parts.method.as_str() };
    emit::request_line(out, method.as_bytes(), target.as_bytes(), None);
}

fn fields(
    out: &mut Vec<u8>,
    parts: &Parts,
    authority: Option<&str>,
) -> Result<(), &'static Reason> {
    let mut cookies: Vec<&[u8]> = Vec::new();
    for (name, value) in &parts.headers {
        let value = value.as_bytes();
        if name == header::SEC_WEBSOCKET_KEY && parts.method == http::Method::CONNECT {
            // The gateway's own takes its place.
        } else if name == header::COOKIE {
            cookies.push(value);
        } else if name != header::HOST {
            emit::field(out, name.as_str().as_bytes(), value);
        } else if let Some(authority) = authority {
            // Two names for one request: whoever is asked next may take either (§8.3.1).
            if !value.eq_ignore_ascii_case(authority.as_bytes()) {
                return Err(reason::HOST_INVALID);
            }
        } else {
            emit::field(out, b"Host", value);
        }
    }
    if !cookies.is_empty() {
        // Clients may send them apart; HTTP/1.1 knows one field only (§8.2.3).
        emit::field(out, b"cookie", &cookies.join(&b"; "[..]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::wire::{Framing, HeadLimits, Parsed, RequestHead};

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 4096, target_bytes_max: 1024, fields_max: 50 };

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn text(parts: &Parts, body: Body) -> Result<String, &'static Reason> {
        let buf = head(parts, body, 0, None)?;
        Ok(String::from_utf8(buf.bytes().to_vec()).expect("ASCII"))
    }

    #[test]
    fn as_http_1_1_has_it() {
        let request = parts("GET", "https://a.example/x?y=1", &[("accept", "*/*")]);
        let wanted = "GET /x?y=1 HTTP/1.1\r\nHost: a.example\r\naccept: */*\r\n\r\n";
        assert_eq!(text(&request, Body::None).as_deref(), Ok(wanted));
        let request = parts("OPTIONS", "*", &[("host", "a.example")]);
        let wanted = "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n";
        assert_eq!(text(&request, Body::None).as_deref(), Ok(wanted));
    }

    #[test]
    fn bodies_are_announced() {
        let of = |fields: &[(&str, &str)], body| {
            let text = text(&parts("POST", "http://a/", fields), body).expect("a head");
            let mut head = RequestHead::default();
            assert_eq!(head.parse(text.as_bytes(), &LIMITS), Ok(Parsed::Complete(())));
            head.framing
        };
        let told = [("content-length", "7")];
        assert_eq!(of(&[], Body::None), Framing::None);
        assert_eq!(of(&[], Body::Whole(3)), Framing::Length(3));
        assert_eq!(of(&[], Body::Streamed), Framing::Chunked);
        assert_eq!(of(&told, Body::Streamed), Framing::Length(7));
        assert_eq!(of(&told, Body::Whole(7)), Framing::Length(7));
    }

    #[test]
    fn cookies_are_one_field_and_trailers_are_announced() {
        let fields = [("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2")];
        let text = text(&parts("GET", "http://a/", &fields), Body::None).expect("a head");
        assert!(text.contains("cookie: a=1; b=2\r\n"), "{text}");
        assert!(text.contains("te: trailers\r\n") && text.contains("Connection: TE\r\n"), "{text}");
    }

    #[test]
    fn host_may_not_contradict_the_authority() {
        let of = |host| text(&parts("GET", "http://a.example/", &[("host", host)]), Body::None);
        assert_eq!(of("b.example"), Err(reason::HOST_INVALID));
        let text = of("A.example").expect("the same");
        assert_eq!(text.matches("a.example").count(), 1, "once: {text}");
    }
}
