//! The start: sockets, workers, signals, and what must have happened before anybody is served. No
//! worker accepts before all can, so that a start that fails has taken no connection.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::Signals,
};

use super::{
    acme::{Acme, Board},
    admin, cores,
    endpoints::Overrides,
    fleet::Fleet,
    history::unix_now,
    jwks::Jwks,
    logs::Logs,
    oidc::Logins,
    quotas::{self, Quotas, ledger::Ledger},
    ready::{Life, Readiness},
    reload::Reloads,
    run::{Ending, Event, Gateway, announce_listener, refuse_upgrade, view_of},
    sockets::{Opened, Sockets},
    systemd::{self, Systemd},
    takeover::Takeover,
    view::{Counted, Shared},
    watch::Watch,
    workers::Workers,
};
use crate::{
    config::{Snapshot, snapshot::Bind},
    telemetry::metrics::registry::Registry,
    worker::{clients::Places, heap, splice},
};

impl Gateway {
    /// Starts everything; `takeover` is the process whose place this one takes.
    pub fn start(
        snapshot: Snapshot,
        file: Option<PathBuf>,
        takeover: &mut Option<Takeover>,
        ready: impl FnOnce(&[Bind]),
    ) -> Result<Gateway, String> {
        let cores = cores::plan(&snapshot.runtime.workers)?;
        raise_descriptor_limit(&snapshot, cores.len());
        if let Err(e) = heap::without_huge_pages() {
            tracing::warn!(error = %e, "cannot do without huge pages: idle connections take more");
        }
        let offered = match takeover {
            Some(takeover) => std::mem::take(&mut takeover.offered),
            None => systemd::activated()?,
        };
        let mut sockets = Sockets::new(cores.len(), offered);
        let opened = sockets.open(snapshot.listeners.iter(), snapshot.limits.unsent_bytes)?;
        sockets.decline_rest(&opened);
        let binds: Vec<Bind> = opened.listeners().map(|(_, at)| at.clone()).collect();
        let kept = quotas::open(&snapshot, takeover.is_some())?;
        let mut gateway = Gateway::build(snapshot, file, sockets, (&cores, &binds), kept)?;
        let reload = gateway.begin(opened, &cores, takeover)?;
        ready(&binds);
        if reload {
            gateway.reloads.ask(&gateway.tell, None);
        }
        std::mem::take(&mut gateway.early).into_iter().for_each(|ask| gateway.asked(ask));
        Ok(gateway)
    }

    /// Everything is there, and nobody is served yet.
    fn build(
        snapshot: Snapshot,
        file: Option<PathBuf>,
        sockets: Sockets,
        (cores, binds): (&[u32], &[Bind]),
        (ledger, folder): (Ledger, Option<quotas::Folder>),
    ) -> Result<Gateway, String> {
        let (tell, events) = mpsc::channel();
        catch_signals(tell.clone()).map_err(|e| format!("cannot catch signals: {e}"))?;
        let places = Places::new(snapshot.limits.connections_max);
        let systemd = Systemd::new();
        let logs = Logs::new(cores.len());
        let outlets = logs.adopt(logs.prepare(&snapshot.access_logs)?);
        let registry = Arc::new(Mutex::new(Registry::new(cores.len())));
        let (reloads, copies) =
            Reloads::begin(file, snapshot, registry.clone(), binds, systemd.clone());
        let shares = copies.into_iter().zip(outlets);
        let workers = Workers::start(cores, shares, places.clone(), ledger.clone(), tell.clone())?;
        let views: Vec<_> = (0..cores.len()).map(|worker| workers.view(worker)).collect();
        let (readiness, overrides) = (Readiness::default(), Overrides::default());
        let view = view_of(&reloads, &views, &overrides, unix_now());
        let (ready_as, spans) = (readiness.clone(), reloads.spans.totals());
        let board = Board::default();
        let acme = Acme::new(board.clone());
        let counted =
            Counted { registry: registry.clone(), logs: logs.clone(), spans, acme: board, ledger };
        let shared = Shared::new(view, ready_as, counted, tell.clone());
        let quotas = Quotas::begin(folder, &shared)?;
        let admin = admin::Server::idle(shared.clone())?;
        Ok(Gateway {
            workers,
            sockets,
            places,
            tell,
            events,
            reloads,
            readiness,
            overrides,
            views,
            shared,
            admin,
            file_watch: None,
            early: Vec::new(),
            systemd,
            upgrade: None,
            ending: Ending::No,
            logs,
            acme,
            jwks: Jwks::default(),
            fleet: Fleet::default(),
            quotas,
            logins: Logins::default(),
            registry,
            connections_cut: 0,
            failed: false,
        })
    }

