//! The HTTP/2 connections of one worker to one endpoint, and the requests that wait for a place on
//! one of them.
//!
//! A [`Place`] is the right to one stream. Invariants: a connection has no more places than
//! configured and than its endpoint allows; who waits is served in turn; no more connections are
//! being opened than those who wait have use for, and no more take new streams than configured. A
//! connection that takes no more (it is old, its endpoint says so, nobody needs it) ends with its
//! last stream.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use h2::client::SendRequest;

use super::link::{Opener, Piece, open};
use crate::{
    config::snapshot::Upstream,
    worker::{clock::now_ms, pool::Connection},
};

/// Requests that wait for a place at one endpoint.
const WAITING_MAX: usize = 1024;

/// An endpoint that may choose and chose HTTP/1.1 is asked again after this time, when there is
/// reason to connect.
const HTTP1_FOR_MS: u64 = 60_000;

#[derive(Default)]
pub struct Connections {
    /// Those that take new streams.
    links: RefCell<Vec<Rc<Link>>>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
    opening: Cell<u32>,
    /// How to open one more, while anybody waits.
    opener: RefCell<Option<Rc<Opener>>>,
    /// No more are opened before that.
    open_from_ms: Cell<u64>,
    /// The endpoint chose HTTP/1.1, and that is believed until then.
    http1_until_ms: Cell<u64>,
    /// Nobody has a place for them any more, or the endpoint gets no new requests: a connection
    /// ends when those who wait for it are served.
    is_closed: Cell<bool>,
}

/// A connection, as those see it who want a stream of it.
pub struct Link {
    /// Dropped when it takes no more streams: the codec then ends the connection after the last.
    send: RefCell<Option<SendRequest<Piece>>>,
    /// In use, and how many may be.
    streams: Cell<u32>,
    streams_max: Cell<u32>,
    born_ms: u64,
    idle_since_ms: Cell<u64>,
    /// It has carried a response.
    has_served: Cell<bool>,
    /// When something was last received.
    pub heard_ms: Cell<u64>,
}

/// The right to one stream of a connection.
pub struct Place {
    pub link: Rc<Link>,
    /// Opens the stream.
    pub send: Option<SendRequest<Piece>>,
    /// The connection had served others before.
    pub is_reused: bool,
    connections: Rc<Connections>,
}

/// What somebody who waited is given.
pub enum Given {
    Place(Place),
    /// The endpoint speaks HTTP/1.1: the connection that was to speak HTTP/2, if nobody has it yet.
    Http1(Option<Box<Connection>>),
    Failed(io::ErrorKind),
}

/// Somebody who waits.
#[derive(Default)]
struct Waiter {
    given: RefCell<Option<Given>>,
    waker: RefCell<Option<Waker>>,
    /// The connection that refused it.
    avoided: Option<Rc<Link>>,
}

/// A turn in the queue, given up when it is dropped.
pub struct Turn {
    waiter: Rc<Waiter>,
    connections: Rc<Connections>,
}

impl Link {
    pub fn new(send: SendRequest<Piece>) -> Link {
        Link {
            send: RefCell::new(Some(send)),
            streams: Cell::new(0),
            streams_max: Cell::new(0),
            born_ms: now_ms(),
            idle_since_ms: Cell::new(now_ms()),
            has_served: Cell::new(false),
            heard_ms: Cell::new(now_ms()),
        }
    }

    /// Takes no more streams from now on.
    pub fn retire(&self) {
        // Dropped outside the borrow: the codec's task may be woken.
        let _send = self.send.take();
    }

    pub fn is_retired(&self) -> bool {
        self.send.borrow().is_none()
    }

    pub fn is_busy(&self) -> bool {
        self.streams.get() > 0
    }

    /// Looks what the endpoint allows now, and whether it lets new streams be opened at all.
    /// Answers whether there is more room than before.
    pub fn look(&self, streams_max: u32) -> bool {
        let mut send = self.send.borrow_mut();
        let Some(sender) = send.as_mut() else { return false };
        let is_open = sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        if matches!(is_open, Poll::Ready(Err(_))) {
            drop(send);
            self.retire();
            return false;
        }
        let allowed = sender.current_max_send_streams().min(streams_max as usize) as u32;
        self.streams_max.replace(allowed) < allowed
    }

