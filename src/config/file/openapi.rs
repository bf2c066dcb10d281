//! `[openapi.NAME]` as written, see [`super`]. The keys of its policies are in
//! [`super::policies`].

use crate::{
    choice,
    config::{
        decode::At,
        units::{Size, bytes, mib},
        values::{HostPattern, Name, PathText, WayNames},
    },
    policy::validate::strict_json,
    section,
};

use super::{
    Addresses, AuthorizeKey, BODY_MAX, Cors, Csrf, SecurityHeaders, UserAgents, Validate,
    compress::{Compress, Decompress},
    policies::{Errors, Maintenance, with_policies},
    transform::{TransformRequest, TransformResponse},
};

/// What is done with what a document does not describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undescribed {
    Refuse,
    Pass,
}

choice!(Undescribed: Undescribed::Refuse = "refuse", Undescribed::Pass = "pass");

with_policies! {
    /// An OpenAPI document (3.0 or 3.1) as the source of routes: one for each operation, which
    /// checks parameters and bodies as `validate` does. See docs/openapi.md.
    pub struct OpenApi {
        /// The document, JSON or YAML, relative to this configuration. It may refer to other files
        /// of its folder; nothing is fetched.
        document: String, eg "\"openapi/bookshop.yaml\"";
        /// Forward to this upstream.
        upstream: Name, eg "\"orders\"";
        /// Hosts, as of a route. Default: any.
        hosts: Vec<At<HostPattern>> = Vec::new();
        /// The paths of the document are below this path. Default: the path of its first server.
        path: Option<PathText> = None, eg "\"/api/v3\"";
        /// Forward the paths as the document has them, without that path.
        strip_prefix: bool = false;
        /// What is done with requests below that path that the document does not describe:
        /// `"refuse"` makes no route for them, so that they get 404, or 405 with the methods that
        /// are described, unless another route takes them. `"pass"` forwards them too.
        undescribed: Undescribed = Undescribed::Refuse;
        /// Refuse parameters of the query that are not described.
        strict_query: bool = false;
        /// Look at `format` in schemas (`date`, `email`, `uuid` and so on).
        formats: bool = true;
        /// Largest body that is checked; a larger one is refused with 413. One of more than 16 KiB
        /// is checked by a thread beside the workers.
        max_body: Size = mib(1) => bytes(1)..=mib(64);
        /// How many arrays and objects may be in one another in a JSON body.
        max_depth: u8 = 32 => 1..=strict_json::DEPTH_MAX;
        /// Refuse nobody for what the document says of parameters and bodies: only count and note
        /// what would be refused.
        shadow: bool = false;
        /// Sets of policies that apply to its routes, as named in `[policies]`.
        policies: Vec<At<Name>> = Vec::new();
    }
}
