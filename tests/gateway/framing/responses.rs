//! Hostile responses of an upstream, as data: what it sends, and what the client must see.

/// What the client must see; in every case the connection to the upstream is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A 502 of the gateway's own with one of these reasons, and not a byte of the response.
    Bad(&'static str),
    /// The fault comes after the head: the transfer breaks visibly, or (where nothing was relayed
    /// yet) a 502.
    Broken,
    /// This status and body, correctly framed; what follows on the connection is never used.
    Fine(u16, &'static str),
}

/// One response (or what pretends to be one).
pub struct Case {
    pub name: String,
    pub source: &'static str,
    pub method: &'static str,
    pub bytes: Vec<u8>,
    /// The upstream closes after it.
    pub closes: bool,
    pub seen: Seen,
}

const INVALID: Seen = Seen::Bad("upstream.invalid_response|response.bad_status|upstream.closed");
const CLOSED: Seen = Seen::Bad("upstream.closed|upstream.invalid_response");
const UNASKED: Seen = Seen::Bad("upstream.unasked_upgrade");

pub fn all() -> Vec<Case> {
    [status_lines(), framing(), fields(), closes(), interim(), bodies(), extra()]
        .into_iter()
        .flatten()
        .collect()
}

fn case(
    name: impl Into<String>,
    source: &'static str,
    bytes: impl Into<Vec<u8>>,
    seen: Seen,
) -> Case {
    Case { name: name.into(), source, method: "GET", bytes: bytes.into(), closes: false, seen }
}

impl Case {
    fn closes(self) -> Case {
        Case { closes: true, ..self }
    }

    fn to(self, method: &'static str) -> Case {
        Case { method, ..self }
    }
}

fn ok(lines: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}")
}

fn status_lines() -> Vec<Case> {
    let rule = "RFC 9112 §4";
    let mut cases: Vec<Case> = [
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 abc OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.1 999 OK",
        "HTTP/1.1 +200 OK",
        "HTTP/1.1 -200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200OK",
        "HTTP/2.0 200 OK",
        "HTTP/3 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "HTTP/11 200 OK",
        "HTTP/1.1.1 200 OK",
        "HTTPS/1.1 200 OK",
        "ICY 200 OK",
        " HTTP/1.1 200 OK",
        "200 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\u{1}K",
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1 200 O\u{7f}K",
        "hello",
        "<html>",
        "GET / HTTP/1.1",
    ]
    .into_iter()
    .map(|line| {
        let bytes = format!("{line}\r\nContent-Length: 5\r\n\r\nhello");
        case(format!("status line {line:?}"), rule, bytes, INVALID)
    })
    .collect();
    cases.push(case("a TLS alert", rule, b"\x15\x03\x01\x00\x02\x02\x28", INVALID).closes());
    cases.push(
        case("an HTTP/2 SETTINGS frame", rule, b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64", INVALID)
            .closes(),
    );
    cases.push(case("a body without a head", rule, "hello\n".repeat(20), INVALID).closes());
    cases
}

fn framing() -> Vec<Case> {
    let rule = "RFC 9112 §6";
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let mut cases: Vec<Case> = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked;x\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5a\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length:\r\n",
        "Content-Length: five\r\n",
        "Content-Length: 18446744073709551621\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length:\r\n",
        "Content-Length : 5\r\n",
    ]
    .into_iter()
    .map(|lines| case(format!("framing {lines:?}"), rule, ok(lines, chunks), INVALID))
    .collect();
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    cases.push(case("chunked in HTTP/1.0", "RFC 9112 §6.1", old, INVALID));
    let none = "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    cases.push(case("chunked in a 204", "RFC 9112 §6.1", none, INVALID));
    let both = ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "");
    cases.push(case("both, to HEAD", rule, both, INVALID).to("HEAD"));
    cases.push(
        case("a bad length, to HEAD", rule, ok("Content-Length: x\r\n", ""), INVALID).to("HEAD"),
    );
    cases
}

