//! Rules of authorisation over both versions of HTTP, for clients that nobody knows; what
//! identities are allowed is in [`crate::identities`].

use crate::harness::{Gateway, Http2, Upstream};

fn start(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        r#"
[[routes]]
path_template = "/notes/{{owner}}"
upstream = "app"
authenticate = ["people"]
anonymous = true
authorize = [
  {{ effect = "deny", clients = ["blocked"] }},
  {{ methods = ["GET"], headers = {{ X-Tenant = {{ regex = "blue|green" }} }} }},
  {{ methods = ["GET"], params = {{ owner = "public" }} }},
  "staff",
  {{ effect = "deny", params = {{ owner = "public" }} }},
  {{ methods = ["PURGE"], when = 'request.headers["x-key"] == params.owner' }},
]

[[routes]]
path = "/shadow"
upstream = "app"
authenticate = ["people"]
anonymous = true
authorize = {{ rules = ["staff"], shadow = true }}

[[routes]]
path = "/nobody"
respond = {{ body = "no" }}
authorize = [{{ methods = ["DELETE"] }}]

[authorization.staff]
rules = [{{ groups = ["staff"], methods = ["PUT"] }}]

[basic.people]

[consumers.alice]
password = "$2y$10$abcdefghijklmnopqrstuuwmjOOgyx/jknFqeF8sHrF2cGgSECl/q"

[address_lists.blocked]
networks = ["192.0.2.0/24"]

[forwarding]
trusted_proxies = ["127.0.0.0/8"]

[upstreams.app]
endpoints = ["{}"]
"#,
        upstream.address()
    ))
}

#[test]
fn the_first_rule_that_matches_decides() {
    let upstream = Upstream::ok();
    let gateway = start(&upstream);
    let mut client = gateway.client();
    let mut second = Http2::connect(gateway.address());
    let (denied, unknown) = ("authz.denied", "authz.unauthenticated");
    for (method, target, fields, status, reason) in [
        ("GET", "/notes/a", &[("x-tenant", "blue")][..], 200, ""),
        ("GET", "/notes/a", &[("x-tenant", "blues")], 403, denied),
        ("GET", "/notes/a", &[("x-tenant", "blue"), ("x-forwarded-for", "192.0.2.9")], 403, denied),
        ("HEAD", "/notes/public", &[], 200, ""),
        // Somebody could be of the staff, also where a later rule denies it.
        ("PUT", "/notes/a", &[], 401, unknown),
        ("PUT", "/notes/public", &[], 401, unknown),
        ("POST", "/notes/public", &[], 403, denied),
        ("POST", "/notes/a", &[], 403, denied),
        ("PURGE", "/notes/a", &[("x-key", "a")], 200, ""),
        ("PURGE", "/notes/a", &[("x-key", "b")], 403, denied),
        // It cannot be told.
        ("PURGE", "/notes/a", &[], 403, denied),
        ("GET", "/nobody", &[], 403, denied),
        ("PUT", "/shadow", &[], 200, ""),
    ] {
        let before = upstream.requests().len();
        let lines: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: gw.test\r\n{lines}\r\n"));
        let first = client.response_to(method);
        let stream = second.ask(method, target, fields);
        for response in [first, second.response(stream)] {
            assert_eq!(response.status, status, "{method} {target} {lines}");
            if status != 200 {
                assert_eq!(response.reason(), reason, "{method} {target} {lines}");
            }
            // RFC 9110 §11.6.1: the way of the route.
            let challenge = (status == 401).then_some("Basic realm=\"people\", charset=\"UTF-8\"");
            assert_eq!(response.field("www-authenticate"), challenge, "{method} {target}");
        }
        let forwarded = if status == 200 { 2 } else { 0 };
        assert_eq!(upstream.requests().len() - before, forwarded, "{method} {target} {lines}");
    }
    let metrics = gateway.admin().get("/metrics").text();
    let line = "ringway_shadow_refusals_total{reason=\"authz.unauthenticated\"} 2\n";
    assert!(metrics.contains(line), "{metrics}");
}
