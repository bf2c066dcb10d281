//! Lists of revoked certificates (CRL, RFC 5280 §5), and who judges certificates by them.
//!
//! Invariant: with lists, each certificate between a peer's and the authority's must be in the
//! reach of one that is in its time; what no list speaks of is refused.

use std::{
    hash::{DefaultHasher, Hash},
    path::Path,
    sync::Arc,
};

use rustls::{
    RootCertStore,
    client::WebPkiServerVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateRevocationListDer, pem::PemObject},
    server::VerifierBuilderError,
};

use super::{
    TOP,
    tls::{self, FILE_BYTES_MAX},
};
use crate::config::{
    decode::{At, Sink},
    report::{Place, Problem},
};

/// The largest file, in bytes: lists of large authorities have many entries.
const LIST_BYTES_MAX: u64 = 16 * FILE_BYTES_MAX;
/// How a file in DER begins: a SEQUENCE, which no text does.
const SEQUENCE: u8 = 0x30;

type Lists = Vec<CertificateRevocationListDer<'static>>;

/// The lists of all these files; `None` after a report.
pub(super) fn all(files: &[At<String>], folder: &Path, sink: &mut Sink) -> Option<Lists> {
    let mut lists = Vec::new();
    for file in files {
        lists.extend(of_file(file, folder, sink)?);
    }
    Some(lists)
}

fn of_file(file: &At<String>, folder: &Path, sink: &mut Sink) -> Option<Lists> {
    let bytes = tls::read(file, folder, "revocation list", LIST_BYTES_MAX, sink)?;
    if bytes.first() == Some(&SEQUENCE) {
        return Some(vec![bytes.into()]);
    }
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(lists) if !lists.is_empty() => Some(lists),
        _ => {
            let title = format!("there is no certificate revocation list in `{}`", file.value);
            let fix = "name a file in PEM (-----BEGIN X509 CRL-----) or DER";
            sink.push(Problem::error(file.place().unwrap_or(TOP), title).fix(fix));
            None
        }
    }
}

/// Says why there is nobody to judge certificates.
pub(super) fn report(whose: &str, error: &VerifierBuilderError, place: Place, sink: &mut Sink) {
    let title = format!("{whose} certificates cannot be judged: {error}");
    let fix = "name files of certificate revocation lists, or leave them out";
    sink.push(Problem::error(place, title).fix(fix));
}

/// Who judges the certificates of endpoints; `None` after a report. What it is made from goes into
/// `print`.
pub(super) fn of_endpoints(
    files: &At<Vec<At<String>>>,
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
    (folder, print): (&Path, &mut DefaultHasher),
    sink: &mut Sink,
) -> Option<Arc<WebPkiServerVerifier>> {
    let lists = all(files, folder, sink)?;
    lists.iter().for_each(|list| list.as_ref().hash(print));
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .with_crls(lists)
        .enforce_revocation_expiration();
    let place = files.place().unwrap_or(TOP);
    builder.build().map_err(|error| report("endpoints'", &error, place, sink)).ok()
}
