//! What the HTTP door reads: rows of every partition, and how far every task is, wherever it runs.

use crate::open::ClusterSessions;
use crate::overlay::Known;
use crate::ports::ClusterPorts;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::{Log, LogError, ReadLimit, TopicPartition};
use tillstream_runtime::timeout;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{RowKey, Table};
use tillstream_state::layout::shard_of;
use tillstream_state::row_store::StateKey;
use tillstream_state::{Page, State, TaskId, Timer};
use tokio::sync::{Notify, watch};

/// Rows as the database has them; newer ones where the task that writes them runs in this process. A row changed
/// elsewhere is at most a flush interval old.
pub struct ClusterState {
    ports: ClusterPorts,
    sessions: Option<Arc<ClusterSessions>>,
}

impl ClusterState {
    /// Over the tasks of this process, if it has any.
    pub fn new(ports: ClusterPorts, sessions: Option<Arc<ClusterSessions>>) -> Self {
        Self { ports, sessions }
    }

    async fn read(&self, keys: &[RowKey]) -> Result<Vec<Option<Bytes>>, LogError> {
        let mut values = vec![None; keys.len()];
        let mut asked = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let task = TaskId { kind: key.table.kind(), partition: shard_of(key, self.ports.settings.partitions) };
            let life = self.sessions.as_ref().and_then(|it| it.life(task));
            match life.map(|it| it.inner.lock().overlay.get(&StateKey::Row(key.clone()))) {
                Some(Known::Value(value)) => values[index] = value,
                _ => asked.push(index),
            }
        }
        if asked.is_empty() {
            return Ok(values);
        }
        let wanted: Vec<RowKey> = asked.iter().map(|it| keys[*it].clone()).collect();
        for (index, row) in asked.into_iter().zip(self.ports.rows.get_many(&wanted).await?) {
            values[index] = row.map(|it| it.value);
        }
        Ok(values)
    }
}

impl State for ClusterState {
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, LogError>> {
        Box::pin(self.read(keys))
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        self.ports.rows.scan(table, prefix, after, limit)
    }

    fn timers_due(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>> {
        Box::pin(async move {
            let found = self.ports.rows.timers(task, from_ms, until_ms, limit).await?;
            Ok(found.into_iter().map(|(timer, _)| timer).collect())
        })
    }

    fn committed(&self, task: TaskId) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(async move {
            let group = self.ports.settings.group(task.kind);
            let input = [TopicPartition::new(task.kind.input(), task.partition)];
            let found = self.ports.broker.group_offsets(&group, &input).await;
            let found = found.map_err(|error| LogError::Unavailable(error.to_string()))?;
            Ok(found.into_iter().next().flatten().map_or(0, |it| it.offset))
        })
    }
}

/// What was heard of a task.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// Rows of inputs before this can be read.
    readable: u64,
    /// Its committed offset.
    committed: u64,
    /// Past it, and past commit markers behind which nothing waits.
    reached: u64,
    /// Where its input ends.
    end: u64,
}

/// How far the tasks of the whole deployment are, asked for again and again.
pub struct ClusterProgress {
    ports: ClusterPorts,
    log: Arc<dyn Log>,
    heard: Mutex<BTreeMap<TaskId, Heard>>,
    changed: watch::Sender<u64>,
    /// Somebody waits: ask soon.
    wanted: Notify,
}

impl ClusterProgress {
    /// Nothing known yet.
    pub fn new(ports: ClusterPorts, log: Arc<dyn Log>) -> Arc<Self> {
        let (changed, _) = watch::channel(0);
        Arc::new(Self { ports, log, heard: Mutex::default(), changed, wanted: Notify::new() })
    }

    /// Keeps asking until `shutdown`: every `interval`, and every `eager` while somebody waits.
    pub async fn run(&self, interval: Duration, eager: Duration, mut shutdown: watch::Receiver<bool>) {
        let clock = &self.ports.clock;
        loop {
            for kind in TaskKind::ALL {
                if let Err(error) = self.ask(kind).await {
                    tracing::debug!(stage = kind.as_str(), %error, "how far the tasks are is not known now");
                }
            }
            self.changed.send_modify(|it| *it += 1);
            let deadline_ns = clock.deadline(interval);
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|it| *it) => return,
                _ = timeout(&**clock, deadline_ns, self.wanted.notified()) => {}
            }
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|it| *it) => return,
                () = clock.sleep(eager) => {}
            }
        }
    }

    async fn ask(&self, kind: TaskKind) -> Result<(), LogError> {
        let inputs: Vec<TopicPartition> =
            (0..self.ports.settings.partitions).map(|it| TopicPartition::new(kind.input(), it)).collect();
        let group = self.ports.settings.group(kind);
        let places = self.ports.broker.group_offsets(&group, &inputs).await;
        let places = places.map_err(|error| LogError::Unavailable(error.to_string()))?;
        self.log.refresh(&inputs).await?;
        // A database that does not answer leaves rows unreadable, but not the lag unknown.
        let flushed = match kind.changelog() {
            Some(_) => self.ports.rows.flushed(kind).await.unwrap_or_default(),
            None => BTreeMap::new(),
        };
        for (input, place) in inputs.iter().zip(places) {
            let task = TaskId { kind, partition: input.partition };
            let committed = place.map_or(0, |it| it.offset);
            let end = self.log.end_offset(*input)?;
            let before = self.heard.lock().get(&task).copied();
            let mut readable = before.map_or(0, |it| it.readable);
            match kind.changelog() {
                Some(_) => readable = readable.max(flushed.get(&input.partition).copied().unwrap_or(0)),
                None => readable = committed,
            }
            let mut reached = before.map_or(0, |it| it.reached).max(committed);
            // It stands still before the end: perhaps only commit markers are left.
            if reached < end && before.is_some_and(|it| it.committed == committed) {
                let limit = ReadLimit { records_max: 1, bytes_max: 1 };
                let (records, next_offset) = self.log.read_on(*input, reached, limit).await?;
                if records.is_empty() {
                    reached = reached.max(next_offset);
                }
            }
            if readable >= committed {
                readable = readable.max(reached);
            }
            self.heard.lock().insert(task, Heard { readable, committed, reached, end });
        }
        Ok(())
    }

    /// Whether the task has committed its input before `end`, and its rows can be read.
    pub fn has_committed(&self, task: TaskId, end: u64) -> bool {
        self.heard.lock().get(&task).is_some_and(|it| it.readable >= end)
    }

    /// Whether the task lags fewer than `records` behind its input.
    pub fn keeps_up(&self, task: TaskId, records: u64) -> bool {
        self.heard.lock().get(&task).is_none_or(|it| it.end.saturating_sub(it.reached) <= records)
    }

    /// Every task's records that are not committed yet; `None` before the first answer.
    pub fn lags(&self) -> Vec<(TaskId, u64)> {
        self.heard.lock().iter().map(|(task, it)| (*task, it.end.saturating_sub(it.reached))).collect()
    }

    /// Resolves once [`ClusterProgress::has_committed`] holds.
    pub async fn wait_committed(&self, task: TaskId, end: u64) {
        let mut changed = self.changed.subscribe();
        while !self.has_committed(task, end) {
            self.wanted.notify_one();
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}
