//! Reading a partition outside any task: for caches and subscriptions.

use tillstream_log::{Log, LogError, ReadLimit, Record, TopicPartition};

const LIMIT: ReadLimit = ReadLimit { records_max: 1_000, bytes_max: 1 << 20 };

/// What a follower read.
pub enum Followed {
    /// Records from the asked offset on, and where to go on: past them, and past offsets that hold none.
    Records(Vec<Record>, u64),
    /// A stored batch cannot be read: go on from here.
    Gap(u64),
}

/// Waits for records from `offset` on, and reads them.
///
/// # Errors
/// What the log says, but for a batch that cannot be read and offsets that are gone: those are gaps.
pub async fn follow(log: &dyn Log, partition: TopicPartition, offset: u64) -> Result<Followed, LogError> {
    log.wait_past(partition, offset).await?;
    match log.read_on(partition, offset, LIMIT).await {
        Ok((records, next_offset)) => Ok(Followed::Records(records, next_offset)),
        Err(LogError::Corrupt { next_offset, offset: at, detail, .. }) => {
            tracing::warn!(%partition, offset = at, next_offset, detail, "a follower skips a stored batch");
            Ok(Followed::Gap(next_offset.max(offset + 1)))
        }
        // Retention overtook the follower: what is gone cannot be followed.
        Err(LogError::OutOfRange { start, .. }) if start > offset => Ok(Followed::Gap(start)),
        Err(error) => Err(error),
    }
}

/// The partitions of a topic.
pub fn partitions(log: &dyn Log, topic: tillstream_schemas::Topic) -> Vec<TopicPartition> {
    (0..log.partitions(topic)).map(|partition| TopicPartition::new(topic, partition)).collect()
}
