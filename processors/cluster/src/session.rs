//! One life of one task: reads, and the one transaction that changes the world.

use crate::changelog::{self, Tag};
use crate::filter::KnownKeys;
use crate::overlay::{Known, Overlay};
use crate::ports::{ClusterPorts, changelog_of, input_of};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tillstream_log::broker::{
    BrokerError, GroupMember, GroupMetadata, GroupOffset, ProduceRecord, TransactionalProducer,
};
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_runtime::timeout;
use tillstream_schemas::Topic;
use tillstream_stage::{RowKey, Table};
use tillstream_state::row_store::StateKey;
use tillstream_state::{Commit, Page, State, TaskCommit, TaskId, Timer};
use tokio::sync::Notify;

/// What a life has come to know, behind one lock.
pub(crate) struct Inner {
    /// Where the task goes on.
    pub next_offset: u64,
    /// One past the last record handed to the task.
    pub taken_to: u64,
    /// The member's generation when records were taken that are not committed yet, oldest first, each with one past its
    /// last record. A task that reads ahead has several.
    pub members: VecDeque<(u64, GroupMetadata)>,
    /// Committed changes that wait for the database.
    pub overlay: Overlay,
    /// One past the last changelog record of this life (or replayed).
    pub changelog_end: u64,
    /// The checkpoint that is surely on disk: told with every offset.
    pub tag: Tag,
    /// Whether the changelog's first record is written.
    pub incarnation_written: bool,
    /// No timer is due before this.
    pub timers_from_ms: i64,
    /// Keys that were ever written.
    pub known: KnownKeys,
}

/// One life of one task. Once it has failed, every call fails.
pub(crate) struct ClusterSession {
    pub task: TaskId,
    pub ports: ClusterPorts,
    pub producer: Arc<dyn TransactionalProducer>,
    pub group: Arc<dyn GroupMember>,
    pub inner: Mutex<Inner>,
    /// Why it is over.
    pub over: Mutex<Option<String>>,
    pub is_over: AtomicBool,
    /// Wakes whoever waits for the end, for room, or for something to flush.
    pub changed: Notify,
}

impl ClusterSession {
    /// The error of a life that is over.
    pub fn life_over(&self, reason: impl Into<String>) -> LogError {
        let reason = reason.into();
        let mut over = self.over.lock();
        let reason = over.get_or_insert(reason).clone();
        drop(over);
        self.is_over.store(true, Ordering::Release);
        self.changed.notify_waiters();
        LogError::LifeOver { task: self.task.to_string(), reason }
    }

    pub fn check_alive(&self) -> Result<(), LogError> {
        if self.is_over.load(Ordering::Acquire) {
            return Err(self.life_over("it has failed before"));
        }
        Ok(())
    }

    /// Waits for `work`, or for the end of this life.
    async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Result<T, LogError> {
        let over = async {
            loop {
                let changed = self.changed.notified();
                if self.is_over.load(Ordering::Acquire) {
                    return;
                }
                changed.await;
            }
        };
        tokio::select! {
            biased;
            () = over => Err(self.life_over("it has failed before")),
            done = work => Ok(done),
        }
    }

