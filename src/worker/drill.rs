//! What the test-suite can ask of a debug build, to see what is otherwise never seen: a request
//! that panics, one that holds its worker, one after which the worker itself panics or takes no
//! messages, a listener that cannot accept.
//!
//! Release builds have none of it.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// How soon held messages are noticed to be held no longer.
const HELD_LOOK: Duration = Duration::from_millis(10);

thread_local! {
    static PANIC_AT_TICK: Cell<bool> = const { Cell::new(false) };
    static TAKES_NO_MESSAGES: Cell<bool> = const { Cell::new(false) };
}

/// A request for `path` has come.
pub fn at_request(path: &[u8]) {
    let asked = |variable| std::env::var_os(variable).map(|value| value.into_encoded_bytes());
    if asked("RINGWAY_DRILL_PANIC_PATH").is_some_and(|asked| asked == path) {
        panic!("drill: a panic was asked for");
    }
    if asked("RINGWAY_DRILL_WORKER_PANIC_PATH").is_some_and(|asked| asked == path) {
        PANIC_AT_TICK.set(true);
    }
    // The rest of the path is `held` or `taken`.
    let messages = asked("RINGWAY_DRILL_MESSAGES_PATH");
    let rest = messages.as_ref().and_then(|asked| path.strip_prefix(asked.as_slice()));
    if let Some(word) = rest {
        TAKES_NO_MESSAGES.set(word == b"held");
    }
    // The rest of the path says for how many milliseconds.
    let stall = asked("RINGWAY_DRILL_STALL_PATH");
    let rest = stall.as_ref().and_then(|asked| path.strip_prefix(asked.as_slice()));
    if let Some(ms) = rest.and_then(|ms| std::str::from_utf8(ms).ok()?.parse().ok()) {
        let until = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
}

/// Waits while this worker should take no messages.
pub async fn while_messages_are_held() {
    while TAKES_NO_MESSAGES.get() {
        monoio::time::sleep(HELD_LOOK).await;
    }
}

/// The worker ticks.
pub fn at_tick() {
    if PANIC_AT_TICK.take() {
        panic!("drill: a worker's panic was asked for");
    }
}

/// A worker that has panicked gives its connections a last moment, which may fail too.
pub fn at_last_moment() {
    if std::env::var_os("RINGWAY_DRILL_LAST_MOMENT_PANICS").is_some() {
        panic!("drill: a panic in the last moment was asked for");
    }
}

/// Whether a worker should fail to accept on the listener of this name.
pub fn refuses(listener: &str) -> bool {
    std::env::var_os("RINGWAY_DRILL_REFUSE_LISTENER").is_some_and(|asked| asked == listener)
}
