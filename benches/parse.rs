//! Cost of parsing and classifying one typical request, beside httparse alone.
//!
//! `cargo bench --bench parse` prints nanoseconds. For instructions, run the built binary with
//! `valgrind --tool=callgrind --toggle-collect='*parse_typical*'` (or `'*httparse_alone*'`) and
//! a count of iterations as its only argument, and divide.

use std::hint::black_box;
use std::time::Instant;

use ringway::wire::path::{NormalPath, PathRules};
use ringway::wire::{HeadLimits, Parsed, RequestHead};

const REQUEST: &[u8] = b"GET /api/v1/users/12345?fields=name HTTP/1.1\r\n\
    Host: api.example.com:8080\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 65536, target_bytes_max: 8192, fields_max: 100 };

#[inline(never)]
fn parse_typical(head: &mut RequestHead, bytes: &[u8]) -> bool {
    head.parse(bytes, &LIMITS) == Ok(Parsed::Complete(()))
}

#[inline(never)]
fn httparse_alone(bytes: &[u8]) -> bool {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; 100];
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(bytes, &mut slots).is_ok_and(|status| status.is_complete())
}

#[inline(never)]
fn normalise_typical(normal: &mut NormalPath, path: &[u8]) -> bool {
    normal.normalise(path, PathRules::default()).is_ok() && !normal.forward_differs
}

fn measure(name: &str, iterations: u32, mut run: impl FnMut() -> bool) {
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
    let mut normal = NormalPath::default();
    measure("parse and classify", iterations, || parse_typical(&mut head, black_box(REQUEST)));
    measure("httparse alone", iterations, || httparse_alone(black_box(REQUEST)));
    let path = head.path.of(REQUEST);
    measure("path", iterations, || normalise_typical(&mut normal, black_box(path)));
}
