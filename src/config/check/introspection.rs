//! Sections `[introspection.NAME]`: whom tokens are asked of, and what is asked of them.

use std::path::Path;

use super::{TOP, auth, forward_auth, routes, secrets};
use crate::{
    config::{
        decode::{At, Sink},
        file::{File, Introspection},
        report::Problem,
        snapshot::{self, AskedProvider, ClientAuth, IntrospectionRule, Way, WayKind},
        values::Secret,
    },
    policy::jwt::Rule,
};

/// The ways, in the order of the file; one that is wrong has its place all the same.
pub(super) fn ways(file: &File, folder: &Path, sink: &mut Sink) -> Vec<Way> {
    let all = file.introspection.value.0.iter();
    all.map(|(name, written)| match written {
        Some(written) => way(file, name, written, folder, sink),
        None => of(name, WayKind::Certificate),
    })
    .collect()
}

fn of(name: &At<String>, kind: WayKind) -> Way {
    Way {
        name: name.value.clone(),
        kind,
        sources: Vec::new(),
        forward_credential: true,
        forward: Vec::new(),
    }
}

fn way(
    file: &File,
    name: &At<String>,
    written: &Introspection,
    folder: &Path,
    sink: &mut Sink,
) -> Way {
    let upstream = routes::upstream_id(file, &written.upstream, sink);
    forward_auth::refuse_proxy_protocol(file, &written.upstream, upstream, sink);
    if written.from.is_empty() && !written.from.is_wrong() {
        let at = written.from.place().unwrap_or(TOP);
        sink.push(Problem::error(at, "no place for tokens").fix("write from = [\"bearer\"]"));
    }
    let rule = IntrospectionRule {
        rule: rule(written, sink),
        upstream,
        question: question(written, folder, sink),
        timeout_ms: written.timeout.0,
        remember_ms: written.remember.0,
        remember_refused_ms: written.remember_refused.0,
        stale_ms: written.stale_if_error.0,
        at_once_max: *written.questions_at_once,
        cache_bytes: written.cache.0,
    };
    refuse_stale_without_memory(written, sink);
    Way {
        sources: written.from.iter().map(|source| source.value.0.clone()).collect(),
        forward_credential: *written.forward_credential,
        forward: auth::claim_fields(&written.forward.value.0, sink),
        ..of(name, WayKind::Introspection(Box::new(rule)))
    }
}

/// What is not remembered cannot be gone by later.
fn refuse_stale_without_memory(written: &Introspection, sink: &mut Sink) {
    let Some(place) = written.stale_if_error.place() else { return };
    if written.stale_if_error.0 > 0 && (written.remember.0 == 0 || written.cache.0 == 0) {
        let title = "`stale_if_error` has no effect: no answer is remembered";
        let fix = "give `remember` and `cache` more than nothing, or remove it";
        sink.push(Problem::error(place, title).fix(fix));
    }
}

fn rule(written: &Introspection, sink: &mut Sink) -> Rule {
    Rule {
        // Its provider has looked at how it is made.
        algorithms: Vec::new(),
        types: Vec::new(),
        needs_exp: false,
        issuer: written.issuer.value.clone().unwrap_or_default(),
        audiences: auth::audiences(&written.audience, "provider", sink),
        claims: auth::claims(&written.claims),
        skew_s: written.skew.0 as f64 / 1000.0,
        bytes_max: usize::try_from(written.max_size.0).unwrap_or(usize::MAX),
        subject: written.subject.0.clone(),
        groups: written.groups.0.clone(),
        scopes: written.scopes.0.clone(),
    }
}

fn question(written: &Introspection, folder: &Path, sink: &mut Sink) -> AskedProvider {
    if written.client_id.value.is_empty() && !written.client_id.is_wrong() {
        let at = written.client_id.place().unwrap_or(TOP);
        let fix = "write the name that the provider knows the gateway by";
        sink.push(Problem::error(at, "`client_id` is empty").fix(fix));
    }
    let about = ("the client's secret", "ask the provider about tokens");
    let secret = written.client_secret.some();
    let secret = secret.and_then(|source| secrets::read(&source, about, folder, sink));
    auth::refuse_client_auth_alone(&written.client_auth, &written.client_secret, sink);
    let (id, coded) = (&written.client_id.value, snapshot::form_coded);
    let (authorization, form) = match (secret, *written.client_auth) {
        (None, _) => (None, format!("client_id={}&", coded(id))),
        (Some(secret), ClientAuth::Basic) => {
            (Some(snapshot::basic_credential(id, &secret)), String::new())
        }
        (Some(secret), ClientAuth::Post) => {
            (None, format!("client_id={}&client_secret={}&", coded(id), coded(&secret.0)))
        }
    };
    let upstream_name = written.upstream.value.0.clone();
    let host = written.host.value.as_ref().map_or(&upstream_name, |host| &host.0).clone();
    AskedProvider {
        host,
        upstream_name,
        path: written.path.0.clone(),
        authorization,
        form: Secret(form),
    }
}

/// Files of all sections, which are read again when they change.
pub(super) fn files(file: &File) -> Vec<String> {
    let sections = file.introspection.value.0.iter().filter_map(|(_, written)| written.as_ref());
    let of = |written: &Introspection| {
        written.client_secret.value.as_ref().and_then(|source| source.file()).map(str::to_owned)
    };
    sections.filter_map(of).collect()
}
