//! WebSockets in tunnels: frames counted, silent ends asked, ends passed on as what they are.

use std::{
    net::Shutdown,
    time::{Duration, Instant},
};

use crate::harness::{Client, Conn, Gateway, ReadError, Upstream, eventually};
use crate::upgrade::{SWITCH, switch};

const KEY: [u8; 4] = [1, 2, 3, 4];

/// A frame of an upstream.
fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, payload.len() as u8], payload].concat()
}

/// A frame of a client.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = plain(first, &[]);
    bytes[1] = 0x80 | payload.len() as u8;
    bytes.extend(KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

const CLOSE: [u8; 2] = 1000u16.to_be_bytes();

/// Switches, then does what the script says.
fn upstream(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Upstream {
    Upstream::scripted(move |conn| {
        if conn.request_head().is_ok() {
            conn.send(SWITCH);
            script(conn);
        }
    })
}

/// Switches, then only keeps what comes.
fn silent() -> Upstream {
    upstream(Conn::until_closed)
}

fn gateway(upstream: &Upstream, timeouts: &str) -> Gateway {
    Gateway::before(upstream.address(), &format!("[timeouts]\n{timeouts}\n"))
}

fn switched(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    switch(&mut client);
    client
}

#[track_caller]
fn counted(gateway: &Gateway, figures: &[(&str, u64)]) {
    for (name, wanted) in figures {
        eventually(&format!("{name} is {wanted}"), || {
            gateway.figure(name).unwrap_or_default() as u64 == *wanted
        });
    }
}

/// The payload of a client's frame of one kind.
#[track_caller]
fn frame_of(conn: &mut Conn, first: u8) -> Vec<u8> {
    let head = conn.reader.exactly(6).unwrap();
    assert_eq!((head[0], head[1] & 0x80), (first, 0x80), "{head:?}");
    let payload = conn.reader.exactly(usize::from(head[1] & 0x7f)).unwrap();
    payload.iter().zip(head[2..].iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}

/// Everything that the upstream got on its one connection behind the request.
fn tape(upstream: &Upstream) -> Vec<u8> {
    let bytes = upstream.recorded().concat();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |n| n + 4);
    bytes[end..].to_vec()
}

#[test]
fn frames_and_messages_are_counted_by_route_and_sender() {
    let upstream = upstream(|conn| {
        conn.send([plain(0x82, b"four"), plain(0x8a, b"")].concat());
        // The Close of the client comes last.
        while !conn.reader.buf.ends_with(&masked(0x88, &CLOSE)) && conn.reader.fill().is_ok() {}
        conn.send(plain(0x88, &3001u16.to_be_bytes()));
    });
    let gateway = gateway(&upstream, "");
    let mut client = switched(&gateway);
    let sent = [
        masked(0x01, b"in "),
        masked(0x89, b"ping"),
        masked(0x80, b"two"),
        masked(0x82, &[7; 100]),
        masked(0x88, &CLOSE),
    ];
    for byte in sent.concat() {
        client.send([byte]);
    }
    let wanted = [plain(0x82, b"four"), plain(0x8a, b""), plain(0x88, &3001u16.to_be_bytes())];
    assert_eq!(client.reader.read_to_end().unwrap(), wanted.concat());
    assert_eq!(tape(&upstream), sent.concat());
    drop(client);
    let route = "route=\"/\"";
    counted(
        &gateway,
        &[
            (&format!("ringway_websocket_frames_total{{{route},from=\"client\"}}"), 5),
            (&format!("ringway_websocket_frames_total{{{route},from=\"upstream\"}}"), 3),
            (&format!("ringway_websocket_messages_total{{{route},from=\"client\"}}"), 2),
            (&format!("ringway_websocket_messages_total{{{route},from=\"upstream\"}}"), 1),
            (&format!("ringway_websocket_payload_bytes_total{{{route},from=\"client\"}}"), 112),
            (&format!("ringway_websocket_payload_bytes_total{{{route},from=\"upstream\"}}"), 6),
            ("ringway_websocket_closes_total{from=\"client\",code=\"1000\"}", 1),
            ("ringway_websocket_closes_total{from=\"upstream\",code=\"3xxx\"}", 1),
            ("ringway_tunnel_ends_total{reason=\"closed\"}", 1),
        ],
    );
}

#[test]
fn silent_ends_are_asked_and_stay_while_they_answer() {
    let upstream = upstream(|conn| {
        for _ in 0..3 {
            // The ping of the gateway, and the client's pong to its own.
            let mut frames = Vec::new();
            while frames.len() < 2 {
                let head = conn.reader.exactly(6).unwrap();
                assert_eq!(head[1], 0x87, "masked");
                let payload = conn.reader.exactly(7).unwrap();
                let key = head[2..].iter().cycle();
                let payload: Vec<u8> = payload.iter().zip(key).map(|(b, k)| b ^ k).collect();
                assert_eq!(payload, b"ringway");
                if head[0] == 0x89 {
                    conn.send(plain(0x8a, &payload));
                }
                frames.push(head[0]);
            }
            frames.sort();
            assert_eq!(frames, [0x89, 0x8a]);
        }
        conn.send(plain(0x81, b"done"));
        conn.until_closed();
    });
    let gateway = gateway(&upstream, "websocket_ping = \"1s\"\ntunnel_idle = \"20s\"");
    let mut client = switched(&gateway);
    loop {
        let head = client.reader.exactly(2).unwrap();
        let payload = client.reader.exactly(usize::from(head[1])).unwrap();
        match head[0] {
            0x89 => client.send(masked(0x8a, &payload)),
            0x8a => assert_eq!(payload, b"ringway"),
            first => {
                assert_eq!((first, &*payload), (0x81, &b"done"[..]));
                break;
            }
        }
    }
    let pings = |to| gateway.figure(&format!("ringway_websocket_pings_total{{to=\"{to}\"}}"));
    assert!(pings("client") >= Some(2.0) && pings("upstream") >= Some(3.0));
}

#[test]
fn an_end_that_does_not_answer_is_gone() {
    let upstream = silent();
    let gateway = gateway(&upstream, "websocket_ping = \"200ms\"");
    let mut client = switched(&gateway);
    assert_eq!(client.reader.exactly(9).unwrap(), plain(0x89, b"ringway"));
    client.expect_clean_close();
    upstream.wait_until_idle();
    counted(&gateway, &[("ringway_tunnel_ends_total{reason=\"unanswered\"}", 1)]);
    let tape = tape(&upstream);
    assert_eq!((tape.len(), tape[0], tape[1]), (13, 0x89, 0x87), "one ping: {tape:?}");
}

#[test]
fn a_route_may_ask_later_or_not_at_all() {
    let upstream = silent();
    let (route, app) = ("[[routes]]\nupstream = \"app\"\n", "[upstreams.app]\nendpoints");
    let gateway = Gateway::start(&format!(
        "{route}path = \"/later\"\nwebsocket_ping = \"600ms\"\n\
         {route}path = \"/never\"\nwebsocket_ping = \"0\"\n\
         {route}path = \"/\"\n{app} = [\"{}\"]\n\
         [timeouts]\nwebsocket_ping = \"100ms\"\ntunnel_idle = \"1500ms\"\n",
        upstream.address()
    ));
    // One that does not answer is gone; one that is not asked, when the tunnel is idle too long.
    let ping = plain(0x89, b"ringway");
    for (path, wanted, least_ms) in
        [("/later", &*ping, 1200), ("/", &ping, 200), ("/never", b"", 1500)]
    {
        let (mut client, begun) = (gateway.client(), Instant::now());
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        ));
        assert!(client.head().start_line.contains("101"));
        assert_eq!(client.reader.read_to_end().unwrap(), wanted, "{path}");
        // Less what the coarse clock may be behind.
        assert!(begun.elapsed() > Duration::from_millis(least_ms - 50), "{path}");
    }
    let (unanswered, idle) = (2, 1);
    let ends = |reason: &str| format!("ringway_tunnel_ends_total{{reason=\"{reason}\"}}");
    counted(&gateway, &[(&ends("unanswered"), unanswered), (&ends("idle"), idle)]);
}

