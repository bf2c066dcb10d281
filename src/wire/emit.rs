//! Writes message heads. Every function appends to a buffer the caller owns, sizes and reuses.
//!
//! Nothing here checks what it writes: names, values and targets come from a parsed head or from
//! checked configuration, neither of which can contain a line end.

use super::{Field, Version};

/// `METHOD path[?query] HTTP/1.1`.
#[inline]
pub fn request_line(out: &mut Vec<u8>, method: &[u8], path: &[u8], query: Option<&[u8]>) {
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(path);
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// `HTTP/1.1 status phrase`. The space before the phrase is written even when it is empty
/// (RFC 9112 §4). `status` is 100 to 599.
#[inline]
pub fn status_line(out: &mut Vec<u8>, status: u16, phrase: &[u8]) {
    let mut start = *b"HTTP/1.1 000 ";
    for (digit, place) in start[9..12].iter_mut().zip([100, 10, 1]) {
        *digit += (status / place % 10) as u8;
    }
    out.extend_from_slice(&start);
    out.extend_from_slice(phrase);
    out.extend_from_slice(b"\r\n");
}

/// One field line.
#[inline]
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// One field line with a decimal number.
#[inline]
pub fn number_field(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    number(out, value);
    out.extend_from_slice(b"\r\n");
}

/// A decimal number.
#[inline]
pub fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The empty line that ends a head or trailer section.
#[inline]
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Copies the lines of `fields`, which were parsed from `buf`, as they were received, except the
/// hop-by-hop ones and those `drop` answers `true` for. Neighbouring lines are copied as one.
// Always: what `drop` refers to would otherwise be kept in memory, also by callers with two loops.
#[inline(always)]
pub fn kept_fields(out: &mut Vec<u8>, buf: &[u8], fields: &[Field], drop: impl Fn(&Field) -> bool) {
    let (mut start, mut end) = (0, 0);
    for field in fields {
        if field.hop_by_hop || drop(field) {
            continue;
        }
        if field.line.start as usize != end {
            out.extend_from_slice(&buf[start..end]);
            start = field.line.start as usize;
        }
        end = field.line.end as usize;
    }
    out.extend_from_slice(&buf[start..end]);
}

/// What one hop adds to Via (RFC 9110 §7.6.3), written beforehand because every message gets it.
#[derive(Clone, Debug)]
pub struct Via {
    name: String,
    lines: [String; 3],
}

impl Via {
    /// Of a hop with this pseudonym. One without adds nothing.
    pub fn new(name: &str) -> Via {
        let line = |received: Version| match name {
            "" => String::new(),
            name => format!("Via: {} {name}\r\n", received.number()),
        };
        let lines = [Version::Http10, Version::Http11, Version::Http2].map(line);
        Via { name: name.to_owned(), lines }
    }

    /// The hop's pseudonym, perhaps empty.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The field line of a message that was received in this version.
    #[inline]
    pub fn line(&self, received: Version) -> &[u8] {
        let [http10, http11, http2] = &self.lines;
        match received {
            Version::Http10 => http10.as_bytes(),
            Version::Http11 => http11.as_bytes(),
            Version::Http2 => http2.as_bytes(),
        }
    }
}

/// The registered reason phrase of a status, empty when there is none (RFC 9110 §15, RFC 6585).
pub fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HeadLimits, Method, Parsed, RequestHead, ResponseHead};
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 16384, target_bytes_max: 8192, fields_max: 64 };

    #[test]
    fn writes_via() {
        let via = Via::new("gw");
        for (received, line) in [
            (Version::Http10, "Via: 1.0 gw\r\n"),
            (Version::Http11, "Via: 1.1 gw\r\n"),
            (Version::Http2, "Via: 2 gw\r\n"),
        ] {
            assert_eq!(via.line(received), line.as_bytes());
        }
        assert_eq!(Via::new("").line(Version::Http11), b"");
    }

    #[test]
    fn writes_start_lines() {
        let mut out = Vec::new();
        request_line(&mut out, b"GET", b"/a", None);
        request_line(&mut out, b"PUT", b"/a", Some(b""));
        request_line(&mut out, b"X", b"/", Some(b"q=1"));
        status_line(&mut out, 200, b"OK");
        status_line(&mut out, 599, b"");
        number_field(&mut out, b"n", u64::MAX);
        end(&mut out);
        let want = "GET /a HTTP/1.1\r\nPUT /a? HTTP/1.1\r\nX /?q=1 HTTP/1.1\r\n\
                    HTTP/1.1 200 OK\r\nHTTP/1.1 599 \r\nn: 18446744073709551615\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn keeps_lines_as_received_but_not_hop_by_hop() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: 5\r\nX:1  \r\nY:\t2\r\n\
                     Connection: y, close\r\nZ: 3\r\nDrop: x\r\nCookie:a\r\n\r\nbody";
        let mut request = RequestHead::default();
        assert_eq!(request.parse(head, &LIMITS), Ok(Parsed::Complete(())));
        let mut out = b"pre|".to_vec();
        kept_fields(&mut out, head, &request.fields, |field| field.name.of(head) == b"Drop");
        assert_eq!(out, b"pre|Host: a\r\nX:1  \r\nZ: 3\r\nCookie:a\r\n");
        out.clear();
        kept_fields(&mut out, head, &request.fields, |_| true);
        assert_eq!(out, b"");
    }

    #[test]
    fn phrases_are_for_known_statuses() {
        assert_eq!(phrase(413), "Content Too Large");
        assert_eq!(phrase(599), "");
        assert_eq!((100..600).filter(|&status| !phrase(status).is_empty()).count(), 52);
    }

    proptest! {
        #[test]
        fn what_was_written_is_what_is_parsed(
            method in "[A-Z]{1,8}",
            path in "/[a-z0-9._~%-]{0,20}",
            query in proptest::option::of("[a-z=&?/]{0,10}"),
            fields in proptest::collection::vec(
                ("X-[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,20}", "([!-~\u{e9}]([ \t!-~]{0,30}[!-~])?)?"), 0..20),
            status in 200u16..600,
        ) {
            prop_assume!(method != "CONNECT");
            let mut out = Vec::new();
            request_line(&mut out, method.as_bytes(), path.as_bytes(),
                query.as_ref().map(|query| query.as_bytes()));
            field(&mut out, b"Host", b"h");
            for (name, value) in &fields {
                field(&mut out, name.as_bytes(), value.as_bytes());
            }
            end(&mut out);
            let mut head = RequestHead::default();
            prop_assert_eq!(head.parse(&out, &LIMITS), Ok(Parsed::Complete(())));
            prop_assert_eq!(head.len, out.len());
            prop_assert_eq!(head.method_text.of(&out), method.as_bytes());
            prop_assert_eq!(head.path.of(&out), path.as_bytes());
            prop_assert_eq!(head.query.map(|span| span.of(&out)),
                query.as_ref().map(|query| query.as_bytes()));
            let got: Vec<_> = head.fields[1..].iter()
                .map(|field| (field.name.of(&out), field.value.of(&out))).collect();
            let want: Vec<_> = fields.iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            prop_assert_eq!(got, want);

            let mut response = ResponseHead::default();
            out.clear();
            status_line(&mut out, status, phrase(status).as_bytes());
            for (name, value) in &fields {
                field(&mut out, name.as_bytes(), value.as_bytes());
            }
            end(&mut out);
            prop_assert_eq!(response.parse(&out, Method::Get, &LIMITS), Ok(Parsed::Complete(())));
            prop_assert_eq!(response.status, status);
            prop_assert_eq!(response.phrase.of(&out), phrase(status).as_bytes());
            prop_assert_eq!(response.fields.len(), fields.len());
        }
    }
}
