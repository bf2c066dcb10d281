//! How many handshakes one address may begin: further ones end before anything is computed, those
//! of other addresses do not.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use socket2::{Domain, Socket as Raw, Type};

use crate::harness::{Client, Gateway, Launch, Papers, eventually};

const ROUTE: &str = "[[routes]]\nrespond = { status = 204 }\n";
const BURST: u64 = 3;
const ALONE: &str = "ringway_tls_handshake_alone_total";

/// One worker, one handshake a second.
fn gateway(papers: &Papers, more: &str) -> Gateway {
    papers.issue("gw", &["gw.test"]);
    let bound = format!(", handshake_rate = 1, handshake_burst = {BURST}");
    let listener = papers.listener(&["gw"], &bound);
    Gateway::start(&format!("{listener}{more}{ROUTE}[runtime]\nworkers = 1\n"))
}

#[track_caller]
fn count(gateway: &Gateway, name: &str) -> u64 {
    gateway.figure(name).unwrap_or_else(|| panic!("no {name}")) as u64
}

fn refused(gateway: &Gateway) -> u64 {
    let name = "ringway_tls_handshake_failures_total{reason=\"rate\"}";
    gateway.figure(name).unwrap_or_default() as u64
}

/// A connection from an address of this machine.
fn from(address: [u8; 4], gateway: &Gateway) -> TcpStream {
    let socket = Raw::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::from(address), 0)).into()).unwrap();
    socket.connect(&gateway.address().into()).unwrap();
    socket.into()
}

/// Whether a request on this connection is answered.
fn is_served(tcp: TcpStream, config: &Arc<ClientConfig>) -> bool {
    let mut client = Client::over_tls(tcp, config);
    client.try_send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    client.try_response("GET").is_ok_and(|response| response.status == 204)
}

#[test]
fn an_address_is_held_back_and_others_are_not() {
    let papers = Papers::new();
    let gateway = gateway(&papers, "");
    let config = Arc::new(papers.trusting(&["gw"]));
    let begun = Instant::now();
    let tries = 20;
    let served = (0..tries).filter(|_| is_served(from([127, 0, 0, 2], &gateway), &config)).count();
    let allowed = BURST + 1 + begun.elapsed().as_secs();
    assert!((BURST..=allowed).contains(&(served as u64)), "{served} of {allowed}");
    eventually("each other one is counted", || refused(&gateway) == tries - served as u64);
    assert!(is_served(from([127, 0, 0, 3], &gateway), &config));
    let made = ["full", "resumed"]
        .map(|kind| format!("ringway_tls_handshakes_total{{kind=\"{kind}\"}}"))
        .map(|name| count(&gateway, &name));
    assert_eq!(made[0] + made[1], served as u64 + 1);
    // It comes back by itself.
    eventually("it may begin again", || is_served(from([127, 0, 0, 2], &gateway), &config));
}

#[test]
fn the_address_is_the_clients_behind_a_proxy() {
    let papers = Papers::new();
    let proxies = "proxy_protocol = \"required\"\n\
                   [forwarding]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let gateway = gateway(&papers, proxies);
    let config = Arc::new(papers.trusting(&["gw"]));
    let through = |client: &str| {
        let mut tcp = TcpStream::connect(gateway.address()).unwrap();
        write!(tcp, "PROXY TCP4 {client} 198.51.100.1 56324 443\r\n").unwrap();
        is_served(tcp, &config)
    };
    // All of them come from one peer.
    for n in 1..20 {
        assert!(through(&format!("192.0.2.{n}")), "{n}");
    }
    let begun = Instant::now();
    let served = (0..20).filter(|_| through("192.0.2.200")).count() as u64;
    assert!(served <= BURST + 1 + begun.elapsed().as_secs(), "{served}");
    eventually("they are counted", || refused(&gateway) == 20 - served);
}

/// From so many threads at once, for so long, each connection its own socket: the kernel spreads
/// them over all workers. Answers how many were served, and when the bucket was empty first and
/// last.
fn storm(gateway: &Gateway, config: &Arc<ClientConfig>, time: Duration) -> (u64, Duration) {
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (address, config) = (gateway.address(), config.clone());
            thread::spawn(move || {
                let (until, mut served) = (Instant::now() + time, 0);
                let (mut first, mut last) = (None, None);
                while Instant::now() < until {
                    let sent = Instant::now();
                    match is_served(TcpStream::connect(address).unwrap(), &config) {
                        true => served += 1,
                        false => {
                            first = first.or(Some(Instant::now()));
                            last = Some(sent);
                        }
                    }
                }
                (served, first, last)
            })
        })
        .collect();
    let all: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let first = all.iter().filter_map(|(_, first, _)| *first).min().expect("one is refused");
    let last = all.iter().filter_map(|(_, _, last)| *last).max().expect("one is refused");
    (all.iter().map(|(served, ..)| served).sum(), last.saturating_duration_since(first))
}

