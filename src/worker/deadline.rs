//! Deadlines of one worker's sockets: a slab of plain numbers, swept on a tick.
//!
//! A timer per read would cost more than the read. Instead each socket has a slot; arming is one
//! store, and a sweep every [`TICK_MS`] compares the numbers. What is overdue is ended through its
//! socket: `shutdown` makes the read or write in flight return with its buffer, and the task that
//! waits for it finds the reason in the slot. So a deadline may be late by one tick, and no
//! operation is ever dropped with bytes in it.
//!
//! Invariant: a slot is removed before its socket is closed, so a reused descriptor number can
//! never be shut down for somebody else's deadline.

#![expect(unsafe_code, reason = "borrowing descriptors of live sockets")]

use std::{
    cell::RefCell,
    os::fd::{BorrowedFd, RawFd},
    rc::Rc,
    task::Waker,
};

use ahash::AHashMap;

use monoio::io::{CancelHandle, Canceller};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::Shutdown,
};

use super::clock::NEVER_MS;

/// How often deadlines are looked at.
pub const TICK_MS: u64 = 100;
/// Most sockets whose client is checked for having gone away in one tick.
const WATCHED_PER_TICK_MAX: usize = 4096;

/// The slots of one worker.
#[derive(Default)]
pub struct Deadlines {
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    /// When the read (or wait) and the write in flight are overdue, by slot.
    at: Vec<At>,
    states: Vec<State>,
    free: Vec<u32>,
    /// Where the next tick goes on looking for clients that went away.
    watch_from: usize,
    /// By slot: whom to wake when its client went away, for watches with [`TASK`].
    wakers: AHashMap<u32, Waker>,
}

/// Stands for an upstream's slot in a watch that wakes a task instead of ending a connection.
const TASK: u32 = u32::MAX;

/// Two points of the coarse clock; [`NEVER_MS`] when nothing is in flight, [`EXPIRED_MS`] when it
/// was ended for being late.
#[derive(Clone, Copy)]
struct At {
    read_ms: u64,
    write_ms: u64,
}

const EXPIRED_MS: u64 = NEVER_MS - 1;
const NOTHING: At = At { read_ms: NEVER_MS, write_ms: NEVER_MS };

struct State {
    fd: RawFd,
    /// Set while a read may be given up without harm: on expiry it is cancelled, not shut down.
    parkable: Option<Box<Canceller>>,
    /// The end of its response is the end of the connection: cut off, it must not look complete.
    ends_by_close: bool,
    /// Its wait for the next request was ended, to close it and not to park it.
    is_closing: bool,
    /// Waits for its next request since then; [`NEVER_MS`] when it does not.
    idle_since_ms: u64,
    watch: Option<Watch>,
}

/// While a client waits for its upstream nobody reads from it, so nobody sees it go. The tick does.
#[derive(Clone, Copy)]
struct Watch {
    /// Slot of the upstream connection to end when the client is gone, or [`TASK`].
    upstream: u32,
    since_ms: u64,
    /// A FIN counts as gone, not only a reset.
    fin_is_gone: bool,
    gone: bool,
}

/// Names a socket's slot to whoever is to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

/// One socket's slot. Dropping it frees the slot.
pub struct Deadline {
    table: Rc<Deadlines>,
    slot: u32,
}

impl Deadlines {
    /// A slot for the socket `fd`, which must stay open until the answer is dropped.
    pub fn slot(self: &Rc<Self>, fd: RawFd) -> Deadline {
        let slots = &mut *self.slots.borrow_mut();
        let state = State {
            fd,
            parkable: None,
            ends_by_close: false,
            is_closing: false,
            idle_since_ms: NEVER_MS,
            watch: None,
        };
        let slot = match slots.free.pop() {
            Some(slot) => {
                slots.states[slot as usize] = state;
                slot
            }
            None => {
                slots.at.push(NOTHING);
                slots.states.push(state);
                (slots.states.len() - 1) as u32
            }
        };
        Deadline { table: self.clone(), slot }
    }

    /// Ends what is overdue at `now_ms` and what waits for a client that went away.
    pub fn sweep(&self, now_ms: u64) {
        // Outside the borrow: a waker may run anything.
        self.sweep_slots(now_ms).into_iter().for_each(Waker::wake);
    }

    /// As above. Answers whom to wake.
    fn sweep_slots(&self, now_ms: u64) -> Vec<Waker> {
        let slots = &mut *self.slots.borrow_mut();
        for slot in 0..slots.states.len() {
            if slots.at[slot].read_ms <= now_ms {
                slots.at[slot].read_ms = EXPIRED_MS;
                slots.states[slot].end_read();
            }
            if slots.at[slot].write_ms <= now_ms {
                slots.at[slot].write_ms = EXPIRED_MS;
                shut(slots.states[slot].fd, Shutdown::Both);
            }
        }
        slots.end_exchanges_of_gone_clients(now_ms)
    }

