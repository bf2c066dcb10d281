//! Whether saying what is wrong with a value could take time beyond measure: a schema that refers
//! to itself, and has alternatives (`anyOf`, `oneOf`) on the way, is looked into once for each way
//! through them. Deciding whether a value is good is not so: results are kept on the way.
//!
//! What cannot be told for certain counts as tangled.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// References that are followed; with more it is tangled.
const TARGETS_MAX: usize = 500;
/// Levels of a schema that are looked into.
const DEPTH_MAX: u32 = 200;

/// A place that is referred to: which document, and where in it.
type Target = (usize, String);

/// What is below one place.
#[derive(Default)]
struct Below {
    has_alternatives: bool,
    targets: BTreeSet<Target>,
}

/// Whether any of these documents, which may refer to one another, is tangled.
pub(super) fn is_tangled(documents: &[&Value]) -> bool {
    let mut known: BTreeMap<Target, Below> = BTreeMap::new();
    let mut waiting: Vec<Target> = (0..documents.len()).map(|at| (at, String::new())).collect();
    while let Some(target) = waiting.pop() {
        if known.contains_key(&target) {
            continue;
        }
        let mut below = Below::default();
        // What leads to nothing is reported by whoever compiles it.
        if let Some(value) = documents[target.0].pointer(&target.1) {
            look(value, (target.0, documents.len()), 0, &mut below);
        }
        waiting.extend(below.targets.iter().cloned());
        known.insert(target, below);
        if known.len() > TARGETS_MAX {
            return true;
        }
    }
    let loops =
        |(target, below): (&Target, &Below)| below.has_alternatives && reaches(&known, target);
    known.iter().any(loops)
}

/// Whether references lead from a place back to it.
fn reaches(known: &BTreeMap<Target, Below>, start: &Target) -> bool {
    let mut seen = BTreeSet::new();
    let mut waiting = vec![start];
    while let Some(at) = waiting.pop() {
        for next in known.get(at).into_iter().flat_map(|below| &below.targets) {
            if next == start {
                return true;
            }
            if seen.insert(next) {
                waiting.push(next);
            }
        }
    }
    false
}

fn look(value: &Value, (own, count): (usize, usize), depth: u32, below: &mut Below) {
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                below.has_alternatives |= matches!(&**name, "anyOf" | "oneOf");
                if matches!(&**name, "$ref" | "$dynamicRef" | "$recursiveRef") {
                    refer(inner, (own, count), below);
                }
                if depth < DEPTH_MAX {
                    look(inner, (own, count), depth + 1, below);
                }
            }
        }
        Value::Array(items) if depth < DEPTH_MAX => {
            items.iter().for_each(|item| look(item, (own, count), depth + 1, below));
        }
        _ => {}
    }
}

fn refer(value: &Value, (own, count): (usize, usize), below: &mut Below) {
    let Some(text) = value.as_str() else { return };
    match text.strip_prefix('#') {
        Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
            let plain = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
            below.targets.insert((own, plain.into_owned()));
        }
        // A name within the document.
        Some(_) => {
            below.targets.insert((own, String::new()));
        }
        // Some document; or this one, by its name.
        None => below.targets.extend((0..count).map(|at| (at, String::new()))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_that_look_into_themselves_by_several_ways_are_tangled() {
        for (schema, expected) in [
            (json!({"anyOf": [{"items": {"$ref": "#"}}, {"type": "null"}]}), true),
            (
                json!({"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {"a": {}, "b": {}}}),
                false,
            ),
            (json!({"items": {"$ref": "#"}}), false),
            (
                json!({"anyOf": [{}, {}], "items": {"$ref": "#/$defs/t"},
                "$defs": {"t": {"items": {"$ref": "#/$defs/t"}}}}),
                false,
            ),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/b"}},
                "b": {"oneOf": [{"items": {"$ref": "#/$defs/a"}}, {}]}}}),
                true,
            ),
            (json!({"anyOf": [{"$ref": "#name"}]}), true),
            (json!({"anyOf": [{"$ref": "https://example.com/itself"}]}), true),
            (json!(true), false),
        ] {
            assert_eq!(is_tangled(&[&schema]), expected, "{schema}");
        }
        let one = json!({"items": {"$ref": "two.json"}});
        let (plain, back) = (json!({"anyOf": [{}]}), json!({"anyOf": [{"$ref": "one.json"}]}));
        assert!(is_tangled(&[&one, &back]));
        assert!(!is_tangled(&[&json!({"$ref": "#/a"}), &plain]));
    }
}
