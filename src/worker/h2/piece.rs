//! Data on its way to a client: buffers lent to the codec, and how much of them waits to be sent.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};

use super::{
    super::buffers::{Buffer, Buffers},
    Crowd,
    turns::Credit,
};

/// Bytes of one connection that may wait in the codec. A stream that has more data waits until the
/// client has taken some, and meanwhile nothing is read for it.
const UNSENT_BYTES_MAX: usize = 64 * 1024;
/// The same where memory is scarce.
const SCARCE_BYTES_MAX: usize = 16 * 1024;

/// What one connection has to send.
pub struct Outbox {
    buffers: Rc<Buffers>,
    crowd: Rc<Crowd>,
    credit: Rc<Credit>,
    bytes: Cell<usize>,
    /// Bytes that have left it, since the connection began.
    taken: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Outbox {
    pub fn new(buffers: &Rc<Buffers>, crowd: &Rc<Crowd>, credit: &Rc<Credit>) -> Outbox {
        let (bytes, waiting) = (Cell::new(0), RefCell::default());
        let (buffers, crowd, credit) = (buffers.clone(), crowd.clone(), credit.clone());
        Outbox { buffers, crowd, credit, bytes, taken: Cell::new(0), waiting }
    }

    fn has_room(&self, bytes: usize) -> bool {
        bytes < SCARCE_BYTES_MAX || bytes < UNSENT_BYTES_MAX && !self.crowd.is_scarce()
    }

    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    pub fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Ready as soon as more may be handed to the codec.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.has_room(self.bytes.get()) {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn sent(&self, bytes: usize) {
        let left = self.bytes.get().saturating_sub(bytes);
        self.bytes.set(left);
        self.taken.set(self.taken.get() + bytes as u64);
        self.credit.earn_for_data();
        if self.has_room(left) {
            // Outside the borrow: a waker may run anything.
            let waiting = self.waiting.take();
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

/// Data of one frame or more.
pub struct Piece {
    data: Data,
    /// Bytes it had, and where they are counted.
    counted: Option<(usize, Rc<Outbox>)>,
}

enum Data {
    Lent(Buffer),
    Copied(Bytes),
}

impl Piece {
    /// The window of `buffer`, which goes back to its shelf when it has been sent.
    pub fn lent(buffer: Buffer, outbox: &Rc<Outbox>) -> Piece {
        Piece::counted(buffer.len(), Data::Lent(buffer), outbox)
    }

    pub fn copied(bytes: &[u8], outbox: &Rc<Outbox>) -> Piece {
        Piece::counted(bytes.len(), Data::Copied(Bytes::copy_from_slice(bytes)), outbox)
    }

    /// Nothing, where an end is to be told.
    pub fn empty() -> Piece {
        Piece { data: Data::Copied(Bytes::new()), counted: None }
    }

    fn counted(bytes: usize, data: Data, outbox: &Rc<Outbox>) -> Piece {
        outbox.bytes.set(outbox.bytes.get() + bytes);
        Piece { data, counted: Some((bytes, outbox.clone())) }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match &self.data {
            Data::Lent(buffer) => buffer.len(),
            Data::Copied(bytes) => bytes.len(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match &self.data {
            Data::Lent(buffer) => buffer.bytes(),
            Data::Copied(bytes) => bytes,
        }
    }

    fn advance(&mut self, n: usize) {
        match &mut self.data {
            Data::Lent(buffer) => buffer.consume(n),
            Data::Copied(bytes) => bytes.advance(n),
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Some((bytes, outbox)) = self.counted.take() else { return };
        if let Data::Lent(buffer) = &mut self.data {
            outbox.buffers.give(std::mem::take(buffer));
        }
        outbox.sent(bytes);
    }
}
