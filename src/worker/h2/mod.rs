//! Client connections over HTTP/2 (RFC 9113).
//!
//! A connection is one task, which drives the `h2` codec; each request is a task of its own
//! ([`stream`]), so that streams do not wait for each other. Requests enter the same pipeline as
//! those over HTTP/1.1, written down as those are ([`text`]).
//!
//! Bounds, for each connection: streams by `http2.streams`; data received and not taken by its
//! windows; data not sent by [`piece::Outbox`]; streams that wait for the client to take data by
//! [`WAITING_MAX`], then no further request is begun; streams that were given up for that by
//! [`STALLED_STREAMS_MAX`]; frames that bring nothing by [`FrameBudget`]; what the codec bounds
//! itself ends the connection as well. For all connections of a worker: [`crowd`]. A panic costs
//! one stream.

mod body;
mod bridge;
mod crowd;
pub mod io;
mod piece;
mod sink;
mod stream;
mod text;
mod turns;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use h2::{Reason, RecvStream, server};
use piece::{Outbox, Piece};

pub use self::{crowd::Crowd, turns::Turns};
use self::{
    crowd::{Pace, Progress},
    turns::Credit,
};
use super::{
    Worker,
    alarm::Alarm,
    buffers::Buffer,
    client::Client,
    clock::{NEVER_MS, now_ms},
    isolate::isolate,
    net::Stream,
};
use crate::{
    config::snapshot::Http2,
    policy::frames::{Flood, FrameBudget},
    telemetry::metrics::shards::Http2Failure,
};

/// Streams that may wait for the client to take data before no further request is begun: each
/// holds buffers.
const WAITING_MAX: u32 = 12;
/// A client whose SETTINGS let a response send less than this gets no more than [`NARROW_STREAMS`]
/// requests at once, because all of them will wait; where others have many open, one at a time.
const NARROW_BYTES: u32 = 1024;
const NARROW_STREAMS: u32 = 4;
/// Streams given up because the client took nothing, and it has taken nothing since: so many end
/// the connection, or the only one that it may have.
const STALLED_STREAMS_MAX: u32 = 4;
/// What a stream holds beside its buffers: its task, its request, the codec's state, its share of
/// the connection to the upstream.
const STREAM_BYTES: u64 = 6 * 1024;
/// Bytes of buffers that streams wait with before those that follow get small ones.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// So many streams at once read so much at once; more of them read through small buffers.
const FEW_STREAMS: u32 = 4;
const FEW_READ_BYTES: u64 = 64 * 1024;
/// Streams of one connection that the codec itself may reset for the client's faults.
const OWN_RESETS_MAX: usize = 100;
/// Streams that a client may give up before they have begun.
const UNBEGUN_RESETS_MAX: usize = 100;
/// Data of one stream that waits in the codec.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes that are read and thrown away after the connection's end, so that our last words arrive.
const LINGER_BYTES_MAX: u64 = 256 * 1024;

impl io::Owner for Rc<Client> {
    fn stream(&self) -> &Stream {
        &self.stream
    }
}

type Pump = io::Pump<Rc<Client>>;
type Codec = server::Connection<io::Io<Rc<Client>>, Piece>;

/// What the tasks of one connection share.
pub struct Session {
    worker: Rc<Worker>,
    client: Rc<Client>,
    outbox: Rc<Outbox>,
    idle: io::Idle<Rc<Client>>,
    keep_alive_ms: u64,
    streams_max: u32,
    /// Streams being served, also those that the client has given up and that are not done yet.
    open: Cell<u32>,
    /// Those of them that wait for the client to take data.
    waiting: Cell<u32>,
    /// Bytes of the buffers that they hold.
    held_bytes: Cell<usize>,
    /// By its SETTINGS the client takes next to nothing.
    is_narrow: Rc<Cell<bool>>,
    pace: Pace,
    credit: Rc<Credit>,
    /// Wakes the connection's task when it is held up by others.
    pace_alarm: RefCell<Option<Alarm>>,
    pub progress: Progress,
    /// Streams given up since the client took as many bytes in all.
    stalled: Cell<(u32, u64)>,
    /// It is to end, because it takes nothing.
    is_shed: Cell<bool>,
    /// The connection's task, when it begins no further streams.
    waker: RefCell<Option<Waker>>,
}

