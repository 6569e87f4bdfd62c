//! Log, state and commit in memory.

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_stage::{RowKey, Table};
use tillstream_state::{Commit, Page, State, TaskCommit, TaskId, Timer};
use tokio::sync::{Semaphore, watch};

/// How one commit fails.
#[derive(Clone, Debug)]
pub enum Fail {
    /// Nothing is written.
    Before(LogError),
    /// Everything is written, but the answer is lost.
    After(LogError),
}

#[derive(Default)]
struct Inner {
    topics: HashMap<TopicPartition, Vec<Record>>,
    rows: BTreeMap<RowKey, Bytes>,
    timers: BTreeSet<Timer>,
    committed: HashMap<TaskId, u64>,
    script: VecDeque<Option<Fail>>,
    corrupt: Option<(TopicPartition, u64, u64)>,
    commits: usize,
    rows_read: usize,
    reads: HashMap<Topic, usize>,
}

pub struct MemoryStore {
    inner: Mutex<Inner>,
    partitions: u32,
    changed: watch::Sender<u64>,
    /// Commits wait for a permit; plenty unless a test holds them back.
    gate: Semaphore,
    waiting: watch::Sender<usize>,
    /// Row reads wait for a permit after they have looked.
    read_gate: Semaphore,
}

const OPEN: usize = 1 << 40;

impl MemoryStore {
    pub fn new(partitions: u32) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            partitions,
            changed: watch::channel(0).0,
            gate: Semaphore::new(OPEN),
            waiting: watch::channel(0).0,
            read_gate: Semaphore::new(OPEN),
        })
    }

    /// What the next commits do; `None` succeeds.
    pub fn script(&self, script: impl IntoIterator<Item = Option<Fail>>) {
        self.inner.lock().script = script.into_iter().collect();
    }

    pub fn corrupt(&self, partition: TopicPartition, offset: u64, next_offset: u64) {
        self.inner.lock().corrupt = Some((partition, offset, next_offset));
    }

    pub fn close_gate(&self) {
        self.gate.forget_permits(OPEN);
    }

    pub fn open_gate(&self) {
        self.gate.add_permits(OPEN);
    }

    pub fn close_read_gate(&self) {
        self.read_gate.forget_permits(OPEN);
    }

    pub fn open_read_gate(&self) {
        self.read_gate.add_permits(OPEN);
    }

    /// Waits until so many rows were asked for.
    pub async fn rows_are_read(&self, rows: usize) {
        let mut changed = self.changed.subscribe();
        let asked = async {
            while self.rows_read() < rows {
                changed.changed().await.unwrap();
            }
        };
        super::soon("a row read", asked).await;
    }

    pub async fn commit_waits(&self) {
        let mut waiting = self.waiting.subscribe();
        super::soon("a waiting commit", waiting.wait_for(|it| *it > 0)).await.unwrap();
    }

    pub fn records(&self, topic: Topic, partition: u32) -> Vec<Record> {
        let inner = self.inner.lock();
        inner.topics.get(&TopicPartition::new(topic, partition)).cloned().unwrap_or_default()
    }

    pub fn row(&self, table: Table, key: &str) -> Option<String> {
        let inner = self.inner.lock();
        let row = inner.rows.get(&RowKey::new(table, key.into()))?;
        Some(String::from_utf8(row.to_vec()).unwrap())
    }

    pub fn put_row(&self, table: Table, key: &str, value: Vec<u8>) {
        self.inner.lock().rows.insert(RowKey::new(table, key.into()), value.into());
    }

    pub fn timers(&self) -> Vec<Timer> {
        self.inner.lock().timers.iter().cloned().collect()
    }

    pub fn set_committed(&self, id: TaskId, offset: u64) {
        self.inner.lock().committed.insert(id, offset);
    }

    pub fn commits(&self) -> usize {
        self.inner.lock().commits
    }

    /// Rows asked of the store.
    pub fn rows_read(&self) -> usize {
        self.inner.lock().rows_read
    }

    /// Reads of a topic.
    pub fn reads(&self, topic: Topic) -> usize {
        self.inner.lock().reads.get(&topic).copied().unwrap_or_default()
    }

    fn apply(inner: &mut Inner, commit: TaskCommit) {
        for record in commit.outputs {
            push(inner, record);
        }
        for (key, row) in commit.rows {
            match row {
                Some(row) => inner.rows.insert(key, row),
                None => inner.rows.remove(&key),
            };
        }
        for timer in commit.timers_removed {
            inner.timers.remove(&timer);
        }
        inner.timers.extend(commit.timers_set);
        inner.committed.insert(commit.task, commit.next_offset);
        inner.commits += 1;
    }

    fn try_commit(&self, commit: TaskCommit) -> Result<(), LogError> {
        let mut inner = self.inner.lock();
        let found = inner.committed.get(&commit.task).copied().unwrap_or_default();
        if found != commit.from_offset {
            return Err(LogError::Fenced {
                task: commit.task.to_string(),
                expected: commit.from_offset,
                found,
            });
        }
        match inner.script.pop_front().flatten() {
            Some(Fail::Before(error)) => return Err(error),
            Some(Fail::After(error)) => {
                Self::apply(&mut inner, commit);
                return Err(error);
            }
            None => Self::apply(&mut inner, commit),
        }
        Ok(())
    }
}

