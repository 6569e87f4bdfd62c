//! Doubles for this crate's tests: a clock that is set, a provider that does as it is told, a store in memory.

use crate::provider::{Lookup, PaymentProvider, ProviderReply};
use futures::future::{BoxFuture, pending};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_runtime::Clock;
use tillstream_schemas::Topic;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation, PaymentOutcome, PaymentResult};
use tillstream_stage::{RowKey, Table};
use tillstream_state::{Commit, Page, State, TaskCommit, TaskId, Timer};
use tokio::sync::watch;

/// 2026-01-01, ms since the epoch.
pub const NOW_MS: i64 = 1_767_225_600_000;

/// A request of `pay_1` with a Visa card.
pub fn request(request_key: &str, operation: PaymentOperation, amount_minor: i64) -> PaymentRequest {
    PaymentRequest {
        payment_id: "pay_1".into(),
        request_key: request_key.into(),
        attempt: 1,
        operation,
        amount_minor,
        currency: "GBP".into(),
        method: "pm_card_visa".into(),
        capture: CaptureMode::Automatic,
        refund_id: (operation == PaymentOperation::Refund).then(|| request_key.into()),
        first_asked_at_ms: NOW_MS,
    }
}

/// A clock that stands still until it is moved.
pub struct ManualClock(AtomicI64);

impl Default for ManualClock {
    fn default() -> Self {
        Self(AtomicI64::new(NOW_MS))
    }
}

impl ManualClock {
    pub fn advance_ms(&self, by_ms: i64) {
        self.0.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.now_ms() - NOW_MS).unwrap_or(0) * 1_000_000
    }

    fn sleep_until(&self, deadline_ns: u64) -> BoxFuture<'static, ()> {
        let wait_ns = deadline_ns.saturating_sub(self.monotonic_ns());
        Box::pin(tokio::time::sleep(std::time::Duration::from_nanos(wait_ns)))
    }
}

/// What a [`ScriptedProvider`] does with its next call.
enum Step {
    Fail,
    Hang,
}

/// A provider that captures everything, unless told otherwise.
#[derive(Default)]
pub struct ScriptedProvider {
    steps: Mutex<VecDeque<Step>>,
    /// The keys of all calls, in order.
    pub executed: Mutex<Vec<String>>,
    /// Keys that a lookup finds.
    pub known: Mutex<Vec<String>>,
}

impl ScriptedProvider {
    pub fn fail_next(&self, calls: usize) {
        self.steps.lock().extend((0..calls).map(|_| Step::Fail));
    }

    pub fn hang_next(&self, calls: usize) {
        self.steps.lock().extend((0..calls).map(|_| Step::Hang));
    }

    pub fn calls(&self) -> usize {
        self.executed.lock().len()
    }
}

fn captured(request_key: &str) -> PaymentResult {
    PaymentResult {
        payment_id: "pay_1".into(),
        request_key: request_key.into(),
        operation: PaymentOperation::Authorize,
        outcome: PaymentOutcome::Captured,
        amount_minor: 100,
        provider_ref: None,
        code: None,
        message: None,
    }
}

impl PaymentProvider for ScriptedProvider {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn execute<'a>(
        &'a self,
        _tenant: &'a str,
        _order_id: &'a str,
        request: &'a PaymentRequest,
    ) -> BoxFuture<'a, ProviderReply> {
        self.executed.lock().push(request.request_key.to_string());
        let step = self.steps.lock().pop_front();
        Box::pin(async move {
            match step {
                Some(Step::Fail) => ProviderReply::unavailable("down", "down"),
                Some(Step::Hang) => pending().await,
                None => ProviderReply::Answered(captured(&request.request_key)),
            }
        })
    }

    fn lookup<'a>(&'a self, request_key: &'a str) -> BoxFuture<'a, Lookup> {
        let known = self.known.lock().iter().any(|it| it == request_key);
        let found = if known { Lookup::Found(captured(request_key)) } else { Lookup::Absent };
        Box::pin(async move { found })
    }
}

/// A log, committed offsets and the commit, in memory. Two partitions per topic.
pub struct MemoryStore {
    partitions: Mutex<BTreeMap<TopicPartition, Vec<Record>>>,
    offsets: Mutex<BTreeMap<TaskId, u64>>,
    commits: Mutex<Vec<(u64, u64)>>,
    fail_commits: Mutex<bool>,
    commit_errors: Mutex<Vec<LogError>>,
    read_errors: Mutex<Vec<LogError>>,
    appended: watch::Sender<u64>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            partitions: Mutex::default(),
            offsets: Mutex::default(),
            commits: Mutex::default(),
            fail_commits: Mutex::default(),
            commit_errors: Mutex::default(),
            read_errors: Mutex::default(),
            appended: watch::Sender::new(0),
        }
    }
}

