//! What is remembered of credentials, within a bound on its memory. What was not used while half of
//! it filled up goes.

use std::collections::HashMap;

use ahash::RandomState;

/// By the text of a credential, or what stands for it.
pub struct Cache<V> {
    young: Map<V>,
    old: Map<V>,
    young_bytes: u64,
}

type Map<V> = HashMap<Box<[u8]>, Kept<V>, RandomState>;

struct Kept<V> {
    value: V,
    /// In bytes.
    cost: u64,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Cache { young: Map::default(), old: Map::default(), young_bytes: 0 }
    }
}

impl<V: Clone> Cache<V> {
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Option<V> {
        if let Some(kept) = self.young.get(key) {
            return Some(kept.value.clone());
        }
        let (key, kept) = self.old.remove_entry(key)?;
        let value = kept.value.clone();
        self.young_bytes += kept.cost;
        self.young.insert(key, kept);
        Some(value)
    }

    /// Keeps `value`, which takes `cost` bytes, within `bytes_max` for all.
    pub fn put(&mut self, key: &[u8], value: V, cost: u64, bytes_max: u64) {
        if cost > bytes_max / 2 {
            return;
        }
        self.remove(key);
        if self.young_bytes + cost > bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += cost;
        self.young.insert(key.into(), Kept { value, cost });
    }

    pub fn remove(&mut self, key: &[u8]) {
        if let Some(kept) = self.young.remove(key) {
            self.young_bytes -= kept.cost;
        }
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_memory_is_bounded() {
        let (mut cache, max, cost) = (Cache::default(), 64 * 1024, 552);
        let key = |n: u32| format!("token {n:04}").into_bytes();
        cache.put(&key(0), 0, cost, max);
        for n in 1..10_000 {
            cache.put(&key(n), n, cost, max);
            assert_eq!(cache.get(&key(0)), Some(0), "{n}");
            let all = cache.young.len() + cache.old.len();
            assert!(all as u64 * cost <= max + cost, "{all}");
        }
        assert!(cache.get(&key(1)).is_none() && cache.get(&key(9999)).is_some());
        cache.remove(&key(0));
        assert!(cache.get(&key(0)).is_none());
        cache.put(b"large", 1, max, max);
        assert!(cache.get(b"large").is_none(), "more than its half");
        let mut none = Cache::default();
        none.put(&key(0), 0, cost, 0);
        assert!(none.get(&key(0)).is_none());
    }

    #[test]
    fn what_is_put_again_is_counted_once() {
        let (mut cache, max) = (Cache::default(), 1024);
        for n in 0..1000 {
            cache.put(b"a", n, 100, max);
            assert_eq!(cache.young_bytes, 100);
            assert_eq!(cache.get(b"a"), Some(n));
        }
        assert!(cache.old.is_empty());
    }
}
