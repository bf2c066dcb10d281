//! `ringway diff`: what another configuration would change.
//!
//! Both sides are compared as they are in force: every key, written or not, by name. So a default
//! written out is no difference, and a default that depends on another key is one when that
//! changes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use toml::{Table, Value};

use super::Where;
use crate::{
    config::effective::effective,
    control::cli::{FILE_DEFAULT, load, print},
};

pub const HELP: &str = "\
Compares with what the running gateway has in force, or with --with another file. Both
sides count with their defaults; listeners, routes and upstreams are compared by name. What
files that a configuration names contain is not compared.

Ends with 0 when nothing would change, with 1 when something would, with 2 when that
cannot be told (as diff(1) does).

Examples:
  ringway diff                                 ringway.toml against the running gateway
  ringway diff /etc/ringway/new.toml
  ringway diff new.toml --with old.toml";

#[derive(Debug, Args)]
pub struct Diff {
    /// The configuration to look at.
    #[arg(default_value = FILE_DEFAULT)]
    new: PathBuf,
    /// Another configuration to compare it with, instead of the running gateway.
    #[arg(long, value_name = "OLD")]
    with: Option<PathBuf>,
    #[command(flatten)]
    gateway: Where,
}

impl Diff {
    pub fn run(&self) -> ExitCode {
        let trouble = ExitCode::from(2);
        let Some(new) = in_force(&self.new) else { return trouble };
        let (old, name) = match &self.with {
            Some(file) => match in_force(file) {
                Some(old) => (old, file.display().to_string()),
                None => return trouble,
            },
            None => match self.running() {
                Ok(old) => (old, "the running gateway".to_owned()),
                Err(e) => {
                    eprintln!("ringway: {e}");
                    return trouble;
                }
            },
        };
        let text = diff(&old, &new);
        if text.is_empty() {
            return print(&format!("{} would change nothing in {name}\n", self.new.display()));
        }
        match print(&format!("--- {name}\n+++ {}\n{text}", self.new.display())) {
            ExitCode::SUCCESS => ExitCode::FAILURE,
            _ => trouble,
        }
    }

    fn running(&self) -> Result<Table, String> {
        let answer = self.gateway.call("GET", "/config?format=toml", None)?;
        if !answer.is_success() {
            return Err(answer.problem());
        }
        toml::from_str(&answer.text())
            .map_err(|e| format!("the configuration of the gateway cannot be read: {e}"))
    }
}

fn in_force(file: &Path) -> Option<Table> {
    load(file).map(|snapshot| effective(&snapshot))
}

/// Sections that have many entries, each with a name; all others are sections of keys.
const NAMED: [&str; 4] = ["listeners", "routes", "upstreams", "access_logs"];

/// What changes from `old` to `new`, as lines; empty when nothing does.
fn diff(old: &Table, new: &Table) -> String {
    let mut out = String::new();
    for section in NAMED {
        named(section, &entries(old, section), &entries(new, section), &mut out);
    }
    order(&entries(old, "routes"), &entries(new, "routes"), &mut out);
    let mut sections: Vec<&String> = new.keys().chain(old.keys()).collect();
    let mut seen = std::collections::HashSet::new();
    sections.retain(|name| !NAMED.contains(&name.as_str()) && seen.insert(name.as_str()));
    for section in sections {
        let keys = |table: &Table| table.get(section).map(flat).unwrap_or_default();
        let changed = changes(&keys(old), &keys(new));
        if !changed.is_empty() {
            let later = if section == "runtime" { "  (at the next start)" } else { "" };
            let _ = writeln!(out, "\n[{section}]{later}");
            write_changes(&changed, "  ", &mut out);
        }
    }
    out
}

type Entries<'a> = Vec<(String, &'a Value)>;

/// The entries of a section with their names, in the order of the file.
fn entries<'a>(table: &'a Table, section: &str) -> Entries<'a> {
    match table.get(section) {
        Some(Value::Table(entries)) => entries.iter().map(|(n, v)| (n.clone(), v)).collect(),
        Some(Value::Array(entries)) => {
            let name = |entry: &Value| entry.get("name").and_then(Value::as_str).map(str::to_owned);
            entries.iter().map(|entry| (name(entry).unwrap_or_default(), entry)).collect()
        }
        _ => Vec::new(),
    }
}

