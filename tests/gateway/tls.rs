//! Listeners that speak TLS: handshakes, certificates, what is inside, and every way to end.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore,
    StreamOwned,
    client::Resumption,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};

use crate::harness::{
    Client, Gateway, Launch, Over, Papers, ReadError, Server, Socket, Upstream, bodies_pass,
    eventually,
};

fn connect(gateway: &Gateway, config: &Arc<ClientConfig>, name: &str) -> Socket {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(config.clone(), name).unwrap();
    let tcp = TcpStream::connect(gateway.address()).unwrap();
    tcp.set_nodelay(true).unwrap();
    Socket::Tls(Box::new(StreamOwned::new(session, tcp)))
}

fn client(gateway: &Gateway, config: &Arc<ClientConfig>) -> Client {
    Client::over(connect(gateway, config, "gw.test"))
}

fn session(client: &Client) -> &ClientConnection {
    match &client.reader.socket {
        Socket::Tls(stream) => &stream.conn,
        _ => panic!("a client over TLS"),
    }
}

fn before(upstream: std::net::SocketAddr, papers: &Papers, more: &str) -> Gateway {
    papers.issue("gw", &["gw.test"]);
    Gateway::before(upstream, &format!("{}{more}", papers.listener(&["gw"], "")))
}

fn failures(gateway: &Gateway, reason: &str) -> u64 {
    let name = format!("ringway_tls_handshake_failures_total{{reason=\"{reason}\"}}");
    gateway.figure(&name).unwrap_or_default() as u64
}

fn handshakes(gateway: &Gateway, kind: &str) -> u64 {
    let name = format!("ringway_tls_handshakes_total{{kind=\"{kind}\"}}");
    gateway.figure(&name).expect("the metric") as u64
}

#[test]
fn requests_are_served_in_either_version() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers, "");
    for (version, wanted) in
        [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut roots = RootCertStore::empty();
        roots.add(papers.certificate("gw")).unwrap();
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = config;
        config.alpn_protocols = vec![b"h3".to_vec(), b"http/1.1".to_vec()];
        let mut client = client(&gateway, &Arc::new(config));
        for path in ["/a", "/b"].map(|path| format!("{path}/{wanted:?}")) {
            assert_eq!(client.get(&path).status, 200);
            let asked = upstream.request_for(&path);
            assert_eq!(
                (asked.target.as_str(), asked.field("x-forwarded-proto")),
                (&*path, Some("https"))
            );
        }
        assert_eq!(session(&client).protocol_version(), Some(wanted));
        assert_eq!(session(&client).alpn_protocol(), Some(&b"http/1.1"[..]));
        let group = session(&client).negotiated_key_exchange_group().unwrap().name();
        let is_new = wanted == ProtocolVersion::TLSv1_3;
        assert_eq!(group == NamedGroup::X25519MLKEM768, is_new, "{group:?}");
    }
    assert_eq!(handshakes(&gateway, "full"), 2);
}

#[test]
fn curl_trusts_and_is_served() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers, "");
    let port = gateway.address().port();
    let curl = |more: &[&str]| {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--http1.1", "--cacert"])
            .arg(papers.path("gw.pem"));
        command.args(["--resolve", &format!("gw.test:{port}:127.0.0.1")]).args(more);
        command.arg(format!("https://gw.test:{port}/from-curl")).output().unwrap()
    };
    let done = curl(&[]);
    assert!(done.status.success(), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stdout).contains("/from-curl"));
    assert!(curl(&["--tls-max", "1.2"]).status.success());
    assert!(!curl(&["--tls-max", "1.1"]).status.success());
}

