//! As a service: what systemd is told, the watchdog, sockets that systemd opens, the unit files.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use crate::harness::{Client, Gateway, Launch, eventually};

const OK: &str = "[[routes]]\nrespond = { body = \"ok\" }\n";

fn start(launch: Launch) -> Gateway {
    launch.start().unwrap_or_else(|failed| panic!("{failed:?}"))
}

/// Stands in for systemd: keeps every message it gets.
struct ServiceManager {
    socket: UnixDatagram,
    messages: Mutex<Vec<String>>,
    dir: tempfile::TempDir,
}

impl ServiceManager {
    fn new() -> ServiceManager {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        ServiceManager { socket, messages: Mutex::default(), dir }
    }

    fn env(&self) -> (&'static str, String) {
        ("NOTIFY_SOCKET", self.dir.path().join("notify").display().to_string())
    }

    /// Everything so far.
    fn messages(&self) -> Vec<String> {
        let mut messages = self.messages.lock().unwrap();
        let mut buf = [0; 4096];
        while let Ok(n) = self.socket.recv(&mut buf) {
            messages.push(String::from_utf8(buf[..n].to_vec()).unwrap());
        }
        messages.clone()
    }

    /// Waits for a message with this line after the first `seen`; answers it.
    #[track_caller]
    fn expect(&self, line: &str, seen: usize) -> String {
        let find = || {
            let messages = self.messages();
            let rest = messages.get(seen..).unwrap_or_default();
            rest.iter().find(|message| message.lines().any(|other| other == line)).cloned()
        };
        eventually(&format!("{line} of {:?}", self.messages()), || find().is_some());
        find().unwrap()
    }

    fn count(&self, line: &str) -> usize {
        self.messages().iter().filter(|m| m.lines().any(|other| other == line)).count()
    }
}

#[test]
fn systemd_is_told_what_happens() {
    let systemd = ServiceManager::new();
    let gateway = start(Launch { toml: OK.into(), env: vec![systemd.env()], ..Launch::default() });
    let ready = systemd.expect("READY=1", 0);
    assert!(!ready.contains("MAINPID"), "{ready}");

    let seen = systemd.messages().len();
    assert!(gateway.reload(OK));
    let reloading = systemd.expect("RELOADING=1", seen);
    let at = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(at.parse::<u64>().unwrap() > 0);
    assert!(systemd.expect("READY=1", seen).contains("STATUS=serving generation 2"));

    let seen = systemd.messages().len();
    assert!(!gateway.reload("nonsense"));
    systemd.expect("RELOADING=1", seen);
    let refused = systemd.expect("READY=1", seen);
    assert!(refused.contains("STATUS=reload refused, serving generation 2"), "{refused}");

    // The new process speaks for the service, the old one no more.
    let (seen, first) = (systemd.messages().len(), gateway.pid());
    gateway.write(OK);
    assert!(gateway.upgrade(), "{}", gateway.log());
    let ready = systemd.expect(&format!("MAINPID={}", gateway.pid()), seen);
    assert!(ready.contains("READY=1"), "{ready}");
    gateway.wait_gone(first);
    assert_eq!(systemd.count("STOPPING=1"), 0);

    gateway.sigterm();
    systemd.expect("STOPPING=1", seen);
    gateway.wait_gone(gateway.pid());
}

#[test]
fn the_watchdog_is_fed_only_while_every_worker_makes_progress() {
    let systemd = ServiceManager::new();
    let gateway = start(Launch {
        toml: format!("[runtime]\nworkers = 2\nstuck_after = \"500ms\"\n{OK}"),
        env: vec![
            systemd.env(),
            ("WATCHDOG_USEC", "1000000".into()),
            ("RINGWAY_DRILL_STALL_PATH", "/stall/".into()),
        ],
        ..Launch::default()
    });
    let fed = || systemd.count("WATCHDOG=1");
    eventually("food", || fed() >= 3);
    let mut busy = gateway.client();
    busy.send("GET /stall/2500 HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    gateway.wait_for_log("makes no progress");
    let before = fed();
    assert_eq!(busy.response().text(), "ok");
    assert!(fed() <= before + 1, "{before} and {}", fed());
    assert!(systemd.messages().iter().any(|m| m.contains("STATUS=worker-")), "it says who");
    gateway.wait_for_log("goes on");
    eventually("food again", || fed() >= before + 3);
}

/// Started as systemd starts a service with these sockets.
fn activated(toml: &str, socket: impl Into<OwnedFd>, name: &str) -> Gateway {
    start(Launch {
        toml: toml.to_owned(),
        stdin: Some(socket.into()),
        env: vec![("LISTEN_FDS", "1".into()), ("LISTEN_FDNAMES", name.into())],
        shell: Some("export LISTEN_PID=$$; exec \"$@\" 3<&0 </dev/null"),
        ..Launch::default()
    })
}

#[test]
fn a_socket_of_systemd_is_used_by_every_worker_and_outlives_the_service() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listener = |name: &str, bind: &str| {
        format!(
            "[runtime]\nworkers = 3\n[shutdown]\ndrain_idle = \"0ms\"\n\
             [[listeners]]\nname = \"{name}\"\nbind = \"{bind}\"\n{OK}"
        )
    };
    // By address, and by name.
    for toml in [listener("main", &address.to_string()), listener("web", "127.0.0.1:0")] {
        let gateway = activated(&toml, socket.try_clone().unwrap(), "web");
        assert_eq!(gateway.address(), address);
        assert_eq!(gateway.listening_sockets().len(), 1);
        for _ in 0..20 {
            assert_eq!(Client::connect(address).get("/").text(), "ok");
        }
        // Through an upgrade, too.
        let first = gateway.pid();
        assert!(gateway.upgrade(), "{}", gateway.log());
        gateway.wait_gone(first);
        assert_eq!(Client::connect(address).get("/").text(), "ok");
        gateway.sigterm();
        gateway.wait_gone(gateway.pid());
        // Nobody serves, but nobody is refused either.
        let waiting = TcpStream::connect(address).expect("systemd holds the socket");
        waiting.set_nodelay(true).unwrap();
        let mut waiting = Client::over(crate::harness::Socket::Tcp(waiting));
        waiting.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        let next = activated(&toml, socket.try_clone().unwrap(), "web");
        assert_eq!(waiting.response().text(), "ok");
        next.sigterm();
        assert!(next.wait_exit().success());
    }
}

