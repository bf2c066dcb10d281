//! Logins of browsers at an OpenID provider: the way there and back, what a session is good for and
//! when it ends, what others make of it, and what upstreams get.

use std::{
    collections::BTreeMap,
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ringway::policy::seal::{RANDOM_BYTES, Seals};
use serde_json::json;

use crate::harness::{
    Client, Gateway, Http2, Response, Upstream, eventually, is,
    openid::{Answer, OpenId, parameters},
    told,
};

const PAGE: &str = "Accept: text/html\r\n";
const SECRETS: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A route for an upstream, and one that anybody may use.
fn configuration(
    provider: &OpenId,
    upstream: &Upstream,
    more: &str,
) -> (String, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("sessions");
    std::fs::write(&secrets, SECRETS).unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s3cr:et").unwrap();
    for file in [&secrets, &secret] {
        std::fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    }
    let toml = format!(
        r#"
        [[routes]]
        path = "/"
        upstream = "app"
        authenticate = ["main"]
        [[routes]]
        path = "/open"
        upstream = "app"
        authenticate = ["main"]
        anonymous = true
        [[routes]]
        path = "/staff"
        upstream = "app"
        authenticate = ["main"]
        anonymous = true
        authorize = [{{ groups = ["staff"] }}]
        [[routes]]
        path = "/static"
        upstream = "app"
        [upstreams.app]
        endpoints = ["{}"]
        [oidc.main]
        issuer = "{}"
        client_id = "shop"
        client_secret = "file:{}"
        session_secrets = "file:{}"
        algorithms = ["EdDSA"]
        forward = {{ X-User = "sub", X-Groups = "groups", X-Email = "email" }}
        {more}
        "#,
        upstream.address(),
        provider.issuer(),
        secret.display(),
        secrets.display(),
    );
    (toml, folder)
}

/// What keeps cookies, and follows redirects when it is told to.
struct Browser {
    client: Client,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    fn of(gateway: &Gateway) -> Browser {
        Browser { client: gateway.client(), cookies: BTreeMap::new() }
    }

    fn cookie_field(&self) -> String {
        let pairs: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if pairs.is_empty() { String::new() } else { format!("Cookie: {}\r\n", pairs.join("; ")) }
    }

    fn keep(&mut self, response: &Response) {
        for line in response.head.all("set-cookie") {
            let (pair, attributes) = line.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            match attributes.contains("Max-Age=0;") {
                true => drop(self.cookies.remove(name)),
                false => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
    }

    #[track_caller]
    fn ask(&mut self, method: &str, target: &str, fields: &str) -> Response {
        let cookies = self.cookie_field();
        self.client
            .send(format!("{method} {target} HTTP/1.1\r\nHost: gw.test\r\n{cookies}{fields}\r\n"));
        let response = self.client.response_to(method);
        self.keep(&response);
        response
    }

    #[track_caller]
    fn page(&mut self, target: &str) -> Response {
        self.ask("GET", target, PAGE)
    }

    /// Goes to a page and logs in where that is asked for.
    #[track_caller]
    fn log_in(&mut self, provider: &OpenId, target: &str) -> Response {
        let to = location(&self.page(target));
        let back = provider.log_in(&to, "alice");
        self.page(&back)
    }

    /// The cookies of the session.
    fn session(&self) -> BTreeMap<String, String> {
        self.cookies.clone()
    }
}

#[track_caller]
fn location(response: &Response) -> String {
    assert_eq!(response.status, 303, "{:?} {}", response.head, response.text());
    assert_eq!(response.field("cache-control"), Some("no-store"));
    response.field("location").unwrap().to_owned()
}

#[test]
fn a_browser_logs_in_and_upstreams_learn_who_it_is() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(&provider, &upstream, "scopes = [\"email\"]");
    let gateway = Gateway::start(&toml);
    let mut browser = Browser::of(&gateway);
    let to = location(&browser.page("/orders?page=2&x=%2F"));
    let asked = parameters(to.split_once('?').unwrap().1);
    assert_eq!(asked["redirect_uri"], "http://gw.test/oidc/callback");
    assert_eq!(asked["scope"], "openid email");
    assert_eq!(browser.cookies.len(), 1);
    let back = provider.log_in(&to, "alice");
    let response = browser.page(&back);
    assert_eq!(location(&response), "/orders?page=2&x=%2F");
    for line in response.head.all("set-cookie") {
        assert!(line.ends_with("; HttpOnly; SameSite=Lax") && line.contains("; Path=/;"), "{line}");
    }
    assert_eq!(
        browser.cookies.keys().collect::<Vec<_>>(),
        ["ringway-main+0", "ringway-main+seen"],
        "the login is over"
    );
    let request = &provider.asked()[0];
    // RFC 6749 §2.3.1: the colon of the secret is coded.
    assert_eq!(request.authorization.as_deref(), Some("Basic c2hvcDpzM2NyJTNBZXQ="));
    assert!(!request.form.contains_key("client_secret"));
    browser.cookies.insert("theirs".to_owned(), "1".to_owned());
    let spoofed = format!("{PAGE}X-User: eve\r\nx_groups: admin\r\n");
    let response = browser.ask("GET", "/orders?page=2", &spoofed);
    assert_eq!((response.status, response.field("set-cookie")), (200, None));
    let asked = upstream.request_for("/orders?page=2");
    assert_eq!(asked.head.all("x-user"), ["alice"]);
    assert_eq!(asked.head.all("x-groups"), ["staff"]);
    assert_eq!(asked.head.all("x-email"), ["alice@example.com"]);
    assert_eq!(asked.head.all("cookie"), ["theirs=1"]);
    assert!(!asked.head.has("authorization") && !asked.head.has("x_groups"));
    // The rules of another route read it too, and no route forwards the cookies.
    for path in ["/staff", "/open", "/static"] {
        assert_eq!(browser.page(path).status, 200, "{path}");
        assert_eq!(upstream.request_for(path).head.all("cookie"), ["theirs=1"], "{path}");
    }
    let mut http2 = Http2::connect(gateway.address());
    let cookies = browser.cookie_field();
    let cookies = cookies.strip_prefix("Cookie: ").unwrap().trim_end();
    let stream = http2.ask("POST", "/h2", &[("cookie", cookies)]);
    assert_eq!(http2.response(stream).status, 200);
    let stream = http2.ask("GET", "/h2", &[("accept", "text/html")]);
    let response = http2.response(stream);
    assert_eq!(response.status, 303);
    assert!(response.field("set-cookie").unwrap().starts_with("ringway-main+login0="));
    assert!(provider.log_in(response.field("location").unwrap(), "bob").contains("code="));
}

#[test]
fn only_pages_are_sent_to_log_in() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(&provider, &upstream, "");
    let gateway = Gateway::start(&toml);
    let mut browser = Browser::of(&gateway);
    for (method, path, fields, wanted) in [
        ("GET", "/x", PAGE.to_owned(), is(303, "")),
        ("GET", "/x", format!("{PAGE}Sec-Fetch-Mode: navigate\r\n"), is(303, "")),
        ("GET", "/x", "Accept: application/json\r\n".to_owned(), is(401, "auth.missing")),
        ("GET", "/x", format!("{PAGE}Sec-Fetch-Mode: cors\r\n"), is(401, "auth.missing")),
        ("GET", "/x", String::new(), is(401, "auth.missing")),
        ("POST", "/x", format!("{PAGE}Content-Length: 0\r\n"), is(401, "auth.missing")),
        ("GET", "/open", PAGE.to_owned(), is(200, "")),
        ("GET", "/staff", PAGE.to_owned(), is(303, "")),
        ("GET", "/staff", String::new(), is(401, "authz.unauthenticated")),
        ("GET", "/oidc/login?to=/y", String::new(), is(303, "")),
    ] {
        let response = browser.ask(method, path, &fields);
        assert_eq!(told(&response), wanted, "{method} {path} {fields}");
        if wanted == is(401, "auth.missing") {
            assert_eq!(response.field("www-authenticate"), Some("Session realm=\"main\""));
            assert_eq!((response.field("location"), response.field("set-cookie")), (None, None));
        }
    }
    // Where it goes afterwards is of this origin, whatever is asked for.
    for (path, wanted) in [
        ("/oidc/login?to=/y%3Fz", "/y?z"),
        ("/oidc/login?to=%2F%2Fevil.example", "/"),
        ("/oidc/login?to=https://evil.example", "/"),
        ("/oidc/login?to=/oidc/login", "/"),
        ("/oidc/login?to=/x/..//oidc/%256Cogout%3Fx", "/"),
        ("//evil.example/x", "/"),
        ("/oidc/login", "/"),
    ] {
        let mut browser = Browser::of(&gateway);
        assert_eq!(location(&browser.log_in(&provider, path)), wanted, "{path}");
    }
}

#[test]
fn what_comes_back_is_of_this_browser_and_of_this_login() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(&provider, &upstream, "");
    let gateway = Gateway::start(&toml);
    let mut browser = Browser::of(&gateway);
    let mut victim = Browser::of(&gateway);
    let to = location(&browser.page("/a"));
    let back = provider.log_in(&to, "mallory");
    // A login that another browser began (login CSRF): with no login of its own, and with one.
    assert_eq!(told(&victim.page(&back)), is(400, "login.state"));
    let own = location(&victim.reconnected(&gateway).page("/b"));
    assert_eq!(told(&victim.page(&back)), is(400, "login.state"));
    assert!(!victim.cookies.keys().any(|name| name.ends_with("+0")));
    // Its own state with the other's code: the verifier is another one.
    let code = parameters(back.split_once('?').unwrap().1)["code"].clone();
    let state = parameters(own.split_once('?').unwrap().1)["state"].clone();
    victim.reconnected(&gateway);
    let mixed = format!("/oidc/callback?code={code}&state={state}");
    assert_eq!(told(&victim.page(&mixed)), is(400, "login.code"));
    // That login is over, too.
    assert!(victim.cookies.is_empty(), "{:?}", victim.cookies);
    // Two tabs at once, and each answer is good once.
    let first = location(&browser.page("/1"));
    let second = location(&browser.page("/2"));
    let (first, second) = (provider.log_in(&first, "alice"), provider.log_in(&second, "alice"));
    let kept = browser.cookies.clone();
    assert_eq!(location(&browser.page(&first)), "/1");
    assert_eq!(location(&browser.page(&second)), "/2");
    assert_eq!(told(&browser.page(&second)), is(400, "login.state"));
    // Also with the cookies of before.
    browser.reconnected(&gateway).cookies = kept;
    assert_eq!(told(&browser.page(&second)), is(400, "login.code"));
}

