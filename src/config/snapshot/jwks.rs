//! Keys that are fetched from a provider: what control puts there and workers read.
//!
//! A [`Cell`] is one section's, the same in every snapshot of the process, so that keys outlive a
//! reload. Control writes keys, and only it; workers look at a number before each use, which
//! changes with the keys, and ask for a fetch by a flag, without a lock.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwapOption;
use rustls::ClientConfig;
use tokio::sync::Notify;

use crate::policy::jwt::KeySet;

/// Where the keys of a section come from.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The section's name.
    pub name: String,
    pub from: Origin,
    /// Its endpoints are needed, too.
    pub for_logins: bool,
    /// Whom to believe that it is the provider.
    pub client: Arc<ClientConfig>,
    pub refresh_ms: u64,
    pub refetch_after_ms: u64,
    pub wait_ms: u64,
    pub timeout_ms: u64,
    /// Where they are kept.
    pub file: Option<PathBuf>,
    pub cell: Arc<Cell>,
}

/// What is asked first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A JWK Set.
    Keys(String),
    /// An issuer, whose configuration says where its keys are.
    Issuer(String),
}

/// Where an issuer is asked what (OpenID Connect Discovery §3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub authorization: String,
    pub token: String,
    /// Where it takes logouts.
    pub end_session: Option<String>,
    /// It always gives its name with an answer (RFC 9207).
    pub names_issuer: bool,
}

/// What is known of a provider.
#[derive(Debug, Default)]
pub struct Cell {
    keys: ArcSwapOption<KeySet>,
    /// Of an issuer whose configuration names them.
    endpoints: ArcSwapOption<Endpoints>,
    /// Counts sets of keys; 0: there are none yet.
    number: AtomicU64,
    /// Fetches begun and ended, and those that failed.
    begun: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    /// When keys were last fetched, as Unix time; 0: never by this process.
    fetched_s: AtomicU64,
    /// The last fetch that was asked for may not be followed by another before that (by
    /// [`clock_ms`]).
    next_ms: AtomicU64,
    /// The most that is asked for.
    wanted: AtomicU8,
    asked: Notify,
}

const NOTHING: u8 = 0;
/// Keys at all, by who had none: whatever fetch brings them.
const FIRST: u8 = 1;
/// A fetch that begins from then on.
const NEWER: u8 = 2;

/// Milliseconds of a clock that all threads share.
pub fn clock_ms() -> u64 {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    // Never 0, which stands for a time that is over.
    u64::try_from(BEGUN.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX) + 1
}

impl Cell {
    /// Number of the set in force.
    #[inline]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The set in force, with its number or a later one's.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Puts another set in force, unless it is the same.
    pub fn put(&self, keys: KeySet) {
        if self.keys.load().as_ref().is_some_and(|now| **now == keys) {
            return;
        }
        self.keys.store(Some(Arc::new(keys)));
        self.number.fetch_add(1, Ordering::Release);
    }

    /// Where the issuer is asked, once that is known.
    pub fn endpoints(&self) -> Option<Arc<Endpoints>> {
        self.endpoints.load_full()
    }

    /// Puts other endpoints in force. Called before the keys that were fetched with them are put.
    pub fn put_endpoints(&self, endpoints: Option<Endpoints>) {
        self.endpoints.store(endpoints.map(Arc::new));
    }

    /// Asks for a fetch that begins from now on, if it may begin within `wait_ms`. Answers the
    /// count of ended fetches at which it is over.
    pub fn ask(&self, wait_ms: u64) -> Option<u64> {
        self.want(NEWER, wait_ms)
    }

    /// As [`Cell::ask`], for who has looked at the keys of this number. Who found none needs no
    /// fetch of its own: the first one will do, also when it began before.
    pub fn awaited(&self, number: u64, wait_ms: u64) -> Option<u64> {
        if number > 0 {
            return self.ask(wait_ms);
        }
        let ended = self.ended();
        if self.number() > 0 {
            return None;
        }
        let is_under_way = self.begun.load(Ordering::Acquire) > ended;
        // It may begin just now, and end with keys: then nothing is wanted any more.
        if is_under_way { Some(ended + 1) } else { self.want(FIRST, wait_ms) }
    }

    fn want(&self, what: u8, wait_ms: u64) -> Option<u64> {
        // The flag first: a fetch that begins after it is set will do.
        if self.wanted.load(Ordering::Acquire) < what {
            if self.next_ms.load(Ordering::Acquire) > clock_ms() + wait_ms {
                return None;
            }
            if self.wanted.fetch_max(what, Ordering::AcqRel) < what {
                self.asked.notify_one();
            }
        }
        Some(self.begun.load(Ordering::Acquire) + 1)
    }

    /// Whether that is still to be fetched.
    fn is_open(&self, wanted: u8) -> bool {
        wanted == NEWER || (wanted == FIRST && self.number() == 0)
    }

    /// Fetches that have ended.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// When a fetch that is asked for may begin.
    pub fn next_ms(&self) -> u64 {
        self.next_ms.load(Ordering::Acquire)
    }

