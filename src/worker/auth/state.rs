//! What a worker keeps for each way: its name, tokens that were verified, the keys it goes by.
//!
//! Carried over by name when the configuration changes, as long as a way judges as before.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use ahash::RandomState;

use super::oidc::Opened;
use crate::{
    config::{
        Snapshot,
        snapshot::{JwtWay, KeySource, WayKind},
    },
    policy::{
        auth::WayId,
        jwt::{KeySet, Verified},
    },
};

/// By way.
#[derive(Default)]
pub struct States(Vec<Rc<State>>);

/// Of one way.
pub struct State {
    pub name: Rc<str>,
    /// Of the first use on: the set of keys in force.
    keys: RefCell<Option<Arc<KeySet>>>,
    /// Its number, where keys are fetched.
    number: Cell<u64>,
    cache: RefCell<Cache<Verified>>,
    /// Requests that wait for keys or tokens.
    pub waiting: Cell<u32>,
    /// Sessions that were opened.
    pub sessions: RefCell<Cache<Rc<Opened>>>,
    /// Those whose tokens are being refreshed.
    pub refreshing: RefCell<HashSet<String, RandomState>>,
}

impl States {
    pub fn first(snapshot: &Snapshot) -> States {
        States(snapshot.ways.iter().map(|way| Rc::new(State::new(&way.name))).collect())
    }

    /// Those of the next configuration.
    pub fn next(&self, before: &Snapshot, snapshot: &Snapshot) -> States {
        let of = |way: &crate::config::snapshot::Way| {
            let at = before.ways.iter().position(|old| old.name == way.name);
            match at.map(|at| (&before.ways[at].kind, &way.kind, &self.0[at])) {
                Some((WayKind::Jwt(old), WayKind::Jwt(new), state)) if old.is_same(new) => {
                    state.clone()
                }
                _ => Rc::new(State::new(&way.name)),
            }
        };
        States(snapshot.ways.iter().map(of).collect())
    }

    #[inline]
    pub fn of(&self, id: WayId) -> &Rc<State> {
        &self.0[usize::from(id)]
    }
}

impl State {
    fn new(name: &str) -> State {
        State {
            name: name.into(),
            keys: RefCell::default(),
            // No set has this number.
            number: Cell::new(u64::MAX),
            cache: RefCell::default(),
            waiting: Cell::new(0),
            sessions: RefCell::default(),
            refreshing: RefCell::default(),
        }
    }

    /// Goes by the keys in force. What was verified by others is forgotten.
    #[inline]
    pub fn look(&self, way: &JwtWay) {
        let number = match &way.keys {
            KeySource::Fixed(_) => 0,
            KeySource::Remote(provider) => provider.cell.number(),
        };
        if number != self.number.get() {
            self.adopt(way, number);
        }
    }

    #[cold]
    fn adopt(&self, way: &JwtWay, number: u64) {
        self.number.set(number);
        self.keys.replace(match &way.keys {
            KeySource::Fixed(keys) => Some(keys.clone()),
            KeySource::Remote(provider) => provider.cell.keys(),
        });
        self.cache.replace(Cache::default());
    }

    pub fn with_keys<R>(&self, f: impl FnOnce(Option<&KeySet>) -> R) -> R {
        f(self.keys.borrow().as_deref())
    }

    pub fn known(&self, token: &[u8]) -> Option<Verified> {
        self.cache.borrow_mut().get(token)
    }

    pub fn remember(&self, token: &[u8], verified: &Verified, bytes_max: u64) {
        self.cache.borrow_mut().put(token, verified, bytes_max);
    }

    pub fn forget(&self, token: &[u8]) {
        self.cache.borrow_mut().remove(token);
    }
}

type Map<V> = HashMap<Box<[u8]>, V, RandomState>;

/// Tokens that were verified, or sessions, by their whole text. What was not used while half of
/// the memory filled up goes.
pub struct Cache<V> {
    young: Map<V>,
    old: Map<V>,
    young_bytes: u64,
}

impl<V> Default for Cache<V> {
    fn default() -> Cache<V> {
        Cache { young: Map::default(), old: Map::default(), young_bytes: 0 }
    }
}

/// What a token takes: its text, and its claims with what holds them.
fn cost(token: &[u8]) -> u64 {
    4 * token.len() as u64 + 512
}

impl<V: Clone> Cache<V> {
    #[inline]
    pub fn get(&mut self, token: &[u8]) -> Option<V> {
        if let Some(verified) = self.young.get(token) {
            return Some(verified.clone());
        }
        let (token, verified) = self.old.remove_entry(token)?;
        self.young_bytes += cost(&token);
        self.young.insert(token, verified.clone());
        Some(verified)
    }

    pub fn put(&mut self, token: &[u8], verified: &V, bytes_max: u64) {
        if cost(token) > bytes_max / 2 {
            return;
        }
        if self.young_bytes + cost(token) > bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += cost(token);
        self.young.insert(token.into(), verified.clone());
    }

    fn remove(&mut self, token: &[u8]) {
        if self.young.remove(token).is_some() {
            self.young_bytes -= cost(token);
        }
        self.old.remove(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::identity::{Identity, Shown};

    fn verified() -> Verified {
        let identity = Identity::plain(Shown::Token, "w".into(), "a".into());
        Verified::without_end(Rc::new(identity))
    }

    #[test]
    fn what_is_used_stays_and_memory_is_bounded() {
        let (mut cache, max) = (Cache::default(), 64 * 1024);
        let token = |n: u32| format!("token {n:04}").into_bytes();
        cache.put(&token(0), &verified(), max);
        for n in 1..10_000 {
            cache.put(&token(n), &verified(), max);
            assert!(cache.get(&token(0)).is_some(), "{n}");
            let all = cache.young.len() + cache.old.len();
            assert!(all as u64 * cost(&token(n)) <= max + cost(&token(n)), "{all}");
        }
        assert!(cache.get(&token(1)).is_none() && cache.get(&token(9999)).is_some());
        cache.remove(&token(0));
        assert!(cache.get(&token(0)).is_none());
        cache.put(&[b'x'; 9000], &verified(), max);
        assert!(cache.get(&[b'x'; 9000]).is_none(), "more than its half");
        let mut none = Cache::default();
        none.put(&token(0), &verified(), 0);
        assert!(none.get(&token(0)).is_none());
    }
}
