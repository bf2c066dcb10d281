//! Lists of addresses: who is refused by them, as proxies tell of clients, and how they are read
//! again.

use std::fs;

use crate::harness::{Client, Gateway, Http2, Launch, eventually};

const CONFIG: &str = r#"
[forwarding]
trusted_proxies = ["127.0.0.0/8"]

[[routes]]
path = "/open"
respond = { body = "open" }

[[routes]]
path = "/office"
respond = { body = "office" }
addresses = { allow = ["office", "203.0.113.7"], deny = ["10.0.0.99"] }

[[routes]]
path = "/public"
respond = { body = "public" }
policies = ["blocked"]

[[routes]]
path = "/shadow"
respond = { body = "shadow" }
addresses = { deny = ["10.0.0.0/8"], shadow = true }

[policies.blocked]
addresses = { deny = ["office"] }

[address_lists.office]
networks = ["10.0.0.0/8", "2001:db8::/32"]
"#;

fn get(client: &mut Client, path: &str, from: &str) -> (u16, String) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\nX-Forwarded-For: {from}\r\n\r\n"));
    let response = client.response();
    let reason = if response.status == 200 { String::new() } else { response.reason() };
    (response.status, reason)
}

#[test]
fn clients_are_refused_by_their_address() {
    let gateway = Gateway::start(CONFIG);
    let mut client = gateway.client();
    let refused = (403, "client.address".to_owned());
    let served = (200, String::new());
    for (path, from, expected) in [
        ("/open", "10.0.0.1", &served),
        ("/office", "10.0.0.1", &served),
        ("/office", "10.0.0.99", &refused),
        ("/office", "11.0.0.1", &refused),
        ("/office", "203.0.113.7", &served),
        ("/office", "203.0.113.8", &refused),
        ("/office", "2001:db8::1", &served),
        ("/office", "::ffff:10.0.0.1", &served),
        ("/office", "::ffff:10.0.0.99", &refused),
        ("/public", "10.0.0.1", &refused),
        ("/public", "198.51.100.1", &served),
        // Only the proxy counts, not what the client claims further left.
        ("/office", "10.0.0.1, 198.51.100.1", &refused),
        ("/shadow", "10.0.0.1", &served),
    ] {
        assert_eq!(get(&mut client, path, from), *expected, "{path} from {from}");
    }
    let mut client = Http2::connect(gateway.address());
    for (from, status) in [("10.0.0.1", 200), ("11.0.0.1", 403)] {
        let stream = client.ask("GET", "/office", &[("x-forwarded-for", from)]);
        assert_eq!(client.response(stream).status, status, "{from} over HTTP/2");
    }
}

#[test]
fn a_shadow_is_counted_and_logged_and_refuses_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let gateway = Gateway::start(&format!(
        "{CONFIG}\n[[access_logs]]\nto = \"file:{}\"\n\
         format = {{ template = \"${{target}} ${{status}} ${{shadow}}\" }}\n",
        log.display()
    ));
    let mut client = gateway.client();
    for (path, from) in [("/shadow", "10.0.0.1"), ("/shadow", "11.0.0.1"), ("/open", "10.0.0.1")] {
        assert_eq!(get(&mut client, path, from).0, 200);
    }
    let metrics = gateway.admin().get("/metrics").text();
    let counted = "ringway_shadow_refusals_total{reason=\"client.address\"} 1\n";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(!metrics.contains("ringway_refusals_total{"), "{metrics}");
    let expected = "/shadow 200 client.address\n/shadow 200 -\n/open 200 -\n";
    eventually("three lines", || fs::read_to_string(&log).unwrap_or_default() == expected);
}

#[test]
fn a_client_without_address_is_not_on_a_list_of_those_who_may() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gw.sock");
    let listeners = format!(
        "[[listeners]]\nname = \"unix\"\nbind = \"unix:{}\"\n\
         [[listeners]]\nbind = \"127.0.0.1:0\"\n",
        socket.display()
    );
    let _gateway = Gateway::start(&format!("{listeners}{CONFIG}"));
    let mut client = Client::connect_unix(&socket);
    for (path, status) in [("/office", 403), ("/public", 200)] {
        assert_eq!(client.get(path).status, status, "{path}");
    }
}

#[test]
fn a_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blocked.txt");
    fs::write(&file, "# nobody yet\n192.0.2.0/24 ; a test network\n\n").unwrap();
    let toml = format!(
        "[reload]\nwatch = true\n[[routes]]\nrespond = {{ body = \"ok\" }}\n\
         addresses = {{ deny = [\"blocked\"] }}\n\
         [address_lists.blocked]\nfiles = [\"{}\"]\n",
        file.display()
    );
    let gateway = Launch { toml, ..Launch::default() }.start().unwrap();
    let mut client = gateway.client();
    assert_eq!(client.get("/").status, 200);
    // As tools do: another file in its place.
    let next = folder.path().join("next");
    fs::write(&next, "192.0.2.0/24\n127.0.0.1 # me\n").unwrap();
    fs::rename(&next, &file).unwrap();
    eventually("the new list counts", || client.get("/").status == 403);
    // One that is wrong changes nothing.
    fs::write(&next, "127.0.0.300\n").unwrap();
    fs::rename(&next, &file).unwrap();
    gateway.wait_for_log("127.0.0.300");
    assert_eq!(client.get("/").status, 403);
}
