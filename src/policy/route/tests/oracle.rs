//! The router against a linear scan that applies the documented precedence to the letter.

use std::cmp::{Ordering, Reverse};

use proptest::prelude::*;

use super::*;

fn host_key(pattern: Option<&str>, host: &str) -> Option<(u8, Reverse<usize>)> {
    match pattern {
        None => Some((2, Reverse(0))),
        Some(p) => match p.strip_prefix('*') {
            Some(suffix) => {
                (host.ends_with(suffix) && host != suffix).then_some((1, Reverse(suffix.len())))
            }
            None => (p == host).then_some((0, Reverse(0))),
        },
    }
}

fn template_matches(pattern: &str, path: &str) -> bool {
    let mut rest = path;
    for part in pattern[1..].split('/') {
        let Some(tail) = rest.strip_prefix('/') else { return false };
        if part.starts_with("{*") {
            return !tail.is_empty();
        }
        let (segment, after) = tail.split_at(tail.find('/').unwrap_or(tail.len()));
        let matches = if part.starts_with('{') { !segment.is_empty() } else { part == segment };
        if !matches {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

fn path_matches(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Any => true,
        PathPattern::Exact(p) => p == path,
        PathPattern::Prefix(p) => {
            let p = p.strip_suffix('/').unwrap_or(p);
            path.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathPattern::Template(p) => template_matches(p, path),
        PathPattern::Regex(r) => regex(&format!("^({})$", r.as_str())).is_match(path.as_bytes()),
    }
}

fn kind(pattern: &PathPattern) -> u8 {
    match pattern {
        PathPattern::Exact(_) => 0,
        PathPattern::Template(_) => 1,
        PathPattern::Regex(_) => 2,
        PathPattern::Prefix(_) => 3,
        PathPattern::Any => 4,
    }
}

fn segment_kind(segment: &str) -> u8 {
    u8::from(segment.starts_with('{')) + u8::from(segment.starts_with("{*"))
}

/// `first` is the first rule of a host with the same expression.
fn path_order(a: &PathPattern, b: &PathPattern, first: impl Fn(&str) -> usize) -> Ordering {
    match (a, b) {
        (PathPattern::Template(a), PathPattern::Template(b)) => {
            let literals = |p: &str| p[1..].split('/').filter(|s| segment_kind(s) == 0).count();
            let kinds = |p: &str| p[1..].split('/').map(segment_kind).collect::<Vec<_>>();
            literals(b).cmp(&literals(a)).then_with(|| kinds(a).cmp(&kinds(b)))
        }
        (PathPattern::Prefix(a), PathPattern::Prefix(b)) => {
            let len = |p: &str| p.trim_end_matches('/').len();
            len(b).cmp(&len(a))
        }
        (PathPattern::Regex(a), PathPattern::Regex(b)) => first(a.as_str()).cmp(&first(b.as_str())),
        _ => kind(a).cmp(&kind(b)),
    }
}

fn methods_match(rule: &RouteRule, ask: &Ask) -> bool {
    let has = |m: &str| rule.methods.iter().any(|r| r == m);
    rule.methods.is_empty() || has(&ask.method) || (ask.method == "HEAD" && has("GET"))
}

fn value_matches(wanted: &ValueMatch, values: &[&str]) -> bool {
    match &wanted.value {
        ValuePattern::Present => !values.is_empty(),
        ValuePattern::Absent => values.is_empty(),
        ValuePattern::Exact(text) => values.contains(&text.as_str()),
        ValuePattern::Regex(_) => unreachable!("not generated"),
    }
}

fn values_match(rule: &RouteRule, ask: &Ask) -> bool {
    let headers = rule.headers.iter().all(|m| {
        let named = ask.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(&m.name));
        value_matches(m, &named.map(|(_, v)| v.as_str()).collect::<Vec<_>>())
    });
    let query = ask.query.as_deref().unwrap_or_default();
    let pairs: Vec<_> = query.split('&').map(|p| p.split_once('=').unwrap_or((p, ""))).collect();
    headers
        && rule.query.iter().all(|m| {
            let named = pairs.iter().filter(|(n, _)| *n == m.name);
            value_matches(m, &named.map(|(_, v)| *v).collect::<Vec<_>>())
        })
}

/// What must come out, with the methods for a 405.
fn oracle(rules: &[RouteRule], ask: &Ask) -> Result<RouteId, (&'static str, MethodSet)> {
    let mut candidates = Vec::new();
    let mut host_met = rules.is_empty();
    let mut missed = None::<MethodSet>;
    for (rule, id) in rules.iter().zip(0u32..) {
        let hosts: Vec<Option<&str>> = match rule.hosts.as_slice() {
            [] => vec![None],
            hosts => hosts.iter().map(|h| Some(h.as_str())).collect(),
        };
        for pattern in hosts {
            let Some(host) = host_key(pattern, &ask.host) else { continue };
            host_met = true;
            if !path_matches(&rule.path, &ask.path) || !values_match(rule, ask) {
                continue;
            }
            if !methods_match(rule, ask) {
                let allow = missed.get_or_insert_default();
                for method in &rule.methods {
                    let method = Method::from_bytes(method.as_bytes());
                    allow.insert(method);
                    if method == Method::Get {
                        allow.insert(Method::Head);
                    }
                }
                continue;
            }
            candidates.push((host, pattern, rule, id));
        }
    }
    let best = candidates.into_iter().min_by(|(ah, ap, a, ai), (bh, _, b, bi)| {
        let first = |text: &str| {
            let here = |r: &RouteRule| match ap {
                None => r.hosts.is_empty(),
                Some(p) => r.hosts.iter().any(|h| h == p),
            };
            let same =
                |r: &RouteRule| matches!(&r.path, PathPattern::Regex(x) if x.as_str() == text);
            rules.iter().position(|r| here(r) && same(r)).unwrap()
        };
        let rest = |r: &RouteRule| {
            (r.methods.is_empty(), Reverse(r.headers.len()), Reverse(r.query.len()))
        };
        ah.cmp(bh)
            .then_with(|| path_order(&a.path, &b.path, first))
            .then_with(|| rest(a).cmp(&rest(b)))
            .then_with(|| ai.cmp(bi))
    });
    match (best, missed) {
        (Some((.., id)), _) => Ok(id),
        (None, Some(allow)) => Err(("route.method", allow)),
        (None, None) if !host_met => Err(("route.host", MethodSet::default())),
        (None, None) => Err(("route.not_found", MethodSet::default())),
    }
}

use crate::policy::refusal::MethodSet;

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 0..4)
        .prop_flat_map(|segments| (Just(segments), prop::bool::weighted(0.2)))
        .prop_map(|(segments, slash)| match segments.is_empty() {
            true => "/".to_owned(),
            false => format!("/{}{}", segments.join("/"), if slash { "/" } else { "" }),
        })
}

