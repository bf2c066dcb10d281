//! Start, drivers, drain and end.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::harness::{Client, Gateway, Launch, Over, ReadError, Socket, Upstream, eventually};

const OK: &str = "[[routes]]\nrespond = { body = \"ok\" }\n";

#[test]
fn it_ends_at_once_when_idle() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let gateway = Gateway::start(OK);
        assert_eq!(gateway.client().get("/").text(), "ok");
        gateway.signal(signal);
        let status = gateway.wait_exit();
        assert!(status.success(), "{signal}: {status}\n{}", gateway.log());
    }
}

#[test]
fn it_listens_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gw.sock");
    let gateway = Gateway::start(&format!(
        "{OK}[[listeners]]\nname = \"four\"\nbind = \"127.0.0.1:0\"\n\
         [[listeners]]\nname = \"six\"\nbind = \"[::1]:0\"\n\
         [[listeners]]\nname = \"unix\"\nbind = \"unix:{}\"\n",
        path.display()
    ));
    for name in ["four", "six"] {
        let address = gateway.address_of(name);
        assert_eq!(address.is_ipv6(), name == "six");
        assert_eq!(Client::connect(address).get("/").text(), "ok");
    }
    let mut client = Client::connect_unix(&path);
    (0..3).for_each(|_| assert_eq!(client.get("/").text(), "ok"));
    // Every worker's share of the connections is served.
    for _ in 0..20 {
        assert_eq!(Client::connect(gateway.address_of("four")).get("/").text(), "ok");
        assert_eq!(Client::connect_unix(&path).get("/").text(), "ok");
    }
}

#[test]
fn an_address_in_use_is_a_clear_error() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let toml = format!("{OK}[[listeners]]\nbind = \"{address}\"\n");
    let failed = Launch { toml, ..Launch::default() }.start().err().expect("it cannot start");
    assert!(!failed.status.success());
    assert!(failed.stderr.contains(&address.to_string()), "{}", failed.stderr);
    assert!(failed.stderr.to_lowercase().contains("in use"), "{}", failed.stderr);
}

#[test]
fn a_bad_configuration_is_a_clear_error() {
    let toml = "[[routes]]\nupstraem = \"x\"\n".to_string();
    let failed = Launch { toml, ..Launch::default() }.start().err().expect("it cannot start");
    assert!(!failed.status.success());
    assert!(failed.stderr.contains("upstraem"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("panicked"), "{}", failed.stderr);
}

#[test]
fn without_io_uring_it_falls_back() {
    let launch = Launch {
        toml: format!("{OK}[runtime]\nworkers = 2\nio = \"auto\"\n"),
        without_io_uring: true,
        own_io: true,
        ..Launch::default()
    };
    let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    assert!(gateway.log().contains("epoll"), "{}", gateway.log());
    assert_eq!(gateway.client().get("/").text(), "ok");
    gateway.sigterm();
    assert!(gateway.wait_exit().success());
}

#[test]
fn without_io_uring_it_does_not_pretend() {
    let launch = Launch {
        toml: format!("{OK}[runtime]\nworkers = 2\nio = \"io_uring\"\n"),
        without_io_uring: true,
        own_io: true,
        ..Launch::default()
    };
    let failed = launch.start().err().expect("it cannot start");
    assert!(!failed.status.success());
    assert!(failed.stderr.contains("io_uring"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("panicked"), "{}", failed.stderr);
}

/// Every worker panics several times while other connections are being served.
#[test]
fn a_panic_costs_one_connection_only() {
    let launch = Launch { toml: OK.into(), panic_path: Some("/drill"), ..Launch::default() };
    let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    let mut kept: Vec<Client> = (0..8).map(|_| gateway.client()).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "ok"));
    let fds = gateway.open_fds();
    for _ in 0..16 {
        let mut unlucky = gateway.client();
        unlucky.send("GET /drill HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        unlucky.expect_closed();
    }
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "ok"));
    assert_eq!(gateway.log().matches("drill: a panic was asked for").count(), 16);
    eventually("descriptors are given back", || gateway.open_fds() == fds);
    gateway.sigterm();
    assert!(gateway.wait_exit().success());
    assert!(gateway.log().contains("panics=16"), "{}", gateway.log());
}

