//! The request as the upstream sees it.

use super::Forward;
use crate::{
    policy::{
        Refusal, admit, client, client_cert::ClientCert, pairs::is_same_field,
        rewrite::PathRewrite, route::RouteMatch,
    },
    telemetry::request_id::RequestId,
    wire::{Field, FieldId, Framing, Method, emit},
    worker::{
        body::{chunk_head, chunk_tail},
        buffers::{Buffer, HEADROOM, TAILROOM},
        exchange::{Exchange, RequestBody},
    },
};

/// Room for a chunk's size line between head and body.
const CHUNK_LINE_BYTES: usize = 32;

/// Writes the head alone.
pub fn head(forward: &Forward<'_>, matched: &RouteMatch) -> Result<Vec<u8>, Refusal> {
    let mut head = Vec::with_capacity(forward.exchange.head().len + HEADROOM);
    request_line(&mut head, forward, matched)?;
    fields(&mut head, forward, matched);
    Ok(head)
}

/// Writes the head and the arrived part of the body into one buffer.
#[inline(always)]
pub fn compose<B: RequestBody>(
    forward: &Forward<'_>,
    matched: &RouteMatch,
    body: &mut B,
) -> Result<Buffer, Refusal> {
    let exchange = forward.exchange;
    let arrived = exchange.text(exchange.arrived);
    let mut head = forward.worker.scratch.take();
    head.clear();
    request_line(&mut head, forward, matched)?;
    fields(&mut head, forward, matched);
    let chunked = exchange.head().framing == Framing::Chunked;
    if chunked {
        chunk_head(&mut head, arrived.len());
    }
    let trailers_len = body.trailer_lines().len();
    let room = head.len() + arrived.len() + trailers_len + CHUNK_LINE_BYTES + TAILROOM;
    let buffers = &forward.worker.buffers;
    // The read that brought the head was full: more may be there, and leaves together with it.
    let more = match exchange.buf.room() {
        0 => body.left().min(buffers.most().saturating_sub(room) as u64) as usize,
        _ => 0,
    };
    let mut buf = match B::IS_ONE_OF_MANY {
        false => buffers.at_least(room + more),
        // It is kept until the response is over, and most of a buffer from a shelf would be empty.
        true => Buffer::with_capacity(room + more),
    };
    buf.append(&head);
    buf.append(arrived);
    if more > 0 {
        body.append_arrived(&mut buf);
    }
    let trailers = body.trailer_lines();
    if chunked
        && let Some(after) = chunk_tail(&mut buf, !arrived.is_empty(), body.ended(), trailers)
    {
        buf.append(&after);
    }
    forward.worker.scratch.set(head);
    Ok(buf)
}

fn request_line(
    out: &mut Vec<u8>,
    forward: &Forward<'_>,
    matched: &RouteMatch,
) -> Result<(), Refusal> {
    let exchange = forward.exchange;
    let (mut method, mut query) = (exchange.text(exchange.head().method_text), exchange.query());
    if let Some(own) = &exchange.upstream_fields {
        query = exchange.upstream_query();
        method = own.method.as_deref().unwrap_or(method);
        if let Some(target) = &own.target {
            emit::request_line(out, method, target, None);
            return Ok(());
        }
    }
    let route = forward.snapshot.route(matched.route);
    match &route.rewrite.path {
        PathRewrite::Keep => {
            emit::request_line(out, method, exchange.forward_path(), query);
        }
        rewrite => {
            let mut path = Vec::with_capacity(256);
            rewrite.apply(exchange.forward_path(), matched, exchange.matched_path(), &mut path)?;
            emit::request_line(out, method, &path, query);
        }
    }
    Ok(())
}

/// The client's certificate, where upstreams are told of it.
fn told_certificate(exchange: &Exchange) -> Option<&ClientCert> {
    let certificate = exchange.client_cert.as_deref()?;
    let rule = exchange.door.rule.borrow();
    rule.tls.as_ref().is_some_and(|tls| tls.tells_certificate).then_some(certificate)
}

