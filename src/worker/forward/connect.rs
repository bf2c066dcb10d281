//! A connection to one of an upstream's endpoints: a kept one if there is, else a new one.

use std::{cell::RefCell, io, net::SocketAddr, rc::Rc, sync::Arc};

use rustls::ClientConfig;

use super::Forward;
use crate::{
    config::snapshot::{Endpoint, EndpointAddress, Protocol, ProxyHeader, Upstream},
    policy::{
        Refusal,
        balance::{Balancer, State, TriedSet},
        refusal,
    },
    telemetry::metrics::shards::{EndpointShard, WorkerShard},
    worker::{
        Worker, announce,
        buffers::Buffers,
        client::Client,
        clock::{NEVER_MS, now_ms, now_ns},
        deadline::Deadlines,
        generation::Generation,
        net::{Stream, Wait},
        pool::{Connection, Pool},
        tls,
    },
};

/// What one worker knows of one upstream, by endpoint.
pub struct UpstreamState {
    pub balancer: RefCell<Balancer>,
    pub pools: Vec<Rc<Pool>>,
    /// This worker's own, with the sessions that it may resume.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The same, but it offers HTTP/1.1 only, where an endpoint may choose.
    pub(super) tls_http1: Option<Arc<ClientConfig>>,
}

impl UpstreamState {
    pub fn new(rule: &Upstream) -> UpstreamState {
        let weights = rule.endpoints.iter().map(|e| e.weight);
        let state = UpstreamState {
            balancer: RefCell::new(Balancer::new(rule.balance, weights)),
            pools: rule.endpoints.iter().map(|_| Rc::default()).collect(),
            tls: rule.tls.as_ref().map(|rule| tls::own(rule, None)),
            tls_http1: match rule.protocol {
                Protocol::Either => {
                    rule.tls.as_ref().map(|rule| tls::own(rule, Some(&[b"http/1.1"])))
                }
                Protocol::Http1 | Protocol::Http2 => None,
            },
        };
        for (i, endpoint) in rule.endpoints.iter().enumerate() {
            if endpoint.state != State::Up {
                state.set(i, endpoint.state, endpoint.weight);
            }
        }
        state
    }

    /// From now on endpoint `i` has this state and weight. Where endpoints get no new requests,
    /// idle connections are closed; requests in flight go on.
    pub fn set(&self, i: usize, state: State, weight: u32) {
        let balancer = &mut *self.balancer.borrow_mut();
        balancer.set(i, state, weight);
        self.pools.iter().enumerate().for_each(|(i, pool)| settle(pool, balancer.serves(i)));
    }

    /// The state of an upstream that a reload changed: endpoints that stay keep theirs.
    pub fn after(state: &UpstreamState, before: &Upstream, rule: &Upstream) -> UpstreamState {
        let mut next = UpstreamState::new(rule);
        let balancer = next.balancer.get_mut();
        for (here, endpoint) in rule.endpoints.iter().enumerate() {
            let stays = |e: &Endpoint| {
                (&e.name, &e.address, &e.server_name)
                    == (&endpoint.name, &endpoint.address, &endpoint.server_name)
                    && before.tls == rule.tls
                    && before.protocol == rule.protocol
            };
            if let Some(there) = before.endpoints.iter().position(stays) {
                balancer.carry(here, &state.balancer.borrow(), there);
                next.pools[here] = state.pools[there].clone();
                settle(&next.pools[here], balancer.serves(here));
            }
        }
        next
    }

    /// Closes the idle connections that `kept` did not take over, and those still to be given back.
    pub fn close_all_but(&self, kept: Option<&UpstreamState>) {
        for pool in &self.pools {
            let is_kept = kept.is_some_and(|k| k.pools.iter().any(|p| Rc::ptr_eq(p, pool)));
            if !is_kept {
                pool.close();
            }
        }
    }
}

/// Only an endpoint that gets new requests keeps idle connections.
fn settle(pool: &Pool, serves: bool) {
    if serves { pool.open() } else { pool.close() }
}

/// How the search for an endpoint went so far, over all tries of one exchange.
#[derive(Default)]
pub struct Seeking {
    /// Endpoints that could not be connected.
    pub(super) tried: TriedSet,
    /// Connections the request was sent on, the first included.
    pub tries: u8,
}

/// A connection in use; its endpoint counts one more request in flight until it is dropped.
pub struct Acquired<'w> {
    pub connection: Box<Connection>,
    pub(super) in_flight: InFlight<'w>,
}

/// Counts one more connection or request of an endpoint until it is dropped.
pub struct InFlight<'w> {
    pub(super) state: &'w UpstreamState,
    pub(super) endpoint: usize,
    pub(super) shard: &'w EndpointShard,
}