/// Whichever workers its connections come to.
#[test]
fn an_address_gets_its_rate_exactly() {
    const RATE: f64 = 40.0;
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    let listener = papers.listener(&["gw"], ", handshake_rate = 40, handshake_burst = 20");
    let config = Arc::new(papers.trusting(&["gw"]));
    for workers in [1, 2, 4] {
        let toml = format!("{listener}{ROUTE}[runtime]\nworkers = {workers}\n");
        let gateway = Gateway::start(&toml);
        let begun = Instant::now();
        let (served, empty) = storm(&gateway, &config, Duration::from_secs(2));
        let most = 20.0 + RATE * begun.elapsed().as_secs_f64();
        let least = 20.0 + (RATE * empty.as_secs_f64()).floor();
        eprintln!("{workers} workers: {served} served of {least} to {most:.1}");
        assert!(served as f64 <= most + 1.0, "{served} of {most}, {workers} workers");
        assert!(served as f64 >= least - 1.0, "{served} of {least}, {workers} workers");
        let waits = count(&gateway, "ringway_tls_handshake_waits_total");
        assert_eq!(waits > 0, workers > 1, "{waits} waited, {workers} workers");
        assert_eq!(count(&gateway, ALONE), 0);
    }
}

/// While the worker that counts an address stands still, others decide by their share, soon.
#[test]
fn a_worker_that_stands_still_holds_no_handshake_up() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    let listener = papers.listener(&["gw"], ", handshake_rate = 1000, handshake_burst = 1000");
    let toml = format!("{listener}{ROUTE}[runtime]\nworkers = 2\n");
    let env = vec![("RINGWAY_DRILL_STALL_PATH", "/stall/".to_owned())];
    let gateway = Launch { toml, env, ..Launch::default() }.start().unwrap();
    let config = Arc::new(papers.trusting(&["gw"]));
    let mut stalling = Client::over_tls(TcpStream::connect(gateway.address()).unwrap(), &config);
    stalling.send("GET /stall/4000 HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    thread::sleep(Duration::from_millis(200));
    let tries: Vec<_> = (2..34)
        .map(|n| {
            let (tcp, config) = (from([127, 0, 0, n], &gateway), config.clone());
            let begun = Instant::now();
            thread::spawn(move || is_served(tcp, &config).then(|| begun.elapsed()))
        })
        .collect();
    // Those that the worker has accepted that stands still are served when it goes on.
    let took: Vec<_> = tries.into_iter().map(|one| one.join().unwrap().unwrap()).collect();
    let soon = took.iter().filter(|took| **took < Duration::from_secs(2)).count();
    assert!(soon > 0, "some worker goes on: {took:?}");
    let alone = count(&gateway, ALONE);
    assert!(alone > 0, "{alone} were decided without the home");
    assert_eq!(stalling.response().status, 204);
}

#[test]
fn a_reload_refills_no_bucket() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    let with = |rate: &str| {
        let listener = papers.listener(&["gw"], rate);
        format!("{listener}{ROUTE}[runtime]\nworkers = 2\n")
    };
    let gateway = Gateway::start(&with(", handshake_rate = 1, handshake_burst = 20"));
    let config = Arc::new(papers.trusting(&["gw"]));
    let begun = Instant::now();
    let tries = |count: u32| {
        let served = (0..count).filter(|_| is_served(from([127, 0, 0, 2], &gateway), &config));
        served.count() as u64
    };
    let served = tries(40);
    assert!((20..=21 + begun.elapsed().as_secs()).contains(&served), "{served}");
    assert!(gateway.reload(&with(", handshake_rate = 2, handshake_burst = 40")));
    let more = served + tries(40);
    assert!(more <= 21 + 2 * begun.elapsed().as_secs(), "{more}");
}

#[test]
fn a_burst_without_a_rate_is_explained() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    let toml = format!("{}{ROUTE}", papers.listener(&["gw"], ", handshake_burst = 5"));
    let failed = Launch { toml, ..Launch::default() }.start().err().expect("it does not start");
    let wanted = "`handshake_burst` has no effect without `handshake_rate`";
    assert!(failed.stderr.contains(wanted), "{}", failed.stderr);
}
