//! Reloading: a new configuration is read and checked on a thread of its own, its new sockets are
//! bound, and every worker gets its copy by one message. Nothing of it touches a request.
//!
//! One reload runs at a time; a wish for another that comes meanwhile is granted after it, once.
//! Whatever is wrong with the new configuration, the old one serves on. Whoever asked is told what
//! became of it.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    admin, cli,
    endpoints::Overrides,
    history::{Became, History},
    logs::{Logs, Prepared},
    run::{Event, bind_all},
    spans::Spans,
    view::ListenerView,
};
use crate::{
    config::{
        Snapshot,
        report::plural,
        snapshot::{Bind, ListenerRule, Runtime, Upstream},
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
        mailbox::{Adoption, Message, Sender},
    },
};

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
    /// By worker: the one it said it has.
    generations: Vec<u64>,
    history: History,
    listeners: Vec<ListenerView>,
}

/// One worker's configuration, where it counts, and where it leaves spans.
pub type WorkerCopy = (Arc<Snapshot>, Arc<Series>, Option<Arc<SpanQueue>>);

struct UnderWay {
    begun: Instant,
    /// Workers that have not said that they have it.
    waiting: usize,
    who: Vec<Reply>,
    warnings: Vec<String>,
}

/// Where the outcome of a reload goes.
pub type Reply = oneshot::Sender<Result<Reloaded, Refused>>;

/// A reload that every worker went along with.
#[derive(Clone, Debug)]
pub struct Reloaded {
    pub generation: u64,
    /// By worker: the generation it has.
    pub workers: Vec<u64>,
    pub took: Duration,
    pub warnings: Vec<String>,
}

/// A reload that changed nothing.
#[derive(Clone, Debug)]
pub enum Refused {
    /// The configuration has errors; the report of `ringway check`.
    BadFile(String),
    /// It cannot be put into force here, such as an address that is in use.
    Impossible(String),
    /// There is no file to read.
    NoFile,
}

/// What was read from the file, or what is wrong with it.
pub type Loaded = Result<(Box<Snapshot>, Vec<String>), String>;

