//! Reloading: a new configuration is read and checked on a thread of its own, its new sockets are
//! bound, and every worker gets its copy by one message. Nothing of it touches a request.
//!
//! One reload runs at a time; a wish for another that comes meanwhile is granted after it, once.
//! Whatever is wrong with the new configuration, the old one serves on. A worker that is stuck does
//! not hold a reload up for ever: it has the new configuration in its mailbox and adopts it when it
//! goes on.

use std::{
    collections::BTreeSet,
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{
    cli,
    logs::{Logs, Prepared},
    run::Event,
    sockets::{Held, Opened, Sockets},
    systemd::Systemd,
    watch,
    workers::{self, Workers},
};
use crate::{
    config::{
        Snapshot,
        snapshot::{Bind, ListenerRule, Runtime, Upstream},
    },
    telemetry::metrics::{
        registry::{Names, Registry, UpstreamNames},
        shards::Series,
    },
    worker::{
        clients::Places,
        listener::Bound,
        mailbox::{Adoption, Done, Message},
    },
};

/// A reload waits for a worker this many times as long as it takes to call one stuck.
const PATIENCE: u32 = 5;

/// What control knows of the configuration in force.
pub struct Reloads {
    /// Where it is read from; `None` when it is no file.
    file: Option<PathBuf>,
    current: Arc<Snapshot>,
    /// Every snapshot a worker may still use. Freed here, not by the workers: that takes time.
    held: Vec<Arc<Snapshot>>,
    registry: Arc<Mutex<Registry>>,
    under_way: Option<UnderWay>,
    asked_again: bool,
    /// By worker: where each counts now.
    series: Vec<Arc<Series>>,
    /// For reports of stuck workers.
    route_names: watch::Names,
    systemd: Systemd,
}

/// One worker's configuration and where it counts.
pub type WorkerCopy = (Arc<Snapshot>, Arc<Series>);

struct UnderWay {
    begun: Instant,
    /// Workers that have not said that they have it.
    waiting: BTreeSet<usize>,
    /// When those are no longer waited for. `None` while the file is read.
    until: Option<Instant>,
    /// Listeners that workers cannot accept on, with why.
    failed: BTreeSet<String>,
}

/// What a reload needs of the running gateway.
pub struct Running<'a> {
    pub workers: &'a Workers,
    pub sockets: &'a mut Sockets,
    pub places: &'a Places,
    pub logs: &'a Logs,
    pub tell: &'a mpsc::Sender<Event>,
}

impl Reloads {
    /// Each worker's copy of the first configuration. Copies, because a worker must not share what
    /// it writes to in passing, such as the scratch memory of a regular expression.
    pub fn begin(
        file: Option<PathBuf>,
        snapshot: Snapshot,
        registry: Arc<Mutex<Registry>>,
        systemd: Systemd,
    ) -> (Reloads, Vec<WorkerCopy>) {
        let copies = copies(snapshot, &registry);
        let route_names = watch::Names::default();
        copies.iter().for_each(|(copy, _)| route_names.add(copy));
        let reloads = Reloads {
            file,
            current: copies[0].0.clone(),
            held: copies.iter().map(|(snapshot, _)| snapshot.clone()).collect(),
            registry,
            under_way: None,
            asked_again: false,
            series: copies.iter().map(|(_, series)| series.clone()).collect(),
            route_names,
            systemd,
        };
        (reloads, copies)
    }

    /// The names of the routes in use.
    pub fn route_names(&self) -> watch::Names {
        self.route_names.clone()
    }

    /// Whether there is a file that another process could read as well.
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// When to call [`Reloads::look`].
    pub fn look_at(&self) -> Option<Instant> {
        self.under_way.as_ref()?.until
    }

    /// A copy of the configuration in force, for a worker that is started again.
    pub fn copy(&mut self, worker: usize) -> WorkerCopy {
        let copy = Arc::new(Snapshot::clone(&self.current));
        self.held.push(copy.clone());
        self.route_names.add(&copy);
        (copy, self.series[worker].clone())
    }

    pub fn current(&self) -> &Snapshot {
        &self.current
    }

    /// Begins to load the file; the outcome comes as an [`Event::Loaded`].
    pub fn ask(&mut self, tell: &mpsc::Sender<Event>) {
        let Some(file) = self.file.clone() else {
            tracing::warn!("there is no file to reload, nothing was changed");
            return;
        };
        if self.under_way.is_some() {
            self.asked_again = true;
            return;
        }
        let (waiting, failed) = (BTreeSet::new(), BTreeSet::new());
        self.under_way = Some(UnderWay { begun: Instant::now(), waiting, until: None, failed });
        tracing::info!(file = %file.display(), "reloading");
        self.systemd.reloading();
        let own = tell.clone();
        // Looking names up may take long, and signals must be heeded meanwhile.
        let load = move || {
            let loaded = cli::load(&file).map(Box::new);
            let _ = own.send(Event::Loaded(loaded));
        };
        if let Err(e) = thread::Builder::new().name("reload".to_owned()).spawn(load) {
            self.refused(&format!("cannot start a thread: {e}"), tell);
        }
    }

