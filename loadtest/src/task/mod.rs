//! The second driver: a task per connection on monoio, for TLS and HTTP/2.
//!
//! It costs more per request than the hand-made engine and does what that one cannot. Both take
//! their requests from [`Load`], so schedule, counting and report are the same.

pub mod connect;
mod h1;
mod h2;
mod pacer;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::task::Poll;
use std::time::{Duration, Instant};

use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

use crate::load::{Flight, Load, Plan, Share, Used};
use crate::tally::{Failure, Interval, Tally};
use pacer::Pacer;

const RING_ENTRIES: u32 = 4096;

/// How often the run is looked at.
const STEP: Duration = Duration::from_millis(5);

/// Pause of a connection that failed, so that a dead target is not hammered.
const REST: Duration = Duration::from_millis(5);

/// Why no right response came, and what exactly happened.
type Broken = (Failure, String);

/// What the tasks of a thread share.
struct Shared {
    load: RefCell<Load>,
    pacer: Pacer,
    epoch: Instant,
    /// Requests that a connection took and could not send: the next to be sent.
    returned: RefCell<Vec<Flight>>,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn plan(&self) -> &'static Plan {
        self.load.borrow().plan
    }

    fn timeout(&self) -> Duration {
        Duration::from_nanos(self.plan().timeout_ns)
    }

    /// The next request, when it is due; `None` when the run is over.
    async fn next(&self) -> Option<Flight> {
        let mut place = None;
        let next = poll_fn(|cx| {
            if let Some(flight) = self.returned.borrow_mut().pop() {
                return Poll::Ready(Some(flight));
            }
            let mut load = self.load.borrow_mut();
            let now_ns = self.now_ns();
            if !load.is_open() {
                return Poll::Ready(load.take(now_ns));
            }
            if let Some(flight) = load.take_due(now_ns) {
                if place.is_some() {
                    load.note_lag(&flight, now_ns);
                }
                return Poll::Ready(Some(flight));
            }
            if load.is_over() {
                return Poll::Ready(None);
            }
            self.pacer.wait(&mut place, cx.waker());
            Poll::Pending
        });
        let next = next.await;
        self.pacer.leave(place);
        next
    }
}

/// A runtime on io_uring with timers.
pub fn runtime() -> io::Result<Runtime<monoio::time::TimeDriver<IoUringDriver>>> {
    let mut ring = io_uring_of_monoio::IoUring::builder();
    ring.setup_cqsize(RING_ENTRIES * 4).setup_single_issuer().setup_defer_taskrun();
    RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(ring)
        .with_entries(RING_ENTRIES)
        .enable_timer()
        .build()
}

/// Runs one thread's share; returns its counts, its CPU use and the connections open at the end.
pub fn run(
    plan: &'static Plan,
    share: Share,
    intervals: Sender<Interval>,
    epoch: Instant,
) -> io::Result<(Tally, Used, usize)> {
    let mut runtime = runtime()?;
    let load = RefCell::new(Load::new(plan, share, intervals));
    runtime.block_on(async move {
        let returned = RefCell::new(Vec::new());
        let shared = Rc::new(Shared { load, pacer: Pacer::new()?, epoch, returned });
        monoio::spawn(pacer::run(shared.clone()));
        for _ in 0..share.of(plan.connections) {
            match plan.streams {
                None => drop(monoio::spawn(h1::connection(shared.clone()))),
                Some(streams) => drop(monoio::spawn(h2::connection(shared.clone(), streams))),
            }
        }
        let ended = supervise(&shared).await;
        let mut load = shared.load.borrow_mut();
        // Tasks may still hold the load: hanging up here is what ends the collection.
        load.tally.close();
        let tally = std::mem::replace(&mut load.tally, Tally::new(0, std::sync::mpsc::channel().0));
        ended.map(|()| (tally, std::mem::take(&mut load.used), load.open))
    })
}

async fn supervise(shared: &Shared) -> io::Result<()> {
    loop {
        let now_ns = shared.now_ns();
        let over = shared.load.borrow_mut().step(now_ns, 0)?;
        if over {
            return Ok(());
        }
        if shared.load.borrow().is_over() {
            shared.pacer.wake_all();
        }
        monoio::time::sleep(STEP).await;
    }
}