    /// Waits until the database has taken enough that more may wait for it.
    async fn wait_for_room(&self) -> Result<(), LogError> {
        let bytes_max = self.ports.settings.unflushed_bytes_max;
        self.unless_over(async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.inner.lock().overlay.bytes() <= bytes_max {
                    return;
                }
                changed.await;
            }
        })
        .await
    }

    /// The transaction's records: outputs, then the changelog. Also the index of the first changelog record.
    fn records(&self, commit: &TaskCommit, outputs: Vec<NewRecord>) -> (Vec<ProduceRecord>, usize) {
        let count =
            outputs.len() + commit.rows.len() + commit.timers_removed.len() + commit.timers_set.len() + 1;
        let mut records = Vec::with_capacity(count);
        records.extend(outputs.into_iter().map(|it| ProduceRecord {
            to: it.to,
            key: it.key,
            value: Some(it.value),
            headers: it.headers,
        }));
        let first = records.len();
        let Some(to) = changelog_of(self.task) else { return (records, first) };
        let inner = self.inner.lock();
        if !inner.incarnation_written {
            records.push(changelog::incarnation(to, inner.tag.generation));
        }
        drop(inner);
        records.extend(commit.rows.iter().map(|(key, value)| changelog::row(to, key, value.clone())));
        records.extend(commit.timers_removed.iter().map(|it| changelog::timer(to, it, false)));
        records.extend(commit.timers_set.iter().map(|it| changelog::timer(to, it, true)));
        (records, first)
    }

    /// Produce, wait until every delivery is acknowledged, send the offset last, commit.
    async fn transact(
        &self,
        records: Vec<ProduceRecord>,
        member: &GroupMetadata,
        first_change: usize,
        offset: GroupOffset,
    ) -> Result<Vec<u64>, (BrokerError, bool)> {
        let group = self.ports.settings.group(self.task.kind);
        let expected = records.len();
        let open = |error: BrokerError| (error, true);
        self.producer.begin().await.map_err(open)?;
        let mut offsets = Vec::new();
        if expected > 0 {
            self.producer.produce(records).await.map_err(open)?;
            offsets = self.producer.drain().await.map_err(open)?;
        }
        if offsets.len() != expected {
            let detail = format!("{} of {expected} records were acknowledged", offsets.len());
            return Err((BrokerError::Unknown(detail), true));
        }
        let changelog_end = self.inner.lock().changelog_end;
        if let Some(found) = offsets.get(first_change).filter(|it| **it < changelog_end) {
            // Its rows would lose against older ones: the next life halts over it.
            let detail = format!("the changelog was at {changelog_end} and is at {found}: it was recreated");
            return Err((BrokerError::Unknown(detail), true));
        }
        self.producer.send_offset(&group, member, input_of(self.task), offset).await.map_err(open)?;
        self.producer.commit().await.map_err(|error| (error, false))?;
        Ok(offsets)
    }

    async fn commit_batch(&self, mut commit: TaskCommit) -> Result<(), LogError> {
        self.check_alive()?;
        let (member, tag) = {
            let inner = self.inner.lock();
            if commit.from_offset != inner.next_offset {
                let (expected, found) = (commit.from_offset, inner.next_offset);
                drop(inner);
                return Err(self.life_over(format!("a batch from {expected}, but {found} is committed")));
            }
            (inner.members.front().map(|(_, it)| it.clone()), inner.tag)
        };
        if let Some(wrong) =
            commit.outputs.iter().find(|it| it.to.partition >= self.ports.settings.partitions)
        {
            return Err(LogError::NoSuchPartition(wrong.to));
        }
        self.wait_for_room().await?;
        let member = match member {
            Some(member) => member,
            None => self.group.metadata().map_err(|error| self.life_over(error.to_string()))?,
        };
        let outputs = std::mem::take(&mut commit.outputs);
        let (records, first) = self.records(&commit, outputs);
        let offset = GroupOffset { offset: commit.next_offset, metadata: tag.encode() };
        let deadline_ns = self.ports.clock.deadline(self.ports.settings.batch_deadline());
        let ended =
            timeout(&*self.ports.clock, deadline_ns, self.transact(records, &member, first, offset)).await;
        match ended {
            Some(Ok(offsets)) => {
                self.committed(commit, offsets.get(first..).unwrap_or_default());
                Ok(())
            }
            Some(Err((error, abortable))) => {
                let over = self.life_over(format!("its transaction failed: {error}"));
                // The next life's fencing would end it too; this spares readers the wait.
                if abortable && !matches!(error, BrokerError::Fenced(_)) {
                    let deadline_ns = self.ports.clock.deadline(std::time::Duration::from_secs(1));
                    if timeout(&*self.ports.clock, deadline_ns, self.producer.abort()).await.is_none() {
                        tracing::debug!(task = %self.task, "the abort is left to the next life");
                    }
                }
                Err(over)
            }
            None => Err(self.life_over("its transaction was not over at the batch's deadline")),
        }
    }

    /// The transaction is committed: what it wrote is what there is.
    fn committed(&self, commit: TaskCommit, offsets: &[u64]) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.next_offset = commit.next_offset;
        // Records read ahead were taken under a generation of their own.
        while inner.members.front().is_some_and(|(end, _)| *end <= commit.next_offset) {
            inner.members.pop_front();
        }
        if changelog_of(self.task).is_none() {
            return;
        }
        let mut offsets = offsets.iter().copied();
        if !inner.incarnation_written {
            offsets.next();
            inner.incarnation_written = true;
        }
        let generation = inner.tag.generation;
        for timer in &commit.timers_set {
            inner.timers_from_ms = inner.timers_from_ms.min(timer.due_ms);
        }
        let rows = commit.rows.into_iter().map(|(key, value)| {
            if value.is_some() {
                inner.known.insert(&key);
            }
            (StateKey::Row(key), value)
        });
        let removed = commit.timers_removed.into_iter().map(|it| (StateKey::Timer(it), None));
        let set = commit.timers_set.into_iter().map(|it| (StateKey::Timer(it), Some(Bytes::new())));
        for ((key, value), offset) in rows.chain(removed).chain(set).zip(&mut offsets) {
            inner.overlay.put(key, value, changelog::timestamp(generation, offset));
            inner.changelog_end = inner.changelog_end.max(offset + 1);
        }
    }

    /// Waits out a database that does not answer.
    pub async fn until_available<T, F: Future<Output = Result<T, LogError>>>(
        &self,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, LogError> {
        let mut told = false;
        loop {
            match self.unless_over(ask()).await? {
                Err(LogError::Unavailable(detail)) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(task = %self.task, detail, "waiting for the database");
                    }
                    self.unless_over(self.ports.clock.sleep(self.ports.settings.retry_wait)).await?;
                }
                other => return other,
            }
        }
    }

    async fn read_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<Bytes>>, LogError> {
        self.check_alive()?;
        let mut values: Vec<Option<Bytes>> = vec![None; keys.len()];
        let mut asked = Vec::new();
        let (mut unflushed, mut new) = (0, 0);
        {
            let inner = self.inner.lock();
            for (index, key) in keys.iter().enumerate() {
                match inner.overlay.get(&StateKey::Row(key.clone())) {
                    Known::Value(value) => {
                        values[index] = value;
                        unflushed += 1;
                    }
                    Known::Nothing if inner.known.is_new(key) => new += 1,
                    Known::Nothing => asked.push((index, None)),
                    Known::AtLeast(proof) => asked.push((index, Some(proof))),
                }
            }
        }
        let stage = self.task.kind.as_str();
        let reads = &self.ports.metrics.reads;
        reads.with_label_values(&[stage, "unflushed"]).inc_by(unflushed);
        reads.with_label_values(&[stage, "filter"]).inc_by(new);
        reads.with_label_values(&[stage, "database"]).inc_by(asked.len() as u64);
        if asked.is_empty() {
            return Ok(values);
        }
        let wanted: Vec<RowKey> = asked.iter().map(|(index, _)| keys[*index].clone()).collect();
        let found = self.until_available(|| self.ports.rows.get_many(&wanted)).await?;
        for ((index, proof), row) in asked.into_iter().zip(found) {
            let (value, timestamp) = row.map_or((None, None), |it| (Some(it.value), Some(it.timestamp)));
            if !proof.is_none_or(|it| it.holds(timestamp)) {
                let RowKey { table, key } = &keys[index];
                let detail = format!("the database has lost an acknowledged write of {}/{key}", table.name());
                return Err(self.life_over(detail));
            }
            values[index] = value;
        }
        Ok(values)
    }

    async fn timers(&self, from_ms: i64, until_ms: i64, limit: usize) -> Result<Vec<Timer>, LogError> {
        self.check_alive()?;
        let (floor_ms, changes) = {
            let inner = self.inner.lock();
            (inner.timers_from_ms, inner.overlay.timer_changes())
        };
        let start_ms = from_ms.max(floor_ms);
        // Some of the page may be removed already.
        let page = limit.saturating_add(changes.removed(start_ms, until_ms));
        let found =
            self.until_available(|| self.ports.rows.timers(self.task, start_ms, until_ms, page)).await?;
        let found: Vec<Timer> = found.into_iter().map(|(timer, _)| timer).collect();
        // Past a page's last timer the database may hold more.
        let complete_to_ms = match found.last() {
            Some(last) if found.len() >= page => last.due_ms,
            _ => until_ms,
        };
        // What is left from before, so that the floor rises while the task runs.
        let before = match start_ms > floor_ms {
            true => {
                let page = 1 + changes.removed(floor_ms, start_ms - 1);
                self.until_available(|| self.ports.rows.timers(self.task, floor_ms, start_ms - 1, page))
                    .await?
            }
            false => Vec::new(),
        };
        let before = before.into_iter().map(|(timer, _)| timer).collect();
        let before = changes.merge(before, floor_ms, start_ms - 1);
        let mut merged = changes.merge(found, from_ms, complete_to_ms);
        let first_ms = before.first().or(merged.first()).map_or(complete_to_ms, |it| it.due_ms);
        let mut inner = self.inner.lock();
        if inner.timers_from_ms == floor_ms {
            inner.timers_from_ms = first_ms.max(floor_ms);
        }
        drop(inner);
        merged.truncate(limit);
        Ok(merged)
    }

    fn take(&self, offset: u64, limit: ReadLimit) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        Box::pin(async move {
            self.check_alive()?;
            let taken_to = self.inner.lock().taken_to;
            if offset != taken_to {
                // A batch is run again.
                let fetch = self.group.fetch_from(self.task.partition, offset);
                fetch.await.map_err(|error| self.life_over(error.to_string()))?;
                let mut inner = self.inner.lock();
                inner.taken_to = offset;
                inner.members.clear();
                return Ok(Vec::new());
            }
            let member = self.group.metadata().map_err(|error| self.life_over(error.to_string()))?;
            let records = self
                .group
                .take(self.task.partition, limit)
                .map_err(|error| self.life_over(error.to_string()))?;
            let mut inner = self.inner.lock();
            if let Some(last) = records.last() {
                inner.taken_to = last.offset + 1;
                inner.members.push_back((last.offset + 1, member));
            }
            Ok(records)
        })
    }
}

