//! Starts the workers, waits for signals, and ends in order. Reloading is in [`super::reload`].

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1},
    iterator::Signals,
};
use tokio::sync::oneshot;

use super::{
    admin::{self, Ask},
    cli, cores,
    endpoints::Overrides,
    file_watch::FileWatch,
    history::unix_now,
    logs::Logs,
    ready::{Life, Readiness},
    reload::{Loaded, Reloads, Running},
    view::{Shared, View, WorkerView},
};
use crate::{
    config::{
        Snapshot,
        snapshot::{Bind, ListenerRule},
    },
    telemetry::metrics::registry::Registry,
    worker::{
        self, Drained, Seed,
        clients::Places,
        listener::{self, Bound},
        mailbox::{self, Message, Sender},
        ring::RingView,
        runtime::Driver,
    },
};

/// What the main thread waits for.
pub enum Event {
    Started {
        worker: usize,
        driver: &'static str,
        ring: Option<RingView>,
    },
    Signal(i32),
    /// A new configuration, or what is wrong with it.
    Loaded(Loaded),
    /// A worker goes on with the new configuration.
    Adopted {
        worker: usize,
        generation: u64,
    },
    /// The configuration file is another one (`reload.watch`).
    FileChanged,
    /// The admin interface wants something done.
    Ask(Ask),
    Ended {
        worker: usize,
        result: io::Result<Drained>,
    },
}

/// How long after its own drain timeout a worker may take to end.
const END_GRACE: Duration = Duration::from_secs(2);
/// How long the last lines of access logs may take after that.
const LOGS_GRACE: Duration = Duration::from_secs(2);
/// How often configurations that are no longer used are looked for after a reload.
const FREE_EVERY: Duration = Duration::from_secs(1);

/// `ringway run FILE`.
pub fn run(path: &Path) -> ExitCode {
    match cli::load(path) {
        None => ExitCode::FAILURE,
        Some(snapshot) => {
            // Absolute, as `/status` shows it: who reads that is in another folder.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            serve(snapshot, Some(path), |_| {})
        }
    }
}

