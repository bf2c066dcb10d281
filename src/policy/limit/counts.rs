//! What the keys whose home a worker is have used of their quotas, in the period that they are in.
//!
//! The same questions are answered as by [`Buckets`](super::Buckets), for a quota that comes back
//! as a whole when the next period begins. What is counted has to outlive the process, so a table
//! knows which keys have changed since somebody last asked ([`Counts::changes`]).
//!
//! Invariants, for every key:
//!
//! - In one period no more is taken than the quota, leases included. What was taken in a period
//!   that is over is given back to none.
//! - A clock that is set back refills nothing.
//!
//! **Bounds**: a part of the table has at most its share of `keys_max`; when it has, keys go that
//! are in no period any more, else the quarter that has used least, which is counted. 17 bytes for
//! a key, in a table that is 7/16 to 7/8 full once it has grown, and 8 while it is to be told.

use hashbrown::{HashMap, HashTable};

use super::{Ask, Grant, Left, Moment, Period};

/// Keys of a part that has grown to its end, at most.
const PART_KEYS: usize = 2048;
/// Keys of which a worker remembers what it has decided alone.
const ALONE_MAX: usize = 4096;
/// A shard that is told that nothing is left does not ask again for so long.
const EMPTY_NS: u64 = 5_000_000;
/// In [`Count::period`]: it has changed since somebody last asked.
const CHANGED: u32 = 1 << 31;

/// When something is asked: in nanoseconds since 1970, and the period that this is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub unix_ns: Moment,
    pub period: Period,
    /// When it is over, in nanoseconds since 1970.
    pub end_ns: Moment,
}

/// What one key has used in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub key: u64,
    pub period: Period,
    pub used: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// With [`CHANGED`].
    period: u32,
    used: u32,
}

impl Count {
    fn period(self) -> Period {
        self.period & !CHANGED
    }

    /// A new period begins with nothing used. One that comes before the period of the count is a
    /// clock's mistake: what was used counts on, in the later one if that is the next.
    fn turn(&mut self, period: Period) {
        let own = self.period();
        if own == period {
            return;
        }
        if own < period {
            self.used = 0;
        }
        if own < period || own > period + 1 {
            self.period = period | self.period & CHANGED;
        }
    }
}

/// The counts of one quota.
#[derive(Debug)]
pub struct Counts {
    quota: u32,
    parts: Box<[HashTable<(u64, Count)>]>,
    keys_max: usize,
    part_max: usize,
    changed: Vec<u64>,
    forgotten: u64,
    /// Keys of other homes that did not answer.
    alone: HashMap<u64, Count, ahash::RandomState>,
}

impl Counts {
    pub fn new(quota: u32, keys_max: usize) -> Counts {
        let parts = (keys_max / PART_KEYS).next_power_of_two();
        Counts {
            quota,
            parts: (0..parts).map(|_| HashTable::new()).collect(),
            keys_max,
            part_max: keys_max.div_ceil(parts).max(8),
            changed: Vec::new(),
            forgotten: 0,
            alone: HashMap::default(),
        }
    }

    /// Takes for a request, and says what is left; else when the next period begins.
    #[inline]
    pub fn take(&mut self, key: u64, tokens: u32, now: Now) -> Result<Left, Moment> {
        let quota = self.quota;
        let (count, changed) = self.at(key, now);
        match count.used.checked_add(tokens) {
            Some(used) if used <= quota => {
                set(key, count, changed, used);
                Ok(left(quota, used, now))
            }
            _ => Err(now.end_ns),
        }
    }

    /// Takes for a key whose home is another worker, which does not answer: this worker's share of
    /// the quota, and at least one request's.
    pub fn take_alone(
        &mut self,
        key: u64,
        tokens: u32,
        workers: u32,
        now: Now,
    ) -> Result<Left, Moment> {
        if self.alone.len() >= ALONE_MAX {
            self.alone.retain(|_, count| count.period() >= now.period);
        }
        if self.alone.len() >= ALONE_MAX && !self.alone.contains_key(&key) {
            return Err(now.end_ns);
        }
        let share = (self.quota / workers.max(1)).max(tokens);
        let count = self.alone.entry(key).or_default();
        count.turn(now.period);
        match count.used.checked_add(tokens) {
            Some(used) if used <= share => {
                count.used = used;
                Ok(Left { tokens: 0, ..left(self.quota, used, now) })
            }
            _ => Err(now.end_ns),
        }
    }

