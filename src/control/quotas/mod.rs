//! What was used of quotas is kept over restarts and upgrades: in a folder that one gateway has for
//! itself, written by a thread of its own, at intervals and at the end.
//!
//! - `quotas` is all of it ([`mod@file`]), replaced as a whole and synchronised with the disk.
//! - `late-PID-N` is what a process that gives way to a new one has counted since that read
//!   `quotas`: the new one adds it and removes the file.
//! - `lock` belongs to the process that writes `quotas`.
//!
//! A file that cannot be read is put aside (`quotas.bad-TIME`) with an error in the log, and quotas
//! begin anew. Nothing here is on the data path: workers are asked between requests.

pub mod file;
pub mod ledger;

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep_until},
};

use super::{acme::store::replace, history::unix_now, view::Shared};
use crate::{
    config::{Snapshot, snapshot::QuotaStore},
    policy::limit::Seeds,
    worker::report::Question,
};
use file::{Content, FILE_BYTES_MAX};
use ledger::{CHUNK, Ledger};

const FILE: &str = "quotas";
const LATE: &str = "late-";
const LOCK: &str = "lock";
/// How often a process looks for what the one before it has left.
const LATE_EVERY: Duration = Duration::from_secs(1);
/// How long the main thread waits for the file.
const SAVE_MAX: Duration = Duration::from_secs(10);

/// What the main thread says.
enum Order {
    /// A new process is about to read the file: write it, and then no more.
    HandOver(mpsc::Sender<()>),
    /// Nothing came of the new process.
    GoOn,
    /// The new process serves.
    Leave,
    /// Every worker has ended.
    Finish(mpsc::Sender<()>),
}

/// As the main thread holds it. Without a folder nothing is kept.
pub struct Quotas {
    orders: Option<UnboundedSender<Order>>,
}

/// The folder, before the thread has it.
pub struct Folder {
    path: PathBuf,
    every: Duration,
    lock: Option<File>,
    /// Files that are a part of what was read.
    read: Vec<PathBuf>,
}

/// Reads what was used before. `is_successor`: of a process that still runs.
pub fn open(snapshot: &Snapshot, is_successor: bool) -> Result<(Ledger, Option<Folder>), String> {
    let QuotaStore { folder, save_every_ms } = &snapshot.quota_store;
    let Some(path) = folder else {
        return Ok((
            Ledger::new(Content { seeds: new_seeds()?, ..Content::default() }, snapshot),
            None,
        ));
    };
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        format!("quota_store.folder: cannot {what} {}: {e}", path.display())
    };
    let lock = lock(path).map_err(|e| failed("use", &e))?;
    if lock.is_none() && !is_successor {
        let title = "another gateway uses it: give each a folder of its own";
        return Err(failed("use", &title));
    }
    let mut content = match read(&path.join(FILE)) {
        Ok(Some(content)) => content,
        Ok(None) => Content { seeds: new_seeds()?, ..Content::default() },
        Err(why) => {
            put_aside(&path.join(FILE), &why).map_err(|e| failed("write to", &e))?;
            Content { seeds: new_seeds()?, ..Content::default() }
        }
    };
    let mut folder = Folder {
        path: path.clone(),
        every: Duration::from_millis(*save_every_ms),
        lock,
        read: Vec::new(),
    };
    if !is_successor {
        // What a process has left that nobody took over from.
        for (late, more) in folder.late() {
            content.add(&more);
            folder.read.push(late);
        }
    }
    let keys: usize = content.pages.values().map(|page| page.keys.len()).sum();
    tracing::info!(folder = %path.display(), keys, "quotas go on");
    Ok((Ledger::new(content, snapshot), Some(folder)))
}

impl Quotas {
    /// Begins to keep what workers count.
    pub fn begin(folder: Option<Folder>, shared: &Arc<Shared>) -> Result<Quotas, String> {
        let Some(folder) = folder else { return Ok(Quotas { orders: None }) };
        let ledger = &shared.ledger;
        // Whether it can be written shows now, not when the process ends.
        if folder.lock.is_some() {
            folder.save(&ledger.file()).map_err(|e| format!("quota_store.folder: {e}"))?;
        }
        let (orders, inbox) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("quotas: cannot make a runtime: {e}"))?;
        let keeper = Keeper {
            ledger: ledger.clone(),
            shared: shared.clone(),
            folder,
            state: State::Keeping,
            late: 0,
        };
        thread::Builder::new()
            .name("quotas".to_owned())
            .spawn(move || runtime.block_on(keeper.keep(inbox)))
            .map_err(|e| format!("quotas: cannot start a thread: {e}"))?;
        Ok(Quotas { orders: Some(orders) })
    }

    /// A new process is about to be started, which begins with what is in the file.
    pub fn hand_over(&self) {
        self.order(Order::HandOver);
    }

    /// Nothing came of it.
    pub fn go_on(&self) {
        self.orders.iter().for_each(|orders| drop(orders.send(Order::GoOn)));
    }

    /// It serves.
    pub fn leave(&self) {
        self.orders.iter().for_each(|orders| drop(orders.send(Order::Leave)));
    }

    /// Writes what the workers have left.
    pub fn finish(&self) {
        self.order(Order::Finish);
    }

    fn order(&self, order: impl FnOnce(mpsc::Sender<()>) -> Order) {
        let Some(orders) = &self.orders else { return };
        let (done, waits) = mpsc::channel();
        if orders.send(order(done)).is_err() || waits.recv_timeout(SAVE_MAX).is_err() {
            tracing::error!("what was used of quotas was not written in time");
        }
    }
}

