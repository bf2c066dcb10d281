//! Choosing an endpoint, keeping connections, and upstreams that fail in every way we know.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::harness::{Gateway, ReadError, Upstream, eventually};

/// A gateway with one route to these endpoints (as TOML), one worker, and these upstream keys.
fn gateway(endpoints: &str, keys: &str) -> Gateway {
    gateway_with("", endpoints, keys)
}

fn gateway_with(route_keys: &str, endpoints: &str, keys: &str) -> Gateway {
    Gateway::start(&format!(
        "[runtime]\nworkers = 1\n[[routes]]\nupstream = \"app\"\n{route_keys}\n\
         [upstreams.app]\nendpoints = [{endpoints}]\n{keys}\n"
    ))
}

fn quoted(address: SocketAddr) -> String {
    format!("\"{address}\"")
}

/// An address on which nobody listens.
fn refused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An address whose backlog is full, so that connecting hangs. Holds the sockets that fill it.
fn hanging() -> (SocketAddr, Vec<socket2::Socket>) {
    use socket2::{Domain, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    for _ in 0..8 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address);
        held.push(socket);
    }
    held.push(listener);
    (address.as_socket().unwrap(), held)
}

#[track_caller]
fn answer(gateway: &Gateway) -> (u16, String) {
    let response = gateway.client().get("/");
    (response.status, response.reason())
}

#[test]
fn round_robin_shares_evenly() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let gateway = gateway(&format!("\"{}\", \"{}\"", a.address(), b.address()), "");
    let mut client = gateway.client();
    (0..20).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!((a.requests().len(), b.requests().len()), (10, 10));
}

#[test]
fn weights_are_kept_smoothly() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let endpoints = format!("{{ address = \"{}\", weight = 3 }}, \"{}\"", a.address(), b.address());
    let gateway = gateway(&endpoints, "");
    let mut client = gateway.client();
    for round in 1..=5 {
        (0..4).for_each(|_| assert_eq!(client.get("/").status, 200));
        assert_eq!((a.requests().len(), b.requests().len()), (3 * round, round));
    }
}

#[test]
fn random_reaches_everyone() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let endpoints = format!("\"{}\", \"{}\"", a.address(), b.address());
    let gateway = gateway(&endpoints, "balance = \"random\"");
    let mut client = gateway.client();
    (0..200).for_each(|_| assert_eq!(client.get("/").status, 200));
    let (a, b) = (a.requests().len(), b.requests().len());
    // Outside of this about once in 10^9 runs.
    assert!(a + b == 200 && a > 57 && b > 57, "{a} and {b}");
}

#[test]
fn least_request_avoids_the_busy() {
    let stuck = Upstream::scripted(|conn| {
        let _ = conn.request();
        conn.until_closed();
    });
    let free = Upstream::ok();
    let endpoints = format!("\"{}\", \"{}\"", stuck.address(), free.address());
    let gateway = gateway(&endpoints, "balance = \"least_request\"");
    // Until the stuck one holds some, clients may have to be left hanging.
    let mut held = Vec::new();
    eventually("the stuck endpoint holds a request", || {
        let mut client = gateway.client().patience(Duration::from_millis(200));
        client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        if client.try_response("GET") == Err(ReadError::Timeout) {
            held.push(client);
        }
        !held.is_empty()
    });
    let mut client = gateway.client();
    (0..50).for_each(|_| assert_eq!(client.get("/").status, 200));
}

#[test]
fn a_refused_endpoint_is_passed_over() {
    let up = Upstream::ok();
    let gateway = gateway(&format!("\"{}\", \"{}\"", refused(), up.address()), "");
    let mut client = gateway.client();
    for method in ["GET", "POST", "GET", "POST", "GET", "POST"] {
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\nhello"
        ));
        assert_eq!(client.response().status, 200, "{method}: nothing was sent, so all may move on");
    }
    assert!(up.requests().iter().all(|r| r.body == b"hello"));
}

#[test]
fn all_down_is_503() {
    let gateway = gateway(&format!("\"{}\", \"{}\"", refused(), refused()), "");
    for _ in 0..3 {
        assert_eq!(answer(&gateway), (503, "upstream.connect".into()));
    }
}

