//! Control's only way into a worker: a bounded queue of messages and a bell.

use std::{io, sync::Arc};

use crossbeam_queue::ArrayQueue;

use super::{bell::Bell, listener::Bound, logs::Outlet, report::Question};
use crate::{
    config::Snapshot,
    policy::balance::State,
    telemetry::{metrics::shards::Series, trace::queue::SpanQueue},
};

/// Messages a worker may have waiting.
const MESSAGES_MAX: usize = 256;
/// So many of them are spare: for what other threads of control ask a worker, and for its end.
/// Orders that would need them are refused as a whole, before any worker hears of one.
const MESSAGES_SPARE: usize = 64;

/// What control tells a worker.
pub enum Message {
    /// Accept on these sockets too: the first message of a worker that starts.
    Listen(Box<Opening>),
    /// Go on with another configuration.
    Adopt(Box<Adoption>),
    /// An endpoint gets another state or weight.
    SetEndpoint(Box<EndpointChange>),
    /// Tell something about yourself.
    Ask(Question),
    /// Accept no more, finish what runs, then end. Another process accepts from now on for the
    /// listeners of these names.
    Drain { handed_over: Arc<[String]> },
    /// End now, whatever still runs.
    Stop,
}

/// Called when a worker has done what it was told; lists the listeners it cannot accept on, each
/// with the reason.
pub type Done = Box<dyn FnOnce(Vec<String>) + Send>;

/// Sockets for a worker that starts.
pub struct Opening {
    pub listeners: Vec<Bound>,
    pub done: Done,
}

/// A new configuration for one worker.
pub struct Adoption {
    pub snapshot: Arc<Snapshot>,
    /// Where the worker counts from then on.
    pub series: Arc<Series>,
    /// Where it leaves spans from then on.
    pub spans: Option<Arc<SpanQueue>>,
    /// By access log, those that stay included.
    pub outlets: Vec<Outlet>,
    /// Sockets for the listeners that are new in it.
    pub listeners: Vec<Bound>,
    pub done: Done,
}

/// What the operator wants of one endpoint.
pub struct EndpointChange {
    pub upstream: Arc<str>,
    /// As written in the configuration.
    pub endpoint: Arc<str>,
    pub state: State,
    pub weight: u32,
    /// Called when the worker goes by it.
    pub done: Box<dyn FnOnce() + Send>,
}

struct Shared {
    queue: ArrayQueue<Message>,
    bell: Bell,
}

/// The sending side; any thread may hold one.
#[derive(Clone)]
pub struct Sender(Arc<Shared>);

/// The receiving side, before it has entered its worker's runtime.
pub struct Mailbox(Arc<Shared>);

/// A new mailbox.
pub fn mailbox() -> io::Result<(Sender, Mailbox)> {
    let shared = Arc::new(Shared { queue: ArrayQueue::new(MESSAGES_MAX), bell: Bell::new()? });
    Ok((Sender(shared.clone()), Mailbox(shared)))
}

impl Sender {
    /// Messages that the worker has not taken out.
    pub fn waiting(&self) -> usize {
        self.0.queue.len()
    }

    /// Leaves a message; gives it back when the mailbox is full.
    pub fn send(&self, message: Message) -> Result<(), Message> {
        self.0.queue.push(message)?;
        self.0.bell.ring();
        Ok(())
    }

    /// The worker has not looked for a long time. One that is not crowded takes control's next
    /// message, whatever other threads ask it meanwhile.
    pub fn is_crowded(&self) -> bool {
        self.waiting() + MESSAGES_SPARE > MESSAGES_MAX
    }
}

impl Mailbox {
    /// Hands every message to `handle` for as long as the worker runs, inside its runtime.
    pub async fn serve(self, mut handle: impl FnMut(Message)) -> io::Result<()> {
        let ear = self.0.bell.listen()?;
        loop {
            #[cfg(debug_assertions)]
            super::drill::while_messages_are_held().await;
            ear.heard();
            while let Some(message) = self.0.queue.pop() {
                handle(message);
            }
            ear.wait().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_gives_the_message_back_and_loses_none() {
        let (sender, mailbox) = mailbox().expect("an eventfd");
        for _ in 0..MESSAGES_MAX {
            assert!(sender.send(Message::Stop).is_ok());
        }
        assert!(sender.is_crowded());
        let drain = Message::Drain { handed_over: Arc::default() };
        assert!(matches!(sender.send(drain), Err(Message::Drain { .. })));
        assert!(matches!(mailbox.0.queue.pop(), Some(Message::Stop)));
        assert!(sender.send(Message::Stop).is_ok());
        (0..MESSAGES_SPARE).for_each(|_| drop(mailbox.0.queue.pop()));
        assert!(!sender.is_crowded());
    }
}
