//! `POST /reload`: read the configuration again, and say what came of it.

use std::time::Duration;

use axum::{Json, extract::State as Extract, http::StatusCode};
use serde::Serialize;

use super::{Ask, Problem, State, ask};
use crate::control::reload::Refused;

/// How long a reload is waited for: names may have to be looked up.
const RELOAD_MAX: Duration = Duration::from_secs(60);

#[derive(Serialize)]
pub struct Answer {
    generation: u64,
    /// By worker: the generation it has.
    workers: Vec<u64>,
    took_ms: f64,
    /// As `ringway check` prints them.
    warnings: Vec<String>,
}

/// Answers when every worker has the new configuration; 422 with the report of `ringway check` when
/// it cannot be used, 503 when it is in force but a worker is stuck or a listener does not accept.
pub async fn post(Extract(shared): State) -> Result<Json<Answer>, Problem> {
    match ask(&shared, RELOAD_MAX, Ask::Reload).await? {
        Ok(reloaded) if !reloaded.lacking.is_empty() => {
            let (generation, lacking) = (reloaded.generation, reloaded.lacking.join("; "));
            let detail = format!("generation {generation} is in force, but {lacking}");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
                .with("generation", generation)
                .with("workers", reloaded.workers))
        }
        Ok(reloaded) => Ok(Json(Answer {
            generation: reloaded.generation,
            workers: reloaded.workers,
            took_ms: reloaded.took.as_micros() as f64 / 1000.0,
            warnings: reloaded.warnings,
        })),
        Err(refused) => {
            let (status, detail) = match refused {
                Refused::BadFile(report) => (StatusCode::UNPROCESSABLE_ENTITY, report),
                Refused::Impossible(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
                Refused::Crowded(why) => (StatusCode::CONFLICT, why),
                Refused::NotNow(why) => (StatusCode::CONFLICT, why.to_owned()),
            };
            let generation = shared.view().snapshot.generation;
            Err(Problem::new(status, detail).with("generation", generation))
        }
    }
}
