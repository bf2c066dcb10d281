//! The workers as control sees them: their threads, mailboxes and signs of life. A worker that ends
//! although nobody told it to is started again on its core with the same listening sockets, so that
//! what waits in their queues is served; one that ends again and again stays down.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    cores, errands, quotas::ledger::Ledger, reload::WorkerCopy, run::Event, view::WorkerView,
};
use crate::worker::{
    self, Drained, Seed,
    beat::Beat,
    clients::Places,
    errand::Desk,
    home::Homes,
    listener::Bound,
    logs::Outlet,
    mailbox::{self, Done, Message, Opening, Sender},
    rate_limits::quota,
    report::Question,
    runtime::Driver,
    siblings::Sibling,
};

/// A worker is started again at most so often in [`RESTARTS_IN`].
const RESTARTS_MAX: usize = 5;
const RESTARTS_IN: Duration = Duration::from_secs(60);

/// All workers, by their number.
pub struct Workers {
    slots: Vec<Slot>,
    /// As they see each other. Stays when one is started again.
    siblings: Arc<[Sibling]>,
    /// The same for keys that they share.
    homes: Homes,
    places: Places,
    /// Where they leave errands.
    desk: Desk,
    /// What was used of quotas.
    ledger: Ledger,
    tell: mpsc::Sender<Event>,
}

struct Slot {
    core: u32,
    beat: Arc<Beat>,
    running: Option<Running>,
    /// When it was started again, within the last [`RESTARTS_IN`].
    restarts: VecDeque<Instant>,
}

struct Running {
    mailbox: Sender,
    thread: JoinHandle<()>,
}

impl Workers {
    /// One worker on each of `cores`, each with its copy of the configuration and its ends of the
    /// access logs. They say [`Event::Started`] when their runtimes are there, and accept nothing
    /// yet.
    pub fn start(
        cores: &[u32],
        shares: impl Iterator<Item = (WorkerCopy, Vec<Outlet>)>,
        places: Places,
        ledger: Ledger,
        tell: mpsc::Sender<Event>,
    ) -> Result<Workers, String> {
        let slot = |core: &u32| Slot {
            core: *core,
            beat: Arc::default(),
            running: None,
            restarts: VecDeque::new(),
        };
        let slots: Vec<Slot> = cores.iter().map(slot).collect();
        let shares: Vec<_> = shares.collect();
        let siblings = slots.iter().zip(&shares).map(|(slot, ((_, series, _), _))| {
            Sibling::new(slot.beat.clone(), series.worker.clone())
        });
        let siblings = siblings.collect::<io::Result<_>>().map_err(|e| format!("workers: {e}"))?;
        let desk = errands::begin().map_err(|e| format!("errands: {e}"))?;
        let homes = Homes::new(slots.len(), ledger.seeds()).map_err(|e| format!("workers: {e}"))?;
        let mut workers = Workers { slots, siblings, homes, places, desk, ledger, tell };
        for (index, (copy, outlets)) in shares.into_iter().enumerate() {
            workers.spawn(index, copy, outlets).map_err(|e| format!("worker {index}: {e}"))?;
        }
        Ok(workers)
    }

    fn spawn(&mut self, index: usize, copy: WorkerCopy, outlets: Vec<Outlet>) -> io::Result<()> {
        let (mailbox, receiver) = mailbox::mailbox()?;
        let (siblings, homes) = (self.siblings.clone(), self.homes.clone());
        let slot = &mut self.slots[index];
        let (core, beat, tell) = (slot.core, slot.beat.clone(), self.tell.clone());
        let (places, own) = (self.places.clone(), beat.clone());
        let desk = self.desk.clone();
        let quotas = self.ledger.of_worker(index, self.homes.workers());
        let parting = self.ledger.parting();
        let (snapshot, series, spans) = copy;
        let seed = Seed {
            index,
            snapshot,
            series,
            spans,
            outlets,
            mailbox: receiver,
            beat,
            places,
            siblings,
            homes,
            desk,
            quotas,
            parting,
        };
        let body = move || {
            own.begin();
            let result = catch_unwind(AssertUnwindSafe(|| work(seed, core, &tell)));
            own.end();
            let result = result.unwrap_or_else(|_| Err(io::Error::other("a panic at start")));
            // The main thread is gone only if the process is ending.
            let _ = tell.send(Event::Ended { worker: index, result });
        };
        let thread = thread::Builder::new().name(name(index)).spawn(body)?;
        slot.running = Some(Running { mailbox, thread });
        Ok(())
    }

    /// Where workers take letters.
    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    /// How many there should be.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many there are.
    pub fn running(&self) -> usize {
        self.slots.iter().filter(|slot| slot.running.is_some()).count()
    }

    /// Core and sign of life of each.
    pub fn beats(&self) -> Vec<(u32, Arc<Beat>)> {
        self.slots.iter().map(|slot| (slot.core, slot.beat.clone())).collect()
    }

