//! Sections `[jwt.NAME]`: what is asked of tokens, and where their keys are.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};

use super::{TOP, auth, secrets, tls};
use crate::{
    config::{
        bounded,
        decode::{At, Sink, short},
        file::{File, Jwt},
        report::{Place, Problem},
        snapshot::{JwtWay, KeySource, Origin, Provider, Way, WayKind, jwks},
        values::trusted_url,
    },
    policy::jwt::{Family, KeySet, Rule, key::Key},
};

/// Largest file with keys, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The way of one section.
pub(super) fn way(name: &At<String>, jwt: &Jwt, folder: &Path, sink: &mut Sink) -> Way {
    let place = name.place().unwrap_or(TOP);
    let rule = rule(jwt, sink);
    let keys = keys(&name.value, place, jwt, &rule, folder, sink);
    Way {
        name: name.value.clone(),
        kind: WayKind::Jwt(Box::new(JwtWay { rule, keys, cache_bytes: jwt.cache.0 })),
        sources: jwt.from.iter().map(|source| source.value.0.clone()).collect(),
        forward_credential: *jwt.forward_credential,
        forward: auth::claim_fields(&jwt.forward.value.0, sink),
    }
}

fn rule(jwt: &Jwt, sink: &mut Sink) -> Rule {
    check_algorithms(jwt, sink);
    if jwt.from.is_empty() && !jwt.from.is_wrong() {
        let fix = "write from = [\"bearer\"]";
        sink.push(Problem::error(jwt.from.place().unwrap_or(TOP), "no place for tokens").fix(fix));
    }
    let short = |typ: &At<String>| {
        let typ = typ.value.to_ascii_lowercase();
        typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned)
    };
    Rule {
        algorithms: jwt.algorithms.iter().map(|algorithm| algorithm.value).collect(),
        issuer: jwt.issuer.value.clone().unwrap_or_default(),
        audiences: auth::audiences(&jwt.audience, "issuer", sink),
        claims: auth::claims(&jwt.claims),
        types: jwt.typ.iter().map(short).collect(),
        skew_s: jwt.skew.0 as f64 / 1000.0,
        needs_exp: *jwt.require_exp,
        bytes_max: usize::try_from(jwt.max_size.0).unwrap_or(usize::MAX),
        subject: jwt.subject.0.clone(),
        groups: jwt.groups.0.clone(),
        scopes: jwt.scopes.0.clone(),
    }
}

fn check_algorithms(jwt: &Jwt, sink: &mut Sink) {
    if jwt.algorithms.is_wrong() {
        return;
    }
    let place = jwt.algorithms.place().unwrap_or(TOP);
    if jwt.algorithms.is_empty() {
        let title = "`algorithms` names none, so no token could be accepted";
        sink.push(Problem::error(place, title).fix("write algorithms = [\"RS256\"]"));
    }
    let is_secret = |one: &&At<_>| is_of_secret(one.value);
    if jwt.algorithms.iter().any(|one| is_secret(&one))
        && !jwt.algorithms.iter().all(|one| is_secret(&one))
    {
        let title = "algorithms of secrets (HS) and of public keys are mixed: whoever knows a \
                     public key could take it for a secret";
        let fix = "make two sections, and name both in `authenticate`";
        sink.push(Problem::error(place, title).fix(fix));
    }
}

pub(super) fn is_of_secret(algorithm: crate::policy::jwt::Algorithm) -> bool {
    algorithm.family() == Family::Secret
}

/// Where the keys are; an empty set after a report.
fn keys(
    name: &str,
    place: Place,
    jwt: &Jwt,
    rule: &Rule,
    folder: &Path,
    sink: &mut Sink,
) -> KeySource {
    let written = [
        ("secret", jwt.secret.place()),
        ("keys", jwt.keys.place().filter(|_| !jwt.keys.is_empty() || jwt.keys.is_wrong())),
        ("keys_file", jwt.keys_file.place()),
        ("jwks", jwt.jwks.place()),
    ];
    let mut written = written.iter().filter_map(|(key, place)| place.map(|place| (*key, place)));
    let first = written.next();
    if let (Some((one, at)), Some((other, place))) = (first, written.next()) {
        let title =
            format!("a section has its keys from one place, not both `{one}` and `{other}`");
        let problem = Problem::error(place, title).related(at, "the first one");
        sink.push(problem.fix("keep one of them, or make two sections"));
    }
    match first {
        Some(("jwks", place)) => match &jwt.jwks.value {
            Some(url) => remote(name, Origin::Keys(url.0.clone()), place, jwt, rule, folder, sink),
            None => KeySource::Fixed(Arc::default()),
        },
        None => discovered(name, place, jwt, rule, folder, sink),
        Some((key, place)) => {
            refuse_remote_keys(jwt, sink);
            let read = match key {
                "secret" => match secret(jwt, rule, folder, sink) {
                    Some(read) => read,
                    None => return KeySource::Fixed(Arc::default()),
                },
                "keys" => inline(jwt),
                _ => from_file(jwt.keys_file.value.as_deref().unwrap_or_default(), folder),
            };
            let set = read.and_then(|keys| fixed(keys, rule)).unwrap_or_else(|why| {
                // Without algorithms nothing can be said of keys; that was reported.
                if !rule.algorithms.is_empty() {
                    let title = format!("`{key}` cannot be used: {why}");
                    sink.push(Problem::error(place, title).fix(fix_of(key, rule)));
                }
                KeySet::default()
            });
            KeySource::Fixed(Arc::new(set))
        }
    }
}

