//! Tables of requests with their outcome, by rule.

use proptest::prelude::*;

use super::super::FieldId;
use super::*;

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 8192, target_bytes_max: 2048, fields_max: 64 };

fn parse(bytes: &[u8]) -> Result<Parsed<RequestHead>, &'static Reason> {
    let mut head = RequestHead::default();
    Ok(match head.parse(bytes, &LIMITS)? {
        Parsed::Complete(()) => Parsed::Complete(head),
        Parsed::Partial => Parsed::Partial,
    })
}

#[track_caller]
fn accepted(bytes: &[u8]) -> RequestHead {
    match parse(bytes) {
        Ok(Parsed::Complete(head)) => head,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

/// The whole gives `reason`, and every prefix gives it too or is undecided.
#[track_caller]
fn refused(bytes: &[u8], reason: &'static Reason) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    match parse(bytes) {
        Err(got) => assert_eq!(got.token, reason.token, "{text:?}"),
        other => panic!("{text:?}: want {}, got {other:?}", reason.token),
    }
    // Long inputs are about limits: every 97th cut and those next to the end will do.
    let step = if bytes.len() > 400 { 97 } else { 1 };
    for cut in (0..bytes.len()).step_by(step).chain(bytes.len().saturating_sub(8)..bytes.len()) {
        match parse(&bytes[..cut]) {
            Ok(Parsed::Partial) => {}
            Err(got) => assert_eq!(got.token, reason.token, "{text:?} cut at {cut}"),
            Ok(Parsed::Complete(_)) => panic!("{text:?} complete when cut at {cut}"),
        }
    }
}

/// An HTTP/1.1 request with Host and these further field lines.
fn with(lines: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nHost: h\r\n{lines}\r\n").into_bytes()
}

fn with10(lines: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.0\r\n{lines}\r\n").into_bytes()
}

#[test]
fn a_plain_request() {
    let bytes = b"GET /a/b?c=d HTTP/1.1\r\nHost: example.com:8080\r\nAccept:*/*\r\nEmpty:  \r\n\
                  X-Forwarded-For: \t1.2.3.4 \t\r\n\r\nGET";
    let head = accepted(bytes);
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.method_text.of(bytes), b"GET");
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.form, TargetForm::Origin);
    assert_eq!(head.target.of(bytes), b"/a/b?c=d");
    assert_eq!(head.path.of(bytes), b"/a/b");
    assert_eq!(head.query.unwrap().of(bytes), b"c=d");
    assert_eq!(head.authority.of(bytes), b"example.com:8080");
    assert_eq!(head.framing, Framing::None);
    assert!(head.connection.persistent && !head.connection.upgrade);
    assert!(!head.expect_continue);
    assert_eq!(head.len, bytes.len() - 3);
    let fields: Vec<_> = head
        .fields
        .iter()
        .map(|field| (field.name.of(bytes), field.value.of(bytes), field.line.of(bytes), field.id))
        .collect();
    assert_eq!(fields.len(), 4);
    assert_eq!(fields[1], (&b"Accept"[..], &b"*/*"[..], &b"Accept:*/*\r\n"[..], FieldId::Other));
    assert_eq!((fields[2].1, fields[2].2), (&b""[..], &b"Empty:  \r\n"[..]));
    assert_eq!((fields[3].1, fields[3].3), (&b"1.2.3.4"[..], FieldId::XForwardedFor));
}

#[test]
fn reuse_leaves_nothing_of_the_last_request() {
    let mut head = RequestHead::default();
    let first = b"PUT http://h/p?q HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nUpgrade: x\r\n\
                  Connection: close, upgrade\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(head.parse(first, &LIMITS), Ok(Parsed::Complete(())));
    assert!(head.expect_continue && !head.connection.persistent && head.connection.upgrade);
    let second = b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n";
    let capacity = head.fields.capacity();
    assert_eq!(head.parse(second, &LIMITS), Ok(Parsed::Complete(())));
    let fresh = accepted(second);
    assert_eq!(head.fields.capacity(), capacity);
    head.fields.shrink_to_fit();
    assert_eq!(format!("{head:?}"), format!("{fresh:?}"));
}

