//! Metrics as text: OpenMetrics, or the Prometheus text format made from it.

use std::{borrow::Cow, fmt, fmt::Write};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text},
    metrics::MetricType,
    registry::{Registry as Encoded, Unit as EncodedUnit},
};

use super::{
    cell::{Cell, Summed},
    families::{self as f, Family, Kind, Unit},
    registry::{Registry, Shards, sum, summed},
    shards::{
        Classes, EndpointShard, FAILURES, Http2Failure, ListenerShard, ProxyFailure, STATUS_FIRST,
        STATUSES, TLS_SIDES, TlsBreak, TlsFailure, WorkerShard, reasons,
    },
    tunnels::{End, TunnelEnd, WebSocketCounts, WebSocketShard, close_codes},
};

mod consumers;
mod issuers;
mod limits;
mod traffic;

pub use issuers::{JwksFigures, LoginFigures};
pub use limits::RedisFigures;

/// Upper bounds of every histogram, in seconds.
const BOUNDS: [f64; 17] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 60.0,
];

/// What control knows beside the shards.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pub version: &'static str,
    /// Unix time.
    pub started_s: f64,
    pub resident_bytes: u64,
    pub descriptors_open: u64,
    pub descriptors_max: u64,
    pub workers: Vec<WorkerProcess>,
    pub generation: u64,
    /// Unix time.
    pub loaded_s: f64,
    pub reloads: u64,
    pub reloads_refused: u64,
    pub is_ready: bool,
    /// Listeners that speak TLS, and the Unix time when the first of their certificates expires.
    pub certificates: Vec<(String, f64)>,
    pub access_logs: Vec<LogLines>,
    pub spans: SpanCounts,
    pub jwks: Vec<JwksFigures>,
    pub redis: Vec<RedisFigures>,
    pub logins: Vec<LoginFigures>,
    pub acme: Vec<AcmeFigures>,
    /// Consumer, quota, what it has used of it and what is left.
    pub quotas: Vec<(String, String, u32, u32)>,
}

/// One name that certificates are got for.
#[derive(Clone, Debug, Default)]
pub struct AcmeFigures {
    pub name: String,
    pub authority: String,
    /// Unix time; `None` while there is no certificate.
    pub expires_s: Option<f64>,
    pub issued: u64,
    pub failed: u64,
}

/// A worker as the system sees it.
#[derive(Clone, Debug, Default)]
pub struct WorkerProcess {
    pub core: u32,
    pub cpu_seconds: f64,
    pub mailbox: u64,
    /// `None` where it does not run on io_uring.
    pub ring: Option<RingCounts>,
}

/// What a ring has counted since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingCounts {
    pub submitted: u64,
    pub completed: u64,
    pub overflowed: u64,
}

/// Lines of one access log.
#[derive(Clone, Debug, Default)]
pub struct LogLines {
    pub log: String,
    pub written: u64,
    pub dropped: u64,
}

/// Spans of all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Taken by the collector.
    pub exported: u64,
    pub dropped: u64,
}

