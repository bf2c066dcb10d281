//! The workers as they see each other: who has fewer clients, and the way to give one to it.
//!
//! Where a listener's `balance` is "even", a worker that accepts a connection counts what every
//! worker has, and gives the connection away when another has fewer. It leaves the bare socket on
//! the other's [`Sibling`]: a bounded queue and a bell.
//!
//! Invariants: a connection has one owner at every moment (who accepted it, the queue, or who
//! serves it), and no queue is left with nobody who looks into it. A worker that gives on a queue
//! that closes meanwhile takes one out again ([`Sibling::leave`]), a worker that ends closes its
//! queue first, and all look now and then into the queues of those that are closed or stand still.
//! The table is made once by control and stays: a worker that is started again opens the queue of
//! its predecessor.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
};

use crossbeam_queue::ArrayQueue;

use super::{
    Worker,
    arrival::{self, Open},
    beat::Beat,
    bell::Bell,
    deadline::TICK_MS,
};
use crate::{config::snapshot::ListenerRule, telemetry::metrics::shards::WorkerShard};

/// Connections that may wait for one worker. When so many do, whoever accepts keeps its own.
const WAITING_MAX: usize = 64;
/// Workers look after each other once in this many ticks. One whose beat has stood still for that
/// long gets no connections, and those that wait for it are taken by who looks.
pub const LOOK_TICKS: u64 = 500 / TICK_MS;

/// A client's connection that its worker has given away.
pub struct Given {
    pub socket: OwnedFd,
    /// `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The listener it came in by.
    pub rule: Arc<ListenerRule>,
}

/// One worker, as the others see it.
#[repr(align(128))]
pub struct Sibling {
    beat: Arc<Beat>,
    shard: Arc<WorkerShard>,
    /// The connections it has, less those that others gave to it: wraps, written by it alone.
    /// To take one in that waits changes neither number, so their sum is right at every moment.
    kept: AtomicU64,
    /// Connections that others gave to it, from before they wait.
    given: AtomicU64,
    waiting: ArrayQueue<Given>,
    /// Somebody serves what waits.
    is_open: AtomicBool,
    bell: Bell,
}

impl Sibling {
    /// Of a worker with this beat and shard, closed.
    pub fn new(beat: Arc<Beat>, shard: Arc<WorkerShard>) -> io::Result<Sibling> {
        Ok(Sibling {
            beat,
            shard,
            kept: AtomicU64::new(0),
            given: AtomicU64::new(0),
            waiting: ArrayQueue::new(WAITING_MAX),
            is_open: AtomicBool::new(false),
            bell: Bell::new()?,
        })
    }

    /// Connections it has or will have.
    fn connections(&self) -> u64 {
        // In this order: one that was given and has ended is in both or in the second alone.
        let kept = self.kept.load(Ordering::Acquire);
        kept.wrapping_add(self.given.load(Ordering::Relaxed))
    }

