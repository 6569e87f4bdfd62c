//! Rows, timers and checkpoints in ScyllaDB, or any database that speaks CQL.
//!
//! It decides nothing: what is flushed when and which reads may be trusted is the protocol's (crate
//! `tillstream-cluster`). Every write to a table of state carries the timestamp it is given, so the newest wins, in
//! whatever order writes come.
//!
//! It is tested against Apache Cassandra 5.0; it has not run on ScyllaDB yet.

mod checkpoint;
mod connect;
mod deployment;
mod error;
mod fetch;
mod keys;
mod place;
mod read;
mod retry;
mod scan;
mod schema;
mod settings;
mod statements;
mod timers;
mod write;

use connect::Link;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use place::Layout;
use statements::Statements;
use std::collections::{BTreeMap, BTreeSet};
use tillstream_log::LogError;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{RowKey, Table};
use tillstream_state::row_store::{
    Checkpoint, Deployment, KeyPage, RowStore, RowWrite, ShardPage, ShardPlace, StoredRow,
};
use tillstream_state::{Page, TaskId, Timer};
use tokio::sync::Semaphore;

pub use settings::{Consistency, Replication, ReplicationClass, ScyllaSettings, Secret, TlsSettings};

/// A CQL database. It reconnects by itself.
pub struct ScyllaStore {
    link: Link,
    statements: Statements,
    layout: Layout,
    reads: Semaphore,
    writes: Semaphore,
    /// Requests of one call that are under way at once.
    at_once: usize,
    /// Tasks whose tables are known to carry their marks.
    marked: Mutex<BTreeSet<TaskId>>,
}

impl std::fmt::Debug for ScyllaStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScyllaStore").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl ScyllaStore {
    /// Connects, creates what is missing of keyspace and tables (if `settings` allow it), and prepares the statements.
    /// `partitions` and `buckets` tell where rows lie: they never change for a keyspace, see [`Deployment`].
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when no node answers, else [`LogError::Stopped`]: settings (TS0355), login (TS0352), or
    /// tables that are not as expected (TS0353).
    pub async fn connect(settings: &ScyllaSettings, partitions: u32, buckets: u32) -> Result<Self, LogError> {
        settings.check()?;
        if partitions == 0 || buckets == 0 {
            return Err(settings::unusable("rows need a partition and a bucket at least".into()));
        }
        let link = Link::open(settings).await?;
        let session = link.session();
        schema::create(&session, settings).await?;
        let statements = Statements::prepare(&session, &settings.keyspace).await?;
        let at_once = (settings.in_flight_max / 2).max(1);
        Ok(Self {
            link,
            statements,
            layout: Layout { partitions, buckets },
            reads: Semaphore::new(at_once),
            writes: Semaphore::new(at_once),
            at_once,
            marked: Mutex::default(),
        })
    }
}

/// A `LIMIT` of CQL.
fn limit_of(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

impl RowStore for ScyllaStore {
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<StoredRow>>, LogError>> {
        Box::pin(self.get_all(keys))
    }

    fn write<'a>(&'a self, task: TaskId, writes: &'a [RowWrite]) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(self.write_all(task, writes))
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        Box::pin(self.scan_all(table, prefix, after, limit))
    }

    fn shard_page<'a>(
        &'a self,
        table: Table,
        partition: u32,
        from: Option<&'a ShardPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<ShardPage, LogError>> {
        Box::pin(self.page_of_shard(table, partition, from, limit))
    }

    fn shard_keys<'a>(
        &'a self,
        table: Table,
        partition: u32,
        from: Option<&'a ShardPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<KeyPage, LogError>> {
        Box::pin(self.keys_of_shard(table, partition, from, limit))
    }

    fn timers(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timer, i64)>, LogError>> {
        Box::pin(self.timers_due(task, from_ms, until_ms, limit))
    }

    fn checkpoint(&self, task: TaskId) -> BoxFuture<'_, Result<Option<Checkpoint>, LogError>> {
        Box::pin(self.read_checkpoint(task))
    }

    fn put_checkpoint(
        &self,
        task: TaskId,
        checkpoint: Checkpoint,
        timestamp: i64,
    ) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.write_checkpoint(task, checkpoint, timestamp))
    }

    fn put_flushed(
        &self,
        task: TaskId,
        input_offset: u64,
        timestamp: i64,
    ) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.write_flushed(task, input_offset, timestamp))
    }

    fn flushed(&self, kind: TaskKind) -> BoxFuture<'_, Result<BTreeMap<u32, u64>, LogError>> {
        Box::pin(self.read_flushed(kind))
    }

    fn marked_tables(&self, task: TaskId) -> BoxFuture<'_, Result<Vec<Table>, LogError>> {
        Box::pin(self.read_marks(task))
    }

    fn incarnations(&self) -> BoxFuture<'_, Result<BTreeMap<String, Option<i64>>, LogError>> {
        Box::pin(self.node_starts())
    }

    fn deployment(&self) -> BoxFuture<'_, Result<Option<Deployment>, LogError>> {
        Box::pin(self.read_deployment())
    }

    fn claim(&self, deployment: Deployment) -> BoxFuture<'_, Result<Deployment, LogError>> {
        Box::pin(self.claim_for(deployment))
    }

    fn set_rebuilding(&self, rebuilding: bool) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.note_rebuilding(rebuilding))
    }

    fn truncate(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.empty())
    }
}
