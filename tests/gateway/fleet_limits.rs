//! Limits that several gateways share in a Redis server: exact together, and never in the way of a
//! request, whatever becomes of the server. `scripts/fleet-exactness` measures the same for longer.

use std::{
    cell::{Cell, RefCell},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use proptest::prelude::*;
use ringway::policy::limit::{Ask, Buckets, Window, moment};

use crate::{
    harness::{Gateway, Over, PATIENCE, Papers, Upstream, eventually, redis::Redis},
    limits_exact::{PLAIN, Run, exact_over, response},
};

/// Of a gateway that shares the limit `exact`.
fn config(redis: &Redis, run: &Run, more: &str) -> String {
    format!(
        "[runtime]\nworkers = {}\n[redis.fleet]\naddress = \"{}\"\nwait = \"500ms\"\n\
         timeout = \"2s\"\n[rate_limits.exact]\nrate = \"{}/s\"\nburst = {}\n\
         key = \"header:X-Key\"\nshared = \"fleet\"\n{more}\n\
         [[routes]]\nrespond = {{ body = \"ok\" }}\nrate_limits = [\"exact\"]\n",
        run.workers,
        redis.address(),
        run.rate,
        run.burst
    )
}

#[track_caller]
fn shares(gateway: &Gateway) {
    eventually("the server is reached", || gateway.figure(UP) == Some(1.0));
}

const UP: &str = "ringway_redis_up{redis=\"fleet\"}";
const FALLBACK: &str = "ringway_rate_limit_fallback_total{limit=\"exact\"}";

#[track_caller]
fn three(redis: &Redis, run: &Run, more: &str) -> Vec<Gateway> {
    let toml = config(redis, run, more);
    let gateways: Vec<_> = (0..3).map(|_| Gateway::start(&toml)).collect();
    gateways.iter().for_each(shares);
    gateways
}

#[test]
fn three_gateways_let_pass_what_one_limit_allows() {
    let redis = Redis::start();
    let run = Run { workers: 2, time: Duration::from_secs(3), ..PLAIN };
    for run in [
        run,
        Run { rate: 10, burst: 10, ..run },
        Run { workers: 1, pipelined: 8, ..run },
        Run { bursty: true, rate: 200, burst: 200, ..run },
        Run { keys: 20, rate: 20, burst: 10, ..run },
    ] {
        let gateways = three(&redis, &run, "");
        exact_over(&gateways.iter().collect::<Vec<_>>(), &run, 0.03, || ());
        // What they still have to say is not for the next ones' buckets.
        drop(gateways);
        redis::cmd("FLUSHALL").exec(&mut redis.connection()).unwrap();
    }
}

/// A reload neither fills a bucket nor ends the connection.
#[test]
fn reloads_change_nothing_about_what_is_shared() {
    let redis = Redis::start();
    let run = Run { workers: 2, rate: 500, burst: 500, time: Duration::from_secs(3), ..PLAIN };
    let gateways = three(&redis, &run, "");
    let clients = || -> u64 {
        let info: String = redis::cmd("INFO").arg("stats").query(&mut redis.connection()).unwrap();
        let count = info.lines().find_map(|l| l.strip_prefix("total_connections_received:"));
        count.unwrap().trim().parse().unwrap()
    };
    let before = clients();
    exact_over(&gateways.iter().collect::<Vec<_>>(), &run, 0.03, || {
        for n in 0..4 {
            for gateway in &gateways {
                let more = format!("[[routes]]\npath = \"/{n}\"\nrespond = {{}}\n");
                assert!(gateway.reload(&config(&redis, &run, &more)));
            }
        }
    });
    assert_eq!(clients(), before + 1, "only the one that asks");
}

/// What one client saw of a server that goes away.
#[derive(Default)]
struct Seen {
    passed: u64,
    refused: u64,
    slowest: Duration,
}

/// Asks again and again until it is told to end.
fn ask(address: SocketAddr, over: &AtomicBool) -> Seen {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut seen, mut bytes) = (Seen::default(), Vec::new());
    while !over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: gw.test\r\nX-Key: a\r\n\r\n").unwrap();
        let status = loop {
            if let Some((status, end)) = response(&bytes) {
                bytes.drain(..end);
                break status;
            }
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).expect("the gateway answers");
            assert!(read > 0, "the connection stays open");
            bytes.extend_from_slice(&piece[..read]);
        };
        seen.slowest = seen.slowest.max(begun.elapsed());
        match status {
            200 => seen.passed += 1,
            429 => seen.refused += 1,
            other => panic!("status {other}"),
        }
        // Some hundred a second from each.
        thread::sleep(Duration::from_millis(2));
    }
    seen
}

