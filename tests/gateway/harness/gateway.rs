//! The program under test: started on a free port, watched through its log, killed when dropped.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Client, PATIENCE, eventually};

/// How to start the gateway.
#[derive(Default)]
pub struct Launch {
    pub toml: String,
    /// Soft and hard bound on open descriptors.
    pub descriptors_max: Option<u32>,
    /// Bound on the length of a file it writes, in blocks of 512 bytes.
    pub file_blocks_max: Option<u32>,
    /// Make the kernel refuse io_uring to the process, as a container would.
    pub without_io_uring: bool,
    /// Ignore `RINGWAY_TEST_IO`.
    pub own_io: bool,
    /// Debug builds panic in the task that serves a request for this path.
    pub panic_path: Option<&'static str>,
    /// Where its admin socket is. Default: a folder of its own.
    pub runtime_folder: Option<PathBuf>,
    /// `ringway demo` instead of `ringway run` with a file.
    pub demo: bool,
    /// Further environment.
    pub env: Vec<(&'static str, String)>,
    /// Another file than the built program, for tests that replace it.
    pub program: Option<PathBuf>,
    /// Instead of an empty standard input.
    pub stdin: Option<OwnedFd>,
    /// The shell starts the program by this line, in which it is `"$@"`.
    pub shell: Option<&'static str>,
}

/// The gateway ended instead of getting ready.
#[derive(Debug)]
pub struct Failed {
    pub status: ExitStatus,
    pub stderr: String,
}

pub struct Gateway {
    child: Mutex<Child>,
    /// The process that serves: the child, or what it was upgraded to.
    pid: AtomicU32,
    log: Arc<Mutex<String>>,
    dir: tempfile::TempDir,
    /// For the demo: held while it runs.
    _turn: Option<File>,
}

impl Gateway {
    /// Starts with this configuration. A missing `[runtime]` gets two workers, a missing listener
    /// a free port on 127.0.0.1.
    #[track_caller]
    pub fn start(toml: &str) -> Gateway {
        let launch = Launch { toml: toml.to_string(), ..Launch::default() };
        launch.start().unwrap_or_else(|failed| panic!("{failed:?}\nwith {toml}"))
    }

    /// One route: everything to this upstream. `more` is further configuration.
    #[track_caller]
    pub fn before(upstream: SocketAddr, more: &str) -> Gateway {
        Gateway::start(&format!(
            "{more}\n[[routes]]\npath = \"/\"\nupstream = \"app\"\n\
             [upstreams.app]\nendpoints = [\"{upstream}\"]\n"
        ))
    }

    /// The process that serves.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::SeqCst)
    }

    /// Asks for an upgrade and waits for the outcome: whether another process serves now.
    #[track_caller]
    pub fn upgrade(&self) -> bool {
        let done = |text: &str| self.log().matches(text).count();
        let (upgraded, refused) = (done(UPGRADED), done(UPGRADE_REFUSED));
        self.signal(Signal::SIGUSR2);
        eventually("the upgrade ends", || {
            done(UPGRADED) + done(UPGRADE_REFUSED) > upgraded + refused
        });
        let is_upgraded = done(UPGRADED) > upgraded;
        if is_upgraded {
            self.follow();
        }
        is_upgraded
    }

    /// After an upgrade: the new process is meant from now on. Whoever asked for the upgrade may
    /// know of it before it stands in the log.
    #[track_caller]
    pub fn follow(&self) {
        eventually("the upgrade in the log", || {
            let log = self.log();
            let line = log.lines().rfind(|line| line.contains(UPGRADED));
            let pid = line.and_then(|line| pids(line).next()).filter(|pid| *pid != self.pid());
            pid.inspect(|pid| self.pid.store(*pid, Ordering::SeqCst)).is_some()
        });
    }

