//! The upstream's response on its way to the client.

use std::io::ErrorKind;

use super::Forward;
use crate::{
    policy::{Refusal, refusal},
    wire::{Framing, Parsed, ResponseHead},
    worker::{
        Worker,
        body::{Decoder, ReadError, Reader},
        buffers::{Buffer, HEADROOM},
        clock::now_ns,
        exchange::ResponseSink,
        net::Wait,
        pool::Connection,
        splice::{self, AtOnce, Lent, Pipe},
        tls, trace,
    },
};

/// What is left of the connection after a complete response.
pub enum Relayed {
    /// It can carry another request.
    Reusable,
    Spent,
    /// It is a tunnel now.
    Upgraded(Switched),
}

/// What is known of a tunnel that begins.
pub struct Switched {
    /// Bytes that came behind the 101.
    pub early: Vec<u8>,
    pub is_websocket: bool,
}

/// Of a spliced body of which no more than this is left, what has arrived leaves together with the
/// head. A larger one gains from leaving in few large pieces, and the next one grows while the head
/// is sent.
const TOGETHER_BYTES_MAX: u64 = 64 * 1024;

/// A response that failed.
pub struct Refused {
    pub refusal: Refusal,
    /// Something of a response had been received.
    pub received: bool,
    pub timed_out: bool,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused { refusal, received: true, timed_out: false }
    }
}

/// While alive, a client that goes away ends the upstream's connection.
struct Watched<'a, S: ResponseSink>(&'a S);

impl<S: ResponseSink> Watched<'_, S> {
    /// Whether the client went away meanwhile.
    fn gone(self) -> bool {
        let gone = self.0.watched_gone();
        // What dropping would do is done.
        std::mem::forget(self);
        gone
    }
}

impl<S: ResponseSink> Drop for Watched<'_, S> {
    fn drop(&mut self) {
        self.0.watched_gone();
    }
}

