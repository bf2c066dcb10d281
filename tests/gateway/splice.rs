//! Response bodies that the kernel moves: as whole, as bounded and as honest as copied ones.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use crate::harness::{
    Client, Conn, Gateway, PATIENCE, Pattern, ReadError, Server, Socket, Upstream, eventually,
};

/// Far more than the sockets on the way take by themselves.
const LARGE: usize = 64 << 20;
/// Comes in pieces that are not spliced as a whole, and is more than one pipe holds.
const SOME: usize = 3 << 20;

const ADMIN: &str = "[admin]\nstatus_bind = \"127.0.0.1:0\"\nstatus_hosts = [\"gw.test\"]\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\n\r\n")
}

/// Bytes of bodies that were spliced so far.
#[track_caller]
fn spliced(gateway: &Gateway) -> u64 {
    gateway.figure("ringway_spliced_bytes_total").expect("the metric") as u64
}

/// A client whose kernel buffers little.
fn narrow(gateway: &Gateway) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&gateway.address().into()).unwrap();
    Client::over(Socket::Tcp(socket.into()))
}

/// An upstream that announces `announced` bytes and sends the beginning of a pattern, `sends` of
/// them; what it does then is up to `after`.
fn short(
    announced: usize,
    sends: usize,
    after: impl Fn(&mut Conn) + Send + Sync + 'static,
) -> Upstream {
    Upstream::scripted(move |conn| {
        if conn.request().is_ok() {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n"));
            conn.send(Pattern::default().take(sends));
            after(conn);
        }
    })
}

#[test]
fn bodies_around_the_bounds_are_intact() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), ADMIN);
    let mut client = gateway.client();
    // What is left to come after the first read decides, and a pipe holds 1 MiB.
    let edges = [32 << 10, 40 << 10, 64 << 10, 256 << 10, 1 << 20, (1 << 20) + (8 << 10), 2 << 20];
    for edge in edges {
        for size in [edge - 1, edge, edge + 1] {
            let response = client.get(&format!("/bytes/{size}"));
            assert_eq!(response.body.len(), size);
            Pattern::default().check(&response.body);
        }
    }
    // Both connections were kept through all of it.
    assert_eq!(server.connections(), 1);
    let moved = spliced(&gateway);
    assert!(moved > 3 << 20, "{moved} bytes were spliced");
    // Small ones are not.
    client.get("/bytes/20000");
    assert_eq!(spliced(&gateway), moved);
}

#[test]
fn it_can_be_turned_off_and_on_by_a_reload() {
    let server = Server::start();
    let with = |keys: &str| {
        format!(
            "{ADMIN}[runtime]\nworkers = 1\n{keys}[[listeners]]\n\
             bind = \"127.0.0.1:0\"\n[[routes]]\nupstream = \"app\"\n[upstreams.app]\n\
             endpoints = [\"{}\"]\n",
            server.address()
        )
    };
    let gateway = Gateway::start(&with(""));
    let mut client = gateway.client();
    assert_eq!(client.get(&format!("/bytes/{SOME}")).body.len(), SOME);
    let moved = spliced(&gateway);
    assert!(moved > 0);
    assert!(gateway.reload(&with("[limits]\nsplice = \"0B\"\n")));
    let response = client.get(&format!("/bytes/{SOME}"));
    Pattern::default().check(&response.body);
    assert_eq!(spliced(&gateway), moved);
    assert!(gateway.reload(&with("[limits]\nsplice = \"64KiB\"\n")));
    let response = client.get(&format!("/bytes/{SOME}"));
    Pattern::default().check(&response.body);
    assert!(spliced(&gateway) > moved);
}

#[test]
fn requests_sent_ahead_are_answered_after_it() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), ADMIN);
    let mut client = gateway.client();
    client.send([get(&format!("/bytes/{SOME}")), get("/bytes/10"), get("/bytes/100000")].concat());
    for size in [SOME, 10, 100_000] {
        let response = client.response();
        assert_eq!(response.body.len(), size);
        Pattern::default().check(&response.body);
    }
    assert!(spliced(&gateway) > 0);
    assert_eq!(server.connections(), 1);
}

#[test]
fn over_unix_sockets_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("up.sock");
    let _upstream = Upstream::scripted_unix(&path, |conn| {
        while conn.request().is_ok() {
            conn.ok(Pattern::default().take(SOME));
        }
    });
    let own = dir.path().join("gw.sock");
    let gateway = Gateway::start(&format!(
        "[[listeners]]\nbind = \"unix:{}\"\n[[routes]]\nupstream = \"up\"\n\
         [upstreams.up]\nendpoints = [\"unix:{}\"]\n{ADMIN}",
        own.display(),
        path.display()
    ));
    let mut client = Client::connect_unix(&own);
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(response.body.len(), SOME);
        Pattern::default().check(&response.body);
    }
    assert!(spliced(&gateway) > 0);
}

