//! Which ways a route's requests may show who they are by, and what comes of it.
//!
//! A *way* is one section of the configuration, such as `[jwt.main]`; what it says of a request is
//! [`Seen`]. A route has alternatives, each of one way or of several that must all agree.
//!
//! Invariants: nobody gets an identity that no way gave; a request that shows something wrong is
//! refused unless another alternative accepts it, also where anonymous requests may pass.

mod credential;

pub use credential::{Found, Source, find, name_and_password, without_cookies, without_parameter};

use std::rc::Rc;

use super::{
    Refusal,
    identity::{Claims, Identity},
    refusal,
};

/// Index of a way in the snapshot's list.
pub type WayId = u16;

/// What one way says of a request.
#[derive(Clone, Debug)]
pub enum Seen {
    Identity(Rc<Identity>),
    /// The request has nothing that this way looks at.
    NotShown,
    /// It has, and it is no good, or cannot be judged now (503).
    Refused(Refusal),
}

/// What a route asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The first of which all ways give an identity counts.
    pub alternatives: Vec<Vec<WayId>>,
    /// Requests that show nothing at all pass, without identity.
    pub anonymous: bool,
}

/// A request that may go on.
#[derive(Clone, Debug)]
pub enum Entry {
    /// By the alternative of this index.
    Known(Rc<Identity>, usize),
    Anonymous,
}

/// Why a request does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    Refused(Refusal),
    /// A way that counts cannot say yet.
    Waits,
}

/// Decides by what `check` says of each way; `None`: it cannot say yet.
pub fn decide(
    asked: &Asked,
    mut check: impl FnMut(WayId) -> Option<Seen>,
) -> Result<Entry, Stopped> {
    let mut is_shown = false;
    let mut worst: Option<Refusal> = None;
    for (at, ways) in asked.alternatives.iter().enumerate() {
        let mut known: Option<Rc<Identity>> = None;
        let mut is_whole = true;
        for way in ways {
            match check(*way).ok_or(Stopped::Waits)? {
                Seen::Identity(other) => {
                    is_shown = true;
                    known = Some(match known {
                        None => other,
                        Some(first) => Rc::new(merged(&first, &other)),
                    });
                }
                // What comes behind it is looked at: it may be wrong.
                Seen::NotShown => is_whole = false,
                Seen::Refused(refusal) => {
                    is_shown = true;
                    is_whole = false;
                    worst = Some(more_telling(worst, refusal));
                    break;
                }
            }
        }
        if let Some(identity) = known.filter(|_| is_whole) {
            return Ok(Entry::Known(identity, at));
        }
    }
    match worst {
        Some(refusal) => Err(Stopped::Refused(refusal)),
        None if asked.anonymous && !is_shown => Ok(Entry::Anonymous),
        None => Err(Stopped::Refused(refusal::AUTH_MISSING.into())),
    }
}

/// Of two refusals, the one that tells the client more: another issuer's section says only that
/// the token is not its own.
fn more_telling(before: Option<Refusal>, now: Refusal) -> Refusal {
    let rank = |refusal: &Refusal| match refusal.reason {
        reason if reason.status >= 500 => 3,
        reason if reason == refusal::AUTH_ISSUER => 0,
        reason if reason == refusal::AUTH_INVALID => 1,
        _ => 2,
    };
    match before {
        Some(before) if rank(&before) >= rank(&now) => before,
        _ => now,
    }
}

