//! API keys: which requests pass, what upstreams get, files of keys and their reload, and what is
//! counted by consumer.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};

use crate::harness::{Gateway, Upstream, eventually, http2::Http2};

/// What is stored of a key.
pub fn stored(key: &str) -> String {
    let hex: String =
        digest(&SHA256, key.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

const APP: &str = "a-key-of-the-application";
const OLD: &str = "a-key-that-has-expired-already";
const PARTNER: &str = "a-key-of-a-partner-of-ours";

fn routes(more: &str) -> String {
    format!(
        r#"
        [[routes]]
        path = "/known"
        upstream = "app"
        authenticate = ["keys"]
        consumer_fields = true

        [[routes]]
        path = "/partners"
        upstream = "app"
        authenticate = ["partners"]
        anonymous = true

        [api_keys.keys]
        from = ["header:X-API-Key", "query:key", "cookie:key", "scheme:ApiKey"]

        [api_keys.partners]
        groups = ["partners"]
        forward_key = true

        [consumers.app]
        keys = ["{} scopes=read,write", "{} expires=2020-01-01"]

        [consumers.acme]
        keys = ["{}"]
        groups = ["partners", "gold"]
        {more}
        "#,
        stored(APP),
        stored(OLD),
        stored(PARTNER),
    )
}

#[test]
fn a_key_is_taken_from_each_place_and_taken_out() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), &routes(""));
    let cases = [
        ("/known/1", format!("X-API-Key: {APP}\r\n"), "/known/1"),
        ("/known/2", format!("x-api-key: {APP}\r\n"), "/known/2"),
        (&format!("/known/3?a=1&key={APP}&b=2"), String::new(), "/known/3?a=1&b=2"),
        ("/known/4", format!("Cookie: a=1; key={APP}; b=2\r\n"), "/known/4"),
        ("/known/5", format!("Authorization: apikey {APP}\r\n"), "/known/5"),
    ];
    for (target, fields, forwarded) in &cases {
        let response = gateway.client().get_with(target, fields);
        assert_eq!(response.status, 200, "{target} {fields}: {}", response.text());
        let request = upstream.request_for(forwarded);
        assert_eq!(request.field("x-consumer-name"), Some("app"));
        assert_eq!(request.field("x-consumer-groups"), None);
        assert!(request.head.fields.iter().all(|(_, value)| !value.contains(APP)), "{request:?}");
    }
    assert_eq!(upstream.request_for("/known/4").field("cookie"), Some("a=1; b=2"));
    let mut client = Http2::connect(gateway.address());
    let stream = client.ask("GET", "/known/h2", &[("x-api-key", PARTNER)]);
    assert_eq!(client.response(stream).status, 200);
    let request = upstream.request_for("/known/h2");
    assert_eq!(request.field("x-consumer-groups"), Some("partners,gold"));
}

#[test]
fn what_is_no_good_is_refused() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), &routes(""));
    let cases = [
        ("/known", String::new(), 401, "auth.missing"),
        ("/known", format!("X-API-Key: {APP}x\r\n"), 401, "auth.invalid"),
        ("/known", "X-API-Key:\r\n".to_owned(), 401, "auth.invalid"),
        ("/known", format!("X-API-Key: {}\r\n", &stored(APP)[7..]), 401, "auth.invalid"),
        ("/known", format!("X-API-Key: {OLD}\r\n"), 401, "auth.expired"),
        ("/known", format!("X-API-Key: {OLD}\r\n"), 401, "auth.expired"),
        ("/known", format!("X-API-Key: {APP}\r\nX-API-Key: {APP}\r\n"), 401, "auth.invalid"),
        (&format!("/known?key={APP}"), format!("X-API-Key: {APP}\r\n"), 401, "auth.invalid"),
        ("/known", format!("Authorization: Bearer {APP}\r\n"), 401, "auth.missing"),
        ("/partners", format!("X-API-Key: {APP}\r\n"), 403, "auth.consumer"),
        ("/partners", "X-API-Key: unknown\r\n".to_owned(), 401, "auth.invalid"),
    ];
    for (target, fields, status, reason) in &cases {
        let response = gateway.client().get_with(target, fields);
        assert_eq!((response.status, &*response.reason()), (*status, *reason), "{fields}");
        let challenge = response.field("www-authenticate").map(str::to_owned);
        let expected = (*status == 401).then(|| {
            let name = if target.starts_with("/partners") { "partners" } else { "keys" };
            format!("ApiKey realm=\"{name}\"")
        });
        assert_eq!(challenge, expected);
    }
    assert!(upstream.requests().is_empty(), "a refused request reaches nobody");
}

#[test]
fn clients_do_not_say_who_they_are_themselves() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), &routes(""));
    let forged = "X-Consumer-Name: root\r\nX_Consumer_Groups: admin\r\n";
    let with_key = |key: &str| format!("{forged}X-API-Key: {key}\r\n");
    for (target, fields, name) in [
        ("/known/1", with_key(APP), Some("app")),
        // Not told there, and not believed.
        ("/partners/1", with_key(PARTNER), None),
        ("/partners/2", forged.to_owned(), None),
    ] {
        assert_eq!(gateway.client().get_with(target, &fields).status, 200, "{target}");
        let request = upstream.request_for(target);
        assert_eq!(request.head.all("x-consumer-name"), Vec::from_iter(name), "{target}");
        assert!(!request.head.has("x_consumer_groups"), "{target}");
    }
    // This way passes the key on.
    assert_eq!(upstream.request_for("/partners/1").field("x-api-key"), Some(PARTNER));
}

