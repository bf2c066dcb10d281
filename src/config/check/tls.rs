//! TLS of listeners and upstreams: files read, keys tried, the names of certificates found.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_native_certs::load_native_certs;
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

use super::{
    TOP,
    certificates::{self, About, Loaded},
    crls, staples, tickets,
};
use crate::config::{
    bounded,
    decode::{At, Sink},
    file::{self, Certificate, File, HANDSHAKE_BURST_DEFAULT, Listener, ListenerTls},
    report::{Place, Problem},
    snapshot::{
        ACME_TLS, AcmeName, Certificates, Http2Use, Protocol, TlsRule, UpstreamTls, dns_names,
    },
    values::{AcmeChallenge, ClientCertificate, EndpointName, TlsKernel, TlsVersion},
};

use crate::policy::limit::Window;

/// Largest file with certificates or a key, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
/// What may be spoken inside (RFC 7301), first the best.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

fn protocols(http2: Http2Use) -> Vec<Vec<u8>> {
    let offered = match http2 {
        Http2Use::On => &PROTOCOLS[..],
        Http2Use::Only => &PROTOCOLS[..1],
        Http2Use::Off => &PROTOCOLS[1..],
    };
    offered.iter().map(|name| name.to_vec()).collect()
}

/// The checked TLS of a listener; `None` after a report.
pub(super) fn tls(
    tls: &ListenerTls,
    http2: Http2Use,
    folder: &Path,
    sink: &mut Sink,
) -> Option<TlsRule> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let Own { shown, first_expiry_s, names, is_good } = own(tls, folder, &provider, sink)?;
    let versions: &[_] = match *tls.min_version {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let verifier = verifier(tls, folder, &provider, sink);
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("invariant: the provider has cipher suites of both versions");
    let asks = verifier.is_some();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(shown));
    let kernel = *tls.kernel == TlsKernel::Auto;
    // To the kernel, and to nobody else.
    server.enable_secret_extraction = kernel;
    server.alpn_protocols = protocols(http2);
    if names.iter().any(|name| name.challenge == AcmeChallenge::TlsAlpn01) {
        server.alpn_protocols.push(ACME_TLS.to_vec());
    }
    // What resumes a session is in the client's ticket: nothing is stored here.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    let makes_tickets = tickets::of_listener(tls, tls.client_ca.value.is_some(), folder, sink);
    let is_good = is_good && (makes_tickets.is_some() || tls.ticket_secrets.value.is_none());
    if let Some(tickets) = makes_tickets {
        server.ticketer = tickets;
    }
    let handshake_timeout_ms = tls.handshake_timeout.value.0;
    let hsts = hsts(tls, sink);
    let tells_certificate = asks && *tls.client_cert_field;
    let server = Arc::new(server);
    let is_good = is_good && asks == tls.client_ca.value.is_some();
    let handshake_rate = handshake_rate(tls, sink);
    is_good.then_some(TlsRule {
        server,
        certificates: tls.certificates.len(),
        first_expiry_s,
        handshake_timeout_ms,
        handshake_rate,
        kernel,
        asks_certificate: asks,
        tells_certificate,
        hsts,
        acme: names,
    })
}

/// What a listener has to show.
struct Own {
    shown: Certificates,
    first_expiry_s: Option<i64>,
    /// Those that an authority issues.
    names: Vec<AcmeName>,
    is_good: bool,
}

