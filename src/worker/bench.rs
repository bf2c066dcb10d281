//! A door for `benches/`, and for nothing else: the steps of an exchange that touch no socket, on a
//! worker that serves nobody.
//!
//! It owns no logic. Each method of [`Parts`] calls what the data path calls, so that a benchmark
//! measures the gateway and not a copy of it. The running gateway never comes here. What it is
//! given comes from a benchmark, so a mistake in it panics.

use std::{
    cell::Cell,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream as StdUnixStream,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use monoio::net::UnixStream;

use super::{
    Seed, Worker,
    body::Decoder,
    buffers::{Buffer, HEADROOM},
    client::Client,
    clients::Places,
    clock::{self, NEVER_MS, now_ms, now_ns},
    door::Door,
    exchange::Exchange,
    forward::{Forward, request},
    generation::Generation,
    h1::{body::H1Body, sink::H1Sink},
    home::Homes,
    logs::{Outlet, Queue},
    mailbox::mailbox,
    net::{Stream, Wait},
    pipeline::{self, Done, Outcome},
    policies::{self, Passed},
    runtime::Driver,
    shape::{self, Checked},
    siblings::Sibling,
};
use crate::{
    config::{
        self, Snapshot,
        snapshot::{Action, Io, Runtime, WayKind},
    },
    policy::{client, grpc::Grpc, route::RouteMatch},
    telemetry::{
        metrics::registry::{Names, Registry, UpstreamNames},
        record::{Record, Sent},
        request_id::RequestId,
    },
    wire::{Parsed, ResponseHead, Span},
};

/// The client of the exchange.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
/// Bytes of lines that may wait for a log's thread, which is not there: see [`Parts::record`].
const LOG_BYTES: u64 = 1 << 20;
const FOREVER: Wait = Wait { idle_ms: NEVER_MS, until_ms: NEVER_MS };

/// One exchange whose request was forwarded and whose response head has arrived.
pub struct Parts<'a> {
    worker: &'a Worker,
    forward: Forward<'a>,
    matched: RouteMatch,
    /// Of the request, which has none.
    body: H1Body<'a>,
    sink: H1Sink<'a>,
    head: ResponseHead,
    /// The response as received.
    response: &'a [u8],
    buf: Buffer,
    done: Done,
    queues: &'a [Arc<Queue>],
}

impl Parts<'_> {
    /// Writes the request's head as the upstream gets it into a buffer. Answers the bytes.
    pub fn compose(&mut self) -> Vec<u8> {
        self.composed(|buf| buf.bytes().to_vec())
    }

    /// As [`Parts::compose`], but the buffer goes back unseen. Answers the number of bytes.
    pub fn compose_only(&mut self) -> usize {
        self.composed(Buffer::len)
    }

    fn composed<R>(&mut self, look: impl FnOnce(&Buffer) -> R) -> R {
        let buf = request::compose(&self.forward, &self.matched, &mut self.body)
            .expect("the request can be rewritten");
        let seen = look(&buf);
        self.worker.buffers.give(buf);
        seen
    }

    /// Puts the response's head as the client gets it in front of the body, in a buffer that has
    /// the response as received: a copy of it stands for the read. Does not parse it. Answers what
    /// the client gets.
    pub fn relay(&mut self) -> &[u8] {
        self.buf.reset(HEADROOM);
        self.buf.append(self.response);
        self.sink.decide(self.head.framing);
        let mut out = self.worker.scratch.take();
        self.sink.rewrite(&mut out, &self.head, self.buf.bytes());
        self.buf.consume(self.head.len);
        assert!(self.buf.prepend(&out), "the head fits before the body");
        self.worker.scratch.set(out);
        self.buf.bytes()
    }

    /// What is kept of the exchange: metrics, and lines of its configuration's access logs. Nobody
    /// writes the lines: their memory comes back at once.
    pub fn record(&self) {
        let forward = &self.forward;
        forward.count(forward.snapshot.series.endpoint(forward.upstream, 0), None);
        pipeline::record(self.worker, forward.snapshot, forward.exchange, &self.done);
        for queue in self.queues {
            if let Some(batch) = queue.take() {
                queue.give(batch);
            }
        }
    }
}

/// One exchange whose route may have policies, and the head of its response.
pub struct Judged<'a> {
    worker: &'a Worker,
    generation: &'a Generation,
    exchange: Exchange,
    matched: RouteMatch,
    client: &'a Client,
    head: ResponseHead,
    /// The response as received.
    response: &'a [u8],
    buf: Buffer,
}

