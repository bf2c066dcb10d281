//! JSON Web Tokens: who gets in, what others are told, what upstreams learn, and where keys come
//! from while all goes well and while it does not.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::harness::{
    Client, Gateway, Launch, Papers, Response, Upstream, eventually,
    http2::Http2,
    http2_server::alpn,
    is,
    token_issuer::{Mood, TokenIssuer, now_s},
    told,
};

/// A section whose keys are fetched, and a route that asks for it.
fn fetching(issuer: &TokenIssuer, more: &str) -> String {
    format!(
        "[[routes]]\npath = \"/\"\nrespond = {{ body = \"in\" }}\nauthenticate = [\"main\"]\n\
         [jwt.main]\nalgorithms = [\"EdDSA\"]\naudience = [\"api\"]\nissuer = \"{}\"\n\
         jwks = \"{}\"\n{more}\n",
        issuer.name(),
        issuer.keys_url()
    )
}

fn bearer(client: &mut Client, token: &str) -> Response {
    client.get_with("/", &format!("Authorization: Bearer {token}\r\n"))
}

/// The text of a damaged token: another signature.
fn forged(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    format!("{message}.{first}{}", &signature[1..])
}

#[test]
fn who_gets_in_and_what_others_are_told() {
    let issuer = TokenIssuer::start();
    let gateway = Gateway::start(&fetching(&issuer, ""));
    let mut client = gateway.client();
    let now = now_s();
    let good = issuer.token("a", "alice");
    let with = |more| issuer.token_with("a", more);
    for (token, wanted) in [
        (good.clone(), is(200, "")),
        // Known from before.
        (good.clone(), is(200, "")),
        (forged(&good), is(401, "auth.invalid")),
        ("x".to_owned(), is(401, "auth.invalid")),
        ("a".repeat(9000), is(401, "auth.invalid")),
        (with(json!({ "exp": now - 60 })), is(401, "auth.expired")),
        (with(json!({ "nbf": now + 60 })), is(401, "auth.not_yet")),
        (with(json!({ "iss": "https://other.example" })), is(401, "auth.issuer")),
        (with(json!({ "aud": "other" })), is(401, "auth.audience")),
    ] {
        let response = bearer(&mut client, &token);
        assert_eq!(told(&response), wanted, "{token:.100}");
        let asked = response.field("www-authenticate").unwrap_or_default().to_owned();
        let error = "Bearer realm=\"main\", error=\"invalid_token\"";
        assert_eq!(asked.starts_with(error), wanted.0 == 401, "{asked}");
    }
    let response = client.get_with("/", "");
    assert_eq!(told(&response), is(401, "auth.missing"));
    assert_eq!(response.field("www-authenticate"), Some("Bearer realm=\"main\""));
    let twice = format!("Authorization: Bearer {good}\r\nAuthorization: Bearer {good}\r\n");
    assert_eq!(told(&client.get_with("/", &twice)), is(401, "auth.invalid"));
    let mut client = Http2::connect(gateway.address());
    let authorization = format!("Bearer {good}");
    let stream = client.ask("GET", "/", &[("authorization", &authorization)]);
    assert_eq!(client.response(stream).status, 200);
    let response = client.get("/");
    assert_eq!((response.status, &*response.reason()), (401, "auth.missing"));
    assert_eq!(response.field("www-authenticate"), Some("Bearer realm=\"main\""));
    // Also where a token came before the keys were there.
    assert_eq!(issuer.fetches(), 1);
}

#[test]
fn a_token_that_is_known_ends_with_its_time() {
    let issuer = TokenIssuer::start();
    let gateway = Gateway::start(&fetching(&issuer, "skew = \"0ms\""));
    let mut client = gateway.client();
    let token = issuer.token_with("a", json!({ "exp": now_s() + 2 }));
    let mut last = is(0, "");
    eventually("the token expires", || {
        let now = told(&bearer(&mut client, &token));
        assert!(now == is(200, "") || now == is(401, "auth.expired"), "{now:?}");
        assert!(last.0 != 401 || now.0 == 401, "expired for good");
        last = now;
        last.0 == 401
    });
}

