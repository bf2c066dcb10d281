//! What the keys of consumers may hold: digests of keys, hashes of passwords, fingerprints.

use super::{Bad, FromText, bad};
use crate::policy::{
    key_text,
    password::{HOW, StoredPassword},
};

/// An API key of a consumer, by its digest, as `ringway key create` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey(pub String);

impl FromText for StoredKey {
    const WHAT: &'static str = "the digest of a key, as `ringway key create` prints it";
    const EXAMPLE: &'static str =
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const MAY_BE_SECRET: bool = true;

    fn read(text: &str) -> Result<Self, Bad> {
        match key_text::read_own(text) {
            Ok(_) => Ok(StoredKey(text.to_owned())),
            Err(why) => bad(
                format!("it {why}"),
                "write \"sha256:\" and 64 hexadecimal digits; behind them may be \
                 expires=2027-01-31 and scopes=a,b",
            ),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The hash of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordHash(pub StoredPassword);

impl FromText for PasswordHash {
    const WHAT: &'static str = "the hash of a password (bcrypt or Argon2)";
    const EXAMPLE: &'static str = "$2y$10$...";

    fn read(text: &str) -> Result<Self, Bad> {
        match StoredPassword::read(text) {
            Ok(stored) => Ok(PasswordHash(stored)),
            Err(why) => bad(format!("it {why}"), HOW),
        }
    }

    fn show(&self) -> String {
        self.0.text()
    }
}

/// A user of HTTP Basic: a name without colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(pub String);

impl FromText for UserName {
    const WHAT: &'static str = "a user's name";
    const EXAMPLE: &'static str = "alice";

    fn read(text: &str) -> Result<Self, Bad> {
        match () {
            () if text.is_empty() => bad("empty", "write a name, such as \"alice\""),
            () if text.contains(':') => {
                bad("has a colon, which ends a user's name", "write it without colon")
            }
            () if text.chars().any(char::is_control) => {
                bad("has a control character", "write it without control characters")
            }
            () if text.len() > 128 => bad("longer than 128 bytes", "write a shorter name"),
            () => Ok(UserName(text.to_owned())),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// SHA-256 of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub String);

impl FromText for Fingerprint {
    const WHAT: &'static str = "the SHA-256 fingerprint of a certificate";
    const EXAMPLE: &'static str =
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn read(text: &str) -> Result<Self, Bad> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return bad(
                "not 64 hexadecimal digits",
                "take it from `openssl x509 -in CERTIFICATE -noout -fingerprint -sha256`",
            );
        }
        Ok(Fingerprint(digits.to_ascii_lowercase()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A group of consumers, as it is told to upstreams: without comma or blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(pub String);

impl FromText for Group {
    const WHAT: &'static str = "the name of a group";
    const EXAMPLE: &'static str = "partners";

    fn read(text: &str) -> Result<Self, Bad> {
        let is_odd = |c: char| !c.is_ascii_graphic() || c == ',';
        if text.is_empty() || text.len() > 128 || text.chars().any(is_odd) {
            return bad(
                "no such name can be",
                "write up to 128 letters, digits and signs, without comma and blank",
            );
        }
        Ok(Group(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}
