//! The way `certificate`: what the client's TLS handshake has shown and its listener has verified.

use std::rc::Rc;

use super::{Asking, Outcome};
use crate::policy::{client_cert::ClientCert, identity::Identity};

/// Who the certificate is for.
pub fn now(asking: Asking<'_>) -> Outcome<'_> {
    match &asking.exchange.client_cert {
        Some(certificate) => Outcome::Identity(identity(asking, certificate)),
        None => Outcome::NotShown,
    }
}

/// Of the certificate, and of the consumer whose it is.
fn identity(asking: Asking<'_>, certificate: &ClientCert) -> Rc<Identity> {
    let consumers = &asking.snapshot.consumers;
    let identity = certificate.identity();
    let Some(consumer) = consumers.certificates.consumer(certificate) else { return identity };
    let groups = consumers.all.kind(consumer).groups.iter().cloned().collect();
    Rc::new(Identity { consumer: Some(consumer), groups, ..(*identity).clone() })
}
