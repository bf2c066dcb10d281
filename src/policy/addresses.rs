//! Sets of networks, and whether an address is in one.
//!
//! A set is sorted ranges that neither overlap nor touch, one row for each family, so that a
//! look-up is one binary search however many networks there are. Addresses of IPv4 in IPv6's
//! clothes are IPv4 addresses, and so are networks of them.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

/// A set of networks. Made once, then only read: workers share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// First and last addresses of ranges, apart, so that a search touches less memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<T> {
    firsts: Box<[T]>,
    lasts: Box<[T]>,
}

impl<T> Default for Ranges<T> {
    fn default() -> Ranges<T> {
        Ranges { firsts: Box::default(), lasts: Box::default() }
    }
}

/// The bits before the IPv4 address in a mapped one (RFC 4291 §2.5.5.2).
const MAPPED_BITS: u8 = 96;

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Networks {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match (network.network(), network.broadcast()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.into(), last.into())),
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
                        (Some(first), Some(last)) if network.prefix_len() >= MAPPED_BITS => {
                            v4.push((first.into(), last.into()));
                        }
                        _ => v6.push((first.into(), last.into())),
                    }
                }
                // Both ends of a network are of one family.
                _ => {}
            }
        }
        // A network of IPv6 that has all mapped addresses in it has all of IPv4.
        let mapped = u128::from(std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());
        if v6.iter().any(|(first, last)| (*first..=*last).contains(&mapped)) {
            v4.push((0, u32::MAX));
        }
        Networks { v4: Ranges::of(v4), v6: Ranges::of(v6) }
    }
}

impl Networks {
    /// Whether `ip` is in one of them.
    #[inline]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.contains(ip.into()),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => self.v4.contains(ip.into()),
                None => self.v6.contains(ip.into()),
            },
        }
    }

    /// Ranges that are looked through.
    pub fn ranges(&self) -> usize {
        self.v4.firsts.len() + self.v6.firsts.len()
    }
}

impl<T: Copy + Ord + Step> Ranges<T> {
    fn of(mut all: Vec<(T, T)>) -> Ranges<T> {
        all.sort_unstable();
        let mut joined: Vec<(T, T)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match joined.last_mut() {
                Some((_, end)) if end.next().is_none_or(|next| first <= next) => {
                    *end = (*end).max(last);
                }
                _ => joined.push((first, last)),
            }
        }
        let (firsts, lasts): (Vec<T>, Vec<T>) = joined.into_iter().unzip();
        Ranges { firsts: firsts.into(), lasts: lasts.into() }
    }

    #[inline]
    fn contains(&self, ip: T) -> bool {
        let after = self.firsts.partition_point(|first| *first <= ip);
        after.checked_sub(1).is_some_and(|at| ip <= self.lasts[at])
    }
}

/// The number after this one; none after the last.
trait Step: Sized {
    fn next(self) -> Option<Self>;
}

impl Step for u32 {
    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
}

impl Step for u128 {
    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }
}

/// A set with its name, as configured.
#[derive(Clone, Debug)]
pub struct NamedNetworks {
    /// For explanations: a list's name, or how networks were written.
    pub name: Arc<str>,
    pub networks: Arc<Networks>,
}

/// Several sets: an address is in them when it is in one of them.
#[derive(Clone, Debug, Default)]
pub struct Lists(pub Box<[NamedNetworks]>);

