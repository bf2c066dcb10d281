//! Access logs: what lines say, who gets one, and that every one is written or counted.

use std::{
    io::Read,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Client, Gateway, Launch, Over, Upstream, eventually};

/// Lines of one worker are in the order in which exchanges ended.
const ONE_WORKER: &str = "[runtime]\nworkers = 1\n";

const OK: &str = "[[routes]]\nname = \"ok\"\nrespond = { body = \"ok\" }\n";

/// A folder with a log in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The configuration of a log there, named like its file.
    fn log(&self, name: &str, more: &str) -> String {
        let to = self.path(name).display().to_string();
        format!("[[access_logs]]\nname = \"{name}\"\nto = \"file:{to}\"\n{more}\n")
    }
}

/// The lines of a file, all whole.
#[track_caller]
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "torn: {text:?}");
    text.lines().map(str::to_owned).collect()
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// Waits until a log has this many lines.
#[track_caller]
fn wait_for_lines(path: &Path, count: usize) -> Vec<String> {
    let count_now =
        || std::fs::read(path).unwrap_or_default().iter().filter(|b| **b == b'\n').count();
    eventually(&format!("{count} lines in {}", path.display()), || count_now() >= count);
    let found = lines(path);
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

#[track_caller]
fn wait_for_json(path: &Path, count: usize) -> Vec<Value> {
    wait_for_lines(path, count).iter().map(|line| json(line)).collect()
}

/// Ends the gateway and answers how many lines of a log were written and dropped.
#[track_caller]
fn end(gateway: &Gateway, name: &str) -> (u64, u64) {
    gateway.sigterm();
    assert!(gateway.wait_exit().success(), "{}", gateway.log());
    last_numbers(gateway, name)
}

/// What an ended gateway says of a log. The reader of its words may be behind.
#[track_caller]
fn last_numbers(gateway: &Gateway, name: &str) -> (u64, u64) {
    let words = format!("access log ended log=\"{name}\" ");
    let numbers = || -> Option<(u64, u64)> {
        let log = gateway.log();
        let line = log.split_once(&words)?.1.split_once('\n')?.0;
        let (written, dropped) = line.split_once(' ')?;
        let written = written.strip_prefix("written=")?.parse().ok()?;
        Some((written, dropped.strip_prefix("dropped=")?.parse().ok()?))
    };
    eventually("the log's last words", || numbers().is_some());
    numbers().unwrap()
}

/// Sends GETs over a few connections at once; every one is answered in time.
#[track_caller]
fn load(gateway: &Gateway, requests: usize) {
    const CLIENTS: usize = 4;
    let address = gateway.address();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut conn = Client::connect(address);
                for n in (client..requests).step_by(CLIENTS) {
                    let since = Instant::now();
                    assert_eq!(conn.get(&format!("/r/{n}")).status, 200);
                    assert!(since.elapsed() < Duration::from_secs(3), "the log holds a request up");
                }
            });
        }
    });
}

#[test]
fn json_says_what_became_of_a_request() {
    let folder = Folder::new();
    let upstream = Upstream::ok();
    let more = format!("{}{ONE_WORKER}", folder.log("log", ""));
    let gateway = Gateway::before(upstream.address(), &more);
    let mut client = gateway.client();
    client.send(
        "POST /a%20b?q=1 HTTP/1.1\r\nHost: api.test:81\r\nContent-Length: 5\r\n\
         X-Request-Id: mine-1\r\nuser-agent: te\\st\t\"x\"\r\nReferer: http://r/\r\n\r\nhello",
    );
    let response = client.response();
    assert_eq!(response.status, 200);
    client.get("/second");
    let found = wait_for_json(&folder.path("log"), 2);
    let (first, second) = (&found[0], &found[1]);
    for (key, expected) in [
        ("listener", "main"),
        ("client", "127.0.0.1"),
        ("request_id", "mine-1"),
        ("method", "POST"),
        ("host", "api.test:81"),
        ("target", "/a%20b?q=1"),
        ("protocol", "HTTP/1.1"),
        ("user_agent", "te\\st\t\"x\""),
        ("referer", "http://r/"),
        ("route", "/"),
        ("upstream", "app"),
        ("endpoint", &upstream.address().to_string()),
    ] {
        assert_eq!(first[key], expected, "{key}: {first}");
    }
    for (key, expected) in [
        ("status", 200),
        ("tries", 1),
        ("request_bytes", 5),
        ("response_bytes", response.body.len()),
        ("sent_bytes", response.head.raw.len() + response.body.len()),
    ] {
        assert_eq!(first[key], expected, "{key}: {first}");
    }
    for key in ["peer", "reason", "side", "first_line"] {
        assert!(first.get(key).is_none(), "{key}: {first}");
    }
    assert_eq!((&first["reused"], &second["reused"]), (&Value::from(false), &Value::from(true)));
    assert!(first["connect_us"].as_u64() > Some(0), "{found:#?}");
    assert!(second.get("connect_us").is_none(), "a kept connection: {found:#?}");
    for line in &found {
        let us = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key}: {line}"));
        let connect_us = line.get("connect_us").map_or(0, |_| us("connect_us"));
        let parts = us("overhead_us") + connect_us + us("first_byte_us") + us("transfer_us");
        assert!(us("first_byte_us") > 0 && parts <= us("duration_us") + 4, "{line}");
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
}