#[test]
fn bodies_are_intact_both_ways() {
    let (server, papers) = (Server::start(), Papers::new());
    let gateway = before(server.address(), &papers, "");
    let mut client = client(&gateway, &Arc::new(papers.trusting(&["gw"])));
    let edges =
        [0, 1, 1349, 1350, 1351, 8192, 16_383, 16_384, 16_385, 40_000, 65_536, 300_000, 5 << 20];
    for size in edges {
        bodies_pass(&mut client, size);
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (server, papers) = (Server::start(), Papers::new());
    let gateway = before(server.address(), &papers, "");
    let mut client = client(&gateway, &Arc::new(papers.trusting(&["gw"])));
    let requests: String = (0..40)
        .map(|n| format!("GET /bytes/{} HTTP/1.1\r\nHost: gw.test\r\n\r\n", n * 997))
        .collect();
    client.send(requests);
    for n in 0..40 {
        assert_eq!(client.response().body.len(), n * 997);
    }
}

#[test]
fn plain_listeners_may_send_everybody_to_https() {
    let toml = "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\nredirect_https = 8443\n\
                [[listeners]]\nname = \"usual\"\nbind = \"127.0.0.1:0\"\nredirect_https = 443\n\
                [[routes]]\nrespond = { status = 204 }\n";
    let gateway = Gateway::start(toml);
    let at = |listener: &str| Client::connect(gateway.address_of(listener));
    let moved = at("main").get_from("gw.test:8080", "/a%20b/?c=d");
    assert_eq!(moved.status, 308);
    assert_eq!(moved.field("location"), Some("https://gw.test:8443/a%20b/?c=d"));
    let moved = at("usual").get_from("[::1]:80", "/");
    assert_eq!((moved.status, moved.field("location")), (308, Some("https://[::1]/")));
    let mut nameless = at("main");
    nameless.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(nameless.response().status, 404);
}

#[test]
fn browsers_are_told_to_come_back_over_tls() {
    let papers = Papers::new();
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            let own = match request.target.as_str() {
                "/own" => "strict-transport-security: max-age=1\r\n",
                _ => "",
            };
            conn.send(format!("HTTP/1.1 200 OK\r\n{own}Content-Length: 0\r\n\r\n"));
        }
    });
    papers.issue("gw", &["gw.test"]);
    let listener = papers.listener(&["gw"], ", hsts = \"2d\", hsts_subdomains = true");
    let deny = "[[routes]]\npath = \"/deny\"\nrespond = { status = 403 }\n";
    let gateway = Gateway::before(upstream.address(), &format!("{listener}{deny}"));
    let mut client = client(&gateway, &Arc::new(papers.trusting(&["gw"])));
    let wanted = "max-age=172800; includeSubDomains";
    for (path, wanted) in [("/", wanted), ("/deny", wanted), ("/own", "max-age=1")] {
        assert_eq!(client.get(path).field("strict-transport-security"), Some(wanted), "{path}");
    }
}

#[test]
fn names_choose_certificates() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    papers.issue("a", &["a.test"]).issue("b", &["b.test", "*.b.test"]).issue("c", &["c.b.test"]);
    let listener = papers.listener(&["a", "b", "c"], "");
    let gateway = Gateway::before(upstream.address(), &listener);
    let config = Arc::new(papers.trusting(&["a", "b", "c"]));
    for (name, file) in
        [("a.test", "a"), ("b.test", "b"), ("x.b.test", "b"), ("c.b.test", "c"), ("B.test", "b")]
    {
        let mut client = Client::over(connect(&gateway, &config, name));
        assert_eq!(client.get("/").status, 200, "{name}");
        let shown = session(&client).peer_certificates().unwrap();
        assert_eq!(shown[0], papers.certificate(file), "{name}");
    }
    // A name that nobody has gets the first; the client does not take that, and says so.
    let mut socket = connect(&gateway, &config, "other.test");
    assert!(socket.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| socket.flush()).is_err());
    eventually("the alert is counted", || failures(&gateway, "alert") == 1);
}

#[test]
fn sessions_resume_in_every_worker_and_after_a_reload() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers, "");
    for version in [&TLS12, &TLS13] {
        let mut roots = RootCertStore::empty();
        roots.add(papers.certificate("gw")).unwrap();
        let mut config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(64);
        let config = Arc::new(config);
        assert_eq!(client(&gateway, &config).get("/").status, 200);
        // The kernel spreads connections over both workers.
        for n in 0..20 {
            if n == 10 {
                assert!(gateway.command(&["reload"]).status.success());
            }
            let mut client = client(&gateway, &config);
            assert_eq!(client.get("/").status, 200);
            assert_eq!(session(&client).handshake_kind(), Some(HandshakeKind::Resumed), "{n}");
        }
    }
    assert_eq!((handshakes(&gateway, "full"), handshakes(&gateway, "resumed")), (2, 40));
}

