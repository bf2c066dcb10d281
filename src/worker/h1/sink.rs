//! A response over HTTP/1.1: the upstream's head rewritten in place, its body framed for this
//! client.

use std::{cell::Cell, task::Waker};

use super::body::too_slow;
use crate::{
    config::Snapshot,
    policy::{Refusal, refusal, route::RouteId},
    telemetry::record::{Sent, Timing},
    wire::{Field, FieldId, Framing, ResponseHead, Version, emit},
    worker::{
        Worker,
        body::{SendFraming, chunk_head, chunk_tail, frame},
        buffers::{Buffer, HEADROOM, TAILROOM},
        client::Client,
        clock::{now_ms, now_ns},
        deadline::Deadline,
        exchange::{OwnResponse, ResponseSink},
        net::{Stream, Wait, WriteFailed},
        reshape::Reshape,
        splice::{AtOnce, Pipe},
    },
};

/// What few responses have. Boxed together, so that the others look once whether there is any.
#[derive(Default)]
struct Rare<'c> {
    /// Whole lines that policies add to the final response's fields. Once they are written, the
    /// worker has the room back.
    added: Cell<Vec<u8>>,
    /// What policies do to the fields beside that.
    reshape: Reshape,
    /// While a body comes from a pipe.
    at_once: Option<AtOnce<'c>>,
}

/// Where the response to one request goes.
pub struct H1Sink<'c> {
    worker: &'c Worker,
    snapshot: &'c Snapshot,
    client: &'c Client,
    version: Version,
    is_head: bool,
    /// The client may send another request after this response.
    pub keep: bool,
    begun: bool,
    framing: SendFraming,
    /// The end of the response is the end of the connection.
    ends_by_close: bool,
    wait: Wait,
    sent: Sent,
    /// What the client is told about how long things took.
    timing: Option<Timing>,
    waited_ms: u64,
    rare: Option<Box<Rare<'c>>>,
}

impl<'c> H1Sink<'c> {
    /// `keep`: what the request and the worker's state allow before the response is known.
    pub fn new(
        worker: &'c Worker,
        snapshot: &'c Snapshot,
        client: &'c Client,
        request: (Version, bool),
        keep: bool,
        wait: Wait,
    ) -> H1Sink<'c> {
        H1Sink {
            worker,
            snapshot,
            client,
            version: request.0,
            is_head: request.1,
            keep,
            begun: false,
            framing: SendFraming::Plain,
            ends_by_close: false,
            wait,
            sent: Sent::default(),
            timing: None,
            waited_ms: 0,
            rare: None,
        }
    }

    /// An incomplete response must not look complete: reset instead of closing cleanly.
    pub fn cut(&self) {
        if self.begun && self.ends_by_close {
            self.client.stream.reset_on_close();
        }
    }

    /// The final response begins.
    fn begin(&mut self, status: u16) {
        self.begun = true;
        self.sent.status = status;
    }

    /// Decides how the body is framed and whether the connection is kept.
    pub fn decide(&mut self, framing: Framing) {
        let is_ending = self.worker.draining.get() || self.client.door.is_closing.get();
        self.keep &= self.client.received.get() && !is_ending;
        match (framing, self.version) {
            (Framing::None | Framing::Length(_), _) => {}
            (_, Version::Http11 | Version::Http2) => self.framing = SendFraming::Chunked,
            (_, Version::Http10) => {
                self.ends_by_close = true;
                self.client.stream.deadline().set_ends_by_close(true);
                self.keep = false;
            }
        }
    }

    /// The fields this hop adds, and the end of the head.
    fn hop_fields(&self, out: &mut Vec<u8>, has_date: bool) {
        if !has_date {
            out.extend_from_slice(b"Date: ");
            self.worker.date.with(|date| out.extend_from_slice(date));
            out.extend_from_slice(b"\r\n");
        }
        self.timing_field(out);
        self.added(out);
        if self.framing == SendFraming::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        match (self.keep, self.version) {
            (true, Version::Http11 | Version::Http2) => {}
            (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        }
        out.extend_from_slice(b"\r\n");
    }

    /// What policies add.
    fn added(&self, out: &mut Vec<u8>) {
        if let Some(rare) = &self.rare {
            let mut lines = rare.added.take();
            out.extend_from_slice(&lines);
            lines.clear();
            self.worker.lines.set(lines);
        }
    }

    fn timing_field(&self, out: &mut Vec<u8>) {
        if let Some(timing) = &self.timing {
            out.extend_from_slice(b"Server-Timing: ");
            timing.write(out);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Writes the rewritten head of an upstream's response.
    pub fn rewrite(&self, out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8]) {
        out.clear();
        emit::status_line(out, head.status, head.phrase.of(bytes));
        match &self.rare {
            None => emit::kept_fields(out, bytes, &head.fields, |_| false),
            Some(rare) => reshaped(&rare.reshape, out, head, bytes),
        }
        let has_date = head.fields.iter().any(|field| field.id == FieldId::Date);
        out.extend_from_slice(self.snapshot.forwarding.via.line(head.version));
        self.security(out, Some((head, bytes)));
        self.hop_fields(out, has_date);
    }

    /// Strict-Transport-Security (RFC 6797), where the listener says so and the upstream does not.
    fn security(&self, out: &mut Vec<u8>, upstream: Option<(&ResponseHead, &[u8])>) {
        const NAME: &[u8] = b"Strict-Transport-Security";
        self.client.with_hsts(|value| {
            let is_said = upstream.is_some_and(|(head, bytes)| {
                head.fields.iter().any(|field| field.name.of(bytes).eq_ignore_ascii_case(NAME))
            });
            if !is_said {
                emit::field(out, NAME, value.as_bytes());
            }
        });
    }

    /// Sends a window.
    async fn send(&mut self, buf: &mut Buffer) -> Result<(), Refusal> {
        let bytes = buf.len() as u64;
        let result = self.client.stream.write_all(buf, self.wait).await;
        self.judge(bytes, result)
    }

    /// Accounts for `bytes` that were sent, or not, and judges the client's pace.
    fn judge(&mut self, bytes: u64, result: Result<u64, WriteFailed>) -> Result<(), Refusal> {
        match result {
            Ok(waited_ms) => {
                self.sent.bytes += bytes;
                if self.sent.first_ns == 0 && self.begun {
                    self.sent.first_ns = now_ns();
                }
                self.waited_ms += waited_ms;
                let rate_min = self.snapshot.limits.client_rate_min;
                match too_slow(self.sent.bytes, self.waited_ms, rate_min) {
                    true => Err(refusal::CLIENT_STALLED.into()),
                    false => Ok(()),
                }
            }
            Err(e) if e.timed_out() => Err(refusal::CLIENT_STALLED.into()),
            Err(_) => Err(refusal::CLIENT_ABORTED.into()),
        }
    }

    async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut buf = self.worker.buffers.at_least(bytes.len());
        buf.append(bytes);
        let result = self.send(&mut buf).await;
        self.worker.buffers.give(buf);
        result
    }

    /// Sends a window, and `after` it what did not fit behind the window.
    async fn send_then(&mut self, buf: &mut Buffer, after: Option<Vec<u8>>) -> Result<(), Refusal> {
        self.send(buf).await?;
        match after {
            None => Ok(()),
            // Boxed: rare, and must not enlarge every connection's task.
            Some(after) => Box::pin(self.send_bytes(&after)).await,
        }
    }
}

