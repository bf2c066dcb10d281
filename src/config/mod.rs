//! From the text an operator writes to the [`Snapshot`] a worker uses.
//!
//! As written ([`file`]) → as checked (`check`) → as used ([`snapshot`]). Every maximum and default
//! is in [`file`]. A snapshot is immutable; each worker has its own copy.

pub mod snapshot;

pub use snapshot::Snapshot;