#[test]
fn only_version_1_3_where_that_is_wanted() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    papers.issue("gw", &["gw.test"]);
    let listener = papers.listener(&["gw"], ", min_version = \"1.3\"");
    let gateway = Gateway::before(upstream.address(), &listener);
    let mut roots = RootCertStore::empty();
    roots.add(papers.certificate("gw")).unwrap();
    let config = ClientConfig::builder_with_protocol_versions(&[&TLS12])
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut socket = connect(&gateway, &Arc::new(config), "gw.test");
    assert!(socket.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| socket.flush()).is_err());
    eventually("it is counted", || failures(&gateway, "incompatible") == 1);
    assert_eq!(client(&gateway, &Arc::new(papers.trusting(&["gw"]))).get("/").status, 200);
}

#[test]
fn a_client_without_a_fitting_signature_is_told_just_that() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers, "");
    // The gateway has an ECDSA key, and this client knows RSA only.
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| format!("{suite:?}").contains("_RSA_WITH_"));
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut socket = connect(&gateway, &Arc::new(config), "gw.test");
    let refused = socket.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| socket.flush());
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("HandshakeFailure"), "{said}");
    eventually("it is counted", || failures(&gateway, "incompatible") == 1);
}

#[test]
fn http_without_tls_is_told_so() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers, "");
    let mut client = gateway.client();
    let response = client.get("/");
    assert_eq!((response.status, response.reason().as_str()), (400, "tls.plain_http"));
    client.expect_clean_close();
    eventually("it is counted", || failures(&gateway, "plain_http") == 1);
    assert!(upstream.requests().is_empty());
}

#[test]
fn what_is_no_handshake_ends_and_is_counted() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    papers.issue("gw", &["gw.test"]);
    let listener = papers.listener(&["gw"], ", handshake_timeout = \"200ms\"");
    let gateway = Gateway::before(upstream.address(), &listener);
    let mut silent = gateway.client();
    silent.expect_closed();
    eventually("a silent client is counted", || failures(&gateway, "timeout") == 1);
    let mut garbage = gateway.client();
    garbage.send([0x16, 3, 1, 0xff, 0xff, 1, 2, 3]);
    // An alert, and the end.
    while garbage.reader.fill().is_ok_and(|n| n > 0) {}
    eventually("garbage is counted", || failures(&gateway, "invalid") == 1);
    drop(gateway.client());
    eventually("a close is counted", || failures(&gateway, "closed") == 1);
}

/// The first bytes of a handshake, as a client sends them.
fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("gw.test").unwrap();
    let mut session = ClientConnection::new(config.clone(), name).unwrap();
    let mut bytes = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut bytes).unwrap();
    }
    bytes
}

#[test]
fn a_handshake_may_break_off_anywhere() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    let route = "[[routes]]\nrespond = { status = 204 }\n";
    let gateway = Gateway::start(&format!("{}{route}", papers.listener(&["gw"], "")));
    let config = Arc::new(papers.trusting(&["gw"]));
    assert_eq!(client(&gateway, &config).get("/").status, 204);
    let descriptors = || gateway.open_fds();
    let open = |worker| format!("ringway_connections_open{{worker=\"{worker}\"}}");
    eventually("the first client is gone", || {
        (0..2).all(|worker| gateway.figure(&open(worker)) == Some(0.0))
    });
    let before = descriptors();
    let hello = hello(&config);
    for cut in (1..hello.len()).step_by(7) {
        let mut client = gateway.client();
        client.send(&hello[..cut]);
        if cut % 2 == 0 {
            client.reset();
        }
    }
    // Every byte of the hello damaged, and what follows it garbage.
    for at in (0..hello.len()).step_by(5) {
        let mut bytes = hello.clone();
        bytes[at] ^= 0x55;
        let mut client = gateway.client();
        client.try_send(&bytes);
        client.try_send([0u8; 40]);
    }
    assert_eq!(client(&gateway, &config).get("/").status, 204);
    eventually("every descriptor is closed", || descriptors() <= before);
    assert_eq!(gateway.figure("ringway_panics_total"), Some(0.0));
}

