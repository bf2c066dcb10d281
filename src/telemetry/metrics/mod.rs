//! Metrics: single-writer cells in shards ([`shards`]), their registry ([`registry`]), their names
//! ([`families`]) and their text ([`expose`]).
//!
//! The data path touches only [`cell`] and [`shards`]; nothing here is shared between workers, and
//! a scrape reads without disturbing anybody.

pub mod cell;
pub mod expose;
pub mod families;
pub mod registry;
pub mod shards;
pub mod tunnels;
