//! Rules of authorisation: sets of them that routes share, and those of one route, compiled.

use std::sync::Arc;

use super::{
    TOP,
    addresses::{self},
    nobody,
    policies::Of,
    routes::matches,
    rules::{from_policy, no_such},
};
use crate::{
    config::{
        decode::{At, Sink, list, nearest, short},
        file::{self, AuthorizationRule, AuthorizeEntry, AuthorizeKey, File, RuleSet},
        report::{Place, Problem},
        values::MethodName,
    },
    policy::{
        authorize::{
            ALL_DAYS, Authorization, Expression, IdentityConditions, Methods, RequestConditions,
            Rule, Times,
        },
        route::{ValueMatch, checked_values},
    },
    wire::Method,
};

/// Most rules of a route.
const RULES_MAX: usize = 1000;

/// The sets of rules of a file.
pub(super) struct Known<'f>(&'f File);

impl<'f> Known<'f> {
    /// Also reports what is wrong with sets that no route names.
    pub fn of(file: &'f File, lists: &addresses::Known, sink: &mut Sink) -> Known<'f> {
        for (name, set) in &file.authorization.value.0 {
            let rules = set.iter().flat_map(|set| set.rules.iter().enumerate());
            for (at, written) in rules {
                let name = format!("{} {}", name.value, at + 1);
                rule(written, name, lists, Of::Set, sink);
            }
        }
        Known(file)
    }

    fn set(&self, name: &At<AuthorizeEntry>, wanted: &str, sink: &mut Sink) -> Option<&'f RuleSet> {
        let known = &self.0.authorization.value.0;
        if let Some((_, set)) = known.iter().find(|(set, _)| set.value == wanted) {
            // One that is wrong is reported.
            return set.as_ref();
        }
        if !self.0.authorization.is_wrong() {
            let names: Vec<&str> = known.iter().map(|(set, _)| set.value.as_str()).collect();
            let place = name.place().unwrap_or(TOP);
            sink.push(no_such("set of rules", "authorization", wanted, place, &names));
        }
        None
    }

