//! Floods: each ends the connection, with its code and its counted reason, while others are served
//! and memory stays within bounds.

use std::{
    net::Shutdown,
    time::{Duration, Instant},
};

use super::{all_failures, connect, failures, open_connections};
use crate::harness::{
    Gateway, Http2, PATIENCE, ReadError, Server, Socket, Upstream, eventually,
    http2::{block, code, flag, frame, headers, kind, pseudo, reset, setting, settings, update},
};

/// What a connection sends again and again, and how that must end.
struct Flood {
    name: &'static str,
    /// The `n`th piece.
    piece: fn(u32) -> Vec<u8>,
    code: u32,
    /// Any of these reasons, separated by `|`.
    reasons: &'static str,
}

fn get(n: u32) -> Vec<u8> {
    headers(2 * n + 1, &block(&pseudo("GET", "/waits")), true)
}

fn open(n: u32) -> Vec<u8> {
    headers(2 * n + 1, &block(&pseudo("POST", "/waits")), false)
}

/// Frames on a stream that the first piece opens.
fn on_one(n: u32, piece: Vec<u8>) -> Vec<u8> {
    if n == 0 { [open(0), piece].concat() } else { piece }
}

/// A field that is remembered, then named by one byte again and again (RFC 7541 §7.3).
fn bomb(n: u32) -> Vec<u8> {
    let mut bytes = block(&pseudo("GET", "/waits"));
    if n == 0 {
        let value = [b'x'; 4000];
        bytes.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        bytes.extend(value);
    }
    bytes.extend([0xbe; 16_000]);
    headers(2 * n + 1, &bytes, true)
}

const CALM: u32 = code::ENHANCE_YOUR_CALM;

const FLOODS: [Flood; 17] = [
    Flood {
        name: "rapid reset",
        piece: |n| [get(n), reset(2 * n + 1, code::CANCEL)].concat(),
        code: CALM,
        reasons: "resets|excessive",
    },
    Flood {
        name: "rapid reset of uploads",
        piece: |n| [open(n), reset(2 * n + 1, code::CANCEL)].concat(),
        code: CALM,
        reasons: "resets|excessive",
    },
    Flood {
        name: "made to reset: WINDOW_UPDATE of 0",
        piece: |n| [get(n), update(2 * n + 1, 0)].concat(),
        // The codec ends the connection at the first one (§6.9 asks for the stream).
        code: code::PROTOCOL_ERROR,
        reasons: "protocol",
    },
    Flood {
        name: "made to reset: window overflow",
        piece: |n| [get(n), update(2 * n + 1, u32::MAX >> 1)].concat(),
        code: CALM,
        reasons: "excessive|control_frames",
    },
    Flood {
        name: "made to reset: DATA behind the end",
        piece: |n| [get(n), frame(kind::DATA, 0, 2 * n + 1, "x")].concat(),
        code: code::PROTOCOL_ERROR,
        reasons: "protocol",
    },
    Flood {
        name: "made to reset: malformed heads",
        piece: |n| headers(2 * n + 1, &block(&[(":method", "GET")]), true),
        code: CALM,
        reasons: "excessive|control_frames",
    },
    Flood {
        name: "made to reset: a length that is not kept",
        piece: |n| {
            let fields = [&pseudo("POST", "/waits")[..], &[("content-length", "1")]].concat();
            let head = headers(2 * n + 1, &block(&fields), false);
            [head, frame(kind::DATA, flag::END_STREAM, 2 * n + 1, "four")].concat()
        },
        code: CALM,
        reasons: "excessive|control_frames",
    },
    Flood {
        name: "CONTINUATION without an end",
        piece: |n| match n {
            0 => frame(kind::HEADERS, 0, 1, block(&pseudo("GET", "/"))),
            _ => frame(kind::CONTINUATION, 0, 1, block(&[("x-more", "x".repeat(1000))])),
        },
        code: CALM,
        reasons: "excessive|control_frames",
    },
    Flood {
        name: "CONTINUATION that is empty",
        piece: |n| match n {
            0 => frame(kind::HEADERS, 0, 1, block(&pseudo("GET", "/"))),
            _ => frame(kind::CONTINUATION, 0, 1, ""),
        },
        code: CALM,
        reasons: "excessive|control_frames",
    },
    Flood {
        name: "PING",
        piece: |_| frame(kind::PING, 0, 0, [1; 8]),
        code: CALM,
        reasons: "control_frames",
    },
    Flood {
        name: "SETTINGS",
        piece: |_| settings(&[(setting::WINDOW, 65_535)]),
        code: CALM,
        reasons: "control_frames",
    },
    Flood {
        name: "PRIORITY",
        piece: |n| frame(kind::PRIORITY, 0, 2 * n + 1, [0, 0, 0, 0, 1]),
        code: CALM,
        reasons: "control_frames",
    },
    Flood {
        name: "WINDOW_UPDATE",
        piece: |n| on_one(n, update(1, 1)),
        code: CALM,
        reasons: "control_frames",
    },
    Flood {
        name: "empty DATA",
        piece: |n| on_one(n, frame(kind::DATA, 0, 1, "")),
        code: CALM,
        reasons: "control_frames|excessive",
    },
    Flood {
        name: "padding alone",
        piece: |n| on_one(n, frame(kind::DATA, 8, 1, [3, 0, 0, 0])),
        code: CALM,
        reasons: "control_frames|excessive",
    },
    Flood { name: "HPACK bomb", piece: bomb, code: CALM, reasons: "excessive" },
    Flood {
        name: "unknown frames",
        piece: |_| frame(99, 0, 0, ""),
        code: CALM,
        reasons: "control_frames",
    },
];

