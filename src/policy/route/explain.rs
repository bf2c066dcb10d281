//! Why a request takes the route it takes, told by the search itself.

use super::{
    PathKind, RequestView, RouteId, Router,
    conditions::Verdict,
    search::{self, HostKind, Observer},
};

/// A route whose host and path match the request, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    pub route: RouteId,
    pub host: HostKind,
    pub path: PathKind,
    pub outcome: Outcome,
}

/// What decided about a considered route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This is the route.
    Taken,
    /// Everything but the method matches.
    Method,
    /// The match on this header fails.
    Header(String),
    /// The match on this query parameter fails.
    Query(String),
}

#[derive(Default)]
struct Record {
    hosts: Vec<HostKind>,
    /// Host's place in the search, rank there, route.
    seen: Vec<(usize, u32, RouteId, Verdict)>,
}

impl Observer for Record {
    fn host(&mut self, host: HostKind) {
        self.hosts.push(host);
    }

    fn considered(&mut self, rank: u32, route: RouteId, verdict: Verdict) {
        self.seen.push((self.hosts.len() - 1, rank, route, verdict));
    }
}

impl Router {
    /// The routes whose host and path match, in precedence order, up to and including the one
    /// taken. When none is, `find` says with what the request is refused.
    pub fn explain(&self, request: &RequestView<'_>) -> Vec<Considered> {
        let mut record = Record::default();
        // The outcome is in the record: a route was taken exactly if its conditions are met and no
        // earlier one's are.
        let _ = search::find(self, request, &mut record);
        record.seen.sort_by_key(|(host, rank, ..)| (*host, *rank));
        let taken = record.seen.iter().position(|(.., verdict)| *verdict == Verdict::Met);
        record.seen.truncate(taken.map_or(usize::MAX, |at| at + 1));
        let hosts = record.hosts;
        let told = record.seen.into_iter().map(|(host, _, route, verdict)| {
            let known = &self.routes[route as usize];
            let outcome = match verdict {
                Verdict::Met => Outcome::Taken,
                Verdict::Method => Outcome::Method,
                Verdict::Header(i) => Outcome::Header(known.conditions.header_name(i).to_owned()),
                Verdict::Query(i) => Outcome::Query(known.conditions.query_name(i).to_owned()),
            };
            Considered { route, host: hosts[host], path: known.path_kind, outcome }
        });
        told.collect()
    }
}
