//! The database: one keyspace for the log, one per table, and a few small ones.

use crate::settings::EmbeddedSettings;
use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy, PinningPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions};
use std::path::Path;
use std::sync::Arc;
use tillstream_log::LogError;
use tillstream_stage::Table;

/// The keyspaces.
pub struct Tables {
    /// The database.
    pub db: Database,
    /// Batches.
    pub log: Keyspace,
    /// Rows, in the order of [`Table::ALL`].
    rows: Vec<Keyspace>,
    /// Timers.
    pub timers: Keyspace,
    /// Committed offsets.
    pub offsets: Keyspace,
    /// API keys of earlier versions.
    pub keys: Keyspace,
}

const MIB: u64 = 1 << 20;

fn options(memtable: u64) -> KeyspaceCreateOptions {
    // Small tables of 16 MiB keep one compaction short: the only worker also flushes, and writers wait for it.
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable)
        .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(16 * MIB)))
        // Most reads are of new keys: they end at the filters, which take about a byte per key.
        .filter_block_pinning_policy(PinningPolicy::all(true))
        .index_block_pinning_policy(PinningPolicy::all(true))
}

/// Log values are big, written once and removed in order: they lie in files of their own, which compaction
/// does not rewrite, and which go as a whole once nearly all in them is removed.
fn log_options() -> KeyspaceCreateOptions {
    let separation = KvSeparationOptions::default()
        .compression(CompressionType::None)
        .separation_threshold(512)
        .staleness_threshold(0.8)
        .age_cutoff(1.0);
    options(16 * MIB)
        .with_kv_separation(Some(separation))
        .data_block_size_policy(BlockSizePolicy::all(16 * 1024))
        .data_block_compression_policy(CompressionPolicy::disabled())
}

fn memtable_bytes(table: Table) -> u64 {
    match table {
        Table::Order => 16 * MIB,
        Table::Hold => 8 * MIB,
        Table::OrderIndex | Table::Product | Table::Stock => 4 * MIB,
        _ => 4 * MIB,
    }
}

/// fjall makes a keyspace whose directory is gone anew, empty, and says nothing of it.
fn check_complete(db: &Database) -> fjall::Result<()> {
    let found = db.list_keyspace_names();
    let names =
        ["log", "timers", "offsets", "keys"].into_iter().chain(Table::ALL.into_iter().map(Table::name));
    for name in names {
        if db.keyspace_exists(name) && !found.iter().any(|it| it.as_ref() as &str == name) {
            return Err(fjall::Error::Io(std::io::Error::other(format!("the table {name} is gone"))));
        }
    }
    Ok(())
}

impl Tables {
    /// Opens or makes the database at `path`.
    pub fn open(path: &Path, settings: &EmbeddedSettings) -> fjall::Result<Self> {
        let db = Database::builder(path)
            .cache_size(settings.cache_bytes)
            .worker_threads(settings.workers.max(1))
            .max_journaling_size(192 * MIB)
            .journal_compression(CompressionType::None)
            .manual_journal_persist(true)
            .open()?;
        check_complete(&db)?;
        let log = db.keyspace("log", log_options)?;
        let mut rows = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            rows.push(db.keyspace(table.name(), || options(memtable_bytes(table)))?);
        }
        let timers = db.keyspace("timers", || options(4 * MIB))?;
        let offsets = db.keyspace("offsets", || options(MIB))?;
        let keys = db.keyspace("keys", || options(MIB))?;
        tillstream_journal::sync_names(path).map_err(fjall::Error::Io)?;
        Ok(Self { db, log, rows, timers, offsets, keys })
    }

    /// The keyspace of a table.
    pub fn rows(&self, table: Table) -> &Keyspace {
        // Table ids count from 1 in the order of Table::ALL.
        &self.rows[table as usize - 1]
    }
}

/// What fjall says, as an error of the log.
pub fn io_error(error: impl std::fmt::Display) -> LogError {
    LogError::Io(error.to_string())
}

#[cfg(test)]
mod tests {
    use tillstream_stage::Table;
    use tillstream_stage::task::TaskKind;

    #[test]
    fn ids_count_from_one_in_the_order_of_all() {
        assert!(Table::ALL.into_iter().enumerate().all(|(index, it)| it as usize == index + 1));
        assert!(TaskKind::ALL.into_iter().enumerate().all(|(index, it)| it as usize == index + 1));
    }
}
