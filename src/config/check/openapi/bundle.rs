//! Schemas of an OpenAPI document as JSON Schemas that stand for themselves: what they refer to is
//! brought along (`$defs`), and what OpenAPI 3.0 writes otherwise is written as draft 2020-12 does.
//!
//! What says nothing of requests is left out: examples, descriptions, `discriminator`, `xml`.
//! Members that are `readOnly` are not asked of requests.

use std::{collections::HashMap, path::PathBuf};

use serde_json::{Map, Value, json};

use super::{
    super::schemas::Files,
    site::{Site, Wrong},
};

/// Most schemas that one may refer to.
const DEFS_MAX: usize = 2000;
/// Schemas that may be in one another.
const DEPTH_MAX: u32 = 100;

/// Keywords whose value is a schema.
const SCHEMA: [&str; 10] = [
    "not",
    "items",
    "additionalProperties",
    "contains",
    "propertyNames",
    "if",
    "then",
    "else",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
const LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value has schemas by name.
const MAPS: [&str; 3] = ["properties", "patternProperties", "dependentSchemas"];
/// Keywords that say something of values themselves.
const PLAIN: [&str; 22] = [
    "type",
    "enum",
    "const",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "required",
    "dependentRequired",
    "format",
    "contentEncoding",
];
/// Keywords that give a schema, or a part of it, another name.
const NAMING: [&str; 5] =
    ["$id", "$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor"];

/// Gathers one schema with all that it refers to.
pub(super) struct Bundle<'f> {
    files: &'f Files,
    /// The document is of OpenAPI 3.0.
    is_old: bool,
    known: HashMap<(PathBuf, String), String>,
    waiting: Vec<(String, Site)>,
    /// Where those that are brought along are from, by their number.
    sites: Vec<Site>,
}

impl<'f> Bundle<'f> {
    /// The schema at `site`, by itself, and where `#/$defs/d0` and those after it are from.
    pub fn of(files: &'f Files, is_old: bool, site: &Site) -> Result<(Value, Vec<Site>), Wrong> {
        let (known, waiting, sites) = (HashMap::new(), Vec::new(), Vec::new());
        let mut bundle = Bundle { files, is_old, known, waiting, sites };
        let mut whole = bundle.schema(site, 0)?;
        let mut defs = Map::new();
        while let Some((name, site)) = bundle.waiting.pop() {
            let schema = bundle.schema(&site, 0)?;
            defs.insert(name, schema);
        }
        if let Some(members) = whole.as_object_mut() {
            members.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
            if !defs.is_empty() {
                members.insert("$defs".into(), defs.into());
            }
        }
        Ok((whole, bundle.sites))
    }

    fn reference(&mut self, site: &Site, reference: &str) -> Result<Value, Wrong> {
        let target = site.target(self.files, reference)?;
        let key = (target.path.clone(), target.pointer.clone());
        let count = self.known.len();
        let name = self.known.entry(key).or_insert_with(|| {
            let name = format!("d{count}");
            self.sites.push(target.clone());
            self.waiting.push((name.clone(), target));
            name
        });
        let to = json!({ "$ref": format!("#/$defs/{name}") });
        if count > DEFS_MAX {
            let what = format!("a schema refers to more than {DEFS_MAX} others");
            return Err(site.wrong(what, "describe less in one place"));
        }
        Ok(to)
    }

    fn schema(&mut self, site: &Site, depth: u32) -> Result<Value, Wrong> {
        if depth > DEPTH_MAX {
            let what = format!("schemas are in one another more than {DEPTH_MAX} times");
            return Err(site.wrong(what, "refer to some of them with `$ref`"));
        }
        let value = site.value().clone();
        let members = match &value {
            Value::Bool(_) => return Ok(value),
            Value::Object(members) => members,
            _ => return Err(site.wrong("this is no schema", "write a schema: type: string")),
        };
        let mut out = Map::new();
        if let Some(reference) = site.text("$ref") {
            let to = self.reference(site, reference)?;
            // What is beside a reference counts for nothing (OpenAPI 3.0.4 §4.7.24).
            if self.is_old {
                return Ok(to);
            }
            out.insert("$ref".into(), to["$ref"].clone());
        }
        for (name, value) in members {
            if NAMING.contains(&&**name) {
                let what = format!("`{name}` is not understood in an OpenAPI document here");
                let fix = "remove it, and refer to schemas by #/components/schemas/NAME";
                return Err(site.wrong(what, fix));
            }
            let Some(inner) = site.member(name) else { continue };
            if SCHEMA.contains(&&**name) {
                out.insert(name.clone(), self.schema(&inner, depth + 1)?);
            } else if LISTS.contains(&&**name) {
                let list = inner.items().map(|item| self.schema(&item, depth + 1));
                out.insert(name.clone(), list.collect::<Result<Vec<_>, _>>()?.into());
            } else if MAPS.contains(&&**name) {
                let mut map = Map::new();
                for (name, inner) in inner.members() {
                    map.insert(name, self.schema(&inner, depth + 1)?);
                }
                out.insert(name.clone(), map.into());
            } else if PLAIN.contains(&&**name) {
                out.insert(name.clone(), value.clone());
            }
        }
        if self.is_old {
            renewed(&mut out, members);
        }
        bounded(&mut out);
        self.without_read_only(site, &mut out);
        Ok(out.into())
    }

    /// What a response has and a request need not.
    fn without_read_only(&self, site: &Site, out: &mut Map<String, Value>) {
        let Some(properties) = site.member("properties") else { return };
        let is_read_only = |name: &Value| {
            let name = name.as_str().unwrap_or_default();
            let property = properties.member(name);
            let target = property.as_ref().and_then(|own| own.followed(self.files).ok());
            let says = |site: &Option<Site>| {
                site.as_ref().is_some_and(|site| site.flag("readOnly") == Some(true))
            };
            says(&property) || says(&target)
        };
        if let Some(Value::Array(required)) = out.get_mut("required") {
            required.retain(|name| !is_read_only(name));
            // Which draft 4 did not allow, and draft 2020-12 does.
            if required.is_empty() {
                out.remove("required");
            }
        }
    }
}

/// What OpenAPI 3.0 writes otherwise.
fn renewed(out: &mut Map<String, Value>, members: &Map<String, Value>) {
    if members.get("nullable") == Some(&Value::Bool(true))
        && let Some(Value::String(name)) = out.get("type")
    {
        let types = json!([name, "null"]);
        out.insert("type".into(), types);
    }
    for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        match out.get(exclusive) {
            Some(Value::Bool(true)) => {
                if let Some(value) = out.remove(bound) {
                    out.insert(exclusive.into(), value);
                } else {
                    out.remove(exclusive);
                }
            }
            Some(Value::Bool(false)) => {
                out.remove(exclusive);
            }
            _ => {}
        }
    }
}

/// Whole numbers of a format that has bounds.
fn bounded(out: &mut Map<String, Value>) {
    let (low, high) = match out.get("format").and_then(Value::as_str) {
        Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
        Some("int64") => (i64::MIN, i64::MAX),
        _ => return,
    };
    if out.get("type").is_some_and(|name| name == "integer" || name == "number") {
        // Beside what is said, not in place of it.
        let bounds = json!({ "minimum": low, "maximum": high });
        match out.get_mut("allOf") {
            Some(Value::Array(all)) => all.push(bounds),
            _ => {
                out.insert("allOf".into(), json!([bounds]));
            }
        }
    }
}
