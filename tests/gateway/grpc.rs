//! gRPC through the gateway: deadlines, errors, streams in both directions, and how they end.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use h2::Reason;
use http::{Request, Response, request::Builder};

use crate::harness::{
    Gateway, eventually,
    http2_client::{Http2Client, Reply, exactly, reason, send_all, value},
    http2_server::{Call, Http2Options, Http2Server, receive, send, trailers},
};

const TYPE: &str = "application/grpc";

pub fn response() -> Response<()> {
    Response::builder().header("content-type", TYPE).body(()).unwrap()
}

/// A message as it is on the wire.
pub fn message(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// By path, see the tests.
async fn answer(mut call: Call) {
    match call.path().rsplit('/').next().unwrap() {
        "Silent" => {
            call.until_reset().await;
        }
        "Half" => {
            let mut stream = call.respond.send_response(response(), false).unwrap();
            stream.send_data(message(b"begun").into(), false).unwrap();
            let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
            if reason == Reason::CANCEL {
                call.seen.cancelled.fetch_add(1, SeqCst);
            }
        }
        "Fail" => {
            let mut failed = response();
            let fields = trailers(&[("grpc-status", "5"), ("grpc-message", "no %C3%A9")]);
            failed.headers_mut().extend(fields);
            call.respond.send_response(failed, true).unwrap();
        }
        "Reset" => {
            let mut stream = call.respond.send_response(response(), false).unwrap();
            stream.send_data(message(b"begun").into(), false).unwrap();
            // The client has seen the first message when it sends one.
            receive(call.request.body_mut()).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        "Wait" => {
            let mut stream = call.respond.send_response(response(), false).unwrap();
            stream.send_data(message(b"first").into(), false).unwrap();
            tokio::time::sleep(Duration::from_millis(700)).await;
            stream.send_data(message(b"last").into(), false).unwrap();
            let _ = stream.send_trailers(trailers(&[("grpc-status", "0")]));
        }
        "Fields" => {
            let timeout = value(call.request.headers(), "grpc-timeout").to_owned();
            let te = value(call.request.headers(), "te").to_owned();
            let mut stream = call.respond.send_response(response(), false).unwrap();
            stream.send_data(message(format!("{timeout} {te}").as_bytes()).into(), false).unwrap();
            let _ = stream.send_trailers(trailers(&[("grpc-status", "0")]));
        }
        _ => echo(call).await,
    }
}

/// Sends back what comes, as it comes; then the trailers, and a status.
async fn echo(mut call: Call) {
    let mut stream = call.respond.send_response(response(), false).unwrap();
    let body = call.request.body_mut();
    while let Some(data) = receive(body).await {
        if !send(&mut stream, data, &call.seen).await {
            return;
        }
    }
    let mut last = trailers(&[("grpc-status", "0"), ("x-bin-bin", "AAH/")]);
    last.extend(body.trailers().await.ok().flatten().unwrap_or_default());
    let _ = stream.send_trailers(last);
}

pub fn server() -> Http2Server {
    Http2Server::with(Http2Options::default(), answer)
}

/// One worker before the server, with these keys of the upstream, the route, and more tables.
fn gateway(server: &Http2Server, upstream: &str, route: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "[runtime]\nworkers = 1\n[[routes]]\npath = \"/t.T\"\nupstream = \"app\"\n{route}\n\
         [[routes]]\npath = \"/down\"\nupstream = \"down\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\nprotocol = \"h2c\"\n{upstream}\n\
         [upstreams.down]\nendpoints = [\"127.0.0.1:1\"]\nprotocol = \"h2c\"\n{more}\n",
        server.address()
    ))
}

pub fn call(path: &str) -> Builder {
    Request::post(format!("http://gw.test{path}"))
        .header("content-type", TYPE)
        .header("te", "trailers")
}

fn timed(path: &str, timeout: &str) -> Request<()> {
    call(path).header("grpc-timeout", timeout).body(()).unwrap()
}

