//! Consumers, and the ways that take their keys and passwords.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Once, TOP, auth, basic, key_file, plans, rules::no_such, signatures};
use crate::{
    config::{
        decode::{At, Sink},
        file::{ApiKeys, Consumer, File},
        report::{Place, Problem},
        snapshot::{
            Accepted, BasicRule, CertificateNames, Consumers, KeyRule, RateLimit, SignatureRule,
            User, Way, WayKind,
        },
        values::{Group, Name},
    },
    policy::{
        auth::Source,
        consumers::{self, Kind, NAME_BYTES_MAX},
        key_text::{self, Line},
        keys::{self, KeyTable},
        signature,
    },
};

/// What is known of consumers while the configuration is read.
pub(super) struct Gathered<'f> {
    pub consumers: consumers::Gathering,
    file: &'f File,
}

impl Gathered<'_> {
    /// The number of a plan.
    pub fn plan(&self, name: &str) -> Option<u32> {
        let at = self.file.plans.value.0.iter().position(|(plan, _)| plan.value == name)?;
        u32::try_from(at).ok()
    }

    /// Whether the consumer of this name has a section of its own.
    pub fn is_own(&self, name: &str) -> bool {
        self.consumers.find(name).is_some_and(|consumer| self.consumers.is_own(consumer))
    }

    /// Whether anybody is asked by the way of this name.
    pub fn is_asked_for(&self, name: &str) -> bool {
        auth::is_asked_for(self.file, name)
    }

    /// Nothing is wrong with the consumers' keys.
    fn has_sound_keys(&self) -> bool {
        let is_sound = |consumer: &Option<Consumer>| {
            consumer.as_ref().is_some_and(|consumer| !consumer.keys.is_wrong())
        };
        !self.file.consumers.is_wrong()
            && self.file.consumers.value.0.iter().all(|(_, consumer)| is_sound(consumer))
    }

    /// Users of HTTP Basic among those that have, with their places.
    pub fn passwords(&self) -> Vec<(User, Place)> {
        let user = |(name, consumer): &(At<String>, Option<Consumer>)| {
            let consumer = consumer.as_ref()?;
            let password = consumer.password.value.as_ref()?.0.0.clone();
            let own = consumer.username.value.as_ref().map(|name| name.0.as_str());
            let place = consumer.username.place().or(name.place()).unwrap_or(TOP);
            let number = self.consumers.find(&name.value);
            Some((User::new(own.unwrap_or(&name.value), password, number), place))
        };
        self.file.consumers.value.0.iter().filter_map(user).collect()
    }

    /// Those that have, with their numbers.
    pub fn own(&self) -> impl Iterator<Item = (u32, &Consumer)> {
        let all = self.file.consumers.value.0.iter();
        all.filter_map(|(name, own)| Some((self.consumers.find(&name.value)?, own.as_ref()?)))
    }

    /// Names of those that have.
    fn own_names(&self) -> Vec<&str> {
        self.file.consumers.value.0.iter().map(|(name, _)| name.value.as_str()).collect()
    }
}

/// What takes the consumers' credentials, in the order of the file; `None` for what is wrong and
/// reported.
pub(super) struct Credentials {
    keys: Vec<Option<KeyRule>>,
    basic: Vec<Option<BasicRule>>,
    signatures: Vec<Option<SignatureRule>>,
}

