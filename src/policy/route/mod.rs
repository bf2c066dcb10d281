//! Which route a request takes. A [`Router`] is compiled once per snapshot and only read after.

use super::{Refusal, refusal::MethodSet};
use crate::wire::{Method, RequestHead, Span};

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
    /// Anchored at both ends.
    Regex(regex::bytes::Regex),
}

/// A header or query parameter that must be there, and how its value must look.
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
    /// Bytes of the path that the pattern's fixed prefix took (for `strip_prefix`).
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

/// All routes, indexed so that ten thousand cost what ten do.
#[derive(Clone, Debug, Default)]
pub struct Router {}

impl Router {
    /// Compiles rules given in the configuration's order. Reports every conflict at once.
    pub fn compile(rules: &[RouteRule]) -> Result<Router, Vec<RouteConflict>> {
        let _ = rules;
        Ok(Router {})
    }

    /// The route for a request, or why there is none (404, 405 with the methods, 421).
    pub fn find(&self, request: &RequestView<'_>) -> Result<RouteMatch, Refusal> {
        let _ = (request, MethodSet::default());
        Err(super::refusal::ROUTE_NOT_FOUND.into())
    }
}
