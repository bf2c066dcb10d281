//! Quotas, compiled: limits that come back as a whole with the next period of their calendar.

use std::path::Path;

use super::{
    TOP,
    rate_limits::{exempt, stand_in},
    rules::no_such,
};
use crate::{
    config::{
        decode::{At, Sink},
        file::{self, File},
        report::{Place, Problem},
        snapshot::{LimitId, QuotaStore, RateLimit},
        values::Name,
    },
    policy::limit::{Calendar, KeyPart, Window, fields::Names},
};

/// Of a month, as far as clients are told how long that is.
const MONTH_S: u64 = 30 * 86_400;

/// All quotas, in the order of the file.
pub(super) fn quotas(file: &File, sink: &mut Sink) -> Vec<RateLimit> {
    let mut quotas = Vec::new();
    for (name, written) in &file.quotas.value.0 {
        let place = name.place().unwrap_or(TOP);
        if !name.value.bytes().all(|b| (b' '..=b'~').contains(&b) && !matches!(b, b'"' | b'\\')) {
            let title = "the name of a quota stands in the field RateLimit, in ASCII";
            let problem = Problem::error(place, title);
            sink.push(problem.fix("write letters, digits and -, such as [quotas.monthly]"));
        }
        let rates = &file.rate_limits.value.0;
        if let Some((rate, _)) = rates.iter().find(|(rate, _)| rate.value == name.value) {
            let title = format!("a rate limit is called `{}` too", name.value);
            let problem = Problem::error(place, title);
            let problem = problem.related(rate.place().unwrap_or(TOP), "the rate limit");
            let fix = "give one of them another name: clients and metrics tell them by it";
            sink.push(problem.fix(fix));
        }
        // As of rate limits.
        quotas.push(match written {
            Some(written) => quota(&name.value, written, sink),
            None => stand_in(&name.value),
        });
    }
    if let Some((name, _)) = file.quotas.value.0.first()
        && file.quota_store.folder.value.is_none()
        && are_named(file)
    {
        let title = "what is used of quotas is forgotten when the gateway ends";
        let problem = Problem::warning(name.place().unwrap_or(TOP), title);
        let fix = "write [quota_store] with folder = \"/var/lib/ringway/quotas\" to keep it";
        sink.push(problem.fix(fix));
    }
    quotas
}

/// Somebody is counted by one.
fn are_named(file: &File) -> bool {
    let routes = file.routes.iter().any(|route| !route.quotas.is_empty());
    let sets = file.policies.value.0.iter().filter_map(|(_, set)| set.as_ref());
    let plans = file.plans.value.0.iter().filter_map(|(_, plan)| plan.as_ref());
    let mut sets = sets.map(|set| set.quotas.is_empty());
    let mut plans = plans.map(|plan| plan.quotas.is_empty());
    routes || sets.any(|is_empty| !is_empty) || plans.any(|is_empty| !is_empty)
}

fn quota(name: &str, written: &file::Quota, sink: &mut Sink) -> RateLimit {
    let amount = written.amount.value;
    let calendar = Calendar { per: amount.per, offset_s: written.offset.seconds };
    check_cost(written, sink);
    let key: Box<[KeyPart]> = written.key.0.clone().into();
    let (exempt_networks, exempt_values) = exempt(&key, &written.exempt, sink);
    let period_s = amount.per.seconds().unwrap_or(MONTH_S);
    let windows = vec![Window::new(amount.count, period_s * 1_000_000_000, amount.count)];
    RateLimit {
        name: name.to_owned(),
        names: Names::new(name, &windows),
        windows,
        quota: Some(calendar),
        key,
        cost: *written.cost,
        cost_from: written.cost_from.value.as_ref().map(|field| field.0.to_lowercase().into()),
        shared: None,
        exempt_networks,
        exempt_values,
        shadow: *written.shadow,
        keys_max: *written.keys_max as usize,
        tells: *written.fields,
        tells_old: *written.x_fields,
    }
}

/// A request that costs more than there is would never pass.
fn check_cost(written: &file::Quota, sink: &mut Sink) {
    let count = written.amount.count;
    if let Some(place) = written.cost.place().filter(|_| *written.cost > count)
        && !written.amount.is_wrong()
    {
        let title = format!(
            "a request would cost {}, more than the amount of {count}, and never pass",
            *written.cost
        );
        let fix = format!("write a lower cost, or an amount of {} or more", *written.cost);
        sink.push(Problem::error(place, title).fix(fix));
    }
}

/// The quotas of these names, each once.
pub(super) fn named(
    file: &File,
    limits: &[RateLimit],
    names: &At<Vec<At<Name>>>,
    sink: &mut Sink,
) -> Vec<LimitId> {
    let mut ids = Vec::new();
    for name in names.iter() {
        let place: Place = name.place().unwrap_or(TOP);
        let own = &file.quotas.value.0;
        let Some(at) = own.iter().position(|(known, _)| known.value == name.value.0) else {
            if !file.quotas.is_wrong() {
                let all: Vec<&str> = own.iter().map(|(name, _)| name.value.as_str()).collect();
                sink.push(no_such("quota", "quotas", &name.value.0, place, &all));
            }
            continue;
        };
        // They come after the rates.
        let id = (limits.len() - own.len() + at) as LimitId;
        if ids.contains(&id) {
            let title = format!("the quota `{}` is there twice", name.value.0);
            sink.push(Problem::error(place, title).fix("remove one of them"));
            continue;
        }
        ids.push(id);
    }
    ids
}

/// Where it is kept what was used.
pub(super) fn store(file: &File, folder: &Path) -> QuotaStore {
    let written = &file.quota_store;
    QuotaStore {
        folder: written.folder.value.as_ref().map(|own| folder.join(own)),
        save_every_ms: written.save_every.0,
    }
}