impl<'w> InFlight<'w> {
    pub fn begin(
        state: &'w UpstreamState,
        endpoint: usize,
        shard: &'w EndpointShard,
    ) -> InFlight<'w> {
        state.balancer.borrow_mut().started(endpoint);
        shard.in_flight.count();
        InFlight { state, endpoint, shard }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.state.balancer.borrow_mut().finished(self.endpoint);
        self.shard.in_flight.uncount();
    }
}

impl Acquired<'_> {
    /// Where its endpoint is counted.
    pub fn shard(&self) -> &EndpointShard {
        self.in_flight.shard
    }

    /// Returns the connection to its pool, or keeps it for the client that it was made for.
    #[inline]
    pub fn keep(self, rule: &Upstream, buffers: &Buffers, client: Option<&Client>) {
        let Acquired { connection, in_flight } = self;
        let pool = &in_flight.state.pools[in_flight.endpoint];
        match (rule.proxy_header, client) {
            (ProxyHeader::Off, _) => pool.give(connection, rule, buffers),
            (_, Some(client)) => client.own.give(pool, connection, rule, buffers),
            (_, None) => {}
        }
    }
}

/// What a try begins with.
pub enum Choice<'w> {
    Kept(Acquired<'w>),
    /// An endpoint that is to be connected.
    Unconnected(InFlight<'w>),
}

/// Chooses an endpoint, and a kept connection to it if there is one. A second try of the request
/// gets a new connection: the kept ones may all have died together. `refused`: why there is none,
/// when there is none left.
pub fn choose<'w>(
    forward: &Forward<'w>,
    seeking: &mut Seeking,
    client: Option<&Client>,
    refused: Option<Refusal>,
) -> Result<Choice<'w>, Refusal> {
    let (worker, rule) = (forward.worker, forward.rule);
    let state = forward.snapshot.state(forward.upstream);
    let picked = {
        let mut balancer = state.balancer.borrow_mut();
        balancer.pick(&seeking.tried, now_ms(), worker.random.next())
    };
    let Some(endpoint) = picked else { return Err(none_left(seeking, refused)) };
    let shard = forward.snapshot.series.endpoint(forward.upstream, endpoint);
    let in_flight = InFlight::begin(state, endpoint, shard);
    let record = &forward.exchange.record;
    record.endpoint.set(Some(endpoint as u16));
    forward.tries().begin(&rule.endpoints[endpoint].name);
    if seeking.tries == 0
        && let Some(connection) = kept(rule, &state.pools[endpoint], client)
    {
        shard.reused.count();
        record.reused.set(true);
        seeking.tries += 1;
        return Ok(Choice::Kept(Acquired { connection, in_flight }));
    }
    Ok(Choice::Unconnected(in_flight))
}

#[cold]
fn none_left(seeking: &Seeking, refused: Option<Refusal>) -> Refusal {
    let refused = refused.unwrap_or_else(|| match seeking.tried.is_empty() {
        true => refusal::UPSTREAM_DOWN.into(),
        false => refusal::UPSTREAM_CONNECT.into(),
    });
    Refusal { retry_after_s: u32::from(refused.reason.status == 503), ..refused }
}

/// Connects to the endpoint that was chosen. One that cannot be connected is avoided for a while
/// and the next one is chosen, each at most once.
pub async fn acquire<'w>(
    forward: &Forward<'w>,
    seeking: &mut Seeking,
    client: Option<&Client>,
    mut chosen: InFlight<'w>,
) -> Result<Acquired<'w>, Refusal> {
    let (rule, record) = (forward.rule, &forward.exchange.record);
    let state = forward.snapshot.state(forward.upstream);
    loop {
        let (endpoint, shard) = (chosen.endpoint, chosen.shard);
        let asked_ns = now_ns();
        let opened = open(forward, &rule.endpoints[endpoint], state.tls.as_ref(), client).await;
        record.connect_ns.set(record.connect_ns.get() + now_ns().saturating_sub(asked_ns));
        let refused = match opened {
            Ok(connection) => {
                shard.connects.count();
                record.reused.set(false);
                seeking.tries += 1;
                state.balancer.borrow_mut().connected(endpoint);
                return Ok(Acquired { connection, in_flight: chosen });
            }
            Err(e) => {
                shard.connect_failures.count();
                let refused = failed(forward, endpoint, &e);
                forward.tries().unconnected(refused.reason);
                seeking.tried.insert(endpoint);
                let until_ms = now_ms() + rule.connect_cooldown_ms;
                state.balancer.borrow_mut().connect_failed(endpoint, until_ms);
                refused
            }
        };
        if now_ms() >= forward.exchange.until_ms {
            return Err(refusal::REQUEST_TIMEOUT.into());
        }
        drop(chosen);
        chosen = match choose(forward, seeking, client, Some(refused))? {
            Choice::Kept(acquired) => return Ok(acquired),
            Choice::Unconnected(next) => next,
        };
    }
}

