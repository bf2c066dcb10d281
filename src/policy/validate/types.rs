//! Which types a schema lets a value have: parameters are text, and what they stand for has to be
//! known before it can be checked.

use std::cell::Cell;

use serde_json::Value;

/// A set of the types of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types(u8);

impl Types {
    pub const NONE: Types = Types(0);
    pub const STRING: Types = Types(1);
    pub const NUMBER: Types = Types(2);
    pub const BOOLEAN: Types = Types(4);
    pub const NULL: Types = Types(8);
    pub const ARRAY: Types = Types(16);
    pub const OBJECT: Types = Types(32);

    pub fn has(self, other: Types) -> bool {
        self.0 & other.0 != 0
    }

    fn and(self, other: Types) -> Types {
        Types(self.0 & other.0)
    }

    fn or(self, other: Types) -> Types {
        Types(self.0 | other.0)
    }

    fn named(name: &str) -> Types {
        match name {
            "string" => Types::STRING,
            "number" | "integer" => Types::NUMBER,
            "boolean" => Types::BOOLEAN,
            "null" => Types::NULL,
            "array" => Types::ARRAY,
            "object" => Types::OBJECT,
            _ => Types::NONE,
        }
    }

    fn of_value(value: &Value) -> Types {
        match value {
            Value::Null => Types::NULL,
            Value::Bool(_) => Types::BOOLEAN,
            Value::Number(_) => Types::NUMBER,
            Value::String(_) => Types::STRING,
            Value::Array(_) => Types::ARRAY,
            Value::Object(_) => Types::OBJECT,
        }
    }
}

/// Keywords that say something of values of one type.
const TELLING: [(Types, &[&str]); 4] = [
    (Types::STRING, &["pattern", "minLength", "maxLength", "format", "contentEncoding"]),
    (Types::NUMBER, &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]),
    (Types::ARRAY, &["items", "minItems", "maxItems", "uniqueItems", "contains", "prefixItems"]),
    (Types::OBJECT, &["properties", "required", "minProperties", "maxProperties"]),
];

/// Schemas in schemas that are looked into.
const DEPTH_MAX: u32 = 32;

/// Schemas that may still be looked into: one may refer to itself many times.
#[derive(Debug)]
pub struct Fuel(Cell<u32>);

impl Default for Fuel {
    fn default() -> Self {
        Fuel(Cell::new(20_000))
    }
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: Box<str>,
    pub types: Types,
    /// Of its items, where it is an array.
    pub items: Types,
}

/// A schema within the document that its references are of.
#[derive(Clone, Copy)]
pub struct In<'s> {
    root: &'s Value,
    schema: &'s Value,
    fuel: &'s Fuel,
    depth: u32,
}

