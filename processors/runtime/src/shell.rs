//! The loop of one task: poll, load, decide, commit, then show.

use crate::batch::{Batch, Committed};
use crate::dead_letter::{Failure, LetterWriter, Subject};
use crate::error::{BatchError, Poisoned};
use crate::meter::{BatchFigures, TaskMeter};
use crate::outputs::OutputWriter;
use crate::overlay::RowCache;
use crate::poison::{Culprit, Poison};
use crate::progress::TaskProgress;
use crate::timers::TimerQueue;
use crate::{CatalogCache, Clock, Metrics, Progress, RuntimeError, TaskSettings};
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::{LogError, ReadLimit, Record, TopicPartition};
use tillstream_stage::rule::RuleHost;
use tillstream_stage::task::Task;
use tillstream_state::{Session, Sessions, TaskCommit, TaskId, Timer};
use tokio::sync::watch;
use tracing::{info, warn};

/// The wall clock may jump while the loop sleeps until a timer: it looks again after so long, ms.
const SLEEP_MAX_MS: i64 = 1_000;

/// What a task runs on.
#[derive(Clone)]
pub struct TaskPorts {
    /// Where each life of the task begins.
    pub sessions: Arc<dyn Sessions>,
    /// Products, for tasks that ask for them.
    pub catalog: Option<Arc<CatalogCache>>,
    /// Rules.
    pub rules: Arc<dyn RuleHost>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where the task tells how far it is.
    pub progress: Arc<Progress>,
}

/// Runs a task from its committed offset until `shutdown` turns true (or its sender is gone): the open batch
/// is finished first.
///
/// # Errors
/// The first error that only a new life can mend; see [`RuntimeError::is_fatal`]. Nothing of an uncommitted
/// batch is left behind.
pub async fn run_task<T: Task>(
    task: Arc<T>,
    id: TaskId,
    ports: TaskPorts,
    settings: TaskSettings,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), RuntimeError> {
    let mut shell = Shell::start(task, id, ports, settings).await?;
    info!(task = %id, offset = shell.next_offset, "the task starts");
    while !is_stopped(&shutdown) {
        match shell.turn(&mut shutdown).await {
            Ok(()) => {}
            Err(BatchError::Poison(poisoned)) => shell.poisoned(*poisoned).await?,
            Err(BatchError::Runtime(RuntimeError::Log(error @ LogError::DiskFull { .. }))) => {
                shell.disk_full(&error, &mut shutdown).await?;
            }
            // The follower may see the shutdown first.
            Err(BatchError::Runtime(RuntimeError::FollowerStopped(_))) if is_stopped(&shutdown) => break,
            Err(BatchError::Runtime(error)) => return Err(shell.explain(error)),
        }
    }
    info!(task = %id, offset = shell.next_offset, "the task has stopped");
    Ok(())
}

/// Whether the task is to stop.
pub(crate) fn is_stopped(shutdown: &watch::Receiver<bool>) -> bool {
    *shutdown.borrow() || shutdown.has_changed().is_err()
}

/// Resolves when the task is to stop.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|it| *it).await;
}

/// One life of one task.
pub(crate) struct Shell<T: Task> {
    pub task: Arc<T>,
    pub id: TaskId,
    pub input: TopicPartition,
    pub session: Session,
    pub ports: TaskPorts,
    pub cache: RowCache<T::Row>,
    pub meter: TaskMeter,
    pub outputs: OutputWriter,
    pub letters: LetterWriter,
    pub poison: Poison,
    /// Where rows are encoded.
    pub rows_buffer: Vec<u8>,
    settings: TaskSettings,
    timers: TimerQueue,
    next_offset: u64,
    /// How long the last commit took.
    commit_took: Duration,
    progress: Arc<TaskProgress>,
    disk_was_full: bool,
}

