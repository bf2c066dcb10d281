//! Refreshes that are under way or just over, by their tokens: whoever orders with the same token
//! gets the same answer. A browser sends its old cookie until the answer with the new one has
//! come, over several connections, and so to several workers.
//!
//! **Bounds.** So many are remembered ([`KNOWN_MAX`]), for so long ([`KNOWN_FOR`]); what failed for
//! no reason of the token, only for [`FAILED_FOR`], so that a provider that is down is not asked
//! again with each request.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};

use crate::{config::snapshot::oidc::Told, policy::oidc::tokens::NoTokens};

/// Refreshes that are remembered; then half of the ones that are over go, the older ones.
const KNOWN_MAX: usize = 4096;
const KNOWN_FOR: Duration = Duration::from_secs(120);
const FAILED_FOR: Duration = Duration::from_secs(2);

/// A token that says nothing of itself.
pub type Id = [u8; 32];
type Reply = Box<dyn FnOnce(Told) + Send>;

#[derive(Default)]
pub struct Refreshes {
    known: RefCell<HashMap<Id, Refresh>>,
    /// Of the next one that is over.
    number: Cell<u64>,
}

enum Refresh {
    /// Those who wait for it.
    UnderWay(Vec<Reply>),
    Over(Over),
}

struct Over {
    told: Told,
    /// In the order in which they were over.
    number: u64,
    until: Instant,
}

/// What becomes of an order.
pub enum Turn {
    /// It was answered before.
    Known(Reply, Told),
    /// It will be answered with another one.
    Joined,
    /// It is to be served.
    Own(Reply),
}

/// What a token is remembered by.
pub fn id(token: &str) -> Id {
    let hash = digest(&SHA256, token.as_bytes());
    *hash.as_ref().first_chunk().expect("invariant: SHA-256 has 32 bytes")
}

impl Refreshes {
    pub fn turn(&self, id: Id, reply: Reply, now: Instant) -> Turn {
        let mut known = self.known.borrow_mut();
        match known.get_mut(&id) {
            Some(Refresh::UnderWay(waiting)) => {
                waiting.push(reply);
                return Turn::Joined;
            }
            Some(Refresh::Over(over)) if now < over.until => {
                return Turn::Known(reply, over.told.clone());
            }
            _ => {}
        }
        if known.len() >= KNOWN_MAX {
            known.retain(|_, one| !matches!(one, Refresh::Over(over) if now >= over.until));
        }
        if known.len() >= KNOWN_MAX {
            forget_older_half(&mut known);
        }
        known.insert(id, Refresh::UnderWay(Vec::new()));
        Turn::Own(reply)
    }

    /// Remembers what came of it, and hands out those who waited.
    pub fn over(&self, id: Id, told: &Told, now: Instant) -> Vec<Reply> {
        let known_for = match told {
            Ok(_) | Err(NoTokens::Refused) => KNOWN_FOR,
            Err(_) => FAILED_FOR,
        };
        let number = self.number.replace(self.number.get() + 1);
        let over = Over { told: told.clone(), number, until: now + known_for };
        match self.known.borrow_mut().insert(id, Refresh::Over(over)) {
            Some(Refresh::UnderWay(waiting)) => waiting,
            _ => Vec::new(),
        }
    }
}

/// Rare: it makes room for many.
fn forget_older_half(known: &mut HashMap<Id, Refresh>) {
    let number = |one: &Refresh| match one {
        Refresh::Over(over) => Some(over.number),
        Refresh::UnderWay(_) => None,
    };
    let mut numbers: Vec<u64> = known.values().filter_map(number).collect();
    numbers.sort_unstable();
    let first = numbers.get(numbers.len().div_ceil(2)).copied().unwrap_or(u64::MAX);
    known.retain(|_, one| number(one).is_none_or(|number| number >= first));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::policy::oidc::tokens;

    fn tokens(access: &str) -> Told {
        let json = format!("{{\"access_token\":\"{access}\",\"token_type\":\"Bearer\"}}");
        tokens::read(200, json.as_bytes())
    }

    /// A reply that notes what it got.
    fn noted(notes: &Arc<Mutex<Vec<Told>>>) -> Reply {
        let notes = notes.clone();
        Box::new(move |told| notes.lock().expect("a lock").push(told))
    }

    #[test]
    fn a_token_is_used_once_however_many_have_it() {
        let (refreshes, notes) = (Refreshes::default(), Arc::default());
        let (now, one) = (Instant::now(), id("one"));
        let turn = |id, now| refreshes.turn(id, noted(&notes), now);
        assert!(matches!(turn(one, now), Turn::Own(_)));
        assert!(matches!(turn(one, now), Turn::Joined));
        assert!(matches!(turn(id("two"), now), Turn::Own(_)));
        let joined = refreshes.over(one, &tokens("a"), now);
        assert_eq!(joined.len(), 1);
        joined.into_iter().for_each(|reply| reply(tokens("a")));
        assert_eq!(*notes.lock().expect("a lock"), [tokens("a")]);
        // For a while, that is.
        let last = now + KNOWN_FOR - Duration::from_millis(1);
        assert!(matches!(turn(one, last), Turn::Known(_, Ok(_))));
        assert!(matches!(turn(one, now + KNOWN_FOR), Turn::Own(_)));
    }

    #[test]
    fn a_provider_that_is_down_is_asked_again_soon() {
        let (refreshes, notes) = (Refreshes::default(), Arc::default());
        let (now, one) = (Instant::now(), id("one"));
        let turn = |now| refreshes.turn(one, noted(&notes), now);
        assert!(matches!(turn(now), Turn::Own(_)));
        refreshes.over(one, &Err(NoTokens::Unavailable("down".to_owned())), now);
        assert!(matches!(turn(now), Turn::Known(_, Err(_))));
        assert!(matches!(turn(now + FAILED_FOR), Turn::Own(_)));
        refreshes.over(one, &Err(NoTokens::Refused), now);
        assert!(matches!(turn(now + FAILED_FOR), Turn::Known(_, Err(NoTokens::Refused))));
    }

    #[test]
    fn memory_is_bounded() {
        let (refreshes, notes) = (Refreshes::default(), Arc::default());
        let now = Instant::now();
        let ids: Vec<Id> = (0..3 * KNOWN_MAX).map(|n| id(&n.to_string())).collect();
        for (n, id) in ids.iter().copied().enumerate() {
            assert!(matches!(refreshes.turn(id, noted(&notes), now), Turn::Own(_)), "{n}");
            refreshes.over(id, &tokens("a"), now);
            assert!(refreshes.known.borrow().len() <= KNOWN_MAX);
            // The newer ones are never what is forgotten.
            for n in [n, n.saturating_sub(KNOWN_MAX / 2 - 1)] {
                assert!(refreshes.known.borrow().contains_key(&ids[n]), "{n}");
            }
        }
    }
}
