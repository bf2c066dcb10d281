//! Plans of consumers: which rate limits and quotas they are.

use super::{
    TOP, quotas,
    rate_limits::{bound, position},
    rules::no_such,
};
use crate::config::{
    decode::{At, Sink},
    file::{self, File},
    report::Problem,
    snapshot::{LimitId, Plan, RateLimit},
    values::Name,
};

/// All plans, in the order of the file. A wrong one has its place too, since they are numbered.
pub(super) fn plans(file: &File, limits: &[RateLimit], sink: &mut Sink) -> Vec<Plan> {
    let written = file.plans.value.0.iter();
    let plan = |(name, plan): &(At<String>, Option<file::Plan>)| Plan {
        name: name.value.clone(),
        rate_limits: plan.iter().flat_map(|plan| all(file, plan, limits, sink)).collect(),
    };
    written.map(plan).collect()
}

/// Its rate limits, then its quotas.
fn all(file: &File, plan: &file::Plan, limits: &[RateLimit], sink: &mut Sink) -> Vec<LimitId> {
    bound("plan", [&plan.rate_limits, &plan.quotas], sink);
    let mut ids = rate_limits(file, plan, limits, sink);
    let quotas = quotas::named(file, limits, &plan.quotas, sink);
    for name in plan.quotas.iter() {
        let known = quotas.iter().map(|id| &limits[*id as usize]);
        known.filter(|quota| quota.name == name.value.0).for_each(|q| no_charges(q, name, sink));
    }
    ids.extend(quotas);
    ids
}

/// What a response says is asked of routes only.
fn no_charges(limit: &RateLimit, name: &At<Name>, sink: &mut Sink) {
    if limit.cost_from.is_some() {
        let what = if limit.quota.is_some() { "quota" } else { "limit" };
        let title = format!("a {what} with `cost_from` is for routes, not for plans");
        let key = if limit.quota.is_some() { "quotas" } else { "rate_limits" };
        let fix = format!("name it in `{key}` of the routes");
        sink.push(Problem::error(name.place().unwrap_or(TOP), title).fix(fix));
    }
}

fn rate_limits(
    file: &File,
    plan: &file::Plan,
    limits: &[RateLimit],
    sink: &mut Sink,
) -> Vec<LimitId> {
    let mut ids = Vec::new();
    for name in plan.rate_limits.iter() {
        let place = name.place().unwrap_or(TOP);
        let Some(id) = position(limits, &name.value.0) else {
            if !file.rate_limits.is_wrong() {
                let rates = limits.iter().filter(|limit| limit.quota.is_none());
                let all: Vec<&str> = rates.map(|limit| limit.name.as_str()).collect();
                sink.push(no_such("rate limit", "rate_limits", &name.value.0, place, &all));
            }
            continue;
        };
        // Bounded by what a configuration can hold.
        let number = id as LimitId;
        if ids.contains(&number) {
            let title = format!("the rate limit `{}` is there twice", name.value.0);
            sink.push(Problem::error(place, title).fix("remove one of them"));
            continue;
        }
        no_charges(&limits[id], name, sink);
        ids.push(number);
    }
    ids
}

/// The number of the plan called `name`; a report when there is none.
pub(super) fn find(file: &File, name: &At<Name>, sink: &mut Sink) -> Option<u32> {
    let all = &file.plans.value.0;
    let at = all.iter().position(|(plan, _)| plan.value == name.value.0);
    if at.is_none() && !file.plans.is_wrong() {
        let names: Vec<&str> = all.iter().map(|(plan, _)| plan.value.as_str()).collect();
        let place = name.place().unwrap_or(TOP);
        sink.push(no_such("plan", "plans", &name.value.0, place, &names));
    }
    at.and_then(|at| u32::try_from(at).ok())
}