fn named(section: &str, old: &Entries<'_>, new: &Entries<'_>, out: &mut String) {
    let before: HashMap<&str, &Value> = old.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let after: HashMap<&str, &Value> = new.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let mut text = String::new();
    for (name, value) in old.iter().filter(|(name, _)| !after.contains_key(name.as_str())) {
        let _ = writeln!(text, "- {name}{}", gist(section, value));
    }
    for (name, value) in new {
        match before.get(name.as_str()) {
            None => {
                let _ = writeln!(text, "+ {name}{}", gist(section, value));
            }
            Some(old) => {
                let changed = changes(&flat(old), &flat(value));
                if !changed.is_empty() {
                    let _ = writeln!(text, "~ {name}");
                    write_changes(&changed, "    ", &mut text);
                }
            }
        }
    }
    if !text.is_empty() {
        let _ = write!(out, "\n{section}\n{text}");
    }
}

/// What an entry that comes or goes is about.
fn gist(section: &str, entry: &Value) -> String {
    let text = |key: &str| entry.get(key).map(|value| value.to_string());
    let gist = match section {
        "listeners" => text("bind"),
        "upstreams" => text("endpoints"),
        "access_logs" => text("to"),
        _ => match (text("upstream"), entry.get("respond"), entry.get("redirect")) {
            (Some(upstream), ..) => Some(format!("upstream = {upstream}")),
            (None, Some(respond), _) => respond.get("status").map(|s| format!("respond with {s}")),
            (None, None, Some(to)) => to.get("status").map(|s| format!("redirect with {s}")),
            _ => None,
        },
    };
    gist.map_or_else(String::new, |gist| format!("  {gist}"))
}

/// Keys with dots and their values, in order. A key of a table that is the operator's own (a header
/// condition) is a key like any other.
fn flat(value: &Value) -> Vec<(String, String)> {
    fn walk(prefix: &str, value: &Value, out: &mut Vec<(String, String)>) {
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    walk(&format!("{prefix}{dot}{key}"), value, out);
                }
            }
            value => out.push((prefix.to_owned(), value.to_string())),
        }
    }
    let mut out = Vec::new();
    walk("", value, &mut out);
    out
}

/// A key with what it was and what it will be.
type Change = (String, Option<String>, Option<String>);

fn changes(old: &[(String, String)], new: &[(String, String)]) -> Vec<Change> {
    let before: BTreeMap<&str, &str> = old.iter().map(|(k, v)| (&**k, &**v)).collect();
    let after: BTreeMap<&str, &str> = new.iter().map(|(k, v)| (&**k, &**v)).collect();
    let gone = old.iter().filter(|(key, _)| !after.contains_key(key.as_str()));
    let gone = gone.map(|(key, value)| (key.clone(), Some(value.clone()), None));
    let other = new.iter().filter(|(key, value)| before.get(key.as_str()) != Some(&value.as_str()));
    let other = other.map(|(key, value)| {
        (key.clone(), before.get(key.as_str()).map(|v| (*v).to_owned()), Some(value.clone()))
    });
    gone.chain(other).collect()
}

fn write_changes(changes: &[Change], indent: &str, out: &mut String) {
    let width = changes.iter().map(|(key, ..)| key.chars().count()).max().unwrap_or(0);
    for (key, old, new) in changes {
        let none = || "(none)".to_owned();
        let (old, new) = (old.clone().unwrap_or_else(none), new.clone().unwrap_or_else(none));
        let _ = writeln!(out, "{indent}{key:<width$}  {old} -> {new}");
    }
}

/// Pairs of routes named at most.
const PAIRS_MAX: usize = 20;

