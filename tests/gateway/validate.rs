//! Requests that are not as their route describes them.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Gateway, PATIENCE, ReadError, Upstream, eventually, http2::Http2};

/// A gateway, and the folder with its schemas.
fn gateway(upstream: &Upstream, config: &str) -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("item.json"), ITEM).unwrap();
    std::fs::write(folder.path().join("order.json"), ORDER).unwrap();
    std::fs::write(folder.path().join("slow.json"), SLOW).unwrap();
    let all = vec!["{\"minimum\": 0}"; 50].join(",");
    let heavy = format!("{{\"items\": {{\"allOf\": [{all}]}}}}");
    std::fs::write(folder.path().join("heavy.json"), heavy).unwrap();
    let config = config.replace("schemas", &folder.path().display().to_string());
    let toml = format!("{config}\n[upstreams.app]\nendpoints = [\"{}\"]\n", upstream.address());
    (Gateway::start(&toml), folder)
}

const ITEM: &str = r#"{"type": "object", "required": ["n"],
    "properties": {"n": {"type": "integer", "maximum": 9}}}"#;
const SLOW: &str = r#"{"type": "string", "pattern": "^(?:(?=.*!)a)*b"}"#;
const ORDER: &str = r##"{"type": "object", "required": ["items"], "additionalProperties": false,
    "properties": {"items": {"type": "array", "items": {"$ref": "item.json"}},
        "secret": {"maxLength": 3}, "extra": true, "tree": {"$ref": "#/$defs/tree"}},
    "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}"##;

const BODIES: &str = r#"
[[routes]]
path = "/order"
upstream = "app"
validate = { body = "schemas/order.json", max_body = "200KiB", max_depth = 4 }

[[routes]]
path = "/part"
upstream = "app"
validate = { body = "schemas/order.json#/properties/items", content_types = ["application/json", "text/*"] }

[[routes]]
path = "/inflated"
upstream = "app"
decompress = {}
validate = { body = "schemas/order.json" }

[[routes]]
path = "/changed"
upstream = "app"
validate = { body = "schemas/order.json" }
transform_request = { json = [{ set = "/extra", value = 1 }] }

[[routes]]
path = "/shadow"
upstream = "app"
validate = { body = "schemas/order.json", max_body = "64B", shadow = true }

[[routes]]
path = "/own"
upstream = "app"
validate = { body = "schemas/order.json" }
errors = { body = '{"code": ${status}, "why": "${detail}"}' }
"#;

