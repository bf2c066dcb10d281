//! How many frames of an HTTP/2 connection may ask for work without bringing any: resets of what
//! was just begun (CVE-2023-44487), PING, SETTINGS, PRIORITY, WINDOW_UPDATE, and frames of data
//! that are empty or next to it.
//!
//! Two buckets that fill with time. Work fills them too, so that a busy connection, whose frames
//! of control are many, is not taken for a flood.

use crate::wire::frames::{FrameHead, Frames, InitialWindow, PREFACE, kind};

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    Resets,
    Control,
}

/// Bounds, each second and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRates {
    /// RST_STREAM.
    pub resets_per_second: u32,
    /// All other frames that bring nothing.
    pub control_per_second: u32,
}

/// Seconds of its rate that a bucket holds.
const BURST_S: u64 = 2;
/// Parts of a frame that a bucket counts, so that small credits can be given.
const UNIT: u64 = 1024;
/// Credit for a request: of two, one may be given up, and a few frames of control come with it.
const REQUEST_RESETS: u64 = UNIT / 2;
const REQUEST_CONTROL: u64 = 4 * UNIT;
/// Of a strict account, as many resets at once are all there may be.
const STRICT_RESETS: u64 = 20;
/// Credit for a frame of a body, which its receiver may acknowledge twice.
const DATA_CONTROL: u64 = 2 * UNIT;
/// Bytes sent that a client may acknowledge by one WINDOW_UPDATE. Of 40 responses that share a
/// window, each of whose frames is acknowledged twice at once, frames become as small as that.
const BYTES_PER_UPDATE: u64 = 64;
/// Data that is less: not even the shortest message of gRPC, whose head has as many bytes.
const DATA_BYTES_MIN: u32 = 5;
/// END_STREAM of DATA: an empty frame that ends a body brings something.
const END_STREAM: u8 = 1;

#[derive(Debug)]
struct Bucket {
    per_second: u64,
    level: u64,
}

impl Bucket {
    fn new(per_second: u32) -> Bucket {
        let per_second = u64::from(per_second);
        Bucket { per_second, level: per_second * BURST_S * UNIT }
    }

    fn most(&self) -> u64 {
        self.per_second * BURST_S * UNIT
    }

    fn add(&mut self, units: u64) {
        self.level = (self.level + units).min(self.most());
    }

    fn pass(&mut self, elapsed_ms: u64) {
        self.add(elapsed_ms.min(1000 * BURST_S) * self.per_second * UNIT / 1000);
    }

    /// Whether there was room for one frame more.
    fn take(&mut self) -> bool {
        self.take_units(UNIT)
    }

    fn take_units(&mut self, units: u64) -> bool {
        let left = self.level.checked_sub(units);
        self.level = left.unwrap_or(0);
        left.is_some()
    }
}

/// The account of one connection.
#[derive(Debug)]
pub struct FrameBudget {
    frames: Frames,
    window: InitialWindow,
    resets: Bucket,
    control: Bucket,
    is_strict: bool,
    at_ms: u64,
    sent_bytes: u64,
}

impl FrameBudget {
    /// Of a connection that begins at `now_ms` with a client's preface.
    pub fn new(rates: FrameRates, now_ms: u64) -> FrameBudget {
        FrameBudget {
            frames: Frames::after(PREFACE.len()),
            window: InitialWindow::default(),
            resets: Bucket::new(rates.resets_per_second),
            control: Bucket::new(rates.control_per_second),
            is_strict: false,
            at_ms: now_ms,
            sent_bytes: 0,
        }
    }

    /// Whether few resets are to be let pass: what they are of is not begun by now.
    pub fn judge_strictly(&mut self, is_strict: bool) {
        self.is_strict = is_strict;
    }

