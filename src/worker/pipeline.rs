//! The life of a request, top to bottom. Every protocol enters [`serve`]; the phases and their
//! order are written once, in [`phases`].
//!
//! ```text
//! admit (framing and sizes are the codec's; here: method, path)   400 405
//! what an authority asks for (ACME), while it may                 200
//! to https, where the listener says so                            308
//! route                                                           404 405 421
//! certificate of the client                                       403
//! size                                                            413
//! policies of the route (their order: `worker::policies`)
//! forward | respond                                               502 503 504
//! record (always)
//! ```
//!
//! Forwarding needs a `Permit`, so that no phase that could refuse is forgotten.

use super::{
    Worker,
    beat::Doing,
    clock::now_ns,
    concurrency,
    exchange::{Exchange, RequestBody, ResponseSink},
    forward,
    generation::Generation,
    grpc_web,
    logs::{self, Malformed},
    policies::{self, Passed},
    rate_limits::{Taken, charge},
    respond::{self, Answer},
    shape, trace,
};
use crate::{
    config::{
        Snapshot,
        snapshot::{Action, Ahead, Policies, Redirect, Respond, Route, RouteLimits},
    },
    policy::{
        Refusal,
        admit::{self, Admitted},
        grpc::Grpc,
        permit::Permit,
        refusal,
        route::RouteMatch,
    },
    telemetry::{metrics::shards::Series, record::Sent},
    wire::Method,
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
    let refused = phases(worker, snapshot, exchange, body, sink).await.err();
    // Whatever it looked like from inside.
    let refused =
        refused.map(|r| if worker.is_cut.get() { refusal::GATEWAY_ENDED.into() } else { r });
    let outcome = match refused {
        None => Outcome::Done,
        Some(refusal) if refusal.is_told => Outcome::Done,
        Some(refusal) if sink.begun() || is_gone(refusal) => Outcome::Broken(refusal),
        Some(refusal) => {
            if is_suspect(refusal) {
                sink.close_after();
            }
            trace::tell_timing(snapshot, exchange, sink);
            // Boxed, so that the task is no larger than forwarding needs.
            match Box::pin(refuse(snapshot, exchange, refusal, sink)).await {
                Ok(()) => Outcome::Done,
                Err(refusal) => Outcome::Broken(refusal),
            }
        }
    };
    let done = Done { refused, outcome, sent: sink.sent(), received_bytes: body.bytes() };
    record(worker, snapshot, exchange, &done);
    outcome
}

/// Tells the client, as it wants to be told.
async fn refuse<S: ResponseSink>(
    snapshot: &Snapshot,
    exchange: &Exchange,
    refusal: Refusal,
    sink: &mut S,
) -> Result<(), Refusal> {
    let id = exchange.id.text(exchange.bytes());
    let fault = is_of_validation(refusal).then(|| sink.reshape().fault.take()).flatten();
    match exchange.grpc_kind() {
        Grpc::No => match snapshot.error_format(exchange.route) {
            None => match &fault {
                None => respond::refuse(id, refusal, sink).await,
                Some(fault) => respond::refuse_for(id, (refusal, fault), sink).await,
            },
            Some(format) => {
                let body = shape::error(snapshot, exchange, (refusal, fault.as_ref()), format);
                let told = (&*format.content_type, &*body);
                respond::refuse_as(id, refusal, told, sink).await
            }
        },
        kind => respond::refuse_call(id, kind, refusal, sink).await,
    }
}

/// The client's connection has ended already: there is nobody to answer.
fn is_gone(refusal: Refusal) -> bool {
    refusal.reason == refusal::CLIENT_ABORTED || refusal.reason == refusal::GATEWAY_ENDED
}

/// After a malformed request, or one for a tunnel, what follows on the connection is not trusted to
/// be a request.
fn is_suspect(refusal: Refusal) -> bool {
    let is_malformed = refusal.reason.status == 400 && !is_of_validation(refusal);
    is_malformed || refusal.reason == refusal::METHOD_REFUSED
}

