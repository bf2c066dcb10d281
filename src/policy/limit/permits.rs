//! How many requests of a key are in progress, and who waits for one of them to end.
//!
//! A key has its permits at its home alone: what is granted is counted there until it comes back.
//! There are no leases, so that none lies idle on one worker while another one refuses.
//!
//! Invariants: no more permits of a key are out than its limit was when the last one was granted.
//! Whoever came first is served first. A key of which nothing is out and for which nobody waits
//! takes no memory; so all keys together are bounded by the requests in progress.

use std::collections::VecDeque;

use ahash::AHashMap;

/// Who holds permits: a worker, and how often it was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub worker: u32,
    pub life: u32,
}

/// The permits of one limit. `T` tells requests that wait apart.
#[derive(Debug)]
pub struct Permits<T> {
    keys: AHashMap<u64, Slot<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    /// With how many each holds; none of them 0.
    held: Vec<(Holder, u32)>,
    waiting: VecDeque<(Holder, T)>,
}

impl<T> Default for Permits<T> {
    fn default() -> Permits<T> {
        Permits { keys: AHashMap::default() }
    }
}

impl<T> Slot<T> {
    fn used(&self) -> u32 {
        self.held.iter().map(|(_, count)| count).sum()
    }

    fn hold(&mut self, holder: Holder) {
        match self.held.iter_mut().find(|(own, _)| *own == holder) {
            Some((_, count)) => *count += 1,
            None => self.held.push((holder, 1)),
        }
    }

    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }
}

impl<T: PartialEq> Permits<T> {
    /// Takes a permit, where there is one and nobody waits for it.
    pub fn take(&mut self, key: u64, limit: u32, holder: Holder) -> bool {
        let slot = self.slot(key);
        let is_free = slot.waiting.is_empty() && slot.used() < limit;
        if is_free {
            slot.hold(holder);
        } else if slot.is_idle() {
            self.keys.remove(&key);
        }
        is_free
    }

    /// Waits for a permit, unless `max` do already.
    pub fn wait(&mut self, key: u64, max: u32, holder: Holder, who: T) -> bool {
        let slot = self.slot(key);
        let has_room = slot.waiting.len() < max as usize;
        if has_room {
            slot.waiting.push_back((holder, who));
        } else if slot.is_idle() {
            self.keys.remove(&key);
        }
        has_room
    }

    /// Gives a permit back. One that this holder does not have is not counted.
    pub fn give(&mut self, key: u64, holder: Holder) {
        let Some(slot) = self.keys.get_mut(&key) else { return };
        if let Some(at) = slot.held.iter().position(|(own, _)| *own == holder) {
            slot.held[at].1 -= 1;
            if slot.held[at].1 == 0 {
                slot.held.swap_remove(at);
            }
        }
        if slot.is_idle() {
            self.keys.remove(&key);
        }
    }

    /// Whoever waits longest and may have a permit now, which is counted.
    pub fn next(&mut self, key: u64, limit: u32) -> Option<(Holder, T)> {
        let slot = self.keys.get_mut(&key).filter(|slot| slot.used() < limit)?;
        let (holder, who) = slot.waiting.pop_front()?;
        slot.hold(holder);
        Some((holder, who))
    }

    /// Somebody waits no longer. Holders may have the same name for theirs.
    pub fn leave(&mut self, key: u64, holder: Holder, who: &T) {
        let Some(slot) = self.keys.get_mut(&key) else { return };
        slot.waiting.retain(|(of, own)| *of != holder || own != who);
        if slot.is_idle() {
            self.keys.remove(&key);
        }
    }

    /// Holders that are gone have nothing any more. Answers the keys of which they had something.
    pub fn forget(&mut self, is_gone: impl Fn(Holder) -> bool) -> Vec<u64> {
        let mut keys = Vec::new();
        self.keys.retain(|key, slot| {
            let before = slot.held.len() + slot.waiting.len();
            slot.held.retain(|(holder, _)| !is_gone(*holder));
            slot.waiting.retain(|(holder, _)| !is_gone(*holder));
            if slot.held.len() + slot.waiting.len() < before {
                keys.push(*key);
            }
            !slot.is_idle()
        });
        keys
    }

