//! Traces on the data path: begun with the exchange, told to upstreams, handed to control when the
//! exchange is over. Without tracing each of these costs a branch.

use super::{
    Worker,
    clock::{now_ns, refresh},
    exchange::{Exchange, ResponseSink},
    generation::Generation,
};
use crate::{
    config::{Snapshot, snapshot::ServerTiming},
    policy::Refusal,
    telemetry::{
        record::Sent,
        trace::{
            Trace,
            parent::state_lines,
            spans::{ExchangeSpans, text},
        },
    },
    wire::{Reason, RequestHead},
};

/// How an exchange ended, as far as its spans say.
pub struct Ended {
    /// Why the gateway answered or cut it off itself.
    pub refused: Option<Refusal>,
    pub sent: Sent,
    pub ended_ns: u64,
    /// Of the request's body.
    pub received_bytes: u64,
}

impl Worker {
    /// The trace of a request, when there is tracing.
    #[inline]
    pub fn trace(
        &self,
        snapshot: &Snapshot,
        head: &RequestHead,
        buf: &[u8],
        is_trusted: bool,
    ) -> Option<Trace> {
        let rule = snapshot.tracing.as_ref()?;
        Some(Trace::begin(head, buf, is_trusted, &rule.sampler, &self.random))
    }
}

/// Lets `sink` tell the client how long things took, where that is configured. Called right before
/// a final response begins.
#[inline]
pub fn tell_timing<S: ResponseSink>(snapshot: &Snapshot, exchange: &Exchange, sink: &mut S) {
    let is_sampled = || exchange.trace.as_ref().is_some_and(|trace| trace.is_sampled);
    let is_told = match snapshot.server_timing {
        ServerTiming::Off => false,
        ServerTiming::Always => true,
        ServerTiming::Sampled => is_sampled(),
    };
    if is_told {
        refresh();
        sink.tell_timing(exchange.record.timing(now_ns()));
    }
}

/// Leaves the spans of an exchange for control when it is recorded, once.
#[inline]
pub fn hand_over(worker: &Worker, snapshot: &Generation, exchange: &Exchange, ended: &Ended) {
    if let Some(trace) = exchange.trace.as_ref().filter(|trace| trace.is_sampled) {
        put(worker, snapshot, exchange, trace, ended);
    }
}

#[cold]
fn put(worker: &Worker, snapshot: &Generation, exchange: &Exchange, trace: &Trace, ended: &Ended) {
    let Some(queue) = &snapshot.spans else { return };
    if !trace.is_handed_over.replace(true) {
        queue.put(Box::new(spans(worker, snapshot, exchange, trace, ended)));
    }
}

fn spans(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &Exchange,
    trace: &Trace,
    ended: &Ended,
) -> ExchangeSpans {
    let (head, buf, record) = (exchange.head(), exchange.bytes(), &exchange.record);
    let route = exchange.route.map(|id| snapshot.route(id));
    let upstream = record.upstream.get().map(|id| snapshot.upstream(id));
    let recorded = trace.recorded.take();
    ExchangeSpans {
        trace_id: trace.id,
        span_id: trace.span_id,
        parent_id: trace.parent_id,
        flags: trace.flags(),
        state: state(trace, head, buf),
        started_ns: record.started_ns,
        ended_ns: ended.ended_ns,
        method: head.method,
        method_text: text(exchange.text(head.method_text)),
        version: head.version,
        scheme: exchange.scheme(),
        path: text(exchange.raw_path()),
        authority: text(exchange.text(head.authority)),
        client: exchange.client.ip,
        peer: exchange.peer,
        user_agent: user_agent(head, buf),
        request_id: text(exchange.id.text(buf)),
        route: route.map_or_else(String::new, |route| route.name.clone()),
        pattern: route.map_or_else(String::new, |route| route.pattern.clone()),
        upstream: upstream.map_or_else(String::new, |upstream| upstream.name.clone()),
        forwarded_path: text(&recorded.forwarded_path),
        status: ended.sent.status,
        reason: ended.refused.map(|refusal| refusal.reason),
        received_bytes: ended.received_bytes,
        sent_bytes: ended.sent.body_bytes,
        overhead_ns: record.overhead_ns(&ended.sent),
        worker: worker.index,
        tries: recorded.tries,
        tries_left_out: recorded.tries_left_out,
    }
}

/// `tracestate` in one line.
fn state(trace: &Trace, head: &RequestHead, buf: &[u8]) -> String {
    let mut state = String::new();
    if trace.keeps_state {
        for line in state_lines(&head.fields, buf) {
            if !state.is_empty() {
                state.push(',');
            }
            // Checked: it is ASCII and short.
            state.push_str(&text(line));
        }
    }
    state
}

fn user_agent(head: &RequestHead, buf: &[u8]) -> String {
    let is_it = |name: &[u8]| name.eq_ignore_ascii_case(b"user-agent");
    let field = head.fields.iter().find(|field| is_it(field.name.of(buf)));
    field.map_or_else(String::new, |field| text(field.value.of(buf)))
}

/// The tries of one exchange, for [`super::forward`].
pub struct Tries<'a> {
    pub worker: &'a Worker,
    pub exchange: &'a Exchange,
}

impl Tries<'_> {
    /// A try begins, of an endpoint with this name.
    #[inline]
    pub fn begin(&self, endpoint: &str) {
        if let Some(trace) = &self.exchange.trace {
            trace.begin_try(&self.worker.random, now_ns(), || endpoint.to_owned());
        }
    }

    /// The head is about to be sent.
    #[inline]
    pub fn stamp(&self, head: &mut [u8]) {
        if let Some(trace) = &self.exchange.trace {
            trace.stamp(head);
        }
    }

    /// The endpoint could not be connected.
    pub fn unconnected(&self, reason: &'static Reason) {
        let Some(trace) = &self.exchange.trace else { return };
        trace.end_try(|one| {
            one.ended_ns = now_ns();
            one.reason = Some(reason);
            one.resent = self.exchange.record.tries.get();
        });
    }

    /// The request was sent and the try is over; `reason` says why it came to nothing.
    #[inline]
    pub fn end(&self, reason: Option<&'static Reason>) {
        let Some(trace) = &self.exchange.trace else { return };
        let record = &self.exchange.record;
        trace.end_try(|one| {
            one.ended_ns = now_ns();
            one.reason = reason;
            one.status = record.first_byte_ns().map_or(0, |_| record.upstream_status.get());
            one.reused = record.reused.get();
            one.resent = record.tries.get().saturating_sub(1);
        });
    }
}
