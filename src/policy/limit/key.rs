//! What requests are counted by.

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
    net::IpAddr,
};

use ahash::RandomState;
use aws_lc_rs::digest::{SHA256, digest};
use siphasher::sip::SipHasher13;

/// One part of a limit's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// The client's address; of IPv6 its /64, which is what one client has.
    Client,
    /// The consumer that the identity belongs to.
    Consumer,
    /// Who it is.
    Subject,
    Claim(Box<str>),
    /// In lower case.
    Header(Box<str>),
    Query(Box<str>),
    Cookie(Box<str>),
    Route,
    Host,
}

impl KeyPart {
    /// Only a verified identity has it.
    pub fn needs_identity(&self) -> bool {
        matches!(self, KeyPart::Consumer | KeyPart::Subject | KeyPart::Claim(_))
    }
}

/// What takes the values of a key's parts, one after the other.
pub trait Parts {
    fn client(&mut self, ip: Option<IpAddr>);

    /// A value, or that there is none.
    fn value(&mut self, value: Option<&[u8]>);
}

impl fmt::Display for KeyPart {
    /// As it is written in a configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyPart::Client => f.write_str("client"),
            KeyPart::Consumer => f.write_str("consumer"),
            KeyPart::Subject => f.write_str("subject"),
            KeyPart::Route => f.write_str("route"),
            KeyPart::Host => f.write_str("host"),
            KeyPart::Claim(name) => write!(f, "claim:{name}"),
            KeyPart::Header(name) => write!(f, "header:{name}"),
            KeyPart::Query(name) => write!(f, "query:{name}"),
            KeyPart::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// The number of a key, or the value that cannot be one.
pub type NamedKey = Result<u64, String>;

/// The lasting number of the key whose parts have these values, as a request would have it.
pub fn named_key(seeds: Seeds, limit: u64, parts: &[KeyPart], values: &[String]) -> NamedKey {
    let mut key = Key::lasting(seeds, limit);
    for (part, value) in parts.iter().zip(values) {
        match part {
            KeyPart::Client => key.client(Some(value.parse().map_err(|_| value.clone())?)),
            KeyPart::Host => key.value(Some(value.to_ascii_lowercase().as_bytes())),
            _ => key.value(Some(value.as_bytes())),
        }
    }
    Ok(key.finish())
}

/// Makes the number of a key from the values of its parts. All workers make the same of the same,
/// and nobody outside can tell which values have the same.
pub struct Key<H = ahash::AHasher>(H);

/// Makes the number of a key that a fleet shares: every process makes the same of the same. By
/// SHA-256, so that nobody can look for a value that is counted as another one's.
pub struct FleetKey<'b>(&'b mut Vec<u8>);

/// What stands for a part that is not there; no value is that long.
const MISSING: u64 = u64::MAX;

/// A number for what one client has: its address; of IPv6 the /64.
#[inline]
fn number_of(ip: Option<IpAddr>) -> u64 {
    match ip {
        Some(IpAddr::V4(ip)) => u32::from(ip).into(),
        // The first half, of which none lies that low.
        Some(IpAddr::V6(ip)) => (u128::from(ip) >> 64) as u64,
        None => MISSING,
    }
}

impl Key {
    /// Of the limit of this number.
    #[inline]
    pub fn of(random: &RandomState, limit: u64) -> Key {
        let mut hasher = random.build_hasher();
        hasher.write_u64(limit);
        Key(hasher)
    }
}

/// What numbers are made with that outlive the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seeds(pub u64, pub u64);

impl Key<SipHasher13> {
    /// The same in every process that has these seeds.
    pub fn lasting(seeds: Seeds, limit: u64) -> Key<SipHasher13> {
        let mut hasher = SipHasher13::new_with_keys(seeds.0, seeds.1);
        hasher.write_u64(limit);
        Key(hasher)
    }
}

impl<H: Hasher> Key<H> {
    #[inline]
    pub fn finish(self) -> u64 {
        self.0.finish()
    }
}

