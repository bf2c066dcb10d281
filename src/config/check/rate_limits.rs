//! Rate limits, compiled, and which of them a route has.

use ipnet::IpNet;

use super::{TOP, quotas, redis, rules::no_such};
use crate::{
    config::{
        decode::{At, Sink},
        file::{self, File},
        report::{Place, Problem},
        snapshot::{RateLimit, Redis, RouteLimits},
        values::{Name, Rate},
    },
    policy::limit::{KeyPart, LIMITS_MAX, WINDOWS_MAX, Window, fields::Names},
};

/// A bucket that takes longer to fill is no rate any more.
const FILL_NS_MAX: u128 = 366 * 86_400 * 1_000_000_000;

/// All limits, in the order of the file.
pub(super) fn rate_limits(file: &File, servers: &[Redis], sink: &mut Sink) -> Vec<RateLimit> {
    let mut limits = Vec::new();
    for (name, written) in &file.rate_limits.value.0 {
        if !name.value.bytes().all(|b| (b' '..=b'~').contains(&b) && !matches!(b, b'"' | b'\\')) {
            let title = "the name of a rate limit stands in the field RateLimit, in ASCII";
            let problem = Problem::error(name.place().unwrap_or(TOP), title);
            sink.push(problem.fix("write letters, digits and -, such as [rate_limits.per-client]"));
        }
        // Wrong ones stand in for themselves, so that the numbers of the others hold.
        limits.push(match written {
            Some(written) => {
                let place = name.place().unwrap_or(TOP);
                let mut limit = rate_limit(&name.value, place, written, sink);
                let of = (name.value.as_str(), written);
                limit.shared = redis::shared(file, servers, of, &limit.windows, sink);
                limit
            }
            None => stand_in(&name.value),
        });
    }
    limits
}

