//! Turns, in which what clients ask is begun that have not taken responses for it.
//!
//! What arrives together is served first come, first served, and that is right while it is work
//! that somebody wants. A hundred clients that ask for much at once and want none of it hold up
//! whoever comes behind them for as long as all of it takes. So a client works on credit, which it
//! has for responses that it has taken ([`Credit`]); without, it does in each round of the worker
//! what is left of one small budget for all of them, and who finds nothing left waits. Of those
//! that have done little yet, as every new client, the last one comes first, and those that have
//! done more come after them; but one turn in [`SHARE`] is the oldest's. So who comes behind a
//! hundred others does not wait for them, and they wait a little longer. A round is what happens
//! until the kernel has been asked for completions: whoever comes waits for one budget in each of
//! its steps.
//!
//! Work is counted in units of a frame of headers, roughly 3 µs. Bounds: a round has
//! [`ROUND_UNITS`], or as many as take half of its time ([`ROUND_UNITS_MAX`] at most), so that a
//! busy worker goes on with new clients as fast as with all others together; each connection waits
//! once, and each of its streams once.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::Instant,
};

use monoio::net::UnixStream;
use rustix::event::{EventfdFlags, eventfd};

use crate::worker::splice::others_turn;

/// What clients without credit may do in a round, all together.
const ROUND_UNITS: i32 = 16;
/// The same on a worker with long rounds.
const ROUND_UNITS_MAX: i32 = 1024;
/// A unit's time.
const UNIT_NS: u128 = 3000;
/// What the beginning of a connection costs.
const BEGIN_UNITS: u32 = 16;
/// With that it has this much for its first frames and its first request.
const FIRST_UNITS: u32 = 4 + REQUEST_UNITS;
/// What a request costs beside its frame: a task, an exchange, often a connection to an upstream.
pub const REQUEST_UNITS: u32 = 8;
/// The same of one that was given up before it had its turn.
pub const GIVEN_UP_UNITS: u32 = 2;
/// Of so many turns one is for who has waited longest, those that have done more before others.
const SHARE: u32 = 4;
/// What a client gains by taking a response: the next request, and frames around it.
const RESPONSE_UNITS: u32 = 16;
/// And by taking a piece of one: the next message of a call, and what gives way for more.
const DATA_UNITS: u32 = 2;
/// The most that it can have: about a hundred requests that come together.
const CREDIT_UNITS_MAX: u32 = 1024;

/// One worker's queues.
pub struct Turns {
    is_epoll: bool,
    /// Units of this round.
    left: Cell<i32>,
    new: Queue,
    others: Queue,
    /// Turns given so far.
    given: Cell<u32>,
    /// A task begins new rounds.
    is_pacing: Cell<bool>,
    /// Readable at any time: waiting for that ends a round. Opened with the worker, so that no
    /// client's doing opens a descriptor that stays, ...
    always: Cell<Option<OwnedFd>>,
    /// ... and put here, known to the worker's runtime, when the first round is to end.
    ready: OnceCell<Option<UnixStream>>,
}

type Queue = RefCell<VecDeque<Weak<Seat>>>;
type Take = fn(&mut VecDeque<Weak<Seat>>) -> Option<Weak<Seat>>;

/// What one connection may do without waiting.
pub struct Credit {
    turns: Rc<Turns>,
    units: Cell<u32>,
    /// Units done without, since it last took a response.
    done: Cell<u32>,
}

