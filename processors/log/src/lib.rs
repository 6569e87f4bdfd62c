//! The log: topics, partitions, offsets, behind one small trait.

use bytes::Bytes;
use futures::future::BoxFuture;
use smallvec::SmallVec;
use thiserror::Error;
use tillstream_schemas::Topic;

pub mod broker;
pub mod headers;

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition, from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// A partition of a topic.
    pub fn new(topic: Topic, partition: u32) -> Self {
        Self { topic, partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// One header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// ASCII name, such as `ce_id`.
    pub name: Bytes,
    /// Value.
    pub value: Bytes,
}

/// Headers; a record of an internal topic has its trace context or none. A batch holds thousands of records: what they do
/// not use would be moved with them.
pub type Headers = SmallVec<[Header; 1]>;

/// A record as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: u64,
    /// Append time, ms since the epoch.
    pub timestamp_ms: i64,
    /// Plain UTF-8.
    pub key: Bytes,
    /// Confluent wire format.
    pub value: Bytes,
    /// Headers.
    pub headers: Headers,
}

/// A record to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// Where to.
    pub to: TopicPartition,
    /// Plain UTF-8.
    pub key: Bytes,
    /// Confluent wire format.
    pub value: Bytes,
    /// Headers.
    pub headers: Headers,
}

/// How much one read may return; at least one record is returned whatever its size.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Records.
    pub records_max: usize,
    /// Bytes of keys and values.
    pub bytes_max: usize,
}

/// What can go wrong with a log.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LogError {
    /// The topic has no such partition.
    #[error("TS0301: {0} does not exist")]
    NoSuchPartition(TopicPartition),
    /// The offset is gone (retention) or was never written.
    #[error("TS0302: {partition} has offsets {start}..{end}, not {asked}")]
    OutOfRange {
        /// Where.
        partition: TopicPartition,
        /// The first offset kept.
        start: u64,
        /// One past the last.
        end: u64,
        /// What was asked for.
        asked: u64,
    },
    /// A stored batch does not match its checksum.
    #[error("TS0303: {partition} is corrupt at offset {offset}: {detail}")]
    Corrupt {
        /// Where.
        partition: TopicPartition,
        /// The first offset of the batch.
        offset: u64,
        /// The first offset after the batch: where a reader that gives the batch up goes on.
        next_offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// The disk is (nearly) full: nothing new is taken, what is there stays.
    #[error("TS0304: the disk has {available_bytes} bytes left, {needed_bytes} are needed: free some space")]
    DiskFull {
        /// Bytes left.
        available_bytes: u64,
        /// Bytes that must stay free.
        needed_bytes: u64,
    },
    /// Another owner has committed: this one's life is over.
    #[error("TS0305: {task} was at offset {expected}, but {found} is committed: another owner took over")]
    Fenced {
        /// Task and partition.
        task: String,
        /// What the owner believed.
        expected: u64,
        /// What is committed.
        found: u64,
    },
    /// The store failed or is closed; a failed fsync is never retried.
    #[error("TS0306: the store has stopped: {0}")]
    Stopped(String),
    /// A read or write failed.
    #[error("TS0307: {0}")]
    Io(String),
    /// Something ended this life of a task (an abort, a timeout, an unknown outcome, a lost partition): what was
    /// not committed is not there, and a new life goes on from what is.
    #[error("TS0308: this life of {task} is over: {reason}")]
    LifeOver {
        /// Task and partition.
        task: String,
        /// What ended it.
        reason: String,
    },
    /// The broker or the database cannot be reached or does not answer in time: trying again may help.
    #[error("TS0309: {0}")]
    Unavailable(String),
    /// The log and the state do not belong together, or not to this deployment: going on would guess. The message
    /// names the repair.
    #[error("{code}: {message}")]
    Halted {
        /// The stable code, with a page of its own.
        code: &'static str,
        /// What was found, and the command that repairs it.
        message: String,
    },
}

impl LogError {
    /// Whether starting again cannot help: somebody has to look.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Fenced { .. }
            | Self::Stopped(_)
            | Self::NoSuchPartition(_)
            | Self::OutOfRange { .. }
            | Self::Halted { .. } => true,
            Self::Corrupt { .. }
            | Self::DiskFull { .. }
            | Self::Io(_)
            | Self::LifeOver { .. }
            | Self::Unavailable(_) => false,
        }
    }
}

/// A log: append-only partitions of records.
pub trait Log: Send + Sync {
    /// How many partitions the topic has.
    fn partitions(&self, topic: Topic) -> u32;

    /// Appends all records or none; durable once it returns.
    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>>;

    /// Reads durable records from `offset` on; empty at the end.
    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>>;

    /// As [`Log::read`], with the offset to go on from: past the last record, and past offsets that hold none (a
    /// broker's commit markers). It is `offset` again when nothing is there.
    fn read_on(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<(Vec<Record>, u64), LogError>> {
        Box::pin(async move {
            let records = self.read(from, offset, limit).await?;
            let next_offset = records.last().map_or(offset, |it| it.offset + 1);
            Ok((records, next_offset))
        })
    }

    /// Asks where the partitions begin and end now: afterwards [`Log::end_offset`] tells at least what was durable
    /// when this was called. A log in this process always knows.
    fn refresh<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, Result<(), LogError>> {
        let _ = partitions;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Resolves when the partition's durable end is past `offset` (at once if it is), or the store has stopped.
    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>>;

    /// The first offset kept, as far as this process knows.
    fn start_offset(&self, partition: TopicPartition) -> Result<u64, LogError>;

    /// One past the last durable record this process knows of: never ahead of the log, perhaps behind it; see
    /// [`Log::refresh`].
    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError>;
}
