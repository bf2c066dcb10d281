//! Distributed tracing: what upstreams are told, what the collector gets, and that a collector in
//! trouble is nobody else's.

use std::{
    collections::HashSet,
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;

use crate::harness::{Client, Conn, Gateway, Received, Upstream, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const TRUST: &str = "[forwarding]\ntrusted_proxies = [\"127.0.0.1\"]\n";

/// A collector: takes OTLP over HTTP, strictly, and keeps the spans.
struct Collector {
    server: Upstream,
    spans: Arc<Mutex<Vec<Span>>>,
    resource: Arc<Mutex<Vec<KeyValue>>>,
}

impl Collector {
    fn start() -> Collector {
        Collector::answering(|_, _| Some(ok(&ExportTraceServiceResponse::default())))
    }

    /// Answers its requests, counted from 0, as `answer` says; `None` never. Spans of a request
    /// that is answered 200 are kept.
    fn answering(
        answer: impl Fn(usize, &Received) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Collector {
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let resource = Arc::<Mutex<Vec<KeyValue>>>::default();
        let (own_spans, own_resource) = (spans.clone(), resource.clone());
        let count = AtomicUsize::new(0);
        let server = Upstream::scripted(move |conn: &mut Conn| {
            while let Ok(request) = conn.request() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let Some(answer) = answer(number, &request) else {
                    return conn.until_closed();
                };
                if answer.starts_with(b"HTTP/1.1 200 ") {
                    let export = ExportTraceServiceRequest::decode(&*request.body).unwrap();
                    for one in export.resource_spans {
                        *own_resource.lock().unwrap() = one.resource.unwrap().attributes;
                        let spans = one.scope_spans.into_iter().flat_map(|scope| scope.spans);
                        own_spans.lock().unwrap().extend(spans);
                    }
                }
                conn.send(answer);
            }
        });
        Collector { server, spans, resource }
    }

    fn url(&self) -> String {
        format!("http://{}/v1/traces", self.server.address())
    }

    /// A `[tracing]` section that leads here, with further keys.
    fn section(&self, more: &str) -> String {
        format!("[tracing]\nendpoint = \"{}\"\n{more}\n", self.url())
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Ends the gateway, which sends what it has, and answers the spans in the order they began.
    #[track_caller]
    fn last_spans(&self, gateway: &Gateway) -> Vec<Span> {
        gateway.sigterm();
        assert!(gateway.wait_exit().success(), "{}", gateway.log());
        let mut spans = self.spans();
        all_are_documented(&spans);
        spans.sort_by_key(|span| (span.start_time_unix_nano, span.kind));
        spans
    }
}

/// A gateway that records every exchange, with these sections and an upstream `app`.
#[track_caller]
fn traced(collector: &Collector, app: &Upstream, sections: &str) -> Gateway {
    let tracing = collector.section("sample = 1.0");
    let app = app.address();
    Gateway::start(&format!("{tracing}{sections}[upstreams.app]\nendpoints = [\"{app}\"]\n"))
}

/// Sends one GET for each path and checks the status of its answer.
#[track_caller]
fn get_all(client: &mut Client, expected: &[(&str, u16)]) {
    for (path, status) in expected {
        assert_eq!(client.get(path).status, *status, "{path}");
    }
}

/// The page on tracing lists every attribute.
#[track_caller]
fn all_are_documented(spans: &[Span]) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tracing.md");
    let page = std::fs::read_to_string(page).unwrap();
    for attribute in spans.iter().flat_map(|span| &span.attributes) {
        let name = format!("`{}`", attribute.key);
        assert!(page.contains(&name), "{name} is not in docs/tracing.md");
    }
}

fn ok(response: &ExportTraceServiceResponse) -> Vec<u8> {
    let body = response.encode_to_vec();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

fn status(line: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// An attribute as text; empty when it is not there.
fn text(attributes: &[KeyValue], key: &str) -> String {
    let found: Vec<_> = attributes.iter().filter(|attribute| attribute.key == key).collect();
    assert!(found.len() < 2, "{key} is there twice");
    match found.first().and_then(|found| found.value.clone()?.value) {
        None => String::new(),
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(other) => panic!("{key} is {other:?}"),
    }
}

/// These attributes have these values; an empty one is not there.
#[track_caller]
fn has(span: &Span, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(text(&span.attributes, key), *value, "{key} of {span:#?}");
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == 2)
}

fn of_kind(spans: &[Span], kind: SpanKind) -> Vec<Span> {
    spans.iter().filter(|span| span.kind() == kind).cloned().collect()
}

/// The parts of a `traceparent` that was received: trace id, span id, flags.
#[track_caller]
fn parent_of(request: &Received) -> (String, String, String) {
    let value = request.field("traceparent").expect("a traceparent");
    let parts: Vec<&str> = value.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    assert_eq!((parts[0], lengths), ("00", vec![2, 32, 16, 2]), "{value}");
    let is_hex = |c: char| matches!(c, '0'..='9' | 'a'..='f' | '-');
    assert!(value.chars().all(is_hex), "{value}");
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}

/// Sends a GET with further field lines.
#[track_caller]
fn get_with(client: &mut Client, path: &str, lines: &[&str]) -> u16 {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: gw.test:81\r\n{lines}\r\n"));
    client.response().status
}

fn caller(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{CALLER}-{flags}")
}

#[test]
fn a_trace_begins_here() {
    let (up, collector) = (Upstream::ok(), Collector::start());
    let gateway = Gateway::before(up.address(), &collector.section("sample = 1.0"));
    let begun = std::time::SystemTime::now();
    let mut client = gateway.client();
    let agent = "User-Agent: tester/1";
    assert_eq!(get_with(&mut client, "/a/b?token=secret", &[agent, "X-Request-Id: r-1"]), 200);
    drop(client);
    let (trace_id, try_id, flags) = parent_of(&up.only_request());
    assert_eq!(flags, "01");
    assert!(!up.only_request().head.has("tracestate"));

    let spans = collector.last_spans(&gateway);
    let [server, try_one] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((server.kind(), try_one.kind()), (SpanKind::Server, SpanKind::Client));
    assert_eq!((hex(&server.trace_id), hex(&try_one.trace_id)), (trace_id.clone(), trace_id));
    assert_eq!((server.parent_span_id.len(), &try_one.parent_span_id), (0, &server.span_id));
    assert_eq!(hex(&try_one.span_id), try_id);
    assert_eq!((server.flags, try_one.flags), (0x101, 0x101));
    assert_eq!((server.name.as_str(), try_one.name.as_str()), ("GET /", "GET"));
    assert!(!is_error(server) && !is_error(try_one));

    has(
        server,
        &[
            ("http.request.method", "GET"),
            ("url.path", "/a/b"),
            ("url.query", ""),
            ("url.scheme", "http"),
            ("server.address", "gw.test"),
            ("server.port", "81"),
            ("client.address", "127.0.0.1"),
            ("network.peer.address", "127.0.0.1"),
            ("network.protocol.version", "1.1"),
            ("http.response.status_code", "200"),
            ("http.response.body.size", &"GET /a/b?token=secret".len().to_string()),
            ("http.route", "/"),
            ("ringway.route", "/"),
            ("ringway.request_id", "r-1"),
            ("user_agent.original", "tester/1"),
            ("error.type", ""),
        ],
    );
    assert!(text(&server.attributes, "ringway.overhead").parse::<f64>().unwrap() > 0.0);
    has(
        try_one,
        &[
            ("http.request.method", "GET"),
            ("server.address", "127.0.0.1"),
            ("server.port", &up.address().port().to_string()),
            ("url.full", &format!("http://{}/a/b", up.address())),
            ("http.response.status_code", "200"),
            ("http.request.resend_count", ""),
            ("ringway.upstream", "app"),
            ("ringway.connection_reused", "false"),
            ("error.type", ""),
        ],
    );
    assert!(!format!("{spans:?}").contains("secret"), "the query is nobody's business");

    let begun = begun.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let (from, to) = (server.start_time_unix_nano, server.end_time_unix_nano);
    let slack = 50_000_000;
    assert!(begun - slack < from && to < begun + 10_000_000_000, "{begun} {from} {to}");
    let (try_from, try_to) = (try_one.start_time_unix_nano, try_one.end_time_unix_nano);
    assert!(from <= try_from && try_from < try_to && try_to <= to, "{spans:#?}");

    let resource = collector.resource.lock().unwrap();
    assert_eq!(text(&resource, "service.name"), "ringway");
    assert_eq!(text(&resource, "service.version"), env!("CARGO_PKG_VERSION"));
    assert!(!text(&resource, "host.name").is_empty() && !text(&resource, "process.pid").is_empty());
}

#[test]
fn a_trusted_callers_trace_goes_on_as_it_decided() {
    let (up, collector) = (Upstream::ok(), Collector::start());
    let section = collector.section("sample = 0.0\nservice_name = \"edge\"");
    let gateway = Gateway::before(up.address(), &format!("{section}{TRUST}"));
    let mut client = gateway.client();
    let state = ["tracestate: a=1,b=x y", "tracestate: c=3"];
    assert_eq!(get_with(&mut client, "/yes", &[&caller("01"), state[0], state[1]]), 200);
    assert_eq!(get_with(&mut client, "/no", &[&caller("00"), state[0]]), 200);
    assert_eq!(get_with(&mut client, "/none", &[]), 200);
    drop(client);

    let told: Vec<_> = up.requests().iter().map(parent_of).collect();
    assert_eq!((told[0].0.as_str(), told[0].2.as_str()), (TRACE, "01"));
    assert_eq!((told[1].0.as_str(), told[1].2.as_str()), (TRACE, "00"));
    assert_eq!(told[2].2, "00");
    assert!(told[2].0 != TRACE && told.iter().all(|(_, span, _)| span != CALLER));
    let requests = up.requests();
    assert_eq!(requests[0].head.all("tracestate"), ["a=1,b=x y", "c=3"]);
    assert_eq!(requests[1].head.all("tracestate"), ["a=1,b=x y"]);

    let spans = collector.last_spans(&gateway);
    assert_eq!(spans.len(), 2, "{spans:#?}");
    assert_eq!((hex(&spans[0].trace_id).as_str(), spans[0].flags), (TRACE, 0x301));
    assert_eq!(hex(&spans[0].parent_span_id), CALLER);
    assert_eq!(spans[0].trace_state, "a=1,b=x y,c=3");
    assert_eq!(text(&collector.resource.lock().unwrap(), "service.name"), "edge");
}

#[test]
fn a_strangers_flag_decides_nothing_but_the_trace_goes_on() {
    for (sample, asked, expected) in [("0.0", "01", "00"), ("1.0", "00", "01")] {
        let (up, collector) = (Upstream::ok(), Collector::start());
        let section = collector.section(&format!("sample = {sample}"));
        let gateway = Gateway::before(up.address(), &section);
        let mut client = gateway.client();
        assert_eq!(get_with(&mut client, "/", &[&caller(asked), "tracestate: a=1"]), 200);
        drop(client);
        let request = up.only_request();
        let (trace_id, _, flags) = parent_of(&request);
        assert_eq!((trace_id.as_str(), flags.as_str()), (TRACE, expected));
        assert_eq!(request.field("tracestate"), Some("a=1"));
        let spans = collector.last_spans(&gateway);
        assert_eq!(spans.len(), if expected == "01" { 2 } else { 0 });
    }
}

#[test]
fn an_invalid_context_begins_a_new_trace() {
    let (up, collector) = (Upstream::ok(), Collector::start());
    let gateway = Gateway::before(up.address(), &format!("{}{TRUST}", collector.section("")));
    let mut client = gateway.client();
    let state = "tracestate: a=1";
    let upper = caller("01").to_uppercase();
    for lines in [
        vec!["traceparent: 00-x", state],
        vec![upper.as_str(), state],
        vec![&caller("01"), &caller("01"), state],
        vec![state],
    ] {
        let before = up.requests().len();
        assert_eq!(get_with(&mut client, "/", &lines), 200);
        let request = up.requests().remove(before);
        assert_ne!(parent_of(&request).0, TRACE, "{lines:?}");
        assert!(!request.head.has("tracestate"), "{lines:?}");
    }
    // The trace goes on without a state that cannot be read.
    assert_eq!(get_with(&mut client, "/", &[&caller("01"), "tracestate: A=1"]), 200);
    let request = up.requests().pop().unwrap();
    assert_eq!(parent_of(&request).0, TRACE);
    assert!(!request.head.has("tracestate"));
}

#[test]
fn without_tracing_the_fields_pass_unchanged() {
    let up = Upstream::ok();
    let gateway = Gateway::before(up.address(), "");
    let lines = ["traceparent: whatever", "traceparent: 2", "tracestate: ,=,"];
    assert_eq!(get_with(&mut gateway.client(), "/", &lines), 200);
    let head = up.only_request().head;
    assert_eq!(head.all("traceparent"), ["whatever", "2"]);
    assert_eq!(head.all("tracestate"), [",=,"]);
}

#[test]
fn every_try_has_a_span_of_its_own() {
    // The second request on the first connection is not answered.
    let up = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            if conn.index == 0 && request.target == "/again" {
                return;
            }
            conn.answer(&request);
        }
    });
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let collector = Collector::start();
    let sections = format!(
        "[runtime]\nworkers = 1\n[[routes]]\nname = \"all\"\npath_template = \"/{{any}}\"\n\
         upstream = \"app\"\n[[routes]]\npath = \"/dead\"\nupstream = \"dead\"\n\
         [upstreams.dead]\nendpoints = [\"{dead}\"]\n"
    );
    let gateway = traced(&collector, &up, &sections);
    get_all(&mut gateway.client(), &[("/first", 200), ("/again", 200), ("/dead/x", 503)]);
    let told: Vec<_> = up.requests().iter().map(parent_of).collect();
    assert_eq!(told.len(), 3);

    let spans = collector.last_spans(&gateway);
    let of = |path: &str| {
        let server = spans.iter().find(|span| text(&span.attributes, "url.path") == path);
        let server = server.unwrap_or_else(|| panic!("{path}: {spans:#?}")).clone();
        let is_child = |span: &&Span| span.parent_span_id == server.span_id;
        (server.clone(), spans.iter().filter(is_child).cloned().collect::<Vec<_>>())
    };
    let (again, tries) = of("/again");
    assert_eq!(again.name, "GET /{any}");
    has(&again, &[("http.response.status_code", "200"), ("ringway.route", "all")]);
    let [failed, second] = &tries[..] else { panic!("{spans:#?}") };
    assert_eq!(
        (hex(&failed.span_id), hex(&second.span_id)),
        (told[1].1.clone(), told[2].1.clone())
    );
    assert_ne!(failed.span_id, second.span_id);
    assert!(is_error(failed) && !is_error(second) && !is_error(&again));
    has(
        failed,
        &[
            ("error.type", "upstream.closed"),
            ("http.response.status_code", ""),
            ("http.request.resend_count", ""),
            ("ringway.connection_reused", "true"),
        ],
    );
    has(
        second,
        &[
            ("error.type", ""),
            ("http.response.status_code", "200"),
            ("http.request.resend_count", "1"),
            ("ringway.connection_reused", "false"),
        ],
    );
    assert!(failed.end_time_unix_nano <= second.start_time_unix_nano);

    let (refused, tries) = of("/dead/x");
    has(&refused, &[("error.type", "upstream.connect"), ("http.response.status_code", "503")]);
    assert!(is_error(&refused) && tries.len() == 1);
    has(
        &tries[0],
        &[
            ("error.type", "upstream.connect"),
            ("server.port", &dead.port().to_string()),
            ("ringway.connection_reused", "false"),
        ],
    );
}

