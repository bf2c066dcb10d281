//! `/log`: what the gateway logs about itself, read and changed while it runs.

use axum::{
    Json,
    body::Bytes,
    extract::{State as Extract, rejection::BytesRejection},
};
use serde::{Deserialize, Serialize};

use super::{Problem, State};
use crate::telemetry::log;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// `error`, `warn`, `info`, `debug`, `trace`, `off`, or a filter such as
    /// `ringway::worker=debug`.
    level: String,
}

pub async fn get(Extract(_): State) -> Json<Level> {
    Json(Level { level: log::level() })
}

/// Logs at `{"level": ...}` from now on, until the process ends.
pub async fn put(
    Extract(_): State,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Level>, Problem> {
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let wanted: Level = serde_json::from_slice(&body)
        .map_err(|e| Problem::bad(format!("{e}; write {{\"level\": \"debug\"}}")))?;
    log::set_level(&wanted.level).map_err(Problem::bad)?;
    Ok(Json(wanted))
}