/// The certificates of a listener; `None`, or not good, after a report.
fn own(
    tls: &ListenerTls,
    folder: &Path,
    provider: &Arc<CryptoProvider>,
    sink: &mut Sink,
) -> Option<Own> {
    let mut shown = Certificates::default();
    if tls.certificates.is_empty() && tls.acme.value.is_none() && !tls.acme.is_wrong() {
        let place = tls.certificates.place().unwrap_or(TOP);
        let problem = Problem::error(place, "TLS needs at least one certificate");
        sink.push(problem.fix(
            "write certificates = [{ file = \"chain.pem\", key = \"key.pem\" }], or have them \
                 issued: acme = { domains = [\"example.com\"], agree_tos = true }",
        ));
        return None;
    }
    let (mut is_good, mut first_expiry_s) = (true, None::<i64>);
    let all = certificates::all(&tls.certificates, folder, provider, sink);
    for (certificate, loaded) in tls.certificates.iter().zip(all) {
        let Some(Loaded { key, about }) = loaded else {
            is_good = false;
            continue;
        };
        let expires_s = about.until.timestamp();
        first_expiry_s = Some(first_expiry_s.map_or(expires_s, |first| first.min(expires_s)));
        let staple = staples::of_certificate(certificate, &key.cert[0], folder, sink);
        shown.add(key, staple, &about.names);
    }
    let names = match &tls.acme.value {
        Some(acme) => super::acme::of_listener(acme, tls, folder, sink),
        None => Some(Vec::new()),
    };
    is_good &= names.is_some();
    let names = names.unwrap_or_default();
    names.iter().for_each(|name| shown.add_issued(name));
    Some(Own { shown, first_expiry_s, names, is_good })
}

/// The kernel's TLS is a part of its TCP.
pub(super) fn refuse_kernel(listener: &Listener, sink: &mut Sink) {
    if let Some(tls) = &listener.tls.value
        && *tls.kernel == TlsKernel::Auto
        && let Some(place) = tls.kernel.place()
    {
        let title = "`kernel` is for TCP, and this listener has a Unix socket";
        sink.push(Problem::error(place, title).fix("remove `kernel`"));
    }
}

fn handshake_rate(tls: &ListenerTls, sink: &mut Sink) -> Option<Window> {
    let burst = *tls.handshake_burst;
    if let (Some(place), None, true) =
        (tls.handshake_burst.place(), *tls.handshake_rate, burst != HANDSHAKE_BURST_DEFAULT)
    {
        let title = "`handshake_burst` has no effect without `handshake_rate`";
        sink.push(Problem::error(place, title).fix("add handshake_rate = 20, or remove it"));
    }
    tls.handshake_rate.map(|per_second| Window::new(per_second, 1_000_000_000, burst))
}

