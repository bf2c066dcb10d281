//! Rules about who asks, through the running gateway: tokens, API keys, passwords, certificates and
//! nobody, against every condition on identities alone, denied, and two by two; over both versions
//! of HTTP. An oracle that knows the identities as tables says what must come of each.

use std::{net::TcpStream, sync::Arc};

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Http2, Issuer, Papers, Upstream, token_issuer::TokenIssuer};

/// `rw_PyDODjRA3bcJSvCB9aWuZ3uB2V5RsIep4PVsEW`
const DIGEST: &str = "sha256:3bdb23e0a349a1b97087618b39e6640dcd22c40e203c6877132c03e7d8f84ec9";
const KEY: &str = "rw_PyDODjRA3bcJSvCB9aWuZ3uB2V5RsIep4PVsEW";
/// Of `wonderland`.
const HASH: &str = "$2y$10$abcdefghijklmnopqrstuuwmjOOgyx/jknFqeF8sHrF2cGgSECl/q";

/// Somebody, as the rules should see him.
struct Who {
    subject: &'static str,
    consumer: Option<&'static str>,
    groups: &'static [&'static str],
    scopes: &'static [&'static str],
    claims: Value,
    /// The field that he shows.
    shows: Option<(&'static str, String)>,
    certificate: bool,
}

/// What a condition comes to.
#[derive(Clone, Copy, PartialEq)]
enum Met {
    Yes,
    No,
    /// It asks for an identity, and there is none.
    Nobody,
    /// An expression that cannot be told.
    Untold,
}

/// A condition as it is written, and what it means.
struct Condition {
    text: &'static str,
    of_somebody: fn(&Who) -> Met,
    of_nobody: Met,
}

fn met(is_so: bool) -> Met {
    if is_so { Met::Yes } else { Met::No }
}

fn asks(text: &'static str, of_somebody: fn(&Who) -> Met) -> Condition {
    Condition { text, of_somebody, of_nobody: Met::Nobody }
}

fn conditions() -> Vec<Condition> {
    vec![
        asks("subjects = [\"tom\"]", |who| met(who.subject == "tom")),
        asks("subjects = [\"kate\", \"bob\"]", |who| met(["kate", "bob"].contains(&who.subject))),
        asks("consumers = [\"kate\"]", |who| met(who.consumer == Some("kate"))),
        asks("consumers = [\"bob\", \"carla\"]", |who| {
            met(matches!(who.consumer, Some("bob" | "carla")))
        }),
        asks("groups = [\"staff\"]", |who| met(who.groups.contains(&"staff"))),
        asks("groups = [\"machines\", \"partners\"]", |who| {
            met(who.groups.contains(&"machines") || who.groups.contains(&"partners"))
        }),
        asks("scopes = [\"read\"]", |who| met(who.scopes.contains(&"read"))),
        asks("scopes = [\"read\", \"deploy\"]", |who| {
            met(who.scopes.contains(&"read") && who.scopes.contains(&"deploy"))
        }),
        asks("claims = { team = \"blue\" }", |who| met(who.claims["team"] == "blue")),
        asks("claims = { team = { regex = \"b.*\" }, level = \"3\" }", |who| {
            let team = who.claims["team"].as_str();
            met(team.is_some_and(|t| t.starts_with('b')) && who.claims["level"] == 3)
        }),
        asks("claims = { \"realm.roles\" = \"dev\" }", |who| {
            let roles = who.claims["realm"]["roles"].as_array();
            met(roles.is_some_and(|roles| roles.contains(&json!("dev"))))
        }),
        asks("claims = { team = { present = false } }", |who| met(who.claims["team"].is_null())),
        asks("authenticated = true", |_| Met::Yes),
        Condition { text: "authenticated = false", of_somebody: |_| Met::No, of_nobody: Met::Yes },
        asks("when = 'identity != null && identity.kind == \"key\"'", |who| {
            met(who.subject == "kate")
        }),
        asks("when = 'claims.level > 2'", |who| match who.claims["level"].as_i64() {
            Some(level) => met(level > 2),
            None => Met::Untold,
        }),
        Condition {
            text: "when = 'identity == null'",
            of_somebody: |_| Met::No,
            of_nobody: Met::Yes,
        },
    ]
}

impl Condition {
    fn of(&self, who: Option<&Who>) -> Met {
        who.map_or(self.of_nobody, self.of_somebody)
    }

    fn key(&self) -> &str {
        self.text.split(' ').next().unwrap()
    }
}

/// Both conditions of one rule: the first that does not hold counts.
fn both(one: Met, other: Met) -> Met {
    match (one, other) {
        (Met::Yes, other) => other,
        // Who is not known meets no condition on identities, whatever else there is.
        (one, _) => one,
    }
}

