//! What wakes a worker from another thread: an eventfd that its ring waits on. However many ring
//! while the worker is busy, it is one system call and one wake-up.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    sync::atomic::{AtomicBool, Ordering},
};

use monoio::net::UnixStream;
use rustix::event::{EventfdFlags, eventfd};

/// Any thread may ring it; one worker at a time listens.
pub struct Bell {
    /// A wake-up is on its way: another write to the eventfd would tell nothing new.
    is_rung: AtomicBool,
    wake: OwnedFd,
}

/// A worker that listens, inside its runtime.
pub struct Ear<'b> {
    bell: &'b Bell,
    waiting: UnixStream,
}

impl Bell {
    pub fn new() -> io::Result<Bell> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { is_rung: AtomicBool::new(false), wake })
    }

    /// Wakes the worker, which sees whatever was left for it before.
    pub fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            // Cannot fail: the counter of an eventfd overflows after 2^64 - 2 unread wake-ups.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Must be called inside the worker's runtime.
    pub fn listen(&self) -> io::Result<Ear<'_>> {
        // Not a socket, but all that is asked of it is readiness, which any descriptor has.
        let waiting = StdUnixStream::from(self.wake.as_fd().try_clone_to_owned()?);
        Ok(Ear { bell: self, waiting: UnixStream::from_std(waiting)? })
    }
}

impl Ear<'_> {
    /// The worker looks now at what was left for it; whatever is left later rings again.
    pub fn heard(&self) {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&self.bell.wake, &mut count);
        self.bell.is_rung.swap(false, Ordering::AcqRel);
    }

    /// Waits until somebody has rung since [`Ear::heard`].
    pub async fn wait(&self) -> io::Result<()> {
        if !self.bell.is_rung.load(Ordering::Acquire) {
            self.waiting.readable(false).await?;
        }
        Ok(())
    }
}
