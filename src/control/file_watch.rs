//! Notices that the configuration file, or a file that belongs to it, has changed (`reload.watch`).
//!
//! Their folders are watched, not the files: editors and deployment tools put another file in its
//! place. Where the name is a symbolic link the target's folder is watched too. Many events make
//! one change: a file counts as changed when it is another file, or has another size or time, once
//! nothing has happened to the folders for a moment.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind::Data},
};

use super::run::Event;

/// A change is over when nothing has happened for so long.
const QUIET: Duration = Duration::from_millis(200);
/// A folder that never rests is looked at this often.
const BUSY_MAX: Duration = Duration::from_secs(2);
/// Events that may wait; more tell nothing new.
const EVENTS_MAX: usize = 64;

/// A watch that lasts until it is dropped.
pub struct FileWatch {
    _watcher: RecommendedWatcher,
    /// What is watched.
    pub files: Vec<PathBuf>,
}

/// What tells a file from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    id: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

fn stamp(file: &Path) -> Option<Stamp> {
    let meta = fs::metadata(file).ok()?;
    let changed = (meta.mtime(), meta.mtime_nsec());
    Some(Stamp { id: (meta.dev(), meta.ino()), size: meta.size(), changed })
}

impl FileWatch {
    /// From now on every change of `files` is told as an [`Event::FileChanged`]; at once, if the
    /// first, the configuration, does not say `in_force` any more.
    pub fn begin(
        files: Vec<PathBuf>,
        in_force: &str,
        tell: mpsc::Sender<Event>,
    ) -> Result<FileWatch, String> {
        let cannot =
            |e: &dyn std::fmt::Display| format!("reload.watch: {}: {e}", files[0].display());
        let (happened, happenings) = mpsc::sync_channel(EVENTS_MAX);
        // Also an error, such as an overflow of the queue: look at the files.
        let names = names(&files);
        let look = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| is_idle(&event, &names)) {
                return;
            }
            let _ = happened.try_send(());
        };
        let mut watcher = notify::recommended_watcher(look).map_err(|e| cannot(&e))?;
        let mut folders: Vec<PathBuf> = files.iter().flat_map(|file| folders(file)).collect();
        folders.sort();
        folders.dedup();
        for folder in folders {
            watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(|e| cannot(&e))?;
        }
        let watched = files.clone();
        let mut before: Vec<_> = files.iter().map(|file| stamp(file)).collect();
        // It may have changed after it was loaded and before it was watched.
        if fs::read(&files[0]).is_ok_and(|text| text != in_force.as_bytes()) {
            let _ = tell.send(Event::FileChanged);
        }
        let look = move || {
            while happenings.recv().is_ok() {
                if !rest(&happenings) {
                    return;
                }
                let now: Vec<_> = watched.iter().map(|file| stamp(file)).collect();
                // A file that is gone for a moment is about to be replaced.
                if now.iter().all(Option::is_some) && now != before {
                    before = now;
                    if tell.send(Event::FileChanged).is_err() {
                        return;
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("file-watch".to_owned()).spawn(look);
        thread.map_err(|e| cannot(&e))?;
        Ok(FileWatch { _watcher: watcher, files })
    }
}

/// Names under which writing to one of `files` is told.
fn names(files: &[PathBuf]) -> HashSet<OsString> {
    let targets = files.iter().filter_map(|file| fs::canonicalize(file).ok());
    let all = files.iter().cloned().chain(targets);
    all.filter_map(|file| file.file_name().map(OsStr::to_owned)).collect()
}

/// Nothing that makes one of the files another: reading, and writing to what else is in their
/// folders, such as a log, which would never let them rest.
fn is_idle(event: &notify::Event, names: &HashSet<OsString>) -> bool {
    let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| names.contains(name));
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(Data(_)) => {
            !event.paths.is_empty() && !event.paths.iter().any(is_ours)
        }
        EventKind::Access(_) => true,
        _ => false,
    }
}

/// The folders in which a change of `file` shows.
fn folders(file: &Path) -> Vec<PathBuf> {
    let of = |file: &Path| match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut folders = vec![of(file)];
    let same = |a: &Path, b: &Path| fs::canonicalize(a).ok() == fs::canonicalize(b).ok();
    if let Ok(target) = fs::canonicalize(file)
        && !same(&of(&target), &folders[0])
    {
        folders.push(of(&target));
    }
    folders
}

/// Waits until nothing happens any more; `false` when nobody watches any more.
fn rest(happenings: &mpsc::Receiver<()>) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < BUSY_MAX {
        match happenings.recv_timeout(QUIET) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_folder_that_others_write_to_and_read_delays_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("ringway.toml"), dir.path().join("log"));
        fs::write(&file, "1").unwrap();
        fs::write(&log, "").unwrap();
        let (tell, told) = mpsc::channel();
        let watch = FileWatch::begin(vec![file.clone()], "1", tell).unwrap();
        let over = AtomicBool::new(false);
        let took = thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    fs::write(&log, "line").unwrap();
                    fs::read(&file).unwrap();
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let begun = Instant::now();
            fs::write(&file, "22").unwrap();
            let is_told = told.recv_timeout(PATIENCE).is_ok();
            over.store(true, Ordering::SeqCst);
            assert!(is_told);
            begun.elapsed()
        });
        drop(watch);
        assert!(took < BUSY_MAX, "{took:?}");
    }

    #[test]
    fn a_change_is_told_once_however_it_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let (real, name) = (dir.path().join("real"), dir.path().join("conf"));
        for folder in [&real, &name] {
            fs::create_dir(folder).unwrap();
        }
        let (target, link) = (real.join("a.toml"), name.join("ringway.toml"));
        fs::write(&target, "1").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let (tell, told) = mpsc::channel();
        let before = FileWatch::begin(vec![link.clone()], "0", tell.clone()).unwrap();
        assert!(matches!(told.try_recv(), Ok(Event::FileChanged)), "since it was loaded");
        drop(before);
        let key = dir.path().join("key");
        fs::write(&key, "k").unwrap();
        let watch = FileWatch::begin(vec![link.clone(), key.clone()], "1", tell).unwrap();
        assert!(told.try_recv().is_err());
        let changes: [(&str, &dyn Fn()); 5] = [
            ("another file", &|| fs::write(&key, "kk").unwrap()),
            ("written over, where the link points", &|| fs::write(&target, "22").unwrap()),
            ("replaced there", &|| {
                fs::write(real.join("new"), "333").unwrap();
                fs::rename(real.join("new"), &target).unwrap();
            }),
            ("the link points elsewhere", &|| {
                fs::write(real.join("b.toml"), "4444").unwrap();
                std::os::unix::fs::symlink(real.join("b.toml"), name.join("new")).unwrap();
                fs::rename(name.join("new"), &link).unwrap();
            }),
            ("a file in place of the link", &|| {
                fs::write(name.join("new"), "55555").unwrap();
                fs::rename(name.join("new"), &link).unwrap();
            }),
        ];
        for (what, change) in changes {
            change();
            assert!(matches!(told.recv_timeout(PATIENCE), Ok(Event::FileChanged)), "{what}");
        }
        fs::write(name.join("another"), "x").unwrap();
        fs::write(&link, "666666").unwrap();
        assert!(told.recv_timeout(PATIENCE).is_ok());
        drop(watch);
        // The thread ends, and with it its side of the channel.
        assert!(matches!(told.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected)));
    }
}
