//! A socket as the `h2` crate wants it: frames of one HTTP/2 connection between the codec, which
//! polls, and a [`Stream`], whose operations own their buffers.
//!
//! [`Io`] is what the codec has; [`Pump`] is what its task keeps. Reading goes on inside
//! [`Io::poll_read`]. What the codec writes is gathered, and leaves when the task has polled the
//! codec to its end ([`Pump::poll_with`]): so the responses of many streams leave in one write.
//!
//! After [`TURN_FRAMES`] frames received the codec waits until others have had their turn: so a
//! peer of many small ones neither holds up the worker nor fills the codec before streams take
//! anything. A client without [`Credit`] waits for longer.
//!
//! Invariants: at most one read and one write are in flight; at most [`GATHERED_BYTES_MAX`] wait
//! beside those in flight; a buffer that is empty is given back while nothing is read or written.

use std::{
    cell::Cell,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    super::{
        buffers::{Buffer, Buffers, HEAD_BYTES},
        clock::{NEVER_MS, now_ms},
        net::{Next, Stream, Wait},
    },
    turns::{Credit, Seat},
};

/// Bytes gathered for the next write; then the codec waits.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// Frames that are received in one turn of the task, or a few more.
const TURN_FRAMES: u32 = 64;
/// The codec is handed so many frames at a time, of the size of those that came last, ...
const PIECE_FRAMES: usize = 16;
/// ... and this much of them at least; ...
const PIECE_BYTES_MIN: usize = 512;
/// ... of the first ones of a client no more than this.
const FIRST_BYTES_MAX: usize = 256;
/// The same where memory is scarce: no more than a small buffer holds.
const SCARCE_BYTES_MAX: usize = HEAD_BYTES;
/// A connection without streams gives its buffer back after this time.
const PARK_MS: u64 = 250;

/// Whoever owns the stream of an HTTP/2 connection.
pub trait Owner: 'static {
    fn stream(&self) -> &Stream;
}

impl Owner for Rc<Stream> {
    fn stream(&self) -> &Stream {
        self
    }
}

/// Sees what was received, and how many bytes have been sent. Answers how many frames begin in it;
/// `None` ends the connection.
type Look = Box<dyn FnMut(&[u8], u64) -> Option<u32>>;
type Work = Pin<Box<dyn Future<Output = ()>>>;

/// What both halves know.
pub struct Link<O> {
    owner: O,
    buffers: Rc<Buffers>,
    /// The codec asks for bytes, and the task has none for it.
    wants: Cell<bool>,
    received: Cell<Buffer>,
    /// How reading ended, once it has.
    ended: Cell<Option<Result<(), io::ErrorKind>>>,
    /// When the read in flight is overdue.
    read_by_ms: Cell<u64>,
    /// The read in flight was overdue.
    is_overdue: Cell<bool>,
    /// What was received was refused.
    is_refused: Cell<bool>,
    /// No stream is open: reads are made without a buffer.
    is_idle: Cell<bool>,
    /// Waits for its write.
    gathered: Cell<Buffer>,
    is_writing: Cell<bool>,
    /// The codec had to wait for a write.
    is_blocked: Cell<bool>,
    failed: Cell<Option<io::ErrorKind>>,
    write_ms: Cell<u64>,
    sent_bytes: Cell<u64>,
    received_bytes: Cell<u64>,
    /// Frames received in this turn.
    turn_frames: Cell<u32>,
    /// Bytes that are handed to the codec at a time.
    piece_bytes: Cell<usize>,
    /// Little is gathered.
    is_scarce: Cell<bool>,
}

/// The codec's end.
pub struct Io<O: Owner> {
    link: Rc<Link<O>>,
    reader: Work,
    /// Sees what is received before the codec does.
    look: Look,
    /// Of a client; those who serve us need none.
    credit: Option<Rc<Credit>>,
    seat: Rc<Seat>,
}

/// The task's end.
pub struct Pump<O> {
    link: Rc<Link<O>>,
    writer: Work,
}

