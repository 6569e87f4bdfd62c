//! Questions to the broker that belong to no partition's fetch: where partitions begin and end, who a group is.

use crate::bounds::{Answer, Ask, Asker, Bounds, Known, Which, list, refuse, serve};
use crate::clock::Deadline;
use crate::context::{Connection, Plain};
use crate::convert::{number, position};
use crate::error::broker_error;
use crate::settings::KafkaSettings;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{IsError, KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tillstream_log::TopicPartition;
use tillstream_log::broker::{BrokerError, GroupOffset};
use tillstream_schemas::Topic;
use tillstream_schemas::wire_ids::WireIds;
use tokio::sync::oneshot;

/// Between two questions for offsets that are not settled.
const UNSTABLE: Duration = Duration::from_millis(20);

/// Between two looks whether an open transaction has ended.
const UNDECIDED: Duration = Duration::from_millis(3);

/// What the clients of one broker share.
pub(crate) struct Core {
    pub(crate) settings: KafkaSettings,
    pub(crate) ids: Arc<WireIds>,
    pub(crate) known: Arc<Known>,
    pub(crate) connection: Arc<Connection>,
    questions: Arc<BaseConsumer<Plain>>,
    groups: Mutex<BTreeMap<String, Arc<BaseConsumer<Plain>>>>,
    followed: Arc<Mutex<BTreeSet<TopicPartition>>>,
    asks: mpsc::Sender<Ask>,
}

impl Core {
    /// Makes the client that is asked, and the thread that asks it. Nothing is sent yet.
    pub(crate) fn start(settings: KafkaSettings, ids: Arc<WireIds>) -> Result<Arc<Self>, BrokerError> {
        let context = Plain::default();
        let connection = Arc::clone(&context.0);
        let mut config = settings.consumer("");
        config.remove("group.id");
        let refuse = |error: KafkaError| broker_error(&error, &connection);
        let questions: BaseConsumer<Plain> = config.create_with_context(context.clone()).map_err(refuse)?;
        let questions = Arc::new(questions);
        config.set("isolation.level", "read_uncommitted");
        let durable: BaseConsumer<Plain> = config.create_with_context(context).map_err(refuse)?;
        let known = Arc::new(Known::default());
        let (asks, received) = mpsc::channel();
        let followed = Arc::default();
        let asker = Asker {
            followed: Arc::clone(&followed),
            stable: Arc::clone(&questions),
            durable,
            learnt: Mutex::default(),
            known: Arc::clone(&known),
            timeout: settings.request_timeout(),
        };
        std::thread::Builder::new()
            .name("kafka-offsets".into())
            .spawn(move || asker.run(&received))
            .map_err(|error| BrokerError::Unavailable(format!("no thread: {error}")))?;
        let groups = Mutex::default();
        Ok(Arc::new(Self { settings, ids, known, connection, questions, groups, followed, asks }))
    }

    /// Asks where these partitions begin and end now; [`Core::known`] has heard of it afterwards.
    pub(crate) async fn refresh(&self, partitions: &[TopicPartition]) -> Answer {
        self.question(Which::Stable, partitions).await
    }

    /// Where these partitions begin, and how far they are durable: records of open transactions included.
    pub(crate) async fn durable(&self, partitions: &[TopicPartition]) -> Answer {
        self.question(Which::Durable, partitions).await
    }

    /// As [`Core::refresh`], and waits until everything that is durable now is also decided: a transaction is committed
    /// for its producer a moment before its markers stand in the partitions.
    pub(crate) async fn refresh_to_durable(&self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let durable = self.durable(partitions).await?;
        let deadline = Deadline::after(self.settings.request_timeout());
        loop {
            let stable = self.refresh(partitions).await?;
            let undecided =
                durable.iter().find(|(it, (_, end))| stable.get(it).is_some_and(|it| it.1 < *end));
            match undecided {
                None => return Ok(()),
                Some((partition, _)) if deadline.passed() => {
                    let detail = format!("a transaction on {partition} stays open");
                    return Err(BrokerError::Unavailable(detail));
                }
                Some(_) => tokio::time::sleep(UNDECIDED).await,
            }
        }
    }

    /// Questions that come together are asked together.
    async fn question(&self, which: Which, partitions: &[TopicPartition]) -> Answer {
        let ended = || BrokerError::Unavailable("the thread that asks for offsets has ended".into());
        let (reply, answer) = oneshot::channel();
        self.asks.send(Ask { which, partitions: partitions.to_vec(), reply }).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Bounds of one partition, asked now.
    pub(crate) async fn bounds(&self, partition: TopicPartition) -> Result<Bounds, BrokerError> {
        let missing = || BrokerError::Unavailable(format!("no answer on the bounds of {partition}"));
        self.refresh(&[partition]).await?.get(&partition).copied().ok_or_else(missing)
    }

    /// From now on the bounds of these partitions are known to a fraction of a second.
    pub(crate) fn follow(&self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.followed.lock().extend(partitions);
    }

    /// Asks something that blocks, on a thread for that.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Self) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let core = Arc::clone(self);
        tokio::task::spawn_blocking(move || question(&core)).await.unwrap_or_else(|error| {
            Err(BrokerError::Unavailable(format!("the question did not end: {error}")))
        })
    }

    /// How many partitions a topic has. Blocks.
    pub(crate) fn partitions(&self, topic: Topic) -> Result<Option<u32>, BrokerError> {
        let metadata = self
            .questions
            .fetch_metadata(Some(topic.name()), self.settings.request_timeout())
            .map_err(|error| refuse(&self.questions, &error))?;
        self.connection.answered();
        let Some(found) = metadata.topics().iter().find(|it| it.name() == topic.name()) else {
            return Ok(None);
        };
        match found.error() {
            None => {}
            Some(
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
            ) => return Ok(None),
            Some(code) if code.is_error() => {
                return Err(refuse(&self.questions, &KafkaError::MetadataFetch(code.into())));
            }
            Some(_) => {}
        }
        Ok(u32::try_from(found.partitions().len()).ok().filter(|it| *it > 0))
    }

    /// The cluster's own id. Blocks.
    pub(crate) fn cluster_id(&self) -> Result<String, BrokerError> {
        let id = self.questions.client().fetch_cluster_id(self.settings.request_timeout());
        id.ok_or_else(|| {
            refuse(&self.questions, &KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut))
        })
    }

    /// How many members a group has. Blocks.
    pub(crate) fn group_members(&self, group: &str) -> Result<usize, BrokerError> {
        let found = self
            .questions
            .fetch_group_list(Some(group), self.settings.request_timeout())
            .map_err(|error| refuse(&self.questions, &error))?;
        Ok(found.groups().iter().filter(|it| it.name() == group).map(|it| it.members().len()).sum())
    }

    /// The group's stable offsets. Blocks.
    pub(crate) fn group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<GroupOffset>>, BrokerError> {
        let consumer = self.group(group)?;
        let deadline = Deadline::after(self.settings.request_timeout());
        loop {
            let list = list(partitions);
            let found = consumer.committed_offsets(list, deadline.left().max(Duration::from_millis(1)));
            serve(&consumer);
            match found.and_then(|it| read_offsets(&it, partitions)) {
                Ok(offsets) => {
                    self.connection.answered();
                    return Ok(offsets);
                }
                Err(error) if !deadline.passed() && is_unsettled(&error) => std::thread::sleep(UNSTABLE),
                Err(error) => return Err(refuse(&consumer, &error)),
            }
        }
    }

    /// Commits an offset for a group that nobody is in; the broker refuses it while somebody is. Blocks.
    pub(crate) fn set_group_offset(
        &self,
        group: &str,
        partition: TopicPartition,
        place: &GroupOffset,
    ) -> Result<(), BrokerError> {
        let consumer = self.group(group)?;
        let deadline = Deadline::after(self.settings.request_timeout());
        let mut list = TopicPartitionList::with_capacity(1);
        let name = partition.topic.name();
        let mut place_of = list.add_partition(name, number(partition.partition));
        place_of.set_offset(position(place.offset)).map_err(|error| refuse(&consumer, &error))?;
        place_of.set_metadata(&place.metadata);
        loop {
            let done = consumer.commit(&list, CommitMode::Sync);
            serve(&consumer);
            match done {
                Ok(()) => return Ok(()),
                Err(error) if !deadline.passed() && is_unsettled(&error) => std::thread::sleep(UNSTABLE),
                Err(error) => return Err(refuse(&consumer, &error)),
            }
        }
    }

    /// A consumer that bears the group's name and does not join it.
    pub(crate) fn group(&self, group: &str) -> Result<Arc<BaseConsumer<Plain>>, BrokerError> {
        let mut groups = self.groups.lock();
        if let Some(consumer) = groups.get(group) {
            return Ok(Arc::clone(consumer));
        }
        let context = Plain(Arc::clone(&self.connection));
        let consumer: BaseConsumer<Plain> = self
            .settings
            .consumer(group)
            .create_with_context(context)
            .map_err(|error| broker_error(&error, &self.connection))?;
        let consumer = Arc::new(consumer);
        groups.insert(group.to_owned(), Arc::clone(&consumer));
        Ok(consumer)
    }
}

fn read_offsets(
    found: &TopicPartitionList,
    partitions: &[TopicPartition],
) -> Result<Vec<Option<GroupOffset>>, KafkaError> {
    let mut offsets = Vec::with_capacity(partitions.len());
    for it in partitions {
        let Some(place) = found.find_partition(it.topic.name(), number(it.partition)) else {
            offsets.push(None);
            continue;
        };
        place.error()?;
        offsets.push(match place.offset() {
            Offset::Offset(offset) => {
                let offset = u64::try_from(offset).unwrap_or(0);
                Some(GroupOffset { offset, metadata: place.metadata().to_owned() })
            }
            _ => None,
        });
    }
    Ok(offsets)
}

/// A transaction on the offsets is open, or the group's coordinator is being made or moved.
fn is_unsettled(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnstableOffsetCommit
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::WaitingForCoordinator
        )
    )
}
