//! Tables of responses with their outcome, by rule.

use super::*;

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 4096, target_bytes_max: 0, fields_max: 16 };

fn parse(bytes: &[u8], method: Method) -> Result<Parsed<ResponseHead>, &'static Reason> {
    let mut head = ResponseHead::default();
    Ok(match head.parse(bytes, method, &LIMITS)? {
        Parsed::Complete(()) => Parsed::Complete(head),
        Parsed::Partial => Parsed::Partial,
    })
}

#[track_caller]
fn accepted(bytes: &[u8], method: Method) -> ResponseHead {
    match parse(bytes, method) {
        Ok(Parsed::Complete(head)) => head,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

#[track_caller]
fn refused(bytes: &[u8], reason: &'static Reason) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    match parse(bytes, Method::Get) {
        Err(got) => assert_eq!(got.token, reason.token, "{text:?}"),
        other => panic!("{text:?}: want {}, got {other:?}", reason.token),
    }
    // Long inputs are about limits: every 97th cut and those next to the end will do.
    let step = if bytes.len() > 400 { 97 } else { 1 };
    for cut in (0..bytes.len()).step_by(step).chain(bytes.len().saturating_sub(8)..bytes.len()) {
        match parse(&bytes[..cut], Method::Get) {
            Ok(Parsed::Partial) => {}
            Err(got) => assert_eq!(got.token, reason.token, "{text:?} cut at {cut}"),
            Ok(Parsed::Complete(_)) => panic!("{text:?} complete when cut at {cut}"),
        }
    }
}

fn answer(status: &str, lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{lines}\r\n").into_bytes()
}

/// RFC 9112 §4.
#[test]
fn status_lines() {
    for (line, status, phrase) in [
        ("HTTP/1.1 200 OK", 200, "OK"),
        ("HTTP/1.1 200 ", 200, ""),
        ("HTTP/1.1 200", 200, ""),
        ("HTTP/1.1 404 Not \t Found\u{e9}", 404, "Not \t Found\u{e9}"),
        ("HTTP/1.1 599 x ", 599, "x "),
        ("HTTP/1.0 100 ok", 100, "ok"),
    ] {
        for lines in ["", "A: b\r\n"] {
            let bytes = format!("{line}\r\n{lines}\r\nrest").into_bytes();
            let head = accepted(&bytes, Method::Get);
            assert_eq!((head.status, head.phrase.of(&bytes)), (status, phrase.as_bytes()));
            assert_eq!(head.len, bytes.len() - 4);
            assert_eq!(head.fields.len(), lines.len() / 6);
        }
    }
    for (line, reason) in [
        ("HTTP/1.1 20 OK", STATUS_INVALID),
        ("HTTP/1.1 099 x", STATUS_INVALID),
        ("HTTP/1.1 000 x", STATUS_INVALID),
        ("HTTP/1.1 600 x", STATUS_INVALID),
        ("HTTP/1.1 999 x", STATUS_INVALID),
        ("HTTP/1.1 2000 x", STATUS_INVALID),
        ("HTTP/1.1 200\tOK", STATUS_INVALID),
        ("HTTP/1.1 200OK", STATUS_INVALID),
        ("HTTP/1.1 +20 x", STATUS_INVALID),
        ("HTTP/1.1  200 OK", STATUS_INVALID),
        ("HTTP/1.1 OK", STATUS_INVALID),
        ("HTTP/1.1 200 O\0K", STATUS_INVALID),
        ("HTTP/1.1 200 O\u{7f}K", STATUS_INVALID),
        ("HTTP/1.1\t200 OK", BAD_VERSION),
        ("HTTP/1.1", BAD_VERSION),
        ("http/1.1 200 OK", BAD_VERSION),
        ("ICY 200 OK", BAD_VERSION),
        ("HTTP/1.10 200 OK", BAD_VERSION),
        ("HTTP/1.2 200 OK", UNKNOWN_VERSION),
        ("HTTP/2.0 200 OK", UNKNOWN_VERSION),
        ("HTTP/0.9 200 OK", UNKNOWN_VERSION),
        (" HTTP/1.1 200 OK", MALFORMED_HEAD),
        ("HTTP/1.1 200 OK\r", BARE_LINE_END),
        ("HTTP/1.1 200 O\rK", BARE_LINE_END),
    ] {
        refused(format!("{line}\r\nA: b\r\n\r\n").as_bytes(), reason);
    }
    refused(b"HTTP/1.1 200 OK\nA: b\r\n\r\n", BARE_LINE_END);
    refused(b"HTTP/1.1 200\nA: b\r\n\r\n", BARE_LINE_END);
    refused(b"HTTP/1.1 200\n\r\n", BARE_LINE_END);
    refused(b"\r\nHTTP/1.1 200 OK\r\n\r\n", BAD_VERSION);
    refused(b"\nHTTP/1.1 200 OK\r\n\r\n", BAD_VERSION);
    refused(b"<html>", BAD_VERSION);
}

#[test]
fn field_lines_are_as_strict_as_in_requests() {
    for (lines, reason) in [
        ("A: b\nC: d\r\n", BARE_LINE_END),
        ("A: b\r\n c\r\n", OBS_FOLD),
        ("A : b\r\n", BAD_FIELD_NAME),
        ("A\r\n", BAD_FIELD_NAME),
        (": b\r\n", BAD_FIELD_NAME),
        ("A: \0\r\n", BAD_FIELD_VALUE),
        ("Connection: a b\r\n", CONNECTION_INVALID),
        ("Connection: content-length\r\n", CONNECTION_INVALID),
    ] {
        refused(&answer("200 OK", lines), reason);
    }
    refused(b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", BAD_FIELD_NAME);
    refused(&answer("200 OK", &"A: b\r\n".repeat(17)), TOO_MANY_FIELDS);
    refused(&answer("200 OK", &format!("A: {}\r\n", "b".repeat(5000))), HEAD_TOO_LARGE);
}

/// RFC 9112 §6.3.
#[test]
fn framing() {
    use Framing::*;
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: Chunked\r\n";
    for (status, method, lines, want) in [
        ("200 OK", Method::Get, "", UntilClose),
        ("200 OK", Method::Get, length, Length(5)),
        ("200 OK", Method::Get, chunked, Chunked),
        ("404 x", Method::Post, "Content-Length: 0\r\n", Length(0)),
        ("200 OK", Method::Head, "", None),
        ("200 OK", Method::Head, length, None),
        ("200 OK", Method::Head, chunked, None),
        ("304 x", Method::Get, length, None),
        ("304 x", Method::Get, chunked, None),
        ("304 x", Method::Get, "", None),
        ("204 x", Method::Get, "", None),
        ("204 x", Method::Get, "Content-Length: 0\r\n", None),
        ("100 x", Method::Get, "", None),
        ("103 x", Method::Get, "Link: a\r\n", None),
        ("101 x", Method::Get, "Upgrade: websocket\r\nConnection: upgrade\r\n", None),
        ("205 x", Method::Get, length, Length(5)),
    ] {
        let head = accepted(&answer(status, lines), method);
        assert_eq!(head.framing, want, "{status} {method:?} {lines:?}");
        assert_eq!(head.content_length == Some(5), lines == length);
        assert_eq!(head.connection.persistent, want != UntilClose);
    }
    for (status, lines, reason) in [
        ("200 x", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", FRAMING_BOTH),
        ("304 x", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", FRAMING_BOTH),
        ("200 x", "Content-Length: 5\r\nContent-Length: 5\r\n", LENGTH_INVALID),
        ("200 x", "Content-Length: 5, 5\r\n", LENGTH_INVALID),
        ("304 x", "Content-Length: x\r\n", LENGTH_INVALID),
        ("200 x", "Content-Length:\r\n", LENGTH_INVALID),
        ("204 x", "Content-Length: 5\r\n", LENGTH_INVALID),
        ("100 x", "Content-Length: 5\r\n", LENGTH_INVALID),
        ("200 x", "Transfer-Encoding: gzip, chunked\r\n", CODING_UNSUPPORTED),
        ("200 x", "Transfer-Encoding: identity\r\n", CODING_UNSUPPORTED),
        ("200 x", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", CODING_UNSUPPORTED),
        ("204 x", "Transfer-Encoding: chunked\r\n", CODING_UNSUPPORTED),
        ("101 x", "Transfer-Encoding: chunked\r\n", CODING_UNSUPPORTED),
    ] {
        refused(&answer(status, lines), reason);
    }
    refused(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CODING_HTTP10);
}

/// RFC 9112 §9.3.
#[test]
fn persistence() {
    for (version, lines, want) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive, CLOSE\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let bytes = format!("HTTP/{version} 200 OK\r\nContent-Length: 1\r\n{lines}\r\n");
        let head = accepted(bytes.as_bytes(), Method::Get);
        assert_eq!(head.connection.persistent, want, "{version} {lines:?}");
    }
    let endless = accepted(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", Method::Get);
    assert!(!endless.connection.persistent);
}

#[test]
fn switching_protocols() {
    let bytes = answer("101 x", "Upgrade: websocket\r\nConnection: Upgrade\r\n");
    let mut head = accepted(&bytes, Method::Get);
    assert_eq!(head.upgrade.of(&bytes), b"websocket");
    assert!(head.connection.upgrade);
    assert!(head.fields.iter().all(|field| field.hop_by_hop));
    let plain = answer("200 OK", "Content-Length: 0\r\n");
    assert_eq!(head.parse(&plain, Method::Get, &LIMITS), Ok(Parsed::Complete(())));
    assert_eq!((head.upgrade, head.connection.upgrade), (Span::EMPTY, false));
}

/// What the fast reading accepts, leaves open or refuses is what the scan says, for every status
/// line that differs from a right one in a byte, lacks one or has one more.
#[test]
fn one_damaged_byte_is_seen_as_the_scan_sees_it() {
    let agrees = |bytes: &[u8]| {
        let parsed = parse(bytes, Method::Get);
        let scanned = scan::response(bytes, &LIMITS);
        match (&parsed, &scanned) {
            (Ok(Parsed::Complete(head)), Ok(Parsed::Complete(len))) => assert_eq!(head.len, *len),
            (Ok(Parsed::Partial), Ok(Parsed::Partial)) => {}
            (Err(got), Err(want)) => assert_eq!(got.token, want.token, "{bytes:?}"),
            _ => panic!("{bytes:?}: {parsed:?}, but the scan says {scanned:?}"),
        }
    };
    for line in ["HTTP/1.1 200 OK", "HTTP/1.0 599", "HTTP/1.1 304 "] {
        let whole = format!("{line}\r\nA: b\r\n\r\n").into_bytes();
        for at in 0..line.len() + 2 {
            agrees(&whole[..at]);
            for b in 0..=255 {
                let mut bytes = whole.clone();
                bytes[at] = b;
                agrees(&bytes);
                bytes.insert(at, whole[at]);
                agrees(&bytes);
            }
            let mut bytes = whole.clone();
            bytes.remove(at);
            agrees(&bytes);
        }
    }
}
