//! Bodies that are checked before they go on (policy `validate`): held as a whole within a bound,
//! read, and forwarded as they came.
//!
//! A short body is checked at once. A longer one is an errand, so that no worker stands still for
//! it; while as many wait as may, a further one is refused.

use std::sync::Arc;

use super::{inflate::rewritten, request};
use crate::{
    policy::{
        Refusal, refusal,
        validate::{Body, Fault, Looked, Refused, Validation},
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
    request::go_on(exchange, body, sink).await?;
    let bytes = Arc::new(read(exchange, body, asked.bytes_max).await?);
    let verdict = match bytes.len() <= asked.bytes_max {
        true => verdict(worker, exchange, rule, (content, &bytes)).await?,
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

/// What a body is checked as.
fn content(exchange: &Exchange, asked: &Body) -> Result<Option<usize>, Refused> {
    let head = exchange.head();
    let named = |field: &&Field| exchange.text(field.name).eq_ignore_ascii_case(b"content-type");
    let media = head.fields.iter().filter(named).map(|field| exchange.text(field.value));
    let coding = exchange.field(b"content-encoding").unwrap_or_default().trim_ascii();
    asked.content(&Looked {
        method: exchange.text(head.method_text),
        has_body: !matches!(head.framing, Framing::None | Framing::Length(0)),
        length: match head.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        },
        media: &media.collect::<Vec<_>>(),
        is_encoded: !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"),
    })
}

/// The whole body, or what has come when it turns out to be too large.
async fn read<B: RequestBody>(
    exchange: &Exchange,
    body: &mut B,
    bytes_max: usize,
) -> Result<Vec<u8>, Refusal> {
    let mut bytes = exchange.text(exchange.arrived).to_vec();
    while !body.ended() && bytes.len() <= bytes_max {
        let more = body.next().await?;
        bytes.extend_from_slice(more.bytes());
    }
    Ok(bytes)
}

/// Whether a body is as it has to be.
async fn verdict(
    worker: &Worker,
    exchange: &Exchange,
    rule: &Arc<Validation>,
    (content, bytes): (usize, &Arc<Vec<u8>>),
) -> Result<Result<(), Refused>, Refusal> {
    if bytes.len() <= AT_ONCE_MAX {
        return Ok(decide(rule, content, bytes));
    }
    let (rule, bytes) = (rule.clone(), bytes.clone());
    let by_ms = exchange.until_ms.min(now_ms() + WAIT_MS);
    let errand = errand::errand(worker, by_ms, move || decide(&rule, content, &bytes)).await;
    errand.map_err(|_| refusal::VALIDATE_BUSY.into())
}

fn decide(rule: &Validation, content: usize, bytes: &[u8]) -> Result<(), Refused> {
    let Some(asked) = &rule.body else { return Ok(()) };
    match asked.contents.get(content) {
        Some(content) => content.kind.check(bytes, asked.depth_max),
        None => Err((refusal::VALIDATE_MEDIA, Fault::in_body("", "is not taken"))),
    }
}