    /// Keys of which something is out, or for which somebody waits.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.keys.keys().copied()
    }

    /// Permits that are out, and requests that wait, of all keys.
    pub fn count(&self) -> (u64, u64) {
        let all = self.keys.values();
        let counts = all.map(|slot| (u64::from(slot.used()), slot.waiting.len() as u64));
        counts.fold((0, 0), |(used, waiting), (more, wait)| (used + more, waiting + wait))
    }

    fn slot(&mut self, key: u64) -> &mut Slot<T> {
        let empty = || Slot { held: Vec::new(), waiting: VecDeque::new() };
        self.keys.entry(key).or_insert_with(empty)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn holder(worker: u32, life: u32) -> Holder {
        Holder { worker, life }
    }

    #[test]
    fn whoever_came_first_is_served_first() {
        let mut permits = Permits::default();
        let (one, two) = (holder(1, 1), holder(2, 1));
        assert!(permits.take(7, 2, one) && permits.take(7, 2, two) && !permits.take(7, 2, one));
        assert!(permits.take(8, 1, one), "another key");
        assert!(permits.wait(7, 2, two, 'a') && permits.wait(7, 2, one, 'b'));
        assert!(!permits.wait(7, 2, one, 'c'), "no room");
        assert_eq!(permits.next(7, 2), None, "nothing is free");
        permits.give(7, one);
        assert!(!permits.take(7, 2, one), "others wait");
        assert_eq!(permits.next(7, 2), Some((two, 'a')));
        // A lower limit lets nobody in, a higher one does.
        permits.give(7, two);
        assert_eq!(permits.next(7, 1), None);
        assert_eq!(permits.next(7, 3), Some((one, 'b')));
        permits.give(7, one);
        permits.give(7, two);
        permits.give(7, two);
        permits.give(8, one);
        assert_eq!((permits.keys().count(), permits.count()), (0, (0, 0)));
    }

    #[test]
    fn who_is_gone_holds_nothing() {
        let mut permits = Permits::default();
        for life in 1..4 {
            assert!(permits.take(7, 3, holder(1, life)));
        }
        assert!(permits.wait(7, 9, holder(1, 1), 'a') && permits.wait(7, 9, holder(2, 1), 'b'));
        assert_eq!(permits.forget(|holder| holder.worker == 1 && holder.life < 3), [7]);
        assert_eq!(permits.count(), (1, 1));
        assert_eq!(permits.next(7, 3), Some((holder(2, 1), 'b')));
        // What it gives back late is not taken from anybody else.
        permits.give(7, holder(1, 1));
        assert_eq!(permits.count(), (2, 0));
        assert_eq!(permits.forget(|_| true), [7]);
        assert_eq!(permits.keys().count(), 0);
    }

    #[test]
    fn two_workers_may_have_the_same_name_for_who_waits() {
        let mut permits = Permits::default();
        let (one, two) = (holder(1, 1), holder(2, 1));
        assert!(permits.take(7, 1, one));
        assert!(permits.wait(7, 9, one, 'a') && permits.wait(7, 9, two, 'a'));
        permits.leave(7, one, &'a');
        permits.give(7, one);
        assert_eq!(permits.next(7, 1), Some((two, 'a')));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Request { key: u64, worker: u32 },
        End(usize),
        Vanish(usize),
        Die { worker: u32 },
        Limit(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..3u64, 0..3u32).prop_map(|(key, worker)| Step::Request { key, worker }),
            3 => (0..30usize).prop_map(Step::End),
            2 => (0..30usize).prop_map(Step::Vanish),
            1 => (0..3u32).prop_map(|worker| Step::Die { worker }),
            1 => (1..6u32).prop_map(Step::Limit),
        ];
        prop::collection::vec(step, 0..300)
    }

    /// Requests that hold a permit, and those that wait, by their number.
    #[derive(Default)]
    struct Seen {
        running: BTreeMap<u32, (u64, Holder)>,
        waiting: BTreeMap<u32, (u64, Holder)>,
    }

    impl Seen {
        /// Lets those in who may be.
        fn serve(&mut self, permits: &mut Permits<u32>, key: u64, limit: u32) {
            while let Some((holder, number)) = permits.next(key, limit) {
                let oldest = self.waiting.iter().find(|(_, (own, _))| *own == key);
                assert_eq!(oldest.map(|(number, _)| *number), Some(number));
                assert_eq!(self.waiting.remove(&number), Some((key, holder)));
                self.running.insert(number, (key, holder));
            }
        }
    }

    proptest! {
        /// Whatever ends requests, in whatever order, and whoever dies: never more than may run,
        /// and when all are over nothing is out.
        #[test]
        fn the_count_returns_to_zero(steps in steps(), queue in 0..5u32) {
            let mut permits: Permits<u32> = Permits::default();
            let mut seen = Seen::default();
            let (mut lives, mut limit, mut number) = ([1u32; 3], 2, 0u32);
            for step in steps {
                match step {
                    Step::Request { key, worker } => {
                        number += 1;
                        let holder = holder(worker, lives[worker as usize]);
                        if permits.take(key, limit, holder) {
                            seen.running.insert(number, (key, holder));
                            let running = seen.running.values().filter(|(own, _)| *own == key);
                            prop_assert!(running.count() as u32 <= limit);
                        } else if permits.wait(key, queue, holder, number) {
                            seen.waiting.insert(number, (key, holder));
                        }
                    }
                    Step::End(at) => {
                        let found = seen.running.keys().nth(at).copied();
                        if let Some((key, holder)) = found.and_then(|n| seen.running.remove(&n)) {
                            permits.give(key, holder);
                            seen.serve(&mut permits, key, limit);
                        }
                    }
                    Step::Vanish(at) => {
                        if let Some((number, (key, holder))) =
                            seen.waiting.iter().nth(at).map(|(n, of)| (*n, *of))
                        {
                            seen.waiting.remove(&number);
                            permits.leave(key, holder, &number);
                        }
                    }
                    Step::Die { worker } => {
                        let life = lives[worker as usize];
                        lives[worker as usize] += 1;
                        let is_gone =
                            |holder: Holder| holder.worker == worker && holder.life == life;
                        let keys = permits.forget(is_gone);
                        seen.running.retain(|_, (_, holder)| !is_gone(*holder));
                        seen.waiting.retain(|_, (_, holder)| !is_gone(*holder));
                        keys.into_iter().for_each(|key| seen.serve(&mut permits, key, limit));
                    }
                    Step::Limit(next) => {
                        limit = next;
                        (0..3).for_each(|key| seen.serve(&mut permits, key, limit));
                    }
                }
                let counts = (seen.running.len() as u64, seen.waiting.len() as u64);
                prop_assert_eq!(permits.count(), counts);
            }
            for (key, holder) in std::mem::take(&mut seen.running).into_values() {
                permits.give(key, holder);
                seen.serve(&mut permits, key, limit);
                let running = std::mem::take(&mut seen.running);
                running.into_values().for_each(|(key, holder)| permits.give(key, holder));
            }
            for (number, (key, holder)) in seen.waiting {
                permits.leave(key, holder, &number);
            }
            prop_assert_eq!((permits.count(), permits.keys().count()), ((0, 0), 0));
        }
    }
}
