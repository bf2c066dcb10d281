//! What all HTTP/2 clients of one worker hold together, because bounds for each connection say
//! nothing about a hundred of them.
//!
//! Bounds. While [`LIVELY_STREAMS`] requests or more are open, those that take next to nothing have
//! one at a time. While [`CROWD_STREAMS`] requests or more are open, a connection begins few of its
//! own at first ([`Pace`]), until it has shown that it takes responses: else all that come at once
//! would have begun before the first is seen to stall. While [`SCARCE_STREAMS`] of them wait for
//! their clients, buffers are small. And what is held for clients that do not take it has a budget
//! (`http2.stalled`): beyond it, those that have taken nothing for [`STALLED_MS`] are ended, the
//! longest ones first. Alone, too, a connection that gives up what it has asked for begins the next
//! request later ([`TRIES`]); while many do ([`HASTE_MS`]), sooner and for longer.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};

use slab::Slab;

use super::Session;
use crate::worker::clock::now_ms;

/// Requests open on all connections of a worker, from which on those that take next to nothing have
/// one at a time.
const LIVELY_STREAMS: u32 = 32;
/// The same, from which on each connection begins few at first.
const CROWD_STREAMS: u32 = 256;
/// Requests that a connection may then have open before it has taken a response.
const FEW: u32 = 4;
/// Further ones for each response that it has taken.
const FOR_EACH: u32 = 2;
/// A connection whose requests bring no response in this time, so that it cannot show whether it
/// takes them, may have twice as many.
const PACE_MS: u64 = 1000;
/// Requests that a client may give up before they are answered, at once; each response that it
/// takes allows for two, ...
const TRIES: u32 = 20;
/// ... and each time this long without one, for one. Then its next request waits so long: opening a
/// connection to an upstream for a request that nobody wants costs more than asking for it.
const TRY_MS: u64 = 50;
/// While all connections of a worker give up more than one request in this time, ...
const HASTE_MS: u64 = 10;
/// ... and have given up so many more than that, ...
const HASTE_MOST: u64 = 100;
/// ... each may give up so many at once, ...
const HASTY_TRIES: u32 = 2;
/// ... and then waits so long, up to twice, so that not all go on at once.
const HASTY_TRY_MS: u64 = 200;
/// Requests that wait for their clients to take data, from which on all buffers are small.
const SCARCE_STREAMS: u32 = 128;
/// What took something a moment ago is only slow.
const STALLED_MS: u64 = 5000;

/// The account of one worker.
#[derive(Default)]
pub struct Crowd {
    streams: Cell<u32>,
    waiting: Cell<u32>,
    /// When as many requests as were given up might have been, one every [`HASTE_MS`].
    given_up_ms: Cell<u64>,
    sessions: RefCell<Slab<Weak<Session>>>,
}

impl Crowd {
    pub fn begun(&self) {
        self.streams.set(self.streams.get() + 1);
    }

    pub fn ended(&self) {
        self.streams.set(self.streams.get() - 1);
    }

    pub fn waits(&self) {
        self.waiting.set(self.waiting.get() + 1);
    }

    pub fn waited(&self) {
        self.waiting.set(self.waiting.get() - 1);
    }

    /// So much waits to be taken that no more than little is to be held for each.
    pub fn is_scarce(&self) -> bool {
        self.waiting.get() >= SCARCE_STREAMS
    }

    /// A request was given up at `now_ms`, before it was answered.
    pub fn given_up(&self, now_ms: u64) {
        let most_ms = now_ms + 2 * HASTE_MOST * HASTE_MS;
        let at_ms = self.given_up_ms.get().max(now_ms) + HASTE_MS;
        self.given_up_ms.set(at_ms.min(most_ms));
    }

    /// Many requests are given up.
    fn is_hasty(&self, now_ms: u64) -> bool {
        self.given_up_ms.get() > now_ms + HASTE_MOST * HASTE_MS
    }

    /// Many requests are open.
    pub fn is_lively(&self) -> bool {
        self.streams.get() >= LIVELY_STREAMS
    }

    fn is_dense(&self) -> bool {
        self.streams.get() >= CROWD_STREAMS
    }

    /// Makes a connection known, as long as the answer lives.
    pub fn join(self: &Rc<Self>, session: &Rc<Session>) -> Member {
        let key = self.sessions.borrow_mut().insert(Rc::downgrade(session));
        Member { crowd: self.clone(), key }
    }