#[test]
fn a_ping_waits_for_the_end_of_a_frame() {
    let upstream = upstream(|conn| {
        conn.send(&plain(0x82, &[7; 100])[..50]);
        // It is asked while its frame stands still, and answers.
        for _ in 0..3 {
            assert_eq!(frame_of(conn, 0x89), b"ringway");
            conn.send([]);
            conn.send(&[7; 10][..]);
        }
        conn.send(&[7; 22][..]);
        conn.until_closed();
    });
    let gateway = gateway(&upstream, "websocket_ping = \"400ms\"\ntunnel_idle = \"20s\"");
    let mut client = switched(&gateway);
    assert_eq!(client.reader.exactly(102).unwrap(), plain(0x82, &[7; 100]), "nothing inside");
    assert_eq!(client.reader.exactly(9).unwrap(), plain(0x89, b"ringway"));
}

#[test]
fn nobody_is_asked_after_a_close_or_a_broken_frame_or_by_another_protocol() {
    let closes = upstream(|conn| {
        conn.send(plain(0x88, &CLOSE));
        conn.until_closed();
    });
    let breaks = upstream(|conn| {
        conn.send(b"\x82\x7e\x00\x01x");
        conn.until_closed();
    });
    let other = Upstream::scripted(|conn| {
        if conn.request_head().is_ok() {
            conn.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            );
            conn.until_closed();
        }
    });
    let table = [(closes, &b"\x88\x02\x03\xe8"[..]), (breaks, b"\x82\x7e\x00\x01x"), (other, b"")];
    for (upstream, wanted) in table {
        let gateway = gateway(&upstream, "websocket_ping = \"100ms\"\ntunnel_idle = \"800ms\"");
        let mut client = gateway.client();
        client.send(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x, websocket\r\n\r\n",
        );
        assert!(client.head().start_line.contains("101"));
        assert_eq!(client.reader.read_to_end().unwrap(), wanted);
        counted(&gateway, &[("ringway_websocket_pings_total{to=\"client\"}", 0)]);
    }
}

