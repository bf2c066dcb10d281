//! Normalises a request path once, before anything matches on it.
//!
//! Invariants: what is matched and what is forwarded are the same path but for `;parameters` and
//! for how characters are written (`@` or `%40`), of which the matched form has one each;
//! normalising twice changes nothing; the matched form has no empty segment (but a final one), no
//! dot segment and no `;`. A path two servers could read differently is refused.

use super::Reason;
use super::grammar::{hex_digit, is_target_byte};
use super::reason::{PATH_AMBIGUOUS, PATH_ENCODING, PATH_ESCAPES};

/// Choices an operator has about paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// Keep `%2F` and `%5C` inside a segment as ordinary text instead of refusing them.
    pub encoded_slash_keep: bool,
}

/// The two forms of one path. When the received path is already normal (nearly always) neither
/// differs, nothing is copied and the received bytes are used as they are.
#[derive(Debug, Default)]
pub struct NormalPath {
    /// What is forwarded: unreserved characters decoded, escapes upper-cased, empty and dot
    /// segments resolved; path parameters (`;x=y`) kept. Empty unless `forward_differs`.
    pub forward: Vec<u8>,
    /// What routes match on: as `forward`, with every `;parameters` removed and each character in
    /// one form only ([`push_matched`]). Empty unless `matched_differs`.
    pub matched: Vec<u8>,
    /// `forward` is not what was received.
    pub forward_differs: bool,
    /// `matched` is not what was received.
    pub matched_differs: bool,
}

/// Bit of a path byte that normalising must look at.
const SPECIAL: u8 = 1;
const SLASH: u8 = 2;
const DOT: u8 = 4;

static PATH_CLASS: [u8; 256] = path_classes();

const fn path_classes() -> [u8; 256] {
    let mut table = [SPECIAL; 256];
    let mut b = 0x21;
    while b < 0x7f {
        table[b] = match b as u8 {
            b'/' => SLASH,
            b'.' => DOT,
            b if is_plain(b) => 0,
            _ => SPECIAL,
        };
        b += 1;
    }
    table
}

impl NormalPath {
    /// Normalises `path` into `self`, reusing its memory. An empty path becomes `/`.
    ///
    /// Empty segments are removed before dot segments are resolved: `/a//../b` is `/b`. An escape
    /// is decoded once at most: `%252e` stays as it is.
    ///
    /// # Errors
    /// - `path.bad_encoding`: a `%` without two hexadecimal digits, an encoded control byte, or a
    ///   raw byte no target may have (RFC 3986 §2.1).
    /// - `path.ambiguous`: a backslash; an encoded slash or backslash unless `rules` keeps them; a
    ///   dot segment with parameters; no leading slash (RFC 3986 §3.3).
    /// - `path.escapes_root`: more `..` than segments before it (RFC 3986 §5.2.4).
    #[inline]
    pub fn normalise(&mut self, path: &[u8], rules: PathRules) -> Result<(), &'static Reason> {
        self.forward.clear();
        self.matched.clear();
        self.forward_differs = false;
        self.matched_differs = false;
        if is_normal(path) { Ok(()) } else { self.rebuild(path, rules) }
    }

    /// The form to forward, given the `path` that was normalised.
    #[inline]
    pub fn forward_of<'a>(&'a self, path: &'a [u8]) -> &'a [u8] {
        if self.forward_differs { &self.forward } else { path }
    }

    /// The form to match on, given the `path` that was normalised.
    #[inline]
    pub fn matched_of<'a>(&'a self, path: &'a [u8]) -> &'a [u8] {
        if self.matched_differs { &self.matched } else { path }
    }

    #[cold]
    fn rebuild(&mut self, path: &[u8], rules: PathRules) -> Result<(), &'static Reason> {
        if !matches!(path.first(), None | Some(b'/')) {
            return Err(PATH_AMBIGUOUS);
        }
        // Between segments `forward` never ends in a slash; each segment brings its own.
        let mut directory = true;
        for segment in path.split(|&b| b == b'/').skip(1) {
            let start = self.forward.len();
            self.forward.push(b'/');
            decode(&mut self.forward, segment, rules)?;
            let decoded = &self.forward[start + 1..];
            directory = matches!(decoded, b"" | b"." | b"..");
            if dotted_with_parameters(decoded) {
                return Err(PATH_AMBIGUOUS);
            }
            if directory {
                let up = decoded == b"..";
                self.forward.truncate(start);
                if up {
                    let parent = memchr::memrchr(b'/', &self.forward).ok_or(PATH_ESCAPES)?;
                    self.forward.truncate(parent);
                }
            }
        }
        if directory {
            self.forward.push(b'/');
        }
        strip_parameters(&self.forward, &mut self.matched);
        self.forward_differs = self.forward != path;
        self.matched_differs = self.matched != path;
        Ok(())
    }
}

