//! One exchange on one stream.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use ::h2::{Reason as Code, RecvStream, SendStream, client::ResponseFuture};
use bytes::Bytes;
use http::{Response, uri::Scheme};

use super::{
    connections::{Link, Place},
    link::Piece,
    message,
};
use crate::{
    policy::{Refusal, refusal, retry::TryOutcome},
    wire::{Framing, HeadLimits, Parsed, Reason, ResponseHead, Version, reason::BAD_TARGET},
    worker::{
        alarm::Alarm,
        buffers::{Buffer, HEADROOM, TAILROOM},
        clock::{now_ms, now_ns},
        exchange::{RequestBody, ResponseSink},
        forward::{
            Broken, Forward,
            response::{Refused, give_head, is_interim},
        },
        net::Wait,
        trace,
    },
};

/// A wait that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The client has gone away.
    Gone,
    Overdue,
}

/// A stream that failed.
struct Failed {
    refused: Refused,
    /// The endpoint says that it did nothing with the request.
    is_unprocessed: bool,
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Failed {
        Failed { refused, is_unprocessed: false }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Failed {
        Refused::from(refusal).into()
    }
}

impl From<::h2::Error> for Failed {
    fn from(error: ::h2::Error) -> Failed {
        let is_refused = error.is_reset() && error.reason() == Some(Code::REFUSED_STREAM);
        // A stream that the endpoint's GOAWAY includes does not end by it (RFC 9113 §6.8).
        let is_unprocessed = error.is_remote() && (is_refused || error.is_go_away());
        let refused = Refused { refusal: refusal(&error), received: false, timed_out: false };
        Failed { refused, is_unprocessed }
    }
}

impl Failed {
    /// The response's head had come.
    fn after_head(mut self) -> Failed {
        self.refused.received = true;
        self
    }
}

fn refusal(error: &::h2::Error) -> Refusal {
    match error.get_io() {
        Some(e) if e.kind() == std::io::ErrorKind::TimedOut => refusal::UPSTREAM_IDLE.into(),
        Some(_) => refusal::UPSTREAM_CLOSED.into(),
        None if error.is_remote() => refusal::UPSTREAM_CLOSED.into(),
        None => refusal::UPSTREAM_INVALID.into(),
    }
}

fn invalid() -> Failed {
    Refusal::from(refusal::UPSTREAM_INVALID).into()
}

/// What comes on a stream until its body begins.
enum Came {
    Interim(Response<()>),
    Final(Response<RecvStream>),
}

/// A response's body.
struct Incoming {
    stream: RecvStream,
    /// Came, and found no room.
    carry: Bytes,
    /// It has ended, with these trailers.
    ended: Option<Vec<u8>>,
    /// Bytes handed on that the endpoint has not been told of.
    taken: usize,
}

impl Forward<'_> {
    /// One try on a stream.
    pub(super) async fn over_stream<B: RequestBody, S: ResponseSink>(
        &self,
        mut place: Place,
        head: &[u8],
        body: &mut B,
        sink: &mut S,
        alarm: &Alarm,
    ) -> Result<(), Broken> {
        let is_replayable = body.ended();
        let link = place.link.clone();
        let result = match self.begin(&mut place, head, body) {
            Err(failed) => Err(failed),
            Ok((response, _sent)) if body.ended() => {
                self.relay_response(response, &place, sink, alarm).await
            }
            Ok((response, stream)) => {
                let sides = (response, stream);
                Box::pin(self.both_sides(sides, &place, body, sink, alarm)).await
            }
        };
        result.map_err(|failed| {
            if failed.refused.timed_out && !failed.refused.received {
                self.doubt(&link);
            }
            self.broken(&failed, is_replayable, place.is_reused, sink.begun())
        })
    }

    fn broken(&self, failed: &Failed, body_replayable: bool, reused: bool, begun: bool) -> Broken {
        let Failed { refused, is_unprocessed } = failed;
        let outcome = match *is_unprocessed && !refused.received && !begun {
            true => TryOutcome::Unprocessed { body_replayable },
            false => TryOutcome::Failed {
                reused_connection: reused && !refused.timed_out,
                request_bytes_sent: true,
                response_bytes_received: refused.received || begun,
                body_replayable,
            },
        };
        Broken { refusal: refused.refusal, outcome }
    }

    /// No response in time: if nothing at all has come over the connection since the request was
    /// sent, others had better use another one.
    fn doubt(&self, link: &Link) {
        let waited_ms = now_ms().saturating_sub(link.heard_ms.get());
        if waited_ms >= self.patience(self.rule.first_byte_timeout_ms) {
            link.retire();
        }
    }

