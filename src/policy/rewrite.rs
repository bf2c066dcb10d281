//! How the forwarded request target and Host differ from what the client sent.
//!
//! Prefixes are cut from the path as it is forwarded, so `;parameters` of what remains survive;
//! templates are filled from the path routes match on, which has none.
//!
//! The result is as normal as what went in: it begins with `/`, has no `//` at a joint, no `?` or
//! `#`, only whole escapes, and no dot segment. A captured value cannot change that: `?`, `#`,
//! spaces and control bytes in it are escaped, and if text and values together make a dot segment
//! (`/{1}` filled with the `..` of `/x..`), the request is refused rather than guessed at.

use super::{
    refusal::REWRITE_UNSAFE,
    route::{self, RouteMatch},
};
use crate::wire::Reason;

/// Compiled from a route; applied to the normalised path.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    pub path: PathRewrite,
    /// Replaces the Host field; `None` forwards the client's.
    pub host: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathRewrite {
    /// Forward the normalised path.
    #[default]
    Keep,
    /// Remove the matched prefix; what remains begins with `/`.
    StripPrefix,
    /// Replace the matched prefix. Made by [`PathRewrite::replace_prefix`].
    ReplacePrefix(String),
    /// Literal text and captured parameters. Made by [`PathRewrite::compile`].
    Template(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// Index into `RouteMatch::params`.
    Param(u8),
}

impl PathRewrite {
    /// A template such as `/v2/{id}`: `{name}` stands for the parameter with that name among
    /// `names`, `{1}` for the first. The message of an error says what to write instead.
    pub fn compile(template: &str, names: &[String]) -> Result<PathRewrite, String> {
        let mut pieces = Vec::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            let (text, tail) = rest.split_at(at);
            let end = tail.find('}').filter(|_| tail.starts_with('{')).ok_or_else(|| {
                format!("`{template}` has unbalanced braces; write `{{name}}`, or `%7B` and `%7D`")
            })?;
            push_text(&mut pieces, text)?;
            pieces.push(Piece::Param(param(&tail[1..end], names)?));
            rest = &tail[end + 1..];
        }
        push_text(&mut pieces, rest)?;
        match pieces.first() {
            Some(Piece::Text(text)) if text.starts_with('/') => {}
            _ => return Err(format!("`{template}` does not begin with `/`; write `/{template}`")),
        }
        // A parameter counts as text here: whether it makes a dot segment is seen when it is known.
        let skeleton = pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Param(_) => "_",
        });
        let skeleton: String = skeleton.collect();
        whole_path(&skeleton).map_err(|fault| format!("`{template}` {fault}"))?;
        Ok(PathRewrite::Template(pieces))
    }

    /// `prefix` instead of the matched one; `/` is the same as stripping it.
    pub fn replace_prefix(prefix: &str) -> Result<PathRewrite, String> {
        let text = literal(prefix)?;
        if !text.starts_with('/') {
            return Err(format!("`{prefix}` does not begin with `/`; write `/{prefix}`"));
        }
        whole_path(&text).map_err(|fault| format!("`{prefix}` {fault}"))?;
        Ok(match text.strip_suffix('/').unwrap_or(&text) {
            "" => PathRewrite::StripPrefix,
            text => PathRewrite::ReplacePrefix(text.to_owned()),
        })
    }

    /// Appends the new path to `out`. `matched_path` is what `matched` was found with,
    /// `forward_path` the same path in the form to forward. Refused when the result would have a
    /// dot segment; `out` is then as it was.
    pub fn apply(
        &self,
        forward_path: &[u8],
        matched: &RouteMatch,
        matched_path: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), &'static Reason> {
        let start = out.len();
        let prefix = &matched_path[..matched.prefix_len as usize];
        match self {
            PathRewrite::Keep => out.extend_from_slice(forward_path),
            PathRewrite::StripPrefix => {
                push_joined(out, start, after_prefix(forward_path, prefix));
            }
            PathRewrite::ReplacePrefix(text) => {
                push_joined(out, start, text.as_bytes());
                push_joined(out, start, after_prefix(forward_path, prefix));
            }
            PathRewrite::Template(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => push_joined(out, start, text.as_bytes()),
                        Piece::Param(i) => {
                            let value = matched.params[usize::from(*i)].of(matched_path);
                            push_value(out, start, value);
                        }
                    }
                }
                if has_dot_segment(&out[start..]) {
                    out.truncate(start);
                    return Err(REWRITE_UNSAFE);
                }
            }
        }
        if out.get(start) != Some(&b'/') {
            out.insert(start, b'/');
        }
        Ok(())
    }
}