fn fields() -> Vec<Case> {
    let rule = "RFC 9112 §5";
    let mut cases: Vec<Case> = [
        ("a fold", "X: a\r\n b\r\n"),
        ("a fold with a tab", "X: a\r\n\tb\r\n"),
        ("a fold first", " X: a\r\n"),
        ("NUL in a value", "X: a\0b\r\n"),
        ("a control byte in a value", "X: a\u{1}b\r\n"),
        ("DEL in a value", "X: a\u{7f}b\r\n"),
        ("bare CR in a value", "X: a\rb\r\n"),
        ("bare LF after a field", "X: a\nY: b\r\n"),
        ("space before the colon", "X : a\r\n"),
        ("no colon", "Xyz\r\n"),
        ("an empty name", ": x\r\n"),
        ("a bad name", "X@Y: z\r\n"),
        ("NUL in a name", "X\0Y: z\r\n"),
        ("a space in a name", "X Y: z\r\n"),
        ("a bad Connection", "Connection: a b\r\n"),
    ]
    .into_iter()
    .map(|(name, line)| {
        let lines = format!("Content-Length: 5\r\n{line}");
        case(format!("field: {name}"), rule, ok(&lines, "hello"), INVALID)
    })
    .collect();
    let lf = "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello";
    cases.push(case("field: bare LF everywhere", "RFC 9112 §2.2", lf, INVALID));
    let lf = "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello";
    cases.push(case("field: bare LF after the status line", "RFC 9112 §2.2", lf, INVALID));
    let lf = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello";
    cases.push(case("field: bare LF at the end", "RFC 9112 §2.2", lf, INVALID));
    let large = format!("X: {}\r\n", "y".repeat(300_000));
    cases.push(case("field: too large", "RFC 6585 §5", ok(&large, ""), INVALID));
    let many = "X: y\r\n".repeat(20_000);
    cases.push(case("field: too many", "RFC 6585 §5", ok(&many, ""), INVALID));
    let endless = "HTTP/1.1 200 OK\r\n".to_string() + &many;
    cases.push(case("field: without end", "RFC 6585 §5", endless, INVALID));
    cases
}