/// One identity of two that were verified together: subject and name of the first, what else they
/// have united. Of a claim that both have, the first's counts.
fn merged(first: &Identity, other: &Identity) -> Identity {
    let mut claims: Claims = (*first.claims).clone();
    for (name, value) in other.claims.iter() {
        claims.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Identity {
        consumer: first.consumer.or(other.consumer),
        groups: united(&first.groups, &other.groups),
        scopes: united(&first.scopes, &other.scopes),
        claims: Rc::new(claims),
        ..first.clone()
    }
}

fn united(first: &Rc<[Box<str>]>, other: &Rc<[Box<str>]>) -> Rc<[Box<str>]> {
    let new = other.iter().filter(|name| !first.contains(name));
    first.iter().chain(new).cloned().collect()
}

/// Appends a claim as the value of a field: an array's elements with commas between them. `false`:
/// it cannot be one (an object, or it has a line end or another control character), and nothing was
/// appended.
pub fn field_value(claim: &serde_json::Value, out: &mut Vec<u8>) -> bool {
    use serde_json::Value;
    let start = out.len();
    let is_written = match claim {
        Value::Array(values) => values.iter().enumerate().all(|(at, value)| {
            if at > 0 {
                out.push(b',');
            }
            // A comma inside would look like two.
            let is_one = !matches!(value, Value::String(text) if text.contains(','));
            is_one && scalar(value, out)
        }),
        value => scalar(value, out),
    };
    if !is_written {
        out.truncate(start);
    }
    is_written
}

fn scalar(value: &serde_json::Value, out: &mut Vec<u8>) -> bool {
    use serde_json::Value;
    match value {
        Value::String(text) if text.chars().any(char::is_control) => return false,
        // Blanks at an end are not part of a field's value.
        Value::String(text) => out.extend_from_slice(text.trim().as_bytes()),
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        Value::Null | Value::Array(_) | Value::Object(_) => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::identity::Shown;

    fn identity(subject: &str) -> Rc<Identity> {
        Rc::new(Identity::plain(Shown::Token, "w".into(), subject.into()))
    }

    fn told(asked: &Asked, ways: &[Seen]) -> Result<String, Option<&'static str>> {
        match decide(asked, |way| ways.get(usize::from(way)).cloned()) {
            Ok(Entry::Known(identity, at)) => Ok(format!("{}@{at}", identity.subject)),
            Ok(Entry::Anonymous) => Ok("anonymous".to_owned()),
            Err(Stopped::Refused(refusal)) => Err(Some(refusal.reason.token)),
            Err(Stopped::Waits) => Err(None),
        }
    }

    #[test]
    fn alternatives_and_combinations() {
        use Seen::{NotShown, Refused};
        let known = |name: &str| Seen::Identity(identity(name));
        let wrong = || Refused(refusal::AUTH_INVALID.into());
        let expired = || Refused(refusal::AUTH_EXPIRED.into());
        let other = || Refused(refusal::AUTH_ISSUER.into());
        let down = || Refused(refusal::AUTH_UNAVAILABLE.into());
        let (missing, invalid) = (Err(Some("auth.missing")), Err(Some("auth.invalid")));
        let any: &[&[WayId]] = &[&[0], &[1]];
        let all: &[&[WayId]] = &[&[0, 1]];
        type Row<'a> = (&'a [&'a [WayId]], bool, [Seen; 2], Result<&'a str, Option<&'a str>>);
        let table: [Row<'_>; 19] = [
            (any, false, [known("a"), known("b")], Ok("a@0")),
            (any, false, [NotShown, known("b")], Ok("b@1")),
            (any, false, [wrong(), known("b")], Ok("b@1")),
            (any, false, [NotShown, NotShown], missing),
            (any, true, [NotShown, NotShown], Ok("anonymous")),
            (any, true, [NotShown, wrong()], invalid),
            (any, true, [wrong(), NotShown], invalid),
            (any, false, [wrong(), expired()], Err(Some("auth.expired"))),
            (any, false, [expired(), wrong()], Err(Some("auth.expired"))),
            (any, false, [other(), wrong()], invalid),
            (any, false, [wrong(), other()], invalid),
            (any, false, [expired(), down()], Err(Some("auth.unavailable"))),
            (all, false, [known("a"), known("b")], Ok("a@0")),
            (all, false, [known("a"), NotShown], missing),
            (all, true, [known("a"), NotShown], missing),
            (all, true, [NotShown, NotShown], Ok("anonymous")),
            (all, true, [NotShown, wrong()], invalid),
            (all, false, [known("a"), wrong()], invalid),
            (&[&[0, 1], &[0]], false, [known("a"), NotShown], Ok("a@1")),
        ];
        for (alternatives, anonymous, ways, wanted) in table {
            let alternatives = alternatives.iter().map(|ways| ways.to_vec()).collect();
            let asked = Asked { alternatives, anonymous };
            assert_eq!(told(&asked, &ways), wanted.map(str::to_owned), "{asked:?} {ways:?}");
        }
    }

    #[test]
    fn a_way_that_cannot_say_yet_is_waited_for_when_it_counts() {
        let asked = Asked { alternatives: vec![vec![0], vec![1]], anonymous: true };
        assert_eq!(told(&asked, &[Seen::NotShown]), Err(None));
        assert_eq!(told(&asked, &[Seen::Identity(identity("a"))]), Ok("a@0".to_owned()));
    }

    #[test]
    fn what_ways_say_together() {
        let with = |subject: &str, groups: &[&str], consumer, claims: serde_json::Value| Identity {
            consumer,
            groups: groups.iter().map(|group| Box::from(*group)).collect(),
            claims: Rc::new(claims.as_object().cloned().unwrap_or_default()),
            ..(*identity(subject)).clone()
        };
        let first = with("a", &["x", "y"], None, json!({ "sub": "a", "n": 1 }));
        let other = with("b", &["y", "z"], Some(7), json!({ "sub": "b", "m": 2 }));
        let merged = merged(&first, &other);
        assert_eq!((&*merged.subject, merged.consumer), ("a", Some(7)));
        assert_eq!(merged.groups.join(","), "x,y,z");
        assert_eq!(
            serde_json::Value::from((*merged.claims).clone()),
            json!({ "sub": "a", "n": 1, "m": 2 })
        );
    }

    #[test]
    fn claims_as_fields() {
        for (claim, wanted) in [
            (json!("alice"), Some("alice")),
            (json!(" alice "), Some("alice")),
            (json!("é"), Some("é")),
            (json!(7), Some("7")),
            (json!(true), Some("true")),
            (json!(["a", "b", 3]), Some("a,b,3")),
            (json!([]), Some("")),
            (json!("a\r\nX-Admin: 1"), None),
            (json!("a\u{85}b"), None),
            (json!("a\0"), None),
            (json!(["a", "b\n"]), None),
            (json!(["a,admin"]), None),
            (json!([["a"]]), None),
            (json!({ "a": 1 }), None),
            (json!(null), None),
        ] {
            let mut out = b"before".to_vec();
            let written = field_value(&claim, &mut out)
                .then(|| String::from_utf8_lossy(&out).strip_prefix("before").map(str::to_owned));
            assert_eq!(written.flatten().as_deref(), wanted, "{claim}");
            assert!(wanted.is_some() || out == b"before");
        }
    }
}
