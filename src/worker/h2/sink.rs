//! A response over HTTP/2: the upstream's head as fields of a HEADERS frame, its data as far as the
//! client's windows allow.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    Session, bridge,
    piece::{Outbox, Piece},
};
use crate::{
    policy::{Refusal, refusal, route::RouteId},
    telemetry::record::{Sent, Timing},
    wire::{Field, ResponseHead, Span},
    worker::{
        alarm::Alarm,
        buffers::Buffer,
        client::Client,
        clock::{now_ms, now_ns},
        deadline::{Deadline, Deadlines, Slot},
        exchange::{OwnResponse, ResponseSink},
        generation::Generation,
        h1::body::too_slow,
        net::{Stream, Wait},
        reshape::Reshape,
        splice::Pipe,
    },
};

/// The sending half of a stream, which the sink uses and whose reset its task watches.
pub struct Half {
    respond: RefCell<SendResponse<Piece>>,
    stream: RefCell<Option<SendStream<Piece>>>,
    outbox: Rc<Outbox>,
    /// Everything has been handed to the codec.
    is_over: Cell<bool>,
    is_gone: Cell<bool>,
    /// The upstream connection to end when the client goes away.
    upstream: Cell<Option<Slot>>,
    /// The tunnel that the stream became has ended.
    pub tunnel_over: Cell<bool>,
    bridge: RefCell<Option<Waker>>,
    /// Or the task to wake.
    waker: RefCell<Option<Waker>>,
}

impl Half {
    pub fn new(respond: SendResponse<Piece>, outbox: Rc<Outbox>) -> Half {
        Half {
            respond: RefCell::new(respond),
            stream: RefCell::default(),
            outbox,
            is_over: Cell::new(false),
            is_gone: Cell::new(false),
            upstream: Cell::new(None),
            tunnel_over: Cell::new(false),
            bridge: RefCell::default(),
            waker: RefCell::default(),
        }
    }

    pub fn outbox(&self) -> &Rc<Outbox> {
        &self.outbox
    }

    /// The exchange is over; so is its tunnel, if it became one.
    pub fn end_tunnel(&self) {
        self.tunnel_over.set(true);
        if let Some(waker) = self.bridge.take() {
            waker.wake();
        }
    }

    /// Whether the tunnel has ended; the task is woken when it does.
    pub fn is_tunnel_over(&self, cx: &Context<'_>) -> bool {
        self.bridge.replace(Some(cx.waker().clone()));
        self.tunnel_over.get()
    }

    /// Ends our side of the stream.
    pub fn finish(&self) {
        // It only fails when the stream is over.
        let _ = self.hand_over(Piece::empty(), true);
    }

    /// Hands data to the codec.
    pub fn hand_over(&self, piece: Piece, end: bool) -> Result<(), Refusal> {
        let mut stream = self.stream.borrow_mut();
        let stream = stream.as_mut().ok_or(refusal::CLIENT_ABORTED)?;
        stream.send_data(piece, end).map_err(|_| refusal::CLIENT_ABORTED)?;
        self.is_over.set(end);
        Ok(())
    }

    /// How many of `bytes` may be handed over.
    pub fn poll_room(&self, cx: &mut Context<'_>, bytes: usize) -> Poll<Result<usize, Refusal>> {
        std::task::ready!(self.outbox.poll_room(cx));
        self.poll_capacity(cx, bytes)
    }

