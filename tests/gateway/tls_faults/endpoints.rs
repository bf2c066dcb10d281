//! Endpoints that go wrong, at a gateway that speaks TLS to them.
//!
//! Each connection that the gateway opens gets the next case. A response is whole or refused for a
//! reason that is counted; one that breaks off is never taken for whole.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{
    HandshakeKind, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
    crypto::aws_lc_rs::Ticketer,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::{ProducesTickets, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};

use super::*;
use crate::harness::{Papers, ReadError, Upstream};

/// A response in two records, and its end.
const LINES: [&[u8]; 2] =
    [b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\nhello ", b"world\n"];

const HANDSHAKE_FAILURES: &str = "ringway_tls_upstream_handshake_failures_total{";

/// The same over HTTP/2: SETTINGS and an acknowledgement, HEADERS and DATA, and its end.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
const FRAMES: [&[u8]; 2] = [
    b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x06\0\0\0\0\0\x01hello ",
    b"\0\0\x06\0\x01\0\0\0\x01world\n",
];
/// HEADERS of a request without body, the first of its connection.
const REQUEST: &[u8] = b"\x01\x05\0\0\0\x01";

/// Tickets that nobody can use: every handshake is a full one, with tickets all the same.
#[derive(Debug)]
struct Forgotten;

impl ProducesTickets for Forgotten {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        3600
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(vec![7; 48])
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

struct Way<'w> {
    version: &'static SupportedProtocolVersion,
    resumes: bool,
    /// The endpoint demands a certificate.
    is_mutual: bool,
    is_http2: bool,
    papers: &'w Papers,
}

impl Way<'_> {
    fn config(&self) -> ServerConfig {
        self.papers.issue("app", &["app.test"]).issue("own", &["gw.test"]);
        let key = PrivateKeyDer::from_pem_file(self.papers.path("app.key")).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(short()))
            .with_protocol_versions(&[self.version])
            .unwrap();
        let builder = match self.is_mutual {
            false => builder.with_no_client_auth(),
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(self.papers.certificate("own")).unwrap();
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = vec![self.papers.certificate("app")];
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.ticketer = match self.resumes {
            true => Ticketer::new().unwrap(),
            false => Arc::new(Forgotten),
        };
        if self.is_http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        config
    }

    /// Everything to `endpoint` but what is for others.
    fn gateway(&self, endpoint: SocketAddr, upstream: &Upstream) -> Gateway {
        let path = |file: &str| self.papers.path(file).display().to_string();
        let own = match self.is_mutual {
            true => format!(
                ", certificate = {{ file = \"{}\", key = \"{}\" }}",
                path("own.pem"),
                path("own.key")
            ),
            false => String::new(),
        };
        // One request for each connection.
        let protocol = match self.is_http2 {
            true => "protocol = \"h2\"\nhttp2 = { streams = 1, connections = 1000 }\n",
            false => "",
        };
        Gateway::start(&format!(
            "[[listeners]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n\
             [[routes]]\npath = \"/\"\nupstream = \"app\"\ntries = 1\n\
             [[routes]]\npath = \"/other\"\nupstream = \"others\"\n\
             [upstreams.app]\nendpoints = [\"{endpoint}\"]\nconnect_timeout = \"{DEADLINE}\"\n\
             first_byte_timeout = \"{DEADLINE}\"\nidle_timeout = \"{DEADLINE}\"\n\
             tls = {{ ca = \"{}\", name = \"app.test\"{own} }}\n{protocol}\
             [upstreams.others]\nendpoints = [\"{}\"]\n",
            path("app.pem"),
            upstream.address()
        ))
    }
}

/// Plays `cases`, one for each connection, and then peers without fault. What was wrong.
struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cases: Mutex<Vec<Case>>,
    /// What a faultless peer sends.
    bytes: AtomicUsize,
    open: AtomicUsize,
    resumed: AtomicUsize,
    wrong: Mutex<Vec<Case>>,
}

