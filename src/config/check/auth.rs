//! Ways to authenticate, and what a route asks for.
//!
//! Invariant: [`names`] and [`ways`] have the same order, which is what numbers them.

use std::path::Path;

use serde_json::Value;

use super::{
    Once, TOP,
    consumers::{self, Credentials},
    forward_auth, introspection, jwt, oidc, signatures,
};
use crate::{
    config::{
        decode::{At, Named, Sink, list, nearest, quoted, short},
        file::{File, PolicyKeys},
        report::Problem,
        snapshot::{Authenticate, CONSUMER_FIELDS, ClaimField, ClientAuth, Way, WayKind},
        values::{ClaimPath, ClaimValues, SecretSource, is_token},
    },
    policy::auth::{Asked, Source, WayId},
};

/// Ways of one configuration. Each worker has a memory of its own for each.
const WAYS_MAX: usize = 1000;
/// The way that every configuration has.
const CERTIFICATE: &str = "certificate";

/// Names of all ways, with their places in the file.
fn names(file: &File) -> Vec<At<String>> {
    let mut names = vec![At::default_of(CERTIFICATE.to_owned())];
    names.extend(file.jwt.value.0.iter().map(|(name, _)| name.clone()));
    names.extend(file.api_keys.value.0.iter().map(|(name, _)| name.clone()));
    names.extend(file.basic.value.0.iter().map(|(name, _)| name.clone()));
    names.extend(file.signatures.value.0.iter().map(|(name, _)| name.clone()));
    names.extend(file.forward_auth.value.0.iter().map(|(name, _)| name.clone()));
    names.extend(file.introspection.value.0.iter().map(|(name, _)| name.clone()));
    names.extend(file.oidc.value.0.iter().map(|(name, _)| name.clone()));
    names
}

/// Whether a route, or a set of policies, names the way.
pub(super) fn is_asked_for(file: &File, name: &str) -> bool {
    let routes = file.routes.iter().map(|route| &route.value.authenticate);
    let sets = file.policies.value.0.iter().filter_map(|(_, set)| set.as_ref());
    let documents = file.openapi.value.0.iter().filter_map(|(_, own)| own.as_ref());
    let documents = documents.map(|own| &own.authenticate);
    let all = routes.chain(sets.map(|set| &set.authenticate)).chain(documents);
    all.flat_map(|keys| keys.iter()).any(|ways| ways.value.0.iter().any(|own| own == name))
}

/// All ways.
pub(super) fn ways(
    file: &File,
    credentials: Credentials,
    folder: &Path,
    sink: &mut Sink,
) -> Vec<Way> {
    check_names(file, sink);
    let mut ways = vec![certificate()];
    ways.extend(file.jwt.value.0.iter().map(|(name, written)| match written {
        Some(jwt) => jwt::way(name, jwt, folder, sink),
        // It was reported; its number counts.
        None => certificate(),
    }));
    ways.extend(consumers::ways(file, credentials));
    ways.extend(forward_auth::ways(file, sink));
    ways.extend(introspection::ways(file, folder, sink));
    ways.extend(oidc::ways(file, folder, sink));
    ways
}

pub(super) fn certificate() -> Way {
    Way {
        name: CERTIFICATE.to_owned(),
        kind: WayKind::Certificate,
        sources: Vec::new(),
        forward_credential: true,
        forward: Vec::new(),
    }
}

/// Every name is that of one way, whatever its kind, and can be written in `authenticate`.
fn check_names(file: &File, sink: &mut Sink) {
    let mut once = Once::default();
    let names = names(file);
    if let Some(name) = names.get(WAYS_MAX) {
        let count = names.len();
        let title = format!("{count} ways to authenticate, and at most {WAYS_MAX} can be");
        let problem = Problem::error(name.place().unwrap_or(TOP), title);
        sink.push(problem.fix(
            "join some: one section may have many keys, consumers or issuers' \
                               audiences; others belong into another gateway",
        ));
    }
    for name in names {
        let Some(place) = name.place() else { continue };
        if name.value == CERTIFICATE {
            let title = "`certificate` is the name of a way that is there already: the client's \
                         certificate in the TLS handshake";
            sink.push(Problem::error(place, title).fix("choose another name"));
        } else if !is_token(&name.value) || name.value.contains('+') {
            let title = format!("`{}` cannot be the name of a way", short(&name.value));
            let fix = "write letters, digits, dots, dashes and underscores only";
            sink.push(Problem::error(place, title).fix(fix));
        } else {
            let fix = "give each way a name of its own, whatever its kind";
            once.check(&name.value, place, "the way to authenticate", fix, sink);
        }
    }
}

