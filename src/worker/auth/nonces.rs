//! Nonces of signatures that were used, so that none counts twice on any worker.
//!
//! Each key has a home (`worker::home`), which alone remembers its nonces, each for as long as its
//! signature would be accepted. **Bounds**: as many for each key as its way says, about 80 bytes
//! each; when that is full the answer is [`Used::Unknown`], never a guess, and so it is when the
//! home does not answer within [`WAIT_MS`] and a tick. A worker that takes another's place knows
//! nothing of what was used before: what was signed before it began is unknown to it. A nonce is
//! kept as a digest under a key of the process.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
};

use ahash::RandomState;

use super::passwords::Passwords;
use crate::{
    telemetry::metrics::shards::{NONCE_OUTCOMES, WorkerShard},
    worker::{
        Worker,
        clock::{now_ms, unix_s},
        home::{self, Homes},
        replies::{Replies, Ticket},
    },
};

/// A request waits so long for the home of its key, and up to a tick longer: nobody else can say
/// whether its nonce is new, so that a worker that is behind must not turn good ones away.
const WAIT_MS: u64 = 2000;
/// Requests of one worker that wait so.
const WAITS_MAX: usize = 64 * 1024;

/// Whether a nonce was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    No,
    Before,
    /// It cannot be told now.
    Unknown,
}

/// A nonce that is to count once.
pub struct Asked<'a> {
    pub key: &'a str,
    pub nonce: &'a str,
    pub created_s: u64,
    /// From then on its signature is accepted by no way.
    pub until_s: u64,
    /// By how much clocks may differ, for any way of its key.
    pub skew_s: u64,
    /// Nonces of one key.
    pub most: u32,
    /// Nothing is awaited after that.
    pub by_ms: u64,
}

type Tag = [u8; 16];

/// What is asked of a home, and answered.
#[derive(Clone, Copy, Debug)]
pub enum Letter {
    Ask { from: u32, ticket: Ticket, key: u64, nonce: Nonce },
    Answer { ticket: Ticket, used: Used },
}

#[derive(Clone, Copy, Debug)]
pub struct Nonce {
    tag: Tag,
    created_s: u64,
    until_s: u64,
    skew_s: u64,
    most: u32,
}

/// One worker's.
pub struct Nonces {
    /// Of the keys whose home it is.
    keys: RefCell<HashMap<u64, Memory, RandomState>>,
    /// Unix time from which on all that was used is known; 0: always.
    since_s: u64,
    waits: Replies<Used>,
}

/// Nonces of one key.
#[derive(Default)]
struct Memory {
    until_s: HashMap<Tag, u64, RandomState>,
    /// In the order in which they came, with when they are over.
    order: VecDeque<(u64, Tag)>,
}

impl Nonces {
    pub fn new(homes: &Homes, worker: usize) -> Nonces {
        let since_s = if homes.is_successor(worker) { unix_s() } else { 0 };
        Nonces { keys: RefCell::default(), since_s, waits: Replies::default() }
    }

    fn take(&self, key: u64, nonce: &Nonce, now_s: u64) -> Used {
        if self.since_s > 0 && nonce.created_s <= self.since_s + nonce.skew_s {
            return Used::Unknown;
        }
        self.keys.borrow_mut().entry(key).or_default().take(nonce, now_s)
    }

    /// Forgets what is over, and notes how much is not. Called every second or so.
    pub fn sweep(&self, shard: &WorkerShard) {
        let (mut keys, now_s) = (self.keys.borrow_mut(), unix_s());
        let mut kept = 0;
        keys.retain(|_, memory| {
            memory.expire(now_s);
            kept += memory.order.len() as u64;
            !memory.order.is_empty()
        });
        shard.nonces_kept.set(kept);
    }
}

impl Memory {
    fn expire(&mut self, now_s: u64) {
        while let Some((until_s, tag)) = self.order.front()
            && *until_s <= now_s
        {
            self.until_s.remove(tag);
            self.order.pop_front();
        }
    }

    fn take(&mut self, nonce: &Nonce, now_s: u64) -> Used {
        self.expire(now_s);
        if self.until_s.contains_key(&nonce.tag) {
            return Used::Before;
        }
        if self.order.len() >= nonce.most as usize {
            return Used::Unknown;
        }
        self.until_s.insert(nonce.tag, nonce.until_s);
        self.order.push_back((nonce.until_s, nonce.tag));
        Used::No
    }
}

