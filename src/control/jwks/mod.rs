//! Keys of token issuers (`jwt.NAME.jwks`, or by discovery) and of providers of logins, fetched and
//! kept up to date by a thread of its own that is there only once a configuration wants it.
//!
//! It is the only one that writes what workers read of them (`config::snapshot::jwks`). Invariants:
//! keys once fetched stay in force until others are fetched, however long a provider is down;
//! between two fetches that tokens ask for there is `refetch_after`, however many they are.

pub mod fetch;
mod keep;

use std::{sync::Arc, thread};

use tokio::{
    sync::watch,
    task::{JoinSet, LocalSet},
};

use crate::config::snapshot::{KeySource, Provider, Snapshot, WayKind};

type Wanted = Arc<[Arc<Provider>]>;

/// The thread as the main thread sees it.
#[derive(Default)]
pub struct Jwks {
    wanted: Option<watch::Sender<Wanted>>,
    /// Of the configuration that it follows.
    generation: u64,
}

impl Jwks {
    /// Follows another configuration.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        if std::mem::replace(&mut self.generation, snapshot.generation) == snapshot.generation {
            return;
        }
        let wanted: Wanted = providers(snapshot).cloned().collect();
        match &self.wanted {
            Some(sender) => drop(sender.send_replace(wanted)),
            None if wanted.is_empty() => {}
            None => match begin(wanted) {
                Ok(sender) => self.wanted = Some(sender),
                Err(e) => {
                    tracing::error!(error = %e, "cannot start a thread: no keys are fetched");
                }
            },
        }
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

fn begin(wanted: Wanted) -> std::io::Result<watch::Sender<Wanted>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, receiver) = watch::channel(wanted);
    thread::Builder::new()
        .name("jwks".to_owned())
        .spawn(move || LocalSet::new().block_on(&runtime, keep_all(receiver)))?;
    Ok(sender)
}

/// One task for each provider, all of them anew with each configuration: what they know is in the
/// cells.
async fn keep_all(mut wanted: watch::Receiver<Wanted>) {
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
