//! The old process's side of an upgrade: it starts the program again, hands over its listening
//! sockets, and drains only when the new process serves. See [`super::handover`] for the words.
//!
//! Whatever goes wrong before that, the new process is killed, the reason is logged, and nothing
//! has changed: this process never stopped accepting.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::SIGHUP;

use super::{
    handover::{About, LISTENER, Link, Said},
    run::Event,
    sockets::{self, Sockets},
    takeover,
};

/// How often a process that starts is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the new process may take from go to serving, however little time was left.
const GO_PATIENCE: Duration = Duration::from_secs(10);

/// Told the outcome: the new process's id, or why there is none.
pub type Done = Box<dyn FnOnce(Result<u32, String>) + Send>;

/// An upgrade under way.
pub struct Upgrade {
    is_cancelled: Arc<AtomicBool>,
    pub done: Option<Done>,
    /// A reload was asked for meanwhile: it is for whoever serves afterwards.
    pub reload_asked: bool,
}

/// The new process, which serves.
#[derive(Debug)]
pub struct Successor {
    pub pid: u32,
    /// The listeners it has taken over.
    pub taken: Vec<String>,
    /// The kinds of sockets of the admin interface it has taken over.
    pub taken_admin: Vec<String>,
}

impl Upgrade {
    /// Begins one; the outcome comes as an [`Event::Upgraded`]. `timeout` bounds the time until the
    /// new process is ready.
    pub fn begin(
        sockets: &Sockets,
        admin: Vec<(About, OwnedFd)>,
        timeout: Duration,
        tell: mpsc::Sender<Event>,
    ) -> Result<Upgrade, String> {
        if std::process::id() == 1 {
            return Err(
                "this is process 1 of its container, which would end with it: start a new \
                        container instead"
                    .to_owned(),
            );
        }
        let parcels = parcels(sockets).map_err(|e| format!("cannot copy a descriptor: {e}"))?;
        let admin = admin.into_iter().map(|(about, socket)| Parcel { about, socket });
        let parcels = parcels.into_iter().chain(admin).collect();
        let command = Invocation::own().ok_or("the name of this program is not known")?;
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let cancelled = is_cancelled.clone();
        let work = move || {
            let outcome = attempt(&command, parcels, timeout, &cancelled);
            let _ = tell.send(Event::Upgraded(outcome));
        };
        let thread = thread::Builder::new().name("upgrade".to_owned()).spawn(work);
        thread.map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Upgrade { is_cancelled, done: None, reload_asked: false })
    }

    /// Gives it up, unless the new process serves already.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Relaxed);
    }
}

impl Successor {
    /// Passes on a signal that was meant for whoever serves.
    pub fn signal(&self, signal: i32) {
        let signal = if signal == SIGHUP { Signal::HUP } else { Signal::TERM };
        if let Some(pid) = Pid::from_raw(self.pid as i32) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// How this program was started: the path is looked up again, so that a replaced file runs.
struct Invocation {
    program: OsString,
    arguments: Vec<OsString>,
}

impl Invocation {
    fn own() -> Option<Invocation> {
        let mut words = std::env::args_os();
        Some(Invocation { program: words.next()?, arguments: words.collect() })
    }

    fn start(&self, link: OwnedFd) -> io::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .env(takeover::VARIABLE, "stdin")
            // These were for this process, by its number.
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(link))
            .spawn()
    }
}

/// A socket with what is said of it.
struct Parcel {
    about: About,
    socket: OwnedFd,
}

fn parcels(sockets: &Sockets) -> io::Result<Vec<Parcel>> {
    let parcel = |held: &sockets::Held| {
        let about = About {
            kind: LISTENER.to_owned(),
            name: held.rule.name.clone(),
            bind: sockets::text(&held.at),
            worker: held.worker,
            lasting: held.is_lasting,
        };
        Ok(Parcel { about, socket: held.socket.try_clone()? })
    };
    sockets.held().iter().map(parcel).collect()
}

