//! The rules against an oracle that knows nothing of their order of conditions, and single
//! conditions.

use std::rc::Rc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    policy::{
        addresses::NamedNetworks,
        identity::{Identity, Shown},
        route::PARAMS_MAX,
    },
    wire::{HeadLimits, Parsed, RequestHead, Span},
};

/// A request that rules can look at.
struct Asked {
    head: RequestHead,
    buf: Vec<u8>,
    path: Vec<u8>,
    matched: RouteMatch,
    identity: Option<Identity>,
    client: Option<IpAddr>,
}

impl Asked {
    fn new(
        method: &str,
        id: &str,
        fields: &str,
        identity: Option<Identity>,
        client: &str,
    ) -> Asked {
        let buf = format!("{method} /o/{id} HTTP/1.1\r\nHost: A.test\r\n{fields}\r\n").into_bytes();
        let limits = HeadLimits { head_bytes_max: 8192, target_bytes_max: 1024, fields_max: 50 };
        let mut head = RequestHead::default();
        assert_eq!(head.parse(&buf, &limits), Ok(Parsed::Complete(())));
        let path = format!("/o/{id}").into_bytes();
        let mut matched = RouteMatch {
            route: 0,
            params: [Span::EMPTY; PARAMS_MAX],
            params_len: 1,
            prefix_len: 3,
        };
        matched.params[0] = Span::new(3, path.len());
        Asked { head, buf, path, matched, identity, client: client.parse().ok() }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            identity: self.identity.as_ref(),
            consumer: self.identity.as_ref().and_then(|i| i.consumer).map(|_| "partner"),
            request: RequestView {
                method: self.head.method,
                method_text: self.head.method_text.of(&self.buf),
                host: b"A.test",
                path: &self.path,
                query: Some(b"q=1"),
                head: &self.head,
                buf: &self.buf,
            },
            matched: &self.matched,
            scheme: "https",
            client: self.client,
            // A Saturday, 22:00 UTC.
            now_s: || 1_796_508_000,
        }
    }
}

fn somebody(subject: &str, groups: &[&str], scopes: &[&str], claims: &Value) -> Identity {
    let list = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
    Identity {
        groups: list(groups),
        scopes: list(scopes),
        claims: Rc::new(claims.as_object().cloned().unwrap_or_default()),
        ..Identity::plain(Shown::Token, "main".into(), subject.into())
    }
}

fn rule(effect: Effect) -> Rule {
    Rule {
        name: "r".into(),
        effect,
        request: RequestConditions::default(),
        identity: IdentityConditions::default(),
        when: None,
    }
}

fn named(name: &str, value: ValuePattern) -> ValueMatch {
    ValueMatch { name: name.to_owned(), value }
}

fn exact(name: &str, value: &str) -> ValueMatch {
    named(name, ValuePattern::Exact(value.to_owned()))
}

fn expression(text: &str) -> Option<Arc<Expression>> {
    let compiled = Expression::compile(text, &["id".to_owned()]);
    Some(Arc::new(compiled.unwrap_or_else(|fault| panic!("{text}: {fault:?}"))))
}

