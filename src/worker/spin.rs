//! Busy-polling: before a worker sleeps, it looks for a while whether something comes.
//!
//! A core that has gone to sleep takes time to wake, on a virtual machine tens of microseconds.
//! Looking costs no system call: the kernel says in the ring's page that there is something to
//! complete. To spin is a task of its own, which gives way until everything else has run and the
//! kernel has all operations; nothing waits while it looks. After a look in vain it rests until the
//! next completion.

use std::{
    cell::Cell,
    future::poll_fn,
    hint::spin_loop,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use super::ring::RingView;

/// Looks between two readings of the clock.
const LOOKS: u32 = 16;

thread_local! {
    /// Wakes this thread's task.
    static RESTING: Cell<Option<Waker>> = const { Cell::new(None) };
}

/// Something has completed: spin before the next sleep.
#[inline]
pub fn awake() {
    if let Some(waker) = RESTING.take() {
        waker.wake();
    }
}

/// From now on this thread, whose ring this is, spins for `time` before it sleeps; 0: it does not.
pub fn begin(ring: Option<Arc<RingView>>, time: Duration) {
    if time.is_zero() {
        return;
    }
    match ring {
        Some(ring) => drop(monoio::spawn(spin(ring, time))),
        None => tracing::warn!("no io_uring here: runtime.spin has no effect"),
    }
}

async fn spin(ring: Arc<RingView>, time: Duration) {
    let mut seen = None;
    poll_fn(move |cx| {
        let progress = ring.progress();
        if seen.replace(progress) != Some(progress) || !ring.is_submitted() {
            // Others have run since the last time: let them go on first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        look(&ring, time);
        seen = None;
        RESTING.set(Some(cx.waker().clone()));
        Poll::<()>::Pending
    })
    .await;
}

/// Returns as soon as the kernel has something for the worker, or when `time` is up.
fn look(ring: &RingView, time: Duration) {
    let (begun, completed) = (Instant::now(), ring.completed());
    while begun.elapsed() < time {
        for _ in 0..LOOKS {
            if ring.has_task_work() || ring.completed() != completed {
                return;
            }
            spin_loop();
        }
    }
}
