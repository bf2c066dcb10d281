//! All data-path I/O of one core.
//!
//! A [`Worker`] owns everything its core needs; no other core reaches it. It never blocks, never
//! locks, never resolves a name and never reads a file. The only ways in are its mailbox, and for
//! clients' connections that other workers give it, its [`siblings::Sibling`].
//!
//! A request's way, forward only: [`listener`] → [`h1`] → [`pipeline`] → `policy` →
//! [`forward`] → [`pool`], and back.

pub mod alarm;
mod announce;
pub mod arrival;
pub mod auth;
pub mod beat;
pub mod bell;
#[doc(hidden)]
pub mod bench;
pub mod body;
pub mod buffers;
pub mod client;
pub mod clients;
pub mod clock;
pub mod concurrency;
pub mod deadline;
pub mod door;
#[cfg(debug_assertions)]
mod drill;
mod end;
pub mod errand;
pub mod exchange;
pub mod forward;
pub mod generation;
pub mod grpc_web;
pub mod h1;
pub mod h2;
pub mod heap;
pub mod home;
pub mod isolate;
pub mod kernel_tls;
pub mod listener;
pub mod logs;
pub mod mailbox;
pub mod net;
pub mod passthrough;
pub mod pipeline;
pub mod policies;
pub mod pool;
mod proxied;
pub mod rate_limits;
mod received;
mod removed;
pub mod replies;
pub mod report;
pub mod reshape;
pub mod respond;
pub mod ring;
pub mod roster;
pub mod runtime;
mod session;
mod shape;
pub mod siblings;
pub mod slowest;
pub mod spin;
pub mod splice;
pub mod subrequest;
pub mod tls;
pub mod trace;
pub mod tunnel;
pub mod websocket;

use std::{
    cell::{Cell, RefCell},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use crate::{
    config::{
        Snapshot,
        snapshot::{ServerTiming, Timeouts},
    },
    telemetry::{
        access_log::Stamp,
        metrics::shards::{Series, WorkerShard},
        request_id::Random,
        trace::queue::SpanQueue,
    },
    wire::ResponseHead,
};
use alarm::Alarms;
use auth::{known::Known, nonces::Nonces, passwords::Passwords};
use beat::{Beat, Doing};
use buffers::Buffers;
use clients::{Clients, Places};
use deadline::{Deadlines, TICK_MS};
use errand::{Desk, Errands};
use exchange::Request;
use generation::Generation;
use home::Homes;
use listener::{Bound, Listening};
use logs::Outlet;
use mailbox::{Adoption, Mailbox, Message};
use rate_limits::quota;
use ring::RingView;
use roster::Roster;
use runtime::Driver;
use shape::Coders;
use siblings::{Sibling, Siblings};
use slowest::Slowest;
use splice::Pipes;

/// One core's share of the gateway. All of it is owned; no other core reaches it.
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// Its sign of life, which control looks at.
    pub beat: Arc<Beat>,
    /// This core's own copy of the checked configuration, with balancer state and idle connections
    /// of each upstream.
    generation: RefCell<Rc<Generation>>,
    listening: RefCell<Vec<Listening>>,
    /// Memory lent to the kernel and parsed in place.
    pub buffers: Rc<Buffers>,
    /// Ways for large bodies through the kernel.
    pub pipes: Pipes,
    pub deadlines: Rc<Deadlines>,
    /// Waits that are not a socket's own.
    pub alarms: Rc<Alarms>,
    /// What its HTTP/2 clients hold together.
    pub crowd: Rc<h2::Crowd>,
    pub turns: Rc<h2::Turns>,
    pub date: clock::DateText,
    /// The time as access logs write it.
    pub stamp: RefCell<Stamp>,
    pub random: Random,
    pub metrics: Arc<WorkerShard>,
    pub clients: Rc<Clients>,
    /// The other workers, to which it may give connections.
    pub siblings: Siblings,
    /// The homes of keys that all workers share.
    pub homes: Homes,
    /// Requests that wait for the home of their key.
    pub limit_waits: rate_limits::Waits,
    /// Requests that wait for others to end.
    pub permit_waits: concurrency::Waits,
    /// Every client connection, for whoever asks.
    pub roster: Rc<Roster>,
    pub slowest: Slowest,
    /// What others do for it.
    pub errands: Errands,
    /// Bodies that it compresses and decompresses.
    pub coders: Coders,
    /// Identities made lately, and passwords verified lately.
    pub known: Known,
    pub passwords: Passwords,
    /// Those of signatures by keys whose home it is.
    pub nonces: Nonces,
    /// Connections being told that there is no room.
    pub shedding: Cell<u32>,
    pub draining: Cell<bool>,
    /// What still runs is being cut off.
    pub is_cut: Cell<bool>,
    /// The driver wants non-blocking descriptors.
    pub is_epoll: bool,
    /// Where heads are written before they go in front of a body.
    scratch: Cell<Vec<u8>>,
    /// Room for lines that are added to a response.
    lines: Cell<Vec<u8>>,
    // Boxed because an exchange holds it across awaits: a pointer keeps its task small.
    #[expect(clippy::vec_box, reason = "handed out as a box")]
    requests: RefCell<Vec<Box<Request>>>,
    #[expect(clippy::vec_box, reason = "handed out as a box")]
    response_heads: RefCell<Vec<Box<ResponseHead>>>,
}

