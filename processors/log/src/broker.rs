//! A Kafka-API broker, as the exactly-once protocol needs it.
//!
//! These traits decide nothing: fencing before reading, draining before committing, and what a failure means are the
//! protocol's (crate `tillstream-cluster`), which runs over a client library in production and over a simulated broker
//! in tests. Partitions and consumer groups are named by topic; a group's members share its partitions.

use crate::{Headers, LogError, ReadLimit, Record, TopicPartition};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::any::Any;
use std::sync::Arc;
use thiserror::Error;
use tillstream_schemas::Topic;

/// What the broker or its client library says.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BrokerError {
    /// Another producer with the same transactional id began, or the broker gave this one's transaction up.
    #[error("fenced: {0}")]
    Fenced(String),
    /// The transaction cannot be committed any more; the client wants it aborted.
    #[error("to be aborted: {0}")]
    Abortable(String),
    /// No answer in time: what was asked for may have happened.
    #[error("no answer: {0}")]
    Unknown(String),
    /// The offset is not (or no longer) there.
    #[error("{partition} does not have offset {offset}: {detail}")]
    OutOfRange {
        /// Where.
        partition: TopicPartition,
        /// What was asked for.
        offset: u64,
        /// The client's words.
        detail: String,
    },
    /// The broker cannot be reached now; trying again may help.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Trying again cannot help: refused credentials, an unknown topic, settings the broker does not take.
    #[error("refused: {0}")]
    Refused(String),
}

/// A record to produce; no value is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRecord {
    /// Where to.
    pub to: TopicPartition,
    /// Plain UTF-8.
    pub key: Bytes,
    /// Confluent wire format, or nothing.
    pub value: Option<Bytes>,
    /// Headers.
    pub headers: Headers,
}

/// A record of a changelog, as it is replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayRecord {
    /// Its offset.
    pub offset: u64,
    /// Plain UTF-8.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

/// A group's place in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// Where the group goes on.
    pub offset: u64,
    /// What was committed with it.
    pub metadata: String,
}

/// A member's generation in its group, captured with a batch: a commit with an old one is refused.
#[derive(Clone)]
pub struct GroupMetadata(pub Arc<dyn Any + Send + Sync>);

impl std::fmt::Debug for GroupMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupMetadata")
    }
}

/// One transactional producer. Its calls are made one after the other.
pub trait TransactionalProducer: Send + Sync {
    /// Fences every earlier producer of the same transactional id and ends its open transaction.
    fn init(&self) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Begins a transaction.
    fn begin(&self) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Hands records to the client, in order. They may not have left this process when it returns.
    fn produce(&self, records: Vec<ProduceRecord>) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Resolves once every record handed over since [`TransactionalProducer::begin`] is acknowledged: their offsets,
    /// in the order they were handed over.
    fn drain(&self) -> BoxFuture<'_, Result<Vec<u64>, BrokerError>>;

    /// Adds the group's new place to the transaction.
    fn send_offset(
        &self,
        group: &str,
        member: &GroupMetadata,
        partition: TopicPartition,
        offset: GroupOffset,
    ) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Commits. An error other than [`BrokerError::Abortable`] leaves the outcome open.
    fn commit(&self) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Aborts.
    fn abort(&self) -> BoxFuture<'_, Result<(), BrokerError>>;
}

/// What happens to a member of a group.
#[derive(Debug)]
pub enum GroupEvent {
    /// These partitions are this member's from now on; nothing is fetched until [`GroupMember::fetch_from`].
    Assigned(Vec<u32>),
    /// These partitions go to another member once the release is dropped: finish, then drop it.
    Revoked(Vec<u32>, Release),
    /// These partitions are somebody else's already: stop at once.
    Lost(Vec<u32>),
    /// The group cannot go on.
    Failed(BrokerError),
}

/// Holds a revocation up until it is dropped.
pub struct Release(Option<Box<dyn FnOnce() + Send>>);

impl Release {
    /// Calls `done` when dropped.
    pub fn new(done: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(done)))
    }
}

impl std::fmt::Debug for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Release")
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done();
        }
    }
}

/// A member of a consumer group of one topic. Reads are of committed records only.
pub trait GroupMember: Send + Sync {
    /// The next event, in order. One caller at a time.
    fn next_event(&self) -> BoxFuture<'_, GroupEvent>;

    /// Fetches an assigned partition from this offset on; what was buffered of it is dropped.
    fn fetch_from(&self, partition: u32, offset: u64) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Takes fetched records of a partition, without waiting; at least one if there is any, whatever its size.
    /// An error tells that the partition's fetch has failed (an offset out of range).
    fn take(&self, partition: u32, limit: ReadLimit) -> Result<Vec<Record>, BrokerError>;

    /// Records fetched and not yet taken of a partition.
    fn buffered(&self, partition: u32) -> usize;

    /// Resolves once more than `records` are buffered, or the partition's fetch has failed or ended.
    fn wait_buffered(&self, partition: u32, records: usize) -> BoxFuture<'_, ()>;

    /// The member's generation now.
    fn metadata(&self) -> Result<GroupMetadata, BrokerError>;

    /// Leaves the group; its partitions go to others.
    fn leave(&self) -> BoxFuture<'_, ()>;
}

/// A partition's records between two offsets, committed ones only.
pub trait Replay: Send + Sync {
    /// The next records in order; empty once everything that was stable when the replay began has been read.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<ReplayRecord>, BrokerError>>;
}

/// The broker.
pub trait Broker: Send + Sync {
    /// A producer with this transactional id; call [`TransactionalProducer::init`] first.
    fn producer(&self, transactional_id: &str) -> Result<Arc<dyn TransactionalProducer>, BrokerError>;

    /// Joins the group that shares the partitions of `topic`.
    fn join(&self, group: &str, topic: Topic) -> Result<Arc<dyn GroupMember>, BrokerError>;

    /// The group's stable places: none while a transaction that moves one is open. `None` where it has none.
    fn group_offsets<'a>(
        &'a self,
        group: &'a str,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Vec<Option<GroupOffset>>, BrokerError>>;

    /// First offset and last stable offset of a partition, as they are now.
    fn bounds(&self, partition: TopicPartition) -> BoxFuture<'_, Result<(u64, u64), BrokerError>>;

    /// Reads a partition from `offset` to what is stable now.
    fn replay(&self, partition: TopicPartition, offset: u64) -> Result<Box<dyn Replay>, BrokerError>;

    /// Sets a group's place in a partition while nobody is in the group: for repairs.
    fn set_group_offset<'a>(
        &'a self,
        group: &'a str,
        partition: TopicPartition,
        place: GroupOffset,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        let _ = (group, partition, place);
        Box::pin(std::future::ready(Err(BrokerError::Refused("group offsets cannot be set here".to_owned()))))
    }

    /// How many partitions a topic has; `None` when there is no such topic.
    fn partitions(&self, topic: Topic) -> BoxFuture<'_, Result<Option<u32>, BrokerError>>;
}

impl BrokerError {
    /// As an error of the log, for calls outside a task's life.
    pub fn into_log_error(self) -> LogError {
        match self {
            Self::Refused(detail) => LogError::Stopped(detail),
            other => LogError::Unavailable(other.to_string()),
        }
    }
}
