//! The chunked coding: decoding in place, trailers, and what frames outgoing chunks
//! (RFC 9112 §7.1).
//!
//! Invariants: the decoder buffers nothing, so its memory is its own few bytes whatever arrives;
//! extensions are checked, bounded and dropped; nothing but CRLF ends a line.

use super::grammar::{hex_digit, is_token_byte, is_value_byte};
use super::reason::{CHUNK_INVALID, TRAILER_INVALID};
use super::scan;
use super::{Field, FieldId, HeadLimits, Parsed, Reason};

/// Bytes of a chunk-size line with its extensions, CRLF not counted. With the 16 digits a size may
/// have, this also bounds what one byte of data can cost.
pub const CHUNK_LINE_BYTES_MAX: u16 = 256;

/// Bytes of extensions in one body, however many chunks bring them: they are work without data.
pub const EXTENSION_BYTES_MAX: u32 = 16 * 1024;

const SIZE_DIGITS_MAX: u16 = 16;

/// Room [`write_chunk_head`] may need: 16 hexadecimal digits and CRLF.
pub const CHUNK_HEAD_MAX: usize = 18;

/// The last chunk and an empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Where in the coding the next byte belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// Whitespace was seen where only `;` may follow.
    BeforeSemicolon,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Value,
    Quoted,
    Escaped,
    AfterQuoted,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The last chunk's line was consumed.
    Ended,
    /// An error was reported; it is reported again.
    Broken,
}

/// Decoder of one chunked body, up to its trailer section. Copying it is cheap.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkDecoder {
    /// Size of the current chunk while its line is read, then the data bytes still to come.
    remaining: u64,
    /// Bytes of the current size line so far.
    line_bytes: u16,
    /// Bytes of extensions so far, over all chunks.
    extension_bytes: u32,
    state: State,
}

/// What one call to [`ChunkDecoder::decode`] made of its buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Body bytes, now at the start of the buffer.
    pub data: usize,
    /// Bytes of the buffer that were used up: all of them unless `end`.
    pub consumed: usize,
    /// The line of the last chunk was read. The trailer section follows at `consumed`; see
    /// [`Trailers`].
    pub end: bool,
}

impl ChunkDecoder {
    /// Decodes `buf`, the next bytes of the body, in place: the data of all its chunks, complete or
    /// not, is moved to the start of `buf`. What is between and after them is overwritten, except
    /// for the bytes from `consumed` on.
    ///
    /// # Errors
    /// [`CHUNK_INVALID`] at the first byte that is not well-formed, and on every later call.
    pub fn decode(&mut self, buf: &mut [u8]) -> Result<Decoded, &'static Reason> {
        let (mut read, mut written) = (0, 0);
        while read < buf.len() && self.state != State::Ended {
            if self.state == State::Data {
                let len = usize::try_from(self.remaining).unwrap_or(usize::MAX);
                let len = len.min(buf.len() - read);
                if read != written {
                    buf.copy_within(read..read + len, written);
                }
                read += len;
                written += len;
                self.remaining -= len as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.step(buf[read])?;
                read += 1;
            }
        }
        Ok(Decoded { data: written, consumed: read, end: self.state == State::Ended })
    }

    /// Data bytes that the current chunk still promises.
    pub fn promised(&self) -> u64 {
        if self.state == State::Data { self.remaining } else { 0 }
    }

    /// The last chunk's line was consumed.
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Takes one byte that is not data.
    fn step(&mut self, b: u8) -> Result<(), &'static Reason> {
        let next = match self.state {
            State::Size => self.size(b),
            State::SizeLf if b == b'\n' => Some(self.size_line_end()),
            State::DataCr if b == b'\r' => Some(State::DataLf),
            State::DataLf if b == b'\n' => Some(State::Size),
            State::SizeLf | State::DataCr | State::DataLf => None,
            _ if self.extension_bytes == EXTENSION_BYTES_MAX => None,
            state => {
                self.extension_bytes += 1;
                extension(state, b)
            }
        };
        let Some(next) = next else {
            return self.broken();
        };
        self.line_bytes = match next {
            State::Data | State::Ended | State::DataLf => 0,
            State::Size if self.state == State::DataLf => 0,
            State::SizeLf => self.line_bytes,
            _ if self.line_bytes == CHUNK_LINE_BYTES_MAX => return self.broken(),
            _ => self.line_bytes + 1,
        };
        self.state = next;
        Ok(())
    }

    fn broken(&mut self) -> Result<(), &'static Reason> {
        self.state = State::Broken;
        Err(CHUNK_INVALID)
    }

    fn size(&mut self, b: u8) -> Option<State> {
        if let Some(digit) = hex_digit(b) {
            if self.line_bytes >= SIZE_DIGITS_MAX {
                return None;
            }
            self.remaining = self.remaining << 4 | u64::from(digit);
            return Some(State::Size);
        }
        if self.line_bytes == 0 {
            return None;
        }
        match b {
            b'\r' => Some(State::SizeLf),
            b';' => Some(State::BeforeName),
            b' ' | b'\t' => Some(State::BeforeSemicolon),
            _ => None,
        }
    }

    fn size_line_end(&self) -> State {
        if self.remaining == 0 { State::Ended } else { State::Data }
    }
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, value being a token or a quoted string
/// (RFC 9112 §7.1.1).
fn extension(state: State, b: u8) -> Option<State> {
    use State::*;
    let blank = b == b' ' || b == b'\t';
    match (state, b) {
        (BeforeSemicolon, b';') => Some(BeforeName),
        (BeforeSemicolon | BeforeName | AfterName | BeforeValue, _) if blank => Some(state),
        (BeforeName | Name, _) if is_token_byte(b) => Some(Name),
        (Name, _) if blank => Some(AfterName),
        (Name | AfterName, b'=') => Some(BeforeValue),
        (Name | AfterName | Value | AfterQuoted, b';') => Some(BeforeName),
        (Name | Value | AfterQuoted, b'\r') => Some(SizeLf),
        (BeforeValue | Value, _) if is_token_byte(b) => Some(Value),
        (BeforeValue, b'"') => Some(Quoted),
        (Value | AfterQuoted, _) if blank => Some(BeforeSemicolon),
        (Quoted, b'"') => Some(AfterQuoted),
        (Quoted, b'\\') => Some(Escaped),
        (Quoted | Escaped, _) if is_value_byte(b) => Some(Quoted),
        _ => None,
    }
}

