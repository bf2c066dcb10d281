//! Bounds: on what a client sends, on how slowly it may do so, and on how many there may be.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::harness::{Client, Gateway, Launch, ReadError, Server, Socket, Upstream, eventually};

fn fixed(more: &str) -> Gateway {
    Gateway::start(&format!("{more}\n[[routes]]\nrespond = {{ body = \"ok\" }}\n"))
}

#[track_caller]
fn refused(client: &mut Client, status: u16, reason: &str) {
    let response = client.response();
    assert_eq!((response.status, response.reason().as_str()), (status, reason));
    assert_eq!(response.field("connection"), Some("close"));
    client.expect_closed();
}

#[test]
fn a_slow_head_is_408() {
    let gateway = fixed("[timeouts]\nhead = \"300ms\"\n");
    let mut client = gateway.client();
    let started = Instant::now();
    // Dripping does not help: the bound is on the whole head.
    for byte in b"GET / HTTP/1.1\r\nHost: gw.test\r\nX-Slow: " {
        if !client.try_send([*byte]) || started.elapsed() > Duration::from_secs(3) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    refused(&mut client, 408, "client.head_timeout");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn a_slow_second_head_is_408_too() {
    let gateway = fixed("[timeouts]\nhead = \"200ms\"\n");
    let mut client = gateway.client();
    assert_eq!(client.get("/").text(), "ok");
    client.send("GET / HT");
    refused(&mut client, 408, "client.head_timeout");
}

#[test]
fn a_silent_connection_is_closed() {
    let gateway = fixed("[timeouts]\nhead = \"200ms\"\nkeep_alive = \"200ms\"\n");
    // Never says anything: a 408 is possible but nobody asked.
    let mut client = gateway.client();
    match client.try_response("GET") {
        Ok(response) => assert_eq!(response.status, 408),
        Err(e) => assert_eq!(e, ReadError::Closed),
    }
    // Says nothing more after a request: a clean close, without any bytes.
    let mut client = gateway.client();
    assert_eq!(client.get("/").text(), "ok");
    client.expect_clean_close();
}

#[test]
fn keep_alive_waits_longer_than_a_head_may_take() {
    let gateway = fixed("[timeouts]\nhead = \"100ms\"\nkeep_alive = \"30s\"\npark = \"50ms\"\n");
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "ok");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(client.get("/").text(), "ok");
}

#[test]
fn a_slow_body_is_408() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "[timeouts]\nbody = \"200ms\"\n");
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut client = gateway.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: gw.test\r\n{framing}\r\n\r\n5\r\nhe"));
        refused(&mut client, 408, "client.body_timeout");
    }
    upstream.wait_until_idle();
    assert_eq!(upstream.requests().len(), 0, "no complete request arrived");
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "[timeouts]\nwrite = \"300ms\"\n");
    let mut client = gateway.client();
    client.send("GET /bytes/100000000 HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    eventually("the response has begun", || server.sent_bytes() > 0);
    let fds = gateway.open_fds();
    // Nothing is read until the gateway has given up.
    eventually("the gateway gives up", || gateway.open_fds() < fds);
    let sent = server.sent_bytes();
    assert!(sent < 60_000_000, "{sent} bytes were pulled");
    assert!(matches!(client.try_response("GET"), Err(ReadError::Cut)));
}

#[test]
fn a_client_that_reads_too_slowly_is_cut() {
    let server = Server::start();
    let keys = "[limits]\nclient_rate_min = \"10MiB\"\n[timeouts]\nwrite = \"30s\"\n";
    let gateway = Gateway::before(server.address(), keys);
    let mut client = gateway.client();
    client.send("GET /bytes/1000000000 HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    let started = Instant::now();
    let cut = loop {
        match client.reader.fill() {
            Ok(0) | Err(ReadError::Cut | ReadError::Reset) => break true,
            Ok(_) => client.reader.buf.clear(),
            Err(e) => panic!("{e:?}"),
        }
        // Far below 10 MiB a second, but never silent.
        std::thread::sleep(Duration::from_millis(50));
        if started.elapsed() > Duration::from_secs(25) {
            break false;
        }
    };
    assert!(cut, "still served after {:?}", started.elapsed());
}

#[test]
fn limits_are_exact() {
    let upstream = Upstream::ok();
    let keys = "[limits]\nhead = \"2KiB\"\ntarget = \"100B\"\nfields = 10\nbody = \"1000B\"\n";
    let gateway = Gateway::before(upstream.address(), keys);
    let status = |bytes: String| {
        let mut client = gateway.client();
        client.send(bytes);
        client.response().status
    };
    let head =
        |fill: usize| format!("GET / HTTP/1.1\r\nHost: gw.test\r\nX: {}\r\n\r\n", "y".repeat(fill));
    let room = 2048 - head(0).len();
    assert_eq!((status(head(room)), status(head(room + 1))), (200, 431));
    let target = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: gw.test\r\n\r\n", "a".repeat(n - 1));
    assert_eq!((status(target(100)), status(target(101))), (200, 414));
    let fields =
        |n: usize| format!("GET / HTTP/1.1\r\nHost: gw.test\r\n{}\r\n", "X: y\r\n".repeat(n - 1));
    assert_eq!((status(fields(10)), status(fields(11))), (200, 431));
    let body = |n: usize| {
        format!("POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {n}\r\n\r\n{}", "z".repeat(n))
    };
    assert_eq!((status(body(1000)), status(body(1001))), (200, 413));
    let chunked = |n: usize| {
        format!(
            "POST / HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n{n:x}\r\n{}\r\n0\r\n\r\n",
            "z".repeat(n)
        )
    };
    assert_eq!((status(chunked(1000)), status(chunked(1001))), (200, 413));
}

#[test]
fn a_routes_own_body_limit() {
    let upstream = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "[limits]\nbody = \"10B\"\n\
         [[routes]]\npath = \"/large\"\nmax_body = \"100B\"\nupstream = \"app\"\n\
         [[routes]]\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        upstream.address()
    ));
    for (path, length, status) in
        [("/large", 100, 200), ("/large", 101, 413), ("/", 10, 200), ("/", 11, 413)]
    {
        let mut client = gateway.client();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {length}\r\n\r\n"
        ));
        client.try_send("z".repeat(length));
        assert_eq!(client.response().status, status, "{path} {length}");
    }
    assert_eq!(upstream.requests().len(), 2, "what is too large never touches the upstream");
}

