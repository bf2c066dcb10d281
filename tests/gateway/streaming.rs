//! Bodies: intact at any size, bounded in memory, and given up at once when nobody wants them.

use std::time::{Duration, Instant};

use crate::harness::{
    Client, Gateway, Pattern, ReadError, Server, Socket, Upstream, bodies_pass, eventually,
    within_patience,
};

const LARGE: usize = 64 << 20;

/// Reads a body of exactly `LARGE` bytes that the head announced, checking as it goes.
#[track_caller]
fn read_large(client: &mut Client) {
    let mut pattern = Pattern::default();
    while pattern.position() < LARGE as u64 {
        if client.reader.buf.is_empty() {
            assert!(
                client.reader.fill().expect("more of the body") > 0,
                "cut at {}",
                pattern.position()
            );
        }
        let bytes = std::mem::take(&mut client.reader.buf);
        let left = LARGE - pattern.position() as usize;
        let (body, rest) = bytes.split_at(bytes.len().min(left));
        pattern.check(body);
        client.reader.buf = rest.to_vec();
    }
}

fn memory_grows_less_than(gateway: &Gateway, bound: u64, work: impl FnOnce()) {
    let before = gateway.rss_bytes();
    work();
    let after = gateway.rss_bytes();
    assert!(after < before + bound, "from {before} to {after} bytes");
}

#[test]
fn a_large_download_is_intact() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = gateway.client();
    client.get("/bytes/3000000");
    memory_grows_less_than(&gateway, 8 << 20, || {
        client.send(format!("GET /bytes/{LARGE} HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
        assert_eq!(client.head().field("content-length"), Some(LARGE.to_string().as_str()));
        read_large(&mut client);
    });
    assert_eq!(client.get("/bytes/10").body.len(), 10);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_large_chunked_download_is_intact() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = gateway.client();
    client.send(format!("GET /chunked/{} HTTP/1.1\r\nHost: gw.test\r\n\r\n", LARGE / 8));
    let response = client.response();
    assert_eq!(response.body.len(), LARGE / 8);
    Pattern::default().check(&response.body);
    assert_eq!(client.get("/bytes/10").body.len(), 10);
}

#[test]
fn a_large_upload_is_intact() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = gateway.client();
    client.send("POST /sink HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 3000000\r\n\r\n");
    client.send(Pattern::default().take(3_000_000));
    assert_eq!(client.response().text(), "3000000 intact");
    memory_grows_less_than(&gateway, 8 << 20, || {
        client.send(format!(
            "POST /sink HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {LARGE}\r\n\r\n"
        ));
        let mut pattern = Pattern::default();
        for _ in 0..LARGE / 65_536 {
            client.send(pattern.take(65_536));
        }
        assert_eq!(client.response().text(), format!("{LARGE} intact"));
    });
    client.send("POST /sink HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut pattern = Pattern::default();
    for _ in 0..100 {
        client.send("14000\r\n");
        client.send(pattern.take(0x14000));
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.response().text(), "8192000 intact");
}

#[test]
fn bodies_of_every_awkward_size() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = gateway.client();
    let edges = [4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144, 1 << 20];
    for size in [0, 1, 2, 3].into_iter().chain(edges.into_iter().flat_map(|n| [n - 1, n, n + 1])) {
        bodies_pass(&mut client, size);
    }
    assert_eq!(server.connections(), 1);
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
fn slow_readers_do_not_pull_more_than_their_buffers() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    gateway.client().get("/bytes/3000000");
    let before = (gateway.rss_bytes(), server.sent_bytes());
    let mut clients: Vec<Client> = (0..20).map(|_| narrow(&gateway)).collect();
    for client in &mut clients {
        client.send(format!("GET /bytes/{LARGE} HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
    }
    let pulled = settled(|| server.sent_bytes()) - before.1;
    // For each: one pipe of 1 MiB, `limits.unsent` of 256 KiB, and what the kernel keeps for the
    // other sockets on the way. Without the bound on unsent bytes it would be 4.75 MiB and more.
    assert!(pulled < 20 * (15 << 18), "{pulled} bytes for 20 clients that read nothing");
    let grown = gateway.rss_bytes().saturating_sub(before.0);
    assert!(
        grown < 14 << 20,
        "{grown} bytes of memory: less than 20 relay buffers and the allocator's slack"
    );
    // One that begins to read after all gets everything.
    clients.truncate(1);
    clients[0].head();
    read_large(&mut clients[0]);
}

#[test]
fn a_slow_upstream_holds_back_the_client() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request_head().is_ok() {
            // Reads nothing of the body until the client has stalled and gone away.
            std::thread::sleep(Duration::from_secs(2));
            conn.until_closed();
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.reader.socket.set_write_timeout(Duration::from_millis(500));
    client.send(format!("POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {LARGE}\r\n\r\n"));
    let before = gateway.rss_bytes();
    let mut sent = 0;
    while sent < LARGE && client.try_send(vec![0; 65_536]) {
        sent += 65_536;
    }
    assert!(sent < LARGE / 2, "{sent} bytes were taken though nobody reads them");
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 6 << 20, "{grown} bytes of memory, of {sent} taken");
}

#[test]
fn a_client_that_goes_away_frees_the_upstream() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request().is_ok() {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while conn.send(format!("10000\r\n{}\r\n", "x".repeat(65_536))) {}
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    for reset in [false, true] {
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        client.head();
        client.reader.exactly(100_000).unwrap();
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        upstream.wait_until_idle();
    }
}

#[test]
fn a_client_that_goes_away_before_the_response_frees_the_upstream() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request().is_ok() {
            conn.until_closed();
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    upstream.wait_for_connections(1);
    eventually("the request arrives", || !upstream.requests().is_empty());
    client.reset();
    upstream.wait_until_idle();
}

#[test]
fn a_client_that_goes_away_while_it_sends_frees_the_upstream() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request_head().is_ok() {
            conn.until_closed();
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let before = upstream.connections();
        let mut client = gateway.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: gw.test\r\n{framing}\r\n\r\n3e8\r\n"));
        client.send(vec![b'x'; 100]);
        upstream.wait_for_connections(before + 1);
        drop(client);
        upstream.wait_until_idle();
    }
    assert_eq!(upstream.requests().len(), 0, "nothing complete arrived");
}

