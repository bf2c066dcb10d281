//! Numbers with one writer and any readers.
//!
//! The worker that owns a cell is the only one that writes it, so that a change is a plain load, an
//! addition and a store: no locked instruction, and no cache line that two cores write. Control
//! reads at any time and may see a value a moment old, never a torn one.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// A number that one thread writes.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Only by its owner.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Only by its owner.
    #[inline]
    pub fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    /// Adds one. Only by its owner.
    #[inline]
    pub fn count(&self) {
        self.add(1);
    }

    /// Takes one away. Only by its owner.
    #[inline]
    pub fn uncount(&self) {
        self.set(self.get().saturating_sub(1));
    }
}

/// Binary digits of a value that are kept, so that a bucket is at most 1/64 wide.
const PRECISION_BITS: u32 = 6;
/// Nanoseconds of the narrowest bucket, as a power of two: 256 ns.
const UNIT_BITS: u32 = 8;
/// Values from 2 to this power nanoseconds on (73 minutes) share the last bucket.
const LARGEST_BITS: u32 = 42;
const PER_OCTAVE: usize = 1 << PRECISION_BITS;
const BUCKETS: usize = PER_OCTAVE * (LARGEST_BITS - UNIT_BITS - PRECISION_BITS + 1) as usize;

/// How long something took, as a histogram with logarithmic octaves of 64 linear buckets each (the
/// layout of an HDR histogram): no bucket is wider than 1/64 (1.6 %) of its values, or 256 ns. From
/// 0 to 73 minutes. Its memory, 15 KiB, is taken when the first value comes.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: OnceLock<Box<[Cell; BUCKETS]>>,
    sum_ns: Cell,
}

impl Durations {
    /// Only by its owner.
    #[inline]
    pub fn record(&self, ns: u64) {
        let buckets = self.buckets.get_or_init(new_buckets);
        buckets[bucket_of(ns)].count();
        self.sum_ns.add(ns);
    }

    /// Adds what is there to `sum`.
    pub fn add_to(&self, sum: &mut Summed) {
        let Some(buckets) = self.buckets.get() else { return };
        sum.sum_ns += self.sum_ns.get();
        for (total, bucket) in sum.counts.iter_mut().zip(buckets.iter()) {
            *total += bucket.get();
        }
    }
}

#[cold]
fn new_buckets() -> Box<[Cell; BUCKETS]> {
    let buckets: Box<[Cell]> = (0..BUCKETS).map(|_| Cell::default()).collect();
    buckets.try_into().expect("as many as asked for")
}

#[inline]
fn bucket_of(ns: u64) -> usize {
    let value = ns.min((1 << LARGEST_BITS) - 1) >> UNIT_BITS;
    let octave = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
    ((octave as usize) << PRECISION_BITS) + (value >> octave) as usize
}

/// The least value of a bucket, in nanoseconds.
fn least_of(bucket: usize) -> u64 {
    if bucket < 2 * PER_OCTAVE {
        return (bucket as u64) << UNIT_BITS;
    }
    let octave = bucket / PER_OCTAVE - 1;
    let value = (bucket - octave * PER_OCTAVE) as u64;
    value << octave << UNIT_BITS
}

/// Durations of several writers, summed; or what came between two such sums.
#[derive(Clone, Debug)]
pub struct Summed {
    counts: Vec<u64>,
    sum_ns: u64,
}

impl Default for Summed {
    fn default() -> Summed {
        Summed { counts: vec![0; BUCKETS], sum_ns: 0 }
    }
}

impl Summed {
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// What came since `before`, an earlier sum of the same.
    pub fn since(&self, before: &Summed) -> Summed {
        let counts = self.counts.iter().zip(&before.counts);
        Summed {
            counts: counts.map(|(now, before)| now.saturating_sub(*before)).collect(),
            sum_ns: self.sum_ns.saturating_sub(before.sum_ns),
        }
    }

