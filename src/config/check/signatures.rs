//! Sections `[signatures.NAME]`, and the keys of consumers that sign requests.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Once, TOP, consumers::Gathered, secrets};
use crate::{
    config::{
        bounded,
        decode::{At, Sink, short},
        file::{Consumer, File, NONCES, SignatureKey, Signatures},
        report::{Place, Problem},
        snapshot::{SecretEncoding, Way, WayKind},
        values::SignatureParameter,
    },
    policy::{
        auth::WayId,
        signature::{Component, Kept, Key, Keys, Rule, key::Material},
    },
};

/// Largest file with a public key, in bytes.
const PEM_BYTES_MAX: u64 = 64 << 10;

/// The keys of all consumers.
pub(super) fn keys(gathered: &Gathered<'_>, folder: &Path, sink: &mut Sink) -> Keys {
    let mut keys = Keys::default();
    let mut once = Once::default();
    for (number, consumer) in gathered.own() {
        for written in consumer.signature_keys.iter() {
            let id = &written.id.value.0;
            let place = written.id.place().unwrap_or(TOP);
            let fix =
                "a signature says by this name which key it is of: give each a name of its own";
            once.check(id, place, "the key", fix, sink);
            match material(written, folder, sink) {
                Ok(material) => keys.add(Key::new(id, *written.algorithm, number, material)),
                // It was reported where the secret was read.
                Err(wrong) if wrong.title.is_empty() => {}
                Err(wrong) => {
                    let at = wrong.place.or(written.place()).unwrap_or(TOP);
                    sink.push(Problem::error(at, wrong.title).fix(wrong.fix));
                }
            }
        }
    }
    keys
}

/// Why a key cannot be used.
struct Wrong {
    place: Option<Place>,
    title: String,
    fix: &'static str,
}

fn material(written: &SignatureKey, folder: &Path, sink: &mut Sink) -> Result<Material, Wrong> {
    let algorithm = *written.algorithm;
    let is_secret = algorithm.is_of_secret();
    let (secret, file) = (&written.secret, &written.public_key_file);
    let (needed, place, other, how) = match is_secret {
        true => (
            "secret",
            secret.place(),
            ("public_key_file", file.place()),
            "write secret = \"file:alice.secret\", with what `openssl rand -hex 32` gives",
        ),
        false => (
            "public_key_file",
            file.place(),
            ("secret", secret.place()),
            "write public_key_file = \"alice.pem\", with what `openssl pkey -pubout` gives",
        ),
    };
    let wrong = |place, title: String| Wrong { place, title, fix: how };
    if let (key, Some(place)) = other {
        let title = format!("`{key}` is not for keys of {}", algorithm.name());
        return Err(wrong(Some(place), title));
    }
    if let Some(place) = written.encoding.place().filter(|_| !is_secret) {
        return Err(wrong(Some(place), "`encoding` is of secrets".to_owned()));
    }
    let unusable = |why: String| wrong(place, format!("`{needed}` cannot be used: {why}"));
    let missing = || {
        let title = format!("a key of {} needs `{needed}`", algorithm.name());
        wrong(written.algorithm.place(), title)
    };
    if !is_secret {
        let path = folder.join(file.value.as_ref().ok_or_else(missing)?);
        let read = bounded::read(&path, PEM_BYTES_MAX);
        let pem = read.map_err(|e| unusable(format!("cannot read `{}`: {e}", path.display())))?;
        return Material::public(&pem, algorithm).map_err(unusable);
    }
    let source = secret.some().ok_or_else(missing)?;
    let about = ("the secret of a key", "sign requests with it");
    let Some(text) = secrets::read(&source, about, folder, sink) else {
        return Err(wrong(None, String::new()));
    };
    let bytes = match *written.encoding {
        SecretEncoding::Text => text.0.into_bytes(),
        SecretEncoding::Base64 => {
            STANDARD.decode(&text.0).map_err(|_| unusable("it is not base64".to_owned()))?
        }
    };
    Material::secret(&bytes).map_err(unusable)
}

