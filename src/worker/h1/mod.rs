//! Client connections over HTTP/1.1.
//!
//! A connection is one task. While requests come it runs [`Active::run`], which owns the buffers;
//! when nothing comes for a while it parks: the active part is dropped, buffers and all, and only
//! the socket and a readiness wait remain. Requests on one connection are served strictly one after
//! the other, so pipelined responses are in order by construction.

pub(super) mod body;
pub(super) mod sink;

use std::rc::Rc;

use body::H1Body;
use sink::H1Sink;

use super::{
    Worker,
    body::{Decoder, Took},
    buffers::Buffer,
    client::Client,
    clock::{NEVER_MS, now_ms, now_ns},
    exchange::{Exchange, Request, ResponseSink},
    generation::Generation,
    h2,
    logs::Malformed,
    net::{Next, Wait},
    pipeline::{self, Outcome},
    respond,
};
use crate::{
    config::{Snapshot, snapshot::Http2Use},
    policy::{Refusal, refusal},
    telemetry::request_id::RequestId,
    wire::{self, Parsed, Span, Version, frames::PREFACE},
};

/// Requests that arrive within this time of the last response keep the connection in its fast
/// form, which cannot be parked.
const BUSY_GAP_MS: u64 = 250;
/// Bytes of a refused request's body that are discarded before the connection is closed.
const LINGER_BYTES_MAX: u64 = 4 * 1024 * 1024;

enum Ending {
    /// Nothing came for a while, since this point of the coarse clock.
    Parked(u64),
    /// It speaks HTTP/2, as these first bytes of it say.
    Http2(Buffer),
    /// The connection is over.
    Closed,
}

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, client: Rc<Client>) {
    loop {
        // Boxed, so that a parked connection does not carry the memory of an active one.
        let since_ms = match Box::pin(active(&worker, &client)).await {
            Ending::Closed => return,
            Ending::Http2(early) => return Box::pin(h2::serve(worker, client, early)).await,
            Ending::Parked(since_ms) => since_ms,
        };
        let keep_alive_ms = worker.with_timeouts(|t| t.keep_alive_ms);
        client.stream.deadline().set_idle(since_ms);
        let woken = client.stream.readable(now_ms() + keep_alive_ms).await;
        client.stream.deadline().set_idle(NEVER_MS);
        if woken.is_err() {
            let buf = worker.buffers.head();
            return Box::pin(close_gently(&worker, &client, buf)).await;
        }
    }
}

async fn active(worker: &Worker, client: &Client) -> Ending {
    let mut active = Active {
        worker,
        client,
        buf: worker.buffers.head(),
        request: Some(worker.request()),
        busy: false,
        is_wide: false,
    };
    let ending = active.run().await;
    worker.buffers.give(active.buf);
    worker.give_request(active.request);
    ending
}

/// A connection with its buffers.
struct Active<'c> {
    worker: &'c Worker,
    client: &'c Client,
    /// Bytes received and not yet dealt with.
    buf: Buffer,
    /// `None` while an exchange has it.
    request: Option<Box<Request>>,
    /// The last request followed the last response closely.
    busy: bool,
    /// The last request was so large that the next one gets a larger buffer.
    is_wide: bool,
}

/// What came of waiting for a request head.
enum Head {
    Complete,
    Refused(Refusal),
    Closed,
}

/// What is done with the connection after an exchange.
#[derive(PartialEq)]
enum After {
    Keep,
    /// Close, but let the client read our last words first.
    Linger,
    /// Close at once: the client awaits just that, is gone, or must notice that its response is
    /// incomplete.
    Drop,
}