fn closes() -> Vec<Case> {
    let rule = "RFC 9112 §8";
    [
        ("at once", ""),
        ("in the version", "HTT"),
        ("in the status", "HTTP/1.1 2"),
        ("after the status line", "HTTP/1.1 200 OK\r\n"),
        ("in a field", "HTTP/1.1 200 OK\r\nContent-Le"),
        ("before the last LF", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r"),
        ("after a 100", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("after a 103", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    ]
    .into_iter()
    .map(|(name, bytes)| case(format!("closes {name}"), rule, bytes, CLOSED).closes())
    .collect()
}

fn interim() -> Vec<Case> {
    let rule = "RFC 9110 §15.2";
    let fine = ok("Content-Length: 5\r\n", "hello");
    vec![
        case("a flood of 100", rule, "HTTP/1.1 100 Continue\r\n\r\n".repeat(2000) + &fine, INVALID),
        case(
            "a flood of 103",
            rule,
            "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(2000) + &fine,
            INVALID,
        ),
        case("a flood of 199", rule, "HTTP/1.1 199 X\r\n\r\n".repeat(2000) + &fine, INVALID),
        case(
            "an unasked 101",
            "RFC 9110 §7.8",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            UNASKED,
        ),
        case(
            "an unasked 101 naming a protocol",
            "RFC 9110 §7.8",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nxyz",
            UNASKED,
        ),
        case(
            "an unasked 101 after a 100",
            "RFC 9110 §7.8",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            UNASKED,
        ),
        case("garbage after a 100", rule, "HTTP/1.1 100 Continue\r\n\r\nhello\r\n\r\n", INVALID),
        case(
            "chunked in a 103",
            "RFC 9112 §6.1",
            "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n".to_string() + &fine,
            INVALID,
        ),
    ]
}

fn bodies() -> Vec<Case> {
    let rule = "RFC 9112 §7.1";
    let chunked = |body: &str| ok("Transfer-Encoding: chunked\r\n", body);
    let mut cases = vec![
        case(
            "shorter than its length",
            "RFC 9112 §8",
            ok("Content-Length: 10\r\n", "hello"),
            Seen::Broken,
        )
        .closes(),
        case(
            "nothing of its length",
            "RFC 9112 §8",
            ok("Content-Length: 10\r\n", ""),
            Seen::Broken,
        )
        .closes(),
        case("one byte short", "RFC 9112 §8", ok("Content-Length: 6\r\n", "hello"), Seen::Broken)
            .closes(),
        case(
            "short in HTTP/1.0",
            "RFC 9112 §8",
            "HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            Seen::Broken,
        )
        .closes(),
        case("chunked without a chunk", "RFC 9112 §8", chunked(""), Seen::Broken).closes(),
        case("cut in a chunk size", "RFC 9112 §8", chunked("5"), Seen::Broken).closes(),
        case("cut in a chunk", "RFC 9112 §8", chunked("5\r\nhel"), Seen::Broken).closes(),
        case("cut between chunks", "RFC 9112 §8", chunked("5\r\nhello\r\n"), Seen::Broken).closes(),
        case(
            "cut before the last CRLF",
            "RFC 9112 §8",
            chunked("5\r\nhello\r\n0\r\n"),
            Seen::Broken,
        )
        .closes(),
        case("cut in a trailer", "RFC 9112 §8", chunked("5\r\nhello\r\n0\r\nX: y"), Seen::Broken)
            .closes(),
    ];
    for (name, body) in [
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("size g", "g\r\nhello\r\n0\r\n\r\n"),
        ("size 0x5", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("size -5", "-5\r\nhello\r\n0\r\n\r\n"),
        ("size +5", "+5\r\nhello\r\n0\r\n\r\n"),
        ("size with a space first", " 5\r\nhello\r\n0\r\n\r\n"),
        ("size too large", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
        ("data too long", "5\r\nhelloX\r\n0\r\n\r\n"),
        ("bad second size", "5\r\nhello\r\nzz\r\n"),
        ("bare LF at the end", "5\r\nhello\r\n0\r\n\n"),
        ("bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n"),
        ("a Content-Length trailer", "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"),
        ("a Transfer-Encoding trailer", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("a folded trailer", "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"),
        ("NUL in a trailer", "5\r\nhello\r\n0\r\nX: a\0\r\n\r\n"),
    ] {
        cases.push(case(format!("chunk: {name}"), rule, chunked(body), Seen::Broken));
    }
    cases
}

fn extra() -> Vec<Case> {
    let rule = "RFC 9112 §6.3";
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let hello = ok("Content-Length: 5\r\n", "hello");
    vec![
        case("bytes after a body", rule, hello.clone() + "EXTRA", Seen::Fine(200, "hello")),
        case("a response after a body", rule, hello.clone() + smuggled, Seen::Fine(200, "hello")),
        case("a blank line after a body", rule, hello + "\r\n", Seen::Fine(200, "hello")),
        case(
            "a response after the last chunk",
            rule,
            ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n") + smuggled,
            Seen::Fine(200, "hello"),
        ),
        case(
            "a response after an empty body",
            rule,
            ok("Content-Length: 0\r\n", "") + smuggled,
            Seen::Fine(200, ""),
        ),
        case(
            "a body after a 204",
            rule,
            "HTTP/1.1 204 No Content\r\n\r\nhello",
            Seen::Fine(204, ""),
        ),
        case(
            "a response after a 204",
            rule,
            "HTTP/1.1 204 No Content\r\n\r\n".to_string() + smuggled,
            Seen::Fine(204, ""),
        ),
        case(
            "a body after a 304",
            rule,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
            Seen::Fine(304, ""),
        ),
        case(
            "a body after the head, to HEAD",
            rule,
            ok("Content-Length: 5\r\n", "hello"),
            Seen::Fine(200, ""),
        )
        .to("HEAD"),
        case(
            "chunks after the head, to HEAD",
            rule,
            ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            Seen::Fine(200, ""),
        )
        .to("HEAD"),
    ]
}
