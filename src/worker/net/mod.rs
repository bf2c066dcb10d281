//! The one place where the data path touches sockets.
//!
//! A [`Stream`] is a connected TCP or Unix socket with its deadline slot. While an operation is in
//! flight the kernel owns its buffer, and an empty one stands in its place. A read is only ever
//! abandoned when its connection dies with it; overdue operations are ended through the slot (see
//! [`super::deadline`]) and answer [`io::ErrorKind::TimedOut`].

#![expect(unsafe_code, reason = "sockets used by one reader beside one writer")]

mod room;
mod wait;

pub use room::has_room;
pub use wait::{Next, Wait, WriteFailed, is_cancelled};

use std::{
    cell::{Cell, OnceCell, UnsafeCell},
    io,
    mem::take,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    path::Path,
    rc::Rc,
    time::Duration,
};

use monoio::{
    buf::IoBufMut,
    io::{AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent},
    net::{TcpStream, UnixStream},
};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown},
};

use self::{room::Room, wait::in_time};
use super::{
    buffers::Buffer,
    clock::{completed, is_alone, now_ms, refresh},
    deadline::{Deadline, Deadlines},
    kernel_tls::{KernelTls, finish::finish},
    session::{Session, judged, settle},
    tls::{Agreed, Tls},
};
use crate::policy::client_cert::ClientCert;

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// From so many bytes on a write is always tried at once, with a system call of its own, before it
/// is left to the ring: what was just read is still in the core's cache then, and the call costs
/// little beside the copy. Smaller ones are dearer by calls of their own, by as much as the call
/// (docs/performance.md, "What was tried").
const AT_ONCE_BYTES_MIN: usize = 32 * 1024;
/// So many bytes of one socket are moved at once, then others have their turn.
const TURN_BYTES_MAX: usize = 256 * 1024;

/// A connected socket and its deadlines. One read and one write may be in flight at a time.
pub struct Stream {
    // Declared first: the slot must go before the socket is closed.
    deadline: Deadline,
    socket: UnsafeCell<Socket>,
    /// What is read and written goes through it.
    session: OnceCell<Box<Session>>,
    fd: RawFd,
    /// Bytes moved at once since the last operation that waited.
    turn: Cell<usize>,
    room: Room,
    /// See [`Stream::set_followed`].
    is_followed: Cell<bool>,
}

macro_rules! on_socket {
    ($stream:expr, $s:ident => $op:expr) => {
        match $stream.socket() {
            Socket::Tcp($s) => $op,
            Socket::Unix($s) => $op,
        }
    };
}

impl Stream {
    pub fn tcp(stream: TcpStream, deadlines: &Rc<Deadlines>) -> Stream {
        Stream::new(stream.as_raw_fd(), Socket::Tcp(stream), deadlines)
    }

    pub fn unix(stream: UnixStream, deadlines: &Rc<Deadlines>) -> Stream {
        Stream::new(stream.as_raw_fd(), Socket::Unix(stream), deadlines)
    }

    fn new(fd: RawFd, socket: Socket, deadlines: &Rc<Deadlines>) -> Stream {
        let (deadline, socket) = (deadlines.slot(fd), UnsafeCell::new(socket));
        Stream {
            deadline,
            socket,
            session: OnceCell::new(),
            fd,
            turn: Cell::new(0),
            room: Room::default(),
            is_followed: Cell::new(false),
        }
    }

    /// Connects over TCP, without Nagle's delay. The kernel keeps no more than `unsent_bytes`
    /// that wait to be sent.
    pub async fn connect_tcp(
        address: SocketAddr,
        timeout_ms: u64,
        unsent_bytes: u32,
        deadlines: &Rc<Deadlines>,
    ) -> io::Result<Stream> {
        let stream = in_time(timeout_ms, TcpStream::connect_addr(address)).await?;
        let stream = Stream::tcp(stream, deadlines);
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(unsent_bytes)?;
        Ok(stream)
    }

