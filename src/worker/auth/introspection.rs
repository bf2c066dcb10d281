//! The ways `[introspection.NAME]`: the provider of a token is asked about it (RFC 7662), and what
//! it says is remembered.
//!
//! **Bounds.** Requests with the same token share one question; a worker has so many questions
//! under way as the way says, none of them longer than it says, and nobody waits beyond its own
//! deadline. What is remembered is bounded by memory, active tokens and others apart, so that a
//! flood of unknown ones makes nobody ask again about a good one. Invariant: a token is kept as a
//! digest under a key of the process, and is in no log.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    rc::Rc,
};

use super::{
    Asking, Outcome,
    cache::Cache,
    flights::{Flights, Turn},
    jwt::{now_s, shown},
    passwords::Passwords,
    state::State,
};
use crate::{
    config::snapshot::IntrospectionRule,
    policy::{
        Refusal,
        auth::{Found, Seen, WayId},
        identity::{Claims, Shown},
        jwt::Verified,
        keys::Digest,
        refusal,
    },
    wire::emit,
    worker::{
        clock::now_ms,
        subrequest::{self, Answer, Question},
    },
};

/// Bytes of the provider's answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Memory for tokens that were refused, in each worker.
const REFUSED_BYTES_MAX: u64 = 1 << 20;
/// What one of them takes.
const REFUSED_COST: u64 = 128;
/// What an active one takes beside its answer.
const ACTIVE_COST: u64 = 512;
/// A provider that did not answer is left alone for so long, where its last answer still counts.
const PAUSE_MS: u64 = 1000;
/// Between two lines of the log that say so.
const WARN_EVERY_MS: u64 = 10_000;

/// What a provider has said, and is asked just now.
#[derive(Default)]
pub struct Answers {
    active: RefCell<Cache<Active>>,
    refused: RefCell<Cache<Refused>>,
    flights: Flights<Seen>,
    warned_ms: Cell<u64>,
}

#[derive(Clone)]
struct Active {
    verified: Verified,
    /// Of the coarse clock.
    fresh_until_ms: u64,
    /// While the provider does not answer.
    stale_until_ms: u64,
    cost: u64,
}

#[derive(Clone)]
struct Refused {
    refusal: Refusal,
    until_ms: u64,
}

/// Of [`crate::telemetry::metrics::shards::INTROSPECTIONS`].
const ACTIVE: usize = 0;
const INACTIVE: usize = 1;
const FAILED: usize = 2;
const BUSY: usize = 3;

/// What is known of a request's token, or has to be asked.
pub fn now<'a>(asking: Asking<'a>, id: WayId, rule: &'a IntrospectionRule) -> Outcome<'a> {
    let invalid = || Outcome::Refused(refusal::AUTH_INVALID.into());
    let token = match shown(asking, id) {
        Found::Nothing => return Outcome::NotShown,
        Found::Several => return invalid(),
        Found::One(token) => token,
    };
    if token.is_empty() || token.len() > rule.rule.bytes_max {
        return invalid();
    }
    // Of one length, and another one than those of passwords and services have.
    let Some(tag) = Passwords::tag(&[2; 32], &token) else {
        return Outcome::Refused(refusal::AUTH_UNAVAILABLE.into());
    };
    let state = asking.snapshot.auth.of(id);
    if let Some(seen) = state.answers.known(&tag, rule) {
        return seen.into();
    }
    Outcome::Wait(Box::pin(later(asking, state, rule, tag, token)))
}

impl Answers {
    fn known(&self, tag: &Digest, rule: &IntrospectionRule) -> Option<Seen> {
        let now_ms = now_ms();
        if let Some(active) = self.active.borrow_mut().get(tag)
            && now_ms < active.fresh_until_ms
        {
            return Some(match active.verified.is_in_time(&rule.rule, now_s()) {
                Ok(()) => Seen::Identity(active.verified.identity),
                Err(refusal) => Seen::Refused(refusal),
            });
        }
        let refused = self.refused.borrow_mut().get(tag)?;
        (now_ms < refused.until_ms).then_some(Seen::Refused(refused.refusal))
    }