impl Browser {
    /// A malformed request ends its connection.
    fn reconnected(&mut self, gateway: &Gateway) -> &mut Browser {
        self.client = gateway.client();
        self
    }
}

#[test]
fn what_is_wrong_with_an_answer_is_told() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(
        &provider,
        &upstream,
        "claims = { email_verified = true }\ntimeout = \"300ms\"\nmax_session = \"4KiB\"",
    );
    let gateway = Gateway::start(&toml);
    provider.set(|manner| manner.claims = json!({ "email_verified": true }));
    type Change = fn(&mut crate::harness::openid::Manner);
    let changes: [(Change, (u16, &str)); 14] = [
        (|m| m.answer = Answer::Tokens, (303, "")),
        (|m| m.answer = Answer::Refused, (400, "login.code")),
        (|m| m.answer = Answer::Wrong, (502, "login.tokens")),
        (|m| m.answer = Answer::Broken, (503, "auth.unavailable")),
        (|m| m.answer = Answer::Held, (503, "auth.unavailable")),
        (|m| m.answer = Answer::Endless, (503, "auth.unavailable")),
        (|m| m.is_bare = true, (502, "login.id_token")),
        (|m| m.forges = true, (502, "login.id_token")),
        (|m| m.claims["nonce"] = json!("other"), (400, "login.nonce")),
        (|m| m.claims["aud"] = json!("other"), (502, "login.id_token")),
        (|m| m.claims["iss"] = json!("https://evil.example"), (502, "login.id_token")),
        (|m| m.claims["exp"] = json!(1), (502, "login.id_token")),
        (|m| m.claims["email_verified"] = json!(false), (403, "login.claim")),
        (|m| m.claims["more"] = json!("x".repeat(4000)), (502, "login.session_bytes")),
    ];
    for (at, (change, (status, reason))) in changes.into_iter().enumerate() {
        let mut before = None;
        provider.set(|manner| {
            before = Some(manner.clone());
            change(manner);
        });
        let mut browser = Browser::of(&gateway);
        let response = browser.log_in(&provider, "/x");
        assert_eq!(told(&response), is(status, reason), "{at}");
        let has_session = browser.cookies.contains_key("ringway-main+0");
        assert_eq!(has_session, status == 303, "{at}");
        assert!(!browser.cookies.keys().any(|name| name.contains("login")), "{at}");
        provider.set(|manner| *manner = before.unwrap());
    }
    // What the browser brings is looked at before the provider is asked.
    let asked = provider.asked().len();
    for (query, wanted) in [
        ("error=access_denied", is(403, "login.denied")),
        ("error=server_error&error_description=x", is(502, "login.provider")),
        ("code=x&iss=https%3A%2F%2Fevil.example", is(400, "login.issuer")),
        ("code=x&code=y", is(400, "login.callback")),
        ("", is(400, "login.callback")),
    ] {
        let mut browser = Browser::of(&gateway);
        let to = location(&browser.page("/x"));
        let state = &parameters(to.split_once('?').unwrap().1)["state"];
        let response = browser.page(&format!("/oidc/callback?state={state}&{query}"));
        assert_eq!(told(&response), wanted, "{query}");
    }
    assert_eq!(provider.asked().len(), asked);
    gateway.wait_for_log("the provider gives no tokens");
}

