//! API keys: which digests there are, and whose.
//!
//! A key is 128 bits or more of chance, so that its SHA-256 is all that is kept of it: there is
//! nothing to guess that a slow hash would protect, and a digest is found without trying every
//! consumer. A million keys are a sorted array: 32 bytes of digest, 12 bytes of what it is for, and
//! an index over the first bits of at most 4 bytes for four keys. Nothing in it changes after it
//! was built, so that all workers read the same one.
//!
//! What is compared are digests, in whole: how long that takes depends on bits of a digest, which
//! nobody can choose, and from which no key follows.

use std::{collections::HashMap, sync::Arc};

/// Keys of one table.
pub const KEYS_MAX: usize = 20_000_000;
/// Different lists of scopes.
pub const SCOPE_LISTS_MAX: usize = 100_000;

/// SHA-256 of a key.
pub type Digest = [u8; 32];

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    pub consumer: u32,
    /// Unix time at which it stops being accepted; 0 is never.
    pub expires_s: u32,
    /// An index of the table's lists.
    scopes: u32,
}

/// A key that was found.
#[derive(Clone, Debug)]
pub struct Found<'t> {
    pub consumer: u32,
    /// Unix time; 0 is never.
    pub expires_s: u32,
    pub scopes: &'t [Box<str>],
}

impl Found<'_> {
    pub fn is_expired(&self, now_s: u64) -> bool {
        self.expires_s != 0 && now_s >= u64::from(self.expires_s)
    }
}

/// All keys, sorted by digest. [`Gathering`] makes it.
#[derive(Debug)]
pub struct KeyTable {
    digests: Vec<Digest>,
    facts: Vec<Fact>,
    /// Where the digests begin whose first bits are at least the index; one more than there are.
    starts: Vec<u32>,
    /// Bits of a digest's first 64 that are not part of the index.
    shift: u32,
    scopes: Vec<Arc<[Box<str>]>>,
}

/// Keys for each entry of the index, on the average.
const KEYS_PER_START: usize = 4;

impl KeyTable {
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.digests.capacity() * size_of::<Digest>()
            + self.facts.capacity() * size_of::<Fact>()
            + self.starts.capacity() * 4
    }

    /// The key with this digest.
    pub fn find(&self, digest: &Digest) -> Option<Found<'_>> {
        let first = first_bits(digest);
        // Not shifted by 64 bits where there is one entry only.
        let start = (first >> 1 >> (self.shift - 1)) as usize;
        let (from, to) = (*self.starts.get(start)? as usize, *self.starts.get(start + 1)? as usize);
        let candidates = &self.digests[from..to];
        let before = candidates.partition_point(|stored| first_bits(stored) < first);
        let same = candidates[before..].iter().take_while(|stored| first_bits(stored) == first);
        let mut found = None;
        for (at, stored) in same.enumerate() {
            if is_same(stored, digest) {
                found = Some(from + before + at);
            }
        }
        let fact = self.facts[found?];
        let scopes = &self.scopes[fact.scopes as usize];
        Some(Found { consumer: fact.consumer, expires_s: fact.expires_s, scopes })
    }
}

/// By which digests are sorted and found, before they are compared in whole.
fn first_bits(digest: &Digest) -> u64 {
    let (first, _) = digest.split_first_chunk::<8>().expect("a digest has 32 bytes");
    u64::from_be_bytes(*first)
}

/// Looks at every byte, whatever the first ones are.
fn is_same(a: &Digest, b: &Digest) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Keys that are being gathered.
#[derive(Debug, Default)]
pub struct Gathering {
    keys: Vec<Gathered>,
    scopes: Vec<Arc<[Box<str>]>>,
    places: HashMap<Arc<[Box<str>]>, u32>,
}

#[derive(Debug)]
struct Gathered {
    digest: Digest,
    fact: Fact,
    /// Where it was written, for whoever reports.
    place: u32,
}

/// Why a key cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Not {
    Full,
    Scopes,
}

/// Two keys of one table are the same: where they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twice {
    pub first: u32,
    pub again: u32,
}

impl Gathering {
    /// Room for so many more.
    pub fn reserve(&mut self, keys: usize) {
        self.keys.reserve_exact(keys.min(KEYS_MAX));
    }

    /// `place` is where it was written, by a numbering of the caller's.
    pub fn add(
        &mut self,
        digest: Digest,
        (consumer, expires_s): (u32, u32),
        scopes: &[&str],
        place: u32,
    ) -> Result<(), Not> {
        if self.keys.len() >= KEYS_MAX {
            return Err(Not::Full);
        }
        let scopes = self.list(scopes)?;
        self.keys.push(Gathered { digest, fact: Fact { consumer, expires_s, scopes }, place });
        Ok(())
    }