impl Lists {
    /// The first one that has `ip`. An address that is not known is in none.
    #[inline]
    pub fn find(&self, ip: Option<IpAddr>) -> Option<&NamedNetworks> {
        let ip = ip?;
        self.0.iter().find(|list| list.networks.contains(ip))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which clients a route serves, by their address.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Others are refused; `None`: nobody is.
    pub allow: Option<Lists>,
    /// These are refused, also when they are allowed.
    pub deny: Lists,
    /// What would be refused is told, and served.
    pub shadow: bool,
}

/// What came of looking at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// By the list of this name; `None`: there is no list of those that are allowed.
    Allowed(Option<&'a str>),
    /// By the list of this name.
    Denied(&'a str),
    /// It is on no list of those that are allowed.
    NotAllowed,
}

impl Addresses {
    pub fn verdict(&self, ip: Option<IpAddr>) -> Verdict<'_> {
        if let Some(list) = self.deny.find(ip) {
            return Verdict::Denied(&list.name);
        }
        match &self.allow {
            None => Verdict::Allowed(None),
            Some(allow) => match allow.find(ip) {
                Some(list) => Verdict::Allowed(Some(&list.name)),
                None => Verdict::NotAllowed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        texts.iter().map(|text| text.parse::<IpNet>().expect("a network")).collect()
    }

    #[test]
    fn addresses_are_found() {
        let set = networks(&[
            "10.0.0.0/8",
            "192.0.2.0/25",
            "192.0.2.128/25",
            "192.0.2.7/32",
            "2001:db8::/32",
            "255.255.255.255/32",
            "::ffff:198.51.100.0/120",
        ]);
        // Neighbours are one range.
        assert_eq!(set.ranges(), 5);
        for (ip, is_in) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("255.255.255.255", true),
            ("::ffff:10.1.2.3", true),
            ("198.51.100.9", true),
            ("::ffff:198.51.100.9", true),
            ("198.51.101.0", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(set.contains(ip.parse().expect("an address")), is_in, "{ip}");
        }
        assert!(networks(&["0.0.0.0/0"]).contains(IpAddr::from([255, 0, 0, 1])));
        assert!(networks(&["::/0"]).contains(IpAddr::from([255, 0, 0, 1])), "all there is");
        assert!(!networks(&["0.0.0.0/0"]).contains("2001::".parse().expect("an address")));
        assert!(!Networks::default().contains(IpAddr::from([1, 1, 1, 1])));
    }

    #[test]
    fn what_is_denied_is_denied_also_when_allowed() {
        let lists = |name: &str, texts: &[&str]| {
            let networks = Arc::new(networks(texts));
            Lists([NamedNetworks { name: name.into(), networks }].into())
        };
        let rule = |allow| Addresses { allow, deny: lists("bad", &["10.0.0.1/32"]), shadow: false };
        let ip = |text: &str| Some(text.parse().expect("an address"));
        let (open, office) = (rule(None), rule(Some(lists("office", &["10.0.0.0/8"]))));
        assert_eq!(open.verdict(ip("10.0.0.1")), Verdict::Denied("bad"));
        assert_eq!(open.verdict(ip("10.0.0.2")), Verdict::Allowed(None));
        assert_eq!(open.verdict(None), Verdict::Allowed(None));
        assert_eq!(office.verdict(ip("10.0.0.1")), Verdict::Denied("bad"));
        assert_eq!(office.verdict(ip("10.0.0.2")), Verdict::Allowed(Some("office")));
        assert_eq!(office.verdict(ip("11.0.0.2")), Verdict::NotAllowed);
        assert_eq!(office.verdict(None), Verdict::NotAllowed, "nobody knows where it is from");
    }

    proptest! {
        /// Asking every network in turn gives the same answer.
        #[test]
        fn a_set_has_what_its_networks_have(
            v4 in proptest::collection::vec((any::<u16>(), 12u8..=32), 0..40),
            v6 in proptest::collection::vec((any::<u16>(), 108u8..=128), 0..40),
            asked in proptest::collection::vec(any::<(u16, bool)>(), 1..60),
        ) {
            let v4 = v4.iter().map(|(low, prefix)| {
                let ip = IpAddr::from(std::net::Ipv4Addr::from(0x0A00_0000 | u32::from(*low)));
                IpNet::new(ip, *prefix).expect("a prefix").trunc()
            });
            let v6 = v6.iter().map(|(low, prefix)| {
                let ip = IpAddr::from(std::net::Ipv6Addr::from(0x2001 << 112 | u128::from(*low)));
                IpNet::new(ip, *prefix).expect("a prefix").trunc()
            });
            let all: Vec<IpNet> = v4.chain(v6).collect();
            let set: Networks = all.iter().copied().collect();
            for (low, is_v6) in asked {
                let ip = match is_v6 {
                    true => std::net::Ipv6Addr::from(0x2001 << 112 | u128::from(low)).into(),
                    false => IpAddr::from(std::net::Ipv4Addr::from(0x0A00_0000 | u32::from(low))),
                };
                prop_assert_eq!(set.contains(ip), all.iter().any(|net| net.contains(&ip)), "{}", ip);
            }
        }
    }
}