#[test]
fn a_cookie_that_was_changed_is_refused() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(&provider, &upstream, "");
    let gateway = Gateway::start(&toml);
    let mut browser = Browser::of(&gateway);
    assert_eq!(location(&browser.log_in(&provider, "/")), "/");
    assert_eq!(browser.ask("GET", "/", "").status, 200);
    let good = browser.session();
    for name in ["ringway-main+0", "ringway-main+seen"] {
        let value = good[name].clone().into_bytes();
        for at in 0..value.len() {
            let mut other = value.clone();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            browser.cookies.insert(name.to_owned(), other);
            let response = browser.ask("GET", "/", "");
            assert_eq!(told(&response), is(401, "auth.invalid"), "{name} {at}");
            assert!(browser.cookies.is_empty(), "they are cleared");
            browser.cookies.clone_from(&good);
        }
        browser.cookies.insert(name.to_owned(), String::new());
        assert_eq!(browser.ask("GET", "/", "").status, 401, "{name}");
        browser.cookies.clone_from(&good);
    }
    // The seen cookie of another session.
    let mut other = Browser::of(&gateway);
    location(&other.log_in(&provider, "/"));
    browser
        .cookies
        .insert("ringway-main+seen".to_owned(), other.cookies["ringway-main+seen"].clone());
    assert_eq!(told(&browser.ask("GET", "/open", "")), is(401, "auth.invalid"));
    browser.cookies.clone_from(&good);
    assert_eq!(browser.ask("GET", "/", "").status, 200);
    // A page is sent to log in anew.
    browser.cookies.insert("ringway-main+0".to_owned(), "1.AAAA".to_owned());
    assert_eq!(location(&browser.log_in(&provider, "/again")), "/again");
    assert_eq!(browser.page("/again").status, 200);
}

