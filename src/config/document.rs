//! Documents that the configuration names: JSON and YAML 1.2, read as JSON values.
//!
//! Invariant: what is read has a bound, also where an alias stands for much, and no name is there
//! twice. Where something is in the text is found again when a message needs it.

use std::{collections::HashMap, path::Path};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

use super::bounded;
use crate::policy::validate::strict_json;

/// Largest document, in bytes.
pub const BYTES_MAX: u64 = 16 << 20;
/// Values in one document, those that an alias stands for counted each time.
const VALUES_MAX: usize = 1_000_000;
/// Deepest nesting.
const DEPTH_MAX: usize = strict_json::DEPTH_MAX as usize;

/// Reads a document; JSON where its name ends so, else YAML.
pub fn read(path: &Path) -> Result<(Value, String), String> {
    let read = bounded::read(path, BYTES_MAX);
    let bytes = read.map_err(|error| format!("cannot be read: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let is_json = path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("json"));
    let value = if is_json { json(&text) } else { yaml(&text) };
    value.map(|value| (value, text))
}

fn json(text: &str) -> Result<Value, String> {
    strict_json::read(text.as_bytes(), strict_json::DEPTH_MAX).map_err(|bad| match bad {
        strict_json::Bad::Deep => format!("is nested deeper than {DEPTH_MAX} levels"),
        strict_json::Bad::Malformed(why) => format!("is not JSON: {why}"),
    })
}

/// Reads one YAML document.
pub fn yaml(text: &str) -> Result<Value, String> {
    let mut tree = Tree { parser: Parser::new_from_str(text), anchors: HashMap::new(), values: 0 };
    tree.document()
}

/// The line, from 1, of what a JSON pointer leads to; of what is nearest to it, where that is not
/// there.
pub fn line_of(text: &str, pointer: &str) -> Option<usize> {
    let mut seeker = Seeker { parser: Parser::new_from_str(text), wanted: pointer, best: None };
    seeker.value(&mut String::new(), 0);
    seeker.best.map(|(_, line)| line)
}

struct Tree<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: HashMap<usize, Value>,
    values: usize,
}

impl<'t> Tree<'t> {
    fn next(&mut self) -> Result<(Event<'t>, usize), String> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => {
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                Err(format!("is not YAML: line {line}, column {column}: {}", error.info()))
            }
            None => Err("is not YAML: it ends too early".to_owned()),
        }
    }

    fn document(&mut self) -> Result<Value, String> {
        let mut found = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return found.ok_or_else(|| "is empty".to_owned()),
                (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd, _)
                | (Event::Nothing, _) => {}
                (_, line) if found.is_some() => {
                    return Err(format!("line {line}: has more than one document"));
                }
                (event, line) => found = Some(self.value((event, line), 0)?),
            }
        }
    }

    fn value(&mut self, (event, line): (Event<'t>, usize), depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err(too_deep(line));
        }
        self.count(1, line)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (scalar(&text, style, tag.as_deref(), line)?, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        next => items.push(self.value(next, depth + 1)?),
                    }
                }
                (Value::Array(items), anchor)
            }
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let value =
                    known.ok_or_else(|| format!("line {line}: the alias stands for itself"))?;
                self.count(size(&value), line)?;
                if depth + levels(&value) > DEPTH_MAX {
                    return Err(too_deep(line));
                }
                (value, 0)
            }
            _ => return Err(format!("line {line}: is not YAML")),
        };
        if anchor != 0 {
            self.count(size(&value), line)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, String> {
        let mut members = Map::new();
        loop {
            let (name, line) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Value::Object(members)),
                (Event::Scalar(text, ..), line) => (text.into_owned(), line),
                (_, line) => return Err(format!("line {line}: a name must be a text")),
            };
            if name == "<<" {
                let why = "`<<` is no part of YAML 1.2: write the members out";
                return Err(format!("line {line}: {why}"));
            }
            let next = self.next()?;
            let value = self.value(next, depth + 1)?;
            if members.contains_key(&name) {
                return Err(format!("line {line}: `{name}` is there twice"));
            }
            members.insert(name, value);
        }
    }

    fn count(&mut self, more: usize, line: usize) -> Result<(), String> {
        self.values += more;
        match self.values > VALUES_MAX {
            true => Err(format!("line {line}: has more than {VALUES_MAX} values")),
            false => Ok(()),
        }
    }
}

