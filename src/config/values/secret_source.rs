//! Where secrets are read from: what is written in the configuration is never the secret itself.
//! `check::secrets` reads them.

use super::{Bad, FromText, bad};

/// A key whose value is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, relative to the configuration.
    File(String),
    /// A variable of the environment.
    Env(String),
}

impl FromText for SecretSource {
    const WHAT: &'static str = "\"file:\" and a path, or \"env:\" and the name of a variable";
    const EXAMPLE: &'static str = "file:ringway.secret";
    const MAY_BE_SECRET: bool = true;

    fn read(text: &str) -> Result<Self, Bad> {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() && !path.contains('\0') => {
                Ok(SecretSource::File(path.to_owned()))
            }
            Some(("env", name)) if is_name(name) => Ok(SecretSource::Env(name.to_owned())),
            Some(("file", _)) => bad("no path", "write \"file:ringway.secret\""),
            Some(("env", _)) => bad("no name of a variable", "write \"env:RINGWAY_SECRET\""),
            _ => bad(
                "neither \"file:\" nor \"env:\"",
                "put the secret into a file that only the gateway's user may read, and write \
                 \"file:\" and its path",
            ),
        }
    }

    fn show(&self) -> String {
        match self {
            SecretSource::File(path) => format!("file:{path}"),
            SecretSource::Env(name) => format!("env:{name}"),
        }
    }
}

impl SecretSource {
    /// The file it is in.
    pub fn file(&self) -> Option<&str> {
        match self {
            SecretSource::File(path) => Some(path),
            SecretSource::Env(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_elsewhere() {
        let table = [
            ("file:a/b c", Some(SecretSource::File("a/b c".to_owned()))),
            ("env:A_1", Some(SecretSource::Env("A_1".to_owned()))),
            ("file:", None),
            ("env:", None),
            ("env:A=B", None),
            ("c2VjcmV0", None),
            ("FILE:x", None),
        ];
        for (text, wanted) in table {
            match (SecretSource::read(text), wanted) {
                (Ok(read), Some(wanted)) => {
                    assert_eq!(read, wanted);
                    assert_eq!(read.show(), text);
                }
                (Err(bad), None) => assert!(!bad.label.contains("c2V"), "{}", bad.label),
                (_, _) => panic!("{text}"),
            }
        }
    }
}
