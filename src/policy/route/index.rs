//! The routes of one host, found by hash lookups: never by going through them.
//!
//! `order` holds the host's routes in precedence order, so a route's place in it is its rank.
//! Routes with the same path pattern stand together; exact map, trie and regex list lead to such
//! [`Group`]s.

use ahash::RandomState;
use regex::bytes::{Regex, RegexSet};
use std::collections::HashMap;

use super::{
    RouteId,
    pattern::{CheckedPath, Segment},
};

type BytesMap<V> = HashMap<Box<[u8]>, V, RandomState>;

/// Half-open range of ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Group {
    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }
}

pub(super) const ROOT: u32 = 0;
pub(super) const NO_NODE: u32 = u32::MAX;
const NO_RANK: u32 = u32::MAX;

#[derive(Clone, Debug, Default)]
pub(super) struct HostIndex {
    pub(super) order: Vec<RouteId>,
    exact: BytesMap<Group>,
    /// Templates and prefixes; node 0 is the root and always there.
    nodes: Vec<Node>,
    regexes: Vec<RegexGroup>,
    /// Tells which of `regexes` match in one pass; only where there are several.
    regex_set: Option<RegexSet>,
    pub(super) any: Group,
}

#[derive(Clone, Debug)]
pub(super) struct RegexGroup {
    pub(super) regex: Regex,
    pub(super) group: Group,
}

/// A place in the trie: the segments from the root to here.
#[derive(Clone, Debug)]
pub(super) struct Node {
    children: BytesMap<u32>,
    /// The child that takes any one segment.
    pub(super) param: u32,
    /// Templates that end here.
    pub(super) template: Group,
    /// Templates whose `{*rest}` begins here.
    pub(super) rest: Group,
    pub(super) prefix: Group,
    /// Bytes of the path up to here; meaningful for prefixes, which have no parameters.
    pub(super) prefix_len: u32,
    /// Next shorter prefix, or [`NO_NODE`].
    pub(super) shorter_prefix: u32,
    /// Least rank of a template here or below: nothing better can be found by going on.
    pub(super) best_rank: u32,
    parent: u32,
}

impl Node {
    fn new(parent: u32, prefix_len: u32) -> Node {
        Node {
            children: BytesMap::default(),
            param: NO_NODE,
            template: Group::default(),
            rest: Group::default(),
            prefix: Group::default(),
            prefix_len,
            shorter_prefix: NO_NODE,
            best_rank: NO_RANK,
            parent,
        }
    }

    #[inline]
    pub(super) fn child(&self, segment: &[u8]) -> u32 {
        if self.children.is_empty() {
            return NO_NODE;
        }
        self.children.get(segment).copied().unwrap_or(NO_NODE)
    }
}

impl HostIndex {
    /// `groups` yields each path pattern with the ranks that have it, in precedence order.
    pub(super) fn build<'a>(
        order: Vec<RouteId>,
        groups: impl Iterator<Item = (&'a CheckedPath, Group)>,
    ) -> HostIndex {
        let mut index = HostIndex { order, ..HostIndex::default() };
        index.nodes.push(Node::new(NO_NODE, 0));
        for (path, group) in groups {
            match path {
                CheckedPath::Any => index.any = group,
                CheckedPath::Exact(path) => {
                    index.exact.insert(path.clone(), group);
                }
                CheckedPath::Prefix(path) => index.insert_prefix(path, group),
                CheckedPath::Template(segments) => index.insert_template(segments, group),
                CheckedPath::Regex(regex) => {
                    index.regexes.push(RegexGroup { regex: regex.clone(), group });
                }
            }
        }
        index.link_prefixes();
        index.exact.shrink_to_fit();
        if index.regexes.len() > 1 {
            // Too large for a set: they are then tried one after the other.
            index.regex_set = RegexSet::new(index.regexes.iter().map(|r| r.regex.as_str())).ok();
        }
        index
    }

    fn insert_prefix(&mut self, path: &[u8], group: Group) {
        let mut at = ROOT;
        for segment in path.split(|b| *b == b'/').skip(1) {
            at = self.child_made(at, segment);
        }
        self.nodes[at as usize].prefix = group;
    }

    fn insert_template(&mut self, segments: &[Segment], group: Group) {
        let mut at = ROOT;
        for segment in segments {
            let node = &mut self.nodes[at as usize];
            node.best_rank = node.best_rank.min(group.start);
            match segment {
                Segment::Literal(text) => at = self.child_made(at, text),
                Segment::Param(_) => at = self.param_made(at),
                Segment::Rest(_) => {
                    node.rest = group;
                    return;
                }
            }
        }
        let node = &mut self.nodes[at as usize];
        node.best_rank = node.best_rank.min(group.start);
        node.template = group;
    }

    fn child_made(&mut self, at: u32, segment: &[u8]) -> u32 {
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[at as usize];
        let prefix_len = node.prefix_len + 1 + segment.len() as u32;
        let child = *node.children.entry(segment.into()).or_insert(next);
        if child == next {
            self.nodes.push(Node::new(at, prefix_len));
        }
        child
    }

    fn param_made(&mut self, at: u32) -> u32 {
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[at as usize];
        if node.param != NO_NODE {
            return node.param;
        }
        node.param = next;
        let prefix_len = node.prefix_len;
        self.nodes.push(Node::new(at, prefix_len));
        next
    }

    /// Parents come before their children, so one pass suffices.
    fn link_prefixes(&mut self) {
        for i in 1..self.nodes.len() {
            let parent = self.nodes[i].parent;
            let above = &self.nodes[parent as usize];
            let shorter = if above.prefix.is_empty() { above.shorter_prefix } else { parent };
            self.nodes[i].shorter_prefix = shorter;
        }
    }

    #[inline]
    pub(super) fn exact(&self, path: &[u8]) -> Group {
        if self.exact.is_empty() {
            return Group::default();
        }
        self.exact.get(path).copied().unwrap_or_default()
    }

    #[inline]
    pub(super) fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    #[inline]
    pub(super) fn has_templates(&self) -> bool {
        self.node(ROOT).best_rank != NO_RANK
    }

    /// The longest prefix of `path` that a route has, or [`NO_NODE`].
    pub(super) fn longest_prefix(&self, path: &[u8]) -> u32 {
        let mut at = ROOT;
        let mut start = 1;
        while start <= path.len() {
            let end = segment_end(path, start);
            let child = self.node(at).child(&path[start..end]);
            if child == NO_NODE {
                break;
            }
            at = child;
            start = end + 1;
        }
        let node = self.node(at);
        if node.prefix.is_empty() { node.shorter_prefix } else { at }
    }

    /// Calls `found` with every regex that matches, in configuration order, until it says stop.
    pub(super) fn for_regexes<T>(
        &self,
        path: &[u8],
        mut found: impl FnMut(&RegexGroup) -> Option<T>,
    ) -> Option<T> {
        match &self.regex_set {
            Some(set) => set.matches(path).iter().find_map(|i| found(&self.regexes[i])),
            None => self.regexes.iter().filter(|r| r.regex.is_match(path)).find_map(found),
        }
    }
}

/// Where the segment that starts at `start` ends.
#[inline]
pub(super) fn segment_end(path: &[u8], start: usize) -> usize {
    // Most segments are short, and then looking costs less than a call.
    const SHORT: usize = 16;
    let rest = &path[start..];
    let (near, far) = rest.split_at(rest.len().min(SHORT));
    match near.iter().position(|b| *b == b'/') {
        Some(n) => start + n,
        None => memchr::memchr(b'/', far).map_or(path.len(), |n| start + near.len() + n),
    }
}
