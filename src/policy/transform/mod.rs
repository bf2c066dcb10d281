//! Changes of requests and responses on their way: heads ([`fields`]) and JSON bodies ([`json`]).
//!
//! What a transformation changes it changes in one order, however it was written: remove, rename,
//! set, add, append. So `rename` finds what the client sent, and `set` has the last word.

pub mod fields;
pub mod json;

use super::template::Template;
use fields::{FieldChanges, QueryChanges};
use json::JsonStep;

/// Changes of a request.
#[derive(Clone, Debug, Default)]
pub struct RequestTransform {
    pub fields: FieldChanges,
    pub query: QueryChanges,
    pub cookies: CookieChanges,
    pub method: Option<String>,
    /// Instead of the path, whatever the route's own rewrite says.
    pub path: Option<Template>,
    pub body: Option<BodyTransform>,
}

/// Changes of a response.
#[derive(Clone, Debug, Default)]
pub struct ResponseTransform {
    pub fields: FieldChanges,
    /// By the status of the upstream.
    pub statuses: Box<[(u16, u16)]>,
    pub body: Option<BodyTransform>,
}

/// Changes of the field Cookie.
#[derive(Clone, Debug, Default)]
pub struct CookieChanges {
    pub remove: Box<[Box<str>]>,
    pub set: Box<[(Box<str>, Template)]>,
}

/// Changes of a body, which is held as a whole.
#[derive(Clone, Debug)]
pub struct BodyTransform {
    /// A larger one is refused.
    pub bytes_max: usize,
    pub steps: Box<[JsonStep]>,
    /// The media type it is made into, if another one.
    pub form: Form,
}

/// Bodies of forms (`application/x-www-form-urlencoded`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Bodies are JSON on both sides.
    #[default]
    None,
    /// A form is made into JSON.
    ToJson,
    /// JSON is made into a form.
    FromJson,
}

impl CookieChanges {
    pub fn is_none(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }
}

impl RequestTransform {
    /// It changes a path, a query or a method.
    pub fn changes_target(&self) -> bool {
        self.path.is_some() || self.method.is_some() || !self.query.is_none()
    }
}