#[test]
fn an_upstream_that_ends_early_never_makes_a_short_whole() {
    for resets in [false, true] {
        let upstream = short(SOME, SOME / 2, move |conn| match resets {
            true => conn.reset(),
            false => conn.shutdown(std::net::Shutdown::Both),
        });
        let gateway = Gateway::before(upstream.address(), ADMIN);
        for _ in 0..3 {
            let mut client = gateway.client();
            client.send(get("/"));
            assert!(matches!(client.try_response("GET"), Err(ReadError::Cut | ReadError::Reset)));
        }
        upstream.wait_until_idle();
    }
}

#[test]
fn bytes_behind_the_body_are_nobodys_response() {
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            let size = request.target[1..].parse().unwrap();
            let mut bytes =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
            bytes.extend(Pattern::default().take(size));
            bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
            conn.send(bytes);
        }
    });
    let gateway = Gateway::before(upstream.address(), ADMIN);
    // What one read brings, what is gathered in a larger buffer, what is spliced.
    for size in [1000, 9000, 20_000, SOME] {
        let mut client = gateway.client();
        // Sent ahead, so that the second one follows the first as closely as may be.
        client.send(get(&format!("/{size}")).repeat(3));
        for _ in 0..3 {
            let response = client.response();
            assert_eq!(response.body.len(), size);
            Pattern::default().check(&response.body);
        }
    }
    assert!(spliced(&gateway) > 0);
}

#[test]
fn a_cut_body_leaves_nothing_to_the_next_one() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), ADMIN);
    // Each leaves in the middle, with a pipe that has bytes in it.
    for _ in 0..5 {
        let mut client = narrow(&gateway);
        client.send(get(&format!("/bytes/{LARGE}")));
        client.head();
        client.reader.exactly(100_000).unwrap();
        client.reset();
    }
    let mut client = gateway.client();
    for size in [100_000, SOME] {
        let response = client.get(&format!("/bytes/{size}"));
        assert_eq!(response.body.len(), size);
        Pattern::default().check(&response.body);
    }
}

#[test]
fn a_client_that_goes_away_frees_the_upstream() {
    // One that sends without end, and one that stalls: then nothing but a look at the client tells.
    let endless = short(LARGE, LARGE, |_| {});
    let stalling = short(LARGE, 200_000, |conn| conn.until_closed());
    for upstream in [endless, stalling] {
        let gateway = Gateway::before(upstream.address(), ADMIN);
        let mut client = gateway.client();
        client.send(get("/"));
        client.head();
        client.reader.exactly(100_000).unwrap();
        client.reset();
        upstream.wait_until_idle();
        assert_eq!(upstream.connections(), 1);
    }
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let server = Server::start();
    let gateway =
        Gateway::before(server.address(), &format!("{ADMIN}[timeouts]\nwrite = \"300ms\"\n"));
    let mut client = narrow(&gateway);
    client.send(get(&format!("/bytes/{LARGE}")));
    eventually("it is spliced", || spliced(&gateway) > 0);
    let refusals = "ringway_refusals_total{reason=\"client.stalled\"} 1";
    eventually("the gateway gives up", || {
        gateway.admin().get("/metrics").text().contains(refusals)
    });
    assert!(server.sent_bytes() < LARGE as u64 / 2);
    assert!(matches!(client.try_response("GET"), Err(ReadError::Cut | ReadError::Reset)));
}

#[test]
fn an_upstream_that_stalls_is_cut() {
    let upstream = short(SOME, SOME / 2, |conn| conn.until_closed());
    let gateway = Gateway::start(&format!(
        "[[listeners]]\nbind = \"127.0.0.1:0\"\n[[routes]]\nupstream = \"up\"\n\
         [upstreams.up]\nendpoints = [\"{}\"]\nidle_timeout = \"300ms\"\n{ADMIN}",
        upstream.address()
    ));
    let mut client = gateway.client();
    client.send(get("/"));
    assert!(matches!(client.try_response("GET"), Err(ReadError::Cut | ReadError::Reset)));
    upstream.wait_until_idle();
    assert!(spliced(&gateway) > 0);
    let refusals = "ringway_refusals_total{reason=\"upstream.idle_timeout\"} 1";
    eventually("it is counted", || gateway.admin().get("/metrics").text().contains(refusals));
}

#[test]
fn what_comes_slowly_is_passed_on_as_it_comes() {
    let (tell, told) = mpsc::channel::<usize>();
    let told = Mutex::new(told);
    let upstream = Upstream::scripted(move |conn| {
        if conn.request().is_err() {
            return;
        }
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SOME}\r\n\r\n"));
        let mut pattern = Pattern::default();
        while let Ok(n) = told.lock().unwrap().recv_timeout(PATIENCE) {
            conn.send(pattern.take(n));
        }
    });
    let gateway = Gateway::before(upstream.address(), ADMIN);
    let mut client = gateway.client();
    client.send(get("/"));
    // Nothing of the body is there yet: the head does not wait for it.
    client.head();
    let mut pattern = Pattern::default();
    // Each piece has arrived before the next one is sent.
    for n in [1, 4096, 65_536, 1, 300_000, 7, 100_000] {
        tell.send(n).unwrap();
        pattern.check(&client.reader.exactly(n).unwrap());
    }
    let left = SOME - pattern.position() as usize;
    tell.send(left).unwrap();
    pattern.check(&client.reader.exactly(left).unwrap());
    assert!(spliced(&gateway) > SOME as u64 / 2);
}

