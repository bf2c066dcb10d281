//! What a request is counted by: the number of its key, from the parts that its limit names.

use crate::{
    config::snapshot::RateLimit,
    policy::{
        limit::{FleetKey, Key, KeyPart, Parts},
        pairs::{cookies, parameter},
    },
    worker::{Worker, exchange::Exchange, generation::Generation},
};

/// The key of a request; `None` when the limit is not for it.
#[inline]
pub(in crate::worker) fn key_of(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &Exchange,
    rule: &RateLimit,
    number: u64,
) -> Option<u64> {
    if let Some(ip) = exchange.client.ip
        && rule.exempt_networks.iter().any(|network| network.contains(&ip))
    {
        return None;
    }
    if rule.shared.is_some() {
        let mut room = worker.scratch.take();
        let mut key = FleetKey::of(&rule.name, &mut room);
        let key = write(snapshot, exchange, rule, &mut key).then(|| key.finish());
        worker.scratch.set(room);
        return key;
    }
    if rule.quota.is_some() {
        let mut key = Key::lasting(worker.homes.seeds, number);
        return write(snapshot, exchange, rule, &mut key).then(|| key.finish());
    }
    let mut key = Key::of(&worker.homes.random, number);
    write(snapshot, exchange, rule, &mut key).then(|| key.finish())
}

/// Writes the parts; false when one of them is exempt.
#[inline]
fn write(
    snapshot: &Generation,
    exchange: &Exchange,
    rule: &RateLimit,
    key: &mut impl Parts,
) -> bool {
    for part in &rule.key {
        match part {
            KeyPart::Client => key.client(exchange.client.ip),
            part => {
                let is_exempt = with_value(snapshot, exchange, part, |value| {
                    key.value(value);
                    let exempt = &rule.exempt_values;
                    value.is_some_and(|value| exempt.iter().any(|one| **one == *value))
                });
                if is_exempt {
                    return false;
                }
            }
        }
    }
    true
}

/// Calls `look` with the value of a part that is a text.
fn with_value<R>(
    snapshot: &Generation,
    exchange: &Exchange,
    part: &KeyPart,
    look: impl FnOnce(Option<&[u8]>) -> R,
) -> R {
    let identity = exchange.identity.as_ref();
    match part {
        KeyPart::Client => look(None),
        KeyPart::Consumer => {
            // By name, which stays when the consumers are numbered anew.
            let consumer = identity.and_then(|identity| identity.consumer);
            look(consumer.map(|consumer| snapshot.consumers.all.name(consumer).as_bytes()))
        }
        KeyPart::Subject => look(identity.map(|identity| identity.subject.as_bytes())),
        KeyPart::Claim(name) => match identity.and_then(|identity| identity.claim(name)) {
            Some(serde_json::Value::String(text)) => look(Some(text.as_bytes())),
            Some(other) => look(Some(other.to_string().as_bytes())),
            None => look(None),
        },
        KeyPart::Header(name) => look(field(exchange, name.as_bytes()).next()),
        KeyPart::Query(name) => {
            look(exchange.query().and_then(|query| parameter(query, name)).as_deref())
        }
        KeyPart::Cookie(name) => {
            let mut all = field(exchange, b"cookie").flat_map(cookies);
            look(all.find(|(own, _)| *own == name.as_bytes()).map(|(_, value)| value))
        }
        KeyPart::Route => {
            let route = exchange.route.map(|id| snapshot.route(id).name.as_bytes());
            look(route)
        }
        KeyPart::Host => look(Some(&exchange.host().to_ascii_lowercase())),
    }
}

/// The values of a field, whether the codec has a number for it or not.
fn field<'e>(exchange: &'e Exchange, name: &'e [u8]) -> impl Iterator<Item = &'e [u8]> {
    let fields = exchange.head().fields.iter();
    let is_it =
        move |field: &&crate::wire::Field| exchange.text(field.name).eq_ignore_ascii_case(name);
    fields.filter(is_it).map(|field| exchange.text(field.value))
}
