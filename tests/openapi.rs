//! Requests made from an OpenAPI document, valid ones and others, and what the gateway's code
//! decides about them, beside a reading of the document that shares none of it.
//!
//! The document is `config/openapi/bookshop.yaml`, or the one that `RINGWAY_OPENAPI_DOCUMENT`
//! names.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use ringway::{
    config::{self, Snapshot, document},
    policy::{
        admit,
        route::RequestView,
        validate::{Asked, Looked},
    },
    wire::{Framing, HeadLimits, Parsed, RequestHead, path::NormalPath},
};
use serde_json::{Map, Value, json};

fn document() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/openapi/bookshop.yaml");
    std::env::var_os("RINGWAY_OPENAPI_DOCUMENT").map_or(own, PathBuf::from)
}

fn snapshot(document: &Path) -> Snapshot {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("ringway.toml");
    let text = format!(
        "[[listeners]]\nbind = \"127.0.0.1:8080\"\n[openapi.api]\ndocument = \"{}\"\n\
         upstream = \"app\"\n[upstreams.app]\nendpoints = [\"127.0.0.1:8000\"]\n",
        document.display()
    );
    std::fs::write(&file, text).expect("written");
    match config::load(&file) {
        Ok((snapshot, warnings)) => {
            assert!(warnings.is_empty(), "{}", warnings[0]);
            snapshot
        }
        Err(report) => panic!("{report}"),
    }
}

/// What the gateway decides.
fn decided(snapshot: &Snapshot, head: &str, body: &[u8]) -> Result<(), &'static str> {
    let limits = HeadLimits { head_bytes_max: 65536, target_bytes_max: 16384, fields_max: 100 };
    let mut parsed = RequestHead::default();
    match parsed.parse(head.as_bytes(), &limits) {
        Ok(Parsed::Complete(())) => {}
        other => panic!("{head}: {other:?}"),
    }
    let mut path = NormalPath::default();
    let bytes = head.as_bytes();
    admit::admit(&parsed, bytes, snapshot.paths, &mut path).map_err(|r| r.reason.token)?;
    let raw = admit::raw_path(&parsed, bytes);
    let forward = if path.forward_differs { &path.forward } else { raw };
    let view = RequestView {
        method: parsed.method,
        method_text: parsed.method_text.of(bytes),
        host: parsed.host.of(bytes),
        path: if path.matched_differs { &path.matched } else { forward },
        query: parsed.query.map(|query| query.of(bytes)),
        head: &parsed,
        buf: bytes,
    };
    let matched = snapshot.router.find(&view).map_err(|refusal| refusal.reason.token)?;
    let policies = snapshot.route(matched.route).policies.policies().expect("policies");
    let rule = policies.validate.as_ref().expect("the document's");
    let asked = Asked { view: &view, matched: &matched };
    let slow = rule.parameters(asked).map_err(|(reason, _)| reason.token)?;
    rule.slow(&slow).map_err(|(reason, _)| reason.token)?;
    let Some(of_body) = &rule.body else { return Ok(()) };
    let fields = parsed
        .fields
        .iter()
        .filter(|field| field.name.of(bytes).eq_ignore_ascii_case(b"content-type"));
    let media: Vec<&[u8]> = fields.map(|field| field.value.of(bytes)).collect();
    let looked = Looked {
        method: view.method_text,
        has_body: !matches!(parsed.framing, Framing::None | Framing::Length(0)),
        length: Some(body.len() as u64),
        media: &media,
        is_encoded: false,
    };
    let content = of_body.content(&looked).map_err(|(reason, _)| reason.token)?;
    match content {
        None => Ok(()),
        Some(at) => {
            let kind = &of_body.contents[at].kind;
            kind.check(body, of_body.depth_max).map_err(|(reason, _)| reason.token)
        }
    }
}

/// The document as a person would read it.
struct Reading {
    root: Value,
    base: String,
    is_old: bool,
}

