//! Idle connections to one endpoint, kept by one worker.
//!
//! Last used, first taken: a few connections stay warm and the rest age out. Bounds: `idle_max`
//! connections, each at most `idle_timeout_ms` idle and `lifetime_ms` old.

//!
//! An idle connection has its next read in flight already: the read that will bring the next
//! response. If it completes while the connection is idle, the endpoint closed it or sent bytes
//! nobody asked for, which must never be taken for a response. Looking at that costs no system
//! call, and the read is one that would be made anyway.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Wake, Waker},
};

use super::{
    buffers::{Buffer, Buffers, Wide},
    clock::{NEVER_MS, now_ms},
    forward::Connections,
    net::{Stream, Wait},
};
use crate::config::snapshot::Upstream;

/// A read in flight. Owned by its connection, so that it is only dropped together with it.
pub type ReadAhead = Pin<Box<dyn Future<Output = (io::Result<usize>, Buffer)>>>;

/// A connection to an endpoint. Boxed, because each request moves it out of its pool and back.
pub struct Connection {
    pub stream: Rc<Stream>,
    /// When it was connected.
    pub born_ms: u64,
    /// The read that brings the next response, if one is in flight. A connection that has one
    /// served a request before: it may turn out to have died while idle.
    pub read_ahead: Cell<Option<ReadAhead>>,
    pub reused: bool,
    /// Its last response was so large that the next one gets a larger buffer.
    pub is_wide: Cell<bool>,
    stirred: Arc<Stirred>,
    /// Sets `stirred`, and wakes nobody.
    waker: Waker,
    /// Held while a larger buffer waits for the next response.
    wide: Cell<Option<Wide>>,
}

/// Whether a read ahead may have completed since it was last looked at. Atomic because wakers must
/// be; one thread has it.
#[derive(Default)]
struct Stirred(AtomicBool);

impl Wake for Stirred {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

struct Idle {
    connection: Box<Connection>,
    since_ms: u64,
}

impl Connection {
    pub fn new(stream: Stream) -> Box<Connection> {
        let stirred: Arc<Stirred> = Arc::default();
        Box::new(Connection {
            stream: Rc::new(stream),
            waker: Waker::from(stirred.clone()),
            stirred,
            born_ms: now_ms(),
            read_ahead: Cell::default(),
            reused: false,
            is_wide: Cell::new(false),
            wide: Cell::default(),
        })
    }

    /// Starts the next read. Answers whether it is still in flight.
    fn start_read(&self, buffers: &Buffers) -> bool {
        let mut buf = match self.is_wide.get().then(|| buffers.wide_response()).flatten() {
            None => buffers.response(),
            Some((buf, wide)) => {
                self.wide.set(Some(wide));
                buf
            }
        };
        let stream = self.stream.clone();
        let wait = Wait { idle_ms: NEVER_MS, until_ms: NEVER_MS };
        let read: ReadAhead = Box::pin(async move { (stream.read(&mut buf, wait).await, buf) });
        self.is_pending(read)
    }

    /// Nothing has come: the read ahead is still in flight.
    #[inline]
    fn is_quiet(&self) -> bool {
        // Looking at the flag costs a tenth of what polling does.
        !self.stirred.0.load(Relaxed)
            || self.read_ahead.take().is_some_and(|read| self.is_pending(read))
    }