#[test]
fn slow_readers_hold_no_more_than_a_pipe_and_their_sockets() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), ADMIN);
    gateway.client().get(&format!("/bytes/{SOME}"));
    let (rss, sent) = (gateway.rss_bytes(), server.sent_bytes());
    let mut clients: Vec<Client> = (0..20).map(|_| narrow(&gateway)).collect();
    for client in &mut clients {
        client.send(get(&format!("/bytes/{LARGE}")));
    }
    let (mut last, mut since) = (0, Instant::now());
    eventually("no more is pulled", || {
        let now = server.sent_bytes();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(300)
    });
    // One pipe, `limits.unsent`, and what the upstream's sockets take.
    let pulled = server.sent_bytes() - sent;
    assert!(pulled < 20 * (15 << 18), "{pulled} bytes for 20 clients that read nothing");
    // None of it is the process's memory.
    let grown = gateway.rss_bytes().saturating_sub(rss);
    assert!(grown < 4 << 20, "{grown} bytes of memory");
    // One that reads after all gets everything.
    clients.truncate(1);
    clients[0].head();
    let mut pattern = Pattern::default();
    while pattern.position() < LARGE as u64 {
        pattern.check(&clients[0].reader.exactly(1 << 20).unwrap());
    }
}

#[test]
fn more_bodies_at_a_time_than_pipes_are_whole() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), &format!("{ADMIN}[runtime]\nworkers = 1\n"));
    let mut clients: Vec<Client> = (0..100).map(|_| narrow(&gateway)).collect();
    for client in &mut clients {
        client.send(get(&format!("/bytes/{SOME}")));
    }
    eventually("all have begun", || server.connections() >= 100);
    for client in &mut clients {
        client.head();
        Pattern::default().check(&client.reader.exactly(SOME).unwrap());
    }
}

#[test]
fn an_upload_that_still_runs_is_not_disturbed() {
    // The response comes while the request does: both connections move both ways.
    let upstream = Upstream::scripted(|conn| {
        let Ok(head) = conn.request_head() else { return };
        let length: usize = head.field("content-length").unwrap().parse().unwrap();
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SOME}\r\n\r\n"));
        let mut body = Pattern::default();
        for _ in 0..3 {
            conn.send(body.take(SOME / 4));
        }
        let mut received = Pattern::default();
        received.check(&conn.reader.exactly(length).unwrap());
        conn.send(body.take(SOME / 4));
        conn.serve();
    });
    let gateway = Gateway::before(upstream.address(), ADMIN);
    let mut client = gateway.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {SOME}\r\n\r\n"));
    let mut sent = Pattern::default();
    client.send(sent.take(SOME / 2));
    client.head();
    let mut pattern = Pattern::default();
    pattern.check(&client.reader.exactly(SOME / 2).unwrap());
    client.send(sent.take(SOME / 2));
    pattern.check(&client.reader.exactly(SOME / 2).unwrap());
}

#[test]
fn the_access_log_has_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let server = Server::start();
    let gateway = Gateway::before(
        server.address(),
        &format!(
            "{ADMIN}[[access_logs]]\nto = \"file:{}\"\n\
             format = {{ template = \"${{status}} ${{response_bytes}}\" }}\n",
            log.display()
        ),
    );
    gateway.client().get(&format!("/bytes/{SOME}"));
    let line = format!("200 {SOME}\n");
    eventually("the line is written", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text == line)
    });
    assert!(spliced(&gateway) > 0);
}

#[test]
fn a_drain_waits_for_it() {
    let go = Arc::new(AtomicBool::new(false));
    let is_told = go.clone();
    let upstream = Upstream::scripted(move |conn| {
        if conn.request().is_ok() {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SOME}\r\n\r\n"));
            let mut pattern = Pattern::default();
            conn.send(pattern.take(SOME / 2));
            eventually("the drain has begun", || is_told.load(Ordering::SeqCst));
            conn.send(pattern.take(SOME / 2));
        }
    });
    let gateway = Gateway::before(upstream.address(), ADMIN);
    let mut client = gateway.client();
    client.send(get("/"));
    client.head();
    let mut pattern = Pattern::default();
    pattern.check(&client.reader.exactly(SOME / 2).unwrap());
    gateway.sigterm();
    gateway.wait_for_log("accepting no more");
    go.store(true, Ordering::SeqCst);
    pattern.check(&client.reader.exactly(SOME / 2).unwrap());
    client.expect_closed();
    assert!(gateway.wait_exit().success());
}