/// What control hands to a new worker's thread.
pub struct Seed {
    pub index: usize,
    pub snapshot: Arc<Snapshot>,
    pub series: Arc<Series>,
    /// Where it leaves spans, when there is tracing.
    pub spans: Option<Arc<SpanQueue>>,
    /// By access log.
    pub outlets: Vec<Outlet>,
    pub mailbox: Mailbox,
    pub beat: Arc<Beat>,
    pub places: Places,
    /// All workers, by their number.
    pub siblings: Arc<[Sibling]>,
    pub homes: Homes,
    /// Where it leaves errands.
    pub desk: Desk,
    /// What is known of the quotas of keys whose home it is.
    pub quotas: Vec<quota::Line>,
    /// Told what has changed of them when the worker has ended.
    pub parting: Parting,
}

/// Takes the last changes of quotas, and what was on lease and not used.
pub type Parting = Box<dyn FnOnce(Vec<quota::Line>, Vec<quota::Line>) + Send>;

/// Why a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every connection was finished.
    Clean,
    /// Time was up, or control said stop: this many connections were cut.
    Cut(u32),
}

/// Idle upstream connections and listeners' queues are looked at once in this many ticks.
const SLOW_TICKS: u64 = 1000 / TICK_MS;

impl Worker {
    fn new(seed: Seed, is_epoll: bool) -> io::Result<(Worker, Mailbox)> {
        let Seed { index, snapshot, series, spans, outlets, mailbox, beat, places, .. } = seed;
        let (siblings, homes) = (seed.siblings, seed.homes);
        let errands = Errands::new(seed.desk)?;
        let siblings = Siblings::new(siblings, index);
        let limits = rate_limits::Limits::first(&snapshot, &homes, index, &seed.quotas);
        let nonces = Nonces::new(&homes, index);
        let first = Generation::first(snapshot, series, outlets, spans, limits, &homes);
        let limits = &first.limits;
        let (own_max, all_max) = (limits.connections_per_worker_max, limits.connections_max);
        let pipe_bytes = limits.splice_bytes as usize;
        let clients = Clients::new(own_max, all_max, siblings.len(), places);
        let buffers = Rc::new(Buffers::new(
            limits.relay_buffer_bytes as usize,
            limits.relay_buffer_large_bytes as usize,
        ));
        let worker = Worker {
            index,
            beat,
            metrics: first.series.worker.clone(),
            generation: RefCell::new(Rc::new(first)),
            listening: RefCell::default(),
            buffers,
            pipes: Pipes::default(),
            deadlines: Rc::default(),
            alarms: Rc::default(),
            crowd: Rc::default(),
            turns: Rc::new(h2::Turns::new(is_epoll)),
            date: clock::DateText::default(),
            stamp: RefCell::new(Stamp::EPOCH),
            random: Random::default(),
            clients,
            siblings,
            homes,
            limit_waits: rate_limits::Waits::default(),
            permit_waits: concurrency::Waits::default(),
            roster: Rc::default(),
            slowest: Slowest::default(),
            errands,
            coders: Coders::default(),
            known: Known::default(),
            passwords: Passwords::default(),
            nonces,
            shedding: Cell::new(0),
            draining: Cell::new(false),
            is_cut: Cell::new(false),
            is_epoll,
            scratch: Cell::default(),
            lines: Cell::default(),
            requests: RefCell::default(),
            response_heads: RefCell::default(),
        };
        worker.pipes.resize(pipe_bytes);
        Ok((worker, mailbox))
    }

