//! Golden tables: what browsers are told.

use super::*;
use crate::wire::{HeadLimits, Method, Parsed, RequestHead};

fn cors() -> Cors {
    let below =
        |before: &str, behind: &str| Origin::Below { before: before.into(), behind: behind.into() };
    Cors {
        origins: Origins::Some(
            [
                Origin::Exact("https://app.example.com".into()),
                below("https://", ".example.org"),
                below("http://", ".example.org:8080"),
                Origin::Regex(Regex::new("^https://pr-[0-9]+[.]test$").expect("a regex")),
            ]
            .into(),
        ),
        methods: Methods { names: ["GET".into(), "PUT".into()].into(), value: "GET, PUT".into() },
        headers: Headers::Some {
            names: ["content-type".into(), "x-tenant".into()].into(),
            value: "Content-Type, X-Tenant".into(),
        },
        credentials: true,
        expose: "X-Total".into(),
        max_age_s: 600,
        private_network: true,
        keeps_upstreams: false,
    }
}

fn open() -> Cors {
    Cors {
        origins: Origins::Any,
        headers: Headers::Any,
        credentials: false,
        expose: "".into(),
        private_network: false,
        ..cors()
    }
}

fn text(out: &[u8]) -> String {
    let text = String::from_utf8_lossy(out).replace("\r\n", "|");
    text.trim_end_matches('|').replace("Access-Control-", "AC-")
}

#[test]
fn origins() {
    for (origin, is_allowed) in [
        ("https://app.example.com", true),
        ("http://app.example.com", false),
        ("https://app.example.com:8443", false),
        ("https://app.example.com.evil.test", false),
        ("https://a.example.org", true),
        ("https://a.b.example.org", true),
        ("https://example.org", false),
        ("https://.example.org", false),
        ("https://evil.test/.example.org", false),
        ("https://evil.test:1@a.example.org", false),
        ("https://a.example.org:8080", false),
        ("http://a.example.org:8080", true),
        ("https://pr-17.test", true),
        ("https://pr-17.test.evil.test", false),
        ("null", false),
        ("", false),
    ] {
        assert_eq!(cors().origins.allow(origin.as_bytes()), is_allowed, "{origin}");
    }
}

#[test]
fn responses() {
    const ALLOWED: &str = "Vary: Origin|AC-Allow-Origin: https://app.example.com|\
                           AC-Allow-Credentials: true|AC-Expose-Headers: X-Total";
    for (rule, origin, expected) in [
        (cors(), Some("https://app.example.com"), ALLOWED),
        (cors(), Some("https://evil.test"), "Vary: Origin"),
        (cors(), None, "Vary: Origin"),
        (open(), Some("https://evil.test"), "AC-Allow-Origin: *"),
        (open(), None, "AC-Allow-Origin: *"),
    ] {
        let mut out = Vec::new();
        rule.fields(origin.map(str::as_bytes), &mut out);
        assert_eq!(text(&out), expected, "{origin:?}");
    }
}

fn head(lines: &str) -> (RequestHead, Vec<u8>) {
    let bytes = format!("{}\r\n\r\n", lines.replace('|', "\r\n")).into_bytes();
    let limits = HeadLimits { head_bytes_max: 8192, target_bytes_max: 1024, fields_max: 50 };
    let mut head = RequestHead::default();
    assert_eq!(head.parse(&bytes, &limits), Ok(Parsed::Complete(())), "{lines}");
    (head, bytes)
}

fn view<'a>(head: &'a RequestHead, buf: &'a [u8]) -> crate::policy::route::RequestView<'a> {
    crate::policy::route::RequestView {
        method: head.method,
        method_text: head.method_text.of(buf),
        host: b"a",
        path: b"/",
        query: None,
        head,
        buf,
    }
}

#[test]
fn preflights() {
    const VARY: &str = "Vary: Origin, AC-Request-Method, AC-Request-Headers|AC-Allow-Origin: ";
    let app = "Origin: https://app.example.com|Access-Control-Request-Method: ";
    let told =
        |rest: &str| format!("{VARY}https://app.example.com|AC-Allow-Credentials: true|{rest}");
    let plain = "AC-Allow-Methods: GET, PUT|AC-Allow-Headers: Content-Type, X-Tenant";
    for (rule, lines, expected) in [
        (cors(), format!("{app}PUT"), told(&format!("{plain}|AC-Max-Age: 600"))),
        (
            cors(),
            format!("{app}PUT|Access-Control-Request-Headers: x-tenant, content-TYPE"),
            told(&format!("{plain}|AC-Max-Age: 600")),
        ),
        (
            cors(),
            format!("{app}PUT|Access-Control-Request-Private-Network: true"),
            told(&format!("{plain}|AC-Allow-Private-Network: true|AC-Max-Age: 600")),
        ),
        (
            cors(),
            format!(
                "{app}PUT|Access-Control-Request-Headers: x-tenant|Access-Control-Request-Headers: x-other"
            ),
            "cors.headers".to_owned(),
        ),
        (cors(), format!("{app}DELETE"), "cors.method".to_owned()),
        // Methods are case-sensitive.
        (cors(), format!("{app}put"), "cors.method".to_owned()),
        (
            cors(),
            "Origin: https://evil.test|Access-Control-Request-Method: GET".to_owned(),
            "cors.origin".to_owned(),
        ),
        (
            open(),
            "Origin: null|Access-Control-Request-Method: GET|Access-Control-Request-Headers: a,,b"
                .to_owned(),
            format!("{VARY}*|AC-Allow-Methods: GET, PUT|AC-Allow-Headers: a, b|AC-Max-Age: 600"),
        ),
    ] {
        let (head, buf) = head(&format!("OPTIONS / HTTP/1.1|Host: a|{lines}"));
        let asked = preflight::of(&view(&head, &buf)).expect("a preflight");
        let mut out = Vec::new();
        let answered = match rule.preflight(&asked, &mut out) {
            Ok(()) => text(&out),
            Err(reason) => reason.token.to_owned(),
        };
        assert_eq!(answered, expected, "{lines}");
    }
}

#[test]
fn what_is_no_preflight() {
    for lines in [
        "GET / HTTP/1.1|Host: a|Origin: https://a.test|Access-Control-Request-Method: GET",
        "OPTIONS / HTTP/1.1|Host: a|Origin: https://a.test",
        "OPTIONS / HTTP/1.1|Host: a|Access-Control-Request-Method: GET",
        "OPTIONS / HTTP/1.1|Host: a|Origin: https://a.test|Origin: https://b.test|\
         Access-Control-Request-Method: GET",
    ] {
        let (head, buf) = head(lines);
        assert!(preflight::of(&view(&head, &buf)).is_none(), "{lines}");
    }
    assert_eq!(head("OPTIONS / HTTP/1.1|Host: a").0.method, Method::Options);
}