#[test]
fn expressions() {
    let claims = json!({
        "team": "blue", "level": 3, "roles": ["a", "b"], "org": { "id": "x" }, "vip": true,
        "big": 18_446_744_073_709_551_615_u64,
    });
    let mut identity = somebody("alice", &["staff"], &["read"], &claims);
    identity.consumer = Some(0);
    let known = Asked::new("PUT", "alice", "X-A: 1\r\nx-a: 2\r\n", Some(identity), "192.0.2.1");
    let unknown = Asked::new("GET", "bob", "", None, "nowhere");
    for (text, of_known, of_unknown) in [
        ("request.method == \"PUT\"", Ok(true), Ok(false)),
        ("request.path.startsWith(\"/o/\") && request.host == \"a.test\"", Ok(true), Ok(true)),
        ("request.scheme == \"https\" && request.query.contains(\"q=\")", Ok(true), Ok(true)),
        ("request.headers[\"x-a\"] == \"1, 2\"", Ok(true), Err("No such key: x-a")),
        ("\"x-a\" in request.headers", Ok(true), Ok(false)),
        ("\"x-a\" in request[\"headers\"]", Ok(true), Ok(false)),
        ("params.id == identity.subject", Ok(true), Err("")),
        ("identity != null && identity.consumer == \"partner\"", Ok(true), Ok(false)),
        ("identity == null", Ok(false), Ok(true)),
        ("\"staff\" in identity.groups && \"read\" in identity.scopes", Ok(true), Err("")),
        ("identity.kind == \"token\" && identity.by == \"main\"", Ok(true), Err("")),
        ("claims.team == \"blue\" && claims.level >= 3 && claims.vip", Ok(true), Err("")),
        ("claims.roles.exists(r, r == \"b\")", Ok(true), Err("")),
        (
            "claims.roles.exists_one(r, r == \"b\") && claims.roles.all(r, r != \"c\")",
            Ok(true),
            Err(""),
        ),
        ("has(claims.org) && claims.org.id == \"x\"", Ok(true), Ok(false)),
        ("claims.big > 5u", Ok(true), Err("")),
        ("claims.team.matches(\"^b.*e$\")", Ok(true), Err("")),
        ("client.address == \"192.0.2.1\"", Ok(true), Ok(false)),
        (
            "now > timestamp(\"2026-01-01T00:00:00Z\") && now.getDayOfWeek() == 6",
            Ok(true),
            Ok(true),
        ),
        ("request.path", Err("it is string, not true or false"), Err("it is string")),
        ("1 / 0 == 1", Err("Division by zero"), Err("Division by zero")),
    ] {
        let expression = expression(text).expect("compiled");
        for (asked, expected) in [(&known, of_known), (&unknown, of_unknown)] {
            match (expression.holds(&asked.facts()), expected) {
                (Err(why), Err(begins)) => assert!(why.starts_with(begins), "{text}: {why}"),
                (holds, expected) => {
                    assert_eq!(holds, expected.map_err(str::to_owned), "{text}");
                }
            }
        }
    }
}

#[test]
fn work_of_an_expression_is_bounded() {
    let many: Vec<u32> = (0..300).collect();
    let text = "claims.many.exists(x, x == 299)";
    let asked =
        |claims: Value| Asked::new("GET", "a", "", Some(somebody("a", &[], &[], &claims)), "");
    let of_many = asked(json!({ "many": many }));
    let held = expression(text).expect("compiled").holds(&of_many.facts());
    assert_eq!(held, Err("the identity has a list of more than 256 entries".to_owned()));
    let mut deep = json!(1);
    (0..20).for_each(|_| deep = json!([deep]));
    let held = expression("claims.deep == 1").expect("compiled");
    let held = held.holds(&asked(json!({ "deep": deep })).facts());
    assert_eq!(held, Err("the claims are nested too deeply".to_owned()));
}

#[test]
fn an_expression_that_fails_counts_against_the_client() {
    let known = Asked::new("GET", "a", "", Some(somebody("a", &[], &[], &json!({}))), "");
    let unknown = Asked::new("GET", "a", "", None, "");
    let with = |effect| Rule { when: expression("claims.none == 1"), ..rule(effect) };
    let (allow, deny) = (with(Effect::Allow), with(Effect::Deny));
    assert_eq!(allow.miss(&known.facts()), Some(Miss::WhenFailed("No such key: none".into())));
    assert_eq!(deny.miss(&known.facts()), None);
    for rule in [&allow, &deny] {
        assert_eq!(rule.miss(&unknown.facts()), Some(Miss::Anonymous));
    }
}

