//! Control's copies of the listening sockets.
//!
//! They are what an upgrade hands over, and what a worker gets that is started again: while control
//! holds a socket, the connections waiting in its queue are not reset, whoever ends.
//!
//! A socket is bound here, or it comes with the process: from a predecessor (an upgrade) or from
//! the service manager (socket activation). Those of the service manager are *lasting*: it holds
//! them too, so their queue is never emptied or closed, their path never removed, and a listener
//! that was removed may come back to them.

use std::{
    fs::Permissions,
    io,
    net::{SocketAddr, SocketAddrV6},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
};

use crate::{
    config::{
        Snapshot,
        snapshot::{Bind, ListenerRule},
    },
    worker::listener::{self, Bound},
};

/// A listening socket that this process was started with.
#[derive(Debug)]
pub struct Offered {
    /// Its listener's name where it comes from: `FileDescriptorName=`, or the predecessor's name.
    pub name: String,
    pub at: Bind,
    /// The predecessor's worker that had it; `None` for one that all workers share.
    pub worker: Option<usize>,
    pub is_lasting: bool,
    pub socket: OwnedFd,
}

/// A listening socket in use.
#[derive(Debug)]
pub struct Held {
    pub rule: ListenerRule,
    pub at: Bind,
    /// The worker that accepts on it; `None` when all do.
    pub worker: Option<usize>,
    pub is_lasting: bool,
    pub socket: OwnedFd,
}

/// All of them.
#[derive(Debug)]
pub struct Sockets {
    workers: usize,
    held: Vec<Held>,
    offered: Vec<Offered>,
}

/// Sockets that were opened and are not in use yet. Dropping it closes them.
#[derive(Debug, Default)]
pub struct Opened {
    held: Vec<Held>,
    /// Names, as offered, of listeners whose sockets came with the process and are wanted.
    pub taken: Vec<String>,
}

impl Opened {
    /// The listeners with the address of each.
    pub fn listeners(&self) -> impl Iterator<Item = (&ListenerRule, &Bind)> {
        let first = |at: usize| self.held[..at].iter().all(|other| other.at != self.held[at].at);
        let indices = (0..self.held.len()).filter(move |at| first(*at));
        indices.map(|at| (&self.held[at].rule, &self.held[at].at))
    }
}

impl Sockets {
    pub fn new(workers: usize, offered: Vec<Offered>) -> Sockets {
        Sockets { workers, held: Vec::new(), offered }
    }