#[test]
fn any_process_with_the_secret_takes_a_session() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, folder) = configuration(&provider, &upstream, "");
    let gateway = Gateway::start(&toml);
    let mut browser = Browser::of(&gateway);
    location(&browser.log_in(&provider, "/"));
    let other = Gateway::start(&toml);
    let mut there = Browser::of(&other);
    there.cookies = browser.session();
    assert_eq!(there.page("/").status, 200);
    // Rotation: another secret encrypts, the old one still decrypts; then it is gone.
    let new = "f".repeat(64);
    std::fs::write(folder.path().join("sessions"), format!("{new}\n{SECRETS}\n")).unwrap();
    assert!(gateway.reload(&toml));
    let mut browser_after = Browser::of(&gateway);
    browser_after.cookies = browser.session();
    assert_eq!(browser_after.page("/").status, 200);
    let mut newer = Browser::of(&gateway);
    location(&newer.log_in(&provider, "/"));
    std::fs::write(folder.path().join("sessions"), &new).unwrap();
    assert!(gateway.reload(&toml));
    browser_after.reconnected(&gateway);
    assert_eq!(told(&browser_after.ask("GET", "/", "")), is(401, "auth.invalid"));
    assert_eq!(newer.reconnected(&gateway).page("/").status, 200);
}

#[test]
fn a_session_ends_when_it_is_not_used_and_after_its_lifetime() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(&provider, &upstream, "idle = \"2s\"\nlifetime = \"5s\"");
    let gateway = Gateway::start(&toml);
    let (mut idle, mut used) = (Browser::of(&gateway), Browser::of(&gateway));
    location(&idle.log_in(&provider, "/"));
    let begun = Instant::now();
    location(&used.log_in(&provider, "/"));
    let first = used.cookies["ringway-main+seen"].clone();
    let (mut ended, mut told_anew) = (None, false);
    eventually("the lifetime ends", || {
        let response = used.ask("GET", "/", "");
        assert!(response.status == 200 || begun.elapsed() > Duration::from_secs(4));
        if response.status == 200 && response.head.has("set-cookie") {
            told_anew |= used.cookies["ringway-main+seen"] != first;
            assert_eq!(response.field("cache-control"), Some("no-store"));
        }
        ended = Some(told(&response));
        response.status != 200
    });
    assert!(told_anew && ended == Some(is(401, "auth.expired")), "{ended:?}");
    let mut idle = Browser { client: gateway.client(), cookies: idle.session() };
    assert_eq!(told(&idle.ask("GET", "/", "")), is(401, "auth.expired"));
    assert!(idle.cookies.is_empty());
}

