//! The house rules. Each takes files and answers with what is wrong, one line per finding, so that
//! a rule can be shown a bad file as easily as the repository.

use super::scan::{
    File, code_only, crate_paths, functions, line_of, product_lines, without_tests, words,
};

/// Layers of `src/`, lowest first. A file imports only from its own and lower ones.
pub const LAYERS: [&str; 6] = ["wire", "policy", "telemetry", "config", "worker", "control"];

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

/// What a ratchet lists: a path (functions: `path::name`) and its size, which may only shrink.
pub type Exceeding<'a> = &'a [(&'a str, usize)];

/// Parts of names that say nothing about what is named.
const VAGUE: [&str; 8] =
    ["util", "utils", "common", "manager", "managers", "helper", "helpers", "misc"];

/// Words that praise, pad or postpone, and second names for things that have one. Compared in lower
/// case as whole words. What comes after the colon is said to whoever wrote it.
const BANNED: [(&str, &str); 19] = [
    ("todo", "do it, or open an issue"),
    ("fixme", "do it, or open an issue"),
    ("xxx", "do it, or open an issue"),
    ("hack", "say what it does and why"),
    ("blazing", "give a figure"),
    ("blazingly", "give a figure"),
    ("lightning-fast", "give a figure"),
    ("seamless", "say what happens"),
    ("seamlessly", "say what happens"),
    ("leverage", "use"),
    ("utilise", "use"),
    ("utilize", "use"),
    ("robust", "say against what"),
    ("world-class", "leave it out"),
    ("cutting-edge", "leave it out"),
    ("state-of-the-art", "leave it out"),
    ("simply", "leave it out"),
    ("obviously", "leave it out"),
    ("backend", "say upstream or endpoint"),
];

/// `src/worker/pool.rs` is module `worker::pool`.
fn module_of(path: &str) -> Vec<&str> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    inner.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main")).collect()
}

/// Test code has its own file or its own folder, besides `#[cfg(test)]` items.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/")
}

fn tested_code(file: &File) -> String {
    without_tests(&code_only(&file.text))
}

fn product(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|f| f.path.ends_with(".rs") && !is_test_file(&f.path))
}

pub fn layers(files: &[File]) -> Vec<String> {
    let rank = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let mut wrong = Vec::new();
    for file in product(files) {
        let module = module_of(&file.path);
        let Some(own) = module.first().and_then(|name| rank(name)) else { continue };
        for (line, used) in crate_paths(&tested_code(file), &module) {
            if rank(&used).is_some_and(|other| other > own) {
                let at = format!("{}:{line}", file.path);
                wrong.push(format!("{at}: {} may not use {used}, a higher layer", LAYERS[own]));
            }
        }
    }
    wrong
}

/// A folder or file directly under `src/` that is no layer would escape the layer rule.
pub fn only_layers(files: &[File]) -> Vec<String> {
    let known = |path: &str| {
        let module = module_of(path);
        module.first().is_none_or(|top| LAYERS.contains(top))
    };
    let stray = product(files).filter(|f| f.path.starts_with("src/") && !known(&f.path));
    stray.map(|f| format!("{}: belongs to no layer", f.path)).collect()
}

pub fn opening(files: &[File]) -> Vec<String> {
    let mute = product(files).filter(|f| !f.text.starts_with("//!"));
    mute.map(|f| format!("{}: does not open with `//!`: say what it owns", f.path)).collect()
}

pub fn function_lengths(files: &[File], listed: Exceeding<'_>) -> Vec<String> {
    let mut sizes = Vec::new();
    for file in product(files) {
        for function in functions(&tested_code(file)) {
            sizes.push((format!("{}::{}", file.path, function.name), function.lines));
        }
    }
    ratchet(&sizes, FUNCTION_LINES_MAX, listed)
}

pub fn file_lengths(files: &[File], listed: Exceeding<'_>) -> Vec<String> {
    let size = |file: &File| (file.path.clone(), product_lines(&file.text));
    ratchet(&product(files).map(size).collect::<Vec<_>>(), FILE_LINES_MAX, listed)
}

