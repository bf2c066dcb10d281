//! Reading heads and paths, beside httparse alone.

use std::hint::black_box;

use ringway::wire::path::{NormalPath, PathRules};
use ringway::wire::{HeadLimits, Method, Parsed, RequestHead, ResponseHead};

use crate::measure::Cases;

pub const TYPICAL: &[u8] = b"GET /api/v1/users/12345?fields=name HTTP/1.1\r\n\
    Host: api.example.com:8080\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";

/// What load generators send.
const SHORT: &[u8] = b"GET /api/v1/users HTTP/1.1\r\n\
    Host: 127.0.0.1:8080\r\n\
    User-Agent: h2load nghttp2/1.64.0\r\n\
    Accept: */*\r\n\r\n";

/// What NGINX answers for a file.
pub const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx/1.26.3\r\n\
    Date: Sat, 21 Nov 2026 03:28:24 GMT\r\n\
    Content-Type: application/octet-stream\r\n\
    Content-Length: 1024\r\n\
    Last-Modified: Sat, 21 Nov 2026 01:12:07 GMT\r\n\
    Connection: keep-alive\r\n\
    ETag: \"6740a1b7-400\"\r\n\
    Accept-Ranges: bytes\r\n\r\n";

pub const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 65536, target_bytes_max: 8192, fields_max: 100 };

fn httparse_request(bytes: &[u8]) -> bool {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; 100];
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(bytes, &mut slots).is_ok_and(|status| status.is_complete())
}

fn httparse_response(bytes: &[u8]) -> bool {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; 100];
    let mut response = httparse::Response::new(&mut []);
    httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, bytes, &mut slots)
        .is_ok_and(|status| status.is_complete())
}

pub fn cases(cases: &mut Cases) {
    let complete = Ok(Parsed::Complete(()));
    let mut head = RequestHead::default();
    for (name, bytes) in [("parse/request", TYPICAL), ("parse/short", SHORT)] {
        cases.case(name, || assert_eq!(head.parse(black_box(bytes), &LIMITS), complete));
    }
    let mut head = ResponseHead::default();
    cases.case("parse/response", || {
        assert_eq!(head.parse(black_box(RESPONSE), Method::Get, &LIMITS), complete);
    });
    let mut normal = NormalPath::default();
    cases.case("parse/path", || {
        let path = black_box(b"/api/v1/users/12345");
        assert!(normal.normalise(path, PathRules::default()).is_ok() && !normal.forward_differs);
    });
    for (name, bytes) in [("other/httparse-request", TYPICAL), ("other/httparse-short", SHORT)] {
        cases.case(name, || assert!(httparse_request(black_box(bytes))));
    }
    cases.case("other/httparse-response", || assert!(httparse_response(black_box(RESPONSE))));
}
