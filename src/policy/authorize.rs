//! Who may do what: rules in order, and the first one that matches decides. What no rule allows is
//! denied.
//!
//! A rule matches when all of its conditions hold. Its expression comes last; one that fails counts
//! against the client: a rule that allows does not match, one that denies does.
//!
//! Without an identity, conditions on it do not hold. When such a rule would otherwise have
//! allowed the request before it was denied, the answer is 401: who shows an identity may get
//! another.

mod expression;
mod times;

use std::{net::IpAddr, sync::Arc};

use serde_json::Value;

pub use self::{
    expression::{Expression, Fault},
    times::{ALL_DAYS, Times},
};
use super::{
    addresses::Lists,
    identity::Identity,
    refusal::{self, MethodSet},
    route::{
        RequestView, RouteMatch, ValueMatch, ValuePattern,
        conditions::{header_met, value_met},
    },
};
use crate::wire::{Method, Reason};

/// The rules of a route.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// At least one.
    pub rules: Box<[Rule]>,
    /// What would be denied is told, and served.
    pub shadow: bool,
    /// Clients can show who they are: the route asks for it.
    pub asks: bool,
}

/// What a rule that matches does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// For explanations.
    pub name: Arc<str>,
    pub effect: Effect,
    pub request: RequestConditions,
    pub identity: IdentityConditions,
    pub when: Option<Arc<Expression>>,
}

/// Conditions on the request. An empty one always holds.
#[derive(Clone, Debug, Default)]
pub struct RequestConditions {
    pub methods: Option<Methods>,
    /// By name and index of the route's parameters.
    pub params: Box<[(u8, ValueMatch)]>,
    pub headers: Box<[ValueMatch]>,
    pub clients: Lists,
    pub times: Option<Times>,
}

/// A set of methods.
#[derive(Clone, Debug, Default)]
pub struct Methods {
    pub known: MethodSet,
    pub other: Box<[Box<str>]>,
}

/// Conditions on who asks. An empty one always holds.
#[derive(Clone, Debug, Default)]
pub struct IdentityConditions {
    /// Whether there is to be an identity.
    pub authenticated: Option<bool>,
    /// One of these.
    pub subjects: Box<[Box<str>]>,
    /// One of these.
    pub consumers: Box<[Box<str>]>,
    /// One of these.
    pub groups: Box<[Box<str>]>,
    /// All of these.
    pub scopes: Box<[Box<str>]>,
    /// All of these, by their paths.
    pub claims: Box<[ValueMatch]>,
}

/// What rules look at.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub identity: Option<&'a Identity>,
    /// Name of the consumer that the identity belongs to.
    pub consumer: Option<&'a str>,
    pub request: RequestView<'a>,
    pub matched: &'a RouteMatch,
    pub scheme: &'static str,
    pub client: Option<IpAddr>,
    /// Seconds since 1970, for whoever needs them.
    pub now_s: fn() -> i64,
}

/// Why a rule does not match: the first condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    Method,
    Param(String),
    Header(String),
    Client,
    Time,
    /// It asks who the client is, and that is not known. Everything before that holds.
    Anonymous,
    /// It is for clients that are not known.
    Known,
    Subject,
    Consumer,
    Group,
    Scope(String),
    Claim(String),
    /// The expression is false.
    When,
    /// It cannot be told.
    WhenFailed(String),
}

/// What the rules come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub effect: Effect,
    /// The rule that decided; `None`: no rule matched.
    pub rule: Option<usize>,
    /// With an identity a rule might have allowed it.
    pub needs_identity: bool,
}

impl Decision {
    /// Why it is denied; `None`: it is allowed.
    pub fn reason(&self) -> Option<&'static Reason> {
        match (self.effect, self.needs_identity) {
            (Effect::Allow, _) => None,
            (Effect::Deny, true) => Some(refusal::AUTHZ_IDENTITY),
            (Effect::Deny, false) => Some(refusal::AUTHZ_DENIED),
        }
    }
}

impl Authorization {
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        let mut needs_identity = false;
        for (at, rule) in self.rules.iter().enumerate() {
            match rule.miss(facts) {
                None => return Decision { effect: rule.effect, rule: Some(at), needs_identity },
                // Where nobody is asked, coming back with credentials would not help.
                Some(Miss::Anonymous) => {
                    needs_identity |= self.asks && rule.effect == Effect::Allow;
                }
                Some(_) => {}
            }
        }
        Decision { effect: Effect::Deny, rule: None, needs_identity }
    }
}

