//! One route's condition on the path, and the paths made from it.

use super::TOP;
use crate::{
    config::{
        decode::{At, Decode, Sink, list, nearest, quoted},
        file::Route,
        report::{Place, Problem},
        values::PathTemplate,
    },
    policy::{
        rewrite::{PathRewrite, Piece},
        route::{PARAMS_MAX, PathPattern},
    },
    wire::path::{NormalPath, PathRules},
};

/// A value as written, without quotation marks.
pub(super) fn bare<T: Decode>(value: &T) -> String {
    value.bare()
}

/// The condition on the path, its place, and the names of what it captures.
pub(super) struct PathCondition {
    pub pattern: PathPattern,
    pub place: Option<Place>,
    /// In the order of `RouteMatch::params`; `None` for a group without name.
    pub params: Vec<Option<String>>,
}

impl PathCondition {
    pub fn is_prefix(&self) -> bool {
        matches!(self.pattern, PathPattern::Prefix(_))
    }
}

/// The path condition of a route; several are reported, and the first one stands.
pub(super) fn path_condition(route: &Route, rules: PathRules, sink: &mut Sink) -> PathCondition {
    let prefix = route.path.some().map(|path| {
        normal(&path.value.0, path.place(), rules, sink);
        (path.place(), "path", PathPattern::Prefix(path.value.0))
    });
    let exact = route.path_exact.some().map(|path| {
        normal(&path.value.0, path.place(), rules, sink);
        (path.place(), "path_exact", PathPattern::Exact(path.value.0))
    });
    let template = route
        .path_template
        .some()
        .map(|path| (path.place(), "path_template", PathPattern::Template(path.value.0)));
    let regex = route
        .path_regex
        .some()
        .map(|path| (path.place(), "path_regex", PathPattern::Regex(path.value.regex)));
    let mut written = [prefix, exact, template, regex].into_iter().flatten();
    let Some((place, name, pattern)) = written.next() else {
        return PathCondition { pattern: PathPattern::Any, place: None, params: Vec::new() };
    };
    for (second, second_name, _) in written {
        let title =
            format!("a route has one path condition, not both `{name}` and `{second_name}`");
        let mut problem = Problem::error(second.unwrap_or(TOP), title)
            .fix("keep one of them, or make two routes");
        if let Some(place) = place {
            problem = problem.related(place, "the first one");
        }
        sink.push(problem);
    }
    let params = params(&pattern, place.unwrap_or(TOP), sink);
    PathCondition { pattern, place, params }
}

/// A path in a condition must be as requests' paths are after normalising, or it never matches.
fn normal(path: &str, place: Option<Place>, rules: PathRules, sink: &mut Sink) {
    let Some(place) = place else { return };
    let mut form = NormalPath::default();
    match form.normalise(path.as_bytes(), rules) {
        Ok(()) if form.matched_differs => {
            let want = String::from_utf8_lossy(&form.matched).into_owned();
            let title = format!("no request matches the path `{path}`");
            sink.push(
                Problem::error(place, title)
                    .label("paths are normalised before matching")
                    .fix(format!("write {}", quoted(&want))),
            );
        }
        Ok(()) => {}
        Err(reason) => {
            let title = format!("no request matches the path `{path}`");
            sink.push(
                Problem::error(place, title)
                    .label("a request with it is refused")
                    .fix(format!("mend it: {}", reason.meaning)),
            );
        }
    }
}

