//! Configurations from outside: every example passes, every mistake is reported as it should be,
//! and what is made from the code is as committed.
//!
//! `RINGWAY_BLESS=1 cargo test --test config` writes `docs/configuration.md`, `docs/access-log.md`,
//! `config/reference.toml` and the reports in `tests/config/mistakes.txt` anew.

use std::{fmt::Write, fs, net::SocketAddr, path::Path};

use proptest::prelude::*;
use ringway::config::{
    self, decode, decode::Shape, file::File, reference, snapshot::EndpointAddress,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn blessing() -> bool {
    std::env::var_os("RINGWAY_BLESS").is_some()
}

/// Compares a committed file with what it should be, or writes it.
fn as_committed(path: &str, expected: &str) {
    let path = root().join(path);
    if blessing() {
        fs::write(&path, expected).expect("the file can be written");
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{} is out of date; run with RINGWAY_BLESS=1", path.display());
}

#[test]
fn the_reference_page_is_made_from_the_code() {
    as_committed("docs/configuration.md", &reference::page());
}

#[test]
fn the_reference_file_is_made_from_the_code() {
    as_committed("config/reference.toml", &reference::file());
}

#[test]
fn the_access_log_page_is_made_from_the_code() {
    as_committed("docs/access-log.md", &ringway::telemetry::access_log::reference());
}

/// Every value of the reference file under `path`, compared with its default.
fn at_defaults(section: &decode::Section, table: &toml::Table, text: &str, checked: &mut usize) {
    for key in &section.keys {
        let mentioned = text
            .lines()
            .any(|line| line.trim_start_matches("# ").starts_with(&format!("{} = ", key.name)));
        let inner = match key.shape {
            Shape::Section(section) => Some((section(), table.get(key.name))),
            _ => None,
        };
        match (&inner, table.get(key.name), &key.default) {
            (Some((section, Some(toml::Value::Table(inner)))), ..) => {
                at_defaults(section, inner, text, checked);
            }
            (None, Some(value), Some(default)) => {
                let expected: toml::Table =
                    toml::from_str(&format!("value = {default}")).expect("a default is TOML");
                assert_eq!(value, &expected["value"], "{}", key.name);
                *checked += 1;
            }
            (None, None, Some(default)) => panic!("{} = {default} is missing", key.name),
            _ => assert!(mentioned || inner.is_some(), "{} is not mentioned", key.name),
        }
    }
}

#[test]
fn the_reference_file_has_every_key_at_its_default() {
    let text = reference::file();
    let table: toml::Table = toml::from_str(&text).expect("the reference file is TOML");
    let mut checked = 0;
    for key in File::section().keys {
        let of = |value: &toml::Value| value.as_table().expect("a section").clone();
        let value = &table[key.name];
        let (section, tables) = match key.shape {
            Shape::Section(section) => (section(), vec![of(value)]),
            Shape::Named(section) => (section(), of(value).values().map(of).collect()),
            Shape::Sections(section) => {
                (section(), value.as_array().expect("sections").iter().map(of).collect::<Vec<_>>())
            }
            Shape::Value => panic!("{} is no section", key.name),
        };
        // Only the first of several is complete; the others show further actions.
        at_defaults(&section, &tables[0], &text, &mut checked);
        for table in &tables[1..] {
            for action in section.keys.iter().filter(|action| table.contains_key(action.name)) {
                if let (Shape::Section(inner), Some(table)) =
                    (action.shape, table[action.name].as_table())
                {
                    at_defaults(&inner(), table, &text, &mut checked);
                }
            }
        }
    }
    assert!(checked >= 50, "only {checked} keys compared");
}

fn examples() -> Vec<std::path::PathBuf> {
    let folder = fs::read_dir(root().join("config")).expect("config/ is there");
    let mut paths: Vec<_> = folder.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "toml"));
    paths.sort();
    paths
}

#[test]
fn every_example_passes_without_warning() {
    let paths = examples();
    assert!(paths.len() >= 11, "{paths:?}");
    for path in paths {
        match config::load(&path) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{}", warnings[0]),
            Err(report) => panic!("{report}"),
        }
    }
}

/// One mistake, or several: a configuration and the report it must give.
struct Case<'a> {
    name: &'a str,
    text: &'a str,
    report: &'a str,
}

const CASE: &str = "\n=== ";
const REPORT: &str = "--- report\n";

fn cases(golden: &str) -> Vec<Case<'_>> {
    let blocks = golden.split(CASE).skip(1);
    blocks
        .map(|block| {
            let (name, rest) = block.split_once('\n').expect("a case has a body");
            let (text, report) = rest.split_once(REPORT).unwrap_or((rest, ""));
            Case { name, text, report: report.trim_end() }
        })
        .collect()
}

/// A resolver that is the same everywhere: `*.invalid` has no address, all else has two.
fn look_up(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    if host.ends_with(".invalid") {
        return Err(std::io::Error::other("no such host"));
    }
    Ok(vec![([192, 0, 2, 1], port).into(), ([192, 0, 2, 2], port).into()])
}

