//! Sees to one name after the other, whichever is due.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use httpdate::fmt_http_date;
use tokio::time::sleep;

use super::{
    super::aside::Wanted,
    Board,
    order::{self, Failed},
    plan::{self, paced},
    store::{self, Lock},
};
use crate::{
    config::snapshot::{AcmeName, Issued},
    telemetry::request_id::Random,
};

/// How often a process that does not renew looks whether it may, and what the other one has got.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest sleep: clocks are set, and machines suspended.
const SLEEP_MAX: Duration = Duration::from_secs(600);
const SLEEP_MIN: Duration = Duration::from_millis(20);
/// For everything that one certificate takes.
const ORDER_MAX: Duration = Duration::from_secs(600);

/// Runs until nobody wants anything any more.
pub async fn renew(mut names: Wanted<AcmeName>, board: Board) {
    let random = Random::default();
    let mut renewer = Renewer { board, random, plans: HashMap::new(), locks: HashMap::new() };
    let mut before = names.borrow().clone();
    loop {
        let wanted = names.borrow_and_update().clone();
        renewer.keep(&wanted);
        if !Arc::ptr_eq(&std::mem::replace(&mut before, wanted.clone()), &wanted) {
            renewer.hasten();
        }
        let now = SystemTime::now();
        let next = wanted.iter().min_by_key(|name| renewer.plan(name).next);
        let wait = next.map_or(SLEEP_MAX, |name| {
            renewer.plan(name).next.duration_since(now).unwrap_or_default().min(SLEEP_MAX)
        });
        let Some(name) = next.filter(|_| wait.is_zero()) else {
            tokio::select! {
                changed = names.changed() => if changed.is_err() { return },
                () = sleep(wait.max(SLEEP_MIN)) => {}
            }
            continue;
        };
        // A name that is wanted no more is left at once, and so is everything at the end.
        let is_gone =
            |now: &Arc<[AcmeName]>| !now.iter().any(|other| Arc::ptr_eq(&other.cell, &name.cell));
        tokio::select! {
            gone = names.wait_for(is_gone) => if gone.is_err() { return },
            () = renewer.see_to(name) => {}
        }
    }
}

struct Renewer {
    board: Board,
    random: Random,
    /// By file of the certificate.
    plans: HashMap<PathBuf, Plan>,
    /// By folder of the authority: where this process renews.
    locks: HashMap<PathBuf, Lock>,
}

/// What is known of one name.
struct Plan {
    /// When it is seen to again.
    next: SystemTime,
    /// This process renews it.
    is_ours: bool,
    /// Failed orders in a row.
    failures: u32,
    /// No order before: one has failed, or succeeded, a short time ago.
    hold: Option<SystemTime>,
    /// As if the last failure had been the first.
    soonest: Option<SystemTime>,
    /// When the certificate of that end is renewed.
    renewal: Option<(SystemTime, SystemTime)>,
    /// When the authority is asked for its suggestion.
    ask: SystemTime,
    /// The file as it was last read.
    seen: Option<(u64, i64, i64)>,
}

impl Renewer {
    fn plan(&mut self, name: &AcmeName) -> &mut Plan {
        let random = &self.random;
        self.plans.entry(name.file()).or_insert_with(|| {
            let now = SystemTime::now();
            let ask = now + paced(plan::first_suggestion(plan::share(random)));
            Plan {
                next: now,
                is_ours: false,
                failures: 0,
                hold: None,
                soonest: None,
                renewal: None,
                ask,
                seen: None,
            }
        })
    }

    /// Forgets names that are wanted no more, and lets go of their locks.
    fn keep(&mut self, wanted: &[AcmeName]) {
        self.board.keep(wanted);
        self.plans.retain(|file, _| wanted.iter().any(|name| name.file() == *file));
        self.locks.retain(|folder, _| wanted.iter().any(|name| name.issuer.folder == *folder));
    }

