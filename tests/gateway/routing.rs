//! Which route takes a request, and what a route may do besides forwarding.

use crate::harness::{Client, Gateway, Upstream};

/// A route that answers with its own name.
fn route(name: &str, conditions: &str) -> String {
    format!(
        "[[routes]]\nname = \"{name}\"\n{conditions}\nrespond = {{ status = 200, body = \"{name}\" }}\n"
    )
}

fn routes(all: &[(&str, &str)]) -> Gateway {
    let toml: String = all.iter().map(|(name, conditions)| route(name, conditions)).collect();
    Gateway::start(&toml)
}

/// Sends each request (`METHOD target host` and further field lines) and compares the route.
#[track_caller]
fn check(gateway: &Gateway, table: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (request, want) in table {
        let mut lines = request.split('\n');
        let words: Vec<&str> = lines.next().unwrap().split(' ').collect();
        let (method, target, host) = (words[0], words[1], words[2]);
        let more: String = lines.map(|line| format!("{line}\r\n")).collect();
        let mut client = gateway.client();
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"));
        let response = client.response();
        let got = if response.status == 200 { response.text() } else { response.reason() };
        if got != *want {
            wrong.push(format!("{request:?}: {got}, not {want}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn paths() {
    let gateway = routes(&[
        ("exact", "path_exact = \"/a\""),
        ("prefix", "path = \"/a\""),
        ("longer", "path = \"/a/b\""),
        ("template", "path_template = \"/users/{id}/orders\""),
        ("rest", "path_template = \"/files/{*rest}\""),
        ("regex", "path_regex = '/v[0-9]+/x'"),
    ]);
    check(
        &gateway,
        &[
            ("GET /a gw.test", "exact"),
            ("GET /a?x=1 gw.test", "exact"),
            ("GET /a/ gw.test", "prefix"),
            ("GET /a/c gw.test", "prefix"),
            ("GET /ab gw.test", "route.not_found"),
            ("GET /a/b gw.test", "longer"),
            ("GET /a/b/c gw.test", "longer"),
            ("GET /a/bc gw.test", "prefix"),
            ("GET /a/./b gw.test", "longer"),
            ("GET /a/x/../b gw.test", "longer"),
            ("GET /a;p=1/b gw.test", "longer"),
            ("GET /%61/%62 gw.test", "longer"),
            ("GET /A gw.test", "route.not_found"),
            ("GET /users/7/orders gw.test", "template"),
            ("GET /users//orders gw.test", "route.not_found"),
            ("GET /users/7/8/orders gw.test", "route.not_found"),
            ("GET /users/7/orders/1 gw.test", "route.not_found"),
            ("GET /files/x gw.test", "rest"),
            ("GET /files/x/y/z gw.test", "rest"),
            ("GET /files gw.test", "route.not_found"),
            ("GET /v1/x gw.test", "regex"),
            ("GET /v12/x gw.test", "regex"),
            ("GET /v1/x/y gw.test", "route.not_found"),
            ("GET /z/v1/x gw.test", "route.not_found"),
            ("GET / gw.test", "route.not_found"),
        ],
    );
}

#[test]
fn hosts() {
    let gateway = routes(&[
        ("any", "path = \"/any\""),
        ("exact", "hosts = [\"a.test\"]"),
        ("wildcard", "hosts = [\"*.a.test\"]"),
        ("deeper", "hosts = [\"*.b.a.test\"]"),
        ("one", "hosts = [\"c.b.a.test\", \"d.test\"]"),
    ]);
    check(
        &gateway,
        &[
            ("GET / a.test", "exact"),
            ("GET / A.TEST", "exact"),
            ("GET / a.test:8080", "exact"),
            ("GET / x.a.test", "wildcard"),
            ("GET / x.y.a.test", "wildcard"),
            ("GET / x.b.a.test", "deeper"),
            ("GET / c.b.a.test", "one"),
            ("GET / d.test", "one"),
            ("GET /any other.test", "any"),
            ("GET / xa.test", "route.not_found"),
        ],
    );
}

#[test]
fn a_host_that_no_route_serves_is_421() {
    let gateway = routes(&[("a", "hosts = [\"a.test\"]\npath = \"/a\"")]);
    check(
        &gateway,
        &[
            ("GET /a a.test", "a"),
            ("GET /b a.test", "route.not_found"),
            ("GET /a b.test", "route.host"),
            ("GET http://b.test/a b.test", "route.host"),
        ],
    );
    assert_eq!(gateway.client().get_from("b.test", "/a").status, 421);
    assert_eq!(gateway.client().get_from("a.test", "/b").status, 404);
}

#[test]
fn methods_headers_and_query_narrow_a_path() {
    let gateway = routes(&[
        ("plain", "path = \"/x\""),
        ("post", "path = \"/x\"\nmethods = [\"POST\"]"),
        ("blue", "path = \"/x\"\nheaders = { \"X-Tenant\" = \"blue\" }"),
        (
            "two",
            "path = \"/x\"\nheaders = { \"X-Tenant\" = \"blue\", \"X-Beta\" = { present = true } }",
        ),
        ("query", "path = \"/x\"\nquery = { v = { regex = \"[0-9]+\" } }"),
        ("odd", "path = \"/odd\"\nmethods = [\"BREW\"]"),
    ]);
    check(
        &gateway,
        &[
            ("GET /x gw.test", "plain"),
            ("POST /x gw.test", "post"),
            ("GET /x gw.test\nX-Tenant: blue", "blue"),
            ("GET /x gw.test\nx-tenant: blue", "blue"),
            ("GET /x gw.test\nX-Tenant: red", "plain"),
            ("GET /x gw.test\nX-Tenant: blue\nX-Beta: 1", "two"),
            ("GET /x?v=12 gw.test", "query"),
            ("GET /x?a=b&v=1 gw.test", "query"),
            ("GET /x?v=1a gw.test", "plain"),
            ("GET /x?V=1 gw.test", "plain"),
            ("BREW /odd gw.test", "odd"),
        ],
    );
}

#[test]
fn a_wrong_method_is_405_and_says_which_are_right() {
    let gateway = routes(&[
        ("read", "path = \"/x\"\nmethods = [\"GET\"]"),
        ("write", "path = \"/x\"\nmethods = [\"PUT\", \"DELETE\"]"),
    ]);
    let mut client = gateway.client();
    client.send("POST /x HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.reason().as_str()), (405, "route.method"));
    let mut allow: Vec<&str> = response.field("allow").expect("Allow").split(", ").collect();
    allow.sort_unstable();
    assert_eq!(allow, ["DELETE", "GET", "HEAD", "PUT"]);
    // GET includes HEAD.
    client.send("HEAD /x HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    let response = client.response_to("HEAD");
    assert_eq!((response.status, response.field("content-length")), (200, Some("4")));
    assert_eq!(client.get("/x").text(), "read");
}

#[test]
fn a_fixed_response_is_sent_as_written() {
    let gateway = Gateway::start(
        "[[routes]]\npath = \"/down\"\n\
         respond = { status = 503, body = \"{}\", content_type = \"application/json\", \
         headers = { \"Retry-After\" = \"120\" } }\n\
         [[routes]]\npath = \"/empty\"\nrespond = { status = 204 }\n",
    );
    let mut client = gateway.client();
    let response = client.get("/down");
    assert_eq!((response.status, response.text().as_str()), (503, "{}"));
    assert_eq!(response.field("content-type"), Some("application/json"));
    assert_eq!(response.field("retry-after"), Some("120"));
    assert!(response.field("date").is_some());
    assert_eq!(client.get("/empty").status, 204);
    client.send("HEAD /down HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").field("content-length"), Some("2"));
    // A body that nobody wants is read past.
    client.send("POST /down HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response().status, 503);
}

#[test]
fn redirects() {
    let gateway = Gateway::start(
        "[[routes]]\npath = \"/secure\"\nredirect = { scheme = \"https\" }\n\
         [[routes]]\npath = \"/moved\"\nredirect = { status = 301, host = \"www.test\", replace_prefix = \"/new\" }\n\
         [[routes]]\npath_template = \"/u/{id}\"\nredirect = { status = 302, path = \"/users/{id}\", keep_query = false }\n\
         [[routes]]\npath = \"/port\"\nredirect = { status = 307, scheme = \"https\", port = 8443 }\n",
    );
    for (path, status, location) in [
        ("/secure/a?b=c", 308, "https://gw.test/secure/a?b=c"),
        ("/moved/x?y", 301, "http://www.test/new/x?y"),
        ("/moved", 301, "http://www.test/new"),
        ("/u/7?x=y", 302, "/users/7"),
        ("/port/x", 307, "https://gw.test:8443/port/x"),
    ] {
        let response = gateway.client().get(path);
        assert_eq!(
            (response.status, response.field("location")),
            (status, Some(location)),
            "{path}"
        );
    }
    // What the client sends can never break out of the field.
    let response = gateway.client().get("/secure/%0d%0aX:y");
    assert_eq!(response.status, 400);
}

#[test]
fn rewrites() {
    let upstream = Upstream::ok();
    let to = "upstream = \"app\"";
    let gateway = Gateway::start(&format!(
        "[[routes]]\npath = \"/strip\"\nstrip_prefix = true\n{to}\n\
         [[routes]]\npath = \"/old\"\nreplace_prefix = \"/v2/new\"\n{to}\n\
         [[routes]]\npath_template = \"/users/{{id}}/orders/{{order}}\"\nrewrite_path = \"/o/{{order}}/{{id}}\"\n{to}\n\
         [[routes]]\npath_regex = '/r/(?<a>[a-z]+)-([0-9]+)'\nrewrite_path = \"/{{2}}/{{a}}\"\n{to}\n\
         [[routes]]\npath = \"/host\"\nrewrite_host = \"internal.test\"\n{to}\n\
         [[routes]]\n{to}\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        upstream.address()
    ));
    let mut client = gateway.client();
    for (path, want) in [
        ("/strip/a/b?c", "/a/b?c"),
        ("/strip", "/"),
        ("/strip/", "/"),
        ("/strip?x", "/?x"),
        ("/old/a?b", "/v2/new/a?b"),
        ("/old", "/v2/new"),
        ("/users/7/orders/9?x=y", "/o/9/7?x=y"),
        ("/users/a%20b/orders/9", "/o/9/a%20b"),
        ("/r/abc-12", "/12/abc"),
        ("/strip/x/../y", "/y"),
        ("/strip/x;p=1/y", "/x;p=1/y"),
        ("/else/x?", "/else/x?"),
    ] {
        assert_eq!(client.get(path).text(), format!("GET {want}"), "{path}");
    }
    client.get("/host/x");
    let last = upstream.requests().pop().unwrap();
    assert_eq!((last.target.as_str(), last.field("host")), ("/host/x", Some("internal.test")));
}

#[test]
fn the_upstream_sees_the_clients_host() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    gateway.client().get_from("Shop.test:8080", "/");
    assert_eq!(upstream.only_request().field("host"), Some("Shop.test:8080"));
    let mut client: Client = gateway.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let last = upstream.requests().pop().unwrap();
    assert!(last.field("host").is_some_and(|host| !host.is_empty()), "{last:?}");
}

#[test]
fn many_routes() {
    let toml: String =
        (0..2000).map(|i| route(&format!("r{i}"), &format!("path = \"/s{i}/x\""))).collect();
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    for i in [0, 1, 999, 1999] {
        assert_eq!(client.get(&format!("/s{i}/x/y")).text(), format!("r{i}"));
    }
    assert_eq!(client.get("/s2000/x").status, 404);
}
