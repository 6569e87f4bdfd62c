//! Comparing the tables with a replay of the changelogs.

use crate::changelog::{self, Change};
use crate::halt::Halt;
use crate::ports::{ClusterPorts, changelog_of};
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};
use tillstream_log::LogError;
use tillstream_log::broker::BrokerError;
use tillstream_stage::{RowKey, Table};
use tillstream_state::TaskId;
use tillstream_state::row_store::{ShardPlace, StateKey};

const PAGE_ROWS: usize = 2_000;
const TIMERS_MAX: usize = 1_000_000;

/// What differs between a table and its changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The changelog has the row, the table has not.
    Missing(StateKey),
    /// The table has the row, the changelog has not.
    Extra(StateKey),
    /// Both have it, with other values.
    Other(StateKey),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, key) = match self {
            Self::Missing(key) => ("missing in the database", key),
            Self::Extra(key) => ("not in the changelog", key),
            Self::Other(key) => ("another value in the database", key),
        };
        match key {
            StateKey::Row(row) => write!(f, "{}/{}: {what}", row.table.name(), row.key),
            StateKey::Timer(it) => {
                write!(f, "timer {} {} of {}: {what}", it.due_ms, it.name.as_str(), it.key)
            }
        }
    }
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rows and timers that are alike.
    pub alike: u64,
    /// Differences, of which [`Verified::differences`] holds the first.
    pub different: u64,
    /// Rows behind the checkpoint that differ: a running task may not have flushed them yet.
    pub unflushed: u64,
    /// The first differences.
    pub differences: Vec<Difference>,
}

impl Verified {
    fn note(&mut self, difference: Difference, unflushed: bool, kept_max: usize) {
        if unflushed {
            self.unflushed += 1;
            return;
        }
        self.different += 1;
        if self.differences.len() < kept_max {
            self.differences.push(difference);
        }
    }
}

/// A key's last changelog record.
struct Last {
    value: Option<u64>,
    offset: u64,
}

fn hash_of(value: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Compares one task's tables and timers with a replay of its changelog. Holds one hash per key in memory.
///
/// # Errors
/// The broker's or the database's; [`Halt::ForeignRecord`].
pub async fn verify(
    ports: &ClusterPorts,
    task: TaskId,
    differences_max: usize,
) -> Result<Verified, LogError> {
    let mut verified = Verified::default();
    let Some(changelog) = changelog_of(task) else { return Ok(verified) };
    // Before the replay: what is flushed later than this only turns unflushed rows into alike ones.
    let checkpoint = ports.rows.checkpoint(task).await?.map_or(0, |it| it.offset);
    let unavailable = |error: BrokerError| error.into_log_error();
    let mut last: FxHashMap<StateKey, Last> = FxHashMap::default();
    let (start, _) = ports.broker.bounds(changelog).await.map_err(unavailable)?;
    let mut replay = ports.broker.replay(changelog, start).map_err(unavailable)?;
    loop {
        let records = replay.next().await.map_err(unavailable)?;
        if records.is_empty() {
            break;
        }
        for record in records {
            let offset = record.offset;
            let change = changelog::read(record).map_err(|detail| Halt::ForeignRecord {
                changelog,
                offset,
                detail,
            })?;
            if let Change::State(key, value) = change {
                last.insert(key, Last { value: value.as_deref().map(hash_of), offset });
            }
        }
    }
    let mut seen = |key: StateKey, value: u64| {
        let found = last.remove(&key);
        let unflushed = found.as_ref().is_some_and(|it| it.offset >= checkpoint);
        match found.and_then(|it| it.value) {
            Some(expected) if expected == value => verified.alike += 1,
            Some(_) => verified.note(Difference::Other(key), unflushed, differences_max),
            None => verified.note(Difference::Extra(key), unflushed, differences_max),
        }
    };
    for table in Table::ALL.into_iter().filter(|it| it.kind() == task.kind) {
        let mut from: Option<ShardPlace> = None;
        loop {
            let page = ports.rows.shard_page(table, task.partition, from.as_ref(), PAGE_ROWS).await?;
            for (key, row) in page.rows {
                seen(StateKey::Row(RowKey::new(table, key)), hash_of(&row.value));
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    for (timer, _) in ports.rows.timers(task, 0, i64::MAX, TIMERS_MAX).await? {
        seen(StateKey::Timer(timer), hash_of(b""));
    }
    for (key, it) in last {
        if it.value.is_some() {
            verified.note(Difference::Missing(key), it.offset >= checkpoint, differences_max);
        }
    }
    verified.differences.sort_by_key(ToString::to_string);
    Ok(verified)
}
