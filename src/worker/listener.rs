//! Listening sockets of one worker: accepting, and ending without losing anybody.
//!
//! Every worker has its own socket on each address (SO_REUSEPORT), so the kernel spreads
//! connections and no worker wakes for another's. Closing such a socket resets what still waits in
//! its queue. Therefore a drain first stops new handshakes (a socket filter drops SYNs, which the
//! peer repeats elsewhere or after we are gone), lets the ones under way finish, accepts until the
//! queue is empty, and closes only then.

#![expect(unsafe_code, reason = "borrowing descriptors of live sockets, asking for TCP_INFO")]

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixListener as StdUnixListener,
    },
    rc::Rc,
    time::Duration,
};

use monoio::{
    io::{CancelHandle, Canceller},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};
use rustix::{
    io::FdFlags,
    net::{Shutdown, SocketFlags},
};

use super::{
    Worker,
    arrival::{Open, admit},
    clock,
    door::Door,
    generation::Generation,
    net::{self, Stream},
    siblings::{self, Given},
};
use crate::config::snapshot::{Bind, ListenerBalance, ListenerRule};

/// A bound, listening socket on its way to its worker.
pub struct Bound {
    /// The listener it belongs to, as configured.
    pub rule: ListenerRule,
    /// As bound: the port is the real one even if 0 was asked for.
    pub at: Bind,
    pub socket: OwnedFd,
    /// Whoever started us holds it too: its queue outlives us and is left alone.
    pub is_lasting: bool,
}

/// A listener at work in its worker.
pub struct Listening {
    door: Rc<Door>,
    /// Open until `stop` is used, which consumes this value.
    fd: RawFd,
    stop: Rc<Stop>,
    begun_ms: u64,
}

/// The way to the accepts in flight.
#[derive(Default)]
struct Stop {
    canceller: RefCell<Canceller>,
    is_stopped: Cell<bool>,
}

impl Stop {
    fn handle(&self) -> CancelHandle {
        self.canceller.borrow().handle()
    }

    /// Makes the accepts in flight answer: with a connection, or that they were cancelled.
    fn cancel(&self) {
        let used = self.canceller.take().cancel();
        self.canceller.replace(used);
    }
}

/// Accepts in flight on each listener under io_uring. What waits is accepted by so many at a time,
/// while everything else that is ready has its turn in between: with one, whoever comes behind a
/// hundred others waits for a hundred such turns. The kernel wakes one of them for a connection. On
/// epoll one takes all there are by itself.
const ACCEPTS_AHEAD: usize = 8;
/// How long accepting rests when there are no descriptors left.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long a stop may go unnoticed on a non-blocking socket under io_uring.
const READABLE_LOOK: Duration = Duration::from_millis(50);
/// A listener's queue is looked into on every tick for this long after it has begun.
const NUDGE_OFTEN_MS: u64 = 3000;
/// How often, and how many times, the queue is emptied after SYNs are no longer let in.
const LAST_ACCEPTS: u32 = 5;
const LAST_ACCEPT_EVERY_MS: u64 = 50;
/// A listener that was told to stop has closed after this time.
pub const FINISH_MS_MAX: u64 = (LAST_ACCEPTS as u64 + 1) * LAST_ACCEPT_EVERY_MS;
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A listening socket inside its worker.
struct Listener {
    door: Rc<Door>,
    socket: Socket,
    fd: RawFd,
}

impl Listening {
    /// Begins to accept. Must be called inside the worker's runtime.
    pub fn begin(
        worker: &Rc<Worker>,
        generation: &Generation,
        bound: Bound,
    ) -> io::Result<Listening> {
        let door = Rc::new(Door::new(&bound.rule, generation));
        door.is_shared.set(bound.is_lasting);
        let stop = Rc::new(Stop::default());
        let listener = Listener::new(door.clone(), bound, worker.is_epoll)?;
        let fd = listener.fd;
        monoio::spawn(listener.run(worker.clone(), stop.clone()));
        Ok(Listening { door, fd, stop, begun_ms: clock::now_ms() })
    }

    /// As its connections see it.
    pub fn door(&self) -> Rc<Door> {
        self.door.clone()
    }