#[test]
fn each_format_and_destination() {
    let folder = Folder::new();
    let reader = UnixDatagram::bind(folder.path("socket")).unwrap();
    let syslog = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&format!(
        "{OK}{}[[access_logs]]\nto = \"unix:{}\"\nformat = {{ template = \"${{status}}|${{target}}\" }}\n\
         [[access_logs]]\nto = \"syslog:udp://{}\"\nformat = {{ template = \"${{route}}\" }}\n\
         [[access_logs]]\nto = \"stdout\"\nformat = {{ template = \"on stdout: ${{status}}\" }}\n",
        folder.log("log", "format = \"combined\""),
        folder.path("socket").display(),
        syslog.local_addr().unwrap(),
    ));
    gateway.client().get("/x");
    let line = wait_for_lines(&folder.path("log"), 1).remove(0);
    let (before, after) = line.split_once('[').unwrap();
    assert_eq!(before, "127.0.0.1 - - ");
    assert_eq!(after.split_once("] ").unwrap().1, "\"GET /x HTTP/1.1\" 200 2 \"-\" \"-\"");
    let mut room = [0; 512];
    let n = reader.recv(&mut room).unwrap();
    assert_eq!(&room[..n], b"200|/x");
    let n = syslog.recv(&mut room).unwrap();
    let text = String::from_utf8_lossy(&room[..n]).into_owned();
    assert!(text.starts_with("<190>1 20") && text.ends_with(" access - ok"), "{text}");
    gateway.wait_for_log("on stdout: 200");
}

#[test]
fn listeners_and_routes_can_be_left_out() {
    let folder = Folder::new();
    let gateway = Gateway::start(&format!(
        "[[routes]]\nname = \"health\"\npath = \"/health\"\nrespond = {{}}\naccess_log = false\n{OK}\
         [[listeners]]\nname = \"loud\"\nbind = \"127.0.0.1:0\"\n\
         [[listeners]]\nname = \"quiet\"\nbind = \"127.0.0.1:0\"\naccess_log = false\n{}",
        folder.log("log", "format = { template = \"${listener} ${target}\" }")
    ));
    let mut quiet = Client::connect(gateway.address_of("quiet"));
    let mut loud = Client::connect(gateway.address_of("loud"));
    assert_eq!(quiet.get("/health").status, 200);
    assert_eq!(quiet.get("/a").status, 200);
    quiet.send("nonsense\r\n\r\n");
    assert_eq!(quiet.response().status, 400);
    assert_eq!(loud.get("/health").status, 200);
    assert_eq!(loud.get("/b").status, 200);
    assert_eq!(end(&gateway, "log"), (1, 0));
    assert_eq!(lines(&folder.path("log")), ["loud /b"]);
}

#[test]
fn filters_and_samples() {
    let folder = Folder::new();
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            if request.target == "/slow" {
                std::thread::sleep(Duration::from_millis(250));
            }
            conn.answer(&request);
        }
    });
    let format = "format = { template = \"${status} ${target}\" }\n";
    let log = |name: &str, more: &str| folder.log(name, &format!("{format}{more}"));
    let logs = [
        log("errors", "status = [\"4xx\", \"503\"]"),
        log("slow", "slower_than = \"200ms\""),
        log("either", "slower_than = \"200ms\"\nstatus = [\"404\"]"),
        log("none", "sample = 0"),
        log("all", "sample = 1"),
        log("half", "sample = 0.5"),
    ];
    let gateway = Gateway::start(&format!(
        "{}[[routes]]\npath = \"/slow\"\nupstream = \"app\"\n[[routes]]\npath = \"/busy\"\n\
         respond = {{ status = 503 }}\n[[routes]]\npath = \"/fine\"\nrespond = {{}}\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        logs.concat(),
        upstream.address()
    ));
    let mut client = gateway.client();
    for path in ["/slow", "/busy", "/fine", "/nowhere"] {
        client.get(path);
    }
    for _ in 0..96 {
        client.get("/fine");
    }
    assert_eq!(end(&gateway, "all"), (100, 0));
    let found = |name: &str| lines(&folder.path(name));
    assert_eq!(found("errors"), ["503 /busy", "404 /nowhere"]);
    assert_eq!(found("slow"), ["200 /slow"]);
    assert_eq!(found("either"), ["200 /slow", "404 /nowhere"]);
    assert_eq!(found("none"), [""; 0]);
    assert_eq!(found("all").len(), 100);
    // Outside of this in one run of 10^13.
    assert!((14..=86).contains(&found("half").len()), "{}", found("half").len());
}