fn any_template() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "{}", "{}"]);
    (prop::collection::vec(segment, 1..4), 0u8..5).prop_map(|(segments, end)| {
        let mut text = String::new();
        for (i, segment) in segments.iter().enumerate() {
            text += &format!("/{}", segment.replace("{}", &format!("{{p{i}}}")));
        }
        text + match end {
            0 => "/{*rest}",
            1 => "/",
            _ => "",
        }
    })
}

fn any_pattern() -> impl Strategy<Value = PathPattern> {
    let regexes = vec!["/[ab]", "/a/.*", ".*", "/(a|b)/?", "/a|/a/b"];
    prop_oneof![
        1 => Just(PathPattern::Any),
        2 => any_path().prop_map(PathPattern::Exact),
        3 => any_path().prop_map(PathPattern::Prefix),
        6 => any_template().prop_map(PathPattern::Template),
        2 => prop::sample::select(regexes).prop_map(|r| PathPattern::Regex(regex(r))),
    ]
}

fn any_values() -> impl Strategy<Value = Vec<ValueMatch>> {
    let value = prop_oneof![
        Just(ValuePattern::Present),
        Just(ValuePattern::Absent),
        Just(is("1")),
        Just(is("2")),
    ];
    let one = (prop::sample::select(vec!["x", "y"]), value)
        .prop_map(|(name, value)| ValueMatch { name: name.into(), value });
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(one, 1..3)]
}

