//! Files of API keys (`api_keys.file`): read line by line, so that a million keys take the memory
//! of their table and little more. A message names the line and never quotes a key.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use super::consumers::Gathered;
use crate::{
    config::{
        decode::Sink,
        report::{Place, Problem},
    },
    policy::{
        consumers::{self, Kind},
        key_text::{self, Line},
        keys::{self, KeyTable},
    },
};

/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 4096;
/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 30;
/// Wrong lines that are told; then nobody reads on.
const WRONG_MAX: usize = 5;
/// A digest and a short name: no line with a key is shorter.
const LINE_BYTES_MIN: u64 = 66;
const FIX: &str = "write on each line sha256:DIGEST CONSUMER, as `ringway key create` prints it; \
                   behind them may be expires=2027-01-31, scopes=a,b, groups=a,b, plan=NAME and a \
                   # comment";

/// A file of keys, and where the configuration names it.
pub(super) struct Named<'n> {
    pub name: &'n str,
    pub path: &'n Path,
    pub place: Place,
}

/// Reads the keys of a file, beside those that are `keys` already.
pub(super) fn read(
    file: &Named<'_>,
    mut keys: keys::Gathering,
    gathered: &mut Gathered<'_>,
    sink: &mut Sink,
) -> Option<KeyTable> {
    let opened = match open(file, sink) {
        Ok(opened) => opened,
        Err(why) => {
            let title = format!("cannot read the keys `{}`: {why}", file.path.display());
            let fix = "write a path relative to this configuration, or an absolute one; the \
                       gateway's user must be able to read it";
            sink.push(Problem::error(file.place, title).fix(fix));
            return None;
        }
    };
    let (opened, bytes) = opened;
    keys.reserve(usize::try_from(bytes / LINE_BYTES_MIN).unwrap_or(0));
    let wrong = match lines(opened, &mut keys, gathered) {
        Ok(wrong) => wrong,
        Err(error) => {
            let title = format!("cannot read the keys `{}`: {error}", file.path.display());
            sink.push(Problem::error(file.place, title).fix("repair the file"));
            return None;
        }
    };
    for (number, why) in &wrong {
        let title = format!("`{}`, line {number}: {why}", file.name);
        sink.push(Problem::error(file.place, title).fix(FIX));
    }
    if !wrong.is_empty() {
        return None;
    }
    table(keys, file, sink)
}

/// The table of keys. Places are lines of the file; 0 is the configuration, where each is there
/// once.
pub(super) fn table(keys: keys::Gathering, file: &Named<'_>, sink: &mut Sink) -> Option<KeyTable> {
    match keys.done() {
        Ok(table) => Some(table),
        Err(keys::Twice { first, again }) => {
            let title = match (first, again) {
                (0, again) => format!(
                    "`{}`, line {again}: the key is there already, among a consumer's `keys`",
                    file.name
                ),
                (first, again) => format!(
                    "`{}`, line {again}: the key is there already, on line {first}",
                    file.name
                ),
            };
            sink.push(Problem::error(file.place, title).fix("remove one of the two"));
            None
        }
    }
}

fn open(file: &Named<'_>, sink: &mut Sink) -> Result<(File, u64), String> {
    let opened = File::open(file.path).map_err(|error| error.to_string())?;
    let meta = opened.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is no file".to_owned());
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err("it is larger than 8 GiB".to_owned());
    }
    if meta.permissions().mode() & 0o002 != 0 {
        let title =
            format!("anybody on this machine may write to `{}`, and so add a key", file.name);
        let fix = format!("chmod o-w {}", file.path.display());
        sink.push(Problem::warning(file.place, title).fix(fix));
    }
    Ok((opened, meta.len()))
}

/// Adds what is on each line. Answers the lines that are wrong, with why.
fn lines(
    file: File,
    keys: &mut keys::Gathering,
    gathered: &mut Gathered<'_>,
) -> std::io::Result<Vec<(u32, String)>> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut wrong = Vec::new();
    let mut line = Vec::with_capacity(LINE_BYTES_MAX);
    for number in 1.. {
        line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        if reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0
            || wrong.len() >= WRONG_MAX
        {
            break;
        }
        if line.len() > LINE_BYTES_MAX {
            wrong.push((number, format!("is longer than {LINE_BYTES_MAX} bytes")));
            break;
        }
        if let Err(why) = one(&line, number, keys, gathered) {
            wrong.push((number, why));
        }
    }
    Ok(wrong)
}

fn one(
    line: &[u8],
    number: u32,
    keys: &mut keys::Gathering,
    gathered: &mut Gathered<'_>,
) -> Result<(), String> {
    let text = std::str::from_utf8(line).map_err(|_| "is no UTF-8 text")?;
    let Some(line) = key_text::read_line(text)? else { return Ok(()) };
    let consumer = consumer(&line, gathered)?;
    let whose = (consumer, line.expires_s);
    keys.add(line.digest, whose, &line.scopes, number).map_err(|not| match not {
        keys::Not::Full => format!("is one key more than {}", keys::KEYS_MAX),
        keys::Not::Scopes => {
            format!("has one more list of scopes than {}", keys::SCOPE_LISTS_MAX)
        }
    })
}

fn consumer(line: &Line<'_>, gathered: &mut Gathered<'_>) -> Result<u32, String> {
    let name = line.consumer;
    let plan = match line.plan {
        None => None,
        Some(plan) => {
            let known = gathered.plan(plan);
            Some(known.ok_or_else(|| format!("names the plan `{plan}`, which there is not"))?)
        }
    };
    let groups = line.groups.iter().flatten().map(|group| (*group).into()).collect();
    // A line that says neither says nothing of its consumer.
    let is_said = line.groups.is_some() || plan.is_some();
    let kind = is_said.then_some(Kind { groups, plan });
    gathered.consumers.add(name, kind).map_err(|not| match not {
        consumers::Not::Otherwise if gathered.is_own(name) => format!(
            "says groups or a plan of the consumer `{name}`, which has a section of its own in the \
             configuration"
        ),
        consumers::Not::Otherwise => {
            format!(
                "says other groups, or another plan, of the consumer `{name}` than an earlier line"
            )
        }
        consumers::Not::Full => format!("has one consumer more than {}", consumers::CONSUMERS_MAX),
        consumers::Not::Kinds => {
            format!("has one more combination of groups and plan than {}", consumers::KINDS_MAX)
        }
        consumers::Not::Name => {
            format!("names a consumer with more than {} bytes", consumers::NAME_BYTES_MAX)
        }
    })
}