/// Nothing exceeds `max` but what is listed, and that may only shrink: a size below the listed one
/// must be written down, and an entry that is no longer needed must go.
fn ratchet(sizes: &[(String, usize)], max: usize, listed: Exceeding<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, lines) in sizes {
        let allowed = listed.iter().find(|(n, _)| n == name).map_or(max, |(_, size)| *size);
        if *lines > allowed {
            wrong.push(format!("{name}: {lines} lines, at most {allowed} allowed"));
        }
    }
    for (name, listed_size) in listed {
        let now = sizes.iter().filter(|(n, _)| n == name).map(|(_, size)| *size).max();
        match now.unwrap_or(0) {
            size if size <= max => wrong.push(format!("{name}: take it off the list")),
            size if size < *listed_size => {
                wrong.push(format!("{name}: shrank to {size}: write that down"));
            }
            _ => {}
        }
    }
    wrong
}

pub fn names(files: &[File]) -> Vec<String> {
    const DECLARES: [&str; 8] = ["mod", "struct", "enum", "trait", "fn", "type", "const", "static"];
    let mut wrong = Vec::new();
    for file in product(files) {
        let code = tested_code(file);
        let mut before = "";
        for (at, word) in words(&code) {
            if DECLARES.contains(&before) && parts(word).any(|p| VAGUE.contains(&p.as_str())) {
                let at = format!("{}:{}", file.path, line_of(&code, at));
                wrong.push(format!("{at}: `{word}` does not say what it is"));
            }
            before = word;
        }
        let vague = module_of(&file.path).iter().any(|m| parts(m).any(|p| VAGUE.contains(&&*p)));
        if vague {
            wrong.push(format!("{}: the file's name does not say what it owns", file.path));
        }
    }
    wrong
}

/// `read_head` → read, head; `ReadHead` → read, head; `READ_HEAD` → read, head.
fn parts(name: &str) -> impl Iterator<Item = String> {
    let all_upper = !name.bytes().any(|b| b.is_ascii_lowercase());
    let mut spaced = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !all_upper {
            spaced.push('_');
        }
        spaced.push(c.to_ascii_lowercase());
    }
    spaced.split('_').map(str::to_owned).collect::<Vec<_>>().into_iter()
}

pub fn macros(files: &[File]) -> Vec<String> {
    const NEVER: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];
    const PRINTING: [&str; 4] = ["println!", "print!", "eprintln!", "eprint!"];
    let mut wrong = Vec::new();
    for file in product(files) {
        let code = tested_code(file);
        // Standard output belongs to the command line; a worker that prints blocks on it.
        let prints = ["src/control/", "src/main.rs", "loadtest/"];
        let may_print = prints.iter().any(|p| file.path.starts_with(p));
        for (at, word) in words(&code) {
            let called = code[at..].get(..=word.len()).unwrap_or("");
            if NEVER.contains(&called) || (PRINTING.contains(&called) && !may_print) {
                wrong.push(format!("{}:{}: {called}", file.path, line_of(&code, at)));
            }
        }
    }
    wrong
}

/// `unsafe` only in the listed files, and each listed file still needs it. In the gateway they are
/// the worker's.
pub fn unsafe_code(files: &[File], listed: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let may_be_listed =
        |path: &str| ["src/worker/", "loadtest/"].iter().any(|p| path.starts_with(p));
    for path in listed.iter().filter(|path| !may_be_listed(path)) {
        wrong.push(format!("{path}: of src/, only files of src/worker/ may be listed"));
    }
    let mut used = Vec::new();
    for file in product(files) {
        let code = tested_code(file);
        let Some((at, _)) = words(&code).find(|(_, word)| *word == "unsafe") else { continue };
        used.push(file.path.as_str());
        if !listed.contains(&file.path.as_str()) {
            wrong.push(format!("{}:{}: unsafe", file.path, line_of(&code, at)));
        }
    }
    let idle = listed.iter().filter(|path| !used.contains(*path));
    wrong.extend(idle.map(|path| format!("{path}: has no unsafe: take it off the list")));
    wrong
}

