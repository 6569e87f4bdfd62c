//! Keyed state, timers, and the one call that changes the world: the atomic commit.

pub mod layout;
pub mod row_store;

use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use tillstream_log::{Log, LogError, NewRecord};
use tillstream_schemas::Text;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table, TimerName};

/// A task's identity: its kind and its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The kind.
    pub kind: TaskKind,
    /// The partition of its input topic.
    pub partition: u32,
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.kind.as_str(), self.partition)
    }
}

/// A timer that is set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timer {
    /// When it is due, ms since the epoch (≥ 0).
    pub due_ms: i64,
    /// The key that set it.
    pub key: Key,
    /// Which.
    pub name: TimerName,
}

/// One page of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values, in key order.
    pub rows: Vec<(Key, Bytes)>,
    /// Whether there is more after the last row.
    pub more: bool,
}

/// Reads of committed state.
pub trait State: Send + Sync {
    /// The rows, in the order of the keys; `None` where there is none.
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, LogError>>;

    /// Rows whose key starts with `prefix` and is greater than `after`, in key order, at most `limit`.
    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>>;

    /// The task's timers due from `from_ms` to `until_ms` (both inclusive), earliest first, at most `limit`.
    /// A lower bound spares the store from walking over what fired before.
    fn timers_due(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>>;

    /// The offset the task goes on from (one past its last committed input); 0 before its first commit.
    fn committed(&self, task: TaskId) -> BoxFuture<'_, Result<u64, LogError>>;
}

/// Everything one batch did. All of it takes effect, or nothing.
#[derive(Debug)]
pub struct TaskCommit {
    /// Who.
    pub task: TaskId,
    /// The offset the batch began at: must equal what is committed, else [`LogError::Fenced`].
    pub from_offset: u64,
    /// One past the last input of the batch (equal to `from_offset` when only timers fired).
    pub next_offset: u64,
    /// Records to append.
    pub outputs: Vec<NewRecord>,
    /// New rows; `None` deletes. At most one entry per key.
    pub rows: Vec<(RowKey, Option<Bytes>)>,
    /// Timers to remove (fired, moved or cleared).
    pub timers_removed: Vec<Timer>,
    /// Timers to set.
    pub timers_set: Vec<Timer>,
}

/// The seam: outputs, state changes and the input offset, in one step.
pub trait Commit: Send + Sync {
    /// Durable once it returns. Any error ends the task's life: drop the cache and start again from `committed`.
    fn commit(&self, commit: TaskCommit) -> BoxFuture<'_, Result<(), LogError>>;
}

/// One life of a task: what it reads from and commits to. When a call fails for good, open another.
#[derive(Clone)]
pub struct Session {
    /// Its input, as far as it may be read; and how many partitions every topic has.
    pub log: Arc<dyn Log>,
    /// Its committed state.
    pub state: Arc<dyn State>,
    /// Its commit.
    pub commit: Arc<dyn Commit>,
}

/// Where tasks begin their lives.
pub trait Sessions: Send + Sync {
    /// Begins a new life of the task: every earlier one, wherever it runs, can commit nothing more.
    fn open(&self, task: TaskId) -> BoxFuture<'_, Result<Session, LogError>>;
}

/// A session that is opened again is the same one: for parts that are put together by hand.
impl Sessions for Session {
    fn open(&self, _task: TaskId) -> BoxFuture<'_, Result<Session, LogError>> {
        Box::pin(std::future::ready(Ok(self.clone())))
    }
}

/// The sessions of a store that only this process uses: all share it.
pub struct Shared<S>(pub Arc<S>);

impl<S: Log + State + Commit + 'static> Sessions for Shared<S> {
    fn open(&self, _task: TaskId) -> BoxFuture<'_, Result<Session, LogError>> {
        let (log, state, commit) = (self.0.clone(), self.0.clone(), self.0.clone());
        Box::pin(std::future::ready(Ok(Session { log, state, commit })))
    }
}

/// An API key, as earlier versions stored it: never the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// Public id, such as `key_…`.
    pub id: Text,
    /// The tenant it speaks for.
    pub tenant: Text,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// What people call it.
    pub name: Text,
    /// When it was made, ms since the epoch.
    pub created_at_ms: i64,
    /// When it was revoked.
    pub revoked_at_ms: Option<i64>,
}

/// Where earlier versions kept API keys. Now they are in the log, and nothing writes here: a start takes over what is left.
pub trait Keys: Send + Sync {
    /// Every key, revoked ones included, in id order.
    fn list_keys(&self) -> BoxFuture<'_, Result<Vec<StoredKey>, LogError>>;
}

/// Whether the store takes writes, for `/readyz`.
pub trait Health: Send + Sync {
    /// `None` when all is well, else why new work is refused.
    fn trouble(&self) -> Option<LogError>;
}
