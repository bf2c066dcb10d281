//! Rate limits of routes: who decides about a request, and what becomes of it.
//!
//! The decisions are `policy::limit`'s. Here is which worker takes them: the key's home by itself,
//! any other from what the home has leased to it. A request that has to wait for the home does so
//! no longer than [`WAIT_MS`] and a tick; when there is no answer (its worker ended or stands
//! still, or its queue is full) this worker decides alone, from a bucket of its own that fills at
//! its share of the rate and has no burst. What passes in this way is settled with the home when it
//! answers after all: taken from what it grants, or charged to the bucket. Where a fleet shares the
//! limit, the home asks a server in its turn ([`fleet`]).
//!
//! Invariants: with one worker no letter is sent and nobody waits. What a request took is given
//! back when another limit refuses it ([`Taken`]), and when it is gone before the answer. State is
//! carried over by the limit's name; a reload refills nothing. TLS handshakes are counted in the
//! same way ([`handshakes`]).

pub mod charge;
pub mod fleet;
pub mod handshakes;
mod key;
pub mod quota;
mod store;
mod taken;
mod told;
mod waits;

use std::{cell::RefCell, rc::Rc, sync::Arc};

use ahash::AHashMap;

pub(super) use key::key_of;
use store::{Clock, Store};
pub use taken::{Taken, all, give_all_back, late};
use told::{refused, tell};
pub use waits::{Ticket, Waits};
use waits::{Told, Waiting};

use super::{
    Worker,
    clock::now_ns,
    exchange::{Exchange, ResponseSink},
    generation::Generation,
    home::{self, Homes},
};
use crate::{
    config::{
        Snapshot,
        snapshot::{LimitId, Policies, RateLimit, SharedLimit},
    },
    policy::{
        Refusal,
        limit::{
            Ask, Buckets, Calendar, Counts, Grant, Left, Moment, Now, Period, Shard, Took, Window,
            moment,
        },
    },
    telemetry::metrics::{cell::Cell, shards::LimitShard},
};

/// A request waits so long for the home of its key, and up to a tick longer.
const WAIT_MS: u64 = 200;

/// Requests that wait or that have passed and are not settled, at most: beyond, nothing is settled.
const OWED_MAX: usize = 64 * 1024;

/// What the workers tell each other. `limit` is the number of its name.
#[derive(Clone, Copy, Debug)]
pub enum Letter {
    Ask {
        limit: u64,
        from: u32,
        ask: Ask,
    },
    Grant {
        limit: u64,
        grant: Grant,
    },
    /// Of a key that a fleet shares, for its home.
    Lease(fleet::Lease),
    /// Tokens that were leased and not used; of a quota, in this period.
    Return {
        limit: u64,
        key: u64,
        tokens: u32,
        period: Period,
    },
    /// What requests cost beyond what was taken.
    Charge {
        limit: u64,
        key: u64,
        tokens: u32,
        period: Period,
    },
}

impl Letter {
    pub fn returned(limit: u64, key: u64, tokens: u32) -> Letter {
        Letter::Return { limit, key, tokens, period: 0 }
    }
}

/// One worker's state of one limit. It outlives configurations.
struct LimitState {
    /// Of its name.
    number: u64,
    buckets: RefCell<Store>,
    shard: RefCell<Shard<Ticket>>,
    fleet: fleet::Shared,
    /// Of a quota.
    clock: Option<Clock>,
    /// So many of the keys that had to go are counted, of handshakes.
    forgotten: std::cell::Cell<u64>,
}

/// The limits of a generation.
#[derive(Default)]
pub struct Limits {
    /// By [`LimitId`].
    states: Vec<Rc<LimitState>>,
    /// One for each listener that bounds handshakes.
    handshakes: Vec<Rc<LimitState>>,
    /// All of them.
    by_number: AHashMap<u64, Rc<LimitState>>,
}

/// What a limit counts by.
struct Rule<'s> {
    number: u64,
    windows: &'s [Window],
    /// Of a quota: when its periods begin, and how much there is in each.
    quota: Option<(Calendar, u32)>,
    keys_max: usize,
    shared: Option<&'s Arc<SharedLimit>>,
}