struct Operation {
    method: &'static str,
    path: String,
    parameters: Vec<Value>,
    body: Option<Value>,
}

impl Reading {
    fn of(path: &Path) -> Reading {
        let text = std::fs::read_to_string(path).expect("a document");
        let root = document::yaml(&text).expect("YAML");
        let url = root["servers"][0]["url"].as_str().unwrap_or_default().to_owned();
        let path = url
            .split_once("://")
            .map_or(&*url, |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
        let base = path.trim_end_matches('/').to_owned();
        let is_old = root["openapi"].as_str().expect("a version").starts_with("3.0");
        Reading { root, base, is_old }
    }

    fn follow<'v>(&'v self, value: &'v Value) -> &'v Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(to) => self.follow(self.root.pointer(&to[1..]).expect("a target")),
            None => value,
        }
    }

    fn operations(&self) -> Vec<Operation> {
        let mut all = Vec::new();
        for (path, item) in self.root["paths"].as_object().expect("paths") {
            for method in ["get", "put", "post", "delete", "patch"] {
                let Some(operation) = item.get(method) else { continue };
                let lists = [&operation["parameters"], &item["parameters"]];
                let lists = lists.into_iter().filter_map(Value::as_array).flatten();
                let parameters = lists.map(|one| self.follow(one).clone()).collect();
                let body = operation.get("requestBody").map(|body| self.follow(body).clone());
                let method = ["GET", "PUT", "POST", "DELETE", "PATCH"]
                    .into_iter()
                    .find(|upper| upper.eq_ignore_ascii_case(method))
                    .expect("a method");
                all.push(Operation { method, path: path.clone(), parameters, body });
            }
        }
        all
    }

    fn types(&self, schema: &Value) -> Vec<String> {
        let mut types: Vec<String> = match &schema["type"] {
            Value::String(name) => vec![name.clone()],
            Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        if self.is_old && schema["nullable"] == true {
            types.push("null".to_owned());
        }
        types
    }

    /// Whether a value is as a schema says.
    fn fits(&self, schema: &Value, value: &Value) -> bool {
        let schema = self.follow(schema);
        let is = |name: &str| match name {
            "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "array" => value.is_array(),
            _ => value.is_object(),
        };
        let types = self.types(schema);
        if !types.is_empty() && !types.iter().any(|name| is(name)) {
            return false;
        }
        if let Some(all) = schema["enum"].as_array()
            && !all.contains(value)
        {
            return false;
        }
        match value {
            Value::Number(number) => {
                let n = number.as_f64().expect("a number");
                let (low, high) = match schema["format"].as_str() {
                    Some("int32") => (-2_147_483_648.0, 2_147_483_647.0),
                    Some("int64") => (-9.223_372_036_854_775e18, 9.223_372_036_854_775e18),
                    _ => (f64::MIN, f64::MAX),
                };
                let low = schema["minimum"].as_f64().unwrap_or(f64::MIN).max(low);
                n >= low && n <= schema["maximum"].as_f64().unwrap_or(f64::MAX).min(high)
            }
            Value::String(text) => {
                let count = text.chars().count() as u64;
                let is_time = schema["format"] != "date-time" || TIMES.contains(&&**text);
                count >= schema["minLength"].as_u64().unwrap_or(0)
                    && count <= schema["maxLength"].as_u64().unwrap_or(u64::MAX)
                    && is_time
            }
            Value::Array(items) => {
                let count = items.len() as u64;
                count >= schema["minItems"].as_u64().unwrap_or(0)
                    && count <= schema["maxItems"].as_u64().unwrap_or(u64::MAX)
                    && items.iter().all(|item| self.fits(&schema["items"], item))
            }
            Value::Object(members) => {
                let required = schema["required"].as_array().into_iter().flatten();
                let is_asked = |name: &&Value| {
                    let own = &schema["properties"][name.as_str().expect("a name")];
                    self.follow(own)["readOnly"] != true
                };
                required
                    .filter(is_asked)
                    .all(|name| members.contains_key(name.as_str().expect("a name")))
                    && members.iter().all(|(name, value)| match schema["properties"].get(name) {
                        Some(own) => self.fits(own, value),
                        None => match &schema["additionalProperties"] {
                            Value::Bool(may) => *may,
                            Value::Null => true,
                            other => self.fits(other, value),
                        },
                    })
            }
            _ => true,
        }
    }

    /// Whether a text stands for something that is as a schema says.
    fn text_fits(&self, schema: &Value, text: &str) -> bool {
        let schema = self.follow(schema);
        let types = self.types(schema);
        let is_number = {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let whole = digits.split(['.', 'e']).next().unwrap_or_default();
            !whole.is_empty()
                && whole.bytes().all(|b| b.is_ascii_digit())
                && (whole == "0" || !whole.starts_with('0'))
                && text.parse::<f64>().is_ok()
        };
        let mut readings = Vec::new();
        if types.iter().any(|name| name == "integer" || name == "number") && is_number {
            readings.push(serde_json::from_str(text).expect("a number"));
        }
        if types.iter().any(|name| name == "boolean") && ["true", "false"].contains(&text) {
            readings.push(json!(text == "true"));
        }
        if types.is_empty() || types.iter().any(|name| name == "string") {
            readings.push(json!(text));
        }
        readings.iter().any(|value| self.fits(schema, value))
    }
}