    /// Ends connections that take nothing, if all hold more than `bytes_max`. Called every second
    /// or so.
    pub fn sweep(&self, bytes_max: u64) {
        let sessions = self.sessions.borrow();
        let now_ms = now_ms();
        let mut stalled: Vec<(u64, u64, Rc<Session>)> = Vec::new();
        let mut bytes = 0;
        for (_, session) in sessions.iter() {
            let Some(session) = session.upgrade() else { continue };
            let held = session.held_bytes();
            if let Some(since_ms) = session.progress.stalled_since(session.taken(), held, now_ms) {
                bytes += held;
                stalled.push((since_ms, held, session));
            }
        }
        drop(sessions);
        if bytes <= bytes_max {
            return;
        }
        stalled.sort_unstable_by_key(|(since_ms, ..)| *since_ms);
        for (since_ms, held, session) in stalled {
            if bytes <= bytes_max || since_ms + STALLED_MS > now_ms {
                return;
            }
            bytes = bytes.saturating_sub(held);
            session.shed();
        }
    }
}

/// A connection that is known.
pub struct Member {
    crowd: Rc<Crowd>,
    key: usize,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.sessions.borrow_mut().remove(self.key);
    }
}

/// Since when a connection has taken nothing, as seen by sweeps.
#[derive(Default)]
pub struct Progress {
    taken: Cell<u64>,
    since_ms: Cell<Option<u64>>,
}

impl Progress {
    /// `taken` bytes so far, and `held` for it now. `None` when it waits for nothing.
    fn stalled_since(&self, taken: u64, held: u64, now_ms: u64) -> Option<u64> {
        let has_moved = self.taken.replace(taken) != taken;
        if held == 0 {
            self.since_ms.set(None);
            return None;
        }
        let since_ms = self.since_ms.get().filter(|_| !has_moved).unwrap_or(now_ms);
        self.since_ms.set(Some(since_ms));
        Some(since_ms)
    }
}

/// How many requests a connection may have open in a crowd.
pub struct Pace {
    allowed: Cell<u32>,
    /// When it was last held up, or allowed more after that.
    since_ms: Cell<Option<u64>>,
    /// Requests that may yet be given up, ...
    tries: Cell<u32>,
    /// ... and when the last one was.
    tried_ms: Cell<u64>,
    /// How long it waits among many.
    hasty_try_ms: u64,
}

impl Pace {
    /// `random`: what sets it apart from others.
    pub fn new(random: u64) -> Pace {
        Pace {
            allowed: Cell::new(FEW),
            since_ms: Cell::new(None),
            tries: Cell::new(TRIES),
            tried_ms: Cell::new(0),
            hasty_try_ms: HASTY_TRY_MS + random % HASTY_TRY_MS,
        }
    }

    /// A response was taken.
    pub fn taken(&self) {
        self.allowed.set(self.allowed.get().saturating_add(FOR_EACH));
        self.tries.set((self.tries.get() + 2).min(TRIES));
    }

