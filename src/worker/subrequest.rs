//! A request of the gateway's own to an upstream, made while another one waits for the answer. It
//! takes the same way as every forwarded request: pools, balancing, tries, TLS, HTTP/2.
//!
//! **Bounds.** The answer's body is kept up to what the caller says, what is longer is a failure;
//! nothing is awaited beyond the deadline. It is not recorded as an exchange: only its endpoint
//! counts it.

use std::task::Waker;

use super::{
    Worker,
    buffers::{Buffer, TAILROOM},
    client::Client,
    clock::{now_ms, now_ns},
    deadline::Deadline,
    exchange::{Exchange, OwnResponse, ResponseSink},
    forward,
    generation::Generation,
    net::Stream,
    pipeline,
    policies::UpstreamFields,
    received::Whole,
    reshape::Reshape,
    splice::Pipe,
};
use crate::{
    config::snapshot::{ASIDE, UpstreamId},
    policy::{
        Refusal,
        grpc::Grpc,
        refusal,
        route::{PARAMS_MAX, RouteId, RouteMatch},
    },
    telemetry::{
        record::{Record, Sent, Timing},
        request_id::RequestId,
    },
    wire::{FieldId, HeadLimits, Parsed, ResponseHead, Span},
};

/// What is asked.
pub struct Question {
    /// A whole request head in HTTP/1.1, well-formed.
    pub head: Vec<u8>,
    /// As long as the head says.
    pub body: Vec<u8>,
    /// Lines that the gateway adds, as it does for upstreams.
    pub lines: Vec<u8>,
    pub upstream: UpstreamId,
    pub timeout_ms: u64,
    /// Bytes of the answer's body that are read.
    pub body_bytes_max: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a field; its name in lower case. Several are joined with commas (RFC 9110
    /// §5.3).
    pub fn field(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut values = self.fields.iter().filter(|(own, _)| own == name).map(|(_, v)| v);
        let mut all = values.next()?.clone();
        for value in values {
            all.extend_from_slice(b", ");
            all.extend_from_slice(value);
        }
        Some(all)
    }
}

/// Asks an upstream on behalf of the client of `parent`.
pub async fn ask(
    worker: &Worker,
    snapshot: &Generation,
    parent: &Exchange,
    question: Question,
) -> Result<Answer, Refusal> {
    let until_ms = now_ms().saturating_add(question.timeout_ms).min(parent.until_ms);
    let upstream = question.upstream;
    let bytes_max = question.body_bytes_max;
    let mut sink = Collect { answer: Answer::default(), bytes_max, reshape: Reshape::default() };
    let mut body = Whole(question.body.len() as u64);
    let exchange = exchange(worker, snapshot, parent, question, until_ms)?;
    let matched = RouteMatch {
        route: ASIDE,
        params: [Span::EMPTY; PARAMS_MAX],
        params_len: 0,
        prefix_len: 0,
    };
    // Nothing is asked of what the gateway makes itself.
    let permit = snapshot.aside.policies.pass().map_err(|_| refusal::AUTH_UNAVAILABLE)?;
    let to = (&matched, upstream, permit);
    let asked = forward::forward(worker, snapshot, &exchange, to, &mut body, &mut sink).await;
    let Exchange { request, buf, .. } = exchange;
    worker.give_request(Some(request));
    worker.buffers.give(buf);
    asked.map(|()| sink.answer)
}

fn exchange(
    worker: &Worker,
    snapshot: &Generation,
    parent: &Exchange,
    question: Question,
    until_ms: u64,
) -> Result<Exchange, Refusal> {
    let (text, body) = (question.head, question.body);
    let mut request = worker.request();
    let limits = &snapshot.limits.head;
    // What the client was allowed, and what is added to it.
    let limits = HeadLimits {
        head_bytes_max: limits.head_bytes_max.saturating_add(4096),
        fields_max: limits.fields_max.saturating_add(16),
        ..*limits
    };
    match request.head.parse(&text, &limits) {
        Ok(Parsed::Complete(())) if request.head.len == text.len() => {}
        // Not reached: it was made of what was well-formed before.
        _ => return Err(refusal::AUTH_UNAVAILABLE.into()),
    }
    let whole = text.len() + body.len();
    let mut buf = Buffer::with_capacity(whole + TAILROOM + 1);
    buf.append(&text);
    buf.append(&body);
    let kept = request.head.fields.iter().find(|field| field.id == FieldId::XRequestId);
    let id = kept.map_or(RequestId::Off, |field| RequestId::Kept(field.value));
    let upstream_fields = UpstreamFields { lines: question.lines, ..UpstreamFields::default() };
    let mut exchange = Exchange {
        request,
        buf,
        arrived: Span::new(text.len(), whole),
        rest: whole,
        started_ms: now_ms(),
        until_ms,
        client: parent.client,
        door: parent.door.clone(),
        is_tls: parent.is_tls,
        client_cert: parent.client_cert.clone(),
        peer: parent.peer,
        peer_text: parent.peer_text.clone(),
        id,
        route: None,
        record: Record::begun(now_ns()),
        trace: None,
        grpc: Grpc::No,
        identity: None,
        upstream_fields: Some(Box::new(upstream_fields)),
        fin_is_gone: false,
    };
    pipeline::admit(snapshot, &mut exchange)?;
    Ok(exchange)
}

/// Keeps the response instead of sending it on.
struct Collect {
    answer: Answer,
    bytes_max: usize,
    /// Nobody looks at it: the response goes nowhere.
    reshape: Reshape,
}

impl Collect {
    fn keep(&mut self, data: &[u8]) -> Result<(), Refusal> {
        if self.answer.body.len() + data.len() > self.bytes_max {
            return Err(refusal::UPSTREAM_INVALID.into());
        }
        self.answer.body.extend_from_slice(data);
        Ok(())
    }
}

impl ResponseSink for Collect {
    fn routed(&mut self, _: RouteId) {}

