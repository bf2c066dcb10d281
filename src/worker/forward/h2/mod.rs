//! Forwarding an exchange over HTTP/2: a stream of a connection that carries others too.
//!
//! All else is as over HTTP/1.1, and so are the reasons why it fails. What is waited for is bounded
//! by alarms, because the socket is not this exchange's own; whatever ends the exchange resets its
//! stream and leaves the connection alone. Data is read from either side only when the other side
//! has taken what came before: so the windows of HTTP/2 pass a reader's pace on to the writer.

mod connections;
mod link;
mod message;
mod stream;

pub use connections::Connections;

use std::rc::Rc;

use super::{
    Broken, Forward,
    connect::{self, Acquired, InFlight, Seeking, UpstreamState, failed},
    request,
    response::Relayed,
};
use crate::{
    config::snapshot::Protocol,
    policy::{Refusal, refusal, route::RouteMatch},
    telemetry::metrics::shards::EndpointShard,
    worker::{
        alarm::Alarm,
        buffers::Buffer,
        clock::{now_ms, now_ns},
        exchange::{RequestBody, ResponseSink},
        net::Wait,
        pool::Connection,
    },
};
use connections::{Given, Link, Place};
use link::Opener;
use stream::Interrupted;

/// What a request can be sent on.
enum Means<'w> {
    Stream(Place, InFlight<'w>),
    /// The endpoint chose HTTP/1.1.
    Http1(Acquired<'w>),
}

/// What an endpoint offers, or why it offers nothing.
enum Offered {
    Place(Place),
    Http1(Box<Connection>),
    Failed(std::io::Error),
    Busy,
}

/// Where the search stands over all tries of one exchange.
struct Search {
    seeking: Seeking,
    /// The connection of the last try.
    avoided: Option<Rc<Link>>,
    alarm: Alarm,
}

/// A body as it is: nothing more of it is read, so that every try finds the same.
struct Still<'b, B>(&'b mut B);

impl<B: RequestBody> RequestBody for Still<'_, B> {
    const IS_ONE_OF_MANY: bool = B::IS_ONE_OF_MANY;

    fn limit(&mut self, bytes_max: u64, until_ms: u64) -> Result<(), Refusal> {
        self.0.limit(bytes_max, until_ms)
    }

    fn ended(&self) -> bool {
        self.0.ended()
    }

    fn left(&self) -> u64 {
        0
    }

    fn append_arrived(&mut self, _: &mut Buffer) {}

    async fn next(&mut self) -> Result<Buffer, Refusal> {
        Ok(Buffer::default())
    }

    fn trailer_lines(&self) -> &[u8] {
        self.0.trailer_lines()
    }

    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

/// Forwards an exchange to an upstream that may speak HTTP/2, and relays the response into `sink`.
pub async fn forward<B: RequestBody, S: ResponseSink>(
    mut forward: Forward<'_>,
    matched: &RouteMatch,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Refusal> {
    let tries_max = forward.snapshot.route(matched.route).tries_max;
    // Upgrades are HTTP/1.1's. Where only HTTP/2 is spoken the request goes without.
    forward.upgrade &= forward.rule.protocol == Protocol::Either;
    let forward = &forward;
    let mut head = request::head(forward, matched)?;
    let alarm = forward.worker.alarms.alarm();
    let mut search = Search { seeking: Seeking::default(), avoided: None, alarm };
    loop {
        let means = forward.means(&mut search, sink).await?;
        forward.exchange.record.tries.set(search.seeking.tries);
        let shard = means.shard();
        let broken = match means {
            Means::Stream(place, _in_flight) => {
                forward.tries().stamp(&mut head);
                search.avoided = Some(place.link.clone());
                let result = forward.over_stream(place, &head, body, sink, &search.alarm).await;
                forward.ended(shard, result.as_ref().err());
                result.err()
            }
            Means::Http1(acquired) => forward.over_http1(acquired, matched, body, sink).await,
        };
        match broken {
            None => return Ok(()),
            Some(broken) if forward.may_retry(&broken, search.seeking.tries, tries_max) => {}
            Some(broken) => return Err(broken.refusal),
        }
    }
}

impl<'w> Means<'w> {
    fn shard(&self) -> &'w EndpointShard {
        match self {
            Means::Stream(_, in_flight) => in_flight.shard,
            Means::Http1(acquired) => acquired.in_flight.shard,
        }
    }
}

