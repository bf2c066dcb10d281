//! `POST /jwt/NAME/keys`: fetch the keys of a token issuer now, because one was withdrawn.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State as Extract},
    http::StatusCode,
};
use serde::Serialize;

use super::{Problem, State};
use crate::{config::decode::list, config::snapshot::Provider, control::jwks};

/// How long a fetch may have to wait for its turn after the one before (`refetch_after`).
const TURN_MAX_MS: u64 = 10_000;
/// How often to look whether it is over.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Serialize)]
pub struct Fetched {
    way: String,
    /// Keys in force.
    keys: usize,
    /// They are not those from before.
    changed: bool,
}

/// Answers when the keys are in force.
pub async fn post(
    Extract(desk): State,
    Path(name): Path<String>,
) -> Result<Json<Fetched>, Problem> {
    let view = desk.view();
    let Some(provider) = jwks::providers(&view.snapshot).find(|own| own.name == name) else {
        let known: Vec<&str> = jwks::providers(&view.snapshot).map(|own| &*own.name).collect();
        let there = match known.is_empty() {
            true => "no section fetches keys".to_owned(),
            false => format!("those that fetch keys are {}", list(&known)),
        };
        let detail = format!("the section `jwt.{name}` fetches no keys; {there}");
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let (cell, before) = (&provider.cell, provider.cell.number());
    let Some(over) = cell.ask(TURN_MAX_MS) else {
        let detail = "keys were fetched a moment ago, and `refetch_after` is not over: ask again";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let failed = cell.failed();
    let ended = tokio::time::timeout(longest(provider), async {
        while cell.ended() < over {
            tokio::time::sleep(LOOK).await;
        }
    });
    if ended.await.is_err() {
        return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "the fetch is not over yet"));
    }
    if cell.failed() > failed {
        let detail = "the keys could not be fetched, those before stay in force; the log says why";
        return Err(Problem::new(StatusCode::BAD_GATEWAY, detail));
    }
    Ok(Json(Fetched {
        way: name,
        keys: cell.keys().map_or(0, |keys| keys.len()),
        changed: cell.number() != before,
    }))
}

/// A fetch that is under way, the turn of ours, and ours.
fn longest(provider: &Provider) -> Duration {
    let fetches = Duration::from_millis(provider.timeout_ms) * 2;
    (fetches + Duration::from_millis(TURN_MAX_MS)).min(Duration::from_secs(60))
}