/// Routes that both have and whose order has changed where it decides.
fn order(old: &Entries<'_>, new: &Entries<'_>, out: &mut String) {
    let place: HashMap<&str, usize> =
        old.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at)).collect();
    // Only routes that can tie are compared with each other: there may be ten thousand.
    let mut tied: BTreeMap<String, Vec<(&str, &Value, usize)>> = BTreeMap::new();
    for (name, route) in new {
        if let Some(at) = place.get(name.as_str()) {
            tied.entry(rank(route)).or_default().push((name, route, *at));
        }
    }
    let mut pairs = tied.values().flat_map(|group| {
        group.iter().enumerate().flat_map(move |(at, (name, route, was))| {
            let later = group[at + 1..]
                .iter()
                .filter(move |(_, other, other_was)| other_was < was && share_a_host(route, other));
            later.map(move |(other, ..)| (*name, *other))
        })
    });
    let shown: Vec<_> = pairs.by_ref().take(PAIRS_MAX).collect();
    if shown.is_empty() {
        return;
    }
    out.push_str("\norder of routes that are equally specific\n");
    for (first, second) in shown {
        let _ = writeln!(out, "~ {first} now comes before {second}");
    }
    // Not counted: there may be millions of pairs.
    if pairs.next().is_some() {
        out.push_str("  and others\n");
    }
}

/// Two routes of one rank may both match, and then the first is taken: the same path pattern (any
/// two regular expressions), and as many conditions.
fn rank(route: &Value) -> String {
    let text = |key: &str| route.get(key).and_then(Value::as_str);
    let path = match (text("path_exact"), text("path_template"), text("path_regex"), text("path")) {
        (Some(path), ..) => format!("exact {path}"),
        (_, Some(template), ..) => format!("template {}", without_names(template)),
        (_, _, Some(_), _) => "regex".to_owned(),
        (.., Some(path)) => format!("prefix {}", path.trim_end_matches('/')),
        _ => "prefix ".to_owned(),
    };
    let size = |key: &str| match route.get(key) {
        Some(Value::Table(table)) => table.len(),
        Some(Value::Array(array)) => usize::from(!array.is_empty()),
        _ => 0,
    };
    format!("{path} {} {} {}", size("methods"), size("headers"), size("query"))
}

/// `/a/{id}/b` as `/a/{}/b`.
fn without_names(template: &str) -> String {
    let mut out = String::new();
    let mut is_name = false;
    for c in template.chars() {
        match c {
            '{' => is_name = true,
            '}' => is_name = false,
            _ => {}
        }
        if !is_name || c == '{' || c == '*' {
            out.push(c);
        }
    }
    out
}

