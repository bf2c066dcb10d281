//! Every way in which a stream or a connection ends, and what is told of it.

use std::time::Duration;

use serde_json::Value;

use super::{Both, connect, failures, held, open_connections};
use crate::harness::{
    Gateway, Http2, Launch, Upstream, eventually,
    http2::{GoAway, code, frame, kind, pseudo, reset, update},
};

fn log(folder: &tempfile::TempDir) -> String {
    format!("[[access_logs]]\nto = \"file:{}/log\"\n", folder.path().display())
}

/// Waits for this many lines of the access log.
#[track_caller]
fn logged(folder: &tempfile::TempDir, count: usize) -> Vec<Value> {
    let text = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    eventually(&format!("{count} lines"), || text().lines().count() >= count);
    let lines: Vec<Value> =
        text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

#[test]
fn a_request_that_is_given_up_frees_the_upstream() {
    let upstream = Upstream::scripted(|conn| {
        if let Ok(head) = conn.request_head() {
            match head.target.as_str() {
                "/before" | "/sending" => conn.until_closed(),
                "/during" => {
                    conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    while conn.send(format!("10000\r\n{}\r\n", "x".repeat(65_536))) {}
                }
                _ => {
                    conn.answer(&head);
                }
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let both = Both::before(upstream.address(), &log(&folder));
    for (round, (_, mut client)) in both.each().into_iter().enumerate() {
        let before = upstream.requests().len();
        let stream = client.ask("GET", "/before", &[]);
        eventually("it is asked for", || upstream.requests().len() > before);
        client.send(reset(stream, code::CANCEL));
        upstream.wait_until_idle();
        let stream = client.ask("GET", "/during", &[]);
        client.until("some data", |client| {
            client.streams.get(&stream).is_some_and(|answer| answer.response.body.len() > 100_000)
        });
        client.send(reset(stream, code::CANCEL));
        upstream.wait_until_idle();
        let connections = upstream.connections();
        let stream = client.open(&pseudo("POST", "/sending"), false);
        client.data(stream, b"half of", false);
        upstream.wait_for_connections(connections + 1);
        client.send(reset(stream, code::CANCEL));
        upstream.wait_until_idle();
        assert_eq!(client.get("/after").status, 200);
        let lines = logged(&folder, 4 * (round + 1));
        for (line, (target, status)) in
            lines[4 * round..].iter().zip([("/before", 499), ("/during", 200), ("/sending", 499)])
        {
            assert_eq!((&line["target"], &line["status"]), (&target.into(), &status.into()));
            assert_eq!(
                (&line["side"], &line["reason"]),
                (&"client".into(), &"client.aborted".into())
            );
            assert_eq!(line["protocol"], "HTTP/2.0", "{line}");
        }
        drop(client);
        upstream.wait_until_idle();
    }
    assert_eq!(super::all_failures(&both.gateway), [""; 0]);
}

#[test]
fn a_response_that_is_cut_never_ends_well() {
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            let text = match request.target.as_str() {
                "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
                "/chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\npart",
                "/last" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
                "/trailer" => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\nX: y\r\n"
                }
                "/head" => "HTTP/1.1 200 OK\r\nContent-Le",
                _ => {
                    conn.answer(&request);
                    continue;
                }
            };
            conn.send(text);
            return;
        }
    });
    let both = Both::before(upstream.address(), "");
    for (scheme, mut client) in both.each() {
        for path in ["/length", "/chunk", "/last", "/trailer"] {
            let stream = client.ask("GET", path, &[]);
            let answer = client.finish(stream).unwrap();
            let told = (answer.is_ended, answer.reset);
            assert_eq!(told, (false, Some(code::INTERNAL_ERROR)), "{scheme} {path}");
            // The reset may overtake the head.
            assert!([0, 200].contains(&answer.response.status), "{scheme} {path}");
            assert!(b"part".starts_with(&answer.response.body), "{scheme} {path}: {answer:?}");
        }
        let response = client.get("/head");
        assert_eq!((response.status, response.reason().as_str()), (502, "upstream.closed"));
        assert_eq!(client.get("/well").text(), "GET /well");
    }
}

#[test]
fn a_connection_that_ends_takes_its_requests_with_it() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request_head().is_ok() {
            conn.until_closed();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let both = Both::before(upstream.address(), &log(&folder));
    for (round, how) in ["close", "reset", "goaway"].into_iter().enumerate() {
        let before = upstream.connections();
        let mut client = both.plain();
        for n in 0..5 {
            client.ask("GET", &format!("/{how}/{n}"), &[]);
        }
        let stream = client.open(&pseudo("POST", "/sends"), false);
        client.data(stream, b"half of", false);
        upstream.wait_for_connections(before + 6);
        match how {
            "reset" => {
                if let crate::harness::Socket::Tcp(tcp) = &client.reader.socket {
                    socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
            "close" => {}
            _ => client.send(frame(kind::GOAWAY, 0, 0, [0; 8])),
        }
        drop(client);
        upstream.wait_until_idle();
        let lines = logged(&folder, 6 * (round + 1));
        for line in &lines[6 * round..] {
            assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client.aborted".into()));
        }
    }
    eventually("no connection is open", || open_connections(&both.gateway) == 0);
}

#[test]
fn a_silent_connection_is_told_goodbye() {
    let upstream = Upstream::ok();
    let both = Both::before(upstream.address(), "[timeouts]\nkeep_alive = \"400ms\"\n");
    let connect = |is_tls| if is_tls { both.tls() } else { both.plain() };
    for is_tls in [false, true] {
        let mut client = connect(is_tls);
        assert_eq!(client.get("/").status, 200);
        assert_eq!(client.end().map(|end| end.code), Some(code::NO_ERROR), "TLS: {is_tls}");
        // Nothing was asked for at all.
        let mut client = connect(is_tls);
        assert_eq!(client.end().map(|end| end.code), Some(code::NO_ERROR), "TLS: {is_tls}");
    }
    assert_eq!(super::all_failures(&both.gateway), [""; 0]);
}

#[test]
fn a_part_of_a_record_does_not_keep_a_silent_connection() {
    let (upstream, tell) = held();
    let both = Both::before(upstream.address(), "[timeouts]\nkeep_alive = \"300ms\"\n");
    let mut client = both.tls();
    client.opens_windows = false;
    let stream = client.ask("GET", "/long", &[]);
    eventually("it is asked for", || upstream.requests().len() == 1);
    client.ping();
    tell.send(()).unwrap();
    assert_eq!(client.response(stream).text(), "GET /long");
    // The read that waits was begun while a stream was open; the rest of the record never comes.
    client.send_beneath(&[0x17, 3, 3, 0x40]);
    assert_eq!(client.end().map(|end| end.code), Some(code::NO_ERROR));
}

#[test]
fn open_streams_keep_a_connection() {
    let (upstream, tell) = held();
    let gateway = Gateway::before(upstream.address(), "[timeouts]\nkeep_alive = \"100ms\"\n");
    let mut client = connect(&gateway);
    let stream = client.ask("GET", "/long", &[]);
    eventually("it is asked for", || upstream.requests().len() == 1);
    // Three times what it may be silent without a stream.
    std::thread::sleep(Duration::from_millis(300));
    tell.send(()).unwrap();
    assert_eq!(client.response(stream).text(), "GET /long");
    assert_eq!(client.end(), Some(GoAway { last_stream: 1, code: code::NO_ERROR }));
}

#[test]
fn a_drain_lets_streams_finish() {
    let (upstream, tell) = held();
    let both = Both::before(upstream.address(), "");
    let mut clients = both.each();
    let mut idle = both.plain();
    idle.ping();
    let mut streams = Vec::new();
    for (scheme, client) in &mut clients {
        streams.push((client.ask("GET", &format!("/{scheme}"), &[]), scheme.to_owned()));
        let sending = client.open(&pseudo("POST", &format!("/{scheme}/sends")), false);
        client.data(sending, b"first ", false);
        client.ping();
    }
    eventually("all are asked for", || upstream.requests().len() == 2);
    both.gateway.sigterm();
    assert_eq!(idle.end().map(|end| end.code), Some(code::NO_ERROR));
    for (_, client) in &mut clients {
        client.until("GOAWAY", |client| client.goaway.is_some());
        assert_eq!(client.goaway.unwrap().code, code::NO_ERROR);
        // What was begun goes on.
        client.data(3, b"last", true);
    }
    (0..4).for_each(|_| tell.send(()).unwrap());
    for ((_, client), (stream, scheme)) in clients.iter_mut().zip(streams) {
        assert_eq!(client.response(stream).text(), format!("GET /{scheme}"));
        assert_eq!(client.response(3).text(), format!("POST /{scheme}/sends"));
        assert_eq!(client.end().map(|end| end.code), Some(code::NO_ERROR));
    }
    assert!(both.gateway.wait_exit().success());
    let bodies: Vec<_> = upstream.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.iter().filter(|body| *body == b"first last").count(), 2);
}

#[test]
fn a_listener_that_is_removed_lets_streams_finish() {
    let (upstream, tell) = held();
    let one = "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\n";
    let two = "[[listeners]]\nname = \"second\"\nbind = \"127.0.0.1:0\"\n";
    let toml = |listeners: &str| {
        format!(
            "{listeners}[[routes]]\nupstream = \"app\"\n[upstreams.app]\nendpoints = [\"{}\"]\n",
            upstream.address()
        )
    };
    let gateway = Gateway::start(&toml(&[one, two].concat()));
    let mut stays = Http2::connect(gateway.address_of("main"));
    let mut goes = Http2::connect(gateway.address_of("second"));
    let mut idle = Http2::connect(gateway.address_of("second"));
    idle.ping();
    let first = stays.ask("GET", "/stays", &[]);
    let second = goes.ask("GET", "/goes", &[]);
    eventually("both are asked for", || upstream.requests().len() == 2);
    assert!(gateway.reload(&toml(one)));
    assert_eq!(idle.end().map(|end| end.code), Some(code::NO_ERROR));
    goes.until("GOAWAY", |client| client.goaway.is_some());
    (0..3).for_each(|_| tell.send(()).unwrap());
    assert_eq!(goes.response(second).text(), "GET /goes");
    assert_eq!(goes.end(), Some(GoAway { last_stream: second, code: code::NO_ERROR }));
    assert_eq!(stays.response(first).text(), "GET /stays");
    assert_eq!(stays.get("/still").text(), "GET /still");
    assert_eq!(stays.goaway, None);
}

#[test]
fn a_client_that_does_not_answer_the_goodbye_is_closed_all_the_same() {
    let (upstream, tell) = held();
    let listener =
        |name: &str| format!("[[listeners]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\n");
    let toml = |listeners: &str| {
        format!(
            "{listeners}[timeouts]\nkeep_alive = \"200ms\"\n[[routes]]\nupstream = \"app\"\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            upstream.address()
        )
    };
    let gateway = Gateway::start(&toml(&[listener("main"), listener("second")].concat()));
    let mut client = Http2::connect(gateway.address_of("second"));
    client.ask("GET", "/long", &[]);
    eventually("it is asked for", || upstream.requests().len() == 1);
    assert!(gateway.reload(&toml(&listener("main"))));
    tell.send(()).unwrap();
    // It reads nothing, and so does not acknowledge the PING that comes with the GOAWAY.
    eventually("the connection is closed", || open_connections(&gateway) == 0);
}

#[test]
fn a_connection_has_so_many_requests() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "[limits]\nrequests_per_connection = 3\n");
    let mut client = connect(&gateway);
    for n in 0..3 {
        assert_eq!(client.get(&format!("/{n}")).text(), format!("GET /{n}"));
    }
    assert_eq!(client.end(), Some(GoAway { last_stream: 5, code: code::NO_ERROR }));
    assert_eq!(upstream.requests().len(), 3);
    assert_eq!(super::all_failures(&gateway), [""; 0]);
}

