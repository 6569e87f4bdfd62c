//! Questions to the broker that belong to no partition's fetch: where partitions begin and end, who a group is.

use crate::clock::Deadline;
use crate::context::{Connection, Plain};
use crate::convert::number;
use crate::error::broker_error;
use crate::settings::KafkaSettings;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
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

/// Between two questions for a partition that has no leader.
const NO_LEADER: Duration = Duration::from_millis(20);

/// How long the reason of a failure may come after it.
const REASON: Duration = Duration::from_millis(100);

/// Between two looks whether an open transaction has ended.
const UNDECIDED: Duration = Duration::from_millis(3);

/// How often the bounds of followed partitions are asked for without anybody waiting, and how long that may take.
const FOLLOWED: Duration = Duration::from_millis(500);
const FOLLOWED_TIMEOUT: Duration = Duration::from_secs(2);

/// First offset and last stable offset.
pub(crate) type Bounds = (u64, u64);

/// Which end is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    /// The last stable offset: what consumers of committed records reach.
    Stable,
    /// The high watermark: what is durable, decided or not.
    Durable,
}

type Answer = Result<BTreeMap<TopicPartition, Bounds>, BrokerError>;

struct Ask {
    which: Which,
    partitions: Vec<TopicPartition>,
    reply: oneshot::Sender<Answer>,
}

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

/// Where partitions begin and end, as far as this process has heard.
#[derive(Debug, Default)]
pub(crate) struct Known {
    bounds: Mutex<BTreeMap<TopicPartition, Bounds>>,
}

impl Known {
    pub(crate) fn get(&self, partition: TopicPartition) -> Option<Bounds> {
        self.bounds.lock().get(&partition).copied()
    }

    /// An end that was seen. Answers come in any order: the cache goes only forward.
    pub(crate) fn saw_end(&self, partition: TopicPartition, end: u64) {
        if let Some(bounds) = self.bounds.lock().get_mut(&partition) {
            bounds.1 = bounds.1.max(end);
        }
    }

    fn saw(&self, partition: TopicPartition, (start, end): Bounds) {
        let mut all = self.bounds.lock();
        let bounds = all.entry(partition).or_insert((start, end));
        *bounds = (bounds.0.max(start), bounds.1.max(end));
    }
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

fn list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for it in partitions {
        list.add_partition(it.topic.name(), number(it.partition));
    }
    list
}

/// What an error means. Why the broker refused comes as an event of its own, perhaps a moment later.
fn refuse(consumer: &BaseConsumer<Plain>, error: &KafkaError) -> BrokerError {
    let deadline = Deadline::after(REASON);
    let connection = &consumer.context().0;
    while connection.refused().is_none() && !deadline.passed() {
        // No partition is assigned: there are no messages.
        let _ = consumer.poll(REASON / 10);
    }
    broker_error(error, connection)
}

/// Serves log lines and errors of a consumer that nobody polls.
fn serve(consumer: &BaseConsumer<Plain>) {
    for _ in 0..8 {
        // No partition is assigned: there are no messages.
        let _ = consumer.poll(Duration::ZERO);
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

fn has_no_leader(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::FencedLeaderEpoch
                | RDKafkaErrorCode::UnknownLeaderEpoch
                | RDKafkaErrorCode::OffsetNotAvailable
        )
    )
}

struct Asker {
    followed: Arc<Mutex<BTreeSet<TopicPartition>>>,
    stable: Arc<BaseConsumer<Plain>>,
    durable: BaseConsumer<Plain>,
    /// Whose topics' leaders were asked for.
    learnt: Mutex<BTreeSet<(Which, Topic)>>,
    known: Arc<Known>,
    timeout: Duration,
}

