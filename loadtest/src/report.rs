//! The report: JSON for scripts, a page of text for people.
//!
//! Latency counts from when a request was due (open loop) or sent (closed loop) until its response
//! was complete. A closed loop sends nothing while it waits, so a stall of the target delays few
//! requests and its percentiles cannot show it; the report says so and gives, beside them,
//! percentiles corrected by the requests that would have been sent meanwhile.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde_json::{Value, json};

use crate::collect::Collected;
use crate::load::{Pace, Plan, Used};
use crate::tally::{Failure, Tally};

/// Corrections add at most this many values per measured one, which bounds their cost.
const CORRECTIONS_MAX: u64 = 10_000;

/// What the report is made of.
pub struct Outcome {
    /// All threads' counts.
    pub tally: Tally,
    /// Merged intervals.
    pub collected: Collected,
    /// Per thread.
    pub used: Vec<Used>,
    /// Connections open at the end.
    pub open: usize,
    /// Requests that the embedded origin answered.
    pub served: Option<u64>,
    /// Which driver sent the requests.
    pub driver: &'static str,
}

/// Percentiles, maximum and mean in microseconds.
pub fn percentiles_us(latency_ns: &Histogram<u64>) -> Value {
    let us = |q: f64| latency_ns.value_at_quantile(q) as f64 / 1e3;
    json!({
        "p50": us(0.5), "p90": us(0.9), "p99": us(0.99), "p999": us(0.999), "p9999": us(0.9999),
        "min": latency_ns.min() as f64 / 1e3,
        "max": latency_ns.max() as f64 / 1e3,
        "mean": latency_ns.mean() / 1e3,
    })
}

/// The histogram as HDR libraries exchange it: V2, compressed, in base64. Values are nanoseconds.
pub fn hdr_base64(latency_ns: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(latency_ns, &mut bytes)
        .expect("invariant: a vector takes every write, the histogram is within bounds");
    STANDARD.encode(bytes)
}

/// What a closed loop would have measured had it gone on sending: each latency above what is
/// usual between two requests of a connection stands for the requests not sent meanwhile.
/// Returns that expected interval (the median latency plus the mean pause, at least a
/// ten-thousandth of the maximum) in nanoseconds, and the corrected histogram.
pub fn corrected(latency_ns: &Histogram<u64>, think_ns: u64) -> (u64, Histogram<u64>) {
    let usual = latency_ns.value_at_quantile(0.5) + think_ns;
    let interval = usual.max(latency_ns.max() / CORRECTIONS_MAX).max(1);
    (interval, latency_ns.clone_correct(interval))
}

/// The whole report as JSON.
pub fn json(plan: &Plan, outcome: &Outcome) -> Value {
    let Outcome { tally, collected, used, .. } = outcome;
    let window_ns = used.iter().map(|u| u.window_ns).max().unwrap_or(0).max(1);
    let busy_ns: u64 = used.iter().map(|u| u.busy_ns).sum();
    let shares = used.iter().map(|u| u.busy_ns as f64 / u.window_ns.max(1) as f64);
    let shares: Vec<f64> = shares.collect();
    let mut report = json!({
        "driver": outcome.driver,
        "threads": used.len(),
        "window_ns": window_ns,
        "own_cpu_us_per_request": busy_ns as f64 / 1e3 / tally.succeeded.max(1) as f64,
        "own_busy_share": shares.iter().copied().fold(0.0, f64::max),
        "own_busy_shares": shares,
        "watched": used.first().map_or(&[][..], |u| &u.watched),
        "connections_open": outcome.open,
        "origin_served": outcome.served,
        "tls": plan.tls.as_ref().map(|tls| json!({
            "full": tally.tls_full, "resumed": tally.tls_resumed, "resume": tls.resume,
        })),
        "load": load_json(tally, collected, window_ns),
        "intervals": collected.intervals,
    });
    match &plan.pace {
        Pace::Closed => {
            report["loop"] = json!("closed");
            let thinks =
                plan.requests.order.iter().map(|i| plan.requests.all[*i as usize].think_ns);
            let think_ns = thinks.sum::<u64>() / plan.requests.order.len() as u64;
            let (interval, histogram) = corrected(&collected.latency_ns, think_ns);
            report["load"]["expected_interval_us"] = json!(interval as f64 / 1e3);
            report["load"]["latency_corrected_us"] = percentiles_us(&histogram);
        }
        Pace::Open(schedule) => {
            report["loop"] = json!("open");
            report["schedule"] = json!(schedule.to_string());
            report["steps"] = json!(collected.steps);
            report["backlog"] = json!({"max": collected.backlog_max, "unsent": tally.unsent});
            report["load"]["send_lag_us"] = percentiles_us(&tally.lag_ns);
        }
    }
    report
}

