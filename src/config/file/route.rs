//! The sections of a route as written, see [`super`]. The keys of its policies are in
//! [`super::policies`].

use crate::{
    config::{
        decode::{At, Named},
        units::{MillisOrOff, Size, bytes, hours, millis},
        values::{
            BareHost, ClientCertificate, FieldValue, HostName, HostPattern, Matches, MethodName,
            Name, PathRegex, PathTemplate, PathText, Ratio, Scheme, WayNames,
        },
    },
    section,
};

use super::{
    Addresses, AuthorizeKey, BODY_MAX, Cors, Csrf, SecurityHeaders, UserAgents,
    compress::{Compress, Decompress},
    policies::{Errors, Maintenance, with_policies},
    transform::{TransformRequest, TransformResponse},
};

with_policies! {
    /// What is done with which request: conditions, then one action (`upstream`, `respond` or
    /// `redirect`), then settings. All conditions must hold; one that is left out always does.
    pub struct Route {
        /// For logs, metrics and `ringway explain`. Default: made from the conditions, such as
        /// `/api/orders`.
        name: Option<Name> = None, eg "\"orders\"";
        /// Hosts, without port: exact (`"api.example.com"`) or with one leading wildcard
        /// (`"*.example.com"`). Default: any.
        hosts: Vec<At<HostPattern>> = Vec::new();
        /// Path prefix, on a segment boundary: `/api` takes `/api` and `/api/x`, but not `/apix`.
        /// Without any path condition every path matches.
        path: Option<PathText> = None, eg "\"/api/orders\"";
        /// This path only.
        path_exact: Option<PathText> = None, eg "\"/login\"";
        /// Path with parameters: `{id}` is one segment, a final `{*rest}` one or more.
        path_template: Option<PathTemplate> = None, eg "\"/users/{id}/orders\"";
        /// Regular expression that the whole path must match.
        path_regex: Option<PathRegex> = None, eg "'/v[0-9]+/(?<rest>.*)'";
        /// Methods; `GET` includes `HEAD`. Default: any.
        methods: Vec<At<MethodName>> = Vec::new();
        /// Request fields: a value (`{ "X-Tenant" = "blue" }`), a regular expression that the whole
        /// value must match (`{ regex = "..." }`), or whether it is there (`{ present = true }`).
        headers: Matches = Matches::default();
        /// Query parameters, written like `headers`; their names are case-sensitive. Names and
        /// values are compared decoded, as services read them: `%20` and `+` are a space. (NGINX
        /// and Envoy compare what the client wrote.)
        query: Matches = Matches::default();

        /// Action: forward to this upstream.
        upstream: Option<Name> = None, eg "\"orders\"";
        /// Action: answer with a fixed response.
        respond: Option<Respond> = None, eg "{ status = 403 }";
        /// Action: send the client elsewhere.
        redirect: Option<Redirect> = None, eg "{ scheme = \"https\" }";

        /// With `path` and `upstream`: forward the path without that prefix.
        strip_prefix: bool = false;
        /// With `path` and `upstream`: put this in place of that prefix.
        replace_prefix: Option<PathText> = None, eg "\"/v2\"";
        /// With `upstream`: forward this path. `{name}` stands for a parameter of `path_template`
        /// or a group of `path_regex` (`{1}` for a group without name).
        rewrite_path: Option<PathTemplate> = None, eg "\"/people/{id}\"";
        /// With `upstream`: send this Host field instead of the client's.
        rewrite_host: Option<HostName> = None, eg "\"internal.example\"";
        /// Largest request body. Default: `limits.body`.
        max_body: Option<Size> = None => Some(bytes(0))..=Some(BODY_MAX), eg "\"10MiB\"";
        /// With `upstream`: from the request's head to the last byte of the response. `"0"` is no
        /// bound.
        timeout: MillisOrOff = MillisOrOff(None)
            => MillisOrOff(Some(millis(1)))..=MillisOrOff(Some(hours(24)));
        /// With `upstream`: let `Upgrade` pass (WebSocket and others).
        upgrade: bool = true;
        /// With `upstream`: ends of its WebSockets that have sent nothing for this long are asked.
        /// Default: `timeouts.websocket_ping`.
        websocket_ping: Option<MillisOrOff> = None
            => Some(MillisOrOff(Some(millis(100))))..=Some(MillisOrOff(Some(hours(24)))),
            eg "\"30s\"";
        /// With `upstream`: calls of gRPC-Web, as browsers make them, are forwarded as gRPC. Its
        /// `protocol` should be HTTP/2 then. See docs/http2.md.
        grpc_web: bool = false;
        /// With `upstream`: tries in all, the first included. A request is only repeated when
        /// nothing of a response came back and repeating is safe.
        tries: u8 = 2 => 1..=10;
        /// `"required"`: only for clients that showed a certificate; others get 403. A listener has
        /// to ask for one (`listeners.tls.client_ca`).
        client_certificate: ClientCertificate = ClientCertificate::Optional;
        /// Share of its exchanges that are recorded for tracing. Default: `tracing.sample`.
        trace_sample: Option<Ratio> = None, eg "1.0";
        /// Log its exchanges in every access log, where the listener's are.
        access_log: bool = true;
        /// Sets of policies that apply to it, as named in `[policies]`.
        policies: Vec<At<Name>> = Vec::new();
    }
}

section! {
    /// A fixed response.
    pub struct Respond {
        /// Status code.
        status: u16 = 200 => 200..=599;
        /// The body, as text.
        body: Option<String> = None, eg "\"no\\n\"";
        /// File with the body, relative to this configuration; read when it is loaded. At most
        /// 16 MiB.
        body_file: Option<String> = None, eg "\"maintenance.html\"";
        /// Media type of the body.
        content_type: FieldValue = FieldValue("text/plain; charset=utf-8".to_owned());
        /// Further fields.
        headers: Named<FieldValue> = Named::default();
    }

    /// A redirect. Parts that are left out are the request's own.
    pub struct Redirect {
        /// Status code: 308 or 301 for good, 307 or 302 for now, 303 to GET another resource.
        status: u16 = 308 => 301..=308;
        /// `"http"` or `"https"`.
        scheme: Option<Scheme> = None, eg "\"https\"";
        /// Host. Without `port`, another scheme or host means that scheme's usual port.
        host: Option<BareHost> = None, eg "\"www.example.com\"";
        /// Port.
        port: Option<u16> = None => Some(1)..=Some(65535), eg "8443";
        /// Path. `{name}` stands for a parameter of `path_template` or a group of `path_regex`.
        path: Option<PathTemplate> = None, eg "\"/new/{id}\"";
        /// With the route's `path`: put this in place of that prefix.
        replace_prefix: Option<PathText> = None, eg "\"/new\"";
        /// Append the request's query.
        keep_query: bool = true;
    }
}