/// The request is well-formed, and not what its route asks for.
fn is_of_validation(refusal: Refusal) -> bool {
    refusal.reason.token.starts_with("validate.")
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
        trace::tell_timing(snapshot, exchange, sink);
        return Box::pin(options(sink)).await;
    }
    let ahead = exchange.door.rule.borrow().ahead.as_ref().and_then(|rule| ahead(rule, exchange));
    if let Some(ahead) = ahead {
        trace::tell_timing(snapshot, exchange, sink);
        return Box::pin(respond::ahead(exchange, ahead, sink)).await;
    }
    let matched = route(snapshot, exchange)?;
    let doing = Doing::Exchange { generation: snapshot.generation, route: matched.route };
    worker.beat.set(doing);
    drill(exchange);
    let rule = snapshot.route(matched.route);
    sink.routed(matched.route);
    sink.limit(exchange.until_ms);
    let permit = match rule.policies.pass() {
        Ok(permit) => {
            bound(rule, exchange, body)?;
            permit
        }
        Err(asked) => {
            let policies = asked.policies();
            policies::tell(exchange, policies, sink);
            bound(rule, exchange, body)?;
            let of = (&matched, asked);
            match policies::before(worker, snapshot, exchange, of, sink).await? {
                Passed::On(permit, taken) if goes_on(rule, policies) => {
                    let (to, both) = ((&matched, permit, taken), (body, sink));
                    // Boxed: it must not enlarge the task of other requests.
                    let act = go_on(worker, snapshot, exchange, to, policies, both);
                    return Box::pin(act).await;
                }
                Passed::On(permit, _) => permit,
                Passed::Answered => return Ok(()),
            }
        }
    };
    match &rule.action {
        Action::Forward(upstream) if rule.grpc_web && exchange.grpc_kind().is_web() => {
            let kind = exchange.grpc_kind();
            // Boxed, too.
            let both = (body, sink);
            let to = (&matched, *upstream, permit);
            Box::pin(grpc_web::forward(worker, snapshot, exchange, kind, to, both)).await
        }
        // Not by `act`: every wake-up of an exchange would pass through one future more. Nor is it
        // called elsewhere with this body and sink: then it would be a function of its own.
        Action::Forward(upstream) => {
            let to = (&matched, *upstream, permit);
            forward::forward(worker, snapshot, exchange, to, body, sink).await
        }
        Action::Respond(fixed) => answer(snapshot, exchange, fixed, sink).await,
        Action::Redirect(to) => redirect(snapshot, exchange, &matched, to, sink).await,
    }
}

/// Whether [`go_on`] has to do with a request.
fn goes_on(rule: &Route, policies: &Policies) -> bool {
    !policies.concurrency.is_empty() || charging(rule, policies).is_some() || policies.shapes()
}

/// What [`phases`] does with a request that its policies have let pass, where they have more to do
/// with it, or somebody holds something meanwhile.
async fn go_on<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    (matched, permit, taken): (&RouteMatch, Permit, Taken),
    policies: &Policies,
    (body, sink): (&mut B, &mut S),
) -> Result<(), Refusal> {
    let to = (matched, permit, taken);
    if policies.concurrency.is_empty() {
        return settled(worker, snapshot, exchange, to, policies, (body, sink)).await;
    }
    concurrency::act(worker, snapshot, exchange, to, policies, (body, sink)).await
}

/// The same when nothing is to be held meanwhile, or is held.
pub(super) async fn settled<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    (matched, permit, taken): (&RouteMatch, Permit, Taken),
    policies: &Policies,
    (body, sink): (&mut B, &mut S),
) -> Result<(), Refusal> {
    let rule = snapshot.route(matched.route);
    let forwards = matches!(rule.action, Action::Forward(_));
    if charging(rule, policies).is_some() || forwards && !policies.shapes() {
        // Also where nothing is charged: `phases` wants to be alone with this body and sink.
        let to = (matched, permit, taken);
        return charge::act(worker, snapshot, exchange, to, policies, (body, sink)).await;
    }
    let to = (matched, permit);
    shape::act(worker, snapshot, exchange, to, policies, (body, sink)).await
}

/// Does what the route says, where policies change what goes in and comes out.
pub(super) async fn act<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &Exchange,
    (matched, permit): (&RouteMatch, Permit),
    body: &mut B,
    sink: &mut S,
) -> Result<(), Refusal> {
    match &snapshot.route(matched.route).action {
        Action::Forward(upstream) => {
            let to = (matched, *upstream, permit);
            forward::forward(worker, snapshot, exchange, to, body, sink).await
        }
        Action::Respond(fixed) => answer(snapshot, exchange, fixed, sink).await,
        Action::Redirect(to) => redirect(snapshot, exchange, matched, to, sink).await,
    }
}

/// Answers as the configuration has it.
async fn answer<S: ResponseSink>(
    snapshot: &Generation,
    exchange: &Exchange,
    fixed: &Respond,
    sink: &mut S,
) -> Result<(), Refusal> {
    trace::tell_timing(snapshot, exchange, sink);
    respond::fixed(sink, fixed).await
}

async fn redirect<S: ResponseSink>(
    snapshot: &Generation,
    exchange: &Exchange,
    matched: &RouteMatch,
    to: &Redirect,
    sink: &mut S,
) -> Result<(), Refusal> {
    trace::tell_timing(snapshot, exchange, sink);
    respond::redirect(exchange, matched, to, sink).await
}

/// What every route asks: a certificate where it wants one, a body that is not too large.
#[inline]
fn bound<B: RequestBody>(rule: &Route, exchange: &Exchange, body: &mut B) -> Result<(), Refusal> {
    if rule.needs_certificate && exchange.client_cert.is_none() {
        return Err(refusal::CLIENT_CERTIFICATE.into());
    }
    body.limit(rule.body_bytes_max, exchange.until_ms)
}

