//! Requests and responses, as the upstream and the client see them.

use std::process::Command;

use super::{Both, connect, held};
use crate::harness::{
    Gateway, Http2, Papers, Upstream, eventually,
    http2::{code, flag, frame, kind, pseudo, setting},
};

#[test]
fn requests_are_served_over_plain_tcp_and_over_tls() {
    let upstream = Upstream::ok();
    let both = Both::before(upstream.address(), "");
    for (scheme, mut client) in both.each() {
        let path = |name: &str| format!("/{scheme}/{name}?q=1");
        assert_eq!(client.get(&path("get")).text(), format!("GET {}", path("get")));
        let asked = upstream.request_for(&path("get"));
        assert_eq!(asked.field("host"), Some("gw.test"));
        assert_eq!(asked.field("x-forwarded-proto"), Some(scheme));
        assert_eq!(asked.field("via"), Some("2 ringway"));
        assert!(!asked.head.has("content-length") && !asked.head.has("transfer-encoding"));
        let stream = client.ask("HEAD", &path("head"), &[]);
        let response = client.response(stream);
        let len = format!("HEAD {}", path("head")).len().to_string();
        assert_eq!((response.status, response.field("content-length")), (200, Some(&*len)));
        assert!(response.body.is_empty());
        let stream = client.post(&path("post"), &[], b"some text");
        assert_eq!(client.response(stream).text(), format!("POST {}", path("post")));
        assert_eq!(upstream.request_for(&path("post")).body, b"some text");
        let stream = client.ask("PROPFIND", &path("other"), &[]);
        assert_eq!(client.response(stream).status, 200);
        assert_eq!(upstream.request_for(&path("other")).method, "PROPFIND");
        let stream = client.ask("OPTIONS", "*", &[]);
        let response = client.response(stream);
        assert_eq!(response.status, 204);
        assert!(response.field("allow").unwrap().contains("GET"), "{response:?}");
    }
    assert_eq!(both.gateway.figure("ringway_http2_connections_total"), Some(2.0));
    assert_eq!(both.gateway.figure("ringway_http2_requests_total"), Some(10.0));
    assert_eq!(super::all_failures(&both.gateway), [""; 0]);
}

#[test]
fn curl_is_served() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    papers.issue("gw", &["gw.test"]);
    let tls = papers.listener(&["gw"], "").replace("\"main\"", "\"tls\"");
    let plain = "[[listeners]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n";
    let gateway = Gateway::before(upstream.address(), &format!("{plain}{tls}"));
    let curl = |listener: &str, more: &[&str]| {
        let port = gateway.address_of(listener).port();
        let scheme = if listener == "tls" { "https" } else { "http" };
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--write-out", " %{http_version}", "--cacert"]);
        command.arg(papers.path("gw.pem"));
        command.args(["--resolve", &format!("gw.test:{port}:127.0.0.1")]).args(more);
        let done = command.arg(format!("{scheme}://gw.test:{port}/c")).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    assert_eq!(curl("tls", &[]), "GET /c 2");
    assert_eq!(curl("tls", &["--http1.1"]), "GET /c 1.1");
    assert_eq!(curl("plain", &["--http2-prior-knowledge"]), "GET /c 2");
    assert_eq!(curl("plain", &["--http2-prior-knowledge", "--data", "x=1"]), "POST /c 2");
    // Upgrade from HTTP/1.1 is gone (RFC 9113 §3.1): served as HTTP/1.1.
    assert_eq!(curl("plain", &["--http2"]), "GET /c 1.1");
}

#[test]
fn fields_are_as_they_must_be_on_either_side() {
    let upstream = Upstream::canned(
        "HTTP/1.1 200 Fine\r\nX-Thing: 1\r\nX-THING: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
         Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: secret\r\n\
         Proxy-Connection: x\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = connect(&gateway);
    let fields = [
        ("cookie", "a=1"),
        ("x-one", "1"),
        ("cookie", "b=2"),
        ("x-one", "2"),
        ("te", "trailers"),
        ("cookie", "c=3; d=4"),
    ];
    let stream = client.ask("GET", "/f", &fields);
    let response = client.response(stream);
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(response.head.all("x-thing"), ["1", "2"]);
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
    assert!(!response.head.has("x-hop") && !response.head.has("keep-alive"), "{response:?}");
    assert!(response.field("date").is_some());
    assert_eq!(response.field("via"), Some("1.1 ringway"));
    let asked = upstream.request_for("/f");
    assert_eq!(asked.field("cookie"), Some("a=1; b=2; c=3; d=4"));
    assert_eq!(asked.head.all("x-one"), ["1", "2"]);
    assert_eq!(asked.field("te"), Some("trailers"), "for trailers, which can be passed on");
}

#[test]
fn this_hops_fields_are_added() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    papers.issue("gw", &["gw.test"]);
    let tls = papers.listener(&["gw"], ", hsts = \"2d\"");
    let more = "[tracing]\nserver_timing = \"always\"\n";
    let gateway = Gateway::before(upstream.address(), &format!("{more}{tls}"));
    let mut client = Http2::connect_tls(gateway.address(), &papers.trusting(&["gw"]));
    let response = client.get("/");
    assert_eq!(response.field("strict-transport-security"), Some("max-age=172800"));
    assert!(response.field("server-timing").is_some(), "{response:?}");
}

