//! The smallest thing a gateway does, and the harness's own parts.

use crate::harness::{Client, Gateway, Pattern, Server, Upstream};

#[test]
fn a_request_goes_through() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let response = gateway.client().get("/hello?x=1");
    assert_eq!((response.status, response.text().as_str()), (200, "GET /hello?x=1"));
    assert_eq!(upstream.only_request().target, "/hello?x=1");
}

#[test]
fn the_scripted_upstream_keeps_what_it_receives() {
    let upstream = Upstream::ok();
    let mut client = Client::connect(upstream.address());
    assert_eq!(client.get("/a").text(), "GET /a");
    assert_eq!(client.get("/b").text(), "GET /b");
    let targets: Vec<String> = upstream.requests().into_iter().map(|r| r.target).collect();
    assert_eq!((targets, upstream.connections()), (vec!["/a".into(), "/b".into()], 1));
}

#[test]
fn the_server_sends_and_checks_the_pattern() {
    let server = Server::start();
    let mut client = Client::connect(server.address());
    for path in ["/bytes/100000", "/chunked/100000"] {
        let body = client.get(path).body;
        assert_eq!(body.len(), 100_000);
        Pattern::default().check(&body);
    }
    let body = Pattern::default().take(1000);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    client.send(&body);
    assert_eq!(client.response().text(), "1000 intact");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n\x01\x02");
    assert_eq!(client.response().text(), "2 DAMAGED");
}