impl Limits {
    /// Of a worker that is started. One that takes another's place does not know what its keys
    /// have used, and lets their buckets fill from empty.
    /// What was used of quotas is known.
    pub fn first(
        snapshot: &Snapshot,
        homes: &Homes,
        worker: usize,
        used: &[quota::Line],
    ) -> Limits {
        let empty_at = if homes.begin(worker) { moment(now_ns()).max(1) } else { 0 };
        let limits = Limits::of(snapshot, homes, |rule| Rc::new(LimitState::new(rule, empty_at)));
        limits.restore(used);
        limits
    }

    /// Of the next configuration: limits that it also has keep their state.
    pub fn next(&self, snapshot: &Snapshot, homes: &Homes) -> Limits {
        Limits::of(snapshot, homes, |rule| match self.find(rule.number) {
            Some(state) => {
                state.buckets.borrow_mut().change(rule);
                state.fleet.change(rule.shared);
                state.clone()
            }
            None => Rc::new(LimitState::new(rule, 0)),
        })
    }

    fn of(
        snapshot: &Snapshot,
        homes: &Homes,
        state: impl Fn(&Rule<'_>) -> Rc<LimitState>,
    ) -> Limits {
        let of = |rule: &RateLimit| {
            let (number, quota) = match rule.quota {
                None => (homes.random.hash_one(&rule.name), None),
                Some(calendar) => (rule.quota_number(homes.seeds), Some((calendar, rule.amount()))),
            };
            let keys_max = share(rule.keys_max, homes);
            let (windows, shared) = (rule.own_windows(), rule.shared.as_ref());
            state(&Rule { number, windows, quota, keys_max, shared })
        };
        let states: Vec<_> = snapshot.rate_limits.iter().map(of).collect();
        let handshakes: Vec<_> =
            handshakes::rules(snapshot, homes).map(|rule| state(&rule)).collect();
        let all = states.iter().chain(&handshakes);
        let by_number = all.map(|state| (state.number, state.clone())).collect();
        Limits { states, handshakes, by_number }
    }

    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    fn find(&self, number: u64) -> Option<&Rc<LimitState>> {
        self.by_number.get(&number)
    }
}

/// A worker's part of so many keys, with room for an uneven share.
fn share(keys_max: usize, homes: &Homes) -> usize {
    let share = keys_max.div_ceil(homes.workers());
    if homes.workers() == 1 { share } else { share + share / 16 + 64 }
}

impl LimitState {
    fn new(rule: &Rule<'_>, empty_at: Moment) -> LimitState {
        let store = match rule.quota {
            None => Store::Rate(Buckets::new(rule.windows, rule.keys_max, empty_at)),
            Some((_, amount)) => Store::Quota(Counts::new(amount, rule.keys_max)),
        };
        LimitState {
            number: rule.number,
            buckets: RefCell::new(store),
            shard: RefCell::default(),
            fleet: fleet::Shared::new(rule.shared),
            clock: rule.quota.map(|(calendar, _)| Clock::new(calendar)),
            forgotten: std::cell::Cell::new(0),
        }
    }

    #[inline]
    fn now(&self) -> Now {
        match &self.clock {
            None => Now { unix_ns: moment(now_ns()), ..Now::default() },
            Some(clock) => clock.now(&self.shard),
        }
    }

    fn period(&self) -> Period {
        self.clock.as_ref().map_or(0, |clock| clock.now(&self.shard).period)
    }