    /// The policy `authorize`. With nothing in it, because it is wrong, everything is denied.
    /// `asks`: requests are asked who they are from.
    pub fn policy(
        &self,
        written: &At<Option<AuthorizeKey>>,
        lists: &addresses::Known,
        (of, asks): (Of<'_>, bool),
        sink: &mut Sink,
    ) -> Option<Authorization> {
        let Some(key) = written.value.as_ref() else {
            // It is reported; nothing is served with it.
            let nobody = Authorization { rules: Box::default(), shadow: false, asks };
            return written.is_wrong().then_some(nobody);
        };
        let place = written.place().unwrap_or(TOP);
        let mut rules = Vec::new();
        for (at, entry) in key.rules.iter().enumerate() {
            let known = rules.len();
            match &entry.value {
                AuthorizeEntry::Rule(one) => {
                    let one = At { value: (**one).clone(), origin: entry.origin };
                    rules.push(rule(&one, format!("{}", at + 1), lists, of, sink));
                }
                AuthorizeEntry::Set(name) => {
                    let set = self.set(entry, &name.0, sink);
                    let set = set.into_iter().flat_map(|set| set.rules.iter().enumerate());
                    rules.extend(set.map(|(at, one)| {
                        rule(one, format!("{} {}", name.0, at + 1), lists, of, sink)
                    }));
                }
            }
            if let (Of::Route { .. }, false) = (of, asks) {
                let place = entry.place().unwrap_or(place);
                rules[known..].iter().for_each(|rule| nobody::rule(rule, place, sink));
            }
        }
        if key.rules.is_empty() && !key.rules.is_wrong() {
            let title = "`authorize` has no rule, so nobody would be served";
            let fix = "add a rule such as { authenticated = true }, or remove `authorize`";
            sink.push(Problem::error(place, title).fix(fix));
        }
        if rules.len() > RULES_MAX {
            let title = format!("a route has {} rules, more than {RULES_MAX}", rules.len());
            sink.push(Problem::error(place, title).fix("join some: lists of names are one rule"));
        }
        Some(Authorization { rules: rules.into(), shadow: key.shadow, asks })
    }
}

/// A rule; `name`: when it has none.
fn rule(
    written: &At<AuthorizationRule>,
    name: String,
    lists: &addresses::Known,
    of: Of<'_>,
    sink: &mut Sink,
) -> Rule {
    let place = written.place().unwrap_or(TOP);
    let name = written.name.value.as_ref().map_or(name, |name| name.0.clone());
    contradiction(written, place, sink);
    Rule {
        name: name.into(),
        effect: *written.effect,
        request: RequestConditions {
            methods: methods(&written.methods),
            params: params(written, of, sink),
            headers: values(&matches(&written.headers, str::to_ascii_lowercase), true, place, sink),
            clients: lists.find(&written.clients, sink),
            times: written.times.value.as_ref().map(times),
        },
        identity: IdentityConditions {
            authenticated: *written.authenticated,
            subjects: texts(&written.subjects),
            consumers: written.consumers.iter().map(|name| name.0.as_str().into()).collect(),
            groups: texts(&written.groups),
            scopes: texts(&written.scopes),
            claims: values(&matches(&written.claims, str::to_owned), false, place, sink),
        },
        when: expression(&written.when, of, sink),
    }
}

/// Conditions of which one makes the others impossible.
fn contradiction(written: &AuthorizationRule, place: Place, sink: &mut Sink) {
    let about_somebody = [
        written.subjects.place(),
        written.consumers.place(),
        written.groups.place(),
        written.scopes.place(),
        written.claims.place(),
    ];
    let other = about_somebody.into_iter().flatten().next();
    if let (Some(false), Some(other)) = (*written.authenticated, other) {
        let title = "a rule for clients that are not known asks who they are, so it never matches";
        let at = written.authenticated.place().unwrap_or(place);
        let problem = Problem::error(at, title).related(other, "asks for an identity");
        sink.push(problem.fix("remove one of the two"));
    }
}

fn texts(written: &[At<String>]) -> Box<[Box<str>]> {
    written.iter().map(|text| text.value.as_str().into()).collect()
}

fn values(wanted: &[ValueMatch], header: bool, place: Place, sink: &mut Sink) -> Box<[ValueMatch]> {
    checked_values(wanted, header).unwrap_or_else(|message| {
        sink.push(from_policy(&message, place));
        Box::default()
    })
}

fn methods(written: &[At<MethodName>]) -> Option<Methods> {
    if written.is_empty() {
        return None;
    }
    let (mut methods, mut other) = (Methods::default(), Vec::new());
    for name in written {
        match Method::from_bytes(name.0.as_bytes()) {
            Method::Other => other.push(name.0.as_str().into()),
            known => methods.known.insert(known),
        }
    }
    if methods.known.contains(Method::Get) {
        methods.known.insert(Method::Head);
    }
    Some(Methods { other: other.into(), ..methods })
}

/// Conditions on parameters, by their places; they are known for a route only.
fn params(written: &AuthorizationRule, of: Of<'_>, sink: &mut Sink) -> Box<[(u8, ValueMatch)]> {
    let Of::Route { params, .. } = of else { return Box::default() };
    let mut found = Vec::new();
    for (wanted, (name, _)) in matches(&written.params, str::to_owned).iter().zip(&written.params.0)
    {
        let place = name.place().unwrap_or(TOP);
        let Some(at) = params.iter().position(|param| *param == wanted.name) else {
            let known: Vec<&str> = params.iter().map(String::as_str).collect();
            let fix = match nearest(&wanted.name, &known) {
                Some(near) => format!("write `{near}`"),
                None if !known.is_empty() => format!("the parameters here are {}", list(&known)),
                None => "capture it: with path_template = \"/users/{id}\"".to_owned(),
            };
            let title = format!("the route's path has no parameter `{}`", short(&wanted.name));
            sink.push(Problem::error(place, title).fix(fix));
            continue;
        };
        let checked = values(std::slice::from_ref(wanted), false, place, sink);
        found.extend(checked.into_iter().map(|wanted| (at as u8, wanted)));
    }
    found.into()
}

fn times(written: &file::Times) -> Times {
    let days = written.days.iter().fold(0, |days, some| days | some.0);
    Times {
        zone: written.zone.0,
        days: if written.days.is_empty() { ALL_DAYS } else { days },
        from: written.from.0,
        to: written.to.0,
    }
}

fn expression(
    written: &At<Option<String>>,
    of: Of<'_>,
    sink: &mut Sink,
) -> Option<Arc<Expression>> {
    let text = written.some()?;
    let params = match of {
        Of::Route { params, .. } => params,
        Of::Set => &[],
    };
    match Expression::compile(&text.value, params) {
        Ok(expression) => Some(Arc::new(expression)),
        Err(fault) => {
            let whole = text.place().unwrap_or(TOP);
            let place = fault.at.and_then(|at| inside(whole, &text.value, at)).unwrap_or(whole);
            let title = format!("the expression cannot be used: {}", fault.what);
            sink.push(Problem::error(place, title).fix(fault.fix));
            None
        }
    }
}

/// The place of a part of a string. Where it has escapes its parts cannot be found.
fn inside(whole: Place, text: &str, part: std::ops::Range<usize>) -> Option<Place> {
    let marks = (whole.end - whole.start).checked_sub(text.len())?;
    let before = match marks {
        2 => 1,
        6 => 3,
        // A line end after the first marks is not part of the string.
        7 => 4,
        _ => return None,
    };
    let start = whole.start + before;
    Some(Place { start: start + part.start, end: start + part.end })
}
