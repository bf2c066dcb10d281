//! Checks host and path patterns and brings them into the form requests are compared in.
//!
//! A literal part of a pattern ends up byte for byte as `wire::path` leaves the same text of a
//! request: unreserved characters decoded, other escapes in upper case, anything that cannot stand
//! in a path escaped. A pattern that no normalised path can equal is refused, with what to write
//! instead, because a deny rule that silently never matches is worse than an error.

use std::cmp::Reverse;

use regex::bytes::Regex;

use super::{PARAMS_MAX, PathKind, PathPattern};
use crate::wire::path::push_matched;

/// Most segments of a template or prefix; bounds the depth of every walk.
pub const SEGMENTS_MAX: usize = 64;

/// Longest host name (RFC 1035 §2.3.4, without the final dot).
pub(super) const HOST_BYTES_MAX: usize = 253;

/// A checked path pattern.
#[derive(Clone, Debug)]
pub(super) enum CheckedPath {
    Any,
    Exact(Box<[u8]>),
    /// Without trailing slash, so `/` is empty.
    Prefix(Box<[u8]>),
    Template(Vec<Segment>),
    /// Anchored at both ends, whatever the configuration's expression does.
    Regex(Regex),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(Box<[u8]>),
    /// One segment that is not empty.
    Param(String),
    /// All that is left, at least one byte.
    Rest(String),
}

/// Where a path pattern stands among those of one host: less is tried earlier. Equal ranks match
/// exactly the same paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathRank {
    Exact(Box<[u8]>),
    /// Number of literal segments, the kinds from left to right, and the text without names.
    Template(Reverse<usize>, Vec<u8>, Vec<u8>),
    /// The first rule (of this host) with this expression.
    Regex(usize),
    Prefix(Reverse<usize>, Box<[u8]>),
    Any,
}

impl CheckedPath {
    pub(super) fn check(pattern: &PathPattern) -> Result<CheckedPath, String> {
        Ok(match pattern {
            PathPattern::Any => CheckedPath::Any,
            PathPattern::Exact(text) => CheckedPath::Exact(whole_literal(text)?.into()),
            PathPattern::Prefix(text) => {
                let path = whole_literal(text)?;
                let path = path.strip_suffix(b"/").unwrap_or(&path);
                bounded(path.iter().filter(|b| **b == b'/').count())?;
                CheckedPath::Prefix(path.into())
            }
            PathPattern::Template(text) => CheckedPath::Template(template(text)?),
            PathPattern::Regex(regex) => CheckedPath::Regex(path_regex(regex)?),
        })
    }

    /// `regex_rank` is the first rule of the host with the same expression.
    pub(super) fn rank(&self, regex_rank: usize) -> PathRank {
        match self {
            CheckedPath::Any => PathRank::Any,
            CheckedPath::Exact(path) => PathRank::Exact(path.clone()),
            CheckedPath::Prefix(path) => PathRank::Prefix(Reverse(path.len()), path.clone()),
            CheckedPath::Regex(_) => PathRank::Regex(regex_rank),
            CheckedPath::Template(segments) => {
                let literals = segments.iter().filter(|s| matches!(s, Segment::Literal(_))).count();
                let kinds = segments.iter().map(Segment::kind).collect();
                let mut text = Vec::new();
                for segment in segments {
                    text.push(b'/');
                    match segment {
                        Segment::Literal(bytes) => text.extend_from_slice(bytes),
                        Segment::Param(_) => text.extend_from_slice(b"{}"),
                        Segment::Rest(_) => text.extend_from_slice(b"{*}"),
                    }
                }
                PathRank::Template(Reverse(literals), kinds, text)
            }
        }
    }

    pub(super) fn kind(&self) -> PathKind {
        match self {
            CheckedPath::Any => PathKind::Any,
            CheckedPath::Exact(_) => PathKind::Exact,
            CheckedPath::Prefix(_) => PathKind::Prefix,
            CheckedPath::Template(_) => PathKind::Template,
            CheckedPath::Regex(_) => PathKind::Regex,
        }
    }

