//! Wakes waiting connections when the next request of the open loop is due.
//!
//! monoio's timers tick in milliseconds; this waits on a timerfd, so a request leaves within some
//! microseconds of its time. Nothing is queued here but the tasks that wait.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::Shared;

/// Longest sleep, so that the end of a run is seen.
const SLEEP_NS_MAX: u64 = 100_000_000;

/// Who waits, by place in the queue: one entry each, however often it is polled.
type Waiting = BTreeMap<u64, Waker>;

/// Connections that wait for the next request.
pub struct Pacer {
    /// To set it, and to wait for it.
    timer: OwnedFd,
    expiry: monoio::fs::File,
    waiting: RefCell<Waiting>,
    places: Cell<u64>,
    /// The pacer itself, while nobody waits.
    parked: Cell<Option<Waker>>,
}

impl Pacer {
    /// Nobody waits yet.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let expiry = monoio::fs::File::from_std(File::from(timer.try_clone()?))?;
        Ok(Self {
            timer,
            expiry,
            waiting: RefCell::new(Waiting::new()),
            places: Cell::new(0),
            parked: Cell::new(None),
        })
    }

    /// Wakes `waker` when a request is due. `place` is kept from poll to poll: tasks that hold many
    /// slots are polled for each of them.
    pub fn wait(&self, place: &mut Option<u64>, waker: &Waker) {
        let place = *place.get_or_insert_with(|| {
            self.places.set(self.places.get() + 1);
            self.places.get()
        });
        self.waiting.borrow_mut().insert(place, waker.clone());
        if let Some(parked) = self.parked.take() {
            parked.wake();
        }
    }

    /// Waits no longer.
    pub fn leave(&self, place: Option<u64>) {
        if let Some(place) = place {
            self.waiting.borrow_mut().remove(&place);
        }
    }

    /// Wakes everybody: the run is over, or a request was given back.
    pub fn wake_all(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_values().for_each(Waker::wake);
    }

    fn wake_first(&self) -> bool {
        let first = self.waiting.borrow_mut().pop_first();
        first.map(|(_, waker)| waker.wake()).is_some()
    }

    async fn sleep(&self, ns: u64) -> io::Result<()> {
        let after = Duration::from_nanos(ns.clamp(1, SLEEP_NS_MAX));
        let it_value =
            Timespec { tv_sec: after.as_secs() as i64, tv_nsec: i64::from(after.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.expiry.read_at(Vec::with_capacity(8), 0).await.0.map(drop)
    }
}

/// Runs for ever.
pub async fn run(shared: Rc<Shared>) {
    let pacer = &shared.pacer;
    loop {
        poll_fn(|cx| {
            if !pacer.waiting.borrow().is_empty() {
                return Poll::Ready(());
            }
            pacer.parked.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        let due_ns = shared.load.borrow().next_due_ns();
        let now_ns = shared.now_ns();
        if due_ns > now_ns {
            if pacer.sleep(due_ns - now_ns).await.is_err() {
                // Timers of this kind do not fail; if one does, milliseconds have to do.
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
            continue;
        }
        let due = shared.load.borrow().backlog(now_ns);
        for _ in 0..due {
            if !pacer.wake_first() {
                break;
            }
        }
        // Those woken run before this task does again.
        yield_once().await;
    }
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_waits_waits_once() {
        crate::task::runtime().unwrap().block_on(async {
            let pacer = Pacer::new().unwrap();
            let (mut first, mut second) = (None, None);
            for _ in 0..100 {
                pacer.wait(&mut first, Waker::noop());
                pacer.wait(&mut second, Waker::noop());
            }
            assert_eq!(pacer.waiting.borrow().len(), 2);
            pacer.leave(first);
            assert!(pacer.wake_first());
            assert!(!pacer.wake_first());
        });
    }
}
