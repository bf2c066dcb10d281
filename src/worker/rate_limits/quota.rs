//! What control asks a worker about quotas: what has changed, and to change something. Counts are
//! the worker's; control keeps them over the end of a worker and of the process.

use super::{Limits, store::Store};
use crate::{
    policy::limit::{Calendar, Used},
    worker::{Parting, Worker, clock::unix_ns},
};

/// What one key has used of a quota. By the quota's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub quota: u64,
    pub used: Used,
}

/// What control wants to have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A key has used so much in the period that goes on.
    Set { quota: u64, key: u64, used: u32 },
    /// What another process counted, with a sign ([`u32::cast_signed`]): it comes on top of what
    /// is known here.
    Add(Line),
}

impl Wish {
    pub fn key(&self) -> u64 {
        match self {
            Wish::Set { key, .. } => *key,
            Wish::Add(line) => line.used.key,
        }
    }
}

impl Limits {
    /// At most so many keys that have changed since they were last told.
    pub fn changes(&self, max: usize) -> Vec<Line> {
        let mut all = Vec::new();
        for state in self.states.iter().filter(|state| state.clock.is_some()) {
            if let Store::Quota(counts) = &mut *state.buckets.borrow_mut() {
                let changes = counts.changes(max - all.len());
                all.extend(changes.into_iter().map(|used| Line { quota: state.number, used }));
            }
        }
        all
    }

    /// The worker has ended: says what control does not know yet.
    pub fn part(&self, parting: Parting) {
        let mut unspent = Vec::new();
        for state in self.states.iter().filter(|state| state.clock.is_some()) {
            let period = state.period();
            for (key, used) in state.shard.borrow().leases().filter(|(_, tokens)| *tokens > 0) {
                unspent.push(Line { quota: state.number, used: Used { key, period, used } });
            }
        }
        parting(self.changes(usize::MAX), unspent);
    }

    /// What was known before.
    pub(super) fn restore(&self, used: &[Line]) {
        for line in used {
            if let Some(state) = self.find(line.quota)
                && let Store::Quota(counts) = &mut *state.buckets.borrow_mut()
            {
                counts.restore(line.used);
            }
        }
    }
}

impl Worker {
    /// Does what control wants with keys whose home this is. Answers how much of it was done: a
    /// quota may be gone.
    pub(in crate::worker) fn change_quotas(&self, wishes: &[Wish]) -> usize {
        let snapshot = self.snapshot();
        let mut done = 0;
        for wish in wishes {
            let quota = match wish {
                Wish::Set { quota, .. } => *quota,
                Wish::Add(line) => line.quota,
            };
            let Some(state) = snapshot.rate_limits.find(quota) else { continue };
            let now = state.now();
            let Store::Quota(counts) = &mut *state.buckets.borrow_mut() else { continue };
            match wish {
                Wish::Set { key, used, .. } => counts.set(*key, *used, now),
                Wish::Add(Line { used: Used { key, period, used }, .. }) => {
                    match used.cast_signed() {
                        more @ 0.. => counts.charge(*key, more.cast_unsigned(), *period),
                        back => counts.give(*key, back.unsigned_abs(), *period),
                    }
                }
            }
            done += 1;
        }
        done
    }
}

/// Nanoseconds until the next period begins.
pub(super) fn until_next_ns(calendar: Calendar) -> u64 {
    let now_ns = unix_ns();
    let end_s = calendar.end(calendar.period(now_ns / 1_000_000_000));
    end_s.saturating_mul(1_000_000_000).saturating_sub(now_ns)
}