    /// Names of what it captures, in order; an unnamed group of a regex is called by its number.
    pub(super) fn param_names(&self) -> Vec<String> {
        match self {
            CheckedPath::Template(segments) => segments
                .iter()
                .filter_map(|segment| match segment {
                    Segment::Param(name) | Segment::Rest(name) => Some(name.clone()),
                    Segment::Literal(_) => None,
                })
                .collect(),
            CheckedPath::Regex(regex) => regex
                .capture_names()
                .enumerate()
                .skip(1)
                .map(|(i, name)| name.map_or_else(|| i.to_string(), str::to_owned))
                .collect(),
            _ => Vec::new(),
        }
    }
}

impl Segment {
    fn kind(&self) -> u8 {
        match self {
            Segment::Literal(_) => 0,
            Segment::Param(_) => 1,
            Segment::Rest(_) => 2,
        }
    }
}

/// `\A(?:…)\z` around an expression, so that it speaks about the whole text.
pub(super) fn anchored(regex: &Regex) -> Result<Regex, String> {
    let text = regex.as_str();
    // With (?x) a trailing comment would swallow the parenthesis: then a line end helps.
    Regex::new(&format!(r"\A(?:{text})\z"))
        .or_else(|_| Regex::new(&format!("\\A(?:{text}\n)\\z")))
        .map_err(|error| format!("the regular expression cannot be anchored: {error}"))
}

fn path_regex(regex: &Regex) -> Result<Regex, String> {
    let groups = regex.captures_len() - 1;
    if groups > PARAMS_MAX {
        return Err(format!(
            "the expression has {groups} groups, at most {PARAMS_MAX} are kept; write (?:...) for \
             groups that need not be captured"
        ));
    }
    anchored(regex)
}

fn whole_literal(text: &str) -> Result<Vec<u8>, String> {
    if text.contains(['{', '}']) {
        return Err(format!(
            "`{text}` has braces, which only a template may have; write the path as a template, or \
             `%7B` and `%7D` for the characters themselves"
        ));
    }
    let mut path = Vec::with_capacity(text.len());
    let segments = segments_of(text)?;
    for segment in segments {
        path.push(b'/');
        path.extend_from_slice(&literal(segment)?);
    }
    Ok(path)
}

fn template(text: &str) -> Result<Vec<Segment>, String> {
    let mut segments = Vec::new();
    for part in segments_of(text)? {
        if matches!(segments.last(), Some(Segment::Rest(_))) {
            return Err(format!("in `{text}` a `{{*name}}` is followed by more; it must be last"));
        }
        segments.push(segment(text, part)?);
    }
    bounded(segments.len())?;
    let mut names: Vec<&str> = Vec::new();
    for segment in &segments {
        let (Segment::Param(name) | Segment::Rest(name)) = segment else { continue };
        if names.contains(&name.as_str()) {
            return Err(format!("`{text}` has two parameters named `{name}`; rename one"));
        }
        names.push(name);
    }
    if names.len() > PARAMS_MAX {
        let count = names.len();
        return Err(format!("`{text}` has {count} parameters, at most {PARAMS_MAX} are kept"));
    }
    Ok(segments)
}

fn segment(text: &str, part: &str) -> Result<Segment, String> {
    let Some(name) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) else {
        if part.matches('{').count() != part.matches('}').count() {
            return Err(format!(
                "`{text}` has unbalanced braces in `{part}`; write `{{name}}`, or `%7B` and `%7D` \
                 for the characters themselves"
            ));
        }
        if part.contains('{') {
            return Err(format!(
                "in `{part}` a parameter is only part of a segment; a parameter takes a whole \
                 segment (`/{{name}}/`), use a regex for less"
            ));
        }
        return literal(part).map(|bytes| Segment::Literal(bytes.into()));
    };
    let (rest, name) = name.strip_prefix('*').map_or((false, name), |n| (true, n));
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !named {
        return Err(format!(
            "`{part}` is not a parameter; write a name of letters, digits and `_` that does not \
             begin with a digit, such as `{{id}}`"
        ));
    }
    let name = name.to_owned();
    Ok(if rest { Segment::Rest(name) } else { Segment::Param(name) })
}

fn bounded(segments: usize) -> Result<(), String> {
    if segments > SEGMENTS_MAX {
        return Err(format!(
            "the path has {segments} segments, at most {SEGMENTS_MAX} are allowed"
        ));
    }
    Ok(())
}

