//! Session tickets of a file: taken by every worker and process that has their secret, by nobody
//! else, and only as long as the secret is in the file.

use std::{net::TcpStream, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
    client::Resumption,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};

use crate::harness::{Client, Gateway, Launch, Papers, Socket, eventually};

const ROUTE: &str = "[[routes]]\nrespond = { status = 204 }\n";

/// Secrets as a file has them: the one of each number.
fn write(papers: &Papers, file: &str, secrets: &[u8]) {
    let line = |n: &u8| format!("{:02x}", n).repeat(32);
    let lines: Vec<String> = secrets.iter().map(line).collect();
    let new = papers.path("new");
    std::fs::write(&new, lines.join("\n")).unwrap();
    std::fs::rename(new, papers.path(file)).unwrap();
}

fn toml(papers: &Papers, file: &str) -> String {
    let path = papers.path(file).display().to_string();
    let listener = papers.listener(&["gw"], &format!(", ticket_secrets = \"{path}\""));
    format!("{listener}{ROUTE}")
}

/// A client that keeps sessions of one version.
fn keeping(papers: &Papers, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(papers.certificate("gw")).unwrap();
    let mut config = ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(64);
    Arc::new(config)
}

/// Whether a request to `gateway` resumed a session; whatever session it began is kept.
fn resumes(gateway: &Gateway, config: &Arc<ClientConfig>) -> bool {
    let name = ServerName::try_from("gw.test").unwrap();
    let session = ClientConnection::new(config.clone(), name).unwrap();
    let tcp = TcpStream::connect(gateway.address()).unwrap();
    let mut client = Client::over(Socket::Tls(Box::new(StreamOwned::new(session, tcp))));
    assert_eq!(client.get("/").status, 204);
    match &client.reader.socket {
        Socket::Tls(stream) => stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        _ => unreachable!("a client over TLS"),
    }
}

#[test]
fn workers_processes_and_restarts_take_each_others_tickets() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    write(&papers, "secrets", &[1]);
    let toml = toml(&papers, "secrets");
    for version in [&TLS12, &TLS13] {
        let config = keeping(&papers, version);
        let (first, second) = (Gateway::start(&toml), Gateway::start(&toml));
        assert!(!resumes(&first, &config));
        // Each has two workers, over which the kernel spreads connections.
        for n in 0..20 {
            assert!(resumes(&first, &config) && resumes(&second, &config), "{n}");
        }
        drop((first, second));
        assert!(resumes(&Gateway::start(&toml), &config), "after a restart");
    }
}

#[test]
fn without_a_file_a_process_takes_only_its_own() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    let toml = format!("{}{ROUTE}", papers.listener(&["gw"], ""));
    let (first, second) = (Gateway::start(&toml), Gateway::start(&toml));
    let config = keeping(&papers, &TLS13);
    assert!(!resumes(&first, &config) && resumes(&first, &config));
    assert!(!resumes(&second, &config));
}

#[test]
fn secrets_rotate_and_end() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    write(&papers, "secrets", &[1]);
    write(&papers, "of-others", &[9]);
    let gateway = Gateway::start(&toml(&papers, "secrets"));
    let others = Gateway::start(&toml(&papers, "of-others"));
    for version in [&TLS12, &TLS13] {
        write(&papers, "secrets", &[1]);
        assert!(gateway.command(&["reload"]).status.success());
        let config = keeping(&papers, version);
        assert!(!resumes(&gateway, &config));
        // A new secret seals, the old one still opens.
        write(&papers, "secrets", &[2, 1]);
        assert!(gateway.command(&["reload"]).status.success());
        assert!(resumes(&gateway, &config));
        // A ticket of the new one was given out by that, so the old one may go.
        write(&papers, "secrets", &[2]);
        assert!(gateway.command(&["reload"]).status.success());
        (0..10).for_each(|n| assert!(resumes(&gateway, &config), "{n}"));
        // Nobody takes what a removed secret sealed, nor those of another file.
        write(&papers, "secrets", &[3]);
        assert!(gateway.command(&["reload"]).status.success());
        assert!(!resumes(&gateway, &config));
        assert!(resumes(&gateway, &config));
        assert!(!resumes(&others, &config));
    }
}

#[test]
fn a_changed_file_is_noticed_and_a_broken_one_changes_nothing() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    write(&papers, "secrets", &[1]);
    let watch = "[reload]\nwatch = true\n";
    let gateway = Gateway::start(&format!("{}{watch}", toml(&papers, "secrets")));
    let config = keeping(&papers, &TLS13);
    assert!(!resumes(&gateway, &config));
    write(&papers, "secrets", &[]);
    gateway.wait_for_log("is not a file of ticket secrets: it has no secret");
    assert!(resumes(&gateway, &config));
    write(&papers, "secrets", &[2]);
    gateway.wait_for_log(" reloaded ");
    eventually("the new secret is in force", || !resumes(&gateway, &config));
    assert!(resumes(&gateway, &config));
}

/// What is wrong with a file, by what the program says of it. The secrets are in no message.
#[test]
fn wrong_files_are_explained() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    let short = "5e".repeat(31);
    std::fs::write(papers.path("short"), &short).unwrap();
    std::fs::write(papers.path("binary"), [0xff; 80]).unwrap();
    std::fs::write(papers.path("ca.pem"), std::fs::read(papers.path("gw.pem")).unwrap()).unwrap();
    write(&papers, "good", &[1]);
    let asks = format!(", client_ca = \"{}\"", papers.path("ca.pem").display());
    let table = [
        ("missing", "", "cannot read the ticket secrets"),
        ("binary", "", "cannot read the ticket secrets"),
        ("short", "", "line 1 has 31 bytes, fewer than 32"),
        ("good", &asks, "`ticket_secrets` has no effect with `client_ca`"),
    ];
    for (file, more, wanted) in table {
        let path = papers.path(file).display().to_string();
        let more = format!(", ticket_secrets = \"{path}\"{more}");
        let toml = format!("{}{ROUTE}", papers.listener(&["gw"], &more));
        let failed = Launch { toml, ..Launch::default() }.start().err().expect("it does not start");
        assert!(failed.stderr.contains(wanted), "{file}: {}", failed.stderr);
        assert!(failed.stderr.contains("ringway.toml:4:"), "{}", failed.stderr);
        assert!(!failed.stderr.contains("5e5e"), "{}", failed.stderr);
    }
}

#[test]
fn a_file_for_everybody_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    for (mode, is_warned) in [(0o644, true), (0o640, false)] {
        write(&papers, "secrets", &[1]);
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(papers.path("secrets"), permissions).unwrap();
        let gateway = Gateway::start(&toml(&papers, "secrets"));
        let is_told = gateway.log().contains("anybody on this machine may use");
        assert_eq!(is_told, is_warned, "{mode:o}: {}", gateway.log());
    }
}
