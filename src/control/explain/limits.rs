//! Which limits a request would be counted by. How much is left only the running gateway knows.

use std::net::IpAddr;

use super::{Told, line};
use crate::{
    config::{
        Snapshot,
        snapshot::{Concurrency, LimitId, Policies, RateLimit},
        units::Millis,
    },
    policy::identity::Identity,
};

impl Told<'_> {
    /// Those of the route, then those of the plan of the consumer that the request is from.
    pub(super) fn limits(
        &self,
        snapshot: &Snapshot,
        policies: &Policies,
        (identity, client): (Option<&Identity>, Option<IpAddr>),
        text: &mut String,
    ) {
        let own = policies.rate_limits.as_deref();
        let own: Vec<LimitId> =
            own.into_iter().flat_map(|own| own.early.iter().chain(&own.late).copied()).collect();
        told("limits", snapshot, &own, client, text);
        let consumer = identity.and_then(|identity| identity.consumer);
        if let Some(consumer) = consumer {
            line(text, "consumer", snapshot.consumers.all.name(consumer));
            if let Some(plan) = snapshot.consumers.plan(consumer) {
                line(text, "plan", &plan.name);
                let more = plan.rate_limits.iter().filter(|id| !own.contains(id)).copied();
                told("", snapshot, &more.collect::<Vec<_>>(), client, text);
            }
        } else if policies.authenticate.is_some() && !snapshot.consumers.plans.is_empty() {
            line(text, "plan", "that of the consumer, who is not known here");
        }
        for (at, id) in policies.concurrency.iter().enumerate() {
            let rule = snapshot.concurrency_limit(*id);
            let title = if at == 0 { "concurrency" } else { "" };
            line(text, title, &(in_progress(rule) + &notes(&rule.what, client)));
        }
    }
}

fn told(
    title: &str,
    snapshot: &Snapshot,
    ids: &[LimitId],
    client: Option<IpAddr>,
    text: &mut String,
) {
    for (at, id) in ids.iter().enumerate() {
        let rule = snapshot.rate_limit(*id);
        let title = if at == 0 { title } else { "" };
        line(text, title, &(counted(rule) + &notes(rule, client)));
    }
}

fn by(rule: &RateLimit) -> String {
    let parts: Vec<String> = rule.key.iter().map(ToString::to_string).collect();
    parts.join(" and ")
}

/// What a limit allows.
fn counted(rule: &RateLimit) -> String {
    let allowed = match rule.quota {
        Some(calendar) => format!("quota of {}/{}", rule.amount(), calendar.per.word()),
        None => {
            let window = |window: &crate::policy::limit::Window| {
                let period = Millis(window.period_ns / 1_000_000);
                format!("{} in {period}, at once {}", window.count, window.burst)
            };
            let windows: Vec<String> = rule.windows.iter().map(window).collect();
            windows.join("; ")
        }
    };
    let cost = match rule.cost {
        1 => String::new(),
        cost => format!(", costs {cost}"),
    };
    format!("{}: {allowed}, by {}{cost}", rule.name, by(rule))
}

fn in_progress(rule: &Concurrency) -> String {
    let queue = match rule.queue {
        0 => String::new(),
        queue => format!(", {queue} more wait up to {}", Millis(rule.queue_ms)),
    };
    format!("{}: {} at a time, by {}{queue}", rule.what.name, rule.limit, by(&rule.what))
}

fn notes(rule: &RateLimit, client: Option<IpAddr>) -> String {
    let is_exempt =
        client.is_some_and(|ip| rule.exempt_networks.iter().any(|net| net.contains(&ip)));
    match (is_exempt, rule.shadow) {
        (true, _) => " (not for this client)".to_owned(),
        (false, true) => " (shadow: refuses nobody)".to_owned(),
        (false, false) => String::new(),
    }
}
