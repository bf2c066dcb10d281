//! What the service manager is told, and what it gives: `Type=notify-reload`, the watchdog, socket
//! activation. Without systemd (no `NOTIFY_SOCKET`) all of it does nothing.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use sd_notify::NotifyState;

use super::sockets::{self, Offered};

/// The way to the service manager. Copies share whether this process still speaks for the service.
#[derive(Clone, Debug)]
pub struct Systemd {
    speaks: Arc<AtomicBool>,
    /// It could not be told something, which was logged.
    failed: Arc<AtomicBool>,
}

impl Systemd {
    pub fn new() -> Systemd {
        Systemd { speaks: Arc::new(AtomicBool::new(true)), failed: Arc::default() }
    }

    /// The service has started. `took_over`: as the successor of the process that systemd knows.
    pub fn started(&self, took_over: bool) {
        let pid = NotifyState::MainPid(std::process::id());
        let ready = [pid, NotifyState::Ready, NotifyState::Status("serving")];
        self.tell(&ready[usize::from(!took_over)..]);
    }

    /// A reload begins; [`Systemd::reloaded`] must follow.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(e) => tracing::warn!(error = %e, "cannot tell systemd of the reload"),
        }
    }

    /// The reload is over, with this outcome.
    pub fn reloaded(&self, outcome: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(outcome)]);
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.tell(&[NotifyState::Status(text)]);
    }

    /// All workers make progress.
    pub fn feed_watchdog(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Another process speaks for the service from now on.
    pub fn hush(&self) {
        self.speaks.store(false, Relaxed);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if self.speaks.load(Relaxed)
            && let Err(e) = sd_notify::notify(states)
            && !self.failed.swap(true, Relaxed)
        {
            tracing::warn!(error = %e, "cannot tell systemd");
        }
    }
}

/// After how long without a sign of life systemd takes the service for hung (`WatchdogSec=`).
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// The listening sockets that systemd has opened for us (`ringway.socket`).
pub fn activated() -> Result<Vec<Offered>, String> {
    let given = sd_notify::listen_fds_with_names()
        .map_err(|e| format!("LISTEN_FDS and LISTEN_FDNAMES are not as systemd sets them: {e}"))?;
    let mut offered = Vec::new();
    for (descriptor, name) in given {
        let socket = copy(descriptor).map_err(|e| format!("descriptor {descriptor}: {e}"))?;
        match sockets::address_of(&socket) {
            Some(at) => {
                offered.push(Offered { name, at, worker: None, is_lasting: true, socket });
            }
            None => tracing::warn!(
                descriptor,
                name,
                "systemd gave us what is not a listening stream socket (ListenStream=): not used"
            ),
        }
    }
    Ok(offered)
}

/// A copy of a descriptor that is known by its number only. The original stays open, which changes
/// nothing: systemd holds the socket too.
fn copy(descriptor: i32) -> std::io::Result<OwnedFd> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own, descriptor, PidfdGetfdFlags::empty())?)
}
