//! How it stands with each name, for whoever asks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::config::snapshot::AcmeName;

/// Shared by the thread that renews and those that show it.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<Key, Line>>>);

/// Name, and folder of its authority.
pub type Key = (String, String);

/// One name.
#[derive(Clone, Debug, Default)]
pub struct Line {
    pub expires: Option<SystemTime>,
    /// When something is done about it next; `None` while another process does that.
    pub next: Option<SystemTime>,
    pub issued: u64,
    pub failed: u64,
    /// Why the last order failed, if it did.
    pub error: Option<String>,
}

/// How a name is known.
pub fn key(name: &AcmeName) -> Key {
    let folder = name.issuer.folder.file_name().unwrap_or_default();
    (name.name.clone(), folder.to_string_lossy().into_owned())
}

impl Board {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<Key, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All names.
    pub fn all(&self) -> Vec<(Key, Line)> {
        self.lines().iter().map(|(key, line)| (key.clone(), line.clone())).collect()
    }

    pub fn set(&self, name: &AcmeName, change: impl FnOnce(&mut Line)) {
        change(self.lines().entry(key(name)).or_default());
    }

    /// Only these are shown.
    pub fn keep(&self, names: &[AcmeName]) {
        let keys: Vec<Key> = names.iter().map(key).collect();
        self.lines().retain(|key, _| keys.contains(key));
    }
}

/// Unix time in seconds.
pub fn unix(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