/// What a section asks of signatures.
pub(super) fn rule(written: &Signatures, sink: &mut Sink) -> Rule {
    let needs = |parameter| written.parameters.iter().any(|own| own.value == parameter);
    let mut components: Vec<Component> = Vec::new();
    for component in written.components.iter() {
        if components.contains(&component.value.0) {
            let title = format!("`{}` is there twice", component.value.0.name());
            let place = component.place().unwrap_or(TOP);
            sink.push(Problem::error(place, title).fix("remove one of the two"));
        } else {
            components.push(component.value.0.clone());
        }
    }
    if components.is_empty() && !written.components.is_wrong() {
        let title = "`components` is empty: a signature of one request would be good for any other";
        let place = written.components.place().unwrap_or(TOP);
        let fix = "write components = [\"@method\", \"@authority\", \"@path\", \"@query\"]";
        sink.push(Problem::error(place, title).fix(fix));
    }
    let needs_nonce = needs(SignatureParameter::Nonce);
    let is_idle = !needs_nonce && *written.nonces != NONCES && !written.parameters.is_wrong();
    if let Some(place) = written.nonces.place().filter(|_| is_idle) {
        let title = "`nonces` has no effect: no nonce is asked for";
        let fix = "add parameters = [\"nonce\"], or remove it";
        sink.push(Problem::error(place, title).fix(fix));
    }
    if let Some(place) = written.max_digested_body.place().filter(|_| !*written.content_digest) {
        let title = "`max_digested_body` has no effect: `content_digest` is off";
        sink.push(Problem::error(place, title).fix("remove it, or content_digest = false"));
    }
    Rule {
        label: written.label.value.as_ref().map(|label| label.0.clone()).unwrap_or_default(),
        tag: written.tag.value.as_ref().map(|tag| tag.0.clone()).unwrap_or_default(),
        components,
        needs_expires: needs(SignatureParameter::Expires),
        needs_nonce,
        needs_alg: needs(SignatureParameter::Alg),
        max_age_s: written.max_age.0.div_ceil(1000),
        skew_s: written.skew.0.div_ceil(1000),
        kept: Kept::default(),
        content_digest: *written.content_digest,
    }
}

/// How long nonces are kept by rules that count them: they all go by the same keys.
pub(super) fn kept<'r>(rules: impl Iterator<Item = &'r Rule>) -> Kept {
    rules.filter(|rule| rule.needs_nonce).fold(Kept::default(), |kept, rule| Kept {
        max_age_s: kept.max_age_s.max(rule.max_age_s),
        skew_s: kept.skew_s.max(rule.skew_s),
    })
}

/// Reports ways that are asked for together and would both use up one nonce: the second one finds
/// it used.
pub(super) fn check_together(ids: &[WayId], ways: &[Way], place: Place, sink: &mut Sink) {
    let counting = |id: &WayId| {
        let way = ways.get(usize::from(*id))?;
        match &way.kind {
            WayKind::Signature(own) if own.rule.needs_nonce => Some((*id, way, &own.rule)),
            _ => None,
        }
    };
    let all: Vec<_> = ids.iter().filter_map(counting).collect();
    for (at, (id, way, rule)) in all.iter().enumerate() {
        let is_other =
            |(other, _, its): &&(WayId, &Way, &Rule)| other != id && its.takes_same(rule);
        let Some((_, first, _)) = all[..at].iter().find(is_other) else { continue };
        let title = format!(
            "`{}` and `{}` count the nonce of one and the same signature, so that the second of \
             them refuses what the first has accepted",
            short(&first.name),
            short(&way.name)
        );
        let fix =
            "ask for \"nonce\" in one of them only, or give each a `label` or `tag` of its own";
        sink.push(Problem::error(place, title).fix(fix));
        return;
    }
}

/// Says when nobody could sign.
pub(super) fn check_keys(name: &At<String>, keys: &Keys, gathered: &Gathered<'_>, sink: &mut Sink) {
    let is_none = |consumer: &Consumer| {
        consumer.signature_keys.is_empty() && !consumer.signature_keys.is_wrong()
    };
    let is_none = gathered.own().all(|(_, consumer)| is_none(consumer));
    if keys.is_empty() && is_none && gathered.is_asked_for(&name.value) {
        let title = "there is no key to sign with: no consumer has `signature_keys`";
        let fix = "add signature_keys = [{ id = \"alice-1\", algorithm = \"hmac-sha256\", secret = \
                   \"file:alice.secret\" }] to a consumer";
        sink.push(Problem::warning(name.place().unwrap_or(TOP), title).fix(fix));
    }
}

/// Files with keys, which are read again when they change.
pub(super) fn files(file: &File) -> Vec<String> {
    let consumers = file.consumers.value.0.iter().filter_map(|(_, consumer)| consumer.as_ref());
    let keys = consumers.flat_map(|consumer: &Consumer| consumer.signature_keys.iter());
    let of = |key: &SignatureKey| {
        let secret = key.secret.value.as_ref().and_then(|source| source.file());
        [secret.map(str::to_owned), key.public_key_file.value.clone()]
    };
    keys.flat_map(|key| of(key)).flatten().collect()
}
