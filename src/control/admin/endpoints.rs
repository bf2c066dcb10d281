//! `PUT` and `DELETE /upstreams/NAME/endpoints/NAME`: take an endpoint out, put it back, give it
//! another weight.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State as Extract, rejection::BytesRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};

use super::{Ask, MAIN_MAX, Problem, State, ask};
use crate::{
    control::{
        endpoints::{Change, NotGranted, Wish},
        view::View,
    },
    policy::balance,
};

/// As for a weight in the configuration.
const WEIGHT_MAX: u32 = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: Option<String>,
    weight: Option<u32>,
}

/// An endpoint as it is now.
#[derive(Serialize)]
pub struct Endpoint {
    upstream: String,
    endpoint: String,
    state: &'static str,
    weight: u32,
    configured_weight: u32,
}

/// Sets what is given, `{"state": "up|drain|down", "weight": 1..1000}`; what is not stays.
pub async fn put(
    shared: State,
    Path((upstream, endpoint)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Endpoint>, Problem> {
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let change = Some(change(&body)?);
    set(shared, Wish { upstream, endpoint, change }).await
}

/// As configured again.
pub async fn delete(
    shared: State,
    Path((upstream, endpoint)): Path<(String, String)>,
) -> Result<Json<Endpoint>, Problem> {
    set(shared, Wish { upstream, endpoint, change: None }).await
}

fn change(body: &[u8]) -> Result<Change, Problem> {
    const FIX: &str =
        "write {\"state\": \"up\"}, \"drain\" or \"down\", or {\"weight\": 3}, or both";
    let wanted: Wanted =
        serde_json::from_slice(body).map_err(|e| Problem::bad(format!("{e}; {FIX}")))?;
    let state = match wanted.state.as_deref().map(|word| (word, balance::State::from_word(word))) {
        Some((word, None)) => return Err(Problem::bad(format!("no state `{word}`; {FIX}"))),
        state => state.and_then(|(_, state)| state),
    };
    if let Some(weight) = wanted.weight.filter(|weight| !(1..=WEIGHT_MAX).contains(weight)) {
        let fix = format!("write a number between 1 and {WEIGHT_MAX}, or state \"down\"");
        return Err(Problem::bad(format!("the weight {weight} is out of range; {fix}")));
    }
    if state.is_none() && wanted.weight.is_none() {
        return Err(Problem::bad(format!("nothing to set; {FIX}")));
    }
    Ok(Change { state, weight: wanted.weight })
}

async fn set(Extract(shared): State, wish: Wish) -> Result<Json<Endpoint>, Problem> {
    let asked = wish.clone();
    let granted = ask(&shared, MAIN_MAX, |reply| Ask::Endpoint(asked, reply)).await?;
    let view = shared.view();
    let obeyed = granted.map_err(|not| not_granted(&not, &wish, &view))?;
    match tokio::time::timeout(MAIN_MAX, obeyed).await {
        Ok(Ok(obeyed)) if obeyed.workers == obeyed.of => Ok(Json(endpoint(&view, &wish))),
        _ => {
            let detail = "not every worker has taken it up yet: one that is stuck does when it \
                          goes on; see GET /status for its state";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

fn endpoint(view: &View, wish: &Wish) -> Endpoint {
    let over = view.overrides.of(&wish.upstream, &wish.endpoint).unwrap_or_default();
    let rules = view.snapshot.upstreams.iter().filter(|rule| rule.name == wish.upstream);
    let rule = rules.flat_map(|rule| &rule.endpoints).find(|rule| rule.name == wish.endpoint);
    let configured_weight = rule.map_or(1, |rule| rule.weight_configured);
    Endpoint {
        upstream: wish.upstream.clone(),
        endpoint: wish.endpoint.clone(),
        state: over.state.word(),
        weight: over.weight.unwrap_or(configured_weight),
        configured_weight,
    }
}

fn not_granted(not: &NotGranted, wish: &Wish, view: &View) -> Problem {
    const SHOWN_MAX: usize = 20;
    let list = |names: &mut dyn Iterator<Item = &str>| {
        let mut shown: Vec<&str> = names.take(SHOWN_MAX + 1).collect();
        if shown.len() > SHOWN_MAX {
            shown[SHOWN_MAX] = "and more";
        }
        shown.join(", ")
    };
    let upstreams = &view.snapshot.upstreams;
    match not {
        NotGranted::NoUpstream => {
            let known = list(&mut upstreams.iter().map(|rule| &*rule.name));
            let detail = format!("no upstream `{}`; there are {known}", wish.upstream);
            Problem::new(StatusCode::NOT_FOUND, detail)
        }
        NotGranted::NoEndpoint => {
            let rules = upstreams.iter().filter(|rule| rule.name == wish.upstream);
            let known = list(&mut rules.flat_map(|rule| &rule.endpoints).map(|rule| &*rule.name));
            let detail = format!(
                "the upstream `{}` has no endpoint `{}`; it has {known}",
                wish.upstream, wish.endpoint
            );
            Problem::new(StatusCode::NOT_FOUND, detail)
        }
        NotGranted::Crowded(why) => Problem::new(StatusCode::CONFLICT, why),
        NotGranted::TooMany => {
            let detail = "10,000 endpoints differ from the configuration already; take some back \
                          with DELETE";
            Problem::new(StatusCode::CONFLICT, detail)
        }
    }
}
