//! Work that would hold a worker up, such as hashing a password: it is done by threads of control,
//! and what comes of it is left for the worker with a bell. What control does in its own time, such
//! as asking a provider for tokens, comes back the same way ([`answer`]).
//!
//! **Bounds.** A worker has at most [`OUT_MAX`] errands out, all workers together as many as wait
//! at the desk; further ones fail at once ([`Failed::Busy`]). Nobody waits longer than it says, and
//! what comes later is thrown away. Invariant: a worker's returns have room for all of its errands.

use std::{
    any::Any,
    io,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
};

use crossbeam_queue::ArrayQueue;

use super::{
    Worker,
    bell::Bell,
    replies::{Place, Replies, Ticket},
};

/// Errands of one worker that are not over.
const OUT_MAX: usize = 512;
/// Errands that nobody has begun, of all workers.
const WAITING_MAX: usize = 4096;
/// Replies that others than the desk have ([`answer`]).
const OTHERS_MAX: usize = 2048;

type Answer = Box<dyn Any + Send>;

/// Where workers leave errands.
#[derive(Clone)]
pub struct Desk(SyncSender<Errand>);

/// Where control takes them.
pub type Tray = Receiver<Errand>;

/// One piece of work of one worker.
pub struct Errand {
    work: Box<dyn FnOnce() -> Answer + Send>,
    ticket: Ticket,
    back: Arc<Returns>,
}

/// Why nothing came of an errand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Too many are out already.
    Busy,
    /// It took too long.
    Late,
    /// It panicked.
    Broken,
}

struct Returns {
    queue: ArrayQueue<(Ticket, Option<Answer>)>,
    bell: Bell,
}

/// A worker's own.
pub struct Errands {
    desk: Desk,
    back: Arc<Returns>,
    out: Replies<Option<Answer>>,
}

/// A desk and its tray.
pub fn desk() -> (Desk, Tray) {
    let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
    (Desk(sender), receiver)
}

impl Errand {
    /// Does it, and tells the worker. A panic is its own.
    pub fn run(self) {
        let answer = catch_unwind(AssertUnwindSafe(self.work)).ok();
        // There is room for every errand that is out.
        let _ = self.back.queue.push((self.ticket, answer));
        self.back.bell.ring();
    }
}

impl Errands {
    pub fn new(desk: Desk) -> io::Result<Errands> {
        // Those that were given up still come back.
        let queue = ArrayQueue::new(OUT_MAX + WAITING_MAX + OTHERS_MAX);
        let back = Arc::new(Returns { queue, bell: Bell::new()? });
        Ok(Errands { desk, back, out: Replies::default() })
    }
}

/// Has `work` done elsewhere, and waits for it until `by_ms` of the coarse clock.
pub async fn errand<T: Send + 'static>(
    worker: &Worker,
    by_ms: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failed> {
    let errands = &worker.errands;
    let place = errands.place(worker)?;
    let work = Box::new(move || Box::new(work()) as Answer);
    let errand = Errand { work, ticket: place.ticket, back: errands.back.clone() };
    errands.desk.0.try_send(errand).map_err(|_| Failed::Busy)?;
    answered(&place, worker, by_ms).await
}

/// Where somebody who does not work at the desk leaves what a worker waits for. A worker that has
/// given up throws it away; dropped, it says that nothing came of it.
pub struct Reply<T> {
    ticket: Ticket,
    back: Option<Arc<Returns>>,
    of: PhantomData<fn(T)>,
}

impl<T: Send + 'static> Reply<T> {
    pub fn give(mut self, value: T) {
        self.leave(Some(Box::new(value)));
    }
}

impl<T> Reply<T> {
    fn leave(&mut self, answer: Option<Answer>) {
        if let Some(back) = self.back.take() {
            // There is room: whoever takes replies has bounds of its own.
            let _ = back.queue.push((self.ticket, answer));
            back.bell.ring();
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.leave(None);
    }
}

/// Has `ask` hand a reply to whoever answers in his own time, and waits for that until `by_ms` of
/// the coarse clock.
pub async fn answer<T: Send + 'static>(
    worker: &Worker,
    by_ms: u64,
    ask: impl FnOnce(Reply<T>),
) -> Result<T, Failed> {
    let errands = &worker.errands;
    let place = errands.place(worker)?;
    ask(Reply { ticket: place.ticket, back: Some(errands.back.clone()), of: PhantomData });
    answered(&place, worker, by_ms).await
}

async fn answered<T: 'static>(
    place: &Place<'_, Option<Answer>>,
    worker: &Worker,
    by_ms: u64,
) -> Result<T, Failed> {
    let answer = place.reply(worker, by_ms).await.map_err(|_| Failed::Late)?;
    let value = answer.and_then(|answer| answer.downcast::<T>().ok());
    value.map(|value| *value).ok_or(Failed::Broken)
}

/// Hands out what comes back, for as long as the worker runs.
pub async fn receive(worker: Rc<Worker>) {
    let errands = &worker.errands;
    let received: io::Result<()> = async {
        let ear = errands.back.bell.listen()?;
        loop {
            ear.heard();
            while let Some((ticket, answer)) = errands.back.queue.pop() {
                errands.out.hand_out(ticket, answer);
            }
            ear.wait().await?;
        }
    }
    .await;
    tracing::error!(worker = worker.index, error = ?received.err(), "no errand comes back");
}

impl Errands {
    /// A place for another one, if there is one.
    fn place(&self, worker: &Worker) -> Result<Place<'_, Option<Answer>>, Failed> {
        self.out.place(worker.random.next(), OUT_MAX).ok_or(Failed::Busy)
    }
}