/// The session as the task's log: its input is the partition the group gave it.
pub(crate) struct SessionLog(pub Arc<ClusterSession>);

impl SessionLog {
    fn own(&self, partition: TopicPartition) -> Result<(), LogError> {
        if partition == input_of(self.0.task) { Ok(()) } else { Err(LogError::NoSuchPartition(partition)) }
    }
}

impl Log for SessionLog {
    fn partitions(&self, _topic: Topic) -> u32 {
        self.0.ports.settings.partitions
    }

    fn append(&self, _records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        let error = LogError::Stopped("a task writes by its commit alone".to_owned());
        Box::pin(std::future::ready(Err(error)))
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        match self.own(from) {
            Ok(()) => self.0.take(offset, limit),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            self.own(partition)?;
            let taken_to = self.0.inner.lock().taken_to;
            let records = usize::try_from(offset.saturating_sub(taken_to)).unwrap_or(usize::MAX);
            let (group, own) = (&self.0.group, self.0.task.partition);
            self.0.unless_over(group.wait_buffered(own, records)).await?;
            if group.buffered(own) > 0 {
                return Ok(());
            }
            // Nothing more will come: the partition is lost, or its fetch has failed.
            let limit = ReadLimit { records_max: 1, bytes_max: 1 };
            let reason = match group.take(own, limit) {
                Err(error) => error.to_string(),
                Ok(_) => "its partition is not fetched any more".to_owned(),
            };
            Err(self.0.life_over(reason))
        })
    }

    fn start_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.own(partition)?;
        // Opening has made sure of it.
        Ok(0)
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.own(partition)?;
        self.0.check_alive()?;
        let buffered = self.0.group.buffered(self.0.task.partition) as u64;
        let inner = self.0.inner.lock();
        Ok((inner.taken_to + buffered).max(inner.next_offset))
    }
}

/// The session as the task's state.
pub(crate) struct SessionState(pub Arc<ClusterSession>);

impl State for SessionState {
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, LogError>> {
        Box::pin(self.0.read_rows(keys))
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        self.0.ports.rows.scan(table, prefix, after, limit)
    }

    fn timers_due(
        &self,
        _task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>> {
        Box::pin(self.0.timers(from_ms, until_ms, limit))
    }

    fn committed(&self, _task: TaskId) -> BoxFuture<'_, Result<u64, LogError>> {
        let next_offset = self.0.inner.lock().next_offset;
        Box::pin(std::future::ready(Ok(next_offset)))
    }
}

/// The session as the task's commit. Dropping it ends the life.
pub(crate) struct SessionCommit(pub Arc<ClusterSession>);

impl Commit for SessionCommit {
    fn commit(&self, commit: TaskCommit) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.0.commit_batch(commit))
    }
}

impl Drop for SessionCommit {
    fn drop(&mut self) {
        if !self.0.is_over.load(Ordering::Acquire) {
            self.0.life_over("its task has ended");
        }
    }
}
