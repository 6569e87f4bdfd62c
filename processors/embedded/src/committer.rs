//! The group-commit thread: the only one that writes.
//!
//! It gathers requests that wait (`queue` says which), puts what they ask for into one atomic batch of the database, syncs it
//! once, and only then lets readers see it and answers. fjall applies a batch to what readers see after the
//! sync that [`fjall::OwnedWriteBatch::durability`] asks for, so neither a row nor a record is ever read that
//! a crash could take back.

use crate::batch::{Batch, BatchWriter, stored_size_at_most};
use crate::clock;
use crate::disk::Work;
use crate::high_water;
use crate::layout;
use crate::partition::TailCache;
use crate::queue::{GroupBounds, Queue, Queued};
use crate::shared::Shared;
use fjall::{OwnedWriteBatch, PersistMode};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tillstream_log::{LogError, NewRecord, TopicPartition};
use tillstream_stage::RowKey;
use tillstream_state::{TaskCommit, TaskId};
use tokio::sync::{mpsc, oneshot};

/// Where an answer goes.
pub type Answer = oneshot::Sender<Result<(), LogError>>;

/// What is asked of the thread.
pub enum Ask {
    /// New records.
    Append(Vec<NewRecord>),
    /// A task's batch.
    Commit(TaskCommit),
    /// What retention takes out.
    Purge(Purge),
    /// Finish what waits, then end.
    Close,
}

/// A request.
pub struct Request {
    /// What.
    pub ask: Ask,
    /// Where the answer goes.
    pub answer: Answer,
}

/// Batches of one partition to remove or replace.
pub struct Purge {
    /// Which.
    pub partition: TopicPartition,
    /// Keys of batches that go.
    pub removed: Vec<[u8; 17]>,
    /// Batches that take the place of those with the same offsets.
    pub rewritten: Vec<Batch>,
    /// The first offset kept from now on.
    pub start: Option<u64>,
}

/// fjall's memtables may hold so much together before the next group waits for a flush. It counts keys and values:
/// with the nodes around small rows they take about twice as much.
const WRITE_BUFFER_BYTES_MAX: u64 = 64 << 20;
/// While groups are committed, the log's ends are noted so often.
const ENDS_NOTED_EVERY_MS: i64 = 1_000;
const WRITE_BUFFER_WAITS_MAX: u32 = 2000;
const ROW_KEY_BYTES_MAX: usize = 32 << 10;

/// The thread's own state.
pub struct Committer {
    shared: Arc<Shared>,
    tail: TailCache,
    last_append_ms: i64,
    ends_noted_ms: i64,
    /// Offsets committed by the group that is being built.
    offsets: Vec<(TaskId, u64)>,
}

/// Stops the store when the thread ends, however it ends.
struct StopAtEnd(Arc<Shared>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop("the group-commit thread has ended".to_owned());
    }
}

impl Queued for Request {
    fn is_append(&self) -> bool {
        matches!(self.ask, Ask::Append(_))
    }

    fn size(&self) -> usize {
        self.ask.size()
    }
}

impl Ask {
    fn records(&self) -> &[NewRecord] {
        match self {
            Self::Append(records) => records,
            Self::Commit(commit) => &commit.outputs,
            Self::Purge(_) | Self::Close => &[],
        }
    }

    /// About how many bytes it will write.
    fn size(&self) -> usize {
        let records = self.records().iter().map(|it| it.key.len() + it.value.len() + 32).sum::<usize>();
        let rows = match self {
            Self::Commit(commit) => {
                commit.rows.iter().map(|(_, row)| 64 + row.as_ref().map_or(0, |row| row.len())).sum()
            }
            Self::Purge(purge) => purge.rewritten.iter().map(|batch| batch.value.len()).sum(),
            _ => 0,
        };
        records + rows
    }
}

impl Committer {
    /// A committer; [`Committer::run`] is its thread.
    pub fn new(shared: Arc<Shared>) -> Self {
        let tail = TailCache::new(shared.settings.tail_bytes);
        Self { shared, tail, last_append_ms: 0, ends_noted_ms: 0, offsets: Vec::new() }
    }

