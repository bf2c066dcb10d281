//! `GET /requests/slowest`: the slowest requests of the last minutes.

use axum::{Json, extract::State as Extract};
use serde::Serialize;

use super::State;
use crate::{control::history::unix_now, worker::report::Question};

#[derive(Serialize)]
pub struct Slowest {
    /// Slowest first; at most 16 of each worker.
    requests: Vec<Slow>,
    silent_workers: Vec<usize>,
}

#[derive(Serialize)]
struct Slow {
    worker: usize,
    /// Seconds from its head to the last byte of its response.
    took: f64,
    /// Unix time of its end.
    ended: u64,
    method: String,
    path: String,
    /// 0 when no response began.
    status: u16,
    route: Option<String>,
    upstream: Option<String>,
    endpoint: Option<String>,
    tries: u8,
    request_id: String,
}

pub async fn get(Extract(shared): State) -> Json<Slowest> {
    let view = shared.view();
    let mut answer = Slowest { requests: Vec::new(), silent_workers: Vec::new() };
    for (worker, asked) in view.workers.iter().enumerate() {
        let Some((now_ms, slow)) = asked.ask(Question::Slowest).await else {
            answer.silent_workers.push(worker);
            continue;
        };
        answer.requests.extend(slow.into_iter().map(|slow| {
            let (upstream, endpoint) = slow.endpoint.unzip();
            Slow {
                worker,
                took: slow.took_ns as f64 / 1e9,
                ended: unix_now().saturating_sub(now_ms.saturating_sub(slow.ended_ms) / 1000),
                method: slow.method,
                path: slow.path,
                status: slow.status,
                route: slow.route,
                upstream,
                endpoint,
                tries: slow.tries,
                request_id: slow.request_id,
            }
        }));
    }
    answer.requests.sort_by(|a, b| b.took.total_cmp(&a.took));
    Json(answer)
}
