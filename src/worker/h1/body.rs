//! A request body over HTTP/1.1: what did not arrive with the head is read as the upstream takes
//! it, never faster.

use std::cell::Cell;

use crate::{
    policy::{Refusal, refusal},
    worker::{
        Worker,
        body::{Decoder, ReadError, Reader},
        buffers::Buffer,
        client::Client,
        clock::now_ms,
        exchange::RequestBody,
        net::Wait,
    },
};

/// After this much time spent waiting for a slow client its rate is looked at.
pub const RATE_GRACE_MS: u64 = 10_000;

/// Whether `bytes` in `waited_ms` is slower than `rate_min` bytes per second allows.
pub fn too_slow(bytes: u64, waited_ms: u64, rate_min: u32) -> bool {
    waited_ms > RATE_GRACE_MS && bytes.saturating_mul(1000) / waited_ms < u64::from(rate_min)
}

/// The body of the request being served.
pub struct H1Body<'c> {
    worker: &'c Worker,
    reader: Reader<'c>,
    wait: Wait,
    rate_min: u32,
    bytes: u64,
    bytes_max: u64,
    waited_ms: u64,
    /// Told to the response side, which may keep the connection only when this is true.
    received: &'c Cell<bool>,
}

impl<'c> H1Body<'c> {
    /// `decoder` has already taken the `arrived` data bytes that came with the head.
    pub fn new(
        worker: &'c Worker,
        client: &'c Client,
        decoder: Decoder,
        arrived: u64,
        wait: Wait,
        rate_min: u32,
    ) -> H1Body<'c> {
        client.received.set(decoder.ended());
        H1Body {
            worker,
            reader: Reader::new(&client.stream, decoder),
            wait,
            rate_min,
            bytes: arrived,
            bytes_max: u64::MAX,
            waited_ms: 0,
            received: &client.received,
        }
    }

    /// Bytes of an unfinished trailer section that came with the head.
    pub fn carry(&mut self, bytes: &[u8]) {
        self.reader.carry.extend_from_slice(bytes);
    }

    /// What was read beyond the body: the beginning of the next request.
    pub fn into_leftover(self) -> Vec<u8> {
        self.reader.carry
    }

    /// Refuses what came and what is announced as soon as it is too much.
    fn check_size(&self) -> Result<(), Refusal> {
        let bytes = self.bytes.saturating_add(self.reader.decoder.promised());
        if bytes > self.bytes_max { Err(refusal::BODY_TOO_LARGE.into()) } else { Ok(()) }
    }

    fn account(&mut self, data: usize, started_ms: u64) -> Result<(), Refusal> {
        if self.bytes > 0 {
            // The first bytes may rightly be late: the client may await 100 (Continue).
            self.waited_ms += now_ms() - started_ms;
        }
        self.bytes += data as u64;
        self.received.set(self.reader.decoder.ended());
        self.check_size()?;
        if too_slow(self.bytes, self.waited_ms, self.rate_min) && !self.ended() {
            return Err(refusal::BODY_TIMEOUT.into());
        }
        Ok(())
    }
}

impl RequestBody for H1Body<'_> {
    const IS_ONE_OF_MANY: bool = false;

    #[inline]
    fn limit(&mut self, bytes_max: u64, until_ms: u64) -> Result<(), Refusal> {
        self.bytes_max = bytes_max;
        self.wait.until_ms = until_ms;
        self.check_size()
    }

    fn ended(&self) -> bool {
        self.reader.decoder.ended()
    }

    fn left(&self) -> u64 {
        self.reader.decoder.left().unwrap_or(0)
    }

    fn append_arrived(&mut self, buf: &mut Buffer) {
        let before = buf.len();
        self.reader.append_arrived(buf);
        // No more than was announced, which `limit` has judged.
        self.bytes += (buf.len() - before) as u64;
        self.received.set(self.ended());
    }

    async fn next(&mut self) -> Result<Buffer, Refusal> {
        let started_ms = now_ms();
        let mut buf = self.reader.buffer(self.worker, u64::MAX);
        let refused = match self.reader.next(&mut buf, self.wait).await {
            Ok(()) => match self.account(buf.len(), started_ms) {
                Ok(()) => return Ok(buf),
                Err(refusal) => refusal,
            },
            Err(ReadError::Invalid(reason)) => reason.into(),
            Err(ReadError::TimedOut) if now_ms() >= self.wait.until_ms => {
                refusal::REQUEST_TIMEOUT.into()
            }
            Err(ReadError::TimedOut) => refusal::BODY_TIMEOUT.into(),
            Err(ReadError::Closed) => refusal::CLIENT_ABORTED.into(),
        };
        self.worker.buffers.give(buf);
        Err(refused)
    }

    fn trailer_lines(&self) -> &[u8] {
        self.reader.decoder.trailer_lines()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_judged_only_after_the_grace() {
        assert!(!too_slow(0, RATE_GRACE_MS, 240));
        assert!(too_slow(0, RATE_GRACE_MS + 1, 240));
        assert!(!too_slow(240 * 20, 20_000, 240));
        assert!(too_slow(239 * 20, 20_000, 240));
        assert!(!too_slow(0, u64::MAX, 0), "0 is off");
    }
}