impl Active<'_> {
    async fn run(&mut self) -> Ending {
        let requests = &self.client.activity.requests;
        loop {
            if self.buf.is_empty()
                && let Some(ending) = self.first_bytes(requests.get()).await
            {
                return ending;
            }
            // As of now, not as of when the wait began: a connection that waits holds none.
            let snapshot = self.worker.snapshot();
            match self.head(&snapshot).await {
                Head::Complete => {}
                Head::Closed => return Ending::Closed,
                Head::Refused(_) if self.is_http2() => {
                    return Ending::Http2(std::mem::take(&mut self.buf));
                }
                Head::Refused(refusal) => {
                    // Boxed, as every rare ending: it must not enlarge the task.
                    Box::pin(self.refuse(&snapshot, refusal)).await;
                    return Ending::Closed;
                }
            }
            requests.set(requests.get() + 1);
            let keep = requests.get() < snapshot.limits.requests_per_connection_max;
            match self.exchange(&snapshot, keep).await {
                After::Keep => {}
                After::Linger => {
                    Box::pin(self.linger(&snapshot)).await;
                    return Ending::Closed;
                }
                After::Drop => return Ending::Closed,
            }
        }
    }

    /// Waits for a whole request head at the front of `buf`.
    async fn head(&mut self, snapshot: &Snapshot) -> Head {
        let by_ms = now_ms() + snapshot.timeouts.head_ms;
        // Parse what is there; after that only when a line end makes it worth while, so that a
        // head sent byte by byte costs no more than one sent at once.
        let mut parsed_len = 0;
        let mut blank_line = BlankLine::Possible;
        loop {
            blank_line.skip(&mut self.buf);
            if blank_line != BlankLine::Half && self.worth_parsing(parsed_len, snapshot) {
                let request = self.request.get_or_insert_default();
                match request.head.parse(self.buf.bytes(), &snapshot.limits.head) {
                    Ok(Parsed::Complete(())) => return Head::Complete,
                    Ok(Parsed::Partial) => {}
                    Err(reason) => return Head::Refused(reason.into()),
                }
            }
            parsed_len = if blank_line == BlankLine::Half { 0 } else { self.buf.len() };
            self.make_room(snapshot);
            match self.more(NEVER_MS, by_ms).await {
                Ok(0) => return Head::Closed,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::TimedOut => {
                    return Head::Refused(refusal::HEAD_TIMEOUT.into());
                }
                Err(_) => return Head::Closed,
            }
        }
    }

    /// The wait between requests. `None`: there are bytes.
    async fn first_bytes(&mut self, requests: u32) -> Option<Ending> {
        let (wait_ms, park_ms) = self.worker.with_timeouts(|t| {
            (if requests == 0 { t.head_ms } else { t.keep_alive_ms }, t.park_ms)
        });
        let waited_from = now_ms();
        let deadline = self.client.stream.deadline();
        // A larger buffer is given up soon.
        let parkable = (!self.busy || self.is_wide) && requests > 0;
        self.fit();
        self.buf.reset(0);
        deadline.set_idle(waited_from);
        let (park_at_ms, by_ms) = (waited_from + park_ms, waited_from + wait_ms);
        let stream = &self.client.stream;
        let next = match parkable {
            true => stream.read_or_park(&mut self.buf, park_at_ms, by_ms).await,
            false => {
                let wait = Wait { idle_ms: NEVER_MS, until_ms: by_ms };
                Next::Read(stream.read(&mut self.buf, wait).await)
            }
        };
        deadline.set_idle(NEVER_MS);
        self.busy = requests > 0 && now_ms() - waited_from <= BUSY_GAP_MS;
        match next {
            Next::Parked => Some(Ending::Parked(waited_from)),
            Next::Read(Ok(0)) => Some(Ending::Closed),
            Next::Read(Ok(_)) => None,
            Next::Read(Err(e)) if e.kind() == std::io::ErrorKind::TimedOut => {
                Some(Box::pin(self.close_idle()).await)
            }
            Next::Read(Err(_)) => Some(Ending::Closed),
        }
    }

    /// Exchanges the empty buffer for one of the size that the next request probably has.
    fn fit(&mut self) {
        let buffers = &self.worker.buffers;
        if self.is_wide != buffers.is_larger(&self.buf) {
            let other = if self.is_wide { buffers.wide() } else { buffers.head() };
            buffers.give(std::mem::replace(&mut self.buf, other));
        }
    }

    async fn close_idle(&mut self) -> Ending {
        close_gently(self.worker, self.client, std::mem::take(&mut self.buf)).await;
        Ending::Closed
    }

    async fn more(&mut self, idle_ms: u64, until_ms: u64) -> std::io::Result<usize> {
        self.client.stream.read(&mut self.buf, Wait { idle_ms, until_ms }).await
    }

    /// Whether the bytes after the first `parsed_len`, which were not enough, can decide anything.
    fn worth_parsing(&self, parsed_len: usize, snapshot: &Snapshot) -> bool {
        parsed_len == 0 || has_line_end(&self.buf.bytes()[parsed_len..]) || self.is_full(snapshot)
    }

    /// What came is the beginning of HTTP/2 (RFC 9113 §3.3), which HTTP/1.1 refuses at its first
    /// line.
    fn is_http2(&self) -> bool {
        const FIRST_LINES: usize = b"PRI * HTTP/2.0\r\n\r\n".len();
        /// Enough to know, and for HTTP/1.1 to refuse it: the rest may come later.
        const VERSION: usize = b"PRI * HTTP/2".len();
        let came = self.buf.len().min(FIRST_LINES);
        self.client.activity.requests.get() == 0
            && !self.client.stream.is_tls()
            && came >= VERSION
            && self.buf.bytes().starts_with(&PREFACE[..came])
            && self.client.door.rule.borrow().http2 == Http2Use::On
    }

    fn is_full(&self, snapshot: &Snapshot) -> bool {
        self.buf.len() >= snapshot.limits.head.head_bytes_max as usize
    }

    /// Makes room for more of a head: at the front of the buffer, or in a larger one.
    fn make_room(&mut self, snapshot: &Snapshot) {
        self.buf.compact();
        if self.buf.room() == 0 {
            let needed = snapshot.limits.head.head_bytes_max as usize + super::buffers::HEADROOM;
            let mut larger = self.worker.buffers.at_least(needed.max(2 * self.buf.capacity()));
            larger.append(self.buf.bytes());
            self.worker.buffers.give(std::mem::replace(&mut self.buf, larger));
        }
    }

    /// Serves the request whose head is at the front of `buf`.
    async fn exchange(&mut self, snapshot: &Generation, keep: bool) -> After {
        let (worker, client) = (self.worker, self.client);
        let request = self.request.take().unwrap_or_default();
        let mut decoder = Decoder::new(request.head.framing, snapshot.limits.head);
        let head_len = request.head.len;
        let message_bytes = (head_len as u64).saturating_add(decoder.promised());
        self.is_wide = worker.buffers.is_wide(message_bytes);
        let took = match decoder.take(&mut self.buf.bytes_mut()[head_len..]) {
            Ok(took) => took,
            Err(reason) => {
                Box::pin(self.refuse(snapshot, reason.into())).await;
                return After::Drop;
            }
        };
        let mut exchange = self.begin(snapshot, request, took);
        let wait = |idle_ms| Wait { idle_ms, until_ms: NEVER_MS };
        let head = exchange.head();
        // It says itself that it sends nothing after this.
        let is_its_last = !head.connection.persistent;
        let keep = keep && !is_its_last;
        let request = (head.version, exchange.is_head());
        let mut body = H1Body::new(
            worker,
            client,
            decoder,
            took.data as u64,
            wait(snapshot.timeouts.body_ms),
            snapshot.limits.client_rate_min,
        );
        if !client.received.get() {
            body.carry(&exchange.bytes()[exchange.rest..]);
        }
        let mut sink =
            H1Sink::new(worker, snapshot, client, request, keep, wait(snapshot.timeouts.write_ms));
        let outcome = pipeline::serve(worker, snapshot, &mut exchange, &mut body, &mut sink).await;
        let leftover = body.into_leftover();
        let Exchange { request, buf, rest, .. } = exchange;
        self.finish(request, buf, rest, &leftover);
        match outcome {
            Outcome::Done if sink.keep => After::Keep,
            Outcome::Done if is_its_last && client.received.get() && self.buf.is_empty() => {
                if client.stream.is_tls() {
                    // The close alone would look like an attacker's.
                    client.stream.finish_writing();
                }
                After::Drop
            }
            Outcome::Done => After::Linger,
            Outcome::Broken(_) => {
                sink.cut();
                After::Drop
            }
        }
    }

    /// Moves buffer and head into an exchange.
    fn begin(&mut self, snapshot: &Snapshot, request: Box<Request>, took: Took) -> Exchange {
        let buf = std::mem::take(&mut self.buf);
        self.client.activity.since_ms.set(now_ms());
        let arrived = Span::new(request.head.len, request.head.len + took.data);
        let rest = request.head.len + took.consumed;
        Exchange::begin(self.worker, self.client, snapshot, request, buf, (arrived, rest))
    }

    /// Takes buffer and head back; what follows the request stays in the buffer.
    fn finish(&mut self, request: Box<Request>, buf: Buffer, rest: usize, leftover: &[u8]) {
        self.client.activity.since_ms.set(NEVER_MS);
        self.client.activity.route.set(None);
        self.request = Some(request);
        self.buf = buf;
        match leftover {
            [] => self.buf.consume(rest),
            leftover => {
                let mut buf = self.worker.buffers.at_least(leftover.len());
                buf.append(leftover);
                self.worker.buffers.give(std::mem::replace(&mut self.buf, buf));
            }
        }
    }

    /// Answers something that is not a request, and closes.
    async fn refuse(&mut self, snapshot: &Generation, refusal: Refusal) {
        let id = RequestId::of_malformed(self.worker, snapshot);
        let started_ns = now_ns();
        let wait = Wait { idle_ms: snapshot.timeouts.write_ms, until_ms: NEVER_MS };
        let request = (Version::Http11, false);
        let mut sink = H1Sink::new(self.worker, snapshot, self.client, request, false, wait);
        let answered = respond::refuse(id.text(b""), refusal, &mut sink).await;
        let malformed = Malformed {
            door: &self.client.door,
            peer: &self.client.peer_text,
            request_id: id.text(b""),
            bytes: self.buf.bytes(),
            refusal,
            sent: sink.sent(),
            started_ns,
        };
        pipeline::record_malformed(self.worker, snapshot, &malformed);
        if answered.is_ok() {
            self.linger(snapshot).await;
        }
    }

    async fn linger(&mut self, snapshot: &Snapshot) {
        self.client.stream.deadline().set_ends_by_close(false);
        self.client.stream.finish_writing();
        let linger_ms = snapshot.timeouts.linger_ms;
        self.client.stream.discard(&mut self.buf, linger_ms, LINGER_BYTES_MAX).await;
    }
}