    /// The client gave a request up at `now_ms`, before it was answered.
    pub fn given_up(&self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.tried_ms.replace(now_ms));
        let earned = u32::try_from(elapsed_ms / TRY_MS).unwrap_or(TRIES).min(TRIES);
        self.tries.set((self.tries.get() + earned).min(TRIES).saturating_sub(1));
    }

    /// When a client that gives requests up may begin the next one; `None`: now.
    pub fn tries_at(&self, crowd: &Crowd, now_ms: u64) -> Option<u64> {
        if self.tries.get() > TRIES - HASTY_TRIES {
            return None;
        }
        let (tries, try_ms) = match crowd.is_hasty(now_ms) {
            true => (TRIES - HASTY_TRIES, self.hasty_try_ms),
            false => (0, TRY_MS),
        };
        let at_ms = self.tried_ms.get() + try_ms;
        (self.tries.get() <= tries && at_ms > now_ms).then_some(at_ms)
    }

    /// Whether it is to wait among many that do.
    pub fn is_hasty(&self, crowd: &Crowd, now_ms: u64) -> bool {
        crowd.is_hasty(now_ms) && self.tries_at(crowd, now_ms).is_some()
    }

    /// One was not: it begins anew.
    pub fn stalled(&self) {
        self.allowed.set(FEW);
    }

    /// Whether a connection with `open` requests is to wait.
    pub fn holds_up(&self, crowd: &Crowd, open: u32) -> bool {
        open >= self.allowed.get() && crowd.is_dense()
    }

    /// It is held up at `now_ms`; `is_waiting`: for its client. Answers when to ask again.
    pub fn held_up(&self, open: u32, is_waiting: bool, now_ms: u64) -> u64 {
        let since_ms = self.since_ms.get().unwrap_or(now_ms);
        let is_due = since_ms + PACE_MS <= now_ms;
        if is_due && !is_waiting {
            self.allowed.set(self.allowed.get().max(open).saturating_mul(2));
        }
        self.since_ms.set(Some(if is_due { now_ms } else { since_ms }));
        self.since_ms.get().unwrap_or(now_ms) + PACE_MS
    }

    pub fn goes_on(&self) {
        self.since_ms.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense() -> Crowd {
        let crowd = Crowd::default();
        crowd.streams.set(CROWD_STREAMS);
        crowd
    }

    #[test]
    fn alone_a_connection_begins_what_it_likes() {
        let pace = Pace::new(0);
        assert!(!pace.holds_up(&Crowd::default(), 10_000));
        assert!(pace.holds_up(&dense(), FEW) && !pace.holds_up(&dense(), FEW - 1));
    }

    #[test]
    fn memory_is_scarce_while_many_wait() {
        let crowd = Crowd::default();
        (1..SCARCE_STREAMS).for_each(|_| crowd.waits());
        assert!(!crowd.is_scarce());
        crowd.waits();
        assert!(crowd.is_scarce());
        crowd.waited();
        assert!(!crowd.is_scarce());
    }

    #[test]
    fn responses_taken_allow_more_and_one_that_stalls_ends_that() {
        let pace = Pace::new(0);
        (0..10).for_each(|_| pace.taken());
        let most = FEW + 10 * FOR_EACH;
        assert!(!pace.holds_up(&dense(), most - 1) && pace.holds_up(&dense(), most));
        pace.stalled();
        assert!(pace.holds_up(&dense(), FEW));
    }

    #[test]
    fn who_gives_requests_up_waits_until_it_takes_a_response_or_time_passes() {
        let (pace, crowd) = (Pace::new(0), Crowd::default());
        (1..TRIES).for_each(|_| pace.given_up(1000));
        assert_eq!(pace.tries_at(&crowd, 1000), None);
        pace.given_up(1000);
        assert_eq!(pace.tries_at(&crowd, 1000), Some(1000 + TRY_MS));
        assert_eq!(pace.tries_at(&crowd, 1000 + TRY_MS), None, "one more");
        pace.given_up(1000 + TRY_MS);
        assert_eq!(pace.tries_at(&crowd, 1000 + TRY_MS), Some(1000 + 2 * TRY_MS));
        pace.taken();
        assert_eq!(pace.tries_at(&crowd, 1000 + TRY_MS), None);
        (0..2).for_each(|_| pace.given_up(1000 + TRY_MS));
        assert!(pace.tries_at(&crowd, 1000 + TRY_MS).is_some());
        // After a while all is forgotten.
        (1..TRIES).for_each(|_| pace.given_up(1_000_000));
        assert_eq!(pace.tries_at(&crowd, 1_000_000), None);
    }

    /// A thousand calls that wait for their first message have begun soon.
    #[test]
    fn who_gives_requests_up_among_many_waits_sooner_and_for_longer() {
        let (pace, crowd) = (Pace::new(0), Crowd::default());
        (0..HASTE_MOST).for_each(|_| crowd.given_up(1000));
        (0..HASTY_TRIES).for_each(|_| pace.given_up(1000));
        assert_eq!(pace.tries_at(&crowd, 1000), None);
        crowd.given_up(1000);
        assert_eq!(pace.tries_at(&crowd, 1000), Some(1000 + HASTY_TRY_MS));
        assert!(pace.is_hasty(&crowd, 1000));
        assert_eq!(Pace::new(0).tries_at(&crowd, 1000), None, "others do not");
        assert_eq!(pace.tries_at(&crowd, 1000 + HASTE_MS), None, "others have stopped");
        // However many there were, it is over soon.
        (0..100_000).for_each(|_| crowd.given_up(1000));
        assert!(pace.tries_at(&crowd, 1000 + HASTY_TRY_MS - 1).is_some());
        assert!(!crowd.is_hasty(1000 + HASTE_MOST * HASTE_MS));
    }

    /// A thousand calls that wait for their first message have begun soon.
    #[test]
    fn time_without_responses_allows_more_unless_the_client_takes_none() {
        let (pace, crowd) = (Pace::new(0), dense());
        let (mut now_ms, mut open) = (0, CROWD_STREAMS);
        while open < 1000 {
            assert!(now_ms <= 3 * PACE_MS, "{open} at {now_ms} ms");
            if pace.holds_up(&crowd, open) {
                now_ms = pace.held_up(open, false, now_ms);
            } else {
                open += 1;
            }
        }
        let pace = Pace::new(0);
        for _ in 0..100 {
            now_ms = pace.held_up(FEW, true, now_ms);
        }
        assert!(pace.holds_up(&crowd, FEW));
    }

    #[test]
    fn who_takes_something_is_not_stalled_for_long() {
        let progress = Progress::default();
        assert_eq!(progress.stalled_since(0, 0, 1), None);
        assert_eq!(progress.stalled_since(0, 9, 2), Some(2));
        assert_eq!(progress.stalled_since(0, 9, 3), Some(2));
        assert_eq!(progress.stalled_since(1, 9, 4), Some(4));
        assert_eq!(progress.stalled_since(1, 0, 5), None);
        assert_eq!(progress.stalled_since(1, 9, 6), Some(6));
    }
}
