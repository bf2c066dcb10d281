//! Requests whose cost only the upstream knows (`rate_limits.cost_from`): its response says it, and
//! what is beyond the cost that was taken before is taken then, or what is less given back.
//!
//! The response passes as it is. Invariant: a request is settled once, by its final response; one
//! whose response does not say it has cost what was taken.

use super::{LimitState, Taken, all, fleet::Home, give_back_of, key_of, of};
use crate::{
    config::snapshot::{Action, Policies, RateLimit},
    policy::{Refusal, limit::Period, permit::Permit, route::RouteMatch},
    wire::ResponseHead,
    worker::{
        Worker,
        buffers::Buffer,
        exchange::{Exchange, OwnResponse, RequestBody, ResponseSink, passes_on},
        forward,
        generation::Generation,
        grpc_web, home, shape,
        splice::Pipe,
    },
};

/// What a response may say that a request cost.
const COST_MAX: u32 = 1_000_000_000;

/// Forwards a request, as its policies have it, and settles with its limits what it cost.
pub async fn act<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    (matched, permit, taken): (&RouteMatch, Permit, Taken),
    policies: &Policies,
    (body, sink): (&mut B, &mut S),
) -> Result<(), Refusal> {
    let taken = taken.of(all(snapshot, exchange, policies)).filter_map(|id| {
        let (rule, state) = of(snapshot, id);
        rule.cost_from.as_ref()?;
        let key = key_of(worker, snapshot, exchange, rule, state.number)?;
        Some((rule, state, key, state.period()))
    });
    let taken = taken.collect();
    let mut sink = Settling { inner: sink, worker, taken };
    let rule = snapshot.route(matched.route);
    let upstream = match rule.action {
        Action::Forward(upstream) if !policies.shapes() => upstream,
        _ => {
            let (to, both) = ((matched, permit), (body, &mut sink));
            return shape::act(worker, snapshot, exchange, to, policies, both).await;
        }
    };
    let to = (matched, upstream, permit);
    if rule.grpc_web && exchange.grpc_kind().is_web() {
        let kind = exchange.grpc_kind();
        return grpc_web::forward(worker, snapshot, exchange, kind, to, (body, &mut sink)).await;
    }
    forward::forward(worker, snapshot, exchange, to, body, &mut sink).await
}

/// The client's sink, and what is to be settled when a response begins.
struct Settling<'s, S> {
    inner: &'s mut S,
    worker: &'s Worker,
    /// Limits with the key of the request, and of quotas the period in which it began.
    taken: Vec<(&'s RateLimit, &'s LimitState, u64, Period)>,
}

impl<S> Settling<'_, S> {
    fn settle(&mut self, head: &ResponseHead, bytes: &[u8]) {
        for (rule, state, key, period) in self.taken.drain(..) {
            let name = rule.cost_from.as_deref().unwrap_or_default().as_bytes();
            let field = head.fields.iter().find(|f| f.name.of(bytes).eq_ignore_ascii_case(name));
            let text = field.and_then(|field| std::str::from_utf8(field.value.of(bytes)).ok());
            let cost = text.and_then(|text| text.trim().parse::<u32>().ok());
            let Some(cost) = cost.map(|cost| cost.min(COST_MAX)) else { continue };
            if cost < rule.cost {
                give_back_of(self.worker, state, key, rule.cost - cost, period);
            } else if cost > rule.cost {
                charge(self.worker, state, key, cost - rule.cost, period);
            }
        }
    }
}

/// Takes from a bucket whether it has that much or not.
pub(super) fn charge(worker: &Worker, state: &LimitState, key: u64, tokens: u32, period: Period) {
    let home = worker.homes.of(key);
    if home == worker.index {
        return match Home::of(worker, state) {
            Some(home) => home.charge(key, tokens),
            None => state.buckets.borrow_mut().charge(key, tokens, period),
        };
    }
    let letter = super::Letter::Charge { limit: state.number, key, tokens, period };
    // One that does not get there is not charged.
    let _ = worker.homes.leave(home, home::Letter::Limit(letter));
}

impl<S: ResponseSink> ResponseSink for Settling<'_, S> {
    passes_on!();

    async fn head(
        &mut self,
        head: &ResponseHead,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        self.settle(head, buf.bytes());
        self.inner.head(head, buf, last, trailer_lines).await
    }

    async fn ready(&mut self) -> Result<(), Refusal> {
        self.inner.ready().await
    }

    async fn data(
        &mut self,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        self.inner.data(buf, last, trailer_lines).await
    }

    fn takes_pipes(&self) -> bool {
        self.inner.takes_pipes()
    }

    async fn splice(&mut self, pipe: &mut Pipe, last: bool) -> Result<(), Refusal> {
        self.inner.splice(pipe, last).await
    }

    async fn own(&mut self, response: OwnResponse<'_>) -> Result<(), Refusal> {
        self.inner.own(response).await
    }

    async fn switch(&mut self, head: &ResponseHead, buf: &Buffer) -> Result<(), Refusal> {
        self.settle(head, buf.bytes());
        self.inner.switch(head, buf).await
    }
}
