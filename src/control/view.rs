//! What other threads of control may know of the gateway: a value that the main thread makes anew
//! whenever something has changed. Readers hold the lock for as long as it takes to count one more
//! of them; workers never see it.

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use super::{
    acme::Board, endpoints::Overrides, history::History, logs::Logs, quotas::ledger::Ledger,
    ready::Readiness, run::Event, spans::SpanTotals, watch::Signs,
};
use crate::{
    config::{
        Snapshot,
        snapshot::{Bind, ListenerRule},
    },
    telemetry::metrics::registry::Registry,
    worker::{
        mailbox::{Message, Sender},
        report::{Answer, Question},
        ring::RingView,
    },
};

/// How long a worker may take to answer a question. It does so between two requests; one that takes
/// this long is stuck.
pub const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Questions a worker may have waiting: a stuck one must keep room for orders in its mailbox.
const QUESTIONS_MAX: u32 = 16;

/// What is shared with the main thread.
pub struct Shared {
    view: Mutex<Arc<View>>,
    pub readiness: Readiness,
    counted: Counted,
    /// What the watch sees.
    pub signs: Signs,
    tell: mpsc::Sender<Event>,
}

/// What is counted all the time.
pub struct Counted {
    /// Everything that workers count. Locked only by control's own threads.
    pub registry: Arc<Mutex<Registry>>,
    pub logs: Logs,
    pub spans: SpanTotals,
    pub acme: Board,
    /// What was used of quotas.
    pub ledger: Ledger,
}

impl Deref for Shared {
    type Target = Counted;

    fn deref(&self) -> &Counted {
        &self.counted
    }
}

/// The gateway as of its last change.
#[derive(Clone)]
pub struct View {
    /// In force; some workers may not have it yet.
    pub snapshot: Arc<Snapshot>,
    pub file: Option<PathBuf>,
    /// Unix time in seconds.
    pub started: u64,
    pub history: History,
    pub workers: Vec<WorkerView>,
    pub listeners: Vec<ListenerView>,
    pub overrides: Overrides,
}

/// A listener and where it is bound: its port is the real one.
#[derive(Clone)]
pub struct ListenerView {
    pub rule: ListenerRule,
    pub bind: Bind,
}

/// One worker.
#[derive(Clone)]
pub struct WorkerView {
    pub core: u32,
    /// How it drives its sockets; empty until it has started.
    pub io: &'static str,
    /// Its ring's own counts, where it has a ring.
    pub ring: Option<Arc<RingView>>,
    /// It has ended.
    pub is_down: bool,
    mailbox: Sender,
    questions: Arc<AtomicU32>,
}

impl Shared {
    pub fn new(
        view: View,
        readiness: Readiness,
        counted: Counted,
        tell: mpsc::Sender<Event>,
    ) -> Arc<Shared> {
        let signs = Signs::of(view.workers.len());
        let view = Mutex::new(Arc::new(view));
        Arc::new(Shared { view, readiness, counted, signs, tell })
    }

    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn view(&self) -> Arc<View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this is what others see.
    pub fn publish(&self, view: View) {
        let before = {
            let mut shown = self.view.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *shown, Arc::new(view))
        };
        // Perhaps the last reference to a large configuration: not while the lock is held.
        drop(before);
    }

    /// Tells the main thread; `false` when it has ended.
    pub fn tell(&self, event: Event) -> bool {
        self.tell.send(event).is_ok()
    }
}

impl WorkerView {
    pub fn new(core: u32, mailbox: Sender) -> WorkerView {
        let questions = Arc::default();
        WorkerView { core, io: "", ring: None, is_down: false, mailbox, questions }
    }

    /// Messages that it has not read.
    pub fn waiting(&self) -> usize {
        self.mailbox.waiting()
    }

    /// The worker's answer; `None` when it is down, stuck, or asked too much already.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(Answer<T>) -> Question,
    ) -> Option<T> {
        if self.is_down || self.questions.load(Ordering::Relaxed) >= QUESTIONS_MAX {
            return None;
        }
        self.questions.fetch_add(1, Ordering::Relaxed);
        let asked = Asked(self.questions.clone());
        let (reply, answer) = tokio::sync::oneshot::channel();
        let question = question(Box::new(move |value| {
            // Whoever asked may have given up.
            let _ = reply.send(value);
            drop(asked);
        }));
        self.mailbox.send(Message::Ask(question)).ok()?;
        tokio::time::timeout(ANSWER_MAX, answer).await.ok()?.ok()
    }
}

/// A question on its way; dropping it, answered or not, makes room for another.
struct Asked(Arc<AtomicU32>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::mailbox;

    #[test]
    fn questions_to_a_stuck_worker_leave_room_in_its_mailbox() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, mailbox) = mailbox::mailbox().unwrap();
        let worker = WorkerView::new(0, sender.clone());
        runtime.block_on(async {
            // Nobody reads them, and whoever asks gives up at once.
            for _ in 0..10 * QUESTIONS_MAX {
                let asked = worker.ask(Question::Slowest);
                let answer = tokio::time::timeout(Duration::ZERO, asked).await;
                assert!(!matches!(answer, Ok(Some(_))));
            }
        });
        assert_eq!(sender.waiting() as u32, QUESTIONS_MAX);
        let questions = worker.questions.clone();
        drop((worker, sender, mailbox));
        assert_eq!(questions.load(Ordering::Relaxed), 0, "room again when they are gone");
    }
}
