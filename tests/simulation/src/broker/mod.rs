//! A broker with Kafka's semantics, in memory.
//!
//! Offsets are taken by records and by control markers alike. A transaction's records are in the log from their
//! delivery on, which is at a drain, at the commit, or (by the seed) at any moment between; readers of committed records
//! see them once the marker is written, which may be after the commit was answered. Group offsets are unstable while
//! a transaction that moves them is open. What the real ones do by time (transactions, sessions, slow rebalances) is done
//! when the clock says so, by whoever looks next, or by a task that does nothing else.

mod call;
mod client;
mod core;
mod faults;
mod group;
mod inspect;
mod log;
mod member;
mod partition;
mod producer;
mod promises;
mod transaction;
mod world;

pub use call::{Call, Effect};
pub use client::SimClient;
pub use faults::{Faults, Notice};
pub use inspect::{MemberView, Seen};
pub use log::SimLog;
pub use partition::StoredRecord;
pub use transaction::{CommitFate, Hold};

use self::core::Core;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::TopicPartition;
use tillstream_log::broker::{Broker, BrokerError, GroupMember, GroupOffset, Replay, TransactionalProducer};
use tillstream_runtime::Clock;
use tillstream_schemas::Topic;
use world::World;

/// How the simulated broker and its clients are set.
#[derive(Clone)]
pub struct SimSettings {
    /// Partitions of every topic.
    pub partitions: u32,
    /// Decides everything that is left open.
    pub seed: u64,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How long a client waits for an answer.
    pub call_timeout: Duration,
    /// How long a transaction may be open before the coordinator aborts it.
    pub transaction_timeout: Duration,
    /// How long the broker waits for a member it hears nothing of.
    pub session_timeout: Duration,
    /// How long a member may hold a revocation up.
    pub rebalance_timeout: Duration,
    /// Markers are written up to so long after a commit is answered.
    pub markers_lag_max: Duration,
    /// A call takes up to so long before and again after it takes effect.
    pub latency_max: Duration,
    /// A call lets others run up to so many times before and again after it takes effect.
    pub yields_max: usize,
    /// How often a call lets records that were produced and not drained arrive, in percent.
    pub eager_percent: u32,
    /// Records a member fetches ahead.
    pub fetch_records_max: usize,
    /// Records a replay returns at once, at most.
    pub replay_records_max: usize,
}

impl SimSettings {
    /// No latency, and the timeouts of production.
    pub fn new(partitions: u32, seed: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            partitions,
            seed,
            clock,
            call_timeout: Duration::from_secs(5),
            transaction_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(6),
            rebalance_timeout: Duration::from_secs(60),
            markers_lag_max: Duration::ZERO,
            latency_max: Duration::ZERO,
            yields_max: 2,
            eager_percent: 25,
            fetch_records_max: 10_000,
            replay_records_max: 500,
        }
    }
}

/// The broker: what all processes share, and itself the client of a process named `main`. Clones are the same broker.
#[derive(Clone)]
pub struct SimBroker {
    core: Arc<Core>,
    main: SimClient,
}

impl SimBroker {
    /// An empty broker with every topic. To be called inside the runtime.
    pub fn new(settings: SimSettings) -> Self {
        let clock = settings.clock.clone();
        let core = Arc::new(Core::new(World::new(settings), clock));
        tokio::spawn(Core::keep_time(Arc::downgrade(&core)));
        Self { main: SimClient::new(core.clone(), "main"), core }
    }

    /// The client library of a process, as which faults can strike it alone.
    pub fn client(&self, process: &str) -> SimClient {
        SimClient::new(self.core.clone(), process)
    }

    /// The log for followers and appends, for the process `main`.
    pub fn log(&self) -> SimLog {
        self.main.log()
    }

    /// What can go wrong, at hand.
    pub fn faults(&self) -> Faults {
        Faults::new(self.core.clone())
    }
}

impl Broker for SimBroker {
    fn producer(&self, transactional_id: &str) -> Result<Arc<dyn TransactionalProducer>, BrokerError> {
        self.main.producer(transactional_id)
    }

    fn join(&self, group: &str, topic: Topic) -> Result<Arc<dyn GroupMember>, BrokerError> {
        self.main.join(group, topic)
    }

    fn group_offsets<'a>(
        &'a self,
        group: &'a str,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Vec<Option<GroupOffset>>, BrokerError>> {
        self.main.group_offsets(group, partitions)
    }

    fn bounds(&self, partition: TopicPartition) -> BoxFuture<'_, Result<(u64, u64), BrokerError>> {
        self.main.bounds(partition)
    }

    fn replay(&self, partition: TopicPartition, offset: u64) -> Result<Box<dyn Replay>, BrokerError> {
        self.main.replay(partition, offset)
    }

    fn set_group_offset<'a>(
        &'a self,
        group: &'a str,
        partition: TopicPartition,
        place: GroupOffset,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.main.set_group_offset(group, partition, place)
    }

    fn partitions(&self, topic: Topic) -> BoxFuture<'_, Result<Option<u32>, BrokerError>> {
        self.main.partitions(topic)
    }
}