/// Relays between a client and the gateway, and interferes with what the client sends.
fn damaged_records(gateway: &Gateway, config: &Arc<ClientConfig>, at: usize) {
    let name = ServerName::try_from("gw.test").unwrap();
    let mut session = ClientConnection::new(config.clone(), name).unwrap();
    let mut tcp = TcpStream::connect(gateway.address()).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut tcp).unwrap();
    }
    session.writer().write_all(b"GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n").unwrap();
    let mut record = Vec::new();
    session.write_tls(&mut record).unwrap();
    let Some(byte) = record.get_mut(at) else { return };
    *byte ^= 1;
    tcp.write_all(&record).unwrap();
    tcp.shutdown(std::net::Shutdown::Write).unwrap();
    // Whatever comes, no response does.
    let mut rest = Vec::new();
    let _ = tcp.read_to_end(&mut rest);
    session.read_tls(&mut rest.as_slice()).ok();
    let _ = session.process_new_packets();
    let mut plaintext = Vec::new();
    let _ = session.reader().read_to_end(&mut plaintext);
    assert!(plaintext.is_empty(), "{at}: {}", String::from_utf8_lossy(&plaintext));
}

#[test]
fn a_damaged_record_is_never_a_request() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers, "[timeouts]\nhead = \"300ms\"\n");
    let config = Arc::new(papers.trusting(&["gw"]));
    // Type and version of a record are fixed and not looked at (RFC 8446 §5.1, §5.2).
    for at in 3..60 {
        damaged_records(&gateway, &config, at);
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(client(&gateway, &config).get("/").status, 200);
    assert_eq!(gateway.figure("ringway_panics_total"), Some(0.0));
}

#[test]
fn a_complete_response_ends_with_close_notify_and_an_incomplete_one_without() {
    let papers = Papers::new();
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            match request.target.as_str() {
                "/whole" => drop(conn.ok("whole")),
                _ => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
                    return;
                }
            }
        }
    });
    let gateway = before(upstream.address(), &papers, "");
    let config = Arc::new(papers.trusting(&["gw"]));
    let mut whole = client(&gateway, &config);
    whole.send("GET /whole HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n");
    assert_eq!(whole.response().text(), "whole");
    // rustls answers an end without close_notify with an error.
    whole.expect_clean_close();
    let mut cut = client(&gateway, &config);
    cut.send("GET /cut HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(cut.try_response("GET").err(), Some(ReadError::Cut));
}

#[test]
fn idle_connections_hold_little_and_wake() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers, "[timeouts]\npark = \"50ms\"\n");
    let config = Arc::new(papers.trusting(&["gw"]));
    assert_eq!(client(&gateway, &config).get("/").status, 200);
    let before = gateway.anonymous_bytes();
    let mut clients: Vec<Client> = (0..200).map(|_| client(&gateway, &config)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    let bound = before + 200 * 20 * 1024;
    eventually("200 idle sessions take 20 KiB each", || gateway.anonymous_bytes() < bound);
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
}

#[test]
fn websockets_pass() {
    let papers = Papers::new();
    let upstream = Upstream::scripted(|conn| {
        let Ok(request) = conn.request() else { return };
        assert_eq!(request.field("upgrade"), Some("echo"));
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        );
        while let Ok(bytes) = conn.reader.exactly(5) {
            conn.send(bytes);
        }
    });
    let gateway = before(upstream.address(), &papers, "");
    let mut client = client(&gateway, &Arc::new(papers.trusting(&["gw"])));
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(client.head().start_line.contains("101"));
    for word in ["hello", "again"] {
        client.send(word);
        assert_eq!(client.reader.exactly(5).unwrap(), word.as_bytes());
    }
}

fn shown(gateway: &Gateway, config: &Arc<ClientConfig>) -> Option<CertificateDer<'static>> {
    let mut socket = connect(gateway, config, "gw.test");
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        .and_then(|()| socket.flush())
        .ok()?;
    let client = Client::over(socket);
    Some(session(&client).peer_certificates()?[0].clone())
}