    /// Serves requests until it is told to close or nobody is left to ask.
    pub fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let _stop = StopAtEnd(self.shared.clone());
        let mut closers = Vec::new();
        let mut queue = Queue::new();
        loop {
            if queue.is_empty() {
                let Some(first) = requests.blocking_recv() else { break };
                sort_in(first, &mut queue, &mut closers);
            }
            while let Ok(request) = requests.try_recv() {
                sort_in(request, &mut queue, &mut closers);
            }
            if !closers.is_empty() {
                requests.close();
            }
            self.commit_next(&mut queue);
        }
        let synced = self.shared.check_running().and_then(|()| {
            self.shared
                .tables
                .db
                .persist(PersistMode::SyncAll)
                .map_err(|error| LogError::Io(error.to_string()))
        });
        if synced.is_ok() {
            self.note_ends(true);
        }
        self.shared.stop("it is closed".to_owned());
        for closer in closers {
            closer.send(synced.clone()).ok();
        }
    }

    fn commit_next(&mut self, queue: &mut Queue<Request>) {
        let bytes_max = self.shared.settings.group_bytes_max;
        let group = queue.take_group(GroupBounds { bytes_max, beside_appends_bytes_max: bytes_max / 8 });
        if group.is_empty() {
            return;
        }
        self.wait_for_flushes();
        self.shared.set_busy(true);
        self.commit_group(group);
        self.shared.set_busy(false);
        if self.shared.check_running().is_ok()
            && self.last_append_ms - self.ends_noted_ms >= ENDS_NOTED_EVERY_MS
        {
            self.note_ends(false);
        }
    }

    /// A note that cannot be written only makes the next start less watchful.
    fn note_ends(&mut self, sync: bool) {
        self.ends_noted_ms = self.last_append_ms;
        if let Err(error) = high_water::note(&self.shared, sync) {
            tracing::warn!(%error, "the log's ends could not be noted");
        }
    }

    /// Bounds the memory: fjall alone would let every keyspace queue up four full memtables.
    fn wait_for_flushes(&self) {
        for _ in 0..WRITE_BUFFER_WAITS_MAX {
            if self.shared.tables.db.write_buffer_size() < WRITE_BUFFER_BYTES_MAX {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn commit_group(&mut self, mut group: Vec<Request>) {
        let mut writes = self.shared.tables.db.batch().durability(Some(PersistMode::SyncData));
        self.offsets.clear();
        let mut verdicts: Vec<_> =
            group.iter_mut().map(|request| self.admit(&mut request.ask, &mut writes)).collect();
        let batches = self.write_records(&group, &verdicts, &mut writes);
        if !writes.is_empty()
            && let Err(error) = writes.commit()
        {
            // Whether it is on disk is unknown: nothing may be answered, read or tried again.
            let stopped = self.shared.stop(format!("a commit failed: {error}"));
            verdicts.iter_mut().filter(|it| it.is_ok()).for_each(|it| *it = Err(stopped.clone()));
        } else {
            self.shared.groups.fetch_add(1, Ordering::Relaxed);
            for (task, offset) in self.offsets.drain(..) {
                self.shared.set_committed(task, offset);
            }
            for (index, batch) in batches {
                self.tail.publish(&self.shared.partitions, index, batch);
            }
        }
        for (request, verdict) in group.into_iter().zip(verdicts) {
            request.answer.send(verdict).ok();
        }
    }

    /// Judges a request, and if it stands, puts all but its records into `writes`.
    fn admit(&mut self, ask: &mut Ask, writes: &mut OwnedWriteBatch) -> Result<(), LogError> {
        self.shared.check_running()?;
        for record in ask.records() {
            self.shared.partitions.index(record.to)?;
        }
        match ask {
            Ask::Append(_) => self.shared.disk.check(Work::New),
            Ask::Commit(commit) => self.admit_commit(commit, writes),
            Ask::Purge(purge) => {
                self.admit_purge(purge, writes);
                Ok(())
            }
            Ask::Close => Ok(()),
        }
    }

    fn admit_commit(
        &mut self,
        commit: &mut TaskCommit,
        writes: &mut OwnedWriteBatch,
    ) -> Result<(), LogError> {
        let task = commit.task;
        self.shared.partitions.index(TopicPartition::new(task.kind.input(), task.partition))?;
        self.shared.disk.check(Work::Commit)?;
        let in_group = self.offsets.iter().rev().find(|(it, _)| *it == task).map(|(_, offset)| *offset);
        let found = in_group.unwrap_or_else(|| self.shared.committed(task));
        if commit.from_offset != found {
            return Err(LogError::Fenced { task: task.to_string(), expected: commit.from_offset, found });
        }
        for (RowKey { table, key }, _) in &commit.rows {
            check_key(table.name(), key)?;
        }
        let tables = &self.shared.tables;
        // Neighbours in a memtable are found on nearly the same path, which is then in the processor's cache. The
        // sort is stable: of two writes to one row the later one counts.
        commit.rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (key, row) in commit.rows.drain(..) {
            match row {
                Some(row) => writes.insert(tables.rows(key.table), key.key.as_bytes(), row),
                None => writes.remove(tables.rows(key.table), key.key.as_bytes()),
            }
        }
        // A timer that is removed and set at once stays set: of two writes to one key the later one counts.
        for timer in commit.timers_removed.drain(..) {
            writes.remove(&tables.timers, layout::timer_key(task, &timer));
        }
        for timer in commit.timers_set.drain(..) {
            writes.insert(&tables.timers, layout::timer_key(task, &timer), Vec::new());
        }
        writes.insert(&tables.offsets, layout::task_key(task), commit.next_offset.to_be_bytes());
        self.offsets.push((task, commit.next_offset));
        Ok(())
    }

    fn admit_purge(&self, purge: &mut Purge, writes: &mut OwnedWriteBatch) {
        let log = &self.shared.tables.log;
        for key in purge.removed.drain(..) {
            writes.remove(log, key);
        }
        for batch in purge.rewritten.drain(..) {
            let key = layout::batch_key(purge.partition, batch.base, batch.span());
            writes.insert(log, key, batch.value);
        }
        // Before the batches go, so that a reader is told that its offset is gone and never skips over it.
        if let (Some(start), Ok(partition)) = (purge.start, self.shared.partitions.get(purge.partition)) {
            partition.move_start(start);
        }
    }

    /// Writes the records of all requests that stand: one batch for each partition.
    fn write_records(
        &mut self,
        group: &[Request],
        verdicts: &[Result<(), LogError>],
        writes: &mut OwnedWriteBatch,
    ) -> Vec<(usize, Batch)> {
        let partitions = &self.shared.partitions;
        let mut lists: Vec<(usize, Vec<&NewRecord>)> = vec![(0, Vec::new()); partitions.count()];
        for (request, _) in group.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_ok()) {
            for record in request.ask.records() {
                if let Ok(index) = partitions.index(record.to) {
                    let (size, records) = &mut lists[index];
                    *size += stored_size_at_most(&record.key, &record.value, &record.headers);
                    records.push(record);
                }
            }
        }
        self.last_append_ms = self.last_append_ms.max(clock::now_ms());
        let mut batches = Vec::new();
        for (index, (size, records)) in lists.into_iter().enumerate() {
            let Some(first) = records.first() else { continue };
            let mut writer = BatchWriter::new(self.last_append_ms, size);
            records.iter().for_each(|record| writer.append(record));
            let batch = writer.finish(partitions.at(index).end());
            let key = layout::batch_key(first.to, batch.base, batch.span());
            writes.insert(&self.shared.tables.log, key, batch.value.clone());
            batches.push((index, batch));
        }
        batches
    }
}

fn sort_in(request: Request, queue: &mut Queue<Request>, closers: &mut Vec<Answer>) {
    match request.ask {
        Ask::Close => closers.push(request.answer),
        _ => queue.push(request),
    }
}

/// fjall takes no empty keys and none past 64 KiB.
fn check_key(what: &str, key: &str) -> Result<(), LogError> {
    if key.is_empty() || key.len() > ROW_KEY_BYTES_MAX {
        return Err(LogError::Io(format!(
            "the key of {what} has {} bytes, not 1 to {ROW_KEY_BYTES_MAX}",
            key.len()
        )));
    }
    Ok(())
}
