//! Passwords as they are stored: bcrypt and Argon2, nothing weaker.
//!
//! Verifying one takes milliseconds by design, so only whoever does errands calls
//! [`StoredPassword::is`]. What one costs is bounded when it is read.

use std::fmt;

use argon2::{Argon2, Params, PasswordHash, PasswordVerifier};

/// Costliest bcrypt: each one more doubles it; 14 is about a second.
pub const BCRYPT_COST_MAX: u32 = 14;
/// Cheapest: below it a stolen file is guessed through.
const BCRYPT_COST_MIN: u32 = 8;
/// Most memory that Argon2 may take, in KiB.
const ARGON2_KIB_MAX: u32 = 256 << 10;
/// Most passes over it, and lanes.
const ARGON2_PASSES_MAX: u32 = 16;
const ARGON2_LANES_MAX: u32 = 16;

/// How to make one, for messages.
pub const HOW: &str = "make one with `htpasswd -nBC 10 USER` (bcrypt) or `argon2` (a line that \
                       begins with $argon2id$)";

/// A password's hash.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredPassword {
    Bcrypt(Box<str>),
    Argon2(Box<PasswordHash>),
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl StoredPassword {
    /// Reads a hash; the error says what is wrong with it, without quoting it.
    pub fn read(text: &str) -> Result<StoredPassword, String> {
        if text.starts_with("$argon2") {
            return read_argon2(text);
        }
        let bcrypt = ["$2y$", "$2b$", "$2a$"].iter().find_map(|begin| text.strip_prefix(begin));
        match bcrypt {
            Some(rest) => read_bcrypt(text, rest),
            None if text.starts_with("$apr1$") || text.starts_with("$1$") => {
                Err("is MD5, which a graphics card guesses by the billion".to_owned())
            }
            None if text.starts_with("{SHA}") => {
                Err("is SHA-1 without salt, which is guessed by the billion".to_owned())
            }
            None if text.starts_with("$5$") || text.starts_with("$6$") => {
                Err("is SHA-2 crypt, which is not supported".to_owned())
            }
            None if text.len() == 13 => Err("is crypt, which takes 8 characters only".to_owned()),
            None => Err("is no hash of a password".to_owned()),
        }
    }

    /// Whether it is this password's. Takes milliseconds.
    pub fn is(&self, password: &[u8]) -> bool {
        match self {
            StoredPassword::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            StoredPassword::Argon2(hash) => {
                Argon2::default().verify_password(password, &**hash).is_ok()
            }
        }
    }

    /// What tells it from every other one.
    pub fn text(&self) -> String {
        match self {
            StoredPassword::Bcrypt(hash) => hash.to_string(),
            StoredPassword::Argon2(hash) => hash.to_string(),
        }
    }
}

fn read_bcrypt(text: &str, rest: &str) -> Result<StoredPassword, String> {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'/';
    let (cost, hash) = rest.split_once('$').unwrap_or_default();
    let is_cost = cost.len() == 2 && cost.bytes().all(|b| b.is_ascii_digit());
    let cost = cost.parse::<u32>().ok().filter(|_| is_cost);
    let cost = cost.filter(|_| hash.len() == 53 && hash.bytes().all(is_letter));
    match cost.ok_or("is no complete bcrypt hash, which has 60 characters")? {
        cost if cost > BCRYPT_COST_MAX => Err(format!(
            "has cost {cost}, over {BCRYPT_COST_MAX}: each try would take seconds of a core"
        )),
        cost if cost < BCRYPT_COST_MIN => Err(format!(
            "has cost {cost}, under {BCRYPT_COST_MIN}: whoever gets the file guesses it"
        )),
        // The three names are of one and the same, as it should always have been.
        _ => Ok(StoredPassword::Bcrypt(format!("$2b{}", &text[3..]).into())),
    }
}

fn read_argon2(text: &str) -> Result<StoredPassword, String> {
    let not =
        || "is no complete Argon2 hash ($argon2id$v=19$m=...,t=...,p=...$SALT$HASH)".to_owned();
    if !["$argon2id$", "$argon2i$", "$argon2d$"].iter().any(|begin| text.starts_with(begin)) {
        return Err(not());
    }
    let hash = PasswordHash::new(text).map_err(|_| not())?;
    let params = Params::try_from(&hash).map_err(|_| not())?;
    if hash.hash.is_none() || hash.salt.is_none() {
        return Err(not());
    }
    if params.m_cost() > ARGON2_KIB_MAX
        || params.t_cost() > ARGON2_PASSES_MAX
        || params.p_cost() > ARGON2_LANES_MAX
    {
        return Err(format!(
            "asks for more than m={ARGON2_KIB_MAX} (KiB), t={ARGON2_PASSES_MAX} or \
             p={ARGON2_LANES_MAX}: every try would take as much"
        ));
    }
    Ok(StoredPassword::Argon2(Box::new(hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `htpasswd -nbBC 8 u hunter2`.
    fn bcrypt() -> String {
        bcrypt::hash_with_salt("hunter2", 8, [7; 16]).expect("a hash").to_string()
    }

    /// Of the reference implementation: `echo -n password | argon2 somesalt -t 2 -m 16 -p 1 -e`.
    const ARGON2: &str =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn passwords_are_told_from_others() {
        for text in ["$2y$", "$2a$", "$2b$"] {
            let stored = StoredPassword::read(&format!("{text}{}", &bcrypt()[4..])).expect(text);
            assert!(stored.is(b"hunter2") && !stored.is(b"hunter3") && !stored.is(b""));
            assert!(!stored.is(b"hunter2\0"));
            assert_eq!(format!("{stored:?}"), "[redacted]");
        }
        let stored = StoredPassword::read(ARGON2).expect("argon2");
        assert!(stored.is(b"password") && !stored.is(b"passwort"));
        assert_eq!(stored.text(), ARGON2);
    }

    #[test]
    fn what_is_weak_or_too_much_is_refused() {
        let good = bcrypt();
        let cost = |cost: &str| format!("$2y${cost}${}", &good[7..]);
        for (text, expected) in [
            ("$apr1$8nyw0s8e$5V6xKcGyD5tQZ4bVVjIc80", "is MD5"),
            ("$1$8nyw0s8e$5V6xKcGyD5tQZ4bVVjIc80", "is MD5"),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "is SHA-1"),
            ("$6$salt$hash", "is SHA-2 crypt"),
            ("rl0uE0AGkVnVM", "is crypt"),
            ("hunter2", "is no hash"),
            ("", "is no hash"),
            ("$2y$10$short", "is no complete bcrypt"),
            ("$2x$10$abcdefghijklmnopqrstuuAbcdefghijklmnopqrstuvwxyz01234", "is no hash"),
            (&cost("15"), "has cost 15, over 14"),
            (&cost("04"), "has cost 4, under 8"),
            (&cost("+9"), "is no complete bcrypt"),
            ("$argon2id$v=19$m=65536,t=2,p=1", "is no complete Argon2"),
            (&ARGON2.replace("m=65536", "m=1048576"), "asks for more than m="),
            (&ARGON2.replace("t=2", "t=99"), "asks for more than"),
            (&ARGON2.replace("id$", "xx$"), "is no complete Argon2"),
        ] {
            let told = StoredPassword::read(text).expect_err(text);
            assert!(told.starts_with(expected), "{text}: {told}");
        }
    }
}
