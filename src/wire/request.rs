//! The request head: parsed in place, strictly (RFC 9112 §3).

use super::authority::Authority;
use super::head::{self, Lines, Summary};
use super::reason::*;
use super::scan;
use super::section;
use super::words::is_target;
use super::{
    Connection, Field, FieldId, Framing, HeadLimits, Method, Parsed, Reason, Span, Version,
};

/// Which form the request target has (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `host:port`, with CONNECT only.
    Authority,
    /// `*`, with OPTIONS only.
    Asterisk,
}

/// A parsed request head. Every span refers to the buffer it was parsed from. Reused from one
/// request to the next so that `fields` keeps its allocation.
#[derive(Debug, Default)]
pub struct RequestHead {
    pub method: Method,
    pub method_text: Span,
    pub version: Version,
    pub form: TargetForm,
    /// The whole target as received.
    pub target: Span,
    /// Path as received, before normalisation. Empty when an absolute-form target has none, which
    /// means `/` (RFC 9110 §4.2.3), and for the authority and asterisk forms.
    pub path: Span,
    /// Without the `?`. `Some(EMPTY-length span)` when the target ends in a bare `?`.
    pub query: Option<Span>,
    /// `host[:port]`: from an absolute-form target, else from Host. Empty only for an HTTP/1.0
    /// request without Host.
    pub authority: Span,
    /// The host of `authority`, without port; an IPv6 literal keeps its brackets.
    pub host: Span,
    pub fields: Vec<Field>,
    pub connection: Connection,
    pub framing: Framing,
    /// `Expect: 100-continue` on an HTTP/1.1 request.
    pub expect_continue: bool,
    /// Bytes the head occupies, final CRLF included. The body starts here.
    pub len: usize,
}

/// Length of the CRLF old clients send after a body, which a server may skip before the next
/// request (RFC 9112 §2.2): 2 or 0. [`RequestHead::parse`] itself refuses it.
pub fn leading_crlf(buf: &[u8]) -> usize {
    if buf.starts_with(b"\r\n") { 2 } else { 0 }
}

