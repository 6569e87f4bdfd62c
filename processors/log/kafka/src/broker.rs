//! The protocol's broker.

use crate::core::Core;
use crate::error::KafkaClientError;
use crate::member::KafkaMember;
use crate::producer::KafkaProducer;
use crate::replay::KafkaReplay;
use crate::settings::KafkaSettings;
use futures::future::BoxFuture;
use std::sync::Arc;
use tillstream_log::TopicPartition;
use tillstream_log::broker::{Broker, BrokerError, GroupMember, GroupOffset, Replay, TransactionalProducer};
use tillstream_schemas::Topic;
use tillstream_schemas::wire_ids::WireIds;

/// A Kafka-API broker. Needs a tokio runtime around its futures.
#[derive(Clone)]
pub struct KafkaBroker {
    pub(crate) core: Arc<Core>,
}

impl KafkaBroker {
    /// A client of the broker. Nothing is sent before the first question.
    ///
    /// # Errors
    /// [`KafkaClientError::Settings`] when the client library does not take the settings.
    pub fn new(settings: KafkaSettings, ids: Arc<WireIds>) -> Result<Self, KafkaClientError> {
        match Core::start(settings, ids) {
            Ok(core) => Ok(Self { core }),
            Err(BrokerError::Refused(detail)) => Err(KafkaClientError::Settings(detail)),
            Err(other) => Err(other.into()),
        }
    }

    /// The cluster's own id: another one means another cluster.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn cluster_id(&self) -> Result<String, KafkaClientError> {
        Ok(self.core.ask(Core::cluster_id).await?)
    }

    /// How many members a consumer group has now.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn group_members(&self, group: &str) -> Result<usize, KafkaClientError> {
        let group = group.to_owned();
        Ok(self.core.ask(move |it| it.group_members(&group)).await?)
    }
}

impl Broker for KafkaBroker {
    fn producer(&self, transactional_id: &str) -> Result<Arc<dyn TransactionalProducer>, BrokerError> {
        Ok(Arc::new(KafkaProducer::start(&self.core, transactional_id)?))
    }

    fn join(&self, group: &str, topic: Topic) -> Result<Arc<dyn GroupMember>, BrokerError> {
        // Who joins asks for the group's offsets next: its connections are made meanwhile.
        self.core.group(group)?;
        Ok(Arc::new(KafkaMember::start(&self.core, group, topic)?))
    }

    fn group_offsets<'a>(
        &'a self,
        group: &'a str,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Vec<Option<GroupOffset>>, BrokerError>> {
        let (group, partitions) = (group.to_owned(), partitions.to_vec());
        Box::pin(self.core.ask(move |it| it.group_offsets(&group, &partitions)))
    }

    fn bounds(&self, partition: TopicPartition) -> BoxFuture<'_, Result<(u64, u64), BrokerError>> {
        Box::pin(self.core.bounds(partition))
    }

    fn replay(&self, partition: TopicPartition, offset: u64) -> Result<Box<dyn Replay>, BrokerError> {
        Ok(Box::new(KafkaReplay::start(&self.core, partition, offset)?))
    }

    fn set_group_offset<'a>(
        &'a self,
        group: &'a str,
        partition: TopicPartition,
        place: GroupOffset,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        let group = group.to_owned();
        Box::pin(self.core.ask(move |it| it.set_group_offset(&group, partition, &place)))
    }

    fn partitions(&self, topic: Topic) -> BoxFuture<'_, Result<Option<u32>, BrokerError>> {
        Box::pin(self.core.ask(move |it| it.partitions(topic)))
    }
}
