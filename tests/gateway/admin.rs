//! The admin interface: what it tells, what it changes, what it refuses, and that it stays where it
//! should.

use std::{
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use super::upgrade;
use crate::harness::{Client, Gateway, Launch, ReadError, Response, Socket, Upstream, eventually};

const OK: &str = "[[routes]]\nname = \"ok\"\nrespond = { body = \"ok\" }\n";
/// With the names that these tests use.
const STATUS: &str =
    "[admin]\nstatus_bind = \"127.0.0.1:0\"\nstatus_hosts = [\"gw.test\", \"x\"]\n";

/// One request of the admin interface.
#[track_caller]
fn call(client: &mut Client, method: &str, path: &str, body: &str) -> Response {
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.response()
}

#[track_caller]
fn json_of(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    serde_json::from_slice(&response.body).expect("JSON")
}

#[track_caller]
fn get(gateway: &Gateway, path: &str) -> Value {
    json_of(&gateway.admin().get(path))
}

/// Why something was refused.
#[track_caller]
fn detail(response: &Response) -> String {
    assert_eq!(response.field("content-type"), Some("application/problem+json"));
    let problem: Value = serde_json::from_slice(&response.body).expect("JSON");
    assert_eq!(problem["status"], response.status);
    problem["detail"].as_str().expect("a detail").to_owned()
}

/// The read-only TCP address.
fn status_client(gateway: &Gateway) -> Client {
    let log = gateway.log();
    let (_, rest) = log.rsplit_once("status on http://").expect("a status address");
    Client::connect(rest.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn health_is_told_at_both_doors() {
    let gateway = Gateway::start(&format!("{OK}{STATUS}"));
    for mut client in [gateway.admin(), status_client(&gateway)] {
        assert_eq!(client.get("/livez").status, 200);
        let ready = client.get("/readyz");
        assert_eq!((ready.status, ready.text().as_str()), (200, "ready\n"));
    }
}

#[test]
fn a_draining_gateway_is_alive_and_not_ready() {
    static GO_ON: AtomicBool = AtomicBool::new(false);
    let up = Upstream::scripted(|conn| {
        let request = conn.request().unwrap();
        eventually("permission", || GO_ON.load(Ordering::SeqCst));
        conn.answer(&request);
    });
    let gateway = Gateway::before(up.address(), STATUS);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    up.wait_for_connections(1);
    let mut admin = gateway.admin();
    let drain = call(&mut admin, "POST", "/drain", "");
    assert_eq!((drain.status, drain.text().as_str()), (202, "{\"state\":\"draining\"}"));
    for mut asked in [gateway.admin(), status_client(&gateway)] {
        assert_eq!(asked.get("/livez").status, 200);
        let ready = asked.get("/readyz");
        assert_eq!(ready.status, 503);
        assert!(ready.text().starts_with("draining"), "{}", ready.text());
    }
    assert_eq!(get(&gateway, "/status")["state"], "draining");
    for (method, path, body) in [
        ("POST", "/drain", ""),
        ("POST", "/reload", ""),
        ("PUT", "/upstreams/app/endpoints/x", "{\"state\":\"up\"}"),
    ] {
        let refused = call(&mut admin, method, path, body);
        assert_eq!(refused.status, 409, "{path}");
        assert!(detail(&refused).contains("draining"), "{}", detail(&refused));
    }
    GO_ON.store(true, Ordering::SeqCst);
    assert_eq!(client.response().status, 200, "what ran is finished");
    assert!(gateway.wait_exit().success());
    assert!(!gateway.dir().join("admin.sock").exists(), "the socket is removed");
}

#[test]
fn the_tcp_door_only_tells() {
    let gateway = Gateway::start(&format!("{OK}{STATUS}"));
    let mut client = status_client(&gateway);
    for path in ["/livez", "/readyz", "/metrics", "/status"] {
        assert_eq!(client.get(path).status, 200, "{path}");
        let refused = call(&mut client, "POST", path, "");
        assert_eq!((refused.status, refused.field("allow")), (405, Some("GET,HEAD")), "{path}");
    }
    for (method, path) in [
        ("GET", "/config"),
        ("GET", "/connections"),
        ("GET", "/requests/slowest"),
        ("GET", "/log"),
        ("PUT", "/log"),
        ("POST", "/reload"),
        ("POST", "/drain"),
        ("PUT", "/upstreams/app/endpoints/x"),
        ("DELETE", "/upstreams/app/endpoints/x"),
    ] {
        let refused = call(&mut client, method, path, "");
        assert_eq!(refused.status, 404, "{method} {path}");
        assert!(detail(&refused).contains("on the Unix socket"), "{}", detail(&refused));
    }
    // Nothing of it is on a public listener.
    assert_eq!(gateway.client().get("/livez").text(), "ok");
    assert_eq!(get(&gateway, "/status")["generation"], 1);
}

#[test]
fn the_tcp_door_answers_to_no_name_that_is_not_its_own() {
    const RESOURCES: [&str; 7] =
        ["/", "/status", "/status/history", "/metrics", "/livez", "/readyz", "/nope"];
    let gateway = Gateway::start(&format!("{OK}[admin]\nstatus_bind = \"127.0.0.1:0\"\n"));
    let mut client = status_client(&gateway);
    let Socket::Tcp(socket) = &client.reader.socket else { unreachable!("it is TCP") };
    let port = socket.peer_addr().unwrap().port();
    for path in RESOURCES {
        let refused = client.get_from(&format!("evil.example:{port}"), path);
        assert_eq!((refused.status, refused.reason().as_str()), (421, "admin.host"), "{path}");
        let why = detail(&refused);
        assert!(why.contains("`evil.example") && why.contains("admin.status_hosts"), "{why}");
    }
    // A second field, or a target that names a host, does not help.
    for head in [
        format!("GET /status HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example"),
        format!("GET http://evil.example/status HTTP/1.1\r\nHost: 127.0.0.1:{port}"),
    ] {
        client.send(format!("{head}\r\n\r\n"));
        assert_eq!(client.response().status, 421, "{head}");
    }
    let hosts = [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "[::1]".to_owned()];
    for host in &hosts {
        assert_eq!(client.get_from(host, "/status").status, 200, "{host}");
    }
    // Health checks of HTTP/1.0 have no Host field.
    let mut old = status_client(&gateway);
    old.send("GET /readyz HTTP/1.0\r\n\r\n");
    old.reader.through(b" 200 OK\r\n").expect("an answer");
    // By name, the command says the address.
    let output = gateway.command(&["status", "--admin", &format!("localhost:{port}")]);
    assert!(output.status.success(), "{output:?}");
    // The socket is no browser's.
    assert_eq!(gateway.admin().get_from("evil.example", "/status").status, 200);

    let listed = |hosts: &str| {
        let toml = format!("{OK}[admin]\nstatus_bind = \"127.0.0.1:0\"\nstatus_hosts = {hosts}\n");
        assert!(gateway.reload(&toml), "{}", gateway.log());
    };
    listed("[\"GW.internal\"]");
    assert_eq!(client.get_from("gw.internal:1", "/status").status, 200);
    assert_eq!(client.get_from("evil.example", "/status").status, 421);
    listed("[\"*\"]");
    assert_eq!(client.get_from("evil.example", "/status").status, 200);
}

#[test]
fn what_is_no_request_of_it_is_refused() {
    let gateway = Gateway::start(OK);
    let mut admin = gateway.admin();
    for (method, path, body, status, hint) in [
        ("GET", "/nope", "", 404, "/requests/slowest"),
        ("GET", "/reload", "", 405, "see Allow"),
        ("DELETE", "/status", "", 405, "see Allow"),
        ("GET", "/config?format=yaml", "", 400, "write toml or json"),
        ("GET", "/config?forma=toml", "", 400, "?format=json"),
        ("GET", "/connections?limit=many", "", 400, "?limit=100"),
        ("GET", "/connections?limit=10001", "", 400, "write 10000 or less"),
        ("PUT", "/log", "{\"level\":\"loud\"}", 400, "write error, warn, info"),
        ("PUT", "/log", "loud", 400, "write {\"level\": \"debug\"}"),
    ] {
        let refused = call(&mut admin, method, path, body);
        assert_eq!(refused.status, status, "{method} {path}");
        assert!(detail(&refused).contains(hint), "{path}: {}", detail(&refused));
    }
    let body = "x".repeat((64 << 10) + 1);
    let refused = call(&mut gateway.admin(), "PUT", "/log", &body);
    assert_eq!(refused.status, 413);
    detail(&refused);
    let mut long = gateway.admin();
    long.try_send(format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)));
    assert_eq!(long.response().status, 431);
    for garbage in ["\x16\x03\x01\x02\x00\r\n\r\n", "GET\r\n\r\n"] {
        let mut client = gateway.admin();
        client.send(garbage);
        assert_eq!(client.response().status, 400);
    }
    assert_eq!(gateway.admin().get("/livez").status, 200);
}

#[test]
fn connections_beyond_the_bound_wait_and_the_other_door_serves() {
    let gateway = Gateway::start(&format!("{OK}{STATUS}"));
    let mut held: Vec<Client> = (0..32).map(|_| status_client(&gateway)).collect();
    held.iter_mut().for_each(|client| assert_eq!(client.get("/livez").status, 200));
    let mut waiting = status_client(&gateway).patience(std::time::Duration::from_millis(300));
    waiting.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(waiting.try_response("GET").err(), Some(ReadError::Timeout));
    assert_eq!(gateway.admin().get("/livez").status, 200, "the operator is not locked out");
    held.pop();
    let mut waiting = waiting.patience(crate::harness::PATIENCE);
    assert_eq!(waiting.response().status, 200);
}

#[test]
fn a_reload_is_answered_when_every_worker_has_it() {
    let gateway = Gateway::start(OK);
    gateway.write(
        "[[routes]]\nrespond = { body = \"new\" }\n[runtime]\nworkers = 2\nring_entries = 512\n",
    );
    let answer = json_of(&call(&mut gateway.admin(), "POST", "/reload", ""));
    assert_eq!(answer["generation"], 2);
    assert_eq!(answer["workers"], json!([2, 2]));
    assert!(answer["took_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    let warning = answer["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("runtime.ring_entries"), "{warning}");
    // Every worker, so every connection.
    (0..8).for_each(|_| assert_eq!(gateway.client().get("/").text(), "new"));
    let status = get(&gateway, "/status");
    let workers = status["workers"].as_array().unwrap();
    assert!(workers.iter().all(|worker| worker["generation"] == 2), "{workers:?}");
}

#[test]
fn a_bad_file_is_answered_with_the_report_of_check() {
    let gateway = Gateway::start(OK);
    gateway.write("[[routes]]\nrespnd = {}\n[limits]\nhead = 3\n");
    let refused = call(&mut gateway.admin(), "POST", "/reload", "");
    assert_eq!(refused.status, 422);
    let file = gateway.dir().join("ringway.toml");
    let check = gateway.command(&["check", file.to_str().unwrap()]);
    assert_eq!(detail(&refused), String::from_utf8_lossy(&check.stderr).trim_end());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    gateway.write(&format!("{OK}[[listeners]]\nbind = \"{address}\"\n"));
    let refused = call(&mut gateway.admin(), "POST", "/reload", "");
    assert_eq!(refused.status, 422);
    assert!(detail(&refused).contains(&address.to_string()), "{}", detail(&refused));
    std::fs::remove_file(&file).unwrap();
    let refused = call(&mut gateway.admin(), "POST", "/reload", "");
    assert!(detail(&refused).contains("No such file"), "{}", detail(&refused));
    assert_eq!(gateway.client().get("/").text(), "ok");
    let history = get(&gateway, "/status")["configuration"]["history"].clone();
    let outcomes: Vec<_> = history.as_array().unwrap().iter().map(|c| &c["outcome"]).collect();
    assert_eq!(outcomes, ["started", "refused", "refused", "refused"]);
    assert!(history[1]["detail"].as_str().unwrap().contains("respnd"), "{history}");
}

#[test]
fn reloads_asked_for_together_are_all_answered() {
    let gateway = Gateway::start(OK);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let answer = json_of(&call(&mut gateway.admin(), "POST", "/reload", ""));
                let generation = answer["generation"].as_u64().unwrap();
                assert!((2..=9).contains(&generation), "{answer}");
                assert_eq!(answer["workers"], json!([generation, generation]));
            });
        }
    });
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let launch = Launch { demo: true, ..Launch::default() };
    // The demo's socket is where its process says, in the folder of this test.
    let demo = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    let refused = call(&mut demo.admin(), "POST", "/reload", "");
    assert_eq!(refused.status, 409);
    assert!(detail(&refused).contains("not started from a file"), "{}", detail(&refused));
}