    /// Whether this is the listener that `rule` means, whatever else changed about it.
    pub fn is(&self, rule: &ListenerRule) -> bool {
        self.door.rule.borrow().is_same_socket(rule)
    }

    /// Goes on by another rule for the same socket. What is set on a socket holds for connections
    /// accepted from now on.
    pub fn adopt(&self, rule: &ListenerRule, generation: &Generation) {
        let unsent_bytes = generation.limits.unsent_bytes;
        self.door.shard.replace(generation.listener_shard(rule));
        self.door.adopt(rule);
        if let Err(e) = set_up(self.as_fd(), rule, unsent_bytes) {
            tracing::warn!(listener = rule.name, error = %e, "cannot change a listening socket");
        }
    }

    /// Notes how many connections wait to be accepted. Called every second or so.
    pub fn measure(&self) {
        if let Bind::Tcp(_) = self.door.rule.borrow().bind {
            // Of a listening socket it is the length of the queue (tcp(7), inet_diag).
            let waiting = tcp_info(self.as_fd()).map_or(0, |info| info.tcpi_unacked);
            self.door.shard.borrow().accept_queue.set(u64::from(waiting));
        }
    }

    /// Accepts no more. Connections live on.
    pub fn stop(self) {
        self.stop.is_stopped.set(true);
        self.stop.cancel();
    }

    /// Looks into the queue, as accepting again does. The kernel wakes one of all that wait on a
    /// socket; when that one gives up at this moment (another process, or a lost worker), the
    /// connection waits although others would take it. Rarely needed, so seldom done, but often
    /// while a process that hands over may be leaving.
    pub fn nudge(&self, is_due: bool) {
        if is_due || clock::now_ms() - self.begun_ms < NUDGE_OFTEN_MS {
            self.stop.cancel();
        }
    }

    /// Accepts no more, as [`Listening::stop`]. When `handed_over` names this listener, another
    /// process has the socket and serves what waits in its queue.
    pub fn hand_over(self, handed_over: &[String]) {
        let is_handed_over = handed_over.contains(&self.door.rule.borrow().name);
        match is_handed_over {
            true => self.leave(),
            false => self.stop(),
        }
    }

    /// Accepts no more, and leaves what waits in the queue to whoever else has the socket.
    pub fn leave(self) {
        self.door.is_shared.set(true);
        self.stop();
    }