/// Nothing to decode, resolve, strip or refuse. May say `false` of a normal path (one with a
/// segment that only starts with a dot, say): rebuilding then finds that nothing differs.
#[inline]
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for &b in path {
        let class = PATH_CLASS[b as usize];
        if class != 0 && (class == SPECIAL || previous == SLASH) {
            return false;
        }
        previous = class;
    }
    path.first() == Some(&b'/')
}

/// Appends one segment with its unreserved escapes decoded and the others in upper case.
fn decode(out: &mut Vec<u8>, segment: &[u8], rules: PathRules) -> Result<(), &'static Reason> {
    let mut rest = segment;
    loop {
        rest = match rest {
            [] => return Ok(()),
            [b'%', high, low, after @ ..] => {
                let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low)) else {
                    return Err(PATH_ENCODING);
                };
                escape(out, high << 4 | low, rules)?;
                after
            }
            [b'%', ..] => return Err(PATH_ENCODING),
            [b'\\', ..] => return Err(PATH_AMBIGUOUS),
            [b, ..] if !is_target_byte(*b) || *b == b'?' => return Err(PATH_ENCODING),
            [b, after @ ..] => {
                out.push(*b);
                after
            }
        };
    }
}

fn escape(out: &mut Vec<u8>, byte: u8, rules: PathRules) -> Result<(), &'static Reason> {
    match byte {
        0..=0x1f | 0x7f => return Err(PATH_ENCODING),
        b'/' | b'\\' if !rules.encoded_slash_keep => return Err(PATH_AMBIGUOUS),
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
        _ => push_escaped(out, byte),
    }
    Ok(())
}

/// `.;x`, `..;x` and the same with an encoded semicolon: a dot segment to servers that drop
/// parameters first, an ordinary name to others.
fn dotted_with_parameters(segment: &[u8]) -> bool {
    let after_dots = match segment {
        [b'.', b'.', after @ ..] | [b'.', after @ ..] => after,
        _ => return false,
    };
    after_dots.starts_with(b";") || after_dots.starts_with(b"%3B")
}

/// `path`, already rebuilt, without parameters and the empty segments that removing them leaves.
fn strip_parameters(path: &[u8], out: &mut Vec<u8>) {
    let mut directory = true;
    for segment in path.split(|&b| b == b'/').skip(1) {
        let name = segment.split(|&b| b == b';').next().unwrap_or_default();
        directory = name.is_empty();
        if !directory {
            out.push(b'/');
            push_matched(out, name);
        }
    }
    if directory {
        out.push(b'/');
    }
}

/// Appends a segment of a forwarded path in its matched form: an upstream decodes `%40` and reads
/// `@`, so a rule about one must not miss the other. What may stand plainly in a segment (RFC 3986
/// §3.3) does, except `;`; everything else is escaped.
pub fn push_matched(out: &mut Vec<u8>, segment: &[u8]) {
    let mut rest = segment;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let byte = match (hex_digit(*high), hex_digit(*low)) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => b'%',
                };
                match is_plain(byte) {
                    true => out.push(byte),
                    false => out.extend_from_slice(&[b'%', *high, *low]),
                }
                rest = after;
            }
            (byte, _) if is_plain(*byte) => out.push(*byte),
            (byte, _) => push_escaped(out, *byte),
        }
    }
}

/// Characters of a segment that need no escape and mean nothing special.
const fn is_plain(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
        | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

fn push_escaped(out: &mut Vec<u8>, byte: u8) {
    let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
    out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
}

#[cfg(test)]
#[path = "tests/path.rs"]
mod tests;