/// Comments and documents: no banned word, no pictogram.
pub fn wording(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files {
        // Of Rust files only what is not code: identifiers are for `names`.
        let prose =
            if file.path.ends_with(".rs") { prose_of(&file.text) } else { file.text.clone() };
        for (number, line) in prose.lines().enumerate() {
            let at = format!("{}:{}", file.path, number + 1);
            // What stands in backquotes is quoted, not said.
            let said: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
            let lower = said.to_lowercase();
            let inside = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
            for word in lower.split(|c: char| !inside(c)) {
                if let Some((_, instead)) = BANNED.iter().find(|(banned, _)| *banned == word) {
                    wrong.push(format!("{at}: `{word}`: {instead}"));
                }
            }
            if line.chars().any(is_pictogram) {
                wrong.push(format!("{at}: pictogram"));
            }
        }
    }
    wrong
}

/// The source with its code blanked out: comments and strings remain.
fn prose_of(source: &str) -> String {
    let code = code_only(source);
    let keep = |(s, c): (u8, u8)| if c == b' ' || s == b'\n' { s } else { b' ' };
    let bytes = source.bytes().zip(code.bytes()).map(keep).collect();
    String::from_utf8(bytes).expect("whole literals and comments are kept or replaced by ASCII")
}

fn is_pictogram(c: char) -> bool {
    matches!(u32::from(c), 0x2600..=0x27BF | 0xFE0F | 0x1F000..=0x1FAFF)
}

/// Tabs, trailing spaces, CRLF, missing final line end; comment lines wider than a screen.
pub fn layout(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files {
        for (number, line) in file.text.split('\n').enumerate() {
            let at = format!("{}:{}", file.path, number + 1);
            if line.contains('\t') {
                wrong.push(format!("{at}: tab"));
            }
            if line.ends_with([' ', '\r']) {
                wrong.push(format!("{at}: space or CR at the end of the line"));
            }
            let comment = file.path.ends_with(".rs") && line.trim_start().starts_with("//");
            if comment && line.chars().count() > COLUMNS_MAX {
                wrong.push(format!("{at}: comment wider than {COLUMNS_MAX} columns"));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            wrong.push(format!("{}: no line end at the end", file.path));
        }
    }
    wrong
}

/// Files that documents name must exist: `config/*.toml`, `scripts/*`, `docs/*`.
pub fn named_files(documents: &[File], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in documents {
        for (number, line) in file.text.lines().enumerate() {
            for path in paths_named(line).filter(|path| !exists(path)) {
                wrong.push(format!("{}:{}: {path} does not exist", file.path, number + 1));
            }
        }
    }
    wrong
}

fn paths_named(line: &str) -> impl Iterator<Item = &str> {
    let in_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let pieces = line.split(move |c: char| !in_path(c) && c != '*');
    pieces.map(|piece| piece.trim_end_matches('.')).filter(|piece| {
        let folder = ["config/", "scripts/", "docs/", "src/", "tests/", "benches/"];
        let named = folder.iter().any(|f| piece.starts_with(f) && piece.len() > f.len());
        named && !piece.contains('*')
    })
}

/// Every reason that `reasons!` declares is given by some code: the reference lists nothing that
/// cannot happen.
pub fn unused_reasons(files: &[File]) -> Vec<String> {
    let codes: Vec<String> = product(files).map(tested_code).collect();
    let uses = |name: &str| -> usize {
        codes.iter().map(|code| words(code).filter(|(_, word)| *word == name).count()).sum()
    };
    let mut wrong = Vec::new();
    for (file, code) in product(files).zip(&codes) {
        let Some(start) = code.find("reasons! {") else { continue };
        // A declaration is `NAME = "token", ...;`, its literals blanked out here.
        let end = code[start..].find('}').map_or(code.len(), |n| start + n);
        let body = code[start..end].split_once(';').map_or("", |(_, body)| body);
        let names = body.split(';').filter_map(|entry| entry.split_once('='));
        let idle = names.map(|(name, _)| name.trim()).filter(|name| uses(name) < 2);
        wrong.extend(idle.map(|name| format!("{}: nothing answers with {name}", file.path)));
    }
    wrong
}

/// What a document tells the reader to type: lines of its ```sh and ```console blocks, without
/// prompt and comment.
pub fn commands(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside && (line.contains("```sh") || line.contains("```console"));
            continue;
        }
        let command = line.trim().trim_start_matches("$ ");
        let command = command.split(" # ").next().unwrap_or("").trim();
        if inside && !command.is_empty() && !command.starts_with('#') {
            found.push(command.to_string());
        }
    }
    found
}