/// Values in a value.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// Values in one another below a value.
fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(|item| 1 + levels(item)).max().unwrap_or(0),
        Value::Object(members) => members.values().map(|own| 1 + levels(own)).max().unwrap_or(0),
        _ => 0,
    }
}

fn too_deep(line: usize) -> String {
    format!("line {line}: is nested deeper than {DEPTH_MAX} levels")
}

/// A scalar, by the core schema (YAML 1.2.2 §10.3.2).
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Value, String> {
    let is_text = style != ScalarStyle::Plain
        || tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    if is_text {
        return Ok(Value::String(text.to_owned()));
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let based = |prefix: &str, radix| {
        let rest = text.strip_prefix(prefix)?;
        u64::from_str_radix(rest, radix).ok().map(Value::from)
    };
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
        && digits.bytes().any(|b| b.is_ascii_digit());
    let plain = text.strip_prefix('+').unwrap_or(text);
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN") => {
            return Err(format!("line {line}: JSON has no number `{text}`"));
        }
        _ if is_number => {
            let whole = plain.parse::<i64>().map(Value::from);
            let whole = whole.or_else(|_| plain.parse::<u64>().map(Value::from));
            let broken = || plain.parse::<f64>().ok().and_then(Number::from_f64);
            // Such as a version with two dots, or a date.
            let text = || Value::String(text.to_owned());
            whole.unwrap_or_else(|_| broken().map_or_else(text, Value::Number))
        }
        _ => {
            let based = based("0x", 16).or_else(|| based("0o", 8));
            based.unwrap_or_else(|| Value::String(text.to_owned()))
        }
    })
}

/// Looks for a place.
struct Seeker<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    wanted: &'t str,
    /// Length of the pointer of what is nearest, and its line.
    best: Option<(usize, usize)>,
}

