//! The policies of a route, gathered from itself and its sets, and compiled.

use super::{TOP, rate_limits, rules::no_such, transform};
use crate::{
    config::{
        decode::{At, Sink},
        file::{self, Errors, File, PolicyKeys, Route},
        report::Problem,
        snapshot::{ErrorFormat, Maintenance, Policies, RateLimit},
    },
    policy::{
        compress::{Compress, Decompress},
        template::{self, Known, Template},
    },
};

/// Those of `route`, whose path has `params`; `None` when there are none.
pub(super) fn policies(
    file: &File,
    rate_limits: &[RateLimit],
    route: &Route,
    params: &[String],
    sink: &mut Sink,
) -> Option<Box<Policies>> {
    let written = gathered(file, route, sink);
    let (request, response) = (&written.transform_request, &written.transform_response);
    let policies = Policies {
        maintenance: written.maintenance.as_ref().map(maintenance),
        rate_limits: rate_limits::of_route(file, rate_limits, written.rate_limits, sink),
        transform_request: request.as_ref().map(|w| transform::request(w, params, sink)),
        transform_response: response.as_ref().map(|w| transform::response(w, params, sink)),
        compress: written.compress.as_ref().map(|written| compress(written, sink)),
        errors: written.errors.some().and_then(|written| errors(&written, sink)),
        decompress: written.decompress.as_ref().map(|w| decompress(w, file, route)),
    };
    let is_any = policies.maintenance.is_some()
        || policies.rate_limits.is_some()
        || policies.transform_request.is_some()
        || policies.errors.is_some()
        || policies.shapes();
    if let Some(place) = route.grpc_web.place().filter(|_| *route.grpc_web && policies.shapes()) {
        let title = "calls of gRPC-Web cannot be changed on their way";
        let fix = "take `transform_response`, `compress`, `decompress`, and `json` and `form` of \
                   `transform_request`, away from this route";
        sink.push(Problem::error(place, title).fix(fix));
    }
    is_any.then(|| Box::new(policies))
}

/// What the route says, and else its sets.
fn gathered<'f>(file: &'f File, route: &'f Route, sink: &mut Sink) -> PolicyKeys<'f> {
    let own = route.policies();
    let known = &file.policies.value.0;
    let mut all = own;
    for name in route.policies.iter() {
        match known.iter().find(|(set, _)| set.value == name.value.0) {
            Some((_, Some(set))) => all = all.or(&own, &set.policies(), sink),
            // It is wrong, and reported.
            Some((_, None)) => {}
            None if file.policies.is_wrong() => {}
            None => {
                let names: Vec<&str> = known.iter().map(|(set, _)| set.value.as_str()).collect();
                let place = name.place().unwrap_or(TOP);
                sink.push(no_such("set of policies", "policies", &name.value.0, place, &names));
            }
        }
    }
    all
}

/// A format of errors.
pub(super) fn errors(written: &At<Errors>, sink: &mut Sink) -> Option<ErrorFormat> {
    let content_type = written.content_type.0.clone();
    let place = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/json" => template::Place::Json,
        media if media.ends_with("+json") => template::Place::Json,
        "text/html" | "application/xhtml+xml" | "application/xml" | "text/xml" => {
            template::Place::Html
        }
        _ => template::Place::Plain,
    };
    let at = written.body.place().unwrap_or(TOP);
    match Template::compile(&written.body, &[], Known::Refusal) {
        Ok(body) => Some(ErrorFormat { content_type, body, place }),
        Err(message) => {
            sink.push(transform::said(&message, at));
            None
        }
    }
}

fn compress(written: &file::Compress, sink: &mut Sink) -> Compress {
    if let Some(place) = written.codings.place().filter(|_| written.codings.is_empty()) {
        let title = "`codings` is empty, so nothing would be compressed";
        sink.push(Problem::error(place, title).fix("write codings = [\"gzip\"], or remove it"));
    }
    Compress {
        codings: written.codings.iter().map(|coding| coding.value).collect(),
        types: written.types.iter().filter_map(|media| media.value.range()).collect(),
        bytes_min: written.min_size.0,
        effort: *written.effort,
    }
}

fn decompress(written: &file::Decompress, file: &File, route: &Route) -> Decompress {
    let bytes_max = written.max_size.value.or(route.max_body.value);
    Decompress {
        bytes_max: bytes_max.unwrap_or(file.limits.body.value).0,
        ratio_max: *written.max_ratio,
    }
}

fn maintenance(written: &file::Maintenance) -> Maintenance {
    // Bounded by the file's maximum.
    let seconds = written.retry_after.0.div_ceil(1000);
    Maintenance { retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX) }
}
