//! Following topics: sequential reads from the buffers of a consumer that tails all their partitions.
//!
//! A transaction ends with a marker, which takes an offset and is no record. So the end of a partition usually lies
//! past the last record, and a tail that has read that record cannot know that there is no other before the end. When
//! somebody wants to reach an end, and the tail brings nothing, the offsets up to it are read once more by a consumer
//! that tells when it is at the end: what that read does not find is not there.

use crate::error::{KafkaClientError, log_error};
use crate::fetch::{self, Fetching, Membership};
use crate::log::KafkaLog;
use crate::settings::KafkaSettings;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::broker::BrokerError;
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;

/// How long the tail has to bring what is before the end.
const GRACE: Duration = Duration::from_millis(3);

/// How long a record that is there may take to come, before the tail is doubted again.
const COMING: Duration = Duration::from_millis(10);

/// Between two tries while the broker does not answer.
const AGAIN: Duration = Duration::from_millis(200);

const ONE: ReadLimit = ReadLimit { records_max: 1, bytes_max: 1 };

/// Where a partition's reader stands.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The offset it will ask for next.
    next_offset: Option<u64>,
    /// Nothing that it has not got is before this one.
    proven: u64,
    /// An end that somebody may want to reach.
    goal: u64,
}

struct Tail {
    fetching: Fetching,
    places: Vec<Mutex<Place>>,
}

/// A view of the log; see [`KafkaLog::follower`].
pub(crate) struct Follower {
    log: Arc<KafkaLog>,
    tails: BTreeMap<Topic, Tail>,
}

impl Follower {
    pub(crate) fn start(log: Arc<KafkaLog>, topics: &[Topic]) -> Result<Self, KafkaClientError> {
        let core = log.core();
        let mut tails = BTreeMap::new();
        for topic in topics {
            let partitions: Vec<u32> = (0..log.partitions(*topic)).collect();
            core.follow(partitions.iter().map(|it| TopicPartition::new(*topic, *it)));
            let mut config = core.settings.consumer(&format!("{}.follower", core.settings.deployment));
            // A partition that is begun waits for the fetch under way, which waits this long where nothing comes. A
            // process follows a handful of topics on which little happens: each asks the broker so often for nothing.
            config.set("fetch.wait.max.ms", "200");
            KafkaSettings::fetching(&mut config, 1 << 20, 4 << 20, 1 << 20);
            let places = partitions.iter().map(|_| Mutex::default()).collect();
            let told = *topic;
            let hear = Box::new(move |heard| {
                if let Err(error) = heard {
                    tracing::warn!(topic = %told, %error, "following is refused");
                }
            });
            let membership = Membership::Own(partitions);
            let fetching = fetch::start(core, &config, *topic, membership, hear)?;
            tails.insert(*topic, Tail { fetching, places });
        }
        Ok(Self { log, tails })
    }

    /// The tail of a partition and where its reader stands; `None` when the topic is not followed.
    fn tail(&self, at: TopicPartition) -> Result<Option<(&Tail, &Mutex<Place>)>, LogError> {
        let Some(tail) = self.tails.get(&at.topic) else { return Ok(None) };
        let place = tail.places.get(at.partition as usize).ok_or(LogError::NoSuchPartition(at))?;
        Ok(Some((tail, place)))
    }

    fn aim(&self, at: TopicPartition, end: u64) {
        let Ok(Some((tail, place))) = self.tail(at) else { return };
        let mut place = place.lock();
        if end > place.goal {
            place.goal = end;
            drop(place);
            tail.moved(at);
        }
    }

