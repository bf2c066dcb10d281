//! Policies as written, see [`super`].
//!
//! A policy has a key of its own, which a route and a set of policies ([`PolicySet`]) both have:
//! its line in [`with_policies`], with what the reference says of it, and its line in
//! [`policy_keys`]. What it has to say is a section of its own.

use super::{Addresses, AuthorizeKey, BODY_MAX, Cors, Csrf, SecurityHeaders, UserAgents, Validate};
use crate::{
    config::{
        decode::{At, Origin, Sink},
        report::{Place, Problem},
        units::{Millis, Size, bytes, hours, seconds},
        values::{AddressSource, FieldValue, Name, WayNames},
    },
    section,
};

use super::compress::{Compress, Decompress};
use super::transform::{TransformRequest, TransformResponse};

/// Defines a section that has the keys of all policies beside its own.
macro_rules! with_policies {
    ($(#[doc = $about:literal])+ pub struct $name:ident { $($own:tt)* }) => {
        section! {
            $(#[doc = $about])+
            pub struct $name {
                $($own)*
                /// Answer every request with 503, until this is taken out.
                maintenance: Option<Maintenance> = None, eg "{ retry_after = \"10m\" }";
                /// Which clients are served, by their address.
                addresses: Option<Addresses> = None, eg "{ deny = [\"192.0.2.0/24\"] }";
                /// Which pages of other origins may use it from a browser (CORS).
                cors: Option<Cors> = None, eg "{ origins = [\"https://app.example.com\"] }";
                /// Refuse clients for what they call themselves (User-Agent).
                user_agents: Option<UserAgents> = None, eg "{ deny = [\"(?i)badbot\"] }";
                /// Refuse what pages of other sites make a browser do.
                csrf: Option<Csrf> = None, eg "{}";
                /// Who may use it: names of sets of rules (`[authorization.NAME]`) and rules, of
                /// which the first that matches decides; what none allows is refused. Or a table
                /// with these `rules` and `shadow = true`, which refuses nobody. See
                /// docs/authorization.md.
                authorize: Option<AuthorizeKey> = None, eg "[{ groups = [\"staff\"] }]";
                /// With `upstream`: largest response body. One that is announced as larger is
                /// answered with 502, one that turns out to be is cut off.
                max_response_body: Option<Size> = None
                    => Some(bytes(0))..=Some(BODY_MAX), eg "\"100MiB\"";
                /// Response fields that make browsers careful.
                security_headers: Option<SecurityHeaders> = None, eg "{}";
                /// Ask who a request is from: names of ways to show it, any one of which
                /// will do, looked at in this order; with `+` between names, all of these are
                /// needed. A way is a section such as `[jwt.NAME]`, or `certificate`, which is
                /// the client's certificate in the TLS handshake. Default, and `[]`: nobody is
                /// asked. See docs/authentication.md.
                authenticate: Vec<At<WayNames>> = Vec::new(), eg "[\"certificate\"]";
                /// With `authenticate`: let requests pass that show nothing at all. What is
                /// shown and wrong is refused in any case.
                anonymous: bool = false;
                /// With `authenticate`: tell the upstream which consumer a request is from
                /// (X-Consumer-Name), and its groups, separated by commas (X-Consumer-Groups).
                /// What clients write into these fields is left out wherever `authenticate` is.
                consumer_fields: bool = false;
                /// Limits that apply, as named in `[rate_limits]`. See docs/rate-limits.md.
                rate_limits: Vec<At<Name>> = Vec::new();
                /// Quotas that apply, as named in `[quotas]`. See docs/quotas.md.
                quotas: Vec<At<Name>> = Vec::new();
                /// Limits on requests in progress that apply, as named in `[concurrency]`. See
                /// docs/concurrency.md.
                concurrency: Vec<At<Name>> = Vec::new();
                /// What requests have to be like: parameters, media types, JSON Schema.
                validate: Option<Validate> = None, eg "{ body = \"schemas/order.json\" }";
                /// Change requests before they are forwarded.
                transform_request: Option<TransformRequest> = None,
                    eg "{ headers = { set = { X-From = \"${client}\" } } }";
                /// Change the upstream's responses.
                transform_response: Option<TransformResponse> = None,
                    eg "{ headers = { remove = [\"X-Powered-By\"] } }";
                /// How the gateway tells clients its own errors. Default: `errors`.
                errors: Option<Errors> = None, eg "{ body = '{\"code\": ${status}}' }";
                /// Compress responses for clients that accept it. `{}` is the usual.
                compress: Option<Compress> = None, eg "{}";
                /// Forward bodies of requests decompressed. `{}` is the usual.
                decompress: Option<Decompress> = None, eg "{}";
            }
        }
        $crate::config::file::policies::policy_keys!(@of $name);
    };
}
pub(super) use with_policies;

/// The keys of all policies, with the type of what is written.
macro_rules! policy_keys {
    ($($with:tt)*) => {
        $crate::config::file::policies::each_policy! { $($with)*
            maintenance: Option<Maintenance>,
            addresses: Option<Addresses>,
            cors: Option<Cors>,
            user_agents: Option<UserAgents>,
            csrf: Option<Csrf>,
            authorize: Option<AuthorizeKey>,
            max_response_body: Option<Size>,
            security_headers: Option<SecurityHeaders>,
            authenticate: Vec<At<WayNames>>,
            anonymous: bool,
            consumer_fields: bool,
            rate_limits: Vec<At<Name>>,
            quotas: Vec<At<Name>>,
            concurrency: Vec<At<Name>>,
            validate: Option<Validate>,
            transform_request: Option<TransformRequest>,
            transform_response: Option<TransformResponse>,
            errors: Option<Errors>,
            compress: Option<Compress>,
            decompress: Option<Decompress>,
        }
    };
}
pub(super) use policy_keys;

macro_rules! each_policy {
    (@of $name:ident $($key:ident: $ty:ty,)+) => {
        impl $name {
            /// Its policies.
            pub fn policies(&self) -> $crate::config::file::PolicyKeys<'_> {
                $crate::config::file::PolicyKeys { $($key: &self.$key),+ }
            }

            /// Takes the policies of another section.
            pub fn copy_policies(&mut self, from: &$crate::config::file::PolicyKeys<'_>) {
                $( self.$key = from.$key.clone(); )+
            }
        }
    };
    (@keys $($key:ident: $ty:ty,)+) => {
        /// What is written of each policy.
        #[derive(Clone, Copy, Debug)]
        pub struct PolicyKeys<'f> {
            $( pub $key: &'f At<$ty>, )+
        }

        impl<'f> PolicyKeys<'f> {
            /// With the policies of a set that `self` says nothing of. Reports those that an
            /// earlier set has too; what is a route's own counts before any set's.
            pub fn or(self, own: &PolicyKeys<'_>, set: &PolicyKeys<'f>, sink: &mut Sink) -> Self {
                PolicyKeys { $(
                    $key: either(stringify!($key), self.$key, own.$key.place(), set.$key, sink),
                )+ }
            }
        }
    };
}
pub(super) use each_policy;

policy_keys!(@keys);

/// The one that is written.
fn either<'f, T>(
    key: &str,
    known: &'f At<T>,
    own: Option<Place>,
    set: &'f At<T>,
    sink: &mut Sink,
) -> &'f At<T> {
    match (known.origin, set.place()) {
        (_, None) => known,
        (Origin::Default, Some(_)) => set,
        (Origin::Written(earlier) | Origin::Wrong(earlier), Some(place)) => {
            if own.is_none() {
                let title = format!("two sets of policies of one route say something of `{key}`");
                let problem = Problem::error(place, title).related(earlier, "the first one");
                sink.push(problem.fix(format!("write `{key}` in one of them, or at the route")));
            }
            known
        }
    }
}

