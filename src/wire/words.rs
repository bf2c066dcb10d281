//! Eight bytes at a time: how far a field name or value reaches.
//!
//! Plain arithmetic on `u64`, so that it costs the same on every architecture. The marks below are
//! exact up to the lowest marked byte of a word and may be wrong above it, where carries run to;
//! only the lowest is ever looked at. What is marked wrongly or needlessly there, the byte classes
//! of [`super::grammar`] put right, so the answers are theirs for every input.

use super::grammar::{is_target_byte, is_token_byte, is_value_byte};

/// The high bit of every byte.
const HIGH: u64 = every(0x80);

const fn every(b: u8) -> u64 {
    u64::from_le_bytes([b; 8])
}

/// Marks bytes equal to `b`.
#[inline(always)]
fn equal(word: u64, b: u8) -> u64 {
    below(word ^ every(b), 1)
}

/// Marks bytes under `limit`, which is at most 0x80.
#[inline(always)]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(every(limit)) & !word & HIGH
}

/// Marks control characters, the tab among them.
#[inline(always)]
fn controls(word: u64) -> u64 {
    below(word, 0x20) | equal(word, 0x7f)
}

/// Marks what is neither a letter nor a hyphen.
#[inline(always)]
fn unlettered(word: u64) -> u64 {
    let folded = word | every(0x20);
    let from_a = folded.wrapping_add(every(0x80 - b'a'));
    let past_z = folded.wrapping_add(every(0x7f - b'z'));
    let not_hyphen = (word ^ every(b'-')).wrapping_add(every(0x7f));
    ((!from_a | past_z) & not_hyphen | word) & HIGH
}

/// Marks `"`, `#`, `<` and `>`, and everything outside visible ASCII.
#[inline(always)]
fn untargeted(word: u64) -> u64 {
    let quote_or_hash = equal(word & !every(1), b'"');
    let angle = equal(word & !every(2), b'<');
    below(word, 0x21) | equal(word, 0x7f) | quote_or_hash | angle | word & HIGH
}

/// Length of the longest prefix of `text` all of whose bytes are in a class: `marks` shows where to
/// look closer (everywhere outside the class, and perhaps elsewhere), `is_in` decides.
#[inline(always)]
fn run(text: &[u8], marks: impl Fn(u64) -> u64, is_in: impl Fn(u8) -> bool) -> usize {
    let mut rest = text;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let marked = marks(u64::from_le_bytes(*word));
        if marked == 0 {
            rest = after;
            continue;
        }
        rest = &rest[marked.trailing_zeros() as usize / 8..];
        match rest {
            [b, after @ ..] if is_in(*b) => rest = after,
            _ => return text.len() - rest.len(),
        }
    }
    while let [b, after @ ..] = rest {
        if !is_in(*b) {
            break;
        }
        rest = after;
    }
    text.len() - rest.len()
}

/// Length of the token at the start of `text`.
#[inline]
pub(super) fn token_len(text: &[u8]) -> usize {
    run(text, unlettered, is_token_byte)
}

/// Length of the field value, blanks around it included, at the start of `text`.
#[inline]
pub(super) fn value_len(text: &[u8]) -> usize {
    run(text, controls, is_value_byte)
}

/// Whether every byte may appear in a request target.
#[inline]
pub(super) fn is_target(text: &[u8]) -> bool {
    run(text, untargeted, is_target_byte) == text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agrees(text: &[u8]) {
        let len =
            |is_in: fn(u8) -> bool| text.iter().position(|&b| !is_in(b)).unwrap_or(text.len());
        assert_eq!(token_len(text), len(is_token_byte), "token {text:?}");
        assert_eq!(value_len(text), len(is_value_byte), "value {text:?}");
        assert_eq!(is_target(text), len(is_target_byte) == text.len(), "target {text:?}");
    }

    /// Every byte at every place of a text a little over two words long, after a neighbour whose
    /// borrow or carry could reach it.
    #[test]
    fn every_byte_counts_wherever_it_stands() {
        for b in 0..=255u8 {
            for before in [b'a', b'-', b'0', 0x7f, 0x80, 0xff, 0x00, b' ', b'\t', b'!'] {
                for at in 0..19 {
                    let mut text = *b"abcdefghijklmnopqrs";
                    text[at] = b;
                    if at > 0 {
                        text[at - 1] = before;
                    }
                    agrees(&text);
                    agrees(&text[..=at]);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn runs_end_where_the_classes_say(
            text in prop::collection::vec(prop_oneof![4 => 0x20u8..0x7f, 1 => any::<u8>()], 0..40),
        ) {
            agrees(&text);
        }
    }
}
