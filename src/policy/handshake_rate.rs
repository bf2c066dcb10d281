//! How many TLS handshakes one client address may begin (`listeners.tls.handshake_rate`).
//!
//! Each address has a bucket, kept as the moment at which it is full again (GCRA). A bucket that is
//! full needs no memory, so what is remembered are addresses that came lately, at most
//! [`ADDRESSES_MAX`]; when there are more, the one that was remembered first goes, and has a full
//! bucket again. IPv6 addresses count by their /64, which is what one client has.
//!
//! Invariants: in any time `t` an address that is remembered is let in at most
//! `burst + per_second * t` times; one that is not remembered is let in. Memory is bounded.

use std::net::IpAddr;

use ahash::AHashMap;

/// Addresses one state remembers: some 700 KiB.
pub const ADDRESSES_MAX: usize = 16 * 1024;

/// What one address may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeRate {
    /// Handshakes in a second, at least 1.
    pub per_second: u32,
    /// Handshakes at once, at least 1.
    pub burst: u32,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    pub may_begin: bool,
    /// An address whose bucket was not full was forgotten.
    pub forgot: bool,
}

/// The addresses that came lately.
#[derive(Debug, Default)]
pub struct Addresses {
    /// Where in `slots` an address is.
    places: AHashMap<u64, u32>,
    slots: Vec<Slot>,
    /// The slot that was taken longest ago, once all are.
    oldest: usize,
}

#[derive(Debug)]
struct Slot {
    address: u64,
    /// When its bucket is full again.
    full_ns: u64,
}

impl Addresses {
    /// A client at `ip` wants to begin. The rate is shared by this many workers evenly, as the
    /// kernel spreads connections over them; each has the whole burst.
    pub fn begin(
        &mut self,
        rate: HandshakeRate,
        workers: usize,
        ip: IpAddr,
        now_ns: u64,
    ) -> Decided {
        let workers = u64::try_from(workers.max(1)).unwrap_or(1);
        let interval_ns = 1_000_000_000 * workers / u64::from(rate.per_second.max(1));
        let depth_ns = interval_ns * u64::from(rate.burst.max(1));
        let address = key(ip);
        let place = self.places.get(&address).map(|place| *place as usize);
        let full_ns = place.map_or(now_ns, |place| self.slots[place].full_ns.max(now_ns));
        // What was agreed before a reload changed the rate does not count against the new one.
        let full_ns = full_ns.min(now_ns + depth_ns);
        let next_ns = full_ns + interval_ns;
        if next_ns > now_ns + depth_ns {
            if let Some(place) = place {
                self.slots[place].full_ns = full_ns;
            }
            return Decided { may_begin: false, forgot: false };
        }
        let forgot = match place {
            Some(place) => {
                self.slots[place].full_ns = next_ns;
                false
            }
            None => self.remember(Slot { address, full_ns: next_ns }, now_ns),
        };
        Decided { may_begin: true, forgot }
    }

    /// Answers whether another address had to go that should have been remembered.
    fn remember(&mut self, slot: Slot, now_ns: u64) -> bool {
        let address = slot.address;
        let (place, forgot) = if self.slots.len() < ADDRESSES_MAX {
            self.slots.push(slot);
            (self.slots.len() - 1, false)
        } else {
            let place = self.oldest;
            self.oldest = (place + 1) % ADDRESSES_MAX;
            let gone = std::mem::replace(&mut self.slots[place], slot);
            self.places.remove(&gone.address);
            (place, gone.full_ns > now_ns)
        };
        self.places.insert(address, place as u32);
        forgot
    }
}