/// One empty line that an old client may send before a request (RFC 9112 §2.2).
#[derive(Clone, Copy, PartialEq)]
enum BlankLine {
    Possible,
    /// Its CR has come, its LF not yet.
    Half,
    Past,
}

impl BlankLine {
    fn skip(&mut self, buf: &mut Buffer) {
        if *self == BlankLine::Past || buf.is_empty() {
            return;
        }
        if buf.bytes() == b"\r" {
            *self = BlankLine::Half;
            return;
        }
        *self = BlankLine::Past;
        buf.consume(wire::request::leading_crlf(buf.bytes()));
    }
}

/// A line end that may end a head: no other byte can make a partial head complete.
fn has_line_end(added: &[u8]) -> bool {
    memchr::memchr(b'\n', added).is_some()
}

/// Closes an idle connection so that a request crossing our FIN is not answered by a reset.
async fn close_gently(worker: &Worker, client: &Client, mut buf: Buffer) {
    client.stream.finish_writing();
    let linger_ms = worker.with_timeouts(|t| t.linger_ms).min(IDLE_LINGER_MS);
    client.stream.discard(&mut buf, linger_ms, LINGER_BYTES_MAX).await;
    worker.buffers.give(buf);
}

/// How long an idle connection that we close is watched for a request that crossed our FIN.
const IDLE_LINGER_MS: u64 = 500;
