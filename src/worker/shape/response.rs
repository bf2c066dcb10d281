//! The response as its transformation makes it.

use super::{Coded, View, is_json, request::is_digest};
use crate::{
    config::Snapshot,
    policy::{
        Refusal,
        compress::{self, Coding, Compress},
        refusal,
        route::RouteMatch,
        transform::{BodyTransform, ResponseTransform, fields::FieldChanges, json},
    },
    wire::{Field, FieldId, Framing, HeadLimits, Parsed, ResponseHead, emit},
    worker::{
        Worker,
        buffers::{Buffer, HEADROOM, TAILROOM},
        exchange::{Exchange, OwnResponse, ResponseSink, passes_on},
        splice::Pipe,
    },
};

/// Where a response goes that is changed on its way.
pub struct Shaped<'s, 'w, S> {
    pub snapshot: &'s Snapshot,
    pub exchange: &'s Exchange,
    pub matched: &'s RouteMatch,
    pub worker: &'w Worker,
    pub rule: Option<&'s ResponseTransform>,
    pub compress: Option<&'w Compress>,
    pub inner: &'s mut S,
    /// Bytes that may still come of the upstream's body.
    pub left: u64,
    /// A body that is changed as a whole, until it is complete.
    pub held: Option<Held>,
    /// A body that is compressed as it comes.
    pub coded: Option<Coded<'w>>,
}

/// The head, and what came of the body.
pub struct Held {
    head: ResponseHead,
    bytes: Vec<u8>,
    body: Vec<u8>,
}

impl<'w, S: ResponseSink> Shaped<'_, 'w, S> {
    fn view<'v>(&'v self, response: (&'v ResponseHead, &'v [u8])) -> View<'v> {
        let view = View::of(self.snapshot, self.exchange, self.matched);
        View { response: Some(response), ..view }
    }

    /// How a body is changed, if this response has one that is.
    fn body_rule(&self, head: &ResponseHead, bytes: &[u8]) -> Option<&BodyTransform> {
        let rule = self.rule?.body.as_ref()?;
        let media = field(head, bytes, b"content-type");
        (head.framing != Framing::None && is_json(media)).then_some(rule)
    }

    /// Whether a response is one for compressing, and the coding it gets.
    fn coding(&self, head: &ResponseHead, bytes: &[u8], length: Option<u64>) -> Option<Codable> {
        let response = compress::Response {
            status: head.status,
            media_type: field(head, bytes, b"content-type"),
            length,
            is_encoded: !matches!(field(head, bytes, b"content-encoding"), b"" | b"identity"),
            cache_control: field(head, bytes, b"cache-control"),
        };
        let rule = self.compress.filter(|rule| rule.concerns(&response))?;
        let accepted = self.exchange.field(b"accept-encoding").unwrap_or_default();
        Some(Codable(rule.choose(accepted)))
    }

    /// The head as the client gets it.
    fn head_of(&self, head: &ResponseHead, bytes: &[u8], body: &Body) -> Vec<u8> {
        let mut out = Vec::with_capacity(head.len + 256);
        let mut statuses = self.rule.iter().flat_map(|rule| rule.statuses.iter());
        match statuses.find(|(from, _)| *from == head.status) {
            Some((_, to)) => emit::status_line(&mut out, *to, emit::phrase(*to).as_bytes()),
            None => emit::status_line(&mut out, head.status, head.phrase.of(bytes)),
        }
        let coding = body.codable.as_ref().and_then(|codable| codable.0);
        // Also the head alone of a response whose body would be changed.
        let is_changed = body.length.is_some()
            || coding.is_some()
            || self.changes_bodies() && is_json(field(head, bytes, b"content-type"));
        let none = FieldChanges::default();
        let fields = self.rule.map_or(&none, |rule| &rule.fields);
        emit::kept_fields(&mut out, bytes, &head.fields, |line: &Field| {
            let name = line.name.of(bytes);
            fields.dropped().any(|dropped| name.eq_ignore_ascii_case(dropped.as_bytes()))
                || is_changed && (is_digest(name) || is_of_bytes(line.id, name))
        });
        fields.write(&head.fields, bytes, &self.view((head, bytes)), &mut out);
        if is_changed {
            weak_etag(head, bytes, fields.dropped(), &mut out);
        }
        if body.codable.is_some() && !varies(head, bytes) {
            out.extend_from_slice(b"vary: Accept-Encoding\r\n");
        }
        if let Some(coding) = coding {
            emit::field(&mut out, b"content-encoding", coding.name().as_bytes());
        }
        match (body.length, head.framing) {
            (Some(length), _) => emit::number_field(&mut out, b"content-length", length as u64),
            (None, Framing::None) => {}
            (None, _) if coding.is_some() => chunked(&mut out),
            (None, Framing::Chunked) => chunked(&mut out),
            (None, _) => {}
        }
        emit::end(&mut out);
        out
    }

    /// Takes bytes of the upstream's body off what may come.
    fn take(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.left = self.left.checked_sub(bytes).ok_or(refusal::RESPONSE_TOO_LARGE)?;
        Ok(())
    }

    fn changes_bodies(&self) -> bool {
        self.rule.is_some_and(|rule| rule.body.is_some())
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
        let Some(rule) = self.rule.and_then(|rule| rule.body.as_ref()) else { return Ok(()) };
        let Some(held) = &mut self.held else { return Ok(()) };
        if held.body.len() + data.len() > rule.bytes_max {
            return Err(refusal::TRANSFORM_TOO_LARGE.into());
        }
        held.body.extend_from_slice(data);
        if !last {
            return Ok(());
        }
        let Some(held) = self.held.take() else { return Ok(()) };
        let (head, bytes) = (&held.head, &held.bytes[..]);
        let value = serde_json::from_slice(&held.body);
        let mut value = value.map_err(|_| refusal::TRANSFORM_RESPONSE)?;
        json::apply(&rule.steps, &mut value, &self.view((head, bytes)));
        // A value that was parsed can be written.
        let mut body = serde_json::to_vec(&value).unwrap_or_default();
        let mut codable = self.coding(head, bytes, Some(body.len() as u64));
        if let Some(Codable(coding @ Some(_))) = &mut codable {
            match self.encoder(*coding).and_then(|coded| coded.encoder.finish(&body).ok()) {
                Some(coded) => body = coded,
                None => *coding = None,
            }
        }
        let text = self.head_of(head, bytes, &Body { length: Some(body.len()), codable });
        self.send(head, text, (&body, true), &[]).await
    }

    fn encoder(&self, coding: Option<Coding>) -> Option<Coded<'w>> {
        Coded::new(self.worker, coding?, self.compress?.effort)
    }
}

