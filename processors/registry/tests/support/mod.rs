//! A toy domain over the events of API keys, a log whose appends fail, and a process that follows.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_registry_log::{Appended, Fold, Registry, RegistryError};
use tillstream_runtime::SystemClock;
use tillstream_schemas::Topic;
use tillstream_schemas::access::{AccessKeyRotated, AccessPayload};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use tillstream_schemas::access::AccessEvent as Event;

pub const PARTITIONS: u32 = 3;

/// Fails the test when it does not come.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: did not happen in time"),
    }
}

/// A version per tenant; an event that expects another one is refused with the one there is.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    pub versions: BTreeMap<String, i64>,
    pub appended: Vec<Appended>,
}

impl Fold for Versions {
    type Event = Event;
    type Refusal = i64;

    fn apply(&mut self, event: &Event, appended: Appended) -> Result<(), i64> {
        let AccessPayload::Rotated(rotated) = &event.payload else { panic!("{event:?}") };
        self.appended.push(appended);
        let version = self.versions.get(event.tenant.as_str()).copied().unwrap_or(0);
        if rotated.expected_version != version {
            return Err(version);
        }
        self.versions.insert(event.tenant.to_string(), version + 1);
        Ok(())
    }
}

pub fn change(tenant: &str, id: &str, expected_version: i64) -> Event {
    let rotated =
        AccessKeyRotated { key_id: "k".into(), hash: vec![1; 32], previous_until_ms: 0, expected_version };
    Event {
        id: id.into(),
        tenant: tenant.into(),
        occurred_at_ms: 5,
        actor: "test".into(),
        payload: AccessPayload::Rotated(rotated),
    }
}

pub fn settings(dir: &Path) -> EmbeddedSettings {
    EmbeddedSettings {
        partitions: PARTITIONS,
        retention_ms: -1,
        log_bytes_max: 1,
        retention_every_ms: 0,
        ..EmbeddedSettings::new(dir)
    }
}

pub fn open_store() -> (TempDir, Arc<EmbeddedStore>) {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(settings(dir.path())).unwrap();
    (dir, store)
}

pub async fn partition(log: &dyn Log, at: TopicPartition) -> Vec<Record> {
    log.read(at, 0, ReadLimit { records_max: 10_000, bytes_max: 1 << 24 }).await.unwrap()
}

/// Every event there is, by partition.
pub async fn records(log: &dyn Log) -> Vec<Record> {
    let mut all = Vec::new();
    for number in 0..PARTITIONS {
        all.extend(partition(log, TopicPartition::new(Topic::AccessKeys, number)).await);
    }
    all
}

/// A process that follows.
pub struct Follower {
    pub registry: Arc<Registry<Versions>>,
    shutdown: watch::Sender<bool>,
    running: Option<JoinHandle<Result<(), RegistryError>>>,
}

impl Follower {
    pub async fn opened(log: Arc<dyn Log>) -> Self {
        let registry = Registry::open(log, Arc::new(SystemClock::new()), Versions::default()).await.unwrap();
        Self { registry, shutdown: watch::channel(false).0, running: None }
    }

    /// Follows, and has caught up.
    pub async fn follow(mut self) -> Self {
        let (registry, shutdown) = (self.registry.clone(), self.shutdown.subscribe());
        self.running = Some(tokio::spawn(async move { registry.run_follower(shutdown).await }));
        soon("catching up", self.registry.caught_up()).await.unwrap();
        self
    }

    pub async fn start(log: Arc<dyn Log>) -> Self {
        Self::opened(log).await.follow().await
    }

    /// A follower that is told to end before it has read anything.
    pub async fn follow_nothing(self) -> Self {
        self.shutdown.send_replace(true);
        soon("the end", self.registry.run_follower(self.shutdown.subscribe())).await.unwrap();
        self
    }

    /// Ends the follower; what it said.
    pub async fn stop(&self) -> Result<(), RegistryError> {
        self.shutdown.send_replace(true);
        let ended = || self.running.as_ref().is_none_or(JoinHandle::is_finished);
        soon("the end", async {
            while !ended() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        Ok(())
    }

    pub async fn until(&self, holds: impl Fn(&Versions) -> bool) {
        let mut changes = self.registry.changes();
        while !self.registry.read(&holds) {
            changes.changed().await.unwrap();
        }
    }

    pub fn versions(&self) -> BTreeMap<String, i64> {
        self.registry.read(|it| it.versions.clone())
    }
}

/// How one append fails.
pub enum Fail {
    /// Nothing is written.
    Before(LogError),
    /// It is written, but the answer is lost.
    After(LogError),
    /// It is written; and written again by a try that is made before it is followed.
    AfterTwice(LogError),
}

/// A log whose next appends fail by script.
pub struct FlakyLog {
    inner: Arc<EmbeddedStore>,
    script: Mutex<VecDeque<Fail>>,
}

impl FlakyLog {
    pub fn new(inner: Arc<EmbeddedStore>, script: Vec<Fail>) -> Arc<Self> {
        Arc::new(Self { inner, script: Mutex::new(script.into()) })
    }
}

impl Log for FlakyLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.inner.partitions(topic)
    }

    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        let fail = self.script.lock().pop_front();
        Box::pin(async move {
            match fail {
                None => self.inner.append(records).await,
                Some(Fail::Before(error)) => Err(error),
                Some(Fail::After(error)) => {
                    self.inner.append(records).await?;
                    Err(error)
                }
                Some(Fail::AfterTwice(error)) => {
                    // As a second try would: the same event under another key.
                    let again = records.iter().cloned().map(|mut it| {
                        it.key = [&it.key[..], b"-again"].concat().into();
                        it
                    });
                    let again: Vec<NewRecord> = again.collect();
                    self.inner.append(records).await?;
                    self.inner.append(again).await?;
                    Err(error)
                }
            }
        })
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        self.inner.read(from, offset, limit)
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.wait_past(partition, offset)
    }

    fn start_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.inner.start_offset(partition)
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.inner.end_offset(partition)
    }
}
