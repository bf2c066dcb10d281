//! gRPC-Web: calls of browsers, in both forms and over both versions, before a server of gRPC.

use std::{io::Write, sync::atomic::Ordering::SeqCst};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use h2::Reason;
use http::{Request, Response, StatusCode, request::Builder};

use crate::grpc::message;
use crate::harness::{
    Client, Gateway, ReadError, Socket, Upstream, eventually,
    http2_client::{Http2Client, Reply},
    http2_server::{Call, Http2Options, Http2Server, receive, send, trailers},
};

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

/// By path, see the tests.
async fn answer(mut call: Call) {
    let of_type =
        |kind: &'static str| Response::builder().header("content-type", kind).body(()).unwrap();
    let head = of_type("application/grpc");
    match call.path().rsplit('/').next().unwrap() {
        "Silent" => {
            call.until_reset().await;
        }
        "Fail" => {
            let mut failed = head;
            failed.headers_mut().extend(trailers(&[("grpc-status", "5"), ("grpc-message", "no")]));
            call.respond.send_response(failed, true).unwrap();
        }
        "Other" => {
            let mut other = of_type("text/plain");
            *other.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            other.headers_mut().insert("content-length", 4.into());
            let mut stream = call.respond.send_response(other, false).unwrap();
            stream.send_data(Bytes::from_static(b"late"), true).unwrap();
        }
        "Fields" => {
            let fields = call.request.headers().iter();
            let lines =
                fields.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
            let text: String = lines.collect();
            let mut stream = call.respond.send_response(head, false).unwrap();
            stream.send_data(message(text.as_bytes()).into(), false).unwrap();
            stream.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
        }
        "Hang" => {
            let mut stream = call.respond.send_response(head, false).unwrap();
            stream.send_data(message(b"begun").into(), false).unwrap();
            let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
            if reason == Reason::CANCEL {
                call.seen.cancelled.fetch_add(1, SeqCst);
            }
        }
        _ => echo(call, head).await,
    }
}

async fn echo(mut call: Call, mut head: Response<()>) {
    head.headers_mut().insert("x-begin", 1.into());
    let mut stream = call.respond.send_response(head, false).unwrap();
    while let Some(data) = receive(call.request.body_mut()).await {
        if !send(&mut stream, data, &call.seen).await {
            return;
        }
    }
    let _ =
        stream.send_trailers(trailers(&[("grpc-status", "0"), ("grpc-message", "all is well")]));
}

fn server() -> Http2Server {
    Http2Server::with(Http2Options::default(), answer)
}

fn gateway(server: &Http2Server, route: &str) -> Gateway {
    Gateway::start(&format!(
        "[runtime]\nworkers = 1\n[[routes]]\npath = \"/t.T\"\nupstream = \"app\"\n{route}\n\
         [[routes]]\npath = \"/down\"\nupstream = \"down\"\n{route}\n\
         [upstreams.app]\nendpoints = [\"{}\"]\nprotocol = \"h2c\"\n\
         [upstreams.down]\nendpoints = [\"127.0.0.1:1\"]\nprotocol = \"h2c\"\n",
        server.address()
    ))
}

const WEB: &str = "grpc_web = true";

fn head(path: &str, kind: &str, framing: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: gw.test\r\nContent-Type: {kind}\r\nX-Grpc-Web: 1\r\n\
         {framing}\r\n\r\n"
    )
}

fn with_length(path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = head(path, kind, &format!("Content-Length: {}", body.len()));
    [head.as_bytes(), body].concat()
}

fn chunked(path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = head(path, kind, "Transfer-Encoding: chunked");
    let size = format!("{:x}\r\n", body.len());
    [head.as_bytes(), size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
}

fn call(path: &str, kind: &str) -> Builder {
    let request = Request::post(format!("http://gw.test{path}"));
    request.header("content-type", kind).header("x-grpc-web", "1")
}

fn encoded(kind: &str, body: &[u8]) -> Vec<u8> {
    if kind == TEXT { STANDARD.encode(body).into_bytes() } else { body.to_vec() }
}

/// A body of either form as bytes; base64 may be padded anywhere between groups.
#[track_caller]
fn decoded(kind: &str, body: &[u8]) -> Vec<u8> {
    match kind {
        TEXT => body.chunks(4).flat_map(|group| STANDARD.decode(group).unwrap()).collect(),
        _ => body.to_vec(),
    }
}

/// Frames of a body: flags and payload.
#[track_caller]
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = body.split_at_checked(5) {
        let bytes = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        frames.push((head[0], rest[..bytes].to_vec()));
        body = &rest[bytes..];
    }
    assert!(body.is_empty(), "{body:?}");
    frames
}

