//! Services that decide who a request is from.

use super::{TOP, routes};
use crate::{
    config::{
        decode::{At, Sink},
        file::{File, ForwardAuth},
        report::Problem,
        snapshot::{ClaimField, ProxyHeader, ServiceRule, UpstreamId, Way, WayKind},
        values::{HeaderName, Name},
    },
    wire::FieldId,
};

/// The ways, in the order of the file; one that is wrong has its place all the same.
pub(super) fn ways(file: &File, sink: &mut Sink) -> Vec<Way> {
    let all = file.forward_auth.value.0.iter();
    all.map(|(name, written)| match written {
        Some(written) => way(file, name, written, sink),
        None => of(name, WayKind::Certificate, Vec::new()),
    })
    .collect()
}

fn of(name: &At<String>, kind: WayKind, forward: Vec<ClaimField>) -> Way {
    Way { name: name.value.clone(), kind, sources: Vec::new(), forward_credential: true, forward }
}

/// The header in front would speak of a client that has asked nothing.
pub(super) fn refuse_proxy_protocol(file: &File, name: &At<Name>, id: UpstreamId, sink: &mut Sink) {
    if let Some((known, Some(rule))) = file.upstreams.value.0.get(id as usize)
        && known.value == name.value.0
        && *rule.proxy_protocol != ProxyHeader::Off
    {
        let title = "an upstream with `proxy_protocol` cannot be asked by the gateway itself";
        let place = name.place().unwrap_or(TOP);
        sink.push(Problem::error(place, title).fix("name an upstream without it"));
    }
}

fn way(file: &File, name: &At<String>, written: &ForwardAuth, sink: &mut Sink) -> Way {
    let upstream = routes::upstream_id(file, &written.upstream, sink);
    refuse_proxy_protocol(file, &written.upstream, upstream, sink);
    if written.request_fields.is_empty() && !written.request_fields.is_wrong() {
        let title = "`request_fields` is empty: no request would show anything";
        let place = written.request_fields.place().unwrap_or(TOP);
        let fix = "write request_fields = [\"Authorization\", \"Cookie\"]";
        sink.push(Problem::error(place, title).fix(fix));
    }
    for field in written.request_fields.iter().chain(written.response_fields.iter()) {
        let id = FieldId::recognise(field.value.0.to_ascii_lowercase().as_bytes());
        if !id.is_free() {
            let title =
                format!("`{}` is a field that the gateway or the protocol needs", field.value.0);
            let place = field.place().unwrap_or(TOP);
            sink.push(Problem::error(place, title).fix("leave it out"));
        }
    }
    let lower = |field: &HeaderName| field.0.to_ascii_lowercase();
    let forward = written.response_fields.iter().map(|field| ClaimField {
        name: lower(&field.value).into_bytes().into(),
        path: lower(&field.value),
    });
    let rule = ServiceRule {
        upstream,
        path: written.path.0.clone(),
        fields: written
            .request_fields
            .iter()
            .map(|f| lower(&f.value).into_bytes().into())
            .collect(),
        subject: written.subject.value.as_ref().map(lower),
        groups: written.groups.value.as_ref().map(lower),
        timeout_ms: written.timeout.0,
        remember_s: written.remember.0 / 1000,
    };
    of(name, WayKind::Service(rule), forward.collect())
}