pub(super) fn check(
    file: &File,
    limits: &[RateLimit],
    folder: &Path,
    sink: &mut Sink,
) -> (Consumers, Credentials) {
    let plans = plans::plans(file, limits, sink).into();
    let mut gathered = Gathered { consumers: consumers::Gathering::default(), file };
    for (name, consumer) in &file.consumers.value.0 {
        add(name, consumer.as_ref(), &mut gathered, sink);
    }
    let own_keys = own_keys(&gathered, sink);
    let certificates = Arc::new(certificates(&gathered, sink));
    let mut tables = Tables { folder, own_keys, known: BTreeMap::new() };
    let mut keys = Vec::new();
    for (name, way) in &file.api_keys.value.0 {
        let place = name.place().unwrap_or(TOP);
        let table = way.as_ref().and_then(|way| tables.of(way, place, &mut gathered, sink));
        if table.as_ref().is_some_and(|table| table.is_empty())
            && way.as_ref().is_some_and(|way| way.file.value.is_none())
            && gathered.has_sound_keys()
            && gathered.is_asked_for(&name.value)
        {
            let title = "there is no API key: no consumer has `keys`, and no `file` is named";
            let fix = "make one with `ringway key create`, and add its digest to `keys` of a \
                       consumer or to a `file`";
            sink.push(Problem::warning(place, title).fix(fix));
        }
        // The file has been read, so that the consumers that it has are known.
        let accepts = way.as_ref().map(|way| accepts(&way.consumers, &way.groups, &gathered, sink));
        keys.push(table.zip(accepts));
    }
    let mut basic = Vec::new();
    for (name, way) in &file.basic.value.0 {
        let Some(way) = way else {
            basic.push(None);
            continue;
        };
        let users = basic::users(name, way, folder, &gathered, sink);
        let accepts = accepts(&way.consumers, &way.groups, &gathered, sink);
        basic.push(users.map(|users| (basic::rule(name, way, users), accepts)));
    }
    let signatures = signatures(file, &gathered, folder, sink);
    let all = Arc::new(gathered.consumers.done());
    let key_rule =
        |(table, accepts): (_, Accepts)| KeyRule { table, accepted: accepts.among(&all) };
    let keys = keys.into_iter().map(|rule| rule.map(key_rule)).collect();
    let basic_rule =
        |(rule, accepts): (_, Accepts)| BasicRule { accepted: accepts.among(&all), ..rule };
    let basic = basic.into_iter().map(|rule| rule.map(basic_rule)).collect();
    let signature_rule =
        |(rule, accepts): (_, Accepts)| SignatureRule { accepted: accepts.among(&all), ..rule };
    let signatures = signatures.into_iter().map(|rule| rule.map(signature_rule)).collect();
    (Consumers { all, certificates, plans }, Credentials { keys, basic, signatures })
}

/// The ways that take signatures; whom they take is not known yet.
fn signatures(
    file: &File,
    gathered: &Gathered<'_>,
    folder: &Path,
    sink: &mut Sink,
) -> Vec<Option<(SignatureRule, Accepts)>> {
    let keys = Arc::new(signatures::keys(gathered, folder, sink));
    let mut rules = Vec::new();
    for (name, way) in &file.signatures.value.0 {
        let Some(way) = way else {
            rules.push(None);
            continue;
        };
        signatures::check_keys(name, &keys, gathered, sink);
        let rule = signatures::rule(way, sink);
        let rule = SignatureRule {
            wanted: signature::wanted(&rule, &name.value),
            rule,
            keys: keys.clone(),
            accepted: Accepted::All,
            nonces_max: *way.nonces,
            body_bytes_max: usize::try_from(way.max_digested_body.0).unwrap_or(usize::MAX),
        };
        rules.push(Some((rule, accepts(&way.consumers, &way.groups, gathered, sink))));
    }
    let kept = signatures::kept(rules.iter().flatten().map(|(own, _)| &own.rule));
    rules.iter_mut().flatten().for_each(|(own, _)| own.rule.kept = kept);
    rules
}

/// The ways that take them. One that is wrong has its place all the same, since ways are numbered.
pub(super) fn ways(file: &File, credentials: Credentials) -> Vec<Way> {
    let keys = file.api_keys.value.0.iter().zip(credentials.keys).map(|((name, way), rule)| Way {
        name: name.value.clone(),
        kind: rule.map_or(WayKind::Certificate, WayKind::ApiKey),
        sources: way.iter().flat_map(|way| way.from.iter()).map(|at| at.value.0.clone()).collect(),
        forward_credential: way.as_ref().is_some_and(|way| *way.forward_key),
        forward: Vec::new(),
    });
    let basic = file.basic.value.0.iter().zip(credentials.basic).map(|((name, way), rule)| Way {
        name: name.value.clone(),
        kind: rule.map_or(WayKind::Certificate, WayKind::Password),
        sources: vec![Source::Authorization("Basic".into())],
        forward_credential: way.as_ref().is_some_and(|way| *way.forward_password),
        forward: Vec::new(),
    });
    let written = file.signatures.value.0.iter().zip(credentials.signatures);
    let signatures = written.map(|((name, way), rule)| Way {
        name: name.value.clone(),
        kind: rule.map_or(WayKind::Certificate, |rule| WayKind::Signature(Box::new(rule))),
        sources: ["signature", "signature-input"]
            .map(|name| Source::Header(name.as_bytes().into()))
            .into(),
        forward_credential: way.as_ref().is_some_and(|way| *way.forward_signature),
        forward: Vec::new(),
    });
    keys.chain(basic).chain(signatures).collect()
}

