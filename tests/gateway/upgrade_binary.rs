//! Another binary takes over: the listening sockets stay, nothing that runs or waits is lost, and
//! one that cannot start changes nothing.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::harness::{
    Client, Gateway, Launch, Over, Pattern, Server, Socket, Upstream, eventually,
};

const OK: &str = "[[routes]]\nrespond = { body = \"ok\" }\n";

fn start(launch: Launch) -> Gateway {
    launch.start().unwrap_or_else(|failed| panic!("{failed:?}"))
}

/// A copy of the program in a folder of its own, which can be replaced while it runs.
struct Installed {
    dir: tempfile::TempDir,
}

impl Installed {
    fn new() -> Installed {
        let installed = Installed { dir: tempfile::tempdir().unwrap() };
        installed.install_built();
        installed
    }

    fn install_built(&self) {
        self.install(|path| {
            fs::copy(env!("CARGO_BIN_EXE_ringway"), path).unwrap();
        });
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ringway")
    }

    /// Replaces the file as package managers do: by a new one of the same name.
    fn install(&self, write: impl FnOnce(&PathBuf)) {
        let new = self.dir.path().join("new");
        write(&new);
        fs::rename(new, self.path()).unwrap();
    }

    fn install_script(&self, text: &str) {
        self.install(|path| {
            fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        });
    }
}

/// Requests without pause until `done`, each on the connection of the last one or on a new one.
fn requests(address: SocketAddr, kept: bool, done: &AtomicBool, served: &AtomicUsize) {
    let connect = || {
        let stream = TcpStream::connect(address).expect("somebody listens all the time");
        stream.set_nodelay(true).unwrap();
        Client::over(Socket::Tcp(stream))
    };
    let mut client = connect();
    while !done.load(Ordering::SeqCst) {
        let response = client.get("/x");
        assert_eq!(response.text(), "GET /x");
        served.fetch_add(1, Ordering::SeqCst);
        if !kept || response.field("connection") == Some("close") {
            client = connect();
        }
    }
}

#[test]
fn upgrades_under_load_lose_nothing() {
    let (up, server, tunnel) = (Upstream::ok(), Server::start(), super::upgrade::echo(""));
    let gateway = Gateway::start(&format!(
        "[shutdown]\ndrain_timeout = \"10m\"\ndrain_idle = \"200ms\"\n\
         [[routes]]\nupstream = \"app\"\n\
         [[routes]]\npath = \"/chat\"\nupstream = \"tunnel\"\n\
         [[routes]]\npath = \"/bytes\"\nupstream = \"files\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n[upstreams.tunnel]\nendpoints = [\"{}\"]\n\
         [upstreams.files]\nendpoints = [\"{}\"]\n",
        up.address(),
        tunnel.address(),
        server.address()
    ));
    let (address, first) = (gateway.address(), gateway.pid());
    let mut talking = Client::connect(address);
    super::upgrade::switch(&mut talking);
    let (mut slow, size) = (Client::connect(address), 20_000_000);
    slow.send(format!("GET /bytes/{size} HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
    slow.head();
    let (mut pattern, mut out, mut back) =
        (Pattern::default(), Pattern::default(), Pattern::default());
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for kept in [true, true, false, false] {
            let (done, served) = (&done, &served);
            scope.spawn(move || requests(address, kept, done, served));
        }
        let _over = Over(&done);
        for _ in 0..3 {
            let before = served.load(Ordering::SeqCst);
            eventually("requests", || served.load(Ordering::SeqCst) > before + 20);
            let old = gateway.pid();
            assert!(gateway.upgrade(), "{}", gateway.log());
            assert_ne!(gateway.pid(), old);
            pattern.check(&slow.reader.exactly(size / 10).unwrap());
            talking.send(out.take(1000));
            back.check(&talking.reader.exactly(1000).unwrap());
        }
        let before = served.load(Ordering::SeqCst);
        eventually("requests", || served.load(Ordering::SeqCst) > before + 20);
    });
    // The first process lives for its tunnel and its download only.
    pattern.check(&slow.reader.exactly(size - 3 * size / 10).unwrap());
    talking.send(out.take(1000));
    back.check(&talking.reader.exactly(1000).unwrap());
    assert!(gateway.is_running());
    drop((talking, slow));
    gateway.wait_gone(first);
    assert!(gateway.wait_exit().success());
    assert_eq!(Client::connect(address).get("/x").status, 200);
    gateway.sigterm();
    gateway.wait_gone(gateway.pid());
    assert!(TcpStream::connect(address).is_err(), "the last one closes the sockets");
}

