//! Waits for what happens, and ends in order. The start is in [`super::start`], reloading in
//! [`super::reload`], giving way to a new process in [`super::upgrade`].

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use signal_hook::consts::{SIGHUP, SIGTERM, SIGUSR1, SIGUSR2};
use tokio::sync::oneshot;

use super::{
    acme::Acme,
    admin::{self, Ask},
    cli,
    endpoints::{NotGranted, Obeyed, Overrides, Wish},
    file_watch::FileWatch,
    fleet::Fleet,
    jwks::Jwks,
    logs::Logs,
    oidc::Logins,
    quotas::Quotas,
    ready::{Life, Readiness},
    reload::{Loaded, Refused, Reloads, Running},
    sockets::{Held, Sockets},
    systemd::Systemd,
    takeover::Takeover,
    upgrade::{self, Successor, Upgrade},
    view::{Shared, View, WorkerView},
    workers::{self, Workers},
};
use crate::{
    config::{
        Snapshot,
        snapshot::{Bind, ListenerRule},
    },
    telemetry::metrics::registry::Registry,
    worker::{Drained, clients::Places, mailbox::Message, ring::RingView},
};

/// What the main thread waits for.
pub enum Event {
    /// A worker's runtime is there; it waits for its first message.
    Started {
        worker: usize,
        driver: &'static str,
        ring: Option<Arc<RingView>>,
    },
    /// A worker accepts, but not on the listeners in `failed`.
    Listening {
        worker: usize,
        failed: Vec<String>,
    },
    Signal(i32),
    /// A new configuration, or what is wrong with it.
    Loaded(Loaded),
    /// A worker goes on with the configuration of `generation`, but cannot accept on the listeners
    /// in `failed`.
    Adopted {
        worker: usize,
        generation: u64,
        failed: Vec<String>,
    },
    /// The configuration file is another one (`reload.watch`).
    FileChanged,
    /// The admin interface wants something done.
    Ask(Ask),
    /// A new process serves, or why not.
    Upgraded(Result<Successor, String>),
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
    let takeover = match Takeover::receive() {
        Ok(takeover) => takeover,
        Err(message) => {
            tracing::error!("{message}");
            return ExitCode::FAILURE;
        }
    };
    match cli::load(path) {
        Some(snapshot) => {
            // Absolute, as `/status` shows it: who reads that is in another folder.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            serve(snapshot, Some(path), takeover, |_| {})
        }
        None => {
            if let Some(takeover) = takeover {
                takeover.failed("its configuration has errors, which are above");
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs the gateway until a signal ends it. `file` is where `snapshot` came from and is reloaded
/// from; `takeover` is the process whose place this one takes; `ready` is told the bound addresses.
pub fn serve(
    snapshot: Snapshot,
    file: Option<PathBuf>,
    mut takeover: Option<Takeover>,
    ready: impl FnOnce(&[Bind]),
) -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        tracing::error!(thread = thread.name(), "panic: {panic}");
    }));
    match Gateway::start(snapshot, file, &mut takeover, ready) {
        Ok(gateway) => gateway.wait(),
        Err(message) => {
            tracing::error!("{message}");
            if let Some(takeover) = takeover {
                takeover.failed(&message);
            }
            ExitCode::FAILURE
        }
    }
}

/// The running gateway, on the main thread.
pub struct Gateway {
    pub workers: Workers,
    pub sockets: Sockets,
    pub places: Places,
    pub tell: mpsc::Sender<Event>,
    pub events: mpsc::Receiver<Event>,
    pub reloads: Reloads,
    pub readiness: Readiness,
    /// What the operator says of single endpoints.
    pub overrides: Overrides,
    /// The workers as others see them.
    pub views: Vec<WorkerView>,
    /// Where others see what is in force.
    pub shared: Arc<Shared>,
    pub admin: admin::Server,
    pub file_watch: Option<FileWatch>,
    /// What was asked while the workers started.
    pub early: Vec<Ask>,
    pub systemd: Systemd,
    pub upgrade: Option<Upgrade>,
    pub ending: Ending,
    pub logs: Logs,
    pub acme: Acme,
    pub jwks: Jwks,
    pub fleet: Fleet,
    pub quotas: Quotas,
    pub logins: Logins,
    /// Everything that is counted. Locked only by control's own threads.
    pub registry: Arc<Mutex<Registry>>,
    pub connections_cut: u32,
    pub failed: bool,
}