/// Which text is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What an Accept field asks for: OpenMetrics when it is named, else Prometheus.
    pub fn accepted(accept: &str) -> Format {
        match accept.contains("application/openmetrics-text") {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Everything, as text.
pub fn text(registry: &Registry, process: &Process, format: Format) -> String {
    let mut encoded = Encoded::default();
    encoded.register_collector(Box::new(Scrape::of(registry, process)));
    let mut out = String::new();
    text::encode(&mut out, &encoded).expect("writing to memory");
    match format {
        Format::OpenMetrics => out,
        Format::Prometheus => prometheus(&out),
    }
}

/// OpenMetrics names a counter without `_total` in its description and has lines that Prometheus
/// does not know.
fn prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    // The description comes before the type, and needs to know it.
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        let described = (words.next(), words.next(), words.next(), words.next());
        match described {
            (Some("#"), Some("HELP"), Some(name), Some(text)) => help = Some((name, text)),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let total = if kind == "counter" { "_total" } else { "" };
                if let Some((_, text)) = help.take().filter(|(described, _)| *described == name) {
                    let _ = writeln!(out, "# HELP {name}{total} {text}");
                }
                let _ = writeln!(out, "# TYPE {name}{total} {kind}");
            }
            (Some("#"), ..) => {}
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// One figure with the values of its family's labels.
type Sample<T> = (Vec<Cow<'static, str>>, T);

#[derive(Debug)]
enum Samples {
    Numbers(Vec<Sample<f64>>),
    Counts(Vec<Sample<u64>>),
    Durations(Vec<Sample<Summed>>),
}

/// All figures at one moment.
#[derive(Debug)]
struct Scrape(Vec<(&'static Family, Samples)>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, samples) in &self.0 {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let unit = match family.unit {
                Unit::One => None,
                Unit::Seconds => Some(EncodedUnit::Seconds),
                Unit::Bytes => Some(EncodedUnit::Bytes),
            };
            let help = format!("{}.", family.meaning);
            let mut metric = encoder.encode_descriptor(family.name, &help, unit.as_ref(), kind)?;
            samples.encode(family, &mut metric)?;
        }
        Ok(())
    }
}

impl Samples {
    fn encode(&self, family: &Family, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Samples::Counts(samples) => {
                for (values, count) in samples {
                    with_labels(family, values, metric, |metric| match family.kind {
                        Kind::Counter => metric.encode_counter::<NoLabels, _, u64>(count, None),
                        _ => metric.encode_gauge(count),
                    })?;
                }
            }
            Samples::Numbers(samples) => {
                for (values, number) in samples {
                    with_labels(family, values, metric, |metric| match family.kind {
                        Kind::Counter => metric.encode_counter::<NoLabels, _, f64>(number, None),
                        _ => metric.encode_gauge(number),
                    })?;
                }
            }
            Samples::Durations(samples) => {
                let bounds_ns = BOUNDS.map(|bound| (bound * 1e9) as u64);
                for (values, summed) in samples {
                    let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
                    let buckets: Vec<_> = bounds.zip(summed.grouped(&bounds_ns)).collect();
                    with_labels(family, values, metric, |metric| {
                        let (sum, count) = (summed.sum_seconds(), summed.count());
                        metric.encode_histogram::<NoLabels>(sum, count, &buckets, None)
                    })?;
                }
            }
        }
        Ok(())
    }
}

