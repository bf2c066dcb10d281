//! Threads that do workers' errands ([`crate::worker::errand`]): what takes a core for
//! milliseconds, such as hashing a password.
//!
//! They end with the last worker that could leave one.

use std::{
    io,
    sync::{Arc, Mutex},
    thread,
};

use crate::worker::errand::{self, Desk, Errand, Tray};

/// Errands that are done at once: each takes a core, and workers need theirs.
const THREADS: usize = 2;

/// Begins to take errands.
pub fn begin() -> io::Result<Desk> {
    let (desk, tray) = errand::desk();
    let tray = Arc::new(Mutex::new(tray));
    for thread in 0..THREADS {
        let tray = tray.clone();
        thread::Builder::new().name(format!("errand-{thread}")).spawn(move || {
            while let Some(errand) = next(&tray) {
                errand.run()
            }
        })?;
    }
    Ok(desk)
}

/// The next one, when there is one; one thread waits at the tray, the others for it.
fn next(tray: &Mutex<Tray>) -> Option<Errand> {
    // Nothing that could panic happens under the lock.
    tray.lock().ok()?.recv().ok()
}