impl Forward<'_> {
    /// Awaits and relays the response.
    pub async fn download<S: ResponseSink>(
        &self,
        connection: &Connection,
        sink: &mut S,
    ) -> Result<Relayed, Refused> {
        let worker = self.worker;
        let mut head = worker.response_heads.borrow_mut().pop().unwrap_or_default();
        // A read that is in flight already brings its own.
        let mut buf = Buffer::default();
        let result = self.relay(connection, sink, &mut head, &mut buf).await;
        worker.buffers.give(buf);
        give_head(worker, head);
        result
    }

    async fn relay<S: ResponseSink>(
        &self,
        connection: &Connection,
        sink: &mut S,
        head: &mut ResponseHead,
        buf: &mut Buffer,
    ) -> Result<Relayed, Refused> {
        self.final_head(connection, sink, head, buf).await?;
        trace::tell_timing(self.snapshot, self.exchange, sink);
        if head.status == 101 {
            return self.switch(sink, head, buf).await;
        }
        let decoder = Decoder::new(head.framing, self.snapshot.limits.head);
        let message_bytes = (head.len as u64).saturating_add(decoder.promised());
        connection.is_wide.set(self.worker.buffers.is_wide(message_bytes));
        let mut reader = Reader::new(&connection.stream, decoder);
        let took = reader.decoder.take(&mut buf.bytes_mut()[head.len..]);
        let took = took.map_err(|_| Refusal::from(refusal::UPSTREAM_INVALID))?;
        reader.carry.extend_from_slice(&buf.bytes()[head.len + took.consumed..]);
        buf.truncate(head.len + took.data);
        let clean = match self.pipe(connection, sink, &reader.decoder) {
            Some(mut pipe) => {
                self.spliced(connection, sink, head, buf, (&mut reader.decoder, &mut pipe)).await?;
                // No read went beyond the body, so none has seen what follows it.
                !connection.stream.has_unread()
            }
            None => {
                let gathered = sink.reads_max() == u64::MAX && reader.gather(self.worker, buf);
                let ended = reader.decoder.ended();
                sink.head(head, buf, ended, reader.decoder.trailer_lines()).await?;
                if !ended {
                    self.rest(connection, sink, &mut reader, buf).await?;
                }
                let has_more =
                    !reader.carry.is_empty() || gathered && connection.stream.has_unread();
                !has_more && head.framing != Framing::UntilClose
            }
        };
        Ok(match head.connection.persistent && clean {
            true => Relayed::Reusable,
            false => Relayed::Spent,
        })
    }

    /// Reads until the final response head is complete at the front of the window. Interim
    /// responses are passed on as they come.
    async fn final_head<S: ResponseSink>(
        &self,
        connection: &Connection,
        sink: &mut S,
        head: &mut ResponseHead,
        buf: &mut Buffer,
    ) -> Result<(), Refused> {
        let limits = &self.snapshot.limits;
        let method = self.exchange.head().method;
        let mut received = false;
        let mut interims_left = limits.interim_responses_max;
        let until_ms = self.exchange.until_ms;
        let mut wait = Wait { idle_ms: self.patience(self.rule.first_byte_timeout_ms), until_ms };
        let by_ms = wait.at();
        loop {
            match self.read(connection, sink, buf, wait).await {
                Ok(0) => return Err(closed(received)),
                Ok(_) => received = true,
                Err(failure) => return Err(Refused { received, ..failure }),
            }
            wait = Wait { idle_ms: self.rule.idle_timeout_ms, until_ms: by_ms };
            // Several heads may have come at once.
            while !buf.is_empty() {
                match head.parse(buf.bytes(), method, &limits.head) {
                    Err(_) => return Err(Refusal::from(refusal::UPSTREAM_INVALID).into()),
                    Ok(Parsed::Partial) => break,
                    Ok(Parsed::Complete(())) if !is_interim(head.status) => {
                        self.exchange.record.answered(head.status, now_ns());
                        return Ok(());
                    }
                    Ok(Parsed::Complete(())) if interims_left == 0 => {
                        return Err(Refusal::from(refusal::UPSTREAM_INVALID).into());
                    }
                    Ok(Parsed::Complete(())) => {
                        interims_left -= 1;
                        Box::pin(sink.interim(head, buf.bytes())).await?;
                        buf.consume(head.len);
                    }
                }
            }
        }
    }

    /// From now on a client that goes away ends `connection`.
    fn watch<'s, S: ResponseSink>(&self, connection: &Connection, sink: &'s S) -> Watched<'s, S> {
        sink.watch(connection.stream.deadline(), self.exchange.fin_is_gone);
        Watched(sink)
    }

    /// One read from the upstream, during which a client that goes away is noticed.
    async fn read<S: ResponseSink>(
        &self,
        connection: &Connection,
        sink: &mut S,
        buf: &mut Buffer,
        wait: Wait,
    ) -> Result<usize, Refused> {
        let watched = self.watch(connection, sink);
        let result = match connection.read_ahead.take() {
            None => {
                self.make_room(buf);
                connection.stream.read(buf, wait).await
            }
            Some(read) => {
                connection.stream.deadline().read_by(wait.at());
                let (result, ahead) = read.await;
                *buf = ahead;
                result
            }
        };
        let gone = watched.gone();
        let failure = |refusal, timed_out| Refused { refusal, received: false, timed_out };
        match result {
            _ if gone => Err(failure(refusal::CLIENT_ABORTED.into(), false)),
            Ok(n) => Ok(n),
            Err(e) if e.kind() == std::io::ErrorKind::TimedOut => {
                Err(failure(self.overdue(refusal::UPSTREAM_TIMEOUT), true))
            }
            Err(e) if tls::demands_certificate(&e) => {
                Err(failure(refusal::UPSTREAM_TLS.into(), false))
            }
            Err(_) => Err(failure(refusal::UPSTREAM_CLOSED.into(), false)),
        }
    }

    /// Relays the rest of the body, one buffer at a time: what the client does not take is not
    /// read.
    async fn rest<S: ResponseSink>(
        &self,
        connection: &Connection,
        sink: &mut S,
        reader: &mut Reader<'_>,
        buf: &mut Buffer,
    ) -> Result<(), Refusal> {
        self.worker.buffers.give(std::mem::take(buf));
        loop {
            if reader.decoder.left().is_some() {
                // Nothing is held for a client that takes nothing. Of a body without a length, what
                // is to come may be its end alone, for which the client need not make room.
                sink.ready().await?;
            }
            if buf.capacity() == 0 {
                // Or the sink has kept it until the client takes what is in it.
                *buf = reader.buffer(self.worker, sink.reads_max());
            }
            buf.reset(HEADROOM);
            self.read_body(connection, sink, reader, buf).await?;
            let ended = reader.decoder.ended();
            if !buf.is_empty() || ended {
                let trailers = reader.decoder.trailer_lines();
                sink.data(buf, ended, trailers).await?;
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// A pipe for the rest of the body, when it is to be spliced.
    fn pipe<S: ResponseSink>(
        &self,
        connection: &Connection,
        sink: &S,
        body: &Decoder,
    ) -> Option<Lent<'_>> {
        let may = self.is_sent.get() && sink.takes_pipes() && !connection.stream.is_tls();
        let left = body.left().filter(|_| may)?;
        self.worker.pipes.lend(left)
    }

    /// Sends the head with what came of the body, and splices the rest, one pipe at a time: what
    /// the client does not take is not read.
    async fn spliced<S: ResponseSink>(
        &self,
        connection: &Connection,
        sink: &mut S,
        head: &ResponseHead,
        buf: &mut Buffer,
        (body, pipe): (&mut Decoder, &mut Pipe),
    ) -> Result<(), Refusal> {
        let upstream = AtOnce::begin(&connection.stream, self.worker.is_epoll)
            .map_err(|_| refusal::UPSTREAM_CLOSED)?;
        splice::others_turn().await;
        let left = body.left().unwrap_or(0);
        if left <= TOGETHER_BYTES_MAX
            && let Ok(n @ 1..) = pipe.fill_now(&upstream, left)
        {
            body.pass(n as u64);
        }
        let is_followed = pipe.held() > 0;
        if let Some(client) = sink.client() {
            client.set_followed(is_followed);
        }
        let sent = sink.head(head, buf, false, &[]).await;
        if let Some(client) = sink.client() {
            client.set_followed(false);
        }
        sent?;
        self.worker.buffers.give(std::mem::take(buf));
        loop {
            self.worker.metrics.spliced_bytes.add(pipe.held() as u64);
            sink.splice(pipe, body.ended()).await?;
            let Some(left @ 1..) = body.left() else { return Ok(()) };
            body.pass(self.fill(connection, sink, pipe, &upstream, left).await?);
        }
    }

    /// Waits for more of a body that is spliced. Answers how much of it is in the pipe now.
    async fn fill<S: ResponseSink>(
        &self,
        connection: &Connection,
        sink: &S,
        pipe: &mut Pipe,
        upstream: &AtOnce<'_>,
        left: u64,
    ) -> Result<u64, Refusal> {
        let watched = self.watch(connection, sink);
        let result = pipe.fill(upstream, left, self.wait()).await;
        let gone = watched.gone();
        match result {
            _ if gone => Err(refusal::CLIENT_ABORTED.into()),
            Ok(n @ 1..) => Ok(n as u64),
            Err(e) if e.kind() == ErrorKind::TimedOut => Err(self.overdue(refusal::UPSTREAM_IDLE)),
            Ok(0) | Err(_) => Err(refusal::UPSTREAM_CLOSED.into()),
        }
    }

    async fn read_body<S: ResponseSink>(
        &self,
        connection: &Connection,
        sink: &mut S,
        reader: &mut Reader<'_>,
        buf: &mut Buffer,
    ) -> Result<(), Refusal> {
        let watched = self.watch(connection, sink);
        let result = reader.next(buf, self.wait()).await;
        let gone = watched.gone();
        match result {
            _ if gone => Err(refusal::CLIENT_ABORTED.into()),
            Ok(()) => Ok(()),
            Err(ReadError::Invalid(_)) => Err(refusal::UPSTREAM_INVALID.into()),
            Err(ReadError::TimedOut) => Err(self.overdue(refusal::UPSTREAM_IDLE)),
            Err(ReadError::Closed) => Err(refusal::UPSTREAM_CLOSED.into()),
        }
    }

    /// A buffer for the response, or a larger one when its head outgrew what it has.
    fn make_room(&self, buf: &mut Buffer) {
        let buffers = &self.worker.buffers;
        if buf.capacity() == 0 {
            *buf = buffers.response();
        }
        if buf.room() > 0 {
            return;
        }
        let needed = HEADROOM + self.snapshot.limits.head.head_bytes_max as usize + HEADROOM;
        let mut larger = buffers.at_least(needed.max(2 * buf.capacity()));
        larger.reset(HEADROOM);
        larger.append(buf.bytes());
        buffers.give(std::mem::replace(buf, larger));
    }

    /// Passes a 101 on, when it was asked for and the request is complete.
    async fn switch<S: ResponseSink>(
        &self,
        sink: &mut S,
        head: &ResponseHead,
        buf: &mut Buffer,
    ) -> Result<Relayed, Refused> {
        if !self.upgrade || head.upgrade.is_empty() {
            return Err(Refusal::from(refusal::UPSTREAM_UPGRADE).into());
        }
        let early = buf.bytes()[head.len..].to_vec();
        let is_websocket = head.upgrade.of(buf.bytes()).eq_ignore_ascii_case(b"websocket");
        buf.truncate(head.len);
        sink.switch(head, buf).await?;
        Ok(Relayed::Upgraded(Switched { early, is_websocket }))
    }
}

pub(super) fn closed(received: bool) -> Refused {
    Refused { refusal: refusal::UPSTREAM_CLOSED.into(), received, timed_out: false }
}

pub(super) fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}

/// Parsed-response objects one worker keeps for reuse.
const HEADS_FREE_MAX: usize = 128;

#[inline]
pub(super) fn give_head(worker: &Worker, head: Box<ResponseHead>) {
    let mut free = worker.response_heads.borrow_mut();
    if free.len() < HEADS_FREE_MAX {
        free.push(head);
    }
}