/// An answer of the gateway: all in one head.
#[track_caller]
fn is_error(reply: &Reply, code: &str, message: &str) {
    assert_eq!((reply.status, reply.reset), (200, None), "{reply:?}");
    assert_eq!(reply.field("content-type"), TYPE);
    assert_eq!((reply.field("grpc-status"), reply.field("grpc-message")), (code, message));
    assert!(reply.body.is_empty() && reply.trailers.is_empty(), "{reply:?}");
    assert!(!reply.field("x-request-id").is_empty());
}

const OVERDUE: &str = "The exchange took longer than the route allows.";

#[test]
fn a_deadline_before_the_response_in_all_units() {
    let server = server();
    let gateway = gateway(&server, "", "", "");
    Http2Client::with(gateway.address(), async |client| {
        for timeout in ["1S", "200m", "200000u", "99999999n"] {
            let begun = Instant::now();
            let reply = client.post(timed("/t.T/Silent", timeout), message(b"")).await;
            is_error(&reply, "4", OVERDUE);
            assert!(begun.elapsed() >= Duration::from_millis(99), "{:?}", begun.elapsed());
        }
        // They are long, and no reason to end anything.
        for timeout in ["1M", "1H", "99999999H"] {
            let reply = client.post(timed("/t.T/Echo", timeout), message(b"x")).await;
            assert_eq!(reply.trailer("grpc-status"), "0");
        }
        let reply = client.post(timed("/t.T/Fields", "20S"), message(b"")).await;
        assert_eq!(reply.body, message(b"20S trailers"));
    });
    eventually("they are cancelled", || server.seen.cancelled.load(SeqCst) == 4);
}

#[test]
fn what_is_no_deadline_is_none() {
    let server = server();
    let gateway = gateway(&server, "", "timeout = \"300ms\"", "");
    Http2Client::with(gateway.address(), async |client| {
        for timeout in ["1", "m", "-1S", "123456789n", "5x", ""] {
            let begun = Instant::now();
            let reply = client.post(timed("/t.T/Silent", timeout), message(b"")).await;
            is_error(&reply, "4", OVERDUE);
            assert!(begun.elapsed() >= Duration::from_millis(299), "{timeout:?}");
        }
    });
}

#[test]
fn the_sooner_of_deadline_and_route_counts() {
    let server = server();
    let slow = gateway(&server, "", "timeout = \"1m\"", "");
    let fast = gateway(&server, "", "timeout = \"200ms\"", "");
    for (gateway, timeout) in [(&slow, "200m"), (&fast, "1H")] {
        let reply = Http2Client::with(gateway.address(), async |client| {
            client.post(timed("/t.T/Silent", timeout), message(b"")).await
        });
        is_error(&reply, "4", OVERDUE);
    }
}

#[test]
fn a_deadline_in_the_middle_of_a_response_resets_both_streams() {
    let server = server();
    let gateway = gateway(&server, "", "", "");
    let reply = Http2Client::with(gateway.address(), async |client| {
        client.post(timed("/t.T/Half", "300m"), message(b"")).await
    });
    assert_eq!((reply.status, reply.reset), (200, Some(Reason::INTERNAL_ERROR)));
    assert_eq!(reply.body, message(b"begun"));
    eventually("it is cancelled", || server.seen.cancelled.load(SeqCst) == 1);
    assert!(gateway.admin().get("/metrics").text().contains("route.timeout"));
}

