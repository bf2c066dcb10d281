//! WebSockets over HTTP/2 (RFC 8441): the handshake towards the upstream, bytes both ways, and
//! how either side's end reaches the other.

use std::{
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use h2::{Reason, ext::Protocol};
use http::{Method, Request, Response};

use crate::harness::{
    Conn, Gateway, Received, Upstream, eventually,
    http2_client::{Asked, Http2Client, Reply, exactly, reason, send_all},
};

fn accept_of(request: &Received) -> String {
    let key = request.field("sec-websocket-key").unwrap();
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

fn switch(conn: &mut Conn, accept: &str) {
    conn.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    ));
}

/// Answers GETs of `/plain`, and switches for everything else, then does what the script says.
fn upstream(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Upstream {
    Upstream::scripted(move |conn| {
        while let Ok(request) = conn.request_head() {
            if request.target == "/plain" {
                conn.ok("plain");
                continue;
            }
            switch(conn, &accept_of(&request));
            return script(conn);
        }
    })
}

fn echo(conn: &mut Conn) {
    loop {
        let data = std::mem::take(&mut conn.reader.buf);
        if !conn.send(data) || !matches!(conn.reader.fill(), Ok(1..)) {
            return;
        }
    }
}

fn gateway(upstream: &Upstream, more: &str) -> Gateway {
    Gateway::before(upstream.address(), more)
}

fn connect(protocol: &'static str, path: &str) -> Request<()> {
    Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://gw.test{path}"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .header("origin", "http://gw.test")
        .extension(Protocol::from_static(protocol))
        .body(())
        .unwrap()
}

/// Waits until the gateway has said that it takes them.
async fn may_connect(client: &Http2Client) {
    while !client.send.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn begun(client: &Http2Client) -> (Asked, h2::RecvStream) {
    may_connect(client).await;
    let mut asked = client.ask(connect("websocket", "/chat?a=b"), false).await;
    let response: Response<_> = asked.head().await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for name in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
        assert!(!response.headers().contains_key(name), "{:?}", response.headers());
    }
    (asked, response.into_body())
}

async fn rest(body: &mut h2::RecvStream) -> Reply {
    let mut reply = Reply::default();
    reply.rest(body).await;
    reply
}

#[test]
fn the_handshake_as_the_upstream_sees_it() {
    let upstream = upstream(echo);
    let gateway = gateway(&upstream, "");
    Http2Client::with(gateway.address(), async |client| {
        for _ in 0..2 {
            drop(begun(&client).await);
        }
    });
    upstream.wait_until_idle();
    let requests = upstream.requests();
    assert_eq!(requests.len(), 2);
    let mut keys = Vec::new();
    for request in requests {
        assert_eq!(request.head.start_line, "GET /chat?a=b HTTP/1.1");
        for (name, value) in [
            ("host", "gw.test"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
            ("origin", "http://gw.test"),
        ] {
            assert_eq!(request.field(name), Some(value), "{:?}", request.head);
        }
        assert!(!request.head.has("content-length") && !request.head.has("transfer-encoding"));
        keys.push(STANDARD.decode(request.field("sec-websocket-key").unwrap()).unwrap());
    }
    assert_eq!((keys[0].len(), keys[1].len()), (16, 16));
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn a_wrong_answer_to_the_key_is_refused() {
    for accept in ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", ""] {
        let upstream = Upstream::scripted(move |conn| {
            if conn.request_head().is_ok() {
                switch(conn, accept);
                conn.until_closed();
            }
        });
        let gateway = gateway(&upstream, "");
        let reply = Http2Client::with(gateway.address(), async |client| {
            may_connect(&client).await;
            client.ask(connect("websocket", "/"), false).await.reply().await
        });
        assert_eq!((reply.status, reply.reset), (502, None));
        assert!(reply.text().contains("upstream.invalid_response"), "{}", reply.text());
        upstream.wait_until_idle();
    }
}

#[test]
fn upstreams_that_do_not_switch() {
    for (status, wanted) in [(200, 502), (204, 502), (403, 403), (426, 426), (500, 500)] {
        let length = if status == 204 { "" } else { "Content-Length: 2\r\n" };
        let body = if status == 204 { "" } else { "no" };
        let upstream = Upstream::canned(format!("HTTP/1.1 {status} X\r\n{length}\r\n{body}"));
        let gateway = gateway(&upstream, "");
        let reply = Http2Client::with(gateway.address(), async |client| {
            may_connect(&client).await;
            let reply = client.ask(connect("websocket", "/"), false).await.reply().await;
            // The connection serves others as before.
            assert_eq!(client.get("/x").await.status, status);
            reply
        });
        assert_eq!((reply.status, reply.reset), (wanted, None), "{status}");
        match wanted {
            502 => assert!(reply.text().contains("upstream.invalid_response"), "{}", reply.text()),
            _ => assert_eq!(reply.text(), "no"),
        }
    }
}

#[test]
fn bytes_both_ways_and_the_clients_end() {
    let upstream = upstream(|conn| {
        echo(conn);
        // Has seen the client's end, and has a last word.
        conn.send("bye");
    });
    let gateway = gateway(&upstream, "");
    let sent: Bytes = (0..5 << 20).map(|n: u32| (n % 251) as u8).collect();
    Http2Client::with(gateway.address(), async |client| {
        let (mut asked, mut body) = begun(&client).await;
        let mut held = BytesMut::new();
        for number in 0..200 {
            let text = format!("frame {number}").into_bytes();
            asked.stream.send_data(text.clone().into(), false).unwrap();
            assert_eq!(exactly(&mut body, &mut held, text.len()).await.unwrap(), text);
        }
        let data = sent.clone();
        let upload = tokio::spawn(async move {
            assert!(send_all(&mut asked.stream, data).await);
            asked.stream.send_data(Bytes::new(), true).unwrap();
        });
        let reply = rest(&mut body).await;
        upload.await.unwrap();
        assert_eq!((reply.reset, reply.body.len()), (None, sent.len() + 3));
        assert!(reply.body.starts_with(&sent) && reply.body.ends_with(b"bye"));
    });
    upstream.wait_until_idle();
}

#[test]
fn the_upstreams_end_leaves_the_other_direction_open() {
    let said = Arc::new(AtomicUsize::new(0));
    let count = said.clone();
    let upstream = upstream(move |conn| {
        conn.send("all");
        conn.shutdown(Shutdown::Write);
        let got = conn.reader.read_to_end().unwrap();
        count.store(got.len(), SeqCst);
    });
    let gateway = gateway(&upstream, "");
    Http2Client::with(gateway.address(), async |client| {
        let (mut asked, mut body) = begun(&client).await;
        let reply = rest(&mut body).await;
        assert_eq!((reply.reset, reply.text().as_str()), (None, "all"));
        send_all(&mut asked.stream, Bytes::from_static(b"still here")).await;
        asked.stream.send_data(Bytes::new(), true).unwrap();
        while said.load(SeqCst) != 10 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    upstream.wait_until_idle();
}

#[test]
fn what_is_not_read_is_not_taken() {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let upstream = upstream(move |conn| {
        let piece = vec![b'x'; 65_536];
        while conn.send(&piece) {
            count.fetch_add(piece.len(), SeqCst);
        }
    });
    let gateway = gateway(&upstream, "");
    Http2Client::with(gateway.address(), async |client| {
        let (_asked, mut body) = begun(&client).await;
        // Until nothing moves for a while, which is far from all that there is.
        let mut before = usize::MAX;
        while before != taken.load(SeqCst) {
            before = taken.load(SeqCst);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(before < 16 << 20, "{before}");
        let mut held = BytesMut::new();
        let bytes = before + (1 << 20);
        assert_eq!(exactly(&mut body, &mut held, bytes).await.unwrap().len(), bytes);
        assert!(taken.load(SeqCst) > before);
    });
    upstream.wait_until_idle();
}

#[test]
fn a_client_that_gives_up_closes_the_upstream() {
    let upstream = upstream(Conn::until_closed);
    let gateway = gateway(&upstream, "");
    Http2Client::with(gateway.address(), async |client| {
        let (asked, body) = begun(&client).await;
        assert_eq!(upstream.open(), 1);
        asked.reset();
        drop(body);
        while upstream.open() != 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(client.get("/plain").await.text(), "plain");
    });
}

#[test]
fn a_client_that_gives_up_what_the_upstream_does_not_take() {
    // It reads nothing, and sees the end by what it sends.
    let upstream = upstream(|conn| {
        while conn.send("x") {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let gateway = gateway(&upstream, "");
    // Made before, and of zeros: memory that is filled takes long on a busy machine, while nobody
    // reads what the upstream sends.
    let much = Bytes::from(vec![0; 256 << 20]);
    Http2Client::with(gateway.address(), async |client| {
        let (mut asked, mut body) = begun(&client).await;
        tokio::spawn(async move { exactly(&mut body, &mut BytesMut::new(), usize::MAX).await });
        let sent = send_all(&mut asked.stream, much);
        let sent = tokio::time::timeout(Duration::from_secs(1), sent).await;
        assert!(sent.is_err(), "{sent:?}: all was taken, or the stream is over");
        asked.reset();
        while upstream.open() != 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
}

#[test]
fn an_upstream_that_resets_gives_the_stream_up() {
    let upstream = upstream(|conn| {
        conn.send("begun");
        let _ = conn.reader.exactly(2);
        conn.reset();
    });
    let gateway = gateway(&upstream, "");
    Http2Client::with(gateway.address(), async |client| {
        let (mut asked, mut body) = begun(&client).await;
        let mut held = BytesMut::new();
        assert_eq!(exactly(&mut body, &mut held, 5).await.unwrap(), "begun");
        asked.stream.send_data(Bytes::from_static(b"go"), false).unwrap();
        let error = body.data().await.unwrap().unwrap_err();
        assert_eq!(reason(&error), Reason::CANCEL);
        assert_eq!(client.get("/plain").await.text(), "plain");
    });
}

#[test]
fn silence_has_its_bound() {
    let upstream = upstream(Conn::until_closed);
    let gateway = gateway(&upstream, "[timeouts]\ntunnel_idle = \"300ms\"\n");
    let before = Instant::now();
    Http2Client::with(gateway.address(), async |client| {
        let (_asked, mut body) = begun(&client).await;
        let error = body.data().await.unwrap().unwrap_err();
        assert_eq!(reason(&error), Reason::CANCEL);
    });
    assert!(before.elapsed() >= Duration::from_millis(299));
    upstream.wait_until_idle();
}

#[test]
fn other_protocols_and_plain_connect_are_refused() {
    let upstream = upstream(echo);
    let gateway = gateway(&upstream, "");
    Http2Client::with(gateway.address(), async |client| {
        may_connect(&client).await;
        for protocol in ["connect-udp", "WebSocket", "h2c"] {
            let reply = client.ask(connect(protocol, "/"), false).await.reply().await;
            assert_eq!((reply.status, reply.reset), (405, None), "{protocol}");
        }
        let plain = Request::builder().method(Method::CONNECT).uri("gw.test:443").body(()).unwrap();
        let reply = client.ask(plain, false).await.reply().await;
        assert_eq!((reply.status, reply.reset), (405, None));
        assert_eq!(client.get("/plain").await.text(), "plain");
    });
    assert!(upstream.requests().iter().all(|request| request.target == "/plain"));
}

#[test]
fn many_beside_requests_on_one_connection() {
    let upstream = upstream(echo);
    let gateway = gateway(&upstream, "");
    Http2Client::with(gateway.address(), async |client| {
        let mut open = Vec::new();
        for _ in 0..20 {
            open.push((begun(&client).await, BytesMut::new()));
            assert_eq!(client.get("/plain").await.text(), "plain");
        }
        for round in 0..3 {
            for (number, ((asked, body), held)) in open.iter_mut().enumerate() {
                let text = format!("{round} {number}").into_bytes();
                asked.stream.send_data(text.clone().into(), false).unwrap();
                assert_eq!(exactly(body, held, text.len()).await.unwrap(), text);
            }
            assert_eq!(client.get("/plain").await.text(), "plain");
        }
        for ((mut asked, mut body), _) in open {
            asked.stream.send_data(Bytes::new(), true).unwrap();
            assert_eq!(rest(&mut body).await.reset, None);
        }
    });
    eventually("all have ended", || upstream.open() <= 2);
}

#[test]
fn a_route_without_upgrades() {
    let upstream = upstream(echo);
    let gateway = Gateway::start(&format!(
        "[[routes]]\nupstream = \"app\"\nupgrade = false\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        upstream.address()
    ));
    let reply = Http2Client::with(gateway.address(), async |client| {
        may_connect(&client).await;
        client.ask(connect("websocket", "/"), false).await.reply().await
    });
    assert_eq!(reply.reset, None);
    assert!(reply.status >= 400, "{reply:?}");
    assert!(upstream.requests().iter().all(|request| !request.head.has("upgrade")));
}