const TIMES: [&str; 2] = ["2026-11-28T23:00:00Z", "1999-01-01T00:00:00+02:00"];

/// Texts that parameters are tried with.
const TEXTS: [&str; 18] = [
    "1",
    "0",
    "-1",
    "7",
    "100",
    "101",
    "1.0",
    "1.5",
    "007",
    "1e2",
    "abc",
    "a",
    "true",
    "available",
    "new",
    "sold",
    "99999999999999999999",
    "a much longer text than some of them may be, indeed!",
];

/// Makes choices from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % count as u64) as usize
    }

    fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn text(&mut self) -> String {
        TEXTS[self.below(TEXTS.len())].to_owned()
    }

    /// A value that is mostly as a schema says.
    fn value(&mut self, reading: &Reading, schema: &Value, depth: u32) -> Value {
        let schema = reading.follow(schema);
        if self.once_in(14) || depth > 6 {
            let junk =
                [json!(null), json!(1), json!("a"), json!([]), json!({}), json!(true), json!(-7)];
            return junk[self.below(junk.len())].clone();
        }
        if let Some(all) = schema["enum"].as_array() {
            return all[self.below(all.len())].clone();
        }
        let types = reading.types(schema);
        let name = match types.len() {
            0 => "object",
            count => &types[self.below(count)],
        };
        match name {
            "integer" => json!([1, 5, 50, 1_000_000][self.below(4)]),
            "number" => json!([0.5, 3.0, 20.25][self.below(3)]),
            "string" if schema["format"] == "date-time" => json!(TIMES[self.below(2)]),
            "string" => json!(["ab", "Some title", "x", ""][self.below(4)]),
            "boolean" => json!(self.once_in(2)),
            "null" => Value::Null,
            "array" => {
                let count = self.below(4);
                let item = |_| self.value(reading, &schema["items"], depth + 1);
                (0..count).map(item).collect()
            }
            _ => {
                let mut members = Map::new();
                for (name, own) in schema["properties"].as_object().into_iter().flatten() {
                    if !self.once_in(6) {
                        members.insert(name.clone(), self.value(reading, own, depth + 1));
                    }
                }
                if self.once_in(10) {
                    members.insert("other".to_owned(), json!(1));
                }
                members.into()
            }
        }
    }
}

/// A request, and whether the document has it.
struct Made {
    head: String,
    body: Vec<u8>,
    is_good: bool,
}