    /// A worker that was just started, as others see it.
    pub fn view(&self, worker: usize) -> WorkerView {
        let slot = &self.slots[worker];
        let running = slot.running.as_ref().expect("it was just started");
        WorkerView::new(slot.core, running.mailbox.clone())
    }

    /// Those that run, with their mailboxes.
    pub fn mailboxes(&self) -> impl Iterator<Item = (usize, &Sender)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(worker, slot)| Some((worker, &slot.running.as_ref()?.mailbox)))
    }

    /// Why no order can be given to all workers now: one has taken no messages for so long that
    /// what room is left in its mailbox is kept for its end.
    pub fn cannot_be_told(&self) -> Option<String> {
        let (worker, mailbox) = self.mailboxes().find(|(_, mailbox)| mailbox.is_crowded())?;
        Some(format!(
            "{} takes no messages ({} wait): nothing was changed; it is stuck or overloaded, see \
             `ringway status`, and ask again when it goes on",
            name(worker),
            mailbox.waiting()
        ))
    }

    pub fn tell_all(&self, message: impl Fn() -> Message) {
        for (worker, mailbox) in self.mailboxes() {
            // Orders leave room for this; if there is none, whoever waits for it has a deadline.
            if mailbox.send(message()).is_err() {
                tracing::error!(worker, "the worker's mailbox is full");
            }
        }
    }

    /// Lets a worker accept on these sockets; it says [`Event::Listening`].
    pub fn listen(&self, worker: usize, listeners: Vec<Bound>) {
        let Some(running) = &self.slots[worker].running else { return };
        let tell = self.tell.clone();
        let done: Done = Box::new(move |failed| {
            let _ = tell.send(Event::Listening { worker, failed });
        });
        // Its first message: there is room.
        let _ = running.mailbox.send(Message::Listen(Box::new(Opening { listeners, done })));
    }

    /// Has the home of a key change what it has used of a quota. Answers where it says how many
    /// changes it made.
    pub fn change_quota(&self, wish: quota::Wish) -> Result<oneshot::Receiver<usize>, String> {
        let home = self.homes.of(wish.key());
        if let Some(why) = self.cannot_be_told() {
            return Err(why);
        }
        let Some(running) = &self.slots[home].running else {
            return Err(format!("{}, which counts this key, does not run", name(home)));
        };
        let (reply, done) = oneshot::channel();
        let answer = Box::new(move |count| {
            // Whoever asked may have given up.
            let _ = reply.send(count);
        });
        let question = Question::ChangeQuotas(vec![wish], answer);
        let sent = running.mailbox.send(Message::Ask(question));
        sent.map(|()| done).map_err(|_| format!("{} takes no messages", name(home)))
    }

    /// A worker's thread is over.
    pub fn ended(&mut self, worker: usize) {
        if let Some(running) = self.slots[worker].running.take() {
            // Afterwards the kernel has given up what the worker had in flight: accepts above all.
            let _ = running.thread.join();
        }
    }

    /// Starts a worker that has ended again. `Ok(false)`: it has been started too often.
    pub fn restart(
        &mut self,
        worker: usize,
        copy: WorkerCopy,
        outlets: Vec<Outlet>,
    ) -> io::Result<bool> {
        let restarts = &mut self.slots[worker].restarts;
        if !may_restart(restarts, Instant::now()) {
            return Ok(false);
        }
        self.spawn(worker, copy, outlets).map(|()| true)
    }
}

/// The name of a worker's thread, and its name for people.
pub fn name(worker: usize) -> String {
    format!("worker-{worker}")
}

fn may_restart(restarts: &mut VecDeque<Instant>, now: Instant) -> bool {
    while restarts.front().is_some_and(|at| now.duration_since(*at) >= RESTARTS_IN) {
        restarts.pop_front();
    }
    let may = restarts.len() < RESTARTS_MAX;
    if may {
        restarts.push_back(now);
    }
    may
}

fn work(seed: Seed, core: u32, tell: &mpsc::Sender<Event>) -> io::Result<Drained> {
    let worker = seed.index;
    // Pinned before the runtime is built, so that its memory is local to the core.
    if let Err(e) = cores::pin(core) {
        tracing::warn!(worker, core, error = %e, "cannot pin");
    }
    let runtime = &seed.snapshot.runtime;
    let driver = Driver::build(runtime)?;
    let ring = driver.ring.clone();
    let _ = tell.send(Event::Started { worker, driver: driver.name, ring });
    worker::run(seed, driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_started_again_a_few_times_a_minute() {
        let (mut restarts, begun) = (VecDeque::new(), Instant::now());
        let mut at = |seconds| may_restart(&mut restarts, begun + Duration::from_secs(seconds));
        assert!((0..5).all(&mut at));
        assert!(!at(5) && !at(59));
        assert!(at(60) && !at(60) && at(61));
    }
}