/// RFC 9112 §2.2 and §3.
#[test]
fn request_lines() {
    let ok = |line: &str| accepted(format!("{line}\r\nHost: h\r\n\r\n").as_bytes());
    assert_eq!(ok("get / HTTP/1.1").method, Method::Other);
    assert_eq!(ok("PROPFIND / HTTP/1.1").method, Method::Other);
    assert_eq!(ok("PATCH / HTTP/1.0").version, Version::Http10);
    assert_eq!(ok("M!#$%&'*+-.^_`|~9 / HTTP/1.1").method, Method::Other);
    for (line, reason) in [
        (" GET / HTTP/1.1", BAD_METHOD),
        ("\tGET / HTTP/1.1", BAD_METHOD),
        ("GE(T / HTTP/1.1", BAD_METHOD),
        ("G\0T / HTTP/1.1", BAD_METHOD),
        ("GET\t/ HTTP/1.1", BAD_METHOD),
        ("G\u{e9}T / HTTP/1.1", BAD_METHOD),
        ("GET", BAD_METHOD),
        ("GET  / HTTP/1.1", MALFORMED_HEAD),
        ("GET /  HTTP/1.1", MALFORMED_HEAD),
        ("GET / HTTP/1.1 ", MALFORMED_HEAD),
        ("GET / HTTP/1.1\t", MALFORMED_HEAD),
        ("GET /\tHTTP/1.1", BAD_TARGET),
        ("GET /", BAD_VERSION),
        ("GET / ", BAD_VERSION),
        ("GET /a b HTTP/1.1", BAD_VERSION),
        ("GET / http/1.1", BAD_VERSION),
        ("GET / HTTP/1.", BAD_VERSION),
        ("GET / HTTP/1", BAD_VERSION),
        ("GET / HTTP/11.1", BAD_VERSION),
        ("GET / HTTP/1.10", BAD_VERSION),
        ("GET / HTTP/1,1", BAD_VERSION),
        ("GET / HTTP/x.1", BAD_VERSION),
        ("GET / HTTP /1.1", BAD_VERSION),
        ("GET / HTTPS/1.1", BAD_VERSION),
        ("GET / HTTP/1.2", UNKNOWN_VERSION),
        ("GET / HTTP/2.0", UNKNOWN_VERSION),
        ("GET / HTTP/0.9", UNKNOWN_VERSION),
        ("GET / HTTP/3.1", UNKNOWN_VERSION),
        ("PRI * HTTP/2.0", UNKNOWN_VERSION),
        ("GET / HTTP/1.1\r", BARE_LINE_END),
        ("GET /\rX HTTP/1.1", BARE_LINE_END),
    ] {
        refused(format!("{line}\r\nHost: h\r\n\r\n").as_bytes(), reason);
    }
    refused(b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED_HEAD);
    refused(b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED_HEAD);
    refused(b"GET / HTTP/1.1\nHost: h\r\n\r\n", BARE_LINE_END);
    refused(b"GET /\nHost: h\r\n\r\n", BARE_LINE_END);
    refused(b"\x16\x03\x01\x02\x00\x01\x00", BAD_METHOD);
    assert_eq!(leading_crlf(b"\r\nGET"), 2);
    assert_eq!(leading_crlf(b"\r"), 0);
    assert_eq!(leading_crlf(b"\nGET"), 0);
}

