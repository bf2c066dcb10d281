//! What the policies of one route are.

use crate::policy::addresses::Addresses;

/// The policies of a route that has any.
#[derive(Clone, Debug)]
pub struct Policies {
    pub maintenance: Option<Maintenance>,
    /// Which clients are served.
    pub addresses: Option<Addresses>,
}

/// Every request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintenance {
    pub retry_after_s: u32,
}
