//! The response head of an upstream: parsed in place, as strictly as a client's (RFC 9112 §4).

use super::head::{self, Lines, Summary};
use super::reason::*;
use super::scan;
use super::section;
use super::words::value_len;
use super::{
    Connection, Field, FieldId, Framing, HeadLimits, Method, Parsed, Reason, Span, Version,
};

/// Where the phrase of a status line begins, with the space before it.
const PHRASE_AT: usize = "HTTP/1.1 200".len();

/// A parsed response head; spans refer to the buffer it was parsed from.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    pub version: Version,
    /// 100 to 599.
    pub status: u16,
    /// Reason phrase, possibly empty.
    pub phrase: Span,
    pub fields: Vec<Field>,
    pub connection: Connection,
    /// Already decided for the request it answers: HEAD, 1xx, 204 and 304 have [`Framing::None`].
    pub framing: Framing,
    /// Value of Content-Length when there is one, whatever the framing (HEAD, 304).
    pub content_length: Option<u64>,
    /// Value span of the Upgrade field, for 101.
    pub upgrade: Span,
    pub len: usize,
}

impl ResponseHead {
    /// Parses the response head at the start of `buf`, the answer to a request with `method`.
    ///
    /// As for requests, the outcome does not depend on how the bytes were split. A reason's
    /// `status` speaks of a client's message; whatever the reason, the client of a bad response
    /// gets a 502.
    pub fn parse(
        &mut self,
        buf: &[u8],
        method: Method,
        limits: &HeadLimits,
    ) -> Result<Parsed<()>, &'static Reason> {
        let head = head::within(buf, limits);
        match self.lines(head, limits) {
            Lines::Whole(summary) => {
                self.classify(head, method, &summary)?;
                Ok(Parsed::Complete(()))
            }
            Lines::Partial if head.len() < limits.head_bytes_max as usize => Ok(Parsed::Partial),
            _ => head::verdict(scan::response(head, limits), head.len(), limits),
        }
    }

    /// Status line and field lines, without what they mean.
    #[inline]
    fn lines(&mut self, head: &[u8], limits: &HeadLimits) -> Lines {
        // `HTTP/1.1 200 OK`: all but the phrase has its place. What is not there yet, or is
        // anything else, the scan tells.
        let Some((start, rest)) = head.split_first_chunk::<PHRASE_AT>() else {
            return Lines::Suspect;
        };
        let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor, b' ', a, b, c] = start else {
            return Lines::Suspect;
        };
        let is_status = matches!(a, b'1'..=b'5') && b.is_ascii_digit() && c.is_ascii_digit();
        // The phrase and even the space before it may be missing.
        let phrase_len = if rest.first() == Some(&b' ') { value_len(rest) } else { 0 };
        let is_whole = rest[phrase_len..].starts_with(b"\r\n");
        if !is_status || !is_whole || !matches!(minor, b'0' | b'1') {
            return Lines::Suspect;
        }
        let line_end = PHRASE_AT + phrase_len;
        self.phrase = Span::new(line_end.min(PHRASE_AT + 1), line_end);
        self.version = if *minor == b'0' { Version::Http10 } else { Version::Http11 };
        self.status = [a, b, c].iter().fold(0, |n, digit| n * 10 + u16::from(**digit - b'0'));
        section::read(head, line_end + 2, head::fields_max(limits), &mut self.fields)
    }

    #[inline]
    fn classify(
        &mut self,
        head: &[u8],
        method: Method,
        summary: &Summary,
    ) -> Result<(), &'static Reason> {
        self.len = summary.len;
        self.upgrade = summary.value(FieldId::Upgrade, &self.fields);
        self.content_length = None;
        let chunked = summary.chunked(head, self.version, &self.fields)?;
        self.content_length = summary.length(head, &self.fields)?;
        self.connection = summary.connection(head, self.version, &mut self.fields)?;
        self.framing = self.body_framing(method, chunked)?;
        if self.framing == Framing::UntilClose {
            self.connection.persistent = false;
        }
        Ok(())
    }

    /// RFC 9112 §6.3, in its order.
    fn body_framing(&self, method: Method, chunked: bool) -> Result<Framing, &'static Reason> {
        let never = self.status < 200 || self.status == 204;
        // Neither field may be sent with these (RFC 9112 §6.1, RFC 9110 §8.6). A length of 0 says
        // nothing false and is common; anything else makes a reader wait for a body.
        if never && chunked {
            return Err(CODING_UNSUPPORTED);
        }
        if never && self.content_length.is_some_and(|length| length != 0) {
            return Err(LENGTH_INVALID);
        }
        Ok(if never || self.status == 304 || method == Method::Head {
            Framing::None
        } else if chunked {
            Framing::Chunked
        } else {
            self.content_length.map_or(Framing::UntilClose, Framing::Length)
        })
    }
}

#[cfg(test)]
#[path = "tests/response.rs"]
mod tests;
