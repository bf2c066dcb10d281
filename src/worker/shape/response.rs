//! The response as its transformation makes it.

use std::task::Waker;

use super::{View, is_json, request::is_digest};
use crate::{
    config::Snapshot,
    policy::{
        Refusal, refusal,
        route::{RouteId, RouteMatch},
        transform::{BodyTransform, ResponseTransform, json},
    },
    telemetry::record::{Sent, Timing},
    wire::{Field, FieldId, Framing, HeadLimits, Parsed, ResponseHead, emit},
    worker::{
        buffers::{Buffer, HEADROOM, TAILROOM},
        client::Client,
        deadline::Deadline,
        exchange::{Exchange, OwnResponse, ResponseSink},
        net::Stream,
        splice::Pipe,
    },
};

/// Where a response goes that is changed on its way.
pub struct Shaped<'s, S> {
    pub snapshot: &'s Snapshot,
    pub exchange: &'s Exchange,
    pub matched: &'s RouteMatch,
    pub rule: &'s ResponseTransform,
    pub inner: &'s mut S,
    /// A body that is changed as a whole, until it is complete.
    pub held: Option<Held>,
}

/// The head, and what came of the body.
pub struct Held {
    head: ResponseHead,
    bytes: Vec<u8>,
    body: Vec<u8>,
}

impl<S: ResponseSink> Shaped<'_, S> {
    fn view<'v>(&'v self, response: (&'v ResponseHead, &'v [u8])) -> View<'v> {
        View {
            snapshot: self.snapshot,
            exchange: self.exchange,
            matched: self.matched,
            response: Some(response),
        }
    }

    /// How a body is changed, if this response has one that is.
    fn body_rule(&self, head: &ResponseHead, bytes: &[u8]) -> Option<&BodyTransform> {
        let rule = self.rule.body.as_ref()?;
        let media = field(head, bytes, b"content-type");
        (head.framing != Framing::None && is_json(media)).then_some(rule)
    }

    /// The head as the client gets it. `length`: of a body that was changed.
    fn head_of(&self, head: &ResponseHead, bytes: &[u8], length: Option<usize>) -> Vec<u8> {
        let mut out = Vec::with_capacity(head.len + 256);
        let other = self.rule.statuses.iter().find(|(from, _)| *from == head.status);
        match other {
            Some((_, to)) => emit::status_line(&mut out, *to, emit::phrase(*to).as_bytes()),
            None => emit::status_line(&mut out, head.status, head.phrase.of(bytes)),
        }
        // Also the head alone of a response whose body would be changed.
        let is_changed = length.is_some()
            || self.rule.body.is_some() && is_json(field(head, bytes, b"content-type"));
        let fields = &self.rule.fields;
        emit::kept_fields(&mut out, bytes, &head.fields, |line: &Field| {
            let name = line.name.of(bytes);
            fields.dropped().any(|dropped| name.eq_ignore_ascii_case(dropped.as_bytes()))
                || is_changed && (is_digest(name) || is_of_bytes(line.id, name))
        });
        fields.write(&head.fields, bytes, &self.view((head, bytes)), &mut out);
        if is_changed {
            weak_etag(head, bytes, fields.dropped(), &mut out);
        }
        match (length, head.framing) {
            (Some(length), _) => emit::number_field(&mut out, b"content-length", length as u64),
            (None, Framing::Chunked) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            (None, _) => {}
        }
        emit::end(&mut out);
        out
    }

    async fn send(
        &mut self,
        head: &ResponseHead,
        text: Vec<u8>,
        (data, last): (&[u8], bool),
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        let mut own = ResponseHead::default();
        let bound = self.snapshot.limits.head;
        let limits = HeadLimits {
            head_bytes_max: bound.head_bytes_max.saturating_add(64 * 1024),
            fields_max: bound.fields_max.saturating_add(64),
            ..bound
        };
        match own.parse(&text, self.exchange.head().method, &limits) {
            Ok(Parsed::Complete(())) => {}
            _ => return Err(refusal::TRANSFORM_RESPONSE.into()),
        }
        own.version = head.version;
        let mut whole = Buffer::with_capacity(HEADROOM + text.len() + data.len() + TAILROOM);
        whole.reset(HEADROOM);
        whole.append(&text);
        whole.append(data);
        self.inner.head(&own, &mut whole, last, trailer_lines).await
    }

    /// Takes more of a body that is held, and sends what comes of it once it is complete.
    async fn hold(&mut self, data: &[u8], last: bool) -> Result<(), Refusal> {
        let Some(rule) = &self.rule.body else { return Ok(()) };
        let Some(held) = &mut self.held else { return Ok(()) };
        if held.body.len() + data.len() > rule.bytes_max {
            return Err(refusal::TRANSFORM_TOO_LARGE.into());
        }
        held.body.extend_from_slice(data);
        if !last {
            return Ok(());
        }
        let Some(held) = self.held.take() else { return Ok(()) };
        let response = (&held.head, &held.bytes[..]);
        let value = serde_json::from_slice(&held.body);
        let mut value = value.map_err(|_| refusal::TRANSFORM_RESPONSE)?;
        json::apply(&rule.steps, &mut value, &self.view(response));
        // A value that was parsed can be written.
        let body = serde_json::to_vec(&value).unwrap_or_default();
        let text = self.head_of(response.0, response.1, Some(body.len()));
        self.send(&held.head, text, (&body, true), &[]).await
    }
}