    fn begun(&self) -> bool {
        self.answer.status != 0
    }

    fn sent(&self) -> Sent {
        Sent::default()
    }

    fn limit(&mut self, _: u64) {}

    fn tell_timing(&mut self, _: Timing) {}

    fn add_fields(&mut self, _: &[u8]) {}

    fn reshape(&mut self) -> &mut Reshape {
        &mut self.reshape
    }

    async fn interim(&mut self, _: &ResponseHead, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    async fn head(
        &mut self,
        head: &ResponseHead,
        buf: &mut Buffer,
        _: bool,
        _: &[u8],
    ) -> Result<(), Refusal> {
        let bytes = buf.bytes();
        let fields = head.fields.iter().map(|field| {
            (field.name.of(bytes).to_ascii_lowercase(), field.value.of(bytes).to_vec())
        });
        self.answer.fields = fields.collect();
        self.answer.status = head.status;
        let kept = self.keep(&buf.bytes()[head.len..]);
        buf.reset(0);
        kept
    }

    async fn ready(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn reads_max(&self) -> u64 {
        // No more is wanted than fits, and a byte to see that it does not.
        (self.bytes_max - self.answer.body.len()) as u64 + 1
    }

    async fn data(&mut self, buf: &mut Buffer, _: bool, _: &[u8]) -> Result<(), Refusal> {
        let kept = self.keep(buf.bytes());
        buf.reset(0);
        kept
    }

    fn takes_pipes(&self) -> bool {
        false
    }

    async fn splice(&mut self, _: &mut Pipe, _: bool) -> Result<(), Refusal> {
        // It takes no pipes.
        Err(refusal::UPSTREAM_INVALID.into())
    }

    fn close_after(&mut self) {}

    async fn own(&mut self, _: OwnResponse<'_>) -> Result<(), Refusal> {
        Err(refusal::UPSTREAM_INVALID.into())
    }

    async fn switch(&mut self, _: &ResponseHead, _: &Buffer) -> Result<(), Refusal> {
        // Nobody asked for it.
        Err(refusal::UPSTREAM_UPGRADE.into())
    }

    fn watch(&self, _: &Deadline, _: bool) {}

    fn watch_for(&self, _: &Waker, _: u64, _: bool) {}

    fn is_gone(&self) -> bool {
        false
    }

    fn watched_gone(&self) -> bool {
        false
    }

    fn client(&self) -> Option<&Stream> {
        None
    }

    fn connection(&self) -> Option<&Client> {
        None
    }
}