/// Files that belong to the configuration.
pub(super) fn files(file: &File, folder: &Path) -> Vec<PathBuf> {
    let keys =
        file.api_keys.value.0.iter().filter_map(|(_, way)| way.as_ref()?.file.value.as_ref());
    let basic = file.basic.value.0.iter().filter_map(|(_, way)| way.as_ref()?.file.value.as_ref());
    let mut files: Vec<PathBuf> = keys.chain(basic).map(|name| folder.join(name)).collect();
    files.sort();
    files.dedup();
    files
}

/// A consumer with a section of its own.
fn add(
    name: &At<String>,
    consumer: Option<&Consumer>,
    gathered: &mut Gathered<'_>,
    sink: &mut Sink,
) {
    let place = name.place().unwrap_or(TOP);
    let is_odd = |c: char| c.is_control() || c.is_whitespace();
    if name.value.chars().any(is_odd) {
        let title = "the name of a consumer has a blank or a control character";
        sink.push(Problem::error(place, title).fix("write it without them: upstreams are told it"));
        return;
    }
    let groups = consumer.iter().flat_map(|consumer| consumer.groups.iter());
    let plan = consumer.and_then(|consumer| consumer.plan.some());
    let plan = plan.and_then(|plan| plans::find(gathered.file, &plan, sink));
    let mut kind =
        Kind { groups: groups.map(|group| group.value.0.as_str().into()).collect(), plan };
    if let Some(again) =
        (1..kind.groups.len()).find(|at| kind.groups[..*at].contains(&kind.groups[*at]))
    {
        let title = format!("the group `{}` is there twice", kind.groups[again]);
        let place = consumer.and_then(|c| c.groups[again].place()).unwrap_or(place);
        sink.push(Problem::error(place, title).fix("remove one of the two"));
        kind.groups = Box::default();
    }
    if let Err(not) = gathered.consumers.add_own(&name.value, kind) {
        let (title, fix) = match not {
            consumers::Not::Name => (
                format!("the name of a consumer is empty or has more than {NAME_BYTES_MAX} bytes"),
                "write a shorter name",
            ),
            _ => (
                "there are too many consumers, or combinations of groups".to_owned(),
                "put some of them into a file of keys (`api_keys.file`)",
            ),
        };
        sink.push(Problem::error(place, title).fix(fix));
    }
}

fn certificates(gathered: &Gathered<'_>, sink: &mut Sink) -> CertificateNames {
    let mut known = CertificateNames::default();
    let mut once = Once::default();
    for (name, consumer) in &gathered.file.consumers.value.0 {
        let (Some(consumer), Some(number)) = (consumer, gathered.consumers.find(&name.value))
        else {
            continue;
        };
        let mut add =
            |map: &mut HashMap<String, u32>, text: &str, place: Option<Place>, what: &str| {
                let fix = "a certificate is one consumer's: write it at one of them";
                once.check(text, place.unwrap_or(TOP), what, fix, sink);
                map.insert(text.to_owned(), number);
            };
        for one in consumer.certificate_fingerprints.iter() {
            add(&mut known.fingerprints, &one.value.0, one.place(), "the fingerprint");
        }
        for one in consumer.certificate_subjects.iter() {
            add(&mut known.subjects, &one.value, one.place(), "the subject");
        }
        for one in consumer.certificate_names.iter() {
            // Of DNS names upper and lower case are the same (RFC 5280 §7.2).
            let is_dns = !one.value.contains([':', '@', '/']);
            let text = if is_dns { one.value.to_ascii_lowercase() } else { one.value.clone() };
            add(&mut known.names, &text, one.place(), "the certificate's name");
        }
    }
    known
}

