//! `ringway status`.

use std::{fmt::Write, process::ExitCode};

use clap::Args;

use super::{
    Where, failed,
    table::{Align, bytes, count, duration, span, table},
};
use crate::control::{
    admin::status::{self as shown, Latency, Responses},
    cli::print,
    history::Became,
};

pub const HELP: &str = "\
Totals are since the gateway's start; latencies are of the last 10 s or so (`--json` says
how long exactly). With `--admin HOST:PORT` it asks the read-only address.

Examples:
  ringway status
  ringway status --json | jq .totals.requests
  ringway status --admin 127.0.0.1:9180";

/// Routes shown, those with the most requests.
const ROUTES_SHOWN: usize = 10;
/// Consumers shown, those with the most requests.
const CONSUMERS_SHOWN: usize = 10;
/// Refusals shown, the most frequent.
const REFUSALS_SHOWN: usize = 5;

#[derive(Debug, Args)]
pub struct Status {
    /// Everything, as the admin interface gives it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Where,
}

impl Status {
    pub fn run(&self) -> ExitCode {
        let answer = match self.gateway.call("GET", "/status", None) {
            Ok(answer) if answer.is_success() => answer,
            Ok(answer) => return failed(&answer.problem()),
            Err(e) => return failed(&e),
        };
        if self.json {
            return print(&format!("{}\n", answer.text()));
        }
        match answer.json() {
            Ok(status) => print(&text(&status)),
            Err(e) => failed(&e),
        }
    }
}

fn text(status: &shown::Status) -> String {
    let mut out = String::new();
    let up = status.now.saturating_sub(status.started);
    let _ = writeln!(
        out,
        "ringway {}, pid {}: {}, up {}\n",
        status.version,
        status.pid,
        status.state,
        span(up)
    );
    overview(status, &mut out);
    workers(status, &mut out);
    listeners(status, &mut out);
    routes(status, &mut out);
    consumers(status, &mut out);
    upstreams(status, &mut out);
    out
}

fn overview(status: &shown::Status, out: &mut String) {
    let mut line = |what: &str, value: String| {
        let _ = writeln!(out, "{what:<14} {value}");
    };
    let configuration = &status.configuration;
    let ago = |at: u64| span(status.now.saturating_sub(at));
    line(
        "configuration",
        format!(
            "{}, generation {}, loaded {} ago",
            configuration.file.as_deref().unwrap_or("not from a file"),
            status.generation,
            ago(configuration.loaded)
        ),
    );
    if let Some(last) = configuration.history.last().filter(|last| last.outcome == Became::Refused)
    {
        let first = last.detail.lines().next().unwrap_or_default();
        line("", format!("a reload was refused {} ago: {first}", ago(last.at)));
    }
    let totals = &status.totals;
    line("requests", format!("{} ({})", count(totals.requests), classes(&totals.responses)));
    line("latency", latency(&status.latency));
    line("own share", latency(&status.overhead));
    line(
        "connections",
        format!(
            "{} open ({} tunnels), {} accepted, {} shed",
            count(totals.connections_open),
            count(totals.tunnels_open),
            count(totals.connections),
            count(totals.connections_shed)
        ),
    );
    line(
        "bytes",
        format!("{} received, {} sent", bytes(totals.received_bytes), bytes(totals.sent_bytes)),
    );
    if !totals.refusals.is_empty() {
        let mut refusals: Vec<_> = totals.refusals.iter().collect();
        refusals.sort_by(|a, b| b.1.cmp(a.1));
        let shown = refusals.iter().take(REFUSALS_SHOWN);
        let shown: Vec<_> = shown.map(|(reason, n)| format!("{reason} {}", count(**n))).collect();
        line("refusals", shown.join(", "));
    }
    if totals.panics > 0 {
        line("panics", format!("{}: please report them", count(totals.panics)));
    }
    for log in &status.access_logs {
        let (written, dropped) = (count(log.written), count(log.dropped));
        line("access log", format!("{}: {written} written, {dropped} dropped", log.name));
    }
    if let Some(spans) = &status.spans {
        let (exported, dropped) = (count(spans.exported), count(spans.dropped));
        line("spans", format!("{exported} exported, {dropped} dropped"));
    }
    status.redis.iter().for_each(|server| line("redis", redis(server, status.now)));
    status.acme.iter().for_each(|name| line("certificate", acme(name, status.now)));
    line(
        "process",
        format!(
            "{} resident, {} of {} descriptors",
            bytes(status.memory.resident_bytes),
            count(status.descriptors.open),
            count(status.descriptors.max)
        ),
    );
}