fn escaped(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes()
        .map(|b| if keep(b) { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Adds one parameter; answers whether it is good.
fn parameter(
    reading: &Reading,
    dice: &mut Dice,
    own: &Value,
    (path, query, fields): (&mut String, &mut Vec<String>, &mut String),
) -> bool {
    let name = own["name"].as_str().expect("a name");
    let (from, schema) = (own["in"].as_str().expect("a place"), reading.follow(&own["schema"]));
    if from == "path" {
        let text = dice.text();
        *path = path.replace(&format!("{{{name}}}"), &escaped(&text));
        return reading.text_fits(schema, &text);
    }
    if dice.once_in(3) {
        return own["required"] != true;
    }
    let types = reading.types(schema);
    let is = |wanted: &str| types.iter().any(|name| name == wanted);
    if from == "query" && is("array") {
        let texts: Vec<String> = (0..=dice.below(3)).map(|_| dice.text()).collect();
        let good = (texts.len() as u64) <= schema["maxItems"].as_u64().unwrap_or(u64::MAX)
            && texts.iter().all(|text| reading.text_fits(&schema["items"], text));
        if own["explode"] == false {
            let all: Vec<String> = texts.iter().map(|text| escaped(text)).collect();
            query.push(format!("{name}={}", all.join(",")));
        } else {
            query.extend(texts.iter().map(|text| format!("{name}={}", escaped(text))));
        }
        return good;
    }
    if from == "query" && own["style"] == "deepObject" {
        let mut good = true;
        for member in ["min", "max", "other"] {
            if dice.once_in(2) {
                let text = dice.text();
                query.push(format!("{name}[{member}]={}", escaped(&text)));
                good &= match schema["properties"].get(member) {
                    Some(own) => reading.text_fits(own, &text),
                    None => schema["additionalProperties"] != false,
                };
            }
        }
        return good;
    }
    let text = dice.text();
    let good = reading.text_fits(schema, &text);
    match from {
        "query" => {
            query.push(format!("{name}={}", escaped(&text)));
            if dice.once_in(10) {
                query.push(format!("{name}={}", escaped(&text)));
                return false;
            }
        }
        "header" => fields.push_str(&format!("{name}: {text}\r\n")),
        _ => fields.push_str(&format!("Cookie: x=1; {name}={}\r\n", escaped(&text))),
    }
    good
}

/// Adds a body; answers whether it is good.
fn body(
    reading: &Reading,
    dice: &mut Dice,
    described: Option<&Value>,
    (fields, body): (&mut String, &mut Vec<u8>),
) -> bool {
    let Some(described) = described else {
        if dice.once_in(8) {
            fields.push_str("Content-Type: application/json\r\nContent-Length: 2\r\n");
            *body = b"{}".to_vec();
            return false;
        }
        return true;
    };
    if dice.once_in(10) {
        return described["required"] != true;
    }
    let contents = described["content"].as_object().expect("contents");
    let (media, content) = contents.iter().nth(dice.below(contents.len())).expect("one");
    let media = media.replace('*', "png");
    let (text, mut good) = match &*media {
        "application/json" => {
            let value = dice.value(reading, &content["schema"], 0);
            let fits = content.get("schema").is_none_or(|schema| reading.fits(schema, &value));
            match dice.once_in(20) {
                true => (format!("{value}}}"), false),
                false => (value.to_string(), fits),
            }
        }
        "application/x-www-form-urlencoded" => form(reading, dice, &content["schema"]),
        _ => ("<anything/>".to_owned(), true),
    };
    let media = if dice.once_in(12) {
        good = false;
        "text/csv".to_owned()
    } else {
        media
    };
    if text.is_empty() {
        // An empty form is no body.
        return described["required"] != true;
    }
    fields.push_str(&format!("Content-Type: {media}\r\nContent-Length: {}\r\n", text.len()));
    *body = text.into_bytes();
    good
}

fn form(reading: &Reading, dice: &mut Dice, schema: &Value) -> (String, bool) {
    let schema = reading.follow(schema);
    let (mut pairs, mut object, mut good) = (Vec::new(), Map::new(), true);
    for (name, own) in schema["properties"].as_object().expect("properties") {
        let own = reading.follow(own);
        if dice.once_in(3) {
            continue;
        }
        let text = dice.text();
        pairs.push(format!("{name}={}", escaped(&text)));
        match reading.types(own).first().map(String::as_str) {
            Some("array") => good &= reading.text_fits(&own["items"], &text),
            Some("object") => good = false,
            _ => good &= reading.text_fits(own, &text),
        }
        object.insert(name.clone(), Value::Null);
    }
    let required = schema["required"].as_array().into_iter().flatten();
    good &= required.into_iter().all(|name| object.contains_key(name.as_str().expect("a name")));
    (pairs.join("&"), good)
}

fn make(reading: &Reading, operation: &Operation, dice: &mut Dice) -> Made {
    let (mut path, mut query) = (operation.path.clone(), Vec::new());
    let (mut fields, mut bytes, mut is_good) = (String::new(), Vec::new(), true);
    for own in &operation.parameters {
        let to = (&mut path, &mut query, &mut fields);
        is_good &= parameter(reading, dice, own, to);
    }
    is_good &= body(reading, dice, operation.body.as_ref(), (&mut fields, &mut bytes));
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let (method, base) = (operation.method, &reading.base);
    let head = format!("{method} {base}{path}{query} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    Made { head, body: bytes, is_good }
}

thread_local! {
    static BOTH: (Reading, Snapshot) = {
        let file = document();
        (Reading::of(&file), snapshot(&file))
    };
}

#[test]
fn there_is_a_route_for_each_operation_and_requests_of_both_kinds() {
    BOTH.with(|(reading, snapshot)| {
        let operations = reading.operations();
        assert_eq!(snapshot.routes.len(), operations.len());
        for operation in &operations {
            let made = (0..2000).map(|seed| make(reading, operation, &mut Dice(seed)).is_good);
            let good = made.filter(|is_good| *is_good).count();
            let name = format!("{} {}", operation.method, operation.path);
            println!("{name}: {good} of 2000 are valid");
            assert!(good > 0, "nothing valid for {name}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn requests_of_the_document_are_decided_as_it_says(
        at in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        BOTH.with(|(reading, snapshot)| {
            let operations = reading.operations();
            let made = make(reading, at.get(&operations), &mut Dice(seed));
            let decision = decided(snapshot, &made.head, &made.body);
            let body = String::from_utf8_lossy(&made.body);
            prop_assert_eq!(decision.is_ok(), made.is_good, "{:?}: {}{}", decision, made.head, body);
            Ok(())
        })?;
    }

    #[test]
    fn what_the_document_does_not_describe_has_no_route(
        method in "GET|PUT|POST|DELETE|PATCH",
        segments in prop::collection::vec("[a-z]{1,9}|pet|books|1", 1..5),
    ) {
        BOTH.with(|(reading, snapshot)| {
            let path = format!("/{}", segments.join("/"));
            let fits = |template: &str| {
                let parts: Vec<&str> = template.split('/').skip(1).collect();
                parts.len() == segments.len()
                    && parts.iter().zip(&segments).all(|(a, b)| a == b || a.starts_with('{'))
            };
            let described = reading.operations();
            let all: Vec<&Operation> = described.iter().filter(|o| fits(&o.path)).collect();
            let head = format!("{method} {}{path} HTTP/1.1\r\nHost: a\r\n\r\n", reading.base);
            let decision = decided(snapshot, &head, b"");
            if all.is_empty() {
                prop_assert_eq!(decision, Err("route.not_found"));
            } else if !all.iter().any(|o| o.method == method) {
                prop_assert_eq!(decision, Err("route.method"));
            } else {
                prop_assert!(!matches!(decision, Err("route.not_found" | "route.method")));
            }
            Ok(())
        })?;
    }
}
