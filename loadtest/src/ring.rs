//! The io_uring of one thread, reduced to the five operations a load generator needs.
//!
//! Owns all `unsafe` of this crate. Invariants: every byte range handed to the kernel for reading
//! is `&'static` (requests and answers are built once at start-up and leaked), and every byte the
//! kernel writes lands in the provided-buffer ring of [`Buffers`], which must outlive the
//! [`Ring`]: the engine holds both and drops the ring first.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{self, BufRingEntry, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use socket2::SockAddr;

/// The only buffer group: all receiving connections share it.
const GROUP: u16 = 0;

/// What an operation was, kept in its completion's user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A listener accepted a connection.
    Accept,
    /// A connection attempt ended.
    Connect,
    /// Bytes, end of stream or an error arrived.
    Receive,
    /// A send ended (only failures are reported).
    Send,
    /// The periodic tick.
    Tick,
}

/// Which half of the process an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The half that sends requests.
    Client,
    /// The half that answers them.
    Origin,
}

/// Identifies one connection of one side; a reused index gets another generation, so that late
/// completions of its predecessor are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The half of the process.
    pub side: Side,
    /// Position in that half's table of connections.
    pub index: u32,
    /// Use count of that position, 24 bits.
    pub generation: u32,
}

impl Key {
    fn pack(self, op: Op) -> u64 {
        let tag = (op as u64) << 1 | self.side as u64;
        tag << 56 | u64::from(self.generation & 0x00ff_ffff) << 32 | u64::from(self.index)
    }

    fn unpack(data: u64) -> (Self, Op) {
        let tag = data >> 56;
        let side = if tag & 1 == 0 { Side::Client } else { Side::Origin };
        let op = match tag >> 1 {
            0 => Op::Accept,
            1 => Op::Connect,
            2 => Op::Receive,
            3 => Op::Send,
            _ => Op::Tick,
        };
        (Self { side, index: data as u32, generation: (data >> 32) as u32 & 0x00ff_ffff }, op)
    }
}

/// One finished (or, for multishot operations, progressing) operation.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Whose operation.
    pub key: Key,
    /// Which operation.
    pub op: Op,
    /// Result: a count or descriptor, or a negated errno.
    pub result: i32,
    /// The provided buffer that holds received bytes.
    pub buffer: Option<u16>,
    /// Whether the multishot operation stays armed.
    pub more: bool,
}

/// Submission and completion queues.
pub struct Ring {
    io: IoUring,
}

impl Ring {
    /// Builds a ring whose deferred work runs only when this thread asks for it.
    pub fn new() -> io::Result<Self> {
        let io: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(16 * 1024)
            .build(2048)?;
        // Spares a descriptor look-up per turn.
        io.submitter().register_ring_fd()?;
        Ok(Self { io })
    }

