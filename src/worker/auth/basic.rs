//! `[basic.NAME]`: a name and a password (RFC 7617), verified off the data path.
//!
//! Who gives an unknown name waits as long as who gives a wrong password: the password is then
//! compared with that of some user, and refused whatever comes of it.

use std::rc::Rc;

use super::{
    Asking, Outcome, Slow,
    passwords::{self, Check, Passwords},
};
use crate::{
    config::snapshot::{BasicRule, User, Way},
    policy::{
        auth::{Found, Seen, WayId, find, name_and_password},
        identity::{Identity, Shown},
        refusal,
    },
};

/// Longest name and password together, in bytes: a hash of more would only cost more.
const CREDENTIAL_BYTES_MAX: usize = 1024;

/// Whose password the request has.
pub fn now<'a>(asking: Asking<'a>, id: WayId, rule: &'a BasicRule) -> Outcome<'a> {
    let way = asking.snapshot.way(id);
    let (head, bytes) = (asking.exchange.head(), asking.exchange.bytes());
    let found = way.sources.first().map_or(Found::Nothing, |source| find(source, head, bytes));
    let invalid = || Outcome::Refused(refusal::AUTH_INVALID.into());
    let credential = match found {
        Found::Nothing => return Outcome::NotShown,
        Found::One(text) => text,
        Found::Several => return invalid(),
    };
    if credential.len() > CREDENTIAL_BYTES_MAX * 4 / 3 + 4 {
        return invalid();
    }
    let Some((name, password)) = name_and_password(&credential) else { return invalid() };
    let known = rule.users.places.get(&*name).map(|at| &rule.users.all[*at as usize]);
    let passwords = &asking.worker.passwords;
    let Some(user) = known.or_else(|| stand_in(rule, &name)) else { return invalid() };
    let Some(tag) = Passwords::tag(&user.print, &password) else {
        return Outcome::Refused(refusal::AUTH_UNAVAILABLE.into());
    };
    // Of nobody: the same password under the name that stands in is another matter.
    let tag = if known.is_some() { Some(tag) } else { Passwords::tag(&tag, name.as_bytes()) };
    let Some(tag) = tag else { return Outcome::Refused(refusal::AUTH_UNAVAILABLE.into()) };
    let who = Who { asking, way, rule, known };
    match passwords.remembered(&tag) {
        Some(is_right) => who.seen(is_right).into(),
        None => {
            let wait: Slow<'a> = Box::pin(async move {
                let check = Check {
                    stored: &user.password,
                    password: &password,
                    tag,
                    remember_ms: rule.remember_ms,
                    at_once_max: rule.verify_max,
                };
                match passwords::verified(asking.worker, check).await {
                    Ok(is_right) => who.seen(is_right),
                    Err(refusal) => Seen::Refused(refusal),
                }
            });
            Outcome::Wait(wait)
        }
    }
}

/// What browsers ask with (RFC 7617 §2). The realm has no line end.
pub fn challenge(rule: &BasicRule) -> String {
    let realm = rule.realm.replace('\\', "\\\\").replace('"', "\\\"");
    format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")
}

/// A user whose password takes the time that the one of an unknown name would: the same one for the
/// same name, so that asking twice tells nothing.
fn stand_in<'a>(rule: &'a BasicRule, name: &str) -> Option<&'a User> {
    let tag = Passwords::tag(&[0; 32], name.as_bytes())?;
    let (first, _) = tag.split_first_chunk::<4>()?;
    let users = &rule.users.all;
    users.get(u32::from_be_bytes(*first) as usize % users.len().max(1))
}

/// Who the request is from, if the password is right.
struct Who<'a> {
    asking: Asking<'a>,
    way: &'a Way,
    rule: &'a BasicRule,
    /// `None`: nobody has that name.
    known: Option<&'a User>,
}

impl Who<'_> {
    fn seen(&self, is_right: bool) -> Seen {
        let Some(user) = self.known.filter(|_| is_right) else {
            return Seen::Refused(refusal::AUTH_INVALID.into());
        };
        let consumers = &self.asking.snapshot.consumers;
        if !self.rule.accepted.has(&consumers.all, user.consumer) {
            return Seen::Refused(refusal::AUTH_CONSUMER.into());
        }
        let way = &self.way.name;
        Seen::Identity(Rc::new(match user.consumer {
            Some(consumer) => consumers.identity(Shown::Password, way, consumer),
            None => Identity::plain(Shown::Password, way.as_str().into(), (*user.name).into()),
        }))
    }
}
