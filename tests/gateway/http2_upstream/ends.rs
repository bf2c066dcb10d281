//! Exchanges that end early: what the client is told, and that the connection is not at fault.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, client::SendRequest};
use http::{Request, Response};

use super::{H2C, gateway};
use crate::harness::{
    Gateway, PATIENCE, ReadError, eventually,
    http2_server::{Call, Http2Options, Http2Server, receive, trailers},
};

/// By path: says nothing; begins and says no more; resets before or after it has begun.
fn server() -> Http2Server {
    Http2Server::with(Http2Options::default(), |mut call: Call| async move {
        let begin = |call: &mut Call| {
            let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"begun"), false).unwrap();
            stream
        };
        match call.path() {
            "/silent" => {
                call.until_reset().await;
            }
            "/half" => {
                let mut stream = begin(&mut call);
                let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
                if reason == Reason::CANCEL {
                    call.seen.cancelled.fetch_add(1, SeqCst);
                }
            }
            "/reset" => call.respond.send_reset(Reason::INTERNAL_ERROR),
            "/cut" => {
                let mut stream = begin(&mut call);
                // What was sent before arrives.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                stream.send_reset(Reason::INTERNAL_ERROR);
            }
            _ => call.text("here"),
        }
    })
}

/// It is still the one connection.
fn is_unharmed(gateway: &Gateway, server: &Http2Server) {
    assert_eq!(gateway.client().get("/").text(), "here");
    assert_eq!(server.connections(), 1);
}

fn cancelled(server: &Http2Server, count: usize) {
    eventually("it is cancelled", || server.seen.cancelled.load(SeqCst) == count);
}

#[test]
fn timeouts_have_their_reasons_and_reset_the_stream() {
    let server = server();
    let keys = format!("{H2C}\nfirst_byte_timeout = \"200ms\"\nidle_timeout = \"300ms\"");
    let gateway = gateway(server.address(), &keys);
    gateway.client().get("/");
    let response = gateway.client().get("/silent");
    assert_eq!((response.status, response.reason().as_str()), (504, "upstream.first_byte_timeout"));
    cancelled(&server, 1);
    let mut client = gateway.client();
    client.send("GET /half HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(client.try_response("GET"), Err(ReadError::Cut));
    cancelled(&server, 2);
    assert!(gateway.admin().get("/metrics").text().contains("upstream.idle_timeout"));
}

#[test]
fn the_routes_timeout_holds() {
    let server = server();
    let gateway = Gateway::start(&format!(
        "[[routes]]\nupstream = \"app\"\ntimeout = \"300ms\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n{H2C}\n",
        server.address()
    ));
    let response = gateway.client().get("/silent");
    assert_eq!((response.status, response.reason().as_str()), (504, "route.timeout"));
    cancelled(&server, 1);
}

#[test]
fn a_body_that_the_endpoint_does_not_take_times_out() {
    let server = server();
    let gateway = gateway(server.address(), &format!("{H2C}\nidle_timeout = \"300ms\""));
    let mut client = gateway.client();
    client.send("POST /silent HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 1000000\r\n\r\n");
    client.try_send(vec![0; 1_000_000]);
    let response = client.response();
    assert_eq!((response.status, response.reason().as_str()), (504, "upstream.first_byte_timeout"));
    cancelled(&server, 1);
}

#[test]
fn resets_of_the_endpoint_are_passed_on() {
    let server = server();
    let gateway = gateway(server.address(), H2C);
    gateway.client().get("/");
    let mut client = gateway.client();
    client.send("POST /reset HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.reason().as_str()), (502, "upstream.closed"));
    client.send("GET /cut HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert!(client.head().start_line.starts_with("HTTP/1.1 200"));
    assert_eq!(client.reader.chunked(), Err(ReadError::Cut));
    is_unharmed(&gateway, &server);
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    let server = server();
    let gateway = gateway(server.address(), H2C);
    gateway.client().get("/");
    for (count, path) in ["/silent", "/half"].into_iter().enumerate() {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
        eventually("it is there", || server.seen.requests.load(SeqCst) == 2 + count);
        let left = Instant::now();
        client.reset();
        cancelled(&server, 1 + count);
        assert!(left.elapsed().as_secs() < 2, "{:?}", left.elapsed());
    }
    is_unharmed(&gateway, &server);
    assert_eq!(server.seen.requests.load(SeqCst), 4, "none was sent again");
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_body() {
    let server = server();
    let gateway = gateway(server.address(), H2C);
    gateway.client().get("/");
    let mut client = gateway.client();
    client.send("POST /silent HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 1000\r\n\r\nabc");
    eventually("it is there", || server.seen.requests.load(SeqCst) == 2);
    drop(client);
    cancelled(&server, 1);
    is_unharmed(&gateway, &server);
}

/// Runs `exchange` with an HTTP/2 connection to the gateway.
fn as_http2_client<F: Future<Output = ()>>(
    gateway: &Gateway,
    exchange: impl FnOnce(SendRequest<Bytes>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        let (send, codec) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(codec);
        tokio::time::timeout(PATIENCE, exchange(send.ready().await.unwrap())).await.unwrap();
    });
}

fn request(path: &str) -> Request<()> {
    let builder = Request::post(format!("http://gw.test{path}"));
    builder.header("te", "trailers").body(()).unwrap()
}

#[test]
fn a_stream_that_an_http2_client_gives_up() {
    let server = server();
    let gateway = gateway(server.address(), H2C);
    for (count, path) in ["/silent", "/half"].into_iter().enumerate() {
        as_http2_client(&gateway, async |mut send| {
            let (response, mut stream) = send.send_request(request(path), true).unwrap();
            while server.seen.requests.load(SeqCst) <= count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let begun = match path {
                "/half" => Some(response.await.unwrap()),
                _ => None,
            };
            stream.send_reset(Reason::CANCEL);
            while server.seen.cancelled.load(SeqCst) <= count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            drop(begun);
        });
    }
    is_unharmed(&gateway, &server);
}

#[test]
fn messages_in_lockstep_over_http2_on_both_sides() {
    let server = Http2Server::with(Http2Options::default(), |mut call: Call| async move {
        let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
        let body = call.request.body_mut();
        while let Some(data) = receive(body).await {
            stream.send_data(data, false).unwrap();
        }
        let sums = body.trailers().await.unwrap().unwrap();
        stream.send_trailers(sums).unwrap();
    });
    let gateway = gateway(server.address(), H2C);
    as_http2_client(&gateway, async |mut send| {
        let (response, mut stream) = send.send_request(request("/"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        for number in 0..1000 {
            let message = Bytes::from(format!("message {number}"));
            stream.send_data(message.clone(), false).unwrap();
            let mut echo = Vec::new();
            while echo.len() < message.len() {
                echo.extend(receive(&mut body).await.unwrap());
            }
            assert_eq!(echo, message);
        }
        stream.send_trailers(trailers(&[("x-sum", "1000")])).unwrap();
        assert!(receive(&mut body).await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["x-sum"], "1000");
    });
    assert_eq!(server.connections(), 1);
}
