//! What the policies of one route are.

use super::Respond;
use crate::policy::{
    addresses::{Addresses, Lists},
    authorize::Authorization,
    cors::Cors,
    csrf::Csrf,
    permit::Authorises,
    user_agents::UserAgents,
};

/// The policies of a route that has any.
#[derive(Clone, Debug)]
pub struct Policies {
    pub maintenance: Option<Maintenance>,
    /// Which clients are served.
    pub addresses: Option<Addresses>,
    /// Which pages of other origins may use it.
    pub cors: Option<Cors>,
    /// Clients that are refused for what they call themselves.
    pub user_agents: Option<UserAgents>,
    /// Pages of other sites make no requests that may change something.
    pub csrf: Option<Csrf>,
    /// Who may do what.
    pub authorization: Option<Authorization>,
    /// Bytes of a response's body.
    pub response_bytes_max: Option<u64>,
    /// Lines of the response, each unless the upstream has a field of that name.
    pub security_lines: Option<Box<[u8]>>,
}

impl Policies {
    /// Whether there are any.
    pub fn asks(&self) -> bool {
        let Policies {
            maintenance,
            addresses,
            cors,
            user_agents,
            csrf,
            authorization,
            response_bytes_max,
            security_lines,
        } = self;
        maintenance.is_some()
            || addresses.is_some()
            || cors.is_some()
            || user_agents.is_some()
            || csrf.is_some()
            || authorization.is_some()
            || response_bytes_max.is_some()
            || security_lines.is_some()
    }
}

impl Authorises for Policies {
    fn authorization(&self) -> Option<&Authorization> {
        self.authorization.as_ref()
    }
}

/// Every request is refused.
#[derive(Clone, Debug)]
pub struct Maintenance {
    pub retry_after_s: u32,
    /// Clients that are served all the same.
    pub allow: Lists,
    /// What clients get instead of the reason.
    pub page: Option<Respond>,
}