    /// Opens the stream with the head and what has come of the body.
    fn begin<B: RequestBody>(
        &self,
        place: &mut Place,
        head: &[u8],
        body: &mut B,
    ) -> Result<(ResponseFuture, SendStream<Piece>), Failed> {
        let scheme = if self.rule.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        // Of a request that was admitted, and still cannot be said.
        let request = message::request(head, scheme).ok_or(Refusal::from(BAD_TARGET))?;
        let arrived = self.exchange.arrived.len();
        let has_trailers = body.ended() && !body.trailer_lines().is_empty();
        let is_all = body.ended() && arrived == 0 && !has_trailers;
        let Some(mut send) = place.send.take() else {
            // It was given while its connection was retired.
            return Err(unsent());
        };
        let (response, mut stream) = send.send_request(request, is_all)?;
        self.exchange.record.sent(now_ns());
        // What fails here, the response says.
        if arrived > 0 {
            let piece = Piece::new(self.arrived(), &self.worker.buffers);
            let _ = stream.send_data(piece, body.ended() && !has_trailers);
        }
        if has_trailers {
            let _ = stream.send_trailers(message::trailers(body.trailer_lines()));
        }
        Ok((response, stream))
    }

    /// Relays the rest of the request body while the response is awaited and relayed. The
    /// response decides, as over HTTP/1.1.
    async fn both_sides<B: RequestBody, S: ResponseSink>(
        &self,
        (response, mut stream): (ResponseFuture, SendStream<Piece>),
        place: &Place,
        body: &mut B,
        sink: &mut S,
        alarm: &Alarm,
    ) -> Result<(), Failed> {
        let own_alarm = self.worker.alarms.alarm();
        let mut upload = pin!(self.send_rest(&mut stream, body, &own_alarm));
        let mut download = pin!(self.relay_response(response, place, sink, alarm));
        let mut is_uploaded = false;
        poll_fn(|cx| {
            if !is_uploaded && let Poll::Ready(result) = upload.as_mut().poll(cx) {
                if let Err(refusal) = result {
                    return Poll::Ready(Err(refusal.into()));
                }
                is_uploaded = true;
            }
            download.as_mut().poll(cx)
        })
        .await
    }

    /// Sends the rest of the request body, no faster than the endpoint takes it. `Err` only when
    /// the client is at fault, or the endpoint takes nothing.
    async fn send_rest<B: RequestBody>(
        &self,
        stream: &mut SendStream<Piece>,
        body: &mut B,
        alarm: &Alarm,
    ) -> Result<(), Refusal> {
        while !body.ended() {
            let buf = body.next().await?;
            let has_trailers = body.ended() && !body.trailer_lines().is_empty();
            let is_last = body.ended() && !has_trailers;
            let piece = Piece::new(buf, &self.worker.buffers);
            if !is_last && bytes::Buf::remaining(&piece) == 0 && !has_trailers {
                continue;
            }
            if !self.has_window(stream, &piece, alarm).await? {
                return Ok(());
            }
            let is_empty = bytes::Buf::remaining(&piece) == 0;
            if (!is_empty || is_last) && stream.send_data(piece, is_last).is_err() {
                return Ok(());
            }
            if has_trailers {
                let _ = stream.send_trailers(message::trailers(body.trailer_lines()));
            }
        }
        Ok(())
    }