    /// After a reload, which may have mended what was wrong, a name that failed does not wait any
    /// longer than after its first failure.
    fn hasten(&mut self) {
        for plan in self.plans.values_mut() {
            if let (Some(hold), Some(soonest)) = (&mut plan.hold, plan.soonest) {
                *hold = soonest.min(*hold);
                plan.next = soonest.min(plan.next);
            }
        }
    }

    /// Takes the lock of an authority's folder; `false` while another process has it.
    fn lock(&mut self, folder: &Path) -> io::Result<bool> {
        if self.locks.contains_key(folder) {
            return Ok(true);
        }
        let lock = store::lock(folder)?;
        Ok(lock.map(|lock| self.locks.insert(folder.to_owned(), lock)).is_some())
    }

    /// Does what is due for a name.
    async fn see_to(&mut self, name: &AcmeName) {
        let now = SystemTime::now();
        let is_ours = match self.lock(&name.issuer.folder) {
            Ok(is_ours) => is_ours,
            Err(e) => {
                let why = format!("cannot use {}: {e}", name.issuer.folder.display());
                return self.failed(name, Failed { why, is_unreachable: true, asked: None });
            }
        };
        let plan = self.plan(name);
        if !is_ours || !plan.is_ours {
            look(name, plan);
        }
        plan.is_ours = is_ours;
        if !is_ours {
            plan.next = now + paced(LOOK_EVERY);
            return self.show(name, None);
        }
        let issued = name.cell.certificate.load_full();
        if let Some(issued) = &issued {
            self.listen_to_authority(name, issued).await;
        }
        if self.due(name, issued.as_deref()) <= now {
            return self.order(name, issued.as_deref()).await;
        }
        self.wait(name);
    }

    /// Nothing is due: until when.
    fn wait(&mut self, name: &AcmeName) {
        let issued = name.cell.certificate.load_full();
        let due = self.due(name, issued.as_deref());
        let plan = self.plan(name);
        plan.next = if issued.is_some() { due.min(plan.ask) } else { due };
        self.show(name, Some(due));
    }

    /// When a name gets its next certificate.
    fn due(&mut self, name: &AcmeName, issued: Option<&Issued>) -> SystemTime {
        let share = plan::share(&self.random);
        let plan = self.plan(name);
        let hold = plan.hold.unwrap_or(SystemTime::UNIX_EPOCH);
        let Some(issued) = issued else { return hold };
        let (_, renewal) = plan
            .renewal
            .filter(|(of, _)| *of == issued.not_after)
            .unwrap_or_else(|| (issued.not_after, plan::renewal(issued, share)));
        plan.renewal = Some((issued.not_after, renewal));
        renewal.max(hold)
    }

    /// Asks the authority, now and then, when it would have the certificate renewed. One that does
    /// not say changes nothing.
    async fn listen_to_authority(&mut self, name: &AcmeName, issued: &Issued) {
        if self.plan(name).ask > SystemTime::now() {
            return;
        }
        let said = order::suggestion(&name.issuer, issued).await;
        let (share, ask_share) = (plan::share(&self.random), plan::share(&self.random));
        let plan = self.plan(name);
        let again = said.as_ref().map(|(_, again)| *again);
        plan.ask = SystemTime::now() + paced(plan::next_suggestion(again, ask_share));
        if let Some((window, _)) = said {
            let before = plan.renewal.map(|(_, at)| at);
            // Chosen once for a window, not anew each time.
            if before.is_some_and(|at| window.contains(&at)) {
                return;
            }
            let rest = paced(plan::rest(issued, issued.not_before));
            let at = plan::suggested(issued, &window, share, rest);
            plan.renewal = Some((issued.not_after, at));
            if before != Some(at) {
                let renewal = fmt_http_date(at);
                tracing::info!(name = name.name, renewal, "the authority says when");
            }
        }
    }