fn fix_of(key: &str, rule: &Rule) -> &'static str {
    match (key, rule.algorithms.iter().all(|algorithm| is_of_secret(*algorithm))) {
        ("secret", true) => {
            "write secret = \"file:jwt.secret\", with what `openssl rand -hex 64` gives"
        }
        ("secret", false) => "write algorithms = [\"HS256\"], or give public keys by `keys_file`",
        (_, true) => "give keys of kind `oct`, or one `secret`",
        (_, false) => {
            "give public keys that fit `algorithms`, in PEM (PUBLIC KEY or CERTIFICATE) or as JWK"
        }
    }
}

/// `None` after a report.
fn secret(
    jwt: &Jwt,
    rule: &Rule,
    folder: &Path,
    sink: &mut Sink,
) -> Option<Result<Vec<Key>, String>> {
    if !rule.algorithms.iter().any(|algorithm| is_of_secret(*algorithm)) {
        return Some(Err("`algorithms` has no algorithm of secrets".to_owned()));
    }
    let about = ("the secret of tokens", "make tokens that are accepted");
    let secret = secrets::read(&jwt.secret.some()?, about, folder, sink)?;
    let key = Key::secret(secret.0.as_bytes(), None, &rule.algorithms);
    Some(key.map(|key| vec![key]))
}