/// A kept connection, if one may be used.
#[inline]
fn kept(rule: &Upstream, pool: &Rc<Pool>, client: Option<&Client>) -> Option<Box<Connection>> {
    match rule.proxy_header {
        ProxyHeader::Off => pool.take(rule),
        _ => client?.own.take(pool, rule),
    }
}

pub(super) fn failed(forward: &Forward<'_>, endpoint: usize, e: &io::Error) -> Refusal {
    tracing::debug!(
        upstream = forward.rule.name,
        endpoint = forward.rule.endpoints[endpoint].name,
        error = %e,
        "cannot connect"
    );
    let refusal = match e.kind() {
        io::ErrorKind::TimedOut => forward.overdue(refusal::UPSTREAM_CONNECT_TIMEOUT),
        io::ErrorKind::InvalidData => refusal::UPSTREAM_TLS.into(),
        // HTTP/2 was to be spoken, and the endpoint does not.
        io::ErrorKind::Unsupported => refusal::UPSTREAM_INVALID.into(),
        _ => refusal::UPSTREAM_CONNECT.into(),
    };
    forward.series().failed(refusal.reason);
    refusal
}

/// Opens a connection for HTTP/1.1, with TLS when there is a `tls`.
pub(super) async fn open(
    forward: &Forward<'_>,
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
    client: Option<&Client>,
) -> io::Result<Box<Connection>> {
    let left_ms = forward.exchange.until_ms.saturating_sub(now_ms());
    let timeout_ms = forward.rule.connect_timeout_ms.min(left_ms);
    let unsent_bytes = forward.snapshot.limits.unsent_bytes;
    let worker = forward.worker;
    let around = (&worker.deadlines, &worker.buffers, &worker.metrics);
    forward.worker.metrics.upstream_connects.count();
    // Boxed: connecting is rare and must not enlarge every connection's task.
    let (stream, _) = Box::pin(async {
        let header = announce::header(forward.rule.proxy_header, client, b"");
        connect(endpoint, tls, &header, timeout_ms, unsent_bytes, around).await
    })
    .await?;
    Ok(Connection::new(stream))
}

/// Connects to an endpoint and sends it the header, if there is one.
pub async fn reach(
    worker: &Worker,
    generation: &Generation,
    endpoint: &Endpoint,
    timeout_ms: u64,
    header: &[u8],
) -> io::Result<Stream> {
    let around = (&worker.deadlines, &worker.buffers, &worker.metrics);
    let unsent_bytes = generation.limits.unsent_bytes;
    connect(endpoint, None, header, timeout_ms, unsent_bytes, around)
        .await
        .map(|(stream, _)| stream)
}

/// Connects to an endpoint, sends it the PROXY protocol header, if there is one, and speaks TLS
/// when there is a `tls`. Answers whether the endpoint chose HTTP/2.
pub(super) async fn connect(
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
    header: &[u8],
    timeout_ms: u64,
    unsent_bytes: u32,
    (deadlines, buffers, metrics): (&Rc<Deadlines>, &Rc<Buffers>, &Arc<WorkerShard>),
) -> io::Result<(Stream, bool)> {
    let until_ms = now_ms().saturating_add(timeout_ms);
    let stream = match &endpoint.address {
        EndpointAddress::Unix(path) => Stream::connect_unix(path, timeout_ms, deadlines).await?,
        EndpointAddress::Tcp(addresses) => {
            connect_any(addresses, timeout_ms, unsent_bytes, deadlines).await?
        }
    };
    if !header.is_empty() {
        let wait = Wait { idle_ms: NEVER_MS, until_ms };
        let mut buf = buffers.at_least(header.len());
        buf.append(header);
        let sent = stream.write_all(&mut buf, wait).await;
        buffers.give(buf);
        sent.map_err(|failed| failed.error)?;
    }
    let mut is_http2 = false;
    if let (Some(tls), Some(name)) = (tls, &endpoint.server_name) {
        is_http2 = tls::connect(&stream, tls, name, buffers, metrics, until_ms).await?;
    }
    Ok((stream, is_http2))
}

/// Connects to the first address that can be.
async fn connect_any(
    addresses: &[SocketAddr],
    timeout_ms: u64,
    unsent_bytes: u32,
    deadlines: &Rc<Deadlines>,
) -> io::Result<Stream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match Stream::connect_tcp(*address, timeout_ms, unsent_bytes, deadlines).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}