/// Counts a stream as open while it lasts.
struct Open(Rc<Session>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed();
    }
}

/// Counts a stream as waiting while it does.
struct Waiting<'s> {
    session: &'s Session,
    held_bytes: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let session = self.session;
        session.waiting.set(session.waiting.get() - 1);
        session.worker.crowd.waited();
        session.held_bytes.set(session.held_bytes.get() - self.held_bytes);
        session.wake_unless_full();
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client closed it, or everything was said.
    Over,
    Failed(Http2Failure),
}

/// Serves a connection until it ends. `early` is what was received of it.
pub async fn serve(worker: Rc<Worker>, client: Rc<Client>, early: Buffer) {
    let credit = Credit::begin(&worker.turns).await;
    let snapshot = worker.snapshot();
    let (rule, timeouts) = (snapshot.http2, snapshot.timeouts.clone());
    worker.metrics.http2_connections.count();
    let flood = Rc::new(Cell::new(None));
    let is_narrow = Rc::new(Cell::new(false));
    let is_hasty = Rc::new(Cell::new(false));
    let look = look(&rule, flood.clone(), is_narrow.clone(), is_hasty.clone());
    let (of_codec, write_ms) = (Some(credit.clone()), timeouts.write_ms);
    let (codec, pump) = io::pair(client.clone(), &worker.buffers, early, write_ms, of_codec, look);
    let session = Rc::new(Session {
        outbox: Rc::new(Outbox::new(&worker.buffers, &worker.crowd, &credit)),
        idle: pump.idle(),
        keep_alive_ms: timeouts.keep_alive_ms,
        streams_max: rule.streams_max,
        open: Cell::new(0),
        waiting: Cell::new(0),
        held_bytes: Cell::new(0),
        is_narrow,
        pace: Pace::new(worker.random.next()),
        credit,
        pace_alarm: RefCell::default(),
        progress: Progress::default(),
        stalled: Cell::new((0, 0)),
        is_shed: Cell::new(false),
        waker: RefCell::default(),
        worker: worker.clone(),
        client: client.clone(),
    });
    let builder = builder(&rule, snapshot.limits.head);
    drop(snapshot);
    pump.idle().begin(now_ms() + timeouts.head_ms);
    let member = worker.crowd.join(&session);
    let mut task = Task { session, pump, flood, is_hasty, is_ending: false, is_aborted: false };
    let end = task.run(builder, codec).await;
    if let End::Failed(failure) = end {
        worker.metrics.http2_failures[failure as usize].count();
        tracing::debug!(reason = failure.name(), peer = ?client.peer, "HTTP/2 connection ended");
    }
    drop(member);
    task.pump.finish().await;
    client.stream.finish_writing();
    let mut buf = worker.buffers.head();
    client.stream.discard(&mut buf, timeouts.linger_ms, LINGER_BYTES_MAX).await;
    worker.buffers.give(buf);
}

/// Counts frames as they come; `None` ends the connection.
fn look(
    rule: &Http2,
    flood: Rc<Cell<Option<Flood>>>,
    is_narrow: Rc<Cell<bool>>,
    is_hasty: Rc<Cell<bool>>,
) -> impl FnMut(&[u8], u64) -> Option<u32> + 'static {
    let mut budget = FrameBudget::new(rule.rates, now_ms());
    move |bytes, sent_bytes| {
        budget.judge_strictly(is_hasty.get());
        match budget.received(bytes, now_ms(), sent_bytes) {
            Ok(frames) => {
                is_narrow.set(budget.initial_window() < NARROW_BYTES);
                Some(frames)
            }
            Err(found) => {
                flood.set(Some(found));
                None
            }
        }
    }
}

