//! Connections shared by many requests: their bounds, their life, and what one request does to the
//! others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Response;
use tokio::sync::Barrier;

use super::{H2C, configuration, gateway};
use crate::harness::{
    Client, Gateway, Pattern, Socket, eventually,
    http2_server::{Call, Http2Options, Http2Server, usual},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n";

/// Answers when so many requests are there at once.
fn meeting(of: usize, options: Http2Options) -> Http2Server {
    let barrier = Arc::new(Barrier::new(of));
    Http2Server::with(options, move |call: Call| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            call.text("met");
        }
    })
}

/// Sends a request on each of so many connections.
fn ask(gateway: &Gateway, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| gateway.client()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    clients
}

#[test]
fn a_hundred_requests_at_once_on_one_connection() {
    let server = meeting(100, Http2Options::default());
    let gateway = gateway(server.address(), H2C);
    for client in &mut ask(&gateway, 100) {
        assert_eq!(client.response().text(), "met");
    }
    assert_eq!(server.connections(), 1);
    let metrics = gateway.admin().get("/metrics").text();
    let connects = "ringway_endpoint_connects_total";
    let line = metrics.lines().find(|line| line.starts_with(connects)).expect(connects);
    assert!(line.ends_with(" 1"), "{line}");
}

#[test]
fn the_endpoints_limit_holds_from_the_first_request_on() {
    let options = Http2Options { streams_max: Some(5), ..Http2Options::default() };
    let server = Http2Server::with(options, |call: Call| async move {
        tokio::task::yield_now().await;
        call.text("done");
    });
    let keys = format!("{H2C}\nhttp2 = {{ connections = 1 }}");
    let gateway = gateway(server.address(), &keys);
    for client in &mut ask(&gateway, 50) {
        assert_eq!(client.response().text(), "done");
    }
    assert_eq!(server.connections(), 1);
    assert!(server.seen.running_max.load(SeqCst) <= 5);
}

#[test]
fn more_connections_are_opened_when_all_are_full_and_no_more_than_allowed() {
    let options = || Http2Options { streams_max: Some(10), ..Http2Options::default() };
    let server = meeting(30, options());
    let gateway_of_three =
        gateway(server.address(), &format!("{H2C}\nhttp2 = {{ connections = 3 }}"));
    for client in &mut ask(&gateway_of_three, 30) {
        assert_eq!(client.response().text(), "met");
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn who_finds_no_place_in_time_is_told() {
    let server = meeting(2, Http2Options::default());
    let keys =
        format!("{H2C}\nconnect_timeout = \"300ms\"\nhttp2 = {{ streams = 1, connections = 1 }}");
    let gateway = gateway(server.address(), &keys);
    let mut first = gateway.client();
    first.send(GET);
    eventually("the first is there", || server.seen.requests.load(SeqCst) == 1);
    let response = gateway.client().get("/");
    assert_eq!((response.status, response.reason().as_str()), (503, "upstream.busy"));
    assert_eq!(response.field("retry-after"), Some("1"));
    // Its place is free again when it goes.
    first.reset();
    eventually("it is given up", || {
        gateway.admin().get("/metrics").text().contains("client.aborted")
    });
    let mut second = gateway.client();
    second.send(GET);
    eventually("another has its place", || server.seen.requests.load(SeqCst) == 2);
}

/// A client whose kernel buffers little.
fn narrow(gateway: &Gateway) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&gateway.address().into()).unwrap();
    Client::over(Socket::Tcp(socket.into()))
}

/// Waits until this number stops growing, and answers with it.
fn settled(mut number: impl FnMut() -> u64) -> u64 {
    let (mut last, mut since) = (number(), Instant::now());
    eventually("it stops growing", || {
        let now = number();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(300)
    });
    last
}

