//! Hostile requests, as data: what is sent, what must come of it, and which rule says so.
//!
//! A case never depends on what an upstream would make of it: it is refused here, and nothing of it
//! reaches an upstream.

use super::outcome::{Outcome, answer, broken, deny, refuse, truncated};

/// One request (or what pretends to be one).
pub struct Case {
    pub name: String,
    /// Where the rule comes from.
    pub source: &'static str,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
}

/// The limits the table is run with; the cases about limits are made from them.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
pub const TARGET_BYTES_MAX: usize = 4 * 1024;
pub const FIELDS_MAX: usize = 64;
pub const BODY_BYTES_MAX: usize = 64 * 1024;

const MESSAGE: &str = "RFC 9112 §2.2";
const FIELD: &str = "RFC 9112 §5.1";
const FOLD: &str = "RFC 9112 §5.2";
const VALUE: &str = "RFC 9110 §5.5";
const CODING: &str = "RFC 9112 §6.1";
const LENGTH: &str = "RFC 9112 §6.3";
const CHUNK: &str = "RFC 9112 §7.1";
const TRAILER: &str = "RFC 9110 §6.5.1";
const METHOD: &str = "RFC 9110 §9.1";
const TARGET: &str = "RFC 9112 §3.2";
const VERSION: &str = "RFC 9112 §2.3";
const HOST: &str = "RFC 9112 §3.2";
const PATH: &str = "RFC 3986 §6.2.2";
const CONNECTION: &str = "RFC 9110 §7.6.1";

pub fn all() -> Vec<Case> {
    let groups: [fn() -> Vec<Case>; 20] = [
        length_and_coding,
        coding_values,
        coding_names,
        length_values,
        line_ends,
        folds,
        control_bytes,
        field_names,
        methods,
        request_lines,
        versions,
        hosts,
        targets,
        paths,
        connections,
        http10,
        chunks,
        trailers,
        limits,
        cut_short,
    ];
    groups.into_iter().flat_map(|group| group()).collect()
}

fn case(
    name: impl Into<String>,
    source: &'static str,
    bytes: impl Into<Vec<u8>>,
    outcome: Outcome,
) -> Case {
    Case { name: name.into(), source, bytes: bytes.into(), outcome }
}

/// `GET /t` with these further field lines (each with its own line end).
fn get(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /t HTTP/1.1\r\nHost: gw.test\r\n", lines.as_ref(), b"\r\n"].concat()
}

/// `POST /t` with these further field lines and this body.
fn post(lines: impl AsRef<[u8]>, body: &str) -> Vec<u8> {
    let lines = lines.as_ref();
    [b"POST /t HTTP/1.1\r\nHost: gw.test\r\n", lines, b"\r\n", body.as_bytes()].concat()
}

/// `GET` with this target.
fn target(target: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET ", target.as_ref(), b" HTTP/1.1\r\nHost: gw.test\r\n\r\n"].concat()
}