impl Asker {
    fn run(&self, asks: &mpsc::Receiver<Ask>) {
        let mut due = Deadline::after(FOLLOWED);
        loop {
            match asks.recv_timeout(due.left()) {
                Ok(first) => self.answer(first, asks),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            if due.passed() {
                let followed: Vec<TopicPartition> = self.followed.lock().iter().copied().collect();
                if let Err(error) = self.ask(Which::Stable, &followed, self.timeout.min(FOLLOWED_TIMEOUT)) {
                    tracing::debug!(%error, "the ends of followed partitions");
                }
                due = Deadline::after(FOLLOWED);
            }
        }
    }

    /// A first question for a topic whose leaders the client does not know takes most of a second more than asking for
    /// the leaders before it.
    fn learn_leaders(
        &self,
        which: Which,
        consumer: &BaseConsumer<Plain>,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) {
        let topics: BTreeSet<Topic> = partitions.iter().map(|it| it.topic).collect();
        for topic in topics {
            if self.learnt.lock().insert((which, topic))
                && let Err(error) = consumer.fetch_metadata(Some(topic.name()), timeout)
            {
                // The question itself will tell.
                tracing::debug!(%topic, %error, "leaders are not known");
                self.learnt.lock().remove(&(which, topic));
            }
        }
    }

    fn answer(&self, first: Ask, asks: &mpsc::Receiver<Ask>) {
        let mut together = vec![first];
        together.extend(asks.try_iter());
        together.retain(|it| !it.reply.is_closed());
        for which in [Which::Durable, Which::Stable] {
            let (these, others): (Vec<Ask>, Vec<Ask>) =
                together.into_iter().partition(|it| it.which == which);
            together = others;
            let mut partitions: Vec<TopicPartition> =
                these.iter().flat_map(|it| it.partitions.iter().copied()).collect();
            partitions.sort_unstable();
            partitions.dedup();
            let answer = self.ask(which, &partitions, self.timeout);
            for ask in these {
                // Whoever no longer waits needs no answer.
                let _ = ask.reply.send(answer.clone());
            }
        }
    }

    /// `ListOffsets` twice; on a consumer of committed records the latest offset is the last stable one.
    fn ask(&self, which: Which, partitions: &[TopicPartition], timeout: Duration) -> Answer {
        let mut found = BTreeMap::new();
        if partitions.is_empty() {
            return Ok(found);
        }
        let deadline = Deadline::after(timeout);
        let consumer = match which {
            Which::Stable => &*self.stable,
            Which::Durable => &self.durable,
        };
        self.learn_leaders(which, consumer, partitions, timeout);
        let starts = list_offsets(consumer, partitions, Offset::Beginning, deadline)?;
        let ends = list_offsets(consumer, partitions, Offset::End, deadline)?;
        consumer.context().0.answered();
        serve(consumer);
        for ((partition, start), end) in partitions.iter().zip(starts).zip(ends) {
            if which == Which::Stable {
                self.known.saw(*partition, (start, end));
            }
            found.insert(*partition, (start, end));
        }
        Ok(found)
    }
}

/// Asks again while a partition has no leader that answers: it is being made, or moved.
fn list_offsets(
    consumer: &BaseConsumer<Plain>,
    partitions: &[TopicPartition],
    which: Offset,
    deadline: Deadline,
) -> Result<Vec<u64>, BrokerError> {
    loop {
        match list_offsets_once(consumer, partitions, which, deadline) {
            Err(error) if !deadline.passed() && has_no_leader(&error) => std::thread::sleep(NO_LEADER),
            answer => return answer.map_err(|error| refuse(consumer, &error)),
        }
    }
}

fn list_offsets_once(
    consumer: &BaseConsumer<Plain>,
    partitions: &[TopicPartition],
    which: Offset,
    deadline: Deadline,
) -> Result<Vec<u64>, KafkaError> {
    let mut asked = list(partitions);
    asked.set_all_offsets(which)?;
    let found = consumer.offsets_for_times(asked, deadline.left().max(Duration::from_millis(1)))?;
    let mut offsets = Vec::with_capacity(partitions.len());
    for it in partitions {
        let place = found.find_partition(it.topic.name(), number(it.partition));
        let place = place.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::Fail))?;
        place.error()?;
        match place.offset() {
            Offset::Offset(offset) => offsets.push(u64::try_from(offset).unwrap_or(0)),
            _ => return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset)),
        }
    }
    Ok(offsets)
}