    /// Everything the program said so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The first TCP listener.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        let log = self.log();
        addresses(&log).next().unwrap_or_else(|| panic!("no TCP listener in {log}")).1
    }

    /// Where the TCP listener of this name was last bound. Waits for a first time: what two
    /// processes say comes in any order.
    #[track_caller]
    pub fn address_of(&self, listener: &str) -> SocketAddr {
        let mut found = None;
        eventually(&format!("a TCP listener {listener:?} in the log"), || {
            let log = self.log();
            let named = addresses(&log).filter(|(line, _)| named(line, listener));
            found = named.last().map(|(_, address)| address);
            found.is_some()
        });
        found.unwrap()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// A connection to the admin interface, where `admin.bind` is not set.
    pub fn admin(&self) -> Client {
        Client::connect_unix(&self.dir().join("admin.sock"))
    }

    /// What a metric says whose name and labels are exactly these, if it is there.
    #[track_caller]
    pub fn figure(&self, name: &str) -> Option<f64> {
        let text = self.admin().get("/metrics").text();
        let mut series = text.lines().filter_map(|line| line.rsplit_once(' '));
        let (_, value) = series.find(|(own, _)| *own == name)?;
        Some(value.parse().unwrap_or_else(|_| panic!("{name} is {value}")))
    }

    /// Runs a command of the program against this gateway.
    pub fn command(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(arguments)
            .current_dir(self.dir())
            .env("NO_COLOR", "1")
            .env("RUNTIME_DIRECTORY", self.dir())
            .output()
            .unwrap()
    }

    /// Writes another configuration, completed as at the start, and does not ask for a reload.
    pub fn write(&self, toml: &str) {
        let launch = Launch { toml: toml.to_string(), ..Launch::default() };
        std::fs::write(self.dir().join("ringway.toml"), launch.complete_toml()).unwrap();
    }

    /// A directory of this gateway's own, removed with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The same without the program's file: what it has allocated, and its stacks.
    pub fn anonymous_bytes(&self) -> u64 {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    pub fn open_fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Threads that the kernel has made for it, for what a ring lets wait.
    pub fn kernel_threads(&self) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        // A thread may end meanwhile.
        let names =
            tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("iou-wrk")).count()
    }

    /// Copies of its listening TCP sockets, one of each, to see how they are set.
    pub fn listening_sockets(&self) -> Vec<socket2::Socket> {
        use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
        let pid = Pid::from_raw(self.pid() as i32).unwrap();
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let fds = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        fds.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok())
            .map(socket2::Socket::from)
            .filter(|socket| socket.is_listener().unwrap_or(false))
            .filter(|socket| socket.local_addr().is_ok_and(|at| at.as_socket().is_some()))
            .map(|socket| (socket.cookie().unwrap(), socket))
            .collect::<std::collections::BTreeMap<_, _>>()
            .into_values()
            .collect()
    }

    /// CPU time used so far, user and system.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let after = stat.rsplit_once(") ").unwrap().1;
        let ticks: u64 = after.split(' ').skip(11).take(2).map(|t| t.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    pub fn sigterm(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Writes another configuration and asks for a reload. True when it is in force now, false when
    /// it was refused.
    #[track_caller]
    pub fn reload(&self, toml: &str) -> bool {
        self.write(toml);
        let done = |text: &str| self.log().matches(text).count();
        let (reloaded, refused) = (done(RELOADED), done(REFUSED));
        self.signal(Signal::SIGHUP);
        eventually("the reload ends", || done(RELOADED) + done(REFUSED) > reloaded + refused);
        done(RELOADED) > reloaded
    }

    /// Waits until no process of this number runs.
    #[track_caller]
    pub fn wait_gone(&self, pid: u32) {
        let runs = || {
            let _ = self.child.lock().unwrap().try_wait();
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Nobody may wait for it: a zombie is gone too.
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        };
        let started = Instant::now();
        while runs() {
            assert!(started.elapsed() < PATIENCE * 2, "{pid} still runs:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the program that was started first to end by itself.
    #[track_caller]
    pub fn wait_exit(&self) -> ExitStatus {
        wait_exit(&mut self.child.lock().unwrap())
            .unwrap_or_else(|| panic!("still running:\n{}", self.log()))
    }

    pub fn is_running(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// Waits until the log has a line with this text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), || self.log().contains(text));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(|e| e.into_inner());
        // The new process of an upgrade is no child of this one.
        let log = self.log();
        for pid in log.lines().filter(|line| line.contains(UPGRADING)).flat_map(pids) {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}---", self.log());
        }
    }
}

impl Launch {
    /// Starts the program and waits until it says it is ready, or ends.
    pub fn start(self) -> Result<Gateway, Failed> {
        let _turn = self.demo.then(demo_turn);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ringway.toml");
        std::fs::write(&file, self.complete_toml()).unwrap();
        let mut child = self.spawn(&file);
        let log = watch(&mut child);
        let started = Instant::now();
        loop {
            if log.lock().unwrap().lines().any(is_ready) {
                let pid = AtomicU32::new(child.id());
                return Ok(Gateway { child: Mutex::new(child), pid, log, dir, _turn });
            }
            if let Some(status) = child.try_wait().unwrap() {
                // The reader may still be behind the last lines.
                eventually("the log's end", || Arc::strong_count(&log) == 1);
                let stderr = log.lock().unwrap().clone();
                return Err(Failed { status, stderr });
            }
            if started.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("the gateway is not ready:\n{}", log.lock().unwrap());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn spawn(&self, file: &Path) -> Child {
        let built = Path::new(env!("CARGO_BIN_EXE_ringway"));
        let program = self.program.as_deref().unwrap_or(built);
        let limits = [("-n", self.descriptors_max), ("-f", self.file_blocks_max)];
        let limit = limits.iter().find_map(|(option, max)| Some((option, (*max)?)));
        let limit = limit.map(|(option, max)| format!("ulimit {option} {max}; exec \"$@\""));
        let mut command = match limit.as_deref().or(self.shell) {
            None => Command::new(program),
            Some(line) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", line, "sh"]).arg(program);
                shell
            }
        };
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if self.demo {
            command.arg("demo");
        } else {
            command.arg("run").arg(file);
        }
        command.env("NO_COLOR", "1").env_remove("RUST_LOG");
        // A place of its own for its admin socket.
        let own = self.runtime_folder.as_deref().or(file.parent());
        command.env("RUNTIME_DIRECTORY", own.unwrap());
        if let Some(path) = self.panic_path {
            command.env("RINGWAY_DRILL_PANIC_PATH", path);
        }
        let stdin = self.stdin.as_ref().map(|stdin| Stdio::from(stdin.try_clone().unwrap()));
        command
            .stdin(stdin.unwrap_or_else(Stdio::null))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.without_io_uring {
            // A filter holds for the thread that sets it and for what that thread starts.
            return std::thread::scope(|scope| {
                let spawn = || {
                    refuse_io_uring();
                    command.spawn().unwrap()
                };
                scope.spawn(spawn).join().unwrap()
            });
        }
        command.spawn().unwrap()
    }

    pub fn complete_toml(&self) -> String {
        let io = std::env::var("RINGWAY_TEST_IO").ok().filter(|_| !self.own_io);
        let io = io.map_or(String::new(), |io| format!("io = \"{io}\"\n"));
        let mut toml = self.toml.clone();
        if let Some(at) = toml.find("[runtime]\n") {
            toml.insert_str(at + "[runtime]\n".len(), &io);
        } else {
            toml.push_str(&format!("\n[runtime]\nworkers = 2\n{io}"));
        }
        if !toml.contains("[[listeners]]") {
            toml.push_str("\n[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\n");
        }
        toml
    }
}

/// Waits for a turn at the demo, which ends when the answer is dropped. The demo looks whether its
/// usual port is free before it binds it; two that look at the same moment would share it. Other
/// runs of this suite may be under way too.
fn demo_turn() -> File {
    let turn = File::create(std::env::temp_dir().join("ringway-demo-test.lock")).unwrap();
    turn.lock().unwrap();
    turn
}

fn refuse_io_uring() {
    use seccompiler::{SeccompAction, SeccompFilter};
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let rules = [nix::libc::SYS_io_uring_setup].map(|call| (call, vec![])).into_iter().collect();
    let refused = SeccompAction::Errno(nix::libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// Keeps what the program says, on either stream.
fn watch(child: &mut Child) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(String::new()));
    let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().unwrap());
    let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
    for stream in [stderr, stdout] {
        let own = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut log = own.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
    }
    log
}

fn is_ready(line: &str) -> bool {
    line.split_whitespace().any(|word| word.trim_end_matches(':') == "ready")
}

const LISTENING: &str = "listening on ";
const RELOADED: &str = " reloaded ";
const REFUSED: &str = " reload refused";
const UPGRADING: &str = " upgrading: the new process starts";
const UPGRADED: &str = " upgraded: the new process serves";
const UPGRADE_REFUSED: &str = " upgrade refused";

fn addresses(log: &str) -> impl Iterator<Item = (&str, SocketAddr)> {
    log.lines().filter_map(|line| {
        let (_, rest) = line.split_once(LISTENING)?;
        Some((line, rest.split_whitespace().next()?.parse().ok()?))
    })
}

fn pids(line: &str) -> impl Iterator<Item = u32> {
    line.split_whitespace().filter_map(|word| word.strip_prefix("pid=")?.parse().ok())
}

fn named(line: &str, listener: &str) -> bool {
    let forms = [format!("listener={listener}"), format!("listener=\"{listener}\"")];
    line.split_whitespace().any(|word| forms.iter().any(|form| word == form))
}

fn wait_exit(child: &mut Child) -> Option<ExitStatus> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE * 2 {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}
