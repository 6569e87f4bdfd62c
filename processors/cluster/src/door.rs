//! What the HTTP door reads: rows of every partition, and how far every task is, wherever it runs.

use crate::open::ClusterSessions;
use crate::overlay::Known;
use crate::ports::ClusterPorts;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tillstream_log::{Log, LogError, ReadLimit, TopicPartition};
use tillstream_runtime::timeout;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{RowKey, Table};
use tillstream_state::layout::shard_of;
use tillstream_state::row_store::StateKey;
use tillstream_state::{Page, State, TaskId, Timer};
use tokio::sync::{Notify, watch};

/// The longest a read waits for the database: whoever called has better things to do.
const READ_MAX: Duration = Duration::from_secs(2);
/// After a read that was not answered, one in so long tries again; the others are refused at once.
const AWAY: Duration = Duration::from_secs(1);

/// Rows as the database has them; newer ones where the task that writes them runs in this process. A row changed
/// elsewhere is at most a flush interval old. While the database does not answer, reads are [`LogError::Unavailable`]
/// soon, most of them at once.
pub struct ClusterState {
    ports: ClusterPorts,
    sessions: Option<Arc<ClusterSessions>>,
    /// Until then (monotonic ns) nobody but one asks the database; 0: it answers.
    away_until_ns: AtomicU64,
}

impl ClusterState {
    /// Over the tasks of this process, if it has any.
    pub fn new(ports: ClusterPorts, sessions: Option<Arc<ClusterSessions>>) -> Self {
        Self { ports, sessions, away_until_ns: AtomicU64::new(0) }
    }

    /// Whether the database may be asked: always while it answers, else once in a while.
    fn may_ask(&self) -> bool {
        let until_ns = self.away_until_ns.load(Ordering::Relaxed);
        if until_ns == 0 {
            return true;
        }
        let next_ns = self.ports.clock.deadline(AWAY);
        let (order, now_ns) = (Ordering::Relaxed, self.ports.clock.monotonic_ns());
        now_ns >= until_ns && self.away_until_ns.compare_exchange(until_ns, next_ns, order, order).is_ok()
    }

    /// What the database says, soon.
    async fn ask<T>(&self, answer: impl Future<Output = Result<T, LogError>>) -> Result<T, LogError> {
        if !self.may_ask() {
            return Err(LogError::Unavailable("the database has not answered lately".to_owned()));
        }
        let clock = &*self.ports.clock;
        let answer = timeout(clock, clock.deadline(READ_MAX), answer).await;
        let answer = answer
            .unwrap_or_else(|| Err(LogError::Unavailable("the database does not answer in time".to_owned())));
        let until_ns = match &answer {
            Err(LogError::Unavailable(_)) => clock.deadline(AWAY),
            _ => 0,
        };
        self.away_until_ns.store(until_ns, Ordering::Relaxed);
        answer
    }

    async fn read(&self, keys: &[RowKey]) -> Result<Vec<Option<Bytes>>, LogError> {
        let mut values = vec![None; keys.len()];
        let mut asked = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let task =
                TaskId { kind: key.table.kind(), partition: shard_of(key, self.ports.settings.partitions) };
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
        for (index, row) in asked.into_iter().zip(self.ask(self.ports.rows.get_many(&wanted)).await?) {
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
        Box::pin(self.ask(self.ports.rows.scan(table, prefix, after, limit)))
    }

    fn timers_due(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>> {
        Box::pin(async move {
            let found = self.ask(self.ports.rows.timers(task, from_ms, until_ms, limit)).await?;
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

/// The same for whoever must have an answer: a task that needs a product waits for the database instead of ending its
/// life.
pub struct PatientState(pub Arc<ClusterState>);

impl PatientState {
    async fn wait_out<T, F: Future<Output = Result<T, LogError>>>(
        &self,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, LogError> {
        let ports = &self.0.ports;
        loop {
            match ask().await {
                Err(LogError::Unavailable(detail)) => {
                    tracing::debug!(detail, "waiting for the database");
                    ports.clock.sleep(ports.settings.retry_wait).await;
                }
                other => return other,
            }
        }
    }
}

impl State for PatientState {
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, LogError>> {
        Box::pin(self.wait_out(|| self.0.get_many(keys)))
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        Box::pin(self.wait_out(move || self.0.scan(table, prefix, after, limit)))
    }

    fn timers_due(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>> {
        Box::pin(self.wait_out(move || self.0.timers_due(task, from_ms, until_ms, limit)))
    }

    fn committed(&self, task: TaskId) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(self.wait_out(move || self.0.committed(task)))
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
            Some(_) => {
                let clock = &*self.ports.clock;
                let asked = timeout(clock, clock.deadline(READ_MAX), self.ports.rows.flushed(kind)).await;
                asked.and_then(Result::ok).unwrap_or_default()
            }
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

    /// Every task's records that are not committed yet; empty before the first answer.
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
