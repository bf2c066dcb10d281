//! An access log as workers and control use it.

use std::{net::SocketAddr, path::PathBuf};

use crate::telemetry::access_log::Format;

/// One `[[access_logs]]`.
#[derive(Clone, Debug)]
pub struct AccessLog {
    pub name: String,
    pub to: Destination,
    pub format: Format,
    /// An exchange is logged when a random number is below it; `None` logs every one.
    pub sample_below: Option<u64>,
    /// Only these statuses, or what is slow; `None` is no such filter.
    pub statuses: Option<Statuses>,
    /// Only exchanges that took longer, or have one of `statuses`.
    pub slower_than_ms: Option<u64>,
    /// What may wait in memory for each worker.
    pub buffer_bytes: u64,
}

impl AccessLog {
    /// Whether it is for an exchange that ended like this. `random` is asked only when it matters.
    #[inline]
    pub fn wants(&self, status: u16, duration_ns: u64, random: impl FnOnce() -> u64) -> bool {
        if self.statuses.is_some() || self.slower_than_ms.is_some() {
            let is_slow =
                self.slower_than_ms.is_some_and(|ms| duration_ns > ms.saturating_mul(1_000_000));
            if !is_slow && !self.statuses.as_ref().is_some_and(|list| list.has(status)) {
                return false;
            }
        }
        self.sample_below.is_none_or(|below| random() < below)
    }
}

/// Where an access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Stdout,
    File(PathBuf),
    /// A datagram for each line.
    Unix(PathBuf),
    /// A datagram for each line, as syslog(3) writes it.
    Syslog(PathBuf),
    /// A datagram for each line (RFC 5424, RFC 5426), to the first address that can be used.
    SyslogUdp {
        /// `host:port`, as configured.
        name: String,
        addresses: Vec<SocketAddr>,
    },
}

/// A set of status codes, of those up to 599.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses([u64; 10]);

impl Statuses {
    pub fn insert(&mut self, status: u16) {
        if let Some(word) = self.0.get_mut(usize::from(status / 64)) {
            *word |= 1 << (status % 64);
        }
    }

    #[inline]
    pub fn has(&self, status: u16) -> bool {
        self.0.get(usize::from(status / 64)).is_some_and(|word| word >> (status % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(statuses: &[u16], slower_than_ms: Option<u64>, sample_below: Option<u64>) -> AccessLog {
        let mut set = Statuses::default();
        statuses.iter().for_each(|status| set.insert(*status));
        AccessLog {
            name: String::new(),
            to: Destination::Stdout,
            format: Format::json(),
            sample_below,
            statuses: Some(set).filter(|_| !statuses.is_empty()),
            slower_than_ms,
            buffer_bytes: 0,
        }
    }

    #[test]
    fn what_is_logged() {
        const MS: u64 = 1_000_000;
        for (log, status, duration_ns, random, expected) in [
            (log(&[], None, None), 200, 0, 0, true),
            (log(&[404, 499, 599], None, None), 404, 0, 0, true),
            (log(&[404, 499, 599], None, None), 599, 0, 0, true),
            (log(&[404, 499, 599], None, None), 405, 9 * MS, 0, false),
            (log(&[], Some(5), None), 200, 5 * MS, 0, false),
            (log(&[], Some(5), None), 200, 5 * MS + 1, 0, true),
            (log(&[500], Some(5), None), 200, 6 * MS, 0, true),
            (log(&[500], Some(5), None), 500, 0, 0, true),
            (log(&[500], Some(5), None), 200, 0, 0, false),
            (log(&[], None, Some(0)), 200, 0, 0, false),
            (log(&[], None, Some(10)), 200, 0, 9, true),
            (log(&[], None, Some(10)), 200, 0, 10, false),
            (log(&[500], None, Some(10)), 500, 0, 10, false),
            (log(&[500], None, Some(10)), 200, 0, 0, false),
        ] {
            assert_eq!(log.wants(status, duration_ns, || random), expected, "{log:?} {status}");
        }
        let mut all = Statuses::default();
        (0..=u16::MAX).for_each(|status| all.insert(status));
        assert!((0..640).all(|status| all.has(status)) && !all.has(640) && !all.has(u16::MAX));
    }
}
