//! `/livez` and `/readyz`: whether to restart the gateway, and whether to send it clients.

use axum::{extract::State as Extract, http::StatusCode};

use super::State;

/// 200 for as long as the process answers.
pub async fn live() -> &'static str {
    "alive\n"
}

/// 200 when the gateway wants clients, else 503; either way one line that says how it is.
pub async fn ready(Extract(shared): State) -> (StatusCode, String) {
    let look = shared.readiness.look();
    let status = if look.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{look}\n"))
}
