//! Limits that a fleet of gateways shares: what this worker does as the home of a key whose bucket
//! is in a Redis server.
//!
//! The home has tokens on lease from that bucket, spends them, lends them to the other workers, and
//! tells control what it needs beyond ([`crate::config::snapshot::redis`]), which asks the server.
//! A request waits for tokens no longer than the server's section says. Then, and while the server
//! is not reached, it is decided by the limit's fallback.
//!
//! Invariants: a lease of before a connection ended is not spent after it. The bucket that a
//! process has to itself for such times has no more in it than if it had seen what was leased here
//! before.

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    sync::Arc,
};

use super::{Decided, LimitState, Ticket, Waiting, waits::Told};
use crate::{
    config::snapshot::{FleetOrder, SharedLimit},
    policy::limit::{
        Ask, Grant, Left, Lent, Moment, Shard, Took,
        fleet::{Fallback, Order, hold},
        moment,
    },
    telemetry::metrics::cell,
    worker::{Worker, clock::now_ns, home},
};

/// A client that is refused because the server is not reached may ask again after this.
const REFUSED_NS: u64 = 1_000_000_000;

/// Who waits at a home for tokens of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// One of its own requests.
    Request(Ticket),
    Worker(u32),
}

/// What the server has said of one key.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    pub limit: u64,
    pub key: u64,
    pub tokens: u32,
    /// There is nothing more for so long; 0 when there is.
    pub empty_ns: u64,
    pub left: Left,
}

/// What one worker has of a limit that a fleet shares; of any other, nothing.
#[derive(Default)]
pub(super) struct Shared {
    how: RefCell<Option<Arc<SharedLimit>>>,
    /// Of the keys whose home this worker is, and the turn of the server's link in which that was
    /// leased.
    leases: RefCell<Shard<Waiter>>,
    turn: Cell<u64>,
}

impl Shared {
    pub fn new(how: Option<&Arc<SharedLimit>>) -> Shared {
        Shared { how: RefCell::new(how.cloned()), ..Shared::default() }
    }

    /// Goes over to another configuration.
    pub fn change(&self, how: Option<&Arc<SharedLimit>>) {
        self.how.replace(how.cloned());
    }

    /// Keys of which something is known.
    pub fn keys(&self) -> usize {
        self.leases.borrow().len()
    }
}

/// A limit that is shared, in a worker that is the home of a key.
pub(super) struct Home<'w> {
    worker: &'w Worker,
    shared: Ref<'w, Arc<SharedLimit>>,
    state: &'w LimitState,
    turn: u64,
}

impl<'w> Home<'w> {
    /// `None` when the limit is not shared, or its server not reached.
    #[inline]
    pub fn of(worker: &'w Worker, state: &'w LimitState) -> Option<Home<'w>> {
        let shared = Ref::filter_map(state.fleet.how.borrow(), Option::as_ref).ok()?;
        let turn = shared.link.turn()?;
        Some(Home { worker, shared, state, turn })
    }

    /// What is on lease from the fleet, unless the connection has ended since.
    fn leases(&self) -> RefMut<'w, Shard<Waiter>> {
        let mut leases = self.state.fleet.leases.borrow_mut();
        if self.state.fleet.turn.replace(self.turn) != self.turn {
            leases.clear(|waiter| forget(self.worker, waiter));
        }
        leases
    }

    fn order(&self, order: Order) -> bool {
        self.shared.link.leave(FleetOrder {
            shared: self.shared.clone(),
            limit: self.state.number,
            worker: self.worker.index as u32,
            order,
        })
    }

    /// Asks for more; those who wait are decided otherwise when that cannot be.
    fn ask(&self, ask: Ask) -> bool {
        let is_asked = self.order(Order { key: ask.key, ask: Some(ask), ..Order::default() });
        if !is_asked {
            self.leases().unanswered(ask.key);
        }
        is_asked
    }

    /// Puts back what was taken and not used.
    pub fn give(&self, key: u64, tokens: u32) {
        if !self.leases().give(key, tokens) {
            // What does not get there is lost to the key, and never too much.
            self.order(Order { key, given: tokens, ..Order::default() });
        }
    }

    /// Takes whether it is there or not.
    pub fn charge(&self, key: u64, tokens: u32) {
        self.order(Order { key, charged: tokens, ..Order::default() });
    }

    fn take(&self, fallback: &cell::Cell, (key, cost): (u64, u32), now: Moment) -> Decided {
        let took = self.leases().take(key, cost, now);
        match took {
            Took::Yes(left, ask) => {
                if let Some(ask) = ask {
                    self.ask(ask);
                }
                Decided::Now(Ok(left))
            }
            Took::No(until) => Decided::Now(Err(until)),
            Took::Ask(ask) if !self.ask(ask) => {
                Decided::Now(alone(self.worker, (&self.shared, fallback), self.state, (key, cost)))
            }
            Took::Ask(_) | Took::Wait => {
                let ticket = self.worker.limit_waits.begin();
                self.leases().wait(key, cost, Waiter::Request(ticket));
                Decided::Later(ticket)
            }
        }
    }

    /// Another worker asks.
    pub fn lend(&self, from: u32, ask: Ask, now: Moment) {
        let workers = self.worker.homes.workers() as u32;
        let lent = self.leases().lend(ask, workers, now);
        match lent {
            Lent::Now(grant, more) => {
                if !self.answer(from, grant) && grant.tokens > 0 {
                    self.give(ask.key, grant.tokens);
                }
                if let Some(more) = more {
                    self.ask(more);
                }
            }
            Lent::Later(asked) => {
                // When it cannot be asked, whoever waits there decides when its time is up.
                if asked.is_none_or(|asked| self.ask(asked)) {
                    self.leases().wait_for(ask.key, ask.want, ask.least, Waiter::Worker(from));
                }
            }
        }
    }

    fn answer(&self, to: u32, grant: Grant) -> bool {
        let letter = super::Letter::Grant { limit: self.state.number, grant };
        self.worker.homes.leave(to as usize, home::Letter::Limit(letter)).is_ok()
    }

    /// The server has answered.
    pub fn leased(&self, lease: &Lease, now: Moment) {
        let Lease { key, tokens, empty_ns, left, .. } = *lease;
        let empty_until =
            if empty_ns == 0 { 0 } else { now + hold(&self.shared.windows, empty_ns) };
        let grant = Grant { key, tokens, empty_until, left, period: 0 };
        self.state.buckets.borrow_mut().take_some(key, tokens, now);
        let (mut unwanted, mut owed) = (0, 0);
        let (is_known, ask) = {
            let mut leases = self.leases();
            let ask = leases.granted(&grant, now, |waiter, tokens, result| match waiter {
                // Wakes tasks, and runs none.
                Waiter::Request(ticket) => match self.worker.limit_waits.end(ticket, result) {
                    Told::Unwanted if result.is_ok() => unwanted += tokens,
                    Told::Owed => owed += tokens,
                    Told::Used | Told::Unwanted => {}
                },
                Waiter::Worker(to) => {
                    let (tokens, empty_until, left) = match result {
                        Ok(left) => (tokens, 0, left),
                        Err(until) => (0, until, left),
                    };
                    let grant = Grant { key, tokens, empty_until, left, period: 0 };
                    if !self.answer(to, grant) {
                        unwanted += tokens;
                    }
                }
            });
            (leases.knows(key), ask)
        };
        if !is_known {
            unwanted += tokens;
        }
        if unwanted > 0 {
            self.give(key, unwanted);
        }
        if owed > 0 {
            self.charge(key, owed);
        }
        if let Some(ask) = ask {
            self.ask(ask);
        }
    }

    /// Gives leases back that are not used.
    pub fn sweep(&self, now: Moment) {
        let give_back = |key, tokens| self.order(Order { key, given: tokens, ..Order::default() });
        self.leases().sweep(now, give_back, |waiter| forget(self.worker, waiter));
    }
}

