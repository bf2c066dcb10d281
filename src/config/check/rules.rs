//! One route's condition on the path, and the paths made from it.

use super::TOP;
use crate::{
    config::{
        decode::{At, Decode, Sink, list, nearest, quoted, short},
        file::Route,
        report::{Place, Problem},
        values::PathTemplate,
    },
    policy::{rewrite::PathRewrite, route::PathPattern},
};

/// A value as written, without quotation marks.
pub(super) fn bare<T: Decode>(value: &T) -> String {
    value.bare()
}

/// A name of something that the file does not have, whose section is `[key.NAME]`.
pub(super) fn no_such(what: &str, key: &str, name: &str, place: Place, known: &[&str]) -> Problem {
    let fix = match nearest(name, known) {
        Some(near) => format!("write {}", quoted(near)),
        None => format!("add [{key}.{}]", toml_key(name)),
    };
    Problem::error(place, format!("there is no {what} `{}`", short(name))).fix(fix)
}

/// A key as TOML wants it: bare where possible.
pub(super) fn toml_key(name: &str) -> String {
    let is_bare = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// The condition on the path, its place, and the names of what it captures.
pub(super) struct PathCondition {
    pub pattern: PathPattern,
    pub place: Option<Place>,
    /// In the order of `RouteMatch::params`.
    pub params: Vec<String>,
    /// Nothing about it was reported, so conclusions may be drawn from it.
    pub is_sound: bool,
}

impl PathCondition {
    pub fn is_prefix(&self) -> bool {
        matches!(self.pattern, PathPattern::Prefix(_))
    }
}

/// The path condition of a route; several are reported, and the first one stands.
pub(super) fn path_condition(route: &Route, sink: &mut Sink) -> PathCondition {
    let (path, exact) = (&route.path, &route.path_exact);
    let (template, regex) = (&route.path_template, &route.path_regex);
    let all = [
        ("path", path.place(), path.value.clone().map(|path| PathPattern::Prefix(path.0))),
        ("path_exact", exact.place(), exact.value.clone().map(|path| PathPattern::Exact(path.0))),
        (
            "path_template",
            template.place(),
            template.value.clone().map(|path| PathPattern::Template(path.0)),
        ),
        ("path_regex", regex.place(), regex.value.clone().map(|re| PathPattern::Regex(re.regex))),
    ];
    let mut written =
        all.into_iter().filter_map(|(name, place, pattern)| Some((name, place?, pattern)));
    let Some((name, place, pattern)) = written.next() else {
        return PathCondition {
            pattern: PathPattern::Any,
            place: None,
            params: Vec::new(),
            is_sound: true,
        };
    };
    let mut condition = PathCondition {
        is_sound: pattern.is_some(),
        pattern: pattern.unwrap_or_default(),
        place: Some(place),
        params: Vec::new(),
    };
    for (second, second_place, _) in written {
        let title = format!("a route has one path condition, not both `{name}` and `{second}`");
        let problem = Problem::error(second_place, title).related(place, "the first one");
        sink.push(problem.fix("keep one of them, or make two routes"));
        condition.is_sound = false;
    }
    match condition.pattern.param_names() {
        Ok(names) => condition.params = names,
        Err(message) => {
            condition.is_sound = false;
            sink.push(from_policy(&message, place));
        }
    }
    condition
}

/// The path that a route is for, as configured; `/` when it is for any.
pub(super) fn pattern_text(route: &Route) -> String {
    let text = None
        .or(route.path.value.as_ref().map(|path| &path.0))
        .or(route.path_exact.value.as_ref().map(|path| &path.0))
        .or(route.path_template.value.as_ref().map(|path| &path.0))
        .or(route.path_regex.value.as_ref().map(|path| &path.text));
    text.cloned().unwrap_or_else(|| "/".to_owned())
}

/// A problem from a message of the policy layer: `what is wrong; what to write`.
pub(super) fn from_policy(message: &str, place: Place) -> Problem {
    let (what, fix) = message.split_once("; ").unwrap_or((message, ""));
    Problem::error(place, what).fix(fix)
}

/// The path made from a template such as `/people/{id}`.
pub(super) fn template(
    template: &At<PathTemplate>,
    condition: &PathCondition,
    sink: &mut Sink,
) -> PathRewrite {
    let place = template.place().unwrap_or(TOP);
    if !condition.is_sound {
        return PathRewrite::Keep;
    }
    if let Some(name) = unknown_param(&template.value.0, &condition.params) {
        sink.push(no_param(name, place, condition));
        return PathRewrite::Keep;
    }
    PathRewrite::compile(&template.value.0, &condition.params).unwrap_or_else(|message| {
        sink.push(from_policy(&message, place));
        PathRewrite::Keep
    })
}

/// The first parameter of a well-formed template that is not among `known`.
fn unknown_param<'a>(template: &'a str, known: &[String]) -> Option<&'a str> {
    let names = template.split('{').skip(1).filter_map(|part| part.split_once('}'));
    let is_known = |name: &str| {
        let number = name.parse::<usize>().is_ok_and(|n| (1..=known.len()).contains(&n));
        number || known.iter().any(|known| known == name)
    };
    names.map(|(name, _)| name).find(|name| !is_known(name))
}

fn no_param(name: &str, place: Place, condition: &PathCondition) -> Problem {
    let known: Vec<&str> = condition.params.iter().map(String::as_str).collect();
    let fix = match nearest(name, &known) {
        Some(near) => format!("write {{{near}}}"),
        None if !known.is_empty() => format!("the parameters here are {}", list(&known)),
        None => "capture it: with path_template = \"/users/{id}\", or a group in `path_regex`"
            .to_owned(),
    };
    let title = format!("the route's path has no parameter `{}`", short(name));
    let problem = Problem::error(place, title).fix(fix);
    match condition.place {
        Some(at) => problem.related(at, "the path"),
        None => problem,
    }
}