#[test]
fn the_configuration_in_force_is_shown_with_every_key() {
    let gateway = Gateway::start(&format!("{OK}[timeouts]\nhead = \"3s\"\n"));
    let toml = gateway.admin().get("/config");
    assert_eq!(toml.field("content-type"), Some("application/toml"));
    let toml: toml::Table = toml::from_str(&toml.text()).expect("TOML");
    assert_eq!(toml["timeouts"]["head"].as_str(), Some("3s"));
    assert_eq!(toml["timeouts"]["keep_alive"].as_str(), Some("75s"), "a default");
    assert_eq!(toml["routes"][0]["respond"]["status"].as_integer(), Some(200));
    // What is on disk since is not in force.
    gateway.write(&format!("{OK}[timeouts]\nhead = \"4s\"\n"));
    let shown = get(&gateway, "/config?format=json");
    assert_eq!(shown, serde_json::to_value(&toml).unwrap());
    let mut admin = gateway.admin();
    admin.send("GET /config HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n");
    assert_eq!(json_of(&admin.response()), shown);
}

#[test]
fn status_counts_what_was_done() {
    let up = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "[[routes]]\nname = \"app\"\npath = \"/app\"\nupstream = \"app\"\n\
         [[routes]]\nname = \"fixed\"\npath = \"/fixed\"\nrespond = {{ status = 204 }}\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        up.address()
    ));
    let mut client = gateway.client();
    (0..3).for_each(|_| assert_eq!(client.get("/app").status, 200));
    assert_eq!(client.get("/fixed").status, 204);
    assert_eq!(client.get("/nowhere").status, 404);
    // Counted when the last byte is sent, which is a moment before.
    eventually("five are counted", || get(&gateway, "/status")["totals"]["requests"] == 5);
    let status = get(&gateway, "/status");
    let totals = &status["totals"];
    assert_eq!(totals["requests"], 5);
    assert_eq!(totals["responses"], json!({"1xx": 0, "2xx": 4, "3xx": 0, "4xx": 1, "5xx": 0}));
    assert_eq!(totals["refusals"], json!({"route.not_found": 1}));
    assert_eq!((&totals["connections"], &totals["connections_open"]), (&json!(1), &json!(1)));
    assert_eq!(totals["upstream_connects"], 1);
    assert_eq!(status["state"], "ready");
    assert_eq!(status["listeners"][0]["bind"], gateway.address().to_string());
    assert_eq!(status["listeners"][0]["connections"], 1);
    let file = gateway.dir().join("ringway.toml");
    assert_eq!(status["configuration"]["file"], file.to_str().unwrap());
    let routes: Vec<_> = status["routes"].as_array().unwrap().iter().collect();
    let named = |name: &str| *routes.iter().find(|route| route["name"] == name).expect(name);
    assert_eq!(
        (&named("app")["action"], &named("app")["upstream"]),
        (&json!("forward"), &json!("app"))
    );
    assert_eq!((&named("app")["requests"], &named("fixed")["requests"]), (&json!(3), &json!(1)));
    assert_eq!(named("")["responses"]["4xx"], 1, "requests without route");
    let latency = &named("app")["latency"];
    assert_eq!(latency["count"], 3);
    assert!(latency["p50"].as_f64() > Some(0.0) && latency["max"].as_f64() < Some(10.0));
    let upstream = &status["upstreams"][0];
    assert_eq!((&upstream["name"], &upstream["balance"]), (&json!("app"), &json!("round_robin")));
    let endpoint = &upstream["endpoints"][0];
    assert_eq!(endpoint["name"], up.address().to_string());
    assert_eq!((&endpoint["requests"], &endpoint["reused"]), (&json!(3), &json!(2)));
    assert_eq!((&endpoint["state"], &endpoint["weight"]), (&json!("up"), &json!(1)));
    let workers = status["workers"].as_array().unwrap();
    let requests: u64 = workers.iter().map(|worker| worker["requests"].as_u64().unwrap()).sum();
    assert_eq!((workers.len(), requests), (2, 5));
    assert!(workers.iter().all(|w| w["cpu_seconds"].as_f64() > Some(0.0)), "{workers:?}");
    assert!(status["memory"]["resident_bytes"].as_u64() > Some(1 << 20));
    // The one of the question itself comes on top.
    let open = status["descriptors"]["open"].as_u64().unwrap();
    assert!(open.abs_diff(gateway.open_fds() as u64) <= 2, "{open} of {}", gateway.open_fds());
}

