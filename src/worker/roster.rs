//! Every client connection of one worker, so that an operator can ask what they do.
//!
//! What a connection costs here is its slot (16 bytes) and its [`Activity`]; a request costs a few
//! stores into it. Nothing is written down until somebody asks.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
};

use slab::Slab;

use super::{
    client::Client,
    clock::{NEVER_MS, now_ms},
    door::Door,
};
use crate::{config::Snapshot, policy::route::RouteId};

/// What a connection does, as its task notes it.
pub struct Activity {
    born_ms: u64,
    /// Requests whose head was read.
    pub requests: Cell<u32>,
    /// When the request being served began; [`NEVER_MS`] when none is.
    pub since_ms: Cell<u64>,
    /// The generation it is served by, and its route.
    pub route: Cell<Option<(u64, RouteId)>>,
    /// It became a tunnel.
    pub is_tunnel: Cell<bool>,
}

impl Activity {
    /// Of a connection that begins.
    pub fn now() -> Activity {
        Activity {
            born_ms: now_ms(),
            requests: Cell::new(0),
            since_ms: Cell::new(NEVER_MS),
            route: Cell::new(None),
            is_tunnel: Cell::new(false),
        }
    }
}

/// The connections of one worker.
#[derive(Default)]
pub struct Roster {
    clients: RefCell<Slab<Rc<Client>>>,
}

/// One connection's place in the roster. Dropping it frees the place.
pub struct Entry {
    roster: Rc<Roster>,
    slot: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Dropped outside the borrow: a socket closes with it.
        let _client = self.roster.clients.borrow_mut().try_remove(self.slot);
    }
}

/// What a connection was doing when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for its next request.
    Idle,
    Request,
    Tunnel,
}

/// One connection, as told to whoever asks.
#[derive(Clone, Debug)]
pub struct ConnectionLine {
    /// `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    pub listener: String,
    pub age_ms: u64,
    pub requests: u32,
    pub stage: Stage,
    /// How long it has been serving its request.
    pub request_ms: Option<u64>,
    /// The route's name; `None` between requests, and for a request that began before a reload.
    pub route: Option<String>,
}

impl Roster {
    pub fn enter(self: &Rc<Self>, client: Rc<Client>) -> Entry {
        let slot = self.clients.borrow_mut().insert(client);
        Entry { roster: self.clone(), slot }
    }

    /// Wakes those that came in by `door` and have waited for their next request since `since_ms`
    /// or longer, so that they close.
    pub fn close_idle(&self, door: &Rc<Door>, since_ms: u64) {
        let clients = self.clients.borrow();
        let of_door = clients.iter().filter(|(_, client)| Rc::ptr_eq(&client.door, door));
        of_door.for_each(|(_, client)| {
            client.stream.deadline().close_idle(since_ms);
            client.wake();
        });
    }

    /// Wakes those that have nothing to wait for but their end.
    pub fn wake_all(&self) {
        self.clients.borrow().iter().for_each(|(_, client)| client.wake());
    }

    /// At most `max` connections, in no particular order.
    pub fn lines(&self, snapshot: &Snapshot, max: usize) -> Vec<ConnectionLine> {
        let clients = self.clients.borrow();
        clients.iter().take(max).map(|(_, client)| line(client, snapshot)).collect()
    }
}

fn line(client: &Client, snapshot: &Snapshot) -> ConnectionLine {
    let activity = &client.activity;
    let since_ms = activity.since_ms.get();
    let route = activity.route.get().filter(|(generation, _)| *generation == snapshot.generation);
    ConnectionLine {
        peer: client.peer.map(|ip| SocketAddr::new(ip, client.peer_port)),
        listener: client.door.rule.borrow().name.clone(),
        age_ms: now_ms().saturating_sub(activity.born_ms),
        requests: activity.requests.get(),
        stage: match since_ms {
            _ if activity.is_tunnel.get() => Stage::Tunnel,
            NEVER_MS => Stage::Idle,
            _ => Stage::Request,
        },
        request_ms: (since_ms != NEVER_MS).then(|| now_ms().saturating_sub(since_ms)),
        route: route.map(|(_, route)| snapshot.route(route).name.clone()),
    }
}