/// Both ends of a connection. `early` was read from it before. `look` sees what is received before
/// the codec does, and may refuse it, which ends the connection. Of a peer that works on `credit`
/// the codec gets the first frames a few at a time.
pub fn pair<O: Owner>(
    owner: O,
    buffers: &Rc<Buffers>,
    early: Buffer,
    write_ms: u64,
    credit: Option<Rc<Credit>>,
    look: impl FnMut(&[u8], u64) -> Option<u32> + 'static,
) -> (Io<O>, Pump<O>) {
    let link = Rc::new(Link {
        owner,
        buffers: buffers.clone(),
        wants: Cell::new(false),
        received: Cell::new(early),
        ended: Cell::new(None),
        read_by_ms: Cell::new(NEVER_MS),
        is_overdue: Cell::new(false),
        is_refused: Cell::new(false),
        is_idle: Cell::new(false),
        gathered: Cell::default(),
        is_writing: Cell::new(false),
        is_blocked: Cell::new(false),
        failed: Cell::new(None),
        write_ms: Cell::new(write_ms),
        sent_bytes: Cell::new(0),
        received_bytes: Cell::new(0),
        turn_frames: Cell::new(0),
        piece_bytes: Cell::new(if credit.is_some() { FIRST_BYTES_MAX } else { usize::MAX }),
        is_scarce: Cell::new(false),
    });
    // Each one future for the life of the connection, so that an operation allocates nothing.
    let reader = Box::pin(read_on(link.clone()));
    let writer = Box::pin(write_on(link.clone()));
    (
        Io { link: link.clone(), reader, look: Box::new(look), credit, seat: Rc::default() },
        Pump { link, writer },
    )
}

impl<O: Owner> Link<O> {
    fn stream(&self) -> &Stream {
        self.owner.stream()
    }

    /// Reads once, whenever the codec wants bytes.
    async fn read(&self) {
        let mut buf = self.buffers.head();
        let result = match self.is_idle.get() {
            false => self.stream().read_until(&mut buf, || self.read_by_ms.get()).await,
            true => self.read_parked(&mut buf).await,
        };
        match result {
            Ok(1..) => {}
            Ok(0) => self.ended.set(Some(Ok(()))),
            Err(e) => {
                self.is_overdue.set(e.kind() == io::ErrorKind::TimedOut);
                self.ended.set(Some(Err(e.kind())));
            }
        }
        self.received_bytes.set(self.received_bytes.get() + buf.len() as u64);
        match buf.is_empty() {
            true => self.buffers.give(buf),
            false => self.received.set(buf),
        }
    }

    /// As above, of a connection without streams: after a while without its buffer.
    async fn read_parked(&self, buf: &mut Buffer) -> io::Result<usize> {
        let (park_ms, by_ms) = (now_ms() + PARK_MS, self.read_by_ms.get());
        match self.stream().read_or_park(buf, park_ms, by_ms).await {
            Next::Read(result) => return result,
            Next::Parked => {}
        }
        self.buffers.give(std::mem::take(buf));
        self.stream().readable(self.read_by_ms.get()).await?;
        *buf = self.buffers.head();
        let wait = Wait { idle_ms: NEVER_MS, until_ms: self.read_by_ms.get() };
        self.stream().read(buf, wait).await
    }

    /// Frames that began in `bytes`.
    fn count(&self, frames: u32, bytes: usize) {
        self.turn_frames.set(self.turn_frames.get() + frames);
        let frame_bytes = bytes.checked_div(frames as usize).unwrap_or(HEAD_BYTES);
        self.piece_bytes.set((PIECE_FRAMES * frame_bytes).max(PIECE_BYTES_MIN));
    }