const ENDED: &[u8] = b"grpc-status:0\r\ngrpc-message:all is well\r\n";

fn is_echo(kind: &str, body: &[u8], payloads: &[&[u8]]) {
    let mut wanted: Vec<_> = payloads.iter().map(|payload| (0, payload.to_vec())).collect();
    wanted.push((0x80, ENDED.to_vec()));
    let found = frames(&decoded(kind, body));
    assert!(found == wanted, "{kind}: {} frames for {}", found.len(), wanted.len());
}

fn echoed(client: &mut Client, kind: &str, payloads: &[&[u8]]) {
    let response = client.response_to("POST");
    assert_eq!(response.status, 200);
    assert_eq!(
        (response.field("content-type"), response.field("x-begin")),
        (Some(kind), Some("1"))
    );
    assert!(response.trailers.is_empty(), "{:?}", response.trailers);
    is_echo(kind, &response.body, payloads);
}

/// 3 MiB.
fn large() -> Vec<u8> {
    (0..3 << 20).map(|n: u32| (n % 251) as u8).collect()
}

#[test]
fn calls_over_http1_on_one_connection() {
    let server = server();
    let gateway = gateway(&server, WEB);
    let mut client = gateway.client();
    for kind in [BINARY, TEXT] {
        for payload in [&b""[..], b"a", b"ab", b"abc"] {
            let body = encoded(kind, &message(payload));
            for bytes in [with_length("/t.T/Echo", kind, &body), chunked("/t.T/Echo", kind, &body)]
            {
                client.send(bytes);
                echoed(&mut client, kind, &[payload]);
            }
        }
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn large_messages_over_http1() {
    let server = server();
    let gateway = gateway(&server, WEB);
    let large = large();
    for kind in [BINARY, TEXT] {
        let body = encoded(kind, &message(&large));
        for bytes in [with_length("/t.T/Echo", kind, &body), chunked("/t.T/Echo", kind, &body)] {
            let mut client = gateway.client();
            // What comes back while it is sent is read.
            let Socket::Tcp(stream) = &client.reader.socket else { panic!("not over TCP") };
            let mut writer = stream.try_clone().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || writer.write_all(&bytes).unwrap());
                echoed(&mut client, kind, &[&large]);
            });
        }
    }
}

#[test]
fn base64_is_cut_anywhere_and_padded_in_the_middle() {
    let server = server();
    let gateway = gateway(&server, WEB);
    let payloads: [&[u8]; 3] = [b"a", b"bc", b"defghi"];
    let body: Vec<u8> = payloads.iter().flat_map(|p| encoded(TEXT, &message(p))).collect();
    assert!(body[..body.len() - 4].contains(&b'='));
    for size in [1, 2, 3, 5, 7] {
        // Each on a connection of its own: the server may begin to answer before all has been
        // sent, and then the connection is not kept.
        let mut client = gateway.client();
        client.send(head("/t.T/Echo", TEXT, "Transfer-Encoding: chunked"));
        for piece in body.chunks(size) {
            client.send(format!("{:x}\r\n", piece.len()));
            client.send([piece, b"\r\n"].concat());
        }
        client.send("0\r\n\r\n");
        echoed(&mut client, TEXT, &payloads);
        // With a length, in pieces of their own.
        let mut client = gateway.client();
        client.send(head("/t.T/Echo", TEXT, &format!("Content-Length: {}", body.len())));
        for piece in body.chunks(size) {
            client.send(piece);
        }
        echoed(&mut client, TEXT, &payloads);
    }
    Http2Client::with(gateway.address(), async |client| {
        for size in [1, 2, 3, 5, 7] {
            let mut asked = client.ask(call("/t.T/Echo", TEXT).body(()).unwrap(), false).await;
            for piece in body.chunks(size) {
                asked.stream.send_data(piece.to_vec().into(), false).unwrap();
            }
            asked.stream.send_data(Bytes::new(), true).unwrap();
            is_echo(TEXT, &asked.reply().await.body, &payloads);
        }
    });
}

