//! The strict grammar of a head, byte by byte and from left to right.
//!
//! This is the authority on what is refused and why. The parsers read what is as it should be,
//! several bytes at a time, which is several times faster; only when something is not does the scan
//! run to name the first offence. As it looks at each byte once and never ahead of an offence, a
//! head cut anywhere can only be `Partial` or get the very reason the whole head gets.

use super::grammar::{is_target_byte, is_token_byte, is_value_byte};
use super::reason::*;
use super::{Field, HeadLimits, Parsed, Span};

/// Field lines beyond this are refused whatever the configured limit: parsing keeps one slot for
/// each on the stack.
pub(super) const FIELDS_CAP: usize = 256;

/// Why the scan stopped before the end of the section.
#[derive(Clone, Copy)]
enum Stop {
    Refused(&'static Reason),
    MoreNeeded,
}

type Scanned<T> = Result<T, Stop>;

fn refuse<T>(reason: &'static Reason) -> Scanned<T> {
    Err(Stop::Refused(reason))
}

struct Scan<'a> {
    buf: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Scanned<u8> {
        self.buf.get(self.at).copied().ok_or(Stop::MoreNeeded)
    }

    fn next(&mut self) -> Scanned<u8> {
        let b = self.peek()?;
        self.at += 1;
        Ok(b)
    }

    /// The LF after a CR that was just taken.
    fn line_feed(&mut self) -> Scanned<()> {
        if self.next()? == b'\n' { Ok(()) } else { refuse(BARE_LINE_END) }
    }

    /// A complete line end, anything else being `otherwise`.
    fn line_end(&mut self, otherwise: &'static Reason) -> Scanned<()> {
        match self.next()? {
            b'\r' => self.line_feed(),
            b'\n' => refuse(BARE_LINE_END),
            _ => refuse(otherwise),
        }
    }

    fn method(&mut self) -> Scanned<()> {
        let start = self.at;
        loop {
            match self.next()? {
                b' ' if self.at - start > 1 => return Ok(()),
                b'\r' | b'\n' if start + 1 == self.at => return refuse(MALFORMED_HEAD),
                b if is_token_byte(b) => {}
                _ => return refuse(BAD_METHOD),
            }
        }
    }

    fn target(&mut self, bytes_max: usize) -> Scanned<()> {
        let start = self.at;
        loop {
            match self.next()? {
                b' ' if self.at - start == 1 => return refuse(MALFORMED_HEAD),
                b' ' => return Ok(()),
                // A request line without version, as HTTP/0.9 had it.
                b'\r' => {
                    self.line_feed()?;
                    return refuse(BAD_VERSION);
                }
                b'\n' => return refuse(BARE_LINE_END),
                _ if self.at - start > bytes_max => return refuse(TARGET_TOO_LONG),
                b if is_target_byte(b) => {}
                _ => return refuse(BAD_TARGET),
            }
        }
    }

    fn version(&mut self) -> Scanned<()> {
        if self.peek()? == b' ' {
            return refuse(MALFORMED_HEAD);
        }
        for &want in b"HTTP/" {
            if self.next()? != want {
                return refuse(BAD_VERSION);
            }
        }
        let major = self.next()?;
        if !major.is_ascii_digit() || self.next()? != b'.' {
            return refuse(BAD_VERSION);
        }
        let minor = self.next()?;
        if !minor.is_ascii_digit() {
            return refuse(BAD_VERSION);
        }
        // A further digit makes it no version at all rather than an unknown one.
        if self.peek()?.is_ascii_digit() {
            return refuse(BAD_VERSION);
        }
        if major == b'1' && minor <= b'1' { Ok(()) } else { refuse(UNKNOWN_VERSION) }
    }

