//! One exchange: a request, its response, and what the phases learn on the way.

use std::{net::IpAddr, rc::Rc, task::Waker};

use super::{
    Worker,
    buffers::Buffer,
    client::Client,
    clock::{NEVER_MS, now_ms, now_ns},
    deadline::Deadline,
    door::Door,
    policies::UpstreamFields,
    reshape::Reshape,
    splice::Pipe,
};
use crate::{
    config::{Snapshot, snapshot::HalfClose},
    policy::{
        Refusal, admit,
        client::{self, ClientAddress},
        client_cert::ClientCert,
        grpc::{self, Grpc},
        identity::Identity,
        route::{RequestView, RouteId},
    },
    telemetry::{
        record::{Record, Sent, Timing},
        request_id::{self, RequestId},
        trace::Trace,
    },
    wire::{Field, FieldId, Method, RequestHead, ResponseHead, Span, path::NormalPath},
};

/// What the phases need of a request beyond its head; reused from request to request.
#[derive(Default)]
pub struct Request {
    pub head: RequestHead,
    pub path: NormalPath,
}

/// A request being served. The head's spans refer to `buf`, which stays put until the end.
pub struct Exchange {
    pub request: Box<Request>,
    /// The client's bytes: the head, what arrived of the body, perhaps the next request.
    pub buf: Buffer,
    /// Body data that arrived with the head, decoded, as a span of `buf`.
    pub arrived: Span,
    /// Where in `buf` begins what is not part of this request.
    pub rest: usize,
    /// When the head was complete, on the coarse clock.
    pub started_ms: u64,
    /// When the whole exchange must be over.
    pub until_ms: u64,
    pub client: ClientAddress,
    /// The listener it came in by.
    pub door: Rc<Door>,
    /// It came over TLS.
    pub is_tls: bool,
    /// The client's verified certificate, where its listener asks for one.
    pub client_cert: Option<Rc<ClientCert>>,
    pub peer: Option<IpAddr>,
    /// The peer's address as written in fields; empty for a Unix socket.
    pub peer_text: Rc<[u8]>,
    pub id: RequestId,
    pub route: Option<RouteId>,
    /// What is learned on the way.
    pub record: Record,
    /// When there is tracing.
    pub trace: Option<Trace>,
    /// How it speaks gRPC.
    pub grpc: Grpc,
    /// Who it is from, once that was verified.
    pub identity: Option<Rc<Identity>>,
    /// What its policies have to tell the upstream.
    pub upstream_fields: Option<Box<UpstreamFields>>,
    /// The client's FIN means it is gone (listener key `half_close = "abort"`).
    pub fin_is_gone: bool,
}

impl Exchange {
    /// Of a request whose head is at the front of `buf`; where the body that came with it is, and
    /// where something else begins.
    pub fn begin(
        worker: &Worker,
        client: &Client,
        snapshot: &Snapshot,
        request: Box<Request>,
        buf: Buffer,
        (arrived, rest): (Span, usize),
    ) -> Exchange {
        let head = &request.head;
        let trusted = &snapshot.forwarding.trusted_proxies;
        let address = client::client_address(client.peer, trusted, head, buf.bytes());
        let id = request_id(worker, snapshot, head, buf.bytes());
        let trace = worker.trace(snapshot, head, buf.bytes(), address.trusted_peer);
        Exchange {
            request,
            buf,
            arrived,
            rest,
            started_ms: now_ms(),
            until_ms: NEVER_MS,
            client: address,
            door: client.door.clone(),
            is_tls: client.stream.is_tls(),
            client_cert: client.stream.client_cert(),
            peer: client.peer,
            peer_text: client.peer_text.clone(),
            id,
            route: None,
            record: Record::begun(now_ns()),
            trace,
            grpc: Grpc::No,
            identity: None,
            upstream_fields: None,
            fin_is_gone: client.door.rule.borrow().half_close == HalfClose::Abort,
        }
    }

    /// The method that the upstream gets.
    pub fn sent_method(&self) -> Method {
        let other = self.upstream_fields.as_ref().and_then(|told| told.method.as_deref());
        other.map_or(self.head().method, Method::from_bytes)
    }