#[test]
fn what_waits_to_be_accepted_is_served_by_the_new_process() {
    let gateway = start(Launch {
        toml: format!("[runtime]\nworkers = 1\n{OK}"),
        env: vec![("RINGWAY_DRILL_STALL_PATH", "/stall/".into())],
        ..Launch::default()
    });
    let mut busy = gateway.client();
    busy.send("GET /stall/4000 HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    gateway.wait_for_log("makes no progress");
    let mut waiting: Vec<Client> = (0..50).map(|_| gateway.client()).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    }
    assert!(gateway.upgrade(), "{}", gateway.log());
    for client in &mut waiting {
        assert_eq!(client.response().text(), "ok");
    }
    assert!(!gateway.log().contains("goes on"), "the new process served them");
    assert_eq!(busy.response().text(), "ok");
}

#[test]
fn a_process_that_cannot_start_changes_nothing() {
    let installed = Installed::new();
    let toml = format!("[shutdown]\nupgrade_timeout = \"500ms\"\n{OK}");
    let program = Some(installed.path());
    let gateway = start(Launch { toml: toml.clone(), program, ..Launch::default() });
    let (mut kept, pid) = (gateway.client(), gateway.pid());
    assert_eq!(kept.get("/").text(), "ok");
    for (script, reason) in [
        ("exit 3", "exit status: 3"),
        ("kill -9 $$", "signal: 9"),
        ("exec sleep 60", "was not ready within 500ms"),
        ("exec sleep 60 <&-", "was not ready within 500ms"),
    ] {
        installed.install_script(script);
        assert!(!gateway.upgrade(), "{script}");
        assert!(gateway.log().contains(reason), "{reason}: {}", gateway.log());
        assert_eq!((kept.get("/").text(), gateway.client().get("/").text()), ok_twice());
    }
    installed.install(|path| fs::write(path, "no program").unwrap());
    assert!(!gateway.upgrade());
    assert!(gateway.log().contains("cannot start"), "{}", gateway.log());

    // The right program, with a configuration that it cannot use, and time to say so.
    installed.install_built();
    assert!(gateway.reload(OK), "{}", gateway.log());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (bad, reason) in [
        ("[[routes]]\nupstraem = \"x\"\n".to_owned(), "its configuration has errors"),
        (format!("{OK}[[listeners]]\nbind = \"{}\"\n", taken.local_addr().unwrap()), "in use"),
    ] {
        gateway.write(&bad);
        assert!(!gateway.upgrade());
        assert!(gateway.log().contains(reason), "{reason}: {}", gateway.log());
        assert_eq!((kept.get("/").text(), gateway.client().get("/").text()), ok_twice());
    }
    assert_eq!(gateway.pid(), pid);
    gateway.write(&toml);
    assert!(gateway.upgrade(), "{}", gateway.log());
    assert_eq!(gateway.client().get("/").text(), "ok");
}

fn ok_twice() -> (String, String) {
    ("ok".into(), "ok".into())
}

