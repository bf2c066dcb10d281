//! What the tests are made of: the program under test, clients and upstreams.

mod acme;
mod client;
mod gateway;
pub mod http2;
pub mod http2_client;
pub mod http2_server;
mod issuer;
mod message;
pub mod openid;
mod papers;
pub mod redis;
mod server;
pub mod token_issuer;
mod upstream;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

pub use acme::{Authority, Ways, handshake};
pub use client::Client;
pub use gateway::{Gateway, Launch};
pub use http2::Http2;
pub use issuer::{Badge, Issuer};
pub use message::{ReadError, Response, Socket, is, told};
pub use papers::Papers;
pub use server::{Pattern, Server, bodies_pass};
pub use upstream::{Conn, Received, Upstream, replay};

/// How long a test waits for something that should happen at once. Generous, because many tests
/// share the machine; a test that passes never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Sets a flag when it is dropped: load beside a test ends with the test, also when that fails.
pub struct Over<'f>(pub &'f AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until `condition` holds; fails the test with `what` when it does not within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(within_patience(condition), "not within {PATIENCE:?}: {what}");
}

/// Whether `condition` holds within [`PATIENCE`]: for tests that tell what there was instead.
pub fn within_patience(mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() >= PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