    /// Hands a loaded configuration to the workers; `None` was refused and said so.
    pub fn loaded(&mut self, loaded: Option<Box<Snapshot>>, running: &mut Running<'_>) {
        let Some(snapshot) = loaded else {
            return self.refused("the configuration has errors", running.tell);
        };
        let mut full = running.workers.mailboxes().filter(|(_, mailbox)| mailbox.is_full());
        if let Some((worker, _)) = full.next() {
            let name = workers::name(worker);
            let why = format!("{name} is stuck and has not read its messages for a long time");
            return self.refused(&why, running.tell);
        }
        let opened = self.open_new(&snapshot, running.sockets);
        let ready =
            opened.and_then(|opened| Ok((opened, running.logs.prepare(&snapshot.access_logs)?)));
        match ready {
            Ok((opened, logs)) => self.hand_out(*snapshot, opened, logs, running),
            Err(e) => self.refused(&e, running.tell),
        }
    }

    /// One more worker has the configuration of `generation`, and cannot accept on the listeners in
    /// `failed`.
    pub fn adopted(
        &mut self,
        worker: usize,
        generation: u64,
        failed: Vec<String>,
        tell: &mpsc::Sender<Event>,
    ) {
        let is_awaited = generation == self.current.generation
            && self.under_way.as_mut().is_some_and(|under_way| under_way.waiting.remove(&worker));
        match &mut self.under_way {
            Some(under_way) if is_awaited => {
                under_way.failed.extend(failed);
                self.finish_if_all(tell);
            }
            _ => {
                let name = workers::name(worker);
                tracing::info!(worker = name, generation, ?failed, "adopted at last");
            }
        }
    }

    /// A worker has ended: nothing more is to be expected of it.
    pub fn forget(&mut self, worker: usize, tell: &mpsc::Sender<Event>) {
        if let Some(under_way) = &mut self.under_way
            && under_way.waiting.remove(&worker)
        {
            self.finish_if_all(tell);
        }
    }

    /// Looks whether it is time to wait no longer.
    pub fn look(&mut self, tell: &mpsc::Sender<Event>) {
        let is_over = |at: Instant| Instant::now() >= at;
        let Some(under_way) = &self.under_way else { return };
        if under_way.until.is_some_and(is_over) {
            let missing: Vec<String> =
                under_way.waiting.iter().map(|worker| workers::name(*worker)).collect();
            tracing::warn!(
                missing = missing.join(" "),
                "not every worker has the new configuration: stuck ones adopt it when they go on"
            );
            self.finish_reload(tell);
        }
    }

    fn finish_if_all(&mut self, tell: &mpsc::Sender<Event>) {
        let is_done =
            |under_way: &UnderWay| under_way.until.is_some() && under_way.waiting.is_empty();
        if self.under_way.as_ref().is_some_and(is_done) {
            self.finish_reload(tell);
        }
    }

    /// Says how the reload ended.
    fn finish_reload(&mut self, tell: &mpsc::Sender<Event>) {
        let Some(under_way) = &self.under_way else { return };
        let current = &self.current;
        let (generation, took) = (current.generation, under_way.begun.elapsed());
        let (routes, upstreams) = (current.routes.len(), current.upstreams.len());
        if under_way.failed.is_empty() {
            tracing::info!(generation, routes, upstreams, ?took, "reloaded");
            self.finish(&format!("serving generation {generation}"), tell);
        } else {
            let failed: Vec<&str> = under_way.failed.iter().map(String::as_str).collect();
            let failed = failed.join("; ");
            tracing::error!(
                generation,
                routes,
                upstreams,
                ?took,
                failed,
                "reloaded, but not every new listener accepts"
            );
            let outcome =
                format!("serving generation {generation}, but these do not accept: {failed}");
            self.finish(&outcome, tell);
        }
    }

    /// Frees the configurations that no worker uses any more; whether some are left that will be.
    pub fn free(&mut self) -> bool {
        self.held.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        self.held.iter().any(|snapshot| snapshot.generation < self.current.generation)
    }

    fn refused(&mut self, why: &str, tell: &mpsc::Sender<Event>) {
        let generation = self.current.generation;
        tracing::error!(generation, "reload refused, the configuration in force stays: {why}");
        self.finish(&format!("reload refused, serving generation {generation}: {why}"), tell);
    }

    fn finish(&mut self, outcome: &str, tell: &mpsc::Sender<Event>) {
        self.under_way = None;
        self.systemd.reloaded(outcome);
        if std::mem::take(&mut self.asked_again) {
            self.ask(tell);
        }
    }