    async fn wait(
        &self,
        tail: &Tail,
        place: &Mutex<Place>,
        at: TopicPartition,
        offset: u64,
    ) -> Result<(), LogError> {
        let number = at.partition;
        loop {
            tail.stand(place, at, offset)?;
            let Some(changed) = tail.fetching.buffers.changed(number) else {
                return Err(LogError::NoSuchPartition(at));
            };
            let mut changed = std::pin::pin!(changed.notified());
            changed.as_mut().enable();
            let buffers = &tail.fetching.buffers;
            let Place { proven, goal, .. } = *place.lock();
            if buffers.buffered(number) > 0 || buffers.has_failed(number) || proven > offset {
                return Ok(());
            }
            if goal <= offset {
                changed.await;
            } else if tokio::time::timeout(GRACE, changed.as_mut()).await.is_err() {
                let wait = self.prove(place, at, offset).await;
                // Moved or not, it is looked at again.
                let _ = tokio::time::timeout(wait, changed).await;
            }
        }
    }

    /// Looks whether there is anything from `offset` on; how long to wait before looking again.
    async fn prove(&self, place: &Mutex<Place>, at: TopicPartition, offset: u64) -> Duration {
        match self.log.read_at(at, offset, ONE).await {
            Ok((records, next_offset)) if records.is_empty() && next_offset > offset => {
                let mut place = place.lock();
                if place.next_offset == Some(offset) {
                    place.proven = place.proven.max(next_offset);
                }
                Duration::ZERO
            }
            // The tail brings it, or has failed where this one failed; or it is not decided yet.
            Ok(_) | Err(LogError::OutOfRange { .. }) => COMING,
            Err(error) => {
                tracing::debug!(partition = %at, %error, "an end cannot be proven");
                AGAIN
            }
        }
    }

    async fn take(
        &self,
        tail: &Tail,
        place: &Mutex<Place>,
        at: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<(Vec<Record>, u64), LogError> {
        tail.stand(place, at, offset)?;
        match tail.fetching.buffers.take(at.partition, limit) {
            Ok(records) => {
                let mut place = place.lock();
                let next_offset = records.last().map_or(offset, |it| it.offset + 1).max(place.proven);
                place.next_offset = Some(next_offset);
                drop(place);
                self.log.core().known.saw_end(at, next_offset);
                Ok((records, next_offset))
            }
            Err(error) => {
                // Whatever comes next begins anew.
                place.lock().next_offset = None;
                match error {
                    BrokerError::OutOfRange { .. } => {
                        let (start, end) = self.log.bounds(at).await?;
                        Err(LogError::OutOfRange { partition: at, start, end, asked: offset })
                    }
                    BrokerError::Refused(_) => Err(log_error(error)),
                    _ => Ok((Vec::new(), offset)),
                }
            }
        }
    }
}

impl Tail {
    /// Makes the tail bring what is from `offset` on.
    fn stand(&self, place: &Mutex<Place>, at: TopicPartition, offset: u64) -> Result<(), LogError> {
        let mut place = place.lock();
        if place.next_offset == Some(offset) {
            return Ok(());
        }
        // Nobody waits for the seek: a failed one shows in the buffer.
        self.fetching.fetch(at, offset).map_err(log_error)?;
        *place = Place { next_offset: Some(offset), proven: offset, goal: place.goal };
        Ok(())
    }

    fn moved(&self, at: TopicPartition) {
        if let Some(changed) = self.fetching.buffers.changed(at.partition) {
            changed.notify_waiters();
        }
    }
}

impl Log for Follower {
    fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }

    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        self.log.append(records)
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        Box::pin(async move { Ok(self.read_on(from, offset, limit).await?.0) })
    }

    fn read_on(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<(Vec<Record>, u64), LogError>> {
        Box::pin(async move {
            match self.tail(from)? {
                Some((tail, place)) => self.take(tail, place, from, offset, limit).await,
                None => self.log.read_at(from, offset, limit).await,
            }
        })
    }

    fn refresh<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(async move {
            self.log.refresh(partitions).await?;
            for partition in partitions {
                self.aim(*partition, self.log.end_offset(*partition)?);
            }
            Ok(())
        })
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            match self.tail(partition)? {
                Some((tail, place)) => self.wait(tail, place, partition, offset).await,
                None => self.log.wait_past(partition, offset).await,
            }
        })
    }

    fn start_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.log.start_offset(partition)
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        let end = self.log.end_offset(partition)?;
        // Whoever asks may want to follow to it.
        self.aim(partition, end);
        Ok(end)
    }
}