#[test]
fn claims() {
    let claims = json!({
        "n": 3, "t": true, "list": ["a", 7, null], "text": "a", "null": null, "map": { "a": "b" },
    });
    let regex = |text: &str| ValuePattern::Regex(regex::bytes::Regex::new(text).expect("a regex"));
    let equals = |text: &str| ValuePattern::Exact(text.to_owned());
    for (claim, wanted, is_met) in [
        ("n", equals("3"), true),
        ("n", equals("3.0"), false),
        ("t", equals("true"), true),
        ("list", equals("a"), true),
        ("list", equals("7"), true),
        ("list", equals("null"), false),
        ("text", regex("^[ab]$"), true),
        ("text", regex("^[bc]$"), false),
        ("null", ValuePattern::Present, true),
        ("null", equals("null"), false),
        ("map", equals("b"), false),
        ("none", ValuePattern::Present, false),
        ("none", ValuePattern::Absent, true),
    ] {
        assert_eq!(claim_met(&wanted, claims.get(claim)), is_met, "{claim} {wanted:?}");
    }
}

/// What one condition of a generated rule asks, for both sides of the comparison.
#[derive(Clone, Debug, Default)]
struct Wish {
    deny: bool,
    authenticated: Option<bool>,
    subject: Option<u8>,
    consumer: bool,
    groups: Vec<u8>,
    scopes: Vec<u8>,
    claim: Option<u8>,
    methods: Vec<u8>,
    param: Option<u8>,
    header: Option<u8>,
    client: Option<u8>,
    when: Option<u8>,
}

#[derive(Clone, Debug)]
struct World {
    known: bool,
    subject: u8,
    consumer: bool,
    groups: Vec<u8>,
    scopes: Vec<u8>,
    claim: u8,
    method: u8,
    param: u8,
    header: Option<u8>,
    client: u8,
}

const METHODS: [&str; 3] = ["GET", "PUT", "PURGE"];

fn wishes() -> impl Strategy<Value = Wish> {
    let few = || proptest::collection::vec(0u8..3, 0..3);
    let maybe = || proptest::option::weighted(0.25, 0u8..3);
    let who =
        (proptest::option::weighted(0.3, any::<bool>()), maybe(), proptest::bool::weighted(0.1));
    let lists = (few(), few(), few());
    let values = (maybe(), maybe(), maybe(), maybe(), maybe());
    (any::<bool>(), who, lists, values).prop_map(|(deny, who, lists, values)| Wish {
        deny,
        authenticated: who.0,
        subject: who.1,
        consumer: who.2,
        // Half of the lists are empty.
        groups: if deny { lists.0 } else { Vec::new() },
        scopes: if deny { Vec::new() } else { lists.1 },
        methods: lists.2,
        claim: values.0,
        param: values.1,
        header: values.2,
        client: values.3,
        when: values.4,
    })
}

fn worlds() -> impl Strategy<Value = World> {
    let few = || proptest::collection::vec(0u8..3, 0..3);
    let one = || 0u8..3;
    let who = (any::<bool>(), one(), any::<bool>(), few(), few(), one());
    let what = (one(), one(), proptest::option::of(one()), one());
    (who, what).prop_map(|(who, what)| World {
        known: who.0,
        subject: who.1,
        consumer: who.2,
        groups: who.3,
        scopes: who.4,
        claim: who.5,
        method: what.0,
        param: what.1,
        header: what.2,
        client: what.3,
    })
}

/// Whether a rule would match if the client were known or not, and whether it asks for that.
fn oracle(wish: &Wish, world: &World) -> (bool, bool) {
    let holds = |wish: &Option<u8>, has: u8| wish.is_none_or(|wish| wish == has);
    let request = (wish.methods.is_empty() || wish.methods.contains(&world.method))
        && holds(&wish.param, world.param)
        && wish.header.is_none_or(|wish| world.header == Some(wish))
        && holds(&wish.client, world.client);
    let asks = wish.authenticated == Some(true)
        || wish.subject.is_some()
        || wish.consumer
        || !wish.groups.is_empty()
        || !wish.scopes.is_empty()
        || wish.claim.is_some();
    let who = wish.authenticated != Some(false)
        && holds(&wish.subject, world.subject)
        && (!wish.consumer || world.consumer)
        && (wish.groups.is_empty() || wish.groups.iter().any(|g| world.groups.contains(g)))
        && wish.scopes.iter().all(|s| world.scopes.contains(s))
        && holds(&wish.claim, world.claim)
        && holds(&wish.when, world.claim);
    match world.known {
        true => (request && who, false),
        // An expression asks too, unless something else is not so.
        false => {
            (request && !asks && wish.when.is_none(), request && (asks || wish.when.is_some()))
        }
    }
}

