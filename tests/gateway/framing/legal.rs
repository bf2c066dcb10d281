//! Legal but odd requests, as data: what is sent and what exactly the upstream must see. The
//! controls of the hostile table: a gateway that refused everything would pass that one.

/// The upstream sees this start line, these field lines (in any order, names in lower case) and
/// this body; the client gets a 200.
pub struct Legal {
    pub name: &'static str,
    pub source: &'static str,
    pub bytes: Vec<u8>,
    pub start_line: &'static str,
    pub fields: &'static [&'static str],
    pub body: &'static str,
    pub trailers: &'static [&'static str],
}

const HOST: &str = "host: gw.test";
const CHUNKED: &str = "transfer-encoding: chunked";

fn legal(
    name: &'static str,
    source: &'static str,
    bytes: impl Into<Vec<u8>>,
    start_line: &'static str,
    fields: &'static [&'static str],
) -> Legal {
    Legal { name, source, bytes: bytes.into(), start_line, fields, body: "", trailers: &[] }
}

impl Legal {
    fn body(self, body: &'static str) -> Legal {
        Legal { body, ..self }
    }

    fn trailers(self, trailers: &'static [&'static str]) -> Legal {
        Legal { trailers, ..self }
    }
}

fn get(lines: &str) -> String {
    format!("GET /t HTTP/1.1\r\nHost: gw.test\r\n{lines}\r\n")
}

fn chunked(lines: &str, body: &str) -> String {
    format!("POST /t HTTP/1.1\r\nHost: gw.test\r\n{lines}Transfer-Encoding: chunked\r\n\r\n{body}")
}

const GET: &str = "GET /t HTTP/1.1";
const POST: &str = "POST /t HTTP/1.1";

pub fn all() -> Vec<Legal> {
    [fields(), hop_by_hop(), framing(), targets(), lines()].into_iter().flatten().collect()
}

fn fields() -> Vec<Legal> {
    let rule = "RFC 9112 §5.1";
    vec![
        legal("plain", rule, get(""), GET, &[HOST]),
        legal("no space after the colon", rule, get("X:y\r\n"), GET, &[HOST, "x: y"]),
        legal("spaces around a value", rule, get("X:   y   \r\n"), GET, &[HOST, "x: y"]),
        legal("tabs around a value", rule, get("X:\ty\t\r\n"), GET, &[HOST, "x: y"]),
        legal("an empty value", rule, get("X:\r\n"), GET, &[HOST, "x: "]),
        legal("a blank value", rule, get("X: \t \r\n"), GET, &[HOST, "x: "]),
        legal("a tab within a value", rule, get("X: a\tb\r\n"), GET, &[HOST, "x: a\tb"]),
        legal("colons in a value", rule, get("X: a:b::c\r\n"), GET, &[HOST, "x: a:b::c"]),
        legal("a field twice", rule, get("X: 1\r\nX: 2\r\n"), GET, &[HOST, "x: 1", "x: 2"]),
        legal(
            "odd token bytes in a name",
            rule,
            get("!#$%&'*+-.^_`|~9: y\r\n"),
            GET,
            &[HOST, "!#$%&'*+-.^_`|~9: y"],
        ),
        legal(
            "bytes over 127 in a value",
            rule,
            b"GET /t HTTP/1.1\r\nHost: gw.test\r\nX: a\xe9\xffb\r\n\r\n",
            GET,
            &[HOST, "x: a\u{e9}\u{ff}b"],
        ),
        legal(
            "Host last",
            rule,
            "GET /t HTTP/1.1\r\nX: y\r\nHost: gw.test\r\n\r\n",
            GET,
            &[HOST, "x: y"],
        ),
        legal("HOST in capitals", rule, "GET /t HTTP/1.1\r\nHOST: gw.test\r\n\r\n", GET, &[HOST]),
        legal(
            "Host with a port",
            rule,
            "GET /t HTTP/1.1\r\nHost: gw.test:8080\r\n\r\n",
            GET,
            &["host: gw.test:8080"],
        ),
        legal(
            "Host as IPv6",
            rule,
            "GET /t HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            GET,
            &["host: [::1]:80"],
        ),
        legal(
            "quotes and commas",
            rule,
            get("X: \"a, \\\"b\\\"\", c;d=e\r\n"),
            GET,
            &[HOST, "x: \"a, \\\"b\\\"\", c;d=e"],
        ),
    ]
}