#[test]
fn a_name_keeps_all_its_addresses() {
    let text = "[[listeners]]\nbind = \"127.0.0.1:0\"\n[[routes]]\nupstream = \"a\"\n\
                [upstreams.a]\nendpoints = [\"app.test:81\", \"127.0.0.1:80\"]\n";
    let (snapshot, warnings) =
        config::from_text_with("names.toml", text, &look_up).expect("a good configuration");
    assert!(warnings.is_empty());
    let endpoints = &snapshot.upstreams[0].endpoints;
    assert_eq!((endpoints.len(), endpoints[0].name.as_str()), (2, "app.test:81"));
    match &endpoints[0].address {
        EndpointAddress::Tcp(addresses) => {
            let expected: Vec<SocketAddr> =
                vec![([192, 0, 2, 1], 81).into(), ([192, 0, 2, 2], 81).into()];
            assert_eq!(addresses, &expected);
        }
        EndpointAddress::Unix(path) => panic!("a path: {}", path.display()),
    }
}

#[test]
fn there_is_a_bound_on_ways_to_authenticate() {
    let of = |count: usize| {
        let way = |n| format!("[forward_auth.w{n}]\nupstream = \"a\"\n");
        let ways: String = (1..count).map(way).collect();
        format!(
            "[[listeners]]\nbind = \"127.0.0.1:0\"\n[[routes]]\nupstream = \"a\"\n\
             [upstreams.a]\nendpoints = [\"127.0.0.1:80\"]\n{ways}"
        )
    };
    // With `certificate`, which is always there.
    assert_eq!(printed(&of(1000)), "");
    let report = printed(&of(1001));
    let title = "error: 1001 ways to authenticate, and at most 1000 can be\n";
    assert!(report.starts_with(title) && report.ends_with("1 error"), "{report}");
}

/// What `ringway check` prints for a configuration: warnings, or the report.
fn printed(text: &str) -> String {
    match config::from_text_with("ringway.toml", text, &look_up) {
        Ok((_, warnings)) => {
            let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            warnings.join("\n\n")
        }
        Err(report) => report.to_string(),
    }
}

#[test]
fn every_mistake_is_reported_as_agreed() {
    let path = root().join("tests/config/mistakes.txt");
    let golden = fs::read_to_string(&path).expect("the golden file is there");
    let head = golden.split(CASE).next().unwrap_or_default();
    let mut blessed = head.to_owned();
    let all = cases(&golden);
    assert!(all.len() >= 60, "{} cases", all.len());
    let mut wrong = String::new();
    for case in &all {
        let found = printed(case.text);
        assert!(!found.is_empty(), "{}: nothing is reported", case.name);
        if found != case.report {
            let _ = writeln!(wrong, "{}\nexpected:\n{}\nfound:\n{found}\n", case.name, case.report);
        }
        let _ = write!(blessed, "{CASE}{}\n{}{REPORT}{found}\n", case.name, case.text);
    }
    if blessing() {
        fs::write(&path, blessed).expect("the golden file can be written");
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
}

#[test]
fn a_missing_file_says_so() {
    let report =
        config::load(Path::new("no/such/ringway.toml")).expect_err("there is no such file");
    let text = report.to_string();
    assert!(text.contains("cannot read the configuration: No such file"), "{text}");
    assert!(text.contains("ringway demo"), "{text}");
}

#[test]
fn a_file_that_is_not_text_says_in_which_line() {
    let path = std::env::temp_dir().join(format!("ringway-latin1-{}.toml", std::process::id()));
    fs::write(&path, b"[runtime]\n# caf\xe9\n").expect("a temporary file");
    let report = config::load(&path).expect_err("not UTF-8").to_string();
    fs::remove_file(&path).expect("it was made above");
    assert!(report.contains("not UTF-8 text (line 2)"), "{report}");
}

/// Loads a text and checks what must hold of every report.
fn survives(text: &str) -> Result<(), TestCaseError> {
    if let Err(report) = config::from_text_with("fuzz.toml", text, &look_up) {
        prop_assert!(!report.problems().is_empty());
        let lines: Vec<&str> = text.split('\n').collect();
        for (line, column) in report.positions() {
            prop_assert!((1..=lines.len()).contains(&line), "line {line} of {}", lines.len());
            let width = lines[line - 1].chars().count();
            prop_assert!(column <= width + 1, "column {column} of {width}");
        }
        for problem in report.problems().iter().filter_map(|problem| problem.place) {
            prop_assert!(problem.start <= problem.end && problem.end <= text.len());
        }
        let _ = (report.render(true), report.render(false));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_panics(text in "\\PC*|(.|\n)*") {
        survives(&text)?;
    }

    /// The reference file with a part replaced: reaches what random text never does.
    #[test]
    fn no_edit_panics(
        from in 0usize..12_000,
        length in 0usize..200,
        with in "[a-z_=\\[\\]{}\"' 0-9.:/\n#é]{0,12}",
    ) {
        let mut text = reference::file();
        let boundary = |text: &str, mut at: usize| {
            at = at.min(text.len());
            while !text.is_char_boundary(at) { at -= 1; }
            at
        };
        let from = boundary(&text, from % text.len());
        let to = boundary(&text, from + length).max(from);
        text.replace_range(from..to, &with);
        survives(&text)?;
    }

    /// Each value of the reference file replaced by one of another type.
    #[test]
    fn no_value_panics(line in 0usize..400, value in prop::sample::select(vec![
        "1", "-1", "\"\"", "\"x\"", "[]", "{}", "true", "1979-05-27", "1.5", "[[1]]", "[{}]", "\"0\"",
        "9223372036854775807", "{ a = 1 }", "\"/\"", "\"é\\u0000\"",
    ])) {
        let text = reference::file();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let keys: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].contains(" = ")).collect();
        let at = keys[line % keys.len()];
        let key = lines[at].trim_start_matches("# ").split(" = ").next().unwrap_or_default().to_owned();
        lines[at] = format!("{key} = {value}");
        survives(&lines.join("\n"))?;
    }
}