#[test]
fn errors_of_the_gateway_are_told_as_grpc_tells_them() {
    let server = server();
    let gateway = gateway(&server, "", "max_body = \"1KiB\"", "");
    Http2Client::with(gateway.address(), async |client| {
        let post =
            async |path: &str, body: Vec<u8>| client.post(call(path).body(()).unwrap(), body).await;
        let reply = post("/nowhere.T/Unary", message(b"")).await;
        is_error(&reply, "12", "No route matches the request.");
        let reply = post("/down/Unary", message(b"")).await;
        is_error(&reply, "14", "No endpoint of the upstream could be connected.");
        let length = call("/t.T/Silent").header("content-length", "2000").body(()).unwrap();
        let reply = client.post(length, vec![0; 2000]).await;
        assert_eq!((reply.status, reply.field("grpc-status")), (200, "8"), "{reply:?}");
        let reply = post("/t.T/Silent", vec![0; 2000]).await;
        assert_eq!((reply.status, reply.field("grpc-status")), (200, "8"), "{reply:?}");
        // The connection is as before.
        let reply = post("/t.T/Unary", message(b"x")).await;
        assert_eq!(reply.trailer("grpc-status"), "0");
    });
}

#[test]
fn other_requests_get_other_errors() {
    let server = server();
    let gateway = gateway(&server, "", "timeout = \"300ms\"", "");
    Http2Client::with(gateway.address(), async |client| {
        for (path, status) in [("/nowhere", 404), ("/down/x", 503), ("/t.T/Silent", 504)] {
            let request = || Request::post(format!("http://gw.test{path}"));
            for kind in [None, Some("application/json"), Some("application/grpcs")] {
                let request =
                    kind.iter().fold(request(), |r, kind| r.header("content-type", *kind));
                // A deadline of gRPC means nothing either.
                let request = request.header("grpc-timeout", "1n").body(()).unwrap();
                let reply = client.post(request, "").await;
                assert_eq!((reply.status, reply.field("grpc-status")), (status, ""), "{reply:?}");
                assert_eq!(reply.field("content-type"), "application/problem+json");
            }
        }
    });
}

#[test]
fn trailers_both_ways_and_trailers_only() {
    let server = server();
    let gateway = gateway(&server, "", "", "");
    Http2Client::with(gateway.address(), async |client| {
        let mut asked = client.ask(call("/t.T/Echo").body(()).unwrap(), false).await;
        asked.stream.send_data(message(b"one").into(), false).unwrap();
        asked.stream.send_trailers(trailers(&[("x-sum", "7")])).unwrap();
        let reply = asked.reply().await;
        assert_eq!(reply.body, message(b"one"));
        let found = ["grpc-status", "x-bin-bin", "x-sum"].map(|name| reply.trailer(name));
        assert_eq!(found, ["0", "AAH/", "7"]);
        let reply = client.post(call("/t.T/Fail").body(()).unwrap(), message(b"")).await;
        assert_eq!((reply.status, reply.field("content-type")), (200, TYPE));
        let found = ["grpc-status", "grpc-message"].map(|name| reply.field(name));
        assert_eq!(found, ["5", "no %C3%A9"]);
        assert!(reply.body.is_empty() && reply.trailers.is_empty());
    });
}

#[test]
fn messages_of_both_sides_in_turns() {
    let server = server();
    let gateway = gateway(&server, "", "", "");
    Http2Client::with(gateway.address(), async |client| {
        let mut asked = client.ask(call("/t.T/Echo").body(()).unwrap(), false).await;
        let mut body = asked.head().await.into_body();
        let mut held = BytesMut::new();
        for number in 0..500 {
            let sent = message(format!("message {number}").as_bytes());
            asked.stream.send_data(sent.clone().into(), false).unwrap();
            assert_eq!(exactly(&mut body, &mut held, sent.len()).await.unwrap(), sent);
        }
        asked.stream.send_data(Bytes::new(), true).unwrap();
        let mut rest = Reply::default();
        rest.rest(&mut body).await;
        assert_eq!((rest.body.len(), rest.trailer("grpc-status")), (0, "0"));
    });
}

