//! Threads of control that have much to do and can wait: workers on the same core go first.

use std::{io, thread};

/// Where nobody else wants the core this changes nothing; beside a busy worker such a thread gets a
/// tenth of it.
const NICENESS: i32 = 10;

/// Does `work` on a thread of its own.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || {
        // Of this thread alone. Always permitted; and if not, it is done all the same.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        work();
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}
