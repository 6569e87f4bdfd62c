//! The database's calls.

use super::tables::{Cell, Mutation};
use super::{Inner, RowCall, SimRows, WriteFault};
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;
use tillstream_log::LogError;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table, TimerName};
use tillstream_state::layout::{bucket_of, shard_of};
use tillstream_state::row_store::{
    Checkpoint, Deployment, KeyPage, RowStore, RowWrite, ShardPage, ShardPlace, StateKey, StoredRow,
};
use tillstream_state::{Page, TaskId, Timer};

impl Inner {
    fn strike(&mut self, call: RowCall) -> Option<WriteFault> {
        let at = self.faults.iter().position(|(struck, ..)| *struck == call)?;
        if self.faults[at].1 > 0 {
            self.faults[at].1 -= 1;
            return None;
        }
        self.injected += 1;
        Some(self.faults.remove(at).2)
    }

    /// What of the mutations is written now, and whether the caller is told so.
    fn cut(&mut self, fault: Option<WriteFault>, mut mutations: Vec<Mutation>) -> (Vec<Mutation>, bool) {
        match fault {
            None => (mutations, true),
            Some(WriteFault::All) => (mutations, false),
            Some(WriteFault::Nothing) => (Vec::new(), false),
            Some(WriteFault::Late) => {
                self.late.append(&mut mutations);
                (mutations, false)
            }
            Some(WriteFault::Part) => {
                let all = mutations.len();
                mutations.retain(|_| self.random.percent(50));
                if mutations.len() < all {
                    // A checkpoint is only written once its marks are acknowledged.
                    mutations.retain(|it| !matches!(it, Mutation::Checkpoint(..)));
                }
                (mutations, false)
            }
        }
    }

    /// The rows of a table whose key starts with `prefix` and is greater than `after`.
    fn range<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a RowKey, &'a Cell)> {
        let start = match after.filter(|it| *it >= prefix) {
            Some(after) => Bound::Excluded(RowKey::new(table, Key::from(after))),
            None => Bound::Included(RowKey::new(table, Key::from(prefix))),
        };
        let range = self.live.rows.range((start, Bound::Unbounded));
        range
            .take_while(move |(key, _)| key.table == table && key.key.starts_with(prefix))
            .filter(|(_, cell)| cell.value.is_some())
    }

    /// A page of a table's shard, in the order of buckets and keys, and where the next one begins.
    fn shard<'a>(
        &'a self,
        table: Table,
        partition: u32,
        from: Option<&ShardPlace>,
        limit: usize,
    ) -> (Vec<(&'a Key, &'a Cell)>, Option<ShardPlace>) {
        let (partitions, buckets) = (self.settings.partitions, self.settings.buckets);
        let own = self.range(table, "", None).filter(|(key, _)| shard_of(key, partitions) == partition);
        let placed = own.map(|(key, cell)| (bucket_of(key, buckets), &key.key, cell));
        let behind =
            |place: (u32, Option<&Key>)| from.is_none_or(|from| place > (from.bucket, from.after.as_ref()));
        let mut shard: Vec<_> = placed.filter(|(bucket, key, _)| behind((*bucket, Some(key)))).collect();
        shard.sort_unstable_by_key(|(bucket, key, _)| (*bucket, *key));
        let more = shard.len() > limit.max(1);
        shard.truncate(limit.max(1));
        let last = shard.last().filter(|_| more);
        let next = last.map(|(bucket, key, _)| ShardPlace { bucket: *bucket, after: Some((*key).clone()) });
        (shard.into_iter().map(|(_, key, cell)| (key, cell)).collect(), next)
    }

    /// Counts what is written, where somebody wants to know.
    fn count(&mut self, task: TaskId, writes: &[RowWrite]) {
        if !self.settings.counts {
            return;
        }
        let (partitions, buckets) = (self.settings.partitions, self.settings.buckets);
        let group = |write: &RowWrite| match &write.key {
            StateKey::Row(key) => (Some(key.table), shard_of(key, partitions), bucket_of(key, buckets)),
            StateKey::Timer(timer) => (None, task.partition, (timer.due_ms / 3_600_000) as u32),
        };
        let groups: BTreeSet<_> = writes.iter().map(group).collect();
        self.counts.cells_written += writes.len() as u64;
        self.counts.groups_written += groups.len() as u64;
    }
}

fn unavailable(text: &str) -> LogError {
    LogError::Unavailable(format!("the simulated database {text}"))
}

impl SimRows {
    /// Until the call takes effect.
    async fn begin(&self, call: RowCall) -> Result<Option<WriteFault>, LogError> {
        let (yields, slow) = {
            let mut inner = self.lock();
            *inner.counts.calls.entry(call).or_default() += 1;
            let yields_max = inner.settings.yields_max;
            (inner.random.below(yields_max + 1), inner.slow)
        };
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        if !slow.is_zero() {
            let timeout = self.lock().settings.call_timeout;
            self.clock.sleep(slow.min(timeout)).await;
            if slow > timeout {
                return Err(unavailable("did not answer in time"));
            }
        }
        let mut inner = self.lock();
        if inner.unavailable {
            return Err(unavailable("does not answer"));
        }
        Ok(inner.strike(call))
    }

