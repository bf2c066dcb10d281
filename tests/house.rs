//! The house rules as ordinary tests. Each rule is first shown a bad example, so that it is known
//! to be able to fail, and then the repository.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ringway::{
    policy::refusal::POLICY_REASONS, telemetry::metrics::families, wire::Reason,
    wire::reason::WIRE_REASONS,
};

#[path = "house/rules.rs"]
mod rules;
#[path = "house/scan.rs"]
mod scan;

use scan::{File, code_only, crate_paths, functions, without_tests};

/// Functions over the limit, as `path::name` with their lines. May only shrink.
const LONG_FUNCTIONS: rules::Exceeding<'_> = &[];

/// Files over the limit, with their lines outside tests. May only shrink.
const LONG_FILES: rules::Exceeding<'_> = &[];

/// The only files with `unsafe`, each for what no safe interface offers. Every block says why it is
/// sound (`clippy::undocumented_unsafe_blocks`).
const UNSAFE_FILES: &[&str] = &[
    "loadtest/src/ring.rs",
    "src/worker/buffers.rs",
    "src/worker/deadline.rs",
    "src/worker/heap.rs",
    "src/worker/kernel_tls/socket.rs",
    "src/worker/listener.rs",
    "src/worker/net/mod.rs",
    "src/worker/net/room.rs",
    "src/worker/ring.rs",
];

/// Where reasons are declared, and what the reference lists.
const REASON_LISTS: [(&str, &[&Reason]); 2] =
    [("WIRE_REASONS", WIRE_REASONS), ("POLICY_REASONS", POLICY_REASONS)];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `place` (a file or a folder) whose name ends in one of `endings`, sorted by path.
