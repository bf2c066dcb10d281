//! A service that decides: what it is asked, what its answers mean, and what upstreams get of them.

use crate::harness::{Gateway, Received, Response, Upstream, http2::Http2};

/// Says yes to whoever has the token `good`, and no to others, in the way that the token names.
fn service() -> Upstream {
    Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            let answer = match request.field("authorization") {
                Some("Bearer good") => {
                    "200 OK\r\nX-User: alice\r\nX-Roles: a\r\nX-Roles: b\r\nX-Secret: s\r\n\
                     Content-Length: 5\r\n\r\nhello"
                }
                Some("Bearer unknown") => "401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
                Some("Bearer forbidden") => "403 Forbidden\r\nContent-Length: 0\r\n\r\n",
                Some("Bearer elsewhere") => {
                    "302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"
                }
                Some("Bearer large") => {
                    conn.send("HTTP/1.1 200 OK\r\nX-User: eve\r\nContent-Length: 100000\r\n\r\n");
                    conn.send(vec![b'x'; 100_000]);
                    continue;
                }
                Some("Bearer broken") => "what\r\n\r\n",
                _ => "500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
            };
            conn.send(format!("HTTP/1.1 {answer}"));
        }
    })
}

fn gateway(upstream: &Upstream, service: &Upstream, keys: &str) -> Gateway {
    let more = format!(
        r#"
        [runtime]
        workers = 1
        [[routes]]
        path = "/known"
        upstream = "app"
        authenticate = ["service"]
        [[routes]]
        path = "/anybody"
        upstream = "app"
        authenticate = ["service"]
        anonymous = true
        [forward_auth.service]
        upstream = "service"
        path = "/verify"
        response_fields = ["X-User", "X-Roles"]
        subject = "X-User"
        {keys}
        [upstreams.service]
        endpoints = ["{}"]
        "#,
        service.address()
    );
    Gateway::before(upstream.address(), &more)
}

fn ask(gateway: &Gateway, request: &str, token: &str) -> Response {
    let mut client = gateway.client();
    client.send(format!(
        "{request} HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer {token}\r\n\
         X-User: root\r\nX-Other: 1\r\nContent-Length: 3\r\n\r\nabc"
    ));
    client.response()
}

#[test]
fn the_service_is_told_what_the_request_is_and_upstreams_what_it_says() {
    let (upstream, service) = (Upstream::ok(), service());
    let gateway = gateway(&upstream, &service, "");
    assert_eq!(ask(&gateway, "POST /known/1?a=b", "good").status, 200);
    let asked = service.only_request();
    assert_eq!((&*asked.method, &*asked.target), ("GET", "/verify"));
    for (name, value) in [
        ("host", "app.test"),
        ("authorization", "Bearer good"),
        ("x-forwarded-method", "POST"),
        ("x-forwarded-uri", "/known/1?a=b"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "app.test"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(asked.head.all(name), [value], "{name}");
    }
    assert!(asked.body.is_empty() && !asked.head.has("content-length"));
    assert!(!asked.head.has("x-other") && !asked.head.has("x-user"));
    let request = upstream.request_for("/known/1?a=b");
    assert_eq!(request.head.all("x-user"), ["alice"]);
    assert_eq!(request.head.all("x-roles"), ["a, b"]);
    assert!(!request.head.has("x-secret"));
    assert_eq!((&*request.method, &*request.body), ("POST", &b"abc"[..]));
    // The same id leads through all logs.
    assert_eq!(asked.field("x-request-id"), request.field("x-request-id"));
    let mut client = Http2::connect(gateway.address());
    let stream = client.ask("GET", "/known/2", &[("authorization", "Bearer good")]);
    assert_eq!(client.response(stream).status, 200);
    assert_eq!(upstream.request_for("/known/2").field("x-user"), Some("alice"));
}

#[test]
fn what_the_service_does_not_accept_is_refused() {
    let (upstream, service) = (Upstream::ok(), service());
    let gateway = gateway(&upstream, &service, "timeout = \"2s\"");
    for (token, status, reason) in [
        ("unknown", 401, "auth.invalid"),
        ("forbidden", 403, "auth.denied"),
        ("elsewhere", 503, "auth.unavailable"),
        ("large", 503, "auth.unavailable"),
        ("broken", 503, "auth.unavailable"),
        ("other", 503, "auth.unavailable"),
    ] {
        for path in ["/known", "/anybody"] {
            let response = ask(&gateway, &format!("GET {path}"), token);
            assert_eq!((response.status, &*response.reason()), (status, reason), "{token} {path}");
        }
    }
    assert!(upstream.requests().is_empty());
    // Who shows nothing is not asked about.
    let before = service.requests().len();
    let mut client = gateway.client();
    client.send("GET /known HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().reason(), "auth.missing");
    client.send("GET /anybody HTTP/1.1\r\nHost: a\r\nX-User: root\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.only_request().field("x-user"), None);
    assert_eq!(service.requests().len(), before);
}

#[test]
fn a_service_that_does_not_answer_is_waited_for_no_longer_than_its_time() {
    let silent = Upstream::scripted(|conn| {
        let _ = conn.request();
        conn.until_closed();
    });
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, &silent, "timeout = \"100ms\"");
    let response = ask(&gateway, "GET /known", "good");
    assert_eq!((response.status, &*response.reason()), (503, "auth.unavailable"));
}

#[test]
fn a_yes_is_remembered_for_the_same_request() {
    let (upstream, service) = (Upstream::ok(), service());
    let gateway = gateway(&upstream, &service, "remember = \"1h\"");
    let asked = |token: &str| {
        let is_it = |request: &Received| {
            request.field("authorization") == Some(&*format!("Bearer {token}"))
        };
        service.requests().iter().filter(|request| is_it(request)).count()
    };
    for n in 0..3 {
        assert_eq!(ask(&gateway, "GET /known/1", "good").status, 200);
        assert_eq!(ask(&gateway, "GET /known/1", "unknown").status, 401, "{n}");
    }
    assert_eq!((asked("good"), asked("unknown")), (1, 3));
    assert!(upstream.requests().iter().all(|request| request.field("x-user") == Some("alice")));
    // Another method or URL is another question.
    assert_eq!(ask(&gateway, "POST /known/1", "good").status, 200);
    assert_eq!(ask(&gateway, "GET /known/1?a", "good").status, 200);
    assert_eq!(asked("good"), 3);
}
