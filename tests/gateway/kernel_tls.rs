//! Sessions whose records the kernel seals and opens, where it offers that; elsewhere the same must
//! hold without it. `scripts/ktls-in-a-vm` runs this, and all that speaks TLS, on a kernel that
//! does.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread,
    time::Duration,
};

use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned,
    crypto::aws_lc_rs, pki_types::ServerName,
};
use socket2::{Domain, Socket as Raw, Type};

use crate::harness::{
    Client, Gateway, Papers, Pattern, Server, Socket, Upstream, bodies_pass, eventually,
};

const AUTO: &str = ", kernel = \"auto\"";
/// Set where the kernel is known to offer it.
const MUST: &str = "RINGWAY_TEST_KTLS";
/// Set where it is known to lack something.
const LACKS: &str = "RINGWAY_TEST_KTLS_LACKS";

fn before(upstream: SocketAddr, papers: &Papers) -> Gateway {
    papers.issue("gw", &["gw.test"]);
    Gateway::before(upstream, &papers.listener(&["gw"], AUTO))
}

fn figure(gateway: &Gateway, name: &str) -> u64 {
    let text = gateway.admin().get("/metrics").text();
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |value| value.parse().unwrap())
}

/// Whether the kernel has the sessions of this gateway, which must be all or none.
fn is_used(gateway: &Gateway, sessions: u64) -> bool {
    let status = gateway.admin().get("/status").text();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let said = status["listeners"][0]["tls"]["kernel"].as_str().expect("it is said").to_owned();
    let used = figure(gateway, "ringway_tls_kernel_sessions_total ");
    assert_eq!(used, if said == "used" { sessions } else { 0 }, "{said}");
    assert!(said == "used" || std::env::var_os(MUST).is_none(), "{said}");
    assert!(said != "used" || std::env::var_os(LACKS).is_none(), "{said}");
    said == "used"
}

/// A client of these suites only, whose socket holds this much.
fn client(gateway: &Gateway, papers: &Papers, suite: Option<CipherSuite>, room: usize) -> Client {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|one| suite.is_none_or(|suite| one.suite() == suite));
    let mut roots = RootCertStore::empty();
    roots.add(papers.certificate("gw")).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("gw.test").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = Raw::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if room > 0 {
        socket.set_recv_buffer_size(room).unwrap();
    }
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.connect(&gateway.address().into()).unwrap();
    Client::over(Socket::Tls(Box::new(StreamOwned::new(session, socket.into()))))
}

fn session(client: &mut Client) -> &mut ClientConnection {
    match &mut client.reader.socket {
        Socket::Tls(stream) => &mut stream.conn,
        _ => panic!("a client over TLS"),
    }
}

#[test]
fn what_the_kernel_offers_is_said() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers);
    assert_eq!(client(&gateway, &papers, None, 0).get("/").status, 200);
    let is_used = is_used(&gateway, 1);
    let log = gateway.log();
    let lines = ["the kernel seals and opens records", "records are sealed and opened here"];
    assert!(log.contains(lines[usize::from(!is_used)]), "{log}");
    assert!(!log.contains(lines[usize::from(is_used)]), "{log}");
    let text = String::from_utf8(gateway.command(&["status"]).stdout).unwrap();
    let words = if is_used { "records by the kernel" } else { "not by the kernel: " };
    assert!(text.contains(words), "{text}");
    // Where nobody asks for it, nothing is said and nothing used.
    let plain = papers.listener(&["gw"], ", kernel = \"off\"");
    let off = Gateway::before(upstream.address(), &plain);
    assert_eq!(client(&off, &papers, None, 0).get("/").status, 200);
    assert_eq!(figure(&off, "ringway_tls_kernel_sessions_total "), 0);
    assert!(lines.iter().all(|line| !off.log().contains(line)), "{}", off.log());
}

#[test]
fn every_version_and_cipher_passes_bodies_both_ways() {
    let (server, papers) = (Server::start(), Papers::new());
    let gateway = before(server.address(), &papers);
    let suites: Vec<_> = aws_lc_rs::default_provider().cipher_suites;
    let suites: Vec<_> = suites.iter().map(|suite| (suite.suite(), suite.version())).collect();
    let mut sessions = 0;
    for (suite, version) in suites {
        // The key of the certificate is an ECDSA one.
        if format!("{suite:?}").contains("RSA") {
            continue;
        }
        let mut client = client(&gateway, &papers, Some(suite), 0);
        for size in [0, 1, 16_384, 16_385, 300_000, 10 << 20] {
            bodies_pass(&mut client, size);
        }
        assert_eq!(session(&mut client).protocol_version(), Some(version.version));
        sessions += 1;
    }
    assert_eq!(sessions, 6);
    is_used(&gateway, sessions);
}