/// Takes more of a body that is compressed; what there is of it then. The encoder is gone at its
/// end.
fn coded(coded: &mut Option<Coded<'_>>, data: &[u8], last: bool) -> Result<Vec<u8>, Refusal> {
    // It writes to memory, which does not fail.
    let broken = |_| Refusal::from(refusal::TRANSFORM_RESPONSE);
    match coded {
        Some(own) if !last => {
            own.encoder.write(data).map_err(broken)?;
            Ok(own.encoder.take())
        }
        _ => match coded.take() {
            Some(own) => own.encoder.finish(data).map_err(broken),
            None => Ok(Vec::new()),
        },
    }
}

/// That a response is one for compressing, and the coding it gets.
struct Codable(Option<Coding>);

/// What becomes of a response's body.
struct Body {
    /// Its length, when it is another whole one.
    length: Option<usize>,
    codable: Option<Codable>,
}

fn chunked(out: &mut Vec<u8>) {
    out.extend_from_slice(b"transfer-encoding: chunked\r\n");
}

/// The upstream says itself that the response depends on what the client accepts.
fn varies(head: &ResponseHead, bytes: &[u8]) -> bool {
    let named = |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(b"vary");
    let values = head.fields.iter().filter(named).map(|field| field.value.of(bytes));
    let mut words = values.flat_map(|value| value.split(|b| *b == b',')).map(<[u8]>::trim_ascii);
    words.any(|word| word == b"*" || word.eq_ignore_ascii_case(b"accept-encoding"))
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

impl<S: ResponseSink> ResponseSink for Shaped<'_, '_, S> {
    passes_on!();

    async fn head(
        &mut self,
        head: &ResponseHead,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        if matches!(head.framing, Framing::Length(length) if length > self.left) {
            return Err(refusal::RESPONSE_TOO_LARGE.into());
        }
        self.take((buf.len() - head.len) as u64)?;
        if self.rule.is_none() && self.compress.is_none() {
            return self.inner.head(head, buf, last, trailer_lines).await;
        }
        let bytes = buf.bytes();
        if self.body_rule(head, bytes).is_some() {
            if !matches!(field(head, bytes, b"content-encoding"), b"" | b"identity") {
                return Err(refusal::TRANSFORM_RESPONSE.into());
            }
            let (bytes, data) = bytes.split_at(head.len);
            let held = Held { head: head.clone(), bytes: bytes.to_vec(), body: Vec::new() };
            self.held = Some(held);
            let held = self.hold(data, last).await;
            buf.reset(0);
            return held;
        }
        let mut codable = self.coding(head, bytes, head.content_length);
        let has_body = head.framing != Framing::None;
        if let Some(Codable(coding)) = codable.as_mut().filter(|_| has_body) {
            self.coded = self.encoder(*coding);
            // The head must not promise what nobody does.
            *coding = coding.filter(|_| self.coded.is_some());
        }
        let text = self.head_of(head, bytes, &Body { length: None, codable });
        let data = &bytes[head.len..];
        let sent = match self.coded {
            Some(_) => {
                let data = coded(&mut self.coded, data, last)?;
                self.send(head, text, (&data, last), trailer_lines).await
            }
            None => self.send(head, text, (data, last), trailer_lines).await,
        };
        buf.reset(0);
        sent
    }

    async fn data(
        &mut self,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        self.take(buf.len() as u64)?;
        if self.held.is_some() {
            let result = self.hold(buf.bytes(), last).await;
            buf.reset(HEADROOM);
            return result;
        }
        if self.coded.is_none() {
            return self.inner.data(buf, last, trailer_lines).await;
        }
        let data = coded(&mut self.coded, buf.bytes(), last)?;
        buf.reset(HEADROOM);
        let mut own = self.worker.buffers.at_least(HEADROOM + data.len() + TAILROOM);
        own.reset(HEADROOM);
        own.append(&data);
        let result = self.inner.data(&mut own, last, trailer_lines).await;
        self.worker.buffers.give(own);
        result
    }

    async fn ready(&mut self) -> Result<(), Refusal> {
        match self.held {
            None => self.inner.ready().await,
            Some(_) => Ok(()),
        }
    }

    fn takes_pipes(&self) -> bool {
        !self.changes_bodies() && self.compress.is_none() && self.inner.takes_pipes()
    }

    async fn splice(&mut self, pipe: &mut Pipe, last: bool) -> Result<(), Refusal> {
        self.take(pipe.held() as u64)?;
        self.inner.splice(pipe, last).await
    }

    async fn own(&mut self, response: OwnResponse<'_>) -> Result<(), Refusal> {
        let known = compress::Response {
            status: response.status,
            media_type: response.content_type.as_bytes(),
            length: Some(response.body.len() as u64),
            is_encoded: false,
            cache_control: b"",
        };
        let Some(rule) = self.compress.filter(|rule| rule.concerns(&known)) else {
            return self.inner.own(response).await;
        };
        self.inner.add_fields(b"Vary: Accept-Encoding\r\n");
        let accepted = self.exchange.field(b"accept-encoding").unwrap_or_default();
        let coding = rule.choose(accepted);
        match self.encoder(coding).zip(coding) {
            None => self.inner.own(response).await,
            Some((coded, coding)) => {
                let body = coded.encoder.finish(response.body);
                let body = body.map_err(|_| refusal::TRANSFORM_RESPONSE)?;
                let line = format!("Content-Encoding: {}\r\n", coding.name());
                self.inner.add_fields(line.as_bytes());
                self.inner.own(OwnResponse { body: &body, ..response }).await
            }
        }
    }

    async fn switch(&mut self, head: &ResponseHead, buf: &Buffer) -> Result<(), Refusal> {
        self.inner.switch(head, buf).await
    }
}
