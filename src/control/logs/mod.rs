//! Access logs on control's side: one thread for each writes what the workers hand over, so that a
//! destination that is slow or stuck hurts its own log only.
//!
//! A log belongs to its name, destination and bound: a reload keeps the thread of one that stays.
//! Every line handed over is counted as written or as dropped.

mod datagram;
mod sink;
mod syslog;
mod writer;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, Once,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use crate::{
    config::snapshot::{AccessLog, Destination},
    worker::logs::{Outlet, Queue},
};
use sink::Sink;
use writer::Writer;

/// The access logs that are open. Any thread of control may hold a copy.
#[derive(Clone)]
pub struct Logs {
    workers: usize,
    open: Arc<Mutex<Vec<Open>>>,
}

/// What a log has done so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    pub name: String,
    /// Lines its destination has taken.
    pub written: u64,
    /// Lines that came to nothing.
    pub dropped: u64,
}

/// Logs that a configuration needs, open and not yet in force. Dropped, those that are new close.
pub struct Prepared(Vec<Open>);

/// What the thread of a log and control say to each other.
#[derive(Default)]
struct Shared {
    /// Open the file anew.
    reopen: AtomicBool,
    /// The workers have ended: write what is left and end.
    ending: AtomicBool,
    /// Nothing is waited for any more.
    give_up: AtomicBool,
    /// Only the thread writes these, until it is given up.
    written: AtomicU64,
    dropped: AtomicU64,
    /// Lines taken from a queue that are neither written nor dropped yet.
    in_hand: AtomicU64,
}

#[derive(Clone)]
struct Open {
    name: String,
    to: Destination,
    buffer_bytes: u64,
    /// By worker.
    queues: Vec<Arc<Queue>>,
    shared: Arc<Shared>,
    thread: Thread,
    /// Disconnected when the thread has ended.
    ended: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Logs {
    pub fn new(workers: usize) -> Logs {
        Logs { workers, open: Arc::default() }
    }

    /// Opens what these logs need. Nothing that is in force changes.
    pub fn prepare(&self, rules: &[AccessLog]) -> Result<Prepared, String> {
        let open = self.open();
        let prepared = rules.iter().map(|rule| match open.iter().find(|open| open.is(rule)) {
            Some(open) => Ok(open.clone()),
            None => Open::begin(rule, self.workers)
                .map_err(|why| format!("cannot open the access log {}: {why}", rule.name)),
        });
        prepared.collect::<Result<_, _>>().map(Prepared)
    }

    /// Puts logs in force; answers where each worker leaves its lines. A log that is not among them
    /// ends when its last line is written.
    pub fn adopt(&self, prepared: Prepared) -> Vec<Vec<Outlet>> {
        let outlets = (0..self.workers)
            .map(|worker| prepared.0.iter().map(|open| open.outlet(worker)).collect());
        let outlets = outlets.collect();
        *self.open() = prepared.0;
        outlets
    }

    /// Where a worker that is started again leaves its lines.
    pub fn of_worker(&self, worker: usize) -> Vec<Outlet> {
        self.open().iter().map(|open| open.outlet(worker)).collect()
    }

    /// Opens every log file anew, after somebody has renamed it.
    pub fn reopen(&self) {
        for open in self.open().iter() {
            open.shared.reopen.store(true, Ordering::Release);
            open.thread.unpark();
        }
    }

    /// What each log in force has done so far. Lines still waiting are in neither number.
    pub fn totals(&self) -> Vec<Total> {
        self.open().iter().map(Open::total).collect()
    }

    /// After the workers have ended: writes what waits, for at most `within`, and says how each log
    /// ended. What cannot be written in that time is counted as dropped.
    pub fn finish(&self, within: Duration) {
        let by = Instant::now() + within;
        let open = std::mem::take(&mut *self.open());
        for log in &open {
            log.shared.ending.store(true, Ordering::Release);
            log.thread.unpark();
        }
        for log in &open {
            log.end(by);
            let Total { name, written, dropped } = log.total();
            tracing::info!(log = name, written, dropped, "access log ended");
        }
    }

    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// How long a thread that was told to give up may take to notice it.
const GIVE_UP_MAX: Duration = Duration::from_secs(1);

impl Open {
    fn begin(rule: &AccessLog, workers: usize) -> Result<Open, String> {
        ignore_file_limit();
        let sink = Sink::open(&rule.to)?;
        let queues: Vec<_> =
            (0..workers).map(|_| Arc::new(Queue::new(rule.buffer_bytes))).collect();
        let shared = Arc::new(Shared::default());
        let (alive, ended) = mpsc::channel();
        let writer = Writer::new(rule.name.clone(), sink, queues.clone(), shared.clone());
        let run = move || {
            writer.run();
            drop::<mpsc::Sender<()>>(alive);
        };
        let thread = thread::Builder::new()
            .name(format!("log {}", rule.name.chars().take(11).collect::<String>()))
            .spawn(run)
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Open {
            name: rule.name.clone(),
            to: rule.to.clone(),
            buffer_bytes: rule.buffer_bytes,
            queues,
            shared,
            thread: thread.thread().clone(),
            ended: Arc::new(Mutex::new(ended)),
        })
    }

    fn outlet(&self, worker: usize) -> Outlet {
        Outlet { queue: self.queues[worker].clone(), writer: self.thread.clone() }
    }

    /// What is open is what `rule` needs.
    fn is(&self, rule: &AccessLog) -> bool {
        self.name == rule.name && self.to == rule.to && self.buffer_bytes == rule.buffer_bytes
    }

    fn total(&self) -> Total {
        let in_queues: u64 = self.queues.iter().map(|queue| queue.dropped()).sum();
        Total {
            name: self.name.clone(),
            written: self.shared.written.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed) + in_queues,
        }
    }

    /// Waits for the thread until `by`, then counts what is left as dropped.
    fn end(&self, by: Instant) {
        let ended = self.ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let until = |by: Instant| by.saturating_duration_since(Instant::now());
        if ended.recv_timeout(until(by)) == Err(mpsc::RecvTimeoutError::Disconnected) {
            return;
        }
        self.shared.give_up.store(true, Ordering::Release);
        self.thread.unpark();
        if ended.recv_timeout(GIVE_UP_MAX) == Err(mpsc::RecvTimeoutError::Disconnected) {
            return;
        }
        // It hangs in a system call, as on a dead disk.
        let mut lost = self.shared.in_hand.load(Ordering::Acquire);
        for queue in &self.queues {
            while let Some(batch) = queue.take() {
                lost += batch.lines;
            }
        }
        self.shared.dropped.fetch_add(lost, Ordering::Relaxed);
        tracing::error!(log = self.name, lines = lost, "the access log does not end, giving it up");
    }
}

/// A file that has reached the limit on file sizes is like a full disk: an error of the write, not
/// the end of the program.
fn ignore_file_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(e) = signal_hook::flag::register(libc::SIGXFSZ, Arc::default()) {
            tracing::warn!(error = %e, "cannot catch SIGXFSZ");
        }
    });
}
