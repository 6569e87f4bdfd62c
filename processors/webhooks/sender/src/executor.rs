//! The executor: one partition of events, followed for every endpoint of its tenants, sent, and accounted for.
//!
//! What it holds is decided by [`tillstream_webhooks::Feed`]; this is the shell around it. One commit moves the input
//! offset, the rows of feeds and lanes, their timers and the delivery log together. An endpoint that lags reads the log
//! from a position of its own, so that nobody waits for it. After a crash, what was not committed is sent again under the
//! same `webhook-id`.

mod attempts;
mod commit;
mod entry;
mod errands;
mod follow_book;
mod intake;
mod load;
mod supervise;

pub use supervise::supervise_executor;

use crate::endpoints::Endpoints;
use crate::gate::Gates;
use crate::metrics::WebhookMetrics;
use crate::transport::Transport;
use attempts::Finished;
use entry::{Entry, FeedId};
use errands::Errand;
use futures::future::{BoxFuture, pending};
use futures::stream::{FuturesUnordered, StreamExt};
use intake::CaughtUp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tillstream_log::{Log, LogError, Record, TopicPartition};
use tillstream_runtime::{Clock, Metrics, Progress, TaskProgress};
use tillstream_schemas::codec::CodecError;
use tillstream_schemas::webhook::WebhookDeliveryState;
use tillstream_stage::RowKey;
use tillstream_state::{Session, Sessions, TaskId};
use tillstream_webhooks::{Limits, Schedule, Source};
use tokio::sync::watch;

/// What the executor works with.
#[derive(Clone)]
pub struct ExecutorPorts {
    /// Where each life of the executor begins.
    pub sessions: Arc<dyn Sessions>,
    /// The log of the process: for events behind the input's position.
    pub log: Arc<dyn Log>,
    /// Endpoints.
    pub endpoints: Arc<dyn Endpoints>,
    /// Who makes attempts.
    pub transport: Arc<dyn Transport>,
    /// What endpoints may have under way in this process.
    pub gates: Gates,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The metrics every stage has; the label is the task's name.
    pub metrics: Arc<Metrics>,
    /// Counters of its own.
    pub webhooks: WebhookMetrics,
    /// Where the executor tells how far it is.
    pub progress: Arc<Progress>,
}

/// How the executor works.
#[derive(Clone, Debug)]
pub struct ExecutorSettings {
    /// When deliveries are tried again.
    pub schedule: Schedule,
    /// Bounds of one endpoint in one partition.
    pub limits: Limits,
    /// Attempts under way per partition, at most.
    pub in_flight_max: usize,
    /// An endpoint that has only failed for so long is switched off.
    pub disable_after: Duration,
    /// How long the delivery log remembers.
    pub log_kept: Duration,
    /// Between two commits of what was delivered.
    pub commit_interval: Duration,
    /// Between two commits of the position alone.
    pub position_interval: Duration,
    /// Between two looks at how old the delivery log is.
    pub sweep_interval: Duration,
    /// How long a shutdown waits for attempts under way; what is left is sent again under the same id.
    pub drain_timeout: Duration,
}

