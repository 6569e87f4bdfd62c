//! Where partitions begin and end: what is asked, and what is known.

use crate::clock::Deadline;
use crate::context::Plain;
use crate::convert::number;
use crate::error::broker_error;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tillstream_log::TopicPartition;
use tillstream_log::broker::BrokerError;
use tillstream_schemas::Topic;
use tokio::sync::oneshot;

/// Between two questions for a partition that has no leader.
const NO_LEADER: Duration = Duration::from_millis(20);

/// How long the reason of a failure may come after it.
const REASON: Duration = Duration::from_millis(100);

/// How often the bounds of followed partitions are asked for without anybody waiting, and how long that may take.
const FOLLOWED: Duration = Duration::from_millis(500);
const FOLLOWED_TIMEOUT: Duration = Duration::from_secs(2);

/// First offset and last stable offset.
pub(crate) type Bounds = (u64, u64);

/// Which end is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Which {
    /// The last stable offset: what consumers of committed records reach.
    Stable,
    /// The high watermark: what is durable, decided or not.
    Durable,
}

/// The bounds of all that was asked for.
pub(crate) type Answer = Result<BTreeMap<TopicPartition, Bounds>, BrokerError>;

/// A question, and who waits for the answer.
pub(crate) struct Ask {
    pub(crate) which: Which,
    pub(crate) partitions: Vec<TopicPartition>,
    pub(crate) reply: oneshot::Sender<Answer>,
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

/// A list for the library.
pub(crate) fn list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for it in partitions {
        list.add_partition(it.topic.name(), number(it.partition));
    }
    list
}

/// What an error means. Why the broker refused comes as an event of its own, perhaps a moment later.
pub(crate) fn refuse(consumer: &BaseConsumer<Plain>, error: &KafkaError) -> BrokerError {
    let deadline = Deadline::after(REASON);
    let connection = &consumer.context().0;
    while connection.refused().is_none() && !deadline.passed() {
        // No partition is assigned: there are no messages.
        let _ = consumer.poll(REASON / 10);
    }
    broker_error(error, connection)
}

/// Serves log lines and errors of a consumer that nobody polls.
pub(crate) fn serve(consumer: &BaseConsumer<Plain>) {
    for _ in 0..8 {
        // No partition is assigned: there are no messages.
        let _ = consumer.poll(Duration::ZERO);
    }
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

/// What the thread that asks works with.
pub(crate) struct Asker {
    pub(crate) followed: Arc<Mutex<BTreeSet<TopicPartition>>>,
    pub(crate) stable: Arc<BaseConsumer<Plain>>,
    pub(crate) durable: BaseConsumer<Plain>,
    /// Whose topics' leaders were asked for.
    pub(crate) learnt: Mutex<BTreeSet<(Which, Topic)>>,
    pub(crate) known: Arc<Known>,
    pub(crate) timeout: Duration,
}

impl Asker {
    pub(crate) fn run(&self, asks: &mpsc::Receiver<Ask>) {
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
