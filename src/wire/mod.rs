//! Bytes to messages and back: the HTTP/1.1 codec.
//!
//! Owns no memory of its own: every parser reads a buffer lent by the caller and answers with
//! [`Span`]s into it. No I/O, no clock, no globals, and no panic on any input.
//!
//! The one rule that matters: whatever two implementations could read differently is refused here
//! ([`Reason`] says why), so that nothing ambiguous is ever forwarded.

pub mod authority;
pub mod chunked;
pub mod client_hello;
pub mod emit;
pub mod field;
pub mod forwarded;
pub mod frames;
mod grammar;
mod head;
pub mod method;
pub mod path;
pub mod proxy;
pub mod reason;
pub mod request;
pub mod response;
mod scan;
mod section;
pub mod span;
pub mod websocket;
mod words;

pub use field::{Connection, Field, FieldId, Framing, Version};
pub use method::Method;
pub use reason::Reason;
pub use request::RequestHead;
pub use response::ResponseHead;
pub use span::Span;

/// Bounds on a message head. Exceeding one is a [`Reason`], never a truncation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, start line and final CRLF included.
    pub head_bytes_max: u32,
    /// Bytes of the request target.
    pub target_bytes_max: u32,
    /// Number of field lines.
    pub fields_max: u16,
}

/// What a parser made of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    Complete(T),
    /// Not yet decidable: read more and call again with all bytes so far.
    Partial,
}