impl Judged<'_> {
    /// What the policies of the route do until the request may be forwarded, with its body where
    /// that has to be as a schema says, and to the head of the response: what they add to it is
    /// written. All of them must let it pass, without waiting.
    /// Answers the number of bytes that the client gets.
    pub fn judge(&mut self) -> usize {
        let exchange = &mut self.exchange;
        let version = (exchange.head().version, exchange.is_head());
        let mut sink =
            H1Sink::new(self.worker, self.generation, self.client, version, true, FOREVER);
        let rule = self.generation.route(self.matched.route);
        let _permit = match rule.policies.pass() {
            Ok(permit) => permit,
            Err(asked) => {
                let own = asked.policies();
                policies::tell(exchange, own, &mut sink);
                let of = (&self.matched, asked);
                let before =
                    policies::before(self.worker, self.generation, exchange, of, &mut sink);
                let mut context = Context::from_waker(Waker::noop());
                let permit = match std::pin::pin!(before).poll(&mut context) {
                    Poll::Ready(Ok(Passed::On(permit, _))) => permit,
                    other => panic!("the request passes at once: {other:?}"),
                };
                if let Some(rule) = &own.validate {
                    let mut body = body(self.worker, self.generation, self.client, exchange);
                    let both = (&mut body, &mut sink);
                    let (worker, snapshot) = (self.worker, self.generation);
                    let mut checked =
                        Box::pin(shape::check_body(worker, snapshot, exchange, rule, both));
                    match checked.as_mut().poll(&mut context) {
                        Poll::Ready(Ok(Checked::Untouched)) => {}
                        _ => panic!("the body is good, and stays where it is"),
                    }
                }
                permit
            }
        };
        (exchange.identity, exchange.upstream_fields) = (None, None);
        self.buf.reset(HEADROOM);
        self.buf.append(self.response);
        sink.decide(self.head.framing);
        let mut out = self.worker.scratch.take();
        sink.rewrite(&mut out, &self.head, self.buf.bytes());
        let len = out.len();
        self.worker.scratch.set(out);
        len
    }
}

/// Has `run` use an exchange of `request`, to which `configuration` gives a route with policies,
/// and of `response`. Passwords of its users are `password`, and known to be right.
pub fn with_policies(
    configuration: &str,
    (request, response, password): (&[u8], &[u8], &str),
    run: impl FnOnce(&mut Judged<'_>),
) {
    staged(configuration, (request, response), |staged| {
        let Staged { worker, generation, client, exchange, matched, head, buf, .. } = staged;
        for way in &generation.ways {
            if let WayKind::Password(rule) = &way.kind {
                rule.users.all.iter().for_each(|user| worker.passwords.is_right(user, password));
            }
        }
        run(&mut Judged { worker, generation, exchange, matched, client, head, response, buf });
    });
}

/// Has `run` use an exchange of `request`, which must be forwarded by `configuration` (text of a
/// file, one upstream), and of `response`, both without body framing other than a length.
pub fn with_exchange(
    configuration: &str,
    request: &[u8],
    response: &[u8],
    run: impl FnOnce(&mut Parts<'_>),
) {
    staged(configuration, (request, response), |staged| {
        let Staged { worker, generation, client, exchange, matched, head, buf, queues } = staged;
        let Action::Forward(upstream) = generation.route(matched.route).action else {
            panic!("the benchmark's request is forwarded");
        };
        note(&exchange.record, upstream);
        let version = (exchange.head().version, exchange.is_head());
        run(&mut Parts {
            worker,
            forward: Forward {
                worker,
                snapshot: generation,
                exchange: &exchange,
                rule: generation.upstream(upstream),
                upstream,
                upgrade: false,
                is_sent: Cell::new(true),
            },
            matched,
            body: body(worker, generation, client, &exchange),
            sink: H1Sink::new(worker, generation, client, version, true, FOREVER),
            done: done(&head, response),
            head,
            response,
            buf,
            queues,
        });
    });
}

/// What both kinds of benchmarks are about.
struct Staged<'s> {
    worker: &'s Worker,
    generation: &'s Generation,
    client: &'s Client,
    exchange: Exchange,
    matched: RouteMatch,
    /// Of the response.
    head: ResponseHead,
    /// Empty.
    buf: Buffer,
    /// Of access logs.
    queues: &'s [Arc<Queue>],
}

/// Has `run` use an exchange, in a runtime.
fn staged(configuration: &str, (request, response): (&[u8], &[u8]), run: impl FnOnce(Staged<'_>)) {
    let (snapshot, _) = config::from_text("benchmark", configuration)
        .unwrap_or_else(|report| panic!("{}", report.render(false)));
    let runtime = Runtime { io: Io::Epoll, ..snapshot.runtime.clone() };
    let mut driver = Driver::build(&runtime).expect("epoll is everywhere");
    clock::refresh();
    let queues: Vec<_> =
        snapshot.access_logs.iter().map(|_| Arc::new(Queue::new(LOG_BYTES))).collect();
    let worker = worker(snapshot, &queues);
    let generation = worker.snapshot();
    worker.serve_with(&generation);
    let door = door(&generation);
    driver.block_on(async {
        let (ours, _theirs) = StdUnixStream::pair().expect("a pair of sockets");
        let stream = UnixStream::from_std(ours).expect("a socket enters the runtime");
        let stream = Stream::unix(stream, &worker.deadlines);
        let client = Client::new(stream, Some(SocketAddr::new(PEER, 50_000)), door.clone());
        let (exchange, matched) = exchange(&worker, &generation, door.clone(), request);
        let mut head = ResponseHead::default();
        let parsed = head.parse(response, exchange.head().method, &generation.limits.head);
        assert_eq!(parsed, Ok(Parsed::Complete(())), "the response is complete");
        let buf = worker.buffers.head();
        let (worker, generation, client, queues) = (&worker, &*generation, &client, &*queues);
        run(Staged { worker, generation, client, exchange, matched, head, buf, queues });
    });
}

/// Of a request that has arrived as a whole.
fn body<'c>(
    worker: &'c Worker,
    generation: &Generation,
    client: &'c Client,
    exchange: &Exchange,
) -> H1Body<'c> {
    let mut decoder = Decoder::new(exchange.head().framing, generation.limits.head);
    let arrived = exchange.arrived.len() as u64;
    decoder.pass(arrived);
    H1Body::new(worker, client, decoder, arrived, FOREVER, 0)
}

