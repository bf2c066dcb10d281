//! What is kept on disk of an authority: its account, certificates with their keys, and the lock
//! that says which process renews.
//!
//! Only this user may read any of it. A file is replaced as a whole: whoever reads gets the one
//! before or the new one, also after a crash.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use instant_acme::AccountCredentials;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

const ACCOUNT: &str = "account.json";
const LOCK: &str = "lock";

/// An account, as it is kept.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    /// What the authority was told.
    pub email: Option<String>,
    pub credentials: AccountCredentials,
}

/// The right to renew, until it is dropped. The system takes it back from a process that ends.
pub struct Lock {
    _file: File,
}

/// Makes the folder, if need be, and takes its lock; `None` while another process has it.
pub fn lock(folder: &Path) -> io::Result<Option<Lock>> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).mode(0o600).open(folder.join(LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The account, if there is one.
pub fn account(folder: &Path) -> io::Result<Option<Kept>> {
    match fs::read(folder.join(ACCOUNT)) {
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|_| {
            // Not the error itself: it may quote the key.
            io::Error::new(ErrorKind::InvalidData, format!("{ACCOUNT} is damaged"))
        }),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

pub fn keep_account(folder: &Path, kept: &Kept) -> io::Result<()> {
    replace(&folder.join(ACCOUNT), &serde_json::to_vec_pretty(kept)?)
}

/// The authority does not know it any more.
pub fn forget_account(folder: &Path) -> io::Result<()> {
    fs::remove_file(folder.join(ACCOUNT))
}

/// Puts another file in the place of `path`.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    // What a crash left behind may have another mode.
    match fs::remove_file(new) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn one_process_has_the_lock_and_nobody_else_reads() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let held = lock(&folder).unwrap();
        assert!(held.is_some());
        assert!(lock(&folder).unwrap().is_none());
        drop(held);
        assert!(lock(&folder).unwrap().is_some());
        assert_eq!((mode(&folder), mode(&folder.join(LOCK))), (0o700, 0o600));
    }

    #[test]
    fn files_are_replaced_as_a_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pem");
        fs::write(dir.path().join("x.pem.new"), "left by a crash").unwrap();
        for content in ["one", "two"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(
                (fs::read_to_string(&path).unwrap().as_str(), mode(&path)),
                (content, 0o600)
            );
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_account_is_an_error_that_quotes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(account(dir.path()).unwrap().is_none());
        fs::write(dir.path().join(ACCOUNT), "{\"key\": \"secret\"}").unwrap();
        let error = account(dir.path()).err().unwrap().to_string();
        assert_eq!(error, "account.json is damaged");
    }
}
