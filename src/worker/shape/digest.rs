//! A body that is held until it is known to be what its signed digest says.

use super::{inflate::rewritten, request::read};
use crate::{
    policy::{Refusal, signature::digest},
    wire::Field,
    worker::{
        Worker,
        exchange::{Exchange, RequestBody, ResponseSink},
        generation::Generation,
        received::{Received, Whole},
    },
};

/// Reads the whole body, compares it with the request's Content-Digest, and has the exchange
/// forward it.
pub async fn body<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    exchange: &mut Exchange,
    (snapshot, bytes_max): (&Generation, usize),
    body: &mut B,
    sink: &mut S,
) -> Result<(Received, Whole), Refusal> {
    let whole = read(worker, exchange, body, sink, bytes_max).await?;
    let is_it = |field: &&Field| exchange.text(field.name).eq_ignore_ascii_case(b"content-digest");
    let lines = exchange.head().fields.iter().filter(is_it);
    let told: Vec<&[u8]> = lines.map(|field| exchange.text(field.value)).collect();
    digest::check(&told.join(&b", "[..]), &whole).map_err(Refusal::from)?;
    // Its trailers are not forwarded.
    let is_out = |name: &[u8]| name.eq_ignore_ascii_case(b"trailer");
    let text = rewritten(exchange, &whole, true, is_out);
    let received = Received::replace(exchange, text, &snapshot.limits.head)?;
    Ok((received, Whole(body.bytes())))
}
