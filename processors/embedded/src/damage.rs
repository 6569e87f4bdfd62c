//! Damages a closed store on purpose, for tests of what happens then.

use crate::dir;
use crate::error::StoreError;
use crate::layout;
use crate::settings::EmbeddedSettings;
use crate::tables::Tables;
use fjall::PersistMode;
use tillstream_log::TopicPartition;

/// Flips a bit in the middle of the batch that holds `offset`. False when there is no such batch. The store
/// must be closed.
///
/// # Errors
/// The database cannot be opened or written.
pub fn flip_bit(settings: &EmbeddedSettings, from: TopicPartition, offset: u64) -> Result<bool, StoreError> {
    let _lock = dir::lock(&settings.data_dir)?;
    let database = |error: fjall::Error| StoreError::database(&settings.data_dir, error);
    let tables = Tables::open(&settings.data_dir.join(dir::DATABASE), settings).map_err(database)?;
    let up_to = layout::batch_position(from, 0).to_vec()..=layout::batch_key(from, offset, u32::MAX).to_vec();
    let Some(found) = tables.log.range(up_to).next_back() else { return Ok(false) };
    let (key, value) = found.into_inner().map_err(database)?;
    let mut value = value.to_vec();
    let middle = value.len() / 2;
    value[middle] ^= 1;
    let mut writes = tables.db.batch().durability(Some(PersistMode::SyncAll));
    writes.insert(&tables.log, key, value);
    writes.commit().map_err(database)?;
    Ok(true)
}
