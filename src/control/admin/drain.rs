//! `POST /drain`: stop accepting, finish what runs, end.

use axum::{Json, extract::State as Extract, http::StatusCode};
use serde_json::{Value, json};

use super::{Ask, MAIN_MAX, Problem, State, ask};

/// Answers when the drain has begun; the process ends when it is over.
pub async fn post(Extract(shared): State) -> Result<(StatusCode, Json<Value>), Problem> {
    match ask(&shared, MAIN_MAX, Ask::Drain).await? {
        true => Ok((StatusCode::ACCEPTED, Json(json!({ "state": "draining" })))),
        false => Err(Problem::new(StatusCode::CONFLICT, "the gateway is draining already")),
    }
}