    fn list(&mut self, scopes: &[&str]) -> Result<u32, Not> {
        if self.scopes.is_empty() {
            self.scopes.push(Arc::default());
        }
        if scopes.is_empty() {
            return Ok(0);
        }
        let scopes: Arc<[Box<str>]> = scopes.iter().map(|scope| (*scope).into()).collect();
        if let Some(known) = self.places.get(&scopes) {
            return Ok(*known);
        }
        if self.scopes.len() >= SCOPE_LISTS_MAX {
            return Err(Not::Scopes);
        }
        // Bounded by the maximum.
        let at = self.scopes.len() as u32;
        self.scopes.push(scopes.clone());
        self.places.insert(scopes, at);
        Ok(at)
    }

    /// The table.
    pub fn done(mut self) -> Result<KeyTable, Twice> {
        self.keys.sort_unstable_by(|a, b| (&a.digest, a.place).cmp(&(&b.digest, b.place)));
        let twice = self.keys.windows(2).find(|pair| pair[0].digest == pair[1].digest);
        if let Some([first, again]) = twice {
            return Err(Twice { first: first.place, again: again.place });
        }
        let entries = (self.keys.len() / KEYS_PER_START).next_power_of_two();
        let shift = 64 - entries.trailing_zeros();
        let mut starts = Vec::with_capacity(entries + 1);
        for (at, key) in self.keys.iter().enumerate() {
            let start = (first_bits(&key.digest) >> 1 >> (shift - 1)) as usize;
            // Bounded by the maximum.
            starts.resize(starts.len().max(start + 1), at as u32);
        }
        starts.resize(entries + 1, self.keys.len() as u32);
        let digests = self.keys.iter().map(|key| key.digest).collect();
        let facts = self.keys.iter().map(|key| key.fact).collect();
        Ok(KeyTable { digests, facts, starts, shift, scopes: self.scopes })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use proptest::prelude::*;

    use super::*;

    fn digest_of(text: &str) -> Digest {
        digest(&SHA256, text.as_bytes()).as_ref().try_into().expect("32 bytes")
    }

    #[test]
    fn each_key_is_found_with_what_it_is_for() {
        for count in [0, 1, 3, 4, 5, 1000] {
            let mut keys = Gathering::default();
            for n in 0..count {
                let scopes: &[&str] = if n % 2 == 0 { &["read", "write"] } else { &[] };
                keys.add(digest_of(&n.to_string()), (n, n * 3), scopes, n + 1).expect("room");
            }
            let table = keys.done().expect("each once");
            assert_eq!(table.len(), count as usize);
            for n in 0..count {
                let found = table.find(&digest_of(&n.to_string())).expect("it is there");
                assert_eq!((found.consumer, found.expires_s), (n, n * 3));
                assert_eq!(found.scopes.len(), if n % 2 == 0 { 2 } else { 0 });
            }
            assert!(table.find(&digest_of("none")).is_none());
            assert!(table.find(&[0; 32]).is_none() && table.find(&[255; 32]).is_none());
        }
    }

    #[test]
    fn an_empty_table_has_no_key() {
        let table = Gathering::default().done().expect("no key");
        assert!(table.find(&[7; 32]).is_none());
    }

    #[test]
    fn memory_for_each_key_is_bounded() {
        let mut keys = Gathering::default();
        for n in 0..100_000u32 {
            keys.add(digest_of(&n.to_string()), (n, 0), &[], n).expect("room");
        }
        let table = keys.done().expect("each once");
        assert!(table.bytes() <= 48 * 100_000, "{}", table.bytes());
    }

    #[test]
    fn the_same_key_twice_is_told_by_its_places() {
        let mut keys = Gathering::default();
        for (text, place) in [("a", 1), ("b", 2), ("c", 4), ("b", 7)] {
            keys.add(digest_of(text), (0, 0), &[], place).expect("room");
        }
        assert_eq!(keys.done().expect_err("twice"), Twice { first: 2, again: 7 });
    }

    #[test]
    fn a_key_expires_at_its_second() {
        let found = Found { consumer: 0, expires_s: 100, scopes: &[] };
        assert!(!found.is_expired(99) && found.is_expired(100));
        assert!(!Found { expires_s: 0, ..found }.is_expired(u64::MAX));
    }

    proptest! {
        /// Digests that are alike in their first bytes, as chance does not make them.
        #[test]
        fn alike_digests_are_kept_apart(
            keys in prop::collection::btree_set((0u8..3, 0u8..3, 0u8..4), 0..40),
            asked in prop::collection::vec((0u8..4, 0u8..4, 0u8..5), 0..40),
        ) {
            let made = |(first, middle, last): (u8, u8, u8)| {
                let mut digest = [0; 32];
                (digest[0], digest[12], digest[31]) = (first * 80, middle, last);
                digest
            };
            let mut gathering = Gathering::default();
            for (n, key) in keys.iter().enumerate() {
                gathering.add(made(*key), (n as u32, 0), &[], n as u32).expect("room");
            }
            let table = gathering.done().expect("each once");
            for key in asked {
                let expected = keys.iter().position(|known| *known == key);
                let found = table.find(&made(key)).map(|found| found.consumer as usize);
                prop_assert_eq!(found, expected);
            }
        }
    }
}
