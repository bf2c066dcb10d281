//! Policies for browsers and other clients of the web as written, see [`super`].

use crate::{
    choice,
    config::{
        decode::At,
        units::{Millis, hours, minutes, seconds},
        values::{
            CorsOrigin, FieldName, FieldNameOrAny, FieldValue, MethodName, Origin, UserAgent,
        },
    },
    section,
};

/// Key `cors.upstream_fields`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamCors {
    Replace,
    Keep,
}
choice!(UpstreamCors: UpstreamCors::Replace = "replace", UpstreamCors::Keep = "keep");

/// Key `security_headers.frames`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    Deny,
    SameOrigin,
    Off,
}
choice!(Frames: Frames::Deny = "deny", Frames::SameOrigin = "same-origin", Frames::Off = "off");

section! {
    /// Which pages of other origins may use a route from a browser (CORS). Preflights are answered
    /// by the gateway. See docs/cors.md.
    pub struct Cors {
        /// Origins of pages: exact (`"https://app.example.com"`), every name below a host
        /// (`"https://*.example.com"`), a regular expression for the whole origin
        /// (`{ regex = "..." }`), or `"*"` for every page.
        origins: Vec<At<CorsOrigin>>, eg "[\"https://app.example.com\"]";
        /// Methods that they may use. Default: those of the route; where it has none, `GET`, `HEAD`
        /// and `POST`.
        methods: Vec<At<MethodName>> = Vec::new();
        /// Request fields that they may send, beside those that every page may; `["*"]` is any.
        headers: Vec<At<FieldNameOrAny>> = Vec::new();
        /// Response fields that they may read, beside those that every page may.
        expose: Vec<At<FieldName>> = Vec::new();
        /// They may send cookies and other credentials, and read what comes back. Not with `"*"`.
        credentials: bool = false;
        /// How long a browser may remember the answer to a preflight. Browsers have bounds of their
        /// own.
        max_age: Millis = minutes(10) => seconds(0)..=hours(24);
        /// Pages of public networks may use it although the gateway is in a private one
        /// (Private Network Access).
        private_network: bool = false;
        /// What an upstream says of CORS itself: `"replace"` leaves it out; with `"keep"` it has
        /// the last word where it allows an origin.
        upstream_fields: UpstreamCors = UpstreamCors::Replace;
    }

    /// Response fields that make browsers careful, each sent unless the upstream sends one of that
    /// name. `""` sends none. See docs/web-security.md.
    pub struct SecurityHeaders {
        /// Media types are not guessed (X-Content-Type-Options: nosniff).
        nosniff: bool = true;
        /// Pages that may show it in a frame (X-Frame-Options): none (`"deny"`), those of the
        /// `"same-origin"`, or nothing is said (`"off"`).
        frames: Frames = Frames::Deny;
        /// Referrer-Policy.
        referrer: FieldValue = FieldValue("strict-origin-when-cross-origin".to_owned());
        /// Content-Security-Policy.
        content_security_policy: FieldValue = FieldValue(String::new());
        /// Content-Security-Policy-Report-Only, to try one.
        content_security_policy_report_only: FieldValue = FieldValue(String::new());
        /// Permissions-Policy.
        permissions: FieldValue = FieldValue(String::new());
        /// Cross-Origin-Opener-Policy.
        opener: FieldValue = FieldValue("same-origin".to_owned());
        /// Cross-Origin-Resource-Policy.
        resource: FieldValue = FieldValue("same-origin".to_owned());
        /// Cross-Origin-Embedder-Policy.
        embedder: FieldValue = FieldValue(String::new());
    }

    /// Requests that may change something (all but GET, HEAD and OPTIONS, and WebSockets) are
    /// refused with 403 when a page of another site made them, as the browser says in
    /// Sec-Fetch-Site, Origin or Referer. See docs/web-security.md.
    pub struct Csrf {
        /// Origins whose pages may make them too, as in `https://app.example.com`.
        origins: Vec<At<Origin>> = Vec::new();
        /// Also refuse requests that say nothing of where they were made. No browser of the last
        /// years makes one, other programs do.
        required: bool = false;
        /// Refuse nobody: count and log only.
        shadow: bool = false;
    }

    /// Clients that are refused with 403 for what they call themselves (User-Agent). Anybody can
    /// call himself anything: it keeps out only those that do not hide. See docs/web-security.md.
    pub struct UserAgents {
        /// Regular expressions, of which one is found in the field. `(?i)` in front ignores case.
        deny: Vec<At<UserAgent>> = Vec::new();
        /// Those that are served all the same.
        allow: Vec<At<UserAgent>> = Vec::new();
        /// Refuse clients without the field too.
        required: bool = false;
        /// Refuse nobody: count and log only.
        shadow: bool = false;
    }
}
