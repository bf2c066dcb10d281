//! The permission to forward. `worker::forward` takes one, so that a request whose authorisation
//! was forgotten does not compile.
//!
//! **Invariant**: a permit exists only for a request of a route that has no policies
//! ([`Gate::pass`]), or of one whose policies have no rules, or after its rules allowed it
//! ([`Asked::permit`]). The gate of a route is made where the configuration is checked, from
//! what is configured (`tests/house.rs` looks that nobody else makes one).
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
//! nor are policies asked that no gate has handed out:
//!
//! ```compile_fail,E0423
//! # use ringway::{config::snapshot::Policies, policy::permit::Asked};
//! fn of_other_policies(mine: &Policies) {
//!     let asked = Asked(mine);
//! }
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

/// The policies of a route that a request has come to, which are asked once.
#[derive(Debug)]
pub struct Asked<'g, P>(&'g P);

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
    pub fn pass(&self) -> Result<Permit, Asked<'_, P>> {
        match &self.0 {
            None => Ok(Permit(())),
            Some(policies) => Err(Asked(policies)),
        }
    }

    /// What it asks for.
    pub fn policies(&self) -> Option<&P> {
        self.0.as_deref()
    }
}

impl<'g, P: Authorises> Asked<'g, P> {
    /// What else they ask for.
    pub fn policies(&self) -> &'g P {
        self.0
    }

    /// Asks the rules, if there are any. `facts` are put together only then.
    #[inline]
    pub fn permit<'f>(self, facts: impl FnOnce() -> Facts<'f>) -> Result<Passed, &'static Reason> {
        match self.0.authorization() {
            None => Ok(Passed { permit: Permit(()), shadowed: None }),
            Some(rules) => Permit::by(rules, rules.decide(&facts())),
        }
    }
}

impl Permit {
    fn by(rules: &Authorization, decision: Decision) -> Result<Passed, &'static Reason> {
        match decision.reason() {
            Some(reason) if !rules.shadow => Err(reason),
            shadowed => Ok(Passed { permit: Permit(()), shadowed }),
        }
    }
}
