//! What control knows of the use of quotas: what workers have told so far. It outlives each of
//! them.
//!
//! Workers do not write here: they leave what has changed in a channel, in their order, and whoever
//! looks takes it in first. So nothing is lost when whoever asked has given up, and no worker waits
//! for a lock. **Bounds**: of each quota no more keys than `keys_max`, with as many again to come
//! before the least used of them go.

use std::{
    cmp::Ordering,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
};

use super::file::{Content, Page};
use crate::{
    config::{Snapshot, snapshot::RateLimit},
    control::{view::Shared, workers},
    policy::limit::{Period, Seeds, Used},
    worker::{
        Parting,
        home::home_of,
        rate_limits::quota::{Line, Wish},
        report::Question,
    },
};

/// Keys that a worker tells of, or is told of, in one go.
pub const CHUNK: usize = 4096;

/// The ledger; whoever has a copy has the same one.
#[derive(Clone)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
    tell: Sender<Told>,
}

/// What a worker has told.
struct Told {
    changes: Vec<Line>,
    /// Of one that has ended: what was on lease to it.
    unspent: Vec<Line>,
}

struct Book {
    content: Content,
    /// Of the configuration, with `keys_max` of each.
    known: HashMap<u64, usize>,
    told: Receiver<Told>,
    unspent: Vec<Line>,
    /// Something has changed since it was last written.
    is_changed: bool,
    /// What another process was given to begin with.
    base: Option<Content>,
}

impl Ledger {
    pub fn new(content: Content, snapshot: &Snapshot) -> Ledger {
        let (tell, told) = mpsc::channel();
        let book = Book {
            content,
            known: HashMap::new(),
            told,
            unspent: Vec::new(),
            is_changed: false,
            base: None,
        };
        let ledger = Ledger { book: Arc::new(Mutex::new(book)), tell };
        ledger.book().adopt(snapshot);
        ledger
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.take_in();
        book
    }

    pub fn seeds(&self) -> Seeds {
        self.book().content.seeds
    }

    /// What is known of the keys whose home is this worker, of so many.
    pub fn of_worker(&self, worker: usize, workers: usize) -> Vec<Line> {
        let book = self.book();
        let all = book.lines();
        all.filter(|line| home_of(line.used.key, workers) == worker).collect()
    }

    /// Where a worker leaves what has changed when it has ended.
    pub fn parting(&self) -> Parting {
        let tell = self.tell.clone();
        Box::new(move |changes, unspent| drop(tell.send(Told { changes, unspent })))
    }

    /// Asks every worker what has changed; answers whether all have told it.
    pub async fn collect(&self, shared: &Shared) -> bool {
        let view = shared.view();
        self.book().adopt(&view.snapshot);
        let mut all = true;
        for (index, worker) in view.workers.iter().enumerate().filter(|(_, w)| !w.is_down) {
            loop {
                let tell = self.tell.clone();
                let told = worker.ask(|done| {
                    let answer = move |changes: Vec<Line>| {
                        let count = changes.len();
                        let _ = tell.send(Told { changes, unspent: Vec::new() });
                        done(count);
                    };
                    Question::QuotaChanges(CHUNK, Box::new(answer))
                });
                match told.await {
                    Some(count) if count >= CHUNK => {}
                    Some(_) => break,
                    None => {
                        all = false;
                        let worker = workers::name(index);
                        tracing::debug!(worker, "does not tell what was used of quotas");
                        break;
                    }
                }
            }
        }
        all
    }

    /// The file as it would be now.
    pub fn file(&self) -> Vec<u8> {
        self.book().content.write()
    }

    /// The file, when it has changed since it was last asked for.
    pub fn changed(&self) -> Option<Vec<u8>> {
        let mut book = self.book();
        std::mem::take(&mut book.is_changed).then(|| book.content.write())
    }

    /// It could not be written.
    pub fn not_written(&self) {
        self.book().is_changed = true;
    }

    /// Another process begins with what is here now. Answers the file for it.
    pub fn begin_handover(&self) -> Vec<u8> {
        let mut book = self.book();
        book.base = Some(book.content.clone());
        book.is_changed = false;
        book.content.write()
    }

    /// What was used here since [`Ledger::begin_handover`], or since this was last asked for;
    /// `None` when that is nothing.
    pub fn since(&self) -> Option<Vec<u8>> {
        let mut book = self.book();
        let now = book.content.clone();
        let before = book.base.replace(now)?;
        let more = book.content.since(&before);
        more.pages.values().any(|page| !page.keys.is_empty()).then(|| more.write())
    }