/// Status and deciding rule, by reading the page: first match decides, nothing matched is denied.
fn expected(wishes: &[Wish], world: &World) -> (u16, Option<usize>) {
    let mut is_asked = false;
    for (at, wish) in wishes.iter().enumerate() {
        let (matches, asks) = oracle(wish, world);
        if matches && !wish.deny {
            return (200, Some(at));
        }
        if matches {
            return (if is_asked { 401 } else { 403 }, Some(at));
        }
        is_asked |= asks && !wish.deny;
    }
    (if is_asked { 401 } else { 403 }, None)
}

fn rule_of(wish: &Wish) -> Rule {
    let names = |list: &[u8]| list.iter().map(|n| Box::from(format!("n{n}"))).collect();
    let one = |wish: Option<u8>| names(&wish.into_iter().collect::<Vec<u8>>());
    let mut methods = Methods::default();
    let mut other = Vec::new();
    for method in &wish.methods {
        match Method::from_bytes(METHODS[usize::from(*method)].as_bytes()) {
            Method::Other => other.push(METHODS[usize::from(*method)].into()),
            known => methods.known.insert(known),
        }
    }
    methods.other = other.into();
    let clients = wish.client.map(|client| NamedNetworks {
        name: "list".into(),
        networks: Arc::new(
            [format!("10.0.0.{client}/32").parse().expect("a network")].into_iter().collect(),
        ),
    });
    Rule {
        request: RequestConditions {
            methods: (!wish.methods.is_empty()).then_some(methods),
            params: wish.param.map(|n| (0, exact("id", &format!("n{n}")))).into_iter().collect(),
            headers: wish.header.map(|n| exact("x-a", &format!("n{n}"))).into_iter().collect(),
            clients: Lists(clients.into_iter().collect()),
            times: None,
        },
        identity: IdentityConditions {
            authenticated: wish.authenticated,
            subjects: one(wish.subject),
            consumers: if wish.consumer { ["partner".into()].into() } else { Box::default() },
            groups: names(&wish.groups),
            scopes: names(&wish.scopes),
            claims: wish.claim.map(|n| exact("c", &format!("n{n}"))).into_iter().collect(),
        },
        when: wish.when.and_then(|n| expression(&format!("claims.c == \"n{n}\""))),
        ..rule(if wish.deny { Effect::Deny } else { Effect::Allow })
    }
}

fn asked(world: &World) -> Asked {
    let names = |list: &[u8]| list.iter().map(|n| format!("n{n}")).collect::<Vec<_>>();
    let (groups, scopes) = (names(&world.groups), names(&world.scopes));
    let texts =
        |list: &[String]| list.iter().map(|name| Box::from(&**name)).collect::<Rc<[Box<str>]>>();
    let mut identity = somebody(
        &format!("n{}", world.subject),
        &[],
        &[],
        &json!({ "c": format!("n{}", world.claim) }),
    );
    identity.groups = texts(&groups);
    identity.scopes = texts(&scopes);
    identity.consumer = world.consumer.then_some(0);
    let field = world.header.map(|n| format!("X-A: n{n}\r\n")).unwrap_or_default();
    Asked::new(
        METHODS[usize::from(world.method)],
        &format!("n{}", world.param),
        &field,
        Some(identity).filter(|_| world.known),
        &format!("10.0.0.{}", world.client),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn rules_decide_as_the_page_says(
        wishes in proptest::collection::vec(wishes(), 1..5),
        world in worlds(),
    ) {
        let rules = wishes.iter().map(rule_of).collect();
        let authorization = Authorization { rules, shadow: false, asks: true };
        let asked = asked(&world);
        let decision = authorization.decide(&asked.facts());
        let status = decision.reason().map_or(200, |reason| reason.status);
        prop_assert_eq!((status, decision.rule), expected(&wishes, &world));
    }
}
