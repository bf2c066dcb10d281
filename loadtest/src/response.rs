//! One HTTP/1.1 response as it arrives, in pieces cut anywhere: status, length, checksum.
//!
//! Both drivers read with it. Invariant: nothing is kept of a body but its length and, where the
//! request asks for it, its CRC-32; of a head or a chunk's line only what came in part.

use crate::http1::{self, Framing, Malformed};

/// Chunk size lines and trailers longer than this are malformed.
const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head,
    /// Bytes of body, or of one chunk, still to come.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// A body that the end of the connection ends.
    UntilClose,
    Done,
}

/// A response being received.
pub struct Response {
    part: Part,
    partial: Vec<u8>,
    bodiless: bool,
    crc: Option<crc32fast::Hasher>,
    /// Whether any byte of it came.
    pub begun: bool,
    /// Its status, once the head is complete.
    pub status: u16,
    /// Bytes of body so far.
    pub length: u64,
    /// The server ends the connection after it.
    pub close: bool,
}

impl Response {
    /// Nothing expected yet.
    pub fn new() -> Self {
        Self {
            part: Part::Done,
            partial: Vec::new(),
            bodiless: false,
            crc: None,
            begun: false,
            status: 0,
            length: 0,
            close: false,
        }
    }

    /// Expects the next response; `bodiless` when it answers HEAD, `checked` to sum its body.
    pub fn expect(&mut self, bodiless: bool, checked: bool) {
        self.part = Part::Head;
        self.partial.clear();
        self.bodiless = bodiless;
        self.crc = checked.then(crc32fast::Hasher::new);
        self.begun = false;
        self.status = 0;
        self.length = 0;
        self.close = false;
    }

    /// CRC-32 of the body, if it was asked for.
    pub fn checksum(&self) -> Option<u32> {
        self.crc.clone().map(crc32fast::Hasher::finalize)
    }

    /// Takes received bytes; true when they complete the response. More than the response is as
    /// wrong as less.
    pub fn take(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        if self.partial.is_empty() {
            return self.advance(bytes);
        }
        self.partial.extend_from_slice(bytes);
        let joined = std::mem::take(&mut self.partial);
        self.advance(&joined)
    }

    /// The connection ended in order: whether that completes the response.
    pub fn end(&mut self) -> bool {
        let complete = self.part == Part::UntilClose;
        if complete {
            self.part = Part::Done;
        }
        complete
    }

    fn advance(&mut self, mut bytes: &[u8]) -> Result<bool, Malformed> {
        self.begun |= !bytes.is_empty();
        loop {
            match self.part {
                Part::Head => match http1::response(bytes)? {
                    None => return Ok(self.wait(bytes)),
                    Some(head) => {
                        bytes = &bytes[head.len..];
                        // An interim response is not the answer.
                        if head.status >= 200 {
                            (self.status, self.close) = (head.status, head.close);
                            self.part = match head.body {
                                _ if self.bodiless => Part::Body(0),
                                Framing::Length(len) => Part::Body(len),
                                Framing::Chunked => Part::ChunkSize,
                                Framing::Close => Part::UntilClose,
                            };
                        }
                    }
                },
                Part::Body(left) => {
                    let rest = self.body(&mut bytes, left);
                    self.part = if rest == 0 { Part::Done } else { Part::Body(rest) };
                    if rest > 0 {
                        return Ok(false);
                    }
                }
                Part::Chunk(left) => {
                    let rest = self.body(&mut bytes, left);
                    self.part = if rest == 0 { Part::ChunkEnd } else { Part::Chunk(rest) };
                    if rest > 0 {
                        return Ok(false);
                    }
                }
                Part::ChunkSize | Part::ChunkEnd | Part::Trailers => {
                    let Some(line) = line(&mut bytes)? else { return Ok(self.wait(bytes)) };
                    self.part = after_line(self.part, line)?;
                }
                Part::UntilClose => {
                    self.body(&mut bytes, u64::MAX);
                    return Ok(false);
                }
                Part::Done if bytes.is_empty() => return Ok(true),
                Part::Done => return Err(Malformed),
            }
        }
    }

    fn wait(&mut self, bytes: &[u8]) -> bool {
        self.partial = bytes.to_vec();
        false
    }

    /// Counts at most `left` bytes of body off; returns what is left.
    fn body(&mut self, bytes: &mut &[u8], left: u64) -> u64 {
        let taken = left.min(bytes.len() as u64);
        let (body, rest) = bytes.split_at(taken as usize);
        if let Some(crc) = &mut self.crc {
            crc.update(body);
        }
        self.length += taken;
        *bytes = rest;
        left - taken
    }
}

/// Takes one line off, without its end; `None` when it is not complete.
fn line<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > LINE_BYTES_MAX { Err(Malformed) } else { Ok(None) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Malformed)?;
    *bytes = &bytes[end + 1..];
    Ok(Some(line))
}

fn after_line(part: Part, line: &[u8]) -> Result<Part, Malformed> {
    match part {
        Part::ChunkEnd if line.is_empty() => Ok(Part::ChunkSize),
        Part::ChunkEnd => Err(Malformed),
        Part::Trailers if line.is_empty() => Ok(Part::Done),
        Part::Trailers => Ok(Part::Trailers),
        _ => {
            let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            let text = std::str::from_utf8(digits).map_err(|_| Malformed)?;
            match u64::from_str_radix(text, 16).map_err(|_| Malformed)? {
                0 => Ok(Part::Trailers),
                len => Ok(Part::Chunk(len)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;

    const CASES: [(&str, u16, &str, bool); 5] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde", 200, "abcde", false),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
            201,
            "abc0123456789",
            true,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", false),
        ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 500, "", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, "", false),
    ];

    #[test]
    fn cut_anywhere() {
        for (text, status, expected, close) in CASES {
            for cut in 0..text.len() {
                let mut response = Response::new();
                response.expect(false, true);
                let first = response.take(&text.as_bytes()[..cut]);
                assert_eq!(first, Ok(false), "{text:?} cut at {cut}");
                assert_eq!(response.take(&text.as_bytes()[cut..]), Ok(true), "{text:?} at {cut}");
                assert_eq!((response.status, response.close), (status, close), "{text:?}");
                assert_eq!(response.length, expected.len() as u64);
                assert_eq!(response.checksum(), Some(crc32fast::hash(expected.as_bytes())));
            }
        }
    }

    #[test]
    fn the_end_of_the_connection_ends_only_what_it_may() {
        let mut response = Response::new();
        response.expect(false, true);
        assert_eq!(response.take(b"HTTP/1.1 200 OK\r\n\r\nabc"), Ok(false));
        assert!(response.end());
        assert_eq!((response.length, response.checksum()), (3, Some(body::checksum(3))));
        response.expect(false, false);
        assert_eq!(response.take(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc"), Ok(false));
        assert!(!response.end());
    }

    #[test]
    fn more_than_a_response_is_wrong() {
        for (text, bodiless) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", false),
        ] {
            let mut response = Response::new();
            response.expect(bodiless, false);
            assert_eq!(response.take(text.as_bytes()), Err(Malformed), "{text:?}");
        }
        assert_eq!(Response::new().take(b"x"), Err(Malformed), "nothing was asked for");
    }
}
