//! The request head: parsed in place, strictly (RFC 9112 §3).

use super::{Connection, Field, Framing, HeadLimits, Method, Parsed, Reason, Span, Version};

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
    pub fields: Vec<Field>,
    pub connection: Connection,
    pub framing: Framing,
    /// `Expect: 100-continue` on an HTTP/1.1 request.
    pub expect_continue: bool,
    /// Bytes the head occupies, final CRLF included. The body starts here.
    pub len: usize,
}

impl RequestHead {
    /// Parses the request head at the start of `buf`. On `Complete(())` every member is set; on
    /// `Partial` or an error their content is unspecified.
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
    ) -> Result<Parsed<()>, &'static Reason> {
        let _ = (buf, limits);
        Ok(Parsed::Partial)
    }
}
