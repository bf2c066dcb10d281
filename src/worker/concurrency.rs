//! Limits on the requests in progress: which worker grants, who waits, and that every permit comes
//! back, whatever ends the request.
//!
//! A key's home grants ([`Permits`]); another worker asks it by letter and waits for the answer. A
//! permit is a [`Held`] on the stack of the request, which gives it back when it is dropped: after
//! the response's last byte, at the end of a tunnel, and when the request's task is dropped or
//! unwinds. A letter that cannot be left now is left later ([`sweep`]).
//!
//! A home that does not answer within [`WAIT_MS`] (and up to a tick) is not waited for: this worker
//! decides by its share of the limit, at least one. Invariants: a permit that was granted to nobody
//! who wants it goes back at once; those of a worker that ended are forgotten by the homes on their
//! next tick. A home that is started again knows of no permits from before: for as long as those
//! requests last, others pass in their place.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use ahash::AHashMap;

use super::{
    Worker,
    clock::now_ms,
    exchange::{Exchange, RequestBody, ResponseSink},
    generation::Generation,
    home::{self, Homes},
    pipeline,
    rate_limits::{self, Taken},
    replies::{Place, Replies, Ticket},
};
use crate::{
    config::{
        Snapshot,
        snapshot::{Concurrency, ConcurrencyId, Policies},
    },
    policy::{
        Refusal,
        limit::{Holder, Permits},
        permit::Permit,
        refusal,
        route::RouteMatch,
    },
    telemetry::metrics::shards::LimitShard,
};

/// A request waits so long for the home of its key to answer, and up to a tick longer.
const WAIT_MS: u64 = 200;

/// What a home says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Yes,
    No,
    /// It waits behind others.
    Wait,
    /// The home does not know this limit, or not yet.
    Unknown,
}

/// Whose permit of what.
#[derive(Clone, Copy, Debug)]
pub struct Of {
    /// The number of the limit's name.
    limit: u64,
    key: u64,
    holder: Holder,
}

/// What the workers tell each other.
#[derive(Clone, Copy, Debug)]
pub enum Letter {
    Ask(Of, Ticket),
    /// With the number of the home's table: what it does not know it did not grant.
    Answer(Of, Ticket, Said, u32),
    /// A permit comes back.
    Back(Of, u32),
    /// A request waits no longer.
    Leave(Of, Ticket),
}

/// One worker's state of one limit. It outlives configurations.
struct State {
    /// Of its name.
    number: u64,
    /// Of this table, among all there ever are.
    table: u32,
    /// Of keys whose home this worker is, and of others while their home does not answer.
    permits: RefCell<Permits<Ticket>>,
}

/// The limits of a generation, by [`ConcurrencyId`].
#[derive(Default)]
pub struct Limits {
    states: Vec<Rc<State>>,
    by_number: AHashMap<u64, ConcurrencyId>,
}

impl Limits {
    /// Limits that `before` has too keep their state.
    pub fn of(snapshot: &Snapshot, homes: &Homes, before: Option<&Limits>) -> Limits {
        let state = |rule: &Concurrency| {
            let number = homes.random.hash_one((&rule.what.name, "in progress"));
            let known = before.and_then(|before| before.find(number));
            known.map_or_else(|| Rc::new(State::new(number)), |(_, state)| state.clone())
        };
        let states: Vec<_> = snapshot.concurrency.iter().map(state).collect();
        let by_number = states.iter().zip(0..).map(|(state, id)| (state.number, id)).collect();
        Limits { states, by_number }
    }

    fn find(&self, number: u64) -> Option<(ConcurrencyId, &Rc<State>)> {
        let id = *self.by_number.get(&number)?;
        Some((id, &self.states[id as usize]))
    }
}

impl State {
    fn new(number: u64) -> State {
        // Unlike any other, also of a worker that was here before.
        let table = ahash::RandomState::new().hash_one(number) as u32;
        State { number, table, permits: RefCell::default() }
    }
}

