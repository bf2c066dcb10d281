//! What a route's policies do with a request before it is forwarded, in their order. The decisions
//! are `policy`'s; here is what they need of the worker, and what becomes of them.
//!
//! ```text
//! maintenance                          503
//! address lists                        403
//! CORS (preflights are answered here)  204 403
//! User-Agent, CSRF                     403
//! rate limits that need no identity    429
//! authenticate → Identity              401
//! authorise → Permit                   401 403
//! rate limits of identities, and plans 429
//! quotas                               429
//! validate                             400 413 415 422 503
//! transform request                    400 413
//! requests in progress                 429 503
//! ```
//!
//! A phase that can be decided at once does not wait; what may wait is boxed, so that it costs the
//! others nothing. What a policy has to tell the client with the response, whoever makes that, it
//! adds to the sink (`ResponseSink::add_fields`); what it tells the upstream, to the exchange
//! ([`UpstreamFields`]).

use rustix::time::{ClockId, clock_gettime};

use super::{
    Worker,
    auth::{self, Entered},
    exchange::{Exchange, OwnResponse, ResponseSink},
    generation::Generation,
    rate_limits::{self, Taken},
    reshape::Dropped,
    respond, shape,
};
use crate::{
    config::snapshot::{Maintenance, Policies},
    policy::{
        Refusal,
        addresses::{Addresses, Verdict},
        authorize::Facts,
        cors::{
            Cors,
            preflight::{self, Preflight},
        },
        pairs::is_same_field,
        permit::{Asked, Permit},
        refusal,
        route::{RequestView, RouteMatch},
        validate::{Asked as Checked, Refused},
    },
    wire::Reason,
};

/// What the phases come to, unless they refuse.
#[derive(Debug)]
pub enum Passed {
    /// The request may be forwarded, or answered as the route says. What it took of its limits.
    On(Permit, Taken),
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
    /// The method, when it is another one.
    pub method: Option<Box<[u8]>>,
    /// Path and query, when they are others.
    pub target: Option<Vec<u8>>,
    /// The query, where it is not the request's own; empty: none.
    pub query: Option<Vec<u8>>,
    /// What is left of the request's cookies, where a policy takes some out; empty: none.
    pub cookies: Option<Vec<u8>>,
    /// The upstream gets a body only when it is what its digest says; it is held up to so many
    /// bytes.
    pub digested: Option<usize>,
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

    /// Appends what the upstream gets beside the client's fields.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Some(cookies) = self.cookies.as_ref().filter(|cookies| !cookies.is_empty()) {
            crate::wire::emit::field(out, b"Cookie", cookies);
        }
        out.extend_from_slice(&self.lines);
    }

    /// Has the upstream get this field, and no other of its name.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.dropped.push(name.to_ascii_lowercase().into());
        crate::wire::emit::field(&mut self.lines, name, value);
    }
}

/// What is said to the client with the response, whoever makes that: also with refusals, so that
/// browsers show them to pages.
pub fn tell<S: ResponseSink>(exchange: &Exchange, policies: &Policies, sink: &mut S) {
    if let Some(cors) = &policies.cors
        && preflight::of(&exchange.view()).is_none()
    {
        let mut lines = Vec::with_capacity(160);
        let origin = preflight::single(exchange.head(), exchange.bytes(), b"origin");
        cors.fields(origin, &mut lines);
        if cors.keeps_upstreams {
            sink.reshape().unless = Some((b"access-control-allow-origin", lines));
        } else {
            sink.add_fields(&lines);
            sink.reshape().dropped.push(Dropped::Prefix(b"access-control-"));
        }
    }
    if let Some(lines) = &policies.security_lines {
        sink.reshape().unless_named.extend_from_slice(lines);
    }
}

