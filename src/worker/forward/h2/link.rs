//! One HTTP/2 connection to an endpoint: opened, driven by a task of its own, ended.
//!
//! Invariants: the task outlives whoever asked for the connection, so that a client that goes away
//! costs others nothing; nobody is given a place before the endpoint's settings have come, so that
//! its limit on streams holds from the first one on. The memory a connection can make its worker
//! hold is bounded by its streams and their windows.

use std::{future::poll_fn, io, pin::Pin, rc::Rc, sync::Arc, task::Context, task::Poll};

use ::h2::{
    Ping, PingPong,
    client::{Builder, Connection as Codec, SendRequest},
};
use bytes::Buf;
use rustls::ClientConfig;

use super::connections::{Connections, Link};
use crate::{
    config::snapshot::{Endpoint, Protocol, UpstreamHttp2},
    telemetry::metrics::shards::{EndpointShard, WorkerShard},
    wire::HeadLimits,
    worker::{
        alarm::{Alarm, Alarms},
        beat::Beat,
        buffers::{Buffer, Buffers},
        clock::{NEVER_MS, now_ms},
        deadline::Deadlines,
        forward::connect,
        h2::io::{Io, Pump, pair},
        isolate::isolate,
        net::Stream,
        pool,
    },
};

/// Streams given up, of which what the endpoint still sends is passed over without a word.
const RESETS_KEPT_MAX: usize = 1024;
/// Largest window there is (RFC 9113 §6.9.1).
const WINDOW_MAX: u64 = (1 << 31) - 1;
/// What a field costs beyond its bytes in the size of a header list (RFC 9113 §6.5.2).
const FIELD_COST: u32 = 32;

/// A piece of a request body on its way.
pub struct Piece {
    buffer: Buffer,
    home: Rc<Buffers>,
}

impl Piece {
    pub fn new(buffer: Buffer, home: &Rc<Buffers>) -> Piece {
        Piece { buffer, home: home.clone() }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.buffer.len()
    }

    fn chunk(&self) -> &[u8] {
        self.buffer.bytes()
    }

    fn advance(&mut self, n: usize) {
        self.buffer.consume(n);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.buffer));
    }
}

/// All that opening a connection takes, after those who asked for it may be gone.
pub struct Opener {
    pub endpoint: Endpoint,
    pub client: Option<Arc<ClientConfig>>,
    pub protocol: Protocol,
    pub http2: UpstreamHttp2,
    pub connect_timeout_ms: u64,
    pub connect_cooldown_ms: u64,
    pub idle_timeout_ms: u64,
    pub unsent_bytes: u32,
    pub head: HeadLimits,
    pub deadlines: Rc<Deadlines>,
    pub buffers: Rc<Buffers>,
    pub alarms: Rc<Alarms>,
    pub beat: Arc<Beat>,
    pub worker: Arc<WorkerShard>,
    pub shard: Arc<EndpointShard>,
}

/// What came of opening.
enum Begun {
    Http1(Stream),
    Http2(Box<Driver>),
}

/// A connection as its task has it.
struct Driver {
    codec: Codec<Io<Rc<Stream>>, Piece>,
    pump: Pump<Rc<Stream>>,
    send: Option<SendRequest<Piece>>,
    alarm: Alarm,
    pings: Option<Pings>,
}

/// Opens one more of `connections`, which is told what comes of it.
pub fn open(connections: Rc<Connections>, opener: Rc<Opener>) {
    let (beat, worker) = (opener.beat.clone(), opener.worker.clone());
    monoio::spawn(async move {
        let task = run(connections, opener);
        if isolate(beat, task).await.is_err() {
            worker.panics.count();
        }
    });
}

/// Counts as being opened until it is told what came of it; also when its task panics.
struct Opening {
    connections: Rc<Connections>,
    cooldown_ms: u64,
    is_told: bool,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.is_told {
            self.connections.failed(io::ErrorKind::Other, self.cooldown_ms);
        }
    }
}

async fn run(connections: Rc<Connections>, opener: Rc<Opener>) {
    let cooldown_ms = opener.connect_cooldown_ms;
    let mut opening = Opening { connections, cooldown_ms, is_told: false };
    opener.worker.upstream_connects.count();
    let begun = begin(&opener).await;
    opening.is_told = true;
    let connections = opening.connections.clone();
    match begun {
        Err(error) => {
            tracing::debug!(endpoint = opener.endpoint.name, %error, "no HTTP/2 connection");
            opener.shard.connect_failures.count();
            connections.failed(error.kind(), cooldown_ms);
        }
        Ok(Begun::Http1(stream)) => {
            opener.shard.connects.count();
            connections.opened_http1(pool::Connection::new(stream));
        }
        Ok(Begun::Http2(mut driver)) => {
            opener.shard.connects.count();
            driver.drive(&connections, opener.http2).await;
        }
    }
}