    /// The configuration as of now. An exchange keeps the one it began with.
    pub fn snapshot(&self) -> Rc<Generation> {
        self.generation.borrow().clone()
    }

    /// Looks at the timeouts as of now, for waits that outlast a configuration.
    pub fn with_timeouts<R>(&self, look: impl FnOnce(&Timeouts) -> R) -> R {
        look(&self.generation.borrow().timeouts)
    }

    /// Goes on with another configuration. Requests in flight finish on theirs; connections, idle
    /// upstream connections and listening sockets that it also has stay as they are.
    fn adopt(self: &Rc<Self>, adoption: Adoption) {
        self.beat.set(Doing::Adopting);
        let limits = &adoption.snapshot.limits;
        self.clients.limit(limits.connections_per_worker_max, limits.connections_max);
        self.buffers
            .resize(limits.relay_buffer_bytes as usize, limits.relay_buffer_large_bytes as usize);
        self.pipes.resize(limits.splice_bytes as usize);
        let Adoption { snapshot, series, outlets, spans, listeners, done } = adoption;
        let limits = self.snapshot().rate_limits.next(&snapshot, &self.homes);
        let next =
            Rc::new(self.snapshot().next(snapshot, series, outlets, spans, limits, &self.homes));
        self.keep_listeners_of(&next);
        let failed = self.listen(&next, listeners);
        self.serve_with(&next);
        // The previous one is dropped outside the borrow: its connections close with it.
        let _previous = self.generation.replace(next);
        self.known.clear();
        concurrency::adopted(self);
        self.beat.set(Doing::Waiting);
        done(failed);
    }

    /// What a worker as a whole takes from its generation.
    fn serve_with(&self, generation: &Generation) {
        self.metrics.generation.set(generation.generation);
        let times_responses = generation.server_timing != ServerTiming::Off;
        let is_recorded = !generation.logs.is_empty() || generation.spans.is_some();
        let is_limited = !generation.rate_limits.is_empty();
        clock::set_precise(
            !generation.series.is_off || is_recorded || times_responses || is_limited,
        );
    }

    /// Stops listeners that `snapshot` does not have.
    fn keep_listeners_of(self: &Rc<Self>, snapshot: &Generation) {
        let mut listening = self.listening.take();
        let rules = &snapshot.listeners;
        let mut kept = Vec::with_capacity(rules.len());
        for old in listening.drain(..) {
            match rules.iter().find(|rule| old.is(rule)) {
                Some(rule) => {
                    old.adopt(rule, snapshot);
                    kept.push(old);
                }
                None => drop(monoio::spawn(removed::close_idle(self.clone(), old.remove()))),
            }
        }
        self.listening.replace(kept);
    }

