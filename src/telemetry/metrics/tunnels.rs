//! What is counted of tunnels: how they end, and what passes through those that are WebSockets.

use super::cell::Cell;
use crate::wire::websocket::{Close, Seen};

/// One end of a tunnel; the index of what is counted by end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client,
    Upstream,
}

impl End {
    pub const ALL: [End; 2] = [End::Client, End::Upstream];

    pub fn other(self) -> End {
        match self {
            End::Client => End::Upstream,
            End::Upstream => End::Client,
        }
    }

    /// As the value of a label.
    pub fn name(self) -> &'static str {
        match self {
            End::Client => "client",
            End::Upstream => "upstream",
        }
    }
}

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both ends had finished.
    Closed,
    /// The client broke off.
    Client,
    /// The upstream broke off.
    Upstream,
    /// Nothing passed for too long.
    Idle,
    /// It had lasted long enough.
    Lifetime,
    /// An end did not answer a ping.
    Unanswered,
    /// The worker ended.
    Cut,
}

impl TunnelEnd {
    pub const ALL: [TunnelEnd; 7] = [
        TunnelEnd::Closed,
        TunnelEnd::Client,
        TunnelEnd::Upstream,
        TunnelEnd::Idle,
        TunnelEnd::Lifetime,
        TunnelEnd::Unanswered,
        TunnelEnd::Cut,
    ];

    /// The value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            TunnelEnd::Closed => "closed",
            TunnelEnd::Client => "client",
            TunnelEnd::Upstream => "upstream",
            TunnelEnd::Idle => "idle",
            TunnelEnd::Lifetime => "lifetime",
            TunnelEnd::Unanswered => "unanswered",
            TunnelEnd::Cut => "cut",
        }
    }
}

/// Status codes of Close frames that are counted one by one (RFC 6455 §7.4.1, and those registered
/// since that may be sent), then those that are counted together.
const CODES: [(u16, &str); 12] = [
    (1000, "1000"),
    (1001, "1001"),
    (1002, "1002"),
    (1003, "1003"),
    (1007, "1007"),
    (1008, "1008"),
    (1009, "1009"),
    (1010, "1010"),
    (1011, "1011"),
    (1012, "1012"),
    (1013, "1013"),
    (1014, "1014"),
];
const CODES_TOGETHER: [&str; 4] = ["none", "3xxx", "4xxx", "other"];
pub const CLOSES: usize = CODES.len() + CODES_TOGETHER.len();

/// Values of the label `code`, in the order of what is counted.
pub fn close_codes() -> impl Iterator<Item = &'static str> {
    CODES.iter().map(|(_, name)| *name).chain(CODES_TOGETHER)
}

/// What all WebSockets of a worker have in common; each array is by [`End`].
#[derive(Debug, Default)]
pub struct WebSocketShard {
    /// Close frames by sender and code, see [`close_codes`].
    closes: [[Cell; CLOSES]; 2],
    /// Pings of the gateway, by whom they were sent to.
    pub pings: [Cell; 2],
    /// Senders that broke the framing.
    pub broken: [Cell; 2],
}

impl WebSocketShard {
    /// A Close frame of `from` has passed.
    pub fn closed(&self, from: End, close: Close) {
        let together = |at| CODES.len() + at;
        let at = match close {
            Close::Bare => together(0),
            Close::Code(3000..=3999) => together(1),
            Close::Code(4000..=4999) => together(2),
            Close::Malformed => together(3),
            Close::Code(code) => {
                CODES.iter().position(|(known, _)| *known == code).unwrap_or(together(3))
            }
        };
        self.closes[from as usize][at].count();
    }

    /// Close frames of `from`, by code.
    pub fn closes(&self, from: End) -> &[Cell; CLOSES] {
        &self.closes[from as usize]
    }
}

/// What passed through the WebSockets of a route, by sender.
#[derive(Debug, Default)]
pub struct WebSocketCounts {
    pub frames: [Cell; 2],
    pub messages: [Cell; 2],
    pub payload_bytes: [Cell; 2],
}

impl WebSocketCounts {
    pub fn passed(&self, from: End, seen: Seen) {
        self.frames[from as usize].add(seen.frames);
        self.messages[from as usize].add(seen.messages);
        self.payload_bytes[from as usize].add(seen.payload_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_is_counted_somewhere() {
        let shard = WebSocketShard::default();
        let table = [
            (Close::Bare, "none"),
            (Close::Malformed, "other"),
            (Close::Code(1000), "1000"),
            (Close::Code(1014), "1014"),
            (Close::Code(3999), "3xxx"),
            (Close::Code(4000), "4xxx"),
            (Close::Code(1005), "other"),
            (Close::Code(0), "other"),
            (Close::Code(5000), "other"),
        ];
        for (close, name) in table {
            let at = close_codes().position(|code| code == name).expect("a known code");
            let before = shard.closes(End::Upstream)[at].get();
            shard.closed(End::Upstream, close);
            assert_eq!(shard.closes(End::Upstream)[at].get(), before + 1, "{close:?}");
        }
        assert!(shard.closes(End::Client).iter().all(|cell| cell.get() == 0));
    }
}
