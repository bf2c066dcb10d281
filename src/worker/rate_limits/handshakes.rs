//! How many TLS handshakes one client address may begin (`listeners.tls.handshake_rate`), exactly,
//! whichever workers its connections come to: a limit of its own for each listener that has a rate,
//! counted by address, IPv6 by the /64 that one client has.
//!
//! Invariants: nothing of a handshake is computed before this has said yes, and a connection waits
//! for that no longer than a request does. Memory is bounded by [`ADDRESSES_MAX`] for each worker
//! and listener, and as many leases of other workers' addresses.

use std::net::IpAddr;

use super::{Decided, Homes, LimitState, Rule, Waiting, decide, share};
use crate::{
    config::Snapshot,
    policy::limit::{Key, Parts},
    worker::{Worker, door::Door, generation::Generation},
};

/// Addresses that each worker remembers for a listener, of those that began lately.
pub const ADDRESSES_MAX: usize = 16 * 1024;

/// One for each listener that has a rate.
pub(super) fn rules<'s>(snapshot: &'s Snapshot, homes: &Homes) -> impl Iterator<Item = Rule<'s>> {
    let keys_max = keys_max(homes);
    snapshot.listeners.iter().filter_map(move |listener| {
        let window = listener.tls.as_ref()?.handshake_rate.as_ref()?;
        let windows = std::slice::from_ref(window);
        let number = number(homes, &listener.name);
        Some(Rule { number, windows, quota: None, keys_max, shared: None })
    })
}

fn keys_max(homes: &Homes) -> usize {
    share(ADDRESSES_MAX * homes.workers(), homes)
}

/// Unlike that of any limit of routes, whose names are hashed alone.
fn number(homes: &Homes, listener: &str) -> u64 {
    homes.random.hash_one(("handshakes", listener))
}

/// Whether a client at `ip` may begin a handshake now. Where the listener has been removed
/// meanwhile, the few that are on their way may.
pub async fn may_begin(worker: &Worker, door: &Door, ip: IpAddr) -> bool {
    let number = number(&worker.homes, &door.rule.borrow().name);
    let snapshot = worker.snapshot();
    let Some(state) = snapshot.rate_limits.find(number) else { return true };
    let mut key = Key::of(&worker.homes.random, number);
    key.client(Some(ip.to_canonical()));
    let (key, cost, alone) = (key.finish(), 1, &worker.metrics.tls_alone);
    match decide(worker, state, alone, (key, cost)) {
        Decided::Now(result) => result.is_ok(),
        Decided::Later(ticket) => {
            worker.metrics.tls_waits.count();
            let state: &LimitState = state;
            Waiting { worker, state, alone, shared: None, key, cost, ticket }.result().await.is_ok()
        }
    }
}

/// Counts addresses that had to go.
pub(super) fn measure(snapshot: &Generation) {
    for state in &snapshot.rate_limits.handshakes {
        let forgotten = state.buckets.borrow().forgotten();
        let counted = state.forgotten.replace(forgotten);
        snapshot.series.worker.tls_addresses_forgotten.add(forgotten.saturating_sub(counted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::{Now, Seeds, Window};

    #[test]
    fn a_flood_from_many_addresses_takes_bounded_memory() {
        for workers in [1, 4] {
            let homes = Homes::new(workers, Seeds::default()).expect("eventfds");
            let windows = [Window::new(20, 1_000_000_000, 50)];
            let (keys_max, windows) = (keys_max(&homes), &windows[..]);
            let rule = Rule { number: 7, windows, quota: None, keys_max, shared: None };
            let state = LimitState::new(&rule, 0);
            let now = Now { unix_ns: 1, ..Now::default() };
            for n in 0..200_000u32 {
                let mut key = Key::of(&homes.random, rule.number);
                key.client(Some(IpAddr::from(n.to_be_bytes())));
                assert!(state.buckets.borrow_mut().take(key.finish(), 1, now).is_ok());
            }
            let buckets = state.buckets.borrow();
            let (keys, bytes) = (buckets.keys(), buckets.bytes());
            assert!(keys <= keys_max && keys >= ADDRESSES_MAX / 2, "{keys} addresses");
            assert!(bytes <= 1 << 20, "{bytes} bytes");
            assert!(buckets.forgotten() > 100_000, "{}", buckets.forgotten());
        }
    }
}