fn some_of(from: &[&str], max: usize) -> impl Strategy<Value = Vec<String>> + use<> {
    let from: Vec<String> = from.iter().map(|s| s.to_string()).collect();
    let some = prop::sample::subsequence(from, 1..=max);
    prop_oneof![1 => Just(Vec::new()), 1 => some]
}

fn any_rule() -> impl Strategy<Value = RouteRule> {
    let hosts = some_of(&["com", "a.com", "b.a.com", "*.com", "*.a.com"], 2);
    let methods = some_of(&["GET", "HEAD", "POST", "PURGE", "OPTIONS"], 3);
    (hosts, any_pattern(), methods, any_values(), any_values()).prop_map(
        |(hosts, path, methods, headers, query)| RouteRule {
            preflights: false,
            name: String::new(),
            hosts,
            path,
            methods,
            headers,
            query,
        },
    )
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let host = prop::sample::select(vec!["a.com", "b.a.com", "c.b.a.com", "com", "org"]);
    let method = prop::sample::select(vec!["GET", "GET", "HEAD", "POST", "PURGE", "PUT", "OTHER"]);
    let path = prop_oneof![6 => any_path(), 1 => Just("*".to_owned())];
    let query = prop::option::of("((x|y)(=[12])?&?){0,3}");
    let headers = prop::collection::vec(("[xXyY]", "[12]"), 0..3);
    (method, host, path, query, headers).prop_map(|(method, host, path, query, headers)| Ask {
        method: method.into(),
        host: host.into(),
        path,
        query,
        headers,
    })
}

proptest! {
    #[test]
    fn agrees_with_the_oracle(
        mut rules in prop::collection::vec(any_rule(), 1..12),
        asks in prop::collection::vec(any_ask(), 1..12),
    ) {
        if let Err(conflicts) = Router::compile(&rules) {
            for conflict in &conflicts {
                // What is called dead is dead.
                for ask in &asks {
                    prop_assert_ne!(oracle(&rules, ask), Ok(conflict.route), "{:?} {:?}", ask, rules);
                }
            }
            let dead: Vec<_> = conflicts.iter().map(|c| c.route as usize).collect();
            let mut at = 0;
            rules.retain(|_| { at += 1; !dead.contains(&(at - 1)) });
        }
        // Without the dead rules nothing is wrong: all were told at once.
        let router = Router::compile(&rules).expect("no conflict left");
        for ask in &asks {
            let wanted = oracle(&rules, ask);
            let found = ask.find(&router);
            match (&wanted, &found) {
                (Ok(id), Ok(matched)) => prop_assert_eq!(*id, matched.route, "{:?} {:?}", ask, rules),
                (Err((token, allow)), Err(refusal)) => {
                    prop_assert_eq!(*token, refusal.reason.token, "{:?} {:?}", ask, rules);
                    let names = |set: MethodSet| set.names().collect::<Vec<_>>();
                    prop_assert_eq!(names(*allow), names(refusal.allow), "{:?} {:?}", ask, rules);
                }
                _ => prop_assert!(false, "{:?} wanted, {:?} found: {:?} {:?}", wanted, found, ask, rules),
            }
            let told = ask.view(|request| router.explain(request));
            let taken: Vec<_> =
                told.iter().filter(|c| c.outcome == Outcome::Taken).map(|c| c.route).collect();
            prop_assert_eq!(taken, wanted.ok().into_iter().collect::<Vec<_>>());
        }
    }
}