/// The server is killed, stands still and comes back, under load: nobody gets an error or waits
/// long, and in the end the limit is shared again.
#[test]
fn a_server_that_goes_away_is_in_nobodys_way() {
    let mut redis = Redis::start();
    let run = Run { workers: 2, rate: 300, burst: 100, ..PLAIN };
    let toml = config(&redis, &run, "fallback_share = 0.34").replace(
        "wait = \"500ms\"\ntimeout = \"2s\"",
        "wait = \"20ms\"\ntimeout = \"200ms\"\nconnect_timeout = \"300ms\"\nretry = \"200ms\"",
    );
    let gateways: Vec<_> = (0..3).map(|_| Gateway::start(&toml)).collect();
    gateways.iter().for_each(shares);
    let over = Arc::new(AtomicBool::new(false));
    let ends = Over(&over);
    let begun = Instant::now();
    let clients: Vec<_> = (0..9)
        .map(|n| (gateways[n % 3].address(), over.clone()))
        .map(|(address, over)| thread::spawn(move || ask(address, &over)))
        .collect();
    let down = |what: &str| {
        for gateway in &gateways {
            eventually(what, || gateway.figure(UP) == Some(0.0));
            let before = gateway.figure(FALLBACK).unwrap();
            eventually("the fallback decides", || {
                gateway.figure(FALLBACK).unwrap() > before + 10.0
            });
        }
    };
    redis.kill();
    down("the killed server is missed");
    redis.again();
    gateways.iter().for_each(shares);
    redis.signal(Signal::SIGSTOP);
    down("the hung server is missed");
    redis.signal(Signal::SIGCONT);
    gateways.iter().for_each(shares);
    // From here on it is one limit again: no more than one bucket and the rate.
    let all = || gateways.iter().map(|gateway| gateway.figure(PASSED).unwrap()).sum::<f64>();
    let (passed, again) = (all(), Instant::now());
    thread::sleep(Duration::from_secs(2));
    let (after, took) = (all() - passed, again.elapsed().as_secs_f64());
    assert!(after <= 100.0 + 300.0 * took + 30.0, "{after} in {took} s");
    assert!(after >= 300.0 * took * 0.9, "{after} in {took} s");
    drop(ends);
    let seen: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let took = begun.elapsed().as_secs_f64();
    let passed: u64 = seen.iter().map(|seen| seen.passed).sum();
    let slowest = seen.iter().map(|seen| seen.slowest).max().unwrap();
    // One bucket at first and one of each new server or fallback, and the rate all along.
    let may = 100.0 * 4.0 + 3.0 * 34.0 * 2.0 + 1.02 * 300.0 * took;
    eprintln!("{passed} passed of {may:.0} in {took:.1} s, slowest {slowest:?}");
    assert!((passed as f64) < may, "{passed} of {may}");
    assert!(passed as f64 > 300.0 * took * 0.7, "{passed} in {took}");
    assert!(seen.iter().all(|seen| seen.refused > 0));
    // Far from `timeout`: `wait` and what a busy machine adds.
    assert!(slowest < Duration::from_millis(1500), "{slowest:?}");
    for gateway in &gateways {
        let log = gateway.log();
        assert_eq!(log.matches("not reached: each").count(), 2, "once for each change: {log}");
        assert_eq!(log.matches("connected: limits are shared").count(), 3, "{log}");
    }
}

const PASSED: &str = "ringway_rate_limit_requests_total{limit=\"exact\",outcome=\"passed\"}";

