//! Certificates got from authorities and renewed (`listeners.tls.acme`), by a thread of its own
//! that is there only once a configuration wants it.
//!
//! It is the only one that writes what workers read of it (`config::snapshot::acme`): challenges
//! while an authority may ask, and certificates. No worker is told anything.
//!
//! **Bounds.** One order at a time, of one name. A name that failed waits, twice as long each time
//! ([`plan`]). A lock in the authority's folder says which process renews: in an upgrade the old
//! one lets go when it drains, and gateways that share the folder take turns.

mod board;
mod http;
mod order;
mod plan;
mod renew;
pub(super) mod store;

use std::{sync::Arc, thread};

use tokio::sync::watch;

pub use board::{Board, Key, Line, unix};

use crate::config::snapshot::AcmeName;

/// What is wanted of the thread; its end when the sender is gone.
type Names = Arc<[AcmeName]>;

/// Certificates as the main thread sees them.
pub struct Acme {
    board: Board,
    names: Option<watch::Sender<Names>>,
    /// Of the configuration that it follows.
    generation: u64,
}

impl Acme {
    pub fn new(board: Board) -> Acme {
        Acme { board, names: None, generation: 0 }
    }

    /// Follows another configuration, once workers have it.
    pub fn follow(&mut self, generation: u64, names: &[AcmeName]) {
        if std::mem::replace(&mut self.generation, generation) == generation {
            return;
        }
        match &self.names {
            Some(sender) => drop(sender.send_replace(names.into())),
            None if names.is_empty() => {}
            None => match begin(names.into(), self.board.clone()) {
                Ok(sender) => self.names = Some(sender),
                Err(e) => {
                    tracing::error!(error = %e, "cannot start a thread: no certificate is renewed");
                }
            },
        }
    }

    /// Another process renews from now on, or nobody.
    pub fn stop(&mut self) {
        self.names = None;
    }
}

fn begin(names: Names, board: Board) -> std::io::Result<watch::Sender<Names>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, receiver) = watch::channel(names);
    thread::Builder::new()
        .name("acme".to_owned())
        .spawn(move || runtime.block_on(renew::renew(receiver, board)))?;
    Ok(sender)
}
