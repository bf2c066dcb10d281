//! Where the lines of one access log go, as its thread sees it.
//!
//! Only whole lines count as written. What a failed write left of a line is taken away again, or
//! where that cannot be done ended, so that no line is joined with another.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Seek, SeekFrom, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::datagram::Datagrams;
use crate::config::snapshot::Destination;

/// A pipe that is ready takes this much without waiting (PIPE_BUF, pipe(7)).
const PIECE_BYTES: usize = 4096;
/// Of a file that is made. Lines may have secrets in them that clients put into paths.
const FILE_MODE: u32 = 0o640;
/// How long a wait lasts before it is asked whether to go on.
pub(super) const WAIT: Duration = Duration::from_millis(100);

/// A destination that is open.
pub struct Sink {
    /// Opened anew for SIGUSR1.
    path: Option<PathBuf>,
    way: Way,
}

enum Way {
    /// A regular file.
    File(Regular),
    /// A pipe, a terminal, another device: it takes what it takes.
    Stream(Stream),
    Datagrams(Datagrams),
}

impl Sink {
    /// Errors say what to do.
    pub fn open(to: &Destination) -> Result<Sink, String> {
        let (path, way) = match to {
            Destination::Stdout => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let file = File::from(stdout.map_err(|e| format!("standard output: {e}"))?);
                (None, Way::of(file).map_err(|e| format!("standard output: {e}"))?)
            }
            Destination::File(path) => (Some(path.clone()), open_file(path)?),
            Destination::Unix(path) => (None, Way::Datagrams(Datagrams::unix(path, false)?)),
            Destination::Syslog(path) => (None, Way::Datagrams(Datagrams::unix(path, true)?)),
            Destination::SyslogUdp { addresses, .. } => {
                (None, Way::Datagrams(Datagrams::udp(addresses)?))
            }
        };
        Ok(Sink { path, way })
    }

    /// Opens a file anew; whether it is one.
    pub fn reopen(&mut self) -> Result<bool, String> {
        let Some(path) = &self.path else { return Ok(false) };
        self.way = open_file(path)?;
        Ok(true)
    }

    /// Writes whole lines: how many of them, and why not all. While the destination takes nothing,
    /// `may_wait` says whether to go on waiting.
    pub fn write(
        &mut self,
        lines: &[u8],
        count: u64,
        may_wait: &mut dyn FnMut() -> bool,
    ) -> (u64, Option<io::Error>) {
        let (whole, failed) = match &mut self.way {
            Way::File(file) => file.write(lines),
            Way::Stream(stream) => stream.write(lines, may_wait),
            Way::Datagrams(datagrams) => return datagrams.write(lines, may_wait),
        };
        // Counted only where it is not known: looking at every byte again costs as much as writing.
        let taken = if whole == lines.len() { count } else { count_lines(&lines[..whole]) };
        (taken, failed)
    }
}

fn open_file(path: &Path) -> Result<Way, String> {
    // A FIFO without reader would block, and without the second end fail; it holds what fits.
    let is_fifo = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .read(is_fifo)
        .mode(FILE_MODE)
        .custom_flags(nonblocking)
        .open(path);
    opened
        .and_then(Way::of)
        .map_err(|e| format!("{}: {e}; `ringway check` says what can be done", path.display()))
}

impl Way {
    fn of(file: File) -> io::Result<Way> {
        Ok(match file.metadata()?.is_file() {
            true => Way::File(Regular { file, is_torn: false }),
            false => Way::Stream(Stream { file, is_torn: false }),
        })
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Length of the whole lines at the front of `bytes`.
fn whole_lines(bytes: &[u8]) -> usize {
    memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1)
}

struct Regular {
    file: File,
    /// It ends in a part of a line.
    is_torn: bool,
}

impl Regular {
    /// Bytes of whole lines that were written.
    fn write(&mut self, lines: &[u8]) -> (usize, Option<io::Error>) {
        if self.is_torn {
            if let Err(e) = self.file.write_all(b"\n") {
                return (0, Some(e));
            }
            self.is_torn = false;
        }
        let mut at = 0;
        while at < lines.len() {
            match self.file.write(&lines[at..]) {
                Ok(0) => return (self.untear(&lines[..at]), Some(ErrorKind::WriteZero.into())),
                Ok(n) => at += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return (self.untear(&lines[..at]), Some(e)),
            }
        }
        (at, None)
    }

    /// Takes away the part of a line at the end of what was written.
    fn untear(&mut self, written: &[u8]) -> usize {
        let whole = whole_lines(written);
        let torn = (written.len() - whole) as u64;
        if torn > 0 {
            self.is_torn = self.shorten(torn).is_err();
        }
        whole
    }

