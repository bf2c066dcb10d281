//! TLS of a listener as the data path uses it.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use ahash::AHashMap;
use rustls::{
    ClientConfig, ServerConfig,
    crypto::aws_lc_rs::Ticketer,
    server::{ClientHello, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::prelude::{GeneralName, X509Certificate};

use super::acme::{ACME_TLS, AcmeName, Cell};

use crate::policy::limit::Window;

/// TLS of one listener.
#[derive(Clone, Debug)]
pub struct TlsRule {
    /// What clients are presented, and what they may speak. Holds private keys, which its `Debug`
    /// does not show.
    pub server: Arc<ServerConfig>,
    /// How many certificates were read from files, and the Unix time when the first of them
    /// expires.
    pub certificates: usize,
    pub first_expiry_s: Option<i64>,
    /// From the connection to the end of its handshake.
    pub handshake_timeout_ms: u64,
    /// How many handshakes a client address may begin. `None`: any number.
    pub handshake_rate: Option<Window>,
    /// The kernel seals and opens records, where it offers that.
    pub kernel: bool,
    /// Clients are asked for a certificate.
    pub asks_certificate: bool,
    /// Upstreams are told the client's certificate.
    pub tells_certificate: bool,
    /// Value of Strict-Transport-Security.
    pub hsts: Option<Arc<str>>,
    /// Names whose certificates an authority issues.
    pub acme: Vec<AcmeName>,
}

/// TLS to the endpoints of an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Whom this gateway believes, and what it shows of itself.
    pub client: Arc<ClientConfig>,
    /// Sessions may be resumed, in which the certificate is not judged again.
    pub resumes: bool,
    /// Of everything it was made from, so that connections are kept over reloads that change
    /// nothing of it.
    pub print: u64,
}

impl TlsRule {
    /// How many certificates clients can be shown now, those included that an authority has issued,
    /// and the Unix time when the first of them expires.
    pub fn there(&self) -> (usize, Option<i64>) {
        let expiry = |name: &AcmeName| {
            let until = name.cell.certificate.load().as_ref()?.not_after;
            let since = until.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            i64::try_from(since.as_secs()).ok()
        };
        let issued: Vec<i64> = self.acme.iter().filter_map(expiry).collect();
        let first_s = issued.iter().copied().chain(self.first_expiry_s).min();
        (self.certificates + issued.len(), first_s)
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &UpstreamTls) -> bool {
        self.print == other.print
    }
}

/// The certificates of a listener, found by the name that a client asks for (RFC 6066 §3).
#[derive(Debug, Default)]
pub struct Certificates {
    /// In the order of the configuration: the first is for clients that ask for no name, or for
    /// one that no certificate has.
    all: Vec<Shown>,
    exact: AHashMap<String, Vec<Shown>>,
    /// By what follows the `*.`, which stands for one label (RFC 6125 §6.4.3).
    wildcard: AHashMap<String, Vec<Shown>>,
    /// Those that an authority issues, by name.
    issued: AHashMap<String, Arc<Cell>>,
    /// The names of `issued`, in the order of the configuration.
    issued_names: Vec<String>,
}

/// A certificate as clients are shown it.
#[derive(Clone, Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
    /// The same with a staple, and the end of its time.
    stapled: Option<(Arc<CertifiedKey>, i64)>,
}

/// What an authority says of a certificate (RFC 6960), and the Unix time until which it may be
/// shown.
#[derive(Clone, Debug)]
pub struct Staple {
    pub response: Vec<u8>,
    pub until_s: i64,
}

impl Shown {
    /// The certificate, stapled as long as what is stapled is in its time: clients that are shown
    /// an old one give up.
    fn at(&self, now_s: impl FnOnce() -> i64) -> Arc<CertifiedKey> {
        let stapled = self.stapled.as_ref();
        let key = stapled.filter(|(_, until_s)| now_s() <= *until_s).map(|(key, _)| key);
        key.unwrap_or(&self.key).clone()
    }
}

impl Certificates {
    /// Adds one that is for `names`, which may begin with `*.`.
    pub fn add(&mut self, key: Arc<CertifiedKey>, staple: Option<Staple>, names: &[String]) {
        let stapled = staple.map(|staple| {
            let mut key = (*key).clone();
            key.ocsp = Some(staple.response);
            (Arc::new(key), staple.until_s)
        });
        let shown = Shown { key, stapled };
        for name in names {
            let name = name.to_ascii_lowercase();
            let keys = match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.to_owned()).or_default(),
                None => self.exact.entry(name).or_default(),
            };
            keys.push(shown.clone());
        }
        self.all.push(shown);
    }

    /// Adds a name whose certificate an authority issues, sooner or later.
    pub fn add_issued(&mut self, name: &AcmeName) {
        self.issued.insert(name.name.clone(), name.cell.clone());
        self.issued_names.push(name.name.clone());
    }

    /// A certificate that an authority issued. `None` where that is nobody's business here, or the
    /// client asks for a name that has none yet.
    fn of_issued(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let current = |cell: &Arc<Cell>| Some(cell.certificate.load().as_ref()?.key.clone());
        match name {
            Some(name) => self.issued.get(name).and_then(current),
            None => self.issued_names.iter().find_map(|name| current(self.issued.get(name)?)),
        }
    }

    fn of_name(&self, name: &str) -> Option<&[Shown]> {
        let lower;
        let name = match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => {
                lower = name.to_ascii_lowercase();
                &lower
            }
            false => name,
        };
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if !self.issued.is_empty() {
            return self.resolve_issued(&hello);
        }
        let named = hello.server_name().and_then(|name| self.of_name(name));
        self.first_fit(named.unwrap_or(&self.all), &hello)
    }
}

