//! How many client connections there may be: per worker exactly, per process by leases.
//!
//! The process's places are one atomic number. A worker takes places from it in batches and gives
//! surplus back, so that most connections touch nothing shared. Near the maximum a worker may be
//! refused while another holds a few unused places: at most one batch each.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// Places of the whole process that no worker has taken.
#[derive(Clone)]
pub struct Places(Arc<AtomicU32>);

impl Places {
    pub fn new(places: u32) -> Places {
        Places(Arc::new(AtomicU32::new(places)))
    }

    fn take(&self, wanted: u32) -> u32 {
        let mut got = 0;
        // Cannot fail: the closure always answers a value.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
            got = wanted.min(free);
            Some(free - got)
        });
        got
    }

    fn give(&self, places: u32) {
        self.0.fetch_add(places, Ordering::Relaxed);
    }
}

/// One worker's count of open client connections.
pub struct Clients {
    open: Cell<u32>,
    open_max: u32,
    /// Places taken from the process and not in use.
    spare: Cell<u32>,
    batch: u32,
    places: Places,
}

/// One open connection; dropping it frees the place.
pub struct Place(Rc<Clients>);

impl Clients {
    /// `open_max` for this worker; `process_max` for all `workers` together, whose `places` they
    /// share.
    pub fn new(open_max: u32, process_max: u32, workers: usize, places: Places) -> Rc<Clients> {
        let batch = (process_max / (32 * workers.max(1) as u32)).clamp(1, 64);
        Rc::new(Clients { open: Cell::new(0), open_max, spare: Cell::new(0), batch, places })
    }

    /// A place for one more connection, if there is one.
    pub fn enter(self: &Rc<Self>) -> Option<Place> {
        if self.open.get() >= self.open_max {
            return None;
        }
        if self.spare.get() == 0 {
            self.spare.set(self.places.take(self.batch));
        }
        self.spare.set(self.spare.get().checked_sub(1)?);
        self.open.set(self.open.get() + 1);
        Some(Place(self.clone()))
    }

    /// Open connections.
    pub fn open(&self) -> u32 {
        self.open.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let clients = &self.0;
        clients.open.set(clients.open.get() - 1);
        clients.spare.set(clients.spare.get() + 1);
        if clients.spare.get() >= 2 * clients.batch {
            clients.spare.set(clients.spare.get() - clients.batch);
            clients.places.give(clients.batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_never_exceeds_its_own_maximum() {
        let clients = Clients::new(3, 1000, 2, Places::new(1000));
        let places: Vec<_> = (0..5).filter_map(|_| clients.enter()).collect();
        assert_eq!((places.len(), clients.open()), (3, 3));
        drop(places);
        assert_eq!(clients.open(), 0);
        assert!(clients.enter().is_some());
    }

    #[test]
    fn workers_together_never_exceed_the_process() {
        let places = Places::new(100);
        let a = Clients::new(1000, 100, 2, places.clone());
        let b = Clients::new(1000, 100, 2, places);
        let in_a: Vec<_> = std::iter::from_fn(|| a.enter()).collect();
        assert_eq!(in_a.len(), 100);
        assert!(b.enter().is_none());
        drop(in_a);
        let in_b = std::iter::from_fn(|| b.enter()).collect::<Vec<_>>().len();
        assert!((98..=100).contains(&in_b), "a keeps at most two batches of one: {in_b}");
    }
}
