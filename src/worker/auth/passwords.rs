//! Passwords that were verified lately, and those that are being verified.
//!
//! Verifying one takes a core for milliseconds, so it is an errand, its result is remembered, and
//! requests that show the same password meanwhile wait for the same errand. What is remembered is
//! under a keyed digest of the password and the hash it was compared with: the key is
//! the process's own and never leaves it, and another hash is another digest.
//!
//! **Bounds.** [`PLACES`] right ones and as many wrong ones, in tables of their own, so that a
//! flood of wrong ones makes nobody verify a right one again; as many errands as the way says.

use std::{
    cell::RefCell,
    sync::{Arc, OnceLock},
};

use aws_lc_rs::{hmac, rand::SystemRandom};

use super::flights::{Flights, Turn};
use crate::{
    config::snapshot::User,
    policy::{Refusal, keys::Digest, password::StoredPassword, refusal},
    worker::{Worker, clock::now_ms, errand::errand},
};

/// A power of two.
const PLACES: usize = 4096;
/// Nobody waits longer for an errand, its turn included.
const WAIT_MS: u64 = 10_000;

/// The process's own; it is read only, once it is there.
static KEY: OnceLock<Option<hmac::Key>> = OnceLock::new();

/// One worker's.
#[derive(Default)]
pub struct Passwords {
    /// Right ones, then wrong ones; empty until the first.
    verdicts: [RefCell<Vec<Option<Verdict>>>; 2],
    flights: Flights<bool>,
}

#[derive(Clone, Copy)]
struct Verdict {
    tag: Digest,
    until_ms: u64,
}

/// How a password is looked at.
pub struct Check<'c> {
    pub stored: &'c Arc<StoredPassword>,
    pub password: &'c [u8],
    /// Its name under [`Passwords::tag`].
    pub tag: Digest,
    pub remember_ms: u64,
    /// Errands of this kind at a time.
    pub at_once_max: u32,
}

impl Passwords {
    /// What stands for a password and the hash that it is compared with. `None` only when the
    /// system has no random numbers.
    pub fn tag(stored: &Digest, password: &[u8]) -> Option<Digest> {
        let generate = || hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok();
        let mut context = hmac::Context::with_key(KEY.get_or_init(generate).as_ref()?);
        // Of one length, so that where it ends is clear.
        context.update(stored);
        context.update(password);
        context.sign().as_ref().try_into().ok()
    }

    /// Whether the password was right when it was verified lately.
    pub fn remembered(&self, tag: &Digest) -> Option<bool> {
        let is_there = |verdicts: &RefCell<Vec<Option<Verdict>>>| {
            let verdicts = verdicts.borrow();
            let verdict = verdicts.get(place(tag)).copied().flatten();
            verdict.is_some_and(|verdict| verdict.tag == *tag && now_ms() < verdict.until_ms)
        };
        let [right, wrong] = &self.verdicts;
        match (is_there(right), is_there(wrong)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    fn remember(&self, tag: Digest, is_right: bool, for_ms: u64) {
        if for_ms == 0 {
            return;
        }
        let mut verdicts = self.verdicts[usize::from(!is_right)].borrow_mut();
        if verdicts.is_empty() {
            verdicts.resize(PLACES, None);
        }
        verdicts[place(&tag)] = Some(Verdict { tag, until_ms: now_ms().saturating_add(for_ms) });
    }

    /// For `worker::bench`: remembers that this is the user's password, without a look.
    pub fn is_right(&self, user: &User, password: &str) {
        if let Some(tag) = Passwords::tag(&user.print, password.as_bytes()) {
            self.remember(tag, true, u64::MAX);
        }
    }
}

fn place(tag: &Digest) -> usize {
    let [.., high, low] = *tag;
    (usize::from(high) << 8 | usize::from(low)) & (PLACES - 1)
}

/// Has a password verified, or waits for whoever does. A refusal says that it cannot be now.
pub async fn verified(worker: &Worker, check: Check<'_>) -> Result<bool, Refusal> {
    let passwords = &worker.passwords;
    let by_ms = now_ms().saturating_add(WAIT_MS);
    let busy = Refusal { retry_after_s: 1, ..refusal::AUTH_UNAVAILABLE.into() };
    loop {
        if let Some(is_right) = passwords.remembered(&check.tag) {
            return Ok(is_right);
        }
        let own = match passwords.flights.turn(&check.tag, check.at_once_max) {
            Turn::Own(own) => own,
            Turn::Wait(flight) => match flight.over().await {
                Some(is_right) => return Ok(is_right),
                None if now_ms() < by_ms => continue,
                None => return Err(busy),
            },
            Turn::Busy => {
                worker.metrics.passwords[PASSWORD_BUSY].count();
                return Err(busy);
            }
        };
        let (stored, password) = (check.stored.clone(), check.password.to_vec());
        let is_right = match errand(worker, by_ms, move || stored.is(&password)).await {
            Ok(is_right) => is_right,
            Err(_) => {
                worker.metrics.passwords[PASSWORD_BUSY].count();
                return Err(busy);
            }
        };
        worker.metrics.passwords[usize::from(!is_right)].count();
        passwords.remember(check.tag, is_right, check.remember_ms);
        own.land(is_right);
        return Ok(is_right);
    }
}

/// Of `WorkerShard::passwords`: right, wrong, and those nobody had time for.
const PASSWORD_BUSY: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_one_password_with_one_hash() {
        let passwords = Passwords::default();
        let tag = |stored: u8, password: &str| {
            Passwords::tag(&[stored; 32], password.as_bytes()).expect("random numbers")
        };
        assert_eq!(tag(1, "a"), tag(1, "a"));
        assert_ne!(tag(1, "a"), tag(2, "a"));
        assert_ne!(tag(1, "a"), tag(1, "b"));
        assert_eq!(passwords.remembered(&tag(1, "a")), None);
        passwords.remember(tag(1, "a"), true, 1000);
        passwords.remember(tag(1, "b"), false, 1000);
        passwords.remember(tag(1, "c"), true, 0);
        assert_eq!(passwords.remembered(&tag(1, "a")), Some(true));
        assert_eq!(passwords.remembered(&tag(1, "b")), Some(false));
        assert_eq!(passwords.remembered(&tag(1, "c")), None);
        // Each wrong one takes a place among the wrong ones only.
        for n in 0..20_000 {
            passwords.remember(tag(1, &n.to_string()), false, 1000);
        }
        assert_eq!(passwords.remembered(&tag(1, "a")), Some(true));
        assert_eq!(passwords.verdicts[1].borrow().len(), PLACES);
    }
}
