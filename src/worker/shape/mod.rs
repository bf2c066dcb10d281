//! Requests and responses that are changed on their way, as a route's transformations say.
//!
//! Changes of a request's head are told to whoever composes it ([`request::head`]); changes of a
//! response's head are made in a sink before the real one ([`response::Shaped`]), which passes the
//! body on as it comes, pipes included. A body that is changed is held as a whole, within its
//! bound.

mod request;
mod response;
mod values;

use super::{
    Worker,
    exchange::{Exchange, RequestBody, ResponseSink},
    generation::Generation,
    pipeline,
    policies::UpstreamFields,
};
use crate::{
    config::snapshot::Policies,
    policy::{Refusal, permit::Permit, route::RouteMatch},
};
use response::Shaped;
pub use values::View;

/// What the upstream is told of a request whose route has policies.
pub fn request(
    snapshot: &Generation,
    exchange: &mut Exchange,
    matched: &RouteMatch,
    policies: &Policies,
) -> Result<(), Refusal> {
    if let Some(rule) = &policies.transform_request {
        let view = View { snapshot, exchange, matched, response: None };
        let told = request::head(&view, rule)?;
        exchange.tell_upstream().extend(told);
    }
    if policies.changes_response_body() {
        // A part of it, or one that is compressed, could not be changed.
        let told = exchange.tell_upstream();
        told.set(b"Accept-Encoding", b"identity");
        told.dropped.push((*b"range").into());
    }
    Ok(())
}

/// Does what the route says, with what goes in and comes out changed.
pub async fn act<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    (matched, permit): (&RouteMatch, Permit),
    policies: &Policies,
    (body, sink): (&mut B, &mut S),
) -> Result<(), Refusal> {
    let rule = policies.transform_request.as_ref().and_then(|rule| rule.body.as_ref());
    match rule.filter(|rule| request::concerns(exchange, rule)) {
        None => {
            respond(worker, snapshot, exchange, (matched, permit), policies, (body, sink)).await
        }
        Some(rule) => {
            let of = (snapshot, matched);
            let (received, mut whole) = request::body(exchange, of, rule, body, sink).await?;
            let to = (&mut whole, sink);
            let done = respond(worker, snapshot, exchange, (matched, permit), policies, to).await;
            received.put_back(exchange);
            done
        }
    }
}

async fn respond<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &Exchange,
    to: (&RouteMatch, Permit),
    policies: &Policies,
    (body, sink): (&mut B, &mut S),
) -> Result<(), Refusal> {
    match &policies.transform_response {
        None => pipeline::act(worker, snapshot, exchange, to, body, sink).await,
        Some(rule) => {
            let matched = to.0;
            let mut sink = Shaped { snapshot, exchange, matched, rule, inner: sink, held: None };
            pipeline::act(worker, snapshot, exchange, to, body, &mut sink).await
        }
    }
}

/// Whether a media type is JSON, or built on it (RFC 6839 §3.1).
fn is_json(media: &[u8]) -> bool {
    let name = media.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    name.eq_ignore_ascii_case(b"application/json")
        || name.len() > 5 && name[name.len() - 5..].eq_ignore_ascii_case(b"+json")
}

impl UpstreamFields {
    fn extend(&mut self, more: UpstreamFields) {
        self.dropped.extend(more.dropped);
        self.lines.extend(more.lines);
        self.target = more.target.or(self.target.take());
        self.method = more.method.or(self.method.take());
    }
}