    /// Waits until a fetch is asked for.
    pub async fn asked(&self) {
        while !self.is_open(self.wanted.load(Ordering::Acquire)) {
            self.asked.notified().await;
        }
    }

    /// A fetch begins.
    pub fn begin(&self, next_ms: u64) {
        self.begun.fetch_add(1, Ordering::AcqRel);
        // After the count: whoever asks from now on waits for the next one.
        if self.is_open(self.wanted.swap(NOTHING, Ordering::AcqRel)) {
            self.next_ms.store(next_ms, Ordering::Release);
        }
    }

    /// It has ended: well, at that Unix time, or without keys; then no other one that is asked for
    /// begins before `next_ms` either.
    pub fn end(&self, outcome: Result<u64, u64>) {
        match outcome {
            Ok(now_s) => self.fetched_s.store(now_s, Ordering::Release),
            Err(next_ms) => {
                self.failed.fetch_add(1, Ordering::AcqRel);
                self.next_ms.fetch_max(next_ms, Ordering::AcqRel);
            }
        }
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Acquire)
    }

    pub fn fetched_s(&self) -> u64 {
        self.fetched_s.load(Ordering::Acquire)
    }
}

/// The cell of a section and its origin, the same for as long as any snapshot has it. `true`: it is
/// new.
pub fn cell(key: &str) -> (Arc<Cell>, bool) {
    static CELLS: Mutex<Option<HashMap<String, Weak<Cell>>>> = Mutex::new(None);
    let mut cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
    let cells = cells.get_or_insert_default();
    if let Some(cell) = cells.get(key).and_then(Weak::upgrade) {
        return (cell, false);
    }
    cells.retain(|_, cell| cell.strong_count() > 0);
    let cell = Arc::<Cell>::default();
    cells.insert(key.to_owned(), Arc::downgrade(&cell));
    (cell, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_that_is_asked_for_begins_afterwards_and_not_too_often() {
        let cell = Cell::default();
        assert_eq!((cell.ask(0), cell.ask(0)), (Some(1), Some(1)));
        cell.begin(clock_ms() + 60_000);
        // One that is under way may have read the keys before: the next one counts.
        assert_eq!((cell.ask(1000), cell.ask(120_000)), (None, Some(2)));
        cell.end(Ok(7));
        assert_eq!((cell.ended(), cell.failed(), cell.fetched_s()), (1, 0, 7));
        // A fetch that nobody asked for does not count against those that are asked for.
        let cell = Cell::default();
        cell.begin(u64::MAX);
        assert_eq!(cell.ask(0), Some(2));
        // Unless it fails.
        let cell = Cell::default();
        cell.begin(u64::MAX);
        cell.end(Err(clock_ms() + 60_000));
        assert_eq!((cell.ask(0), cell.failed()), (None, 1));
    }

    fn keys() -> KeySet {
        let jwk = br#"{"kty":"OKP","crv":"Ed25519","kid":"a",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        KeySet::remote(jwk).expect("a set").0
    }

    fn is_asked(cell: &Cell) -> bool {
        cell.is_open(cell.wanted.load(Ordering::Acquire))
    }

    /// Wherever it comes between the beginning and the end of that fetch.
    #[test]
    fn who_had_no_keys_is_answered_by_the_first_fetch() {
        let steps: [fn(&Cell); 4] =
            [|_| (), |cell| cell.begin(u64::MAX), |cell| cell.put(keys()), |cell| cell.end(Ok(7))];
        for asks_at in 0..steps.len() {
            let cell = Cell::default();
            let mut over = None;
            for (at, step) in steps.iter().enumerate() {
                step(&cell);
                if at == asks_at {
                    over = cell.awaited(0, 0);
                }
            }
            // From where keys are there nobody waits.
            assert_eq!((over, is_asked(&cell)), ((asks_at < 2).then_some(1), false), "{asks_at}");
        }
        // One that saw none under way, before it began.
        let cell = Cell::default();
        cell.begin(u64::MAX);
        assert!(cell.want(FIRST, 0).is_some() && is_asked(&cell));
        cell.put(keys());
        cell.end(Ok(7));
        assert!(!is_asked(&cell));
        // Who misses one among keys asks for a fetch, as does who finds none after one that failed.
        assert_eq!((cell.awaited(1, 0), is_asked(&cell)), (Some(2), true));
        let cell = Cell::default();
        cell.begin(0);
        cell.end(Err(0));
        assert_eq!((cell.awaited(0, 0), is_asked(&cell)), (Some(2), true));
    }

    #[test]
    fn the_same_keys_are_no_news() {
        let cell = Cell::default();
        assert_eq!((cell.number(), cell.keys().is_some()), (0, false));
        cell.put(keys());
        cell.put(keys());
        assert_eq!((cell.number(), cell.keys().is_some()), (1, true));
    }

    #[test]
    fn a_section_has_one_cell_for_as_long_as_somebody_has_it() {
        let (first, is_new) = cell("main\nhttps://a");
        assert!(is_new && !cell("main\nhttps://a").1);
        assert!(!Arc::ptr_eq(&first, &cell("main\nhttps://b").0));
        drop(first);
        assert!(cell("main\nhttps://a").1);
    }
}
