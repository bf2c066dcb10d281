//! Requests and responses that a route changes on their way.

use crate::harness::{Gateway, ReadError, Upstream, http2::Http2};

const FIELDS: &str = r#"
[[routes]]
name = "users"
path_template = "/users/{id}/{*rest}"
upstream = "app"
policies = ["changed"]

[policies.changed.transform_request]
headers = { remove = ["X-Gone"], rename = { "X-Old" = "X-New" }, set = { "X-Set" = "${client} ${method} ${param.id} ${header.X-In|none}", "X-None" = "${claim.sub}" }, add = { "X-Add" = "added" }, append = { "X-Many" = "${route}" } }
query = { remove = ["debug"], rename = { "q" = "search" }, set = { "by" = "${cookie.who}" }, add = { "page" = "1" } }
cookies = { remove = ["secret"], set = { "who" = "gateway" } }
path = "/v2/${param.rest}/of/${param.id}"

[policies.changed.transform_response]
headers = { remove = ["X-Powered-By"], rename = { "X-Inner" = "X-Outer" }, set = { "X-Status" = "${status} ${response.X-Inner} ${param.id}" }, add = { "Cache-Control" = "no-store" } }
status = { "404" = 410 }
"#;

fn fields_of(head: &crate::harness::Received, name: &str) -> Vec<String> {
    head.head.all(name).into_iter().map(str::to_owned).collect()
}

#[test]
fn heads_are_changed_in_one_order() {
    let upstream = Upstream::canned(
        "HTTP/1.1 404 Not Found\r\nX-Powered-By: magic\r\nX-Inner: in\r\nContent-Length: 2\r\n\r\nno",
    );
    let gateway = Gateway::before(upstream.address(), FIELDS);
    let mut client = gateway.client();
    client.send(
        "GET /users/7/a%2Eb?q=x+y&debug=1&page=2 HTTP/1.1\r\nHost: gw.test\r\nX-Gone: 1\r\n\
         X-Old: a\r\nx-old: b\r\nX-Set: mine\r\nX-Add: mine\r\nX-Many: mine\r\n\
         Cookie: who=me; secret=1; other=2\r\n\r\n",
    );
    let response = client.response();
    assert_eq!((response.status, &*response.text()), (410, "no"));
    assert_eq!(response.field("x-powered-by"), None);
    assert_eq!(response.field("x-outer"), Some("in"));
    assert_eq!(response.field("x-status"), Some("404 in 7"));
    assert_eq!(response.field("cache-control"), Some("no-store"));

    let received = upstream.only_request();
    assert_eq!(received.target, "/v2/a.b/of/7?search=x+y&page=2&by=me");
    assert_eq!(received.field("x-gone"), None);
    assert_eq!(received.field("x-old"), None);
    assert_eq!(fields_of(&received, "x-new"), ["a", "b"]);
    assert_eq!(fields_of(&received, "x-set"), ["127.0.0.1 GET 7 none"]);
    assert_eq!(received.field("x-none"), None);
    assert_eq!(fields_of(&received, "x-add"), ["mine"]);
    assert_eq!(fields_of(&received, "x-many"), ["mine", "users"]);
    assert_eq!(received.field("cookie"), Some("other=2; who=gateway"));

    let mut client = Http2::connect(gateway.address());
    let response = client.get("/users/8/x");
    assert_eq!((response.status, response.field("x-status")), (410, Some("404 in 8")));
}

