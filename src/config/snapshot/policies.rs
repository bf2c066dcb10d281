//! What the policies of one route are.

use std::sync::Arc;

use super::{Authenticate, ConcurrencyId, Respond, RouteLimits};
use crate::policy::{
    addresses::{Addresses, Lists},
    authorize::Authorization,
    compress::{Compress, Decompress},
    cors::Cors,
    csrf::Csrf,
    permit::Authorises,
    template::{Place, Template},
    transform::{RequestTransform, ResponseTransform},
    user_agents::UserAgents,
    validate::Validation,
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
    pub authenticate: Option<Authenticate>,
    /// Names, in lower case, of fields that only the gateway writes: the client's are left out.
    pub own_fields: Vec<Box<[u8]>>,
    /// Cookies whose names begin so are the gateway's own: upstreams do not get them.
    pub own_cookies: Vec<Box<[u8]>>,
    pub rate_limits: Option<Box<RouteLimits>>,
    /// On requests in progress.
    pub concurrency: Box<[ConcurrencyId]>,
    /// What requests have to be like.
    pub validate: Option<Arc<Validation>>,
    pub transform_request: Option<RequestTransform>,
    pub transform_response: Option<ResponseTransform>,
    pub compress: Option<Compress>,
    pub errors: Option<ErrorFormat>,
    pub decompress: Option<Decompress>,
}

impl Policies {
    /// Whether there are any.
    pub fn asks(&self) -> bool {
        let Policies {
            maintenance,
            authenticate,
            own_fields: _,
            own_cookies,
            rate_limits,
            addresses,
            cors,
            user_agents,
            csrf,
            authorization,
            response_bytes_max: _,
            security_lines,
            concurrency,
            validate,
            transform_request,
            transform_response: _,
            errors,
            compress: _,
            decompress: _,
        } = self;
        maintenance.is_some()
            || authenticate.is_some()
            || rate_limits.is_some()
            || !concurrency.is_empty()
            || addresses.is_some()
            || cors.is_some()
            || user_agents.is_some()
            || csrf.is_some()
            || authorization.is_some()
            || security_lines.is_some()
            || validate.is_some()
            || transform_request.is_some()
            || errors.is_some()
            || !own_cookies.is_empty()
            || self.shapes()
    }

    /// Bodies, or the response, are not passed on as they come.
    pub fn shapes(&self) -> bool {
        self.transform_response.is_some()
            || self.response_bytes_max.is_some()
            || self.compress.is_some()
            || self.decompress.is_some()
            || self.authenticate.as_ref().is_some_and(Authenticate::holds_bodies)
            || self.transform_request.as_ref().is_some_and(|rule| rule.body.is_some())
            || self.checks_bodies()
    }

    /// A request's body is looked at.
    pub fn checks_bodies(&self) -> bool {
        self.validate.as_ref().is_some_and(|rule| rule.body.is_some())
    }

    /// A response's body may be held and changed.
    pub fn changes_response_body(&self) -> bool {
        self.transform_response.as_ref().is_some_and(|rule| rule.body.is_some())
    }
}

/// How the gateway tells clients its own errors.
#[derive(Clone, Debug)]
pub struct ErrorFormat {
    pub content_type: String,
    pub body: Template,
    pub place: Place,
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
