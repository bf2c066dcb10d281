//! What a route's policies do with a request before it is forwarded, in their order. The decisions
//! are `policy`'s; here is what they need of the worker, and what becomes of them.
//!
//! ```text
//! maintenance                          503
//! rate limits that need no identity    429
//! authenticate → Identity              401
//! authorise → Permit
//! rate limits of identities, and plans 429
//! ```
//!
//! A phase that can be decided at once does not wait; what may wait is boxed, so that it costs the
//! others nothing. What a policy has to tell the client with the response, whoever makes that, it
//! adds to the sink (`ResponseSink::add_fields`); what it tells the upstream, to the exchange
//! ([`UpstreamFields`]).

use std::borrow::Cow;

use super::{
    Worker, auth,
    exchange::{Exchange, ResponseSink},
    generation::Generation,
    rate_limits,
};
use crate::{
    config::snapshot::{LimitId, Policies},
    policy::{Refusal, permit::Permit, refusal},
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
    /// The query, where it is not the request's own; empty: none.
    pub query: Option<Vec<u8>>,
    /// What is left of the request's cookies, where a policy takes some out; empty: none.
    pub cookies: Option<Vec<u8>>,
}

impl UpstreamFields {
    /// Whether a field of the client's is left out.
    pub fn drops(&self, name: &[u8]) -> bool {
        self.dropped.iter().any(|dropped| is_same_field(dropped, name))
    }

    /// Leaves a field of the client's out; its name in lower case.
    pub fn drop_field(&mut self, name: &[u8]) {
        if !self.dropped.iter().any(|dropped| &**dropped == name) {
            self.dropped.push(name.into());
        }
    }

    /// Has the upstream get this field, and no other of its name.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.dropped.push(name.to_ascii_lowercase().into());
        crate::wire::emit::field(&mut self.lines, name, value);
    }
}

/// Whether an upstream may take one field for the other: gateways to programs (CGI, WSGI) write
/// dashes as underscores. `own` is in lower case.
pub fn is_same_field(own: &[u8], name: &[u8]) -> bool {
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    own.len() == name.len() && own.iter().zip(name).all(|(a, b)| folded(*a) == folded(*b))
}

/// Rate limits of the plan of the consumer that the request is from, but for those that the route
/// has asked already.
fn plan_limits<'s>(
    snapshot: &'s Generation,
    exchange: &Exchange,
    policies: &Policies,
) -> Option<Cow<'s, [LimitId]>> {
    let consumer = exchange.identity.as_ref()?.consumer?;
    let limits = &*snapshot.consumers.plan(consumer)?.rate_limits;
    let own = policies.rate_limits.as_deref();
    let is_asked =
        |id: &LimitId| own.is_some_and(|own| own.early.contains(id) || own.late.contains(id));
    match limits.iter().any(is_asked) {
        false => Some(Cow::Borrowed(limits)),
        true => Some(limits.iter().copied().filter(|id| !is_asked(id)).collect()),
    }
}

/// The phases of a route that has policies.
pub async fn before<S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    policies: &Policies,
    sink: &mut S,
) -> Result<Passed, Refusal> {
    if let Some(maintenance) = &policies.maintenance {
        let retry_after_s = maintenance.retry_after_s;
        return Err(Refusal { retry_after_s, ..refusal::MAINTENANCE.into() });
    }
    if let Some(limits) = &policies.rate_limits {
        rate_limits::admit(worker, snapshot, exchange, &limits.early, sink).await?;
    }
    if let Some(rule) = &policies.authenticate {
        auth::authenticate(worker, snapshot, exchange, rule, sink).await?;
    }
    let permit = Permit::of_open_route();
    if let Some(limits) = &policies.rate_limits {
        rate_limits::admit(worker, snapshot, exchange, &limits.late, sink).await?;
    }
    if let Some(limits) = plan_limits(snapshot, exchange, policies) {
        rate_limits::admit(worker, snapshot, exchange, &limits, sink).await?;
    }
    Ok(Passed::On(permit))
}
