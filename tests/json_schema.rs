//! JSON Schema's official test suite (<https://github.com/json-schema-org/JSON-Schema-Test-Suite>),
//! through the code that compiles the schemas of a configuration. It is not part of this project:
//! `RINGWAY_JSON_SCHEMA_SUITE` names the folder in which it is, and without it nothing is tested
//! here but that a suite is judged.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use ringway::policy::validate::schema::{Load, Schema, Text};
use serde_json::{Value, json};

/// Folders of the suite, with what `$schema` says there.
const DRAFTS: [(&str, &str); 5] = [
    ("draft4", "http://json-schema.org/draft-04/schema#"),
    ("draft6", "http://json-schema.org/draft-06/schema#"),
    ("draft7", "http://json-schema.org/draft-07/schema#"),
    ("draft2019-09", "https://json-schema.org/draft/2019-09/schema"),
    ("draft2020-12", "https://json-schema.org/draft/2020-12/schema"),
];

/// Optional formats that are not looked at: they need tables of Unicode (docs/validate.md).
const UNKNOWN_FORMATS: [&str; 2] = ["/idn-email.json", "/idn-hostname.json"];

#[derive(Debug, Default)]
struct Outcome {
    groups: usize,
    tests: usize,
    wrong: Vec<String>,
}

/// With the draft that a schema of this folder is of.
fn dated(mut schema: Value, draft: &str) -> Value {
    if let Some(members) = schema.as_object_mut()
        && !members.contains_key("$schema")
    {
        members.insert("$schema".to_owned(), draft.into());
    }
    schema
}

/// Gives what the suite has at `http://localhost:1234/`.
fn remotes(suite: &Path, draft: &'static str) -> Arc<Load> {
    let folder = suite.join("remotes");
    Arc::new(move |uri: &str| {
        let path = uri.strip_prefix("http://localhost:1234/").ok_or("elsewhere")?;
        let path = folder.join(path.split('#').next().unwrap_or_default());
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map(|value| dated(value, draft)).map_err(|e| e.to_string())
    })
}

fn judge(file: &Path, draft: &str, formats: bool, load: &Arc<Load>, outcome: &mut Outcome) {
    let text = fs::read_to_string(file).expect("a file of the suite");
    let groups: Vec<Value> = serde_json::from_str(&text).expect("a list of groups");
    for group in groups {
        outcome.groups += 1;
        let name = format!("{}: {}", file.display(), group["description"]);
        let schema = dated(group["schema"].clone(), draft);
        let text = Text { value: &schema, whole: None, base: "schema:///-", formats };
        let tests = group["tests"].as_array().expect("tests");
        outcome.tests += tests.len();
        match Schema::compile(&text, load) {
            Err(wrong) => outcome.wrong.push(format!("{name}: {wrong:?}")),
            Ok(compiled) => {
                for test in tests {
                    let (is_valid, data) = (test["valid"] == true, &test["data"]);
                    let checked = compiled.check(data);
                    if compiled.allows(data) != is_valid || checked.is_ok() != is_valid {
                        let what = format!("{name}: {}: {checked:?}", test["description"]);
                        outcome.wrong.push(what);
                    }
                    if let Err(fault) = checked {
                        assert!(fault.sentence().len() < 4096, "{name}");
                    }
                }
            }
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some()).collect();
    files.sort();
    files
}

#[test]
fn the_official_suite_comes_out_as_it_demands() {
    let Some(suite) = std::env::var_os("RINGWAY_JSON_SCHEMA_SUITE").map(PathBuf::from) else {
        return;
    };
    let mut unknown = Vec::new();
    for (folder, draft) in DRAFTS {
        let load = remotes(&suite, draft);
        let of = suite.join("tests").join(folder);
        for (what, inner, formats) in
            [("required", "", false), ("formats", "optional/format", true)]
        {
            let mut outcome = Outcome::default();
            for file in files(&of.join(inner)) {
                judge(&file, draft, formats, &load, &mut outcome);
            }
            let Outcome { groups, tests, wrong } = outcome;
            println!("{folder} {what}: {groups} groups, {tests} tests, {} wrong", wrong.len());
            assert!(groups > 5, "no suite in {}", of.display());
            let is_known = |text: &String| UNKNOWN_FORMATS.iter().any(|file| text.contains(file));
            unknown.extend(wrong.into_iter().filter(|text| !is_known(text)));
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn a_suite_is_judged() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("x.json");
    let tests = json!([{"description": "x", "schema": {"type": "integer"}, "tests": [
        {"description": "good", "data": 1, "valid": true},
        {"description": "judged wrongly", "data": "x", "valid": true}
    ]}, {"description": "none", "schema": {"type": "what"}, "tests": []}]);
    fs::write(&file, tests.to_string()).expect("written");
    let mut outcome = Outcome::default();
    let load: Arc<Load> = Arc::new(|_: &str| Err("none".to_owned()));
    judge(&file, DRAFTS[4].1, false, &load, &mut outcome);
    assert_eq!((outcome.groups, outcome.tests, outcome.wrong.len()), (2, 2, 2), "{outcome:?}");
}