#[test]
fn upstreams_learn_what_is_verified_and_nothing_else() {
    let (issuer, upstream) = (TokenIssuer::start(), Upstream::ok());
    let gateway = Gateway::start(&format!(
        r#"
        [[routes]]
        path = "/"
        upstream = "app"
        authenticate = ["main"]
        anonymous = true

        [jwt.main]
        algorithms = ["EdDSA"]
        audience = ["*"]
        jwks = "{}"
        from = ["bearer", "header:X-Token", "cookie:token", "query:token"]
        forward_credential = false
        forward = {{ X-User = "sub", X-Roles = "realm.roles", X-Deep = "realm", X-Bad = "bad" }}

        [upstreams.app]
        endpoints = ["{}"]
        "#,
        issuer.keys_url(),
        upstream.address()
    ));
    let mut client = gateway.client();
    let claims = json!({
        "sub": "alice", "realm": { "roles": ["a", "b"] }, "bad": "x\r\nX-Admin: yes",
    });
    let token = issuer.token_with("a", claims);
    let spoofed = "X-User: eve\r\nx_user: eve\r\nX-ROLES: admin\r\nX_Bad: eve\r\nX-Deep: eve\r\n";
    let shown = [
        (format!("/1?a=b&token={token}&c"), String::new(), "/1?a=b&c"),
        ("/2".to_owned(), format!("Authorization: Bearer {token}\r\n"), "/2"),
        ("/3?x".to_owned(), format!("X-Token: {token}\r\n"), "/3?x"),
        ("/4".to_owned(), format!("Cookie: a=b; token={token}; c=d\r\n"), "/4"),
        (format!("/5?token={token}"), String::new(), "/5"),
    ];
    for (target, fields, wanted) in shown {
        let response = client.get_with(&target, &format!("{spoofed}{fields}"));
        assert_eq!(response.status, 200, "{wanted}");
        let asked = upstream.request_for(wanted);
        assert_eq!(asked.head.all("x-user"), ["alice"]);
        assert_eq!(asked.head.all("x-roles"), ["a,b"]);
        for name in ["x_user", "x-deep", "x-bad", "x_bad", "x-admin", "authorization", "x-token"] {
            assert!(!asked.head.has(name), "{wanted}: {name}");
        }
        let cookies = (wanted == "/4").then_some("a=b; c=d");
        assert_eq!(asked.field("cookie"), cookies);
    }
    // What was shown and is wrong is no anonymous request; what is wrong in one place is not made
    // good by another.
    let wrong = format!("X-Token: {}\r\nCookie: token={token}\r\n", forged(&token));
    assert_eq!(told(&client.get_with("/", &wrong)), is(401, "auth.invalid"));
    assert_eq!(client.get_with("/anonymous", spoofed).status, 200);
    let asked = upstream.request_for("/anonymous");
    for name in ["x-user", "x_user", "x-roles", "x_bad", "x-deep"] {
        assert!(!asked.head.has(name), "{name}");
    }
}

#[test]
fn several_issuers() {
    let (first, second) = (TokenIssuer::start(), TokenIssuer::start());
    let section = |name: &str, issuer: &TokenIssuer| {
        format!(
            "[jwt.{name}]\nalgorithms = [\"EdDSA\"]\naudience = [\"api\"]\nissuer = \"{}\"\n",
            issuer.name()
        )
    };
    // Their keys are found by discovery.
    let gateway = Gateway::start(&format!(
        "[[routes]]\npath = \"/\"\nrespond = {{}}\nauthenticate = [\"one\", \"two\"]\n{}{}",
        section("one", &first),
        section("two", &second)
    ));
    let mut client = gateway.client();
    for issuer in [&first, &second] {
        let token = issuer.token("a", "alice");
        assert_eq!(told(&bearer(&mut client, &token)), is(200, ""));
        assert_eq!(told(&bearer(&mut client, &forged(&token))), is(401, "auth.invalid"));
    }
    // One that speaks for another.
    let token = second.token_with("a", json!({ "iss": first.name() }));
    assert_eq!(told(&bearer(&mut client, &token)), is(401, "auth.invalid"));
}