/// Who judges the certificates of clients; `None` when nobody is asked for one, or after a report.
fn verifier(
    tls: &ListenerTls,
    folder: &Path,
    provider: &Arc<CryptoProvider>,
    sink: &mut Sink,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let Some(ca) = tls.client_ca.some() else {
        let (kind, lists) = (&tls.client_certificate, &tls.client_crls);
        let others = [
            ("client_certificate", kind.place(), **kind != ClientCertificate::Required),
            ("client_crls", lists.place(), !lists.is_empty()),
            ("client_cert_field", tls.client_cert_field.place(), !*tls.client_cert_field),
        ];
        for (key, place, differs) in others {
            if let Some(place) = place.filter(|_| differs) {
                let title = format!("`{key}` has no effect without `client_ca`");
                sink.push(Problem::error(place, title).fix("add client_ca = \"authorities.pem\""));
            }
        }
        return None;
    };
    let lists = crls::all(&tls.client_crls, folder, sink)?;
    let roots = Arc::new(roots_of(&ca, folder, sink)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .with_crls(lists)
        .enforce_revocation_expiration();
    let builder = match *tls.client_certificate {
        ClientCertificate::Required => builder,
        ClientCertificate::Optional => builder.allow_unauthenticated(),
    };
    let place = tls.client_crls.place().or(ca.place()).unwrap_or(TOP);
    builder.build().map_err(|error| crls::report("clients'", &error, place, sink)).ok()
}

fn hsts(tls: &ListenerTls, sink: &mut Sink) -> Option<Arc<str>> {
    let age_ms = tls.hsts.value.map(|age| age.0);
    if let (Some(place), None, true) = (tls.hsts_subdomains.place(), age_ms, *tls.hsts_subdomains) {
        let title = "`hsts_subdomains` has no effect without `hsts`";
        sink.push(Problem::error(place, title).fix("add hsts = \"365d\", or remove it"));
    }
    let more = if *tls.hsts_subdomains { "; includeSubDomains" } else { "" };
    age_ms.map(|ms| format!("max-age={}{more}", ms / 1000).into())
}

/// The checked TLS of an upstream; `None` after a report.
pub(super) fn upstream(
    tls: &file::UpstreamTls,
    place: Place,
    protocol: Protocol,
    folder: &Path,
    sink: &mut Sink,
) -> Option<UpstreamTls> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut print = DefaultHasher::new();
    let roots = match tls.ca.some() {
        Some(ca) => roots_of(&ca, folder, sink),
        None => system_roots(place, sink),
    };
    let own = match &tls.certificate.value {
        Some(own) => Some(certified(own, folder, &provider, sink)?.key),
        None => None,
    };
    let staple = tls.certificate.value.as_ref().and_then(|own| own.ocsp.place());
    if let Some(place) = staple {
        let title =
            "`ocsp` has no effect here: clients are shown such responses, endpoints are not";
        sink.push(Problem::error(place, title).fix("remove it"));
    }
    let roots = roots?;
    roots.subjects().iter().for_each(|subject| subject.as_ref().hash(&mut print));
    roots.roots.iter().for_each(|root| root.subject_public_key_info.as_ref().hash(&mut print));
    own.iter().flat_map(|own| &own.cert).for_each(|part| part.as_ref().hash(&mut print));
    tls.name.value.as_ref().map(|name| &name.0).hash(&mut print);
    let judged_by = (folder, &mut print);
    let verifier = crls::of_endpoints(&tls.crls, roots, &provider, judged_by, sink)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("invariant: the provider has cipher suites of both versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut client = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
    };
    let offered: &[&[u8]] = match protocol {
        Protocol::Http1 => &[b"http/1.1"],
        Protocol::Http2 => &[b"h2"],
        Protocol::Either => &[b"h2", b"http/1.1"],
    };
    client.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    // A session would outlive the judgement.
    let resumes = tls.crls.is_empty();
    Some(UpstreamTls { client: Arc::new(client), resumes, print: print.finish() })
}

/// What the certificate of an endpoint must be for.
pub(super) fn server_name(
    tls: &file::UpstreamTls,
    endpoint: &EndpointName,
    place: Place,
    sink: &mut Sink,
) -> Option<ServerName<'static>> {
    let host = match (&tls.name.value, endpoint) {
        (Some(name), _) => name.0.clone(),
        (None, EndpointName::Tcp(address)) => return Some(address.ip().into()),
        (None, EndpointName::Named { host, .. }) => host.clone(),
        (None, EndpointName::Unix(_)) => {
            let title = "TLS over a Unix socket needs a name that the certificate is for";
            let fix = "add name = \"app.internal\" to the upstream's `tls`";
            sink.push(Problem::error(place, title).fix(fix));
            return None;
        }
    };
    certificate_name(&host, tls.name.place().unwrap_or(place), sink)
}

/// A host as a certificate may name it.
pub(super) fn certificate_name(
    host: &str,
    place: Place,
    sink: &mut Sink,
) -> Option<ServerName<'static>> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    if name.is_err() {
        let title = format!("`{host}` cannot be the name of a certificate");
        sink.push(Problem::error(place, title).fix("write a DNS name or an IP address"));
    }
    name.ok()
}

pub(super) fn roots_of(ca: &At<String>, folder: &Path, sink: &mut Sink) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(ca, folder, sink)? {
        if let Err(error) = roots.add(certificate) {
            let title = format!("a certificate of `{}` cannot be trusted: {error}", ca.value);
            let fix = "name a PEM file with the certificates of authorities";
            sink.push(Problem::error(ca.place().unwrap_or(TOP), title).fix(fix));
            return None;
        }
    }
    Some(roots)
}