    /// Takes what the codec writes, as much as finds room.
    fn gather<'s>(&self, slices: impl Iterator<Item = &'s [u8]>) -> usize {
        let mut buf = self.gathered.take();
        if buf.capacity() == 0 {
            buf = self.buffers.head();
        }
        let max = if self.is_scarce.get() { SCARCE_BYTES_MAX } else { GATHERED_BYTES_MAX };
        let mut taken = 0;
        for slice in slices {
            let n = slice.len().min(max - buf.len().min(max));
            self.widen(&mut buf, n);
            let n = buf.append(&slice[..n]);
            taken += n;
            if n < slice.len() {
                break;
            }
        }
        self.gathered.set(buf);
        taken
    }

    /// Exchanges a small buffer that is full for one of the largest size used here.
    fn widen(&self, buf: &mut Buffer, bytes: usize) {
        if buf.len() + bytes <= buf.capacity() || buf.capacity() >= GATHERED_BYTES_MAX {
            return;
        }
        let mut larger = self.buffers.at_least(GATHERED_BYTES_MAX);
        larger.append(buf.bytes());
        self.buffers.give(std::mem::replace(buf, larger));
    }
}

async fn read_on<O: Owner>(link: Rc<Link<O>>) {
    loop {
        wait_for(|| link.wants.get()).await;
        link.read().await;
        // However often it was asked meanwhile: what was read comes first.
        link.wants.set(false);
    }
}