#[test]
fn what_is_refused_is_logged() {
    let folder = Folder::new();
    let gateway = Gateway::start(&format!(
        "[[routes]]\npath = \"/ok\"\nmethods = [\"POST\"]\nrespond = {{}}\n[timeouts]\nhead = \"200ms\"\n{ONE_WORKER}{}",
        folder.log("log", "")
    ));
    for (sent, status) in [
        ("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("GET /\x01\"x\" HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ("GET /half HTTP/1.1\r\nHo", 408),
    ] {
        let mut client = gateway.client();
        client.send(sent);
        assert_eq!(client.response().status, status, "{sent}");
    }
    // Nothing was asked.
    let mut silent = gateway.client();
    assert!(silent.is_closed());
    assert_eq!(end(&gateway, "log"), (6, 0));
    let found: Vec<Value> = lines(&folder.path("log")).iter().map(|line| json(line)).collect();
    let what: Vec<(u64, &str, &str, &str)> = found
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or("-");
            let asked = if line.get("target").is_some() { "target" } else { "first_line" };
            (line["status"].as_u64().unwrap(), text("side"), text("reason"), text(asked))
        })
        .collect();
    assert_eq!(
        what,
        [
            (404, "gateway", "route.not_found", "/nowhere"),
            (405, "gateway", "route.method", "/ok"),
            (400, "client", "head.bad_target", "GET /\u{1}\"x\" HTTP/1.1"),
            (400, "client", "host.duplicate", "GET / HTTP/1.1"),
            (400, "client", "framing.bad_chunk", "POST /ok HTTP/1.1"),
            (408, "client", "client.head_timeout", "GET /half HTTP/1.1"),
        ]
    );
    for line in &found {
        assert!(line["response_bytes"].as_u64() > Some(0), "{line}");
        assert!(line["request_id"].as_str().is_some_and(|id| id.len() == 32), "{line}");
    }
}

#[test]
fn who_ended_it_is_logged() {
    let folder = Folder::new();
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            match &*request.target {
                "/cut" => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
                    return;
                }
                "/junk" => {
                    conn.send("junk\r\n\r\n");
                    return;
                }
                _ => conn.until_closed(),
            }
        }
    });
    let more = format!(
        "[[listeners]]\nbind = \"127.0.0.1:0\"\nhalf_close = \"abort\"\n{ONE_WORKER}{}",
        folder.log("log", "")
    );
    let gateway = Gateway::before(upstream.address(), &more);
    let mut client = gateway.client();
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_response("GET").is_err());
    assert_eq!(gateway.client().get("/junk").status, 502);
    let mut client = gateway.client();
    client.send("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.wait_for_connections(3);
    client.reset();
    let found = wait_for_json(&folder.path("log"), 3);
    let what: Vec<_> = found
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or("-");
            (text("target"), line["status"].as_u64().unwrap(), text("side"), text("reason"))
        })
        .collect();
    assert_eq!(
        what,
        [
            ("/cut", 200, "upstream", "upstream.closed"),
            ("/junk", 502, "upstream", "upstream.invalid_response"),
            ("/waits", 499, "client", "client.aborted"),
        ]
    );
    assert_eq!((&found[0]["response_bytes"], &found[2]["sent_bytes"]), (&9.into(), &0.into()));
}

