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

pub use board::{Board, Key, Line, unix};

use super::aside::Aside;
use crate::config::snapshot::AcmeName;

/// Certificates as the main thread sees them.
pub struct Acme {
    board: Board,
    aside: Aside<AcmeName>,
}

impl Acme {
    pub fn new(board: Board) -> Acme {
        Acme { board, aside: Aside::default() }
    }

    /// Follows another configuration, once workers have it.
    pub fn follow(&mut self, generation: u64, names: &[AcmeName]) {
        let board = self.board.clone();
        let work = |names| renew::renew(names, board);
        let about = ("acme", "no certificate is renewed");
        self.aside.follow(generation, || names.into(), about, work);
    }

    /// Another process renews from now on, or nobody.
    pub fn stop(&mut self) {
        self.aside.stop();
    }
}