/// A worker without listeners, whose mailbox nobody reads.
fn worker(snapshot: Snapshot, queues: &[Arc<Queue>]) -> Worker {
    let upstream = |upstream: &config::snapshot::Upstream| UpstreamNames {
        name: upstream.name.clone(),
        endpoints: upstream.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect(),
    };
    let names = Names {
        listeners: snapshot.listeners.iter().map(|rule| rule.name.clone()).collect(),
        routes: snapshot.routes.iter().map(|route| route.name.clone()).collect(),
        upstreams: snapshot.upstreams.iter().map(upstream).collect(),
        consumers: Vec::new(),
        has_more_consumers: false,
        limits: snapshot.limit_names(),
        series_max: snapshot.metrics.series_max as usize,
        is_off: !snapshot.metrics.enabled,
    };
    let outlet =
        |queue: &Arc<Queue>| Outlet { queue: queue.clone(), writer: std::thread::current() };
    let series = Registry::new(1).adopt(&names).remove(0);
    let alone = Sibling::new(Arc::default(), series.worker.clone()).expect("an eventfd");
    let seed = Seed {
        index: 0,
        series,
        snapshot: Arc::new(snapshot),
        spans: None,
        outlets: queues.iter().map(outlet).collect(),
        mailbox: mailbox().expect("an eventfd").1,
        beat: Arc::default(),
        places: Places::new(1),
        siblings: [alone].into(),
        homes: Homes::new(1, crate::policy::limit::Seeds::default()).expect("an eventfd"),
        desk: super::errand::desk().0,
        quotas: Vec::new(),
        parting: Box::new(|_, _| {}),
    };
    Worker::new(seed, true).expect("an eventfd").0
}

fn door(generation: &Generation) -> Rc<Door> {
    let rule = generation.listeners.first().expect("the configuration has a listener");
    Rc::new(Door::new(rule, generation))
}

/// The exchange of a request, routed.
fn exchange(
    worker: &Worker,
    generation: &Generation,
    door: Rc<Door>,
    bytes: &[u8],
) -> (Exchange, RouteMatch) {
    let mut request = worker.request();
    let parsed = request.head.parse(bytes, &generation.limits.head);
    assert_eq!(parsed, Ok(Parsed::Complete(())), "the request is complete");
    let mut buf = worker.buffers.head();
    buf.append(bytes);
    let trusted = &generation.forwarding.trusted_proxies;
    let client = client::client_address(Some(PEER), trusted, &request.head, buf.bytes());
    let trace = worker.trace(generation, &request.head, buf.bytes(), client.trusted_peer);
    let head_len = request.head.len;
    let mut exchange = Exchange {
        identity: None,
        upstream_fields: None,
        grpc: Grpc::No,
        is_tls: false,
        client_cert: None,
        request,
        buf,
        arrived: Span::new(head_len, bytes.len()),
        rest: bytes.len(),
        started_ms: now_ms(),
        until_ms: NEVER_MS,
        client,
        door,
        peer: Some(PEER),
        peer_text: Rc::from(PEER.to_string().into_bytes()),
        id: RequestId::make(&worker.random),
        route: None,
        record: Record::begun(now_ns()),
        trace,
        fin_is_gone: true,
    };
    pipeline::admit(generation, &mut exchange).expect("the request is admitted");
    let matched = pipeline::route(generation, &mut exchange).expect("the request has a route");
    (exchange, matched)
}

/// Notes what forwarding learns, at times that the first read of the clock makes.
fn note(record: &Record, upstream: u32) {
    record.upstream.set(Some(upstream));
    record.endpoint.set(Some(0));
    record.tries.set(1);
    record.reused.set(true);
    record.sent(now_ns() + 60_000);
    record.answered(200, now_ns() + 460_000);
}

fn done(head: &ResponseHead, response: &[u8]) -> Done {
    let sent = Sent {
        status: head.status,
        bytes: response.len() as u64,
        body_bytes: (response.len() - head.len) as u64,
        first_ns: now_ns() + 500_000,
    };
    Done { refused: None, outcome: Outcome::Done, sent, received_bytes: 0 }
}
