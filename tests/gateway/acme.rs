//! Certificates that the gateway gets and renews by itself, from an authority of the harness.

use std::{
    collections::BTreeSet,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};

use crate::harness::{Authority, Client, Gateway, Launch, Papers, Ways, eventually, handshake};

/// Pauses are this share of what they would be.
const PACE: f64 = 0.002;

/// A listener with TLS for these names, and one without.
fn toml(authority: &Authority, storage: &Path, names: &[&str], more: &str) -> String {
    format!(
        "[[listeners]]\nname = \"tls\"\nbind = \"127.0.0.1:0\"\ntls = {{ {} }}\n\
         [[listeners]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n\
         [[routes]]\nrespond = {{ body = \"here\" }}\n",
        authority.key(storage, names, more)
    )
}

fn launch(toml: &str) -> Launch {
    let env = vec![("RINGWAY_DRILL_ACME_PACE", PACE.to_string())];
    Launch { toml: toml.to_owned(), env, ..Launch::default() }
}

/// Starts, and tells the authority where names lead.
fn start(authority: &Authority, toml: &str) -> Gateway {
    let gateway = launch(toml).start().unwrap_or_else(|failed| panic!("{failed:?}"));
    lead(authority, &gateway);
    gateway
}

fn lead(authority: &Authority, gateway: &Gateway) {
    let (http, tls) = (gateway.address_of("plain"), gateway.address_of("tls"));
    authority.set(|ways| (ways.http, ways.tls) = (Some(http), Some(tls)));
}

/// What a client that trusts the authority is shown; `Err` when there is no handshake.
fn shown(authority: &Authority, gateway: &Gateway, name: &str) -> Result<Vec<u8>, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.root_pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), server).unwrap();
    let mut tcp = TcpStream::connect(gateway.address_of("tls")).map_err(|e| e.to_string())?;
    while session.is_handshaking() {
        session.complete_io(&mut tcp).map_err(|e| e.to_string())?;
    }
    Ok(session.peer_certificates().unwrap()[0].to_vec())
}

