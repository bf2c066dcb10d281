use super::*;
use crate::{
    policy::route::{PARAMS_MAX, PathPattern, RouteRule, Router},
    wire::{Method, RequestHead, Span},
};

/// Applies to a match of `path` (and its forwarded form) by the pattern.
fn rewritten(
    pattern: PathPattern,
    rewrite: &dyn Fn(&[String]) -> PathRewrite,
    forward: &str,
    path: &str,
) -> Result<String, &'static Reason> {
    let router = Router::compile(&[RouteRule { path: pattern, ..RouteRule::default() }]).unwrap();
    let matched = router
        .find(&route::RequestView {
            method: Method::Get,
            method_text: b"GET",
            host: b"",
            path: path.as_bytes(),
            query: None,
            head: &RequestHead::default(),
            buf: b"",
        })
        .expect(path);
    let mut out = b"before".to_vec();
    let result = rewrite(router.param_names(0)).apply(
        forward.as_bytes(),
        &matched,
        path.as_bytes(),
        &mut out,
    );
    let text = String::from_utf8(out).unwrap();
    let text = text.strip_prefix("before").unwrap().to_owned();
    if result.is_err() {
        assert_eq!(text, "", "a refused rewrite leaves nothing");
    }
    result.map(|()| text)
}

#[test]
fn prefixes() {
    let strip = |_: &[String]| PathRewrite::StripPrefix;
    let cases = [
        ("/a", "/a", "/"),
        ("/a", "/a/", "/"),
        ("/a", "/a/b", "/b"),
        ("/a/", "/a/b/", "/b/"),
        ("/a/b", "/a/b/c/d", "/c/d"),
        ("/", "/a/b", "/a/b"),
        ("/", "/", "/"),
    ];
    for (prefix, path, wanted) in cases {
        let pattern = PathPattern::Prefix(prefix.into());
        assert_eq!(rewritten(pattern, &strip, path, path).unwrap(), wanted, "{prefix} {path}");
    }
    let cases = [
        ("/a", "/x", "/a", "/x"),
        ("/a", "/x", "/a/", "/x/"),
        ("/a", "/x", "/a/b", "/x/b"),
        ("/a", "/x/", "/a/b", "/x/b"),
        ("/a", "/x/", "/a", "/x"),
        ("/a", "/", "/a", "/"),
        ("/a", "/", "/a/b", "/b"),
        ("/", "/x", "/", "/x/"),
        ("/", "/x", "/b", "/x/b"),
    ];
    for (prefix, new, path, wanted) in cases {
        let replace = |_: &[String]| PathRewrite::replace_prefix(new).unwrap();
        let pattern = PathPattern::Prefix(prefix.into());
        assert_eq!(rewritten(pattern, &replace, path, path).unwrap(), wanted, "{prefix} {path}");
    }
}

#[test]
fn parameters_of_what_remains_are_kept() {
    let strip = |_: &[String]| PathRewrite::StripPrefix;
    let cases = [
        ("/a;v=1/b;w=2", "/a/b", "/b;w=2"),
        ("/a;v=1", "/a", "/"),
        ("/;v/a/b", "/a/b", "/b"),
        ("/a;v/;w/b", "/a/b", "/;w/b"),
        ("/a/b;w", "/a/b", "/b;w"),
    ];
    for (forward, path, wanted) in cases {
        let pattern = PathPattern::Prefix("/a".into());
        assert_eq!(rewritten(pattern, &strip, forward, path).unwrap(), wanted, "{forward}");
    }
    let keep = |_: &[String]| PathRewrite::Keep;
    assert_eq!(rewritten(PathPattern::Any, &keep, "/a;v", "/a").unwrap(), "/a;v");
}

#[test]
fn templates() {
    let cases = [
        ("/users/{id}", "/v2/{id}/show", "/users/7", "/v2/7/show"),
        ("/users/{id}", "/v2/{1}", "/users/7", "/v2/7"),
        ("/{a}/{b}", "/{b}-{a}", "/x/y", "/y-x"),
        ("/files/{*rest}", "/{rest}", "/files/a/b/", "/a/b/"),
        ("/files/{*rest}", "/x/{rest}", "/files/a/b", "/x/a/b"),
        ("/a/{b}", "/b%c3%A9 é/{b}", "/a/%2B", "/b%C3%A9%20%C3%A9/%2B"),
        ("/a/{b}", "/fixed", "/a/x", "/fixed"),
    ];
    for (pattern, template, path, wanted) in cases {
        let compile = |names: &[String]| PathRewrite::compile(template, names).unwrap();
        let pattern = PathPattern::Template(pattern.into());
        assert_eq!(rewritten(pattern, &compile, path, path).unwrap(), wanted, "{template}");
    }
}