#[test]
fn tokens_are_refreshed_before_they_end_and_once() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let more = "forward_access_token = true\nrefresh_before = \"1h\"";
    let (toml, _folder) = configuration(&provider, &upstream, more);
    let gateway = Gateway::start(&format!("{toml}\n[runtime]\nworkers = 2"));
    provider.set(|manner| manner.expires_in = Some(8));
    let mut browser = Browser::of(&gateway);
    location(&browser.log_in(&provider, "/"));
    let old = browser.session();
    let response = browser.ask("GET", "/first", "Authorization: Bearer mine\r\n");
    assert_eq!(response.status, 200);
    let first = upstream.request_for("/first").field("authorization").unwrap().to_owned();
    assert!(first.starts_with("Bearer access"), "{first}");
    // It is due after three quarters of its time; until then nobody asks.
    assert_eq!(provider.refreshes(), 0);
    provider.set(|manner| {
        manner.answer = Answer::Held;
        manner.expires_in = Some(3600);
    });
    let mut waiting = Browser { client: gateway.client(), cookies: old.clone() };
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let mut response = waiting.ask("GET", "/x", "");
            while !response.head.has("set-cookie") {
                assert_eq!(response.status, 200);
                response = waiting.ask("GET", "/x", "");
            }
            response
        });
        eventually("a refresh", || provider.held() == 1);
        // Others of the session on that worker go on with the token that is still good, and on
        // another worker wait for the same answer: nobody asks the provider again.
        let others: Vec<_> = (0..8)
            .map(|_| {
                let mut other = Browser { client: gateway.client(), cookies: old.clone() };
                scope.spawn(move || {
                    assert_eq!(other.ask("GET", "/others", "").status, 200);
                    other.cookies
                })
            })
            .collect();
        provider.release();
        assert_eq!(waits.join().unwrap().status, 200);
        for other in others {
            other.join().unwrap();
        }
    });
    assert_eq!(provider.refreshes(), 1, "the old token was used once");
    // Whoever comes later with the old cookies has the same new tokens.
    let mut late = Browser { client: gateway.client(), cookies: old };
    provider.set(|manner| manner.answer = Answer::Tokens);
    for (browser, path) in [(&mut waiting, "/new"), (&mut late, "/late")] {
        assert_eq!(browser.ask("GET", path, "").status, 200);
    }
    let token = |path: &str| upstream.request_for(path).field("authorization").unwrap().to_owned();
    assert_eq!(token("/new"), token("/late"));
    assert_ne!(token("/new"), first);
    assert_eq!(provider.refreshes(), 1);
    let metrics = gateway.admin().get("/metrics").text();
    let line = "ringway_oidc_token_requests_total{way=\"main\",grant=\"refresh_token\",\
                outcome=\"granted\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn a_session_whose_tokens_are_refused_is_over() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(&provider, &upstream, "timeout = \"300ms\"");
    let gateway = Gateway::start(&toml);
    provider.set(|manner| manner.expires_in = Some(1));
    let mut browser = Browser::of(&gateway);
    location(&browser.log_in(&provider, "/"));
    // A provider that cannot be asked ends nothing, though nothing can be said once it is over.
    provider.set(|manner| manner.answer = Answer::Broken);
    let mut last = is(200, "");
    eventually("the access token ends", || {
        last = told(&browser.ask("GET", "/", ""));
        last.0 != 200
    });
    assert_eq!(last, is(503, "auth.unavailable"));
    assert!(browser.cookies.contains_key("ringway-main+0"));
    // It is asked again after a while, not each time.
    let asked = provider.asked().len();
    for _ in 0..20 {
        assert_eq!(told(&browser.ask("GET", "/", "")), is(503, "auth.unavailable"));
    }
    assert!(provider.asked().len() <= asked + 1);
    provider.set(|manner| manner.answer = Answer::Tokens);
    eventually("it is back", || browser.ask("GET", "/", "").status == 200);
    // One of another user ends the session.
    provider.set(|manner| manner.claims = json!({ "sub": "eve" }));
    eventually("another user", || {
        let response = browser.ask("GET", "/", "");
        last = told(&response);
        last.0 != 200
    });
    assert_eq!(last, is(401, "auth.expired"));
    assert!(browser.cookies.is_empty());
    provider.set(|manner| manner.claims = json!({}));
    location(&browser.log_in(&provider, "/"));
    provider.revoke();
    eventually("it is revoked", || {
        last = told(&browser.ask("GET", "/", ""));
        last.0 != 200
    });
    assert_eq!(last, is(401, "auth.expired"));
    assert!(browser.cookies.is_empty());
}

#[test]
fn a_session_without_refresh_token_ends_with_the_token_that_upstreams_get() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(&provider, &upstream, "forward_access_token = true");
    let gateway = Gateway::start(&toml);
    provider.set(|manner| {
        manner.expires_in = Some(2);
        manner.gives_refresh_token = false;
    });
    let mut browser = Browser::of(&gateway);
    location(&browser.log_in(&provider, "/"));
    assert_eq!(browser.ask("GET", "/", "").status, 200);
    let mut last = is(200, "");
    eventually("it ends", || {
        last = told(&browser.ask("GET", "/", ""));
        last.0 != 200
    });
    assert_eq!(last, is(401, "auth.expired"));
    // No client's own token passes where the gateway writes it.
    let mut other = Browser::of(&gateway);
    assert_eq!(other.ask("GET", "/open/x", "Authorization: Bearer mine\r\n").status, 200);
    assert_eq!(upstream.request_for("/open/x").field("authorization"), None);
}

