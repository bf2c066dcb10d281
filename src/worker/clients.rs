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
        atomic::{AtomicI64, Ordering},
    },
};

/// Places of the whole process that no worker has taken; negative while more are taken than there
/// should be, after the maximum was lowered.
#[derive(Clone)]
pub struct Places(Arc<AtomicI64>);

impl Places {
    pub fn new(places: u32) -> Places {
        Places(Arc::new(AtomicI64::new(places.into())))
    }

    /// The process's maximum changed.
    pub fn resize(&self, before: u32, now: u32) {
        self.0.fetch_add(i64::from(now) - i64::from(before), Ordering::Relaxed);
    }

    fn take(&self, wanted: u32) -> u32 {
        let mut got = 0;
        // Cannot fail: the closure always answers a value.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
            got = i64::from(wanted).min(free.max(0));
            Some(free - got)
        });
        got as u32
    }

    /// More are taken than there should be. Nearly never changes, so looking costs nothing shared.
    fn are_owed(&self) -> bool {
        self.0.load(Ordering::Relaxed) < 0
    }

    fn give(&self, places: u32) {
        self.0.fetch_add(places.into(), Ordering::Relaxed);
    }
}

/// One worker's count of open client connections.
pub struct Clients {
    open: Cell<u32>,
    open_max: Cell<u32>,
    /// Places taken from the process and not in use.
    spare: Cell<u32>,
    batch: Cell<u32>,
    workers: u32,
    places: Places,
}

/// One open connection; dropping it frees the place.
pub struct Place(Rc<Clients>);

impl Clients {
    /// `open_max` for this worker; `process_max` for all `workers` together, whose `places` they
    /// share.
    pub fn new(open_max: u32, process_max: u32, workers: usize, places: Places) -> Rc<Clients> {
        let clients = Clients {
            open: Cell::new(0),
            open_max: Cell::new(0),
            spare: Cell::new(0),
            batch: Cell::new(1),
            workers: workers.max(1) as u32,
            places,
        };
        clients.limit(open_max, process_max);
        Rc::new(clients)
    }

    /// The maxima are these from now on. Connections beyond them stay.
    pub fn limit(&self, open_max: u32, process_max: u32) {
        self.open_max.set(open_max);
        self.batch.set((process_max / (32 * self.workers)).clamp(1, 64));
        self.places.give(self.spare.take());
    }

    /// A place for one more connection, if there is one.
    pub fn enter(self: &Rc<Self>) -> Option<Place> {
        if self.open.get() >= self.open_max.get() {
            return None;
        }
        if self.spare.get() == 0 {
            self.spare.set(self.places.take(self.batch.get()));
        }
        self.spare.set(self.spare.get().checked_sub(1)?);
        self.open.set(self.open.get() + 1);
        Some(Place(self.clone()))
    }

    /// The worker is lost, and its connections with it: their places are free.
    pub fn abandon(&self) {
        self.places.give(self.open.get() + self.spare.take());
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
        let (spare, batch) = (clients.spare.get(), clients.batch.get());
        if clients.places.are_owed() {
            clients.places.give(clients.spare.take());
        } else if spare >= 2 * batch {
            clients.spare.set(spare - batch);
            clients.places.give(batch);
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
    fn a_maximum_can_change_while_places_are_taken() {
        let places = Places::new(64);
        let clients = Clients::new(1000, 64, 1, places.clone());
        let mut taken: Vec<_> = std::iter::from_fn(|| clients.enter()).collect();
        assert_eq!(taken.len(), 64);
        places.resize(64, 10);
        clients.limit(1000, 10);
        taken.truncate(20);
        assert!(clients.enter().is_none(), "20 are open, of 10");
        taken.truncate(5);
        let more = std::iter::from_fn(|| clients.enter()).collect::<Vec<_>>();
        assert_eq!(taken.len() + more.len(), 10);
        places.resize(10, 12);
        assert_eq!(std::iter::from_fn(|| clients.enter()).collect::<Vec<_>>().len(), 2);
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