    async fn order(&mut self, name: &AcmeName, before: Option<&Issued>) {
        let authority = &name.issuer.directory;
        tracing::info!(name = name.name, authority, is_renewal = before.is_some(), "ordering");
        // An authority that refuses what it is told of the one before is not told again.
        let replaces = before.filter(|_| self.plan(name).failures == 0);
        let obtained = tokio::time::timeout(ORDER_MAX, order::obtain(name, replaces)).await;
        let obtained = obtained.unwrap_or_else(|_| {
            let why = format!("the order was not over within {ORDER_MAX:?}");
            Err(Failed { why, is_unreachable: false, asked: None })
        });
        let issued = obtained.and_then(|pem| {
            let no_use = |why| Failed { why, is_unreachable: false, asked: None };
            let issued = Issued::from_pem(pem.as_bytes(), &name.name).map_err(no_use)?;
            match issued.not_after > SystemTime::now() {
                true => Ok((pem, issued)),
                false => Err(no_use("the certificate that was issued has expired".to_owned())),
            }
        });
        match issued {
            Ok((pem, issued)) => self.take(name, &pem, issued),
            Err(failed) => self.failed(name, failed),
        }
    }

    /// A new certificate: on disk, and in the next handshake of every worker.
    fn take(&mut self, name: &AcmeName, pem: &str, issued: Issued) {
        if let Err(e) = store::replace(&name.file(), pem.as_bytes()) {
            let file = name.file();
            let file = file.display();
            tracing::error!(name = name.name, error = %e, %file, "the new certificate serves but \
                is not on disk: the next start orders another one");
        }
        let (rest, expires) = (plan::rest(&issued, SystemTime::now()), issued.not_after);
        name.cell.certificate.store(Some(Arc::new(issued)));
        let plan = self.plan(name);
        plan.failures = 0;
        plan.soonest = None;
        plan.hold = Some(SystemTime::now() + paced(rest));
        plan.seen = stamp(&name.file());
        self.board.set(name, |line| {
            line.issued += 1;
            line.error = None;
        });
        self.wait(name);
        let renewal = self.plan(name).renewal.map_or(expires, |(_, at)| at);
        tracing::info!(
            name = name.name,
            authority = name.issuer.directory,
            expires = fmt_http_date(expires),
            renewal = fmt_http_date(renewal),
            "certificate issued"
        );
    }

    fn failed(&mut self, name: &AcmeName, failed: Failed) {
        let share = plan::share(&self.random);
        let plan = self.plan(name);
        plan.failures = plan.failures.saturating_add(1);
        let Failed { why, is_unreachable, asked } = failed;
        let pause = paced(plan::pause(plan.failures, is_unreachable, asked, share));
        let now = SystemTime::now();
        let again = now + pause;
        plan.hold = Some(again);
        plan.next = again;
        plan.soonest = Some(now + paced(plan::pause(1, is_unreachable, asked, share)));
        let expires = name.cell.certificate.load().as_ref().map(|issued| issued.not_after);
        tracing::warn!(
            name = name.name,
            authority = name.issuer.directory,
            challenge = name.challenge.word(),
            failures = plan.failures,
            expires = expires.map(fmt_http_date),
            retry_in = ?Duration::from_millis(pause.as_millis() as u64),
            "no certificate: {why}"
        );
        self.board.set(name, |line| {
            line.failed += 1;
            line.error = Some(why);
        });
        self.show(name, Some(again));
    }

    fn show(&self, name: &AcmeName, next: Option<SystemTime>) {
        let expires = name.cell.certificate.load().as_ref().map(|issued| issued.not_after);
        self.board.set(name, |line| {
            line.expires = expires;
            line.next = next;
        });
    }
}

/// Takes what another process has got.
fn look(name: &AcmeName, plan: &mut Plan) {
    let file = name.file();
    let now = stamp(&file);
    if now.is_none() || now == plan.seen {
        return;
    }
    plan.seen = now;
    let Ok(pem) = fs::read(&file) else { return };
    let Ok(issued) = Issued::from_pem(&pem, &name.name) else { return };
    let current = name.cell.certificate.load();
    if current.as_ref().is_none_or(|current| current.key.cert != issued.key.cert) {
        tracing::info!(name = name.name, file = %file.display(), "certificate of another process");
        name.cell.certificate.store(Some(Arc::new(issued)));
    }
}

fn stamp(file: &Path) -> Option<(u64, i64, i64)> {
    let meta = fs::metadata(file).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec()))
}