async fn begin(opener: &Opener) -> io::Result<Begun> {
    let until_ms = now_ms().saturating_add(opener.connect_timeout_ms);
    let (stream, is_http2) = connect::connect(
        &opener.endpoint,
        opener.client.as_ref(),
        b"",
        opener.connect_timeout_ms,
        opener.unsent_bytes,
        (&opener.deadlines, &opener.buffers, &opener.worker),
    )
    .await?;
    match (opener.protocol, is_http2) {
        (Protocol::Either, false) => return Ok(Begun::Http1(stream)),
        (Protocol::Http2, false) if opener.client.is_some() => {
            let why = "the endpoint does not choose HTTP/2";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        _ => {}
    }
    let early = Buffer::default();
    let (io, pump) =
        pair(Rc::new(stream), &opener.buffers, early, opener.idle_timeout_ms, None, |_, _| Some(0));
    // Writes to memory: it does not wait.
    let (send, mut codec) =
        builder(opener).handshake(io).await.map_err(|_| io::ErrorKind::Unsupported)?;
    let alarm = opener.alarms.alarm();
    let pings = codec.ping_pong().filter(|_| opener.http2.ping_interval_ms > 0);
    let pings = pings.map(|pings| Pings::new(pings, opener.http2));
    let mut driver = Box::new(Driver { codec, pump, send: Some(send), alarm, pings });
    let settling = opener.alarms.alarm();
    settling.by(until_ms, driver.settled()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(Begun::Http2(driver))
}

fn builder(opener: &Opener) -> Builder {
    let UpstreamHttp2 { streams_max, window_bytes, .. } = opener.http2;
    let all_bytes = u64::from(window_bytes) * u64::from(streams_max);
    let list_bytes = opener.head.head_bytes_max + u32::from(opener.head.fields_max) * FIELD_COST;
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        // As many as have windows: a stream that waits for its client holds up no other.
        .initial_window_size(window_bytes)
        .initial_connection_window_size(all_bytes.min(WINDOW_MAX) as u32)
        .max_header_list_size(list_bytes)
        // Requests given up are the clients' doing, and responses that break rules cost their own
        // exchange: neither is to end a connection that others use.
        .max_concurrent_reset_streams(RESETS_KEPT_MAX)
        .max_local_error_reset_streams(None)
        // Until the endpoint's settings have come.
        .initial_max_send_streams(0);
    builder
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ::h2::Error>> {
        let codec = &mut self.codec;
        self.pump.poll_with(cx, |cx| Pin::new(&mut *codec).poll(cx))
    }

    /// Waits for the endpoint's settings.
    async fn settled(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            let polled = self.poll(cx);
            if self.send.as_ref().is_some_and(|send| send.current_max_send_streams() > 0) {
                return Poll::Ready(Ok(()));
            }
            match polled {
                Poll::Ready(Err(e)) if !e.is_io() => {
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::Unsupported, e)))
                }
                // An endpoint that speaks TLS 1.3 refuses this side after the handshake.
                Poll::Ready(Err(e)) if is_tls_broken(&e) => {
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, e)))
                }
                Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Carries streams, until the connection ends.
    async fn drive(&mut self, connections: &Rc<Connections>, rule: UpstreamHttp2) {
        let Some(send) = self.send.take() else { return };
        let link = Rc::new(Link::new(send));
        let guard = Ends(&link, connections);
        link.look(rule.streams_max);
        connections.opened(&link);
        let mut received = self.pump.received_bytes();
        let result = poll_fn(|cx| {
            let polled = self.poll(cx);
            if std::mem::replace(&mut received, self.pump.received_bytes()) != received {
                link.heard_ms.set(now_ms());
            }
            if link.look(rule.streams_max) || link.is_retired() {
                connections.changed();
            }
            match polled {
                Poll::Pending if self.is_dead(&link, cx) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
                Poll::Ready(result) => Poll::Ready(Some(result)),
            }
        });
        let result = result.await;
        drop(guard);
        match result {
            None => {
                tracing::debug!("an HTTP/2 connection to an upstream gave no sign of life");
                return;
            }
            Some(Err(error)) => tracing::debug!(%error, "an HTTP/2 connection to an upstream"),
            Some(Ok(())) => {}
        }
        self.pump.finish().await;
        self.pump.stream().finish_writing();
    }

    /// The endpoint did not answer a ping in time.
    fn is_dead(&mut self, link: &Link, cx: &mut Context<'_>) -> bool {
        let Some(pings) = &mut self.pings else { return false };
        let Some(next_ms) = pings.poll(link, cx) else { return true };
        self.alarm.arm(next_ms, cx.waker());
        false
    }
}

/// Nothing but TLS finds what it reads invalid.
fn is_tls_broken(error: &::h2::Error) -> bool {
    error.get_io().is_some_and(|e| e.kind() == io::ErrorKind::InvalidData)
}

/// When a connection ends, however that comes, nobody takes it any more.
struct Ends<'a>(&'a Rc<Link>, &'a Rc<Connections>);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.retire();
        self.1.changed();
    }
}

/// Asks a connection that brings nothing for a sign of life, while there are streams on it.
struct Pings {
    pings: PingPong,
    interval_ms: u64,
    timeout_ms: u64,
    /// When the question was sent that is not answered yet.
    asked_ms: Option<u64>,
}

impl Pings {
    fn new(pings: PingPong, rule: UpstreamHttp2) -> Pings {
        let UpstreamHttp2 { ping_interval_ms: interval_ms, ping_timeout_ms: timeout_ms, .. } = rule;
        Pings { pings, interval_ms, timeout_ms, asked_ms: None }
    }

    /// Asks when it is time to. Answers when to look again; `None`: there was no answer in time.
    fn poll(&mut self, link: &Link, cx: &mut Context<'_>) -> Option<u64> {
        let now_ms = now_ms();
        if let Some(asked_ms) = self.asked_ms {
            match self.pings.poll_pong(cx) {
                Poll::Ready(_) => self.asked_ms = None,
                Poll::Pending => {
                    let by_ms = asked_ms + self.timeout_ms;
                    return Some(by_ms).filter(|by_ms| now_ms < *by_ms);
                }
            }
        }
        if !link.is_busy() {
            return Some(NEVER_MS);
        }
        let due_ms = link.heard_ms.get() + self.interval_ms;
        if now_ms < due_ms {
            return Some(due_ms);
        }
        // Fails when the connection is about to end by itself.
        if self.pings.send_ping(Ping::opaque()).is_ok() {
            self.asked_ms = Some(now_ms);
        }
        Some(now_ms + self.timeout_ms)
    }
}
