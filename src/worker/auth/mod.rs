//! Who a request is from: asks the ways that its route names, and tells the upstream of what they
//! say. What the route asks for is decided by [`auth::decide`].
//!
//! A way is a module with `fn now(..) -> Outcome`, called from [`now`]. It answers at once where
//! it can; what has to wait is boxed ([`Outcome::Wait`]), so that it costs nobody else anything. A
//! wait does nothing before it is polled: it may be dropped and made again.

mod basic;
mod cache;
mod certificate;
mod flights;
mod introspection;
mod jwt;
mod keys;
pub mod known;
pub mod nonces;
mod oidc;
pub mod passwords;
mod service;
mod signature;
mod state;
mod told;
mod upstream;

pub use state::States;
pub use upstream::keep_own_cookies;

use std::{future::Future, pin::Pin, rc::Rc};

use told::Told;

use super::{
    Worker,
    exchange::{Exchange, ResponseSink},
    generation::Generation,
};
use crate::{
    config::snapshot::{Authenticate, Policies, Way, WayKind},
    policy::{
        Refusal,
        auth::{self, Entry, Seen, Stopped, WayId},
        identity::Identity,
        refusal,
    },
    wire::emit,
};

/// What one way says, or what has to be waited for.
pub enum Outcome<'a> {
    Identity(Rc<Identity>),
    /// The request has nothing that this way looks at.
    NotShown,
    Refused(Refusal),
    Wait(Slow<'a>),
}

/// The part of a check that takes time.
pub type Slow<'a> = Pin<Box<dyn Future<Output = Seen> + 'a>>;

impl From<Seen> for Outcome<'_> {
    fn from(seen: Seen) -> Self {
        match seen {
            Seen::Identity(identity) => Outcome::Identity(identity),
            Seen::NotShown => Outcome::NotShown,
            Seen::Refused(refusal) => Outcome::Refused(refusal),
        }
    }
}

/// A request that is looked at, and what by.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    pub worker: &'a Worker,
    pub snapshot: &'a Generation,
    pub exchange: &'a Exchange,
    /// What ways have to say beside who it is.
    pub told: &'a Told,
}

/// What came of it, unless the request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    On,
    /// The client has its response: it is sent to log in, or comes back from there.
    Answered,
}

/// Asks one way.
fn now(asking: Asking<'_>, id: WayId) -> Outcome<'_> {
    match &asking.snapshot.way(id).kind {
        WayKind::Certificate => certificate::now(asking),
        WayKind::ApiKey(rule) => keys::now(asking, id, rule),
        WayKind::Password(rule) => basic::now(asking, id, rule),
        WayKind::Signature(rule) => signature::now(asking, id, rule),
        WayKind::Service(rule) => service::now(asking, id, rule),
        WayKind::Jwt(rule) => jwt::now(asking, id, rule),
        WayKind::Introspection(rule) => introspection::now(asking, id, rule),
        WayKind::Login(way) => oidc::now(asking, id, way),
    }
}

/// Finds out who the request is from, and notes it. A client that is refused is told what it may
/// show.
pub async fn authenticate<S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    rule: &Authenticate,
    sink: &mut S,
) -> Result<Entered, Refusal> {
    if !rule.logins.is_empty()
        && let Some(at) = oidc::place(snapshot, exchange, rule)
    {
        // Boxed, as all of logins that takes time.
        return Box::pin(oidc::answer((worker, snapshot, exchange), at, sink)).await;
    }
    let told = Told::default();
    let asking = Asking { worker, snapshot, exchange, told: &told };
    let decided = match at_once(asking, rule) {
        Ok(decided) => decided,
        Err(wait) => slowly(asking, rule, wait).await,
    };
    match decided {
        Ok(entry) => {
            upstream::tell(snapshot, exchange, rule, &entry);
            told.tell(exchange, rule, &entry, sink);
            if let Entry::Known(identity, at) = entry {
                exchange.identity = Some(identity);
                if let Some(bytes_max) = rule.digested.get(at).copied().flatten() {
                    exchange.upstream_fields().digested = Some(bytes_max);
                }
            }
            Ok(Entered::On)
        }
        Err(refusal) => {
            if let Some(id) = oidc::wanted(asking, rule, refusal) {
                return Box::pin(oidc::send_to_login((worker, snapshot, exchange), id, sink)).await;
            }
            told.tell_refused(sink);
            if refusal.reason.status == 401 {
                sink.add_fields(&challenges(snapshot, rule, refusal));
            }
            Err(refusal)
        }
    }
}