impl<H: Hasher> Parts for Key<H> {
    #[inline]
    fn client(&mut self, ip: Option<IpAddr>) {
        self.0.write_u64(number_of(ip));
    }

    fn value(&mut self, value: Option<&[u8]>) {
        // Parts next to each other are told apart by their lengths.
        match value {
            Some(value) => {
                self.0.write_u64(value.len() as u64);
                self.0.write(value);
            }
            None => self.0.write_u64(MISSING),
        }
    }
}

impl<'b> FleetKey<'b> {
    /// Of the limit of this name, with room to write in.
    pub fn of(limit: &str, room: &'b mut Vec<u8>) -> FleetKey<'b> {
        room.clear();
        let mut key = FleetKey(room);
        key.value(Some(limit.as_bytes()));
        key
    }

    pub fn finish(self) -> u64 {
        let hash = digest(&SHA256, self.0);
        hash.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

impl Parts for FleetKey<'_> {
    fn client(&mut self, ip: Option<IpAddr>) {
        self.0.extend_from_slice(&number_of(ip).to_be_bytes());
    }

    fn value(&mut self, value: Option<&[u8]>) {
        let length = value.map_or(MISSING, |value| value.len() as u64);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_by_what_one_has() {
        let random = RandomState::with_seeds(1, 2, 3, 4);
        let key = |ip: &str, limit| {
            let mut key = Key::of(&random, limit);
            key.client(Some(ip.parse().expect("an address")));
            key.finish()
        };
        assert_eq!(key("2001:db8:1:1::1", 1), key("2001:db8:1:1:ffff::2", 1));
        let others = ["2001:db8:1:2::1", "192.0.2.1", "192.0.2.2"].map(|ip| key(ip, 1));
        assert!(others.iter().all(|other| *other != key("2001:db8:1:1::1", 1)));
        assert_ne!(others[1], others[2]);
        assert_ne!(key("192.0.2.1", 1), key("192.0.2.1", 2), "each limit counts by itself");
    }

    #[test]
    fn every_process_of_a_fleet_makes_the_same_number() {
        let mut room = Vec::new();
        let mut key = |limit: &str, value: Option<&[u8]>| {
            let mut key = FleetKey::of(limit, &mut room);
            key.client(Some("192.0.2.1".parse().expect("an address")));
            key.value(value);
            key.finish()
        };
        let first = key("per-client", Some(b"a"));
        // Of this text: another release must not count anew.
        assert_eq!(first, 0x28fd_620e_cc85_7606);
        for (limit, value) in
            [("per-client", Some(&b"b"[..])), ("per-client", None), ("per-clienta", Some(b""))]
        {
            assert_ne!(key(limit, value), first);
        }
    }

    #[test]
    fn what_lasts_is_the_same_for_ever() {
        let mut key = Key::lasting(Seeds(1, 2), 3);
        key.value(Some(b"alice"));
        key.client(Some([192, 0, 2, 1].into()));
        // Another number here means that every file of quotas is worth nothing.
        assert_eq!(key.finish(), LASTING);
    }

    const LASTING: u64 = 6_474_828_944_117_943_041;

    #[test]
    fn parts_next_to_each_other_are_told_apart() {
        let random = RandomState::with_seeds(1, 2, 3, 4);
        let key = |values: [Option<&[u8]>; 2]| {
            let mut key = Key::of(&random, 1);
            values.into_iter().for_each(|value| key.value(value));
            key.finish()
        };
        let keys = [
            key([Some(b"ab"), Some(b"c")]),
            key([Some(b"a"), Some(b"bc")]),
            key([Some(b"abc"), Some(b"")]),
            key([Some(b"abc"), None]),
            key([None, Some(b"abc")]),
        ];
        for (n, one) in keys.iter().enumerate() {
            assert!(keys[n + 1..].iter().all(|other| other != one));
        }
    }
}