impl Endpoint {
    fn start(config: ServerConfig, is_http2: bool) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (shared, config) = (Arc::new(Shared::default()), Arc::new(config));
        let own = shared.clone();
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (own, config) = (own.clone(), config.clone());
                own.open.fetch_add(1, Ordering::SeqCst);
                // Now: on a busy machine the thread may begin when the gateway has given up.
                let case = own.cases.lock().unwrap().pop().unwrap_or(Case::NONE);
                std::thread::spawn(move || {
                    own.serve(tcp, config, is_http2, case);
                    own.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Endpoint { address, shared }
    }

    fn left(&self) -> usize {
        self.shared.cases.lock().unwrap().len()
    }
}

impl Shared {
    fn serve(&self, tcp: TcpStream, config: Arc<ServerConfig>, is_http2: bool, case: Case) {
        let session = ServerConnection::new(config).unwrap();
        let mut peer = Peer::new(session.into(), tcp, case);
        let ended = match is_http2 {
            false => peer.play(b"", b"\r\n\r\n", &LINES, b""),
            true => peer.play(SETTINGS, REQUEST, &FRAMES, b""),
        };
        if ended == Ended::Open {
            self.wrong.lock().unwrap().push(case);
        }
        if peer.session.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.resumed.fetch_add(1, Ordering::SeqCst);
        }
        self.bytes.store(peer.sent, Ordering::SeqCst);
    }
}

/// What came of a request: the reason of a refusal, or the status; `cut` when it broke off.
fn ask(gateway: &Gateway) -> String {
    let mut client = Client::connect(gateway.address_of("plain")).patience(BOUND);
    client.send("GET /app HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    match client.try_response("GET") {
        Ok(response) if response.status == 200 => {
            assert_eq!(response.text(), "hello world\n");
            "200".to_owned()
        }
        Ok(response) => response.reason(),
        Err(ReadError::Cut | ReadError::Reset | ReadError::Closed) => "cut".to_owned(),
        Err(e) => panic!("{e:?}"),
    }
}

/// Lets endpoints of this kind go wrong at every byte.
fn torture(way: &Way<'_>) {
    let (endpoint, upstream) = (Endpoint::start(way.config(), way.is_http2), Upstream::ok());
    let shared = &*endpoint.shared;
    let gateway = way.gateway(endpoint.address, &upstream);
    // Both workers have their first session, and one to resume.
    for _ in 0..20 {
        eventually("a request is answered", || ask(&gateway) == "200");
    }
    let late = sum(&gateway, "ringway_refusals_total{");
    let late_handshakes = sum(&gateway, HANDSHAKE_FAILURES);
    other(&gateway);
    let kept = || upstream.open() + shared.open.load(Ordering::SeqCst);
    let before = Before::of(&gateway, &kept);
    // Signatures and tickets are longer now and then.
    let cases = Case::all(shared.bytes.load(Ordering::SeqCst));
    shared.cases.lock().unwrap().clone_from(&cases);
    let outcomes = Mutex::new(BTreeMap::<String, u64>::new());
    let ask = |_: Case| {
        let outcome = ask(&gateway);
        *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
    };
    // Requests that wait for one connection of HTTP/2 fail with it, and open none; on a busy
    // machine others may be too late to open theirs.
    for _ in (0..10).take_while(|_| endpoint.left() > 0) {
        let asked = if way.is_http2 { cases.len() } else { endpoint.left() };
        for_each(&cases[..asked], ask, || other(&gateway));
    }
    assert_eq!(endpoint.left(), 0, "each case was played");
    assert_eq!(shared.resumed.load(Ordering::SeqCst) > 0, way.resumes);
    before.is_so_again();
    assert!(shared.wrong.lock().unwrap().is_empty(), "{:?}", shared.wrong.lock().unwrap());
    let mut outcomes = outcomes.into_inner().unwrap();
    let whole = outcomes.remove("200").unwrap_or(0);
    // Of HTTP/2 many requests share a connection, sound or not.
    let asked = whole + outcomes.values().sum::<u64>();
    assert!(whole > 0 && whole < asked / 2, "{whole} {outcomes:?}");
    // Each that was not answered by the endpoint is counted by its reason.
    let cut = outcomes.remove("cut").unwrap_or(0);
    let refusals = || sum(&gateway, "ringway_refusals_total{") - late;
    let wanted = cut + outcomes.values().sum::<u64>();
    eventually("each refusal is counted", || refusals() == wanted);
    for (reason, count) in &outcomes {
        let counted = sum(&gateway, &format!("ringway_refusals_total{{reason=\"{reason}\"}}"));
        assert!(counted >= *count, "{reason}: {counted} of {count}");
    }
    let handshakes = sum(&gateway, HANDSHAKE_FAILURES) - late_handshakes;
    let no_tls = outcomes.get("upstream.tls").unwrap_or(&0)
        + outcomes.get("upstream.connect_timeout").unwrap_or(&0);
    // Requests may wait for one connection of HTTP/2 together.
    let is_each = if way.is_http2 { handshakes > 0 } else { handshakes == no_tls };
    assert!(is_each, "{handshakes} {outcomes:?}");
    assert!(sum(&gateway, "ringway_tls_broken_total{side=\"upstream\",reason=\"invalid\"}") > 0);
    let known = [
        "upstream.tls",
        "upstream.connect_timeout",
        "upstream.first_byte_timeout",
        "upstream.idle_timeout",
        "upstream.closed",
    ];
    // No SETTINGS came, or no connection in time for all who waited.
    let of_http2 = ["upstream.connect", "upstream.busy"];
    let is_known =
        |reason: &str| known.contains(&reason) || way.is_http2 && of_http2.contains(&reason);
    assert!(outcomes.keys().all(|reason| is_known(reason)), "{outcomes:?}");
}

