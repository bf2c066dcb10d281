use super::*;

const NOT_FOUND: Result<RouteId, &str> = Err("route.not_found");

fn table(rules: &[RouteRule], cases: &[(Ask, Result<RouteId, &str>)]) {
    let router = router(rules);
    for (ask, wanted) in cases {
        assert_eq!(ask.outcome(&router), *wanted, "{ask:?}");
    }
}

#[test]
fn kinds_of_path_in_their_order() {
    let rules = [
        RouteRule::default(),
        prefix("/"),
        prefix("/a"),
        prefix("/a/b/"),
        by_regex("/a/b/[0-9]+"),
        by_regex("/a/.*/1"),
        template("/a/b/{id}"),
        exact("/a/b/7"),
        template("/{x}/b/c"),
    ];
    let cases = [
        ("/a/b/7", 7),
        ("/a/b/8", 6),
        ("/a/b/8/1", 5),
        ("/a/b/8/2", 3),
        ("/a/b/c", 6),
        ("/z/b/c", 8),
        ("/a/b", 3),
        ("/a/b/", 3),
        ("/a/bc", 2),
        ("/ab", 1),
        ("/", 1),
        ("*", 0),
        ("", 0),
    ];
    table(&rules, &cases.map(|(path, route)| (Ask::get(path), Ok(route))));
}

#[test]
fn templates_by_literals_then_leftmost() {
    let rules = [
        template("/{a}/{b}/{c}"),
        template("/a/{b}/{c}"),
        template("/{a}/b/c"),
        template("/{a}/b/{c}"),
        template("/{*rest}"),
        template("/a/{*rest}"),
        template("/{a}/b/{c}/"),
    ];
    let cases = [
        ("/a/b/c", 2),
        ("/a/b/x", 1),
        ("/x/b/x", 3),
        ("/x/y/z", 0),
        ("/a/x", 5),
        ("/x/y", 4),
        ("/a/b/x/", 6),
        ("/a//c", 5),
        ("/a/", 4),
    ];
    table(&rules, &cases.map(|(path, route)| (Ask::get(path), Ok(route))));
    table(&rules, &[(Ask::get("/"), NOT_FOUND)]);
}

#[test]
fn what_is_captured() {
    let rules = [
        template("/users/{id}/orders/{order}"),
        template("/files/{*rest}"),
        by_regex("/(?<lang>[a-z]{2})(?:-([A-Z]{2}))?/(.*)"),
        prefix("/p/q"),
        exact("/exact/"),
        template("/{top}"),
        RouteRule::default(),
    ];
    let cases: [(&str, RouteId, &[&str], usize); 9] = [
        ("/users/7/orders/x%20y", 0, &["7", "x%20y"], 6),
        ("/files/a/b/", 1, &["a/b/"], 6),
        ("/de-AT/x/y", 2, &["de", "AT", "x/y"], 0),
        ("/de/x", 2, &["de", "", "x"], 0),
        ("/p/q/r", 3, &[], 4),
        ("/p/q", 3, &[], 4),
        ("/exact/", 4, &[], 7),
        ("/top", 5, &["top"], 0),
        ("/no/such", 6, &[], 0),
    ];
    let router = router(&rules);
    for (path, route, params, prefix_len) in cases {
        // "/no/such" would match the expression's two letters: that is what "/no/" is.
        let path = path.replace("/no/", "/none/");
        let found = Ask::get(&path).find(&router).unwrap();
        assert_eq!(found.route, route, "{path}");
        let spans = &found.params[..usize::from(found.params_len)];
        let captured: Vec<_> = spans.iter().map(|s| s.of(path.as_bytes())).collect();
        let wanted: Vec<_> = params.iter().map(|p| p.as_bytes()).collect();
        assert_eq!(captured, wanted, "{path}");
        assert_eq!(found.prefix_len as usize, prefix_len, "{path}");
    }
    assert_eq!(router.param_names(0), ["id", "order"]);
    assert_eq!(router.param_names(1), ["rest"]);
    assert_eq!(router.param_names(2), ["lang", "2", "3"]);
    assert!(router.param_names(3).is_empty());
}