/// Uses a nonce, if nobody has.
pub async fn take(worker: &Worker, asked: Asked<'_>) -> Used {
    let used = used(worker, asked).await;
    worker.metrics.nonces[used as usize].count();
    used
}

const _: () = assert!(NONCE_OUTCOMES.len() == Used::Unknown as usize + 1);

async fn used(worker: &Worker, asked: Asked<'_>) -> Used {
    // Of one length, and another one than those of other digests under this key.
    let Some(digest) = Passwords::tag(&[3; 32], asked.nonce.as_bytes()) else {
        return Used::Unknown;
    };
    let mut tag: Tag = [0; 16];
    tag.copy_from_slice(&digest[..16]);
    let Asked { created_s, until_s, skew_s, most, .. } = asked;
    let nonce = Nonce { tag, created_s, until_s, skew_s, most };
    let homes = &worker.homes;
    let key = homes.random.hash_one(("signature", asked.key));
    let home = homes.of(key);
    if home == worker.index {
        return worker.nonces.take(key, &nonce, unix_s());
    }
    let Some(place) = worker.nonces.waits.place(worker.random.next(), WAITS_MAX) else {
        return Used::Unknown;
    };
    let letter = Letter::Ask { from: worker.index as u32, ticket: place.ticket, key, nonce };
    if homes.leave(home, home::Letter::Nonce(letter)).is_err() {
        return Used::Unknown;
    }
    let by_ms = asked.by_ms.min(now_ms() + WAIT_MS);
    place.reply(worker, by_ms).await.unwrap_or(Used::Unknown)
}

/// A letter for this worker.
pub fn receive(worker: &Worker, letter: Letter) {
    match letter {
        Letter::Ask { from, ticket, key, nonce } => {
            let used = worker.nonces.take(key, &nonce, unix_s());
            // Whoever asks refuses when there is no answer: the nonce stays used.
            let letter = home::Letter::Nonce(Letter::Answer { ticket, used });
            let _ = worker.homes.leave(from as usize, letter);
        }
        Letter::Answer { ticket, used } => {
            worker.nonces.waits.hand_out(ticket, used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::Seeds;

    fn nonce(n: u8, until_s: u64) -> Nonce {
        Nonce { tag: [n; 16], created_s: 100, until_s, skew_s: 30, most: 3 }
    }

    #[test]
    fn each_counts_once_while_it_could_and_memory_is_bounded() {
        let mut memory = Memory::default();
        assert_eq!(memory.take(&nonce(1, 110), 100), Used::No);
        assert_eq!(memory.take(&nonce(1, 110), 109), Used::Before);
        assert_eq!(memory.take(&nonce(2, 120), 109), Used::No);
        assert_eq!(memory.take(&nonce(3, 120), 109), Used::No);
        assert_eq!(memory.take(&nonce(4, 120), 109), Used::Unknown, "full");
        assert_eq!(memory.take(&nonce(2, 120), 109), Used::Before);
        // The first one is over, and another one has room.
        assert_eq!(memory.take(&nonce(4, 120), 110), Used::No);
        assert_eq!((memory.until_s.len(), memory.order.len()), (3, 3));
        memory.expire(120);
        assert!(memory.until_s.is_empty() && memory.order.is_empty());
    }

    #[test]
    fn who_takes_anothers_place_does_not_know_what_was_used() {
        let homes = Homes::new(1, Seeds::default()).expect("eventfds");
        let first = Nonces::new(&homes, 0);
        assert_eq!(first.take(1, &nonce(1, u64::MAX), 100), Used::No);
        assert!(!homes.begin(0));
        assert_eq!(Nonces::new(&homes, 0).since_s, 0);
        assert!(homes.begin(0));
        let second = Nonces::new(&homes, 0);
        assert_eq!(second.take(1, &nonce(1, u64::MAX), 100), Used::Unknown);
        let new = Nonce { created_s: second.since_s + 31, ..nonce(2, u64::MAX) };
        assert_eq!(second.take(1, &new, second.since_s), Used::No);
    }

    #[test]
    fn what_is_over_goes_with_its_key() {
        let homes = Homes::new(1, Seeds::default()).expect("eventfds");
        let (nonces, shard) = (Nonces::new(&homes, 0), WorkerShard::default());
        nonces.take(1, &nonce(1, 1), 0);
        nonces.take(2, &nonce(1, u64::MAX), 0);
        nonces.sweep(&shard);
        assert_eq!((nonces.keys.borrow().len(), shard.nonces_kept.get()), (1, 1));
    }
}
