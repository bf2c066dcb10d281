//! Looks at the workers' signs of life, on a thread of its own that depends on nothing else of
//! control: a worker that makes no progress is reported once, with what it was doing and what the
//! kernel says of its thread, and once when it goes on. While one is stuck, the service manager's
//! watchdog is not fed.

use std::{
    io,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::{ready::Readiness, systemd::Systemd, workers};
use crate::{
    config::Snapshot,
    worker::beat::{Beat, Doing},
};

/// Looks within the time after which a worker counts as stuck.
const LOOKS: u32 = 4;
/// No worker is called stuck sooner, whatever the watchdog's interval: several ticks.
const STUCK_AFTER_MIN: Duration = Duration::from_millis(500);

/// The configurations in use, for the names of routes. Weak: nothing is kept alive by it.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<Vec<Weak<Snapshot>>>>);

impl Names {
    /// This one is handed to the workers.
    pub fn add(&self, snapshot: &Arc<Snapshot>) {
        if let Ok(mut known) = self.0.lock() {
            known.retain(|snapshot| snapshot.strong_count() > 0);
            known.push(Arc::downgrade(snapshot));
        }
    }

    /// What a worker was doing, in words.
    fn describe(&self, doing: Doing) -> String {
        match doing {
            Doing::Waiting => "waiting for events".to_owned(),
            Doing::Sweeping => "sweeping deadlines and pools".to_owned(),
            Doing::Adopting => "adopting a new configuration".to_owned(),
            Doing::Connection => "serving a connection between requests".to_owned(),
            Doing::Exchange { generation, route } => match self.route(generation, route) {
                Some(name) => format!("serving a request on route {name:?}"),
                None => format!("serving a request on route number {route}"),
            },
        }
    }

    fn route(&self, generation: u64, route: u32) -> Option<String> {
        let known = self.0.lock().ok()?;
        let mut known = known.iter().filter_map(Weak::upgrade);
        let of = known.find(|snapshot| Doing::is_of(generation, snapshot.generation))?;
        Some(of.routes.get(route as usize)?.name.clone())
    }
}

/// How long each worker has stood still, as of the last look, for whoever asks.
#[derive(Clone, Debug)]
pub struct Signs(Arc<[Sign]>);

#[derive(Debug, Default)]
struct Sign {
    still_ms: AtomicU64,
    is_stuck: AtomicBool,
}

impl Signs {
    pub fn of(workers: usize) -> Signs {
        Signs((0..workers).map(|_| Sign::default()).collect())
    }

    /// Since when the worker has stood still, and whether that counts as stuck.
    pub fn of_worker(&self, worker: usize) -> (Duration, bool) {
        let sign = &self.0[worker];
        (Duration::from_millis(sign.still_ms.load(Relaxed)), sign.is_stuck.load(Relaxed))
    }

    fn note(&self, worker: usize, pulse: &Pulse, now: Instant) {
        let still_for = pulse.since.map_or(Duration::ZERO, |since| now.duration_since(since));
        self.0[worker].still_ms.store(still_for.as_millis() as u64, Relaxed);
        self.0[worker].is_stuck.store(pulse.is_stuck, Relaxed);
    }
}

/// What is watched, and who is told.
pub struct Watch {
    /// Core and sign of life, by worker.
    pub beats: Vec<(u32, Arc<Beat>)>,
    pub names: Names,
    pub signs: Signs,
    /// A worker whose beat stands still for this long is stuck.
    pub stuck_after: Duration,
    /// `WatchdogSec=`, if there is one.
    pub watchdog: Option<Duration>,
    pub readiness: Readiness,
    pub systemd: Systemd,
}

impl Watch {
    /// Watches until the process ends.
    pub fn begin(self) -> io::Result<()> {
        thread::Builder::new().name("watch".to_owned()).spawn(move || self.run())?;
        Ok(())
    }

    fn run(self) {
        let every = self.every();
        let mut pulses: Vec<Pulse> = self.beats.iter().map(|_| Pulse::default()).collect();
        let (mut fed, mut looked) = (None::<Instant>, Instant::now());
        loop {
            thread::sleep(every);
            let now = Instant::now();
            // This process was stopped itself: nothing can be said of the time before.
            if now.duration_since(looked) > 2 * every {
                pulses.iter_mut().for_each(|pulse| pulse.since = None);
            }
            looked = now;
            let looks = pulses.iter_mut().zip(&self.beats).map(|(pulse, (_, beat))| {
                pulse.look(beat.thread().map(|_| beat.ticks()), now, self.limit())
            });
            let changes: Vec<Change> = looks.collect();
            let stuck = pulses.iter().filter(|pulse| pulse.is_stuck).count();
            self.readiness.stuck(stuck as u32);
            let seen = pulses.iter().enumerate();
            seen.for_each(|(worker, pulse)| self.signs.note(worker, pulse, now));
            for (worker, change) in changes.into_iter().enumerate() {
                self.report(worker, change);
            }
            let due = |at: Instant, after: Duration| now.duration_since(at) >= after / LOOKS;
            if stuck == 0
                && let Some(interval) = self.watchdog
                && fed.is_none_or(|at| due(at, interval))
            {
                self.systemd.feed_watchdog();
                fed = Some(now);
            }
        }
    }

    /// After how long a worker is stuck: soon enough for the watchdog.
    fn limit(&self) -> Duration {
        let half = self.watchdog.map(|interval| interval / 2);
        half.map_or(self.stuck_after, |half| half.min(self.stuck_after).max(STUCK_AFTER_MIN))
    }

    fn every(&self) -> Duration {
        self.limit() / LOOKS
    }

    fn report(&self, worker: usize, change: Change) {
        let name = workers::name(worker);
        let (core, beat) = &self.beats[worker];
        match change {
            Change::None => {}
            Change::Stuck(still_for) => {
                let doing = self.names.describe(beat.doing());
                let kernel = beat.thread().map_or_else(String::new, kernel_state);
                tracing::error!(
                    worker = name,
                    core,
                    ?still_for,
                    doing,
                    kernel,
                    "a worker makes no progress"
                );
                self.systemd.status(&format!("{name} on core {core} is stuck {doing}"));
            }
            Change::GoesOn(after) => {
                tracing::info!(worker = name, core, ?after, "the worker goes on");
                self.systemd.status(&self.readiness.look().to_string());
            }
        }
    }
}

/// What is known of one worker's beat.
#[derive(Debug, Default)]
struct Pulse {
    ticks: u64,
    /// When it was first seen to have ticked so often.
    since: Option<Instant>,
    is_stuck: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    None,
    Stuck(Duration),
    GoesOn(Duration),
}

impl Pulse {
    /// `ticks`: as of now; `None` while no thread runs, which is no reason to call it stuck.
    fn look(&mut self, ticks: Option<u64>, now: Instant, limit: Duration) -> Change {
        let still_for = self.since.map_or(Duration::ZERO, |since| now.duration_since(since));
        if ticks != Some(self.ticks) || self.since.is_none() {
            self.ticks = ticks.unwrap_or(self.ticks);
            self.since = ticks.is_some().then_some(now);
            return match std::mem::take(&mut self.is_stuck) {
                true => Change::GoesOn(still_for),
                false => Change::None,
            };
        }
        if still_for < limit || self.is_stuck {
            return Change::None;
        }
        self.is_stuck = true;
        Change::Stuck(still_for)
    }
}

/// What the kernel says of a thread of this process: its state, where in the kernel it waits, and
/// in which system call.
fn kernel_state(thread: u32) -> String {
    let read = |what: &str| {
        let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/{what}"));
        text.unwrap_or_default()
    };
    let stat = read("stat");
    // The name may contain anything; the state is behind its closing bracket.
    let state = match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        Some('R') => "running or waiting for its core",
        Some('S') => "sleeping",
        Some('D') => "in an uninterruptible wait",
        Some('T' | 't') => "stopped",
        _ => "unknown",
    };
    let mut text = format!("thread {thread} {state}");
    let syscall = read("syscall");
    if let Some(number) = syscall.split_whitespace().next().filter(|word| *word != "running") {
        text.push_str(&format!(", system call {number}"));
    }
    let wchan = read("wchan");
    if !matches!(wchan.trim(), "" | "0") {
        text.push_str(&format!(" in {}", wchan.trim()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);

    #[test]
    fn a_beat_that_stands_still_is_reported_once_and_its_end_once() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut pulse = Pulse::default();
        let mut look = |ticks, ms| pulse.look(ticks, at(ms), LIMIT);
        assert_eq!(look(Some(0), 0), Change::None);
        assert_eq!(look(Some(3), 100), Change::None);
        assert_eq!(look(Some(3), 500), Change::None);
        assert_eq!(look(Some(3), 600), Change::Stuck(Duration::from_millis(500)));
        assert_eq!(look(Some(3), 5000), Change::None);
        assert_eq!(look(Some(4), 5100), Change::GoesOn(Duration::from_secs(5)));
        assert_eq!(look(Some(4), 5500), Change::None);
        // Its thread has ended, and begins again.
        assert_eq!(look(None, 9000), Change::None);
        assert_eq!(look(Some(4), 9100), Change::None);
        assert_eq!(look(Some(4), 9500), Change::None);
        assert_eq!(look(Some(4), 9600), Change::Stuck(Duration::from_millis(500)));
        assert_eq!(look(None, 9700), Change::GoesOn(Duration::from_millis(600)));
    }

    #[test]
    fn the_kernel_knows_this_thread() {
        let own = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        assert!(kernel_state(own).starts_with(&format!("thread {own} running")));
        assert!(kernel_state(u32::MAX).contains("unknown"));
    }
}
