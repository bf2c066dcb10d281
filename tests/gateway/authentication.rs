//! The frame of authentication: which requests pass, what others are told, and what logs say.
//! Ways have modules of their own.

use crate::{
    client_certificates::client,
    harness::{Client, Gateway, Issuer, Papers, Upstream, eventually},
};

/// A gateway that asks clients for certificates, but serves those that have none.
fn gateway(upstream: &Upstream, papers: &Papers, authority: &Issuer) -> Gateway {
    papers.issue("gw", &["gw.test"]);
    std::fs::write(papers.path("ca.pem"), &authority.pem).unwrap();
    let asks = format!(
        ", client_ca = \"{}\", client_certificate = \"optional\"",
        papers.path("ca.pem").display()
    );
    let listener = papers.listener(&["gw"], &asks);
    let more = format!(
        r#"{listener}
        [[routes]]
        path = "/known"
        upstream = "app"
        authenticate = ["certificate"]

        [[routes]]
        path = "/anybody"
        upstream = "app"
        authenticate = ["certificate"]
        anonymous = true

        [[access_logs]]
        to = "file:{}"
        format = {{ template = "${{target}} ${{auth}} ${{subject}} ${{reason}}" }}
        "#,
        papers.path("access.log").display()
    );
    Gateway::before(upstream.address(), &more)
}

fn ask(client: &mut Client, path: &str) -> crate::harness::Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
    client.response()
}

#[test]
fn a_verified_certificate_is_an_identity() {
    let (upstream, papers, ours) = (Upstream::ok(), Papers::new(), Issuer::new("ours"));
    let gateway = gateway(&upstream, &papers, &ours);
    let badge = ours.issue("client.test", 1, 2090);
    let mut known = client(&gateway, &papers, Some(&badge));
    assert_eq!(ask(&mut known, "/known").status, 200);
    assert_eq!(ask(&mut known, "/anybody").status, 200);
    let mut stranger = client(&gateway, &papers, None);
    let refused = ask(&mut stranger, "/known");
    assert_eq!((refused.status, &*refused.reason()), (401, "auth.missing"));
    assert_eq!(refused.field("www-authenticate"), Some("Certificate realm=\"certificate\""));
    assert_eq!(ask(&mut stranger, "/anybody").status, 200);
    assert_eq!(ask(&mut stranger, "/").status, 200);
    let log = || std::fs::read_to_string(papers.path("access.log")).unwrap_or_default();
    eventually("five lines", || log().lines().count() == 5);
    // Workers write on their own.
    let mut lines: Vec<_> = log().lines().map(str::to_owned).collect();
    lines.sort();
    let wanted = [
        "/ - - -",
        "/anybody - - -",
        "/anybody certificate CN=rcgen self signed cert -",
        "/known - - auth.missing",
        "/known certificate CN=rcgen self signed cert -",
    ];
    assert_eq!(lines, wanted);
}