#[test]
fn a_logout_ends_the_session_here_and_there() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(&provider, &upstream, "after_logout = \"/open/bye\"");
    let gateway = Gateway::start(&toml);
    let mut browser = Browser::of(&gateway);
    location(&browser.log_in(&provider, "/"));
    // Other sites' pages log nobody out.
    for cross in [
        "Sec-Fetch-Site: cross-site\r\n",
        "Origin: https://evil.example\r\n",
        "Origin: http://gw.test\r\nOrigin: https://evil.example\r\n",
        "Referer: https://evil.example/http://gw.test/\r\n",
    ] {
        let response = browser.ask("GET", "/oidc/logout", cross);
        assert_eq!(told(&response), is(403, "login.cross_site"), "{cross}");
    }
    assert_eq!(browser.page("/").status, 200);
    let own = "Content-Length: 0\r\nOrigin: http://gw.test:80\r\n";
    let to = location(&browser.ask("POST", "/oidc/logout", own));
    let (end, query) = to.split_once('?').unwrap();
    assert_eq!(end, format!("{}/end", provider.issuer()));
    let told_there = parameters(query);
    assert_eq!(told_there["client_id"], "shop");
    assert_eq!(told_there["post_logout_redirect_uri"], "http://gw.test/open/bye");
    assert_eq!(told_there["id_token_hint"].split('.').count(), 3);
    assert!(browser.cookies.is_empty());
    assert_eq!(browser.ask("GET", "/", "").status, 401);
    // Without a session it is the same, without a hint.
    let to = location(&browser.page("/oidc/logout"));
    assert!(to.starts_with(&end.to_owned()) && !to.contains("id_token_hint"), "{to}");
    // Only here.
    let here = toml.replace("after_logout", "logout_at_provider = false\nafter_logout");
    assert!(gateway.reload(&here));
    browser.reconnected(&gateway);
    location(&browser.log_in(&provider, "/"));
    assert_eq!(location(&browser.page("/oidc/logout")), "/open/bye");
    assert!(browser.cookies.is_empty());
}

#[test]
fn large_sessions_are_split() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let more = "forward_access_token = true\nmax_session = \"16KiB\"";
    let (toml, _folder) = configuration(&provider, &upstream, more);
    let toml = format!("{toml}\n[limits]\nhead = \"32KiB\"");
    let gateway = Gateway::start(&toml);
    provider.set(|manner| manner.padding = 6000);
    let mut browser = Browser::of(&gateway);
    location(&browser.log_in(&provider, "/"));
    assert!(browser.cookies.contains_key("ringway-main+2"), "{:?}", browser.cookies.keys());
    assert_eq!(browser.page("/large").status, 200);
    let token = upstream.request_for("/large").field("authorization").unwrap().len();
    assert!(token > 6000);
    // One piece is missing.
    let piece = browser.cookies.remove("ringway-main+1").unwrap();
    assert_eq!(told(&browser.ask("GET", "/", "")), is(401, "auth.invalid"));
    // A smaller one leaves nothing behind.
    browser.cookies.insert("ringway-main+1".to_owned(), piece);
    provider.set(|manner| manner.padding = 0);
    let to = location(&browser.page("/oidc/login"));
    let back = provider.log_in(&to, "alice");
    location(&browser.page(&back));
    assert!(!browser.cookies.contains_key("ringway-main+2"), "{:?}", browser.cookies.keys());
    assert_eq!(browser.page("/").status, 200);
}

#[test]
fn over_tls_cookies_are_secure_and_of_this_host() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    // Behind a proxy that ends TLS.
    let more = "origin = \"https://shop.example.com\"";
    let (behind, _folder) = configuration(&provider, &upstream, more);
    let gateway = Gateway::start(&behind);
    let mut browser = Browser::of(&gateway);
    let response = browser.page("/");
    let to = location(&response);
    let asked = parameters(to.split_once('?').unwrap().1);
    assert_eq!(asked["redirect_uri"], "https://shop.example.com/oidc/callback");
    let line = response.field("set-cookie").unwrap();
    assert!(line.starts_with("__Host-ringway-main+login0="), "{line}");
    assert!(line.ends_with("; Path=/; Max-Age=600; HttpOnly; Secure; SameSite=Lax"), "{line}");
    let back = provider.log_in(&to, "alice");
    assert_eq!(location(&browser.page(&back)), "/");
    assert_eq!(browser.page("/").status, 200);
    // A cookie that came without TLS is none.
    let session = browser.cookies.iter();
    let plain = session.map(|(name, value)| (name["__Host-".len()..].to_owned(), value.clone()));
    browser.cookies = plain.collect();
    assert_eq!(told(&browser.ask("GET", "/", "")), is(401, "auth.missing"));
}

