//! A request body over HTTP/2: DATA is taken as the upstream takes it, and only then may the client
//! send more (RFC 9113 §5.2).

use bytes::{Buf, Bytes};
use h2::RecvStream;

use super::text::is_padded;
use crate::{
    policy::{Refusal, refusal},
    wire::{Framing, HeadLimits, Parsed, chunked::Trailers, emit, reason},
    worker::{
        Worker, alarm::Alarm, buffers::Buffer, clock::now_ms, exchange::RequestBody,
        h1::body::too_slow, net::Wait,
    },
};

/// The body of one request.
pub struct H2Body<'w> {
    worker: &'w Worker,
    /// `None`: there is no body, what comes is a tunnel's.
    stream: Option<RecvStream>,
    /// Received, and larger than the buffer it was to go into.
    carry: Bytes,
    ended: bool,
    /// What the client said that it sends.
    announced: u64,
    wait: Wait,
    rate_min: u32,
    bytes: u64,
    bytes_max: u64,
    waited_ms: u64,
    trailer_lines: Vec<u8>,
    limits: HeadLimits,
    alarm: Option<Alarm>,
}

impl<'w> H2Body<'w> {
    /// `arrived` data bytes have been taken already; `limits` bound the trailers.
    pub fn new(
        worker: &'w Worker,
        stream: Option<RecvStream>,
        (framing, arrived): (Framing, u64),
        wait: Wait,
        rate_min: u32,
        limits: HeadLimits,
    ) -> H2Body<'w> {
        let announced = if let Framing::Length(bytes) = framing { bytes } else { 0 };
        H2Body {
            worker,
            ended: stream.as_ref().is_none_or(RecvStream::is_end_stream),
            stream,
            carry: Bytes::new(),
            announced,
            wait,
            rate_min,
            bytes: arrived,
            bytes_max: u64::MAX,
            waited_ms: 0,
            trailer_lines: Vec::new(),
            limits,
            alarm: None,
        }
    }

    fn check_size(&self) -> Result<(), Refusal> {
        let bytes = self.bytes.max(self.announced);
        if bytes > self.bytes_max { Err(refusal::BODY_TOO_LARGE.into()) } else { Ok(()) }
    }

    /// Waits for the next frame of data; `None` when the body has ended.
    async fn frame(&mut self) -> Result<Option<Bytes>, Refusal> {
        let by_ms = self.wait.at();
        let alarm = self.alarm.get_or_insert_with(|| self.worker.alarms.alarm());
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let data = alarm.by(by_ms, std::future::poll_fn(|cx| stream.poll_data(cx))).await;
        match data {
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(None) => {
                self.trailers(by_ms).await?;
                Ok(None)
            }
            Ok(Some(Err(_))) => Err(refusal::CLIENT_ABORTED.into()),
            Err(_) => Err(self.overdue()),
        }
    }

    fn overdue(&self) -> Refusal {
        match now_ms() >= self.wait.until_ms {
            true => refusal::REQUEST_TIMEOUT.into(),
            false => refusal::BODY_TIMEOUT.into(),
        }
    }

    /// Takes the trailers, under the rules of HTTP/1.1's.
    async fn trailers(&mut self, by_ms: u64) -> Result<(), Refusal> {
        let alarm = self.alarm.get_or_insert_with(|| self.worker.alarms.alarm());
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let trailers = alarm.by(by_ms, std::future::poll_fn(|cx| stream.poll_trailers(cx))).await;
        self.ended = true;
        let fields = match trailers {
            Ok(Ok(Some(fields))) => fields,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(_)) => return Err(refusal::CLIENT_ABORTED.into()),
            Err(_) => return Err(self.overdue()),
        };
        self.trailer_lines = lines(&fields, &self.limits).ok_or(reason::TRAILER_INVALID)?;
        Ok(())
    }

    fn account(&mut self, data: usize, started_ms: u64) -> Result<(), Refusal> {
        if self.bytes > 0 {
            self.waited_ms += now_ms() - started_ms;
        }
        self.bytes += data as u64;
        self.check_size()?;
        if too_slow(self.bytes, self.waited_ms, self.rate_min) && !self.ended {
            return Err(refusal::BODY_TIMEOUT.into());
        }
        Ok(())
    }

    /// Puts `data` into `buf`, with what else has arrived and finds room. The client may send as
    /// much again.
    fn fill(&mut self, buf: &mut Buffer, data: Bytes) {
        self.carry = data;
        let Some(stream) = &mut self.stream else { return };
        loop {
            let n = self.carry.len().min(buf.room());
            buf.append(&self.carry[..n]);
            self.carry.advance(n);
            // It only fails when the stream is over.
            let _ = stream.flow_control().release_capacity(n);
            if !self.carry.is_empty() || buf.room() == 0 {
                return;
            }
            match poll_now(stream) {
                Some(more) => self.carry = more,
                None => return,
            }
        }
    }
}

/// The lines of a trailer section that may be forwarded; `None` when one may not be a trailer.
pub fn lines(fields: &http::HeaderMap, limits: &HeadLimits) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for (name, value) in fields {
        if is_padded(value.as_bytes()) {
            return None;
        }
        emit::field(&mut text, name.as_str().as_bytes(), value.as_bytes());
    }
    emit::end(&mut text);
    let mut trailers = Trailers::default();
    match trailers.parse(&text, limits) {
        Ok(Parsed::Complete(())) => {}
        _ => return None,
    }
    let kept = trailers.fields.iter().filter(|field| !field.hop_by_hop);
    Some(kept.flat_map(|field| field.line.of(&text)).copied().collect())
}

/// Data that is there already.
fn poll_now(stream: &mut RecvStream) -> Option<Bytes> {
    use std::task::{Context, Poll, Waker};
    // Whoever waits next says whom to wake.
    let mut cx = Context::from_waker(Waker::noop());
    match stream.poll_data(&mut cx) {
        Poll::Ready(Some(Ok(bytes))) => Some(bytes),
        // What else there is to say is said again to whoever waits.
        _ => None,
    }
}

impl RequestBody for H2Body<'_> {
    const IS_ONE_OF_MANY: bool = true;

    fn limit(&mut self, bytes_max: u64, until_ms: u64) -> Result<(), Refusal> {
        self.bytes_max = bytes_max;
        self.wait.until_ms = until_ms;
        self.check_size()
    }

    fn ended(&self) -> bool {
        self.ended
    }

    fn left(&self) -> u64 {
        0
    }

    fn append_arrived(&mut self, _: &mut Buffer) {}

    async fn next(&mut self) -> Result<Buffer, Refusal> {
        let started_ms = now_ms();
        let data = match std::mem::take(&mut self.carry) {
            carry if carry.is_empty() => self.frame().await?,
            carry => Some(carry),
        };
        let mut buf = self.worker.buffers.relay(None);
        if let Some(data) = data {
            self.fill(&mut buf, data);
            let is_over = self.stream.as_ref().is_none_or(RecvStream::is_end_stream);
            self.ended = self.carry.is_empty() && is_over;
        }
        match self.account(buf.len(), started_ms) {
            Ok(()) => Ok(buf),
            Err(refusal) => {
                self.worker.buffers.give(buf);
                Err(refusal)
            }
        }
    }

    fn trailer_lines(&self) -> &[u8] {
        &self.trailer_lines
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}
