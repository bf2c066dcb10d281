//! CORS over both versions of HTTP: what browsers are told with responses of upstreams, of the
//! gateway and with refusals, and preflights.

use crate::harness::{Gateway, Http2, Response, Upstream};

const APP: &str = "https://app.example.com";

/// An upstream that speaks of CORS itself.
fn upstream() -> Upstream {
    Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            let own = match &*request.target {
                "/own" | "/keep/own" => {
                    "Access-Control-Allow-Origin: https://own.test\r\n\
                     access-control-max-age: 1\r\nX-Frame-Options: SAMEORIGIN\r\n"
                }
                _ => "",
            };
            conn.send(format!("HTTP/1.1 200 OK\r\n{own}X-Kept: 1\r\nContent-Length: 2\r\n\r\nok"));
        }
    })
}

fn start(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        r#"
[[routes]]
path = "/"
upstream = "app"
policies = ["cors"]
security_headers = {{ opener = "", resource = "" }}

[[routes]]
path = "/keep"
upstream = "app"
cors = {{ origins = ["{APP}"], upstream_fields = "keep" }}

[[routes]]
path = "/api"
methods = ["GET", "PUT"]
respond = {{ body = "api" }}
policies = ["cors"]

[[routes]]
path = "/closed"
respond = {{ body = "closed" }}
maintenance = {{ retry_after = "5s" }}
policies = ["cors"]

[[routes]]
path = "/denied"
respond = {{ body = "denied" }}
addresses = {{ deny = ["127.0.0.0/8"] }}
policies = ["cors"]

[[routes]]
path = "/who"
respond = {{ body = "who" }}
authenticate = ["people"]
anonymous = true
authorize = [{{ authenticated = true }}]
policies = ["cors"]

[[routes]]
path = "/large"
max_body = "10B"
upstream = "app"
policies = ["cors"]

[[routes]]
path = "/plain"
methods = ["GET"]
respond = {{ body = "plain" }}

[[routes]]
path = "/away"
upstream = "away"
policies = ["cors"]

[policies.cors.cors]
origins = ["{APP}", "https://*.example.org"]
headers = ["X-Tenant"]
expose = ["X-Kept"]
credentials = true
max_age = "1m"

[basic.people]

[consumers.alice]
password = "$2y$10$abcdefghijklmnopqrstuuwmjOOgyx/jknFqeF8sHrF2cGgSECl/q"

[upstreams.app]
endpoints = ["{}"]

[upstreams.away]
endpoints = ["127.0.0.1:1"]
"#,
        upstream.address()
    ))
}

/// Names and values of the fields that matter to browsers, in the order of a list.
fn told(response: &Response) -> String {
    let mut told = vec![response.status.to_string()];
    for name in [
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-expose-headers",
        "access-control-allow-methods",
        "access-control-allow-headers",
        "access-control-max-age",
        "vary",
        "x-frame-options",
        "referrer-policy",
    ] {
        for value in response.head.all(name) {
            told.push(format!("{}: {value}", name.trim_start_matches("access-control-")));
        }
    }
    told.join(" | ")
}

const ALLOWED: &str = "allow-origin: https://app.example.com | allow-credentials: true | \
                       expose-headers: X-Kept";

type Fields = Vec<(&'static str, &'static str)>;