/// Requests of one worker that wait for a permit, and letters to be left again.
#[derive(Default)]
pub struct Waits {
    /// What a home says, and its table.
    waiting: Replies<(Said, u32)>,
    /// Bounded by the requests in progress.
    unsent: RefCell<Vec<(usize, Letter)>>,
}

/// A permit. Dropping it gives it back.
struct Held<'w> {
    worker: &'w Worker,
    state: Rc<State>,
    of: Of,
    limit: u32,
    /// The home and its table, when that is another worker.
    home: Option<(usize, u32)>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        match self.home {
            Some((home, table)) => leave(self.worker, home, Letter::Back(self.of, table)),
            None => {
                self.state.permits.borrow_mut().give(self.of.key, self.of.holder);
                serve(self.worker, &self.state, self.of.key, self.limit);
            }
        }
    }
}

/// A request that waits. Dropping it leaves the queue, or gives back what was granted.
struct Waiting<'w> {
    worker: &'w Worker,
    state: &'w Rc<State>,
    of: Of,
    place: Place<'w, (Said, u32)>,
    limit: u32,
    home: Option<usize>,
    /// It has its answer, and has taken it.
    is_over: Cell<bool>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        match self.place.left() {
            Some((Said::Yes, table)) => drop(self.held(table)),
            _ if self.is_over.get() => {}
            _ => match self.home {
                // When it gets lost, the home grants in vain, and is given the permit back.
                Some(home) => {
                    let letter = home::Letter::Permit(Letter::Leave(self.of, self.place.ticket));
                    let _ = self.worker.homes.leave(home, letter);
                }
                None => {
                    let mut permits = self.state.permits.borrow_mut();
                    permits.leave(self.of.key, self.of.holder, &self.place.ticket);
                }
            },
        }
    }
}

impl<'w> Waiting<'w> {
    fn held(&self, table: u32) -> Held<'w> {
        let home = self.home.map(|home| (home, table));
        let Waiting { worker, state, of, limit, .. } = self;
        Held { worker, state: Rc::clone(state), of: *of, limit: *limit, home }
    }
}

/// What becomes of a request.
enum Asked<'w> {
    May(Held<'w>),
    MayNot,
    /// The home does not answer.
    Nobody,
}

/// Asks for a permit of `key`, and waits for it as the limit allows.
async fn ask<'w>(
    worker: &'w Worker,
    rule: &Concurrency,
    state: &'w Rc<State>,
    key: u64,
    until_ms: u64,
) -> Asked<'w> {
    let holder = own(worker);
    let of = Of { limit: state.number, key, holder };
    let home = Some(worker.homes.of(key)).filter(|home| *home != worker.index);
    let limit = rule.limit;
    let begun_ms = now_ms();
    let queue_ms = until_ms.min(begun_ms + rule.queue_ms);
    if home.is_none() && state.permits.borrow_mut().take(key, limit, holder) {
        return Asked::May(Held { worker, state: state.clone(), of, limit, home: None });
    }
    let place = worker.permit_waits.waiting.place_for(worker.random.next());
    let (ticket, is_over) = (place.ticket, Cell::new(false));
    let waiting = Waiting { worker, state, of, place, limit, home, is_over };
    let mut by_ms = match home {
        None if state.permits.borrow_mut().wait(key, rule.queue, holder, ticket) => queue_ms,
        None => return Asked::MayNot,
        Some(home) => {
            let letter = home::Letter::Permit(Letter::Ask(of, ticket));
            if worker.homes.leave(home, letter).is_err() {
                return Asked::Nobody;
            }
            begun_ms + WAIT_MS
        }
    };
    let mut is_queued = home.is_none();
    loop {
        let said = waiting.place.reply(worker, by_ms).await.ok();
        waiting.is_over.set(matches!(said, Some((Said::Yes | Said::No | Said::Unknown, _))));
        match said {
            Some((Said::Yes, table)) => return Asked::May(waiting.held(table)),
            Some((Said::No, _)) => return Asked::MayNot,
            Some((Said::Wait, _)) => (by_ms, is_queued) = (queue_ms, true),
            None if is_queued => return Asked::MayNot,
            Some((Said::Unknown, _)) | None => return Asked::Nobody,
        }
    }
}

