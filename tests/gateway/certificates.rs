//! What is said of a listener's certificates, and what many of them cost.

use std::{fmt::Write, net::TcpStream, sync::Arc};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;

use crate::harness::{Gateway, Papers, eventually};

const ROUTE: &str = "[[routes]]\nrespond = { status = 204 }\n";
const YEAR_2090: i64 = 3_786_912_000;
const YEAR_2020: i64 = 1_577_836_800;

/// Puts a certificate in the place of another, good until the first day of a year.
fn issue_until(papers: &Papers, file: &str, year: i32) {
    let mut params = CertificateParams::new(vec![format!("{file}.test")]).unwrap();
    params.not_before = date_time_ymd(2019, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(papers.path(&format!("{file}.pem")), certificate.pem()).unwrap();
    std::fs::write(papers.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
}

fn listeners(gateway: &Gateway) -> Vec<Value> {
    let status: Value = serde_json::from_slice(&gateway.admin().get("/status").body).unwrap();
    status["listeners"].as_array().unwrap().clone()
}

#[test]
fn the_status_tells_when_the_first_certificate_expires() {
    let papers = Papers::new();
    issue_until(&papers, "a", 2095);
    issue_until(&papers, "b", 2090);
    let plain = "[[listeners]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n";
    let gateway = Gateway::start(&format!("{}{plain}{ROUTE}", papers.listener(&["a", "b"], "")));
    let expiry = |gateway: &Gateway| -> Vec<String> {
        let text = gateway.admin().get("/metrics").text();
        let name = "ringway_listener_certificate_expiry_time_seconds{";
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    };
    let shown = listeners(&gateway);
    assert_eq!(shown[0]["tls"]["certificates"], 2);
    assert_eq!(shown[0]["tls"]["expires"], YEAR_2090);
    assert_eq!(shown[1].get("tls"), None);
    let wanted = format!(
        "ringway_listener_certificate_expiry_time_seconds{{listener=\"main\"}} {YEAR_2090}.0"
    );
    assert_eq!(expiry(&gateway), [wanted]);
    let told = || String::from_utf8(gateway.command(&["status"]).stdout).unwrap();
    assert!(told().contains("2 certificates, the first expires in "), "{}", told());
    // As they are after a reload.
    issue_until(&papers, "a", 2020);
    assert!(gateway.command(&["reload"]).status.success());
    eventually("the new one counts", || listeners(&gateway)[0]["tls"]["expires"] == YEAR_2020);
    assert!(told().contains("2 certificates, one has expired"), "{}", told());
}

/// The certificate that a client is shown who asks for this name.
fn shown(
    gateway: &Gateway,
    config: &Arc<ClientConfig>,
    name: &str,
) -> Option<CertificateDer<'static>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(config.clone(), name).unwrap();
    let mut tcp = TcpStream::connect(gateway.address()).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut tcp).ok()?;
    }
    Some(session.peer_certificates()?[0].clone())
}

/// A listener with so many certificates, for `0.test`, `1.test` and so on.
fn many(papers: &Papers, count: usize) -> String {
    let key = papers.path("many.key").display().to_string();
    let one = |n: usize| {
        let file = papers.path(&format!("{n}.many")).display().to_string();
        format!("{{ file = \"{file}\", key = \"{key}\" }}")
    };
    let mut all = String::new();
    (0..count).for_each(|n| writeln!(all, "{},", one(n)).unwrap());
    format!(
        "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.tls]\ncertificates = [\n{all}]\n{ROUTE}"
    )
}

#[test]
fn ten_thousand_certificates_are_found_and_small() {
    const COUNT: usize = 10_000;
    let papers = Papers::new();
    let key = KeyPair::generate().unwrap();
    std::fs::write(papers.path("many.key"), key.serialize_pem()).unwrap();
    let write = |n: usize| {
        let params = CertificateParams::new(vec![format!("{n}.test")]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(papers.path(&format!("{n}.many")), pem).unwrap();
    };
    (0..COUNT).for_each(write);
    let gateway = Gateway::start(&many(&papers, 10));
    let before = gateway.anonymous_bytes();
    assert!(gateway.reload(&many(&papers, COUNT)), "{}", gateway.log());
    let each = gateway.anonymous_bytes().saturating_sub(before) / COUNT as u64;
    let is_shown = |n: usize| {
        let own = CertificateDer::from_pem_file(papers.path(&format!("{n}.many"))).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(own.clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        shown(&gateway, &Arc::new(config), &format!("{n}.test")) == Some(own)
    };
    for n in [0, 1, 10, COUNT / 2, COUNT - 1] {
        assert!(is_shown(n), "{n}");
    }
    // One of them is replaced, the others stay.
    write(COUNT / 2);
    assert!(!is_shown(COUNT / 2));
    assert!(gateway.command(&["reload"]).status.success());
    for n in [COUNT / 2, 0, COUNT - 1] {
        assert!(is_shown(n), "{n} after a reload");
    }
    assert_eq!(listeners(&gateway)[0]["tls"]["certificates"], COUNT);
    assert!(each < 8 * 1024, "{each} bytes for each certificate");
}
