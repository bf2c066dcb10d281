//! Ringway: an API gateway with one shared-nothing worker per core.
//!
//! The modules are layers, lowest first. A file imports only from its own layer and from those
//! above it in this list (`tests/house.rs` enforces it):
//!
//! 1. [`wire`]: bytes to messages and back. No I/O, no clock, no globals.
//! 2. [`policy`]: pure decisions about one exchange: route, rewrite, balance, retry.
//! 3. [`telemetry`]: counters, the request id, log lines.
//! 4. [`config`]: the text an operator writes, checked into an immutable [`config::Snapshot`].
//! 5. [`worker`]: all data-path I/O of one core.
//! 6. [`control`]: everything that is not the data path: command line, start, signals, demo.

pub mod config;
pub mod control;
pub mod policy;
pub mod telemetry;
pub mod wire;
pub mod worker;