pub(super) fn system_roots(place: Place, sink: &mut Sink) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // One that cannot be read does not matter where others can.
    let (added, _) = roots.add_parsable_certificates(load_native_certs().certs);
    if added == 0 {
        let title = "this system has no certificates of authorities, so no endpoint is believed";
        let fix = "install them (the package is called ca-certificates), or name a file in `ca`";
        sink.push(Problem::error(place, title).fix(fix));
        return None;
    }
    Some(roots)
}

/// The files of all listeners and upstreams.
pub(super) fn files(file: &File, folder: &Path) -> Vec<PathBuf> {
    let listeners = file.listeners.iter().filter_map(|listener| listener.tls.value.as_ref());
    let of_listener = |tls: &ListenerTls| {
        let certificates = tls.certificates.iter().flat_map(|one| of_certificate(one));
        let lists = tls.client_crls.iter().map(|list| list.value.clone());
        let acme = tls.acme.value.iter().flat_map(super::acme::files);
        let others = [&tls.client_ca, &tls.ticket_secrets].map(|file| file.value.clone());
        let others = others.into_iter().flatten().chain(acme);
        certificates.chain(lists).chain(others).collect::<Vec<String>>()
    };
    let upstreams = file.upstreams.value.0.iter().filter_map(|(_, upstream)| upstream.as_ref());
    let of_upstream = |tls: &file::UpstreamTls| {
        let own = tls.certificate.value.iter().flat_map(of_certificate);
        let lists = tls.crls.iter().map(|list| list.value.clone());
        own.chain(lists).chain(tls.ca.value.clone()).collect::<Vec<_>>()
    };
    let upstreams = upstreams.filter_map(|upstream| upstream.tls.value.as_ref());
    let lists = file.address_lists.value.0.iter().filter_map(|(_, list)| list.as_ref());
    let lists = lists.flat_map(|list| list.files.iter().map(|file| file.value.clone()));
    let names = listeners.flat_map(of_listener).chain(upstreams.flat_map(of_upstream)).chain(lists);
    names.map(|name| folder.join(name)).collect()
}

fn of_certificate(one: &Certificate) -> impl Iterator<Item = String> {
    let pair = [one.file.value.clone(), one.key.value.clone()];
    pair.into_iter().chain(one.ocsp.value.clone())
}

/// A certificate with its key.
pub(super) fn certified(
    certificate: &Certificate,
    folder: &Path,
    provider: &CryptoProvider,
    sink: &mut Sink,
) -> Option<Loaded> {
    // Both, so that what is wrong with either is reported.
    let chain = read(&certificate.file, folder, "certificate", FILE_BYTES_MAX, sink);
    let key = read(&certificate.key, folder, "key", FILE_BYTES_MAX, sink);
    let print = chain.as_ref().zip(key.as_ref()).map(|(c, k)| certificates::print(c, k));
    if let Some(known) = print.as_ref().and_then(certificates::known) {
        warn_of_time(&known.about, &certificate.file, sink);
        return Some(known);
    }
    let chain = chain.and_then(|pem| chain_in(&pem, &certificate.file, sink));
    let key = key.and_then(|pem| key_in(&pem, &certificate.key, sink));
    let (chain, key) = (chain?, key?);
    let place = certificate.key.place().unwrap_or(TOP);
    let signing = match provider.key_provider.load_private_key(key) {
        Ok(signing) => signing,
        Err(error) => {
            let title = format!("the key `{}` cannot be used: {error}", certificate.key.value);
            let fix = "use an ECDSA (P-256, P-384), Ed25519 or RSA key (2048 bits or more)";
            sink.push(Problem::error(place, title).fix(fix));
            return None;
        }
    };
    let about = about(&chain[0], &certificate.file, sink)?;
    let certified = CertifiedKey::new(chain, signing);
    // A key whose public part cannot be told is taken at its word.
    if matches!(certified.keys_match(), Err(rustls::Error::InconsistentKeys(reason))
        if reason == rustls::InconsistentKeys::KeyMismatch)
    {
        let title = format!(
            "the key `{}` does not belong to the certificate `{}`",
            certificate.key.value, certificate.file.value
        );
        let problem = Problem::error(place, title)
            .related(certificate.file.place().unwrap_or(TOP), "the first certificate of this file");
        sink.push(problem.fix("name the key that the certificate was made for"));
        return None;
    }
    let loaded = Loaded { key: Arc::new(certified), about };
    Some(certificates::remember(print?, loaded))
}