/// The segments of a pattern, with all that is wrong about the whole path found.
fn segments_of(text: &str) -> Result<std::str::Split<'_, char>, String> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(format!("`{text}` does not begin with `/`; write `/{text}`"));
    };
    if text.contains("//") {
        let mut mended = text.to_owned();
        while mended.contains("//") {
            mended = mended.replace("//", "/");
        }
        return Err(format!(
            "`{text}` has an empty segment, which requests lose before matching; write `{mended}`"
        ));
    }
    if let Some(at) = text.find(['?', '#']) {
        return Err(format!(
            "`{text}` has a `{}`, which ends a path; match the query with `query`",
            &text[at..=at]
        ));
    }
    Ok(rest.split('/'))
}

/// One segment's text as a normalised request has it.
fn literal(segment: &str) -> Result<Vec<u8>, String> {
    let path = normalised(segment)?;
    if path == b"." || path == b".." {
        return Err(format!(
            "`{segment}` is a dot segment, which requests lose before matching; leave it out"
        ));
    }
    let mut matched = Vec::with_capacity(path.len());
    push_matched(&mut matched, &path);
    Ok(matched)
}

/// Text as `wire::path` leaves it: also used for the literal parts of rewrites.
pub(in crate::policy) fn normalised(text: &str) -> Result<Vec<u8>, String> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (byte, escaped) = if bytes[at] == b'%' {
            let pair = bytes.get(at + 1..at + 3).and_then(|pair| hex_pair(pair[0], pair[1]));
            let byte = pair.ok_or_else(|| {
                format!("`{text}` has a `%` without two hexadecimal digits; write `%25`")
            })?;
            at += 3;
            (byte, true)
        } else {
            at += 1;
            (bytes[at - 1], false)
        };
        refuse_byte(text, byte, escaped)?;
        let target_byte = byte.is_ascii_graphic() && !b"\"<>".contains(&byte);
        let plain = is_unreserved(byte) || (!escaped && target_byte);
        if plain {
            out.push(byte);
        } else {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(&[b'%', digits[0], digits[1]]);
        }
    }
    Ok(out)
}

fn refuse_byte(text: &str, byte: u8, escaped: bool) -> Result<(), String> {
    let why = match byte {
        b'/' if escaped => "an encoded slash (`%2F`), which requests may not have; write `/`",
        b'\\' => "a backslash, which requests may not have; write `/`",
        b';' if !escaped => {
            "path parameters (`;`), which requests lose before matching; leave them out"
        }
        0..=31 | 127 => "a control character, which requests may not have",
        _ => return Ok(()),
    };
    Err(format!("`{text}` has {why}"))
}

pub(in crate::policy) fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    Some(digit(high)? << 4 | digit(low)?)
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// A checked host pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum CheckedHost {
    Exact(Box<[u8]>),
    /// The part after `*.`.
    Below(Box<[u8]>),
    Any,
}

impl CheckedHost {
    pub(super) fn check(text: &str) -> Result<CheckedHost, String> {
        if text == "*" {
            return Err("`*` is every host; leave `hosts` out instead".to_owned());
        }
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |n| (true, n));
        if let Some(why) = host_fault(name) {
            return Err(format!("`{text}` {why}"));
        }
        let name = Box::from(name.as_bytes());
        Ok(if below { CheckedHost::Below(name) } else { CheckedHost::Exact(name) })
    }
}

fn host_fault(name: &str) -> Option<String> {
    if let Some(literal) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        let valid = literal.parse::<std::net::Ipv6Addr>().is_ok();
        return (!valid).then(|| "is not an IPv6 address in brackets".to_owned());
    }
    if name.contains('/') {
        return Some("is a URL; write only its host".to_owned());
    }
    if name.contains('*') {
        return Some("has a `*` that is not the whole first label; write `*.example.com`".into());
    }
    if let Some((host, _)) = name.rsplit_once(':') {
        return Some(format!("has a port, which hosts are compared without; write `{host}`"));
    }
    if !name.is_ascii() {
        return Some("is not ASCII; write its `xn--` form".to_owned());
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some(format!("has upper case; write `{}`", name.to_ascii_lowercase()));
    }
    if let Some(host) = name.strip_suffix('.') {
        return Some(format!("ends in a dot; write `{host}`"));
    }
    if name.len() > HOST_BYTES_MAX {
        return Some(format!("is longer than {HOST_BYTES_MAX} bytes"));
    }
    let label = |l: &str| {
        !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (!name.split('.').all(label)).then(|| "is not a host name; write `api.example.com`".to_owned())
}