    /// Polls the read ahead, and keeps it if it is still in flight.
    fn is_pending(&self, mut read: ReadAhead) -> bool {
        self.stirred.0.store(false, Relaxed);
        // Nobody needs to be woken: whoever takes the connection looks again.
        let quiet = read.as_mut().poll(&mut Context::from_waker(&self.waker)).is_pending();
        if quiet {
            self.read_ahead.set(Some(read));
        }
        quiet
    }
}

#[derive(Default)]
pub struct Pool {
    /// Connections that carry many requests at once, where HTTP/2 is spoken.
    pub shared: Rc<Connections>,
    idle: RefCell<VecDeque<Idle>>,
    /// No configuration has a place for it any more, or its endpoint gets no new requests.
    is_closed: Cell<bool>,
}

impl Pool {
    /// The connection used last, if one is still good.
    pub fn take(&self, rule: &Upstream) -> Option<Box<Connection>> {
        let now_ms = now_ms();
        loop {
            let idle = self.idle.borrow_mut().pop_back()?;
            if idle.is_usable(rule, now_ms) {
                let mut connection = idle.connection;
                connection.reused = true;
                connection.wide.take();
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose last response ended cleanly; closes the oldest when full. The next
    /// response will be read into a buffer of `buffers`.
    #[inline]
    pub fn give(&self, connection: Box<Connection>, rule: &Upstream, buffers: &Buffers) {
        let now_ms = now_ms();
        if !self.keeps(&connection, rule, buffers) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= rule.pool_idle_max as usize {
            idle.pop_front();
        }
        idle.push_back(Idle { connection, since_ms: now_ms });
    }

    /// Whether a connection is worth keeping. If so, its next read is in flight.
    #[inline]
    fn keeps(&self, connection: &Connection, rule: &Upstream, buffers: &Buffers) -> bool {
        rule.pool_idle_max > 0
            && !self.is_closed.get()
            && !over_age(rule, connection, now_ms())
            && connection.start_read(buffers)
    }

    /// Connections it keeps.
    pub fn idle(&self) -> usize {
        self.idle.borrow().len() + self.shared.idle()
    }

    /// Closes what idles, and from now on what is given back.
    pub fn close(&self) {
        self.is_closed.set(true);
        self.idle.borrow_mut().clear();
        self.shared.close();
    }

    /// Keeps again what is given back.
    pub fn open(&self) {
        self.is_closed.set(false);
        self.shared.open();
    }

    /// Closes what has idled too long or was closed by the endpoint. Called every second or so.
    pub fn sweep(&self, rule: &Upstream) {
        let now_ms = now_ms();
        self.idle.borrow_mut().retain(|idle| idle.is_usable(rule, now_ms));
        self.shared.sweep(rule, now_ms);
    }
}

/// Idle connections that were made for one client and are kept for its next request, beside the
/// pools of their endpoints. They end with the client's connection, if not sooner.
#[derive(Default)]
pub struct Own(OnceCell<Box<RefCell<Vec<Owned>>>>);

/// An idle connection with its endpoint's pool.
type Owned = (Rc<Pool>, Idle);

/// Connections kept for one client; each holds a buffer.
const OWN_MAX: usize = 4;

impl Own {
    /// One of `pool`'s endpoint that is still good.
    pub fn take(&self, pool: &Rc<Pool>, rule: &Upstream) -> Option<Box<Connection>> {
        let mut kept = self.0.get()?.borrow_mut();
        let now_ms = now_ms();
        while let Some(at) = kept.iter().rposition(|(of, _)| Rc::ptr_eq(of, pool)) {
            let (_, idle) = kept.swap_remove(at);
            if !pool.is_closed.get() && idle.is_usable(rule, now_ms) {
                let mut connection = idle.connection;
                connection.reused = true;
                connection.wide.take();
                return Some(connection);
            }
        }
        None
    }

    /// As [`Pool::give`], for this client only.
    pub fn give(
        &self,
        pool: &Rc<Pool>,
        connection: Box<Connection>,
        rule: &Upstream,
        buffers: &Buffers,
    ) {
        if !pool.keeps(&connection, rule, buffers) {
            return;
        }
        let mut kept = self.0.get_or_init(Box::default).borrow_mut();
        if kept.len() >= OWN_MAX {
            kept.remove(0);
        }
        kept.push((pool.clone(), Idle { connection, since_ms: now_ms() }));
    }
}

impl Idle {
    fn is_usable(&self, rule: &Upstream, now_ms: u64) -> bool {
        !over_age(rule, &self.connection, now_ms)
            && now_ms.saturating_sub(self.since_ms) <= rule.pool_idle_timeout_ms
            && self.connection.is_quiet()
    }
}

fn over_age(rule: &Upstream, connection: &Connection, now_ms: u64) -> bool {
    now_ms.saturating_sub(connection.born_ms) > rule.pool_lifetime_ms
}