    /// Begins to serve when every worker can. Answers whether a reload was asked for meanwhile.
    fn begin(
        &mut self,
        opened: Opened,
        cores: &[u32],
        takeover: &mut Option<Takeover>,
    ) -> Result<bool, String> {
        let settings = self.reloads.current().admin.clone();
        let mut taken_admin = Vec::new();
        match takeover {
            // Asked before it may serve, its answer would be "starting".
            Some(takeover) => {
                taken_admin = self.admin.offer(std::mem::take(&mut takeover.admin), &settings);
            }
            None => self.admin.rebind(&settings)?,
        }
        let mut reload = self.await_start()?;
        if let Some(takeover) = takeover {
            takeover.ready(opened.taken.clone(), taken_admin)?;
            self.admin.rebind(&settings)?;
        }
        reload |= self.listen(&opened)?;
        self.begin_watch().map_err(|e| format!("cannot start a thread: {e}"))?;
        self.watch_file();
        self.readiness.set(Life::Serving);
        self.publish();
        // Who has read it may rely on all of the above.
        self.announce(&opened, cores);
        self.sockets.add(opened);
        self.systemd.started(takeover.is_some());
        if let Some(takeover) = takeover.take() {
            takeover.serving();
        }
        Ok(reload)
    }

    /// Waits until every worker has its runtime. Answers whether a reload was asked for meanwhile:
    /// the file may have changed after it was read.
    fn await_start(&mut self) -> Result<bool, String> {
        let (mut waiting, mut reload) = (self.workers.len(), false);
        while waiting > 0 {
            match self.events.recv() {
                Ok(Event::Started { worker, driver, ring }) => {
                    waiting -= 1;
                    self.started(worker, driver, ring);
                }
                Ok(event) => reload |= self.starting(event)?,
                Err(_) => return Err(ENDED.to_owned()),
            }
        }
        Ok(reload)
    }

    /// Lets every worker accept; none does before all can. Answers as [`Gateway::await_start`].
    fn listen(&mut self, opened: &Opened) -> Result<bool, String> {
        let bounds = self.sockets.copies(opened);
        let bounds = bounds.map_err(|e| format!("cannot copy a socket: {e}"))?;
        for (worker, listeners) in bounds.into_iter().enumerate() {
            self.workers.listen(worker, listeners);
        }
        let (mut waiting, mut reload) = (self.workers.len(), false);
        while waiting > 0 {
            match self.events.recv() {
                Ok(Event::Listening { failed, .. }) if failed.is_empty() => waiting -= 1,
                Ok(Event::Listening { worker, failed }) => {
                    return Err(format!("worker {worker} cannot accept: {}", failed.join("; ")));
                }
                Ok(event) => reload |= self.starting(event)?,
                Err(_) => return Err(ENDED.to_owned()),
            }
        }
        Ok(reload)
    }

    /// What may happen while the workers start. Answers whether a reload was asked for.
    fn starting(&mut self, event: Event) -> Result<bool, String> {
        match event {
            Event::Signal(SIGHUP) => return Ok(true),
            Event::Signal(SIGUSR1) => self.logs.reopen(),
            Event::Ask(ask) => self.early.push(ask),
            Event::Signal(SIGUSR2) => {
                refuse_upgrade("this process is starting".to_owned(), None);
            }
            Event::Ended { worker, result: Err(e) } => {
                return Err(format!("worker {worker} cannot start: {e}"));
            }
            _ => return Err(ENDED.to_owned()),
        }
        Ok(false)
    }

    fn announce(&self, opened: &Opened, cores: &[u32]) {
        let snapshot = self.reloads.current();
        opened.listeners().for_each(|(rule, at)| announce_listener(rule, at));
        tracing::info!(
            ?cores,
            routes = snapshot.routes.len(),
            upstreams = snapshot.upstreams.len(),
            "ready"
        );
    }

    fn begin_watch(&self) -> io::Result<()> {
        let watch = Watch {
            beats: self.workers.beats(),
            names: self.reloads.route_names(),
            signs: self.shared.signs.clone(),
            stuck_after: Duration::from_millis(self.reloads.current().runtime.stuck_after_ms),
            watchdog: systemd::watchdog(),
            readiness: self.readiness.clone(),
            systemd: self.systemd.clone(),
        };
        watch.begin()
    }
}

const ENDED: &str = "ended while starting";

fn catch_signals(tell: mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2])?;
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
fn raise_descriptor_limit(snapshot: &Snapshot, workers: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %e, "cannot raise the limit on open descriptors");
    }
    // A connection may need one descriptor on each side, a pipe has two.
    let pipes = if snapshot.limits.splice_bytes > 0 { workers * splice::PIPES_MAX } else { 0 };
    let needed = 2 * (u64::from(snapshot.limits.connections_max) + pipes as u64);
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
