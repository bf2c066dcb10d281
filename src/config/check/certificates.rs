//! Many certificates: a key is tried once, however often a configuration is loaded, and by several
//! threads where many are new. Trying an RSA key takes a millisecond, so that a reload of ten
//! thousand would otherwise take ten seconds.
//!
//! Invariant: what is remembered was good, and is remembered by all that it was made from, as long
//! as some configuration has it.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use x509_parser::time::ASN1Time;

use super::tls::certified;
use crate::config::{
    decode::{At, Sink},
    file::Certificate,
};

/// A certificate with its key, and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub key: Arc<CertifiedKey>,
    pub about: About,
}

/// What is said in a certificate.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// The DNS names that it is for.
    pub names: Arc<[String]>,
    pub from: ASN1Time,
    pub until: ASN1Time,
}

/// Fewer certificates than this are no work for another thread.
const THREAD_MIN: usize = 64;

/// Those of a listener, in their order; `None` in the place of one that was reported.
pub(super) fn all(
    certificates: &[At<Certificate>],
    folder: &Path,
    provider: &CryptoProvider,
    sink: &mut Sink,
) -> Vec<Option<Loaded>> {
    forget();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = certificates.len().div_ceil(threads).max(THREAD_MIN);
    let load = |share: &[At<Certificate>]| {
        let mut sink = Sink::default();
        let loaded = share.iter().map(|one| certified(one, folder, provider, &mut sink));
        (loaded.collect::<Vec<_>>(), sink.problems)
    };
    let shares: Vec<_> = thread::scope(|scope| {
        let mut shares = certificates.chunks(share);
        let own = shares.next();
        let others: Vec<_> = shares.map(|share| (share, scope.spawn(|| load(share)))).collect();
        let own = own.map(&load);
        // What a thread could not do is done here, and fails in the same way if it has to.
        let joined =
            others.into_iter().map(|(share, one)| one.join().unwrap_or_else(|_| load(share)));
        own.into_iter().chain(joined).collect()
    });
    let mut all = Vec::with_capacity(certificates.len());
    for (loaded, problems) in shares {
        all.extend(loaded);
        problems.into_iter().for_each(|problem| sink.push(problem));
    }
    all
}

/// Of the content of two files.
pub(super) type Print = [u8; 32];

pub(super) fn print(chain: &[u8], key: &[u8]) -> Print {
    let mut context = Context::new(&SHA256);
    context.update(&chain.len().to_be_bytes());
    context.update(chain);
    context.update(key);
    let mut print = Print::default();
    print.copy_from_slice(context.finish().as_ref());
    print
}

type Known = HashMap<Print, (Weak<CertifiedKey>, About)>;

/// What was good before.
static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// What was made from the same files before, and is still in use.
pub(super) fn known(print: &Print) -> Option<Loaded> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let (key, about) = known.as_ref()?.get(print)?;
    Some(Loaded { key: key.upgrade()?, about: about.clone() })
}

pub(super) fn remember(print: Print, loaded: &Loaded) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = (Arc::downgrade(&loaded.key), loaded.about.clone());
    known.get_or_insert_default().insert(print, entry);
}

/// Forgets what nobody uses any more.
fn forget() {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &mut *known {
        known.retain(|_, (key, _)| key.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use rustls::{
        crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
        pki_types::PrivateKeyDer,
    };

    use super::*;

    fn loaded() -> Loaded {
        let made = rcgen::generate_simple_self_signed(Vec::new()).expect("a certificate");
        let der = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let key = any_supported_type(&der).expect("a key that is supported");
        let key = Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key));
        let (from, until) = (ASN1Time::now(), ASN1Time::now());
        Loaded { key, about: About { names: Arc::default(), from, until } }
    }

    #[test]
    fn what_is_used_is_known_and_nothing_else() {
        let (first, print) = (loaded(), print(b"chain of this test", b"key"));
        remember(print, &first);
        assert!(Arc::ptr_eq(&known(&print).expect("it is known").key, &first.key));
        drop(first);
        assert!(known(&print).is_none());
        forget();
        let remembered = KNOWN.lock().expect("a lock");
        assert!(!remembered.as_ref().expect("a map").contains_key(&print));
    }

    #[test]
    fn prints_tell_files_apart() {
        assert_ne!(print(b"ab", b"c"), print(b"a", b"bc"));
        assert_ne!(print(b"a", b"b"), print(b"b", b"a"));
    }

    #[test]
    fn what_is_wrong_is_told_in_order_and_good_ones_are_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("one");
        let write = |file: &str, text: String| {
            std::fs::write(folder.path().join(file), text).expect("a file");
        };
        write("good.pem", made.cert.pem());
        write("good.key", made.signing_key.serialize_pem());
        let one = |n: usize| {
            let file =
                if n.is_multiple_of(3) { "good.pem".to_owned() } else { format!("{n:03}.pem") };
            At::default_of(Certificate {
                file: At::default_of(file),
                key: At::default_of("good.key".to_owned()),
                ocsp: At::default_of(None),
            })
        };
        let list: Vec<_> = (0..3 * THREAD_MIN).map(one).collect();
        let mut sink = Sink::default();
        let all = all(&list, folder.path(), &default_provider(), &mut sink);
        let first = all[0].as_ref().expect("it is good");
        for (n, loaded) in all.iter().enumerate() {
            assert_eq!(loaded.is_some(), n.is_multiple_of(3), "{n}");
            let is_same = loaded.as_ref().is_none_or(|one| Arc::ptr_eq(&one.key, &first.key));
            // Two threads may try the same one at the same moment.
            assert!(is_same || n >= THREAD_MIN, "{n}");
        }
        assert_eq!(&*first.about.names, ["a.test"]);
        let titles: Vec<_> = sink.problems.iter().map(|problem| &problem.title).collect();
        assert_eq!(titles.len(), 2 * THREAD_MIN);
        assert!(titles.is_sorted(), "{titles:?}");
    }
}
