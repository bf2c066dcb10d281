//! Servers that gateways share limits in, and the way to them: what workers leave there and
//! control takes.
//!
//! A [`Link`] is one server's, the same in every snapshot whose settings of it are the same, so
//! that its connection outlives a reload. Workers look at one number before each use, which
//! control changes when the server is reached and when it is not any more, and leave what they ask
//! in a bounded queue, without a lock.
//!
//! Invariant: while a server is lost, nothing is in its queue. Orders hold the limit, which holds
//! the link: what nobody takes out would keep all of them for ever.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::sync::Notify;

use crate::{
    config::values::Secret,
    policy::limit::{
        Window,
        fleet::{Fallback, Order},
    },
};

/// What workers have asked and control has not taken, at most.
const ORDERS_MAX: usize = 16 * 1024;

/// A server, `[redis.NAME]`.
#[derive(Clone, Debug)]
pub struct Redis {
    pub name: String,
    pub address: RedisAddress,
    /// Whom to believe that it is the server, and its name.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub user: Option<String>,
    pub password: Option<Secret<String>>,
    pub database: u32,
    pub wait_ms: u64,
    pub timeout_ms: u64,
    pub connect_timeout_ms: u64,
    pub retry_ms: u64,
    pub link: Arc<Link>,
}

/// Where it is; names are looked up for each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAddress {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisAddress::Tcp(host, port) if host.contains(':') => {
                write!(f, "[{}]:{port}", host.trim_matches(['[', ']']))
            }
            RedisAddress::Tcp(host, port) => write!(f, "{host}:{port}"),
            RedisAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What a limit has that a fleet shares.
#[derive(Debug)]
pub struct SharedLimit {
    pub link: Arc<Link>,
    /// A request waits no longer for tokens.
    pub wait_ms: u64,
    /// What the names of its buckets begin with.
    pub prefix: String,
    /// Those of the fleet's buckets.
    pub windows: Vec<Window>,
    pub fallback: Fallback,
    /// Of this process, while the server does not answer.
    pub alone: Vec<Window>,
}

/// What one home tells the store of one key.
#[derive(Debug)]
pub struct FleetOrder {
    pub shared: Arc<SharedLimit>,
    /// The number of the limit's name, and whose order it is.
    pub limit: u64,
    pub worker: u32,
    pub order: Order,
}

/// The way to one server.
#[derive(Debug)]
pub struct Link {
    /// Odd: it answers. Counts changes.
    turn: AtomicU64,
    orders: ArrayQueue<FleetOrder>,
    is_asked: AtomicBool,
    asked: Notify,
    /// Unix time of the last change; 0: there was none.
    changed_s: AtomicU64,
    /// Why it does not answer.
    why: ArcSwapOption<String>,
    pub figures: LinkFigures,
}

/// Counted by control, but for `crowded`.
#[derive(Debug, Default)]
pub struct LinkFigures {
    /// Orders that were answered, what they were sent in, and how long answers took.
    pub orders: AtomicU64,
    pub batches: AtomicU64,
    pub micros: AtomicU64,
    /// Connections that failed or ended.
    pub failures: AtomicU64,
    /// Orders that the server refused.
    pub refused: AtomicU64,
    /// Orders for which there was no room.
    pub crowded: AtomicU64,
}

impl Default for Link {
    fn default() -> Link {
        // So that a turn of one link is none of another.
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Link {
            turn: AtomicU64::new(serial << 32),
            orders: ArrayQueue::new(ORDERS_MAX),
            is_asked: AtomicBool::new(false),
            asked: Notify::new(),
            changed_s: AtomicU64::new(0),
            why: ArcSwapOption::empty(),
            figures: LinkFigures::default(),
        }
    }
}

impl Link {
    /// A number that changes whenever the server is reached or lost; `None` while it is lost.
    #[inline]
    pub fn turn(&self) -> Option<u64> {
        let turn = self.turn.load(Ordering::Acquire);
        (turn % 2 == 1).then_some(turn)
    }