fn rate_limit(name: &str, place: Place, written: &file::RateLimit, sink: &mut Sink) -> RateLimit {
    let windows = windows(place, written, sink);
    check_cost(written, &windows, sink);
    let key: Box<[KeyPart]> = written.key.0.clone().into();
    let (exempt_networks, exempt_values) = exempt(&key, &written.exempt, sink);
    RateLimit {
        name: name.to_owned(),
        names: Names::new(name, &windows),
        windows,
        quota: None,
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

/// Whom a limit does not apply to: networks, and values of its key.
pub(super) fn exempt(
    key: &[KeyPart],
    written: &[At<String>],
    sink: &mut Sink,
) -> (Vec<IpNet>, Vec<Box<[u8]>>) {
    let (mut networks, mut values) = (Vec::new(), Vec::new());
    for text in written {
        match (text.value.parse::<ipnet::IpNet>(), text.value.parse::<std::net::IpAddr>()) {
            (Ok(network), _) => networks.push(network.trunc()),
            (_, Ok(address)) => networks.push(address.into()),
            _ => {
                if key.iter().all(|part| *part == KeyPart::Client) {
                    let title = format!(
                        "`{}` is no address, and nothing else is counted by in this limit",
                        text.value
                    );
                    let problem = Problem::error(text.place().unwrap_or(TOP), title);
                    sink.push(problem.fix("write an address or a network, such as \"10.0.0.0/8\""));
                }
                values.push(text.value.clone().into_bytes().into());
            }
        }
    }
    (networks, values)
}

pub(super) fn stand_in(name: &str) -> RateLimit {
    let windows = vec![Window::new(1, 1_000_000_000, 1)];
    RateLimit {
        name: name.to_owned(),
        names: Names::new(name, &windows),
        windows,
        quota: None,
        key: Box::default(),
        cost: 1,
        cost_from: None,
        shared: None,
        exempt_networks: Vec::new(),
        exempt_values: Vec::new(),
        shadow: false,
        keys_max: 1,
        tells: false,
        tells_old: false,
    }
}

/// At least one, whatever is wrong.
fn windows(place: Place, written: &file::RateLimit, sink: &mut Sink) -> Vec<Window> {
    let mut windows = vec![window(&written.rate, &written.burst, sink)];
    windows.extend(written.windows.iter().map(|one| window(&one.rate, &one.burst, sink)));
    if windows.len() > WINDOWS_MAX {
        let title = format!("a limit has at most {} further windows", WINDOWS_MAX - 1);
        let problem = Problem::error(written.windows.place().unwrap_or(place), title);
        sink.push(problem.fix("remove some, or make two limits of it"));
    }
    windows.truncate(WINDOWS_MAX);
    windows
}

fn window(rate: &At<Rate>, burst: &At<Option<u32>>, sink: &mut Sink) -> Window {
    let Rate { count, period_ms } = rate.value;
    let tokens = burst.value.unwrap_or(count);
    let period_ns = u128::from(period_ms) * 1_000_000;
    if period_ns * u128::from(tokens) > FILL_NS_MAX * u128::from(count) {
        let title = format!("a burst of {tokens} at this rate takes more than a year to come back");
        let place = burst.place().or(rate.place()).unwrap_or(TOP);
        let most = FILL_NS_MAX * u128::from(count) / period_ns;
        sink.push(Problem::error(place, title).fix(format!("write burst = {most} or less")));
        return Window::new(count, period_ms * 1_000_000, 1);
    }
    Window::new(count, period_ms * 1_000_000, tokens)
}

/// A request that costs more than a window holds would never pass.
fn check_cost(written: &file::RateLimit, windows: &[Window], sink: &mut Sink) {
    let least = windows.iter().map(|window| window.burst).min().unwrap_or(1);
    if let Some(place) = written.cost.place().filter(|_| *written.cost > least)
        && !written.rate.is_wrong()
        && !written.burst.is_wrong()
        && !written.windows.is_wrong()
    {
        let title = format!(
            "a request would cost {}, more than the burst of {least}, and never pass",
            *written.cost
        );
        let fix = format!("write burst = {} or more, or a lower cost", *written.cost);
        sink.push(Problem::error(place, title).fix(fix));
    }
}

/// Where the rate of this name is.
pub(super) fn position(limits: &[RateLimit], name: &str) -> Option<usize> {
    limits.iter().position(|limit| limit.quota.is_none() && limit.name == name)
}

/// Names of limits, as written.
type Written = At<Vec<At<Name>>>;

/// What a request took of each of its limits is remembered.
pub(super) fn bound(whose: &str, written: [&Written; 2], sink: &mut Sink) {
    let mut all = written.into_iter().flat_map(|names| names.iter());
    if let Some(first) = all.nth(LIMITS_MAX) {
        let title = format!("a {whose} has at most {LIMITS_MAX} rate limits and quotas");
        let problem = Problem::error(first.place().unwrap_or(TOP), title);
        sink.push(problem.fix("remove this one and those after it"));
    }
}

/// Those of a route.
pub(super) fn of_route(
    file: &File,
    limits: &[RateLimit],
    (names, quotas): (&Written, &Written),
    sink: &mut Sink,
) -> Option<Box<RouteLimits>> {
    bound("route", [names, quotas], sink);
    let known = &file.rate_limits;
    let (mut early, mut late, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for name in names.iter() {
        let place = name.place().unwrap_or(TOP);
        let Some(id) = position(limits, &name.value.0) else {
            if !known.is_wrong() {
                let all: Vec<&str> = known.value.0.iter().map(|(n, _)| n.value.as_str()).collect();
                sink.push(no_such("rate limit", "rate_limits", &name.value.0, place, &all));
            }
            continue;
        };
        if ids.contains(&id) {
            let title = format!("the rate limit `{}` is there twice", name.value.0);
            sink.push(Problem::error(place, title).fix("remove one of them"));
            continue;
        }
        ids.push(id);
        let phase = if limits[id].needs_identity() { &mut late } else { &mut early };
        phase.push(id as u32);
    }
    let own = quotas::named(file, limits, quotas, sink);
    ids.extend(own.iter().map(|id| *id as usize));
    late.extend(own);
    let charges = ids.iter().any(|id| limits[*id].cost_from.is_some());
    let limits = RouteLimits { early: early.into(), late: late.into(), charges };
    (!ids.is_empty()).then(|| Box::new(limits))
}