fn length_and_coding() -> Vec<Case> {
    const BOTH: Outcome = refuse(400, "framing.length_and_chunked");
    const EITHER: Outcome =
        refuse(400, "framing.length_and_chunked|framing.bad_coding|framing.bad_length");
    let smuggled = "0\r\n\r\nGET /admin HTTP/1.1\r\nHost: gw.test\r\n\r\n";
    [
        ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", BOTH),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", BOTH),
        ("CL 0 and chunked", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", BOTH),
        ("chunked and CL 0", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", BOTH),
        ("lower case names", "content-length: 6\r\ntransfer-encoding: chunked\r\n", BOTH),
        ("upper case names", "CONTENT-LENGTH: 6\r\nTRANSFER-ENCODING: CHUNKED\r\n", BOTH),
        ("fields between", "Content-Length: 6\r\nA: b\r\nTransfer-Encoding: chunked\r\n", BOTH),
        (
            "equal lengths and chunked",
            "Content-Length: 6\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n",
            EITHER,
        ),
        (
            "lengths around chunked",
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n",
            EITHER,
        ),
        ("bad length and chunked", "Content-Length: x\r\nTransfer-Encoding: chunked\r\n", EITHER),
        ("length and identity", "Content-Length: 6\r\nTransfer-Encoding: identity\r\n", EITHER),
        ("length and xchunked", "Content-Length: 6\r\nTransfer-Encoding: xchunked\r\n", EITHER),
        ("length and empty coding", "Content-Length: 6\r\nTransfer-Encoding:\r\n", EITHER),
        (
            "length and gzip, chunked",
            "Content-Length: 6\r\nTransfer-Encoding: gzip, chunked\r\n",
            EITHER,
        ),
        (
            "chunked hidden by Connection",
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n",
            refuse(400, "framing.length_and_chunked|head.bad_connection"),
        ),
        (
            "length hidden by Connection",
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\nConnection: content-length\r\n",
            refuse(400, "framing.length_and_chunked|head.bad_connection"),
        ),
    ]
    .into_iter()
    .map(|(name, lines, outcome)| {
        case(format!("both: {name}"), CODING, post(lines, smuggled), outcome)
    })
    .collect()
}

fn coding_values() -> Vec<Case> {
    const BAD: Outcome = refuse(400, "framing.bad_coding");
    const BYTES: Outcome = refuse(400, "head.bad_field_value|framing.bad_coding");
    let body = "0\r\n\r\n";
    let values: &[&[u8]] = &[
        b"chunked, chunked",
        b"chunked,chunked",
        b"chunked , chunked",
        b"chunked, identity",
        b"identity, chunked",
        b"identity",
        b"xchunked",
        b"chunkedx",
        b"x-chunked",
        b"chunke",
        b"chunk",
        b"chun ked",
        b"chunked chunked",
        b"chunked;x",
        b"chunked;q=1",
        b"chunked; a=b",
        b"chunked;",
        b"\"chunked\"",
        b"'chunked'",
        b"<chunked>",
        b"gzip",
        b"gzip, chunked",
        b"chunked, gzip",
        b"deflate",
        b"compress, chunked",
        b"x-gzip, chunked",
        b"trailers",
        b"trailers, chunked",
        b"cow",
        b"cow, chunked",
        b"chunked, cow",
        b"",
        b",",
        b"chunked,cow,chunked",
        b"chunked\\",
        b"chunked:",
        b"=chunked",
        b"0",
        b"\xa0chunked",
        b"chunked\xa0",
        b"\xc2\xa0chunked",
        b"chun\xc5\xbfed",
        b"\xef\xbb\xbfchunked",
    ];
    let mut cases: Vec<Case> = values
        .iter()
        .map(|v| {
            let line = [b"Transfer-Encoding: ", *v, b"\r\n"].concat();
            case(
                format!("coding {:?}", v.escape_ascii().to_string()),
                CODING,
                post(line, body),
                BAD,
            )
        })
        .collect();
    for v in [
        &b"chunked\x0b"[..],
        b"\x0bchunked",
        b"chunked\x0c",
        b"chunked\0",
        b"\0chunked",
        b"chu\x08nked",
    ] {
        let line = [b"Transfer-Encoding: ", v, b"\r\n"].concat();
        let name = format!("coding {:?}", v.escape_ascii().to_string());
        cases.push(case(name, VALUE, post(line, body), BYTES));
    }
    for (a, b) in [
        ("chunked", "chunked"),
        ("chunked", "identity"),
        ("identity", "chunked"),
        ("gzip", "chunked"),
        ("chunked", "gzip"),
        ("chunked", "cow"),
        ("", "chunked"),
        ("chunked", ""),
        ("x", "chunked"),
    ] {
        let lines = format!("Transfer-Encoding: {a}\r\nTransfer-Encoding: {b}\r\n");
        cases.push(case(format!("coding twice: {a:?}, {b:?}"), CODING, post(lines, body), BAD));
    }
    cases
}

fn coding_names() -> Vec<Case> {
    const NAME: Outcome = refuse(400, "head.bad_field_name|head.malformed");
    const FOLDED: Outcome = refuse(400, "head.obs_fold|head.bad_field_name|head.malformed");
    const ENDS: Outcome = refuse(400, "head.bare_line_end|head.bad_field_name|head.malformed");
    let lines: [(&[u8], &str, Outcome); 16] = [
        (b"Transfer-Encoding : chunked\r\n", FIELD, NAME),
        (b"Transfer-Encoding\t: chunked\r\n", FIELD, NAME),
        (b"Transfer-Encoding \t : chunked\r\n", FIELD, NAME),
        (b"Transfer-Encoding\x0b: chunked\r\n", FIELD, NAME),
        (b"Transfer-Encoding\0: chunked\r\n", FIELD, NAME),
        (b"Transfer-Encoding\xa0: chunked\r\n", FIELD, NAME),
        (b"Transfer\xadEncoding: chunked\r\n", FIELD, NAME),
        (b"Transfer Encoding: chunked\r\n", FIELD, NAME),
        (b"Transfer-Encoding\r\n: chunked\r\n", FIELD, NAME),
        (b"Transfer-Encoding chunked\r\n", FIELD, NAME),
        (b" Transfer-Encoding: chunked\r\n", FOLD, FOLDED),
        (b"\tTransfer-Encoding: chunked\r\n", FOLD, FOLDED),
        (b"X: y\n Transfer-Encoding: chunked\r\n", MESSAGE, ENDS),
        (b"X: y\nTransfer-Encoding: chunked\r\n", MESSAGE, ENDS),
        (b"X: y\rTransfer-Encoding: chunked\r\n", MESSAGE, ENDS),
        (b"Transfer-Encoding: chunked\n", MESSAGE, ENDS),
    ];
    let named = |line: &[u8]| format!("coding name {:?}", line.escape_ascii().to_string());
    let mut cases: Vec<Case> = lines
        .into_iter()
        .map(|(line, source, outcome)| {
            let with_length = [b"Content-Length: 5\r\n", line].concat();
            case(named(line), source, post(with_length, "0\r\n\r\n"), outcome)
        })
        .collect();
    for line in
        [&b"Content-Length : 5\r\n"[..], b"Content-Length\t: 5\r\n", b"Content\0Length: 5\r\n"]
    {
        cases.push(case(named(line), FIELD, post(line, "hello"), NAME));
    }
    cases
}

fn length_values() -> Vec<Case> {
    const BAD: Outcome = refuse(400, "framing.bad_length");
    const BYTES: Outcome = refuse(400, "head.bad_field_value|framing.bad_length");
    let values: &[&[u8]] = &[
        b"+5",
        b"-5",
        b"-0",
        b"+0",
        b"0x5",
        b"0X5",
        b"5h",
        b"0b101",
        b"0o5",
        b"5a",
        b"a5",
        b"a",
        b"five",
        b"5 5",
        b"5 6",
        b"5;",
        b"5;x",
        b"5;q=1",
        b"\"5\"",
        b"'5'",
        b"(5)",
        b"5.0",
        b"5.",
        b".5",
        b"5e0",
        b"5E1",
        b"1e1",
        b"5_0",
        b"1,000",
        b"5/5",
        b"5-5",
        b"5\xa0",
        b"\xa05",
        b"",
        b" ",
        b",",
        b";5",
        b"=5",
        b"5=",
        b"5%",
        b"%35",
        b"NaN",
        b"inf",
        b"null",
        b"\xd9\xa5",
        b"\xef\xbc\x95",
        b"5,6",
        b"6,5",
        b"5, 5, 6",
        b"0, 5",
        b"5,a",
        b"5,+5",
        b"5,-5",
        // Would wrap to 5 in 64 bits, or overflow.
        b"18446744073709551621",
        b"18446744073709551616",
        b"99999999999999999999",
        b"340282366920938463463374607431768211461",
        b"-18446744073709551611",
        b"100000000000000000000000000000000000000000000000005",
    ];
    let mut cases: Vec<Case> = values
        .iter()
        .map(|v| {
            let line = [b"Content-Length: ", *v, b"\r\n"].concat();
            let name = format!("length {:?}", v.escape_ascii().to_string());
            case(name, LENGTH, post(line, "hello"), BAD)
        })
        .collect();
    for v in [&b"5\x0b"[..], b"\x0b5", b"5\0", b"\x005", b"5\x0c"] {
        let line = [b"Content-Length: ", v, b"\r\n"].concat();
        let name = format!("length {:?}", v.escape_ascii().to_string());
        cases.push(case(name, VALUE, post(line, "hello"), BYTES));
    }
    for (a, b) in [
        ("5", "6"),
        ("6", "5"),
        ("0", "5"),
        ("5", "0"),
        ("5", "+5"),
        ("5", ""),
        ("", "5"),
        ("5", "5a"),
        ("5", "05x"),
    ] {
        let lines = format!("Content-Length: {a}\r\nContent-Length: {b}\r\n");
        cases.push(case(format!("lengths {a:?} and {b:?}"), LENGTH, post(lines, "hello"), BAD));
    }
    let lines = "Content-Length: 5\r\ncontent-length: 5\r\nCONTENT-LENGTH: 6\r\n";
    cases.push(case("three lengths, the last differs", LENGTH, post(lines, "hello"), BAD));
    cases.push(case("a bad length on GET", LENGTH, get("Content-Length: -1\r\n"), BAD));
    cases
}

fn line_ends() -> Vec<Case> {
    const ENDS: Outcome = refuse(
        400,
        "head.bare_line_end|head.malformed|head.bad_field_value|head.bad_field_name|head.bad_target|head.bad_method|head.bad_version",
    );
    let heads: &[(&str, &str)] = &[
        ("LF everywhere", "GET /t HTTP/1.1\nHost: gw.test\n\n"),
        ("LF after the request line", "GET /t HTTP/1.1\nHost: gw.test\r\n\r\n"),
        ("LF after Host", "GET /t HTTP/1.1\r\nHost: gw.test\n\r\n"),
        ("LF after Host, then a field", "GET /t HTTP/1.1\r\nHost: gw.test\nX: y\r\n\r\n"),
        ("LF at the end", "GET /t HTTP/1.1\r\nHost: gw.test\r\n\n"),
        ("LF twice at the end", "GET /t HTTP/1.1\r\nHost: gw.test\n\n"),
        ("CR CR LF at the end", "GET /t HTTP/1.1\r\nHost: gw.test\r\n\r\r\n\r\n"),
        ("CR CR LF after a field", "GET /t HTTP/1.1\r\nHost: gw.test\r\r\n\r\n"),
        ("CR CR LF after the request line", "GET /t HTTP/1.1\r\r\nHost: gw.test\r\n\r\n"),
        ("LF CR", "GET /t HTTP/1.1\n\rHost: gw.test\n\r\n\r"),
        ("CR everywhere", "GET /t HTTP/1.1\rHost: gw.test\r\r\n\r\n"),
        ("CR after the request line", "GET /t HTTP/1.1\rHost: gw.test\r\n\r\n"),
        ("CR in a value", "GET /t HTTP/1.1\r\nHost: gw.test\r\nX: a\rb\r\n\r\n"),
        ("CR at the start of a value", "GET /t HTTP/1.1\r\nHost: gw.test\r\nX: \rb\r\n\r\n"),
        ("CR before the colon", "GET /t HTTP/1.1\r\nHost: gw.test\r\nX\r: b\r\n\r\n"),
        ("CR in a name", "GET /t HTTP/1.1\r\nHost: gw.test\r\nX\rY: b\r\n\r\n"),
        ("CR in the method", "GE\rT /t HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("CR in the target", "GET /t\rx HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("CR in the version", "GET /t HTTP/1\r.1\r\nHost: gw.test\r\n\r\n"),
        ("CR before the request", "\rGET /t HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("LF before the request", "\nGET /t HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("LF in the target", "GET /t\nx HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("LF in the method", "GE\nT /t HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("LF in a name", "GET /t HTTP/1.1\r\nHost: gw.test\r\nX\nY: b\r\n\r\n"),
        ("LF before a value", "GET /t HTTP/1.1\r\nHost: gw.test\r\nX:\nb: c\r\n\r\n"),
        (
            "a smuggled line",
            "GET /t HTTP/1.1\r\nHost: gw.test\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        ("CR space LF", "GET /t HTTP/1.1\r\nHost: gw.test\r \n\r\n\r\n"),
        ("CR LF split by a tab", "GET /t HTTP/1.1\r\nHost: gw.test\r\n\r\t\n\r\n"),
    ];
    heads
        .iter()
        .map(|(name, head)| case(format!("line end: {name}"), MESSAGE, *head, ENDS))
        .collect()
}

fn folds() -> Vec<Case> {
    const FOLDED: Outcome = refuse(400, "head.obs_fold|head.bad_field_name|head.malformed");
    [
        ("space", get("X: a\r\n b\r\n")),
        ("tab", get("X: a\r\n\tb\r\n")),
        ("empty value first", get("X:\r\n b\r\n")),
        ("blank continuation", get("X: a\r\n \r\n")),
        ("blank tab continuation", get("X: a\r\n\t\r\n")),
        ("twice", get("X: a\r\n b\r\n c\r\n")),
        ("looks like a field", get("X: a\r\n Y: b\r\n")),
        ("a length", post("Content-Length:\r\n 5\r\n", "hello")),
        ("a length over two lines", post("Content-Length: 5\r\n 0\r\n", "hello")),
        ("a coding", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")),
        ("a coding with a tab", post("Transfer-Encoding:\r\n\tchunked\r\n", "0\r\n\r\n")),
        ("a coding list", post("Transfer-Encoding: identity,\r\n chunked\r\n", "0\r\n\r\n")),
        ("Host", b"GET /t HTTP/1.1\r\nHost:\r\n gw.test\r\n\r\n".to_vec()),
        ("before the first field", b"GET /t HTTP/1.1\r\n Host: gw.test\r\n\r\n".to_vec()),
        ("a blank first line", b"GET /t HTTP/1.1\r\n \r\nHost: gw.test\r\n\r\n".to_vec()),
    ]
    .into_iter()
    .map(|(name, bytes)| case(format!("fold: {name}"), FOLD, bytes, FOLDED))
    .collect()
}

fn control_bytes() -> Vec<Case> {
    const VALUE_BYTE: Outcome = refuse(400, "head.bad_field_value");
    let control = || (0u8..32).filter(|b| !b"\t\n\r".contains(b)).chain([127]);
    let mut cases = Vec::new();
    for b in control() {
        let line = [b"X: a", &[b][..], b"b\r\n"].concat();
        cases.push(case(format!("byte {b:#04x} in a value"), VALUE, get(line), VALUE_BYTE));
    }
    for b in [0, 0x08, 0x1b, 0x7f] {
        let at_start = [b"X: ", &[b][..], b"b\r\n"].concat();
        cases.push(case(format!("byte {b:#04x} begins a value"), VALUE, get(at_start), VALUE_BYTE));
        let at_end = [b"X: b", &[b][..], b"\r\n"].concat();
        cases.push(case(format!("byte {b:#04x} ends a value"), VALUE, get(at_end), VALUE_BYTE));
    }
    for b in [0, 1, 9, 0x0b, 0x0c, 0x1f, 0x7f] {
        let bytes = target([b"/t", &[b][..], b"x"].concat());
        let outcome = refuse(400, "head.bad_target|head.malformed|head.bad_version");
        cases.push(case(format!("byte {b:#04x} in the target"), TARGET, bytes, outcome));
    }
    cases
}

fn field_names() -> Vec<Case> {
    const NAME: Outcome = refuse(400, "head.bad_field_name|head.malformed");
    let mut cases = Vec::new();
    for b in b"\"(),/;<=>?@[\\]{} ".iter().chain(&[0, 1, 9, 0x1f, 0x7f, 0x80, 0xc3, 0xff]) {
        let line = [b"X", &[*b][..], b"Y: z\r\n"].concat();
        cases.push(case(format!("byte {b:#04x} in a field name"), FIELD, get(line), NAME));
    }
    for (name, lines) in [
        ("empty", ": x\r\n"),
        ("empty, no value", ":\r\n"),
        ("only a space", " : x\r\n"),
        ("no colon", "Xyz\r\n"),
        ("no colon, two words", "Xyz abc\r\n"),
        ("space before the colon", "X : y\r\n"),
        ("tab before the colon", "X\t: y\r\n"),
        ("a quoted name", "\"X\": y\r\n"),
        ("a second request line", "GET /admin HTTP/1.1\r\n"),
        ("non-ASCII letters", "Contént-Length: 5\r\n"),
    ] {
        let mut outcome = NAME;
        if name.starts_with("only") {
            outcome = refuse(400, "head.obs_fold|head.bad_field_name|head.malformed");
        }
        // "GET /admin HTTP/1.1" has no colon at all.
        cases.push(case(format!("field name: {name}"), FIELD, get(lines), outcome));
    }
    let host = "GET /t HTTP/1.1\r\nHost : gw.test\r\n\r\n";
    cases.push(case("field name: space after Host", FIELD, host, NAME));
    cases
}

fn methods() -> Vec<Case> {
    const BAD: Outcome = refuse(400, "head.bad_method|head.malformed");
    const REFUSED: Outcome = answer(405, "method.refused");
    let rest = b" /t HTTP/1.1\r\nHost: gw.test\r\n\r\n";
    let tokens: &[&[u8]] = &[
        b"",
        b"G(T",
        b"G)T",
        b"G@T",
        b"G,T",
        b"G;T",
        b"G/T",
        b"G:T",
        b"G=T",
        b"G{T",
        b"G[T",
        b"G\\T",
        b"G\"T",
        b"\"GET\"",
        b"<GET>",
        b"G\0T",
        b"GET\0",
        b"\0GET",
        b"G\x7fT",
        b"G\x80T",
        b"\xef\xbb\xbfGET",
        b"G\x0bT",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ];
    let mut cases: Vec<Case> = tokens
        .iter()
        .map(|m| {
            let name = format!("method {:?}", m.escape_ascii().to_string());
            case(name, METHOD, [*m, rest].concat(), BAD)
        })
        .collect();
    for (name, bytes) in [
        ("CONNECT", "CONNECT gw.test:443 HTTP/1.1\r\nHost: gw.test:443\r\n\r\n"),
        ("CONNECT to IPv6", "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n"),
        ("CONNECT to an address", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n"),
        ("TRACE", "TRACE /t HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("TRACE /", "TRACE / HTTP/1.1\r\nHost: gw.test\r\nMax-Forwards: 0\r\n\r\n"),
        ("TRACE with secrets", "TRACE /t HTTP/1.1\r\nHost: gw.test\r\nCookie: a=b\r\n\r\n"),
    ] {
        cases.push(case(format!("method: {name}"), "RFC 9110 §9.3", bytes, REFUSED));
    }
    let either = refuse(400, "head.bad_target|method.refused|host.invalid");
    for (name, bytes) in [
        ("CONNECT with a path", "CONNECT /t HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("CONNECT with a URL", "CONNECT http://gw.test/ HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("CONNECT without a port", "CONNECT gw.test HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
    ] {
        cases.push(case(
            format!("method: {name}"),
            "RFC 9112 §3.2.3",
            bytes,
            either.or_status(405),
        ));
    }
    cases
}

fn request_lines() -> Vec<Case> {
    const BAD: Outcome = refuse(
        400,
        "head.malformed|head.bad_method|head.bad_target|head.bad_version|head.bare_line_end|head.bad_field_name",
    );
    [
        ("HTTP/0.9", "GET /t\r\n\r\n"),
        ("HTTP/0.9 with fields", "GET /t\r\nHost: gw.test\r\n\r\n"),
        ("only a method", "GET\r\nHost: gw.test\r\n\r\n"),
        ("no target", "GET HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("no target, two spaces", "GET  HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("two spaces before the target", "GET  /t HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("two spaces before the version", "GET /t  HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("space at the end", "GET /t HTTP/1.1 \r\nHost: gw.test\r\n\r\n"),
        ("tab at the end", "GET /t HTTP/1.1\t\r\nHost: gw.test\r\n\r\n"),
        ("tab after the method", "GET\t/t HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("tab before the version", "GET /t\tHTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("space first", " GET /t HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("tab first", "\tGET /t HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("space in the target", "GET /t x HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("a request in the target", "GET /t HTTP/1.1 /admin HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("four words", "GET /t HTTP/1.1 x\r\nHost: gw.test\r\n\r\n"),
        ("a status line", "HTTP/1.1 200 OK\r\nHost: gw.test\r\n\r\n"),
        ("garbage", "\u{1}\u{2}\u{3}\u{4}\r\n\r\n"),
        ("words", "hello gateway\r\n\r\n"),
        ("SMTP", "EHLO gw.test\r\n\r\n"),
        ("a field first", "Host: gw.test\r\nGET /t HTTP/1.1\r\n\r\n"),
    ]
    .into_iter()
    .map(|(name, bytes)| case(format!("request line: {name}"), "RFC 9112 §3", bytes, BAD))
    .collect()
}

fn versions() -> Vec<Case> {
    const UNKNOWN: Outcome = refuse(505, "head.unknown_version");
    const BAD: Outcome = refuse(400, "head.bad_version|head.malformed|head.bad_target");
    let line = |v: &str| format!("GET /t {v}\r\nHost: gw.test\r\n\r\n");
    let mut cases = Vec::new();
    for v in [
        "HTTP/2.0", "HTTP/3.0", "HTTP/1.2", "HTTP/1.9", "HTTP/9.9", "HTTP/0.9", "HTTP/2.1",
        "HTTP/0.0",
    ] {
        cases.push(case(format!("version {v}"), "RFC 9110 §15.6.6", line(v), UNKNOWN));
    }
    // With "PRI * HTTP/2" it would be HTTP/2's to refuse (tests/gateway/http2).
    let other = "PRI /x HTTP/2.0\r\nHost: x\r\n\r\n";
    cases.push(case("nearly the HTTP/2 preface", "RFC 9113 §3.4", other, UNKNOWN));
    for v in [
        "HTTP/1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/11",
        "HTTP/1.10",
        "HTTP/01.1",
        "HTTP/1.01",
        "HTTP/1.1.1",
        "http/1.1",
        "Http/1.1",
        "HTtP/1.1",
        "HTTP1.1",
        "HTTP/1,1",
        "HTTPS/1.1",
        "ICY/1.1",
        "HTTP/1.1x",
        "xHTTP/1.1",
        "HTTP/-1.1",
        "HTTP/+1.1",
        "HTTP/a.b",
        "HTTP\\1.1",
        "HTTP//1.1",
        "HTTP/1.\u{661}",
        "HTTP/1.1\0",
        "H",
        "1.1",
    ] {
        cases.push(case(format!("version {v:?}"), VERSION, line(v), BAD));
    }
    cases
}

fn hosts() -> Vec<Case> {
    const INVALID: Outcome = refuse(400, "host.invalid");
    const DUPLICATE: Outcome = refuse(400, "host.duplicate");
    let mut cases = Vec::new();
    for v in [
        "a b",
        "a,b",
        "a/b",
        "a\\b",
        "a?b",
        "a#b",
        "u@a",
        "u:p@a",
        "@a",
        "a@",
        "http://a",
        "//a",
        "a:b",
        "a:65536",
        "a:99999",
        "a:-1",
        "a:+80",
        "a:80:80",
        "a: 80",
        "a:8 0",
        ":80",
        ":",
        "[::1",
        "::1",
        "::1]",
        "[::1]x",
        "[::1]:x",
        "[::g]",
        "[]",
        "[a]",
        "[::1%25lo]",
        "a[::1]",
        "a\"",
        "<a>",
        "a%00b",
        "a%zz",
        "a%2fb",
        "a%",
        "é.test",
        "a\tb",
        "gw.test,gw.test",
        "gw.test, admin.test",
        "gw.test/../admin",
        "gw.test/admin?",
    ] {
        let bytes = format!("GET /t HTTP/1.1\r\nHost: {v}\r\n\r\n");
        cases.push(case(format!("host {v:?}"), HOST, bytes, INVALID));
    }
    for (name, lines, outcome) in [
        ("missing", "", refuse(400, "host.missing")),
        ("missing, other fields", "X: y\r\n", refuse(400, "host.missing")),
        ("only X-Forwarded-Host", "X-Forwarded-Host: gw.test\r\n", refuse(400, "host.missing")),
        ("empty", "Host:\r\n", refuse(400, "host.invalid|host.missing")),
        ("blank", "Host:  \t \r\n", refuse(400, "host.invalid|host.missing")),
        ("twice the same", "Host: gw.test\r\nHost: gw.test\r\n", DUPLICATE),
        ("twice", "Host: gw.test\r\nHost: evil.test\r\n", DUPLICATE),
        ("twice apart", "Host: gw.test\r\nX: y\r\nhost: evil.test\r\n", DUPLICATE),
        ("second empty", "Host: gw.test\r\nHost:\r\n", refuse(400, "host.duplicate|host.invalid")),
        ("first empty", "Host:\r\nHost: gw.test\r\n", refuse(400, "host.duplicate|host.invalid")),
        ("with NUL", "Host: gw\0.test\r\n", refuse(400, "head.bad_field_value|host.invalid")),
    ] {
        let bytes = format!("GET /t HTTP/1.1\r\n{lines}\r\n");
        cases.push(case(format!("host: {name}"), HOST, bytes, outcome));
    }
    for (name, bytes) in [
        ("contradicts the target", "GET http://gw.test/t HTTP/1.1\r\nHost: evil.test\r\n\r\n"),
        (
            "contradicts the target's port",
            "GET http://gw.test:81/t HTTP/1.1\r\nHost: gw.test:82\r\n\r\n",
        ),
    ] {
        cases.push(case(format!("host: {name}"), "RFC 9112 §3.2.2", bytes, INVALID));
    }
    let bytes = "GET http://gw.test/t HTTP/1.1\r\nX: y\r\n\r\n";
    cases.push(case(
        "host: missing beside an absolute target",
        HOST,
        bytes,
        refuse(400, "host.missing"),
    ));
    cases
}

fn targets() -> Vec<Case> {
    const BAD: Outcome = refuse(
        400,
        "head.bad_target|head.malformed|path.bad_encoding|path.ambiguous|path.escapes_root|host.invalid",
    );
    let mut cases = Vec::new();
    let all: &[&[u8]] = &[
        b"t",
        b"t/x",
        b"?x",
        b"#x",
        b"/t#x",
        b"/t?x#y",
        b"*",
        b"*/t",
        b".",
        b"..",
        b"../t",
        b"/t\"x",
        b"/t<x",
        b"/t>x",
        b"/t?\"x",
        b"/t?<x",
        b"/t\x80",
        b"/t?\xff",
        b"/\xc3\xa9",
        b"/t?\xc3\xa9",
        b"gw.test:80",
        b"gw.test",
        b"http:",
        b"http:/",
        b"http://",
        b"http:///t",
        b"http:/t",
        b"http:t",
        b"http://?x",
        b"http://:80/t",
        b"http://u@gw.test/t",
        b"http://u:p@gw.test/t",
        b"http://gw.test:x/t",
        b"http://gw.test:99999/t",
        b"http://gw.test\\t",
        b"http://gw.test\\@evil.test/t",
        b"http://[::1/t",
        b"http://a,b/t",
        b"http://gw.test#x",
        b"ftp://gw.test/t",
        b"file:///etc/passwd",
        b"ws://gw.test/t",
        b"javascript:alert(1)",
        b"://gw.test/t",
        b"\\t",
        b"\\\\gw.test\\t",
        b"%2ft",
        b";x",
        b"@evil.test/t",
        b"/t?a\x00b",
        b"/t?a\x7fb",
    ];
    for t in all {
        let name = format!("target {:?}", t.escape_ascii().to_string());
        cases.push(case(name, TARGET, target(t), BAD));
    }
    for (name, line) in [
        ("POST *", "POST * HTTP/1.1"),
        ("OPTIONS *x", "OPTIONS *x HTTP/1.1"),
        ("OPTIONS **", "OPTIONS ** HTTP/1.1"),
        ("OPTIONS *?x", "OPTIONS *?x HTTP/1.1"),
        ("OPTIONS t", "OPTIONS t HTTP/1.1"),
    ] {
        let bytes = format!("{line}\r\nHost: gw.test\r\n\r\n");
        cases.push(case(format!("target: {name}"), TARGET, bytes, BAD));
    }
    cases
}

/// Every way we know to write `/admin`, and paths that can be read in two ways.
fn paths() -> Vec<Case> {
    const BAD: Outcome = refuse(400, "path.bad_encoding|head.bad_target");
    const TWO: Outcome = refuse(400, "path.ambiguous|path.bad_encoding");
    const OUT: Outcome = refuse(400, "path.escapes_root|path.ambiguous");
    let mut cases = Vec::new();
    for p in [
        "/%",
        "/t%",
        "/t%4",
        "/t%g1",
        "/t%1g",
        "/t%%41",
        "/t%u0041",
        "/%00",
        "/t%00.html",
        "/t%0a",
        "/t%0d%0ax",
        "/t%7f",
        "/t%1b",
        "/t%09",
    ] {
        cases.push(case(format!("path {p}"), "RFC 3986 §2.1", target(p), BAD));
    }
    for p in [
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a%5Cb",
        "/a\\b",
        "/\\admin",
        "/t\\..\\admin",
        "/..;/admin",
        "/t/..;/admin",
        "/t/..;x=y/admin",
        "/t/.;/admin",
        "/t/.;x/../admin",
        "/t/%2e%2e;/admin",
        "/t/..%2fadmin",
        "/t/%2e%2e%2fadmin",
        "/t/..%5cadmin",
        "/%2fadmin",
        "/%5cadmin",
        "/t/..\\admin",
        "/t/..%2f..%2fadmin",
        "/admin%2f",
        "/t%2f..%2fadmin",
        "/admin;/..;",
        "/admin/..;/t",
    ] {
        cases.push(case(format!("path {p}"), PATH, target(p), TWO.or_deny()));
    }
    for p in [
        "/..",
        "/../",
        "/../admin",
        "/t/../../admin",
        "/%2e%2e/admin",
        "/.%2e/admin",
        "/%2e./admin",
        "/./../t",
        "/..?x",
        "//../../t",
    ] {
        cases.push(case(format!("path {p}"), "RFC 3986 §5.2.4", target(p), OUT));
    }
    for p in [
        "/admin",
        "/admin/",
        "/admin/x",
        "/admin?x",
        "/admin?/../t",
        "//admin",
        "///admin",
        "/./admin",
        "/t/../admin",
        "/t/./../admin",
        "/t/x/../../admin",
        "/t//../admin",
        "/t/%2e%2e/admin",
        "/t/%2E%2E/admin",
        "/t/.%2e/admin",
        "/t/%2e./admin",
        "/%2e/admin",
        "/%61dmin",
        "/%61%64%6d%69%6e",
        "/adm%69n",
        "/admin/.",
        "/admin/./",
        "/admin/..//admin",
        "/admin;x=y",
        "/admin;",
        "/admin;x/y",
        "/admin/x/..",
        "/t/../admin;x",
        "/t/..//admin",
        "//t/..//admin",
        "/admin//",
        "/admin/%2e/",
        "/./././admin",
        "/t/../t/../admin",
    ] {
        cases.push(case(format!("deny {p}"), PATH, target(p), deny()));
    }
    for t in [
        "http://gw.test/admin",
        "http://gw.test//admin",
        "http://gw.test/t/../admin",
        "http://gw.test/%61dmin",
        "HTTP://gw.test/admin",
    ] {
        cases.push(case(format!("deny {t}"), PATH, target(t), deny()));
    }
    for m in ["POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "BREW"] {
        let bytes =
            format!("{m} /t/../admin HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 0\r\n\r\n");
        cases.push(case(format!("deny {m}"), PATH, bytes, deny()));
    }
    cases
}

fn connections() -> Vec<Case> {
    const BAD: Outcome = refuse(400, "head.bad_connection");
    let mut cases = Vec::new();
    for v in ["a b", "close x", "\"close\"", "close;x=y", "a/b", "a=b", "(close)", "é", "@"] {
        let line = format!("Connection: {v}\r\n");
        cases.push(case(format!("connection {v:?}"), CONNECTION, get(line), BAD));
    }
    for v in ["host", "Host", "close, Host", "content-length"] {
        let lines = format!("Content-Length: 5\r\nConnection: {v}\r\n");
        cases.push(case(format!("connection names {v}"), CONNECTION, post(lines, "hello"), BAD));
    }
    for v in ["200-ok", "100-continue, 200-ok", "101", "foo", "foo=\"bar\""] {
        let lines = format!("Expect: {v}\r\nContent-Length: 5\r\n");
        let outcome = answer(417, "head.unknown_expectation");
        cases.push(case(
            format!("expect {v:?}"),
            "RFC 9110 §10.1.1",
            post(lines, "hello"),
            outcome,
        ));
    }
    cases
}

fn http10() -> Vec<Case> {
    const BAD: Outcome =
        refuse(400, "framing.coding_http10|framing.length_and_chunked|framing.bad_coding");
    [
        ("chunked", "Transfer-Encoding: chunked\r\n"),
        ("chunked and Host", "Host: gw.test\r\nTransfer-Encoding: chunked\r\n"),
        ("chunked, kept alive", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"),
        ("chunked and length", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"),
        ("identity", "Transfer-Encoding: identity\r\n"),
        ("empty coding", "Transfer-Encoding:\r\n"),
    ]
    .into_iter()
    .map(|(name, lines)| {
        let bytes = format!("POST /t HTTP/1.0\r\n{lines}\r\n0\r\n\r\n");
        case(format!("HTTP/1.0: {name}"), CODING, bytes, BAD)
    })
    .collect()
}

/// A chunked POST with this body.
fn chunked(body: impl AsRef<[u8]>) -> Vec<u8> {
    let head = b"POST /t HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    [head, body.as_ref()].concat()
}

fn chunks() -> Vec<Case> {
    const BAD: Outcome = broken(400, "framing.bad_chunk|framing.bad_trailer");
    const HUGE: Outcome = broken(413, "limit.body_bytes|framing.bad_chunk").or_status(400);
    let end = "hello\r\n0\r\n\r\n";
    let sizes: &[&[u8]] = &[
        b"",
        b"g",
        b"x5",
        b"0x5",
        b"0X5",
        b"5x",
        b"+5",
        b"-5",
        b"-0",
        b" 5",
        b"\t5",
        b"5 ",
        b"5\t",
        b"5 5",
        b"5,",
        b"5:",
        b"5.0",
        b"5_0",
        b"\"5\"",
        b"5\0",
        b"\x005",
        b"5\x0b",
        b"5\x0c",
        b"5\x80",
        b"\xef\xbc\x95",
        b"5\r",
        b"5\rx",
        b"five",
        b"5h",
        b"=5",
        b";5",
        b";",
        b"#5",
        b"5;a\0b",
        b"5;\x01",
        b"5;a\x7f",
        b"5;a\rb",
    ];
    let mut cases: Vec<Case> = sizes
        .iter()
        .map(|s| {
            let name = format!("chunk size {:?}", s.escape_ascii().to_string());
            case(name, CHUNK, chunked([*s, b"\r\n", end.as_bytes()].concat()), BAD)
        })
        .collect();
    for s in ["FFFFFFFFFFFFFFFF", "7FFFFFFFFFFFFFFF", "8000000000000000", "100000000", "FFFFFFFF"] {
        cases.push(case(format!("chunk size {s}"), CHUNK, chunked(format!("{s}\r\n{end}")), HUGE));
    }
    for s in ["10000000000000005", "FFFFFFFFFFFFFFFFF", "100000000000000000000000000000005"] {
        cases.push(case(format!("chunk size {s}"), CHUNK, chunked(format!("{s}\r\n{end}")), HUGE));
    }
    for (name, body) in [
        ("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
        ("bare CR after the data", "5\r\nhello\r0\r\n\r\n"),
        ("nothing after the data", "5\r\nhello0\r\n\r\n"),
        ("data too long", "5\r\nhelloX\r\n0\r\n\r\n"),
        ("data too short", "6\r\nhello\r\n0\r\n\r\n"),
        ("bare LF in an extension", "5;a=b\nhello\r\n0\r\n\r\n"),
        ("bare LF in a quoted extension", "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"),
        ("CRLF in a quoted extension", "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"),
        ("bare LF after the last chunk", "5\r\nhello\r\n0\n\r\n"),
        ("bare LF at the very end", "5\r\nhello\r\n0\r\n\n"),
        ("CR CR LF at the very end", "5\r\nhello\r\n0\r\n\r\r\n\r\n"),
        ("a blank line between chunks", "5\r\nhello\r\n\r\n0\r\n\r\n"),
        ("space before the last chunk", "5\r\nhello\r\n 0\r\n\r\n"),
        ("minus zero", "5\r\nhello\r\n-0\r\n\r\n"),
        ("data without any size", "hello\r\n0\r\n\r\n"),
        ("a request instead of a chunk", "GET /admin HTTP/1.1\r\nHost: gw.test\r\n\r\n"),
        ("bare LF everywhere", "5\nhello\n0\n\n"),
        ("garbage after a good chunk", "5\r\nhello\r\nzz\r\n\r\n"),
        ("terminator of one CR", "5\r\nhello\r\n0\r\n\rX\r\n\r\n"),
    ] {
        cases.push(case(format!("chunk: {name}"), CHUNK, chunked(body), BAD));
    }
    let zeros = format!("{}5\r\n{end}", "0".repeat(1000));
    cases.push(case("chunk: a thousand leading zeros", CHUNK, chunked(zeros), BAD));
    let long = format!("5;{}\r\n{end}", "a".repeat(64 * 1024));
    cases.push(case("chunk: an extension of 64 KiB", "RFC 9112 §7.1.1", chunked(long), BAD));
    let drip = format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(4000) + "0\r\n\r\n";
    let extensions = broken(400, "framing.bad_chunk|limit.body_bytes").or_status(413);
    cases.push(case(
        "chunk: extensions far larger than the data",
        "RFC 9112 §7.1.1",
        chunked(drip),
        extensions,
    ));
    cases
}

fn trailers() -> Vec<Case> {
    const BAD: Outcome = broken(400, "framing.bad_trailer|framing.bad_chunk");
    let mut cases: Vec<Case> = [
        ("Transfer-Encoding", "Transfer-Encoding: chunked\r\n"),
        ("Content-Length", "Content-Length: 5\r\n"),
        ("Host", "Host: evil.test\r\n"),
        ("Connection", "Connection: close\r\n"),
        ("Trailer", "Trailer: x\r\n"),
        ("no colon", "abc\r\n"),
        ("empty name", ": x\r\n"),
        ("space before the colon", "X : y\r\n"),
        ("a fold", "X: a\r\n b\r\n"),
        ("a fold first", " X: a\r\n"),
        ("bare LF", "X: a\nY: b\r\n"),
        ("bare CR", "X: a\rb\r\n"),
        ("NUL", "X: a\0b\r\n"),
        ("a control byte", "X: a\u{1}b\r\n"),
        ("a bad name", "X@Y: b\r\n"),
        ("a request line", "GET /admin HTTP/1.1\r\n"),
    ]
    .into_iter()
    .map(|(name, line)| {
        case(
            format!("trailer: {name}"),
            TRAILER,
            chunked(format!("5\r\nhello\r\n0\r\n{line}\r\n")),
            BAD,
        )
    })
    .collect();
    let many = "X: y\r\n".repeat(FIELDS_MAX * 4);
    let bytes = chunked(format!("5\r\nhello\r\n0\r\n{many}\r\n"));
    cases.push(case("trailer: too many", TRAILER, bytes, BAD));
    let large = format!("X: {}\r\n", "y".repeat(HEAD_BYTES_MAX * 2));
    let bytes = chunked(format!("5\r\nhello\r\n0\r\n{large}\r\n"));
    cases.push(case("trailer: too large", TRAILER, bytes, BAD));
    cases
}

fn limits() -> Vec<Case> {
    const HEAD: Outcome = refuse(431, "limit.head_bytes|limit.fields");
    const LONG: Outcome = refuse(414, "limit.target_bytes");
    const BODY: Outcome = refuse(413, "limit.body_bytes");
    let source = "RFC 6585 §5";
    let fields = |n: usize| (0..n).map(|i| format!("X{i}: y\r\n")).collect::<String>();
    let mut cases = vec![
        case(
            "limit: one value too large",
            source,
            get(format!("X: {}\r\n", "y".repeat(HEAD_BYTES_MAX))),
            HEAD,
        ),
        case(
            "limit: one name too large",
            source,
            get(format!("{}: y\r\n", "X".repeat(HEAD_BYTES_MAX))),
            HEAD,
        ),
        case(
            "limit: a value without end",
            source,
            [b"GET /t HTTP/1.1\r\nHost: gw.test\r\nX: ".to_vec(), vec![b'y'; HEAD_BYTES_MAX * 2]]
                .concat(),
            HEAD,
        ),
        case(
            "limit: a name without end",
            source,
            [b"GET /t HTTP/1.1\r\nHost: gw.test\r\n".to_vec(), vec![b'y'; HEAD_BYTES_MAX * 2]]
                .concat(),
            HEAD,
        ),
        case(
            "limit: one field too many",
            source,
            get(fields(FIELDS_MAX)),
            refuse(431, "limit.fields"),
        ),
        case(
            "limit: fields without end",
            source,
            format!("GET /t HTTP/1.1\r\nHost: gw.test\r\n{}", fields(10_000)),
            HEAD,
        ),
        case(
            "limit: empty fields without end",
            source,
            format!("GET /t HTTP/1.1\r\nHost: gw.test\r\n{}", "a:\r\n".repeat(10_000)),
            HEAD,
        ),
        case(
            "limit: target one byte too long",
            "RFC 9110 §15.5.15",
            target("/".to_string() + &"a".repeat(TARGET_BYTES_MAX)),
            LONG,
        ),
        case(
            "limit: query too long",
            "RFC 9110 §15.5.15",
            target("/t?".to_string() + &"a".repeat(TARGET_BYTES_MAX)),
            LONG,
        ),
        case(
            "limit: target as large as a head",
            "RFC 9110 §15.5.15",
            target("/".to_string() + &"a".repeat(HEAD_BYTES_MAX * 2)),
            LONG.or_status(431).or_reason("limit.head_bytes"),
        ),
        case(
            "limit: method without end",
            METHOD,
            "A".repeat(HEAD_BYTES_MAX * 2),
            refuse(400, "head.bad_method|head.malformed|limit.head_bytes").or_status(431),
        ),
        case(
            "limit: blank lines without end",
            MESSAGE,
            "\r\n".repeat(HEAD_BYTES_MAX),
            refuse(400, "head.malformed|head.bad_method|limit.head_bytes").or_status(431),
        ),
    ];
    for length in [BODY_BYTES_MAX + 1, 1 << 40, i64::MAX as usize] {
        let bytes = post(format!("Content-Length: {length}\r\n"), "hello");
        cases.push(case(format!("limit: a body of {length}"), "RFC 9110 §15.5.14", bytes, BODY));
    }
    let bytes =
        post(format!("Content-Length: {}\r\nExpect: 100-continue\r\n", BODY_BYTES_MAX + 1), "");
    cases.push(case("limit: asks before too large a body", "RFC 9110 §10.1.1", bytes, BODY));
    let chunk = format!("1000\r\n{}\r\n", "z".repeat(0x1000)).repeat(BODY_BYTES_MAX / 0x1000 + 1);
    let bytes = chunked(chunk + "0\r\n\r\n");
    cases.push(case(
        "limit: too large a chunked body",
        "RFC 9110 §15.5.14",
        bytes,
        broken(413, "limit.body_bytes").may_stay(),
    ));
    cases
}

/// Requests whose sender stops before they are complete.
fn cut_short() -> Vec<Case> {
    let source = "RFC 9112 §8";
    [
        ("nothing but a method", "GET"),
        ("in the request line", "GET /t HT"),
        ("after the request line", "GET /t HTTP/1.1\r\n"),
        ("in a field name", "GET /t HTTP/1.1\r\nHo"),
        ("in a field value", "GET /t HTTP/1.1\r\nHost: gw.te"),
        ("before the last CRLF", "GET /t HTTP/1.1\r\nHost: gw.test\r\n"),
        ("before the last LF", "GET /t HTTP/1.1\r\nHost: gw.test\r\n\r"),
        ("before the body", "POST /t HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\n"),
        ("in the body", "POST /t HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\nhell"),
        ("before the first chunk", "POST /t HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("in a chunk size", "POST /t HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n5"),
        ("in a chunk", "POST /t HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
        ("after a chunk", "POST /t HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("after the last chunk", "POST /t HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
        ("before the last LF of a chunked body", "POST /t HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r"),
        ("in a trailer", "POST /t HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y"),
    ]
    .into_iter()
    .map(|(name, bytes)| case(format!("truncated: {name}"), source, bytes, truncated()))
    .collect()
}