/// RFC 9112 §5 and §2.2.
#[test]
fn field_lines() {
    for (lines, reason) in [
        ("A: b\nC: d\r\n", BARE_LINE_END),
        ("A: b\n\r\n", BARE_LINE_END),
        ("A:\n", BARE_LINE_END),
        ("A: b\rC: d\r\n", BARE_LINE_END),
        ("A: b\r\r\n", BARE_LINE_END),
        ("A:\r \r\n", BARE_LINE_END),
        ("A\n", BARE_LINE_END),
        ("A: b\r\n c\r\n", OBS_FOLD),
        ("A: b\r\n\tc\r\n", OBS_FOLD),
        (" A: b\r\n", OBS_FOLD),
        ("A:\r\n \r\n", OBS_FOLD),
        ("A : b\r\n", BAD_FIELD_NAME),
        ("A\t: b\r\n", BAD_FIELD_NAME),
        (": b\r\n", BAD_FIELD_NAME),
        ("A\r\n", BAD_FIELD_NAME),
        ("A b\r\n", BAD_FIELD_NAME),
        ("A(: b\r\n", BAD_FIELD_NAME),
        ("A\0: b\r\n", BAD_FIELD_NAME),
        ("\u{e9}: b\r\n", BAD_FIELD_NAME),
        ("A;B: b\r\n", BAD_FIELD_NAME),
        ("Content-Length\u{b}: 1\r\n", BAD_FIELD_NAME),
        ("A: \0\r\n", BAD_FIELD_VALUE),
        ("A: b\u{1}\r\n", BAD_FIELD_VALUE),
        ("A: b\u{7f}c\r\n", BAD_FIELD_VALUE),
        ("A: \u{b}chunked\r\n", BAD_FIELD_VALUE),
        ("A: \u{c}\r\n", BAD_FIELD_VALUE),
        ("A: \u{1b}[0m\r\n", BAD_FIELD_VALUE),
    ] {
        refused(&with(lines), reason);
    }
    refused(b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", BAD_FIELD_NAME);
    refused(b"GET / HTTP/1.1\r\nHost: h\r\n\n", BARE_LINE_END);
    refused(b"GET / HTTP/1.1\r\nHost: h\n\r\n", BARE_LINE_END);
    refused(b"GET / HTTP/1.1\r\nHost: h\r\n\rX", BARE_LINE_END);
    refused(b"GET / HTTP/1.1\n\n", BARE_LINE_END);
    for lines in ["A: \u{e9}\tb\r\n", "A:b\r\n", "A:\t b \t\r\n", "A:\r\n", "!: ::\r\n"] {
        accepted(&with(lines));
    }
}

/// RFC 9112 §3.2.
#[test]
fn targets() {
    let request = |method: &str, target: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: h:81\r\n\r\n").into_bytes()
    };
    for (target, path, query) in [
        ("/", "/", None),
        ("/?", "/", Some("")),
        ("/a?b?c", "/a", Some("b?c")),
        ("//a", "//a", None),
        ("/%zz", "/%zz", None),
        ("/\\", "/\\", None),
        ("/[]{}|^`~!$&'()*+,;=:@?[]{}|^`\\/%", "/[]{}|^`~!$&'()*+,;=:@", Some("[]{}|^`\\/%")),
        ("http://h:81", "", None),
        ("HTTP://H:81/", "/", None),
        ("http://h:81?q", "", Some("q")),
        ("https://h:81/a?b", "/a", Some("b")),
    ] {
        let bytes = request("GET", target);
        let head = accepted(&bytes);
        assert_eq!(head.path.of(&bytes), path.as_bytes(), "{target}");
        assert_eq!(head.query.map(|query| query.of(&bytes)), query.map(str::as_bytes), "{target}");
        let absolute = target.as_bytes()[0] != b'/';
        assert_eq!(head.form == TargetForm::Absolute, absolute);
        assert!(head.authority.of(&bytes).eq_ignore_ascii_case(b"h:81"));
        assert!(head.host.of(&bytes).eq_ignore_ascii_case(b"h"));
    }
    for target in [
        "*",
        "a",
        "h:81",
        "?q",
        "http:/h:81/",
        "http://",
        "http:///",
        "ftp://h:81/",
        "http:h:81",
        "https//h:81",
        "http://u@h:81/",
        "http://h:81@x/",
        "http://h:/",
        "http://h:81\\/",
        "http://[::1/",
        "http://h%2e:81/",
        "ws://h:81/",
        "/a#b",
        "/#",
        "/\"",
        "/<",
        "/>",
        "/\u{e9}",
        "/\u{7f}",
        "/\0",
        "/\u{1}",
        "http://h:81#f",
        "#",
        "javascript:1",
    ] {
        refused(&request("GET", target), BAD_TARGET);
    }
    for target in ["http://x:81/", "http://h/", "https://h:82/", "http://h:80/"] {
        refused(&request("GET", target), HOST_INVALID);
    }
    let default_port = b"GET http://h:80/ HTTP/1.1\r\nHost: H\r\n\r\n";
    assert_eq!(accepted(default_port).authority.of(default_port), b"h:80");
    accepted(b"GET https://h/ HTTP/1.1\r\nHost: h:443\r\n\r\n");
    refused(b"GET https://h/ HTTP/1.1\r\nHost: h:80\r\n\r\n", HOST_INVALID);
    refused(b"GET http://h/ HTTP/1.1\r\nHost:\r\n\r\n", HOST_INVALID);
    refused(b"GET http://h/ HTTP/1.1\r\n\r\n", HOST_MISSING);
    assert_eq!(accepted(&request("OPTIONS", "*")).form, TargetForm::Asterisk);
    assert_eq!(accepted(&request("OPTIONS", "/")).form, TargetForm::Origin);
    refused(&request("OPTIONS", "**"), BAD_TARGET);
    refused(&request("options", "*"), BAD_TARGET);

    let connect = accepted(&request("CONNECT", "h:81"));
    assert_eq!((connect.form, connect.path), (TargetForm::Authority, Span::EMPTY));
    for target in ["h", "/", "*", "http://h:81/", "h:81/", "u@h:81", ":81", "h:"] {
        refused(&request("CONNECT", target), BAD_TARGET);
    }
    refused(&request("CONNECT", "x:81"), HOST_INVALID);
}