fn post(path: &str, media: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: gw.test\r\n{media}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const JSON: &str = "Content-Type: application/json\r\n";
const GOOD: &str = r#"{"items": [{"n": 1}]}"#;

#[test]
fn bodies_are_as_their_schema_says_or_refused() {
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(&upstream, BODIES);
    let mut client = gateway.client();
    let deep = format!("{{\"items\":[],\"tree\":{}{}}}", "[".repeat(4), "]".repeat(4));
    for (path, media, body, expected, pointer) in [
        ("/order", JSON, GOOD, (200, ""), ""),
        ("/order", "Content-Type: application/vnd.x+json; charset=utf-8\r\n", GOOD, (200, ""), ""),
        (
            "/order",
            JSON,
            r#"{"items": [{"n": 1}, {"n": 10}]}"#,
            (422, "validate.body"),
            "#/items/1/n",
        ),
        ("/order", JSON, r#"{"items": [], "x": 1}"#, (422, "validate.body"), "#"),
        (
            "/order",
            JSON,
            r#"{"items": [], "secret": "hunter2"}"#,
            (422, "validate.body"),
            "#/secret",
        ),
        ("/order", JSON, r#"{"items": [], "items": [{}]}"#, (400, "validate.malformed"), "#"),
        ("/order", JSON, r#"{"items": ["#, (400, "validate.malformed"), "#"),
        ("/order", JSON, &deep, (400, "validate.depth"), "#"),
        ("/order", "Content-Type: text/plain\r\n", GOOD, (415, "validate.media_type"), "#"),
        ("/order", "", GOOD, (415, "validate.media_type"), "#"),
        ("/order", JSON, "", (400, "validate.body_missing"), "#"),
        ("/part", JSON, r#"[{"n": 1}]"#, (200, ""), ""),
        ("/part", JSON, r#"[{"n": "1"}]"#, (422, "validate.body"), "#/0/n"),
        ("/part", "Content-Type: text/plain\r\n", "anything", (200, ""), ""),
    ] {
        // Refused or not, the connection is kept.
        client.send(post(path, media, body));
        let response = client.response();
        assert_eq!(response.status, expected.0, "{path} {body}: {}", response.text());
        if expected.0 == 200 {
            assert_eq!(String::from_utf8_lossy(&upstream.requests().pop().unwrap().body), body);
            continue;
        }
        let problem: Value = serde_json::from_str(&response.text()).expect("JSON");
        assert_eq!(problem["reason"], expected.1, "{path} {body}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(!response.text().contains("hunter2"), "a value is told: {problem}");
    }
    let mut second = Http2::connect(gateway.address());
    let fields = [("content-type", "application/json")];
    let mut ask = |body: &str| {
        let stream = second.post("/order", &fields, body.as_bytes());
        second.response(stream)
    };
    assert_eq!(ask(GOOD).status, 200);
    let response = ask(r#"{"items": 1}"#);
    assert_eq!((response.status, &*response.reason()), (422, "validate.body"));
    assert_eq!(ask(GOOD).status, 200, "it is kept");
}

#[test]
fn two_media_types_or_a_coding_are_not_taken() {
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(&upstream, BODIES);
    for (fields, reason) in [
        (format!("{JSON}Content-Type: text/plain\r\n"), "validate.media_type"),
        (format!("{JSON}Content-Encoding: gzip\r\n"), "validate.encoded"),
        (
            format!("{JSON}Content-Encoding: identity\r\nContent-Encoding: br\r\n"),
            "validate.encoded",
        ),
        (format!("{JSON}Content-Encoding: identity, gzip\r\n"), "validate.encoded"),
        ("Content-Type: application/json;charset=utf-7\r\n".to_owned(), "validate.media_type"),
    ] {
        let mut client = gateway.client();
        client.send(post("/order", &fields, GOOD));
        let response = client.response();
        assert_eq!((response.status, &*response.reason()), (415, reason), "{fields}");
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_large_body_is_checked_beside_the_workers() {
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(&upstream, BODIES);
    let mut client = gateway.client();
    let items = r#"{"n": 1},"#.repeat(10_000);
    let good = format!("{{\"items\":[{items}{{\"n\":2}}]}}");
    let bad = format!("{{\"items\":[{items}{{\"n\":20}}]}}");
    for _ in 0..3 {
        client.send(post("/order", JSON, &good));
        assert_eq!(client.response().status, 200);
        assert_eq!(upstream.requests().pop().unwrap().body.len(), good.len());
        client.send(post("/order", JSON, &bad));
        let response = client.response();
        assert_eq!(response.status, 422);
        assert!(response.text().contains("#/items/10000/n"), "{}", response.text());
    }
    // In chunks, and too large: announced, or as it turns out.
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head = format!("POST /order HTTP/1.1\r\nHost: gw.test\r\n{JSON}");
    client.send(format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
        chunk(&good[..7]),
        chunk(&good[7..])
    ));
    assert_eq!(client.response().status, 200);
    let large = format!("{{\"items\":[{}{{\"n\":2}}]}}", r#"{"n": 1},"#.repeat(40_000));
    client.send(format!("{head}Content-Length: {}\r\n\r\n", large.len()));
    let response = client.response();
    assert_eq!((response.status, &*response.reason()), (413, "validate.body_bytes"));
    let mut client = gateway.client();
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk(&large)));
    let response = client.response();
    assert_eq!((response.status, &*response.reason()), (413, "validate.body_bytes"));
}

#[test]
fn a_body_is_checked_decompressed_and_before_it_is_changed() {
    use std::io::Write;
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(&upstream, BODIES);
    let mut client = gateway.client();
    for (body, status) in [(GOOD, 200), (r#"{"items": 1}"#, 422)] {
        let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        coder.write_all(body.as_bytes()).unwrap();
        let coded = coder.finish().unwrap();
        let head = format!(
            "POST /inflated HTTP/1.1\r\nHost: gw.test\r\n{JSON}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            coded.len()
        );
        client.send([head.as_bytes(), &coded].concat());
        assert_eq!(client.response().status, status, "{body}");
    }
    assert_eq!(upstream.only_request().body, GOOD.as_bytes());
    client.send(post("/changed", JSON, GOOD));
    assert_eq!(client.response().status, 200);
    let received = upstream.requests().pop().unwrap();
    assert_eq!(String::from_utf8_lossy(&received.body), r#"{"items":[{"n":1}],"extra":1}"#);
}

#[test]
fn in_shadow_everything_passes_as_it_came_and_is_counted() {
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(&upstream, BODIES);
    let mut client = gateway.client();
    let long = format!("{{\"items\":[{}]}}", "1,".repeat(50_000));
    for body in ["{", "", r#"{"items": 1}"#, GOOD, &long] {
        client.send(post("/shadow", JSON, body));
        assert_eq!(client.response().status, 200, "{body}");
        assert_eq!(String::from_utf8_lossy(&upstream.requests().pop().unwrap().body), *body);
    }
    // Too large, as it turns out: what was read of it and the rest.
    let chunks: Vec<String> = long
        .as_bytes()
        .chunks(4000)
        .map(|part| format!("{:x}\r\n{}\r\n", part.len(), String::from_utf8_lossy(part)))
        .collect();
    let head = format!(
        "POST /shadow HTTP/1.1\r\nHost: gw.test\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n"
    );
    client.send(format!("{head}{}0\r\n\r\n", chunks.concat()));
    assert_eq!(client.response().status, 200);
    assert_eq!(String::from_utf8_lossy(&upstream.requests().pop().unwrap().body), long);
    let metrics = gateway.admin().get("/metrics").text();
    for line in [
        "ringway_shadow_refusals_total{reason=\"validate.malformed\"} 1\n",
        "ringway_shadow_refusals_total{reason=\"validate.body_missing\"} 1\n",
        "ringway_shadow_refusals_total{reason=\"validate.body\"} 1\n",
        "ringway_shadow_refusals_total{reason=\"validate.body_bytes\"} 2\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
    assert!(!metrics.contains("ringway_refusals_total{reason=\"validate."), "{metrics}");
}

#[test]
fn an_own_format_of_errors_tells_what_is_wrong() {
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(&upstream, BODIES);
    let mut client = gateway.client();
    client.send(post("/own", JSON, r#"{"items": "\""}"#));
    let text = client.response().text();
    let own: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(own["why"], "the body at `/items` must be of type array");
}

#[test]
fn a_client_that_waits_is_asked_for_its_body() {
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(&upstream, BODIES);
    let mut client = gateway.client();
    client.send(format!(
        "POST /order HTTP/1.1\r\nHost: gw.test\r\n{JSON}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        GOOD.len()
    ));
    assert!(client.head().start_line.contains(" 100 "));
    client.send(GOOD);
    assert_eq!(client.response().status, 200);
    // What is refused anyway is not asked for.
    client.send("POST /order HTTP/1.1\r\nHost: gw.test\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n");
    assert_eq!(client.response().status, 415);
}

const PARAMETERS: &str = r#"
[[routes]]
path_template = "/p/{id}/{rest}"
upstream = "app"

[routes.validate]
strict_query = true
parameters = [
  { from = "path", name = "id", schema = { type = "integer", minimum = 1 } },
  { from = "query", name = "n", schema = { type = "integer", maximum = 10 } },
  { from = "query", name = "tag", schema = { type = "array", maxItems = 2, items = { minLength = 2 } } },
  { from = "query", name = "f", style = "deep_object", schema = { properties = { a = { type = "boolean" } }, additionalProperties = false, type = "object" } },
  { from = "header", name = "X-When", schema = { type = "string", format = "date" } },
  { from = "cookie", name = "who", required = true, schema = { enum = ["me", "you"] } },
]
"#;

#[test]
fn parameters_are_as_described_or_refused() {
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(&upstream, PARAMETERS);
    let mut client = gateway.client();
    for (target, fields, named) in [
        ("/p/1/x?n=3&tag=ab&tag=cd&f[a]=true&f%5Ba%5D=true", "Cookie: who=me\r\n", "f"),
        ("/p/1/x?n=3&tag=ab&tag=cd&f[a]=true", "Cookie: who=me\r\n", ""),
        ("/p/1/x", "Cookie: x=1; who=you\r\nX-When: 2026-11-28\r\n", ""),
        ("/p/%31/x", "Cookie: who=me\r\n", ""),
        ("/p/0/x", "Cookie: who=me\r\n", "id"),
        ("/p/a/x", "Cookie: who=me\r\n", "id"),
        ("/p/1/x?n=11", "Cookie: who=me\r\n", "n"),
        ("/p/1/x?n=1&n=2", "Cookie: who=me\r\n", "n"),
        ("/p/1/x?n=%201", "Cookie: who=me\r\n", "n"),
        ("/p/1/x?tag=ab&tag=cd&tag=ef", "Cookie: who=me\r\n", "tag"),
        ("/p/1/x?tag=a", "Cookie: who=me\r\n", "tag"),
        ("/p/1/x?f[b]=1", "Cookie: who=me\r\n", "f"),
        ("/p/1/x?f[a]=maybe", "Cookie: who=me\r\n", "f"),
        ("/p/1/x?other=1", "Cookie: who=me\r\n", "other"),
        ("/p/1/x?n=%ff", "Cookie: who=me\r\n", "n"),
        ("/p/1/x", "Cookie: who=me\r\nX-When: tomorrow\r\n", "X-When"),
        ("/p/1/x", "Cookie: who=me\r\nX-When: 2026-11-28\r\nX-When: 2026-11-29\r\n", "X-When"),
        ("/p/1/x", "Cookie: who=them\r\n", "who"),
        ("/p/1/x", "Cookie: who=me; who=you\r\n", "who"),
        ("/p/1/x", "", "who"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: gw.test\r\n{fields}\r\n"));
        let response = client.response();
        if named.is_empty() {
            assert_eq!(response.status, 200, "{target} {fields}: {}", response.text());
            continue;
        }
        assert_eq!((response.status, &*response.reason()), (400, "validate.parameter"), "{target}");
        let problem: Value = serde_json::from_str(&response.text()).expect("JSON");
        assert_eq!(problem["errors"][0]["parameter"], named, "{target} {fields}: {problem}");
    }
    let mut second = Http2::connect(gateway.address());
    assert_eq!(second.get("/p/0/x").status, 400);
    assert_eq!(second.get("/p/0/x").status, 400, "it is kept");
}

#[test]
fn a_schema_that_changes_is_read_again() {
    let upstream = Upstream::ok();
    let (gateway, folder) = gateway(&upstream, &format!("[reload]\nwatch = true\n{BODIES}"));
    let mut client = gateway.client();
    let body = r#"{"items": [{"n": 20}]}"#;
    client.send(post("/order", JSON, body));
    assert_eq!(client.response().status, 422);
    // Which the schema of orders refers to.
    std::fs::write(folder.path().join("item.json"), r#"{"required": ["n"]}"#).unwrap();
    eventually("the schema is in force", || {
        let mut client = gateway.client();
        client.send(post("/order", JSON, body));
        client.response().status == 200
    });
}

/// Eight bodies whose checks take a while, then more than may wait; every second one in shadow.
#[test]
fn in_shadow_nobody_is_refused_because_too_much_is_checked() {
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(
        &upstream,
        r#"
[runtime]
workers = 1
[[routes]]
path = "/heavy"
respond = {}
validate = { body = "schemas/heavy.json", max_body = "1MiB" }
[[routes]]
path = "/order"
respond = {}
validate = { body = "schemas/order.json" }
[[routes]]
path = "/shadow"
respond = {}
validate = { body = "schemas/order.json", shadow = true }
"#,
    );
    let heavy = format!("[{}1]", "1,".repeat(200_000));
    let blockers = [(); 8].map(|()| {
        let mut client = gateway.client();
        client.send(post("/heavy", JSON, &heavy));
        client
    });
    let body = format!("{{\"items\":[{}{{\"n\":2}}]}}", r#"{"n": 1},"#.repeat(2000));
    let mut clients: Vec<_> = (0..560).map(|_| gateway.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(post(["/order", "/shadow"][n % 2], JSON, &body));
    }
    let mut busy = 0;
    for (n, client) in clients.iter_mut().enumerate() {
        let response = client.response();
        if n % 2 == 0 && response.status == 503 {
            assert_eq!(response.reason(), "validate.busy");
            busy += 1;
        } else {
            assert_eq!(response.status, 200, "{n}: {}", response.text());
        }
    }
    assert!(busy > 0, "as many are checked as come");
    let counted = gateway.figure("ringway_shadow_refusals_total{reason=\"validate.busy\"}");
    assert!(counted > Some(0.0), "{counted:?}");
    drop(blockers);
}

/// A pattern that looks ahead takes long for some texts: meanwhile the worker goes on.
#[test]
fn patterns_that_take_time_hold_no_worker_up() {
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(
        &upstream,
        r#"
[runtime]
workers = 1
[[routes]]
path = "/slow"
respond = {}
[routes.validate]
body = "schemas/slow.json"
parameters = [{ from = "query", name = "p", schema = { type = "string", pattern = "^(?:(?=.*!)a)*b" } }]
[[routes]]
path = "/quick"
respond = {}
"#,
    );
    let heavy = format!("{}!", "a".repeat(1500));
    let slow = |p: &str, body: &str| post(&format!("/slow?p={p}"), JSON, &format!("\"{body}\""));
    let mut client = gateway.client();
    for (p, body, expected, told) in [
        ("b", "b", (200, ""), ""),
        ("c", "b", (400, "validate.parameter"), "must match the pattern"),
        ("b", "c", (422, "validate.body"), "must match the pattern"),
    ] {
        client.send(slow(p, body));
        let response = client.response();
        assert_eq!(response.status, expected.0, "{p} {body}: {}", response.text());
        if response.status != 200 {
            assert_eq!(response.reason(), expected.1);
            assert!(response.text().contains(told), "{}", response.text());
        }
    }
    for (p, body) in [(&*heavy, "b"), ("b", &*heavy)] {
        let mut slows: Vec<_> = (0..8).map(|_| gateway.client()).collect();
        // All of them are known to the worker, so that it reads in the order in which they send.
        slows.iter_mut().for_each(|client| assert_eq!(client.get("/quick").status, 200));
        slows.iter_mut().for_each(|client| client.send(slow(p, body)));
        // Each stands for one that the worker would do before what comes later.
        client.send("GET /quick HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        assert_eq!(client.response().status, 200);
        let mut last = slows.pop().unwrap().patience(Duration::from_millis(1));
        let read = last.reader.fill();
        assert_eq!(read, Err(ReadError::Timeout), "it was answered before what came after it");
        slows.push(last.patience(PATIENCE));
        for client in &mut slows {
            // Or, on a slow machine, given up.
            let response = client.response();
            assert!([400, 422, 503].contains(&response.status), "{}", response.text());
        }
    }
}

/// Checked where it is, a body is forwarded as it came, and whatever follows it is as ever.
#[test]
fn short_bodies_are_forwarded_as_they_came() {
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(&upstream, BODIES);
    let mut client = gateway.client();
    let bad = r#"{"items": 1}"#;
    let all = [post("/order", JSON, GOOD), post("/order", JSON, bad), post("/order", JSON, GOOD)];
    client.send(all.concat());
    let statuses = [(); 3].map(|()| client.response().status);
    assert_eq!(statuses, [200, 422, 200]);
    // In pieces, in chunks, and in chunks with trailers: what is forwarded is the same.
    let whole = post("/order", JSON, GOOD);
    let (first, second) = whole.split_at(whole.len() - 5);
    client.send(first);
    client.send(second);
    assert_eq!(client.response().status, 200);
    let chunked = format!(
        "POST /order HTTP/1.1\r\nHost: gw.test\r\n{JSON}Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         {:x}\r\n{GOOD}\r\n0\r\nX-Sum: 1\r\n\r\n",
        GOOD.len()
    );
    client.send(chunked);
    assert_eq!(client.response().status, 200);
    let requests = upstream.requests();
    assert_eq!(requests.len(), 4);
    for request in requests {
        assert_eq!(String::from_utf8_lossy(&request.body), GOOD);
        assert_eq!(request.field("content-length"), Some(&*GOOD.len().to_string()));
        assert_eq!(request.field("trailer"), None);
    }
}