fn with_labels(
    family: &Family,
    values: &[Cow<'static, str>],
    metric: &mut MetricEncoder<'_>,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let labels: Vec<_> = family.labels.iter().copied().zip(values.iter().map(|v| &**v)).collect();
    // A family without labels may not be given an empty set, which would be written as `{}`.
    match labels.as_slice() {
        [] => encode(metric),
        labels => encode(&mut metric.encode_family(&labels)?),
    }
}

/// Reads one figure.
type Figure<T> = fn(&T) -> u64;
/// Finds one that is counted by the end of a tunnel.
type ByEnd<T> = fn(&T) -> &[Cell; 2];
/// Of exemplars, which are not given.
type NoLabels = [(&'static str, &'static str); 0];

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Scrape {
    fn of(registry: &Registry, process: &Process) -> Scrape {
        let mut scrape = Scrape(Vec::with_capacity(f::ALL.len()));
        scrape.workers(registry);
        scrape.routes(registry);
        scrape.limits(registry);
        scrape.upstreams(registry);
        scrape.process(registry, process);
        scrape
    }

    fn counts(&mut self, family: &'static Family, samples: Vec<Sample<u64>>) {
        self.0.push((family, Samples::Counts(samples)));
    }

    fn count(&mut self, family: &'static Family, count: u64) {
        self.counts(family, vec![(vec![], count)]);
    }

    fn number(&mut self, family: &'static Family, number: f64) {
        self.0.push((family, Samples::Numbers(vec![(vec![], number)])));
    }

    fn durations(&mut self, family: &'static Family, samples: Vec<Sample<Summed>>) {
        self.0.push((family, Samples::Durations(samples)));
    }

    /// What is counted by worker, or for all of them.
    fn workers(&mut self, registry: &Registry) {
        let workers = &registry.workers;
        let by_worker = |figure: Figure<WorkerShard>| {
            let shards = workers.iter().enumerate();
            shards.map(|(worker, shard)| (vec![number(worker)], figure(shard))).collect()
        };
        self.counts(f::CONNECTIONS, by_worker(|w| w.connections.get()));
        self.counts(f::CONNECTIONS_OPEN, by_worker(|w| w.connections_open.get()));
        self.counts(f::CONNECTIONS_SHED, by_worker(|w| w.connections_shed.get()));
        self.counts(f::CONNECTIONS_GIVEN, by_worker(|w| w.connections_given.get()));
        let failures = ProxyFailure::ALL.into_iter().map(|failure| {
            let count = registry.sum(|w| w.proxy_failures[failure as usize].get());
            (vec![Cow::Borrowed(failure.name())], count)
        });
        self.counts(f::PROXY_FAILURES, failures.filter(|(_, count)| *count > 0).collect());
        let kinds = ["full", "resumed"].into_iter().enumerate();
        let kinds = kinds.map(|(at, kind)| {
            (vec![Cow::Borrowed(kind)], registry.sum(|w| w.tls_handshakes[at].get()))
        });
        self.counts(f::TLS_HANDSHAKES, kinds.collect());
        self.tls(registry);
        self.count(f::TLS_FORGOTTEN, registry.sum(|w| w.tls_addresses_forgotten.get()));
        self.count(f::TLS_IN_KERNEL, registry.sum(|w| w.tls_in_kernel.get()));
        self.count(f::TLS_WAITS, registry.sum(|w| w.tls_waits.get()));
        self.count(f::TLS_ALONE, registry.sum(|w| w.tls_alone.get()));
        self.count(f::HTTP2_CONNECTIONS, registry.sum(|w| w.http2_connections.get()));
        self.count(f::HTTP2_STREAMS, registry.sum(|w| w.http2_streams.get()));
        let failures = Http2Failure::ALL.into_iter().map(|failure| {
            let count = registry.sum(|w| w.http2_failures[failure as usize].get());
            (vec![Cow::Borrowed(failure.name())], count)
        });
        self.counts(f::HTTP2_FAILURES, failures.filter(|(_, count)| *count > 0).collect());
        self.count(f::TUNNELS, registry.sum(|w| w.tunnels.get()));
        self.count(f::TUNNELS_OPEN, registry.sum(|w| w.tunnels_open.get()));
        self.tunnels(registry);
        let listeners = &registry.listeners;
        let by_listener = |figure: Figure<ListenerShard>| {
            let one = |(name, shards): &(String, _)| (vec![text_of(name)], sum(shards, figure));
            listeners.iter().map(one).collect()
        };
        self.counts(f::LISTENER_CONNECTIONS, by_listener(|l| l.connections.get()));
        self.counts(f::LISTENER_QUEUE, by_listener(|l| l.accept_queue.get()));
        self.counts(f::REQUESTS, by_worker(|w| w.requests.get()));
        let statuses = (0..STATUSES)
            .map(|at| (vec![number(at + usize::from(STATUS_FIRST))], at))
            .map(|(labels, at)| (labels, registry.sum(|w| w.statuses[at].get())));
        self.counts(f::RESPONSES, statuses.filter(|(_, count)| *count > 0).collect());
        let refusals = reasons().map(|reason| {
            let at = usize::from(reason.number);
            (vec![Cow::Borrowed(reason.token)], registry.sum(|w| w.reasons[at].get()))
        });
        self.counts(f::REFUSALS, refusals.filter(|(_, count)| *count > 0).collect());
        let shadowed = reasons().map(|reason| {
            let at = usize::from(reason.number);
            (vec![Cow::Borrowed(reason.token)], registry.sum(|w| w.shadowed[at].get()))
        });
        self.counts(f::SHADOWED, shadowed.filter(|(_, count)| *count > 0).collect());
        self.count(f::RECEIVED, registry.sum(|w| w.received_bytes.get()));
        self.count(f::SENT, registry.sum(|w| w.sent_bytes.get()));
        self.count(f::SPLICED, registry.sum(|w| w.spliced_bytes.get()));
        self.durations(f::DURATION, vec![(vec![], summed(workers, |w| &w.duration))]);
        self.durations(f::OVERHEAD, vec![(vec![], summed(workers, |w| &w.overhead))]);
    }

    fn tls(&mut self, registry: &Registry) {
        let by_reason = |count: &dyn Fn(usize) -> u64| {
            let failures = TlsFailure::ALL.into_iter();
            let counts = failures
                .map(|failure| (vec![Cow::Borrowed(failure.name())], count(failure as usize)));
            counts.filter(|(_, count)| *count > 0).collect()
        };
        let of_clients = |at: usize| registry.sum(|w| w.tls_failures[at].get());
        self.counts(f::TLS_FAILURES, by_reason(&of_clients));
        let of_endpoints = |at: usize| registry.sum(|w| w.tls_upstream_failures[at].get());
        self.counts(f::TLS_UPSTREAM_FAILURES, by_reason(&of_endpoints));
        let breaks = (0..TLS_SIDES.len()).flat_map(|side| TlsBreak::ALL.map(|why| (side, why)));
        let breaks = breaks.map(|(side, why)| {
            let labels = vec![Cow::Borrowed(TLS_SIDES[side]), Cow::Borrowed(why.name())];
            (labels, registry.sum(|w| w.tls_breaks[side][why as usize].get()))
        });
        self.counts(f::TLS_BREAKS, breaks.filter(|(_, count)| *count > 0).collect());
    }

    fn tunnels(&mut self, registry: &Registry) {
        let ends = TunnelEnd::ALL.into_iter().map(|end| {
            let count = registry.sum(|w| w.tunnel_ends[end as usize].get());
            (vec![Cow::Borrowed(end.name())], count)
        });
        self.counts(f::TUNNEL_ENDS, ends.filter(|(_, count)| *count > 0).collect());
        let figures: [(_, ByEnd<WebSocketCounts>); 3] = [
            (f::WEBSOCKET_FRAMES, |w| &w.frames),
            (f::WEBSOCKET_MESSAGES, |w| &w.messages),
            (f::WEBSOCKET_PAYLOAD, |w| &w.payload_bytes),
        ];
        for (family, figure) in figures {
            let samples = registry.routes.iter().flat_map(|(name, shards)| {
                End::ALL.map(|end| {
                    let count = sum(shards, |r| figure(&r.websockets)[end as usize].get());
                    (vec![text_of(name), Cow::Borrowed(end.name())], count)
                })
            });
            self.counts(family, samples.filter(|(_, count)| *count > 0).collect());
        }
        let closes = End::ALL.into_iter().flat_map(|end| {
            close_codes().enumerate().map(move |(at, code)| {
                let count = registry.sum(|w| w.websockets.closes(end)[at].get());
                (vec![Cow::Borrowed(end.name()), Cow::Borrowed(code)], count)
            })
        });
        self.counts(f::WEBSOCKET_CLOSES, closes.filter(|(_, count)| *count > 0).collect());
        let by_end = |figure: ByEnd<WebSocketShard>| {
            End::ALL
                .map(|end| {
                    let count = registry.sum(|w| figure(&w.websockets)[end as usize].get());
                    (vec![Cow::Borrowed(end.name())], count)
                })
                .into()
        };
        self.counts(f::WEBSOCKET_PINGS, by_end(|w| &w.pings));
        self.counts(f::WEBSOCKET_BROKEN, by_end(|w| &w.broken));
    }

    fn routes(&mut self, registry: &Registry) {
        let families = [f::ROUTE_REQUESTS, f::ROUTE_RECEIVED, f::ROUTE_SENT];
        let routes = &registry.routes;
        self.traffic(families, routes, |route| &route.traffic, true);
        let durations = routes
            .iter()
            .map(|(name, shards)| (vec![text_of(name)], summed(shards, |r| &r.duration)))
            .filter(|(_, durations)| durations.count() > 0);
        self.durations(f::ROUTE_DURATION, durations.collect());
        self.consumers(registry);
    }

    fn upstreams(&mut self, registry: &Registry) {
        let upstreams = &registry.upstreams;
        let passed = upstreams.iter().map(|(name, shards, _)| {
            (vec![text_of(name)], sum(shards, |upstream| upstream.passed.get()))
        });
        self.counts(f::PASSED, passed.filter(|(_, count)| *count > 0).collect());
        let bytes = upstreams.iter().flat_map(|(name, shards, _)| {
            End::ALL.map(|end| {
                let count = sum(shards, |upstream| upstream.passed_bytes[end as usize].get());
                (vec![text_of(name), Cow::Borrowed(end.name())], count)
            })
        });
        self.counts(f::PASSED_BYTES, bytes.filter(|(_, count)| *count > 0).collect());
        let retries = upstreams.iter().map(|(name, shards, _)| {
            (vec![text_of(name)], sum(shards, |upstream| upstream.retries.get()))
        });
        self.counts(f::RETRIES, retries.collect());
        let failures = upstreams.iter().flat_map(|(name, shards, _)| {
            FAILURES.iter().enumerate().map(|(at, reason)| {
                let labels = vec![text_of(name), Cow::Borrowed(reason.token)];
                (labels, sum(shards, |upstream| upstream.failures[at].get()))
            })
        });
        self.counts(f::FAILURES, failures.collect());
        let endpoints: Vec<_> = upstreams
            .iter()
            .flat_map(|(upstream, _, endpoints)| {
                endpoints.iter().map(move |(name, shards)| (upstream, name, shards))
            })
            .collect();
        let requests = endpoints.iter().flat_map(|(upstream, name, shards)| {
            classes(shards, |e| &e.responses).map(|(class, count)| {
                (vec![text_of(upstream), text_of(name), Cow::Borrowed(class)], count)
            })
        });
        self.counts(f::ENDPOINT_REQUESTS, requests.collect());
        let responses = endpoints
            .iter()
            .map(|(upstream, name, shards)| {
                (vec![text_of(upstream), text_of(name)], summed(shards, |e| &e.duration))
            })
            .filter(|(_, durations)| durations.count() > 0);
        self.durations(f::ENDPOINT_RESPONSE, responses.collect());
        let figures: [(_, Figure<EndpointShard>); 6] = [
            (f::ENDPOINT_CONNECTS, |e| e.connects.get()),
            (f::ENDPOINT_CONNECT_FAILURES, |e| e.connect_failures.get()),
            (f::ENDPOINT_REUSED, |e| e.reused.get()),
            (f::ENDPOINT_IN_FLIGHT, |e| e.in_flight.get()),
            (f::ENDPOINT_IDLE, |e| e.idle.get()),
            (f::ENDPOINT_AVOIDED, |e| e.avoided.get()),
        ];
        for (family, figure) in figures {
            let samples = endpoints.iter().map(|(upstream, name, shards)| {
                (vec![text_of(upstream), text_of(name)], sum(shards, figure))
            });
            self.counts(family, samples.collect());
        }
        self.count(f::PANICS, registry.sum(|w| w.panics.get()));
    }

    fn acme(&mut self, names: &[AcmeFigures]) {
        let labels = |of: &AcmeFigures| vec![text_of(&of.name), text_of(&of.authority)];
        let expiry = names.iter().filter_map(|of| Some((labels(of), of.expires_s?)));
        self.0.push((f::ACME_EXPIRY, Samples::Numbers(expiry.collect())));
        let orders = names.iter().flat_map(|of| {
            [("issued", of.issued), ("failed", of.failed)].map(|(outcome, count)| {
                let mut labels = labels(of);
                labels.push(outcome.into());
                (labels, count)
            })
        });
        self.counts(f::ACME_ORDERS, orders.collect());
    }

    fn process(&mut self, registry: &Registry, process: &Process) {
        let lines = process.access_logs.iter().flat_map(|lines| {
            [("written", lines.written), ("dropped", lines.dropped)]
                .map(|(outcome, count)| (vec![text_of(&lines.log), outcome.into()], count))
        });
        self.counts(f::ACCESS_LOG, lines.collect());
        let spans = [("exported", process.spans.exported), ("dropped", process.spans.dropped)];
        let spans = spans.map(|(outcome, count)| (vec![outcome.into()], count));
        self.counts(f::SPANS, spans.into());
        self.jwks(&process.jwks);
        self.redis(&process.redis);
        self.logins(&process.logins);
        self.acme(&process.acme);
        self.consumer_quotas(&process.quotas);
        let workers = || process.workers.iter().enumerate();
        let cpu = workers().map(|(at, worker)| {
            (vec![number(at), number(worker.core as usize)], worker.cpu_seconds)
        });
        self.0.push((f::WORKER_CPU, Samples::Numbers(cpu.collect())));
        let shards = registry.workers.iter().enumerate();
        let generations = shards.map(|(at, shard)| (vec![number(at)], shard.generation.get()));
        self.counts(f::WORKER_GENERATION, generations.collect());
        let mailboxes = workers().map(|(at, worker)| (vec![number(at)], worker.mailbox));
        self.counts(f::WORKER_MAILBOX, mailboxes.collect());
        let rings: [(_, Figure<RingCounts>); 3] = [
            (f::RING_SUBMITTED, |ring| ring.submitted),
            (f::RING_COMPLETED, |ring| ring.completed),
            (f::RING_OVERFLOWED, |ring| ring.overflowed),
        ];
        for (family, figure) in rings {
            let samples = workers()
                .filter_map(|(at, worker)| Some((vec![number(at)], figure(worker.ring.as_ref()?))));
            self.counts(family, samples.collect());
        }
        self.count(f::GENERATION, process.generation);
        let reloads = [("reloaded", process.reloads), ("refused", process.reloads_refused)];
        let reloads = reloads.map(|(outcome, count)| (vec![outcome.into()], count));
        self.counts(f::RELOADS, reloads.into());
        self.number(f::LOADED, process.loaded_s);
        let expiries = process.certificates.iter().map(|(name, at)| (vec![text_of(name)], *at));
        self.0.push((f::CERTIFICATE_EXPIRY, Samples::Numbers(expiries.collect())));
        self.count(f::READY, u64::from(process.is_ready));
        self.counts(f::BUILD, vec![(vec![process.version.into()], 1)]);
        self.count(f::MEMORY, process.resident_bytes);
        self.count(f::DESCRIPTORS, process.descriptors_open);
        self.count(f::DESCRIPTORS_MAX, process.descriptors_max);
        self.number(f::STARTED, process.started_s);
    }
}

fn classes<T>(
    shards: &Shards<T>,
    part: impl Fn(&T) -> &Classes,
) -> impl Iterator<Item = (&'static str, u64)> {
    let count = |at: usize| sum(shards, |shard| part(shard)[at].get());
    let counts: Vec<_> =
        CLASSES.iter().enumerate().map(|(at, class)| (*class, count(at))).collect();
    counts.into_iter().filter(|(_, count)| *count > 0)
}

fn number(n: usize) -> Cow<'static, str> {
    Cow::Owned(n.to_string())
}