fn fields(out: &mut Vec<u8>, forward: &Forward<'_>, matched: &RouteMatch) {
    let (exchange, snapshot) = (forward.exchange, forward.snapshot);
    let (head, bytes) = (exchange.head(), exchange.bytes());
    let rule = &snapshot.forwarding;
    let route = snapshot.route(matched.route);
    let authority = exchange.text(head.authority);
    let host = match &route.rewrite.host {
        Some(host) => host.as_bytes(),
        None if authority.is_empty() => forward.rule.name.as_bytes(),
        None => authority,
    };
    emit::field(out, b"Host", host);
    let count_hops = head.method == Method::Options;
    let is_traced = exchange.trace.is_some();
    let drops_state = exchange.trace.as_ref().is_some_and(|trace| !trace.keeps_state);
    let told = told_certificate(exchange);
    let made_id = matches!(exchange.id, RequestId::Made(_));
    let drops = |field: &Field| match field.id {
        FieldId::Other => false,
        FieldId::Host => true,
        FieldId::XRequestId => made_id,
        FieldId::Traceparent => is_traced,
        FieldId::Tracestate => drops_state,
        FieldId::MaxForwards => count_hops,
        FieldId::Expect => !head.expect_continue,
        // Anybody could write it: only what the handshake has shown counts, or a proxy in front.
        FieldId::ClientCert | FieldId::ClientCertChain => {
            told.is_some() || !exchange.client.trusted_peer
        }
        id => client::drops_field(rule.fields, exchange.client.trusted_peer, id),
    };
    let own = exchange.upstream_fields.as_deref();
    let own_fields = route.policies.policies().map_or(&[][..], |policies| &policies.own_fields);
    match own.is_none() && own_fields.is_empty() {
        true => emit::kept_fields(out, bytes, &head.fields, drops),
        false => left_fields(out, exchange, own_fields, drops),
    }
    let received = client::Received {
        peer: exchange.peer,
        peer_text: &exchange.peer_text,
        trusted: &rule.trusted_proxies,
        scheme: exchange.scheme(),
        head,
        buf: bytes,
    };
    client::write_forwarding(out, rule.fields, &received);
    if made_id {
        emit::field(out, b"X-Request-Id", exchange.id.text(bytes));
    }
    if let Some(certificate) = told {
        emit::field(out, b"Client-Cert", certificate.field.as_bytes());
    }
    if let Some(own) = own {
        own.write(out);
    }
    if let Some(trace) = &exchange.trace {
        trace.write(out);
    }
    if count_hops && let Some(left) = admit::max_forwards(head, bytes) {
        out.extend_from_slice(b"Max-Forwards: ");
        emit::number(out, left.saturating_sub(1));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(rule.via.line(head.version));
    connection_fields(out, forward);
    out.extend_from_slice(b"\r\n");
}

/// The client's fields without those that policies leave out too. A loop of its own, so that where
/// no policy has a say there is nothing more to look at for each field; inlined, as that one is.
#[inline(always)]
fn left_fields(
    out: &mut Vec<u8>,
    exchange: &Exchange,
    own_fields: &[Box<[u8]>],
    drops: impl Fn(&Field) -> bool,
) {
    let bytes = exchange.bytes();
    let told = exchange.upstream_fields.as_deref();
    emit::kept_fields(out, bytes, &exchange.head().fields, |field| {
        let name = field.name.of(bytes);
        told.is_some_and(|told| told.drops(name))
            || own_fields.iter().any(|own| is_same_field(own, name))
            || drops(field)
    });
}

/// The fields that concern our connection to the upstream.
fn connection_fields(out: &mut Vec<u8>, forward: &Forward<'_>) {
    let exchange = forward.exchange;
    let head = exchange.head();
    if head.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if head.connection.te_trailers {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    match (forward.upgrade, head.connection.te_trailers) {
        (true, true) => out.extend_from_slice(b"Connection: Upgrade, TE\r\n"),
        (true, false) => out.extend_from_slice(b"Connection: Upgrade\r\n"),
        (false, true) => out.extend_from_slice(b"Connection: TE\r\n"),
        (false, false) => {}
    }
    if forward.upgrade {
        for field in head.fields.iter().filter(|f| f.id == FieldId::Upgrade) {
            emit::field(out, b"Upgrade", exchange.text(field.value));
        }
    }
}
