//! gRPC-Web (PROTOCOL-WEB.md of the gRPC project): calls of browsers, which know no trailers,
//! forwarded as gRPC.
//!
//! The request's head is written anew, its body decoded where it is base64; the response's trailers
//! become the last frame of its body. Everything between is the forwarding of any request.
//! Invariant: the client's own bytes are put back when it is over, with what follows them.

use super::{
    Worker,
    buffers::{Buffer, HEADROOM, TAILROOM},
    exchange::{Exchange, OwnResponse, RequestBody, ResponseSink, passes_on},
    forward,
    generation::Generation,
    received::Received,
    splice::Pipe,
};
use crate::{
    config::snapshot::UpstreamId,
    policy::{
        Refusal,
        grpc::Grpc,
        grpc_web::{self, Decoder},
        permit::Permit,
        refusal,
        route::RouteMatch,
    },
    wire::{Field, FieldId, Framing, HeadLimits, Parsed, ResponseHead, emit},
};

/// Fields of a request that are written anew, or are the browser's affair.
const OWN: [&[u8]; 2] = [b"content-type", b"x-grpc-web"];

/// Forwards a call, whose Content-Type says `kind`.
pub async fn forward<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    kind: Grpc,
    to: (&RouteMatch, UpstreamId, Permit),
    (body, sink): (&mut B, &mut S),
) -> Result<(), Refusal> {
    exchange.grpc = kind;
    exchange.limit_call();
    // A browser that aborts a call over HTTP/1.1 closes, and none closes only its own side.
    exchange.fin_is_gone = true;
    sink.limit(exchange.until_ms);
    body.limit(snapshot.route(to.0.route).body_bytes_max, exchange.until_ms)?;
    let mut decoder = (kind == Grpc::WebText).then(Decoder::default);
    let text = head(exchange, body, &mut decoder)?;
    let received = Received::replace(exchange, text, &snapshot.limits.head)?;
    let mut body = WebBody { worker, inner: body, decoder };
    let mut sink = WebSink { limits: snapshot.limits.head, inner: sink, kind, is_call: true };
    let result = forward::forward(worker, snapshot, exchange, to, &mut body, &mut sink).await;
    received.put_back(exchange);
    result
}

/// The request as gRPC has it, with what arrived of its body.
fn head<B: RequestBody>(
    exchange: &Exchange,
    body: &B,
    decoder: &mut Option<Decoder>,
) -> Result<(Vec<u8>, usize), Refusal> {
    let (head, bytes) = (exchange.head(), exchange.bytes());
    let mut out = Vec::with_capacity(bytes.len() + 128);
    emit::request_line(&mut out, exchange.text(head.method_text), exchange.text(head.target), None);
    // A length in base64 is another one.
    let keeps_length = decoder.is_none();
    emit::kept_fields(&mut out, bytes, &head.fields, |field: &Field| match field.id {
        FieldId::Other => OWN.iter().any(|own| field.name.of(bytes).eq_ignore_ascii_case(own)),
        FieldId::ContentLength => !keeps_length,
        _ => false,
    });
    emit::field(&mut out, b"content-type", b"application/grpc+proto");
    emit::field(&mut out, b"te", b"trailers");
    emit::field(&mut out, b"connection", b"te");
    if head.framing == Framing::Chunked || !keeps_length {
        emit::field(&mut out, b"transfer-encoding", b"chunked");
    }
    emit::end(&mut out);
    let head_len = out.len();
    let arrived = exchange.text(exchange.arrived);
    match decoder {
        None => out.extend_from_slice(arrived),
        Some(decoder) => decode(decoder, arrived, body.ended(), &mut out)?,
    }
    Ok((out, head_len))
}

fn decode(
    decoder: &mut Decoder,
    text: &[u8],
    is_all: bool,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    match decoder.decode(text, out) {
        Ok(()) if !is_all || decoder.is_whole() => Ok(()),
        _ => Err(refusal::GRPC_WEB_INVALID.into()),
    }
}

/// The request's body, decoded.
struct WebBody<'b, B> {
    worker: &'b Worker,
    inner: &'b mut B,
    decoder: Option<Decoder>,
}

impl<B: RequestBody> RequestBody for WebBody<'_, B> {
    const IS_ONE_OF_MANY: bool = B::IS_ONE_OF_MANY;

    fn limit(&mut self, bytes_max: u64, until_ms: u64) -> Result<(), Refusal> {
        self.inner.limit(bytes_max, until_ms)
    }

    fn ended(&self) -> bool {
        self.inner.ended()
    }

    fn left(&self) -> u64 {
        0
    }

    fn append_arrived(&mut self, _: &mut Buffer) {}

    async fn next(&mut self) -> Result<Buffer, Refusal> {
        let buf = self.inner.next().await?;
        let Some(decoder) = &mut self.decoder else { return Ok(buf) };
        let mut out = Vec::with_capacity(buf.len());
        let decoded = decode(decoder, buf.bytes(), self.inner.ended(), &mut out);
        self.worker.buffers.give(buf);
        decoded?;
        Ok(filled(self.worker, &[&out]))
    }

    fn trailer_lines(&self) -> &[u8] {
        // Browsers send none.
        b""
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
}