fn text_of(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::registry::{Names, UpstreamNames};

    /// A registry in which everything has happened once.
    fn busy() -> (Registry, Process) {
        let mut registry = Registry::new(2);
        let series = registry.adopt(&Names {
            listeners: vec!["public".to_owned()],
            routes: vec!["a \"b\"".to_owned()],
            upstreams: vec![UpstreamNames {
                name: "u".to_owned(),
                endpoints: vec!["10.0.0.1:80".to_owned()],
            }],
            consumers: vec!["c".to_owned()],
            has_more_consumers: false,
            limits: vec!["per-client".to_owned()],
            series_max: 10,
            is_off: false,
        });
        for series in &series {
            let worker = &series.worker;
            worker.requests.count();
            worker.statuses[100].count();
            worker.refused(crate::policy::refusal::ROUTE_NOT_FOUND);
            worker.duration.record(2_000_000);
            worker.overhead.record(20_000);
            series.route(Some(0)).traffic.responses[2].count();
            series.route(Some(0)).duration.record(2_000_000);
            series.route(None).traffic.responses[0].count();
            series.endpoint(0, 0).responses[2].count();
            series.endpoint(0, 0).duration.record(1_000_000);
        }
        let worker = WorkerProcess { ring: Some(RingCounts::default()), ..Default::default() };
        let process = Process {
            version: "1.2.3",
            workers: vec![worker.clone(), worker],
            spans: SpanCounts { exported: 5, dropped: 3 },
            access_logs: vec![LogLines { log: "main".to_owned(), written: 2, dropped: 1 }],
            ..Process::default()
        };
        (registry, process)
    }

    #[test]
    fn every_family_is_in_a_scrape_once_and_in_order() {
        let (registry, process) = busy();
        let text = text(&registry, &process, Format::OpenMetrics);
        let described: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let expected = f::ALL.iter().map(|family| {
            let name = family.full_name();
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            format!("{} {kind}", name.strip_suffix("_total").unwrap_or(&name))
        });
        assert_eq!(described, expected.collect::<Vec<_>>());
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn prometheus_text_has_what_its_reader_knows() {
        let (registry, process) = busy();
        let text = text(&registry, &process, Format::Prometheus);
        for expected in [
            "# TYPE ringway_requests_total counter\n",
            "ringway_requests_total{worker=\"0\"} 1\n",
            "ringway_responses_total{status=\"200\"} 2\n",
            "ringway_refusals_total{reason=\"route.not_found\"} 2\n",
            "ringway_route_requests_total{route=\"a \\\"b\\\"\",class=\"2xx\"} 2\n",
            "ringway_route_requests_total{route=\"\",class=\"none\"} 2\n",
            "ringway_request_duration_seconds_bucket{le=\"0.001\"} 0\n",
            "ringway_request_duration_seconds_bucket{le=\"0.0025\"} 2\n",
            "ringway_request_duration_seconds_bucket{le=\"+Inf\"} 2\n",
            "ringway_request_duration_seconds_count 2\n",
            "ringway_request_duration_seconds_sum 0.004\n",
            "ringway_endpoint_in_flight{upstream=\"u\",endpoint=\"10.0.0.1:80\"} 0\n",
            "ringway_access_log_lines_total{log=\"main\",outcome=\"dropped\"} 1\n",
            "ringway_spans_total{outcome=\"exported\"} 5\n",
            "ringway_spans_total{outcome=\"dropped\"} 3\n",
            "ringway_build_info{version=\"1.2.3\"} 1\n",
        ] {
            assert!(text.contains(expected), "{expected}\nis not in\n{text}");
        }
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"));
        for line in text.lines().filter(|line| line.starts_with("# HELP")) {
            assert!(line.len() > "# HELP ringway_x ".len(), "{line}");
        }
    }
}
