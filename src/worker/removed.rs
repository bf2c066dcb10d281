//! What becomes of the connections of a listener that a reload has removed: an idle one is closed
//! after the time that a drain leaves it, so that a request already on its way is still answered.
//! Exchanges end by themselves: their responses say `Connection: close` ([`Door::is_closing`]).
//! Tunnels, and responses whose head has said otherwise, may last; so it is looked again.

use std::{rc::Rc, time::Duration};

use super::{Worker, clock, door::Door};
use crate::config::snapshot::ListenerRule;

/// How often is looked, after the first time, for connections that have become idle since.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A door for a connection that was on its way to this worker while its listener went.
pub fn door(worker: &Rc<Worker>, rule: &ListenerRule) -> Rc<Door> {
    let door = Rc::new(Door::new(rule, &worker.snapshot()));
    door.is_closing.set(true);
    monoio::spawn(close_idle(worker.clone(), door.clone()));
    door
}

/// Closes the idle connections that came in by `door`, until none is left.
pub async fn close_idle(worker: Rc<Worker>, door: Rc<Door>) {
    let first_ms = worker.snapshot().runtime.drain_idle_ms;
    monoio::time::sleep(Duration::from_millis(first_ms)).await;
    // Whoever still accepts, and each connection, has one too.
    while Rc::strong_count(&door) > 1 {
        let idle_ms = worker.snapshot().runtime.drain_idle_ms;
        let since_ms = clock::refresh().saturating_sub(idle_ms);
        worker.roster.close_idle(&door, since_ms);
        monoio::time::sleep(LOOK_EVERY).await;
    }
}
