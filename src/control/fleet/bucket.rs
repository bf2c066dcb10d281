//! What the server is told of buckets, and what it answers: one script for each, which the server
//! runs in one step by its own clock.
//!
//! The server is told the script's digest; one that does not know it gets its text once.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::{Cmd, Value, cmd};

use crate::{
    config::snapshot::FleetOrder,
    policy::limit::{Left, fleet::PARTS},
    worker::rate_limits::fleet::Lease,
};

pub const SCRIPT: &str = include_str!("bucket.lua");

/// The digest by which servers know it.
pub fn name() -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, SCRIPT.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The command for one order; `run` is `EVALSHA` and the digest, or `EVAL` and the text.
pub fn command(run: (&str, &str), order: &FleetOrder) -> Cmd {
    let (shared, ask) = (&order.shared, order.order.ask.unwrap_or_default());
    let mut command = cmd(run.0);
    command.arg(run.1).arg(1).arg(format!("{}{:016x}", shared.prefix, order.order.key));
    let numbers = [order.order.given, order.order.charged, ask.want, ask.least, ask.used, PARTS];
    for number in numbers {
        command.arg(number);
    }
    for window in &shared.windows {
        command.arg(window.burst).arg(window.fills_us());
    }
    command
}

/// What the server answered; `None`: not what the script answers.
pub fn lease(order: &FleetOrder, answer: &Value) -> Option<Lease> {
    let Value::Array(values) = answer else { return None };
    let mut numbers = [0u64; 5];
    for (at, number) in numbers.iter_mut().enumerate() {
        let Some(Value::Int(value)) = values.get(at) else { return None };
        *number = u64::try_from(*value).ok()?;
    }
    let [tokens, left, full_us, window, empty_us] = numbers;
    let tokens_of = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Some(Lease {
        limit: order.limit,
        key: order.order.key,
        tokens: tokens_of(tokens),
        empty_ns: empty_us.saturating_mul(1000),
        left: Left {
            tokens: tokens_of(left),
            full_in_ns: full_us.saturating_mul(1000),
            window: u8::try_from(window).unwrap_or(0),
            is_free: false,
        },
    })
}