fn builder(rule: &Http2, head: crate::wire::HeadLimits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(rule.streams_max)
        .initial_window_size(rule.stream_window_bytes)
        .initial_connection_window_size(rule.connection_window_bytes)
        // Counted with 32 bytes for each field (RFC 9113 §6.5.2). Our own codec judges more finely.
        .max_header_list_size(head.head_bytes_max + 32 * u32::from(head.fields_max))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_local_error_reset_streams(Some(OWN_RESETS_MAX))
        .max_pending_accept_reset_streams(UNBEGUN_RESETS_MAX)
        .enable_connect_protocol();
    builder
}

/// The connection's task.
struct Task {
    session: Rc<Session>,
    pump: Pump,
    flood: Rc<Cell<Option<Flood>>>,
    /// Resets are judged strictly.
    is_hasty: Rc<Cell<bool>>,
    /// The client was told that the connection ends when its streams have.
    is_ending: bool,
    /// And that it ends at once.
    is_aborted: bool,
}

impl Task {
    async fn run(&mut self, builder: server::Builder, io: io::Io<Rc<Client>>) -> End {
        let mut codec = match self.shake_hands(builder, io).await {
            Ok(codec) => codec,
            Err(end) => return end,
        };
        self.session.idle();
        loop {
            let next = std::future::poll_fn(|cx| self.poll_next(&mut codec, cx)).await;
            match next {
                Some(Ok((request, respond))) => {
                    self.session.begin(request, respond);
                    if self.is_last() {
                        self.end_gracefully(&mut codec);
                    }
                }
                None => return self.end(None),
                Some(Err(error)) => return self.end(Some(&error)),
            }
        }
    }

    /// Awaits the client's preface.
    async fn shake_hands(
        &mut self,
        builder: server::Builder,
        io: io::Io<Rc<Client>>,
    ) -> Result<Codec, End> {
        let mut handshake = std::pin::pin!(builder.handshake(io));
        let pump = &mut self.pump;
        let flood = &self.flood;
        let codec = std::future::poll_fn(|cx| {
            let polled = pump.poll_with(cx, |cx| handshake.as_mut().poll(cx).map(Some));
            // Nothing more will be received.
            let is_over = pump.is_overdue() || flood.get().is_some();
            if polled.is_pending() && is_over { Poll::Ready(None) } else { polled }
        });
        match codec.await {
            Some(Ok(codec)) => Ok(codec),
            Some(Err(error)) => Err(self.end(Some(&error))),
            None => Err(self.end(None)),
        }
    }

