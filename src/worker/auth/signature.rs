//! `[signatures.NAME]`: a signature over the request (RFC 9421), by a consumer's key.
//!
//! Where each signature counts once, the home of the key is asked about its nonce after all else
//! was good, so that nobody without the key can fill its memory.

use std::rc::Rc;

use super::{
    Asking, Outcome,
    nonces::{self, Used},
};
use crate::{
    config::snapshot::{SignatureRule, Way},
    policy::{
        Refusal,
        auth::{Seen, WayId},
        identity::{Identity, Shown},
        refusal,
        signature::{Judged, Key, Message, Signed},
    },
    worker::clock::unix_s,
};

/// Who has signed the request.
pub fn now<'a>(asking: Asking<'a>, id: WayId, rule: &'a SignatureRule) -> Outcome<'a> {
    let exchange = asking.exchange;
    let (head, bytes) = (exchange.head(), exchange.bytes());
    let message = Message { head, bytes, scheme: exchange.scheme() };
    let Signed { key, nonce, created_s, until_s } =
        match rule.rule.judge(&message, &rule.keys, unix_s()) {
            Judged::NotShown => return Outcome::NotShown,
            Judged::Refused(reason) => return Outcome::Refused(reason.into()),
            Judged::Signed(signed) => signed,
        };
    if !rule.accepted.has(&asking.snapshot.consumers.all, Some(key.consumer)) {
        return Outcome::Refused(refusal::AUTH_CONSUMER.into());
    }
    let way = asking.snapshot.way(id);
    let Some(nonce) = nonce else { return Outcome::Identity(identity(asking, way, key)) };
    // Not before it is polled: a way may be asked again while another one waits.
    Outcome::Wait(Box::pin(async move {
        let asked = nonces::Asked {
            key: &key.id,
            nonce: &nonce,
            created_s,
            until_s,
            skew_s: rule.rule.kept.skew_s,
            most: rule.nonces_max,
            by_ms: asking.exchange.until_ms,
        };
        match nonces::take(asking.worker, asked).await {
            Used::No => Seen::Identity(identity(asking, way, key)),
            Used::Before => Seen::Refused(refusal::AUTH_REPLAYED.into()),
            Used::Unknown => {
                let refusal = Refusal { retry_after_s: 1, ..refusal::AUTH_UNAVAILABLE.into() };
                Seen::Refused(refusal)
            }
        }
    }))
}

fn identity(asking: Asking<'_>, way: &Way, key: &Key) -> Rc<Identity> {
    let consumers = &asking.snapshot.consumers;
    Rc::new(consumers.identity(Shown::Signature, &way.name, key.consumer))
}
