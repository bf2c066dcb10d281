//! TLS of both sides: what the generator believes, and whether it resumes sessions; what the origin
//! presents.
//!
//! Every connection of the generator has session tickets of its own, so that with resumption each
//! handshake but its first resumes, however many connections there are.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, SupportedKxGroup, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion, version,
};

/// Tickets are kept for the one server that is asked.
const SERVERS: usize = 1;

/// How the generator speaks TLS.
pub struct TlsPlan {
    config: ClientConfig,
    /// Name sent and, unless insecure, required of the certificate.
    pub name: ServerName<'static>,
    /// Whether sessions are resumed.
    pub resume: bool,
}

/// Whom the generator believes.
pub enum Trust<'a> {
    /// Certificates issued by those in this PEM file.
    Authority(&'a Path),
    /// Every certificate.
    Anyone,
}

/// What flags say about TLS.
pub struct Wanted<'a> {
    /// Whom to believe.
    pub trust: Trust<'a>,
    /// Server name.
    pub name: &'a str,
    /// Resume sessions.
    pub resume: bool,
    /// Only this version: 1.2 or 1.3.
    pub version: Option<&'a str>,
    /// Only this key exchange, by its name in lower case.
    pub group: Option<&'a str>,
    /// Only suites with this cipher, such as aes-128-gcm.
    pub cipher: Option<&'a str>,
    /// Offer HTTP/2 and nothing else.
    pub http2: bool,
}

impl TlsPlan {
    /// Reads the authority's file and checks the name.
    pub fn new(wanted: &Wanted<'_>) -> Result<Self, String> {
        let name = ServerName::try_from(wanted.name.to_owned())
            .map_err(|_| format!("`{}` is no server name: set --sni NAME", wanted.name))?;
        let provider = Arc::new(provider(wanted.group, wanted.cipher)?);
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions(wanted.version)?)
            .map_err(|e| e.to_string())?;
        let mut config = match wanted.trust {
            Trust::Authority(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Trust::Anyone => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
                .with_no_client_auth(),
        };
        let protocol: &[u8] = if wanted.http2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Self { config, name, resume: wanted.resume })
    }

    /// The settings of one connection, with tickets of its own.
    pub fn connection(&self) -> Arc<ClientConfig> {
        let mut config = self.config.clone();
        config.resumption = if self.resume {
            Resumption::in_memory_sessions(SERVERS)
        } else {
            Resumption::disabled()
        };
        Arc::new(config)
    }
}

/// Settings of the origin: its chain and key in PEM files, HTTP/2 preferred where it is spoken.
pub fn server(chain: &Path, key: &Path, http2: bool) -> Result<Arc<ServerConfig>, String> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|e| format!("{}: no private key in PEM: {e}", key.display()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| format!("certificate and key do not fit: {e}"))?;
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    Ok(Arc::new(config))
}

/// What is offered: all that rustls has, or only what is asked for.
fn provider(group: Option<&str>, cipher: Option<&str>) -> Result<CryptoProvider, String> {
    let mut provider = aws_lc_rs::default_provider();
    if let Some(only) = group {
        provider.kx_groups = aws_lc_rs::ALL_KX_GROUPS.to_vec();
        let name = |group: &&dyn SupportedKxGroup| format!("{:?}", group.name()).to_lowercase();
        let known = provider.kx_groups.iter().map(name).collect::<Vec<_>>().join(", ");
        provider.kx_groups.retain(|group| name(group) == only);
        if provider.kx_groups.is_empty() {
            return Err(format!("--tls-group `{only}`: there are {known}"));
        }
    }
    if let Some(only) = cipher {
        let part = only.replace('-', "_").to_uppercase();
        provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains(&part));
        if provider.cipher_suites.is_empty() {
            return Err(format!(
                "--tls-cipher `{only}`: there are aes-128-gcm, aes-256-gcm and chacha20-poly1305"
            ));
        }
    }
    Ok(provider)
}

fn versions(only: Option<&str>) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    match only {
        None => Ok(rustls::DEFAULT_VERSIONS.to_vec()),
        Some("1.2") => Ok(vec![&version::TLS12]),
        Some("1.3") => Ok(vec![&version::TLS13]),
        Some(other) => Err(format!("TLS `{other}` is not spoken: write 1.2 or 1.3")),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>());
    match read {
        Ok(found) if found.is_empty() => Err(format!("{}: no certificate in PEM", path.display())),
        Ok(found) => Ok(found),
        Err(e) => Err(format!("{}: no certificates in PEM: {e}", path.display())),
    }
}

/// Believes every certificate, but still checks that the server has its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