#[test]
fn large_messages_both_ways() {
    let server = server();
    let gateway = gateway(&server, "", "", "");
    let payload: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 251) as u8).collect();
    let sent = message(&payload);
    Http2Client::with(gateway.address(), async |client| {
        for _ in 0..2 {
            let reply = client.post(call("/t.T/Echo").body(()).unwrap(), sent.clone()).await;
            assert!(reply.body == sent, "{} bytes", reply.body.len());
            assert_eq!((reply.trailer("grpc-status"), reply.reset), ("0", None));
        }
    });
}

const SHORT: &str = "idle_timeout = \"100ms\"\nfirst_byte_timeout = \"100ms\"";

#[test]
fn silent_streams_live_as_long_as_tunnels() {
    let server = server();
    let timeouts = "[timeouts]\nbody = \"100ms\"\ntunnel_idle = \"10s\"";
    let gateway = gateway(&server, SHORT, "", timeouts);
    Http2Client::with(gateway.address(), async |client| {
        // The client has not ended its side either.
        let mut asked = client.ask(call("/t.T/Wait").body(()).unwrap(), false).await;
        asked.stream.send_data(message(b"").into(), false).unwrap();
        let reply = asked.reply().await;
        assert_eq!(reply.body, [message(b"first"), message(b"last")].concat());
        assert_eq!((reply.trailer("grpc-status"), reply.reset), ("0", None));
        // Requests that are no calls do not wait so long.
        let reply = client.get("/t.T/Wait").await;
        assert_eq!((reply.reset, reply.body), (Some(Reason::INTERNAL_ERROR), message(b"first")));
    });
}

#[test]
fn silent_streams_end_at_last() {
    let server = server();
    let gateway = gateway(&server, SHORT, "", "[timeouts]\ntunnel_idle = \"300ms\"");
    let begun = Instant::now();
    let reply = Http2Client::with(gateway.address(), async |client| {
        client.post(call("/t.T/Half").body(()).unwrap(), message(b"")).await
    });
    assert_eq!((reply.reset, reply.body), (Some(Reason::INTERNAL_ERROR), message(b"begun")));
    assert!(begun.elapsed() >= Duration::from_millis(299));
    eventually("it is cancelled", || server.seen.cancelled.load(SeqCst) == 1);
    assert!(gateway.admin().get("/metrics").text().contains("upstream.idle_timeout"));
}

#[test]
fn giving_up_reaches_the_upstream() {
    let server = server();
    let gateway = gateway(&server, "", "", "");
    Http2Client::with(gateway.address(), async |client| {
        for (count, path) in ["/t.T/Silent", "/t.T/Half"].into_iter().enumerate() {
            let mut asked = client.ask(call(path).body(()).unwrap(), false).await;
            send_all(&mut asked.stream, message(b"x").into()).await;
            match path {
                "/t.T/Half" => drop(asked.head().await),
                _ => eventually("it is there", || server.seen.requests.load(SeqCst) == 1),
            }
            asked.reset();
            let seen = &server.seen;
            let wait = async {
                while seen.cancelled.load(SeqCst) != count + 1 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            wait.await;
        }
        let reply = client.post(call("/t.T/Echo").body(()).unwrap(), message(b"x")).await;
        assert_eq!(reply.trailer("grpc-status"), "0");
    });
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_reset_of_the_upstream_reaches_the_client() {
    let server = server();
    let gateway = gateway(&server, "", "", "");
    Http2Client::with(gateway.address(), async |client| {
        let mut asked = client.ask(call("/t.T/Reset").body(()).unwrap(), false).await;
        let mut body = asked.head().await.into_body();
        let mut held = BytesMut::new();
        let begun = message(b"begun");
        assert_eq!(exactly(&mut body, &mut held, begun.len()).await.unwrap(), begun);
        asked.stream.send_data(message(b"go").into(), false).unwrap();
        let error = body.data().await.unwrap().unwrap_err();
        assert_eq!(reason(&error), Reason::INTERNAL_ERROR);
        let reply = client.post(call("/t.T/Echo").body(()).unwrap(), message(b"x")).await;
        assert_eq!(reply.trailer("grpc-status"), "0");
    });
}
