//! Secrets that are somewhere else: in the environment or in a file.

use std::path::Path;

use super::{Bad, FromText, bad};

/// Largest file with a secret, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where a secret is. Used as [`super::Secret`], so that one that is written out is not shown.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretText {
    /// `env:NAME`
    Env(String),
    /// `file:PATH`
    File(String),
    Text(String),
}

impl FromText for SecretText {
    const WHAT: &'static str = "a secret: \"env:NAME\", \"file:PATH\", or the secret itself";
    const EXAMPLE: &'static str = "env:JWT_SECRET";

    fn read(text: &str) -> Result<Self, Bad> {
        let named = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        match text.split_once(':') {
            Some(("env", name)) if named(name) => Ok(SecretText::Env(name.to_owned())),
            Some(("file", path)) if named(path) => Ok(SecretText::File(path.to_owned())),
            Some(("env" | "file", _)) => {
                bad("without a name", "write \"env:NAME\" or \"file:PATH\"")
            }
            _ if text.is_empty() => bad("empty", "write \"env:NAME\" or \"file:PATH\""),
            _ => Ok(SecretText::Text(text.to_owned())),
        }
    }

    fn show(&self) -> String {
        match self {
            SecretText::Env(name) => format!("env:{name}"),
            SecretText::File(path) => format!("file:{path}"),
            SecretText::Text(text) => text.clone(),
        }
    }
}

impl SecretText {
    /// The file it is in.
    pub fn file(&self) -> Option<&str> {
        match self {
            SecretText::File(path) => Some(path),
            _ => None,
        }
    }

    /// The secret; line ends at the end of a file are none of it. An error does not quote it.
    pub fn get(&self, folder: &Path) -> Result<String, String> {
        let secret = match self {
            SecretText::Text(text) => return Ok(text.clone()),
            SecretText::Env(name) => std::env::var(name).map_err(|e| match e {
                std::env::VarError::NotPresent => format!("there is no variable `{name}`"),
                std::env::VarError::NotUnicode(_) => format!("`{name}` is not UTF-8 text"),
            })?,
            SecretText::File(path) => {
                let path = folder.join(path);
                let read = std::fs::metadata(&path).and_then(|meta| match meta.len() {
                    0..=FILE_BYTES_MAX => std::fs::read_to_string(&path),
                    _ => Err(std::io::Error::other("larger than 64 KiB")),
                });
                let text = read.map_err(|e| format!("cannot read `{}`: {e}", path.display()))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        match secret.is_empty() {
            true => Err("it is empty".to_owned()),
            false => Ok(secret),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_where_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a"), "hunter2\r\n").expect("written");
        std::fs::write(folder.path().join("empty"), "\n").expect("written");
        for (text, wanted) in [
            ("hunter2", Ok("hunter2")),
            ("file:a", Ok("hunter2")),
            ("env:PATH", Ok("")),
            ("file:b", Err("cannot read")),
            ("file:empty", Err("empty")),
            ("env:RINGWAY_NO_SUCH", Err("no variable")),
        ] {
            let source = SecretText::read(text).map_err(|bad| bad.label).expect(text);
            assert_eq!(source.show(), text);
            match (source.get(folder.path()), wanted) {
                (Ok(secret), Ok(wanted)) => assert!(secret == wanted || wanted.is_empty()),
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{why}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        for text in ["", "env:", "file:", "env:A=B"] {
            assert!(SecretText::read(text).is_err(), "{text}");
        }
    }
}
