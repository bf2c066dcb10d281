//! Time on the data path: read once for all operations that completed together, from the kernel's
//! precise clock when durations are wanted, else from its coarse one (a few milliseconds of
//! resolution), which costs less; and the text of the Date field.

use std::{
    cell::{Cell, OnceCell, RefCell},
    sync::Arc,
};

use http::HeaderValue;
use rustix::time::{ClockId, clock_gettime};

use super::{ring::RingView, spin};

/// Never reached: the deadline of something that has none.
pub const NEVER_MS: u64 = u64::MAX;

thread_local! {
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
    static NOW_MS: Cell<u64> = const { Cell::new(0) };
    static IS_PRECISE: Cell<bool> = const { Cell::new(false) };
    static RING: OnceCell<Arc<RingView>> = const { OnceCell::new() };
    /// The ring's count of completions at the last look.
    static COMPLETED: Cell<u32> = const { Cell::new(0) };
    /// The kernel had handed over a single one at that look.
    static IS_ALONE: Cell<bool> = const { Cell::new(false) };
}

/// This thread runs on a ring, whose completions come in batches: what completed together has the
/// same time.
pub fn follow(ring: Arc<RingView>) {
    // The first one stays: a thread has one ring.
    let _ = RING.with(|cell| cell.set(ring));
}

/// An operation has completed. Reads the clock, unless it was read since the kernel last handed
/// over completions: a request has four operations, and a precise reading costs more than looking.
#[inline]
pub fn completed() {
    let count = RING.with(|ring| ring.get().map(|ring| ring.completed()));
    let before = COMPLETED.get();
    if count.is_none_or(|count| before != count) {
        let count = count.unwrap_or(before);
        COMPLETED.set(count);
        IS_ALONE.set(count.wrapping_sub(before) == 1);
        refresh();
        spin::awake();
    }
}

/// Whether the operation that this thread goes on with completed alone, as most do on a worker that
/// is not busy. Never without a ring.
#[inline]
pub fn is_alone() -> bool {
    IS_ALONE.get()
}

/// From now on this thread's clock is the precise one, or the coarse one.
pub fn set_precise(is_precise: bool) {
    IS_PRECISE.set(is_precise);
}

/// Nanoseconds since boot as of the last [`refresh`]. Monotonic; as precise as the clock read.
#[inline]
pub fn now_ns() -> u64 {
    NOW_NS.get()
}

/// Milliseconds since boot as of the last [`refresh`]. Monotonic.
#[inline]
pub fn now_ms() -> u64 {
    NOW_MS.get()
}

/// Seconds since 1970, of the coarse clock.
pub fn unix_s() -> u64 {
    u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0)
}

/// Nanoseconds since 1970, of the coarse clock.
pub fn unix_ns() -> u64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.unsigned_abs())
}

/// Reads the clock. This or [`completed`] is called wherever a task goes on after waiting, so that
/// what runs in between asks no clock.
#[inline]
pub fn refresh() -> u64 {
    let clock = if IS_PRECISE.get() { ClockId::Monotonic } else { ClockId::MonotonicCoarse };
    let t = clock_gettime(clock);
    // The coarse clock lags: after a change to it, time stands still for a moment.
    let now_ns = (t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64).max(NOW_NS.get());
    NOW_NS.set(now_ns);
    let now_ms = now_ns / 1_000_000;
    NOW_MS.set(now_ms);
    now_ms
}

/// The current value of the Date field (RFC 9110 §6.6.1), formatted at most once a second.
#[derive(Default)]
pub struct DateText {
    second: Cell<i64>,
    text: RefCell<String>,
    /// The same for HTTP/2. Its references are this worker's alone.
    value: RefCell<Option<HeaderValue>>,
}

impl DateText {
    /// Calls `f` with the 29 bytes of an IMF-fixdate.
    pub fn with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        self.refresh();
        f(self.text.borrow().as_bytes())
    }

    /// As a field of HTTP/2.
    pub fn value(&self) -> Option<HeaderValue> {
        self.refresh();
        let mut value = self.value.borrow_mut();
        if value.is_none() {
            *value = HeaderValue::from_str(&self.text.borrow()).ok();
        }
        value.clone()
    }

    #[inline]
    fn refresh(&self) {
        let second = clock_gettime(ClockId::RealtimeCoarse).tv_sec;
        if second != self.second.get() {
            let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second.max(0) as u64);
            *self.text.borrow_mut() = httpdate::fmt_http_date(now);
            self.value.replace(None);
            self.second.set(second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_an_imf_fixdate() {
        let date = DateText::default();
        date.with(|text| {
            let text = std::str::from_utf8(text).expect("ascii");
            assert_eq!(text.len(), 29);
            assert!(httpdate::parse_http_date(text).is_ok(), "{text}");
        });
    }

    #[test]
    fn the_date_of_http2_is_the_same_and_follows() {
        let date = DateText::default();
        let is_same = || {
            let value = date.value().expect("a value");
            date.with(|text| text == value.as_bytes())
        };
        // Once more, should a second have passed between both.
        assert!(is_same() || is_same());
        // As if the last one had been of another second.
        date.second.set(0);
        date.value.replace(Some(HeaderValue::from_static("old")));
        assert!(is_same() || is_same());
    }

    #[test]
    fn the_clock_does_not_run_backwards() {
        for is_precise in [false, true, false] {
            set_precise(is_precise);
            let (ms, ns) = (refresh(), now_ns());
            assert!(ms > 0 && ms == now_ms() && ms == ns / 1_000_000);
            assert!(refresh() >= ms && now_ns() >= ns);
        }
    }
}