#[test]
fn an_upstream_that_comes_back_is_used() {
    let address = refused();
    let gateway = gateway(&quoted(address), "connect_cooldown = \"50ms\"");
    assert_eq!(answer(&gateway).0, 503);
    let listener = TcpListener::bind(address).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Read::read(&mut stream, &mut [0; 4096]).unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    });
    eventually("served again", || gateway.client().get("/").status == 200);
    serving.join().unwrap();
}

#[test]
fn a_connect_that_hangs_is_504() {
    let (address, _held) = hanging();
    let gateway = gateway_with("tries = 1", &quoted(address), "connect_timeout = \"150ms\"");
    assert_eq!(answer(&gateway), (504, "upstream.connect_timeout".into()));
}

#[test]
fn a_connect_that_hangs_moves_on() {
    let (address, _held) = hanging();
    let up = Upstream::ok();
    let endpoints = format!("\"{address}\", \"{}\"", up.address());
    let gateway = gateway(&endpoints, "connect_timeout = \"150ms\"");
    for _ in 0..3 {
        assert_eq!(gateway.client().get("/").status, 200);
    }
}

#[test]
fn a_first_byte_that_does_not_come_is_504() {
    let up = Upstream::scripted(|conn| {
        let _ = conn.request();
        conn.until_closed();
    });
    let gateway = gateway(&quoted(up.address()), "first_byte_timeout = \"150ms\"");
    assert_eq!(answer(&gateway), (504, "upstream.first_byte_timeout".into()));
    up.wait_until_idle();
    assert_eq!(up.requests().len(), 1, "an answer that may still come is not asked for twice");
}

#[test]
fn a_body_that_stops_is_cut() {
    let up = Upstream::scripted(|conn| {
        let _ = conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        conn.until_closed();
    });
    let gateway = gateway(&quoted(up.address()), "idle_timeout = \"200ms\"");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(client.try_response("GET").map(|r| r.status), Err(ReadError::Cut));
    up.wait_until_idle();
}

#[test]
fn a_head_that_stops_is_504() {
    let up = Upstream::scripted(|conn| {
        let _ = conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-");
        conn.until_closed();
    });
    let keys = "first_byte_timeout = \"300ms\"\nidle_timeout = \"300ms\"";
    let gateway = gateway(&quoted(up.address()), keys);
    let (status, reason) = answer(&gateway);
    assert!(status == 504 && reason.starts_with("upstream."), "{status} {reason}");
    up.wait_until_idle();
}

#[test]
fn a_route_has_a_bound_of_its_own() {
    let up = Upstream::scripted(|conn| {
        let _ = conn.request();
        conn.until_closed();
    });
    let gateway = gateway_with("timeout = \"150ms\"", &quoted(up.address()), "");
    assert_eq!(answer(&gateway), (504, "route.timeout".into()));
    up.wait_until_idle();
}

