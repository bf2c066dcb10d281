//! What requests are counted by.

use std::{
    hash::{BuildHasher, Hasher},
    net::IpAddr,
};

use ahash::RandomState;

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

/// Makes the number of a key from the values of its parts. All workers make the same of the same,
/// and nobody outside can tell which values have the same.
pub struct Key(ahash::AHasher);

impl Key {
    /// Of the limit of this number.
    #[inline]
    pub fn of(random: &RandomState, limit: u64) -> Key {
        let mut hasher = random.build_hasher();
        hasher.write_u64(limit);
        Key(hasher)
    }

    #[inline]
    pub fn client(&mut self, ip: Option<IpAddr>) {
        match ip {
            Some(IpAddr::V4(ip)) => self.0.write_u64(u32::from(ip).into()),
            // The first half, of which none lies that low.
            Some(IpAddr::V6(ip)) => self.0.write_u64((u128::from(ip) >> 64) as u64),
            None => self.0.write_u64(u64::MAX),
        }
    }

    /// A value, or that there is none.
    pub fn value(&mut self, value: Option<&[u8]>) {
        // Parts next to each other are told apart by their lengths.
        match value {
            Some(value) => {
                self.0.write_u64(value.len() as u64);
                self.0.write(value);
            }
            None => self.0.write_u64(u64::MAX),
        }
    }

    #[inline]
    pub fn finish(self) -> u64 {
        self.0.finish()
    }
}

/// The decoded value of a parameter in a query, the first one of its name.
pub fn query_value(query: Option<&[u8]>, name: &str) -> Option<Vec<u8>> {
    let pairs = query?.split(|b| *b == b'&');
    let mut values = pairs.map(|pair| {
        let equals = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        (&pair[..equals], pair.get(equals + 1..).unwrap_or_default())
    });
    let is_it = |encoded: &[u8]| decoded(encoded).eq(name.bytes());
    values.find(|(encoded, _)| is_it(encoded)).map(|(_, value)| decoded(value).collect())
}

/// As forms have it: `+` is a space, and an escape that is none stands for itself.
fn decoded(encoded: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = encoded;
    std::iter::from_fn(move || {
        let digit = |at: usize| rest.get(at).and_then(|b| char::from(*b).to_digit(16));
        let (byte, len) = match (rest.first()?, digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
            (b'+', ..) => (b' ', 1),
            (byte, ..) => (*byte, 1),
        };
        rest = &rest[len..];
        Some(byte)
    })
}

/// The value of a cookie in a Cookie field, the first one of its name.
pub fn cookie_value<'f>(field: &'f [u8], name: &str) -> Option<&'f [u8]> {
    let pairs = field.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let mut values = pairs.filter_map(|pair| {
        let equals = pair.iter().position(|b| *b == b'=')?;
        Some((&pair[..equals], &pair[equals + 1..]))
    });
    values.find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_cookies() {
        for (query, expected) in [
            ("key=a", Some("a")),
            ("x=1&key=a&key=b", Some("a")),
            ("k%65y=%61%2", Some("a%2")),
            ("key", Some("")),
            ("key=a+b", Some("a b")),
            ("keys=a", None),
            ("", None),
        ] {
            let got = query_value(Some(query.as_bytes()), "key");
            assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{query}");
        }
        for (field, expected) in [
            ("sid=1", Some("1")),
            ("a=2; sid=1;sid=3", Some("1")),
            ("sid=a=b", Some("a=b")),
            ("xsid=1; sid", None),
        ] {
            assert_eq!(cookie_value(field.as_bytes(), "sid"), expected.map(str::as_bytes));
        }
    }

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
