//! Endpoints written frame by frame: those that refuse, say goodbye, break rules, or die.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use super::{H2C, gateway};
use crate::harness::{Client, Conn, Gateway, ReadError, Upstream, eventually};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200` of HPACK's static table.
const OK: &[u8] = &[0x88];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Reads the preface and says that anything goes.
fn greet(conn: &mut Conn) -> bool {
    let preface = conn.reader.exactly(24);
    preface.is_ok_and(|bytes| bytes.starts_with(b"PRI * HTTP/2.0"))
        && conn.send(frame(SETTINGS, 0, 0, b""))
}

/// The next frame that is not about the connection: kind, flags, stream, payload.
fn next(conn: &mut Conn, answers_pings: bool) -> Option<(u8, u8, u32, Vec<u8>)> {
    loop {
        let head = conn.reader.exactly(9).ok()?;
        let bytes = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = conn.reader.exactly(bytes).ok()?;
        match kind {
            SETTINGS if flags == 0 => {
                conn.send(frame(SETTINGS, 1, 0, b""));
            }
            PING if answers_pings => {
                conn.send(frame(PING, 1, 0, &payload));
            }
            DATA | HEADERS | RESET => return Some((kind, flags, stream, payload)),
            _ => {}
        }
    }
}

/// The stream of the next request, after its whole body.
fn request(conn: &mut Conn) -> Option<u32> {
    loop {
        let (kind, flags, stream, _) = next(conn, true)?;
        if kind != RESET && flags & END_STREAM != 0 {
            return Some(stream);
        }
    }
}

fn answer(conn: &mut Conn, stream: u32, text: &str) {
    conn.send(frame(HEADERS, END_HEADERS, stream, OK));
    conn.send(frame(DATA, END_STREAM, stream, text.as_bytes()));
}

fn goaway(conn: &mut Conn, last: u32) {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend([0; 4]);
    conn.send(frame(GOAWAY, 0, 0, &payload));
}

/// The first connection runs `first` for its second request; everything else is answered.
fn once(first: impl Fn(&mut Conn, u32) + Send + Sync + 'static) -> Upstream {
    Upstream::scripted(move |conn| {
        let mut count = 0;
        if !greet(conn) {
            return;
        }
        while let Some(stream) = request(conn) {
            count += 1;
            match (conn.index, count) {
                (0, 2) => first(conn, stream),
                _ => answer(conn, stream, &format!("connection {}", conn.index)),
            }
        }
    })
}

fn post(client: &mut Client) -> String {
    client.send("POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 4\r\n\r\nbody");
    client.response().text()
}

#[test]
fn what_a_goaway_leaves_out_is_sent_again_whatever_it_is() {
    let upstream = once(|conn, stream| goaway(conn, stream - 2));
    let gateway = gateway(upstream.address(), H2C);
    let mut client = gateway.client();
    assert_eq!(post(&mut client), "connection 0");
    assert_eq!(post(&mut client), "connection 1");
    assert_eq!(post(&mut client), "connection 1");
    eventually("the first one ends", || upstream.open() == 1);
}

#[test]
fn what_a_goaway_includes_is_finished_and_nothing_else_begun() {
    let upstream = once(|conn, stream| {
        goaway(conn, stream);
        answer(conn, stream, "finished");
    });
    let gateway = gateway(upstream.address(), H2C);
    let mut client = gateway.client();
    let got: Vec<String> = (0..3).map(|_| post(&mut client)).collect();
    assert_eq!(got, ["connection 0", "finished", "connection 1"]);
    eventually("the first one ends", || upstream.open() == 1);
}

#[test]
fn a_refused_stream_is_sent_again_on_another_connection() {
    let upstream = once(|conn, stream| {
        // REFUSED_STREAM
        conn.send(frame(RESET, 0, stream, &7u32.to_be_bytes()));
    });
    let gateway = gateway(upstream.address(), H2C);
    let mut client = gateway.client();
    assert_eq!(post(&mut client), "connection 0");
    assert_eq!(post(&mut client), "connection 1");
    assert!(gateway.admin().get("/metrics").text().contains("ringway_upstream_retries_total"));
}

#[test]
fn tries_are_bounded() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let upstream = Upstream::scripted(move |conn| {
        greet(conn);
        while let Some(stream) = request(conn) {
            count.fetch_add(1, SeqCst);
            conn.send(frame(RESET, 0, stream, &7u32.to_be_bytes()));
        }
    });
    let gateway = gateway(upstream.address(), H2C);
    let response = gateway.client().get("/");
    assert_eq!((response.status, response.reason().as_str()), (502, "upstream.closed"));
    assert_eq!(refused.load(SeqCst), 2);
}

#[test]
fn a_connection_that_dies_is_replaced_for_what_may_be_sent_twice() {
    let upstream = once(|conn, _| conn.shutdown(std::net::Shutdown::Both));
    let gateway = gateway(upstream.address(), H2C);
    let mut client = gateway.client();
    assert_eq!(client.get("/").text(), "connection 0");
    assert_eq!(client.get("/").text(), "connection 1");
    let upstream = once(|conn, _| conn.shutdown(std::net::Shutdown::Both));
    let gateway = super::gateway(upstream.address(), H2C);
    let mut client = gateway.client();
    assert_eq!(post(&mut client), "connection 0");
    client.send("POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 4\r\n\r\nbody");
    let response = client.response();
    assert_eq!((response.status, response.reason().as_str()), (502, "upstream.closed"));
}

#[test]
fn a_connection_that_gives_no_sign_of_life_is_given_up() {
    let upstream = Upstream::scripted(|conn| {
        greet(conn);
        while next(conn, false).is_some() {}
    });
    let keys = format!("{H2C}\nhttp2 = {{ ping_interval = \"200ms\", ping_timeout = \"200ms\" }}");
    let gateway = gateway(upstream.address(), &keys);
    let begun = Instant::now();
    let response = gateway.client().get("/");
    assert_eq!((response.status, response.reason().as_str()), (502, "upstream.closed"));
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    eventually("it is closed", || upstream.open() == 0);
}

#[test]
fn a_connection_that_answers_pings_lives_on() {
    let upstream = Upstream::scripted(|conn| {
        greet(conn);
        let Some(stream) = request(conn) else { return };
        let mut pings = 0;
        while pings < 5 {
            let Ok(head) = conn.reader.exactly(9) else { return };
            let payload = conn.reader.exactly(usize::from(head[2])).unwrap();
            if head[3] == PING && head[4] == 0 {
                pings += 1;
                conn.send(frame(PING, 1, 0, &payload));
            }
        }
        answer(conn, stream, "alive");
        conn.until_closed();
    });
    let keys = format!("{H2C}\nhttp2 = {{ ping_interval = \"100ms\", ping_timeout = \"1s\" }}");
    let gateway = gateway(upstream.address(), &keys);
    assert_eq!(gateway.client().get("/").text(), "alive");
}

#[test]
fn an_endpoint_that_never_greets() {
    let upstream = Upstream::scripted(|conn| conn.until_closed());
    let gateway = gateway(upstream.address(), &format!("{H2C}\nconnect_timeout = \"300ms\""));
    let response = gateway.client().get("/");
    assert_eq!((response.status, response.reason().as_str()), (504, "upstream.connect_timeout"));
    eventually("it is closed", || upstream.open() == 0);
}

/// A literal field without indexing.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0, name.len() as u8], name, &[value.len() as u8], value].concat()
}

fn refuses(response: Vec<Vec<u8>>) {
    let shown = format!("{response:?}");
    let upstream = Upstream::scripted(move |conn| {
        greet(conn);
        while let Some(stream) = request(conn) {
            for part in &response {
                let mut part = part.clone();
                part[5..9].copy_from_slice(&stream.to_be_bytes());
                conn.send(part);
            }
        }
    });
    let gateway: Gateway = gateway(upstream.address(), H2C);
    let response = gateway.client().get("/");
    let found = (response.status, response.reason());
    assert_eq!(found, (502, "upstream.invalid_response".to_owned()), "{shown}");
}

#[test]
fn malformed_responses_are_refused() {
    let fields: [(&[u8], &[u8]); 13] = [
        (b"connection", b"close"),
        (b"keep-alive", b"5"),
        (b"proxy-connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"Upper", b"case"),
        (b"sp ace", b"x"),
        (b"x", b" padded"),
        (b"x", b"padded\t"),
        (b"x", b"a\r\nSet-Cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\0b"),
        (b"content-length", b"+5"),
    ];
    for (name, value) in fields {
        let block = [OK, &literal(name, value)].concat();
        refuses(vec![frame(HEADERS, END_HEADERS | END_STREAM, 0, &block)]);
    }
}

#[test]
fn other_malformed_responses_are_refused() {
    let headers = |flags, block: &[u8]| frame(HEADERS, END_HEADERS | flags, 0, block);
    let status = |text: &[u8]| literal(b":status", text);
    // No status; 101; two statuses; a length that is not the body's; two lengths; data first.
    refuses(vec![headers(END_STREAM, &literal(b"x", b"y"))]);
    refuses(vec![headers(END_STREAM, &status(b"101"))]);
    refuses(vec![headers(END_STREAM, &[status(b"200"), status(b"200")].concat())]);
    refuses(vec![headers(END_STREAM, &[OK, &literal(b"content-length", b"5")].concat())]);
    let lengths =
        [OK, &literal(b"content-length", b"5"), &literal(b"content-length", b"5")].concat();
    refuses(vec![headers(0, &lengths), frame(DATA, END_STREAM, 0, b"12345")]);
    refuses(vec![frame(DATA, END_STREAM, 0, b"12345")]);
}

#[test]
fn a_body_shorter_or_longer_than_announced_is_cut() {
    for body in [&b"1234"[..], b"123456"] {
        let upstream = Upstream::scripted(move |conn| {
            greet(conn);
            while let Some(stream) = request(conn) {
                let block = [OK, &literal(b"content-length", b"5")].concat();
                conn.send(frame(HEADERS, END_HEADERS, stream, &block));
                conn.send(frame(DATA, END_STREAM, stream, body));
            }
        });
        let gateway = gateway(upstream.address(), H2C);
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        match client.try_response("GET") {
            Err(_) => {}
            Ok(response) => assert_eq!(response.reason(), "upstream.invalid_response"),
        }
    }
}

/// What an endpoint sends over the life of a connection with one request.
fn whole(stream: u32) -> Vec<u8> {
    let block = [OK, &literal(b"content-length", b"5"), &literal(b"x", b"y")].concat();
    let hints = literal(b":status", b"103");
    [
        frame(HEADERS, END_HEADERS, stream, &hints),
        frame(HEADERS, END_HEADERS, stream, &block),
        frame(DATA, 0, stream, b"12"),
        frame(PING, 0, 0, b"whatever"),
        frame(DATA, END_STREAM, stream, b"345"),
    ]
    .concat()
}

/// Each request meets a connection whose bytes `damage` has changed, and is answered or cut.
fn survives(
    count: usize,
    least: usize,
    damage: impl Fn(usize, &mut Vec<u8>) + Send + Sync + 'static,
) {
    let upstream = Upstream::scripted(move |conn| {
        greet(conn);
        let Some(stream) = request(conn) else { return };
        let mut bytes = whole(stream);
        damage(conn.index, &mut bytes);
        conn.send(bytes);
        conn.shutdown(std::net::Shutdown::Write);
        conn.until_closed();
    });
    let keys = format!("{H2C}\nfirst_byte_timeout = \"1s\"\nidle_timeout = \"1s\"");
    let gateway = gateway(upstream.address(), &keys);
    gateway.admin().get("/metrics");
    let fds = gateway.open_fds();
    let mut whole = 0;
    for _ in 0..count {
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 4\r\n\r\nbody");
        let mut response = client.try_response("POST");
        while response.as_ref().is_ok_and(|response| response.status == 103) {
            response = client.try_response("POST");
        }
        assert_ne!(response, Err(ReadError::Timeout));
        if let Ok(response) = response {
            assert!([200, 502].contains(&response.status), "{response:?}");
            whole += usize::from(response.status == 200 && response.text() == "12345");
        }
    }
    assert!(whole > least, "{whole} were whole");
    eventually("all is closed", || upstream.open() == 0 && gateway.open_fds() <= fds);
    assert!(!gateway.log().contains("panic"), "{}", gateway.log());
}

#[test]
fn a_connection_that_ends_anywhere() {
    // Some more than there are places: a request may meet a connection that is about to end.
    let count = whole(1).len() + 30;
    survives(count, 20, |index, bytes| bytes.truncate(index));
}

#[test]
fn one_damaged_byte_anywhere() {
    let count = whole(1).len();
    survives(count, 3, move |index, bytes| {
        // Of lengths the low byte, so that it need not be waited for.
        let mut at = index % bytes.len();
        while bytes[at..].starts_with(&[0, 0]) && at + 2 < bytes.len() {
            at += 1;
        }
        bytes[at] = bytes[at].wrapping_add(1 + (index as u8) * 7);
    });
}
