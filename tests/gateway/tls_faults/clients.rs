//! Clients that go wrong, at a listener that speaks TLS.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};

use super::*;
use crate::harness::{Papers, Server, Upstream};

/// A request without and one with a body, which comes in two parts. Each is a record.
const LINES: [&[u8]; 4] = [
    b"GET /first HTTP/1.1\r\nHost: gw.test\r\n\r\n",
    b"PUT /second HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 12\r\n\r\n",
    b"hello ",
    b"world\n",
];
/// The end of the answer to the second.
const LAST: &[u8] = b"PUT /second";

/// The same over HTTP/2: what a client begins with, GET and PUT `/`, and the body's two parts.
const FRAMES: [&[u8]; 4] = [
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    b"\0\0\x0c\x01\x05\0\0\0\x01\x82\x87\x84\x41\x07gw.test",
    b"\0\0\x10\x01\x04\0\0\0\x03\x42\x03PUT\x87\x84\x41\x07gw.test\0\0\x06\0\0\0\0\0\x03hello ",
    b"\0\0\x06\0\x01\0\0\0\x03world\n",
];
/// The answer to the second.
const LAST_FRAME: &[u8] = b"PUT /";

/// Who comes, how, and what the gateway wants of them.
struct Way<'w> {
    version: &'static SupportedProtocolVersion,
    /// The client shows a certificate, which the listener demands.
    is_mutual: bool,
    is_http2: bool,
    papers: &'w Papers,
}

impl Way<'_> {
    /// What a client says, and what it hears last.
    fn lines(&self) -> (&'static [&'static [u8]], &'static [u8]) {
        if self.is_http2 { (&FRAMES, LAST_FRAME) } else { (&LINES, LAST) }
    }

    fn gateway(&self, upstream: SocketAddr) -> Gateway {
        self.papers.issue("gw", &["gw.test"]).issue("client", &["client.test"]);
        let mut more = format!(", handshake_timeout = \"{DEADLINE}\"");
        if self.is_mutual {
            let ca = self.papers.path("client.pem");
            more += &format!(", client_ca = \"{}\"", ca.display());
        }
        let toml = format!(
            "{}[[listeners]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n\
             [timeouts]\nhead = \"{DEADLINE}\"\nbody = \"{DEADLINE}\"\nwrite = \"{DEADLINE}\"\n\
             keep_alive = \"{DEADLINE}\"\nlinger = \"100ms\"\npark = \"50ms\"\n",
            self.papers.listener(&["gw"], &more)
        );
        Gateway::before(upstream, &toml)
    }

    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.papers.certificate("gw")).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(short()))
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.is_mutual {
            false => builder.with_no_client_auth(),
            true => {
                let key = PrivateKeyDer::from_pem_file(self.papers.path("client.key")).unwrap();
                let chain = vec![self.papers.certificate("client")];
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.resumption = Resumption::disabled();
        if self.is_http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        config
    }
}

fn peer(gateway: &Gateway, config: &Arc<ClientConfig>, case: Case) -> Peer {
    let name = ServerName::try_from("gw.test").unwrap();
    let session = ClientConnection::new(config.clone(), name).unwrap();
    Peer::new(session.into(), TcpStream::connect(gateway.address_of("main")).unwrap(), case)
}

/// Handshakes that the listener has counted, whatever came of them.
fn judged(gateway: &Gateway) -> u64 {
    sum(gateway, "ringway_tls_handshakes_total{")
        + sum(gateway, "ringway_tls_handshake_failures_total{")
}

fn accepted(gateway: &Gateway) -> u64 {
    let name = "ringway_listener_connections_total{listener=\"main\"}";
    gateway.figure(name).expect("the metric") as u64
}

