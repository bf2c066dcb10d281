//! The buckets of the keys whose home a worker is: a compact hash table.
//!
//! A bucket that is full needs no memory: a key that is not there has a full one. So what is idle
//! expires by itself, whenever its part of the table needs room. The table is cut into segments
//! that grow one by one, so that no request pays for moving all keys. **Bounds**: a segment has at
//! most its share of `keys_max`; when it has, and none is idle, the quarter goes whose buckets are
//! nearest to full, which gives away least, and is counted ([`Buckets::forgotten`]). A key takes 8
//! bytes and 8 for each window, in a table that is 5/16 to 7/8 full once it has grown.

use super::{Left, Moment, Period, WINDOWS_MAX, Window};

/// Keys of a segment that has grown to its end, at most.
const SEGMENT_KEYS: usize = 2048;
/// Slots that a segment begins with.
const SLOTS_MIN: usize = 8;
/// A key of this number has no slot.
const NONE: u64 = 0;
/// A shard that is told to refuse is not told so for less than this, where its bucket can take it.
const EMPTY_NS: u64 = 500_000;

/// What a shard asks of a key's home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    pub key: u64,
    /// Tokens that requests wait for; 0 when none waits yet.
    pub want: u32,
    /// What the first of them needs.
    pub least: u32,
    /// What the shard has used since it last asked.
    pub used: u32,
}

/// What the home answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    pub key: u64,
    pub tokens: u32,
    /// There is nothing more before; 0 when there is.
    pub empty_until: Moment,
    /// In the home's buckets.
    pub left: Left,
    /// Of a quota: the period in which the tokens were taken.
    pub period: Period,
}

/// The buckets of one limit.
#[derive(Debug)]
pub struct Buckets {
    windows: Box<[Window]>,
    /// A key that is not there has buckets that were empty then; 0: that are full.
    empty_at: Moment,
    segments: Box<[Segment]>,
    /// Keys of all segments, and of one.
    keys_max: usize,
    segment_max: usize,
    forgotten: u64,
}

/// Slots of a key and its windows' moments, in one open-addressed table.
#[derive(Debug, Default)]
struct Segment {
    words: Box<[u64]>,
    keys: usize,
}

impl Buckets {
    /// At least one window, at most [`WINDOWS_MAX`]. After `empty_at`, unless it is 0, buckets of
    /// keys that are not known fill from empty.
    pub fn new(windows: &[Window], keys_max: usize, empty_at: Moment) -> Buckets {
        let segments = (keys_max / SEGMENT_KEYS).next_power_of_two();
        Buckets {
            windows: windows.iter().take(WINDOWS_MAX).copied().collect(),
            empty_at,
            segments: (0..segments).map(|_| Segment::default()).collect(),
            keys_max,
            segment_max: keys_max.div_ceil(segments).max(SLOTS_MIN),
            forgotten: 0,
        }
    }

    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Takes from the bucket of `key`, and says what is left; else when it has that much.
    #[inline]
    pub fn take(&mut self, key: u64, tokens: u32, now: Moment) -> Result<Left, Moment> {
        let (windows, fulls) = self.at(key, now);
        let mut next = [0; WINDOWS_MAX];
        for ((window, full), next) in windows.iter().zip(&*fulls).zip(&mut next) {
            match window.take(*full, tokens, now) {
                Some(moment) => *next = moment,
                None => return Err(has_at(windows, fulls, tokens)),
            }
        }
        let len = fulls.len();
        fulls.copy_from_slice(&next[..len]);
        Ok(left(windows, fulls, now))
    }

    /// Takes for a key whose home is another worker, which does not answer: from a bucket that
    /// fills at this worker's share of the rate and holds one request.
    pub fn take_alone(
        &mut self,
        key: u64,
        tokens: u32,
        workers: u32,
        now: Moment,
    ) -> Result<Left, Moment> {
        let (windows, fulls) = self.at(key, now);
        // Of a bucket that fills at a part of the rate, everything costs so much more.
        let most = windows.iter().map(|window| window.burst).min().unwrap_or(1);
        let tokens = tokens.saturating_mul(workers).min(most);
        let next = windows.iter().zip(&*fulls).map(|(w, full)| w.take_one(*full, tokens, now));
        if next.clone().any(|moment| moment.is_none()) {
            return Err(has_at(windows, fulls, tokens).max(now + 1));
        }
        let next: [_; WINDOWS_MAX] = {
            let mut moments = [0; WINDOWS_MAX];
            moments.iter_mut().zip(next.flatten()).for_each(|(to, moment)| *to = moment);
            moments
        };
        let len = fulls.len();
        fulls.copy_from_slice(&next[..len]);
        Ok(Left { tokens: 0, ..left(windows, fulls, now) })
    }

