//! TLS to upstreams: whom the gateway believes, what it shows, and what is inside. The endpoint is
//! mostly another gateway, with a listener that speaks TLS.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, mpsc},
};

use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use crate::harness::{Gateway, Papers, ReadError, Server, Upstream, bodies_pass};

/// A gateway with everything forwarded to `endpoint` over TLS, with these keys of `tls`.
fn towards(endpoint: SocketAddr, tls: &str) -> Gateway {
    Gateway::start(&format!(
        "[[routes]]\nupstream = \"app\"\n[upstreams.app]\nendpoints = [\"{endpoint}\"]\n\
         connect_timeout = \"3s\"\ntls = {{ {tls} }}\n"
    ))
}

fn ca(papers: &Papers, file: &str) -> String {
    format!("ca = \"{}\"", papers.path(&format!("{file}.pem")).display())
}

/// An endpoint with a certificate for `app.test`.
fn endpoint(papers: &Papers, upstream: SocketAddr) -> Gateway {
    papers.issue("app", &["app.test"]);
    Gateway::before(upstream, &papers.listener(&["app"], ""))
}

fn refused(gateway: &Gateway, status: u16, reason: &str) {
    let response = gateway.client().get("/");
    assert_eq!((response.status, response.reason().as_str()), (status, reason));
}

#[test]
fn requests_are_forwarded_and_connections_kept() {
    let (server, papers) = (Server::start(), Papers::new());
    let app = endpoint(&papers, server.address());
    let gateway = towards(app.address(), &format!("{}, name = \"app.test\"", ca(&papers, "app")));
    let mut client = gateway.client();
    for size in [0, 1000, 16_384, 20_000, 20_000, 70_000, 3 << 20] {
        bodies_pass(&mut client, size);
    }
    let metrics = app.admin().get("/metrics").text();
    assert!(metrics.contains("ringway_tls_handshakes_total{kind=\"full\"} 1\n"), "{metrics}");
}

#[test]
fn nobody_is_believed_without_reason() {
    let (upstream, papers) = (Upstream::ok(), Papers::new());
    let app = endpoint(&papers, upstream.address());
    papers.issue("other", &["app.test"]);
    // Another authority, another name, an address that is not in the certificate.
    for tls in [
        format!("{}, name = \"app.test\"", ca(&papers, "other")),
        format!("{}, name = \"other.test\"", ca(&papers, "app")),
        ca(&papers, "app"),
    ] {
        refused(&towards(app.address(), &tls), 502, "upstream.tls");
    }
    assert!(upstream.requests().is_empty());
}