    pub fn head(&self) -> &RequestHead {
        &self.request.head
    }

    pub fn bytes(&self) -> &[u8] {
        self.buf.bytes()
    }

    pub fn text(&self, span: Span) -> &[u8] {
        span.of(self.buf.bytes())
    }

    /// The path as forwarded when nothing rewrites it.
    pub fn forward_path(&self) -> &[u8] {
        let path = &self.request.path;
        if path.forward_differs { &path.forward } else { self.raw_path() }
    }

    /// The path as matched.
    pub fn matched_path(&self) -> &[u8] {
        let path = &self.request.path;
        if path.matched_differs { &path.matched } else { self.forward_path() }
    }

    pub fn raw_path(&self) -> &[u8] {
        admit::raw_path(self.head(), self.bytes())
    }

    pub fn query(&self) -> Option<&[u8]> {
        self.head().query.map(|q| self.text(q))
    }

    /// The query as forwarded.
    pub fn upstream_query(&self) -> Option<&[u8]> {
        match self.upstream_fields.as_ref().and_then(|own| own.query.as_deref()) {
            Some(query) => Some(query).filter(|query| !query.is_empty()),
            None => self.query(),
        }
    }

    /// The cookies as forwarded, in one line.
    pub fn upstream_cookies(&self) -> Vec<u8> {
        if let Some(cookies) = self.upstream_fields.as_ref().and_then(|own| own.cookies.as_ref()) {
            return cookies.clone();
        }
        let fields = self.head().fields.iter();
        let own = fields.filter(|field| self.text(field.name).eq_ignore_ascii_case(b"cookie"));
        own.map(|field| self.text(field.value)).collect::<Vec<_>>().join(&b"; "[..])
    }

    /// What policies have to tell the upstream.
    pub fn upstream_fields(&mut self) -> &mut UpstreamFields {
        self.upstream_fields.get_or_insert_default()
    }

    /// The host, without port.
    pub fn host(&self) -> &[u8] {
        self.text(self.head().host)
    }

    /// What routes match on.
    #[inline(always)]
    pub fn view(&self) -> RequestView<'_> {
        let head = self.head();
        RequestView {
            method: head.method,
            method_text: self.text(head.method_text),
            host: self.host(),
            path: self.matched_path(),
            query: self.query(),
            head,
            buf: self.bytes(),
        }
    }

    /// The route's bound on the whole exchange begins to count.
    pub fn limit_to(&mut self, timeout_ms: Option<u64>) {
        self.until_ms = timeout_ms.map_or(NEVER_MS, |t| self.started_ms.saturating_add(t));
    }

    /// The value of a field that the codec has no number for.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        let is_it = |field: &&Field| {
            field.id == FieldId::Other && self.text(field.name).eq_ignore_ascii_case(name)
        };
        self.head().fields.iter().find(is_it).map(|field| self.text(field.value))
    }

    /// Whether it speaks gRPC, as its Content-Type says.
    pub fn grpc_kind(&self) -> Grpc {
        self.field(b"content-type").map_or(Grpc::No, Grpc::of)
    }

    /// A call of gRPC says itself how long it may take.
    pub fn limit_call(&mut self) {
        if let Some(timeout_ms) = self.field(b"grpc-timeout").and_then(grpc::timeout_ms) {
            self.until_ms = self.until_ms.min(self.started_ms.saturating_add(timeout_ms));
        }
    }

    /// The scheme of the request's URL.
    pub fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    pub fn is_head(&self) -> bool {
        self.head().method == Method::Head
    }
}

fn request_id(worker: &Worker, snapshot: &Snapshot, head: &RequestHead, buf: &[u8]) -> RequestId {
    use crate::config::snapshot::RequestId as Rule;
    let received = || head.fields.iter().find(|f| f.id == FieldId::XRequestId);
    match snapshot.forwarding.request_id {
        Rule::Off => RequestId::Off,
        Rule::Make => RequestId::make(&worker.random),
        Rule::Keep => match received() {
            Some(field) if request_id::may_keep(field.value.of(buf)) => {
                RequestId::Kept(field.value)
            }
            _ => RequestId::make(&worker.random),
        },
    }
}

