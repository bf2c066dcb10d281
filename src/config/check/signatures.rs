//! Sections `[signatures.NAME]`, and the keys of consumers that sign requests.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Once, TOP, consumers::Gathered};
use crate::{
    config::{
        decode::{At, Sink},
        file::{Consumer, File, SignatureKey, Signatures},
        report::{Place, Problem},
        snapshot::SecretEncoding,
        values::SignatureParameter,
    },
    policy::signature::{Component, Key, Keys, Rule, key::Material},
};

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
            match material(written, folder) {
                Ok(material) => {
                    keys.add(Key::new(id, *written.algorithm, number, material));
                }
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
    fix: String,
}

fn material(written: &SignatureKey, folder: &Path) -> Result<Material, Wrong> {
    let algorithm = *written.algorithm;
    let name = algorithm.name();
    let (needed, other) = match algorithm.is_of_secret() {
        true => (("secret", &written.secret), ("public_key", &written.public_key)),
        false => (("public_key", &written.public_key), ("secret", &written.secret)),
    };
    let how = match algorithm.is_of_secret() {
        true => "write secret = \"file:alice.secret\", with what `openssl rand -hex 32` gives",
        false => "write public_key = \"file:alice.pem\", with what `openssl pkey -pubout` gives",
    };
    if let Some(place) = other.1.place().filter(|_| other.1.value.is_some()) {
        let title = format!("`{}` is not for keys of {name}", other.0);
        return Err(Wrong { place: Some(place), title, fix: how.to_owned() });
    }
    let Some(source) = &needed.1.value else {
        let title = format!("a key of {name} needs `{}`", needed.0);
        return Err(Wrong { place: written.algorithm.place(), title, fix: how.to_owned() });
    };
    let unusable = |why: String| {
        let title = format!("`{}` cannot be used: {why}", needed.0);
        Wrong { place: needed.1.place(), title, fix: how.to_owned() }
    };
    let text = source.0.get(folder).map_err(unusable)?;
    if !algorithm.is_of_secret() {
        if let Some(place) = written.encoding.place() {
            let title = "`encoding` is of secrets, and a public key is in PEM".to_owned();
            return Err(Wrong { place: Some(place), title, fix: "remove it".to_owned() });
        }
        return Material::public(text.as_bytes(), algorithm).map_err(unusable);
    }
    let secret = match *written.encoding {
        SecretEncoding::Text => text.into_bytes(),
        SecretEncoding::Base64 => {
            let decoded = STANDARD.decode(text.trim());
            decoded.map_err(|_| unusable("it is not base64".to_owned()))?
        }
    };
    Material::secret(&secret).map_err(unusable)
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
    if let Some(place) = written.nonces.place().filter(|_| !needs_nonce) {
        if !written.parameters.is_wrong() {
            let title = "`nonces` has no effect: no nonce is asked for";
            let fix = "add parameters = [\"nonce\"], or remove it";
            sink.push(Problem::error(place, title).fix(fix));
        }
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
        content_digest: *written.content_digest,
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
    let sources = keys.flat_map(|key| [&key.secret.value, &key.public_key.value]);
    sources.flatten().filter_map(|source| source.0.file()).map(str::to_owned).collect()
}
