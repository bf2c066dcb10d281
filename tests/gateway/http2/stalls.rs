//! Clients that do not take their responses: how long they may, and what others notice of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{all_failures, connect, failures};
use crate::harness::{
    Gateway, Http2, PATIENCE, ReadError, Server, Upstream, eventually,
    http2::{code, setting, update},
};

const ONE_WORKER: &str = "[runtime]\nworkers = 1\n";

/// A client that lets so many bytes of each response through, and opens no window by itself.
fn stalled(gateway: &Gateway, window: u32) -> Http2 {
    let mut client = Http2::silent(Http2::tcp(gateway.address()));
    client.begin(&[(setting::WINDOW, window)]);
    client.opens_windows = false;
    client.ping();
    client
}

#[test]
fn windows_that_stay_shut_end_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let log = format!("[[access_logs]]\nto = \"file:{}/log\"\n", folder.path().display());
    let server = Server::start();
    let more = format!("[timeouts]\nwrite = \"400ms\"\n{log}");
    let gateway = Gateway::before(server.address(), &more);
    connect(&gateway).get("/bytes/1000000");
    let before = gateway.anonymous_bytes();
    for (count, size) in [(1, 100), (2, 1 << 20)] {
        let mut client = stalled(&gateway, 0);
        let path = format!("/bytes/{size}");
        let streams: Vec<u32> = (0..128).map(|_| client.ask("GET", &path, &[])).collect();
        let first = client.reset_of(streams[0]);
        assert_eq!(first, code::INTERNAL_ERROR);
        let grown = gateway.anonymous_bytes().saturating_sub(before);
        assert!(grown < 2 << 20, "{grown} bytes while 128 streams of {size} bytes are stalled");
        assert_eq!(client.end().map(|end| end.code), Some(code::ENHANCE_YOUR_CALM));
        eventually("it is counted", || failures(&gateway, "stalled") == count);
        // Those that had begun; no other has.
        let text = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        eventually("they are logged", || text().lines().count() as u64 == 1 + 4 * count);
        assert_eq!(text().matches("client.stalled").count() as u64, 4 * count, "{}", text());
    }
    assert_eq!(all_failures(&gateway).len(), 1, "{:?}", all_failures(&gateway));
}

#[test]
fn windows_that_open_in_time_bring_all_responses() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = stalled(&gateway, 0);
    let streams: Vec<u32> = (0..40).map(|_| client.ask("GET", "/bytes/5000", &[])).collect();
    for stream in &streams {
        client.send(update(*stream, 5000));
    }
    client.send(update(0, 1 << 20));
    for stream in streams {
        assert_eq!(client.response(stream).body.len(), 5000);
    }
    assert_eq!(all_failures(&gateway), [""; 0]);
}

#[test]
fn a_stream_that_stalls_leaves_a_connection_that_takes_others() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "[timeouts]\nwrite = \"200ms\"\n");
    let mut client = stalled(&gateway, 2000);
    for _ in 0..6 {
        let shut = client.ask("GET", "/bytes/100000", &[]);
        assert_eq!(client.reset_of(shut), code::INTERNAL_ERROR);
        assert_eq!(client.get("/bytes/1000").body.len(), 1000);
    }
    assert_eq!(all_failures(&gateway), [""; 0]);
}

/// Answers `/large` with a mebibyte, and counts that; leaves `/waits` waiting.
fn counting() -> (Upstream, Arc<AtomicUsize>) {
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = begun.clone();
    let upstream = Upstream::scripted(move |conn| {
        while let Ok(head) = conn.request_head() {
            match &head.target[..] {
                "/waits" => {
                    counted.fetch_add(1, Ordering::SeqCst);
                    return conn.until_closed();
                }
                "/large" => {
                    counted.fetch_add(1, Ordering::SeqCst);
                    conn.ok(vec![b'x'; 1 << 20]);
                }
                _ => {
                    conn.answer(&head);
                }
            }
        }
    });
    (upstream, begun)
}

/// Requests that wait for the upstream, so many that there is a crowd.
fn crowd(gateway: &Gateway, begun: &AtomicUsize) -> Vec<Http2> {
    let mut clients: Vec<Http2> = (0..2).map(|_| connect(gateway)).collect();
    for client in &mut clients {
        for _ in 0..128 {
            client.ask("GET", "/waits", &[]);
        }
    }
    eventually("all are waiting", || begun.load(Ordering::SeqCst) == 256);
    begun.store(0, Ordering::SeqCst);
    clients
}