#[test]
fn each_driver_can_be_chosen() {
    for io in ["epoll", "io_uring"] {
        let launch = Launch {
            toml: format!("{OK}[runtime]\nworkers = 1\nio = \"{io}\"\n"),
            own_io: true,
            ..Launch::default()
        };
        match launch.start() {
            Ok(gateway) => {
                assert!(gateway.log().contains(io), "{}", gateway.log());
                assert_eq!(gateway.client().get("/").text(), "ok");
            }
            // A machine that refuses io_uring cannot show more than that.
            Err(failed) => {
                assert!(io == "io_uring" && failed.stderr.contains("io_uring"), "{failed:?}")
            }
        }
    }
}

#[test]
fn a_worker_that_spins_does_so_for_a_moment_and_serves_as_ever() {
    let start = |io: &str, spin: &str| {
        let toml = format!("{OK}[runtime]\nworkers = 1\nio = \"{io}\"\nspin = \"{spin}\"\n");
        Launch { toml, own_io: true, ..Launch::default() }.start()
    };
    let epoll = start("epoll", "1ms").unwrap();
    assert!(epoll.log().contains("runtime.spin has no effect"), "{}", epoll.log());
    assert_eq!(epoll.client().get("/").text(), "ok");
    // As above: a machine without io_uring cannot show more.
    let (Ok(spinning), Ok(sleeping)) = (start("io_uring", "1ms"), start("io_uring", "0us")) else {
        return;
    };
    const REQUESTS: u32 = 200;
    let used = |gateway: &Gateway| {
        let mut client = gateway.client();
        let before = gateway.cpu_time();
        for _ in 0..REQUESTS {
            assert_eq!(client.get("/").text(), "ok");
            // Longer than it spins.
            std::thread::sleep(Duration::from_millis(2));
        }
        gateway.cpu_time() - before
    };
    // On a busy machine it has less of its core while it spins.
    eventually("more CPU time used by spinning", || {
        used(&spinning) >= used(&sleeping) + REQUESTS * Duration::from_micros(700)
    });
    // Without traffic it does not spin.
    let before = spinning.cpu_time();
    std::thread::sleep(Duration::from_millis(500));
    let idle = spinning.cpu_time() - before;
    assert!(idle <= Duration::from_millis(100), "{idle:?} while idle");
}

/// Answers every request this much later.
fn slow(wait: Duration) -> Upstream {
    Upstream::scripted(move |conn| {
        while let Ok(request) = conn.request() {
            std::thread::sleep(wait);
            conn.answer(&request);
        }
    })
}

#[test]
fn what_runs_is_finished() {
    let upstream = slow(Duration::from_millis(500));
    let gateway = Gateway::before(upstream.address(), "");
    let mut clients: Vec<Client> = (0..10).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send("GET /slow HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    }
    eventually("all are under way", || upstream.requests().len() == 10);
    gateway.sigterm();
    for client in &mut clients {
        let response = client.response();
        assert_eq!(response.text(), "GET /slow");
        assert_eq!(response.field("connection"), Some("close"));
        client.expect_clean_close();
    }
    assert!(gateway.wait_exit().success());
    assert!(TcpStream::connect(gateway.address()).is_err(), "nobody listens any more");
}

#[test]
fn idle_connections_are_closed_but_a_request_on_its_way_is_answered() {
    let gateway = Gateway::start(&format!("{OK}[shutdown]\ndrain_idle = \"400ms\"\n"));
    let mut idle = gateway.client();
    let mut late = gateway.client();
    assert_eq!((idle.get("/").text(), late.get("/").text()), ("ok".into(), "ok".into()));
    gateway.sigterm();
    gateway.wait_for_log("accepting no more worker=0");
    gateway.wait_for_log("accepting no more worker=1");
    let response = late.get("/");
    assert_eq!((response.text().as_str(), response.field("connection")), ("ok", Some("close")));
    late.expect_clean_close();
    idle.expect_clean_close();
    assert!(gateway.wait_exit().success());
}

#[test]
fn idle_connections_that_park_in_a_drain_stay_as_long_as_others() {
    let gateway = Gateway::start(&format!(
        "{OK}[shutdown]\ndrain_idle = \"3s\"\n[timeouts]\npark = \"500ms\"\n"
    ));
    let mut clients: Vec<Client> = (0..4).map(|_| gateway.client()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "ok"));
    gateway.sigterm();
    gateway.wait_for_log("accepting no more worker=0");
    gateway.wait_for_log("accepting no more worker=1");
    // Longer than until they park, shorter than until they are closed.
    let mut first = clients.swap_remove(0).patience(Duration::from_millis(1500));
    assert_eq!(first.try_response("GET").err(), Some(ReadError::Timeout), "it stays open");
    for client in clients.iter_mut().chain([&mut first]) {
        assert_eq!(client.get("/").field("connection"), Some("close"));
    }
    assert!(gateway.wait_exit().success());
}

