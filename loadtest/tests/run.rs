//! The built program over real sockets: the generator against its own origin, and against nobody.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

/// An origin that ends with the test.
struct Origin {
    child: Child,
    address: String,
}

impl Origin {
    fn start(flags: &str) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["origin", "--listen", "127.0.0.1:0"])
            .args(flags.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| {
            panic!("origin {flags} said {line:?}");
        });
        Self { address: address.to_owned(), child }
    }

    /// What the generator reports of this origin.
    #[track_caller]
    fn load(&self, flags: &str) -> Value {
        let all = format!("load --target {} --warmup 0 --json - {flags}", self.address);
        report(&all)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn run(flags: &str) -> Output {
    Command::new(PROGRAM).args(flags.split_whitespace()).output().unwrap()
}

#[track_caller]
fn report(flags: &str) -> Value {
    let output = run(flags);
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| {
        panic!("{flags}: {text} {}", String::from_utf8_lossy(&output.stderr));
    })
}

#[track_caller]
fn assert_all_right(report: &Value, requests: u64) {
    let load = &report["load"];
    let failed: u64 =
        load["failures"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!((load["succeeded"].as_u64(), failed), (Some(requests), 0), "{report:#}");
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A chain and key for `localhost`, and the authority that issued it.
struct Certificates {
    _folder: tempfile::TempDir,
    authority: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Self {
            authority: write("authority.pem", authority.pem()),
            chain: write("chain.pem", leaf.pem()),
            key: write("key.pem", key.serialize_pem()),
            _folder: folder,
        }
    }

    fn origin(&self, flags: &str) -> Origin {
        let (chain, key) = (self.chain.display(), self.key.display());
        Origin::start(&format!("--tls {chain} {key} {flags}"))
    }

    fn trusted(&self) -> String {
        format!("--tls --ca {} --sni localhost", self.authority.display())
    }
}

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A server silent for 0.5 s in every 2.5: a fifth of the requests arrive in the silence and wait
/// from 0 to 0.5 s, so a tenth wait longer than 0.25 s, however many connections they wait on.
#[test]
fn an_open_loop_shows_a_stall() {
    let origin = Origin::start("--stall 500ms/2500ms --body 100");
    let cases = [
        "--connections 300",
        "--connections 8",
        "--connections 8 --threads 2",
        "--connections 300 --driver task",
        "--connections 8 --driver task",
    ];
    let run = |flags| origin.load(&format!("--rate 400 --duration 2.5 {flags}"));
    let reports: Vec<Value> = std::thread::scope(|scope| {
        let running: Vec<_> = cases.iter().map(|flags| scope.spawn(|| run(*flags))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (flags, report) in cases.iter().zip(reports) {
        let load = &report["load"];
        let latency_ns = histogram(load["latency_hdr_v2_base64"].as_str().unwrap());
        let all = number(&load["succeeded"]) + number(&load["late"]);
        assert_eq!(latency_ns.len() as f64, all);
        assert!((980.0..=1100.0).contains(&all), "{flags}: {report:#}");
        let slow = 1.0 - latency_ns.count_between(0, 250_000_000) as f64 / all;
        assert!((0.09..0.25).contains(&slow), "{flags}: {slow}");
        assert!(number(&load["over_100ms"]) / all > 0.15, "{flags}: {report:#}");
        let latency = &load["latency_us"];
        assert!((450e3..2000e3).contains(&number(&latency["p999"])), "{flags}: {latency}");
        assert!(number(&latency["p50"]) < 250e3, "{flags}: {latency}");
        // With 8 connections, 200 requests were due in the silence.
        let backlog = number(&report["backlog"]["max"]);
        let few = flags.contains(" 8");
        assert!(if few { backlog > 150.0 } else { backlog < 100.0 }, "{flags}: {backlog}");
        assert_eq!(report["backlog"]["unsent"], 0);
    }
}

fn histogram(text: &str) -> Histogram<u64> {
    let bytes = STANDARD.decode(text).unwrap();
    Deserializer::new().deserialize(&mut &bytes[..]).unwrap()
}

#[test]
fn a_closed_loop_says_that_it_cannot_show_a_stall() {
    let origin = Origin::start("--stall 500ms/2500ms --body 100");
    let flags = "--duration 2.5 --connections 4";
    let report = origin.load(flags);
    let load = &report["load"];
    assert!(number(&load["over_100ms"]) < 0.01 * number(&load["succeeded"]), "{report:#}");
    assert!(number(&load["latency_us"]["p99"]) < 100e3, "{report:#}");
    assert!(number(&load["latency_corrected_us"]["p99"]) > 100e3, "{report:#}");

    let output = run(&format!("load --target {} --warmup 0 {flags}", origin.address));
    let text = String::from_utf8(output.stdout).unwrap();
    let said = "closed loop: requests not sent while waiting are not in the percentiles";
    assert!(text.contains(said) && text.contains("corrected, ms:"), "{text}");
}

#[test]
fn a_mix_is_sent_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let mix = file(
        folder.path(),
        "mix.toml",
        "[[request]]\nweight = 3\npath = \"/bytes/70000\"\nexpect.checksum = \"origin\"\n\
         [[request]]\nmethod = \"POST\"\npath = \"/\"\nbody = \"0..40000\"\nexpect.length = 9\n\
         [[request]]\nmethod = \"HEAD\"\npath = \"/\"\nexpect.length = 0\n",
    );
    let origins = ["--body 9 --body-by-path", "--body 9 --body-by-path --chunked"];
    for (origin, driver) in origins.iter().flat_map(|o| [(o, "ring"), (o, "task")]) {
        let origin = Origin::start(origin);
        let flags = format!("--mix {} --requests 400 --driver {driver}", mix.display());
        let report = origin.load(&format!("{flags} --threads 2 --connections 5"));
        assert_all_right(&report, 400);
        assert_eq!(report["driver"], driver);
        let open = origin.load(&format!("{flags} --rate 2000"));
        assert_all_right(&open, 400);
    }
    let wrong = file(folder.path(), "wrong.toml", "[[request]]\npath = \"/\"\nthink = \"5\"\n");
    let output = run(&format!("load --target 127.0.0.1:1 --mix {}", wrong.display()));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(error.contains("wrong.toml:3:9: `5` is no duration"), "{error}");
}

#[test]
fn http2_in_clear_and_over_tls() {
    let clear = Origin::start("--http2 --body-by-path");
    let certificates = Certificates::new();
    let tls = certificates.origin("--http2 --body-by-path");
    let trusted = certificates.trusted();
    for (origin, tls) in [(&clear, ""), (&tls, trusted.as_str())] {
        let flags = format!("{tls} --http2 --path /bytes/100000 --checksum origin --requests 300");
        for more in [
            "--connections 2 --streams 10",
            "--new-connections",
            "--rate 1000 --post 70000",
            "--rate 1000 --connections 2 --streams 20 --threads 2",
        ] {
            let report = origin.load(&format!("{flags} {more}"));
            assert_all_right(&report, 300);
            assert_eq!(report["driver"], "task");
        }
    }
}

/// A server that says GOAWAY every ten requests loses none of them.
#[test]
fn http2_requests_survive_goaway() {
    let origin = Origin::start("--http2 --body 10 --close-after 10");
    let report = origin.load("--http2 --connections 3 --streams 4 --requests 500 --body 10");
    assert_all_right(&report, 500);
}

#[test]
fn tls_handshakes_are_full_or_resumed() {
    let certificates = Certificates::new();
    let origin = certificates.origin("--body 10");
    let trusted = certificates.trusted();
    for (flags, full, resumed) in [
        ("--resume on --new-connections", 4, 96),
        ("--resume on --new-connections --tls-version 1.2", 4, 96),
        ("--resume off --new-connections", 100, 0),
        ("--resume off --tls-group x25519 --tls-cipher aes-128-gcm", 4, 0),
        ("", 4, 0),
    ] {
        let common = "--connections 4 --requests 100 --body 10";
        let report = origin.load(&format!("{trusted} {common} {flags}"));
        assert_all_right(&report, 100);
        let tls = &report["tls"];
        assert_eq!((&tls["full"], &tls["resumed"]), (&json!(full), &json!(resumed)), "{flags}");
    }
    let insecure = origin.load("--tls --insecure --requests 10 --connections 1");
    assert_all_right(&insecure, 10);

    let other = Certificates::new();
    let report = origin.load(&format!("{} --requests 5 --rate 100", other.trusted()));
    assert_eq!(report["load"]["failures"]["tls"], 5, "{report:#}");
    let note = report["load"]["first_failures"]["tls"].as_str().unwrap();
    assert!(note.contains("invalid peer certificate"), "{note}");
    assert_eq!(report["load"]["lost"], 0);
}

#[test]
fn held_websockets_get_their_echoes() {
    let certificates = Certificates::new();
    let tls = certificates.origin("--websocket");
    let clear = Origin::start("--websocket");
    for (origin, tls) in [(&clear, String::new()), (&tls, certificates.trusted())] {
        let flags = "--websocket 20 --echo-every 100ms --duration 1 --open-rate 1000 --json -";
        let report = report(&format!("hold --target {} {tls} {flags}", origin.address));
        let held = &report["websocket"];
        assert_eq!((&held["opened"], &held["open_at_end"]), (&json!(20), &json!(20)), "{report:#}");
        assert_eq!((&held["wrong"], &held["closed_early"]), (&json!(0), &json!(0)));
        assert_eq!(held["sent"], held["received"]);
        // Eleven each, fewer when opening took long.
        let echoes = number(&held["received"]);
        assert!((60.0..=220.0).contains(&echoes), "{echoes} echoes: {report:#}");
    }
    // An origin that knows no WebSockets answers with 200.
    let plain = Origin::start("");
    let flags = "--websocket 3 --duration 0.1 --json -";
    let report = report(&format!("hold --target {} {flags}", plain.address));
    assert_eq!(
        (&report["websocket"]["opened"], &report["websocket"]["failures"]["status"]),
        (&json!(0), &json!(3)),
        "{report:#}"
    );
}

#[test]
fn held_event_streams_get_their_events() {
    let origin = Origin::start("--sse 20/s");
    let flags = "--sse 5 --duration 1 --open-rate 1000 --json -";
    let report = report(&format!("hold --target {} {flags}", origin.address));
    let held = &report["sse"];
    assert_eq!((&held["opened"], &held["open_at_end"]), (&json!(5), &json!(5)), "{report:#}");
    // One each 50 ms and some; timers tick in milliseconds.
    assert!((40.0..=100.0).contains(&number(&held["received"])), "{report:#}");
    assert!((45e3..200e3).contains(&number(&held["time_us"]["p50"])), "{report:#}");
}

#[test]
fn the_origin_delays_fails_and_closes_as_told() {
    let origin = Origin::start("--body 10 --delay 30ms --jitter 10ms --close-after 3 --errors 20%");
    for driver in ["ring", "task"] {
        let report =
            origin.load(&format!("--driver {driver} --requests 300 --connections 20 --body 10"));
        let load = &report["load"];
        let (right, failed) = (number(&load["succeeded"]), number(&load["failures"]["status"]));
        assert_eq!(right + failed, 300.0, "{report:#}");
        assert!((30.0..100.0).contains(&failed), "{report:#}");
        assert_eq!(load["wrong_statuses"], json!({"503": failed as u64}));
        assert!(number(&load["latency_us"]["min"]) >= 20e3, "{report:#}");
        assert_eq!((&load["lost"], &load["idle_closed"]), (&load["failures"]["status"], &json!(0)));
    }
}

#[test]
fn steps_are_reported_one_by_one_and_logged() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.hlog");
    let origin = Origin::start("--body 10");
    let flags = "--steps 200x0.5,400x0.5 --interval 0.25 --progress";
    let all = format!("load --target {} --warmup 0.5 --json - {flags}", origin.address);
    let output = run(&format!("{all} --hdr-log {}", log.display()));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps: Vec<f64> =
        report["steps"].as_array().unwrap().iter().map(|s| number(&s["succeeded"])).collect();
    // A busy machine answers some of the first step's requests in the second.
    assert!(steps[0] > 0.0 && steps[0] < 110.0 && steps[1] > 180.0, "{steps:?}");
    let intervals = report["intervals"].as_array().unwrap();
    // One more for responses after the window, if there were any.
    let tail = intervals.get(4).map_or(0, |_| 1);
    assert!(intervals.len() == 4 + tail, "{report:#}");
    assert_eq!((&intervals[0]["rate"], &intervals[3]["rate"]), (&json!(200.0), &json!(400.0)));
    let progress = String::from_utf8(output.stderr).unwrap();
    assert_eq!(progress.lines().count(), 4, "{progress}");
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.contains("#[StartTime: "), "{text}");
    assert_eq!(text.lines().filter(|l| l.contains("HISTFAAA")).count(), 4 + tail, "{text}");
}

#[test]
fn impossible_flags_are_refused_with_the_way_out() {
    for (flags, said) in [
        ("load --target x", "write IP:PORT"),
        ("load --target 127.0.0.1:1 --tls", "--tls needs --ca FILE, or --insecure"),
        ("load --target 127.0.0.1:1 --tls --insecure --tls-group x", "there are x25519"),
        ("load --target 127.0.0.1:1 --tls --insecure --tls-cipher des", "there are aes-128-gcm"),
        ("load --target 127.0.0.1:1 --http2 --driver ring", "--driver ring speaks cleartext"),
        ("load --target 127.0.0.1:1 --rate 0", "is no rate"),
        ("load --target 127.0.0.1:1 --rate 5 --think 5ms", "think times belong to the closed loop"),
        ("load --target 127.0.0.1:1 --threads 2 --connections 1", "raise --connections"),
        ("load --target 127.0.0.1:1 --header host:a", "is written by the generator"),
        ("load --target 127.0.0.1:1 --checksum origin", "needs to know the length"),
        ("load --target 127.0.0.1:1 --watch 4000000000", "cannot watch process"),
        ("load --target 127.0.0.1:1 --pin 4000", "core 4000 does not exist"),
        ("hold --target 127.0.0.1:1", "nothing to hold"),
        ("origin --listen 127.0.0.1:0 --tls /none /none", "/none: no certificates in PEM"),
    ] {
        let output = run(flags);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(said), "{flags}: {error}");
    }
}
