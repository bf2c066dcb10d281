//! A worker that takes no messages, until its mailbox is full: requests are served on, orders are
//! refused at once and change nothing, and everything is as before when it takes messages again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{Client, Gateway, Launch, ReadError, Response, Upstream, eventually};

/// Much longer than an answer takes that waits for no worker, and shorter than what control waits
/// for one.
const SOON: Duration = Duration::from_secs(3);

const PUT: &str = "PUT /upstreams/app/endpoints";

/// A gateway whose first worker to be asked takes no messages any more, and a connection to that
/// worker.
fn held(up: &Upstream, more: &str) -> (Gateway, Client) {
    let toml = format!(
        "{more}\n[[routes]]\nupstream = \"app\"\n[upstreams.app]\nendpoints = [\"{}\"]\n",
        up.address()
    );
    let env = vec![("RINGWAY_DRILL_MESSAGES_PATH", "/messages/".into())];
    let launch = Launch { toml, env, ..Launch::default() };
    let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    let mut client = gateway.client();
    assert_eq!(client.get("/messages/held").status, 200);
    (gateway, client)
}

/// Messages that wait, by worker.
fn waiting(gateway: &Gateway) -> Vec<usize> {
    let text = gateway.admin().get("/metrics").text();
    let of_workers = text.lines().filter(|line| line.starts_with("ringway_worker_mailbox{"));
    of_workers.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect()
}

fn set_weight(up: &Upstream, weight: u32) -> String {
    let body = format!("{{\"weight\":{weight}}}");
    let length = body.len();
    let endpoint = up.address().to_string().replace(':', "%3A");
    format!("{PUT}/{endpoint} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// One request of the admin interface, which must be answered soon.
#[track_caller]
fn soon(gateway: &Gateway, request: impl AsRef<[u8]>) -> Response {
    let mut admin = gateway.admin().patience(SOON);
    admin.send(request);
    admin.response()
}

#[track_caller]
fn soon_get(gateway: &Gateway, path: &str) -> Value {
    let answer = soon(gateway, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[track_caller]
fn detail(response: &Response) -> String {
    let problem: Value = serde_json::from_slice(&response.body).unwrap();
    problem["detail"].as_str().unwrap().to_owned()
}

/// Orders things until one is refused, and answers that refusal. Nobody waits for an answer: the
/// worker gives none.
fn fill(gateway: &Gateway, up: &Upstream) -> Response {
    let begun = Instant::now();
    let most = || waiting(gateway).into_iter().max().unwrap();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", waiting(gateway));
        let before = most();
        let mut admin = gateway.admin().patience(Duration::from_millis(1));
        admin.send(set_weight(up, 7));
        let mut answered = false;
        eventually("the order waits or is refused", || {
            answered = admin.reader.fill().is_ok_and(|bytes| bytes > 0);
            answered || most() > before
        });
        if answered {
            return admin.patience(SOON).response();
        }
    }
}

/// Every worker serves, and each request soon.
#[track_caller]
fn all_serve(gateway: &Gateway, held: &mut Client, text: &str) {
    let requests = || {
        let status = soon_get(gateway, "/status");
        let workers = status["workers"].as_array().unwrap().iter();
        workers.map(|worker| worker["requests"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let before = requests();
    let get = |client: &mut Client| {
        let begun = Instant::now();
        assert_eq!(client.get("/x").text(), text);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    };
    (0..50).for_each(|_| get(held));
    eventually("every worker has served", || {
        get(&mut gateway.client());
        requests().iter().zip(&before).all(|(now, before)| now > before)
    });
}

#[test]
fn with_a_full_mailbox_requests_are_served_and_orders_refused_until_there_is_room() {
    let up = Upstream::ok();
    let (gateway, mut held) = held(&up, "");
    let refused = fill(&gateway, &up);
    let worker = waiting(&gateway).iter().position(|waiting| *waiting > 100).unwrap();
    eventually("the other one takes its messages", || waiting(&gateway)[1 - worker] == 0);

    // Orders are refused at once, by name, with what to do, and leave no worker behind another.
    assert_eq!(refused.status, 409, "{}", refused.text());
    let reload = soon(&gateway, "POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(reload.status, 409, "{}", reload.text());
    for why in [detail(&refused), detail(&reload)] {
        assert!(why.contains(&format!("worker-{worker} takes no messages")), "{why}");
        assert!(why.contains("nothing was changed") && why.contains("ask again"), "{why}");
    }
    assert!(!gateway.reload("[[routes]]\nrespond = { body = \"new\" }\n"), "{}", gateway.log());
    assert_eq!(soon_get(&gateway, "/status")["generation"], 1);
    assert_eq!(soon(&gateway, set_weight(&up, 9)).status, 409);
    let endpoint = &soon_get(&gateway, "/status")["upstreams"][0]["endpoints"][0];
    assert_eq!(endpoint["weight"], 7, "not 9");

    // What needs an answer of every worker says whose is missing.
    for path in ["/connections", "/requests/slowest"] {
        assert_eq!(soon_get(&gateway, path)["silent_workers"], serde_json::json!([worker]));
    }
    // However often it is asked: questions leave room for orders to end.
    let mut asking: Vec<Client> = (0..24).map(|_| gateway.admin()).collect();
    for admin in &mut asking {
        admin.send("GET /connections HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    asking.iter_mut().for_each(|admin| assert_eq!(admin.response().status, 200));
    drop(asking);
    all_serve(&gateway, &mut held, "GET /x");

    assert_eq!(held.get("/messages/taken").status, 200);
    eventually("every message is taken", || waiting(&gateway) == [0, 0]);
    assert_eq!(soon_get(&gateway, "/connections")["silent_workers"], serde_json::json!([]));
    assert_eq!(soon(&gateway, set_weight(&up, 9)).status, 200);
    assert!(gateway.reload("[[routes]]\nrespond = { body = \"new\" }\n"), "{}", gateway.log());
    all_serve(&gateway, &mut held, "new");
    let status = soon_get(&gateway, "/status");
    let workers = status["workers"].as_array().unwrap().iter();
    let generations: BTreeSet<u64> = workers.map(|w| w["generation"].as_u64().unwrap()).collect();
    assert_eq!(generations, BTreeSet::from([2]));
}

#[test]
fn a_full_mailbox_has_room_for_the_end() {
    let up = Upstream::ok();
    let (gateway, mut held) = held(&up, "[shutdown]\ndrain_idle = \"100ms\"\n");
    fill(&gateway, &up);
    gateway.sigterm();
    // The other worker accepts no more; this one serves on until it hears of it.
    gateway.wait_for_log("accepting no more");
    assert_eq!(held.get("/x").text(), "GET /x");
    assert_eq!(held.get("/messages/taken").status, 200);
    eventually("its connections end", || {
        held.try_send("GET /x HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        !matches!(held.try_response("GET"), Ok(response) if response.field("connection").is_none())
    });
    assert!(gateway.wait_exit().success(), "{}", gateway.log());
    assert!(!gateway.log().contains("mailbox is full"), "{}", gateway.log());
}

#[test]
fn a_worker_that_never_takes_its_messages_does_not_keep_the_process() {
    let up = Upstream::ok();
    let (gateway, mut held) = held(&up, "[shutdown]\ndrain_timeout = \"500ms\"\n");
    fill(&gateway, &up);
    gateway.sigterm();
    assert!(!gateway.wait_exit().success(), "it says that something was wrong");
    gateway.wait_for_log("workers did not end in time");
    held.try_send("GET /x HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert!(matches!(held.try_response("GET"), Err(ReadError::Closed | ReadError::Reset)));
}
