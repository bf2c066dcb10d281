//! Session tickets sealed with secrets that processes share (`listeners.tls.ticket_secrets`).
//!
//! A ticket names the secret that sealed it, so that any process which has that secret takes it
//! back. Every ticket has a key of its own, made from the secret and random bytes: however many a
//! fleet gives out, no key seals two. The time of its making is sealed with it.
//!
//! Invariants: what was not sealed with one of the secrets, or is older than [`LIFETIME_S`], is no
//! ticket; then the client makes a full handshake. Nothing here changes after it was made, so
//! workers share it without writing to it.

use std::{fmt, time::SystemTime};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    hmac, rand,
};
use rustls::server::ProducesTickets;

/// Tickets are taken for so long. RFC 8446 §4.6.1 allows seven days.
const LIFETIME_S: u32 = 12 * 60 * 60;
/// Sets what is derived here apart from whatever else is made from the same secret, and from
/// tickets of another form.
const LABEL: &[u8] = b"ringway session tickets 1";
const NAME_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// Name of the secret, salt of the key, nonce; then what is sealed.
const OPEN_BYTES: usize = NAME_BYTES + SALT_BYTES + NONCE_LEN;
/// Unix time in seconds, before the session's state.
const TIME_BYTES: usize = 8;

/// The first secret seals, all of them open.
pub struct SharedTickets {
    secrets: Vec<Secret>,
}

struct Secret {
    name: [u8; NAME_BYTES],
    /// Makes the key of each ticket.
    derive: hmac::Key,
}

impl Secret {
    /// `None` when the library fails, which it does not with these sizes.
    fn new(bytes: &[u8]) -> Option<Secret> {
        let base = Salt::new(HKDF_SHA256, LABEL).extract(bytes);
        let mut name = [0; 2 * NAME_BYTES];
        base.expand(&[b"name"], HKDF_SHA256).ok()?.fill(&mut name).ok()?;
        let derive = base.expand(&[b"key"], hmac::HMAC_SHA256).ok()?.into();
        Some(Secret { name: *name.first_chunk()?, derive })
    }

    fn key(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let key = hmac::sign(&self.derive, salt);
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).ok()?))
    }
}

impl SharedTickets {
    /// `None` without secrets.
    pub fn new(secrets: &[Vec<u8>]) -> Option<SharedTickets> {
        let secrets: Vec<Secret> = secrets.iter().map(|s| Secret::new(s)).collect::<Option<_>>()?;
        (!secrets.is_empty()).then_some(SharedTickets { secrets })
    }

    fn seal(&self, state: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let secret = self.secrets.first()?;
        let mut ticket = Vec::with_capacity(OPEN_BYTES + TIME_BYTES + state.len() + TAG_BYTES);
        ticket.extend_from_slice(&secret.name);
        ticket.resize(OPEN_BYTES, 0);
        rand::fill(&mut ticket[NAME_BYTES..]).ok()?;
        ticket.extend_from_slice(&now_s.to_be_bytes());
        ticket.extend_from_slice(state);
        let (open, sealed) = ticket.split_at_mut(OPEN_BYTES);
        let (salt, nonce) = open[NAME_BYTES..].split_at(SALT_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let key = secret.key(salt)?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(LABEL), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let (open, sealed) = ticket.split_at_checked(OPEN_BYTES)?;
        let (name, open) = open.split_at(NAME_BYTES);
        let secret = self.secrets.iter().find(|secret| secret.name == name)?;
        let (salt, nonce) = open.split_at(SALT_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = secret.key(salt)?.open_in_place(nonce, Aad::from(LABEL), &mut sealed).ok()?;
        let made_s = u64::from_be_bytes(*opened.first_chunk()?);
        let is_fresh = now_s.saturating_sub(made_s) <= u64::from(LIFETIME_S);
        is_fresh.then(|| opened[TIME_BYTES..].to_vec())
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now_s())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now_s())
    }
}

/// Without what is secret.
impl fmt::Debug for SharedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedTickets({} secrets)", self.secrets.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn tickets(secrets: &[u8]) -> SharedTickets {
        let secrets: Vec<Vec<u8>> = secrets.iter().map(|byte| vec![*byte; 32]).collect();
        SharedTickets::new(&secrets).expect("tickets")
    }

    #[test]
    fn any_process_with_the_secret_takes_a_ticket() {
        let ticket = tickets(&[1]).seal(b"state", NOW_S).expect("a ticket");
        // Whoever opens, and whether that works: alone, after a rotation, without the secret.
        let table: [(&[u8], bool); 5] =
            [(&[1], true), (&[2, 1], true), (&[1, 2], true), (&[2], false), (&[2, 3], false)];
        for (secrets, is_taken) in table {
            let opened = tickets(secrets).open(&ticket, NOW_S);
            assert_eq!(opened.as_deref(), is_taken.then_some(&b"state"[..]), "{secrets:?}");
        }
    }

    #[test]
    fn the_first_secret_seals() {
        let ticket = tickets(&[1, 2]).seal(b"state", NOW_S).expect("a ticket");
        assert!(tickets(&[1]).open(&ticket, NOW_S).is_some());
        assert!(tickets(&[2]).open(&ticket, NOW_S).is_none());
    }

    #[test]
    fn tickets_end() {
        let tickets = tickets(&[1]);
        let ticket = tickets.seal(b"state", NOW_S).expect("a ticket");
        let last_s = NOW_S + u64::from(LIFETIME_S);
        // A machine whose clock is behind takes it too.
        for (now_s, is_taken) in [(NOW_S - 60, true), (last_s, true), (last_s + 1, false)] {
            assert_eq!(tickets.open(&ticket, now_s).is_some(), is_taken, "{now_s}");
        }
    }

    #[test]
    fn what_is_sealed_twice_looks_different_and_says_nothing() {
        let tickets = tickets(&[1]);
        let sealed = || tickets.seal(b"a state that repeats", NOW_S).expect("a ticket");
        let (one, other) = (sealed(), sealed());
        assert_eq!(one[..NAME_BYTES], other[..NAME_BYTES]);
        assert_ne!(one[NAME_BYTES..OPEN_BYTES], other[NAME_BYTES..OPEN_BYTES]);
        assert!(!one.windows(7).any(|bytes| bytes == b"a state"));
        assert_eq!(format!("{tickets:?}"), "SharedTickets(1 secrets)");
    }

    proptest! {
        #[test]
        fn damage_and_cuts_are_noticed(state: Vec<u8>, at: usize, bit in 0..8u32, cut: usize) {
            let tickets = tickets(&[1]);
            let ticket = tickets.seal(&state, NOW_S).expect("a ticket");
            prop_assert_eq!(tickets.open(&ticket, NOW_S), Some(state));
            let mut damaged = ticket.clone();
            damaged[at % ticket.len()] ^= 1 << bit;
            prop_assert_eq!(tickets.open(&damaged, NOW_S), None);
            prop_assert_eq!(tickets.open(&ticket[..cut % ticket.len()], NOW_S), None);
        }

        #[test]
        fn anything_else_is_no_ticket(bytes: Vec<u8>) {
            prop_assert_eq!(tickets(&[1, 2]).open(&bytes, NOW_S), None);
        }
    }
}
