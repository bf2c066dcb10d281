//! Texts that others wrote, made harmless: no byte of theirs ends a line or a quoted value.

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
    /// Appends `text`.
    #[inline]
    pub fn write(self, text: &[u8], out: &mut Vec<u8>) {
        if text.len() <= TEXT_BYTES_MAX && is_plain(text) {
            out.extend_from_slice(text);
        } else {
            self.write_special(text, out);
        }
    }

    #[cold]
    fn write_special(self, text: &[u8], out: &mut Vec<u8>) {
        let kept = &text[..text.len().min(TEXT_BYTES_MAX)];
        match self {
            Escape::Text => kept.iter().for_each(|b| text_byte(*b, out)),
            Escape::Json => json(kept, out),
        }
        if kept.len() < text.len() {
            out.extend_from_slice(b"...");
        }
    }
}

/// Printable ASCII without quotation mark and backslash, which both ways of writing leave as it is.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    let Some((last, _)) = text.split_last_chunk::<8>().map(|(rest, last)| (last, rest)) else {
        return text.iter().all(|b| is_plain_byte(*b));
    };
    let words = text.chunks_exact(8).map(|chunk| chunk.try_into().unwrap_or([b'a'; 8]));
    let special = words.fold(special(*last), |found, word| found | special(word));
    special == 0
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

fn text_byte(b: u8, out: &mut Vec<u8>) {
    if is_plain_byte(b) {
        out.push(b);
    } else {
        let (high, low) = (HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]);
        out.extend_from_slice(&[b'\\', b'x', high, low]);
    }
}

fn json(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            json_char(c, out);
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn json_char(c: char, out: &mut Vec<u8>) {
    let mut utf8 = [0; 4];
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        // Also those above ASCII: terminals obey them. All are below U+0100.
        c if c.is_control() => {
            let b = c as u32 as u8;
            let (high, low) = (HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
        c => out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(escape: Escape, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        escape.write(text, &mut out);
        out
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