#[test]
fn a_routes_bound_covers_the_body() {
    let up = Upstream::scripted(|conn| {
        let _ = conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        // Never idle for long, yet far too slow.
        while conn.send("x") {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let gateway = gateway_with("timeout = \"400ms\"", &quoted(up.address()), "");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    let started = Instant::now();
    assert_eq!(client.try_response("GET").map(|r| r.status), Err(ReadError::Cut));
    assert!(started.elapsed() < Duration::from_secs(5));
    up.wait_until_idle();
}

#[test]
fn a_connection_closed_before_any_response_is_502() {
    let up = Upstream::scripted(|conn| drop(conn.request()));
    let gateway = gateway(&quoted(up.address()), "");
    assert_eq!(answer(&gateway), (502, "upstream.closed".into()));
}

#[test]
fn a_reset_before_any_response_is_502() {
    let up = Upstream::scripted(|conn| {
        let _ = conn.request();
        conn.reset();
    });
    let gateway = gateway(&quoted(up.address()), "");
    assert_eq!(answer(&gateway), (502, "upstream.closed".into()));
}

#[test]
fn a_reset_in_the_middle_of_a_response_is_visible() {
    let up = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            if request.target == "/cut" {
                conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
                conn.reset();
                return;
            }
            conn.answer(&request);
        }
    });
    let gateway = gateway(&quoted(up.address()), "");
    let mut other = gateway.client();
    assert_eq!(other.get("/fine").status, 200);
    let mut client = gateway.client();
    client.send("GET /cut HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    match client.try_response("GET") {
        Err(ReadError::Cut) => {}
        // The reset may overtake what was sent before it.
        Ok(r) if r.status == 502 => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(other.get("/fine").status, 200, "others do not notice");
}

/// Serves one request, then closes the idle connection (or, with `reset`, resets it) when told.
fn closes_idle(reset: bool) -> (Upstream, Arc<AtomicBool>) {
    let close = Arc::new(AtomicBool::new(false));
    let told = close.clone();
    let upstream = Upstream::scripted(move |conn| {
        if conn.index > 0 {
            return conn.serve();
        }
        let request = conn.request().unwrap();
        conn.answer(&request);
        while !told.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if reset {
            conn.reset();
        }
    });
    (upstream, close)
}

#[test]
fn a_connection_that_died_idle_is_not_noticed_by_clients() {
    for reset in [false, true] {
        for method in ["GET", "PUT", "DELETE"] {
            let (up, close) = closes_idle(reset);
            let gateway = gateway(&quoted(up.address()), "");
            let mut client = gateway.client();
            assert_eq!(client.get("/1").status, 200);
            close.store(true, Ordering::SeqCst);
            up.wait_until_idle();
            client.send(format!("{method} /2 HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
            assert_eq!(client.response().text(), format!("{method} /2"), "reset {reset}");
        }
    }
}

/// Serves one request per connection; the second on the first connection is read, then dropped.
fn drops_the_second() -> (Upstream, Arc<AtomicUsize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = dropped.clone();
    let upstream = Upstream::scripted(move |conn| {
        if conn.index > 0 {
            return conn.serve();
        }
        let request = conn.request().unwrap();
        conn.answer(&request);
        if conn.request().is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (upstream, dropped)
}

#[test]
fn a_reused_connection_that_dies_is_retried_once_when_that_is_safe() {
    let (up, dropped) = drops_the_second();
    let gateway = gateway(&quoted(up.address()), "");
    let mut client = gateway.client();
    assert_eq!(client.get("/1").status, 200);
    assert_eq!(client.get("/2").text(), "GET /2");
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert_eq!(up.requests().iter().filter(|r| r.target == "/2").count(), 2);
}

#[test]
fn a_post_that_was_sent_is_never_sent_twice() {
    let (up, dropped) = drops_the_second();
    let gateway = gateway(&quoted(up.address()), "");
    let mut client = gateway.client();
    assert_eq!(client.get("/1").status, 200);
    client.send("POST /2 HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\nhello");
    let response = client.response();
    assert_eq!((response.status, response.reason().as_str()), (502, "upstream.closed"));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert_eq!(up.requests().iter().filter(|r| r.target == "/2").count(), 1);
}

#[test]
fn unasked_bytes_on_an_idle_connection_are_never_a_response() {
    let (go, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (told, tell) = (go.clone(), sent.clone());
    let up = Upstream::scripted(move |conn| {
        if conn.index > 0 {
            return conn.serve();
        }
        let request = conn.request().unwrap();
        conn.answer(&request);
        while !told.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        conn.ok("poison");
        tell.store(true, Ordering::SeqCst);
        conn.until_closed();
    });
    let gateway = gateway(&quoted(up.address()), "");
    let mut client = gateway.client();
    assert_eq!(client.get("/1").text(), "GET /1");
    go.store(true, Ordering::SeqCst);
    eventually("the bytes are sent", || sent.load(Ordering::SeqCst));
    assert_eq!(client.get("/2").text(), "GET /2");
}

#[test]
fn the_pool_has_bounds() {
    // None kept.
    let up = Upstream::ok();
    let gateway = gateway(&quoted(up.address()), "pool = { idle_max = 0 }");
    let mut client = gateway.client();
    (0..3).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!(up.connections(), 3);
    up.wait_until_idle();
}

#[test]
fn idle_connections_end() {
    let up = Upstream::ok();
    let gateway = gateway(&quoted(up.address()), "pool = { idle_timeout = \"150ms\" }");
    assert_eq!(gateway.client().get("/").status, 200);
    assert_eq!(up.open(), 1);
    up.wait_until_idle();
}

#[test]
fn concurrent_requests_get_connections_of_their_own() {
    let count = AtomicUsize::new(0);
    let up = Upstream::scripted(move |conn| {
        while let Ok(request) = conn.request() {
            count.fetch_add(1, Ordering::SeqCst);
            let started = Instant::now();
            while count.load(Ordering::SeqCst) < 10 && started.elapsed() < crate::harness::PATIENCE
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            conn.answer(&request);
        }
    });
    let gateway = gateway(&quoted(up.address()), "");
    std::thread::scope(|scope| {
        for i in 0..10 {
            let gateway = &gateway;
            scope.spawn(move || {
                let path = format!("/{i}");
                assert_eq!(gateway.client().get(&path).text(), format!("GET {path}"));
            });
        }
    });
    assert_eq!(up.connections(), 10);
}

#[test]
fn unix_upstreams() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let up = Upstream::scripted_unix(&path, crate::harness::Conn::serve);
    let gateway = gateway(&format!("\"unix:{}\"", path.display()), "");
    let mut client = gateway.client();
    (0..3).for_each(|i| assert_eq!(client.get(&format!("/{i}")).text(), format!("GET /{i}")));
    assert_eq!(up.connections(), 1);
    let request = up.requests().remove(0);
    assert_eq!(request.field("host"), Some("gw.test"));
}

#[test]
fn a_missing_unix_upstream_is_503() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = gateway(&format!("\"unix:{}/none.sock\"", dir.path().display()), "");
    assert_eq!(answer(&gateway), (503, "upstream.connect".into()));
}

#[test]
fn failures_leak_no_descriptor() {
    let up = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            match request.target.as_str() {
                "/close" => return,
                "/reset" => return conn.reset(),
                "/garbage" => {
                    conn.send("garbage\r\n\r\n");
                }
                "/short" => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
                    return;
                }
                "/hang" => return conn.until_closed(),
                _ => {
                    conn.answer(&request);
                }
            }
        }
    });
    let keys = "first_byte_timeout = \"100ms\"\npool = { idle_timeout = \"100ms\" }";
    let gateway = gateway(&quoted(up.address()), keys);
    assert_eq!(gateway.client().get("/").status, 200);
    up.wait_until_idle();
    let before = gateway.open_fds();
    for _ in 0..5 {
        for path in ["/close", "/reset", "/garbage", "/short", "/hang", "/fine"] {
            let mut client = gateway.client();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
            match client.try_response("GET") {
                Ok(r) => assert!([200, 502, 504].contains(&r.status), "{path}: {}", r.status),
                Err(e) => assert_eq!((path, e), ("/short", ReadError::Cut)),
            }
        }
    }
    eventually("the descriptors are given back", || gateway.open_fds() <= before);
    up.wait_until_idle();
}

