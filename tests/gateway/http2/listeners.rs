//! What listeners speak, how connections begin, and what operators are shown of them.

use serde_json::json;

use super::{connect, failures, held};
use crate::harness::{
    Client, Gateway, Http2, Papers, Upstream, eventually,
    http2::{PREFACE, code, settings},
};

fn listener(more: &str) -> String {
    format!("[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\n{more}\n")
}

#[test]
fn http2_may_be_off() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    papers.issue("gw", &["gw.test"]);
    let tls = papers.listener(&["gw"], "").replace("\"main\"", "\"tls\"");
    let more = format!("{}{tls}http2 = \"off\"\n", listener("http2 = \"off\""));
    let gateway = Gateway::before(upstream.address(), &more);
    let mut client = gateway.client();
    client.send(PREFACE);
    assert_eq!(client.response().status, 505);
    let address = gateway.address_of("tls");
    let config = papers.trusting(&["gw"]);
    let (socket, chosen) = Http2::tls(address, &config, &["h2", "http/1.1"]);
    assert_eq!(chosen.as_deref(), Some("http/1.1"));
    assert_eq!(Client::over(socket).get("/one").text(), "GET /one");
}

#[test]
fn http2_may_be_all_there_is() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    papers.issue("gw", &["gw.test"]);
    let tls = papers.listener(&["gw"], "").replace("\"main\"", "\"tls\"");
    let more = format!("{}{tls}http2 = \"only\"\n", listener("http2 = \"only\""));
    let gateway = Gateway::before(upstream.address(), &more);
    assert_eq!(connect(&gateway).get("/two").text(), "GET /two");
    let mut client = Http2::silent(Http2::tcp(gateway.address()));
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    // It may not understand a GOAWAY (RFC 9113 §3.4).
    assert_eq!(client.end().map_or(code::PROTOCOL_ERROR, |end| end.code), code::PROTOCOL_ERROR);
    assert_eq!(failures(&gateway, "protocol"), 1);
    let config = papers.trusting(&["gw"]);
    let mut client = Http2::connect_tls(gateway.address_of("tls"), &config);
    assert_eq!(client.get("/tls").text(), "GET /tls");
    assert!(upstream.requests().iter().all(|request| request.target != "/"));
}

#[test]
fn http_1_is_served_beside_it() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    papers.issue("gw", &["gw.test"]);
    let gateway = Gateway::before(upstream.address(), &papers.listener(&["gw"], ""));
    let config = papers.trusting(&["gw"]);
    for (offered, wanted) in
        [(&["http/1.1", "h2"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let (socket, chosen) = Http2::tls(gateway.address(), &config, offered);
        assert_eq!(chosen.as_deref(), wanted, "{offered:?}");
        if wanted != Some("h2") {
            assert_eq!(Client::over(socket).get("/one").text(), "GET /one");
        }
    }
    // HTTP/2 without having been chosen is none.
    let (socket, _) = Http2::tls(gateway.address(), &config, &["http/1.1"]);
    let mut client = Client::over(socket);
    client.send(PREFACE);
    assert_eq!(client.response().status, 505);
}

#[test]
fn the_preface_may_come_in_pieces() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let bytes = [PREFACE, &settings(&[])].concat();
    for cut in 1..bytes.len() {
        let mut client = Http2::silent(Http2::tcp(gateway.address()));
        client.send(&bytes[..cut]);
        // Not needed for the result: it only makes two reads of it more likely.
        std::thread::sleep(std::time::Duration::from_micros(500));
        client.send(&bytes[cut..]);
        assert_eq!(client.get("/whole").text(), "GET /whole", "cut at {cut}");
    }
    let mut client = Http2::silent(Http2::tcp(gateway.address()));
    bytes.iter().for_each(|byte| client.send([*byte]));
    assert_eq!(client.get("/whole").text(), "GET /whole");
}

