//! A request's body without its content coding, decoded as it comes.

use super::{
    Place,
    coding::{Bad, Decoder},
    codings,
};
use crate::{
    policy::{
        Refusal,
        compress::{Coding, Decompress},
        refusal,
    },
    wire::{Field, FieldId, Framing, emit},
    worker::{
        Worker,
        buffers::{Buffer, HEADROOM, TAILROOM},
        exchange::{Exchange, RequestBody, ResponseSink},
        generation::Generation,
        received::Received,
    },
};

/// Decoded bytes that are handed on at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Bodies that one worker decodes at once: each may need a window of 8 MiB.
const DECODERS_MAX: u32 = 64;

/// The body of a request that is forwarded decoded.
pub struct Inflated<'b, B> {
    worker: &'b Worker,
    inner: &'b mut B,
    flow: Flow,
    /// Decoded, and from where on it was not handed on.
    ready: (Vec<u8>, usize),
    _place: Place<'b>,
}

/// A decoder and what has gone through it.
struct Flow {
    decoder: Decoder,
    rule: Decompress,
    received: u64,
    produced: u64,
}

impl Flow {
    fn decode(&mut self, data: &[u8], last: bool) -> Result<Vec<u8>, Refusal> {
        self.received += data.len() as u64;
        let left = self.rule.most(self.received).saturating_sub(self.produced);
        let decoded = self.decoder.decode(data, left, last).map_err(|bad| match bad {
            Bad::Malformed => refusal::DECOMPRESS_MALFORMED,
            Bad::TooMuch => refusal::DECOMPRESS_TOO_MUCH,
        })?;
        self.produced += decoded.len() as u64;
        Ok(decoded)
    }
}

/// The coding of a request that has a body and one; `Err` for one that is not spoken here.
pub fn coding<S: ResponseSink>(
    exchange: &Exchange,
    sink: &mut S,
) -> Result<Option<Coding>, Refusal> {
    let has_body = exchange.head().framing != Framing::None;
    let mut written = codings(exchange);
    let Some(first) = written.next().filter(|_| has_body) else { return Ok(None) };
    match Coding::named(first).filter(|_| written.next().is_none()) {
        Some(coding) => Ok(Some(coding)),
        None => {
            // RFC 9110 §15.5.16.
            sink.add_fields(b"Accept-Encoding: zstd, br, gzip\r\n");
            Err(refusal::DECOMPRESS_CODING.into())
        }
    }
}

/// Has the exchange forward the decoded body.
pub fn begin<'b, B: RequestBody>(
    worker: &'b Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    (coding, rule): (Coding, Decompress),
    body: &'b mut B,
) -> Result<(Received, Inflated<'b, B>), Refusal> {
    let place = Place::take(&worker.coders.decoders, DECODERS_MAX).ok_or(refusal::OVERLOADED)?;
    let decoder = Decoder::new(coding).map_err(|_| refusal::OVERLOADED)?;
    let mut flow = Flow { decoder, rule, received: 0, produced: 0 };
    let arrived = flow.decode(exchange.text(exchange.arrived), body.ended())?;
    let is_out = |name: &[u8]| {
        name.eq_ignore_ascii_case(b"content-encoding") || super::request::is_digest(name)
    };
    let text = rewritten(exchange, &arrived, body.ended(), is_out);
    let received = Received::replace(exchange, text, &snapshot.limits.head)?;
    let body = Inflated { worker, inner: body, flow, ready: (Vec::new(), 0), _place: place };
    Ok((received, body))
}

/// The client's head without the fields that `is_out` names, and what is known of the body.
pub(super) fn rewritten(
    exchange: &Exchange,
    arrived: &[u8],
    is_all: bool,
    is_out: impl Fn(&[u8]) -> bool,
) -> (Vec<u8>, usize) {
    let (head, bytes) = (exchange.head(), exchange.bytes());
    let mut out = Vec::with_capacity(head.len + arrived.len() + 64);
    emit::request_line(&mut out, exchange.text(head.method_text), exchange.text(head.target), None);
    emit::kept_fields(&mut out, bytes, &head.fields, |field: &Field| {
        matches!(field.id, FieldId::ContentLength | FieldId::Expect) || is_out(field.name.of(bytes))
    });
    match is_all {
        true => emit::number_field(&mut out, b"content-length", arrived.len() as u64),
        false => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    emit::end(&mut out);
    let head_len = out.len();
    out.extend_from_slice(arrived);
    (out, head_len)
}

impl<B: RequestBody> RequestBody for Inflated<'_, B> {
    const IS_ONE_OF_MANY: bool = B::IS_ONE_OF_MANY;

    fn limit(&mut self, bytes_max: u64, until_ms: u64) -> Result<(), Refusal> {
        self.inner.limit(bytes_max, until_ms)
    }

    fn ended(&self) -> bool {
        self.inner.ended() && self.ready.1 >= self.ready.0.len()
    }

    fn left(&self) -> u64 {
        0
    }

    fn append_arrived(&mut self, _: &mut Buffer) {}

    async fn next(&mut self) -> Result<Buffer, Refusal> {
        if self.ready.1 >= self.ready.0.len() {
            let data = self.inner.next().await?;
            let decoded = self.flow.decode(data.bytes(), self.inner.ended());
            self.worker.buffers.give(data);
            self.ready = (decoded?, 0);
        }
        let (ready, at) = (&self.ready.0, self.ready.1);
        let piece = &ready[at..ready.len().min(at + PIECE_BYTES)];
        let mut buf = self.worker.buffers.at_least(HEADROOM + piece.len() + TAILROOM);
        buf.reset(HEADROOM);
        buf.append(piece);
        self.ready.1 += piece.len();
        Ok(buf)
    }

    fn trailer_lines(&self) -> &[u8] {
        self.inner.trailer_lines()
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
}