impl Seeker<'_> {
    fn next(&mut self) -> Option<(Event<'_>, usize)> {
        self.parser.next_event()?.ok().map(|(event, span)| (event, span.start.line()))
    }

    fn seen(&mut self, pointer: &str, line: usize) {
        let rest = self.wanted.strip_prefix(pointer);
        let is_on_the_way = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if is_on_the_way && self.best.is_none_or(|(len, _)| len < pointer.len()) {
            self.best = Some((pointer.len(), line));
        }
    }

    /// `None`: the text ends.
    fn value(&mut self, pointer: &mut String, depth: usize) -> Option<()> {
        let own = pointer.len();
        loop {
            let (event, line) = self.next()?;
            let kind = match event {
                Event::SequenceStart(..) => 1,
                Event::MappingStart(..) => 2,
                Event::Scalar(..) | Event::Alias(_) => 0,
                Event::SequenceEnd | Event::MappingEnd => return None,
                _ => continue,
            };
            // A member was seen by its name already.
            self.seen(pointer, line);
            if kind == 0 || depth > DEPTH_MAX {
                return Some(());
            }
            let mut at = 0;
            loop {
                if kind == 2 {
                    let (name, line) = match self.next()? {
                        (Event::Scalar(text, ..), line) => (text.into_owned(), line),
                        _ => return Some(()),
                    };
                    pointer.push('/');
                    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                    self.seen(pointer, line);
                } else {
                    pointer.push_str(&format!("/{at}"));
                    at += 1;
                }
                let inner = self.value(pointer, depth + 1);
                pointer.truncate(own);
                if inner.is_none() {
                    return Some(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_is_read_by_its_core_schema() {
        let text = "
a: {b: [1, -2, 0x1F, 0o17, 1.5, 1e3, '1', \"x\"], c: ~}
200: yes
d: true
e: 1.2.3
f: 2024-01-01
g: !!str 12
h: |
  two
  lines
i: &one {k: v}
j: *one
k:
";
        let expected = json!({
            "a": {"b": [1, -2, 31, 15, 1.5, 1000.0, "1", "x"], "c": null},
            "200": "yes", "d": true, "e": "1.2.3", "f": "2024-01-01", "g": "12",
            "h": "two\nlines\n", "i": {"k": "v"}, "j": {"k": "v"}, "k": null
        });
        assert_eq!(yaml(text), Ok(expected));
    }

    #[test]
    fn what_is_no_document_is_told_with_its_line() {
        for (text, expected) in [
            ("", "is empty"),
            ("a: 1\na: 2", "line 2: `a` is there twice"),
            ("a: [1\nb: 2", "is not YAML: line 2"),
            ("a: 1\n---\nb: 1", "line 3: has more than one document"),
            ("a: &x\n  - *x", "line 2: the alias stands for itself"),
            ("b: {a: 1}\nc:\n  <<: 1", "line 3: `<<` is no part of YAML 1.2"),
            ("? [a]\n: 1", "line 1: a name must be a text"),
            ("a: .inf", "line 1: JSON has no number `.inf`"),
        ] {
            let told = yaml(text).expect_err(text);
            assert!(told.starts_with(expected), "{text}: {told}");
        }
    }

    #[test]
    fn aliases_that_stand_for_much_and_deep_nesting_are_not_followed() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        assert!(yaml(&text).expect_err("a bomb").contains("more than 1000000 values"));
        let deep = "[".repeat(5000);
        assert!(yaml(&deep).is_err());
        let _ = line_of(&deep, "/0/0");
    }

    /// Each is as deep as may be, and begins where the one before it ends.
    #[test]
    fn aliases_within_aliases_are_no_deeper_than_what_is_written_out() {
        let mut text = "a0: &a0 x\n".to_owned();
        for n in 1..2000 {
            let (open, close) = ("[".repeat(90), "]".repeat(90));
            text.push_str(&format!("a{n}: &a{n} {open}*a{}{close}\n", n - 1));
        }
        let told = yaml(&text).expect_err("too deep");
        assert_eq!(told, "line 3: is nested deeper than 100 levels");
        // By one level each, below a name: 99 are written out, and no more.
        let chain = |count: usize| {
            let one = |n: usize| match n {
                0 => "- &a0 x\n".to_owned(),
                n => format!("- &a{n} [*a{}]\n", n - 1),
            };
            (0..count).map(one).collect::<String>()
        };
        let value = yaml(&chain(100)).expect("deep enough");
        assert_eq!(levels(&value), DEPTH_MAX);
        assert_eq!(yaml(&chain(101)), Err(too_deep(101)));
    }

    #[test]
    fn lines_of_places_are_found() {
        let text = "openapi: 3.1.0\npaths:\n  /a/{b}:\n    get:\n      parameters:\n        - name: x\n        - name: y\n          in: query\n";
        for (pointer, line) in [
            ("", 1),
            ("/openapi", 1),
            ("/paths", 2),
            ("/paths/~1a~1{b}", 3),
            ("/paths/~1a~1{b}/get/parameters/1/in", 8),
            ("/paths/~1a~1{b}/get/parameters/1/name", 7),
            ("/paths/~1a~1{b}/put/x", 3),
            ("/none", 1),
        ] {
            assert_eq!(line_of(text, pointer), Some(line), "{pointer}");
        }
        let json = "{\n  \"a\": [\n    1,\n    {\"b\": 2}\n  ]\n}";
        assert_eq!(line_of(json, "/a/1/b"), Some(4));
    }
}
