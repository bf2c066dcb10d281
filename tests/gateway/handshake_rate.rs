//! How many handshakes one address may begin: further ones end before anything is computed, those
//! of other addresses do not.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Instant,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use socket2::{Domain, Socket as Raw, Type};

use crate::harness::{Client, Gateway, Launch, Papers, Socket, eventually};

const ROUTE: &str = "[[routes]]\nrespond = { status = 204 }\n";
const BURST: u64 = 3;

/// One worker, one handshake a second.
fn gateway(papers: &Papers, more: &str) -> Gateway {
    papers.issue("gw", &["gw.test"]);
    let bound = format!(", handshake_rate = 1, handshake_burst = {BURST}");
    let listener = papers.listener(&["gw"], &bound);
    Gateway::start(&format!("{listener}{more}{ROUTE}[runtime]\nworkers = 1\n"))
}

fn figure(gateway: &Gateway, name: &str) -> u64 {
    let text = gateway.admin().get("/metrics").text();
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |value| value.parse().unwrap())
}

fn refused(gateway: &Gateway) -> u64 {
    figure(gateway, "ringway_tls_handshake_failures_total{reason=\"rate\"} ")
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
    let name = ServerName::try_from("gw.test").unwrap();
    let session = ClientConnection::new(config.clone(), name).unwrap();
    let mut client = Client::over(Socket::Tls(Box::new(StreamOwned::new(session, tcp))));
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
        .map(|kind| format!("ringway_tls_handshakes_total{{kind=\"{kind}\"}} "))
        .map(|name| figure(&gateway, &name));
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

#[test]
fn a_burst_without_a_rate_is_explained() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    let toml = format!("{}{ROUTE}", papers.listener(&["gw"], ", handshake_burst = 5"));
    let failed = Launch { toml, ..Launch::default() }.start().err().expect("it does not start");
    let wanted = "`handshake_burst` has no effect without `handshake_rate`";
    assert!(failed.stderr.contains(wanted), "{}", failed.stderr);
}