    /// Waits until the endpoint takes at least a part of `piece`, and all that was sent before.
    /// The codec holds the rest. `false`: the stream has ended.
    async fn has_window(
        &self,
        stream: &mut SendStream<Piece>,
        piece: &Piece,
        alarm: &Alarm,
    ) -> Result<bool, Refusal> {
        let bytes = bytes::Buf::remaining(piece);
        stream.reserve_capacity(bytes);
        let window = poll_fn(|cx| {
            loop {
                if bytes == 0 || stream.capacity() > 0 {
                    return Poll::Ready(true);
                }
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        match alarm.by(self.wait().at(), window).await {
            Ok(has_window) => Ok(has_window),
            Err(_) => Err(self.timed_out().refusal),
        }
    }

    /// Awaits and relays the response.
    async fn relay_response<S: ResponseSink>(
        &self,
        response: ResponseFuture,
        place: &Place,
        sink: &mut S,
        alarm: &Alarm,
    ) -> Result<(), Failed> {
        let mut head = self.worker.response_heads.borrow_mut().pop().unwrap_or_default();
        let result = self.relay_with(&mut head, response, place, sink, alarm).await;
        give_head(self.worker, head);
        result
    }

    async fn relay_with<S: ResponseSink>(
        &self,
        head: &mut ResponseHead,
        response: ResponseFuture,
        place: &Place,
        sink: &mut S,
        alarm: &Alarm,
    ) -> Result<(), Failed> {
        let response = self.final_response(head, response, place, sink, alarm).await?;
        let (parts, stream) = response.into_parts();
        let mut body = Incoming { stream, carry: Bytes::new(), ended: None, taken: 0 };
        let has_body = head_may_have_body(parts.status.as_u16(), self.exchange.is_head());
        let is_empty = has_body && body.stream.is_end_stream();
        let mut buf = self.parsed(head, parts.status, &parts.headers, is_empty)?;
        self.exchange.record.answered(head.status, now_ns());
        trace::tell_timing(self.snapshot, self.exchange, sink);
        let result = match head.framing {
            Framing::None | Framing::Length(0) => {
                sink.head(head, &mut buf, true, &[]).await.map_err(Failed::from)
            }
            _ => self.relay_body(head, &mut body, &mut buf, sink, alarm).await,
        };
        self.worker.buffers.give(buf);
        result.map_err(Failed::after_head)
    }

    /// Waits for the final response. Interim ones are passed on as they come.
    async fn final_response<S: ResponseSink>(
        &self,
        head: &mut ResponseHead,
        mut response: ResponseFuture,
        place: &Place,
        sink: &mut S,
        alarm: &Alarm,
    ) -> Result<Response<RecvStream>, Failed> {
        let until_ms = self.exchange.until_ms;
        let mut interims_left = self.snapshot.limits.interim_responses_max;
        let mut wait = Wait { idle_ms: self.patience(self.rule.first_byte_timeout_ms), until_ms };
        let by_ms = wait.at();
        let mut received = false;
        loop {
            let next = poll_fn(|cx| {
                if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
                    return Poll::Ready(interim.map(Came::Interim));
                }
                Pin::new(&mut response).poll(cx).map_ok(Came::Final)
            });
            let came = self.interruptible(sink, alarm, wait.at(), next).await;
            let came =
                came.map_err(|why| self.interrupted(why, refusal::UPSTREAM_TIMEOUT, received))?;
            let interim = match came {
                Err(e) => {
                    let mut failed = Failed::from(e);
                    failed.refused.received = received;
                    return Err(failed);
                }
                Ok(Came::Final(response)) => {
                    place.has_served();
                    return Ok(response);
                }
                Ok(Came::Interim(_)) if interims_left == 0 => return Err(invalid()),
                Ok(Came::Interim(interim)) => interim,
            };
            interims_left -= 1;
            received = true;
            let buf = self.parsed(head, interim.status(), interim.headers(), false)?;
            if !is_interim(head.status) {
                return Err(invalid());
            }
            let passed = sink.interim(head, buf.bytes()).await;
            self.worker.buffers.give(buf);
            passed?;
            wait = Wait { until_ms: by_ms, ..self.wait() };
        }
    }

    fn interrupted(&self, why: Interrupted, step: &'static Reason, received: bool) -> Failed {
        let (refusal, timed_out) = match why {
            Interrupted::Gone => (refusal::CLIENT_ABORTED.into(), false),
            Interrupted::Overdue => (self.overdue(step), true),
        };
        Refused { refusal, received, timed_out }.into()
    }

    /// Writes a response's head down as HTTP/1.1 has it and parses it. Answers the buffer that it
    /// is in, with room for data.
    fn parsed(
        &self,
        head: &mut ResponseHead,
        status: http::StatusCode,
        headers: &http::HeaderMap,
        is_empty: bool,
    ) -> Result<Buffer, Failed> {
        let worker = self.worker;
        let mut text = worker.scratch.take();
        text.clear();
        let written = message::response_head(&mut text, status, headers, is_empty);
        let mut buf = match text.len() + HEADROOM + TAILROOM <= HEAD_BYTES_SMALL {
            true => worker.buffers.response(),
            false => worker.buffers.at_least(text.len() + 2 * HEADROOM + TAILROOM),
        };
        buf.reset(HEADROOM);
        buf.append(&text);
        worker.scratch.set(text);
        let limits = &self.snapshot.limits.head;
        let parsed = head.parse(buf.bytes(), self.exchange.head().method, limits);
        if written.is_err() || !matches!(parsed, Ok(Parsed::Complete(()))) {
            worker.buffers.give(buf);
            return Err(invalid());
        }
        head.version = Version::Http2;
        if head.framing == Framing::UntilClose {
            // Its end is marked, and not by that of a connection.
            head.framing = Framing::Chunked;
        }
        Ok(buf)
    }

    /// Sends the head with what has come of the body, then the rest as it comes.
    async fn relay_body<S: ResponseSink>(
        &self,
        head: &ResponseHead,
        body: &mut Incoming,
        buf: &mut Buffer,
        sink: &mut S,
        alarm: &Alarm,
    ) -> Result<(), Failed> {
        let limits = &self.snapshot.limits.head;
        let now = poll_fn(|cx| match body.poll(cx, buf, limits) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => Poll::Ready(Ok(())),
        });
        now.await?;
        let (is_last, trailers) = body.end();
        sink.head(head, buf, is_last, trailers).await?;
        body.release();
        if body.ended.is_none() {
            let larger = self.worker.buffers.relay(head.content_length);
            self.worker.buffers.give(std::mem::replace(buf, larger));
        }
        while body.ended.is_none() {
            if buf.capacity() == 0 {
                // The sink has kept it until the client takes what is in it.
                *buf = self.worker.buffers.relay(head.content_length);
            }
            buf.reset(HEADROOM);
            let more = poll_fn(|cx| body.poll(cx, buf, limits));
            let more = self.interruptible(sink, alarm, self.wait().at(), more).await;
            more.map_err(|why| self.interrupted(why, refusal::UPSTREAM_IDLE, true))??;
            let (is_last, trailers) = body.end();
            sink.data(buf, is_last, trailers).await?;
            body.release();
        }
        Ok(())
    }

    /// Awaits `future`, no longer than until `by_ms`, and no longer than there is a client.
    pub(super) async fn interruptible<T, S: ResponseSink>(
        &self,
        sink: &S,
        alarm: &Alarm,
        by_ms: u64,
        future: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let mut future = pin!(future);
        let since_ms = now_ms();
        let watched = Watched(sink);
        let watching = poll_fn(|cx| {
            if sink.watched_gone() {
                return Poll::Ready(Err(Interrupted::Gone));
            }
            let polled = future.as_mut().poll(cx).map(Ok);
            if polled.is_pending() {
                sink.watch_for(cx.waker(), since_ms, self.exchange.fin_is_gone);
            }
            polled
        });
        let result = alarm.by(by_ms, watching).await.unwrap_or(Err(Interrupted::Overdue));
        drop(watched);
        result
    }
}

/// Watching ends with the wait.
struct Watched<'s, S: ResponseSink>(&'s S);