/// The limits of a route whose upstream says what a request cost.
#[inline]
fn charging<'r>(rule: &Route, policies: &'r Policies) -> Option<&'r RouteLimits> {
    if !matches!(rule.action, Action::Forward(_)) {
        return None;
    }
    policies.rate_limits.as_deref().filter(|limits| limits.charges)
}

/// What a listener answers before anything is routed.
fn ahead(rule: &Ahead, exchange: &Exchange) -> Option<Answer> {
    if !rule.challenges.is_empty()
        && exchange.head().method == Method::Get
        && let Some(token) = rule.answer(exchange.raw_path())
    {
        return Some(Answer::Challenge(token));
    }
    rule.https_port.map(Answer::ToHttps)
}

pub(super) fn admit(snapshot: &Snapshot, exchange: &mut Exchange) -> Result<Admitted, Refusal> {
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

#[inline]
pub(super) fn route(snapshot: &Snapshot, exchange: &mut Exchange) -> Result<RouteMatch, Refusal> {
    let matched = snapshot.router.find(&exchange.view())?;
    exchange.route = Some(matched.route);
    let rule = snapshot.route(matched.route);
    exchange.limit_to(rule.timeout_ms);
    if exchange.grpc != Grpc::No {
        exchange.limit_call();
    }
    if let (Some(sampling), Some(trace)) = (rule.trace_sampling, &mut exchange.trace) {
        trace.decide(sampling);
    }
    Ok(matched)
}

/// How an exchange went, when it is over.
pub struct Done {
    /// Why the gateway answered or cut it off itself.
    pub refused: Option<Refusal>,
    pub outcome: Outcome,
    pub sent: Sent,
    /// Of the request's body.
    pub received_bytes: u64,
}

/// What is kept of every exchange, whatever became of it.
pub(super) fn record(worker: &Worker, snapshot: &Generation, exchange: &Exchange, done: &Done) {
    worker.beat.set(Doing::Connection);
    let (series, record, sent) = (&snapshot.series, &exchange.record, &done.sent);
    if let Some(refusal) = done.refused {
        series.worker.refused(refusal.reason);
    }
    if let Outcome::Broken(refusal) = done.outcome {
        tracing::debug!(
            reason = refusal.reason.token,
            route = exchange.route,
            request_id = %exchange.id.text(exchange.bytes()).escape_ascii(),
            "exchange cut off"
        );
    }
    if !snapshot.logs.is_empty() {
        logs::exchange(worker, snapshot, exchange, done);
    }
    let tunnelled = record.tunnelled.get();
    series.worker.answered(
        sent.status,
        exchange.head().len as u64 + done.received_bytes + tunnelled.0,
        sent.bytes + tunnelled.1,
    );
    // A tunnel is answered when it begins, however long it lasts.
    let ended_ns = if sent.status == 101 { sent.first_ns } else { now_ns() };
    let Done { refused, received_bytes, .. } = *done;
    let ended = trace::Ended { refused, sent: *sent, ended_ns, received_bytes };
    trace::hand_over(worker, snapshot, exchange, &ended);
    let duration_ns = ended_ns.saturating_sub(record.started_ns);
    worker.slowest.look_at(snapshot, exchange, sent.status, duration_ns);
    if series.is_off {
        return;
    }
    series.worker.duration.record(duration_ns);
    if let Some(overhead_ns) = record.overhead_ns(sent) {
        series.worker.overhead.record(overhead_ns);
    }
    count_consumer(series, exchange, done);
    let route = series.route(exchange.route);
    route.traffic.count(sent.status, done.received_bytes, sent.body_bytes);
    route.duration.record(duration_ns);
}

#[inline]
fn count_consumer(series: &Series, exchange: &Exchange, done: &Done) {
    let sent = &done.sent;
    if let Some(consumer) = exchange.identity.as_ref().and_then(|identity| identity.consumer)
        && let Some(shard) = series.consumer(consumer)
    {
        shard.traffic.count(sent.status, done.received_bytes, sent.body_bytes);
        if let Some(refusal) = done.refused {
            shard.refused(refusal.reason);
        }
    }
}

/// What is kept of something that was refused before it could become an exchange.
pub fn record_malformed(worker: &Worker, snapshot: &Generation, what: &Malformed<'_>) {
    let (refusal, sent) = (what.refusal, &what.sent);
    if !snapshot.logs.is_empty() {
        logs::malformed(worker, snapshot, what);
    }
    let series = &snapshot.series;
    series.worker.refused(refusal.reason);
    series.worker.answered(sent.status, 0, sent.bytes);
    if !series.is_off {
        series.unrouted.traffic.count(sent.status, 0, 0);
    }
}
