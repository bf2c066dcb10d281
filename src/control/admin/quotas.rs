//! `GET /quotas`, and `GET`, `PUT` and `DELETE /quotas/NAME?key=VALUE`: what was used of quotas,
//! and to say that it is another amount.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, RawQuery, State as Extract, rejection::BytesRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};

use super::{Ask, MAIN_MAX, Problem, State, ask};
use crate::{
    config::snapshot::RateLimit,
    control::{history::unix_now, view::Shared},
    policy::limit::{Calendar, NamedKey, named_key},
    worker::rate_limits::quota::Wish,
};

/// Every quota.
#[derive(Serialize)]
pub struct Quotas {
    quotas: Vec<Quota>,
}

#[derive(Serialize)]
struct Quota {
    name: String,
    amount: u32,
    per: &'static str,
    /// What it counts by, as configured.
    key: Vec<String>,
    /// When its period began and ends: Unix time in seconds.
    begin: u64,
    end: u64,
    /// Keys that have used something in this period, and how much all of them did.
    keys: usize,
    used: u64,
}

/// One key's.
#[derive(Serialize)]
pub struct OneKey {
    quota: String,
    key: Vec<String>,
    amount: u32,
    /// What is on lease to workers counts as used.
    used: u32,
    left: u32,
    begin: u64,
    end: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    used: u32,
}

pub async fn list(Extract(desk): State) -> Json<Quotas> {
    desk.ledger.collect(&desk).await;
    let (view, seeds) = (desk.view(), desk.ledger.seeds());
    let quotas = view.snapshot.rate_limits.iter().filter_map(|rule| {
        let calendar = rule.quota?;
        let period = calendar.period(unix_now());
        let (keys, used) = desk.ledger.total(rule.quota_number(seeds), period);
        Some(Quota {
            name: rule.name.clone(),
            amount: rule.amount(),
            per: calendar.per.word(),
            key: rule.key.iter().map(ToString::to_string).collect(),
            begin: calendar.begin(period),
            end: calendar.end(period),
            keys,
            used,
        })
    });
    Json(Quotas { quotas: quotas.collect() })
}

pub async fn get(
    Extract(desk): State,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<OneKey>, Problem> {
    desk.ledger.collect(&desk).await;
    let found = Found::find(&desk, &name, query.as_deref())?;
    Ok(Json(found.told(&desk)))
}

/// From now on a key has used so much in this period, `{"used": 0..4000000000}`.
pub async fn put(
    desk: State,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<OneKey>, Problem> {
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let wanted: Wanted = serde_json::from_slice(&body)
        .map_err(|e| Problem::bad(format!("{e}; write {{\"used\": 0}}")))?;
    set(&desk, &name, query.as_deref(), wanted.used).await
}

/// It has used nothing.
pub async fn delete(
    desk: State,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<OneKey>, Problem> {
    set(&desk, &name, query.as_deref(), 0).await
}

async fn set(
    Extract(desk): &State,
    name: &str,
    query: Option<&str>,
    used: u32,
) -> Result<Json<OneKey>, Problem> {
    let found = Found::find(desk, name, query)?;
    let wish = Wish::Set { quota: found.number, key: found.key, used };
    let granted = ask(desk, MAIN_MAX, |reply| Ask::Quota(wish, reply)).await?;
    let done = granted.map_err(|why| Problem::new(StatusCode::CONFLICT, why))?;
    match tokio::time::timeout(MAIN_MAX, done).await {
        Ok(Ok(1)) => {}
        _ => {
            let detail = "the worker that counts this key has not taken it up yet: one that is \
                          stuck does when it goes on; see GET /status for its state";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
    }
    tracing::info!(quota = name, used, "what was used of a quota was set");
    desk.ledger.collect(desk).await;
    Ok(Json(found.told(desk)))
}

/// A key of a quota.
struct Found {
    rule: RateLimit,
    calendar: Calendar,
    number: u64,
    values: Vec<String>,
    key: u64,
}

impl Found {
    fn find(desk: &Shared, name: &str, query: Option<&str>) -> Result<Found, Problem> {
        let view = desk.view();
        let quotas = || view.snapshot.rate_limits.iter().filter(|rule| rule.quota.is_some());
        let Some(rule) = quotas().find(|rule| rule.name == name) else {
            let known: Vec<&str> = quotas().take(20).map(|rule| rule.name.as_str()).collect();
            let detail = format!("no quota `{name}`; there are {}", known.join(", "));
            return Err(Problem::new(StatusCode::NOT_FOUND, detail));
        };
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let mut values = Vec::new();
        for (name, value) in pairs {
            if name != "key" {
                return Err(Problem::bad(format!("no parameter `{name}`; write ?key=VALUE")));
            }
            values.push(value.into_owned());
        }
        let parts: Vec<String> = rule.key.iter().map(ToString::to_string).collect();
        if values.len() != parts.len() {
            let detail = format!(
                "the quota `{name}` counts by {}: give {} of them, in this order",
                parts.join(", "),
                if parts.len() == 1 { "one value".to_owned() } else { parts.len().to_string() }
            );
            return Err(Problem::bad(detail));
        }
        let (seeds, calendar) = (desk.ledger.seeds(), rule.quota.unwrap_or_default());
        let number = rule.quota_number(seeds);
        let named: NamedKey = named_key(seeds, number, &rule.key, &values);
        let key = named.map_err(|value| {
            Problem::bad(format!("`{value}` is no address; write one such as 192.0.2.1"))
        })?;
        Ok(Found { rule: rule.clone(), calendar, number, values, key })
    }

    fn told(self, desk: &Shared) -> OneKey {
        let period = self.calendar.period(unix_now());
        let known = desk.ledger.used(self.number, self.key);
        let used = known.filter(|(own, _)| *own >= period).map_or(0, |(_, used)| used);
        let amount = self.rule.amount();
        OneKey {
            quota: self.rule.name,
            key: self.values,
            amount,
            used,
            left: amount.saturating_sub(used),
            begin: self.calendar.begin(period),
            end: self.calendar.end(period),
        }
    }
}

/// What consumers have used of quotas that count by consumer alone: consumer, quota, used, left.
/// Of those that have figures of their own, and have used something.
pub fn of_consumers(desk: &Shared) -> Vec<(String, String, u32, u32)> {
    let (view, seeds) = (desk.view(), desk.ledger.seeds());
    let names: Vec<String> = {
        let registry = desk.registry();
        registry.consumers.iter().map(|(name, _)| name.clone()).collect()
    };
    let mut all = Vec::new();
    for rule in &view.snapshot.rate_limits {
        let Some(calendar) = rule.quota.filter(|_| rule.is_by_consumer()) else { continue };
        let (number, period) = (rule.quota_number(seeds), calendar.period(unix_now()));
        for name in &names {
            let values = std::slice::from_ref(name);
            let Ok(key) = named_key(seeds, number, &rule.key, values) else { continue };
            let known = desk.ledger.used(number, key).filter(|(own, _)| *own >= period);
            if let Some((_, used)) = known.filter(|(_, used)| *used > 0) {
                let left = rule.amount().saturating_sub(used);
                all.push((name.clone(), rule.name.clone(), used, left));
            }
        }
    }
    all
}
