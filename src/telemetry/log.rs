//! The gateway's own log: what happens to the process, on standard error.
//!
//! A thread of its own writes the lines. Whoever logs only leaves them in a queue, so that a reader
//! of standard error that has stopped stalls no worker: what finds the queue full is dropped, and
//! how much that was is said as soon as the queue is empty again.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TryRecvError},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter, reload};

/// Lines that may wait to be written.
const LINES_MAX: usize = 4096;
/// Longer lines are cut.
const LINE_BYTES_MAX: usize = 8192;
/// How long the end of the program waits for the last lines to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Of what each filter begins with, and may say otherwise: the codec of HTTP/2 warns of what its
/// peers do, line by line, which is counted here (`ringway_http2_failures_total`).
const QUIET: &str = "h2=off";

static LOG: OnceLock<Log> = OnceLock::new();
/// Lines that found the queue full since this was last said.
static DROPPED: AtomicU64 = AtomicU64::new(0);

struct Log {
    queue: SyncSender<Entry>,
    set: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
    /// As it was asked for last.
    level: Mutex<String>,
}

enum Entry {
    Line(Vec<u8>),
    /// Everything before it has been written when this is dropped.
    Flush(#[expect(dead_code, reason = "dropping it is the message")] mpsc::Sender<()>),
}

/// Starts logging at `level`: `error`, `warn`, `info`, `debug`, `trace`, `off`, or a filter such as
/// `ringway::worker=debug`. A second call changes nothing. Errors say what to write instead.
pub fn start(level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    if LOG.get().is_some() {
        return Ok(());
    }
    let (queue, entries) = mpsc::sync_channel(LINES_MAX);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_all(&entries, &mut io::stderr()))
        .map_err(|e| format!("cannot start the log's thread: {e}"))?;
    let own = queue.clone();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(move || Waiting(own.clone()))
        .with_filter_reloading();
    let handle = builder.reload_handle();
    if builder.try_init().is_ok() {
        let set = Box::new(move |filter| handle.reload(filter));
        let _ = LOG.set(Log { queue, set, level: Mutex::new(level.to_owned()) });
    }
    Ok(())
}

/// Logs at `level` from now on; the words are those of [`start`]. Errors say what to write instead.
pub fn set_level(level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    let log = LOG.get().ok_or("logging was not started")?;
    (log.set)(filter).map_err(|e| format!("cannot change the log level: {e}"))?;
    level.clone_into(&mut log.level.lock().unwrap_or_else(PoisonError::into_inner));
    tracing::info!(level, "log level set");
    Ok(())
}

/// What is logged, as it was asked for last; empty before [`start`].
pub fn level() -> String {
    let level = |log: &Log| log.level.lock().unwrap_or_else(PoisonError::into_inner).clone();
    LOG.get().map(level).unwrap_or_default()
}

/// Waits until what was logged so far is written, at most [`FLUSH_MAX`].
pub fn flush() {
    let Some(log) = LOG.get() else { return };
    let (written, until_written) = mpsc::channel();
    // With the queue full, its reader has stopped, and waiting for it would lead to nothing.
    if log.queue.try_send(Entry::Flush(written)).is_ok() {
        let _ = until_written.recv_timeout(FLUSH_MAX);
    }
}

fn filter(text: &str) -> Result<EnvFilter, String> {
    // The library takes any other word alone for the name of a module, and logs nothing else.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_sound = |part: &str| match part.rsplit_once('=') {
        Some((_, level)) => is_level(level),
        None => part.contains('[') || is_level(part),
    };
    match EnvFilter::try_new(format!("{QUIET},{text}")) {
        Ok(filter) if text.split(',').all(|part| is_sound(part.trim())) => Ok(filter),
        _ => Err(format!(
            "`{}` is no log level; write error, warn, info, debug, trace or off, or a filter such \
             as ringway::worker=debug",
            text.escape_debug()
        )),
    }
}

/// Leaves each line in the queue.
struct Waiting(SyncSender<Entry>);

impl Write for Waiting {
    /// One call is one line, which is how the formatter writes.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = line[..line.len().min(LINE_BYTES_MAX)].to_vec();
        if kept.len() < line.len() {
            kept.extend_from_slice("…\n".as_bytes());
        }
        if self.0.try_send(Entry::Line(kept)).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what comes until nobody can log any more.
fn write_all(entries: &Receiver<Entry>, out: &mut impl Write) {
    loop {
        let entry = match entries.try_recv() {
            Ok(entry) => entry,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                say_dropped();
                match entries.recv() {
                    Ok(entry) => entry,
                    Err(_) => return,
                }
            }
        };
        if let Entry::Line(line) = entry {
            // With standard error closed there is nobody to tell.
            let _ = out.write_all(&line);
        }
    }
}

/// Called with the queue empty, so that this line finds room.
fn say_dropped() {
    match DROPPED.swap(0, Ordering::Relaxed) {
        0 => {}
        lines => {
            tracing::warn!(lines, "lines of this log were dropped: standard error was not read");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for text in ["info", "ERROR", "off", "ringway::worker=debug", "warn,ringway=trace"] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for text in ["inof", "", "info,loud", "ringway=loud", "debug=", "a=b=c"] {
            let message = filter(text).expect_err(text);
            assert!(message.contains("write error, warn, info"), "{message}");
        }
    }

    #[test]
    fn the_codec_of_http2_is_heard_only_by_who_asks_for_it() {
        let shown = |text: &str| filter(text).expect("a filter").to_string();
        let has = |text: &str, part: &str| shown(text).split(',').any(|one| one == part);
        assert!(has("trace", "h2=off") && has("trace", "trace"), "{}", shown("trace"));
        assert!(has("info,h2=debug", "h2=debug") && !has("info,h2=debug", "h2=off"));
    }

    #[test]
    fn the_level_changes_while_the_program_runs() {
        assert!(set_level("info").is_err(), "not started yet");
        start("warn").expect("a level");
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        set_level("warn,ringway=debug").expect("a filter");
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert!(set_level("loud").is_err());
        assert!(tracing::enabled!(tracing::Level::DEBUG), "a wrong level changes nothing");
        set_level("off").expect("a level");
        assert!(!tracing::enabled!(tracing::Level::ERROR));
        flush();
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_a_long_line_is_cut() {
        let (queue, entries) = mpsc::sync_channel(2);
        let mut waiting = Waiting(queue);
        let before = DROPPED.load(Ordering::Relaxed);
        for line in [&b"one\n"[..], &[b'x'; LINE_BYTES_MAX + 1], b"three\n", b"four\n"] {
            assert_eq!(waiting.write(line).expect("never fails"), line.len());
        }
        assert_eq!(DROPPED.load(Ordering::Relaxed) - before, 2);
        drop(waiting);
        let mut written = Vec::new();
        write_all(&entries, &mut written);
        let text = String::from_utf8(written).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (2, "one"));
        assert!(lines[1].ends_with("x…") && lines[1].len() == LINE_BYTES_MAX + "…".len());
    }
}