fn hop_by_hop() -> Vec<Legal> {
    let rule = "RFC 9110 §7.6.1";
    vec![
        legal(
            "keep-alive",
            rule,
            get("Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"),
            GET,
            &[HOST],
        ),
        legal("close", rule, get("Connection: close\r\n"), GET, &[HOST]),
        legal(
            "named",
            rule,
            get("Connection: X-Secret\r\nX-Secret: 1\r\nX: y\r\n"),
            GET,
            &[HOST, "x: y"],
        ),
        legal(
            "named in other case",
            rule,
            get("Connection: x-SECRET\r\nX-Secret: 1\r\n"),
            GET,
            &[HOST],
        ),
        legal(
            "named before and after",
            rule,
            get("A: 1\r\nConnection: a, b\r\nB: 2\r\n"),
            GET,
            &[HOST],
        ),
        legal(
            "named, list with gaps",
            rule,
            get("Connection: ,a,, b ,\r\nA: 1\r\nB: 2\r\nC: 3\r\n"),
            GET,
            &[HOST, "c: 3"],
        ),
        legal(
            "two Connection fields",
            rule,
            get("Connection: a\r\nConnection: b\r\nA: 1\r\nB: 2\r\n"),
            GET,
            &[HOST],
        ),
        legal("named but absent", rule, get("Connection: nothing\r\n"), GET, &[HOST]),
        legal("Proxy-Connection", rule, get("Proxy-Connection: keep-alive\r\n"), GET, &[HOST]),
        legal(
            "Proxy-Authorization",
            rule,
            get("Proxy-Authorization: Basic eA==\r\n"),
            GET,
            &[HOST],
        ),
        legal("TE other than trailers", rule, get("TE: gzip\r\nConnection: TE\r\n"), GET, &[HOST]),
        legal("Upgrade without Connection", rule, get("Upgrade: websocket\r\n"), GET, &[HOST]),
        legal(
            "Connection: upgrade without Upgrade",
            rule,
            get("Connection: upgrade\r\n"),
            GET,
            &[HOST],
        ),
        legal(
            "h2c",
            "RFC 9113 §3.1",
            get(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            ),
            GET,
            &[HOST],
        ),
        legal(
            "h2c, settings not named",
            "RFC 9113 §3.1",
            get("Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
            GET,
            &[HOST],
        ),
        legal(
            "h2c in capitals",
            "RFC 9113 §3.1",
            get("Connection: upgrade\r\nUpgrade: H2C\r\n"),
            GET,
            &[HOST],
        ),
    ]
}

fn framing() -> Vec<Legal> {
    let rule = "RFC 9112 §6";
    let post = "POST /t HTTP/1.1\r\nHost: gw.test\r\n";
    let five: &[&str] = &[HOST, "content-length: 5"];
    let chunks: &[&str] = &[HOST, CHUNKED];
    vec![
        legal("a length", rule, format!("{post}Content-Length: 5\r\n\r\nhello"), POST, five)
            .body("hello"),
        legal(
            "a length of 0",
            rule,
            format!("{post}Content-Length: 0\r\n\r\n"),
            POST,
            &[HOST, "content-length: 0"],
        ),
        legal(
            "a length with spaces",
            rule,
            format!("{post}Content-Length:  5 \t\r\n\r\nhello"),
            POST,
            five,
        )
        .body("hello"),
        legal(
            "GET with a body",
            "RFC 9110 §9.3.1",
            get("Content-Length: 5\r\n") + "hello",
            GET,
            five,
        )
        .body("hello"),
        legal("one chunk", rule, chunked("", "5\r\nhello\r\n0\r\n\r\n"), POST, chunks)
            .body("hello"),
        legal(
            "many chunks",
            rule,
            chunked("", "1\r\nh\r\n2\r\nel\r\n002\r\nlo\r\n0\r\n\r\n"),
            POST,
            chunks,
        )
        .body("hello"),
        legal("no chunk", rule, chunked("", "0\r\n\r\n"), POST, chunks),
        legal(
            "several zeros at the end",
            rule,
            chunked("", "5\r\nhello\r\n000\r\n\r\n"),
            POST,
            chunks,
        )
        .body("hello"),
        legal(
            "sizes in both cases",
            rule,
            chunked("", "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
            POST,
            chunks,
        )
        .body("01234567890123456789"),
        legal(
            "an extension",
            "RFC 9112 §7.1.1",
            chunked("", "5;a=b\r\nhello\r\n0;c\r\n\r\n"),
            POST,
            chunks,
        )
        .body("hello"),
        legal(
            "a quoted extension",
            "RFC 9112 §7.1.1",
            chunked("", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n"),
            POST,
            chunks,
        )
        .body("hello"),
        legal(
            "CRLF and chunk lines as data",
            rule,
            chunked("", "9\r\n\r\n0\r\n\r\nAB\r\n0\r\n\r\n"),
            POST,
            chunks,
        )
        .body("\r\n0\r\n\r\nAB"),
        legal(
            "Chunked in another case",
            rule,
            chunked("", "0\r\n\r\n").replace(": chunked", ": ChUnKeD"),
            POST,
            chunks,
        ),
        legal(
            "chunked after a tab",
            rule,
            chunked("", "0\r\n\r\n").replace(": chunked", ":\tchunked \t"),
            POST,
            chunks,
        ),
        legal(
            "a trailer",
            "RFC 9110 §6.5",
            chunked(
                "TE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n",
                "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
            ),
            POST,
            &[HOST, CHUNKED, "te: trailers", "connection: te", "trailer: x-sum"],
        )
        .body("hello")
        .trailers(&["x-sum: 1"]),
        legal(
            "a lone unknown length-like name",
            rule,
            get("X-Content-Length: 5\r\n"),
            GET,
            &[HOST, "x-content-length: 5"],
        ),
    ]
}

fn targets() -> Vec<Legal> {
    let rule = "RFC 9112 §3.2";
    let line = |t: &str| format!("GET {t} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    let host: &[&str] = &[HOST];
    vec![
        legal("root", rule, line("/"), "GET / HTTP/1.1", host),
        legal(
            "absolute form",
            "RFC 9112 §3.2.2",
            line("http://gw.test/t?x"),
            "GET /t?x HTTP/1.1",
            host,
        ),
        legal("absolute form, other case", rule, line("HTTP://GW.test/t"), "GET /t HTTP/1.1", &[]),
        legal("absolute form without path", rule, line("http://gw.test"), "GET / HTTP/1.1", host),
        legal(
            "absolute form, only a query",
            rule,
            line("http://gw.test?x"),
            "GET /?x HTTP/1.1",
            host,
        ),
        legal("an empty query", rule, line("/t?"), "GET /t? HTTP/1.1", host),
        legal("two question marks", rule, line("/t??a?b"), "GET /t??a?b HTTP/1.1", host),
        legal("dots in a query", rule, line("/t?/../admin"), "GET /t?/../admin HTTP/1.1", host),
        legal(
            "a slash in a query",
            rule,
            line("/t?a=%2f%5c\\"),
            "GET /t?a=%2f%5c\\ HTTP/1.1",
            host,
        ),
        legal("dot segments", "RFC 3986 §5.2.4", line("/a/./b/../c"), "GET /a/c HTTP/1.1", host),
        legal(
            "encoded dot segments",
            "RFC 3986 §6.2.2",
            line("/a/%2e/b/%2E%2e/c"),
            "GET /a/c HTTP/1.1",
            host,
        ),
        legal("empty segments", "RFC 3986 §6.2", line("//a///b"), "GET /a/b HTTP/1.1", host),
        legal("encoded letters", "RFC 3986 §6.2.2.2", line("/%61%62"), "GET /ab HTTP/1.1", host),
        legal(
            "escapes in lower case",
            "RFC 3986 §6.2.2.1",
            line("/a%c3%a9"),
            "GET /a%C3%A9 HTTP/1.1",
            host,
        ),
        legal("an encoded percent", "RFC 3986 §2.4", line("/a%25b"), "GET /a%25b HTTP/1.1", host),
        legal(
            "decoded only once",
            "RFC 3986 §2.4",
            line("/%252e%252e/admin"),
            "GET /%252e%252e/admin HTTP/1.1",
            host,
        ),
        legal(
            "path parameters",
            "RFC 3986 §3.3",
            line("/a;x=y/b;z"),
            "GET /a;x=y/b;z HTTP/1.1",
            host,
        ),
        legal("three dots", "RFC 3986 §5.2.4", line("/.../a"), "GET /.../a HTTP/1.1", host),
        legal(
            "dots within a segment",
            "RFC 3986 §5.2.4",
            line("/a..b/..c"),
            "GET /a..b/..c HTTP/1.1",
            host,
        ),
        legal(
            "not quite the deny",
            "RFC 3986 §3.3",
            line("/administrator"),
            "GET /administrator HTTP/1.1",
            host,
        ),
        legal(
            "the deny in capitals",
            "RFC 3986 §6.2.2.1",
            line("/ADMIN"),
            "GET /ADMIN HTTP/1.1",
            host,
        ),
        legal(
            "sub-delimiters",
            "RFC 3986 §2.2",
            line("/a!$&'()*+,=:@~-._"),
            "GET /a!$&'()*+,=:@~-._ HTTP/1.1",
            host,
        ),
    ]
}

fn lines() -> Vec<Legal> {
    let rule = "RFC 9112 §2.2";
    vec![
        legal(
            "one blank line before the request",
            rule,
            "\r\n".to_string() + &get(""),
            GET,
            &[HOST],
        ),
        legal(
            "a method nobody knows",
            "RFC 9110 §9.1",
            "BREW /t HTTP/1.1\r\nHost: gw.test\r\n\r\n",
            "BREW /t HTTP/1.1",
            &[HOST],
        ),
        legal(
            "a method in lower case",
            "RFC 9110 §9.1",
            "get /t HTTP/1.1\r\nHost: gw.test\r\n\r\n",
            "get /t HTTP/1.1",
            &[HOST],
        ),
        legal(
            "an odd method",
            "RFC 9110 §9.1",
            "M-SEARCH /t HTTP/1.1\r\nHost: gw.test\r\n\r\n",
            "M-SEARCH /t HTTP/1.1",
            &[HOST],
        ),
        legal(
            "HTTP/1.0 with Host",
            "RFC 9112 §2.3",
            "GET /t HTTP/1.0\r\nHost: gw.test\r\n\r\n",
            GET,
            &[HOST],
        ),
        legal(
            "HTTP/1.0 with a length",
            "RFC 9112 §2.3",
            "POST /t HTTP/1.0\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\nhello",
            POST,
            &[HOST, "content-length: 5"],
        )
        .body("hello"),
        legal(
            "OPTIONS with a path",
            "RFC 9110 §9.3.7",
            "OPTIONS /t HTTP/1.1\r\nHost: gw.test\r\n\r\n",
            "OPTIONS /t HTTP/1.1",
            &[HOST],
        ),
    ]
}