/// Lets clients of this kind go wrong at every byte.
fn torture(way: &Way<'_>) {
    let upstream = Upstream::ok();
    let gateway = way.gateway(upstream.address());
    let config = Arc::new(way.config());
    let (lines, last) = way.lines();
    let mut bytes = 0;
    eventually("a sound client is served", || {
        let mut sound = peer(&gateway, &config, Case::NONE);
        let ended = sound.play(b"", b"", lines, last);
        bytes = sound.sent;
        ended == Ended::Closed && sound.plaintext.windows(last.len()).any(|part| part == last)
    });
    other(&gateway);
    let kept = || upstream.open();
    let before = Before::of(&gateway, &kept);
    let cases = Case::all(bytes);
    let (refused, wrong) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let one = |case: Case| {
        let mut peer = peer(&gateway, &config, case);
        let ended = peer.play(b"", b"", lines, last);
        refused.fetch_add(peer.is_refused.into(), Ordering::SeqCst);
        let is_answer = way.is_http2 || answers(&peer.plaintext);
        if ended == Ended::Open || !is_answer {
            let text = String::from_utf8_lossy(&peer.plaintext).into_owned();
            wrong.lock().unwrap().push((case, ended, text));
        }
    };
    for_each(&cases, one, || other(&gateway));
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "of {bytes} bytes, {} of {}: {wrong:?}", wrong.len(), cases.len());
    before.is_so_again();
    assert_eq!(judged(&gateway), accepted(&gateway), "each handshake is counted");
    assert!(accepted(&gateway) > cases.len() as u64);
    for request in upstream.requests() {
        // What is damaged never gets inside, and what is cut is no request.
        match request.target.as_str() {
            "/first" | "/other" => assert!(request.body.is_empty()),
            "/" if request.method == "GET" => assert!(request.body.is_empty()),
            "/" | "/second" => assert_eq!(request.body, b"hello world\n"),
            _ => panic!("{request:?}"),
        }
    }
    let refused = refused.into_inner();
    assert!(refused > 0, "records are damaged after handshakes too");
    // A record that arrives together with the end of the handshake may be taken for a part of it.
    let counted = || {
        let broken = sum(&gateway, "ringway_tls_broken_total{side=\"client\",reason=\"invalid\"}");
        let early = sum(&gateway, "ringway_tls_handshake_failures_total{reason=\"invalid\"}");
        (broken, early)
    };
    let (broken, early) = counted();
    assert!(broken > 0 && broken + early >= refused, "{broken} + {early} of {refused}");
}

/// Nothing, or responses one after the other of which the last may be cut.
fn answers(plaintext: &[u8]) -> bool {
    let text = String::from_utf8_lossy(plaintext);
    let lines = text.lines().filter(|line| line.starts_with("HTTP/1.1 "));
    let statuses: Vec<_> = lines.map(|line| line.get(9..12).unwrap_or("")).collect();
    let begins = plaintext.is_empty() || text.starts_with("HTTP/1.1 ");
    begins && statuses.iter().all(|status| ["200", "408"].contains(status))
}

#[test]
fn clients_that_go_wrong_at_any_byte_in_1_3() {
    torture(&Way { version: &TLS13, is_mutual: false, is_http2: false, papers: &Papers::new() });
}

#[test]
fn clients_that_go_wrong_at_any_byte_in_1_2() {
    torture(&Way { version: &TLS12, is_mutual: false, is_http2: false, papers: &Papers::new() });
}

#[test]
fn clients_with_certificates_that_go_wrong_at_any_byte() {
    torture(&Way { version: &TLS13, is_mutual: true, is_http2: false, papers: &Papers::new() });
}

#[test]
fn clients_of_http2_that_go_wrong_at_any_byte() {
    torture(&Way { version: &TLS13, is_mutual: false, is_http2: true, papers: &Papers::new() });
}

#[test]
fn clients_that_do_not_read_and_go_wrong() {
    let (server, papers) = (Server::start(), Papers::new());
    for version in [&TLS13, &TLS12] {
        let way = Way { version, is_mutual: false, is_http2: false, papers: &papers };
        let gateway = way.gateway(server.address());
        let config = Arc::new(way.config());
        other(&gateway);
        // What is kept to the server has no client and stays.
        let before = Before::of(&gateway, &|| 4);
        let line = format!("GET /bytes/{LARGE} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        let cases = TAKEN.into_iter().flat_map(|taken| FAULTS.map(|fault| (taken, fault)));
        let one = |(taken, fault)| {
            let mut peer = peer(&gateway, &config, Case { fault, ..Case::NONE });
            peer.stick(b"", line.as_bytes(), taken);
            peer
        };
        let stuck: Vec<Peer> = std::thread::scope(|scope| {
            let one = &one;
            let played: Vec<_> = cases.map(|case| scope.spawn(move || one(case))).collect();
            other(&gateway);
            played.into_iter().map(|peer| peer.join().unwrap()).collect()
        });
        // All are held, and none is read from.
        before.is_so_again();
        drop(stuck);
    }
}
