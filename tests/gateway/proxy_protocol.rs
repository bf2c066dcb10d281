//! Connections that begin with a PROXY protocol header: whom upstreams are told of, and who is
//! believed.

use std::net::SocketAddr;

use crate::harness::{Gateway, Upstream, eventually};

const GET: &str = "GET /who HTTP/1.1\r\nHost: gw.test\r\n\r\n";

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: gw.test\r\n\r\n")
}

const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";

fn gateway(upstream: SocketAddr, rule: &str, trusted: &str) -> Gateway {
    Gateway::before(
        upstream,
        &format!(
            "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\nproxy_protocol = \"{rule}\"\n\
             [forwarding]\ntrusted_proxies = [\"{trusted}\"]\n\
             [timeouts]\nhead = \"300ms\"\n"
        ),
    )
}

fn failures(gateway: &Gateway, reason: &str) -> u64 {
    let name = format!("ringway_proxy_protocol_failures_total{{reason=\"{reason}\"}}");
    gateway.figure(&name).unwrap_or_default() as u64
}

/// Whom the upstream was told of by the request for `target`.
fn told(upstream: &Upstream, target: &str) -> String {
    upstream.request_for(target).field("x-forwarded-for").unwrap_or_default().to_owned()
}

fn binary() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
    let mut body = [0; 36];
    body[..16].copy_from_slice(&"2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
    bytes.extend(body);
    bytes
}

#[test]
fn upstreams_are_told_of_the_client_behind_the_proxy() {
    let upstream = Upstream::ok();
    let gateway = gateway(upstream.address(), "required", "127.0.0.0/8");
    let table: [(Vec<u8>, &str); 3] = [
        (LINE.into(), "192.0.2.7"),
        (binary(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ];
    for (n, (header, wanted)) in table.into_iter().enumerate() {
        let (first, again) = (format!("/{n}"), format!("/{n}/again"));
        let mut client = gateway.client();
        client.send([&*header, get(&first).as_bytes()].concat());
        assert_eq!(client.response().status, 200);
        // It is said once, for the whole connection.
        assert_eq!(client.get(&again).status, 200);
        assert_eq!([told(&upstream, &first), told(&upstream, &again)], [wanted; 2]);
    }
}

#[test]
fn a_header_may_come_in_any_pieces() {
    let upstream = Upstream::ok();
    let gateway = gateway(upstream.address(), "optional", "127.0.0.0/8");
    for header in [LINE.as_bytes().to_vec(), binary()] {
        for cut in [1, 3, 6, 12, header.len() - 1] {
            let mut client = gateway.client();
            client.send(&header[..cut]);
            let target = format!("/{}/{cut}", header.len());
            client.send([&header[cut..], get(&target).as_bytes()].concat());
            assert_eq!(client.response().status, 200, "cut at {cut}");
            assert_ne!(told(&upstream, &target), "127.0.0.1");
        }
    }
}

#[test]
fn optional_means_with_and_without() {
    let upstream = Upstream::ok();
    let gateway = gateway(upstream.address(), "optional", "127.0.0.0/8");
    let mut plain = gateway.client();
    assert_eq!((plain.get("/").status, &*told(&upstream, "/")), (200, "127.0.0.1"));
    // A method that begins as a header does.
    let mut similar = gateway.client();
    similar.send("PRO");
    similar.send("PFIND /similar HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(similar.response().status, 200);
    assert_eq!(upstream.request_for("/similar").method, "PROPFIND");
}

#[test]
fn what_is_required_and_wrong_ends_the_connection() {
    let upstream = Upstream::ok();
    let gateway = gateway(upstream.address(), "required", "127.0.0.0/8");
    let table = [
        (GET.to_owned(), "missing"),
        ("PROXY TCP4 a b c d\r\n".to_owned() + GET, "malformed"),
        ("PROXY TCP4 192.0.2.7".to_owned(), "timeout"),
    ];
    for (bytes, reason) in table {
        let mut client = gateway.client();
        client.send(bytes);
        client.expect_closed();
        eventually("it is counted", || failures(&gateway, reason) == 1);
    }
    let mut leaves = gateway.client();
    leaves.send("PROXY TCP4 192");
    drop(leaves);
    eventually("a close is counted", || failures(&gateway, "closed") == 1);
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_stranger_is_not_believed() {
    let upstream = Upstream::ok();
    let required = gateway(upstream.address(), "required", "192.0.2.0/24");
    let mut client = required.client();
    client.try_send([LINE, GET].concat());
    client.expect_closed();
    eventually("it is counted", || failures(&required, "untrusted") == 1);
    let optional = gateway(upstream.address(), "optional", "192.0.2.0/24");
    let mut client = optional.client();
    client.send([LINE, GET].concat());
    assert_eq!(client.response().status, 400, "to a stranger's connection it is a bad request");
    assert!(upstream.requests().is_empty());
}