    /// The next request; `None` when the connection is over.
    #[expect(clippy::type_complexity, reason = "what the codec answers")]
    fn poll_next(
        &mut self,
        codec: &mut Codec,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(http::Request<RecvStream>, server::SendResponse<Piece>), h2::Error>>>
    {
        // It is told at once when it is to end, whatever its streams do.
        self.session.client.woken_by(cx);
        loop {
            let session = self.session.clone();
            self.is_hasty.set(session.is_hasty());
            let polled = self.pump.poll_with(cx, |cx| match session.is_full(cx) {
                false => codec.poll_accept(cx),
                true => match codec.poll_closed(cx) {
                    Poll::Ready(Ok(())) => Poll::Ready(None),
                    Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
                    Poll::Pending => Poll::Pending,
                },
            });
            if polled.is_ready() || !self.begin_end(codec) {
                return polled;
            }
        }
    }

    /// Tells the client that the connection ends, if it is to. Answers whether that is new.
    fn begin_end(&mut self, codec: &mut Codec) -> bool {
        let why = match self.flood.get() {
            Some(_) => Some(Reason::ENHANCE_YOUR_CALM),
            None if self.session.is_shed.get() => Some(Reason::ENHANCE_YOUR_CALM),
            None => self.pump.is_overdue().then_some(Reason::NO_ERROR),
        };
        // Also of one that is ending: nothing more is received, and so no last word of the client.
        if let Some(why) = why {
            if !self.is_aborted {
                codec.abrupt_shutdown(why);
            }
            return !std::mem::replace(&mut self.is_aborted, true);
        }
        let session = &self.session;
        let is_draining = session.worker.draining.get() || session.client.door.is_closing.get();
        is_draining && self.end_gracefully(codec)
    }

    /// Lets the connection end with its streams. Answers whether that is new.
    fn end_gracefully(&mut self, codec: &mut Codec) -> bool {
        if !self.is_ending {
            codec.graceful_shutdown();
        }
        !std::mem::replace(&mut self.is_ending, true)
    }

    /// Whether the connection has had as many requests as it may.
    fn is_last(&self) -> bool {
        let requests = self.session.client.activity.requests.get();
        // A reload may have lowered it.
        requests >= self.session.worker.snapshot().limits.requests_per_connection_max
    }

    fn end(&self, error: Option<&h2::Error>) -> End {
        let failure = match (self.flood.get(), error) {
            (Some(Flood::Resets), _) => Http2Failure::Resets,
            (Some(Flood::Control), _) => Http2Failure::Control,
            _ if self.pump.is_stalled() || self.session.is_shed.get() => Http2Failure::Stalled,
            (None, None) => return End::Over,
            (None, Some(error)) => match error.reason() {
                Some(Reason::ENHANCE_YOUR_CALM) if !error.is_remote() => Http2Failure::Calm,
                Some(Reason::NO_ERROR | Reason::CANCEL) => return End::Over,
                Some(_) if error.is_remote() => Http2Failure::Client,
                Some(_) => Http2Failure::Protocol,
                None => Http2Failure::Closed,
            },
        };
        End::Failed(failure)
    }
}

impl Session {
    /// Serves a request in a task of its own.
    fn begin(
        self: &Rc<Self>,
        request: http::Request<RecvStream>,
        respond: server::SendResponse<Piece>,
    ) {
        let activity = &self.client.activity;
        activity.requests.set(activity.requests.get() + 1);
        self.worker.metrics.http2_streams.count();
        self.worker.crowd.begun();
        self.pace.goes_on();
        if self.open.replace(self.open.get() + 1) == 0 {
            activity.since_ms.set(now_ms());
            self.idle.end();
            self.client.stream.deadline().set_idle(NEVER_MS);
        }
        let open = Open(self.clone());
        let session = self.clone();
        monoio::spawn(async move {
            let worker = session.worker.clone();
            let work = stream::serve(session, request, respond);
            if isolate(worker.beat.clone(), work).await.is_err() {
                worker.metrics.panics.count();
            }
            drop(open);
        });
    }

    fn closed(&self) {
        self.open.set(self.open.get() - 1);
        self.worker.crowd.ended();
        self.wake_unless_full();
        if self.open.get() == 0 {
            self.client.activity.since_ms.set(NEVER_MS);
            self.client.activity.route.set(None);
            self.idle();
        }
    }

    /// No stream is open, from now on.
    fn idle(&self) {
        self.idle.begin(now_ms() + self.keep_alive_ms);
        self.client.stream.deadline().set_idle(now_ms());
    }

    /// A stream waits for the client to take data, as long as the answer lives.
    fn waiting(&self, held_bytes: usize) -> Waiting<'_> {
        self.waiting.set(self.waiting.get() + 1);
        self.worker.crowd.waits();
        self.held_bytes.set(self.held_bytes.get() + held_bytes);
        Waiting { session: self, held_bytes }
    }

    /// Bytes that one stream should read at once: less, the more of them may come to wait.
    fn reads_max(&self) -> u64 {
        let is_laden = self.is_narrow.get()
            || self.worker.crowd.is_scarce()
            || self.held_bytes.get() >= HELD_BYTES_MAX;
        match self.open.get() {
            0..=1 if !is_laden => u64::MAX,
            0..=FEW_STREAMS if !is_laden => FEW_READ_BYTES,
            _ => 0,
        }
    }

