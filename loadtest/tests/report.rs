//! `loadtest report` on a fixture of raw data: the tables word for word, and the page as XML.
//!
//! After a wanted change of the tables: `RINGWAY_BLESS=1 cargo test -p loadtest --test report`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report").join(name)
}

fn report(input: &Path, options: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_loadtest");
    Command::new(program).arg("report").arg(input).args(options).output().expect("it runs")
}

#[track_caller]
fn printed(options: &[&str]) -> String {
    let output = report(&fixture("results.json"), options);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn tables_are_as_recorded() {
    let found = printed(&["--markdown", "-"]);
    let path = fixture("results.md");
    if std::env::var_os("RINGWAY_BLESS").is_some() {
        fs::write(&path, &found).expect("the fixture can be written");
    }
    let wanted = fs::read_to_string(path).expect("the fixture is there");
    for (n, (found, wanted)) in found.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(found, wanted, "line {}", n + 1);
    }
    assert_eq!(found.lines().count(), wanted.lines().count());
}

/// What must never be lost from the tables, whatever they look like.
#[test]
fn what_went_wrong_is_said() {
    let text = printed(&["--markdown", "-"]);
    for said in [
        "CPU time per request is higher than when saturated: ringway in 3 of 3 rounds",
        "usual in this run: haproxy around 1 of 3 rounds (by 10 %)",
        "**requests failed**: envoy 2 in 3 rounds",
        "a round of envoy own failed",
        "haproxy is left out: it did not start",
        "user instructions per request: no counter here",
        "JWT on",
    ] {
        assert!(text.contains(said), "not said: {said}");
    }
}

#[test]
fn brief_tables_have_no_introduction() {
    let text = printed(&["--brief", "--markdown", "-"]);
    assert!(text.starts_with("\n## Every proxy"), "{}", &text[..100]);
    assert!(!text.contains("JWT on"));
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_else() {
    let text = printed(&["--html", "-"]);
    let xml = text.strip_prefix("<!DOCTYPE html>\n").expect("it says what it is");
    let page = roxmltree::Document::parse(xml).expect("well-formed");
    let of = |name: &'static str| page.descendants().filter(move |n| n.tag_name().name() == name);

    // Bars of four cases and of idle memory, curves and p99 of the open loop, memory.
    assert_eq!(of("figure").count(), 4 + 1 + 4 + 1);
    for figure in of("figure") {
        let plot = figure.children().find(|n| n.tag_name().name() == "svg").expect("a plot");
        assert!(plot.attribute("viewBox").is_some() && plot.attribute("width").is_none());
        assert!(!plot.attribute("aria-label").expect("it says what it shows").is_empty());
    }
    assert!(of("polyline").count() >= 2 * 4, "lines of two proxies in four plots");
    assert_eq!(of("section").count(), 7);
    for loads in ["script", "link", "img", "iframe", "object", "image", "use"] {
        assert_eq!(of(loads).count(), 0, "<{loads}>");
    }
    assert!(!text.contains("url(") && !text.contains("@import"), "the style needs a file");
    // Text of the raw data is text on the page.
    let said: String = page.descendants().filter_map(|n| n.text()).collect();
    assert!(said.contains("Invented <Processor> & Sons"));
}

/// Every colour that a plot writes has another in the dark.
#[test]
fn plots_are_readable_in_the_dark() {
    let text = printed(&["--html", "-"]);
    let (style, body) = text.split_once("</style>").expect("a style sheet");
    let mut colours: Vec<&str> = Vec::new();
    for attribute in ["fill=\"#", "stroke=\"#"] {
        colours.extend(body.split(attribute).skip(1).map(|rest| &rest[..6]));
    }
    colours.sort_unstable();
    colours.dedup();
    assert!(colours.len() >= 6, "{colours:?}");
    for colour in colours {
        let rule = format!("[fill=\"#{colour}\"] {{ fill: #");
        assert!(style.contains(&rule), "#{colour} is the same in the dark");
    }
}

#[test]
fn a_run_agrees_with_itself() {
    let path = fixture("results.json");
    let text = printed(&["--against", path.to_str().expect("text")]);
    assert!(text.contains("| 1k | ringway | cpu_us |"), "{text}");
    let last = text.lines().last().expect("a sum");
    let (agreed, rest) = last.split_once(" of ").expect("n of n");
    assert!(rest.starts_with(&format!("{agreed} figures")), "{last}");
}

#[test]
fn other_files_are_refused_with_their_name() {
    let directory = std::env::temp_dir().join(format!("loadtest-report-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("it can be made");
    let file = directory.join("other.json");
    let text = fs::read_to_string(fixture("results.json")).expect("the fixture is there");
    let table = [
        (text.replace("ringway-compare/1", "ringway-compare/9"), "of schema `ringway-compare/9`"),
        (text.replace("\"rounds\": 3", "\"rounds\": \"three\""), "invalid type"),
        ("{".to_owned(), "EOF"),
    ];
    for (content, wanted) in table {
        fs::write(&file, content).expect("it can be written");
        let output = report(&file, &["--markdown", "-"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(said.contains("other.json") && said.contains(wanted), "{said}");
    }
    fs::remove_dir_all(directory).expect("it can be removed");
    let output = report(&fixture("results.json"), &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing to write"));
}