impl<T: Task> Shell<T> {
    async fn start(
        task: Arc<T>,
        id: TaskId,
        ports: TaskPorts,
        settings: TaskSettings,
    ) -> Result<Self, RuntimeError> {
        let input = TopicPartition::new(id.kind.input(), id.partition);
        let session = ports.sessions.open(id).await?;
        let log = &*session.log;
        let mut shell = Self {
            cache: RowCache::new(settings.cache_bytes_max),
            meter: TaskMeter::new(id.kind, Arc::clone(&ports.clock), Arc::clone(&ports.metrics)),
            outputs: OutputWriter::new(id.kind, log),
            letters: LetterWriter::new(input, log)?,
            poison: Poison::default(),
            rows_buffer: Vec::new(),
            timers: TimerQueue::new(settings.timers_max),
            next_offset: 0,
            commit_took: Duration::ZERO,
            progress: ports.progress.register(id),
            disk_was_full: false,
            task,
            id,
            input,
            session,
            ports,
            settings,
        };
        shell.reload().await?;
        Ok(shell)
    }

    /// Starts from what is committed, with nothing remembered.
    async fn reload(&mut self) -> Result<(), RuntimeError> {
        let committed = self.session.state.committed(self.id).await?;
        let end = self.session.log.end_offset(self.input)?;
        let start = self.session.log.start_offset(self.input)?;
        if committed > end {
            return Err(RuntimeError::OffsetsLost { task: self.id, input: self.input, committed, end });
        }
        if committed < start {
            return Err(RuntimeError::InputGone { task: self.id, input: self.input, committed, start });
        }
        self.cache.clear();
        self.timers = TimerQueue::new(self.settings.timers_max);
        self.next_offset = committed;
        self.progress.started(committed);
        Ok(())
    }

    /// One batch, or one wait for something to do.
    async fn turn(&mut self, shutdown: &mut watch::Receiver<bool>) -> Result<(), BatchError> {
        let now_ms = self.ports.clock.now_ms();
        self.timers.load(&*self.session.state, self.id, now_ms).await?;
        let mut timers = self.timers.due(now_ms, self.settings.records_max);
        if self.session.log.end_offset(self.input)? <= self.next_offset {
            if timers.is_empty() {
                return Ok(self.idle(now_ms, shutdown).await?);
            }
            self.poison.isolate(&mut Vec::new(), &mut timers);
            return self.run(Vec::new(), timers).await;
        }
        let linger = self.settings.linger.max(self.commit_took.min(self.settings.pace_max));
        if timers.is_empty() && !linger.is_zero() && !self.linger(linger, shutdown).await? {
            return Ok(());
        }
        let limit = ReadLimit { records_max: self.settings.records_max, bytes_max: self.settings.bytes_max };
        let mut records = match self.session.log.read(self.input, self.next_offset, limit).await {
            Ok(records) => records,
            Err(LogError::Corrupt { partition, offset, next_offset, detail }) => {
                let error = LogError::Corrupt { partition, offset, next_offset, detail };
                return Ok(self.skip_corrupt(offset, next_offset, &error).await?);
            }
            Err(error) => return Err(error.into()),
        };
        self.poison.isolate(&mut records, &mut timers);
        if records.is_empty() && timers.is_empty() {
            return Ok(());
        }
        self.run(records, timers).await
    }

    /// Waits for a record, a timer or the end.
    async fn idle(&self, now_ms: i64, shutdown: &mut watch::Receiver<bool>) -> Result<(), LogError> {
        let sleep_ms = self.timers.idle_ms(now_ms).min(SLEEP_MAX_MS);
        let sleep = Duration::from_millis(sleep_ms.unsigned_abs());
        tokio::select! {
            biased;
            () = stopped(shutdown) => Ok(()),
            waited = self.session.log.wait_past(self.input, self.next_offset) => waited,
            () = self.ports.clock.sleep(sleep) => Ok(()),
        }
    }

    /// A first record is there: waits for a full batch, or as long as may be. `false`: stop instead.
    async fn linger(&self, linger: Duration, shutdown: &mut watch::Receiver<bool>) -> Result<bool, LogError> {
        let full = self.next_offset + self.settings.records_max.max(1) as u64 - 1;
        tokio::select! {
            biased;
            () = stopped(shutdown) => Ok(false),
            waited = self.session.log.wait_past(self.input, full) => waited.map(|()| true),
            () = self.ports.clock.sleep(linger) => Ok(true),
        }
    }

