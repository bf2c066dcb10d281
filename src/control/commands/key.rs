//! `ringway key`: makes API keys, and tells what to store of one, asking no gateway; has a gateway
//! fetch the keys of a token issuer.

use std::{
    fmt::Write,
    io::{IsTerminal, Read},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::{Value, json};

use super::{Where, call::segment, failed};
use crate::{
    config::{decode::quoted, report::plural},
    control::cli::print,
    policy::key_text,
};

pub const HELP: &str = "\
A key is shown once, when it is made. What is stored is its SHA-256, from which nobody
gets the key: a line for a file of keys (api_keys.file), or an entry of a consumer's
`keys`. See docs/api-keys.md.

Examples:
  ringway key create --consumer mobile-app
  ringway key create --consumer ci --expires 2027-01-31 --scopes read,deploy
  ringway key create --consumer ci --json | jq -r .line >> api-keys.txt
  ringway key hash --consumer partner < key.txt
  ringway key fetch main";

#[derive(Debug, Args)]
pub struct Key {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key; print it, and the line to store.
    Create(About),
    /// Read a key that is there already from standard input, and print the line to store.
    Hash(About),
    /// Have the running gateway fetch the keys of a token issuer now: one was withdrawn.
    Fetch(Fetch),
}

#[derive(Debug, Args)]
struct Fetch {
    /// Name of the section `[jwt.NAME]`.
    name: String,
    #[command(flatten)]
    gateway: Where,
}

#[derive(Debug, Args)]
struct About {
    /// Whose key it is.
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// When it ends, UTC: 2027-01-31 or 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// What it is for, separated by commas.
    #[arg(long, value_name = "LIST")]
    scopes: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Stands for a consumer that is not told.
const SOMEBODY: &str = "CONSUMER";
/// Longest key that is read, in bytes.
const KEY_BYTES_MAX: u64 = 4096;

impl Key {
    pub fn run(&self) -> ExitCode {
        let (key, about) = match &self.what {
            What::Create(about) => (made(), about),
            What::Hash(about) => (given(), about),
            What::Fetch(fetch) => return fetch.run(),
        };
        let is_made = matches!(self.what, What::Create(_));
        match key.and_then(|key| about.told(&key, is_made)) {
            Ok(text) => print(&text),
            Err(why) => failed(&why),
        }
    }
}

impl Fetch {
    fn run(&self) -> ExitCode {
        let path = format!("/jwt/{}/keys", segment(&self.name));
        match self.gateway.call("POST", &path, None) {
            Ok(answer) if answer.is_success() => match answer.json::<Value>() {
                Ok(fetched) => {
                    let keys = plural(fetched["keys"].as_u64().unwrap_or(0) as usize, "key");
                    let changed = match fetched["changed"].as_bool() {
                        Some(true) => "they have changed",
                        _ => "as before",
                    };
                    print(&format!("{} of {}: {changed}\n", keys, self.name))
                }
                Err(why) => failed(&why),
            },
            Ok(answer) => failed(&answer.problem()),
            Err(why) => failed(&why),
        }
    }
}

/// A new key.
fn made() -> Result<String, String> {
    let mut random = [0; 256];
    loop {
        let got = getrandom(&mut random, GetRandomFlags::empty())
            .map_err(|error| format!("no random numbers: {error}"))?;
        // Of 256 bytes 248 are letters, on the average.
        if let Some(key) = key_text::make(random[..got].iter().copied()) {
            return Ok(key);
        }
    }
}

/// The key on standard input.
fn given() -> Result<String, String> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        eprintln!("ringway: paste the key, then press Enter and Ctrl-D");
    }
    let mut key = String::new();
    let mut limited = stdin.by_ref().take(KEY_BYTES_MAX + 1);
    limited.read_to_string(&mut key).map_err(|error| format!("cannot read the key: {error}"))?;
    let key = key.trim_ascii();
    if key.len() as u64 > KEY_BYTES_MAX || key.chars().any(|c| !c.is_ascii_graphic()) {
        return Err("a key is one word of printable ASCII".to_owned());
    }
    if key.len() < key_text::KEY_BYTES_MIN {
        return Err(format!(
            "the key has {} characters, fewer than {}: a short one can be guessed from what is \
             stored; make one with `ringway key create`",
            key.len(),
            key_text::KEY_BYTES_MIN
        ));
    }
    if key_text::is_whole(key) == Some(false) {
        return Err("the key's checksum is wrong: it was not copied in whole".to_owned());
    }
    Ok(key.to_owned())
}