/// Nothing will be settled with whoever waited.
fn forget(worker: &Worker, waiter: Waiter) {
    if let Waiter::Request(ticket) = waiter {
        worker.limit_waits.forget(ticket);
    }
}

/// Decides about a request; `fallback` counts those that are decided without the server, and
/// `without_home` those without the home.
pub(super) fn decide(
    worker: &Worker,
    (shared, fallback): (&SharedLimit, &cell::Cell),
    state: &LimitState,
    without_home: &cell::Cell,
    of: (u64, u32),
) -> Decided {
    let is_home = worker.homes.of(of.0) == worker.index;
    match Home::of(worker, state) {
        Some(home) if is_home => return home.take(fallback, of, moment(now_ns())),
        Some(_) => {}
        None if is_home || shared.fallback != Fallback::Local => {
            return Decided::Now(alone(worker, (shared, fallback), state, of));
        }
        None => fallback.count(),
    }
    super::decide(worker, state, without_home, of)
}

/// Decides without the server.
fn alone(
    worker: &Worker,
    (shared, fallback): (&SharedLimit, &cell::Cell),
    state: &LimitState,
    (key, cost): (u64, u32),
) -> Result<Left, Moment> {
    fallback.count();
    let (now, workers) = (state.now(), worker.homes.workers() as u32);
    match shared.fallback {
        Fallback::Allow => {
            let tokens = shared.windows.first().map_or(0, |window| window.burst);
            Ok(Left { tokens, ..Left::default() }.free())
        }
        Fallback::Refuse => Err(now.unix_ns + moment(REFUSED_NS)),
        Fallback::Local => {
            let mut buckets = state.buckets.borrow_mut();
            match worker.homes.of(key) == worker.index {
                true => buckets.take(key, cost, now),
                false => buckets.take_alone(key, cost, workers, now).map(Left::free),
            }
        }
    }
}

impl Waiting<'_> {
    /// Decides about a request that has waited long enough.
    pub(super) fn overdue(
        &self,
        shared: &SharedLimit,
        fallback: &cell::Cell,
    ) -> Result<Left, Moment> {
        let (worker, state, key) = (self.worker, self.state, self.key);
        let knows = if worker.homes.of(key) == worker.index {
            let mut leases = state.fleet.leases.borrow_mut();
            leases.unanswered(key);
            leases.knows(key)
        } else {
            let mut leases = state.shard.borrow_mut();
            leases.unanswered(key);
            leases.knows(key)
        };
        let result = alone(worker, (shared, fallback), state, (key, self.cost));
        self.passes(result, knows)
    }
}

/// Gives leases back that are not used; forgets them when the server is not reached, or the limit
/// not shared any more. Called on every tick.
pub(super) fn sweep(worker: &Worker, state: &LimitState, now: Moment) {
    match Home::of(worker, state) {
        Some(home) => home.sweep(now),
        None => state.fleet.leases.borrow_mut().clear(|waiter| forget(worker, waiter)),
    }
}