#[test]
fn keys_change_in_the_middle_of_a_session() {
    let (server, papers) = (Server::start(), Papers::new());
    let gateway = before(server.address(), &papers);
    let mut client = client(&gateway, &papers, None, 0);
    bodies_pass(&mut client, 1);
    for size in [0, 1, 100_000, 3 << 20] {
        for _ in 0..3 {
            session(&mut client).refresh_traffic_keys().unwrap();
            bodies_pass(&mut client, size);
        }
    }
    // In the middle of a body, each way.
    let size = 1 << 20;
    let body = Pattern::default().take(size);
    client.send(format!("PUT /sink HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {size}\r\n\r\n"));
    for piece in body.chunks(100_000) {
        client.send(piece);
        session(&mut client).refresh_traffic_keys().unwrap();
    }
    assert_eq!(client.response().text(), format!("{size} intact"));
    is_used(&gateway, 1);
}

#[test]
fn a_client_that_only_changes_keys_is_cut_off() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers);
    let mut client = client(&gateway, &papers, None, 0);
    assert_eq!(client.get("/").status, 200);
    // In records of their own, as the kernel takes them.
    for _ in 0..40 {
        session(&mut client).refresh_traffic_keys().unwrap();
        if client.reader.socket.flush().is_err() {
            break;
        }
    }
    let broken = "ringway_tls_broken_total{side=\"client\",reason=\"invalid\"} ";
    eventually("it is counted", || figure(&gateway, broken) == 1);
    is_used(&gateway, 1);
}

/// What was written last is not overtaken by the end of the connection, however slow the client.
#[test]
fn a_slow_reader_gets_all_and_a_clean_end() {
    let (server, papers) = (Server::start(), Papers::new());
    let gateway = before(server.address(), &papers);
    let size = 3 << 20;
    for path in ["bytes", "chunked"] {
        let mut client = client(&gateway, &papers, None, 4096);
        client.send(format!(
            "GET /{path}/{size} HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n"
        ));
        let Socket::Tls(stream) = &mut client.reader.socket else { panic!("over TLS") };
        let (mut all, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            // An end without close_notify is an error here.
            match stream.read(&mut piece).expect("a clean end") {
                0 => break,
                n => all.extend_from_slice(&piece[..n]),
            }
            if all.len() % 7 == 0 || all.len() > size - 100_000 {
                thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(all.len() > size, "{path}: {} bytes", all.len());
    }
    is_used(&gateway, 2);
}

#[test]
fn damaged_records_end_a_session_with_an_alert() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers);
    let mut client = client(&gateway, &papers, None, 0);
    assert_eq!(client.get("/").status, 200);
    let Socket::Tls(stream) = &mut client.reader.socket else { panic!("over TLS") };
    let mut record = vec![23, 3, 3, 0, 40];
    record.extend([7; 40]);
    stream.sock.write_all(&record).unwrap();
    let error = stream.read(&mut [0; 100]).expect_err("an alert");
    // The kernel leaves the record where it is, so that the close is a reset, which may overtake
    // the alert.
    let is_reset = error.kind() == ErrorKind::ConnectionReset;
    let may_reset = std::env::var_os(MUST).is_some();
    assert!(error.to_string().contains("BadRecordMac") || is_reset && may_reset, "{error}");
    let broken = "ringway_tls_broken_total{side=\"client\",reason=\"invalid\"} ";
    eventually("it is counted", || figure(&gateway, broken) == 1);
    is_used(&gateway, 1);
}

/// The kernel must not use a nonce again that the handshake has used: with TLS 1.2 and AES-GCM it
/// is in the record.
#[test]
fn nonces_do_not_come_again() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let gateway = before(upstream.address(), &papers);
    let suite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let client = client(&gateway, &papers, Some(suite), 0);
    let Socket::Tls(stream) = client.reader.socket else { panic!("over TLS") };
    let StreamOwned { mut conn, mut sock } = *stream;
    let mut received = Vec::new();
    let mut exchange = |conn: &mut ClientConnection, until: &dyn Fn(&ClientConnection) -> bool| {
        loop {
            while conn.wants_write() {
                conn.write_tls(&mut sock).unwrap();
            }
            let mut piece = vec![0; 16 * 1024];
            let n = sock.read(&mut piece).unwrap();
            received.extend_from_slice(&piece[..n]);
            let mut rest = &piece[..n];
            while !rest.is_empty() {
                conn.read_tls(&mut rest).unwrap();
                conn.process_new_packets().unwrap();
            }
            if until(conn) {
                return;
            }
        }
    };
    exchange(&mut conn, &|conn| !conn.is_handshaking());
    for _ in 0..20 {
        conn.writer().write_all(b"GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n").unwrap();
        exchange(&mut conn, &|_| true);
        let mut text = [0; 1000];
        let n = conn.reader().read(&mut text).unwrap();
        assert!(text[..n].starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(conn.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    let (mut nonces, mut rest, mut is_sealed) = (Vec::new(), &received[..], false);
    while let [kind, _, _, high, low, more @ ..] = rest {
        let (record, after) = more.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        if is_sealed {
            nonces.push(record[..8].to_vec());
        }
        // After ChangeCipherSpec.
        is_sealed |= *kind == 20;
        rest = after;
    }
    let all = nonces.len();
    assert!(all > 20, "{all} records");
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), all, "one came twice");
    is_used(&gateway, 1);
}