/// The upstream is a process of its own here, so that the kernel takes its connections apart.
#[test]
fn an_upstream_process_that_is_killed_and_restarted() {
    let app = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            if request.target == "/stuck" {
                return conn.until_closed();
            }
            if request.target != "/half" {
                conn.answer(&request);
                continue;
            }
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
            return conn.until_closed();
        }
    });
    let address = refused();
    let process = || {
        Gateway::start(&format!(
            "[[listeners]]\nbind = \"{address}\"\n[[routes]]\nupstream = \"app\"\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            app.address()
        ))
    };
    let killed = process();
    let healthy = Upstream::ok();
    let keys = "pool = { idle_timeout = \"100ms\" }";
    let gateway = Gateway::start(&format!(
        "[runtime]\nworkers = 1\n[[routes]]\npath = \"/healthy\"\nupstream = \"healthy\"\n\
         [[routes]]\nupstream = \"killed\"\n\
         [upstreams.healthy]\nendpoints = [\"{}\"]\n{keys}\n\
         [upstreams.killed]\nendpoints = [\"{address}\"]\nconnect_cooldown = \"50ms\"\n{keys}\n",
        healthy.address()
    ));
    gateway.client().get("/healthy");
    healthy.wait_until_idle();
    let before = gateway.open_fds();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\n\r\n");

    let (mut half, mut stuck, mut kept) = (gateway.client(), gateway.client(), gateway.client());
    assert_eq!(kept.get("/first").status, 200);
    half.send(request("/half"));
    half.head();
    half.reader.exactly(5).unwrap();
    stuck.send(request("/stuck"));
    eventually("the upstream has it", || app.requests().iter().any(|r| r.target == "/stuck"));

    killed.signal(nix::sys::signal::Signal::SIGKILL);
    killed.wait_exit();
    assert_eq!(half.reader.exactly(5), Err(ReadError::Cut), "what was begun cannot be completed");
    // Not tried again: its connection was new, so the upstream had it and may have begun.
    let response = stuck.response();
    assert_eq!((response.status, response.reason().as_str()), (502, "upstream.closed"));
    // The kernel may take a moment to close what a killed process's ring still held.
    eventually("nobody listens", || std::net::TcpStream::connect(address).is_err());
    let response = kept.get("/second");
    assert_eq!((response.status, response.reason().as_str()), (503, "upstream.connect"));
    assert_eq!(gateway.client().get("/healthy").status, 200, "others are not affected");

    let _restarted = process();
    eventually("served again", || gateway.client().get("/third").status == 200);
    assert_eq!(kept.get("/fourth").status, 200, "the client's connection outlived its upstream");
    drop((half, stuck, kept));
    eventually("the descriptors are given back", || gateway.open_fds() <= before);
}

