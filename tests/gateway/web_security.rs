//! CSRF, what clients call themselves, careful fields, and maintenance with a page of its own.

use crate::harness::{Gateway, Http2};

const CONFIG: &str = r#"
[[routes]]
path = "/"
respond = { body = "open" }
policies = ["web"]

[[routes]]
path = "/strict"
respond = { body = "strict" }
csrf = { required = true }
user_agents = { required = true }

[[routes]]
path = "/shadow"
respond = { body = "shadow" }
csrf = { shadow = true }
user_agents = { deny = ["bot"], shadow = true }

[[routes]]
path = "/own"
respond = { body = "own", headers = { X-Frame-Options = "SAMEORIGIN" } }
policies = ["web"]

[[routes]]
path = "/closed"
respond = { body = "back" }
policies = ["web"]
maintenance = { allow = ["team"], retry_after = "90s", respond = { status = 200, body = "later" } }

[policies.web]
csrf = { origins = ["https://admin.test"] }
user_agents = { deny = ["(?i)badbot"], allow = ["BadBot/2"] }
security_headers = { content_security_policy = "default-src 'self'" }

[address_lists.team]
networks = ["10.0.0.0/8"]

[forwarding]
trusted_proxies = ["127.0.0.0/8"]
"#;

#[test]
fn requests_are_refused_for_where_they_were_made_and_by_whom() {
    let gateway = Gateway::start(CONFIG);
    let mut client = gateway.client();
    let mut second = Http2::connect(gateway.address());
    for (method, target, fields, expected) in [
        ("POST", "/", &[][..], ""),
        ("POST", "/", &[("origin", "https://gw.test")][..], ""),
        ("POST", "/", &[("origin", "https://evil.test")], "csrf.origin"),
        ("GET", "/", &[("origin", "https://evil.test")], ""),
        ("DELETE", "/", &[("sec-fetch-site", "cross-site")], "csrf.origin"),
        ("DELETE", "/", &[("sec-fetch-site", "cross-site"), ("origin", "https://admin.test")], ""),
        ("POST", "/strict", &[("user-agent", "a")], "csrf.origin"),
        ("GET", "/strict", &[], "client.user_agent"),
        ("GET", "/strict", &[("user-agent", "a")], ""),
        ("GET", "/", &[("user-agent", "a badbot/1")], "client.user_agent"),
        ("GET", "/", &[("user-agent", "BadBot/2")], ""),
        ("POST", "/shadow", &[("user-agent", "bot"), ("origin", "null")], ""),
    ] {
        let lines: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: gw.test\r\n{lines}\r\n"));
        let first = client.response_to(method);
        let stream = second.ask(method, target, fields);
        // The same host.
        let own = fields.iter().any(|(_, value)| *value == "https://gw.test");
        let response = second.response(stream);
        for (response, version) in [(first, 1), (response, 2)] {
            let reason = if response.status == 200 { String::new() } else { response.reason() };
            if !(own && version == 2) {
                assert_eq!(reason, expected, "{method} {target} {lines} over HTTP/{version}");
            }
        }
    }
    let metrics = gateway.admin().get("/metrics").text();
    for reason in ["csrf.origin", "client.user_agent"] {
        let line = format!("ringway_shadow_refusals_total{{reason=\"{reason}\"}} 2\n");
        assert!(metrics.contains(&line), "{reason} in {metrics}");
    }
}

#[test]
fn careful_fields_are_added_unless_they_are_there() {
    let gateway = Gateway::start(CONFIG);
    let mut client = gateway.client();
    let mut second = Http2::connect(gateway.address());
    for (target, frames) in [("/", "DENY"), ("/own", "SAMEORIGIN")] {
        for response in [client.get(target), second.get(target)] {
            assert_eq!(response.head.all("x-frame-options"), [frames], "{target}");
            assert_eq!(response.field("x-content-type-options"), Some("nosniff"));
            assert_eq!(response.field("content-security-policy"), Some("default-src 'self'"));
            assert_eq!(response.field("cross-origin-opener-policy"), Some("same-origin"));
            assert!(!response.head.has("permissions-policy"));
        }
    }
}

#[test]
fn a_closed_route_shows_its_own_page_and_serves_those_who_work_on_it() {
    let gateway = Gateway::start(CONFIG);
    let mut client = gateway.client();
    let mut second = Http2::connect(gateway.address());
    for _ in 0..2 {
        // The connection is kept.
        for response in [client.get("/closed"), second.get("/closed")] {
            assert_eq!((response.status, &*response.text()), (200, "later"));
            assert_eq!(response.field("retry-after"), Some("90"));
            assert!(response.head.has("x-frame-options"));
        }
    }
    client.send("GET /closed HTTP/1.1\r\nHost: gw.test\r\nX-Forwarded-For: 10.1.1.1\r\n\r\n");
    assert_eq!(client.response().text(), "back");
    let metrics = gateway.admin().get("/metrics").text();
    assert!(
        metrics.contains("ringway_refusals_total{reason=\"route.maintenance\"} 4\n"),
        "{metrics}"
    );
}
