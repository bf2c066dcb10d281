//! Changes of JSON bodies, addressed by JSON Pointer (RFC 6901).

use serde_json::{Map, Value};

use crate::policy::template::{Place, Template, Values};

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonStep {
    /// Puts a value there; members on the way are made. At the end of an array, `-` appends.
    Set(Pointer, JsonText),
    Remove(Pointer),
    /// Takes the value from one place to another.
    Move(Pointer, Pointer),
    /// The whole becomes a member of this name.
    Wrap(Box<str>),
    /// What is there becomes the whole; `null` where there is nothing.
    Select(Pointer),
}

/// A value whose strings may have values of the exchange in them.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonText {
    Plain(Value),
    Text(Template),
    Array(Vec<JsonText>),
    Object(Vec<(String, JsonText)>),
}

/// A parsed pointer: names of members, or places in arrays, from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// The message of an error says what to write instead.
    pub fn parse(text: &str) -> Result<Pointer, String> {
        if text.is_empty() {
            return Ok(Pointer(Vec::new()));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("a pointer begins with `/`; write \"/{text}\""));
        };
        let names = rest.split('/').map(|name| {
            if name.replace("~0", "").replace("~1", "").contains('~') {
                return Err("a `~` without 0 or 1; write `~0` for it".to_owned());
            }
            Ok(name.replace("~1", "/").replace("~0", "~"))
        });
        names.collect::<Result<_, _>>().map(Pointer)
    }

    fn get_mut<'v>(names: &[String], top: &'v mut Value) -> Option<&'v mut Value> {
        names.iter().try_fold(top, |value, name| match value {
            Value::Object(members) => members.get_mut(name),
            Value::Array(items) => items.get_mut(place(name)?),
            _ => None,
        })
    }

    fn take(&self, top: &mut Value) -> Option<Value> {
        let Some((last, names)) = self.0.split_last() else {
            return Some(std::mem::take(top));
        };
        match Self::get_mut(names, top)? {
            Value::Object(members) => members.shift_remove(last),
            Value::Array(items) => {
                let at = place(last).filter(|at| *at < items.len())?;
                Some(items.remove(at))
            }
            _ => None,
        }
    }

    /// Puts `new` there. What is on the way and is neither object nor array becomes an object.
    fn put(&self, top: &mut Value, new: Value) {
        let mut value = top;
        for name in &self.0 {
            value = match value {
                Value::Array(items) => match place(name) {
                    Some(at) if at < items.len() => &mut items[at],
                    _ if name == "-" => {
                        items.push(Value::Null);
                        items.last_mut().expect("just pushed")
                    }
                    // Beyond the end: there is no such place.
                    _ => return,
                },
                Value::Object(members) => members.entry(name.clone()).or_insert(Value::Null),
                other => {
                    *other = Value::Object(Map::new());
                    let Value::Object(members) = other else { return };
                    members.entry(name.clone()).or_insert(Value::Null)
                }
            };
        }
        *value = new;
    }
}

/// A place in an array: digits without leading zeros.
fn place(name: &str) -> Option<usize> {
    let is_plain = name == "0" || !name.starts_with('0');
    (is_plain && name.bytes().all(|b| b.is_ascii_digit())).then(|| name.parse().ok())?
}

impl JsonText {
    fn value(&self, values: &impl Values) -> Value {
        match self {
            JsonText::Plain(value) => value.clone(),
            JsonText::Text(template) => {
                let mut text = Vec::new();
                match template.fill(values, Place::Plain, &mut text) {
                    true => Value::String(String::from_utf8_lossy(&text).into_owned()),
                    false => Value::Null,
                }
            }
            JsonText::Array(items) => items.iter().map(|item| item.value(values)).collect(),
            JsonText::Object(members) => {
                let members = members.iter().map(|(name, text)| (name.clone(), text.value(values)));
                Value::Object(members.collect())
            }
        }
    }
}

/// Makes the changes, in their order. A place that is not there is nothing to change.
pub fn apply(steps: &[JsonStep], top: &mut Value, values: &impl Values) {
    for step in steps {
        match step {
            JsonStep::Set(pointer, text) => pointer.put(top, text.value(values)),
            JsonStep::Remove(pointer) => drop(pointer.take(top)),
            JsonStep::Move(from, to) => {
                if let Some(value) = from.take(top) {
                    to.put(top, value);
                }
            }
            JsonStep::Wrap(name) => {
                let inner = std::mem::take(top);
                *top = Value::Object(Map::from_iter([(name.to_string(), inner)]));
            }
            JsonStep::Select(pointer) => *top = pointer.take(top).unwrap_or_default(),
        }
    }
}

