//! The text of the access log: one line for each exchange, in a format compiled beforehand.
//!
//! Pure: a borrowed [`Line`] goes in, bytes are written into a buffer. Whatever a client or an
//! upstream wrote cannot end a line or a quoted value ([`escape`]), and no value makes a line grow
//! without bound ([`TEXT_BYTES_MAX`]).

mod escape;
mod fields;
mod format;
mod pen;
mod stamp;

pub use escape::{Escape, TEXT_BYTES_MAX};
pub use fields::{FIELDS, Field, Kind, Rule, reference};
pub use format::{BadTemplate, Format};
pub use stamp::Stamp;

use crate::wire::Reason;

/// Everything that can be said of one exchange. An empty text and `None` mean that it has none.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// When it ended.
    pub time: &'a Stamp,
    /// Index of the worker that served it.
    pub worker: usize,
    /// Number of the configuration it was served by.
    pub generation: u64,
    pub listener: &'a str,
    /// Address of the client, as far as trusted proxies vouch for it; written as it is, like
    /// `peer`.
    pub client: &'a [u8],
    /// Address of the other end of the connection.
    pub peer: &'a [u8],
    pub request_id: &'a [u8],
    /// Written as they are.
    pub trace_id: &'a [u8],
    pub span_id: &'a [u8],
    /// Of the client's verified certificate; the fingerprint is written as it is.
    pub client_cert_subject: &'a str,
    pub client_cert_fingerprint: &'a str,
    pub auth_by: &'a str,
    pub subject: &'a str,
    pub consumer: &'a str,
    /// What was understood of the request; `None` when its head was refused.
    pub request: Option<Request<'a>>,
    /// The first line as received, perhaps cut off, when `request` is `None`.
    pub first_line: &'a [u8],
    /// Of the response, or 499 when the client got none because it had left.
    pub status: u16,
    pub route: &'a str,
    pub upstream: &'a str,
    pub endpoint: &'a str,
    /// Connections the request was sent on.
    pub tries: u8,
    pub reused: bool,
    /// From the request's head to the end.
    pub duration_ns: u64,
    pub overhead_ns: Option<u64>,
    pub connect_ns: u64,
    pub first_byte_ns: Option<u64>,
    pub transfer_ns: Option<u64>,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub sent_bytes: u64,
    /// Why the gateway refused the exchange or cut it off.
    pub reason: Option<&'static Reason>,
    /// Why a policy in shadow mode would have refused it.
    pub shadow: Option<&'static Reason>,
}

impl Default for Line<'_> {
    fn default() -> Self {
        static EPOCH: Stamp = Stamp::EPOCH;
        Line {
            time: &EPOCH,
            worker: 0,
            generation: 0,
            listener: "",
            client: b"",
            peer: b"",
            request_id: b"",
            trace_id: b"",
            span_id: b"",
            client_cert_subject: "",
            client_cert_fingerprint: "",
            auth_by: "",
            subject: "",
            consumer: "",
            request: None,
            first_line: b"",
            status: 0,
            route: "",
            upstream: "",
            endpoint: "",
            tries: 0,
            reused: false,
            duration_ns: 0,
            overhead_ns: None,
            connect_ns: 0,
            first_byte_ns: None,
            transfer_ns: None,
            request_bytes: 0,
            response_bytes: 0,
            sent_bytes: 0,
            reason: None,
            shadow: None,
        }
    }
}

/// A request head that was understood. Of a connection whose TLS was passed through: the name asked
/// for and the protocol.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    pub method: &'a [u8],
    pub host: &'a [u8],
    pub target: &'a [u8],
    pub protocol: &'a str,
    pub referer: &'a [u8],
    pub user_agent: &'a [u8],
}

/// Who is behind a [`Reason`]: `client`, `upstream`, or `gateway` when it acted by a rule of its
/// own.
pub fn side(reason: &Reason) -> &'static str {
    match reason.token.split_once('.').map_or("", |(area, _)| area) {
        // The client's message is malformed, or it did not go on.
        "client" | "head" | "framing" | "host" | "path" => "client",
        "upstream" | "response" => "upstream",
        _ => "gateway",
    }
}

#[cfg(test)]
mod tests;
