//! `[forward_auth.NAME]` as written, see [`super`].

use crate::{
    config::{
        decode::At,
        units::{Millis, hours, millis, minutes, seconds},
        values::{HeaderName, Name, PathText},
    },
    section,
};

section! {
    /// A service decides: a way to authenticate. It is one of the upstreams, and is asked with a
    /// GET that has the request's credentials. See docs/forward-auth.md.
    pub struct ForwardAuth {
        /// The upstream that is asked.
        upstream: Name, eg "\"orders\"";
        /// The path that is asked for.
        path: PathText = PathText("/".to_owned());
        /// Fields of the request that the service gets. A request that has none of them shows
        /// nothing, and the service is not asked.
        request_fields: Vec<At<HeaderName>> = ForwardAuth::usual_fields(),
            eg "[\"Authorization\", \"Cookie\"]";
        /// Fields of the service's answer that the upstream gets. What clients write into them is
        /// left out.
        response_fields: Vec<At<HeaderName>> = Vec::new(), eg "[\"X-User\", \"X-Roles\"]";
        /// Field of the answer that says who it is.
        subject: Option<HeaderName> = None, eg "\"X-User\"";
        /// Field of the answer that has groups, separated by commas.
        groups: Option<HeaderName> = None, eg "\"X-Groups\"";
        /// For one answer, connecting included. Then the request is refused with 503.
        timeout: Millis = seconds(5) => millis(10)..=minutes(1);
        /// For so long a worker remembers that the service said yes to the same method, URL, client
        /// address and credentials. Whole seconds; `"0s"`: it is asked about each request.
        remember: Millis = seconds(0) => seconds(0)..=hours(1);
    }
}

impl ForwardAuth {
    fn usual_fields() -> Vec<At<HeaderName>> {
        let name = |name: &str| At::default_of(HeaderName(name.to_owned()));
        vec![name("Authorization"), name("Cookie")]
    }
}