/// Where one task of a connection waits.
#[derive(Default)]
pub struct Seat {
    /// It is in a queue.
    is_waiting: Cell<bool>,
    /// It is its turn.
    is_next: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Turns {
    pub fn new(is_epoll: bool) -> Turns {
        let open = || eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        Turns {
            is_epoll,
            always: Cell::new(if is_epoll { None } else { open() }),
            left: Cell::new(ROUND_UNITS),
            new: RefCell::default(),
            others: RefCell::default(),
            given: Cell::new(0),
            is_pacing: Cell::new(false),
            ready: OnceCell::new(),
        }
    }

    fn spend(self: &Rc<Self>, units: u32) {
        self.left.set(self.left.get().saturating_sub_unsigned(units));
        match self.left.get() > 0 {
            true => self.wake_next(),
            false => self.pace(),
        }
    }

    fn is_empty(&self) -> bool {
        self.new.borrow().is_empty() && self.others.borrow().is_empty()
    }

    fn wake_next(&self) {
        let given = self.given.get().wrapping_add(1);
        let oldest = VecDeque::pop_front;
        let next = match given.is_multiple_of(SHARE) {
            true => pop(&self.others, oldest).or_else(|| pop(&self.new, oldest)),
            false => pop(&self.new, VecDeque::pop_back).or_else(|| pop(&self.others, oldest)),
        };
        let Some(next) = next else { return };
        self.given.set(given);
        next.is_waiting.set(false);
        next.is_next.set(true);
        if let Some(waker) = next.waker.take() {
            waker.wake();
        }
    }

    /// Begins new rounds until nobody waits.
    fn pace(self: &Rc<Self>) {
        if self.is_pacing.replace(true) {
            return;
        }
        let turns = self.clone();
        monoio::spawn(async move {
            let mut began = Instant::now();
            loop {
                turns.round().await;
                let now = Instant::now();
                turns.left.set(budget((now - began).as_nanos(), turns.left.get()));
                began = now;
                if turns.is_empty() {
                    break;
                }
                if turns.left.get() > 0 {
                    turns.wake_next();
                }
            }
            turns.is_pacing.set(false);
        });
    }

    /// Waits until the kernel has been asked for completions. It is only while no task is ready
    /// (with deferred task work it completes nothing before), so this waits for one.
    async fn round(&self) {
        if self.is_epoll {
            // Its driver looks whenever tasks have gone round twice.
            return others().await;
        }
        let ready = self.ready.get_or_init(|| {
            // As in `worker::bell`: no socket, but all that is asked of it is readiness.
            UnixStream::from_std(StdUnixStream::from(self.always.take()?)).ok()
        });
        let is_done = match ready {
            Some(ready) => ready.readable(false).await.is_ok(),
            None => false,
        };
        if !is_done {
            others().await;
        }
    }
}

/// Units of the next round after one of `elapsed_ns`, which has overdrawn its own by what `left` is
/// below 0.
fn budget(elapsed_ns: u128, left: i32) -> i32 {
    let half = i32::try_from(elapsed_ns / 2 / UNIT_NS).unwrap_or(i32::MAX);
    left.min(0) + half.clamp(ROUND_UNITS, ROUND_UNITS_MAX)
}

/// Lets all tasks that are ready have two turns.
async fn others() {
    others_turn().await;
    others_turn().await;
}

/// The next one that still waits, of those that `take` takes.
fn pop(queue: &Queue, take: Take) -> Option<Rc<Seat>> {
    let mut queue = queue.borrow_mut();
    loop {
        if let Some(seat) = take(&mut queue)?.upgrade() {
            return Some(seat);
        }
    }
}

impl Credit {
    fn new(turns: &Rc<Turns>) -> Rc<Credit> {
        Rc::new(Credit { turns: turns.clone(), units: Cell::new(0), done: Cell::new(0) })
    }

    /// Of a connection that begins, when it is its turn to.
    pub async fn begin(turns: &Rc<Turns>) -> Rc<Credit> {
        let credit = Credit::new(turns);
        credit.turn().await;
        turns.spend(BEGIN_UNITS + FIRST_UNITS);
        credit.units.set(FIRST_UNITS);
        credit
    }

    /// Waits for a turn.
    async fn turn(&self) {
        let seat = Rc::new(Seat::default());
        poll_fn(|cx| self.poll_turn(&seat, cx)).await;
    }

    /// It need not wait.
    #[inline]
    pub fn is_some(&self) -> bool {
        self.units.get() > 0
    }

    /// Ready when the task whose seat this is may go on; else it is woken when it may.
    #[inline]
    pub fn poll_turn(&self, seat: &Rc<Seat>, cx: &Context<'_>) -> Poll<()> {
        match self.is_some() {
            true => Poll::Ready(()),
            false => self.poll_without(seat, cx),
        }
    }

    fn poll_without(&self, seat: &Rc<Seat>, cx: &Context<'_>) -> Poll<()> {
        let turns = &self.turns;
        let is_new = self.done.get() == 0;
        let queue = if is_new { &turns.new } else { &turns.others };
        let is_free = || turns.left.get() > 0 && queue.borrow().is_empty();
        if seat.is_next.replace(false) || !seat.is_waiting.get() && is_free() {
            return Poll::Ready(());
        }
        if !seat.is_waiting.replace(true) {
            queue.borrow_mut().push_back(Rc::downgrade(seat));
        }
        seat.waker.replace(Some(cx.waker().clone()));
        turns.pace();
        Poll::Pending
    }

    /// It has done so much.
    #[inline]
    pub fn spend(&self, units: u32) {
        match self.units.get().checked_sub(units) {
            Some(left) => self.units.set(left),
            None => self.overdraw(units - self.units.take()),
        }
    }