#[test]
fn values_stay_within_their_segment() {
    let upstream = Upstream::ok();
    let config = r#"
        [[routes]]
        path = "/t"
        upstream = "app"
        transform_request = { path = "/a/${query.p}/b", headers = { set = { "X-P" = "${query.p}" } } }
    "#;
    let gateway = Gateway::before(upstream.address(), config);
    let mut client = gateway.client();
    for (query, target) in [
        ("?p=x", "/a/x/b?p=x"),
        ("?p=..%2F..%2Fadmin", "/a/..%2F..%2Fadmin/b?p=..%2F..%2Fadmin"),
        ("?p=%0d%0aX-Evil:%201", "/a/%0D%0AX-Evil%3A%201/b?p=%0d%0aX-Evil:%201"),
        ("?p=%3Fq", "/a/%3Fq/b?p=%3Fq"),
    ] {
        assert_eq!(client.get(&format!("/t{query}")).status, 200, "{query}");
        let received = upstream.requests().pop().unwrap();
        assert_eq!(received.target, target);
        assert_eq!(received.field("x-evil"), None);
    }
    for (query, reason) in [
        ("", "transform.value"),
        ("?p=..", "route.unsafe_rewrite"),
        ("?p=.", "route.unsafe_rewrite"),
        ("?p=", "route.unsafe_rewrite"),
    ] {
        let response = gateway.client().get(&format!("/t{query}"));
        assert_eq!((response.status, &*response.reason()), (400, reason), "{query}");
    }
}

const BODIES: &str = r#"
[[routes]]
path = "/json"
upstream = "app"
transform_request = { body_max = "1KiB", json = [{ set = "/by", value = "${client}" }, { remove = "/secret" }, { from = "/old", to = "/deep/new" }] }

[[routes]]
path = "/form"
upstream = "app"
transform_request = { form = "to_json", json = [{ wrap = "form" }] }

[[routes]]
path = "/unform"
upstream = "app"
method = "x"
transform_request = { form = "from_json", method = "PUT" }

[[routes]]
path = "/response"
upstream = "app"
transform_response = { body_max = "1KiB", json = [{ select = "/result" }, { set = "/status", value = { code = 1, text = "${status}" } }] }
"#;

