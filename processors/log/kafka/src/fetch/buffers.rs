//! Fetched records that wait to be taken.

use super::Wake;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tillstream_log::broker::BrokerError;
use tillstream_log::{ReadLimit, Record};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Slot {
    /// Counts the starts: what was fetched for an older one is not wanted any more.
    life: u64,
    /// The next offset that may be handed out.
    next_offset: u64,
    records: VecDeque<Record>,
    bytes: usize,
    error: Option<BrokerError>,
    changed: Arc<Notify>,
}

/// The buffers of one consumer.
#[derive(Debug)]
pub(crate) struct Buffers {
    slots: Mutex<BTreeMap<u32, Slot>>,
    bytes_max: usize,
    wake: Arc<Wake>,
}

impl Buffers {
    pub(crate) fn new(bytes_max: usize, wake: Arc<Wake>) -> Self {
        Self { slots: Mutex::default(), bytes_max, wake }
    }

    /// A partition that is fetched from nowhere yet.
    pub(crate) fn add(&self, partition: u32) {
        self.slots.lock().entry(partition).or_default();
    }

    /// Forgets a partition; whoever waits for it waits no longer.
    pub(crate) fn remove(&self, partition: u32) {
        if let Some(slot) = self.slots.lock().remove(&partition) {
            slot.changed.notify_waiters();
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        for slot in std::mem::take(&mut *self.slots.lock()).into_values() {
            slot.changed.notify_waiters();
        }
    }

    /// Begins a new life of the partition at `offset`; `None` when it is not ours.
    pub(crate) fn restart(&self, partition: u32, offset: u64) -> Option<u64> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&partition)?;
        slot.life += 1;
        slot.next_offset = offset;
        slot.records.clear();
        slot.bytes = 0;
        slot.error = None;
        Some(slot.life)
    }

    /// Adds what was fetched for this life.
    pub(crate) fn push(&self, partition: u32, life: u64, fetched: Vec<Record>) {
        let mut slots = self.slots.lock();
        let Some(slot) = slots.get_mut(&partition).filter(|it| it.life == life) else { return };
        for record in fetched {
            if record.offset >= slot.next_offset {
                slot.next_offset = record.offset + 1;
                slot.bytes += size(&record);
                slot.records.push_back(record);
            }
        }
        slot.changed.notify_waiters();
    }

    /// Ends this life with an error.
    pub(crate) fn fail(&self, partition: u32, life: u64, error: BrokerError) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(&partition).filter(|it| it.life == life) {
            slot.error.get_or_insert(error);
            slot.changed.notify_waiters();
        }
    }

    /// Whether more may be fetched.
    pub(crate) fn has_room(&self, partition: u32) -> bool {
        self.slots.lock().get(&partition).is_some_and(|it| it.bytes < self.bytes_max)
    }

    /// The next offset that would be fetched.
    pub(crate) fn next_offset(&self, partition: u32) -> u64 {
        self.slots.lock().get(&partition).map_or(0, |it| it.next_offset)
    }

    /// Hands records out, in order; an error comes once everything before it was taken.
    pub(crate) fn take(&self, partition: u32, limit: ReadLimit) -> Result<Vec<Record>, BrokerError> {
        let mut slots = self.slots.lock();
        let Some(slot) = slots.get_mut(&partition) else { return Ok(Vec::new()) };
        // The limit is of keys and values; what a record takes here is more.
        let (mut count, mut bytes, mut payload) = (0, 0, 0);
        for record in slot.records.iter().take(limit.records_max.max(1)) {
            payload += record.key.len() + record.value.len();
            if count > 0 && payload > limit.bytes_max {
                break;
            }
            count += 1;
            bytes += size(record);
        }
        if count == 0 {
            return slot.error.clone().map_or(Ok(Vec::new()), Err);
        }
        let was_full = slot.bytes >= self.bytes_max;
        slot.bytes -= bytes;
        if was_full && slot.bytes < self.bytes_max {
            self.wake.wake();
        }
        Ok(slot.records.drain(..count).collect())
    }

    /// How many wait to be taken.
    pub(crate) fn buffered(&self, partition: u32) -> usize {
        self.slots.lock().get(&partition).map_or(0, |it| it.records.len())
    }

    /// Resolves once more than `records` wait, or no more fit, or the partition has failed or is not ours.
    pub(crate) async fn wait_buffered(&self, partition: u32, records: usize) {
        loop {
            let Some(changed) = self.changed(partition) else { return };
            let mut changed = std::pin::pin!(changed.notified());
            changed.as_mut().enable();
            let waits = self.slots.lock().get(&partition).is_some_and(|it| {
                it.records.len() <= records && it.error.is_none() && it.bytes < self.bytes_max
            });
            if !waits {
                return;
            }
            changed.await;
        }
    }

    /// Told of every change of the partition.
    pub(crate) fn changed(&self, partition: u32) -> Option<Arc<Notify>> {
        self.slots.lock().get(&partition).map(|it| Arc::clone(&it.changed))
    }

    /// Whether the partition's fetch has failed.
    pub(crate) fn has_failed(&self, partition: u32) -> bool {
        self.slots.lock().get(&partition).is_none_or(|it| it.error.is_some())
    }
}

/// What a record counts as: its bytes, and what it takes itself.
fn size(record: &Record) -> usize {
    record.key.len() + record.value.len() + size_of::<Record>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn record(offset: u64, bytes: usize) -> Record {
        Record {
            offset,
            timestamp_ms: 0,
            key: Bytes::new(),
            value: vec![1; bytes].into(),
            headers: Default::default(),
        }
    }

    fn buffers() -> Buffers {
        let buffers = Buffers::new(300 + 2 * size_of::<Record>(), Arc::default());
        buffers.add(0);
        buffers
    }

    const ALL: ReadLimit = ReadLimit { records_max: 100, bytes_max: 1 << 20 };

    #[test]
    fn only_records_of_this_life_and_from_its_offset_on_are_handed_out() {
        let buffers = buffers();
        let old = buffers.restart(0, 0).unwrap();
        let life = buffers.restart(0, 5).unwrap();
        buffers.push(0, old, vec![record(0, 1)]);
        buffers.push(0, life, vec![record(4, 1), record(5, 1), record(7, 1)]);
        buffers.push(0, life, vec![record(7, 1), record(8, 1)]);
        let offsets: Vec<u64> = buffers.take(0, ALL).unwrap().iter().map(|it| it.offset).collect();
        assert_eq!(offsets, [5, 7, 8]);
    }

    #[test]
    fn one_record_is_handed_out_whatever_its_size() {
        let buffers = buffers();
        let life = buffers.restart(0, 0).unwrap();
        buffers.push(0, life, vec![record(0, 200), record(1, 200)]);
        assert!(!buffers.has_room(0));
        assert_eq!(buffers.take(0, ReadLimit { records_max: 9, bytes_max: 1 }).unwrap().len(), 1);
        assert!(buffers.has_room(0));
        assert_eq!(buffers.buffered(0), 1);
    }

    #[test]
    fn an_error_comes_after_the_records_before_it_and_goes_with_its_life() {
        let buffers = buffers();
        let life = buffers.restart(0, 0).unwrap();
        buffers.push(0, life, vec![record(0, 1)]);
        buffers.fail(0, life, BrokerError::Unavailable("gone".into()));
        assert_eq!(buffers.take(0, ALL).unwrap().len(), 1);
        assert!(buffers.take(0, ALL).is_err());
        buffers.restart(0, 0).unwrap();
        assert_eq!(buffers.take(0, ALL), Ok(Vec::new()));
    }
}