#[test]
fn a_large_upload_to_an_upstream_that_dies_ends() {
    let up = Upstream::scripted(|conn| {
        let _ = conn.request_head();
        conn.reset();
    });
    let gateway = gateway(&quoted(up.address()), "");
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 100000000\r\n\r\n");
    for _ in 0..1000 {
        if !client.try_send([0; 10_000]) {
            break;
        }
    }
    match client.try_response("GET") {
        Ok(response) => {
            assert_eq!((response.status, response.reason().as_str()), (502, "upstream.closed"))
        }
        Err(e) => panic!("{e:?} instead of a 502"),
    }
    client.expect_closed();
}

#[test]
fn an_upload_that_nobody_takes_ends_with_its_response() {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let upstream = Upstream::scripted(move |conn| {
        conn.request_head().unwrap();
        conn.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
        // Neither reads nor closes.
        let _ = held.lock().unwrap().recv();
    });
    let gateway = Gateway::before(upstream.address(), "");
    let before = gateway.open_fds();
    let mut client = gateway.client();
    client.send("PUT / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 50000000\r\n\r\n");
    let piece = vec![b'.'; 1 << 20];
    let _ = (0..47).all(|_| client.try_send(&piece));
    assert_eq!(client.response().status, 413);
    drop(client);
    eventually("every descriptor is closed", || gateway.open_fds() <= before);
    drop(hold);
}

#[test]
fn a_request_whose_client_has_left_is_not_sent_again() {
    let upstream = Upstream::scripted(|conn| {
        if let Ok(request) = conn.request() {
            conn.answer(&request);
            let _ = conn.request();
            conn.until_closed();
        }
    });
    let gateway = Gateway::before(upstream.address(), "[runtime]\nworkers = 1\n");
    gateway.client().get("/first");
    let mut client = gateway.client();
    client.send("GET /second HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    eventually("it is there", || upstream.requests().len() == 2);
    client.reset();
    let left = "ringway_refusals_total{reason=\"client.aborted\"} 1\n";
    eventually("it is given up", || gateway.admin().get("/metrics").text().contains(left));
    assert_eq!(upstream.connections(), 1);
}
