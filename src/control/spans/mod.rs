//! Spans on their way to the collector: taken from the workers' queues, sent in batches by a thread
//! of its own, which alone waits for the collector.
//!
//! **Bounds.** What waits is in the workers' queues (`tracing.queue`) and in one batch (512 spans
//! or 1 MiB). While the collector is slow or away the queues fill up and workers drop what finds no
//! room; a batch is tried again for two minutes at most. Every span that was made is counted in the
//! end as exported or dropped.

mod collector;
mod otlp;

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    config::snapshot::{Export, Tracing},
    telemetry::{
        metrics::{cell::Cell, expose::SpanCounts},
        request_id::Random,
        trace::{
            queue::{Dropped, SpanQueue},
            spans::ExchangeSpans,
        },
    },
};
use collector::{Answer, Collector};

/// How often the queues are looked into.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A batch is sent when it has this many spans, or is this large, or its first span has waited
/// this long: short, because whoever looks for the trace of a request has just sent it.
const BATCH_SPANS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// How long one batch is tried again, and how long the pauses between are.
const RETRY_FOR: Duration = Duration::from_secs(120);
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// What happens again and again is said this often.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How long what is left may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Spans so far, as everybody may read them.
#[derive(Debug)]
struct Counts {
    /// Taken out of the queues, and what became of them. Written by the exporting thread.
    taken: Cell,
    exported: Cell,
    dropped: Cell,
    /// Written by the workers, each its own.
    dropped_by_workers: Vec<Arc<Dropped>>,
}

impl Counts {
    fn dropped_by_workers(&self) -> u64 {
        self.dropped_by_workers.iter().map(|dropped| dropped.0.get()).sum()
    }

    /// Neither exported nor dropped yet.
    fn in_hand(&self) -> u64 {
        self.taken.get().saturating_sub(self.exported.get() + self.dropped.get())
    }
}

enum Order {
    /// Send there from now on, and take from these queues too.
    Adopt(Box<Export>, Vec<Arc<SpanQueue>>),
    /// Send what is there, until then, and end.
    Finish(Instant),
}

/// Control's side of the exporter. Its thread begins with the first configuration that traces.
pub struct Spans {
    counts: Arc<Counts>,
    running: Option<Running>,
    /// Of the configuration in force, by worker.
    queues: Vec<Arc<SpanQueue>>,
}

struct Running {
    orders: mpsc::Sender<Order>,
    ended: mpsc::Receiver<()>,
}

impl Spans {
    pub fn new(workers: usize) -> Spans {
        let counts = Counts {
            taken: Cell::default(),
            exported: Cell::default(),
            dropped: Cell::default(),
            dropped_by_workers: (0..workers).map(|_| Arc::default()).collect(),
        };
        Spans { counts: Arc::new(counts), running: None, queues: Vec::new() }
    }

    /// Where others read what became of spans.
    pub fn totals(&self) -> SpanTotals {
        SpanTotals(self.counts.clone())
    }

    /// Goes over to another configuration. Answers each worker's queue.
    pub fn adopt(&mut self, rule: Option<&Tracing>) -> Vec<Option<Arc<SpanQueue>>> {
        let Some(rule) = rule else {
            // What is in them is still sent.
            self.queues.clear();
            return self.no_queues();
        };
        let room = rule.queue_max as usize;
        if self.queues.first().is_none_or(|queue| queue.exchanges_max() != room) {
            let dropped = self.counts.dropped_by_workers.iter().cloned();
            self.queues = dropped.map(|count| Arc::new(SpanQueue::new(room, count))).collect();
        }
        let order = Order::Adopt(Box::new(rule.export.clone()), self.queues.clone());
        match self.tell(order) {
            Ok(()) => self.queues.iter().cloned().map(Some).collect(),
            Err(e) => {
                tracing::error!("no thread for the spans, nothing is traced: {e}");
                self.queues.clear();
                self.no_queues()
            }
        }
    }

