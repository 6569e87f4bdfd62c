//! A bounded map in two generations: what was not asked for while a generation filled is dropped with it.

use rustc_hash::FxHashMap;
use std::borrow::Borrow;
use std::hash::Hash;

/// An LRU-ish map. Each generation weighs at most half of the bound, so the whole never weighs more
/// than the bound plus one entry.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: FxHashMap<K, (V, usize)>,
    old: FxHashMap<K, (V, usize)>,
    young_weight: usize,
    half_weight: usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    /// An empty map that holds `weight_max` in total.
    pub fn new(weight_max: usize) -> Self {
        Self {
            young: FxHashMap::default(),
            old: FxHashMap::default(),
            young_weight: 0,
            half_weight: weight_max / 2,
        }
    }

    /// The value; asking keeps it from being dropped with the old generation.
    pub fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some((key, (value, weight))) = self.old.remove_entry(key) {
            self.insert_new(key, value, weight);
        }
        self.young.get(key).or_else(|| self.old.get(key)).map(|(value, _)| value)
    }

    /// Takes the value and its weight out.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<(V, usize)>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        match self.young.remove(key) {
            Some((value, weight)) => {
                self.young_weight -= weight;
                Some((value, weight))
            }
            None => self.old.remove(key),
        }
    }

    /// Puts a value in, in place of what was there.
    pub fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        self.insert_new(key, value, weight);
    }

    /// Puts in what is known not to be there.
    pub fn insert_new(&mut self, key: K, value: V, weight: usize) {
        debug_assert!(!self.young.contains_key(&key) && !self.old.contains_key(&key));
        if self.young_weight + weight > self.half_weight {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.young_weight = 0;
        }
        self.young_weight += weight;
        self.young.insert(key, (value, weight));
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.young_weight = 0;
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_holds_more_than_its_bound() {
        let mut map = Generations::new(100);
        for n in 0..10_000_u32 {
            map.insert(n, n, 1);
            assert!(map.len() <= 101, "{} entries after {n}", map.len());
        }
        assert_eq!(map.get(&9_999), Some(&9_999));
        assert_eq!(map.get(&0), None);
    }

    #[test]
    fn what_is_asked_for_stays() {
        let mut map = Generations::new(100);
        for n in 0..10_000_u32 {
            map.insert(n, n, 1);
            assert_eq!(map.get(&0), Some(&0), "lost after {n}");
        }
    }

    #[test]
    fn a_removed_entry_is_gone_from_both_generations() {
        let mut map = Generations::new(4);
        for n in 0..3 {
            map.insert(n, n, 1);
        }
        assert_eq!(map.remove(&0), Some((0, 1)));
        assert_eq!(map.remove(&2), Some((2, 1)));
        assert_eq!(map.get(&0), None);
        assert_eq!(map.get(&2), None);
    }
}