impl<'f> Forward<'f> {
    /// A try is over.
    fn ended(&self, shard: &EndpointShard, broken: Option<&Broken>) {
        self.count(shard, broken);
        self.tries().end(broken.map(|broken| broken.refusal.reason));
    }

    /// One try over HTTP/1.1. Answers how it came to nothing, if it did.
    async fn over_http1<B: RequestBody, S: ResponseSink>(
        &self,
        acquired: Acquired<'_>,
        matched: &RouteMatch,
        mut body: &mut B,
        sink: &mut S,
    ) -> Option<Broken> {
        let mut bytes = match request::compose(self, matched, &mut Still(body)) {
            Ok(bytes) => bytes,
            Err(refusal) => return Some(Broken::for_good(refusal)),
        };
        self.tries().stamp(bytes.bytes_mut());
        // A reference to the reference, and so code of its own: [`super::forward`] has the other
        // inside it.
        let result = self.attempt(&acquired, &mut bytes, &mut body, sink).await;
        self.worker.buffers.give(bytes);
        self.ended(acquired.shard(), result.as_ref().err());
        match result {
            Ok(Relayed::Upgraded(switched)) => {
                self.tunnel(&acquired.connection.stream, &switched, sink).await;
                None
            }
            Ok(relayed) => {
                self.settle(acquired, &relayed, sink);
                None
            }
            Err(broken) => Some(broken),
        }
    }

