//! What the policies of one route are.

use super::{Authenticate, RouteLimits};

/// The policies of a route that has any.
#[derive(Clone, Debug)]
pub struct Policies {
    pub maintenance: Option<Maintenance>,
    pub authenticate: Option<Authenticate>,
    /// Names, in lower case, of fields that only the gateway writes: the client's are left out.
    pub own_fields: Vec<Box<[u8]>>,
    pub rate_limits: Option<Box<RouteLimits>>,
}

/// Every request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintenance {
    pub retry_after_s: u32,
}
