//! Clients that show certificates: who is let in, why others are not, and what upstreams are told.

use std::{net::TcpStream, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::harness::{Badge, Client, Gateway, Issuer, Launch, Papers, Upstream, eventually};

/// What clients' certificates are for.
const NAME: &str = "client.test";

/// A gateway that asks for certificates of `authority`.
fn gateway(upstream: &Upstream, papers: &Papers, authority: &Issuer, more: &str) -> Gateway {
    papers.issue("gw", &["gw.test"]);
    std::fs::write(papers.path("ca.pem"), &authority.pem).unwrap();
    let asks = format!(", client_ca = \"{}\"{more}", papers.path("ca.pem").display());
    Gateway::before(upstream.address(), &papers.listener(&["gw"], &asks))
}

pub fn client(gateway: &Gateway, papers: &Papers, badge: Option<&Badge>) -> Client {
    let config = papers.showing(&["gw"], badge);
    Client::over_tls(TcpStream::connect(gateway.address()).unwrap(), &Arc::new(config))
}

fn is_refused(gateway: &Gateway, papers: &Papers, badge: Option<&Badge>, reason: &str) {
    let failures = || {
        let text = gateway.admin().get("/metrics").text();
        let name = format!("ringway_tls_handshake_failures_total{{reason=\"{reason}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&*name)).map_or(0, |n| n.parse().unwrap())
    };
    let before: u64 = failures();
    let mut client = client(gateway, papers, badge);
    client.try_send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert!(client.try_response("GET").is_err(), "{reason}");
    eventually(reason, || failures() == before + 1);
}

fn field(badge: &Badge) -> String {
    format!(":{}:", STANDARD.encode(&badge.certificate))
}

#[test]
fn upstreams_are_told_who_came_and_by_nobody_else() {
    let (upstream, papers, ours) = (Upstream::ok(), Papers::new(), Issuer::new("ours"));
    let gateway = gateway(&upstream, &papers, &ours, "");
    let badge = ours.issue(NAME, 1, 2090);
    let mut client = client(&gateway, &papers, Some(&badge));
    let spoofed = ["", "Client-Cert: :c3Bvb2Y=:\r\n", "client-cert-chain: :c3Bvb2Y=:\r\n"];
    for (n, spoofed) in spoofed.into_iter().enumerate() {
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: gw.test\r\n{spoofed}\r\n"));
        assert_eq!(client.response().status, 200);
        let asked = upstream.request_for(&format!("/{n}"));
        assert_eq!(asked.field("client-cert"), Some(&*field(&badge)));
        assert_eq!(asked.field("client-cert-chain"), None);
    }
    // Also where nobody is asked for a certificate.
    let plain = Gateway::before(upstream.address(), "");
    let mut client = plain.client();
    client.send("GET /plain HTTP/1.1\r\nHost: gw.test\r\nClient-Cert: :c3Bvb2Y=:\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.request_for("/plain").field("client-cert"), None);
}

#[test]
fn who_is_not_let_in_and_why() {
    let (upstream, papers, ours) = (Upstream::ok(), Papers::new(), Issuer::new("ours"));
    std::fs::write(papers.path("list.pem"), ours.revoked(&[13], 2090)).unwrap();
    let list = format!(", client_crls = [\"{}\"]", papers.path("list.pem").display());
    let gateway = gateway(&upstream, &papers, &ours, &list);
    let good = ours.issue(NAME, 1, 2090);
    assert_eq!(client(&gateway, &papers, Some(&good)).get("/").status, 200);
    is_refused(&gateway, &papers, None, "certificate_missing");
    is_refused(&gateway, &papers, Some(&ours.issue(NAME, 2, 2021)), "certificate_expired");
    is_refused(&gateway, &papers, Some(&ours.issue(NAME, 13, 2090)), "certificate_revoked");
    let stranger = Issuer::new("theirs").issue(NAME, 1, 2090);
    is_refused(&gateway, &papers, Some(&stranger), "certificate_unknown");
    assert_eq!(upstream.requests().len(), 1);
    // The list is read again by a reload; out of its time, it lets nobody in.
    std::fs::write(papers.path("list.pem"), ours.revoked(&[13], 2025)).unwrap();
    assert!(gateway.command(&["reload"]).status.success());
    is_refused(&gateway, &papers, Some(&good), "certificate_revoked");
    std::fs::write(papers.path("list.pem"), ours.revoked(&[1], 2090)).unwrap();
    assert!(gateway.command(&["reload"]).status.success());
    is_refused(&gateway, &papers, Some(&good), "certificate_revoked");
}

#[test]
fn optional_certificates_are_judged_when_they_are_shown() {
    let (upstream, papers, ours) = (Upstream::ok(), Papers::new(), Issuer::new("ours"));
    let more = ", client_certificate = \"optional\"";
    let gateway = gateway(&upstream, &papers, &ours, more);
    assert_eq!(client(&gateway, &papers, None).get("/without").status, 200);
    assert_eq!(upstream.request_for("/without").field("client-cert"), None);
    let badge = ours.issue(NAME, 1, 2090);
    assert_eq!(client(&gateway, &papers, Some(&badge)).get("/with").status, 200);
    assert_eq!(upstream.request_for("/with").field("client-cert"), Some(&*field(&badge)));
    let stranger = Issuer::new("theirs").issue(NAME, 1, 2090);
    is_refused(&gateway, &papers, Some(&stranger), "certificate_unknown");
}

#[test]
fn upstreams_need_not_be_told() {
    let (upstream, papers, ours) = (Upstream::ok(), Papers::new(), Issuer::new("ours"));
    let gateway = gateway(&upstream, &papers, &ours, ", client_cert_field = false");
    let badge = ours.issue(NAME, 1, 2090);
    assert_eq!(client(&gateway, &papers, Some(&badge)).get("/").status, 200);
    assert_eq!(upstream.only_request().field("client-cert"), None);
}

#[test]
fn a_route_may_be_for_clients_with_a_certificate_only() {
    let (upstream, papers, ours) = (Upstream::ok(), Papers::new(), Issuer::new("ours"));
    let log = papers.path("log").display().to_string();
    let asks = ", client_certificate = \"optional\"";
    let more = format!(
        "[[routes]]\npath = \"/inside\"\nupstream = \"app\"\nclient_certificate = \"required\"\n\
         [[access_logs]]\nto = \"file:{log}\"\n\
         [[listeners]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n"
    );
    papers.issue("gw", &["gw.test"]);
    std::fs::write(papers.path("ca.pem"), &ours.pem).unwrap();
    let asks = format!(", client_ca = \"{}\"{asks}", papers.path("ca.pem").display());
    let toml = format!("{}{more}", papers.listener(&["gw"], &asks));
    let gateway = Gateway::before(upstream.address(), &toml);
    let badge = ours.issue(NAME, 1, 2090);
    let mut with = client(&gateway, &papers, Some(&badge));
    let mut without = client(&gateway, &papers, None);
    let mut plain = Client::connect(gateway.address_of("plain"));
    assert_eq!(with.get("/inside/with").status, 200);
    assert_eq!(upstream.request_for("/inside/with").field("client-cert"), Some(&*field(&badge)));
    for stranger in [&mut without, &mut plain] {
        // Refused by a response, on a connection that stays.
        for _ in 0..2 {
            let response = stranger.get("/inside/without");
            assert_eq!((response.status, &*response.reason()), (403, "client.certificate"));
        }
        assert_eq!(stranger.get("/outside").status, 200);
    }
    assert!(upstream.requests().iter().all(|request| request.target != "/inside/without"));
    let lines = || std::fs::read_to_string(papers.path("log")).unwrap_or_default();
    eventually("every exchange is logged", || lines().lines().count() == 7);
    let print = openssl_print(&badge);
    for line in lines().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let is_known = line["target"] == "/inside/with";
        assert_eq!(line["client_cert_fingerprint"] == print.as_str(), is_known, "{line}");
        assert_eq!(line["client_cert_subject"] == "CN=rcgen self signed cert", is_known, "{line}");
        assert_eq!(line["status"] == 403, line["target"] == "/inside/without", "{line}");
    }
}

/// SHA-256 of the certificate, as somebody else computes it.
fn openssl_print(badge: &Badge) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("der"), &badge.certificate).unwrap();
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-r"]).arg(folder.path().join("der"));
    let done = openssl.output().unwrap();
    String::from_utf8(done.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn a_route_that_nobody_could_take_is_explained() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    let toml = format!(
        "{}[[routes]]\nrespond = {{ status = 204 }}\nclient_certificate = \"required\"\n",
        papers.listener(&["gw"], "")
    );
    let failed = Launch { toml, ..Launch::default() }.start().err().expect("it does not start");
    let wanted = "no listener asks clients for a certificate";
    assert!(failed.stderr.contains(wanted), "{}", failed.stderr);
    assert!(failed.stderr.contains("ringway.toml:7:"), "{}", failed.stderr);
}

#[test]
fn a_route_for_holders_is_that_over_http2_too() {
    let (papers, ours) = (Papers::new(), Issuer::new("ours"));
    papers.issue("gw", &["gw.test"]);
    std::fs::write(papers.path("ca.pem"), &ours.pem).unwrap();
    let badge = ours.issue(NAME, 1, 2090);
    std::fs::write(papers.path("badge.der"), &badge.certificate).unwrap();
    std::fs::write(papers.path("badge-key.der"), badge.key.secret_der()).unwrap();
    let ca = papers.path("ca.pem").display().to_string();
    let asks = format!(", client_ca = \"{ca}\", client_certificate = \"optional\"");
    let route = "[[routes]]\nrespond = { status = 204 }\nclient_certificate = \"required\"\n";
    let gateway = Gateway::start(&format!("{}{route}", papers.listener(&["gw"], &asks)));
    let at = gateway.address().port();
    let curl = |more: &[&str]| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--http2", "--output", "/dev/null"]).args(more);
        curl.args(["--write-out", "%{http_version} %{http_code}"]);
        curl.args(["--resolve", &format!("gw.test:{at}:127.0.0.1")]);
        curl.arg("--cacert").arg(papers.path("gw.pem")).arg(format!("https://gw.test:{at}/"));
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    };
    let path = |file: &str| papers.path(file).display().to_string();
    let (certificate, key) = (path("badge.der"), path("badge-key.der"));
    let shows = ["--cert-type", "DER", "--cert", &certificate, "--key-type", "DER", "--key", &key];
    assert_eq!(curl(&[]), "2 403");
    assert_eq!(curl(&shows), "2 204");
}