impl Certificates {
    /// As [`ResolvesServerCert::resolve`], where an authority issues some of them.
    fn resolve_issued(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let cell = name.as_ref().and_then(|name| self.issued.get(name));
        // It offers nothing but that (RFC 8737 §3).
        let mut offered = hello.alpn().into_iter().flatten();
        if offered.next() == Some(ACME_TLS) && offered.next().is_none() {
            return cell?.handshake.load_full();
        }
        if let Some(key) = self.of_issued(name.as_deref()) {
            return Some(key);
        }
        match name.as_deref().and_then(|name| self.of_name(name)) {
            Some(named) => self.first_fit(named, hello),
            // Another name's certificate would tell a client that it is at the wrong place.
            None if cell.is_some() => None,
            None if self.all.is_empty() => self.of_issued(None),
            None => self.first_fit(&self.all, hello),
        }
    }

    fn first_fit(&self, keys: &[Shown], hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A name may have an RSA and an ECDSA key: the first one that the client can verify.
        let fits =
            |shown: &&Shown| shown.key.key.choose_scheme(hello.signature_schemes()).is_some();
        // Where none fits, any: the handshake then fails for what it is, no signature in common,
        // and not as if access had been denied.
        let shown = keys.iter().find(fits).or(keys.first());
        shown.map(|shown| shown.at(unix_s))
    }
}

fn unix_s() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

/// The DNS names that a certificate is for.
pub fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives.iter().flat_map(|found| &found.value.general_names);
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.collect()
}

/// The process's keys of session tickets: what one worker, listener or generation gave out, every
/// other takes back. They are made at start and changed every few hours; a ticket says for which
/// name it is. `None` where the system has no random numbers: then nothing is resumed.
pub fn tickets() -> Option<Arc<dyn ProducesTickets>> {
    static TICKETS: OnceLock<Option<Arc<dyn ProducesTickets>>> = OnceLock::new();
    TICKETS.get_or_init(|| Ticketer::new().ok()).clone()
}

#[cfg(test)]
mod tests {
    use rustls::{crypto::aws_lc_rs::sign::any_supported_type, pki_types::PrivateKeyDer};

    use super::*;

    fn key() -> Arc<CertifiedKey> {
        let made = rcgen::generate_simple_self_signed(Vec::new()).expect("a certificate");
        let der = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let key = any_supported_type(&der).expect("a key that is supported");
        Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key))
    }

    #[test]
    fn names_find_their_certificate() {
        let mut certificates = Certificates::default();
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        certificates.add(key(), None, &names(&["a.example", "B.example"]));
        certificates.add(key(), None, &names(&["*.example", "*.deep.example"]));
        certificates.add(key(), None, &names(&["x.deep.example"]));
        let table = [
            ("a.example", Some(0)),
            ("A.EXAMPLE", Some(0)),
            ("b.example", Some(0)),
            ("c.example", Some(1)),
            // One label, not two, and not none.
            ("c.d.example", None),
            ("example", None),
            ("y.deep.example", Some(1)),
            ("x.deep.example", Some(2)),
            ("other.test", None),
        ];
        for (name, wanted) in table {
            let found = certificates.of_name(name).map(|keys| {
                let is_it = |shown: &Shown| Arc::ptr_eq(&shown.key, &keys[0].key);
                certificates.all.iter().position(is_it).expect("one of them")
            });
            assert_eq!(found, wanted, "{name}");
        }
    }

    #[test]
    fn staples_end_with_their_time() {
        let mut certificates = Certificates::default();
        let staple = Staple { response: b"good".to_vec(), until_s: 1000 };
        certificates.add(key(), Some(staple), &["a.example".to_owned()]);
        let shown = &certificates.of_name("a.example").expect("one")[0];
        let with = |now_s| shown.at(|| now_s).ocsp.clone();
        assert_eq!((with(1000), with(1001)), (Some(b"good".to_vec()), None));
        assert_eq!(shown.at(|| 0).cert, shown.at(|| 1001).cert);
    }
}
