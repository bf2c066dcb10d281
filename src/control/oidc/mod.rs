//! Tokens for logins and sessions (`[oidc.NAME]`): workers leave orders, a thread of its own asks
//! the providers. It is there only once a configuration wants it.
//!
//! **Bounds.** Of one section as many orders wait as its counter holds and [`UNDER_WAY_MAX`] are
//! under way, each within `timeout`. Invariants: a refresh token is used once, whoever orders with
//! it and however often, so that providers who give out another one each time see no token twice;
//! what is under way when the configuration changes goes on.

mod ask;
mod refreshes;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Semaphore,
    task::{JoinSet, spawn_local},
};

use super::aside::{Aside, Wanted};
use crate::{
    config::snapshot::{
        LoginWay, Snapshot, WayKind,
        oidc::{Order, Told},
    },
    policy::oidc::tokens::{Grant, NoTokens},
};
use refreshes::{Refreshes, Turn};

/// Requests to one provider at the same time.
const UNDER_WAY_MAX: usize = 64;
/// Of a section, what went wrong is told once in this time.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The thread as the main thread sees it.
#[derive(Default)]
pub struct Logins(Aside<Arc<LoginWay>>);

impl Logins {
    /// Follows another configuration.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let names = ("oidc", "nobody can log in");
        let of_it = || ways(snapshot).map(|way| Arc::new(way.clone())).collect();
        self.0.follow(snapshot.generation, of_it, names, serve_all);
    }
}

/// Those of a configuration.
pub fn ways(snapshot: &Snapshot) -> impl Iterator<Item = &LoginWay> {
    snapshot.ways.iter().filter_map(|way| match &way.kind {
        WayKind::Login(login) => Some(&**login),
        _ => None,
    })
}

/// What outlives a configuration, by section.
#[derive(Default)]
struct Kept(RefCell<HashMap<String, Rc<Section>>>);

/// Of one section.
struct Section {
    under_way: Arc<Semaphore>,
    refreshes: Refreshes,
    told: std::cell::Cell<Option<Instant>>,
}

impl Kept {
    fn section(&self, name: &str) -> Rc<Section> {
        let new = || {
            Rc::new(Section {
                under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
                refreshes: Refreshes::default(),
                told: std::cell::Cell::default(),
            })
        };
        self.0.borrow_mut().entry(name.to_owned()).or_insert_with(new).clone()
    }

    /// Forgets sections that are no more.
    fn keep(&self, wanted: &[Arc<LoginWay>]) {
        self.0.borrow_mut().retain(|name, _| wanted.iter().any(|way| way.rule.name == *name));
    }
}

/// One task for each section that takes orders, all of them anew with each configuration. What they
/// have taken is served by tasks that stay.
async fn serve_all(mut wanted: Wanted<Arc<LoginWay>>) {
    let kept = Kept::default();
    loop {
        let mut tasks = JoinSet::new();
        let ways = wanted.borrow_and_update().clone();
        kept.keep(&ways);
        for way in ways.iter() {
            tasks.spawn_local(take_orders(way.clone(), kept.section(&way.rule.name)));
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

async fn take_orders(way: Arc<LoginWay>, section: Rc<Section>) {
    loop {
        let Ok(permit) = section.under_way.clone().acquire_owned().await else { return };
        // Between the two nothing waits: an order that is taken is served.
        let order = way.counter.take().await;
        let (way, section) = (way.clone(), section.clone());
        spawn_local(async move {
            serve(&way, &section, order).await;
            drop(permit);
        });
    }
}

/// Serves one order; one for a token that is being refreshed, or was just now, gets the same.
async fn serve(way: &LoginWay, section: &Section, order: Order) {
    let Order { grant, reply } = order;
    let token = match &grant {
        Grant::Code { .. } => {
            reply(asked(way, section, &grant).await);
            return;
        }
        Grant::Refresh { token } => token,
    };
    let id = refreshes::id(token);
    match section.refreshes.turn(id, reply, Instant::now()) {
        Turn::Known(reply, told) => reply(told),
        Turn::Joined => {}
        Turn::Own(reply) => {
            let told = asked(way, section, &grant).await;
            reply(told.clone());
            for joined in section.refreshes.over(id, &told, Instant::now()) {
                joined(told.clone());
            }
        }
    }
}

async fn asked(way: &LoginWay, section: &Section, grant: &Grant) -> Told {
    let timeout = Duration::from_millis(way.timeout_ms);
    let asked = tokio::time::timeout(timeout, ask::tokens(way, grant)).await;
    let late = || NoTokens::Unavailable(format!("no answer within {timeout:?}"));
    let told = asked.unwrap_or_else(|_| Err(late()));
    way.counter.count(matches!(grant, Grant::Refresh { .. }), &told);
    if let Err(NoTokens::Wrong(why) | NoTokens::Unavailable(why)) = &told {
        let now = Instant::now();
        if section.told.get().is_none_or(|last| now >= last + TELL_EVERY) {
            section.told.set(Some(now));
            tracing::warn!(way = way.rule.name, why, "the provider gives no tokens");
        }
    }
    told
}