with_policies! {
    /// Policies that several routes share. A route names the sets that apply to it
    /// (`policies = ["NAME"]`); what it says itself counts before them.
    pub struct PolicySet {
    }
}

section! {
    /// How the gateway tells clients its own errors, except those of requests that it cannot read
    /// and those of gRPC. See docs/transformation.md.
    pub struct Errors {
        /// Media type of the body.
        content_type: FieldValue = FieldValue("application/json".to_owned());
        /// The body, with `${name}` for values of the exchange and `${status}`, `${title}`,
        /// `${reason}` and `${detail}` of the error. They are escaped for JSON and HTML, as the
        /// media type says.
        body: String, eg "'{\"code\": ${status}, \"error\": \"${reason}\"}'";
    }

    /// Answer every request with 503.
    pub struct Maintenance {
        /// Tell clients to come back after this long (Retry-After).
        retry_after: Millis = seconds(60) => seconds(1)..=hours(24 * 30);
        /// Serve these clients all the same: networks, or names of lists
        /// (`[address_lists.NAME]`).
        allow: Vec<At<AddressSource>> = Vec::new();
        /// A response of your own instead of the reason: its `status` is 503 unless another is
        /// written.
        respond: Option<MaintenancePage> = None, eg "{ body_file = \"maintenance.html\" }";
    }

    /// What clients get meanwhile.
    pub struct MaintenancePage {
        /// Status code.
        status: u16 = 503 => 200..=599;
        /// The body, as text.
        body: Option<String> = None, eg "\"back soon\\n\"";
        /// File with the body, relative to this configuration; read when it is loaded. At most
        /// 16 MiB.
        body_file: Option<String> = None, eg "\"maintenance.html\"";
        /// Media type of the body.
        content_type: FieldValue = FieldValue("text/plain; charset=utf-8".to_owned());
    }
}
