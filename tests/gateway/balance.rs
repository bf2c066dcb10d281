//! Long-lived connections on several workers: with `balance = "even"` each has its share.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use serde_json::Value;

use crate::harness::{Client, Gateway, Launch, ReadError, Upstream, eventually, within_patience};

const WORKERS: usize = 2;
/// Of a stall that outlasts what it is to be seen in.
const STALL_MS: u64 = 8000;

const ROUTES: &str = "[[routes]]\nrespond = { body = \"ok\" }\n";

fn listener(balance: &str) -> String {
    let bind = "127.0.0.1:0";
    format!("[[listeners]]\nname = \"main\"\nbind = \"{bind}\"\nbalance = \"{balance}\"\n")
}

fn even(more: &str) -> Gateway {
    start(&format!("{more}\n{}{ROUTES}", listener("even")))
}

fn start(toml: &str) -> Gateway {
    let env = vec![
        ("RINGWAY_DRILL_STALL_PATH", "/stall/".into()),
        ("RINGWAY_DRILL_WORKER_PANIC_PATH", "/fatal".into()),
    ];
    let launch = Launch { toml: toml.to_owned(), env, ..Launch::default() };
    launch.start().unwrap_or_else(|failed| panic!("{failed:?}\nwith {toml}"))
}

/// The values of a metric, in the order of their labels.
fn metric(gateway: &Gateway, name: &str) -> Vec<u64> {
    let text = gateway.admin().get("/metrics").text();
    let lines =
        text.lines().filter(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with('{')));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect()
}

fn sum(gateway: &Gateway, name: &str) -> u64 {
    metric(gateway, name).iter().sum()
}

/// Open connections, by worker.
fn open(gateway: &Gateway) -> Vec<u64> {
    let open = metric(gateway, "ringway_connections_open");
    assert_eq!(open.len(), WORKERS);
    open
}

#[track_caller]
fn until_open(gateway: &Gateway, expected: &[u64]) {
    let mut seen = Vec::new();
    let is_so = within_patience(|| {
        seen = open(gateway);
        seen.sort_unstable();
        seen == expected
    });
    assert!(is_so, "{seen:?} open on each worker, not {expected:?}");
}

/// The worker of each connection, by the client's address.
fn workers(gateway: &Gateway) -> BTreeMap<SocketAddr, u64> {
    let told: Value = serde_json::from_slice(&gateway.admin().get("/connections").body).unwrap();
    let of = |line: &Value| {
        (line["peer"].as_str().unwrap().parse().unwrap(), line["worker"].as_u64().unwrap())
    };
    told["connections"].as_array().unwrap().iter().map(of).collect()
}

fn all_work(clients: &mut [Client]) {
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "ok"));
}

#[test]
fn seventeen_connections_are_nine_and_eight() {
    let gateway = even("");
    for round in 1..=5 {
        let mut clients: Vec<Client> = (0..17).map(|_| gateway.client()).collect();
        until_open(&gateway, &[8, 9]);
        all_work(&mut clients);
        // Each is accepted once, wherever it is served, and counted where it is served.
        assert_eq!(sum(&gateway, "ringway_connections_total"), round * 17);
        assert_eq!(sum(&gateway, "ringway_listener_connections_total"), round * 17);
        let by_worker = workers(&gateway);
        let first = by_worker.values().filter(|worker| **worker == 0).count() as u64;
        assert_eq!((by_worker.len(), first), (17, open(&gateway)[0]));
        drop(clients);
        until_open(&gateway, &[0, 0]);
    }
    // The kernel alone does not do that five times: 1 in 160.
    assert!(sum(&gateway, "ringway_connections_given_total") > 0);
    assert_eq!(sum(&gateway, "ringway_connections_shed_total"), 0);
}

#[test]
fn those_that_come_fill_up_where_others_went() {
    let gateway = even("");
    let mut clients: Vec<Client> = (0..24).map(|_| gateway.client()).collect();
    until_open(&gateway, &[12, 12]);
    for worker in [0, 1, 1, 0] {
        let by_worker = workers(&gateway);
        clients.retain(|client| by_worker[&client.address()] != worker);
        until_open(&gateway, &[0, 12]);
        clients.extend((0..12).map(|_| gateway.client()));
        until_open(&gateway, &[12, 12]);
        all_work(&mut clients);
    }
}

/// Listens on a Unix socket, whose queue its workers share.
fn even_unix(path: &Path) -> Gateway {
    let at = path.display();
    start(&format!(
        "[[listeners]]\nname = \"main\"\nbind = \"unix:{at}\"\nbalance = \"even\"\n{ROUTES}"
    ))
}

/// Its workers share one queue, and mostly the same one accepts.
#[test]
fn connections_of_a_unix_socket_are_spread_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringway.sock");
    let gateway = even_unix(&path);
    let mut clients: Vec<Client> = (0..33).map(|_| Client::connect_unix(&path)).collect();
    until_open(&gateway, &[16, 17]);
    all_work(&mut clients);
}

/// Left to the kernel, one worker would be full before the other.
#[test]
fn every_place_of_every_worker_is_used() {
    let gateway = even("[limits]\nconnections = 20\nconnections_per_worker = 10\n");
    let mut clients: Vec<Client> = (0..20).map(|_| gateway.client()).collect();
    until_open(&gateway, &[10, 10]);
    all_work(&mut clients);
    let mut more = gateway.client();
    assert_eq!(more.get("/").status, 503);
    until_open(&gateway, &[10, 10]);
}