#[test]
fn the_fallback_is_a_matter_of_configuration() {
    let mut redis = Redis::start();
    redis.kill();
    let run = Run { rate: 1, burst: 10, workers: 2, ..PLAIN };
    for (more, passes) in [
        ("fallback = \"allow\"", 20..=20),
        ("fallback = \"refuse\"", 0..=0),
        ("fallback_share = 0.5", 5..=8),
        ("", 10..=14),
    ] {
        let gateway = Gateway::start(&config(&redis, &run, more));
        let mut client = gateway.client();
        let mut statuses = (0..20).map(|_| client.get("/")).collect::<Vec<_>>();
        let passed = statuses.iter().filter(|response| response.status == 200).count();
        assert!(passes.contains(&passed), "{more}: {passed}");
        statuses.retain(|response| response.status != 200);
        for refused in statuses {
            assert_eq!((refused.status, &*refused.reason()), (429, "limit.exhausted"));
            assert!(refused.field("retry-after").is_some());
        }
        assert_eq!(gateway.figure(FALLBACK), Some(20.0));
    }
}

/// A request that passes because the server does not answer has taken nothing: what it cost is
/// neither given back nor charged.
#[test]
fn what_was_not_taken_is_not_given_back() {
    let upstream = Upstream::canned("HTTP/1.1 200 OK\r\nX-Cost: 0\r\nContent-Length: 0\r\n\r\n");
    let mut redis = Redis::start();
    redis.kill();
    let run = Run { rate: 1, burst: 10, workers: 1, ..PLAIN };
    let toml = |more: &str| {
        config(&redis, &run, &format!("cost = 5\n{more}"))
            .replace("\"1/s\"", "\"1/d\"")
            .replace("respond = { body = \"ok\" }", "upstream = \"app\"")
            + &format!("[upstreams.app]\nendpoints = [\"{}\"]\n", upstream.address())
    };
    let gateway = Gateway::start(&toml(""));
    let mut client = gateway.client();
    assert_eq!([(); 3].map(|()| client.get("/").status), [200, 200, 429]);
    assert!(gateway.reload(&toml("cost_from = \"X-Cost\"\nfallback = \"allow\"")));
    assert_eq!([(); 4].map(|()| client.get("/").status), [200; 4]);
    assert!(gateway.reload(&toml("")));
    assert_eq!(client.get("/").status, 429);
}

/// Other processes of the fleet see what one has used, and what is left.
#[test]
fn what_is_left_is_told_and_given_back() {
    let redis = Redis::start();
    let run = Run { rate: 1, burst: 10, workers: 2, ..PLAIN };
    let more = "[rate_limits.none]\nrate = \"1/d\"\n\
                [[routes]]\npath = \"/none\"\nrespond = {}\nrate_limits = [\"exact\", \"none\"]\n";
    let toml = config(&redis, &run, "").replace("\"1/s\"", "\"1/h\"") + more;
    let (first, second) = (Gateway::start(&toml), Gateway::start(&toml));
    shares(&first);
    shares(&second);
    let mut clients = [first.client(), second.client()];
    for _ in 0..3 {
        assert_eq!(clients[0].get("/").status, 200);
    }
    // Refused by the other limit, they are not counted by the first.
    assert_eq!(clients[0].get("/none").status, 200);
    for _ in 0..5 {
        assert_eq!(clients[0].get("/none").status, 429);
    }
    let mut passed = 0;
    // What the first has on lease comes back within a second.
    eventually("all of it is used, and no more", || {
        passed += usize::from(clients[1].get("/").status == 200);
        passed == 6
    });
    assert_eq!(clients[1].get("/").status, 429);
    assert_eq!(clients[0].get("/").status, 429);
    let response = clients[1].get("/");
    assert_eq!(response.field("ratelimit-policy"), Some("\"exact\";q=1;w=3600"));
    assert!(response.field("ratelimit").unwrap().starts_with("\"exact\";r=0;t="));
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis.connection()).unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(keys[0].starts_with("ringway:exact:") && keys[0].len() == 30, "{keys:?}");
    let left: i64 = redis::cmd("PTTL").arg(&keys[0]).query(&mut redis.connection()).unwrap();
    assert!((35_000_000..=36_000_002).contains(&left), "it goes when it is full: {left}");
}