#[test]
fn access_logs_are_counted() {
    let gateway =
        Gateway::start(&format!("{OK}[[access_logs]]\nname = \"all\"\nto = \"stdout\"\n"));
    (0..3).for_each(|_| assert_eq!(gateway.client().get("/").status, 200));
    let logs = || get(&gateway, "/status")["access_logs"].clone();
    let expected = json!([{"name": "all", "written": 3, "dropped": 0}]);
    eventually("three lines are written", || logs() == expected);
    let text = gateway.admin().get("/metrics").text();
    let line = "ringway_access_log_lines_total{log=\"all\",outcome=\"written\"} 3\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn metrics_are_given_in_both_formats() {
    let gateway = Gateway::start(OK);
    assert_eq!(gateway.client().get("/").status, 200);
    let mut admin = gateway.admin();
    // Counted when the last byte is sent, which is a moment before.
    eventually("one is counted", || get(&gateway, "/status")["totals"]["requests"] == 1);
    let text = admin.get("/metrics");
    assert_eq!(text.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = text.text();
    for line in [
        "ringway_responses_total{status=\"200\"} 1\n",
        "ringway_generation 1\n",
        "ringway_ready 1\n",
        &format!("ringway_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    admin.send(
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n",
    );
    let open = admin.response();
    assert!(open.field("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n"));
}

/// A gateway with one worker before two upstreams, `a` and `b`.
fn before_two(a: &Upstream, b: &Upstream) -> (Gateway, String) {
    let toml = format!(
        "[runtime]\nworkers = 1\n[[routes]]\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [\"{}\", {{ address = \"{}\", weight = 2 }}]\n",
        a.address(),
        b.address()
    );
    (Gateway::start(&toml), toml)
}

#[track_caller]
fn set(gateway: &Gateway, endpoint: &Upstream, body: &Value) -> Value {
    let path = format!("/upstreams/app/endpoints/{}", endpoint.address());
    json_of(&call(&mut gateway.admin(), "PUT", &path, &body.to_string()))
}

/// Requests that each of two upstreams gets of six.
fn shares(client: &mut Client, a: &Upstream, b: &Upstream) -> (usize, usize) {
    let before = (a.requests().len(), b.requests().len());
    (0..6).for_each(|_| assert_eq!(client.get("/").status, 200));
    (a.requests().len() - before.0, b.requests().len() - before.1)
}

#[test]
fn an_endpoint_is_taken_out_and_put_back() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let (gateway, toml) = before_two(&a, &b);
    let mut client = gateway.client();
    assert_eq!(shares(&mut client, &a, &b), (2, 4), "by weight");
    let now = set(&gateway, &b, &json!({ "state": "down" }));
    assert_eq!(
        now,
        json!({"upstream": "app", "endpoint": b.address().to_string(), "state": "down",
               "weight": 2, "configured_weight": 2})
    );
    b.wait_until_idle();
    assert_eq!(shares(&mut client, &a, &b), (6, 0));
    // By name, so a reload changes nothing about it.
    assert!(gateway.reload(&toml));
    assert_eq!(shares(&mut client, &a, &b), (6, 0));
    assert_eq!(get(&gateway, "/status")["upstreams"][0]["endpoints"][1]["state"], "down");
    set(&gateway, &a, &json!({ "weight": 4, "state": "up" }));
    set(&gateway, &b, &json!({ "state": "up" }));
    assert_eq!(shares(&mut client, &a, &b), (4, 2));
    assert!(gateway.reload(&toml));
    assert_eq!(shares(&mut client, &a, &b), (4, 2));
    let path = format!("/upstreams/app/endpoints/{}", a.address());
    let now = json_of(&call(&mut gateway.admin(), "DELETE", &path, ""));
    assert_eq!((&now["weight"], &now["state"]), (&json!(1), &json!("up")));
    assert_eq!(shares(&mut client, &a, &b), (2, 4));
}

#[test]
fn a_drained_endpoint_serves_when_no_other_is_up() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let (gateway, toml) = before_two(&a, &b);
    let mut client = gateway.client();
    set(&gateway, &a, &json!({ "state": "drain" }));
    assert_eq!(shares(&mut client, &a, &b), (0, 6));
    set(&gateway, &b, &json!({ "state": "down" }));
    assert_eq!(shares(&mut client, &a, &b), (6, 0));
    set(&gateway, &a, &json!({ "state": "down" }));
    for _ in 0..2 {
        let refused = client.get("/");
        assert_eq!((refused.status, refused.reason().as_str()), (503, "upstream.down"));
        assert_eq!(refused.field("retry-after"), Some("1"));
        assert!(gateway.reload(&toml));
    }
    assert_eq!((a.open(), b.open()), (0, 0), "idle connections are closed");
}

