//! Rows as the open batch has left them, over the cache and the store.

use crate::dead_letter::Failure;
use crate::generations::Generations;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use tillstream_stage::RowKey;
use tillstream_stage::task::{Rows, Task, TaskError};

/// Decoded rows of committed state; `None`: known to be absent. A task is the only writer of its rows, so
/// what it committed last is what there is.
pub(crate) type RowCache<R> = Generations<RowKey, Option<R>>;

/// A decoded row takes about this many times its encoded bytes, and this many bytes besides.
const DECODED_FACTOR: usize = 3;
const ENTRY_BYTES: usize = 128;
/// What a batch leaves of its buffer for the next one.
const ROWS_BUFFER_BYTES_MAX: usize = 2 << 20;

/// The approximate bytes a decoded row takes in memory.
fn weight(key: &RowKey, encoded_bytes: usize) -> usize {
    encoded_bytes * DECODED_FACTOR + key.key.len() + ENTRY_BYTES
}

#[derive(Debug)]
struct Slot<R> {
    row: Option<R>,
    weight: usize,
    touched: bool,
    /// Whether an input asked for it: what is only ever written is not worth caching.
    read: bool,
}

/// The batch's rows. Cached rows move in, and back after the commit; a dropped batch drops them too.
#[derive(Debug)]
pub(crate) struct Overlay<R> {
    /// Where each row's slot is.
    places: FxHashMap<RowKey, usize>,
    slots: Vec<Slot<R>>,
    /// The rows that were changed, and where their slots are.
    touched: Vec<(RowKey, usize)>,
    unreadable: FxHashMap<RowKey, Failure>,
}

impl<R> Overlay<R> {
    /// No rows yet.
    pub fn new() -> Self {
        Self {
            places: FxHashMap::default(),
            slots: Vec::new(),
            touched: Vec::new(),
            unreadable: FxHashMap::default(),
        }
    }

    fn add(&mut self, key: RowKey, slot: Slot<R>) -> usize {
        let place = self.slots.len();
        self.places.insert(key, place);
        self.slots.push(slot);
        place
    }

    /// Makes the row available from the cache; `false`: it must be loaded (and is noted as absent until then).
    pub fn take_cached(&mut self, key: &RowKey, cache: &mut RowCache<R>) -> bool {
        if self.places.contains_key(key) {
            return true;
        }
        let cached = cache.remove(key);
        let found = cached.is_some();
        let (row, weight) = cached.unwrap_or_else(|| (None, weight(key, 0)));
        self.add(key.clone(), Slot { row, weight, touched: false, read: true });
        found
    }

    /// A row came from the store.
    pub fn loaded(&mut self, key: RowKey, row: R, encoded_bytes: usize) {
        let slot = Slot { row: Some(row), weight: weight(&key, encoded_bytes), touched: false, read: true };
        match self.places.get(&key) {
            Some(place) => self.slots[*place] = slot,
            None => {
                self.add(key, slot);
            }
        }
    }

    /// A stored row cannot be decoded: every input that reads it fails.
    pub fn unreadable(&mut self, key: RowKey, failure: Failure) {
        self.unreadable.insert(key, failure);
    }

    /// Why one of these rows cannot be read.
    pub fn first_unreadable(&self, keys: impl FnOnce() -> Vec<RowKey>) -> Option<&Failure> {
        if self.unreadable.is_empty() {
            return None;
        }
        keys().iter().find_map(|key| self.unreadable.get(key))
    }

    /// Takes over what a succeeded input changed; the vector is left empty.
    pub fn merge(&mut self, changes: &mut Vec<(RowKey, Option<R>)>) {
        for (key, row) in changes.drain(..) {
            if let Some(place) = self.places.get(&key) {
                let slot = &mut self.slots[*place];
                slot.row = row;
                if !std::mem::replace(&mut slot.touched, true) {
                    self.touched.push((key, *place));
                }
            } else {
                let weight = weight(&key, 0);
                let place = self.add(key.clone(), Slot { row, weight, touched: true, read: false });
                self.touched.push((key, place));
            }
        }
    }

    /// Encodes every touched row once, in the order of their first change. `buffer` is kept between batches for
    /// its capacity: what is answered is as large as the rows.
    pub fn encode<T: Task<Row = R>>(
        &mut self,
        task: &T,
        buffer: &mut Vec<u8>,
    ) -> Result<Vec<(RowKey, Option<Bytes>)>, TaskError> {
        buffer.clear();
        let mut ends = Vec::with_capacity(self.touched.len());
        for (key, place) in self.touched.drain(..) {
            let slot = &mut self.slots[place];
            let start = buffer.len();
            let present = slot.row.is_some();
            if let Some(row) = &slot.row {
                task.encode_row(row, buffer)?;
            }
            slot.weight = weight(&key, buffer.len() - start);
            ends.push((key, present.then_some(start..buffer.len())));
        }
        let rows = Bytes::copy_from_slice(buffer);
        buffer.shrink_to(ROWS_BUFFER_BYTES_MAX);
        Ok(ends.into_iter().map(|(key, range)| (key, range.map(|it| rows.slice(it)))).collect())
    }

    /// The batch is committed: its rows are what the cache may answer from now on.
    pub fn give_back(mut self, cache: &mut RowCache<R>) {
        for (key, place) in self.places {
            let slot = &mut self.slots[place];
            if slot.read && !self.unreadable.contains_key(&key) {
                // It was taken out, or was not there.
                cache.insert_new(key, slot.row.take(), slot.weight);
            } else if slot.touched {
                cache.remove(&key);
            }
        }
    }
}

impl<R> Rows<R> for Overlay<R> {
    fn get(&self, key: &RowKey) -> Option<&R> {
        let place = self.places.get(key);
        debug_assert!(place.is_some(), "{key:?} is in no read set: its absence would be a guess");
        place.and_then(|it| self.slots[*it].row.as_ref())
    }
}