fn param(name: &str, names: &[String]) -> Result<u8, String> {
    let by_number = name.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
    let index = match by_number {
        Some(index) if index < names.len() => Some(index),
        _ => names.iter().position(|known| known == name),
    };
    if let Some(index) = index {
        return Ok(index as u8);
    }
    if names.is_empty() {
        return Err(format!("`{{{name}}}` is not known; the route's path has no parameters"));
    }
    let known: Vec<String> = names.iter().map(|n| format!("`{{{n}}}`")).collect();
    Err(format!("`{{{name}}}` is not known; the route's path has {}", known.join(", ")))
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) -> Result<(), String> {
    if !text.is_empty() {
        pieces.push(Piece::Text(literal(text)?));
    }
    Ok(())
}

fn literal(text: &str) -> Result<String, String> {
    if let Some(at) = text.find(['?', '#']) {
        return Err(format!(
            "`{text}` has a `{}`; a rewrite gives only the path, the query is kept",
            &text[at..=at]
        ));
    }
    let bytes = route::normalised(text)?;
    Ok(String::from_utf8(bytes).expect("normalised text is ASCII"))
}

fn whole_path(path: &str) -> Result<(), &'static str> {
    if path.contains("//") {
        return Err("has an empty segment (`//`); write one `/`");
    }
    if has_dot_segment(path.as_bytes()) {
        return Err("has a dot segment; write the path it leads to");
    }
    Ok(())
}

/// What of `forward` follows the segments of `prefix`. Each segment of `forward` is one of the
/// matched path with its `;parameters`; one that was parameters only has none in the matched path.
fn after_prefix<'a>(forward: &'a [u8], prefix: &[u8]) -> &'a [u8] {
    if let Some(rest) = forward.strip_prefix(prefix)
        && matches!(rest.first(), None | Some(b'/'))
    {
        return rest;
    }
    let mut rest = forward;
    let mut left = prefix.iter().filter(|b| **b == b'/').count();
    while left > 0 && !rest.is_empty() {
        let end = memchr::memchr(b'/', &rest[1..]).map_or(rest.len(), |n| n + 1);
        left -= usize::from(rest.get(1) != Some(&b';'));
        rest = &rest[end..];
    }
    rest
}

/// Appends, with only one `/` where two would meet.
fn push_joined(out: &mut Vec<u8>, start: usize, text: &[u8]) {
    let doubled = out.len() > start && out.ends_with(b"/") && text.starts_with(b"/");
    out.extend_from_slice(&text[usize::from(doubled)..]);
}

/// Appends a captured value, escaped where it could be read as anything but part of a path.
fn push_value(out: &mut Vec<u8>, start: usize, value: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for (i, &byte) in value.iter().enumerate() {
        let whole_escape = || {
            let pair = value.get(i + 1..i + 3);
            pair.is_some_and(|pair| route::hex_pair(pair[0], pair[1]).is_some())
        };
        match byte {
            b'/' => push_joined(out, start, b"/"),
            b'%' if whole_escape() => out.push(byte),
            b'%' | b'?' | b'#' | b'\\' | 0..=b' ' | 127.. => {
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(&[b'%', digits[0], digits[1]]);
            }
            _ => out.push(byte),
        }
    }
}

fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|b| *b == b'/').any(|segment| matches!(segment, b"." | b".."))
}

#[cfg(test)]
mod tests;
