//! Bodies that the kernel moves from socket to socket (splice(2)), without a copy in the process.
//!
//! The way leads through a [`Pipe`]: from one socket into the empty pipe, from the pipe into the
//! other socket, until it is empty again. So what a slow reader makes the gateway hold is one pipe
//! at most, as it is one relay buffer where bodies are copied.
//!
//! Invariants: a pipe that has bytes in it is never used for another body. A socket does not block
//! while it is spliced ([`AtOnce`]), because splice(2) asks nothing else before it waits, and no
//! read or write of the ring is in flight on it meanwhile, because those need the opposite.
//!
//! Bounds: [`PIPES_MAX`] pipes for each worker; a body that gets none is copied.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    ops::{Deref, DerefMut},
    os::fd::OwnedFd,
    task::Poll,
};

use rustix::{
    io::{Errno, ioctl_fionbio},
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

use super::{
    clock::{now_ms, refresh},
    net::{Stream, Wait, WriteFailed},
};

/// A body of which less than so much is left is copied: that costs less than the calls here.
pub const SPLICED_BYTES_MIN: u64 = 32 * 1024;
/// Pipes of one worker that are in use or kept, two descriptors each.
pub const PIPES_MAX: usize = 64;
/// After the system gave no pipe, it is asked for none for so long.
const REFUSED_MS: u64 = 1000;

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// A way through the kernel. It holds at most the bytes it was made for.
pub struct Pipe {
    /// Its end to read from.
    out: OwnedFd,
    /// Its end to write to.
    into: OwnedFd,
    bytes_max: usize,
    held: usize,
}

impl Pipe {
    fn new(bytes_max: usize) -> io::Result<Pipe> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused beyond what one user's pipes may have together. Smaller ones do not pay.
        fcntl_setpipe_size(&into, bytes_max)?;
        Ok(Pipe { out, into, bytes_max, held: 0 })
    }

    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves what has arrived, at most `bytes_max`, into the empty pipe, without waiting:
    /// `WouldBlock` when nothing has, or when it is other sockets' turn. 0: the peer sends no more.
    pub fn fill_now(&mut self, from: &AtOnce<'_>, bytes_max: u64) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0, "a pipe is filled when it is empty");
        if from.0.is_turn_over() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes_max = bytes_max.min(self.bytes_max as u64) as usize;
        let n = splice(from.0, None, &self.into, None, bytes_max, FLAGS)?;
        self.held = n;
        from.0.taken(n);
        Ok(n)
    }

    /// As [`Pipe::fill_now`], but waits until something has arrived.
    pub async fn fill(
        &mut self,
        from: &AtOnce<'_>,
        bytes_max: u64,
        wait: Wait,
    ) -> io::Result<usize> {
        loop {
            match self.fill_now(from, bytes_max) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    from.0.readable(wait.at()).await?;
                }
                result => return result,
            }
        }
    }

    /// Sends all that is in the pipe. Each wait, not the whole, has `wait.idle_ms`. `Ok` is the
    /// time it took in milliseconds of the coarse clock.
    pub async fn empty(&mut self, to: &AtOnce<'_>, wait: Wait) -> Result<u64, WriteFailed> {
        let (started_ms, before) = (now_ms(), self.held);
        let result = loop {
            if self.held == 0 {
                break Ok(now_ms() - started_ms);
            }
            let sent = match to.0.is_turn_over() {
                true => Err(Errno::AGAIN),
                false => splice(&self.out, None, to.0, None, self.held, FLAGS),
            };
            match sent {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.held -= n;
                    to.0.given(n);
                    // It takes time that others should see.
                    refresh();
                }
                Err(Errno::AGAIN) => match to.0.writable(wait.at()).await {
                    Ok(()) => {}
                    Err(e) => break Err(e),
                },
                Err(e) => break Err(e.into()),
            }
        };
        result.map_err(|error| WriteFailed { error, sent_any: self.held < before })
    }
}

/// A socket on which calls do not wait, while this is alive.
pub struct AtOnce<'s>(&'s Stream, bool);

impl<'s> AtOnce<'s> {
    /// `is_epoll`: its driver has all sockets so.
    pub fn begin(stream: &'s Stream, is_epoll: bool) -> io::Result<AtOnce<'s>> {
        if !is_epoll {
            ioctl_fionbio(stream, true)?;
        }
        Ok(AtOnce(stream, is_epoll))
    }
}

impl Drop for AtOnce<'_> {
    fn drop(&mut self) {
        if !self.1 {
            // Of an open socket it does not fail. If it did, its next operation would, at once.
            let _ = ioctl_fionbio(self.0, false);
        }
    }
}

/// Lets everything else that is ready go first. What is under way to a socket arrives meanwhile.
pub async fn others_turn() {
    let mut is_over = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_over, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// One worker's pipes.
#[derive(Default)]
pub struct Pipes {
    /// What a pipe holds; 0: there are none.
    bytes: Cell<usize>,
    free: RefCell<Vec<Pipe>>,
    lent: Cell<usize>,
    /// Fewest free pipes since the last [`Pipes::trim`]: so many were not needed.
    unneeded: Cell<usize>,
    refused_until_ms: Cell<u64>,
}

impl Pipes {
    /// Lends pipes that hold `bytes` from now on; 0: none.
    pub fn resize(&self, bytes: usize) {
        if self.bytes.replace(bytes) != bytes {
            self.free.take();
            self.unneeded.set(0);
            self.refused_until_ms.set(0);
        }
    }

    /// An empty pipe for a body of which `left` bytes are to come; `None` when they are to be
    /// copied.
    #[inline]
    pub fn lend(&self, left: u64) -> Option<Lent<'_>> {
        if left < SPLICED_BYTES_MIN || self.bytes.get() == 0 || self.lent.get() >= PIPES_MAX {
            return None;
        }
        let mut free = self.free.borrow_mut();
        let pipe = match free.pop() {
            Some(pipe) => pipe,
            None => self.open()?,
        };
        self.unneeded.set(self.unneeded.get().min(free.len()));
        self.lent.set(self.lent.get() + 1);
        Some(Lent { pipes: self, pipe: Some(pipe) })
    }

    fn open(&self) -> Option<Pipe> {
        if now_ms() < self.refused_until_ms.get() {
            return None;
        }
        let pipe = Pipe::new(self.bytes.get());
        if let Err(e) = &pipe {
            tracing::debug!(error = %e, "no pipe: bodies are copied");
            self.refused_until_ms.set(now_ms() + REFUSED_MS);
        }
        pipe.ok()
    }

    /// Closes pipes that were not needed since the last call.
    pub fn trim(&self) {
        let mut free = self.free.borrow_mut();
        let unneeded = self.unneeded.get().min(free.len());
        free.drain(..unneeded);
        self.unneeded.set(free.len());
    }
}

/// A pipe that goes back when this is dropped, or is closed when it has bytes in it.
pub struct Lent<'p> {
    pipes: &'p Pipes,
    /// Taken only by dropping.
    pipe: Option<Pipe>,
}

impl Deref for Lent<'_> {
    type Target = Pipe;

    fn deref(&self) -> &Pipe {
        self.pipe.as_ref().expect("there until it is dropped")
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Pipe {
        self.pipe.as_mut().expect("there until it is dropped")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.pipes.lent.set(self.pipes.lent.get() - 1);
        let bytes = self.pipes.bytes.get();
        let again = self.pipe.take().filter(|pipe| pipe.held == 0 && pipe.bytes_max == bytes);
        self.pipes.free.borrow_mut().extend(again);
    }
}
