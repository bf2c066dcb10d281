//! Cost of parsing and classifying typical heads, beside httparse alone.
//!
//! `cargo bench --bench parse` prints nanoseconds. For instructions, run the built binary with
//! `valgrind --tool=callgrind --toggle-collect='*parse_request*'` (or another function named
//! here), a count of iterations and the name of one case as its arguments, and divide.

use std::hint::black_box;
use std::time::Instant;

use ringway::wire::path::{NormalPath, PathRules};
use ringway::wire::{HeadLimits, Method, Parsed, RequestHead, ResponseHead};

const TYPICAL: &[u8] = b"GET /api/v1/users/12345?fields=name HTTP/1.1\r\n\
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
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx/1.26.3\r\n\
    Date: Sat, 21 Nov 2026 03:28:24 GMT\r\n\
    Content-Type: application/octet-stream\r\n\
    Content-Length: 1024\r\n\
    Last-Modified: Sat, 21 Nov 2026 01:12:07 GMT\r\n\
    Connection: keep-alive\r\n\
    ETag: \"6740a1b7-400\"\r\n\
    Accept-Ranges: bytes\r\n\r\n";

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 65536, target_bytes_max: 8192, fields_max: 100 };

#[inline(never)]
fn parse_request(head: &mut RequestHead, bytes: &[u8]) -> bool {
    head.parse(bytes, &LIMITS) == Ok(Parsed::Complete(()))
}

#[inline(never)]
fn parse_response(head: &mut ResponseHead, bytes: &[u8]) -> bool {
    head.parse(bytes, Method::Get, &LIMITS) == Ok(Parsed::Complete(()))
}

#[inline(never)]
fn httparse_response(bytes: &[u8]) -> bool {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; 100];
    let mut response = httparse::Response::new(&mut []);
    httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, bytes, &mut slots)
        .is_ok_and(|status| status.is_complete())
}

#[inline(never)]
fn httparse_request(bytes: &[u8]) -> bool {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; 100];
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(bytes, &mut slots).is_ok_and(|status| status.is_complete())
}

#[inline(never)]
fn normalise_typical(normal: &mut NormalPath, path: &[u8]) -> bool {
    normal.normalise(path, PathRules::default()).is_ok() && !normal.forward_differs
}

/// Prints what one run costs, unless another case was asked for.
fn measure(name: &str, iterations: u32, mut run: impl FnMut() -> bool) {
    if std::env::args()
        .skip(1)
        .any(|arg| arg.parse::<u32>().is_err() && arg != "--bench" && arg != name)
    {
        return;
    }
    let start = Instant::now();
    for _ in 0..iterations {
        assert!(run());
    }
    println!("{name}: {:.1} ns", start.elapsed().as_nanos() as f64 / f64::from(iterations));
}

fn main() {
    // Cargo passes `--bench`; anything that is a number is the count of iterations.
    let iterations = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(2_000_000);
    let mut head = RequestHead::default();
    let mut response = ResponseHead::default();
    let mut normal = NormalPath::default();
    for (name, alone, bytes) in
        [("typical", "typical-httparse", TYPICAL), ("short", "short-httparse", SHORT)]
    {
        measure(name, iterations, || parse_request(&mut head, black_box(bytes)));
        measure(alone, iterations, || httparse_request(black_box(bytes)));
    }
    measure("response", iterations, || parse_response(&mut response, black_box(RESPONSE)));
    measure("response-httparse", iterations, || httparse_response(black_box(RESPONSE)));
    let path = b"/api/v1/users/12345";
    measure("path", iterations, || normalise_typical(&mut normal, black_box(path)));
}
