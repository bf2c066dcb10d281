//! What looks at identities, on a route that asks nobody to show one: it would never do anything.

use super::TOP;
use crate::{
    config::{
        decode::{At, Sink, short},
        report::{Place, Problem},
        snapshot::RateLimit,
        values::Name,
    },
    policy::{authorize::Rule, template::Template},
};

const FIX: &str = "add authenticate = [\"NAME\"] to the route";

/// A rule; `place`: where the route, or its set, names it. Of an expression it may be meant so, as
/// in `identity == null`.
pub(super) fn rule(rule: &Rule, place: Place, sink: &mut Sink) {
    let name = short(&rule.name);
    let problem = match rule.asks_who() {
        None => return,
        Some(true) => {
            let title = format!(
                "the rule `{name}` asks who a client is, and the route asks nobody to show it: it \
                 never matches"
            );
            Problem::error(place, title).fix(format!("{FIX}, or take the rule out"))
        }
        Some(false) => {
            let title = format!(
                "the expression of the rule `{name}` asks who a client is, and the route asks \
                 nobody to show it: `identity` is always null"
            );
            Problem::warning(place, title).fix(format!("{FIX}, or take that out of it"))
        }
    };
    sink.push(problem);
}

/// Rate limits of the route.
pub(super) fn limits(names: &At<Vec<At<Name>>>, known: &[RateLimit], sink: &mut Sink) {
    for name in names.iter() {
        let limit = known.iter().find(|limit| limit.name == name.value.0);
        if limit.is_some_and(RateLimit::needs_identity) {
            let title = format!(
                "the rate limit `{}` counts by who a request is from, and the route asks nobody to \
                 show it: that is the same for all of them",
                short(&name.value.0)
            );
            let problem = Problem::error(name.place().unwrap_or(TOP), title);
            sink.push(problem.fix(format!("{FIX}, or name a limit with key = \"client\"")));
        }
    }
}

/// A text without anything in place of the value. A set of policies that other routes have too may
/// be meant so.
pub(super) fn text(text: &Template, place: Place, sink: &mut Sink) {
    if text.needs_identity() {
        let title = "the text has a value of an identity, and the route asks nobody to show one: \
                     it is never there";
        let fix = format!("{FIX}, or write what to put in its place: ${{subject|nobody}}");
        sink.push(Problem::warning(place, title).fix(fix));
    }
}
