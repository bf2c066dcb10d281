//! Session tickets sealed with secrets that processes share (`listeners.tls.ticket_secrets`).
//!
//! Any process which has the secret that sealed a ticket takes it back ([`crate::policy::seal`]).
//! The time of its making is sealed with it.
//!
//! Invariants: what was not sealed with one of the secrets, or is older than [`LIFETIME_S`], is no
//! ticket; then the client makes a full handshake. Nothing here changes after it was made, so
//! workers share it without writing to it.

use std::{fmt, time::SystemTime};

use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

use crate::policy::seal::{RANDOM_BYTES, Seals};

/// Tickets are taken for so long. RFC 8446 §4.6.1 allows seven days.
const LIFETIME_S: u32 = 12 * 60 * 60;
/// Sets what is derived here apart from whatever else is made from the same secret, and from
/// tickets of another form.
const LABEL: &[u8] = b"ringway session tickets 1";
/// Unix time in seconds, before the session's state.
const TIME_BYTES: usize = 8;

/// The first secret seals, all of them open.
pub struct SharedTickets(Seals);

impl SharedTickets {
    /// `None` without secrets.
    pub fn new(secrets: &[Vec<u8>]) -> Option<SharedTickets> {
        Seals::new(secrets, LABEL).map(SharedTickets)
    }

    fn seal(&self, state: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let mut random = [0; RANDOM_BYTES];
        rand::fill(&mut random).ok()?;
        let plain = [&now_s.to_be_bytes(), state].concat();
        self.0.seal(&plain, LABEL, &random)
    }

    fn open(&self, ticket: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let mut opened = self.0.open(ticket, LABEL)?;
        let made_s = u64::from_be_bytes(*opened.first_chunk()?);
        let is_fresh = now_s.saturating_sub(made_s) <= u64::from(LIFETIME_S);
        is_fresh.then(|| opened.split_off(TIME_BYTES))
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
        write!(f, "SharedTickets({} secrets)", self.0.len())
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
        // The name of the secret, and random bytes.
        assert_eq!(one[..16], other[..16]);
        assert_ne!(one[16..16 + RANDOM_BYTES], other[16..16 + RANDOM_BYTES]);
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
