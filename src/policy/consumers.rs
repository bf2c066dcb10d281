//! Consumers: whose keys, passwords and certificates they are, with their groups and plan.
//!
//! There may be millions, so a consumer is a number, its name a piece of one long text, and what
//! it shares with others (groups and plan) a number too: 8 bytes beside the name. Invariants: names
//! are there once; those with a section of their own come first, in its order.

use std::collections::HashMap;

use ahash::RandomState;
use hashbrown::HashTable;

/// Consumers of one configuration.
pub const CONSUMERS_MAX: usize = 20_000_000;
/// Different combinations of groups and plan.
pub const KINDS_MAX: usize = 100_000;
/// Bytes of a name.
pub const NAME_BYTES_MAX: usize = 128;

/// What several consumers have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kind {
    /// In the order in which they were written.
    pub groups: Box<[Box<str>]>,
    /// An index of the plans.
    pub plan: Option<u32>,
}

/// Every consumer, by number.
#[derive(Debug)]
pub struct Consumers {
    names: Names,
    /// By consumer.
    kind_of: Vec<u32>,
    kinds: Vec<Kind>,
}

impl Default for Consumers {
    fn default() -> Consumers {
        Consumers { names: Names::default(), kind_of: Vec::new(), kinds: vec![Kind::default()] }
    }
}

impl Consumers {
    pub fn len(&self) -> usize {
        self.kind_of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.kind_of.is_empty()
    }

    pub fn name(&self, consumer: u32) -> &str {
        self.names.get(consumer)
    }

    pub fn kind(&self, consumer: u32) -> &Kind {
        &self.kinds[self.kind_of[consumer as usize] as usize]
    }

    /// What several consumers of one kind have in common, by number.
    pub fn kind_id(&self, consumer: u32) -> usize {
        self.kind_of[consumer as usize] as usize
    }

    /// By number.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.names.text.capacity()
            + 4 * (self.names.ends.capacity() + self.kind_of.capacity())
            + self.kinds.capacity() * size_of::<Kind>()
    }
}

/// Texts, one behind the other.
#[derive(Debug, Default)]
struct Names {
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Names {
    fn get(&self, at: u32) -> &str {
        let at = at as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.text[start..self.ends[at] as usize]
    }

    /// `false` when there is no room.
    fn push(&mut self, name: &str) -> bool {
        self.text.push_str(name);
        match u32::try_from(self.text.len()) {
            Ok(end) => self.ends.push(end),
            Err(_) => self.text.truncate(self.text.len() - name.len()),
        }
        self.ends.last().is_some_and(|end| *end as usize == self.text.len())
    }
}

/// Why a consumer cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Not {
    /// It was said to be of another kind before.
    Otherwise,
    /// Too many consumers.
    Full,
    /// Too many kinds.
    Kinds,
    /// Its name is empty or too long.
    Name,
}

/// Consumers that are being gathered.
#[derive(Debug, Default)]
pub struct Gathering {
    made: Consumers,
    places: HashTable<u32>,
    hasher: RandomState,
    kinds: HashMap<Kind, u32>,
    /// How many have a section of their own: nobody else says their kind.
    own: u32,
}

impl Gathering {
    /// One with a section of its own. All of them come before any other.
    pub fn add_own(&mut self, name: &str, kind: Kind) -> Result<u32, Not> {
        let consumer = self.named(name)?;
        self.made.kind_of[consumer as usize] = self.kind(kind)?;
        self.own = self.own.max(consumer + 1);
        Ok(consumer)
    }

    /// The one called `name`, which need not be there yet. `kind` is what is said of it here, if
    /// anything is.
    pub fn add(&mut self, name: &str, kind: Option<Kind>) -> Result<u32, Not> {
        let consumer = self.named(name)?;
        let Some(kind) = kind else { return Ok(consumer) };
        let kind = self.kind(kind)?;
        match &mut self.made.kind_of[consumer as usize] {
            known if *known == kind => {}
            known if *known == 0 && consumer >= self.own => *known = kind,
            _ => return Err(Not::Otherwise),
        }
        Ok(consumer)
    }