#[test]
fn a_request_in_flight_outlives_its_endpoint() {
    static GO_ON: AtomicBool = AtomicBool::new(false);
    let a = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            eventually("permission", || GO_ON.load(Ordering::SeqCst));
            conn.answer(&request);
        }
    });
    let b = Upstream::ok();
    let (gateway, _) = before_two(&a, &b);
    set(&gateway, &b, &json!({ "state": "down" }));
    let mut slow = gateway.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    a.wait_for_connections(1);
    set(&gateway, &b, &json!({ "state": "up" }));
    set(&gateway, &a, &json!({ "state": "down" }));
    assert_eq!(shares(&mut gateway.client(), &a, &b), (0, 6));
    GO_ON.store(true, Ordering::SeqCst);
    assert_eq!(slow.response().status, 200);
    a.wait_until_idle();
}

#[test]
fn endpoints_that_are_none_are_named() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let (gateway, _) = before_two(&a, &b);
    let mut admin = gateway.admin();
    let known = format!("/upstreams/app/endpoints/{}", a.address());
    for (path, body, status, hint) in [
        ("/upstreams/ap/endpoints/x", "{\"state\":\"up\"}", 404, "there are app".to_owned()),
        ("/upstreams/app/endpoints/x", "{\"state\":\"up\"}", 404, b.address().to_string()),
        (&known, "{\"state\":\"gone\"}", 400, "no state `gone`".to_owned()),
        (&known, "{\"stat\":\"up\"}", 400, "unknown field `stat`".to_owned()),
        (&known, "{\"weight\":0}", 400, "between 1 and 1000".to_owned()),
        (&known, "{\"weight\":1001}", 400, "between 1 and 1000".to_owned()),
        (&known, "{}", 400, "nothing to set".to_owned()),
        (&known, "up", 400, "write {\"state\": \"up\"}".to_owned()),
    ] {
        let refused = call(&mut admin, "PUT", path, body);
        assert_eq!(refused.status, status, "{path} {body}");
        assert!(detail(&refused).contains(&hint), "{hint}: {}", detail(&refused));
    }
    // A name with a slash and a blank is one segment.
    let refused = call(&mut admin, "PUT", "/upstreams/a%2Fb%20c/endpoints/x", "{\"weight\":1}");
    assert!(detail(&refused).contains("`a/b c`"), "{}", detail(&refused));
}