    /// Opens a socket per worker for each rule, or takes what was offered. All or none.
    pub fn open<'r>(
        &mut self,
        rules: impl Iterator<Item = &'r ListenerRule>,
        unsent_bytes: u32,
    ) -> Result<Opened, String> {
        let mut opened = Opened::default();
        for rule in rules {
            self.open_one(rule, unsent_bytes, &mut opened)
                .map_err(|e| format!("cannot listen on {} ({}): {e}", rule.name, hint(&e)))?;
        }
        Ok(opened)
    }

    fn open_one(
        &mut self,
        rule: &ListenerRule,
        unsent_bytes: u32,
        opened: &mut Opened,
    ) -> io::Result<()> {
        let taken = self.take(rule)?;
        let mut rule_as_bound = rule.clone();
        let mut missing = self.workers;
        for (n, offered) in taken.into_iter().enumerate() {
            listener::set_up(offered.socket.as_fd(), rule, unsent_bytes)?;
            if let (Bind::Unix { path, .. }, Bind::Unix { mode, .. }) = (&offered.at, &rule.bind)
                && !offered.is_lasting
            {
                std::fs::set_permissions(path, Permissions::from_mode(*mode))?;
            }
            let is_shared = is_shared(&offered)?;
            missing = if is_shared { 0 } else { missing.saturating_sub(1) };
            rule_as_bound.bind = offered.at.clone();
            if opened.taken.last() != Some(&offered.name) {
                opened.taken.push(offered.name);
            }
            opened.held.push(Held {
                rule: rule.clone(),
                at: offered.at,
                worker: (!is_shared).then_some(n % self.workers),
                is_lasting: offered.is_lasting,
                socket: offered.socket,
            });
        }
        if missing == 0 {
            return Ok(());
        }
        let begun = self.workers - missing;
        for (n, bound) in
            listener::bind(&rule_as_bound, unsent_bytes, missing)?.into_iter().enumerate()
        {
            let is_unix = matches!(bound.at, Bind::Unix { .. });
            if is_unix && n > 0 {
                continue;
            }
            opened.held.push(Held {
                rule: rule.clone(),
                at: bound.at,
                worker: (!is_unix).then_some(begun + n),
                is_lasting: false,
                socket: bound.socket,
            });
        }
        Ok(())
    }

    /// The offered sockets that `rule` wants, in the order of the workers that had them. Lasting
    /// ones stay on offer.
    fn take(&mut self, rule: &ListenerRule) -> io::Result<Vec<Offered>> {
        let mut taken = Vec::new();
        for offered in std::mem::take(&mut self.offered) {
            let wanted = offered.is_for(rule);
            if wanted && offered.is_lasting {
                taken.push(Offered {
                    name: offered.name.clone(),
                    at: offered.at.clone(),
                    worker: offered.worker,
                    is_lasting: true,
                    socket: offered.socket.try_clone()?,
                });
            }
            if !wanted || offered.is_lasting {
                self.offered.push(offered);
            } else {
                taken.push(offered);
            }
        }
        taken.sort_by_key(|offered| offered.worker);
        Ok(taken)
    }

    /// Closes what came with the process and no listener wants, and says so. Whoever it came from
    /// still has it: nothing in its queue is reset.
    pub fn decline_rest(&mut self, opened: &Opened) {
        for offered in &self.offered {
            if offered.is_lasting && opened.held.iter().all(|held| held.at != offered.at) {
                tracing::warn!(
                    socket = offered.name,
                    "no listener wants the socket {} of the service manager: give a listener that \
                     address, or FileDescriptorName= the name of a listener",
                    text(&offered.at)
                );
            }
        }
        self.offered.retain(|offered| offered.is_lasting);
    }

    /// Copies of opened sockets, by worker.
    pub fn copies(&self, opened: &Opened) -> io::Result<Vec<Vec<Bound>>> {
        (0..self.workers).map(|worker| copies(&opened.held, worker)).collect()
    }

    /// These are in use from now on.
    pub fn add(&mut self, opened: Opened) {
        self.held.extend(opened.held);
    }

    /// The sockets of a worker that is started again.
    pub fn of_worker(&self, worker: usize) -> io::Result<Vec<Bound>> {
        copies(&self.held, worker)
    }

    /// Keeps to the listeners of `snapshot`. What it does not have is answered: workers close it.
    pub fn keep(&mut self, snapshot: &Snapshot) -> Vec<Held> {
        let is_gone = |held: &mut Held| {
            let rule = snapshot.listeners.iter().find(|rule| rule.is_same_socket(&held.rule));
            if let Some(rule) = rule {
                held.rule = rule.clone();
            }
            rule.is_none()
        };
        self.held.extract_if(.., is_gone).collect()
    }

    /// This worker will not come back: the kernel must not give it connections any more.
    pub fn end_worker(&mut self, worker: usize) {
        for held in self.held.extract_if(.., |held| held.worker == Some(worker)) {
            // A closed copy would not be enough: the lost worker's is open for ever.
            if !held.is_lasting {
                let _ = rustix::net::shutdown(&held.socket, rustix::net::Shutdown::Both);
            }
        }
    }

    /// Lets go of everything: the workers finish what they have.
    pub fn let_go(&mut self) {
        self.held.clear();
        self.offered.clear();
    }

    pub fn held(&self) -> &[Held] {
        &self.held
    }
}

impl Held {
    /// Removes a Unix socket's path, so that new clients see at once that nobody is there.
    pub fn unlink(&self) {
        if let Bind::Unix { path, .. } = &self.at
            && !self.is_lasting
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Offered {
    /// Which listener it is: by its address, and, when the address is not ours to choose (any port,
    /// or a socket of the service manager), by name.
    fn is_for(&self, rule: &ListenerRule) -> bool {
        let same_name = self.name == rule.name;
        match (&self.at, &rule.bind) {
            (Bind::Tcp(at), Bind::Tcp(wanted)) if wanted.port() == 0 => {
                same_name && (self.is_lasting || at.ip() == wanted.ip())
            }
            (Bind::Tcp(at), Bind::Tcp(wanted)) => at == wanted || self.is_lasting && same_name,
            (Bind::Unix { path, .. }, Bind::Unix { path: wanted, .. }) => {
                path == wanted || self.is_lasting && same_name
            }
            _ => false,
        }
    }
}

/// Without SO_REUSEPORT no further socket can be bound beside it: all workers accept on this one.
fn is_shared(offered: &Offered) -> io::Result<bool> {
    match offered.at {
        Bind::Tcp(_) => Ok(!socket2::SockRef::from(&offered.socket).reuse_port()?),
        Bind::Unix { .. } => Ok(true),
    }
}

fn copies(held: &[Held], worker: usize) -> io::Result<Vec<Bound>> {
    let mine = held.iter().filter(|held| held.worker.is_none_or(|of| of == worker));
    mine.map(|held| {
        Ok(Bound {
            rule: held.rule.clone(),
            at: held.at.clone(),
            socket: held.socket.try_clone()?,
            is_lasting: held.is_lasting,
        })
    })
    .collect()
}

fn hint(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::AddrInUse => "another process uses the address: see `ss -ltnp`",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, a Unix socket a writable folder"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this host has the address",
        _ => "see the error",
    }
}

/// An address as the configuration writes it.
pub fn text(at: &Bind) -> String {
    match at {
        Bind::Tcp(at) => at.to_string(),
        Bind::Unix { path, .. } => format!("unix:{}", path.display()),
    }
}

/// Where a listening socket that was made elsewhere is bound; `None` when it is no such socket.
pub fn address_of(socket: &OwnedFd) -> Option<Bind> {
    let socket = socket2::SockRef::from(socket);
    if !socket.is_listener().unwrap_or(false) || socket.r#type().ok()? != socket2::Type::STREAM {
        return None;
    }
    let at = socket.local_addr().ok()?;
    match (at.as_socket(), at.as_pathname()) {
        (Some(at), _) => Some(Bind::Tcp(without_flow(at))),
        (None, Some(path)) => {
            let mode = crate::config::file::UNIX_MODE_DEFAULT;
            Some(Bind::Unix { path: path.to_owned(), mode })
        }
        (None, None) => None,
    }
}

