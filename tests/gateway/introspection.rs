//! Token introspection: what the provider is asked, what its answers mean, that they are remembered
//! and shared, and what becomes of requests while it is down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::harness::{
    Client, Gateway, Response, Upstream, eventually, http2::Http2, token_issuer::now_s,
};

/// The gateway's secret at the provider; what has to be written otherwise in forms is in it.
const SECRET: &str = "p&ss w=rd";

struct Provider {
    upstream: Upstream,
    /// It answers 500.
    is_down: Arc<AtomicBool>,
    /// It reads, and does not answer.
    is_silent: Arc<AtomicBool>,
}

/// Knows tokens by their names.
fn provider() -> Provider {
    let (is_down, is_silent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (down, silent) = (is_down.clone(), is_silent.clone());
    let upstream = Upstream::scripted(move |conn| {
        while let Ok(request) = conn.request() {
            while silent.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let body = String::from_utf8(request.body).unwrap();
            let token = body.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap();
            let soon = now_s() + 3600;
            let (status, answer) = match token {
                _ if down.load(Ordering::Relaxed) => (500, "oops".to_owned()),
                "good" | "a%2Fb%3D" => (
                    200,
                    format!(
                        r#"{{"active":true,"sub":"alice","scope":"read write","client_id":"app",
                        "username":"al","aud":["api","x"],"iss":"https://id","exp":{soon}}}"#
                    ),
                ),
                "expired" => {
                    (200, r#"{"active":true,"aud":"api","iss":"https://id","exp":1}"#.into())
                }
                "other-aud" => (200, r#"{"active":true,"aud":"other","iss":"https://id"}"#.into()),
                "other-iss" => (200, r#"{"active":true,"aud":"api","iss":"https://evil"}"#.into()),
                "text" => (200, "active".to_owned()),
                "maybe" => (200, r#"{"active":"true","aud":"api","iss":"https://id"}"#.into()),
                "denied" => (401, r#"{"active":true,"aud":"api","iss":"https://id"}"#.into()),
                "large" => (200, format!(r#"{{"active":true,"x":"{}"}}"#, "x".repeat(70_000))),
                _ => (200, r#"{"active":false}"#.to_owned()),
            };
            let length = answer.len();
            conn.send(format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{answer}"));
        }
    });
    Provider { upstream, is_down, is_silent }
}

struct Served {
    gateway: Gateway,
    provider: Provider,
    upstream: Upstream,
    toml: String,
    _dir: tempfile::TempDir,
}

fn served(keys: &str) -> Served {
    let (upstream, provider) = (Upstream::ok(), provider());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let toml = format!(
        r#"
        [runtime]
        workers = 1
        [[routes]]
        path = "/open"
        respond = {{ body = "open" }}
        [[routes]]
        path = "/known"
        upstream = "app"
        authenticate = ["provider"]
        [[routes]]
        path = "/short"
        upstream = "app"
        authenticate = ["provider"]
        timeout = "300ms"
        [[routes]]
        path = "/anybody"
        upstream = "app"
        authenticate = ["provider"]
        anonymous = true
        [[routes]]
        path = "/writers"
        upstream = "app"
        authenticate = ["provider"]
        authorize = [{{ scopes = ["admin"], effect = "allow" }}]
        [introspection.provider]
        upstream = "id"
        path = "/oauth/introspect"
        host = "id.test"
        client_id = "gate way"
        client_secret = "file:{}"
        issuer = "https://id"
        audience = ["api"]
        forward = {{ X-User = "sub", X-Client = "client_id" }}
        {keys}
        [upstreams.app]
        endpoints = ["{}"]
        [upstreams.id]
        endpoints = ["{}"]
        "#,
        file.display(),
        upstream.address(),
        provider.upstream.address()
    );
    Served { gateway: Gateway::start(&toml), provider, upstream, toml, _dir: dir }
}

impl Served {
    fn ask(&self, target: &str, token: &str) -> Response {
        let mut client = self.gateway.client();
        ask(&mut client, target, token);
        client.response()
    }

    fn questions(&self) -> usize {
        self.provider.upstream.requests().len()
    }

    fn counted(&self, outcome: &str) -> u64 {
        let name = format!("ringway_introspections_total{{outcome=\"{outcome}\"}}");
        self.gateway.figure(&name).unwrap_or_default() as u64
    }
}

fn ask(client: &mut Client, target: &str, token: &str) {
    client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer {token}\r\n\
         X-User: root\r\n\r\n"
    ));
}

#[test]
fn the_provider_is_asked_and_upstreams_are_told() {
    let served = served("");
    assert_eq!(served.ask("/known/1", "good").status, 200);
    let asked = served.provider.upstream.only_request();
    assert_eq!((&*asked.method, &*asked.target), ("POST", "/oauth/introspect"));
    let shown = format!("Basic {}", STANDARD.encode("gate+way:p%26ss+w%3Drd"));
    for (name, value) in [
        ("host", "id.test"),
        ("authorization", &*shown),
        ("content-type", "application/x-www-form-urlencoded"),
        ("accept", "application/json"),
    ] {
        assert_eq!(asked.head.all(name), [value], "{name}");
    }
    assert_eq!(asked.body, b"token=good&token_type_hint=access_token");
    let request = served.upstream.request_for("/known/1");
    assert_eq!(request.head.all("x-user"), ["alice"]);
    assert_eq!(request.head.all("x-client"), ["app"]);
    assert_eq!(asked.field("x-request-id"), request.field("x-request-id"));
    // Over HTTP/2, without another question.
    let mut client = Http2::connect(served.gateway.address());
    let stream = client.ask("GET", "/known/2", &[("authorization", "Bearer good")]);
    assert_eq!(client.response(stream).status, 200);
    assert_eq!(served.upstream.request_for("/known/2").field("x-user"), Some("alice"));
    assert_eq!(served.questions(), 1);
    // Its scopes are those of the identity.
    let stream = client.ask("GET", "/writers", &[("authorization", "Bearer good")]);
    let response = client.response(stream);
    assert_eq!((response.status, &*response.reason()), (403, "authz.denied"));
    assert_eq!(served.ask("/known", "a/b=").status, 200);
    assert_eq!((served.counted("active"), served.counted("inactive")), (2, 0));
}

#[test]
fn credentials_of_the_gateway_in_the_body() {
    let served = served("client_auth = \"post\"");
    assert_eq!(served.ask("/known", "good").status, 200);
    let asked = served.provider.upstream.only_request();
    assert!(!asked.head.has("authorization"));
    let form = "client_id=gate+way&client_secret=p%26ss+w%3Drd&token=good&\
                token_type_hint=access_token";
    assert_eq!(String::from_utf8_lossy(&asked.body), form);
}

#[test]
fn what_is_not_accepted_is_refused_and_never_shown_in_logs() {
    let served = served("timeout = \"2s\"");
    for (token, status, reason) in [
        ("secret-unknown-token", 401, "auth.inactive"),
        ("expired", 401, "auth.expired"),
        ("other-aud", 401, "auth.audience"),
        ("other-iss", 401, "auth.issuer"),
        ("text", 503, "auth.unavailable"),
        ("maybe", 503, "auth.unavailable"),
        ("denied", 503, "auth.unavailable"),
        ("large", 503, "auth.unavailable"),
        ("", 401, "auth.invalid"),
    ] {
        for path in ["/known", "/anybody"] {
            let response = served.ask(path, token);
            assert_eq!((response.status, &*response.reason()), (status, reason), "{token} {path}");
            let asked = response.field("www-authenticate").unwrap_or_default().to_owned();
            let error = "Bearer realm=\"provider\", error=\"invalid_token\"";
            assert_eq!(asked.starts_with(error), status == 401, "{asked}");
        }
    }
    assert!(served.upstream.requests().is_empty());
    // Refused ones were remembered, failures were not; nothing was asked about an empty token.
    assert_eq!(served.questions(), 4 + 2 * 4);
    assert_eq!((served.counted("inactive"), served.counted("failed")), (4, 8));
    let before = served.questions();
    let mut client = served.gateway.client();
    client.send("GET /known HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().reason(), "auth.missing");
    client.send("GET /anybody HTTP/1.1\r\nHost: a\r\nX-User: root\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(served.upstream.only_request().field("x-user"), None);
    client.send(format!(
        "GET /known HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
        "x".repeat(8193)
    ));
    assert_eq!(client.response().reason(), "auth.invalid");
    assert_eq!(served.questions(), before);
    served.gateway.wait_for_log("does not say whether they are active");
    let log = served.gateway.log();
    assert!(!log.contains("secret-unknown-token") && !log.contains("p&ss"), "{log}");
}

#[test]
fn many_requests_with_one_token_make_one_question() {
    let served = served("");
    served.provider.is_silent.store(true, Ordering::Relaxed);
    for (token, status) in [("good", 200), ("unknown", 401)] {
        served.provider.is_silent.store(true, Ordering::Relaxed);
        let before = served.questions();
        let mut clients: Vec<Client> = (0..50).map(|_| served.gateway.client()).collect();
        clients.iter_mut().for_each(|client| ask(client, "/known", token));
        // The one worker has seen them all when it answers this.
        let mut last = Http2::connect(served.gateway.address());
        assert_eq!(last.get("/open").status, 200);
        eventually("a question", || served.questions() > before);
        // One who goes away takes the question with it, and another one asks.
        drop(clients.remove(0));
        served.provider.is_silent.store(false, Ordering::Relaxed);
        for client in &mut clients {
            assert_eq!(client.response().status, status);
        }
        let asked = served.questions() - before;
        assert!((1..=2).contains(&asked), "{asked} questions about {token}");
    }
}

#[test]
fn nobody_waits_longer_than_its_time() {
    let served = served("timeout = \"60s\"");
    served.provider.is_silent.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let mut first = served.gateway.client();
    ask(&mut first, "/short", "good");
    let mut second = served.gateway.client();
    ask(&mut second, "/short", "good");
    for client in [&mut first, &mut second] {
        let response = client.response();
        assert_eq!(response.status, 503, "{}", response.reason());
        assert_eq!(response.reason(), "auth.unavailable");
    }
    assert!(began.elapsed() < Duration::from_secs(30));
    served.provider.is_silent.store(false, Ordering::Relaxed);
}

#[test]
fn a_provider_that_is_down_refuses_nobody_who_was_known_where_the_way_says_so() {
    let strict = served("remember = \"50ms\"");
    let lax = served("remember = \"50ms\"\nstale_if_error = \"1h\"");
    for served in [&strict, &lax] {
        assert_eq!(served.ask("/known", "good").status, 200);
        served.provider.is_down.store(true, Ordering::Relaxed);
    }
    // Asked again when it is not remembered any more.
    eventually("a refusal", || strict.ask("/known", "good").status == 503);
    assert_eq!(strict.ask("/known", "good").reason(), "auth.unavailable");
    eventually("a question", || {
        assert_eq!(lax.ask("/known", "good").status, 200);
        lax.counted("failed") > 0
    });
    // It is left alone for a second.
    let failed = lax.counted("failed");
    for _ in 0..5 {
        assert_eq!(lax.ask("/known", "good").status, 200);
    }
    assert!(lax.counted("failed") <= failed + 1);
    assert_eq!(lax.ask("/known", "unknown").status, 503);
}

#[test]
fn what_is_remembered_survives_a_reload_and_not_a_change_of_the_way() {
    let served = served("");
    let is = |questions| {
        assert_eq!(served.ask("/known", "good").status, 200);
        assert_eq!(served.questions(), questions);
    };
    is(1);
    assert!(served.gateway.reload(&format!("{}\n", served.toml)));
    is(1);
    let other = served.toml.replace("audience = [\"api\"]", "audience = [\"x\"]");
    assert!(served.gateway.reload(&other));
    is(2);
}
