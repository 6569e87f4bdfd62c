//! The executor: one partition of effect requests, performed concurrently, answered in the same commit as the offset.

use crate::metrics::EffectsMetrics;
use crate::provider::{Lookup, PaymentProvider, ProviderReply};
use crate::window::Window;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, pending};
use futures::stream::{FuturesUnordered, StreamExt};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tillstream_log::{LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_runtime::{Clock, Metrics, Progress, TaskProgress};
use tillstream_schemas::Topic;
use tillstream_schemas::codec::{self, CodecError};
use tillstream_schemas::effects::{EffectPayload, EffectRequest};
use tillstream_schemas::order_command::PaymentResult;
use tillstream_stage::ids::trace_id;
use tillstream_stage::task::TaskKind;
use tillstream_state::{Session, Sessions, TaskCommit, TaskId};
use tokio::sync::watch;

mod answer;
mod supervise;

pub use supervise::supervise_executor;

/// What the executor works with.
#[derive(Clone)]
pub struct ExecutorPorts {
    /// Where each life of the executor begins.
    pub sessions: Arc<dyn Sessions>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The metrics every stage has; the label is `effects`.
    pub metrics: Arc<Metrics>,
    /// Counters of its own.
    pub effects: EffectsMetrics,
    /// Where the executor tells how far it is.
    pub progress: Arc<Progress>,
}

/// How the executor works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorSettings {
    /// Requests in flight per partition, at most.
    pub in_flight_max: usize,
    /// Bytes one read returns, at most.
    pub read_bytes_max: usize,
    /// How long a provider remembers an idempotency key; older requests are looked up first.
    pub key_trusted: Duration,
    /// While other requests are unanswered, an answer waits so long for theirs, so that what was asked for together is
    /// answered in one commit. Zero: never.
    pub gather: Duration,
    /// After a commit that took so long, at most this, the next one waits as long for more answers: a broker that is slow
    /// to end transactions gets fewer and larger ones. Zero: never.
    pub pace_max: Duration,
    /// How long a shutdown waits for requests in flight; what is left is performed again with the same key.
    pub drain_timeout: Duration,
}