impl Default for ExecutorSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        Self {
            schedule: Schedule::default(),
            limits: Limits::default(),
            in_flight_max: 512,
            disable_after: DAY * 5,
            log_kept: DAY * 30,
            commit_interval: Duration::from_millis(100),
            position_interval: Duration::from_secs(1),
            sweep_interval: Duration::from_secs(3_600),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Why the executor stopped.
#[derive(Debug, Error)]
pub enum WebhooksError {
    /// The log or the store failed, or another owner took over.
    #[error(transparent)]
    Log(#[from] LogError),
    /// More is committed than the log holds, or what was to be sent next is gone.
    #[error(
        "TS0901: {task} has committed offset {committed}, but its input holds {start}..{end}: events for webhooks are \
         gone; restore log and state together from a backup"
    )]
    OffsetsLost {
        /// The task.
        task: TaskId,
        /// What is committed.
        committed: u64,
        /// The first offset kept.
        start: u64,
        /// One past the last.
        end: u64,
    },
    /// Rows cannot be read or written.
    #[error("TS0903: a row of deliveries cannot be coded: {0}")]
    Codec(#[from] CodecError),
    /// The executor itself panicked.
    #[error("TS0904: {task} panicked: {message}")]
    Panicked {
        /// The task.
        task: TaskId,
        /// The panic's words.
        message: String,
    },
}

impl WebhooksError {
    /// Whether starting again cannot help: the process must halt.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::OffsetsLost { .. } | Self::Panicked { .. } => true,
            Self::Codec(_) => false,
            Self::Log(error) => error.is_fatal(),
        }
    }
}

/// One life of the executor of one partition.
struct Executor<'a> {
    task: TaskId,
    source: Source,
    input: TopicPartition,
    partitions: u32,
    session: &'a Session,
    ports: &'a ExecutorPorts,
    settings: &'a ExecutorSettings,
    progress: &'a TaskProgress,
    entries: BTreeMap<FeedId, Entry>,
    /// Entries that have something to send, to read or to wait for.
    active: BTreeSet<FeedId>,
    /// Entries that changed since the last commit began.
    touched: BTreeSet<FeedId>,
    /// Rows of the delivery log that changed since the last commit began; `None` deletes.
    deliveries: BTreeMap<RowKey, Option<WebhookDeliveryState>>,
    /// Rows and timers of feeds that are no more, to be deleted.
    leftovers: commit::Leftovers,
    /// The next offset of the input.
    next: u64,
    committed: u64,
    /// When the last commit began, monotonic ns.
    commit_ns: u64,
    committing: Option<(u64, BoxFuture<'a, Result<(), LogError>>)>,
    reading: Option<BoxFuture<'a, Result<Vec<Record>, LogError>>>,
    catching: FuturesUnordered<BoxFuture<'a, CaughtUp>>,
    attempts: FuturesUnordered<BoxFuture<'a, Finished>>,
    errands: FuturesUnordered<BoxFuture<'a, Result<Errand, LogError>>>,
    book_revision: u64,
    /// The last request taken on for endpoints that are off.
    requests: BTreeMap<FeedId, i64>,
    next_sweep_ms: i64,
    /// When the gate said to ask again, monotonic ns.
    gated_until_ns: Option<u64>,
}

enum Woken {
    Committed(Result<(), LogError>),
    Attempted(Box<Finished>),
    Read(Result<Vec<Record>, LogError>),
    CaughtUp(CaughtUp),
    Errand(Result<Errand, LogError>),
    Again,
    Stop,
    DrainOver,
}

/// Follows the events of one partition until `shutdown` turns true (or its sender is gone), then drains.
///
/// # Errors
/// The first error that only a new life can mend.
async fn run_executor(
    task: TaskId,
    source: Source,
    ports: &ExecutorPorts,
    settings: &ExecutorSettings,
    shutdown: watch::Receiver<bool>,
) -> Result<(), WebhooksError> {
    let session = ports.sessions.open(task).await?;
    let progress = ports.progress.register(task);
    let executor = Executor::load(task, source, &session, ports, settings, &progress).await?;
    let ended = executor.run(shutdown).await;
    let partition = task.partition.to_string();
    let labels = [task.kind.as_str(), partition.as_str()];
    ports.webhooks.pending.with_label_values(&labels).set(0);
    ports.webhooks.queue_age_seconds.with_label_values(&labels).set(0);
    ended
}

