//! Reloading: a new configuration is read and checked on a thread of its own, its new sockets are
//! bound, and every worker gets its copy by one message. Nothing of it touches a request.
//!
//! One reload runs at a time; a wish for another that comes meanwhile is granted after it, once.
//! Whatever is wrong with the new configuration, the old one serves on. Whoever asked is told what
//! became of it. A worker that is stuck does not hold a reload up for ever: it has the new
//! configuration in its mailbox and adopts it when it goes on.

use std::{
    collections::BTreeSet,
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    admin, behind, cli,
    endpoints::Overrides,
    history::{Became, History},
    kernel_tls,
    logs::{Logs, Prepared},
    run::Event,
    sockets::{Held, Opened, Sockets},
    spans::Spans,
    systemd::Systemd,
    view::ListenerView,
    watch,
    workers::{self, Workers},
};
use crate::{
    config::{
        Snapshot,
        report::plural,
        snapshot::{Bind, ListenerRule, Upstream},
    },
    telemetry::{
        metrics::{
            registry::{Names, Registry, UpstreamNames},
            shards::Series,
        },
        trace::queue::SpanQueue,
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
    pub spans: Spans,
    under_way: Option<UnderWay>,
    asked_again: bool,
    /// Who waits for the reload after the one under way.
    waiting_next: Vec<Reply>,
    history: History,
    listeners: Vec<ListenerView>,
    /// By worker: where each counts and leaves spans now.
    tallies: Vec<(Arc<Series>, Option<Arc<SpanQueue>>)>,
    /// For reports of stuck workers.
    route_names: watch::Names,
    systemd: Systemd,
}

/// One worker's configuration, where it counts, and where it leaves spans.
pub type WorkerCopy = (Arc<Snapshot>, Arc<Series>, Option<Arc<SpanQueue>>);

struct UnderWay {
    begun: Instant,
    /// Workers that have not said that they have it.
    waiting: BTreeSet<usize>,
    /// When those are no longer waited for. `None` while the file is read.
    until: Option<Instant>,
    /// Listeners that workers cannot accept on, with why.
    failed: BTreeSet<String>,
    who: Vec<Reply>,
    warnings: Vec<String>,
}

/// Where the outcome of a reload goes.
pub type Reply = oneshot::Sender<Result<Reloaded, Refused>>;

/// A reload that is in force.
#[derive(Clone, Debug)]
pub struct Reloaded {
    pub generation: u64,
    /// By worker: the generation it has.
    pub workers: Vec<u64>,
    pub took: Duration,
    pub warnings: Vec<String>,
    /// What is not as the configuration says: workers that are stuck, listeners that do not accept.
    pub lacking: Vec<String>,
}

/// A reload that changed nothing.
#[derive(Clone, Debug)]
pub enum Refused {
    /// The configuration has errors; the report of `ringway check`.
    BadFile(String),
    /// It cannot be put into force here, such as an address that is in use.
    Impossible(String),
    /// A worker takes no messages.
    Crowded(String),
    /// Not while something else goes on, or never.
    NotNow(&'static str),
}

/// What was read from the file, or what is wrong with it.
pub type Loaded = Result<(Box<Snapshot>, Vec<String>), String>;

/// Sockets of listeners that are new, and a copy of each for its worker, by worker.
type NewSockets = (Opened, Vec<Vec<Bound>>);

/// What a reload needs of the running gateway.
pub struct Running<'a> {
    pub workers: &'a Workers,
    pub sockets: &'a mut Sockets,
    pub places: &'a Places,
    pub logs: &'a Logs,
    pub tell: &'a mpsc::Sender<Event>,
    pub overrides: &'a Overrides,
    pub admin: &'a mut admin::Server,
}

impl Reloads {
    /// Each worker's copy of the first configuration. Copies, because a worker must not share what
    /// it writes to in passing, such as the scratch memory of a regular expression.
    pub fn begin(
        file: Option<PathBuf>,
        snapshot: Snapshot,
        registry: Arc<Mutex<Registry>>,
        binds: &[Bind],
        systemd: Systemd,
    ) -> (Reloads, Vec<WorkerCopy>) {
        let workers = registry.lock().expect("nobody panics while counting").workers.len();
        let mut spans = Spans::new(workers);
        let copies = copies(snapshot, &registry, &mut spans);
        let route_names = watch::Names::default();
        copies.iter().for_each(|(copy, ..)| route_names.add(copy));
        let first = &copies[0].0;
        let mut history = History::default();
        history.add(first.generation, Became::Started, &summary(first));
        let reloads = Reloads {
            file,
            current: copies[0].0.clone(),
            held: copies.iter().map(|(snapshot, ..)| snapshot.clone()).collect(),
            registry,
            spans,
            under_way: None,
            asked_again: false,
            waiting_next: Vec::new(),
            history,
            listeners: listener_views(first, &[], binds),
            tallies: tallies(&copies),
            route_names,
            systemd,
        };
        (reloads, copies)
    }

    /// The names of the routes in use.
    pub fn route_names(&self) -> watch::Names {
        self.route_names.clone()
    }

    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// When to call [`Reloads::look`].
    pub fn look_at(&self) -> Option<Instant> {
        self.under_way.as_ref()?.until
    }

    /// A copy of the configuration in force, for a worker that is started again.
    pub fn copy(&mut self, worker: usize, overrides: &Overrides) -> WorkerCopy {
        let mut copy = Snapshot::clone(&self.current);
        overrides.apply(&mut copy);
        let copy = Arc::new(copy);
        self.held.push(copy.clone());
        self.route_names.add(&copy);
        let (series, spans) = self.tallies[worker].clone();
        (copy, series, spans)
    }

    pub fn current(&self) -> &Arc<Snapshot> {
        &self.current
    }

    pub fn file(&self) -> Option<&PathBuf> {
        self.file.as_ref()
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    pub fn listeners(&self) -> &[ListenerView] {
        &self.listeners
    }

    /// Begins to load the file; the outcome comes as an [`Event::Loaded`], and goes to `who` when
    /// every worker has it.
    pub fn ask(&mut self, tell: &mpsc::Sender<Event>, who: Option<Reply>) {
        if self.file.is_none() {
            tracing::warn!("there is no file to reload, nothing was changed");
            if let Some(who) = who {
                let why = "this gateway was not started from a file: there is none to read";
                let _ = who.send(Err(Refused::NotNow(why)));
            }
            return;
        }
        self.waiting_next.extend(who);
        if self.under_way.is_some() {
            self.asked_again = true;
            return;
        }
        self.begin_loading(tell);
    }

    fn begin_loading(&mut self, tell: &mpsc::Sender<Event>) {
        let Some(file) = self.file.clone() else { return };
        let who = std::mem::take(&mut self.waiting_next);
        self.under_way = Some(UnderWay {
            begun: Instant::now(),
            waiting: BTreeSet::new(),
            until: None,
            failed: BTreeSet::new(),
            who,
            warnings: Vec::new(),
        });
        tracing::info!(file = %file.display(), "reloading");
        self.systemd.reloading();
        let own = tell.clone();
        // Looking names up may take long, and signals must be heeded meanwhile.
        let load = move || {
            // A large file of keys takes a core for a second.
            let loaded = cli::load_and_tell(&file).map(|(new, warnings)| (Box::new(new), warnings));
            let _ = own.send(Event::Loaded(loaded));
        };
        if let Err(e) = behind::spawn("reload", load) {
            self.refused(Refused::Impossible(format!("cannot start a thread: {e}")), tell);
        }
    }

    /// Hands a loaded configuration to the workers; one with errors has been reported.
    pub fn loaded(&mut self, loaded: Loaded, running: &mut Running<'_>) {
        let (mut snapshot, warnings) = match loaded {
            Ok(loaded) => loaded,
            Err(report) => return self.refused(Refused::BadFile(report), running.tell),
        };
        if let Some(under_way) = &mut self.under_way {
            under_way.warnings = warnings;
        }
        if let Some(why) = running.workers.cannot_be_told() {
            return self.refused(Refused::Crowded(why), running.tell);
        }
        running.overrides.apply(&mut snapshot);
        match self.prepare(&snapshot, running) {
            Ok((opened, logs)) => self.hand_out(*snapshot, opened, logs, running),
            Err(e) => self.refused(Refused::Impossible(e), running.tell),
        }
    }

    /// Gets hold of everything that can fail, while nothing has changed. The admin interface, which
    /// moves at once, comes last.
    fn prepare(
        &self,
        snapshot: &Snapshot,
        running: &mut Running<'_>,
    ) -> Result<(NewSockets, Prepared), String> {
        let opened = self.open_new(snapshot, running.sockets)?;
        let logs = running.logs.prepare(&snapshot.access_logs)?;
        running.admin.rebind(&snapshot.admin)?;
        Ok((opened, logs))
    }

    /// Nobody is told any more what became of a reload: the gateway drains.
    pub fn give_up(&mut self) {
        self.waiting_next.clear();
        if let Some(under_way) = &mut self.under_way {
            under_way.who.clear();
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
        let Some(under_way) = &mut self.under_way else { return };
        let current = &self.current;
        let (generation, took) = (current.generation, under_way.begun.elapsed());
        let (routes, upstreams) = (current.routes.len(), current.upstreams.len());
        let warnings = std::mem::take(&mut under_way.warnings);
        let mut lacking = Vec::new();
        if under_way.failed.is_empty() {
            tracing::info!(generation, routes, upstreams, ?took, "reloaded");
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
            lacking.push(format!("these listeners do not accept: {failed}"));
        }
        for worker in &under_way.waiting {
            let name = workers::name(*worker);
            lacking.push(format!("{name} is stuck and adopts it when it goes on"));
        }
        self.history.add(generation, Became::Reloaded, &summary(current));
        // A worker notes its generation before it says that it has it.
        let registry = self.registry.lock().expect("nobody panics while counting");
        let workers = registry.workers.iter().map(|shard| shard.generation.get()).collect();
        drop(registry);
        self.finish(&Ok(Reloaded { generation, workers, took, warnings, lacking }), tell);
    }

    /// Frees the configurations that no worker uses any more; whether some are left that will be.
    pub fn free(&mut self) -> bool {
        let unused: Vec<_> =
            self.held.extract_if(.., |snapshot| Arc::strong_count(snapshot) == 1).collect();
        if !unused.is_empty() {
            // A million consumers are a million blocks. Where there can be no thread, this one
            // frees them.
            let _ = behind::spawn("free", move || drop(unused));
        }
        self.held.iter().any(|snapshot| snapshot.generation < self.current.generation)
    }

    fn refused(&mut self, refused: Refused, tell: &mpsc::Sender<Event>) {
        let generation = self.current.generation;
        let (why, detail) = match &refused {
            // Has been printed.
            Refused::BadFile(report) => ("the configuration has errors", report),
            Refused::Impossible(why) | Refused::Crowded(why) => (&**why, why),
            Refused::NotNow(_) => return,
        };
        tracing::error!(generation, "reload refused, the configuration in force stays: {why}");
        self.history.add(generation, Became::Refused, detail);
        self.finish(&Err(refused), tell);
    }

    fn finish(&mut self, outcome: &Result<Reloaded, Refused>, tell: &mpsc::Sender<Event>) {
        let who = self.under_way.take().map(|under_way| under_way.who);
        let generation = self.current.generation;
        self.systemd.reloaded(&match outcome {
            Ok(done) if done.lacking.is_empty() => format!("serving generation {generation}"),
            Ok(done) => {
                format!("serving generation {generation}, but {}", done.lacking.join("; "))
            }
            Err(Refused::Impossible(why) | Refused::Crowded(why)) => {
                format!("reload refused, serving generation {generation}: {why}")
            }
            Err(_) => format!(
                "reload refused, serving generation {generation}: the configuration has errors"
            ),
        });
        for who in who.into_iter().flatten() {
            // Whoever asked may have given up.
            let _ = who.send(outcome.clone());
        }
        if std::mem::take(&mut self.asked_again) {
            self.begin_loading(tell);
        }
    }

    /// Sockets for the listeners that the configuration in force does not have, with a copy of each
    /// for its worker.
    fn open_new(&self, snapshot: &Snapshot, sockets: &mut Sockets) -> Result<NewSockets, String> {
        let new = snapshot.listeners.iter().filter(|rule| !has(&self.current, rule));
        let opened = sockets.open(new, snapshot.limits.unsent_bytes)?;
        let bounds = sockets.copies(&opened).map_err(|e| format!("cannot copy a socket: {e}"))?;
        Ok((opened, bounds))
    }

    fn hand_out(
        &mut self,
        mut snapshot: Snapshot,
        (opened, bounds): NewSockets,
        logs: Prepared,
        running: &mut Running<'_>,
    ) {
        let before = self.current.clone();
        snapshot.generation = before.generation + 1;
        let fixed = warn_of_fixed(&before, &snapshot);
        let binds: Vec<Bind> = opened.listeners().map(|(_, at)| at.clone()).collect();
        self.listeners = listener_views(&snapshot, &self.listeners, &binds);
        running.places.resize(before.limits.connections_max, snapshot.limits.connections_max);
        let gone = running.sockets.keep(&snapshot);
        announce(&before, &snapshot, &gone, &opened);
        running.sockets.add(opened);
        let mut waiting = BTreeSet::new();
        let generation = snapshot.generation;
        let patience = PATIENCE * Duration::from_millis(before.runtime.stuck_after_ms);
        let copies = copies(snapshot, &self.registry, &mut self.spans);
        self.current = copies[0].0.clone();
        self.tallies = tallies(&copies);
        let shares = copies.into_iter().zip(bounds).zip(running.logs.adopt(logs));
        let mut shares: Vec<_> = shares.map(Some).collect();
        for (worker, mailbox) in running.workers.mailboxes() {
            let Some((((snapshot, series, spans), listeners), outlets)) = shares[worker].take()
            else {
                continue;
            };
            self.held.push(snapshot.clone());
            self.route_names.add(&snapshot);
            let tell = running.tell.clone();
            let done: Done = Box::new(move |failed| {
                let _ = tell.send(Event::Adopted { worker, generation, failed });
            });
            let adoption = Adoption { snapshot, series, outlets, spans, listeners, done };
            // There was room in each mailbox before anything was changed.
            let _ = mailbox.send(Message::Adopt(Box::new(adoption)));
            waiting.insert(worker);
        }
        if let Some(under_way) = &mut self.under_way {
            under_way.waiting = waiting;
            under_way.warnings.extend(fixed);
            under_way.until = Some(Instant::now() + patience);
        }
        self.finish_if_all(running.tell);
    }
}

/// What a configuration has, in words.
fn summary(snapshot: &Snapshot) -> String {
    format!(
        "{}, {}, {}",
        plural(snapshot.listeners.len(), "listener"),
        plural(snapshot.routes.len(), "route"),
        plural(snapshot.upstreams.len(), "upstream"),
    )
}

/// Listeners with where they are bound: as `before`, or by the sockets that are new, in order.
fn listener_views(snapshot: &Snapshot, before: &[ListenerView], new: &[Bind]) -> Vec<ListenerView> {
    let mut new = new.iter();
    let bound = |rule: &ListenerRule| {
        let kept = before.iter().find(|view| view.rule.is_same_socket(rule));
        kept.map(|view| view.bind.clone()).or_else(|| new.next().cloned())
    };
    let mut bound = bound;
    let view = |rule: &ListenerRule| {
        let bind = bound(rule).unwrap_or_else(|| rule.bind.clone());
        ListenerView { rule: rule.clone(), bind }
    };
    snapshot.listeners.iter().map(view).collect()
}

fn copies(snapshot: Snapshot, registry: &Mutex<Registry>, spans: &mut Spans) -> Vec<WorkerCopy> {
    kernel_tls::look(&snapshot);
    let spans = spans.adopt(snapshot.tracing.as_ref());
    let series = registry.lock().expect("nobody panics while counting").adopt(&names(&snapshot));
    let mut copies: Vec<_> = (1..series.len()).map(|_| Arc::new(snapshot.clone())).collect();
    copies.insert(0, Arc::new(snapshot));
    let copies = copies.into_iter().zip(series).zip(spans);
    copies.map(|((snapshot, series), spans)| (snapshot, series, spans)).collect()
}

fn tallies(copies: &[WorkerCopy]) -> Vec<(Arc<Series>, Option<Arc<SpanQueue>>)> {
    copies.iter().map(|(_, series, spans)| (series.clone(), spans.clone())).collect()
}

/// What a configuration has that is counted by name.
fn names(snapshot: &Snapshot) -> Names {
    let upstream = |upstream: &Upstream| UpstreamNames {
        name: upstream.name.clone(),
        endpoints: upstream.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect(),
    };
    let (consumers, series_max) = (&snapshot.consumers.all, snapshot.metrics.series_max);
    // Bounded by the maximum of consumers.
    let all = consumers.len() as u32;
    Names {
        consumers: (0..all.min(series_max)).map(|at| consumers.name(at).to_owned()).collect(),
        has_more_consumers: all > series_max,
        listeners: snapshot.listeners.iter().map(|listener| listener.name.clone()).collect(),
        routes: snapshot.routes.iter().map(|route| route.name.clone()).collect(),
        upstreams: snapshot.upstreams.iter().map(upstream).collect(),
        limits: snapshot.limit_names(),
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
fn warn_of_fixed(before: &Snapshot, now: &Snapshot) -> Vec<String> {
    let is_moved = before.quota_store != now.quota_store;
    let (before, now) = (&before.runtime, &now.runtime);
    let differs = [
        ("quota_store", is_moved),
        ("runtime.workers", before.workers != now.workers),
        ("runtime.io", before.io != now.io),
        ("runtime.ring_entries", before.ring_entries != now.ring_entries),
        ("runtime.spin", before.spin != now.spin),
        ("runtime.stuck_after", before.stuck_after_ms != now.stuck_after_ms),
    ];
    let differs = differs.iter().filter(|(_, differs)| *differs);
    let warning = |key| format!("{key} has changed, which takes effect at the next start");
    let warnings: Vec<String> = differs.map(|(key, _)| warning(key)).collect();
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    warnings
}
