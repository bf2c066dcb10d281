//! What a fleet of gateways shares of a limit: the name of a key's bucket in the store, what the
//! store is asked, and what one process has of the limit while the store does not answer.

use super::{Ask, Moment, Window, moment};

/// A request takes no more than one of so many parts of what is in a bucket, beyond what waits: so
/// many processes or so can all have a lease, and leases shrink as the bucket empties.
pub const PARTS: u32 = 8;

/// A home that was told that a bucket is empty does not ask again for this long, where a bucket can
/// take it: tokens gather meanwhile.
const EMPTY_NS: u64 = 5_000_000;

/// Bytes of a limit's name in the names of its buckets, at most.
const NAME_MAX: usize = 64;

const YEAR_NS: u64 = 366 * 86_400 * 1_000_000_000;

/// What becomes of a request while the store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The process decides by a share of the limit.
    Local,
    /// It passes.
    Allow,
    Refuse,
}

/// What the store is told of one bucket, in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    pub key: u64,
    /// Tokens that come back.
    pub given: u32,
    /// Taken whether they are there or not.
    pub charged: u32,
    /// Then these are asked for.
    pub ask: Option<Ask>,
}

/// The windows that one process has to itself: `share` of each rate and burst, so that a request of
/// `cost` may pass.
pub fn windows(windows: &[Window], share: f64, cost: u32) -> Vec<Window> {
    let scaled = |window: &Window| {
        let burst = (f64::from(window.burst) * share).ceil() as u32;
        let period_ns = (window.period_ns as f64 / share) as u64;
        let longest_ns = YEAR_NS.saturating_mul(u64::from(window.count));
        Window::new(window.count, period_ns.min(longest_ns), burst.max(cost))
    };
    windows.iter().map(scaled).collect()
}

/// What the names of a limit's buckets begin with. Bytes that a tool might trip over are escaped,
/// and a long name ends in `~`: the number that follows tells limits apart.
pub fn prefix(prefix: &str, limit: &str) -> String {
    let mut name = prefix.to_owned();
    let end = prefix.len() + NAME_MAX;
    for byte in limit.bytes() {
        if name.len() + 3 > end {
            name.push('~');
            break;
        }
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                name.push(char::from(byte));
            }
            other => name += &format!("%{other:02X}"),
        }
    }
    name.push(':');
    name
}

/// How long a home refuses by itself that was told that there is nothing for `empty_ns`.
pub fn hold(windows: &[Window], empty_ns: u64) -> Moment {
    let least = windows.iter().map(Window::depth).min().unwrap_or_default();
    moment(empty_ns).max((least / 16).min(moment(EMPTY_NS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_process_alone_has_its_share() {
        // Count, period, burst, share and cost; then what it has.
        for (count, period_ns, burst, share, cost, wanted) in [
            (100, SECOND_NS, 200, 1.0, 1, (100, SECOND_NS, 200)),
            (100, SECOND_NS, 200, 0.5, 1, (100, 2 * SECOND_NS, 100)),
            (100, SECOND_NS, 1, 0.25, 1, (100, 4 * SECOND_NS, 1)),
            (100, SECOND_NS, 20, 0.1, 5, (100, 10 * SECOND_NS, 5)),
            (1, 31 * 86_400 * SECOND_NS, 1, 0.01, 1, (1, YEAR_NS, 1)),
        ] {
            let whole = Window::new(count, period_ns, burst);
            let [own] = windows(&[whole], share, cost)[..] else { panic!("one window") };
            assert_eq!((own.count, own.period_ns, own.burst), wanted);
        }
    }

    #[test]
    fn names_of_keys_are_plain_and_short() {
        let long = "\u{e4}".repeat(100);
        for (limit, wanted) in [
            ("per-client", "rw:per-client:"),
            ("a b{c}:d", "rw:a%20b%7Bc%7D%3Ad:"),
            (&long, &format!("rw:{}%C3~:", "%C3%A4".repeat(10))),
        ] {
            let name = prefix("rw:", limit);
            assert_eq!(name, wanted);
            assert!(name.len() <= 3 + NAME_MAX + 2);
        }
    }

    #[test]
    fn a_home_holds_for_a_small_part_of_the_bucket() {
        for (count, burst, empty_ns, wanted_ns) in [
            (10, 10, 100_000_000, 100_000_000),
            (1000, 1000, 1_000_000, EMPTY_NS),
            (1000, 16, 100_000, SECOND_NS / 1000),
        ] {
            let window = Window::new(count, SECOND_NS, burst);
            assert_eq!(hold(&[window], empty_ns), moment(wanted_ns));
        }
    }
}