#[test]
fn keys_of_this_configuration() {
    let issuer = TokenIssuer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, issuer.set_text()).unwrap();
    let toml = format!(
        "[[routes]]\npath = \"/\"\nrespond = {{}}\nauthenticate = [\"main\"]\n\
         [jwt.main]\nalgorithms = [\"EdDSA\"]\naudience = [\"api\"]\nkeys_file = \"{}\"\n",
        file.display()
    );
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    assert_eq!(told(&bearer(&mut client, &issuer.token("a", "alice"))), is(200, ""));
    issuer.publish("b");
    assert_eq!(
        told(&bearer(&mut client, &issuer.token("b", "alice"))),
        is(401, "auth.key_unknown")
    );
    issuer.withdraw("a");
    std::fs::write(&file, issuer.set_text()).unwrap();
    assert!(gateway.reload(&toml));
    let mut client = gateway.client();
    assert_eq!(told(&bearer(&mut client, &issuer.token("b", "alice"))), is(200, ""));
    assert_eq!(
        told(&bearer(&mut client, &issuer.token("a", "alice"))),
        is(401, "auth.key_unknown")
    );
    assert_eq!(issuer.fetches(), 0);
}

/// A key is published and used at once, again and again, while others ask.
#[test]
fn keys_change_under_load_without_a_wrong_answer() {
    let issuer = TokenIssuer::start();
    let gateway = Gateway::start(&fetching(&issuer, "refetch_after = \"100ms\"\nwait = \"10s\""));
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let newest = std::sync::Mutex::new(vec!["a".to_owned()]);
    thread::scope(|scope| {
        for n in 0..8 {
            let (issuer, newest, over, asked) = (&issuer, &newest, &over, &asked);
            let mut client = gateway.client().patience(Duration::from_secs(20));
            scope.spawn(move || {
                let mut turn = n;
                while !over.load(Ordering::SeqCst) {
                    turn += 1;
                    let kids = newest.lock().unwrap().clone();
                    let kid = &kids[turn % kids.len()];
                    let token = issuer.token(kid, "alice");
                    assert_eq!(told(&bearer(&mut client, &token)), is(200, ""), "{kid}");
                    let forged = forged(&token);
                    assert_eq!(told(&bearer(&mut client, &forged)), is(401, "auth.invalid"));
                    asked.fetch_add(2, Ordering::SeqCst);
                }
            });
        }
        for n in 0..12 {
            let before = asked.load(Ordering::SeqCst);
            eventually("others ask", || asked.load(Ordering::SeqCst) > before + 100);
            let kid = format!("k{n}");
            issuer.publish(&kid);
            let mut newest = newest.lock().unwrap();
            newest.push(kid);
            if newest.len() > 3 {
                newest.remove(0);
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    println!("{} requests, {} fetches", asked.load(Ordering::SeqCst), issuer.fetches());
    assert!((12..=14).contains(&issuer.fetches()), "{}", issuer.fetches());
}

/// A key that was withdrawn is good until the next fetch, and not beyond it.
#[test]
fn a_withdrawn_key_is_forgotten_with_the_tokens_it_signed() {
    let issuer = TokenIssuer::start();
    let gateway = Gateway::start(&fetching(&issuer, "refetch_after = \"100ms\""));
    let mut client = gateway.client();
    let old = issuer.token("a", "alice");
    assert_eq!(told(&bearer(&mut client, &old)), is(200, ""));
    issuer.withdraw("a");
    issuer.publish("b");
    assert_eq!(told(&bearer(&mut client, &issuer.token("b", "alice"))), is(200, ""));
    assert_eq!(told(&bearer(&mut client, &old)), is(401, "auth.key_unknown"));
}

/// An operator who knows of it need not wait for that.
#[test]
fn a_withdrawn_key_is_forgotten_when_an_operator_asks() {
    let issuer = TokenIssuer::start();
    let more = "refetch_after = \"100ms\"\nrefresh = \"24h\"\n\
                [jwt.fixed]\nalgorithms = [\"HS256\"]\naudience = [\"api\"]\n\
                secret = \"env:CARGO_PKG_DESCRIPTION\"";
    let gateway = Gateway::start(&fetching(&issuer, more));
    gateway.wait_for_log("new keys are in force");
    let mut client = gateway.client();
    let old = issuer.token("a", "alice");
    assert_eq!(told(&bearer(&mut client, &old)), is(200, ""));
    issuer.publish("b");
    issuer.withdraw("a");
    let fetch = |name: &str| {
        let output = gateway.command(&["key", "fetch", name]);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    assert_eq!(fetch("main"), (Some(0), "1 key of main: they have changed\n".to_owned()));
    assert_eq!(told(&bearer(&mut client, &old)), is(401, "auth.key_unknown"));
    assert_eq!(told(&bearer(&mut client, &issuer.token("b", "alice"))), is(200, ""));
    assert_eq!(fetch("main"), (Some(0), "1 key of main: as before\n".to_owned()));
    // One that comes to nothing changes nothing.
    issuer.set(Mood::Broken);
    let (code, text) = fetch("main");
    assert!(code == Some(1) && text.contains("those before stay in force"), "{text}");
    assert_eq!(told(&bearer(&mut client, &issuer.token("b", "alice"))), is(200, ""));
    for name in ["fixed", "none"] {
        let (code, text) = fetch(name);
        assert!(code == Some(1) && text.contains("those that fetch keys are `main`"), "{text}");
    }
}

/// However many tokens name keys that are not there, one fetch is made in `refetch_after`.
#[test]
fn unknown_keys_do_not_cause_a_storm_of_fetches() {
    let issuer = TokenIssuer::start();
    let gateway = Gateway::start(&fetching(
        &issuer,
        "refetch_after = \"1h\"\nrefresh = \"1h\"\nwait = \"50ms\"",
    ));
    let good = issuer.token("a", "alice");
    // A request before that would ask for the first fetch.
    gateway.wait_for_log("new keys are in force");
    assert_eq!(told(&bearer(&mut gateway.client(), &good)), is(200, ""));
    issuer.make("none");
    let token = issuer.token("none", "alice");
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = gateway.client();
                for _ in 0..50 {
                    assert_eq!(told(&bearer(&mut client, &token)), is(401, "auth.key_unknown"));
                    assert_eq!(told(&bearer(&mut client, &good)), is(200, ""));
                }
            });
        }
    });
    assert_eq!(issuer.fetches(), 2, "at start, and once for all of them");
}

