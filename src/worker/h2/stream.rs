//! One request of an HTTP/2 connection, from its head to the end of its response.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::request::Parts;

use super::{
    Session,
    body::H2Body,
    bridge,
    piece::Piece,
    sink::{Connect, H2Sink, Half},
    text,
    turns::{GIVEN_UP_UNITS, REQUEST_UNITS, Seat},
};
use crate::{
    policy::{Refusal, grpc::Grpc, refusal},
    telemetry::request_id::RequestId,
    wire::{Method, Parsed, Span, Version},
    worker::{
        Worker,
        buffers::Buffer,
        clock::{NEVER_MS, now_ns},
        exchange::{Exchange, Request, ResponseSink},
        generation::Generation,
        logs::Malformed,
        net::Wait,
        pipeline::{self, Outcome},
        respond,
    },
};

/// Serves one request.
pub async fn serve(
    session: Rc<Session>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Piece>,
) {
    let half = Rc::new(Half::new(respond, session.outbox.clone()));
    let snapshot = session.worker.snapshot();
    let (parts, stream) = request.into_parts();
    let mut work = pin!(exchange(&session, &snapshot, half.clone(), parts, stream));
    let mut is_begun = false;
    std::future::poll_fn(|cx| {
        if !std::mem::replace(&mut is_begun, true) {
            // It may have been given up before it had its turn.
            half.look(cx, &session.worker.deadlines);
        }
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            half.look(cx, &session.worker.deadlines);
        }
        polled
    })
    .await;
}

/// Waits for the request's turn, or until its client gives it up.
async fn turn(session: &Session, half: &Half) {
    let credit = &session.credit;
    if !credit.is_some() {
        let seat = Rc::new(Seat::default());
        poll_fn(|cx| match half.is_given_up(cx) {
            true => Poll::Ready(()),
            false => credit.poll_turn(&seat, cx),
        })
        .await;
    }
    credit.spend(if half.is_gone() { GIVEN_UP_UNITS } else { REQUEST_UNITS });
}

async fn exchange(
    session: &Session,
    snapshot: &Generation,
    half: Rc<Half>,
    parts: Parts,
    mut stream: RecvStream,
) {
    let worker = &*session.worker;
    turn(session, &half).await;
    let key = websocket_key(worker, &parts);
    let arrived = match key {
        None => first_data(&mut stream).await,
        Some(_) => Bytes::new(),
    };
    let read = read(worker.request(), snapshot, &parts, &stream, &arrived, key.as_deref());
    drop(parts);
    let (request, buf) = match read {
        Ok(read) => read,
        Err((refusal, buf)) => {
            return Box::pin(refuse(session, snapshot, half, refusal, buf)).await;
        }
    };
    let is_head = request.head.method == Method::Head;
    let framing = request.head.framing;
    let span = Span::new(request.head.len, request.head.len + arrived.len());
    let rest = buf.len();
    let client = &session.client;
    let mut exchange = Exchange::begin(worker, client, snapshot, request, buf, (span, rest));
    exchange.grpc = exchange.grpc_kind();
    let wait = |idle_ms| Wait { idle_ms, until_ms: NEVER_MS };
    let (limits, timeouts) = (&snapshot.limits, &snapshot.timeouts);
    // In a call nothing may be said for long.
    let (body_ms, rate_min) = match exchange.grpc {
        Grpc::No => (timeouts.body_ms, limits.client_rate_min),
        _ => (timeouts.body_ms.max(timeouts.tunnel_idle_ms), 0),
    };
    let (stream, connect) = match key {
        None => (Some(stream), None),
        Some(key) => (None, Some(Connect { stream, key })),
    };
    let mut body = H2Body::new(
        worker,
        stream,
        (framing, arrived.len() as u64),
        wait(body_ms),
        rate_min,
        limits.head,
    );
    drop(arrived);
    let write = wait(timeouts.write_ms);
    let mut sink =
        H2Sink::new(session, snapshot, half.clone(), is_head, write).with_connect(connect);
    let outcome = pipeline::serve(worker, snapshot, &mut exchange, &mut body, &mut sink).await;
    half.end_tunnel();
    if let Outcome::Broken(_) = outcome {
        if half.is_gone() && !sink.begun() {
            session.has_given_up();
        }
        // What the client has is not the whole.
        half.reset(if sink.begun() { Reason::INTERNAL_ERROR } else { Reason::CANCEL });
    } else {
        session.has_taken();
    }
    worker.give_request(Some(exchange.request));
}

/// The key for a client that asks for a WebSocket (RFC 8441).
fn websocket_key(worker: &Worker, parts: &Parts) -> Option<String> {
    let protocol = parts.extensions.get::<h2::ext::Protocol>()?;
    (protocol.as_str() == "websocket").then(|| bridge::key(&worker.random))
}

/// Data that came together with the head: it leaves together with it.
async fn first_data(stream: &mut RecvStream) -> Bytes {
    if stream.is_end_stream() {
        return Bytes::new();
    }
    let data = std::future::poll_fn(|cx| Poll::Ready(stream.poll_data(cx))).await;
    let Poll::Ready(Some(Ok(data))) = data else { return Bytes::new() };
    // It only fails when the stream is over.
    let _ = stream.flow_control().release_capacity(data.len());
    data
}

/// Writes the head down, with `arrived` behind it, and reads it as any other.
fn read(
    mut request: Box<Request>,
    snapshot: &Generation,
    parts: &Parts,
    stream: &RecvStream,
    arrived: &Bytes,
    key: Option<&str>,
) -> Result<(Box<Request>, Buffer), (Refusal, Buffer)> {
    if key.is_none() && parts.extensions.get::<h2::ext::Protocol>().is_some() {
        return Err((refusal::METHOD_REFUSED.into(), Buffer::default()));
    }
    let body = match stream.is_end_stream() {
        _ if key.is_some() => text::Body::None,
        true if arrived.is_empty() => text::Body::None,
        true => text::Body::Whole(arrived.len()),
        false => text::Body::Streamed,
    };
    let mut buf = text::head(parts, body, arrived.len(), key)
        .map_err(|reason| (reason.into(), Buffer::default()))?;
    match request.head.parse(buf.bytes(), &snapshot.limits.head) {
        Ok(Parsed::Complete(())) if request.head.len == buf.len() => {}
        Err(reason) => return Err((reason.into(), buf)),
        // Not reached: what was written ends with its head's end. Refusing is safe.
        Ok(_) => return Err((crate::wire::reason::MALFORMED_HEAD.into(), buf)),
    }
    request.head.version = Version::Http2;
    buf.append(arrived);
    Ok((request, buf))
}

/// Answers something that is not a request.
async fn refuse(
    session: &Session,
    snapshot: &Generation,
    half: Rc<Half>,
    refusal: Refusal,
    buf: Buffer,
) {
    let worker = &*session.worker;
    let id = RequestId::of_malformed(worker, snapshot);
    let started_ns = now_ns();
    let wait = Wait { idle_ms: snapshot.timeouts.write_ms, until_ms: NEVER_MS };
    let mut sink = H2Sink::new(session, snapshot, half, false, wait);
    // Whoever does not take it has gone.
    let _ = respond::refuse(id.text(b""), refusal, &mut sink).await;
    let malformed = Malformed {
        door: &session.client.door,
        peer: &session.client.peer_text,
        request_id: id.text(b""),
        bytes: buf.bytes(),
        refusal,
        sent: sink.sent(),
        started_ns,
    };
    pipeline::record_malformed(worker, snapshot, &malformed);
}