fn status(gateway: &Gateway) -> Vec<Value> {
    let json: Value = serde_json::from_str(&gateway.admin().get("/status").text()).unwrap();
    json["acme"].as_array().cloned().unwrap_or_default()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_certificate_is_got_by_a_handshake() {
    let (authority, dir) = (Authority::start(Ways::default()), tempfile::tempdir().unwrap());
    authority.set(|ways| ways.bad_nonces = 2);
    let storage = dir.path().join("storage");
    let names = ["a.test", "B.test"];
    let more = ", email = \"me@a.test\"";
    let gateway = start(&authority, &toml(&authority, &storage, &names, more));
    for name in ["a.test", "b.test"] {
        eventually(name, || shown(&authority, &gateway, name).is_ok());
    }
    let challenges: BTreeSet<_> = authority.orders().iter().map(|o| o.challenge).collect();
    assert_eq!(challenges, BTreeSet::from([Some("tls-alpn-01")]));
    // One account for both, and each name a certificate of its own.
    assert_eq!(authority.accounts(), [json!(["mailto:me@a.test"])]);
    let (a, b) = (shown(&authority, &gateway, "a.test"), shown(&authority, &gateway, "b.test"));
    assert_ne!(a, b);
    // Nothing was served behind a proof.
    let of_both = |name: &str| -> f64 {
        let of = |worker| gateway.figure(&format!("{name}{{worker=\"{worker}\"}}"));
        (0..2).map(|worker| of(worker).expect("the metric")).sum()
    };
    eventually("connections end", || of_both("ringway_connections_open") == 0.0);
    assert_eq!(of_both("ringway_requests_total"), 0.0);
    // Proofs are no longer given, and what is not asked for in a proof's way is as ever.
    let at = gateway.address_of("tls");
    assert!(handshake(at, "a.test", &[b"acme-tls/1"]).is_err());
    let (certificate, alpn) = handshake(at, "a.test", &[b"acme-tls/1", b"http/1.1"]).unwrap();
    assert_eq!((certificate.to_vec(), alpn), (a.unwrap(), Some(b"http/1.1".to_vec())));
    // What is kept, is kept from others.
    let folder = std::fs::read_dir(&storage).unwrap().next().unwrap().unwrap().path();
    assert_eq!((mode(&storage), mode(&folder)), (0o700, 0o700));
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let files: BTreeSet<_> = files
        .inspect(|file| assert_eq!(mode(file), 0o600, "{}", file.display()))
        .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        files,
        ["a.test.pem", "account.json", "b.test.pem", "lock"].map(str::to_owned).into()
    );
    let log = gateway.log();
    assert!(log.contains("certificate issued") && log.contains("account made"), "{log}");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
    let labels = format!("name=\"a.test\",authority=\"{}\"", folder_name(&folder));
    let issued = format!("ringway_acme_orders_total{{{labels},outcome=\"issued\"}}");
    assert_eq!(gateway.figure(&issued), Some(1.0));
    let expiry = format!("ringway_acme_certificate_expiry_time_seconds{{{labels}}}");
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let days = (gateway.figure(&expiry).unwrap() - now) / 86400.0;
    assert!((89.0..91.0).contains(&days), "{days}");
    let of_listener = "ringway_listener_certificate_expiry_time_seconds{listener=\"tls\"}";
    let firsts = (gateway.figure(of_listener).unwrap() - now) / 86400.0;
    assert!((89.0..91.0).contains(&firsts), "{firsts}");
    let text = gateway.command(&["status"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("a.test (")
            && text.contains("expires in ")
            && text.contains("next order in "),
        "{text}"
    );
}

#[test]
fn an_account_is_bound_to_one_that_the_authority_knows() {
    // As an authority shows it, and as it is with another alphabet and padding.
    let hmac = b"\xff\xfb\xef key of an account \x00";
    let keys = ["__vvIGtleSBvZiBhbiBhY2NvdW50IAA", "//vvIGtleSBvZiBhbiBhY2NvdW50IAA="];
    let dir = tempfile::tempdir().unwrap();
    let bound =
        |key: &str| format!(", external_account = {{ key_id = \"kid-1\", key = \"{key}\" }}");
    let file = dir.path().join("hmac");
    let of_file = bound(&format!("file:{}", file.display()));
    for (n, (more, text)) in
        [(&of_file, keys[0]), (&bound("env:ACME_HMAC"), keys[1])].into_iter().enumerate()
    {
        let external = Some(("kid-1", hmac.to_vec()));
        let authority = Authority::start(Ways { external, ..Ways::default() });
        std::fs::write(&file, format!("{text}\n")).unwrap();
        let storage = dir.path().join(n.to_string());
        let mut launch = launch(&toml(&authority, &storage, &["a.test"], more));
        launch.env.push(("ACME_HMAC", text.to_owned()));
        let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
        lead(&authority, &gateway);
        eventually("a certificate", || shown(&authority, &gateway, "a.test").is_ok());
        assert_eq!(authority.accounts().len(), 1);
        let config = gateway.admin().get("/config").text();
        assert!(config.contains("kid-1") && !config.contains(text), "{config}");
        assert!(!gateway.log().contains(text), "{}", gateway.log());
    }
}

#[test]
fn an_account_that_is_not_bound_as_it_must_be_is_refused_in_the_authoritys_words() {
    let dir = tempfile::tempdir().unwrap();
    let external = Some(("kid-1", b"right".to_vec()));
    let authority = Authority::start(Ways { external, ..Ways::default() });
    std::fs::write(dir.path().join("hmac"), "d3Jvbmc").unwrap();
    let key = format!("key = \"file:{}\"", dir.path().join("hmac").display());
    let with = |id: &str| format!(", external_account = {{ key_id = \"{id}\", {key} }}");
    for (more, wanted) in [
        (String::new(), "whose account is it?"),
        (with("kid-1"), "the binding: the signature"),
        (with("kid-2"), "the binding: {"),
    ] {
        let storage = dir.path().join("storage");
        let gateway = start(&authority, &toml(&authority, &storage, &["a.test"], &more));
        gateway.wait_for_log(&format!("the authority says {wanted}"));
        assert!(!gateway.log().contains("d3Jvbmc"), "{}", gateway.log());
    }
    assert!(authority.accounts().is_empty());
    // What is wrong with the key itself is said at the start.
    for (key, wanted) in [
        ("env:NOT_SET_ANYWHERE", "`NOT_SET_ANYWHERE` is not set"),
        ("file:none", "cannot read the key of `external_account`"),
        ("file:hmac", "is not base64"),
        ("d3Jvbmc", "neither \"file:\" nor \"env:\""),
    ] {
        std::fs::write(dir.path().join("hmac"), "{}").unwrap();
        let key = key.replace("file:hmac", &format!("file:{}", dir.path().join("hmac").display()));
        let more = format!(", external_account = {{ key_id = \"kid\", key = \"{key}\" }}");
        let toml = toml(&authority, &dir.path().join("storage"), &["a.test"], &more);
        let failed = launch(&toml).start().err().expect("it does not start");
        assert!(failed.stderr.contains(wanted), "{}", failed.stderr);
    }
}

fn folder_name(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_certificate_is_got_by_a_request_and_meanwhile_everything_else_works() {
    let ways = Ways { is_down: true, ..Ways::default() };
    let (authority, dir) = (Authority::start(ways), tempfile::tempdir().unwrap());
    let more = ", challenge = \"http-01\"";
    let toml = toml(&authority, dir.path(), &["a.test"], more)
        .replace("name = \"plain\"", "name = \"plain\"\nredirect_https = 443");
    let gateway = start(&authority, &toml);
    gateway.wait_for_log("the authority cannot be reached");
    assert!(shown(&authority, &gateway, "a.test").is_err());
    let refused = "ringway_tls_handshake_failures_total{reason=\"no_certificate\"}";
    eventually("it is counted", || gateway.figure(refused) == Some(1.0));
    let plain = |path: &str| Client::connect(gateway.address_of("plain")).get_from("a.test", path);
    // A path below which an authority asks is nothing special while none does.
    for path in ["/", "/.well-known/acme-challenge/x"] {
        assert_eq!(plain(path).status, 308, "{path}");
    }
    let line = status(&gateway).remove(0);
    assert!(line["error"].as_str().unwrap().contains("cannot be reached"), "{line}");
    assert!(line["failed"].as_u64() > Some(0) && line["expires"].is_null(), "{line}");
    authority.set(|ways| ways.is_down = false);
    eventually("the certificate", || shown(&authority, &gateway, "a.test").is_ok());
    let orders = authority.orders();
    assert_eq!((orders.len(), orders[0].challenge), (1, Some("http-01")));
    let path = format!("/.well-known/acme-challenge/{}", "x");
    assert_eq!(plain(&path).status, 308);
    // It is not for other names; who asks for those gets the one there is.
    assert!(shown(&authority, &gateway, "other.test").unwrap_err().contains("certificate"));
}

#[test]
fn renewed_without_restart_or_failed_handshake() {
    let ways = Ways { lifetime_s: Some(6), ..Ways::default() };
    let (authority, dir) = (Authority::start(ways), tempfile::tempdir().unwrap());
    let gateway = start(&authority, &toml(&authority, dir.path(), &["a.test"], ""));
    eventually("the first certificate", || shown(&authority, &gateway, "a.test").is_ok());
    let (mut seen, mut handshakes) = (BTreeSet::new(), 0);
    // Clients refuse what has expired.
    eventually("two more", || {
        seen.insert(shown(&authority, &gateway, "a.test").expect("a handshake"));
        handshakes += 1;
        seen.len() == 3
    });
    assert!(handshakes > 20, "{handshakes}");
    assert_eq!((authority.issued(), authority.accounts().len()), (3, 1));
    let log = gateway.log();
    assert!(!log.contains("reload") && !log.contains("no certificate"), "{log}");
}

#[test]
fn a_restart_needs_nobody() {
    let (authority, dir) = (Authority::start(Ways::default()), tempfile::tempdir().unwrap());
    let toml = toml(&authority, dir.path(), &["a.test"], "");
    let first = start(&authority, &toml);
    eventually("the certificate", || shown(&authority, &first, "a.test").is_ok());
    let before = shown(&authority, &first, "a.test");
    drop(first);
    authority.set(|ways| ways.is_down = true);
    let connections = authority.connections();
    // At the usual pace: what is due in an hour is not due now.
    let second = Gateway::start(&toml);
    assert_eq!(shown(&authority, &second, "a.test"), before);
    eventually("it is known when it is renewed", || {
        status(&second).first().is_some_and(|line| line["next"].is_u64())
    });
    assert_eq!(authority.connections(), connections);
    // A file that is broken is said, and got anew.
    drop(second);
    let folder = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    std::fs::write(folder.join("a.test.pem"), "garbage").unwrap();
    authority.set(|ways| ways.is_down = false);
    let third = start(&authority, &toml);
    assert!(third.log().contains("cannot be used: there is no private key"), "{}", third.log());
    eventually("another one", || shown(&authority, &third, "a.test").is_ok());
    assert_ne!(shown(&authority, &third, "a.test"), before);
    assert_eq!(authority.accounts().len(), 1);
}

#[test]
fn a_failed_challenge_is_told_and_tried_ever_more_rarely() {
    let (authority, dir) = (Authority::start(Ways::default()), tempfile::tempdir().unwrap());
    let toml = toml(&authority, dir.path(), &["a.test"], "");
    let gateway = launch(&toml).start().unwrap_or_else(|failed| panic!("{failed:?}"));
    // Names lead to where nobody speaks TLS.
    authority.set(|ways| ways.tls = Some(gateway.address_of("plain")));
    eventually("four orders", || authority.orders().len() == 4);
    let at: Vec<SystemTime> = authority.orders().iter().map(|order| order.at).collect();
    let pauses: Vec<Duration> = at.windows(2).map(|w| w[1].duration_since(w[0]).unwrap()).collect();
    // 2, 4 and 8 minutes, at this pace, and an order takes some time.
    for (pause, least) in pauses.iter().zip([120.0, 240.0, 480.0]) {
        assert!(pause.as_secs_f64() >= least * PACE, "{pauses:?}");
    }
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("no certificate")).unwrap();
    assert!(line.contains("WARN") && line.contains("a.test"), "{line}");
    assert!(line.contains("the authority says 127.0.0.1:"), "{line}");
    assert!(line.contains("acme:error:unauthorized") && line.contains("retry_in"), "{line}");
    assert!(line.contains("challenge=\"tls-alpn-01\""), "{line}");
    assert!(!log.contains("certificate issued"), "{log}");
    lead(&authority, &gateway);
    eventually("the certificate at last", || shown(&authority, &gateway, "a.test").is_ok());
    assert!(status(&gateway)[0]["error"].is_null());
}

#[test]
fn a_reload_shortens_the_wait_for_what_it_may_have_mended() {
    let (authority, dir) = (Authority::start(Ways::default()), tempfile::tempdir().unwrap());
    let toml = toml(&authority, dir.path(), &["a.test"], "");
    // Pauses are 1.2, 2.4 and 4.8 seconds, and up to a quarter more.
    let mut launch = launch(&toml);
    launch.env = vec![("RINGWAY_DRILL_ACME_PACE", "0.01".to_owned())];
    let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    authority.set(|ways| ways.tls = Some(gateway.address_of("plain")));
    eventually("three failures", || gateway.log().matches("no certificate").count() == 3);
    lead(&authority, &gateway);
    assert!(gateway.reload(&toml));
    eventually("the certificate", || shown(&authority, &gateway, "a.test").is_ok());
    let at: Vec<SystemTime> = authority.orders().iter().map(|order| order.at).collect();
    let pause = at[3].duration_since(at[2]).unwrap();
    assert!((1.2..4.8).contains(&pause.as_secs_f64()), "{pause:?}");
}

#[test]
fn an_authority_that_asks_to_wait_is_heeded() {
    let refuses = Some(("rateLimited", "too many of these", 3600));
    let ways = Ways { refuses, ..Ways::default() };
    let (authority, dir) = (Authority::start(ways), tempfile::tempdir().unwrap());
    let gateway = start(&authority, &toml(&authority, dir.path(), &["a.test"], ""));
    gateway.wait_for_log("too many of these");
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("too many of these")).unwrap();
    let wanted = Duration::from_secs(3600).mul_f64(PACE);
    assert!(line.contains(&format!("retry_in={wanted:?}")), "{line}");
}

