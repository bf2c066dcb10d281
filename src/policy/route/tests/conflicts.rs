use super::*;
use crate::wire::path::{NormalPath, PathRules};

fn conflicts(rules: &[RouteRule]) -> Vec<(RouteId, ConflictKind)> {
    let found = Router::compile(rules).expect_err("a conflict");
    found.into_iter().map(|c| (c.route, c.kind)).collect()
}

#[test]
fn duplicates_and_unreachable_routes_all_at_once() {
    let rules = [
        exact("/a").on("a.com"),
        exact("/%61").on("a.com"),
        template("/{x}/b"),
        template("/{y}/b"),
        prefix("/p"),
        prefix("/p/"),
        exact("/m").methods(&["GET", "POST"]),
        exact("/m").methods(&["HEAD"]),
        exact("/h").header("x", ValuePattern::Present),
        exact("/h").header("X", is("1")),
        exact("/h").header("x", ValuePattern::Absent),
        by_regex("/[a-z]"),
        by_regex("/[a-z]"),
        exact("/t").on("a.com").on("b.com"),
        exact("/t").on("b.com"),
        exact("/v").query("q", ValuePattern::Regex(regex("[0-9]+"))),
        exact("/v").query("q", is("12")),
        exact("/g").methods(&["GET"]),
        exact("/g").methods(&["GET", "HEAD"]),
    ];
    use ConflictKind::{Duplicate, Unreachable};
    let wanted = [
        (1, Duplicate { of: 0 }),
        (3, Duplicate { of: 2 }),
        (5, Duplicate { of: 4 }),
        (7, Unreachable { because_of: 6 }),
        (9, Unreachable { because_of: 8 }),
        (12, Duplicate { of: 11 }),
        (14, Duplicate { of: 13 }),
        (16, Unreachable { because_of: 15 }),
        (18, Duplicate { of: 17 }),
    ];
    assert_eq!(conflicts(&rules), wanted);
}

#[test]
fn no_false_alarm() {
    router(&[
        RouteRule::default(),
        RouteRule::default().on("a.com"),
        exact("/a"),
        exact("/a/"),
        exact("/a").on("a.com"),
        exact("/a").methods(&["GET"]),
        exact("/a").methods(&["POST", "GET"]),
        exact("/a").header("x", is("1")),
        exact("/a").header("x", is("2")),
        exact("/a").query("x", is("1")),
        exact("/a").query("X", is("1")),
        exact("/a").query("x", is("2")).header("x", is("2")),
        prefix("/a"),
        template("/{x}"),
        template("/a"),
        by_regex("/a"),
        exact("/t").on("b.com"),
        // Dead on one of its hosts only.
        exact("/t").on("a.com").on("b.com"),
        // The same host twice is one.
        exact("/u").on("b.com").on("b.com"),
    ]);
}