/// The fields of an upstream's response, as policies want them.
#[cold]
fn reshaped(reshape: &Reshape, out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8]) {
    let drops = |field: &Field| reshape.drops(field.name.of(bytes));
    emit::kept_fields(out, bytes, &head.fields, drops);
    let stays = |field: &&Field| !field.hop_by_hop && !drops(field);
    reshape.write(out, |name| {
        head.fields
            .iter()
            .filter(stays)
            .any(|field| field.name.of(bytes).eq_ignore_ascii_case(name))
    });
}

impl ResponseSink for H1Sink<'_> {
    fn routed(&mut self, route: RouteId) {
        self.client.activity.route.set(Some((self.snapshot.generation, route)));
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
        let rare = self.rare.get_or_insert_with(|| {
            Box::new(Rare { added: Cell::new(self.worker.lines.take()), ..Rare::default() })
        });
        rare.added.get_mut().extend_from_slice(lines);
    }

    fn reshape(&mut self) -> &mut Reshape {
        &mut self.rare.get_or_insert_default().reshape
    }

    async fn interim(&mut self, head: &ResponseHead, bytes: &[u8]) -> Result<(), Refusal> {
        if self.version == Version::Http10 {
            return Ok(());
        }
        let mut out = Vec::with_capacity(head.len + 64);
        emit::status_line(&mut out, head.status, head.phrase.of(bytes));
        emit::kept_fields(&mut out, bytes, &head.fields, |_| false);
        out.extend_from_slice(self.snapshot.forwarding.via.line(head.version));
        out.extend_from_slice(b"\r\n");
        self.send_bytes(&out).await
    }

    async fn head(
        &mut self,
        head: &ResponseHead,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        self.decide(head.framing);
        self.begin(head.status);
        let mut out = self.worker.scratch.take();
        self.rewrite(&mut out, head, buf.bytes());
        buf.consume(head.len);
        let data = buf.len();
        self.sent.body_bytes += data as u64;
        let after = match self.framing {
            SendFraming::Plain => None,
            SendFraming::Chunked => {
                chunk_head(&mut out, data);
                chunk_tail(buf, data > 0, last, trailer_lines)
            }
        };
        if !buf.prepend(&out) {
            Box::pin(self.send_bytes(&out)).await?;
        }
        self.worker.scratch.set(out);
        self.send_then(buf, after).await
    }

    async fn data(
        &mut self,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        self.sent.body_bytes += buf.len() as u64;
        let after = frame(buf, self.framing, last, trailer_lines);
        self.send_then(buf, after).await
    }

    /// The socket's own buffer is what bounds a client that takes nothing.
    async fn ready(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn reads_max(&self) -> u64 {
        u64::MAX
    }

    fn takes_pipes(&self) -> bool {
        !self.client.stream.seals()
    }

    async fn splice(&mut self, pipe: &mut Pipe, last: bool) -> Result<(), Refusal> {
        let bytes = pipe.held() as u64;
        self.sent.body_bytes += bytes;
        self.client
            .stream
            .before_write(pipe.held(), self.wait)
            .await
            .map_err(|_| refusal::CLIENT_ABORTED)?;
        let at_once = match self.rare.as_mut().and_then(|rare| rare.at_once.take()) {
            Some(at_once) => at_once,
            None => AtOnce::begin(&self.client.stream, self.worker.is_epoll)
                .map_err(|_| refusal::CLIENT_ABORTED)?,
        };
        let result = pipe.empty(&at_once, self.wait).await;
        if result.is_ok() && !last {
            self.rare.get_or_insert_default().at_once = Some(at_once);
        }
        self.judge(bytes, result)
    }

    fn close_after(&mut self) {
        self.keep = false;
    }

    async fn own(&mut self, response: OwnResponse<'_>) -> Result<(), Refusal> {
        let has_body = !matches!(response.status, 204 | 304);
        let length = if has_body { response.body.len() } else { 0 };
        self.decide(Framing::Length(length as u64));
        self.begin(response.status);
        let mut out = Vec::with_capacity(HEADROOM + TAILROOM + length);
        emit::status_line(&mut out, response.status, emit::phrase(response.status).as_bytes());
        if has_body {
            if !response.content_type.is_empty() {
                emit::field(&mut out, b"Content-Type", response.content_type.as_bytes());
            }
            out.extend_from_slice(b"Content-Length: ");
            emit::number(&mut out, length as u64);
            out.extend_from_slice(b"\r\n");
        }
        for (name, value) in response.fields {
            emit::field(&mut out, name.as_bytes(), value.as_bytes());
        }
        if let Some(rare) = &self.rare {
            let has = |name: &[u8], (own, _): &(String, String)| {
                own.as_bytes().eq_ignore_ascii_case(name)
            };
            rare.reshape
                .write(&mut out, |name| response.fields.iter().any(|field| has(name, field)));
        }
        self.security(&mut out, None);
        self.hop_fields(&mut out, false);
        if has_body && !self.is_head {
            out.extend_from_slice(response.body);
            self.sent.body_bytes = length as u64;
        }
        self.send_bytes(&out).await
    }

    async fn switch(&mut self, head: &ResponseHead, buf: &Buffer) -> Result<(), Refusal> {
        self.begin(head.status);
        self.keep = false;
        self.client.activity.is_tunnel.set(true);
        let mut out = Vec::with_capacity(head.len + HEADROOM);
        emit::status_line(&mut out, head.status, head.phrase.of(buf.bytes()));
        emit::kept_fields(&mut out, buf.bytes(), &head.fields, |_| false);
        out.extend_from_slice(self.snapshot.forwarding.via.line(head.version));
        self.timing_field(&mut out);
        self.added(&mut out);
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        emit::field(&mut out, b"Upgrade", head.upgrade.of(buf.bytes()));
        out.extend_from_slice(b"\r\n");
        self.send_bytes(&out).await
    }

    fn watch(&self, upstream: &Deadline, fin_is_gone: bool) {
        self.client.stream.deadline().watch(upstream, now_ms(), fin_is_gone);
    }

    fn watch_for(&self, waker: &Waker, since_ms: u64, fin_is_gone: bool) {
        self.client.stream.deadline().watch_for(waker, since_ms, fin_is_gone);
    }

    /// Nobody reads from it meanwhile, so nobody knows.
    fn is_gone(&self) -> bool {
        false
    }

    fn watched_gone(&self) -> bool {
        self.client.stream.deadline().watched_gone()
    }

    fn client(&self) -> Option<&Stream> {
        Some(&self.client.stream)
    }

    fn connection(&self) -> Option<&Client> {
        Some(self.client)
    }
}
