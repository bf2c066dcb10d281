//! The field lines of a head, read in one pass: bounds, numbers of the known names, and the
//! values that decide about the message.
//!
//! Accepts exactly what the scan's `fields` accepts (a test holds the two together) and says
//! nothing about why a line is refused: that is the scan's to say.

use super::head::{HOP_BY_HOP, Lines, Summary, bit};
use super::words::{token_len, value_len};
use super::{Field, FieldId, Span};

/// What one step over the section found.
enum Step {
    /// A line of this many bytes.
    Line(Field, usize),
    MoreNeeded,
    Suspect,
}

/// Reads the section that starts at `start` of `head`, replacing the contents of `fields`.
#[inline]
pub(super) fn read(head: &[u8], start: usize, fields_max: usize, fields: &mut Vec<Field>) -> Lines {
    fields.clear();
    let mut summary = Summary::default();
    let mut at = start;
    let mut rest = &head[start..];
    loop {
        match rest {
            [b'\r', b'\n', ..] => {
                summary.len = at + 2;
                return Lines::Whole(summary);
            }
            [] | [b'\r'] => return Lines::Partial,
            _ if fields.len() == fields_max => return Lines::Suspect,
            _ => {}
        }
        match line(rest, at) {
            Step::Line(field, len) => {
                summary.note(field.id, fields.len());
                fields.push(field);
                at += len;
                rest = &rest[len..];
            }
            Step::MoreNeeded => return Lines::Partial,
            Step::Suspect => return Lines::Suspect,
        }
    }
}

/// The line at the start of `rest`, which is at `at` of the head.
#[inline(always)]
fn line(rest: &[u8], at: usize) -> Step {
    let name_len = token_len(rest);
    let (name, after) = rest.split_at(name_len);
    let mut value = match after {
        [b':', after @ ..] if name_len > 0 => after,
        [] => return Step::MoreNeeded,
        _ => return Step::Suspect,
    };
    while let [b' ' | b'\t', after @ ..] = value {
        value = after;
    }
    let value_start = rest.len() - value.len();
    let (mut value, after) = value.split_at(value_len(value));
    let len = value_start + value.len() + 2;
    match after {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] => return Step::MoreNeeded,
        _ => return Step::Suspect,
    }
    while let [before @ .., b' ' | b'\t'] = value {
        value = before;
    }
    let id = FieldId::recognise(name);
    let field = Field {
        name: Span::new(at, at + name_len),
        value: Span::new(at + value_start, at + value_start + value.len()),
        line: Span::new(at, at + len),
        id,
        hop_by_hop: HOP_BY_HOP & bit(id) != 0,
    };
    Step::Line(field, len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{HeadLimits, Parsed, scan};
    use super::*;

    const FIELDS_MAX: u16 = 6;

    /// The pass and the scan say the same of `section`, wherever in a head it stands.
    fn agrees(section: &[u8]) {
        let limits =
            HeadLimits { head_bytes_max: 4096, target_bytes_max: 0, fields_max: FIELDS_MAX };
        let mut want = Vec::new();
        let scanned = scan::trailers(section, &limits, &mut want);
        let head = [b"0123456789", section].concat();
        let mut fields = vec![Field::default()];
        match (read(&head, 10, usize::from(FIELDS_MAX), &mut fields), scanned) {
            (Lines::Whole(summary), Ok(Parsed::Complete(len))) => {
                assert_eq!(summary.len, len + 10);
                assert_eq!(fields.len(), want.len());
                for (field, want) in fields.iter().zip(want) {
                    assert_eq!(field.name.of(&head), want.name.of(section));
                    assert_eq!(field.value.of(&head), want.value.of(section));
                    assert_eq!(field.value.start, want.value.start + 10);
                    assert_eq!(field.line.of(&head), want.line.of(section));
                    assert_eq!(field.id, FieldId::recognise(want.name.of(section)));
                }
            }
            (Lines::Partial, Ok(Parsed::Partial)) | (Lines::Suspect, Err(_)) => {}
            (_, scanned) => panic!("the scan says {scanned:?} of {section:?}"),
        }
    }

    fn agrees_at_every_cut(section: &[u8]) {
        for cut in 0..=section.len() {
            agrees(&section[..cut]);
        }
    }

    const SECTION: &[u8] = b"Host: a.example\r\nX-Empty:\r\nx_1:\t two  words \t\r\n\
        Connection:close\r\nX-Blank: \t \r\nContent-Length:  0000000000000000000000001\r\n\r\nbody";

    #[test]
    fn one_damaged_byte_is_seen_as_the_scan_sees_it() {
        agrees_at_every_cut(SECTION);
        for at in 0..SECTION.len() {
            for b in 0..=255 {
                let mut section = SECTION.to_vec();
                section[at] = b;
                agrees(&section);
                section.remove(at);
                section.insert(at / 2, b);
                agrees(&section);
            }
        }
    }

    #[test]
    fn one_line_too_many() {
        agrees_at_every_cut(&b"a: b\r\n".repeat(usize::from(FIELDS_MAX) + 1));
    }

    proptest! {
        #[test]
        fn says_what_the_scan_says(
            pieces in prop::collection::vec(
                prop_oneof![
                    Just(b"\r\n".to_vec()),
                    Just(b": ".to_vec()),
                    Just(b" \t".to_vec()),
                    Just(b"Content-Length".to_vec()),
                    "[a-zA-Z0-9-]{1,20}: [ -~]{0,30}\r\n".prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 1..3),
                ],
                0..12,
            ),
        ) {
            agrees_at_every_cut(&pieces.concat());
        }
    }
}
