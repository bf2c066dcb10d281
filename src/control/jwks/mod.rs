//! Keys of token issuers (`jwt.NAME.jwks`, or by discovery) and of providers of logins, fetched and
//! kept up to date by a thread of its own that is there only once a configuration wants it.
//!
//! It is the only one that writes what workers read of them (`config::snapshot::jwks`). Invariants:
//! keys once fetched stay in force until others are fetched, however long a provider is down;
//! between two fetches that tokens ask for there is `refetch_after`, however many they are.

pub mod fetch;
mod keep;

use std::sync::Arc;

use tokio::task::JoinSet;

use super::aside::{Aside, Wanted};
use crate::config::snapshot::{KeySource, Provider, Snapshot, WayKind};

/// The thread as the main thread sees it.
#[derive(Default)]
pub struct Jwks(Aside<Arc<Provider>>);

impl Jwks {
    /// Follows another configuration.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let names = ("jwks", "no keys are fetched");
        let of_it = || providers(snapshot).cloned().collect();
        self.0.follow(snapshot.generation, of_it, names, keep_all);
    }
}

/// Those of a configuration.
pub fn providers(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Provider>> {
    snapshot.ways.iter().filter_map(|way| match &way.kind {
        WayKind::Jwt(jwt) => match &jwt.keys {
            KeySource::Remote(provider) => Some(provider),
            KeySource::Fixed(_) => None,
        },
        WayKind::Login(login) => Some(&login.provider),
        _ => None,
    })
}

/// One task for each provider, all of them anew with each configuration: what they know is in the
/// cells.
async fn keep_all(mut wanted: Wanted<Arc<Provider>>) {
    loop {
        let mut tasks = JoinSet::new();
        for provider in wanted.borrow_and_update().iter() {
            tasks.spawn_local(keep::keep(provider.clone()));
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}