#[test]
fn a_tunnel_is_logged_at_its_end() {
    let folder = Folder::new();
    let upstream = Upstream::scripted(|conn| {
        conn.request().unwrap();
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        let heard = conn.reader.exactly(7).unwrap();
        conn.send([&heard[..], b"!!!"].concat());
        conn.until_closed();
    });
    let gateway = Gateway::before(upstream.address(), &folder.log("log", ""));
    let mut client = gateway.client();
    client.send("GET /t HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.head().start_line, "HTTP/1.1 101 Switching Protocols");
    client.send("through");
    assert_eq!(client.reader.exactly(10).unwrap(), b"through!!!");
    // Another exchange's line is there, the tunnel's is not.
    Client::connect(gateway.address()).get_from("a b", "/");
    let first = wait_for_json(&folder.path("log"), 1).remove(0);
    assert_eq!(first["status"], 400, "{first}");
    drop(client);
    let line = wait_for_json(&folder.path("log"), 2).remove(1);
    assert_eq!((&line["status"], &line["target"]), (&101.into(), &"/t".into()));
    assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&7.into(), &10.into()));
}

/// The client is the address that a trusted proxy vouches for.
#[test]
fn the_client_behind_a_proxy_is_logged() {
    let folder = Folder::new();
    let trusted = "[forwarding]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let gateway = Gateway::start(&format!("{OK}{trusted}{}", folder.log("log", "")));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 2001:db8::7\r\n\r\n");
    client.response();
    let line = wait_for_json(&folder.path("log"), 1).remove(0);
    assert_eq!((&line["client"], &line["peer"]), (&"2001:db8::7".into(), &"127.0.0.1".into()));
}

#[test]
fn rotation_under_load_loses_no_line() {
    let folder = Folder::new();
    let gateway = Gateway::start(&format!("{OK}{}", folder.log("log", "")));
    let (over, rotated) = (AtomicBool::new(false), AtomicUsize::new(0));
    const REQUESTS: usize = 4000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let n = rotated.load(Ordering::SeqCst);
                eventually("the log has lines", || {
                    over.load(Ordering::SeqCst) || !lines_len(&folder.path("log")).eq(&0)
                });
                std::fs::rename(folder.path("log"), folder.path(&format!("log.{n}"))).unwrap();
                gateway.signal(Signal::SIGUSR1);
                eventually("a new file", || folder.path("log").exists());
                rotated.store(n + 1, Ordering::SeqCst);
            }
        });
        let _over = Over(&over);
        load(&gateway, REQUESTS);
    });
    let rotated = rotated.load(Ordering::SeqCst);
    assert!(rotated > 1, "{rotated}");
    assert_eq!(end(&gateway, "log"), (REQUESTS as u64, 0));
    let names = (0..rotated).map(|n| format!("log.{n}")).chain(["log".to_owned()]);
    let mut targets: Vec<String> = names
        .flat_map(|name| lines(&folder.path(&name)))
        .map(|line| json(&line)["target"].as_str().unwrap().to_owned())
        .collect();
    targets.sort();
    targets.dedup();
    assert_eq!(targets.len(), REQUESTS);
}

fn lines_len(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let toml = format!("{OK}[[access_logs]]\nname = \"full\"\nto = \"file:/dev/full\"\n");
    let gateway = Gateway::start(&toml);
    load(&gateway, 2000);
    gateway.wait_for_log("No space left on device");
    assert_eq!(end(&gateway, "full"), (0, 2000));
    let said: u64 = gateway
        .log()
        .lines()
        .filter(|line| line.contains("lines of the access log were dropped"))
        .map(|line| {
            line.split_once("lines=").unwrap().1.split(' ').next().unwrap().parse::<u64>().unwrap()
        })
        .sum();
    assert_eq!(said, 2000, "{}", gateway.log());
}

/// The limit on file sizes stops a write in the middle, as a disk does that fills up.
#[test]
fn a_disk_that_fills_up_leaves_whole_lines_and_is_used_again() {
    let folder = Folder::new();
    let toml = format!("{OK}{}", folder.log("log", ""));
    let launch = Launch { toml, file_blocks_max: Some(101), ..Launch::default() };
    let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    load(&gateway, 1000);
    gateway.wait_for_log("lines of the access log were dropped");
    let before = lines(&folder.path("log"));
    assert!(lines_len(&folder.path("log")) > 50 * 512 && before.len() < 1000);
    before.iter().for_each(|line| drop(json(line)));
    // Room again, as after `logrotate` with copytruncate.
    std::fs::File::options().write(true).open(folder.path("log")).unwrap().set_len(0).unwrap();
    load(&gateway, 10);
    let (written, dropped) = end(&gateway, "log");
    assert_eq!(written + dropped, 1010);
    let after = lines(&folder.path("log"));
    after.iter().for_each(|line| drop(json(line)));
    assert_eq!((before.len() + after.len()) as u64, written);
    assert!(after.len() >= 10, "{}", after.len());
}