impl Executor<'_> {
    async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<(), WebhooksError> {
        let mut changes = self.ports.endpoints.changes();
        let gates = self.ports.gates.clone();
        let mut drain_over: Option<BoxFuture<'static, ()>> = None;
        loop {
            let draining = drain_over.is_some();
            if !draining {
                self.follow_book();
                self.dispatch();
                self.begin_read();
                self.begin_catch_up();
                self.begin_sweep();
            }
            self.begin_commit(draining);
            if draining && self.attempts.is_empty() && self.committing.is_none() && !self.has_changes() {
                return Ok(());
            }
            let opened = gates.opened();
            let nap = self.nap(draining);
            let woken = tokio::select! {
                biased;
                ended = poll_commit(&mut self.committing) => Woken::Committed(ended),
                Some(done) = self.attempts.next(), if !self.attempts.is_empty() => Woken::Attempted(Box::new(done)),
                Some(done) = self.errands.next(), if !self.errands.is_empty() => Woken::Errand(done),
                records = poll_option(&mut self.reading) => Woken::Read(records),
                Some(read) = self.catching.next(), if !self.catching.is_empty() => Woken::CaughtUp(read),
                () = poll_option(&mut drain_over) => Woken::DrainOver,
                () = stopped(&mut shutdown), if !draining => Woken::Stop,
                () = opened, if self.gated_until_ns.is_some() => Woken::Again,
                _ = changes.changed(), if !draining => Woken::Again,
                () = nap => Woken::Again,
            };
            match woken {
                Woken::Committed(ended) => {
                    ended?;
                    self.committed();
                }
                Woken::Attempted(done) => self.finished(*done),
                Woken::Read(records) => {
                    self.reading = None;
                    match records {
                        Ok(records) => self.take_in(&records),
                        Err(error) => self.skip_corrupt(error)?,
                    }
                }
                Woken::CaughtUp(read) => self.caught_up(read)?,
                Woken::Errand(done) => self.errand_done(done?),
                Woken::Again => {}
                Woken::Stop => {
                    self.reading = None;
                    self.catching.clear();
                    self.errands.clear();
                    drain_over = Some(self.ports.clock.sleep(self.settings.drain_timeout));
                }
                Woken::DrainOver => {
                    tracing::info!(task = %self.task, left = self.attempts.len(), "attempts left for the next start");
                    self.attempts.clear();
                    drain_over = Some(Box::pin(pending()));
                }
            }
        }
    }

    /// Resolves when something is due that nothing else wakes for.
    fn nap(&self, draining: bool) -> BoxFuture<'static, ()> {
        let clock = &self.ports.clock;
        let (now_ms, now_ns) = (clock.now_ms(), clock.monotonic_ns());
        let mut until_ns = now_ns.saturating_add(NAP_MAX_NS);
        if self.committing.is_none()
            && let Some(commit_ns) = self.commit_due_ns(draining)
        {
            until_ns = until_ns.min(commit_ns);
        }
        let due_ms = self.active.iter().filter_map(|it| self.entries.get(it)?.feed.wakes_at_ms()).min();
        if let Some(due_ms) = due_ms.filter(|it| *it > now_ms) {
            let wait_ns = (due_ms - now_ms).unsigned_abs().saturating_mul(1_000_000);
            until_ns = until_ns.min(now_ns.saturating_add(wait_ns));
        }
        if let Some(gated_ns) = self.gated_until_ns {
            until_ns = until_ns.min(gated_ns);
        }
        clock.sleep_until(until_ns.max(now_ns + NAP_MIN_NS))
    }
}

/// The wall clock may jump: the executor looks again after so long.
const NAP_MAX_NS: u64 = 1_000_000_000;
const NAP_MIN_NS: u64 = 1_000_000;

/// The future's output; never, when there is none. The caller takes it away.
async fn poll_option<T>(future: &mut Option<BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn poll_commit(
    committing: &mut Option<(u64, BoxFuture<'_, Result<(), LogError>>)>,
) -> Result<(), LogError> {
    match committing {
        Some((_, future)) => future.await,
        None => pending().await,
    }
}

/// Resolves once a stop is asked for, or nobody is left who could ask.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;
