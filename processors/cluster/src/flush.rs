//! Rows go to the database behind the log: once per row and interval, and the checkpoint after them.

use crate::changelog;
use crate::checkpoint::{Durability, NodesRestarted};
use crate::nodes::Epoch;
use crate::session::ClusterSession;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tillstream_log::LogError;
use tillstream_runtime::timeout;
use tillstream_stage::{RowKey, Table};
use tillstream_state::row_store::{Checkpoint, RowWrite, ShardPlace};
use tokio::sync::watch;

/// How long the last flush of a life may take; what is left is replayed by the next.
const LAST_FLUSH: Duration = Duration::from_secs(5);
/// The flusher rests for at least this part of the interval, however long a flush takes.
const REST: u32 = 4;
/// What only its own task reads is flushed after so many intervals.
const LAZY_FACTOR: u32 = 12;
/// A task for which so many records are fetched is behind,
const BEHIND_RECORDS: usize = 500;
/// and flushes after so many intervals, unless memory is short: what bounds this is the replay of a takeover.
const BEHIND_FACTOR: u32 = 120;
/// A task that made so many changes since the last look is busy,
const BUSY_CHANGES: u64 = 1_000;
/// and lets rows wait for so many intervals, those that only it reads for so many: what is busy is then written less often,
/// and a batch holds more rows.
const BUSY_FACTOR: u32 = 3;
const BUSY_LAZY_FACTOR: u32 = 48;
/// The checkpoint moves at most so often.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Keys of one page of the walk that fills the filter.
const WALK_KEYS: usize = 5_000;

/// Starts the flusher of a life, and the walk that fills its filter.
pub(crate) fn start(
    session: &Arc<ClusterSession>,
    checkpoint: Option<Checkpoint>,
    flushing: watch::Sender<usize>,
) {
    let spawner = &session.ports.spawner;
    let flusher = Flusher::new(session, checkpoint);
    flushing.send_modify(|it| *it += 1);
    spawner.spawn(Box::pin(async move {
        flusher.run().await;
        flushing.send_modify(|it| *it -= 1);
    }));
    if session.inner.lock().known.is_on() {
        spawner.spawn(Box::pin(fill_filter(Arc::downgrade(session))));
    }
}

struct Flusher {
    session: Arc<ClusterSession>,
    /// The nodes when this life first wrote: one that has restarted since may have lost what it acknowledged, for
    /// prompt and lazy rows of one stretch of the changelog are acknowledged at different times.
    begun: Option<Epoch>,
    /// Acknowledged changelog offsets on their way to the disks.
    rows: Durability,
    /// Written checkpoints on their way to the disks.
    checkpoints: Durability,
    durable: Option<u64>,
    written: Option<Checkpoint>,
    checkpoint_at_ns: u64,
    /// The input offset up to which readers were told that rows can be read.
    told_input: Option<u64>,
    shown_unflushed: i64,
    /// Where the log was at the last looks.
    marks: VecDeque<Mark>,
    /// Where the changelog ended at the last of them.
    seen_to: u64,
    /// What is to be flushed next: rows that anybody reads, and those that only their task reads.
    due: Option<Mark>,
    due_lazily: Option<Mark>,
    /// Everything before this changelog offset was acknowledged.
    flushed_to: u64,
}

/// Where the log was at a moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at_ns: u64,
    changelog_end: u64,
    input_offset: u64,
}

impl Mark {
    fn place(&self) -> (u64, u64) {
        (self.changelog_end, self.input_offset)
    }
}

impl Flusher {
    fn new(session: &Arc<ClusterSession>, checkpoint: Option<Checkpoint>) -> Self {
        let durable_after_ns =
            u64::try_from(session.ports.settings.durable_after.as_nanos()).unwrap_or(u64::MAX);
        Self {
            session: Arc::clone(session),
            begun: None,
            rows: Durability::new(durable_after_ns),
            checkpoints: Durability::new(durable_after_ns),
            durable: None,
            written: checkpoint,
            checkpoint_at_ns: 0,
            told_input: None,
            shown_unflushed: 0,
            marks: VecDeque::new(),
            seen_to: session.inner.lock().changelog_end,
            due: None,
            due_lazily: None,
            flushed_to: 0,
        }
    }