#[test]
fn accounts_are_kept_changed_and_made_anew() {
    let (authority, dir) = (Authority::start(Ways::default()), tempfile::tempdir().unwrap());
    let of = |name: &str, email: &str| {
        toml(&authority, dir.path(), &[name], &format!(", email = \"{email}\""))
    };
    let gateway = start(&authority, &of("a.test", "old@a.test"));
    eventually("the first", || shown(&authority, &gateway, "a.test").is_ok());
    // A reload brings another name and another address.
    assert!(gateway.reload(&of("b.test", "new@a.test")));
    eventually("the second", || shown(&authority, &gateway, "b.test").is_ok());
    assert_eq!(authority.accounts(), [json!(["mailto:new@a.test"])]);
    eventually("the first is nobody's business any more", || status(&gateway).len() == 1);
    authority.forget_accounts();
    assert!(gateway.reload(&of("c.test", "new@a.test")));
    eventually("the third", || shown(&authority, &gateway, "c.test").is_ok());
    assert_eq!(authority.accounts().len(), 2);
    gateway.wait_for_log("does not know the account");
    // What was there before is still there.
    let orders = authority.orders().len();
    assert!(gateway.reload(&of("a.test", "new@a.test")));
    assert!(shown(&authority, &gateway, "a.test").is_ok());
    assert_eq!(authority.orders().len(), orders);
}

