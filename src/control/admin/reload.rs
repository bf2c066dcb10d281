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
/// it cannot be used.
pub async fn post(Extract(shared): State) -> Result<Json<Answer>, Problem> {
    match ask(&shared, RELOAD_MAX, Ask::Reload).await? {
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
                Refused::NoFile => {
                    let why = "this gateway was not started from a file: there is none to read";
                    (StatusCode::CONFLICT, why.to_owned())
                }
            };
            let generation = shared.view().snapshot.generation;
            Err(Problem::new(status, detail).with("generation", generation))
        }
    }
}