/// An upstream that answers only after it was told to.
fn held() -> (Upstream, std::sync::mpsc::Sender<()>) {
    let (tell, told) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::scripted(move |conn| {
        while let Ok(request) = conn.request() {
            if told.lock().unwrap().recv_timeout(crate::harness::PATIENCE).is_err() {
                return conn.until_closed();
            }
            conn.answer(&request);
        }
    });
    (upstream, tell)
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let (upstream, tell) = held();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send("GET /a HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    client.finish_sending();
    eventually("the request arrives", || !upstream.requests().is_empty());
    tell.send(()).unwrap();
    assert_eq!(client.response().text(), "GET /a");
    client.expect_clean_close();
}

#[test]
fn half_closed_after_several_requests() {
    let (upstream, tell) = held();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send("GET /a HTTP/1.1\r\nHost: gw.test\r\n\r\nGET /b HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    client.finish_sending();
    (0..2).for_each(|_| tell.send(()).unwrap());
    assert_eq!(client.response().text(), "GET /a");
    assert_eq!(client.response().text(), "GET /b");
    client.expect_clean_close();
    drop(upstream);
}

/// How bodies are passed on: through pipes, and through buffers.
const PIPES: &str = "";
const BUFFERS: &str = "[limits]\nsplice = \"0B\"\n";

/// Asks for so many bodies of `bytes`, and then for nothing more.
fn half_closed(gateway: &Gateway, bytes: usize, count: usize) -> Client {
    let mut client = gateway.client();
    client.send(format!("GET /bytes/{bytes} HTTP/1.1\r\nHost: gw.test\r\n\r\n").repeat(count));
    client.finish_sending();
    client
}

#[test]
fn half_closed_clients_that_do_not_read_are_cut() {
    let server = Server::start();
    // The last are written by the ring.
    for (way, bytes, count) in [(PIPES, LARGE, 1), (BUFFERS, LARGE, 1), (BUFFERS, 20_000, 1000)] {
        let keys = format!(
            "{way}[timeouts]\nwrite = \"300ms\"\n\
             [admin]\nstatus_bind = \"127.0.0.1:0\"\nstatus_hosts = [\"gw.test\"]\n"
        );
        let gateway = Gateway::before(server.address(), &keys);
        let clients: Vec<Client> = (0..8).map(|_| half_closed(&gateway, bytes, count)).collect();
        let refusals = "ringway_refusals_total{reason=\"client.stalled\"} 8";
        eventually("the gateway gives all up", || {
            gateway.admin().get("/metrics").text().contains(refusals)
        });
        assert_eq!(gateway.kernel_threads(), 0, "none waits for a client of {bytes} bytes");
        for mut client in clients {
            let ended = std::iter::from_fn(|| Some(client.try_response("GET")));
            let ended = ended.filter_map(Result::err).next();
            assert!(matches!(ended, Some(ReadError::Cut | ReadError::Reset)), "{ended:?}");
        }
    }
}

#[test]
fn a_half_closed_client_that_reads_late_gets_all() {
    for way in [PIPES, BUFFERS] {
        let server = Server::start();
        let gateway = Gateway::before(server.address(), way);
        let mut client = half_closed(&gateway, LARGE, 1);
        let mut before = 0;
        eventually("nothing more is taken", || {
            let sent = server.sent_bytes();
            sent > 0 && std::mem::replace(&mut before, sent) == sent
        });
        client.head();
        read_large(&mut client);
        client.expect_clean_close();
        assert_eq!(gateway.kernel_threads(), 0, "none waited for a client");
    }
}

#[test]
fn a_listener_may_take_a_half_close_for_a_whole_one() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request().is_ok() {
            conn.until_closed();
        }
    });
    let gateway = Gateway::before(
        upstream.address(),
        "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\nhalf_close = \"abort\"\n",
    );
    let mut client = gateway.client();
    client.send("GET /a HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    eventually("the request arrives", || !upstream.requests().is_empty());
    client.finish_sending();
    upstream.wait_until_idle();
    assert!(matches!(client.try_response("GET"), Err(ReadError::Closed | ReadError::Reset)));
}

