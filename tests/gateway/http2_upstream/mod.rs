//! HTTP/2 to upstreams: what is spoken to whom, and that everything passes as over HTTP/1.1.

mod ends;
mod frames;
mod sharing;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::harness::{
    Gateway, Papers, Server, Upstream, bodies_pass,
    http2_server::{Call, Http2Options, Http2Server, alpn, receive, trailers},
};

/// One worker; everything forwarded to this endpoint, with these keys of the upstream.
fn gateway(endpoint: SocketAddr, keys: &str) -> Gateway {
    Gateway::start(&configuration(endpoint, keys))
}

fn configuration(endpoint: SocketAddr, keys: &str) -> String {
    format!(
        "[runtime]\nworkers = 1\n[[routes]]\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [\"{endpoint}\"]\n{keys}\n"
    )
}

const H2C: &str = "protocol = \"h2c\"";

/// A server over TLS that chooses among `protocols`, for which `app` is issued.
fn over_tls(papers: &Papers, protocols: &[&str]) -> Http2Server {
    let options = Http2Options { tls: Some(alpn(papers, protocols)), ..Http2Options::default() };
    Http2Server::with(options, crate::harness::http2_server::usual)
}

fn issued() -> (Papers, String) {
    let papers = Papers::new();
    papers.issue("app", &["app.test"]);
    let ca = papers.path("app.pem").display().to_string();
    (papers, format!("tls = {{ ca = \"{ca}\", name = \"app.test\" }}"))
}

