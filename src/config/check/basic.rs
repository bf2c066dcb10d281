//! Users of HTTP Basic: of consumers, and of files as htpasswd writes them.

use std::{path::Path, sync::Arc};

use super::{TOP, consumers::Gathered};
use crate::{
    config::{
        bounded,
        decode::{At, Sink},
        file::Basic,
        report::{Place, Problem},
        snapshot::{Accepted, BasicRule, User, Users},
    },
    policy::password::{HOW, StoredPassword},
};

/// Users of one file.
const USERS_MAX: usize = 100_000;
/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Wrong lines that are told.
const WRONG_MAX: usize = 5;

/// The rule; whom it takes is not known yet.
pub(super) fn rule(name: &At<String>, way: &Basic, users: Users) -> BasicRule {
    BasicRule {
        realm: way.realm.value.as_ref().map_or_else(|| name.value.clone(), |realm| realm.0.clone()),
        users: Arc::new(users),
        accepted: Accepted::All,
        remember_ms: way.remember.0,
        verify_max: *way.verify_at_once,
    }
}

/// Those that a way knows; `None` after a report.
pub(super) fn users(
    name: &At<String>,
    way: &Basic,
    folder: &Path,
    gathered: &Gathered<'_>,
    sink: &mut Sink,
) -> Option<Users> {
    let mut users = Users::default();
    let mut is_sound = !way.file.is_wrong();
    for (user, at) in gathered.passwords() {
        if add(&mut users, user).is_err() {
            let title = "two consumers have the same name in HTTP Basic";
            sink.push(Problem::error(at, title).fix("give one of them another `username`"));
            is_sound = false;
        }
    }
    if let Some(file) = way.file.some() {
        let place = file.place().unwrap_or(TOP);
        is_sound &= read(&file.value, &folder.join(&file.value), place, gathered, &mut users, sink);
    }
    if is_sound && users.all.is_empty() && gathered.is_asked_for(&name.value) {
        let title = "nobody could pass: no consumer has a `password`, and no `file` has a user";
        let fix = "give a consumer a `password`, or add file = \"users.htpasswd\"";
        sink.push(Problem::error(name.place().unwrap_or(TOP), title).fix(fix));
        is_sound = false;
    }
    is_sound.then_some(users)
}

/// `Err`: somebody has that name.
fn add(users: &mut Users, user: User) -> Result<(), ()> {
    // Bounded by the maximum.
    let at = users.all.len() as u32;
    match users.places.insert(user.name.clone(), at) {
        Some(earlier) => {
            users.places.insert(user.name, earlier);
            Err(())
        }
        None => {
            users.all.push(user);
            Ok(())
        }
    }
}

fn read(
    name: &str,
    path: &Path,
    place: Place,
    gathered: &Gathered<'_>,
    users: &mut Users,
    sink: &mut Sink,
) -> bool {
    let (text, mode) = match bounded::read_text(path, FILE_BYTES_MAX) {
        Ok(read) => read,
        Err(error) => {
            let title = format!("cannot read the users `{}`: {error}", path.display());
            let fix = "write a path relative to this configuration, or an absolute one; the \
                       gateway's user must be able to read it";
            sink.push(Problem::error(place, title).fix(fix));
            return false;
        }
    };
    if mode & 0o007 != 0 {
        let title = format!(
            "anybody on this machine may use `{name}` (mode {:04o}), and guess at its passwords",
            mode & 0o777
        );
        let fix = format!("chmod 0640 {}", path.display());
        sink.push(Problem::warning(place, title).fix(fix));
    }
    let mut wrong = 0;
    for (number, line) in (1..).zip(text.lines()) {
        if let Err(why) = one(line, gathered, users) {
            let title = format!("`{name}`, line {number}: {why}");
            sink.push(Problem::error(place, title).fix(format!("write NAME:HASH; {HOW}")));
            wrong += 1;
            if wrong == WRONG_MAX {
                break;
            }
        }
    }
    wrong == 0
}

fn one(line: &str, gathered: &Gathered<'_>, users: &mut Users) -> Result<(), String> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let (name, hash) = line.split_once(':').ok_or("has no colon between name and hash")?;
    if name.is_empty() {
        return Err("has no name before the colon".to_owned());
    }
    let password = StoredPassword::read(hash).map_err(|why| format!("the password {why}"))?;
    if users.all.len() >= USERS_MAX {
        return Err(format!("is one user more than {USERS_MAX}"));
    }
    let consumer = gathered.consumers.find(name).filter(|one| gathered.consumers.is_own(*one));
    add(users, User::new(name, password, consumer))
        .map_err(|()| "its name is somebody's already".to_owned())
}
