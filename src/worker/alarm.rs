//! Waits that no socket's deadline can end, such as those of one HTTP/2 stream among many on a
//! connection: a slab of points in time, looked at on the worker's tick.
//!
//! Arming costs a store and, once for each task, a reference to its waker. An alarm may be late by
//! one tick. Invariant: a slot belongs to one [`Alarm`], which frees it.

use std::{cell::RefCell, future::Future, pin::pin, rc::Rc, task::Poll, task::Waker};

use slab::Slab;

use super::clock::{NEVER_MS, now_ms};

/// The alarms of one worker.
#[derive(Default)]
pub struct Alarms {
    slots: RefCell<Slab<Slot>>,
}

struct Slot {
    at_ms: u64,
    waker: Option<Waker>,
}

/// The wait took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue;

/// One task's alarm.
pub struct Alarm {
    table: Rc<Alarms>,
    slot: usize,
}

impl Alarms {
    pub fn alarm(self: &Rc<Self>) -> Alarm {
        let slot = self.slots.borrow_mut().insert(Slot { at_ms: NEVER_MS, waker: None });
        Alarm { table: self.clone(), slot }
    }

    /// Wakes whoever waits for a point in time that is over.
    pub fn sweep(&self, now_ms: u64) {
        let mut woken = Vec::new();
        for (_, slot) in self.slots.borrow_mut().iter_mut() {
            if slot.at_ms <= now_ms {
                slot.at_ms = NEVER_MS;
                woken.extend(slot.waker.take());
            }
        }
        // Outside the borrow: a waker may run anything.
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Alarm {
    /// Awaits `future`, but no longer than until `by_ms`.
    pub async fn by<T>(&self, by_ms: u64, future: impl Future<Output = T>) -> Result<T, Overdue> {
        let mut future = pin!(future);
        let result = std::future::poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            if now_ms() >= by_ms {
                return Poll::Ready(Err(Overdue));
            }
            self.arm(by_ms, cx.waker());
            Poll::Pending
        });
        let result = result.await;
        self.disarm();
        result
    }

    /// Wakes `waker` at `at_ms`, unless [`Alarm::disarm`] comes first.
    pub fn arm(&self, at_ms: u64, waker: &Waker) {
        let slot = &mut self.table.slots.borrow_mut()[self.slot];
        slot.at_ms = at_ms;
        if !slot.waker.as_ref().is_some_and(|own| own.will_wake(waker)) {
            slot.waker = Some(waker.clone());
        }
    }

    pub fn disarm(&self) {
        self.table.slots.borrow_mut()[self.slot].at_ms = NEVER_MS;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // Dropped outside the borrow: a waker may hold the last reference to its task.
        let _slot = self.table.slots.borrow_mut().try_remove(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use std::{future, task::Context};

    use super::*;
    use crate::worker::clock::refresh;

    #[test]
    fn a_wait_ends_by_its_future_or_by_its_alarm() {
        refresh();
        let alarms = Rc::new(Alarms::default());
        let alarm = alarms.alarm();
        let mut cx = Context::from_waker(Waker::noop());
        let poll = |by_ms, cx: &mut Context<'_>| {
            let mut wait = pin!(alarm.by(by_ms, future::pending::<()>()));
            wait.as_mut().poll(cx)
        };
        assert_eq!(poll(now_ms() + 60_000, &mut cx), Poll::Pending);
        assert_eq!(poll(now_ms(), &mut cx), Poll::Ready(Err(Overdue)));
        let mut done = pin!(alarm.by(now_ms(), future::ready(7)));
        assert_eq!(done.as_mut().poll(&mut cx), Poll::Ready(Ok(7)));
    }

    #[test]
    fn a_sweep_wakes_what_is_overdue_once() {
        struct Count(std::sync::atomic::AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let count = std::sync::Arc::new(Count(0.into()));
        let woken = || count.0.load(std::sync::atomic::Ordering::Relaxed);
        let waker = Waker::from(count.clone());
        let alarms = Rc::new(Alarms::default());
        let (first, second) = (alarms.alarm(), alarms.alarm());
        first.arm(10, &waker);
        second.arm(20, &waker);
        alarms.sweep(9);
        assert_eq!(woken(), 0);
        alarms.sweep(10);
        alarms.sweep(11);
        assert_eq!(woken(), 1);
        second.disarm();
        alarms.sweep(30);
        assert_eq!(woken(), 1);
        drop((first, second));
        assert!(alarms.slots.borrow().is_empty());
    }
}