/// What must come of a request of somebody, or nobody.
type Wanted = Box<dyn Fn(Option<&Who>) -> u16>;

/// Rules and what must come of them.
struct Case {
    rules: String,
    wanted: Wanted,
}

/// Of a rule that allows, and nothing else.
fn allowed(met: Met) -> u16 {
    match met {
        Met::Yes => 200,
        Met::No | Met::Untold => 403,
        Met::Nobody => 401,
    }
}

fn cases() -> Vec<Case> {
    let all: Vec<Arc<Condition>> = conditions().into_iter().map(Arc::new).collect();
    let mut cases = Vec::new();
    for one in &all {
        let own = one.clone();
        cases.push(Case {
            rules: format!("{{ {} }}", one.text),
            wanted: Box::new(move |who| allowed(own.of(who))),
        });
        let own = one.clone();
        cases.push(Case {
            rules: format!("{{ effect = \"deny\", {} }}, {{ methods = [\"GET\"] }}", one.text),
            wanted: Box::new(move |who| match own.of(who) {
                // What cannot be told counts against the client.
                Met::Yes | Met::Untold => 403,
                Met::No | Met::Nobody => 200,
            }),
        });
    }
    for (at, one) in all.iter().enumerate() {
        for other in &all[at + 1..] {
            let (first, second) = (one.clone(), other.clone());
            cases.push(Case {
                rules: format!("{{ {} }}, {{ {} }}", one.text, other.text),
                wanted: Box::new(move |who| match (first.of(who), second.of(who)) {
                    (Met::Yes, _) | (_, Met::Yes) => 200,
                    (Met::Nobody, _) | (_, Met::Nobody) => 401,
                    _ => 403,
                }),
            });
            // Two conditions of one key, or that exclude each other, are no rule.
            let is_rule = one.key() != other.key() && !one.text.ends_with("= false");
            let is_rule = is_rule && other.text != "authenticated = false";
            if is_rule {
                let (first, second) = (one.clone(), other.clone());
                cases.push(Case {
                    rules: format!("{{ {}, {} }}", one.text, other.text),
                    wanted: Box::new(move |who| allowed(both(first.of(who), second.of(who)))),
                });
            }
        }
    }
    cases
}

fn people(issuer: &TokenIssuer) -> Vec<Who> {
    let claims = json!({
        "sub": "tom", "groups": ["staff"], "scope": "read write", "team": "blue", "level": 3,
        "realm": { "roles": ["ops", "dev"] },
    });
    let token = issuer.token_with("a", claims.clone());
    let low = json!({ "sub": "tim", "team": "black", "level": 2, "scope": "read deploy" });
    let other = issuer.token_with("a", low.clone());
    let who = |subject, shows| Who {
        subject,
        consumer: Some(subject),
        groups: &[],
        scopes: &[],
        claims: Value::Null,
        shows,
        certificate: false,
    };
    let bearer = |token| Some(("authorization", format!("Bearer {token}")));
    let basic = Some(("authorization", "Basic Ym9iOndvbmRlcmxhbmQ=".to_owned()));
    vec![
        Who {
            consumer: None,
            groups: &["staff"],
            scopes: &["read", "write"],
            claims,
            ..who("tom", bearer(token))
        },
        Who {
            consumer: None,
            scopes: &["read", "deploy"],
            claims: low,
            ..who("tim", bearer(other))
        },
        Who {
            groups: &["partners"],
            scopes: &["read", "deploy"],
            ..who("kate", Some(("x-api-key", KEY.to_owned())))
        },
        Who { groups: &["staff"], ..who("bob", basic) },
        Who {
            subject: "CN=rcgen self signed cert",
            groups: &["machines"],
            certificate: true,
            ..who("carla", None)
        },
    ]
}

fn configuration(cases: &[Case], issuer: &TokenIssuer, upstream: &Upstream) -> String {
    let route = |(at, case): (usize, &Case)| {
        format!(
            "[[routes]]\npath = \"/{at}\"\nupstream = \"app\"\nanonymous = true\n\
             authenticate = [\"tokens\", \"keys\", \"people\", \"certificate\"]\n\
             authorize = [{}]\n",
            case.rules
        )
    };
    let routes: String = cases.iter().enumerate().map(route).collect();
    format!(
        "{routes}\
         [jwt.tokens]\nalgorithms = [\"EdDSA\"]\naudience = [\"api\"]\nissuer = \"{}\"\njwks = \"{}\"\n\
         [api_keys.keys]\n\
         [basic.people]\nrealm = \"us\"\n\
         [consumers.kate]\nkeys = [\"{DIGEST} scopes=read,deploy\"]\ngroups = [\"partners\"]\n\
         [consumers.bob]\npassword = \"{HASH}\"\ngroups = [\"staff\"]\n\
         [consumers.carla]\ncertificate_names = [\"client.test\"]\ngroups = [\"machines\"]\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        issuer.name(),
        issuer.keys_url(),
        upstream.address()
    )
}