#[test]
fn refusals_say_why() {
    let (up, collector) = (Upstream::ok(), Collector::start());
    let sections = "[[routes]]\npath = \"/small\"\nupstream = \"app\"\nmax_body = \"1B\"\n\
        methods = [\"POST\"]\n[[routes]]\npath = \"/fixed\"\nrespond = { status = 403 }\n";
    let gateway = traced(&collector, &up, sections);
    let mut client = gateway.client();
    get_all(&mut client, &[("/nowhere", 404), ("/small", 405), ("/fixed", 403)]);
    client.send("BREW /nowhere HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(client.response().status, 404);
    client.send("POST /small HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(client.response().status, 413);
    drop(client);
    assert_eq!(up.connections(), 0);
    let spans = collector.last_spans(&gateway);
    let seen: Vec<_> = spans
        .iter()
        .map(|span| {
            let attribute = |key| text(&span.attributes, key);
            let status = attribute("http.response.status_code");
            (span.name.clone(), status, attribute("error.type"), is_error(span))
        })
        .collect();
    let expected = [
        ("GET", "404", "route.not_found"),
        ("GET", "405", "route.method"),
        ("GET /fixed", "403", ""),
        ("HTTP", "404", "route.not_found"),
        ("POST /small", "413", "limit.body_bytes"),
    ];
    let expected = expected.map(|(name, status, reason)| {
        (name.to_owned(), status.to_owned(), reason.to_owned(), false)
    });
    assert_eq!(seen, expected);
    has(&spans[3], &[("http.request.method", "_OTHER"), ("http.request.method_original", "BREW")]);
}

#[test]
fn a_response_that_breaks_off_is_an_error() {
    let up =
        Upstream::canned("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhalf");
    let collector = Collector::start();
    let more =
        format!("{}[upstreams.app]\nidle_timeout = \"100ms\"\n", collector.section("sample = 1.0"));
    let gateway = Gateway::start(&format!(
        "{more}endpoints = [\"{}\"]\n[[routes]]\nupstream = \"app\"\n",
        up.address()
    ));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert!(client.try_response("GET").is_err());
    drop(client);
    let spans = collector.last_spans(&gateway);
    assert_eq!(spans.len(), 2);
    for span in &spans {
        assert!(is_error(span));
        has(span, &[("error.type", "upstream.idle_timeout"), ("http.response.status_code", "200")]);
    }
}

#[test]
fn a_tunnel_is_exported_while_it_is_open() {
    let up = Upstream::scripted(|conn| {
        conn.request_head().unwrap();
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        conn.until_closed();
    });
    let collector = Collector::start();
    let section = collector.section("sample = 1.0\nserver_timing = \"sampled\"");
    let gateway = Gateway::before(up.address(), &section);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    let head = client.head();
    assert!(head.start_line.contains("101") && head.has("server-timing"));
    eventually("its spans", || collector.spans().len() == 2);
    let servers = of_kind(&collector.spans(), SpanKind::Server);
    has(&servers[0], &[("http.response.status_code", "101")]);
    drop(client);
    up.wait_until_idle();
    assert_eq!(collector.last_spans(&gateway).len(), 2, "once");
}

#[test]
fn routes_have_shares_of_their_own() {
    let (up, collector) = (Upstream::ok(), Collector::start());
    let gateway = Gateway::start(&format!(
        "{}[[routes]]\npath = \"/always\"\nupstream = \"app\"\ntrace_sample = 1\n\
         [[routes]]\npath = \"/never\"\nupstream = \"app\"\ntrace_sample = 0.0\n\
         [[routes]]\npath = \"/usual\"\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        collector.section("sample = 0.0"),
        up.address(),
    ));
    let mut client = gateway.client();
    for _ in 0..5 {
        ["/always", "/never", "/usual"]
            .iter()
            .for_each(|path| assert_eq!(client.get(path).status, 200));
    }
    drop(client);
    let flags = |path: &str| {
        let to = up.requests().into_iter().filter(|request| request.target == path);
        to.map(|request| parent_of(&request).2).collect::<HashSet<_>>()
    };
    assert_eq!(flags("/always"), HashSet::from(["01".to_owned()]));
    assert_eq!(flags("/never"), HashSet::from(["00".to_owned()]));
    assert_eq!(flags("/usual"), HashSet::from(["00".to_owned()]));
    let servers = of_kind(&collector.last_spans(&gateway), SpanKind::Server);
    assert_eq!(servers.len(), 5);
    servers.iter().for_each(|span| has(span, &[("url.path", "/always")]));
}

#[test]
fn gateways_agree_on_the_same_share_of_traces() {
    const REQUESTS: u64 = 600;
    let taken: Vec<HashSet<String>> = (0..2)
        .map(|_| {
            let (up, collector) = (Upstream::ok(), Collector::start());
            let section = collector.section("sample = 0.3\nparent = \"ignore\"");
            let gateway = Gateway::before(up.address(), &format!("{section}{TRUST}"));
            let mut client = gateway.client();
            // The same ids for both: numbers spread over the whole range.
            for number in 1..=REQUESTS {
                let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let parent = format!("traceparent: 00-{number:016x}{id:016x}-{CALLER}-00");
                assert_eq!(get_with(&mut client, "/", &[&parent]), 200);
            }
            drop(client);
            let told = up.requests().iter().map(parent_of).collect::<Vec<_>>();
            assert_eq!(told.len() as u64, REQUESTS);
            let sampled = told.into_iter().filter(|(.., flags)| flags == "01");
            let sampled: HashSet<String> = sampled.map(|(trace_id, ..)| trace_id).collect();
            let spans = collector.last_spans(&gateway);
            let exported: HashSet<String> = spans.iter().map(|span| hex(&span.trace_id)).collect();
            assert_eq!(exported, sampled, "what upstreams are told is what is exported");
            assert_eq!(spans.len(), 2 * sampled.len());
            sampled
        })
        .collect();
    assert_eq!(taken[0], taken[1]);
    // 180 expected; six standard deviations are 67.
    assert!((113..247).contains(&taken[0].len()), "{} of {REQUESTS}", taken[0].len());
}

#[test]
fn begun_traces_are_sampled_by_the_share() {
    const REQUESTS: usize = 1000;
    let (up, collector) = (Upstream::ok(), Collector::start());
    let gateway = Gateway::before(up.address(), &collector.section("sample = 0.2"));
    let mut client = gateway.client();
    (0..REQUESTS).for_each(|_| assert_eq!(client.get("/").status, 200));
    drop(client);
    let told: Vec<_> = up.requests().iter().map(parent_of).collect();
    let ids: HashSet<_> = told.iter().map(|(trace_id, ..)| trace_id).collect();
    assert_eq!(ids.len(), REQUESTS, "every trace has an id of its own");
    let sampled = told.iter().filter(|(.., flags)| flags == "01").count();
    // 200 expected; six standard deviations are 76.
    assert!((124..276).contains(&sampled), "{sampled}");
    assert_eq!(collector.last_spans(&gateway).len(), 2 * sampled);
}

/// What the gateway says at its end about spans: exported, dropped.
#[track_caller]
fn last_counts(gateway: &Gateway) -> (usize, usize) {
    let log = gateway.log();
    let line = log.lines().rfind(|line| line.contains(" spans exported=")).expect("the counts");
    let number = |key: &str| {
        let (_, rest) = line.split_once(key).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    (number("exported="), number("dropped="))
}

/// Has so many requests served, all but the first while the collector has a batch in hand.
#[track_caller]
fn serve_while_it_is_asked(requests: usize, gateway: &Gateway, collector: &Collector) {
    let mut client = gateway.client();
    assert_eq!(client.get("/").status, 200);
    eventually("the collector is asked", || !collector.server.requests().is_empty());
    (1..requests).for_each(|_| assert_eq!(client.get("/").status, 200));
}

#[test]
fn a_collector_that_hangs_slows_nobody_and_what_it_misses_is_counted() {
    const REQUESTS: usize = 1000;
    let (up, collector) = (Upstream::ok(), Collector::answering(|_, _| None));
    // A request that waited for the collector would not be answered in this test's time.
    let section = collector.section("sample = 1.0\nqueue = 16\ntimeout = \"1m\"");
    let gateway = Gateway::before(up.address(), &section);
    serve_while_it_is_asked(REQUESTS, &gateway, &collector);
    assert!(collector.last_spans(&gateway).is_empty());
    assert!(gateway.log().contains("the last spans are lost"), "{}", gateway.log());
    assert_eq!(last_counts(&gateway), (0, 2 * REQUESTS));
}

#[test]
fn a_collector_that_is_slow_gets_what_the_queue_holds_and_the_rest_is_counted() {
    const REQUESTS: usize = 600;
    let (up, collector) = (
        Upstream::ok(),
        Collector::answering(|number, _| {
            (number > 0).then(|| ok(&ExportTraceServiceResponse::default()))
        }),
    );
    let section = collector.section("sample = 1.0\nqueue = 16\ntimeout = \"1s\"");
    let gateway = Gateway::before(up.address(), &section);
    serve_while_it_is_asked(REQUESTS, &gateway, &collector);
    gateway.wait_for_log("`tracing.queue` is full");
    let spans = collector.last_spans(&gateway).len();
    let (exported, dropped) = last_counts(&gateway);
    assert_eq!((exported, exported + dropped), (spans, 2 * REQUESTS));
    assert!(exported > 0 && dropped > 0, "{exported} {dropped}");
}

#[test]
fn a_collector_that_is_not_there_delays_nothing_even_at_the_end() {
    let up = Upstream::ok();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let section = format!("[tracing]\nendpoint = \"http://{gone}/v1/traces\"\nsample = 1.0\n");
    let gateway = Gateway::before(up.address(), &section);
    assert_eq!(gateway.client().get("/").status, 200);
    gateway.sigterm();
    assert!(gateway.wait_exit().success());
    assert_eq!(last_counts(&gateway), (0, 2));
}

#[test]
fn what_a_collector_refuses_is_dropped_and_what_it_puts_off_is_sent_again() {
    let answers = |first: &str| {
        let first = first.to_owned();
        move |number, _: &Received| match number {
            0 => Some(status(&first)),
            _ => Some(ok(&ExportTraceServiceResponse::default())),
        }
    };
    for (first, tries, expected) in [
        ("500 Internal Server Error", 1, (0, 2)),
        ("400 Bad Request", 1, (0, 2)),
        ("302 Found\r\nLocation: /elsewhere", 1, (0, 2)),
        ("429 Too Many Requests\r\nRetry-After: 1", 2, (2, 0)),
        ("502 Bad Gateway", 2, (2, 0)),
        ("503 Service Unavailable", 2, (2, 0)),
        ("504 Gateway Timeout", 2, (2, 0)),
    ] {
        let (up, collector) = (Upstream::ok(), Collector::answering(answers(first)));
        let gateway = Gateway::before(up.address(), &collector.section("sample = 1.0"));
        assert_eq!(gateway.client().get("/").status, 200);
        let asked = || collector.server.requests().len();
        eventually("the batch is sent", || asked() > 0);
        if tries > 1 {
            eventually("it is sent again", || asked() > 1);
        }
        collector.last_spans(&gateway);
        assert_eq!((asked(), last_counts(&gateway)), (tries, expected), "{first}");
        if tries > 1 {
            let requests = collector.server.requests();
            assert_eq!(requests[0].body, requests[1].body, "{first}");
        }
    }
}

#[test]
fn spans_that_are_rejected_in_part_are_counted() {
    let collector = Collector::answering(|_, _| {
        let partial_success =
            ExportTracePartialSuccess { rejected_spans: 3, error_message: "too\nmany".to_owned() };
        Some(ok(&ExportTraceServiceResponse { partial_success: Some(partial_success) }))
    });
    let up = Upstream::ok();
    let gateway = Gateway::before(up.address(), &collector.section("sample = 1.0"));
    let mut client = gateway.client();
    (0..4).for_each(|_| assert_eq!(client.get("/").status, 200));
    drop(client);
    for expected in ["{outcome=\"exported\"} 5\n", "{outcome=\"dropped\"} 3\n"] {
        let expected = format!("ringway_spans_total{expected}");
        eventually(&expected, || gateway.admin().get("/metrics").text().contains(&expected));
    }
    collector.last_spans(&gateway);
    assert_eq!(last_counts(&gateway), (5, 3));
    assert!(gateway.log().contains("rejected them: toomany"), "{}", gateway.log());
}

#[test]
fn status_tells_what_became_of_spans() {
    let (up, collector) = (Upstream::ok(), Collector::start());
    let routes = format!(
        "[[routes]]\nupstream = \"app\"\n[upstreams.app]\nendpoints = [\"{}\"]\n",
        up.address()
    );
    let gateway = traced(&collector, &up, "[[routes]]\nupstream = \"app\"\n");
    get_all(&mut gateway.client(), &[("/", 200); 3]);
    let told = |arguments: &[&str]| {
        let output = gateway.command(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    eventually("all are exported", || {
        told(&["status"]).contains("\nspans          6 exported, 0 dropped\n")
    });
    let json: serde_json::Value = serde_json::from_str(&told(&["status", "--json"])).unwrap();
    assert_eq!(json["spans"], serde_json::json!({"exported": 6, "dropped": 0}));
    assert!(gateway.reload(&routes), "without tracing");
    assert!(!told(&["status"]).contains("spans"));
    assert!(!told(&["status", "--json"]).contains("spans"));
}

#[test]
fn batches_are_bounded_and_carry_the_configured_fields() {
    let (up, collector) = (Upstream::ok(), Collector::start());
    let more = "sample = 1.0\nheaders = { Authorization = \"Bearer hush\", x-tenant = \"a\" }";
    let gateway = Gateway::before(up.address(), &collector.section(more));
    let mut client = gateway.client();
    (0..600).for_each(|_| assert_eq!(client.get("/").status, 200));
    drop(client);
    let shown = gateway.admin().get("/config").text();
    assert!(shown.contains("Authorization") && !shown.contains("hush"), "{shown}");
    assert_eq!(collector.last_spans(&gateway).len(), 1200);
    let requests = collector.server.requests();
    assert!(requests.len() >= 3, "{}", requests.len());
    for request in &requests {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/traces"));
        assert_eq!(request.field("content-type"), Some("application/x-protobuf"));
        assert_eq!(request.field("authorization"), Some("Bearer hush"));
        assert_eq!(request.field("x-tenant"), Some("a"));
        let export = ExportTraceServiceRequest::decode(&*request.body).unwrap();
        let spans = &export.resource_spans[0].scope_spans[0].spans;
        // The exchange that fills a batch is in it with all its spans.
        assert!(spans.len() <= 513, "{}", spans.len());
    }
    assert!(!gateway.log().contains("hush"));
}

#[test]
fn a_reload_turns_tracing_on_elsewhere_and_off() {
    let (up, first, second) = (Upstream::ok(), Collector::start(), Collector::start());
    let routes = format!(
        "[[routes]]\nupstream = \"app\"\n[upstreams.app]\nendpoints = [\"{}\"]\n",
        up.address()
    );
    let gateway = Gateway::start(&routes);
    let mut client = gateway.client();
    assert_eq!(client.get("/off").status, 200);
    assert!(gateway.reload(&format!("{}{routes}", first.section("sample = 1.0"))));
    assert_eq!(client.get("/first").status, 200);
    eventually("the first collector has it", || first.spans().len() == 2);
    assert!(gateway.reload(&format!("{}{routes}", second.section("sample = 1.0\nqueue = 17"))));
    assert_eq!(client.get("/second").status, 200);
    assert!(gateway.reload(&routes));
    assert_eq!(client.get("/off").status, 200);
    eventually("the second collector has the other", || second.spans().len() == 2);
    let told: Vec<_> = up.requests().iter().map(|r| r.head.has("traceparent")).collect();
    assert_eq!(told, [false, true, true, false]);
    drop(client);
    assert_eq!(first.last_spans(&gateway).len(), 2);
    assert_eq!(second.spans().len(), 2);
    assert_eq!(last_counts(&gateway), (4, 0));
    for (collector, path) in [(&first, "/first"), (&second, "/second")] {
        has(&of_kind(&collector.spans(), SpanKind::Server)[0], &[("url.path", path)]);
    }
}

#[test]
fn access_logs_name_the_trace() {
    let (up, collector) = (Upstream::ok(), Collector::start());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let logs = format!(
        "[[access_logs]]\nto = \"file:{}\"\n\
         format = {{ template = \"${{target}} ${{trace_id}} ${{span_id}}\" }}\n",
        file.display()
    );
    let section = collector.section("sample = 1.0");
    let gateway = Gateway::before(up.address(), &format!("{section}{logs}"));
    let mut client = gateway.client();
    assert_eq!(client.get("/traced").status, 200);
    // What is no request has no trace.
    client.send("GET /x HTTP/1.1\r\n\r\n");
    assert_eq!(client.response().status, 400);
    drop(client);
    let spans = collector.last_spans(&gateway);
    let server = &of_kind(&spans, SpanKind::Server)[0];
    let log = std::fs::read_to_string(file).unwrap();
    let expected = format!("/traced {} {}\n- - -\n", hex(&server.trace_id), hex(&server.span_id));
    assert_eq!(log, expected);
}

/// The metrics of a Server-Timing field, each with its duration in milliseconds.
fn timings(value: &str) -> Vec<(&str, f64)> {
    value
        .split(", ")
        .map(|metric| {
            let (name, duration) = metric.split_once(";dur=").expect(value);
            (name, duration.parse().expect(value))
        })
        .collect()
}

#[test]
fn clients_are_told_where_the_time_went_when_that_is_wanted() {
    let slow = Upstream::scripted(|conn| {
        while conn.request().is_ok() {
            // What is measured, not what is waited for.
            std::thread::sleep(Duration::from_millis(30));
            conn.send("HTTP/1.1 200 OK\r\nServer-Timing: db;dur=5\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let toml = |section: &str| {
        format!(
            "{section}\n[metrics]\nenabled = false\n[[routes]]\npath = \"/slow\"\nupstream = \"app\"\n\
             [[routes]]\npath = \"/fixed\"\nrespond = {{ }}\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            slow.address()
        )
    };
    let gateway = Gateway::start(&toml("[tracing]\nserver_timing = \"always\""));
    let mut client = gateway.client();
    for (is_new, names) in [(true, vec!["gw", "con", "up"]), (false, vec!["gw", "up"])] {
        client.send("GET /slow HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        let response = client.response();
        let lines = response.head.all("server-timing");
        assert_eq!((lines.len(), lines[0]), (2, "db;dur=5"), "the upstream's own stays");
        let found = timings(lines[1]);
        assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names, "{is_new}");
        let up_ms = found.last().unwrap().1;
        assert!((29.0..5000.0).contains(&up_ms), "{found:?}");
        assert!(found[0].1 > 0.0 && found[0].1 < up_ms, "{found:?}");
    }
    for path in ["/fixed", "/nowhere"] {
        let response = client.get(path);
        let found = timings(response.field("server-timing").unwrap());
        assert_eq!((found.len(), found[0].0), (1, "gw"), "{path}");
    }
    let collector = Collector::start();
    for (sample, expected) in [("0.0", 0), ("1.0", 1)] {
        let more = format!("sample = {sample}\nserver_timing = \"sampled\"");
        assert!(gateway.reload(&toml(&collector.section(&more))));
        assert_eq!(client.get("/fixed").head.all("server-timing").len(), expected);
    }
    assert!(gateway.reload(&toml("")));
    assert_eq!(client.get("/fixed").head.all("server-timing").len(), 0);
}
