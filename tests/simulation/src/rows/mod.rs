//! A CQL database in memory: last write wins by timestamp, and every way a write can go wrong.

mod faults;
mod store;
mod tables;

pub use faults::{Loss, RowFaults, WriteFault};
pub use tables::RowsSnapshot;

use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tables::Mutation;
use tillstream_random::Random;
use tillstream_runtime::Clock;
use tillstream_stage::RowKey;
use tillstream_state::row_store::{Checkpoint, RowWrite, StoredRow};
use tillstream_state::{TaskId, Timer};
use tokio::sync::Notify;

/// A call of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowCall {
    /// `RowStore::get_many`.
    GetMany,
    /// `RowStore::write`.
    Write,
    /// `RowStore::scan`.
    Scan,
    /// `RowStore::shard_page`.
    ShardPage,
    /// `RowStore::timers`.
    Timers,
    /// `RowStore::checkpoint`.
    Checkpoint,
    /// `RowStore::put_checkpoint`.
    PutCheckpoint,
    /// `RowStore::put_flushed`.
    PutFlushed,
    /// `RowStore::flushed`.
    Flushed,
    /// `RowStore::marked_tables`.
    MarkedTables,
    /// `RowStore::incarnations`.
    Incarnations,
    /// `RowStore::deployment`.
    Deployment,
    /// `RowStore::claim`.
    Claim,
    /// `RowStore::set_rebuilding`.
    SetRebuilding,
    /// `RowStore::truncate`.
    Truncate,
}

/// How the simulated database is set.
#[derive(Clone)]
pub struct RowSettings {
    /// Partitions per topic: shards.
    pub partitions: u32,
    /// Buckets per shard.
    pub buckets: u32,
    /// Decides everything that is left open.
    pub seed: u64,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How long a client waits for an answer.
    pub call_timeout: Duration,
    /// What was written longer ago survives a crash.
    pub sync_period: Duration,
    /// A call lets others run up to so many times before it takes effect.
    pub yields_max: usize,
    /// Whether reads of each row and groups of writes are counted.
    pub counts: bool,
    /// Whether what is asked to be written is kept for [`SimRows::asked`].
    pub keeps: bool,
}

impl RowSettings {
    /// 16 buckets, and the commit log synced every 10 s.
    pub fn new(partitions: u32, seed: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            partitions,
            buckets: 16,
            seed,
            clock,
            call_timeout: Duration::from_secs(2),
            sync_period: Duration::from_secs(10),
            yields_max: 2,
            counts: true,
            keeps: false,
        }
    }
}

/// What was asked of the database so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Calls by kind.
    pub calls: BTreeMap<RowCall, u64>,
    /// How often each row was read by key.
    pub reads: BTreeMap<RowKey, u64>,
    /// Rows and timers written, before last-write-wins.
    pub cells_written: u64,
    /// Groups of rows of one table, shard and bucket within the writes.
    pub groups_written: u64,
}

/// What was asked to be written since somebody looked last.
#[derive(Debug, Default)]
pub struct Asked {
    /// Every write, whatever became of it.
    pub writes: Vec<(TaskId, RowWrite)>,
    /// Those that were acknowledged.
    pub acknowledged: Vec<(TaskId, RowWrite)>,
}

struct Inner {
    settings: RowSettings,
    random: Random,
    live: RowsSnapshot,
    /// What survives a crash.
    synced: RowsSnapshot,
    /// Since then, with the time of each.
    unsynced: VecDeque<(u64, Mutation)>,
    unavailable: bool,
    slow: Duration,
    holding: bool,
    /// Writes that wait for their release, by number.
    held: BTreeMap<u64, Vec<Mutation>>,
    /// Numbers of writes that were released.
    released: BTreeSet<u64>,
    next_held: u64,
    /// Writes whose caller was told they failed, and that arrive later.
    late: Vec<Mutation>,
    faults: Vec<(RowCall, usize, WriteFault)>,
    injected: u64,
    incarnation: i64,
    incarnation_hidden: bool,
    counts: RowCounts,
    asked: Asked,
}

impl Inner {
    fn apply(&mut self, now_ns: u64, mutations: Vec<Mutation>) {
        for mutation in mutations {
            self.unsynced.push_back((now_ns, mutation.clone()));
            self.live.apply(mutation);
        }
    }

    fn sync(&mut self, now_ns: u64) {
        let period_ns = u64::try_from(self.settings.sync_period.as_nanos()).unwrap_or(u64::MAX);
        while self.unsynced.front().is_some_and(|(at, _)| at.saturating_add(period_ns) <= now_ns) {
            if let Some((_, mutation)) = self.unsynced.pop_front() {
                self.synced.apply(mutation);
            }
        }
    }
}

/// The database. Clones are the same one.
#[derive(Clone)]
pub struct SimRows {
    inner: Arc<Mutex<Inner>>,
    clock: Arc<dyn Clock>,
    changed: Arc<Notify>,
}

impl SimRows {
    /// An empty database.
    pub fn new(settings: RowSettings) -> Self {
        let clock = settings.clock.clone();
        let inner = Inner {
            random: Random::new(settings.seed),
            settings,
            live: RowsSnapshot::default(),
            synced: RowsSnapshot::default(),
            unsynced: VecDeque::new(),
            unavailable: false,
            slow: Duration::ZERO,
            holding: false,
            held: BTreeMap::new(),
            released: BTreeSet::new(),
            next_held: 0,
            late: Vec::new(),
            faults: Vec::new(),
            injected: 0,
            incarnation: 1,
            incarnation_hidden: false,
            counts: RowCounts::default(),
            asked: Asked::default(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), clock, changed: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock();
        inner.sync(self.clock.monotonic_ns());
        inner
    }

    /// What can go wrong, at hand.
    pub fn faults(&self) -> RowFaults {
        RowFaults::new(self.clone())
    }

    /// Every row, deleted ones left out.
    pub fn rows(&self) -> BTreeMap<RowKey, StoredRow> {
        let inner = self.lock();
        let rows = inner.live.rows.iter().filter_map(|(key, cell)| {
            let value = cell.value.clone()?;
            Some((key.clone(), StoredRow { value, timestamp: cell.timestamp }))
        });
        rows.collect()
    }

    /// Every timer that is set, with its write's timestamp.
    pub fn all_timers(&self) -> BTreeMap<(TaskId, Timer), i64> {
        let inner = self.lock();
        let set = inner.live.timers.iter().filter(|(_, cell)| cell.value.is_some());
        set.map(|(key, cell)| (key.clone(), cell.timestamp)).collect()
    }

    /// Every checkpoint.
    pub fn checkpoints(&self) -> BTreeMap<TaskId, Checkpoint> {
        self.lock().live.checkpoints.iter().map(|(task, (_, checkpoint))| (*task, *checkpoint)).collect()
    }

    /// What was asked to be written since the last call, where it is kept.
    pub fn asked(&self) -> Asked {
        std::mem::take(&mut self.lock().asked)
    }

    /// A copy to restore.
    pub fn snapshot(&self) -> RowsSnapshot {
        self.lock().live.clone()
    }

    /// What was asked so far.
    pub fn counts(&self) -> RowCounts {
        self.lock().counts.clone()
    }

    /// Forgets the counts.
    pub fn reset_counts(&self) {
        self.lock().counts = RowCounts::default();
    }

    /// Faults that have struck.
    pub fn faults_struck(&self) -> u64 {
        self.lock().injected
    }

    /// Writes that wait for their release.
    pub fn held(&self) -> usize {
        self.lock().held.len()
    }
}
