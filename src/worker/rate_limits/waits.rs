//! Requests and handshakes that wait for the home of their key, and what becomes of those that it
//! does not answer in time.
//!
//! Invariant: a wait ends once, whether the home answers before, after, or never.

use std::{
    cell::RefCell,
    future::poll_fn,
    task::{Poll, Waker},
    time::Duration,
};

use slab::Slab;

use super::{LimitState, OWED_MAX, WAIT_MS, give_back};
use crate::{
    config::snapshot::SharedLimit,
    policy::limit::{Left, Moment},
    telemetry::metrics::cell::Cell,
    worker::{Worker, clock::now_ms},
};

/// A place in the table of waits, and its user: a place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    place: usize,
    serial: u64,
}

/// Requests of one worker that wait for the home of their key.
#[derive(Default)]
pub struct Waits(RefCell<Slab<Wait>>);

#[derive(Default)]
struct Wait {
    serial: u64,
    waker: Option<Waker>,
    result: Option<Result<Left, Moment>>,
    /// The request has passed without an answer: what is granted for it is used.
    has_passed: bool,
}

/// What becomes of what the home said about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The request goes by it.
    Used,
    /// There is no such request any more.
    Unwanted,
    /// It has passed before, whatever was said.
    Owed,
}

impl Waits {
    pub(super) fn begin(&self) -> Ticket {
        thread_local! { static SERIAL: std::cell::Cell<u64> = const { std::cell::Cell::new(0) }; }
        let serial = SERIAL.get() + 1;
        SERIAL.set(serial);
        let place = self.0.borrow_mut().insert(Wait { serial, ..Wait::default() });
        Ticket { place, serial }
    }

    /// Nothing will be settled with a request that has passed.
    pub(super) fn forget(&self, ticket: Ticket) {
        let mut waits = self.0.borrow_mut();
        let wait = waits.get(ticket.place);
        if wait.is_some_and(|wait| wait.serial == ticket.serial && wait.has_passed) {
            waits.remove(ticket.place);
        }
    }

    /// The home has said what becomes of a request.
    pub(super) fn end(&self, ticket: Ticket, result: Result<Left, Moment>) -> Told {
        let mut waits = self.0.borrow_mut();
        let waker = match waits.get_mut(ticket.place) {
            Some(wait) if wait.serial == ticket.serial => {
                if wait.has_passed {
                    waits.remove(ticket.place);
                    return if result.is_ok() { Told::Used } else { Told::Owed };
                }
                wait.result = Some(result);
                wait.waker.take()
            }
            _ => return Told::Unwanted,
        };
        // Outside the borrow: a waker may run anything.
        drop(waits);
        waker.into_iter().for_each(Waker::wake);
        Told::Used
    }
}

/// A request that waits; one that is dropped gives back what it was granted.
pub(super) struct Waiting<'w> {
    pub worker: &'w Worker,
    pub state: &'w LimitState,
    /// Where it is counted when the home does not answer.
    pub alone: &'w Cell,
    /// Where a fleet shares the limit, how, and where it is counted when the server does not
    /// answer.
    pub shared: Option<(&'w SharedLimit, &'w Cell)>,
    pub key: u64,
    pub cost: u32,
    pub ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waits = self.worker.limit_waits.0.borrow_mut();
        if waits[self.ticket.place].has_passed {
            // Stays until the home has answered.
            return;
        }
        let wait = waits.remove(self.ticket.place);
        drop(waits);
        if let Some(Ok(_)) = wait.result {
            give_back(self.worker, self.state, self.key, self.cost);
        }
    }
}

impl Waiting<'_> {
    pub(super) async fn result(self) -> Result<Left, Moment> {
        let (worker, ticket) = (self.worker, self.ticket);
        let answered = poll_fn(|cx| {
            let mut waits = worker.limit_waits.0.borrow_mut();
            let wait = &mut waits[ticket.place];
            match wait.result.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    wait.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        if let Some((shared, fallback)) = self.shared {
            // Shorter than a tick.
            let wait = Duration::from_millis(shared.wait_ms);
            let waited = monoio::time::timeout(wait, answered).await;
            return waited.unwrap_or_else(|_| self.overdue(shared, fallback));
        }
        let alarm = worker.alarms.alarm();
        match alarm.by(now_ms() + WAIT_MS, answered).await {
            Ok(result) => result,
            Err(_) => {
                self.alone.count();
                let (now, workers) = (self.state.now(), worker.homes.workers() as u32);
                let mut shard = self.state.shard.borrow_mut();
                shard.unanswered(self.key);
                let mut buckets = self.state.buckets.borrow_mut();
                let result = buckets.take_alone(self.key, self.cost, workers, now);
                self.passes(result, shard.knows(self.key))
            }
        }
    }

    /// The request has its answer without tokens; if it passes and something `may_come`, that is
    /// used for it.
    pub(super) fn passes(
        &self,
        result: Result<Left, Moment>,
        may_come: bool,
    ) -> Result<Left, Moment> {
        let left = result?;
        let mut waits = self.worker.limit_waits.0.borrow_mut();
        let is_free = !may_come || waits.len() > OWED_MAX;
        waits[self.ticket.place].has_passed = !is_free;
        Ok(Left { is_free, ..left })
    }
}
