//! One client's connection, whatever protocol it speaks.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    task::{Context, Waker},
};

use super::{door::Door, net::Stream, pool::Own, roster::Activity};

/// One client's connection.
pub struct Client {
    pub stream: Stream,
    pub peer: Option<IpAddr>,
    pub peer_port: u16,
    /// Written beforehand, because every forwarded request names it.
    pub peer_text: Rc<[u8]>,
    /// The listener it came in by.
    pub door: Rc<Door>,
    /// The body of the request being served has been received to its end.
    pub received: Cell<bool>,
    /// Upstream connections that nobody else may use.
    pub own: Own,
    /// For whoever asks what the worker's connections do.
    pub activity: Activity,
    /// Of the task that owns the connection, where that may have nothing to wait for but its end.
    waker: RefCell<Option<Waker>>,
}

impl Client {
    pub fn new(stream: Stream, peer: Option<SocketAddr>, door: Rc<Door>) -> Client {
        let peer_port = peer.map_or(0, |peer| peer.port());
        let peer = peer.map(|peer| peer.ip().to_canonical());
        let peer_text = door.peer_text(peer);
        let received = Cell::new(true);
        let (own, activity, waker) = (Own::default(), Activity::now(), RefCell::default());
        Client { stream, peer, peer_port, peer_text, door, received, own, activity, waker }
    }

    /// The task that `cx` is of is woken by [`Client::wake`].
    pub fn woken_by(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the connection's task, if it asked for that: it is to end.
    pub fn wake(&self) {
        // Outside the borrow: a waker may run anything.
        let waker = self.waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Shows `tell` the value of Strict-Transport-Security (RFC 6797), where the listener has one.
    /// Lent, because workers share it: taking a reference would write to what all of them read.
    #[inline]
    pub fn with_hsts(&self, tell: impl FnOnce(&str)) {
        if self.stream.is_tls()
            && let Some(value) =
                self.door.rule.borrow().tls.as_ref().and_then(|t| t.hsts.as_deref())
        {
            tell(value);
        }
    }
}