#[test]
fn bodies_of_all_sizes_pass_over_one_connection() {
    let server = Http2Server::start();
    let gateway = gateway(server.address(), H2C);
    let mut client = gateway.client();
    for size in [0, 1, 8191, 8192, 16_384, 65_535, 65_536, 300_000, 3 << 20] {
        bodies_pass(&mut client, size);
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn http2_over_tls() {
    let (papers, tls) = issued();
    let server = over_tls(&papers, &["h2"]);
    let gateway = gateway(server.address(), &format!("protocol = \"h2\"\n{tls}"));
    let mut client = gateway.client();
    for size in [0, 1000, 20_000, 3 << 20] {
        bodies_pass(&mut client, size);
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn an_endpoint_that_does_not_choose_http2_gets_no_request() {
    let (papers, tls) = issued();
    for protocols in [&["http/1.1"][..], &[]] {
        let server = over_tls(&papers, protocols);
        let gateway = gateway(server.address(), &format!("protocol = \"h2\"\n{tls}"));
        let response = gateway.client().get("/");
        assert_eq!((response.status, response.reason().as_str()), (502, "upstream.tls"));
    }
}

#[test]
fn auto_is_what_the_endpoint_prefers() {
    let (papers, tls) = issued();
    let keys = format!("protocol = \"auto\"\n{tls}");
    let server = over_tls(&papers, &["h2", "http/1.1"]);
    let gateway_of_http2 = gateway(server.address(), &keys);
    bodies_pass(&mut gateway_of_http2.client(), 20_000);
    assert_eq!(server.seen.requests.load(std::sync::atomic::Ordering::SeqCst), 3);
    // Another gateway, whose listeners speak HTTP/1.1 only, is the endpoint.
    let behind = Server::start();
    let listener = format!("{}http2 = \"off\"\n", papers.listener(&["app"], ""));
    let app = Gateway::before(behind.address(), &listener);
    let gateway = gateway(app.address(), &keys);
    let mut client = gateway.client();
    for size in [0, 1000, 20_000, 3 << 20] {
        bodies_pass(&mut client, size);
    }
    let metrics = app.admin().get("/metrics").text();
    let handshakes =
        metrics.lines().filter(|line| line.starts_with("ringway_tls_handshakes_total"));
    let made: f64 =
        handshakes.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert_eq!(made, 1.0, "{metrics}");
}

#[test]
fn auto_without_tls_is_http1() {
    let server = Server::start();
    let gateway = gateway(server.address(), "protocol = \"auto\"");
    bodies_pass(&mut gateway.client(), 1000);
}

#[test]
fn an_endpoint_that_speaks_http1_where_h2c_is_configured() {
    let upstream = Upstream::scripted(|conn| {
        conn.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        conn.until_closed();
    });
    let gateway = gateway(upstream.address(), H2C);
    let response = gateway.client().get("/");
    assert_eq!((response.status, response.reason().as_str()), (502, "upstream.invalid_response"));
}

#[test]
fn a_unix_socket() {
    // The relay is a test's own: the server has none.
    let server = Http2Server::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let address = server.address();
    std::thread::spawn(move || {
        while let Ok((mut near, _)) = listener.accept() {
            let mut far = std::net::TcpStream::connect(address).unwrap();
            let (mut back, mut forth) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut near, &mut far));
            std::thread::spawn(move || std::io::copy(&mut back, &mut forth));
        }
    });
    let gateway = Gateway::start(&format!(
        "[[routes]]\nupstream = \"app\"\n[upstreams.app]\nendpoints = [\"unix:{}\"]\n{H2C}\n",
        path.display()
    ));
    bodies_pass(&mut gateway.client(), 100_000);
}

#[test]
fn a_request_as_the_endpoint_sees_it() {
    let server = Http2Server::with(Http2Options::default(), |call: Call| async move {
        let mut text = format!("{} {}\n", call.request.method(), call.request.uri());
        for (name, value) in call.request.headers() {
            text += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        call.text(text);
    });
    let gateway = gateway(server.address(), H2C);
    let mut client = gateway.client();
    client.send(
        "GET /a/b?c=d HTTP/1.1\r\nHost: Gw.test:80\r\nX-Mixed: Case\r\nTE: trailers\r\n\
         Connection: TE, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\r\n",
    );
    let text = client.response().text();
    assert!(text.starts_with("GET http://Gw.test:80/a/b?c=d\n"), "{text}");
    for line in [
        "x-mixed: Case\n",
        "te: trailers\n",
        "x-forwarded-host: Gw.test:80\n",
        "via: 1.1 ringway\n",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    for name in ["x-hop", "keep-alive", "connection", "host:"] {
        assert!(!text.contains(&format!("\n{name}")), "{text}");
    }
    client.send("OPTIONS * HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(client.response().status, 204);
}

#[test]
fn responses_without_a_body() {
    let server = Http2Server::with(Http2Options::default(), |mut call: Call| async move {
        let status: u16 = call.path()[1..].parse().unwrap();
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if call.request.method() == "HEAD" {
            response.headers_mut().insert("content-length", 1234.into());
        }
        call.respond.send_response(response, true).unwrap();
    });
    let gateway = gateway(server.address(), H2C);
    let mut client = gateway.client();
    for (path, length) in [("/204", None), ("/304", None), ("/200", Some("0")), ("/404", Some("0"))]
    {
        let response = client.get(path);
        assert_eq!(response.status.to_string(), path[1..]);
        assert_eq!(response.field("content-length"), length);
        assert_eq!(response.field("via"), Some("2 ringway"));
        assert!(response.body.is_empty());
    }
    client.send("HEAD /200 HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").field("content-length"), Some("1234"));
    assert_eq!(server.connections(), 1);
}

#[test]
fn trailers_pass_both_ways() {
    let server = Http2Server::start();
    let gateway = gateway(server.address(), H2C);
    let mut client = gateway.client();
    client.send(
        "POST /sink HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\nX-Check: 42\r\nX-Other: b c\r\n\r\n",
    );
    let response = client.response();
    assert_eq!(response.text(), "0 intact");
    let expected = [("x-check", "42"), ("x-other", "b c")];
    let expected: Vec<_> = expected.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    assert_eq!(response.trailers, expected);
}

#[test]
fn interim_responses_are_passed_on() {
    let server = Http2Server::with(Http2Options::default(), |mut call: Call| async move {
        for number in 0..2 {
            let mut hints = Response::new(());
            *hints.status_mut() = StatusCode::EARLY_HINTS;
            hints.headers_mut().insert("x-number", number.into());
            call.respond.send_informational(hints).unwrap();
        }
        let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"done"), false).unwrap();
        stream.send_trailers(trailers(&[("x-sum", "7")])).unwrap();
    });
    let gateway = gateway(server.address(), H2C);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    for number in ["0", "1"] {
        let head = client.head();
        assert_eq!(
            (head.start_line.as_str(), head.field("x-number")),
            ("HTTP/1.1 103 Early Hints", Some(number))
        );
    }
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "done"));
    assert_eq!(response.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn both_directions_stream_at_once() {
    let server = Http2Server::with(Http2Options::default(), |mut call: Call| async move {
        let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
        let body = call.request.body_mut();
        while let Some(data) = receive(body).await {
            stream.send_data(data, false).unwrap();
        }
        stream.send_data(Bytes::new(), true).unwrap();
    });
    let gateway = gateway(server.address(), H2C);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(client.head().start_line.starts_with("HTTP/1.1 200"));
    for number in 0..200 {
        let text = format!("message {number:03}");
        client.send(format!("{:x}\r\n{text}\r\n", text.len()));
        let size = client.reader.through(b"\r\n").unwrap();
        assert_eq!(size, format!("{:x}\r\n", text.len()).into_bytes());
        assert_eq!(
            client.reader.exactly(text.len() + 2).unwrap(),
            format!("{text}\r\n").as_bytes()
        );
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.reader.exactly(5).unwrap(), b"0\r\n\r\n");
}

#[test]
fn upgrades_take_http1_where_the_endpoint_has_both() {
    let (papers, tls) = issued();
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            if request.field("upgrade") == Some("echo") {
                conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
                while conn.reader.fill().is_ok_and(|n| n > 0) {
                    let bytes = std::mem::take(&mut conn.reader.buf);
                    conn.send(bytes);
                }
                return;
            }
            conn.answer(&request);
        }
    });
    let app = Gateway::before(upstream.address(), &papers.listener(&["app"], ""));
    let gateway = gateway(app.address(), &format!("protocol = \"auto\"\n{tls}"));
    let mut client = gateway.client();
    // The version that the endpoint received, and the one that it answered in.
    assert_eq!(client.get("/").head.all("via"), ["1.1 ringway", "2 ringway"]);
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(client.head().start_line.starts_with("HTTP/1.1 101"));
    client.send("there and back");
    assert_eq!(client.reader.exactly(14).unwrap(), b"there and back");
}
