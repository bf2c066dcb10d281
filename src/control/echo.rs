//! `ringway demo ADDRESS`: a sample upstream alone, which answers with what it was sent, after as
//! many seconds as `?wait=N` says. The examples of the documentation forward to it.

use std::{io, net::SocketAddr, process::ExitCode, time::Duration};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode},
    response::IntoResponse,
    serve,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Largest body that it reads, in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;
/// The longest that it waits before it answers.
const WAIT_S_MAX: u64 = 60;

/// Serves until the process is ended.
pub fn echo(at: SocketAddr) -> ExitCode {
    match served(at) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ringway: the sample upstream cannot listen on {at}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn served(at: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(at).await?;
        let at = listener.local_addr()?;
        println!("A sample upstream: http://{at} answers with what it is sent. Ctrl-C ends it.");
        serve(listener, Router::new().fallback(answer)).await
    })
}

async fn answer(request: Request<Body>) -> impl IntoResponse {
    let (head, body) = request.into_parts();
    let fields = [("x-powered-by", "ringway demo")];
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        let why = json!({ "error": "the body is broken, or larger than 16 MiB" });
        return (StatusCode::BAD_REQUEST, fields, Json(why));
    };
    tokio::time::sleep(wait(head.uri.query().unwrap_or_default())).await;
    let mut told = json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "fields": named(&head.headers),
    });
    if !body.is_empty() {
        let text = || Value::from(String::from_utf8_lossy(&body));
        told["body"] = serde_json::from_slice(&body).unwrap_or_else(|_| text());
    }
    (StatusCode::OK, fields, Json(told))
}

/// A request may want to be answered late: `?wait=2`, in seconds.
fn wait(query: &str) -> Duration {
    let seconds = query.split('&').find_map(|part| part.strip_prefix("wait=")?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0).min(WAIT_S_MAX))
}

/// Values of one name are joined, as a list is (RFC 9110 §5.3).
fn named(fields: &HeaderMap) -> Value {
    let of = |name| {
        let values = fields.get_all(name).iter().map(|value| value.as_bytes());
        String::from_utf8_lossy(&values.collect::<Vec<_>>().join(&b", "[..])).into_owned()
    };
    fields.keys().map(|name| (name.to_string(), Value::from(of(name)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_late_it_is_answered() {
        for (query, seconds) in
            [("", 0), ("wait=2", 2), ("a=b&wait=3", 3), ("wait=x", 0), ("wait=9999", WAIT_S_MAX)]
        {
            assert_eq!(wait(query), Duration::from_secs(seconds), "{query}");
        }
    }
}