/// Who writes the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Keeping,
    /// A new process may have read it.
    HandingOver,
    /// It is the new process's.
    Leaving,
}

/// The thread.
struct Keeper {
    ledger: Ledger,
    shared: Arc<Shared>,
    folder: Folder,
    state: State,
    /// Files left for the new process.
    late: u32,
}

impl Keeper {
    async fn keep(mut self, mut inbox: UnboundedReceiver<Order>) {
        let mut save_at = Instant::now() + self.folder.every;
        loop {
            let next = save_at.min(Instant::now() + LATE_EVERY);
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                () = sleep_until(next) => {
                    self.take_over().await;
                    let is_due = Instant::now() >= save_at;
                    if is_due || self.state == State::Leaving {
                        self.ledger.collect(&self.shared).await;
                        self.write();
                    }
                    if is_due {
                        save_at = Instant::now() + self.folder.every;
                    }
                }
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::HandOver(done) => {
                self.ledger.collect(&self.shared).await;
                let file = self.ledger.begin_handover();
                if let Err(e) = self.folder.save(&file) {
                    tracing::error!("{e}: the new process begins with what it had before");
                }
                self.state = State::HandingOver;
                let _ = done.send(());
            }
            Order::GoOn => self.state = State::Keeping,
            Order::Leave => {
                self.state = State::Leaving;
                self.folder.lock = None;
                self.ledger.collect(&self.shared).await;
                self.write();
            }
            Order::Finish(done) => {
                self.ledger.settle();
                self.write();
                let _ = done.send(());
            }
        }
    }

    /// Writes what has changed.
    fn write(&mut self) {
        let written = match self.state {
            State::Keeping => match self.ledger.changed() {
                None => Ok(()),
                Some(file) => {
                    let saved = self.folder.save(&file);
                    saved.inspect_err(|_| self.ledger.not_written())
                }
            },
            State::HandingOver => Ok(()),
            State::Leaving => match self.ledger.since() {
                None => Ok(()),
                Some(file) => {
                    self.late += 1;
                    let name = format!("{LATE}{}-{}", std::process::id(), self.late);
                    self.folder.replace(&name, &file)
                }
            },
        };
        if let Err(e) = written {
            tracing::error!("{e}: quotas may be forgotten");
        }
    }

    /// Adds what the process before this one has counted since this one began.
    async fn take_over(&mut self) {
        if self.state != State::Keeping {
            return;
        }
        if self.folder.lock.is_none() {
            self.folder.lock = lock(&self.folder.path).ok().flatten();
        }
        let late = self.folder.late();
        if late.is_empty() {
            return;
        }
        for (path, more) in &late {
            let view = self.shared.view();
            let wishes = self.ledger.wishes(more, view.workers.len());
            for (worker, wishes) in view.workers.iter().zip(wishes) {
                for chunk in wishes.chunks(CHUNK) {
                    let question = |done| Question::ChangeQuotas(chunk.to_vec(), done);
                    if worker.ask(question).await.is_none() {
                        tracing::error!("a worker does not take in what was used of quotas");
                    }
                }
            }
            self.folder.read.push(path.clone());
        }
        self.ledger.collect(&self.shared).await;
        self.write();
    }
}

impl Folder {
    /// Replaces the file; what was read from others is in it now.
    fn save(&self, file: &[u8]) -> Result<(), String> {
        self.replace(FILE, file)?;
        for read in &self.read {
            // One that is gone is gone.
            let _ = fs::remove_file(read);
        }
        Ok(())
    }

    fn replace(&self, name: &str, file: &[u8]) -> Result<(), String> {
        let path = self.path.join(name);
        replace(&path, file).map_err(|e| format!("cannot write {}: {e}", path.display()))
    }

    /// What other processes have left and is not read yet.
    fn late(&self) -> Vec<(PathBuf, Content)> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let mut all = Vec::new();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_late =
                name.starts_with(LATE) && !name.ends_with(".new") && !name.contains(".bad");
            if !is_late || self.read.contains(&path) {
                continue;
            }
            match read(&path) {
                Ok(content) => all.extend(content.map(|content| (path, content))),
                Err(why) => drop(put_aside(&path, &why)),
            }
        }
        all
    }
}

/// `None` when there is none.
fn read(path: &Path) -> Result<Option<Content>, String> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| e.to_string())?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Content::read(&bytes).map(Some)
}

fn put_aside(path: &Path, why: &str) -> std::io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".bad-{}", unix_now()));
    tracing::error!(
        file = %path.display(),
        aside = %Path::new(&aside).display(),
        "what was used of quotas cannot be read, {why}: it is put aside, and they begin anew"
    );
    fs::rename(path, &aside)
}

/// Makes the folder, if need be; `None` while another process has it.
fn lock(folder: &Path) -> std::io::Result<Option<File>> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).mode(0o600).open(folder.join(LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn new_seeds() -> Result<Seeds, String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "quotas: no random numbers".to_owned())?;
    let (one, two) = bytes.split_at(8);
    let number = |half: &[u8]| half.try_into().map_or(0, u64::from_le_bytes);
    Ok(Seeds(number(one), number(two)))
}