/// A reader that does not read: a FIFO, and a datagram socket.
#[test]
fn a_stopped_reader_costs_lines_and_nothing_else() {
    let folder = Folder::new();
    let (fifo, socket) = (folder.path("fifo"), folder.path("socket"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = UnixDatagram::bind(&socket).unwrap();
    let gateway = Gateway::start(&format!(
        "{OK}{}buffer = \"64KiB\"\n[[access_logs]]\nname = \"socket\"\nto = \"unix:{}\"\nbuffer = \"64KiB\"\n",
        folder.log("fifo", ""),
        socket.display()
    ));
    const REQUESTS: u64 = 3000;
    load(&gateway, REQUESTS as usize);
    gateway.wait_for_log("takes less than there is to log");
    // Open, so that what the FIFO holds stays there after the gateway's end.
    let mut held = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
    let (written, dropped) = end(&gateway, "fifo");
    assert_eq!(written + dropped, REQUESTS);
    assert!(dropped > 0 && written > 0, "{written} {dropped}");
    let mut room = vec![0; 1 << 20];
    let n = held.read(&mut room).unwrap();
    let whole = room[..n].iter().filter(|b| **b == b'\n').count() as u64;
    assert_eq!(whole, written);
    let (written, dropped) = last_numbers(&gateway, "socket");
    assert_eq!(written + dropped, REQUESTS);
    assert!(dropped > 0 && written > 0, "{written} {dropped}");
    reader.set_nonblocking(true).unwrap();
    let received = std::iter::from_fn(|| reader.recv(&mut room).ok()).count() as u64;
    assert_eq!(received, written);
}

#[test]
fn a_reader_that_is_not_there_yet() {
    let folder = Folder::new();
    let socket = folder.path("socket");
    let gateway = Gateway::start(&format!(
        "{OK}[[access_logs]]\nname = \"late\"\nto = \"unix:{}\"\nformat = {{ template = \"${{target}}\" }}\n",
        socket.display()
    ));
    load(&gateway, 10);
    gateway.wait_for_log("lines of the access log were dropped");
    let reader = UnixDatagram::bind(&socket).unwrap();
    reader.set_nonblocking(true).unwrap();
    let (mut sent, mut room) = (10, [0; 100]);
    eventually("lines come", || {
        gateway.client().get("/there");
        sent += 1;
        reader.recv(&mut room).is_ok_and(|n| &room[..n] == b"/there")
    });
    let (written, dropped) = end(&gateway, "late");
    assert!(written >= 1 && dropped >= 10);
    assert_eq!(written + dropped, sent);
}

#[test]
fn a_reload_adds_changes_and_removes_logs() {
    let folder = Folder::new();
    let with = |logs: &str| format!("{OK}{ONE_WORKER}{logs}");
    let template = |text: &str| format!("format = {{ template = \"{text} ${{target}}\" }}");
    let gateway = Gateway::start(&with(""));
    gateway.client().get("/before");
    let log = folder.log("log", &template("one"));
    assert!(gateway.reload(&with(&log)));
    gateway.client().get("/a");
    // Another format goes on in the same file.
    let changed = folder.log("log", &template("two"));
    assert!(gateway.reload(&with(&format!("{changed}{}", folder.log("new", &template("new"))))));
    gateway.client().get("/b");
    // The last lines of one that is removed are written.
    assert!(gateway.reload(&with(&folder.log("new", &template("new")))));
    gateway.client().get("/c");
    wait_for_lines(&folder.path("log"), 2);
    assert_eq!(end(&gateway, "new"), (2, 0));
    assert_eq!(lines(&folder.path("log")), ["one /a", "two /b"]);
    assert_eq!(lines(&folder.path("new")), ["new /b", "new /c"]);
}

#[test]
fn a_log_that_cannot_be_opened_refuses_the_reload() {
    let folder = Folder::new();
    let good = format!("{OK}{}", folder.log("log", ""));
    let gateway = Gateway::start(&good);
    assert!(!gateway.reload(&format!("{good}{}", folder.log("no/such/log", ""))));
    gateway.wait_for_log("does not exist");
    gateway.client().get("/");
    assert_eq!(end(&gateway, "log"), (1, 0));
    let toml = format!("{OK}{}", folder.log("no/such/log", ""));
    let failed = Launch { toml, ..Launch::default() }.start().err().expect("it cannot start");
    assert!(failed.stderr.contains("does not exist"), "{}", failed.stderr);
}
