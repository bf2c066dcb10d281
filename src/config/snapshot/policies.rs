//! What the policies of one route are.

use super::RouteLimits;
use crate::policy::{
    compress::{Compress, Decompress},
    template::{Place, Template},
    transform::{RequestTransform, ResponseTransform},
};

/// The policies of a route that has any.
#[derive(Clone, Debug)]
pub struct Policies {
    pub maintenance: Option<Maintenance>,
    pub rate_limits: Option<Box<RouteLimits>>,
    pub transform_request: Option<RequestTransform>,
    pub transform_response: Option<ResponseTransform>,
    pub compress: Option<Compress>,
    pub errors: Option<ErrorFormat>,
    pub decompress: Option<Decompress>,
}

impl Policies {
    /// Bodies, or the response, are not passed on as they come.
    pub fn shapes(&self) -> bool {
        self.transform_response.is_some()
            || self.compress.is_some()
            || self.decompress.is_some()
            || self.transform_request.as_ref().is_some_and(|rule| rule.body.is_some())
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

/// Every request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintenance {
    pub retry_after_s: u32,
}