/// How far the end has come.
#[derive(Clone, Copy)]
pub enum Ending {
    No,
    /// Not ready any more, still accepting: until then, or another signal.
    Leaving(Instant),
    /// Accepting no more: workers that have not ended until then never will.
    Draining(Instant),
}

impl Gateway {
    /// Waits for the end: of every worker, or by signals.
    fn wait(mut self) -> ExitCode {
        while self.workers.running() > 0 {
            self.follow_acme();
            self.jwks.follow(self.reloads.current());
            self.fleet.follow(self.reloads.current(), self.workers.homes());
            self.logins.follow(self.reloads.current());
            let event = self.next_event();
            if let Some(event) = event {
                self.handle(event);
            }
            self.reloads.look(&self.tell);
            match self.ending {
                Ending::Leaving(at) if Instant::now() >= at => self.drain(&Arc::default()),
                Ending::Draining(at) if Instant::now() >= at => {
                    tracing::error!("workers did not end in time");
                    self.quotas.finish();
                    self.logs.finish(LOGS_GRACE);
                    return ExitCode::FAILURE;
                }
                _ => {}
            }
        }
        self.quotas.finish();
        self.logs.finish(LOGS_GRACE);
        self.last_words()
    }

    /// Certificates are got for the configuration that every worker has.
    fn follow_acme(&mut self) {
        if !self.is_ending() && !self.reloads.is_under_way() {
            let current = self.reloads.current();
            self.acme.follow(current.generation, &current.acme);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Signal(SIGHUP) => self.reload(),
            Event::Signal(SIGUSR1) => self.logs.reopen(),
            Event::Signal(SIGUSR2) => self.upgrade(None),
            Event::Signal(signal) => self.end(&format!("signal {signal}")),
            // A drain goes on with the configuration it began with.
            Event::Loaded(_) if self.is_ending() => {}
            Event::Loaded(loaded) => self.loaded(loaded),
            Event::Adopted { worker, generation, failed } => {
                self.reloads.adopted(worker, generation, failed, &self.tell);
                self.publish();
            }
            Event::FileChanged if self.is_ending() => {}
            Event::FileChanged => self.reload(),
            Event::Ask(ask) => self.asked(ask),
            Event::Upgraded(outcome) => self.upgraded(outcome),
            Event::Ended { worker, result } => self.ended(worker, result),
            Event::Started { worker, driver, ring } => {
                self.started(worker, driver, ring);
                self.publish();
            }
            Event::Listening { worker, failed } => {
                tracing::info!(worker = workers::name(worker), ?failed, "the worker serves again");
            }
        }
    }

    fn loaded(&mut self, loaded: Loaded) {
        let Gateway { workers, sockets, places, logs, tell, reloads, overrides, admin, .. } = self;
        let mut running = Running { workers, sockets, places, logs, tell, overrides, admin };
        reloads.loaded(loaded, &mut running);
        self.watch_file();
        self.publish();
    }

    /// A worker's runtime is there.
    pub fn started(&mut self, worker: usize, driver: &'static str, ring: Option<Arc<RingView>>) {
        self.views[worker].io = driver;
        self.views[worker].ring = ring;
        tracing::info!(worker, io = driver, "worker started");
    }

