//! What is learned of an exchange on its way, for metrics, access logs and spans.
//!
//! Times are nanoseconds of the worker's clock as of the operation that completed last; 0 means
//! that it did not come to that. Written by the task that serves the exchange, as it goes.

use std::cell::Cell;

use super::metrics::shards::reasons;
use crate::wire::{Reason, emit};

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
    /// One more than the number of the reason why a policy in shadow mode would have refused it; 0:
    /// none would have.
    shadowed: Cell<u16>,
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

    /// Where the time went, as of now: the response's head is about to be sent.
    pub fn timing(&self, now_ns: u64) -> Timing {
        let (sent_ns, response_ns) = (self.sent_ns.get(), self.response_ns.get());
        let connect_ns = self.connect_ns.get();
        if sent_ns == 0 {
            let since = now_ns.saturating_sub(self.started_ns);
            let gateway_ns = since.saturating_sub(connect_ns);
            return Timing { gateway_ns, connect_ns, upstream_ns: None };
        }
        // Without a response the upstream had until now.
        let answered_ns = if response_ns == 0 { now_ns } else { response_ns };
        Timing {
            gateway_ns: self.lead_ns.get() + now_ns.saturating_sub(answered_ns),
            connect_ns,
            upstream_ns: Some(answered_ns.saturating_sub(sent_ns)),
        }
    }

    /// A policy in shadow mode would have refused it. The first one stays.
    pub fn shadow(&self, reason: &'static Reason) {
        if self.shadowed.get() == 0 {
            self.shadowed.set(reason.number + 1);
        }
    }

    /// Why a policy in shadow mode would have refused it.
    #[inline]
    pub fn shadowed(&self) -> Option<&'static Reason> {
        match self.shadowed.get() {
            0 => None,
            after => reasons().nth(usize::from(after - 1)),
        }
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

/// What the field Server-Timing says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The gateway's own share so far, as in [`Record::overhead_ns`].
    pub gateway_ns: u64,
    /// Opening connections; 0 when none was opened.
    pub connect_ns: u64,
    /// The last try, until its response's head.
    pub upstream_ns: Option<u64>,
}

impl Timing {
    /// Appends the field's value (W3C Server Timing §2): milliseconds to the microsecond.
    pub fn write(&self, out: &mut Vec<u8>) {
        let connect_ns = Some(self.connect_ns).filter(|ns| *ns > 0);
        let metrics: [(&[u8], _); 3] = [
            (b"gw;dur=", Some(self.gateway_ns)),
            (b", con;dur=", connect_ns),
            (b", up;dur=", self.upstream_ns),
        ];
        for (name, ns) in metrics {
            let Some(micros) = ns.map(|ns| ns / 1000) else { continue };
            out.extend_from_slice(name);
            emit::number(out, micros / 1000);
            let rest = micros % 1000;
            let digit = |tenth: u64| b'0' + (rest / tenth % 10) as u8;
            out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
        }
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
    #[test]
    fn the_first_policy_that_would_refuse_is_told() {
        use crate::policy::refusal::{CLIENT_ADDRESS, MAINTENANCE};
        let record = Record::begun(0);
        assert_eq!(record.shadowed(), None);
        record.shadow(CLIENT_ADDRESS);
        record.shadow(MAINTENANCE);
        assert_eq!(record.shadowed(), Some(CLIENT_ADDRESS));
    }

    #[test]
    fn timings_as_a_client_reads_them() {
        let text = |record: &Record, now_ns| {
            let mut out = Vec::new();
            record.timing(now_ns).write(&mut out);
            String::from_utf8(out).expect("ASCII")
        };
        let record = Record::begun(1_000_000);
        assert_eq!(text(&record, 1_020_500), "gw;dur=0.020", "a response of its own");
        record.connect_ns.set(300_000);
        assert_eq!(text(&record, 1_400_000), "gw;dur=0.100, con;dur=0.300", "cannot connect");
        record.sent(1_400_000);
        let expected = "gw;dur=0.100, con;dur=0.300, up;dur=9000.001";
        assert_eq!(text(&record, 9_001_401_000), expected, "no answer");
        record.answered(200, 3_400_000);
        let expected = "gw;dur=0.150, con;dur=0.300, up;dur=2.000";
        assert_eq!(text(&record, 3_450_999), expected);
    }
}