    /// How many took at most each of `bounds_ns` (ascending) and more than the one before, and at
    /// the end how many took more than the last. A bucket belongs where its middle lies.
    pub fn grouped(&self, bounds_ns: &[u64]) -> Vec<u64> {
        let mut groups = vec![0; bounds_ns.len() + 1];
        let mut at = 0;
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let middle = least_of(bucket).midpoint(least_of(bucket + 1));
            while at < bounds_ns.len() && middle > bounds_ns[at] {
                at += 1;
            }
            groups[at] += count;
        }
        groups
    }

    /// The value that `share` (0 to 1) of all do not exceed, in nanoseconds; 0 when there are none.
    pub fn at_quantile_ns(&self, share: f64) -> u64 {
        let wanted = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        bucket.map_or(0, |bucket| least_of(bucket).midpoint(least_of(bucket + 1)))
    }

    /// To keep it for a while: what is empty takes no memory.
    pub fn kept(&self) -> Kept {
        let counts = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let counts = counts.map(|(bucket, count)| (bucket as u16, *count));
        Kept { counts: counts.collect(), sum_ns: self.sum_ns }
    }

    /// What came since `before`, an earlier sum of the same that was kept.
    pub fn since_kept(&self, before: &Kept) -> Summed {
        let mut since = self.clone();
        for (bucket, count) in &before.counts {
            let now = &mut since.counts[usize::from(*bucket)];
            *now = now.saturating_sub(*count);
        }
        since.sum_ns = since.sum_ns.saturating_sub(before.sum_ns);
        since
    }

    /// Adds what another sum has.
    pub fn add(&mut self, other: &Summed) {
        self.sum_ns += other.sum_ns;
        self.counts.iter_mut().zip(&other.counts).for_each(|(all, count)| *all += count);
    }

    /// As an HDR histogram, in nanoseconds, for percentiles.
    pub fn histogram(&self) -> hdrhistogram::Histogram<u64> {
        let mut histogram = hdrhistogram::Histogram::new_with_bounds(1, 1 << LARGEST_BITS, 3)
            .expect("bounds that suit each other");
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let middle = least_of(bucket).midpoint(least_of(bucket + 1));
            histogram.saturating_record_n(middle, *count);
        }
        histogram
    }
}

/// A [`Summed`] in as little memory as it needs.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Buckets that are not empty.
    counts: Box<[(u16, u64)]>,
    sum_ns: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for bucket in 0..BUCKETS {
            let (least, next) = (least_of(bucket), least_of(bucket + 1));
            assert!(least < next, "{bucket}");
            assert_eq!((bucket_of(least), bucket_of(next - 1)), (bucket, bucket));
        }
        assert_eq!(least_of(BUCKETS), 1 << LARGEST_BITS);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn a_bucket_is_as_narrow_as_stated(ns in 0u64..1 << LARGEST_BITS) {
            let bucket = bucket_of(ns);
            let (least, next) = (least_of(bucket), least_of(bucket + 1));
            prop_assert!(least <= ns && ns < next);
            prop_assert!(next - least <= (least >> PRECISION_BITS).max(1 << UNIT_BITS));
        }
    }

    #[test]
    fn percentiles_groups_and_differences() {
        let durations = Durations::default();
        let mut before = Summed::default();
        durations.add_to(&mut before);
        assert_eq!(before.count(), 0);
        for ms in 1..=1000u64 {
            durations.record(ms * 1_000_000);
        }
        let mut all = Summed::default();
        durations.add_to(&mut all);
        assert_eq!((all.count(), all.since(&before).count()), (1000, 1000));
        assert!((all.sum_seconds() - 500.5).abs() < 1e-6);
        let p99 = all.histogram().value_at_quantile(0.99) as f64 / 1e6;
        assert!((p99 - 990.0).abs() < 990.0 / 60.0, "{p99}");
        let groups = all.grouped(&[1_000, 100_000_000, 10_000_000_000]);
        assert_eq!((groups[0], groups.iter().sum::<u64>(), groups[3]), (0, 1000, 0));
        assert!((98..=102).contains(&groups[1]), "{groups:?}");
        assert_eq!(all.since(&all).count(), 0);
        for share in [0.0, 0.5, 0.9, 0.999, 1.0] {
            let (own, library) = (all.at_quantile_ns(share), all.histogram());
            let library = library.value_at_quantile(share);
            let apart = own.abs_diff(library) as f64 / library as f64;
            assert!(apart < 0.002, "{share}: {own} and {library}");
        }
        assert_eq!(before.at_quantile_ns(0.5), 0);
        let kept = all.kept();
        durations.record(7_000_000_000);
        let mut more = Summed::default();
        durations.add_to(&mut more);
        let since = more.since_kept(&kept);
        let median = since.at_quantile_ns(0.5).abs_diff(7_000_000_000);
        assert!(since.count() == 1 && median < 7_000_000_000 / 64, "{median}");
        assert!((since.sum_seconds() - 7.0).abs() < 1e-6);
    }
}