#[test]
fn what_breaks_the_framing_passes_and_is_no_longer_counted() {
    let upstream = crate::upgrade::echo("");
    let gateway = gateway(&upstream, "");
    let mut client = switched(&gateway);
    let sent = [masked(0x81, b"fine"), plain(0x81, b"not masked"), masked(0x81, b"more")].concat();
    client.send(&sent);
    assert_eq!(client.reader.exactly(sent.len()).unwrap(), sent);
    let frames = |from| format!("ringway_websocket_frames_total{{route=\"/\",from=\"{from}\"}}");
    counted(
        &gateway,
        &[
            (&frames("client"), 1),
            (&frames("upstream"), 0),
            ("ringway_websocket_broken_total{from=\"client\"}", 1),
            // Its echo is masked, which frames of a server are not.
            ("ringway_websocket_broken_total{from=\"upstream\"}", 1),
        ],
    );
}

#[test]
fn a_tunnel_lasts_no_longer_than_its_lifetime() {
    let upstream = crate::upgrade::echo("");
    let gateway = gateway(&upstream, "tunnel_lifetime = \"600ms\"");
    let mut client = switched(&gateway);
    let frame = masked(0x82, b"x");
    let mut rounds = 0;
    while client.try_send(&frame) && client.reader.exactly(frame.len()).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
        rounds += 1;
    }
    assert!(rounds > 2, "{rounds}");
    upstream.wait_until_idle();
    counted(&gateway, &[("ringway_tunnel_ends_total{reason=\"lifetime\"}", 1)]);
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    let resets = upstream(|conn| {
        let _ = conn.reader.exactly(1);
        conn.reset();
    });
    let by_upstream = gateway(&resets, "");
    let mut client = switched(&by_upstream);
    client.send("x");
    assert_eq!(client.reader.fill(), Err(ReadError::Reset));
    counted(&by_upstream, &[("ringway_tunnel_ends_total{reason=\"upstream\"}", 1)]);
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let waits = upstream(move |conn| tell.lock().unwrap().send(conn.reader.fill()).unwrap());
    let by_client = gateway(&waits, "");
    switched(&by_client).reset();
    assert_eq!(told.recv().unwrap(), Err(ReadError::Reset));
    counted(&by_client, &[("ringway_tunnel_ends_total{reason=\"client\"}", 1)]);
}

#[test]
fn a_reset_after_a_close_is_an_end_like_any_other() {
    let upstream = upstream(|conn| {
        let _ = conn.reader.exactly(8);
        conn.send(plain(0x88, &CLOSE));
        // The client has all of it: what it says then came behind.
        let _ = conn.reader.exactly(1);
        conn.reset();
    });
    let gateway = gateway(&upstream, "");
    let mut client = switched(&gateway);
    client.send(masked(0x88, &CLOSE));
    assert_eq!(client.reader.exactly(4).unwrap(), plain(0x88, &CLOSE));
    client.send("x");
    client.expect_clean_close();
    counted(&gateway, &[("ringway_tunnel_ends_total{reason=\"closed\"}", 1)]);
}

#[test]
fn an_end_that_stays_after_both_have_closed_is_not_waited_for() {
    let upstream = upstream(|conn| {
        let _ = conn.reader.exactly(8);
        conn.send(plain(0x88, &CLOSE));
        conn.shutdown(Shutdown::Write);
        conn.until_closed();
    });
    let gateway = gateway(&upstream, "linger = \"300ms\"");
    let mut client = switched(&gateway);
    client.send(masked(0x88, &CLOSE));
    assert_eq!(client.reader.read_to_end().unwrap(), plain(0x88, &CLOSE));
    upstream.wait_until_idle();
    counted(&gateway, &[("ringway_tunnel_ends_total{reason=\"closed\"}", 1)]);
}