    /// Every worker has ended: what was on lease to them was not used.
    pub fn settle(&self) {
        let mut book = self.book();
        for line in std::mem::take(&mut book.unspent) {
            let page = book.content.pages.get_mut(&line.quota);
            let known = page.and_then(|page| page.keys.get_mut(&line.used.key));
            if let Some((period, used)) = known
                && *period == line.used.period
            {
                *used = used.saturating_sub(line.used.used);
                book.is_changed = true;
            }
        }
    }

    /// What a key has used, and in which period.
    pub fn used(&self, quota: u64, key: u64) -> Option<(Period, u32)> {
        self.book().content.pages.get(&quota)?.keys.get(&key).copied()
    }

    /// Keys of a quota in this period, and what they have used together.
    pub fn total(&self, quota: u64, period: Period) -> (usize, u64) {
        let book = self.book();
        let keys = book.content.pages.get(&quota).into_iter().flat_map(|page| page.keys.values());
        let used = keys.filter(|(own, used)| *own >= period && *used > 0).map(|(_, used)| *used);
        used.fold((0, 0), |(keys, sum), used| (keys + 1, sum + u64::from(used)))
    }

    /// What another process counted, for the workers to take in: by worker.
    pub fn wishes(&self, more: &Content, workers: usize) -> Vec<Vec<Wish>> {
        let mut all = vec![Vec::new(); workers];
        for line in lines(more) {
            all[home_of(line.used.key, workers)].push(Wish::Add(line));
        }
        all
    }
}

impl Book {
    /// Quotas that the configuration does not have are forgotten.
    fn adopt(&mut self, snapshot: &Snapshot) {
        let seeds = self.content.seeds;
        let quotas = || snapshot.rate_limits.iter().filter(|limit| limit.quota.is_some());
        let numbered = |quota: &RateLimit| (quota.quota_number(seeds), quota.keys_max);
        self.known = quotas().map(numbered).collect();
        let before = self.content.pages.len();
        self.content.pages.retain(|number, _| self.known.contains_key(number));
        self.is_changed |= self.content.pages.len() != before;
        for quota in quotas() {
            let page = self.content.pages.entry(quota.quota_number(seeds)).or_default();
            page.name.clone_from(&quota.name);
        }
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        lines(&self.content)
    }

    fn take_in(&mut self) {
        while let Ok(Told { changes, unspent }) = self.told.try_recv() {
            self.is_changed |= !changes.is_empty();
            for Line { quota, used: Used { key, period, used } } in changes {
                if let Some(page) = self.content.pages.get_mut(&quota) {
                    page.keys.insert(key, (period, used));
                }
            }
            self.unspent.extend(unspent);
        }
        for (number, page) in &mut self.content.pages {
            if let Some(max) = self.known.get(number)
                && page.keys.len() > 2 * max
            {
                page.shrink(*max);
            }
        }
    }
}

impl Page {
    /// The keys of the last periods that have used most stay.
    fn shrink(&mut self, max: usize) {
        let mut all: Vec<(Period, u32)> = self.keys.values().copied().collect();
        let goes = all.len().saturating_sub(max);
        if goes == 0 {
            return;
        }
        let (_, most, _) = all.select_nth_unstable(goes - 1);
        let most = *most;
        self.keys.retain(|_, used| *used > most);
    }
}

impl Content {
    /// What was used since `before`, or came back: each as a number with a sign
    /// ([`u32::cast_signed`]).
    fn since(&self, before: &Content) -> Content {
        let mut more = Content { seeds: self.seeds, ..Content::default() };
        for (number, page) in &self.pages {
            let known = before.pages.get(number);
            let keys = page.keys.iter().filter_map(|(key, (period, used))| {
                let known = known.and_then(|page| page.keys.get(key));
                let known = known.filter(|(own, _)| own == period).map_or(0, |(_, used)| *used);
                let more = i64::from(*used) - i64::from(known);
                let more = more.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
                (more != 0).then_some((*key, (*period, more.cast_unsigned())))
            });
            let keys = keys.collect();
            more.pages.insert(*number, Page { name: page.name.clone(), keys });
        }
        more
    }

    /// Takes in what another process counted beside this.
    pub fn add(&mut self, more: &Content) {
        for line in lines(more) {
            let Some(page) = self.pages.get_mut(&line.quota) else { continue };
            let known = page.keys.entry(line.used.key).or_default();
            let Used { period, used, .. } = line.used;
            match known.0.cmp(&period) {
                Ordering::Less => *known = (period, used.cast_signed().max(0).cast_unsigned()),
                Ordering::Equal => known.1 = known.1.saturating_add_signed(used.cast_signed()),
                Ordering::Greater => {}
            }
        }
    }
}

fn lines(content: &Content) -> impl Iterator<Item = Line> {
    content.pages.iter().flat_map(|(quota, page)| {
        page.keys.iter().map(|(key, (period, used))| {
            let used = Used { key: *key, period: *period, used: *used };
            Line { quota: *quota, used }
        })
    })
}