fn hanging() -> Upstream {
    Upstream::scripted(|conn| {
        while let Ok(head) = conn.request_head() {
            if head.target == "/waits" {
                return conn.until_closed();
            }
            conn.answer(&head);
        }
    })
}

/// Sends pieces until the connection ends. Answers how many were taken.
fn flood(client: &mut Http2, flood: &Flood, at_once: u32) -> u32 {
    let mut sent = 0;
    let started = Instant::now();
    loop {
        let pieces: Vec<u8> = (sent..sent + at_once).flat_map(flood.piece).collect();
        if !client.try_send(&pieces) {
            return sent;
        }
        sent += at_once;
        assert!(started.elapsed() < PATIENCE, "{}: {sent} pieces are taken", flood.name);
        // Nothing is waited for: what has come is looked at, so that the gateway may go on.
        if at_once == 1 && sent % 8 == 0 || at_once > 1 {
            client.reader.socket.set_read_timeout(Duration::from_millis(1));
            loop {
                match client.next() {
                    Ok(_) => {}
                    Err(ReadError::Timeout) => break,
                    Err(_) => return sent,
                }
            }
        }
        if client.goaway.is_some() {
            return sent;
        }
    }
}

fn counted(gateway: &Gateway, reasons: &str) -> u64 {
    reasons.split('|').map(|reason| failures(gateway, reason)).sum()
}

#[track_caller]
fn ends(gateway: &Gateway, one: &Flood, connections: usize, at_once: u32) {
    let before = counted(gateway, one.reasons);
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut client = connect(gateway);
                client.opens_windows = false;
                flood(&mut client, one, at_once);
                client.reader.socket.set_read_timeout(PATIENCE);
                let end = if client.goaway.is_some() { client.goaway } else { client.end() };
                assert_eq!(end.map(|end| end.code), Some(one.code), "{}", one.name);
            });
        }
    });
    let wanted = before + connections as u64;
    let found = || counted(gateway, one.reasons);
    eventually(&format!("{} is counted", one.name), || found() >= wanted);
    assert_eq!(found(), wanted, "{}: {:?}", one.name, all_failures(gateway));
    assert_eq!(connect(gateway).get("/next").status, 200, "after {}", one.name);
}

#[test]
fn floods_end_the_connection() {
    let upstream = hanging();
    let gateway = Gateway::before(upstream.address(), "");
    for one in &FLOODS {
        ends(&gateway, one, 1, 50);
        // One for each worker.
        upstream.wait_until_idle_but(2);
    }
}

#[test]
fn floods_one_at_a_time_end_the_connection() {
    let upstream = hanging();
    let tight = "[http2]\nresets_per_second = 20\ncontrol_frames_per_second = 100\n";
    let gateway = Gateway::before(upstream.address(), tight);
    for one in FLOODS.iter().filter(|one| !one.name.contains("bomb")) {
        ends(&gateway, one, 1, 1);
    }
}

#[test]
fn floods_of_several_connections_end_and_leave_memory_as_it_was() {
    let upstream = hanging();
    let gateway = Gateway::before(upstream.address(), "");
    for one in &FLOODS {
        ends(&gateway, one, 4, 50);
    }
    let before = gateway.anonymous_bytes();
    for one in &FLOODS {
        ends(&gateway, one, 8, 50);
    }
    let grown = gateway.anonymous_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    eventually("nothing is left of them", || open_connections(&gateway) == 0);
    // A request that was given up has closed its upstream connection.
    upstream.wait_until_idle_but(2);
}

/// An upstream connection for a request that nobody wants costs more than asking for it.
#[test]
fn who_gives_requests_up_waits_with_the_next_one() {
    // More than it may, because time that passes meanwhile allows for more.
    const AT_ONCE: usize = 40;
    const IN_TURNS: usize = 8;
    let upstream = hanging();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = connect(&gateway);
    let asked: Vec<u32> = (0..AT_ONCE).map(|_| client.ask("GET", "/waits", &[])).collect();
    let sees = |n: usize| upstream.requests().len() >= n;
    eventually("all are forwarded", || sees(AT_ONCE));
    let resets: Vec<u8> = asked.iter().flat_map(|n| reset(*n, code::CANCEL)).collect();
    client.send(resets);
    upstream.wait_until_idle_but(0);
    let given_up = Instant::now();
    for n in 1..=IN_TURNS {
        let next = client.ask("GET", "/waits", &[]);
        eventually("one more is forwarded", || sees(AT_ONCE + n));
        client.send(reset(next, code::CANCEL));
        // What comes before the gateway has noticed would begin at once.
        upstream.wait_until_idle_but(0);
    }
    // 50 ms each, by a clock that may be behind at first.
    let elapsed = given_up.elapsed();
    assert!(elapsed >= Duration::from_millis(50 * (IN_TURNS as u64 - 3)), "{elapsed:?}");
    assert_eq!(client.get("/next").status, 200);
}

