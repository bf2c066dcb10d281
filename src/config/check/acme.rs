//! Certificates that an authority issues (ACME): what the keys must say together, and what is on
//! disk of them already.

use std::{io::ErrorKind, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};

use super::{Once, TOP, secrets, tls};
use crate::config::{
    decode::{At, Sink},
    file::{self, Acme, File, Listener, ListenerTls},
    report::{Place, Problem},
    snapshot::{
        AcmeIssuer, AcmeName, Ahead, Issued, ListenerRule,
        acme::{ExternalAccount, cell, folder},
    },
    values::{AcmeChallenge, ClientCertificate, Secret},
};

/// Names of one listener: each has an order of its own, and authorities count those.
const DOMAINS_MAX: usize = 100;

/// The names of a listener; `None` after a report.
pub(super) fn of_listener(
    acme: &Acme,
    tls: &ListenerTls,
    base: &Path,
    sink: &mut Sink,
) -> Option<Vec<AcmeName>> {
    let place = tls.acme.place().unwrap_or(TOP);
    let before = sink.problems.len();
    if acme.domains.is_empty() && !acme.domains.is_wrong() {
        let problem = Problem::error(acme.domains.place().unwrap_or(place), "`acme` has no names");
        sink.push(problem.fix("write domains = [\"example.com\"], the names that lead here"));
    }
    if acme.domains.len() > DOMAINS_MAX {
        let title = format!("{} names, and at most {DOMAINS_MAX} can be", acme.domains.len());
        let problem = Problem::error(acme.domains.place().unwrap_or(place), title);
        sink.push(problem.fix("spread them over listeners, or have their certificates in files"));
    }
    let mut names = Once::default();
    for name in acme.domains.iter() {
        let fix = "name it once";
        names.check(&name.value.0, name.place().unwrap_or(TOP), "the name", fix, sink);
    }
    if !*acme.agree_tos && !acme.agree_tos.is_wrong() {
        let title = "certificates are issued only to those who agree to the authority's terms of \
                     service";
        let fix = "read them (Let's Encrypt: https://letsencrypt.org/repository/) and write \
                   agree_tos = true";
        sink.push(Problem::error(acme.agree_tos.place().unwrap_or(place), title).fix(fix));
    }
    let is_required =
        tls.client_ca.value.is_some() && *tls.client_certificate == ClientCertificate::Required;
    if is_required && *acme.challenge == AcmeChallenge::TlsAlpn01 {
        let title = "the authority has no certificate to show, and this listener requires one";
        let at = acme.challenge.place().unwrap_or(place);
        let problem = Problem::error(at, title)
            .related(tls.client_ca.place().unwrap_or(TOP), "clients are asked for one here");
        sink.push(
            problem.fix("write challenge = \"http-01\", or client_certificate = \"optional\""),
        );
    }
    let is_wrong = sink.problems.len() > before || acme.domains.is_wrong();
    let issuer = Arc::new(issuer(acme, base, sink)?);
    let name = |name: &str| self::name(name, acme, &issuer, sink);
    (!is_wrong).then(|| acme.domains.iter().map(|name| &*name.value.0).map(name).collect())
}

fn issuer(acme: &Acme, base: &Path, sink: &mut Sink) -> Option<AcmeIssuer> {
    let roots = match acme.ca.some() {
        Some(ca) => tls::roots_of(&ca, base, sink)?,
        None => tls::system_roots(acme.directory.place().unwrap_or(TOP), sink)?,
    };
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("invariant: the provider has cipher suites of both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let directory = acme.directory.0.clone();
    let external_account = match &acme.external_account.value {
        Some(account) => Some(external_account(account, base, sink)?),
        None => None,
    };
    Some(AcmeIssuer {
        folder: folder(&base.join(&*acme.storage.value), &directory),
        directory,
        email: acme.email.value.as_ref().map(|email| email.0.clone()),
        external_account,
        client: Arc::new(client),
    })
}

fn external_account(
    account: &file::ExternalAccount,
    base: &Path,
    sink: &mut Sink,
) -> Option<ExternalAccount> {
    let place = account.key.place().unwrap_or(TOP);
    if account.key_id.is_empty() {
        let problem = Problem::error(account.key_id.place().unwrap_or(place), "`key_id` is empty");
        sink.push(problem.fix("write what the authority calls the key (EAB key ID)"));
        return None;
    }
    let may = "get certificates at your expense";
    let text = secrets::read(&account.key, ("the key of `external_account`", may), base, sink)?;
    // Authorities show it in base64 for URLs (RFC 4648 §5), some in the usual one.
    let plain = |c: char| match c {
        '+' => '-',
        '/' => '_',
        c => c,
    };
    let text: String = text.0.trim_end_matches('=').chars().map(plain).collect();
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(key) => Some(ExternalAccount { key_id: account.key_id.value.clone(), key: Secret(key) }),
        Err(_) => {
            let title = "the key of `external_account` is not base64";
            let fix = "put the HMAC key there as the authority shows it, and nothing else";
            sink.push(Problem::error(place, title).fix(fix));
            None
        }
    }
}