#[test]
fn the_authority_may_want_it_renewed_early() {
    let (authority, dir) = (Authority::start(Ways::default()), tempfile::tempdir().unwrap());
    authority.set(|ways| ways.suggests_since_s = Some(600));
    // A day is two seconds.
    let pace = 2.0 / 86400.0;
    let mut launch = launch(&toml(&authority, dir.path(), &["a.test"], ""));
    launch.env = vec![("RINGWAY_DRILL_ACME_PACE", pace.to_string())];
    let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    lead(&authority, &gateway);
    eventually("the second certificate", || authority.issued() == 2);
    gateway.wait_for_log("the authority says when");
    let orders = authority.orders();
    assert!(orders[0].replaces.is_none());
    let replaces = orders[1].replaces.clone().expect("it says what it replaces");
    assert_eq!(replaces.split('.').count(), 2, "{replaces}");
    // Its window stays in the past: still, a certificate that is new is left alone for a day.
    let pause = orders[1].at.duration_since(orders[0].at).unwrap();
    assert!(pause >= Duration::from_secs(2), "{pause:?}");
}

#[test]
fn an_upgrade_hands_the_renewing_over() {
    let ways = Ways { lifetime_s: Some(9), ..Ways::default() };
    let (authority, dir) = (Authority::start(ways), tempfile::tempdir().unwrap());
    let more = "[shutdown]\ndrain_idle = \"1m\"\n";
    let toml = format!("{}{more}", toml(&authority, dir.path(), &["a.test"], ""));
    let gateway = start(&authority, &toml);
    eventually("the first certificate", || shown(&authority, &gateway, "a.test").is_ok());
    // The old process has a client, and stays.
    let (mut kept, old) = (Client::connect(gateway.address_of("plain")), gateway.pid());
    assert_eq!(kept.get("/").text(), "here");
    assert!(gateway.upgrade());
    lead(&authority, &gateway);
    eventually("the new process may renew", || {
        status(&gateway).first().is_some_and(|line| line["next"].is_u64())
    });
    assert!(Path::new(&format!("/proc/{old}/fd/0")).exists());
    eventually("the new process renews", || authority.issued() == 2);
    eventually("it is served", || {
        let shown = shown(&authority, &gateway, "a.test").expect("a handshake");
        let pem = authority.orders()[1].certificate.clone().unwrap();
        shown == CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
    });
    assert_eq!((authority.orders().len(), authority.accounts().len()), (2, 1));
}