#[test]
fn a_unix_socket_stays_where_it_is() {
    let up = Upstream::ok();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gw.sock");
    let unix = format!("[[listeners]]\nbind = \"unix:{}\"\n", path.display());
    let toml = |listeners: &str| {
        format!(
            "{listeners}[[routes]]\nupstream = \"app\"\n[upstreams.app]\nendpoints = [\"{}\"]\n",
            up.address()
        )
    };
    let gateway = Gateway::start(&toml(&unix));
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    let (before, mut kept) = (inode(), Client::connect_unix(&path));
    assert_eq!(kept.get("/").status, 200);
    let first = gateway.pid();
    assert!(gateway.upgrade());
    assert_eq!(Client::connect_unix(&path).get("/").status, 200);
    eventually("both drain", || gateway.log().matches("accepting no more").count() == 2);
    let last = kept.get("/");
    assert_eq!((last.status, last.field("connection")), (200, Some("close")));
    gateway.wait_gone(first);
    assert_eq!(inode(), before, "the path is still the same socket");
    assert_eq!(Client::connect_unix(&path).get("/").status, 200);
    gateway.sigterm();
    gateway.wait_gone(gateway.pid());
    assert!(!path.exists(), "the last one removes it");
}

#[test]
fn listeners_may_come_and_go_with_it() {
    let listener =
        |name: &str| format!("[[listeners]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\n");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.sock");
    let unix = format!("[[listeners]]\nbind = \"unix:{}\"\n", path.display());
    let gateway = Gateway::start(&[&*listener("one"), &listener("two"), &unix, OK].concat());
    let (one, two) = (gateway.address_of("one"), gateway.address_of("two"));
    let mut kept = Client::connect(two);
    assert_eq!(kept.get("/").text(), "ok");
    gateway.write(&[&*listener("one"), &listener("three"), OK].concat());
    let first = gateway.pid();
    assert!(gateway.upgrade(), "{}", gateway.log());
    assert_eq!(gateway.address_of("one"), one);
    for listener in ["one", "three"] {
        assert_eq!(Client::connect(gateway.address_of(listener)).get("/").text(), "ok");
    }
    assert_eq!(kept.get("/").text(), "ok", "the old process finishes what it has");
    gateway.wait_gone(first);
    assert!(TcpStream::connect(two).is_err() && !path.exists());
}

#[test]
fn the_number_of_workers_may_change() {
    let up = Upstream::ok();
    let toml = |workers: usize| {
        format!(
            "[runtime]\nworkers = {workers}\n[shutdown]\ndrain_idle = \"500ms\"\n\
             [[routes]]\nupstream = \"app\"\n[upstreams.app]\nendpoints = [\"{}\"]\n",
            up.address()
        )
    };
    let gateway = Gateway::start(&toml(2));
    let address = gateway.address();
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (done, served) = (&done, &served);
        for _ in 0..2 {
            scope.spawn(|| requests(address, false, done, served));
        }
        let _over = Over(done);
        for (workers, sockets) in [(1, 2), (4, 4), (3, 4)] {
            gateway.write(&toml(workers));
            let old = gateway.pid();
            assert!(gateway.upgrade(), "{}", gateway.log());
            gateway.wait_gone(old);
            assert_eq!(gateway.listening_sockets().len(), sockets, "none is closed");
            let before = served.load(Ordering::SeqCst);
            eventually("requests", || served.load(Ordering::SeqCst) > before + 50);
        }
    });
}

/// The mode of a socket belongs to both processes, and the drivers want different ones.
#[test]
fn the_driver_may_change() {
    let toml = |io: &str| {
        format!(
            "[runtime]\nworkers = 2\nio = \"{io}\"\n[shutdown]\ndrain_timeout = \"1s\"\n\
             [[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\n{OK}"
        )
    };
    let first = Launch { toml: toml("io_uring"), own_io: true, ..Launch::default() };
    // A machine that refuses io_uring has but one driver.
    let Ok(gateway) = first.start() else { return };
    let address = gateway.address();
    for io in ["epoll", "io_uring", "io_uring", "epoll"] {
        fs::write(gateway.dir().join("ringway.toml"), toml(io)).unwrap();
        let old = gateway.pid();
        assert!(gateway.upgrade(), "{}", gateway.log());
        for _ in 0..20 {
            assert_eq!(Client::connect(address).get("/").text(), "ok", "{io}");
        }
        gateway.wait_gone(old);
        for _ in 0..20 {
            assert_eq!(Client::connect(address).get("/").text(), "ok", "{io}");
        }
    }
}

