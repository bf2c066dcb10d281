//! Tracing: what is sent where, and keys that have no effect.

use super::{TOP, routes::bad_field_name};
use crate::{
    config::{
        decode::{At, Sink},
        file::{File, Tracing},
        report::Problem,
        snapshot::{self, Export, Parent, ServerTiming},
        values::{Ratio, is_token},
    },
    telemetry::trace::{Sampler, Sampling},
};

/// Fields of a request to the collector that are the exporter's to write.
const OWN_FIELDS: [&str; 6] = [
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "host",
    "connection",
];

/// `None` without an endpoint: then nothing is traced.
pub(super) fn tracing(file: &File, sink: &mut Sink) -> Option<snapshot::Tracing> {
    let written = &file.tracing;
    let headers = headers(written, sink);
    let Some(endpoint) = written.endpoint.some() else {
        if !written.endpoint.is_wrong() {
            without_endpoint(file, sink);
        }
        return None;
    };
    Some(snapshot::Tracing {
        sampler: Sampler {
            sampling: Sampling::of(written.sample.0),
            follows_parent: *written.parent == Parent::Follow,
        },
        queue_max: *written.queue,
        export: Export {
            url: endpoint.value.0,
            headers,
            service_name: written.service_name.0.clone(),
            timeout_ms: written.timeout.0,
        },
    })
}

/// A route's own share.
pub(super) fn sampling(ratio: &At<Option<Ratio>>) -> Option<Sampling> {
    ratio.value.map(|ratio| Sampling::of(ratio.0))
}

/// What only means something when there are traces.
fn without_endpoint(file: &File, sink: &mut Sink) {
    let fix = "add endpoint = \"http://127.0.0.1:4318/v1/traces\" below [tracing]";
    let timing = &file.tracing.server_timing;
    if let Some(place) = timing.place().filter(|_| **timing == ServerTiming::Sampled) {
        let title = "`tracing.server_timing` is \"sampled\", but without `tracing.endpoint` \
                     nothing is sampled";
        let fix = format!("{fix}, or write \"always\" here");
        sink.push(Problem::error(place, title).fix(fix));
    }
    let shares = file.routes.iter().filter_map(|route| route.trace_sample.place());
    for place in shares {
        let title = "`trace_sample` has no effect, because there is no `tracing.endpoint`";
        sink.push(Problem::warning(place, title).fix(format!("{fix}, or remove this")));
    }
}

fn headers(written: &Tracing, sink: &mut Sink) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (name, value) in &written.headers.value.0 {
        if !is_token(&name.value) {
            sink.push(bad_field_name(name));
        } else if OWN_FIELDS.iter().any(|own| name.value.eq_ignore_ascii_case(own)) {
            let title = format!("the gateway writes the field `{}` itself", name.value);
            sink.push(Problem::error(name.place().unwrap_or(TOP), title).fix("remove it"));
        } else if let Some(value) = value {
            headers.push((name.value.clone(), value.0.0.clone()));
        }
    }
    headers
}
