//! A worker's sign of life: how often it has ticked and what it is doing, for control to look at.
//!
//! Written by its worker alone, with plain relaxed stores to a cache line of its own; control reads
//! it a few times a second, so nothing is contended. What a worker does is kept per connection and
//! stored whenever a connection's task is polled: a worker that stops in the middle of one names
//! it.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::policy::route::RouteId;

/// One worker's. Alone on its cache line (two, because processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Beat {
    ticks: AtomicU64,
    doing: AtomicU64,
    /// The worker's thread, as the kernel numbers it; 0 while none runs.
    thread: AtomicU32,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Nothing: it waits for events, or is in its runtime.
    Waiting,
    /// Deadlines, pools and buffers on its tick.
    Sweeping,
    /// Going on with a new configuration.
    Adopting,
    /// A connection, outside the phases of a request.
    Connection,
    /// A request on this route.
    Exchange { generation: u64, route: RouteId },
}

/// The lowest byte of what is stored; a generation and a route are above it.
const WAITING: u64 = 0;
const SWEEPING: u64 = 1;
const ADOPTING: u64 = 2;
const CONNECTION: u64 = 3;
const EXCHANGE: u64 = 4;
/// The generation's lowest bits are kept: enough to tell apart those that are in use together.
const GENERATION_BITS: u32 = 24;

impl Doing {
    #[inline]
    fn code(self) -> u64 {
        match self {
            Doing::Waiting => WAITING,
            Doing::Sweeping => SWEEPING,
            Doing::Adopting => ADOPTING,
            Doing::Connection => CONNECTION,
            Doing::Exchange { generation, route } => {
                let generation = generation & ((1 << GENERATION_BITS) - 1);
                EXCHANGE | generation << 8 | u64::from(route) << (8 + GENERATION_BITS)
            }
        }
    }

    fn from_code(code: u64) -> Doing {
        match code & 0xff {
            SWEEPING => Doing::Sweeping,
            ADOPTING => Doing::Adopting,
            CONNECTION => Doing::Connection,
            EXCHANGE => Doing::Exchange {
                generation: (code >> 8) & ((1 << GENERATION_BITS) - 1),
                route: (code >> (8 + GENERATION_BITS)) as RouteId,
            },
            _ => Doing::Waiting,
        }
    }

    /// Whether `generation` is the one meant, as far as its kept bits tell.
    pub fn is_of(generation_kept: u64, generation: u64) -> bool {
        generation & ((1 << GENERATION_BITS) - 1) == generation_kept
    }
}

/// What one connection was doing when its task was last polled.
#[derive(Debug)]
pub struct Task(u64);

impl Default for Task {
    fn default() -> Task {
        Task(CONNECTION)
    }
}

impl Beat {
    /// The worker's thread begins. Called on that thread.
    pub fn begin(&self) {
        self.doing.store(WAITING, Relaxed);
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get() as u32, Release);
    }

    /// The worker's thread is over, however it ended.
    pub fn end(&self) {
        self.thread.store(0, Release);
    }

    /// One more tick.
    #[inline]
    pub fn tick(&self) {
        self.ticks.store(self.ticks.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// What the worker does from now on.
    #[inline]
    pub fn set(&self, doing: Doing) {
        self.doing.store(doing.code(), Relaxed);
    }

    /// Polls a connection's task: meanwhile the worker does what that connection did when it was
    /// polled last, or says it does.
    #[inline]
    pub fn during<R>(&self, task: &mut Task, poll: impl FnOnce() -> R) -> R {
        self.doing.store(task.0, Relaxed);
        let polled = poll();
        task.0 = self.doing.load(Relaxed);
        self.doing.store(WAITING, Relaxed);
        polled
    }

    /// For control: how often it has ticked.
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Relaxed)
    }

    /// For control: what it does.
    pub fn doing(&self) -> Doing {
        Doing::from_code(self.doing.load(Relaxed))
    }

    /// For control: its thread's number, while one runs.
    pub fn thread(&self) -> Option<u32> {
        Some(self.thread.load(Acquire)).filter(|thread| *thread != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_what_is_read() {
        let beat = Beat::default();
        for doing in [
            Doing::Waiting,
            Doing::Sweeping,
            Doing::Adopting,
            Doing::Connection,
            Doing::Exchange { generation: 1, route: 0 },
            Doing::Exchange { generation: (1 << 24) - 1, route: RouteId::MAX },
        ] {
            beat.set(doing);
            assert_eq!(beat.doing(), doing);
        }
        beat.set(Doing::Exchange { generation: (7 << 24) + 5, route: 9 });
        assert_eq!(beat.doing(), Doing::Exchange { generation: 5, route: 9 });
        assert!(Doing::is_of(5, (7 << 24) + 5) && !Doing::is_of(5, 6));
    }

    #[test]
    fn each_connection_keeps_what_it_does_between_polls() {
        let beat = Beat::default();
        let (mut a, mut b) = (Task::default(), Task::default());
        let exchange = Doing::Exchange { generation: 1, route: 3 };
        beat.during(&mut a, || {
            assert_eq!(beat.doing(), Doing::Connection);
            beat.set(exchange);
        });
        assert_eq!(beat.doing(), Doing::Waiting);
        beat.during(&mut b, || assert_eq!(beat.doing(), Doing::Connection));
        beat.during(&mut a, || assert_eq!(beat.doing(), exchange));
    }
}
