//! The commands that ask a running gateway: what they print and with which code they end.

use std::process::Output;

use crate::harness::{Gateway, Upstream, eventually};

const OK: &str = "[[routes]]\nname = \"ok\"\nrespond = { body = \"ok\" }\n";

/// Exit code, standard output, standard error.
fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("a code"), text(&output.stdout), text(&output.stderr))
}

/// Runs a command that must succeed and say nothing on standard error; what it printed.
#[track_caller]
fn run(gateway: &Gateway, arguments: &[&str]) -> String {
    let (code, out, err) = told(&gateway.command(arguments));
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
    out
}

#[test]
fn reload_waits_and_says_what_came_of_it() {
    let gateway = Gateway::start(OK);
    gateway.write("[[routes]]\nrespond = { body = \"new\" }\n");
    let out = run(&gateway, &["reload"]);
    assert!(out.starts_with("reloaded: generation 2 on 2 workers in "), "{out}");
    assert_eq!(gateway.client().get("/").text(), "new");
    // A warning of `check` is told too.
    gateway.write(&format!("{OK}[upstreams.idle]\nendpoints = [\"127.0.0.1:1\"]\n"));
    let (code, out, err) = told(&gateway.command(&["reload"]));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("generation 3"), "{out}");
    assert!(err.starts_with("warning: no route forwards to the upstream `idle`"), "{err}");
}

#[test]
fn reload_of_a_bad_file_prints_the_report_of_check() {
    let gateway = Gateway::start(OK);
    gateway.write("[[routes]]\nrespnd = {}\n");
    let file = gateway.dir().join("ringway.toml");
    let (_, _, report) = told(&gateway.command(&["check", file.to_str().unwrap()]));
    // Found although its file has errors.
    let (code, out, err) = told(&gateway.command(&["reload"]));
    assert_eq!((code, out.as_str()), (1, ""));
    let last = "\nringway: not reloaded, generation 1 stays in force\n";
    assert_eq!(err, [&report, last].concat());
    assert_eq!(gateway.client().get("/").text(), "ok");
}

#[test]
fn status_is_for_people_and_for_programs() {
    let up = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "[[routes]]\nname = \"app\"\nupstream = \"app\"\n[admin]\nstatus_bind = \"127.0.0.1:0\"\n\
         [upstreams.app]\nendpoints = [\"{}\", \"127.0.0.1:1\"]\n",
        up.address()
    ));
    let mut client = gateway.client();
    (0..10).for_each(|_| assert_eq!(client.get("/").status, 200));
    run(&gateway, &["endpoint", "app", "127.0.0.1:1", "down"]);
    eventually("ten are counted", || {
        run(&gateway, &["status"]).contains("requests       10 (2xx 10)")
    });
    let text = run(&gateway, &["status"]);
    for part in [
        format!("ringway {}, pid ", env!("CARGO_PKG_VERSION")),
        ": ready, up ".to_owned(),
        "generation 1, loaded ".to_owned(),
        "latency        p50 ".to_owned(),
        "\nlistener  bind ".to_owned(),
        format!("\nmain      {}  ", gateway.address()),
        "\napp    forward to app        10  2xx 10 ".to_owned(),
        "\nupstream app (round robin): 10 requests, ".to_owned(),
        format!("\n{}  up ", up.address()),
        "\n127.0.0.1:1      down ".to_owned(),
    ] {
        assert!(text.contains(&part), "{part:?} is not in\n{text}");
    }
    assert!(!text.lines().any(|line| line.ends_with(' ')), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&run(&gateway, &["status", "--json"])).expect("JSON");
    assert_eq!(json["totals"]["requests"], 10);
    // By the other ways to find it.
    let log = gateway.log();
    let (_, rest) = log.rsplit_once("status on http://").unwrap();
    let tcp = rest.split_whitespace().next().unwrap();
    let socket = gateway.dir().join("admin.sock");
    for place in [tcp, "./admin.sock", socket.to_str().unwrap()] {
        assert!(run(&gateway, &["status", "--admin", place]).contains(": ready"), "{place}");
    }
    let (code, _, err) = told(&gateway.command(&["reload", "--admin", tcp]));
    assert_eq!(code, 1);
    assert!(err.contains("on the Unix socket"), "{err}");
}

#[test]
fn the_configuration_tells_where_the_gateway_is() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("own.sock");
    let admin = format!("[admin]\nbind = \"unix:{}\"\n", socket.display());
    let gateway = Gateway::start(&format!("{OK}{admin}"));
    assert!(run(&gateway, &["status"]).contains(": ready"), "from ringway.toml of this folder");
    let other = dir.path().join("other.toml");
    std::fs::write(&other, &admin).unwrap();
    let other = other.to_str().unwrap();
    assert!(run(&gateway, &["status", "--config", other]).contains(": ready"));
    std::fs::write(other, "[admin]\nbind = \"off\"\n").unwrap();
    let (code, _, err) = told(&gateway.command(&["status", "--config", other]));
    assert_eq!(
        (code, err.as_str()),
        (1, "ringway: `admin.bind` is \"off\" in the configuration\n")
    );
    let (code, _, err) = told(&gateway.command(&["status", "--config", "no-such.toml"]));
    assert_eq!(code, 1);
    assert!(err.contains("no-such.toml does not tell where the gateway is"), "{err}");
}

