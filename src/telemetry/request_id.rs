//! The id that names one exchange in X-Request-Id, problem bodies and logs.

use std::{cell::Cell, hash::BuildHasher};

use crate::wire::Span;

/// Longest X-Request-Id of a client that is kept, in bytes.
const KEPT_BYTES_MAX: usize = 128;

/// A fast, seeded, non-cryptographic source of numbers (splitmix64). One per worker.
pub struct Random(Cell<u64>);

impl Default for Random {
    fn default() -> Random {
        // The standard library seeds its hashers from the operating system.
        Random(Cell::new(std::hash::RandomState::new().hash_one(0x52_49_4e_47u32)))
    }
}

impl Random {
    #[inline]
    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The id of an exchange.
#[derive(Clone, Copy, Debug)]
pub enum RequestId {
    /// The client's own, in the exchange's buffer.
    Kept(Span),
    /// 128 random bits, written as 32 lower-case hexadecimal digits.
    Made([u8; 32]),
    Off,
}

impl RequestId {
    pub fn make(random: &Random) -> RequestId {
        let mut text = [0u8; 32];
        for half in text.chunks_exact_mut(16) {
            let bits = random.next();
            half[..8].copy_from_slice(&hexadecimal((bits >> 32) as u32));
            half[8..].copy_from_slice(&hexadecimal(bits as u32));
        }
        RequestId::Made(text)
    }

    /// The text; `buf` is the exchange's buffer.
    pub fn text<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        match self {
            RequestId::Kept(span) => span.of(buf),
            RequestId::Made(text) => text,
            RequestId::Off => b"",
        }
    }
}

/// Eight lower-case digits, all at once: one byte of a `u64` for each.
#[inline]
pub(super) fn hexadecimal(bits: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut digits = u64::from(bits);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte whose digit is a letter.
    let letters = (digits + 6 * ONES) >> 4 & ONES;
    let to_letter = u64::from(b'a' - b'0' - 10);
    (digits + u64::from(b'0') * ONES + letters * to_letter).to_be_bytes()
}

/// Whether a client's id may be kept: short, and nothing in it that a log or JSON must escape.
pub fn may_keep(text: &[u8]) -> bool {
    (1..=KEPT_BYTES_MAX).contains(&text.len())
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:+/=@".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_ids_are_32_hexadecimal_digits_and_differ() {
        let random = Random::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let id = RequestId::make(&random);
            let text = id.text(b"").to_vec();
            assert_eq!(text.len(), 32);
            assert!(text.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)));
            assert!(seen.insert(text));
        }
    }

    #[test]
    fn hexadecimal_digits() {
        for bits in (0..32).map(|n| 1u32 << n).chain([0, u32::MAX, 0x0123_4567, 0x89ab_cdef]) {
            assert_eq!(hexadecimal(bits), format!("{bits:08x}").as_bytes(), "{bits:x}");
        }
    }

    #[test]
    fn only_plain_short_ids_are_kept() {
        for (text, keep) in [
            (&b"7f3a-42_x.y:z+/=@"[..], true),
            (b"", false),
            (b"a b", false),
            (b"a\"b", false),
            (b"a\x80", false),
            (&[b'a'; 128], true),
            (&[b'a'; 129], false),
        ] {
            assert_eq!(may_keep(text), keep, "{}", text.escape_ascii());
        }
    }
}
