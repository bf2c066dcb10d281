//! Rate limits: how many requests of one key may pass, exactly, on many workers that share nothing.
//!
//! Each key (a client's address, say) has a bucket for each of its limit's windows, and a **home**:
//! the one worker that holds them ([`Buckets`]). The home takes from the buckets directly. Another
//! worker has a [`Shard`]: it spends tokens that the home has *leased* to it, and asks for more
//! when it has none. What it asks is answered by [`Buckets::ask`]; what it does not use it gives
//! back.
//!
//! Invariants, for every key:
//!
//! - A token that is spent was taken out of the bucket before. So from any moment at which nothing
//!   is on lease, no more requests pass than `burst + rate * time`, however many workers there are,
//!   and however long messages take.
//! - A lease beyond what waits for it is at most the bucket's tokens divided by twice the number
//!   of workers: it shrinks to nothing as the bucket empties, so that no worker refuses what
//!   another one has tokens for. What is not used within [`LEASE_SWEEPS`] sweeps goes back.
//! - A shard that was told "empty until" refuses by itself until then.
//!
//! A limit may be shared by a **fleet** of gateways. Then the bucket is in a store that all of them
//! ask, its key's home has a [`Shard`] of it, and other workers ask the home as ever
//! ([`Shard::lend`]). While the store does not answer, the home has a bucket of its own
//! ([`fleet::windows`]).
//!
//! A quota is counted in the same way, by [`Counts`] instead of buckets: it comes back as a whole
//! with the next period of its [`Calendar`]. What is on lease then is worth nothing any more
//! ([`Shard::void`]), and each grant and return says of which period it is.
//!
//! Time is counted in 64ths of a nanosecond ([`Moment`]), so that the interval between two tokens
//! is exact to a millionth at 1,000,000 a second; it is rounded up, never in the client's favour.
//! Quotas count nanoseconds since 1970.

mod bucket;
pub mod calendar;
mod counts;
pub mod fields;
pub mod fleet;
mod key;
mod permits;
mod shard;
mod table;
#[cfg(test)]
mod tests;
mod turn;

pub use bucket::{Left, Moment, Window, moment, nanos};
pub use calendar::{Calendar, Per, Period};
pub use counts::{Counts, Now, Used};
pub use key::{FleetKey, Key, KeyPart, NamedKey, Parts, Seeds, named_key};
pub use permits::{Holder, Permits};
pub use shard::{LEASE_SWEEPS, LEASES_MAX, Lent, Shard, Took};
pub use table::{Ask, Buckets, Grant};
pub use turn::Turn;

/// Windows of one limit, at most.
pub const WINDOWS_MAX: usize = 4;

/// Limits of one route, quotas included, at most; and of one plan.
pub const LIMITS_MAX: usize = 16;