fn inline(jwt: &Jwt) -> Result<Vec<Key>, String> {
    let all = jwt.keys.iter().map(|key| parsed(key.value.0.as_bytes()));
    Ok(all.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn from_file(name: &str, folder: &Path) -> Result<Vec<Key>, String> {
    let path = folder.join(name);
    let read = bounded::read(&path, FILE_BYTES_MAX);
    parsed(&read.map_err(|e| format!("cannot read `{}`: {e}", path.display()))?)
}

/// Keys of a text, in either form. Each of them must be usable.
fn parsed(text: &[u8]) -> Result<Vec<Key>, String> {
    if text.trim_ascii_start().starts_with(b"{") {
        let (keys, unusable) = KeySet::from_json(text)?;
        return match unusable.first() {
            Some(why) => Err(why.clone()),
            None => Ok(keys),
        };
    }
    Key::from_pem(text)
}

fn fixed(keys: Vec<Key>, rule: &Rule) -> Result<KeySet, String> {
    let set = KeySet::of(keys)?;
    match set.is_empty() || set.serves(&rule.algorithms) || rule.algorithms.is_empty() {
        true if set.is_empty() => Err("there is no key in it".to_owned()),
        true => Ok(set),
        false => Err("no key of it is for one of `algorithms`".to_owned()),
    }
}

/// Keys that are only for fetching, where nothing is fetched.
fn refuse_remote_keys(jwt: &Jwt, sink: &mut Sink) {
    let keys = [
        ("ca", jwt.ca.place()),
        ("refresh", jwt.refresh.place()),
        ("refetch_after", jwt.refetch_after.place()),
        ("wait", jwt.wait.place()),
        ("fetch_timeout", jwt.fetch_timeout.place()),
        ("jwks_cache", jwt.jwks_cache.place()),
    ];
    let is_default = [
        jwt.ca.value.is_none(),
        *jwt.refresh == crate::config::units::minutes(10),
        *jwt.refetch_after == crate::config::units::seconds(5),
        *jwt.wait == crate::config::units::seconds(2),
        *jwt.fetch_timeout == crate::config::units::seconds(10),
        jwt.jwks_cache.value.is_none(),
    ];
    for ((key, place), is_default) in keys.into_iter().zip(is_default) {
        if let Some(place) = place.filter(|_| !is_default) {
            let title = format!("`{key}` has no effect: the keys are given here, not fetched");
            sink.push(Problem::error(place, title).fix("remove it, or give `jwks`"));
        }
    }
}

/// Keys that the issuer says where to find.
fn discovered(
    name: &str,
    place: Place,
    jwt: &Jwt,
    rule: &Rule,
    folder: &Path,
    sink: &mut Sink,
) -> KeySource {
    let Some(issuer) = jwt.issuer.some() else {
        if !jwt.issuer.is_wrong() {
            let title = format!("the section `jwt.{}` has no keys", short(name));
            let fix = "add `secret`, `keys`, `keys_file` or `jwks`, or an `issuer` that says where \
                       its keys are (OpenID Connect Discovery)";
            sink.push(Problem::error(place, title).fix(fix));
        }
        return KeySource::Fixed(Arc::default());
    };
    let at = issuer.place().unwrap_or(place);
    if let Err(why) = trusted_url(&issuer.value) {
        let title = format!("the keys of `{}` cannot be found by it: {why}", short(&issuer.value));
        let fix = "add `secret`, `keys`, `keys_file` or `jwks`, or write an https:// issuer";
        sink.push(Problem::error(at, title).fix(fix));
        return KeySource::Fixed(Arc::default());
    }
    remote(name, Origin::Issuer(issuer.value), at, jwt, rule, folder, sink)
}

/// Keys that are fetched; those that are kept on the disk are in force at once.
fn remote(
    name: &str,
    from: Origin,
    place: Place,
    jwt: &Jwt,
    rule: &Rule,
    folder: &Path,
    sink: &mut Sink,
) -> KeySource {
    let nothing = KeySource::Fixed(Arc::default());
    if rule.algorithms.iter().any(|algorithm| is_of_secret(*algorithm)) {
        let title = "secrets (HS) are never fetched: whoever can read them could sign";
        let at = jwt.algorithms.place().unwrap_or(place);
        sink.push(
            Problem::error(at, title).fix("write algorithms = [\"RS256\"], or give `secret`"),
        );
        return nothing;
    }
    let Some(client) = client(&jwt.ca, &from, place, folder, sink) else { return nothing };
    let file = jwt.jwks_cache.value.as_ref().map(|file| folder.join(file));
    let (cell, is_new) = jwks::cell(&format!("{name}\n{from:?}\n{:?}\n{file:?}", jwt.ca.value));
    if let Some(file) = file.as_deref().filter(|_| is_new) {
        kept(file, &cell, jwt.jwks_cache.place().unwrap_or(place), sink);
    }
    KeySource::Remote(Arc::new(Provider {
        name: name.to_owned(),
        from,
        for_logins: false,
        client,
        refresh_ms: jwt.refresh.0,
        refetch_after_ms: jwt.refetch_after.0,
        wait_ms: jwt.wait.0,
        timeout_ms: jwt.fetch_timeout.0,
        file,
        cell,
    }))
}

/// Whom to believe that it is the provider; `None` after a report.
pub(super) fn client(
    ca: &At<Option<String>>,
    from: &Origin,
    place: Place,
    folder: &Path,
    sink: &mut Sink,
) -> Option<Arc<ClientConfig>> {
    let roots = match ca.some() {
        Some(ca) => tls::roots_of(&ca, folder, sink)?,
        None if is_plain(from) => rustls::RootCertStore::empty(),
        None => tls::system_roots(place, sink)?,
    };
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("invariant: the provider has cipher suites of both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Some(Arc::new(client))
}

fn is_plain(from: &Origin) -> bool {
    let (Origin::Keys(url) | Origin::Issuer(url)) = from;
    url.starts_with("http://")
}

fn kept(file: &Path, cell: &jwks::Cell, place: Place, sink: &mut Sink) {
    let why = match bounded::read(file, FILE_BYTES_MAX) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
        Err(e) => e.to_string(),
        Ok(text) => match KeySet::remote(&text) {
            Ok((keys, _)) => return cell.put(keys),
            Err(why) => why,
        },
    };
    let title = format!("the kept keys `{}` cannot be used: {why}", file.display());
    let fix = "they are fetched anew; remove the file if this stays";
    sink.push(Problem::warning(place, title).fix(fix));
}

/// Files of all sections, which are read again when they change.
pub(super) fn files(file: &File) -> Vec<String> {
    let sections = file.jwt.value.0.iter().filter_map(|(_, jwt)| jwt.as_ref());
    let of = |jwt: &Jwt| {
        let secret = jwt.secret.value.as_ref().and_then(|secret| secret.file());
        let others = [jwt.keys_file.value.clone(), jwt.ca.value.clone()];
        others.into_iter().flatten().chain(secret.map(str::to_owned)).collect::<Vec<_>>()
    };
    sections.flat_map(of).collect()
}