fn redis(server: &shown::RedisStatus, now: u64) -> String {
    let shown::RedisStatus { name, address, up, since, error } = server;
    let since = since.map_or(String::new(), |at| format!(" for {}", span(now.saturating_sub(at))));
    match (up, error) {
        (true, _) => format!("{name}: {address} answers{since}"),
        (false, Some(why)) => format!("{name}: {address} not reached{since}: {why}"),
        (false, None) => format!("{name}: {address} not reached yet"),
    }
}

fn acme(name: &shown::AcmeStatus, now: u64) -> String {
    let until = |at: u64| match at.checked_sub(now) {
        Some(left) => format!("in {}", span(left)),
        None => format!("{} ago", span(now - at)),
    };
    let expires = match name.expires {
        Some(at) if at < now => format!("expired {}", until(at)),
        Some(at) => format!("expires {}", until(at)),
        None => "none yet".to_owned(),
    };
    let next = match name.next {
        Some(at) => format!("next order {}", until(at)),
        None => "another process renews it".to_owned(),
    };
    let error = name.error.as_ref().map(|error| format!("; {error}")).unwrap_or_default();
    format!("{} ({}): {expires}, {next}{error}", name.name, name.authority)
}

fn latency(latency: &Latency) -> String {
    if latency.count == 0 {
        return format!("no requests in the last {:.0} s", latency.seconds);
    }
    format!(
        "p50 {}, p90 {}, p99 {}, p99.9 {}, max {} ({:.0} requests/s in the last {:.0} s)",
        duration(latency.p50),
        duration(latency.p90),
        duration(latency.p99),
        duration(latency.p999),
        duration(latency.max),
        latency.count as f64 / latency.seconds.max(0.001),
        latency.seconds
    )
}

/// `2xx 17, 4xx 1`: those there were.
fn classes(responses: &Responses) -> String {
    let there = responses.iter().filter(|(_, n)| **n > 0);
    let shown: Vec<_> = there.map(|(class, n)| format!("{class} {}", count(*n))).collect();
    if shown.is_empty() { "no responses".to_owned() } else { shown.join(", ") }
}

use Align::{Left, Right};

fn workers(status: &shown::Status, out: &mut String) {
    let columns = [
        ("worker", Right),
        ("core", Right),
        ("state", Left),
        ("generation", Right),
        ("io", Left),
        ("connections", Right),
        ("requests", Right),
        ("cpu", Right),
    ];
    let row = |worker: &shown::Worker| {
        vec![
            worker.worker.to_string(),
            worker.core.to_string(),
            worker.state.clone(),
            worker.generation.to_string(),
            worker.io.clone(),
            count(worker.connections_open),
            count(worker.requests),
            duration(worker.cpu_seconds),
        ]
    };
    let rows: Vec<_> = status.workers.iter().map(row).collect();
    let _ = write!(out, "\n{}", table(&columns, &rows));
}

fn listeners(status: &shown::Status, out: &mut String) {
    let columns = [("listener", Left), ("bind", Left), ("accepted", Right), ("tls", Left)];
    let row = |listener: &shown::Listener| {
        let tls =
            listener.tls.as_ref().map_or_else(|| "-".to_owned(), |tls| of_tls(tls, status.now));
        vec![listener.name.clone(), listener.bind.clone(), count(listener.connections), tls]
    };
    let rows: Vec<_> = status.listeners.iter().map(row).collect();
    let _ = write!(out, "\n{}", table(&columns, &rows));
}

fn of_tls(tls: &shown::Tls, now: u64) -> String {
    let certificates = of_certificates(tls, now);
    match tls.kernel.as_deref() {
        None => certificates,
        Some("used") => format!("{certificates}; records by the kernel"),
        Some(lack) => format!("{certificates}; not by the kernel: {lack}"),
    }
}

