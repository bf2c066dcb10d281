//! `[forward_auth.NAME]`: a service decides, which gets the request's credentials and is told what
//! it is for.

use std::rc::Rc;

use super::{Asking, Outcome, Slow, known::Which, passwords::Passwords};
use crate::{
    config::snapshot::{ServiceRule, Way},
    policy::{
        Refusal,
        auth::{Seen, WayId},
        identity::{Claims, Identity, Shown},
        keys::Digest,
        refusal,
    },
    wire::{Field, FieldId, emit},
    worker::{
        clock::unix_s,
        subrequest::{self, Answer, Question},
    },
};

/// Bytes of the service's answer that are read; what it says stands in its fields.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What the service says of the request. One that has none of the fields it is asked about shows
/// nothing.
pub fn now<'a>(asking: Asking<'a>, id: WayId, rule: &'a ServiceRule) -> Outcome<'a> {
    if !shown(asking, rule).any(|_| true) {
        return Outcome::NotShown;
    }
    let which = match rule.remember_s {
        0 => None,
        _ => which(asking, id, rule),
    };
    if let Some((identity, until_s)) = which.and_then(|which| asking.worker.known.find(&which))
        && unix_s() < u64::from(until_s)
    {
        return Outcome::Identity(identity);
    }
    let wait: Slow<'a> = Box::pin(async move {
        let seen = ask(asking, id, rule).await;
        if let (Seen::Identity(identity), Some(which)) = (&seen, which) {
            let until_s = unix_s().saturating_add(rule.remember_s);
            let until_s = u32::try_from(until_s).unwrap_or(u32::MAX);
            asking.worker.known.note(which, identity.clone(), until_s);
        }
        seen
    });
    Outcome::Wait(wait)
}

/// The request's fields that the service gets.
fn shown<'a>(asking: Asking<'a>, rule: &'a ServiceRule) -> impl Iterator<Item = &'a Field> {
    let exchange = asking.exchange;
    let is_it = move |field: &&Field| {
        let name = exchange.text(field.name);
        rule.fields.iter().any(|own| own.eq_ignore_ascii_case(name))
    };
    exchange.head().fields.iter().filter(is_it)
}

/// All that the service may decide by, under a secret of the process.
fn which(asking: Asking<'_>, way: WayId, rule: &ServiceRule) -> Option<Which> {
    let exchange = asking.exchange;
    let head = exchange.head();
    let mut text = Vec::with_capacity(256);
    let mut add = |part: &[u8]| {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    };
    add(exchange.text(head.method_text));
    add(exchange.text(head.authority));
    add(exchange.raw_path());
    add(exchange.query().unwrap_or_default());
    add(exchange.scheme().as_bytes());
    if let Some(ip) = exchange.client.ip {
        add(ip.to_string().as_bytes());
    }
    for field in shown(asking, rule) {
        add(&exchange.text(field.name).to_ascii_lowercase());
        add(exchange.text(field.value));
    }
    let digest: Digest = Passwords::tag(&[1; 32], &text)?;
    Some(Which { digest, way, generation: asking.snapshot.generation })
}

async fn ask(asking: Asking<'_>, id: WayId, rule: &ServiceRule) -> Seen {
    let question = question(asking, rule);
    match subrequest::ask(asking.worker, asking.snapshot, asking.exchange, question).await {
        Ok(answer) => judged(asking.snapshot.way(id), rule, &answer),
        Err(refusal) => {
            tracing::debug!(reason = refusal.reason.token, "a service that decides did not answer");
            Seen::Refused(refusal::AUTH_UNAVAILABLE.into())
        }
    }
}

/// `GET PATH` with the fields that are for it, and what the request is in X-Forwarded fields.
fn question(asking: Asking<'_>, rule: &ServiceRule) -> Question {
    let exchange = asking.exchange;
    let head = exchange.head();
    let mut text = Vec::with_capacity(512);
    emit::request_line(&mut text, b"GET", rule.path.as_bytes(), None);
    emit::field(&mut text, b"Host", exchange.text(head.authority));
    // Without cookies that are the gateway's own.
    let cookies = exchange.upstream_fields.as_ref().and_then(|own| own.cookies.as_deref());
    let mut cookies = cookies.filter(|cookies| !cookies.is_empty());
    let has_own = exchange.upstream_fields.as_ref().is_some_and(|own| own.cookies.is_some());
    for field in shown(asking, rule) {
        match exchange.text(field.name).eq_ignore_ascii_case(b"cookie") && has_own {
            false => text.extend_from_slice(exchange.text(field.line)),
            true => {
                if let Some(cookies) = cookies.take() {
                    emit::field(&mut text, b"Cookie", cookies);
                }
            }
        }
    }
    // Those are believed or replaced as in every forwarded request.
    for field in head.fields.iter().filter(|field| is_forwarding(field.id)) {
        text.extend_from_slice(exchange.text(field.line));
    }
    let id = exchange.id.text(exchange.bytes());
    if !id.is_empty() {
        emit::field(&mut text, b"X-Request-Id", id);
    }
    text.extend_from_slice(b"\r\n");
    let mut lines = Vec::with_capacity(256);
    emit::field(&mut lines, b"X-Forwarded-Method", exchange.text(head.method_text));
    let mut uri = exchange.raw_path().to_vec();
    if let Some(query) = exchange.query() {
        uri.push(b'?');
        uri.extend_from_slice(query);
    }
    emit::field(&mut lines, b"X-Forwarded-Uri", &uri);
    Question {
        head: text,
        lines,
        upstream: rule.upstream,
        timeout_ms: rule.timeout_ms,
        body_bytes_max: ANSWER_BYTES_MAX,
    }
}

fn is_forwarding(id: FieldId) -> bool {
    matches!(
        id,
        FieldId::XForwardedFor
            | FieldId::XForwardedProto
            | FieldId::XForwardedHost
            | FieldId::Forwarded
    )
}

/// 2xx is yes; 401 and 403 are no; anything else is no answer.
fn judged(way: &Way, rule: &ServiceRule, answer: &Answer) -> Seen {
    let refused = |refusal: Refusal| Seen::Refused(refusal);
    match answer.status {
        200..=299 => {}
        401 => return refused(refusal::AUTH_INVALID.into()),
        403 => return refused(refusal::AUTH_DENIED.into()),
        _ => return refused(refusal::AUTH_UNAVAILABLE.into()),
    }
    let text = |name: &str| {
        let value = answer.field(name.as_bytes())?;
        String::from_utf8(value).ok().filter(|text| !text.is_empty())
    };
    let mut claims = Claims::new();
    for field in &way.forward {
        if let Some(value) = text(&field.path) {
            claims.insert(field.path.clone(), value.into());
        }
    }
    let subject = rule.subject.as_deref().and_then(text).unwrap_or_default();
    let mut identity = Identity::plain(Shown::Service, way.name.as_str().into(), subject.into());
    if let Some(groups) = rule.groups.as_deref().and_then(text) {
        let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty());
        identity.groups = groups.map(Box::from).collect();
    }
    identity.claims = Rc::new(claims);
    Seen::Identity(Rc::new(identity))
}
