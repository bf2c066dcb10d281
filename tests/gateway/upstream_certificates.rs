//! Certificates of endpoints that an authority issued, and lists of those that it revoked: who is
//! believed, why others are not, and that each reason is counted and logged.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};

use crate::harness::{Badge, Gateway, Issuer, Launch, PATIENCE, Papers, eventually};

const HANDSHAKES: &str = "ringway_tls_upstream_handshake_failures_total{";
const BROKEN: &str = "ringway_tls_broken_total{side=\"upstream\",";
const NAME: &str = "app.test";
const HTTP2: &str = "protocol = \"auto\"\n";

/// An endpoint that shows `badge` and answers 204. `clients`: whose certificates it demands.
fn endpoint(
    badge: Badge,
    version: &'static SupportedProtocolVersion,
    clients: Option<&Issuer>,
) -> SocketAddr {
    let builder = ServerConfig::builder_with_protocol_versions(&[version]);
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(issuer) => {
            let mut roots = RootCertStore::empty();
            roots.add(issuer.certificate()).unwrap();
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(vec![badge.certificate], badge.key).unwrap();
    config.alpn_protocols = ["h2", "http/1.1"].map(|name| name.as_bytes().to_vec()).into();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let config = config.clone();
            std::thread::spawn(move || {
                let session = ServerConnection::new(config).unwrap();
                let mut stream = StreamOwned::new(session, tcp);
                let mut chunk = [0; 4096];
                // A request without body, in one record.
                while stream.read(&mut chunk).is_ok_and(|n| n > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
                }
            });
        }
    });
    address
}

/// A gateway with everything forwarded to `endpoint`, whose certificate must be `issuer`'s and,
/// when there is a `list`, not on that.
fn gateway(
    papers: &Papers,
    endpoint: SocketAddr,
    issuer: &Issuer,
    list: Option<&[u8]>,
    more: &str,
) -> Gateway {
    std::fs::write(papers.path("ca.pem"), &issuer.pem).unwrap();
    let mut tls = format!("ca = \"{}\", name = \"{NAME}\"", papers.path("ca.pem").display());
    if let Some(list) = list {
        put(papers, list);
        tls += &format!(", crls = [\"{}\"]", papers.path("list").display());
    }
    let gateway = Gateway::start(&format!(
        "[[routes]]\nupstream = \"app\"\n[upstreams.app]\nendpoints = [\"{endpoint}\"]\n\
         connect_cooldown = \"0s\"\ntls = {{ {tls} }}\n{more}"
    ));
    assert!(gateway.command(&["log", "debug"]).status.success());
    gateway
}

/// Puts a list in the place of the one that is there, as tools that fetch them do.
fn put(papers: &Papers, list: &[u8]) {
    std::fs::write(papers.path("new"), list).unwrap();
    std::fs::rename(papers.path("new"), papers.path("list")).unwrap();
}

/// Nothing is forwarded, for a reason that is counted in `family` and logged.
#[track_caller]
fn is_refused(gateway: &Gateway, family: &str, reason: &str) {
    let before = counted(gateway, family);
    let response = gateway.client().get("/");
    assert_eq!((response.status, &*response.reason()), (502, "upstream.tls"), "{reason}");
    let wanted = format!("{family}reason=\"{reason}\"}} ");
    let grown = counted(gateway, family).into_iter().filter(|line| !before.contains(line));
    let grown: Vec<String> = grown.collect();
    // One try or, of a request that may be repeated, two.
    assert!(grown.len() == 1 && grown[0].starts_with(&wanted), "{reason}: {grown:?}");
    eventually(reason, || gateway.log().contains(&format!("reason=\"{reason}\"")));
}

fn counted(gateway: &Gateway, family: &str) -> Vec<String> {
    let text = gateway.admin().get("/metrics").text();
    text.lines().filter(|line| line.starts_with(family)).map(str::to_owned).collect()
}

fn serves(gateway: &Gateway) -> bool {
    gateway.client().get("/").status == 204
}

#[test]
fn why_an_endpoint_is_not_believed_is_counted_and_logged() {
    let (ours, theirs) = (Issuer::new("ours"), Issuer::new("theirs"));
    let list = ours.revoked(&[13], 2090);
    let old = ours.revoked(&[], 2025);
    let foreign = theirs.revoked(&[], 2090);
    let table = [
        (ours.issue(NAME, 2, 2021), &list, "certificate_expired"),
        (ours.issue("other.test", 3, 2090), &list, "certificate_name"),
        (ours.issue(NAME, 13, 2090), &list, "certificate_revoked"),
        (theirs.issue(NAME, 1, 2090), &list, "certificate_unknown"),
        // Nobody says that these are not revoked: the list is out of its time, or another's.
        (ours.issue(NAME, 4, 2090), &old, "certificate_revoked"),
        (ours.issue(NAME, 5, 2090), &foreign, "certificate_revoked"),
    ];
    for (badge, list, reason) in table {
        for (version, protocol) in [(&TLS13, ""), (&TLS12, ""), (&TLS13, HTTP2)] {
            let papers = Papers::new();
            let badge =
                Badge { certificate: badge.certificate.clone(), key: badge.key.clone_key() };
            let app = endpoint(badge, version, None);
            let gateway = gateway(&papers, app, &ours, Some(list.as_bytes()), protocol);
            is_refused(&gateway, HANDSHAKES, reason);
        }
    }
    // And one that is.
    let (papers, app) = (Papers::new(), endpoint(ours.issue(NAME, 1, 2090), &TLS13, None));
    assert!(serves(&gateway(&papers, app, &ours, Some(list.as_bytes()), "")));
}