fn attempt(
    command: &Invocation,
    parcels: Vec<Parcel>,
    timeout: Duration,
    is_cancelled: &AtomicBool,
) -> Result<Successor, String> {
    let (link, other) = Link::pair().map_err(|e| format!("cannot make a pair of sockets: {e}"))?;
    let program = command.program.display();
    let mut child = command.start(other).map_err(|e| format!("cannot start {program}: {e}"))?;
    let pid = child.id();
    tracing::info!(pid, program = %program, "upgrading: the new process starts");
    let until = Instant::now() + timeout;
    let mut old = Old { link, child: &mut child, is_cancelled, until, timeout, has_said_go: false };
    match old.hand_over(parcels) {
        Ok((taken, taken_admin)) => Ok(Successor { pid, taken, taken_admin }),
        Err(why) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(why)
        }
    }
}

/// This side of the conversation.
struct Old<'a> {
    link: Link,
    child: &'a mut Child,
    is_cancelled: &'a AtomicBool,
    until: Instant,
    timeout: Duration,
    has_said_go: bool,
}

impl Old<'_> {
    /// Answers what the new process has taken: listeners, and kinds of admin sockets.
    fn hand_over(&mut self, parcels: Vec<Parcel>) -> Result<(Vec<String>, Vec<String>), String> {
        for parcel in parcels {
            self.say(&Said::Socket(parcel.about), Some(&parcel.socket))?;
        }
        self.say(&Said::End, None)?;
        let taken = match self.hear("ready")? {
            Said::Ready { taken, taken_admin } => (taken, taken_admin),
            other => return Err(unexpected(&other)),
        };
        self.until = self.until.max(Instant::now() + GO_PATIENCE);
        // From here on it may have accepted somebody.
        self.has_said_go = true;
        self.say(&Said::Go, None)?;
        match self.hear("serving")? {
            Said::Serving => Ok(taken),
            other => Err(unexpected(&other)),
        }
    }

    fn say(&mut self, said: &Said, socket: Option<&OwnedFd>) -> Result<(), String> {
        loop {
            match self.link.send(said, socket.map(AsFd::as_fd)) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.look(true, "ready")?,
                Err(e) if is_gone(&e) => return Err(self.ended("ready")),
                Err(e) => return Err(format!("cannot hand over a socket: {e}")),
            }
        }
    }

    fn hear(&mut self, awaited: &str) -> Result<Said, String> {
        loop {
            match self.link.receive() {
                Ok(Some((Said::Failed { why }, _))) => return Err(why),
                Ok(Some((said, _))) => return Ok(said),
                Ok(None) => return Err(self.ended(awaited)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.look(false, awaited)?,
                Err(e) => return Err(format!("the new process is not understood: {e}")),
            }
        }
    }

    /// Waits a moment, and sees whether there is still something to wait for.
    fn look(&mut self, to_write: bool, awaited: &str) -> Result<(), String> {
        if self.is_cancelled.load(Relaxed) && !self.has_said_go {
            return Err("this process was told to end meanwhile".to_owned());
        }
        if Instant::now() >= self.until {
            return Err(format!(
                "the new process (pid {}) was not {awaited} within {:?} (shutdown.upgrade_timeout)",
                self.child.id(),
                self.timeout
            ));
        }
        self.link.wait(to_write, LOOK_EVERY).map_err(|e| format!("cannot wait: {e}"))
    }

    /// It closed its end: why?
    fn ended(&mut self, awaited: &str) -> String {
        let pid = self.child.id();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            if let Ok(Some(status)) = self.child.try_wait() {
                return format!(
                    "the new process (pid {pid}) ended before it was {awaited} ({status}); what it \
                     said of itself is above"
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
        format!("the new process (pid {pid}) gave the upgrade up before it was {awaited}")
    }
}

/// The other side has closed, perhaps without having read what was said.
fn is_gone(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn unexpected(said: &Said) -> String {
    format!("the new process said {said:?}, which nobody asked")
}