impl RequestId {
    /// Of something that is no request.
    pub fn of_malformed(worker: &Worker, snapshot: &Snapshot) -> RequestId {
        match snapshot.forwarding.request_id {
            crate::config::snapshot::RequestId::Off => RequestId::Off,
            _ => RequestId::make(&worker.random),
        }
    }
}

/// The request's body, whatever protocol brings it.
pub trait RequestBody {
    /// The client's connection carries many requests at once: what is kept for one has to be small.
    const IS_ONE_OF_MANY: bool;
    /// More than `bytes_max` bytes are refused with 413, now if they have come or are announced;
    /// nothing is awaited after `until_ms`.
    fn limit(&mut self, bytes_max: u64, until_ms: u64) -> Result<(), Refusal>;
    /// Everything has arrived and was handed over.
    fn ended(&self) -> bool;
    /// Data bytes that are announced and still to come; 0 when that is not known.
    fn left(&self) -> u64;
    /// Appends what of a body of known length has arrived meanwhile, without waiting.
    fn append_arrived(&mut self, buf: &mut Buffer);
    /// More data, in a buffer with room for framing around it. May be empty.
    async fn next(&mut self) -> Result<Buffer, Refusal>;
    /// Trailer lines to forward, once ended.
    fn trailer_lines(&self) -> &[u8];
    /// Bytes of data received so far.
    fn bytes(&self) -> u64;
}

impl<B: RequestBody> RequestBody for &mut B {
    const IS_ONE_OF_MANY: bool = B::IS_ONE_OF_MANY;

    fn limit(&mut self, bytes_max: u64, until_ms: u64) -> Result<(), Refusal> {
        (**self).limit(bytes_max, until_ms)
    }

    fn ended(&self) -> bool {
        (**self).ended()
    }

    fn left(&self) -> u64 {
        (**self).left()
    }

    fn append_arrived(&mut self, buf: &mut Buffer) {
        (**self).append_arrived(buf);
    }

    async fn next(&mut self) -> Result<Buffer, Refusal> {
        (**self).next().await
    }

    fn trailer_lines(&self) -> &[u8] {
        (**self).trailer_lines()
    }

    fn bytes(&self) -> u64 {
        (**self).bytes()
    }
}