    /// Answers a shard, as [`Buckets::ask`](super::Buckets::ask) does.
    pub fn ask(&mut self, ask: Ask, workers: u32, now: Now) -> Grant {
        let quota = self.quota;
        let (count, changed) = self.at(ask.key, now);
        let have = quota.saturating_sub(count.used);
        let spare = (have / (2 * workers.max(1))).min(ask.used.saturating_mul(2));
        let tokens = if have < ask.least { 0 } else { ask.want.max(spare).min(have) };
        if tokens > 0 {
            set(ask.key, count, changed, count.used + tokens);
        }
        let is_empty = tokens < ask.want || have < ask.least.max(1);
        Grant {
            key: ask.key,
            tokens,
            empty_until: if is_empty { now.unix_ns + EMPTY_NS } else { 0 },
            left: left(quota, count.used, now),
            period: now.period,
        }
    }

    /// Puts back what was taken in `period` and not used.
    pub fn give(&mut self, key: u64, tokens: u32, period: Period) {
        self.change(key, period, |used| used.saturating_sub(tokens));
    }

    /// Takes in `period`, whether it is there or not.
    pub fn charge(&mut self, key: u64, tokens: u32, period: Period) {
        self.change(key, period, |used| used.saturating_add(tokens));
    }

    fn change(&mut self, key: u64, period: Period, change: impl FnOnce(u32) -> u32) {
        // What is said of a period that is over must not begin it again.
        if self.find(key).is_some_and(|count| count.period() > period) {
            return;
        }
        let (count, changed) = self.at(key, Now { period, ..Now::default() });
        let used = change(count.used);
        set(key, count, changed, used);
    }

    /// From now on a key has used so much.
    pub fn set(&mut self, key: u64, used: u32, now: Now) {
        let (count, changed) = self.at(key, now);
        set(key, count, changed, used);
    }

    fn find(&self, key: u64) -> Option<Count> {
        let part = &self.parts[(key >> 40) as usize & (self.parts.len() - 1)];
        part.find(key, |(own, _)| *own == key).map(|(_, count)| *count)
    }

    /// What was known before this table was made. It need not be told again.
    pub fn restore(&mut self, known: Used) {
        let now = Now { period: known.period, ..Now::default() };
        let (count, _) = self.at(known.key, now);
        count.used = known.used;
    }

    /// At most so many keys that have changed since they were last told.
    pub fn changes(&mut self, max: usize) -> Vec<Used> {
        let from = self.changed.len().saturating_sub(max);
        let mut all = Vec::with_capacity(self.changed.len() - from);
        for key in self.changed.drain(from..) {
            let part = (key >> 40) as usize & (self.parts.len() - 1);
            // One that was forgotten meanwhile is nobody's concern.
            if let Some((_, count)) = self.parts[part].find_mut(key, |(own, _)| *own == key) {
                count.period &= !CHANGED;
                all.push(Used { key, period: count.period, used: count.used });
            }
        }
        if self.changed.is_empty() {
            self.changed.shrink_to(PART_KEYS);
        }
        all
    }

    /// Goes on with another quota. What was used stays used.
    pub fn reconfigure(&mut self, quota: u32, keys_max: usize) {
        self.quota = quota;
        if self.keys_max == keys_max {
            return;
        }
        let mut next = Counts::new(quota, keys_max);
        next.forgotten = self.forgotten;
        for (key, count) in self.parts.iter().flat_map(|part| part.iter()) {
            let (own, changed) = next.at(*key, Now { period: count.period(), ..Now::default() });
            set(*key, own, changed, count.used);
        }
        *self = next;
    }

    pub fn keys(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }

    /// Memory of the table.
    pub fn bytes(&self) -> usize {
        let parts: usize = self.parts.iter().map(HashTable::allocation_size).sum();
        parts
            + self.parts.len() * size_of::<HashTable<(u64, Count)>>()
            + 8 * self.changed.capacity()
    }

    /// Keys that had to go although their period was not over.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Keys that come and go are noted each time: note those that are there.
    #[cold]
    fn note_changed(&mut self) {
        let all = self.parts.iter().flat_map(|part| part.iter());
        let changed = all.filter(|(_, count)| count.period & CHANGED != 0).map(|(key, _)| *key);
        self.changed = changed.collect();
    }

    /// The count of `key` in the period, and where it is noted that it changes.
    #[inline]
    fn at(&mut self, key: u64, now: Now) -> (&mut Count, &mut Vec<u64>) {
        let at = (key >> 40) as usize & (self.parts.len() - 1);
        let part = &mut self.parts[at];
        if part.len() >= self.part_max && part.find(key, |(own, _)| *own == key).is_none() {
            self.forgotten += make_room(part, self.part_max, now.period);
            if self.changed.len() > 2 * self.keys_max {
                self.note_changed();
            }
        }
        let part = &mut self.parts[at];
        let entry = part.entry(key, |(own, _)| *own == key, |(own, _)| *own);
        let new = (key, Count { period: now.period, used: 0 });
        let (_, count) = entry.or_insert(new).into_mut();
        count.turn(now.period);
        (count, &mut self.changed)
    }
}

#[inline]
fn set(key: u64, count: &mut Count, changed: &mut Vec<u64>, used: u32) {
    count.used = used;
    if count.period & CHANGED == 0 {
        count.period |= CHANGED;
        changed.push(key);
    }
}

fn left(quota: u32, used: u32, now: Now) -> Left {
    let full_in_ns = now.end_ns.saturating_sub(now.unix_ns);
    Left { tokens: quota.saturating_sub(used), full_in_ns, ..Left::default() }
}

