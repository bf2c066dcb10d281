//! Memory that is lent to the kernel and parsed in place.
//!
//! A [`Buffer`] has a window of bytes `start..end`. Reading appends to the window, consuming moves
//! its start, and what goes in front of the window (a message head, a chunk size) is written into
//! the room before it, so that head and body leave in one send without being copied.
//!
//! Invariants: `start <= end <= capacity`; every byte of the window is initialised; a buffer is
//! owned by exactly one operation or one task at a time. [`Buffers`] keeps a bounded number of
//! free ones per size, last used first, so that hot requests meet warm memory.

#![expect(unsafe_code, reason = "memory lent to the kernel")]

use std::{
    cell::{Cell, RefCell},
    mem::MaybeUninit,
    rc::Rc,
};

use monoio::buf::{IoBuf, IoBufMut};

use super::heap;

/// Room kept before the window for a rewritten head that outgrew the received one.
pub const HEADROOM: usize = 320;
/// Room kept after a read for a chunk's CRLF and the last chunk.
pub const TAILROOM: usize = 8;
/// Size of the buffer a message head is read into first.
pub const HEAD_BYTES: usize = 8 * 1024;
/// A message larger than a head buffer, and no larger than this, has its connection's next message
/// read into a relay buffer ([`Buffers::is_wide`]).
const WIDE_BYTES_MAX: u64 = 32 * 1024;
/// Idle upstream connections of one worker whose next response is read into a relay buffer.
const WIDE_IDLE_MAX: u32 = 64;
/// What a relay buffer holds beyond its configured size: the head before a body of just that size.
const HEAD_BEFORE_BYTES: usize = 1024;

/// A window of initialised bytes in a fixed piece of memory. The default one has no memory: it
/// stands where a buffer belongs while the kernel has that.
#[derive(Default)]
pub struct Buffer {
    mem: Box<[MaybeUninit<u8>]>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub fn with_capacity(bytes: usize) -> Buffer {
        Buffer { mem: Box::new_uninit_slice(bytes), start: 0, end: 0 }
    }

    pub fn capacity(&self) -> usize {
        self.mem.len()
    }

    /// Empties the window and puts it `headroom` bytes into the memory.
    pub fn reset(&mut self, headroom: usize) {
        let at = headroom.min(self.mem.len());
        self.start = at;
        self.end = at;
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes a read may still append.
    pub fn room(&self) -> usize {
        self.mem.len().saturating_sub(TAILROOM + self.end)
    }

    /// The room itself: memory that a read may fill. [`IoBufMut::set_init`] then makes it a part of
    /// the window.
    pub fn room_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        let end = self.end + self.room();
        &mut self.mem[self.end..end]
    }

    /// Bytes that can be written in front of the window.
    pub fn headroom(&self) -> usize {
        self.start
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let window = &self.mem[self.start..self.end];
        // SAFETY: every byte of the window is initialised (invariant of the type), and
        // `MaybeUninit<u8>` has the layout of `u8`.
        unsafe { &*(std::ptr::from_ref(window) as *const [u8]) }
    }

    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let window = &mut self.mem[self.start..self.end];
        // SAFETY: as in `bytes`, and the borrow is unique.
        unsafe { &mut *(std::ptr::from_mut(window) as *mut [u8]) }
    }

    /// Drops `n` bytes from the front of the window.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Takes consumed bytes back so that the window has `len` bytes again. Nothing may have been
    /// written in front of the window since.
    pub fn unconsume(&mut self, len: usize) {
        self.start = self.end.saturating_sub(len);
    }

    /// Keeps only the first `n` bytes of the window.
    pub fn truncate(&mut self, n: usize) {
        self.end = self.end.min(self.start + n);
    }

    /// Moves the window to the very start of the memory, so that all room is behind it.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.mem.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Appends as much of `bytes` as fits into the whole memory; answers how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.mem.len() - self.end);
        self.mem[self.end..self.end + n].write_copy_of_slice(&bytes[..n]);
        self.end += n;
        n
    }

    /// Puts `bytes` directly in front of the window. Answers false, changing nothing, when they do
    /// not fit.
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(at) = self.start.checked_sub(bytes.len()) else { return false };
        self.mem[at..self.start].write_copy_of_slice(bytes);
        self.start = at;
        true
    }
}