/// Tables of keys, made once for each file.
struct Tables<'f> {
    folder: &'f Path,
    own_keys: Vec<OwnKey<'f>>,
    known: BTreeMap<Option<PathBuf>, Option<Arc<KeyTable>>>,
}

/// A key of a consumer with a section of its own.
struct OwnKey<'f> {
    line: Line<'f>,
    consumer: u32,
}

impl Tables<'_> {
    fn of(
        &mut self,
        way: &ApiKeys,
        place: Place,
        gathered: &mut Gathered<'_>,
        sink: &mut Sink,
    ) -> Option<Arc<KeyTable>> {
        if way.file.is_wrong() {
            return None;
        }
        let path = way.file.value.as_ref().map(|file| self.folder.join(file));
        if let Some(known) = self.known.get(&path) {
            return known.clone();
        }
        let mut keys = keys::Gathering::default();
        for OwnKey { line, consumer } in &self.own_keys {
            // There is room for what a configuration can hold.
            let _ = keys.add(line.digest, (*consumer, line.expires_s), &line.scopes, 0);
        }
        let place = way.file.place().unwrap_or(place);
        let name = way.file.value.as_deref().unwrap_or_default();
        let table = match &path {
            Some(path) => {
                key_file::read(&key_file::Named { name, path, place }, keys, gathered, sink)
            }
            None => {
                key_file::table(keys, &key_file::Named { name, path: Path::new(""), place }, sink)
            }
        };
        self.known.entry(path).or_insert(table.map(Arc::new)).clone()
    }
}

/// The keys of consumers with sections of their own, each once.
fn own_keys<'f>(gathered: &Gathered<'f>, sink: &mut Sink) -> Vec<OwnKey<'f>> {
    let mut keys = Vec::new();
    let mut once = Once::default();
    let mut seen = HashSet::new();
    let file: &'f File = gathered.file;
    for (name, consumer) in &file.consumers.value.0 {
        let Some(number) = gathered.consumers.find(&name.value) else { continue };
        for key in consumer.iter().flat_map(|consumer| consumer.keys.iter()) {
            // It was read when the configuration was decoded.
            let Ok(line) = key_text::read_own(&key.value.0) else { continue };
            let fix = "a key is one consumer's: remove it from one of them";
            let text = key_text::digest_text(&line.digest);
            once.check(&text, key.place().unwrap_or(TOP), "the key", fix, sink);
            if seen.insert(line.digest) {
                keys.push(OwnKey { line, consumer: number });
            }
        }
    }
    keys
}

/// Whose credentials a way takes, as written.
#[derive(Default)]
struct Accepts {
    is_said: bool,
    consumers: Vec<u32>,
    groups: Vec<String>,
}

fn accepts(
    names: &At<Vec<At<Name>>>,
    groups: &At<Vec<At<Group>>>,
    gathered: &Gathered<'_>,
    sink: &mut Sink,
) -> Accepts {
    let mut consumers = Vec::new();
    for name in names.iter() {
        match gathered.consumers.find(&name.value.0) {
            Some(consumer) => consumers.push(consumer),
            None => {
                let place = name.place().unwrap_or(TOP);
                let known = gathered.own_names();
                sink.push(no_such("consumer", "consumers", &name.value.0, place, &known));
            }
        }
    }
    consumers.sort_unstable();
    let is_said = names.place().is_some() || groups.place().is_some();
    let groups = groups.iter().map(|group| group.value.0.clone()).collect();
    Accepts { is_said, consumers, groups }
}

impl Accepts {
    fn among(self, all: &consumers::Consumers) -> Accepted {
        if !self.is_said {
            return Accepted::All;
        }
        let has =
            |kind: &Kind| kind.groups.iter().any(|own| self.groups.iter().any(|g| **g == **own));
        Accepted::These {
            consumers: self.consumers.into(),
            kinds: all.kinds().iter().map(has).collect(),
        }
    }
}
