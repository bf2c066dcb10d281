//! Finds the first route in precedence order that takes a request.

use super::{
    PARAMS_MAX, RequestView, RouteId, RouteMatch, Router,
    conditions::Verdict,
    index::{Group, HostIndex, NO_NODE, ROOT, RegexGroup, segment_end},
    pattern::HOST_BYTES_MAX,
};
use crate::{
    policy::{
        Refusal,
        refusal::{MethodSet, ROUTE_HOST, ROUTE_METHOD, ROUTE_NOT_FOUND},
    },
    wire::Span,
};

/// Watches a search. The one for requests does nothing and costs nothing.
pub(super) trait Observer {
    /// The search goes on with routes of this host pattern.
    fn host(&mut self, host: HostKind);
    /// Host and path of this route match; `rank` orders the routes of one host.
    fn considered(&mut self, rank: u32, route: RouteId, verdict: Verdict);
}

impl Observer for () {
    fn host(&mut self, _: HostKind) {}
    fn considered(&mut self, _: u32, _: RouteId, _: Verdict) {}
}

/// Which kind of host pattern matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostKind {
    Exact,
    Wildcard,
    /// The route names no host.
    Any,
}

/// One search: what was learnt from routes that did not take the request.
struct Search<'a, O> {
    router: &'a Router,
    request: &'a RequestView<'a>,
    observer: &'a mut O,
    /// Some route wanted only another method; these are the methods.
    allow: Option<MethodSet>,
}

pub(super) fn find<O: Observer>(
    router: &Router,
    request: &RequestView<'_>,
    observer: &mut O,
) -> Result<RouteMatch, Refusal> {
    let mut search = Search { router, request, observer, allow: None };
    let mut hosts_met = 0;
    let found = router.for_hosts(request.host, |kind, index| {
        hosts_met += 1;
        search.observer.host(kind);
        search.host(index)
    });
    if let Some(found) = found {
        return Ok(found);
    }
    Err(match search.allow {
        Some(allow) => Refusal { allow, ..ROUTE_METHOD.into() },
        None if hosts_met == 0 && !router.routes.is_empty() => ROUTE_HOST.into(),
        None => ROUTE_NOT_FOUND.into(),
    })
}

impl Router {
    /// Calls `visit` with the routes of every host pattern that matches, most specific first,
    /// until it answers.
    fn for_hosts<T>(
        &self,
        host: &[u8],
        mut visit: impl FnMut(HostKind, &HostIndex) -> Option<T>,
    ) -> Option<T> {
        let host = host.strip_suffix(b".").unwrap_or(host);
        let named = !(self.exact_hosts.is_empty() && self.wildcard_hosts.is_empty());
        if named && host.len() <= HOST_BYTES_MAX {
            let mut lower = [0; HOST_BYTES_MAX];
            let host = lowered(host, &mut lower);
            if let Some(at) = self.exact_hosts.get(host)
                && let Some(answer) = visit(HostKind::Exact, &self.hosts[*at as usize])
            {
                return Some(answer);
            }
            if !self.wildcard_hosts.is_empty() {
                for dot in memchr::memchr_iter(b'.', host).filter(|dot| *dot > 0) {
                    if let Some(at) = self.wildcard_hosts.get(&host[dot + 1..])
                        && let Some(answer) = visit(HostKind::Wildcard, &self.hosts[*at as usize])
                    {
                        return Some(answer);
                    }
                }
            }
        }
        self.any_host.and_then(|at| visit(HostKind::Any, &self.hosts[at as usize]))
    }
}

fn lowered<'a>(host: &'a [u8], buf: &'a mut [u8; HOST_BYTES_MAX]) -> &'a [u8] {
    // Without an early end, so that it compiles to vector instructions.
    if !host.iter().fold(false, |upper, byte| upper | byte.is_ascii_uppercase()) {
        return host;
    }
    let buf = &mut buf[..host.len()];
    buf.copy_from_slice(host);
    buf.make_ascii_lowercase();
    buf
}

