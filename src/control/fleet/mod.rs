//! Limits that gateways share: connections to the Redis servers that hold their buckets, kept by a
//! thread of its own that is there only once a configuration wants it.
//!
//! It takes what workers ask ([`crate::config::snapshot::redis`]), sends it in batches, and leaves
//! the answers at the homes of the keys. Invariants: a connection stays while the settings of its
//! server stay, whatever else a reload changes; a server that does not answer within its time is
//! said to be lost at once, and is tried again with growing waits; a request waits for it no longer
//! than its section says.

mod bucket;
mod connect;
mod keep;

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use tokio::task::JoinHandle;

use super::aside::{Aside, Wanted};
use crate::{
    config::snapshot::{Redis, Snapshot},
    worker::home::Homes,
};

/// The thread as the main thread sees it.
#[derive(Default)]
pub struct Fleet(Aside<Arc<Redis>>);

impl Fleet {
    /// Follows another configuration. `homes` are the workers' that it is for.
    pub fn follow(&mut self, snapshot: &Snapshot, homes: &Homes) {
        let of_it = || snapshot.redis.iter().cloned().map(Arc::new).collect();
        let homes = homes.clone();
        let work = |wanted| keep_all(wanted, homes);
        self.0.follow(snapshot.generation, of_it, ("fleet", "no limit is shared"), work);
    }
}

/// A server with its task; the settings are those of the last configuration.
type Kept = (Rc<RefCell<Arc<Redis>>>, JoinHandle<()>);

/// One task for each server, for as long as configurations have it with the same settings.
async fn keep_all(mut wanted: Wanted<Arc<Redis>>, homes: Homes) {
    let mut all: HashMap<usize, Kept> = HashMap::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        let number = |redis: &Redis| Arc::as_ptr(&redis.link).addr();
        let stays: Vec<usize> = now.iter().map(|redis| number(redis)).collect();
        for (_, (redis, task)) in all.extract_if(|link, _| !stays.contains(link)) {
            task.abort();
            redis.borrow().link.lost("no configuration has it any more");
        }
        for redis in now.iter() {
            match all.get(&number(redis)) {
                Some((own, _)) => drop(own.replace(redis.clone())),
                None => {
                    let own = Rc::new(RefCell::new(redis.clone()));
                    let task = tokio::task::spawn_local(keep::keep(own.clone(), homes.clone()));
                    all.insert(number(redis), (own, task));
                }
            }
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}