/// What clients do is counted, and no reason to fill the log.
#[test]
fn floods_leave_nothing_in_the_log() {
    let upstream = hanging();
    let gateway = Gateway::before(upstream.address(), "");
    for one in FLOODS.iter().filter(|one| one.code == CALM) {
        ends(&gateway, one, 1, 50);
    }
    let mut client = connect(&gateway);
    client.try_send(frame(kind::PING, flag::ACK, 0, [1; 8]));
    assert_eq!(client.get("/next").status, 200);
    // Lines are in order: what comes before this one is there.
    assert!(gateway.command(&["log", "info"]).status.success());
    gateway.wait_for_log("log level set");
    let log = gateway.log();
    let after = log.split_once(" ready ").expect("it has started").1;
    let lines: Vec<&str> = after.lines().skip(1).collect();
    assert!(lines.len() == 1 && lines[0].contains("log level set"), "{lines:?}");
}

/// Settings that are never acknowledged, or that nobody sent.
#[test]
fn acknowledgements_of_nothing_end_the_connection() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = connect(&gateway);
    let ack = frame(kind::SETTINGS, flag::ACK, 0, "");
    for _ in 0..5000 {
        if !client.try_send(&ack) {
            break;
        }
    }
    let code = client.end().map(|end| end.code);
    assert!(matches!(code, Some(CALM | code::PROTOCOL_ERROR)), "{code:?}");
    let counted = || failures(&gateway, "control_frames") + failures(&gateway, "protocol");
    eventually("it is counted", || counted() == 1);
}

#[test]
fn a_body_in_tiny_frames_is_no_cheap_flood() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = connect(&gateway);
    let stream = client.open(&pseudo("PUT", "/sink"), false);
    // The codec lets no more than 2,000 such frames wait for whoever takes them.
    let body = crate::harness::Pattern::default().take(1500);
    for byte in &body {
        client.data(stream, &[*byte], false);
    }
    client.data(stream, b"", true);
    assert_eq!(client.response(stream).text(), "1500 intact");
    assert_eq!(all_failures(&gateway), [""; 0]);
}

const STALLS: &str = "[timeouts]\nwrite = \"400ms\"\n";

/// A client whose windows are 0 from the start, or all but.
fn stalled(gateway: &Gateway, window: u32) -> Http2 {
    let mut client = Http2::silent(Http2::tcp(gateway.address()));
    client.begin(&[(setting::WINDOW, window)]);
    client.opens_windows = false;
    client.ping();
    client
}

#[test]
fn a_window_opened_in_dribbles_does_not_keep_a_stream() {
    let server = Server::start();
    let more = "[timeouts]\nwrite = \"5s\"\n[http2]\ncontrol_frames_per_second = 10\n";
    let gateway = Gateway::before(server.address(), more);
    let mut client = stalled(&gateway, 1);
    let stream = client.ask("GET", "/bytes/100000", &[]);
    let started = Instant::now();
    while client.try_send(update(stream, 1)) && client.goaway.is_none() {
        assert!(started.elapsed() < PATIENCE, "it goes on and on");
        client.reader.socket.set_read_timeout(Duration::from_millis(5));
        match client.next() {
            Ok(_) | Err(ReadError::Timeout) => {}
            Err(_) => break,
        }
    }
    eventually("it is counted", || failures(&gateway, "control_frames") == 1);
}

/// Windows are open, but nothing is read from the socket.
#[test]
fn a_client_that_does_not_read_is_given_up() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), STALLS);
    connect(&gateway).get("/bytes/1000000");
    let before = gateway.anonymous_bytes();
    let mut clients: Vec<Http2> = (0..4)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            socket.set_recv_buffer_size(16 << 10).unwrap();
            socket.connect(&gateway.address().into()).unwrap();
            let mut client = Http2::silent(Socket::Tcp(socket.into()));
            client.begin(&[(setting::WINDOW, 1 << 30)]);
            client.send(update(0, 1 << 30));
            for _ in 0..32 {
                client.ask("GET", "/bytes/8000000", &[]);
            }
            client
        })
        .collect();
    let mut grown = 0;
    eventually("all are given up", || {
        grown = gateway.anonymous_bytes().saturating_sub(before).max(grown);
        failures(&gateway, "stalled") == 4
    });
    assert!(grown < 12 << 20, "{grown} bytes");
    assert_eq!(connect(&gateway).get("/bytes/10").body.len(), 10);
    clients.iter_mut().for_each(|client| client.reader.socket.shutdown(Shutdown::Both));
    let open = || open_connections(&gateway);
    eventually("nothing is left of them", || open() == 0);
}
