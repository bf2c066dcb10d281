//! Access logs: names and destinations of their own, files that can be written, names looked up.

use std::{
    io::ErrorKind,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use super::{Once, TOP, rules::bare};
use crate::config::{
    LookUp,
    decode::Sink,
    file::{AccessLog, File},
    report::{Place, Problem},
    snapshot::{self, Destination, Statuses},
    values::LogTarget,
};

/// Access logs one configuration may have: each costs every exchange its filter, and each worker
/// its buffer.
const LOGS_MAX: usize = 8;

pub(super) fn access_logs(
    file: &File,
    look_up: &LookUp<'_>,
    sink: &mut Sink,
) -> Vec<snapshot::AccessLog> {
    if let Some(one_too_many) = file.access_logs.get(LOGS_MAX) {
        let title = format!("there are more than {LOGS_MAX} access logs");
        let place = one_too_many.place().unwrap_or(TOP);
        sink.push(Problem::error(place, title).fix("remove some"));
    }
    let (mut names, mut targets) = (Once::default(), Once::default());
    let mut checked = Vec::with_capacity(file.access_logs.len());
    for log in file.access_logs.iter() {
        let place = log.to.place().or(log.place()).unwrap_or(TOP);
        let text = bare(&log.to.value);
        let fix = "give each access log a destination of its own, since lines of two would mix";
        targets.check(&text, place, "the destination", fix, sink);
        let name = match log.name.some() {
            Some(name) => {
                let fix = "give each access log a name of its own, or leave `name` out";
                let place = name.place().unwrap_or(TOP);
                names.check(&name.0, place, "the access log name", fix, sink);
                name.value.0
            }
            None => text,
        };
        let to = destination(&log.to.value, place, look_up, sink);
        checked.push(compiled(log, name, to));
    }
    checked
}

fn compiled(log: &AccessLog, name: String, to: Destination) -> snapshot::AccessLog {
    let mut statuses = Statuses::default();
    for range in log.status.iter() {
        (range.0..=range.1).for_each(|status| statuses.insert(status));
    }
    snapshot::AccessLog {
        name,
        to,
        format: log.format.format(),
        sample_below: log.sample.below(),
        statuses: Some(statuses).filter(|_| !log.status.is_empty()),
        slower_than_ms: log.slower_than.value.map(|ms| ms.0),
        buffer_bytes: log.buffer.0,
    }
}

fn destination(to: &LogTarget, place: Place, look_up: &LookUp<'_>, sink: &mut Sink) -> Destination {
    match to {
        LogTarget::Stdout => Destination::Stdout,
        LogTarget::Unix(path) => Destination::Unix(path.clone()),
        LogTarget::Syslog(path) => Destination::Syslog(path.clone()),
        LogTarget::File(path) => {
            if let Err((title, fix)) = writable(path) {
                sink.push(Problem::error(place, title).fix(fix));
            }
            Destination::File(path.clone())
        }
        LogTarget::SyslogUdp { host, port } => {
            let addresses = look_up(host, *port).unwrap_or_default();
            if addresses.is_empty() {
                let title = format!("the name `{host}` cannot be resolved");
                let fix = format!(
                    "check the spelling and this machine's resolver (`getent hosts {host}`), or \
                     write an IP address"
                );
                sink.push(Problem::error(place, title).fix(fix));
            }
            Destination::SyslogUdp { name: format!("{host}:{port}"), addresses }
        }
    }
}

/// Whether a log can be written there, without making the file: what is wrong, and what to do.
fn writable(path: &Path) -> Result<(), (String, String)> {
    let shown = path.display();
    let kind = match std::fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(e) if e.kind() == ErrorKind::NotFound => return writable_folder(path),
        Err(e) => {
            return Err((format!("{shown} cannot be used: {e}"), "name another file".to_owned()));
        }
    };
    if kind.is_dir() {
        return Err((format!("{shown} is a folder"), "add the file's name".to_owned()));
    }
    if kind.is_socket() {
        let fix = format!("write \"unix:{shown}\", which sends each line as a datagram");
        return Err((format!("{shown} is a socket"), fix));
    }
    access(path, Access::WRITE_OK).map_err(|e| {
        let title = format!("{shown} cannot be written: {}", std::io::Error::from(e));
        (title, "change its owner or mode, or name another file".to_owned())
    })
}

fn writable_folder(path: &Path) -> Result<(), (String, String)> {
    let folder = path.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    let shown = folder.display();
    if !folder.is_dir() {
        let title = format!("the folder {shown} does not exist");
        return Err((title, format!("make it (`mkdir -p {shown}`), or name another file")));
    }
    access(&folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|e| {
        let title = format!("no file can be made in {shown}: {}", std::io::Error::from(e));
        (title, "change the folder's owner or mode, or name another file".to_owned())
    })
}
