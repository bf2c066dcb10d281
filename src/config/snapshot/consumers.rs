//! Consumers, and the ways that take their keys and passwords.
//!
//! What is large is shared by all workers and never written: they hold it through their snapshot,
//! so that no request counts a reference.

use std::{collections::HashMap, sync::Arc};

use super::LimitId;
use crate::policy::{
    client_cert::{ClientCert, SubjectName},
    consumers,
    identity::{Identity, Shown},
    key_text,
    keys::{Digest, KeyTable},
    password::StoredPassword,
};

/// Everybody who uses what is served here.
#[derive(Clone, Debug, Default)]
pub struct Consumers {
    pub all: Arc<consumers::Consumers>,
    pub certificates: Arc<CertificateNames>,
    pub plans: Arc<[Plan]>,
}

/// What consumers may use.
#[derive(Debug)]
pub struct Plan {
    pub name: String,
    /// For each request of one of its consumers: rates, then quotas.
    pub rate_limits: Box<[LimitId]>,
}

impl Consumers {
    /// Who a consumer is that has `shown` a credential of its own, by the way of this name.
    pub fn identity(&self, shown: Shown, way: &str, consumer: u32) -> Identity {
        let subject = self.all.name(consumer).into();
        let groups = self.all.kind(consumer).groups.iter().cloned().collect();
        let plain = Identity::plain(shown, way.into(), subject);
        Identity { consumer: Some(consumer), groups, ..plain }
    }

    /// The plan of a consumer that has one.
    pub fn plan(&self, consumer: u32) -> Option<&Plan> {
        self.plans.get(self.all.kind(consumer).plan? as usize)
    }
}

/// Which certificates are whose.
#[derive(Debug, Default)]
pub struct CertificateNames {
    pub fingerprints: HashMap<String, u32>,
    pub subjects: HashMap<String, u32>,
    pub names: HashMap<String, u32>,
}

impl CertificateNames {
    /// The consumer whose certificate it is: by its fingerprint first, then by its subject, then by
    /// its other names in their order.
    pub fn consumer(&self, certificate: &ClientCert) -> Option<u32> {
        let known = self.fingerprints.get(&certificate.sha256);
        let known = known.or_else(|| self.subjects.get(&certificate.subject));
        let by_name = |name: &SubjectName| match name {
            SubjectName::Dns(name) => self.names.get(&name.to_ascii_lowercase()),
            SubjectName::Uri(name) | SubjectName::Email(name) => self.names.get(name),
            SubjectName::Ip(address) => self.names.get(&address.to_string()),
        };
        known.or_else(|| certificate.names.iter().find_map(by_name)).copied()
    }
}

/// Whose credentials a way takes.
#[derive(Clone, Debug, Default)]
pub enum Accepted {
    /// Anybody's that are known.
    #[default]
    All,
    These {
        /// Sorted.
        consumers: Arc<[u32]>,
        /// By kind: it has one of the groups.
        kinds: Arc<[bool]>,
    },
}

impl Accepted {
    /// Of no consumer is `None`.
    pub fn has(&self, all: &consumers::Consumers, consumer: Option<u32>) -> bool {
        match (self, consumer) {
            (Accepted::All, _) => true,
            (Accepted::These { .. }, None) => false,
            (Accepted::These { consumers, kinds }, Some(consumer)) => {
                kinds.get(all.kind_id(consumer)) == Some(&true)
                    || consumers.binary_search(&consumer).is_ok()
            }
        }
    }
}

/// `[api_keys.NAME]`
#[derive(Clone, Debug)]
pub struct KeyRule {
    pub table: Arc<KeyTable>,
    pub accepted: Accepted,
}

/// `[basic.NAME]`
#[derive(Clone, Debug)]
pub struct BasicRule {
    pub realm: String,
    pub users: Arc<Users>,
    pub accepted: Accepted,
    pub remember_ms: u64,
    /// Of one worker.
    pub verify_max: u32,
}

/// Names with their passwords; at least one.
#[derive(Debug, Default)]
pub struct Users {
    pub all: Vec<User>,
    pub places: HashMap<Box<str>, u32>,
}

#[derive(Clone, Debug)]
pub struct User {
    pub name: Box<str>,
    /// Whoever verifies it elsewhere has a reference of its own.
    pub password: Arc<StoredPassword>,
    /// SHA-256 of its text, for what is remembered of it.
    pub print: Digest,
    pub consumer: Option<u32>,
}

impl User {
    pub fn new(name: &str, password: StoredPassword, consumer: Option<u32>) -> User {
        let print = key_text::digest_of(password.text().as_bytes());
        User { name: name.into(), password: Arc::new(password), print, consumer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_goes_before_a_subject_and_that_before_other_names() {
        let map = |name: &str, consumer| HashMap::from([(name.to_owned(), consumer)]);
        let mut names = map("a.example", 3);
        names.insert("10.0.0.1".to_owned(), 4);
        names.insert("spiffe://x/A".to_owned(), 5);
        let known =
            CertificateNames { fingerprints: map("ff", 1), subjects: map("CN=a", 2), names };
        let certificate = |sha256: &str, subject: &str, names: &[SubjectName]| {
            let (sha256, subject) = (sha256.to_owned(), subject.to_owned());
            let mut certificate = ClientCert::default();
            certificate.sha256 = sha256;
            certificate.subject = subject;
            certificate.names = names.to_vec();
            known.consumer(&certificate)
        };
        let dns = SubjectName::Dns("A.example".to_owned());
        let ip = SubjectName::Ip([10, 0, 0, 1].into());
        let uri = |text: &str| SubjectName::Uri(text.to_owned());
        assert_eq!(certificate("ff", "CN=a", std::slice::from_ref(&dns)), Some(1));
        assert_eq!(certificate("00", "CN=a", std::slice::from_ref(&dns)), Some(2));
        assert_eq!(certificate("00", "CN=b", &[ip, dns.clone()]), Some(4));
        assert_eq!(certificate("00", "", &[uri("spiffe://x/a"), dns]), Some(3));
        assert_eq!(certificate("00", "", &[uri("spiffe://x/A")]), Some(5));
        assert_eq!(certificate("00", "a.example", &[]), None);
    }

    #[test]
    fn those_are_accepted_who_are_named_or_in_a_group() {
        let mut gathering = consumers::Gathering::default();
        let kind = consumers::Kind { groups: ["g".into()].into(), plan: None };
        for (name, kind) in [("a", None), ("b", Some(kind)), ("c", None)] {
            gathering.add(name, kind).expect("room");
        }
        let all = gathering.done();
        let these = Accepted::These { consumers: [2].into(), kinds: [false, true].into() };
        let accepted = [Some(0), Some(1), Some(2), None].map(|one| these.has(&all, one));
        assert_eq!(accepted, [false, true, true, false]);
        assert!(Accepted::All.has(&all, None));
    }
}
