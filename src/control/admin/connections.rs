//! `GET /connections`: what the clients' connections do.

use axum::{
    Json,
    extract::{Query, State as Extract, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};

use super::{Problem, State};
use crate::worker::{
    report::Question,
    roster::{ConnectionLine, Stage},
};

/// Connections told of unless the question says otherwise, and at most.
const LIMIT_DEFAULT: usize = 1000;
const LIMIT_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    limit: Option<usize>,
}

#[derive(Serialize)]
pub struct Connections {
    /// Fewer than are open when there are more than the limit.
    connections: Vec<Connection>,
    /// Workers that did not answer.
    silent_workers: Vec<usize>,
}

#[derive(Serialize)]
struct Connection {
    worker: usize,
    /// Address and port; `null` on a Unix socket.
    peer: Option<String>,
    listener: String,
    /// Seconds since it was accepted.
    age: f64,
    requests: u32,
    state: &'static str,
    /// Seconds for which it has been serving its request.
    request_age: Option<f64>,
    route: Option<String>,
}

/// At most `?limit=` connections, an equal share of them each worker's.
pub async fn get(
    Extract(shared): State,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Connections>, Problem> {
    let Query(wanted) = wanted.map_err(|e| Problem::bad(format!("{e}; write ?limit=100")))?;
    let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
    if limit > LIMIT_MAX {
        return Err(Problem::bad(format!("limit is over {LIMIT_MAX}; write {LIMIT_MAX} or less")));
    }
    let view = shared.view();
    let share = limit.div_ceil(view.workers.len().max(1));
    let mut answer = Connections { connections: Vec::new(), silent_workers: Vec::new() };
    for (worker, asked) in view.workers.iter().enumerate() {
        match asked.ask(|answer| Question::Connections(share, answer)).await {
            Some(lines) => {
                answer.connections.extend(lines.into_iter().map(|line| connection(worker, line)));
            }
            None => answer.silent_workers.push(worker),
        }
    }
    answer.connections.truncate(limit);
    Ok(Json(answer))
}

fn connection(worker: usize, line: ConnectionLine) -> Connection {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    Connection {
        worker,
        peer: line.peer.map(|peer| peer.to_string()),
        listener: line.listener,
        age: seconds(line.age_ms),
        requests: line.requests,
        state: match line.stage {
            Stage::Idle => "idle",
            Stage::Request => "request",
            Stage::Tunnel => "tunnel",
        },
        request_age: line.request_ms.map(seconds),
        route: line.route,
    }
}