#[test]
fn hosts() {
    let rules = [
        exact("/").on("a.com"),
        exact("/").on("*.a.com"),
        exact("/").on("*.b.a.com"),
        exact("/").on("x.b.a.com").on("[::1]"),
        exact("/only").on("*.com"),
    ];
    let cases = [
        ("a.com", Ok(0)),
        ("A.Com", Ok(0)),
        ("a.com.", Ok(0)),
        ("a.com..", Err("route.host")),
        ("b.a.com", Ok(1)),
        ("z.b.a.com", Ok(2)),
        ("y.z.b.a.com", Ok(2)),
        ("x.b.a.com", Ok(3)),
        ("[::1]", Ok(3)),
        ("xa.com", NOT_FOUND),
        (".a.com", NOT_FOUND),
        ("com", Err("route.host")),
        ("b.org", Err("route.host")),
        ("", Err("route.host")),
    ];
    table(&rules, &cases.map(|(host, wanted)| (Ask::get("/").host(host), wanted)));
    // Less specific hosts are tried when no path of the more specific matches.
    let cases = ["a.com", "b.a.com", "x.b.a.com"].map(|h| (Ask::get("/only").host(h), Ok(4)));
    table(&rules, &cases);
    let long = format!("{}.a.com", "a".repeat(300));
    table(&rules, &[(Ask::get("/").host(&long), Err("route.host"))]);
    table(&[], &[(Ask::get("/"), NOT_FOUND)]);
    let some_host_any = [exact("/a").on("a.com"), exact("/b")];
    table(&some_host_any, &[(Ask::get("/").host("z.com"), NOT_FOUND)]);
}

#[test]
fn methods() {
    let rules = [
        exact("/a").methods(&["GET"]),
        exact("/a").methods(&["POST", "PURGE"]),
        prefix("/a").methods(&["DELETE"]),
        exact("/b").methods(&["OPTIONS"]),
        exact("/b").methods(&["PUT"]).header("x", is("1")),
        exact("/c"),
        exact("/c").methods(&["GET"]),
    ];
    let cases = [
        (Ask::get("/a"), Ok(0)),
        (Ask::get("/a").method("HEAD"), Ok(0)),
        (Ask::get("/a").method("POST"), Ok(1)),
        (Ask::get("/a").method("PURGE"), Ok(1)),
        (Ask::get("/a").method("purge"), Err("route.method")),
        (Ask::get("/a").method("DELETE"), Ok(2)),
        (Ask::get("/a").method("PUT"), Err("route.method")),
        (Ask::get("/b").method("PUT").header("X", "1"), Ok(4)),
        (Ask::get("/c"), Ok(6)),
        (Ask::get("/c").method("PUT"), Ok(5)),
        (Ask::get("/d"), NOT_FOUND),
    ];
    table(&rules, &cases);
    let router = router(&rules);
    let allow = |ask: Ask| ask.find(&router).unwrap_err().allow.names().collect::<Vec<_>>();
    assert_eq!(allow(Ask::get("/a").method("PUT")), ["GET", "HEAD", "POST", "DELETE"]);
    assert_eq!(allow(Ask::get("/a/x")), ["DELETE"]);
    // A route that also asks for a header which is not there promises nothing.
    assert_eq!(allow(Ask::get("/b")), ["OPTIONS"]);
    assert_eq!(allow(Ask::get("/b").header("x", "1")), ["PUT", "OPTIONS"]);
}

#[test]
fn headers_and_query() {
    let rules = [
        exact("/h"),
        exact("/h").header("X-Env", is("test")),
        exact("/h").header("x-env", ValuePattern::Regex(regex("t.*|u"))),
        exact("/h").header("x-env", is("test")).header("y", ValuePattern::Present),
        exact("/q").query("a", is("x y")),
        exact("/q").query("a b", ValuePattern::Present),
        exact("/q").query("n", ValuePattern::Regex(regex("[0-9]+"))),
        exact("/q").query("none", ValuePattern::Absent),
    ];
    let h = || Ask::get("/h");
    let q = |query| Ask::get("/q").query(query);
    let cases = [
        (h(), Ok(0)),
        (h().header("x-env", "test"), Ok(1)),
        (h().header("x-env", "prod").header("X-ENV", "test"), Ok(1)),
        (h().header("x-env", "Test"), Ok(0)),
        (h().header("x-env", "tee"), Ok(2)),
        (h().header("x-env", "ux"), Ok(0)),
        (h().header("x-env", "test").header("Y", ""), Ok(3)),
        (q("a=x%20y"), Ok(4)),
        (q("b=1&a=z&a=%78%20y"), Ok(4)),
        (q("a=x+y&none"), Ok(4)),
        (q("a=x%2By&none"), NOT_FOUND),
        (q("a+b&none"), Ok(5)),
        (q("a%20b&none"), Ok(5)),
        (q("n=12&none=1"), Ok(6)),
        (q("n=%312&none=1"), Ok(6)),
        (q("n=12x&none=1"), NOT_FOUND),
        (q("n=%zz&none=1"), NOT_FOUND),
        (q(""), Ok(7)),
        (q("&&=&a"), Ok(7)),
        (Ask::get("/q"), Ok(7)),
    ];
    table(&rules, &cases);
}

