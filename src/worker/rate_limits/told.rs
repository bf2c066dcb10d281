//! What a client is told of its limits: RateLimit fields, and when to come back.

use super::quota;
use crate::{
    config::snapshot::RateLimit,
    policy::{
        Refusal,
        limit::{Left, Moment, fields, moment, nanos},
        refusal,
    },
    worker::{Worker, clock::now_ns, exchange::ResponseSink},
};

/// Says what is left of a limit.
pub(super) fn tell<S: ResponseSink>(worker: &Worker, rule: &RateLimit, left: Left, sink: &mut S) {
    let mut lines = worker.scratch.take();
    lines.clear();
    if rule.tells {
        rule.names.write(left, &mut lines);
    }
    if rule.tells_old {
        fields::write_old(&rule.windows, left, &mut lines);
    }
    sink.add_fields(&lines);
    worker.scratch.set(lines);
}

/// The refusal of a request whose key has enough again at `until`.
#[cold]
pub(super) fn refused<S: ResponseSink>(
    worker: &Worker,
    rule: &RateLimit,
    until: Moment,
    sink: &mut S,
) -> Refusal {
    let wait_ns = match rule.quota {
        None => nanos(until.saturating_sub(moment(now_ns()))),
        Some(calendar) => quota::until_next_ns(calendar),
    };
    let retry_after_s = wait_ns.div_ceil(1_000_000_000).clamp(1, u64::from(u32::MAX)) as u32;
    let left = Left { full_in_ns: wait_ns, ..Left::default() };
    let mut lines = worker.scratch.take();
    lines.clear();
    rule.names.write(left, &mut lines);
    if rule.tells_old {
        fields::write_old(&rule.windows, left, &mut lines);
    }
    sink.add_fields(&lines);
    worker.scratch.set(lines);
    let reason = if rule.quota.is_some() { refusal::QUOTA } else { refusal::RATE_LIMITED };
    Refusal { retry_after_s, ..reason.into() }
}