    /// What is left for `key`.
    pub fn left(&mut self, key: u64, now: Moment) -> Left {
        let (windows, fulls) = self.at(key, now);
        left(windows, fulls, now)
    }

    /// Answers a shard, one of those of `workers`. All that waits for it is granted if it is there;
    /// beyond that no more than twice what was used lately, and a part of what is there.
    pub fn ask(&mut self, ask: Ask, workers: u32, now: Moment) -> Grant {
        let (windows, fulls) = self.at(ask.key, now);
        let have = left(windows, fulls, now).tokens;
        let spare = (have / (2 * workers.max(1))).min(ask.used.saturating_mul(2));
        let tokens = if have < ask.least { 0 } else { ask.want.max(spare).min(have) };
        for (window, full) in windows.iter().zip(fulls.iter_mut()) {
            // It has that many.
            *full = window.take(*full, tokens, now).unwrap_or(*full);
        }
        let is_empty = tokens < ask.want || have < ask.least.max(1);
        let empty_until = match is_empty {
            true => has_at(windows, fulls, ask.least.max(1)).max(now + hold(windows)),
            false => 0,
        };
        Grant { key: ask.key, tokens, empty_until, left: left(windows, fulls, now), period: 0 }
    }

    /// Puts back what was taken and not used. What a bucket cannot hold is lost, as it would be had
    /// it never been taken.
    pub fn give(&mut self, key: u64, tokens: u32, now: Moment) {
        let (windows, fulls) = self.at(key, now);
        for (window, full) in windows.iter().zip(fulls) {
            *full = window.give(*full, tokens);
        }
    }

    /// Takes whether it is there or not.
    pub fn charge(&mut self, key: u64, tokens: u32, now: Moment) {
        let (windows, fulls) = self.at(key, now);
        for (window, full) in windows.iter().zip(fulls) {
            *full = window.charge(*full, tokens, now);
        }
    }

    /// Takes what is there of so many.
    pub fn take_some(&mut self, key: u64, tokens: u32, now: Moment) {
        let (windows, fulls) = self.at(key, now);
        for (window, full) in windows.iter().zip(fulls) {
            let tokens = tokens.min(window.tokens(*full, now));
            *full = window.take(*full, tokens, now).unwrap_or(*full);
        }
    }

    /// Goes on with other windows. No bucket is fuller than before: what was missing, as a part of
    /// the whole, still is. A window that is new misses as much as the emptiest that was there.
    pub fn change(&mut self, windows: &[Window], keys_max: usize, now: Moment) {
        if *self.windows == *windows && self.keys_max == keys_max {
            return;
        }
        let mut next = Buckets::new(windows, keys_max, self.empty_at);
        let is_alike = self.windows.len() == next.windows.len();
        for slot in self.segments.iter().flat_map(|segment| segment.slots(self.stride())) {
            let missing = |at: usize| -> f64 {
                let (window, full) = (&self.windows[at], slot[1 + at]);
                full.saturating_sub(now) as f64 / window.depth() as f64
            };
            let most = (0..self.windows.len()).map(missing).fold(0.0, f64::max);
            let (windows, fulls) = next.at(slot[0], now);
            for (at, (window, full)) in windows.iter().zip(fulls).enumerate() {
                let part = if is_alike { missing(at) } else { most };
                *full = now + (window.depth() as f64 * part).ceil() as u64;
            }
        }
        next.forgotten += self.forgotten;
        *self = next;
    }

    /// Keys that are there, idle ones included.
    pub fn keys(&self) -> usize {
        self.segments.iter().map(|segment| segment.keys).sum()
    }

    /// Memory of the table.
    pub fn bytes(&self) -> usize {
        let words: usize = self.segments.iter().map(|segment| segment.words.len()).sum();
        words * size_of::<u64>() + self.segments.len() * size_of::<Segment>()
    }

    /// Keys that had to go although their buckets were not full.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn stride(&self) -> usize {
        1 + self.windows.len()
    }

    /// When each bucket of `key` is full. Makes room for it.
    #[inline]
    fn at(&mut self, key: u64, now: Moment) -> (&[Window], &mut [Moment]) {
        let key = if key == NONE { 1 } else { key };
        let stride = self.stride();
        let segment = &mut self.segments[(key >> 40) as usize & (self.segments.len() - 1)];
        let place = match segment.find(key, stride) {
            Ok(place) => place,
            Err(_) => {
                let (windows, empty_at) = (&self.windows, self.empty_at);
                let room = Room { stride, keys_max: self.segment_max, now };
                let (place, forgotten) = segment.insert(key, &room);
                self.forgotten += forgotten;
                let fulls = &mut segment.words[place + 1..place + stride];
                for (window, full) in windows.iter().zip(fulls) {
                    *full = if empty_at == 0 { 0 } else { empty_at.saturating_add(window.depth()) };
                }
                place
            }
        };
        (&self.windows, &mut segment.words[place + 1..place + stride])
    }
}