#[test]
fn the_log_level_changes_while_it_runs() {
    let gateway = Gateway::start(OK);
    assert_eq!(get(&gateway, "/log"), json!({ "level": "info" }));
    let mut admin = gateway.admin();
    let now = call(&mut admin, "PUT", "/log", "{\"level\":\"error\"}");
    assert_eq!(json_of(&now), json!({ "level": "error" }));
    assert_eq!(json_of(&call(&mut admin, "POST", "/reload", ""))["generation"], 2);
    json_of(&call(&mut admin, "PUT", "/log", "{\"level\":\"info\"}"));
    assert_eq!(json_of(&call(&mut admin, "POST", "/reload", ""))["generation"], 3);
    gateway.wait_for_log("generation=3");
    assert!(!gateway.log().contains("generation=2"), "{}", gateway.log());
}

#[test]
fn connections_are_listed_with_what_they_do() {
    let (hanging, tunnel) = (Upstream::scripted(|conn| conn.until_closed()), upgrade::echo(""));
    let gateway = Gateway::start(&format!(
        "[[routes]]\nname = \"chat\"\npath = \"/chat\"\nupstream = \"tunnel\"\n\
         [[routes]]\nname = \"slow\"\npath = \"/slow\"\nupstream = \"app\"\n\
         [[routes]]\nname = \"rest\"\nrespond = {{}}\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n[upstreams.tunnel]\nendpoints = [\"{}\"]\n",
        hanging.address(),
        tunnel.address()
    ));
    let mut idle = gateway.client();
    (0..2).for_each(|_| assert_eq!(idle.get("/").status, 200));
    let mut asking = gateway.client();
    asking.send("GET /slow HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    hanging.wait_for_connections(1);
    let mut talking = gateway.client();
    upgrade::switch(&mut talking);
    let list = get(&gateway, "/connections");
    assert_eq!(list["silent_workers"], json!([]));
    let mut seen: Vec<_> = list["connections"].as_array().unwrap().iter().collect();
    assert_eq!(seen.len(), 3, "{list}");
    seen.sort_by_key(|line| line["state"].to_string());
    let told =
        |line: &Value| (line["state"].clone(), line["route"].clone(), line["requests"].clone());
    assert_eq!(told(seen[0]), (json!("idle"), json!(null), json!(2)));
    assert_eq!(told(seen[1]), (json!("request"), json!("slow"), json!(1)));
    assert_eq!(told(seen[2]), (json!("tunnel"), json!("chat"), json!(1)));
    for line in &seen {
        assert_eq!(line["listener"], "main");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert!(line["age"].as_f64() >= Some(0.0));
        assert_eq!(line["request_age"].is_number(), line["state"] != "idle", "{line}");
    }
    let few = get(&gateway, "/connections?limit=1");
    assert_eq!(few["connections"].as_array().unwrap().len(), 1);
    drop((idle, talking));
    asking.reset();
    eventually("nobody is left", || get(&gateway, "/connections")["connections"] == json!([]));
}

#[test]
fn the_slowest_requests_are_kept() {
    let up = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            if request.target.starts_with("/slow") {
                // What makes this request the slowest; nothing else depends on how long it is.
                std::thread::sleep(std::time::Duration::from_millis(150));
            }
            conn.answer(&request);
        }
    });
    let gateway = Gateway::before(up.address(), "");
    let mut client = gateway.client();
    (0..40).for_each(|_| assert_eq!(client.get("/quick").status, 200));
    assert_eq!(client.get("/slow?secret=1").status, 200);
    (0..40).for_each(|_| assert_eq!(client.get("/quick").status, 200));
    let slowest = get(&gateway, "/requests/slowest");
    let requests = slowest["requests"].as_array().unwrap();
    assert!((1..=32).contains(&requests.len()), "{slowest}");
    let first = &requests[0];
    assert!(first["took"].as_f64() > Some(0.15), "{first}");
    assert_eq!(
        (&first["method"], &first["path"], &first["status"], &first["upstream"]),
        (&json!("GET"), &json!("/slow"), &json!(200), &json!("app"))
    );
    assert_eq!(first["endpoint"], up.address().to_string());
}

