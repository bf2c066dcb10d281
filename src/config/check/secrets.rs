//! Secrets that a key names the place of, and small files with secrets. What is read is in no
//! message.

use std::path::Path;

use super::TOP;
use crate::config::{
    bounded,
    decode::{At, Sink},
    report::{Place, Problem},
    values::{Secret, SecretSource},
};

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The secret, without white space around it; `None` after a report. `what` it is, and what whoever
/// knows it `may` do.
pub(super) fn read(
    source: &At<SecretSource>,
    (what, may): (&str, &str),
    folder: &Path,
    sink: &mut Sink,
) -> Option<Secret<String>> {
    let place = source.place().unwrap_or(TOP);
    let text = match &source.value {
        SecretSource::File(name) => of_file(name, (what, may), place, folder, sink)?,
        SecretSource::Env(name) => match std::env::var(name) {
            Ok(text) => text,
            Err(_) => {
                let title = format!("{what} is not in the environment: `{name}` is not set");
                let fix = "set it where the gateway is started, or write \"file:\" and a path";
                sink.push(Problem::error(place, title).fix(fix));
                return None;
            }
        },
    };
    let text = text.trim();
    if text.is_empty() {
        let problem = Problem::error(place, format!("{what} is empty"));
        sink.push(problem.fix("put there what you were given"));
        return None;
    }
    Some(Secret(text.to_owned()))
}

/// The text of a file with secrets; `None` after a report. One that anybody may use is warned of.
pub(super) fn of_file(
    name: &str,
    (what, may): (&str, &str),
    place: Place,
    folder: &Path,
    sink: &mut Sink,
) -> Option<String> {
    let path = folder.join(name);
    match bounded::read_text(&path, FILE_BYTES_MAX) {
        Ok((text, mode)) => {
            if mode & 0o007 != 0 {
                let mode = mode & 0o777;
                let title = format!(
                    "anybody on this machine may use `{name}` (mode {mode:04o}), and {may}"
                );
                let fix = format!("chmod 0640 {}", path.display());
                sink.push(Problem::warning(place, title).fix(fix));
            }
            Some(text)
        }
        Err(error) => {
            let title = format!("cannot read {what} from `{}`: {error}", path.display());
            let fix = "write a path relative to this configuration, or an absolute one; the \
                       gateway's user must be able to read it";
            sink.push(Problem::error(place, title).fix(fix));
            None
        }
    }
}
