//! Whether a socket has room for what is to be written to it.
//!
//! A ring is of no use for waiting on a peer that has sent FIN: it always asks for that too, so
//! that each of its polls ends at once. To poll again and again would keep the core busy, and a
//! write that the ring lets wait is tried for a while and then handed to a thread of the
//! kernel, one for each such peer that does not read. So the ring gets only writes that do not
//! wait: while the socket holds little that the peer has not taken. All others are made by a call
//! that does not wait, and where a poll ends without room ([`later`]) the worker looks itself, at
//! growing distances.
//!
//! Invariant: [`Room`] never takes a socket for emptier than it is.

#![expect(unsafe_code, reason = "asking a socket what it holds")]

use std::{
    cell::Cell,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};

use crate::worker::clock::completed;

/// A socket that holds less takes at least a part of the next write. Where the system's send
/// buffers are smaller (tcp(7), tcp_wmem), the ring waits after all, until the write is overdue.
const SURE_BYTES: usize = 16 * 1024;
/// What the kernel needs for a write besides its bytes.
const WRITE_BYTES: usize = 256;
/// Between two looks for room.
const PAUSE_MS: u64 = 1;
const PAUSE_MS_MAX: u64 = 64;

/// What one socket holds.
#[derive(Default)]
pub struct Room {
    /// Bytes that were given to it and that the peer's kernel has not taken, at most.
    held: Cell<usize>,
}

impl Room {
    /// The next write does not wait.
    #[inline]
    pub fn is_sure(&self, socket: impl AsFd) -> bool {
        self.held.get() < SURE_BYTES || self.look(socket)
    }

    #[cold]
    fn look(&self, socket: impl AsFd) -> bool {
        self.held.set(held(socket));
        self.held.get() < SURE_BYTES
    }

    /// So much was given to the socket.
    #[inline]
    pub fn fill(&self, bytes: usize) {
        self.held.set(self.held.get() + bytes + WRITE_BYTES);
    }
}

/// Bytes that the peer's kernel has not taken.
fn held(socket: impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one number (SIOCOUTQ: tcp(7), unix(7)).
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    // Where it cannot be told there may be any number.
    if result == 0 { usize::try_from(bytes).unwrap_or(usize::MAX) } else { usize::MAX / 2 }
}

/// A write would not wait: there is room, or an error to find.
pub fn has_room(socket: impl AsFd) -> bool {
    let fd = socket.as_fd();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    poll(&mut polled, Some(&now)).map_or(true, |ready| ready > 0)
}

/// Waits until there is room. Who is overdue is shut down, which counts as room.
#[cold]
pub async fn later(socket: impl AsFd) {
    let mut pause_ms = PAUSE_MS;
    while !has_room(&socket) {
        monoio::time::sleep(Duration::from_millis(pause_ms)).await;
        completed();
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
    }
}
