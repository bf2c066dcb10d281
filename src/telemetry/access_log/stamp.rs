//! The time of a line as text, in the forms that formats use.

use std::time::{Duration, UNIX_EPOCH};

/// The last second of the year 9999, the last one that has a form.
const SECOND_MAX: u64 = 253_402_300_799;

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// A moment as text; the parts that change once a second are formatted once a second.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    unix_ms: u64,
    second: u64,
    /// `2026-11-21T16:23:47.123Z`
    rfc3339: [u8; 24],
    /// `21/Nov/2026:16:23:47 +0000`
    clf: [u8; 26],
}

impl Stamp {
    pub const EPOCH: Stamp = Stamp {
        unix_ms: 0,
        second: 0,
        rfc3339: *b"1970-01-01T00:00:00.000Z",
        clf: *b"01/Jan/1970:00:00:00 +0000",
    };

    /// Becomes the moment `unix_ms`, in milliseconds since 1970 in UTC.
    #[inline]
    pub fn set(&mut self, unix_ms: u64) {
        let second = (unix_ms / 1000).min(SECOND_MAX);
        if second != self.second {
            self.format(second);
        }
        self.unix_ms = unix_ms;
        let ms = (unix_ms % 1000) as u16;
        self.rfc3339[20] = b'0' + (ms / 100) as u8;
        self.rfc3339[21] = b'0' + (ms / 10 % 10) as u8;
        self.rfc3339[22] = b'0' + (ms % 10) as u8;
    }

    fn format(&mut self, second: u64) {
        self.second = second;
        // An IMF-fixdate (RFC 9110 §5.6.7): `Sat, 21 Nov 2026 16:23:47 GMT`.
        let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        let text = text.as_bytes();
        let (day, month, year, time) = (&text[5..7], &text[8..11], &text[12..16], &text[17..25]);
        let number = MONTHS.iter().position(|name| *name == month).unwrap_or(0) + 1;
        let number = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        fill(&mut self.rfc3339, &[year, b"-", &number, b"-", day, b"T", time, b".000Z"]);
        fill(&mut self.clf, &[day, b"/", month, b"/", year, b":", time, b" +0000"]);
    }

    pub fn unix_ms(&self) -> u64 {
        self.unix_ms
    }

    /// RFC 3339, UTC, with milliseconds.
    pub fn rfc3339(&self) -> &[u8; 24] {
        &self.rfc3339
    }

    /// The date of the Common Log Format, UTC.
    pub fn clf(&self) -> &[u8; 26] {
        &self.clf
    }
}

fn fill(to: &mut [u8], parts: &[&[u8]]) {
    let mut at = 0;
    for part in parts {
        to[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let mut stamp = Stamp::EPOCH;
        for (unix_ms, rfc3339, clf) in [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (951_827_696_007, "2000-02-29T12:34:56.007Z", "29/Feb/2000:12:34:56 +0000"),
            (1_795_278_227_999, "2026-11-21T16:23:47.999Z", "21/Nov/2026:16:23:47 +0000"),
            (1_795_278_227_120, "2026-11-21T16:23:47.120Z", "21/Nov/2026:16:23:47 +0000"),
            (1_798_761_599_000, "2026-12-31T23:59:59.000Z", "31/Dec/2026:23:59:59 +0000"),
        ] {
            stamp.set(unix_ms);
            assert_eq!(String::from_utf8_lossy(stamp.rfc3339()), rfc3339);
            assert_eq!(String::from_utf8_lossy(stamp.clf()), clf);
            assert_eq!(stamp.unix_ms(), unix_ms);
        }
        stamp.set(u64::MAX);
        assert!(stamp.rfc3339().starts_with(b"9999-12-31T23:59:59."));
    }
}