#[test]
fn patterns_are_normalised_like_paths() {
    let rules = [
        exact("/%61%2d%c3%a9"),
        exact("/é ü"),
        prefix("/%7euser"),
        template("/%7Bx%7D/{x}"),
        exact("/a%3Bb"),
    ];
    let cases = [
        ("/a-%C3%A9", 0),
        ("/%C3%A9%20%C3%BC", 1),
        ("/~user/x", 2),
        ("/%7Bx%7D/y", 3),
        ("/a%3Bb", 4),
    ];
    table(&rules, &cases.map(|(path, route)| (Ask::get(path), Ok(route))));
}

#[test]
fn regexes_match_the_whole_path() {
    let rules = [
        by_regex("/a|/b"),
        by_regex("(?x) /c [0-9]+ # number"),
        by_regex("(?i)/D"),
        by_regex("^/e$").methods(&["POST"]),
        by_regex("/[e-f]"),
    ];
    let cases = [("/a", 0), ("/b", 0), ("/c12", 1), ("/d", 2), ("/e", 4), ("/f", 4)];
    table(&rules, &cases.map(|(path, route)| (Ask::get(path), Ok(route))));
    table(&rules, &["/ab", "/x/b", "/c12x", "/a\n"].map(|path| (Ask::get(path), NOT_FOUND)));
    table(&rules, &[(Ask::get("/e").method("POST"), Ok(3))]);
    table(&rules[..1], &[(Ask::get("/b"), Ok(0)), (Ask::get("/bc"), NOT_FOUND)]);
}

#[test]
fn explain_tells_what_find_does() {
    let rules = [
        exact("/a").on("a.com").methods(&["POST"]),
        template("/{x}").on("*.com").header("X-Env", is("test")),
        template("/{x}").on("*.com").query("q", ValuePattern::Present),
        prefix("/").methods(&["GET"]),
        RouteRule::default(),
    ];
    let router = router(&rules);
    let told = Ask::get("/a").view(|request| router.explain(request));
    let wanted = [
        (0, HostKind::Exact, PathKind::Exact, Outcome::Method),
        (1, HostKind::Wildcard, PathKind::Template, Outcome::Header("x-env".into())),
        (2, HostKind::Wildcard, PathKind::Template, Outcome::Query("q".into())),
        (3, HostKind::Any, PathKind::Prefix, Outcome::Taken),
    ];
    let wanted =
        wanted.map(|(route, host, path, outcome)| Considered { route, host, path, outcome });
    assert_eq!(told, wanted);
}

/// Twenty levels where a literal and a parameter both match, all of them failing on a header: the
/// walk still looks at each template once.
#[test]
fn a_walk_visits_no_template_twice() {
    let mut rules = Vec::new();
    for bits in 0..1024u32 {
        let segment =
            |i: u32| if bits >> i & 1 == 1 { "/a".to_owned() } else { format!("/{{p{i}}}") };
        let path: String = (0..10).map(segment).collect();
        rules.push(template(&path).header("x", ValuePattern::Present));
    }
    let router = router(&rules);
    let told = Ask::get(&"/a".repeat(10)).view(|request| router.explain(request));
    assert_eq!(told.len(), 1024);
    assert_eq!(told[0].route, 1023);
    let longer = Ask::get(&"/a".repeat(5000));
    assert_eq!(longer.outcome(&router), NOT_FOUND);
}

/// Each worker has a copy of its own.
#[test]
fn a_router_can_be_given_to_another_thread() {
    fn given<T: Clone + Send + Sync + 'static>(value: &T) -> T {
        value.clone()
    }
    let copy = given(&router(&[exact("/a")]));
    let found = std::thread::spawn(move || Ask::get("/a").outcome(&copy)).join().unwrap();
    assert_eq!(found, Ok(0));
}