#[test]
fn gateways_that_share_a_folder_take_turns() {
    let (authority, dir) = (Authority::start(Ways::default()), tempfile::tempdir().unwrap());
    let toml = toml(&authority, dir.path(), &["a.test"], "");
    let first = start(&authority, &toml);
    let second = launch(&toml).start().unwrap_or_else(|failed| panic!("{failed:?}"));
    for gateway in [&first, &second] {
        eventually("the certificate", || shown(&authority, gateway, "a.test").is_ok());
    }
    assert_eq!(authority.orders().len(), 1);
    assert!(second.log().contains("certificate of another process"), "{}", second.log());
    assert!(status(&second)[0]["next"].is_null());
    drop(first);
    eventually("the second may renew", || status(&second)[0]["next"].is_u64());
    assert_eq!(authority.orders().len(), 1);
}

#[test]
fn issued_and_own_certificates_in_one_listener() {
    let ways = Ways { is_down: true, ..Ways::default() };
    let (authority, dir, papers) =
        (Authority::start(ways), tempfile::tempdir().unwrap(), Papers::new());
    papers.issue("own", &["own.test", "*.wild.test"]);
    let own = format!(
        "certificates = [{{ file = {:?}, key = {:?} }}], ",
        papers.path("own.pem"),
        papers.path("own.key")
    );
    let names = ["a.test", "b.wild.test"];
    let toml =
        toml(&authority, dir.path(), &names, "").replace("acme = ", &format!("{own}acme = "));
    let gateway = start(&authority, &toml);
    let at = gateway.address_of("tls");
    let given = |name: &str| handshake(at, name, &[]).ok().map(|(certificate, _)| certificate);
    let own = Some(papers.certificate("own"));
    // A name that waits is not given another's, but for one that says it is for that name too.
    let table = [
        ("own.test", true),
        ("x.wild.test", true),
        ("other.test", true),
        ("b.wild.test", true),
        ("a.test", false),
        ("A.test", false),
    ];
    for (name, is_own) in table {
        assert_eq!(given(name).is_some(), is_own, "{name}");
        assert_eq!(given(name) == own, is_own, "{name}");
    }
    authority.set(|ways| ways.is_down = false);
    for name in names {
        let is_issued = || given(name).is_some_and(|given| Some(given) != own);
        eventually("it is issued", is_issued);
    }
    for name in ["own.test", "x.wild.test", "other.test"] {
        assert_eq!(given(name), own, "{name}");
    }
}

#[test]
fn where_nothing_can_be_kept_nothing_is_ordered() {
    let (authority, dir) = (Authority::start(Ways::default()), tempfile::tempdir().unwrap());
    let storage = dir.path().join("taken");
    std::fs::write(&storage, "a file").unwrap();
    let gateway = start(&authority, &toml(&authority, &storage, &["a.test"], ""));
    gateway.wait_for_log("no certificate: cannot use ");
    assert_eq!(authority.connections(), 0);
    let plain = Client::connect(gateway.address_of("plain")).get("/");
    assert_eq!(plain.text(), "here");
    std::fs::remove_file(&storage).unwrap();
    eventually("the certificate", || shown(&authority, &gateway, "a.test").is_ok());
}
