//! A look at a worker's ring from outside: what the kernel has counted on it.
//!
//! The ring's head and tail numbers lie in memory that the kernel shares with whoever maps the
//! ring's descriptor. Control maps the same page read-only and reads them there, which costs the
//! worker nothing. The worker itself looks there whether new completions have come
//! ([`super::clock`]).

#![expect(unsafe_code, reason = "memory shared with the kernel")]

use std::{
    collections::BTreeSet,
    io,
    os::fd::{BorrowedFd, RawFd},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use rustix::{
    io_uring::{IORING_OFF_SQ_RING, IoringSqFlags, io_uring_params, io_uring_setup},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use crate::telemetry::metrics::expose::RingCounts;

/// Rings are made one at a time, so that the new descriptor is known to be the new ring's.
static MAKING: Mutex<()> = Mutex::new(());

/// Bytes of the mapping: the page with the numbers.
const MAPPED_BYTES: usize = 4096;

/// One ring's numbers, readable for as long as this value lives, even after the ring is gone.
#[derive(Debug)]
pub struct RingView {
    page: *const u8,
    places: Places,
}

// SAFETY: the page is only read, through atomics, and stays mapped until the value is dropped.
unsafe impl Send for RingView {}
// SAFETY: as above.
unsafe impl Sync for RingView {}

/// Where in the page a number is. The same for every ring of a running kernel.
#[derive(Clone, Copy, Debug)]
struct Places {
    submitted: usize,
    taken: usize,
    flags: usize,
    completed: usize,
    overflowed: usize,
}

impl RingView {
    /// Calls `make`, and maps the ring that it made. A ring that cannot be mapped is no failure.
    pub fn of<T>(make: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Option<RingView>)> {
        let _making = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let places = places();
        let before = rings();
        let made = make()?;
        let fd = rings().difference(&before).next().copied();
        let view = places.zip(fd).and_then(|(places, fd)| RingView::map(fd, places));
        Ok((made, view))
    }

    fn map(fd: RawFd, places: Places) -> Option<RingView> {
        // SAFETY: `rings` has just seen the descriptor, its owner was just made and is not shared
        // yet, so that it stays open for this call.
        let ring = unsafe { BorrowedFd::borrow_raw(fd) };
        let (hint, flags) = (std::ptr::null_mut(), MapFlags::SHARED);
        // SAFETY: a new mapping at a place of the kernel's choice; nothing refers to it yet.
        let page =
            unsafe { mmap(hint, MAPPED_BYTES, ProtFlags::READ, flags, ring, IORING_OFF_SQ_RING) };
        Some(RingView { page: page.ok()?.cast_const().cast(), places })
    }

    /// What was counted since the ring was made. Each number begins again at 0 after 2^32.
    pub fn counts(&self) -> RingCounts {
        RingCounts {
            submitted: u64::from(self.number(self.places.submitted)),
            completed: u64::from(self.completed()),
            overflowed: u64::from(self.number(self.places.overflowed)),
        }
    }

    /// Completions that the kernel has handed over.
    #[inline]
    pub fn completed(&self) -> u32 {
        self.number(self.places.completed)
    }

    /// Whether the kernel has taken all operations.
    pub fn is_submitted(&self) -> bool {
        self.number(self.places.submitted) == self.number(self.places.taken)
    }

    /// How far the ring has come: operations begun, operations completed.
    pub fn progress(&self) -> (u32, u32) {
        (self.number(self.places.submitted), self.completed())
    }

    /// Whether the kernel waits for the ring's owner to come and complete operations. Only told by
    /// rings that were made with `IORING_SETUP_TASKRUN_FLAG`.
    pub fn has_task_work(&self) -> bool {
        self.number(self.places.flags) & IoringSqFlags::TASKRUN.bits() != 0
    }

    #[inline]
    fn number(&self, place: usize) -> u32 {
        // SAFETY: `places` checked that the place is inside the mapped page and aligned; the kernel
        // and the ring's owner write it as a whole.
        let number = unsafe { &*self.page.add(place).cast::<AtomicU32>() };
        number.load(Relaxed)
    }
}

impl Drop for RingView {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and no reference into it outlives `counts`.
        let _ = unsafe { munmap(self.page.cast_mut().cast(), MAPPED_BYTES) };
    }
}

/// Descriptors of this process that are rings.
fn rings() -> BTreeSet<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return BTreeSet::new() };
    let fd_of = |entry: std::fs::DirEntry| {
        let link = std::fs::read_link(entry.path()).ok()?;
        let is_ring = link.as_os_str().as_encoded_bytes() == b"anon_inode:[io_uring]";
        is_ring.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    };
    entries.flatten().filter_map(fd_of).collect()
}

/// Asks the kernel by making a ring.
fn places() -> Option<Places> {
    static PLACES: OnceLock<Option<Places>> = OnceLock::new();
    *PLACES.get_or_init(|| {
        let mut params = io_uring_params::default();
        // SAFETY: the ring is never used: its descriptor is closed at once.
        drop(unsafe { io_uring_setup(2, &mut params) }.ok()?);
        let places = Places {
            submitted: params.sq_off.tail as usize,
            taken: params.sq_off.head as usize,
            flags: params.sq_off.flags as usize,
            completed: params.cq_off.tail as usize,
            overflowed: params.cq_off.overflow as usize,
        };
        let fits = |place: usize| place.is_multiple_of(4) && place + 4 <= MAPPED_BYTES;
        [places.submitted, places.taken, places.flags, places.completed, places.overflowed]
            .into_iter()
            .all(fits)
            .then_some(places)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submissions_and_completions_are_seen() {
        let made = RingView::of(|| io_uring::IoUring::new(8));
        // Where io_uring is refused there is nothing to look at.
        let Ok((mut ring, view)) = made else { return };
        let view = view.expect("a ring that can be mapped");
        let before = view.counts();
        for _ in 0..3 {
            let nop = io_uring::opcode::Nop::new().build();
            // SAFETY: the operation refers to no memory.
            unsafe { ring.submission().push(&nop) }.expect("room");
        }
        ring.submit_and_wait(3).expect("a ring that works");
        let after = view.counts();
        assert_eq!(after.submitted - before.submitted, 3);
        assert_eq!(after.completed - before.completed, 3);
        assert_eq!(after.overflowed, 0);
        drop(ring);
        assert_eq!(view.counts().completed, after.completed, "it outlives the ring");
    }
}