#[test]
fn endpoints_that_go_wrong_at_any_byte_in_1_3() {
    let papers = Papers::new();
    torture(&Way {
        version: &TLS13,
        resumes: false,
        is_mutual: false,
        is_http2: false,
        papers: &papers,
    });
}

#[test]
fn endpoints_that_go_wrong_at_any_byte_in_1_2() {
    let papers = Papers::new();
    torture(&Way {
        version: &TLS12,
        resumes: false,
        is_mutual: false,
        is_http2: false,
        papers: &papers,
    });
}

#[test]
fn endpoints_that_demand_certificates_and_go_wrong_at_any_byte() {
    let papers = Papers::new();
    torture(&Way {
        version: &TLS12,
        resumes: false,
        is_mutual: true,
        is_http2: false,
        papers: &papers,
    });
}

#[test]
fn endpoints_that_resume_and_go_wrong_at_any_byte() {
    let papers = Papers::new();
    torture(&Way {
        version: &TLS13,
        resumes: true,
        is_mutual: false,
        is_http2: false,
        papers: &papers,
    });
}

#[test]
fn endpoints_of_http2_that_go_wrong_at_any_byte() {
    let papers = Papers::new();
    let version = &TLS13;
    torture(&Way { version, resumes: false, is_mutual: false, is_http2: true, papers: &papers });
}

#[test]
fn endpoints_that_do_not_read_and_go_wrong() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    for version in [&TLS13, &TLS12] {
        let way =
            Way { version, resumes: false, is_mutual: false, is_http2: false, papers: &papers };
        let config = Arc::new(way.config());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = way.gateway(listener.local_addr().unwrap(), &upstream);
        other(&gateway);
        let kept = || upstream.open();
        let before = Before::of(&gateway, &kept);
        let cases: Vec<_> =
            TAKEN.into_iter().flat_map(|taken| FAULTS.map(|fault| (taken, fault))).collect();
        let stuck: Vec<Peer> = std::thread::scope(|scope| {
            for _ in &cases {
                scope.spawn(|| upload(&gateway));
            }
            let played = cases.iter().map(|(taken, fault)| {
                let (tcp, config) = (listener.accept().unwrap().0, config.clone());
                scope.spawn(move || {
                    let session = ServerConnection::new(config).unwrap().into();
                    let mut peer = Peer::new(session, tcp, Case { fault: *fault, ..Case::NONE });
                    peer.stick(b"\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", *taken);
                    peer
                })
            });
            let played: Vec<_> = played.collect();
            other(&gateway);
            played.into_iter().map(|peer| peer.join().unwrap()).collect()
        });
        before.is_so_again();
        drop(stuck);
    }
}

/// Sends a large body, and sees the end of it: a refusal or a close, and no wait.
fn upload(gateway: &Gateway) {
    let mut client = Client::connect(gateway.address_of("plain")).patience(BOUND);
    client.send(format!("PUT /app HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {LARGE}\r\n\r\n"));
    let piece = vec![b'.'; 1 << 20];
    let _ = (0..LARGE >> 20).all(|_| client.try_send(&piece));
    let ended = loop {
        match client.try_response("PUT") {
            Ok(response) if response.status == 100 => {}
            ended => break ended,
        }
    };
    match ended {
        Ok(response) => assert!(response.status >= 500, "{response:?}"),
        Err(e) => {
            assert!(matches!(e, ReadError::Cut | ReadError::Reset | ReadError::Closed), "{e:?}");
        }
    }
}
