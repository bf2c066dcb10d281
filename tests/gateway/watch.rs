//! Workers that stand still or end, and a control that stands still: who serves on, who says so.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use nix::{
    sys::{ptrace, signal::Signal, wait::WaitPidFlag},
    unistd::Pid,
};

use crate::harness::{Client, Gateway, Launch, PATIENCE, ReadError, Socket, Upstream, eventually};

/// One route by name for everything, and a worker that is soon called stuck.
const TOML: &str = "[runtime]\nworkers = 2\nstuck_after = \"500ms\"\n\
    [[routes]]\nname = \"greeting\"\nrespond = { body = \"ok\" }\n";

fn start(toml: &str) -> Gateway {
    let launch = Launch {
        toml: toml.to_owned(),
        env: vec![
            ("RINGWAY_DRILL_STALL_PATH", "/stall/".into()),
            ("RINGWAY_DRILL_WORKER_PANIC_PATH", "/fatal".into()),
            ("RINGWAY_DRILL_REFUSE_LISTENER", "refused".into()),
        ],
        ..Launch::default()
    };
    launch.start().unwrap_or_else(|failed| panic!("{failed:?}"))
}

fn stall(gateway: &Gateway, ms: u32) -> Client {
    let mut client = gateway.client();
    client.send(format!("GET /stall/{ms} HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
    client
}

/// A connection on another worker than the one that stands still: its request is answered at once.
fn served_elsewhere(address: SocketAddr) -> Client {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let stream = TcpStream::connect(address).unwrap();
        let mut client = Client::over(Socket::Tcp(stream)).patience(Duration::from_millis(200));
        client.send("GET /elsewhere HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        match client.try_response("GET") {
            Ok(response) => {
                assert_eq!(response.text(), "ok");
                return client.patience(PATIENCE);
            }
            Err(ReadError::Timeout) => {}
            Err(e) => panic!("{e:?}"),
        }
    }
    panic!("nobody serves");
}

fn line<'l>(log: &'l str, text: &str) -> &'l str {
    log.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{text} in {log}"))
}

#[test]
fn a_stuck_worker_is_reported_once_with_what_it_was_doing() {
    let gateway = start(TOML);
    let mut busy = stall(&gateway, 3000);
    gateway.wait_for_log("makes no progress");
    assert_eq!(gateway.admin().get("/readyz").status, 503);
    let mut other = served_elsewhere(gateway.address());
    for _ in 0..50 {
        assert_eq!(other.get("/").text(), "ok");
    }
    assert_eq!(busy.response().text(), "ok");
    eventually("every stuck one goes on", || {
        let log = gateway.log();
        log.matches("makes no progress").count() == log.matches("goes on").count()
    });
    assert_eq!(gateway.admin().get("/readyz").status, 200);
    let log = gateway.log();
    let report = line(&log, "serving a request on route \\\"greeting\\\"");
    assert!(report.contains("ERROR a worker makes no progress"), "{report}");
    assert!(report.contains("core=") && report.contains("running"), "{report}");
    // The machine may be so busy that the other one is starved of its core for a while.
    let worker = report.split_whitespace().find(|word| word.starts_with("worker=")).unwrap();
    let about = |text: &str| log.lines().filter(|l| l.contains(text) && l.contains(worker)).count();
    assert_eq!((about("makes no progress"), about("goes on")), (1, 1), "{log}");
}

#[test]
fn idle_workers_are_not_stuck() {
    let gateway = start(&TOML.replace("500ms", "2s"));
    std::thread::sleep(Duration::from_millis(2500));
    // Stopped as a whole, as by a debugger or a suspended machine.
    gateway.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(2500));
    gateway.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(1000));
    assert!(!gateway.log().contains("makes no progress"), "{}", gateway.log());
    assert_eq!(gateway.client().get("/").text(), "ok");
}

