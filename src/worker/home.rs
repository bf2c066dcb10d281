//! The homes of keys that all workers share: each key that is counted over all of them has one
//! worker that holds what is known of it, and this is the way to it.
//!
//! A worker leaves a [`Letter`] at another's [`Home`], a bounded queue with a bell; who is at home
//! takes it and leaves an answer in the same way. What the letters say is the affair of whoever
//! sends them.
//!
//! **Bounds**: [`LETTERS_MAX`] letters wait for one worker; a further one comes back to its sender,
//! who has to do without. Invariants: a letter is taken by one worker, once, or waits. No letter is
//! left at a home that is known to be closed; one that was left just before waits for the worker
//! that is started in its place, or is never answered. So whoever waits for an answer has a
//! deadline. The homes are made once by control and stay.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use ahash::RandomState;
use crossbeam_queue::ArrayQueue;

use super::{Worker, auth::nonces, bell::Bell, clock, concurrency, rate_limits};
use crate::policy::limit::Seeds;

/// Letters that may wait for one worker.
const LETTERS_MAX: usize = 8 * 1024;

/// What one worker tells another.
#[derive(Clone, Copy, Debug)]
pub enum Letter {
    Limit(rate_limits::Letter),
    Nonce(nonces::Letter),
    Permit(concurrency::Letter),
}

/// One worker, as those see it who have something for it.
#[repr(align(128))]
struct Home {
    letters: ArrayQueue<Letter>,
    /// Somebody takes what is left.
    is_open: AtomicBool,
    /// Workers that were started here, one after the other.
    begun: AtomicU32,
    bell: Bell,
}

/// All of them, by the number of the worker.
#[derive(Clone)]
pub struct Homes {
    all: Arc<[Home]>,
    /// Makes keys.
    pub random: RandomState,
    /// Makes those that outlive the process.
    pub seeds: Seeds,
}

impl Homes {
    pub fn new(workers: usize, seeds: Seeds) -> io::Result<Homes> {
        let home = |_| {
            let (is_open, begun) = (AtomicBool::new(false), AtomicU32::new(0));
            Ok(Home { letters: ArrayQueue::new(LETTERS_MAX), is_open, begun, bell: Bell::new()? })
        };
        let all = (0..workers).map(home).collect::<io::Result<_>>()?;
        Ok(Homes { all, random: RandomState::new(), seeds })
    }

    pub fn workers(&self) -> usize {
        self.all.len()
    }

    /// The worker whose key this is.
    #[inline]
    pub fn of(&self, key: u64) -> usize {
        home_of(key, self.all.len())
    }

    /// Leaves a letter for a worker; gives it back when there is no room or nobody there.
    pub fn leave(&self, worker: usize, letter: Letter) -> Result<(), Letter> {
        let home = &self.all[worker];
        if !home.is_open.load(Ordering::Acquire) {
            return Err(letter);
        }
        home.letters.push(letter)?;
        home.bell.ring();
        Ok(())
    }

    /// A worker is started. Answers whether another one was here before.
    pub fn begin(&self, worker: usize) -> bool {
        self.all[worker].begun.fetch_add(1, Ordering::Relaxed) > 0
    }

    /// The worker that was started last was not the first one here.
    pub fn is_successor(&self, worker: usize) -> bool {
        self.life(worker) > 1
    }

    /// How often a worker of this number was started: tells it from those that were here before.
    pub fn life(&self, worker: usize) -> u32 {
        self.all[worker].begun.load(Ordering::Relaxed)
    }

    /// Somebody takes what is left for this worker.
    pub fn is_open(&self, worker: usize) -> bool {
        self.all[worker].is_open.load(Ordering::Relaxed)
    }

    /// From now on nobody takes what is left for this worker.
    pub fn close(&self, worker: usize) {
        self.all[worker].is_open.store(false, Ordering::Release);
    }
}

/// The worker, of so many, whose key this is.
#[inline]
pub fn home_of(key: u64, workers: usize) -> usize {
    // The upper bits, evenly; tables use others.
    ((u128::from(key) * workers as u128) >> 64) as usize
}

/// Takes in what others leave, for as long as the worker runs.
pub async fn serve(worker: Rc<Worker>) {
    let homes = worker.homes.clone();
    let home = &homes.all[worker.index];
    let served: io::Result<()> = async {
        let ear = home.bell.listen()?;
        home.is_open.store(true, Ordering::Release);
        loop {
            ear.heard();
            clock::completed();
            while let Some(letter) = home.letters.pop() {
                match letter {
                    Letter::Limit(letter) => rate_limits::receive(&worker, letter),
                    Letter::Nonce(letter) => nonces::receive(&worker, letter),
                    Letter::Permit(letter) => concurrency::receive(&worker, letter),
                }
            }
            ear.wait().await?;
        }
    }
    .await;
    homes.close(worker.index);
    tracing::error!(worker = worker.index, error = ?served.err(), "takes no letters of others");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(key: u64) -> Letter {
        Letter::Limit(rate_limits::Letter::returned(7, key, 1))
    }

    #[test]
    fn every_key_has_a_home_and_all_have_as_many() {
        for workers in 1..9 {
            let homes = Homes::new(workers, Seeds(1, 2)).expect("eventfds");
            let mut have = vec![0u32; workers];
            for n in 0..10_000u64 {
                have[homes.of(homes.random.hash_one(n))] += 1;
            }
            let even = 10_000 / workers as u32;
            assert!(have.iter().all(|n| n.abs_diff(even) < even / 5), "{have:?}");
        }
    }

    #[test]
    fn a_letter_comes_back_when_nobody_is_there_or_there_is_no_room() {
        let homes = Homes::new(2, Seeds(1, 2)).expect("eventfds");
        assert!(homes.leave(1, letter(1)).is_err(), "not open yet");
        assert!(!homes.begin(1));
        homes.all[1].is_open.store(true, Ordering::Relaxed);
        for n in 0..LETTERS_MAX as u64 {
            assert!(homes.leave(1, letter(n)).is_ok());
        }
        assert!(homes.leave(1, letter(0)).is_err(), "full");
        assert!(homes.all[1].letters.pop().is_some());
        assert!(homes.leave(1, letter(0)).is_ok());
        homes.close(1);
        assert!(homes.all[1].letters.pop().is_some());
        assert!(homes.leave(1, letter(0)).is_err(), "closed");
        assert!(homes.begin(1), "one was here before");
    }
}