    /// Accepts no more, and its connections end with their next response. Answers where they came
    /// in.
    pub fn remove(self) -> Rc<Door> {
        let door = self.door.clone();
        door.is_closing.set(true);
        self.stop();
        door
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the task that accepts owns the socket and keeps it until it is told to stop,
        // which consumes this value; the only other end of that task is the end of the worker.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Listener {
    fn new(door: Rc<Door>, bound: Bound, is_epoll: bool) -> io::Result<Listener> {
        let fd = bound.socket.as_raw_fd();
        // io_uring waits by itself, on a blocking socket as it was made. The mode belongs to the
        // socket, and another process may have it too: it is never set back, see `readable`.
        if is_epoll {
            rustix::io::ioctl_fionbio(&bound.socket, true)?;
        }
        let socket = match bound.at {
            Bind::Tcp(_) => Socket::Tcp(TcpListener::from_std(bound.socket.into())?),
            Bind::Unix { .. } => {
                Socket::Unix(UnixListener::from_std(StdUnixListener::from(bound.socket))?)
            }
        };
        Ok(Listener { door, socket, fd })
    }

    /// Accepts until it is stopped, then empties the queue and closes.
    async fn run(self, worker: Rc<Worker>, stop: Rc<Stop>) {
        let listener = Rc::new(self);
        let ahead = if worker.is_epoll { 1 } else { ACCEPTS_AHEAD };
        let others: Vec<_> = (1..ahead)
            .map(|_| {
                let (listener, worker, stop) = (listener.clone(), worker.clone(), stop.clone());
                monoio::spawn(async move { listener.accept_all(&worker, &stop, false).await })
            })
            .collect();
        listener.accept_all(&worker, &stop, true).await;
        for other in others {
            other.await;
        }
        listener.finish(&worker).await;
    }

    /// One of those that accept; the first says what is wrong, and goes on where nobody can wait.
    async fn accept_all(&self, worker: &Rc<Worker>, stop: &Stop, is_first: bool) {
        while !stop.is_stopped.get() && !worker.draining.get() {
            match self.accept(worker, stop.handle()).await {
                Ok((stream, peer)) => self.welcome(worker, stream, peer),
                Err(e) if net::is_cancelled(&e) || is_transient(&e) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match is_first {
                    true => self.readable().await,
                    false => return,
                },
                Err(e) => {
                    if is_first {
                        tracing::error!(error = %e, "cannot accept, resting");
                    }
                    monoio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    async fn accept(
        &self,
        worker: &Worker,
        stop: CancelHandle,
    ) -> io::Result<(Stream, Option<SocketAddr>)> {
        // Never dropped while it runs: an accept that completed would leak its descriptor.
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.cancelable_accept(stop).await?;
                let stream = Stream::tcp(stream, &worker.deadlines);
                close_on_exec(worker, stream.as_fd());
                Ok((stream, Some(peer)))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.cancelable_accept(stop).await?;
                let stream = Stream::unix(stream, &worker.deadlines);
                close_on_exec(worker, stream.as_fd());
                Ok((stream, None))
            }
        }
    }

    /// Takes a connection in, or gives it to a worker that has fewer.
    fn welcome(&self, worker: &Rc<Worker>, stream: Stream, peer: Option<SocketAddr>) {
        if self.door.rule.borrow().balance == ListenerBalance::Even
            && !worker.draining.get()
            && let Some(sibling) = worker.siblings.lighter()
        {
            let (socket, rule) = (stream.into_socket(), self.door.rule.borrow().clone());
            return siblings::give(worker, sibling, Given { socket, peer, rule });
        }
        admit(Open::count(worker), stream, peer, &self.door);
    }

    /// Waits a while for a connection on a socket that a process on epoll has made non-blocking,
    /// where io_uring does not wait in the accept itself.
    async fn readable(&self) {
        // Nothing is lost when this wait is dropped: it only looks.
        let _ = monoio::time::timeout(READABLE_LOOK, async {
            match &self.socket {
                Socket::Tcp(socket) => socket.readable(false).await,
                Socket::Unix(socket) => socket.readable(false).await,
            }
        })
        .await;
    }

    /// Accepts what has already connected, and what is just connecting.
    async fn finish(&self, worker: &Rc<Worker>) {
        if self.door.is_shared.get() {
            return;
        }
        if let Socket::Tcp(_) = self.socket
            && let Err(e) = refuse_handshakes(self.as_fd())
        {
            tracing::warn!(error = %e, "cannot stop new handshakes before closing a listener");
        }
        let _ = rustix::io::ioctl_fionbio(self.as_fd(), true);
        for round in 0..LAST_ACCEPTS {
            if round > 0 {
                monoio::time::sleep(Duration::from_millis(LAST_ACCEPT_EVERY_MS)).await;
            }
            while let Some((stream, peer)) = self.accept_now(worker) {
                admit(Open::count(worker), stream, peer, &self.door);
            }
        }
        // Control has the socket too: this ends it for everybody.
        if let Socket::Tcp(_) = self.socket {
            let _ = rustix::net::shutdown(self.as_fd(), Shutdown::Both);
        }
    }

    fn accept_now(&self, worker: &Worker) -> Option<(Stream, Option<SocketAddr>)> {
        let flags = match worker.is_epoll {
            true => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            false => SocketFlags::CLOEXEC,
        };
        let socket = rustix::net::accept_with(self.as_fd(), flags).ok()?;
        let peer = match &self.socket {
            Socket::Tcp(_) => Some(socket2::SockRef::from(&socket).peer_addr().ok()?.as_socket()?),
            Socket::Unix(_) => None,
        };
        let stream = adopt_socket(worker, socket, &self.door.rule.borrow().bind).ok()?;
        Some((stream, peer))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `socket` owns the descriptor and lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

/// What the kernel tells about a TCP socket.
fn tcp_info(socket: BorrowedFd<'_>) -> Option<libc::tcp_info> {
    // SAFETY: a plain structure of numbers, of which all zeros is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(info)
}

/// The peer gave up, or a signal came: the next accept may well succeed.
fn is_transient(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

/// The runtime's accept does not ask for it on io_uring. A program started meanwhile (an upgrade)
/// must not hold clients' connections open.
fn close_on_exec(worker: &Worker, socket: BorrowedFd<'_>) {
    if !worker.is_epoll {
        let _ = rustix::io::fcntl_setfd(socket, FdFlags::CLOEXEC);
    }
}

/// Drops incoming SYNs on a listening socket; handshakes under way still complete.
fn refuse_handshakes(socket: BorrowedFd<'_>) -> io::Result<()> {
    use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
    const TCP_FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_ACK_RST: u32 = 0x16;
    let op = |code: u32, jt, jf, k| socket2::SockFilter::new(code as u16, jt, jf, k);
    // A filter on a TCP socket sees each segment from its TCP header on.
    let program = [
        op(BPF_LD | BPF_B | BPF_ABS, 0, 0, TCP_FLAGS_OFFSET),
        op(BPF_ALU | BPF_AND | BPF_K, 0, 0, SYN_ACK_RST),
        op(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYN),
        op(BPF_RET | BPF_K, 0, 0, 0),
        op(BPF_RET | BPF_K, 0, 0, u32::MAX),
    ];
    socket2::SockRef::from(&socket).attach_filter(&program)
}

/// A connected socket, blocking or not as the driver wants it, becomes this worker's.
pub fn adopt_socket(worker: &Worker, socket: OwnedFd, at: &Bind) -> io::Result<Stream> {
    let deadlines = &worker.deadlines;
    match at {
        Bind::Tcp(_) => Ok(Stream::tcp(TcpStream::from_std(socket.into())?, deadlines)),
        Bind::Unix { .. } => Ok(Stream::unix(UnixStream::from_std(socket.into())?, deadlines)),
    }
}

/// Binds one socket per worker for `rule`. Port 0 is chosen once and shared by all. The kernel
/// keeps no more than `unsent_bytes` that wait to be sent on an accepted connection.
pub fn bind(rule: &ListenerRule, unsent_bytes: u32, workers: usize) -> io::Result<Vec<Bound>> {
    let backlog = backlog_of(rule);
    let mut bound = Vec::with_capacity(workers);
    let mut bind = rule.bind.clone();
    for _ in 0..workers {
        let socket = match &mut bind {
            Bind::Tcp(address) => {
                let socket = bind_tcp(*address, backlog, unsent_bytes)?;
                if let Some(real) = socket.local_addr()?.as_socket() {
                    *address = real;
                }
                socket
            }
            // Unix sockets have no SO_REUSEPORT: the workers share one queue.
            Bind::Unix { path, mode } => match bound.first() {
                Some(Bound { socket, .. }) => socket2::Socket::from(socket.try_clone()?),
                None => bind_unix(path, *mode, backlog)?,
            },
        };
        let (rule, at) = (rule.clone(), bind.clone());
        bound.push(Bound { rule, at, socket: socket.into(), is_lasting: false });
    }
    Ok(bound)
}

/// Sets a listening socket, whoever made it, as `rule` wants it.
pub fn set_up(socket: BorrowedFd<'_>, rule: &ListenerRule, unsent_bytes: u32) -> io::Result<()> {
    let socket = socket2::SockRef::from(&socket);
    socket.listen(backlog_of(rule))?;
    match rule.bind {
        Bind::Tcp(_) => {
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_notsent_lowat(unsent_bytes)
        }
        Bind::Unix { .. } => Ok(()),
    }
}

fn backlog_of(rule: &ListenerRule) -> i32 {
    i32::try_from(rule.backlog).unwrap_or(i32::MAX)
}

fn bind_tcp(
    address: std::net::SocketAddr,
    backlog: i32,
    unsent_bytes: u32,
) -> io::Result<socket2::Socket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // [::] means IPv6 only: 0.0.0.0 is a listener of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Inherited by accepted sockets.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(unsent_bytes)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

fn bind_unix(path: &std::path::Path, mode: u32, backlog: i32) -> io::Result<socket2::Socket> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    // A socket nobody answers on was left behind by an earlier process.
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    Ok(socket)
}