    fn has_room(&self) -> bool {
        !self.is_retired() && self.streams.get() < self.streams_max.get()
    }
}

impl Place {
    fn of(link: &Rc<Link>, connections: &Rc<Connections>) -> Place {
        link.streams.set(link.streams.get() + 1);
        Place {
            send: link.send.borrow().clone(),
            is_reused: link.has_served.get(),
            link: link.clone(),
            connections: connections.clone(),
        }
    }

    /// A response has come on it.
    pub fn has_served(&self) {
        self.link.has_served.set(true);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.send = None;
        let left = self.link.streams.get() - 1;
        self.link.streams.set(left);
        if left == 0 {
            self.link.idle_since_ms.set(now_ms());
        }
        self.connections.hand_out();
    }
}

impl Connections {
    /// Whether the endpoint is known to choose HTTP/1.1.
    pub fn speaks_http1(&self) -> bool {
        now_ms() < self.http1_until_ms.get()
    }

    /// It may choose anew.
    pub fn forget_choice(&self) {
        self.http1_until_ms.set(0);
    }

    /// A place at once, if nobody waits for it already. `avoided`: not on that connection.
    pub fn take(self: &Rc<Self>, rule: &Upstream, avoided: Option<&Rc<Link>>) -> Option<Place> {
        if !self.waiting.borrow().is_empty() {
            return None;
        }
        let now_ms = now_ms();
        self.retire_if(|link| is_over_age(link, rule, now_ms));
        self.find(avoided)
    }

    /// Waits for a place, and has a connection opened by `opener` where that helps. `None`: too
    /// many wait.
    pub fn queue(
        self: &Rc<Self>,
        opener: impl FnOnce() -> Opener,
        avoided: Option<Rc<Link>>,
    ) -> Option<Turn> {
        if self.waiting.borrow().len() >= WAITING_MAX {
            return None;
        }
        let waiter = Rc::new(Waiter { avoided, ..Waiter::default() });
        self.waiting.borrow_mut().push_back(waiter.clone());
        if self.opener.borrow().is_none() {
            *self.opener.borrow_mut() = Some(Rc::new(opener()));
        }
        self.hand_out();
        Some(Turn { waiter, connections: self.clone() })
    }

    fn find(self: &Rc<Self>, avoided: Option<&Rc<Link>>) -> Option<Place> {
        let is_avoided = |link: &Rc<Link>| avoided.is_some_and(|other| Rc::ptr_eq(link, other));
        let links = self.links.borrow();
        let link = links.iter().find(|link| link.has_room() && !is_avoided(link))?.clone();
        drop(links);
        Some(Place::of(&link, self))
    }

    /// Gives places to those who wait, as far as there are any; has connections opened for the
    /// others.
    fn hand_out(self: &Rc<Self>) {
        loop {
            let Some(first) = self.waiting.borrow().front().cloned() else { break };
            let mut place = self.find(first.avoided.as_ref());
            if place.is_none() && self.opening.get() == 0 && !self.may_open() {
                place = self.find(None);
            }
            let Some(place) = place else { break };
            self.waiting.borrow_mut().pop_front();
            first.give(Given::Place(place));
        }
        if self.waiting.borrow().is_empty() {
            self.opener.take();
        }
        if self.is_closed.get() && self.waiting.borrow().is_empty() {
            self.retire_if(|_| true);
        }
        self.open_for_those_who_wait();
    }

    fn may_open(&self) -> bool {
        let Some(opener) = self.opener.borrow().clone() else { return false };
        let count = self.links.borrow().len() as u32 + self.opening.get();
        count < opener.http2.connections_max && now_ms() >= self.open_from_ms.get()
    }

    fn open_for_those_who_wait(self: &Rc<Self>) {
        loop {
            let Some(opener) = self.opener.borrow().clone() else { return };
            let expected = self.opening.get() as usize * opener.http2.streams_max as usize;
            if self.waiting.borrow().len() <= expected || !self.may_open() {
                return;
            }
            self.opening.set(self.opening.get() + 1);
            open(self.clone(), opener);
        }
    }