#[test]
fn a_panic_costs_one_stream() {
    let toml = "[[routes]]\nrespond = { body = \"ok\" }\n".to_owned();
    let launch = Launch { toml, panic_path: Some("/drill"), ..Launch::default() };
    let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    let mut clients: Vec<Http2> = (0..4).map(|_| connect(&gateway)).collect();
    for client in &mut clients {
        for _ in 0..4 {
            let unlucky = client.ask("GET", "/drill", &[]);
            let other = client.ask("GET", "/", &[]);
            let answer = client.finish(unlucky).unwrap();
            assert!(answer.reset.is_some() && !answer.is_ended, "{answer:?}");
            assert_eq!(client.response(other).text(), "ok");
        }
        assert_eq!(client.goaway, None);
    }
    drop(clients);
    gateway.sigterm();
    assert!(gateway.wait_exit().success());
    assert!(gateway.log().contains("panics=16"), "{}", gateway.log());
}

#[test]
fn a_client_that_says_we_are_at_fault_is_counted() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = connect(&gateway);
    assert_eq!(client.get("/").status, 200);
    let mut payload = vec![0; 4];
    payload.extend(code::PROTOCOL_ERROR.to_be_bytes());
    client.send(frame(kind::GOAWAY, 0, 0, payload));
    client.end();
    eventually("it is counted", || failures(&gateway, "client") == 1);
}