/// Where a response goes, whatever protocol carries it.
pub trait ResponseSink {
    /// The route that the request takes is known.
    fn routed(&mut self, route: RouteId);
    /// A final response has begun: it can no longer be replaced, only cut off.
    fn begun(&self) -> bool;
    /// What the client was sent so far.
    fn sent(&self) -> Sent;
    /// Nothing is awaited after `until_ms`.
    fn limit(&mut self, until_ms: u64);
    /// The final response says how long things took.
    fn tell_timing(&mut self, timing: Timing);
    /// The final response has these field lines too, whoever makes it.
    fn add_fields(&mut self, lines: &[u8]);
    /// What else becomes of the final response's fields.
    fn reshape(&mut self) -> &mut Reshape;
    /// Sends an interim (1xx) response whose head is `bytes`.
    async fn interim(&mut self, head: &ResponseHead, bytes: &[u8]) -> Result<(), Refusal>;
    /// Sends an upstream's head, rewritten, and the data behind it. The window of `buf` begins
    /// with the head of `head.len` bytes; the rest is decoded data. `last`: the body is complete.
    async fn head(
        &mut self,
        head: &ResponseHead,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal>;
    /// Waits until the client takes more data, of which there is some.
    async fn ready(&mut self) -> Result<(), Refusal>;
    /// Bytes that should be read for the client at once, at most: what it does not take waits in
    /// memory.
    fn reads_max(&self) -> u64;
    /// Sends more data. `last`: the body is complete.
    async fn data(
        &mut self,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal>;
    /// Data of a body of known length may come from a pipe.
    fn takes_pipes(&self) -> bool;
    /// Sends the data that is in `pipe`. `last`: the body is complete.
    async fn splice(&mut self, pipe: &mut Pipe, last: bool) -> Result<(), Refusal>;
    /// The next response is the connection's last.
    fn close_after(&mut self);
    /// Sends a response of the gateway's own.
    async fn own(&mut self, response: OwnResponse<'_>) -> Result<(), Refusal>;
    /// Sends an upstream's 101, whose head is the window of `buf`; a tunnel follows.
    async fn switch(&mut self, head: &ResponseHead, buf: &Buffer) -> Result<(), Refusal>;
    /// From now on a client that goes away ends the connection of `upstream`; a FIN counts when
    /// `fin_is_gone` says so.
    fn watch(&self, upstream: &Deadline, fin_is_gone: bool);
    /// From now on a client that goes away wakes `waker`; [`ResponseSink::watched_gone`] tells, and
    /// stops watching. Called again for each poll of one wait, which began at `since_ms`.
    fn watch_for(&self, waker: &Waker, since_ms: u64, fin_is_gone: bool);
    /// The client is known to have gone away: nothing need be begun for it.
    fn is_gone(&self) -> bool;
    /// Stops watching. Answers whether the client went away.
    fn watched_gone(&self) -> bool;
    /// The connection itself, when this exchange has it for itself: it can become a tunnel.
    fn client(&self) -> Option<&super::net::Stream>;
    /// The client's connection, which others' exchanges may share: upstreams may be told of it.
    fn connection(&self) -> Option<&Client>;
}

/// What a sink before another one passes on to it, which is its `inner`, unchanged. What it has to
/// decide about is written out by each: heads and data, whether there is room, pipes, responses of
/// the gateway's own, tunnels.
macro_rules! passes_on {
    () => {
        fn routed(&mut self, route: $crate::policy::route::RouteId) {
            self.inner.routed(route);
        }

        fn begun(&self) -> bool {
            self.inner.begun()
        }

        fn sent(&self) -> $crate::telemetry::record::Sent {
            self.inner.sent()
        }

        fn limit(&mut self, until_ms: u64) {
            self.inner.limit(until_ms);
        }

        fn tell_timing(&mut self, timing: $crate::telemetry::record::Timing) {
            self.inner.tell_timing(timing);
        }

        fn add_fields(&mut self, lines: &[u8]) {
            self.inner.add_fields(lines);
        }

        fn reshape(&mut self) -> &mut $crate::worker::reshape::Reshape {
            self.inner.reshape()
        }

        async fn interim(
            &mut self,
            head: &$crate::wire::ResponseHead,
            bytes: &[u8],
        ) -> Result<(), $crate::policy::Refusal> {
            self.inner.interim(head, bytes).await
        }

        fn reads_max(&self) -> u64 {
            self.inner.reads_max()
        }

        fn close_after(&mut self) {
            self.inner.close_after();
        }

        fn watch(&self, upstream: &$crate::worker::deadline::Deadline, fin_is_gone: bool) {
            self.inner.watch(upstream, fin_is_gone);
        }

        fn watch_for(&self, waker: &std::task::Waker, since_ms: u64, fin_is_gone: bool) {
            self.inner.watch_for(waker, since_ms, fin_is_gone);
        }

        fn is_gone(&self) -> bool {
            self.inner.is_gone()
        }

        fn watched_gone(&self) -> bool {
            self.inner.watched_gone()
        }

        fn client(&self) -> Option<&$crate::worker::net::Stream> {
            self.inner.client()
        }

        fn connection(&self) -> Option<&$crate::worker::client::Client> {
            self.inner.connection()
        }
    };
}
pub(super) use passes_on;

/// A response the gateway makes itself.
pub struct OwnResponse<'a> {
    pub status: u16,
    pub content_type: &'a str,
    pub fields: &'a [(String, String)],
    pub body: &'a [u8],
}

impl Worker {
    /// A request object for the next exchange, with the memory of an earlier one.
    pub fn request(&self) -> Box<Request> {
        self.requests.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give_request(&self, request: Option<Box<Request>>) {
        let mut free = self.requests.borrow_mut();
        if free.len() < REQUESTS_FREE_MAX {
            free.extend(request);
        }
    }
}

/// Parsed-request objects one worker keeps for reuse.
const REQUESTS_FREE_MAX: usize = 128;