    fn no_queues(&self) -> Vec<Option<Arc<SpanQueue>>> {
        vec![None; self.counts.dropped_by_workers.len()]
    }

    fn tell(&mut self, order: Order) -> std::io::Result<()> {
        if self.running.is_none() {
            self.running = Some(Running::begin(self.counts.clone())?);
        }
        let orders = self.running.as_ref().map(|running| &running.orders);
        let is_told = orders.is_some_and(|orders| orders.send(order).is_ok());
        is_told.then_some(()).ok_or_else(|| std::io::Error::other("it has ended"))
    }

    /// Sends what is left, when the workers have ended, and says what became of all. Takes two
    /// seconds at most.
    pub fn finish(mut self) {
        let Some(running) = self.running.take() else { return };
        let by = Instant::now() + LAST_WORDS;
        let is_told = running.orders.send(Order::Finish(by)).is_ok();
        let rest = by.saturating_duration_since(Instant::now());
        let mut lost = 0;
        if !is_told || running.ended.recv_timeout(rest + LOOK_EVERY).is_err() {
            let left = self.queues.iter().flat_map(|queue| std::iter::from_fn(|| queue.take()));
            lost = self.counts.in_hand() + left.map(|spans| spans.count() as u64).sum::<u64>();
            tracing::warn!(lost, "the collector did not answer in time, the last spans are lost");
        }
        let SpanCounts { exported, dropped } = self.totals().counts();
        let dropped = dropped + lost;
        tracing::info!(exported, dropped, "spans");
    }
}

/// What became of spans, for any thread.
#[derive(Clone)]
pub struct SpanTotals(Arc<Counts>);

impl SpanTotals {
    /// So far.
    pub fn counts(&self) -> SpanCounts {
        let dropped = self.0.dropped.get() + self.0.dropped_by_workers();
        SpanCounts { exported: self.0.exported.get(), dropped }
    }
}

impl Running {
    fn begin(counts: Arc<Counts>) -> std::io::Result<Running> {
        let (orders, received) = mpsc::channel();
        let (tell_end, ended) = mpsc::channel();
        thread::Builder::new().name("spans".to_owned()).spawn(move || {
            Exporter::new(counts).run(&received);
            // Nobody waits when the process was told to end at once.
            let _ = tell_end.send(());
        })?;
        Ok(Running { orders, ended })
    }
}

/// A batch on its way.
struct Sending {
    body: Vec<u8>,
    spans: u64,
    tries: u32,
    /// Not tried before, and not tried again after.
    next: Instant,
    until: Instant,
}

/// The exporting thread's state.
struct Exporter {
    counts: Arc<Counts>,
    collector: Option<Collector>,
    resource: otlp::Resource,
    queues: Vec<Arc<SpanQueue>>,
    /// Of what the workers dropped, what was looked at.
    dropped_by_workers: u64,
    /// Taken from the queues and not encoded yet.
    batch: Vec<ExchangeSpans>,
    batch_spans: usize,
    batch_bytes: usize,
    batch_begun: Option<Instant>,
    sending: Option<Sending>,
    random: Random,
    trouble: Trouble,
}

/// What is to be said about dropped spans, not too often.
#[derive(Default)]
struct Trouble {
    dropped: u64,
    why: String,
    /// Why a batch is still to be sent again; empty when none is.
    why_later: String,
    said: Option<Instant>,
}

