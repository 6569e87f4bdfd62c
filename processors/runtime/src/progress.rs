//! How far each task is: for readiness, metrics, and whoever waits for a task to catch up.

use crate::{Metrics, RuntimeError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tillstream_log::{Log, TopicPartition};
use tillstream_state::TaskId;
use tokio::sync::watch;

/// One task's progress.
#[derive(Debug)]
pub struct TaskProgress {
    id: TaskId,
    committed: watch::Sender<Option<u64>>,
    last_batch_ms: AtomicI64,
}

impl TaskProgress {
    /// The task goes on from this offset: everything before it is durable.
    pub fn committed(&self, next_offset: u64, now_ms: i64) {
        self.last_batch_ms.store(now_ms, Ordering::Relaxed);
        self.started(next_offset);
    }

    /// The task has started from this offset.
    pub fn started(&self, next_offset: u64) {
        self.committed.send_if_modified(|it| it.replace(next_offset) != Some(next_offset));
    }
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// The task.
    pub id: TaskId,
    /// The offset it goes on from; `None` until it has started.
    pub committed: Option<u64>,
    /// One past the last record of its input.
    pub end: u64,
    /// Records it has not committed yet.
    pub lag: u64,
    /// When its last batch was committed, ms since the epoch; 0 before the first.
    pub last_batch_ms: i64,
}

/// Every task of the process.
#[derive(Debug, Default)]
pub struct Progress {
    tasks: Mutex<Vec<Arc<TaskProgress>>>,
}

impl Progress {
    /// No task yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The task's entry; made on the first call, so that readiness can be asked before the task runs.
    pub fn register(&self, id: TaskId) -> Arc<TaskProgress> {
        let mut tasks = self.tasks.lock();
        if let Some(task) = tasks.iter().find(|it| it.id == id) {
            return Arc::clone(task);
        }
        let (committed, _) = watch::channel(None);
        let task = Arc::new(TaskProgress { id, committed, last_batch_ms: AtomicI64::new(0) });
        tasks.push(Arc::clone(&task));
        tasks.sort_by_key(|it| (it.id.kind, it.id.partition));
        task
    }

    /// Where every task stands now, by kind and partition.
    pub fn statuses(&self, log: &dyn Log) -> Result<Vec<TaskStatus>, RuntimeError> {
        let tasks = self.tasks.lock().clone();
        let status = |it: &Arc<TaskProgress>| {
            let committed = *it.committed.borrow();
            let end = log.end_offset(TopicPartition::new(it.id.kind.input(), it.id.partition))?;
            let last_batch_ms = it.last_batch_ms.load(Ordering::Relaxed);
            let lag = end.saturating_sub(committed.unwrap_or_default());
            Ok(TaskStatus { id: it.id, committed, end, lag, last_batch_ms })
        };
        tasks.iter().map(status).collect()
    }

    /// The input ends of every registered task, to be caught up with.
    pub fn ends(&self, log: &dyn Log) -> Result<Vec<(TaskId, u64)>, RuntimeError> {
        Ok(self.statuses(log)?.into_iter().map(|it| (it.id, it.end)).collect())
    }

    /// The offset the task goes on from; `None` until it has started.
    pub fn committed_offset(&self, id: TaskId) -> Option<u64> {
        let tasks = self.tasks.lock();
        tasks.iter().find(|it| it.id == id).and_then(|it| *it.committed.borrow())
    }

    /// Whether every named task has started and committed all input before the given offset.
    pub fn caught_up_with(&self, ends: &[(TaskId, u64)]) -> bool {
        let tasks = self.tasks.lock();
        ends.iter().all(|(id, end)| {
            let task = tasks.iter().find(|it| it.id == *id);
            task.is_some_and(|it| it.committed.borrow().is_some_and(|at| at >= *end))
        })
    }

    /// Resolves once [`Progress::caught_up_with`] holds.
    pub async fn wait_caught_up(&self, ends: &[(TaskId, u64)]) {
        for (id, end) in ends {
            let task = self.register(*id);
            let mut committed = task.committed.subscribe();
            // The sender lives in `task`: this cannot fail while we hold it.
            let _ = committed.wait_for(|it| it.is_some_and(|at| at >= *end)).await;
        }
    }

    /// Writes every task's lag to its gauge: call it when metrics are scraped, so that a stuck task shows.
    pub fn export(&self, log: &dyn Log, metrics: &Metrics) -> Result<(), RuntimeError> {
        for status in self.statuses(log)? {
            let partition = status.id.partition.to_string();
            let lag = i64::try_from(status.lag).unwrap_or(i64::MAX);
            metrics.lag_records.with_label_values(&[status.id.kind.as_str(), &partition]).set(lag);
        }
        Ok(())
    }
}