fn files(places: &[&str], endings: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    for place in places {
        collect(&root().join(place), endings, &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(place: &Path, endings: &[&str], found: &mut Vec<File>) {
    let name = place.file_name().and_then(|name| name.to_str()).unwrap_or("");
    if place.is_dir() && !matches!(name, "target" | "corpus" | "fuzz" | "__pycache__" | ".git") {
        let entries = fs::read_dir(place).expect("a folder of the repository can be listed");
        for entry in entries {
            collect(&entry.expect("a folder's entry can be read").path(), endings, found);
        }
    } else if place.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
        let path = place.strip_prefix(root()).expect("below the root").display().to_string();
        let text = fs::read_to_string(place).expect("a text file of the repository is UTF-8");
        found.push(File { path, text });
    }
}

fn product() -> Vec<File> {
    let found = files(&["src", "loadtest/src"], &[".rs"]);
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn documents() -> Vec<File> {
    let names = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let mut found = files(&names, &[".md"]);
    assert_eq!(found.len(), names.len(), "a document is missing");
    found.extend(files(&["docs", "loadtest", "config"], &[".md"]));
    found
}

fn scripts() -> Vec<File> {
    let mut found = files(&["scripts", ".ci", "loadtest/peers"], &[""]);
    found.extend(files(&["loadtest/compare"], &[".py"]));
    found
}

#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// The rule finds `count` faults in one bad file.
#[track_caller]
fn finds(count: usize, wrong: &[String]) {
    assert_eq!(wrong.len(), count, "\n{}\n", wrong.join("\n"));
}

fn one(path: &str, text: &str) -> Vec<File> {
    vec![File::new(path, text)]
}

#[test]
fn scanner_blanks_comments_and_literals() {
    let table = [
        ("a // unsafe\nb", "a          \nb"),
        ("a /* x /* y */ z */ b", "a                     b"),
        (r#"f("a\"b{", 'x', '\'', b'{')"#, "f(                         )"),
        ("r#\"{ \" }\"# r#type", "            r#type"),
        ("&'a str '\u{e9}' <'static>", "&'a str      <'static>"),
    ];
    for (source, code) in table {
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let blanked = code_only(source);
        assert_eq!(blanked.len(), source.len(), "{source}");
        if source.contains("b'{'") {
            assert!(!blanked.contains(['{', '"', '\'']), "{blanked}");
        } else {
            assert_eq!(squeeze(&blanked), squeeze(code), "{source}");
        }
    }
}

#[test]
fn scanner_measures_functions_and_skips_tests() {
    let source = "trait T {\n fn a(&self) -> [u8; 2];\n fn b() {\n }\n}\n\
        #[cfg(test)]\nmod tests {\n fn c() {}\n}\nfn d(x: [u8; 3]) -> F<{ 1 }> {\n \"}\";\n}\n";
    let found = functions(&without_tests(&code_only(source)));
    let names: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
    assert_eq!(names[0], ("b", 3, 2));
    assert_eq!((names[1].0, names[1].1), ("d", 10));
    assert_eq!(names.len(), 2);
}

#[test]
fn scanner_follows_paths() {
    let code = "use crate::{a::{b, c}, d};\nuse super::e; use super::super::{f::g, h};\n\
        x(crate::i::j); use super::{super::k, l}; pub(crate) fn m() {} y::crate_::z;";
    let found: Vec<_> =
        crate_paths(code, &["worker", "pool"]).into_iter().map(|(_, name)| name).collect();
    assert_eq!(found, ["a", "d", "worker", "f", "h", "i", "k", "worker"]);
}

#[test]
fn layers_point_downwards() {
    finds(1, &rules::layers(&one("src/wire/a.rs", "use crate::policy::Refusal;")));
    finds(1, &rules::layers(&one("src/policy/a.rs", "use crate::{wire::X, config::{Y, Z}};")));
    finds(1, &rules::layers(&one("src/policy/route/a.rs", "use super::super::super::worker::X;")));
    finds(1, &rules::layers(&one("src/worker/mod.rs", "fn f() { crate::control::g() }")));
    finds(0, &rules::layers(&one("src/worker/a.rs", "use crate::wire; // crate::control::x\n")));
    finds(1, &rules::only_layers(&one("src/stray/a.rs", "")));
    none(&rules::layers(&product()));
    none(&rules::only_layers(&product()));
}

#[test]
fn files_open_by_saying_what_they_own() {
    finds(1, &rules::opening(&one("src/wire/a.rs", "use std::fmt;\n//! Late.")));
    none(&rules::opening(&product()));
}

#[test]
fn functions_fit_a_screen_and_files_a_sitting() {
    let long = one("src/wire/a.rs", &format!("fn f() {{\n{}}}\n", "x();\n".repeat(69)));
    let short = one("src/wire/a.rs", &format!("fn f() {{\n{}}}\n", "x();\n".repeat(68)));
    finds(1, &rules::function_lengths(&long, &[]));
    finds(0, &rules::function_lengths(&short, &[]));
    finds(0, &rules::function_lengths(&long, &[("src/wire/a.rs::f", 71)]));
    finds(1, &rules::function_lengths(&long, &[("src/wire/a.rs::f", 72)]));
    finds(1, &rules::function_lengths(&short, &[("src/wire/a.rs::f", 72)]));

    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "x();\n\n".repeat(50));
    finds(1, &rules::file_lengths(&one("src/wire/a.rs", &"x();\n".repeat(601)), &[]));
    let beside_tests = "x();\n".repeat(600) + &tests;
    finds(0, &rules::file_lengths(&one("src/wire/a.rs", &beside_tests), &[]));

    none(&rules::function_lengths(&product(), LONG_FUNCTIONS));
    none(&rules::file_lengths(&product(), LONG_FILES));
}

#[test]
fn names_say_what_they_name() {
    finds(1, &rules::names(&one("src/wire/a.rs", "struct PoolManager;")));
    finds(1, &rules::names(&one("src/wire/a.rs", "fn parse_helper() {}")));
    finds(1, &rules::names(&one("src/worker/util.rs", "")));
    finds(0, &rules::names(&one("src/wire/a.rs", "fn commonly() {} // helper\n")));
    none(&rules::names(&product()));
}

#[test]
fn no_left_over_macros() {
    finds(2, &rules::macros(&one("src/wire/a.rs", "fn f() { todo!(); println!(\"todo!()\"); }")));
    finds(1, &rules::macros(&one("src/control/a.rs", "fn f() { println!(); dbg!(1); }")));
    none(&rules::macros(&product()));
}

#[test]
fn unsafe_is_listed() {
    let bad = one("src/worker/a.rs", "fn f() { unsafe { g() } } // unsafe\n");
    finds(1, &rules::unsafe_code(&bad, &[]));
    finds(0, &rules::unsafe_code(&bad, &["src/worker/a.rs"]));
    finds(1, &rules::unsafe_code(&bad, &["src/worker/a.rs", "src/worker/b.rs"]));
    finds(2, &rules::unsafe_code(&one("src/wire/a.rs", ""), &["src/wire/a.rs"]));
    none(&rules::unsafe_code(&product(), UNSAFE_FILES));
}

/// Only the check of a configuration makes the gates of routes, from what is configured: nobody
/// else can come by a permit for a route that has rules.
#[test]
fn gates_are_made_of_a_configuration() {
    let makes = |file: &File| without_tests(&code_only(&file.text)).contains("Gate::of(");
    assert!(makes(&one("src/worker/a.rs", "fn f() { Gate::of(None) } // Gate\n")[0]));
    let makers: Vec<String> = product().into_iter().filter(makes).map(|file| file.path).collect();
    assert_eq!(makers, ["src/config/check/policies.rs"]);
}

#[test]
fn prose_is_plain() {
    finds(1, &rules::wording(&one("src/wire/a.rs", "fn robust() {} // TODO: more\n")));
    finds(2, &rules::wording(&one("a.md", "A blazing, seamless gateway.\n")));
    finds(1, &rules::wording(&one("a.md", "Do not `leverage`; `a` leverage `b`.\n")));
    finds(1, &rules::wording(&one("a.md", "Fast \u{1F680}\n")));
    let mut all = product();
    all.extend(documents());
    all.extend(files(&["config"], &[".toml"]));
    none(&rules::wording(&all));
}

#[test]
fn layout_is_clean() {
    finds(3, &rules::layout(&one("a.toml", "a\tb\nc \nd")));
    finds(1, &rules::layout(&one("a.rs", &format!("// {}\n", "x".repeat(98)))));
    let mut all = files(&["src", "tests", "loadtest", "benches"], &[".rs", ".toml"]);
    all.extend(documents());
    all.extend(scripts());
    all.extend(files(&["config", "Cargo.toml", "deny.toml"], &[".toml"]));
    none(&rules::layout(&all));
}

#[test]
fn documents_name_files_that_exist() {
    let bad = one("a.md", "See `config/gone.toml`, scripts/none and config/*.toml.\n");
    finds(2, &rules::named_files(&bad, |_| false));
    none(&rules::named_files(&documents(), |path| root().join(path).exists()));
}

/// What the README tells a reader to type is there: scripts are executable files, and the program
/// knows each subcommand.
#[test]
fn documented_commands_exist() {
    let found = rules::commands("```sh\n# why\n$ scripts/none -q # now\n```\n```toml\nx\n```\n");
    assert_eq!(found, ["scripts/none -q"]);
    assert!(!is_command("scripts/none -q"));
    assert!(!is_command("ringway no-such-command"));
    assert!(!is_command("cargo run --release -- no-such-command"));

    let missing: Vec<String> = documents()
        .iter()
        .flat_map(|file| rules::commands(&file.text).into_iter().map(|c| (file.path.clone(), c)))
        .filter(|(_, command)| !is_command(command))
        .map(|(path, command)| format!("{path}: {command}"))
        .collect();
    none(&missing);
}

fn is_command(line: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let all: Vec<&str> = line.split_whitespace().collect();
    // Settings before the command, as in `RINGWAY_BLESS=1 cargo test`.
    let words: Vec<&str> = all.into_iter().skip_while(|word| word.contains('=')).collect();
    match words.as_slice() {
        ["cargo", "run", .., "--", subcommand] => knows(subcommand),
        ["ringway" | "target/release/ringway", subcommand, ..] => knows(subcommand),
        [script, ..] if script.contains("scripts/") || script.starts_with(".ci/") => {
            let meta = fs::metadata(root().join(script));
            meta.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        }
        [other, ..] => {
            // Each of them a reader has, or its package is named as itself.
            let known = "cargo curl openssl gzip python3 kill docker cp cd git jq head sed \
                         printf redis-server redis-cli";
            known.split(' ').any(|known| known == *other)
        }
        [] => true,
    }
}

/// The built program accepts `subcommand --help`.
fn knows(subcommand: &str) -> bool {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway")).args([subcommand, "--help"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// One row per reason, in the order of declaration.
fn reason_reference() -> String {
    let mut text = String::from(
        "# Reasons\n\n\
         Whenever the gateway answers instead of the upstream, it says why with one of these\n\
         tokens: in the `reason` member of the `application/problem+json` body and in the log. A\n\
         token never changes its meaning. An upstream's response is held to the rules of the\n\
         `head.*` and `framing.*` tokens too; a client then gets `upstream.invalid_response`.\n\n\
         499 is never sent: the client is gone; it is what the log says.\n\n\
         This file is generated: `RINGWAY_BLESS=1 cargo test --test house`.\n\n\
         | token | status | meaning | source |\n|---|---|---|---|\n",
    );
    for reason in REASON_LISTS.iter().flat_map(|(_, list)| list.iter()) {
        let Reason { token, status, meaning, source, number: _ } = reason;
        writeln!(text, "| `{token}` | {status} | {meaning} | {source} |").expect("to a String");
    }
    text
}

fn bad_reasons(reasons: &[&Reason]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (n, reason) in reasons.iter().enumerate() {
        let token = reason.token;
        if reasons[..n].iter().any(|other| other.token == token) {
            wrong.push(format!("{token}: declared twice"));
        }
        let mut parts = token.split('.');
        let part = |p: &str| {
            !p.is_empty() && p.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        };
        if !(parts.next().is_some_and(part) && parts.next().is_some_and(part))
            || parts.next().is_some()
        {
            wrong.push(format!("{token}: not of the form `area.cause`"));
        }
        if !(400..=599).contains(&reason.status) {
            wrong.push(format!("{token}: status {}", reason.status));
        }
        if !reason.meaning.ends_with('.') || reason.meaning.contains('|') {
            wrong.push(format!("{token}: its meaning is not one plain sentence"));
        }
    }
    wrong
}

#[test]
fn reasons_are_unique_and_documented() {
    const BAD: &Reason =
        &Reason { number: 0, token: "x", status: 200, meaning: "Because", source: "" };
    finds(3, &bad_reasons(&[BAD]));
    finds(7, &bad_reasons(&[BAD, BAD]));
    let all: Vec<&Reason> =
        REASON_LISTS.iter().flat_map(|(_, list)| list.iter().copied()).collect();
    assert!(all.len() > 40);
    none(&bad_reasons(&all));

    let path = root().join("docs/reasons.md");
    if std::env::var_os("RINGWAY_BLESS").is_some() {
        fs::create_dir_all(root().join("docs")).expect("docs/ can be made");
        fs::write(&path, reason_reference()).expect("docs/reasons.md can be written");
    }
    let documented = fs::read_to_string(path).expect("docs/reasons.md exists");
    assert!(
        documented == reason_reference(),
        "docs/reasons.md is out of date: RINGWAY_BLESS=1 cargo test --test house"
    );
}

/// One row per metric, in the order of a scrape.
fn metric_reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         What `GET /metrics` of the admin API answers, in the Prometheus text format, or as\n\
         OpenMetrics to a client that accepts it. Counters are 0 when the process starts. Figures\n\
         by route, upstream and endpoint stay with their name across reloads; those of a name that\n\
         is no longer configured end. A series that would be 0 since the start is left out of\n\
         `ringway_responses`, `ringway_refusals` and the `class` figures.\n\n\
         Each worker counts durations in buckets no wider than 1/64 of their values (or 256 ns);\n\
         a histogram's bounds are exact to that.\n\n\
         This file is generated: `RINGWAY_BLESS=1 cargo test --test house`.\n\n\
         | name | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in families::ALL {
        let kind = format!("{:?}", family.kind).to_lowercase();
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, labels) = (family.full_name(), labels.join(", "));
        writeln!(text, "| `{name}` | {kind} | {labels} | {} |", family.meaning)
            .expect("to a String");
    }
    text
}

#[test]
fn metrics_are_unique_and_documented() {
    let mut names: Vec<_> = families::ALL.iter().map(|family| family.full_name()).collect();
    for (name, family) in names.iter().zip(families::ALL) {
        let is_plain = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        let is_ours = name.starts_with("ringway_") || name.starts_with("process_");
        assert!(is_plain && is_ours, "{name}");
        assert!(!family.meaning.ends_with('.') && !family.meaning.contains('|'), "{name}");
    }
    names.sort();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name is there twice");
    let path = root().join("docs/metrics.md");
    if std::env::var_os("RINGWAY_BLESS").is_some() {
        fs::write(&path, metric_reference()).expect("docs/metrics.md can be written");
    }
    let documented = fs::read_to_string(path).expect("docs/metrics.md exists");
    assert!(
        documented == metric_reference(),
        "docs/metrics.md is out of date: RINGWAY_BLESS=1 cargo test --test house"
    );
}

/// The names of the lists that `reasons! { NAME from ...` declares in `files`.
fn declared_lists(files: &[File]) -> Vec<String> {
    let declared = |file: &File| {
        let code = code_only(&file.text);
        let lists = code.split("reasons! {").skip(1);
        lists
            .map(|rest| rest.split_whitespace().next().unwrap_or("").to_string())
            .collect::<Vec<_>>()
    };
    files.iter().flat_map(declared).collect()
}

#[test]
fn every_list_of_reasons_is_in_the_reference() {
    assert_eq!(declared_lists(&one("src/x.rs", "reasons! { NEW from 0; A = 1; }")), ["NEW"]);
    let mut declared = declared_lists(&product());
    let mut known: Vec<_> = REASON_LISTS.iter().map(|(name, _)| name.to_string()).collect();
    declared.sort();
    known.sort();
    assert_eq!(declared, known, "list it in REASON_LISTS");
}

#[test]
fn every_reason_is_given() {
    let declared = "reasons! { ALL from 0; A = \"a\", 400; B_B = \"b\", 500; }\n";
    finds(2, &rules::unused_reasons(&one("src/wire/a.rs", declared)));
    let used = format!("{declared}fn f() {{ g(A) }} // B_B\n");
    finds(1, &rules::unused_reasons(&one("src/wire/a.rs", &used)));
    none(&rules::unused_reasons(&product()));
}