#[test]
fn bad_patterns_say_what_to_write() {
    let paths: Vec<(RouteRule, &str)> = vec![
        (exact("a"), "write `/a`"),
        (exact(""), "does not begin with `/`"),
        (exact("/a//b"), "write `/a/b`"),
        (prefix("//"), "write `/`"),
        (exact("/a/../b"), "`..` is a dot segment"),
        (exact("/a/%2e"), "dot segment"),
        (exact("/a%2fb"), "encoded slash"),
        (exact("/a%5Cb"), "backslash"),
        (exact("/a\\b"), "backslash"),
        (exact("/a;b=1"), "path parameters"),
        (exact("/a?b"), "match the query with `query`"),
        (exact("/a#b"), "a `#`"),
        (exact("/a%"), "write `%25`"),
        (exact("/a%+1"), "write `%25`"),
        (exact("/a\tb"), "control character"),
        (exact("/{id}"), "write the path as a template"),
        (prefix("/a/}"), "only a template"),
        (template("/{id"), "unbalanced"),
        (template("/id}"), "unbalanced"),
        (template("/v{id}"), "whole segment"),
        (template("/{id}.json"), "whole segment"),
        (template("/{}"), "not a parameter"),
        (template("/{1a}"), "not a parameter"),
        (template("/{a}/{a}"), "two parameters named `a`"),
        (template("/{a}/{*a}"), "two parameters named `a`"),
        (template("/{*a}/b"), "must be last"),
        (template(&(0..17).map(|i| format!("/{{p{i}}}")).collect::<String>()), "17 parameters"),
        (template(&"/a".repeat(65)), "65 segments"),
        (prefix(&"/a".repeat(65)), "65 segments"),
        (by_regex(&"(a)".repeat(17)), "17 groups"),
        (exact("/").on("A.com"), "write `a.com`"),
        (exact("/").on("a.com:80"), "write `a.com`"),
        (exact("/").on("a.*.com"), "write `*.example.com`"),
        (exact("/").on("*a.com"), "write `*.example.com`"),
        (exact("/").on("*.*.com"), "write `*.example.com`"),
        (exact("/").on("*"), "leave `hosts` out"),
        (exact("/").on("a.com."), "write `a.com`"),
        (exact("/").on("a..com"), "not a host name"),
        (exact("/").on("*."), "not a host name"),
        (exact("/").on(""), "not a host name"),
        (exact("/").on("http://a.com"), "is a URL; write only its host"),
        (exact("/").on("bücher.de"), "`xn--` form"),
        (exact("/").on("[::zz]"), "IPv6"),
        (exact("/").on(&"a.".repeat(127).replace("a.", "ab.")), "ends in a dot"),
        (exact("/").on(&"a".repeat(254)), "longer than 253"),
        (exact("/").methods(&["get"]), "write `GET` instead of `get`"),
        (exact("/").methods(&["A B"]), "not a method"),
        (exact("/").methods(&[""]), "not a method"),
        (exact("/").header("a b", ValuePattern::Present), "not a header name"),
    ];
    for (rule, part) in paths {
        let found = conflicts(std::slice::from_ref(&rule));
        let [(0, ConflictKind::BadPattern { message })] = found.as_slice() else {
            panic!("{rule:?}: {found:?}");
        };
        assert!(message.contains(part), "{rule:?}: {message}");
    }
}

#[test]
fn a_rule_with_several_faults_has_all_of_them_told() {
    let rule = exact("a").on("A").on("b:1").methods(&["get", "é"]).header("", is(""));
    let found = conflicts(&[exact("/b"), rule, exact("/b")]);
    assert_eq!(found.len(), 7, "{found:?}");
    assert!(found[..6].iter().all(|(id, _)| *id == 1));
    assert_eq!(found[6], (2, ConflictKind::Duplicate { of: 0 }));
}

proptest::proptest! {
    /// A literal pattern and the same text as a request's path come out the same, or one of them
    /// is refused.
    #[test]
    fn literals_are_normal_paths(path in "/[!-~/.%0-9a-fA-F]{0,12}") {
        let mut normal = NormalPath::default();
        let normalised = normal.normalise(path.as_bytes(), PathRules::default());
        if let (Ok(()), Ok(router)) = (normalised, Router::compile(&[exact(&path)])) {
            let matched = normal.matched_of(path.as_bytes());
            let ask = Ask::get(std::str::from_utf8(matched).unwrap());
            proptest::prop_assert_eq!(ask.outcome(&router), Ok(0), "{}", path);
        }
    }

    /// No pattern makes the compiler panic; one that compiles leads where it should.
    #[test]
    fn any_text_compiles_or_is_explained(
        path in "/?[a-c/{}*.%0-9;?#\\\\é ]{0,16}",
        host in "[a-cA-C.*:\\[\\]0-9-]{0,10}",
    ) {
        for rule in [exact(&path), prefix(&path), template(&path), exact("/").on(&host)] {
            match Router::compile(std::slice::from_ref(&rule)) {
                Ok(router) => {
                    let _ = Ask::get(&path).host(&host).outcome(&router);
                    proptest::prop_assert_eq!(
                        rule.path.param_names().unwrap(), router.param_names(0)
                    );
                }
                Err(conflicts) => for conflict in conflicts {
                    let ConflictKind::BadPattern { message } = conflict.kind else {
                        panic!("{conflict:?}");
                    };
                    proptest::prop_assert!(message.contains('`'), "{}", message);
                },
            }
        }
    }
}
