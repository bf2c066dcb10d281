//! Certificates that come from an authority (ACME): what control puts there and workers read.
//!
//! A [`Cell`] is one name's, the same in every snapshot of the process, so that a new certificate
//! is served by the next handshake of every worker, and a challenge is known to all of them before
//! the authority hears that it may look. Control writes, workers only read, without a lock.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::values::{AcmeChallenge, Secret};

/// The protocol of handshakes that prove a name (RFC 8737 §6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";
/// Where an authority asks for a token (RFC 8555 §8.3).
pub const CHALLENGE_PATH: &[u8] = b"/.well-known/acme-challenge/";

/// A name that a certificate is got for.
#[derive(Clone, Debug)]
pub struct AcmeName {
    pub name: String,
    pub challenge: AcmeChallenge,
    pub issuer: Arc<AcmeIssuer>,
    pub cell: Arc<Cell>,
}

impl AcmeName {
    /// Where its certificate and key are kept.
    pub fn file(&self) -> PathBuf {
        self.issuer.folder.join(format!("{}.pem", self.name))
    }
}

/// Whom certificates are got from.
#[derive(Debug)]
pub struct AcmeIssuer {
    /// URL of its directory.
    pub directory: String,
    pub email: Option<String>,
    /// For the account, when it is made.
    pub external_account: Option<ExternalAccount>,
    /// For what belongs to this authority.
    pub folder: PathBuf,
    /// Whom to believe that it is this authority.
    pub client: Arc<ClientConfig>,
}

/// An account at the authority that the gateway's own is bound to (RFC 8555 §7.3.4).
#[derive(Clone, Debug)]
pub struct ExternalAccount {
    pub key_id: String,
    /// Of HMAC with SHA-256.
    pub key: Secret<Vec<u8>>,
}

/// The folder of an authority: the readable part of its URL.
pub fn folder(storage: &Path, directory: &str) -> PathBuf {
    let text = directory.trim_start_matches("https://");
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let name: String = text.chars().map(plain).collect();
    storage.join(name.trim_matches(['-', '.']))
}

/// What workers know of one name.
#[derive(Debug, Default)]
pub struct Cell {
    /// `None` until there is a first one.
    pub certificate: ArcSwapOption<Issued>,
    /// For handshakes of [`ACME_TLS`]; only while the authority may ask.
    pub handshake: ArcSwapOption<CertifiedKey>,
    /// For requests at [`CHALLENGE_PATH`]; only while the authority may ask.
    pub token: ArcSwapOption<Token>,
}

/// What an authority asks for, and the answer.
#[derive(Debug)]
pub struct Token {
    pub token: String,
    pub answer: String,
}

/// The cell of a name, the same for as long as any snapshot has it. `true`: it is new.
pub fn cell(file: &Path) -> (Arc<Cell>, bool) {
    static CELLS: Mutex<Option<HashMap<PathBuf, Weak<Cell>>>> = Mutex::new(None);
    let mut cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
    let cells = cells.get_or_insert_default();
    if let Some(cell) = cells.get(file).and_then(Weak::upgrade) {
        return (cell, false);
    }
    cells.retain(|_, cell| cell.strong_count() > 0);
    let cell = Arc::<Cell>::default();
    cells.insert(file.to_owned(), Arc::downgrade(&cell));
    (cell, true)
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Issued {
    pub key: Arc<CertifiedKey>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Issued {
    /// From a key and a chain in one text, as they are kept. Nothing of it is in an error.
    pub fn from_pem(pem: &[u8], name: &str) -> Result<Issued, String> {
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "there is no private key")?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.map_err(|e| format!("the chain of certificates: {e}"))?;
        let first = chain.first().ok_or("there is no certificate")?;
        let (_, parsed) =
            X509Certificate::from_der(first).map_err(|_| "the certificate is not well-formed")?;
        let time = |at: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(at).unwrap_or(0));
        let (not_before, not_after) = (
            time(parsed.validity().not_before.timestamp()),
            time(parsed.validity().not_after.timestamp()),
        );
        let names = super::tls::dns_names(&parsed);
        if !names.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            return Err(format!("the certificate is not for {name}"));
        }
        let signing = any_supported_type(&key).map_err(|_| "the key cannot be used")?;
        let key = CertifiedKey::new(chain, signing);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err("the key does not belong to the certificate".to_owned()),
        }
        Ok(Issued { key: Arc::new(key), not_before, not_after })
    }

    /// How long it is for in all.
    pub fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }
}

/// What a listener answers before anything is routed.
#[derive(Clone, Debug, Default)]
pub struct Ahead {
    /// Every request is sent to https at this port.
    pub https_port: Option<u16>,
    /// Names that an authority may ask about here.
    pub challenges: Vec<Arc<Cell>>,
}

impl Ahead {
    /// The answer to an authority's question, while it may ask.
    pub fn answer(&self, path: &[u8]) -> Option<Arc<Token>> {
        let token = path.strip_prefix(CHALLENGE_PATH)?;
        self.challenges.iter().find_map(|cell| {
            cell.token.load().as_ref().filter(|own| own.token.as_bytes() == token).cloned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_cell_for_as_long_as_somebody_has_it() {
        let (file, other) = (Path::new("/x/a.example.pem"), Path::new("/x/b.example.pem"));
        let (first, is_new) = cell(file);
        assert!(is_new);
        let (again, is_new) = cell(file);
        assert!(!is_new && Arc::ptr_eq(&first, &again));
        assert!(!Arc::ptr_eq(&first, &cell(other).0));
        drop((first, again));
        assert!(cell(file).1);
    }

    #[test]
    fn folders_are_readable() {
        let of = |url: &str| folder(Path::new("/s"), url).display().to_string();
        assert_eq!(of("https://127.0.0.1:14000/dir"), "/s/127.0.0.1-14000-dir");
        assert_eq!(of("https://a.example/../../etc/"), "/s/a.example-..-..-etc");
        assert_eq!(of("https://../.."), "/s/");
    }

    #[test]
    fn only_what_is_pending_is_answered() {
        let (a, b) = (Arc::<Cell>::default(), Arc::<Cell>::default());
        let ahead = Ahead { https_port: None, challenges: vec![a, b.clone()] };
        let path = b"/.well-known/acme-challenge/T";
        assert!(ahead.answer(path).is_none());
        let token = Token { token: "T".to_owned(), answer: "T.x".to_owned() };
        b.token.store(Some(Arc::new(token)));
        assert_eq!(ahead.answer(path).map(|token| token.answer.clone()).as_deref(), Some("T.x"));
        assert!(ahead.answer(b"/.well-known/acme-challenge/").is_none());
        assert!(ahead.answer(b"/.well-known/acme-challenge/TT").is_none());
        b.token.store(None);
        assert!(ahead.answer(path).is_none());
    }

    #[test]
    fn a_pair_is_taken_only_whole() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).expect("made");
        let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let (key, chain) = (made.signing_key.serialize_pem(), made.cert.pem());
        let read = |text: &str| Issued::from_pem(text.as_bytes(), "A.example").map(|_| ());
        assert_eq!(read(&format!("{key}{chain}")), Ok(()));
        assert_eq!(read(&chain), Err("there is no private key".to_owned()));
        assert_eq!(read(&key), Err("there is no certificate".to_owned()));
        let wrong = read(&format!("{other}{chain}"));
        assert_eq!(wrong, Err("the key does not belong to the certificate".to_owned()));
        let pem = format!("{key}{chain}");
        let wrong = Issued::from_pem(pem.as_bytes(), "b.example").map(|_| ());
        assert_eq!(wrong, Err("the certificate is not for b.example".to_owned()));
    }
}