    /// Its worker has one more that it accepted itself.
    pub fn has_kept(&self) {
        self.kept.store(self.kept.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// So many of its worker's connections have ended, whoever accepted them.
    pub fn have_ended(&self, count: u64) {
        self.kept.store(self.kept.load(Ordering::Relaxed).wrapping_sub(count), Ordering::Release);
    }

    /// Leaves a connection. When there is no room or nobody who would serve it, one comes back:
    /// this one, or another that waited.
    fn leave(&self, given: Given) -> Result<(), Given> {
        self.given.fetch_add(1, Ordering::Relaxed);
        self.waiting.push(given).inspect_err(|_| self.has_not_got())?;
        // Whoever closes looks for what waits afterwards (`close`), we look in the other order: at
        // least one of us sees the other.
        fence(Ordering::SeqCst);
        if !self.is_open.load(Ordering::Relaxed)
            && let Some(back) = self.waiting.pop()
        {
            self.has_not_got();
            return Err(back);
        }
        self.bell.ring();
        Ok(())
    }

    /// One that was given to it is taken by somebody else.
    fn has_not_got(&self) {
        self.given.fetch_sub(1, Ordering::Relaxed);
    }

    fn open(&self) {
        // Who looked while nobody served it has seen it stand still.
        self.beat.tick();
        self.is_open.store(true, Ordering::Release);
        // What waits may be from before.
        self.bell.ring();
    }

    fn close(&self) {
        self.is_open.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

/// All workers, as one of them sees them.
pub struct Siblings {
    all: Arc<[Sibling]>,
    own: usize,
    seen: Box<[Seen]>,
}

/// What was seen of a sibling at the last look.
struct Seen {
    ticks: Cell<u64>,
    stood_still: Cell<bool>,
}

impl Seen {
    /// It stood still at the last look and has not gone on since.
    fn still_stands(&self, sibling: &Sibling) -> bool {
        self.stood_still.get() && self.ticks.get() == sibling.beat.ticks()
    }
}

impl Siblings {
    /// `all` are the workers by their number, `own` is the one that looks.
    pub fn new(all: Arc<[Sibling]>, own: usize) -> Siblings {
        let unseen = |_: &Sibling| Seen { ticks: u64::MAX.into(), stood_still: false.into() };
        let seen = all.iter().map(unseen).collect();
        Siblings { all, own, seen }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn own(&self) -> &Sibling {
        &self.all[self.own]
    }

    fn others(&self) -> impl Iterator<Item = (&Sibling, &Seen)> {
        // Each begins behind itself, so that not all choose the same of several.
        let others = (1..self.len()).map(|ahead| (self.own + ahead) % self.len());
        others.map(|at| (&self.all[at], &self.seen[at]))
    }

    /// Who should serve one more connection instead of us. Only a worker that serves with our
    /// generation, and so knows the same listeners.
    pub fn lighter(&self) -> Option<&Sibling> {
        let own = self.own();
        let generation = own.shard.generation.get();
        let can = |sibling: &Sibling, seen: &Seen| {
            sibling.is_open.load(Ordering::Relaxed)
                && !seen.still_stands(sibling)
                && sibling.shard.generation.get() == generation
                && !sibling.waiting.is_full()
        };
        let able = self.others().filter(|(sibling, seen)| can(sibling, seen));
        lightest(own.connections(), able.map(|(sibling, _)| (sibling, sibling.connections())))
    }

    /// From now on others may give us connections.
    pub fn open(&self) {
        self.own().open();
    }

    /// From now on others keep theirs. What waits is still to be taken.
    pub fn close(&self) {
        self.own().close();
    }

    /// Nothing waits for us.
    pub fn is_empty(&self) -> bool {
        self.own().waiting.is_empty()
    }
}

/// The one of `others` with the fewest connections, if it has fewer than `own`: with one more, it
/// has at most as many.
fn lightest<T>(own: u64, others: impl Iterator<Item = (T, u64)>) -> Option<T> {
    let (least, connections) = others.min_by_key(|(_, connections)| *connections)?;
    (connections < own).then_some(least)
}

/// Gives a connection that `worker` has accepted to a sibling; serves it when that one cannot.
pub fn give(worker: &Rc<Worker>, sibling: &Sibling, given: Given) {
    match sibling.leave(given) {
        Ok(()) => worker.metrics.connections_given.count(),
        Err(back) => arrival::take(Open::count(worker), back),
    }
}

/// Takes in whatever others give, for as long as the worker runs.
pub async fn serve(worker: Rc<Worker>) {
    let served = async {
        let ear = worker.siblings.own().bell.listen()?;
        loop {
            ear.heard();
            take_all(&worker);
            ear.wait().await?;
        }
    };
    let ended: io::Result<()> = served.await;
    worker.siblings.close();
    take_all(&worker);
    tracing::error!(worker = worker.index, error = ?ended.err(), "takes no connections of others");
}

/// Takes in whatever waits for the worker.
pub fn take_all(worker: &Rc<Worker>) {
    while let Some(given) = worker.siblings.own().waiting.pop() {
        arrival::take(Open::count_given(worker), given);
    }
}

/// Takes in whatever waits for another.
fn take_from(worker: &Rc<Worker>, sibling: &Sibling) {
    while let Some(given) = sibling.waiting.pop() {
        sibling.has_not_got();
        arrival::take(Open::count(worker), given);
    }
}

/// Looks after the others, every [`LOOK_TICKS`]: takes what waits for one that is gone or stands
/// still. The latter may go on at this moment and take some too: each connection is taken once.
pub fn look(worker: &Rc<Worker>) {
    for (sibling, seen) in worker.siblings.others() {
        let ticks = sibling.beat.ticks();
        let stands_still = seen.ticks.replace(ticks) == ticks;
        seen.stood_still.set(stands_still);
        if stands_still || !sibling.is_open.load(Ordering::Relaxed) {
            take_from(worker, sibling);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_to_whoever_has_fewest_if_that_is_fewer() {
        let chosen = |own, others: &[u64]| lightest(own, others.iter().copied().enumerate());
        for (own, others, expected) in [
            (0, &[][..], None),
            (9, &[], None),
            (0, &[0, 0], None),
            (1, &[1], None),
            (1, &[2], None),
            (1, &[0], Some(0)),
            (12, &[5], Some(0)),
            (5, &[12], None),
            (5, &[4, 3, 4], Some(1)),
            (5, &[5, 6, 5], None),
            (5, &[7, 3, 3], Some(1)),
            (u64::MAX, &[u64::MAX], None),
        ] {
            assert_eq!(chosen(own, others), expected, "{own} {others:?}");
        }
    }

    #[test]
    fn whichever_way_connections_come_in_workers_differ_by_one() {
        for workers in 1..=5usize {
            let mut have = vec![0u64; workers];
            for n in 0..200usize {
                // As a hash might have it: nearly all to the first.
                let own = if n % 7 == 3 { n % workers } else { 0 };
                let others = (0..workers).filter(|other| *other != own);
                let to = lightest(have[own], others.map(|other| (other, have[other])));
                have[to.unwrap_or(own)] += 1;
                let (most, least) = (have.iter().max(), have.iter().min());
                assert!(most.unwrap() - least.unwrap() <= 1, "{have:?}");
            }
        }
    }

    fn siblings(workers: usize) -> Arc<[Sibling]> {
        let new = |_| Sibling::new(Arc::default(), Arc::default()).expect("an eventfd");
        (0..workers).map(new).collect()
    }

    fn given(port: u16) -> Given {
        use crate::config::snapshot::{Bind, HalfClose, ListenerBalance};
        let rule = ListenerRule {
            name: "main".to_owned(),
            bind: Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
            backlog: 1,
            half_close: HalfClose::Answer,
            balance: ListenerBalance::Even,
            access_log: true,
            proxy_protocol: crate::config::snapshot::ProxyProtocol::Off,
            http2: crate::config::snapshot::Http2Use::On,
            ahead: None,
            tls: None,
            passthrough: None,
        };
        Given {
            socket: std::fs::File::open("/dev/null").expect("it is there").into(),
            peer: Some(SocketAddr::from(([192, 0, 2, 1], port))),
            rule: Arc::new(rule),
        }
    }

    #[test]
    fn what_waits_counts_and_a_full_or_closed_queue_gives_back() {
        let all = siblings(2);
        let own = Siblings::new(all.clone(), 0);
        (0..100).for_each(|_| all[0].has_kept());
        assert!(own.lighter().is_none(), "closed");
        assert!(all[1].leave(given(1)).is_err_and(|back| back.peer == given(1).peer));
        all[1].open();
        for waiting in 0..WAITING_MAX {
            assert_eq!(own.lighter().expect("fewer").connections(), waiting as u64);
            assert!(all[1].leave(given(2)).is_ok());
        }
        assert!(own.lighter().is_none(), "full");
        assert!(all[1].leave(given(3)).is_err_and(|back| back.peer == given(3).peer));
        drop(all[1].waiting.pop());
        all[1].has_not_got();
        all[1].shard.generation.set(2);
        assert!(own.lighter().is_none(), "another configuration");
        all[0].shard.generation.set(2);
        assert!(own.lighter().is_some());
        all[0].have_ended(100 - WAITING_MAX as u64 + 1);
        assert!(own.lighter().is_none(), "not fewer");
    }

    /// However its worker is interrupted: what it takes in is neither missing nor counted twice.
    #[test]
    fn one_that_is_taken_in_counts_once_at_every_moment() {
        let all = siblings(1);
        all[0].open();
        assert!(all[0].leave(given(1)).is_ok());
        assert_eq!(all[0].connections(), 1, "waits");
        assert!(all[0].waiting.pop().is_some());
        assert_eq!(all[0].connections(), 1, "is taken in");
        all[0].has_kept();
        all[0].have_ended(1);
        assert_eq!(all[0].connections(), 1);
        all[0].have_ended(1);
        assert_eq!(all[0].connections(), 0, "ended");
    }

    #[test]
    fn one_that_is_served_again_gets_connections_at_once() {
        let all = siblings(2);
        let own = Siblings::new(all.clone(), 0);
        all[0].has_kept();
        all[1].open();
        assert!(own.lighter().is_some());
        let seen = &own.seen[1];
        seen.ticks.set(all[1].beat.ticks());
        seen.stood_still.set(true);
        assert!(own.lighter().is_none(), "it stands still");
        all[1].close();
        all[1].open();
        assert!(own.lighter().is_some());
    }

    /// One gives while the other closes and takes what waits: nothing stays behind.
    #[test]
    fn nothing_is_left_on_a_queue_that_closes() {
        for _ in 0..200 {
            let all = siblings(1);
            all[0].open();
            let given_away = std::thread::scope(|scope| {
                let giving =
                    scope.spawn(|| (0..50).filter(|n| all[0].leave(given(*n)).is_ok()).count());
                let taking = scope.spawn(|| {
                    let mut taken = 0;
                    for n in 0..60 {
                        if n == 20 {
                            all[0].close();
                        }
                        while all[0].waiting.pop().is_some() {
                            taken += 1;
                        }
                    }
                    taken
                });
                (giving.join().expect("no panic"), taking.join().expect("no panic"))
            });
            assert!(all[0].waiting.is_empty());
            assert!(given_away.0 >= given_away.1, "{given_away:?}");
        }
    }
}