/// Runs the gateway until a signal ends it. `file` is where `snapshot` came from and is reloaded
/// from; `ready` is told the bound addresses.
pub fn serve(snapshot: Snapshot, file: Option<PathBuf>, ready: impl FnOnce(&[Bind])) -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        tracing::error!(thread = thread.name(), "panic, ending one connection: {panic}");
    }));
    match Gateway::start(snapshot, file, ready) {
        Ok(gateway) => gateway.wait(),
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

struct Gateway {
    mailboxes: Vec<Sender>,
    places: Places,
    tell: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    reloads: Reloads,
    logs: Logs,
    /// Everything that is counted. Locked only by control's own threads.
    registry: Arc<Mutex<Registry>>,
    readiness: Readiness,
    /// What the operator says of single endpoints.
    overrides: Overrides,
    workers: Vec<WorkerView>,
    /// Where others see what is in force.
    shared: Arc<Shared>,
    admin: admin::Server,
    file_watch: Option<FileWatch>,
    running: usize,
    connections_cut: u32,
    failed: bool,
}

impl Gateway {
    fn start(
        snapshot: Snapshot,
        file: Option<PathBuf>,
        ready: impl FnOnce(&[Bind]),
    ) -> Result<Gateway, String> {
        let cores = cores::plan(&snapshot.runtime.workers)?;
        raise_descriptor_limit(&snapshot);
        let unsent_bytes = snapshot.limits.unsent_bytes;
        let bound = bind_all(snapshot.listeners.iter(), unsent_bytes, cores.len())?;
        let binds: Vec<Bind> = bound[0].iter().map(|b| b.at.clone()).collect();
        let (tell, events) = mpsc::channel();
        catch_signals(tell.clone()).map_err(|e| format!("cannot catch signals: {e}"))?;
        let places = Places::new(snapshot.limits.connections_max);
        let logs = Logs::new(cores.len());
        let outlets = logs.adopt(logs.prepare(&snapshot.access_logs)?);
        let registry = Arc::new(Mutex::new(Registry::new(cores.len())));
        let (reloads, copies) = Reloads::begin(file, snapshot, registry.clone(), &binds);
        let (mut mailboxes, mut workers_seen) = (Vec::new(), Vec::new());
        let each = bound.into_iter().zip(copies).zip(outlets);
        for (index, ((listeners, copy), outlets)) in each.enumerate() {
            let (snapshot, series, spans) = copy;
            let (sender, mailbox) = mailbox::mailbox().map_err(|e| format!("eventfd: {e}"))?;
            workers_seen.push(WorkerView::new(cores[index], sender.clone()));
            mailboxes.push(sender);
            let (places, workers) = (places.clone(), cores.len());
            let seed = Seed {
                index,
                snapshot,
                series,
                outlets,
                spans,
                listeners,
                mailbox,
                places,
                workers,
            };
            spawn(seed, cores[index], tell.clone()).map_err(|e| format!("worker {index}: {e}"))?;
        }
        let (readiness, overrides) = (Readiness::default(), Overrides::default());
        let view = view_of(&reloads, &workers_seen, &overrides, unix_now());
        let (ready_as, spans) = (readiness.clone(), reloads.spans.totals());
        let shared =
            Shared::new(view, ready_as, registry.clone(), logs.clone(), spans, tell.clone());
        let admin = admin::Server::start(&reloads.current().admin, shared.clone())?;
        let mut gateway = Gateway {
            running: mailboxes.len(),
            mailboxes,
            places,
            tell,
            events,
            reloads,
            logs,
            registry,
            readiness,
            overrides,
            workers: workers_seen,
            shared,
            admin,
            file_watch: None,
            connections_cut: 0,
            failed: false,
        };
        gateway.await_start()?;
        gateway.publish();
        gateway.watch_file();
        gateway.readiness.set(Life::Serving);
        gateway.announce(&binds, &cores);
        ready(&binds);
        Ok(gateway)
    }

    fn await_start(&mut self) -> Result<(), String> {
        let (mut waiting, mut reload, mut asked) = (self.mailboxes.len(), false, Vec::new());
        while waiting > 0 {
            match self.events.recv() {
                Ok(Event::Started { worker, driver, ring }) => {
                    waiting -= 1;
                    self.workers[worker].io = driver;
                    self.workers[worker].ring = ring.map(Arc::new);
                    tracing::info!(worker, io = driver, "worker started");
                }
                Ok(Event::Ended { worker, result: Err(e) }) => {
                    return Err(format!("worker {worker} cannot start: {e}"));
                }
                // Remembered: the file may have changed after it was read.
                Ok(Event::Signal(SIGHUP)) => reload = true,
                Ok(Event::Ask(ask)) => asked.push(ask),
                Ok(Event::Signal(SIGUSR1)) => self.logs.reopen(),
                Ok(_) | Err(_) => return Err("ended while starting".to_owned()),
            }
        }
        if reload {
            self.reloads.ask(&self.tell, None);
        }
        asked.into_iter().for_each(|ask| self.asked(ask, false));
        Ok(())
    }

    fn announce(&self, binds: &[Bind], cores: &[u32]) {
        let snapshot = self.reloads.current();
        for (rule, at) in snapshot.listeners.iter().zip(binds) {
            announce_listener(rule, at);
        }
        tracing::info!(
            ?cores,
            routes = snapshot.routes.len(),
            upstreams = snapshot.upstreams.len(),
            "ready"
        );
    }

    /// Waits for the end: of every worker, or by signals.
    fn wait(mut self) -> ExitCode {
        let mut deadline: Option<Instant> = None;
        while self.running > 0 {
            match self.next_event(deadline) {
                Some(Event::Signal(SIGHUP)) if deadline.is_none() => {
                    self.reloads.ask(&self.tell, None);
                }
                Some(Event::Signal(SIGHUP)) => tracing::warn!("draining, not reloading"),
                Some(Event::Signal(SIGUSR1)) => self.logs.reopen(),
                Some(Event::Signal(signal)) => match deadline {
                    None => {
                        let timeout = self.drain(signal);
                        deadline = Some(Instant::now() + timeout + END_GRACE);
                    }
                    Some(_) => {
                        tracing::info!(signal, "stopping at once");
                        self.tell(|| Message::Stop);
                    }
                },
                // A drain goes on with the configuration it began with.
                Some(Event::Loaded(_)) if deadline.is_some() => {}
                Some(Event::Loaded(loaded)) => {
                    let Gateway {
                        mailboxes, places, logs, tell, reloads, overrides, admin, ..
                    } = &mut self;
                    let mut running = Running { mailboxes, places, logs, tell, overrides, admin };
                    reloads.loaded(loaded, &mut running);
                    self.watch_file();
                    self.publish();
                }
                Some(Event::Adopted { worker, generation }) => {
                    self.reloads.adopted(worker, generation, &self.tell);
                    self.publish();
                }
                Some(Event::FileChanged) if deadline.is_none() => {
                    self.reloads.ask(&self.tell, None);
                }
                Some(Event::FileChanged) => {}
                Some(Event::Ask(ask)) => self.asked(ask, deadline.is_some()),
                Some(Event::Ended { worker, result }) => self.ended(worker, result),
                Some(Event::Started { .. }) => {}
                None if deadline.is_some_and(|at| Instant::now() >= at) => {
                    tracing::error!("workers did not end in time");
                    self.logs.finish(LOGS_GRACE);
                    return ExitCode::FAILURE;
                }
                None => {}
            }
        }
        self.logs.finish(LOGS_GRACE);
        self.last_words()
    }

    /// The next event; `None` when it is time to look at something else.
    fn next_event(&mut self, deadline: Option<Instant>) -> Option<Event> {
        let rest = self.reloads.free().then(|| Instant::now() + FREE_EVERY);
        match deadline.into_iter().chain(rest).min() {
            None => self.events.recv().ok(),
            Some(at) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())).ok(),
        }
    }

    /// Does what the admin interface asks for. An answer that is dropped says that the gateway
    /// ends.
    fn asked(&mut self, ask: Ask, is_draining: bool) {
        match ask {
            Ask::Drain(reply) => {
                let is_new = self.readiness.look().life != Life::Draining;
                if is_new {
                    tracing::info!("asked to drain by the admin interface");
                    self.readiness.set(Life::Draining);
                    // The same way as for anybody else who wants the gateway to end.
                    let _ = self.tell.send(Event::Signal(SIGTERM));
                }
                let _ = reply.send(is_new);
            }
            _ if is_draining => {}
            Ask::Reload(reply) => self.reloads.ask(&self.tell, Some(reply)),
            Ask::Endpoint(wish, reply) => {
                let (done, obeyed) = oneshot::channel();
                let snapshot = self.reloads.current();
                let granted = self.overrides.grant(&wish, snapshot, &self.mailboxes, done);
                self.publish();
                let _ = reply.send(granted.map(|()| obeyed));
            }
        }
    }

    /// Watches the configuration file, or no longer, as the configuration says.
    fn watch_file(&mut self) {
        let file = self.reloads.file().filter(|_| self.reloads.current().reload_watch);
        match file {
            None => self.file_watch = None,
            Some(_) if self.file_watch.is_some() => {}
            Some(file) => match FileWatch::begin(file, self.tell.clone()) {
                Ok(watch) => self.file_watch = Some(watch),
                Err(e) => tracing::error!("{e}; reload by SIGHUP or `ringway reload` meanwhile"),
            },
        }
    }

    /// Shows others what is in force now.
    fn publish(&self) {
        let started = self.shared.view().started;
        let view = view_of(&self.reloads, &self.workers, &self.overrides, started);
        self.shared.publish(view);
    }

    /// Answers how long the workers may take.
    fn drain(&mut self, signal: i32) -> Duration {
        self.readiness.set(Life::Draining);
        self.reloads.give_up();
        let snapshot = self.reloads.current();
        let timeout = Duration::from_millis(snapshot.runtime.drain_timeout_ms);
        tracing::info!(signal, ?timeout, "draining");
        // Unlinked first, so that new clients see at once that nobody is there.
        for rule in &snapshot.listeners {
            if let Bind::Unix { path, .. } = &rule.bind {
                let _ = std::fs::remove_file(path);
            }
        }
        self.tell(|| Message::Drain);
        timeout
    }

    fn tell(&self, message: impl Fn() -> Message) {
        for mailbox in &self.mailboxes {
            // Full only if the worker is stuck, and then the deadline ends it.
            if mailbox.send(message()).is_err() {
                tracing::error!("a worker's mailbox is full");
            }
        }
    }

    fn ended(&mut self, worker: usize, result: io::Result<Drained>) {
        self.running -= 1;
        self.workers[worker].is_down = true;
        self.publish();
        match result {
            Ok(Drained::Clean) => {}
            Ok(Drained::Cut(connections)) => self.connections_cut += connections,
            Err(e) => {
                tracing::error!(worker, error = %e, "worker failed");
                self.failed = true;
            }
        }
    }

    fn last_words(self) -> ExitCode {
        self.reloads.spans.finish();
        let registry = self.registry.lock().expect("nobody panics while counting");
        tracing::info!(
            connections = registry.sum(|worker| worker.connections.get()),
            requests = registry.sum(|worker| worker.requests.get()),
            refusals = registry.sum(|worker| worker.refusals.get()),
            panics = registry.sum(|worker| worker.panics.get()),
            connections_cut = self.connections_cut,
            "ended"
        );
        drop(registry);
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

fn view_of(reloads: &Reloads, workers: &[WorkerView], overrides: &Overrides, started: u64) -> View {
    View {
        snapshot: reloads.current().clone(),
        file: reloads.file().cloned(),
        started,
        history: reloads.history().clone(),
        workers: workers.to_vec(),
        listeners: reloads.listeners().to_vec(),
        overrides: overrides.clone(),
    }
}

/// Says where a listener listens.
pub fn announce_listener(rule: &ListenerRule, at: &Bind) {
    match at {
        Bind::Tcp(at) => tracing::info!(listener = rule.name, "listening on {at}"),
        Bind::Unix { path, .. } => {
            tracing::info!(listener = rule.name, "listening on unix:{}", path.display());
        }
    }
}

/// Sockets by worker, then by listener.
pub fn bind_all<'r>(
    rules: impl Iterator<Item = &'r ListenerRule>,
    unsent_bytes: u32,
    workers: usize,
) -> Result<Vec<Vec<Bound>>, String> {
    let mut by_worker: Vec<Vec<Bound>> = (0..workers).map(|_| Vec::new()).collect();
    for rule in rules {
        let sockets = listener::bind(rule, unsent_bytes, workers)
            .map_err(|e| format!("cannot listen on {} ({}): {e}", rule.name, bind_hint(&e)))?;
        for (sockets_of_worker, socket) in by_worker.iter_mut().zip(sockets) {
            sockets_of_worker.push(socket);
        }
    }
    Ok(by_worker)
}