    /// Ends every socket, because nobody will serve them any more.
    pub fn shut_all(&self) {
        // Borrowed by whoever panicked: then they stay as they are.
        let Ok(mut slots) = self.slots.try_borrow_mut() else { return };
        let free: std::collections::HashSet<u32> = slots.free.iter().copied().collect();
        let slots = &mut *slots;
        for (slot, (state, at)) in slots.states.iter().zip(&mut slots.at).enumerate() {
            if free.contains(&(slot as u32)) {
                continue;
            }
            // The end of a stream here is not the peer's: it completes nothing.
            for at_ms in [&mut at.read_ms, &mut at.write_ms] {
                *at_ms = if *at_ms == NEVER_MS { NEVER_MS } else { EXPIRED_MS };
            }
            state.end();
        }
    }

    /// Ends the socket of `slot`, whose owner lives: what waits for it returns.
    pub fn end(&self, slot: Slot) {
        shut(self.slots.borrow().states[slot.0 as usize].fd, Shutdown::Both);
    }

    /// Sockets that are open.
    pub fn open(&self) -> usize {
        self.slots.try_borrow().map_or(usize::MAX, |slots| slots.states.len() - slots.free.len())
    }

    /// Wakes every connection that has waited for its next request since `since_ms` or longer, so
    /// that it closes.
    pub fn close_idle(&self, since_ms: u64) {
        let slots = &mut *self.slots.borrow_mut();
        for (state, at) in slots.states.iter_mut().zip(&mut slots.at) {
            state.close_idle(at, since_ms);
        }
    }
}

impl State {
    fn close_idle(&mut self, at: &mut At, since_ms: u64) {
        if self.idle_since_ms <= since_ms {
            at.read_ms = EXPIRED_MS;
            self.is_closing = true;
            self.end_read();
        }
    }

    /// Ends whatever is in flight on a socket that is not needed any more.
    fn end(&self) {
        match self.ends_by_close {
            true => reset(self.fd),
            false => shut(self.fd, Shutdown::Both),
        }
    }

    fn end_read(&mut self) {
        match self.parkable.take() {
            Some(canceller) => {
                canceller.cancel();
            }
            None => shut(self.fd, Shutdown::Read),
        }
    }
}

impl Slots {
    fn end_exchanges_of_gone_clients(&mut self, now_ms: u64) -> Vec<Waker> {
        let count = self.states.len();
        let mut watched = Vec::new();
        for step in 0..count {
            let slot = (self.watch_from + step) % count;
            if let Some(watch) = self.states[slot].watch
                && !watch.gone
                && watch.since_ms + TICK_MS <= now_ms
            {
                watched.push(slot);
                if watched.len() == WATCHED_PER_TICK_MAX {
                    self.watch_from = (slot + 1) % count;
                    break;
                }
            }
        }
        let mut woken = Vec::new();
        for slot in gone_clients(&self.states, &watched) {
            let Some(watch) = &mut self.states[slot].watch else { continue };
            watch.gone = true;
            match watch.upstream {
                TASK => woken.extend(self.wakers.remove(&(slot as u32))),
                upstream => shut(self.states[upstream as usize].fd, Shutdown::Both),
            }
        }
        woken
    }
}

/// Those of `watched` whose peer reset the connection, or closed it where that counts.
fn gone_clients(states: &[State], watched: &[usize]) -> Vec<usize> {
    if watched.is_empty() {
        return Vec::new();
    }
    let mut polled: Vec<PollFd<'_>> = watched
        .iter()
        .map(|slot| {
            let state = &states[*slot];
            let fin = state.watch.is_some_and(|w| w.fin_is_gone);
            let events = if fin { PollFlags::RDHUP } else { PollFlags::empty() };
            PollFd::from_borrowed_fd(borrow(state.fd), events)
        })
        .collect();
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut polled, Some(&now)).is_err() {
        return Vec::new();
    }
    let gone =
        |p: &PollFd<'_>| p.revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::RDHUP);
    watched.iter().zip(&polled).filter(|(_, p)| gone(p)).map(|(slot, _)| *slot).collect()
}

fn borrow<'fd>(fd: RawFd) -> BorrowedFd<'fd> {
    // SAFETY: a slot is removed before its socket is closed (invariant of the module), so the
    // descriptor of a slot is open.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn shut(fd: RawFd, how: Shutdown) {
    // The only failure is ENOTCONN: the peer was faster, and the operation returns by itself.
    let _ = rustix::net::shutdown(borrow(fd), how);
}

/// Ends a connection by a reset, although operations are in flight.
fn reset(fd: RawFd) {
    // Of a TCP socket: sends RST and drops what was not sent (tcp(7), connect(2) with AF_UNSPEC).
    // Nothing else has resets.
    if rustix::net::connect_unspec(borrow(fd)).is_err() {
        shut(fd, Shutdown::Both);
    }
}

