//! A request that is forwarded as another one: its head and body written anew, as if the client had
//! sent them so.
//!
//! Invariant: the client's own bytes are put back when it is over, with what follows them.

use super::{
    buffers::{Buffer, TAILROOM},
    exchange::{Exchange, Request, RequestBody},
};
use crate::{
    policy::Refusal,
    telemetry::request_id::RequestId,
    wire::{FieldId, HeadLimits, Parsed, Span},
};

/// What the client sent, while the exchange has something else in its place.
pub struct Received {
    buf: Buffer,
    request: Box<Request>,
    arrived: Span,
    rest: usize,
    id: RequestId,
}

/// A body of which all is there, with the head; the number is that of the client's bytes.
pub struct Whole(pub u64);

impl RequestBody for Whole {
    /// Its buffer is as large as it is.
    const IS_ONE_OF_MANY: bool = true;

    fn limit(&mut self, _: u64, _: u64) -> Result<(), Refusal> {
        Ok(())
    }

    fn ended(&self) -> bool {
        true
    }

    fn left(&self) -> u64 {
        0
    }

    fn append_arrived(&mut self, _: &mut Buffer) {}

    async fn next(&mut self) -> Result<Buffer, Refusal> {
        Ok(Buffer::default())
    }

    fn trailer_lines(&self) -> &[u8] {
        b""
    }

    fn bytes(&self) -> u64 {
        self.0
    }
}

impl Received {
    /// Puts `text` in the place of what the client sent: a head of `head_len` bytes, and all that
    /// is known of its body.
    pub fn replace(
        exchange: &mut Exchange,
        (text, head_len): (Vec<u8>, usize),
        limits: &HeadLimits,
    ) -> Result<Received, Refusal> {
        let mut request = Box::<Request>::default();
        // A few fields more than the client sent.
        let limits = HeadLimits {
            head_bytes_max: limits.head_bytes_max.saturating_add(256),
            fields_max: limits.fields_max.saturating_add(4),
            ..*limits
        };
        match request.head.parse(&text, &limits) {
            Ok(Parsed::Complete(())) if request.head.len == head_len => {}
            // Not reached: it was well-formed before.
            _ => return Err(crate::wire::reason::MALFORMED_HEAD.into()),
        }
        request.head.version = exchange.head().version;
        std::mem::swap(&mut request.path, &mut exchange.request.path);
        let mut buf = Buffer::with_capacity(text.len() + TAILROOM + 1);
        buf.append(&text);
        let id = match exchange.id {
            RequestId::Kept(_) => {
                let kept = request.head.fields.iter().find(|f| f.id == FieldId::XRequestId);
                kept.map_or(RequestId::Off, |field| RequestId::Kept(field.value))
            }
            other => other,
        };
        Ok(Received {
            arrived: std::mem::replace(&mut exchange.arrived, Span::new(head_len, text.len())),
            rest: std::mem::replace(&mut exchange.rest, text.len()),
            buf: std::mem::replace(&mut exchange.buf, buf),
            request: std::mem::replace(&mut exchange.request, request),
            id: std::mem::replace(&mut exchange.id, id),
        })
    }

    /// Puts the client's own back, with what follows it.
    pub fn put_back(mut self, exchange: &mut Exchange) {
        std::mem::swap(&mut self.request.path, &mut exchange.request.path);
        exchange.buf = self.buf;
        exchange.request = self.request;
        exchange.arrived = self.arrived;
        exchange.rest = self.rest;
        exchange.id = self.id;
    }
}