/// Method, target, further fields, and what comes back.
fn table() -> Vec<(&'static str, &'static str, Fields, String)> {
    let app = || vec![("origin", APP)];
    let preflight = |method| vec![("origin", APP), ("access-control-request-method", method)];
    let preflighted = |methods: &str| {
        format!(
            "204 | allow-origin: {APP} | allow-credentials: true | allow-methods: {methods} | \
             allow-headers: X-Tenant | max-age: 60 | \
             vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
        )
    };
    let careful = "x-frame-options: DENY | referrer-policy: strict-origin-when-cross-origin";
    vec![
        ("GET", "/x", app(), format!("200 | {ALLOWED} | vary: Origin | {careful}")),
        ("GET", "/x", vec![], format!("200 | vary: Origin | {careful}")),
        (
            "GET",
            "/x",
            vec![("origin", "https://evil.test")],
            format!("200 | vary: Origin | {careful}"),
        ),
        // What the upstream says of CORS is left out, and what it says of frames stays.
        (
            "GET",
            "/own",
            app(),
            format!("200 | {ALLOWED} | vary: Origin | {}", careful.replace("DENY", "SAMEORIGIN")),
        ),
        ("GET", "/keep/x", app(), format!("200 | allow-origin: {APP} | vary: Origin")),
        (
            "GET",
            "/keep/own",
            app(),
            "200 | allow-origin: https://own.test | max-age: 1 | x-frame-options: SAMEORIGIN"
                .to_owned(),
        ),
        ("PUT", "/api", app(), format!("200 | {ALLOWED} | vary: Origin")),
        // Refusals are shown to the page too.
        ("GET", "/closed", app(), format!("503 | {ALLOWED} | vary: Origin")),
        ("GET", "/denied", app(), format!("403 | {ALLOWED} | vary: Origin")),
        ("GET", "/who", app(), format!("401 | {ALLOWED} | vary: Origin")),
        ("GET", "/away", app(), format!("503 | {ALLOWED} | vary: Origin")),
        // Preflights: the route's own methods count, and others find the route that has them.
        ("OPTIONS", "/api", preflight("PUT"), preflighted("GET, PUT, HEAD")),
        // A DELETE would be another route's.
        ("OPTIONS", "/api", preflight("DELETE"), format!("403 | {careful}")),
        (
            "OPTIONS",
            "/x",
            preflight("POST"),
            format!("{} | {careful}", preflighted("GET, HEAD, POST")),
        ),
        ("OPTIONS", "/closed", preflight("POST"), preflighted("GET, HEAD, POST")),
        ("OPTIONS", "/who", preflight("POST"), preflighted("GET, HEAD, POST")),
        ("OPTIONS", "/denied", preflight("POST"), "403".to_owned()),
        ("OPTIONS", "/api", app(), format!("200 | {ALLOWED} | vary: Origin | {careful}")),
        ("OPTIONS", "/x", app(), format!("200 | {ALLOWED} | vary: Origin | {careful}")),
        // Nobody speaks for a route that has no CORS.
        ("OPTIONS", "/plain", vec![], format!("200 | vary: Origin | {careful}")),
    ]
}

#[test]
fn what_browsers_are_told_over_http1() {
    let upstream = upstream();
    let gateway = start(&upstream);
    let mut client = gateway.client();
    for (method, target, fields, expected) in table() {
        let fields: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: gw.test\r\n{fields}\r\n"));
        let response = client.response_to(method);
        assert_eq!(told(&response), expected, "{method} {target} {fields}");
    }
}

#[test]
fn what_browsers_are_told_over_http2() {
    let upstream = upstream();
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    for (method, target, fields, expected) in table() {
        let stream = client.ask(method, target, &fields);
        let response = client.response(stream);
        assert_eq!(told(&response), expected, "{method} {target} {fields:?}");
    }
}

#[test]
fn a_body_that_is_too_large_is_told_to_the_page() {
    let upstream = upstream();
    let gateway = start(&upstream);
    let mut client = gateway.client();
    client.send(format!(
        "POST /large HTTP/1.1\r\nHost: gw.test\r\nOrigin: {APP}\r\nContent-Length: 11\r\n\r\nhello world"
    ));
    assert_eq!(told(&client.response()), format!("413 | {ALLOWED} | vary: Origin"));
}

#[test]
fn refused_preflights_say_why_and_touch_no_upstream() {
    let upstream = upstream();
    let gateway = start(&upstream);
    let mut client = gateway.client();
    for (fields, reason) in [
        ("Origin: https://evil.test\r\nAccess-Control-Request-Method: GET\r\n", "cors.origin"),
        ("Origin: https://a.example.org\r\nAccess-Control-Request-Method: PUT\r\n", "cors.method"),
        (
            "Origin: https://a.example.org\r\nAccess-Control-Request-Method: GET\r\n\
             Access-Control-Request-Headers: x-tenant, x-other\r\n",
            "cors.headers",
        ),
    ] {
        client.send(format!("OPTIONS /x HTTP/1.1\r\nHost: gw.test\r\n{fields}\r\n"));
        let response = client.response_to("OPTIONS");
        assert_eq!((response.status, &*response.reason()), (403, reason));
        assert!(!response.head.has("access-control-allow-origin"), "{reason}");
    }
    assert_eq!(upstream.requests().len(), 0);
}
