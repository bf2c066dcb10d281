//! What a worker keeps for each way: its name, tokens that were verified, the keys it goes by.
//!
//! Carried over by name when the configuration changes, as long as a way judges as before.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    rc::Rc,
    sync::Arc,
};

use ahash::RandomState;

use super::{cache::Cache, introspection::Answers, oidc::Opened};
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
    /// What a provider has said of tokens.
    pub answers: Answers,
    /// Sessions that were opened.
    pub sessions: RefCell<Cache<Rc<Opened>>>,
    /// Those whose tokens are being refreshed.
    pub refreshing: RefCell<HashSet<String, RandomState>>,
    /// By session: until when its tokens are not refreshed.
    pub refresh_paused_ms: RefCell<Cache<u64>>,
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
                Some((WayKind::Introspection(old), WayKind::Introspection(new), state))
                    if old.is_same(new) =>
                {
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
            answers: Answers::default(),
            sessions: RefCell::default(),
            refreshing: RefCell::default(),
            refresh_paused_ms: RefCell::default(),
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

    /// Of the keys that it goes by.
    pub fn number(&self) -> u64 {
        self.number.get()
    }

    pub fn with_keys<R>(&self, f: impl FnOnce(Option<&KeySet>) -> R) -> R {
        f(self.keys.borrow().as_deref())
    }

    pub fn known(&self, token: &[u8]) -> Option<Verified> {
        self.cache.borrow_mut().get(token)
    }

    pub fn remember(&self, token: &[u8], verified: &Verified, bytes_max: u64) {
        self.cache.borrow_mut().put(token, verified.clone(), cost(token), bytes_max);
    }

    pub fn forget(&self, token: &[u8]) {
        self.cache.borrow_mut().remove(token);
    }
}

/// What a token or session takes: its text, and its claims with what holds them.
pub fn cost(token: &[u8]) -> u64 {
    4 * token.len() as u64 + 512
}
