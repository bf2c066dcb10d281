//! The way `certificate`: what the client's TLS handshake has shown and its listener has verified.

use super::{Asking, Outcome};

/// Who the certificate is for.
pub fn now(asking: Asking<'_>) -> Outcome<'_> {
    match &asking.exchange.client_cert {
        Some(certificate) => Outcome::Identity(certificate.identity()),
        None => Outcome::NotShown,
    }
}