    /// Of what was taken a moment ago.
    fn period_before(&self) -> Period {
        self.clock.as_ref().map_or(0, |clock| clock.before(&self.shard))
    }
}

/// What became of a request at once.
enum Decided {
    Now(Result<Left, Moment>),
    /// The home of its key will say.
    Later(Ticket),
}

fn decide(worker: &Worker, state: &LimitState, alone: &Cell, (key, cost): (u64, u32)) -> Decided {
    let (homes, now) = (&worker.homes, state.now());
    let home = homes.of(key);
    if home == worker.index {
        return Decided::Now(state.buckets.borrow_mut().take(key, cost, now));
    }
    let took = state.shard.borrow_mut().take(key, cost, now.unix_ns);
    match took {
        Took::Yes(left, None) => Decided::Now(Ok(left)),
        Took::Yes(left, Some(ask)) => {
            if !send(worker, state, home, ask) {
                state.shard.borrow_mut().unanswered(key);
            }
            Decided::Now(Ok(left))
        }
        Took::No(until) => Decided::Now(Err(until)),
        Took::Ask(ask) if !send(worker, state, home, ask) => {
            state.shard.borrow_mut().unanswered(key);
            alone.count();
            let workers = homes.workers() as u32;
            let took = state.buckets.borrow_mut().take_alone(key, cost, workers, now);
            Decided::Now(took.map(Left::free))
        }
        Took::Ask(_) | Took::Wait => {
            let ticket = worker.limit_waits.begin();
            state.shard.borrow_mut().wait(key, cost, ticket);
            Decided::Later(ticket)
        }
    }
}

fn send(worker: &Worker, state: &LimitState, home: usize, ask: Ask) -> bool {
    let letter = Letter::Ask { limit: state.number, from: worker.index as u32, ask };
    worker.homes.leave(home, home::Letter::Limit(letter)).is_ok()
}

/// Puts tokens back that a request took a moment ago and does not need.
fn give_back(worker: &Worker, state: &LimitState, key: u64, tokens: u32) {
    give_back_of(worker, state, key, tokens, state.period_before());
}

/// Puts tokens back that were taken in `period`, of a quota.
fn give_back_of(worker: &Worker, state: &LimitState, key: u64, tokens: u32, period: Period) {
    let home = worker.homes.of(key);
    if home == worker.index {
        give(worker, state, key, tokens, period);
    } else if period != state.period() || !state.shard.borrow_mut().give(key, tokens) {
        let letter = Letter::Return { limit: state.number, key, tokens, period };
        // What does not get there is lost to the key, and never too much.
        let _ = worker.homes.leave(home, home::Letter::Limit(letter));
    }
}

/// Puts tokens back into a bucket of this worker, or of the fleet.
fn give(worker: &Worker, state: &LimitState, key: u64, tokens: u32, period: Period) {
    match fleet::Home::of(worker, state) {
        Some(home) => home.give(key, tokens),
        None => state.buckets.borrow_mut().give(key, tokens, period),
    }
}

/// Asks limits of a request, one after the other, and notes what it takes. The one that refuses
/// says why; what others took goes back, also those of an earlier phase.
#[inline]
pub async fn admit<S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &Exchange,
    policies: &Policies,
    (ids, taken): (impl Iterator<Item = LimitId>, &mut Taken),
    sink: &mut S,
) -> Result<(), Refusal> {
    for id in ids {
        let (rule, state) = of(snapshot, id);
        let shard = &snapshot.series.limits[id as usize];
        let Some(key) = key_of(worker, snapshot, exchange, rule, state.number) else {
            shard.exempt.count();
            taken.note(false);
            continue;
        };
        let shared = rule.shared.as_deref().map(|shared| (shared, &shard.fallback));
        let decided = match shared {
            None => decide(worker, state, &shard.alone, (key, rule.cost)),
            Some(shared) => fleet::decide(worker, shared, state, &shard.alone, (key, rule.cost)),
        };
        let result = match decided {
            Decided::Now(result) => result,
            Decided::Later(ticket) => {
                shard.waits.count();
                let (alone, cost) = (&shard.alone, rule.cost);
                let waiting = Waiting { worker, state, alone, shared, key, cost, ticket };
                // Boxed: rare, and must not enlarge every connection's task.
                Box::pin(waiting.result()).await
            }
        };
        match result {
            Ok(left) => {
                taken.note(!left.is_free);
                passed(worker, rule, shard, left, sink);
            }
            Err(_) if rule.shadow => {
                taken.note(false);
                shard.shadow.count();
            }
            Err(until) => {
                shard.refused.count();
                give_all_back(worker, snapshot, exchange, policies, *taken);
                return Err(refused(worker, rule, until, sink));
            }
        }
    }
    Ok(())
}

fn of(snapshot: &Generation, id: LimitId) -> (&RateLimit, &LimitState) {
    // Both have the same ids.
    let limits = &snapshot.rate_limits;
    (snapshot.rate_limit(id), &limits.states[id as usize])
}

#[inline]
fn passed<S: ResponseSink>(
    worker: &Worker,
    rule: &RateLimit,
    shard: &LimitShard,
    left: Left,
    sink: &mut S,
) {
    shard.passed.count();
    if rule.tells || rule.tells_old {
        tell(worker, rule, left, sink);
    }
}

