//! What an upstream gets to know of who a request is from, and what it does not get.
//!
//! Invariant: a credential that is not passed on leaves in no place where its way looks, verified
//! or not.

use crate::{
    config::snapshot::Authenticate,
    policy::{
        auth::{self, Entry, Found, Source},
        identity::Identity,
        pairs,
    },
    wire::emit,
    worker::{exchange::Exchange, generation::Generation},
};

/// Notes it for forwarding.
pub fn tell(snapshot: &Generation, exchange: &mut Exchange, rule: &Authenticate, entry: &Entry) {
    if let Entry::Known(identity, at) = entry {
        for id in &rule.asked.alternatives[*at] {
            for field in &snapshot.way(*id).forward {
                add_claim(exchange, identity, &field.name, &field.path);
            }
        }
    }
    if let Entry::Known(identity, _) = entry
        && rule.tells_consumer
    {
        tell_consumer(snapshot, exchange, identity);
    }
    for source in &rule.removed {
        remove(exchange, source);
    }
}

/// The consumer's name and groups, which have neither line end nor comma in them.
fn tell_consumer(snapshot: &Generation, exchange: &mut Exchange, identity: &Identity) {
    let Some(consumer) = identity.consumer else { return };
    let lines = &mut exchange.upstream_fields().lines;
    emit::field(lines, b"X-Consumer-Name", snapshot.consumers.all.name(consumer).as_bytes());
    let groups = &snapshot.consumers.all.kind(consumer).groups;
    if !groups.is_empty() {
        emit::field(lines, b"X-Consumer-Groups", groups.join(",").as_bytes());
    }
}

/// A claim that is not there, or cannot be the value of a field, is no field.
fn add_claim(exchange: &mut Exchange, identity: &Identity, name: &[u8], path: &str) {
    let Some(claim) = identity.claim(path) else { return };
    let lines = &mut exchange.upstream_fields().lines;
    let start = lines.len();
    lines.extend_from_slice(name);
    lines.extend_from_slice(b": ");
    if auth::field_value(claim, lines) {
        lines.extend_from_slice(b"\r\n");
    } else {
        lines.truncate(start);
    }
}

/// Leaves cookies of the gateway's own, whose names begin so, out of what the upstream gets.
pub fn keep_own_cookies(exchange: &mut Exchange, prefixes: &[Box<[u8]>]) {
    let is_own = |name: &[u8]| prefixes.iter().any(|own| name.starts_with(own));
    let mut fields = exchange.head().fields.iter();
    let has_own = fields.any(|field| {
        exchange.text(field.name).eq_ignore_ascii_case(b"cookie")
            && pairs::cookies(exchange.text(field.value)).any(|(name, _)| is_own(name))
    });
    if has_own {
        let cookies = auth::without_cookies(&exchange.upstream_cookies(), is_own);
        let fields = exchange.upstream_fields();
        fields.drop_field(b"cookie");
        fields.cookies = Some(cookies);
    }
}

fn remove(exchange: &mut Exchange, source: &Source) {
    if auth::find(source, exchange.head(), exchange.bytes()) == Found::Nothing {
        return;
    }
    match source {
        Source::Authorization(_) => exchange.upstream_fields().drop_field(b"authorization"),
        Source::Header(name) => exchange.upstream_fields().drop_field(name),
        Source::Cookie(name) => {
            let is_it = |own: &[u8]| *own == **name;
            let cookies = auth::without_cookies(&exchange.upstream_cookies(), is_it);
            let fields = exchange.upstream_fields();
            fields.drop_field(b"cookie");
            fields.cookies = Some(cookies);
        }
        Source::Query(name) => {
            let query = exchange.upstream_query().unwrap_or_default();
            let left = auth::without_parameter(query, name);
            exchange.upstream_fields().query = Some(left);
        }
    }
}