impl MemoryStore {
    /// Appends one record.
    pub fn put(&self, to: TopicPartition, key: &str, value: Vec<u8>) {
        self.write(vec![NewRecord {
            to,
            key: key.to_owned().into(),
            value: value.into(),
            headers: tillstream_log::Headers::new(),
        }]);
    }

    /// From now on every commit fails, as when the process is killed before it.
    pub fn fail_commits(&self, fail: bool) {
        *self.fail_commits.lock() = fail;
    }

    /// The next commit fails so.
    pub fn fail_next_commit(&self, error: LogError) {
        self.commit_errors.lock().push(error);
    }

    /// The next read fails so.
    pub fn fail_next_read(&self, error: LogError) {
        self.read_errors.lock().push(error);
    }

    /// All records of a topic.
    pub fn records(&self, topic: Topic) -> Vec<Record> {
        let partitions = self.partitions.lock();
        partitions.iter().filter(|(at, _)| at.topic == topic).flat_map(|(_, it)| it.iter().cloned()).collect()
    }

    /// From and next offset of every commit.
    pub fn commits(&self) -> Vec<(u64, u64)> {
        self.commits.lock().clone()
    }

    /// Resolves once `done` holds.
    pub async fn wait_until(&self, done: impl Fn(&Self) -> bool) {
        let mut appended = self.appended.subscribe();
        let waiting = appended.wait_for(|_| done(self));
        tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.unwrap().unwrap();
    }

    fn write(&self, records: Vec<NewRecord>) {
        let mut partitions = self.partitions.lock();
        for record in records {
            let partition = partitions.entry(record.to).or_default();
            partition.push(Record {
                offset: partition.len() as u64,
                timestamp_ms: NOW_MS,
                key: record.key,
                value: record.value,
                headers: record.headers,
            });
        }
        drop(partitions);
        self.appended.send_modify(|it| *it += 1);
    }
}

impl Log for MemoryStore {
    fn partitions(&self, _topic: Topic) -> u32 {
        2
    }

    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        self.write(records);
        Box::pin(async { Ok(()) })
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        if let Some(error) = self.read_errors.lock().pop() {
            return Box::pin(async move { Err(error) });
        }
        let partitions = self.partitions.lock();
        let records = partitions.get(&from).into_iter().flatten();
        let records = records.skip(offset as usize).take(limit.records_max).cloned().collect();
        Box::pin(async move { Ok(records) })
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            let mut appended = self.appended.subscribe();
            let _ = appended.wait_for(|_| self.end_offset(partition).is_ok_and(|end| end > offset)).await;
            Ok(())
        })
    }

    fn start_offset(&self, _partition: TopicPartition) -> Result<u64, LogError> {
        Ok(0)
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        Ok(self.partitions.lock().get(&partition).map_or(0, |it| it.len() as u64))
    }
}

impl State for MemoryStore {
    fn get_many<'a>(
        &'a self,
        keys: &'a [RowKey],
    ) -> BoxFuture<'a, Result<Vec<Option<bytes::Bytes>>, LogError>> {
        Box::pin(async move { Ok(vec![None; keys.len()]) })
    }

    fn scan<'a>(
        &'a self,
        _table: Table,
        _prefix: &'a str,
        _after: Option<&'a str>,
        _limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        Box::pin(async { Ok(Page::default()) })
    }

    fn timers_due(
        &self,
        _task: TaskId,
        _from_ms: i64,
        _until_ms: i64,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn committed(&self, task: TaskId) -> BoxFuture<'_, Result<u64, LogError>> {
        let offset = self.offsets.lock().get(&task).copied().unwrap_or(0);
        Box::pin(async move { Ok(offset) })
    }
}

impl Commit for MemoryStore {
    fn commit(&self, commit: TaskCommit) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            if *self.fail_commits.lock() {
                return Err(LogError::Stopped("killed".into()));
            }
            if let Some(error) = self.commit_errors.lock().pop() {
                return Err(error);
            }
            {
                let mut offsets = self.offsets.lock();
                let found = offsets.entry(commit.task).or_default();
                if *found != commit.from_offset {
                    let task = commit.task.to_string();
                    return Err(LogError::Fenced { task, expected: commit.from_offset, found: *found });
                }
                *found = commit.next_offset;
            }
            self.commits.lock().push((commit.from_offset, commit.next_offset));
            self.write(commit.outputs);
            Ok(())
        })
    }
}
