//! Places in OpenAPI documents, and what `$ref` leads to.
//!
//! Invariant: nothing is read but the document and what is in its folder or below it, by the names
//! that are written. Where a symbolic link there leads is whose folder it is to decide.

use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::super::schemas::Files;
use crate::config::document;

/// Longest chain of `$ref` that lead to one another.
const CHAIN_MAX: usize = 32;

/// A place in a document, with what is there.
#[derive(Clone)]
pub(super) struct Site {
    document: Arc<(Value, String)>,
    /// Of the document that all of it began with.
    folder: Arc<Path>,
    pub path: PathBuf,
    pub pointer: String,
}

/// What is wrong in a document.
pub(super) struct Wrong {
    /// Where: file, line and pointer.
    pub at: String,
    pub what: String,
    pub fix: String,
}

/// A name as JSON pointers have it (RFC 6901 §3).
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl Site {
    pub fn root(files: &Files, path: &Path) -> Result<Site, String> {
        let document = files.read(path)?;
        let folder = path.parent().unwrap_or(Path::new("")).into();
        Ok(Site { document, folder, path: path.to_owned(), pointer: String::new() })
    }

    pub fn value(&self) -> &Value {
        self.document.0.pointer(&self.pointer).unwrap_or(&Value::Null)
    }

    /// The member of this name, if it is there.
    pub fn member(&self, name: &str) -> Option<Site> {
        self.value().get(name)?;
        Some(self.below(&escaped(name)))
    }

    /// The items of a list.
    pub fn items(&self) -> impl Iterator<Item = Site> + '_ {
        let count = self.value().as_array().map_or(0, Vec::len);
        (0..count).map(|at| self.below(&at.to_string()))
    }

    /// The members of an object, with their names.
    pub fn members(&self) -> Vec<(String, Site)> {
        let members = self.value().as_object().into_iter().flatten();
        members.map(|(name, _)| (name.clone(), self.below(&escaped(name)))).collect()
    }

    fn below(&self, escaped: &str) -> Site {
        Site { pointer: format!("{}/{escaped}", self.pointer), ..self.clone() }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.value().get(name)?.as_str()
    }

    pub fn flag(&self, name: &str) -> Option<bool> {
        self.value().get(name)?.as_bool()
    }

    /// A mistake here.
    pub fn wrong(&self, what: impl Into<String>, fix: impl Into<String>) -> Wrong {
        let line = document::line_of(&self.document.1, &self.pointer);
        let line = line.map_or(String::new(), |line| format!(", line {line}"));
        let at = match &*self.pointer {
            "" => format!("{}{line}", self.path.display()),
            pointer => format!("{}{line}, at {pointer}", self.path.display()),
        };
        Wrong { at, what: what.into(), fix: fix.into() }
    }

    /// The file that a reference names, if it is in the document's folder or below it.
    fn named(&self, name: &str) -> Option<PathBuf> {
        let own = self.path.strip_prefix(&self.folder).ok()?;
        let mut inside = own.parent()?.to_owned();
        for component in Path::new(name).components() {
            match component {
                Component::Normal(part) => inside.push(part),
                Component::CurDir => {}
                Component::ParentDir if inside.pop() => {}
                _ => return None,
            }
        }
        Some(self.folder.join(inside))
    }

    /// Where a reference leads to: in the same document, or in a file beside or below it.
    pub fn target(&self, files: &Files, reference: &str) -> Result<Site, Wrong> {
        let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        if file.contains("://") {
            let what = format!("`$ref` leads to `{file}`, and nothing is fetched");
            return Err(self.wrong(what, "put it into a file beside the document, and name that"));
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let site = match file {
            "" => self.clone(),
            name => {
                let name = decode(name);
                let Some(path) = self.named(&name) else {
                    let what = format!("`$ref` leads to `{name}`, out of the document's folder");
                    let fix = "put that file beside the document or below it and write where it \
                               is from here, such as schemas/order.yaml, or put both into one file";
                    return Err(self.wrong(what, fix));
                };
                let document = files.read(&path).map_err(|why| {
                    let fix = "write a path relative to this file";
                    self.wrong(format!("`$ref` leads to `{name}`, which {why}"), fix)
                })?;
                Site { document, path, ..self.clone() }
            }
        };
        let site = Site { pointer: decode(pointer), ..site };
        match site.document.0.pointer(&site.pointer) {
            Some(_) => Ok(site),
            None => {
                let what = format!("`$ref` leads to `{reference}`, and there is nothing");
                Err(self.wrong(what, "write where it is, such as #/components/schemas/Order"))
            }
        }
    }

    /// What is meant here: behind `$ref`, if there is one.
    pub fn followed(&self, files: &Files) -> Result<Site, Wrong> {
        let mut site = self.clone();
        for _ in 0..CHAIN_MAX {
            match site.text("$ref").map(str::to_owned) {
                None => return Ok(site),
                Some(reference) => site = site.target(files, &reference)?,
            }
        }
        Err(self.wrong("`$ref` leads back to itself", "let it lead to what is meant"))
    }
}