    pub async fn connect_unix(
        path: &Path,
        timeout_ms: u64,
        deadlines: &Rc<Deadlines>,
    ) -> io::Result<Stream> {
        let stream = in_time(timeout_ms, UnixStream::connect(path)).await?;
        Ok(Stream::unix(stream, deadlines))
    }

    /// The bare socket, for another runtime. Nothing may be in flight on it.
    pub fn into_socket(self) -> OwnedFd {
        let Stream { deadline, socket, .. } = self;
        drop(deadline);
        let fd = match socket.into_inner() {
            Socket::Tcp(stream) => stream.into_raw_fd(),
            Socket::Unix(stream) => stream.into_raw_fd(),
        };
        // SAFETY: the runtime has just given up the descriptor, which nobody else owns.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    #[expect(clippy::mut_from_ref, reason = "see SAFETY")]
    fn socket(&self) -> &mut Socket {
        // SAFETY: monoio's sockets only need `&mut` by their trait: an operation clones the
        // descriptor and keeps no reference (they implement monoio's `Split`, which permits one
        // reader beside one writer), and this type is not `Sync`.
        unsafe { &mut *self.socket.get() }
    }

    /// From now on this session stands between the socket and whoever uses the stream.
    pub fn begin_session(&self, session: Session) {
        // Handshakes are made once.
        let _ = self.session.set(Box::new(session));
    }

    /// The session, where records are sealed and opened here.
    #[inline]
    fn tls(&self) -> Option<&Tls> {
        self.session.get()?.user()
    }

    /// As [`Stream::tls`], where the kernel does it.
    fn kernel(&self) -> Option<&KernelTls> {
        self.session.get()?.kernel()
    }

    /// The client's verified certificate, where its listener asks for one.
    pub fn client_cert(&self) -> Option<Rc<ClientCert>> {
        self.session.get()?.client_cert()
    }

    /// The handshake chose HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.session.get().is_some_and(|session| session.is_http2())
    }

    /// What the handshake came to, where there was one.
    pub fn agreed(&self) -> Option<Agreed> {
        Some(self.session.get()?.agreed())
    }

    pub fn is_tls(&self) -> bool {
        self.session.get().is_some()
    }

    /// What is written has to be sealed here first, so that pipes cannot be used.
    pub fn seals(&self) -> bool {
        self.tls().is_some()
    }

    pub fn is_tcp(&self) -> bool {
        matches!(self.socket(), Socket::Tcp(_))
    }

