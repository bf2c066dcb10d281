//! Which route a request takes. A [`Router`] is compiled once per snapshot and only read after.
//!
//! Precedence is the Kubernetes Gateway API's. Of all routes that match, the one is taken that
//! comes first by:
//!
//! 1. host: exact, then the longest wildcard, then routes that name no host;
//! 2. path: exact, then template, then regex, then the longest prefix, then any. Among templates
//!    the one with more literal segments, then the one with a literal at the leftmost segment where
//!    they differ; among regexes the one configured first;
//! 3. a method given before none;
//! 4. more header matches, then more query matches;
//! 5. the order of the configuration.
//!
//! Where one condition fails the next candidate is tried, across hosts too. Finding a route takes
//! hash lookups only: ten thousand cost what ten do (`benches/route.rs` counts). Nothing is
//! allocated, save by the regex engine, and that only on hosts with regex routes when no exact path
//! or template took the request.

mod compile;
pub(super) mod conditions;
mod explain;
mod index;
mod pattern;
mod search;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use ahash::RandomState;

use super::Refusal;
use crate::wire::{Method, RequestHead, Span};

pub use conditions::checked_values;
pub use explain::{Considered, Outcome};
pub use pattern::SEGMENTS_MAX;
pub(super) use pattern::{hex_pair, normalised};
pub use search::HostKind;

/// Index of a route in the configuration's order.
pub type RouteId = u32;

/// When a route applies, as checked from the configuration. Empty lists mean "any".
#[derive(Clone, Debug, Default)]
pub struct RouteRule {
    pub name: String,
    /// Exact hosts or `*.example.com`; lower case, without port.
    pub hosts: Vec<String>,
    pub path: PathPattern,
    /// Empty: every method. GET implies HEAD.
    pub methods: Vec<String>,
    /// With `methods`: a CORS preflight for one of them too.
    pub preflights: bool,
    pub headers: Vec<ValueMatch>,
    pub query: Vec<ValueMatch>,
}

#[derive(Clone, Debug, Default)]
pub enum PathPattern {
    /// Every path.
    #[default]
    Any,
    Exact(String),
    /// On a segment boundary: `/a` matches `/a` and `/a/b`, not `/ab`. A trailing slash is ignored.
    Prefix(String),
    /// `/users/{id}/orders`; a final `{*rest}` takes one or more segments.
    Template(String),
    /// Must match the whole path. Flags stand inside the expression, such as `(?i)`.
    Regex(regex::bytes::Regex),
}

/// A header or query parameter that must be there, and how its value must look. Of several field
/// lines or parameters with the name, any may match.
#[derive(Clone, Debug)]
pub struct ValueMatch {
    /// Lower case for headers; exact for query parameters.
    pub name: String,
    pub value: ValuePattern,
}

#[derive(Clone, Debug)]
pub enum ValuePattern {
    Present,
    Absent,
    Exact(String),
    /// Must match the whole value (of a query parameter: decoded, see `pairs`).
    Regex(regex::bytes::Regex),
}

/// Everything a match may look at. `path` is the normalised form to match on.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    pub method: Method,
    pub method_text: &'a [u8],
    /// Without port; any case. Empty when the request has none.
    pub host: &'a [u8],
    pub path: &'a [u8],
    pub query: Option<&'a [u8]>,
    pub head: &'a RequestHead,
    /// The buffer `head` refers to.
    pub buf: &'a [u8],
}

/// Most parameters a template or regex may capture; more is a configuration error.
pub const PARAMS_MAX: usize = 16;

/// The route found and what its pattern captured, as spans of `RequestView::path`.
#[derive(Clone, Copy, Debug)]
pub struct RouteMatch {
    pub route: RouteId,
    /// In the order the pattern declares them (regex: groups 1, 2, ...).
    pub params: [Span; PARAMS_MAX],
    pub params_len: u8,
    /// Bytes of the path that the pattern's fixed prefix took (for `strip_prefix`): of a prefix all
    /// of it without trailing slash, of an exact path the path, of a template the literal segments
    /// before the first parameter, else 0.
    pub prefix_len: u32,
}

/// A rule that can never do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConflict {
    pub route: RouteId,
    pub kind: ConflictKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// Same conditions as that route.
    Duplicate { of: RouteId },
    /// That route takes every request this one could.
    Unreachable { because_of: RouteId },
    /// The pattern itself is wrong; says what and how to mend it.
    BadPattern { message: String },
}

/// Which kind of path pattern a route has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    Exact,
    Template,
    Regex,
    Prefix,
    Any,
}

/// All routes, indexed so that ten thousand cost what ten do.
#[derive(Clone, Debug, Default)]
pub struct Router {
    hosts: Vec<index::HostIndex>,
    /// Into `hosts`; lower case.
    exact_hosts: HashMap<Box<[u8]>, u32, RandomState>,
    /// By the part after `*.`.
    wildcard_hosts: HashMap<Box<[u8]>, u32, RandomState>,
    any_host: Option<u32>,
    /// By [`RouteId`].
    routes: Vec<RouterRoute>,
}

#[derive(Clone, Debug)]
struct RouterRoute {
    conditions: conditions::Conditions,
    param_names: Vec<String>,
    path_kind: PathKind,
}

impl Router {
    /// Compiles rules given in the configuration's order. Reports every conflict at once, by
    /// ascending route; a rule can have several bad patterns.
    pub fn compile(rules: &[RouteRule]) -> Result<Router, Vec<RouteConflict>> {
        compile::compile(rules)
    }

    /// The route for a request, or why there is none (404, 405 with the methods, 421).
    #[inline]
    pub fn find(&self, request: &RequestView<'_>) -> Result<RouteMatch, Refusal> {
        search::find(self, request, &mut ())
    }

    /// Names of what the route's path captures, in the order of `RouteMatch::params`.
    pub fn param_names(&self, route: RouteId) -> &[String] {
        &self.routes[route as usize].param_names
    }
}