impl<S: ResponseSink> Drop for Watched<'_, S> {
    fn drop(&mut self) {
        self.0.watched_gone();
    }
}

/// A head of so many bytes leaves room for data behind it in the usual buffer.
const HEAD_BYTES_SMALL: usize = 4096;

fn unsent() -> Failed {
    let refusal = refusal::UPSTREAM_CLOSED.into();
    let refused = Refused { refusal, received: false, timed_out: false };
    Failed { refused, is_unprocessed: true }
}

fn head_may_have_body(status: u16, is_head: bool) -> bool {
    !is_head && !matches!(status, 204 | 304)
}

impl Incoming {
    /// Appends what has come to `buf`, until it is full or nothing more is there.
    fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
        buf: &mut Buffer,
        limits: &HeadLimits,
    ) -> Poll<Result<(), Failed>> {
        let before = self.taken;
        loop {
            self.taken += self.fill(buf);
            if !self.carry.is_empty() || buf.room() == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.stream.is_end_stream() {
                self.ended = Some(Vec::new());
                return Poll::Ready(Ok(()));
            }
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => self.carry = data,
                Poll::Ready(None) => return self.poll_end(cx, limits),
                // What came before is sent first; the error stays.
                Poll::Ready(Some(Err(_))) | Poll::Pending if self.taken > before => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(e.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_end(
        &mut self,
        cx: &mut std::task::Context<'_>,
        limits: &HeadLimits,
    ) -> Poll<Result<(), Failed>> {
        match self.stream.poll_trailers(cx) {
            Poll::Ready(Ok(None)) => self.ended = Some(Vec::new()),
            Poll::Ready(Ok(Some(trailers))) => match message::trailer_lines(&trailers, limits) {
                Ok(lines) => self.ended = Some(lines),
                Err(message::Unwritable) => return Poll::Ready(Err(invalid())),
            },
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e.into())),
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }

    /// Moves what was carried to `buf`, as much as finds room.
    fn fill(&mut self, buf: &mut Buffer) -> usize {
        let n = self.carry.len().min(buf.room());
        let data = self.carry.split_to(n);
        buf.append(&data)
    }

    /// Whether it has ended, and with which trailers.
    fn end(&self) -> (bool, &[u8]) {
        (self.ended.is_some(), self.ended.as_deref().unwrap_or_default())
    }

    /// The client has taken what was handed on: the endpoint may send as much again.
    fn release(&mut self) {
        // Fails only when the stream has ended.
        let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.taken));
    }
}
