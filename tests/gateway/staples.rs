//! OCSP responses stapled to certificates: clients get what the file says as long as it helps them.
//! The responses are made by OpenSSL.

use std::{
    net::TcpStream,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};

use crate::harness::{Client, Gateway, Launch, Papers, Socket, eventually};

const ROUTE: &str = "[[routes]]\nrespond = { status = 204 }\n";

/// An authority in a folder, and a certificate `gw.test` of it with serial number 17.
struct Authority(Papers);

impl Authority {
    fn new() -> Authority {
        let papers = Papers::new();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let write = |file: &str, text: String| std::fs::write(papers.path(file), text).unwrap();
        write("ca.pem", params.self_signed(&key).unwrap().pem());
        write("ca.key", key.serialize_pem());
        let issuer = Issuer::new(params, key);
        for (file, serial) in [("gw", 17u64), ("other", 18)] {
            let mut params = CertificateParams::new(vec!["gw.test".to_owned()]).unwrap();
            params.serial_number = Some(SerialNumber::from(serial));
            let key = KeyPair::generate().unwrap();
            write(&format!("{file}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
            write(&format!("{file}.key"), key.serialize_pem());
        }
        Authority(papers)
    }

    /// Writes what the authority says of the certificate in `of`, which is in its books as `entry`.
    fn respond(&self, file: &str, of: &str, entry: &str) {
        let path = |file: &str| self.0.path(file);
        let books = format!("{entry}\tunknown\t/CN=rcgen self signed cert\n");
        std::fs::write(path("index"), books).unwrap();
        let mut openssl = Command::new("openssl");
        openssl.arg("ocsp").arg("-index").arg(path("index")).arg("-CA").arg(path("ca.pem"));
        openssl.arg("-rsigner").arg(path("ca.pem")).arg("-rkey").arg(path("ca.key"));
        openssl.arg("-issuer").arg(path("ca.pem")).arg("-cert").arg(path(of));
        openssl.args(["-ndays", "1", "-noverify", "-respout"]).arg(path("new"));
        let done = openssl.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        std::fs::rename(path("new"), path(file)).unwrap();
    }

    fn toml(&self, staple: &str) -> String {
        let path = |file: &str| self.0.path(file).display().to_string();
        let listener = self.0.listener(&["gw"], "");
        let key = format!("key = \"{}\"", path("gw.key"));
        assert!(listener.contains(&key));
        let listener = listener.replace(&key, &format!("{key}, ocsp = \"{}\"", path(staple)));
        format!("{listener}{ROUTE}")
    }
}

const GOOD: &str = "V\t400101000000Z\t\t11";
const REVOKED: &str = "R\t400101000000Z\t250101000000Z\t11";

/// Takes any certificate, and keeps what is stapled to it.
#[derive(Debug, Default)]
struct Reader(Mutex<Vec<u8>>);

impl ServerCertVerifier for Reader {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock().unwrap() = staple.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What is stapled to the certificate that clients of versions 1.2 and 1.3 are shown now.
fn stapled(gateway: &Gateway) -> [Vec<u8>; 2] {
    [&TLS12, &TLS13].map(|version| {
        let reader = Arc::new(Reader::default());
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .dangerous()
            .with_custom_certificate_verifier(reader.clone())
            .with_no_client_auth();
        let name = ServerName::try_from("gw.test").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let tcp = TcpStream::connect(gateway.address()).unwrap();
        let mut client = Client::over(Socket::Tls(Box::new(StreamOwned::new(session, tcp))));
        assert_eq!(client.get("/").status, 204);
        std::mem::take(&mut *reader.0.lock().unwrap())
    })
}

fn twice(bytes: &[u8]) -> [Vec<u8>; 2] {
    [bytes.to_vec(), bytes.to_vec()]
}

#[test]
fn a_response_is_stapled_and_replaced() {
    let authority = Authority::new();
    authority.respond("gw.ocsp", "gw.pem", GOOD);
    let first = std::fs::read(authority.0.path("gw.ocsp")).unwrap();
    let gateway = Gateway::start(&authority.toml("gw.ocsp"));
    assert_eq!(stapled(&gateway), twice(&first));
    // A signature with ECDSA is another one each time.
    authority.respond("gw.ocsp", "gw.pem", GOOD);
    let second = std::fs::read(authority.0.path("gw.ocsp")).unwrap();
    assert_ne!(first, second);
    assert!(gateway.command(&["reload"]).status.success());
    assert_eq!(stapled(&gateway), twice(&second));
    // A file that is no response changes nothing.
    std::fs::write(authority.0.path("gw.ocsp"), "garbage").unwrap();
    assert!(!gateway.command(&["reload"]).status.success());
    assert_eq!(stapled(&gateway), twice(&second));
}

#[test]
fn a_response_is_read_again_when_its_file_changes() {
    let authority = Authority::new();
    authority.respond("gw.ocsp", "gw.pem", GOOD);
    let toml = format!("{}[reload]\nwatch = true\n", authority.toml("gw.ocsp"));
    let gateway = Gateway::start(&toml);
    authority.respond("gw.ocsp", "gw.pem", GOOD);
    let second = std::fs::read(authority.0.path("gw.ocsp")).unwrap();
    eventually("the new response is stapled", || {
        stapled(&gateway).iter().all(|one| *one == second)
    });
}

#[test]
fn openssl_finds_the_response_good() {
    let authority = Authority::new();
    authority.respond("gw.ocsp", "gw.pem", GOOD);
    let gateway = Gateway::start(&authority.toml("gw.ocsp"));
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-status", "-servername", "gw.test", "-verify_return_error"]);
    openssl.arg("-connect").arg(gateway.address().to_string());
    openssl.arg("-CAfile").arg(authority.0.path("ca.pem")).stdin(Stdio::null());
    let done = openssl.output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(text.contains("OCSP Response Status: successful"), "{done:?}");
    assert!(text.contains("Cert Status: good"), "{text}");
}

/// Responses that clients would hold against the gateway are told of and kept back.
#[test]
fn what_does_not_help_is_not_stapled() {
    let authority = Authority::new();
    let table = [
        ("gw.pem", REVOKED, "it says that the certificate is revoked"),
        ("gw.pem", "V\t400101000000Z\t\t99", "the authority does not know the certificate"),
        ("other.pem", "V\t400101000000Z\t\t12", "it is for another certificate"),
    ];
    for (of, entry, wanted) in table {
        authority.respond("gw.ocsp", of, entry);
        let gateway = Gateway::start(&authority.toml("gw.ocsp"));
        assert!(gateway.log().contains(wanted), "{wanted}: {}", gateway.log());
        assert!(gateway.log().contains("is not stapled"), "{}", gateway.log());
        assert_eq!(stapled(&gateway), twice(b""), "{wanted}");
    }
}

#[test]
fn wrong_files_are_explained() {
    let authority = Authority::new();
    std::fs::write(authority.0.path("garbage"), [0x30, 0x82, 1, 2, 3]).unwrap();
    for (file, wanted) in [
        ("missing", "cannot read the OCSP response"),
        ("garbage", "is not an OCSP response"),
        ("gw.pem", "is not an OCSP response"),
    ] {
        let toml = authority.toml(file);
        let failed = Launch { toml, ..Launch::default() }.start().err().expect("it does not start");
        assert!(failed.stderr.contains(wanted), "{file}: {}", failed.stderr);
        assert!(failed.stderr.contains("ringway.toml:4:"), "{}", failed.stderr);
    }
    let path = |file: &str| authority.0.path(file).display().to_string();
    let toml = format!(
        "[[routes]]\nupstream = \"app\"\n[upstreams.app]\nendpoints = [\"127.0.0.1:1\"]\n\
         tls.certificate = {{ file = \"{}\", key = \"{}\", ocsp = \"x\" }}\n",
        path("gw.pem"),
        path("gw.key")
    );
    let failed = Launch { toml, ..Launch::default() }.start().err().expect("it does not start");
    assert!(failed.stderr.contains("`ocsp` has no effect here"), "{}", failed.stderr);
}