/// What one client has, as a number: its IPv4 address, or the first half of its IPv6 address. The
/// former lie below 2^32, where no IPv6 network of clients is.
fn key(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn v4(n: usize) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + n as u32).into()
    }

    /// How many of so many tries at one moment are let in.
    fn admitted(
        addresses: &mut Addresses,
        rate: HandshakeRate,
        workers: usize,
        ip: IpAddr,
        now_ns: u64,
    ) -> usize {
        (0..1000).filter(|_| addresses.begin(rate, workers, ip, now_ns).may_begin).count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let rate = HandshakeRate { per_second: 10, burst: 20 };
        // Moments in nanoseconds, and how many are let in at each.
        let table = [
            (0, 20),
            (SECOND_NS / 20, 0),
            (SECOND_NS / 10, 1),
            (SECOND_NS, 9),
            (2 * SECOND_NS, 10),
            (100 * SECOND_NS, 20),
            // A clock that goes back, as none should.
            (99 * SECOND_NS, 0),
        ];
        let mut addresses = Addresses::default();
        for (now_ns, wanted) in table {
            let got = admitted(&mut addresses, rate, 1, ip("192.0.2.1"), now_ns);
            assert_eq!(got, wanted, "{now_ns}");
        }
    }

    #[test]
    fn workers_share_the_rate_and_each_has_the_burst() {
        let rate = HandshakeRate { per_second: 100, burst: 5 };
        let mut addresses = Addresses::default();
        assert_eq!(admitted(&mut addresses, rate, 4, ip("192.0.2.1"), 0), 5);
        let all: usize = (1..=100)
            .map(|n| admitted(&mut addresses, rate, 4, ip("192.0.2.1"), n * SECOND_NS / 100))
            .sum();
        assert_eq!(all, 25, "a quarter of the rate");
    }

    #[test]
    fn clients_are_told_apart_by_what_one_has() {
        let rate = HandshakeRate { per_second: 1, burst: 1 };
        // The second one after the first.
        let table = [
            ("192.0.2.1", "192.0.2.2", true),
            ("192.0.2.1", "192.0.2.1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", false),
            ("2001:db8:1:1::1", "2001:db8:1:1:ffff::2", false),
            ("2001:db8:1:1::1", "2001:db8:1:2::1", true),
        ];
        for (first, second, wanted) in table {
            let mut addresses = Addresses::default();
            assert!(addresses.begin(rate, 1, ip(first), 0).may_begin);
            assert_eq!(addresses.begin(rate, 1, ip(second), 0).may_begin, wanted, "{second}");
        }
    }

    #[test]
    fn the_oldest_address_goes_and_that_is_told() {
        let rate = HandshakeRate { per_second: 1, burst: 1 };
        let mut addresses = Addresses::default();
        for n in 0..ADDRESSES_MAX {
            let decided = addresses.begin(rate, 1, v4(n), 0);
            assert_eq!(decided, Decided { may_begin: true, forgot: false });
        }
        // The first is known as long as there is room.
        assert!(!addresses.begin(rate, 1, v4(0), 0).may_begin);
        assert!(addresses.begin(rate, 1, v4(ADDRESSES_MAX), 0).forgot);
        assert!(!addresses.begin(rate, 1, v4(1), 0).may_begin);
        assert!(addresses.begin(rate, 1, v4(0), 0).may_begin, "forgotten");
        // Whose bucket is full again is not missed.
        assert!(!addresses.begin(rate, 1, v4(ADDRESSES_MAX + 1), 2 * SECOND_NS).forgot);
        for n in 0..3 * ADDRESSES_MAX {
            addresses.begin(rate, 1, v4(n * 7), 0);
        }
        assert_eq!((addresses.slots.len(), addresses.places.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
    }

    #[test]
    fn another_rate_is_in_force_at_once() {
        let (slow, fast) = (
            HandshakeRate { per_second: 1, burst: 3600 },
            HandshakeRate { per_second: 10, burst: 10 },
        );
        let mut addresses = Addresses::default();
        assert_eq!(admitted(&mut addresses, slow, 1, ip("192.0.2.1"), 0), 1000);
        assert_eq!(admitted(&mut addresses, fast, 1, ip("192.0.2.1"), 0), 0);
        assert_eq!(admitted(&mut addresses, fast, 1, ip("192.0.2.1"), SECOND_NS / 10), 1);
        assert_eq!(admitted(&mut addresses, fast, 1, ip("192.0.2.1"), 2 * SECOND_NS), 10);
    }

    proptest! {
        /// Never more than the burst and what the rate allows, in any window that begins with the
        /// first; and never less than the rate, for a client that keeps to it.
        #[test]
        fn no_more_than_agreed(
            per_second in 1..1000u32,
            burst in 1..100u32,
            workers in 1..9usize,
            gaps in prop::collection::vec(0..SECOND_NS, 1..200),
        ) {
            let rate = HandshakeRate { per_second, burst };
            let client = IpAddr::from(Ipv6Addr::LOCALHOST);
            let (mut addresses, mut now_ns, mut admitted) = (Addresses::default(), 5, 0u64);
            let begun_ns = now_ns;
            for gap_ns in gaps {
                now_ns += gap_ns;
                admitted += u64::from(addresses.begin(rate, workers, client, now_ns).may_begin);
                let interval_ns = SECOND_NS * workers as u64 / u64::from(per_second);
                let allowed = u64::from(burst) + (now_ns - begun_ns) / interval_ns;
                prop_assert!(admitted <= allowed, "{} of {}", admitted, allowed);
                prop_assert!(
                    gap_ns < interval_ns || addresses.slots[0].full_ns > now_ns,
                    "after an interval there is room for one"
                );
            }
        }

        #[test]
        fn who_keeps_to_the_rate_is_always_let_in(per_second in 1..1000u32, count in 1..300u64) {
            let rate = HandshakeRate { per_second, burst: 1 };
            let interval_ns = SECOND_NS / u64::from(per_second);
            let mut addresses = Addresses::default();
            for n in 0..count {
                prop_assert!(addresses.begin(rate, 1, v4(1), n * interval_ns).may_begin);
            }
        }
    }
}