    async fn run(mut self) {
        let session = Arc::clone(&self.session);
        let (clock, settings) = (&session.ports.clock, &session.ports.settings);
        let interval = settings.flush_interval;
        let mut wait = interval;
        loop {
            let begun_ns = clock.monotonic_ns();
            let over = session.is_over.load(Ordering::Acquire);
            if over {
                let deadline_ns = clock.deadline(LAST_FLUSH);
                if timeout(&**clock, deadline_ns, self.flush()).await.is_none() {
                    tracing::debug!(task = %session.task, "the last flush is left to the next life");
                }
                break;
            }
            match self.turn().await {
                Ok(()) => {
                    // From begin to begin, so that the interval bounds how stale a query is.
                    let took = Duration::from_nanos(clock.monotonic_ns().saturating_sub(begun_ns));
                    wait = interval.saturating_sub(took).max(interval / REST);
                }
                Err(error) => {
                    session
                        .ports
                        .metrics
                        .flush_failures
                        .with_label_values(&[session.task.kind.as_str()])
                        .inc();
                    tracing::debug!(task = %session.task, %error, "a flush is tried again");
                    if error.is_fatal() {
                        session.life_over(format!("its rows cannot be written: {error}"));
                    }
                    wait = (wait * 2).clamp(settings.retry_wait, Duration::from_secs(2));
                }
            }
            self.sleep(wait).await;
        }
        self.show(0);
    }

    /// Sleeps, but not over the life's end.
    async fn sleep(&self, wait: Duration) {
        let session = &self.session;
        let sleep = session.ports.clock.sleep(wait);
        tokio::pin!(sleep);
        loop {
            let changed = session.changed.notified();
            if session.is_over.load(Ordering::Acquire) {
                return;
            }
            tokio::select! {
                biased;
                () = &mut sleep => return,
                () = changed => {}
            }
        }
    }

    async fn turn(&mut self) -> Result<(), LogError> {
        self.flush().await?;
        self.checkpoint().await
    }

    /// Notes where the log is now, and tells up to where what has waited long enough goes to the database.
    fn mark(&mut self) -> Option<Mark> {
        let session = &self.session;
        let settings = &session.ports.settings;
        let now_ns = session.ports.clock.monotonic_ns();
        let (mark, bytes) = {
            let inner = session.inner.lock();
            let mark =
                Mark { at_ns: now_ns, changelog_end: inner.changelog_end, input_offset: inner.next_offset };
            (mark, inner.overlay.bytes())
        };
        let changes = mark.changelog_end.saturating_sub(self.seen_to);
        self.seen_to = mark.changelog_end;
        if self.marks.back().is_none_or(|it| it.place() != mark.place()) {
            self.marks.push_back(mark);
        }
        let behind = session.group.buffered(session.task.partition) >= BEHIND_RECORDS;
        let (mut age, mut long) = (Duration::ZERO, settings.flush_interval * LAZY_FACTOR);
        if session.is_over.load(Ordering::Acquire) {
            (age, long) = (Duration::ZERO, Duration::ZERO);
        } else if bytes > settings.unflushed_bytes_max / 4 * 3 {
            // Room is needed: the older half of what waits, whoever reads it.
            let half = self.marks.get(self.marks.len() / 2).map_or(0, |it| it.at_ns);
            long = Duration::from_nanos(now_ns.saturating_sub(half));
            age = if behind { long } else { age.min(long) };
        } else if behind {
            // Whoever is behind writes rows of orders that are not done: later, they are written less often.
            age = settings.flush_interval * BEHIND_FACTOR;
            long = age;
        } else if changes >= BUSY_CHANGES {
            age = settings.flush_interval * BUSY_FACTOR;
            long = settings.flush_interval * BUSY_LAZY_FACTOR;
        }
        let old = |it: &Mark, age: Duration| {
            let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
            it.at_ns.saturating_add(age_ns) <= now_ns
        };
        self.due = self.marks.iter().rev().find(|it| old(it, age)).copied().or(self.due);
        // What only its task reads waits longer: most of it changes once more, or goes.
        while self.marks.front().is_some_and(|it| old(it, long)) {
            self.due_lazily = self.marks.pop_front();
        }
        self.due.or(self.due_lazily)
    }