/// What becomes of a request that the rules refuse: a browser whose user may log in is sent there,
/// others are told what they may show.
pub async fn refused<S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &Exchange,
    policies: &Policies,
    refusal: Refusal,
    sink: &mut S,
) -> Result<(), Refusal> {
    let Some(rule) = policies.authenticate.as_ref().filter(|_| refusal.reason.status == 401) else {
        return Err(refusal);
    };
    let asking = Asking { worker, snapshot, exchange, told: &Told::default() };
    if let Some(id) = oidc::wanted(asking, rule, refusal) {
        return oidc::send_to_login((worker, snapshot, exchange), id, sink).await.map(|_| ());
    }
    sink.add_fields(&challenges(snapshot, rule, refusal));
    Err(refusal)
}

type Decided = Result<Entry, Refusal>;
type Wait<'a> = (WayId, Slow<'a>);

/// Decides, or says what has to be waited for.
fn at_once<'a>(asking: Asking<'a>, rule: &Authenticate) -> Result<Decided, Wait<'a>> {
    decide(asking, rule, |_| None)
}

fn decide<'a>(
    asking: Asking<'a>,
    rule: &Authenticate,
    known: impl Fn(WayId) -> Option<Seen>,
) -> Result<Decided, Wait<'a>> {
    let mut wait = None;
    let decided = auth::decide(&rule.asked, |id| {
        if let Some(seen) = known(id) {
            return Some(seen);
        }
        match now(asking, id) {
            Outcome::Identity(identity) => Some(Seen::Identity(identity)),
            Outcome::NotShown => Some(Seen::NotShown),
            Outcome::Refused(refusal) => Some(Seen::Refused(refusal)),
            Outcome::Wait(slow) => {
                wait = Some((id, slow));
                None
            }
        }
    });
    match (decided, wait) {
        (Ok(entry), _) => Ok(Ok(entry)),
        (Err(Stopped::Refused(refusal)), _) => Ok(Err(refusal)),
        (Err(Stopped::Waits), Some(wait)) => Err(wait),
        (Err(Stopped::Waits), None) => Ok(Err(refusal::AUTH_UNAVAILABLE.into())),
    }
}

/// Decides once more after each wait. Boxed by its type, so that the exchange's task has room for
/// no more than a pointer.
fn slowly<'a>(
    asking: Asking<'a>,
    rule: &'a Authenticate,
    first: Wait<'a>,
) -> Pin<Box<dyn Future<Output = Decided> + 'a>> {
    Box::pin(async move {
        let mut seen: Vec<(WayId, Seen)> = Vec::new();
        let mut wait = first;
        loop {
            seen.push((wait.0, wait.1.await));
            let known = |id| seen.iter().find(|(way, _)| *way == id).map(|(_, seen)| seen.clone());
            wait = match decide(asking, rule, known) {
                Ok(decided) => return decided,
                Err(wait) => wait,
            };
        }
    })
}

/// The field lines that say what may be shown (RFC 9110 §11.6.1).
#[cold]
fn challenges(snapshot: &Generation, rule: &Authenticate, refusal: Refusal) -> Vec<u8> {
    let mut told: Vec<String> = Vec::new();
    for id in rule.asked.alternatives.iter().flatten() {
        let text = challenge(snapshot.way(*id), refusal);
        if !told.contains(&text) {
            told.push(text);
        }
    }
    let mut lines = Vec::with_capacity(128);
    told.iter().for_each(|text| emit::field(&mut lines, b"WWW-Authenticate", text.as_bytes()));
    for id in rule.asked.alternatives.iter().flatten() {
        if let WayKind::Signature(rule) = &snapshot.way(*id).kind {
            emit::field(&mut lines, b"Accept-Signature", rule.wanted.as_bytes());
        }
    }
    lines
}

/// What one way asks for. The name of a way needs no escaping: it is a token.
fn challenge(way: &Way, refusal: Refusal) -> String {
    let name = &way.name;
    match &way.kind {
        // No scheme is registered for what a handshake shows, and there must be a challenge.
        WayKind::Certificate => format!("Certificate realm=\"{name}\""),
        // Nor for what is in a field, a cookie or the query.
        WayKind::ApiKey(_) => format!("ApiKey realm=\"{name}\""),
        WayKind::Password(rule) => basic::challenge(rule),
        // Accept-Signature says the rest.
        WayKind::Signature(_) => format!("Signature realm=\"{name}\""),
        // Only the service knows what it takes.
        WayKind::Service(_) => format!("Service realm=\"{name}\""),
        // Only a browser can show a session, and one that can log in was sent there.
        WayKind::Login(_) => format!("Session realm=\"{name}\""),
        // RFC 6750 §3: nothing of errors where no token was shown.
        WayKind::Jwt(_) | WayKind::Introspection(_)
            if [refusal::AUTH_MISSING, refusal::AUTHZ_IDENTITY].contains(&refusal.reason) =>
        {
            format!("Bearer realm=\"{name}\"")
        }
        WayKind::Jwt(_) | WayKind::Introspection(_) => {
            let meaning = refusal.reason.meaning;
            format!(
                "Bearer realm=\"{name}\", error=\"invalid_token\", error_description=\"{meaning}\""
            )
        }
    }
}