#[test]
fn one_at_a_time_and_reloads_wait() {
    let installed = Installed::new();
    let toml = |timeout: &str, body: &str| {
        format!(
            "[shutdown]\nupgrade_timeout = \"{timeout}\"\n\
             [[routes]]\nrespond = {{ body = \"{body}\" }}\n"
        )
    };
    let program = Some(installed.path());
    let gateway = start(Launch { toml: toml("2s", "one"), program, ..Launch::default() });
    installed.install_script("exec sleep 60");
    gateway.signal(Signal::SIGUSR2);
    gateway.wait_for_log("the new process starts");
    gateway.signal(Signal::SIGUSR2);
    gateway.wait_for_log("another one is under way");
    gateway.write(&toml("10m", "two"));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("the reload waits");
    assert_eq!(gateway.client().get("/").text(), "one");
    gateway.wait_for_log("was not ready within 2s");
    gateway.wait_for_log(" reloaded ");
    assert_eq!(gateway.client().get("/").text(), "two");

    // Told to end in the middle of an upgrade, it ends, and the new process does not stay.
    let starts = || gateway.log().matches("the new process starts").count();
    gateway.signal(Signal::SIGUSR2);
    eventually("another try", || starts() == 2);
    gateway.sigterm();
    assert!(gateway.wait_exit().success());
    let log = gateway.log();
    let line = log.lines().rfind(|line| line.contains("the new process starts")).unwrap();
    let pid = line.split_whitespace().find_map(|word| word.strip_prefix("pid=")).unwrap();
    gateway.wait_gone(pid.parse().unwrap());
}

#[test]
fn the_new_process_inherits_sockets_and_nothing_else() {
    let gateway = Gateway::start(&format!("[shutdown]\ndrain_idle = \"1m\"\n{OK}"));
    let fds = gateway.open_fds();
    let mut kept: Vec<Client> = (0..100).map(|_| gateway.client()).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "ok"));
    assert!(gateway.open_fds() >= fds + 100);
    let first = gateway.pid();
    assert!(gateway.upgrade());
    assert!(gateway.open_fds() <= fds + 2, "{} of {fds}", gateway.open_fds());
    // What the old process closes is closed, by each of its workers once it was told.
    eventually("both drain", || gateway.log().matches("accepting no more").count() == 2);
    for client in &mut kept {
        assert_eq!(client.get("/").field("connection"), Some("close"));
        client.expect_clean_close();
    }
    gateway.wait_gone(first);
}

/// A worker that is started again, and another process, go on with the same log.
#[test]
fn access_logs_have_every_request() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let gateway = start(Launch {
        toml: format!(
            "[runtime]\nworkers = 1\n[shutdown]\ndrain_idle = \"0ms\"\n{OK}\
             [[access_logs]]\nto = \"file:{}\"\nformat = {{ template = \"${{target}}\" }}\n",
            log.display()
        ),
        env: vec![("RINGWAY_DRILL_WORKER_PANIC_PATH", "/fatal".into())],
        ..Launch::default()
    });
    let mut asked = Vec::new();
    let mut ask = |path: &str| {
        assert_eq!(gateway.client().get(path).text(), "ok");
        asked.push(path.to_owned());
    };
    ["/a", "/b", "/fatal"].into_iter().for_each(&mut ask);
    gateway.wait_for_log("serves again");
    ["/c", "/d"].into_iter().for_each(&mut ask);
    let old = gateway.pid();
    assert!(gateway.upgrade(), "{}", gateway.log());
    gateway.wait_gone(old);
    ["/e", "/f"].into_iter().for_each(&mut ask);
    gateway.sigterm();
    gateway.wait_gone(gateway.pid());
    let lines = fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().collect::<Vec<_>>(), asked);
}