impl About {
    fn told(&self, key: &str, is_made: bool) -> Result<String, String> {
        let digest = key_text::digest_text(&key_text::digest_of(key.as_bytes()));
        let mut entry = digest.clone();
        for (name, value) in [("expires", &self.expires), ("scopes", &self.scopes)] {
            if let Some(value) = value {
                let _ = write!(entry, " {name}={value}");
            }
        }
        let consumer = self.consumer.as_deref().unwrap_or(SOMEBODY);
        let about = entry.strip_prefix(&digest).unwrap_or_default();
        let line = format!("{digest} {consumer}{about} # {}", comment(key));
        let read = key_text::read_line(&line).map_err(|why| format!("the line to store {why}"))?;
        if read.is_none_or(|read| read.consumer != consumer) {
            return Err(format!("`{consumer}` cannot be a consumer: a name has no blank"));
        }
        if self.json {
            let mut out = json!({ "digest": digest, "line": line, "entry": entry });
            if is_made {
                out["key"] = key.into();
            }
            return Ok(format!("{out}\n"));
        }
        let mut text = String::new();
        if is_made {
            let _ = writeln!(text, "The key, which nobody can show again:\n  {key}\n");
        }
        let is_bare = consumer.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        let name = if is_bare { consumer.to_owned() } else { quoted(consumer) };
        let _ = writeln!(text, "Store this line in a file of keys (api_keys.file):\n  {line}\n");
        let _ = writeln!(
            text,
            "or this in the configuration:\n  [consumers.{name}]\n  keys = [\"{entry}\"]"
        );
        Ok(text)
    }
}

/// By which people know a key again: the day, and how it begins.
fn comment(key: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let day = time::OffsetDateTime::UNIX_EPOCH + now;
    let day = day.date();
    let begins: String = key.chars().take(key_text::PREFIX.len() + 4).collect();
    format!("begins with {begins}, {:04}-{:02}-{:02}", day.year(), u8::from(day.month()), day.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(consumer: Option<&str>) -> About {
        About { consumer: consumer.map(str::to_owned), expires: None, scopes: None, json: false }
    }

    #[test]
    fn keys_are_made_that_differ_and_can_be_stored() {
        let (first, second) = (made().expect("a key"), made().expect("a key"));
        assert_ne!(first, second);
        assert_eq!(key_text::is_whole(&first), Some(true));
        let told = About { json: true, ..about(Some("app")) }.told(&first, true).expect("told");
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(told["key"], first.as_str());
        let line = told["line"].as_str().expect("a line");
        let read = key_text::read_line(line).expect("read").expect("a key");
        assert_eq!(read.digest, key_text::digest_of(first.as_bytes()));
        assert_eq!(read.consumer, "app");
        assert!(!line.contains(&first[8..]), "{line}");
    }

    #[test]
    fn what_cannot_be_stored_is_told() {
        let key = made().expect("a key");
        for name in ["two words", "", "a=b", "#x"] {
            assert!(about(Some(name)).told(&key, true).is_err(), "{name}");
        }
        let late = About { expires: Some("tomorrow".to_owned()), ..about(None) };
        let told = late.told(&key, true).expect_err("no time");
        assert!(told.contains("expires=tomorrow"), "{told}");
        let told = about(None).told(&key, false).expect("told");
        assert!(!told.contains(&key) && told.contains(SOMEBODY), "{told}");
    }
}