fn bind_hint(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::AddrInUse => "another process uses the address: see `ss -ltnp`",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, a Unix socket a writable folder"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this host has the address",
        _ => "see the error",
    }
}

fn spawn(seed: Seed, core: u32, tell: mpsc::Sender<Event>) -> io::Result<()> {
    let worker = seed.index;
    let body = move || {
        // Pinned before the runtime is built, so that its memory is local to the core.
        if let Err(e) = cores::pin(core) {
            tracing::warn!(worker, core, error = %e, "cannot pin");
        }
        let runtime = &seed.snapshot.runtime;
        let result = Driver::build(runtime.io, runtime.ring_entries).and_then(|mut driver| {
            let ring = driver.ring.take();
            let _ = tell.send(Event::Started { worker, driver: driver.name, ring });
            worker::run(seed, driver)
        });
        // The main thread is gone only if the process is ending.
        let _ = tell.send(Event::Ended { worker, result });
    };
    thread::Builder::new().name(format!("worker-{worker}")).spawn(body)?;
    Ok(())
}

fn catch_signals(tell: mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if tell.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Raises the soft limit on descriptors to the hard one and says when that is not enough.
fn raise_descriptor_limit(snapshot: &Snapshot) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %e, "cannot raise the limit on open descriptors");
    }
    // A connection may need one descriptor on each side.
    let needed = 2 * u64::from(snapshot.limits.connections_max);
    if let Some(have) = limit.maximum
        && have < needed
    {
        tracing::warn!(
            have,
            needed,
            "limits.connections may need more descriptors than the process may open: raise \
             LimitNOFILE (ulimit -n) or lower limits.connections"
        );
    }
}
