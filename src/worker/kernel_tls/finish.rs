//! The end of what is written to a client whose records the kernel seals.
//!
//! The kernel takes data into a record, seals it, and only then finds out whether TCP has room for
//! it: what it has said to be written may still lie in front of TCP. A FIN would overtake that and
//! cut the response short. So it is sent only when there is room for a whole record and more
//! ([`set_room`]): then the kernel hands what waits, and close_notify behind it, to TCP in the same
//! call. While there is no room a task waits for it, with a descriptor of its own.
//!
//! Bounds: [`WAITING_MAX`] such tasks for each worker, [`WAIT_MS`] for each; a connection beyond
//! that ends by a reset, so that what it got cannot be taken for the whole.

use std::{cell::Cell, io, net::TcpStream as StdStream, os::fd::AsFd};

use monoio::net::TcpStream;
use rustix::net::Shutdown;

use super::{ALERT, WARNING, socket::send};
use crate::worker::{
    clock::now_ms,
    net::{Stream, has_room},
};

/// Connections of a worker that wait for room, at most.
const WAITING_MAX: usize = 1024;
/// A client takes something for so long, or is cut off.
const WAIT_MS: u64 = 60_000;
/// TCP takes at least so much that is not sent before a socket counts as full. It counts as not
/// full when half of that is free, which has room for two records.
const UNSENT_BYTES_MIN: u32 = 80 * 1024;
/// The alert of that name (RFC 8446 §6.1).
const CLOSE_NOTIFY: u8 = 0;

thread_local! {
    static WAITING: Cell<usize> = const { Cell::new(0) };
}

/// One of the tasks that wait, for as long as it lasts.
struct Waiting;

impl Waiting {
    /// `None`: there are as many as there may be.
    fn begin() -> Option<Waiting> {
        let count = WAITING.get();
        (count < WAITING_MAX).then(|| {
            WAITING.set(count + 1);
            Waiting
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.set(WAITING.get() - 1);
    }
}

/// Called before keys are handed to the kernel.
pub fn set_room(stream: &Stream) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    // 0: the system's default, which is no bound.
    if (1..UNSENT_BYTES_MIN).contains(&socket.tcp_notsent_lowat()?) {
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MIN)?;
    }
    Ok(())
}

/// Says that nothing more is written, and sends FIN.
pub fn finish(stream: &Stream) {
    if has_room(stream) {
        return end(stream);
    }
    let is_left = match Waiting::begin() {
        Some(place) => later(stream, place).is_ok(),
        None => false,
    };
    if !is_left {
        stream.reset();
    }
}

fn end(socket: impl AsFd) {
    let _ = send(&socket, ALERT, &[WARNING, CLOSE_NOTIFY]);
    let _ = rustix::net::shutdown(socket, Shutdown::Write);
}

fn later(stream: &Stream, place: Waiting) -> io::Result<()> {
    let fd = stream.as_fd().try_clone_to_owned()?;
    let own = Stream::tcp(TcpStream::from_std(StdStream::from(fd))?, stream.deadline().table());
    monoio::spawn(async move {
        let _place = place;
        let until_ms = now_ms() + WAIT_MS;
        match own.writable(until_ms).await {
            Ok(()) => end(&own),
            Err(_) => own.reset(),
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// However a task ends.
    #[test]
    fn a_place_is_free_again() {
        let all: Vec<_> = std::iter::from_fn(Waiting::begin).collect();
        assert_eq!((all.len(), WAITING.get()), (WAITING_MAX, WAITING_MAX));
        let task = AssertUnwindSafe(move || {
            let _all = all;
            panic!("as in a task");
        });
        assert!(catch_unwind(task).is_err());
        assert_eq!(WAITING.get(), 0);
    }
}
