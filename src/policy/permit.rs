//! The permission to forward. `worker::forward` takes one, so that a request whose authorisation
//! was forgotten does not compile.
//!
//! **Invariant**: a permit exists only for a request of a route that has no policies
//! ([`Gate::pass`]), or of one whose policies have no rules, or after its rules allowed it
//! ([`Permit::ask`]). The gate of a route is made where the configuration is checked, from what is
//! configured (`tests/house.rs` looks that nobody else makes one).
//!
//! Nobody else makes a permit:
//!
//! ```compile_fail,E0423
//! let permit = ringway::policy::permit::Permit(());
//! ```
//!
//! ```compile_fail,E0599
//! let permit = ringway::policy::permit::Permit::of_open_route();
//! ```
//!
//! ```compile_fail,E0599
//! let permit = ringway::policy::permit::Permit::default();
//! ```
//!
//! nor a gate without the policies that are configured:
//!
//! ```compile_fail,E0624
//! # use ringway::{config::snapshot::Policies, policy::permit::Gate};
//! let gate: Gate<Policies> = Gate::of(None);
//! ```
//!
//! ```compile_fail,E0423
//! # use ringway::{config::snapshot::Policies, policy::permit::Gate};
//! let gate: Gate<Policies> = Gate(None);
//! ```
//!
//! A route that has policies gives none without being asked:
//!
//! ```compile_fail,E0308
//! # use ringway::{config::snapshot::Route, policy::permit::Permit};
//! fn forget_the_rules(route: &Route) -> Permit {
//!     route.policies.pass()
//! }
//! ```
//!
//! Forwarding needs one, and one is for one request:
//!
//! ```compile_fail,E0308
//! # use ringway::worker::{exchange::*, forward::forward, generation::Generation, Worker};
//! # async fn f<B: RequestBody, S: ResponseSink>(
//! #     worker: &Worker, snapshot: &Generation, exchange: &Exchange,
//! #     matched: &ringway::policy::route::RouteMatch, body: &mut B, sink: &mut S,
//! # ) {
//! let _ = forward(worker, snapshot, exchange, (matched, 0), body, sink).await;
//! # }
//! ```
//!
//! ```compile_fail,E0382
//! # use ringway::policy::permit::Permit;
//! # use ringway::worker::{exchange::*, forward::forward, generation::Generation, Worker};
//! # async fn f<B: RequestBody, S: ResponseSink>(
//! #     worker: &Worker, snapshot: &Generation, exchange: &Exchange, permit: Permit,
//! #     matched: &ringway::policy::route::RouteMatch, body: &mut B, sink: &mut S,
//! # ) {
//! let _ = forward(worker, snapshot, exchange, (matched, 0, permit), body, sink).await;
//! let _ = forward(worker, snapshot, exchange, (matched, 0, permit), body, sink).await;
//! # }
//! ```

use super::authorize::{Authorization, Decision, Facts};
use crate::wire::Reason;

/// That a request may be forwarded. Only this module makes one; it is used up by forwarding.
#[derive(Debug)]
pub struct Permit(());

/// What holds the policies of a route.
pub trait Authorises {
    /// The rules that a request has to pass, if there are any.
    fn authorization(&self) -> Option<&Authorization>;
}

/// A route's policies, if it has any; nothing else gives a permit.
#[derive(Clone, Debug)]
pub struct Gate<P>(Option<Box<P>>);

/// A request that may pass.
#[derive(Debug)]
pub struct Passed {
    pub permit: Permit,
    /// Why rules in shadow mode would have refused it.
    pub shadowed: Option<&'static Reason>,
}

impl<P: Authorises> Gate<P> {
    /// Of a route with these policies.
    pub(crate) fn of(policies: Option<Box<P>>) -> Gate<P> {
        Gate(policies)
    }

    /// The permit of a route that asks for nothing, or the policies that are to be asked.
    #[inline]
    pub fn pass(&self) -> Result<Permit, &P> {
        match &self.0 {
            None => Ok(Permit(())),
            Some(policies) => Err(policies),
        }
    }

    /// What it asks for.
    pub fn policies(&self) -> Option<&P> {
        self.0.as_deref()
    }
}

impl Permit {
    /// Asks the rules of a route, if it has any. `facts` are put together only then.
    #[inline]
    pub fn ask<'f, P: Authorises>(
        policies: &P,
        facts: impl FnOnce() -> Facts<'f>,
    ) -> Result<Passed, &'static Reason> {
        match policies.authorization() {
            None => Ok(Passed { permit: Permit(()), shadowed: None }),
            Some(rules) => Permit::by(rules, rules.decide(&facts())),
        }
    }

    fn by(rules: &Authorization, decision: Decision) -> Result<Passed, &'static Reason> {
        match decision.reason() {
            Some(reason) if !rules.shadow => Err(reason),
            shadowed => Ok(Passed { permit: Permit(()), shadowed }),
        }
    }
}