    fn accepted(&self, tag: &Digest, rule: &IntrospectionRule, verified: &Verified, bytes: usize) {
        if rule.remember_ms == 0 {
            return;
        }
        let fresh_until_ms = now_ms().saturating_add(rule.remember_ms);
        let active = Active {
            verified: verified.clone(),
            fresh_until_ms,
            stale_until_ms: fresh_until_ms.saturating_add(rule.stale_ms),
            cost: 4 * bytes as u64 + ACTIVE_COST,
        };
        let cost = active.cost;
        self.active.borrow_mut().put(tag, active, cost, rule.cache_bytes);
    }

    /// What counted before does not any more.
    fn refused(&self, tag: &Digest, rule: &IntrospectionRule, refusal: Refusal) {
        self.active.borrow_mut().remove(tag);
        if rule.remember_refused_ms > 0 {
            let until_ms = now_ms().saturating_add(rule.remember_refused_ms);
            let refused = Refused { refusal, until_ms };
            self.refused.borrow_mut().put(tag, refused, REFUSED_COST, REFUSED_BYTES_MAX);
        }
    }

    /// The provider did not answer: what it said before counts a while longer, if the way says so.
    fn stale(&self, tag: &Digest, rule: &IntrospectionRule) -> Option<Seen> {
        let mut cache = self.active.borrow_mut();
        let active = cache.get(tag)?;
        let now_ms = now_ms();
        if now_ms >= active.stale_until_ms
            || active.verified.is_in_time(&rule.rule, now_s()).is_err()
        {
            return None;
        }
        let fresh_until_ms = (now_ms + PAUSE_MS).min(active.stale_until_ms);
        let identity = active.verified.identity.clone();
        let cost = active.cost;
        cache.put(tag, Active { fresh_until_ms, ..active }, cost, rule.cache_bytes);
        Some(Seen::Identity(identity))
    }

    fn warn(&self, way: &str, why: &str) {
        let now_ms = now_ms();
        if now_ms >= self.warned_ms.get() {
            self.warned_ms.set(now_ms + WARN_EVERY_MS);
            tracing::warn!(way, why, "the provider of tokens does not say whether they are active");
        }
    }
}

/// Asks, or waits for whoever asks about the same token.
async fn later(
    asking: Asking<'_>,
    state: &State,
    rule: &IntrospectionRule,
    tag: Digest,
    token: Cow<'_, [u8]>,
) -> Seen {
    let (worker, answers) = (asking.worker, &state.answers);
    let unavailable = || Refusal { retry_after_s: 1, ..refusal::AUTH_UNAVAILABLE.into() };
    let by_ms = now_ms().saturating_add(rule.timeout_ms);
    let until_ms = by_ms.min(asking.exchange.until_ms);
    loop {
        if let Some(seen) = answers.known(&tag, rule) {
            return seen;
        }
        let own = match answers.flights.turn(&tag, rule.at_once_max) {
            Turn::Own(own) => own,
            Turn::Wait(flight) => {
                let alarm = worker.alarms.alarm();
                match alarm.by(until_ms, flight.over()).await {
                    Ok(Some(seen)) => return seen,
                    Ok(None) if now_ms() < until_ms => continue,
                    _ => return Seen::Refused(unavailable()),
                }
            }
            Turn::Busy => {
                worker.metrics.introspections[BUSY].count();
                let seen = answers.stale(&tag, rule);
                return seen.unwrap_or_else(|| Seen::Refused(unavailable()));
            }
        };
        let asked = ask(asking, state, rule, &token).await;
        let seen = match asked {
            Ok((Ok(verified), bytes)) => {
                worker.metrics.introspections[ACTIVE].count();
                answers.accepted(&tag, rule, &verified, bytes);
                Seen::Identity(verified.identity)
            }
            Ok((Err(refusal), _)) => {
                worker.metrics.introspections[INACTIVE].count();
                answers.refused(&tag, rule, refusal);
                Seen::Refused(refusal)
            }
            Err(why) => {
                worker.metrics.introspections[FAILED].count();
                answers.warn(&state.name, &why);
                match answers.stale(&tag, rule) {
                    Some(seen) => seen,
                    // This request had less time than others may have: they ask themselves.
                    None if until_ms < by_ms && now_ms() >= until_ms => {
                        return Seen::Refused(unavailable());
                    }
                    None => Seen::Refused(unavailable()),
                }
            }
        };
        own.land(seen.clone());
        return seen;
    }
}

