//! How long operations wait, and how they end.

use std::{io, time::Duration};

use crate::worker::clock::{completed, now_ms};

/// How long an operation may wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// For this operation, in milliseconds.
    pub idle_ms: u64,
    /// For everything: a point of the coarse clock.
    pub until_ms: u64,
}

impl Wait {
    /// The point of the coarse clock at which an operation that begins now is overdue.
    #[inline]
    pub fn at(self) -> u64 {
        now_ms().saturating_add(self.idle_ms).min(self.until_ms)
    }
}

/// A write that did not succeed.
#[derive(Debug)]
pub struct WriteFailed {
    pub error: io::Error,
    /// Some bytes were handed to the socket before.
    pub sent_any: bool,
}

impl WriteFailed {
    pub fn timed_out(&self) -> bool {
        self.error.kind() == io::ErrorKind::TimedOut
    }
}

/// What ended the wait for the next request on a kept connection.
pub enum Next {
    /// Bytes, end of stream (0), or an error; an overdue wait is `TimedOut`.
    Read(io::Result<usize>),
    /// Nothing came for a while: the buffer is free, the connection stays.
    Parked,
}

/// Whether an operation ended because it was cancelled.
pub fn is_cancelled(e: &io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error())
}

/// Gives `connect` so much time.
pub async fn in_time<T>(
    timeout_ms: u64,
    connect: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let timeout = Duration::from_millis(timeout_ms);
    let result = monoio::time::timeout(timeout, connect).await;
    completed();
    result.map_err(|_| io::ErrorKind::TimedOut)?
}
