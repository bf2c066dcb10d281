//! `POST /upgrade`: give way to a new process, and say what came of it.

use std::time::Duration;

use axum::{Json, extract::State as Extract, http::StatusCode};
use serde_json::{Value, json};

use super::{Ask, Problem, State, ask};

/// How long an upgrade is waited for beyond `shutdown.upgrade_timeout`, which bounds it.
const UPGRADE_GRACE: Duration = Duration::from_secs(15);

/// Answers with the new process's id when it serves; 409 with the reason when none does.
pub async fn post(Extract(shared): State) -> Result<Json<Value>, Problem> {
    let timeout = Duration::from_millis(shared.view().snapshot.runtime.upgrade_timeout_ms);
    match ask(&shared, timeout + UPGRADE_GRACE, Ask::Upgrade).await? {
        Ok(pid) => Ok(Json(json!({ "pid": pid }))),
        Err(why) => Err(Problem::new(StatusCode::CONFLICT, why)),
    }
}