#[test]
fn a_reload_may_drop_and_take_back_a_socket_of_systemd() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let other = "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\n";
    let both = format!("{other}[[listeners]]\nbind = \"{address}\"\n{OK}");
    let gateway = activated(&both, socket, "unknown");
    for _ in 0..2 {
        assert_eq!(Client::connect(address).get("/").text(), "ok");
        assert!(gateway.reload(&format!("{other}{OK}")));
        let mut waiting = Client::connect(address);
        waiting.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        assert!(gateway.reload(&both), "{}", gateway.log());
        assert_eq!(waiting.response().text(), "ok");
    }
}

#[test]
fn a_unix_socket_of_systemd_keeps_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gw.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let toml = format!("[[listeners]]\nbind = \"unix:{}\"\n{OK}", path.display());
    let gateway = activated(&toml, socket.try_clone().unwrap(), "unknown");
    for _ in 0..10 {
        assert_eq!(Client::connect_unix(&path).get("/").text(), "ok");
    }
    gateway.sigterm();
    assert!(gateway.wait_exit().success());
    assert!(path.exists());
}

#[test]
fn a_socket_that_nobody_wants_is_named() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let gateway = activated(OK, socket, "stray");
    gateway.wait_for_log(&format!("no listener wants the socket {address}"));
    assert_eq!(gateway.client().get("/").text(), "ok");
}

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd")
}

/// The first number that `systemd-analyze --version` prints; `None` where it is not installed.
fn systemd_version() -> Option<u32> {
    let output = Command::new("systemd-analyze").arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.split_whitespace().nth(1)?.parse().ok()
}

/// As `systemd-analyze verify` sees them, with the built program in the place of the installed one.
fn verify(change: impl Fn(&str) -> String) -> Option<(bool, String)> {
    let version = systemd_version()?;
    let dir = tempfile::tempdir().unwrap();
    for name in ["ringway.service", "ringway.socket"] {
        let mut text = fs::read_to_string(units().join(name)).unwrap();
        text = text.replace("/usr/bin/ringway", env!("CARGO_BIN_EXE_ringway"));
        if version < 253 {
            text = text.replace("Type=notify-reload", "Type=notify");
        }
        fs::write(dir.path().join(name), change(&text)).unwrap();
    }
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").args(["ringway.service", "ringway.socket"]).current_dir(dir.path());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn the_unit_files_are_right() {
    let Some((is_good, said)) = verify(str::to_owned) else {
        eprintln!("systemd-analyze is not installed: the unit files are not verified");
        return;
    };
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("ringway")).collect();
    assert!(is_good && about_ours.is_empty(), "{said}");
    // It would have said so.
    let (_, said) = verify(|text| text.replace("WatchdogSec=30s", "WatchdogSec=often")).unwrap();
    assert!(said.contains("ringway.service") && said.contains("Failed to parse"), "{said}");
}

/// The service's time to stop is more than the gateway takes by default.
#[test]
fn the_unit_leaves_time_to_drain() {
    let text = fs::read_to_string(units().join("ringway.service")).unwrap();
    let seconds = text.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    let seconds: u64 = seconds.trim_end_matches('s').parse().unwrap();
    let reference = fs::read_to_string(units().join("../reference.toml")).unwrap();
    assert!(reference.contains("drain_timeout = \"30s\""), "the default");
    assert!(Duration::from_secs(seconds) > Duration::from_secs(30 + 2));
}
