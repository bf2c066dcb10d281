//! The slowest requests of the last minutes, kept by one worker.
//!
//! A request costs one comparison: with the fastest of those kept, once as many are kept as may be.
//! Only one that is slower is written down. Windows of [`WINDOW_MS`] keep a slow request of long
//! ago from hiding those of now.

use std::cell::{Cell, RefCell};

use super::{clock::now_ms, exchange::Exchange};
use crate::config::Snapshot;

/// Requests kept, of each window and in an answer.
pub const KEPT_MAX: usize = 16;
/// How long a window takes requests in.
const WINDOW_MS: u64 = 60_000;
/// Windows that are kept, the one that takes in included: an answer covers 4 to 5 minutes.
const WINDOWS: usize = 5;
/// Bytes kept of a path or method.
const TEXT_BYTES_MAX: usize = 256;

/// One slow request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRequest {
    /// From its head to the last byte of its response.
    pub took_ns: u64,
    /// When it ended, on the coarse clock.
    pub ended_ms: u64,
    /// At most 256 bytes, what is not printable escaped.
    pub method: String,
    /// Without the query, which may hold what is nobody's business. At most 256 bytes.
    pub path: String,
    /// Of the response; 0 when none began.
    pub status: u16,
    pub route: Option<String>,
    /// Upstream and endpoint of the last try.
    pub endpoint: Option<(String, String)>,
    pub tries: u8,
    pub request_id: String,
}

#[derive(Default)]
pub struct Slowest {
    /// A request that took no longer is not kept.
    floor_ns: Cell<u64>,
    /// When the newest window ends.
    until_ms: Cell<u64>,
    /// Newest last.
    windows: RefCell<Vec<Vec<SlowRequest>>>,
}

impl Slowest {
    /// Keeps the request if it is among the slowest.
    #[inline]
    pub fn look_at(&self, snapshot: &Snapshot, exchange: &Exchange, status: u16, took_ns: u64) {
        if took_ns > self.floor_ns.get() {
            self.keep(slow(snapshot, exchange, status, took_ns));
        }
    }

    fn keep(&self, request: SlowRequest) {
        self.turn(request.ended_ms);
        let windows = &mut *self.windows.borrow_mut();
        let Some(window) = windows.last_mut() else { return };
        let at = window.partition_point(|kept| kept.took_ns >= request.took_ns);
        window.insert(at, request);
        window.truncate(KEPT_MAX);
        if window.len() == KEPT_MAX {
            self.floor_ns.set(window[KEPT_MAX - 1].took_ns);
        }
    }

    /// Begins a new window when it is time. Called on the worker's slow beat too, so that the floor
    /// of a busy minute does not outlast it.
    pub fn turn(&self, now_ms: u64) {
        if now_ms < self.until_ms.get() {
            return;
        }
        let windows = &mut *self.windows.borrow_mut();
        if windows.len() == WINDOWS {
            windows.remove(0);
        }
        windows.push(Vec::new());
        self.until_ms.set(now_ms + WINDOW_MS);
        self.floor_ns.set(0);
    }

    /// The slowest, slowest first; at most [`KEPT_MAX`].
    pub fn list(&self) -> Vec<SlowRequest> {
        let mut all: Vec<SlowRequest> = self.windows.borrow().iter().flatten().cloned().collect();
        all.sort_by_key(|request| std::cmp::Reverse(request.took_ns));
        all.truncate(KEPT_MAX);
        all
    }
}

#[cold]
fn slow(snapshot: &Snapshot, exchange: &Exchange, status: u16, took_ns: u64) -> SlowRequest {
    let record = &exchange.record;
    let endpoint = record.upstream.get().zip(record.endpoint.get()).map(|(upstream, endpoint)| {
        let rule = snapshot.upstream(upstream);
        (rule.name.clone(), rule.endpoints[usize::from(endpoint)].name.clone())
    });
    SlowRequest {
        took_ns,
        ended_ms: now_ms(),
        method: short(exchange.text(exchange.head().method_text)),
        path: short(exchange.raw_path()),
        status,
        route: exchange.route.map(|route| snapshot.route(route).name.clone()),
        endpoint,
        tries: record.tries.get(),
        request_id: short(exchange.id.text(exchange.bytes())),
    }
}

fn short(text: &[u8]) -> String {
    text[..text.len().min(TEXT_BYTES_MAX)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(took_ns: u64, ended_ms: u64) -> SlowRequest {
        SlowRequest {
            took_ns,
            ended_ms,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            status: 200,
            route: None,
            endpoint: None,
            tries: 0,
            request_id: String::new(),
        }
    }

    fn times(slowest: &Slowest) -> Vec<u64> {
        slowest.list().iter().map(|request| request.took_ns).collect()
    }

    #[test]
    fn the_slowest_are_kept_in_order() {
        let slowest = Slowest::default();
        for took in (1..=100).map(|n| n * 37 % 101) {
            // As `look_at` does.
            if took > slowest.floor_ns.get() {
                slowest.keep(request(took, 1000));
            }
        }
        let expected: Vec<u64> = (85..=100).rev().collect();
        assert_eq!(times(&slowest), expected);
        assert_eq!(slowest.floor_ns.get(), 85);
    }

    #[test]
    fn a_window_passes_and_what_is_old_goes() {
        let slowest = Slowest::default();
        slowest.keep(request(900, 0));
        (0..20).for_each(|_| slowest.keep(request(50, 1)));
        assert_eq!(slowest.floor_ns.get(), 50);
        slowest.turn(WINDOW_MS);
        assert_eq!(slowest.floor_ns.get(), 0, "a new window takes anything");
        slowest.keep(request(7, WINDOW_MS));
        assert_eq!(times(&slowest)[..2], [900, 50]);
        for window in 2..=WINDOWS as u64 {
            slowest.turn(window * WINDOW_MS);
        }
        assert_eq!(times(&slowest), [7], "the first window is forgotten");
    }
}