/// What a route asks for; `None`: nothing.
pub(super) fn authenticate(
    file: &File,
    written: &PolicyKeys<'_>,
    ways: &[Way],
    sink: &mut Sink,
) -> Option<Authenticate> {
    let (keys, anonymous) = (written.authenticate, written.anonymous);
    if keys.is_empty() {
        if let Some(place) = anonymous.place().filter(|_| **anonymous && !keys.is_wrong()) {
            let title = "`anonymous` has no effect: nobody is asked to authenticate";
            sink.push(
                Problem::error(place, title).fix("add authenticate = [\"NAME\"], or remove it"),
            );
        }
        if let Some(place) = written.consumer_fields.place()
            && **written.consumer_fields
            && !keys.is_wrong()
        {
            let title = "`consumer_fields` has no effect: nobody is asked to authenticate";
            let fix = "add authenticate = [\"NAME\"], or remove it";
            sink.push(Problem::error(place, title).fix(fix));
        }
        return None;
    }
    let known = names(file);
    let mut alternatives: Vec<Vec<WayId>> = Vec::new();
    for entry in keys.iter() {
        let place = entry.place().unwrap_or(TOP);
        let mut ids = Vec::with_capacity(entry.value.0.len());
        for name in &entry.value.0 {
            match known.iter().position(|known| known.value == *name) {
                Some(at) => ids.push(WayId::try_from(at).unwrap_or(WayId::MAX)),
                None => sink.push(no_way(name, place, &known)),
            }
        }
        if ids.contains(&0) && !asks_for_certificates(file) {
            let title = "no listener asks clients for a certificate, so nobody could show one";
            let fix = "add client_ca = \"authorities.pem\" to `tls` of a listener";
            sink.push(Problem::error(place, title).fix(fix));
        }
        signatures::check_together(&ids, ways, place, sink);
        if ids.len() == entry.value.0.len() && alternatives.contains(&ids) {
            let title = format!("{} is there twice", quoted(&entry.value.0.join(" + ")));
            sink.push(Problem::error(place, title).fix("remove one of the two"));
        }
        alternatives.push(ids);
    }
    let used = |way: &WayId| ways.get(usize::from(*way));
    let all = || alternatives.iter().flatten().filter_map(used);
    let mut removed: Vec<Source> = Vec::new();
    for source in all().filter(|way| !way.forward_credential).flat_map(|way| &way.sources) {
        if !removed.contains(source) {
            removed.push(source.clone());
        }
    }
    let digested = alternatives.iter().map(|ids| ids.iter().filter_map(used).find_map(digested));
    let digested = digested.collect();
    let asked = Asked { alternatives, anonymous: **anonymous };
    let logins = oidc::logins(&asked, ways);
    Some(Authenticate {
        asked,
        tells_consumer: **written.consumer_fields,
        removed,
        logins,
        digested,
    })
}

/// Largest body that the way compares with its digest, if it does.
fn digested(way: &Way) -> Option<usize> {
    match &way.kind {
        WayKind::Signature(rule) if rule.rule.content_digest => Some(rule.body_bytes_max),
        _ => None,
    }
}

/// Names of fields that only the gateway writes on a route.
pub(super) fn own_fields(authenticate: &Authenticate, ways: &[Way]) -> Vec<Box<[u8]>> {
    let used = authenticate.asked.alternatives.iter().flatten();
    let fields = used.filter_map(|way| ways.get(usize::from(*way))).flat_map(|way| &way.forward);
    let mut names: Vec<Box<[u8]>> = fields.map(|field| field.name.clone()).collect();
    names.extend(CONSUMER_FIELDS.map(Box::from));
    names.extend(oidc::own_field(authenticate, ways));
    names.sort();
    names.dedup();
    names
}