fn chain(
    file: &At<String>,
    folder: &Path,
    sink: &mut Sink,
) -> Option<Vec<CertificateDer<'static>>> {
    let pem = read(file, folder, "certificate", FILE_BYTES_MAX, sink)?;
    chain_in(&pem, file, sink)
}

fn chain_in(
    pem: &[u8],
    file: &At<String>,
    sink: &mut Sink,
) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let place = file.place().unwrap_or(TOP);
    let problem = match found {
        Ok(chain) if chain.is_empty() => {
            let title = format!("there is no certificate in `{}`", file.value);
            Problem::error(place, title)
        }
        Ok(chain) => return Some(chain),
        Err(error) => {
            let title = format!("`{}` is not a file of certificates: {error}", file.value);
            Problem::error(place, title)
        }
    };
    let fix = "name a PEM file (-----BEGIN CERTIFICATE-----) with the certificate first, then those \
               that issued it";
    sink.push(problem.fix(fix));
    None
}

fn key_in(pem: &[u8], file: &At<String>, sink: &mut Sink) -> Option<PrivateKeyDer<'static>> {
    let problem = match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => return Some(key),
        Err(_) if pem.windows(9).any(|bytes| bytes == b"ENCRYPTED") => {
            let title = format!("the key in `{}` is encrypted", file.value);
            let fix = "decrypt it (openssl pkey -in key.pem -out plain.pem) and protect the file by \
                       its permissions";
            Problem::error(file.place().unwrap_or(TOP), title).fix(fix)
        }
        // What is in the file is not shown: it may be a key.
        Err(_) => {
            let title = format!("there is no private key in `{}`", file.value);
            let fix = "name a PEM file with a PKCS#8, SEC1 or PKCS#1 key (-----BEGIN ... PRIVATE \
                       KEY-----)";
            Problem::error(file.place().unwrap_or(TOP), title).fix(fix)
        }
    };
    sink.push(problem);
    None
}

pub(super) fn read(
    file: &At<String>,
    folder: &Path,
    what: &str,
    bytes_max: u64,
    sink: &mut Sink,
) -> Option<Vec<u8>> {
    let path = folder.join(&file.value);
    let read = bounded::read(&path, bytes_max);
    read.map_err(|error| {
        let title = format!("cannot read the {what} file `{}`: {error}", path.display());
        let fix = "write a path relative to this configuration, or an absolute one; the gateway's \
                   user must be able to read it";
        sink.push(Problem::error(file.place().unwrap_or(TOP), title).fix(fix));
    })
    .ok()
}

/// What is said in a certificate. One that is out of its time is reported, and used: a gateway that
/// does not start serves nobody.
fn about(der: &CertificateDer<'_>, file: &At<String>, sink: &mut Sink) -> Option<About> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        let title = format!("the first certificate of `{}` is not well-formed", file.value);
        let place = file.place().unwrap_or(TOP);
        sink.push(Problem::error(place, title).fix("have it issued anew"));
        return None;
    };
    let validity = certificate.validity();
    let (from, until) = (validity.not_before, validity.not_after);
    let about = About { names: dns_names(&certificate).into(), from, until };
    warn_of_time(&about, file, sink);
    Some(about)
}

fn warn_of_time(about: &About, file: &At<String>, sink: &mut Sink) {
    let (name, now) = (&file.value, ASN1Time::now());
    let title = match (about.until < now, about.from > now) {
        (true, _) => format!("the certificate `{name}` has expired ({})", about.until),
        (false, true) => {
            format!("the certificate `{name}` is not valid yet (from {})", about.from)
        }
        (false, false) => return,
    };
    let place = file.place().unwrap_or(TOP);
    sink.push(
        Problem::warning(place, title).fix("put a new one in its place; clients refuse this"),
    );
}
