//! A body that is held until it is known to be what its signed digest says.

use super::request::read;
use crate::{
    policy::{Refusal, signature::digest},
    wire::{Field, FieldId, emit},
    worker::{
        exchange::{Exchange, RequestBody, ResponseSink},
        generation::Generation,
        received::{Received, Whole},
    },
};

/// Reads the whole body, compares it with the request's Content-Digest, and has the exchange
/// forward it.
pub async fn body<B: RequestBody, S: ResponseSink>(
    exchange: &mut Exchange,
    snapshot: &Generation,
    bytes_max: usize,
    body: &mut B,
    sink: &mut S,
) -> Result<(Received, Whole), Refusal> {
    let whole = read(exchange, body, sink, bytes_max).await?;
    let is_it = |field: &&Field| exchange.text(field.name).eq_ignore_ascii_case(b"content-digest");
    let lines = exchange.head().fields.iter().filter(is_it);
    let told: Vec<&[u8]> = lines.map(|field| exchange.text(field.value)).collect();
    digest::check(&told.join(&b", "[..]), &whole).map_err(Refusal::from)?;
    let received = Received::replace(exchange, same(exchange, &whole), &snapshot.limits.head)?;
    Ok((received, Whole(body.bytes())))
}

/// The client's own head, with the body behind it.
fn same(exchange: &Exchange, body: &[u8]) -> (Vec<u8>, usize) {
    let (head, bytes) = (exchange.head(), exchange.bytes());
    let mut out = Vec::with_capacity(head.len + body.len() + 64);
    emit::request_line(&mut out, exchange.text(head.method_text), exchange.text(head.target), None);
    emit::kept_fields(&mut out, bytes, &head.fields, |field: &Field| {
        matches!(field.id, FieldId::ContentLength | FieldId::Expect | FieldId::Trailer)
    });
    emit::number_field(&mut out, b"content-length", body.len() as u64);
    emit::end(&mut out);
    let head_len = out.len();
    out.extend_from_slice(body);
    (out, head_len)
}
