//! What the admin interface answers when it does not do what it is asked: problem+json (RFC 9457)
//! with what to do instead.

use std::time::Duration;

use axum::{
    Json,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// A problem, and what the answer says of it.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    more: Map<String, Value>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), more: Map::new() }
    }

    /// What was sent cannot be used.
    pub fn bad(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// A further member of the answer.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The main thread does not take up anything more.
    pub fn ending() -> Problem {
        Problem::new(StatusCode::CONFLICT, "the gateway is draining: nothing can be changed now")
    }

    pub fn late(max: Duration) -> Problem {
        let detail =
            format!("not done within {} s; it may still be done: see GET /status", max.as_secs());
        Problem::new(StatusCode::GATEWAY_TIMEOUT, detail)
    }

    /// For paths that are none.
    pub async fn no_resource(uri: Uri) -> Problem {
        let detail = format!(
            "there is no {} here; there are /, /livez, /readyz, /metrics, /status and \
             /status/history, and on the Unix socket (`admin.bind`) alone /config, /connections, \
             /requests/slowest, /quotas, /reload, /upgrade, /drain, /log \
             and /upstreams/NAME/endpoints/NAME",
            uri.path()
        );
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// For resources that have other methods; the Allow field names them.
    pub async fn wrong_method(method: Method, uri: Uri) -> Problem {
        let detail = format!("{} does not have the method {method}; see Allow", uri.path());
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }
}

/// As it is written.
#[derive(Serialize)]
struct Body {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: self.detail,
            more: self.more,
        };
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status, kind, Json(body)).into_response()
    }
}
