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
    request_line(&mut out, parts, websocket_key.is_some())?;
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

fn request_line(
    out: &mut Vec<u8>,
    parts: &Parts,
    is_websocket: bool,
) -> Result<(), &'static Reason> {
    let path = parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    // CONNECT has an authority alone.
    let authority = || parts.uri.authority().map_or("/", http::uri::Authority::as_str);
    let target = match path {
        Some(path) if is_websocket || parts.method != http::Method::CONNECT => path,
        _ => authority(),
    };
    // A whole URI, which HTTP/1.1 would accept, is no path (§8.3.1).
    let has_path = is_websocket || parts.method != http::Method::CONNECT;
    if has_path && !target.starts_with('/') && target != "*" {
        return Err(reason::BAD_TARGET);
    }
    let method = if is_websocket { "GET" } else { parts.method.as_str() };
    emit::request_line(out, method.as_bytes(), target.as_bytes(), None);
    Ok(())
}

/// Begins or ends with white space (§8.2.1), which HTTP/1.1 would take for some around the value.
pub fn is_padded(value: &[u8]) -> bool {
    matches!(value.first(), Some(b' ' | b'\t')) || matches!(value.last(), Some(b' ' | b'\t'))
}

fn fields(
    out: &mut Vec<u8>,
    parts: &Parts,
    authority: Option<&str>,
) -> Result<(), &'static Reason> {
    let mut cookies: Vec<&[u8]> = Vec::new();
    let mut has_host = false;
    for (name, value) in &parts.headers {
        let value = value.as_bytes();
        if is_padded(value) {
            return Err(reason::BAD_FIELD_VALUE);
        }
        if name == header::SEC_WEBSOCKET_KEY && parts.method == http::Method::CONNECT {
            // The gateway's own takes its place.
        } else if name == header::COOKIE {
            // An empty one says nothing, and would be white space where they are put together.
            cookies.extend(Some(value).filter(|value| !value.is_empty()));
        } else if name != header::HOST {
            emit::field(out, name.as_str().as_bytes(), value);
        } else if let Some(authority) = authority {
            // Two names for one request: whoever is asked next may take either (§8.3.1).
            if !value.eq_ignore_ascii_case(authority.as_bytes()) {
                return Err(reason::HOST_INVALID);
            }
            if std::mem::replace(&mut has_host, true) {
                return Err(reason::HOST_DUPLICATE);
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
    use proptest::prelude::*;

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
    fn space_around_values_and_whole_uris_are_refused() {
        for value in [" a", "a ", "\ta", "a\t", " "] {
            let request = parts("GET", "http://a/", &[("x", value)]);
            assert_eq!(text(&request, Body::None), Err(reason::BAD_FIELD_VALUE), "{value:?}");
        }
        let mut request = parts("GET", "/", &[("host", "a")]);
        request.uri = http::Uri::from_static("a");
        assert_eq!(text(&request, Body::None), Err(reason::BAD_TARGET));
    }

    #[test]
    fn host_may_not_contradict_the_authority() {
        let of = |host| text(&parts("GET", "http://a.example/", &[("host", host)]), Body::None);
        assert_eq!(of("b.example"), Err(reason::HOST_INVALID));
        let twice = [("host", "a.example"), ("host", "a.example")];
        let twice = text(&parts("GET", "http://a.example/", &twice), Body::None);
        assert_eq!(twice, Err(reason::HOST_DUPLICATE));
        let text = of("A.example").expect("the same");
        assert_eq!(text.matches("a.example").count(), 1, "once: {text}");
    }

    const WIDE: HeadLimits =
        HeadLimits { head_bytes_max: 65_536, target_bytes_max: 8192, fields_max: 256 };

    fn names() -> impl Strategy<Value = HeaderName> {
        const KNOWN: &[&str] =
            &["host", "cookie", "content-length", "expect", "trailer", "te", "http2-settings"];
        // Those that the codec refuses do not come.
        let is_refused = |name: &HeaderName| {
            ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"]
                .contains(&name.as_str())
        };
        prop_oneof![
            prop::sample::select(KNOWN).prop_map(str::to_owned),
            "[a-z0-9!#$%&'*+.^_`|~-]{1,12}",
        ]
        .prop_filter_map("a name", move |name| {
            HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !is_refused(name))
        })
    }

    fn values() -> impl Strategy<Value = HeaderValue> {
        prop_oneof![
            "[ -~\t]{0,20}".prop_map(String::into_bytes),
            "[0-9]{1,3}".prop_map(String::into_bytes),
            "(a\\.example|trailers|100-continue)".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..20),
        ]
        .prop_filter_map("a value", |value| HeaderValue::from_bytes(&value).ok())
    }

    fn requests() -> impl Strategy<Value = Parts> {
        let method = "([A-Za-z!#$%&'*+.^_`|~-]{1,8}|GET|OPTIONS|CONNECT)";
        let path = prop_oneof![
            "/[!-~]{0,20}",
            "[!-~]{1,20}",
            "/\\PC{0,10}",
            Just("*".to_owned()),
            Just("/".to_owned()),
        ];
        let authority = prop::option::of("([a-z.]{1,9}|[!-~]{1,12}|a\\.example(:[0-9]{1,5})?)");
        let fields = prop::collection::vec((names(), values()), 0..8);
        (method, path, authority, fields).prop_filter_map("a request", |parts| {
            let (method, path, authority, fields) = parts;
            let mut request = Request::builder().method(method.as_bytes()).body(()).ok()?;
            let mut uri = http::uri::Parts::default();
            uri.path_and_query = Some(path.parse().ok()?);
            if let Some(authority) = authority {
                uri.authority = Some(authority.parse().ok()?);
                uri.scheme = Some(http::uri::Scheme::HTTP);
            }
            *request.uri_mut() = http::Uri::from_parts(uri).ok()?;
            request.headers_mut().extend(fields);
            Some(request.into_parts().0)
        })
    }

    /// What a head must have: one Host, one Cookie, all other fields as they came.
    fn wanted(parts: &Parts) -> Vec<(String, Vec<u8>)> {
        let host = parts.uri.authority().map(|host| host.as_str().as_bytes().to_vec());
        let of = |wanted: &HeaderName| -> Vec<Vec<u8>> {
            parts.headers.get_all(wanted).iter().map(|value| value.as_bytes().to_vec()).collect()
        };
        let mut fields: Vec<(String, Vec<u8>)> = parts
            .headers
            .iter()
            .filter(|(name, _)| ![header::HOST, header::COOKIE].contains(name))
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect();
        let hosts = host.map_or_else(|| of(&header::HOST), |host| vec![host]);
        fields.extend(hosts.into_iter().map(|host| ("host".to_owned(), host)));
        let mut cookies = of(&header::COOKIE);
        cookies.retain(|cookie| !cookie.is_empty());
        if !cookies.is_empty() {
            fields.push(("cookie".to_owned(), cookies.join(&b"; "[..])));
        }
        fields.sort();
        fields
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever the codec lets through is refused, or read back as what it was.
        #[test]
        fn nothing_else_is_read_than_what_was_sent(
            parts in requests(),
            body in prop_oneof![
                Just(Body::None),
                (1usize..9).prop_map(Body::Whole),
                Just(Body::Streamed),
            ],
        ) {
            let Ok(buf) = head(&parts, body, 0, None) else { return Ok(()) };
            let text = buf.bytes();
            let mut read = RequestHead::default();
            match read.parse(text, &WIDE) {
                Err(_) => return Ok(()),
                Ok(Parsed::Partial) => prop_assert!(false, "{}", text.escape_ascii()),
                Ok(Parsed::Complete(())) => {}
            }
            prop_assert_eq!(read.len, text.len(), "{}", text.escape_ascii());
            prop_assert_eq!(read.method_text.of(text), parts.method.as_str().as_bytes());
            if parts.method != http::Method::CONNECT {
                let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
                prop_assert_eq!(read.target.of(text), path.as_bytes());
            }
            let made = |name: &str| {
                let has_length = parts.headers.contains_key(header::CONTENT_LENGTH);
                name == "connection"
                    || name == "transfer-encoding"
                    || name == "content-length" && !has_length
            };
            let mut fields: Vec<(String, Vec<u8>)> = read
                .fields
                .iter()
                .map(|field| {
                    let name = field.name.of(text).to_ascii_lowercase();
                    (String::from_utf8(name).expect("ASCII"), field.value.of(text).to_vec())
                })
                .filter(|(name, _)| !made(name))
                .collect();
            fields.sort();
            prop_assert_eq!(fields, wanted(&parts), "{}", text.escape_ascii());
        }
    }
}
