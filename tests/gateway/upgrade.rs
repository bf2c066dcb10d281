//! WebSocket and any other 101: the connection becomes a tunnel.

use std::{net::Shutdown, time::Duration};

use crate::harness::{Client, Gateway, Pattern, ReadError, Upstream};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: gw.test\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
pub(crate) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches, sends `early` in the same breath, then echoes until the end.
pub(crate) fn echo(early: &'static str) -> Upstream {
    Upstream::scripted(move |conn| {
        if conn.request_head().is_err() {
            return;
        }
        conn.send([SWITCH, early].concat());
        loop {
            let bytes = std::mem::take(&mut conn.reader.buf);
            conn.send(bytes);
            if !matches!(conn.reader.fill(), Ok(1..)) {
                return;
            }
        }
    })
}

#[track_caller]
pub(crate) fn switch(client: &mut Client) {
    client.send(ASK);
    let head = client.head();
    assert!(head.start_line.starts_with("HTTP/1.1 101 "), "{}", head.start_line);
    assert!(head.all("connection").iter().any(|c| c.eq_ignore_ascii_case("upgrade")));
    assert_eq!(head.field("upgrade"), Some("websocket"));
    assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[test]
fn a_tunnel_carries_everything_both_ways() {
    let upstream = echo("");
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    switch(&mut client);
    let request = upstream.recorded().concat();
    let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
    assert!(request.contains("\r\nupgrade: websocket\r\n"), "{request}");
    assert!(request.contains("\r\nsec-websocket-key: "), "{request}");
    let connection = request.lines().find(|l| l.starts_with("connection:")).expect("Connection");
    assert!(connection.contains("upgrade"), "{connection}");
    let (mut out, mut back) = (Pattern::default(), Pattern::default());
    for n in [1, 10, 1000, 60_000, 7, 60_000, 3] {
        client.send(out.take(n));
        back.check(&client.reader.exactly(n).unwrap());
    }
    // What looks like HTTP is not HTTP any more.
    client.send("GET /admin HTTP/1.1\r\n\r\n");
    assert_eq!(client.reader.exactly(23).unwrap(), b"GET /admin HTTP/1.1\r\n\r\n");
}

#[test]
fn early_bytes_are_not_lost() {
    let upstream = echo("hello from the upstream");
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send([ASK, "hello from the client"].concat());
    assert!(client.head().start_line.contains("101"));
    let both = client.reader.exactly(44).unwrap();
    assert_eq!(String::from_utf8(both).unwrap(), "hello from the upstreamhello from the client");
}

#[test]
fn many_bytes_at_once_both_ways() {
    let upstream = echo("");
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    switch(&mut client);
    let Client { mut reader } = client;
    let crate::harness::Socket::Tcp(stream) = &reader.socket else { unreachable!() };
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let mut pattern = Pattern::default();
        for _ in 0..64 {
            std::io::Write::write_all(&mut writer, &pattern.take(65_536)).unwrap();
        }
    });
    Pattern::default().check(&reader.exactly(64 * 65_536).unwrap());
    writing.join().unwrap();
}

#[test]
fn either_end_can_close() {
    // The client ends first: the upstream sees it and answers, the client still reads.
    let upstream = Upstream::scripted(|conn| {
        if conn.request_head().is_ok() {
            conn.send(SWITCH);
            conn.until_closed();
            conn.send("bye");
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    switch(&mut client);
    client.finish_sending();
    assert_eq!(client.reader.read_to_end().unwrap(), b"bye");
    upstream.wait_until_idle();
    // The upstream ends first.
    let upstream = Upstream::scripted(|conn| {
        if conn.request_head().is_ok() {
            conn.send([SWITCH, "bye"].concat());
            conn.shutdown(Shutdown::Both);
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    switch(&mut client);
    assert_eq!(client.reader.exactly(3).unwrap(), b"bye");
    client.expect_closed();
}

#[test]
fn a_vanished_client_frees_the_upstream() {
    let upstream = echo("");
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    switch(&mut client);
    client.reset();
    upstream.wait_until_idle();
}

#[test]
fn a_silent_tunnel_ends() {
    let upstream = echo("");
    let gateway = Gateway::before(upstream.address(), "[timeouts]\ntunnel_idle = \"1s\"\n");
    let mut client = gateway.client();
    switch(&mut client);
    // Traffic in one direction at a time keeps it alive beyond the timeout.
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(150));
        client.send("x");
        assert_eq!(client.reader.exactly(1).unwrap(), b"x");
    }
    client.expect_closed();
    upstream.wait_until_idle();
}

#[test]
fn a_refused_upgrade_is_an_ordinary_response() {
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            conn.answer(&request);
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send(ASK);
    assert_eq!(client.response().text(), "GET /chat");
    assert_eq!(client.get("/next").text(), "GET /next");
}

#[test]
fn a_route_may_forbid_upgrades() {
    let upstream = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "[[routes]]\nupstream = \"app\"\nupgrade = false\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        upstream.address()
    ));
    let mut client = gateway.client();
    client.send(ASK);
    assert_eq!(client.response().status, 200);
    let request = upstream.only_request();
    assert!(!request.head.has("upgrade") && !request.head.has("connection"), "{request:?}");
}

#[test]
fn a_forbidden_upgrade_that_comes_anyway_is_502() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request_head().is_ok() {
            conn.send(SWITCH);
            conn.until_closed();
        }
    });
    let gateway = Gateway::start(&format!(
        "[[routes]]\nupstream = \"app\"\nupgrade = false\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        upstream.address()
    ));
    let mut client = gateway.client();
    client.send(ASK);
    let response = client.response();
    assert_eq!((response.status, response.reason().as_str()), (502, "upstream.unasked_upgrade"));
    upstream.wait_until_idle();
}

#[test]
fn http10_cannot_upgrade() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send(ASK.replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(client.response().status, 200);
    assert!(!upstream.only_request().head.has("upgrade"));
}

#[test]
fn tunnels_leave_nothing_behind() {
    let upstream = echo("");
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.get_error();
    let before = gateway.open_fds();
    for _ in 0..20 {
        let mut client = gateway.client();
        switch(&mut client);
        client.send("x");
        assert_eq!(client.reader.exactly(1), Ok(vec![b'x']));
    }
    crate::harness::eventually("every tunnel is closed", || gateway.open_fds() <= before);
}

impl Client {
    /// Makes the gateway do something without an upstream, so that lazily opened things are open.
    fn get_error(&mut self) {
        self.send("GET http://[ HTTP/1.1\r\n\r\n");
        let answer: Result<_, ReadError> = self.try_response("GET");
        assert_eq!(answer.map(|r| r.status), Ok(400));
    }
}
