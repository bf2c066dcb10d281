//! Changes of requests and responses as written, see [`super`].

use crate::{
    config::{
        decode::{At, Named},
        units::{Size, kib, mib},
        values::{AnyValue, FormUse, MethodName},
    },
    section,
};

section! {
    /// Changes of requests before they are forwarded. In texts `${name}` stands for a value of the
    /// exchange. See docs/transformation.md.
    pub struct TransformRequest {
        /// Changes of fields.
        headers: HeaderChanges = HeaderChanges::default();
        /// Changes of the query.
        query: QueryChanges = QueryChanges::default();
        /// Changes of cookies.
        cookies: CookieChanges = CookieChanges::default();
        /// Forward with this method.
        method: Option<MethodName> = None, eg "\"POST\"";
        /// Forward this path. Values in it are escaped, so that each stays within its segment.
        path: Option<String> = None, eg "\"/v2/${param.id}\"";
        /// Changes of a JSON body, one after the other. The body is then held as a whole.
        json: Vec<At<JsonStep>> = Vec::new(), eg "[{ remove = \"/debug\" }]";
        /// `"to_json"`: bodies of forms are made into JSON, before `json`. `"from_json"`: JSON is
        /// made into a form, after `json`.
        form: Option<FormUse> = None, eg "\"to_json\"";
        /// With `json` or `form`: a larger body is refused with 413.
        body_max: Size = mib(1) => kib(1)..=mib(64);
    }

    /// Changes of responses before they are sent on, the gateway's own (`respond`, errors)
    /// excepted. See docs/transformation.md.
    pub struct TransformResponse {
        /// Changes of fields.
        headers: HeaderChanges = HeaderChanges::default();
        /// Other status codes: `{ "404" = 410 }`.
        status: Named<u16> = Named::default();
        /// Changes of a JSON body, one after the other. The body is then held as a whole, and the
        /// upstream is not asked for compressed ones.
        json: Vec<At<JsonStep>> = Vec::new(), eg "[{ select = \"/result\" }]";
        /// With `json`: in place of a response with a larger body the client gets 502.
        body_max: Size = mib(1) => kib(1)..=mib(64);
    }

    /// Changes of a head's fields, in this order.
    pub struct HeaderChanges {
        /// Names of fields that are left out.
        remove: Vec<At<String>> = Vec::new();
        /// Fields that get another name.
        rename: Named<String> = Named::default();
        /// Fields in place of all of their name. One whose text lacks a value is left out.
        set: Named<String> = Named::default();
        /// Fields where there is none of their name.
        add: Named<String> = Named::default();
        /// Fields beside those of their name.
        append: Named<String> = Named::default();
    }

    /// Changes of a query, in this order.
    pub struct QueryChanges {
        /// Names of parameters that are left out.
        remove: Vec<At<String>> = Vec::new();
        /// Parameters that get another name.
        rename: Named<String> = Named::default();
        /// Parameters in place of all of their name.
        set: Named<String> = Named::default();
        /// Parameters where there is none of their name.
        add: Named<String> = Named::default();
    }

    /// Changes of the cookies that a client sends.
    pub struct CookieChanges {
        /// Names of cookies that are left out.
        remove: Vec<At<String>> = Vec::new();
        /// Cookies in place of all of their name.
        set: Named<String> = Named::default();
    }

    /// One change of a JSON body: exactly one of `set`, `remove`, `from`, `wrap` and `select`.
    /// Places are JSON pointers (RFC 6901): `"/items/0/name"`.
    pub struct JsonStep {
        /// Put `value` at this place.
        set: Option<String> = None, eg "\"/by\"";
        /// With `set`: any value; texts in it may have values of the exchange in them.
        value: Option<AnyValue> = None, eg "\"${subject}\"";
        /// Leave out what is at this place.
        remove: Option<String> = None, eg "\"/debug\"";
        /// Take what is at this place to the place `to`.
        from: Option<String> = None, eg "\"/old\"";
        /// With `from`: the other place.
        to: Option<String> = None, eg "\"/new\"";
        /// Make the whole a member of this name.
        wrap: Option<String> = None, eg "\"data\"";
        /// Keep only what is at this place.
        select: Option<String> = None, eg "\"/result\"";
    }
}