#[test]
fn a_reload_does_not_wait_for_ever_for_a_stuck_worker() {
    let gateway = start(TOML);
    let mut busy = stall(&gateway, 6000);
    gateway.wait_for_log("makes no progress");
    let mut other = served_elsewhere(gateway.address());
    let begun = Instant::now();
    assert!(gateway.reload(&TOML.replace("\"ok\"", "\"new\"")));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(other.get("/").text(), "new");
    let log = gateway.log();
    assert!(line(&log, "not every worker has").contains("worker-"), "{log}");
    // The stuck one adopts when it goes on.
    assert_eq!(busy.response().text(), "ok", "begun before the reload");
    gateway.wait_for_log("adopted at last");
    assert_eq!(busy.get("/").text(), "new");
    assert!(gateway.reload(TOML));
    assert_eq!(busy.get("/").text(), "ok");
    assert_eq!(gateway.log().matches("not every worker has").count(), 1);
}

/// Both workers end by a panic outside of any connection, one after the other.
#[test]
fn a_worker_that_panics_is_started_again() {
    let gateway = start(&format!("{TOML}[limits]\nconnections = 8\nconnections_per_worker = 8\n"));
    let address = gateway.address();
    for round in 1..=3 {
        let mut kept: Vec<Client> = (0..3).map(|_| gateway.client()).collect();
        kept.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "ok"));
        let mut last = gateway.client();
        assert_eq!(last.get("/fatal").text(), "ok");
        last.expect_closed();
        // Whoever comes meanwhile waits in the queue, and is served.
        let again = || gateway.log().matches("serves again").count();
        for _ in 0..4 {
            assert_eq!(Client::connect(address).get("/").text(), "ok");
        }
        eventually("the worker is back", || again() == round);
        drop(kept);
    }
    // No place was lost with the connections of the lost workers.
    eventually("all places are free", || {
        let mut all: Vec<Client> = (0..6).map(|_| gateway.client()).collect();
        all.iter_mut().all(|client| client.get("/").status == 200)
    });
    assert!(gateway.log().contains("a worker's panic was asked for"));
    assert!(gateway.reload(&TOML.replace("\"ok\"", "\"new\"")));
    assert_eq!(gateway.client().get("/").text(), "new");
    gateway.sigterm();
    assert!(gateway.wait_exit().success(), "{}", gateway.log());
}