#[test]
fn calls_over_http2() {
    let server = server();
    let gateway = gateway(&server, WEB);
    let large = large();
    Http2Client::with(gateway.address(), async |client| {
        for kind in [BINARY, TEXT] {
            for payload in [&b""[..], b"a", b"ab", b"abc", &large] {
                let body = encoded(kind, &message(payload));
                let request = call("/t.T/Echo", kind).header("content-length", body.len());
                let reply = client.post(request.body(()).unwrap(), body.clone()).await;
                assert_eq!((reply.status, reply.field("content-type")), (200, kind));
                assert!(reply.trailers.is_empty() && reply.reset.is_none(), "{:?}", reply.reset);
                is_echo(kind, &reply.body, &[payload]);
                let reply = client.post(call("/t.T/Echo", kind).body(()).unwrap(), body).await;
                is_echo(kind, &reply.body, &[payload]);
            }
        }
    });
}

#[test]
fn the_request_as_the_upstream_sees_it() {
    let server = server();
    let gateway = gateway(&server, WEB);
    let check = |text: &str| {
        for line in ["content-type: application/grpc+proto\n", "te: trailers\n", "x-own: 1\n"] {
            assert_eq!(text.matches(line).count(), 1, "{line} in {text}");
        }
        assert_eq!(text.matches("content-type").count(), 1, "{text}");
        assert!(!text.contains("x-grpc-web") && !text.contains("connection"), "{text}");
    };
    let text_of = |kind: &str, body: &[u8]| {
        let frames = frames(&decoded(kind, body));
        assert_eq!(frames[1], (0x80, b"grpc-status:0\r\n".to_vec()));
        String::from_utf8(frames[0].1.clone()).unwrap()
    };
    for kind in [BINARY, TEXT] {
        let body = encoded(kind, &message(b"x"));
        let framing =
            format!("X-Own: 1\r\nTE: trailers\r\nConnection: te\r\nContent-Length: {}", body.len());
        let mut client = gateway.client();
        client.send(head("/t.T/Fields", kind, &framing));
        client.send(&body);
        check(&text_of(kind, &client.response_to("POST").body));
        let reply = Http2Client::with(gateway.address(), async |client| {
            let request = call("/t.T/Fields", kind).header("x-own", "1").header("te", "trailers");
            client.post(request.body(()).unwrap(), body.clone()).await
        });
        check(&text_of(kind, &reply.body));
    }
}