/// The phases of a route that has policies.
pub async fn before<S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    (matched, asked): (&RouteMatch, Asked<'_, Policies>),
    sink: &mut S,
) -> Result<Passed, Refusal> {
    let policies = asked.policies();
    let view = exchange.view();
    let preflight = policies.cors.as_ref().and_then(|cors| Some((cors, preflight::of(&view)?)));
    if let Some(maintenance) = &policies.maintenance
        && preflight.is_none()
        && maintenance.allow.find(exchange.client.ip).is_none()
    {
        return Err(Box::pin(close(maintenance, sink)).await);
    }
    if let Some(addresses) = &policies.addresses {
        by_address(worker, exchange, addresses)?;
    }
    if let Some((cors, preflight)) = preflight {
        Box::pin(answer(cors, &preflight, sink)).await?;
        return Ok(Passed::Answered);
    }
    if let Some(rule) = &policies.user_agents
        && rule.refuse(exchange.field(b"user-agent"))
    {
        refuse_or_tell(worker, exchange, refusal::USER_AGENT, rule.shadow)?;
    }
    if let Some(rule) = &policies.csrf
        && rule.refuse(&view, exchange.text(exchange.head().authority))
    {
        refuse_or_tell(worker, exchange, refusal::CSRF_ORIGIN, rule.shadow)?;
    }
    if !policies.own_cookies.is_empty() {
        auth::keep_own_cookies(exchange, &policies.own_cookies);
    }
    let mut taken = Taken::default();
    if let Some(limits) = &policies.rate_limits {
        let early = (limits.early.iter().copied(), &mut taken);
        rate_limits::admit(worker, snapshot, exchange, policies, early, sink).await?;
    }
    if let Some(rule) = &policies.authenticate
        && auth::authenticate(worker, snapshot, exchange, rule, sink).await? == Entered::Answered
    {
        return Ok(Passed::Answered);
    }
    let permit = match authorise(worker, snapshot, exchange, matched, asked) {
        Ok(permit) => permit,
        Err(refusal) => {
            let entered = auth::refused(worker, snapshot, exchange, policies, refusal, sink);
            return Box::pin(entered).await.map(|()| Passed::Answered);
        }
    };
    if policies.rate_limits.is_some() || exchange.identity.is_some() {
        let late = (rate_limits::late(snapshot, exchange, policies), &mut taken);
        rate_limits::admit(worker, snapshot, exchange, policies, late, sink).await?;
    }
    if let Some(rule) = &policies.validate {
        // As the upstream gets it: without credentials that are not for it.
        let view = RequestView { query: exchange.upstream_query(), ..exchange.view() };
        let asked = Checked { view: &view, matched };
        shape::check_parameters(worker, exchange, rule, asked, sink).await?;
    }
    shape::request(snapshot, exchange, matched, policies)?;
    Ok(Passed::On(permit, taken))
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
    told(worker, exchange, reason);
    Ok(())
}

/// The same of what is wrong with a request, which its client is told.
pub(super) fn refuse_or_explain<S: ResponseSink>(
    worker: &Worker,
    exchange: &Exchange,
    (reason, fault): Refused,
    is_shadow: bool,
    sink: &mut S,
) -> Result<(), Refusal> {
    let route = exchange.route;
    tracing::debug!(reason = reason.token, route, is_shadow, "{}", fault.sentence());
    sink.reshape().fault = Some(fault);
    refuse_or_tell(worker, exchange, reason, is_shadow)
}

/// Counts and notes what would be refused.
#[cold]
fn told(worker: &Worker, exchange: &Exchange, reason: &'static Reason) {
    worker.metrics.shadow(reason);
    exchange.record.shadow(reason);
}

/// The route is closed: with a page of the operator's, if there is one.
async fn close<S: ResponseSink>(maintenance: &Maintenance, sink: &mut S) -> Refusal {
    let retry_after_s = maintenance.retry_after_s;
    let refusal = Refusal { retry_after_s, ..refusal::MAINTENANCE.into() };
    let Some(page) = &maintenance.page else { return refusal };
    sink.add_fields(format!("Retry-After: {retry_after_s}\r\n").as_bytes());
    match respond::fixed(sink, page).await {
        Ok(()) => Refusal { is_told: true, ..refusal },
        Err(failed) => failed,
    }
}

fn by_address(worker: &Worker, exchange: &Exchange, addresses: &Addresses) -> Result<(), Refusal> {
    match addresses.verdict(exchange.client.ip) {
        Verdict::Allowed(_) => Ok(()),
        Verdict::Denied(_) | Verdict::NotAllowed => {
            refuse_or_tell(worker, exchange, refusal::CLIENT_ADDRESS, addresses.shadow)
        }
    }
}

/// Answers a preflight.
async fn answer<S: ResponseSink>(
    cors: &Cors,
    asked: &Preflight<'_>,
    sink: &mut S,
) -> Result<(), Refusal> {
    let mut lines = Vec::with_capacity(256);
    cors.preflight(asked, &mut lines)?;
    sink.add_fields(&lines);
    sink.own(OwnResponse { status: 204, content_type: "", fields: &[], body: b"" }).await
}

/// Asks the route's rules.
#[inline]
fn authorise(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &Exchange,
    matched: &RouteMatch,
    asked: Asked<'_, Policies>,
) -> Result<Permit, Refusal> {
    let identity = exchange.identity.as_deref();
    let facts = || Facts {
        identity,
        consumer: identity
            .and_then(|known| known.consumer)
            .map(|consumer| snapshot.consumers.all.name(consumer)),
        request: exchange.view(),
        matched,
        scheme: exchange.scheme(),
        client: exchange.client.ip,
        now_s: || clock_gettime(ClockId::RealtimeCoarse).tv_sec,
    };
    match asked.permit(facts) {
        Ok(passed) => {
            if let Some(reason) = passed.shadowed {
                told(worker, exchange, reason);
            }
            Ok(passed.permit)
        }
        Err(reason) => Err(reason.into()),
    }
}