#[test]
fn keys_stay_while_their_provider_is_down() {
    let issuer = TokenIssuer::start();
    let more = "refetch_after = \"200ms\"\nrefresh = \"1s\"\nwait = \"300ms\"\n\
                fetch_timeout = \"100ms\"";
    let gateway = Gateway::start(&fetching(&issuer, more));
    let mut client = gateway.client();
    let (good, begun) = (issuer.token("a", "alice"), Instant::now());
    assert_eq!(told(&bearer(&mut client, &good)), is(200, ""));
    issuer.make("b");
    let unknown = issuer.token("b", "alice");
    for mood in [Mood::Broken, Mood::Hung, Mood::Elsewhere, Mood::Endless] {
        issuer.set(mood);
        let before = issuer.fetches();
        eventually("fetches that fail", || {
            assert_eq!(told(&bearer(&mut client, &good)), is(200, ""), "{mood:?}");
            let fresh = issuer.token("a", "bob");
            assert_eq!(told(&bearer(&mut client, &fresh)), is(200, ""), "{mood:?}");
            assert_eq!(told(&bearer(&mut client, &unknown)), is(401, "auth.key_unknown"));
            issuer.fetches() >= before + 2
        });
    }
    // A reload does not forget them either.
    assert!(gateway.reload(&fetching(&issuer, more)));
    assert_eq!(told(&bearer(&mut gateway.client(), &good)), is(200, ""));
    let bounds = begun.elapsed().as_millis() as usize / 200 + 1;
    assert!(issuer.fetches() <= bounds + 2, "{} fetches in {bounds} bounds", issuer.fetches());
    let metrics = gateway.admin().get("/metrics").text();
    let failed = "ringway_jwks_fetches_total{way=\"main\",outcome=\"failed\"} ";
    let failed = metrics.lines().find_map(|line| line.strip_prefix(failed)).unwrap();
    assert!(failed.parse::<u32>().unwrap() >= 8, "{failed}");
    assert!(metrics.contains("ringway_jwks_fetched_time_seconds{way=\"main\"} "));
    // It comes back.
    issuer.set(Mood::Up);
    issuer.publish("b");
    let mut client = gateway.client();
    eventually("the new key", || told(&bearer(&mut client, &unknown)).0 == 200);
}

