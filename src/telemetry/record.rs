//! What is learned of an exchange on its way, for metrics, access logs and spans.
//!
//! Times are nanoseconds of the worker's clock as of the operation that completed last; 0 means
//! that it did not come to that. Written by the task that serves the exchange, as it goes.

use std::cell::Cell;

/// Notes of one exchange.
#[derive(Debug, Default)]
pub struct Record {
    /// The request's head was complete.
    pub started_ns: u64,
    /// Index of the upstream it was forwarded to.
    pub upstream: Cell<Option<u32>>,
    /// Index of the endpoint of the last try.
    pub endpoint: Cell<Option<u16>>,
    /// Connections the request was sent on, the first included.
    pub tries: Cell<u8>,
    /// The last try went over a kept connection.
    pub reused: Cell<bool>,
    /// Time spent on opening connections.
    pub connect_ns: Cell<u64>,
    /// What the gateway took from `started_ns` until the request's first bytes were sent.
    lead_ns: Cell<u64>,
    /// The first bytes of the last try were sent.
    pub sent_ns: Cell<u64>,
    /// The final response's head had arrived.
    pub response_ns: Cell<u64>,
    /// Status of the upstream's response.
    pub upstream_status: Cell<u16>,
    /// Bytes that passed through a tunnel, from the client and to it.
    pub tunnelled: Cell<(u64, u64)>,
}

/// What a client was sent, as its protocol's side knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Of the final response; 0 when none began.
    pub status: u16,
    /// Everything: heads, interim responses, framing.
    pub bytes: u64,
    /// The body without its framing.
    pub body_bytes: u64,
    /// When the response's first bytes were sent.
    pub first_ns: u64,
}

impl Record {
    pub fn begun(started_ns: u64) -> Record {
        Record { started_ns, ..Record::default() }
    }

    /// The request's first bytes were sent on a connection.
    #[inline]
    pub fn sent(&self, now_ns: u64) {
        if self.sent_ns.get() == 0 {
            let since = now_ns.saturating_sub(self.started_ns);
            self.lead_ns.set(since.saturating_sub(self.connect_ns.get()));
        }
        self.sent_ns.set(now_ns);
        self.response_ns.set(0);
    }

    /// The head of a final response has arrived.
    #[inline]
    pub fn answered(&self, status: u16, now_ns: u64) {
        self.upstream_status.set(status);
        self.response_ns.set(now_ns);
    }

    /// How long the upstream took to begin its response.
    pub fn first_byte_ns(&self) -> Option<u64> {
        let (sent_ns, response_ns) = (self.sent_ns.get(), self.response_ns.get());
        (response_ns > 0).then(|| response_ns.saturating_sub(sent_ns))
    }

    /// The gateway's own share of the time to the first byte of the response: from the request's
    /// head to the first bytes sent to the upstream, without opening connections, and from the
    /// response's head to the first bytes sent to the client. For a response of the gateway's own
    /// the whole time. `None` when the client got nothing.
    #[inline]
    pub fn overhead_ns(&self, sent: &Sent) -> Option<u64> {
        if sent.first_ns == 0 {
            return None;
        }
        let from = match self.response_ns.get() {
            0 if self.sent_ns.get() == 0 => self.started_ns,
            // Refused after the upstream was tried: its time cannot be told from ours.
            0 => return None,
            response_ns => response_ns,
        };
        Some(self.lead_ns.get() + sent.first_ns.saturating_sub(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_share_leaves_out_connecting_and_the_upstream() {
        let sent = |first_ns| Sent { status: 200, first_ns, ..Sent::default() };
        let record = Record::begun(1000);
        assert_eq!(record.overhead_ns(&Sent::default()), None);
        assert_eq!(record.overhead_ns(&sent(1500)), Some(500), "a response of its own");
        record.connect_ns.set(300);
        record.sent(1400);
        assert_eq!(record.overhead_ns(&sent(9000)), None, "refused after a try");
        record.sent(5000);
        record.answered(200, 7000);
        assert_eq!(record.overhead_ns(&sent(7200)), Some(100 + 200), "the first try's lead");
        assert_eq!(record.first_byte_ns(), Some(2000));
    }
}