impl<O: Observer> Search<'_, O> {
    /// The kinds of path in precedence order.
    fn host(&mut self, index: &HostIndex) -> Option<RouteMatch> {
        let path = self.request.path;
        if path.first() == Some(&b'/') {
            if let Some(rank) = self.group(index, index.exact(path)) {
                return Some(matched(index, rank, path.len()));
            }
            if let Some(found) = self.templates(index) {
                return Some(found);
            }
        }
        if let Some(found) = index.for_regexes(path, |regex| self.regex(index, regex)) {
            return Some(found);
        }
        if path.first() == Some(&b'/') {
            let mut at = index.longest_prefix(path);
            while at != NO_NODE {
                let node = index.node(at);
                if let Some(rank) = self.group(index, node.prefix) {
                    return Some(matched(index, rank, node.prefix_len as usize));
                }
                at = node.shorter_prefix;
            }
        }
        self.group(index, index.any).map(|rank| matched(index, rank, 0))
    }

    /// The first route of a group whose other conditions are met, by rank.
    fn group(&mut self, index: &HostIndex, group: Group) -> Option<u32> {
        (group.start..group.end).find(|rank| {
            let route = index.order[*rank as usize];
            let conditions = &self.router.routes[route as usize].conditions;
            let verdict = conditions.verdict(self.request);
            self.observer.considered(*rank, route, verdict);
            if verdict == Verdict::Method {
                let allow = self.allow.unwrap_or_default();
                self.allow = Some(allow.union(conditions.allowed()));
            }
            verdict == Verdict::Met
        })
    }

    fn regex(&mut self, index: &HostIndex, regex: &RegexGroup) -> Option<RouteMatch> {
        let rank = self.group(index, regex.group)?;
        let mut found = matched(index, rank, 0);
        if regex.regex.captures_len() > 1 {
            let mut groups = regex.regex.capture_locations();
            regex.regex.captures_read(&mut groups, self.request.path);
            for i in 1..groups.len() {
                let (start, end) = groups.get(i).unwrap_or_default();
                found.params[i - 1] = Span::new(start, end);
            }
            found.params_len = (groups.len() - 1) as u8;
        }
        Some(found)
    }

    fn templates(&mut self, index: &HostIndex) -> Option<RouteMatch> {
        if !index.has_templates() {
            return None;
        }
        let mut walk = Walk {
            index,
            params: [Span::EMPTY; PARAMS_MAX],
            params_len: 0,
            best_rank: u32::MAX,
            best: None,
        };
        self.walk(&mut walk, ROOT, 1);
        walk.best
    }

    /// Visits every node that matches the path from `start` on, unless nothing below it can beat
    /// what is already found. As deep as the deepest template at most.
    fn walk(&mut self, walk: &mut Walk<'_>, at: u32, start: usize) {
        let path = self.request.path;
        let node = walk.index.node(at);
        if node.best_rank >= walk.best_rank {
            return;
        }
        if start > path.len() {
            return self.template(walk, node.template);
        }
        let end = segment_end(path, start);
        let child = node.child(&path[start..end]);
        if child != NO_NODE {
            self.walk(walk, child, end + 1);
        }
        if node.param != NO_NODE && end > start {
            walk.push(Span::new(start, end));
            self.walk(walk, node.param, end + 1);
            walk.params_len -= 1;
        }
        if !node.rest.is_empty() && start < path.len() {
            walk.push(Span::new(start, path.len()));
            self.template(walk, node.rest);
            walk.params_len -= 1;
        }
    }

    fn template(&mut self, walk: &mut Walk<'_>, group: Group) {
        let better = Group { start: group.start, end: group.end.min(walk.best_rank) };
        let Some(rank) = self.group(walk.index, better) else { return };
        let fixed = walk.params[..walk.params_len].first();
        // Up to the slash before the first parameter.
        let prefix_len = fixed.map_or(self.request.path.len(), |p| p.start as usize - 1);
        let mut found = matched(walk.index, rank, prefix_len);
        found.params = walk.params;
        found.params_len = walk.params_len as u8;
        walk.best_rank = rank;
        walk.best = Some(found);
    }
}

/// A walk through the templates of one host.
struct Walk<'a> {
    index: &'a HostIndex,
    params: [Span; PARAMS_MAX],
    params_len: usize,
    /// Rank of `best`.
    best_rank: u32,
    best: Option<RouteMatch>,
}

impl Walk<'_> {
    /// Compiling bounds the parameters of every template by [`PARAMS_MAX`].
    fn push(&mut self, span: Span) {
        self.params[self.params_len] = span;
        self.params_len += 1;
    }
}

fn matched(index: &HostIndex, rank: u32, prefix_len: usize) -> RouteMatch {
    RouteMatch {
        route: index.order[rank as usize],
        params: [Span::EMPTY; PARAMS_MAX],
        params_len: 0,
        prefix_len: prefix_len as u32,
    }
}
