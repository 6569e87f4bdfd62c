//! The log over a broker: appends, reads here and there, and followers.

use crate::append::Appender;
use crate::bounds::Bounds;
use crate::broker::KafkaBroker;
use crate::core::Core;
use crate::error::{KafkaClientError, log_error};
use crate::follower::Follower;
use crate::reader::Readers;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::broker::BrokerError;
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;

/// Between two looks whether a partition has grown, for whoever waits without following it.
const LOOK: Duration = Duration::from_millis(100);

/// The log of a process.
///
/// An append is acknowledged as a whole, but it is no transaction: where it fails, some of its records may be there.
/// Whoever appends again under the same ids is judged by them. Reads see committed records only. An end offset can be
/// past the last readable record, because commit markers take offsets too; [`Log::read_on`] goes past them. An end offset
/// is the last stable one: [`Log::refresh`] waits, as long as a request may take, until what is durable is also decided.
pub struct KafkaLog {
    core: Arc<Core>,
    appender: Appender,
    readers: Arc<Readers>,
    partitions: BTreeMap<Topic, u32>,
}

impl KafkaLog {
    /// Learns how many partitions there are and where they begin and end.
    ///
    /// # Errors
    /// [`KafkaClientError::Topic`] when a topic is missing; else when the broker refuses or does not answer.
    pub async fn open(broker: &KafkaBroker) -> Result<Arc<Self>, KafkaClientError> {
        let core = Arc::clone(&broker.core);
        let ask =
            |it: &Core| Topic::ALL.into_iter().map(|topic| Ok((topic, it.partitions(topic)?))).collect();
        let found: Vec<(Topic, Option<u32>)> = core.ask(ask).await?;
        let mut partitions = BTreeMap::new();
        for (topic, count) in found {
            let missing = || KafkaClientError::Topic { topic, detail: "there is no such topic".into() };
            partitions.insert(topic, count.ok_or_else(missing)?);
        }
        let all: Vec<TopicPartition> = partitions
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(|it| TopicPartition::new(*topic, it)))
            .collect();
        core.refresh(&all).await?;
        let appender = Appender::start(Arc::clone(&core))
            .map_err(|error| KafkaClientError::Settings(error.to_string()))?;
        Ok(Arc::new(Self { core, appender, readers: Arc::default(), partitions }))
    }

    /// The same log for readers that follow these topics from where they first read: one consumer per topic tails its
    /// partitions. A partition has one such reader: two at different places would take the consumer from each other.
    /// The ends of these partitions are known to half a second from now on.
    ///
    /// # Errors
    /// When the client library does not take its settings.
    pub fn follower(self: &Arc<Self>, topics: &[Topic]) -> Result<Arc<dyn Log>, KafkaClientError> {
        Ok(Arc::new(Follower::start(Arc::clone(self), topics)?))
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    fn check(&self, partition: TopicPartition) -> Result<(), LogError> {
        if partition.partition < self.partitions(partition.topic) {
            Ok(())
        } else {
            Err(LogError::NoSuchPartition(partition))
        }
    }

    /// Bounds as they are now.
    pub(crate) async fn bounds(&self, partition: TopicPartition) -> Result<Bounds, LogError> {
        self.check(partition)?;
        self.core.bounds(partition).await.map_err(log_error)
    }

    /// Bounds as far as this process has heard.
    pub(crate) fn known(&self, partition: TopicPartition) -> Result<Bounds, LogError> {
        self.core.known.get(partition).ok_or(LogError::NoSuchPartition(partition))
    }

    async fn durable_end(&self, partition: TopicPartition) -> Result<u64, LogError> {
        let durable = self.core.durable(&[partition]).await.map_err(log_error)?;
        Ok(durable.get(&partition).map_or(0, |it| it.1))
    }

    /// Reads committed records, and where to go on.
    pub(crate) async fn read_at(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<(Vec<Record>, u64), LogError> {
        let (start, end) = self.bounds(from).await?;
        // Past what is decided there may be something that is not yet.
        if offset == end || (offset > end && offset <= self.durable_end(from).await?) {
            return Ok((Vec::new(), offset));
        }
        let out_of_range = LogError::OutOfRange { partition: from, start, end, asked: offset };
        if offset < start || offset > end {
            return Err(out_of_range);
        }
        let closed = |_| LogError::Unavailable("reads have ended".into());
        let _permit = self.readers.permits.acquire().await.map_err(closed)?;
        let readers = Arc::clone(&self.readers);
        let read = self.core.ask(move |core| readers.read(core, from, offset, end, limit)).await;
        read.map_err(|error| match error {
            BrokerError::OutOfRange { .. } => out_of_range,
            other => log_error(other),
        })
    }
}

impl Log for KafkaLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.partitions.get(&topic).copied().unwrap_or(0)
    }

    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            for record in &records {
                self.check(record.to)?;
            }
            self.appender.append(records).await
        })
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        Box::pin(async move { Ok(self.read_at(from, offset, limit).await?.0) })
    }

    fn read_on(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<(Vec<Record>, u64), LogError>> {
        Box::pin(self.read_at(from, offset, limit))
    }

    fn refresh<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(async move {
            for partition in partitions {
                self.check(*partition)?;
            }
            self.core.refresh_to_durable(partitions).await.map_err(log_error)
        })
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            while self.known(partition)?.1 <= offset && self.bounds(partition).await?.1 <= offset {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        })
    }

    fn start_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        Ok(self.known(partition)?.0)
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        Ok(self.known(partition)?.1)
    }
}
