//! The thread of one access log.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Shared, sink::Sink};
use crate::worker::logs::{Batch, Queue};

/// How often drops are looked for while nothing comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Drops are said at most this often.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// How long a log that is no longer configured waits for a destination that takes nothing.
const RETIRED_MAX: Duration = Duration::from_secs(10);

pub struct Writer {
    sink: Sink,
    state: State,
}

/// What the thread knows beside its sink.
struct State {
    name: String,
    /// By worker.
    queues: Vec<Arc<Queue>>,
    shared: Arc<Shared>,
    /// Why the destination last refused something.
    why: Option<String>,
    /// Drops that have been said, and when.
    said: u64,
    said_at: Option<Instant>,
    /// When it was first seen that nobody can hand lines over any more.
    retired_at: Option<Instant>,
}

impl Writer {
    pub fn new(name: String, sink: Sink, queues: Vec<Arc<Queue>>, shared: Arc<Shared>) -> Writer {
        let state =
            State { name, queues, shared, why: None, said: 0, said_at: None, retired_at: None };
        Writer { sink, state }
    }

    /// Writes until control says that it is over, or until nobody can hand lines over any more.
    pub fn run(mut self) {
        loop {
            // Asked before the queues are emptied, so that nothing comes after the last look.
            let is_over = self.state.is_over();
            if self.state.shared.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            let was_busy = self.write_waiting();
            self.state.say_dropped(is_over && !was_busy);
            if was_busy {
                continue;
            }
            if is_over {
                return;
            }
            thread::park_timeout(LOOK_EVERY);
        }
    }

    /// One batch of each worker; whether there was any.
    fn write_waiting(&mut self) -> bool {
        let mut was_busy = false;
        for at in 0..self.state.queues.len() {
            if let Some(batch) = self.state.queues[at].take() {
                was_busy = true;
                self.write(&batch);
                self.state.queues[at].give(batch);
            }
        }
        was_busy
    }

    /// Writes a batch or counts it as dropped.
    fn write(&mut self, batch: &Batch) {
        let Writer { sink, state } = self;
        let mut written = 0;
        if !state.shared.give_up.load(Ordering::Acquire) {
            state.shared.in_hand.store(batch.lines, Ordering::Release);
            let (taken, failed) = sink.write(batch.text(), batch.lines, &mut || state.may_wait());
            written = taken.min(batch.lines);
            if let Some(e) = failed {
                state.why = Some(e.to_string());
            }
        }
        state.shared.written.fetch_add(written, Ordering::Relaxed);
        state.shared.dropped.fetch_add(batch.lines - written, Ordering::Relaxed);
        state.shared.in_hand.store(0, Ordering::Release);
    }

    fn reopen(&mut self) {
        let name = &self.state.name;
        match self.sink.reopen() {
            Ok(false) => {}
            Ok(true) => tracing::info!(log = name, "access log opened anew"),
            Err(why) => tracing::error!(
                log = name,
                "cannot open the access log anew, it goes on in the old file: {why}"
            ),
        }
    }
}

impl State {
    fn is_over(&mut self) -> bool {
        self.shared.ending.load(Ordering::Acquire) || self.is_retired()
    }

    /// No worker and no configuration holds its queues any more.
    fn is_retired(&mut self) -> bool {
        self.queues.iter_mut().all(|queue| Arc::get_mut(queue).is_some())
    }

    /// The destination takes nothing: whether to wait on.
    fn may_wait(&mut self) -> bool {
        self.say_dropped(false);
        if self.retired_at.is_none() && self.is_retired() {
            self.retired_at = Some(Instant::now());
        }
        !self.shared.give_up.load(Ordering::Acquire)
            && self.retired_at.is_none_or(|at| at.elapsed() < RETIRED_MAX)
    }

    fn say_dropped(&mut self, at_once: bool) {
        let in_queues: u64 = self.queues.iter().map(|queue| queue.dropped()).sum();
        let dropped = in_queues + self.shared.dropped.load(Ordering::Relaxed);
        let is_time = at_once || self.said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY);
        if dropped == self.said || !is_time {
            return;
        }
        let why = self.why.take();
        let why = why.as_deref().unwrap_or("its destination takes less than there is to log");
        let lines = dropped - self.said;
        tracing::warn!(log = self.name, lines, "lines of the access log were dropped: {why}");
        (self.said, self.said_at) = (dropped, Some(Instant::now()));
    }
}
