//! What a route asks of a request besides host and path: method, header fields, query parameters.

use super::{RequestView, RouteRule, ValueMatch, ValuePattern, pattern};
use crate::{
    policy::{cors::preflight, pairs, refusal::MethodSet},
    wire::Method,
};

/// Checked conditions of one route. Regular expressions speak about the whole value.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    methods: Option<Methods>,
    headers: Box<[ValueMatch]>,
    query: Box<[ValueMatch]>,
}

#[derive(Clone, Debug, Default)]
struct Methods {
    known: MethodSet,
    /// Those [`Method`] does not know.
    other: Box<[Box<str>]>,
    /// OPTIONS, where it asks about one of them for a page of another origin.
    preflights: bool,
}

/// Whether a request meets the conditions, and if not, the first that it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    /// Everything but the method.
    Method,
    /// Index of the header match.
    Header(usize),
    Query(usize),
}

impl Conditions {
    pub(super) fn check(rule: &RouteRule) -> Result<Conditions, Vec<String>> {
        let mut faults = Vec::new();
        let mut conditions = Conditions::default();
        match Methods::check(&rule.methods, rule.preflights) {
            Ok(methods) => conditions.methods = methods,
            Err(mut wrong) => faults.append(&mut wrong),
        }
        let mut values = |list: &[ValueMatch], lower: bool| -> Box<[ValueMatch]> {
            let checked = list.iter().map(|m| checked_value(m, lower));
            checked.filter_map(|c| c.map_err(|fault| faults.push(fault)).ok()).collect()
        };
        conditions.headers = values(&rule.headers, true);
        conditions.query = values(&rule.query, false);
        if faults.is_empty() { Ok(conditions) } else { Err(faults) }
    }

    /// Compares as precedence has it: less is tried earlier.
    pub(super) fn rank(&self) -> (bool, std::cmp::Reverse<usize>, std::cmp::Reverse<usize>) {
        let (headers, query) = (self.headers.len(), self.query.len());
        (self.methods.is_none(), std::cmp::Reverse(headers), std::cmp::Reverse(query))
    }

    #[inline]
    pub(super) fn verdict(&self, request: &RequestView<'_>) -> Verdict {
        if let Some(i) = self.headers.iter().position(|m| !header_met(m, request)) {
            return Verdict::Header(i);
        }
        if let Some(i) = self.query.iter().position(|m| !query_met(m, request.query)) {
            return Verdict::Query(i);
        }
        match &self.methods {
            Some(methods) if !methods.contains(request) => Verdict::Method,
            _ => Verdict::Met,
        }
    }

    /// The known methods this route would take; empty when it takes all.
    pub(super) fn allowed(&self) -> MethodSet {
        self.methods.as_ref().map(|m| m.known).unwrap_or_default()
    }

    pub(super) fn header_name(&self, i: usize) -> &str {
        &self.headers[i].name
    }

    pub(super) fn query_name(&self, i: usize) -> &str {
        &self.query[i].name
    }

    /// Every request that meets `other` meets `self`. May say no although it is so.
    pub(super) fn covers(&self, other: &Conditions) -> bool {
        let methods = match (&self.methods, &other.methods) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(others)) => mine.covers(others),
        };
        let implied = |mine: &[ValueMatch], others: &[ValueMatch]| {
            mine.iter().all(|m| others.iter().any(|o| implies(o, m)))
        };
        methods && implied(&self.headers, &other.headers) && implied(&self.query, &other.query)
    }
}

impl Methods {
    fn check(list: &[String], preflights: bool) -> Result<Option<Methods>, Vec<String>> {
        if list.is_empty() {
            return Ok(None);
        }
        let (mut known, mut other, mut faults) = (MethodSet::default(), Vec::new(), Vec::new());
        for text in list {
            match Method::from_bytes(text.as_bytes()) {
                Method::Other => match unknown_method_fault(text) {
                    Some(fault) => faults.push(fault),
                    None => other.push(Box::from(text.as_str())),
                },
                method => known.insert(method),
            }
        }
        if known.contains(Method::Get) {
            known.insert(Method::Head);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Some(Methods { known, other: other.into(), preflights }))
    }