fn own(worker: &Worker) -> Holder {
    Holder { worker: worker.index as u32, life: worker.homes.life(worker.index) }
}

/// Takes a permit of this worker's share of the limit.
fn alone<'w>(
    worker: &'w Worker,
    rule: &Concurrency,
    state: &Rc<State>,
    key: u64,
) -> Option<Held<'w>> {
    let holder = own(worker);
    let limit = (rule.limit / worker.homes.workers() as u32).max(1);
    let of = Of { limit: state.number, key, holder };
    let may = state.permits.borrow_mut().take(key, limit, holder);
    may.then(|| Held { worker, state: state.clone(), of, limit, home: None })
}

/// Lets those in who wait and may be. Whoever is told cannot be gone before that is known: it then
/// gives the permit back.
fn serve(worker: &Worker, state: &State, key: u64, limit: u32) {
    loop {
        let next = state.permits.borrow_mut().next(key, limit);
        let Some((holder, ticket)) = next else { return };
        let of = Of { limit: state.number, key, holder };
        answer(worker, state, of, ticket, Said::Yes);
    }
}

/// Tells a request, of this worker or another.
fn answer(worker: &Worker, state: &State, of: Of, ticket: Ticket, said: Said) {
    if of.holder.worker as usize != worker.index {
        let letter = Letter::Answer(of, ticket, said, state.table);
        return leave(worker, of.holder.worker as usize, letter);
    }
    if !worker.permit_waits.waiting.hand_out(ticket, (said, state.table)) && said == Said::Yes {
        state.permits.borrow_mut().give(of.key, of.holder);
    }
}

/// Leaves a letter, now or later.
fn leave(worker: &Worker, to: usize, letter: Letter) {
    if worker.homes.leave(to, home::Letter::Permit(letter)).is_err() {
        worker.permit_waits.unsent.borrow_mut().push((to, letter));
    }
}

/// A letter for this worker.
pub fn receive(worker: &Worker, letter: Letter) {
    let snapshot = worker.snapshot();
    let limits = &snapshot.concurrency;
    match letter {
        Letter::Ask(of, ticket) => {
            if worker.homes.life(of.holder.worker as usize) != of.holder.life {
                // It has ended meanwhile.
                return;
            }
            let Some((id, state)) = limits.find(of.limit) else {
                let letter = Letter::Answer(of, ticket, Said::Unknown, 0);
                return leave(worker, of.holder.worker as usize, letter);
            };
            let rule = snapshot.concurrency_limit(id);
            let said = {
                let mut permits = state.permits.borrow_mut();
                if permits.take(of.key, rule.limit, of.holder) {
                    Said::Yes
                } else if permits.wait(of.key, rule.queue, of.holder, ticket) {
                    Said::Wait
                } else {
                    Said::No
                }
            };
            answer(worker, state, of, ticket, said);
        }
        Letter::Answer(of, ticket, said, table) => {
            // Another worker of this number may have asked: its tickets are not this one's.
            let is_own = of.holder == own(worker);
            let is_wanted = is_own && worker.permit_waits.waiting.hand_out(ticket, (said, table));
            if !is_wanted && said == Said::Yes {
                leave(worker, worker.homes.of(of.key), Letter::Back(of, table));
            }
        }
        Letter::Back(of, table) => {
            if let Some((id, state)) = limits.find(of.limit)
                && state.table == table
            {
                state.permits.borrow_mut().give(of.key, of.holder);
                serve(worker, state, of.key, snapshot.concurrency_limit(id).limit);
            }
        }
        Letter::Leave(of, ticket) => {
            if let Some((_, state)) = limits.find(of.limit) {
                state.permits.borrow_mut().leave(of.key, of.holder, &ticket);
            }
        }
    }
}

