//! A store in memory whose commits can be made to fail or wait, a clock that is set by hand, a toy task.

pub mod clock;
pub mod store;
pub mod toy;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::{Log, NewRecord, TopicPartition};
use tillstream_runtime::{CatalogCache, Metrics, Progress, RuntimeError, TaskPorts, TaskSettings, supervise};
use tillstream_schemas::{Topic, codec, dead_letter::DeadLetter};
use tillstream_stage::partition::partition_of;
use tillstream_stage::rule::NoRules;
use tillstream_stage::task::TaskKind;
use tillstream_state::{Shared, TaskId};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub const PARTITIONS: u32 = 1;

pub fn id() -> TaskId {
    TaskId { kind: TaskKind::Order, partition: 0 }
}

/// Fails the test when the condition does not come.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: did not happen in time"),
    }
}

/// One task on a store in memory.
pub struct Rig {
    pub store: Arc<store::MemoryStore>,
    pub clock: Arc<clock::ManualClock>,
    pub metrics: Arc<Metrics>,
    pub progress: Arc<Progress>,
    pub settings: TaskSettings,
    pub catalog: Option<Arc<CatalogCache>>,
    pub shutdown: watch::Sender<bool>,
}

impl Rig {
    pub fn new() -> Self {
        let settings = TaskSettings {
            restart_wait: Duration::ZERO,
            restart_wait_max: Duration::ZERO,
            ..TaskSettings::default()
        };
        Self {
            store: store::MemoryStore::new(PARTITIONS),
            clock: clock::ManualClock::new(1_000_000),
            metrics: Arc::new(Metrics::new().unwrap()),
            progress: Arc::new(Progress::new()),
            settings,
            catalog: None,
            shutdown: watch::channel(false).0,
        }
    }

    pub fn ports(&self) -> TaskPorts {
        TaskPorts {
            sessions: Arc::new(Shared(self.store.clone())),
            catalog: self.catalog.clone(),
            rules: Arc::new(NoRules),
            metrics: Arc::clone(&self.metrics),
            clock: self.clock.clone(),
            progress: Arc::clone(&self.progress),
        }
    }

    pub fn start(&self) -> JoinHandle<Result<(), RuntimeError>> {
        let (ports, settings) = (self.ports(), self.settings.clone());
        tokio::spawn(supervise(Arc::new(toy::Toy), id(), ports, settings, self.shutdown.subscribe()))
    }

    pub fn shutdown_receiver(&self) -> watch::Receiver<bool> {
        self.shutdown.subscribe()
    }

    pub fn stop(&self) {
        self.shutdown.send_replace(true);
    }

    /// Appends commands, each `key op argument`, as one batch.
    pub async fn send(&self, commands: &[&str]) {
        let records = commands.iter().map(|it| command(it)).collect();
        self.store.append(records).await.unwrap();
    }

    /// Waits until all input is committed.
    pub async fn caught_up(&self) {
        let end = self.store.end_offset(TopicPartition::new(Topic::OrderCommands, 0)).unwrap();
        soon("catching up", self.progress.wait_caught_up(&[(id(), end)])).await;
    }

    /// Stops the task and answers how it ended.
    pub async fn stopped(&self, task: JoinHandle<Result<(), RuntimeError>>) -> Result<(), RuntimeError> {
        self.stop();
        soon("stopping", task).await.unwrap()
    }

    pub fn letters(&self) -> Vec<DeadLetter> {
        let records = self.store.records(Topic::OrderCommandsDlq, 0);
        records.iter().map(|it| codec::decode(&it.value).unwrap()).collect()
    }

    pub fn outputs(&self) -> Vec<String> {
        let records = self.store.records(Topic::OrderEvents, 0);
        records.iter().map(|it| String::from_utf8(it.value.to_vec()).unwrap()).collect()
    }
}

/// A command record; everything before the first space is the key.
pub fn command(text: &str) -> NewRecord {
    let key = text.split(' ').next().unwrap();
    record(Topic::OrderCommands, key, text.as_bytes().to_vec())
}

pub fn record(topic: Topic, key: &str, value: Vec<u8>) -> NewRecord {
    NewRecord {
        to: TopicPartition::new(topic, partition_of(key.as_bytes(), PARTITIONS)),
        key: key.as_bytes().to_vec().into(),
        value: value.into(),
        headers: Default::default(),
    }
}