impl Exporter {
    fn new(counts: Arc<Counts>) -> Exporter {
        Exporter {
            counts,
            collector: None,
            resource: otlp::Resource::default(),
            queues: Vec::new(),
            dropped_by_workers: 0,
            batch: Vec::new(),
            batch_spans: 0,
            batch_bytes: 0,
            batch_begun: None,
            sending: None,
            random: Random::default(),
            trouble: Trouble::default(),
        }
    }

    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        let mut wait = LOOK_EVERY;
        loop {
            let is_idle = self.queues.is_empty() && self.batch.is_empty() && self.sending.is_none();
            let order = if is_idle {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_timeout(wait)
            };
            match order {
                Ok(Order::Adopt(export, queues)) => self.adopt(*export, queues),
                Ok(Order::Finish(by)) => return self.finish(by),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Batch after batch, as long as there are full ones and the collector takes them; but
            // orders are heeded in between.
            wait = if self.step() { Duration::ZERO } else { LOOK_EVERY };
            self.trouble.say();
        }
    }

    fn adopt(&mut self, export: Export, queues: Vec<Arc<SpanQueue>>) {
        for queue in queues {
            if !self.queues.iter().any(|known| Arc::ptr_eq(known, &queue)) {
                self.queues.push(queue);
            }
        }
        // One that stays keeps its connection.
        if self.collector.as_ref().is_none_or(|collector| *collector.export() != export) {
            self.resource = otlp::Resource::of(&export.service_name);
            self.collector = Some(Collector::new(export));
        }
    }

    /// Does what is due; true when there may be more to do at once.
    fn step(&mut self) -> bool {
        self.gather();
        let now = Instant::now();
        match &self.sending {
            Some(sending) if sending.next > now => false,
            Some(_) => self.send(None),
            None if self.is_full() => {
                self.encode();
                self.send(None)
            }
            None => {
                if self.batch_begun.is_some_and(|begun| now >= begun + BATCH_WAIT) {
                    self.encode();
                    self.send(None);
                }
                false
            }
        }
    }

    fn is_full(&self) -> bool {
        self.batch_spans >= BATCH_SPANS || self.batch_bytes >= BATCH_BYTES
    }

    /// Takes what waits into the batch until it is full; lets go of queues that nobody uses.
    fn gather(&mut self) {
        let mut queues = std::mem::take(&mut self.queues);
        queues.retain(|queue| {
            // Looked at first: what is put in before the worker lets go is then taken below.
            let is_used = Arc::strong_count(queue) > 1;
            while !self.is_full() {
                match queue.take() {
                    Some(spans) => self.add(*spans),
                    None => break,
                }
            }
            is_used || self.is_full()
        });
        self.queues = queues;
        let dropped = self.counts.dropped_by_workers();
        self.trouble.note(dropped - self.dropped_by_workers, "`tracing.queue` is full");
        self.dropped_by_workers = dropped;
    }

    fn add(&mut self, spans: ExchangeSpans) {
        self.counts.taken.add(spans.count() as u64);
        self.batch_begun.get_or_insert_with(Instant::now);
        self.batch_spans += spans.count();
        self.batch_bytes += spans.bytes();
        self.batch.push(spans);
    }

    /// Turns the batch into a request.
    fn encode(&mut self) {
        let body = otlp::request(&self.batch, &self.resource);
        let now = Instant::now();
        let spans = self.batch_spans as u64;
        self.batch.clear();
        (self.batch_spans, self.batch_bytes, self.batch_begun) = (0, 0, None);
        self.sending = Some(Sending { body, spans, tries: 0, next: now, until: now + RETRY_FOR });
    }

    /// Sends the request that is there, by `by` when it is the last time. True when the collector
    /// took it.
    fn send(&mut self, by: Option<Instant>) -> bool {
        let Some(mut sending) = self.sending.take() else { return false };
        let Some(collector) = &self.collector else { return false };
        let within = by.map(|by| by.saturating_duration_since(Instant::now()));
        match collector.post(&sending.body, within) {
            Answer::Taken { rejected, message } => {
                let rejected = rejected.min(sending.spans);
                let exported = &self.counts.exported;
                exported.add(sending.spans - rejected);
                self.trouble.why_later.clear();
                self.drop_spans(rejected, &format!("the collector rejected them: {message}"));
                true
            }
            Answer::Refused(why) => {
                self.drop_spans(sending.spans, &why);
                false
            }
            Answer::Later { after, why } => {
                sending.tries += 1;
                let pause = after.unwrap_or_else(|| pause(sending.tries, self.random.next()));
                sending.next = Instant::now() + pause;
                if by.is_some() || sending.next > sending.until {
                    self.drop_spans(sending.spans, &why);
                } else {
                    self.trouble.why_later = why;
                    self.sending = Some(sending);
                }
                false
            }
        }
    }

