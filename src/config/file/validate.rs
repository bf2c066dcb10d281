//! What requests have to be like, as written, see [`super`].

use crate::{
    config::{
        decode::At,
        units::{Size, bytes, mib},
        values::{MediaType, SchemaText},
    },
    policy::validate::{fault::Location, parameter::Style, strict_json},
    section,
};

section! {
    /// What requests have to be like. What is not is refused before the upstream is touched. See
    /// docs/validate.md.
    pub struct Validate {
        /// Media types that bodies may have; others are refused with 415. Default: with `body` or
        /// `json` those of JSON, else any.
        content_types: Vec<At<MediaType>> = Vec::new(), eg "[\"application/json\"]";
        /// JSON Schema that JSON bodies have to match: a file (JSON or YAML), relative to this
        /// configuration, or a part of it (`"orders.json#/$defs/Order"`). It may refer to other
        /// files of its folder; nothing is fetched. Bodies are then held as a whole.
        body: Option<String> = None, eg "\"schemas/order.json\"";
        /// With `body` or `json`: requests with POST, PUT and PATCH must have a body.
        body_required: bool = true;
        /// Look at JSON bodies also without `body`: they must be well-formed, have no name twice in
        /// an object, and be no larger and deeper than allowed.
        json: bool = false;
        /// Parameters of the query, the path, header fields and cookies.
        parameters: Vec<At<ValidateParameter>> = Vec::new(),
            eg "[{ from = \"query\", name = \"limit\", schema = { type = \"integer\", maximum = 100 } }]";
        /// Refuse parameters of the query that `parameters` does not name.
        strict_query: bool = false;
        /// Look at `format` in schemas (`date`, `email`, `uuid` and so on).
        formats: bool = true;
        /// Largest body that is checked; a larger one is refused with 413. One of more than 16 KiB
        /// is checked by a thread beside the workers.
        max_body: Size = mib(1) => bytes(1)..=mib(64);
        /// How many arrays and objects may be in one another in a JSON body.
        max_depth: u8 = 32 => 1..=strict_json::DEPTH_MAX;
        /// Refuse nobody: only count and note what would be refused.
        shadow: bool = false;
    }

    /// One parameter.
    pub struct ValidateParameter {
        /// Where it is: `"query"`, `"path"` (of `path_template` or `path_regex`), `"header"` or
        /// `"cookie"`.
        from: Location, eg "\"query\"";
        /// Its name.
        name: String, eg "\"limit\"";
        /// Requests without it are refused.
        required: bool = false;
        /// JSON Schema of its value: a table, or a file, as for `body`.
        schema: SchemaText, eg "{ type = \"integer\", maximum = 100 }";
        /// How a list or an object is written, as in OpenAPI: `"form"`, `"simple"`, `"label"`,
        /// `"matrix"`, `"space_delimited"`, `"pipe_delimited"`, `"deep_object"`. Default:
        /// `"form"` for the query and cookies, `"simple"` for path and header.
        style: Option<Style> = None, eg "\"form\"";
        /// Each item of a list is a parameter of its own (`id=1&id=2`). Default: with `"form"`.
        explode: Option<bool> = None, eg "false";
    }
}
