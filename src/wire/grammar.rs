//! Byte classes and the few list and token rules every part of a message shares.

/// Bit of [`CLASS`]: may appear in a token (RFC 9110 §5.6.2).
const TOKEN: u8 = 1;
/// Bit: may appear in a request target. Everything visible except `"`, `<`, `>` and `#`: wider
/// than RFC 3986 because browsers send `{`, `|`, `^` and the like as they are.
const TARGET: u8 = 2;
/// Bit: may appear in a field value or reason phrase (RFC 9110 §5.5): visible, space, tab, 0x80
/// to 0xFF.
const VALUE: u8 = 4;
/// Bit: may appear in a registered host name. Narrower than RFC 3986 on purpose: no escapes and no
/// sub-delimiters, which no name in use has and which implementations read differently.
const HOST: u8 = 8;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let alphanumeric = b.is_ascii_alphanumeric();
        if alphanumeric
            || matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.')
            || matches!(b, b'^' | b'_' | b'`' | b'|' | b'~')
        {
            table[i] |= TOKEN;
        }
        if matches!(b, 0x21..=0x7e) && !matches!(b, b'"' | b'<' | b'>' | b'#') {
            table[i] |= TARGET;
        }
        if matches!(b, b'\t' | 0x20..=0x7e | 0x80..) {
            table[i] |= VALUE;
        }
        if alphanumeric || matches!(b, b'-' | b'.' | b'_' | b'~') {
            table[i] |= HOST;
        }
        i += 1;
    }
    table
}

#[inline]
pub(super) fn is_token_byte(b: u8) -> bool {
    CLASS[b as usize] & TOKEN != 0
}

#[inline]
pub(super) fn is_target_byte(b: u8) -> bool {
    CLASS[b as usize] & TARGET != 0
}

#[inline]
pub(super) fn is_value_byte(b: u8) -> bool {
    CLASS[b as usize] & VALUE != 0
}

#[inline]
pub(super) fn is_host_byte(b: u8) -> bool {
    CLASS[b as usize] & HOST != 0
}

/// A non-empty run of token bytes.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| is_token_byte(b))
}

/// Without spaces and tabs at either end (RFC 9110 §5.6.3).
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The non-empty elements of a comma-separated list without quoted strings (RFC 9110 §5.6.1.2).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|element| !element.is_empty())
}

/// A decimal number of 1 to 19 digits and nothing else, so that it always fits.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let mut value = 0u64;
    for &b in text {
        if !b.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u64::from(b - b'0');
    }
    Some(value)
}

/// Value of one hexadecimal digit.
#[inline]
pub(super) fn hex_digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_only_and_bounded() {
        for (text, want) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("9999999999999999999", Some(9_999_999_999_999_999_999)),
            ("18446744073709551615", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            (" 1", None),
            ("1 ", None),
            ("0x1", None),
            ("1,1", None),
            ("1_0", None),
        ] {
            assert_eq!(number(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn lists_skip_empty_elements() {
        let elements: Vec<&[u8]> = list(b" a ,, b\t,c, ").collect();
        assert_eq!(elements, [b"a", b"b", b"c"]);
    }

    #[test]
    fn classes_agree_with_the_grammar() {
        for b in 0..=255u8 {
            let delimiter = b"\"(),/:;<=>?@[\\]{}".contains(&b);
            assert_eq!(is_token_byte(b), b.is_ascii_graphic() && !delimiter, "token {b:#x}");
            assert_eq!(is_value_byte(b), b == 9 || b == 32 || b.is_ascii_graphic() || b > 127);
            assert_eq!(is_target_byte(b), b.is_ascii_graphic() && !b"\"<>#".contains(&b));
            assert_eq!(is_host_byte(b), b.is_ascii_alphanumeric() || b"-._~".contains(&b));
        }
    }
}