fn share_a_host(a: &Value, b: &Value) -> bool {
    let hosts = |route: &Value| -> Vec<String> {
        let hosts = route.get("hosts").and_then(Value::as_array);
        let hosts = hosts.into_iter().flatten().filter_map(Value::as_str);
        hosts.map(str::to_owned).collect()
    };
    let (a, b) = (hosts(a), hosts(b));
    a.is_empty() && b.is_empty() || a.iter().any(|host| b.contains(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const BASE: &str = "[[listeners]]\nbind = \"127.0.0.1:8080\"\n";

    fn of(text: &str) -> Table {
        effective(&config::from_text("test", &format!("{BASE}{text}")).expect("good").0)
    }

    fn between(old: &str, new: &str) -> String {
        diff(&of(old), &of(new))
    }

    const APP: &str = "[[routes]]\nname = \"app\"\npath = \"/app\"\nupstream = \"app\"\n\
        [upstreams.app]\nendpoints = [\"127.0.0.1:81\"]\n";

    #[test]
    fn what_is_the_same_is_no_difference() {
        let spelt_out = "[limits]\nbody = \"1GiB\"\n[timeouts]\nhead = \"10000ms\"\n";
        assert_eq!(between(APP, &format!("{APP}{spelt_out}")), "");
        // Other routes in another order, where the order decides nothing.
        let (a, b) = (
            "[[routes]]\npath = \"/a\"\nrespond = {}\n",
            "[[routes]]\npath = \"/b\"\nrespond = {}\n",
        );
        assert_eq!(between(&[a, b].concat(), &[b, a].concat()), "");
    }

    #[test]
    fn entries_come_go_and_change() {
        let other = "[[listeners]]\nname = \"second\"\nbind = \"127.0.0.1:8081\"\n\
            [[routes]]\nname = \"app\"\npath = \"/app\"\nupstream = \"next\"\ntimeout = \"5s\"\n\
            [[routes]]\nname = \"gone\"\npath = \"/old\"\nrespond = { status = 410 }\n\
            [upstreams.next]\nendpoints = [\"127.0.0.1:82\"]\n\
            [limits]\nbody = \"10MiB\"\n[runtime]\nworkers = 4\n";
        let expected = "\nlisteners\n+ second  \"127.0.0.1:8081\"\n\
            \nroutes\n~ app\n    upstream  \"app\" -> \"next\"\n    max_body  \"1GiB\" -> \"10MiB\"\n    \
            timeout   \"0\" -> \"5s\"\n+ gone  respond with 410\n\
            \nupstreams\n- app  [\"127.0.0.1:81\"]\n+ next  [\"127.0.0.1:82\"]\n\
            \n[runtime]  (at the next start)\n  workers  \"auto\" -> 4\n\
            \n[limits]\n  body  \"1GiB\" -> \"10MiB\"\n";
        assert_eq!(between(APP, other), expected);
        let back = between(other, APP);
        assert!(back.contains("- second") && back.contains("- gone  respond with 410"), "{back}");
        assert!(back.contains("\"10MiB\" -> \"1GiB\""), "{back}");
    }

    #[test]
    fn keys_inside_of_an_upstream() {
        let pool = format!("{APP}pool = {{ idle_max = 3 }}\nbalance = \"random\"\n");
        let expected = "\nupstreams\n~ app\n    balance        \"round_robin\" -> \"random\"\n    \
            pool.idle_max  256 -> 3\n";
        assert_eq!(between(APP, &pool), expected);
    }

    #[test]
    fn conditions_that_are_not_there_any_more() {
        let with = "[[routes]]\nname = \"a\"\nheaders = { X-A = \"1\", X-B = { present = true } }\nrespond = {}\n";
        let without =
            "[[routes]]\nname = \"a\"\nheaders = { X-B = { present = true } }\nrespond = {}\n";
        assert_eq!(between(with, without), "\nroutes\n~ a\n    headers.X-A  \"1\" -> (none)\n");
    }

    #[test]
    fn a_great_many_pairs_are_not_all_told() {
        let route = |n: usize| format!("[[routes]]\npath_regex = '/{n}.*'\nrespond = {{}}\n");
        let (mut old, mut new) = (String::new(), String::new());
        for n in 0..30 {
            old.push_str(&route(n));
            new.push_str(&route(29 - n));
        }
        let text = between(&old, &new);
        assert_eq!(text.matches("now comes before").count(), PAIRS_MAX);
        assert!(text.ends_with("  and others\n"), "{text}");
    }

    #[test]
    fn order_counts_where_it_decides() {
        let route = |name: &str, more: &str| {
            format!("[[routes]]\nname = \"{name}\"\n{more}\nrespond = {{}}\n")
        };
        for (a, b, counts) in [
            ("path_regex = '/a.*'", "path_regex = '/.*b'", true),
            (
                "path = \"/a\"\nheaders = { A = \"1\" }",
                "path = \"/a\"\nheaders = { B = \"1\" }",
                true,
            ),
            (
                "path_template = \"/a/{x}\"\nquery = { q = \"1\" }",
                "path_template = \"/a/{y}\"\nquery = { r = \"1\" }",
                true,
            ),
            ("path = \"/a\"\nheaders = { A = \"1\" }", "path = \"/a\"", false),
            (
                "hosts = [\"a.test\"]\npath_regex = '/a.*'",
                "hosts = [\"b.test\"]\npath_regex = '/.*b'",
                false,
            ),
            ("path = \"/a\"", "path_exact = \"/a\"", false),
        ] {
            let (a, b) = (route("a", a), route("b", b));
            let text = between(&[&*a, &*b].concat(), &[&*b, &*a].concat());
            assert_eq!(text.contains("~ b now comes before a"), counts, "{a}{b}{text}");
            assert_eq!(text.is_empty(), !counts, "{text}");
        }
    }
}
