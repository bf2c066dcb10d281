//! What a worker knows of the keys of one limit, whether it is a rate or a quota, and the clock
//! that each of them goes by: a rate by the time since boot, a quota by its calendar.
//!
//! Invariant: when the next period of a quota begins, what is on lease here is worth nothing any
//! more, before anything of it is spent.

use std::cell::{Cell, RefCell};

use super::{Rule, Ticket};
use crate::{
    policy::limit::{
        Ask, Buckets, Calendar, Counts, Grant, Left, Moment, Now, Period, Shard, Turn, moment,
    },
    worker::clock::{now_ns, unix_ns},
};

/// Of the keys whose home this worker is, and of others while their home does not answer.
pub enum Store {
    Rate(Buckets),
    Quota(Counts),
}

impl Store {
    #[inline]
    pub fn take(&mut self, key: u64, tokens: u32, now: Now) -> Result<Left, Moment> {
        match self {
            Store::Rate(buckets) => buckets.take(key, tokens, now.unix_ns),
            Store::Quota(counts) => counts.take(key, tokens, now),
        }
    }

    pub fn take_alone(
        &mut self,
        key: u64,
        tokens: u32,
        workers: u32,
        now: Now,
    ) -> Result<Left, Moment> {
        match self {
            Store::Rate(buckets) => buckets.take_alone(key, tokens, workers, now.unix_ns),
            Store::Quota(counts) => counts.take_alone(key, tokens, workers, now),
        }
    }

    pub fn ask(&mut self, ask: Ask, workers: u32, now: Now) -> Grant {
        match self {
            Store::Rate(buckets) => buckets.ask(ask, workers, now.unix_ns),
            Store::Quota(counts) => counts.ask(ask, workers, now),
        }
    }

    /// Puts back what was taken, of a quota in this period.
    pub fn give(&mut self, key: u64, tokens: u32, period: Period) {
        match self {
            Store::Rate(buckets) => buckets.give(key, tokens, moment(now_ns())),
            Store::Quota(counts) => counts.give(key, tokens, period),
        }
    }

    /// Takes what is there of so many, which are counted elsewhere: of a rate that a fleet shares.
    pub fn take_some(&mut self, key: u64, tokens: u32, now: Moment) {
        if let Store::Rate(buckets) = self {
            buckets.take_some(key, tokens, now);
        }
    }

    pub fn charge(&mut self, key: u64, tokens: u32, period: Period) {
        match self {
            Store::Rate(buckets) => buckets.charge(key, tokens, moment(now_ns())),
            Store::Quota(counts) => counts.charge(key, tokens, period),
        }
    }

    /// Goes on as the limit is now.
    pub fn change(&mut self, rule: &Rule<'_>) {
        match (self, rule.quota) {
            (Store::Quota(counts), Some((_, amount))) => counts.reconfigure(amount, rule.keys_max),
            (Store::Rate(buckets), None) => {
                buckets.change(rule.windows, rule.keys_max, moment(now_ns()));
            }
            // Their numbers differ.
            (Store::Rate(_), Some(_)) | (Store::Quota(_), None) => {}
        }
    }

    pub fn keys(&self) -> usize {
        match self {
            Store::Rate(buckets) => buckets.keys(),
            Store::Quota(counts) => counts.keys(),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Store::Rate(buckets) => buckets.bytes(),
            Store::Quota(counts) => counts.bytes(),
        }
    }

    pub fn forgotten(&self) -> u64 {
        match self {
            Store::Rate(buckets) => buckets.forgotten(),
            Store::Quota(counts) => counts.forgotten(),
        }
    }
}

/// The clock of a quota.
pub struct Clock(Cell<Turn>);

impl Clock {
    pub fn new(calendar: Calendar) -> Clock {
        Clock(Cell::new(Turn::new(calendar, unix_ns())))
    }

    /// The time as it is.
    #[inline]
    pub fn now(&self, shard: &RefCell<Shard<Ticket>>) -> Now {
        let mut turn = self.0.get();
        if turn.go(unix_ns()) {
            shard.borrow_mut().void();
        }
        self.0.set(turn);
        turn.now()
    }

    /// Somebody else is in this period; answers whether this worker is, too.
    pub fn agrees(&self, period: Period, shard: &RefCell<Shard<Ticket>>) -> bool {
        let own = self.now(shard).period;
        let mut turn = self.0.get();
        if !turn.hear(period) {
            return own == period;
        }
        self.0.set(turn);
        shard.borrow_mut().void();
        true
    }

    /// The period of what was taken a moment ago.
    pub fn before(&self, shard: &RefCell<Shard<Ticket>>) -> Period {
        self.now(shard);
        self.0.get().before()
    }
}
