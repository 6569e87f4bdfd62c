//! A store that is behind the topic: what it does not have yet is read from the log.

use super::{CatalogCache, Note, Notes, Reached, decode_product, nanos};
use crate::RuntimeError;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::{LogError, ReadLimit, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_schemas::item::ProductState;
use tillstream_stage::{Key, RowKey, Table};

/// Rows that are asked for at once to see whether the store has what is noted.
const SETTLED_ROWS_MAX: usize = 1_000;
/// Between two looks.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);

const ONE: ReadLimit = ReadLimit { records_max: 1, bytes_max: 1 };

impl CatalogCache {
    /// The record that is noted; `None` when it is gone, since compaction leaves only the newest of a product.
    pub(super) async fn record(
        &self,
        key: &Key,
        note: Note,
    ) -> Result<Option<Arc<ProductState>>, RuntimeError> {
        let partition = TopicPartition::new(Topic::Products, self.partition_of(key));
        let records = match self.ports.log.read(partition, note.offset, ONE).await {
            Err(LogError::OutOfRange { start, .. }) if start > note.offset => return Ok(None),
            records => records?,
        };
        let noted = records.first().filter(|it| it.offset == note.offset && it.key == key.as_bytes());
        noted.map(|it| decode_product(&it.value).map(Arc::new)).transpose()
    }

    /// Waits until more can be noted of a partition's products, and drops what the store has by now.
    pub(super) async fn make_room(&self, partition: u32, position: &Reached) -> Result<(), RuntimeError> {
        if !self.is_behind {
            return Ok(());
        }
        loop {
            let now_ns = self.ports.clock.monotonic_ns();
            let due = self.with_notes(partition, |it| it.looks_due(now_ns, nanos(SETTLE_INTERVAL)));
            for keys in due.chunks(SETTLED_ROWS_MAX) {
                self.settle(keys, now_ns).await?;
            }
            let is_full = self.with_notes(partition, |it| it.is_full());
            if position.position().held_up != is_full {
                position.change(|it| it.held_up = is_full);
            }
            if !is_full {
                return Ok(());
            }
            tracing::debug!(partition, "the catalog waits until the store has some of what was followed");
            self.ports.clock.sleep(SETTLE_INTERVAL).await;
        }
    }

    /// Looks at the rows of these products, and drops the notes of what the store has for good.
    async fn settle(&self, keys: &[Key], now_ns: u64) -> Result<(), RuntimeError> {
        let rows: Vec<RowKey> = keys.iter().map(|it| RowKey::new(Table::Product, it.clone())).collect();
        let stored = self.ports.state.get_many(&rows).await?;
        for (key, row) in keys.iter().zip(stored) {
            let version = row.map(|bytes| decode_product(&bytes)).transpose()?.map(|it| it.version);
            self.with_notes(self.partition_of(key), |it| it.looked(key, version, now_ns));
        }
        Ok(())
    }

    /// Asks a partition's notes.
    fn with_notes<T: Default>(&self, partition: u32, ask: impl FnOnce(&mut Notes<Key>) -> T) -> T {
        self.shared.lock().notes.get_mut(partition as usize).map_or_else(T::default, ask)
    }
}