#[test]
fn a_drain_right_after_loses_nobody() {
    for _ in 0..5 {
        let gateway = even("[shutdown]\ndrain_idle = \"2s\"\n");
        let mut clients: Vec<Client> = (0..30).map(|_| gateway.client()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        }
        gateway.sigterm();
        clients.iter_mut().for_each(|client| assert_eq!(client.response().text(), "ok"));
        drop(clients);
        assert!(gateway.wait_exit().success(), "{}", gateway.log());
        assert!(gateway.log().contains("connections=30"), "{}", gateway.log());
    }
}

#[test]
fn an_upgrade_right_after_loses_nobody() {
    let gateway = even("");
    for _ in 0..3 {
        let mut clients: Vec<Client> = (0..30).map(|_| gateway.client()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        }
        assert!(gateway.upgrade(), "{}", gateway.log());
        clients.iter_mut().for_each(|client| assert_eq!(client.response().text(), "ok"));
    }
}

/// What it had is its own, what would come to it goes to the other, and what was already given to
/// it comes back.
#[test]
fn nobody_waits_for_a_worker_that_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringway.sock");
    let gateway = even_unix(&path);
    let mut before: Vec<Client> = (0..2).map(|_| Client::connect_unix(&path)).collect();
    until_open(&gateway, &[1, 1]);
    before[0].send(format!("GET /stall/{STALL_MS} HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
    // The other one has one too: every second connection is given to the one that stands still.
    let soon = Duration::from_millis(STALL_MS / 2);
    let mut clients: Vec<Client> =
        (0..10).map(|_| Client::connect_unix(&path).patience(soon)).collect();
    all_work(&mut clients);
    until_open(&gateway, &[1, 11]);
    assert_eq!(before[1].get("/").text(), "ok");
    let mut more: Vec<Client> =
        (0..5).map(|_| Client::connect_unix(&path).patience(soon)).collect();
    all_work(&mut more);
    assert_eq!(before[0].response().text(), "ok");
    until_open(&gateway, &[1, 16]);
    // It goes on, and gets what comes next.
    gateway.wait_for_log("the worker goes on");
    let mut next: Vec<Client> = (0..15).map(|_| Client::connect_unix(&path)).collect();
    all_work(&mut next);
    until_open(&gateway, &[16, 16]);
    all_work(&mut before);
}

#[test]
fn a_worker_that_was_started_again_gets_its_share() {
    let gateway = even("");
    for round in 1..=3 {
        let mut last = gateway.client();
        assert_eq!(last.get("/fatal").text(), "ok");
        last.expect_closed();
        // Some come while there is one worker.
        let mut clients: Vec<Client> = (0..6).map(|_| gateway.client()).collect();
        eventually("the worker is back", || gateway.log().matches("serves again").count() == round);
        // Those that came to the one that was ending may have been closed.
        clients.retain_mut(|client| {
            let sent = client.try_send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
            match client.try_response("GET") {
                Ok(response) => sent && response.field("connection").is_none(),
                Err(ReadError::Closed | ReadError::Reset) => false,
                Err(e) => panic!("{e:?}"),
            }
        });
        clients.extend((clients.len()..17).map(|_| gateway.client()));
        until_open(&gateway, &[8, 9]);
        all_work(&mut clients);
        drop(clients);
        until_open(&gateway, &[0, 0]);
    }
}

#[test]
fn a_reload_turns_it_on_and_off() {
    let gateway = start(&format!("{}{ROUTES}", listener("kernel")));
    let mut clients: Vec<Client> = (0..9).map(|_| gateway.client()).collect();
    all_work(&mut clients);
    assert_eq!(sum(&gateway, "ringway_connections_given_total"), 0);
    assert!(gateway.reload(&format!("{}{ROUTES}", listener("even"))));
    clients.extend((9..31).map(|_| gateway.client()));
    until_open(&gateway, &[15, 16]);
    all_work(&mut clients);
    let given = sum(&gateway, "ringway_connections_given_total");
    assert!(given > 0);
    assert!(gateway.reload(&format!("{}{ROUTES}", listener("kernel"))));
    clients.extend((0..20).map(|_| gateway.client()));
    all_work(&mut clients);
    assert_eq!(sum(&gateway, "ringway_connections_given_total"), given);
}

/// Reloads that take the listener away and bring it back, while clients come.
#[test]
fn nobody_is_lost_while_listeners_come_and_go() {
    let with_second = |balance: &str| {
        format!(
            "{}[[listeners]]\nname = \"second\"\nbind = \"127.0.0.1:0\"\nbalance = \"{balance}\"\n\
             {ROUTES}",
            listener("even")
        )
    };
    let gateway = start(&with_second("even"));
    for balance in ["kernel", "even", "even"] {
        let second = gateway.address_of("second");
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(second)).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        }
        assert!(gateway.reload(&format!("{}{ROUTES}", listener("even"))));
        clients.iter_mut().for_each(|client| assert_eq!(client.response().text(), "ok"));
        assert!(gateway.reload(&with_second(balance)));
    }
}

/// Exchanges with an upstream, on connections that were given away.
#[test]
fn a_connection_that_was_given_away_is_like_any_other() {
    let up = Upstream::ok();
    let toml = format!(
        "{}[timeouts]\nkeep_alive = \"4s\"\n[[routes]]\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        listener("even"),
        up.address()
    );
    let gateway = start(&toml);
    let mut clients: Vec<Client> = (0..8).map(|_| gateway.client()).collect();
    for n in 0..3 {
        for client in &mut clients {
            assert_eq!(client.get(&format!("/{n}")).text(), format!("GET /{n}"));
        }
    }
    // Their deadlines are in force where they are served.
    clients.iter_mut().for_each(Client::expect_clean_close);
    until_open(&gateway, &[0, 0]);
}