    /// Leaves an order; false when there is no room, or nobody who takes it.
    pub fn leave(&self, order: FleetOrder) -> bool {
        if self.turn().is_none() {
            return false;
        }
        if self.orders.push(order).is_err() {
            self.figures.crowded.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        // Either this sees that the server was lost meanwhile, or `lost` sees the order.
        fence(Ordering::SeqCst);
        if self.turn().is_none() {
            self.forget_orders();
            return false;
        }
        if !self.is_asked.swap(true, Ordering::AcqRel) {
            self.asked.notify_one();
        }
        true
    }

    /// Waits until there are orders.
    pub async fn asked(&self) {
        while !self.is_asked.swap(false, Ordering::AcqRel) {
            self.asked.notified().await;
        }
    }

    pub fn next(&self) -> Option<FleetOrder> {
        self.orders.pop()
    }

    /// The server answers. What was left for it before is nobody's any more.
    pub fn reached(&self) {
        self.forget_orders();
        self.why.store(None);
        self.change(1);
    }

    fn forget_orders(&self) {
        while self.orders.pop().is_some() {}
    }

    /// It does not, or not any more. Answers whether that is news.
    pub fn lost(&self, why: &str) -> bool {
        let is_news = self.change(0) || self.why.load().is_none();
        fence(Ordering::SeqCst);
        self.forget_orders();
        self.why.store(Some(Arc::new(why.to_owned())));
        is_news
    }

    fn change(&self, to: u64) -> bool {
        let turn = self.turn.load(Ordering::Acquire);
        let is_change = turn % 2 != to;
        if is_change {
            let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.changed_s.store(now_s, Ordering::Release);
            // One thread of control changes it.
            self.turn.store(turn + 1, Ordering::Release);
        }
        is_change
    }

    pub fn why(&self) -> Option<String> {
        self.why.load().as_ref().map(|why| why.to_string())
    }

    pub fn changed_s(&self) -> Option<u64> {
        Some(self.changed_s.load(Ordering::Acquire)).filter(|at| *at > 0)
    }
}

/// The link of a server with these settings, the same for as long as any snapshot has it.
pub fn link(settings: &str) -> Arc<Link> {
    static LINKS: Mutex<Option<HashMap<String, Weak<Link>>>> = Mutex::new(None);
    let mut links = LINKS.lock().unwrap_or_else(PoisonError::into_inner);
    let links = links.get_or_insert_default();
    if let Some(link) = links.get(settings).and_then(Weak::upgrade) {
        return link;
    }
    links.retain(|_, link| link.strong_count() > 0);
    let link = Arc::<Link>::default();
    links.insert(settings.to_owned(), Arc::downgrade(&link));
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(link: &Arc<Link>) -> FleetOrder {
        let shared = SharedLimit {
            link: link.clone(),
            wait_ms: 10,
            prefix: String::new(),
            windows: Vec::new(),
            fallback: Fallback::Local,
            alone: Vec::new(),
        };
        FleetOrder { shared: Arc::new(shared), limit: 1, worker: 0, order: Order::default() }
    }

    #[test]
    fn orders_are_taken_while_the_server_answers_and_bounded() {
        let link = Arc::<Link>::default();
        assert!(!link.leave(order(&link)), "nobody takes it");
        link.reached();
        let first = link.turn();
        assert!(first.is_some());
        for _ in 0..ORDERS_MAX {
            assert!(link.leave(order(&link)));
        }
        assert!(!link.leave(order(&link)), "no room");
        assert_eq!(link.figures.crowded.load(Ordering::Relaxed), 1);
        assert!(link.next().is_some());
        assert!(link.leave(order(&link)));
        assert!(link.lost("gone"));
        assert!(!link.lost("refused"), "no news");
        assert_eq!((link.turn(), link.why().as_deref()), (None, Some("refused")));
        link.reached();
        assert!(link.turn() > first && link.why().is_none());
        assert!(link.next().is_none(), "orders of before are nobody's");
    }

    #[test]
    fn a_lost_server_keeps_no_order_and_an_order_no_link() {
        let link = Arc::<Link>::default();
        link.reached();
        for _ in 0..3 {
            assert!(link.leave(order(&link)));
        }
        link.lost("no configuration has it any more");
        assert!(link.next().is_none());
        let gone = Arc::downgrade(&link);
        drop(link);
        assert!(gone.upgrade().is_none(), "what was left keeps the link");
    }

    /// Whoever leaves an order while the server is being lost takes it back.
    #[test]
    fn orders_that_come_while_the_server_is_lost_are_not_kept() {
        for _ in 0..300 {
            let link = Arc::<Link>::default();
            link.reached();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| while link.leave(order(&link)) {});
                }
                while link.next().is_none() {}
                link.lost("gone");
            });
            assert!(link.next().is_none());
        }
    }

    #[test]
    fn the_same_settings_are_the_same_link() {
        let first = link("a");
        assert!(Arc::ptr_eq(&first, &link("a")));
        let other = link("b");
        first.reached();
        other.reached();
        assert_ne!(first.turn(), other.turn());
    }
}
