//! Rate limits are exact, however many workers there are and however requests are spread over them:
//! never more than `burst + rate * time`, and within a hundredth (or one request) of it.
//! `scripts/limit-exactness` does the same for longer, at higher rates, beside others.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Gateway, Launch, PATIENCE, eventually};

/// What one run is like.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub workers: u32,
    pub rate: u32,
    pub burst: u32,
    pub connections: usize,
    /// Requests in flight on each connection.
    pub pipelined: usize,
    /// Clients take breaks: a tenth of a second after so much.
    pub bursty: bool,
    pub keys: u32,
    pub time: Duration,
}

pub const PLAIN: Run = Run {
    workers: 4,
    rate: 1000,
    burst: 500,
    connections: 24,
    pipelined: 1,
    bursty: false,
    keys: 1,
    time: Duration::from_millis(2000),
};

fn config(run: &Run, rate: &str) -> String {
    format!(
        "[runtime]\nworkers = {}\n[rate_limits.exact]\nrate = \"{rate}\"\nburst = {}\n\
         key = \"header:X-Key\"\n[[routes]]\nrespond = {{ body = \"ok\" }}\n\
         rate_limits = [\"exact\"]\n",
        run.workers, run.burst
    )
}

/// What came of the requests of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    passed: u64,
    /// When the first refusal came: the bucket was empty before it.
    first: Option<Instant>,
    /// When the last of those was sent that were refused: the bucket was empty after it.
    empty: Option<Instant>,
}

impl Seen {
    fn and(&mut self, other: &Seen) {
        self.passed += other.passed;
        self.first = self.first.into_iter().chain(other.first).min();
        self.empty = self.empty.into_iter().chain(other.empty).max();
    }
}

/// Requests until the time is over; answers what came of them, by key.
fn client(address: SocketAddr, run: &Run, number: usize, until: Instant) -> Vec<Seen> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut seen = vec![Seen::default(); run.keys as usize];
    let (mut asked, mut random) = (0, number as u32);
    let mut rest = Vec::new();
    while Instant::now() < until {
        let (mut requests, mut keys) = (String::new(), Vec::new());
        for _ in 0..run.pipelined {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = (random >> 8) % run.keys;
            requests += &format!("GET / HTTP/1.1\r\nHost: gw.test\r\nX-Key: {key}\r\n\r\n");
            keys.push(key as usize);
        }
        let sent = Instant::now();
        stream.write_all(requests.as_bytes()).unwrap();
        let mut keys = keys.into_iter();
        while keys.len() > 0 {
            let mut piece = [0; 16 * 1024];
            let read = stream.read(&mut piece).expect("the gateway answers");
            assert!(read > 0, "the connection stays open");
            rest.extend_from_slice(&piece[..read]);
            while let Some((status, end)) = response(&rest) {
                let seen = &mut seen[keys.next().expect("a request")];
                match status {
                    200 => seen.passed += 1,
                    429 => {
                        seen.first = seen.first.or(Some(Instant::now()));
                        seen.empty = Some(sent);
                    }
                    other => panic!("status {other}"),
                }
                rest.drain(..end);
            }
        }
        asked += 1;
        if run.bursty && asked % 50 == 0 {
            thread::sleep(Duration::from_millis(100));
        }
    }
    seen
}

/// Status and length of the response at the front, when all of it is there.
pub fn response(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let status = head.get(9..12)?.parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let all = end + length.map_or(0, |length| length.parse::<usize>().unwrap());
    (bytes.len() >= all).then_some((status, all))
}

/// Runs clients, and `meanwhile` once; compares what passed with what may.
fn exact(gateway: &Gateway, run: &Run, meanwhile: impl FnOnce()) {
    exact_over(&[gateway], run, 0.01, meanwhile);
}

/// As [`exact`], of clients that are spread over several gateways; what passed may be less than may
/// by a part.
pub fn exact_over(gateways: &[&Gateway], run: &Run, off: f64, meanwhile: impl FnOnce()) {
    let addresses: Vec<_> = gateways.iter().map(|gateway| gateway.address()).collect();
    let run = *run;
    let barrier = Arc::new(Barrier::new(run.connections + 1));
    let clients: Vec<_> = (0..run.connections)
        .map(|number| {
            let (barrier, address) = (barrier.clone(), addresses[number % addresses.len()]);
            thread::spawn(move || {
                barrier.wait();
                client(address, &run, number, Instant::now() + run.time)
            })
        })
        .collect();
    let begun = Instant::now();
    barrier.wait();
    meanwhile();
    let mut keys = vec![Seen::default(); run.keys as usize];
    for client in clients {
        let seen = client.join().unwrap();
        keys.iter_mut().zip(&seen).for_each(|(all, seen)| all.and(seen));
    }
    let took = begun.elapsed();
    let may = |time: Duration| f64::from(run.burst) + f64::from(run.rate) * time.as_secs_f64();
    let (mut passed, mut least) = (0, 0.0);
    for key in &keys {
        let (Some(first), Some(empty)) = (key.first, key.empty) else {
            panic!("too little was asked for: {run:?} {key:?}")
        };
        assert!(key.passed as f64 <= may(took) + 1.0, "{key:?}, {:.1} may: {run:?}", may(took));
        passed += key.passed;
        // The burst, before the first refusal, and then the rate.
        least += may(empty.saturating_duration_since(first)).floor();
    }
    eprintln!("{run:?}: {passed} passed, {least:.1} should");
    let off = (least * off).max(f64::from(run.keys));
    assert!(passed as f64 >= least - off, "{passed} passed of {least:.1}: {run:?}");
}