/// What a reload needs of the running gateway.
pub struct Running<'a> {
    pub mailboxes: &'a [Sender],
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
    ) -> (Reloads, Vec<WorkerCopy>) {
        let workers = registry.lock().expect("nobody panics while counting").workers.len();
        let mut spans = Spans::new(workers);
        let copies = copies(snapshot, &registry, &mut spans);
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
            generations: vec![first.generation; copies.len()],
            history,
            listeners: listener_views(first, &[], binds),
        };
        (reloads, copies)
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
            who.into_iter().for_each(|who| drop(who.send(Err(Refused::NoFile))));
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
        let begun = Instant::now();
        self.under_way = Some(UnderWay { begun, waiting: 0, who, warnings: Vec::new() });
        tracing::info!(file = %file.display(), "reloading");
        let own = tell.clone();
        // Looking names up may take long, and signals must be heeded meanwhile.
        let load = move || {
            let loaded = cli::load_and_tell(&file).map(|(new, warnings)| (Box::new(new), warnings));
            let _ = own.send(Event::Loaded(loaded));
        };
        if let Err(e) = thread::Builder::new().name("reload".to_owned()).spawn(load) {
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
        running.overrides.apply(&mut snapshot);
        match self.prepare(&snapshot, running) {
            Ok((sockets, logs)) => self.hand_out(*snapshot, sockets, logs, running),
            Err(e) => self.refused(Refused::Impossible(e), running.tell),
        }
    }

    /// Gets hold of everything that can fail, while nothing has changed. The admin interface, which
    /// moves at once, comes last.
    fn prepare(
        &self,
        snapshot: &Snapshot,
        running: &mut Running<'_>,
    ) -> Result<(Vec<Vec<Bound>>, Prepared), String> {
        let sockets = self.bind_new(snapshot, running.mailboxes.len())?;
        let logs = running.logs.prepare(&snapshot.access_logs)?;
        running.admin.rebind(&snapshot.admin)?;
        Ok((sockets, logs))
    }

    /// Nobody is told any more what became of a reload: the gateway drains.
    pub fn give_up(&mut self) {
        self.waiting_next.clear();
        if let Some(under_way) = &mut self.under_way {
            under_way.who.clear();
        }
    }

    /// One more worker has the new configuration.
    pub fn adopted(&mut self, worker: usize, generation: u64, tell: &mpsc::Sender<Event>) {
        self.generations[worker] = generation;
        let Some(under_way) = &mut self.under_way else { return };
        under_way.waiting = under_way.waiting.saturating_sub(1);
        if under_way.waiting == 0 {
            let current = &self.current;
            tracing::info!(
                generation = current.generation,
                routes = current.routes.len(),
                upstreams = current.upstreams.len(),
                took = ?under_way.begun.elapsed(),
                "reloaded"
            );
            self.history.add(current.generation, Became::Reloaded, &summary(current));
            let reloaded = Reloaded {
                generation: current.generation,
                workers: self.generations.clone(),
                took: under_way.begun.elapsed(),
                warnings: std::mem::take(&mut under_way.warnings),
            };
            self.finish(&Ok(reloaded), tell);
        }
    }

    /// Frees the configurations that no worker uses any more; whether some are left that will be.
    pub fn free(&mut self) -> bool {
        self.held.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        self.held.iter().any(|snapshot| snapshot.generation < self.current.generation)
    }

    fn refused(&mut self, refused: Refused, tell: &mpsc::Sender<Event>) {
        let generation = self.current.generation;
        let (why, detail) = match &refused {
            // Has been printed.
            Refused::BadFile(report) => ("the configuration has errors", report),
            Refused::Impossible(why) => (&**why, why),
            Refused::NoFile => return,
        };
        tracing::error!(generation, "reload refused, the configuration in force stays: {why}");
        self.history.add(generation, Became::Refused, detail);
        self.finish(&Err(refused), tell);
    }

    fn finish(&mut self, outcome: &Result<Reloaded, Refused>, tell: &mpsc::Sender<Event>) {
        let who = self.under_way.take().map(|under_way| under_way.who);
        for who in who.into_iter().flatten() {
            // Whoever asked may have given up.
            let _ = who.send(outcome.clone());
        }
        if std::mem::take(&mut self.asked_again) {
            self.begin_loading(tell);
        }
    }

    /// Sockets for the listeners that the configuration in force does not have, by worker.
    fn bind_new(&self, snapshot: &Snapshot, workers: usize) -> Result<Vec<Vec<Bound>>, String> {
        let new = snapshot.listeners.iter().filter(|rule| !has(&self.current, rule));
        bind_all(new, snapshot.limits.unsent_bytes, workers)
    }

    fn hand_out(
        &mut self,
        mut snapshot: Snapshot,
        sockets: Vec<Vec<Bound>>,
        logs: Prepared,
        running: &mut Running<'_>,
    ) {
        let before = self.current.clone();
        snapshot.generation = before.generation + 1;
        let generation = snapshot.generation;
        let fixed = warn_of_fixed(&before.runtime, &snapshot.runtime);
        let binds: Vec<Bind> = sockets[0].iter().map(|bound| bound.at.clone()).collect();
        self.listeners = listener_views(&snapshot, &self.listeners, &binds);
        running.places.resize(before.limits.connections_max, snapshot.limits.connections_max);
        announce(&before, &snapshot, &sockets[0]);
        let copies = copies(snapshot, &self.registry, &mut self.spans);
        self.current = copies[0].0.clone();
        let mut waiting = 0;
        let each = copies.into_iter().zip(sockets).zip(running.logs.adopt(logs));
        for ((worker, mailbox), (((snapshot, series, spans), listeners), outlets)) in
            running.mailboxes.iter().enumerate().zip(each)
        {
            self.held.push(snapshot.clone());
            let tell = running.tell.clone();
            let done = Box::new(move || {
                let _ = tell.send(Event::Adopted { worker, generation });
            });
            let adoption = Adoption { snapshot, series, outlets, spans, listeners, done };
            let adoption = Box::new(adoption);
            match mailbox.send(Message::Adopt(adoption)) {
                Ok(()) => waiting += 1,
                Err(_) => tracing::error!(worker, "mailbox full, the worker keeps what it has"),
            }
        }
        match &mut self.under_way {
            Some(under_way) if waiting > 0 => {
                under_way.waiting = waiting;
                under_way.warnings.extend(fixed);
            }
            _ => {
                let why = "no worker takes messages".to_owned();
                self.finish(&Err(Refused::Impossible(why)), running.tell);
            }
        }
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
    let spans = spans.adopt(snapshot.tracing.as_ref());
    let series = registry.lock().expect("nobody panics while counting").adopt(&names(&snapshot));
    let mut copies: Vec<_> = (1..series.len()).map(|_| Arc::new(snapshot.clone())).collect();
    copies.insert(0, Arc::new(snapshot));
    let copies = copies.into_iter().zip(series).zip(spans);
    copies.map(|((snapshot, series), spans)| (snapshot, series, spans)).collect()
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
fn announce(before: &Snapshot, now: &Snapshot, new: &[Bound]) {
    for gone in before.listeners.iter().filter(|rule| !has(now, rule)) {
        if let Bind::Unix { path, .. } = &gone.bind {
            let _ = std::fs::remove_file(path);
        }
        tracing::info!(listener = gone.name, "listening no more");
    }
    for rule in now.listeners.iter().filter(|rule| has(before, rule)) {
        if let Bind::Unix { path, mode } = &rule.bind
            && let Err(e) = std::fs::set_permissions(path, Permissions::from_mode(*mode))
        {
            tracing::warn!(listener = rule.name, error = %e, "cannot set the socket's mode");
        }
    }
    for bound in new {
        super::run::announce_listener(&bound.rule, &bound.at);
    }
}

/// Says which settings differ but cannot change while the process runs.
fn warn_of_fixed(before: &Runtime, now: &Runtime) -> Vec<String> {
    let differs = [
        ("runtime.workers", before.workers != now.workers),
        ("runtime.io", before.io != now.io),
        ("runtime.ring_entries", before.ring_entries != now.ring_entries),
    ];
    let differs = differs.iter().filter(|(_, differs)| *differs);
    let warning = |key| format!("{key} has changed, which takes effect at the next start");
    let warnings: Vec<String> = differs.map(|(key, _)| warning(key)).collect();
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    warnings
}
