//! Forwarding one exchange to an upstream: choose, send, relay, and repeat only what may be
//! repeated.
//!
//! The request's head and what arrived of its body leave in one send. If the body is complete then
//! the task only waits for the response; only a body that still streams runs beside it. A try
//! that fails before anything of a response was received may be repeated ([`retry::may_retry`])
//! because its bytes are still in the buffer.

mod connect;
mod h2;
pub(super) mod request;
mod response;

pub use connect::{InFlight, UpstreamState, reach};
pub use h2::Connections;

use std::{cell::Cell, pin::pin};

use super::{
    Worker,
    body::{SendFraming, frame},
    buffers::Buffer,
    clock::{NEVER_MS, now_ms, now_ns},
    exchange::{Exchange, RequestBody, ResponseSink},
    generation::Generation,
    net::{Stream, Wait},
    pool::Connection,
    trace::{self, Tries},
    tunnel::{self, Tunnel},
    websocket::WebSocket,
};
use crate::{
    config::snapshot::{Protocol, Upstream, UpstreamId},
    policy::{
        Refusal,
        grpc::Grpc,
        permit::Permit,
        refusal,
        retry::{self, TryOutcome},
        route::RouteMatch,
    },
    telemetry::{
        metrics::shards::{EndpointShard, UpstreamShard},
        record::Sent,
    },
    wire::Framing,
};
use connect::{Acquired, Choice};
use response::{Relayed, Switched};

/// One exchange on its way to one upstream: everything its parts share.
pub(super) struct Forward<'a> {
    pub worker: &'a Worker,
    pub snapshot: &'a Generation,
    pub exchange: &'a Exchange,
    pub rule: &'a Upstream,
    pub upstream: UpstreamId,
    /// The client may be answered with 101.
    pub upgrade: bool,
    /// The request has gone out whole: nothing but its response moves over the connections.
    pub is_sent: Cell<bool>,
}

/// A try that came to nothing.
pub(super) struct Broken {
    refusal: Refusal,
    outcome: TryOutcome,
}

impl Broken {
    /// One that no other try can mend.
    fn for_good(refusal: Refusal) -> Broken {
        let outcome = TryOutcome::Failed {
            reused_connection: false,
            request_bytes_sent: false,
            response_bytes_received: false,
            body_replayable: false,
        };
        Broken { refusal, outcome }
    }
}

/// Forwards `exchange` to `upstream` and relays the response into `sink`.
pub async fn forward<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &Exchange,
    (matched, upstream, _permit): (&RouteMatch, UpstreamId, Permit),
    body: &mut B,
    sink: &mut S,
) -> Result<(), Refusal> {
    let route = snapshot.route(matched.route);
    let forward = Forward {
        worker,
        snapshot,
        exchange,
        rule: snapshot.upstream(upstream),
        upstream,
        upgrade: route.upgrade && exchange.head().connection.upgrade,
        is_sent: Cell::new(false),
    };
    exchange.record.upstream.set(Some(upstream));
    if sink.is_gone() {
        return Err(refusal::CLIENT_ABORTED.into());
    }
    if forward.rule.protocol != Protocol::Http1 {
        // Boxed: it must not enlarge the task of an exchange over HTTP/1.1.
        return Box::pin(h2::forward(forward, matched, body, sink)).await;
    }
    let mut bytes = request::compose(&forward, matched, body)?;
    let mut seeking = connect::Seeking::default();
    let result = loop {
        let acquired = match connect::choose(&forward, &mut seeking, sink.connection(), None) {
            Ok(Choice::Kept(acquired)) => acquired,
            Ok(Choice::Unconnected(chosen)) => {
                let client = sink.connection();
                match connect::acquire(&forward, &mut seeking, client, chosen).await {
                    Ok(acquired) => acquired,
                    Err(refusal) => break Err(refusal),
                }
            }
            Err(refusal) => break Err(refusal),
        };
        exchange.record.tries.set(seeking.tries);
        forward.tries().stamp(bytes.bytes_mut());
        let result = forward.attempt(&acquired, &mut bytes, body, sink).await;
        forward.count(acquired.shard(), result.as_ref().err());
        forward.tries().end(result.as_ref().err().map(|broken| broken.refusal.reason));
        match result {
            Ok(Relayed::Upgraded(switched)) => {
                // Boxed: a tunnel is rare and must not enlarge every connection's task.
                Box::pin(forward.tunnel(&acquired.connection.stream, &switched, sink)).await;
                break Ok(());
            }
            Ok(relayed) => {
                forward.settle(acquired, &relayed, sink);
                break Ok(());
            }
            Err(broken) if forward.may_retry(&broken, seeking.tries, route.tries_max) => {}
            Err(broken) => break Err(broken.refusal),
        }
    };
    worker.buffers.give(bytes);
    result
}