/// A letter for this worker.
pub fn receive(worker: &Worker, letter: Letter) {
    let snapshot = worker.snapshot();
    let limits = &snapshot.rate_limits;
    match letter {
        Letter::Ask { limit, from, ask } => {
            // A limit that is not known here yet, or not any more: whoever asks decides alone.
            let Some(state) = limits.find(limit) else { return };
            if let Some(home) = fleet::Home::of(worker, state) {
                return home.lend(from, ask, moment(now_ns()));
            }
            let workers = worker.homes.workers() as u32;
            let grant = state.buckets.borrow_mut().ask(ask, workers, state.now());
            let letter = home::Letter::Limit(Letter::Grant { limit, grant });
            if worker.homes.leave(from as usize, letter).is_err() && grant.tokens > 0 {
                state.buckets.borrow_mut().give(ask.key, grant.tokens, grant.period);
            }
        }
        Letter::Grant { limit, grant } => {
            if let Some(state) = limits.find(limit) {
                granted(worker, state, grant);
            }
        }
        Letter::Lease(lease) => {
            let state = limits.find(lease.limit);
            if let Some(home) = state.and_then(|state| fleet::Home::of(worker, state)) {
                home.leased(&lease, moment(now_ns()));
            }
        }
        Letter::Return { limit, key, tokens, period } => {
            if let Some(state) = limits.find(limit) {
                give(worker, state, key, tokens, period);
            }
        }
        Letter::Charge { limit, key, tokens, period } => {
            if let Some(state) = limits.find(limit) {
                charge::charge(worker, state, key, tokens, period);
            }
        }
    }
}

fn granted(worker: &Worker, state: &LimitState, mut grant: Grant) {
    let home = worker.homes.of(grant.key);
    if let Some(clock) = &state.clock
        && !clock.agrees(grant.period, &state.shard)
    {
        // Of a period that is over: whoever waits asks again.
        (grant.tokens, grant.empty_until) = (0, 0);
    }
    let now = state.now().unix_ns;
    let (mut unwanted, mut owed) = (0, 0);
    let (is_known, ask) = {
        let mut shard = state.shard.borrow_mut();
        let ask = shard.granted(&grant, now, |ticket, tokens, result| {
            // Wakes tasks, and runs none.
            match worker.limit_waits.end(ticket, result) {
                Told::Unwanted if result.is_ok() => unwanted += tokens,
                Told::Owed => owed += tokens,
                Told::Used | Told::Unwanted => {}
            }
        });
        (shard.knows(grant.key), ask)
    };
    if !is_known {
        unwanted += grant.tokens;
    }
    if unwanted > 0 {
        give_back_of(worker, state, grant.key, unwanted, grant.period);
    }
    if owed > 0 {
        charge::charge(worker, state, grant.key, owed, grant.period);
    }
    if let Some(ask) = ask
        && !send(worker, state, home, ask)
    {
        // Those who wait decide alone when their time is up.
        state.shard.borrow_mut().unanswered(grant.key);
    }
}

/// Gives leases back that are not used. Called on every tick.
pub fn sweep(worker: &Worker) {
    let snapshot = worker.snapshot();
    if snapshot.rate_limits.is_empty() {
        return;
    }
    for state in snapshot.rate_limits.by_number.values() {
        let Now { unix_ns: now, period, .. } = state.now();
        fleet::sweep(worker, state, now);
        if worker.homes.workers() == 1 {
            continue;
        }
        let give_back = |key, tokens| {
            let letter = Letter::Return { limit: state.number, key, tokens, period };
            worker.homes.leave(worker.homes.of(key), home::Letter::Limit(letter)).is_ok()
        };
        let forget = |ticket| worker.limit_waits.forget(ticket);
        state.shard.borrow_mut().sweep(now, give_back, forget);
    }
}

/// Notes how many keys there are, and how much memory they take. Called every second or so.
pub fn measure(snapshot: &Generation) {
    handshakes::measure(snapshot);
    for (state, shard) in snapshot.rate_limits.states.iter().zip(&snapshot.series.limits) {
        let buckets = state.buckets.borrow();
        shard.keys.set(buckets.keys() as u64);
        shard.bytes.set(buckets.bytes() as u64);
        shard.leases.set((state.shard.borrow().len() + state.fleet.keys()) as u64);
        shard.forgotten.set(buckets.forgotten());
    }
}