    /// Sockets for the listeners that the configuration in force does not have, with a copy of each
    /// for its worker.
    fn open_new(
        &self,
        snapshot: &Snapshot,
        sockets: &mut Sockets,
    ) -> Result<(Opened, Vec<Vec<Bound>>), String> {
        let new = snapshot.listeners.iter().filter(|rule| !has(&self.current, rule));
        let opened = sockets.open(new, snapshot.limits.unsent_bytes)?;
        let bounds = sockets.copies(&opened).map_err(|e| format!("cannot copy a socket: {e}"))?;
        Ok((opened, bounds))
    }

    fn hand_out(
        &mut self,
        mut snapshot: Snapshot,
        (opened, bounds): (Opened, Vec<Vec<Bound>>),
        logs: Prepared,
        running: &mut Running<'_>,
    ) {
        let before = self.current.clone();
        snapshot.generation = before.generation + 1;
        warn_of_fixed(&before.runtime, &snapshot.runtime);
        running.places.resize(before.limits.connections_max, snapshot.limits.connections_max);
        let gone = running.sockets.keep(&snapshot);
        announce(&before, &snapshot, &gone, &opened);
        running.sockets.add(opened);
        let mut waiting = BTreeSet::new();
        let generation = snapshot.generation;
        let patience = PATIENCE * Duration::from_millis(before.runtime.stuck_after_ms);
        let copies = copies(snapshot, &self.registry);
        self.current = copies[0].0.clone();
        self.series = copies.iter().map(|(_, series)| series.clone()).collect();
        let shares = copies.into_iter().zip(bounds).zip(running.logs.adopt(logs));
        let mut shares: Vec<_> = shares.map(Some).collect();
        for (worker, mailbox) in running.workers.mailboxes() {
            let Some((((snapshot, series), listeners), outlets)) = shares[worker].take() else {
                continue;
            };
            self.held.push(snapshot.clone());
            self.route_names.add(&snapshot);
            let tell = running.tell.clone();
            let done: Done = Box::new(move |failed| {
                let _ = tell.send(Event::Adopted { worker, generation, failed });
            });
            let adoption = Box::new(Adoption { snapshot, series, outlets, listeners, done });
            // There was room in each mailbox before anything was changed.
            let _ = mailbox.send(Message::Adopt(adoption));
            waiting.insert(worker);
        }
        if let Some(under_way) = &mut self.under_way {
            under_way.waiting = waiting;
            under_way.until = Some(Instant::now() + patience);
        }
        self.finish_if_all(running.tell);
    }
}

fn copies(snapshot: Snapshot, registry: &Mutex<Registry>) -> Vec<WorkerCopy> {
    let series = registry.lock().expect("nobody panics while counting").adopt(&names(&snapshot));
    let mut copies: Vec<_> = (1..series.len()).map(|_| Arc::new(snapshot.clone())).collect();
    copies.insert(0, Arc::new(snapshot));
    copies.into_iter().zip(series).collect()
}

/// What a configuration has that is counted by name.
fn names(snapshot: &Snapshot) -> Names {
    let upstream = |upstream: &Upstream| UpstreamNames {
        name: upstream.name.clone(),
        endpoints: upstream.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect(),
    };
    Names {
        listeners: snapshot.listeners.iter().map(|listener| listener.name.clone()).collect(),
        routes: snapshot.routes.iter().map(|route| route.name.clone()).collect(),
        upstreams: snapshot.upstreams.iter().map(upstream).collect(),
        series_max: snapshot.metrics.series_max as usize,
        is_off: !snapshot.metrics.enabled,
    }
}

fn has(snapshot: &Snapshot, rule: &ListenerRule) -> bool {
    snapshot.listeners.iter().any(|other| other.is_same_socket(rule))
}

/// Says which listeners come and go. A path that nobody will listen on is removed; one that stays
/// gets the mode that is asked now.
fn announce(before: &Snapshot, now: &Snapshot, gone: &[Held], new: &Opened) {
    gone.iter().for_each(Held::unlink);
    for gone in before.listeners.iter().filter(|rule| !has(now, rule)) {
        tracing::info!(listener = gone.name, "listening no more");
    }
    for rule in now.listeners.iter().filter(|rule| has(before, rule)) {
        if let Bind::Unix { path, mode } = &rule.bind
            && let Err(e) = std::fs::set_permissions(path, Permissions::from_mode(*mode))
        {
            tracing::warn!(listener = rule.name, error = %e, "cannot set the socket's mode");
        }
    }
    for (rule, at) in new.listeners() {
        super::run::announce_listener(rule, at);
    }
}

/// Says which settings differ but cannot change while the process runs.
fn warn_of_fixed(before: &Runtime, now: &Runtime) {
    let differs = [
        ("runtime.workers", before.workers != now.workers),
        ("runtime.io", before.io != now.io),
        ("runtime.ring_entries", before.ring_entries != now.ring_entries),
        ("runtime.stuck_after", before.stuck_after_ms != now.stuck_after_ms),
    ];
    for (key, _) in differs.iter().filter(|(_, differs)| *differs) {
        tracing::warn!("{key} has changed, which takes effect at the next start");
    }
}
