//! What the policies of one route are.

use super::RouteLimits;

/// The policies of a route that has any.
#[derive(Clone, Debug)]
pub struct Policies {
    pub maintenance: Option<Maintenance>,
    pub rate_limits: Option<Box<RouteLimits>>,
}

/// Every request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintenance {
    pub retry_after_s: u32,
}