#[test]
fn certificates_are_replaced_by_a_reload_and_when_their_file_changes() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers, "[reload]\nwatch = true\n");
    let first = papers.certificate("gw");
    let old = Arc::new(papers.trusting(&["gw"]));
    let mut kept = client(&gateway, &old);
    assert_eq!(kept.get("/").status, 200);
    assert_eq!(shown(&gateway, &old), Some(first));
    papers.issue("gw", &["gw.test"]);
    let new = Arc::new(papers.trusting(&["gw"]));
    eventually("the new certificate is shown", || {
        shown(&gateway, &new) == Some(papers.certificate("gw"))
    });
    assert_eq!(kept.get("/").status, 200, "open connections stay");
    // A file that is no certificate changes nothing.
    std::fs::write(papers.path("gw.pem"), "garbage").unwrap();
    gateway.wait_for_log("there is no certificate in");
    assert_eq!(kept.get("/").status, 200);
}

#[test]
fn no_handshake_fails_while_certificates_are_replaced() {
    const SWAPS: usize = 8;
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers, "[reload]\nwatch = true\n");
    let names: Vec<String> = (0..SWAPS).map(|n| format!("next{n}")).collect();
    for name in &names {
        papers.issue(name, &["gw.test"]);
    }
    let trusted: Vec<&str> = names.iter().map(String::as_str).chain(["gw"]).collect();
    let mut config = papers.trusting(&trusted);
    config.resumption = Resumption::disabled();
    let (config, over, served) = (Arc::new(config), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(client(&gateway, &config).get("/").status, 200);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for name in &names {
            let (wanted, before) = (papers.certificate(name), served.load(Ordering::SeqCst));
            for kind in ["key", "pem"] {
                let at = |file: &str| papers.path(&format!("{file}.{kind}"));
                std::fs::rename(at(name), at("gw")).unwrap();
            }
            eventually("the new one is shown", || shown(&gateway, &config) == Some(wanted.clone()));
            // By every worker, and while others come.
            eventually("others came", || served.load(Ordering::SeqCst) > before + 8);
        }
    });
    assert_eq!(gateway.figure("ringway_panics_total"), Some(0.0));
    let failures = gateway.admin().get("/metrics").text();
    assert!(!failures.contains("ringway_tls_handshake_failures_total{"), "{failures}");
}

#[test]
fn a_drain_finishes_what_is_inside() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers, "[shutdown]\ndrain_idle = \"50ms\"\n");
    let mut client = client(&gateway, &Arc::new(papers.trusting(&["gw"])));
    assert_eq!(client.get("/").status, 200);
    gateway.sigterm();
    client.expect_clean_close();
    assert!(gateway.wait_exit().success());
}

/// What is wrong with a file, by what the program says of it.
#[test]
fn wrong_files_are_explained() {
    let papers = Papers::new();
    papers.issue("a", &["a.test"]).issue("b", &["b.test"]);
    let write = |file: &str, text: &str| std::fs::write(papers.path(file), text).unwrap();
    write("empty.pem", "nothing here\n");
    write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let path = |file: &str| papers.path(file).display().to_string();
    let table = [
        ("missing.pem", "a.key", "cannot read the certificate file"),
        ("empty.pem", "a.key", "there is no certificate in"),
        ("a.pem", "missing.key", "cannot read the key file"),
        ("a.pem", "empty.pem", "there is no private key in"),
        ("a.pem", "locked.key", "is encrypted"),
        ("a.pem", "b.key", "does not belong to the certificate"),
    ];
    for (file, key, wanted) in table {
        let toml = format!(
            "[[listeners]]\nbind = \"127.0.0.1:0\"\n\
             tls = {{ certificates = [{{ file = \"{}\", key = \"{}\" }}] }}\n\
             [[routes]]\nrespond = {{ status = 204 }}\n",
            path(file),
            path(key)
        );
        let failed = Launch { toml, ..Launch::default() }.start().err().expect("it does not start");
        assert!(failed.stderr.contains(wanted), "{file} {key}: {}", failed.stderr);
        assert!(failed.stderr.contains("ringway.toml:3:"), "{}", failed.stderr);
    }
    assert!(Path::new(&path("a.key")).exists());
}