fn params(pattern: &PathPattern, place: Place, sink: &mut Sink) -> Vec<Option<String>> {
    let params: Vec<Option<String>> = match pattern {
        PathPattern::Template(text) => template_params(text, place, sink),
        PathPattern::Regex(regex) => {
            regex.capture_names().skip(1).map(|name| name.map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    };
    if params.len() > PARAMS_MAX {
        let title =
            format!("a path has at most {PARAMS_MAX} parameters, and this one {}", params.len());
        let fix = "capture less; (?:...) groups without capturing";
        sink.push(Problem::error(place, title).fix(fix));
    }
    params
}

/// Parameters of `/users/{id}/{*rest}`. What is wrong with a template itself is reported here, so
/// that every template is judged before the router compiles them.
fn template_params(text: &str, place: Place, sink: &mut Sink) -> Vec<Option<String>> {
    let mut names: Vec<Option<String>> = Vec::new();
    let mut report = |label: String, fix: &str| {
        let title = format!("`{text}` is no valid path template");
        sink.push(Problem::error(place, title).label(label).fix(fix));
    };
    let segments: Vec<&str> = text.split('/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        let Some(inner) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            if segment.contains(['{', '}']) {
                let label = format!("`{segment}` mixes text and a parameter");
                report(
                    label,
                    "let a parameter take a whole segment (`/files/{name}`), or write path_regex",
                );
            }
            continue;
        };
        let name = inner.strip_prefix('*').unwrap_or(inner);
        let is_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        if !is_name {
            report(
                format!("`{segment}` has no valid name"),
                "name it with letters, digits and _, such as {id}",
            );
        } else if inner.starts_with('*') && at + 1 != segments.len() {
            report(
                format!("`{segment}` is not the last segment"),
                "let {*rest} come last, or write path_regex",
            );
        } else if names.iter().any(|known| known.as_deref() == Some(name)) {
            report(format!("`{name}` is there twice"), "give each parameter a name of its own");
        }
        names.push(Some(name.to_owned()));
    }
    names
}

/// `/people/{id}` as pieces, for a path condition that captures `params`.
pub(super) fn template(
    template: &At<PathTemplate>,
    condition: &PathCondition,
    sink: &mut Sink,
) -> PathRewrite {
    let place = template.place().unwrap_or(TOP);
    let mut pieces = Vec::new();
    let mut rest = template.value.0.as_str();
    while let Some(open) = rest.find('{') {
        let (text, tail) = rest.split_at(open);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let Some(close) = tail.find('}') else {
            let problem = Problem::error(place, "a `{` is not closed");
            sink.push(problem.fix("write the parameter's name and }, such as {id}"));
            return PathRewrite::Keep;
        };
        match param(&tail[1..close], condition) {
            Some(index) => pieces.push(Piece::Param(index)),
            None => unknown_param(&tail[1..close], place, condition, sink),
        }
        rest = &tail[close + 1..];
    }
    if rest.contains('}') {
        let problem = Problem::error(place, "a `}` without `{` before it");
        sink.push(problem.fix("remove it, or write it percent-encoded: %7D"));
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    PathRewrite::Template(pieces)
}

/// A name, or from 1 the number of a group of a regular expression.
fn param(name: &str, condition: &PathCondition) -> Option<u8> {
    let by_name = condition.params.iter().position(|known| known.as_deref() == Some(name));
    let by_number = || {
        let is_regex = matches!(condition.pattern, PathPattern::Regex(_));
        let number = name.parse::<usize>().ok().filter(|_| is_regex)?;
        number.checked_sub(1).filter(|index| *index < condition.params.len())
    };
    by_name.or_else(by_number).and_then(|index| u8::try_from(index).ok())
}

fn unknown_param(name: &str, place: Place, condition: &PathCondition, sink: &mut Sink) {
    let known: Vec<&str> = condition.params.iter().flatten().map(String::as_str).collect();
    let fix = match nearest(name, &known) {
        Some(near) => format!("write {{{near}}}"),
        None if !known.is_empty() => format!("the parameters here are {}", list(&known)),
        None => "capture it: a `path_template` such as /users/{id}, or a group in `path_regex`"
            .to_owned(),
    };
    let title = format!("the route's path has no parameter `{name}`");
    let mut problem = Problem::error(place, title).fix(fix);
    if let Some(at) = condition.place {
        problem = problem.related(at, "the path");
    }
    sink.push(problem);
}
