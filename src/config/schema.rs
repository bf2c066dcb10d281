//! The JSON Schema of the configuration file (draft 2020-12), for completion in editors.

use schemars::{Schema, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value};

use super::{
    decode::{Key, Section},
    file::File,
};

/// The schema of a whole configuration file.
pub fn schema() -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "Ringway configuration".into());
    schema
}

/// The schema of one section, from what [`crate::section!`] knows of it and its keys' schemas.
pub fn of_section(section: &Section, values: Vec<Schema>) -> Schema {
    let required: Vec<&str> =
        section.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut properties = Map::new();
    for (key, mut value) in section.keys.iter().zip(values) {
        describe(key, &mut value);
        properties.insert(key.name.to_owned(), value.into());
    }
    let mut schema = json_schema!({
        "type": "object",
        "description": section.about,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

fn describe(key: &Key, value: &mut Schema) {
    value.insert("description".to_owned(), key.about.clone().into());
    if let Some(default) = key.default.as_deref().and_then(json) {
        value.insert("default".to_owned(), default);
    }
    let is_integer = value.get("type").and_then(Value::as_str) == Some("integer");
    if let Some((min, max)) = key.bounds.as_ref().filter(|_| is_integer) {
        for (name, bound) in [("minimum", min), ("maximum", max)] {
            if let Some(bound) = json(bound) {
                value.insert(name.to_owned(), bound);
            }
        }
    }
}

/// A TOML value as JSON.
fn json(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    serde_json::to_value(table.get("value")?).ok()
}
