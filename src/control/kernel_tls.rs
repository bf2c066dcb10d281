//! TLS in the kernel (`listeners.tls.kernel`): asks what it offers before workers need to know, and
//! tells people.

use std::sync::Once;

use crate::{config::Snapshot, worker::kernel_tls::offer};

/// Called with a configuration before workers get it. The log says once what came of it.
pub fn look(snapshot: &Snapshot) {
    static SAID: Once = Once::new();
    if !snapshot.listeners.iter().any(|listener| listener.tls.as_ref().is_some_and(|t| t.kernel)) {
        return;
    }
    let found = offer::look();
    SAID.call_once(|| match found {
        Ok(()) => tracing::info!("TLS: the kernel seals and opens records"),
        Err(lack) => tracing::warn!(%lack, "TLS: records are sealed and opened here"),
    });
}

/// How it stands, for the status.
pub fn said() -> String {
    match offer::look() {
        Ok(()) => "used".to_owned(),
        Err(lack) => lack.to_string(),
    }
}
