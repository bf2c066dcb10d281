//! What became of the configurations that were loaded, for `/status`.

use std::{collections::VecDeque, time::SystemTime};

use serde::{Deserialize, Serialize};

/// Changes that are remembered; the oldest goes first.
const CHANGES_MAX: usize = 32;
/// Bytes kept of why a configuration was refused.
const DETAIL_BYTES_MAX: usize = 4096;

/// What became of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Became {
    Started,
    Reloaded,
    Refused,
}

/// One configuration that was loaded, or tried.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Change {
    /// Unix time in seconds.
    pub at: u64,
    /// In force from then on.
    pub generation: u64,
    pub outcome: Became,
    /// Why it was refused; else what it has.
    pub detail: String,
}

/// The last [`CHANGES_MAX`] changes, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    changes: VecDeque<Change>,
    reloaded: u64,
    refused: u64,
}

impl History {
    pub fn add(&mut self, generation: u64, outcome: Became, detail: &str) {
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
        }
        self.reloaded += u64::from(outcome == Became::Reloaded);
        self.refused += u64::from(outcome == Became::Refused);
        let mut end = detail.len().min(DETAIL_BYTES_MAX);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        let detail = detail[..end].to_owned();
        self.changes.push_back(Change { at: unix_now(), generation, outcome, detail });
    }

    /// Oldest first.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    /// Reloads so far, and those refused.
    pub fn counts(&self) -> (u64, u64) {
        (self.reloaded, self.refused)
    }

    /// When the configuration in force was loaded.
    pub fn loaded_at(&self) -> u64 {
        let in_force = self.changes.iter().rev().find(|change| change.outcome != Became::Refused);
        in_force.map_or(0, |change| change.at)
    }
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_changes_are_remembered() {
        let mut history = History::default();
        for generation in 1..=40 {
            history.add(generation, Became::Reloaded, &"é".repeat(4000));
        }
        let kept: Vec<_> = history.changes().collect();
        assert_eq!(history.counts(), (40, 0));
        assert_eq!((kept.len(), kept[0].generation, kept[31].generation), (32, 9, 40));
        assert!(kept.iter().all(|change| change.detail.len() == DETAIL_BYTES_MAX));
    }
}