impl Rule {
    /// Whether its conditions ask who the client is; `true`: no request without identity meets
    /// them. Of an expression that cannot be told.
    pub fn asks_who(&self) -> Option<bool> {
        let by_expression = || self.when.as_ref().is_some_and(|when| when.asks_who());
        match self.identity.asks_who() {
            true => Some(true),
            false => by_expression().then_some(false),
        }
    }

    /// The first condition that does not hold; `None`: the rule matches.
    pub fn miss(&self, facts: &Facts<'_>) -> Option<Miss> {
        let asked = self.request.miss(facts).or_else(|| self.identity.miss(facts));
        if asked.is_some() {
            return asked;
        }
        let when = self.when.as_ref()?;
        let is_blind = facts.identity.is_none() && when.asks_who();
        match when.holds(facts) {
            Ok(true) => None,
            _ if is_blind => Some(Miss::Anonymous),
            Ok(false) => Some(Miss::When),
            Err(_) if self.effect == Effect::Deny => None,
            Err(why) => Some(Miss::WhenFailed(why)),
        }
    }
}

impl RequestConditions {
    fn miss(&self, facts: &Facts<'_>) -> Option<Miss> {
        let request = &facts.request;
        if self.methods.as_ref().is_some_and(|methods| !methods.have(request)) {
            return Some(Miss::Method);
        }
        for (at, wanted) in &self.params {
            let params = &facts.matched.params[..usize::from(facts.matched.params_len)];
            let value = params.get(usize::from(*at)).map(|span| span.of(request.path));
            if !value_met(&wanted.value, value.into_iter()) {
                return Some(Miss::Param(wanted.name.clone()));
            }
        }
        if let Some(wanted) = self.headers.iter().find(|wanted| !header_met(wanted, request)) {
            return Some(Miss::Header(wanted.name.clone()));
        }
        if !self.clients.is_empty() && self.clients.find(facts.client).is_none() {
            return Some(Miss::Client);
        }
        let is_time = self.times.as_ref().is_none_or(|times| times.have((facts.now_s)()));
        (!is_time).then_some(Miss::Time)
    }
}

impl Methods {
    fn have(&self, request: &RequestView<'_>) -> bool {
        match request.method {
            Method::Other => self.other.iter().any(|m| m.as_bytes() == request.method_text),
            method => self.known.contains(method),
        }
    }
}

impl IdentityConditions {
    /// Whether any of them needs an identity.
    fn asks_who(&self) -> bool {
        let lists = [&self.subjects, &self.consumers, &self.groups, &self.scopes];
        self.authenticated == Some(true)
            || lists.iter().any(|list| !list.is_empty())
            || !self.claims.is_empty()
    }

    fn miss(&self, facts: &Facts<'_>) -> Option<Miss> {
        let Some(identity) = facts.identity else {
            return self.asks_who().then_some(Miss::Anonymous);
        };
        if self.authenticated == Some(false) {
            return Some(Miss::Known);
        }
        let has = |list: &[Box<str>], name: &str| list.iter().any(|one| **one == *name);
        let is_for_all = |list: &[Box<str>]| list.is_empty();
        if !is_for_all(&self.subjects) && !has(&self.subjects, &identity.subject) {
            return Some(Miss::Subject);
        }
        if !is_for_all(&self.consumers)
            && !facts.consumer.is_some_and(|name| has(&self.consumers, name))
        {
            return Some(Miss::Consumer);
        }
        if !is_for_all(&self.groups) && !identity.groups.iter().any(|one| has(&self.groups, one)) {
            return Some(Miss::Group);
        }
        if let Some(scope) = self.scopes.iter().find(|scope| !has(&identity.scopes, scope)) {
            return Some(Miss::Scope(scope.to_string()));
        }
        let is_met = |wanted: &&ValueMatch| claim_met(&wanted.value, identity.claim(&wanted.name));
        let missing = self.claims.iter().find(|wanted| !is_met(wanted));
        missing.map(|wanted| Miss::Claim(wanted.name.clone()))
    }
}

/// Whether a claim, or one entry of it where it is a list, is as wanted. Numbers and truth values
/// are compared as JSON writes them.
fn claim_met(wanted: &ValuePattern, claim: Option<&Value>) -> bool {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string().into_bytes()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    match wanted {
        ValuePattern::Present => claim.is_some(),
        ValuePattern::Absent => claim.is_none(),
        ValuePattern::Exact(_) | ValuePattern::Regex(_) => {
            let texts: Vec<Vec<u8>> = match claim {
                Some(Value::Array(entries)) => entries.iter().filter_map(text).collect(),
                one => one.and_then(text).into_iter().collect(),
            };
            value_met(wanted, texts.iter().map(Vec::as_slice))
        }
    }
}

#[cfg(test)]
mod tests;