    async fn read<T>(&self, call: RowCall, read: impl FnOnce(&mut Inner) -> T) -> Result<T, LogError> {
        match self.begin(call).await? {
            None => Ok(read(&mut self.lock())),
            Some(_) => Err(unavailable("failed this read")),
        }
    }

    async fn mutate(&self, call: RowCall, mutations: Vec<Mutation>) -> Result<(), LogError> {
        let fault = self.begin(call).await?;
        let held = {
            let mut inner = self.lock();
            let (written, told) = inner.cut(fault, mutations);
            if inner.holding && call == RowCall::Write && told {
                let number = inner.next_held;
                inner.next_held += 1;
                inner.held.insert(number, written);
                Some((number, inner.settings.call_timeout))
            } else {
                inner.apply(self.clock.monotonic_ns(), written);
                if !told {
                    return Err(unavailable("failed this write"));
                }
                None
            }
        };
        match held {
            Some((number, timeout)) => self.until_released(number, timeout).await,
            None => Ok(()),
        }
    }

    async fn until_released(&self, number: u64, timeout: Duration) -> Result<(), LogError> {
        let deadline_ns = self.clock.deadline(timeout);
        loop {
            let notified = self.changed.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            {
                let mut inner = self.lock();
                if inner.released.remove(&number) {
                    return Ok(());
                }
                if !inner.held.contains_key(&number) || self.clock.monotonic_ns() >= deadline_ns {
                    return Err(unavailable("did not acknowledge this write"));
                }
            }
            tokio::select! {
                biased;
                () = notified => {}
                () = self.clock.sleep_until(deadline_ns) => {}
            }
        }
    }

    /// What the cluster agrees on is written at once and survives a crash.
    async fn agree<T>(
        &self,
        call: RowCall,
        change: impl FnOnce(&mut Option<Deployment>) -> T,
    ) -> Result<T, LogError> {
        let fault = self.begin(call).await?;
        let mut inner = self.lock();
        if fault.is_some_and(|it| it != WriteFault::All) {
            return Err(unavailable("failed this write"));
        }
        let changed = change(&mut inner.live.deployment);
        inner.synced.deployment = inner.live.deployment.clone();
        fault.map_or(Ok(changed), |_| Err(unavailable("failed this write")))
    }
}

impl RowStore for SimRows {
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<StoredRow>>, LogError>> {
        Box::pin(self.read(RowCall::GetMany, move |inner| {
            let found = keys.iter().map(|key| {
                if inner.settings.counts {
                    *inner.counts.reads.entry(key.clone()).or_default() += 1;
                }
                let cell = inner.live.rows.get(key)?;
                cell.value.clone().map(|value| StoredRow { value, timestamp: cell.timestamp })
            });
            found.collect()
        }))
    }