    fn drop_spans(&mut self, spans: u64, why: &str) {
        self.counts.dropped.add(spans);
        self.trouble.note(spans, why);
    }

    /// Sends what is left until `by`, each batch once; the rest is dropped.
    fn finish(mut self, by: Instant) {
        self.send(Some(by));
        loop {
            self.gather();
            if self.batch.is_empty() {
                break;
            }
            self.encode();
            if Instant::now() < by {
                self.send(Some(by));
            } else if let Some(sending) = self.sending.take() {
                self.drop_spans(sending.spans, "the process ended");
            }
        }
        self.trouble.said = None;
        self.trouble.say();
    }
}

/// The pause before try number `tries` + 1: twice as long each time, of which up to half is left
/// to chance so that the gateways of a fleet do not come all at once.
fn pause(tries: u32, random: u64) -> Duration {
    let longest = PAUSE_FIRST * (1 << tries.saturating_sub(1).min(10));
    let longest = longest.min(PAUSE_MAX);
    longest.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64))
}

impl Trouble {
    fn note(&mut self, dropped: u64, why: &str) {
        if dropped > 0 {
            self.dropped += dropped;
            self.why = match self.why_later.as_str() {
                "" => why.to_owned(),
                later => format!("{why}, {later}"),
            };
        }
    }

    fn say(&mut self) {
        let is_due = self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY);
        if self.dropped > 0 && is_due {
            tracing::warn!(dropped = self.dropped, "spans dropped: {}", self.why);
            self.dropped = 0;
            self.said = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let ms = |tries, random| pause(tries, random).as_millis();
        assert_eq!((ms(1, 0), ms(1, u64::MAX)), (250, 500));
        assert_eq!((ms(3, 0), ms(3, u64::MAX)), (1000, 2000));
        assert_eq!((ms(99, 0), ms(u32::MAX, u64::MAX)), (10_000, 20_000));
    }

    #[test]
    fn a_queue_is_kept_while_it_is_as_large_and_let_go_when_unused() {
        let mut spans = Spans::new(2);
        let rule = |queue_max| Tracing {
            sampler: crate::telemetry::trace::Sampler {
                sampling: crate::telemetry::trace::Sampling::of(1.0),
                follows_parent: true,
            },
            queue_max,
            export: Export {
                url: "http://127.0.0.1:9/v1/traces".to_owned(),
                headers: Vec::new(),
                service_name: "x".to_owned(),
                timeout_ms: 10,
            },
        };
        let first = spans.adopt(Some(&rule(16)));
        let same = spans.adopt(Some(&rule(16)));
        let other = spans.adopt(Some(&rule(17)));
        let is_same = |a: &[Option<Arc<SpanQueue>>], b: &[Option<Arc<SpanQueue>>]| {
            a.iter().zip(b).all(|(a, b)| match (a, b) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                _ => false,
            })
        };
        assert!(first.len() == 2 && is_same(&first, &same) && !is_same(&first, &other));
        assert!(spans.adopt(None).iter().all(Option::is_none));
        let weak: Vec<_> = first.iter().chain(&other).flatten().map(Arc::downgrade).collect();
        drop((first, same, other));
        let deadline = Instant::now() + Duration::from_secs(10);
        while weak.iter().any(|queue| queue.strong_count() > 0) {
            assert!(Instant::now() < deadline, "the exporter holds on to a queue");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
