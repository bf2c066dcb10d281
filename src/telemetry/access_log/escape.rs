//! Texts that others wrote, made harmless: no byte of theirs ends a line or a quoted value.

use super::pen::Pen;

/// Bytes of one value that are logged. A longer one is cut and ends in `...`.
pub const TEXT_BYTES_MAX: usize = 8192;

/// How a value is written where it has special characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    /// Quotation marks, backslashes, control characters and everything that is not ASCII as
    /// `\xHH`, as NGINX does.
    #[default]
    Text,
    /// For between the quotation marks of a JSON string (RFC 8259 §7). What is not UTF-8 becomes
    /// U+FFFD.
    Json,
}

impl Escape {
    /// Writes `text`.
    #[inline(always)]
    pub fn write(self, text: &[u8], pen: &mut Pen<'_>) {
        let is_plain = pen.ahead(text.len()).is_some_and(|room| copy_plain(text, room));
        if is_plain && text.len() <= TEXT_BYTES_MAX {
            pen.skip(text.len());
        } else {
            self.write_special(text, pen);
        }
    }

    #[cold]
    fn write_special(self, text: &[u8], pen: &mut Pen<'_>) {
        let kept = &text[..text.len().min(TEXT_BYTES_MAX)];
        match self {
            Escape::Text => kept.iter().for_each(|b| text_byte(*b, pen)),
            Escape::Json => json(kept, pen),
        }
        if kept.len() < text.len() {
            pen.put(b"...");
        }
    }
}

/// Copies `text` into room of its length, looking at each byte on the way: whether all of it is
/// printable ASCII without quotation mark and backslash, which both ways of writing leave as it is.
#[inline(always)]
fn copy_plain(text: &[u8], room: &mut [u8]) -> bool {
    let (Some(last), Some(last_room)) = (text.last_chunk::<8>(), room.last_chunk_mut::<8>()) else {
        return copy_short(text, room);
    };
    let mut found = special(*last);
    *last_room = *last;
    for (word, room) in text.as_chunks::<8>().0.iter().zip(room.as_chunks_mut::<8>().0) {
        found |= special(*word);
        *room = *word;
    }
    found == 0
}

/// The same for fewer than eight bytes.
#[inline]
fn copy_short(text: &[u8], room: &mut [u8]) -> bool {
    let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) else {
        room.iter_mut().zip(text).for_each(|(room, b)| *room = *b);
        return text.iter().all(|b| is_plain_byte(*b));
    };
    // The two overlap where there are fewer than eight.
    for (at, half) in [(0, first), (text.len() - 4, last)] {
        if let Some(room) = room.get_mut(at..).and_then(|room| room.first_chunk_mut()) {
            *room = *half;
        }
    }
    let ([a, b, c, d], [e, f, g, h]) = (*first, *last);
    special([a, b, c, d, e, f, g, h]) == 0
}

#[inline]
fn is_plain_byte(b: u8) -> bool {
    matches!(b, b' '..=b'~') && b != b'"' && b != b'\\'
}

/// Not zero when a byte is special, eight at a time. (Above the first special byte a borrow may
/// mark others too, which does not matter.)
#[inline]
fn special(bytes: [u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x80 * ONES;
    let word = u64::from_le_bytes(bytes);
    let below = |n: u64| word.wrapping_sub(n * ONES) & !word;
    let is = |b: u8| {
        let differs = word ^ (u64::from(b) * ONES);
        differs.wrapping_sub(ONES) & !differs
    };
    (below(0x20) | is(b'"') | is(b'\\') | is(0x7f) | word) & TOPS
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn text_byte(b: u8, pen: &mut Pen<'_>) {
    if is_plain_byte(b) {
        pen.put_byte(b);
    } else {
        let (high, low) = (HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]);
        pen.put(&[b'\\', b'x', high, low]);
    }
}

fn json(text: &[u8], pen: &mut Pen<'_>) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            json_char(c, pen);
        }
        if !chunk.invalid().is_empty() {
            pen.put("\u{fffd}".as_bytes());
        }
    }
}

