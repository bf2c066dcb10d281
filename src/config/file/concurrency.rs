//! `[concurrency.NAME]` as written, see [`super`].

use crate::{
    config::{
        decode::At,
        units::{Millis, millis, minutes, seconds},
        values::LimitKey,
    },
    policy::limit::KeyPart,
    section,
};

section! {
    /// How many requests of one key may be in progress at a time. A route names the limits that
    /// apply to it (`concurrency = ["NAME"]`). No rate limit or quota has the same name. See
    /// docs/concurrency.md.
    pub struct Concurrency {
        /// So many at a time. A request is in progress until its response is complete, a tunnel
        /// (WebSocket), a stream of events or a call of gRPC for as long as it lives.
        limit: u32 => 1..=1_000_000, eg "10";
        /// What is counted by, as in `rate_limits.key`. By `"route"` or `"host"` alone it protects
        /// what is behind, and refuses with 503; by anything else, with 429.
        key: LimitKey = LimitKey(vec![KeyPart::Client]);
        /// Further requests of the key that wait until one of the others is over.
        queue: u32 = 0 => 0..=100_000;
        /// How long they wait, at most.
        queue_timeout: Millis = seconds(1) => millis(1)..=minutes(10);
        /// Whom it does not apply to: addresses and networks of clients, and values of the key.
        exempt: Vec<At<String>> = Vec::new(), eg "[\"10.0.0.0/8\", \"internal\"]";
        /// Only count what it would refuse, and let it pass.
        shadow: bool = false;
    }
}