#[test]
fn slow_readers_pull_no_more_than_their_windows_and_hold_up_nobody() {
    const LARGE: u64 = 64 << 20;
    let server = Http2Server::start();
    let gateway = gateway(server.address(), H2C);
    gateway.client().get("/bytes/3000000");
    let before = server.seen.sent_bytes.load(SeqCst);
    let mut clients: Vec<Client> = (0..20).map(|_| narrow(&gateway)).collect();
    for client in &mut clients {
        client.send(format!("GET /bytes/{LARGE} HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
    }
    let pulled = settled(|| server.seen.sent_bytes.load(SeqCst)) - before;
    // For each: the stream's window of 256 KiB, a relay buffer of as much, what the kernel keeps.
    assert!(pulled < 20 * (5 << 20) / 2, "{pulled} bytes for 20 clients that read nothing");
    assert_eq!(server.connections(), 1);
    let mut other = gateway.client();
    assert_eq!(other.get("/bytes/1000000").body.len(), 1_000_000);
    // One that begins to read after all gets everything.
    let mut client = clients.pop().unwrap();
    client.head();
    let mut pattern = Pattern::default();
    while pattern.position() < LARGE {
        if client.reader.buf.is_empty() {
            assert!(client.reader.fill().unwrap() > 0, "cut at {}", pattern.position());
        }
        let bytes = std::mem::take(&mut client.reader.buf);
        pattern.check(&bytes);
    }
}

#[test]
fn an_endpoint_that_takes_nothing_is_sent_no_more_than_its_window() {
    let options = Http2Options { window: Some(65_535), ..Http2Options::default() };
    let server = Http2Server::with(options, |mut call: Call| async move {
        // Holds the body without taking any of it.
        call.until_reset().await;
    });
    let gateway = gateway(server.address(), H2C);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 67108864\r\n\r\n");
    let before = gateway.anonymous_bytes();
    let Socket::Tcp(stream) = &client.reader.socket else { panic!("not over TCP") };
    stream.set_nonblocking(true).unwrap();
    let mut stream = stream.try_clone().unwrap();
    let piece = vec![0; 64 << 10];
    let mut taken = 0;
    settled(|| {
        while let Ok(n) = std::io::Write::write(&mut stream, &piece) {
            taken += n as u64;
        }
        taken
    });
    assert!(taken < 16 << 20, "{taken} bytes were taken");
    let grown = gateway.anonymous_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes of memory");
}

#[test]
fn a_reload_keeps_connections_and_a_change_of_protocol_does_not() {
    let server = Http2Server::start();
    let gateway = gateway(server.address(), H2C);
    gateway.client().get("/bytes/10");
    let more = format!("{H2C}\nidle_timeout = \"50s\"");
    assert!(gateway.reload(&configuration(server.address(), &more)));
    gateway.client().get("/bytes/10");
    assert_eq!(server.connections(), 1);
    // It is closed when nothing has a place for it.
    let other = Http2Server::start();
    assert!(gateway.reload(&configuration(other.address(), H2C)));
    eventually("it is closed", || server.seen.open.load(SeqCst) == 0);
    assert_eq!(gateway.client().get("/bytes/10").status, 200);
}

#[test]
fn a_drained_endpoint_finishes_its_requests_and_gets_no_more() {
    let (first, second) = (meeting(2, Http2Options::default()), Http2Server::start());
    let gateway = Gateway::start(&format!(
        "[runtime]\nworkers = 1\n[[routes]]\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [\"{}\", \"{}\"]\n{H2C}\n",
        first.address(),
        second.address()
    ));
    let clients = ask(&gateway, 1);
    eventually("one is there", || first.seen.requests.load(SeqCst) == 1);
    assert_eq!(gateway.client().get("/bytes/10").status, 200, "of the other endpoint");
    let address = first.address().to_string();
    let output = gateway.command(&["drain", "app", &address]);
    assert!(output.status.success(), "{output:?}");
    for _ in 0..4 {
        assert_eq!(gateway.client().get("/bytes/10").status, 200);
    }
    assert_eq!(first.seen.open.load(SeqCst), 1, "the request is still open");
    clients.into_iter().for_each(Client::reset);
    eventually("the connection ends with it", || first.seen.open.load(SeqCst) == 0);
}

#[test]
fn what_idles_too_long_is_closed() {
    let server = Http2Server::start();
    let keys = format!("{H2C}\npool = {{ idle_timeout = \"100ms\" }}");
    let gateway = gateway(server.address(), &keys);
    gateway.client().get("/bytes/10");
    eventually("it is closed", || server.seen.open.load(SeqCst) == 0);
    gateway.client().get("/bytes/10");
    assert_eq!(server.connections(), 2);
}

#[test]
fn the_gateway_ends_while_connections_idle() {
    let server = Http2Server::start();
    let gateway = gateway(server.address(), H2C);
    gateway.client().get("/bytes/10");
    gateway.sigterm();
    assert!(gateway.wait_exit().success());
    eventually("it is closed", || server.seen.open.load(SeqCst) == 0);
}

#[test]
fn many_exchanges_in_turn() {
    let server = Http2Server::with(Http2Options::default(), |call: Call| async move {
        match call.path() {
            "/early" => {
                // Without a look at the body.
                let mut call = call;
                let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"enough"), true).unwrap();
            }
            _ => usual(call).await,
        }
    });
    let gateway = gateway(server.address(), H2C);
    for _ in 0..50 {
        let mut client = gateway.client();
        client.send("POST /early HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 1000000\r\n\r\n");
        client.try_send([0; 100_000]);
        assert_eq!(client.response().text(), "enough");
        assert_eq!(gateway.client().get("/bytes/100").body.len(), 100);
    }
    assert_eq!(server.connections(), 1);
}