    /// Does what the admin interface asks for. An answer that is dropped says that the gateway
    /// ends.
    pub fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Drain(reply) => {
                let is_new = !self.is_ending();
                if is_new {
                    self.end("the admin interface asked for it");
                }
                let _ = reply.send(is_new);
            }
            _ if self.is_ending() => {}
            Ask::Upgrade(reply) => {
                let done = move |outcome| drop(reply.send(outcome));
                self.upgrade(Some(Box::new(done)));
            }
            Ask::Reload(reply) if self.upgrade.is_some() => {
                let why = "an upgrade is under way: ask again when it is over";
                let _ = reply.send(Err(Refused::NotNow(why)));
            }
            Ask::Reload(reply) => self.reloads.ask(&self.tell, Some(reply)),
            Ask::Quota(wish, reply) => {
                let _ = reply.send(self.workers.change_quota(wish));
            }
            Ask::Endpoint(wish, reply) => {
                let (done, obeyed) = oneshot::channel();
                let _ = reply.send(self.set_endpoint(&wish, done).map(|()| obeyed));
            }
        }
    }

    fn set_endpoint(
        &mut self,
        wish: &Wish,
        done: oneshot::Sender<Obeyed>,
    ) -> Result<(), NotGranted> {
        if let Some(why) = self.workers.cannot_be_told() {
            return Err(NotGranted::Crowded(why));
        }
        let mailboxes: Vec<_> =
            self.workers.mailboxes().map(|(_, mailbox)| mailbox.clone()).collect();
        self.overrides.grant(wish, self.reloads.current(), &mailboxes, done)?;
        self.publish();
        Ok(())
    }

    /// Watches the configuration file, or no longer, as the configuration says.
    pub fn watch_file(&mut self) {
        let current = self.reloads.current();
        let file = self.reloads.file().filter(|_| current.reload_watch);
        let files = file.map(|file| [&[file.to_owned()], &*current.files].concat());
        match files {
            None => self.file_watch = None,
            Some(files) if self.file_watch.as_ref().is_some_and(|watch| watch.files == files) => {}
            Some(files) => match FileWatch::begin(files, &current.text, self.tell.clone()) {
                Ok(watch) => self.file_watch = Some(watch),
                Err(e) => tracing::error!("{e}; reload by SIGHUP or `ringway reload` meanwhile"),
            },
        }
    }

    /// Shows others what is in force now.
    pub fn publish(&self) {
        let started = self.shared.view().started;
        let view = view_of(&self.reloads, &self.views, &self.overrides, started);
        self.shared.publish(view);
    }

    /// The next event; `None` when it is time to look at something else.
    fn next_event(&mut self) -> Option<Event> {
        let rest = self.reloads.free().then(|| Instant::now() + FREE_EVERY);
        let end = match self.ending {
            Ending::No => None,
            Ending::Leaving(at) | Ending::Draining(at) => Some(at),
        };
        match end.into_iter().chain(rest).chain(self.reloads.look_at()).min() {
            None => self.events.recv().ok(),
            Some(at) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())).ok(),
        }
    }

    fn is_ending(&self) -> bool {
        !matches!(self.ending, Ending::No)
    }

    fn reload(&mut self) {
        if self.is_ending() {
            return tracing::warn!("draining, not reloading");
        }
        match &mut self.upgrade {
            Some(upgrade) => {
                tracing::info!("an upgrade is under way: the reload waits for its outcome");
                upgrade.reload_asked = true;
            }
            None => self.reloads.ask(&self.tell, None),
        }
    }

    /// Begins the end, or, asked again, hastens it.
    fn end(&mut self, why: &str) {
        match self.ending {
            Ending::No => {
                let runtime = &self.reloads.current().runtime;
                let delay = Duration::from_millis(runtime.ready_delay_ms);
                self.readiness.set(Life::Draining);
                self.reloads.give_up();
                self.systemd.stopping();
                if let Some(upgrade) = &self.upgrade {
                    upgrade.cancel();
                }
                if delay.is_zero() {
                    tracing::info!(why, "ending");
                    return self.drain(&Arc::default());
                }
                tracing::info!(why, ?delay, "not ready any more, still accepting");
                self.ending = Ending::Leaving(Instant::now() + delay);
            }
            Ending::Leaving(_) => self.drain(&Arc::default()),
            Ending::Draining(_) => {
                tracing::info!(why, "stopping at once");
                self.workers.tell_all(|| Message::Stop);
            }
        }
    }

    /// Accepts no more and finishes what runs. Another process serves the listeners in
    /// `handed_over`.
    fn drain(&mut self, handed_over: &Arc<[String]>) {
        let runtime = &self.reloads.current().runtime;
        let timeout = Duration::from_millis(runtime.drain_timeout_ms);
        tracing::info!(?timeout, "draining");
        // Unlinked first, so that new clients see at once that nobody is there.
        let held = self.sockets.held().iter();
        held.filter(|held| !handed_over.contains(&held.rule.name)).for_each(Held::unlink);
        self.sockets.let_go();
        // Whoever comes after this process may renew from now on.
        self.acme.stop();
        self.workers.tell_all(|| Message::Drain { handed_over: handed_over.clone() });
        self.ending = Ending::Draining(Instant::now() + timeout + END_GRACE);
    }

    /// Begins to give way to a new process, and tells `done` the outcome.
    fn upgrade(&mut self, done: Option<upgrade::Done>) {
        match self.begin_upgrade() {
            Ok(upgrade) => self.upgrade.insert(upgrade).done = done,
            Err(why) => refuse_upgrade(why, done),
        }
    }

    fn begin_upgrade(&self) -> Result<Upgrade, String> {
        let refused = |why: &str| Err(why.to_owned());
        if self.upgrade.is_some() {
            return refused("another one is under way");
        }
        if self.is_ending() {
            return refused("this process is ending");
        }
        if self.reloads.is_under_way() {
            return refused("a reload is under way: ask again when it is over");
        }
        if self.reloads.file().is_none() {
            return refused("there is no configuration file that a new process could read");
        }
        let timeout = Duration::from_millis(self.reloads.current().runtime.upgrade_timeout_ms);
        let admin = self.admin.sockets();
        self.quotas.hand_over();
        let begun = Upgrade::begin(&self.sockets, admin, timeout, self.tell.clone());
        begun.inspect_err(|_| self.quotas.go_on())
    }

    fn upgraded(&mut self, outcome: Result<Successor, String>) {
        let Some(upgrade) = self.upgrade.take() else { return };
        match outcome {
            Ok(successor) => {
                tracing::info!(pid = successor.pid, "upgraded: the new process serves");
                self.quotas.leave();
                // Asked of us, meant for whoever serves.
                let signals = [(upgrade.reload_asked, SIGHUP), (self.is_ending(), SIGTERM)];
                for (_, signal) in signals.iter().filter(|(asked, _)| *asked) {
                    successor.signal(*signal);
                }
                self.systemd.hush();
                self.readiness.set(Life::Draining);
                self.reloads.give_up();
                self.admin.hand_over(&successor.taken_admin);
                if !matches!(self.ending, Ending::Draining(_)) {
                    self.drain(&successor.taken.into());
                }
                if let Some(done) = upgrade.done {
                    done(Ok(successor.pid));
                }
            }
            Err(why) => {
                self.quotas.go_on();
                refuse_upgrade(why, upgrade.done);
                if upgrade.reload_asked {
                    self.reload();
                }
            }
        }
    }

    fn ended(&mut self, worker: usize, result: io::Result<Drained>) {
        self.workers.ended(worker);
        self.views[worker].is_down = true;
        self.reloads.forget(worker, &self.tell);
        match result {
            Ok(Drained::Clean) => {}
            Ok(Drained::Cut(connections)) => self.connections_cut += connections,
            Err(e) => {
                tracing::error!(worker, error = %e, "worker failed");
                match self.ending {
                    Ending::Draining(_) => self.failed = true,
                    Ending::No | Ending::Leaving(_) => self.restart(worker),
                }
            }
        }
        self.publish();
    }

    /// A worker has ended without being told: another one takes its place.
    fn restart(&mut self, worker: usize) {
        let copy = self.reloads.copy(worker, &self.overrides);
        let outlets = self.logs.of_worker(worker);
        let name = workers::name(worker);
        match self.workers.restart(worker, copy, outlets) {
            Ok(true) => {
                tracing::warn!(worker = name, "starting the worker again");
                self.views[worker] = self.workers.view(worker);
                match self.sockets.of_worker(worker) {
                    Ok(listeners) => self.workers.listen(worker, listeners),
                    Err(e) => tracing::error!(worker = name, error = %e, "it cannot accept"),
                }
            }
            Ok(false) => {
                self.do_without(worker);
                tracing::error!(
                    worker = name,
                    "the worker ended too often: it stays down, the others take its clients"
                );
            }
            Err(e) => {
                self.do_without(worker);
                tracing::error!(worker = name, error = %e, "cannot start the worker again");
            }
        }
    }

    /// A worker stays down: from now on the kernel gives its share of the clients to the others.
    fn do_without(&mut self, worker: usize) {
        self.failed = true;
        self.readiness.one_down();
        self.sockets.end_worker(worker);
    }

    fn last_words(self) -> ExitCode {
        self.reloads.spans.finish();
        let registry = self.registry.lock().expect("nobody panics while counting");
        tracing::info!(
            connections = registry.sum(|worker| worker.connections.get()),
            requests = registry.sum(|worker| worker.requests.get()),
            refusals = registry.sum(|worker| worker.refusals()),
            panics = registry.sum(|worker| worker.panics.get()),
            connections_cut = self.connections_cut,
            "ended"
        );
        drop(registry);
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// What others see.
pub fn view_of(
    reloads: &Reloads,
    workers: &[WorkerView],
    overrides: &Overrides,
    started: u64,
) -> View {
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

/// Says why nothing comes of an upgrade.
pub fn refuse_upgrade(why: String, done: Option<upgrade::Done>) {
    tracing::error!("upgrade refused, this process serves on: {why}");
    if let Some(done) = done {
        done(Err(why));
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