fn post(path: &str, media: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: gw.test\r\nContent-Type: {media}\r\nContent-Digest: x\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn bodies_of_requests_are_changed() {
    let upstream = Upstream::ok();
    let config = BODIES.replace("method = \"x\"\n", "");
    let gateway = Gateway::before(upstream.address(), &config);
    let mut client = gateway.client();
    let form = "application/x-www-form-urlencoded";
    for (path, media, body, method, sent, sent_media) in [
        (
            "/json",
            "application/json; charset=utf-8",
            r#"{"z":1,"secret":2,"old":[3],"a":1.50}"#,
            "POST",
            r#"{"z":1,"a":1.5,"by":"127.0.0.1","deep":{"new":[3]}}"#,
            "application/json; charset=utf-8",
        ),
        (
            "/json",
            "application/vnd.x+json",
            "{}",
            "POST",
            r#"{"by":"127.0.0.1"}"#,
            "application/vnd.x+json",
        ),
        ("/json", "text/plain", "{}", "POST", "{}", "text/plain"),
        (
            "/form",
            form,
            "a=1&b=x+y&a=2",
            "POST",
            r#"{"form":{"a":["1","2"],"b":"x y"}}"#,
            "application/json",
        ),
        ("/form", "application/json", "[1]", "POST", r#"{"form":[1]}"#, "application/json"),
        (
            "/unform",
            "application/json",
            r#"{"a":[1,true],"b":"x y"}"#,
            "PUT",
            "a=1&a=true&b=x+y",
            form,
        ),
    ] {
        client.send(post(path, media, body));
        assert_eq!(client.response().status, 200, "{path} {body}");
        let received = upstream.requests().pop().unwrap();
        assert_eq!(received.method, method, "{path}");
        assert_eq!(String::from_utf8_lossy(&received.body), sent, "{path}");
        assert_eq!(received.field("content-type"), Some(sent_media), "{path}");
        let is_changed = media != "text/plain";
        assert_eq!(received.field("content-digest").is_none(), is_changed, "{path}");
    }
    // In pieces, over both versions, with what follows it still in its place.
    client.send(
        "POST /json HTTP/1.1\r\nHost: gw.test\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(client.head().start_line, "HTTP/1.1 100 Continue");
    client.send("1\r\n{\r\n");
    client.send("6\r\n\"k\":1}\r\n0\r\n\r\nGET /json HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 200);
    let requests = upstream.requests();
    let [.., first, second] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(first.body, br#"{"k":1,"by":"127.0.0.1"}"#);
    assert_eq!((first.field("expect"), &*second.method), (None, "GET"));

    let mut client = Http2::connect(gateway.address());
    let stream = client.post("/json", &[("content-type", "application/json")], b"{\"k\":2}");
    assert_eq!(client.response(stream).status, 200);
    assert_eq!(upstream.requests().pop().unwrap().body, br#"{"k":2,"by":"127.0.0.1"}"#);
}

#[test]
fn bodies_that_cannot_be_changed_are_refused() {
    let upstream = Upstream::ok();
    let config = BODIES.replace("method = \"x\"\n", "");
    let gateway = Gateway::before(upstream.address(), &config);
    let long = format!("[\"{}\"]", "x".repeat(1024));
    let deep = "[".repeat(500) + &"]".repeat(500);
    for (path, body, status, reason) in [
        ("/json", "{", 400, "transform.json"),
        ("/json", "{} {}", 400, "transform.json"),
        ("/json", &*deep, 400, "transform.json"),
        ("/json", &*long, 413, "limit.body_bytes"),
        ("/unform", "{\"a\":{}}", 400, "transform.form"),
    ] {
        let mut client = gateway.client();
        client.send(post(path, "application/json", body));
        let response = client.response();
        assert_eq!((response.status, &*response.reason()), (status, reason), "{path}");
    }
    let mut client = gateway.client();
    client.send(
        "POST /json HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert_eq!(client.response().reason(), "transform.encoded");
    let mut client = gateway.client();
    client.send(
        "POST /json HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
    );
    client.send(format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len()));
    assert_eq!(client.response().reason(), "limit.body_bytes");
    assert_eq!(upstream.connections(), 0);
}

/// An upstream whose response depends on the path's last part.
fn responses() -> Upstream {
    Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            let json = "Content-Type: application/json\r\nETag: \"v1\"\r\n";
            let whole = |fields: &str, body: &str| {
                format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
            };
            let response = match request.target.rsplit('/').next().unwrap() {
                "plain" => whole("Content-Type: text/plain\r\n", "{\"result\":{}}"),
                "chunked" => format!(
                    "HTTP/1.1 200 OK\r\n{json}Transfer-Encoding: chunked\r\n\r\n\
                     b\r\n{{\"result\":{{\r\n2\r\n}}}}\r\n0\r\n\r\n"
                ),
                "bad" => whole(json, "{\"result\""),
                "long" => whole(json, &format!("[\"{}\"]", "x".repeat(1024))),
                "gzip" => whole(&format!("{json}Content-Encoding: gzip\r\n"), "xxx"),
                "empty" => format!("HTTP/1.1 204 No Content\r\n{json}\r\n"),
                _ if request.method == "HEAD" => {
                    format!("HTTP/1.1 200 OK\r\n{json}Content-Length: 20\r\n\r\n")
                }
                _ => whole(json, "{\"result\":{\"a\":1},\"x\":2}"),
            };
            if !conn.send(response) {
                return;
            }
        }
    })
}

#[test]
fn bodies_of_responses_are_changed() {
    let upstream = responses();
    let config = BODIES.replace("method = \"x\"\n", "");
    let gateway = Gateway::before(upstream.address(), &config);
    let mut client = gateway.client();
    let changed = r#"{"a":1,"status":{"code":1,"text":"200"}}"#;
    client.send("GET /response/json HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nRange: bytes=0-1\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), changed);
    assert_eq!(response.field("etag"), Some("W/\"v1\""));
    let received = upstream.requests().pop().unwrap();
    assert_eq!(fields_of(&received, "accept-encoding"), ["identity"]);
    assert_eq!(received.field("range"), None);

    let chunked = client.get("/response/chunked");
    assert_eq!(chunked.text(), r#"{"status":{"code":1,"text":"200"}}"#);
    assert_eq!(client.get("/response/plain").text(), "{\"result\":{}}");
    assert_eq!(client.get("/response/empty").status, 204);
    client.send("HEAD /response/json HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.response_to("HEAD");
    assert_eq!((head.status, head.field("content-length")), (200, None));
    for (path, reason) in [
        ("/response/bad", "transform.response"),
        ("/response/long", "transform.response_bytes"),
        ("/response/gzip", "transform.response"),
    ] {
        let response = gateway.client().get(path);
        assert_eq!((response.status, &*response.reason()), (502, reason), "{path}");
    }
    let mut client = Http2::connect(gateway.address());
    assert_eq!(client.get("/response/json").text(), changed);
}

/// What is changed is a head: a large body passes as it comes, both ways.
#[test]
fn large_bodies_stream_through_changed_heads() -> Result<(), ReadError> {
    const BYTES: usize = 100 << 20;
    let upstream = Upstream::scripted(|conn| {
        let Ok(request) = conn.request_head() else { return };
        assert_eq!(request.field("x-set"), Some("1"));
        let mut left = BYTES;
        while left > 0 {
            left -= conn.reader.exactly(left.min(1 << 20)).unwrap().len();
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        let _ = conn.send(head) && (0..BYTES >> 20).all(|_| conn.send(&piece));
    });
    let config = r#"
        [[routes]]
        path = "/t"
        upstream = "app"
        transform_request = { headers = { set = { "X-Set" = "1" } } }
        transform_response = { headers = { set = { "X-Set" = "2" } } }
    "#;
    let gateway = Gateway::before(upstream.address(), config);
    let mut client = gateway.client();
    let before = gateway.rss_bytes();
    client.send(format!("POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n"));
    let piece = vec![b'x'; 1 << 20];
    (0..BYTES >> 20).for_each(|_| client.send(&piece));
    let head = client.head();
    assert_eq!(head.field("x-set"), Some("2"));
    let mut left = BYTES;
    while left > 0 {
        left -= client.reader.exactly(left.min(1 << 20))?.len();
    }
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    Ok(())
}

#[test]
fn errors_are_told_in_the_operators_format() {
    let config = r#"
        [errors]
        body = '{"code":${status},"error":"${reason}","title":"${title}","path":"${path}","route":"${route|-}"}'

        [[routes]]
        path = "/html"
        respond = { status = 200 }
        maintenance = { retry_after = "5s" }
        errors = { content_type = "text/html; charset=utf-8", body = "<p>${header.X-Name}: ${detail}</p>" }

        [[routes]]
        name = "json"
        path = "/json"
        respond = { status = 200 }
        maintenance = {}
    "#;
    let gateway = Gateway::start(config);
    let mut client = gateway.client();
    client.send("GET /html HTTP/1.1\r\nHost: a\r\nX-Name: <b>\"&\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 503);
    assert_eq!(response.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(response.field("retry-after"), Some("5"));
    let text = "<p>&lt;b&gt;&#34;&amp;: The route is closed for maintenance.</p>";
    assert_eq!(response.text(), text);
    for (path, expected) in [
        (
            "/json",
            r#"{"code":503,"error":"route.maintenance","title":"Service Unavailable","path":"/json","route":"json"}"#,
        ),
        (
            "/none",
            r#"{"code":404,"error":"route.not_found","title":"Not Found","path":"/none","route":"-"}"#,
        ),
    ] {
        let response = client.get(path);
        assert_eq!(response.text(), expected);
        assert_eq!(response.field("content-type"), Some("application/json"));
        assert!(response.field("x-request-id").is_some());
    }
    let response = Http2::connect(gateway.address()).get("/none");
    assert_eq!(response.field("content-type"), Some("application/json"));
}