impl Forward<'_> {
    fn tries(&self) -> Tries<'_> {
        Tries { worker: self.worker, exchange: self.exchange }
    }

    /// Where this worker counts what concerns the upstream as a whole.
    fn series(&self) -> &UpstreamShard {
        &self.snapshot.series.upstreams[self.upstream as usize].upstream
    }

    /// Counts what came of a try.
    pub fn count(&self, endpoint: &EndpointShard, broken: Option<&Broken>) {
        if self.snapshot.series.is_off {
            return;
        }
        if let Some(broken) = broken {
            self.series().failed(broken.refusal.reason);
        }
        let record = &self.exchange.record;
        match record.first_byte_ns() {
            Some(first_byte_ns) => {
                endpoint.responses[usize::from(record.upstream_status.get() / 100)].count();
                endpoint.duration.record(first_byte_ns);
            }
            None => endpoint.responses[0].count(),
        }
    }

    /// Whether to try again after `broken`, which is then counted.
    fn may_retry(&self, broken: &Broken, tries: u8, tries_max: u8) -> bool {
        let method = self.exchange.sent_method();
        let may = retry::may_retry(broken.outcome, method, tries, tries_max)
            // Nobody waits for it any more.
            && broken.refusal.reason != refusal::CLIENT_ABORTED
            && now_ms() < self.exchange.until_ms;
        if may {
            self.worker.metrics.retries.count();
            self.series().retries.count();
        }
        may
    }

    /// Sends the request and relays its response over one connection. Afterwards the buffer is
    /// what it was, for another try.
    async fn attempt<B: RequestBody, S: ResponseSink>(
        &self,
        acquired: &Acquired<'_>,
        bytes: &mut Buffer,
        body: &mut B,
        sink: &mut S,
    ) -> Result<Relayed, Broken> {
        let connection = &acquired.connection;
        let sent = connection.stream.write_all(bytes, self.wait()).await;
        self.exchange.record.sent(now_ns());
        let replayable = body.ended();
        self.is_sent.set(sent.is_ok() && body.ended());
        let sent_any = sent.as_ref().map_or_else(|failed| failed.sent_any, |_| true);
        let result = match sent {
            Err(e) if e.timed_out() => Err(self.timed_out()),
            Err(e) if !e.sent_any => Err(response::closed(false)),
            // An upstream that closed while we wrote may have answered first: read on.
            Err(_) => self.download(connection, sink).await,
            Ok(_) if body.ended() => self.download(connection, sink).await,
            // Boxed: a body that still streams must not enlarge the task of one that does not.
            Ok(_) => Box::pin(self.both_ways(connection, body, sink)).await,
        };
        result.map_err(|refused| Broken {
            refusal: refused.refusal,
            outcome: TryOutcome::Failed {
                reused_connection: connection.reused && !refused.timed_out,
                request_bytes_sent: sent_any,
                response_bytes_received: refused.received || sink.begun(),
                body_replayable: replayable,
            },
        })
    }

    /// Relays the rest of the request body while the response is awaited and relayed. The
    /// response decides: when it is complete, what is left of the body no longer matters.
    async fn both_ways<B: RequestBody, S: ResponseSink>(
        &self,
        connection: &Connection,
        body: &mut B,
        sink: &mut S,
    ) -> Result<Relayed, response::Refused> {
        let mut upload = pin!(self.upload(connection, body));
        let mut download = pin!(self.download(connection, sink));
        let mut uploaded = None;
        let relayed = std::future::poll_fn(|cx| {
            use std::task::Poll;
            if uploaded.is_none()
                && let Poll::Ready(result) = upload.as_mut().poll(cx)
            {
                if let Err(refusal) = result {
                    return Poll::Ready(Err(refusal.into()));
                }
                uploaded = Some(());
            }
            download.as_mut().poll(cx)
        })
        .await?;
        // A connection whose request was not finished cannot carry another one.
        Ok(match (uploaded, relayed) {
            (None, Relayed::Reusable) => Relayed::Spent,
            (_, relayed) => relayed,
        })
    }

    /// Sends the rest of the request body as it arrives. `Err` only when the client is at fault:
    /// an upstream that stops reading shows it in its response.
    async fn upload<B: RequestBody>(
        &self,
        connection: &Connection,
        body: &mut B,
    ) -> Result<(), Refusal> {
        let framing = self.request_framing();
        while !body.ended() {
            let mut buf = body.next().await?;
            let last = body.ended();
            let after = frame(&mut buf, framing, last, body.trailer_lines());
            let mut sent = connection.stream.write_all(&mut buf, self.wait()).await;
            if let (Ok(_), Some(after)) = (&sent, after) {
                self.worker.buffers.give(buf);
                buf = self.worker.buffers.at_least(after.len());
                buf.append(&after);
                sent = connection.stream.write_all(&mut buf, self.wait()).await;
            }
            self.worker.buffers.give(buf);
            match sent {
                Ok(_) => {}
                Err(e) if e.timed_out() => return Err(self.timed_out().refusal),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// How the request body is framed towards the upstream: as the client framed it.
    fn request_framing(&self) -> SendFraming {
        match self.exchange.head().framing {
            Framing::Chunked => SendFraming::Chunked,
            _ => SendFraming::Plain,
        }
    }

    /// After a complete response: keeps the connection, or drops it.
    #[inline]
    fn settle<S: ResponseSink>(&self, acquired: Acquired<'_>, relayed: &Relayed, sink: &S) {
        if let Relayed::Reusable = relayed {
            acquired.keep(self.rule, &self.worker.buffers, sink.connection());
        }
    }

    /// After a 101: serves the tunnel that the connections have become.
    async fn tunnel<S: ResponseSink>(&self, upstream: &Stream, switched: &Switched, sink: &S) {
        self.hand_over(sink.sent());
        let Some(client) = sink.client() else { return };
        let (timeouts, series) = (&self.snapshot.timeouts, &self.snapshot.series);
        let bounds = tunnel::Bounds::of(timeouts);
        let mut tunnel = Tunnel::new(self.worker, client, upstream, bounds);
        if switched.is_websocket {
            let route = (!series.is_off).then(|| series.route(self.exchange.route));
            let rule = self.exchange.route.map(|route| self.snapshot.route(route));
            let ping_ms = rule.and_then(|rule| rule.websocket_ping_ms);
            tunnel = tunnel.with_websocket(WebSocket::new(&self.worker.metrics, route, ping_ms));
        }
        let from_client = &self.exchange.bytes()[self.exchange.rest..];
        let tunnelled = tunnel.run(from_client, &switched.early).await;
        self.exchange.record.tunnelled.set(tunnelled);
    }

    /// A tunnel's spans end with its 101, however long it lasts.
    fn hand_over(&self, sent: Sent) {
        let ended = trace::Ended { refused: None, sent, ended_ns: now_ns(), received_bytes: 0 };
        trace::hand_over(self.worker, self.snapshot, self.exchange, &ended);
    }

    fn wait(&self) -> Wait {
        let idle_ms = self.patience(self.rule.idle_timeout_ms);
        Wait { idle_ms, until_ms: self.exchange.until_ms }
    }

    /// How long nothing may come, where `configured_ms` is for requests and responses. Calls of
    /// gRPC may be streams in which nothing happens for long, as tunnels.
    fn patience(&self, configured_ms: u64) -> u64 {
        match self.exchange.grpc {
            Grpc::No => configured_ms,
            _ => configured_ms.max(self.snapshot.timeouts.tunnel_idle_ms),
        }
    }

    /// The reason for an overdue wait: the whole exchange's bound, or the step's.
    fn overdue(&self, step: &'static crate::wire::Reason) -> Refusal {
        match self.exchange.until_ms {
            NEVER_MS => step.into(),
            until_ms if now_ms() >= until_ms => refusal::REQUEST_TIMEOUT.into(),
            _ => step.into(),
        }
    }

    fn timed_out(&self) -> response::Refused {
        response::Refused {
            refusal: self.overdue(refusal::UPSTREAM_TIMEOUT),
            received: false,
            timed_out: true,
        }
    }
}