#[test]
fn the_socket_is_its_owners_and_moves_with_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.sock"), dir.path().join("two.sock"));
    let at = |path: &std::path::Path, mode: &str| {
        format!("{OK}[admin]\nbind = \"unix:{}\"\nmode = \"{mode}\"\n", path.display())
    };
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let gateway = Gateway::start(&at(&one, "0600"));
    assert_eq!(mode(&one), 0o600);
    let mut kept = Client::connect_unix(&one);
    assert!(gateway.reload(&at(&one, "0660")));
    assert_eq!((mode(&one), kept.get("/livez").status), (0o660, 200));
    assert!(gateway.reload(&at(&two, "0600")));
    assert!(!one.exists());
    assert_eq!(Client::connect_unix(&two).get("/livez").status, 200);
    assert_eq!(kept.get("/livez").status, 200, "a connection outlives the move");
    assert!(!gateway.reload(&at(std::path::Path::new("/no/such/folder/x.sock"), "0600")));
    assert!(gateway.log().contains("make its folder first"), "{}", gateway.log());
    assert_eq!(Client::connect_unix(&two).get("/livez").status, 200, "nothing has changed");
    assert!(gateway.reload(&format!("{OK}[admin]\nbind = \"off\"\n")));
    assert!(!two.exists());
    assert!(gateway.reload(&format!("{OK}{STATUS}")));
    assert_eq!(gateway.admin().get("/livez").status, 200);
    assert_eq!(status_client(&gateway).get("/livez").status, 200);
    assert!(gateway.reload(OK));
    let log = gateway.log();
    let (_, rest) = log.rsplit_once("status on http://").unwrap();
    let address: std::net::SocketAddr = rest.split_whitespace().next().unwrap().parse().unwrap();
    eventually("nobody listens", || std::net::TcpStream::connect(address).is_err());
}

