//! The policies of a route, gathered from itself and its sets, and compiled.

use std::path::Path;

use super::{TOP, addresses, rules::no_such};
use crate::config::{
    decode::Sink,
    file::{self, File, PolicyKeys, Route},
    snapshot::{Maintenance, Policies},
};

/// What the policies of several routes name, compiled once.
pub(super) struct Shared<'f> {
    /// Where files named in the configuration are.
    pub folder: &'f Path,
    pub lists: addresses::Known,
}

impl<'f> Shared<'f> {
    pub fn of(file: &File, folder: &'f Path, sink: &mut Sink) -> Shared<'f> {
        let shared = Shared { folder, lists: addresses::lists(file, folder, sink) };
        // Also those that no route names; what is reported again for a route is told once.
        for (_, set) in &file.policies.value.0 {
            if let Some(set) = set {
                compiled(&set.policies(), &shared, sink);
            }
        }
        shared
    }
}

/// Those of `route`; `None` when there are none.
pub(super) fn policies(
    file: &File,
    shared: &Shared<'_>,
    route: &Route,
    sink: &mut Sink,
) -> Option<Box<Policies>> {
    let written = gathered(file, route, sink);
    let policies = compiled(&written, shared, sink);
    let Policies { maintenance, addresses } = &policies;
    (maintenance.is_some() || addresses.is_some()).then(|| Box::new(policies))
}

/// What is written, as the data path uses it.
fn compiled(written: &PolicyKeys<'_>, shared: &Shared<'_>, sink: &mut Sink) -> Policies {
    Policies {
        maintenance: written.maintenance.as_ref().map(maintenance),
        addresses: shared.lists.policy(written.addresses, sink),
    }
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