    /// Counts the frames that begin in `bytes`, received at `now_ms`; `sent_bytes` is what the
    /// client was sent until then. Answers how many they are.
    pub fn received(
        &mut self,
        mut bytes: &[u8],
        now_ms: u64,
        sent_bytes: u64,
    ) -> Result<u32, Flood> {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms);
        if elapsed_ms > 0 {
            self.at_ms = now_ms;
            self.resets.pass(elapsed_ms);
            self.control.pass(elapsed_ms);
        }
        let sent = sent_bytes.saturating_sub(self.sent_bytes) / BYTES_PER_UPDATE;
        self.sent_bytes += sent * BYTES_PER_UPDATE;
        self.control.add(sent * UNIT);
        let mut found = Ok(0);
        while let Some(frame) = self.frames.next(&mut bytes, |data| self.window.payload(data)) {
            self.window.begin(frame);
            // Followed to the end, so that the next bytes are taken for what they are.
            let counted = self.count(frame);
            found = found.and_then(|frames| counted.map(|()| frames + 1));
        }
        found
    }

    /// Bytes that the client takes of a response before it says more.
    pub fn initial_window(&self) -> u32 {
        self.window.bytes()
    }

    fn count(&mut self, frame: FrameHead) -> Result<(), Flood> {
        match frame.kind {
            kind::HEADERS => {
                self.resets.add(REQUEST_RESETS);
                self.control.add(REQUEST_CONTROL);
            }
            kind::DATA if frame.len >= DATA_BYTES_MIN => self.control.add(DATA_CONTROL),
            kind::DATA if frame.flags & END_STREAM != 0 => {}
            kind::RST_STREAM if !self.take_reset() => return Err(Flood::Resets),
            kind::RST_STREAM => {}
            _ if !self.control.take() => return Err(Flood::Control),
            _ => {}
        }
        Ok(())
    }

    fn take_reset(&mut self) -> bool {
        match self.is_strict {
            false => self.resets.take(),
            true => self.resets.take_units(UNIT.max(self.resets.most() / STRICT_RESETS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: FrameRates = FrameRates { resets_per_second: 10, control_per_second: 20 };

    fn budget() -> FrameBudget {
        let mut budget = FrameBudget::new(RATES, 0);
        assert_eq!(budget.received(PREFACE, 0, 0), Ok(0));
        budget
    }

    fn frame(kind: u8, len: u8, flags: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, len, kind, flags, 0, 0, 0, 1];
        bytes.resize(9 + usize::from(len), 0);
        bytes
    }

    /// How many of `frame` are let through at once.
    fn let_through(budget: &mut FrameBudget, frame: &[u8], now_ms: u64, sent: u64) -> usize {
        (0..10_000).take_while(|_| budget.received(frame, now_ms, sent).is_ok()).count()
    }

    #[test]
    fn a_strict_account_lets_few_resets_pass_and_all_else() {
        let rates = FrameRates { resets_per_second: 1000, control_per_second: 20 };
        let strict = |rates| {
            let mut budget = FrameBudget::new(rates, 0);
            assert_eq!(budget.received(PREFACE, 0, 0), Ok(0));
            budget.judge_strictly(true);
            budget
        };
        let reset = frame(kind::RST_STREAM, 4, 0);
        let passed = |rates, frame: &[u8]| let_through(&mut strict(rates), frame, 0, 0) as u64;
        assert_eq!(passed(rates, &reset), STRICT_RESETS);
        let ping = frame(kind::PING, 8, 0);
        assert_eq!(passed(rates, &ping), 40);
        let tight = FrameRates { resets_per_second: 2, ..rates };
        assert_eq!(passed(tight, &reset), 4, "no more than else");
        let mut budget = strict(rates);
        budget.judge_strictly(false);
        assert_eq!(let_through(&mut budget, &reset, 0, 0), 2000);
    }

    #[test]
    fn floods_end_at_the_burst() {
        for (kind, flood, burst) in [
            (kind::RST_STREAM, Flood::Resets, 20),
            (kind::PING, Flood::Control, 40),
            (kind::SETTINGS, Flood::Control, 40),
            (kind::PRIORITY, Flood::Control, 40),
            (kind::WINDOW_UPDATE, Flood::Control, 40),
            (kind::DATA, Flood::Control, 40),
            (kind::CONTINUATION, Flood::Control, 40),
            (200, Flood::Control, 40),
        ] {
            let mut budget = budget();
            let frame = frame(kind, 0, 0);
            assert_eq!(let_through(&mut budget, &frame, 0, 0), burst, "{kind}");
            assert_eq!(budget.received(&frame, 0, 0), Err(flood), "{kind}");
        }
    }

    #[test]
    fn data_of_a_few_bytes_is_as_good_as_none() {
        for (bytes, let_past) in [(1, 40), (4, 40), (5, 10_000), (100, 10_000)] {
            let data = frame(kind::DATA, bytes, 0);
            assert_eq!(let_through(&mut budget(), &data, 0, 0), let_past, "{bytes}");
            let last = frame(kind::DATA, bytes, END_STREAM);
            assert_eq!(let_through(&mut budget(), &last, 0, 0), 10_000, "{bytes}, the last");
        }
    }

    #[test]
    fn buckets_fill_with_time() {
        let mut budget = budget();
        let ping = frame(kind::PING, 8, 0);
        let_through(&mut budget, &ping, 0, 0);
        assert_eq!(let_through(&mut budget, &ping, 500, 0), 10);
        assert_eq!(let_through(&mut budget, &ping, 3_600_000, 0), 40, "no more than the burst");
    }

    #[test]
    fn work_fills_them_too() {
        let mut budget = budget();
        let (reset, update) = (frame(kind::RST_STREAM, 4, 0), frame(kind::WINDOW_UPDATE, 4, 0));
        let_through(&mut budget, &reset, 0, 0);
        let_through(&mut budget, &update, 0, 0);
        let (request, data) = (frame(kind::HEADERS, 3, 4), frame(kind::DATA, 5, 0));
        for _ in 0..10 {
            assert_eq!(budget.received(&request, 0, 0), Ok(1));
        }
        assert_eq!(let_through(&mut budget, &reset, 0, 0), 5, "every second one");
        let_through(&mut budget, &update, 0, 0);
        for _ in 0..5 {
            assert_eq!(budget.received(&data, 0, 0), Ok(1));
        }
        assert_eq!(let_through(&mut budget, &update, 0, 0), 10);
        assert_eq!(let_through(&mut budget, &update, 0, 5 * 64), 5);
        assert_eq!(let_through(&mut budget, &update, 0, 5 * 64), 0, "counted once");
    }

    #[test]
    fn every_request_given_up_at_once_is_a_flood() {
        let mut budget = budget();
        let pair = [frame(kind::HEADERS, 3, 5), frame(kind::RST_STREAM, 4, 0)].concat();
        assert_eq!(let_through(&mut budget, &pair, 0, 0), 39, "twice the burst, as half is earned");
    }

    #[test]
    fn an_empty_frame_that_ends_a_body_is_none() {
        let mut budget = budget();
        assert_eq!(let_through(&mut budget, &frame(kind::DATA, 0, 1), 0, 0), 10_000);
    }
}
