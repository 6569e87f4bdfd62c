//! What the protocol runs on, and what may be tuned.

use crate::{ClusterMetrics, NodeWatch};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::TopicPartition;
use tillstream_log::broker::Broker;
use tillstream_runtime::Clock;
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;
use tillstream_state::row_store::RowStore;

/// Starts background work: on a thread pool, or in a simulation.
pub trait Spawner: Send + Sync {
    /// Runs the future beside the caller.
    fn spawn(&self, work: BoxFuture<'static, ()>);
}

/// Starts background work on a tokio runtime.
pub struct TokioSpawner(pub tokio::runtime::Handle);

impl Spawner for TokioSpawner {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.0.spawn(work);
    }
}

/// What the protocol runs on.
#[derive(Clone)]
pub struct ClusterPorts {
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// The database.
    pub rows: Arc<dyn RowStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Background work.
    pub spawner: Arc<dyn Spawner>,
    /// Counters.
    pub metrics: Arc<ClusterMetrics>,
    /// Whether the database's nodes have restarted.
    pub nodes: Arc<NodeWatch>,
    /// Settings.
    pub settings: Arc<ClusterSettings>,
}

/// Settings of the protocol.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// The deployment's name: the prefix of group and transactional ids.
    pub deployment: String,
    /// Partitions of every topic.
    pub partitions: u32,
    /// The broker aborts a transaction that takes longer; a batch gives up before half of it is over.
    pub transaction_timeout: Duration,
    /// How long one step of taking a partition over may take before it starts again.
    pub open_timeout: Duration,
    /// Changed rows wait this long, so that a row that changes often is written once.
    pub flush_interval: Duration,
    /// Rows of one flush, at most.
    pub flush_rows_max: usize,
    /// Approximate bytes of rows that wait for the database, per task; then the task waits.
    pub unflushed_bytes_max: usize,
    /// How long after its acknowledgement a write is surely on disk: two commit-log sync periods.
    pub durable_after: Duration,
    /// How long to wait before asking a database again that does not answer.
    pub retry_wait: Duration,
    /// Known keys per task, at most, for telling new keys without asking the database; 0 turns it off.
    pub known_keys_max: usize,
}

impl ClusterSettings {
    /// The defaults for a deployment of this name.
    pub fn new(deployment: &str, partitions: u32) -> Self {
        Self {
            deployment: deployment.to_owned(),
            partitions,
            transaction_timeout: Duration::from_secs(12),
            open_timeout: Duration::from_secs(30),
            flush_interval: Duration::from_millis(250),
            flush_rows_max: 4_000,
            unflushed_bytes_max: 64 << 20,
            durable_after: Duration::from_secs(20),
            retry_wait: Duration::from_millis(200),
            known_keys_max: 8_000_000,
        }
    }

    /// The consumer group of a task kind.
    pub fn group(&self, kind: TaskKind) -> String {
        format!("{}.{}", self.deployment, kind.as_str())
    }

    /// The transactional id of a task.
    pub fn transactional_id(&self, task: TaskId) -> String {
        format!("{}.{}.{}", self.deployment, task.kind.as_str(), task.partition)
    }

    /// A batch's hard deadline: well under half of the broker's.
    pub fn batch_deadline(&self) -> Duration {
        self.transaction_timeout * 9 / 20
    }
}

/// The input partition of a task.
pub(crate) fn input_of(task: TaskId) -> TopicPartition {
    TopicPartition::new(task.kind.input(), task.partition)
}

/// The changelog partition of a task.
pub(crate) fn changelog_of(task: TaskId) -> Option<TopicPartition> {
    task.kind.changelog().map(|topic| TopicPartition::new(topic, task.partition))
}
