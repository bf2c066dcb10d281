//! `GET /status`: how the gateway is, for people, `ringway status`, `ringway top` and the status
//! page. Made from what workers count for themselves; none is asked. Durations are in seconds,
//! times are Unix times.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use axum::{Json, extract::State as Extract};
use serde::{Deserialize, Serialize};

use super::{
    Desk, State, quotas,
    recent::{Sums, since},
};
use crate::{
    config::{
        decode::Decode,
        snapshot::{Action, Bind, Redis, Upstream},
    },
    control::{
        acme::{Key, Line, unix},
        history::{Change, unix_now},
        kernel_tls,
        logs::Total,
        process,
        ready::Life,
        view::{ListenerView, View},
        watch::Signs,
    },
    telemetry::metrics::{
        cell::{Kept, Summed},
        expose::SpanCounts,
        registry::{Registry, Shards, UpstreamShards, sum, summed},
        shards::{
            Classes, ConsumerShard, EndpointShard, RouteShard, STATUS_FIRST, STATUSES, reasons,
        },
    },
};

#[derive(Debug, Deserialize, Serialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub started: u64,
    pub now: u64,
    /// `starting`, `ready` or `draining`.
    pub state: String,
    pub generation: u64,
    pub configuration: Configuration,
    pub totals: Totals,
    /// From a request's head to the last byte of its response.
    pub latency: Latency,
    /// The gateway's own share of that.
    pub overhead: Latency,
    pub workers: Vec<Worker>,
    pub listeners: Vec<Listener>,
    pub routes: Vec<Route>,
    /// Those that made requests; not there without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<Consumer>,
    pub upstreams: Vec<UpstreamStatus>,
    pub access_logs: Vec<AccessLog>,
    /// Not there without tracing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans: Option<Spans>,
    /// Names that certificates are got for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acme: Vec<AcmeStatus>,
    /// Servers in which limits are shared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redis: Vec<RedisStatus>,
    pub limits: Limits,
    pub memory: Memory,
    pub descriptors: Descriptors,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Configuration {
    /// `null` when it was not read from a file.
    pub file: Option<String>,
    pub loaded: u64,
    /// The last 32 changes, oldest first.
    pub history: Vec<Change>,
}

/// By first digit of the status: `2xx`. What did not begin is `none`.
pub type Responses = BTreeMap<String, u64>;

#[derive(Debug, Deserialize, Serialize)]
pub struct Totals {
    pub connections: u64,
    pub connections_open: u64,
    pub connections_shed: u64,
    pub tunnels_open: u64,
    pub requests: u64,
    pub responses: Responses,
    /// By reason, those that were given.
    pub refusals: BTreeMap<String, u64>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub upstream_connects: u64,
    pub retries: u64,
    pub panics: u64,
}