#[test]
fn regex_captures() {
    let cases = [
        (r"/(?<lang>[a-z]{2})(/.*)", "/i18n/{2}", "/de/a/b", Ok("/i18n/a/b")),
        (r"/(?<lang>[a-z]{2})(/.*)", "/{lang}{2}", "/de/a", Ok("/de/a")),
        (r"/a(b)?", "/x{1}/y", "/a", Ok("/x/y")),
        // A capture may not become a dot segment,
        (r"/x(.*)", "/{1}", "/x..", Err(())),
        (r"/x(.)(.)/(.*)", "/a/{1}{2}/{3}", "/x../admin", Err(())),
        (r"/x(.*)", "/a/{1}", "/x.", Err(())),
        (r"/x(.*)", "/a/{1}b", "/x..", Ok("/a/..b")),
        // nor part of an escape that was not there.
        (r"/(%2)5", "/{1}e", "/%25", Ok("/%252e")),
        (r"/x(.)", "/{1}", "/x?", Ok("/%3F")),
        (r"/x(.*)", "/a/{1}", "/x/#", Ok("/a/%23")),
    ];
    for (pattern, template, path, wanted) in cases {
        let compile = |names: &[String]| PathRewrite::compile(template, names).unwrap();
        let regex = PathPattern::Regex(regex::bytes::Regex::new(pattern).unwrap());
        let found = rewritten(regex, &compile, path, path);
        assert_eq!(found.as_deref().map_err(|_| ()), wanted, "{pattern} {template} {path}");
    }
}

#[test]
fn wrong_templates_say_what_to_write() {
    let names = ["id".to_owned(), "name".to_owned()];
    let cases = [
        ("/{x}", "the route's path has `{id}`, `{name}`"),
        ("/{3}", "`{3}` is not known"),
        ("/{0}", "`{0}` is not known"),
        ("/{id", "unbalanced"),
        ("/id}", "unbalanced"),
        ("x/{id}", "write `/x/{id}`"),
        ("{id}", "write `/{id}`"),
        ("", "does not begin with `/`"),
        ("/a?b={id}", "the query is kept"),
        ("/a#b", "a `#`"),
        ("/a/../{id}", "dot segment"),
        ("/a//{id}", "empty segment"),
        ("/a%2", "write `%25`"),
        ("/%2f", "encoded slash"),
    ];
    for (template, part) in cases {
        let fault = PathRewrite::compile(template, &names).expect_err(template);
        assert!(fault.contains(part), "{template}: {fault}");
    }
    let fault = PathRewrite::compile("/{x}", &[]).unwrap_err();
    assert!(fault.contains("no parameters"), "{fault}");
    for prefix in ["x", "", "/a/../b", "/a//b", "/a?b"] {
        PathRewrite::replace_prefix(prefix).expect_err(prefix);
    }
}

/// Whatever was captured, the result is a normal path or a refusal.
#[test]
fn any_captured_bytes_give_a_normal_path() {
    let config = proptest::prelude::ProptestConfig::with_cases(512);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let values = proptest::collection::vec("[./%?#a-f0-9; \\\\\u{0}-\u{7f}]{0,6}", 2);
    let templates = ["/{1}{2}", "/x{1}/{2}y", "/{1}/{2}", "/.{1}", "/{1}%41{2}"];
    runner
        .run(&(values, proptest::sample::select(templates.to_vec())), |(values, template)| {
            let text = values.concat();
            let mut matched = RouteMatch {
                route: 0,
                params: [Span::EMPTY; PARAMS_MAX],
                params_len: 2,
                prefix_len: 0,
            };
            matched.params[0] = Span::new(0, values[0].len());
            matched.params[1] = Span::new(values[0].len(), text.len());
            let names = ["1".to_owned(), "2".to_owned()];
            let rewrite = PathRewrite::compile(template, &names).unwrap();
            let mut out = Vec::new();
            if rewrite.apply(b"/", &matched, text.as_bytes(), &mut out).is_ok() {
                assert_eq!(out[0], b'/');
                assert!(!out.iter().any(|b| b"?#\\ ".contains(b) || *b < 32));
                let decoded = String::from_utf8(out.clone()).unwrap();
                let bare = decoded.to_ascii_lowercase();
                let odd =
                    bare.split('/').any(|s| matches!(s.replace("%2e", ".").as_str(), "." | ".."));
                // %2e in a captured value cannot come from a normalised path.
                assert!(!odd || values.iter().any(|v| v.to_ascii_lowercase().contains("%2e")));
            }
            Ok(())
        })
        .unwrap();
}