    fn has_too_many(&self) -> bool {
        let most = match self.is_narrow.get() {
            true if self.is_one_at_a_time() || self.takes_nothing() => 1,
            true => NARROW_STREAMS,
            false => self.streams_max,
        };
        // The codec counts those that the client gave up no longer (CVE-2023-44487).
        let open = self.open.get();
        open >= most
            || self.is_shed.get()
            || self.waiting.get() >= WAITING_MAX
            || self.pace.holds_up(&self.worker.crowd, open)
            || self.pace.tries_at(&self.worker.crowd, now_ms()).is_some()
    }

    /// The client takes next to nothing, and others have many requests open.
    fn is_one_at_a_time(&self) -> bool {
        self.is_narrow.get() && self.worker.crowd.is_lively()
    }

    /// A stream was given up because the client did not take its response, and nothing since.
    fn takes_nothing(&self) -> bool {
        let (count, taken) = self.stalled.get();
        count > 0 && taken == self.outbox.taken()
    }

    /// Many requests are given up, and this client has done so with as many as it may.
    fn is_hasty(&self) -> bool {
        self.pace.is_hasty(&self.worker.crowd, now_ms())
    }

    /// The client has taken all of a response.
    fn has_taken(&self) {
        self.pace.taken();
        self.credit.earn();
    }

    /// The client has given a request up before it was answered.
    fn has_given_up(&self) {
        let now_ms = now_ms();
        self.pace.given_up(now_ms);
        self.worker.crowd.given_up(now_ms);
    }

    /// A stream was given up because the client did not take its response.
    fn has_stalled(&self) {
        self.pace.stalled();
        let taken = self.outbox.taken();
        let (count, before) = self.stalled.get();
        let count = if before == taken { count + 1 } else { 1 };
        self.stalled.set((count, taken));
        if count >= STALLED_STREAMS_MAX || self.is_one_at_a_time() {
            self.shed();
        }
    }

    /// Bytes that the client has taken so far.
    fn taken(&self) -> u64 {
        self.outbox.taken()
    }

    /// Bytes held because the client takes none.
    fn held_bytes(&self) -> u64 {
        match u64::from(self.waiting.get()) {
            0 => 0,
            waiting => {
                (self.held_bytes.get() + self.outbox.bytes()) as u64 + waiting * STREAM_BYTES
            }
        }
    }

    /// Ends the connection, because its client takes nothing.
    fn shed(&self) {
        if self.is_shed.replace(true) {
            return;
        }
        if self.idle.is_writing() {
            // It would not take our last words either.
            self.client.stream.reset();
        }
        self.client.wake();
    }

    fn wake_unless_full(&self) {
        if !self.has_too_many()
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// So many streams wait that no further one is begun; the task is woken when that changes.
    fn is_full(&self, cx: &Context<'_>) -> bool {
        self.idle.save(self.worker.crowd.is_scarce());
        let is_full = self.has_too_many();
        if is_full {
            self.waker.replace(Some(cx.waker().clone()));
            self.keep_pace(cx);
        }
        is_full
    }

    /// Has the task ask again, where others are what holds it up.
    fn keep_pace(&self, cx: &Context<'_>) {
        let (open, now_ms) = (self.open.get(), now_ms());
        let at_ms = match self.pace.tries_at(&self.worker.crowd, now_ms) {
            Some(at_ms) => at_ms,
            None if self.pace.holds_up(&self.worker.crowd, open) => {
                self.pace.held_up(open, self.waiting.get() > 0, now_ms)
            }
            None => return,
        };
        let mut alarm = self.pace_alarm.borrow_mut();
        let alarm = alarm.get_or_insert_with(|| self.worker.alarms.alarm());
        alarm.arm(at_ms, cx.waker());
    }
}