#[test]
fn a_worker_that_panics_again_and_again_stays_down_and_the_others_serve() {
    let gateway = start(TOML);
    let ended = || gateway.log().matches("worker failed").count();
    let is_down = || gateway.log().contains("it stays down");
    let mut panics = 0;
    while !is_down() {
        let mut client = gateway.client();
        client.try_send("GET /fatal HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        let _ = client.try_response("GET");
        panics += 1;
        assert!(panics < 20, "{}", gateway.log());
        eventually("the worker ends", || ended() >= panics);
        let serves = || gateway.log().matches("serves again").count();
        eventually("and is back, or not", || serves() == panics || is_down());
    }
    assert!((6..=11).contains(&panics), "five times each: {panics}");
    // The kernel gives the one that is down nothing more.
    for _ in 0..40 {
        assert_eq!(gateway.client().get("/").text(), "ok");
    }
    assert_eq!(gateway.listening_sockets().len(), 1);
    assert!(gateway.reload(&TOML.replace("\"ok\"", "\"new\"")), "nobody waits for it");
    assert_eq!(gateway.client().get("/").text(), "new");
    assert!(gateway.upgrade(), "{}", gateway.log());
    assert_eq!(gateway.listening_sockets().len(), 2, "an upgrade mends it");
    assert!(!gateway.wait_exit().success(), "it says that something was wrong");
}

/// Its accept is still waiting in the kernel then, and takes the wake-up of the first client.
#[test]
fn a_worker_that_could_not_clean_up_costs_its_successor_no_client() {
    let launch = Launch {
        toml: TOML.replace("workers = 2", "workers = 1"),
        env: vec![
            ("RINGWAY_DRILL_WORKER_PANIC_PATH", "/fatal".into()),
            ("RINGWAY_DRILL_LAST_MOMENT_PANICS", "1".into()),
        ],
        ..Launch::default()
    };
    let gateway = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    assert_eq!(gateway.client().get("/fatal").text(), "ok");
    gateway.wait_for_log("serves again");
    let begun = Instant::now();
    assert_eq!(gateway.client().get("/").text(), "ok");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_listener_that_workers_cannot_accept_on_counts() {
    let gateway = start(TOML);
    let more = "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\n\
        [[listeners]]\nname = \"refused\"\nbind = \"127.0.0.1:0\"\n";
    gateway.write(&[TOML, more].concat());
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("not every new listener accepts");
    let log = gateway.log();
    let outcome = line(&log, "not every new listener accepts");
    assert!(outcome.contains("ERROR") && outcome.contains("refused: drill"), "{outcome}");
    assert!(!log.contains("INFO reloaded"), "{log}");
    assert_eq!(gateway.client().get("/").text(), "ok");
}

/// Holds one thread of another process still until it is dropped.
struct Held(Pid);

impl Held {
    fn new(thread: u32) -> Held {
        let thread = Pid::from_raw(thread as i32);
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        nix::sys::wait::waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Held(thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

/// The threads of the gateway that are not workers.
fn control_threads(gateway: &Gateway) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let of_control = |task: &std::path::PathBuf| {
        !std::fs::read_to_string(task.join("comm")).unwrap().starts_with("worker-")
    };
    tasks
        .filter(of_control)
        .map(|task| task.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn the_data_path_needs_no_control_thread() {
    let up = Upstream::ok();
    let gateway = Gateway::before(up.address(), "");
    let threads = control_threads(&gateway);
    assert!(threads.len() >= 3, "the main one, signals, watch: {threads:?}");
    let held: Vec<Held> = threads.into_iter().map(Held::new).collect();
    // Asked for while nobody hears it.
    gateway.write("[[routes]]\nrespond = { body = \"new\" }\n");
    gateway.signal(Signal::SIGHUP);
    let (begun, mut kept) = (Instant::now(), gateway.client());
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(kept.get("/x").text(), "GET /x");
        assert_eq!(gateway.client().get("/x").text(), "GET /x");
    }
    drop(held);
    eventually("the reload", || kept.get("/x").text() == "new");
    assert!(!gateway.log().contains("makes no progress"), "{}", gateway.log());
}

#[test]
fn an_upstream_that_is_stopped_holds_up_nobody_else() {
    let stopped = Gateway::start("[[routes]]\nrespond = { body = \"other\" }\n");
    let up = Upstream::ok();
    let gateway = Gateway::start(&format!(
        "[[routes]]\nupstream = \"app\"\n[[routes]]\npath = \"/stopped\"\nupstream = \"stopped\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n\
         [upstreams.stopped]\nendpoints = [\"{}\"]\nfirst_byte_timeout = \"2s\"\n",
        up.address(),
        stopped.address()
    ));
    assert_eq!(gateway.client().get("/stopped").text(), "other");
    stopped.signal(Signal::SIGSTOP);
    // A thread that runs on another core stops a moment later.
    let threads = || std::fs::read_dir(format!("/proc/{}/task", stopped.pid())).unwrap();
    eventually("every thread has stopped", || {
        threads().all(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    });
    let mut waiting: Vec<Client> = (0..20).map(|_| gateway.client()).collect();
    for client in &mut waiting {
        client.send("GET /stopped HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    }
    for _ in 0..100 {
        let begun = Instant::now();
        assert_eq!(gateway.client().get("/x").text(), "GET /x");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    waiting.iter_mut().for_each(|client| assert_eq!(client.response().status, 504));
    stopped.signal(Signal::SIGCONT);
    eventually("it is back", || gateway.client().get("/stopped").status == 200);
}
