//! Reads Rust source just well enough for the house rules: comments and literals blanked out, test
//! code blanked out, functions found by their braces. Not a parser; `rustc` has judged the syntax.

/// A file of the repository, by its path from the root with `/` between the parts.
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    pub fn new(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }
}

/// `source` with comments, strings and character literals replaced by spaces. Line ends stay, so
/// that positions and line numbers are those of the source.
pub fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => end_of_block_comment(bytes, at),
            b'"' => end_of_string(bytes, at),
            b'r' if starts_word(bytes, at) => end_of_raw_string(bytes, at, 1),
            b'b' if starts_word(bytes, at) && bytes[at..].starts_with(b"br") => {
                end_of_raw_string(bytes, at, 2)
            }
            b'\'' => end_of_char(bytes, at),
            _ => at,
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("only whole literals and comments were replaced, by ASCII")
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].windows(what.len()).position(|w| w == what).map_or(bytes.len(), |at| from + at)
}

fn starts_word(bytes: &[u8], at: usize) -> bool {
    at == 0 || !is_word(bytes[at - 1])
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn end_of_block_comment(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The end of `r"..."` or `r#"..."#`, or `start` when this is no raw string (`r#type`, `rest`).
fn end_of_raw_string(bytes: &[u8], start: usize, prefix: usize) -> usize {
    let hashes = bytes[start + prefix..].iter().take_while(|b| **b == b'#').count();
    let quote = start + prefix + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return start;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    (find(bytes, quote + 1, &close) + close.len()).min(bytes.len())
}

/// The end of `'x'` or `'\n'`, or `start` when this is a lifetime.
fn end_of_char(bytes: &[u8], start: usize) -> usize {
    if bytes.get(start + 1) == Some(&b'\\') {
        return (find(bytes, start + 3, b"'") + 1).min(bytes.len());
    }
    // One character of up to four bytes, then the closing quote.
    let text = std::str::from_utf8(&bytes[start + 1..]).unwrap_or("");
    match text.chars().next() {
        Some(c) if text[c.len_utf8()..].starts_with('\'') => start + c.len_utf8() + 2,
        _ => start,
    }
}

const TEST_MARK: &str = "#[cfg(test)]";

/// `code` (see [`code_only`]) without items marked `#[cfg(test)]`.
pub fn without_tests(code: &str) -> String {
    let mut out = code.to_string();
    let mut from = 0;
    while let Some(found) = out[from..].find(TEST_MARK) {
        let start = from + found;
        let end = end_of_item(out.as_bytes(), start + TEST_MARK.len());
        let blank: String =
            out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        from = start + blank.len();
        out = [&out[..start], &blank, &out[end..]].concat();
    }
    out
}

/// Lines of `source` that belong to no `#[cfg(test)]` item.
pub fn product_lines(source: &str) -> usize {
    let code = code_only(source);
    let (mut lines, mut from) = (source.lines().count(), 0);
    while let Some(found) = code[from..].find(TEST_MARK) {
        let start = from + found;
        from = end_of_item(code.as_bytes(), start + TEST_MARK.len());
        lines -= line_of(&code, from) - line_of(&code, start) + 1;
    }
    lines
}

/// Just past the item starting at `at`: its closing brace, or its `;` when that comes first.
fn end_of_item(code: &[u8], at: usize) -> usize {
    match code[at..].iter().position(|b| matches!(b, b'{' | b';')) {
        None => code.len(),
        Some(n) if code[at + n] == b';' => at + n + 1,
        Some(n) => closing_brace(code, at + n) + 1,
    }
}

/// The position of the brace that closes the one at `open`.
fn closing_brace(code: &[u8], open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len() - 1
}

/// A function and how many lines it takes, from `fn` to its closing brace.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// Every function with a body in `code`.
pub fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, word) in words(code) {
        let name = code[at + word.len()..].trim_start();
        let name: &str = &name[..name.bytes().take_while(|b| is_word(*b)).count()];
        if word != "fn" || name.is_empty() {
            continue;
        }
        // A `;` in an array type of the signature is inside brackets; one outside ends a
        // declaration without a body.
        let mut brackets = 0;
        let body = (at..bytes.len()).find(|&i| {
            match bytes[i] {
                b'[' | b'(' => brackets += 1,
                b']' | b')' => brackets -= 1,
                _ => {}
            }
            brackets == 0 && matches!(bytes[i], b'{' | b';')
        });
        if let Some(open) = body.filter(|&i| bytes[i] == b'{') {
            let line = line_of(code, at);
            let lines = line_of(code, closing_brace(bytes, open)) - line + 1;
            found.push(Function { name: name.into(), line, lines });
        }
    }
    found
}

