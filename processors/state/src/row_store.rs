//! A CQL database, as the write-behind protocol needs it: last write wins by a timestamp we give, and nothing else.
//!
//! Like [`tillstream_log::broker`], these traits decide nothing. What is flushed when, what a checkpoint promises and
//! which reads may be trusted is the protocol's (crate `tillstream-cluster`).

use crate::{Page, TaskId, Timer};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use tillstream_log::LogError;
use tillstream_schemas::Text;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table};

/// A row and the timestamp it was written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Its value.
    pub value: Bytes,
    /// Its write's timestamp.
    pub timestamp: i64,
}

/// What a task keeps: a row or a timer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKey {
    /// A row.
    Row(RowKey),
    /// A timer of the task.
    Timer(Timer),
}

/// A write: last write wins, by timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowWrite {
    /// What.
    pub key: StateKey,
    /// Its value (of a timer: empty); `None` deletes.
    pub value: Option<Bytes>,
    /// `generation << 40 | changelog offset`.
    pub timestamp: i64,
}

/// How far a task's state is durable in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The changelog's incarnation, from 1.
    pub generation: u32,
    /// Every changelog record before this offset is in the tables.
    pub offset: u64,
    /// No timer that is set is due before this, ms since the epoch.
    pub timers_from_ms: i64,
}

/// One page of a shard's rows, for verifying and for filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardPage {
    /// Keys and rows.
    pub rows: Vec<(Key, StoredRow)>,
    /// Where to go on; `None` at the end.
    pub next: Option<ShardPlace>,
}

/// One page of a shard's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// Keys of rows.
    pub keys: Vec<Key>,
    /// Where to go on; `None` at the end.
    pub next: Option<ShardPlace>,
}

/// A place in the walk over a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// The bucket.
    pub bucket: u32,
    /// The last key seen in it.
    pub after: Option<Key>,
}

/// Who uses a keyspace. Written once, by the first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// The deployment's name.
    pub name: Text,
    /// The broker cluster's id.
    pub cluster_id: Text,
    /// Partitions per topic.
    pub partitions: u32,
    /// Buckets per shard.
    pub buckets: u32,
    /// Whether a rebuild has begun and not ended: tables are incomplete.
    pub rebuilding: bool,
}

/// Tables of rows and timers, checkpoints, and who owns them. Errors are [`LogError::Unavailable`] when another try may
/// help, else [`LogError::Stopped`].
pub trait RowStore: Send + Sync {
    /// The rows, in the order of the keys; at a quorum.
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<StoredRow>>, LogError>>;

    /// Writes all, grouped by the database's partitions, each write with its timestamp; acknowledged by a quorum. After
    /// an error any part may have been written.
    fn write<'a>(&'a self, task: TaskId, writes: &'a [RowWrite]) -> BoxFuture<'a, Result<(), LogError>>;

    /// Rows whose key starts with `prefix` and is greater than `after`, in key order, at most `limit`, of all shards.
    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>>;

    /// Walks over all rows of a task's shard of a table.
    fn shard_page<'a>(
        &'a self,
        table: Table,
        partition: u32,
        from: Option<&'a ShardPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<ShardPage, LogError>>;

    /// The same walk over the keys alone: what a filter needs, without the values.
    fn shard_keys<'a>(
        &'a self,
        table: Table,
        partition: u32,
        from: Option<&'a ShardPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<KeyPage, LogError>> {
        let page = self.shard_page(table, partition, from, limit);
        Box::pin(async move {
            let ShardPage { rows, next } = page.await?;
            Ok(KeyPage { keys: rows.into_iter().map(|(key, _)| key).collect(), next })
        })
    }

    /// The task's timers due from `from_ms` to `until_ms` (both inclusive), earliest first, at most `limit`, with the
    /// timestamps of their writes.
    fn timers(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timer, i64)>, LogError>>;

    /// The task's checkpoint; `None` before the first.
    fn checkpoint(&self, task: TaskId) -> BoxFuture<'_, Result<Option<Checkpoint>, LogError>>;

    /// Moves the task's checkpoint. `timestamp` as for rows: an older one loses.
    fn put_checkpoint(
        &self,
        task: TaskId,
        checkpoint: Checkpoint,
        timestamp: i64,
    ) -> BoxFuture<'_, Result<(), LogError>>;

    /// Notes that the rows of all inputs before `input_offset` can be read. `timestamp`: an older note loses.
    fn put_flushed(
        &self,
        task: TaskId,
        input_offset: u64,
        timestamp: i64,
    ) -> BoxFuture<'_, Result<(), LogError>>;

    /// The last note of every task of a kind, by partition.
    fn flushed(&self, kind: TaskKind) -> BoxFuture<'_, Result<BTreeMap<u32, u64>, LogError>>;

    /// The tables of the task that still carry its mark: [`RowStore::put_checkpoint`] marks each; a truncated table
    /// has lost it.
    fn marked_tables(&self, task: TaskId) -> BoxFuture<'_, Result<Vec<Table>, LogError>>;

    /// The start of every node that is a member, by host id: a node that restarts may have lost what it acknowledged
    /// and had not synced. `None`: it cannot be asked now.
    fn incarnations(&self) -> BoxFuture<'_, Result<BTreeMap<String, Option<i64>>, LogError>>;

    /// Who uses the keyspace; `None` in a new one.
    fn deployment(&self) -> BoxFuture<'_, Result<Option<Deployment>, LogError>>;

    /// Writes who uses it: the first of several wins, and all are told the winner.
    fn claim(&self, deployment: Deployment) -> BoxFuture<'_, Result<Deployment, LogError>>;

    /// Notes that a rebuild has begun or ended.
    fn set_rebuilding(&self, rebuilding: bool) -> BoxFuture<'_, Result<(), LogError>>;

    /// Empties every table of rows, timers and checkpoints.
    fn truncate(&self) -> BoxFuture<'_, Result<(), LogError>>;
}