/// What is wrong in a file that a configuration names, by its lines.
#[test]
fn files_of_keys_and_users_are_reported_by_line() {
    let digest = |n: u32| format!("sha256:{n:064x}");
    let (one, two, three) = (digest(1), digest(2), digest(3));
    let listed = |file: &str, lines: &str, section: &str| {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(file), lines).expect("written");
        let path = dir.path().join("ringway.toml");
        let text = format!(
            "[[listeners]]\nbind = \"127.0.0.1:0\"\n[[routes]]\nrespond = {{ status = 200 }}\n\
             authenticate = [\"w\"]\n[{section}.w]\nfile = \"{file}\"\n[consumers.own]\n\
             keys = [\"{three}\"]\n"
        );
        std::fs::write(&path, text).expect("written");
        match config::load(&path) {
            Ok(_) => Vec::new(),
            Err(report) => {
                let report = report.to_string();
                let errors = report.lines().filter_map(|line| line.strip_prefix("error: "));
                errors.map(str::to_owned).collect()
            }
        }
    };
    let long = format!("{one} {}", "n".repeat(5000));
    for (lines, expected) in [
        (format!("# none\n\n{one} a\r\n{two} own scopes=x"), vec![]),
        (
            format!("{one}\n{two} a plan\nrw_secret a\n{three} b expires=soon\n"),
            vec![
                "`keys.txt`, line 1: names no consumer behind the digest",
                "`keys.txt`, line 2: has `plan`, which is no NAME=VALUE",
                "`keys.txt`, line 3: has a key itself; store its digest, as `ringway key hash` tells",
                "`keys.txt`, line 4: has `expires=soon`; write 2027-01-31 or 2027-01-31T12:00:00Z, \
                 in UTC",
            ],
        ),
        (
            format!("{one} a\n{two} b\n{one} c\n"),
            vec!["`keys.txt`, line 3: the key is there already, on line 1"],
        ),
        (
            format!("{one} a\n{three} c\n"),
            vec!["`keys.txt`, line 2: the key is there already, among a consumer's `keys`"],
        ),
        (
            format!("{one} a groups=x\n{two} a groups=y\n"),
            vec![
                "`keys.txt`, line 2: says other groups, or another plan, of the consumer `a` than an \
                 earlier line",
            ],
        ),
        (
            format!("{one} own groups=x\n"),
            vec![
                "`keys.txt`, line 1: says groups or a plan of the consumer `own`, which has a section of its \
                 own in the configuration",
            ],
        ),
        (
            format!("{one} a plan=gold\n"),
            vec!["`keys.txt`, line 1: names the plan `gold`, which there is not"],
        ),
        (long, vec!["`keys.txt`, line 1: is longer than 4096 bytes"]),
        (
            format!("{one} {}\n", "n".repeat(200)),
            vec!["`keys.txt`, line 1: names a consumer with more than 128 bytes"],
        ),
        (
            "x\n".repeat(100),
            vec![
                "`keys.txt`, line 1: does not begin with a digest: sha256: and 64 hexadecimal digits",
            ],
        ),
    ] {
        let errors = listed("keys.txt", &lines, "api_keys");
        let told: Vec<&str> = errors.iter().map(String::as_str).take(expected.len()).collect();
        assert_eq!(told, expected, "{lines:.300}");
        assert!(errors.len() <= 5, "{errors:?}");
        assert_eq!(errors.is_empty(), expected.is_empty());
    }
    let hash = "$2y$10$abcdefghijklmnopqrstuuwmjOOgyx/jknFqeF8sHrF2cGgSECl/q";
    let lines = format!("a:{hash}\nb\n:x\na:{hash}\nc:$apr1$x$y\n");
    let errors = listed("users", &lines, "basic");
    let begin = |error: &String| error.chars().take(40).collect::<String>();
    assert_eq!(
        errors.iter().map(begin).collect::<Vec<_>>(),
        [
            "`users`, line 2: has no colon between na",
            "`users`, line 3: has no name before the ",
            "`users`, line 4: its name is somebody's ",
            "`users`, line 5: the password is MD5, wh",
        ]
    );
    assert!(listed("users", &format!("a:{hash}\n"), "basic").is_empty());
}