#[test]
fn faults_of_the_client_end_the_connection_with_their_code() {
    const FLOW: u32 = 3;
    const SIZE: u32 = 6;
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let faults: [(&str, Vec<u8>, u32); 7] = [
        ("DATA on stream 0", frame(kind::DATA, 0, 0, "x"), code::PROTOCOL_ERROR),
        ("an even stream", frame(kind::HEADERS, 5, 2, [0x82]), code::PROTOCOL_ERROR),
        ("window overflow", [update(0, u32::MAX >> 1), update(0, 9)].concat(), FLOW),
        // FRAME_SIZE_ERROR would be more to the point (§6.5); the codec says this.
        ("SETTINGS of 5 bytes", frame(kind::SETTINGS, 0, 0, "12345"), code::PROTOCOL_ERROR),
        ("a frame too large", frame(kind::DATA, 0, 1, vec![0; 16_385]), SIZE),
        ("CONTINUATION alone", frame(kind::CONTINUATION, 4, 1, ""), code::PROTOCOL_ERROR),
        // COMPRESSION_ERROR would be more to the point (§4.3).
        ("a bad header block", frame(kind::HEADERS, 5, 1, [0xff; 9]), code::PROTOCOL_ERROR),
    ];
    for (n, (name, bytes, wanted)) in faults.into_iter().enumerate() {
        let mut client = connect(&gateway);
        client.ping();
        client.try_send(&bytes);
        assert_eq!(client.end().map(|end| end.code), Some(wanted), "{name}");
        eventually(name, || failures(&gateway, "protocol") == n as u64 + 1);
        assert_eq!(connect(&gateway).get("/next").status, 200, "after {name}");
    }
}