#[test]
fn a_refused_body_that_is_still_coming_does_not_hide_the_answer() {
    let gateway = fixed("[limits]\nbody = \"1KiB\"\n");
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 2000000\r\n\r\n");
    // All of it is sent before anything is read: a close with unread bytes would be a reset that
    // takes the answer with it.
    for _ in 0..20 {
        client.try_send(vec![0; 100_000]);
    }
    refused(&mut client, 413, "limit.body_bytes");
}

#[test]
fn connections_have_a_maximum() {
    let gateway = fixed("[runtime]\nworkers = 1\n[limits]\nconnections_per_worker = 10\n");
    let mut kept: Vec<Client> = (0..10).map(|_| gateway.client()).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "ok"));
    for _ in 0..3 {
        let mut shed = gateway.client();
        let response = shed.response();
        assert_eq!((response.status, response.reason().as_str()), (503, "gateway.overloaded"));
        let after: u32 = response.field("retry-after").expect("Retry-After").parse().unwrap();
        assert!(after >= 1);
        shed.expect_closed();
    }
    // Those inside go on, and one who leaves makes room.
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "ok"));
    drop(kept.pop());
    eventually("room for another", || {
        let mut client = gateway.client();
        client.try_send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        client.try_response("GET").is_ok_and(|r| r.status == 200)
    });
}

#[test]
fn connections_of_the_process_have_a_maximum() {
    let gateway = fixed("[limits]\nconnections = 10\n");
    let mut kept: Vec<Client> = Vec::new();
    let mut shed = 0;
    // Two workers count together.
    for _ in 0..30 {
        let mut client = gateway.client();
        client.try_send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        match client.try_response("GET").map(|r| r.status) {
            Ok(200) => kept.push(client),
            Ok(503) | Err(ReadError::Reset) => shed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((kept.len(), shed), (10, 20));
}

#[test]
fn requests_on_a_connection_have_a_maximum() {
    let gateway = fixed("[limits]\nrequests_per_connection = 3\n");
    let mut client = gateway.client();
    assert_eq!(client.get("/").field("connection"), None);
    assert_eq!(client.get("/").field("connection"), None);
    assert_eq!(client.get("/").field("connection"), Some("close"));
    client.expect_clean_close();
}

#[test]
fn running_out_of_descriptors_does_not_spin() {
    let toml = "[[routes]]\nrespond = { body = \"ok\" }\n".to_string();
    let launch = Launch { toml, descriptors_max: Some(80), ..Launch::default() };
    let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    let clients: Vec<TcpStream> =
        (0..120).filter_map(|_| TcpStream::connect(gateway.address()).ok()).collect();
    assert!(clients.len() > 100);
    eventually("the descriptors are used up", || gateway.open_fds() >= 75);
    // Measured, not waited for: CPU time over one second.
    let (before, started) = (gateway.cpu_time(), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let used = gateway.cpu_time() - before;
    assert!(used < started.elapsed() / 4, "{used:?} of CPU time in {:?}", started.elapsed());
    assert!(gateway.is_running());
    drop(clients);
    eventually("served again", || {
        let mut client = gateway.client().patience(Duration::from_secs(1));
        client.try_send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        client.try_response("GET").is_ok_and(|r| r.status == 200)
    });
}

/// Clients that send these, are answered with `status`, and stay: it is the gateway that must let
/// go of them.
fn are_let_go(gateway: &Gateway, requests: &[&str], status: u16) {
    let before = {
        gateway.client().get("/");
        gateway.open_fds()
    };
    let mut clients = Vec::new();
    for request in requests {
        let mut client = gateway.client();
        client.send(request);
        assert_eq!(client.response().status, status);
        clients.push(client);
    }
    eventually("all are let go", || gateway.open_fds() <= before);
}

#[test]
fn refused_clients_are_forgotten() {
    let gateway = fixed("[timeouts]\nlinger = \"200ms\"\n");
    are_let_go(&gateway, &["GET / HTTP/7.7\r\n\r\n"; 20], 505);
}

#[test]
fn a_client_that_asked_for_the_close_is_not_waited_for() {
    let gateway = fixed("[timeouts]\nlinger = \"10m\"\n");
    // Nothing more can come that closing would have to wait for.
    let requests = [
        "GET / HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
    ];
    are_let_go(&gateway, &requests, 200);
}

#[test]
fn a_small_receive_window_does_not_matter() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&gateway.address().into()).unwrap();
    let mut client = Client::over(Socket::Tcp(socket.into()));
    assert_eq!(client.get("/bytes/300000").body.len(), 300_000);
}
