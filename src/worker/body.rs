//! Bodies on their way through: decoded in place, framed again in place.
//!
//! Both directions use the same two pieces. [`Decoder`] turns what was read into data bytes,
//! whatever the sender's framing; [`frame`] puts the receiver's framing around a buffer of data.
//! So a body is always re-framed: no chunk extension, odd chunk size or stray byte of the sender
//! ever reaches the receiver.

use std::io::ErrorKind;

use crate::wire::{
    Framing, HeadLimits, Parsed, Reason,
    chunked::{CHUNK_HEAD_MAX, ChunkDecoder, LAST_CHUNK, Trailers, write_chunk_head},
    reason,
};

use super::{
    Worker,
    buffers::Buffer,
    net::{Stream, Wait},
};

/// Where a body stands.
pub struct Decoder {
    kind: Kind,
    ended: bool,
    /// Trailer lines that may be forwarded, each with its CRLF. Nearly always empty.
    trailer_lines: Vec<u8>,
    limits: HeadLimits,
}

enum Kind {
    Length(u64),
    Chunked(ChunkDecoder),
    Trailers,
    UntilClose,
}

/// What a decoder made of a window: its first `data` bytes are body data, its first `consumed`
/// bytes are dealt with. What follows them is for the next call, or not part of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    pub data: usize,
    pub consumed: usize,
}

impl Decoder {
    /// `limits` bound the trailer section.
    pub fn new(framing: Framing, limits: HeadLimits) -> Decoder {
        let kind = match framing {
            Framing::None => Kind::Length(0),
            Framing::Length(n) => Kind::Length(n),
            Framing::Chunked => Kind::Chunked(ChunkDecoder::default()),
            Framing::UntilClose => Kind::UntilClose,
        };
        let ended = matches!(kind, Kind::Length(0));
        Decoder { kind, ended, trailer_lines: Vec::new(), limits }
    }

    /// Everything the framing promised has been taken.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Data bytes still to come, when the framing says so.
    pub fn left(&self) -> Option<u64> {
        match self.kind {
            Kind::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Data bytes that are announced and still to come.
    pub fn promised(&self) -> u64 {
        match &self.kind {
            Kind::Length(left) => *left,
            Kind::Chunked(decoder) => decoder.promised(),
            Kind::Trailers | Kind::UntilClose => 0,
        }
    }

    pub fn trailer_lines(&self) -> &[u8] {
        &self.trailer_lines
    }

    /// Decodes the front of `window` in place.
    pub fn take(&mut self, window: &mut [u8]) -> Result<Took, &'static Reason> {
        if self.ended {
            return Ok(Took { data: 0, consumed: 0 });
        }
        match &mut self.kind {
            Kind::UntilClose => Ok(Took { data: window.len(), consumed: window.len() }),
            Kind::Length(left) => {
                let n = (*left).min(window.len() as u64);
                *left -= n;
                self.ended = *left == 0;
                Ok(Took { data: n as usize, consumed: n as usize })
            }
            Kind::Chunked(decoder) => {
                let decoded = decoder.decode(window)?;
                let mut took = Took { data: decoded.data, consumed: decoded.consumed };
                if decoded.end {
                    self.kind = Kind::Trailers;
                    took.consumed += self.take_trailers(&window[decoded.consumed..])?;
                }
                Ok(took)
            }
            Kind::Trailers => Ok(Took { data: 0, consumed: self.take_trailers(window)? }),
        }
    }

    fn take_trailers(&mut self, bytes: &[u8]) -> Result<usize, &'static Reason> {
        if bytes.starts_with(b"\r\n") {
            self.ended = true;
            return Ok(2);
        }
        let mut trailers = Trailers::default();
        match trailers.parse(bytes, &self.limits)? {
            Parsed::Partial if bytes.len() >= self.limits.head_bytes_max as usize => {
                Err(reason::TRAILER_INVALID)
            }
            Parsed::Partial => Ok(0),
            Parsed::Complete(()) => {
                for field in trailers.fields.iter().filter(|f| !f.hop_by_hop) {
                    self.trailer_lines.extend_from_slice(field.line.of(bytes));
                }
                self.ended = true;
                Ok(trailers.len)
            }
        }
    }

    /// `n` data bytes of a body of known length, no more than are left, have gone another way.
    pub fn pass(&mut self, n: u64) {
        if let Kind::Length(left) = &mut self.kind {
            *left = left.saturating_sub(n);
            self.ended = *left == 0;
        }
    }

    /// The sender closed the connection. Answers whether that ends the body properly.
    pub fn close(&mut self) -> bool {
        if matches!(self.kind, Kind::UntilClose) {
            self.ended = true;
        }
        self.ended
    }
}

/// Why a body could not be read further.
#[derive(Clone, Copy, Debug)]
pub enum ReadError {
    /// Not well-formed.
    Invalid(&'static Reason),
    /// Nothing came for as long as may be.
    TimedOut,
    /// The connection ended before the body did.
    Closed,
}

/// The rest of a body, read from a stream.
pub struct Reader<'s> {
    stream: &'s Stream,
    pub decoder: Decoder,
    /// Bytes read but not dealt with: a part of a trailer section, or what follows the body.
    pub carry: Vec<u8>,
    /// The last read brought so much that more is likely to be there already.
    flows: bool,
}

/// A read that brought so much is tried again without waiting.
const FLOW_BYTES_MIN: usize = 16 * 1024;

