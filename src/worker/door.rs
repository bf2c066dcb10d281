//! A listener as the connections that came in by it see it: one [`Door`] for all of them, shared
//! inside its worker and changed when a reload changes the listener.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use super::generation::Generation;
use crate::{config::snapshot::ListenerRule, telemetry::metrics::shards::ListenerShard};

/// A copy of a rule whose counts of references this worker alone writes.
fn own(rule: &ListenerRule) -> Arc<ListenerRule> {
    let mut rule = rule.clone();
    if let Some(tls) = &mut rule.tls {
        tls.server = Arc::new((*tls.server).clone());
    }
    Arc::new(rule)
}

/// A listener as the connections that came in by it see it.
pub struct Door {
    /// No longer configured: its connections end with their next response.
    pub is_closing: Cell<bool>,
    /// Another process accepts on the socket too, or will: ending must not touch its queue.
    pub is_shared: Cell<bool>,
    pub(super) shard: RefCell<Arc<ListenerShard>>,
    pub rule: RefCell<Arc<ListenerRule>>,
    /// The last client's address, and as text.
    last_peer: RefCell<(Option<IpAddr>, Rc<[u8]>)>,
}

impl Door {
    /// Of a listener of this generation.
    pub fn new(rule: &ListenerRule, generation: &Generation) -> Door {
        Door {
            is_closing: Cell::new(false),
            is_shared: Cell::new(false),
            shard: RefCell::new(generation.listener_shard(rule)),
            rule: RefCell::new(own(rule)),
            last_peer: RefCell::new((None, Rc::default())),
        }
    }

    /// Its rule is this one from now on.
    pub fn adopt(&self, rule: &ListenerRule) {
        self.rule.replace(own(rule));
    }

    /// A client's address as text, empty where it has none. Shared with the client before, when
    /// that came from the same address, as all do behind a load balancer.
    pub fn peer_text(&self, peer: Option<IpAddr>) -> Rc<[u8]> {
        let mut last = self.last_peer.borrow_mut();
        if last.0 != peer {
            let text = peer.map_or_else(String::new, |ip| ip.to_string());
            *last = (peer, Rc::from(text.into_bytes()));
        }
        last.1.clone()
    }
}