fn of_certificates(tls: &shown::Tls, now: u64) -> String {
    let certificates = match tls.certificates {
        1 => "1 certificate".to_owned(),
        n => format!("{} certificates", count(n as u64)),
    };
    let Some(expires) = tls.expires else { return certificates };
    let left = u64::try_from(expires).unwrap_or(0).checked_sub(now);
    match (left, tls.certificates) {
        (None, 1) => format!("{certificates}, expired"),
        (None, _) => format!("{certificates}, one has expired"),
        (Some(left), 1) => format!("{certificates}, expires in {}", span(left)),
        (Some(left), _) => format!("{certificates}, the first expires in {}", span(left)),
    }
}

fn routes(status: &shown::Status, out: &mut String) {
    let columns = [
        ("route", Left),
        ("action", Left),
        ("requests", Right),
        ("responses", Left),
        ("p50", Right),
        ("p99", Right),
    ];
    let mut routes: Vec<_> = status.routes.iter().collect();
    // Stable, so that routes without requests stay in the order of the file.
    routes.sort_by_key(|route| std::cmp::Reverse(route.requests));
    let row = |route: &&shown::Route| {
        let name = if route.name.is_empty() { "(no route)" } else { &route.name };
        let action = match &route.upstream {
            Some(upstream) => format!("{} to {upstream}", route.action),
            None => route.action.clone(),
        };
        vec![
            name.to_owned(),
            action,
            count(route.requests),
            classes(&route.responses),
            duration(route.latency.p50),
            duration(route.latency.p99),
        ]
    };
    let rows: Vec<_> = routes.iter().take(ROUTES_SHOWN).map(row).collect();
    let _ = write!(out, "\n{}", table(&columns, &rows));
    if routes.len() > ROUTES_SHOWN {
        let _ = writeln!(out, "and {} more: --json", routes.len() - ROUTES_SHOWN);
    }
}

fn consumers(status: &shown::Status, out: &mut String) {
    if status.consumers.is_empty() {
        return;
    }
    let columns = [
        ("consumer", Left),
        ("requests", Right),
        ("responses", Left),
        ("received", Right),
        ("sent", Right),
    ];
    let mut consumers: Vec<_> = status.consumers.iter().collect();
    consumers.sort_by_key(|consumer| std::cmp::Reverse(consumer.requests));
    let row = |consumer: &&shown::Consumer| {
        vec![
            consumer.name.clone(),
            count(consumer.requests),
            classes(&consumer.responses),
            bytes(consumer.received_bytes),
            bytes(consumer.sent_bytes),
        ]
    };
    let rows: Vec<_> = consumers.iter().take(CONSUMERS_SHOWN).map(row).collect();
    let _ = write!(out, "\n{}", table(&columns, &rows));
    if consumers.len() > CONSUMERS_SHOWN {
        let _ = writeln!(out, "and {} more: --json", consumers.len() - CONSUMERS_SHOWN);
    }
}

fn upstreams(status: &shown::Status, out: &mut String) {
    let columns = [
        ("endpoint", Left),
        ("state", Left),
        ("weight", Right),
        ("in flight", Right),
        ("idle", Right),
        ("requests", Right),
        ("failures", Right),
        ("reused", Right),
        ("p50", Right),
        ("p99", Right),
    ];
    for upstream in &status.upstreams {
        let _ = writeln!(
            out,
            "\nupstream {} ({}): {} requests, {} retries",
            upstream.name,
            upstream.balance.replace('_', " "),
            count(upstream.requests),
            count(upstream.retries)
        );
        let row = |endpoint: &shown::Endpoint| {
            let avoided = if endpoint.avoided { ", avoided" } else { "" };
            vec![
                endpoint.name.clone(),
                format!("{}{avoided}", endpoint.state),
                endpoint.weight.to_string(),
                count(endpoint.in_flight),
                count(endpoint.idle),
                count(endpoint.requests),
                count(endpoint.failures),
                count(endpoint.reused),
                duration(endpoint.latency.p50),
                duration(endpoint.latency.p99),
            ]
        };
        let rows: Vec<_> = upstream.endpoints.iter().map(row).collect();
        out.push_str(&table(&columns, &rows));
    }
}
