//! Identities made lately, so that a request with a key that came before makes none.
//!
//! A table without chains: what falls on the place of another takes it. **Bound:** [`PLACES`]
//! identities. Invariant: what is found is of the same way of the same generation.

use std::{cell::RefCell, rc::Rc};

use crate::policy::{auth::WayId, identity::Identity, keys::Digest};

/// A power of two. With their identities some 2 MiB.
const PLACES: usize = 8192;

/// One worker's.
#[derive(Default)]
pub struct Known {
    /// Empty until the first is noted.
    places: RefCell<Vec<Option<Box<Noted>>>>,
}

/// Which identity it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which {
    pub digest: Digest,
    pub way: WayId,
    pub generation: u64,
}

struct Noted {
    which: Which,
    /// Unix time; 0 is never.
    expires_s: u32,
    identity: Rc<Identity>,
}

impl Known {
    /// The identity, with the Unix time at which it ends.
    pub fn find(&self, which: &Which) -> Option<(Rc<Identity>, u32)> {
        let places = self.places.borrow();
        let noted = places.get(place(which))?.as_ref()?;
        (noted.which == *which).then(|| (noted.identity.clone(), noted.expires_s))
    }

    pub fn note(&self, which: Which, identity: Rc<Identity>, expires_s: u32) {
        let mut places = self.places.borrow_mut();
        if places.is_empty() {
            places.resize_with(PLACES, || None);
        }
        let noted = Noted { which, expires_s, identity };
        match &mut places[place(&which)] {
            Some(known) => **known = noted,
            none => *none = Some(Box::new(noted)),
        }
    }

    /// Forgets all.
    pub fn clear(&self) {
        let _gone = self.places.take();
    }
}

/// Digests are as good as chance.
fn place(which: &Which) -> usize {
    let [.., high, low] = which.digest;
    (usize::from(high) << 8 | usize::from(low)) & (PLACES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::identity::Shown;

    #[test]
    fn an_identity_is_found_by_its_way_and_generation_only() {
        let known = Known::default();
        let identity = |name: &str| Rc::new(Identity::plain(Shown::Key, "w".into(), name.into()));
        let which = Which { digest: [1; 32], way: 1, generation: 1 };
        assert!(known.find(&which).is_none());
        known.note(which, identity("a"), 5);
        let found =
            |which: &Which| known.find(which).map(|(who, at)| (who.subject.to_string(), at));
        assert_eq!(found(&which), Some(("a".to_owned(), 5)));
        for other in [
            Which { way: 2, ..which },
            Which { generation: 2, ..which },
            Which {
                digest: {
                    let mut d = [1; 32];
                    d[0] = 2;
                    d
                },
                ..which
            },
        ] {
            assert_eq!(found(&other), None, "{other:?}");
            known.note(other, identity("b"), 0);
            assert_eq!(found(&other), Some(("b".to_owned(), 0)));
            assert_eq!(found(&which), None, "its place was taken");
            known.note(which, identity("a"), 5);
        }
        known.clear();
        assert_eq!(found(&which), None);
    }
}