/// A file of keys, and a configuration that names it.
fn with_file(upstream: &Upstream, lines: &str) -> (Gateway, tempfile::TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.txt");
    std::fs::write(&path, lines).unwrap();
    let toml = format!(
        "[[routes]]\npath = \"/\"\nupstream = \"app\"\nauthenticate = [\"keys\"]\n\
         consumer_fields = true\n[api_keys.keys]\nfile = \"{}\"\n[reload]\nwatch = true\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        path.display(),
        upstream.address()
    );
    (Gateway::start(&toml), dir, path, toml)
}

#[test]
fn a_file_of_keys_is_read_again_when_it_changes() {
    let upstream = Upstream::ok();
    let line = |key: &str, about: &str| format!("{} {about}\n", stored(key));
    let (gateway, _dir, path, _) =
        with_file(&upstream, &line(APP, "mobile groups=a,b scopes=read # the application"));
    let key = |key: &str| format!("X-API-Key: {key}\r\n");
    assert_eq!(gateway.client().get_with("/1", &key(APP)).status, 200);
    let request = upstream.request_for("/1");
    assert_eq!(request.field("x-consumer-name"), Some("mobile"));
    assert_eq!(request.field("x-consumer-groups"), Some("a,b"));
    assert_eq!(gateway.client().get_with("/", &key(PARTNER)).status, 401);
    // One key goes, another comes; who has a connection already is asked anew as well.
    let mut kept = gateway.client();
    kept.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", key(APP)));
    assert_eq!(kept.response().status, 200);
    let new = path.with_extension("new");
    std::fs::write(&new, line(PARTNER, "acme")).unwrap();
    std::fs::rename(&new, &path).unwrap();
    eventually("the new key is taken", || {
        gateway.client().get_with("/", &key(PARTNER)).status == 200
    });
    kept.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", key(APP)));
    let response = kept.response();
    assert_eq!((response.status, &*response.reason()), (401, "auth.invalid"));
    // A file that is wrong changes nothing, and its line is told.
    std::fs::write(&path, format!("{}not a digest\n", line(PARTNER, "acme"))).unwrap();
    gateway.wait_for_log("line 2: does not begin with a digest");
    assert_eq!(gateway.client().get_with("/", &key(PARTNER)).status, 200);
}

#[test]
fn consumers_are_counted_and_logged() {
    let (upstream, dir) = (Upstream::ok(), tempfile::tempdir().unwrap());
    let log = dir.path().join("access.log");
    let more = format!(
        "[metrics]\nseries = 1\n[[access_logs]]\nto = \"file:{}\"\n\
         format = {{ template = \"${{consumer}} ${{auth}} ${{status}}\" }}",
        log.display()
    );
    let gateway = Gateway::before(upstream.address(), &routes(&more));
    for _ in 0..2 {
        assert_eq!(
            gateway.client().get_with("/known", &format!("X-API-Key: {APP}\r\n")).status,
            200
        );
    }
    assert_eq!(
        gateway.client().get_with("/known", &format!("X-API-Key: {PARTNER}\r\n")).status,
        200
    );
    assert_eq!(gateway.client().get_with("/known", "").status, 401);
    let logged = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("four lines", || logged().lines().count() == 4);
    let text = logged();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["- - 401", "acme keys 200", "app keys 200", "app keys 200"]);
    let metrics = gateway.admin().get("/metrics").text();
    for line in [
        "ringway_consumer_requests_total{consumer=\"app\",class=\"2xx\"} 2",
        "ringway_consumer_requests_total{consumer=\"(other)\",class=\"2xx\"} 1",
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line} in\n{metrics}");
    }
    let status = String::from_utf8(gateway.command(&["status"]).stdout).unwrap();
    let row = status.lines().find(|line| line.starts_with("app ")).unwrap_or_default();
    assert!(row.contains("2xx 2"), "{status}");
    assert!(status.lines().any(|line| line.starts_with("(other) ")), "{status}");
}

#[test]
fn a_key_that_the_command_makes_is_taken() {
    let upstream = Upstream::ok();
    let (gateway, _dir, path, toml) = with_file(&upstream, "# none yet\n");
    let made = gateway.command(&["key", "create", "--consumer", "ci", "--json"]);
    assert!(made.status.success(), "{made:?}");
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let (key, line) = (made["key"].as_str().unwrap(), made["line"].as_str().unwrap());
    assert!(key.starts_with("rw_") && !line.contains(key));
    std::fs::write(&path, format!("{line}\n")).unwrap();
    assert!(gateway.reload(&toml));
    assert_eq!(gateway.client().get_with("/made", &format!("X-API-Key: {key}\r\n")).status, 200);
    assert_eq!(upstream.request_for("/made").field("x-consumer-name"), Some("ci"));
}