/// The part of the only bucket that is taken.
fn missing(redis: &Redis) -> f64 {
    let connection = &mut redis.connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(connection).unwrap();
    let text: String = redis::cmd("GET").arg(&keys[0]).query(connection).unwrap();
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The upstream says what a request costs, and all gateways count it.
#[test]
fn a_cost_that_is_known_later_counts_for_all() {
    let upstream = Upstream::canned("HTTP/1.1 200 OK\r\nX-Cost: 8\r\nContent-Length: 0\r\n\r\n");
    let redis = Redis::start();
    let run = Run { rate: 1, burst: 10, workers: 2, ..PLAIN };
    let toml = config(&redis, &run, "cost_from = \"X-Cost\"")
        .replace("\"1/s\"", "\"1/h\"")
        .replace("respond = { body = \"ok\" }", "upstream = \"app\"")
        + &format!("[upstreams.app]\nendpoints = [\"{}\"]\n", upstream.address());
    let (first, second) = (Gateway::start(&toml), Gateway::start(&toml));
    shares(&first);
    shares(&second);
    assert_eq!(first.client().get("/").status, 200);
    eventually("it is charged", || (0.799..0.801).contains(&missing(&redis)));
    let mut client = second.client();
    let statuses = [(); 3].map(|()| client.get("/").status);
    assert_eq!(statuses, [200, 429, 429]);
}

#[test]
fn a_server_may_want_tls_and_a_password() {
    let papers = Papers::new();
    papers.issue("redis", &["redis.test", "127.0.0.1"]);
    let file = |papers: &Papers, name: &str| papers.path(name).display().to_string();
    let (cert, key) = (file(&papers, "redis.pem"), file(&papers, "redis.key"));
    let tls_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = tls_port.to_string();
    let redis = Redis::with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
        "--requirepass",
        "other",
        "--user",
        "gateway",
        "on",
        ">s3cret",
        "~rw:*",
        "+ping",
        "+select",
        "+eval",
        "+evalsha",
        "+script|load",
        "+time",
        "+get",
        "+set",
        "+del",
    ]);
    std::fs::write(redis.folder().join("password"), "s3cret\n").unwrap();
    let run = Run { rate: 1, burst: 3, workers: 1, ..PLAIN };
    let with = |ca: &str, password: &str| {
        config(&redis, &run, "").replace(
            &format!("address = \"{}\"", redis.address()),
            &format!(
                "address = \"127.0.0.1:{tls_port}\"\ntls = {{ ca = \"{ca}\" }}\ndatabase = 3\n\
                 user = \"gateway\"\npassword = \"{password}\"\nprefix = \"rw:\""
            ),
        )
    };
    let password = format!("file:{}", redis.folder().join("password").display());
    let gateway = Gateway::start(&with(&file(&papers, "redis.pem"), &password));
    shares(&gateway);
    let mut client = gateway.client();
    let passed = (0..5).filter(|_| client.get("/").status == 200).count();
    assert!((3..5).contains(&passed), "{passed}");
    assert_eq!(gateway.figure(FALLBACK), Some(0.0));
    let status = String::from_utf8(gateway.command(&["status"]).stdout).unwrap();
    assert!(status.contains("fleet: 127.0.0.1:"), "{status}");
    // A password that is wrong is told, and is not in the log.
    std::fs::write(redis.folder().join("wrong"), "hunter2").unwrap();
    let wrong = format!("file:{}", redis.folder().join("wrong").display());
    let gateway = Gateway::start(&with(&file(&papers, "redis.pem"), &wrong));
    eventually("the log says why", || gateway.log().contains("Password authentication failed"));
    assert!(!gateway.log().contains("hunter2"));
    // So is a certificate of somebody else.
    let others = Papers::new();
    others.issue("other", &["redis.test"]);
    let gateway = Gateway::start(&with(&file(&others, "other.pem"), &password));
    eventually("the log says why", || gateway.log().contains("TLS: invalid peer certificate"));
}