    /// Writes what has waited for an interval.
    async fn flush(&mut self) -> Result<(), LogError> {
        let session = Arc::clone(&self.session);
        let Some(mark) = self.mark() else { return Ok(()) };
        let input_offset = mark.input_offset;
        // Everything before this is flushed, also what waits long.
        let flushed_to = self.due_lazily.map_or(self.flushed_to, |it| it.changelog_end);
        let (mut writes, generation) = {
            let mut inner = session.inner.lock();
            let generation = inner.tag.generation;
            let before = changelog::timestamp(generation, mark.changelog_end);
            (inner.overlay.writes(before, changelog::timestamp(generation, flushed_to)), generation)
        };
        if !writes.is_empty() || flushed_to > self.flushed_to {
            let epoch = *self.begun.get_or_insert_with(|| session.ports.nodes.epoch());
            let kind = session.task.kind.as_str();
            self.show(i64::try_from(writes.len()).unwrap_or(i64::MAX));
            while !writes.is_empty() {
                let rest = writes.split_off(writes.len().min(session.ports.settings.flush_rows_max));
                let part: Vec<RowWrite> = std::mem::replace(&mut writes, rest);
                session.ports.rows.write(session.task, &part).await?;
                session.ports.metrics.flushed_rows.with_label_values(&[kind]).inc_by(part.len() as u64);
                // The proofs of prompt writes are kept until the lazy ones before them are durable too.
                session.inner.lock().overlay.acknowledged(part, mark.changelog_end.max(flushed_to));
                session.changed.notify_waiters();
            }
            if flushed_to > self.flushed_to {
                self.rows.acknowledged(flushed_to, session.ports.clock.monotonic_ns(), epoch);
                self.flushed_to = flushed_to;
            }
        }
        (self.due, self.due_lazily) = (None, None);
        if self.told_input.is_none_or(|it| it < input_offset) {
            let timestamp = changelog::timestamp(generation, input_offset);
            session.ports.rows.put_flushed(session.task, input_offset, timestamp).await?;
            self.told_input = Some(input_offset);
        }
        let left = session.inner.lock().overlay.len();
        self.show(i64::try_from(left).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Moves the checkpoint to what is surely on the database's disks.
    async fn checkpoint(&mut self) -> Result<(), LogError> {
        let session = Arc::clone(&self.session);
        let epoch = session.ports.nodes.epoch();
        let advanced = self.rows.advance(epoch).and_then(|rows| Ok((rows, self.checkpoints.advance(epoch)?)));
        let (rows, told) = match advanced {
            Ok(advanced) => advanced,
            Err(NodesRestarted) => {
                return Err(
                    session.life_over("a node of the database has restarted: its last writes are replayed")
                );
            }
        };
        let (generation, timers_from_ms, end) = {
            let mut inner = session.inner.lock();
            if let Some(offset) = rows {
                inner.overlay.durable(offset);
                self.durable = Some(offset);
            }
            if let Some(offset) = told {
                inner.tag.checkpoint = inner.tag.checkpoint.max(offset);
            }
            (inner.tag.generation, inner.timers_from_ms, inner.changelog_end)
        };
        let now_ns = session.ports.clock.monotonic_ns();
        let behind = self.written.map_or(0, |it| it.offset);
        let labels = [session.task.kind.as_str(), &session.task.partition.to_string()];
        let lag = i64::try_from(end.saturating_sub(behind)).unwrap_or(i64::MAX);
        session.ports.metrics.checkpoint_lag.with_label_values(&labels).set(lag);
        let Some(offset) = self.durable.filter(|it| *it > behind) else { return Ok(()) };
        if now_ns < self.checkpoint_at_ns {
            return Ok(());
        }
        let checkpoint = Checkpoint { generation, offset, timers_from_ms };
        let timestamp = changelog::timestamp(generation, offset);
        session.ports.rows.put_checkpoint(session.task, checkpoint, timestamp).await?;
        self.written = Some(checkpoint);
        self.checkpoint_at_ns = session.ports.clock.deadline(CHECKPOINT_INTERVAL);
        self.checkpoints.acknowledged(offset, session.ports.clock.monotonic_ns(), epoch);
        Ok(())
    }

    /// Several tasks of a kind share one gauge.
    fn show(&mut self, unflushed: i64) {
        let kind = self.session.task.kind.as_str();
        let gauge = self.session.ports.metrics.unflushed_rows.with_label_values(&[kind]);
        gauge.add(unflushed - self.shown_unflushed);
        self.shown_unflushed = unflushed;
    }
}

/// Walks over every stored key of the task once. What is written meanwhile is inserted by its commit.
async fn fill_filter(session: Weak<ClusterSession>) {
    let Some(kind) = session.upgrade().map(|it| it.task.kind) else { return };
    let mut tables: Vec<Table> = Table::ALL.into_iter().filter(|it| it.kind() == kind).collect();
    // Most new keys are looked for in those that only their task reads.
    tables.sort_by_key(|it| !it.is_private());
    for table in tables {
        let mut from: Option<ShardPlace> = None;
        loop {
            let Some(life) = session.upgrade() else { return };
            let partition = life.task.partition;
            let page = life
                .until_available(|| life.ports.rows.shard_keys(table, partition, from.as_ref(), WALK_KEYS));
            let Ok(page) = page.await else { return };
            let mut inner = life.inner.lock();
            for key in page.keys {
                inner.known.insert(&RowKey::new(table, key));
            }
            if !inner.known.is_on() {
                return;
            }
            from = page.next;
            if from.is_none() {
                inner.known.completed(table);
                tracing::debug!(task = %life.task, table = table.name(), "every stored key is known");
                break;
            }
        }
    }
}