#[test]
fn idle_connections_take_little_memory() {
    const CONNECTIONS: u64 = 2000;
    const BYTES_MAX: u64 = 1536;
    allow_descriptors(CONNECTIONS + 200);
    let gateway = Gateway::start(&format!(
        "{OK}[runtime]\nworkers = 1\n[limits]\nconnections = {}\n\
         [timeouts]\npark = \"1s\"\nkeep_alive = \"1h\"\n",
        CONNECTIONS + 10
    ));
    let open = || {
        let mut client = gateway.client();
        assert_eq!(client.get("/").text(), "ok");
        client
    };
    let _first = open();
    let before = gateway.anonymous_bytes();
    let each = || gateway.anonymous_bytes().saturating_sub(before) / CONNECTIONS;
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| open()).collect();
    eventually("buffers and tasks of idle connections go back to the system", || {
        each() <= BYTES_MAX
    });
    // They still work.
    for client in clients.iter_mut().step_by(100) {
        assert_eq!(client.get("/").text(), "ok");
    }
}

/// Lets this process, and those that it starts, open so many files.
fn allow_descriptors(count: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        let raised = Rlimit { current: Some(count), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("a higher limit on open files");
    }
}

#[test]
fn a_drain_is_bounded() {
    let upstream = Upstream::scripted(|conn| {
        let _ = conn.request();
        conn.until_closed();
    });
    let gateway = Gateway::before(upstream.address(), "[shutdown]\ndrain_timeout = \"300ms\"\n");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    eventually("it is under way", || upstream.requests().len() == 1);
    let started = Instant::now();
    gateway.sigterm();
    gateway.wait_exit();
    let took = started.elapsed();
    assert!(took > Duration::from_millis(250) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let upstream = Upstream::scripted(|conn| {
        let _ = conn.request();
        conn.until_closed();
    });
    let gateway = Gateway::before(upstream.address(), "[shutdown]\ndrain_timeout = \"60s\"\n");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    eventually("it is under way", || upstream.requests().len() == 1);
    gateway.sigterm();
    gateway.wait_for_log("drain");
    gateway.sigterm();
    gateway.wait_exit();
}

/// What a drain cuts off must not look complete, and is not forgotten.
#[test]
fn what_a_drain_cuts_off_is_cut_for_the_client_and_logged() {
    // No length: each response ends with its last chunk, for HTTP/1.0 with its connection.
    let upstream = Upstream::scripted(|conn| {
        let request = conn.request().unwrap();
        if request.target != "/silent" {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
        }
        conn.until_closed();
    });
    let until_close = Upstream::scripted(|conn| {
        let _ = conn.request();
        conn.send("HTTP/1.0 200 OK\r\n\r\npart");
        conn.until_closed();
    });
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let gateway = Gateway::start(&format!(
        "[shutdown]\ndrain_timeout = \"400ms\"\n[[access_logs]]\nto = \"file:{}\"\n\
         [[routes]]\nupstream = \"app\"\n[[routes]]\npath = \"/close\"\nupstream = \"close\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n[upstreams.close]\nendpoints = [\"{}\"]\n",
        log.display(),
        upstream.address(),
        until_close.address(),
    ));
    let begun = |path: &str, version: &str| {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/{version}\r\nHost: gw.test\r\n\r\n"));
        let framing: &[u8] = if version == "1.0" { b"part" } else { b"part\r\n" };
        client.reader.through(framing).expect("the head and a part");
        client
    };
    let mut cut = [begun("/x", "1.0"), begun("/close", "1.0"), begun("/x", "1.1")];
    let mut chunked = begun("/close", "1.1");
    let mut silent = gateway.client();
    silent.send("GET /silent HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    eventually("it is under way", || upstream.requests().len() == 3);
    gateway.sigterm();
    for client in &mut cut[..2] {
        assert_eq!(client.reader.fill(), Err(ReadError::Reset), "a FIN would complete it");
    }
    for client in [&mut cut[2], &mut chunked, &mut silent] {
        client.expect_closed();
    }
    gateway.wait_exit();
    assert!(gateway.log().contains("connections_cut=5"), "{}", gateway.log());
    let text = std::fs::read_to_string(&log).unwrap();
    let reasons: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["reason"].clone())
        .collect();
    assert_eq!(reasons, ["gateway.ended"; 5], "{text}");
}

/// One client of the load: keeps its connection, or makes a new one for each request.
fn load(
    address: std::net::SocketAddr,
    keep: bool,
    stop: &AtomicBool,
    served: &AtomicUsize,
) -> Vec<String> {
    let mut failures = Vec::new();
    let connect = || {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).unwrap();
        Some(Client::over(Socket::Tcp(stream)))
    };
    let mut kept: Option<Client> = None;
    while !stop.load(Ordering::SeqCst) {
        // A refused connection is no failed request: the listener is closed and says so.
        let Some(mut client) = kept.take().or_else(connect) else { return failures };
        client.try_send("GET /x HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        match client.try_response("GET") {
            Ok(response) if response.text() == "GET /x" => {
                served.fetch_add(1, Ordering::SeqCst);
                if keep && response.field("connection") != Some("close") {
                    kept = Some(client);
                }
            }
            other => failures.push(format!("{keep}: {other:?}")),
        }
    }
    failures
}

