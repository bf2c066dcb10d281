//! Logins and sessions: what is opened and what is not, what is in time, where a browser is sent.

use std::rc::Rc;

use serde_json::{Value, json};

use super::{
    Place, Purpose, Rule,
    cookies::{self, Names, PIECES_MAX, Shown},
    flow::{self, Callback},
    session::{self, Login, Sealer, Seen, Session, Standing},
    tokens::{self, NoTokens, Tokens},
};
use crate::{
    policy::{
        auth::without_cookies,
        identity::{Identity, Shown as How},
        jwt::{Algorithm, Rule as TokenRule},
        seal::{RANDOM_BYTES, Seals},
    },
    wire::{HeadLimits, Parsed, RequestHead},
};

const NOW_S: u64 = 1_800_000_000;

fn rule() -> Rule {
    Rule {
        name: "main".to_owned(),
        client_id: "shop".to_owned(),
        scopes: "openid email".to_owned(),
        parameters: vec![("prompt".to_owned(), "select account".to_owned())],
        callback: "/oidc/callback".to_owned(),
        login: "/oidc/login".to_owned(),
        logout: "/oidc/logout".to_owned(),
        after_logout: "/".to_owned(),
        logs_out_at_provider: true,
        origin: None,
        idle_s: 600,
        lifetime_s: 3600,
        login_s: 60,
        refresh_before_s: 30,
        forwards_access_token: true,
        session_bytes_max: 8 << 10,
        id_token: TokenRule {
            algorithms: vec![Algorithm::Rs256],
            issuer: "https://id.example.com".to_owned(),
            audiences: vec!["shop".to_owned()],
            claims: Vec::new(),
            types: Vec::new(),
            skew_s: 0.0,
            needs_exp: true,
            bytes_max: 8 << 10,
            subject: "sub".to_owned(),
            groups: "groups".to_owned(),
            scopes: "scope".to_owned(),
        },
    }
}

fn seals() -> Seals {
    Seals::new(&[vec![1; 32]], b"test").expect("seals")
}

fn tokens(more: &Value) -> Tokens {
    let mut all = json!({ "access_token": "access", "token_type": "Bearer" });
    for (name, value) in more.as_object().expect("an object") {
        all[name] = value.clone();
    }
    tokens::read(200, all.to_string().as_bytes()).expect("tokens")
}

fn login() -> Login {
    Login {
        state: "state".to_owned(),
        nonce: "nonce".to_owned(),
        verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned(),
        path: "/orders?page=2".to_owned(),
        begun_s: NOW_S,
    }
}

fn full() -> Session {
    let tokens = tokens(&json!({
        "expires_in": 300, "refresh_token": "refresh", "id_token": "a.b.c", "scope": "openid",
    }));
    Session::begun(&rule(), "id".to_owned(), tokens, NOW_S)
}