    fn write<'a>(&'a self, task: TaskId, writes: &'a [RowWrite]) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(async move {
            let keeps = {
                let mut inner = self.lock();
                inner.count(task, writes);
                let keeps = inner.settings.keeps;
                inner.asked.writes.extend(writes.iter().filter(|_| keeps).map(|it| (task, it.clone())));
                keeps
            };
            let mutations = writes.iter().map(|write| Mutation::of(task, write)).collect();
            self.mutate(RowCall::Write, mutations).await?;
            let acknowledged = writes.iter().filter(|_| keeps).map(|it| (task, it.clone()));
            self.lock().asked.acknowledged.extend(acknowledged);
            Ok(())
        })
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        Box::pin(self.read(RowCall::Scan, move |inner| {
            let found = inner.range(table, prefix, after).take(limit.saturating_add(1));
            let mut rows: Vec<_> =
                found.filter_map(|(key, cell)| Some((key.key.clone(), cell.value.clone()?))).collect();
            let more = rows.len() > limit;
            rows.truncate(limit);
            Page { rows, more }
        }))
    }

    fn shard_page<'a>(
        &'a self,
        table: Table,
        partition: u32,
        from: Option<&'a ShardPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<ShardPage, LogError>> {
        Box::pin(self.read(RowCall::ShardPage, move |inner| {
            let (page, next) = inner.shard(table, partition, from, limit);
            let row = |(key, cell): (&Key, &Cell)| {
                let value = cell.value.clone()?;
                Some((key.clone(), StoredRow { value, timestamp: cell.timestamp }))
            };
            ShardPage { rows: page.into_iter().filter_map(row).collect(), next }
        }))
    }

    fn shard_keys<'a>(
        &'a self,
        table: Table,
        partition: u32,
        from: Option<&'a ShardPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<KeyPage, LogError>> {
        Box::pin(self.read(RowCall::ShardPage, move |inner| {
            let (page, next) = inner.shard(table, partition, from, limit);
            KeyPage { keys: page.into_iter().map(|(key, _)| key.clone()).collect(), next }
        }))
    }

    fn timers(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timer, i64)>, LogError>> {
        Box::pin(self.read(RowCall::Timers, move |inner| {
            let first = Timer { due_ms: from_ms, key: Key::default(), name: TimerName::HoldExpiry };
            let set = inner.live.timers.range((task, first)..);
            let due = set.take_while(|((of, timer), _)| *of == task && timer.due_ms <= until_ms);
            due.filter(|(_, cell)| cell.value.is_some())
                .take(limit)
                .map(|((_, timer), cell)| (timer.clone(), cell.timestamp))
                .collect()
        }))
    }

    fn checkpoint(&self, task: TaskId) -> BoxFuture<'_, Result<Option<Checkpoint>, LogError>> {
        Box::pin(self.read(RowCall::Checkpoint, move |inner| {
            inner.live.checkpoints.get(&task).map(|(_, checkpoint)| *checkpoint)
        }))
    }

    fn put_checkpoint(
        &self,
        task: TaskId,
        checkpoint: Checkpoint,
        timestamp: i64,
    ) -> BoxFuture<'_, Result<(), LogError>> {
        let own = Table::ALL.into_iter().filter(move |table| table.kind() == task.kind);
        let mut mutations: Vec<Mutation> = own.map(|table| Mutation::Mark(table, task, timestamp)).collect();
        mutations.push(Mutation::Checkpoint(task, timestamp, checkpoint));
        Box::pin(self.mutate(RowCall::PutCheckpoint, mutations))
    }

    fn put_flushed(
        &self,
        task: TaskId,
        input_offset: u64,
        timestamp: i64,
    ) -> BoxFuture<'_, Result<(), LogError>> {
        let mutations = vec![Mutation::Flushed(task, timestamp, input_offset)];
        Box::pin(self.mutate(RowCall::PutFlushed, mutations))
    }

    fn flushed(&self, kind: TaskKind) -> BoxFuture<'_, Result<BTreeMap<u32, u64>, LogError>> {
        Box::pin(self.read(RowCall::Flushed, move |inner| {
            let notes = inner.live.flushed.iter().filter(|(task, _)| task.kind == kind);
            notes.map(|(task, (_, offset))| (task.partition, *offset)).collect()
        }))
    }

    fn marked_tables(&self, task: TaskId) -> BoxFuture<'_, Result<Vec<Table>, LogError>> {
        Box::pin(self.read(RowCall::MarkedTables, move |inner| {
            let marks = inner.live.marks.keys().filter(|(_, marked)| *marked == task);
            marks.map(|(table, _)| *table).collect()
        }))
    }

    fn incarnations(&self) -> BoxFuture<'_, Result<BTreeMap<String, Option<i64>>, LogError>> {
        Box::pin(self.read(RowCall::Incarnations, |inner| {
            let started = (!inner.incarnation_hidden).then_some(inner.incarnation);
            BTreeMap::from([("node-1".to_owned(), started)])
        }))
    }

    fn deployment(&self) -> BoxFuture<'_, Result<Option<Deployment>, LogError>> {
        Box::pin(self.read(RowCall::Deployment, |inner| inner.live.deployment.clone()))
    }

    fn claim(&self, deployment: Deployment) -> BoxFuture<'_, Result<Deployment, LogError>> {
        Box::pin(self.agree(RowCall::Claim, |found| found.get_or_insert(deployment).clone()))
    }

    fn set_rebuilding(&self, rebuilding: bool) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.agree(RowCall::SetRebuilding, move |found| {
            if let Some(deployment) = found {
                deployment.rebuilding = rebuilding;
            }
        }))
    }

    fn truncate(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            let fault = self.begin(RowCall::Truncate).await?;
            let mut inner = self.lock();
            let tables: Vec<Table> = match fault {
                None | Some(WriteFault::All) => Table::ALL.to_vec(),
                Some(WriteFault::Part) => {
                    let mut tables = Table::ALL.to_vec();
                    tables.retain(|_| inner.random.percent(50));
                    tables
                }
                Some(WriteFault::Nothing | WriteFault::Late) => Vec::new(),
            };
            for table in &tables {
                inner.live.truncate_table(*table);
            }
            if fault.is_none_or(|it| it == WriteFault::All) {
                inner.live.timers.clear();
                inner.live.checkpoints.clear();
                inner.live.flushed.clear();
            }
            inner.synced = inner.live.clone();
            inner.unsynced.clear();
            fault.map_or(Ok(()), |_| Err(unavailable("failed to truncate")))
        })
    }
}