fn push(inner: &mut Inner, record: NewRecord) {
    let records = inner.topics.entry(record.to).or_default();
    let offset = records.len() as u64;
    let NewRecord { key, value, headers, .. } = record;
    records.push(Record { offset, timestamp_ms: 7, key, value, headers });
}

impl Log for MemoryStore {
    fn partitions(&self, _topic: Topic) -> u32 {
        self.partitions
    }

    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            let mut inner = self.inner.lock();
            records.into_iter().for_each(|it| push(&mut inner, it));
            drop(inner);
            self.changed.send_modify(|it| *it += 1);
            Ok(())
        })
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        Box::pin(async move {
            let mut inner = self.inner.lock();
            *inner.reads.entry(from.topic).or_default() += 1;
            let mut until = u64::MAX;
            if let Some((partition, at, next_offset)) = inner.corrupt.filter(|it| it.0 == from) {
                if (at..next_offset).contains(&offset) {
                    let detail = "checksum".to_owned();
                    return Err(LogError::Corrupt { partition, offset: at, next_offset, detail });
                }
                until = if offset < at { at } else { until };
            }
            let records = inner.topics.get(&from).map(Vec::as_slice).unwrap_or_default();
            let rest = records.iter().filter(|it| (offset..until).contains(&it.offset));
            Ok(rest.take(limit.records_max).cloned().collect())
        })
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        let mut changed = self.changed.subscribe();
        Box::pin(async move {
            while self.end_offset(partition)? <= offset {
                let _ = changed.changed().await;
            }
            Ok(())
        })
    }

    fn start_offset(&self, _partition: TopicPartition) -> Result<u64, LogError> {
        Ok(0)
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        Ok(self.inner.lock().topics.get(&partition).map_or(0, |it| it.len() as u64))
    }
}

impl State for MemoryStore {
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, LogError>> {
        Box::pin(async move {
            let rows = {
                let mut inner = self.inner.lock();
                inner.rows_read += keys.len();
                keys.iter().map(|key| inner.rows.get(key).cloned()).collect()
            };
            self.changed.send_modify(|it| *it += 1);
            drop(self.read_gate.acquire().await);
            Ok(rows)
        })
    }

    fn scan<'a>(
        &'a self,
        _table: Table,
        _prefix: &'a str,
        _after: Option<&'a str>,
        _limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        Box::pin(async { Err(LogError::Io("the runtime scans nothing".to_owned())) })
    }

    fn timers_due(
        &self,
        _task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>> {
        Box::pin(async move {
            let inner = self.inner.lock();
            let due = inner.timers.iter().filter(|it| (from_ms..=until_ms).contains(&it.due_ms));
            Ok(due.take(limit).cloned().collect())
        })
    }

    fn committed(&self, task: TaskId) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(async move { Ok(self.inner.lock().committed.get(&task).copied().unwrap_or_default()) })
    }
}

impl Commit for MemoryStore {
    fn commit(&self, commit: TaskCommit) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            self.waiting.send_modify(|it| *it += 1);
            let permit = self.gate.acquire().await;
            self.waiting.send_modify(|it| *it -= 1);
            drop(permit);
            let result = self.try_commit(commit);
            self.changed.send_modify(|it| *it += 1);
            result
        })
    }
}
