//! Bodies that are checked before they go on (policy `validate`): held as a whole within a bound,
//! read, and forwarded as they came.
//!
//! A short body is checked at once, where it is if it came with the head. A longer one is an
//! errand, so that no worker stands still for it, and so is whatever has a schema that takes time;
//! while as many wait as may, a further one is refused.

use std::sync::Arc;

use super::{codings, inflate::rewritten, request};
use crate::{
    policy::{
        Refusal, refusal,
        validate::{Asked, Body, Fault, Looked, Refused, Validation},
    },
    wire::{Field, Framing},
    worker::{
        Worker,
        clock::now_ms,
        errand,
        exchange::{Exchange, RequestBody, ResponseSink},
        generation::Generation,
        policies,
        received::Received,
    },
};

/// Bytes of a body that is checked at once, in well under a millisecond.
const AT_ONCE_MAX: usize = 16 * 1024;
/// Longest wait for a body to be checked.
const WAIT_MS: u64 = 5000;

/// What has become of a body.
pub enum Checked {
    /// It goes on as it comes.
    Untouched,
    /// It was read, and the exchange has it, wholly.
    Whole(Received),
    /// The exchange has what was read of it; nobody is refused, and more is to come.
    Begun(Received),
}

/// Looks at a body, and refuses the request where that is not as it has to be.
pub async fn check<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    rule: &Arc<Validation>,
    (body, sink): (&mut B, &mut S),
) -> Result<Checked, Refusal> {
    let Some(asked) = &rule.body else { return Ok(Checked::Untouched) };
    let content = match content(exchange, asked) {
        Ok(Some(content)) => content,
        Ok(None) => return Ok(Checked::Untouched),
        Err(refused) => {
            policies::refuse_or_explain(worker, exchange, refused, rule.shadow, sink)?;
            return Ok(Checked::Untouched);
        }
    };
    if is_there(exchange, body) && is_short(asked, content, exchange.arrived.len()) {
        let verdict = decide(rule, content, exchange.text(exchange.arrived));
        if let Err(refused) = verdict {
            policies::refuse_or_explain(worker, exchange, refused, rule.shadow, sink)?;
        }
        return Ok(Checked::Untouched);
    }
    request::go_on(exchange, body, sink).await?;
    let bytes = Arc::new(read(worker, exchange, body, asked.bytes_max).await?);
    let verdict = match bytes.len() <= asked.bytes_max {
        true => verdict(worker, exchange, rule, (content, &bytes)).await,
        false => Err(asked.too_large()),
    };
    if let Err(refused) = verdict {
        policies::refuse_or_explain(worker, exchange, refused, rule.shadow, sink)?;
    }
    // Not a byte of the body is another, so its digests stay.
    let is_whole = body.ended();
    let is_out = |name: &[u8]| is_whole && name.eq_ignore_ascii_case(b"trailer");
    let text = rewritten(exchange, &bytes, is_whole, is_out);
    let received = Received::replace(exchange, text, &snapshot.limits.head)?;
    Ok(if is_whole { Checked::Whole(received) } else { Checked::Begun(received) })
}

/// Looks at parameters, and refuses the request where they are not as they have to be.
pub async fn check_parameters<S: ResponseSink>(
    worker: &Worker,
    exchange: &Exchange,
    rule: &Arc<Validation>,
    asked: Asked<'_>,
    sink: &mut S,
) -> Result<(), Refusal> {
    let checked = match rule.parameters(asked) {
        Ok(slow) if slow.is_empty() => return Ok(()),
        Ok(slow) => {
            let rule = rule.clone();
            Box::pin(beside(worker, exchange, move || rule.slow(&slow))).await
        }
        Err(refused) => Err(refused),
    };
    match checked {
        Ok(()) => Ok(()),
        Err(refused) => policies::refuse_or_explain(worker, exchange, refused, rule.shadow, sink),
    }
}

/// All of a body came with its head, and nothing else does: no chunks, no trailers.
fn is_there<B: RequestBody>(exchange: &Exchange, body: &B) -> bool {
    let is_plain = matches!(exchange.head().framing, Framing::Length(length)
        if length == exchange.arrived.len() as u64);
    is_plain && body.ended() && body.trailer_lines().is_empty()
}

/// A check of so many bytes holds no worker up.
fn is_short(asked: &Body, content: usize, len: usize) -> bool {
    len <= AT_ONCE_MAX.min(asked.bytes_max)
        && asked.contents.get(content).is_some_and(|content| !content.kind.is_slow())
}

/// What a body is checked as.
fn content(exchange: &Exchange, asked: &Body) -> Result<Option<usize>, Refused> {
    let head = exchange.head();
    let named = |field: &&Field| exchange.text(field.name).eq_ignore_ascii_case(b"content-type");
    let media = head.fields.iter().filter(named).map(|field| exchange.text(field.value));
    asked.content(&Looked {
        method: exchange.text(head.method_text),
        has_body: !matches!(head.framing, Framing::None | Framing::Length(0)),
        length: match head.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        },
        media: &media.collect::<Vec<_>>(),
        is_encoded: codings(exchange).next().is_some(),
    })
}

/// The whole body, or what has come when it turns out to be too large.
async fn read<B: RequestBody>(
    worker: &Worker,
    exchange: &Exchange,
    body: &mut B,
    bytes_max: usize,
) -> Result<Vec<u8>, Refusal> {
    let mut bytes = exchange.text(exchange.arrived).to_vec();
    while !body.ended() && bytes.len() <= bytes_max {
        let more = body.next().await?;
        bytes.extend_from_slice(more.bytes());
        worker.buffers.give(more);
    }
    Ok(bytes)
}

/// Whether a body is as it has to be.
async fn verdict(
    worker: &Worker,
    exchange: &Exchange,
    rule: &Arc<Validation>,
    (content, bytes): (usize, &Arc<Vec<u8>>),
) -> Result<(), Refused> {
    if rule.body.as_ref().is_some_and(|asked| is_short(asked, content, bytes.len())) {
        return decide(rule, content, bytes);
    }
    let (rule, bytes) = (rule.clone(), bytes.clone());
    beside(worker, exchange, move || decide(&rule, content, &bytes)).await
}

/// What comes of a check that somebody else does.
async fn beside(
    worker: &Worker,
    exchange: &Exchange,
    check: impl FnOnce() -> Result<(), Refused> + Send + 'static,
) -> Result<(), Refused> {
    let by_ms = exchange.until_ms.min(now_ms() + WAIT_MS);
    errand::errand(worker, by_ms, check).await.unwrap_or_else(|_| {
        let what = "could not be checked in time: too much is being checked";
        Err((refusal::VALIDATE_BUSY, Fault::in_body("", what)))
    })
}

fn decide(rule: &Validation, content: usize, bytes: &[u8]) -> Result<(), Refused> {
    let Some(asked) = &rule.body else { return Ok(()) };
    match asked.contents.get(content) {
        Some(content) => content.kind.check(bytes, asked.depth_max),
        None => Err((refusal::VALIDATE_MEDIA, Fault::in_body("", "is not taken"))),
    }
}