/// Drops what is over, and else what has used least. Answers how many had to go that were not over.
#[cold]
fn make_room(part: &mut HashTable<(u64, Count)>, keys_max: usize, period: Period) -> u64 {
    part.retain(|(_, count)| count.period() >= period && count.used > 0);
    if part.len() < keys_max / 4 * 3 {
        return 0;
    }
    let mut used: Vec<u32> = part.iter().map(|(_, count)| count.used).collect();
    let goes = (used.len() / 4).clamp(1, used.len());
    let (_, most, _) = used.select_nth_unstable(goes - 1);
    let (most, mut left) = (*most, goes);
    part.retain(|(_, count)| {
        let stays = count.used > most || left == 0;
        left -= usize::from(!stays);
        stays
    });
    (goes - left) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(period: Period) -> Now {
        let unix_ns = u64::from(period) * 1000;
        Now { unix_ns, period, end_ns: unix_ns + 1000 }
    }

    fn spread(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    }

    #[test]
    fn a_quota_comes_back_with_the_next_period_and_not_before() {
        let mut counts = Counts::new(3, 1000);
        // Period, tokens, what is left; then what was known of the key.
        for (period, tokens, left) in [
            (5, 2, Some(1)),
            (5, 2, None),
            (5, 1, Some(0)),
            (5, 1, None),
            (6, 1, Some(2)),
            // The clock is set back by a little: the period that has begun goes on.
            (5, 2, Some(0)),
            (5, 1, None),
            (6, 1, None),
            (7, 3, Some(0)),
            // And by much: what was used counts in the earlier one.
            (2, 1, None),
            (3, 1, Some(2)),
        ] {
            let took = counts.take(1, tokens, now(period)).map(|left| left.tokens).ok();
            assert_eq!(took, left, "{period} {tokens}");
        }
        assert_eq!(counts.take(2, 4, now(5)), Err(6000), "more than there is, until its end");
    }

    #[test]
    fn what_belongs_to_a_period_that_is_over_changes_nothing() {
        let mut counts = Counts::new(10, 1000);
        assert!(counts.take(1, 6, now(5)).is_ok());
        assert!(counts.take(1, 4, now(6)).is_ok());
        counts.give(1, 4, 5);
        counts.charge(1, 4, 5);
        assert_eq!(counts.take(1, 1, now(6)).map(|left| left.tokens), Ok(5));
        counts.give(1, 2, 6);
        assert_eq!(counts.take(1, 1, now(6)).map(|left| left.tokens), Ok(6));
        counts.charge(1, 100, 6);
        assert_eq!(counts.take(1, 1, now(6)), Err(7000));
        assert!(counts.take(1, 10, now(7)).is_ok(), "nothing is owed beyond the period");
    }

    #[test]
    fn what_has_changed_is_told_once() {
        let mut counts = Counts::new(100, 100_000);
        for n in 0..1000 {
            assert!(counts.take(spread(n), 1 + n as u32 % 3, now(5)).is_ok());
            assert!(counts.take(spread(n), 1, now(5)).is_ok());
        }
        let mut told = counts.changes(700);
        assert_eq!(told.len(), 700);
        told.extend(counts.changes(700));
        assert_eq!((told.len(), counts.changes(700).len()), (1000, 0));
        let of_seven = told.iter().find(|used| used.key == spread(7)).expect("it is there");
        assert_eq!((of_seven.period, of_seven.used), (5, 3));
        counts.set(spread(7), 50, now(5));
        assert_eq!(counts.changes(700), [Used { key: spread(7), period: 5, used: 50 }]);
        // The next one begins where this ends.
        let mut next = Counts::new(100, 100_000);
        told.iter().for_each(|used| next.restore(*used));
        assert_eq!((next.keys(), next.changes(9).len()), (1000, 0));
        assert_eq!(next.take(spread(8), 1, now(5)).map(|left| left.tokens), Ok(95));
        assert_eq!(next.take(spread(9), 1, now(6)).map(|left| left.tokens), Ok(99));
    }

    #[test]
    fn those_go_that_are_over_and_then_those_that_have_used_least() {
        let mut counts = Counts::new(100, 1000);
        for n in 0..5000 {
            assert!(counts.take(spread(n), 1, now(n as u32)).is_ok());
        }
        assert_eq!(counts.forgotten(), 0);
        for n in 0..100 {
            assert!(counts.take(spread(n), 100, now(9000)).is_ok());
        }
        for n in 100..6000 {
            assert!(counts.take(spread(n), 1, now(9000)).is_ok());
        }
        assert!(counts.keys() <= 1000 && counts.forgotten() > 4000, "{}", counts.forgotten());
        for n in 0..100 {
            assert!(counts.take(spread(n), 1, now(9000)).is_err(), "{n}");
        }
        assert!(counts.changed.len() <= 2001, "of keys that come and go nothing piles up");
        let _ = counts.changes(usize::MAX);
        let each = counts.bytes() / counts.keys();
        assert!(each < 80, "{each}");
    }

    #[test]
    fn another_quota_refills_nothing() {
        let mut counts = Counts::new(10, 1000);
        assert!(counts.take(1, 8, now(5)).is_ok());
        counts.reconfigure(20, 1000);
        assert_eq!(counts.take(1, 1, now(5)).map(|left| left.tokens), Ok(11));
        counts.reconfigure(5, 50_000);
        assert!(counts.take(1, 1, now(5)).is_err());
        assert!(counts.take(2, 1, now(5)).is_ok());
        assert_eq!(counts.changes(9).len(), 2);
    }

    #[test]
    fn a_worker_alone_has_its_share() {
        let mut counts = Counts::new(100, 1000);
        let passed = (0..80).filter(|_| counts.take_alone(7, 1, 4, now(5)).is_ok()).count();
        assert_eq!(passed, 25);
        assert!(counts.take_alone(7, 1, 4, now(6)).is_ok());
        assert!(counts.take_alone(8, 60, 4, now(6)).is_ok(), "one request always");
        for n in 0..3 * ALONE_MAX as u64 {
            let _ = counts.take_alone(spread(n), 1, 4, now(6));
        }
        assert!(counts.alone.len() <= ALONE_MAX && counts.keys() == 0);
    }
}
