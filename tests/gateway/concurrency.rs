//! Limits on requests in progress: exact over workers, queues, and that every permit comes back.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    harness::{Client, Gateway, Launch, Upstream, eventually, http2::Http2},
    upgrade::{echo, switch},
};

/// Answers each request when it is told so, by any thread.
struct Slow {
    upstream: Upstream,
    go: mpsc::Sender<()>,
}

fn slow() -> Slow {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let upstream = Upstream::scripted(move |conn| {
        while conn.request().is_ok() {
            if wait.lock().unwrap().recv().is_err() {
                return;
            }
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    Slow { upstream, go }
}

fn config(workers: u32, limit: &str, upstream: &Upstream) -> String {
    format!(
        "[runtime]\nworkers = {workers}\n[concurrency.few]\n{limit}\n\
         [[routes]]\nupstream = \"app\"\nconcurrency = [\"few\"]\n\
         [[routes]]\npath = \"/fatal\"\nrespond = {{}}\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        upstream.address()
    )
}

fn figure(gateway: &Gateway, name: &str) -> u64 {
    let metrics = gateway.admin().get("/metrics").text();
    let line = format!("{name}{{limit=\"few\"}} ");
    let found = metrics.lines().find_map(|text| text.strip_prefix(&line));
    found.map_or(u64::MAX, |count| count.parse().unwrap())
}

#[track_caller]
fn returns_to_zero(gateway: &Gateway) {
    eventually("nothing is in progress", || {
        figure(gateway, "ringway_concurrency_requests") == 0
            && figure(gateway, "ringway_concurrency_waiting") == 0
    });
}

/// Sends a request on each, of which so many are refused; answers those that are not answered.
#[track_caller]
fn ask(mut waiting: Vec<Client>, refusals: usize) -> (Vec<Client>, Vec<(u16, String)>) {
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    }
    let mut refused = Vec::new();
    let (begun, mut looks) = (Instant::now(), 0);
    // Once more when all are there: nobody else is.
    while refused.len() < refusals || looks == 0 {
        looks += usize::from(refused.len() >= refusals);
        for client in std::mem::take(&mut waiting) {
            let mut client = client.patience(Duration::from_millis(5));
            match client.try_response("GET") {
                Ok(response) => refused.push((response.status, response.reason().to_string())),
                Err(_) => waiting.push(client),
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{refused:?}");
    }
    (waiting, refused)
}

#[test]
fn as_many_are_in_progress_as_may_however_they_are_spread() {
    for workers in [1, 2, 4] {
        for (key, status, reason) in
            [("client", 429, "limit.concurrency"), ("route", 503, "limit.busy")]
        {
            let Slow { upstream, go } = slow();
            let gateway =
                Gateway::start(&config(workers, &format!("limit = 5\nkey = \"{key}\""), &upstream));
            let clients = (0..12).map(|_| gateway.client()).collect();
            let (running, refused) = ask(clients, 7);
            assert_eq!((running.len(), refused.len()), (5, 7), "{workers} workers, {key}");
            assert!(refused.iter().all(|one| *one == (status, reason.to_owned())), "{refused:?}");
            eventually("figures", || figure(&gateway, "ringway_concurrency_requests") == 5);
            // As many as are over may begin.
            (0..3).for_each(|_| go.send(()).unwrap());
            eventually("figures", || figure(&gateway, "ringway_concurrency_requests") == 2);
            let (more, refused) = ask((0..6).map(|_| gateway.client()).collect(), 3);
            assert_eq!((more.len(), refused.len()), (3, 3), "{workers} workers, {key}");
            // A client that has only finished sending is still answered: the upstream goes.
            drop(go);
            returns_to_zero(&gateway);
            drop((more, running));
        }
    }
}

#[test]
fn others_wait_their_turn_and_no_longer_than_they_may() {
    for workers in [1, 4] {
        let Slow { upstream, go } = slow();
        let limit = "limit = 1\nqueue = 2\nqueue_timeout = \"60s\"";
        let gateway = Gateway::start(&config(workers, limit, &upstream));
        let (mut running, refused) = ask((0..5).map(|_| gateway.client()).collect(), 2);
        assert_eq!((running.len(), refused.len()), (3, 2), "{workers} workers");
        eventually("two wait", || figure(&gateway, "ringway_concurrency_waiting") == 2);
        (0..3).for_each(|_| go.send(()).unwrap());
        for client in &mut running {
            let client = std::mem::replace(client, gateway.client());
            assert_eq!(client.patience(Duration::from_secs(10)).response().status, 200);
        }
        returns_to_zero(&gateway);
        // Whoever waits and goes takes nobody's place.
        let (running, _) = ask((0..3).map(|_| gateway.client()).collect(), 0);
        assert_eq!(running.len(), 3);
        running.into_iter().for_each(Client::reset);
        returns_to_zero(&gateway);
        let Slow { upstream, go } = slow();
        let limit = "limit = 1\nqueue = 2\nqueue_timeout = \"100ms\"";
        let gateway = Gateway::start(&config(workers, limit, &upstream));
        let mut first = gateway.client();
        first.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        eventually("it runs", || figure(&gateway, "ringway_concurrency_requests") == 1);
        let begun = Instant::now();
        let mut second = gateway.client();
        assert_eq!(second.get("/").status, 429);
        assert!(begun.elapsed() >= Duration::from_millis(90), "{:?}", begun.elapsed());
        go.send(()).unwrap();
        assert_eq!(first.response().status, 200);
        returns_to_zero(&gateway);
    }
}

#[test]
fn a_tunnel_counts_for_as_long_as_it_lives() {
    for workers in [1, 2] {
        let upstream = echo("");
        let gateway = Gateway::start(&config(workers, "limit = 2", &upstream));
        let mut all = [gateway.client(), gateway.client()];
        all.iter_mut().for_each(switch);
        assert_eq!(gateway.client().get("/").status, 429);
        let [one, two] = all;
        drop(one);
        eventually("one is over", || figure(&gateway, "ringway_concurrency_requests") == 1);
        let mut next = gateway.client();
        switch(&mut next);
        assert_eq!(gateway.client().get("/").status, 429);
        drop((two, next));
        returns_to_zero(&gateway);
    }
}

#[test]
fn a_shadow_and_those_who_are_exempt_are_not_refused() {
    for more in ["shadow = true", "exempt = [\"127.0.0.0/8\"]"] {
        let Slow { upstream, go } = slow();
        let gateway = Gateway::start(&config(2, &format!("limit = 1\n{more}"), &upstream));
        let (running, refused) = ask((0..4).map(|_| gateway.client()).collect(), 0);
        assert_eq!((running.len(), refused.len()), (4, 0));
        (0..4).for_each(|_| go.send(()).unwrap());
        drop(running);
        returns_to_zero(&gateway);
    }
}

#[test]
fn a_refused_request_takes_nothing_of_other_limits() {
    for (key, section, reason) in [
        ("quotas = [\"q\"]", "[quotas.q]\namount = \"2/month\"\n", "limit.quota"),
        ("rate_limits = [\"q\"]", "[rate_limits.q]\nrate = \"2/d\"\n", "limit.exhausted"),
    ] {
        let Slow { upstream, go } = slow();
        let toml = config(2, "limit = 1", &upstream)
            .replace("concurrency = [\"few\"]", &format!("concurrency = [\"few\"]\n{key}"));
        let gateway = Gateway::start(&format!("{toml}{section}"));
        let (mut running, refused) = ask((0..6).map(|_| gateway.client()).collect(), 5);
        // One runs, what the others took comes back.
        assert_eq!((running.len(), refused.len()), (1, 5), "{refused:?}");
        assert!(refused.iter().any(|(_, reason)| reason == "limit.concurrency"), "{refused:?}");
        go.send(()).unwrap();
        let client = running.remove(0);
        assert_eq!(client.patience(Duration::from_secs(10)).response().status, 200);
        returns_to_zero(&gateway);
        go.send(()).unwrap();
        eventually("one more may pass", || gateway.client().get("/").status == 200);
        assert_eq!(gateway.client().get("/").reason(), reason);
    }
}

/// Clients that vanish at every point of a request, over both versions, with reloads meanwhile, and
/// upstreams that reset: nothing stays counted.
#[test]
fn whatever_ends_requests_the_count_returns_to_zero() {
    for workers in [1, 4] {
        let upstream = Upstream::scripted(|conn| {
            let mut count = 0;
            while conn.request().is_ok() {
                count += 1;
                match count % 4 {
                    0 => return,
                    1 => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
                    2 => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok"),
                    _ => conn.send(
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                    ),
                };
                if count % 4 == 2 {
                    return;
                }
            }
        });
        let toml = config(workers, "limit = 3\nqueue = 4\nqueue_timeout = \"50ms\"", &upstream);
        let gateway = Gateway::start(&toml);
        let request = "POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\nhello";
        thread::scope(|scope| {
            for thread in 0..4 {
                let gateway = &gateway;
                scope.spawn(move || {
                    for cut in (0..=request.len()).skip(thread).step_by(4) {
                        let mut client = gateway.client();
                        client.try_send(&request[..cut]);
                        match cut % 3 {
                            0 => drop(client),
                            1 => {
                                client.finish_sending();
                                let _ = client.try_response("POST");
                            }
                            _ => {
                                let mut client = client.patience(Duration::from_millis(20));
                                let _ = client.try_response("POST");
                            }
                        }
                        if cut % 5 == 0 {
                            let mut http2 = Http2::connect(gateway.address());
                            http2.ask("GET", "/", &[]);
                            drop(http2);
                        }
                    }
                });
            }
            for _ in 0..4 {
                assert!(gateway.reload(&toml));
            }
        });
        returns_to_zero(&gateway);
        let passed = gateway.admin().get("/metrics").text();
        let line = "ringway_rate_limit_requests_total{limit=\"few\",outcome=\"passed\"} ";
        let passed = passed.lines().find_map(|text| text.strip_prefix(line)).unwrap();
        assert!(passed.parse::<u32>().unwrap() > 0, "some begin");
    }
}

/// A worker that ends takes its permits with it; the others forget them.
#[test]
fn a_worker_that_ends_holds_nothing() {
    let Slow { upstream, go } = slow();
    let env = vec![("RINGWAY_DRILL_WORKER_PANIC_PATH", "/fatal".to_owned())];
    let toml = config(2, "limit = 6\nkey = \"header:X-Key\"", &upstream);
    let gateway = Launch { toml, env, ..Launch::default() }.start().unwrap();
    let (running, refused) = ask((0..8).map(|_| gateway.client()).collect(), 2);
    assert_eq!((running.len(), refused.len()), (6, 2));
    for _ in 0..2 {
        let before = gateway.log().matches("serves again").count();
        gateway.client().try_send("GET /fatal HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        eventually("the worker serves again", || {
            gateway.log().matches("serves again").count() > before
        });
    }
    drop((running, go));
    returns_to_zero(&gateway);
}