    /// Looks whether the client has given the request up, and if so ends what waits for an upstream
    /// on its behalf.
    pub fn look(&self, cx: &mut Context<'_>, deadlines: &Deadlines) {
        // The codec knows one task of a stream, and of a tunnel that is the bridge.
        if self.bridge.borrow().is_some() || self.is_gone.get() || !self.is_given_up(cx) {
            return;
        }
        if let Some(upstream) = self.upstream.get() {
            deadlines.end(upstream);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether the client has given the stream up; the task is woken when it does.
    pub fn is_given_up(&self, cx: &mut Context<'_>) -> bool {
        if self.is_over.get() || self.is_gone.get() {
            return self.is_gone.get();
        }
        let reset = match &mut *self.stream.borrow_mut() {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.borrow_mut().poll_reset(cx),
        };
        self.is_gone.set(reset.is_ready());
        reset.is_ready()
    }

    /// The client gave the stream up.
    pub fn is_gone(&self) -> bool {
        self.is_gone.get()
    }

    /// Ends the stream without a proper end.
    pub fn reset(&self, reason: Reason) {
        match &mut *self.stream.borrow_mut() {
            Some(stream) => stream.send_reset(reason),
            None => self.respond.borrow_mut().send_reset(reason),
        }
    }

    /// How many bytes, up to `bytes`, the client takes.
    fn poll_capacity(&self, cx: &mut Context<'_>, bytes: usize) -> Poll<Result<usize, Refusal>> {
        let mut stream = self.stream.borrow_mut();
        let Some(stream) = &mut *stream else {
            return Poll::Ready(Err(refusal::CLIENT_ABORTED.into()));
        };
        stream.reserve_capacity(bytes);
        loop {
            let capacity = stream.capacity();
            if capacity > 0 {
                return Poll::Ready(Ok(capacity.min(bytes)));
            }
            match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Err(refusal::CLIENT_ABORTED.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Where the response to one request goes.
pub struct H2Sink<'s> {
    session: &'s Session,
    snapshot: &'s Generation,
    half: Rc<Half>,
    is_head: bool,
    begun: bool,
    wait: Wait,
    sent: Sent,
    timing: Option<Timing>,
    /// Further fields of the final response.
    added: Option<Box<HeaderMap>>,
    reshape: Option<Box<Reshape>>,
    waited_ms: u64,
    alarm: Option<Alarm>,
    connect: Option<Connect>,
    /// Our end of the tunnel, when it has become one.
    tunnel: Option<Stream>,
}

/// A client that wants a WebSocket (RFC 8441).
pub struct Connect {
    /// What it sends.
    pub stream: RecvStream,
    /// What the upstream has to answer to.
    pub key: String,
}

impl<'s> H2Sink<'s> {
    pub fn new(
        session: &'s Session,
        snapshot: &'s Generation,
        half: Rc<Half>,
        is_head: bool,
        wait: Wait,
    ) -> H2Sink<'s> {
        H2Sink {
            session,
            snapshot,
            half,
            is_head,
            begun: false,
            wait,
            sent: Sent::default(),
            timing: None,
            added: None,
            reshape: None,
            waited_ms: 0,
            alarm: None,
            connect: None,
            tunnel: None,
        }
    }

    /// The request asks for a WebSocket.
    pub fn with_connect(self, connect: Option<Connect>) -> H2Sink<'s> {
        H2Sink { connect, ..self }
    }

    /// Hands the final response's head to the codec.
    fn begin(&mut self, response: Response<()>, end: bool) -> Result<(), Refusal> {
        self.begun = true;
        self.sent.status = response.status().as_u16();
        self.sent.first_ns = now_ns();
        self.sent.bytes += size(response.headers());
        let stream = self.half.respond.borrow_mut().send_response(response, end);
        let stream = stream.map_err(|_| refusal::CLIENT_ABORTED)?;
        self.half.stream.replace(Some(stream));
        self.half.is_over.set(end);
        Ok(())
    }

    /// Waits until the client takes some of `bytes`, which are in `buf`. Answers how many.
    async fn room(&mut self, bytes: usize, buf: &mut Buffer) -> Result<usize, Refusal> {
        let half = self.half.clone();
        let poll = |cx: &mut Context<'_>| half.poll_room(cx, bytes);
        // Nearly always at once, which needs no alarm.
        let now = std::future::poll_fn(|cx| Poll::Ready(poll(cx))).await;
        if let Poll::Ready(room) = now {
            return room;
        }
        self.session.worker.buffers.fit(buf);
        let _waiting = self.session.waiting(buf.capacity());
        let (begun_ms, by_ms) = (now_ms(), self.wait.at());
        let alarm = self.alarm.get_or_insert_with(|| self.session.worker.alarms.alarm());
        let room = alarm.by(by_ms, std::future::poll_fn(poll)).await;
        self.waited_ms += now_ms().saturating_sub(begun_ms);
        let rate_min = self.snapshot.limits.client_rate_min;
        match room {
            Ok(room) if !too_slow(self.sent.bytes, self.waited_ms, rate_min) => room,
            _ => {
                self.session.has_stalled();
                Err(refusal::CLIENT_STALLED.into())
            }
        }
    }

    /// Sends the window of `buf`, which is empty afterwards and may have lost its memory.
    async fn send(&mut self, buf: &mut Buffer, end: bool) -> Result<(), Refusal> {
        while !buf.is_empty() {
            let n = self.room(buf.len(), buf).await?;
            let is_rest = n == buf.len();
            let piece = match is_rest {
                true => Piece::lent(std::mem::take(buf), &self.half.outbox),
                false => {
                    let piece = Piece::copied(&buf.bytes()[..n], &self.half.outbox);
                    buf.consume(n);
                    piece
                }
            };
            self.half.hand_over(piece, end && is_rest)?;
            self.sent.bytes += n as u64;
            self.sent.body_bytes += n as u64;
        }
        Ok(())
    }

    /// Sends data and, with `last`, the end of the body.
    async fn send_then(
        &mut self,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        let has_trailers = last && !trailer_lines.is_empty();
        let is_empty = buf.is_empty();
        self.send(buf, last && !has_trailers).await?;
        if has_trailers {
            let mut stream = self.half.stream.borrow_mut();
            let stream = stream.as_mut().ok_or(refusal::CLIENT_ABORTED)?;
            let trailers = trailers(trailer_lines);
            self.sent.bytes += size(&trailers);
            stream.send_trailers(trailers).map_err(|_| refusal::CLIENT_ABORTED)?;
            self.half.is_over.set(true);
        } else if last && is_empty {
            self.half.hand_over(Piece::empty(), true)?;
        }
        Ok(())
    }

    /// The fields this hop adds.
    fn hop_fields(&self, fields: &mut HeaderMap) {
        if !fields.contains_key(header::DATE) {
            fields.extend(self.session.worker.date.value().map(|date| (header::DATE, date)));
        }
        if let Some(timing) = &self.timing {
            let mut out = Vec::new();
            timing.write(&mut out);
            append(fields, HeaderName::from_static("server-timing"), &out);
        }
        for (name, value) in self.added.iter().flat_map(|added| added.iter()) {
            fields.append(name.clone(), value.clone());
        }
        // The upstream's own word stays (RFC 6797).
        self.session.client.with_hsts(|value| {
            if !fields.contains_key(header::STRICT_TRANSPORT_SECURITY) {
                append(fields, header::STRICT_TRANSPORT_SECURITY, value.as_bytes());
            }
        });
    }

    /// The head of an upstream's response, which is at the front of `bytes`.
    fn rewritten(&self, head: &ResponseHead, bytes: &[u8]) -> Response<()> {
        let mut response = response(head.status);
        let fields = response.headers_mut();
        // One piece of memory for all values.
        let text = Bytes::copy_from_slice(&bytes[..head.len]);
        fields.reserve(head.fields.len() + 2);
        head.fields.iter().filter(|field| !field.hop_by_hop).for_each(|field| {
            copy(fields, field, &text);
        });
        if let Some(via) = self.snapshot.via(head.version) {
            fields.append(header::VIA, via.clone());
        }
        response
    }
}

fn response(status: u16) -> Response<()> {
    let mut response = Response::new(());
    // The codec lets nothing else through.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response
}

fn copy(fields: &mut HeaderMap, field: &Field, text: &Bytes) {
    let slice = |span: Span| text.slice(span.start as usize..span.end as usize);
    // The codec has checked both.
    if let (Ok(name), Ok(value)) = (
        HeaderName::from_bytes(field.name.of(text)),
        HeaderValue::from_maybe_shared(slice(field.value)),
    ) {
        fields.append(name, value);
    }
}

fn append(fields: &mut HeaderMap, name: HeaderName, value: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        fields.append(name, value);
    }
}

/// Lines that were parsed before, as fields.
fn trailers(lines: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines.split(|&b| b == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        if let Ok(name) = HeaderName::from_bytes(&line[..colon]) {
            append(&mut fields, name, line[colon + 1..].trim_ascii());
        }
    }
    fields
}

/// Bytes of fields, as they would be without compression.
fn size(fields: &HeaderMap) -> u64 {
    fields.iter().map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum()
}

impl ResponseSink for H2Sink<'_> {
    fn routed(&mut self, route: RouteId) {
        self.session.client.activity.route.set(Some((self.snapshot.generation, route)));
    }

    fn begun(&self) -> bool {
        self.begun
    }

    fn sent(&self) -> Sent {
        self.sent
    }

    fn limit(&mut self, until_ms: u64) {
        self.wait.until_ms = until_ms;
    }

    fn tell_timing(&mut self, timing: Timing) {
        self.timing = Some(timing);
    }

    fn add_fields(&mut self, lines: &[u8]) {
        let added = self.added.get_or_insert_default();
        for (name, value) in &trailers(lines) {
            added.append(name.clone(), value.clone());
        }
    }

    fn reshape(&mut self) -> &mut Reshape {
        self.reshape.get_or_insert_default()
    }

    async fn interim(&mut self, head: &ResponseHead, bytes: &[u8]) -> Result<(), Refusal> {
        let response = self.rewritten(head, bytes);
        self.sent.bytes += size(response.headers());
        let sent = self.half.respond.borrow_mut().send_informational(response);
        sent.map_err(|_| refusal::CLIENT_ABORTED.into())
    }

    async fn head(
        &mut self,
        head: &ResponseHead,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        if self.connect.is_some() && (200..300).contains(&head.status) {
            // The client would take it for a tunnel (RFC 8441 §4).
            return Err(refusal::UPSTREAM_INVALID.into());
        }
        let mut response = self.rewritten(head, buf.bytes());
        if let Some(reshape) = &self.reshape {
            reshape.apply(response.headers_mut());
        }
        self.hop_fields(response.headers_mut());
        buf.consume(head.len);
        let is_all = last && buf.is_empty() && trailer_lines.is_empty();
        self.begin(response, is_all)?;
        match is_all {
            true => Ok(()),
            false => self.send_then(buf, last, trailer_lines).await,
        }
    }

    async fn ready(&mut self) -> Result<(), Refusal> {
        self.room(1, &mut Buffer::default()).await.map(drop)
    }

    fn reads_max(&self) -> u64 {
        self.session.reads_max()
    }

    async fn data(
        &mut self,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        self.send_then(buf, last, trailer_lines).await
    }

    fn takes_pipes(&self) -> bool {
        false
    }

    async fn splice(&mut self, _: &mut Pipe, _: bool) -> Result<(), Refusal> {
        // Nobody does, see `takes_pipes`.
        Err(refusal::CLIENT_ABORTED.into())
    }

    /// A stream that was refused says nothing about the next one.
    fn close_after(&mut self) {}

    async fn own(&mut self, own: OwnResponse<'_>) -> Result<(), Refusal> {
        let has_body = !matches!(own.status, 204 | 304);
        let length = if has_body { own.body.len() } else { 0 };
        let mut response = response(own.status);
        let fields = response.headers_mut();
        if has_body {
            if !own.content_type.is_empty() {
                append(fields, header::CONTENT_TYPE, own.content_type.as_bytes());
            }
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        for (name, value) in own.fields {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                append(fields, name, value.as_bytes());
            }
        }
        if let Some(reshape) = &self.reshape {
            reshape.add(fields);
        }
        self.hop_fields(fields);
        let sends_body = length > 0 && !self.is_head;
        self.begin(response, !sends_body)?;
        if !sends_body {
            return Ok(());
        }
        let mut buf = self.session.worker.buffers.at_least(length);
        buf.append(own.body);
        self.send(&mut buf, true).await
    }

    async fn switch(&mut self, head: &ResponseHead, buf: &Buffer) -> Result<(), Refusal> {
        let connect = self.connect.take().ok_or(refusal::UPSTREAM_UPGRADE)?;
        let mut response = self.rewritten(head, buf.bytes());
        *response.status_mut() = StatusCode::OK;
        let accept = response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
        if !accept.is_some_and(|accept| bridge::accepts(&connect.key, accept.as_bytes())) {
            return Err(refusal::UPSTREAM_INVALID.into());
        }
        self.hop_fields(response.headers_mut());
        self.begin(response, false)?;
        let worker = &self.session.worker;
        let near = bridge::begin(worker, self.half.clone(), connect.stream);
        // No descriptors are left.
        self.tunnel = Some(near.map_err(|_| refusal::OVERLOADED)?);
        Ok(())
    }

    fn watch(&self, upstream: &Deadline, _: bool) {
        self.half.upstream.set(Some(upstream.slot()));
        if self.half.is_gone.get() {
            self.session.worker.deadlines.end(upstream.slot());
        }
    }

    fn watch_for(&self, waker: &Waker, _: u64, _: bool) {
        let mut known = self.half.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        if self.half.is_gone.get() {
            waker.wake_by_ref();
        }
    }

    fn is_gone(&self) -> bool {
        self.half.is_gone.get()
    }

    fn watched_gone(&self) -> bool {
        self.half.upstream.set(None);
        self.half.is_gone.get()
    }

    fn connection(&self) -> Option<&Client> {
        Some(&self.session.client)
    }

    fn client(&self) -> Option<&Stream> {
        self.tunnel.as_ref()
    }
}
