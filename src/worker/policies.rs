//! What a route's policies do with a request before it is forwarded, in their order. The decisions
//! are `policy`'s; here is what they need of the worker, and what becomes of them.
//!
//! ```text
//! maintenance                          503
//! address lists                        403
//! authorise → Permit
//! ```
//!
//! A phase that can be decided at once does not wait; what may wait is boxed, so that it costs the
//! others nothing. What a policy has to tell the client with the response, whoever makes that, it
//! adds to the sink (`ResponseSink::add_fields`); what it tells the upstream, to the exchange
//! ([`UpstreamFields`]).

use super::{Worker, exchange::Exchange};
use crate::{
    config::snapshot::Policies,
    policy::{
        Refusal,
        addresses::{Addresses, Verdict},
        permit::Permit,
        refusal,
    },
    wire::Reason,
};

/// What the phases come to, unless they refuse.
#[derive(Debug)]
pub enum Passed {
    /// The request may be forwarded, or answered as the route says.
    On(Permit),
    /// The client has its response.
    Answered,
}

/// Fields of the request that the upstream gets beside the client's, or instead of them.
#[derive(Debug, Default)]
pub struct UpstreamFields {
    /// Names, in lower case, of fields of the client's that are left out.
    pub dropped: Vec<Box<[u8]>>,
    /// Whole lines.
    pub lines: Vec<u8>,
}

impl UpstreamFields {
    /// Whether a field of the client's is left out.
    pub fn drops(&self, name: &[u8]) -> bool {
        self.dropped.iter().any(|dropped| dropped.eq_ignore_ascii_case(name))
    }

    /// Has the upstream get this field, and no other of its name.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.dropped.push(name.to_ascii_lowercase().into());
        crate::wire::emit::field(&mut self.lines, name, value);
    }
}

/// The phases of a route that has policies.
pub fn before(
    worker: &Worker,
    exchange: &mut Exchange,
    policies: &Policies,
) -> Result<Passed, Refusal> {
    if let Some(maintenance) = &policies.maintenance {
        let retry_after_s = maintenance.retry_after_s;
        return Err(Refusal { retry_after_s, ..refusal::MAINTENANCE.into() });
    }
    if let Some(addresses) = &policies.addresses {
        by_address(worker, exchange, addresses)?;
    }
    Ok(Passed::On(Permit::of_open_route()))
}

/// Refuses, or only tells so where the policy is in shadow mode.
fn refuse_or_tell(
    worker: &Worker,
    exchange: &Exchange,
    reason: &'static Reason,
    is_shadow: bool,
) -> Result<(), Refusal> {
    if !is_shadow {
        return Err(reason.into());
    }
    worker.metrics.shadow(reason);
    exchange.record.shadow(reason);
    Ok(())
}

fn by_address(worker: &Worker, exchange: &Exchange, addresses: &Addresses) -> Result<(), Refusal> {
    match addresses.verdict(exchange.client.ip) {
        Verdict::Allowed(_) => Ok(()),
        Verdict::Denied(_) | Verdict::NotAllowed => {
            refuse_or_tell(worker, exchange, refusal::CLIENT_ADDRESS, addresses.shadow)
        }
    }
}
