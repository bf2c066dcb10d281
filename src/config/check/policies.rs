//! The policies of a route, gathered from itself and its sets, and compiled.

use super::{TOP, auth, rate_limits, rules::no_such};
use crate::config::{
    decode::Sink,
    file::{self, File, PolicyKeys, Route},
    snapshot::{Maintenance, Policies, RateLimit, Way},
};

/// Those of `route`; `None` when there are none.
pub(super) fn policies(
    file: &File,
    route: &Route,
    (ways, limits): (&[Way], &[RateLimit]),
    sink: &mut Sink,
) -> Option<Box<Policies>> {
    let written = gathered(file, route, sink);
    let authenticate = auth::authenticate(file, &written, ways, sink);
    let own_fields = authenticate.as_ref().map(|asked| auth::own_fields(asked, ways));
    let policies = Policies {
        maintenance: written.maintenance.as_ref().map(maintenance),
        authenticate,
        own_fields: own_fields.unwrap_or_default(),
        rate_limits: rate_limits::of_route(file, limits, written.rate_limits, sink),
    };
    let Policies { maintenance, authenticate, own_fields: _, rate_limits } = &policies;
    (maintenance.is_some() || authenticate.is_some() || rate_limits.is_some())
        .then(|| Box::new(policies))
}

/// What the route says, and else its sets.
fn gathered<'f>(file: &'f File, route: &'f Route, sink: &mut Sink) -> PolicyKeys<'f> {
    let own = route.policies();
    let known = &file.policies.value.0;
    let mut all = own;
    for name in route.policies.iter() {
        match known.iter().find(|(set, _)| set.value == name.value.0) {
            Some((_, Some(set))) => all = all.or(&own, &set.policies(), sink),
            // It is wrong, and reported.
            Some((_, None)) => {}
            None if file.policies.is_wrong() => {}
            None => {
                let names: Vec<&str> = known.iter().map(|(set, _)| set.value.as_str()).collect();
                let place = name.place().unwrap_or(TOP);
                sink.push(no_such("set of policies", "policies", &name.value.0, place, &names));
            }
        }
    }
    all
}

fn maintenance(written: &file::Maintenance) -> Maintenance {
    // Bounded by the file's maximum.
    let seconds = written.retry_after.0.div_ceil(1000);
    Maintenance { retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX) }
}