#[test]
fn a_drain_under_load_fails_no_request() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failures: Vec<String> = std::thread::scope(|scope| {
        let (stop, served, address) = (&stop, &served, gateway.address());
        let clients: Vec<_> =
            (0..12).map(|i| scope.spawn(move || load(address, i % 2 == 0, stop, served))).collect();
        let over = Over(stop);
        eventually("some are served", || served.load(Ordering::SeqCst) > 500);
        gateway.sigterm();
        let status = gateway.wait_exit();
        drop(over);
        assert!(status.success(), "{status}");
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), failures.first());
}

#[test]
fn connections_waiting_to_be_accepted_are_served() {
    let gateway = Gateway::start(OK);
    // Connect and send; the signal comes before most of them can have been accepted.
    let mut clients: Vec<Client> = (0..100).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.try_send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    }
    gateway.sigterm();
    for (i, client) in clients.iter_mut().enumerate() {
        match client.try_response("GET") {
            Ok(response) => assert_eq!(response.text(), "ok"),
            Err(e) => panic!("client {i}: {e:?}"),
        }
    }
    assert!(gateway.wait_exit().success());
}

#[test]
fn a_large_transfer_survives_a_drain() {
    let server = crate::harness::Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = gateway.client();
    client.send("GET /bytes/30000000 HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    client.head();
    gateway.sigterm();
    gateway.wait_for_log("drain");
    let body = client.reader.exactly(30_000_000).unwrap();
    crate::harness::Pattern::default().check(&body);
    assert!(gateway.wait_exit().success());
}

#[test]
fn the_descriptors_come_back() {
    let upstream = Upstream::ok();
    let keys = "[timeouts]\nkeep_alive = \"100ms\"\n";
    let gateway = Gateway::start(&format!(
        "{keys}[[routes]]\nupstream = \"app\"\n[upstreams.app]\n\
         endpoints = [\"{}\"]\npool = {{ idle_timeout = \"100ms\" }}\n",
        upstream.address()
    ));
    gateway.client().get("/");
    upstream.wait_until_idle();
    let before = gateway.open_fds();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..25).for_each(|_| assert_eq!(gateway.client().get("/").status, 200)));
        }
    });
    eventually("every descriptor is given back", || gateway.open_fds() <= before);
}

#[test]
fn the_demo_works_and_drains() {
    let launch = Launch { demo: true, ..Launch::default() };
    let demo = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    let address = demo.address();
    demo.wait_for_log(&format!("curl http://{address}"));
    let mut client = demo.client();
    let bodies: std::collections::HashSet<String> =
        (0..10).map(|_| client.get("/fruit").text()).collect();
    assert!(bodies.len() > 1, "both upstreams share the load: {bodies:?}");
    assert!(client.get("/hello/ada").text().contains("/greet/ada"));
    assert_eq!(client.get("/x/../admin").status, 403);
    assert_eq!(client.get("/nowhere").status, 404);
    demo.signal(Signal::SIGINT);
    assert!(demo.wait_exit().success(), "{}", demo.log());
}