#[test]
fn two_gateways_do_not_fight_over_a_socket() {
    let first = Gateway::start(OK);
    let folder = Some(first.dir().to_owned());
    let second = Launch { toml: OK.into(), runtime_folder: folder.clone(), ..Launch::default() };
    let second = second.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    assert!(second.log().contains("another gateway answers"), "{}", second.log());
    assert_eq!(second.client().get("/").text(), "ok", "it serves without");
    let pid = |gateway: &Gateway| get(gateway, "/status")["pid"].clone();
    let owner = pid(&first);
    second.sigterm();
    assert!(second.wait_exit().success());
    assert_eq!(pid(&first), owner, "the other's end leaves the socket alone");
    // Where it was asked for by name, it is an error.
    let socket = first.dir().join("admin.sock");
    let toml = format!("{OK}[admin]\nbind = \"unix:{}\"\n", socket.display());
    let failed = Launch { toml, ..Launch::default() }.start().err().expect("it cannot start");
    assert!(failed.stderr.contains("another gateway answers there"), "{}", failed.stderr);
    // One that was killed leaves its socket behind, for the next to replace.
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait_exit();
    assert!(socket.exists());
    let third = Launch { toml: OK.into(), runtime_folder: folder, ..Launch::default() };
    let third = third.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    assert_ne!(pid(&first), owner);
    drop(third);
}