impl Deadline {
    /// Whose slot this is one of.
    pub fn table(&self) -> &Rc<Deadlines> {
        &self.table
    }

    /// From now on the read or readiness wait in flight is overdue at `at_ms`.
    #[inline]
    pub fn read_by(&self, at_ms: u64) {
        self.table.slots.borrow_mut().at[self.slot as usize].read_ms = at_ms;
    }

    #[inline]
    pub fn write_by(&self, at_ms: u64) {
        self.table.slots.borrow_mut().at[self.slot as usize].write_ms = at_ms;
    }

    /// The read is over. Answers whether it was ended because it was overdue.
    #[inline]
    pub fn read_done(&self) -> bool {
        let at = &mut self.table.slots.borrow_mut().at[self.slot as usize];
        std::mem::replace(&mut at.read_ms, NEVER_MS) == EXPIRED_MS
    }

    /// The write is over. Answers whether it was ended because it was overdue.
    #[inline]
    pub fn write_done(&self) -> bool {
        let at = &mut self.table.slots.borrow_mut().at[self.slot as usize];
        std::mem::replace(&mut at.write_ms, NEVER_MS) == EXPIRED_MS
    }

    /// Ends the socket by a reset.
    pub fn reset(&self) {
        reset(self.state(|s| s.fd));
    }

    /// Until the read is done, expiry cancels it through the answer instead of shutting the
    /// socket down, so that the connection lives on without a buffer.
    pub fn parkable(&self) -> CancelHandle {
        let canceller = Box::new(Canceller::new());
        let handle = canceller.handle();
        self.state(|s| s.parkable = Some(canceller));
        handle
    }

    /// The read that could be parked is over.
    pub fn not_parkable(&self) {
        self.state(|s| s.parkable = None);
    }

    /// Whether the response being sent ends with the connection.
    pub fn set_ends_by_close(&self, ends_by_close: bool) {
        self.state(|s| s.ends_by_close = ends_by_close);
    }

    /// Wakes this connection, if it has waited for its next request since `since_ms` or longer, so
    /// that it closes.
    pub fn close_idle(&self, since_ms: u64) {
        let slots = &mut *self.table.slots.borrow_mut();
        let slot = self.slot as usize;
        slots.states[slot].close_idle(&mut slots.at[slot], since_ms);
    }

    /// Whether the wait for the next request was ended to close the connection.
    pub fn is_closing(&self) -> bool {
        self.state(|s| s.is_closing)
    }

    /// Marks that the connection waits for its next request from now on; [`NEVER_MS`]: no longer.
    pub fn set_idle(&self, since_ms: u64) {
        self.state(|s| s.idle_since_ms = since_ms);
    }

    /// From now on, if this client goes away the connection of `upstream` is ended.
    pub fn watch(&self, upstream: &Deadline, now_ms: u64, fin_is_gone: bool) {
        let upstream = upstream.slot;
        self.state(|s| {
            s.watch = Some(Watch { upstream, since_ms: now_ms, fin_is_gone, gone: false });
        });
    }

    /// From now on, if this client goes away `waker` is woken. Who waits began to at `since_ms`.
    pub fn watch_for(&self, waker: &Waker, since_ms: u64, fin_is_gone: bool) {
        let slots = &mut *self.table.slots.borrow_mut();
        let watch = Watch { upstream: TASK, since_ms, fin_is_gone, gone: false };
        slots.states[self.slot as usize].watch = Some(watch);
        let known = slots.wakers.get(&self.slot);
        if !known.is_some_and(|known| known.will_wake(waker)) {
            slots.wakers.insert(self.slot, waker.clone());
        }
    }

    /// Where this socket's slot is.
    pub fn slot(&self) -> Slot {
        Slot(self.slot)
    }

    /// Stops watching. Answers whether the client went away.
    pub fn watched_gone(&self) -> bool {
        self.state(|s| s.watch.take().is_some_and(|w| w.gone))
    }

    #[inline]
    fn state<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.table.slots.borrow_mut().states[self.slot as usize])
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut slots = self.table.slots.borrow_mut();
        let slots_here = &mut *slots;
        let slot = self.slot as usize;
        let at = std::mem::replace(&mut slots_here.at[slot], NOTHING);
        let state = &mut slots_here.states[slot];
        // A write that nobody waits for any more holds the socket until it is over, which may be
        // never: the peer need not read.
        if at.write_ms != NEVER_MS {
            state.end();
        }
        state.parkable = None;
        state.idle_since_ms = NEVER_MS;
        state.watch = None;
        slots_here.free.push(self.slot);
        let forgotten = match slots.wakers.is_empty() {
            true => None,
            false => slots.wakers.remove(&self.slot),
        };
        drop(slots);
        // Outside the borrow, as above.
        drop(forgotten);
    }
}