const RULES: &str = r#"
[limits]
head = "4KiB"
target = "1KiB"
fields = 20
body = "1000B"

[[routes]]
path = "/old"
redirect = { path = "/new", status = 301 }

[[routes]]
path = "/only-get"
methods = ["GET"]
upstream = "app"

[[routes]]
path = "/app"
upstream = "app"

[[routes]]
path = "/fixed"
respond = { body = "fixed" }
"#;

#[test]
fn refusals_are_problems_and_the_connection_goes_on() {
    let upstream = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "{RULES}[upstreams.app]\nendpoints = [\"{}\"]\n",
        upstream.address()
    ));
    let mut client = connect(&gateway);
    let long_path = format!("/app/{}", "x".repeat(1500));
    let long_field = "x".repeat(4300);
    let many: Vec<(&str, &str)> = vec![("x-many", "1"); 21];
    let none: &[(&str, &str)] = &[];
    for (method, path, fields, status, reason) in [
        ("GET", "/nowhere", none, 404, "route.not_found"),
        ("DELETE", "/only-get", none, 405, "route.method"),
        ("TRACE", "/app", none, 405, "method.refused"),
        ("GET", &long_path, none, 414, "limit.target_bytes"),
        ("GET", "/app", &[("x-long", &long_field)], 431, "limit.head_bytes"),
        ("GET", "/app", &many, 431, "limit.fields"),
        ("GET", "/app/..%2f", none, 400, "path.ambiguous"),
        ("GET", "/app", &[("expect", "money")], 417, "head.unknown_expectation"),
    ] {
        let stream = client.ask(method, path, fields);
        let response = client.response(stream);
        let told = (response.status, response.reason());
        assert_eq!(told, (status, reason.to_owned()), "{method} {:.20}", path);
        assert_eq!(response.field("connection"), None);
        assert_eq!(response.head.has("allow"), status == 405, "{response:?}");
    }
    // Declared, then undeclared.
    let stream =
        client.open(&[&pseudo("POST", "/app")[..], &[("content-length", "1001")]].concat(), false);
    let response = client.response(stream);
    assert_eq!((response.status, response.reason().as_str()), (413, "limit.body_bytes"));
    let stream = client.open(&pseudo("POST", "/app"), false);
    client.data(stream, &[b'x'; 600], false);
    client.data(stream, &[b'x'; 600], false);
    let response = client.response(stream);
    assert_eq!((response.status, response.reason().as_str()), (413, "limit.body_bytes"));
    // What was already on its way does not matter.
    client.data(stream, b"more", true);
    let response = client.get("/old/x?y=1");
    assert_eq!(response.status, 301);
    assert!(response.field("location").unwrap().contains("/new"), "{response:?}");
    assert_eq!(client.get("/fixed").text(), "fixed");
    assert_eq!(client.goaway, None);
    assert_eq!(upstream.requests().len(), 0, "nothing refused reached it");
    assert_eq!(super::all_failures(&gateway), [""; 0]);
}

#[test]
fn https_is_where_the_listener_sends_everybody() {
    let listener = "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\nredirect_https = 443\n";
    let gateway = Gateway::start(&format!("{listener}[[routes]]\nrespond = {{ body = \"no\" }}\n"));
    let mut client = connect(&gateway);
    let response = client.get("/a?b");
    assert_eq!(response.status, 308);
    assert_eq!(response.field("location"), Some("https://gw.test/a?b"));
}

#[test]
fn trailers_pass_both_ways() {
    let upstream = Upstream::canned(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 6\r\nX-Other: y\r\n\r\n",
    );
    let both = Both::before(upstream.address(), "");
    for (path, mut client) in both.each().map(|(scheme, client)| (format!("/{scheme}"), client)) {
        let fields = [("te", "trailers"), ("trailer", "x-check")];
        let stream = client.open(&[&pseudo("POST", &path)[..], &fields].concat(), false);
        client.body(stream, b"a body", false);
        let block = crate::harness::http2::block(&[("x-check", "ok"), ("x-more", "2")]);
        client.send(crate::harness::http2::headers(stream, &block, true));
        let response = client.response(stream);
        assert_eq!(response.text(), "abc");
        let told = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(response.trailers, [told("x-sum", "6"), told("x-other", "y")]);
        let asked = upstream.request_for(&path);
        assert_eq!(asked.body, b"a body");
        assert_eq!(asked.trailers, [told("x-check", "ok"), told("x-more", "2")]);
    }
}