/// An endpoint whose certificate was good for the names until the first day of this year.
fn aged(papers: &Papers, last_year: i32) -> SocketAddr {
    let mut params = rcgen::CertificateParams::new(vec!["app.test".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let write = |file: &str, text: String| std::fs::write(papers.path(file), text).unwrap();
    write("app.pem", params.self_signed(&key).unwrap().pem());
    write("app.key", key.serialize_pem());
    raw(papers, None, |stream| drop(stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")))
}

#[test]
fn why_there_is_no_tls_is_counted() {
    let (usual, old, papers) = (Papers::new(), Papers::new(), Papers::new());
    let (app, expired) = (aged(&usual, 2090), aged(&old, 2021));
    papers.issue("other", &["app.test"]).issue("app", &["app.test"]);
    let strict = raw(&papers, Some("other"), |_| {});
    let gone = Upstream::scripted(|conn| drop(conn.reader.fill()));
    let table = [
        (expired, ca(&old, "app"), "app.test", "certificate_expired"),
        (app, ca(&papers, "other"), "app.test", "certificate_unknown"),
        (app, ca(&usual, "app"), "other.test", "certificate_name"),
        (gone.address(), ca(&usual, "app"), "app.test", "closed"),
    ];
    for (endpoint, ca, name, reason) in table {
        let gateway = towards(endpoint, &format!("{ca}, name = \"{name}\""));
        refused(&gateway, 502, "upstream.tls");
        counted(&gateway, "ringway_tls_upstream_handshake_failures_total", reason);
    }
    // In 1.3 an endpoint asks for a certificate when the handshake is over for its client.
    let gateway = towards(strict, &format!("{}, name = \"app.test\"", ca(&papers, "app")));
    refused(&gateway, 502, "upstream.tls");
    counted(&gateway, "ringway_tls_broken_total", "certificate_required");
}

#[track_caller]
fn counted(gateway: &Gateway, family: &str, reason: &str) {
    let text = gateway.admin().get("/metrics").text();
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with(family)).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].ends_with(&format!("reason=\"{reason}\"}} 1")), "{reason}: {lines:?}");
}

#[test]
fn an_endpoint_without_tls_or_that_says_nothing() {
    let papers = Papers::new();
    let upstream = Upstream::scripted(|conn| {
        conn.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    papers.issue("app", &["app.test"]);
    let tls = format!("{}, name = \"app.test\"", ca(&papers, "app"));
    refused(&towards(upstream.address(), &tls), 502, "upstream.tls");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    refused(&towards(silent.local_addr().unwrap(), &tls), 504, "upstream.connect_timeout");
}

#[test]
fn a_body_that_ends_with_its_connection_needs_close_notify() {
    let papers = Papers::new();
    papers.issue("app", &["app.test"]);
    for (announces, wanted) in [(true, Ok("all of it")), (false, Err(ReadError::Cut))] {
        let app = raw(&papers, None, move |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it");
            if announces {
                stream.conn.send_close_notify();
            }
            let _ = stream.flush();
        });
        let gateway = towards(app, &format!("{}, name = \"app.test\"", ca(&papers, "app")));
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        let found = client.try_response("GET");
        assert_eq!(found.map(|response| response.text()), wanted.map(str::to_owned));
    }
}

#[test]
fn the_gateway_shows_its_certificate_when_asked() {
    let papers = Papers::new();
    papers.issue("app", &["app.test"]).issue("own", &["gw.test"]);
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let app = raw(&papers, Some("own"), move |stream| {
        let shown = stream.conn.peer_certificates().map(|shown| shown[0].clone().into_owned());
        tell.lock().unwrap().send(shown).unwrap();
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
    });
    let usual = format!("{}, name = \"app.test\"", ca(&papers, "app"));
    refused(&towards(app, &usual), 502, "upstream.tls");
    let path = |kind: &str| papers.path(&format!("own.{kind}")).display().to_string();
    let own = format!("certificate = {{ file = \"{}\", key = \"{}\" }}", path("pem"), path("key"));
    assert_eq!(towards(app, &format!("{usual}, {own}")).client().get("/").status, 204);
    assert_eq!(told.recv().unwrap(), Some(papers.certificate("own")));
}

type TlsStream = StreamOwned<ServerConnection, std::net::TcpStream>;

/// An endpoint that reads a request over TLS and lets `answer` do the rest; `clients` is the file
/// of the only client certificate that it takes.
fn raw(
    papers: &Papers,
    clients: Option<&str>,
    answer: impl Fn(&mut TlsStream) + Send + Sync + 'static,
) -> SocketAddr {
    let key = PrivateKeyDer::from_pem_file(papers.path("app.key")).unwrap();
    let builder = ServerConfig::builder();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            roots.add(papers.certificate(file)).unwrap();
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = Arc::new(builder.with_single_cert(vec![papers.certificate("app")], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(session, tcp);
            let mut head = Vec::new();
            let mut chunk = [0; 4096];
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut chunk) {
                    Ok(n @ 1..) => head.extend_from_slice(&chunk[..n]),
                    _ => break,
                }
            }
            if !head.is_empty() {
                answer(&mut stream);
            }
        }
    });
    address
}
