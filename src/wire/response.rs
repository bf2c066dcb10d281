//! The response head of an upstream: parsed in place, as strictly as a client's (RFC 9112 §4).

use super::{Connection, Field, Framing, HeadLimits, Method, Parsed, Reason, Span, Version};

/// A parsed response head; spans refer to the buffer it was parsed from.
#[derive(Debug, Default)]
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
    pub fn parse(
        &mut self,
        buf: &[u8],
        method: Method,
        limits: &HeadLimits,
    ) -> Result<Parsed<()>, &'static Reason> {
        let _ = (buf, method, limits);
        Ok(Parsed::Partial)
    }
}
