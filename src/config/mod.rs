//! From the text an operator writes to the [`Snapshot`] a worker uses.
//!
//! As written ([`mod@file`]) → as checked (`check`) → as used ([`snapshot`]). Every maximum and
//! default is in [`mod@file`]. A snapshot is immutable; each worker has its own copy.
//!
//! Every error in a file is reported at once ([`Report`]), with its place and the fix.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    sync::Arc,
};

pub mod bounded;
mod check;
pub mod decode;
pub mod document;
pub mod effective;
pub mod file;
pub mod reference;
pub mod report;
pub mod schema;
pub mod snapshot;
pub mod units;
pub mod values;

pub use report::{Report, Warning};
pub use snapshot::Snapshot;

use decode::{Decode, Sink};
use report::{Place, Problem, Severity, Source};

/// Largest configuration read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads and checks the configuration file at `path`. Its generation is 1 until the caller sets it.
pub fn load(path: &Path) -> Result<(Snapshot, Vec<Warning>), Report> {
    let name = path.display().to_string();
    let text = match read(path) {
        Ok(text) => text,
        Err(problem) => {
            let source = Arc::new(Source { name, text: String::new() });
            return Err(Report::new(source, vec![*problem]));
        }
    };
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    checked(Source { name, text }, &Surroundings { folder: &folder, look_up: &look_up })
}

/// Checks a configuration that is no file; `name` is shown in messages. Files it refers to are
/// looked for in the current directory.
pub fn from_text(name: &str, text: &str) -> Result<(Snapshot, Vec<Warning>), Report> {
    from_text_with(name, text, &look_up)
}

/// As [`from_text`], with names looked up by `look_up`.
pub fn from_text_with(
    name: &str,
    text: &str,
    look_up: &LookUp<'_>,
) -> Result<(Snapshot, Vec<Warning>), Report> {
    let source = Source { name: name.to_owned(), text: text.to_owned() };
    checked(source, &Surroundings { folder: Path::new(""), look_up })
}

/// Finds the addresses of a host and port.
pub type LookUp<'a> = dyn Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>> + 'a;

/// Asks this machine's resolver.
fn look_up(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

/// What checking needs from outside the text.
struct Surroundings<'a> {
    /// Where files named in the configuration are.
    folder: &'a Path,
    look_up: &'a LookUp<'a>,
}

/// The admin interface that the file at `path` asks for, whatever else is wrong with that file: the
/// commands must find a gateway whose file has been broken since. `None` when it cannot be told.
pub fn admin_of(path: &Path) -> Option<snapshot::Admin> {
    let file = decoded(&read(path).ok()?, &mut Sink::default())?;
    (!file.admin.is_wrong()).then(|| check::admin(&file.admin))
}

/// The configuration of an empty file, which has every key at its default.
pub fn defaults() -> file::File {
    file::File::default()
}

fn read(path: &Path) -> Result<String, Box<Problem>> {
    let found = |error: std::io::Error| {
        let problem = Problem::whole(format!("cannot read the configuration: {error}"));
        let fix = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "name an existing file, or try `ringway demo`, which needs none; \
                 a first configuration is in config/quickstart.toml"
            }
            _ => "check the file's name and permissions",
        };
        Box::new(problem.fix(fix))
    };
    let bytes = bounded::read(path, FILE_BYTES_MAX).map_err(found)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
        let title = format!("the configuration is not UTF-8 text (line {line})");
        Box::new(Problem::whole(title).fix("save the file as UTF-8"))
    })
}

/// The file as written, and every problem met while decoding it.
pub(crate) fn decoded(text: &str, sink: &mut Sink) -> Option<file::File> {
    let (root, errors) = toml::de::DeTable::parse_recoverable(text);
    if let Some(error) = errors.first() {
        let place = error.span().map_or(Place { start: 0, end: 0 }, Place::from);
        may_be_secret(text).for_each(|place| sink.hide(place));
        sink.push(syntax(error.message(), text, place));
        return None;
    }
    let place = Place::from(root.span());
    file::File::decode(&toml::de::DeValue::Table(root.into_inner()), place, sink)
}

/// Values of keys that may be secrets, in a text that cannot be read as TOML: what is behind the
/// equals sign of such a key, to the end of the line.
fn may_be_secret(text: &str) -> impl Iterator<Item = Place> {
    let mut start = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let (at, end) = (start, start + line.len());
        start = end;
        let mut signs = line.match_indices('=').map(|(sign, _)| sign);
        let sign = signs.find(|sign| decode::sounds_secret(&line[..*sign]))?;
        let blanks = line[sign + 1..].len() - line[sign + 1..].trim_start().len();
        Some(Place { start: at + sign + 1 + blanks, end })
    })
}

/// A syntax error in the words of this program.
fn syntax(message: &str, text: &str, place: Place) -> Problem {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let label = match expected {
        "" | "nothing" => String::new(),
        expected => format!("expected {expected}"),
    };
    let fix = if what.contains("duplicate key") {
        "remove one of the two, or join them".to_owned()
    } else if what.contains("string") {
        "close the string with the quotation mark it began with".to_owned()
    } else if what.contains("key with no value") {
        "write key = value, or [section] for a section".to_owned()
    } else {
        unquoted(text, place).unwrap_or_else(|| {
            "the syntax is TOML's: key = \"value\", [section], [[one of several]]; see \
             https://toml.io"
                .to_owned()
        })
    };
    Problem::error(place, format!("not valid TOML: {what}")).label(label).fix(fix)
}

/// The fix for a line such as `bind = 127.0.0.1:8080`.
fn unquoted(text: &str, place: Place) -> Option<String> {
    let before = text.get(..place.start)?;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let (key, value) = text[start..].lines().next()?.split_once('=')?;
    let value = value.split('#').next().unwrap_or_default().trim();
    let is_plain = !value.is_empty() && !value.contains(['"', '\'', '[', '{']);
    if is_plain && decode::sounds_secret(key) {
        return Some(format!("write {} = \"...\", with quotation marks", key.trim()));
    }
    is_plain.then(|| format!("write {} = {}", key.trim(), decode::quoted(value)))
}

fn checked(source: Source, around: &Surroundings<'_>) -> Result<(Snapshot, Vec<Warning>), Report> {
    let mut sink = Sink::default();
    let snapshot =
        decoded(&source.text, &mut sink).and_then(|file| check::check(&file, around, &mut sink));
    let failed = sink.problems.iter().any(|problem| problem.severity == Severity::Error);
    let text: Arc<str> = Arc::from(&*source.text);
    let source = Arc::new(source.hiding(&sink.hidden));
    match snapshot {
        Some(mut snapshot) if !failed => {
            snapshot.text = text;
            let warnings = sink.problems.into_iter();
            let warning = |problem| Warning { source: Arc::clone(&source), problem };
            Ok((snapshot, warnings.map(warning).collect()))
        }
        _ => Err(Report::new(source, sink.problems)),
    }
}