impl<'s> In<'s> {
    /// A document that is a schema itself.
    pub fn whole(schema: &'s Value, fuel: &'s Fuel) -> In<'s> {
        In::within(schema, schema, fuel)
    }

    pub fn within(root: &'s Value, schema: &'s Value, fuel: &'s Fuel) -> In<'s> {
        In { root, schema, fuel, depth: 0 }
    }

    fn inner(self, schema: &'s Value) -> Option<In<'s>> {
        self.fuel.0.set(self.fuel.0.get().checked_sub(1)?);
        (self.depth < DEPTH_MAX).then_some(In { schema, depth: self.depth + 1, ..self })
    }

    fn keyword(self, name: &str) -> Option<In<'s>> {
        self.inner(self.schema.get(name)?)
    }

    /// What it refers to, in the same document.
    fn target(self) -> Option<In<'s>> {
        let pointer = self.schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        let plain = percent_encoding::percent_decode_str(pointer).decode_utf8().ok()?;
        self.inner(self.root.pointer(&plain)?)
    }

    /// Schemas that the same value is checked with.
    fn beside(self, name: &str) -> impl Iterator<Item = In<'s>> {
        let all = self.schema.get(name).and_then(Value::as_array).map(Vec::as_slice);
        all.unwrap_or_default().iter().filter_map(move |schema| self.inner(schema))
    }

    /// Types that a value may have; `None`: it does not say.
    pub fn types(self) -> Option<Types> {
        let mut known: Option<Types> = match self.schema.get("type") {
            Some(Value::String(name)) => Some(Types::named(name)),
            Some(Value::Array(names)) => {
                let all = names.iter().filter_map(Value::as_str).map(Types::named);
                Some(all.fold(Types::NONE, Types::or))
            }
            _ => None,
        };
        let mut narrow = |types: Option<Types>| {
            known = match (known, types) {
                (Some(a), Some(b)) => Some(a.and(b)),
                (a, b) => a.or(b),
            };
        };
        narrow(self.target().and_then(In::types));
        self.beside("allOf").for_each(|schema| narrow(schema.types()));
        for name in ["anyOf", "oneOf"] {
            let any = self.beside(name).map(In::types).collect::<Option<Vec<_>>>();
            narrow(
                any.filter(|all| !all.is_empty())
                    .map(|all| all.into_iter().fold(Types::NONE, Types::or)),
            );
        }
        let values = self.schema.get("enum").and_then(Value::as_array);
        let own = values.map(|all| all.iter().map(Types::of_value).fold(Types::NONE, Types::or));
        narrow(own);
        narrow(self.schema.get("const").map(Types::of_value));
        known.or_else(|| self.told())
    }

    /// Types that its keywords are about, where none is named.
    fn told(self) -> Option<Types> {
        let is_about = |names: &[&str]| names.iter().any(|name| self.schema.get(name).is_some());
        let all = TELLING.iter().filter(|(_, names)| is_about(names)).map(|(types, _)| *types);
        Some(all.fold(Types::NONE, Types::or)).filter(|types| *types != Types::NONE)
    }

    /// Types of the items of an array.
    pub fn items(self) -> Types {
        let own = self.keyword("items").and_then(In::types);
        let found = own.or_else(|| {
            let all = self.target().into_iter().chain(self.parts());
            all.map(In::items).find(|types| *types != Types::STRING)
        });
        found.unwrap_or(Types::STRING)
    }

    /// Schemas that say more of the same value.
    fn parts(self) -> impl Iterator<Item = In<'s>> {
        ["allOf", "anyOf", "oneOf"].into_iter().flat_map(move |name| self.beside(name))
    }

    /// Members that an object may have by name.
    pub fn members(self) -> Vec<Member> {
        let mut all: Vec<Member> = Vec::new();
        let own = self.schema.get("properties").and_then(Value::as_object);
        for (name, schema) in own.into_iter().flatten() {
            let schema = self.inner(schema);
            let types = schema.and_then(In::types).unwrap_or(Types::STRING);
            let items = schema.map_or(Types::STRING, In::items);
            all.push(Member { name: name.as_str().into(), types, items });
        }
        for part in self.target().into_iter().chain(self.parts()) {
            for member in part.members() {
                if !all.iter().any(|known| known.name == member.name) {
                    all.push(member);
                }
            }
        }
        all
    }

    /// Types of an object's other members.
    pub fn others(self) -> Types {
        let own = self.keyword("additionalProperties").and_then(In::types);
        own.or_else(|| self.target().map(In::others)).unwrap_or(Types::STRING)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_those_that_a_value_may_have() {
        let (string, number) = (Types::STRING, Types::NUMBER);
        for (schema, expected) in [
            (json!({"type": "integer"}), Some(number)),
            (json!({"type": ["integer", "null"]}), Some(number.or(Types::NULL))),
            (json!({"type": "string", "enum": [1, "a"]}), Some(string)),
            (json!({"enum": [1, true]}), Some(number.or(Types::BOOLEAN))),
            (json!({"const": [1]}), Some(Types::ARRAY)),
            (json!({"pattern": "a"}), Some(string)),
            (json!({"minimum": 1, "maxLength": 2}), Some(string.or(number))),
            (json!({"type": "string", "minimum": 1}), Some(string)),
            (
                json!({"allOf": [{"type": ["string", "null"]}, {"type": ["string", "number"]}]}),
                Some(string),
            ),
            (json!({"anyOf": [{"type": "string"}, {"maximum": 2}]}), Some(string.or(number))),
            (json!({"oneOf": [{"type": "string"}, {}]}), None),
            (
                json!({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "boolean"}}}),
                Some(Types::BOOLEAN),
            ),
            (json!({"$ref": "#"}), None),
            (json!({}), None),
            (json!(true), None),
        ] {
            assert_eq!(In::whole(&schema, &Fuel::default()).types(), expected, "{schema}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_many_times_is_left_in_time() {
        let itself = json!({"$ref": "#"});
        let all: Vec<_> = (0..20).map(|_| itself.clone()).collect();
        let schema = json!({"anyOf": all, "allOf": all});
        let fuel = Fuel::default();
        assert_eq!(In::whole(&schema, &fuel).types(), None);
        assert_eq!(In::whole(&schema, &Fuel::default()).members(), []);
    }

    #[test]
    fn members_and_items_are_found_wherever_they_are_said() {
        let schema = json!({
            "allOf": [{"$ref": "#/$defs/a"}, {"properties": {"b": {"type": "boolean"}}}],
            "items": {"$ref": "#/$defs/n"},
            "$defs": {"a": {"properties": {"a": {"type": "integer"}}}, "n": {"type": "number"}}
        });
        let fuel = Fuel::default();
        let schema = In::whole(&schema, &fuel);
        let members = schema.members();
        let member = |name: &str, types| Member { name: name.into(), types, items: Types::STRING };
        assert_eq!(members, [member("a", Types::NUMBER), member("b", Types::BOOLEAN)]);
        assert_eq!(schema.items(), Types::NUMBER);
        assert_eq!(schema.others(), Types::STRING);
    }
}