    #[inline]
    fn contains(&self, request: &RequestView<'_>) -> bool {
        match request.method {
            Method::Other => self.other.iter().any(|m| m.as_bytes() == request.method_text),
            method => {
                self.known.contains(method)
                    || (self.preflights && method == Method::Options && self.asked_for(request))
            }
        }
    }

    /// Whether a preflight asks about one of them.
    #[cold]
    fn asked_for(&self, request: &RequestView<'_>) -> bool {
        preflight::of(request).is_some_and(|asked| match Method::from_bytes(asked.method) {
            Method::Other => self.other.iter().any(|m| m.as_bytes() == asked.method),
            method => self.known.contains(method),
        })
    }

    fn covers(&self, other: &Methods) -> bool {
        self.known.union(other.known) == self.known
            && other.other.iter().all(|m| self.other.contains(m))
            && (!other.preflights || self.preflights || self.known.contains(Method::Options))
    }
}

fn is_token(text: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(tchar)
}

fn unknown_method_fault(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    if Method::from_bytes(upper.as_bytes()) != Method::Other {
        return Some(format!("methods are case-sensitive; write `{upper}` instead of `{text}`"));
    }
    (!is_token(text)).then(|| format!("`{text}` is not a method; write one such as `GET`"))
}

fn checked_value(value: &ValueMatch, header: bool) -> Result<ValueMatch, String> {
    let mut checked = value.clone();
    if header {
        checked.name.make_ascii_lowercase();
        if !is_token(&checked.name) {
            return Err(format!("`{}` is not a header name", value.name));
        }
    }
    if let ValuePattern::Regex(regex) = &mut checked.value {
        *regex = pattern::anchored(regex)?;
    }
    Ok(checked)
}

/// A value that meets `a` meets `b`.
fn implies(a: &ValueMatch, b: &ValueMatch) -> bool {
    use ValuePattern::{Absent, Exact, Present, Regex};
    a.name == b.name
        && match (&a.value, &b.value) {
            (Absent, Absent) | (Present | Exact(_) | Regex(_), Present) => true,
            (Exact(a), Exact(b)) => a == b,
            (Exact(a), Regex(b)) => b.is_match(a.as_bytes()),
            (Regex(a), Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
}

/// Any line of the field may match (RFC 9110 §5.3 lets senders spread a list over lines).
pub(in crate::policy) fn header_met(wanted: &ValueMatch, request: &RequestView<'_>) -> bool {
    let lines = request
        .head
        .fields
        .iter()
        .filter(|f| f.name.of(request.buf).eq_ignore_ascii_case(wanted.name.as_bytes()))
        .map(|f| f.value.of(request.buf));
    value_met(&wanted.value, lines)
}

/// Whether any of some values is as wanted.
#[inline]
pub(in crate::policy) fn value_met<'v>(
    wanted: &ValuePattern,
    mut values: impl Iterator<Item = &'v [u8]>,
) -> bool {
    match wanted {
        ValuePattern::Present => values.next().is_some(),
        ValuePattern::Absent => values.next().is_none(),
        ValuePattern::Exact(text) => values.any(|v| v == text.as_bytes()),
        ValuePattern::Regex(regex) => values.any(|v| regex.is_match(v)),
    }
}

/// Conditions on values with names, checked and compiled; with `header`, names of fields.
pub fn checked_values(values: &[ValueMatch], header: bool) -> Result<Box<[ValueMatch]>, String> {
    values.iter().map(|value| checked_value(value, header)).collect()
}

/// Any occurrence of the parameter may match, decoded as [`pairs`] says.
fn query_met(wanted: &ValueMatch, query: Option<&[u8]>) -> bool {
    let all = pairs::parameters(query.unwrap_or_default());
    let named = |(name, value)| pairs::decodes_to(name, wanted.name.as_bytes()).then_some(value);
    let mut values = all.filter_map(named);
    match &wanted.value {
        ValuePattern::Present => values.next().is_some(),
        ValuePattern::Absent => values.next().is_none(),
        ValuePattern::Exact(text) => values.any(|v| pairs::decodes_to(v, text.as_bytes())),
        ValuePattern::Regex(regex) => values.any(|v| regex.is_match(&pairs::decoded(v))),
    }
}