/// A buffer with room around it for framing.
fn filled(worker: &Worker, pieces: &[&[u8]]) -> Buffer {
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut buf = worker.buffers.at_least(HEADROOM + bytes + TAILROOM);
    buf.reset(HEADROOM);
    pieces.iter().for_each(|piece| {
        buf.append(piece);
    });
    buf
}

/// Where the response goes, with its trailers inside.
struct WebSink<'s, S> {
    limits: HeadLimits,
    inner: &'s mut S,
    kind: Grpc,
    /// The upstream answers with gRPC; anything else is passed on as it is.
    is_call: bool,
}

impl<S: ResponseSink> WebSink<'_, S> {
    /// Data as this client reads it, with the trailers at its end.
    fn data_of(&self, data: &[u8], last: bool, trailer_lines: &[u8]) -> Vec<u8> {
        let mut out = data.to_vec();
        if last && !trailer_lines.is_empty() {
            out.extend(grpc_web::trailers(trailer_lines));
        }
        if self.kind == Grpc::WebText { grpc_web::encode(&out) } else { out }
    }

    /// The upstream's head as this client reads it.
    fn head_of(&self, head: &ResponseHead, bytes: &[u8], last: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(head.len + 64);
        emit::status_line(&mut out, head.status, head.phrase.of(bytes));
        emit::kept_fields(&mut out, bytes, &head.fields, |field: &Field| match field.id {
            FieldId::Other => field.name.of(bytes).eq_ignore_ascii_case(b"content-type"),
            FieldId::ContentLength | FieldId::Trailer => true,
            _ => false,
        });
        emit::field(&mut out, b"content-type", self.kind.content_type().as_bytes());
        // Known to be all there is, where the trailers are fields of the head.
        let framing: &[u8] =
            if last { b"content-length: 0" } else { b"transfer-encoding: chunked" };
        out.extend_from_slice(framing);
        out.extend_from_slice(b"\r\n\r\n");
        out
    }
}

fn content_type<'b>(head: &ResponseHead, bytes: &'b [u8]) -> &'b [u8] {
    let is_it = |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(b"content-type");
    head.fields.iter().find(is_it).map_or(b"", |field| field.value.of(bytes))
}

impl<S: ResponseSink> ResponseSink for WebSink<'_, S> {
    passes_on!();

    async fn head(
        &mut self,
        head: &ResponseHead,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        self.is_call = Grpc::of(content_type(head, buf.bytes())) == Grpc::Native;
        if !self.is_call {
            return self.inner.head(head, buf, last, trailer_lines).await;
        }
        let data = self.data_of(&buf.bytes()[head.len..], last, trailer_lines);
        let text = self.head_of(head, buf.bytes(), last && data.is_empty());
        let mut own = ResponseHead::default();
        let limits = HeadLimits {
            head_bytes_max: self.limits.head_bytes_max.saturating_add(256),
            ..self.limits
        };
        match own.parse(&text, crate::wire::Method::Post, &limits) {
            Ok(Parsed::Complete(())) => {}
            _ => return Err(refusal::UPSTREAM_INVALID.into()),
        }
        own.version = head.version;
        let bytes = HEADROOM + text.len() + data.len() + TAILROOM;
        let mut whole = Buffer::with_capacity(bytes);
        whole.reset(HEADROOM);
        whole.append(&text);
        whole.append(&data);
        buf.reset(0);
        self.inner.head(&own, &mut whole, last, &[]).await
    }

    async fn data(
        &mut self,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        if !self.is_call {
            return self.inner.data(buf, last, trailer_lines).await;
        }
        let data = self.data_of(buf.bytes(), last, trailer_lines);
        let mut own = Buffer::with_capacity(HEADROOM + data.len() + TAILROOM);
        own.reset(HEADROOM);
        own.append(&data);
        self.inner.data(&mut own, last, &[]).await
    }

    async fn ready(&mut self) -> Result<(), Refusal> {
        self.inner.ready().await
    }

    fn takes_pipes(&self) -> bool {
        false
    }

    async fn splice(&mut self, pipe: &mut Pipe, last: bool) -> Result<(), Refusal> {
        self.inner.splice(pipe, last).await
    }

    async fn own(&mut self, response: OwnResponse<'_>) -> Result<(), Refusal> {
        self.inner.own(response).await
    }

    async fn switch(&mut self, _: &ResponseHead, _: &Buffer) -> Result<(), Refusal> {
        Err(refusal::UPSTREAM_UPGRADE.into())
    }
}
