//! TLS that is not ended here (`listeners.passthrough`): the connection goes as it is to an
//! endpoint of the upstream that the name in its ClientHello leads to.
//!
//! The ClientHello is bounded in bytes ([`HELLO_BYTES_MAX`]) and in time (`timeouts.head`), the
//! tunnel as every other. Whoever cannot be sent anywhere is told by an alert; every reason is
//! counted and logged. The configuration is that of the connection's beginning until its end.

use std::io;

use super::{
    Worker, announce,
    buffers::{Buffer, TAILROOM},
    client::Client,
    clock::{NEVER_MS, now_ms, now_ns},
    forward::{InFlight, reach},
    generation::Generation,
    logs::{self, Passed},
    net::{Stream, Wait},
    tunnel::{Bounds, Tunnel},
};
use crate::{
    config::snapshot::UpstreamId,
    policy::{Refusal, balance::TriedSet, refusal},
    telemetry::metrics::shards::EndpointShard,
    wire::{
        Parsed, Reason,
        client_hello::{HELLO_BYTES_MAX, NoHello, parse},
    },
};

/// How long somebody who was told that it goes nowhere may take to read that.
const LAST_WORDS_MS: u64 = 500;
const LAST_WORDS_BYTES_MAX: u64 = 64 * 1024;
/// A fatal alert of TLS 1.2, the form that every version has before keys are agreed on.
const ALERT: [u8; 6] = [21, 3, 3, 0, 2, 2];

/// One connection on its way.
struct Passing<'a> {
    worker: &'a Worker,
    generation: &'a Generation,
    client: &'a Client,
    /// The name that is asked for, in lower case; empty for none.
    name: Vec<u8>,
    /// What is known of the end.
    passed: Passed<'a>,
}

/// Passes a connection on until it ends.
pub async fn serve(worker: &Worker, client: &Client) {
    let generation = worker.snapshot();
    client.activity.since_ms.set(now_ms());
    let passed = Passed { started_ns: now_ns(), ..Passed::default() };
    let mut passing = Passing { worker, generation: &generation, client, name: Vec::new(), passed };
    let mut buf = worker.buffers.head();
    let refused = passing.pass(&mut buf).await.err();
    worker.buffers.give(buf);
    if let Some(refusal) = refused {
        worker.metrics.refused(refusal.reason);
        passing.passed.refused = Some(refusal);
        passing.tell(refusal.reason).await;
    }
    logs::passed(worker, &generation, client, &passing.name, &passing.passed);
}

impl<'a> Passing<'a> {
    async fn pass(&mut self, buf: &mut Buffer) -> Result<(), Refusal> {
        self.hello(buf).await?;
        let upstream = self.upstream()?;
        let (worker, generation) = (self.worker, self.generation);
        self.passed.upstream = Some(generation.upstream(upstream));
        let (stream, _in_flight) = self.connect(upstream).await?;
        self.client.activity.is_tunnel.set(true);
        let shard = &generation.series.upstreams[upstream as usize].upstream;
        shard.passed.count();
        let bounds = Bounds::of(&generation.timeouts);
        let tunnel = Tunnel::new(worker, &self.client.stream, &stream, bounds)
            .counted(shard.passed_bytes.each_ref());
        (self.passed.received_bytes, self.passed.sent_bytes) = tunnel.run(buf.bytes(), b"").await;
        Ok(())
    }

