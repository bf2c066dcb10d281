//! HTTP Basic: which passwords pass, that verifying them is bounded and remembered, and files of
//! users.

use std::{path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::harness::{Client, Gateway, Upstream, eventually, http2::Http2};

/// Of `secret`, and of `hunter2`, as `htpasswd -B` writes them (made by libxcrypt).
const ALICE: &str = "$2y$08$abcdefghijklmnopqrstuuKxCcvB7KZ7.BpDoK0bh6qM7Dl1/xiJa";
const BOB: &str = "$2y$08$bbcdefghijklmnopqrstuuiEQto.7isKAdppTig8SqxsepkMJ3JBm";

fn basic(name: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{password}")))
}

struct Served {
    gateway: Gateway,
    upstream: Upstream,
    dir: tempfile::TempDir,
    toml: String,
}

fn served(keys: &str) -> Served {
    let (upstream, dir) = (Upstream::ok(), tempfile::tempdir().unwrap());
    let file = dir.path().join("users");
    std::fs::write(&file, format!("# users\nbob:{BOB}\n")).unwrap();
    let toml = format!(
        "[runtime]\nworkers = 1\n[[routes]]\npath = \"/\"\nupstream = \"app\"\n\
         authenticate = [\"people\"]\nconsumer_fields = true\n[basic.people]\nfile = \"{}\"\n{keys}\n\
         [consumers.alice]\npassword = \"{ALICE}\"\ngroups = [\"staff\"]\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        file.display(),
        upstream.address()
    );
    Served { gateway: Gateway::start(&toml), upstream, dir, toml }
}

fn verified(gateway: &Gateway, outcome: &str) -> u64 {
    let name = format!("ringway_passwords_verified_total{{outcome=\"{outcome}\"}}");
    gateway.figure(&name).unwrap_or_default() as u64
}

#[test]
fn names_and_passwords() {
    let served = served("realm = \"Our \\\"house\\\"\"");
    let Served { gateway, upstream, .. } = &served;
    for (n, (fields, status, reason)) in [
        (basic("alice", "secret"), 200, ""),
        (basic("bob", "hunter2"), 200, ""),
        (basic("alice", "hunter2"), 401, "auth.invalid"),
        (basic("alice", ""), 401, "auth.invalid"),
        (basic("Alice", "secret"), 401, "auth.invalid"),
        (basic("nobody", "secret"), 401, "auth.invalid"),
        (basic("nobody", "hunter2"), 401, "auth.invalid"),
        (basic("", "secret"), 401, "auth.invalid"),
        (basic("alice", &"x".repeat(2000)), 401, "auth.invalid"),
        ("Authorization: Basic !!!\r\n".to_owned(), 401, "auth.invalid"),
        ("Authorization: Basic\r\n".to_owned(), 401, "auth.invalid"),
        ("Authorization: Bearer x\r\n".to_owned(), 401, "auth.missing"),
        (String::new(), 401, "auth.missing"),
    ]
    .into_iter()
    .enumerate()
    {
        let response = gateway.client().get_with(&format!("/{n}"), &fields);
        assert_eq!(response.status, status, "{fields}");
        if status == 401 {
            assert_eq!(response.reason(), reason, "{fields}");
            let expected = "Basic realm=\"Our \\\"house\\\"\", charset=\"UTF-8\"";
            assert_eq!(response.field("www-authenticate"), Some(expected));
        }
    }
    let request = upstream.request_for("/0");
    assert_eq!(request.field("x-consumer-name"), Some("alice"));
    assert_eq!(request.field("x-consumer-groups"), Some("staff"));
    assert_eq!(request.field("authorization"), None, "taken out");
    assert_eq!(upstream.request_for("/1").field("x-consumer-name"), None, "no consumer");
    let mut client = Http2::connect(gateway.address());
    let authorization = STANDARD.encode("alice:secret");
    let authorization = format!("Basic {authorization}");
    let stream = client.ask("GET", "/h2", &[("authorization", authorization.as_str())]);
    assert_eq!(client.response(stream).status, 200);
}

#[test]
fn a_password_is_verified_once() {
    let served = served("");
    let Served { gateway, .. } = &served;
    for _ in 0..5 {
        assert_eq!(gateway.client().get_with("/", &basic("alice", "secret")).status, 200);
        assert_eq!(gateway.client().get_with("/", &basic("alice", "wrong")).status, 401);
        assert_eq!(gateway.client().get_with("/", &basic("nobody", "wrong")).status, 401);
    }
    assert_eq!((verified(gateway, "right"), verified(gateway, "wrong")), (1, 2));
    // All at once is once, too.
    let clients: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = gateway.client();
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", basic("bob", "hunter2")));
            client
        })
        .collect();
    for mut client in clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(verified(gateway, "right"), 2);
    assert_eq!(verified(gateway, "busy"), 0);
}

#[test]
fn more_at_once_than_may_be_are_told_to_come_back() {
    // The costliest hash there may be: a second or more for each.
    let served = served("verify_at_once = 2");
    let Served { gateway, upstream, dir, toml } = &served;
    std::fs::write(dir.path().join("users"), format!("slow:{}\n", BOB.replace("$08$", "$14$")))
        .unwrap();
    assert!(gateway.reload(toml));
    let clients: Vec<Client> = (0..6)
        .map(|n| {
            let mut client = gateway.client().patience(Duration::from_secs(60));
            let fields = basic("slow", &format!("guess {n}"));
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            client
        })
        .collect();
    let mut refused = 0;
    for mut client in clients {
        let response = client.response();
        match response.status {
            503 => {
                assert_eq!(response.reason(), "auth.unavailable");
                assert_eq!(response.field("retry-after"), Some("1"));
                refused += 1;
            }
            status => assert_eq!(status, 401),
        }
    }
    assert_eq!((refused, verified(gateway, "busy")), (4, 4));
    assert!(upstream.requests().is_empty());
}

#[test]
fn another_password_in_the_file_counts_at_once() {
    let served = served("remember = \"1h\"");
    let Served { gateway, dir, toml, .. } = &served;
    let file: PathBuf = dir.path().join("users");
    assert_eq!(gateway.client().get_with("/", &basic("bob", "hunter2")).status, 200);
    std::fs::write(&file, format!("bob:{ALICE}\n")).unwrap();
    assert!(gateway.reload(toml));
    assert_eq!(gateway.client().get_with("/", &basic("bob", "hunter2")).status, 401);
    assert_eq!(gateway.client().get_with("/", &basic("bob", "secret")).status, 200);
    // A reload that changes nothing of it has nobody verified again.
    let before = verified(gateway, "right");
    assert!(gateway.reload(toml));
    assert_eq!(gateway.client().get_with("/", &basic("bob", "secret")).status, 200);
    assert_eq!(verified(gateway, "right"), before);
}

#[test]
fn nothing_is_remembered_where_nothing_is_to_be() {
    let served = served("remember = \"0s\"");
    let Served { gateway, .. } = &served;
    for n in 1..=3 {
        assert_eq!(gateway.client().get_with("/", &basic("alice", "secret")).status, 200);
        eventually("it was verified again", || verified(gateway, "right") == n);
    }
}