#[test]
fn rules_see_who_asks_by_whatever_he_shows() {
    let (upstream, papers, ours) = (Upstream::ok(), Papers::new(), Issuer::new("ours"));
    let issuer = TokenIssuer::start();
    papers.issue("gw", &["gw.test"]);
    std::fs::write(papers.path("ca.pem"), &ours.pem).unwrap();
    let asks = format!(
        ", client_ca = \"{}\", client_certificate = \"optional\"",
        papers.path("ca.pem").display()
    );
    let listener = papers.listener(&["gw"], &asks);
    let cases = cases();
    assert!(cases.len() > 200, "{}", cases.len());
    let gateway = Gateway::start(&(listener + &configuration(&cases, &issuer, &upstream)));
    gateway.wait_for_log("new keys are in force");
    let badge = ours.issue("client.test", 1, 2090);
    let people = people(&issuer);
    let (mut wrong, mut served) = (Vec::new(), 0);
    for who in people.iter().map(Some).chain([None]) {
        let own = papers.showing(&["gw"], who.filter(|who| who.certificate).map(|_| &badge));
        let mut second = Http2::connect_tls(gateway.address(), &own);
        let tcp = TcpStream::connect(gateway.address()).unwrap();
        let mut first = Client::over_tls(tcp, &Arc::new(own));
        let shows = who.and_then(|who| who.shows.as_ref());
        for (at, case) in cases.iter().enumerate() {
            let target = format!("/{at}");
            let fields: Vec<_> = shows.iter().map(|(name, value)| (*name, &**value)).collect();
            let lines: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
            first.send(format!("GET {target} HTTP/1.1\r\nHost: gw.test\r\n{lines}\r\n"));
            let stream = second.ask("GET", &target, &fields);
            let wanted = (case.wanted)(who);
            for response in [first.response(), second.response(stream)] {
                served += usize::from(wanted == 200);
                let reason = match wanted {
                    401 => "authz.unauthenticated",
                    403 => "authz.denied",
                    _ => "",
                };
                let found = match response.status {
                    200 => String::new(),
                    _ => response.reason(),
                };
                if (response.status, &*found) != (wanted, reason) {
                    let name = who.map_or("nobody", |who| who.subject);
                    let status = response.status;
                    wrong.push(format!("{name}: {status} {found}, not {wanted}: {}", case.rules));
                }
                // RFC 9110 §11.6.1: the ways of the route.
                let ways: &[&str] = match wanted {
                    401 => &[
                        "Bearer realm=\"tokens\"",
                        "ApiKey realm=\"keys\"",
                        "Basic realm=\"us\", charset=\"UTF-8\"",
                        "Certificate realm=\"certificate\"",
                    ],
                    _ => &[],
                };
                assert_eq!(response.head.all("www-authenticate"), ways, "{}", case.rules);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Who was refused was not forwarded.
    assert_eq!(upstream.requests().len(), served);
}

/// What is shown and wrong is refused before any rule is asked, also where nobody need show
/// anything.
#[test]
fn a_wrong_credential_is_refused_before_the_rules() {
    let (upstream, issuer) = (Upstream::ok(), TokenIssuer::start());
    let case = Case { rules: "{ methods = [\"GET\"] }".to_owned(), wanted: Box::new(|_| 200) };
    let text = configuration(&[case], &issuer, &upstream);
    let gateway = Gateway::start(&text.replace(", \"certificate\"", ""));
    gateway.wait_for_log("new keys are in force");
    let mut client = gateway.client();
    let good = issuer.token("a", "tom");
    for (field, status) in [
        (String::new(), 200),
        (format!("Authorization: Bearer {good}\r\n"), 200),
        (format!("Authorization: Bearer {good}x\r\n"), 401),
        (format!("X-API-Key: {}\r\n", KEY.replace('E', "F")), 401),
        ("Authorization: Basic Ym9iOmd1ZXNzZWQ=\r\n".to_owned(), 401),
    ] {
        client.send(format!("GET /0 HTTP/1.1\r\nHost: gw.test\r\n{field}\r\n"));
        let response = client.response();
        assert_eq!(response.status, status, "{field}");
        if status == 401 {
            assert_eq!(response.reason(), "auth.invalid", "{field}");
        }
    }
    assert_eq!(upstream.requests().len(), 2);
}
