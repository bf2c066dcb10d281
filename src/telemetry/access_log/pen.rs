//! Writing into memory that is there already: no piece of a line asks whether memory must grow.

/// Writes forwards from the start of some room. What finds none is not written, and nor is
/// anything after it.
pub struct Pen<'a> {
    rest: &'a mut [u8],
    room_bytes: usize,
    fits: bool,
}

impl<'a> Pen<'a> {
    pub fn new(room: &'a mut [u8]) -> Pen<'a> {
        Pen { room_bytes: room.len(), rest: room, fits: true }
    }

    #[inline(always)]
    pub fn put(&mut self, text: &[u8]) {
        if let Some(room) = self.ahead(text.len()) {
            room.copy_from_slice(text);
        }
        self.skip(text.len());
    }

    #[inline(always)]
    pub fn put_byte(&mut self, byte: u8) {
        self.put(&[byte]);
    }

    /// The next `bytes` of room, if there are so many.
    #[inline(always)]
    pub fn ahead(&mut self, bytes: usize) -> Option<&mut [u8]> {
        self.rest.get_mut(..bytes)
    }

    /// The next `bytes` are written.
    #[inline(always)]
    pub fn skip(&mut self, bytes: usize) {
        match std::mem::take(&mut self.rest).split_at_mut_checked(bytes) {
            Some((_, rest)) => self.rest = rest,
            // And from now on the rest is empty.
            None => self.fits = false,
        }
    }

    /// Bytes written; `None` when not everything found room.
    pub fn finish(self) -> Option<usize> {
        self.fits.then_some(self.room_bytes - self.rest.len())
    }
}