/// Names, beyond those with a [`FieldId`], of fields that may not be trailers because they frame,
/// route, authenticate or describe the message (RFC 9110 §6.5.1). `Content-*` is handled apart.
const NOT_TRAILERS: [&[u8]; 24] = [
    b"accept",
    b"age",
    b"authorization",
    b"cache-control",
    b"cookie",
    b"expires",
    b"from",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"last-modified",
    b"location",
    b"origin",
    b"pragma",
    b"range",
    b"referer",
    b"retry-after",
    b"set-cookie",
    b"user-agent",
    b"vary",
    b"warning",
    b"www-authenticate",
];

/// A trailer section; spans refer to the buffer it was parsed from. Reused like a head.
#[derive(Debug, Default)]
pub struct Trailers {
    pub fields: Vec<Field>,
    /// Bytes of the section, the empty line included.
    pub len: usize,
}

impl Trailers {
    /// Parses the trailer section at the start of `buf`, which begins right after the last chunk's
    /// line. The limits are those of a head.
    ///
    /// # Errors
    /// [`TRAILER_INVALID`] when it is not well-formed, over a limit, or has a field that may not be
    /// a trailer (RFC 9110 §6.5.1): any that the gateway itself reads, and any about framing,
    /// routing, authentication, caching or the content (except Content-Digest, RFC 9530).
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
    ) -> Result<Parsed<()>, &'static Reason> {
        self.fields.clear();
        let bytes_max = limits.head_bytes_max as usize;
        let section = &buf[..buf.len().min(bytes_max)];
        match scan::trailers(section, limits, &mut self.fields) {
            Err(_) => return Err(TRAILER_INVALID),
            Ok(Parsed::Partial) if section.len() < bytes_max => return Ok(Parsed::Partial),
            Ok(Parsed::Partial) => return Err(TRAILER_INVALID),
            Ok(Parsed::Complete(len)) => self.len = len,
        }
        if self.fields.iter().all(|field| may_be_trailer(field.name.of(section))) {
            Ok(Parsed::Complete(()))
        } else {
            Err(TRAILER_INVALID)
        }
    }
}

fn may_be_trailer(name: &[u8]) -> bool {
    let starts = |prefix: &[u8]| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let is = |text: &&[u8]| name.eq_ignore_ascii_case(text);
    FieldId::recognise(name) == FieldId::Other
        && (!starts(b"content-") || is(&&b"content-digest"[..]))
        && !starts(b"proxy-")
        && !NOT_TRAILERS.iter().any(is)
}

/// Writes the size line of a chunk of `len` bytes at the END of `dst`, so that it ends where the
/// data begins; returns where in `dst` it starts. A `len` of 0 would end the body: not for data.
pub fn write_chunk_head(dst: &mut [u8; CHUNK_HEAD_MAX], len: usize) -> usize {
    let mut start = CHUNK_HEAD_MAX - 2;
    dst[start..].copy_from_slice(b"\r\n");
    let mut rest = len;
    loop {
        start -= 1;
        dst[start] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            return start;
        }
    }
}

#[cfg(test)]
#[path = "tests/chunked.rs"]
mod tests;
