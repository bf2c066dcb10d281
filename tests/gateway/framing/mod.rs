//! Framing: nothing ambiguous gets through, in either direction.
//!
//! The tables ([`requests`], [`legal`], [`responses`]) are data; this module sends them over real
//! sockets and checks what each side sees. After every case a fresh client must be served.

mod legal;
mod outcome;
mod requests;
mod responses;

use std::{
    net::{Shutdown, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::harness::{Client, Gateway, ReadError, Received, Upstream, eventually, replay};
use requests::Case;
use responses::Seen;

fn gateway(upstream: SocketAddr) -> Gateway {
    Gateway::start(&format!(
        r#"
[limits]
head = "{}B"
target = "{}B"
fields = {}
body = "{}B"

[timeouts]
head = "30s"
body = "30s"

[forwarding]
fields = "off"
via = ""
request_id = "off"

[[routes]]
path = "/admin"
respond = {{ status = 403, body = "denied", content_type = "text/plain" }}

[[routes]]
path = "/"
upstream = "app"
upgrade = true

[upstreams.app]
endpoints = ["{upstream}"]
"#,
        requests::HEAD_BYTES_MAX,
        requests::TARGET_BYTES_MAX,
        requests::FIELDS_MAX,
        requests::BODY_BYTES_MAX,
    ))
}

/// How long a case may take; a gateway that waits for more is wrong. Shorter than the harness's
/// patience because a broken gateway may have hundreds of such cases.
const SOON: Duration = Duration::from_secs(3);

/// Cases that may go wrong before a bench gives up.
const FAULTS_MAX: usize = 15;

/// How the bytes of a case arrive.
#[derive(Clone, Copy, Debug)]
enum Delivery {
    Whole,
    /// In one piece with a good request before it.
    Behind,
    /// In two pieces, cut at this byte.
    Cut(usize),
}

/// A gateway, an upstream, and everything that went wrong with the cases run through them.
struct Bench {
    upstream: Upstream,
    gateway: Gateway,
    served: usize,
    faults: Vec<String>,
}

impl Bench {
    fn new() -> Bench {
        let upstream = Upstream::ok();
        let gateway = gateway(upstream.address());
        Bench { upstream, gateway, served: 0, faults: Vec::new() }
    }

    fn run(&mut self, case: &Case, delivery: Delivery) {
        if self.faults.len() >= FAULTS_MAX {
            return;
        }
        let marks = self.upstream.marks();
        let mut expected = Vec::new();
        let mut fault = self.attempt(case, delivery, &mut expected).err();
        // The next client must not notice.
        let path = self.good_path();
        let response = self.gateway.client().get(&path);
        let got = (response.status, response.text());
        assert_eq!(got, (200, format!("GET {path}")), "after {}", case.name);
        expected.push(path);
        let tapes = self.upstream.since(&marks);
        fault = fault.or_else(|| leaked(&tapes, &expected, case.outcome.may_begin));
        if let Some(fault) = fault {
            let Case { name, source, .. } = case;
            self.faults.push(format!("{name} ({source}) {delivery:?}: {fault}"));
        }
    }

    fn good_path(&mut self) -> String {
        self.served += 1;
        format!("{GOOD}{}", self.served)
    }

    fn attempt(
        &mut self,
        case: &Case,
        delivery: Delivery,
        expected: &mut Vec<String>,
    ) -> Result<(), String> {
        let mut client = self.gateway.client().patience(SOON);
        match delivery {
            Delivery::Whole => {
                client.try_send(&case.bytes);
            }
            Delivery::Behind => {
                let path = self.good_path();
                let good = format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
                client.try_send([good.as_bytes(), &case.bytes].concat());
                let response = client.try_response("GET").map_err(|e| format!("good: {e:?}"))?;
                if response.text() != format!("GET {path}") {
                    return Err(format!("the good request before it got {}", response.status));
                }
                expected.push(path);
            }
            Delivery::Cut(at) => {
                client.try_send(&case.bytes[..at]);
                // Not needed for the result: it only makes two reads of it more likely.
                std::thread::sleep(Duration::from_micros(500));
                client.try_send(&case.bytes[at..]);
            }
        }
        if case.outcome.cut_short {
            client.finish_sending();
        }
        answered(&mut client, case)
    }

    /// Every complete request the upstream saw was one of the good ones.
    #[track_caller]
    fn finish(self) {
        let strays: Vec<String> = (self.upstream.requests().into_iter())
            .filter(|r| !r.target.starts_with(GOOD))
            .map(|r| r.head.start_line)
            .collect();
        let n = self.faults.len();
        assert!(n == 0, "{n} cases went wrong:\n{}", self.faults.join("\n"));
        assert!(strays.is_empty(), "reached the upstream: {strays:?}");
    }
}

const GOOD: &str = "/served/";

/// Says what reached the upstream besides the good requests: anything at all, or (where a fault
/// lies in the body) a complete request.
fn leaked(tapes: &[Vec<u8>], expected: &[String], may_begin: bool) -> Option<String> {
    let complete: Vec<_> = tapes.iter().flat_map(|tape| replay(tape)).collect();
    let mut targets: Vec<&str> = complete.iter().map(|r| r.target.as_str()).collect();
    targets.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    let bytes: usize = tapes.iter().map(Vec::len).sum();
    let heads: usize = complete.iter().map(|r| r.head.raw.len()).sum();
    let clean = targets == expected && (may_begin || bytes == heads);
    let text = || tapes.iter().map(|t| t.escape_ascii().to_string()).collect::<Vec<_>>();
    (!clean).then(|| format!("reached the upstream: {:?}", text()))
}

fn answered(client: &mut Client, case: &Case) -> Result<(), String> {
    let outcome = case.outcome;
    let method = if case.bytes.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
    match client.try_response(method) {
        Ok(response) => {
            if let Some(fault) = outcome.fault(&response, method) {
                return Err(fault);
            }
        }
        Err(ReadError::Closed | ReadError::Reset) if outcome.cut_short => return Ok(()),
        Err(e) => return Err(format!("no response: {e:?}")),
    }
    if outcome.closes && !client.is_closed() {
        return Err("the connection stayed open".into());
    }
    Ok(())
}

/// Spreads cases over a few benches so that the machine's cores are used.
fn on_benches(cases: &[(Case, Vec<Delivery>)]) {
    let share = cases.len().div_ceil(3);
    std::thread::scope(|scope| {
        for cases in cases.chunks(share) {
            scope.spawn(move || {
                let mut bench = Bench::new();
                for (case, deliveries) in cases {
                    deliveries.iter().for_each(|delivery| bench.run(case, *delivery));
                }
                bench.finish();
            });
        }
    });
}

#[test]
fn the_table_is_large_and_its_names_are_unique() {
    let cases = requests::all();
    assert!(cases.len() >= 300, "{} hostile requests", cases.len());
    let mut names: Vec<&str> = cases.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|w| w[0] == w[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(cases.iter().all(|c| c.source.starts_with("RFC ")));
    let responses = responses::all();
    assert!(responses.len() >= 60, "{} hostile responses", responses.len());
    println!(
        "{} hostile requests, {} legal ones, {} hostile responses",
        cases.len(),
        legal::all().len(),
        responses.len()
    );
}

#[test]
fn hostile_requests_are_refused() {
    let cases: Vec<_> = (requests::all().into_iter())
        .map(|case| (case, vec![Delivery::Whole, Delivery::Behind]))
        .collect();
    on_benches(&cases);
}

#[test]
fn hostile_requests_are_refused_wherever_they_are_cut() {
    let cases: Vec<_> = (requests::all().into_iter().enumerate())
        .map(|(i, case)| {
            let cuts = cuts(case.bytes.len(), i);
            (case, cuts)
        })
        .collect();
    on_benches(&cases);
}

/// A few places to cut, different from case to case: over the table every place comes up.
fn cuts(len: usize, seed: usize) -> Vec<Delivery> {
    let mut at: Vec<usize> =
        (0..4).map(|k| 1 + (seed * 7 + k * (len / 4 + 1)) % len.saturating_sub(1).max(1)).collect();
    at.push(len - 1);
    at.retain(|at| (1..len).contains(at));
    at.sort_unstable();
    at.dedup();
    at.into_iter().map(Delivery::Cut).collect()
}

#[test]
fn one_byte_at_a_time_changes_nothing() {
    let mut bench = Bench::new();
    let small = |case: &Case| case.bytes.len() < 200;
    for case in requests::all().into_iter().filter(small).step_by(7) {
        let mut client = bench.gateway.client().patience(SOON);
        for byte in &case.bytes {
            if !client.try_send([*byte]) {
                break;
            }
        }
        if case.outcome.cut_short {
            client.finish_sending();
        }
        if let Err(fault) = answered(&mut client, &case) {
            bench.faults.push(format!("{}: {fault}", case.name));
        }
    }
    bench.finish();
}

#[test]
fn legal_requests_arrive_as_they_must() {
    let cases = legal::all();
    let upstream = Upstream::ok();
    let gateway = gateway(upstream.address());
    let mut faults = Vec::new();
    for case in &cases {
        let marks = upstream.marks();
        let mut client = gateway.client().patience(SOON);
        client.send(&case.bytes);
        let response = client.try_response("GET");
        let status = response.as_ref().map(|r| r.status).map_err(Clone::clone);
        let sees: Vec<Received> = upstream.since(&marks).iter().flat_map(|t| replay(t)).collect();
        if status != Ok(200) || sees.len() != 1 {
            let text = response.map(|r| r.text());
            faults.push(format!(
                "{} ({}): {status:?} {text:?}, upstream saw {sees:?}",
                case.name, case.source
            ));
            continue;
        }
        if let Some(fault) = differs(case, &sees[0]) {
            faults.push(format!("{} ({}): {fault}", case.name, case.source));
        }
    }
    let n = faults.len();
    assert!(n == 0, "{n} of {} went wrong:\n{}", cases.len(), faults.join("\n"));
}

fn differs(case: &legal::Legal, sees: &Received) -> Option<String> {
    let lower = |fields: &[(String, String)]| {
        let line = |(n, v): &(String, String)| {
            let n = n.to_ascii_lowercase();
            let v = if ["connection", "trailer", "te"].contains(&n.as_str()) {
                v.to_ascii_lowercase()
            } else {
                v.clone()
            };
            format!("{n}: {v}")
        };
        let mut lines: Vec<String> = fields.iter().map(line).collect();
        lines.sort();
        lines
    };
    let sorted = |lines: &[&str]| {
        let mut lines: Vec<String> = lines.iter().map(|l| l.to_string()).collect();
        lines.sort();
        lines
    };
    if sees.head.start_line != case.start_line {
        return Some(format!("start line {:?}, not {:?}", sees.head.start_line, case.start_line));
    }
    let fields = lower(&sees.head.fields);
    if !case.fields.is_empty() && fields != sorted(case.fields) {
        return Some(format!("fields {fields:?}, not {:?}", sorted(case.fields)));
    }
    if sees.body != case.body.as_bytes() {
        return Some(format!("body {:?}", String::from_utf8_lossy(&sees.body)));
    }
    let trailers = lower(&sees.trailers);
    (trailers != sorted(case.trailers)).then(|| format!("trailers {trailers:?}"))
}

/// Sends hostile responses to requests for `/bad/N`, and serves all others.
fn hostile_upstream(released: Arc<Mutex<Vec<usize>>>) -> Upstream {
    let cases = responses::all();
    Upstream::scripted(move |conn| {
        while let Ok(request) = conn.request() {
            let Some(n) = request.target.strip_prefix("/bad/") else {
                conn.answer(&request);
                continue;
            };
            let n: usize = n.parse().unwrap();
            conn.send(&cases[n].bytes);
            if cases[n].closes {
                conn.shutdown(Shutdown::Write);
            }
            conn.until_closed();
            released.lock().unwrap().push(n);
            return;
        }
    })
}

#[test]
fn hostile_responses_are_not_relayed() {
    let released = Arc::new(Mutex::new(Vec::new()));
    let upstream = hostile_upstream(released.clone());
    let gateway = gateway(upstream.address());
    let mut faults = Vec::new();
    for (n, case) in responses::all().iter().enumerate() {
        let mut client = gateway.client().patience(SOON);
        client.send(format!("{} /bad/{n} HTTP/1.1\r\nHost: gw.test\r\n\r\n", case.method));
        if let Some(fault) = misseen(&mut client, case) {
            faults.push(format!("{} ({}): {fault}", case.name, case.source));
        }
        let given_up = || released.lock().unwrap().contains(&n);
        eventually(&format!("the upstream's connection is given up: {}", case.name), given_up);
        let path = format!("{GOOD}{n}");
        let response = gateway.client().get(&path);
        let got = (response.status, response.text());
        assert_eq!(got, (200, format!("GET {path}")), "after {}", case.name);
    }
    let n = faults.len();
    assert!(n == 0, "{n} cases went wrong:\n{}", faults.join("\n"));
    // A connection that closes without a byte may have died idle: that alone is tried again.
    let silent = |n: &str| responses::all()[n.parse::<usize>().unwrap()].bytes.is_empty();
    let mut asked: Vec<String> = upstream.requests().into_iter().map(|r| r.target).collect();
    asked.retain(|t| t.strip_prefix("/bad/").is_some_and(|n| !silent(n)));
    asked.sort_unstable();
    let count = asked.len();
    asked.dedup();
    assert_eq!(asked.len(), count, "every bad response is asked for once");
}

/// Says how what the client saw differs from what it must see.
fn misseen(client: &mut Client, case: &responses::Case) -> Option<String> {
    let mut response = client.try_response(case.method);
    // Interim responses may be passed on before the fault shows.
    while matches!(&response, Ok(r) if (102..200).contains(&r.status) || r.status == 100) {
        response = client.try_response(case.method);
    }
    match (case.seen, response) {
        (Seen::Bad(_) | Seen::Broken, Ok(r)) if r.status == 502 && case.method == "HEAD" => None,
        (Seen::Bad(reasons), Ok(r)) if r.status == 502 => {
            let reason = r.reason();
            let fine = reasons.split('|').any(|one| one == reason);
            (!fine).then(|| format!("reason {reason}, not {reasons}"))
        }
        (Seen::Broken, Ok(r)) if r.status == 502 => None,
        (Seen::Broken, Err(ReadError::Cut)) => None,
        (Seen::Fine(status, body), Ok(r)) if r.status == status && r.text() == body => None,
        (seen, Ok(r)) => Some(format!("{} {:?}, not {seen:?}", r.status, r.text())),
        (seen, Err(e)) => Some(format!("{e:?}, not {seen:?}")),
    }
}