/// What the provider says, and how long that was; `Err`: nothing that says it.
type Said = Result<(Result<Verified, Refusal>, usize), Cow<'static, str>>;

async fn ask(asking: Asking<'_>, state: &State, rule: &IntrospectionRule, token: &[u8]) -> Said {
    let question = question(asking, rule, token);
    match subrequest::ask(asking.worker, asking.snapshot, asking.exchange, question).await {
        Ok(answer) => judged(state, rule, &answer),
        Err(refusal) => Err(refusal.reason.token.into()),
    }
}

/// `POST` of a form (RFC 7662 §2.1).
fn question(asking: Asking<'_>, rule: &IntrospectionRule, token: &[u8]) -> Question {
    let asked = &rule.question;
    let mut body = asked.form.0.clone().into_bytes();
    body.extend_from_slice(b"token=");
    for part in form_urlencoded::byte_serialize(token) {
        body.extend_from_slice(part.as_bytes());
    }
    body.extend_from_slice(b"&token_type_hint=access_token");
    let mut head = Vec::with_capacity(512);
    emit::request_line(&mut head, b"POST", asked.path.as_bytes(), None);
    emit::field(&mut head, b"Host", asked.host.as_bytes());
    if let Some(authorization) = &asked.authorization {
        emit::field(&mut head, b"Authorization", authorization.0.as_bytes());
    }
    emit::field(&mut head, b"Accept", b"application/json");
    emit::field(&mut head, b"Content-Type", b"application/x-www-form-urlencoded");
    emit::number_field(&mut head, b"Content-Length", body.len() as u64);
    let id = asking.exchange.id.text(asking.exchange.bytes());
    if !id.is_empty() {
        emit::field(&mut head, b"X-Request-Id", id);
    }
    emit::end(&mut head);
    Question {
        head,
        body,
        lines: Vec::new(),
        upstream: rule.upstream,
        timeout_ms: rule.timeout_ms,
        body_bytes_max: ANSWER_BYTES_MAX,
    }
}

/// RFC 7662 §2.2.
fn judged(state: &State, rule: &IntrospectionRule, answer: &Answer) -> Said {
    if answer.status != 200 {
        return Err(format!("it answers {}", answer.status).into());
    }
    let claims: Claims =
        serde_json::from_slice(&answer.body).map_err(|_| "its answer is no JSON object")?;
    let bytes = answer.body.len();
    match claims.get("active").and_then(serde_json::Value::as_bool) {
        None => return Err("its answer does not say whether it is active".into()),
        Some(false) => return Ok((Err(refusal::AUTH_INACTIVE.into()), bytes)),
        Some(true) => {}
    }
    let issuer = claims.get("iss").and_then(serde_json::Value::as_str);
    if !rule.rule.issuer.is_empty() && issuer != Some(&*rule.rule.issuer) {
        return Ok((Err(refusal::AUTH_ISSUER.into()), bytes));
    }
    let accepted = rule.rule.accept(true, claims, &state.name, now_s());
    let verified = accepted.map(|mut verified| {
        if let Some(identity) = Rc::get_mut(&mut verified.identity) {
            identity.shown = Shown::Service;
        }
        verified
    });
    Ok((verified, bytes))
}