#[test]
fn a_start_without_provider_has_the_keys_of_the_disk() {
    let issuer = TokenIssuer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("main.jwks");
    let more =
        format!("refetch_after = \"100ms\"\nwait = \"2s\"\njwks_cache = \"{}\"", file.display());
    let toml = fetching(&issuer, &more);
    let token = issuer.token("a", "alice");
    {
        let gateway = Gateway::start(&toml);
        assert_eq!(told(&bearer(&mut gateway.client(), &token)), is(200, ""));
        eventually("the file", || file.exists());
    }
    issuer.set(Mood::Broken);
    let gateway = Gateway::start(&toml);
    assert_eq!(told(&bearer(&mut gateway.client(), &token)), is(200, ""));
    // Without them nothing can be said.
    let bare = Gateway::start(&fetching(&issuer, "wait = \"100ms\""));
    let response = bearer(&mut bare.client(), &token);
    assert_eq!(told(&response), is(503, "auth.unavailable"));
    assert_eq!(response.field("www-authenticate"), None);
    // What is there is looked at as what is fetched.
    std::fs::write(&file, "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}").unwrap();
    let launch = Launch { toml, ..Launch::default() };
    let gateway = launch.start().unwrap();
    gateway.wait_for_log("cannot be used");
    issuer.set(Mood::Up);
    let mut client = gateway.client();
    eventually("the keys", || told(&bearer(&mut client, &token)).0 == 200);
}

#[test]
fn only_the_provider_itself_is_believed() {
    let papers = Papers::new();
    papers.issue("app", &["localhost"]).issue("other", &["localhost"]);
    let issuer = TokenIssuer::over_tls(alpn(&papers, &["http/1.1"]));
    let ca = |file: &str| {
        let path = papers.path(&format!("{file}.pem")).display().to_string();
        format!("ca = \"{path}\"\nwait = \"2s\"")
    };
    let token = issuer.token("a", "alice");
    let gateway = Gateway::start(&fetching(&issuer, &ca("app")));
    assert_eq!(told(&bearer(&mut gateway.client(), &token)), is(200, ""));
    let gateway = Gateway::start(&fetching(&issuer, &ca("other")));
    assert_eq!(told(&bearer(&mut gateway.client(), &token)), is(503, "auth.unavailable"));
    gateway.wait_for_log("cannot fetch keys");
    // By discovery: one that gives itself for another has no keys here.
    let plain = TokenIssuer::start();
    plain.say("https://id.example");
    let discovering = fetching(&plain, "")
        .lines()
        .filter(|line| !line.starts_with("jwks"))
        .collect::<Vec<_>>()
        .join("\n");
    let gateway = Gateway::start(&format!("{discovering}\n"));
    let response = bearer(&mut gateway.client(), &plain.token("a", "alice"));
    assert_eq!(told(&response), is(503, "auth.unavailable"));
    gateway.wait_for_log("is of the issuer `https://id.example`");
    assert_eq!(plain.fetches(), 0);
}
