//! Reloading: a new configuration is read and checked on a thread of its own, its new sockets are
//! bound, and every worker gets its copy by one message. Nothing of it touches a request.
//!
//! One reload runs at a time; a wish for another that comes meanwhile is granted after it, once.
//! Whatever is wrong with the new configuration, the old one serves on.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Instant,
};

use super::{
    cli,
    logs::{Logs, Prepared},
    run::{Event, bind_all},
    spans::Spans,
};
use crate::{
    config::{
        Snapshot,
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
}

/// One worker's configuration, where it counts, and where it leaves spans.
pub type WorkerCopy = (Arc<Snapshot>, Arc<Series>, Option<Arc<SpanQueue>>);

struct UnderWay {
    begun: Instant,
    /// Workers that have not said that they have it.
    waiting: usize,
}

/// What a reload needs of the running gateway.
pub struct Running<'a> {
    pub mailboxes: &'a [Sender],
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
    ) -> (Reloads, Vec<WorkerCopy>) {
        let workers = registry.lock().expect("nobody panics while counting").workers.len();
        let mut spans = Spans::new(workers);
        let copies = copies(snapshot, &registry, &mut spans);
        let reloads = Reloads {
            file,
            current: copies[0].0.clone(),
            held: copies.iter().map(|(snapshot, ..)| snapshot.clone()).collect(),
            registry,
            spans,
            under_way: None,
            asked_again: false,
        };
        (reloads, copies)
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
        self.under_way = Some(UnderWay { begun: Instant::now(), waiting: 0 });
        tracing::info!(file = %file.display(), "reloading");
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
    pub fn loaded(&mut self, loaded: Option<Box<Snapshot>>, running: &Running<'_>) {
        let Some(snapshot) = loaded else {
            return self.refused("the configuration has errors", running.tell);
        };
        let bound = self.bind_new(&snapshot, running.mailboxes.len());
        let ready =
            bound.and_then(|sockets| Ok((sockets, running.logs.prepare(&snapshot.access_logs)?)));
        match ready {
            Ok((sockets, logs)) => self.hand_out(*snapshot, sockets, logs, running),
            Err(e) => self.refused(&e, running.tell),
        }
    }

    /// One more worker has the new configuration.
    pub fn adopted(&mut self, tell: &mpsc::Sender<Event>) {
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
            self.finish(tell);
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
        self.finish(tell);
    }

    fn finish(&mut self, tell: &mpsc::Sender<Event>) {
        self.under_way = None;
        if std::mem::take(&mut self.asked_again) {
            self.ask(tell);
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
        running: &Running<'_>,
    ) {
        let before = self.current.clone();
        snapshot.generation = before.generation + 1;
        warn_of_fixed(&before.runtime, &snapshot.runtime);
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
                let _ = tell.send(Event::Adopted);
            });
            let adoption = Adoption { snapshot, series, outlets, spans, listeners, done };
            let adoption = Box::new(adoption);
            match mailbox.send(Message::Adopt(adoption)) {
                Ok(()) => waiting += 1,
                Err(_) => tracing::error!(worker, "mailbox full, the worker keeps what it has"),
            }
        }
        match &mut self.under_way {
            Some(under_way) if waiting > 0 => under_way.waiting = waiting,
            _ => self.finish(running.tell),
        }
    }
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
fn warn_of_fixed(before: &Runtime, now: &Runtime) {
    let differs = [
        ("runtime.workers", before.workers != now.workers),
        ("runtime.io", before.io != now.io),
        ("runtime.ring_entries", before.ring_entries != now.ring_entries),
    ];
    for (key, _) in differs.iter().filter(|(_, differs)| *differs) {
        tracing::warn!("{key} has changed, which takes effect at the next start");
    }
}