/// As a configuration can write it: a flow label is no part of it.
fn without_flow(at: SocketAddr) -> SocketAddr {
    match at {
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::snapshot::{HalfClose, ListenerBalance};

    fn rule(name: &str, bind: Bind) -> ListenerRule {
        ListenerRule {
            name: name.to_owned(),
            bind,
            backlog: 16,
            half_close: HalfClose::Answer,
            balance: ListenerBalance::Kernel,
            access_log: true,
            proxy_protocol: crate::config::snapshot::ProxyProtocol::Off,
            http2: crate::config::snapshot::Http2Use::On,
            passthrough: None,
            ahead: None,
            tls: None,
        }
    }

    fn any() -> Bind {
        Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// What a predecessor with `workers` workers would hand over.
    fn offered(rule: &ListenerRule, workers: usize) -> Vec<Offered> {
        let mut before = Sockets::new(workers, Vec::new());
        let opened = before.open([rule].into_iter(), 65536).expect("it can be bound");
        let of = |held: Held| Offered {
            name: held.rule.name,
            at: held.at,
            worker: held.worker,
            is_lasting: false,
            socket: held.socket,
        };
        opened.held.into_iter().map(of).collect()
    }

    fn by_worker(sockets: &mut Sockets, rule: &ListenerRule) -> (Vec<usize>, Bind, usize) {
        let opened = sockets.open([rule].into_iter(), 65536).expect("it can be had");
        let (at, taken) = (opened.held[0].at.clone(), opened.taken.len());
        assert_eq!(opened.listeners().count(), 1);
        let bounds = sockets.copies(&opened).expect("descriptors");
        sockets.add(opened);
        (bounds.iter().map(Vec::len).collect(), at, taken)
    }

    #[test]
    fn every_socket_of_a_predecessor_has_a_worker() {
        for (before, now, expected) in
            [(2, 2, vec![1, 1]), (4, 2, vec![2, 2]), (3, 2, vec![2, 1]), (1, 3, vec![1, 1, 1])]
        {
            let main = rule("main", any());
            let offered = offered(&main, before);
            let port = offered[0].at.clone();
            let mut sockets = Sockets::new(now, offered);
            let got = by_worker(&mut sockets, &main);
            assert_eq!(got, (expected, port, 1), "{before} to {now}");
        }
    }

    #[test]
    fn what_no_listener_wants_is_declined() {
        let mut sockets = Sockets::new(1, offered(&rule("main", any()), 1));
        let (counts, _, taken) = by_worker(&mut sockets, &rule("other", any()));
        assert_eq!((counts, taken), (vec![1], 0));
        sockets.decline_rest(&Opened::default());
        assert!(sockets.offered.is_empty());
    }

    #[test]
    fn a_socket_of_the_service_manager_is_shared_and_stays_on_offer() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = Bind::Tcp(socket.local_addr().expect("its address"));
        let socket = OwnedFd::from(socket);
        assert_eq!(address_of(&socket), Some(at.clone()));
        let name = "web".to_owned();
        let given = Offered { name, at: at.clone(), worker: None, is_lasting: true, socket };
        let mut sockets = Sockets::new(3, vec![given]);
        // By name, although the address is another; after a removal, by address.
        for rule in [rule("web", any()), rule("new", at.clone())] {
            assert_eq!(by_worker(&mut sockets, &rule), (vec![1, 1, 1], at.clone(), 1));
            sockets.let_go_of_held();
        }
    }

    impl Sockets {
        fn let_go_of_held(&mut self) {
            self.held.clear();
        }
    }
}