/// Fields that hold for the very bytes that the upstream sent.
fn is_of_bytes(id: FieldId, name: &[u8]) -> bool {
    id == FieldId::ContentLength
        || [&b"etag"[..], b"accept-ranges"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// A changed representation is the same only weakly (RFC 9110 §8.8.1).
fn weak_etag<'n>(
    head: &ResponseHead,
    bytes: &[u8],
    mut dropped: impl Iterator<Item = &'n str>,
    out: &mut Vec<u8>,
) {
    let tag = field(head, bytes, b"etag");
    if tag.is_empty() || dropped.any(|name| name.eq_ignore_ascii_case("etag")) {
        return;
    }
    let strong = tag.strip_prefix(b"W/").unwrap_or(tag);
    emit::field(out, b"etag", &[b"W/", strong].concat());
}

fn field<'b>(head: &ResponseHead, bytes: &'b [u8], name: &[u8]) -> &'b [u8] {
    let is_it = |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(name);
    head.fields.iter().find(is_it).map_or(b"", |field| field.value.of(bytes))
}

impl<S: ResponseSink> ResponseSink for Shaped<'_, S> {
    fn routed(&mut self, route: RouteId) {
        self.inner.routed(route);
    }

    fn begun(&self) -> bool {
        self.inner.begun()
    }

    fn sent(&self) -> Sent {
        self.inner.sent()
    }

    fn limit(&mut self, until_ms: u64) {
        self.inner.limit(until_ms);
    }

    fn tell_timing(&mut self, timing: Timing) {
        self.inner.tell_timing(timing);
    }

    fn add_fields(&mut self, lines: &[u8]) {
        self.inner.add_fields(lines);
    }

    async fn interim(&mut self, head: &ResponseHead, bytes: &[u8]) -> Result<(), Refusal> {
        self.inner.interim(head, bytes).await
    }

    async fn head(
        &mut self,
        head: &ResponseHead,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        let bytes = buf.bytes();
        if self.body_rule(head, bytes).is_some() {
            if !matches!(field(head, bytes, b"content-encoding"), b"" | b"identity") {
                return Err(refusal::TRANSFORM_RESPONSE.into());
            }
            let (bytes, data) = bytes.split_at(head.len);
            let held = Held { head: head.clone(), bytes: bytes.to_vec(), body: Vec::new() };
            self.held = Some(held);
            let data = data.to_vec();
            buf.reset(0);
            return self.hold(&data, last).await;
        }
        let text = self.head_of(head, bytes, None);
        let data = buf.bytes()[head.len..].to_vec();
        buf.reset(0);
        self.send(head, text, (&data, last), trailer_lines).await
    }

    async fn data(
        &mut self,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        match self.held {
            None => self.inner.data(buf, last, trailer_lines).await,
            Some(_) => {
                let result = self.hold(buf.bytes(), last).await;
                buf.reset(HEADROOM);
                result
            }
        }
    }

    async fn ready(&mut self) -> Result<(), Refusal> {
        match self.held {
            None => self.inner.ready().await,
            Some(_) => Ok(()),
        }
    }

    fn reads_max(&self) -> u64 {
        self.inner.reads_max()
    }

    fn takes_pipes(&self) -> bool {
        self.rule.body.is_none() && self.inner.takes_pipes()
    }

    async fn splice(&mut self, pipe: &mut Pipe, last: bool) -> Result<(), Refusal> {
        self.inner.splice(pipe, last).await
    }

    fn close_after(&mut self) {
        self.inner.close_after();
    }

    async fn own(&mut self, response: OwnResponse<'_>) -> Result<(), Refusal> {
        self.inner.own(response).await
    }

    async fn switch(&mut self, head: &ResponseHead, buf: &Buffer) -> Result<(), Refusal> {
        self.inner.switch(head, buf).await
    }

    fn watch(&self, upstream: &Deadline, fin_is_gone: bool) {
        self.inner.watch(upstream, fin_is_gone);
    }

    fn watch_for(&self, waker: &Waker, since_ms: u64, fin_is_gone: bool) {
        self.inner.watch_for(waker, since_ms, fin_is_gone);
    }

    fn is_gone(&self) -> bool {
        self.inner.is_gone()
    }

    fn watched_gone(&self) -> bool {
        self.inner.watched_gone()
    }

    fn client(&self) -> Option<&Stream> {
        self.inner.client()
    }

    fn connection(&self) -> Option<&Client> {
        self.inner.connection()
    }
}