#[test]
fn nobody_answers() {
    let gateway = Gateway::start(&format!("{OK}[admin]\nbind = \"off\"\n"));
    let missing = gateway.dir().join("missing.sock");
    let missing = missing.to_str().unwrap();
    for command in [
        &["status"][..],
        &["reload"],
        &["drain"],
        &["drain", "a", "b"],
        &["endpoint", "a", "b", "up"],
        &["log"],
        &["diff"],
    ] {
        let all = [command, &["--admin", missing]].concat();
        let (code, out, err) = told(&gateway.command(&all));
        let expected = if command == ["diff"] { 2 } else { 1 };
        assert_eq!((code, out.as_str()), (expected, ""), "{command:?}: {err}");
        assert!(err.starts_with("ringway: no gateway answers. Tried:"), "{err}");
        assert!(err.contains(missing) && err.contains("--config"), "{err}");
    }
    // A socket on which nobody accepts any more.
    drop(std::os::unix::net::UnixListener::bind(missing).unwrap());
    let (code, _, err) = told(&gateway.command(&["status", "--admin", missing]));
    assert!(code == 1 && err.contains("refused"), "{err}");
}

#[test]
fn endpoint_and_drain_say_what_is_now() {
    let up = Upstream::ok();
    let gateway = Gateway::before(up.address(), "");
    let at = up.address().to_string();
    for (arguments, expected) in [
        (&["endpoint", "app", &at, "down"][..], "down, weight 1"),
        (&["endpoint", "app", &at, "--weight", "7"], "down, weight 7 (configured: 1)"),
        (&["drain", "app", &at], "drain, weight 7 (configured: 1)"),
        (&["endpoint", "app", &at, "up", "--weight", "1"], "up, weight 1"),
        (&["endpoint", "app", &at, "drain"], "drain, weight 1"),
        (&["endpoint", "app", &at, "configured"], "up, weight 1"),
    ] {
        assert_eq!(run(&gateway, arguments), format!("{at} of app: {expected}\n"));
    }
    let (code, _, err) = told(&gateway.command(&["endpoint", "app", "127.0.0.1:9", "down"]));
    assert_eq!(code, 1);
    assert_eq!(
        err,
        format!("ringway: the upstream `app` has no endpoint `127.0.0.1:9`; it has {at}\n")
    );
    for wrong in [
        &["endpoint", "app", &at][..],
        &["endpoint", "app", &at, "sideways"],
        &["endpoint", "app", &at, "up", "--weight", "0"],
        &["endpoint", "app", &at, "configured", "--weight", "3"],
        &["drain", "app"],
    ] {
        let (code, out, err) = told(&gateway.command(wrong));
        assert_eq!((code, out.as_str()), (2, ""), "{wrong:?}: {err}");
    }
}

#[test]
fn drain_ends_the_gateway() {
    let gateway = Gateway::start(OK);
    let out = run(&gateway, &["drain"]);
    assert_eq!(out, "draining: the gateway ends when what runs is finished\n");
    assert!(gateway.wait_exit().success());
}

#[test]
fn log_tells_and_sets_the_level() {
    let gateway = Gateway::start(OK);
    assert_eq!(run(&gateway, &["log"]), "info\n");
    assert_eq!(run(&gateway, &["log", "debug"]), "debug\n");
    assert_eq!(run(&gateway, &["log"]), "debug\n");
    let (code, _, err) = told(&gateway.command(&["log", "loud"]));
    assert_eq!(code, 1);
    assert!(err.contains("write error, warn, info"), "{err}");
}

#[test]
fn diff_with_the_running_gateway_and_with_a_file() {
    let gateway = Gateway::start(OK);
    let out = run(&gateway, &["diff"]);
    assert_eq!(out, "ringway.toml would change nothing in the running gateway\n");
    gateway.write(
        "[[routes]]\nname = \"ok\"\nrespond = { body = \"other\" }\n[limits]\nbody = \"1MiB\"\n",
    );
    let expected = "\nroutes\n~ ok\n    respond.body  \"ok\" -> \"other\"\n    \
        max_body      \"1GiB\" -> \"1MiB\"\n\n[limits]\n  body  \"1GiB\" -> \"1MiB\"\n";
    let (code, out, err) = told(&gateway.command(&["diff"]));
    assert_eq!((code, err.as_str()), (1, ""));
    assert_eq!(out, format!("--- the running gateway\n+++ ringway.toml\n{expected}"));
    // Once it is in force there is none.
    run(&gateway, &["reload"]);
    assert_eq!(told(&gateway.command(&["diff"])).0, 0);
    std::fs::copy(gateway.dir().join("ringway.toml"), gateway.dir().join("same.toml")).unwrap();
    let out = run(&gateway, &["diff", "same.toml", "--with", "ringway.toml"]);
    assert_eq!(out, "same.toml would change nothing in ringway.toml\n");
    // With errors, on either side, nothing can be told.
    gateway.write("[[routes]]\nrespnd = {}\n");
    for arguments in [&["diff"][..], &["diff", "same.toml", "--with", "ringway.toml"]] {
        let (code, out, err) = told(&gateway.command(arguments));
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.contains("unknown key `respnd`"), "{err}");
    }
}