    /// Accepts connections on `listener` until the completion's `more` is false.
    pub fn accept(&mut self, listener: RawFd, key: Key) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(types::Fd(listener)).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry, key, Op::Accept)
    }

    /// Connects a socket.
    pub fn connect(&mut self, fd: RawFd, to: &'static SockAddr, key: Key) -> io::Result<()> {
        let entry = opcode::Connect::new(types::Fd(fd), to.as_ptr().cast(), to.len()).build();
        self.push(entry, key, Op::Connect)
    }

    /// Receives into provided buffers until the completion's `more` is false.
    pub fn receive(&mut self, fd: RawFd, key: Key) -> io::Result<()> {
        self.push(opcode::RecvMulti::new(types::Fd(fd), GROUP).build(), key, Op::Receive)
    }

    /// Sends all of `bytes`; a completion comes only on failure, or always when `report`.
    pub fn send(
        &mut self,
        fd: RawFd,
        bytes: &'static [u8],
        report: bool,
        key: Key,
    ) -> io::Result<()> {
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = opcode::Send::new(types::Fd(fd), bytes.as_ptr(), bytes.len() as u32)
            .flags(flags)
            .build();
        let entry = if report { entry } else { entry.flags(squeue::Flags::SKIP_SUCCESS) };
        self.push(entry, key, Op::Send)
    }

    /// Completes with [`Op::Tick`] every `period`, for ever.
    pub fn tick(&mut self, period: &'static Timespec, key: Key) -> io::Result<()> {
        let entry =
            opcode::Timeout::new(period).flags(types::TimeoutFlags::MULTISHOT).count(0).build();
        self.push(entry, key, Op::Tick)
    }

    /// Submits what was pushed and collects completions into `out`; blocks for the first one,
    /// for at most `wait_ns` where that is given.
    pub fn turn(&mut self, wait_ns: Option<u64>, out: &mut Vec<Completion>) -> io::Result<()> {
        let submitted = match wait_ns {
            None => self.io.submit_and_wait(1),
            Some(0) => self.io.submit_and_wait(0),
            Some(ns) => {
                let time =
                    Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
                self.io.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        match submitted {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::ETIME)) => {
            }
            Err(e) => return Err(e),
        }
        out.extend(self.io.completion().map(|cqe| {
            let (key, op) = Key::unpack(cqe.user_data());
            Completion {
                key,
                op,
                result: cqe.result(),
                buffer: io_uring::cqueue::buffer_select(cqe.flags()),
                more: io_uring::cqueue::more(cqe.flags()),
            }
        }));
        Ok(())
    }

    fn push(&mut self, entry: squeue::Entry, key: Key, op: Op) -> io::Result<()> {
        let entry = entry.user_data(key.pack(op));
        loop {
            // SAFETY: callers of this private function pass only entries whose memory is
            // `'static` (send, connect, tick) or which use provided buffers (receive).
            if unsafe { self.io.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.io.submit()?;
        }
    }
}

/// The memory that received bytes land in: `count` equal buffers, lent to the kernel in turn.
pub struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    size: u32,
    tail: u16,
}

impl Buffers {
    /// Maps `count` (a power of two) buffers of `size` bytes and registers them with `ring`.
    pub fn register(ring: &Ring, count: u16, size: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel wants a power of two");
        let entries = map(usize::from(count) * size_of::<BufRingEntry>())?.cast();
        let memory = map(usize::from(count) * size as usize)?;
        let mut buffers = Self { entries, memory, count, size, tail: 0 };
        // SAFETY: `entries` is a page-aligned mapping of `count` entries that is never unmapped.
        unsafe {
            ring.io.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                count,
                GROUP,
                0,
            )?;
        }
        (0..count).for_each(|id| buffers.give_back(id));
        Ok(buffers)
    }

    /// The first `len` bytes of a buffer named by a completion.
    pub fn bytes(&self, id: u16, len: usize) -> &[u8] {
        assert!(id < self.count && len <= self.size as usize, "buffer named by the kernel");
        // SAFETY: inside the mapping (asserted); the kernel wrote it and has handed it over.
        unsafe {
            let start = self.memory.add(usize::from(id) * self.size as usize);
            std::slice::from_raw_parts(start.as_ptr(), len)
        }
    }

    /// Lends a buffer to the kernel again.
    pub fn give_back(&mut self, id: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` and `id` are below `count`; entries past the published tail are ours;
        // the tail lies in the first entry, as `BufRingEntry::tail` describes.
        unsafe {
            let entry = &mut *self.entries.add(slot).as_ptr();
            entry.set_addr(self.memory.add(usize::from(id) * self.size as usize).as_ptr() as u64);
            entry.set_len(self.size);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Anonymous zeroed pages, kept until the process ends.
fn map(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh anonymous mapping aliases nothing.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at zero"))
}

/// Takes ownership of the descriptor an accept completed with; `None` when it failed.
pub fn adopt(result: i32) -> Option<OwnedFd> {
    // SAFETY: a non-negative result of an accept is a fresh descriptor nobody else owns.
    (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) })
}

/// CPU time of the calling thread, user and system, in nanoseconds.
pub fn thread_cpu_ns() -> (u64, u64) {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: a plain output parameter; zero is a valid `rusage`, so a failure reads as zero.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1_000;
    (ns(usage.ru_utime), ns(usage.ru_stime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_packing() {
        for side in [Side::Client, Side::Origin] {
            for op in [Op::Accept, Op::Connect, Op::Receive, Op::Send, Op::Tick] {
                let key = Key { side, index: u32::MAX - 3, generation: 0x00ab_cdef };
                assert_eq!(Key::unpack(key.pack(op)), (key, op));
            }
        }
    }
}
