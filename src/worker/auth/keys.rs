//! `[api_keys.NAME]`: a key in the request, found by its digest.

use std::rc::Rc;

use super::{Asking, Outcome, known::Which};
use crate::{
    config::snapshot::{KeyRule, Way},
    policy::{
        auth::{self, Found, WayId},
        identity::{Identity, Shown},
        key_text, keys, refusal,
    },
    worker::clock::unix_s,
};

/// Whose key the request has.
pub fn now<'a>(asking: Asking<'a>, id: WayId, rule: &KeyRule) -> Outcome<'a> {
    let way = asking.snapshot.way(id);
    let (head, bytes) = (asking.exchange.head(), asking.exchange.bytes());
    let mut found = Found::Nothing;
    for source in &way.sources {
        found = match (found, auth::find(source, head, bytes)) {
            (Found::Nothing, here) => here,
            (one, Found::Nothing) => one,
            _ => Found::Several,
        };
    }
    let digest = match &found {
        Found::Nothing => return Outcome::NotShown,
        Found::One(key) => key_text::digest_of(key),
        Found::Several => return Outcome::Refused(refusal::AUTH_INVALID.into()),
    };
    let which = Which { digest, way: id, generation: asking.snapshot.generation };
    if let Some((identity, expires_s)) = asking.worker.known.find(&which) {
        return judged(identity, expires_s);
    }
    let Some(key) = rule.table.find(&digest) else {
        return Outcome::Refused(refusal::AUTH_INVALID.into());
    };
    if !rule.accepted.has(&asking.snapshot.consumers.all, Some(key.consumer)) {
        return Outcome::Refused(refusal::AUTH_CONSUMER.into());
    }
    let identity = Rc::new(identity(asking, way, &key));
    asking.worker.known.note(which, identity.clone(), key.expires_s);
    judged(identity, key.expires_s)
}

fn judged<'a>(identity: Rc<Identity>, expires_s: u32) -> Outcome<'a> {
    match expires_s != 0 && unix_s() >= u64::from(expires_s) {
        true => Outcome::Refused(refusal::AUTH_EXPIRED.into()),
        false => Outcome::Identity(identity),
    }
}

fn identity(asking: Asking<'_>, way: &Way, key: &keys::Found<'_>) -> Identity {
    let identity = asking.snapshot.consumers.identity(Shown::Key, &way.name, key.consumer);
    Identity { scopes: key.scopes.iter().cloned().collect(), ..identity }
}