    /// Begins to accept on these sockets. Answers the listeners that cannot begin, with why.
    fn listen(self: &Rc<Self>, snapshot: &Generation, new: Vec<Bound>) -> Vec<String> {
        let mut failed = Vec::new();
        for bound in new {
            let name = bound.rule.name.clone();
            match self.begin(snapshot, bound) {
                Ok(begun) => self.listening.borrow_mut().push(begun),
                Err(e) => failed.push(format!("{name}: {e}")),
            }
        }
        failed
    }

    fn begin(self: &Rc<Self>, snapshot: &Generation, bound: Bound) -> io::Result<Listening> {
        #[cfg(debug_assertions)]
        if drill::refuses(&bound.rule.name) {
            return Err(io::Error::other("drill: this listener was to fail"));
        }
        Listening::begin(self, snapshot, bound)
    }

    /// Accepts no more, and ends when the last connection is over.
    fn begin_drain(
        self: &Rc<Self>,
        handed_over: &[String],
        stop: &Rc<Cell<bool>>,
        done: &Rc<Cell<Option<Drained>>>,
    ) {
        if self.draining.replace(true) {
            return;
        }
        tracing::info!(worker = self.index, "accepting no more");
        self.siblings.close();
        for listening in self.listening.take() {
            listening.hand_over(handed_over);
        }
        self.roster.wake_all();
        monoio::spawn(drain(self.clone(), stop.clone(), done.clone()));
    }
}

/// Runs a worker on the calling thread until it is drained or stopped. A panic that is not one
/// connection's, or a mailbox that breaks, ends the worker with an error, after a last moment for
/// its connections.
pub fn run(mut seed: Seed, mut driver: Driver) -> io::Result<Drained> {
    clock::refresh();
    let parting = std::mem::replace(&mut seed.parting, Box::new(|_, _| {}));
    let (worker, mailbox) = Worker::new(seed, driver.is_epoll())?;
    let worker = Rc::new(worker);
    worker.metrics.tid.set(rustix::thread::gettid().as_raw_pid() as u64);
    worker.serve_with(&worker.snapshot());
    let work = work(worker.clone(), mailbox, driver.ring.clone());
    let error = match catch_unwind(AssertUnwindSafe(|| driver.block_on(work))) {
        Ok(Ok(drained)) => {
            worker.homes.close(worker.index);
            worker.snapshot().rate_limits.part(parting);
            let end = end::end(worker.clone());
            if !matches!(catch_unwind(AssertUnwindSafe(|| driver.block_on(end))), Ok(true)) {
                // As below.
                std::mem::forget((worker, driver));
            }
            return Ok(drained);
        }
        Ok(Err(e)) => e,
        Err(_) => io::Error::other("a panic outside of a connection"),
    };
    worker.siblings.close();
    worker.homes.close(worker.index);
    worker.snapshot().rate_limits.part(parting);
    let last = end::last_moment(worker.clone());
    let _ = catch_unwind(AssertUnwindSafe(|| driver.block_on(last)));
    worker.clients.abandon();
    worker.siblings.own().have_ended(worker.metrics.connections_open.get());
    worker.metrics.connections_open.set(0);
    // The kernel may still write to what was in flight: that memory is never freed.
    std::mem::forget((worker, driver));
    Err(error)
}

async fn work(
    worker: Rc<Worker>,
    mailbox: Mailbox,
    ring: Option<Arc<RingView>>,
) -> io::Result<Drained> {
    monoio::spawn(tick(worker.clone()));
    monoio::spawn(siblings::serve(worker.clone()));
    monoio::spawn(errand::receive(worker.clone()));
    monoio::spawn(home::serve(worker.clone()));
    spin::begin(ring, worker.snapshot().runtime.spin);
    obey(worker, mailbox).await
}