/// Line number, from 1, of a position.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1
}

/// Identifiers, keywords and numbers with their positions.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = code.as_bytes();
    (0..bytes.len()).filter(|&at| is_word(bytes[at]) && starts_word(bytes, at)).map(move |at| {
        let len = bytes[at..].iter().take_while(|b| is_word(**b)).count();
        (at, &code[at..at + len])
    })
}

/// Every path in `code` that begins with `crate`, `super` or the library's name, as its segments
/// up to and including the first one below the crate's root, with the line it is on. `module` is
/// the path of the file's own module: `["worker", "pool"]`.
pub fn crate_paths(code: &str, module: &[&str]) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let after_colons = at > 0 && tokens[at - 1].1 == "::";
        let start: Option<Vec<&str>> = match tokens[at].1 {
            "crate" | "ringway" if !after_colons => Some(Vec::new()),
            "super" if !after_colons => Some(module[..module.len().saturating_sub(1)].to_vec()),
            _ => None,
        };
        at = match start.filter(|_| tokens.get(at + 1).is_some_and(|t| t.1 == "::")) {
            Some(base) => path_tree(&tokens, at + 2, base, &mut found).max(at + 1),
            None => at + 1,
        };
    }
    found.into_iter().map(|(at, name)| (line_of(code, at), name)).collect()
}

type Token<'a> = (usize, &'a str);

/// Words, `::` and single other characters.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found: Vec<Token<'_>> = words(code).collect();
    let bytes = code.as_bytes();
    for at in 0..bytes.len() {
        if bytes[at..].starts_with(b"::") {
            found.push((at, "::"));
        } else if matches!(bytes[at], b'{' | b'}' | b',' | b'*') {
            found.push((at, &code[at..at + 1]));
        }
    }
    found.sort_unstable();
    found
}

/// Follows one path, or a `{...}` group of them, and records the name just below the root. Answers
/// with the index after it.
fn path_tree<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    mut base: Vec<&'a str>,
    found: &mut Vec<(usize, String)>,
) -> usize {
    let Some(&(position, token)) = tokens.get(at) else { return at };
    match token {
        "{" => {
            at += 1;
            while tokens.get(at).is_some_and(|t| t.1 != "}") {
                let next = path_tree(tokens, at, base.clone(), found);
                at = next.max(at + 1);
            }
            at + 1
        }
        "super" => {
            base.pop();
            let more = tokens.get(at + 1).is_some_and(|t| t.1 == "::");
            if more { path_tree(tokens, at + 2, base, found) } else { at + 1 }
        }
        "self" | "}" | "," => at + 1,
        name => {
            let top = base.first().copied().unwrap_or(name);
            found.push((position, top.to_string()));
            skip_path(tokens, at)
        }
    }
}

/// The index after `a::b::{c, d}`, starting at `a`: what lies deeper does not change the layer.
fn skip_path(tokens: &[Token<'_>], mut at: usize) -> usize {
    at += 1;
    while tokens.get(at).is_some_and(|t| t.1 == "::") {
        at += 1;
        if tokens.get(at).is_some_and(|t| t.1 == "{") {
            let mut depth = 0;
            while at < tokens.len() {
                match tokens[at].1 {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break;
                }
            }
        } else {
            at += 1;
        }
    }
    at
}