fn json_char(c: char, pen: &mut Pen<'_>) {
    let mut utf8 = [0; 4];
    match c {
        '"' => pen.put(b"\\\""),
        '\\' => pen.put(b"\\\\"),
        '\n' => pen.put(b"\\n"),
        '\r' => pen.put(b"\\r"),
        '\t' => pen.put(b"\\t"),
        // Also those above ASCII: terminals obey them. All are below U+0100.
        c if c.is_control() => {
            let b = c as u32 as u8;
            let (high, low) = (HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]);
            pen.put(&[b'\\', b'u', b'0', b'0', high, low]);
        }
        c => pen.put(c.encode_utf8(&mut utf8).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(escape: Escape, text: &[u8]) -> Vec<u8> {
        let mut room = vec![0; 6 * text.len().min(TEXT_BYTES_MAX) + 3];
        let mut pen = Pen::new(&mut room);
        escape.write(text, &mut pen);
        let length = pen.finish().expect("room enough");
        room.truncate(length);
        room
    }

    /// As [`copy_plain`] says, which must have copied what it says it has.
    fn is_plain(text: &[u8]) -> bool {
        let mut room = vec![0; text.len()];
        let is_plain = copy_plain(text, &mut room);
        assert!(!is_plain || room == text);
        is_plain
    }

    #[test]
    fn specials() {
        for (text, plain, json) in [
            (&b"/a?b=c d"[..], &b"/a?b=c d"[..], &b"/a?b=c d"[..]),
            (b"", b"", b""),
            (b"say \"hi\"", b"say \\x22hi\\x22", b"say \\\"hi\\\""),
            (b"a\\b", b"a\\x5Cb", b"a\\\\b"),
            (b"a\r\nb\tc", b"a\\x0D\\x0Ab\\x09c", b"a\\r\\nb\\tc"),
            (b"\x00\x1f\x7f", b"\\x00\\x1F\\x7F", b"\\u0000\\u001F\\u007F"),
            ("é".as_bytes(), b"\\xC3\\xA9", "é".as_bytes()),
            ("\u{9b}31m".as_bytes(), b"\\xC2\\x9B31m", b"\\u009B31m"),
            (b"a\xff\xfeb", b"a\\xFF\\xFEb", "a\u{fffd}\u{fffd}b".as_bytes()),
        ] {
            assert_eq!(written(Escape::Text, text), plain, "{}", text.escape_ascii());
            assert_eq!(written(Escape::Json, text), json, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_long_value_is_cut() {
        for escape in [Escape::Text, Escape::Json] {
            let whole = written(escape, &[b'a'; TEXT_BYTES_MAX]);
            assert_eq!(whole.len(), TEXT_BYTES_MAX);
            let cut = written(escape, &[b'a'; TEXT_BYTES_MAX + 1]);
            assert_eq!(cut, [&whole[..], b"..."].concat());
            assert!(written(escape, &[0; 1 << 20]).len() <= 6 * TEXT_BYTES_MAX + 3);
        }
    }

    proptest! {
        #[test]
        fn eight_at_a_time_is_one_by_one(text in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(is_plain(&text), text.iter().all(|b| is_plain_byte(*b)));
        }

        /// One byte that is not plain, anywhere among plain ones.
        #[test]
        fn no_special_byte_is_overlooked(
            mut text in prop::collection::vec(prop::sample::select(&b"aZ09 ~!/?#[]^"[..]), 1..70),
            at in any::<prop::sample::Index>(),
            with in any::<u8>(),
        ) {
            prop_assert!(is_plain(&text));
            let at = at.index(text.len());
            text[at] = with;
            prop_assert_eq!(is_plain(&text), is_plain_byte(with));
        }

        /// What was written can be told from the line, and nothing in it can end a quoted value.
        #[test]
        fn text_is_reversible(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let line = written(Escape::Text, &text);
            prop_assert!(line.iter().all(|b| matches!(b, b' '..=b'~') && *b != b'"'));
            let (mut back, mut rest) = (Vec::new(), &line[..]);
            while let [first, tail @ ..] = rest {
                if *first == b'\\' {
                    let digits = std::str::from_utf8(&tail[1..3]).expect("digits");
                    back.push(u8::from_str_radix(digits, 16).expect("digits"));
                    rest = &tail[3..];
                } else {
                    back.push(*first);
                    rest = tail;
                }
            }
            prop_assert_eq!(back, text);
        }

        #[test]
        fn json_is_what_a_parser_reads_back(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let string = [&b"\""[..], &written(Escape::Json, &text), b"\""].concat();
            let read: String = serde_json::from_slice(&string).expect("JSON");
            prop_assert_eq!(read, String::from_utf8_lossy(&text));
            prop_assert!(string.iter().all(|b| *b >= b' '));
        }
    }
}