    /// One that was being opened takes streams.
    pub fn opened(self: &Rc<Self>, link: &Rc<Link>) {
        self.opening.set(self.opening.get() - 1);
        self.open_from_ms.set(0);
        self.http1_until_ms.set(0);
        self.links.borrow_mut().push(link.clone());
        self.hand_out();
    }

    /// One that was being opened speaks HTTP/1.1: so do the others.
    pub fn opened_http1(self: &Rc<Self>, connection: Box<Connection>) {
        self.opening.set(self.opening.get() - 1);
        self.http1_until_ms.set(now_ms() + HTTP1_FOR_MS);
        let mut connection = Some(connection);
        self.tell_all(|| Given::Http1(connection.take()));
    }

    /// One could not be opened. Who can wait for a place on another one waits on.
    pub fn failed(self: &Rc<Self>, kind: io::ErrorKind, cooldown_ms: u64) {
        self.opening.set(self.opening.get() - 1);
        if self.links.borrow().is_empty() {
            self.tell_all(|| Given::Failed(kind));
        } else {
            self.open_from_ms.set(now_ms() + cooldown_ms);
        }
        self.hand_out();
    }

    fn tell_all(&self, mut given: impl FnMut() -> Given) {
        let waiting = self.waiting.take();
        self.opener.take();
        waiting.iter().for_each(|waiter| waiter.give(given()));
    }

    /// `link` has more room, or takes no more streams.
    pub fn changed(self: &Rc<Self>) {
        self.retire_if(|_| false);
        if self.links.borrow().is_empty() {
            // Who waits learns at once whether another one can be opened.
            self.open_from_ms.set(0);
        }
        self.hand_out();
    }

    /// Retires those that `is_over` is true of, and forgets those that are retired.
    fn retire_if(&self, is_over: impl Fn(&Link) -> bool) {
        let mut retired = Vec::new();
        self.links.borrow_mut().retain(|link| {
            let stays = !link.is_retired() && !is_over(link);
            if !stays {
                retired.push(link.clone());
            }
            stays
        });
        retired.iter().for_each(|link| link.retire());
    }

    /// There is one that takes streams, when it has room.
    pub fn has_any(&self) -> bool {
        !self.links.borrow().is_empty()
    }

    /// Connections without streams.
    pub fn idle(&self) -> usize {
        self.links.borrow().iter().filter(|link| !link.is_busy()).count()
    }

    /// Ends what idles, and the others after their streams.
    pub fn close(&self) {
        self.is_closed.set(true);
        self.retire_if(|_| true);
    }

    pub fn open(&self) {
        self.is_closed.set(false);
    }

    /// Ends what idles for too long, or beyond the number that is kept.
    pub fn sweep(&self, rule: &Upstream, now_ms: u64) {
        self.retire_if(|link| {
            let idle_ms = now_ms.saturating_sub(link.idle_since_ms.get());
            is_over_age(link, rule, now_ms)
                || !link.is_busy() && idle_ms > rule.pool_idle_timeout_ms
        });
        let idle_max = rule.pool_idle_max as usize;
        let surplus = Cell::new(self.idle().saturating_sub(idle_max));
        self.retire_if(|link| {
            let is_one = !link.is_busy() && surplus.get() > 0;
            surplus.set(surplus.get() - usize::from(is_one));
            is_one
        });
    }
}

fn is_over_age(link: &Link, rule: &Upstream, now_ms: u64) -> bool {
    now_ms.saturating_sub(link.born_ms) > rule.pool_lifetime_ms
}

impl Waiter {
    fn give(&self, given: Given) {
        self.given.replace(Some(given));
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Turn {
    /// What is given, when it is this one's turn.
    pub async fn given(&self) -> Given {
        std::future::poll_fn(|cx| match self.waiter.given.take() {
            Some(given) => Poll::Ready(given),
            None => {
                self.waiter.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let is_it = |waiter: &Rc<Waiter>| Rc::ptr_eq(waiter, &self.waiter);
        let mut waiting = self.connections.waiting.borrow_mut();
        if let Some(at) = waiting.iter().position(is_it) {
            waiting.remove(at);
        }
        drop(waiting);
        // What was given and not taken goes to the next.
        drop(self.waiter.given.take());
    }
}