#[test]
fn in_a_crowd_a_client_that_takes_nothing_has_few_requests() {
    let (upstream, begun) = counting();
    let more = format!("[timeouts]\nwrite = \"500ms\"\n{ONE_WORKER}");
    let gateway = Gateway::before(upstream.address(), &more);
    let waiting = crowd(&gateway, &begun);
    let mut client = stalled(&gateway, 2000);
    let started = Instant::now();
    let streams: Vec<u32> = (0..20).map(|_| client.ask("GET", "/large", &[])).collect();
    client.reset_of(streams[0]);
    // Others take the places of those that were ended. And each second that the upstream took lets
    // as many begin again.
    let most = 8usize << started.elapsed().as_secs();
    let begun = begun.load(Ordering::SeqCst);
    assert!(begun >= 4 && begun <= most, "{begun}, {most}");
    drop(waiting);
}

#[test]
fn in_a_crowd_a_client_that_takes_responses_gets_all() {
    let (upstream, begun) = counting();
    let gateway = Gateway::before(upstream.address(), ONE_WORKER);
    let waiting = crowd(&gateway, &begun);
    let mut client = connect(&gateway);
    let streams: Vec<u32> = (0..100).map(|n| client.ask("GET", &format!("/{n}"), &[])).collect();
    for stream in streams {
        assert_eq!(client.response(stream).status, 200);
    }
    drop(waiting);
}

/// Calls that wait for their first message take no response, and must begin all the same.
#[test]
fn in_a_crowd_requests_that_wait_for_the_upstream_all_begin() {
    let (upstream, begun) = counting();
    let more = format!("[http2]\nstreams = 600\n{ONE_WORKER}");
    let gateway = Gateway::before(upstream.address(), &more);
    let mut client = connect(&gateway);
    for _ in 0..500 {
        client.ask("GET", "/waits", &[]);
    }
    eventually("all have begun", || begun.load(Ordering::SeqCst) == 500);
}

#[test]
fn of_clients_that_hold_too_much_those_that_take_nothing_are_ended() {
    let server = Server::start();
    let more = format!("[http2]\nstalled = \"64KiB\"\n{ONE_WORKER}");
    let gateway = Gateway::before(server.address(), &more);
    let mut clients = [stalled(&gateway, 2000), stalled(&gateway, 2000)];
    for client in &mut clients {
        for _ in 0..12 {
            client.ask("GET", "/bytes/1000000", &[]);
        }
    }
    let [mut slow, mut shut] = clients;
    shut.reader.socket.set_read_timeout(Duration::from_millis(100));
    let started = Instant::now();
    while shut.goaway.is_none() {
        assert!(started.elapsed() < PATIENCE, "it is not ended");
        // The other takes a little, again and again.
        slow.send(update(1, 10));
        match shut.next() {
            Ok(_) | Err(ReadError::Timeout) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(shut.goaway.map(|end| end.code), Some(code::ENHANCE_YOUR_CALM));
    eventually("it is counted", || failures(&gateway, "stalled") == 1);
    slow.ping();
    assert!(slow.goaway.is_none());
    assert_eq!(connect(&gateway).get("/bytes/10").body.len(), 10);
}

/// The upstream takes all of it, so that nothing waits and no bound on waiting ends it.
#[test]
fn data_of_a_byte_at_a_time_ends_the_connection() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = connect(&gateway);
    let stream = client.open(&crate::harness::http2::pseudo("PUT", "/sink"), false);
    let bytes = crate::harness::http2::frame(0, 0, stream, "x").repeat(50);
    let started = Instant::now();
    while client.goaway.is_none() && client.try_send(&bytes) {
        assert!(started.elapsed() < PATIENCE, "it goes on and on");
        client.reader.socket.set_read_timeout(Duration::from_micros(1));
        match client.next() {
            Ok(_) | Err(ReadError::Timeout) => {}
            Err(_) => break,
        }
    }
    client.reader.socket.set_read_timeout(PATIENCE);
    let end = if client.goaway.is_some() { client.goaway } else { client.end() };
    assert_eq!(end.map(|end| end.code), Some(code::ENHANCE_YOUR_CALM));
    eventually("it is counted", || failures(&gateway, "control_frames") == 1);
}