    fn overdraw(&self, units: u32) {
        self.done.set(self.done.get().saturating_add(units));
        self.turns.spend(units);
    }

    /// Its client has taken a response.
    pub fn earn(&self) {
        self.gain(RESPONSE_UNITS);
        self.done.set(0);
    }

    /// Its client has taken a piece of one, which may be without end.
    pub fn earn_for_data(&self) {
        self.gain(DATA_UNITS);
    }

    fn gain(&self, units: u32) {
        self.units.set((self.units.get() + units).min(CREDIT_UNITS_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .enable_timer()
            .build()
            .expect("a runtime")
            .block_on(work)
    }

    /// Clients in the order in which they got their turns; each has `done` so much, and in its turn
    /// does as much as a round has.
    fn order(done: &[u32]) -> Vec<usize> {
        let turns = Rc::new(Turns::new(true));
        let order = Rc::new(RefCell::new(Vec::new()));
        run(async {
            turns.left.set(0);
            turns.is_pacing.set(true);
            let tasks: Vec<_> = done
                .iter()
                .enumerate()
                .map(|(index, &done)| {
                    let (credit, order) = (Credit::new(&turns), order.clone());
                    credit.done.set(done);
                    monoio::spawn(async move {
                        credit.turn().await;
                        credit.spend(ROUND_UNITS as u32);
                        order.borrow_mut().push(index);
                    })
                })
                .collect();
            // A task of its own, behind those.
            let turns = turns.clone();
            monoio::spawn(async move {
                turns.is_pacing.set(false);
                turns.pace();
            });
            for task in tasks {
                task.await;
            }
        });
        order.take()
    }

    #[test]
    fn new_clients_go_first_the_last_one_before_but_for_one_turn_in_some() {
        // Those that have done more came first.
        assert_eq!(order(&[9, 9, 9, 0, 0, 0, 0, 0]), [7, 6, 5, 0, 4, 3, 1, 2]);
        assert_eq!(order(&[0; 8]), [7, 6, 5, 0, 4, 3, 2, 1]);
        assert_eq!(order(&[9; 5]), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_round_is_for_as_many_as_it_has_work_for() {
        let turns = Rc::new(Turns::new(true));
        run(async {
            let (a, b) = (Credit::new(&turns), Credit::new(&turns));
            a.turn().await;
            a.spend(1);
            assert!(turns.left.get() < ROUND_UNITS && !turns.is_pacing.get());
            b.turn().await;
            b.spend(ROUND_UNITS as u32);
            assert!(turns.left.get() <= 0 && turns.is_pacing.get());
            a.turn().await;
            assert!(turns.left.get() >= ROUND_UNITS - 1, "the last one did one more: a new round");
        });
    }

    #[test]
    fn who_has_taken_responses_does_not_wait() {
        let turns = Rc::new(Turns::new(true));
        run(async {
            let credit = Credit::new(&turns);
            credit.spend(ROUND_UNITS as u32);
            (0..100).for_each(|_| credit.earn());
            let seat = Rc::new(Seat::default());
            for _ in 0..CREDIT_UNITS_MAX {
                let now = poll_fn(|cx| Poll::Ready(credit.poll_turn(&seat, cx))).await;
                assert!(now.is_ready());
                credit.spend(1);
            }
            let now = poll_fn(|cx| Poll::Ready(credit.poll_turn(&seat, cx))).await;
            assert!(now.is_pending(), "that was all, and the round is over");
        });
    }

    #[test]
    fn who_no_longer_waits_is_passed_over() {
        let turns = Rc::new(Turns::new(true));
        run(async {
            let (gone, credit) = (Credit::new(&turns), Credit::new(&turns));
            gone.spend(ROUND_UNITS as u32);
            let seat = Rc::new(Seat::default());
            let now = poll_fn(|cx| Poll::Ready(gone.poll_turn(&seat, cx))).await;
            assert!(now.is_pending());
            drop((seat, gone));
            credit.turn().await;
        });
    }

    #[test]
    fn a_busy_worker_does_as_much_for_clients_without_credit_as_for_all_others() {
        for (elapsed_us, left, units) in [
            (0, 0, ROUND_UNITS),
            (0, 5, ROUND_UNITS),
            (0, -5, ROUND_UNITS - 5),
            (600, 0, 100),
            (600, -150, -50),
            (u128::MAX / 1000, 0, ROUND_UNITS_MAX),
        ] {
            assert_eq!(budget(elapsed_us * 1000, left), units, "{elapsed_us} us");
        }
    }
}