#[test]
fn a_watched_file_is_read_when_it_changes() {
    let watched = |body: &str| {
        format!("[[routes]]\nrespond = {{ body = \"{body}\" }}\n[reload]\nwatch = true\n")
    };
    let gateway = Gateway::start(&watched("one"));
    gateway.write(&watched("two"));
    eventually("the change", || gateway.client().get("/").text() == "two");
    gateway.write("[[routes]]\nrespnd = {}\n");
    gateway.wait_for_log("reload refused");
    assert_eq!(gateway.client().get("/").text(), "two");
    gateway.write("[[routes]]\nrespond = { body = \"three\" }\n");
    eventually("the change", || gateway.client().get("/").text() == "three");
    // No longer watched: only asking for it helps.
    gateway.write("[[routes]]\nrespond = { body = \"four\" }\n");
    json_of(&call(&mut gateway.admin(), "POST", "/reload", ""));
    assert_eq!(get(&gateway, "/status")["generation"], 4);
    assert_eq!(gateway.client().get("/").text(), "four");
}

#[test]
fn an_upgrade_that_fails_says_why_and_changes_nothing() {
    let gateway = Gateway::start(OK);
    gateway.write("[[routes]]\nrespnd = {}\n");
    let refused = call(&mut gateway.admin(), "POST", "/upgrade", "");
    assert_eq!(refused.status, 409);
    assert!(detail(&refused).contains("its configuration has errors"), "{}", detail(&refused));
    let output = gateway.command(&["upgrade"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("its configuration has errors"), "{text}");
    assert!(text.ends_with("ringway: not upgraded, the process serves on\n"), "{text}");
    assert_eq!(get(&gateway, "/status")["state"], "ready");
    assert_eq!(gateway.client().get("/").text(), "ok");
}

#[test]
fn a_stuck_worker_shows_and_holds_nothing_up() {
    let launch = Launch {
        toml: format!("[runtime]\nworkers = 2\nstuck_after = \"500ms\"\n{OK}"),
        env: vec![("RINGWAY_DRILL_STALL_PATH", "/stall/".into())],
        ..Launch::default()
    };
    let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    let mut busy = gateway.client();
    busy.send("GET /stall/6000 HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    gateway.wait_for_log("makes no progress");
    let ready = gateway.admin().get("/readyz");
    assert_eq!((ready.status, ready.text().contains("1 worker stuck")), (503, true));
    let status = get(&gateway, "/status");
    let states: Vec<_> = status["workers"].as_array().unwrap().iter().collect();
    let stuck = states.iter().find(|worker| worker["state"] == "stuck").expect("one is stuck");
    assert!(stuck["beat_age"].as_f64() > Some(0.4), "{stuck}");
    let list = get(&gateway, "/connections");
    assert_eq!(list["silent_workers"], json!([stuck["worker"]]));
    // Five times stuck_after is what a reload waits.
    let lacking = call(&mut gateway.admin(), "POST", "/reload", "");
    assert_eq!(lacking.status, 503, "{}", lacking.text());
    assert!(detail(&lacking).contains("is stuck and adopts it when it goes on"));
    assert_eq!(busy.response().status, 200);
    eventually("it goes on", || gateway.admin().get("/readyz").status == 200);
    let caught_up = || {
        let status = get(&gateway, "/status");
        status["workers"].as_array().unwrap().iter().all(|worker| worker["generation"] == 2)
    };
    eventually("both have it", caught_up);
}

#[test]
fn a_worker_that_starts_again_knows_what_operators_said() {
    let up = Upstream::ok();
    let launch = Launch {
        toml: format!(
            "[runtime]\nworkers = 1\n[[routes]]\nupstream = \"app\"\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            up.address()
        ),
        env: vec![("RINGWAY_DRILL_WORKER_PANIC_PATH", "/fatal".into())],
        ..Launch::default()
    };
    let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    set(&gateway, &up, &json!({ "state": "down" }));
    gateway.client().send("GET /fatal HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    gateway.wait_for_log("serves again");
    let refused = gateway.client().get("/");
    assert_eq!(refused.reason(), "upstream.down");
    assert_eq!(get(&gateway, "/connections")["silent_workers"], json!([]));
    set(&gateway, &up, &json!({ "state": "up" }));
    assert_eq!(gateway.client().get("/").status, 200);
}
