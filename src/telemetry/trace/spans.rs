//! What is exported of a recorded exchange, in the gateway's own terms: owned and bounded, so that
//! control can make spans of it after the exchange and its configuration are gone.

use std::net::IpAddr;

use crate::wire::{Method, Reason, Version};

/// Bytes of a text taken from a request; the rest is cut off.
pub const TEXT_BYTES_MAX: usize = 1024;
/// About what one span has beside its texts when encoded.
const SPAN_BYTES: usize = 256;

/// A recorded exchange. Times are nanoseconds of the worker's monotonic clock.
#[derive(Debug)]
pub struct ExchangeSpans {
    pub trace_id: u128,
    pub span_id: u64,
    /// 0 when the trace began here.
    pub parent_id: u64,
    pub flags: u8,
    /// `tracestate` as received; empty when there was none that is valid.
    pub state: String,
    pub started_ns: u64,
    pub ended_ns: u64,
    pub method: Method,
    pub method_text: String,
    pub version: Version,
    pub scheme: &'static str,
    /// As received, without the query: what is in a query may be secret.
    pub path: String,
    /// `host[:port]` as the client asked for it.
    pub authority: String,
    pub client: Option<IpAddr>,
    pub peer: Option<IpAddr>,
    pub user_agent: String,
    pub request_id: String,
    /// Name of the route; empty when none was found.
    pub route: String,
    /// The path the route is for, as configured.
    pub pattern: String,
    /// Name of the upstream; empty when the request was not forwarded.
    pub upstream: String,
    /// The path as forwarded.
    pub forwarded_path: String,
    /// Status of the response; 0 when none began.
    pub status: u16,
    /// Why the gateway answered or cut the exchange off itself.
    pub reason: Option<&'static Reason>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// The gateway's own share of the time, where it can be told.
    pub overhead_ns: Option<u64>,
    pub worker: usize,
    pub tries: Vec<Try>,
    pub tries_left_out: u32,
}

/// One try of an endpoint, connecting included.
#[derive(Clone, Debug, Default)]
pub struct Try {
    pub span_id: u64,
    /// The endpoint as configured: `10.0.0.1:80`, `app.internal:80`, `unix:/run/app.sock`.
    pub endpoint: String,
    pub started_ns: u64,
    pub ended_ns: u64,
    /// Status of the endpoint's response; 0 when it gave none.
    pub status: u16,
    /// Why it came to nothing.
    pub reason: Option<&'static Reason>,
    /// Went over a kept connection.
    pub reused: bool,
    /// The request went out before, on another try.
    pub resent: u8,
}

impl ExchangeSpans {
    /// Spans it makes.
    pub fn count(&self) -> usize {
        1 + self.tries.len()
    }

    /// About the bytes that its spans take when encoded.
    pub fn bytes(&self) -> usize {
        let texts = [
            &self.state,
            &self.method_text,
            &self.path,
            &self.authority,
            &self.user_agent,
            &self.request_id,
            &self.route,
            &self.pattern,
        ];
        let own: usize = texts.iter().map(|text| text.len()).sum();
        let each_try = self.state.len() + self.forwarded_path.len() + self.upstream.len();
        let tries = self.tries.iter().map(|one| 2 * one.endpoint.len() + each_try + SPAN_BYTES);
        2 * SPAN_BYTES + own + tries.sum::<usize>()
    }
}

/// A text from a request as it may be exported: UTF-8, and not too long.
pub fn text(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    String::from_utf8_lossy(cut).into_owned()
}
