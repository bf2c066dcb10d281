//! Who a request is from, by what it shows: the API key, name and password, or token that was given
//! with `-H` (or in the URL) is verified as the gateway would, as far as that needs nothing of the
//! running one.

use std::rc::Rc;

use rustix::time::{ClockId, clock_gettime};

use super::{Told, line};
use crate::{
    config::{
        Snapshot,
        snapshot::{Authenticate, BasicRule, JwtWay, KeyRule, KeySource, Way, WayKind},
    },
    policy::{
        Refusal,
        auth::{Entry, Found, Seen, Stopped, decide, find, name_and_password},
        identity::{Identity, Shown},
        jwt::Judged,
        key_text, refusal,
    },
};

/// How to be somebody.
pub(super) const NOBODY: &str =
    "nobody known; show a credential with -H, or tell with --claims or --token";

/// What is shown in the request alone, and judged by the configuration.
fn is_of_request(way: &WayKind) -> bool {
    matches!(way, WayKind::ApiKey(_) | WayKind::Password(_) | WayKind::Jwt(_))
}

impl Told<'_> {
    /// The identity that the request shows. `None`: it shows none, and need not, or cannot here
    /// (certificates, services); or one that only the running gateway can judge.
    pub(super) fn shown(
        &self,
        snapshot: &Snapshot,
        rule: &Authenticate,
        text: &mut String,
    ) -> Result<Option<Rc<Identity>>, Refusal> {
        let mut untold: Option<&Way> = None;
        let decided = decide(&rule.asked, |id| {
            let way = snapshot.way(id);
            match &way.kind {
                WayKind::ApiKey(rule) => Some(self.key(snapshot, way, rule)),
                WayKind::Password(rule) => Some(self.password(snapshot, way, rule)),
                WayKind::Jwt(jwt) => self.token(way, jwt).or_else(|| {
                    untold = Some(way);
                    None
                }),
                // Nobody shows these on a command line.
                _ => Some(Seen::NotShown),
            }
        });
        match decided {
            Ok(Entry::Known(identity, _)) => {
                line(text, "identity", &in_words(snapshot, &identity));
                Ok(Some(identity))
            }
            Ok(Entry::Anonymous) => Ok(None),
            Err(Stopped::Refused(refusal)) if refusal.reason == refusal::AUTH_MISSING => {
                line(text, "identity", NOBODY);
                let ways = rule.asked.alternatives.iter().flatten();
                match ways.into_iter().all(|id| is_of_request(&snapshot.way(*id).kind)) {
                    true => Err(refusal),
                    false => Ok(None),
                }
            }
            Err(Stopped::Refused(refusal)) => Err(refusal),
            Err(Stopped::Waits) => {
                let way = untold.map_or("", |way| &way.name);
                let what = format!(
                    "a token that cannot be verified here: the running gateway fetches the keys \
                     of {way}; give it with --token to have its claims believed"
                );
                line(text, "identity", &what);
                Ok(None)
            }
        }
    }

    /// What is in the places where a way looks: the first that has something, or all of them.
    fn found<'a>(&'a self, way: &'a Way, first: bool) -> Found<'a> {
        let mut found = Found::Nothing;
        for source in &way.sources {
            found = match (found, find(source, self.head, self.bytes())) {
                (Found::Nothing, here) => here,
                (one, Found::Nothing) => one,
                (one, _) if first => one,
                _ => Found::Several,
            };
        }
        found
    }

    fn key(&self, snapshot: &Snapshot, way: &Way, rule: &KeyRule) -> Seen {
        let digest = match self.found(way, false) {
            Found::Nothing => return Seen::NotShown,
            Found::One(key) => key_text::digest_of(&key),
            Found::Several => return Seen::Refused(refusal::AUTH_INVALID.into()),
        };
        let consumers = &snapshot.consumers;
        let Some(key) = rule.table.find(&digest) else {
            return Seen::Refused(refusal::AUTH_INVALID.into());
        };
        if !rule.accepted.has(&consumers.all, Some(key.consumer)) {
            return Seen::Refused(refusal::AUTH_CONSUMER.into());
        }
        if key.is_expired(now_s() as u64) {
            return Seen::Refused(refusal::AUTH_EXPIRED.into());
        }
        let scopes = key.scopes.iter().cloned().collect();
        let identity = consumers.identity(Shown::Key, &way.name, key.consumer);
        Seen::Identity(Rc::new(Identity { scopes, ..identity }))
    }

    fn password(&self, snapshot: &Snapshot, way: &Way, rule: &BasicRule) -> Seen {
        let invalid = || Seen::Refused(refusal::AUTH_INVALID.into());
        let credential = match self.found(way, true) {
            Found::Nothing => return Seen::NotShown,
            Found::One(text) => text,
            Found::Several => return invalid(),
        };
        let Some((name, password)) = name_and_password(&credential) else { return invalid() };
        let user = rule.users.places.get(&*name).map(|at| &rule.users.all[*at as usize]);
        let Some(user) = user.filter(|user| user.password.is(&password)) else { return invalid() };
        if !rule.accepted.has(&snapshot.consumers.all, user.consumer) {
            return Seen::Refused(refusal::AUTH_CONSUMER.into());
        }
        Seen::Identity(Rc::new(match user.consumer {
            Some(one) => snapshot.consumers.identity(Shown::Password, &way.name, one),
            None => Identity::plain(Shown::Password, way.name.as_str().into(), (*user.name).into()),
        }))
    }

    /// `None`: only with the keys that the running gateway has.
    fn token(&self, way: &Way, jwt: &JwtWay) -> Option<Seen> {
        let token = match self.found(way, true) {
            Found::Nothing => return Some(Seen::NotShown),
            Found::One(token) => token,
            Found::Several => return Some(Seen::Refused(refusal::AUTH_INVALID.into())),
        };
        let kept = match &jwt.keys {
            KeySource::Fixed(keys) => Some(keys.clone()),
            KeySource::Remote(provider) => provider.cell.keys(),
        };
        let by = way.name.as_str().into();
        match (jwt.rule.judge(&token, kept.as_deref(), &by, now_s()), &jwt.keys) {
            (Judged::Accepted(verified), _) => Some(Seen::Identity(verified.identity)),
            (Judged::Refused(refusal), _) => Some(Seen::Refused(refusal)),
            (Judged::KeyUnknown, KeySource::Remote(_)) => None,
            (Judged::KeyUnknown, KeySource::Fixed(_)) => {
                Some(Seen::Refused(refusal::AUTH_KEY_UNKNOWN.into()))
            }
        }
    }
}

fn in_words(snapshot: &Snapshot, identity: &Identity) -> String {
    let mut text = format!("{}, verified by {}", identity.subject.escape_debug(), identity.by);
    let consumer = identity.consumer.map(|one| snapshot.consumers.all.name(one));
    if let Some(name) = consumer.filter(|name| **name != *identity.subject) {
        text.push_str(&format!(", consumer {name}"));
    }
    for (what, names) in [("groups", &identity.groups), ("scopes", &identity.scopes)] {
        if !names.is_empty() {
            text.push_str(&format!(", {what} {}", names.join(" ").escape_debug()));
        }
    }
    text
}

/// Seconds since 1970.
fn now_s() -> f64 {
    clock_gettime(ClockId::Realtime).tv_sec as f64
}
