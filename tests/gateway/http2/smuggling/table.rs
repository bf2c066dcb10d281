//! The rows: what is sent on stream 1, and what must come of it.

use crate::harness::http2::{block, code, flag, frame, headers, kind};

/// What must come of a request.
pub enum Outcome {
    /// RST_STREAM with PROTOCOL_ERROR; the connection goes on.
    Reset,
    /// The connection ends with this code.
    Ends(u32),
    /// Answered with this status and reason.
    Refused(u16, &'static str),
    /// As `Reset`; but the upstream may have got exactly this, which was whole before the fault.
    ResetBehind(Forwarded),
    /// The upstream gets exactly this.
    Forwarded(Forwarded),
}

#[derive(Default)]
pub struct Forwarded {
    pub start_line: String,
    /// All of them, as `name: value`.
    pub fields: Vec<String>,
    pub body: Vec<u8>,
    pub trailers: Vec<String>,
}

pub struct Case {
    pub name: String,
    /// Where the rule comes from.
    pub source: &'static str,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
    /// The fault lies behind the head, of which the upstream may have seen something.
    pub is_late: bool,
}

const NAME: &str = "RFC 9113 §8.2.1";
const VALUE: &str = "RFC 9113 §8.2.1";
const CONNECTION: &str = "RFC 9113 §8.2.2";
const COOKIE: &str = "RFC 9113 §8.2.3";
const PSEUDO: &str = "RFC 9113 §8.3";
const REQUEST: &str = "RFC 9113 §8.3.1";
const LENGTH: &str = "RFC 9113 §8.1.1";
const TRAILERS: &str = "RFC 9113 §8.1";
/// The codec takes bytes that no field can have for a broken header block; and any error of a
/// stream may be treated as one of the connection (RFC 9113 §5.4.2).
const ENDS: Outcome = Outcome::Ends(code::PROTOCOL_ERROR);

type Pair<'t> = (&'t [u8], &'t [u8]);

const BASE: [Pair<'static>; 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"gw.test"), (b":path", b"/t")];

pub fn all() -> Vec<Case> {
    let groups: [fn() -> Vec<Case>; 14] = [
        names,
        values,
        pseudo_fields,
        authorities,
        paths,
        methods,
        schemes,
        lengths,
        lengths_and_data,
        connections,
        cookies,
        trailers,
        bodies,
        large,
    ];
    groups.into_iter().flat_map(|group| group()).collect()
}

fn case(name: impl Into<String>, source: &'static str, bytes: Vec<u8>, outcome: Outcome) -> Case {
    Case { name: name.into(), source, bytes, outcome, is_late: false }
}

fn late(case: Case) -> Case {
    Case { is_late: true, ..case }
}

/// A GET without a body, with these further fields.
fn get(fields: &[Pair<'_>]) -> Vec<u8> {
    headers(1, &block(&[&BASE, fields].concat()), true)
}

/// A GET with one pseudo-header field replaced.
fn with(name: &[u8], value: &[u8]) -> Vec<u8> {
    let change = |pair: Pair<'static>| if pair.0 == name { (name, value) } else { pair };
    let fields: Vec<Pair<'_>> = BASE.iter().map(|pair| change(*pair)).collect();
    headers(1, &block(&fields), true)
}

/// These fields and nothing else.
fn only(fields: &[Pair<'_>]) -> Vec<u8> {
    headers(1, &block(fields), true)
}

/// A POST whose body follows.
fn post(fields: &[Pair<'_>]) -> Vec<u8> {
    let mut base = BASE;
    base[0].1 = b"POST";
    headers(1, &block(&[&base, fields].concat()), false)
}

fn data(data: &[u8], end: bool) -> Vec<u8> {
    frame(kind::DATA, u8::from(end) * flag::END_STREAM, 1, data)
}

fn trailer(fields: &[Pair<'_>]) -> Vec<u8> {
    headers(1, &block(fields), true)
}

/// `start_line` and Host as usual, with these further fields.
fn forwarded(start_line: &str, fields: &[&str]) -> Outcome {
    let mut all = vec!["host: gw.test".to_owned()];
    all.extend(fields.iter().map(|field| (*field).to_owned()));
    let start_line = format!("{start_line} HTTP/1.1");
    Outcome::Forwarded(Forwarded { start_line, fields: all, ..Forwarded::default() })
}

/// A POST of this body.
fn posted(fields: &[&str], body: &[u8], trailers: &[&str]) -> Outcome {
    let Outcome::Forwarded(head) = forwarded("POST /t", fields) else { unreachable!() };
    let trailers = trailers.iter().map(|line| (*line).to_owned()).collect();
    Outcome::Forwarded(Forwarded { body: body.to_vec(), trailers, ..head })
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn names() -> Vec<Case> {
    let bad: [&[u8]; 19] = [
        b"X-Upper",
        b"x-uppeR",
        b"Content-Length",
        b"TRANSFER-ENCODING",
        b"x:y",
        b"host:",
        b"x y",
        b"content-length ",
        b" content-length",
        b"transfer-encoding\t",
        b"x\r\nhost: evil.test\r\nx",
        b"x\r\n\r\nGET /admin HTTP/1.1\r\nx",
        b"x\nevil",
        b"x\revil",
        b"x\0y",
        b"x\x7f",
        b"x\xe9",
        b"x(y)",
        b"x/y",
    ];
    let mut cases: Vec<Case> = bad
        .into_iter()
        .map(|name| case(format!("name {}", shown(name)), NAME, get(&[(name, b"1")]), ENDS))
        .collect();
    cases.push(case("an empty name", NAME, get(&[(b"", b"1")]), ENDS));
    let quote = Outcome::Refused(400, "head.bad_field_name");
    cases.push(case("a name with a quote", NAME, get(&[(b"x\"y", b"1")]), quote));
    let odd = get(&[(b"x_y!#$%&'*+.^`|~", b"1")]);
    cases.push(case("an odd name", NAME, odd, forwarded("GET /t", &["x_y!#$%&'*+.^`|~: 1"])));
    cases
}

fn values() -> Vec<Case> {
    let bad: [&[u8]; 12] = [
        b"a\r\nx-evil: 1",
        b"a\r\n\r\nGET /admin HTTP/1.1\r\nhost: gw.test\r\n\r\n",
        b"a\nx-evil: 1",
        b"a\rx-evil: 1",
        b"\r\n",
        b"a\r\n b",
        b"a\0b",
        b"a\x01b",
        b"a\x0bb",
        b"a\x0cb",
        b"a\x1bb",
        b"a\x7fb",
    ];
    let mut cases: Vec<Case> = bad
        .into_iter()
        .map(|value| case(format!("value {}", shown(value)), VALUE, get(&[(b"x-v", value)]), ENDS))
        .collect();
    for value in [&b" a"[..], b"a ", b"\ta", b"a\t", b" ", b"\t", b"a \t "] {
        let outcome = Outcome::Refused(400, "head.bad_field_value");
        let name = format!("space around a value {}", shown(value));
        cases.push(case(name, VALUE, get(&[(b"x-v", value)]), outcome));
    }
    for (value, wanted) in [
        (&b""[..], "x-v: "),
        (b"a b", "x-v: a b"),
        (b"a\tb", "x-v: a\tb"),
        (b"a, b; c=\"d\"", "x-v: a, b; c=\"d\""),
        (b"caf\xe9", "x-v: caf\u{e9}"),
        (b": :", "x-v: : :"),
    ] {
        let name = format!("value passed on {}", shown(value));
        cases.push(case(name, VALUE, get(&[(b"x-v", value)]), forwarded("GET /t", &[wanted])));
    }
    cases
}

fn pseudo_fields() -> Vec<Case> {
    let reset = |name: &str, bytes| case(name, PSEUDO, bytes, Outcome::Reset);
    let [method, scheme, authority, path] = BASE;
    let field: Pair<'_> = (b"x-a", b"1");
    let mut cases = vec![
        reset("two :method", only(&[method, method, scheme, authority, path])),
        reset(
            "two :method that differ",
            only(&[method, (b":method", b"POST"), scheme, authority, path]),
        ),
        reset("two :scheme", only(&[method, scheme, scheme, authority, path])),
        reset("two :authority", only(&[method, scheme, authority, authority, path])),
        reset(
            "two :authority that differ",
            only(&[method, scheme, authority, (b":authority", b"evil.test"), path]),
        ),
        reset("two :path", only(&[method, scheme, authority, path, path])),
        reset(
            "two :path that differ",
            only(&[method, scheme, authority, path, (b":path", b"/admin")]),
        ),
        reset(":path after a field", only(&[method, scheme, authority, field, path])),
        reset(":authority after a field", only(&[method, scheme, path, field, authority])),
        reset(":method after a field", only(&[scheme, authority, path, field, method])),
        reset("a second :path behind the fields", get(&[field, (b":path", b"/admin")])),
        reset(":status in a request", get(&[(b":status", b"200")])),
        reset(":protocol with GET", get(&[(b":protocol", b"websocket")])),
        reset("no :method", only(&[scheme, authority, path])),
        reset("no :scheme", only(&[method, authority, path])),
        reset("no :path", only(&[method, scheme, authority])),
        reset("fields alone", only(&[(b"host", b"gw.test"), field])),
        reset("no field at all", only(&[])),
    ];
    for (name, value) in [
        (&b":foo"[..], &b"1"[..]),
        (b":", b"1"),
        (b":host", b"evil.test"),
        (b":content-length", b"3"),
    ] {
        let name_shown = format!("unknown {}", shown(name));
        cases.push(case(name_shown, PSEUDO, get(&[(name, value)]), ENDS));
    }
    cases
}

fn authorities() -> Vec<Case> {
    let [method, scheme, authority, path] = BASE;
    let refused =
        |name: &str, bytes, reason| case(name, REQUEST, bytes, Outcome::Refused(400, reason));
    let plain = || forwarded("GET /t", &[]);
    let host = |value: &'static [u8]| -> Pair<'static> { (b"host", value) };
    let mut cases = vec![
        case("Host that is the :authority", REQUEST, get(&[host(b"gw.test")]), plain()),
        case("Host that is it in capitals", REQUEST, get(&[host(b"GW.test")]), plain()),
        case(
            "Host without :authority",
            REQUEST,
            only(&[method, scheme, path, host(b"gw.test")]),
            plain(),
        ),
        refused("Host that is another", get(&[host(b"evil.test")]), "host.invalid"),
        refused("Host with another port", get(&[host(b"gw.test:81")]), "host.invalid"),
        refused("Host that is empty", get(&[host(b"")]), "host.invalid"),
        refused(
            "two Hosts that are the :authority",
            get(&[host(b"gw.test"), host(b"gw.test")]),
            "host.duplicate",
        ),
        refused(
            "two Hosts, the second another",
            get(&[host(b"gw.test"), host(b"evil.test")]),
            "host.invalid",
        ),
        refused(
            "two Hosts without :authority",
            only(&[method, scheme, path, host(b"gw.test"), host(b"gw.test")]),
            "host.duplicate",
        ),
        refused("neither Host nor :authority", only(&[method, scheme, path]), "host.missing"),
        refused(
            "an empty Host without :authority",
            only(&[method, scheme, path, host(b"")]),
            "host.invalid",
        ),
        refused(
            "a Host with a path",
            only(&[method, scheme, path, host(b"gw.test/x")]),
            "host.invalid",
        ),
        refused(
            "a Host that is a list",
            only(&[method, scheme, path, host(b"gw.test, evil.test")]),
            "host.invalid",
        ),
        case(
            "an empty :authority",
            REQUEST,
            only(&[method, scheme, (b":authority", b""), path]),
            Outcome::Reset,
        ),
        case(
            "an empty :authority and a Host",
            REQUEST,
            only(&[method, scheme, (b":authority", b""), path, host(b"gw.test")]),
            Outcome::Reset,
        ),
    ];
    for value in
        [&b"user@gw.test"[..], b"user:word@gw.test", b"gw.test:99999", b"gw.test:8a", b"@gw.test"]
    {
        let name = format!(":authority {}", shown(value));
        let outcome = Outcome::Refused(400, "host.invalid");
        cases.push(case(name, REQUEST, with(b":authority", value), outcome));
    }
    let bad: [&[u8]; 10] = [
        b"gw.test\r\nx-evil: 1",
        b"gw.test\nx",
        b"gw.test\0",
        b"gw.test evil.test",
        b" gw.test",
        b"gw.test ",
        b"gw.test/admin",
        b"gw.test?x",
        b"gw.test#x",
        b"http://gw.test",
    ];
    for value in bad {
        let name = format!(":authority {}", shown(value));
        cases.push(case(name, REQUEST, with(b":authority", value), Outcome::Reset));
    }
    let odd = with(b":authority", b"gw.t\xe9st");
    cases.push(case(":authority that is not ASCII", REQUEST, odd, ENDS));
    let port = Forwarded {
        start_line: "GET /t HTTP/1.1".into(),
        fields: vec!["host: gw.test:8080".into()],
        ..Forwarded::default()
    };
    cases.push(case(
        "a port",
        REQUEST,
        with(b":authority", b"gw.test:8080"),
        Outcome::Forwarded(port),
    ));
    let _ = authority;
    cases
}

fn paths() -> Vec<Case> {
    let mut cases = Vec::new();
    let bad: [&[u8]; 19] = [
        b"",
        b"/a b",
        b"/a HTTP/1.1\r\nhost: evil.test\r\n\r\nGET /admin",
        b"/a HTTP/1.0",
        b"/a\r\nx-evil: 1",
        b"/a\nb",
        b"/a\rb",
        b"/a\tb",
        b"/a\0b",
        b" /a",
        b"/a ",
        b"t",
        b"admin",
        b"http://gw.test/admin",
        b"http://evil.test/admin",
        b"HTTP://gw.test/t",
        b"gw.test:80",
        b"@evil.test/",
        b":80/t",
    ];
    for value in bad {
        let name = format!(":path {}", shown(value));
        cases.push(case(name, REQUEST, with(b":path", value), Outcome::Reset));
    }
    for (value, reason) in [
        (&b"*"[..], "head.bad_target"),
        (b"?q", "head.bad_target"),
        (b"/caf\xc3\xa9", "head.bad_target"),
        (b"/a%0d%0ax-evil:%201", "path.bad_encoding"),
        (b"/a%00b", "path.bad_encoding"),
        (b"/a%zz", "path.bad_encoding"),
        (b"/a%2f..%2fadmin", "path.ambiguous"),
        (b"/a\\..\\admin", "path.ambiguous"),
        (b"/../admin", "path.escapes_root"),
    ] {
        let name = format!(":path {}", shown(value));
        cases.push(case(name, REQUEST, with(b":path", value), Outcome::Refused(400, reason)));
    }
    let odd = with(b":path", b"/\xff\xfe");
    cases.push(case(":path that is not UTF-8", REQUEST, odd, ENDS));
    for value in [&b"/admin"[..], b"/t/../admin", b"/t/%2e%2e/admin", b"/./admin"] {
        let name = format!("denied: {}", shown(value));
        cases.push(case(name, REQUEST, with(b":path", value), Outcome::Refused(403, "")));
    }
    let fine = |value: &[u8], target: &str| {
        let name = format!("passed on: {}", shown(value));
        case(name, REQUEST, with(b":path", value), forwarded(&format!("GET {target}"), &[]))
    };
    cases.extend([
        fine(b"/", "/"),
        fine(b"/t?a=b&c=/x?y", "/t?a=b&c=/x?y"),
        fine(b"/t?http://evil.test/", "/t?http://evil.test/"),
        fine(b"/t?", "/t?"),
        // A fragment is none of the request's (RFC 9110 §7.1).
        fine(b"/t#admin", "/t"),
    ]);
    let mut asterisk = BASE;
    (asterisk[0].1, asterisk[3].1) = (b"OPTIONS", b"*");
    cases.push(case("OPTIONS *", REQUEST, only(&asterisk), Outcome::Refused(204, "")));
    cases
}

fn methods() -> Vec<Case> {
    let bad: [&[u8]; 11] = [
        b"",
        b"GE T",
        b"GET ",
        b" GET",
        b"GET\t",
        b"GET\r\nx-evil: 1",
        b"GET /admin HTTP/1.1\r\nhost: gw.test\r\n\r\nGET",
        b"G\0T",
        b"G\xc9T",
        b"(GET)",
        b"GET:",
    ];
    let mut cases: Vec<Case> = bad
        .into_iter()
        .map(|value| {
            let name = format!(":method {}", shown(value));
            case(name, REQUEST, with(b":method", value), ENDS)
        })
        .collect();
    let refused = |name: &str, bytes| {
        case(name, "RFC 9113 §8.5", bytes, Outcome::Refused(405, "method.refused"))
    };
    let connect: Pair<'_> = (b":method", b"CONNECT");
    cases.extend([
        refused("CONNECT", only(&[connect, (b":authority", b"gw.test:443")])),
        case("TRACE", REQUEST, with(b":method", b"TRACE"), Outcome::Refused(405, "method.refused")),
        case("CONNECT with :path", "RFC 9113 §8.5", with(b":method", b"CONNECT"), Outcome::Reset),
        case(
            "CONNECT without a port",
            "RFC 9113 §8.5",
            only(&[connect, (b":authority", b"gw.test")]),
            Outcome::Refused(400, "head.bad_target"),
        ),
        case("CONNECT alone", "RFC 9113 §8.5", only(&[connect]), Outcome::Refused(400, "")),
        case(
            "a method in small letters",
            REQUEST,
            with(b":method", b"get"),
            forwarded("get /t", &[]),
        ),
        case(
            "a method nobody knows",
            REQUEST,
            with(b":method", b"M-SEARCH"),
            forwarded("M-SEARCH /t", &[]),
        ),
        case("PRI", REQUEST, with(b":method", b"PRI"), forwarded("PRI /t", &[])),
    ]);
    cases
}

fn schemes() -> Vec<Case> {
    let bad: [&[u8]; 6] =
        [b"ht tp", b"http ", b"http\r\nx: y", b"http://gw.test/admin?", b"http:", b"h\0"];
    let mut cases: Vec<Case> = bad
        .into_iter()
        .map(|value| {
            let name = format!(":scheme {}", shown(value));
            case(name, REQUEST, with(b":scheme", value), Outcome::Reset)
        })
        .collect();
    let odd = with(b":scheme", b"h\xe9");
    cases.push(case(":scheme that is not ASCII", REQUEST, odd, ENDS));
    for value in [&b""[..], b"https", b"HTTP", b"ftp", b"a+b-c.1"] {
        let name = format!("a scheme that nothing follows from: {}", shown(value));
        cases.push(case(name, REQUEST, with(b":scheme", value), forwarded("GET /t", &[])));
    }
    cases
}

fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    let bad: [&[u8]; 14] = [
        b"-1",
        b"-5",
        b"+5",
        b"5, 5",
        b"5,5",
        b" 5",
        b"5 ",
        b"0x5",
        b"5;x",
        b"5.0",
        b"5e0",
        b"five",
        b"99999999999999999999999",
        b"\xd9\xa5",
    ];
    for value in bad {
        let name = format!("Content-Length {}", shown(value));
        let bytes = [post(&[(b"content-length", value)]), data(b"hello", true)].concat();
        cases.push(case(name, LENGTH, bytes, Outcome::Reset));
    }
    let ends = [post(&[(b"content-length", b"5\r\nx: y")]), data(b"hello", true)].concat();
    cases.push(case("Content-Length with a line end", LENGTH, ends, ENDS));
    let length: Pair<'_> = (b"content-length", b"5");
    let two = |second: &'static [u8]| {
        [post(&[length, (b"content-length", second)]), data(b"hello", true)].concat()
    };
    cases.extend([
        case(
            "an empty Content-Length",
            LENGTH,
            [post(&[(b"content-length", b"")]), data(b"hello", true)].concat(),
            Outcome::Reset,
        ),
        case(
            "two that are the same",
            LENGTH,
            two(b"5"),
            Outcome::Refused(400, "framing.bad_length"),
        ),
        case(
            "two that mean the same",
            LENGTH,
            two(b"05"),
            Outcome::Refused(400, "framing.bad_length"),
        ),
        case("two that differ", LENGTH, two(b"6"), Outcome::Reset),
        case("two that differ, the second 0", LENGTH, two(b"0"), Outcome::Reset),
        case("a length without a body", LENGTH, get(&[length]), Outcome::Reset),
        case(
            "a length of 0 without a body",
            LENGTH,
            get(&[(b"content-length", b"0")]),
            forwarded("GET /t", &["content-length: 0"]),
        ),
    ]);
    cases
}

fn lengths_and_data() -> Vec<Case> {
    let length: Pair<'_> = (b"content-length", b"5");
    let reset =
        |name: &str, bytes: Vec<Vec<u8>>| late(case(name, LENGTH, bytes.concat(), Outcome::Reset));
    let behind = |name: &str, bytes: Vec<Vec<u8>>, told: &str, body: &[u8]| {
        let Outcome::Forwarded(whole) = posted(&[told], body, &[]) else { unreachable!() };
        late(case(name, LENGTH, bytes.concat(), Outcome::ResetBehind(whole)))
    };
    let smuggled = b"hello GET /admin HTTP/1.1\r\nhost: gw.test\r\n\r\n";
    vec![
        case(
            "the right length",
            LENGTH,
            [post(&[length]), data(b"hello", true)].concat(),
            posted(&["content-length: 5"], b"hello", &[]),
        ),
        reset("more data", vec![post(&[length]), data(b"hello!", true)]),
        reset("a request in what is more", vec![post(&[length]), data(smuggled, true)]),
        behind(
            "more data in a second frame",
            vec![post(&[length]), data(b"hello", false), data(b"!", true)],
            "content-length: 5",
            b"hello",
        ),
        reset("less data", vec![post(&[length]), data(b"hell", true)]),
        reset(
            "less data in two frames",
            vec![post(&[length]), data(b"he", false), data(b"l", true)],
        ),
        reset(
            "less data and an empty end",
            vec![post(&[length]), data(b"hell", false), data(b"", true)],
        ),
        reset("no data", vec![post(&[length]), data(b"", true)]),
        reset(
            "less data and trailers",
            vec![post(&[length]), data(b"hell", false), trailer(&[(b"x-t", b"1")])],
        ),
        reset("no data and trailers", vec![post(&[length]), trailer(&[(b"x-t", b"1")])]),
        behind(
            "data with a length of 0",
            vec![post(&[(b"content-length", b"0")]), data(b"x", true)],
            "content-length: 0",
            b"",
        ),
        case(
            "a length of 0 and an empty end",
            LENGTH,
            [post(&[(b"content-length", b"0")]), data(b"", true)].concat(),
            posted(&["content-length: 0"], b"", &[]),
        ),
    ]
}

fn connections() -> Vec<Case> {
    let bad: [Pair<'_>; 19] = [
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"identity"),
        (b"transfer-encoding", b"xchunked"),
        (b"transfer-encoding", b"gzip, chunked"),
        (b"transfer-encoding", b""),
        (b"connection", b"close"),
        (b"connection", b"keep-alive"),
        (b"connection", b"content-length"),
        (b"connection", b"host"),
        (b"connection", b"te"),
        (b"connection", b"upgrade"),
        (b"connection", b""),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"upgrade", b"websocket"),
        (b"upgrade", b"h2c"),
        (b"te", b"gzip"),
        (b"te", b"trailers, gzip"),
        (b"te", b"chunked"),
    ];
    let mut cases: Vec<Case> = bad
        .into_iter()
        .map(|(name, value)| {
            let shown = format!("{}: {}", shown(name), shown(value));
            case(shown, CONNECTION, get(&[(name, value)]), Outcome::Reset)
        })
        .collect();
    let chunked: Pair<'_> = (b"transfer-encoding", b"chunked");
    let smuggled = b"0\r\n\r\nGET /admin HTTP/1.1\r\nhost: gw.test\r\n\r\n";
    let both = [post(&[(b"content-length", b"44"), chunked]), data(smuggled, true)].concat();
    cases.extend([
        case(
            "H2.TE",
            CONNECTION,
            [post(&[chunked]), data(smuggled, true)].concat(),
            Outcome::Reset,
        ),
        case("H2.CL.TE", CONNECTION, both, Outcome::Reset),
        case(
            "TE: trailers",
            CONNECTION,
            get(&[(b"te", b"trailers")]),
            forwarded("GET /t", &["te: trailers", "connection: TE"]),
        ),
        case(
            "HTTP2-Settings",
            CONNECTION,
            get(&[(b"http2-settings", b"AAMAAABk")]),
            forwarded("GET /t", &[]),
        ),
        case(
            "Proxy-Authorization",
            "RFC 9110 §11.7.2",
            get(&[(b"proxy-authorization", b"Basic x")]),
            forwarded("GET /t", &[]),
        ),
        case(
            "an expectation",
            "RFC 9110 §10.1.1",
            get(&[(b"expect", b"200-ok")]),
            Outcome::Refused(417, "head.unknown_expectation"),
        ),
        case(
            "two expectations",
            "RFC 9110 §10.1.1",
            get(&[(b"expect", b"100-continue"), (b"expect", b"x")]),
            Outcome::Refused(417, "head.unknown_expectation"),
        ),
    ]);
    cases
}

fn cookies() -> Vec<Case> {
    let cookie = |value: &'static [u8]| -> Pair<'static> { (b"cookie", value) };
    let fine = |name: &str, fields: &[Pair<'_>], wanted: &str| {
        case(name, COOKIE, get(fields), forwarded("GET /t", &[wanted]))
    };
    vec![
        fine(
            "cookie crumbs",
            &[cookie(b"a=1"), cookie(b"b=2"), cookie(b"c=3")],
            "cookie: a=1; b=2; c=3",
        ),
        fine(
            "crumbs that are lists",
            &[cookie(b"a=1; b=2"), cookie(b"c=3")],
            "cookie: a=1; b=2; c=3",
        ),
        fine("crumbs around a field", &[cookie(b"a=1"), cookie(b"a=2")], "cookie: a=1; a=2"),
        case(
            "a crumb with a line end",
            COOKIE,
            get(&[cookie(b"a=1"), cookie(b"b=2\r\nx: y")]),
            ENDS,
        ),
        case(
            "a crumb with a space at its end",
            COOKIE,
            get(&[cookie(b"a=1 "), cookie(b"b=2")]),
            Outcome::Refused(400, "head.bad_field_value"),
        ),
        case("Cookie in capitals", NAME, get(&[(b"Cookie", b"a=1")]), ENDS),
    ]
}

fn trailers() -> Vec<Case> {
    let sent = |fields: &[Pair<'_>]| [post(&[]), data(b"hello", false), trailer(fields)].concat();
    let reset =
        |name: &str, fields: &[Pair<'_>]| late(case(name, TRAILERS, sent(fields), Outcome::Reset));
    let refused = |name: &str, fields: &[Pair<'_>]| {
        let outcome = Outcome::Refused(400, "framing.bad_trailer");
        late(case(name, "RFC 9110 §6.5.1", sent(fields), outcome))
    };
    let ends = |name: &str, fields: &[Pair<'_>]| late(case(name, TRAILERS, sent(fields), ENDS));
    // The codec does not tell that they came; they go no further.
    let dropped = |name: &str, bytes| case(name, TRAILERS, bytes, posted(&[], b"hello", &[]));
    let length: Pair<'_> = (b"content-length", b"5");
    vec![
        case(
            "a trailer",
            TRAILERS,
            sent(&[(b"x-sum", b"9")]),
            posted(&[], b"hello", &["x-sum: 9"]),
        ),
        case(
            "a trailer behind a body of known length",
            TRAILERS,
            [post(&[length]), data(b"hello", false), trailer(&[(b"x-sum", b"9")])].concat(),
            posted(&["content-length: 5"], b"hello", &[]),
        ),
        dropped(":path in trailers", sent(&[(b":path", b"/admin")])),
        reset(":method in trailers", &[(b"x-sum", b"9"), (b":method", b"GET")]),
        dropped(":authority in trailers", sent(&[(b":authority", b"evil.test")])),
        reset("Transfer-Encoding in trailers", &[(b"transfer-encoding", b"chunked")]),
        reset("Connection in trailers", &[(b"connection", b"close")]),
        ends("a line end in a trailer", &[(b"x-sum", b"9\r\n\r\nGET /admin HTTP/1.1\r\n")]),
        ends("a trailer's name in capitals", &[(b"X-Sum", b"9")]),
        refused("Content-Length in trailers", &[(b"content-length", b"3")]),
        refused("Host in trailers", &[(b"host", b"evil.test")]),
        refused("Trailer in trailers", &[(b"trailer", b"x")]),
        refused("Expect in trailers", &[(b"expect", b"100-continue")]),
        refused("Authorization in trailers", &[(b"authorization", b"Basic x")]),
        refused("Cookie in trailers", &[(b"cookie", b"a=1")]),
        refused("space around a trailer's value", &[(b"x-sum", b" 9")]),
        late(case(
            "trailers that do not end it",
            TRAILERS,
            [post(&[]), data(b"hello", false), headers(1, &block(&[(b"x-sum", b"9")]), false)]
                .concat(),
            Outcome::Reset,
        )),
        dropped(
            "a second head instead of trailers",
            [post(&[]), data(b"hello", false), headers(1, &block(&BASE), true)].concat(),
        ),
    ]
}

fn bodies() -> Vec<Case> {
    let fine = |name: &str, body: &'static [u8]| {
        let bytes = [post(&[]), data(body, true)].concat();
        case(name, "RFC 9112 §7.1", bytes, posted(&[], body, &[]))
    };
    let in_two = |name: &str, body: &'static [u8]| {
        let (a, b) = body.split_at(body.len() / 2);
        let bytes = [post(&[]), data(a, false), data(b, true)].concat();
        case(name, "RFC 9112 §7.1", bytes, posted(&[], body, &[]))
    };
    let padded = |pad: u8, data: &[u8]| {
        let payload = [&[pad], data, &vec![0; usize::from(pad)][..]].concat();
        frame(kind::DATA, flag::END_STREAM | 8, 1, payload)
    };
    let too_much = frame(kind::DATA, flag::END_STREAM | 8, 1, [9, b'x']);
    let request = b"GET /admin HTTP/1.1\r\nHost: gw.test\r\n\r\n";
    let get_with = {
        let head = headers(1, &block(&BASE), false);
        [head, data(request, true)].concat()
    };
    let Outcome::Forwarded(wanted) = forwarded("GET /t", &[]) else { unreachable!() };
    let get_wanted = Outcome::Forwarded(Forwarded { body: request.to_vec(), ..wanted });
    vec![
        fine("a body that is a request", request),
        in_two("a body that is a request, in two", request),
        fine("a body that ends a chunked one", b"0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n"),
        in_two("a body that ends a chunked one, in two", b"0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n"),
        fine("line ends", b"\r\n\r\n\r\n"),
        case("GET with a body", "RFC 9112 §6", get_with, get_wanted),
        case(
            "padding is no data",
            "RFC 9113 §6.1",
            [post(&[]), padded(20, b"hello")].concat(),
            posted(&[], b"hello", &[]),
        ),
        late(case(
            "more padding than there is",
            "RFC 9113 §6.1",
            [post(&[]), too_much].concat(),
            Outcome::Ends(code::PROTOCOL_ERROR),
        )),
    ]
}

fn large() -> Vec<Case> {
    const SIZE: &str = "RFC 6585 §5";
    let long = |n: usize| vec![b'x'; n];
    let many = |n: usize| -> Vec<Pair<'static>> { vec![(b"x-f", b"1"); n] };
    let path = |n: usize| [b"/", &long(n)[..]].concat();
    vec![
        case(
            "a field of 15,000 bytes",
            SIZE,
            get(&[(b"x-l", &long(15_000))]),
            forwarded("GET /t", &[&format!("x-l: {}", "x".repeat(15_000))]),
        ),
        case(
            "a field of 17,000 bytes",
            SIZE,
            get(&[(b"x-l", &long(17_000))]),
            Outcome::Refused(431, "limit.head_bytes"),
        ),
        case(
            "a field of 100,000 bytes",
            SIZE,
            get(&[(b"x-l", &long(100_000))]),
            Outcome::Ends(code::ENHANCE_YOUR_CALM),
        ),
        case(
            "a name of 17,000 bytes",
            SIZE,
            get(&[(&long(17_000), b"1")]),
            Outcome::Refused(431, "limit.head_bytes"),
        ),
        case("101 fields", SIZE, get(&many(101)), Outcome::Refused(431, "limit.fields")),
        case("10,000 fields", SIZE, get(&many(10_000)), Outcome::Ends(code::ENHANCE_YOUR_CALM)),
        case(
            "a path of 3,000 bytes",
            "RFC 9110 §15.5.15",
            with(b":path", &path(3000)),
            Outcome::Refused(414, "limit.target_bytes"),
        ),
        case(
            "a path of 60,000 bytes",
            "RFC 9110 §15.5.15",
            with(b":path", &path(60_000)),
            Outcome::Refused(431, ""),
        ),
        case(
            "a method of 17,000 bytes",
            SIZE,
            with(b":method", &long(17_000)),
            Outcome::Refused(431, "limit.head_bytes"),
        ),
    ]
}