/// RFC 9112 §3.2.
#[test]
fn hosts() {
    let request =
        |version: &str, lines: &str| format!("GET / HTTP/{version}\r\n{lines}\r\n").into_bytes();
    for (host, port) in [
        ("h", ""),
        ("H.example.", ""),
        ("127.0.0.1", ":1"),
        ("[::1]", ":80"),
        ("[::1]", ""),
        ("a-b_c", ""),
    ] {
        let bytes = request("1.1", &format!("Host: {host}{port}\r\n"));
        let head = accepted(&bytes);
        assert_eq!(head.authority.of(&bytes), format!("{host}{port}").as_bytes());
        assert_eq!(head.host.of(&bytes), host.as_bytes());
    }
    let none = accepted(&request("1.0", ""));
    assert!(none.authority.is_empty() && none.host.is_empty());
    for host in [
        "", "a b", "a,b", "a/b", "u@h", "u:p@h", "h:", "h:x", "h:99999", "h:0", "[::1", "::1",
        "[::1]x", "[::z]", "h\\", "h#", "h?", "a..b", ".", "\u{e9}", "h%00", "http://h", "*",
    ] {
        refused(&request("1.1", &format!("Host: {host}\r\n")), HOST_INVALID);
        refused(&request("1.0", &format!("Host: {host}\r\n")), HOST_INVALID);
    }
    refused(&request("1.1", ""), HOST_MISSING);
    refused(&request("1.1", "X-Host: h\r\n"), HOST_MISSING);
    for version in ["1.0", "1.1"] {
        refused(&request(version, "Host: h\r\nHost: h\r\n"), HOST_DUPLICATE);
        refused(&request(version, "Host: h\r\nA: b\r\nhOST: i\r\n"), HOST_DUPLICATE);
        refused(&request(version, "Host:\r\nHost: i\r\n"), HOST_DUPLICATE);
    }
}

/// RFC 9112 §6.
#[test]
fn framing() {
    for (lines, want) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("content-length:0010\r\n", Framing::Length(10)),
        ("Content-Length: 9999999999999999999\r\n", Framing::Length(9_999_999_999_999_999_999)),
        ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ("TRANSFER-ENCODING:\tChunKed \r\n", Framing::Chunked),
    ] {
        assert_eq!(accepted(&with(lines)).framing, want, "{lines:?}");
    }
    for value in [
        "",
        "+1",
        "-1",
        "1 2",
        "1,1",
        "1, 1",
        "0x1",
        "1e1",
        "1.0",
        "a",
        "1a",
        "1;",
        "\"1\"",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999",
        "\u{661}",
        "00000000000000000001",
    ] {
        refused(&with(&format!("Content-Length: {value}\r\n")), LENGTH_INVALID);
        refused(&with10(&format!("Content-Length: {value}\r\n")), LENGTH_INVALID);
    }
    refused(&with("Content-Length: 1\r\nContent-Length: 1\r\n"), LENGTH_INVALID);
    refused(&with("Content-Length: 1\r\ncontent-length: 2\r\n"), LENGTH_INVALID);
    for value in [
        "",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "xchunked",
        "chunkedx",
        "chunked,",
        ",chunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunk ed",
        "x",
    ] {
        refused(&with(&format!("Transfer-Encoding: {value}\r\n")), CODING_UNSUPPORTED);
    }
    for lines in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-encoding: identity\r\n",
    ] {
        refused(&with(lines), CODING_UNSUPPORTED);
    }
    for lines in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        "Transfer-Encoding: x\r\nContent-Length: y\r\n",
    ] {
        refused(&with(lines), FRAMING_BOTH);
        refused(&with10(lines), FRAMING_BOTH);
    }
    refused(&with10("Transfer-Encoding: chunked\r\n"), CODING_HTTP10);
    for method in ["GET", "HEAD", "DELETE", "TRACE"] {
        let bytes = format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(accepted(bytes.as_bytes()).framing, Framing::Length(5));
    }
    // Names that only look like the real ones say nothing about framing.
    for name in ["Content_Length", "Transfer_Encoding", "X-Content-Length"] {
        assert_eq!(accepted(&with(&format!("{name}: 5\r\n"))).framing, Framing::None);
    }
}