    /// Whether it has a section of its own.
    pub fn is_own(&self, consumer: u32) -> bool {
        consumer < self.own
    }

    /// The one called `name`.
    pub fn find(&self, name: &str) -> Option<u32> {
        let names = &self.made.names;
        self.places.find(self.hasher.hash_one(name), |at| names.get(*at) == name).copied()
    }

    /// All of them.
    pub fn done(self) -> Consumers {
        let mut made = self.made;
        made.names.text.shrink_to_fit();
        made.names.ends.shrink_to_fit();
        made.kind_of.shrink_to_fit();
        made
    }

    fn named(&mut self, name: &str) -> Result<u32, Not> {
        if let Some(known) = self.find(name) {
            return Ok(known);
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Not::Name);
        }
        if self.made.len() >= CONSUMERS_MAX || !self.made.names.push(name) {
            return Err(Not::Full);
        }
        // Bounded by the maximum.
        let consumer = self.made.len() as u32;
        self.made.kind_of.push(0);
        let (names, hasher) = (&self.made.names, &self.hasher);
        self.places
            .insert_unique(hasher.hash_one(name), consumer, |at| hasher.hash_one(names.get(*at)));
        Ok(consumer)
    }

    fn kind(&mut self, kind: Kind) -> Result<u32, Not> {
        if kind == Kind::default() {
            return Ok(0);
        }
        if let Some(known) = self.kinds.get(&kind) {
            return Ok(*known);
        }
        if self.made.kinds.len() >= KINDS_MAX {
            return Err(Not::Kinds);
        }
        // Bounded by the maximum.
        let at = self.made.kinds.len() as u32;
        self.made.kinds.push(kind.clone());
        self.kinds.insert(kind, at);
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(groups: &[&str], plan: Option<u32>) -> Kind {
        Kind { groups: groups.iter().map(|group| (*group).into()).collect(), plan }
    }

    #[test]
    fn a_consumer_is_of_one_kind() {
        let mut gathering = Gathering::default();
        let gold = kind(&["a", "b"], Some(1));
        assert_eq!(gathering.add_own("own", gold.clone()), Ok(0));
        assert_eq!(gathering.add("own", None), Ok(0));
        assert_eq!(gathering.add("own", Some(kind(&["a"], None))), Err(Not::Otherwise));
        assert_eq!(gathering.add("x", None), Ok(1));
        assert_eq!(gathering.add("x", Some(gold.clone())), Ok(1));
        assert_eq!(gathering.add("x", Some(gold.clone())), Ok(1));
        assert_eq!(gathering.add("x", Some(kind(&["b", "a"], Some(1)))), Err(Not::Otherwise));
        assert_eq!(gathering.add("", None), Err(Not::Name));
        assert_eq!(gathering.add(&"n".repeat(129), None), Err(Not::Name));
        assert_eq!(gathering.find("y"), None);
        assert!(gathering.is_own(0) && !gathering.is_own(1));
        let made = gathering.done();
        assert_eq!((made.len(), made.name(1), made.kind(1)), (2, "x", &gold));
    }

    proptest! {
        #[test]
        fn names_are_kept_apart(names in prop::collection::vec("[ab]{1,4}", 0..60)) {
            let mut gathering = Gathering::default();
            let numbers: Vec<u32> =
                names.iter().map(|name| gathering.add(name, None).expect("room")).collect();
            for name in &names {
                prop_assert_eq!(gathering.find(name), gathering.add(name, None).ok());
            }
            let made = gathering.done();
            for (name, number) in names.iter().zip(&numbers) {
                prop_assert_eq!(made.name(*number), name);
                prop_assert_eq!(made.kind(*number), &Kind::default());
            }
            let mut once = names.clone();
            once.sort();
            once.dedup();
            prop_assert_eq!(made.len(), once.len());
        }
    }
}
