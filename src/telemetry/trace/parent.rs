//! The fields `traceparent` and `tracestate` (W3C Trace Context, Level 1 and 2): read strictly,
//! written anew. Neither needs memory of its own.

use crate::{
    telemetry::request_id::hexadecimal,
    wire::{Field, FieldId},
};

/// Bytes of a `traceparent` of version 00: `00-TRACE_ID-SPAN_ID-FLAGS`.
pub const TRACEPARENT_LEN: usize = 55;
/// Where in it the ids begin, and how many digits a span's has.
const TRACE_ID_AT: usize = 3;
pub const SPAN_ID_AT: usize = 36;
pub const SPAN_ID_LEN: usize = 16;

/// Flag: the caller records this trace.
pub const SAMPLED: u8 = 1;
/// Flag (Level 2): the trace id is random in its last seven bytes.
pub const RANDOM: u8 = 2;

/// Members of a `tracestate` (§3.3.1.1).
const MEMBERS_MAX: usize = 32;
/// Characters of a `tracestate`, all its lines together, up to which it must be passed on
/// (§3.3.1.5). A longer one is dropped.
const STATE_BYTES_MAX: usize = 512;
/// Characters of a member's key, and of its value.
const KEY_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 256;

/// A span, and the trace it is in, as `traceparent` names them. No id is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace_id: u128,
    pub span_id: u64,
    pub flags: u8,
}

impl TraceParent {
    /// Reads a value. `None` when it is invalid: then the request has no trace. Of a version above
    /// 00 the parts that 00 has are read, as §4.3 of the recommendation asks.
    pub fn parse(value: &[u8]) -> Option<TraceParent> {
        let (known, more) = value.split_at_checked(TRACEPARENT_LEN)?;
        let dashes = [known[2], known[35], known[52]];
        let version = number(&known[..2])?;
        let may_follow = version > 0 && more.first() == Some(&b'-');
        if dashes != [b'-'; 3] || version == 0xff || !(more.is_empty() || may_follow) {
            return None;
        }
        let parent = TraceParent {
            trace_id: number(&known[3..35])?,
            span_id: number(&known[SPAN_ID_AT..52])? as u64,
            flags: number(&known[53..])? as u8,
        };
        (parent.trace_id != 0 && parent.span_id != 0).then_some(parent)
    }

    /// As version 00, with the flags that are known.
    pub fn text(&self) -> [u8; TRACEPARENT_LEN] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        for (at, shift) in [(3, 96), (11, 64), (19, 32), (27, 0)] {
            text[at..at + 8].copy_from_slice(&hexadecimal((self.trace_id >> shift) as u32));
        }
        text[SPAN_ID_AT..52].copy_from_slice(&digits(self.span_id));
        text[54] = b'0' + (self.flags & (SAMPLED | RANDOM));
        text
    }
}

/// The ids in the text of a `traceparent`: of the trace, of the span.
pub fn ids(text: &[u8; TRACEPARENT_LEN]) -> (&[u8], &[u8]) {
    (&text[TRACE_ID_AT..SPAN_ID_AT - 1], &text[SPAN_ID_AT..SPAN_ID_AT + SPAN_ID_LEN])
}

/// A span id as it is written.
pub fn digits(span_id: u64) -> [u8; SPAN_ID_LEN] {
    let mut text = [0; SPAN_ID_LEN];
    text[..8].copy_from_slice(&hexadecimal((span_id >> 32) as u32));
    text[8..].copy_from_slice(&hexadecimal(span_id as u32));
    text
}

/// The number that up to 32 hexadecimal digits make; letters must be in lower case (§3.2.2).
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// What a request says about its trace: its `traceparent`, and whether its `tracestate` may be
/// passed on. `None` when there is no `traceparent`, more than one, or an invalid one; whatever is
/// in `tracestate` then means nothing.
pub fn received(fields: &[Field], buf: &[u8]) -> Option<(TraceParent, bool)> {
    let mut parents = of(fields, FieldId::Traceparent);
    let (parent, another) = (parents.next()?, parents.next());
    if another.is_some() {
        return None;
    }
    let parent = TraceParent::parse(parent.value.of(buf))?;
    let state = of(fields, FieldId::Tracestate).map(|field| field.value.of(buf));
    Some((parent, is_state(state)))
}

