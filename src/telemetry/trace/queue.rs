//! From a worker to control: recorded exchanges wait in a queue with a bound. One that finds it
//! full is dropped and counted; the worker never waits.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::spans::ExchangeSpans;
use crate::telemetry::metrics::cell::Cell;

/// Spans of one worker that found no room, or no place in their exchange, over all queues it has
/// had. Written by the worker.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct Dropped(pub Cell);

/// The queue of one worker. The worker alone puts in, control alone takes out.
#[derive(Debug)]
pub struct SpanQueue {
    waiting: ArrayQueue<Box<ExchangeSpans>>,
    dropped: Arc<Dropped>,
}

impl SpanQueue {
    /// Room for `exchanges_max` exchanges, at least one.
    pub fn new(exchanges_max: usize, dropped: Arc<Dropped>) -> SpanQueue {
        SpanQueue { waiting: ArrayQueue::new(exchanges_max.max(1)), dropped }
    }

    /// Leaves an exchange for control, or drops it.
    pub fn put(&self, spans: Box<ExchangeSpans>) {
        self.dropped.0.add(u64::from(spans.tries_left_out));
        if let Err(spans) = self.waiting.push(spans) {
            self.dropped.0.add(spans.count() as u64);
        }
    }

    pub fn take(&self) -> Option<Box<ExchangeSpans>> {
        self.waiting.pop()
    }

    pub fn exchanges_max(&self) -> usize {
        self.waiting.capacity()
    }
}