/// A server that has forgotten the script gets it again, and loses no bucket by it.
#[test]
fn a_script_that_is_not_known_is_sent_again() {
    let redis = Redis::start();
    let run = Run { rate: 1, burst: 10, workers: 1, ..PLAIN };
    let gateway = Gateway::start(&config(&redis, &run, "").replace("\"1/s\"", "\"1/h\""));
    shares(&gateway);
    let mut client = gateway.client();
    for taken in 1..=5 {
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut redis.connection()).unwrap();
        assert_eq!(client.get("/").status, 200);
        // So that the next one is not let pass by what is still on lease.
        let wanted = f64::from(taken) / 10.0;
        eventually("the rest comes back", || (missing(&redis) - wanted).abs() < 0.001);
    }
    let passed = (0..10).filter(|_| client.get("/").status == 200).count();
    assert_eq!((passed, gateway.figure(FALLBACK)), (5, Some(0.0)));
}

/// The script beside the buckets of one process, with the server's clock in a key.
#[test]
fn the_script_does_what_a_bucket_does() {
    const SCRIPT: &str = include_str!("../../src/control/fleet/bucket.lua");
    let clock = "local time = redis.call('TIME')\nlocal now = time[1] * 1000000 + time[2]\n";
    assert!(SCRIPT.contains(clock));
    let script = SCRIPT.replace(clock, "local now = tonumber(redis.call('GET', 'now'))\n");
    let redis = Redis::start();
    let (connection, serial) = (RefCell::new(redis.connection()), Cell::new(0));
    // Windows whose intervals are whole microseconds, so that neither rounds.
    let windows = prop_oneof![
        Just(vec![(1000, 1_000_000, 100)]),
        Just(vec![(10, 1_000_000, 25), (100, 60_000_000, 40)]),
        Just(vec![(1, 3_600_000_000, 1)]),
        Just(vec![(50_000, 1_000_000, 20_000)]),
    ];
    let step = (0..3_000_000u64, 0..40u32, 0..20u32, 0..60u32, 0..3u32, 0..30u32);
    let steps = proptest::collection::vec(step, 1..40);
    let runner = ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() };
    proptest!(runner, |(windows in windows, steps in steps)| {
        serial.set(serial.get() + 1);
        let (key, connection) = (format!("case:{}", serial.get()), &mut *connection.borrow_mut());
        let own: Vec<_> = windows.iter().map(|(count, period_us, burst)| {
            Window::new(*count, period_us * 1000, *burst)
        }).collect();
        let mut buckets = Buckets::new(&own, 1000, 0);
        let mut now_us = 1_795_900_000_000_000u64;
        for (passes_us, want, least, used, kind, number) in steps {
            now_us += passes_us;
            let least = least.min(want);
            let (given, charged) = match kind { 1 => (number, 0), 2 => (0, number), _ => (0, 0) };
            // A clock of its own, which begins later: a moment is good for years only.
            let now = moment((now_us - 1_795_800_000_000_000) * 1000);
            if given > 0 { buckets.give(1, given, now); }
            if charged > 0 { buckets.charge(1, charged, now); }
            let grant = buckets.ask(Ask { key: 1, want, least, used }, 4, now);
            redis::cmd("SET").arg("now").arg(now_us).exec(connection).unwrap();
            let mut eval = redis::cmd("EVAL");
            eval.arg(&script).arg(1).arg(&key);
            for number in [given, charged, want, least, used, 8] { eval.arg(number); }
            for (count, period_us, burst) in &windows {
                eval.arg(*burst).arg(period_us * u64::from(*burst) / u64::from(*count));
            }
            let answer: Vec<u64> = eval.query(connection).unwrap();
            let left = grant.left;
            prop_assert_eq!(answer[0], u64::from(grant.tokens), "{:?}", answer);
            prop_assert_eq!(answer[1], u64::from(left.tokens), "{:?}", answer);
            let full_us = left.full_in_ns.div_ceil(1000);
            prop_assert!(answer[2].abs_diff(full_us) <= 1, "{:?} {:?}", answer, left);
            prop_assert_eq!(answer[4] > 0, grant.empty_until > 0, "{:?} {:?}", answer, grant);
            let ttl: i64 = redis::cmd("PTTL").arg(&key).query(connection).unwrap();
            let longest_us = windows.iter().map(|(count, period_us, burst)| {
                2 * period_us * u64::from(*burst) / u64::from(*count)
            }).max().unwrap();
            prop_assert!(ttl == -2 || (0..=longest_us as i64 / 1000 + 1).contains(&ttl), "{}", ttl);
        }
    });
}