    /// Waits for a whole ClientHello at the front of `buf`.
    async fn hello(&mut self, buf: &mut Buffer) -> Result<(), Refusal> {
        let until_ms = now_ms() + self.generation.timeouts.head_ms;
        loop {
            match parse(buf.bytes(), &mut self.name) {
                Ok(Parsed::Complete(())) => return Ok(()),
                Ok(Parsed::Partial) => {}
                Err(NoHello::NotTls | NoHello::Malformed | NoHello::TooLong) => {
                    return Err(refusal::PASSTHROUGH_HELLO.into());
                }
            }
            if buf.room() == 0 {
                let mut larger = self.worker.buffers.at_least(HELLO_BYTES_MAX + TAILROOM);
                larger.append(buf.bytes());
                self.worker.buffers.give(std::mem::replace(buf, larger));
            }
            let wait = Wait { idle_ms: NEVER_MS, until_ms };
            match self.client.stream.read(buf, wait).await {
                Ok(1..) => {}
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    return Err(match self.worker.is_cut.get() {
                        true => refusal::GATEWAY_ENDED.into(),
                        false => refusal::PASSTHROUGH_TIMEOUT.into(),
                    });
                }
                Ok(0) | Err(_) => return Err(refusal::CLIENT_ABORTED.into()),
            }
        }
    }

    fn upstream(&self) -> Result<UpstreamId, Refusal> {
        // By the generation's own rule: a connection may come from a listener that is changing.
        let name = &self.client.door.rule.borrow().name;
        let rule = self.generation.listeners.iter().find(|rule| rule.name == *name);
        let names = rule.and_then(|rule| rule.passthrough.as_ref());
        names.and_then(|names| names.find(&self.name)).ok_or(match self.name.is_empty() {
            true => refusal::PASSTHROUGH_NO_NAME.into(),
            false => refusal::PASSTHROUGH_NAME.into(),
        })
    }

    /// Connects to an endpoint; one that cannot be connected is avoided for a while, and the next
    /// one is tried.
    async fn connect(&mut self, upstream: UpstreamId) -> Result<(Stream, InFlight<'a>), Refusal> {
        let (worker, generation) = (self.worker, self.generation);
        let (rule, state) = (generation.upstream(upstream), generation.state(upstream));
        let header = announce::header(rule.proxy_header, Some(self.client), &self.name);
        let mut tried = TriedSet::default();
        let mut refused: Refusal = refusal::UPSTREAM_DOWN.into();
        loop {
            let random = worker.random.next();
            let picked = state.balancer.borrow_mut().pick(&tried, now_ms(), random);
            let Some(at) = picked else { return Err(refused) };
            let (endpoint, shard) = (&rule.endpoints[at], generation.series.endpoint(upstream, at));
            self.passed.endpoint = Some(endpoint);
            let in_flight = InFlight::begin(state, at, shard);
            worker.metrics.upstream_connects.count();
            let asked_ns = now_ns();
            let reached =
                reach(worker, generation, endpoint, rule.connect_timeout_ms, &header).await;
            self.passed.connect_ns += now_ns().saturating_sub(asked_ns);
            let error = match reached {
                Ok(stream) => {
                    shard.connects.count();
                    self.passed.tries = 1;
                    state.balancer.borrow_mut().connected(at);
                    return Ok((stream, in_flight));
                }
                Err(error) => error,
            };
            refused = self.unreached(shard, upstream, &error);
            tried.insert(at);
            let until_ms = now_ms() + rule.connect_cooldown_ms;
            state.balancer.borrow_mut().connect_failed(at, until_ms);
        }
    }

    fn unreached(&self, shard: &EndpointShard, upstream: UpstreamId, error: &io::Error) -> Refusal {
        tracing::debug!(upstream = self.generation.upstream(upstream).name, %error, "cannot connect");
        shard.connect_failures.count();
        let refusal: Refusal = match error.kind() {
            io::ErrorKind::TimedOut => refusal::UPSTREAM_CONNECT_TIMEOUT.into(),
            _ => refusal::UPSTREAM_CONNECT.into(),
        };
        self.generation.series.upstreams[upstream as usize].upstream.failed(refusal.reason);
        refusal
    }

    /// Tells the client by an alert (RFC 8446 §6.2) why it goes nowhere.
    async fn tell(&self, reason: &Reason) {
        let description = match reason {
            _ if reason == refusal::PASSTHROUGH_NAME || reason == refusal::PASSTHROUGH_NO_NAME => {
                112
            }
            _ if reason == refusal::PASSTHROUGH_HELLO => 50,
            _ if self.passed.upstream.is_some() => 80,
            _ => return,
        };
        let mut buf = self.worker.buffers.head();
        buf.append(&ALERT);
        buf.append(&[description]);
        let stream = &self.client.stream;
        let wait = Wait { idle_ms: LAST_WORDS_MS, until_ms: NEVER_MS };
        if stream.write_all(&mut buf, wait).await.is_ok() {
            stream.finish_writing();
            stream.discard(&mut buf, LAST_WORDS_MS, LAST_WORDS_BYTES_MAX).await;
        }
        self.worker.buffers.give(buf);
    }
}