fn no_way(name: &str, place: crate::config::report::Place, known: &[At<String>]) -> Problem {
    let names: Vec<&str> = known.iter().map(|name| name.value.as_str()).collect();
    let fix = match nearest(name, &names) {
        Some(near) => format!("write {}", quoted(near)),
        None => format!("add a section of that name; there are {}", list(&names)),
    };
    Problem::error(place, format!("there is no way to authenticate `{}`", short(name))).fix(fix)
}

fn asks_for_certificates(file: &File) -> bool {
    let asks = |tls: &crate::config::file::ListenerTls| {
        tls.client_ca.value.is_some() || tls.client_ca.is_wrong()
    };
    file.listeners.is_wrong()
        || file.listeners.iter().any(|listener| {
            listener.tls.is_wrong() || listener.tls.value.as_ref().is_some_and(asks)
        })
}

/// Reports how a secret is shown, where there is none.
pub(super) fn refuse_client_auth_alone(
    client_auth: &At<ClientAuth>,
    client_secret: &At<Option<SecretSource>>,
    sink: &mut Sink,
) {
    let is_alone = client_secret.value.is_none() && !client_secret.is_wrong();
    if let Some(place) = client_auth.place().filter(|_| is_alone)
        && **client_auth != ClientAuth::Basic
    {
        let title = "`client_auth` has no effect without `client_secret`";
        sink.push(Problem::error(place, title).fix("add `client_secret`, or remove it"));
    }
}

/// Whom tokens may be for, as rules have it: empty for anybody. `giver` gives this API its name.
pub(super) fn audiences(
    written: &At<Vec<At<String>>>,
    giver: &str,
    sink: &mut Sink,
) -> Vec<String> {
    let any = written.iter().any(|audience| audience.value == "*");
    if (written.is_empty() || (any && written.len() > 1)) && !written.is_wrong() {
        let title = "`audience` must name whom tokens are for, or be [\"*\"] for anybody";
        let fix =
            format!("write audience = [\"api\"], with the name that the {giver} gives this API");
        sink.push(Problem::error(written.place().unwrap_or(TOP), title).fix(fix));
    }
    match any {
        true => Vec::new(),
        false => written.iter().map(|audience| audience.value.clone()).collect(),
    }
}

/// Claims that are asked for, as rules have them.
pub(super) fn claims(written: &Named<ClaimValues>) -> Vec<(String, Vec<Value>)> {
    let values = |(path, values): &(At<String>, Option<ClaimValues>)| {
        Some((path.value.clone(), values.clone()?.0))
    };
    written.0.iter().filter_map(values).collect()
}

/// Fields that tell the upstream of claims, from a table of names and paths.
pub(super) fn claim_fields(
    written: &[(At<String>, Option<ClaimPath>)],
    sink: &mut Sink,
) -> Vec<ClaimField> {
    let mut fields: Vec<ClaimField> = Vec::new();
    for (name, path) in written {
        let place = name.place().unwrap_or(TOP);
        if !is_token(&name.value) {
            sink.push(super::routes::bad_field_name(name));
            continue;
        }
        let lower: Box<[u8]> = name.value.to_ascii_lowercase().into_bytes().into();
        if !crate::wire::FieldId::recognise(&lower).is_free() {
            let title =
                format!("`{}` is a field that the gateway or the protocol needs", name.value);
            sink.push(Problem::error(place, title).fix("write a name such as X-User"));
            continue;
        }
        if fields.iter().any(|field| field.name == lower) {
            let title = format!("the field `{}` is there twice", short(&name.value));
            sink.push(Problem::error(place, title).fix("remove one of the two"));
            continue;
        }
        // A path that is wrong was reported.
        fields.extend(path.as_ref().map(|path| ClaimField { name: lower, path: path.0.clone() }));
    }
    fields
}