/// Durations of the last `seconds`; all are 0 when there were none.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Latency {
    pub seconds: f64,
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Worker {
    pub worker: usize,
    pub core: u32,
    pub io: String,
    pub generation: u64,
    /// `up`, `stuck` or `down`.
    pub state: String,
    pub connections_open: u64,
    pub requests: u64,
    pub cpu_seconds: f64,
    /// Since its last sign of life, as of the last look, some times a second.
    pub beat_age: f64,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Listener {
    pub name: String,
    /// As bound.
    pub bind: String,
    /// Accepted.
    pub connections: u64,
    /// Not there where clients speak no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Tls {
    pub certificates: usize,
    /// When the first of them expires; not there without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// `used`, or what the kernel lacks; not there where it is not asked for
    /// (`listeners.tls.kernel`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Route {
    /// Empty for requests without route; `(other)` for routes beyond `metrics.series`.
    pub name: String,
    /// `forward`, `respond` or `redirect`; empty where `name` is no route's.
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    pub requests: u64,
    pub responses: Responses,
    pub latency: Latency,
}

/// Somebody who uses what is served here.
#[derive(Debug, Deserialize, Serialize)]
pub struct Consumer {
    /// `(other)` for consumers beyond `metrics.series`.
    pub name: String,
    pub requests: u64,
    pub responses: Responses,
    /// Of bodies.
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// By reason, of limits and rules; `other` for the rest.
    #[serde(default)]
    pub refusals: BTreeMap<String, u64>,
    /// Of quotas that count by consumer alone, what it has used something of.
    #[serde(default)]
    pub quotas: Vec<QuotaUse>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct QuotaUse {
    pub name: String,
    /// In the period that goes on.
    pub used: u32,
    pub left: u32,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct UpstreamStatus {
    pub name: String,
    pub balance: String,
    /// Tries, of all endpoints.
    pub requests: u64,
    pub retries: u64,
    /// From a request sent to the head of its response.
    pub latency: Latency,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Endpoint {
    pub name: String,
    /// `up`, `drain` or `down`: what the operator says.
    pub state: String,
    pub weight: u32,
    pub configured_weight: u32,
    /// It could not be connected lately.
    pub avoided: bool,
    pub in_flight: u64,
    pub idle: u64,
    /// Tries; `failures` of them brought no response.
    pub requests: u64,
    pub failures: u64,
    pub connects: u64,
    pub connect_failures: u64,
    pub reused: u64,
    pub latency: Latency,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct AccessLog {
    pub name: String,
    pub written: u64,
    pub dropped: u64,
}

/// What became of spans since the start. Those that still wait are in neither figure.
#[derive(Debug, Deserialize, Serialize)]
pub struct Spans {
    pub exported: u64,
    pub dropped: u64,
}

/// A name that certificates are got for, and how it stands with it. Times are Unix times.
#[derive(Debug, Deserialize, Serialize)]
pub struct AcmeStatus {
    pub name: String,
    pub authority: String,
    /// `null` while there is no certificate.
    pub expires: Option<u64>,
    /// When the next one is ordered; `null` while another process does that.
    pub next: Option<u64>,
    /// Since the start.
    pub issued: u64,
    pub failed: u64,
    /// Why the last order failed; `null` when it did not.
    pub error: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct RedisStatus {
    pub name: String,
    pub address: String,
    /// It answers; else limits that are shared there are decided by their fallback.
    pub up: bool,
    /// Of the last change; `null` while there was none.
    pub since: Option<u64>,
    /// Why it does not answer.
    pub error: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Limits {
    /// Client connections, of all workers.
    pub connections_max: u32,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Memory {
    pub resident_bytes: u64,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Descriptors {
    pub open: u64,
    pub max: u64,
}

pub async fn get(Extract(desk): State) -> Json<Status> {
    desk.ledger.collect(&desk).await;
    let quotas = quotas::of_consumers(&desk);
    Json(status(&desk, &quotas))
}

fn status(desk: &Desk, quotas: &[(String, String, u32, u32)]) -> Status {
    let view = desk.view();
    let before = desk.recent.before();
    let registry = &*desk.registry();
    let signs = &desk.signs;
    let look = Look {
        registry,
        view: &view,
        signs,
        before: before.as_deref(),
        now: Instant::now(),
        quotas,
    };
    let (open, max) = process::descriptors();
    let state = match desk.readiness.look().life {
        Life::Starting => "starting",
        Life::Serving => "ready",
        Life::Draining => "draining",
    };
    let duration = summed(&registry.workers, |worker| &worker.duration);
    let overhead = summed(&registry.workers, |worker| &worker.overhead);
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: view.started,
        now: unix_now(),
        state: state.to_owned(),
        generation: view.snapshot.generation,
        configuration: Configuration {
            file: view.file.as_ref().map(|file| file.display().to_string()),
            loaded: view.history.loaded_at(),
            history: view.history.changes().cloned().collect(),
        },
        totals: totals(registry),
        latency: look.latency(&look.recent(&duration, |sums| Some(&sums.duration))),
        overhead: look.latency(&look.recent(&overhead, |sums| Some(&sums.overhead))),
        workers: look.workers(),
        listeners: look.listeners(),
        routes: look.routes(),
        consumers: look.consumers(),
        upstreams: look.upstreams(),
        access_logs: desk.logs.totals().into_iter().map(access_log).collect(),
        spans: view.snapshot.tracing.is_some().then(|| spans(desk.spans.counts())),
        redis: view.snapshot.redis.iter().map(redis).collect(),
        acme: desk.acme.all().into_iter().map(acme).collect(),
        limits: Limits { connections_max: view.snapshot.limits.connections_max },
        memory: Memory { resident_bytes: process::resident_bytes() },
        descriptors: Descriptors { open, max },
    }
}

fn access_log(total: Total) -> AccessLog {
    AccessLog { name: total.name, written: total.written, dropped: total.dropped }
}

fn acme(((name, authority), line): (Key, Line)) -> AcmeStatus {
    let (expires, next) = (line.expires.map(unix), line.next.map(unix));
    let Line { issued, failed, error, .. } = line;
    AcmeStatus { name, authority, expires, next, issued, failed, error }
}

fn redis(redis: &Redis) -> RedisStatus {
    let link = &redis.link;
    RedisStatus {
        name: redis.name.clone(),
        address: redis.address.to_string(),
        up: link.turn().is_some(),
        since: link.changed_s(),
        error: link.why(),
    }
}

fn spans(counts: SpanCounts) -> Spans {
    Spans { exported: counts.exported, dropped: counts.dropped }
}

fn totals(registry: &Registry) -> Totals {
    let mut by_class = [0; 6];
    for at in 0..STATUSES {
        let class = (at + usize::from(STATUS_FIRST)) / 100;
        by_class[class] += registry.sum(|worker| worker.statuses[at].get());
    }
    let refusals = reasons().map(|reason| {
        let at = usize::from(reason.number);
        (reason.token.to_owned(), registry.sum(|worker| worker.reasons[at].get()))
    });
    Totals {
        connections: registry.sum(|worker| worker.connections.get()),
        connections_open: registry.sum(|worker| worker.connections_open.get()),
        connections_shed: registry.sum(|worker| worker.connections_shed.get()),
        tunnels_open: registry.sum(|worker| worker.tunnels_open.get()),
        requests: registry.sum(|worker| worker.requests.get()),
        responses: responses(by_class),
        refusals: refusals.filter(|(_, count)| *count > 0).collect(),
        received_bytes: registry.sum(|worker| worker.received_bytes.get()),
        sent_bytes: registry.sum(|worker| worker.sent_bytes.get()),
        upstream_connects: registry.sum(|worker| worker.upstream_connects.get()),
        retries: registry.sum(|worker| worker.retries.get()),
        panics: registry.sum(|worker| worker.panics.get()),
    }
}

fn responses(by_class: [u64; 6]) -> Responses {
    let names = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
    let named = names.into_iter().zip(by_class);
    // What did not begin is rare, and listed only when it happened.
    named.filter(|(n, count)| *n != "none" || *count > 0).map(|(n, c)| (n.to_owned(), c)).collect()
}

fn classes<T>(shards: &Shards<T>, part: impl Fn(&T) -> &Classes) -> [u64; 6] {
    std::array::from_fn(|class| sum(shards, |shard| part(shard)[class].get()))
}

/// What one answer is made from.
struct Look<'a> {
    registry: &'a Registry,
    view: &'a View,
    signs: &'a Signs,
    before: Option<&'a Sums>,
    now: Instant,
    /// Consumer, quota, used and left.
    quotas: &'a [(String, String, u32, u32)],
}

impl Look<'_> {
    /// What came since the earlier sum of the same durations, which `before` finds.
    fn recent(&self, sum: &Summed, before: impl Fn(&Sums) -> Option<&Kept>) -> Summed {
        since(sum, self.before.and_then(before))
    }

    fn latency(&self, recent: &Summed) -> Latency {
        let from = self.before.map_or(self.now, |sums| sums.at);
        let at = |share| recent.at_quantile_ns(share) as f64 / 1e9;
        Latency {
            seconds: self.now.saturating_duration_since(from).as_secs_f64(),
            count: recent.count(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }

    fn workers(&self) -> Vec<Worker> {
        let workers = self.view.workers.iter().zip(&self.registry.workers).enumerate();
        let workers = workers.map(|(worker, (view, shard))| {
            let (still_for, is_stuck) = self.signs.of_worker(worker);
            Worker {
                worker,
                core: view.core,
                io: view.io.to_owned(),
                generation: shard.generation.get(),
                state: match (view.is_down, is_stuck) {
                    (true, _) => "down",
                    (false, true) => "stuck",
                    (false, false) => "up",
                }
                .to_owned(),
                connections_open: shard.connections_open.get(),
                requests: shard.requests.get(),
                cpu_seconds: process::cpu_seconds(shard.tid.get()),
                beat_age: still_for.as_secs_f64(),
            }
        });
        workers.collect()
    }

    fn listeners(&self) -> Vec<Listener> {
        let listener = |listener: &ListenerView| {
            let name = &listener.rule.name;
            let shards = self.registry.listeners.iter().find(|(known, _)| known == name);
            Listener {
                name: name.clone(),
                bind: match &listener.bind {
                    Bind::Tcp(at) => at.to_string(),
                    Bind::Unix { path, .. } => format!("unix:{}", path.display()),
                },
                connections: shards.map_or(0, |(_, shards)| sum(shards, |l| l.connections.get())),
                tls: listener.rule.tls.as_ref().map(|tls| {
                    let (certificates, expires) = tls.there();
                    Tls { certificates, expires, kernel: tls.kernel.then(kernel_tls::said) }
                }),
            }
        };
        self.view.listeners.iter().map(listener).collect()
    }

    fn routes(&self) -> Vec<Route> {
        let snapshot = &self.view.snapshot;
        let rules: HashMap<&str, &_> =
            snapshot.routes.iter().map(|rule| (&*rule.name, rule)).collect();
        let route = |(name, shards): &(String, Shards<RouteShard>)| {
            let by_class = classes(shards, |route| &route.traffic.responses);
            let (action, upstream) = match rules.get(&**name).map(|rule| &rule.action) {
                Some(Action::Forward(id)) => ("forward", Some(snapshot.upstream(*id).name.clone())),
                Some(Action::Respond(_)) => ("respond", None),
                Some(Action::Redirect(_)) => ("redirect", None),
                None => ("", None),
            };
            let duration = summed(shards, |route| &route.duration);
            Route {
                name: name.clone(),
                action: action.to_owned(),
                upstream,
                requests: by_class.iter().sum(),
                responses: responses(by_class),
                latency: self.latency(&self.recent(&duration, |sums| sums.routes.get(name))),
            }
        };
        // Requests without route come first, and are no route.
        let all = self.registry.routes.iter().map(route);
        all.filter(|route| !route.name.is_empty() || route.requests > 0).collect()
    }

    fn consumers(&self) -> Vec<Consumer> {
        let consumer = |(name, shards): &(String, Shards<ConsumerShard>)| {
            let by_class = classes(shards, |consumer| &consumer.traffic.responses);
            let refusals = ConsumerShard::refusal_names().map(|(at, reason)| {
                (reason.to_owned(), sum(shards, |consumer| consumer.refusals[at].get()))
            });
            let quotas = self.quotas.iter().filter(|(consumer, ..)| consumer == name);
            let quota = |name: &String, used, left| QuotaUse { name: name.clone(), used, left };
            Consumer {
                name: name.clone(),
                requests: by_class.iter().sum(),
                responses: responses(by_class),
                received_bytes: sum(shards, |consumer| consumer.traffic.request_bytes.get()),
                sent_bytes: sum(shards, |consumer| consumer.traffic.response_bytes.get()),
                refusals: refusals.filter(|(_, count)| *count > 0).collect(),
                quotas: quotas.map(|(_, name, used, left)| quota(name, *used, *left)).collect(),
            }
        };
        let all = self.registry.consumers.iter().map(consumer);
        all.filter(|consumer| consumer.requests > 0).collect()
    }

    fn upstreams(&self) -> Vec<UpstreamStatus> {
        let rules = self.view.snapshot.upstreams.iter();
        let known =
            |rule: &Upstream| self.registry.upstreams.iter().find(|(name, ..)| *name == rule.name);
        rules.filter_map(|rule| Some(self.upstream(rule, known(rule)?))).collect()
    }

    fn upstream(&self, rule: &Upstream, shards: &UpstreamShards) -> UpstreamStatus {
        let (_, own, endpoints) = shards;
        let mut all = Summed::default();
        let mut statuses = Vec::with_capacity(rule.endpoints.len());
        for (name, shards) in endpoints {
            let sum = summed(shards, |endpoint| &endpoint.duration);
            let key = (rule.name.clone(), name.clone());
            let recent = self.recent(&sum, |sums| sums.endpoints.get(&key));
            all.add(&recent);
            statuses.push(self.endpoint(rule, name, shards, self.latency(&recent)));
        }
        UpstreamStatus {
            name: rule.name.clone(),
            balance: rule.balance.bare(),
            requests: statuses.iter().map(|endpoint| endpoint.requests).sum(),
            retries: sum(own, |upstream| upstream.retries.get()),
            latency: self.latency(&all),
            endpoints: statuses,
        }
    }

    fn endpoint(
        &self,
        rule: &Upstream,
        name: &str,
        shards: &Shards<EndpointShard>,
        latency: Latency,
    ) -> Endpoint {
        let configured = rule.endpoints.iter().find(|endpoint| endpoint.name == name);
        let configured_weight = configured.map_or(1, |endpoint| endpoint.weight_configured);
        let over = self.view.overrides.of(&rule.name, name).unwrap_or_default();
        let by_class = classes(shards, |endpoint| &endpoint.responses);
        Endpoint {
            name: name.to_owned(),
            state: over.state.word().to_owned(),
            weight: over.weight.unwrap_or(configured_weight),
            configured_weight,
            avoided: sum(shards, |endpoint| endpoint.avoided.get()) > 0,
            in_flight: sum(shards, |endpoint| endpoint.in_flight.get()),
            idle: sum(shards, |endpoint| endpoint.idle.get()),
            requests: by_class.iter().sum(),
            failures: by_class[0],
            connects: sum(shards, |endpoint| endpoint.connects.get()),
            connect_failures: sum(shards, |endpoint| endpoint.connect_failures.get()),
            reused: sum(shards, |endpoint| endpoint.reused.get()),
            latency,
        }
    }
}