/// RFC 9110 §7.6.1 and RFC 9112 §9.3.
#[test]
fn connection() {
    for (lines, http11, http10) in [
        ("", true, false),
        ("Connection: keep-alive\r\n", true, true),
        ("Connection: Close\r\n", false, false),
        ("Connection: keep-alive, close\r\n", false, false),
        ("Connection: close\r\nConnection: keep-alive\r\n", false, false),
        ("Connection: x,, KEEP-ALIVE ,\r\n", true, true),
        ("Connection:\r\n", true, false),
        ("Proxy-Connection: keep-alive\r\n", true, false),
    ] {
        assert_eq!(accepted(&with(lines)).connection.persistent, http11, "{lines:?}");
        assert_eq!(accepted(&with10(lines)).connection.persistent, http10, "{lines:?}");
    }
    for value in
        ["a b", "a;b", "\"a\"", "a=b", "Host", "hOST", "x, Content-Length", "a/b", "\u{e9}"]
    {
        refused(&with(&format!("Connection: {value}\r\n")), CONNECTION_INVALID);
    }
    accepted(&with(&format!("Connection: {}\r\n", vec!["a"; 32].join(","))));
    let many = with(&format!("Connection: {}\r\n", vec!["a"; 33].join(",")));
    refused(&many, CONNECTION_INVALID);
}

#[test]
fn upgrades_and_te() {
    for (lines, upgrade) in [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
        ("Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n", true),
        ("Connection: upgrade\r\nUpgrade: a/1, b\r\n", true),
        ("Connection: upgrade\r\n", false),
        ("Upgrade: websocket\r\n", false),
        ("Connection: upgrade\r\nUpgrade:\r\n", false),
        ("Connection: upgrade\r\nUpgrade: web socket\r\n", false),
        ("Connection: upgrade\r\nUpgrade: h2c\r\n", false),
        ("Connection: upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: x\r\n", false),
        ("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", false),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c/1\r\n", false),
    ] {
        assert_eq!(accepted(&with(lines)).connection.upgrade, upgrade, "{lines:?}");
        assert!(!accepted(&with10(lines)).connection.upgrade, "{lines:?}");
    }
    for (lines, trailers) in [
        ("Connection: TE\r\nTE: trailers\r\n", true),
        ("Connection: te\r\nTE: gzip;q=1, Trailers\r\n", true),
        ("TE: trailers\r\n", false),
        ("Connection: te\r\nTE: gzip\r\n", false),
        ("Connection: te\r\n", false),
    ] {
        assert_eq!(accepted(&with(lines)).connection.te_trailers, trailers, "{lines:?}");
    }
}

#[test]
fn hop_by_hop_fields_are_marked() {
    let bytes = with(
        "Connection: close, X-One\r\nconnection: cookie\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\n\
         TE: x\r\nTrailer: x\r\nUpgrade: x\r\nHTTP2-Settings: x\r\nProxy-Authorization: x\r\n\
         Proxy-Authenticate: x\r\nTransfer-Encoding: chunked\r\nx-ONE: 1\r\nX-On: 2\r\nX-One: 3\r\n\
         Cookie: a\r\nAuthorization: x\r\nVia: x\r\n",
    );
    let head = accepted(&bytes);
    let kept: Vec<_> = head
        .fields
        .iter()
        .filter(|field| !field.hop_by_hop)
        .map(|field| String::from_utf8_lossy(field.name.of(&bytes)).into_owned())
        .collect();
    assert_eq!(kept, ["Host", "Trailer", "X-On", "Authorization", "Via"]);
}