/// Serves a request that its policies have let pass, when there is a permit for it, and holds that
/// for as long as it takes.
pub async fn act<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    (matched, permit, taken): (&RouteMatch, Permit, Taken),
    policies: &Policies,
    (body, sink): (&mut B, &mut S),
) -> Result<(), Refusal> {
    let mut all = Vec::with_capacity(policies.concurrency.len());
    for id in &policies.concurrency {
        match hold(worker, snapshot, exchange, *id).await {
            Ok(held) => all.extend(held),
            Err(refusal) => {
                // It takes nothing of what comes back by itself.
                drop(all);
                rate_limits::give_all_back(worker, snapshot, exchange, policies, taken);
                return Err(refusal);
            }
        }
    }
    let to = (matched, permit, taken);
    let result = pipeline::settled(worker, snapshot, exchange, to, policies, (body, sink)).await;
    drop(all);
    result
}

/// A permit of one limit; none where it does not apply.
async fn hold<'w>(
    worker: &'w Worker,
    snapshot: &'w Generation,
    exchange: &Exchange,
    id: ConcurrencyId,
) -> Result<Option<Held<'w>>, Refusal> {
    let (rule, state) = (snapshot.concurrency_limit(id), &snapshot.concurrency.states[id as usize]);
    let shard = figures(snapshot, id);
    let Some(key) = rate_limits::key_of(worker, snapshot, exchange, &rule.what, state.number)
    else {
        shard.exempt.count();
        return Ok(None);
    };
    let held = match ask(worker, rule, state, key, exchange.until_ms).await {
        Asked::May(held) => Some(held),
        Asked::MayNot => None,
        Asked::Nobody => {
            shard.alone.count();
            alone(worker, rule, state, key)
        }
    };
    match held {
        Some(held) => {
            shard.passed.count();
            Ok(Some(held))
        }
        None if rule.what.shadow => {
            shard.shadow.count();
            Ok(None)
        }
        None => {
            shard.refused.count();
            let reason = if rule.counts_everybody() { refusal::BUSY } else { refusal::CONCURRENCY };
            Err(Refusal { retry_after_s: 1, ..reason.into() })
        }
    }
}

/// Where a limit is counted: behind those of rates and quotas.
fn figures(snapshot: &Generation, id: ConcurrencyId) -> &LimitShard {
    &snapshot.series.limits[Snapshot::rates(snapshot) + id as usize]
}

/// Forgets permits of workers that have ended, and leaves again what could not be left. Called on
/// every tick.
pub fn sweep(worker: &Worker) {
    let unsent = worker.permit_waits.unsent.take();
    unsent.into_iter().for_each(|(to, letter)| leave(worker, to, letter));
    let snapshot = worker.snapshot();
    let homes = &worker.homes;
    for (rule, state) in snapshot.concurrency_limits().zip(&snapshot.concurrency.states) {
        let is_gone = |holder: Holder| {
            let of = holder.worker as usize;
            homes.life(of) != holder.life || of != worker.index && !homes.is_open(of)
        };
        let keys = state.permits.borrow_mut().forget(is_gone);
        keys.into_iter().for_each(|key| serve(worker, state, key, rule.limit));
    }
}

/// After a reload: more may be allowed than before.
pub fn adopted(worker: &Worker) {
    let snapshot = worker.snapshot();
    for (rule, state) in snapshot.concurrency_limits().zip(&snapshot.concurrency.states) {
        let keys: Vec<u64> = state.permits.borrow().keys().collect();
        keys.into_iter().for_each(|key| serve(worker, state, key, rule.limit));
    }
}

/// Notes how many are in progress and wait. Called every second or so.
pub fn measure(snapshot: &Generation) {
    for (id, state) in snapshot.concurrency.states.iter().enumerate() {
        let shard = figures(snapshot, id as ConcurrencyId);
        let permits = state.permits.borrow();
        let (held, queued) = permits.count();
        shard.keys.set(permits.keys().count() as u64);
        shard.is_of_progress.set(1);
        shard.held.set(held);
        shard.queued.set(queued);
    }
}