#[test]
fn the_provider_may_be_down_at_first_and_secrets_may_be_in_the_body() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let more = "client_auth = \"post\"\nrefetch_after = \"100ms\"";
    let (toml, _folder) = configuration(&provider, &upstream, more);
    let gone = toml.replace(&provider.issuer(), "http://localhost:1");
    let gateway = Gateway::start(&gone);
    let mut browser = Browser::of(&gateway);
    assert_eq!(told(&browser.page("/")), is(503, "auth.unavailable"));
    assert!(gateway.reload(&toml));
    browser.reconnected(&gateway);
    eventually("the provider is known", || browser.page("/").status == 303);
    location(&browser.log_in(&provider, "/"));
    let asked = provider.asked();
    assert_eq!(asked[0].authorization, None);
    assert_eq!(asked[0].form["client_secret"], "s3cr:et");
    assert_eq!(asked[0].form["client_id"], "shop");
}

#[test]
fn a_login_that_would_not_help_is_not_begun() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let more = format!(
        r#"
        [oidc.other]
        issuer = "{}"
        client_id = "shop"
        algorithms = ["EdDSA"]
        callback = "/other/callback"
        login = "/other/login"
        logout = "/other/logout"
        [[routes]]
        path = "/other"
        upstream = "app"
        authenticate = ["other"]
        [[routes]]
        path = "/both"
        upstream = "app"
        authenticate = ["main + other"]
        [[routes]]
        path = "/key"
        upstream = "app"
        authenticate = ["keys + main"]
        [[routes]]
        path = "/either"
        upstream = "app"
        authenticate = ["keys + other", "keys + main"]
        [api_keys.keys]
        from = ["header:X-API-Key"]
        [consumers.app]
        keys = ["{}"]
        "#,
        provider.issuer(),
        crate::api_keys::stored("a-key-of-the-application"),
    );
    let (toml, _folder) = configuration(&provider, &upstream, &more);
    let gateway = Gateway::start(&toml);
    let mut browser = Browser::of(&gateway);
    let good = "X-API-Key: a-key-of-the-application\r\n";
    let bad = "X-API-Key: a-key-of-somebody-else\r\n";
    // Without a session it may help, or the user finds out what else there is to show.
    assert_eq!(browser.page("/key").status, 303);
    browser.cookies.clear();
    location(&browser.log_in(&provider, "/"));
    for (path, fields, wanted) in [
        ("/key", "", is(401, "auth.missing")),
        ("/key", bad, is(401, "auth.invalid")),
        ("/key", good, is(200, "")),
        ("/either", "", is(401, "auth.missing")),
        ("/either", good, is(200, "")),
    ] {
        let response = browser.ask("GET", path, &format!("{PAGE}{fields}"));
        assert_eq!(told(&response), wanted, "{path} {fields}");
        if wanted.0 == 401 {
            let ways = response.head.all("www-authenticate");
            assert!(ways.contains(&"Session realm=\"main\""), "{ways:?}");
            assert!(ways.contains(&"ApiKey realm=\"keys\""), "{ways:?}");
        }
    }
    // Of two logins that are both needed, the one that is missing is begun.
    let to = location(&browser.page("/both"));
    let asked = parameters(to.split_once('?').unwrap().1);
    assert_eq!(asked["redirect_uri"], "http://gw.test/other/callback");
    let back = provider.log_in(&to, "alice");
    assert_eq!(location(&browser.page(&back)), "/both");
    assert_eq!(browser.page("/both").status, 200);
}

#[test]
fn what_the_provider_promises_and_does_not_offer_counts() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    provider.set(|manner| {
        manner.names_issuer = true;
        manner.has_end_session = false;
    });
    let (toml, _folder) = configuration(&provider, &upstream, "after_logout = \"/open/bye\"");
    let gateway = Gateway::start(&toml);
    let mut browser = Browser::of(&gateway);
    // Answers name it (RFC 9207), or are not its own.
    assert_eq!(told(&browser.log_in(&provider, "/")), is(400, "login.issuer"));
    let to = location(&browser.reconnected(&gateway).page("/"));
    let issuer: String = form_urlencoded::byte_serialize(provider.issuer().as_bytes()).collect();
    let back = format!("{}&iss={issuer}", provider.log_in(&to, "alice"));
    assert_eq!(location(&browser.page(&back)), "/");
    assert_eq!(browser.page("/").status, 200);
    // It does not want to know of logouts.
    assert_eq!(location(&browser.page("/oidc/logout")), "/open/bye");
    assert!(browser.cookies.is_empty());
}