#[test]
fn an_endpoint_that_wants_a_certificate_is_a_reason_of_its_own() {
    let (ours, papers) = (Issuer::new("ours"), Papers::new());
    let badge = || ours.issue(NAME, 1, 2090);
    // In 1.3 the handshake is over for a client when it is told.
    for (version, more, family) in
        [(&TLS12, "", HANDSHAKES), (&TLS13, "", BROKEN), (&TLS13, HTTP2, BROKEN)]
    {
        let app = endpoint(badge(), version, Some(&ours));
        is_refused(&gateway(&papers, app, &ours, None, more), family, "certificate_required");
    }
    // OpenSSL says no more than that the handshake failed.
    for (version, family) in [("-tls1_2", HANDSHAKES), ("-tls1_3", BROKEN)] {
        let openssl = OpenSsl::start(&papers, &badge(), &ours, version);
        let gateway = gateway(&papers, openssl.address, &ours, None, "");
        is_refused(&gateway, family, "certificate_required");
    }
}

#[test]
fn a_list_is_read_again_and_judges_every_connection() {
    let (ours, papers) = (Issuer::new("ours"), Papers::new());
    let app = endpoint(ours.issue(NAME, 7, 2090), &TLS13, None);
    let good = ours.revoked_der(&[13], 2090);
    let watch = "[reload]\nwatch = true\n";
    let gateway = gateway(&papers, app, &ours, Some(&good), watch);
    let mut kept = gateway.client();
    assert_eq!(kept.get("/").status, 204);
    // The connection that is kept, and the session that could be resumed, are of an earlier list.
    put(&papers, ours.revoked(&[7], 2090).as_bytes());
    eventually("the list is read", || kept.get("/").status == 502);
    is_refused(&gateway, HANDSHAKES, "certificate_revoked");
    put(&papers, &good);
    eventually("the list is read again", || serves(&gateway));
    // What is no list changes nothing.
    put(&papers, b"garbage");
    gateway.wait_for_log("there is no certificate revocation list in");
    assert!(serves(&gateway));
}

#[test]
fn a_list_that_ends_while_the_gateway_runs_ends_for_sessions_too() {
    let (ours, papers) = (Issuer::new("ours"), Papers::new());
    let app = endpoint(ours.issue(NAME, 7, 2090), &TLS13, None);
    // Long enough to start, and less than a test waits.
    let until = std::time::SystemTime::now() + PATIENCE / 2;
    let list = ours.list(&[], until.into()).pem().unwrap();
    let pool = "[upstreams.app.pool]\nidle_max = 0\n";
    let gateway = gateway(&papers, app, &ours, Some(list.as_bytes()), pool);
    let mut served = 0;
    eventually("the list ends", || {
        let is_served = serves(&gateway);
        served += u32::from(is_served);
        !is_served
    });
    assert!(served > 0, "it was in its time before");
    is_refused(&gateway, HANDSHAKES, "certificate_revoked");
}

#[test]
fn a_list_that_cannot_be_read_is_said_where_it_is_named() {
    let (ours, papers) = (Issuer::new("ours"), Papers::new());
    std::fs::write(papers.path("ca.pem"), &ours.pem).unwrap();
    // A SEQUENCE, and nothing of a list in it.
    std::fs::write(papers.path("der"), [0x30, 3, 2, 1, 1]).unwrap();
    let file = |name: &str| papers.path(name).display().to_string();
    for (list, wanted) in [
        ("der", "endpoints' certificates cannot be judged: "),
        ("ca.pem", "there is no certificate revocation list in"),
        ("none", "cannot read the revocation list file"),
    ] {
        let toml = format!(
            "[[routes]]\nupstream = \"app\"\n[upstreams.app]\nendpoints = [\"127.0.0.1:1\"]\n\
             [upstreams.app.tls]\nca = \"{}\"\ncrls = [\"{}\"]\n",
            file("ca.pem"),
            file(list)
        );
        let failed = Launch { toml, ..Launch::default() }.start().err().expect("no start");
        assert!(failed.stderr.contains(wanted), "{}", failed.stderr);
        assert!(failed.stderr.contains("ringway.toml:7:"), "{}", failed.stderr);
    }
}

/// A server of OpenSSL's that demands certificates.
struct OpenSsl {
    child: Child,
    address: SocketAddr,
}

impl OpenSsl {
    fn start(papers: &Papers, badge: &Badge, clients: &Issuer, version: &str) -> OpenSsl {
        std::fs::write(papers.path("app.der"), &badge.certificate).unwrap();
        std::fs::write(papers.path("app-key.der"), badge.key.secret_der()).unwrap();
        std::fs::write(papers.path("clients.pem"), &clients.pem).unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["s_server", "-accept", "127.0.0.1:0", "-certform", "DER", "-keyform", "DER"]);
        openssl.arg("-cert").arg(papers.path("app.der"));
        openssl.arg("-key").arg(papers.path("app-key.der"));
        openssl.arg("-CAfile").arg(papers.path("clients.pem"));
        openssl.args(["-Verify", "1", "-verify_return_error", version]);
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = openssl.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("ACCEPT ")?.parse().ok()
        });
        // What it says later is of no interest, and must find a reader.
        std::thread::spawn(move || lines.for_each(drop));
        OpenSsl { child, address: address.expect("it says where it listens") }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
