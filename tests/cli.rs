//! The program as a user runs it: `check`, `explain`, `schema`, `version`.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

fn ringway(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs `explain` on a file of `config/`; the exit code and what was printed.
fn explain(file: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let file = format!("config/{file}");
    let output = ringway(&[&["explain", "--config", &file], arguments].concat());
    assert_eq!(stderr(&output), "", "{arguments:?}");
    (output.status.code(), stdout(&output))
}

/// A file in the temporary directory, removed when dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn with(name: &str, text: &str) -> Temporary {
        let path = std::env::temp_dir().join(format!("ringway-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        Temporary(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("the temporary directory has a plain name")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn check_says_what_a_good_file_has() {
    let output = ringway(&["check", "config/quickstart.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "config/quickstart.toml: good (1 listener, 1 route, 1 upstream)\n");
}

#[test]
fn check_reports_every_mistake_and_fails() {
    let file = Temporary::with("bad.toml", "[[listeners]]\nbind = 1\n[limits]\nhead = 2\nx = 3\n");
    let output = ringway(&["check", file.path()]);
    let text = stderr(&output);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()), "{text}");
    assert_eq!(text.matches("error: ").count(), 3, "{text}");
    assert!(text.contains(&format!("{}: 3 errors, 1 warning", file.path())), "{text}");
    assert!(!text.contains('\u{1b}'), "colours in a pipe: {text}");
}

#[test]
fn check_prints_warnings_and_passes() {
    let file = Temporary::with("warned.toml", "[[listeners]]\nbind = \"127.0.0.1:0\"\n");
    let output = ringway(&["check", file.path()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("warning: no route"), "{}", stderr(&output));
    assert!(stdout(&output).contains("good (1 listener, 0 routes, 0 upstreams)"));
}

#[test]
fn explain_shows_what_is_forwarded() {
    for (file, request, expected) in [
        ("routing.toml", &["GET", "/api/orders/7?x=1"][..], "upstream     orders, by round robin"),
        ("routing.toml", &["GET", "/api/../v1/status"], "normalised from /api/../v1/status"),
        (
            "routing.toml",
            &["GET", "/api/x", "-H", "X-Canary: yes", "-H", "X-Tenant: blue"],
            "route        canary",
        ),
        (
            "routing.toml",
            &["GET", "/api/x", "-H", "X-Canary: no"],
            "the field x-canary does not match",
        ),
        ("routing.toml", &["DELETE", "/login"], "not with this method"),
        ("routing.toml", &["GET", "http://api.example.test/users/7/orders"], "{id} = 7"),
        ("rewrite.toml", &["GET", "/shop/cart?a=b"], "GET /cart?a=b HTTP/1.1"),
        ("rewrite.toml", &["GET", "/old/cart"], "GET /v2/cart HTTP/1.1"),
        ("rewrite.toml", &["GET", "/report-2025/may"], "GET /reports/2025/may HTTP/1.1"),
        ("rewrite.toml", &["GET", "/legacy/x"], "Host: legacy.internal"),
        ("upstreams.toml", &["GET", "/"], "127.0.0.1:8001 (weight 3)"),
        ("upstreams.toml", &["GET", "/slow"], "first byte 90s, idle 30s, whole exchange 2m"),
        ("behind-a-proxy.toml", &["GET", "/"], "Via: 1.1 edge-1"),
        ("websocket.toml", &["GET", "/"], "upgrade      does not pass"),
    ] {
        let (code, text) = explain(file, request);
        assert!(text.contains(expected), "{request:?} has no {expected:?}:\n{text}");
        assert_eq!(code, Some(0), "{request:?}:\n{text}");
    }
}

#[test]
fn explain_shows_what_the_gateway_answers() {
    let file = "redirects-and-fixed-responses.toml";
    for (request, expected) in [
        (["GET", "http://example.test:8080/a?b"], "308 to https://www.example.test/a?b"),
        (["GET", "http://a.test:8080/old/cart?x=1"], "307 to /new/cart?x=1"),
        (["GET", "/item/7?x=1"], "308 to /shop/items/7\n"),
        (["GET", "/x/%2e%2e/%69nternal/y"], "answers      403"),
        (["GET", "/health"], "Cache-Control: no-store"),
    ] {
        let (code, text) = explain(file, &request);
        assert!(text.contains(expected), "{request:?} has no {expected:?}:\n{text}");
        assert_eq!(code, Some(0), "{request:?}:\n{text}");
    }
}

#[test]
fn explain_refuses_what_the_gateway_refuses() {
    for (file, request, expected) in [
        ("quickstart.toml", &["GET", "/nothing"][..], "404 route.not_found"),
        ("quickstart.toml", &["GET", "/../etc/passwd"], "400 path.escapes_root"),
        ("quickstart.toml", &["GET", "/api/orders%2f7"], "400 path.ambiguous"),
        ("quickstart.toml", &["GET", "/api/orders\\7"], "400 "),
        ("quickstart.toml", &["GET", "/api/%zz"], "400 path.bad_encoding"),
        ("quickstart.toml", &["TRACE", "/"], "405 method.refused"),
        ("quickstart.toml", &["GET", "/", "-H", "Host: a b"], "400 host.invalid"),
        ("quickstart.toml", &["GET", "/", "-H", "Host: a", "-H", "Host: b"], "400 host.duplicate"),
        (
            "quickstart.toml",
            &["POST", "/api/orders", "-H", "Content-Length: 2000000000"],
            "413 limit.body_bytes",
        ),
        (
            "quickstart.toml",
            &["POST", "/api/orders", "-H", "Content-Length: 1", "-H", "Transfer-Encoding: chunked"],
            "400 framing.length_and_chunked",
        ),
    ] {
        let (code, text) = explain(file, request);
        assert!(text.contains(expected), "{request:?} has no {expected:?}:\n{text}");
        assert_eq!(code, Some(1), "{request:?}:\n{text}");
    }
}

#[test]
fn explain_of_what_is_no_request_is_a_usage_error() {
    for request in [["GET", "ftp://x/y"], ["GET", "/x"]] {
        let extra: &[&str] = if request[1] == "/x" { &["-H", "no colon"] } else { &[] };
        let fixed = ["explain", "--config", "config/quickstart.toml"];
        let output = ringway(&[&fixed[..], &request, extra].concat());
        assert_eq!(output.status.code(), Some(2), "{request:?}");
        assert!(stderr(&output).contains("write "), "{}", stderr(&output));
    }
}

/// Every object of a schema that describes a section.
fn sections<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a serde_json::Value>) {
    match value {
        serde_json::Value::Object(map) => {
            if map.contains_key("properties") {
                found.push(value);
            }
            map.values().for_each(|value| sections(value, found));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| sections(value, found)),
        _ => {}
    }
}

#[test]
fn schema_describes_every_key_and_refuses_others() {
    let output = ringway(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let mut found = Vec::new();
    sections(&schema, &mut found);
    assert!(found.len() >= 14, "{} sections", found.len());
    let mut keys = 0;
    for section in found {
        assert_eq!(section["additionalProperties"], false, "{section}");
        for (name, key) in section["properties"].as_object().expect("properties") {
            let described = key["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{name} has no description");
            keys += 1;
        }
    }
    assert!(keys >= 80, "{keys} keys");
    assert_eq!(schema["$defs"]["Limits"]["properties"]["fields"]["maximum"], 256);
    assert_eq!(schema["$defs"]["Timeouts"]["properties"]["head"]["default"], "10s");
    assert_eq!(schema["$defs"]["Upstream"]["required"], serde_json::json!(["endpoints"]));
}

#[test]
fn a_log_level_that_is_none_says_what_to_write() {
    let output = ringway(&["--log", "inof", "version"]);
    assert_eq!(output.status.code(), Some(2));
    let message = "ringway: --log: `inof` is no log level; write error, warn, info, debug, trace or \
                   off, or a filter such as ringway::worker=debug\n";
    assert_eq!(stderr(&output), message);
}

#[test]
fn version_and_help() {
    let version = stdout(&ringway(&["version"]));
    assert_eq!(version, format!("ringway {}\n", env!("CARGO_PKG_VERSION")));
    let help = stdout(&ringway(&["--help"]));
    for command in [
        "run", "check", "explain", "status", "reload", "diff", "endpoint", "drain", "log", "demo",
        "schema", "version",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing in:\n{help}");
    }
    let wrong = ringway(&["serve"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_missing_configuration_names_the_way_out() {
    for command in [&["check"][..], &["explain", "GET", "/"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(command)
            .current_dir(std::env::temp_dir())
            .output()
            .expect("the program starts");
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("ringway demo"), "{}", stderr(&output));
    }
}

/// A table of questions about one file, and lines that the answers have.
#[track_caller]
fn explained(file: &str, table: &[(&[&str], i32, &[&str])]) {
    for (arguments, code, lines) in table {
        let (ended, text) = explain(file, arguments);
        assert_eq!(ended, Some(*code), "{arguments:?}\n{text}");
        for line in *lines {
            let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(squeezed(&text).contains(&squeezed(line)), "{line} in {arguments:?}\n{text}");
        }
    }
}

#[test]
fn explain_says_which_rule_decides_and_why_the_others_do_not() {
    // {"sub":"alice"}, signed by nobody.
    let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.";
    let staff = r#"{"sub": "bob", "groups": ["staff"], "realm": {"verified": true}}"#;
    let admin = r#"{"sub": "eve", "groups": ["admins"], "scope": "notes:read"}"#;
    explained(
        "authorization.toml",
        &[
            (
                &["GET", "/notes/alice"],
                0,
                &[
                    "identity nobody known; show a credential with -H, or tell with --claims or",
                    "not from there: does not match, not for the address 127.0.0.1",
                    "everybody reads: matches, allows it",
                ],
            ),
            (
                &["GET", "/notes/alice", "--client", "192.0.2.1"],
                1,
                &["not from there: matches, denies it", "refused 403 authz.denied"],
            ),
            (
                &["DELETE", "/notes/alice"],
                1,
                &[
                    "everybody reads: does not match, not for this method",
                    "owners: does not match, it asks who the client is",
                    "staff 1: does not match, not for this method",
                    "staff 2: does not match, it asks who the client is",
                    "no rule matches: denied",
                    "refused 401 authz.unauthenticated",
                ],
            ),
            (
                &["DELETE", "/notes/alice", "--token", token],
                0,
                &["identity alice (as given, not verified)", "owners: matches, allows it"],
            ),
            (
                &["DELETE", "/notes/bob", "--token", token],
                1,
                &[
                    "owners: does not match, its expression is false",
                    "staff 2: does not match, in none of its groups",
                    "refused 403 authz.denied",
                ],
            ),
            (&["PUT", "/notes/alice", "--claims", staff], 0, &["staff 1: matches, allows it"]),
            (
                &["PUT", "/notes/alice", "--claims", admin],
                1,
                &[
                    "staff 1: does not match, in none of its groups",
                    "staff 2: does not match, without the scope notes:write",
                ],
            ),
            (
                &["POST", "/reports"],
                0,
                &["would be refused with 401 authz.unauthenticated: shadow = true", "answers 200"],
            ),
        ],
    );
    for wrong in [["--claims", "[]"], ["--claims", "{"], ["--token", "a.b"]] {
        let fixed = ["explain", "--config", "config/authorization.toml", "GET", "/notes/a"];
        let output = ringway(&[&fixed[..], &wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!stderr(&output).is_empty(), "{wrong:?}");
    }
}

/// A token of HS256, signed with what `CARGO_PKG_DESCRIPTION` is.
fn token(exp: u64) -> String {
    use aws_lc_rs::hmac;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
    let claims = serde_json::json!({ "aud": "api", "sub": "tom", "exp": exp, "groups": ["staff"] });
    let message = [r#"{"alg":"HS256"}"#, &claims.to_string()].map(|part| BASE64.encode(part));
    let message = message.join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, env!("CARGO_PKG_DESCRIPTION").as_bytes());
    format!("{message}.{}", BASE64.encode(hmac::sign(&key, message.as_bytes())))
}

/// Ways to show who one is, and rules about it.
const WAYS: &str = r#"
[[listeners]]
bind = "127.0.0.1:0"

[[routes]]
path = "/"
respond = { status = 204 }
authenticate = ["keys", "people", "tokens"]
authorize = [
  { name = "kate", consumers = ["kate"] },
  { name = "the staff", groups = ["staff"] },
  { name = "deployers", scopes = ["deploy"], methods = ["PUT"] },
]

[[routes]]
path = "/inner"
respond = { status = 204 }
authenticate = ["certificate"]

[api_keys.keys]
[basic.people]
[jwt.tokens]
algorithms = ["HS256"]
audience = ["api"]
secret = "env:CARGO_PKG_DESCRIPTION"

[consumers.kate]
keys = ["sha256:3bdb23e0a349a1b97087618b39e6640dcd22c40e203c6877132c03e7d8f84ec9"]
[consumers.ci]
keys = ["sha256:79f4afa8fbb25a4e23723e0f5f6dc419bdec474f7c568ed3f27a71cb8be52f13 scopes=deploy"]
[consumers.bob]
password = "$2y$10$abcdefghijklmnopqrstuuwmjOOgyx/jknFqeF8sHrF2cGgSECl/q"
groups = ["staff"]

[[listeners]]
name = "tls"
bind = "127.0.0.2:0"
[listeners.tls]
certificates = [{ file = "TLS.pem", key = "TLS.key" }]
client_ca = "TLS.pem"
"#;

#[test]
fn explain_verifies_what_a_request_shows_and_says_which_rule_decides_then() {
    let papers = concat!(env!("CARGO_MANIFEST_DIR"), "/config/tls/localhost");
    let file = Temporary::with("shown.toml", &WAYS.replace("TLS", papers));
    let (good, old) = (token(4_000_000_000), token(1_000_000_000));
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let forged = good.replace("eyJhdWQ", "eyJhdWR");
    assert_ne!(forged, good);
    let kate = "X-API-Key: rw_PyDODjRA3bcJSvCB9aWuZ3uB2V5RsIep4PVsEW";
    let ci = "X-API-Key: rw_mgCGU42SyTPAN3CsSph2EO63WbLIe1PT1REkSa";
    // bob:wonderland
    let bob = "Authorization: Basic Ym9iOndvbmRlcmxhbmQ=";
    let cases: [(&str, &str, i32, &[&str]); 10] = [
        ("GET", kate, 0, &["identity kate, verified by keys", "kate: matches, allows it"]),
        ("PUT", ci, 0, &["identity ci, verified by keys, scopes deploy", "deployers: matches"]),
        ("GET", ci, 1, &["deployers: does not match, not for this method", "403 authz.denied"]),
        ("GET", "X-API-Key: rw_none", 1, &["refused 401 auth.invalid"]),
        ("GET", bob, 0, &["bob, verified by people, groups staff", "the staff: matches, allows"]),
        ("GET", "Authorization: Basic Ym9iOmd1ZXNzZWQ=", 1, &["refused 401 auth.invalid"]),
        ("GET", &bearer(&good), 0, &["tom, verified by tokens, groups staff", "staff: matches"]),
        ("GET", &bearer(&old), 1, &["refused 401 auth.expired"]),
        ("GET", &bearer(&forged), 1, &["refused 401 auth.invalid"]),
        ("GET", "X-Other: a", 1, &["identity nobody known", "refused 401 auth.missing"]),
    ];
    for (method, field, code, lines) in cases {
        let output = ringway(&["explain", "--config", file.path(), method, "/", "-H", field]);
        assert_eq!(stderr(&output), "", "{field}");
        let text = stdout(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(code), "{field}: {text}");
        lines.iter().for_each(|line| assert!(text.contains(line), "{line} for {field}: {text}"));
    }
    // Nobody can show a certificate here.
    let output = ringway(&["explain", "--config", file.path(), "GET", "/inner"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}

#[test]
fn explain_asks_the_other_policies_in_their_order() {
    let preflight =
        ["-H", "Access-Control-Request-Method: PUT", "-H", "Origin: https://a.example.org"];
    explained(
        "cors.toml",
        &[
            (
                &[&["OPTIONS", "/api"][..], &preflight].concat(),
                0,
                &[
                    "answers 204: a CORS preflight",
                    "Access-Control-Allow-Origin: https://a.example.org",
                ],
            ),
            (&[&["OPTIONS", "/public"][..], &preflight].concat(), 1, &["refused 403 cors.method"]),
            (&["GET", "/public"], 0, &["cors Access-Control-Allow-Origin: *"]),
        ],
    );
    explained(
        "address-lists.toml",
        &[
            (&["GET", "/"], 0, &["client 127.0.0.1 (assumed; name another with --client)"]),
            (&["GET", "/admin", "--client", "10.0.0.7"], 0, &["addresses allowed by office"]),
            (
                &["GET", "/", "-H", "X-Forwarded-For: 192.0.2.1"],
                1,
                &["client 192.0.2.1", "addresses denied by blocked", "refused 403 client.address"],
            ),
            (&["GET", "/beta"], 0, &["would be refused with 403 client.address: shadow = true"]),
        ],
    );
    explained(
        "web-security.toml",
        &[
            (&["POST", "/", "-H", "Origin: https://evil.example"], 1, &["refused 403 csrf.origin"]),
            (&["GET", "/", "-H", "User-Agent: badbot"], 1, &["refused 403 client.user_agent"]),
            (&["GET", "/"], 0, &["csrf passed", "unless said X-Content-Type-Options: nosniff"]),
            (&["GET", "/shop"], 1, &["refused 503 route.maintenance"]),
            (&["GET", "/shop", "--client", "10.0.0.1"], 0, &["closed, but not for this client"]),
        ],
    );
}
