//! Policies of routes: where they are written, and in which order they apply.

use crate::harness::{Gateway, ReadError, Upstream, http2::Http2};

const CONFIG: &str = r#"
[[routes]]
path = "/open"
respond = { body = "open" }

[[routes]]
path = "/own"
respond = { body = "open" }
maintenance = { retry_after = "1500ms" }

[[routes]]
path = "/shared"
respond = { body = "open" }
policies = ["other", "closed"]

[[routes]]
path = "/both"
respond = { body = "open" }
maintenance = { retry_after = "2s" }
policies = ["closed"]

[policies.closed]
maintenance = { retry_after = "10m" }

[policies.other]
"#;

#[test]
fn a_policy_is_the_routes_own_or_a_sets() {
    let gateway = Gateway::start(CONFIG);
    let mut client = gateway.client();
    assert_eq!(client.get("/open").status, 200);
    for (path, retry_after) in [("/own", "2"), ("/shared", "600"), ("/both", "2")] {
        let response = client.get(path);
        assert_eq!((response.status, &*response.reason()), (503, "route.maintenance"), "{path}");
        assert_eq!(response.field("retry-after"), Some(retry_after), "{path}");
    }
    let mut client = Http2::connect(gateway.address());
    let response = client.get("/own");
    assert_eq!((response.status, response.field("retry-after")), (503, Some("2")));
}

/// A response with a length, one in chunks, and one that ends with its connection.
const BODIES: [(&str, &str); 3] = [
    ("/length", "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"),
    (
        "/chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    ),
    ("/close", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world"),
];

#[test]
fn a_response_is_no_larger_than_its_route_allows() {
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            let answer = BODIES.iter().find(|(target, _)| request.target.ends_with(target));
            conn.send(answer.expect("a known target").1);
            if request.target.ends_with("/close") {
                return;
            }
        }
    });
    let gateway = Gateway::start(&format!(
        "[[routes]]\npath = \"/11\"\nupstream = \"app\"\nmax_response_body = \"11B\"\n\
         [[routes]]\npath = \"/10\"\nupstream = \"app\"\npolicies = [\"small\"]\n\
         [policies.small]\nmax_response_body = \"10B\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        upstream.address()
    ));
    for (target, _) in BODIES {
        assert_eq!(gateway.client().get(&format!("/11{target}")).text(), "hello world");
        let mut second = Http2::connect(gateway.address());
        assert_eq!(second.get(&format!("/11{target}")).text(), "hello world");
    }
    // What is announced is refused.
    let mut client = gateway.client();
    let response = client.get("/10/length");
    assert_eq!((response.status, &*response.reason()), (502, "upstream.response_bytes"));
    assert_eq!(client.get("/11/length").status, 200, "the connection is kept");
    // What is not is cut off, and looks so; unless nothing was sent yet.
    for target in ["/10/chunked", "/10/close"] {
        let mut client = gateway.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
        match client.try_response("GET") {
            Ok(response) => assert_eq!(response.status, 502, "{target}"),
            Err(error) => assert!(!matches!(error, ReadError::Timeout), "{target}: {error:?}"),
        }
    }
    let metrics = gateway.admin().get("/metrics").text();
    assert!(
        metrics.contains("ringway_refusals_total{reason=\"upstream.response_bytes\"} 3\n"),
        "{metrics}"
    );
}