/// A form as JSON: strings, and arrays of them where a name is there more than once.
pub fn from_form(form: &[u8]) -> Value {
    let mut members = Map::new();
    for (name, value) in form_urlencoded::parse(form) {
        let value = Value::String(value.into_owned());
        match members.get_mut(&*name) {
            None => drop(members.insert(name.into_owned(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![std::mem::take(first), value]),
        }
    }
    Value::Object(members)
}

/// An object as a form: arrays as a name that is there more than once. `None` for anything that
/// has objects inside, or is none.
pub fn to_form(value: &Value) -> Option<Vec<u8>> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in value.as_object()? {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Array(_) | Value::Object(_) => return None,
            };
            form.append_pair(name, &text);
        }
    }
    Some(form.finish().into_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::template::{Known, Variable};

    struct Fixed;

    impl Values for Fixed {
        fn value(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
            let is_known = *variable == Variable::Client;
            if is_known {
                out.extend_from_slice(b"\"1.2.3.4\"");
            }
            is_known
        }
    }

    fn at(text: &str) -> Pointer {
        Pointer::parse(text).expect("a pointer")
    }

    fn text(text: &str) -> JsonText {
        JsonText::Text(Template::compile(text, &[], Known::Request).expect("a template"))
    }

    #[test]
    fn steps() {
        let plain = |value| JsonText::Plain(value);
        for (step, before, after) in [
            (JsonStep::Set(at("/a"), plain(json!(1))), json!({}), json!({ "a": 1 })),
            (
                JsonStep::Set(at("/a/b/c"), plain(json!(1))),
                json!({ "a": 7 }),
                json!({ "a": { "b": { "c": 1 } } }),
            ),
            (
                JsonStep::Set(at("/a/-"), plain(json!(2))),
                json!({ "a": [1] }),
                json!({ "a": [1, 2] }),
            ),
            (JsonStep::Set(at("/a/0"), plain(json!(2))), json!({ "a": [1] }), json!({ "a": [2] })),
            (JsonStep::Set(at("/a/1"), plain(json!(2))), json!({ "a": [1] }), json!({ "a": [1] })),
            (
                JsonStep::Set(at("/a/01"), plain(json!(2))),
                json!({ "a": [1, 3] }),
                json!({ "a": [1, 3] }),
            ),
            (JsonStep::Set(at(""), plain(json!(2))), json!({ "a": 1 }), json!(2)),
            (
                JsonStep::Set(at("/by"), text("from ${client}")),
                json!({}),
                json!({ "by": "from \"1.2.3.4\"" }),
            ),
            (JsonStep::Set(at("/by"), text("${subject}")), json!({}), json!({ "by": null })),
            (
                JsonStep::Set(
                    at("/o"),
                    JsonText::Object(vec![(
                        "x".to_owned(),
                        JsonText::Array(vec![text("${client}")]),
                    )]),
                ),
                json!({}),
                json!({ "o": { "x": ["\"1.2.3.4\""] } }),
            ),
            (
                JsonStep::Remove(at("/a/b")),
                json!({ "a": { "b": 1, "c": 2 } }),
                json!({ "a": { "c": 2 } }),
            ),
            (JsonStep::Remove(at("/a/0")), json!({ "a": [1, 2] }), json!({ "a": [2] })),
            (JsonStep::Remove(at("/x/y")), json!({ "a": 1 }), json!({ "a": 1 })),
            (JsonStep::Remove(at("/a~1b")), json!({ "a/b": 1 }), json!({})),
            (
                JsonStep::Move(at("/a"), at("/b/c")),
                json!({ "a": [1] }),
                json!({ "b": { "c": [1] } }),
            ),
            (JsonStep::Move(at("/x"), at("/b")), json!({ "a": 1 }), json!({ "a": 1 })),
            (JsonStep::Wrap("data".into()), json!([1]), json!({ "data": [1] })),
            (JsonStep::Select(at("/a/1")), json!({ "a": [1, { "b": 2 }] }), json!({ "b": 2 })),
            (JsonStep::Select(at("/x")), json!({ "a": 1 }), json!(null)),
        ] {
            let mut value = before.clone();
            apply(std::slice::from_ref(&step), &mut value, &Fixed);
            assert_eq!(value, after, "{step:?} of {before}");
        }
    }

    #[test]
    fn forms() {
        let value = from_form(b"a=1&b=x+y%21&a=2&c&a=3");
        assert_eq!(value, json!({ "a": ["1", "2", "3"], "b": "x y!", "c": "" }));
        assert_eq!(to_form(&value).as_deref(), Some(&b"a=1&a=2&a=3&b=x+y%21&c="[..]));
        let plain = json!({ "n": 1.5, "t": true, "z": null });
        assert_eq!(to_form(&plain).as_deref(), Some(&b"n=1.5&t=true&z="[..]));
        for none in [json!([1]), json!("a"), json!({ "a": { "b": 1 } }), json!({ "a": [[1]] })] {
            assert_eq!(to_form(&none), None, "{none}");
        }
    }

    #[test]
    fn pointers() {
        for (text, expected) in [("a", "write \"/a\""), ("/a~2", "write `~0`"), ("/~", "`~0`")] {
            let message = Pointer::parse(text).expect_err(text);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_pointer_panics(names in proptest::collection::vec("[ab01/~-]{0,3}", 0..4)) {
            let text: String = names.iter().map(|name| format!("/{name}")).collect();
            if let Ok(pointer) = Pointer::parse(&text) {
                let mut value = json!({ "a": [1, { "b": 2 }], "b": 0 });
                pointer.put(&mut value, json!("new"));
                drop(pointer.take(&mut value));
            }
        }
    }
}