#[test]
fn trailers_only_and_what_is_not_grpc() {
    let server = server();
    let gateway = gateway(&server, WEB);
    let mut client = gateway.client();
    for kind in [BINARY, TEXT] {
        let body = encoded(kind, &message(b"x"));
        client.send(with_length("/t.T/Fail", kind, &body));
        let response = client.response_to("POST");
        assert_eq!((response.status, response.field("content-type")), (200, Some(kind)));
        assert_eq!(response.field("grpc-status"), Some("5"));
        assert_eq!(response.field("grpc-message"), Some("no"));
        assert!(response.body.is_empty());
        client.send(with_length("/t.T/Other", kind, &body));
        let response = client.response_to("POST");
        assert_eq!((response.status, response.field("content-type")), (503, Some("text/plain")));
        assert_eq!(response.text(), "late");
        Http2Client::with(gateway.address(), async |client| {
            let ask = |path| call(path, kind).body(()).unwrap();
            let reply = client.post(ask("/t.T/Fail"), body.clone()).await;
            assert_eq!((reply.status, reply.field("content-type")), (200, kind));
            assert_eq!((reply.field("grpc-status"), reply.body.len()), ("5", 0));
            let reply = client.post(ask("/t.T/Other"), body.clone()).await;
            assert_eq!((reply.status, reply.text().as_str()), (503, "late"));
            assert_eq!(reply.field("content-type"), "text/plain");
        });
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn errors_of_the_gateway() {
    let server = server();
    let gateway = gateway(&server, &format!("{WEB}\nmax_body = \"1KiB\""));
    for kind in [BINARY, TEXT] {
        let small = encoded(kind, &message(b"x"));
        let large = encoded(kind, &message(&[0; 3000]));
        let cases = [
            ("/nowhere/Unary", &small, "12"),
            ("/down/Unary", &small, "14"),
            ("/t.T/Silent", &small, "4"),
            ("/t.T/Echo", &large, "8"),
        ];
        for (path, body, code) in cases {
            let mut client = gateway.client();
            let framing = format!("grpc-timeout: 300m\r\nContent-Length: {}", body.len());
            client.send(head(path, kind, &framing));
            client.try_send(body);
            let response = client.response_to("POST");
            assert_eq!(
                (response.status, response.field("grpc-status")),
                (200, Some(code)),
                "{path}"
            );
            assert_eq!(response.field("content-type"), Some(kind));
            assert!(response.body.is_empty());
            let reply = Http2Client::with(gateway.address(), async |client| {
                let request = call(path, kind).header("grpc-timeout", "300m");
                client.post(request.body(()).unwrap(), body.clone()).await
            });
            let found = (reply.status, reply.field("grpc-status"), reply.field("content-type"));
            assert_eq!(found, (200, code, kind), "{path}");
        }
    }
}

#[test]
fn a_deadline_in_the_middle_of_a_response() {
    let server = server();
    let gateway = gateway(&server, WEB);
    let mut client = gateway.client();
    let body = message(b"x");
    let framing = format!("grpc-timeout: 300m\r\nContent-Length: {}", body.len());
    client.send(head("/t.T/Hang", BINARY, &framing));
    client.send(&body);
    assert_eq!(client.try_response("POST"), Err(ReadError::Cut));
    let reply = Http2Client::with(gateway.address(), async |client| {
        let request = call("/t.T/Hang", TEXT).header("grpc-timeout", "300m").body(()).unwrap();
        client.post(request, encoded(TEXT, &body)).await
    });
    assert_eq!(reply.reset, Some(Reason::INTERNAL_ERROR));
    assert_eq!(frames(&decoded(TEXT, &reply.body)), [(0, b"begun".to_vec())]);
}

#[test]
fn giving_up_reaches_the_upstream() {
    let server = server();
    let gateway = gateway(&server, WEB);
    let cancelled =
        |count| eventually("it is cancelled", || server.seen.cancelled.load(SeqCst) == count);
    // A browser has closed its connection; what the gateway sees of that is a FIN.
    let mut client = gateway.client();
    client.send(with_length("/t.T/Hang", BINARY, &message(b"x")));
    assert!(client.head().start_line.starts_with("HTTP/1.1 200"));
    client.finish_sending();
    cancelled(1);
    Http2Client::with(gateway.address(), async |client| {
        let mut asked = client.ask(call("/t.T/Hang", BINARY).body(()).unwrap(), false).await;
        asked.stream.send_data(message(b"x").into(), true).unwrap();
        drop(asked.head().await);
        asked.reset();
        while server.seen.cancelled.load(SeqCst) != 2 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    });
    assert_eq!(server.connections(), 1);
}

#[test]
fn what_is_not_base64_is_refused() {
    let server = server();
    let gateway = gateway(&server, WEB);
    let refusals = || {
        let text = gateway.admin().get("/metrics").text();
        let line = text.lines().find(|line| line.contains("\"grpc.web_text\"")).map(str::to_owned);
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap())
    };
    let bad: [&[u8]; 4] = [b"AAAA!AAA", b"AAA", b"A===", b"AAAAAA\r\n"];
    for (count, text) in bad.into_iter().enumerate() {
        let mut client = gateway.client();
        client.send(with_length("/t.T/Echo", TEXT, text));
        let response = client.response_to("POST");
        assert_eq!((response.status, response.field("grpc-status")), (200, Some("13")), "{text:?}");
        let before = count as u32 * 3 + 1;
        eventually("it is counted", || refusals() == before);
        // In pieces: the part before the fault has been sent on.
        let mut client = gateway.client();
        client.send(head("/t.T/Silent", TEXT, "Transfer-Encoding: chunked"));
        client.send(format!("4\r\nAAAA\r\n{:x}\r\n", text.len()));
        client.send([text, b"\r\n0\r\n\r\n"].concat());
        let response = client.response_to("POST");
        assert_eq!((response.status, response.field("grpc-status")), (200, Some("13")), "{text:?}");
        eventually("it is counted", || refusals() == before + 1);
        let reply: Reply = Http2Client::with(gateway.address(), async |client| {
            let mut asked = client.ask(call("/t.T/Silent", TEXT).body(()).unwrap(), false).await;
            asked.stream.send_data(Bytes::from_static(b"AAAA"), false).unwrap();
            asked.stream.send_data(text.to_vec().into(), true).unwrap();
            asked.reply().await
        });
        assert_eq!((reply.status, reply.field("grpc-status")), (200, "13"), "{text:?}");
        eventually("it is counted", || refusals() == before + 2);
    }
}

#[test]
fn what_follows_on_the_connection_is_the_clients_own() {
    let server = server();
    let gateway = gateway(&server, WEB);
    let mut client = gateway.client();
    // All at once: each begins where the one before it ended, in bytes of the client.
    let mut bytes = Vec::new();
    for (number, kind) in [TEXT, BINARY, TEXT, BINARY].into_iter().enumerate() {
        let body = encoded(kind, &message(&[number as u8; 10]));
        bytes.extend(with_length("/t.T/Echo", kind, &body));
        bytes.extend(chunked("/t.T/Echo", kind, &body));
    }
    bytes.extend(b"GET /nowhere HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    client.send(bytes);
    for (number, kind) in [TEXT, BINARY, TEXT, BINARY].into_iter().enumerate() {
        echoed(&mut client, kind, &[&[number as u8; 10]]);
        echoed(&mut client, kind, &[&[number as u8; 10]]);
    }
    assert_eq!(client.response().status, 404);
    client.send(with_length("/t.T/Echo", TEXT, &encoded(TEXT, &message(b"again"))));
    echoed(&mut client, TEXT, &[b"again"]);
}

#[test]
fn routes_that_do_not_say_so_pass_it_as_it_is() {
    let upstream = Upstream::scripted(|conn| {
        while conn.request().is_ok() {
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nContent-Length: 4\r\n\r\nAAAA"
            ));
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send(with_length("/t.T/Echo", TEXT, b"not base64"));
    let response = client.response_to("POST");
    assert_eq!((response.status, response.text().as_str()), (200, "AAAA"));
    assert_eq!(response.field("content-type"), Some(TEXT));
    let request = upstream.only_request();
    assert_eq!(
        (request.field("content-type"), request.field("x-grpc-web")),
        (Some(TEXT), Some("1"))
    );
    assert_eq!((request.body.as_slice(), request.field("te")), (&b"not base64"[..], None));
}

#[test]
fn other_requests_on_its_routes_pass_as_they_are() {
    let server = server();
    let gateway = gateway(&server, WEB);
    let mut client = gateway.client();
    client.send(with_length("/t.T/Fields", "application/json", b"{}"));
    let response = client.response_to("POST");
    assert_eq!(response.field("content-type"), Some("application/grpc"));
    let text = String::from_utf8_lossy(&response.body[5..]).into_owned();
    assert!(text.contains("content-type: application/json\n"), "{text}");
    assert!(text.contains("x-grpc-web: 1\n"), "{text}");
    let reply = Http2Client::with(gateway.address(), async |client| {
        let native = crate::grpc::call("/t.T/Echo").body(()).unwrap();
        client.post(native, message(b"x")).await
    });
    assert_eq!((reply.body.clone(), reply.trailer("grpc-status")), (message(b"x"), "0"));
}

/// An upstream of HTTP/1.1 gets no chunk that would end its body too early.
#[test]
fn base64_in_single_characters_to_an_upstream_of_http1() {
    let upstream = Upstream::canned(
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0",
    );
    let gateway = Gateway::start(&format!(
        "[[routes]]\nupstream = \"app\"\n{WEB}\n[upstreams.app]\nendpoints = [\"{}\"]\n",
        upstream.address()
    ));
    let mut client = gateway.client();
    let body = encoded(TEXT, &message(b"payload"));
    client.send(head("/t.T/Echo", TEXT, &format!("Content-Length: {}", body.len())));
    for byte in &body {
        client.send([*byte]);
    }
    assert_eq!(client.response_to("POST").status, 200);
    assert_eq!(upstream.only_request().body, message(b"payload"));
}
