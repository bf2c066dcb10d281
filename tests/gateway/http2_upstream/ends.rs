//! Exchanges that end early: what the client is told, and that the connection is not at fault.

use std::{sync::atomic::Ordering::SeqCst, time::Instant};

use bytes::Bytes;
use h2::Reason;
use http::Response;

use super::{H2C, gateway};
use crate::harness::{
    ReadError, eventually,
    http2_server::{Call, Http2Options, Http2Server},
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
fn is_unharmed(gateway: &crate::harness::Gateway, server: &Http2Server) {
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
    let gateway = crate::harness::Gateway::start(&format!(
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