    fn status(&mut self) -> Scanned<()> {
        if self.next()? != b' ' {
            return refuse(BAD_VERSION);
        }
        if !matches!(self.next()?, b'1'..=b'5') {
            return refuse(STATUS_INVALID);
        }
        for _ in 0..2 {
            if !self.next()?.is_ascii_digit() {
                return refuse(STATUS_INVALID);
            }
        }
        if self.peek()? != b' ' {
            return self.line_end(STATUS_INVALID);
        }
        loop {
            if !is_value_byte(self.peek()?) {
                return self.line_end(STATUS_INVALID);
            }
            self.at += 1;
        }
    }

    /// Field lines up to and including the empty line.
    fn fields(&mut self, fields_max: usize, mut found: impl FnMut(Field)) -> Scanned<()> {
        let mut count = 0;
        loop {
            match self.peek()? {
                b'\r' => {
                    self.at += 1;
                    return self.line_feed();
                }
                b'\n' => return refuse(BARE_LINE_END),
                b' ' | b'\t' if count > 0 => return refuse(OBS_FOLD),
                _ if count == fields_max => return refuse(TOO_MANY_FIELDS),
                _ => found(self.field()?),
            }
            count += 1;
        }
    }

    fn field(&mut self) -> Scanned<Field> {
        let start = self.at;
        loop {
            match self.next()? {
                b':' if self.at - start > 1 => break,
                b if is_token_byte(b) => {}
                b'\n' => return refuse(BARE_LINE_END),
                _ => return refuse(BAD_FIELD_NAME),
            }
        }
        let name = Span::new(start, self.at - 1);
        while matches!(self.peek()?, b' ' | b'\t') {
            self.at += 1;
        }
        let value_start = self.at;
        let mut value_end = self.at;
        loop {
            let b = self.peek()?;
            if !is_value_byte(b) {
                break;
            }
            self.at += 1;
            if b != b' ' && b != b'\t' {
                value_end = self.at;
            }
        }
        self.line_end(BAD_FIELD_VALUE)?;
        let value = Span::new(value_start, value_end);
        let line = Span::new(start, self.at);
        Ok(Field { name, value, line, ..Field::default() })
    }
}

fn fields_max(limits: &HeadLimits) -> usize {
    usize::from(limits.fields_max).min(FIELDS_CAP)
}

fn finish(scan: &Scan<'_>, outcome: Scanned<()>) -> Result<Parsed<usize>, &'static Reason> {
    match outcome {
        Ok(()) => Ok(Parsed::Complete(scan.at)),
        Err(Stop::MoreNeeded) => Ok(Parsed::Partial),
        Err(Stop::Refused(reason)) => Err(reason),
    }
}

/// Scans a request head; `Complete` holds its length. The caller applies `head_bytes_max`.
pub(super) fn request(buf: &[u8], limits: &HeadLimits) -> Result<Parsed<usize>, &'static Reason> {
    let mut scan = Scan { buf, at: 0 };
    let outcome = scan
        .method()
        .and_then(|()| scan.target(limits.target_bytes_max as usize))
        .and_then(|()| scan.version())
        .and_then(|()| scan.line_end(MALFORMED_HEAD))
        .and_then(|()| scan.fields(fields_max(limits), |_| ()));
    finish(&scan, outcome)
}

/// Scans a response head; `Complete` holds its length. The caller applies `head_bytes_max`.
pub(super) fn response(buf: &[u8], limits: &HeadLimits) -> Result<Parsed<usize>, &'static Reason> {
    let mut scan = Scan { buf, at: 0 };
    let outcome = scan
        .version()
        .and_then(|()| scan.status())
        .and_then(|()| scan.fields(fields_max(limits), |_| ()));
    finish(&scan, outcome)
}

/// Scans a trailer section, collecting its lines; `Complete` holds its length.
pub(super) fn trailers(
    buf: &[u8],
    limits: &HeadLimits,
    fields: &mut Vec<Field>,
) -> Result<Parsed<usize>, &'static Reason> {
    let mut scan = Scan { buf, at: 0 };
    let outcome = scan.fields(fields_max(limits), |field| fields.push(field));
    finish(&scan, outcome)
}
