//! `[basic.NAME]`: a name and a password (RFC 7617), verified off the data path.
//!
//! Who gives an unknown name waits as long as who gives a wrong password: the password is then
//! compared with that of some user, and refused whatever comes of it.

use std::rc::Rc;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Asking, Outcome, Slow,
    passwords::{self, Check, Passwords},
};
use crate::{
    config::snapshot::{BasicRule, User, Way},
    policy::{
        auth::{Found, Seen, WayId, find},
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
    let Some((name, password)) = pair(&credential) else { return invalid() };
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
        let all = &self.asking.snapshot.consumers.all;
        if !self.rule.accepted.has(all, user.consumer) {
            return Seen::Refused(refusal::AUTH_CONSUMER.into());
        }
        let subject = user.consumer.map_or(&*user.name, |consumer| all.name(consumer));
        let by = self.way.name.as_str().into();
        let mut identity = Identity::plain(Shown::Password, by, subject.into());
        identity.consumer = user.consumer;
        if let Some(consumer) = user.consumer {
            identity.groups = all.kind(consumer).groups.iter().cloned().collect();
        }
        Seen::Identity(Rc::new(identity))
    }
}

/// Name and password (RFC 7617 §2).
fn pair(credential: &[u8]) -> Option<(String, Vec<u8>)> {
    let decoded = STANDARD.decode(credential).ok()?;
    let at = decoded.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&decoded[..at]).ok()?;
    (!name.is_empty()).then(|| (name.to_owned(), decoded[at + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_at_the_first_colon() {
        for (text, expected) in [
            ("alice:secret", Some(("alice", "secret"))),
            ("alice:a:b", Some(("alice", "a:b"))),
            ("alice:", Some(("alice", ""))),
            (":secret", None),
            ("alice", None),
            ("é:ü", Some(("é", "ü"))),
        ] {
            let read = pair(STANDARD.encode(text).as_bytes());
            let expected = expected.map(|(a, b)| (a.to_owned(), b.as_bytes().to_vec()));
            assert_eq!(read, expected, "{text}");
        }
        assert_eq!(pair(b"!!!"), None);
        assert_eq!(pair(STANDARD.encode(b"\xff:x").as_bytes()), None);
    }
}