#[test]
fn many_at_once_stay_apart() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    std::thread::scope(|scope| {
        for i in 0..16 {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut client = gateway.client();
                for round in 0..8 {
                    let size = 1000 * (i + 1) * (round + 1);
                    let response = client.get(&format!("/bytes/{size}"));
                    assert_eq!(response.body.len(), size);
                    Pattern::default().check(&response.body);
                }
            });
        }
    });
}

/// What has arrived of a body is read at once, but no byte more: the next request is there already.
#[test]
fn no_byte_behind_a_body_is_read_with_it() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    for size in [8_000, 8_300, 9_000, 16_384, 65_000, 66_000, 300_000] {
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let head =
            format!("POST /{size} HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {size}\r\n\r\n");
        let next = format!("GET /after-{size} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        let mut client = gateway.client();
        client.send([head.as_bytes(), &body, next.as_bytes()].concat());
        assert_eq!((client.response().status, client.response().status), (200, 200), "{size}");
        let requests = upstream.requests();
        let sent = requests.iter().find(|request| request.body.len() == size).expect("the body");
        assert!(sent.body == body, "{size}");
        let next = format!("/after-{size}");
        let asked = requests.iter().filter(|request| request.target == next).count();
        assert_eq!(asked, 1, "{size}");
    }
}

/// A body does not fit into one relay buffer after the head, nor even what came with the head.
#[test]
fn relay_buffers_may_be_smaller_than_what_a_read_brings() {
    let (server, upstream) = (Server::start(), Upstream::ok());
    let gateway = Gateway::start(&format!(
        "[limits]\nrelay_buffer = \"4KiB\"\nrelay_buffer_large = \"4KiB\"\n\
         [[routes]]\nupstream = \"files\"\n[[routes]]\npath = \"/up\"\nupstream = \"up\"\n\
         [upstreams.files]\nendpoints = [\"{}\"]\n[upstreams.up]\nendpoints = [\"{}\"]\n",
        server.address(),
        upstream.address()
    ));
    let mut client = gateway.client();
    for size in [5_000, 9_000, 70_000, 300_000] {
        let response = client.get(&format!("/bytes/{size}"));
        assert_eq!(response.body.len(), size);
        Pattern::default().check(&response.body);
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let head = format!("POST /up HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {size}\r\n\r\n");
        client.send([head.as_bytes(), &body].concat());
        assert_eq!(client.response().status, 200);
        assert!(upstream.requests().iter().any(|request| request.body == body), "{size}");
    }
}

/// After a message of some KiB the next one is read into a larger buffer, whatever it turns out to
/// be.
#[test]
fn what_follows_a_message_of_some_size_is_intact() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = gateway.client();
    for size in [20_000, 20_000, 0, 20_000, 200_000, 20_000, 32_000, 40_000, 9_000, 9_000] {
        for path in ["bytes", "chunked"] {
            let response = client.get(&format!("/{path}/{size}"));
            assert_eq!(response.body.len(), size, "{path}");
            Pattern::default().check(&response.body);
        }
        let head = format!("PUT /sink HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {size}\r\n\r\n");
        // Two at once: the second begins in the same read as the first ends, where there is room.
        let body = Pattern::default().take(size);
        client.send([head.as_bytes(), &body, head.as_bytes(), &body].concat());
        for _ in 0..2 {
            assert_eq!(client.response().text(), format!("{size} intact"));
        }
    }
    assert_eq!(server.connections(), 1);
}

/// The larger buffer of a connection that has sent something of some KiB is given up when it idles.
#[test]
fn connections_that_idle_after_uploads_hold_no_large_buffer() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "[timeouts]\npark = \"100ms\"\n");
    let upload = |client: &mut Client| {
        client.send("PUT /sink HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 30000\r\n\r\n");
        client.send(Pattern::default().take(30_000));
        assert_eq!(client.response().text(), "30000 intact");
    };
    upload(&mut gateway.client());
    let before = gateway.anonymous_bytes();
    let mut clients: Vec<Client> = (0..200).map(|_| gateway.client()).collect();
    // Twice, so that the second one is read into a larger buffer, and closely, so that the
    // connection counts as busy.
    clients.iter_mut().for_each(|client| (0..2).for_each(|_| upload(client)));
    let bound = before + 200 * 16 * 1024;
    let mut now = 0;
    let is_so = within_patience(|| {
        now = gateway.anonymous_bytes();
        now < bound
    });
    assert!(is_so, "200 buffers of 64 KiB are not given back: {now} bytes, {before} before");
}