/// RFC 9110 §10.1.1.
#[test]
fn expectations() {
    assert!(accepted(&with("Expect: 100-Continue\r\n")).expect_continue);
    assert!(!accepted(&with("")).expect_continue);
    assert!(!accepted(&with10("Expect: 100-continue\r\n")).expect_continue);
    for lines in [
        "Expect:\r\n",
        "Expect: x\r\n",
        "Expect: 100-continue, x\r\n",
        "Expect: 100-continue\r\nExpect: 100-continue\r\n",
        "Expect: 100-continue;a\r\n",
    ] {
        refused(&with(lines), EXPECT_UNKNOWN);
    }
}

#[test]
fn limits_hold_at_their_edge_whatever_the_split() {
    let target = |len: usize| {
        format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(len - 1)).into_bytes()
    };
    accepted(&target(2048));
    refused(&target(2049), TARGET_TOO_LONG);
    refused(&target(9000), TARGET_TOO_LONG);
    // The target is too long before its bad byte and before the head is too large.
    let mut bad = target(4000);
    bad[3000] = b'"';
    refused(&bad, TARGET_TOO_LONG);

    let sized = |len: usize| {
        let start = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n";
        start.replace("X: ", &format!("X: {}", "a".repeat(len - start.len()))).into_bytes()
    };
    assert_eq!(accepted(&sized(8192)).len, 8192);
    refused(&sized(8193), HEAD_TOO_LARGE);
    refused(&sized(20000), HEAD_TOO_LARGE);

    let lines = |count: usize| with(&"A: b\r\n".repeat(count - 1));
    assert_eq!(accepted(&lines(64)).fields.len(), 64);
    refused(&lines(65), TOO_MANY_FIELDS);
    refused(&lines(400), TOO_MANY_FIELDS);
    let wide = HeadLimits { fields_max: u16::MAX, ..LIMITS };
    let mut head = RequestHead::default();
    assert_eq!(head.parse(&lines(256), &wide), Ok(Parsed::Complete(())));
    assert_eq!(head.parse(&lines(257), &wide), Err(TOO_MANY_FIELDS));
    let none = HeadLimits { head_bytes_max: 0, target_bytes_max: 0, fields_max: 0 };
    assert_eq!(head.parse(b"GET / HTTP/1.1\r\n\r\n", &none), Err(HEAD_TOO_LARGE));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// One byte of a valid request changed: the fast path and the scan agree, at every cut.
    #[test]
    fn damage_is_seen_alike_at_every_cut(at in 0usize..93, byte: u8) {
        let mut bytes = b"POST /a?b HTTP/1.1\r\nHost: h\r\nA: b\r\nContent-Length: 1\r\n\
                          Connection: x\r\nX: \t y z\t\r\nE:\r\n\r\n".to_vec();
        let at = at.min(bytes.len() - 1);
        bytes[at] = byte;
        let whole = parse(&bytes);
        let scanned = scan::request(&bytes, &LIMITS);
        match (&whole, &scanned) {
            (Ok(Parsed::Complete(head)), Ok(Parsed::Complete(len))) => prop_assert_eq!(head.len, *len),
            (Ok(Parsed::Partial), Ok(Parsed::Partial) | Err(_)) => {}
            (Err(reason), Err(scanned)) => prop_assert_eq!(reason, scanned),
            (Err(_), Ok(Parsed::Complete(_))) => {}
            other => prop_assert!(false, "{:?}", other),
        }
        for cut in 0..bytes.len() {
            match parse(&bytes[..cut]) {
                Ok(Parsed::Partial) => {}
                Ok(Parsed::Complete(head)) => {
                    prop_assert!(matches!(&whole, Ok(Parsed::Complete(all)) if all.len == head.len));
                }
                Err(reason) => prop_assert_eq!(Some(reason), whole.as_ref().err().copied()),
            }
        }
    }
}
