//! The life of a request, top to bottom. Every protocol enters [`serve`]; the phases and their
//! order are written once, in [`phases`].
//!
//! ```text
//! admit (framing and sizes are the codec's; here: method, path)   400 405
//! route                                                           404 405 421
//! size                                                            413
//! forward | respond                                               502 503 504
//! record (always)
//! ```
//!
//! Client limit, authentication, authorisation, consumer limit, validation, cache and transforms
//! take their places between `size` and `forward` as they are built.

use super::{
    Worker,
    beat::Doing,
    exchange::{Exchange, RequestBody, ResponseSink},
    forward,
    generation::Generation,
    respond,
};
use crate::{
    config::{Snapshot, snapshot::Action},
    policy::{
        Refusal,
        admit::{self, Admitted},
        refusal,
        route::RouteMatch,
    },
    telemetry::counters::count,
};

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A complete response was sent.
    Done,
    /// The client got an incomplete response, or none: its connection must end.
    Broken(Refusal),
}

/// Serves one request.
pub async fn serve<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    body: &mut B,
    sink: &mut S,
) -> Outcome {
    let outcome = match phases(worker, snapshot, exchange, body, sink).await {
        Ok(()) => Outcome::Done,
        Err(refusal) if sink.begun() || refusal.reason == refusal::CLIENT_ABORTED => {
            Outcome::Broken(refusal)
        }
        Err(refusal) => {
            count(&worker.counters.refusals);
            if is_suspect(refusal) {
                sink.close_after();
            }
            let id = exchange.id.text(exchange.bytes());
            // Boxed, so that the task is no larger than forwarding needs.
            match Box::pin(respond::refuse(id, refusal, sink)).await {
                Ok(()) => Outcome::Done,
                Err(refusal) => Outcome::Broken(refusal),
            }
        }
    };
    record(worker, exchange, outcome);
    outcome
}

/// After a malformed request, or one for a tunnel, what follows on the connection is not trusted to
/// be a request.
fn is_suspect(refusal: Refusal) -> bool {
    refusal.reason.status == 400 || refusal.reason == refusal::METHOD_REFUSED
}

/// The phases, in order.
async fn phases<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Refusal> {
    if admit(snapshot, exchange)? == Admitted::Options {
        return Box::pin(options(sink)).await;
    }
    let matched = route(snapshot, exchange)?;
    let doing = Doing::Exchange { generation: snapshot.generation, route: matched.route };
    worker.beat.set(doing);
    drill(exchange);
    let rule = snapshot.route(matched.route);
    sink.limit(exchange.until_ms);
    body.limit(rule.body_bytes_max, exchange.until_ms)?;
    match &rule.action {
        Action::Forward(upstream) => {
            forward::forward(worker, snapshot, exchange, &matched, *upstream, body, sink).await
        }
        Action::Respond(fixed) => respond::fixed(sink, fixed).await,
        Action::Redirect(to) => respond::redirect(exchange, &matched, to, sink).await,
    }
}

fn admit(snapshot: &Snapshot, exchange: &mut Exchange) -> Result<Admitted, Refusal> {
    let request = &mut *exchange.request;
    admit::admit(&request.head, exchange.buf.bytes(), snapshot.paths, &mut request.path)
}

#[cfg(debug_assertions)]
fn drill(exchange: &Exchange) {
    super::drill::at_request(exchange.raw_path());
}

#[cfg(not(debug_assertions))]
fn drill(_: &Exchange) {}

async fn options<S: ResponseSink>(sink: &mut S) -> Result<(), Refusal> {
    let names: Vec<&str> = admit::SERVED.names().collect();
    let fields = [("Allow".to_owned(), names.join(", "))];
    let response =
        super::exchange::OwnResponse { status: 204, content_type: "", fields: &fields, body: b"" };
    sink.own(response).await
}

fn route(snapshot: &Snapshot, exchange: &mut Exchange) -> Result<RouteMatch, Refusal> {
    let matched = snapshot.router.find(&exchange.view())?;
    exchange.route = Some(matched.route);
    exchange.limit_to(snapshot.route(matched.route).timeout_ms);
    Ok(matched)
}

/// What is kept of every exchange, whatever became of it.
fn record(worker: &Worker, exchange: &Exchange, outcome: Outcome) {
    worker.beat.set(Doing::Connection);
    count(&worker.counters.requests);
    if let Outcome::Broken(refusal) = outcome {
        count(&worker.counters.refusals);
        tracing::debug!(
            reason = refusal.reason.token,
            route = exchange.route,
            request_id = %exchange.id.text(exchange.bytes()).escape_ascii(),
            "exchange cut off"
        );
    }
}