    async fn run(&mut self, records: Vec<Record>, timers: Vec<Timer>) -> Result<(), BatchError> {
        let mut batch = Batch::new(self, self.next_offset, records, timers);
        let commit = batch.prepare(self).await?;
        let next_offset = commit.next_offset;
        let removed = commit.timers_removed.clone();
        let set = commit.timers_set.clone();
        let begun_ns = self.ports.clock.monotonic_ns();
        self.session.commit.commit(commit).await?;
        self.commit_took = Duration::from_nanos(self.ports.clock.monotonic_ns().saturating_sub(begun_ns));
        let Committed { overlay, fired, letters, figures } = batch.committed();
        overlay.give_back(&mut self.cache);
        self.timers.committed(&removed, &set);
        self.committed(next_offset, &fired, &letters, &figures);
        Ok(())
    }

    fn committed(
        &mut self,
        next_offset: u64,
        fired: &[Timer],
        letters: &[(&'static str, &'static str)],
        figures: &BatchFigures,
    ) {
        self.next_offset = next_offset;
        self.poison.committed(next_offset, fired);
        for (stage, reason) in letters {
            self.meter.dead_letter(stage, reason);
        }
        self.meter.committed(figures);
        self.progress.committed(next_offset, self.ports.clock.now_ms());
        self.disk_was_full = false;
    }

    /// A stored batch cannot be read: a letter names it, and the partition goes on behind it.
    async fn skip_corrupt(
        &mut self,
        offset: u64,
        next_offset: u64,
        error: &LogError,
    ) -> Result<(), RuntimeError> {
        warn!(task = %self.id, offset, next_offset, %error, "a stored batch is skipped");
        let begun_ns = self.ports.clock.monotonic_ns();
        let failure = Failure {
            stage: self.id.kind.as_str(),
            code: "TS0303",
            reason: "corrupt",
            message: format!("offsets {offset}..{next_offset} cannot be read: {error}"),
        };
        let now_ms = self.ports.clock.now_ms();
        let letter = self.letters.write(&Subject::Corrupt(offset), &failure, 1, now_ms)?;
        let next_offset = next_offset.max(self.next_offset + 1);
        let commit = TaskCommit {
            task: self.id,
            from_offset: self.next_offset,
            next_offset,
            outputs: vec![letter],
            rows: Vec::new(),
            timers_removed: Vec::new(),
            timers_set: Vec::new(),
        };
        self.session.commit.commit(commit).await?;
        let figures = BatchFigures { begun_ns, commit_ns: begun_ns, ..BatchFigures::default() };
        self.committed(next_offset, &[], &[(failure.stage, failure.reason)], &figures);
        Ok(())
    }

    /// An input failed: its batch is dropped and run again from what is committed, on rows read afresh.
    async fn poisoned(&mut self, poisoned: Poisoned) -> Result<(), RuntimeError> {
        let Poisoned { culprit, failure, inputs } = poisoned;
        self.meter.dropped();
        let ended_alone = self.poison.is_last_try(&culprit) && !matches!(culprit, Culprit::Batch(_));
        let failures = self.poison.note(culprit.clone(), inputs);
        warn!(
            task = %self.id, ?culprit, failures, code = failure.code, reason = failure.reason,
            message = failure.message, "a batch is dropped and run again"
        );
        if ended_alone {
            // A failing `handle` is given up at once; only the batch's end comes here a third time.
            self.poison.condemn(culprit, failure);
        }
        self.reload().await
    }

    /// Nothing was taken and nothing is lost: waits for room and goes on from what is committed.
    async fn disk_full(
        &mut self,
        error: &LogError,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), RuntimeError> {
        self.meter.dropped();
        if !std::mem::replace(&mut self.disk_was_full, true) {
            warn!(task = %self.id, %error, "the task waits for room on the disk");
        }
        tokio::select! {
            biased;
            () = stopped(shutdown) => return Ok(()),
            () = self.ports.clock.sleep(self.settings.disk_full_wait) => {}
        }
        self.reload().await
    }

    /// Says what a missing offset means for this task.
    fn explain(&self, error: RuntimeError) -> RuntimeError {
        match error {
            RuntimeError::Log(LogError::OutOfRange { partition, start, end, asked })
                if partition == self.input =>
            {
                let (task, input, committed) = (self.id, self.input, asked);
                if asked < start {
                    RuntimeError::InputGone { task, input, committed, start }
                } else {
                    RuntimeError::OffsetsLost { task, input, committed, end }
                }
            }
            other => other,
        }
    }
}