fn alone(run: &Run) {
    let gateway = Gateway::start(&config(run, &format!("{}/s", run.rate)));
    exact(&gateway, run, || ());
}

#[test]
fn a_client_spread_over_all_workers_gets_its_rate() {
    for workers in [1, 2, 4] {
        alone(&Run { workers, ..PLAIN });
        alone(&Run { workers, rate: 10, burst: 10, ..PLAIN });
    }
}

#[test]
fn a_client_with_one_connection_gets_its_rate() {
    for workers in [1, 2, 4] {
        let run = Run { workers, connections: 1, rate: 200, burst: 100, ..PLAIN };
        alone(&run);
        alone(&Run { rate: 10, burst: 10, ..run });
        // Refusals among requests in flight do not end the connection.
        alone(&Run { pipelined: 16, ..run });
    }
}

#[test]
fn clients_that_come_in_bursts_get_their_rate() {
    alone(&Run { bursty: true, rate: 200, burst: 200, ..PLAIN });
    alone(&Run { pipelined: 16, bursty: true, rate: 200, burst: 200, ..PLAIN });
}

#[test]
fn every_key_gets_its_rate() {
    alone(&Run { keys: 2, rate: 300, burst: 100, ..PLAIN });
    alone(&Run { keys: 100, rate: 4, burst: 4, ..PLAIN });
}

#[test]
fn a_reload_refills_no_bucket() {
    let run = Run { rate: 500, burst: 500, time: Duration::from_millis(2500), ..PLAIN };
    let gateway = Gateway::start(&config(&run, "500/s"));
    exact(&gateway, &run, || {
        for _ in 0..4 {
            // The same rate, written otherwise; and the same text.
            assert!(gateway.reload(&config(&run, "1000/2s")));
            assert!(gateway.reload(&config(&run, "500/s")));
        }
    });
}

/// A worker that is started in another's place knows nothing of what its keys have used: they get
/// their rate, and no second burst.
#[test]
fn a_worker_that_ends_refills_no_bucket() {
    let run = Run { rate: 100, burst: 1000, workers: 2, ..PLAIN };
    let toml = config(&run, "100/s") + "[[routes]]\npath = \"/fatal\"\nrespond = {}\n";
    let env = vec![("RINGWAY_DRILL_WORKER_PANIC_PATH", "/fatal".to_owned())];
    let gateway = Launch { toml, env, ..Launch::default() }.start().unwrap();
    let begun = Instant::now();
    let ask = |key: u32| {
        let mut client = gateway.client();
        let request = format!("GET / HTTP/1.1\r\nHost: gw.test\r\nX-Key: {key}\r\n\r\n");
        let is_sent = client.try_send(request);
        is_sent && client.try_response("GET").is_ok_and(|response| response.status == 200)
    };
    // Keys of both workers, used up.
    let keys = 0..4;
    let used = keys.clone().map(|key| (0..1100).filter(|_| ask(key)).count()).collect::<Vec<_>>();
    assert!(used.iter().all(|used| *used >= 1000), "{used:?}");
    for _ in 0..3 {
        let before = gateway.log().matches("serves again").count();
        let mut client = gateway.client();
        client.try_send("GET /fatal HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        eventually("the worker serves again", || {
            gateway.log().matches("serves again").count() > before
        });
    }
    for key in keys {
        let passed = (0..300).filter(|_| ask(key)).count();
        let may = 100.0 * begun.elapsed().as_secs_f64();
        let all = passed + used[key as usize];
        assert!((all as f64) < 1001.0 + may, "{all} of {may}");
    }
}

/// While the worker that holds a bucket stands still, others decide by their share, soon.
#[test]
fn a_worker_that_stands_still_holds_nobody_up() {
    let run = Run { workers: 2, rate: 1000, burst: 1000, ..PLAIN };
    let toml = config(&run, "1000/s") + "[[routes]]\npath = \"/stall\"\nrespond = {}\n";
    let env = vec![("RINGWAY_DRILL_STALL_PATH", "/stall/".to_owned())];
    let gateway = Launch { toml, env, ..Launch::default() }.start().unwrap();
    let mut clients: Vec<_> = (0..16).map(|_| gateway.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    let stalled = thread::spawn({
        let mut client = gateway.client();
        move || client.get("/stall/3000").status
    });
    thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    // Those of the worker that goes on, whatever the home of their key.
    let mut soon = 0;
    for (n, client) in clients.iter_mut().enumerate() {
        let request = format!("GET / HTTP/1.1\r\nHost: gw.test\r\nX-Key: {n}\r\n\r\n");
        client.send(request);
    }
    for client in clients {
        let mut client = client.patience(
            Duration::from_millis(1500)
                .saturating_sub(begun.elapsed())
                .max(Duration::from_millis(1)),
        );
        soon += usize::from(client.try_response("GET").is_ok_and(|answer| answer.status == 200));
    }
    assert!(soon > 0, "some worker goes on");
    let metrics = gateway.admin().get("/metrics").text();
    let name = "ringway_rate_limit_alone_total{limit=\"exact\"} ";
    let decided = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    assert!(decided.parse::<u64>().unwrap() > 0, "{decided} were decided without the home");
    assert_eq!(stalled.join().unwrap(), 200);
}