    fn shorten(&mut self, torn: u64) -> io::Result<()> {
        let end = self.file.stream_position()?;
        // Somebody else has written behind it, as during an upgrade.
        if self.file.metadata()?.len() != end {
            return Err(ErrorKind::Other.into());
        }
        self.file.set_len(end - torn)?;
        self.file.seek(SeekFrom::Start(end - torn)).map(drop)
    }
}

struct Stream {
    file: File,
    /// The last thing it took was a part of a line.
    is_torn: bool,
}

impl Stream {
    /// Bytes of whole lines that were written.
    fn write(
        &mut self,
        lines: &[u8],
        may_wait: &mut dyn FnMut() -> bool,
    ) -> (usize, Option<io::Error>) {
        let mut at = 0;
        let failed = loop {
            if at == lines.len() {
                break None;
            }
            match wait_writable(&self.file) {
                Ok(true) => {}
                Ok(false) if may_wait() => continue,
                Ok(false) => break Some(given_up()),
                Err(e) => break Some(e),
            }
            let written = match self.is_torn && at == 0 {
                true => self.file.write(b"\n").map(|_| {
                    self.is_torn = false;
                    0
                }),
                false => self.file.write(piece(&lines[at..])),
            };
            match written {
                Ok(n) => at += n,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(e) => break Some(e),
            }
        };
        let whole = whole_lines(&lines[..at]);
        self.is_torn |= whole < at;
        (whole, failed)
    }
}

/// The log ends, or is no longer configured.
pub(super) fn given_up() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "its destination took nothing before the log ended")
}

/// As many whole lines as are taken at once, or a part of a longer one.
fn piece(lines: &[u8]) -> &[u8] {
    let piece = &lines[..lines.len().min(PIECE_BYTES)];
    match whole_lines(piece) {
        0 => piece,
        whole => &piece[..whole],
    }
}

/// Whether it takes something now, waiting a little.
pub(super) fn wait_writable(to: impl AsFd) -> io::Result<bool> {
    let mut asked = [PollFd::new(&to, PollFlags::OUT)];
    let wait = Timespec { tv_sec: 0, tv_nsec: WAIT.as_nanos() as i64 };
    match poll(&mut asked, Some(&wait)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream};

    use super::*;

    fn stream(socket: &UnixStream) -> Stream {
        let file = File::from(socket.as_fd().try_clone_to_owned().expect("a descriptor"));
        Stream { file, is_torn: false }
    }

    #[test]
    fn pieces_are_whole_lines_where_they_can_be() {
        assert_eq!(piece(b"a\nb\n"), b"a\nb\n");
        let many = b"0123456789\n".repeat(1000);
        assert_eq!(piece(&many).len(), PIECE_BYTES / 11 * 11);
        let long = [&[b'x'; 5000][..], b"\n"].concat();
        assert_eq!(piece(&long).len(), PIECE_BYTES);
    }

    #[test]
    fn a_stream_that_takes_nothing_is_given_up_and_its_torn_line_ended() {
        let (mut reader, writer) = UnixStream::pair().expect("a pair");
        writer.set_nonblocking(true).expect("a socket");
        let mut stream = stream(&writer);
        let long = [&[b'x'; 10 << 20][..], b"\n"].concat();
        let mut asked = 0;
        let (whole, failed) = stream.write(&long, &mut || {
            asked += 1;
            asked < 2
        });
        assert_eq!((whole, failed.map(|e| e.kind())), (0, Some(ErrorKind::TimedOut)));
        let rest = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("text");
            text
        });
        let (whole, failed) = stream.write(b"next\nlast\n", &mut || true);
        assert_eq!((whole, failed.map(|e| e.kind())), (10, None));
        drop((stream, writer));
        let text = rest.join().expect("the reader");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), &lines[1..]), (3, &["next", "last"][..]));
    }

    #[test]
    fn a_torn_line_is_taken_away_or_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let Ok(Way::File(mut log)) = open_file(&path) else { panic!("a file") };
        assert_eq!(log.write(b"one\n").0, 4);
        // As after a write that stopped in the middle.
        log.file.write_all(b"two\nthr").expect("written");
        assert_eq!(log.untear(b"two\nthr"), 4);
        assert_eq!(std::fs::read_to_string(&path).expect("text"), "one\ntwo\n");
        log.file.write_all(b"thr").expect("written");
        let mut other = OpenOptions::new().append(true).open(&path).expect("a file");
        other.write_all(b"other\n").expect("written");
        assert_eq!(log.untear(b"thr"), 0);
        assert_eq!(log.write(b"four\n").0, 5);
        let text = std::fs::read_to_string(&path).expect("text");
        assert_eq!(text, "one\ntwo\nthrother\n\nfour\n", "somebody else's line is not cut");
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_line_counts() {
        let mut sink = Sink::open(&Destination::File("/dev/full".into())).expect("a device");
        let (written, failed) = sink.write(b"one\ntwo\n", 2, &mut || true);
        assert_eq!(written, 0);
        assert_eq!(failed.map(|e| e.kind()), Some(ErrorKind::StorageFull));
    }
}