// SAFETY: `read_ptr` points at `bytes_init` initialised bytes; the memory is boxed, so moving the
// value does not move them, and it lives as long as the value.
unsafe impl IoBuf for Buffer {
    fn read_ptr(&self) -> *const u8 {
        self.mem[self.start..].as_ptr().cast()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: the kernel may write `bytes_total` bytes from `write_ptr` on, which are in bounds of the
// boxed memory and not part of the window; `set_init(n)` follows a read of n <= bytes_total bytes.
unsafe impl IoBufMut for Buffer {
    fn write_ptr(&mut self) -> *mut u8 {
        self.mem[self.end..].as_mut_ptr().cast()
    }

    fn bytes_total(&mut self) -> usize {
        self.room()
    }

    unsafe fn set_init(&mut self, n: usize) {
        self.end += n.min(self.room());
    }
}

/// One worker's free buffers, by size.
pub struct Buffers {
    head: Shelf,
    relay: Shelf,
    large: Shelf,
    /// Bytes that were freed since pages were last handed back to the system.
    freed_bytes: Cell<usize>,
    /// How many [`Wide`] there are.
    wide: Rc<Cell<u32>>,
}

/// The right of an idle upstream connection to a relay buffer for its next response.
pub struct Wide(Rc<Cell<u32>>);

impl Drop for Wide {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

struct Shelf {
    bytes: Cell<usize>,
    free_max: Cell<usize>,
    free: RefCell<Vec<Buffer>>,
    /// Fewest free buffers since the last [`Buffers::trim`]: so many were not needed.
    unneeded: Cell<usize>,
}

/// Bytes freed that make it worth while to hand pages back to the system.
const GIVE_BACK_BYTES_MIN: usize = 1024 * 1024;
/// Bytes freed that are handed back once nothing more is being freed.
const LEFT_BYTES_MIN: usize = 128 * 1024;

/// Bytes of free memory one shelf keeps for reuse.
const SHELF_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Shelf {
    fn new(bytes: usize) -> Shelf {
        let shelf = Shelf {
            bytes: Cell::new(0),
            free_max: Cell::new(0),
            free: RefCell::default(),
            unneeded: Cell::new(0),
        };
        shelf.resize(bytes);
        shelf
    }

    /// Holds buffers of another size from now on.
    fn resize(&self, bytes: usize) {
        let bytes = bytes + TAILROOM + HEADROOM;
        if self.bytes.replace(bytes) != bytes {
            self.free_max.set((SHELF_BYTES_MAX / bytes).max(4));
            self.free.borrow_mut().clear();
        }
    }

    fn take(&self) -> Buffer {
        let free = &mut *self.free.borrow_mut();
        let buffer = free.pop().unwrap_or_else(|| Buffer::with_capacity(self.bytes.get()));
        self.unneeded.set(self.unneeded.get().min(free.len()));
        buffer
    }

    /// Answers the bytes that were freed.
    fn trim(&self) -> usize {
        let free = &mut *self.free.borrow_mut();
        let unneeded = self.unneeded.get().min(free.len());
        free.drain(..unneeded);
        self.unneeded.set(free.len());
        unneeded * self.bytes.get()
    }
}

impl Buffers {
    /// `relay` and `large` are the configured sizes of relay buffers in bytes.
    pub fn new(relay: usize, large: usize) -> Buffers {
        Buffers {
            head: Shelf::new(HEAD_BYTES),
            relay: Shelf::new(relay + HEAD_BEFORE_BYTES),
            large: Shelf::new(large + HEAD_BEFORE_BYTES),
            freed_bytes: Cell::new(0),
            wide: Rc::default(),
        }
    }

    /// The configured sizes are these from now on.
    pub fn resize(&self, relay: usize, large: usize) {
        self.relay.resize(relay + HEAD_BEFORE_BYTES);
        self.large.resize(large + HEAD_BEFORE_BYTES);
    }

    /// For a message head and what comes with it.
    pub fn head(&self) -> Buffer {
        let mut buffer = self.head.take();
        buffer.reset(0);
        buffer
    }

    /// For a response head: as [`Buffers::head`], with room in front for the rewritten head.
    pub fn response(&self) -> Buffer {
        let mut buffer = self.head.take();
        buffer.reset(HEADROOM);
        buffer
    }

    /// Whether the message after one of `bytes`, head included, is better read into a relay buffer:
    /// such a message then arrives by one read and leaves by one write. Larger ones are better read
    /// in pieces, which are not copied.
    #[inline]
    pub fn is_wide(&self, bytes: u64) -> bool {
        bytes > HEAD_BYTES as u64
            && bytes <= WIDE_BYTES_MAX
            && self.relay.bytes.get() as u64 >= WIDE_BYTES_MAX + (HEADROOM + TAILROOM) as u64
    }

    /// Whether a buffer is larger than those of [`Buffers::head`].
    pub fn is_larger(&self, buffer: &Buffer) -> bool {
        buffer.capacity() > self.head.bytes.get()
    }

    /// For a request on a connection whose last one was [wide](Buffers::is_wide).
    pub fn wide(&self) -> Buffer {
        let mut buffer = self.relay.take();
        buffer.reset(0);
        buffer
    }

    /// As [`Buffers::response`], for a connection whose last response was wide; `None` when enough
    /// idle ones hold such a buffer.
    pub fn wide_response(&self) -> Option<(Buffer, Wide)> {
        let count = self.wide.get();
        if count >= WIDE_IDLE_MAX {
            return None;
        }
        self.wide.set(count + 1);
        let mut buffer = self.relay.take();
        buffer.reset(HEADROOM);
        Some((buffer, Wide(self.wide.clone())))
    }

    /// For the rest of a body of which `left` bytes are still to come, when that is known.
    pub fn relay(&self, left: Option<u64>) -> Buffer {
        let shelf = match left {
            Some(n) if n <= HEAD_BYTES as u64 => &self.head,
            Some(n) if n > LARGE_BODY_BYTES => &self.large,
            _ => &self.relay,
        };
        let mut buffer = shelf.take();
        buffer.reset(HEADROOM);
        buffer
    }

    /// The most bytes for which [`Buffers::at_least`] need not make a buffer of an odd size.
    pub fn most(&self) -> usize {
        self.relay.bytes.get()
    }

    /// A buffer with room for `bytes`, whatever the shelves hold.
    pub fn at_least(&self, bytes: usize) -> Buffer {
        let mut buffer = if bytes <= self.head.bytes.get() {
            self.head.take()
        } else if bytes <= self.relay.bytes.get() {
            self.relay.take()
        } else {
            Buffer::with_capacity(bytes)
        };
        buffer.reset(0);
        buffer
    }

    /// Exchanges a buffer whose window is to be kept for long, when most of it is empty, for one of
    /// just that size, without room around it.
    pub fn fit(&self, buffer: &mut Buffer) {
        if buffer.capacity() < 2 * (buffer.len() + HEADROOM) {
            return;
        }
        let mut fitting = Buffer::with_capacity(buffer.len());
        fitting.append(buffer.bytes());
        self.give(std::mem::replace(buffer, fitting));
    }

    /// Frees what was not needed since the last call, and hands pages back to the system when much
    /// has been freed, in whatever small portions, or when the last portion was. Called every
    /// second or so.
    pub fn trim(&self) {
        let trimmed = self.head.trim() + self.relay.trim() + self.large.trim();
        let freed = self.freed_bytes.get() + trimmed;
        let is_rest = trimmed == 0 && freed >= LEFT_BYTES_MIN;
        let is_worth_it = freed >= GIVE_BACK_BYTES_MIN || is_rest;
        self.freed_bytes.set(if is_worth_it { 0 } else { freed });
        if is_worth_it {
            heap::give_back();
        }
    }

    /// Takes a buffer back. One of an odd size, or one too many, is freed.
    pub fn give(&self, buffer: Buffer) {
        for shelf in [&self.head, &self.relay, &self.large] {
            if buffer.capacity() != shelf.bytes.get() {
                continue;
            }
            let mut free = shelf.free.borrow_mut();
            if free.len() < shelf.free_max.get() {
                free.push(buffer);
            } else {
                self.freed_bytes.set(self.freed_bytes.get() + buffer.capacity());
            }
            return;
        }
    }
}

/// Bodies with more than this left to come are relayed in large buffers.
const LARGE_BODY_BYTES: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &[u8]) -> Buffer {
        let mut buffer = Buffer::with_capacity(64);
        buffer.reset(16);
        assert_eq!(buffer.append(text), text.len());
        buffer
    }

    #[test]
    fn a_window_grows_at_both_ends_and_never_outside_its_memory() {
        let mut b = filled(b"body");
        assert!(b.prepend(b"head "));
        assert_eq!(b.bytes(), b"head body");
        assert!(!b.prepend(&[b'x'; 12]), "only 11 bytes are left in front");
        assert_eq!(b.bytes(), b"head body");
        assert_eq!(b.append(&[b'y'; 100]), 64 - 20);
        b.consume(1000);
        assert!(b.is_empty());
    }

    #[test]
    fn reads_leave_the_tail_room() {
        let mut b = filled(b"");
        assert_eq!(b.bytes_total(), 64 - 16 - TAILROOM);
        // SAFETY: the bytes are not looked at.
        unsafe { b.set_init(1000) };
        assert_eq!(b.room(), 0);
        assert_eq!(b.append(b"\r\n0\r\n\r\n"), 7);
    }

    #[test]
    fn compacting_keeps_the_bytes() {
        let mut b = filled(b"abcdef");
        b.consume(2);
        b.compact();
        assert_eq!((b.bytes(), b.headroom()), (&b"cdef"[..], 0));
        b.truncate(1);
        assert_eq!(b.bytes(), b"c");
    }

    #[test]
    fn a_shelf_gives_back_the_buffer_used_last_and_keeps_a_bounded_number() {
        let shelf = Buffers::new(64 * 1024, 256 * 1024);
        let buffer = shelf.relay(None);
        let at = buffer.read_ptr();
        shelf.give(buffer);
        assert_eq!(shelf.relay(None).read_ptr(), at);
        for _ in 0..200 {
            shelf.give(Buffer::with_capacity(shelf.large.bytes.get()));
        }
        assert!(shelf.large.free.borrow().len() * shelf.large.bytes.get() <= SHELF_BYTES_MAX);
        shelf.give(Buffer::with_capacity(3));
    }

    #[test]
    fn what_is_not_needed_for_a_while_is_freed() {
        let shelf = Buffers::new(64 * 1024, 256 * 1024);
        let buffers: Vec<Buffer> = (0..10).map(|_| shelf.head()).collect();
        buffers.into_iter().for_each(|b| shelf.give(b));
        shelf.trim();
        assert_eq!(shelf.head.free.borrow().len(), 10, "they were all in use a moment ago");
        let in_use = shelf.head();
        shelf.give(in_use);
        shelf.trim();
        assert_eq!(shelf.head.free.borrow().len(), 1, "one was needed since");
    }

    #[test]
    fn what_waits_in_a_buffer_that_is_mostly_empty_gets_one_of_its_size() {
        let shelf = Buffers::new(64 * 1024, 256 * 1024);
        // What is on the shelf afterwards: those that were exchanged gave theirs back.
        for (bytes, capacity, free) in
            [(0, 0, 1), (1000, 1000, 1), (6000, shelf.head.bytes.get(), 0)]
        {
            let mut buffer = shelf.response();
            buffer.append(&[7; 8000][..bytes]);
            shelf.fit(&mut buffer);
            assert_eq!((buffer.capacity(), buffer.bytes()), (capacity, &[7; 8000][..bytes]));
            assert_eq!(shelf.head.free.borrow().len(), free, "{bytes}");
        }
    }

    #[test]
    fn messages_of_some_kibibytes_get_larger_buffers() {
        let shelf = Buffers::new(64 * 1024, 256 * 1024);
        for (bytes, is_wide) in [(0, false), (8192, false), (8193, true), (32768, true)] {
            assert_eq!(shelf.is_wide(bytes), is_wide, "{bytes}");
        }
        assert!(!shelf.is_wide(32769) && !shelf.is_wide(u64::MAX));
        assert!(shelf.wide().room() as u64 >= WIDE_BYTES_MAX);
        let small = Buffers::new(16 * 1024, 16 * 1024);
        assert!(!small.is_wide(9000), "no configured buffer is as large");
    }

    #[test]
    fn few_idle_upstream_connections_hold_large_buffers() {
        let shelf = Buffers::new(64 * 1024, 256 * 1024);
        let mut lent: Vec<_> = (0..WIDE_IDLE_MAX).map(|_| shelf.wide_response()).collect();
        assert!(lent.iter().all(Option::is_some) && shelf.wide_response().is_none());
        lent.pop();
        let (buffer, _) = shelf.wide_response().expect("one was given back");
        assert!(buffer.headroom() == HEADROOM && buffer.room() as u64 >= WIDE_BYTES_MAX);
    }
}