#[test]
fn what_is_almost_a_preface_is_refused() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    for at in 0..PREFACE.len() {
        let mut bytes = [PREFACE, &settings(&[])].concat();
        bytes[at] ^= 0x20;
        let mut client = Client::over(Http2::tcp(gateway.address()));
        client.try_send(&bytes);
        client.finish_sending();
        let answer = client.reader.read_to_end().unwrap_or_default();
        let is_refusal = answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 5");
        // Behind its first lines it is HTTP/2, with a fault: GOAWAY is all that comes.
        let text = answer.escape_ascii().to_string();
        assert!(is_refusal || at >= 18 && !text.contains("200"), "changed at {at}: {text}");
    }
    // A second request on a connection cannot be one.
    let mut client = gateway.client();
    assert_eq!(client.get("/one").status, 200);
    client.send(PREFACE);
    assert_eq!(client.response().status, 505);
    assert!(upstream.requests().iter().all(|request| request.target == "/one"));
}

#[test]
fn whoever_does_not_begin_is_not_waited_for() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    papers.issue("gw", &["gw.test"]);
    let tls = papers.listener(&["gw"], "").replace("\"main\"", "\"tls\"");
    let more = format!(
        "[timeouts]\nhead = \"300ms\"\n{}{tls}{}",
        listener("http2 = \"only\""),
        listener("").replace("\"main\"", "\"either\"")
    );
    let gateway = Gateway::before(upstream.address(), &more);
    let config = papers.trusting(&["gw"]);
    for sent in [&b""[..], &PREFACE[..10], &PREFACE[..14], &PREFACE[..20]] {
        let mut client = Http2::silent(Http2::tcp(gateway.address()));
        client.send(sent);
        client.end();
        let (socket, _) = Http2::tls(gateway.address_of("tls"), &config, &["h2"]);
        let mut client = Http2::silent(socket);
        client.send(sent);
        client.end();
        let mut client = Client::over(Http2::tcp(gateway.address_of("either")));
        client.send(sent);
        assert!(client.reader.read_to_end().is_ok(), "it ends: {}", sent.escape_ascii());
    }
}

#[test]
fn connections_are_listed_with_what_they_do() {
    let (upstream, tell) = held();
    let gateway = Gateway::before(upstream.address(), "");
    let mut idle = connect(&gateway);
    idle.ping();
    let mut busy = connect(&gateway);
    let streams: Vec<u32> = (0..3).map(|n| busy.ask("GET", &format!("/{n}"), &[])).collect();
    eventually("all are asked for", || upstream.requests().len() == 3);
    let list = || {
        let text = gateway.admin().get("/connections").text();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let told = list();
    let mut lines: Vec<_> = told["connections"].as_array().unwrap().iter().collect();
    lines.sort_by_key(|line| line["state"].to_string());
    assert_eq!(lines.len(), 2, "{told}");
    assert_eq!((&lines[0]["state"], &lines[0]["requests"]), (&json!("idle"), &json!(0)));
    assert_eq!((&lines[1]["state"], &lines[1]["requests"]), (&json!("request"), &json!(3)));
    assert!(lines[1]["route"].is_string() && lines[1]["request_age"].is_number(), "{told}");
    (0..3).for_each(|_| tell.send(()).unwrap());
    streams.into_iter().for_each(|stream| assert_eq!(busy.response(stream).status, 200));
    busy.ping();
    let told = list();
    let is_idle = |line: &serde_json::Value| line["state"] == "idle";
    assert!(told["connections"].as_array().unwrap().iter().all(is_idle), "{told}");
    let status = gateway.command(&["status"]);
    assert!(status.status.success(), "{status:?}");
}

#[test]
fn traces_go_on() {
    let upstream = Upstream::ok();
    let trust = "[forwarding]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let gateway = Gateway::before(upstream.address(), trust);
    let mut client = connect(&gateway);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let fields =
        [("traceparent", parent), ("x-request-id", "abc"), ("x-forwarded-for", "10.1.2.3")];
    let stream = client.ask("GET", "/t", &fields);
    assert_eq!(client.response(stream).status, 200);
    let asked = upstream.request_for("/t");
    assert!(asked.field("traceparent").unwrap().contains("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!(asked.field("x-forwarded-for"), Some("10.1.2.3, 127.0.0.1"));
    assert_eq!(asked.field("x-request-id"), Some("abc"));
}