/// The lines of `tracestate`.
pub fn state_lines<'a>(fields: &'a [Field], buf: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    of(fields, FieldId::Tracestate).map(|field| field.value.of(buf))
}

fn of(fields: &[Field], id: FieldId) -> impl Iterator<Item = &Field> {
    fields.iter().filter(move |field| field.id == id && !field.hop_by_hop)
}

/// Whether the lines of a `tracestate` are one list of valid members within the bounds. That no key
/// is there twice is not looked at: the recommendation lets it pass.
fn is_state<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut bytes, mut members) = (0, 0);
    for (index, line) in lines.enumerate() {
        bytes += line.len() + usize::from(index > 0);
        if bytes > STATE_BYTES_MAX {
            return false;
        }
        for member in line.split(|&b| b == b',').map(trimmed).filter(|m| !m.is_empty()) {
            members += 1;
            if members > MEMBERS_MAX || !is_member(member) {
                return false;
            }
        }
    }
    members > 0
}

fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// `key=value` (§3.3.1.3, with the wider keys of Level 2).
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = memchr::memchr(b'=', member) else { return false };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let is_first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_key = |b: &u8| is_first(*b) || b"_-*/@".contains(b);
    // A blank at the end was taken for the list's.
    let is_value = |b: &u8| matches!(b, b' '..=b'~') && *b != b'=';
    (1..=KEY_BYTES_MAX).contains(&key.len())
        && is_first(key[0])
        && key.iter().all(is_key)
        && (1..=VALUE_BYTES_MAX).contains(&value.len())
        && value.iter().all(is_value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HeadLimits, Parsed, RequestHead};
    use proptest::prelude::*;

    const ID: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
    const SPAN: u64 = 0xb7ad_6b71_6920_3331;

    #[test]
    fn traceparents() {
        let good = |flags| Some(TraceParent { trace_id: ID, span_id: SPAN, flags });
        let ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        for (value, expected) in [
            (format!("00-{ids}-01"), good(1)),
            (format!("00-{ids}-00"), good(0)),
            (format!("00-{ids}-ff"), good(0xff)),
            (format!("01-{ids}-01"), good(1)),
            (format!("cc-{ids}-01-what-comes-later"), good(1)),
            (format!("cc-{ids}-01-"), good(1)),
            (format!("cc-{ids}-01.later"), None),
            (format!("cc-{ids}-010"), None),
            (format!("ff-{ids}-01"), None),
            (format!("0-{ids}-01"), None),
            (format!("00-{ids}-01-x"), None),
            (format!("00-{ids}-01-"), None),
            (format!("00-{ids}-1"), None),
            (format!("00-{ids}-0x"), None),
            (format!("00-{ids}"), None),
            (format!("00-{}-01", ids.to_uppercase()), None),
            (format!("0A-{ids}-01"), None),
            (format!("00-{ids}-0A"), None),
            (format!("00_{ids}-01"), None),
            (format!("00-{}-01", ids.replace('-', "_")), None),
            (format!("00-{ids}.01"), None),
            (format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)), None),
            (format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16)), None),
            (format!("00-{}-01", ids.replace('f', "g")), None),
            (String::new(), None),
        ] {
            assert_eq!(TraceParent::parse(value.as_bytes()), expected, "{value}");
        }
    }

    /// What `received` makes of these field lines.
    fn read(lines: &[&str]) -> Option<(TraceParent, bool)> {
        let mut text = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        lines.iter().for_each(|line| text.push_str(&format!("{line}\r\n")));
        text.push_str("\r\n");
        let limits = HeadLimits { head_bytes_max: 65536, target_bytes_max: 100, fields_max: 64 };
        let mut head = RequestHead::default();
        assert_eq!(head.parse(text.as_bytes(), &limits), Ok(Parsed::Complete(())), "{text}");
        received(&head.fields, text.as_bytes())
    }

    #[test]
    fn a_request_has_one_traceparent_or_none() {
        let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let found = Some(TraceParent { trace_id: ID, span_id: SPAN, flags: 1 });
        for (lines, expected) in [
            (&[parent][..], found),
            (&["TraceParent:00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 "], found),
            (&[parent, parent], None),
            (&[], None),
            (&["tracestate: a=1"], None),
            (&["traceparent: x", "tracestate: a=1"], None),
            // Named by Connection, it was for another hop.
            (&[parent, "Connection: traceparent"], None),
        ] {
            assert_eq!(read(lines).map(|(parent, _)| parent), expected, "{lines:?}");
        }
        assert_eq!(read(&[parent, "tracestate: a=1"]).map(|(_, keep)| keep), Some(true));
        assert_eq!(read(&[parent, "tracestate: A=1"]).map(|(_, keep)| keep), Some(false));
    }

    #[test]
    fn tracestates() {
        let many = |n: usize| (0..n).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        let long = |key: usize, value: usize| format!("{}={}", "k".repeat(key), "v".repeat(value));
        for (lines, expected) in [
            (vec!["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE".to_owned()], true),
            (vec!["a=1".to_owned(), "b=2".to_owned()], true),
            (vec!["a=1 ,\tb=2".to_owned()], true),
            (vec![" a=1,,b=2,".to_owned()], true),
            (vec!["a=1".to_owned(), String::new()], true),
            (vec!["fw529a3039@dt=FfAiAAAA".to_owned(), "1a-2f@foo=b".to_owned()], true),
            (vec!["a=b c".to_owned()], true),
            (vec![many(32)], true),
            (vec![many(33)], false),
            (vec![many(31), "x=1,y=2".to_owned()], false),
            (vec![long(256, 255)], true),
            (vec![long(255, 256)], true),
            (vec![long(257, 1)], false),
            (vec![long(1, 257)], false),
            (vec![long(256, 255), "a=1".to_owned()], false),
            (vec![], false),
            (vec![String::new()], false),
            (vec![", ,".to_owned()], false),
            (vec!["a".to_owned()], false),
            (vec!["a=".to_owned()], false),
            (vec!["=1".to_owned()], false),
            (vec!["a =1".to_owned()], false),
            (vec!["a=1=2".to_owned()], false),
            (vec!["A=1".to_owned()], false),
            (vec!["@a=1".to_owned()], false),
            (vec!["a.b=1".to_owned()], false),
            (vec!["a=\u{e9}".to_owned()], false),
        ] {
            let found = is_state(lines.iter().map(String::as_bytes));
            assert_eq!(found, expected, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace_id in 1u128.., span_id in 1u64.., flags in 0u8..4) {
            let parent = TraceParent { trace_id, span_id, flags };
            let text = parent.text();
            let expected = format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}");
            prop_assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
            prop_assert_eq!(TraceParent::parse(&text), Some(parent));
            let (trace, span) = ids(&text);
            prop_assert_eq!(std::str::from_utf8(trace).unwrap(), format!("{trace_id:032x}"));
            prop_assert_eq!(span, digits(span_id));
        }

        /// A valid value with one byte replaced is read only if it is valid all the same.
        #[test]
        fn any_other_byte_counts(at in 0usize..TRACEPARENT_LEN, byte: u8) {
            let mut text = TraceParent { trace_id: ID, span_id: SPAN, flags: 1 }.text();
            text[at] = byte;
            let is_digit = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let expected = match at {
                2 | 35 | 52 => byte == b'-',
                _ => is_digit,
            };
            prop_assert_eq!(TraceParent::parse(&text).is_some(), expected, "{}", text.escape_ascii());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = TraceParent::parse(&bytes);
            let _ = is_state(bytes.split(|b| *b == b'\n'));
        }
    }
}
