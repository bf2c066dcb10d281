//! All data-path I/O of one core.
//!
//! A [`Worker`] owns everything its core needs; no other core reaches it. It never blocks, never
//! locks, never resolves a name and never reads a file. The only way in is its mailbox.
//!
//! A request's way, forward only: [`listener`] → [`h1`] → [`pipeline`] → `policy` →
//! [`forward`] → [`pool`], and back.

pub mod body;
pub mod buffers;
pub mod clients;
pub mod clock;
pub mod deadline;
pub mod exchange;
pub mod forward;
pub mod h1;
pub mod isolate;
pub mod listener;
pub mod mailbox;
pub mod net;
pub mod pipeline;
pub mod pool;
pub mod respond;
pub mod runtime;
pub mod tunnel;

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::Duration,
};

use monoio::io::Canceller;

use crate::{
    config::Snapshot,
    telemetry::{
        counters::{Counters, Totals},
        request_id::Random,
    },
    wire::ResponseHead,
};
use buffers::Buffers;
use clients::{Clients, Places};
use deadline::{Deadlines, TICK_MS};
use exchange::Request;
use forward::UpstreamState;
use listener::{Bound, Listener};
use mailbox::{Mailbox, Message};
use runtime::Driver;

/// One core's share of the gateway. All of it is owned; no other core reaches it.
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// This core's own copy of the checked configuration.
    snapshot: RefCell<Rc<Snapshot>>,
    /// Balancer state and idle connections, by upstream.
    pub upstreams: Vec<UpstreamState>,
    /// Memory lent to the kernel and parsed in place.
    pub buffers: Buffers,
    pub deadlines: Rc<Deadlines>,
    pub date: clock::DateText,
    pub random: Random,
    pub counters: Counters,
    pub clients: Rc<Clients>,
    /// Connections being told that there is no room.
    pub shedding: Cell<u32>,
    pub draining: Cell<bool>,
    /// The driver wants non-blocking descriptors.
    pub is_epoll: bool,
    /// Where heads are written before they go in front of a body.
    scratch: Cell<Vec<u8>>,
    // Boxed because an exchange holds it across awaits: a pointer keeps its task small.
    #[expect(clippy::vec_box, reason = "handed out as a box")]
    requests: RefCell<Vec<Box<Request>>>,
    #[expect(clippy::vec_box, reason = "handed out as a box")]
    response_heads: RefCell<Vec<Box<ResponseHead>>>,
}

/// What control hands to a new worker's thread.
pub struct Seed {
    pub index: usize,
    pub snapshot: Snapshot,
    pub listeners: Vec<Bound>,
    pub mailbox: Mailbox,
    pub places: Places,
    pub workers: usize,
}

/// Why a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every connection was finished.
    Clean,
    /// Time was up, or control said stop: this many connections were cut.
    Cut(u32),
}

/// Idle upstream connections are looked at once in this many ticks.
const POOL_SWEEP_TICKS: u64 = 1000 / TICK_MS;
/// How often a draining worker looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

impl Worker {
    fn new(seed_index: usize, snapshot: Snapshot, clients: Rc<Clients>, is_epoll: bool) -> Worker {
        let limits = &snapshot.limits;
        let buffers = Buffers::new(
            limits.relay_buffer_bytes as usize,
            limits.relay_buffer_large_bytes as usize,
        );
        Worker {
            index: seed_index,
            upstreams: snapshot.upstreams.iter().map(UpstreamState::new).collect(),
            snapshot: RefCell::new(Rc::new(snapshot)),
            buffers,
            deadlines: Rc::default(),
            date: clock::DateText::default(),
            random: Random::default(),
            counters: Counters::default(),
            clients,
            shedding: Cell::new(0),
            draining: Cell::new(false),
            is_epoll,
            scratch: Cell::default(),
            requests: RefCell::default(),
            response_heads: RefCell::default(),
        }
    }

    /// The configuration as of now. An exchange keeps the one it began with.
    pub fn snapshot(&self) -> Rc<Snapshot> {
        self.snapshot.borrow().clone()
    }
}

/// Runs a worker on the calling thread until it is drained or stopped.
pub fn run(seed: Seed, mut driver: Driver) -> io::Result<(Drained, Totals)> {
    let is_epoll = driver.is_epoll();
    let limits = &seed.snapshot.limits;
    let clients = Clients::new(
        limits.connections_per_worker_max,
        limits.connections_max,
        seed.workers,
        seed.places,
    );
    driver.block_on(async move {
        clock::refresh();
        let worker = Rc::new(Worker::new(seed.index, seed.snapshot, clients, is_epoll));
        let stop_accepting = Canceller::new();
        for (index, bound) in seed.listeners.into_iter().enumerate() {
            let listener = Listener::new(index as u32, bound, is_epoll)?;
            monoio::spawn(listener.run(worker.clone(), stop_accepting.handle()));
        }
        monoio::spawn(tick(worker.clone()));
        let drained = obey(worker.clone(), seed.mailbox, stop_accepting).await?;
        Ok((drained, worker.counters.totals()))
    })
}

/// The worker's slow beat: deadlines, and now and then the pools.
async fn tick(worker: Rc<Worker>) {
    let mut ticks = 0u64;
    loop {
        monoio::time::sleep(Duration::from_millis(TICK_MS)).await;
        worker.deadlines.sweep(clock::refresh());
        ticks += 1;
        if ticks.is_multiple_of(POOL_SWEEP_TICKS) {
            worker.buffers.trim();
            let snapshot = worker.snapshot();
            for (rule, state) in snapshot.upstreams.iter().zip(&worker.upstreams) {
                state.pools.iter().for_each(|pool| pool.sweep(rule));
            }
        }
    }
}

/// Does what control says, until the worker is drained or told to stop.
async fn obey(
    worker: Rc<Worker>,
    mailbox: Mailbox,
    stop_accepting: Canceller,
) -> io::Result<Drained> {
    let stop = Rc::new(Cell::new(false));
    let done: Rc<Cell<Option<Drained>>> = Rc::default();
    let mut stop_accepting = Some(stop_accepting);
    let (told, result) = (stop.clone(), done.clone());
    let drained_worker = worker.clone();
    let obeying = mailbox.serve(move |message| match message {
        Message::Stop => told.set(true),
        Message::Drain => {
            if let Some(canceller) = stop_accepting.take() {
                drained_worker.draining.set(true);
                tracing::info!(worker = drained_worker.index, "accepting no more");
                canceller.cancel();
                let drain = drain(drained_worker.clone(), told.clone(), result.clone());
                monoio::spawn(drain);
            }
        }
    });
    monoio::spawn(async move {
        if let Err(e) = obeying.await {
            tracing::error!(error = %e, "the mailbox is broken");
        }
    });
    loop {
        // A worker that is not draining has no reason to wake up more often than its tick.
        let look = if worker.draining.get() { DRAIN_LOOK } else { Duration::from_millis(TICK_MS) };
        monoio::time::sleep(look).await;
        if let Some(drained) = done.get() {
            return Ok(drained);
        }
        if stop.get() {
            return Ok(Drained::Cut(worker.clients.open()));
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
        if elapsed_ms >= accepting_ms && worker.clients.open() == 0 {
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
        monoio::time::sleep(DRAIN_LOOK).await;
    }
}
