//! Which limits a request is asked about, and what it took of them.
//!
//! Invariants: a request that a limit refuses, of whatever kind, has taken nothing of the others in
//! the end. Nothing is given back, nor settled, that was not taken: where a limit does not apply,
//! where it would have refused and is in shadow mode, and where the request passed without tokens
//! ([`Left::is_free`](crate::policy::limit::Left)). Requests that are refused for another reason
//! (credentials, rules, what they are like) have been made, and are charged.

use super::{give_back, key_of, of};
use crate::{
    config::snapshot::{LimitId, Policies},
    worker::{Worker, exchange::Exchange, generation::Generation},
};

/// Of which of its limits a request took something, by their places in [`all`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    bits: u32,
    /// Limits that it was asked about so far.
    asked: u8,
}

impl Taken {
    /// The next limit has been asked.
    #[inline]
    pub fn note(&mut self, is_taken: bool) {
        // Limits of a route and of a plan are bounded (`LIMITS_MAX`).
        self.bits |= u32::from(is_taken) << (self.asked % u32::BITS as u8);
        self.asked += 1;
    }

    /// Those of `all` of which something was taken.
    pub fn of(self, all: impl Iterator<Item = LimitId>) -> impl Iterator<Item = LimitId> {
        let asked = all.take(self.asked.into()).enumerate();
        asked.filter(move |(at, _)| self.bits >> at & 1 == 1).map(|(_, id)| id)
    }
}

/// Limits of a request, in the order in which they are asked.
pub fn all<'s>(
    snapshot: &'s Generation,
    exchange: &'s Exchange,
    policies: &'s Policies,
) -> impl Iterator<Item = LimitId> + 's {
    let early = policies.rate_limits.iter().flat_map(|limits| limits.early.iter().copied());
    early.chain(late(snapshot, exchange, policies))
}

/// Those that are asked after authorisation: the route's, and those of the plan of the request's
/// consumer, but for those that the route has asked already.
pub fn late<'s>(
    snapshot: &'s Generation,
    exchange: &'s Exchange,
    policies: &'s Policies,
) -> impl Iterator<Item = LimitId> + 's {
    let own = policies.rate_limits.as_deref();
    let consumer = exchange.identity.as_ref().and_then(|identity| identity.consumer);
    let plan = consumer.and_then(|consumer| snapshot.consumers.plan(consumer));
    let of_plan = plan.into_iter().flat_map(|plan| plan.rate_limits.iter().copied());
    let is_new =
        move |id: &LimitId| own.is_none_or(|own| !own.early.contains(id) && !own.late.contains(id));
    own.into_iter().flat_map(|own| own.late.iter().copied()).chain(of_plan.filter(is_new))
}

/// A limit has refused the request: what others took goes back.
#[cold]
pub fn give_all_back(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &Exchange,
    policies: &Policies,
    taken: Taken,
) {
    for id in taken.of(all(snapshot, exchange, policies)) {
        let (rule, state) = of(snapshot, id);
        // One in shadow mode counts on.
        if let Some(key) =
            key_of(worker, snapshot, exchange, rule, state.number).filter(|_| !rule.shadow)
        {
            give_back(worker, state, key, rule.cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::LIMITS_MAX;

    #[test]
    fn what_was_taken_is_known_by_place() {
        let mut taken = Taken::default();
        assert_eq!(taken.of(0..9).count(), 0, "nothing was asked");
        // As many as a route and a plan may have.
        for at in 0..2 * LIMITS_MAX {
            taken.note(at % 3 != 1);
        }
        let wanted: Vec<u32> = (0..2 * LIMITS_MAX as u32).filter(|at| at % 3 != 1).collect();
        assert_eq!(taken.of(0..100).collect::<Vec<_>>(), wanted);
    }
}