/// Of the bucket that has the least.
fn left(windows: &[Window], fulls: &[Moment], now: Moment) -> Left {
    let mut least = Left { tokens: u32::MAX, ..Left::default() };
    for (at, (window, full)) in windows.iter().zip(fulls).enumerate() {
        let tokens = window.tokens(*full, now);
        if tokens < least.tokens {
            let full_in_ns = super::nanos(full.saturating_sub(now));
            least = Left { tokens, full_in_ns, window: at as u8, is_free: false };
        }
    }
    least
}

/// When all of them have that much.
fn has_at(windows: &[Window], fulls: &[Moment], tokens: u32) -> Moment {
    let each = windows.iter().zip(fulls).map(|(window, full)| window.has_at(*full, tokens));
    each.max().unwrap_or_default()
}

/// How long a shard may refuse before it asks again, so that it does not ask for every request:
/// a small part of what the smallest bucket holds.
fn hold(windows: &[Window]) -> u64 {
    let least = windows.iter().map(Window::depth).min().unwrap_or_default();
    (least / 16).min(super::moment(EMPTY_NS))
}

/// What inserting has to know.
struct Room {
    stride: usize,
    keys_max: usize,
    now: Moment,
}

impl Segment {
    /// Where the slot of `key` is, or where it would be.
    #[inline]
    fn find(&self, key: u64, stride: usize) -> Result<usize, usize> {
        let slots = self.words.len() / stride;
        if slots == 0 {
            return Err(0);
        }
        let mask = slots - 1;
        let mut slot = key as usize & mask;
        // Ends: a slot is always free.
        loop {
            match self.words[slot * stride] {
                found if found == key => return Ok(slot * stride),
                NONE => return Err(slot * stride),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn slots(&self, stride: usize) -> impl Iterator<Item = &[u64]> {
        self.words.chunks_exact(stride).filter(|slot| slot[0] != NONE)
    }

    /// Makes a slot; answers where, and how many keys had to go for it.
    fn insert(&mut self, key: u64, room: &Room) -> (usize, u64) {
        let slots = self.words.len() / room.stride;
        let is_full = self.keys + 1 > (slots / 8 * 7).min(room.keys_max);
        let forgotten = if is_full { self.make_room(room) } else { 0 };
        let place = self.find(key, room.stride).unwrap_or_else(|free| free);
        self.words[place] = key;
        self.keys += 1;
        (place, forgotten)
    }

    /// Drops what is idle, and grows if that was not much. Answers how many had to go that are not.
    fn make_room(&mut self, room: &Room) -> u64 {
        let full_at = |slot: &Slot| slot[1..].iter().copied().max().unwrap_or_default();
        let mut live: Vec<Slot> = Vec::with_capacity(self.keys);
        live.extend(self.slots(room.stride).map(slot_of).filter(|slot| full_at(slot) > room.now));
        let mut forgotten = 0;
        if self.keys + 1 > room.keys_max && live.len() + 1 > room.keys_max / 4 * 3 {
            let goes = (live.len() / 4).clamp(1, live.len());
            live.select_nth_unstable_by_key(goes - 1, full_at);
            live.drain(..goes);
            forgotten = goes as u64;
        }
        let slots = ((live.len() + 1) * 8 / 5).next_power_of_two().max(SLOTS_MIN);
        self.words = vec![NONE; slots * room.stride].into();
        self.keys = live.len();
        for slot in live {
            let place = self.find(slot[0], room.stride).unwrap_or_else(|free| free);
            self.words[place..place + room.stride].copy_from_slice(&slot[..room.stride]);
        }
        forgotten
    }
}

/// A slot of any limit.
type Slot = [u64; 1 + WINDOWS_MAX];

fn slot_of(words: &[u64]) -> Slot {
    let mut slot = Slot::default();
    slot[..words.len()].copy_from_slice(words);
    slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::moment;

    const SECOND_NS: u64 = 1_000_000_000;

    fn hourly(keys_max: usize) -> Buckets {
        Buckets::new(&[Window::new(10, 3600 * SECOND_NS, 10)], keys_max, 0)
    }

    fn spread(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    }

    #[test]
    fn keys_are_told_apart_and_none_is_lost_while_there_is_room() {
        let mut buckets = hourly(200_000);
        let now = moment(SECOND_NS);
        for n in 0..100_000 {
            assert!(buckets.take(spread(n), 1 + n as u32 % 9, now).is_ok());
        }
        for n in 0..100_000 {
            assert_eq!(buckets.left(spread(n), now).tokens, 9 - n as u32 % 9, "{n}");
        }
        assert_eq!((buckets.keys(), buckets.forgotten()), (100_000, 0));
        let each = buckets.bytes() / 100_000;
        assert!(each <= 64, "{each} bytes for a key");
    }

    #[test]
    fn what_is_idle_makes_room() {
        let mut buckets = hourly(1000);
        for n in 0..100_000u64 {
            // Each is full again after 6 minutes.
            let now = moment(n * SECOND_NS);
            assert!(buckets.take(spread(n), 1, now).is_ok());
        }
        assert_eq!(buckets.forgotten(), 0);
        assert!(buckets.keys() <= 1000, "{}", buckets.keys());
    }

    #[test]
    fn under_pressure_those_nearest_to_full_go_and_are_counted() {
        let mut buckets = hourly(1000);
        let now = moment(SECOND_NS);
        for n in 0..100 {
            assert!(buckets.take(spread(n), 10, now).is_ok());
        }
        for n in 100..5000 {
            assert!(buckets.take(spread(n), 1, now).is_ok());
        }
        let gone = 5000 - buckets.keys() as u64;
        assert_eq!(buckets.forgotten(), gone);
        assert!(buckets.keys() <= 1000 && gone < 4500, "{gone}");
        // Those that were empty still are.
        for n in 0..100 {
            assert!(buckets.take(spread(n), 1, now).is_err(), "{n}");
        }
    }

    #[test]
    fn another_rate_refills_nothing() {
        let (slow, fast) = (Window::new(10, SECOND_NS, 100), Window::new(1000, SECOND_NS, 5000));
        let minutes = Window::new(100, 60 * SECOND_NS, 100);
        let now = moment(77 * SECOND_NS);
        let mut buckets = Buckets::new(&[slow], 1000, 0);
        assert!(buckets.take(1, 100, now).is_ok());
        assert!(buckets.take(2, 50, now).is_ok());
        let left = |buckets: &mut Buckets, key| buckets.left(key, now).tokens;
        for (windows, expected) in [
            (&[slow][..], [0, 50, 100]),
            (&[fast], [0, 2500, 5000]),
            (&[fast, minutes], [0, 50, 100]),
            (&[minutes], [0, 50, 100]),
            (&[slow], [0, 50, 100]),
        ] {
            buckets.change(windows, 1000, now);
            let got = [1, 2, 3].map(|key| left(&mut buckets, key));
            assert!(got[0] == 0 && got[1].abs_diff(expected[1]) <= 1, "{windows:?} {got:?}");
            assert_eq!(got[2], expected[2]);
        }
    }

    #[test]
    fn after_a_loss_buckets_fill_from_empty() {
        let lost = moment(50 * SECOND_NS);
        let mut buckets = Buckets::new(&[Window::new(10, SECOND_NS, 10)], 100, lost);
        assert!(buckets.take(1, 1, lost).is_err());
        assert_eq!(buckets.left(1, moment(50 * SECOND_NS + SECOND_NS / 2)).tokens, 5);
        assert_eq!(buckets.left(2, moment(60 * SECOND_NS)).tokens, 10);
    }

    #[test]
    fn a_worker_alone_has_its_share_of_the_rate_and_no_burst() {
        let mut buckets = Buckets::new(&[Window::new(100, SECOND_NS, 100)], 100, 0);
        let mut passed = 0;
        for ms in 0..4000 {
            passed += u64::from(buckets.take_alone(7, 1, 4, moment(ms * 1_000_000)).is_ok());
        }
        assert_eq!(passed, 100, "of 25 a second");
        assert!(buckets.take_alone(7, 1, 4, moment(60 * SECOND_NS)).is_ok());
        let until = buckets.take_alone(7, 1, 4, moment(60 * SECOND_NS));
        assert_eq!(until, Err(moment(60 * SECOND_NS + SECOND_NS / 25)));
    }

    #[test]
    fn all_windows_have_to_have_it() {
        let windows = [Window::new(10, SECOND_NS, 10), Window::new(15, 60 * SECOND_NS, 15)];
        let mut buckets = Buckets::new(&windows, 100, 0);
        let at = |seconds: u64| moment(seconds * SECOND_NS);
        assert!(buckets.take(7, 10, at(10)).is_ok());
        assert_eq!(buckets.take(7, 1, at(10)), Err(at(10) + at(1) / 10));
        assert!(buckets.take(7, 5, at(11)).is_ok());
        assert_eq!(
            buckets.left(7, at(12)),
            Left { full_in_ns: 58 * SECOND_NS, window: 1, ..Left::default() }
        );
        // The next of the slower one, whose interval is four seconds.
        assert_eq!(buckets.take(7, 1, at(12)), Err(at(14)));
        assert!(buckets.take(7, 1, at(14)).is_ok());
    }
}
