//! The new process's side of an upgrade: it is given the listening sockets, starts as always, and
//! accepts only when the old process has said go. See [`super::handover`] for the words.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    handover::{About, LISTENER, Link, Said},
    sockets::Offered,
};
use crate::config::{file::UNIX_MODE_DEFAULT, snapshot::Bind};

/// Set for a process that is to take over; its standard input is the link.
pub const VARIABLE: &str = "RINGWAY_HANDOVER";
/// How long the old process may be silent. It has its own, shorter patience with us.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A takeover under way.
#[derive(Debug)]
pub struct Takeover {
    link: Link,
    pub offered: Vec<Offered>,
    /// The sockets of the admin interface, with their kinds.
    pub admin: Vec<(About, OwnedFd)>,
}

impl Takeover {
    /// What the old process hands over; `None` when this is a start like any other.
    ///
    /// Call it before anything opens a descriptor: those that came with the process are closed.
    pub fn receive() -> Result<Option<Takeover>, String> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        close_inherited();
        let link = stdin_as_link().map_err(|e| {
            format!(
                "{VARIABLE} is set, but standard input is not what an upgrade gives ({e}): unset it"
            )
        })?;
        let mut takeover = Takeover { link, offered: Vec::new(), admin: Vec::new() };
        loop {
            match takeover.next()? {
                (Said::Socket(about), Some(socket)) if about.kind != LISTENER => {
                    takeover.admin.push((about, socket));
                }
                (Said::Socket(about), Some(socket)) => {
                    takeover.offered.extend(offered(about, socket));
                }
                (Said::End, _) => return Ok(Some(takeover)),
                (other, _) => return Err(format!("the old process said {other:?}, not a socket")),
            }
        }
    }

    /// Says that all is prepared and waits until the old process lets us accept.
    pub fn ready(&self, taken: Vec<String>, taken_admin: Vec<String>) -> Result<(), String> {
        let said = self.link.send(&Said::Ready { taken, taken_admin }, None);
        said.map_err(|e| format!("cannot tell the old process: {e}"))?;
        match self.next()? {
            (Said::Go, _) => Ok(()),
            (other, _) => Err(format!("the old process said {other:?}, not to go on")),
        }
    }

    /// We accept: the old process may drain.
    pub fn serving(self) {
        // It ended by itself meanwhile: then there is nothing left to drain.
        if let Err(e) = self.link.send(&Said::Serving, None) {
            tracing::warn!(error = %e, "the old process is gone");
        }
    }

    /// Says why nothing comes of it.
    pub fn failed(self, why: &str) {
        let _ = self.link.send(&Said::Failed { why: why.to_owned() }, None);
    }

    fn next(&self) -> Result<(Said, Option<OwnedFd>), String> {
        let begun = Instant::now();
        loop {
            match self.link.receive() {
                Ok(Some(said)) => return Ok(said),
                Ok(None) => return Err("the old process has given the upgrade up".to_owned()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(format!("cannot hear the old process: {e}")),
            }
            let left = SILENCE_MAX.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err("the old process says nothing".to_owned());
            }
            self.link.wait(false, left).map_err(|e| format!("cannot wait: {e}"))?;
        }
    }
}

fn offered(about: About, socket: OwnedFd) -> Option<Offered> {
    let at = match about.bind.strip_prefix("unix:") {
        Some(path) => Bind::Unix { path: PathBuf::from(path), mode: UNIX_MODE_DEFAULT },
        None => Bind::Tcp(about.bind.parse().ok()?),
    };
    let About { name, worker, lasting, .. } = about;
    Some(Offered { name, at, worker, is_lasting: lasting, socket })
}

/// Takes the link from standard input, which becomes empty.
fn stdin_as_link() -> io::Result<Link> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let link = Link::from(socket)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(link)
}

/// Closes what the old process had open at the moment it started us: a connection that was accepted
/// just then is not yet marked to be closed, and must not stay open because of us.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let open: Vec<i32> = open.filter(|descriptor| *descriptor > 2).collect();
    for descriptor in open {
        // The listing's own is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}