async fn write_on<O: Owner>(link: Rc<Link<O>>) {
    loop {
        let mut buf = link.gathered.take();
        if buf.is_empty() {
            link.buffers.give(buf);
            link.is_writing.set(false);
            wait_for(|| {
                let gathered = link.gathered.take();
                let is_empty = gathered.is_empty();
                link.gathered.set(gathered);
                !is_empty
            })
            .await;
            continue;
        }
        link.is_writing.set(true);
        let wait = Wait { idle_ms: link.write_ms.get(), until_ms: NEVER_MS };
        let written = link.stream().write_all(&mut buf, wait).await;
        link.sent_bytes.set(link.sent_bytes.get() + buf.len() as u64);
        link.buffers.give(buf);
        if let Err(failed) = written {
            link.failed.set(Some(failed.error.kind()));
            link.is_writing.set(false);
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until `is_so`; whoever changes that polls again.
async fn wait_for(mut is_so: impl FnMut() -> bool) {
    std::future::poll_fn(|_| if is_so() { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl<O: Owner> AsyncRead for Io<O> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.link.is_refused.get() {
            return Poll::Pending;
        }
        loop {
            let mut received = this.link.received.take();
            if !received.is_empty() {
                if this.link.turn_frames.get() >= TURN_FRAMES {
                    this.link.received.set(received);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if this.poll_turn(cx).is_pending() {
                    this.link.received.set(received);
                    return Poll::Pending;
                }
                let n = received.len().min(into.remaining()).min(this.link.piece_bytes.get());
                let bytes = &received.bytes()[..n];
                match (this.look)(bytes, this.link.sent_bytes.get()) {
                    Some(frames) => this.count(frames, n),
                    // The task ends it: nothing more is to be read.
                    None => this.link.is_refused.set(true),
                }
                into.put_slice(bytes);
                received.consume(n);
                match received.is_empty() {
                    true => this.link.buffers.give(received),
                    false => this.link.received.set(received),
                }
                return Poll::Ready(Ok(()));
            }
            this.link.buffers.give(received);
            match this.link.ended.get() {
                // The task ends it: nothing more is to be read.
                Some(Err(_)) if this.link.is_overdue.get() => return Poll::Pending,
                Some(Ok(())) => return Poll::Ready(Ok(())),
                Some(Err(kind)) => return Poll::Ready(Err(kind.into())),
                None => {}
            }
            this.link.wants.set(true);
            if this.reader.as_mut().poll(cx).is_ready() || !this.has_news() {
                return Poll::Pending;
            }
        }
    }
}

impl<O: Owner> Io<O> {
    #[inline]
    fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        self.credit.as_ref().map_or(Poll::Ready(()), |credit| credit.poll_turn(&self.seat, cx))
    }

    fn count(&self, frames: u32, bytes: usize) {
        self.link.count(frames, bytes);
        if let Some(credit) = &self.credit {
            credit.spend(frames);
        }
    }

    fn has_news(&self) -> bool {
        let received = self.link.received.take();
        let is_empty = received.is_empty();
        self.link.received.set(received);
        !is_empty || self.link.ended.get().is_some()
    }
}

impl<O: Owner> AsyncWrite for Io<O> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let link = &self.link;
        if let Some(kind) = link.failed.get() {
            return Poll::Ready(Err(kind.into()));
        }
        match link.gather(slices.iter().map(|slice| &**slice)) {
            // The task, which polls the codec, polls it again when a write is over.
            0 => {
                link.is_blocked.set(true);
                Poll::Pending
            }
            n => Poll::Ready(Ok(n)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was gathered leaves when the task has polled the codec; the codec need not wait.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.link.failed.get() {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Ok(())),
        }
    }

    /// The task waits for the last write ([`Pump::finish`]).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Says whether anything is to be received, and knows whether something is being sent.
pub struct Idle<O>(Rc<Link<O>>);

impl<O: Owner> Idle<O> {
    /// No stream is open, since now; the connection may stay so until `by_ms`.
    pub fn begin(&self, by_ms: u64) {
        self.set(true, by_ms);
    }

    /// A stream is open: nothing need be received.
    pub fn end(&self) {
        self.set(false, NEVER_MS);
    }

    /// Memory is scarce, or no longer: little, or more, is gathered for a write.
    pub fn save(&self, is_scarce: bool) {
        self.0.is_scarce.set(is_scarce);
    }

    /// A write is in flight.
    pub fn is_writing(&self) -> bool {
        self.0.is_writing.get()
    }

    fn set(&self, is_idle: bool, by_ms: u64) {
        self.0.is_idle.set(is_idle);
        self.0.read_by_ms.set(by_ms);
        self.0.stream().deadline().read_by(by_ms);
    }
}

impl<O: Owner> Pump<O> {
    pub fn stream(&self) -> &Stream {
        self.link.stream()
    }

    /// Polls the codec, then sends what it wrote; as long as the one makes way for the other.
    pub fn poll_with<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut codec: impl FnMut(&mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        self.link.turn_frames.set(0);
        loop {
            let polled = codec(cx);
            // It never ends by itself.
            let _ = self.writer.as_mut().poll(cx);
            let had_failed = self.link.failed.get().is_some();
            if polled.is_ready() || had_failed || !self.made_room() {
                if polled.is_pending() && had_failed {
                    // Once more, so that it hears of it.
                    return codec(cx);
                }
                return polled;
            }
        }
    }

    /// The codec waited for room, and there is some.
    fn made_room(&self) -> bool {
        if !self.link.is_blocked.get() {
            return false;
        }
        let gathered = self.link.gathered.take();
        let max = if self.link.is_scarce.get() { SCARCE_BYTES_MAX } else { GATHERED_BYTES_MAX };
        let has_room = gathered.len() < max;
        self.link.gathered.set(gathered);
        self.link.is_blocked.set(!has_room);
        has_room
    }

    /// Sends what is left, after the codec's end.
    pub async fn finish(&mut self) {
        std::future::poll_fn(|cx| {
            let _ = self.writer.as_mut().poll(cx);
            let is_done = !self.link.is_writing.get() || self.link.failed.get().is_some();
            if is_done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub fn idle(&self) -> Idle<O> {
        Idle(self.link.clone())
    }

    /// Nothing was received for too long, or the wait was ended to close the connection.
    pub fn is_overdue(&self) -> bool {
        self.link.is_overdue.get()
    }

    /// The peer took nothing for too long.
    pub fn is_stalled(&self) -> bool {
        self.link.failed.get() == Some(io::ErrorKind::TimedOut)
    }

    /// Bytes received so far.
    pub fn received_bytes(&self) -> u64 {
        self.link.received_bytes.get()
    }
}
