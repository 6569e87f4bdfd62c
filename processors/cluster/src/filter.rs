//! Which keys a task has ever written: a key that is surely not among them needs no read to be called new.
//!
//! Bloom filters in layers of doubling size. Until every stored key has been walked over, nothing is surely new.

use fastbloom::BloomFilter;
use tillstream_stage::{RowKey, Table};

/// Keys of the first layer.
const FIRST_LAYER_KEYS: usize = 16_384;
/// The share of new keys that are asked for in vain, per full layer. While the database is away such a key holds its whole
/// partition up, so there must be next to none.
const FALSE_POSITIVES: f64 = 1e-6;
/// Any number: the same in every process, so that a run can be repeated.
const SEED: u128 = 0x7469_6c6c_7374_7265_616d;

struct Layer {
    keys: BloomFilter,
    room: usize,
}

/// The keys of one task.
pub(crate) struct KnownKeys {
    layers: Vec<Layer>,
    count: usize,
    count_max: usize,
    /// By [`Table`]'s number: whether every stored key of it has been inserted.
    complete: u32,
}

impl KnownKeys {
    /// Nothing known, not even that there is nothing.
    pub fn new(count_max: usize) -> Self {
        Self { layers: Vec::new(), count: 0, count_max, complete: 0 }
    }

    /// Whether it is worth walking over the stored keys.
    pub fn is_on(&self) -> bool {
        self.count_max > 0
    }

    /// A key that is (or will be) stored.
    pub fn insert(&mut self, key: &RowKey) {
        if self.count_max == 0 || self.contains(key) {
            return;
        }
        self.count += 1;
        if self.count > self.count_max {
            // Too many to hold in the memory given: every key is asked for from now on.
            *self = Self::new(0);
            return;
        }
        if self.layers.last().is_none_or(|it| it.room == 0) {
            let room = FIRST_LAYER_KEYS << self.layers.len();
            let keys = BloomFilter::with_false_pos(FALSE_POSITIVES).seed(&SEED).expected_items(room);
            self.layers.push(Layer { keys, room });
        }
        if let Some(layer) = self.layers.last_mut() {
            layer.keys.insert(key);
            layer.room -= 1;
        }
    }

    /// Every stored key of the table has been inserted.
    pub fn completed(&mut self, table: Table) {
        if self.count_max > 0 {
            self.complete |= 1 << table as u8;
        }
    }

    /// Whether there is surely no such row.
    pub fn is_new(&self, key: &RowKey) -> bool {
        self.complete & 1 << key.table as u8 != 0 && !self.contains(key)
    }

    fn contains(&self, key: &RowKey) -> bool {
        self.layers.iter().rev().any(|it| it.keys.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_stage::Key;

    fn key(n: usize) -> RowKey {
        RowKey::new(Table::Order, Key::from(format!("demo/ord_{n}")))
    }

    #[test]
    fn an_inserted_key_is_never_called_new_and_most_others_are() {
        let mut known = KnownKeys::new(1_000_000);
        for n in 0..60_000 {
            known.insert(&key(n));
        }
        assert!(!known.is_new(&key(70_000)), "not before every stored key was walked over");
        known.completed(Table::OrderIndex);
        assert!(!known.is_new(&key(70_000)), "another table says nothing");
        known.completed(Table::Order);
        assert!((0..60_000).all(|n| !known.is_new(&key(n))));
        let new = (60_000..160_000).filter(|n| known.is_new(&key(*n))).count();
        assert!(new >= 99_995, "{new} of 100000");
    }

    #[test]
    fn too_many_keys_turn_it_off() {
        let mut known = KnownKeys::new(100);
        known.completed(Table::Order);
        for n in 0..200 {
            known.insert(&key(n));
        }
        known.completed(Table::Order);
        assert!(!known.is_new(&key(5_000)));
        assert!(!known.is_on());
    }
}