#[test]
fn claims_that_are_asked_for_later_count_for_sessions() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(&provider, &upstream, "");
    let gateway = Gateway::start(&toml);
    let mut browser = Browser::of(&gateway);
    location(&browser.log_in(&provider, "/"));
    let with = |claims: &str| toml.replace("algorithms =", &format!("{claims}\nalgorithms ="));
    assert!(gateway.reload(&with("claims = { groups = \"staff\" }")));
    assert_eq!(browser.reconnected(&gateway).ask("GET", "/", "").status, 200);
    assert!(gateway.reload(&with("claims = { role = \"admin\" }")));
    browser.reconnected(&gateway);
    let kept = browser.session();
    assert_eq!(told(&browser.ask("GET", "/", "")), is(401, "auth.claim"));
    assert!(browser.cookies.is_empty(), "it is over");
    // Whoever logs in anew is told so.
    browser.cookies = kept;
    assert_eq!(told(&browser.log_in(&provider, "/")), is(403, "login.claim"));
}

#[test]
fn requests_that_wait_for_a_provider_are_bounded() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(&provider, &upstream, "timeout = \"1m\"");
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://localhost:{}", silent.local_addr().unwrap().port());
    let toml = toml.replace(&provider.issuer(), &issuer);
    let gateway = Gateway::start(&format!("{toml}\n[runtime]\nworkers = 1"));
    let _clients: Vec<Client> = (0..140)
        .map(|_| {
            let mut client = gateway.client();
            client.send(format!("GET / HTTP/1.1\r\nHost: gw.test\r\n{PAGE}\r\n"));
            client
        })
        .collect();
    let line = "ringway_refusals_total{reason=\"auth.unavailable\"} 12\n";
    eventually("those that are too many are told at once", || {
        gateway.admin().get("/metrics").text().contains(line)
    });
}

/// A cookie of the section `main` with something else in it.
fn resealed(
    provider: &OpenId,
    purpose: &str,
    cookie: &str,
    change: impl FnOnce(&mut serde_json::Value),
) -> String {
    let secret: Vec<u8> = SECRETS
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let seals = Seals::new(&[secret], b"ringway oidc cookies 1").unwrap();
    let issuer = provider.issuer();
    let bound: Vec<u8> = [purpose, "main", &issuer, "shop"]
        .iter()
        .flat_map(|part| [&(part.len() as u64).to_be_bytes(), part.as_bytes()].concat())
        .collect();
    let plain = seals.open(&URL_SAFE_NO_PAD.decode(cookie).unwrap(), &bound).unwrap();
    let mut value = serde_json::from_slice(&plain).unwrap();
    change(&mut value);
    let mut random = [0; RANDOM_BYTES];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    URL_SAFE_NO_PAD.encode(seals.seal(value.to_string().as_bytes(), &bound, &random).unwrap())
}

#[test]
fn a_provider_that_hangs_holds_up_one_page_and_ends_no_session() {
    let (provider, upstream) = (OpenId::start(), Upstream::ok());
    let (toml, _folder) = configuration(&provider, &upstream, "timeout = \"300ms\"");
    let gateway = Gateway::start(&format!("{toml}\n[runtime]\nworkers = 1"));
    let mut browser = Browser::of(&gateway);
    location(&browser.log_in(&provider, "/"));
    provider.set(|manner| manner.answer = Answer::Held);
    // Its tokens should be others, and it was not used for a while.
    let session = browser.cookies["ringway-main+0"].strip_prefix("1.").unwrap().to_owned();
    let due = resealed(&provider, "session", &session, |session| session["d"] = json!(1));
    browser.cookies.insert("ringway-main+0".to_owned(), format!("1.{due}"));
    let before = resealed(&provider, "seen", &browser.cookies["ringway-main+seen"], |seen| {
        seen["s"] = json!(seen["s"].as_u64().unwrap() - 1800);
    });
    browser.cookies.insert("ringway-main+seen".to_owned(), before.clone());
    let response = browser.ask("GET", "/", "");
    assert_eq!((response.status, provider.refreshes()), (200, 1));
    // It was used: it does not end while the provider is down.
    assert_ne!(browser.cookies["ringway-main+seen"], before);
    // Nobody waits for the provider, also when it would be asked again for another session.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        assert_eq!(browser.ask("GET", "/", "").status, 200);
    }
    if begun.elapsed() < Duration::from_secs(9) {
        assert_eq!(provider.refreshes(), 1);
    }
}