/// Asked by the command; the admin interface answers all the time, and knows when to say ready.
#[test]
fn the_admin_interface_goes_with_it() {
    let installed = Installed::new();
    let status = "[admin]\nstatus_bind = \"127.0.0.1:0\"\nstatus_hosts = [\"gw.test\"]\n";
    let toml = format!("{status}{OK}");
    let program = Some(installed.path());
    let gateway = start(Launch { toml, program, ..Launch::default() });
    let status_at = |gateway: &Gateway| -> SocketAddr {
        let log = gateway.log();
        let line = log.lines().rfind(|line| line.contains("status on http://")).unwrap();
        line.rsplit_once("//").unwrap().1.trim().parse().unwrap()
    };
    let address = status_at(&gateway);
    let (done, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                // The old process may say so when it has handed over, on connections it took.
                let status = Client::connect(address).get("/readyz").status;
                assert!(status == 200 || status == 503, "{status}");
                assert_eq!(gateway.admin().get("/livez").status, 200);
                answers.fetch_add(1, Ordering::SeqCst);
            }
        });
        let _over = Over(&done);
        for _ in 0..3 {
            let before = answers.load(Ordering::SeqCst);
            let old = gateway.pid();
            let output = gateway.command(&["upgrade"]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{output:?}");
            gateway.follow();
            assert!(said.contains(&format!("process {} serves", gateway.pid())), "{said}");
            gateway.wait_gone(old);
            assert_eq!(status_at(&gateway), address);
            assert_eq!(Client::connect(address).get("/readyz").status, 200);
            assert_eq!(gateway.admin().get("/readyz").status, 200);
            eventually("answers", || answers.load(Ordering::SeqCst) > before + 10);
        }
    });
    // It says why not, and the interface is still the old process's.
    installed.install_script("exit 7");
    let output = gateway.command(&["upgrade"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("exit status: 7"), "{output:?}");
    assert_eq!(gateway.admin().get("/readyz").status, 200);
    // Another configuration: no more status, and no admin interface at all.
    installed.install_built();
    let path = gateway.dir().join("admin.sock");
    assert!(path.exists());
    gateway.write(&format!("[admin]\nbind = \"off\"\n{OK}"));
    let old = gateway.pid();
    assert!(gateway.upgrade(), "{}", gateway.log());
    gateway.wait_gone(old);
    assert!(!path.exists() && TcpStream::connect(address).is_err());
}

#[test]
fn the_demo_has_nothing_to_hand_over() {
    let demo = start(Launch { demo: true, ..Launch::default() });
    assert!(!demo.upgrade());
    assert!(demo.log().contains("no configuration file"), "{}", demo.log());
    assert_eq!(demo.client().get("/fruit").status, 200);
}

/// A drain that is announced first: not ready, still serving.
#[test]
fn a_delay_before_the_drain_serves_on() {
    let gateway = Gateway::start(&format!("[shutdown]\nready_delay = \"10m\"\n{OK}"));
    let mut kept = gateway.client();
    assert_eq!(gateway.admin().get("/readyz").status, 200);
    gateway.sigterm();
    gateway.wait_for_log("not ready any more, still accepting");
    assert_eq!(gateway.admin().get("/readyz").status, 503);
    assert_eq!(gateway.admin().get("/livez").status, 200);
    for _ in 0..3 {
        assert_eq!(gateway.client().get("/").text(), "ok");
    }
    let response = kept.get("/");
    assert_eq!((response.text().as_str(), response.field("connection")), ("ok", None));
    assert!(!gateway.upgrade(), "not any more");
    // Impatient.
    gateway.sigterm();
    assert!(gateway.wait_exit().success());
}

#[test]
fn a_delay_before_the_drain_ends_by_itself() {
    let gateway = Gateway::start(&format!("[shutdown]\nready_delay = \"300ms\"\n{OK}"));
    let begun = std::time::Instant::now();
    gateway.sigterm();
    assert!(gateway.wait_exit().success());
    assert!(begun.elapsed() >= Duration::from_millis(300));
}