fn load_json(tally: &Tally, collected: &Collected, window_ns: u64) -> Value {
    let failures: BTreeMap<&str, u64> =
        Failure::ALL.iter().map(|f| (f.name(), tally.failures[*f as usize])).collect();
    let statuses: BTreeMap<String, u64> =
        tally.statuses.iter().map(|(status, n)| (status.to_string(), *n)).collect();
    let per_s = |n: u64| n as f64 * 1e9 / window_ns as f64;
    json!({
        "window_s": window_ns as f64 / 1e9,
        "started": tally.started,
        "succeeded": tally.succeeded,
        "late": tally.late,
        "lost": tally.lost(),
        "idle_closed": tally.idle_closed,
        "failures": failures,
        "first_failures": tally.notes,
        "wrong_statuses": statuses,
        "requests_per_s": per_s(tally.succeeded),
        "body_bytes_per_s": per_s(tally.body_bytes),
        "latency_us": percentiles_us(&collected.latency_ns),
        "latency_hdr_v2_base64": hdr_base64(&collected.latency_ns),
        "over_100ms": collected.latency_ns.len() - collected.latency_ns.count_between(0, 100_000_000),
    })
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

/// The report as a page of text.
pub fn text(report: &Value) -> String {
    let load = &report["load"];
    let threads = number(&report["threads"]);
    let mut lines = vec![
        format!(
            "{:.0} requests/s over {:.2} s, {:.1} MB/s of bodies ({} driver, {threads} thread{})",
            number(&load["requests_per_s"]),
            number(&load["window_s"]),
            number(&load["body_bytes_per_s"]) / 1e6,
            report["driver"].as_str().unwrap_or(""),
            if threads > 1.0 { "s" } else { "" },
        ),
        format!(
            "{} right, {} late, {} lost, {} kept connections closed by the target while idle",
            load["succeeded"], load["late"], load["lost"], load["idle_closed"]
        ),
    ];
    lines.extend(failures_text(load));
    lines.push(latency_text("latency", &load["latency_us"]));
    if report["loop"] == "closed" {
        lines.push(latency_text("corrected", &load["latency_corrected_us"]));
        lines.push(
            "  closed loop: requests not sent while waiting are not in the percentiles; the \
             corrected line\n  adds them as one per median latency of waiting. --rate measures \
             them."
                .to_owned(),
        );
    } else {
        lines.extend(open_text(report));
    }
    if let Some(tls) = report["tls"].as_object() {
        lines.push(format!("TLS handshakes: {} full, {} resumed", tls["full"], tls["resumed"]));
    }
    let busy = number(&report["own_busy_share"]) * 100.0;
    lines.push(format!(
        "generator: {:.2} us of CPU per request, its busiest thread {busy:.0} % busy{}",
        number(&report["own_cpu_us_per_request"]),
        if busy > 95.0 { ": it may be the limit; add --threads" } else { "" },
    ));
    lines.join("\n")
}

fn failures_text(load: &Value) -> Vec<String> {
    let failures = load["failures"].as_object().into_iter().flatten();
    failures
        .filter(|(_, n)| n.as_u64() != Some(0))
        .map(|(kind, n)| {
            let first = load["first_failures"][kind].as_str().unwrap_or("");
            format!("  failed: {kind} {n} (first: {first})")
        })
        .collect()
}

fn latency_text(name: &str, latency: &Value) -> String {
    let ms = |key: &str| number(&latency[key]) / 1e3;
    format!(
        "{name}, ms: p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  p99.99 {:.3}  max {:.3}  \
         mean {:.3}",
        ms("p50"),
        ms("p90"),
        ms("p99"),
        ms("p999"),
        ms("p9999"),
        ms("max"),
        ms("mean")
    )
}

fn open_text(report: &Value) -> Vec<String> {
    let backlog = &report["backlog"];
    let mut lines = vec![format!(
        "open loop, {}: latency counts from when a request was due; at most {} were due and unsent",
        report["schedule"].as_str().unwrap_or(""),
        backlog["max"]
    )];
    for step in report["steps"].as_array().into_iter().flatten() {
        let name = format!("  {:.0}/s", number(&step["rate"]));
        lines.push(format!(
            "{}, {} right, {} failed",
            latency_text(&name, &step["latency_us"]),
            step["succeeded"],
            step["failed"]
        ));
    }
    if backlog["unsent"].as_u64() != Some(0) {
        lines.push(format!(
            "  {} requests were due and never sent: the target or the number of connections cannot \
             keep\n  this rate, and the percentiles are too low",
            backlog["unsent"]
        ));
    }
    let lag = &report["load"]["send_lag_us"];
    lines.push(format!(
        "  the generator itself sent up to {:.0} us late (p99 {:.0} us)",
        number(&lag["max"]),
        number(&lag["p99"])
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::histogram;

    /// One connection at 1 ms per request meets one stall of 1 s: as an open loop it would have
    /// met it with a thousand requests.
    #[test]
    fn correction_adds_what_was_not_sent() {
        let mut latency = histogram();
        latency.record_n(1_000_000, 9000).unwrap();
        latency.record(1_000_000_000).unwrap();
        assert!(latency.value_at_quantile(0.999) < 1_100_000, "the stall does not show");
        let (interval, corrected) = corrected(&latency, 0);
        assert!((999_000..1_001_000).contains(&interval), "{interval}");
        assert!((9990..10_010).contains(&corrected.len()), "{}", corrected.len());
        let p95 = corrected.value_at_quantile(0.95);
        assert!((450_000_000..550_000_000).contains(&p95), "{p95}");
    }

    #[test]
    fn correction_is_bounded() {
        let mut latency = histogram();
        latency.record_n(1, 10).unwrap();
        latency.record(3_600_000_000_000).unwrap();
        let (interval, corrected) = corrected(&latency, 0);
        assert!(corrected.len() < 10_100, "{interval} {}", corrected.len());
        assert_eq!(super::corrected(&histogram(), 0).1.len(), 0);
    }
}
