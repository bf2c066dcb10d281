//! `GET /metrics`: every figure, for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::{
    extract::State as Extract,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::{State, quotas};
use crate::{
    config::snapshot::{LoginWay, Provider, Redis},
    control::{
        acme::{Key, Line, unix},
        jwks,
        logs::Total,
        oidc, process,
        view::{ListenerView, Shared, View},
    },
    telemetry::metrics::expose::{
        self, AcmeFigures, Format, JwksFigures, LogLines, LoginFigures, Process, RedisFigures,
        WorkerProcess,
    },
};

/// As Prometheus text, or as OpenMetrics where the Accept field names it.
pub async fn get(Extract(desk): State, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    desk.ledger.collect(&desk).await;
    let process = of_process(&desk, &desk.view());
    let text = expose::text(&desk.registry(), &process, format);
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}

fn lines(total: Total) -> LogLines {
    LogLines { log: total.name, written: total.written, dropped: total.dropped }
}

fn acme(((name, authority), line): (Key, Line)) -> AcmeFigures {
    let expires_s = line.expires.map(|at| unix(at) as f64);
    AcmeFigures { name, authority, expires_s, issued: line.issued, failed: line.failed }
}

fn keys(provider: &Provider) -> JwksFigures {
    let cell = &provider.cell;
    let (failed, fetched_s) = (cell.failed(), cell.fetched_s());
    JwksFigures {
        way: provider.name.clone(),
        fetched: cell.ended().saturating_sub(failed),
        failed,
        fetched_s: (fetched_s > 0).then_some(fetched_s as f64),
    }
}

fn server(redis: &Redis) -> RedisFigures {
    let figures = &redis.link.figures;
    let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    RedisFigures {
        name: redis.name.clone(),
        is_up: redis.link.turn().is_some(),
        answered: get(&figures.orders),
        refused: get(&figures.refused),
        crowded: get(&figures.crowded),
        batches: get(&figures.batches),
        answers_s: get(&figures.micros) as f64 / 1e6,
        failures: get(&figures.failures),
    }
}

fn logins(way: &LoginWay) -> LoginFigures {
    LoginFigures { way: way.rule.name.clone(), requests: way.counter.counts().collect() }
}

fn expiry(listener: &ListenerView) -> Option<(String, f64)> {
    let rule = &listener.rule;
    Some((rule.name.clone(), rule.tls.as_ref()?.there().1? as f64))
}

fn of_process(shared: &Shared, view: &View) -> Process {
    let (descriptors_open, descriptors_max) = process::descriptors();
    let (reloads, reloads_refused) = view.history.counts();
    let tids: Vec<u64> = shared.registry().workers.iter().map(|shard| shard.tid.get()).collect();
    let workers = view.workers.iter().zip(tids).map(|(worker, tid)| WorkerProcess {
        core: worker.core,
        cpu_seconds: process::cpu_seconds(tid),
        mailbox: worker.waiting() as u64,
        ring: worker.ring.as_ref().map(|ring| ring.counts()),
    });
    Process {
        version: env!("CARGO_PKG_VERSION"),
        started_s: view.started as f64,
        resident_bytes: process::resident_bytes(),
        descriptors_open,
        descriptors_max,
        workers: workers.collect(),
        generation: view.snapshot.generation,
        loaded_s: view.history.loaded_at() as f64,
        reloads,
        reloads_refused,
        is_ready: shared.readiness.look().is_ready(),
        certificates: view.listeners.iter().filter_map(expiry).collect(),
        access_logs: shared.logs.totals().into_iter().map(lines).collect(),
        spans: shared.spans.counts(),
        jwks: jwks::providers(&view.snapshot).map(|provider| keys(provider)).collect(),
        redis: view.snapshot.redis.iter().map(server).collect(),
        logins: oidc::ways(&view.snapshot).map(logins).collect(),
        acme: shared.acme.all().into_iter().map(acme).collect(),
        quotas: quotas::of_consumers(shared),
    }
}