impl RequestHead {
    /// Parses the request head at the start of `buf`. On `Complete(())` every member is set; on
    /// `Partial` or an error their content is unspecified.
    ///
    /// The outcome depends only on the bytes, not on how they were split: for each prefix it is
    /// either `Partial` or what it is for the whole. Field lines are limited to 256 even when
    /// `limits` allows more.
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
    ) -> Result<Parsed<()>, &'static Reason> {
        let head = head::within(buf, limits);
        match self.lines(head, limits) {
            Lines::Whole(summary) => {
                self.classify(head, &summary)?;
                Ok(Parsed::Complete(()))
            }
            Lines::Partial if head.len() < limits.head_bytes_max as usize => Ok(Parsed::Partial),
            _ => head::verdict(scan::request(head, limits), head.len(), limits),
        }
    }

    /// Request line and field lines, without what they mean.
    #[inline]
    fn lines(&mut self, head: &[u8], limits: &HeadLimits) -> Lines {
        // httparse skips empty lines before the request line.
        if matches!(head.first(), Some(b'\r' | b'\n')) {
            return Lines::Suspect;
        }
        let line = head::start_line(head);
        let mut request = httparse::Request::new(&mut []);
        if request.parse_with_uninit_headers(line, &mut []).is_err() {
            return Lines::Suspect;
        }
        let (Some(method), Some(target), Some(minor), Some(b'\n')) =
            (request.method, request.path, request.version, line.last())
        else {
            return Lines::Partial;
        };
        let target_start = method.len() + 1;
        let target_end = target_start + target.len();
        if line.len() != target_end + " HTTP/1.1\r\n".len()
            || target.len() > limits.target_bytes_max as usize
            || !is_target(target.as_bytes())
        {
            return Lines::Suspect;
        }
        self.method = Method::from_bytes(method.as_bytes());
        self.method_text = Span::new(0, method.len());
        self.target = Span::new(target_start, target_end);
        self.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        section::read(head, line.len(), head::fields_max(limits), &mut self.fields)
    }

    /// Host, target, framing, connection and expectation of a well-formed head.
    #[inline]
    fn classify(&mut self, head: &[u8], summary: &Summary) -> Result<(), &'static Reason> {
        self.len = summary.len;
        let host = self.host(head, summary)?;
        self.target_parts(head, host)?;
        self.framing = if summary.chunked(head, self.version, &self.fields)? {
            Framing::Chunked
        } else {
            summary.length(head, &self.fields)?.map_or(Framing::None, Framing::Length)
        };
        self.connection = summary.connection(head, self.version, &mut self.fields)?;
        self.expect_continue = false;
        if summary.has(FieldId::Expect) {
            let value = summary.value(FieldId::Expect, &self.fields).of(head);
            if summary.repeats(FieldId::Expect) || !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(EXPECT_UNKNOWN);
            }
            // From an HTTP/1.0 client it must be ignored (RFC 9110 §10.1.1).
            self.expect_continue = self.version == Version::Http11;
        }
        Ok(())
    }

    #[inline]
    fn host<'b>(
        &mut self,
        head: &'b [u8],
        summary: &Summary,
    ) -> Result<Option<Authority<'b>>, &'static Reason> {
        self.authority = summary.value(FieldId::Host, &self.fields);
        self.host = self.authority;
        if summary.repeats(FieldId::Host) {
            return Err(HOST_DUPLICATE);
        }
        if !summary.has(FieldId::Host) {
            return if self.version == Version::Http10 { Ok(None) } else { Err(HOST_MISSING) };
        }
        let authority = Authority::parse(self.authority.of(head)).ok_or(HOST_INVALID)?;
        self.host = self.authority.first(authority.host.len());
        Ok(Some(authority))
    }

    #[inline]
    fn target_parts(
        &mut self,
        head: &[u8],
        host: Option<Authority<'_>>,
    ) -> Result<(), &'static Reason> {
        let target = self.target.of(head);
        if target[0] == b'/' && self.method != Method::Connect {
            self.form = TargetForm::Origin;
            self.path_and_query(head, self.target);
            return Ok(());
        }
        self.path = Span::EMPTY;
        self.query = None;
        if self.method == Method::Connect {
            self.form = TargetForm::Authority;
            let named = Authority::parse(target).filter(|named| named.port.is_some());
            return self.take_authority(named.ok_or(BAD_TARGET)?, self.target, host, None);
        }
        if target == b"*" && self.method == Method::Options {
            self.form = TargetForm::Asterisk;
            return Ok(());
        }
        self.absolute(head, host)
    }

    /// `http://` or `https://`, in any letter case; the authority must be what Host says.
    fn absolute(
        &mut self,
        head: &[u8],
        host: Option<Authority<'_>>,
    ) -> Result<(), &'static Reason> {
        let target = self.target.of(head);
        let starts = |scheme: &[u8]| {
            target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        let (scheme_len, default_port) = if starts(b"http://") {
            (7, 80)
        } else if starts(b"https://") {
            (8, 443)
        } else {
            return Err(BAD_TARGET);
        };
        let rest = &target[scheme_len..];
        let authority_len = rest.iter().position(|&b| b == b'/' || b == b'?').unwrap_or(rest.len());
        let start = self.target.start as usize + scheme_len;
        let authority = Span::new(start, start + authority_len);
        let named = Authority::parse(authority.of(head)).ok_or(BAD_TARGET)?;
        self.form = TargetForm::Absolute;
        self.path_and_query(head, Span::new(start + authority_len, self.target.end as usize));
        self.take_authority(named, authority, host, Some(default_port))
    }

    /// Lets the target's authority replace Host, which must not contradict it: RFC 9112 §3.2.2
    /// would have Host ignored, but whoever is asked next may not.
    fn take_authority(
        &mut self,
        named: Authority<'_>,
        span: Span,
        host: Option<Authority<'_>>,
        default_port: Option<u16>,
    ) -> Result<(), &'static Reason> {
        if host.is_some_and(|host| !named.names_same(host, default_port)) {
            return Err(HOST_INVALID);
        }
        self.authority = span;
        self.host = span.first(named.host.len());
        Ok(())
    }

    #[inline]
    fn path_and_query(&mut self, head: &[u8], span: Span) {
        let (start, end) = (span.start as usize, span.end as usize);
        match memchr::memchr(b'?', span.of(head)) {
            Some(at) => {
                self.path = Span::new(start, start + at);
                self.query = Some(Span::new(start + at + 1, end));
            }
            None => {
                self.path = span;
                self.query = None;
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/request.rs"]
mod tests;
