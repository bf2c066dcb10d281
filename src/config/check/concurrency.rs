//! Limits on requests in progress, compiled.

use super::{
    TOP,
    rate_limits::{exempt, stand_in},
    rules::no_such,
};
use crate::config::{
    decode::{At, Sink},
    file::{self, File},
    report::Problem,
    snapshot::{Concurrency, ConcurrencyId, RateLimit},
    values::Name,
};

/// Writing the default changes nothing, so it is no mistake.
const QUEUE_MS_DEFAULT: u64 = 1000;

/// All limits, in the order of the file.
pub(super) fn concurrency(file: &File, sink: &mut Sink) -> Vec<Concurrency> {
    let mut limits = Vec::new();
    for (name, written) in &file.concurrency.value.0 {
        let place = name.place().unwrap_or(TOP);
        let rates = file.rate_limits.value.0.iter().map(|(own, _)| own);
        let quotas = file.quotas.value.0.iter().map(|(own, _)| own);
        if let Some(other) = rates.chain(quotas).find(|own| own.value == name.value) {
            let title = format!("a rate limit or quota is called `{}` too", name.value);
            let problem = Problem::error(place, title);
            let problem = problem.related(other.place().unwrap_or(TOP), "the other one");
            sink.push(problem.fix("give one of them another name: metrics tell them by it"));
        }
        // Wrong ones stand in for themselves, so that the numbers of the others hold.
        limits.push(match written {
            Some(written) => limit(&name.value, written, sink),
            None => Concurrency { what: stand_in(&name.value), limit: 1, queue: 0, queue_ms: 1 },
        });
    }
    limits
}

fn limit(name: &str, written: &file::Concurrency, sink: &mut Sink) -> Concurrency {
    if let Some(place) = written.queue_timeout.place()
        && *written.queue == 0
        && written.queue_timeout.0 != QUEUE_MS_DEFAULT
        && !written.queue.is_wrong()
    {
        let title = "nobody waits, so `queue_timeout` has no effect";
        let fix = format!("remove it, or write queue = {}", *written.limit);
        sink.push(Problem::error(place, title).fix(fix));
    }
    let key = written.key.0.clone().into_boxed_slice();
    let (exempt_networks, exempt_values) = exempt(&key, &written.exempt, sink);
    let shadow = *written.shadow;
    let what = RateLimit { key, exempt_networks, exempt_values, shadow, ..stand_in(name) };
    Concurrency {
        what,
        limit: *written.limit,
        queue: *written.queue,
        queue_ms: written.queue_timeout.0,
    }
}

/// Those of a route.
pub(super) fn of_route(
    file: &File,
    names: &At<Vec<At<Name>>>,
    sink: &mut Sink,
) -> Box<[ConcurrencyId]> {
    let own = &file.concurrency.value.0;
    let mut ids = Vec::new();
    for name in names.iter() {
        let place = name.place().unwrap_or(TOP);
        let Some(at) = own.iter().position(|(known, _)| known.value == name.value.0) else {
            if !file.concurrency.is_wrong() {
                let all: Vec<&str> = own.iter().map(|(name, _)| name.value.as_str()).collect();
                let what = "limit on requests in progress";
                sink.push(no_such(what, "concurrency", &name.value.0, place, &all));
            }
            continue;
        };
        // Bounded by what a configuration can hold.
        let id = at as ConcurrencyId;
        if ids.contains(&id) {
            let title = format!("the limit `{}` is there twice", name.value.0);
            sink.push(Problem::error(place, title).fix("remove one of them"));
            continue;
        }
        ids.push(id);
    }
    ids.into()
}