#[test]
fn interim_responses_come_first() {
    let upstream = Upstream::scripted(|conn| {
        while let Ok(head) = conn.request_head() {
            if head.head.has("expect") {
                conn.send("HTTP/1.1 100 Continue\r\n\r\n");
                let body = conn.reader.exactly(4).unwrap();
                conn.ok(body);
            } else {
                conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
                conn.send("HTTP/1.1 103 Early Hints\r\nX-Second: 1\r\n\r\n");
                conn.ok("late");
            }
        }
    });
    let both = Both::before(upstream.address(), "");
    for (_, mut client) in both.each() {
        let stream = client.ask("GET", "/hints", &[]);
        let answer = client.finish(stream).unwrap();
        assert_eq!(answer.response.text(), "late");
        let told: Vec<_> = answer.interim.iter().map(|(status, _)| *status).collect();
        assert_eq!(told, [103, 103]);
        assert!(answer.interim[0].1.iter().any(|(name, _)| name == "link"), "{answer:?}");
        let fields = [("expect", "100-continue"), ("content-length", "4")];
        let stream = client.open(&[&pseudo("POST", "/expects")[..], &fields].concat(), false);
        client.until("100", |client| {
            client.streams.get(&stream).is_some_and(|answer| answer.interim.len() == 1)
        });
        client.data(stream, b"body", true);
        let answer = client.finish(stream).unwrap();
        assert_eq!((answer.interim[0].0, answer.response.text().as_str()), (100, "body"));
    }
}

#[test]
fn streams_do_not_wait_for_each_other() {
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            if request.target == "/waits" {
                return conn.until_closed();
            }
            conn.answer(&request);
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = connect(&gateway);
    let waiting = client.ask("GET", "/waits", &[]);
    let stalled = client.open(&pseudo("POST", "/stalls"), false);
    for n in 0..20 {
        assert_eq!(client.get(&format!("/{n}")).text(), format!("GET /{n}"));
    }
    assert!(!client.streams.contains_key(&waiting));
    client.data(stalled, b"at last", true);
    assert_eq!(client.response(stalled).text(), "POST /stalls");
}

#[test]
fn as_many_streams_as_settings_say() {
    let (upstream, tell) = held();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = connect(&gateway);
    client.until("SETTINGS", |client| client.settings.contains_key(&setting::STREAMS));
    assert_eq!(client.settings[&setting::STREAMS], 128);
    let streams: Vec<u32> = (0..128).map(|n| client.ask("GET", &format!("/{n}"), &[])).collect();
    eventually("all are asked for", || upstream.requests().len() == 128);
    let beyond = client.ask("GET", "/beyond", &[]);
    assert_eq!(client.reset_of(beyond), code::REFUSED_STREAM);
    tell.send(()).unwrap();
    client.until("one is answered", |client| client.streams.values().any(|one| one.is_ended));
    let again = client.ask("GET", "/again", &[]);
    (0..128).for_each(|_| tell.send(()).unwrap());
    for (n, stream) in streams.into_iter().enumerate() {
        assert_eq!(client.response(stream).text(), format!("GET /{n}"));
    }
    assert_eq!(client.response(again).text(), "GET /again");
    assert!(upstream.requests().iter().all(|request| request.target != "/beyond"));
}

#[test]
fn a_common_client_has_many_requests_at_once() {
    let server = crate::harness::Server::start();
    let gateway = Gateway::before(server.address(), "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::spawn(async move { connection.await.unwrap() });
        let works: Vec<_> = (0..100).map(|n| tokio::spawn(upload(sender.clone(), n))).collect();
        for work in works {
            work.await.unwrap();
        }
    });
}

/// Sends a body of the pattern; the server says that it is intact.
async fn upload(sender: h2::client::SendRequest<bytes::Bytes>, n: usize) {
    let mut sender = sender.ready().await.unwrap();
    let request = http::Request::put(format!("http://gw.test/sink/{n}")).body(()).unwrap();
    let (response, mut stream) = sender.send_request(request, false).unwrap();
    let size = 1000 * n;
    let mut data = bytes::Bytes::from(crate::harness::Pattern::default().take(size));
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        stream.send_data(data.split_to(room.min(data.len())), false).unwrap();
    }
    stream.send_data(bytes::Bytes::new(), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut text = Vec::new();
    while let Some(bytes) = body.data().await {
        text.extend(bytes.unwrap());
    }
    assert_eq!(String::from_utf8(text).unwrap(), format!("{size} intact"));
}

#[test]
fn frames_that_mean_nothing_here_are_passed_over() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = connect(&gateway);
    client.send(frame(0xbe, 0xff, 0, "unknown"));
    client.send(frame(kind::PRIORITY, flag::NONE, 5, [0, 0, 0, 1, 7]));
    assert_eq!(client.get("/").status, 200);
    client.ping();
}