    /// Finds something to send the request on, as [`connect::acquire`] does.
    async fn means<S: ResponseSink>(
        &self,
        search: &mut Search,
        sink: &S,
    ) -> Result<Means<'f>, Refusal> {
        let state = self.snapshot.state(self.upstream);
        let mut refused: Refusal = match search.seeking.tried.is_empty() {
            true => refusal::UPSTREAM_DOWN.into(),
            false => refusal::UPSTREAM_CONNECT.into(),
        };
        loop {
            let picked = {
                let mut balancer = state.balancer.borrow_mut();
                balancer.pick(&search.seeking.tried, now_ms(), self.worker.random.next())
            };
            let Some(endpoint) = picked else {
                let retry_after_s = u32::from(refused.reason.status == 503);
                return Err(Refusal { retry_after_s, ..refused });
            };
            let shard = self.snapshot.series.endpoint(self.upstream, endpoint);
            let in_flight = InFlight::begin(state, endpoint, shard);
            self.exchange.record.endpoint.set(Some(endpoint as u16));
            self.tries().begin(&self.rule.endpoints[endpoint].name);
            match self.offered(state, endpoint, search, sink).await? {
                Offered::Place(place) => {
                    search.seeking.tries += 1;
                    return Ok(Means::Stream(place, in_flight));
                }
                Offered::Http1(connection) => {
                    search.seeking.tries += 1;
                    return Ok(Means::Http1(Acquired { connection, in_flight }));
                }
                Offered::Failed(e) => {
                    refused = failed(self, endpoint, &e);
                    let until_ms = now_ms() + self.rule.connect_cooldown_ms;
                    state.balancer.borrow_mut().connect_failed(endpoint, until_ms);
                }
                Offered::Busy => {
                    refused = refusal::UPSTREAM_BUSY.into();
                    self.series().failed(refused.reason);
                }
            }
            self.tries().unconnected(refused.reason);
            search.seeking.tried.insert(endpoint);
            if now_ms() >= self.exchange.until_ms {
                return Err(refusal::REQUEST_TIMEOUT.into());
            }
        }
    }

    /// What this endpoint offers. `Err`: the client has gone away.
    async fn offered<S: ResponseSink>(
        &self,
        state: &UpstreamState,
        endpoint: usize,
        search: &Search,
        sink: &S,
    ) -> Result<Offered, Refusal> {
        let connections = &state.pools[endpoint].shared;
        if self.upgrade || connections.speaks_http1() {
            return Ok(self.http1(state, endpoint, search, None).await);
        }
        // What the endpoint chose before holds as long as there are connections of it.
        if !connections.has_any()
            && let Some(connection) = self.kept(state, endpoint, search)
        {
            return Ok(Offered::Http1(connection));
        }
        if let Some(place) = connections.take(self.rule, search.avoided.as_ref()) {
            self.took(state, endpoint, place.is_reused);
            return Ok(Offered::Place(place));
        }
        let asked_ns = now_ns();
        let opener = || self.opener(state, endpoint);
        let Some(turn) = connections.queue(opener, search.avoided.clone()) else {
            return Ok(Offered::Busy);
        };
        let wait = Wait { idle_ms: self.rule.connect_timeout_ms, until_ms: self.exchange.until_ms };
        let given = self.interruptible(sink, &search.alarm, wait.at(), turn.given()).await;
        let record = &self.exchange.record;
        record.connect_ns.set(record.connect_ns.get() + now_ns().saturating_sub(asked_ns));
        Ok(match given {
            Ok(Given::Place(place)) => {
                self.took(state, endpoint, place.is_reused);
                Offered::Place(place)
            }
            Ok(Given::Http1(connection)) => self.http1(state, endpoint, search, connection).await,
            Ok(Given::Failed(kind)) => Offered::Failed(kind.into()),
            Err(Interrupted::Gone) => return Err(refusal::CLIENT_ABORTED.into()),
            // All are busy, or connecting takes too long.
            Err(Interrupted::Overdue) if connections.has_any() => Offered::Busy,
            Err(Interrupted::Overdue) => Offered::Failed(std::io::ErrorKind::TimedOut.into()),
        })
    }

    /// Notes that the request goes over a connection of this endpoint.
    fn took(&self, state: &UpstreamState, endpoint: usize, is_reused: bool) {
        self.exchange.record.reused.set(is_reused);
        if is_reused {
            self.snapshot.series.endpoint(self.upstream, endpoint).reused.count();
        }
        state.balancer.borrow_mut().connected(endpoint);
    }

    /// A kept connection that speaks HTTP/1.1, for a first try.
    fn kept(
        &self,
        state: &UpstreamState,
        endpoint: usize,
        search: &Search,
    ) -> Option<Box<Connection>> {
        if search.seeking.tries > 0 {
            return None;
        }
        let connection = state.pools[endpoint].take(self.rule)?;
        self.took(state, endpoint, true);
        Some(connection)
    }

    /// A connection that speaks HTTP/1.1: this one, a kept one, or a new one.
    async fn http1(
        &self,
        state: &UpstreamState,
        endpoint: usize,
        search: &Search,
        connection: Option<Box<Connection>>,
    ) -> Offered {
        if let Some(connection) = connection {
            self.took(state, endpoint, false);
            return Offered::Http1(connection);
        }
        if let Some(connection) = self.kept(state, endpoint, search) {
            return Offered::Http1(connection);
        }
        let client = state.tls_http1.as_ref();
        let (address, asked_ns) = (&self.rule.endpoints[endpoint], now_ns());
        let opened = connect::open(self, address, client, None).await;
        let record = &self.exchange.record;
        record.connect_ns.set(record.connect_ns.get() + now_ns().saturating_sub(asked_ns));
        let shard = self.snapshot.series.endpoint(self.upstream, endpoint);
        match opened {
            Ok(connection) => {
                shard.connects.count();
                self.took(state, endpoint, false);
                Offered::Http1(connection)
            }
            Err(e) => {
                shard.connect_failures.count();
                state.pools[endpoint].shared.forget_choice();
                Offered::Failed(e)
            }
        }
    }

    /// What opening a connection to this endpoint takes.
    fn opener(&self, state: &UpstreamState, endpoint: usize) -> Opener {
        let (worker, rule, limits) = (self.worker, self.rule, &self.snapshot.limits);
        let series = &self.snapshot.series.upstreams[self.upstream as usize];
        Opener {
            endpoint: rule.endpoints[endpoint].clone(),
            client: state.tls.clone(),
            protocol: rule.protocol,
            http2: rule.http2,
            connect_timeout_ms: rule.connect_timeout_ms,
            connect_cooldown_ms: rule.connect_cooldown_ms,
            idle_timeout_ms: rule.idle_timeout_ms,
            unsent_bytes: limits.unsent_bytes,
            head: limits.head,
            deadlines: worker.deadlines.clone(),
            buffers: worker.buffers.clone(),
            alarms: worker.alarms.clone(),
            beat: worker.beat.clone(),
            worker: worker.metrics.clone(),
            shard: series.endpoints[endpoint].clone(),
        }
    }

    /// A copy of what came of the body with the head.
    fn arrived(&self) -> Buffer {
        let arrived = self.exchange.text(self.exchange.arrived);
        let mut buf = self.worker.buffers.at_least(arrived.len());
        buf.append(arrived);
        buf
    }
}