/// Requests of all kinds, many at once, more than there is room for: what each has held is free
/// again.
#[test]
fn after_a_storm_everything_is_free_again() {
    let is_calm = Arc::new(AtomicBool::new(false));
    let (calm, barrier) = (is_calm.clone(), Arc::new(Barrier::new(6)));
    let server = Http2Server::with(Http2Options::default(), move |mut call: Call| {
        let (is_calm, barrier) = (calm.load(SeqCst), barrier.clone());
        async move {
            match call.path() {
                "/silent" => drop(call.until_reset().await),
                "/early" => call.text("enough"),
                "/refuse" => call.respond.send_reset(h2::Reason::REFUSED_STREAM),
                "/meet" if is_calm => {
                    barrier.wait().await;
                    call.text("met");
                }
                _ => usual(call).await,
            }
        }
    });
    let keys = format!(
        "{H2C}\nconnect_timeout = \"5s\"\nfirst_byte_timeout = \"300ms\"\n\
         http2 = {{ streams = 3, connections = 2 }}"
    );
    let gateway = gateway(server.address(), &keys);
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let gateway = &gateway;
            scope.spawn(move || {
                for number in 0..30 {
                    storm(gateway, thread * 7 + number);
                }
            });
        }
    });
    is_calm.store(true, SeqCst);
    let idle = "ringway_endpoint_in_flight{upstream=\"app\"";
    eventually("nothing is in flight", || {
        let metrics = gateway.admin().get("/metrics").text();
        metrics.lines().any(|line| line.starts_with(idle) && line.ends_with(" 0"))
    });
    let mut clients: Vec<Client> = (0..6).map(|_| gateway.client()).collect();
    clients.iter_mut().for_each(|c| c.send("GET /meet HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
    for client in &mut clients {
        assert_eq!(client.response().text(), "met");
    }
    assert!(!gateway.log().contains("panic"), "{}", gateway.log());
}

/// One exchange of a kind.
fn storm(gateway: &Gateway, kind: usize) {
    let mut client = gateway.client();
    match kind % 7 {
        0 => assert_eq!(client.get("/bytes/100000").body.len(), 100_000),
        1 => assert_eq!(client.get("/silent").status, 504),
        2 => assert_eq!(client.get("/refuse").status, 502),
        3 => {
            client.send("GET /silent HTTP/1.1\r\nHost: gw.test\r\n\r\n");
            client.reset();
        }
        4 => {
            client.send("GET /bytes/10000000 HTTP/1.1\r\nHost: gw.test\r\n\r\n");
            let _ = client.reader.fill();
            client.reset();
        }
        5 => {
            client.send("POST /early HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 500000\r\n\r\n");
            client.try_send([0; 1000]);
            assert_eq!(client.response().text(), "enough");
        }
        _ => {
            client.send("PUT / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 70000\r\n\r\n");
            client.send(Pattern::default().take(70_000));
            assert_eq!(client.response().text(), "70000 intact");
        }
    }
}
