//! What upstreams are told about the client, and who is believed.

use std::collections::HashSet;

use crate::harness::{Gateway, Received, Upstream};

/// Sends one GET with these field lines through a gateway with these `[forwarding]` keys.
fn seen(keys: &str, lines: &str) -> Received {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), &format!("[forwarding]\n{keys}\n"));
    let mut client = gateway.client();
    client.send(format!("GET /x HTTP/1.1\r\nHost: gw.test\r\n{lines}\r\n"));
    assert_eq!(client.response().status, 200);
    upstream.only_request()
}

const SPOOFED: &str = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 203.0.113.9\r\n\
    Forwarded: for=203.0.113.9;proto=https;host=evil.test\r\n";

#[track_caller]
fn no_trace_of_spoofing(request: &Received) {
    let text = String::from_utf8_lossy(&request.head.raw).into_owned();
    for trace in ["203.0.113.9", "evil.test", "https"] {
        assert!(!text.contains(trace), "{trace} in {text}");
    }
}

#[test]
fn the_default_names_the_client() {
    let request = seen("", "");
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("gw.test"));
    assert!(!request.head.has("forwarded"));
}

#[test]
fn strangers_are_not_believed() {
    for keys in
        ["", "trusted_proxies = [\"10.0.0.0/8\"]", "fields = \"forwarded\"", "fields = \"off\""]
    {
        no_trace_of_spoofing(&seen(keys, SPOOFED));
    }
    let request = seen("", SPOOFED);
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("gw.test"));
}

#[test]
fn odd_spellings_are_not_believed_either() {
    let lines = "x-forwarded-for: 203.0.113.9\r\nX-FORWARDED-FOR: 203.0.113.9\r\n\
                 fORWARDED: for=203.0.113.9\r\n";
    no_trace_of_spoofing(&seen("", lines));
}

#[test]
fn trusted_proxies_are_believed() {
    let keys = "trusted_proxies = [\"127.0.0.0/8\"]";
    let lines = "X-Forwarded-For: 198.51.100.7, 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
                 X-Forwarded-Host: shop.test\r\n";
    let request = seen(keys, lines);
    // Believed from the right, as far as each address that vouches for the next is trusted.
    assert_eq!(request.head.all("x-forwarded-for").join(", "), "203.0.113.9, 127.0.0.1");
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert_eq!(request.field("x-forwarded-host"), Some("shop.test"));
    let request = seen(keys, "");
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    let keys = "trusted_proxies = [\"127.0.0.0/8\", \"203.0.113.0/24\"]";
    let all = seen(keys, lines).head.all("x-forwarded-for").join(", ");
    assert_eq!(all, "198.51.100.7, 203.0.113.9, 127.0.0.1");
}

#[test]
fn the_standard_field() {
    let elements = |request: &Received| {
        let all = request.head.all("forwarded").join(", ").to_ascii_lowercase().replace('"', "");
        all.split(", ").map(str::to_string).collect::<Vec<_>>()
    };
    let request = seen("fields = \"forwarded\"", "");
    let own = elements(&request);
    assert_eq!(own.len(), 1);
    for part in ["for=127.0.0.1", "proto=http", "host=gw.test"] {
        assert!(own[0].split(';').any(|p| p == part), "{part} in {own:?}");
    }
    assert!(!request.head.has("x-forwarded-for"));
    let keys = "fields = \"forwarded\"\ntrusted_proxies = [\"127.0.0.1/32\"]";
    let request = seen(keys, "Forwarded: for=198.51.100.7;proto=https\r\n");
    let both = elements(&request);
    assert_eq!((both.len(), both[0].as_str()), (2, "for=198.51.100.7;proto=https"));
}

#[test]
fn off_sends_nothing() {
    let request = seen("fields = \"off\"\nvia = \"\"\nrequest_id = \"off\"", "");
    let names: Vec<&str> = request.head.fields.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].eq_ignore_ascii_case("host"));
}

#[test]
fn a_client_cannot_have_the_gateways_fields_removed() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send(
        "GET /x HTTP/1.1\r\nHost: gw.test\r\n\
         Connection: X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, Via\r\n\r\n",
    );
    // Refusing is right as well.
    if client.response().status == 200 {
        let request = upstream.only_request();
        for name in ["x-forwarded-for", "x-forwarded-proto", "x-request-id", "via"] {
            assert!(request.head.has(name), "{name}: {:?}", request.head.fields);
        }
    } else {
        assert_eq!(upstream.requests().len(), 0);
    }
}

#[test]
fn request_ids_are_made_and_differ() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut ids = HashSet::new();
    for _ in 0..20 {
        let mut client = gateway.client();
        (0..10).for_each(|_| drop(client.get("/")));
    }
    for request in upstream.requests() {
        ids.insert(request.field("x-request-id").expect("an id").to_string());
    }
    assert_eq!(ids.len(), 200, "every id is its own");
}

#[test]
fn request_ids_are_kept_when_valid() {
    let line = |id: &str| format!("X-Request-Id: {id}\r\n");
    let id = "3f2a-77_x.9";
    assert_eq!(seen("", &line(id)).field("x-request-id"), Some(id));
    let made = seen("request_id = \"make\"", &line(id));
    assert!(made.field("x-request-id").is_some_and(|made| made != id));
    for bad in ["", "a b", "a\"b", "<script>", &"x".repeat(5000), "\u{e9}"] {
        let request = seen("", &line(bad));
        let id = request.field("x-request-id").expect("an id");
        assert!(id != bad && !id.is_empty(), "{bad:?} was kept");
    }
}

#[test]
fn a_refusal_names_the_request() {
    let gateway = Gateway::start("[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n");
    let mut client = gateway.client();
    client.send("GET /none HTTP/1.1\r\nHost: gw.test\r\nX-Request-Id: abc-123\r\n\r\n");
    let problem = client.response().problem();
    assert_eq!(
        (problem["request_id"].as_str(), problem["status"].as_u64()),
        (Some("abc-123"), Some(404))
    );
    let problem = client.get("/none").problem();
    assert!(problem["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{problem}");
    assert_eq!(problem["reason"], "route.not_found");
}