    /// Appends what arrives to `buf`'s window. 0 bytes: the peer sends no more, or `buf` is full.
    // No future of its own: a layer more would cost every read.
    #[inline]
    pub fn read<'s>(
        &'s self,
        buf: &'s mut Buffer,
        wait: Wait,
    ) -> impl Future<Output = io::Result<usize>> + 's {
        // Of records without anything inside, however many: the wait is for what is inside.
        let by_ms = wait.at();
        self.read_until(buf, move || by_ms)
    }

    /// As [`Stream::read`], where the point at which the read is overdue may change while it is in
    /// flight: whoever changes it sets the deadline too. A record of which only a part has come
    /// must not bring back the old one.
    pub async fn read_until(&self, buf: &mut Buffer, by_ms: impl Fn() -> u64) -> io::Result<usize> {
        loop {
            let target = match self.session.get().map(Box::as_ref) {
                None => take(buf),
                Some(Session::Kernel(tls)) if tls.has_ended() => return Ok(0),
                Some(Session::Kernel(_)) => take(buf),
                Some(Session::User(tls)) => match self.decrypted(tls, buf)? {
                    Some(n) => return Ok(n),
                    None => tls.room(),
                },
            };
            self.deadline.read_by(by_ms());
            let (result, back) = on_socket!(self, s => s.read(target).await);
            self.turn.set(0);
            completed();
            let result = self.read_ended(result);
            match self.session.get().map(Box::as_ref) {
                None => {
                    *buf = back;
                    return result;
                }
                Some(Session::Kernel(tls)) => {
                    *buf = back;
                    if let Some(result) = judged(tls, self, buf, result) {
                        return result;
                    }
                }
                Some(Session::User(tls)) => {
                    tls.take(back, &result);
                    result?;
                }
            }
        }
    }

    /// Plaintext that is there already. When what was received is not TLS, the peer is told.
    fn decrypted(&self, tls: &Tls, buf: &mut Buffer) -> io::Result<Option<usize>> {
        tls.read(buf).inspect_err(|error| self.tell(tls.broke(error)))
    }

    /// Sends something short that ends the connection, as far as the kernel takes it at once.
    fn tell(&self, records: Option<Buffer>) {
        if let Some(records) = records {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::send(self.as_fd(), records.bytes(), flags);
        }
    }

    /// As [`Stream::read`], at most `bytes_max` and without waiting: `WouldBlock` when nothing is
    /// there, or when it is other sockets' turn. No read may be in flight.
    pub fn read_now(&self, buf: &mut Buffer, bytes_max: usize) -> io::Result<usize> {
        // Of a session's records nobody knows how many bytes are in them.
        if self.is_turn_over() || self.seals() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let room = buf.room_mut();
        let bytes_max = bytes_max.min(room.len());
        let received = rustix::net::recv(self.as_fd(), &mut room[..bytes_max], RecvFlags::DONTWAIT);
        let n = match received {
            Ok((_, n)) if n > 0 || self.kernel().is_none() => n.min(bytes_max),
            Err(e) if self.kernel().is_none() => return Err(e.into()),
            // No data: a read that waits takes what it is.
            _ => return Err(io::ErrorKind::WouldBlock.into()),
        };
        // SAFETY: the first `n` bytes of the room were filled.
        unsafe { buf.set_init(n) };
        self.turn.set(self.turn.get() + n);
        Ok(n)
    }

    fn read_ended(&self, result: io::Result<usize>) -> io::Result<usize> {
        match (self.deadline.read_done(), result) {
            (true, Ok(0) | Err(_)) => Err(io::ErrorKind::TimedOut.into()),
            (_, result) => result,
        }
    }

    /// Waits for the next request on a kept connection until `by_ms`; gives up the buffer at
    /// `park_ms` if that comes first. It costs a little more than [`Stream::read`], so busy
    /// connections go without.
    pub async fn read_or_park(&self, buf: &mut Buffer, park_ms: u64, by_ms: u64) -> Next {
        loop {
            let target = match self.session.get().map(Box::as_ref) {
                None => take(buf),
                Some(Session::Kernel(tls)) if tls.has_ended() => return Next::Read(Ok(0)),
                Some(Session::Kernel(_)) => take(buf),
                Some(Session::User(tls)) => match self.decrypted(tls, buf) {
                    Ok(None) => tls.room(),
                    Ok(Some(n)) => return Next::Read(Ok(n)),
                    Err(e) => return Next::Read(Err(e)),
                },
            };
            let handle = self.deadline.parkable();
            self.deadline.read_by(park_ms.min(by_ms));
            let (result, back) = on_socket!(self, s => s.cancelable_read(target, handle).await);
            completed();
            self.deadline.not_parkable();
            let is_overdue = self.deadline.read_done();
            match self.tls() {
                None => *buf = back,
                Some(tls) => tls.take(back, &result),
            }
            return match result {
                Err(e) if is_overdue && is_cancelled(&e) => match self.deadline.is_closing() {
                    true => Next::Read(Err(io::ErrorKind::TimedOut.into())),
                    false => Next::Parked,
                },
                // What is in the records is what was waited for.
                Ok(_) if self.seals() => continue,
                result => match self.kernel() {
                    None => Next::Read(result),
                    Some(tls) => match judged(tls, self, buf, result) {
                        None => continue,
                        Some(result) => Next::Read(result),
                    },
                },
            };
        }
    }

    /// Waits, without a buffer, until there is something to read.
    pub async fn readable(&self, by_ms: u64) -> io::Result<()> {
        self.deadline.read_by(by_ms);
        let result = on_socket!(self, s => s.readable(false).await);
        self.turn.set(0);
        completed();
        match self.deadline.read_done() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => result,
        }
    }

    /// Waits, without a buffer, until there is room to write, or an error to find.
    pub async fn writable(&self, by_ms: u64) -> io::Result<()> {
        self.deadline.write_by(by_ms);
        let result = on_socket!(self, s => s.writable(false).await);
        self.turn.set(0);
        completed();
        if result.is_ok() && !has_room(self) {
            Box::pin(room::later(self)).await;
        }
        match self.deadline.write_done() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => result,
        }
    }

    /// Copies what has arrived to the front of `bytes` and leaves it there to be read.
    pub fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        Ok(rustix::net::recv(self.as_fd(), bytes, flags)?.0)
    }

    /// Takes what has arrived, as much as `bytes` has room for.
    pub fn skip(&self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self.as_fd(), bytes, RecvFlags::DONTWAIT)?.0)
    }

    /// From now on [`Stream::readable`] waits until more than `bytes` have arrived (SO_RCVLOWAT).
    pub fn wake_above(&self, bytes: usize) -> io::Result<()> {
        let least = (bytes + 1) as libc::c_int;
        // SAFETY: the kernel reads one number, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                self.fd,
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const least).cast(),
                size_of_val(&least) as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Bytes have arrived that nobody has read, or that cannot be told.
    pub fn has_unread(&self) -> bool {
        self.tls().is_some_and(|tls| tls.has_unread())
            || !rustix::io::ioctl_fionread(self).is_ok_and(|bytes| bytes == 0)
    }

    /// So much was moved at once that others have their turn: wait before more is moved.
    pub fn is_turn_over(&self) -> bool {
        self.turn.get() >= TURN_BYTES_MAX
    }

    /// `n` bytes were taken from it at once.
    pub fn taken(&self, n: usize) {
        self.turn.set(self.turn.get() + n);
    }

    /// `n` bytes were given to it at once.
    pub fn given(&self, n: usize) {
        self.turn.set(self.turn.get() + n);
        self.room.fill(n);
    }

    /// What is written next is followed by more without a wait, so that they may leave together.
    pub fn set_followed(&self, is_followed: bool) {
        self.is_followed.set(is_followed);
    }

    /// Writes the whole window. Each write, not the whole, has `wait.idle_ms`. `Ok` is the time it
    /// took in milliseconds of the coarse clock. Afterwards the buffer has the window it had.
    ///
    /// One loop for both kinds: a future of its own for what is sealed would cost every write that
    /// is not.
    pub async fn write_all(&self, buf: &mut Buffer, wait: Wait) -> Result<u64, WriteFailed> {
        let (started_ms, len) = (now_ms(), buf.len());
        let tls = self.tls();
        if tls.is_none() && self.is_tls() {
            let ready = self.before_write(len, wait).await;
            ready.map_err(|error| WriteFailed { error, sent_any: false })?;
        }
        // Of a session: what is sealed of the window.
        let mut records = Buffer::default();
        let mut sent_any = false;
        let result = loop {
            let out = if tls.is_some() { &mut records } else { &mut *buf };
            if out.is_empty() {
                match tls.map_or(Ok(false), |tls| next_records(tls, buf, &mut records)) {
                    Ok(true) => continue,
                    Ok(false) => break Ok(now_ms() - started_ms),
                    Err(e) => break Err(e),
                }
            }
            if self.writes_at_once(out) || !self.room.is_sure(self) {
                match self.write_now(out) {
                    Ok(()) => sent_any = true,
                    Err(Errno::AGAIN) => match self.writable(wait.at()).await {
                        Ok(()) => {}
                        Err(e) => break Err(e),
                    },
                    Err(e) => break Err(e.into()),
                }
                continue;
            }
            let taken = take(out);
            self.deadline.write_by(wait.at());
            let (result, back) = on_socket!(self, s => s.write(taken).await);
            let out = if tls.is_some() { &mut records } else { &mut *buf };
            *out = back;
            self.turn.set(0);
            completed();
            match (self.deadline.write_done(), result) {
                (false, Ok(0)) => break Err(io::ErrorKind::WriteZero.into()),
                (false, Ok(n)) => {
                    self.room.fill(n);
                    out.consume(n);
                    sent_any = true;
                }
                (true, _) => break Err(io::ErrorKind::TimedOut.into()),
                (false, Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                (false, Err(e)) => break Err(e),
            }
        };
        if let Some(tls) = tls {
            tls.give(records);
        }
        buf.unconsume(len);
        result.map_err(|error| WriteFailed { error, sent_any })
    }

    /// Where the kernel seals: sends what has to be sent before so many bytes of data. Boxed where
    /// it waits: rare, and must not enlarge every write.
    pub async fn before_write(&self, bytes: usize, wait: Wait) -> io::Result<()> {
        if let Some(tls) = self.kernel()
            && let Err(error) = tls.before_write(self, bytes)
        {
            return Box::pin(settle(tls, self, bytes, wait, error)).await;
        }
        Ok(())
    }

    /// Whether a write is better made by a system call of its own than left to the ring.
    #[inline]
    fn writes_at_once(&self, buf: &Buffer) -> bool {
        // Whoever is alone shares the ring's system call with nobody, and a write that is over when
        // it returns is not waited for.
        let pays = buf.len() >= AT_ONCE_BYTES_MIN || self.is_followed.get() || is_alone();
        pays && !self.is_turn_over()
    }

    /// Writes what the kernel takes of the window without waiting, and takes it off the window.
    /// `AGAIN`: nothing, or it is other sockets' turn. What does not wait is not interrupted by
    /// signals.
    fn write_now(&self, buf: &mut Buffer) -> Result<(), Errno> {
        if self.is_turn_over() {
            return Err(Errno::AGAIN);
        }
        let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, self.is_followed.get());
        let n = rustix::net::send(self.as_fd(), buf.bytes(), flags)?;
        buf.consume(n);
        self.given(n);
        // A large copy takes time that others should see, and what was done until now is told apart
        // from what the peer takes.
        refresh();
        Ok(())
    }

    /// Sends FIN: no more will be written, what is on its way arrives.
    pub fn finish_writing(&self) {
        match self.session.get().map(Box::as_ref) {
            Some(Session::Kernel(_)) => return finish(self),
            Some(Session::User(tls)) => self.tell(tls.close_notify()),
            None => {}
        }
        let _ = rustix::net::shutdown(self.as_fd(), Shutdown::Write);
    }

    /// Makes the coming close a reset, so that the peer cannot take what it has for the whole.
    pub fn reset_on_close(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(self.as_fd(), Some(Duration::ZERO));
    }

    /// Ends the connection by a reset at once, although operations are in flight.
    pub fn reset(&self) {
        self.deadline.reset();
    }

    /// Reads and discards for at most `for_ms` or `bytes_max`, so that a peer that is still
    /// sending gets our last words instead of a reset. Call after [`Stream::finish_writing`].
    pub async fn discard(&self, buf: &mut Buffer, for_ms: u64, bytes_max: u64) {
        let until_ms = now_ms() + for_ms;
        let mut bytes = 0;
        loop {
            buf.reset(0);
            match self.read(buf, Wait { idle_ms: for_ms, until_ms }).await {
                Ok(n) if n > 0 && now_ms() < until_ms => bytes += n as u64,
                _ => return,
            }
            if bytes > bytes_max {
                return;
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `socket` owns the descriptor and lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

/// Seals the next part of the window of `buf` into `records`, whose last have been sent. `false`:
/// there is nothing more.
fn next_records(tls: &Tls, buf: &mut Buffer, records: &mut Buffer) -> io::Result<bool> {
    tls.give(take(records));
    let next = tls.seal(buf)?;
    let is_more = next.is_some();
    *records = next.unwrap_or_default();
    Ok(is_more)
}