/// The files that it names.
pub(super) fn files(acme: &Acme) -> impl Iterator<Item = String> {
    let account = acme.external_account.value.as_ref();
    let key = account.and_then(|account| Some(account.key.value.file()?.to_owned()));
    acme.ca.value.clone().into_iter().chain(key)
}

/// A name with the certificate that is kept for it. One that cannot be used is reported, and got
/// anew.
fn name(name: &str, acme: &Acme, issuer: &Arc<AcmeIssuer>, sink: &mut Sink) -> AcmeName {
    let file = issuer.folder.join(format!("{name}.pem"));
    let (cell, is_new) = cell(&file);
    let new = AcmeName {
        name: name.to_owned(),
        challenge: *acme.challenge,
        issuer: issuer.clone(),
        cell,
    };
    if !is_new {
        return new;
    }
    let problem = match std::fs::read(&file) {
        Ok(pem) => match Issued::from_pem(&pem, name) {
            Ok(issued) => {
                new.cell.certificate.store(Some(Arc::new(issued)));
                return new;
            }
            Err(why) => why,
        },
        Err(e) if e.kind() == ErrorKind::NotFound => return new,
        Err(e) => e.to_string(),
    };
    let title = format!("the kept certificate `{}` cannot be used: {problem}", file.display());
    let place = acme.storage.place().or(acme.domains.place()).unwrap_or(TOP);
    sink.push(Problem::warning(place, title).fix("see to it that the gateway's user can read it"));
    new
}

/// All names, each once, with those listeners told that answer for them.
pub(super) fn names(file: &File, listeners: &mut [ListenerRule], sink: &mut Sink) -> Vec<AcmeName> {
    let mut names: Vec<AcmeName> = Vec::new();
    for rule in listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        for name in &rule.acme {
            if !names.iter().any(|known| Arc::ptr_eq(&known.cell, &name.cell)) {
                names.push(name.clone());
            }
        }
    }
    let asked: Vec<_> = names
        .iter()
        .filter(|name| name.challenge == AcmeChallenge::Http01)
        .map(|name| name.cell.clone())
        .collect();
    if !asked.is_empty() {
        for listener in listeners.iter_mut().filter(|listener| is_plain(listener)) {
            let ahead = listener.ahead.get_or_insert_default();
            *ahead = Arc::new(Ahead { challenges: asked.clone(), ..(**ahead).clone() });
        }
    }
    check_plain(file, sink);
    check_agreement(file, sink);
    names
}

fn is_plain(listener: &ListenerRule) -> bool {
    listener.tls.is_none() && listener.passthrough.is_none()
}

/// Every `acme` of the file, with its place.
fn all(file: &File) -> impl Iterator<Item = (&Acme, Place)> {
    let tls = file.listeners.iter().filter_map(|listener| listener.tls.value.as_ref());
    tls.filter_map(|tls| Some((tls.acme.value.as_ref()?, tls.acme.place().unwrap_or(TOP))))
}

/// An authority asks without TLS.
fn check_plain(file: &File, sink: &mut Sink) {
    let is_plain =
        |listener: &At<Listener>| listener.tls.value.is_none() && listener.passthrough.is_empty();
    let is_plain = file.listeners.iter().any(is_plain);
    let mut asks = all(file).filter(|(acme, _)| *acme.challenge == AcmeChallenge::Http01);
    if let Some((acme, place)) = asks.next()
        && !is_plain
    {
        let title = "\"http-01\" is asked for without TLS, and every listener has TLS";
        let fix = "add [[listeners]] with bind = \"0.0.0.0:80\" and redirect_https = 443, or write \
                   challenge = \"tls-alpn-01\"";
        sink.push(Problem::error(acme.challenge.place().unwrap_or(place), title).fix(fix));
    }
}

/// An account has one address, and a name is proved in one way.
fn check_agreement(file: &File, sink: &mut Sink) {
    let all: Vec<_> = all(file).collect();
    for (at, (acme, place)) in all.iter().enumerate() {
        let is_same = |other: &&(&Acme, Place)| {
            *other.0.directory == *acme.directory && *other.0.storage == *acme.storage
        };
        for (before, before_place) in all[..at].iter().filter(is_same) {
            let names = |acme: &Acme, name: &str| acme.domains.iter().any(|own| own.0 == name);
            let external = |acme: &Acme| {
                let account = acme.external_account.value.as_ref();
                account.map(|own| (own.key_id.value.clone(), own.key.value.clone()))
            };
            let shared = acme.domains.iter().find(|own| names(before, &own.0));
            let differs = if *acme.email != *before.email {
                Some(("`email`", acme.email.place().or(before.email.place())))
            } else if external(acme) != external(before) {
                let at = acme.external_account.place().or(before.external_account.place());
                Some(("`external_account`", at))
            } else if *acme.ca != *before.ca {
                Some(("`ca`", acme.ca.place().or(before.ca.place())))
            } else if shared.is_some() && *acme.challenge != *before.challenge {
                Some(("`challenge` of a name", acme.challenge.place()))
            } else {
                None
            };
            if let Some((what, key)) = differs {
                let title = format!("the {what} differs from that of another listener");
                let problem = Problem::error(key.unwrap_or(*place), title)
                    .related(*before_place, "the same authority and storage");
                sink.push(
                    problem.fix("write the same in both, or give this one another `storage`"),
                );
            }
        }
    }
}