impl Default for ExecutorSettings {
    fn default() -> Self {
        Self {
            in_flight_max: 1_024,
            read_bytes_max: 1_024 * 1_024,
            key_trusted: Duration::from_secs(23 * 3_600),
            gather: Duration::ZERO,
            pace_max: Duration::ZERO,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Why the executor stopped.
#[derive(Debug, Error)]
pub enum ExecutorError {
    /// The log or the store failed, or another owner took over.
    #[error(transparent)]
    Log(#[from] LogError),
    /// More is committed than the log holds.
    #[error(
        "TS0504: {task} has committed offset {committed}, but its input holds {start}..{end}: the log was cut or \
         recreated; restore the data dir (log and state lie in it together) from a backup"
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
    /// The executor itself panicked.
    #[error("TS0506: {task} panicked: {message}")]
    Panicked {
        /// The task.
        task: TaskId,
        /// The panic's words.
        message: String,
    },
    /// The executor's own bytes cannot be written.
    #[error("TS0505: an answer cannot be written: {0}")]
    Codec(#[from] CodecError),
}

impl ExecutorError {
    /// Whether starting again cannot help: the process must halt.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::OffsetsLost { .. } | Self::Panicked { .. } => true,
            Self::Codec(_) => false,
            Self::Log(error) => error.is_fatal(),
        }
    }
}

/// The label of the metrics every stage has.
const STAGE: &str = "effects";

/// Performs the requests of one partition until `shutdown` turns true (or its sender is gone), then drains.
///
/// At least once: after a crash, requests whose answer was not committed are performed again with the same idempotency
/// key. Any error ends its life; it may be started again, and goes on from what is committed.
pub async fn run_executor(
    partition: u32,
    ports: ExecutorPorts,
    provider: Arc<dyn PaymentProvider>,
    settings: ExecutorSettings,
    shutdown: watch::Receiver<bool>,
) -> Result<(), ExecutorError> {
    let task = TaskId { kind: TaskKind::Effects, partition };
    let input = TopicPartition::new(TaskKind::Effects.input(), partition);
    let session = ports.sessions.open(task).await?;
    let committed = session.state.committed(task).await?;
    session.log.refresh(&[input]).await?;
    let (start, end) = (session.log.start_offset(input)?, session.log.end_offset(input)?);
    if committed < start || committed > end {
        return Err(ExecutorError::OffsetsLost { task, committed, start, end });
    }
    tracing::debug!(%task, committed, end, "effects executor begins");
    let gauge = ports.effects.in_flight.with_label_values(&[&partition.to_string()]);
    let progress = ports.progress.register(task);
    progress.started(committed);
    let executor = Executor {
        task,
        input,
        progress: &progress,
        session: &session,
        ports: &ports,
        provider: &*provider,
        settings: &settings,
        command_partitions: session.log.partitions(Topic::OrderCommands),
        committed,
        window: Window::new(committed),
        inherited: end,
        outputs: Vec::new(),
        commit_ns: 0,
        requested_at_ms: 0,
        in_flight: FuturesUnordered::new(),
        committing: None,
        paced: None,
        gathering: None,
        gathered: false,
        reading: None,
        gauge: gauge.clone(),
    };
    let ended = executor.run(shutdown).await;
    gauge.set(0);
    ended
}

/// A request that was answered.
struct Finished {
    offset: u64,
    request: EffectRequest,
    result: PaymentResult,
    took_ns: u64,
}

/// One line per answer, under the trace of the order it is for.
fn told(finished: &Finished) {
    let trace_id = finished.request.traceparent.as_deref().and_then(trace_id).unwrap_or_default();
    let outcome = answer::outcome_label(finished.result.outcome);
    tracing::debug!(target: "pipeline", trace_id, stage = STAGE, outcome, "answered");
}

struct Executor<'a> {
    task: TaskId,
    input: TopicPartition,
    progress: &'a TaskProgress,
    session: &'a Session,
    ports: &'a ExecutorPorts,
    provider: &'a dyn PaymentProvider,
    settings: &'a ExecutorSettings,
    command_partitions: u32,
    committed: u64,
    window: Window,
    /// Where the requests ended when this life began: an earlier one may have performed those before it.
    inherited: u64,
    /// Answers that wait for the next commit.
    outputs: Vec<NewRecord>,
    /// When the commit under way was asked for, monotonic ns.
    commit_ns: u64,
    /// When the newest answered request was committed, ms since the epoch.
    requested_at_ms: i64,
    in_flight: FuturesUnordered<BoxFuture<'a, Finished>>,
    /// The commit under way, with the offset it moves to. One at a time: what is answered meanwhile is the next one.
    committing: Option<(u64, BoxFuture<'a, Result<(), LogError>>)>,
    /// Until this is over no commit begins.
    paced: Option<BoxFuture<'static, ()>>,
    /// The wait of an answer for others, and whether it is over.
    gathering: Option<BoxFuture<'static, ()>>,
    gathered: bool,
    reading: Option<BoxFuture<'a, Result<Vec<Record>, LogError>>>,
    gauge: prometheus::IntGauge,
}

enum Woken {
    Committed(Result<(), LogError>),
    Answered(Box<Finished>),
    Read(Result<Vec<Record>, LogError>),
    Paced,
    Gathered,
    Stop,
    DrainOver,
}

impl Executor<'_> {
    async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<(), ExecutorError> {
        let mut drain_over: Option<BoxFuture<'static, ()>> = None;
        loop {
            if drain_over.is_some() {
                (self.paced, self.gathered) = (None, true);
            }
            self.begin_commit();
            if drain_over.is_none() {
                self.begin_read();
            } else if self.in_flight.is_empty() && self.committing.is_none() {
                return Ok(());
            }
            let woken = tokio::select! {
                biased;
                ended = poll_commit(&mut self.committing) => Woken::Committed(ended),
                Some(finished) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    Woken::Answered(Box::new(finished))
                }
                records = poll_option(&mut self.reading) => Woken::Read(records),
                () = poll_option(&mut self.paced) => Woken::Paced,
                () = poll_option(&mut self.gathering) => Woken::Gathered,
                () = poll_option(&mut drain_over) => Woken::DrainOver,
                () = stopped(&mut shutdown), if drain_over.is_none() => Woken::Stop,
            };
            match woken {
                Woken::Committed(ended) => {
                    ended?;
                    self.committed();
                }
                Woken::Answered(finished) => self.take_answers(*finished)?,
                Woken::Read(records) => {
                    self.reading = None;
                    match records {
                        Ok(records) => self.begin_requests(records)?,
                        Err(error) => self.skip_corrupt(error)?,
                    }
                }
                Woken::Paced => self.paced = None,
                Woken::Gathered => (self.gathering, self.gathered) = (None, true),
                Woken::Stop => {
                    self.reading = None;
                    drain_over = Some(self.ports.clock.sleep(self.settings.drain_timeout));
                }
                Woken::DrainOver => {
                    tracing::warn!(task = %self.task, left = self.in_flight.len(), "requests left for the next start");
                    self.in_flight.clear();
                    drain_over = Some(Box::pin(pending()));
                }
            }
            self.gauge.set(i64::try_from(self.in_flight.len()).unwrap_or(i64::MAX));
        }
    }

    /// Begins a commit if there is something to commit and none is under way.
    fn begin_commit(&mut self) {
        if self.committing.is_some() || self.paced.is_some() {
            return;
        }
        let next_offset = self.window.advance();
        if self.outputs.is_empty() && next_offset == self.committed {
            return;
        }
        if !self.gathered && !self.in_flight.is_empty() && !self.settings.gather.is_zero() {
            if self.gathering.is_none() {
                self.gathering = Some(self.ports.clock.sleep(self.settings.gather));
            }
            return;
        }
        (self.gathering, self.gathered) = (None, false);
        let commit = TaskCommit {
            task: self.task,
            from_offset: self.committed,
            next_offset,
            outputs: std::mem::take(&mut self.outputs),
            rows: Vec::new(),
            timers_removed: Vec::new(),
            timers_set: Vec::new(),
        };
        self.commit_ns = self.ports.clock.monotonic_ns();
        self.ports.metrics.batch_records.with_label_values(&[STAGE]).observe(commit.outputs.len() as f64);
        self.committing = Some((next_offset, self.session.commit.commit(commit)));
    }

    /// The commit under way is durable.
    fn committed(&mut self) {
        let Some((next_offset, _)) = self.committing.take() else { return };
        self.committed = next_offset;
        let (metrics, clock) = (&self.ports.metrics, &self.ports.clock);
        let took_ns = clock.monotonic_ns().saturating_sub(self.commit_ns);
        metrics.commit_seconds.with_label_values(&[STAGE]).observe(took_ns as f64 / 1e9);
        let pace = Duration::from_nanos(took_ns).min(self.settings.pace_max);
        self.paced = (!pace.is_zero()).then(|| clock.sleep(pace));
        let now_ms = clock.now_ms();
        if self.requested_at_ms > 0 {
            let age_ms = now_ms.saturating_sub(self.requested_at_ms).max(0);
            metrics.event_lag_seconds.with_label_values(&[STAGE]).set(age_ms as f64 / 1e3);
        }
        self.progress.committed(next_offset, now_ms);
    }

    /// Begins a read once half of the places are free, so that reads stay large. Places are also held by answers that
    /// wait behind an unanswered request: that bounds what a crash repeats.
    fn begin_read(&mut self) {
        let held = usize::try_from(self.window.high() - self.window.low()).unwrap_or(usize::MAX);
        let free = self.settings.in_flight_max.saturating_sub(self.in_flight.len());
        let room = self.settings.in_flight_max.saturating_mul(16).saturating_sub(held).min(free);
        if self.reading.is_some() || room == 0 || room < self.settings.in_flight_max / 2 {
            return;
        }
        let limit = ReadLimit { records_max: room, bytes_max: self.settings.read_bytes_max };
        let (log, input, offset) = (&self.session.log, self.input, self.window.high());
        self.reading = Some(Box::pin(async move {
            log.wait_past(input, offset).await?;
            log.read(input, offset, limit).await
        }));
    }

    fn begin_requests(&mut self, records: Vec<Record>) -> Result<(), ExecutorError> {
        for record in records {
            self.window.begin(record.offset);
            match codec::decode::<EffectRequest>(&record.value) {
                Ok(request) => {
                    let place = (record.offset, record.offset < self.inherited);
                    let performed = perform(self.provider, self.ports, self.settings, place, request);
                    self.in_flight.push(Box::pin(performed));
                }
                Err(error) => {
                    self.give_up(&record, &answer::Failure::from(&error))?;
                    self.window.finish(record.offset);
                }
            }
        }
        Ok(())
    }

    fn give_up(&mut self, record: &Record, failure: &answer::Failure) -> Result<(), ExecutorError> {
        tracing::warn!(task = %self.task, offset = record.offset, message = failure.message, "dead letter");
        self.outputs.push(answer::dead_letter(self.input, record, failure, &self.ports_facts())?);
        self.ports.metrics.dead_letters.with_label_values(&[STAGE, failure.reason]).inc();
        Ok(())
    }

    /// A stored batch cannot be read: a letter names it, and the partition goes on behind it.
    fn skip_corrupt(&mut self, error: LogError) -> Result<(), ExecutorError> {
        let message = error.to_string();
        let LogError::Corrupt { offset, next_offset, .. } = error else {
            return Err(error.into());
        };
        let unread = Record {
            offset,
            timestamp_ms: self.ports.clock.now_ms(),
            key: Bytes::new(),
            value: Bytes::new(),
            headers: tillstream_log::Headers::new(),
        };
        self.give_up(&unread, &answer::Failure { code: "TS0303", reason: "corrupt", message })?;
        self.window.skip_to(next_offset.max(self.window.high() + 1));
        Ok(())
    }

    fn ports_facts(&self) -> answer::Facts {
        answer::Facts {
            now_ms: self.ports.clock.now_ms(),
            command_partitions: self.command_partitions,
            dlq_partitions: self.session.log.partitions(Topic::EffectRequestsDlq),
        }
    }

    /// Takes this answer and all others that are ready.
    fn take_answers(&mut self, first: Finished) -> Result<(), ExecutorError> {
        let facts = self.ports_facts();
        let mut next = Some(first);
        while let Some(finished) = next {
            self.count(&finished);
            self.requested_at_ms = self.requested_at_ms.max(finished.request.requested_at_ms);
            self.window.finish(finished.offset);
            told(&finished);
            self.outputs.push(answer::command(finished.request, finished.result, &facts)?);
            next = self.in_flight.next().now_or_never().flatten();
        }
        Ok(())
    }

    fn count(&self, finished: &Finished) {
        let metrics = &self.ports.effects;
        let provider = self.provider.name();
        let operation = answer::operation_label(finished.result.operation);
        let outcome = answer::outcome_label(finished.result.outcome);
        metrics.requests.with_label_values(&[provider, operation, outcome]).inc();
        let seconds = finished.took_ns as f64 / 1e9;
        metrics.request_seconds.with_label_values(&[provider]).observe(seconds);
        let shared = &self.ports.metrics;
        let outcome = answer::stage_outcome(finished.result.outcome);
        shared.stage_records.with_label_values(&[STAGE, outcome]).inc();
        shared.batch_seconds.with_label_values(&[STAGE]).observe(seconds);
    }
}

/// Performs one request. Past the time a provider remembers keys, it looks the request up first: the key alone would
/// no longer keep a second charge away. `again`: it may have been performed before.
async fn perform(
    provider: &dyn PaymentProvider,
    ports: &ExecutorPorts,
    settings: &ExecutorSettings,
    (offset, again): (u64, bool),
    request: EffectRequest,
) -> Finished {
    let began_ns = ports.clock.monotonic_ns();
    let EffectPayload::Payment(payment) = &request.payload;
    let age_ms = ports.clock.now_ms().saturating_sub(payment.first_asked_at_ms);
    let trusted_ms = i64::try_from(settings.key_trusted.as_millis()).unwrap_or(i64::MAX);
    let known =
        if age_ms > trusted_ms { provider.lookup(&payment.request_key).await } else { Lookup::Absent };
    let reply = match known {
        Lookup::Found(result) => ProviderReply::Answered(result),
        Lookup::Unavailable => ProviderReply::unavailable(
            "lookup_unavailable",
            "The request is too old for its key, and the provider could not be asked what became of it.",
        ),
        Lookup::Absent => {
            let call = provider.execute(&request.tenant, &request.order_id, payment);
            // A panic tells nothing about what happened outside.
            AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|_| {
                ProviderReply::unknown("panic", "The provider's client failed during the call.")
            })
        }
    };
    let result = if again { reply.of_a_repeat() } else { reply }.into_result(payment);
    let took_ns = ports.clock.monotonic_ns().saturating_sub(began_ns);
    Finished { offset, request, result, took_ns }
}

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

/// The key of an order, as bytes of a record.
fn key_bytes(tenant: &str, order_id: &str) -> Bytes {
    Bytes::copy_from_slice(tillstream_stage::ids::key(tenant, order_id).as_bytes())
}

#[cfg(test)]
mod tests;
