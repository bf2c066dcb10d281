//! What a worker tells control about itself, when it is asked by a message.
//!
//! The data path keeps its own tables; an answer is made from them in one go, so its cost is
//! bounded by what is asked for. Figures are not asked for: control reads them from the shards.

use std::rc::Rc;

use super::{
    Worker, clock, mailbox::EndpointChange, rate_limits::quota, roster::ConnectionLine,
    slowest::SlowRequest,
};

/// What control asks; each answer is sent by calling what comes with it.
pub enum Question {
    /// At most so many connections.
    Connections(usize, Answer<Vec<ConnectionLine>>),
    /// The slowest requests, and the clock their times are of.
    Slowest(Answer<(u64, Vec<SlowRequest>)>),
    /// So many keys whose use of a quota has changed since they were last told.
    QuotaChanges(usize, Answer<Vec<quota::Line>>),
    /// Changes what keys have used of quotas; tells of how many.
    ChangeQuotas(Vec<quota::Wish>, Answer<usize>),
}

pub type Answer<T> = Box<dyn FnOnce(T) + Send>;

impl Worker {
    pub(super) fn answer(self: &Rc<Self>, question: Question) {
        clock::refresh();
        match question {
            Question::Connections(max, answer) => {
                answer(self.roster.lines(&self.snapshot(), max));
            }
            Question::QuotaChanges(max, answer) => {
                answer(self.snapshot().rate_limits.changes(max));
            }
            Question::ChangeQuotas(wishes, answer) => answer(self.change_quotas(&wishes)),
            Question::Slowest(answer) => answer((clock::now_ms(), self.slowest.list())),
        }
    }

    /// Does what the operator wants of an endpoint. One that this worker's configuration does not
    /// have (any more) needs nothing done.
    pub(super) fn set_endpoint(&self, change: EndpointChange) {
        let snapshot = self.snapshot();
        for (rule, state) in snapshot.upstreams().filter(|(rule, _)| rule.name == *change.upstream)
        {
            let named = rule.endpoints.iter().position(|e| e.name == *change.endpoint);
            if let Some(i) = named {
                state.set(i, change.state, change.weight);
            }
        }
        (change.done)();
    }
}
