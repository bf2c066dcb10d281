//! `GET /config`: the configuration in force, every key, secrets left out.

use axum::{
    Json,
    extract::{Query, State as Extract, rejection::QueryRejection},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{Problem, State};
use crate::config::effective::effective;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    format: Option<String>,
}

/// As TOML, or as JSON with `?format=json` or `Accept: application/json`.
pub async fn get(
    Extract(shared): State,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) = wanted.map_err(|e| Problem::bad(format!("{e}; write ?format=json")))?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let is_json = match wanted.format.as_deref() {
        Some("json") => true,
        Some("toml") => false,
        Some(other) => {
            return Err(Problem::bad(format!("no format `{other}`; write toml or json")));
        }
        None => accept.is_some_and(|accept| accept.contains("application/json")),
    };
    let table = effective(&shared.view().snapshot);
    if is_json {
        return Ok(Json(table).into_response());
    }
    let text = toml::to_string_pretty(&table).map_err(|e| {
        let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(status, format!("the configuration cannot be written as TOML: {e}"))
    })?;
    Ok(([(header::CONTENT_TYPE, "application/toml")], text).into_response())
}
