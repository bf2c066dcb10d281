//! A range of a buffer, kept instead of a reference so that the buffer may move and be lent.

/// Half-open byte range `start..end` of some buffer. 8 bytes, `Copy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub const EMPTY: Span = Span { start: 0, end: 0 };

    pub fn new(start: usize, end: usize) -> Span {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Span { start: start as u32, end: end as u32 }
    }

    /// The bytes it names. Panics only if `buf` is not the buffer it was made from.
    #[inline]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start as usize..self.end as usize]
    }

    /// Its first `len` bytes. It must have them.
    #[inline]
    pub fn first(self, len: usize) -> Span {
        debug_assert!(len <= self.len());
        Span { end: self.start + len as u32, ..self }
    }

    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}
