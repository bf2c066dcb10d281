//! Logins by OpenID Connect as workers use them, and the counter where they have control ask the
//! provider for tokens.
//!
//! A [`Counter`] is one section's, the same in every snapshot of the process, so that what is under
//! way outlives a reload. Workers leave orders without a lock; control takes them.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

use super::{ClientAuth, Provider};
use crate::{
    config::values::Secret,
    policy::oidc::{
        Rule,
        cookies::Names,
        session::Sealer,
        tokens::{Grant, NoTokens, Tokens},
    },
};

/// Orders of a section that control has not taken.
const WAITING_MAX: usize = 1024;

/// A section `[oidc.NAME]`.
#[derive(Clone, Debug)]
pub struct LoginWay {
    pub rule: Rule,
    /// Of its cookies.
    pub sealer: Arc<Sealer>,
    /// Of its cookies: over TLS, and without it.
    pub names: [Names; 2],
    /// Its keys and endpoints.
    pub provider: Arc<Provider>,
    pub client_auth: ClientAuth,
    /// Without it the provider takes PKCE alone.
    pub client_secret: Option<Secret<String>>,
    pub timeout_ms: u64,
    /// For sessions that were opened, in each worker.
    pub cache_bytes: u64,
    pub counter: Arc<Counter>,
}

/// What comes of an order.
pub type Told = Result<Tokens, NoTokens>;

/// Tokens that a worker wants.
pub struct Order {
    pub grant: Grant,
    /// Takes what comes of it.
    pub reply: Box<dyn FnOnce(Told) + Send>,
}

/// Where orders of one section are left.
pub struct Counter {
    orders: ArrayQueue<Order>,
    left: Notify,
    counts: [[AtomicU64; 3]; 2],
}

impl Counter {
    fn new() -> Counter {
        Counter {
            orders: ArrayQueue::new(WAITING_MAX),
            left: Notify::new(),
            counts: Default::default(),
        }
    }

    /// Whether another one would have to be thrown away.
    pub fn is_full(&self) -> bool {
        self.orders.is_full()
    }

    /// Leaves an order; where there is no room its reply is dropped.
    pub fn leave(&self, order: Order) {
        drop(self.orders.push(order));
        self.left.notify_one();
    }

    /// Takes the next order, when there is one.
    pub async fn take(&self) -> Order {
        loop {
            if let Some(order) = self.orders.pop() {
                return order;
            }
            self.left.notified().await;
        }
    }

    /// Notes what came of an order.
    pub fn count(&self, is_refresh: bool, told: &Told) {
        let outcome = match told {
            Ok(_) => 0,
            Err(NoTokens::Refused) => 1,
            Err(_) => 2,
        };
        self.counts[usize::from(is_refresh)][outcome].fetch_add(1, Ordering::Relaxed);
    }

    /// Orders by grant and outcome, as they are called in metrics.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let grants = ["code", "refresh_token"].into_iter().zip(&self.counts);
        grants.flat_map(|(grant, counts)| {
            let outcomes = ["granted", "refused", "failed"].into_iter().zip(counts);
            outcomes.map(move |(outcome, count)| (grant, outcome, count.load(Ordering::Relaxed)))
        })
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counter({} orders)", self.orders.len())
    }
}

/// What seals the sessions of sections that name no secrets: this process's own, and another one
/// with each start. `None` where the system has no random numbers.
pub fn own_secret() -> Option<Vec<u8>> {
    static SECRET: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let made = || {
        let mut secret = vec![0; 32];
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        Some(secret)
    };
    SECRET.get_or_init(made).clone()
}

/// The counter of a section, the same for as long as any snapshot has it.
pub fn counter(key: &str) -> Arc<Counter> {
    static COUNTERS: Mutex<Option<HashMap<String, Weak<Counter>>>> = Mutex::new(None);
    let mut counters = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    let counters = counters.get_or_insert_default();
    if let Some(counter) = counters.get(key).and_then(Weak::upgrade) {
        return counter;
    }
    counters.retain(|_, counter| counter.strong_count() > 0);
    let counter = Arc::new(Counter::new());
    counters.insert(key.to_owned(), Arc::downgrade(&counter));
    counter
}
