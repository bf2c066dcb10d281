//! Keeps the keys of one provider up to date, and the file they are kept in.

use std::{
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::fetch::{Fetched, fetch};
use crate::config::snapshot::{Provider, jwks::clock_ms};

/// Runs until it is dropped.
pub async fn keep(provider: Arc<Provider>) {
    let mut keeper = Keeper { provider, failures: 0, due_ms: 0, told: Vec::new() };
    // After a reload the keys are still those of the last fetch.
    let age_s = unix_s().saturating_sub(keeper.provider.cell.fetched_s());
    if let Some(left_ms) = keeper.provider.refresh_ms.checked_sub(age_s.saturating_mul(1000)) {
        keeper.due_ms = clock_ms() + left_ms;
    }
    loop {
        keeper.wait().await;
        keeper.fetch().await;
    }
}

/// A fetch, which ends when this is dropped, whatever becomes of it.
struct UnderWay<'p> {
    provider: &'p Provider,
    /// No other one before that.
    next_ms: u64,
    is_good: bool,
}

impl<'p> UnderWay<'p> {
    fn begin(provider: &'p Provider) -> UnderWay<'p> {
        let next_ms = clock_ms() + provider.refetch_after_ms;
        provider.cell.begin(next_ms);
        UnderWay { provider, next_ms, is_good: false }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let outcome = if self.is_good { Ok(unix_s()) } else { Err(self.next_ms) };
        self.provider.cell.end(outcome);
    }
}

struct Keeper {
    provider: Arc<Provider>,
    /// In a row.
    failures: u32,
    /// When to fetch, whether anybody asks or not.
    due_ms: u64,
    /// Keys left out, as last told.
    told: Vec<String>,
}

impl Keeper {
    /// Until it is time, or somebody asks and may.
    async fn wait(&self) {
        let cell = &self.provider.cell;
        let due = sleep_until(self.due_ms);
        let asked = async {
            cell.asked().await;
            sleep_until(cell.next_ms()).await;
        };
        tokio::select! {
            () = due => {}
            () = asked => {}
        }
    }

    async fn fetch(&mut self) {
        let provider = self.provider.clone();
        let mut under_way = UnderWay::begin(&provider);
        match fetch(&provider).await {
            Ok(fetched) => {
                self.take(fetched);
                under_way.is_good = true;
            }
            Err(why) => self.failed(&why),
        }
    }

    fn failed(&mut self, why: &str) {
        let provider = &self.provider;
        self.failures += 1;
        let factor = 1 << (self.failures - 1).min(16);
        let wait_ms = provider.refetch_after_ms.saturating_mul(factor);
        let wait_ms = wait_ms.min(provider.refresh_ms.max(provider.refetch_after_ms));
        self.due_ms = clock_ms() + wait_ms;
        let has_keys = provider.cell.number() > 0;
        tracing::warn!(
            way = provider.name,
            why,
            has_keys,
            again_in_ms = wait_ms,
            "cannot fetch keys: those that are there stay in force"
        );
    }

    fn take(&mut self, fetched: Fetched) {
        let provider = &self.provider;
        self.failures = 0;
        let max_age = fetched.max_age.map_or(u64::MAX, |age| age.as_millis() as u64);
        let shortest_ms = provider.refetch_after_ms;
        let longest_ms = provider.refresh_ms.max(shortest_ms);
        self.due_ms = clock_ms() + max_age.clamp(shortest_ms, longest_ms);
        if fetched.left_out != self.told {
            for why in &fetched.left_out {
                tracing::warn!(way = provider.name, why, "a key of the provider is not used");
            }
            self.told = fetched.left_out;
        }
        let (before, count) = (provider.cell.number(), fetched.keys.len());
        if provider.for_logins {
            provider.cell.put_endpoints(fetched.endpoints);
        }
        provider.cell.put(fetched.keys);
        if provider.cell.number() == before {
            return;
        }
        tracing::info!(way = provider.name, keys = count, "new keys are in force");
        if let Some(file) = &provider.file
            && let Err(e) = write(file, &fetched.text)
        {
            let file = file.display();
            tracing::warn!(way = provider.name, %file, error = %e, "cannot keep the keys");
        }
    }
}

async fn sleep_until(at_ms: u64) {
    let wait_ms = at_ms.saturating_sub(clock_ms());
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whole or not at all: beside it first, then in its place.
fn write(file: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = file.with_file_name(name);
    let mut options = std::fs::OpenOptions::new();
    let written = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&beside)
        .and_then(|mut new| new.write_all(text).and_then(|()| new.sync_all()))
        .and_then(|()| std::fs::rename(&beside, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}
