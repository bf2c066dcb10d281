//! What each policy of a route costs a request that it lets pass, and the head of the response.
//!
//! `policy/none` is what all cases have: a sink is made, and the head of the response rewritten.
//! What a policy costs is the difference to it; fields that it adds, and what an identity takes,
//! are among that.

use std::{hint::black_box, path::Path};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ringway::worker::bench::with_policies;

use crate::{measure::Cases, parse::RESPONSE};

const SECRET: &str = "a-secret-that-is-as-long-as-the-hash-or-longer-0123456789";
const KEY: &str = "rw_PyDODjRA3bcJSvCB9aWuZ3uB2V5RsIep4PVsEW";
/// What an example of this repository stores of it.
const DIGEST: &str = "sha256:3bdb23e0a349a1b97087618b39e6640dcd22c40e203c6877132c03e7d8f84ec9";
const PASSWORD: &str = "correct horse";
/// Of ten properties.
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/steps/account.json");

/// A name, what the route has, and what the configuration has besides.
const CASES: [(&str, &str, &str); 19] = [
    ("none", "", ""),
    ("addresses", "addresses = { allow = ['office'], deny = ['blocked'] }", LISTS),
    ("maintenance-open", "maintenance = { retry_after = '1h', allow = ['192.0.2.0/24'] }", ""),
    ("cors", "cors = { origins = ['https://app.example.com'], credentials = true }", ""),
    ("user-agents", "user_agents = { deny = ['(?i)badbot', '^masscan/'] }", ""),
    ("csrf", "csrf = { origins = ['https://app.example.com'] }", ""),
    ("security-fields", "security_headers = {}", ""),
    ("limit", "rate_limits = ['quiet']", LIMITS),
    ("limit-told", "rate_limits = ['told']", LIMITS),
    ("two-limits", "rate_limits = ['quiet', 'header']", LIMITS),
    ("api-key", "authenticate = ['keys']", KEYS),
    ("jwt-cached", "authenticate = ['tokens']", TOKENS),
    ("jwt-forward", "authenticate = ['told']", TOKENS),
    ("basic-cached", "authenticate = ['people']", PEOPLE),
    ("authorize-groups", "authenticate = ['keys']\nauthorize = [{ groups = ['partners'] }]", KEYS),
    ("authorize-method", "authorize = [{ methods = ['GET'] }]", ""),
    ("authorize-cel", "authorize = [{ when = 'request.method == \"GET\"' }]", ""),
    ("transform-fields", TRANSFORM, ""),
    ("validate-json", "validate = { body = 'SCHEMA' }", ""),
];

const LISTS: &str = "
    [address_lists.office]
    networks = ['192.0.2.0/24', '10.0.0.0/8']
    [address_lists.blocked]
    networks = ['198.51.100.0/24', '203.0.113.7']
";
const LIMITS: &str = "
    [rate_limits.quiet]
    rate = '1000000/s'
    burst = 1000000
    fields = false
    [rate_limits.told]
    rate = '1000000/s'
    burst = 1000000
    [rate_limits.header]
    rate = '1000000/s'
    burst = 1000000
    fields = false
    key = 'header:X-Tenant'
";
const KEYS: &str = "
    [api_keys.keys]
    [consumers.partner]
    groups = ['partners']
    keys = ['DIGEST']
";
const TOKENS: &str = "
    [jwt.tokens]
    algorithms = ['HS256']
    issuer = 'https://id.example.com'
    audience = ['api']
    secret = 'file:SECRET'
    [jwt.told]
    algorithms = ['HS256']
    issuer = 'https://id.example.com'
    audience = ['api']
    secret = 'file:SECRET'
    forward = { X-User = 'sub' }
";
const PEOPLE: &str = "
    [basic.people]
    [consumers.alice]
    password = '$2y$10$abcdefghijklmnopqrstuuwmjOOgyx/jknFqeF8sHrF2cGgSECl/q'
";
const TRANSFORM: &str = "
    [routes.transform_request.headers]
    remove = ['X-Debug']
    set = { X-Client = '${client}', X-Route = '${route}' }
";

/// `secret`: the path of the file that has [`SECRET`].
fn configuration(route: &str, more: &str, secret: &Path) -> String {
    let more = more.replace("DIGEST", DIGEST).replace("SECRET", &secret.display().to_string());
    let route = route.replace("SCHEMA", SCHEMA);
    format!(
        "[runtime]\nworkers = 1\n[[listeners]]\nbind = '127.0.0.1:8080'\n\
         [upstreams.origin]\nendpoints = ['127.0.0.1:8081']\n\
         [[routes]]\npath = '/'\nupstream = 'origin'\n{route}\n{more}"
    )
}

/// A token for an hour.
fn token() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let end = now.expect("after 1970").as_secs() + 3600;
    let claims = format!(
        r#"{{"iss":"https://id.example.com","aud":"api","sub":"alice","exp":{end},"scope":"read"}}"#
    );
    let encode = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
    let message =
        format!("{}.{}", encode(br#"{"alg":"HS256","typ":"JWT"}"#), encode(claims.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{message}.{}", encode(hmac::sign(&key, message.as_bytes()).as_ref()))
}

/// JSON of 1 KiB, as the schema says.
fn account() -> String {
    let account = |note: &str| {
        format!(
            r#"{{"id":12345,"name":"Alice Example","email":"alice@example.com","status":"active",
"balance":1024.5,"is_business":false,"opened_on":"2024-02-29","tags":["retail","newsletter","eu"],
"phone":"+4930123456","note":"{note}"}}"#
        )
    };
    account(&"A note. ".repeat(128)[..1024 - account("").len()])
}

/// As a browser would send it, with what the case is to find.
fn request(name: &str) -> Vec<u8> {
    let body = if name == "validate-json" { account() } else { String::new() };
    let method = if body.is_empty() { "GET" } else { "POST" };
    let field = match name {
        "api-key" | "authorize-groups" => format!("X-API-Key: {KEY}\r\n"),
        "jwt-cached" | "jwt-forward" => format!("Authorization: Bearer {}\r\n", token()),
        "basic-cached" => {
            let pair =
                base64::engine::general_purpose::STANDARD.encode(format!("alice:{PASSWORD}"));
            format!("Authorization: Basic {pair}\r\n")
        }
        "cors" => "Origin: https://app.example.com\r\n".to_owned(),
        "validate-json" => {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        }
        _ => String::new(),
    };
    format!(
        "{method} /api/v1/users/12345?fields=name HTTP/1.1\r\nHost: api.example.com\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nX-Tenant: one\r\n{field}\r\n{body}"
    )
    .into_bytes()
}

pub fn cases(cases: &mut Cases) {
    let folder = tempfile::tempdir().expect("a folder for a secret");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).expect("a file in a folder of our own");
    for (name, route, more) in CASES {
        let request = request(name);
        let of = (&*request, RESPONSE, PASSWORD);
        with_policies(&configuration(route, more, &secret), of, |judged| {
            let len = judged.judge();
            cases.case(&format!("policy/{name}"), || {
                assert_eq!(black_box(&mut *judged).judge(), len);
            });
        });
    }
}
