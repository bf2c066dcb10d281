//! From rules to a [`Router`], with everything that is wrong about them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use super::{
    ConflictKind, PathPattern, RouteConflict, RouteId, RouteRule, Router, RouterRoute,
    conditions::Conditions,
    index::{Group, HostIndex},
    pattern::{CheckedHost, CheckedPath, PathRank},
};

/// A rule whose patterns are sound.
struct Checked {
    id: RouteId,
    hosts: Vec<CheckedHost>,
    path: CheckedPath,
    conditions: Conditions,
}

/// Precedence within one host.
type Rank = (PathRank, (bool, Reverse<usize>, Reverse<usize>), RouteId);

/// The routes of one host pattern in precedence order; the index is into the checked rules.
type Ranked = Vec<(Rank, usize)>;

pub(super) fn compile(rules: &[RouteRule]) -> Result<Router, Vec<RouteConflict>> {
    let mut conflicts = Vec::new();
    let mut checked = Vec::with_capacity(rules.len());
    for (rule, id) in rules.iter().zip(0..) {
        match check(rule, id) {
            Ok(rule) => checked.push(rule),
            Err(messages) => conflicts.extend(messages.into_iter().map(|message| RouteConflict {
                route: id,
                kind: ConflictKind::BadPattern { message },
            })),
        }
    }
    let hosts = by_host(&checked);
    conflicts.extend(dead_routes(&checked, &hosts));
    conflicts.sort_by_key(|c| c.route);
    if conflicts.is_empty() { Ok(router(&checked, hosts)) } else { Err(conflicts) }
}

fn check(rule: &RouteRule, id: RouteId) -> Result<Checked, Vec<String>> {
    let mut faults = Vec::new();
    let mut hosts = Vec::with_capacity(rule.hosts.len().max(1));
    for host in &rule.hosts {
        match CheckedHost::check(host) {
            Ok(host) => hosts.push(host),
            Err(fault) => faults.push(fault),
        }
    }
    if rule.hosts.is_empty() {
        hosts.push(CheckedHost::Any);
    }
    hosts.sort();
    hosts.dedup();
    let path = CheckedPath::check(&rule.path).map_err(|fault| faults.push(fault));
    let conditions = Conditions::check(rule).map_err(|mut wrong| faults.append(&mut wrong));
    match (path, conditions) {
        (Ok(path), Ok(conditions)) if faults.is_empty() => {
            Ok(Checked { id, hosts, path, conditions })
        }
        _ => Err(faults),
    }
}

fn by_host(checked: &[Checked]) -> BTreeMap<&CheckedHost, Ranked> {
    let mut hosts: BTreeMap<&CheckedHost, Ranked> = BTreeMap::new();
    let mut regexes: HashMap<(&CheckedHost, &str), usize> = HashMap::new();
    for (i, rule) in checked.iter().enumerate() {
        for host in &rule.hosts {
            let regex_rank = match &rule.path {
                CheckedPath::Regex(regex) => *regexes.entry((host, regex.as_str())).or_insert(i),
                _ => 0,
            };
            let rank = (rule.path.rank(regex_rank), rule.conditions.rank(), rule.id);
            hosts.entry(host).or_default().push((rank, i));
        }
    }
    for ranked in hosts.values_mut() {
        ranked.sort_unstable();
    }
    hosts
}

/// Runs of routes with the same path pattern.
fn groups(ranked: &Ranked) -> impl Iterator<Item = &[(Rank, usize)]> {
    ranked.chunk_by(|a, b| a.0.0 == b.0.0)
}

/// Routes that another stands before on every one of their hosts.
///
/// Only routes with the same path pattern are compared: precedence puts the narrower pattern first,
/// so no other can be hidden by one route alone, save by ways that cannot be proved here.
fn dead_routes(checked: &[Checked], hosts: &BTreeMap<&CheckedHost, Ranked>) -> Vec<RouteConflict> {
    let mut dead_hosts: BTreeMap<usize, (usize, bool, usize)> = BTreeMap::new();
    for group in hosts.values().flat_map(groups) {
        for (at, (_, hidden)) in group.iter().enumerate() {
            let theirs = &checked[*hidden].conditions;
            let before = group[..at].iter().map(|(_, i)| *i);
            let Some(by) = before.into_iter().find(|i| checked[*i].conditions.covers(theirs))
            else {
                continue;
            };
            let same = theirs.covers(&checked[by].conditions);
            let entry = dead_hosts.entry(*hidden).or_insert((0, true, by));
            entry.0 += 1;
            entry.1 &= same;
        }
    }
    let everywhere =
        dead_hosts.into_iter().filter(|(i, (count, ..))| *count == checked[*i].hosts.len());
    everywhere
        .map(|(i, (_, same, by))| {
            let of = checked[by].id;
            let kind = if same {
                ConflictKind::Duplicate { of }
            } else {
                ConflictKind::Unreachable { because_of: of }
            };
            RouteConflict { route: checked[i].id, kind }
        })
        .collect()
}

fn router(checked: &[Checked], hosts: BTreeMap<&CheckedHost, Ranked>) -> Router {
    let mut router = Router::default();
    for rule in checked {
        router.routes.push(RouterRoute {
            conditions: rule.conditions.clone(),
            param_names: rule.path.param_names(),
            path_kind: rule.path.kind(),
        });
    }
    for (host, ranked) in hosts {
        let at = router.hosts.len() as u32;
        match host {
            CheckedHost::Exact(name) => drop(router.exact_hosts.insert(name.clone(), at)),
            CheckedHost::Below(name) => drop(router.wildcard_hosts.insert(name.clone(), at)),
            CheckedHost::Any => router.any_host = Some(at),
        }
        let order = ranked.iter().map(|((.., id), _)| *id).collect();
        let mut start = 0;
        let runs = groups(&ranked).map(|run| {
            let group = Group { start, end: start + run.len() as u32 };
            start = group.end;
            (&checked[run[0].1].path, group)
        });
        router.hosts.push(HostIndex::build(order, runs));
    }
    router
}

impl PathPattern {
    /// Names of what the pattern captures, in the order of `RouteMatch::params`, or what is wrong
    /// with it. An unnamed group of a regex is called by its number.
    pub fn param_names(&self) -> Result<Vec<String>, String> {
        CheckedPath::check(self).map(|path| path.param_names())
    }
}