impl<'s> Reader<'s> {
    pub fn new(stream: &'s Stream, decoder: Decoder) -> Reader<'s> {
        Reader { stream, decoder, carry: Vec::new(), flows: false }
    }

    /// A buffer of the right size for what is left to come, and for no more than `bytes_max`.
    pub fn buffer(&self, worker: &Worker, bytes_max: u64) -> Buffer {
        worker.buffers.relay(match self.decoder.left() {
            Some(left) => Some(left.min(bytes_max)),
            None => Some(bytes_max).filter(|bytes| *bytes < u64::MAX),
        })
    }

    /// Reads and decodes once. Afterwards the window of `buf` is data, possibly none; whether the
    /// body is over is in `decoder.ended()`.
    pub async fn next(&mut self, buf: &mut Buffer, wait: Wait) -> Result<(), ReadError> {
        buf.append(&self.carry);
        let carried = self.carry.len();
        self.carry.clear();
        let at_once = match self.flows {
            true => self.stream.read_now(buf, usize::MAX),
            false => Err(ErrorKind::WouldBlock.into()),
        };
        let read = match at_once {
            Err(e) if e.kind() == ErrorKind::WouldBlock => self.stream.read(buf, wait).await,
            at_once => at_once,
        };
        self.flows = matches!(read, Ok(n) if n >= FLOW_BYTES_MIN);
        match read {
            Ok(0) if carried > 0 => Err(ReadError::Closed),
            Ok(0) if self.decoder.close() => Ok(()),
            Ok(0) => Err(ReadError::Closed),
            Ok(_) => self.settle(buf),
            Err(e) if e.kind() == ErrorKind::TimedOut => Err(ReadError::TimedOut),
            Err(_) => Err(ReadError::Closed),
        }
    }

    /// After a read that filled `buf`, which has a head and a part of the body: moves it to a
    /// larger buffer with what else of the body has arrived, so that they leave together. Only of a
    /// body of known length, whose bytes need no decoding. Answers whether it did, and so did not
    /// see what may have come behind the body.
    pub fn gather(&mut self, worker: &Worker, buf: &mut Buffer) -> bool {
        let left = self.decoder.left().unwrap_or(0);
        if left == 0 || buf.room() > 0 {
            return false;
        }
        let mut larger = worker.buffers.relay(Some(left.saturating_add(buf.len() as u64)));
        // Relay buffers may be configured to be the smaller ones.
        let gathers = larger.room() > buf.len();
        if gathers {
            larger.append(buf.bytes());
            std::mem::swap(buf, &mut larger);
            self.append_arrived(buf);
        }
        worker.buffers.give(larger);
        gathers
    }

    /// Appends what of a body of known length has arrived and finds room, without waiting.
    pub fn append_arrived(&mut self, buf: &mut Buffer) {
        self.flows = true;
        while let Some(left @ 1..) = self.decoder.left()
            && buf.room() > 0
        {
            let before = buf.len();
            match self.stream.read_now(buf, usize::try_from(left).unwrap_or(usize::MAX)) {
                Ok(1..) => {
                    // Takes all: no more was read than is left.
                    let _ = self.decoder.take(&mut buf.bytes_mut()[before..]);
                }
                // The next read tells what is the matter.
                _ => return,
            }
        }
    }

    /// Decodes the window of `buf`, leaves the data in it, and keeps the rest in `carry`.
    pub fn settle(&mut self, buf: &mut Buffer) -> Result<(), ReadError> {
        let took = self.decoder.take(buf.bytes_mut()).map_err(ReadError::Invalid)?;
        if took.consumed < buf.len() {
            self.carry.extend_from_slice(&buf.bytes()[took.consumed..]);
        }
        buf.truncate(took.data);
        Ok(())
    }
}

/// The framing of data that is sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFraming {
    /// The bytes themselves (a length was announced, or the close ends the body).
    Plain,
    Chunked,
}

/// Writes the size line of a chunk of `len` bytes to `out`; nothing for no bytes, which would end
/// the body.
pub fn chunk_head(out: &mut Vec<u8>, len: usize) {
    if len > 0 {
        let mut line = [0u8; CHUNK_HEAD_MAX];
        let at = write_chunk_head(&mut line, len);
        out.extend_from_slice(&line[at..]);
    }
}

/// Ends a chunk in the window of `buf` and, with `last`, the body. `data` says whether there was
/// any. Answers what did not fit behind the window and must be sent after it.
pub fn chunk_tail(
    buf: &mut Buffer,
    data: bool,
    last: bool,
    trailer_lines: &[u8],
) -> Option<Vec<u8>> {
    if data {
        buf.append(b"\r\n");
    }
    if !last {
        return None;
    }
    if trailer_lines.is_empty() {
        buf.append(LAST_CHUNK);
        return None;
    }
    let mut end = Vec::with_capacity(trailer_lines.len() + 5);
    end.extend_from_slice(b"0\r\n");
    end.extend_from_slice(trailer_lines);
    end.extend_from_slice(b"\r\n");
    Some(end)
}

/// Puts the framing around the data in `buf`. Answers what must be sent after it, if anything.
pub fn frame(
    buf: &mut Buffer,
    framing: SendFraming,
    last: bool,
    trailer_lines: &[u8],
) -> Option<Vec<u8>> {
    if framing == SendFraming::Plain {
        return None;
    }
    let len = buf.len();
    if len > 0 {
        let mut line = [0u8; CHUNK_HEAD_MAX];
        let at = write_chunk_head(&mut line, len);
        let fits = buf.prepend(&line[at..]);
        debug_assert!(fits, "a relay buffer has headroom for a chunk head");
    }
    chunk_tail(buf, len > 0, last, trailer_lines)
}
