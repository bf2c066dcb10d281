//! JSON Schemas in files: a file is read once, and what it refers to is looked for in its folder
//! and below it. Nothing is fetched.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

use crate::{
    config::{
        document,
        report::{Place, Problem},
    },
    policy::validate::schema::{Load, Schema, Text, Wrong},
};

/// Most files that schemas are made of.
const FILES_MAX: usize = 256;
/// What files have as their base: nobody can fetch it.
const SCHEME: &str = "schema:///";
/// What a path has to have escaped in a URI.
const ESCAPED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'#').add(b'?').add(b'%').add(b'"').add(b'<').add(b'>');

/// Files that were read, by their path.
#[derive(Default)]
pub(super) struct Files(Mutex<BTreeMap<PathBuf, Read>>);

/// A file's value and its text, or why there is none.
type Read = Result<Arc<(Value, String)>, String>;

impl Files {
    /// A file, read once.
    pub fn read(&self, path: &Path) -> Read {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = known.get(path) {
            return read.clone();
        }
        if known.len() >= FILES_MAX {
            return Err(format!("is one file more than the {FILES_MAX} that schemas may have"));
        }
        let read = document::read(path).map(Arc::new);
        known.insert(path.to_owned(), read.clone());
        read
    }

    /// Those that were read, or should have been.
    pub fn paths(&self) -> Vec<PathBuf> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.keys().cloned().collect()
    }
}

/// Reads files below `folder` by the URI that stands for them.
fn loader(files: &Arc<Files>, folder: PathBuf) -> Arc<Load> {
    let files = files.clone();
    Arc::new(move |uri: &str| {
        let Some(path) = uri.strip_prefix(SCHEME) else {
            return Err(format!(
                "`$ref` leads to `{uri}`, which is not fetched: put it into a file beside the \
                 schema, and name that file"
            ));
        };
        let name =
            percent_decode_str(path.split('#').next().unwrap_or_default()).decode_utf8_lossy();
        // `..` is gone from a URI, but for what was escaped in it.
        if !Path::new(&*name).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!(
                "`$ref` leads to `{name}`, out of the schema's folder: put that file beside the \
                 schema or below it"
            ));
        }
        let read = files.read(&folder.join(&*name));
        read.map(|read| read.0.clone())
            .map_err(|why| format!("`$ref` leads to `{name}`, which {why}"))
    })
}

/// A schema of the configuration's own, whose references are of files in `folder`.
pub(super) fn inline(
    files: &Arc<Files>,
    folder: &Path,
    value: &Value,
    formats: bool,
) -> Result<Schema, Wrong> {
    let text = Text { value, whole: None, base: "schema:///-", formats };
    Schema::compile(&text, &loader(files, folder.to_owned()))
}

/// A schema in a file, or in a part of it.
pub(super) struct InFile {
    pub schema: Schema,
    pub file: Arc<(Value, String)>,
    /// Behind `#`, decoded.
    pub pointer: String,
}

/// Compiles what `name` says, a file with perhaps a part of it.
pub(super) fn in_file(
    files: &Arc<Files>,
    folder: &Path,
    name: &str,
    formats: bool,
) -> Result<InFile, String> {
    let (name, part) = name.split_once('#').unwrap_or((name, ""));
    let path = folder.join(name);
    let file = files.read(&path).map_err(|why| format!("the schema `{}` {why}", path.display()))?;
    let pointer = percent_decode_str(part).decode_utf8_lossy().into_owned();
    let root = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let own = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let base = format!("{SCHEME}{}", utf8_percent_encode(&own, ESCAPED));
    let load = loader(files, root);
    let compiled = if part.is_empty() {
        Schema::compile(&Text { value: &file.0, whole: None, base: &base, formats }, &load)
    } else {
        if file.0.pointer(&pointer).is_none() {
            let title = format!("the schema `{}` has nothing at `{pointer}`", path.display());
            return Err(format!("{title}; write where it is, such as #/$defs/Order"));
        }
        let mut value = json!({ "$ref": format!("{base}#{part}") });
        if let (Some(draft), Some(members)) = (file.0.get("$schema"), value.as_object_mut()) {
            members.insert("$schema".to_owned(), draft.clone());
        }
        Schema::compile(
            &Text { value: &value, whole: Some(&file.0), base: "schema:///-", formats },
            &load,
        )
    };
    match compiled {
        Ok(schema) => Ok(InFile { schema, file, pointer }),
        Err(wrong) => {
            let line = document::line_of(&file.1, &wrong.pointer);
            let line = line.filter(|_| part.is_empty());
            let line = line.map_or(String::new(), |line| format!(", line {line}"));
            let at = if wrong.pointer.is_empty() { "" } else { ", at " };
            let (path, pointer) = (path.display(), &wrong.pointer);
            Err(format!("the schema `{path}`{line}{at}{pointer}: {}", wrong.what))
        }
    }
}

/// What is wrong with a schema that is written in the configuration.
pub(super) fn wrong_here(wrong: &Wrong, place: Place) -> Problem {
    let at =
        if wrong.pointer.is_empty() { String::new() } else { format!(" at {}", wrong.pointer) };
    let title = format!("the schema is wrong{at}: {}", wrong.what);
    Problem::error(place, title)
        .fix("write a JSON Schema, such as { type = \"integer\", minimum = 1 }")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stay_in_the_schemas_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let inside = dir.path().join("in");
        std::fs::create_dir(&inside).expect("made");
        for path in [dir.path().join("b.json"), inside.join("b.json")] {
            std::fs::write(path, "{\"type\": \"string\"}").expect("written");
        }
        let outside = dir.path().join("b.json").display().to_string().replace('/', "%2f");
        for (reference, is_inside) in [
            ("b.json", true),
            // As any URI, which leads to nothing above its root (RFC 3986 §5.2.4).
            ("../b.json", true),
            ("..%2fb.json", false),
            ("%2e%2e%2fb.json", false),
            (&outside, false),
        ] {
            let value = json!({ "$ref": reference });
            let built = inline(&Arc::default(), &inside, &value, false);
            let why = built.err().map(|wrong| wrong.what).unwrap_or_default();
            assert_eq!(why.is_empty(), is_inside, "{reference}: {why}");
            assert!(is_inside || why.contains("out of the schema's folder"), "{why}");
        }
    }
}
