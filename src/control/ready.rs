//! Whether clients should be sent here, for whoever asks (`/readyz`, systemd): before the workers
//! serve and from the first thought of a drain on, they should not.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU32, Ordering::Relaxed},
};

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Starting,
    Serving,
    /// The end is decided; listeners may still accept (`shutdown.ready_delay`).
    Draining,
}

/// Shared by control's threads; the data path does not know of it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<State>);

#[derive(Debug, Default)]
struct State {
    life: AtomicU8,
    stuck: AtomicU32,
    down: AtomicU32,
}

/// What is known at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub life: Life,
    /// Workers that make no progress: what the kernel gives them is not served.
    pub stuck: u32,
    /// Workers that ended and were not started again; the others take their share.
    pub down: u32,
}

impl Look {
    /// Whether new clients are served as they should be.
    pub fn is_ready(&self) -> bool {
        self.life == Life::Serving && self.stuck == 0
    }
}

impl std::fmt::Display for Look {
    /// One line: `ready`, `starting`, `draining`, or what is wrong.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.life {
            Life::Starting => f.write_str("starting")?,
            Life::Draining => f.write_str("draining")?,
            Life::Serving if self.stuck == 0 => f.write_str("ready")?,
            Life::Serving => f.write_str("not ready")?,
        }
        let counts = [(self.stuck, "stuck"), (self.down, "down")];
        for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {} {what}", crate::config::report::plural(*count as usize, "worker"))?;
        }
        Ok(())
    }
}

impl Readiness {
    pub fn look(&self) -> Look {
        let life = match self.0.life.load(Relaxed) {
            0 => Life::Starting,
            1 => Life::Serving,
            _ => Life::Draining,
        };
        Look { life, stuck: self.0.stuck.load(Relaxed), down: self.0.down.load(Relaxed) }
    }

    pub fn set(&self, life: Life) {
        self.0.life.store(life as u8, Relaxed);
    }

    /// So many workers are stuck now.
    pub fn stuck(&self, workers: u32) {
        self.0.stuck.store(workers, Relaxed);
    }

    /// One more worker stays down.
    pub fn one_down(&self) {
        self.0.down.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_between_start_and_drain_while_nobody_is_stuck() {
        let readiness = Readiness::default();
        let told = || (readiness.look().is_ready(), readiness.look().to_string());
        assert_eq!(told(), (false, "starting".to_owned()));
        readiness.set(Life::Serving);
        assert_eq!(told(), (true, "ready".to_owned()));
        readiness.stuck(2);
        assert_eq!(told(), (false, "not ready, 2 workers stuck".to_owned()));
        readiness.stuck(0);
        readiness.one_down();
        assert_eq!(told(), (true, "ready, 1 worker down".to_owned()));
        readiness.set(Life::Draining);
        assert!(!readiness.look().is_ready());
    }
}