/// The cookies of a request with these fields.
fn with_cookies<T>(fields: &str, look: impl FnOnce(&Shown<'_>) -> T) -> T {
    let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
    let mut head = RequestHead::default();
    let limits = HeadLimits { head_bytes_max: 64 << 10, target_bytes_max: 1024, fields_max: 32 };
    assert_eq!(head.parse(&bytes, &limits), Ok(Parsed::Complete(())));
    look(&Names::of("main", true).shown(&head, &bytes))
}

/// What a browser sends after it was told to set these.
fn sent_back(lines: &[u8]) -> String {
    let text = str::from_utf8(lines).expect("text");
    let pairs: Vec<&str> = text
        .split("\r\n")
        .filter_map(|line| line.strip_prefix("Set-Cookie: ")?.split(';').next())
        .filter(|pair| !pair.ends_with('='))
        .collect();
    format!("Cookie: {}\r\n", pairs.join("; "))
}

#[test]
fn a_session_comes_back_as_it_was_and_no_other() {
    let (sealer, names) = (Sealer::new(&rule(), seals()), Names::of("main", true));
    for bytes in [10, 3000, 6000] {
        let session = Session { refresh_token: "r".repeat(bytes), ..full() };
        let sealed = sealer.seal(Purpose::Session, &session, &[7; RANDOM_BYTES]).expect("sealed");
        let mut lines = Vec::new();
        let bounds = (60, 32 << 10);
        assert!(names.set_session(&mut lines, &sealed, bounds, &Shown::default()));
        for line in str::from_utf8(&lines).expect("text").split_terminator("\r\n") {
            assert!(line.starts_with("Set-Cookie: __Host-ringway-main+"), "{line}");
            assert!(line.len() < 4096 + "Set-Cookie: ".len());
            assert!(line.ends_with("; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=Lax"));
        }
        with_cookies(&sent_back(&lines), |shown| {
            let text = cookies::decoded(&shown.session().expect("a session")).expect("base64");
            assert_eq!(sealer.open(Purpose::Session, &text), Some(session.clone()));
        });
    }
}

#[test]
fn every_byte_of_a_cookie_counts() {
    let sealer = Sealer::new(&rule(), seals());
    let sealed = sealer.seal(Purpose::Session, &full(), &[7; RANDOM_BYTES]).expect("sealed");
    for at in 0..sealed.len() {
        for bit in [1, 0x80] {
            let mut other = sealed.clone();
            other[at] ^= bit;
            assert_eq!(sealer.open::<Session>(Purpose::Session, &other), None, "{at}");
        }
        assert_eq!(sealer.open::<Session>(Purpose::Session, &sealed[..at]), None);
    }
    // Nor is it good for anything else, or anywhere else.
    assert!(sealer.open::<Session>(Purpose::Login, &sealed).is_none());
    assert!(sealer.open::<Seen>(Purpose::Seen, &sealed).is_none());
    for change in [
        |rule: &mut Rule| rule.name = "other".to_owned(),
        |rule: &mut Rule| rule.client_id = "other".to_owned(),
        |rule: &mut Rule| rule.id_token.issuer = "https://other.example.com".to_owned(),
    ] {
        let mut other = rule();
        change(&mut other);
        let other = Sealer::new(&other, seals());
        assert!(other.open::<Session>(Purpose::Session, &sealed).is_none());
    }
}

#[test]
fn pieces_that_are_missing_doubled_or_odd_are_no_session() {
    for (fields, wanted) in [
        ("", None),
        ("Cookie: __Host-ringway-main+0=1.ab\r\n", Some("ab")),
        ("Cookie: __Host-ringway-main+0=2.ab; __Host-ringway-main+1=cd\r\n", Some("abcd")),
        // HTTP/2 may have each in a field of its own.
        (
            "Cookie: __Host-ringway-main+1=cd\r\nCookie: __Host-ringway-main+0=2.ab\r\n",
            Some("abcd"),
        ),
        ("Cookie: __Host-ringway-main+0=2.ab\r\n", None),
        ("Cookie: __Host-ringway-main+0=1.ab; __Host-ringway-main+0=1.ab\r\n", None),
        ("Cookie: __Host-ringway-main+0=0.ab\r\n", None),
        ("Cookie: __Host-ringway-main+0=ab\r\n", None),
        ("Cookie: __Host-ringway-main+1=1.ab\r\n", None),
        // Without TLS it has another name, and so has another section's.
        ("Cookie: ringway-main+0=1.ab; __Host-ringway-main2+0=1.ab\r\n", None),
    ] {
        with_cookies(fields, |shown| {
            let text = shown.session().map(|text| String::from_utf8_lossy(&text).into_owned());
            assert_eq!(text.as_deref(), wanted, "{fields}");
        });
    }
}

#[test]
fn a_session_has_bounds_and_leaves_nothing_behind() {
    let names = Names::of("main", false);
    let mut lines = Vec::new();
    let old = "Cookie: __Host-ringway-main+0=3.a; __Host-ringway-main+1=b; \
               __Host-ringway-main+2=c; __Host-ringway-main+seen=s; x=y\r\n";
    with_cookies(old, |shown| {
        assert!(!names.set_session(&mut lines, &[1; 3000], (60, 3999), shown));
        assert!(!names.set_session(&mut lines, &[1; 30_000], (60, usize::MAX), shown));
        assert!(lines.is_empty());
        assert!(names.set_session(&mut lines, &[1; 3000], (60, 4000), shown));
        let text = str::from_utf8(&lines).expect("text");
        assert!(text.starts_with("Set-Cookie: ringway-main+0=2."), "{text}");
        assert!(text.contains("Set-Cookie: ringway-main+2=; Path=/; Max-Age=0;"), "{text}");
        assert!(!text.contains("+3=") && !text.contains("Secure"), "{text}");
        lines.clear();
        names.clear_session(&mut lines, shown);
        let text = str::from_utf8(&lines).expect("text");
        assert_eq!(text.matches("Max-Age=0;").count(), 4, "{text}");
    });
    const { assert!(PIECES_MAX <= 9, "their number is one digit") };
}

#[test]
fn logins_of_several_tabs_have_places_of_their_own() {
    for (fields, wanted) in [
        ("", 0),
        ("Cookie: __Host-ringway-main+login0=a\r\n", 1),
        ("Cookie: __Host-ringway-main+login1=a\r\n", 0),
        (
            "Cookie: __Host-ringway-main+login0=a; __Host-ringway-main+login1=a; \
             __Host-ringway-main+login2=a; __Host-ringway-main+login3=a\r\n",
            2,
        ),
    ] {
        with_cookies(fields, |shown| assert_eq!(shown.place_for_login(6), wanted, "{fields}"));
    }
}

#[test]
fn upstreams_get_none_of_them() {
    let prefixes: Vec<_> =
        ["main", "other"].iter().flat_map(|name| cookies::prefixes(name)).collect();
    for (field, wanted) in [
        ("a=b; __Host-ringway-main+0=x; c=d", "a=b; c=d"),
        ("ringway-main+seen=x;__Host-ringway-other+login1=y", ""),
        ("ringway-main=x; ringway-third+0=y", "ringway-main=x; ringway-third+0=y"),
    ] {
        let is_own = |name: &[u8]| prefixes.iter().any(|own| name.starts_with(own));
        assert_eq!(without_cookies(field.as_bytes(), is_own), wanted.as_bytes(), "{field}");
    }
}

#[test]
fn sessions_end_by_a_clock() {
    let (rule, session) = (rule(), full());
    let due = |is_over| Standing::Due { is_over };
    // Seconds since it was begun, since it was used, and what it is good for.
    for (age_s, used_s, wanted) in [
        (0, 0, Standing::Good),
        (269, 10, Standing::Good),
        (270, 10, due(false)),
        (299, 10, due(false)),
        (300, 10, due(true)),
        (300, 599, due(true)),
        (300, 600, Standing::Over),
        (3599, 10, due(true)),
        (3600, 10, Standing::Over),
    ] {
        let now_s = NOW_S + age_s;
        assert_eq!(session.standing(&rule, now_s - used_s, now_s), wanted, "{age_s} {used_s}");
    }
    // A clock that runs behind makes none older.
    assert_eq!(session.standing(&rule, NOW_S, NOW_S - 5), Standing::Good);
    // Without refresh token it ends with its access token, if upstreams get that.
    let bare = Session { refresh_token: String::new(), ..full() };
    assert_eq!(bare.standing(&rule, NOW_S, NOW_S + 299), Standing::Good);
    assert_eq!(bare.standing(&rule, NOW_S, NOW_S + 300), Standing::Over);
    let quiet = Rule { forwards_access_token: false, ..self::rule() };
    assert_eq!(bare.standing(&quiet, NOW_S, NOW_S + 300), Standing::Good);
    // Of a token that lives shortly a quarter is left.
    let short = session.renewed(&rule, tokens(&json!({ "expires_in": "8" })), NOW_S);
    assert_eq!((short.ends_s, short.due_s), (NOW_S + 8, NOW_S + 6));
}

#[test]
fn use_is_told_now_and_then() {
    let rule = rule();
    for (used_s, wanted) in [(0, false), (59, false), (60, true), (600, true)] {
        assert_eq!(session::is_told_anew(&rule, NOW_S, NOW_S + used_s), wanted, "{used_s}");
    }
    let endless = Rule { idle_s: rule.lifetime_s, ..rule };
    assert!(!session::is_told_anew(&endless, NOW_S, NOW_S + 3000));
}

#[test]
fn what_a_provider_does_not_give_anew_stays() {
    let rule = rule();
    let same = full().renewed(&rule, tokens(&json!({ "access_token": "new" })), NOW_S + 9);
    let wanted = Session { access_token: "new".to_owned(), ends_s: 0, due_s: 0, ..full() };
    assert_eq!(same, wanted);
    let given = json!({ "refresh_token": "R", "id_token": "x.y.z", "scope": "openid x" });
    let other = full().renewed(&rule, tokens(&given), NOW_S + 9);
    assert_eq!((&*other.refresh_token, &*other.id_token), ("R", "x.y.z"));
    assert_eq!((&*other.scopes, &*other.id, other.begun_s), ("openid x", "id", NOW_S));
    let quiet = Rule { forwards_access_token: false, ..rule };
    assert_eq!(full().renewed(&quiet, tokens(&json!({})), NOW_S).access_token, "");
}

#[test]
fn only_paths_of_this_origin_are_gone_back_to() {
    for (target, wanted) in [
        ("/orders?page=2&x=%2F%2Fevil", "/orders?page=2&x=%2F%2Fevil"),
        ("/", "/"),
        ("/x//y", "/x//y"),
        ("//evil.example", "/"),
        ("///evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/\n/evil.example", "/"),
        ("/a\\b", "/"),
        ("\\/evil.example", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("evil.example", "/"),
        ("@evil.example", "/"),
        (".evil.example", "/"),
        ("/a b", "/"),
        ("/é", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
        ("", "/"),
    ] {
        assert_eq!(flow::return_path(target.as_bytes()), wanted, "{target:?}");
    }
    // Nor to its own, however they are written.
    for (target, wanted) in [
        ("/oidc/login", "/"),
        ("/oidc/login?to=/x", "/"),
        ("/oidc/login#x", "/"),
        ("/oidc/callback?code=x&state=y", "/"),
        ("/oidc/logout", "/"),
        ("/oidc/./%6Cogin", "/"),
        ("/x/../oidc//login", "/"),
        ("/oidc/login;x=y", "/"),
        ("/../oidc/login", "/"),
        ("//evil.example", "/"),
        ("/oidc/logins", "/oidc/logins"),
        ("/?to=/oidc/login", "/?to=/oidc/login"),
        ("/a%2Fb", "/a%2Fb"),
    ] {
        assert_eq!(rule().return_path(target.as_bytes()), wanted, "{target:?}");
    }
    let long = format!("/{}", "a".repeat(1500));
    assert_eq!(flow::return_path(long.as_bytes()), "/");
}

#[test]
fn where_a_browser_is_sent() {
    // The verifier and challenge of RFC 7636, appendix B.
    assert_eq!(flow::challenge(&login().verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    let url =
        |endpoint| flow::authorization_url(&rule(), endpoint, &login(), "https://gw/oidc/callback");
    assert_eq!(
        url("https://id.example.com/authorize"),
        "https://id.example.com/authorize?response_type=code&client_id=shop\
         &redirect_uri=https%3A%2F%2Fgw%2Foidc%2Fcallback&scope=openid+email&state=state\
         &nonce=nonce&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
         &code_challenge_method=S256&prompt=select+account"
    );
    assert!(url("https://id/a?tenant=x").starts_with("https://id/a?tenant=x&response_type=code"));
    assert_eq!(
        flow::logout_url(&rule(), "https://id/end", Some("a.b.c"), "https://gw/"),
        "https://id/end?id_token_hint=a.b.c&client_id=shop&post_logout_redirect_uri=https%3A%2F%2Fgw%2F"
    );
}

#[test]
fn what_comes_back_belongs_to_the_login_or_is_refused() {
    let (rule, login) = (rule(), login());
    let good = "code=c%2Bd&state=state";
    let issuer = "&iss=https%3A%2F%2Fid.example.com";
    for (query, names_issuer, age_s, wanted) in [
        (good.to_owned(), false, 0, Ok("c+d")),
        (format!("{good}{issuer}"), true, 59, Ok("c+d")),
        (good.to_owned(), true, 0, Err("login.issuer")),
        (format!("{good}&iss=https%3A%2F%2Fevil"), false, 0, Err("login.issuer")),
        (good.to_owned(), false, 60, Err("login.expired")),
        ("error=access_denied&state=state".to_owned(), false, 0, Err("login.denied")),
        ("error=server_error&state=state".to_owned(), false, 0, Err("login.provider")),
        ("code=a&code=b&state=state".to_owned(), false, 0, Err("login.callback")),
        ("code=a&state=state&state=state".to_owned(), false, 0, Err("login.callback")),
        ("code=a&error=x&state=state".to_owned(), false, 0, Err("login.callback")),
        ("code=&state=state".to_owned(), false, 0, Err("login.callback")),
        ("code=a".to_owned(), false, 0, Err("login.callback")),
        ("code=%ff&state=state".to_owned(), false, 0, Err("login.callback")),
        (String::new(), false, 0, Err("login.callback")),
        (format!("code={}&state=state", "a".repeat(5000)), false, 0, Err("login.callback")),
    ] {
        let code = Callback::read(query.as_bytes()).and_then(|callback| {
            assert_eq!(callback.state, "state");
            callback.code(&rule, &login, names_issuer, NOW_S + age_s)
        });
        let code = code.map_err(|refusal| refusal.reason.token);
        assert_eq!(code.as_deref(), wanted.as_ref().map(|code| *code), "{query:.60}");
    }
}

#[test]
fn what_a_token_endpoint_says() {
    let read = |status, body: Value| tokens::read(status, body.to_string().as_bytes());
    let good = json!({ "access_token": "a", "token_type": "bearer", "expires_in": 3599.0 });
    assert_eq!(read(200, good).expect("tokens").expires_in_s, Some(3599));
    for body in [
        json!({ "token_type": "Bearer" }),
        json!({ "access_token": "a" }),
        json!({ "access_token": "a", "token_type": "DPoP" }),
        json!({ "access_token": "a\r\nX: y", "token_type": "Bearer" }),
        json!({ "access_token": "a".repeat(65_537), "token_type": "Bearer" }),
        json!({ "access_token": "a", "token_type": "Bearer", "id_token": "a".repeat(40_000),
                "refresh_token": "a".repeat(30_000) }),
        json!([]),
    ] {
        let text = body.to_string();
        assert!(matches!(read(200, body), Err(NoTokens::Wrong(_))), "{text:.80}");
    }
    assert_eq!(read(400, json!({ "error": "invalid_grant" })), Err(NoTokens::Refused));
    let wrong = json!({ "error": "invalid_client", "error_description": "no such client" });
    let told = "invalid_client no such client".to_owned();
    assert_eq!(read(401, wrong), Err(NoTokens::Wrong(told)));
    assert!(matches!(read(404, json!("x")), Err(NoTokens::Wrong(_))));
    for status in [302, 429, 500, 503] {
        assert!(matches!(read(status, json!({})), Err(NoTokens::Unavailable(_))), "{status}");
    }
}

#[test]
fn an_id_token_is_of_this_login_and_of_this_user() {
    let with = |claims: Value| Identity {
        claims: Rc::new(claims.as_object().cloned().unwrap_or_default()),
        ..Identity::plain(How::Token, "main".into(), "alice".into())
    };
    let rule = rule();
    for (claims, wanted) in [
        (json!({ "sub": "a", "iat": 1, "nonce": "nonce" }), Ok(())),
        (json!({ "sub": "a", "iat": 1, "nonce": "nonce", "azp": "shop" }), Ok(())),
        (json!({ "sub": "a", "iat": 1, "nonce": "other" }), Err("login.nonce")),
        (json!({ "sub": "a", "iat": 1 }), Err("login.nonce")),
        (json!({ "sub": "a", "iat": 1, "nonce": ["nonce"] }), Err("login.nonce")),
        (json!({ "sub": "a", "iat": 1, "nonce": "nonce", "azp": "x" }), Err("login.id_token")),
        (json!({ "sub": "", "iat": 1, "nonce": "nonce" }), Err("login.id_token")),
        (json!({ "iat": 1, "nonce": "nonce" }), Err("login.id_token")),
        (json!({ "sub": "a", "nonce": "nonce" }), Err("login.id_token")),
    ] {
        let told = tokens::check_login(&rule, &with(claims.clone()), "nonce");
        assert_eq!(told.map_err(|refusal| refusal.reason.token), wanted, "{claims}");
    }
    let before = with(json!({ "sub": "a" }));
    for (sub, is_good) in [("a", true), ("b", false)] {
        let other = with(json!({ "sub": sub, "iat": 1 }));
        assert_eq!(tokens::check_refreshed(&rule, &other, &before).is_ok(), is_good);
    }
}

#[test]
fn paths_of_its_own() {
    for (path, wanted) in [
        ("/oidc/callback", Some(Place::Callback)),
        ("/oidc/login", Some(Place::Login)),
        ("/oidc/logout", Some(Place::Logout)),
        ("/oidc/callback/", None),
        ("/oidc", None),
    ] {
        assert_eq!(rule().place(path.as_bytes()), wanted, "{path}");
    }
}

#[test]
fn who_is_sent_to_log_in() {
    let html = "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n";
    for (method, fields, wanted) in [
        ("GET", html.to_owned(), true),
        ("HEAD", html.to_owned(), true),
        ("GET", format!("{html}Sec-Fetch-Mode: navigate\r\n"), true),
        ("GET", "Accept: Text/HTML;level=1\r\n".to_owned(), true),
        ("POST", html.to_owned(), false),
        ("GET", format!("{html}Sec-Fetch-Mode: cors\r\n"), false),
        ("GET", format!("{html}Sec-Fetch-Mode: no-cors\r\n"), false),
        ("GET", format!("{html}X-Requested-With: XMLHttpRequest\r\n"), false),
        ("GET", format!("{html}Sec-Purpose: prefetch\r\n"), false),
        ("GET", "Accept: */*\r\n".to_owned(), false),
        ("GET", "Accept: application/json, text/htmlx\r\n".to_owned(), false),
        ("GET", String::new(), false),
    ] {
        let told = viewed(method, &fields, flow::is_navigation);
        assert_eq!(told, wanted, "{method} {fields}");
    }
}

fn viewed<T>(
    method: &str,
    fields: &str,
    look: impl FnOnce(&crate::policy::route::RequestView<'_>) -> T,
) -> T {
    let bytes = format!("{method} / HTTP/1.1\r\nHost: gw.test\r\n{fields}\r\n").into_bytes();
    let mut head = RequestHead::default();
    let limits = HeadLimits { head_bytes_max: 4096, target_bytes_max: 1024, fields_max: 32 };
    assert_eq!(head.parse(&bytes, &limits), Ok(Parsed::Complete(())));
    look(&crate::policy::route::RequestView {
        method: head.method,
        method_text: method.as_bytes(),
        host: b"gw.test",
        path: b"/",
        query: None,
        head: &head,
        buf: &bytes,
    })
}