/// The worker's slow beat: deadlines, and now and then the pools.
async fn tick(worker: Rc<Worker>) {
    let mut ticks = 0u64;
    loop {
        monoio::time::sleep(Duration::from_millis(TICK_MS)).await;
        worker.beat.tick();
        worker.beat.set(Doing::Sweeping);
        #[cfg(debug_assertions)]
        drill::at_tick();
        worker.deadlines.sweep(clock::refresh());
        worker.alarms.sweep(clock::now_ms());
        worker.generation.borrow().logs.tick();
        rate_limits::sweep(&worker);
        concurrency::sweep(&worker);
        ticks += 1;
        if ticks.is_multiple_of(siblings::LOOK_TICKS) {
            siblings::look(&worker);
        }
        let is_due = ticks.is_multiple_of(SLOW_TICKS);
        worker.listening.borrow().iter().for_each(|listening| listening.nudge(is_due));
        if is_due {
            worker.buffers.trim();
            worker.pipes.trim();
            worker.slowest.turn(clock::now_ms());
            let snapshot = worker.snapshot();
            snapshot.sweep(clock::now_ms());
            rate_limits::measure(&snapshot);
            worker.nonces.sweep(&worker.metrics);
            concurrency::measure(&snapshot);
            worker.crowd.sweep(snapshot.http2.stalled_bytes);
            worker.listening.borrow().iter().for_each(Listening::measure);
        }
        worker.beat.set(Doing::Waiting);
    }
}

/// Does what control says, until the worker is drained or told to stop.
async fn obey(worker: Rc<Worker>, mailbox: Mailbox) -> io::Result<Drained> {
    let stop = Rc::new(Cell::new(false));
    let done: Rc<Cell<Option<Drained>>> = Rc::default();
    let (told, result) = (stop.clone(), done.clone());
    let told_worker = worker.clone();
    let obeying = mailbox.serve(move |message| match message {
        Message::Stop => told.set(true),
        Message::SetEndpoint(change) => told_worker.set_endpoint(*change),
        Message::Ask(question) => told_worker.answer(question),
        Message::Listen(opening) => {
            let failed = told_worker.listen(&told_worker.snapshot(), opening.listeners);
            told_worker.siblings.open();
            (opening.done)(failed);
        }
        Message::Adopt(adoption) => told_worker.adopt(*adoption),
        Message::Drain { handed_over } => told_worker.begin_drain(&handed_over, &told, &result),
    });
    let broken: Rc<Cell<Option<io::Error>>> = Rc::default();
    let told = broken.clone();
    monoio::spawn(async move {
        // It only ends by an error: a worker that hears nothing is of no use.
        told.set(obeying.await.err());
    });
    loop {
        // A worker that is not draining has no reason to wake up more often than its tick.
        let look = if worker.draining.get() { end::LOOK } else { Duration::from_millis(TICK_MS) };
        monoio::time::sleep(look).await;
        if let Some(drained) = done.get() {
            return Ok(drained);
        }
        if stop.get() {
            return Ok(Drained::Cut(worker.clients.open()));
        }
        if let Some(e) = broken.take() {
            return Err(e);
        }
    }
}

/// Waits until the last connection is gone. Idle ones are closed after a grace in which a request
/// already on its way is still served.
async fn drain(worker: Rc<Worker>, stop: Rc<Cell<bool>>, done: Rc<Cell<Option<Drained>>>) {
    let runtime = worker.snapshot().runtime.clone();
    let begun_ms = clock::refresh();
    // No connection may be overlooked: the listeners empty their queues meanwhile.
    let accepting_ms = listener::FINISH_MS_MAX;
    loop {
        let elapsed_ms = clock::refresh() - begun_ms;
        siblings::take_all(&worker);
        if elapsed_ms >= accepting_ms && worker.clients.open() == 0 && worker.siblings.is_empty() {
            done.set(Some(Drained::Clean));
            return;
        }
        if elapsed_ms >= runtime.drain_timeout_ms || stop.get() {
            done.set(Some(Drained::Cut(worker.clients.open())));
            return;
        }
        if elapsed_ms >= runtime.drain_idle_ms {
            worker.deadlines.close_idle(clock::now_ms() - runtime.drain_idle_ms);
        }
        monoio::time::sleep(end::LOOK).await;
    }
}
